/* euler_a.c - Euler ancestral: step further down than the next sigma, then add fresh noise back up to it.
 *
 *   up^2 + down^2 = sigma'^2,   up^2 = sigma'^2 (sigma^2 - sigma'^2) / sigma^2
 *
 * Noise is drawn at every call, also at the last one where up = 0, so that a generator that serves several
 * pictures stays in step with diffusers'. With Karras' levels: the same as Euler's. */
#include <math.h>

#include "sampler/sampler.h"

static bool draws(const weft_sampler *s, int32_t call)
{
    (void)s;
    (void)call;
    return true;
}

static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise, float *history,
                 float *x, size_t len)
{
    double sigma = s->sigmas[call], next = s->sigmas[call + 1];
    double up = next * sqrt(WF_MAX(sigma * sigma - next * next, 0.0)) / sigma;
    double down = sqrt(WF_MAX(next * next - up * up, 0.0)), along = (down - sigma) / sigma;
    wf_mix x0 = wf_predicted_x0_exploding(s->o.prediction, sigma);
    double x_part = 1 + along * (1 - x0.x_part), p_part = -along * x0.p_part;

    (void)history;
    for (size_t i = 0; i < len; i++)
        x[i] = (float)(x_part * (double)x[i] + p_part * (double)prediction[i] + up * (double)noise[i]);
}

static weft_status plan(weft_sampler *s, weft_error *err)
{
    return wf_solver_euler.plan(s, err);
}

const wf_solver wf_solver_euler_a = {
    .name = "euler_a", .kind = WEFT_SAMPLER_EULER_A, .spacing = WEFT_SPACING_LINSPACE, .free_sigmas = true,
    .exploding = true, .draws = draws, .plan = plan, .step = step,
};
