/* dpm2.c - DPM-Solver-2 as Karras et al. (2022) write it, "DPM2", and with added noise, "DPM2 a".
 *
 * Euler's step to the level in the middle of log sigma, a call there, and a step from where it
 * began along the slope of the middle: twice the calls for a method of order two. The last step
 * goes to sigma = 0 with Euler's slope alone: 2 N - 1 calls.
 *
 *   m = sqrt(sigma sigma'),   y = x + (m - sigma) d(x, sigma),   x' = x + (sigma' - sigma) d(y, m)
 *
 * The ancestral one steps down below sigma' and adds noise back up to it (euler_a.c); m is then in
 * the middle between sigma and that lower level, which is sigma' again.
 *
 * Both are exact here. diffusers has them in float32: of a large sigma's logarithm the last bit is
 * seen, and the lower level is the root of a difference of nearly equal numbers, which is rounding
 * alone where few steps go far down. That rounding is another one on another processor. */
#include <math.h>

#include "sampler/sampler_internal.h"

static int32_t calls(int32_t steps)
{
    return 2 * steps - 1;
}

static int32_t step_of(int32_t call)
{
    return (call + 1) / 2;
}

/* Up and down of a step that is ancestral. */
typedef struct ancestral {
    double up;
    double down;
} ancestral;

static ancestral split(double sigma, double next)
{
    return (ancestral){ next * sqrt(1 - next * next / (sigma * sigma)), next * next / sigma };
}

static void between(weft_sampler *s)
{
    for (int32_t call = 1; call < s->calls; call += 2) {
        double middle = (log(s->sigmas[call - 1]) + log(s->sigmas[call])) / 2;

        s->sigmas[call] = exp(middle);
        s->timesteps[call] = wf_vp_timestep_of(s, middle);
    }
}

/* The level is that of the next step already; its timestep is not rounded, as that one may be. */
static void between_ancestral(weft_sampler *s)
{
    for (int32_t call = 1; call < s->calls; call += 2)
        s->timesteps[call] = wf_vp_timestep_of(s, log(s->sigmas[call]));
}

static bool draws(const weft_sampler *s, int32_t call)
{
    (void)s;
    return call % 2 != 0;
}

/* x = where the step began + (goal - its sigma) d + up noise. history: where the step began. */
static void go(const weft_sampler *s, int32_t call, double goal, double up, const float *prediction,
               const float *noise, float *began, float *x, size_t len)
{
    double sigma = s->sigmas[call], along = goal - s->sigmas[call - call % 2];
    wf_mix x0 = s->process->to_x0(s, s->process->level(s, call));
    double x_part = along * (1 - x0.x_part) / sigma, p_part = -along * x0.p_part / sigma;

    if (call % 2 == 0) memcpy(began, x, len * sizeof *x);
    for (size_t i = 0; i < len; i++)
        x[i] = (float)((double)began[i] + x_part * (double)x[i] + p_part * (double)prediction[i] +
                       (noise ? up * (double)noise[i] : 0.0));
}

static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise,
                 float *history, float *x, size_t len)
{
    (void)noise;
    go(s, call, s->sigmas[call + 1], 0, prediction, NULL, history, x, len);
}

static void step_ancestral(const weft_sampler *s, int32_t call, const float *prediction,
                           const float *noise, float *history, float *x, size_t len)
{
    ancestral a = { 0, s->sigmas[call + 1] };

    if (call % 2 != 0) a = split(s->sigmas[call - 1], s->sigmas[call + 1]);
    go(s, call, a.down, a.up, prediction, noise, history, x, len);
}

#define DPM2                                                                                       \
    .layout = WF_LAYOUT_LEVELS, .spacing = WEFT_SPACING_LINSPACE, .straight = true,                \
    .calls_per_step = 2, .history = 1, .calls = calls, .step_of = step_of, .karras = true,         \
    .rounds_karras = true,                                                                         \
    .absent = { WEFT_BETAS_LINEAR, 0.00085f, 0.012f, WEFT_SAMPLER_ALPHA_TO_ONE },                  \
    .settings = settings

static const char *const names[] = { "KDPM2DiscreteScheduler", "dpm_2", NULL };
static const char *const names_a[] = { "KDPM2AncestralDiscreteScheduler", "dpm_2_ancestral", NULL };
static const wf_setting  settings[] = { WF_SETTINGS_END };

const wf_solver wf_solver_dpm2 = {
    DPM2,
    .name = "dpm2",
    .kind = WEFT_SAMPLER_DPM2,
    .aliases = names,
    .between = between,
    .step = step,
};

const wf_solver wf_solver_dpm2_a = {
    DPM2,
    .name = "dpm2_a",
    .kind = WEFT_SAMPLER_DPM2_A,
    .aliases = names_a,
    .between = between_ancestral,
    .draws = draws,
    .step = step_ancestral,
};
