/* loss.c - the mean of squares of one sample, and its gradient.
 *
 * Under a mask the mean is over the pixels that it leaves, in all channels. Sums are in double, in
 * the order of memory. */
#include "train/trainer_internal.h"

double wf_loss_square(const weft_trainer *t, const wf_batch *b, int32_t s, const float *out,
                      const float *target, double share, float *grad)
{
    size_t plane = (size_t)t->height * (size_t)t->width, channels = t->image / plane;
    const float *mask = b->mask != NULL ? b->mask + (size_t)s * plane : NULL;
    double sum = 0, count = 0;

    for (size_t i = 0; i < plane; i++) count += mask != NULL ? (double)mask[i] : 1.0;
    count *= (double)channels;
    if (count == 0) return 0; /* nothing of the picture counts: no gradient either */
    for (size_t i = 0; i < t->image; i++) {
        double weight = mask != NULL ? (double)mask[i % plane] : 1.0;
        double off = (double)out[i] - (double)target[i];
        sum += weight * off * off;
        if (grad != NULL) grad[i] = (float)(2 * share * weight * off / count);
    }
    return sum / count;
}
