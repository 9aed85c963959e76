/* packed_avx2.c - packed products, eight floats at a time: 12 of 16 registers hold the tile. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>

#include "tensor/dtype.h"

enum { LANES = 8 };
#define UNROLL       _Pragma("GCC unroll 16")
#define TILE_ROWS    4
#define TILE_VECTORS 3

typedef __m256 vec;

static inline vec  v_zero(void) { return _mm256_setzero_ps(); }
static inline vec  v_set1(float x) { return _mm256_set1_ps(x); }
static inline vec  v_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void v_store(float *p, vec x) { _mm256_storeu_ps(p, x); }
static inline vec  v_add(vec a, vec b) { return _mm256_add_ps(a, b); }
static inline vec  v_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
static inline vec  v_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
static inline vec  v_max(vec a, vec b) { return _mm256_max_ps(a, b); }
static inline vec  v_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }

static inline __m256i first(size_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline vec v_load_some(const float *p, size_t n) { return _mm256_maskload_ps(p, first(n)); }

static inline void v_store_some(float *p, vec x, size_t n) { _mm256_maskstore_ps(p, first(n), x); }

static inline vec v_load_type(const void *p, wf_dtype type, size_t n)
{
    if (type == WF_F32) return n == LANES ? v_load(p) : v_load_some(p, n);
    __m128i h = _mm_setzero_si128();
    if (n == LANES) h = _mm_loadu_si128(p);
    else memcpy(&h, p, 2 * n);
    if (type == WF_F16) return _mm256_cvtph_ps(h);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

static inline vec v_round(vec x)
{
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* x 2^n for whole n; 0 where the exponent would leave what float32 has */
static inline vec v_scale2(vec x, vec n)
{
    __m256i e = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    vec small = _mm256_cmp_ps(n, _mm256_set1_ps(-126.0f), _CMP_LT_OQ);
    return _mm256_andnot_ps(small,
                            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), e)));
}

static inline vec v_finite_or_zero(vec x)
{
    return _mm256_andnot_ps(_mm256_cmp_ps(x, _mm256_set1_ps(-INFINITY), _CMP_EQ_OQ), x);
}

static inline bool v_all_ones(vec x)
{
    return _mm256_movemask_ps(_mm256_cmp_ps(x, _mm256_set1_ps(1.0f), _CMP_EQ_OQ)) == 0xff;
}

static inline void transpose(vec *r)
{
    vec t[8], u[8];
    UNROLL for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < 8; i += 4)
        UNROLL for (int h = 0; h < 2; h++) {
            __m256d a = _mm256_castps_pd(t[i + h]), b = _mm256_castps_pd(t[i + 2 + h]);
            u[i + 2 * h] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
            u[i + 2 * h + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
        }
    UNROLL for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(u[i], u[4 + i], 0x20);
        r[4 + i] = _mm256_permute2f128_ps(u[i], u[4 + i], 0x31);
    }
}

#define V_DOT v_fma
#define PAIRS 0
#include "tensor/packed_kernels.h"

const wf_packed wf_packed_avx2 = {
    "avx2", LANES, TILE_ROWS, TILE_VECTORS * LANES, multiply, multiply_turned, pack,
    WINOGRAD, softmax,
};
#else
typedef int wf_packed_avx2_unused; /* a translation unit may not be empty */
#endif
