/* packed_avx512.c - packed products, sixteen floats at a time: 24 of 32 registers hold the tile. */
#if defined(__x86_64__)
#include "tensor/vector_avx512.h"

#define V_DOT v_fma
#define PAIRS 0
#include "tensor/packed_kernels.h"

const wf_packed wf_packed_avx512 = {
    "avx512", LANES, TILE_ROWS, TILE_VECTORS * LANES, multiply, multiply_turned, pack,
    WINOGRAD, softmax,
};
#else
typedef int wf_packed_avx512_unused; /* a translation unit may not be empty */
#endif
