/* packed_avx512_bf16.c - packed products of pairs of bfloat16, by the dot product of AVX512-BF16.
 *
 * Where a float stood in x or in a panel, a pair of neighbours of k stands: the tiles are the same,
 * and each step does twice the work. Sums stay in float32. */
#if defined(__x86_64__)
#include "tensor/vector_avx512.h"

static inline vec dot(vec a, vec b, vec c)
{
    return _mm512_dpbf16_ps(c, (__m512bh)_mm512_castps_si512(a), (__m512bh)_mm512_castps_si512(b));
}

/* Of each lane the pair (first, second), rounded to nearest even. */
static inline vec v_pair(vec first, vec second)
{
    const __m512i weave = _mm512_set_epi16(
        31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4,
        19, 3, 18, 2, 17, 1, 16, 0);
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(second, first);
    return _mm512_castsi512_ps(_mm512_permutexvar_epi16(weave, both));
}

static inline void v_store_narrow(float *to, vec x)
{
    _mm256_storeu_si256((void *)to, (__m256i)_mm512_cvtneps_pbh(x));
}

#define V_DOT dot
#define PAIRS 1
#include "tensor/packed_tiles.h"
#include "tensor/packed_winograd.h"

/* Pairs of neighbours. */
static inline vec narrow_pairs(vec low, vec high)
{
    return _mm512_castsi512_ps((__m512i)_mm512_cvtne2ps_pbh(high, low));
}

/* The same among n <= 32 elements. */
static inline vec load_pairs(const uint8_t *p, wf_dtype type, size_t n)
{
    const size_t size = type == WF_F32 ? 4 : 2;
    if (type == WF_BF16)
        return _mm512_castsi512_ps(
            _mm512_maskz_loadu_epi16((__mmask32)(n == 32 ? ~0u : (1u << n) - 1), p));
    vec low = v_load_type(p, type, WF_MIN(n, (size_t)LANES)), high = v_zero();
    if (n > LANES) high = v_load_type(p + LANES * size, type, n - LANES);
    return narrow_pairs(low, high);
}

static void pack_pairs(float *panel, size_t width, const void *from, wf_dtype type, size_t stride,
                       size_t n, size_t k)
{
    size_t bytes = stride * (type == WF_F32 ? 4 : 2), size = type == WF_F32 ? 4 : 2;
    for (size_t col = 0; col < width; col += LANES) {
        size_t rows = col < n ? WF_MIN((size_t)LANES, n - col) : 0;
        const uint8_t *first_row = from;
        first_row += WF_MIN(col, n) * bytes;
        for (size_t i = 0; i < k; i += 2 * LANES) {
            size_t some = WF_MIN((size_t)(2 * LANES), k - i);
            size_t ahead = pack_ahead(bytes, i * size, k * size);
            vec t[LANES];
            UNROLL for (size_t r = 0; r < LANES; r++) {
                t[r] = v_zero();
                if (r >= rows) continue;
                const uint8_t *at = first_row + r * bytes + i * size;
                t[r] = load_pairs(at, type, some);
                __builtin_prefetch(first_row + r * bytes + ahead);
            }
            transpose(t);
            for (size_t r = 0; r < (some + 1) / 2; r++)
                v_store(panel + (i / 2 + r) * width + col, t[r]);
        }
    }
}

static void narrow(float *to, size_t ld, const float *x, size_t ldx, size_t rows, size_t k)
{
    for (size_t r = 0; r < rows; r++, to += ld, x += ldx) {
        size_t i = 0;
        for (; i + 2 * LANES <= k; i += 2 * LANES) {
            __builtin_prefetch(x + ldx + i); /* the next row, before the processor asks */
            __builtin_prefetch(x + ldx + i + LANES);
            v_store(to + i / 2, narrow_pairs(v_load(x + i), v_load(x + i + LANES)));
        }
        if (i == k) continue;
        size_t some = k - i;
        vec low = v_load_some(x + i, WF_MIN(some, (size_t)LANES));
        vec high = some > LANES ? v_load_some(x + i + LANES, some - LANES) : v_zero();
        v_store_some(to + i / 2, narrow_pairs(low, high), (some + 1) / 2);
    }
}

static void weave(float *to, size_t ld, const float *x, size_t ldx, size_t rows, size_t n)
{
    for (size_t r = 0; r < rows; r += 2, to += ld, x += 2 * ldx) {
        const float *below = r + 1 < rows ? x + ldx : NULL;
        size_t i = 0;
        for (; i + LANES <= n && below != NULL; i += LANES)
            v_store(to + i, v_pair(v_load(x + i), v_load(below + i)));
        for (; i < n; i += LANES) {
            size_t some = WF_MIN((size_t)LANES, n - i);
            vec second = below != NULL ? v_load_some(below + i, some) : v_zero();
            v_store_some(to + i, v_pair(v_load_some(x + i, some), second), some);
        }
    }
}

const wf_pairs wf_pairs_avx512_bf16 = {
    multiply, multiply_turned, pack_pairs, narrow, weave, softmax, WINOGRAD,
};
#else
typedef int wf_packed_avx512_bf16_unused; /* a translation unit may not be empty */
#endif
