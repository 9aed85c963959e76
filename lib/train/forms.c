/* forms.c - what forms share: random beginnings, and the order of a kernel in files. */
#include <math.h>

#include "train/form.h"

float wf_draw_uniform(wf_mersenne *g, float bound)
{
    return (2 * wf_mersenne_uniform(g) - 1) * bound;
}

/* Box and Muller (1958); the other number of the pair is not kept, so that there is no state. */
float wf_draw_normal(wf_mersenne *g)
{
    double u = 1.0 - (double)wf_mersenne_uniform(g), angle = (double)wf_mersenne_uniform(g);
    return (float)(sqrt(-2.0 * log(u)) * cos(6.283185307179586476925286766559 * angle));
}

void wf_unorder(float *dst, const float *src, size_t rows, size_t taps, size_t in)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < in; i++)
            for (size_t k = 0; k < taps; k++)
                dst[(r * in + i) * taps + k] = src[(r * taps + k) * in + i];
}
