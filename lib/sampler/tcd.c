/* tcd.c - Zheng et al. (2024): trajectory consistency distillation, pictures in a few steps.
 *
 * Where a latent consistency model jumps to the picture and puts noise back, this jumps along the trajectory to a
 * level s below the next one, t', and puts back only what lies between the two. With gamma = eta:
 *
 *   s = floor((1 - gamma) t'),   x_s = sqrt(A_s) x0 + sqrt(1 - A_s) e
 *   x' = sqrt(A'/A_s) x_s + sqrt(1 - A'/A_s) noise
 *
 * gamma 0 draws nothing and is DDIM's step; gamma 1 goes all the way down each time. After the last call t' is 0,
 * and no noise is drawn there. The levels are those of lcm.c. */
#include <math.h>

#include "sampler/sampler.h"

static bool draws(const weft_sampler *s, int32_t call)
{
    return s->o.eta > 0 && call + 1 < s->calls;
}

static weft_status plan(weft_sampler *s, weft_error *err)
{
    weft_status st = wf_schedule_distilled(s, err);

    if (st != WEFT_OK) return st;
    wf_schedule_interpolate(s);
    return WEFT_OK;
}

static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise, float *history,
                 float *x, size_t len)
{
    int32_t t = (int32_t)s->timesteps[call], next = call + 1 < s->calls ? (int32_t)s->timesteps[call + 1] : 0;
    int32_t below = (int32_t)floorf((float)(1 - wf_decimal(s->o.eta)) * (float)next); /* float32 as in diffusers */
    double  A = s->alphas[t], A_below = s->alphas[below], back = noise ? s->alphas[next] / A_below : 1;
    double  keep = sqrt(back * A_below), toward = sqrt(back * (1 - A_below)), sd = sqrt(1 - back);
    wf_mix  x0 = wf_predicted_x0(s->o.prediction, sqrt(A), sqrt(1 - A));
    wf_mix  e  = wf_predicted_noise(s->o.prediction, sqrt(A), sqrt(1 - A));
    double  x_part = keep * x0.x_part + toward * e.x_part, p_part = keep * x0.p_part + toward * e.p_part;

    (void)history;
    for (size_t i = 0; i < len; i++)
        x[i] = (float)(x_part * (double)x[i] + p_part * (double)prediction[i] + (noise ? sd * (double)noise[i] : 0.0));
}

const wf_solver wf_solver_tcd = {
    .name = "tcd", .kind = WEFT_SAMPLER_TCD, .spacing = WEFT_SPACING_LEADING, .eta = true, .draws = draws, .plan = plan,
    .step = step,
};
