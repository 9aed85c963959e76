/* process_vp.c - the variance preserving process: x_t = sqrt(A_t) x0 + sqrt(1 - A_t) n.
 *
 * Ho, Jain, Abbeel (2020). Training knows T levels: A_t is the product of (1 - beta) up to t. The
 * ratio of noise to signal, sigma = sqrt((1 - A) / A), names a level that lies between two of them.
 *
 * A solver that steps straight keeps its latents divided by the signal, x0 + sigma n, because the
 * probability flow is then (x - x0) / sigma; the network is shown them multiplied back.
 *
 * Rounding is that of diffusers, down to where it computes in float32 and where in double:
 *
 *   betas    torch.linspace in float32: the first half from the start, the rest from the end
 *   A_t      float32 factors, multiplied up in double, each product rounded to float32
 *   sigma_t  sqrt((1 - A_t) / A_t) in float32
 *
 * The float32 steps matter: 1 - A_0 is 8.5e-4, so one unit in the last place of A_0 is 7e-5 of
 * it. */
#include <float.h>
#include <math.h>

#include "sampler/sampler_internal.h"

/* 2^-24, the smallest half precision number: what diffusers takes for A = 0 of rescaled betas,
 * so that the first sigma (4096) is finite. Solvers between training timesteps can start from A
 * = 0. */
#define ALMOST_NO_SIGNAL 0x1p-24f
#define HALF_TURN        3.14159265358979323846

/* ---- training's levels --------------------------------------------------------------------- */

/* The betas as the decimals that were meant, see wf_decimal(). */
typedef struct betas {
    double start;
    double end;
} betas;

static betas read_betas(const weft_sampler *s)
{
    return (betas){ s->o.beta_start == 0 ? 0.00085 : wf_decimal(s->o.beta_start),
                    s->o.beta_end == 0 ? 0.012 : wf_decimal(s->o.beta_end) };
}

/* torch.linspace(from, to, n)[i] in float32. Its processors fuse the multiplication and the
 * addition, which equals computing the two in double and rounding once. */
static float linspace_f32(float from, float to, int32_t n, int32_t i)
{
    float step = (to - from) / (float)(n - 1);

    if (i < n / 2) return (float)((double)from + (double)step * i);
    return (float)((double)to - (double)step * (n - 1 - i));
}

/* A as a curve over all of training, from 0 to 1. */
static double curve(int32_t kind, double part)
{
    double rest, lambda, ratio;

    switch (kind) {
    case WEFT_BETAS_SQUARED_COS: /* Nichol and Dhariwal (2021) */
        ratio = cos((part + 0.008) / 1.008 * HALF_TURN / 2);
        return ratio * ratio;
    case WEFT_BETAS_LAPLACE: /* Hang and Gu (2024) */
        rest = 0.5 - part;
        lambda = -0.5 * copysign(1, rest) * log(1 - 2 * fabs(rest) + 1e-6);
        ratio = exp(lambda);
        return sqrt(ratio / (1 + ratio));
    default: /* WEFT_BETAS_EXP */
        return exp(part * -12.0);
    }
}

static float beta_at(const weft_sampler *s, betas b, int32_t i)
{
    int32_t T = s->o.train_steps, kind = s->o.betas;
    float   start = (float)b.start, end = (float)b.end, root;

    switch (kind) {
    case WEFT_BETAS_TRAINED:
        return s->o.trained_betas[i];
    case WEFT_BETAS_LINEAR:
        return linspace_f32(start, end, T, i);
    case WEFT_BETAS_SCALED_LINEAR:
        root = linspace_f32((float)sqrt(b.start), (float)sqrt(b.end), T, i);
        return root * root;
    case WEFT_BETAS_SIGMOID:
        root = (float)(1 / (1 + exp(-(double)linspace_f32(-6, 6, T, i))));
        return root * (float)(b.end - b.start) + start;
    default:
        return (float)WF_MIN(1 - curve(kind, (i + 1.0) / T) / curve(kind, (double)i / T), 0.999);
    }
}

/* Lin et al. (2023), algorithm 1: shift sqrt(A) so that its last value is 0, scale it so that its
 * first value stays. Then read off betas and multiply up once more, since the rounding of that is
 * part of the result. */
