/* lcm.c - Luo et al. (2023): latent consistency models, pictures in a few steps.
 *
 * The network was distilled to guess the picture at once from any level of a coarse schedule of M steps. A step
 * takes the guess and puts fresh noise on it, as much as the next level has:
 *
 *   f = c_out x0 + c_skip x,   x' = sqrt(A') f + sqrt(1-A') noise;   the last step is x' = f
 *   c_skip = s^2 / (q^2 + s^2),   c_out = q / sqrt(q^2 + s^2),   q = 10 t,  s = 0.5
 *
 * The levels of M = origin_steps are k - 1, 2k - 1 .. M k - 1 with k = T / M, and N of them are visited, evenly by
 * their place in that list. Spacing and offset have no say. */
#include <math.h>

#include "sampler/sampler.h"

#define SIGMA_DATA 0.5
#define TIME_SCALE 10.0

static bool draws(const weft_sampler *s, int32_t call)
{
    return call + 1 < s->calls;
}

static weft_status plan(weft_sampler *s, weft_error *err)
{
    weft_status st = wf_schedule_distilled(s, err);

    if (st != WEFT_OK) return st;
    wf_schedule_interpolate(s);
    return WEFT_OK;
}

static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise, float *history,
                 float *x, size_t len)
{
    double t = s->timesteps[call], A = s->alphas[(int32_t)t];
    double A_next = call + 1 < s->calls ? s->alphas[(int32_t)s->timesteps[call + 1]] : 1;
    double q = TIME_SCALE * t, all = q * q + SIGMA_DATA * SIGMA_DATA;
    double keep = sqrt(A_next), sd = sqrt(1 - A_next), out = q / sqrt(all);
    wf_mix x0 = wf_predicted_x0(s->o.prediction, sqrt(A), sqrt(1 - A));
    double x_part = keep * (out * x0.x_part + SIGMA_DATA * SIGMA_DATA / all), p_part = keep * out * x0.p_part;

    (void)history;
    for (size_t i = 0; i < len; i++)
        x[i] = (float)(x_part * (double)x[i] + p_part * (double)prediction[i] + (noise ? sd * (double)noise[i] : 0.0));
}

const wf_solver wf_solver_lcm = {
    .name = "lcm", .kind = WEFT_SAMPLER_LCM, .spacing = WEFT_SPACING_LEADING, .draws = draws, .plan = plan, .step = step,
};
