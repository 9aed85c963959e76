/* dpmpp_2m.c - DPM-Solver++(2M): Lu et al. (2022), algorithm 2, multistep of order two.
 *
 * In lambda = log(signal/noise) the probability flow is linear in x plus an integral over the
 * predicted image x0. Order one holds x0 still over the step. Order two lets it go on as it changed
 * over the step before, which costs one remembered x0 and no further call of the network:
 *
 *   x' = (noise'/noise) x - signal' (exp(-h) - 1) (m0 + (m0 - m1) h / (2 h0))
 *   h = lambda' - lambda
 *
 * The first step has no m1, and the last one goes to noise 0, where h is infinite: both are of
 * order one, and the last is x' = m0. So is a step after two equal levels (h0 = 0: a thousand
 * steps rounded to whole timesteps). */
#include <math.h>

#include "sampler/sampler_internal.h"

static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise,
                 float *history, float *x, size_t len)
{
    wf_level at = s->process->level(s, call), next = s->process->level(s, call + 1);
    wf_mix   x0 = s->process->to_x0(s, at);
    double   fade = next.noise / at.noise, grow = next.signal * (1 - next.ratio / at.ratio);
    double   trend = 0;
    float   *m1 = history;

    (void)noise;
    if (call > s->first && next.noise > 0) {
        wf_level before = s->process->level(s, call - 1);

        if (before.ratio > at.ratio)
            trend = 0.5 * grow * log(at.ratio / next.ratio) / log(before.ratio / at.ratio);
    }
    for (size_t i = 0; i < len; i++) {
        double m0 = x0.x_part * (double)x[i] + x0.p_part * (double)prediction[i];
        double turn = trend != 0 ? trend * (m0 - (double)m1[i]) : 0; /* m1 is not set at first */

        x[i] = (float)(fade * (double)x[i] + grow * m0 + turn);
        m1[i] = (float)m0;
    }
}

static const char *const aliases[] = { "DPMSolverMultistepScheduler", "dpm++_2m", NULL };
static const wf_setting  settings[] = {
    { "algorithm_type", JSON_STRING, "dpmsolver++ deis", 0, "it is dpmsolver++ here" },
    { "solver_type", JSON_STRING, "midpoint logrho bh1 bh2", 0, "it is midpoint here" },
    { "solver_order", JSON_REAL, NULL, 2, "it is 2 here" },
    WF_SETTINGS_END,
};

const wf_solver wf_solver_dpmpp_2m = {
    .name = "dpmpp_2m",
    .kind = WEFT_SAMPLER_DPMPP_2M,
    .aliases = aliases,
    .layout = WF_LAYOUT_DPM,
    .spacing = WEFT_SPACING_LINSPACE,
    .history = 1,
    .step = step,
    .karras = true,
    .keys = WF_KEY_LU | WF_KEY_FINAL | WF_KEY_LAMBDA | WF_KEY_FLOW,
    .absent = { WEFT_BETAS_LINEAR, 0.0001f, 0.02f, WEFT_SAMPLER_ALPHA_TO_ONE },
    .settings = settings,
};
