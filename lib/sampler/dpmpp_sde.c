/* dpmpp_sde.c - DPM-Solver++ of order two in one step, with noise: "DPM++ SDE".
 *
 * Go to the level in the middle (of log sigma), call the network there, and step again from where
 * the step began, along that answer: two calls for a step, the last one excepted, which goes to
 * sigma 0 at once. Both halves step further down than their goal and add noise back up to it, as
 * Euler ancestral does:
 *
 *   x' = r x + (1 - r) x0 + up n,   up^2 = sigma'^2 (sigma^2 - sigma'^2) / sigma^2,
 *   r = down / sigma,   down^2 = sigma'^2 - up^2 = (sigma'^2 / sigma)^2
 *
 * The noise is that of one Brownian path W over sigma, so what the two halves add is not
 * independent: the second interval contains the first. n is W's growth over the interval, divided
 * by the root of its length. W is drawn where the calls go, from the largest sigma down: each call
 * draws its own piece, and the second puts both together. (diffusers draws W as a tree, from a seed
 * of its own, so its pictures are others of the same distribution.) */
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

static void between(weft_sampler *s)
{
    for (int32_t call = 1; call < s->calls; call += 2) {
        double middle = (log(s->sigmas[call - 1]) + log(s->sigmas[call])) / 2;

        s->sigmas[call] = exp(middle);
        s->timesteps[call] = wf_vp_timestep_of(s, middle);
    }
}

static bool draws(const weft_sampler *s, int32_t call)
{
    return call % 2 != 0 || s->sigmas[call + 1] > 0;
}

/* history: the latents with which the step began, and the noise of its first half. */
static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise,
                 float *history, float *x, size_t len)
{
    bool   second = call % 2 != 0;
    double from = s->sigmas[second ? call - 1 : call], to = s->sigmas[call + 1];
    double r = to * to / (from * from), up = to * sqrt(1 - r);
    double first_part = 0, own_part = 1; /* of both pieces of noise in n */
    wf_mix x0 = s->process->to_x0(s, s->process->level(s, call));
    float *began = history, *first = history + len;

    if (second) {
        first_part = sqrt((from - s->sigmas[call]) / (from - to));
        own_part = sqrt((s->sigmas[call] - to) / (from - to));
    }
    for (size_t i = 0; i < len; i++) {
        double image = x0.x_part * (double)x[i] + x0.p_part * (double)prediction[i];
        double n = noise ? own_part * (double)noise[i] : 0;

        if (second) {
            n += first_part * (double)first[i];
        } else {
            began[i] = x[i];
            if (noise) first[i] = noise[i];
        }
        x[i] = (float)(r * (double)began[i] + (1 - r) * image + up * n);
    }
}

static const char *const aliases[] = { "DPMSolverSDEScheduler", "dpm++_sde", NULL };
static const wf_setting  settings[] = {
    { "noise_sampler_seed", JSON_NULL, NULL, 0, "the noise is the caller's" },
    WF_SETTINGS_END,
};

const wf_solver wf_solver_dpmpp_sde = {
    .name = "dpmpp_sde",
    .kind = WEFT_SAMPLER_DPMPP_SDE,
    .aliases = aliases,
    .layout = WF_LAYOUT_LEVELS,
    .spacing = WEFT_SPACING_LINSPACE,
    .straight = true,
    .calls_per_step = 2,
    .history = 2,
    .calls = calls,
    .step_of = step_of,
    .between = between,
    .draws = draws,
    .step = step,
    .karras = true,
    .karras_range = true,
    .absent = { WEFT_BETAS_LINEAR, 0.00085f, 0.012f, WEFT_SAMPLER_ALPHA_TO_ONE },
    .settings = settings,
};
