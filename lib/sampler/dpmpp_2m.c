/* dpmpp_2m.c - DPM-Solver++(2M): Lu et al. (2022), algorithm 2, multistep of order two.
 *
 * In lambda = log(alpha/sigma) the probability flow is linear in x plus an integral over the predicted
 * picture x0. Order one holds x0 still over the step; order two lets it go on as it changed over the step
 * before, which costs one remembered x0 and no further call of the network:
 *
 *   x' = (sigma'/sigma) x - alpha' (exp(-h) - 1) (m0 + (m0 - m1) h / (2 h0)),   h = lambda' - lambda
 *
 * The first step has no m1 and the last one goes to sigma = 0 where h is infinite: both are of order one, and
 * the last is x' = m0. So is a step after two equal sigmas (h0 = 0: a thousand steps rounded to whole timesteps).
 *
 * Latents are alpha x0 + sigma noise here. The timesteps are laid out for N + 1 points of which the lowest is
 * dropped; Karras' levels span the whole training range, and their timesteps, like those of the caller's own
 * levels, are rounded. */
#include <math.h>

#include "sampler/sampler.h"

static weft_status plan(weft_sampler *s, weft_error *err)
{
    bool        dropped = s->o.spacing != WEFT_SPACING_TRAILING;
    weft_status st;

    if (s->o.sigmas != NULL || (s->o.flags & WEFT_SAMPLER_KARRAS)) {
        if (s->o.sigmas != NULL) wf_schedule_given(s);
        else wf_schedule_karras(s, wf_schedule_sigma(s, s->o.train_steps - 1), wf_schedule_sigma(s, 0));
        for (int32_t i = 0; i < s->calls; i++) s->timesteps[i] = rint(s->timesteps[i]);
        return WEFT_OK;
    }
    if ((st = wf_schedule_timesteps(s, s->calls + dropped, true, err)) != WEFT_OK) return st;
    wf_schedule_interpolate(s);
    return WEFT_OK;
}

static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise, float *history,
                 float *x, size_t len)
{
    double sigma = s->sigmas[call], next = s->sigmas[call + 1]; /* exp(-lambda) */
    double alpha = 1 / sqrt(sigma * sigma + 1), alpha_next = 1 / sqrt(next * next + 1);
    wf_mix x0 = wf_predicted_x0(s->o.prediction, alpha, sigma * alpha);
    double fade = next * alpha_next / (sigma * alpha), grow = alpha_next * (1 - next / sigma), trend = 0;
    float *m1 = history;

    (void)noise;
    if (call > s->first && next > 0 && s->sigmas[call - 1] > sigma)
        trend = 0.5 * grow * log(sigma / next) / log(s->sigmas[call - 1] / sigma);
    for (size_t i = 0; i < len; i++) {
        double m0 = x0.x_part * (double)x[i] + x0.p_part * (double)prediction[i];
        double turn = trend != 0 ? trend * (m0 - (double)m1[i]) : 0; /* m1 holds nothing yet at the first */

        x[i] = (float)(fade * (double)x[i] + grow * m0 + turn);
        m1[i] = (float)m0;
    }
}

const wf_solver wf_solver_dpmpp_2m = {
    .name = "dpmpp_2m", .kind = WEFT_SAMPLER_DPMPP_2M, .spacing = WEFT_SPACING_LINSPACE, .history = 1, .free_sigmas = true,
    .plan = plan, .step = step,
};
