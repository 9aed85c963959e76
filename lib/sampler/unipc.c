/* unipc.c - Zhao et al. (2023): UniPC, a predictor and a corrector that share their answers.
 *
 * The predictor steps as DPM-Solver's multistep does, in lambda = log(signal/noise), over the last
 * answers m (the predicted image, or the noise with WEFT_SAMPLER_OF_NOISE). The next call's answer,
 * which belongs to the end of that step, then takes part in the same step once more: the corrector
 * moves the latents, and no call is spent on it. Of the answers only the differences to m0 matter,
 * D_i = (m_i - m0) / r_i with r_i = (lambda_i - lambda_0) / h:
 *
 *   x' = fade x - scale (exp(hh) - 1) m0 - scale B sum over i of rho_i D_i
 *   image: fade = noise'/noise, scale = signal', hh = -h;  noise: signal'/signal, noise', hh = h
 *   B = hh (bh1) or exp(hh) - 1 (bh2)
 *
 * rho solves sum over i of r_i^(k-1) rho_i = b_k, k = 1.., where b_k = k! phi_(k+1)(hh) hh / B:
 * what the integral makes of powers of lambda. With one unknown rho is 1/2. The corrector's last D
 * belongs to the new answer, with r = 1.
 *
 * The first steps have lower order, and so have the last ones. The last step to noise 0 has order
 * one. */
#include <math.h>

#include "sampler/sampler_internal.h"

#define MAX_ORDER 3

/* x' = x x + m m0 + sum over i of d[i] (m_i - m0). The m_i are earlier answers; the last one of a
 * corrector is the new one. */
typedef struct factors {
    double  x;
    double  m;
    double  d[MAX_ORDER];
    int32_t count;
} factors;

/* ---- the factors --------------------------------------------------------------------------- */

/* Solve n <= 3 equations with powers r[i]^k as their coefficients, k = 0 .. n - 1, for rho. */
static void solve_powers(const double *r, const double *b, int32_t n, double *rho)
{
    double a[MAX_ORDER][MAX_ORDER + 1];

    for (int32_t k = 0; k < n; k++) {
        for (int32_t i = 0; i < n; i++) a[k][i] = k == 0 ? 1 : a[k - 1][i] * r[i];
        a[k][n] = b[k];
    }
    for (int32_t k = 0; k < n; k++) /* r differ, so that no pivot is 0: Vandermonde */
        for (int32_t row = k + 1; row < n; row++) {
            double by = a[row][k] / a[k][k];

            for (int32_t i = k; i <= n; i++) a[row][i] -= by * a[k][i];
        }
    for (int32_t k = n - 1; k >= 0; k--) {
        rho[k] = a[k][n];
        for (int32_t i = k + 1; i < n; i++) rho[k] -= a[k][i] * rho[i];
        rho[k] /= a[k][k];
    }
}

/* r[0 .. n): where the answers lie, of which the corrector's last is 1. */
static factors factors_of(const weft_sampler *s, wf_level from, wf_level to, const double *r,
                          int32_t n)
{
    bool    of_noise = (s->o.flags & WEFT_SAMPLER_OF_NOISE) != 0;
    double  hh = of_noise ? log(from.ratio / to.ratio) : log(to.ratio / from.ratio);
    double  grown = expm1(hh), B = s->o.solver_type == WEFT_SOLVER_BH1 ? hh : grown;
    double  scale = of_noise ? to.noise : to.signal;
    double  phi = grown / hh - 1, factorial = 1, b[MAX_ORDER], rho[MAX_ORDER] = { 0.5 };
    factors f = { .x = of_noise ? to.signal / from.signal : to.noise / from.noise,
                  .m = -scale * grown, .count = n };

    for (int32_t k = 0; k < n; k++) {
        b[k] = phi * factorial / B;
        factorial *= k + 2;
        phi = phi / hh - 1 / factorial;
    }
    if (n > 1) solve_powers(r, b, n, rho);
    for (int32_t i = 0; i < n; i++) f.d[i] = -scale * B * rho[i] / r[i];
    return f;
}

/* The step from call `call` to the next over the answers of it and of `order - 1` calls before;
 * `corrector`: and of the next one. */
static factors step_factors(const weft_sampler *s, int32_t call, int32_t order, bool corrector)
{
    wf_level from = s->process->level(s, call), to = s->process->level(s, call + 1);
    double   h = log(from.ratio / to.ratio), r[MAX_ORDER];
    int32_t  n = 0;

    if (!(h > 0)) return (factors){ .x = 1 }; /* the same level again */
    for (int32_t i = 1; i < order; i++)
        r[n++] = log(from.ratio / s->process->level(s, call - i).ratio) / h;
    if (corrector) r[n++] = 1;
    return factors_of(s, from, to, r, n);
}

