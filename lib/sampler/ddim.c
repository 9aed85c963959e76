/* ddim.c - Song, Meng, Ermon (2021): denoising diffusion implicit models.
 *
 * Guess the finished picture x0 and the noise e from the network's answer, then put the two together again
 * at the next, lower noise level:
 *
 *   x' = sqrt(A') x0 + sqrt(1 - A' - sd^2) e + sd noise,   sd = eta sqrt((1-A')/(1-A) (1 - A/A'))
 *
 * A' is A at t - T/N whatever the spacing, as in diffusers; with linspace or trailing spacing that is not
 * quite the timestep of the next call. Below t = 0 it is A_0, or 1 with WEFT_SAMPLER_ALPHA_TO_ONE. */
#include <math.h>

#include "sampler/sampler.h"

static bool draws(const weft_sampler *s, int32_t call)
{
    (void)call;
    return s->o.eta > 0;
}

static weft_status plan(weft_sampler *s, weft_error *err)
{
    weft_status st = wf_schedule_timesteps(s, s->o.steps, true, err);

    if (st != WEFT_OK) return st;
    wf_schedule_interpolate(s);
    return WEFT_OK;
}

static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise, float *history,
                 float *x, size_t len)
{
    int32_t t = (int32_t)s->timesteps[call], next = t - s->o.train_steps / s->o.steps;
    double  past = (s->o.flags & WEFT_SAMPLER_ALPHA_TO_ONE) ? 1.0 : s->alphas[0];
    double  A = s->alphas[t], A_next = next >= 0 ? s->alphas[next] : past;
    double  sd = s->o.eta <= 0 ? 0 : (double)s->o.eta * sqrt((1 - A_next) / (1 - A) * (1 - A / A_next));
    wf_mix  x0 = wf_predicted_x0(s->o.prediction, sqrt(A), sqrt(1 - A));
    wf_mix  e  = wf_predicted_noise(s->o.prediction, sqrt(A), sqrt(1 - A));
    double  keep = sqrt(A_next), toward = sqrt(WF_MAX(1 - A_next - sd * sd, 0.0));
    double  x_part = keep * x0.x_part + toward * e.x_part;
    double  p_part = keep * x0.p_part + toward * e.p_part;

    (void)history;
    for (size_t i = 0; i < len; i++)
        x[i] = (float)(x_part * (double)x[i] + p_part * (double)prediction[i] + (noise ? sd * (double)noise[i] : 0.0));
}

const wf_solver wf_solver_ddim = {
    .name = "ddim", .kind = WEFT_SAMPLER_DDIM, .spacing = WEFT_SPACING_LEADING, .eta = true, .draws = draws,
    .plan = plan, .step = step,
};
