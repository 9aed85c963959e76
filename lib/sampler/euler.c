/* euler.c - Euler's method on the probability flow, as Karras et al. (2022) write it: the slope at
 * sigma is d = (x - x0) / sigma, and a step goes straight along it to the next sigma. */
#include "sampler/sampler_internal.h"

static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise,
                 float *history, float *x, size_t len)
{
    double sigma = s->sigmas[call], along = (s->sigmas[call + 1] - sigma) / sigma;
    wf_mix x0 = s->process->to_x0(s, s->process->level(s, call));
    double x_part = 1 + along * (1 - x0.x_part), p_part = -along * x0.p_part;

    (void)noise;
    (void)history;
    for (size_t i = 0; i < len; i++)
        x[i] = (float)(x_part * (double)x[i] + p_part * (double)prediction[i]);
}

static const char *const aliases[] = { "EulerDiscreteScheduler", NULL };
static const wf_setting  settings[] = { WF_SETTINGS_END };

const wf_solver wf_solver_euler = {
    .name = "euler",
    .kind = WEFT_SAMPLER_EULER,
    .aliases = aliases,
    .layout = WF_LAYOUT_LEVELS,
    .spacing = WEFT_SPACING_LINSPACE,
    .straight = true,
    .step = step,
    .karras = true,
    .keys = WF_KEY_FINAL | WF_KEY_INTERPOLATION | WF_KEY_TIMESTEP_TYPE,
    .absent = { WEFT_BETAS_LINEAR, 0.0001f, 0.02f, WEFT_SAMPLER_ALPHA_TO_ONE },
    .settings = settings,
};
