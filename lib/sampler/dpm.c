/* dpm.c - what the DPM solvers share: Lu et al. (2022), DPM-Solver and DPM-Solver++.
 *
 * In lambda = log(signal/noise) the probability flow is linear in x plus an integral over what the
 * network predicts: over the image m = x0 for "++", over the noise m = e for the first paper. A
 * step of length h takes m for a polynomial in lambda; D0, D1 and D2 are its value and its
 * differences, scaled to h:
 *
 *   image   x' = (noise'/noise) x  + signal' [(1 - q) D0 + ((q - 1)/h + 1) D1
 *                                             - ((q - 1 + h)/h^2 - 1/2) D2],     q = exp(-h)
 *   noise   x' = (signal'/signal) x - noise' [(g - 1) D0 + ((g - 1)/h - 1) D1
 *                                             + ((g - 1 - h)/h^2 - 1/2) D2],     g = exp(h)
 *
 * "midpoint" takes half of D0's factor for D1's instead. The same with noise follows the reverse
 * diffusion: 2 h takes the place of h in the image's factors, x fades by exp(-h) more, and as much
 * noise comes in. In its factor of D2 the sign of 1/2 is turned, so that the factor does not vanish
 * with h and the order is two. diffusers has it so, and images are to agree. */
#include <math.h>

#include "sampler/sampler_internal.h"

bool wf_dpm_draws(const weft_sampler *s, int32_t call)
{
    (void)call; /* also the last one, as in diffusers, though nothing comes of it */
    return s->o.algorithm == WEFT_ALGORITHM_DPMPP_SDE || s->o.algorithm == WEFT_ALGORITHM_DPM_SDE;
}

static bool of_image(const weft_sampler *s)
{
    return s->o.algorithm == WEFT_ALGORITHM_DPMPP || s->o.algorithm == WEFT_ALGORITHM_DPMPP_SDE;
}

wf_mix wf_dpm_answer(const weft_sampler *s, wf_level at)
{
    return of_image(s) ? s->process->to_x0(s, at) : wf_vp_to_noise(s, at);
}

static wf_dpm image_step(wf_level from, wf_level to, bool draws)
{
    double fade = to.ratio / from.ratio, q = draws ? fade * fade : fade;
    double h = log(from.ratio / to.ratio), length = draws ? 2 * h : h;
    double turned = draws ? -1 : 1;
    wf_dpm step = {
        .h = h,
        .x = to.noise / from.noise * (draws ? fade : 1),
        .m = to.signal * (1 - q),
        .trend = to.signal * ((q - 1) / length + 1),
        .curve = to.signal * (turned * 0.5 - (q - 1 + length) / (length * length)),
        .noise = draws ? to.noise * sqrt(1 - q) : 0,
    };

    return step;
}

static wf_dpm noise_step(wf_level from, wf_level to, bool draws)
{
    double g = from.ratio / to.ratio, h = log(g), twice = draws ? 2 : 1;
    wf_dpm step = {
        .h = h,
        .x = to.signal / from.signal,
        .m = -twice * to.noise * (g - 1),
        .trend = -twice * to.noise * ((g - 1) / h - 1),
        .curve = -twice * to.noise * ((g - 1 - h) / (h * h) - 0.5),
        .noise = draws ? to.noise * sqrt(g * g - 1) : 0,
    };

    return step;
}

wf_dpm wf_dpm_step(const weft_sampler *s, wf_level from, wf_level to)
{
    bool   draws = wf_dpm_draws(s, 0);
    wf_dpm step = of_image(s) ? image_step(from, to, draws) : noise_step(from, to, draws);

    if (!(step.h > 0)) step.trend = step.curve = 0; /* the same level again: 0/0 */
    step.half = 0.5 * step.m;
    return step;
}
