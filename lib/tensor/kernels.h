/* kernels.h - the loops over floats, in one table for each instruction set.
 *
 * Matrix products are elsewhere (product.h). Everything else that touches every element is here.
 * wf_kernels_pick() is pure: the model keeps its answer, and a test may ask for any table. */
#ifndef WF_KERNELS_H
#define WF_KERNELS_H

#include "base/base.h"

typedef struct wf_kernels {
    const char *name;
    /* dst[i] = src[i] widened; src need not be aligned */
    void (*widen_f16)(float *dst, const void *src, size_t n);
    void (*widen_bf16)(float *dst, const void *src, size_t n);
    /* activations, y may be x */
    void (*silu)(float *y, const float *x, size_t n);       /* x sigmoid(x)                    */
    void (*gelu)(float *y, const float *x, size_t n);       /* x (1 + erf(x / sqrt 2)) / 2     */
    void (*quick_gelu)(float *y, const float *x, size_t n); /* x sigmoid(1.702 x)              */
    /* y[i] = value[i] * gelu(gate[i]) */
    void (*geglu)(float *y, const float *value, const float *gate, size_t n);
    /* y[i] = x[i] * a[i] + b[i] */
    void (*affine)(float *y, const float *x, const float *a, const float *b, size_t n);
    /* sum[i] += x[i], square[i] += x[i]^2: the bits are the same in every table */
    void (*sums)(double *sum, double *square, const float *x, size_t n);
    /* one row of LayerNorm */
    void (*layer_norm)(float *y, const float *x, const float *w, const float *b, float eps,
                       size_t n);
    /* s[i] = exp(scale * s[i] - top); returns the sum. The softmax's middle step. */
    float (*exp_sum)(float *s, float scale, float top, size_t n);
    float (*max)(const float *s, size_t n);
    void (*scale)(float *y, float a, size_t n);                  /* y *= a            */
    void (*add)(float *y, const float *x, size_t n);             /* y += x            */
    /* ---- the way back (nets/tape.h) ---- */
    /* the slope of the activation at x, y may be x */
    void (*silu_slope)(float *y, const float *x, size_t n);
    void (*gelu_slope)(float *y, const float *x, size_t n);
    void (*quick_gelu_slope)(float *y, const float *x, size_t n);
    /* sum[i] += x[i], product[i] += x[i] z[i]: the bits are the same in every table */
    void (*sum_products)(double *sum, double *product, const float *x, const float *z, size_t n);
    /* s[i] *= a (t[i] - b): from probabilities s and the gradients t of them, with b the mean of t
     * under s, to the gradients of scores that were multiplied with a */
    void (*softmax_back)(float *s, const float *t, float b, float a, size_t n);
    /* gx += the gradient of a row of LayerNorm, of gy */
    void (*layer_norm_back)(float *gx, const float *gy, const float *x, const float *w, float eps,
                            size_t n);
} wf_kernels;

extern const wf_kernels wf_kernels_ref;  /* plain C and libm: the judge of the others */
#if defined(__x86_64__)
extern const wf_kernels wf_kernels_avx2; /* AVX2, FMA, F16C */
#elif defined(__aarch64__)
extern const wf_kernels wf_kernels_neon;
#endif

const wf_kernels *wf_kernels_pick(wf_cpu cpu);

#endif
