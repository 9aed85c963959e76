/* vector_avx512.h - a vector of sixteen floats, for packed_tiles.h and packed_kernels.h. */
#ifndef WF_VECTOR_AVX512_H
#define WF_VECTOR_AVX512_H

#include <immintrin.h>
#include <math.h>

#include "tensor/dtype.h"

enum { LANES = 16 };
#define UNROLL       _Pragma("GCC unroll 16")
#define TILE_ROWS    8
#define TILE_VECTORS 3

typedef __m512 vec;

static inline vec  v_zero(void) { return _mm512_setzero_ps(); }
static inline vec  v_set1(float x) { return _mm512_set1_ps(x); }
static inline vec  v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, vec x) { _mm512_storeu_ps(p, x); }
static inline vec  v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
static inline vec  v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
static inline vec  v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
static inline vec  v_max(vec a, vec b) { return _mm512_max_ps(a, b); }
static inline vec  v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }

static inline __mmask16 first(size_t n) { return (__mmask16)((1u << n) - 1); }

static inline vec v_load_some(const float *p, size_t n)
{
    return _mm512_maskz_loadu_ps(first(n), p);
}

static inline void v_store_some(float *p, vec x, size_t n)
{
    _mm512_mask_storeu_ps(p, first(n), x);
}

static inline vec v_load_type(const void *p, wf_dtype type, size_t n)
{
    if (type == WF_F32) return _mm512_maskz_loadu_ps(first(n), p);
    __m256i h = _mm256_maskz_loadu_epi16(first(n), p);
    if (type == WF_F16) return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

static inline vec v_round(vec x)
{
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* x 2^n for whole n */
static inline vec v_scale2(vec x, vec n) { return _mm512_scalef_ps(x, n); }

static inline vec v_finite_or_zero(vec x)
{
    return _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask(x, _mm512_set1_ps(-INFINITY), _CMP_EQ_OQ),
                              _mm512_setzero_ps());
}

static inline bool v_all_ones(vec x)
{
    return _mm512_cmp_ps_mask(x, _mm512_set1_ps(1.0f), _CMP_EQ_OQ) == 0xffff;
}

/* Pairs of rows, then of pairs within each quarter, then the quarters. */
static inline void transpose(vec *r)
{
    vec t[16], u[16];
    UNROLL for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4)
        UNROLL for (int h = 0; h < 2; h++) {
            __m512d a = _mm512_castps_pd(t[i + h]), b = _mm512_castps_pd(t[i + 2 + h]);
            u[i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            u[i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    UNROLL for (int i = 0; i < 4; i++) {
        vec a = _mm512_shuffle_f32x4(u[i], u[4 + i], 0x88);
        vec b = _mm512_shuffle_f32x4(u[i], u[4 + i], 0xdd);
        vec c = _mm512_shuffle_f32x4(u[8 + i], u[12 + i], 0x88);
        vec d = _mm512_shuffle_f32x4(u[8 + i], u[12 + i], 0xdd);
        r[i] = _mm512_shuffle_f32x4(a, c, 0x88);
        r[8 + i] = _mm512_shuffle_f32x4(a, c, 0xdd);
        r[4 + i] = _mm512_shuffle_f32x4(b, d, 0x88);
        r[12 + i] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
}

/* LANES rows of F16 or BF16, `bytes` apart, turned: half as wide, they are turned before they are
 * widened. */
static inline __attribute__((always_inline)) void load_turned(vec *t, const uint8_t *from,
                                                              size_t bytes, wf_dtype type)
{
    __m256i a[16], b[16];
    UNROLL for (size_t r = 0; r < 16; r++)
        a[r] = _mm256_loadu_si256((const __m256i *)(const void *)(from + r * bytes));
    UNROLL for (int i = 0; i < 16; i += 2) {
        b[i] = _mm256_unpacklo_epi16(a[i], a[i + 1]);
        b[i + 1] = _mm256_unpackhi_epi16(a[i], a[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4)
        UNROLL for (int h = 0; h < 2; h++) {
            a[i + 2 * h] = _mm256_unpacklo_epi32(b[i + h], b[i + 2 + h]);
            a[i + 2 * h + 1] = _mm256_unpackhi_epi32(b[i + h], b[i + 2 + h]);
        }
    UNROLL for (int i = 0; i < 16; i += 8)
        UNROLL for (int q = 0; q < 4; q++) {
            b[i + 2 * q] = _mm256_unpacklo_epi64(a[i + q], a[i + 4 + q]);
            b[i + 2 * q + 1] = _mm256_unpackhi_epi64(a[i + q], a[i + 4 + q]);
        }
    UNROLL for (int i = 0; i < 16; i++) {
        __m256i h = i < 8 ? _mm256_permute2x128_si256(b[i], b[8 + i], 0x20)
                          : _mm256_permute2x128_si256(b[i - 8], b[i], 0x31);
        if (type == WF_F16) t[i] = _mm512_cvtph_ps(h);
        else t[i] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
    }
}
#define LOAD_TURNED load_turned

#endif
