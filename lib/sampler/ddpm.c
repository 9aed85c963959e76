/* ddpm.c - Ho, Jain, Abbeel (2020): the reverse of training, a random step each time.
 *
 * Knowing x0, the latents of the next level are Gaussian; take the network's guess of x0 for it:
 *
 *   mean = sqrt(A') b / (1-A) x0 + sqrt(a) (1-A') / (1-A) x,   a = A/A',  b = 1 - a
 *   variance = (1-A') / (1-A) b                                          ("fixed small")
 *
 * A' is that of the next call, 1 after the last. No noise is drawn at t = 0. With the last call above 0 (an offset,
 * trailing spacing) the variance is 0 there, and noise is drawn all the same and kept at 1e-10 of itself: that is
 * diffusers' floor under the variance. The factors are float32 as there: b is small where steps are many, and the
 * rounding of a is then a visible part of it. */
#include <math.h>

#include "sampler/sampler.h"

#define LEAST_VARIANCE 1e-20

static bool draws(const weft_sampler *s, int32_t call)
{
    return s->timesteps[call] > 0;
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
    float  A = (float)s->alphas[(int32_t)s->timesteps[call]];
    float  A_next = call + 1 < s->calls ? (float)s->alphas[(int32_t)s->timesteps[call + 1]] : 1;
    float  a = A / A_next, b = 1 - a, rest = 1 - A, rest_next = 1 - A_next;
    float  of_x0 = sqrtf(A_next) * b / rest, of_x = sqrtf(a) * rest_next / rest;
    double sd = sqrt(WF_MAX((double)(rest_next / rest * b), LEAST_VARIANCE));
    wf_mix x0 = wf_predicted_x0(s->o.prediction, sqrt((double)A), sqrt((double)rest));
    double x_part = (double)of_x0 * x0.x_part + (double)of_x, p_part = (double)of_x0 * x0.p_part;

    (void)history;
    for (size_t i = 0; i < len; i++)
        x[i] = (float)(x_part * (double)x[i] + p_part * (double)prediction[i] + (noise ? sd * (double)noise[i] : 0.0));
}

const wf_solver wf_solver_ddpm = {
    .name = "ddpm", .kind = WEFT_SAMPLER_DDPM, .spacing = WEFT_SPACING_LEADING, .draws = draws, .plan = plan, .step = step,
};