/* ---- orders -------------------------------------------------------------------------------- */

/* The order of the step of a call: no more than there are answers at different levels. */
static int32_t order_of(const weft_sampler *s, int32_t call)
{
    int32_t most = WF_MIN(s->o.order, call - s->first + 1), order = 1;

    if (s->o.last_steps == WEFT_LAST_LOWER) most = WF_MIN(most, s->calls - call);
    if (s->sigmas[call + 1] == 0) return 1;
    while (order < most && s->sigmas[call - order] > s->sigmas[call - order + 1]) order++;
    return order;
}

static bool is_corrected(const weft_sampler *s, int32_t call)
{
    return call > s->first && !(call <= 64 && (s->o.uncorrected >> (call - 1) & 1));
}

/* ---- a step -------------------------------------------------------------------------------- */

/* The buffers of the history: the answers of the last three calls, the newest first, and the
 * latents, corrected, with which the last step began. */
enum buffer { ANSWERS, BEGAN = MAX_ORDER, BUFFERS };

/* f applied at one place: `began` and m0, the differences of the answers after m0 in `earlier`. */
static double apply(const factors *f, int32_t count, double began, double m0,
                    float *const *earlier, size_t at)
{
    double sum = f->x * began + f->m * m0;

    for (int32_t i = 0; i < count; i++) sum += f->d[i] * ((double)earlier[i][at] - m0);
    return sum;
}

static void remember(float *const *buffers, size_t at, double m0, double began)
{
    for (int32_t i = ANSWERS + MAX_ORDER - 1; i > ANSWERS; i--) buffers[i][at] = buffers[i - 1][at];
    buffers[ANSWERS][at] = (float)m0;
    buffers[BEGAN][at] = (float)began;
}

static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise,
                 float *history, float *x, size_t len)
{
    wf_level at = s->process->level(s, call);
    wf_mix   answer = (s->o.flags & WEFT_SAMPLER_OF_NOISE) ? wf_vp_to_noise(s, at)
                                                           : s->process->to_x0(s, at);
    bool     corrected = is_corrected(s, call);
    factors  back = { 0 }, on = step_factors(s, call, order_of(s, call), false);
    float   *buffers[BUFFERS];

    (void)noise;
    for (int32_t i = 0; i < BUFFERS; i++) buffers[i] = history + (size_t)i * len;
    if (call == s->first) memset(history, 0, (size_t)MAX_ORDER * len * sizeof *history);
    if (corrected) back = step_factors(s, call - 1, order_of(s, call - 1), true);
    for (size_t i = 0; i < len; i++) {
        double m0 = answer.x_part * (double)x[i] + answer.p_part * (double)prediction[i];
        double began = (double)x[i], before = (double)buffers[ANSWERS][i];

        if (corrected) {
            began = apply(&back, WF_MAX(back.count - 1, 0), (double)buffers[BEGAN][i], before,
                          buffers + ANSWERS + 1, i);
            if (back.count > 0) began += back.d[back.count - 1] * (m0 - before);
        }
        x[i] = (float)apply(&on, on.count, began, m0, buffers + ANSWERS, i);
        remember(buffers, i, m0, began);
    }
}

static const char *const aliases[] = { "UniPCMultistepScheduler", "uni_pc", NULL };
static const wf_setting  settings[] = {
    { "solver_p", JSON_NULL, NULL, 0, "it is its own predictor here" },
    { "use_dynamic_shifting", JSON_TRUE, NULL, 0, "that is for models trained on other noise" },
    { "shift_terminal", JSON_NULL, NULL, 0, "that is for models trained on other noise" },
    WF_SETTINGS_END,
};

const wf_solver wf_solver_unipc = {
    .name = "unipc",
    .kind = WEFT_SAMPLER_UNIPC,
    .aliases = aliases,
    .layout = WF_LAYOUT_DPM,
    .spacing = WEFT_SPACING_LINSPACE,
    .history = BUFFERS,
    .step = step,
    .takes = WF_TAKES_LAST | WF_TAKES_OF_NOISE | WF_TAKES_UNCORRECTED | WF_TAKES_THRESHOLD,
    .order = 2,
    .max_order = MAX_ORDER,
    .solver_type = WEFT_SOLVER_BH2,
    .solver_types = WF_WAY(WEFT_SOLVER_BH1) | WF_WAY(WEFT_SOLVER_BH2),
    .last_steps = WEFT_LAST_LOWER,
    .karras = true,
    .keys = WF_KEY_FINAL | WF_KEY_FLOW,
    .repeats_last = true,
    .absent = { WEFT_BETAS_LINEAR, 0.0001f, 0.02f, WEFT_SAMPLER_ALPHA_TO_ONE },
    .settings = settings,
};
