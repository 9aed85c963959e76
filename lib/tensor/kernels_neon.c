/* kernels_neon.c - four floats at a time, for 64-bit ARM, whose processors all have these
 * instructions.
 *
 * exp and erf are those of kernels_avx2.c, and so is how tails go: through a padded vector, so that
 * an element's result does not depend on where in the row it stands. */
#if defined(__aarch64__)
#include <arm_neon.h>
#include <math.h>

#include "tensor/dtype.h"
#include "tensor/kernels.h"
#include "tensor/kernels_back.h"

enum { LANES = 4 };

typedef float32x4_t vec;

static inline vec set1(float x) { return vdupq_n_f32(x); }

/* a b + c, and c - a b */
static inline vec fma4(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }
static inline vec fnma4(vec a, vec b, vec c) { return vfmsq_f32(c, a, b); }

static inline vec exp4(vec x)
{
    x = vminq_f32(set1(88.0f), vmaxq_f32(set1(-87.3f), x)); /* of a NaN both give a NaN */
    vec n = vrndnq_f32(vmulq_f32(x, set1(1.44269504f)));
    vec r = fnma4(n, set1(0.693145752f), x); /* ln 2, its upper bits */
    r = fnma4(n, set1(1.42860677e-6f), r);   /* and the rest         */
    vec p = set1(1.0f / 5040);
    p = fma4(p, r, set1(1.0f / 720));
    p = fma4(p, r, set1(1.0f / 120));
    p = fma4(p, r, set1(1.0f / 24));
    p = fma4(p, r, set1(1.0f / 6));
    p = fma4(p, r, set1(0.5f));
    p = fma4(p, r, set1(1.0f));
    p = fma4(p, r, set1(1.0f));
    int32x4_t e = vshlq_n_s32(vcvtnq_s32_f32(n), 23);
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p), e));
}

static inline vec erf4(vec x)
{
    vec t = vminq_f32(vabsq_f32(x), set1(4.0f));
    vec p = set1(3.14401586e-05f);
    p = fma4(p, t, set1(-0.000308802089f));
    p = fma4(p, t, set1(0.00103240111f));
    p = fma4(p, t, set1(0.000536934414f));
    p = fma4(p, t, set1(-0.019583961f));
    p = fma4(p, t, set1(0.102919616f));
    p = fma4(p, t, set1(0.636597753f));
    p = fma4(p, t, set1(1.1283803f));
    vec y = vsubq_f32(set1(1.0f), exp4(vnegq_f32(vmulq_f32(p, t))));
    return vbslq_f32(vdupq_n_u32(0x80000000), x, y); /* with the sign of x */
}

static inline vec silu4(vec x, vec slope)
{
    vec e = exp4(vnegq_f32(vmulq_f32(x, slope)));
    return vdivq_f32(x, vaddq_f32(set1(1.0f), e));
}

static inline vec gelu4(vec x)
{
    vec e = erf4(vmulq_f32(x, set1(0.70710678f)));
    vec half = vmulq_f32(x, set1(0.5f));
    return fma4(half, e, half);
}

/* The first n (< LANES) floats of p, the rest zero; and back. */
static inline vec load_tail(const float *p, size_t n)
{
    float t[LANES] = { 0 };
    memcpy(t, p, n * sizeof *t);
    return vld1q_f32(t);
}

static inline void store_tail(float *p, vec v, size_t n)
{
    float t[LANES];
    vst1q_f32(t, v);
    memcpy(p, t, n * sizeof *t);
}

static inline vec half4(const uint8_t *s) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(s))); }

static void widen_f16(float *dst, const void *src, size_t n)
{
    const uint8_t *s = src;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) vst1q_f32(dst + i, half4(s + 2 * i));
    if (i < n) {
        uint8_t t[2 * LANES] = { 0 };
        memcpy(t, s + 2 * i, 2 * (n - i));
        store_tail(dst + i, half4(t), n - i);
    }
}

static void widen_bf16(float *dst, const void *src, size_t n)
{
    const uint8_t *s = src;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        uint16x4_t h = vreinterpret_u16_u8(vld1_u8(s + 2 * i));
        vst1q_f32(dst + i, vreinterpretq_f32_u32(vshll_n_u16(h, 16)));
    }
    wf_widen_any(dst + i, s + 2 * i, WF_BF16, n - i);
}

static void silu(float *y, const float *x, size_t n)
{
    const vec one = set1(1.0f);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) vst1q_f32(y + i, silu4(vld1q_f32(x + i), one));
    if (i < n) store_tail(y + i, silu4(load_tail(x + i, n - i), one), n - i);
}

static void quick_gelu(float *y, const float *x, size_t n)
{
    const vec slope = set1(1.702f);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) vst1q_f32(y + i, silu4(vld1q_f32(x + i), slope));
    if (i < n) store_tail(y + i, silu4(load_tail(x + i, n - i), slope), n - i);
}

static void gelu(float *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) vst1q_f32(y + i, gelu4(vld1q_f32(x + i)));
    if (i < n) store_tail(y + i, gelu4(load_tail(x + i, n - i)), n - i);
}

static void geglu(float *y, const float *value, const float *gate, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vst1q_f32(y + i, vmulq_f32(vld1q_f32(value + i), gelu4(vld1q_f32(gate + i))));
    if (i < n)
        store_tail(y + i, vmulq_f32(load_tail(value + i, n - i), gelu4(load_tail(gate + i, n - i))),
                   n - i);
}

