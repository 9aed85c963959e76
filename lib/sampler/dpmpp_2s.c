/* dpmpp_2s.c - DPM-Solver++ in single steps: Lu et al. (2022), algorithm 1, as in diffusers.
 *
 * A step of order k is made of k calls, at k levels of the schedule one after the other. The first
 * goes to the second level with order one; the next starts again from where the step began, with
 * what both answers say, and so on. So N levels take N calls whatever the order, and the image has
 * its full order only where a step ends. From the level where the step began, h is the distance to
 * the next one, and the answers lie at distances h1 and h0 from there (m0 the newest):
 *
 *   order two     x' = x x + m m1 + half (m0 - m1) h / h0
 *   order three   x' = x x + m m2 + trend D1,        D1 = (m0 - m2) h / h0          (midpoint)
 *                 D10 = (m1 - m2) h / h1,  D11 = (m0 - m2) h / h0                       (heun)
 *                 D1 = (h0 D10 - h1 D11) / (h0 - h1),  D2 = 2 h (D11 - D10) / (h0 - h1)
 *
 * The factors are in dpm.c. The last step to noise 0 has order one. If the levels are no multiple
 * of the order, or if the last sigma is 0, the steps at the end are shorter. So is the first one of
 * an image that starts inside a step. */
#include <math.h>

#include "sampler/sampler_internal.h"

/* The place of a call in its step, from 1 on. */
static int32_t order_of(const weft_sampler *s, int32_t call)
{
    int32_t steps = s->o.steps, order = call % s->o.order + 1;
    bool    zero = s->sigmas[s->calls] == 0;
    bool    lower = s->o.last_steps == WEFT_LAST_LOWER || steps % s->o.order != 0 || zero;

    if (call + 1 == steps && (zero || (lower && order == s->o.order))) order = 1;
    return WF_MIN(order, call - s->first + 1);
}

/* Of the step's beginning and the answers; m0 is the newest. */
typedef struct factors {
    double x;
    double m0;
    double m1;
    double m2;
    double noise;
} factors;

/* The lambda between the levels of two calls. */
static double apart(const weft_sampler *s, int32_t call, int32_t next)
{
    return log(s->process->level(s, call).ratio / s->process->level(s, next).ratio);
}

static factors order_two(const weft_sampler *s, int32_t call, wf_dpm k)
{
    double h0 = apart(s, call - 1, call);
    double turn = s->o.solver_type == WEFT_SOLVER_HEUN ? k.trend : k.half;

    turn = h0 > 0 ? turn * k.h / h0 : 0;
    return (factors){ .x = k.x, .m0 = turn, .m1 = k.m - turn, .noise = k.noise };
}

static factors order_three(const weft_sampler *s, int32_t call, wf_dpm k)
{
    double h0 = apart(s, call - 2, call), h1 = apart(s, call - 2, call - 1);
    double of_0 = 0, of_1 = 0; /* of D11 and D10 */

    if (s->o.solver_type == WEFT_SOLVER_MIDPOINT) {
        of_0 = k.trend;
    } else if (h0 > h1) {
        of_1 = (k.trend * h0 - 2 * k.curve * k.h) / (h0 - h1);
        of_0 = (2 * k.curve * k.h - k.trend * h1) / (h0 - h1);
    }
    of_0 = h0 > 0 ? of_0 * k.h / h0 : 0;
    of_1 = h1 > 0 ? of_1 * k.h / h1 : 0;
    return (factors){ .x = k.x, .m0 = of_0, .m1 = of_1, .m2 = k.m - of_0 - of_1, .noise = k.noise };
}

/* history: m1 and m2, the answers of the last two calls, and where the step began. */
static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise,
                 float *history, float *x, size_t len)
{
    int32_t  order = order_of(s, call);
    wf_level next = s->process->level(s, call + 1);
    wf_mix   answer = wf_dpm_answer(s, s->process->level(s, call));
    wf_dpm   k = wf_dpm_step(s, s->process->level(s, call - (order - 1)), next);
    factors  by = { .x = k.x, .m0 = k.m, .noise = k.noise };
    float   *m1 = history, *m2 = history + len, *began = history + 2 * len;

    if (order == 2) by = order_two(s, call, k);
    if (order == 3) by = order_three(s, call, k);
    if (order == 1) memcpy(began, x, len * sizeof *x);
    for (size_t i = 0; i < len; i++) {
        double m0 = answer.x_part * (double)x[i] + answer.p_part * (double)prediction[i];
        double sum = by.x * (double)began[i] + by.m0 * m0;

        if (order > 1) sum += by.m1 * (double)m1[i];
        if (order > 2) sum += by.m2 * (double)m2[i];
        if (noise) sum += by.noise * (double)noise[i];
        x[i] = (float)sum;
        if (call > s->first) m2[i] = m1[i];
        m1[i] = (float)m0;
    }
}

static const char *const aliases[] = { "DPMSolverSinglestepScheduler", "dpm++_2s", NULL };
static const wf_setting  settings[] = {
    WF_SETTING_LEARNED,
    WF_SETTINGS_END,
};

const wf_solver wf_solver_dpmpp_2s = {
    .name = "dpmpp_2s",
    .kind = WEFT_SAMPLER_DPMPP_2S,
    .aliases = aliases,
    .layout = WF_LAYOUT_DPM,
    .spacing = WEFT_SPACING_LINSPACE,
    .history = 3,
    .draws = wf_dpm_draws,
    .step = step,
    .takes = WF_TAKES_LAST | WF_TAKES_THRESHOLD,
    .order = 2,
    .max_order = 3,
    .algorithm = WEFT_ALGORITHM_DPMPP,
    .algorithms = WF_WAY(WEFT_ALGORITHM_DPMPP) | WF_WAY(WEFT_ALGORITHM_DPMPP_SDE) |
                  WF_WAY(WEFT_ALGORITHM_DPM),
    .solver_type = WEFT_SOLVER_MIDPOINT,
    .solver_types = WF_WAY(WEFT_SOLVER_MIDPOINT) | WF_WAY(WEFT_SOLVER_HEUN),
    .last_steps = WEFT_LAST_FULL,
    .karras = true,
    .keys = WF_KEY_FINAL | WF_KEY_LAMBDA | WF_KEY_FLOW,
    .no_spacing = true,
    .absent = { WEFT_BETAS_LINEAR, 0.0001f, 0.02f, WEFT_SAMPLER_ALPHA_TO_ONE },
    .settings = settings,
};
