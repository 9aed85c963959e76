/* dpmpp_2m.c - DPM-Solver++ multistep: Lu et al. (2022), algorithm 2, and its variants of order one
 * and three, with noise (SDE), and of DPM-Solver without "++". The factors are in dpm.c.
 *
 * Order one holds the answer m still over the step. Order two lets it go on as it changed over the
 * step before, which costs one remembered answer and no further call of the network:
 *
 *   x' = x x + m m0 + half (m0 - m1) h / h0,   h = lambda' - lambda, h0 = lambda - lambda_1
 *
 * Order three also takes the change of the change, from the step before that one, h1 long:
 *
 *   D1 = D10 + (D10 - D11) h0 / (h0 + h1),   D2 = (D10 - D11) h / (h0 + h1),
 *   D10 = (m0 - m1) h / h0,   D11 = (m1 - m2) h / h1
 *
 * The first steps lack earlier answers, and the last one goes to noise 0, where h is infinite: they
 * are of lower order, and the last is x' = m0. So is a step after two equal levels (h0 = 0: a
 * thousand steps rounded to whole timesteps). With few steps the last ones are of lower order even
 * if they end above 0. */
#include <math.h>

#include "sampler/sampler_internal.h"

#define FEW 15 /* steps: below it the last two are of lower order */

static int32_t order_of(const weft_sampler *s, int32_t call)
{
    int32_t left = s->calls - call, order = WF_MIN(s->o.order, call - s->first + 1);
    bool    lower = s->o.last_steps == WEFT_LAST_LOWER && s->o.steps < FEW;
    bool    euler = lower || (s->o.flags & WEFT_SAMPLER_EULER_LAST) || s->sigmas[s->calls] == 0;

    if (left == 1 && euler) return 1;
    return left == 2 && lower ? WF_MIN(order, 2) : order;
}

/* The lambda between the levels of two calls; 0: they are equal. */
static double apart(const weft_sampler *s, int32_t call, int32_t next)
{
    wf_level a = s->process->level(s, call), b = s->process->level(s, next);

    return a.ratio > b.ratio ? log(a.ratio / b.ratio) : 0;
}

/* history: m1 and m2, the answers of the last two calls. */
static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise,
                 float *history, float *x, size_t len)
{
    wf_level at = s->process->level(s, call), next = s->process->level(s, call + 1);
    wf_mix   answer = wf_dpm_answer(s, at);
    wf_dpm   k = wf_dpm_step(s, at, next);
    int32_t  order = order_of(s, call);
    double   h0 = order > 1 ? apart(s, call - 1, call) : 0;
    double   h1 = order > 2 && h0 > 0 ? apart(s, call - 2, call - 1) : 0;
    double   newer = 0, older = 0; /* of m0 - m1 and m1 - m2 */
    float   *m1 = history, *m2 = history + len;

    if (h1 > 0) {
        double bend = k.trend * h0 / (h0 + h1) + k.curve * k.h / (h0 + h1);

        newer = (k.trend + bend) * k.h / h0;
        older = -bend * k.h / h1;
    } else if (h0 > 0) {
        newer = (s->o.solver_type == WEFT_SOLVER_HEUN ? k.trend : k.half) * k.h / h0;
    }
    for (size_t i = 0; i < len; i++) {
        double m0 = answer.x_part * (double)x[i] + answer.p_part * (double)prediction[i];
        double turn = newer != 0 ? newer * (m0 - (double)m1[i]) : 0; /* m1 is not set at first */

        if (older != 0) turn += older * ((double)m1[i] - (double)m2[i]);
        if (noise) turn += k.noise * (double)noise[i];
        x[i] = (float)(k.x * (double)x[i] + k.m * m0 + turn);
        if (call > s->first) m2[i] = m1[i];
        m1[i] = (float)m0;
    }
}

static const wf_setting settings[] = {
    WF_SETTING_LEARNED,
    WF_SETTINGS_END,
};

#define MULTISTEP                                                                            \
    .layout = WF_LAYOUT_DPM, .spacing = WEFT_SPACING_LINSPACE, .history = 2, .step = step,   \
    .takes = WF_TAKES_LAST | WF_TAKES_EULER_LAST | WF_TAKES_THRESHOLD,                       \
    .solver_type = WEFT_SOLVER_MIDPOINT,                                                     \
    .solver_types = WF_WAY(WEFT_SOLVER_MIDPOINT) | WF_WAY(WEFT_SOLVER_HEUN),                 \
    .last_steps = WEFT_LAST_LOWER, .karras = true,                                           \
    .keys = WF_KEY_LU | WF_KEY_FINAL | WF_KEY_LAMBDA | WF_KEY_FLOW,                          \
    .absent = { WEFT_BETAS_LINEAR, 0.0001f, 0.02f, WEFT_SAMPLER_ALPHA_TO_ONE },              \
    .settings = settings

static const char *const names_2m[] = { "DPMSolverMultistepScheduler", "dpm++_2m", NULL };
static const char *const names_2m_sde[] = { "dpm++_2m_sde", NULL };
static const char *const names_3m[] = { "dpm++_3m", NULL };
static const char *const names_3m_sde[] = { "dpm++_3m_sde", NULL };

const wf_solver wf_solver_dpmpp_2m = {
    MULTISTEP,
    .name = "dpmpp_2m",
    .kind = WEFT_SAMPLER_DPMPP_2M,
    .aliases = names_2m,
    .draws = wf_dpm_draws,
    .order = 2,
    .max_order = 3,
    .algorithm = WEFT_ALGORITHM_DPMPP,
    .algorithms = WF_WAY(WEFT_ALGORITHM_DPMPP) | WF_WAY(WEFT_ALGORITHM_DPMPP_SDE) |
                  WF_WAY(WEFT_ALGORITHM_DPM) | WF_WAY(WEFT_ALGORITHM_DPM_SDE),
};

const wf_solver wf_solver_dpmpp_2m_sde = {
    MULTISTEP,
    .name = "dpmpp_2m_sde",
    .kind = WEFT_SAMPLER_DPMPP_2M_SDE,
    .aliases = names_2m_sde,
    .draws = wf_dpm_draws,
    .order = 2,
    .algorithm = WEFT_ALGORITHM_DPMPP_SDE,
    .algorithms = WF_WAY(WEFT_ALGORITHM_DPMPP_SDE),
};

const wf_solver wf_solver_dpmpp_3m = {
    MULTISTEP,
    .name = "dpmpp_3m",
    .kind = WEFT_SAMPLER_DPMPP_3M,
    .aliases = names_3m,
    .order = 3,
    .algorithm = WEFT_ALGORITHM_DPMPP,
    .algorithms = WF_WAY(WEFT_ALGORITHM_DPMPP),
};

const wf_solver wf_solver_dpmpp_3m_sde = {
    MULTISTEP,
    .name = "dpmpp_3m_sde",
    .kind = WEFT_SAMPLER_DPMPP_3M_SDE,
    .aliases = names_3m_sde,
    .draws = wf_dpm_draws,
    .order = 3,
    .algorithm = WEFT_ALGORITHM_DPMPP_SDE,
    .algorithms = WF_WAY(WEFT_ALGORITHM_DPMPP_SDE),
};
