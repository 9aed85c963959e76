/* deis.c - Zhang and Chen (2022): exponential integrator, multistep, in log(rho).
 *
 * With rho = noise/signal the flow of x/signal is the predicted noise e: d(x/signal) = e drho. The
 * last answers are taken for a polynomial in log(rho), and that is integrated to the next level:
 *
 *   x'/signal' = x/signal + sum over j of e_j * (integral from rho to rho' of l_j(log r) dr)
 *   l_j(u) = prod_{k != j} (u - u_k) / (u_j - u_k),   u = log(rho)
 *
 * The first steps lack earlier answers and have lower order; so have the last two of a few. The way
 * ends at training's smallest sigma, not at 0, where log(rho) has no value. */
#include <math.h>

#include "sampler/sampler_internal.h"

#define MAX_ORDER 3
#define FEW 15 /* steps: below it the last two are of lower order */

/* Earlier answers that count: not those behind two equal levels. */
static int32_t order_of(const weft_sampler *s, int32_t call)
{
    int32_t left = s->calls - call, most = WF_MIN(s->o.order, call - s->first + 1), order = 1;

    if (s->o.last_steps == WEFT_LAST_LOWER && s->o.steps < FEW) most = WF_MIN(most, left);
    while (order < most && s->sigmas[call - order] > s->sigmas[call - order + 1]) order++;
    return order;
}

/* The integral of 1, u or u^2 from rho to rho', u = log(r / rho). */
static double integral(double rho, double next, int32_t power)
{
    double u = log(next / rho);

    if (power == 0) return next - rho;
    if (power == 1) return next * (u - 1) + rho;
    return next * (u * u - 2 * u + 2) - 2 * rho;
}

/* The weight of answer j of `order`. u_k is log(rho_k / rho). */
static double weight(const weft_sampler *s, int32_t call, int32_t order, int32_t j)
{
    double  rho = s->sigmas[call], next = s->sigmas[call + 1];
    double  bottom = 1, sum = 0, product = 1, u[MAX_ORDER - 1];
    int32_t others = 0;

    for (int32_t k = 0; k < order; k++) {
        if (k == j) continue;
        u[others] = log(s->sigmas[call - k] / rho);
        bottom *= log(s->sigmas[call - j] / rho) - u[others];
        sum += u[others];
        product *= u[others++];
    }
    if (others == 0) return integral(rho, next, 0);
    if (others == 1) return (integral(rho, next, 1) - sum * integral(rho, next, 0)) / bottom;
    return (integral(rho, next, 2) - sum * integral(rho, next, 1) +
            product * integral(rho, next, 0)) / bottom;
}

/* history: e1 and e2, the noise predicted by the last two calls. */
static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise,
                 float *history, float *x, size_t len)
{
    int32_t  order = order_of(s, call);
    wf_level at = s->process->level(s, call), next = s->process->level(s, call + 1);
    wf_mix   answer = wf_vp_to_noise(s, at);
    double   keep = next.signal / at.signal, weights[MAX_ORDER] = { 0 };
    float   *e1 = history, *e2 = history + len;

    (void)noise;
    for (int32_t j = 0; j < order; j++) weights[j] = next.signal * weight(s, call, order, j);
    for (size_t i = 0; i < len; i++) {
        double e = answer.x_part * (double)x[i] + answer.p_part * (double)prediction[i];
        double sum = keep * (double)x[i] + weights[0] * e;

        if (order > 1) sum += weights[1] * (double)e1[i];
        if (order > 2) sum += weights[2] * (double)e2[i];
        x[i] = (float)sum;
        if (call > s->first) e2[i] = e1[i];
        e1[i] = (float)e;
    }
}

static const char *const aliases[] = { "DEISMultistepScheduler", NULL };
static const wf_setting  settings[] = {
    { "algorithm_type", JSON_STRING, "deis dpmsolver dpmsolver++", 0, "it is deis here" },
    { "solver_type", JSON_STRING, "logrho midpoint heun bh1 bh2", 0, "it is logrho here" },
    WF_SETTINGS_END,
};

const wf_solver wf_solver_deis = {
    .name = "deis",
    .kind = WEFT_SAMPLER_DEIS,
    .aliases = aliases,
    .layout = WF_LAYOUT_DPM,
    .spacing = WEFT_SPACING_LINSPACE,
    .history = 2,
    .step = step,
    .takes = WF_TAKES_LAST | WF_TAKES_THRESHOLD,
    .order = 2,
    .max_order = MAX_ORDER,
    .last_steps = WEFT_LAST_LOWER,
    .final_sigma = WEFT_FINAL_MIN,
    .karras = true,
    .keys = WF_KEY_FLOW,
    .repeats_last = true,
    .absent = { WEFT_BETAS_LINEAR, 0.0001f, 0.02f, WEFT_SAMPLER_ALPHA_TO_ONE },
    .settings = settings,
};
