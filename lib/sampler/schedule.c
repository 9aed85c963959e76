/* schedule.c - which timesteps and levels N steps visit, whatever the process.
 *
 * Which ones, and with what rounding, is convention, and images differ visibly between
 * conventions. These are the ones of diffusers, which computes them with numpy in double, and
 * those of ComfyUI and A1111 for schedules that diffusers does not have. */
#include <math.h>

#include "sampler/sampler_internal.h"

/* ---- timesteps ----------------------------------------------------------------------------- */

double wf_decimal(float v)
{
    double power = 1;

    for (int32_t digits = 0; digits < 16; digits++, power *= 10) { /* 10^15: exact in double */
        double nearest = rint((double)v * power) / power;

        if ((float)nearest == v) return nearest;
    }
    return (double)v;
}

/* numpy.linspace(0, T - 1, points), counted from the top. */
static double linspace_down(int32_t T, int32_t points, int32_t i)
{
    int32_t k = points - 1 - i;

    if (points == 1) return 0;
    return k == points - 1 ? T - 1 : k * ((double)(T - 1) / (points - 1));
}

static weft_status check_leading(const weft_sampler *s, int32_t points, int32_t apart,
                                 weft_error *err)
{
    int32_t T = s->o.train_steps, N = s->o.steps;

    if (apart == 0)
        return wf_fail(err, WEFT_E_ARG,
                       "sampler: %d steps with leading spacing, but %s reaches at most %d of %d", N,
                       s->solver->name, T - (points - N), T);
    if ((points - 1) * apart > T - 1 - s->o.steps_offset)
        return wf_fail(err, WEFT_E_ARG,
                       "sampler: %d steps with steps_offset %d start at timestep %lld, but the "
                       "last one is %d", N, s->o.steps_offset,
                       (long long)(points - 1) * apart + s->o.steps_offset, T - 1);
    return WEFT_OK;
}

weft_status wf_schedule_timesteps(weft_sampler *s, int32_t T, int32_t points, bool whole,
                                  weft_error *err)
{
    int32_t N = s->o.steps;
    int32_t apart = T / points;             /* of leading timesteps                              */
    double  down = (T - (double)T / N) - T; /* trailing: numpy.arange's step and its rounding    */

    if (s->o.spacing == WEFT_SPACING_LEADING) WF_TRY(check_leading(s, points, apart, err));

    for (int32_t i = 0; i < N; i++) {
        double t;

        if (s->o.spacing == WEFT_SPACING_LEADING)
            t = (double)(points - 1 - i) * apart + s->o.steps_offset;
        else if (s->o.spacing == WEFT_SPACING_LINSPACE)
            t = linspace_down(T, points, i);
        else
            t = rint(T + i * down) - 1;
        s->timesteps[i] = whole ? rint(t) : (double)(float)t; /* both round halves to even */
    }
    return WEFT_OK;
}

weft_status wf_schedule_distilled(weft_sampler *s, weft_error *err)
{
    int32_t M = s->o.origin_steps, N = s->o.steps, apart = s->o.train_steps / M;

    if (N > M)
        return wf_fail(err, WEFT_E_ARG,
                       "sampler: %d steps, but %s takes its steps from the %d of its training "
                       "(origin_steps)", N, s->solver->name, M);
    for (int32_t i = 0; i < N; i++) { /* floor(numpy.linspace(0, M, N, endpoint=False)) */
        int32_t place = (int32_t)(i * ((double)M / N));

        s->timesteps[i] = (double)(M - place) * apart - 1;
    }
    return WEFT_OK;
}

/* ---- levels between two sigmas ------------------------------------------------------------- */

/* The beta distribution with both parameters 0.6. */
#define BETA_SHAPE 0.6
#define BETA_NORM  2.4153442080024718 /* gamma(0.6)^2 / gamma(1.2) */

/* Its probability of less than x, for x up to 1/2: the series of the incomplete beta function,
 * x^a / (a B) (1 + sum of a (1 - b)(2 - b)..(n - b) x^n / (n! (a + n))). */
static double beta_below(double x)
{
    double sum = 1, term = 1;

    for (int32_t n = 1; n < 60; n++) { /* each term is less than half the one before */
        term *= (n - BETA_SHAPE) / n * x;
        sum += term * BETA_SHAPE / (BETA_SHAPE + n);
    }
    return pow(x, BETA_SHAPE) / (BETA_SHAPE * BETA_NORM) * sum;
}

