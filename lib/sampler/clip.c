/* clip.c - clipping of the image that the network's answer stands for, before the solver sees it.
 *
 * Two ways, for whatever solver has them in diffusers: to a range of the caller's, or to a quantile
 * of the magnitudes in each image, of at least 1 and at most threshold_max, by which it is then
 * divided (Saharia et al., 2022, "dynamic thresholding").
 *
 * The clipped image goes to the solver in place of the answer, as that of a network that predicts
 * the sample (weft_sampler.prediction), so no solver knows of it. DDIM alone also takes the noise
 * of the answer itself (weft_sampler.answer).
 *
 * The quantile is found bit by bit: floats from 0 on rise with their bits. So nothing is sorted, no
 * memory is taken, and no image can make it slow. */
#include <math.h>

#include "sampler/sampler_internal.h"

bool wf_clips(const weft_sampler *s)
{
    uint32_t flags = s->o.flags;

    if (!(flags & (WEFT_SAMPLER_CLIP | WEFT_SAMPLER_THRESHOLD))) return false;
    return !(flags & WEFT_SAMPLER_OF_NOISE); /* UniPC over the noise has no image to clip */
}

static uint32_t magnitude_bits(float v)
{
    uint32_t bits;

    memcpy(&bits, &v, sizeof bits);
    return bits & 0x7fffffffu;
}

/* The magnitude that has `rank` smaller ones before it. */
static double magnitude_at(const float *x, size_t len, size_t rank)
{
    uint32_t prefix = 0;
    float    v;

    for (int32_t shift = 24; shift >= 0; shift -= 8) {
        size_t   counts[256] = { 0 };
        uint32_t known = shift == 24 ? 0 : 0xffffffffu << (shift + 8), byte = 0;

        for (size_t i = 0; i < len; i++) {
            uint32_t bits = magnitude_bits(x[i]);

            if ((bits & known) == prefix) counts[bits >> shift & 255]++;
        }
        for (; rank >= counts[byte]; byte++) rank -= counts[byte];
        prefix |= byte << shift;
    }
    memcpy(&v, &prefix, sizeof v);
    return (double)v;
}

/* Linear between the two magnitudes beside it. */
static double quantile(const float *x, size_t len, double ratio)
{
    double place = ratio * (double)(len - 1);
    size_t below = (size_t)place;
    double low = magnitude_at(x, len, below), part = place - (double)below;

    return part > 0 ? low + part * (magnitude_at(x, len, below + 1) - low) : low;
}

static void clamp(float *x, size_t len, double range, double divisor)
{
    for (size_t i = 0; i < len; i++) {
        double v = (double)x[i];

        if (v > range) v = range;
        else if (v < -range) v = -range; /* what is no number stays so, and is found later */
        x[i] = (float)(v / divisor);
    }
}

void wf_clip(const weft_sampler *s, int32_t call, const float *prediction, const float *x,
             float *out, size_t len)
{
    wf_mix x0 = s->process->to_x0(s, s->process->level(s, call));
    size_t images = (size_t)s->o.images, each = len / images;

    for (size_t i = 0; i < len; i++)
        out[i] = (float)(x0.x_part * (double)x[i] + x0.p_part * (double)prediction[i]);
    if (!(s->o.flags & WEFT_SAMPLER_THRESHOLD)) {
        clamp(out, len, wf_decimal(s->o.clip_range), 1);
        return;
    }
    for (size_t n = 0; n < images; n++) {
        float *image = out + n * each;
        double range = quantile(image, each, wf_decimal(s->o.threshold_ratio));

        range = WF_MIN(WF_MAX(range, 1.0), wf_decimal(s->o.threshold_max));
        clamp(image, each, range, range);
    }
}
