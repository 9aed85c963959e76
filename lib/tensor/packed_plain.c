/* packed_plain.c - packed products for any processor, four floats at a time. No float32 tier of its
 * own: it stands beside the pairs of packed_plain_bf16.c. */
#include "tensor/vector_plain.h"

/* A long sum's own rounding is more than that of its products. */
static inline vec multiply_add(vec a, vec b, vec c) { return a * b + c; }

#define V_DOT multiply_add
#define PAIRS 0
#include "tensor/packed_kernels.h"

const wf_packed wf_packed_plain = {
    "plain", LANES, TILE_ROWS, TILE_VECTORS * LANES, multiply, multiply_turned, pack,
    WINOGRAD, softmax,
};
