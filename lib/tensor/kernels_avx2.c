/* kernels_avx2.c - eight floats at a time, for processors with AVX2, FMA and F16C.
 *
 * exp: x = n ln 2 + r with |r| <= ln 2 / 2, e^r by its Taylor series to r^7 (relative error 5e-9
 * before rounding), 2^n into the exponent. erf: 1 - exp(-t P(t)) with P of degree 7 fitted to
 * -ln(erfc t) / t on [0, 4], beyond which float32 knows only 1 (absolute error 8e-8). Tails of a
 * row go through a padded vector, so that an element's result does not depend on where in the row
 * it stands. */
#if defined(__x86_64__)
#include <immintrin.h>

#include "tensor/dtype.h"
#include "tensor/kernels.h"
#include "tensor/kernels_back.h"

static inline __m256 exp8(__m256 x)
{
    /* These return their second operand where one is NaN: x stands there, so that a NaN stays one.
     */
    x = _mm256_min_ps(_mm256_set1_ps(88.0f), _mm256_max_ps(_mm256_set1_ps(-87.3f), x));
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693145752f), x);      /* ln 2, its upper bits */
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(1.42860677e-6f), r);           /* and the rest         */
    __m256 p = _mm256_set1_ps(1.0f / 5040);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    __m256i e = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), e));
}

static inline __m256 erf8(__m256 x)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 t = _mm256_min_ps(_mm256_andnot_ps(sign, x), _mm256_set1_ps(4.0f));
    __m256 p = _mm256_set1_ps(3.14401586e-05f);
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(-0.000308802089f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.00103240111f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.000536934414f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(-0.019583961f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.102919616f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.636597753f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(1.1283803f));
    __m256 y = _mm256_sub_ps(_mm256_set1_ps(1.0f), exp8(_mm256_xor_ps(_mm256_mul_ps(p, t), sign)));
    return _mm256_or_ps(y, _mm256_and_ps(x, sign));
}

static inline __m256 silu8(__m256 x, __m256 slope)
{
    __m256 e = exp8(_mm256_xor_ps(_mm256_mul_ps(x, slope), _mm256_set1_ps(-0.0f)));
    return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), e));
}

static inline __m256 gelu8(__m256 x)
{
    __m256 e = erf8(_mm256_mul_ps(x, _mm256_set1_ps(0.70710678f)));
    __m256 half = _mm256_mul_ps(x, _mm256_set1_ps(0.5f));
    return _mm256_fmadd_ps(half, e, half);
}

/* The first n (< 8) floats of p, the rest zero; and back. */
static inline __m256 load_tail(const float *p, size_t n)
{
    float t[8] = {0};
    memcpy(t, p, n * sizeof *t);
    return _mm256_loadu_ps(t);
}

static inline void store_tail(float *p, __m256 v, size_t n)
{
    float t[8];
    _mm256_storeu_ps(t, v);
    memcpy(p, t, n * sizeof *t);
}

static void widen_f16(float *dst, const void *src, size_t n)
{
    const uint8_t *s = src;
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(
            dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(s + 2 * i))));
    if (i < n) {
        uint8_t t[16] = {0};
        memcpy(t, s + 2 * i, 2 * (n - i));
        store_tail(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)t)),
                   n - i);
    }
}

static void widen_bf16(float *dst, const void *src, size_t n)
{
    const uint8_t *s = src;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m128i h = _mm_loadu_si128((const __m128i *)(const void *)(s + 2 * i));
        _mm256_storeu_ps(dst + i,
                         _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)));
    }
    wf_widen_any(dst + i, s + 2 * i, WF_BF16, n - i);
}

static void silu(float *y, const float *x, size_t n)
{
    const __m256 one = _mm256_set1_ps(1.0f);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, silu8(_mm256_loadu_ps(x + i), one));
    if (i < n) store_tail(y + i, silu8(load_tail(x + i, n - i), one), n - i);
}

static void quick_gelu(float *y, const float *x, size_t n)
{
    const __m256 slope = _mm256_set1_ps(1.702f);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, silu8(_mm256_loadu_ps(x + i), slope));
    if (i < n) store_tail(y + i, silu8(load_tail(x + i, n - i), slope), n - i);
}

static void gelu(float *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, gelu8(_mm256_loadu_ps(x + i)));
    if (i < n) store_tail(y + i, gelu8(load_tail(x + i, n - i)), n - i);
}

