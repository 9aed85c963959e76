/* euler.c - Euler's method on the probability flow, as Karras et al. (2022) write it: x = x0 + sigma noise,
 * the slope at sigma is d = (x - x0) / sigma, and a step goes straight along it to the next sigma.
 *
 * Karras' noise levels run between the first and the last sigma that the spacing gave, not over the whole
 * training range, and the network gets fractional timesteps: that is how diffusers' Euler does it. */
#include <math.h>

#include "sampler/sampler.h"

static weft_status plan(weft_sampler *s, weft_error *err)
{
    weft_status st;

    if (s->o.sigmas != NULL) {
        wf_schedule_given(s);
        return WEFT_OK;
    }
    if ((st = wf_schedule_timesteps(s, s->o.steps, false, err)) != WEFT_OK) return st;
    wf_schedule_interpolate(s);
    if (s->o.flags & WEFT_SAMPLER_KARRAS) wf_schedule_karras(s, s->sigmas[0], s->sigmas[s->o.steps - 1]);
    return WEFT_OK;
}

static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise, float *history,
                 float *x, size_t len)
{
    double sigma = s->sigmas[call], along = (s->sigmas[call + 1] - sigma) / sigma;
    wf_mix x0 = wf_predicted_x0_exploding(s->o.prediction, sigma);
    double x_part = 1 + along * (1 - x0.x_part), p_part = -along * x0.p_part;

    (void)noise;
    (void)history;
    for (size_t i = 0; i < len; i++) x[i] = (float)(x_part * (double)x[i] + p_part * (double)prediction[i]);
}

const wf_solver wf_solver_euler = {
    .name = "euler", .kind = WEFT_SAMPLER_EULER, .spacing = WEFT_SPACING_LINSPACE, .free_sigmas = true,
    .exploding = true, .plan = plan, .step = step,
};