static void rescale_to_zero_signal(weft_sampler *s)
{
    int32_t T = s->o.train_steps;
    float   first = sqrtf((float)s->trained[0]), last = sqrtf((float)s->trained[T - 1]);
    float   stretch = first / (first - last), before = 1;
    double  product = 1;

    for (int32_t t = 0; t < T; t++) {
        float root = (sqrtf((float)s->trained[t]) - last) * stretch;
        float bar  = root * root;
        float beta = 1 - (t == 0 ? bar : bar / before);

        before = bar;
        product *= (double)(1 - beta);
        s->trained[t] = (double)(float)product;
    }
    if (wf_free_levels(s->solver)) s->trained[T - 1] = (double)ALMOST_NO_SIGNAL;
}

static weft_status check_trained(const weft_sampler_options *o, weft_error *err)
{
    wf_number_text beta;

    if (o->trained_betas == NULL || o->trained_betas_len != (size_t)o->train_steps)
        return wf_fail(err, WEFT_E_ARG,
                       "sampler: %zu trained_betas for %d train_steps, it must be one for each",
                       o->trained_betas == NULL ? 0 : o->trained_betas_len, o->train_steps);
    for (int32_t i = 0; i < o->train_steps; i++)
        if (!(o->trained_betas[i] > 0 && o->trained_betas[i] < 1))
            return wf_fail(err, WEFT_E_ARG,
                           "sampler: trained beta %d is %s, it must be between 0 and 1", i,
                           wf_number(&beta, (double)o->trained_betas[i]));
    return WEFT_OK;
}

static weft_status check_betas(const weft_sampler *s, betas b, weft_error *err)
{
    wf_number_text start, end;

    if (s->o.betas == WEFT_BETAS_TRAINED) return check_trained(&s->o, err);
    if (b.start > 0 && b.end >= b.start && b.end < 1) return WEFT_OK; /* false for NaN too */
    return wf_fail(err, WEFT_E_ARG,
                   "sampler: betas go from %s to %s, they must rise between 0 and 1",
                   wf_number(&start, b.start), wf_number(&end, b.end));
}

static weft_status train(weft_sampler *s, weft_error *err)
{
    int32_t        T = s->o.train_steps;
    betas          b = read_betas(s);
    double         product = 1;
    bool           small, large;
    wf_number_text start, end;
    weft_status    st;

    if ((st = check_betas(s, b, err)) != WEFT_OK) return st;
    s->trained = wf_zalloc(&s->alloc, (size_t)T, sizeof(double));
    if (s->trained == NULL) return wf_nomem(err, (size_t)T * sizeof(double), "a noise schedule");

    for (int32_t t = 0; t < T; t++) {
        product *= (double)(1 - beta_at(s, b, t));
        s->trained[t] = (double)(float)product;
    }
    small = s->trained[0] >= 1;
    large = s->trained[T - 1] < FLT_MIN; /* below it (1 - A) / A overflows */
    if (!small && !large && (s->o.flags & WEFT_SAMPLER_ZERO_SNR)) {
        rescale_to_zero_signal(s);
        large = !(s->trained[T - 2] > s->trained[T - 1]); /* no signal is left before the last */
    }
    if (small || large)
        return wf_fail(err, WEFT_E_ARG,
                       "sampler: betas from %s to %s over %d steps are too %s: float32 cannot hold "
                       "the products", wf_number(&start, b.start), wf_number(&end, b.end), T,
                       small ? "small" : "large");
    return WEFT_OK;
}

static double trained_sigma(const weft_sampler *s, int32_t t)
{
    float A = (float)s->trained[t];

    return (double)sqrtf((1 - A) / A);
}

double wf_vp_alpha(const weft_sampler *s, int32_t timestep)
{
    return s->trained[timestep];
}

/* ---- the levels that are visited ----------------------------------------------------------- */

/* The fractional timestep that has this log(sigma): linear between two entries of the table. */
double wf_vp_timestep_of(const weft_sampler *s, double wanted)
{
    int32_t low = 0, high = s->o.train_steps - 1;
    double  below, above, part;

    while (high - low > 1) {
        int32_t middle = (low + high) / 2;

        if (wanted >= (double)logf((float)trained_sigma(s, middle))) low = middle;
        else high = middle;
    }
    below = (double)logf((float)trained_sigma(s, low));
    above = (double)logf((float)trained_sigma(s, high));
    if (above <= below) return low; /* betas so small that float32 sees no growth */
    part = WF_MIN(WF_MAX((wanted - below) / (above - below), 0.0), 1.0);
    return low + part;
}