static void affine(float *y, const float *x, const float *a, const float *b, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vst1q_f32(y + i, fma4(vld1q_f32(x + i), vld1q_f32(a + i), vld1q_f32(b + i)));
    if (i < n)
        store_tail(y + i,
                   fma4(load_tail(x + i, n - i), load_tail(a + i, n - i), load_tail(b + i, n - i)),
                   n - i);
}

/* A float's square is exact in a double, so a fused product rounds as a product and a sum do. */
static void sums(double *sum, double *square, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + 2 <= n; i += 2) {
        float64x2_t v = vcvt_f64_f32(vld1_f32(x + i));
        vst1q_f64(sum + i, vaddq_f64(vld1q_f64(sum + i), v));
        vst1q_f64(square + i, vfmaq_f64(vld1q_f64(square + i), v, v));
    }
    if (i < n) {
        double v = x[i];
        sum[i] += v;
        square[i] += v * v;
    }
}

/* Sums in double, two pairs of lanes at a time. */
static void layer_norm(float *y, const float *x, const float *w, const float *b, float eps,
                       size_t n)
{
    float64x2_t low = vdupq_n_f64(0), high = low;
    double sum, square;
    size_t i;
    for (i = 0; i + LANES <= n; i += LANES) {
        vec v = vld1q_f32(x + i);
        low = vaddq_f64(low, vcvt_f64_f32(vget_low_f32(v)));
        high = vaddq_f64(high, vcvt_high_f64_f32(v));
    }
    for (sum = vaddvq_f64(vaddq_f64(low, high)); i < n; i++) sum += x[i];
    double mean = sum / (double)n;
    low = high = vdupq_n_f64(0);
    for (i = 0; i + LANES <= n; i += LANES) {
        vec v = vld1q_f32(x + i);
        float64x2_t d = vsubq_f64(vcvt_f64_f32(vget_low_f32(v)), vdupq_n_f64(mean));
        float64x2_t e = vsubq_f64(vcvt_high_f64_f32(v), vdupq_n_f64(mean));
        low = vfmaq_f64(low, d, d);
        high = vfmaq_f64(high, e, e);
    }
    for (square = vaddvq_f64(vaddq_f64(low, high)); i < n; i++)
        square += (x[i] - mean) * (x[i] - mean);
    float inverse = (float)(1.0 / sqrt(square / (double)n + eps)), shift = (float)mean;
    for (i = 0; i < n; i++) y[i] = (x[i] - shift) * inverse * w[i] + b[i];
}

static float exp_sum(float *s, float scale, float top, size_t n)
{
    /* The product is rounded before the difference, as the caller rounded top: the largest score
     * gives exactly exp(0). */
    const vec a = set1(scale), b = set1(top);
    vec sum = set1(0);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        vec e = exp4(vsubq_f32(vmulq_f32(vld1q_f32(s + i), a), b));
        vst1q_f32(s + i, e);
        sum = vaddq_f32(sum, e);
    }
    float total = vaddvq_f32(sum);
    if (i < n) {
        store_tail(s + i, exp4(vsubq_f32(vmulq_f32(load_tail(s + i, n - i), a), b)), n - i);
        for (; i < n; i++) total += s[i];
    }
    return total;
}

static float max(const float *s, size_t n)
{
    float m = -3.4e38f;
    size_t i = 0;
    if (n >= LANES) {
        vec v = vld1q_f32(s);
        for (i = LANES; i + LANES <= n; i += LANES) v = vmaxnmq_f32(v, vld1q_f32(s + i));
        m = vmaxnmvq_f32(v) > m ? vmaxnmvq_f32(v) : m;
    }
    for (; i < n; i++) m = s[i] > m ? s[i] : m;
    return m;
}

static void scale(float *y, float a, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] *= a;
}

static void add(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] += x[i];
}

/* of x s(a x), with s the logistic function: s + a x s (1 - s) */
static inline vec logistic_slope4(vec x, vec a)
{
    const vec one = set1(1.0f);
    vec t = vmulq_f32(x, a), s = vdivq_f32(one, vaddq_f32(one, exp4(vnegq_f32(t))));
    return fma4(vmulq_f32(t, s), vsubq_f32(one, s), s);
}

/* (1 + erf(x / sqrt 2)) / 2 + x exp(-x^2 / 2) / sqrt(2 pi) */
static inline vec gelu_slope4(vec x)
{
    vec e = erf4(vmulq_f32(x, set1(0.70710678f)));
    vec d = exp4(vmulq_f32(vmulq_f32(x, x), set1(-0.5f)));
    d = vmulq_f32(vmulq_f32(x, set1(0.39894228f)), d);
    return vaddq_f32(fma4(set1(0.5f), e, set1(0.5f)), d);
}

static inline void logistic_slope(float *y, const float *x, float slope, size_t n)
{
    const vec a = set1(slope);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) vst1q_f32(y + i, logistic_slope4(vld1q_f32(x + i), a));
    if (i < n) store_tail(y + i, logistic_slope4(load_tail(x + i, n - i), a), n - i);
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
    for (; i + LANES <= n; i += LANES) vst1q_f32(y + i, gelu_slope4(vld1q_f32(x + i)));
    if (i < n) store_tail(y + i, gelu_slope4(load_tail(x + i, n - i)), n - i);
}

const wf_kernels wf_kernels_neon = {
    "neon", widen_f16,  widen_bf16, silu, gelu,  quick_gelu, geglu,
    affine, sums,       layer_norm, exp_sum, max, scale, add,
    silu_slope, gelu_slope, quick_gelu_slope, sum_products, softmax_back, layer_norm_back,
};
#else
typedef int wf_kernels_neon_unused; /* a translation unit may not be empty */
#endif
