/* packed_plain_bf16.c - packed products of pairs of bfloat16 on any processor: what a bfloat16 dot
 * product computes, by float32 multiplications and additions.
 *
 * Products of two bfloat16 are exact in float32. A sum takes the pair's second product and then its
 * first, each rounded: as AVX512-BF16 does, so that a layer has the bits of packed_avx512_bf16.c
 * (but for numbers below 2^-126, which that instruction takes as 0). Nothing is gained in speed: it
 * is for seeing what bfloat16 does to a picture, and for testing it, where a processor has none. */
#include "tensor/vector_plain.h"

static inline vec first_of(vec pair) { return (vec)((v_bits)pair << 16); }
static inline vec second_of(vec pair) { return (vec)((v_bits)pair & 0xffff0000u); }

static inline vec dot(vec a, vec b, vec c)
{
    return c + second_of(a) * second_of(b) + first_of(a) * first_of(b);
}

/* Rounded to nearest even, in the upper half of each lane. A NaN stays one: its last bits cannot
 * carry into the exponent once the quiet bit is all that is left of them. */
static inline v_bits narrowed(vec x)
{
    v_bits b = (v_bits)x, lowest = b >> 16 & 1;
    v_bits nan = (v_bits)(x != x);
    v_bits rounded = b + 0x7fff + lowest;
    return ((nan & (b | 0x00400000)) | (~nan & rounded)) & 0xffff0000u;
}

/* Of each lane the pair (first, second). */
static inline vec v_pair(vec first, vec second)
{
    return (vec)(narrowed(first) >> 16 | narrowed(second));
}

static inline void v_store_narrow(float *to, vec x)
{
    v_bits b = narrowed(x) >> 16;
    const uint16_t half[LANES] = { (uint16_t)b[0], (uint16_t)b[1], (uint16_t)b[2], (uint16_t)b[3] };
    memcpy(to, half, sizeof half);
}

#define V_DOT dot
#define PAIRS 1
#include "tensor/packed_tiles.h"
#include "tensor/packed_winograd.h"

/* Pairs of neighbours among n <= 8 elements. */
static inline vec load_pairs(const uint8_t *p, wf_dtype type, size_t n)
{
    const size_t size = type == WF_F32 ? 4 : 2;
    vec low = v_load_type(p, type, WF_MIN(n, (size_t)LANES)), high = v_zero();
    if (n > LANES) high = v_load_type(p + LANES * size, type, n - LANES);
    return v_pair((vec){ low[0], low[2], high[0], high[2] },
                  (vec){ low[1], low[3], high[1], high[3] });
}

static void pack_pairs(float *panel, size_t width, const void *from, wf_dtype type, size_t stride,
                       size_t n, size_t k)
{
    size_t size = type == WF_F32 ? 4 : 2, bytes = stride * size;
    for (size_t col = 0; col < width; col += LANES) {
        size_t rows = col < n ? WF_MIN((size_t)LANES, n - col) : 0;
        const uint8_t *at = from;
        at += WF_MIN(col, n) * bytes;
        for (size_t i = 0; i < k; i += 2 * LANES) {
            size_t some = WF_MIN((size_t)(2 * LANES), k - i);
            vec t[LANES];
            for (size_t r = 0; r < LANES; r++)
                t[r] = r < rows ? load_pairs(at + r * bytes + i * size, type, some) : v_zero();
            transpose(t);
            for (size_t r = 0; r < (some + 1) / 2; r++)
                v_store(panel + (i / 2 + r) * width + col, t[r]);
        }
    }
}

static void narrow(float *to, size_t ld, const float *x, size_t ldx, size_t rows, size_t k)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < k; i += 2 * LANES) {
            size_t some = WF_MIN((size_t)(2 * LANES), k - i);
            const void *at = x + r * ldx + i;
            v_store_some(to + r * ld + i / 2, load_pairs(at, WF_F32, some), (some + 1) / 2);
        }
}

static void weave(float *to, size_t ld, const float *x, size_t ldx, size_t rows, size_t n)
{
    for (size_t r = 0; r < rows; r += 2)
        for (size_t i = 0; i < n; i += LANES) {
            size_t some = WF_MIN((size_t)LANES, n - i);
            vec first = v_load_some(x + r * ldx + i, some), second = v_zero();
            if (r + 1 < rows) second = v_load_some(x + (r + 1) * ldx + i, some);
            v_store_some(to + r / 2 * ld + i, v_pair(first, second), some);
        }
}

const wf_pairs wf_pairs_plain = {
    multiply, multiply_turned, pack_pairs, narrow, weave, softmax, WINOGRAD,
};
