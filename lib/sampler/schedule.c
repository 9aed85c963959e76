/* schedule.c - from betas to noise levels: the tables that every solver starts from.
 *
 * Training knows T noise levels, A_t = product of (1 - beta). Sampling visits N of them. Which ones, and
 * with what rounding, is convention, and pictures differ visibly between conventions; these are the ones of
 * diffusers, down to where it computes in float32 and where in double:
 *
 *   betas    torch.linspace in float32: from the start for the first half, from the end for the second
 *   A_t      float32 factors, multiplied up in double, each product rounded to float32
 *   sigma_t  sqrt((1-A_t)/A_t) in float32
 *   the rest numpy in double
 *
 * The float32 steps matter: 1 - A_0 is 8.5e-4, so one unit in the last place of A_0 is 7e-5 of it. */
#include <float.h>
#include <math.h>

#include "sampler/sampler.h"

/* 2^-24, the smallest half precision number: what diffusers puts where rescaled betas leave A = 0, so that
 * the first sigma (4096) is finite. Solvers that step by A and not by sigma can start from A = 0. */
#define ALMOST_NO_SIGNAL 0x1p-24f

double wf_decimal(float v)
{
    double power = 1;

    for (int32_t digits = 0; digits < 16; digits++, power *= 10) { /* 10^15 and below: exact in double */
        double nearest = rint((double)v * power) / power;

        if ((float)nearest == v) return nearest;
    }
    return (double)v;
}

/* torch.linspace(from, to, n)[i] in float32; its processors fuse the multiplication and the addition, which is
 * what computing the two in double and rounding once amounts to. */
static float linspace_f32(float from, float to, int32_t n, int32_t i)
{
    float step = (to - from) / (float)(n - 1);

    if (i < n / 2) return (float)((double)from + (double)step * i);
    return (float)((double)to - (double)step * (n - 1 - i));
}

static float beta_at(const weft_sampler *s, int32_t i)
{
    if (s->o.betas == WEFT_BETAS_LINEAR)
        return linspace_f32((float)s->beta_start, (float)s->beta_end, s->o.train_steps, i);

    float root = linspace_f32((float)sqrt(s->beta_start), (float)sqrt(s->beta_end), s->o.train_steps, i);
    return root * root;
}

/* Lin et al. (2023), algorithm 1: shift sqrt(A) so that its last value is 0, scale it so that its first value
 * stays; then read off betas and multiply up once more, since the rounding of that is part of the result. */
static void rescale_to_zero_signal(weft_sampler *s)
{
    int32_t T = s->o.train_steps;
    float   first = sqrtf((float)s->alphas[0]), last = sqrtf((float)s->alphas[T - 1]);
    float   stretch = first / (first - last), before = 1;
    double  product = 1;

    for (int32_t t = 0; t < T; t++) {
        float root = (sqrtf((float)s->alphas[t]) - last) * stretch;
        float bar  = root * root;
        float beta = 1 - (t == 0 ? bar : bar / before);

        before = bar;
        product *= (double)(1 - beta);
        s->alphas[t] = (double)(float)product;
    }
    if (s->solver->free_sigmas) s->alphas[T - 1] = (double)ALMOST_NO_SIGNAL;
}

weft_status wf_schedule_alphas(weft_sampler *s, weft_error *err)
{
    int32_t        T = s->o.train_steps;
    double         product = 1;
    bool           small, large;
    wf_number_text start, end;

    for (int32_t t = 0; t < T; t++) {
        product *= (double)(1 - beta_at(s, t));
        s->alphas[t] = (double)(float)product;
    }
    small = s->alphas[0] >= 1;
    large = s->alphas[T - 1] < FLT_MIN; /* below it (1 - A) / A overflows */
    if (!small && !large && (s->o.flags & WEFT_SAMPLER_ZERO_SNR)) {
        rescale_to_zero_signal(s);
        large = !(s->alphas[T - 2] > s->alphas[T - 1]); /* nothing left before the last, or less than is put there */
    }
    if (small || large)
        return wf_fail(err, WEFT_E_ARG,
                       "sampler: betas from %s to %s over %d steps are too %s: float32 cannot hold the products",
                       wf_number(&start, s->beta_start), wf_number(&end, s->beta_end), T,
                       small ? "small" : "large");
    return WEFT_OK;
}

/* numpy.linspace(0, T - 1, points), counted from the top. */
static double linspace_down(int32_t T, int32_t points, int32_t i)
{
    int32_t k = points - 1 - i;

    if (points == 1) return 0;
    return k == points - 1 ? T - 1 : k * ((double)(T - 1) / (points - 1));
}