static void geglu(float *y, const float *value, const float *gate, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(
            y + i, _mm256_mul_ps(_mm256_loadu_ps(value + i), gelu8(_mm256_loadu_ps(gate + i))));
    if (i < n)
        store_tail(y + i,
                   _mm256_mul_ps(load_tail(value + i, n - i), gelu8(load_tail(gate + i, n - i))),
                   n - i);
}

static void affine(float *y, const float *x, const float *a, const float *b, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_fmadd_ps(_mm256_loadu_ps(x + i), _mm256_loadu_ps(a + i),
                                                _mm256_loadu_ps(b + i)));
    if (i < n)
        store_tail(y + i,
                   _mm256_fmadd_ps(load_tail(x + i, n - i), load_tail(a + i, n - i),
                                   load_tail(b + i, n - i)),
                   n - i);
}

/* A float's square is exact in a double, so a fused product rounds as a product and a sum do. */
static void sums(double *sum, double *square, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (size_t j = i; j < i + 8; j += 4) {
            __m256d v = _mm256_cvtps_pd(_mm_loadu_ps(x + j));
            _mm256_storeu_pd(sum + j, _mm256_add_pd(_mm256_loadu_pd(sum + j), v));
            _mm256_storeu_pd(square + j, _mm256_fmadd_pd(v, v, _mm256_loadu_pd(square + j)));
        }
    for (; i < n; i++) {
        double v = x[i];
        sum[i] += v;
        square[i] += v * v;
    }
}

static inline double sum_pd(__m256d v)
{
    double t[4];
    _mm256_storeu_pd(t, v);
    return (t[0] + t[1]) + (t[2] + t[3]);
}

static inline __m256d widen4(const float *x) { return _mm256_cvtps_pd(_mm_loadu_ps(x)); }

/* Sums run in four vectors: one alone would wait for itself. */
static void layer_norm(float *y, const float *x, const float *w, const float *b, float eps,
                       size_t n)
{
    __m256d s[4], d, zero = _mm256_setzero_pd();
    double sum, square;
    size_t i;
    for (int j = 0; j < 4; j++) s[j] = zero;
    for (i = 0; i + 16 <= n; i += 16)
        for (int j = 0; j < 4; j++) s[j] = _mm256_add_pd(s[j], widen4(x + i + 4 * j));
    for (; i + 4 <= n; i += 4) s[0] = _mm256_add_pd(s[0], widen4(x + i));
    sum = sum_pd(_mm256_add_pd(_mm256_add_pd(s[0], s[1]), _mm256_add_pd(s[2], s[3])));
    for (; i < n; i++) sum += x[i];
    double mean = sum / (double)n;
    const __m256d middle = _mm256_set1_pd(mean);
    for (int j = 0; j < 4; j++) s[j] = zero;
    for (i = 0; i + 16 <= n; i += 16)
        for (int j = 0; j < 4; j++) {
            d = _mm256_sub_pd(widen4(x + i + 4 * j), middle);
            s[j] = _mm256_fmadd_pd(d, d, s[j]);
        }
    for (; i + 4 <= n; i += 4) {
        d = _mm256_sub_pd(widen4(x + i), middle);
        s[0] = _mm256_fmadd_pd(d, d, s[0]);
    }
    square = sum_pd(_mm256_add_pd(_mm256_add_pd(s[0], s[1]), _mm256_add_pd(s[2], s[3])));
    for (; i < n; i++) square += (x[i] - mean) * (x[i] - mean);
    float inverse =
        (float)(1.0 / _mm_cvtsd_f64(_mm_sqrt_pd(_mm_set1_pd(square / (double)n + eps))));
    float shift = (float)mean;
    const __m256 by = _mm256_set1_ps(inverse), from = _mm256_set1_ps(shift);
    for (i = 0; i + 8 <= n; i += 8) {
        __m256 v = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i), from), by);
        v = _mm256_add_ps(_mm256_mul_ps(v, _mm256_loadu_ps(w + i)), _mm256_loadu_ps(b + i));
        _mm256_storeu_ps(y + i, v);
    }
    for (; i < n; i++) y[i] = (x[i] - shift) * inverse * w[i] + b[i];
}

static inline float sum_ps(__m256 v)
{
    float t[8];
    _mm256_storeu_ps(t, v);
    return ((t[0] + t[1]) + (t[2] + t[3])) + ((t[4] + t[5]) + (t[6] + t[7]));
}

