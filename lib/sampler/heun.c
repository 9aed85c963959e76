/* heun.c - Heun's method on the probability flow, algorithm 1 of Karras et al. (2022) without added
 * noise.
 *
 * Take Euler's step to the next sigma and call the network there. Then step again from where the
 * step began, along the mean of both slopes: twice the calls for a method of order two. The last
 * step goes to sigma = 0, where there is no slope, and stays Euler's: 2 N - 1 calls.
 *
 *   d1 = (x - x0) / sigma,   x' = x + (sigma' - sigma) d1
 *   d2 = (x' - x0') / sigma',   x'' = x + (sigma' - sigma) (d1 + d2) / 2
 *
 * Calls 2 k and 2 k + 1 make step k. The second is at the level of step k + 1. */
#include "sampler/sampler_internal.h"

static int32_t calls(int32_t steps)
{
    return 2 * steps - 1;
}

static int32_t step_of(int32_t call)
{
    return (call + 1) / 2;
}

/* history: the first slope of the step, and the latents that it began with. */
static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise,
                 float *history, float *x, size_t len)
{
    bool   second = call % 2 != 0;
    double sigma = s->sigmas[call];
    double along = second ? sigma - s->sigmas[call - 1] : s->sigmas[call + 1] - sigma;
    wf_mix x0 = s->process->to_x0(s, s->process->level(s, call));
    double x_part = (1 - x0.x_part) / sigma, p_part = -x0.p_part / sigma;
    float *slope = history, *began = history + len;

    (void)noise;
    for (size_t i = 0; i < len; i++) {
        double d = x_part * (double)x[i] + p_part * (double)prediction[i];

        if (second) {
            x[i] = (float)((double)began[i] + along * ((double)slope[i] + d) / 2);
        } else {
            slope[i] = (float)d;
            began[i] = x[i];
            x[i] = (float)((double)x[i] + along * d);
        }
    }
}

static const char *const aliases[] = { "HeunDiscreteScheduler", NULL };
static const wf_setting  settings[] = { WF_SETTINGS_END };

const wf_solver wf_solver_heun = {
    .name = "heun",
    .kind = WEFT_SAMPLER_HEUN,
    .aliases = aliases,
    .layout = WF_LAYOUT_LEVELS,
    .spacing = WEFT_SPACING_LINSPACE,
    .straight = true,
    .calls_per_step = 2,
    .history = 2,
    .calls = calls,
    .step_of = step_of,
    .step = step,
    .takes = WF_TAKES_CLIP,
    .karras = true,
    .absent = { WEFT_BETAS_LINEAR, 0.00085f, 0.012f, WEFT_SAMPLER_ALPHA_TO_ONE },
    .settings = settings,
};
