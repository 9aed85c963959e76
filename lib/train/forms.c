/* forms.c - what forms share: numbers drawn at random, and the order of a convolution's columns. */
#include <math.h>

#include "train/form.h"

float wf_draw_uniform(wf_mersenne *g, float bound)
{
    return bound * (2 * wf_mersenne_uniform(g) - 1);
}

/* Box and Muller's first number; the second is let go, so that draws are counted by their calls. */
float wf_draw_normal(wf_mersenne *g)
{
    double u = 1 - (double)wf_mersenne_uniform(g), v = (double)wf_mersenne_uniform(g);

    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

void wf_unorder(float *dst, const float *src, size_t rows, size_t taps, size_t in)
{
    size_t K = taps * in;

    for (size_t i = 0; i < rows * K; i++) dst[i] = src[i / K * K + i % taps * in + i % K / taps];
}