static void visit_sigma(weft_sampler *s, int32_t i, double sigma, double log_sigma)
{
    s->timesteps[i] = wf_vp_timestep_of(s, log_sigma);
    s->sigmas[i] = (double)(float)sigma;
}

/* The sigma at a timestep with a fraction: linear between two entries of the table. */
static double sigma_at(const weft_sampler *s, double t)
{
    int32_t below = WF_MIN((int32_t)t, s->o.train_steps - 2);
    double  low = trained_sigma(s, below), high = trained_sigma(s, below + 1);

    return t > below ? low + (t - below) * (high - low) : low; /* high may be infinite */
}

/* The same, along the line through their logarithms. */
static double log_sigma_at(const weft_sampler *s, double t)
{
    int32_t below = WF_MIN((int32_t)t, s->o.train_steps - 2);
    double  low = trained_sigma(s, below), high = trained_sigma(s, below + 1);

    return exp(log(low) + (t - below) * (log(high) - log(low)));
}

static void interpolate(weft_sampler *s)
{
    for (int32_t i = 0; i < s->o.steps; i++)
        s->sigmas[i] = (double)(float)sigma_at(s, s->timesteps[i]);
}

static bool is_aligned(int32_t schedule)
{
    return schedule == WEFT_SCHEDULE_ALIGN || schedule == WEFT_SCHEDULE_ALIGN_SDXL;
}

/* Whether the levels depend neither on the spacing nor on the kind of solver: the caller's own, and
 * those that are defined by themselves. */
static bool is_defined(const weft_sampler *s)
{
    return s->o.sigmas != NULL || is_aligned(s->o.sigma_schedule) ||
           wf_schedules_steps(s->o.sigma_schedule);
}

static weft_status visit_defined(weft_sampler *s, weft_error *err)
{
    for (int32_t i = 0; i < s->o.steps; i++) {
        double sigma = s->o.sigmas != NULL ? (double)s->o.sigmas[i] : 0;

        if (s->o.sigmas != NULL) {
            visit_sigma(s, i, sigma, (double)logf(s->o.sigmas[i]));
        } else if (is_aligned(s->o.sigma_schedule)) {
            sigma = wf_schedule_aligned(s, i);
            visit_sigma(s, i, sigma, log(sigma));
        } else {
            s->timesteps[i] = wf_schedule_step(s, i);
            s->sigmas[i] = (double)(float)log_sigma_at(s, s->timesteps[i]);
            if (i > 0 && s->timesteps[i] >= s->timesteps[i - 1])
                return wf_fail(err, WEFT_E_ARG,
                               "sampler: with %d steps, the schedule %s visits timestep %g twice",
                               s->o.steps, weft_sampler_schedule_name(s->o.sigma_schedule),
                               s->timesteps[i]);
        }
    }
    return WEFT_OK;
}

/* Levels between two, unless the caller says between which. */
static weft_status visit_between(weft_sampler *s, double high, double low, weft_error *err)
{
    wf_number_text a, b;

    if (s->o.sigma_max != 0) high = wf_decimal(s->o.sigma_max);
    if (s->o.sigma_min != 0) low = wf_decimal(s->o.sigma_min);
    if ((s->o.sigma_max != 0 || s->o.sigma_min != 0) && !(low < high))
        return wf_fail(err, WEFT_E_ARG,
                       "sampler: sigmas go from %s down to %s, the first must be larger",
                       wf_number(&a, high), wf_number(&b, low));
    for (int32_t i = 0; i < s->o.steps; i++) {
        double sigma = wf_schedule_sigma(s, high, low, i);

        visit_sigma(s, i, sigma, log(sigma));
    }
    return WEFT_OK;
}

static double largest_sigma(const weft_sampler *s)
{
    return trained_sigma(s, s->o.train_steps - 1);
}

/* How many of training's levels have log(signal / noise) of lambda_min at least. */
static int32_t levels_above(const weft_sampler *s)
{
    int32_t T = s->o.train_steps;

    if (s->o.lambda_min == 0) return T;
    while (T > 0) {
        float A = (float)s->trained[T - 1];

        if (logf(sqrtf(A)) - logf(sqrtf(1 - A)) >= s->o.lambda_min) break;
        T--;
    }
    return T;
}

