/* ref.c - every kernel as its formula, for reading, for other processors, and to judge the fast
 * ones. */
#include <math.h>

#include "tensor/dtype.h"
#include "tensor/kernels.h"
#include "tensor/kernels_back.h"

static void widen_f16(float *dst, const void *src, size_t n)
{
    wf_widen_any(dst, src, WF_F16, n);
}

static void widen_bf16(float *dst, const void *src, size_t n)
{
    wf_widen_any(dst, src, WF_BF16, n);
}

static void silu(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = x[i] / (1.0f + expf(-x[i]));
}

static float gelu1(float x)
{
    return 0.5f * x * (1.0f + erff(x * 0.70710678f));
}

static void gelu(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = gelu1(x[i]);
}

static void quick_gelu(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = x[i] / (1.0f + expf(-1.702f * x[i]));
}

static void geglu(float *y, const float *value, const float *gate, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = value[i] * gelu1(gate[i]);
}

static void affine(float *y, const float *x, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) y[i] = x[i] * a[i] + b[i];
}

static void sums(double *sum, double *square, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double v = x[i];
        sum[i] += v;
        square[i] += v * v;
    }
}

static void layer_norm(float *y, const float *x, const float *w, const float *b, float eps,
                       size_t n)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) sum += x[i];
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    double inverse = 1.0 / sqrt(squares / (double)n + eps);
    for (size_t i = 0; i < n; i++) y[i] = (float)((x[i] - mean) * inverse) * w[i] + b[i];
}

static float exp_sum(float *s, float scale, float top, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        s[i] = expf(scale * s[i] - top);
        sum += s[i];
    }
    return (float)sum;
}

static float max(const float *s, size_t n)
{
    float m = -INFINITY;
    for (size_t i = 0; i < n; i++) m = s[i] > m ? s[i] : m;
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
static void logistic_slope(float *y, const float *x, float a, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float s = 1.0f / (1.0f + expf(-a * x[i]));
        y[i] = s + a * x[i] * s * (1.0f - s);
    }
}

static void silu_slope(float *y, const float *x, size_t n)
{
    logistic_slope(y, x, 1.0f, n);
}

static void quick_gelu_slope(float *y, const float *x, size_t n)
{
    logistic_slope(y, x, 1.702f, n);
}

/* (1 + erf(x / sqrt 2)) / 2 + x exp(-x^2 / 2) / sqrt(2 pi) */
static void gelu_slope(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = 0.5f * (1.0f + erff(x[i] * 0.70710678f)) +
               x[i] * 0.39894228f * expf(-0.5f * x[i] * x[i]);
}

const wf_kernels wf_kernels_ref = {
    "ref",  widen_f16,  widen_bf16, silu, gelu,  quick_gelu, geglu,
    affine, sums,       layer_norm, exp_sum, max, scale, add,
    silu_slope, gelu_slope, quick_gelu_slope, sum_products, softmax_back, layer_norm_back,
};
