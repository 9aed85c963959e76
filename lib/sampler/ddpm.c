/* ddpm.c - Ho, Jain, Abbeel (2020): the reverse of training, a random step each time.
 *
 * If x0 is known, the latents of the next level are Gaussian. Take the network's guess of x0 for
 * it:
 *
 *   mean = sqrt(A') b / (1-A) x0 + sqrt(a) (1-A') / (1-A) x,   a = A/A',  b = 1 - a
 *   variance = (1-A') / (1-A) b                                          ("fixed small")
 *   variance = b                                                         ("fixed large")
 *
 * A' belongs to the next call, and is 1 after the last. No noise is drawn at t = 0. If the last
 * call is above 0 (an offset, trailing spacing) the variance is 0 there, but noise is drawn all
 * the same and scaled by 1e-10: diffusers has that floor under the variance. The factors are
 * float32 as in diffusers: with many steps b is small, and the rounding of a is a visible part
 * of it. */
#include <math.h>

#include "sampler/sampler_internal.h"

#define LEAST_VARIANCE 1e-20

static bool draws(const weft_sampler *s, int32_t call)
{
    return s->timesteps[call] > 0;
}

static float alpha_at(const weft_sampler *s, int32_t call)
{
    return call < s->calls ? (float)wf_vp_alpha(s, (int32_t)s->timesteps[call]) : 1;
}

static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise,
                 float *history, float *x, size_t len)
{
    float  A = alpha_at(s, call), A_next = alpha_at(s, call + 1);
    float  a = A / A_next, b = 1 - a, rest = 1 - A, rest_next = 1 - A_next;
    float  of_x0 = sqrtf(A_next) * b / rest, of_x = sqrtf(a) * rest_next / rest;
    bool   large = s->o.variance == WEFT_VARIANCE_LARGE;
    double sd = sqrt(large ? (double)b : WF_MAX((double)(rest_next / rest * b), LEAST_VARIANCE));
    /* not wf_vp_level(A): 1 - A is rounded to float32 here */
    wf_level at = { .signal = sqrt((double)A), .noise = sqrt((double)rest), .input = 1 };
    wf_mix   x0 = s->process->to_x0(s, at);
    wf_mix   by = { (double)of_x0 * x0.x_part + (double)of_x, (double)of_x0 * x0.p_part };

    (void)history;
    wf_step_linear(by, sd, prediction, noise, x, len);
}

static const char *const aliases[] = { "DDPMScheduler", NULL };
static const wf_setting  settings[] = { WF_SETTINGS_END };

const wf_solver wf_solver_ddpm = {
    .name = "ddpm",
    .kind = WEFT_SAMPLER_DDPM,
    .aliases = aliases,
    .layout = WF_LAYOUT_TIMESTEPS,
    .spacing = WEFT_SPACING_LEADING,
    .draws = draws,
    .step = step,
    .takes = WF_TAKES_CLIP | WF_TAKES_THRESHOLD | WF_TAKES_VARIANCE,
    .absent = { WEFT_BETAS_LINEAR, 0.0001f, 0.02f, WEFT_SAMPLER_ALPHA_TO_ONE },
    .settings = settings,
};