/* Newton's method in y = x^a, in which the distribution is nearly a straight line. */
double wf_beta_quantile(double p)
{
    double y;

    if (!(p > 0)) return 0;
    if (p > 0.5) return 1 - wf_beta_quantile(1 - p);
    y = p * BETA_SHAPE * BETA_NORM;
    for (int32_t i = 0; i < 8; i++) {
        double x = pow(y, 1 / BETA_SHAPE);
        double slope = pow(1 - x, BETA_SHAPE - 1) / (BETA_SHAPE * BETA_NORM);

        y -= (beta_below(x) - p) / slope;
    }
    return pow(y, 1 / BETA_SHAPE);
}

/* 0 for the first of `steps`, 1 for the last. */
static double part_of(int32_t i, int32_t steps)
{
    return steps == 1 ? 0 : (double)i / (steps - 1);
}

double wf_schedule_sigma(const weft_sampler *s, double high, double low, int32_t i)
{
    double part = part_of(i, s->o.steps), rho = s->o.rho == 0 ? 7 : wf_decimal(s->o.rho);
    double top, bottom;

    switch (s->o.sigma_schedule) {
    case WEFT_SCHEDULE_KARRAS: /* Karras et al. (2022), equation 5 */
        top = pow(high, 1 / rho);
        bottom = pow(low, 1 / rho);
        return pow(top + part * (bottom - top), rho);
    case WEFT_SCHEDULE_BETA: /* Lee et al. (2024) */
        return low + wf_beta_quantile(1 - part) * (high - low);
    case WEFT_SCHEDULE_KL_OPTIMAL:
        return tan(part * atan(low) + (1 - part) * atan(high));
    case WEFT_SCHEDULE_LU: /* even in log(sigma), and so in lambda; the ends' are float32 */
        top = (double)logf((float)high);
        return exp(top + part * ((double)logf((float)low) - top));
    default: /* WEFT_SCHEDULE_EXPONENTIAL */
        return exp(log(high) + part * (log(low) - log(high)));
    }
}

/* ---- tables -------------------------------------------------------------------------------- */

/* Sabour et al. (2024), Align your steps: the published levels of ten steps, and where they end. */
#define ALIGNED 11
static const double align_sd1[ALIGNED] = {
    14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029,
};
static const double align_sdxl[ALIGNED] = {
    14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029,
};

/* Other numbers of steps lie on the line through the logarithms. */
double wf_schedule_aligned(const weft_sampler *s, int32_t i)
{
    const double *table = s->o.sigma_schedule == WEFT_SCHEDULE_ALIGN ? align_sd1 : align_sdxl;
    double        place = (double)i * (ALIGNED - 1) / s->o.steps;
    int32_t       k = (int32_t)place;

    return table[k] * pow(table[k + 1] / table[k], place - k);
}

bool wf_schedules_steps(int32_t schedule)
{
    return schedule == WEFT_SCHEDULE_SGM_UNIFORM || schedule == WEFT_SCHEDULE_SIMPLE ||
           schedule == WEFT_SCHEDULE_BETA_STEPS || schedule == WEFT_SCHEDULE_NORMAL ||
           schedule == WEFT_SCHEDULE_DDIM_UNIFORM;
}

double wf_schedule_step(const weft_sampler *s, int32_t i)
{
    int32_t T = s->o.train_steps, N = s->o.steps;

    switch (s->o.sigma_schedule) {
    case WEFT_SCHEDULE_NORMAL:
        return (T - 1) * (1 - part_of(i, N));
    case WEFT_SCHEDULE_DDIM_UNIFORM:
        return WF_MIN(1 + (N - 1 - i) * (T / N), T - 1);
    case WEFT_SCHEDULE_SIMPLE:
        return T - 1 - (int32_t)(i * ((double)T / N));
    case WEFT_SCHEDULE_BETA_STEPS:
        return rint(wf_beta_quantile(1 - (double)i / N) * (T - 1));
    default: /* WEFT_SCHEDULE_SGM_UNIFORM */
        return T - 1 - i * ((double)(T - 1) / N);
    }
}
