/* schedule.c - which timesteps and levels N steps visit, whatever the process.
 *
 * Which ones, and with what rounding, is convention, and images differ visibly between
 * conventions. These are the ones of diffusers, which computes them with numpy in double. */
#include <math.h>

#include "sampler/sampler_internal.h"

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

weft_status wf_schedule_timesteps(weft_sampler *s, int32_t points, bool whole, weft_error *err)
{
    int32_t     T = s->o.train_steps, N = s->o.steps;
    int32_t     apart = T / points;         /* of leading timesteps                              */
    double      down = (T - (double)T / N) - T; /* trailing: numpy.arange's step and its rounding */
    weft_status st;

    if (s->o.spacing == WEFT_SPACING_LEADING)
        if ((st = check_leading(s, points, apart, err)) != WEFT_OK) return st;

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

/* Karras et al. (2022), equation 5, with rho = 7. */
double wf_schedule_karras(double high, double low, int32_t i, int32_t steps)
{
    double top = pow(high, 1.0 / 7), bottom = pow(low, 1.0 / 7);
    double part = steps == 1 ? 0 : (double)i / (steps - 1);

    return pow(top + part * (bottom - top), 7);
}