static float exp_sum(float *s, float scale, float top, size_t n)
{
    /* Rounded after the product, as the caller rounded top: the largest score gives exactly exp(0),
     * however large it is. A fused product would leave the rounding error of top. */
    const __m256 a = _mm256_set1_ps(scale), b = _mm256_set1_ps(top);
    __m256 sum = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 e = exp8(_mm256_sub_ps(_mm256_mul_ps(_mm256_loadu_ps(s + i), a), b));
        _mm256_storeu_ps(s + i, e);
        sum = _mm256_add_ps(sum, e);
    }
    float total = sum_ps(sum);
    if (i < n) {
        store_tail(s + i, exp8(_mm256_sub_ps(_mm256_mul_ps(load_tail(s + i, n - i), a), b)), n - i);
        for (; i < n; i++) total += s[i];
    }
    return total;
}

static float max(const float *s, size_t n)
{
    float m = -3.4e38f;
    size_t i = 0;
    if (n >= 8) {
        __m256 v = _mm256_loadu_ps(s);
        for (i = 8; i + 8 <= n; i += 8) v = _mm256_max_ps(v, _mm256_loadu_ps(s + i));
        float t[8];
        _mm256_storeu_ps(t, v);
        for (int j = 0; j < 8; j++) m = t[j] > m ? t[j] : m;
    }
    for (; i < n; i++) m = s[i] > m ? s[i] : m;
    return m;
}

static void scale(float *y, float a, size_t n)
{
    const __m256 by = _mm256_set1_ps(a);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, _mm256_mul_ps(_mm256_loadu_ps(y + i), by));
    for (; i < n; i++) y[i] *= a;
}

static void add(float *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_add_ps(_mm256_loadu_ps(y + i), _mm256_loadu_ps(x + i)));
    for (; i < n; i++) y[i] += x[i];
}

/* of x s(a x), with s the logistic function: s + a x s (1 - s) */
static inline __m256 logistic_slope8(__m256 x, __m256 a)
{
    const __m256 one = _mm256_set1_ps(1.0f);
    __m256 t = _mm256_mul_ps(x, a), e = exp8(_mm256_xor_ps(t, _mm256_set1_ps(-0.0f)));
    __m256 s = _mm256_div_ps(one, _mm256_add_ps(one, e));
    return _mm256_fmadd_ps(_mm256_mul_ps(t, s), _mm256_sub_ps(one, s), s);
}

/* (1 + erf(x / sqrt 2)) / 2 + x exp(-x^2 / 2) / sqrt(2 pi) */
static inline __m256 gelu_slope8(__m256 x)
{
    const __m256 half = _mm256_set1_ps(0.5f);
    __m256 e = erf8(_mm256_mul_ps(x, _mm256_set1_ps(0.70710678f)));
    __m256 d = exp8(_mm256_mul_ps(_mm256_mul_ps(x, x), _mm256_set1_ps(-0.5f)));
    d = _mm256_mul_ps(_mm256_mul_ps(x, _mm256_set1_ps(0.39894228f)), d);
    return _mm256_add_ps(_mm256_fmadd_ps(half, e, half), d);
}

static inline void logistic_slope(float *y, const float *x, float slope, size_t n)
{
    const __m256 a = _mm256_set1_ps(slope);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, logistic_slope8(_mm256_loadu_ps(x + i), a));
    if (i < n) store_tail(y + i, logistic_slope8(load_tail(x + i, n - i), a), n - i);
}

static void silu_slope(float *y, const float *x, size_t n)
{
    logistic_slope(y, x, 1.0f, n);
}

static void quick_gelu_slope(float *y, const float *x, size_t n)
{
    logistic_slope(y, x, 1.702f, n);
}

static void gelu_slope(float *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, gelu_slope8(_mm256_loadu_ps(x + i)));
    if (i < n) store_tail(y + i, gelu_slope8(load_tail(x + i, n - i)), n - i);
}

const wf_kernels wf_kernels_avx2 = {
    "avx2", widen_f16,  widen_bf16, silu, gelu,  quick_gelu, geglu,
    affine, sums,       layer_norm, exp_sum, max, scale, add,
    silu_slope, gelu_slope, quick_gelu_slope, sum_products, softmax_back, layer_norm_back,
};
#else
typedef int wf_kernels_avx2_unused; /* a translation unit may not be empty */
#endif