static weft_status visit_spaced(weft_sampler *s, weft_error *err)
{
    int32_t        points = s->o.steps + (s->o.spacing != WEFT_SPACING_TRAILING);
    int32_t        T = levels_above(s);
    wf_number_text lambda;

    if (T < WF_MAX(s->o.steps, 2) ||
        (T < s->o.train_steps && s->o.spacing == WEFT_SPACING_TRAILING))
        return wf_fail(err, WEFT_E_ARG,
                       "sampler: lambda_min %s leaves %d of %d timesteps: too few for %d steps%s",
                       wf_number(&lambda, (double)s->o.lambda_min), T, s->o.train_steps,
                       s->o.steps, T < s->o.steps ? "" : " with trailing spacing");
    WF_TRY(wf_schedule_timesteps(s, T, points, true, err));
    interpolate(s);
    return WEFT_OK;
}

/* Timesteps are whole. diffusers rounds Karras' and Lu's and cuts exponential and beta ones; with
 * the cosine's betas, DPM-Solver multistep cuts all of them. */
static weft_status visit_dpm(weft_sampler *s, weft_error *err)
{
    int32_t schedule = s->o.sigma_schedule;
    bool    cut = schedule == WEFT_SCHEDULE_EXPONENTIAL || schedule == WEFT_SCHEDULE_BETA;
    bool    defined = is_defined(s);

    if (!defined && schedule == WEFT_SCHEDULE_DEFAULT) return visit_spaced(s, err);
    if (defined) WF_TRY(visit_defined(s, err));
    else WF_TRY(visit_between(s, largest_sigma(s), trained_sigma(s, 0), err));
    if (!defined && s->o.betas == WEFT_BETAS_SQUARED_COS && (s->solver->keys & WF_KEY_LU))
        cut = true;
    for (int32_t i = 0; i < s->o.steps; i++)
        s->timesteps[i] = cut ? floor(s->timesteps[i]) : rint(s->timesteps[i]);
    return WEFT_OK;
}

/* N + 1 sigmas, the last one being training's smallest, at the spacing's timesteps. */
static void interpolate_logs(weft_sampler *s)
{
    float high = logf((float)largest_sigma(s)), low = logf((float)trained_sigma(s, 0));

    for (int32_t i = 0; i <= s->o.steps; i++)
        s->sigmas[i] = (double)expf(linspace_f32(high, low, s->o.steps + 1, i));
}

static weft_status visit_levels(weft_sampler *s, weft_error *err)
{
    bool   in_logs = s->o.interpolation == WEFT_INTERPOLATION_LOG_LINEAR;
    double low;

    if (is_defined(s)) return visit_defined(s, err);
    if (s->o.sigma_schedule == WEFT_SCHEDULE_KL_OPTIMAL) /* whose range is no spacing's */
        return visit_between(s, largest_sigma(s), trained_sigma(s, 0), err);
    WF_TRY(wf_schedule_timesteps(s, s->o.train_steps, s->o.steps, false, err));
    interpolate(s);
    if (in_logs) interpolate_logs(s);
    if (s->o.sigma_schedule == WEFT_SCHEDULE_DEFAULT) return WEFT_OK;

    low = s->sigmas[in_logs ? s->o.steps : s->o.steps - 1];
    WF_TRY(visit_between(s, s->sigmas[0], low, err));
    if (s->solver->rounds_karras && s->o.sigma_schedule == WEFT_SCHEDULE_KARRAS)
        for (int32_t i = 0; i < s->o.steps; i++) s->timesteps[i] = rint(s->timesteps[i]);
    return WEFT_OK;
}

static weft_status visit_timesteps(weft_sampler *s, weft_error *err)
{
    if (s->solver->layout == WF_LAYOUT_DISTILLED) WF_TRY(wf_schedule_distilled(s, err));
    else WF_TRY(wf_schedule_timesteps(s, s->o.train_steps, s->o.steps, true, err));
    interpolate(s);
    return WEFT_OK;
}

/* The sigma behind the last step. */
static double final_sigma(const weft_sampler *s)
{
    int32_t schedule = s->o.sigma_schedule;
    bool    between = schedule == WEFT_SCHEDULE_KARRAS || schedule == WEFT_SCHEDULE_EXPONENTIAL ||
                      schedule == WEFT_SCHEDULE_BETA;

    if (s->o.interpolation == WEFT_INTERPOLATION_LOG_LINEAR && schedule == WEFT_SCHEDULE_DEFAULT)
        return s->sigmas[s->o.steps];
    if (s->o.final_sigma != WEFT_FINAL_MIN) return 0;
    if (between && s->solver->repeats_last) return s->sigmas[s->o.steps - 1];
    return WF_MIN(trained_sigma(s, 0), s->sigmas[s->o.steps - 1]); /* own ones may lie below */
}

