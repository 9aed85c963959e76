/* euler_a.c - Euler ancestral: step further down than the next sigma, then add fresh noise back up
 * to it.
 *
 *   up^2 + down^2 = sigma'^2,   up^2 = sigma'^2 (sigma^2 - sigma'^2) / sigma^2
 *
 * Noise is drawn at every call, also at the last one where up = 0, so that a generator that serves
 * several images stays in step with diffusers'. */
#include <math.h>

#include "sampler/sampler_internal.h"

static bool draws(const weft_sampler *s, int32_t call)
{
    (void)s;
    (void)call;
    return true;
}

static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise,
                 float *history, float *x, size_t len)
{
    double sigma = s->sigmas[call], next = s->sigmas[call + 1];
    double up = next * sqrt(WF_MAX(sigma * sigma - next * next, 0.0)) / sigma;
    double down = sqrt(WF_MAX(next * next - up * up, 0.0)), along = (down - sigma) / sigma;
    wf_mix x0 = s->process->to_x0(s, s->process->level(s, call));
    wf_mix by = { 1 + along * (1 - x0.x_part), -along * x0.p_part };

    (void)history;
    wf_step_linear(by, up, prediction, noise, x, len);
}

static const char *const aliases[] = { "EulerAncestralDiscreteScheduler", "euler_ancestral", NULL };
static const wf_setting  settings[] = { WF_SETTINGS_END };

const wf_solver wf_solver_euler_a = {
    .name = "euler_a",
    .kind = WEFT_SAMPLER_EULER_A,
    .aliases = aliases,
    .layout = WF_LAYOUT_LEVELS,
    .spacing = WEFT_SPACING_LINSPACE,
    .straight = true,
    .draws = draws,
    .step = step,
    .absent = { WEFT_BETAS_LINEAR, 0.0001f, 0.02f, WEFT_SAMPLER_ALPHA_TO_ONE },
    .settings = settings,
};
