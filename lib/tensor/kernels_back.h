/* kernels_back.h - the loops of the way back that need no exponential: each table of kernels
 * includes them, and so has them compiled for its own instructions. Sums run in LANES strands,
 * added up in one order: the bits are the same in every table. */
#ifndef WF_KERNELS_BACK_H
#define WF_KERNELS_BACK_H

#include <math.h>

#include "base/base.h"

enum { BACK_LANES = 8 };

static inline double back_total(const double *s)
{
    return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

static inline double back_square(double x) { return x * x; }

static void sum_products(double *sum, double *product, const float *x, const float *z, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double v = x[i];
        sum[i] += v;
        product[i] += v * (double)z[i];
    }
}

static void softmax_back(float *s, const float *t, float b, float a, size_t n)
{
    for (size_t i = 0; i < n; i++) s[i] *= a * (t[i] - b);
}

/* With g = w gy and u the normalised row: gx += (g - mean(g) - u mean(g u)) / deviation. */
static void layer_norm_back(float *gx, const float *gy, const float *x, const float *w, float eps,
                            size_t n)
{
    double s[BACK_LANES] = { 0 }, t[BACK_LANES] = { 0 }, of = (double)n;
    size_t i, j, whole = n / BACK_LANES * BACK_LANES;

    for (i = 0; i < whole; i += BACK_LANES)
        for (j = 0; j < BACK_LANES; j++) s[j] += (double)x[i + j];
    for (j = 0; i + j < n; j++) s[j] += (double)x[i + j];
    double mean = back_total(s) / of;
    for (j = 0; j < BACK_LANES; j++) s[j] = 0;
    for (i = 0; i < whole; i += BACK_LANES)
        for (j = 0; j < BACK_LANES; j++) s[j] += back_square((double)x[i + j] - mean);
    for (j = 0; i + j < n; j++) s[j] += back_square((double)x[i + j] - mean);
    double inverse = 1.0 / sqrt(back_total(s) / of + (double)eps);
    for (j = 0; j < BACK_LANES; j++) s[j] = 0;
    for (i = 0; i < whole; i += BACK_LANES)
        for (j = 0; j < BACK_LANES; j++) {
            double g = (double)gy[i + j] * (double)w[i + j];
            s[j] += g;
            t[j] += g * ((double)x[i + j] - mean);
        }
    for (j = 0; i + j < n; j++) {
        double g = (double)gy[i + j] * (double)w[i + j];
        s[j] += g;
        t[j] += g * ((double)x[i + j] - mean);
    }
    float by = (float)inverse, shift = (float)mean;
    float a = (float)(inverse * back_total(s) / of);
    float b = (float)(inverse * inverse * inverse * back_total(t) / of);
    for (i = 0; i < n; i++) gx[i] += by * (gy[i] * w[i]) - a - b * (x[i] - shift);
}

#endif