weft_status wf_schedule_timesteps(weft_sampler *s, int32_t points, bool whole, weft_error *err)
{
    int32_t T = s->o.train_steps, N = s->o.steps, dropped = points - N;
    int32_t apart = T / points; /* leading */
    double  down = (T - (double)T / N) - T; /* trailing: numpy.arange's step, with arange's rounding */

    if (s->o.spacing == WEFT_SPACING_LEADING && apart == 0)
        return wf_fail(err, WEFT_E_ARG, "sampler: %d steps with leading spacing, but %s reaches at most %d of %d", N,
                       s->solver->name, T - dropped, T);
    if (s->o.spacing == WEFT_SPACING_LEADING && (points - 1) * apart > T - 1 - s->o.steps_offset)
        return wf_fail(err, WEFT_E_ARG,
                       "sampler: %d steps with steps_offset %d start at timestep %lld, but the last one is %d", N,
                       s->o.steps_offset, (long long)(points - 1) * apart + s->o.steps_offset, T - 1);

    for (int32_t i = 0; i < N; i++) {
        double t;

        if (s->o.spacing == WEFT_SPACING_LEADING) t = (double)(points - 1 - i) * apart + s->o.steps_offset;
        else if (s->o.spacing == WEFT_SPACING_LINSPACE) t = linspace_down(T, points, i);
        else t = rint(T + i * down) - 1;
        s->timesteps[i] = whole ? rint(t) : (double)(float)t; /* both round halves to even, like numpy */
    }
    return WEFT_OK;
}

weft_status wf_schedule_distilled(weft_sampler *s, weft_error *err)
{
    int32_t M = s->o.origin_steps, N = s->o.steps, apart = s->o.train_steps / M;

    if (N > M)
        return wf_fail(err, WEFT_E_ARG, "sampler: %d steps, but %s takes its steps from the %d of its training "
                       "(origin_steps)", N, s->solver->name, M);
    for (int32_t i = 0; i < N; i++) { /* floor(numpy.linspace(0, M, N, endpoint=False)): in double, as there */
        int32_t place = (int32_t)(i * ((double)M / N));

        s->timesteps[i] = (double)(M - place) * apart - 1;
    }
    return WEFT_OK;
}

double wf_schedule_sigma(const weft_sampler *s, int32_t t)
{
    float A = (float)s->alphas[t];

    return (double)sqrtf((1 - A) / A);
}

void wf_schedule_interpolate(weft_sampler *s)
{
    for (int32_t i = 0; i < s->o.steps; i++) {
        double  t = s->timesteps[i];
        int32_t below = WF_MIN((int32_t)t, s->o.train_steps - 2);
        double  low = wf_schedule_sigma(s, below), high = wf_schedule_sigma(s, below + 1);

        s->sigmas[i] = (double)(float)(t > below ? low + (t - below) * (high - low) : low); /* high may be infinite */
    }
    s->sigmas[s->o.steps] = 0;
}

/* The fractional timestep whose log(sigma) this is: linear between two entries of the table. */
static double timestep_of(const weft_sampler *s, double wanted)
{
    int32_t low = 0, high = s->o.train_steps - 1;
    double  below, above, part;

    while (high - low > 1) {
        int32_t middle = (low + high) / 2;

        if (wanted >= (double)logf((float)wf_schedule_sigma(s, middle))) low = middle;
        else high = middle;
    }
    below = (double)logf((float)wf_schedule_sigma(s, low));
    above = (double)logf((float)wf_schedule_sigma(s, high));
    if (above <= below) return low; /* betas so small that float32 sees no growth */
    part = WF_MIN(WF_MAX((wanted - below) / (above - below), 0.0), 1.0);
    return low + part;
}

/* Karras et al. (2022), equation 5, with rho = 7. */
void wf_schedule_karras(weft_sampler *s, double high, double low)
{
    double top = pow(high, 1.0 / 7), bottom = pow(low, 1.0 / 7);

    for (int32_t i = 0; i < s->o.steps; i++) {
        double part  = s->o.steps == 1 ? 0 : (double)i / (s->o.steps - 1);
        double sigma = pow(top + part * (bottom - top), 7);

        s->timesteps[i] = timestep_of(s, log(sigma));
        s->sigmas[i] = (double)(float)sigma;
    }
    s->sigmas[s->o.steps] = 0;
}

void wf_schedule_given(weft_sampler *s)
{
    for (int32_t i = 0; i < s->o.steps; i++) {
        s->timesteps[i] = timestep_of(s, (double)logf(s->o.sigmas[i]));
        s->sigmas[i] = (double)s->o.sigmas[i];
    }
    s->sigmas[s->o.steps] = 0;
}

wf_mix wf_predicted_x0(int32_t prediction, double alpha, double sigma)
{
    if (prediction == WEFT_PREDICT_V) return (wf_mix){ alpha, -sigma };
    if (prediction == WEFT_PREDICT_SAMPLE) return (wf_mix){ 0, 1 };
    return (wf_mix){ 1 / alpha, -sigma / alpha };
}

wf_mix wf_predicted_noise(int32_t prediction, double alpha, double sigma)
{
    if (prediction == WEFT_PREDICT_V) return (wf_mix){ sigma, alpha };
    if (prediction == WEFT_PREDICT_SAMPLE) return (wf_mix){ 1 / sigma, -alpha / sigma };
    return (wf_mix){ 0, 1 };
}

wf_mix wf_predicted_x0_exploding(int32_t prediction, double sigma)
{
    double total = sigma * sigma + 1;

    if (prediction == WEFT_PREDICT_V) return (wf_mix){ 1 / total, -sigma / sqrt(total) };
    if (prediction == WEFT_PREDICT_SAMPLE) return (wf_mix){ 0, 1 };
    return (wf_mix){ 1, -sigma };
}