/* What a network is told that was trained on logarithms of sigma, as Karras et al. write it. */
static void tell_logs(weft_sampler *s)
{
    for (int32_t i = 0; i < s->o.steps; i++)
        s->timesteps[i] = (double)(0.25f * logf((float)s->sigmas[i]));
}

/* Latents that hold nothing of the image say nothing about x0 once the noise is taken off. */
static weft_status check_signal(const weft_sampler *s, weft_error *err)
{
    int32_t first = (int32_t)s->timesteps[0];

    if (s->trained[first] > 0 || s->o.prediction != WEFT_PREDICT_EPSILON) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG,
                   "sampler: betas rescaled to zero terminal signal leave nothing of the image at "
                   "timestep %d, where %s cannot start from predicted noise; the model must "
                   "predict v or the sample, or the timesteps stay below, as leading ones do",
                   first, s->solver->name);
}

static weft_status plan(weft_sampler *s, weft_error *err)
{
    weft_status st = train(s, err);

    if (st != WEFT_OK) return st;
    if (s->solver->layout == WF_LAYOUT_DPM) st = visit_dpm(s, err);
    else if (s->solver->layout == WF_LAYOUT_LEVELS) st = visit_levels(s, err);
    else st = visit_timesteps(s, err);
    if (st != WEFT_OK) return st;
    s->sigmas[s->o.steps] = final_sigma(s);
    WF_TRY(check_signal(s, err));
    if ((s->o.flags & WEFT_SAMPLER_LOG_TIMESTEPS) && s->o.prediction == WEFT_PREDICT_V)
        tell_logs(s);
    return WEFT_OK;
}

/* ---- one level ----------------------------------------------------------------------------- */

wf_level wf_vp_level(double A)
{
    return (wf_level){ sqrt(A), sqrt(1 - A), sqrt((1 - A) / A), 1 };
}

static wf_level level(const weft_sampler *s, int32_t call)
{
    double sigma = s->sigmas[call], scale = 1 / sqrt(sigma * sigma + 1);

    if (s->solver->straight) return (wf_level){ 1, sigma, sigma, scale };
    if (wf_free_levels(s->solver) || call == s->calls)
        return (wf_level){ scale, sigma * scale, sigma, 1 };
    return wf_vp_level(s->trained[(int32_t)s->timesteps[call]]); /* sigma may be infinite here */
}

static wf_mix to_x0(const weft_sampler *s, wf_level at)
{
    double total = at.noise * at.noise + 1; /* of straight latents */

    if (s->prediction == WEFT_PREDICT_SAMPLE) return (wf_mix){ 0, 1 };
    if (s->prediction == WEFT_PREDICT_EPSILON)
        return (wf_mix){ 1 / at.signal, -at.noise / at.signal };
    if (s->solver->straight) return (wf_mix){ 1 / total, -at.noise / sqrt(total) };
    return (wf_mix){ at.signal, -at.noise };
}

wf_mix wf_vp_noise_of(int32_t prediction, wf_level at)
{
    if (prediction == WEFT_PREDICT_SAMPLE)
        return (wf_mix){ 1 / at.noise, -at.signal / at.noise };
    if (prediction == WEFT_PREDICT_EPSILON) return (wf_mix){ 0, 1 };
    return (wf_mix){ at.noise, at.signal };
}

wf_mix wf_vp_to_noise(const weft_sampler *s, wf_level at)
{
    return wf_vp_noise_of(s->prediction, at);
}

/* Leading spacing starts below training's largest sigma, at a level where latents still hold
 * some of the image: their spread is sqrt(sigma^2 + 1). The other spacings start at pure noise. */
static double init_scale(const weft_sampler *s)
{
    double sigma = s->sigmas[0];

    if (!s->solver->straight) return 1;
    return s->o.spacing == WEFT_SPACING_LEADING ? sqrt(sigma * sigma + 1) : sigma;
}

const wf_process wf_process_vp = {
    .plan = plan,
    .level = level,
    .to_x0 = to_x0,
    .init_scale = init_scale,
};
