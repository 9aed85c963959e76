/* lcm.c - Luo et al. (2023): latent consistency models, images in a few steps.
 *
 * The network was distilled to guess the image at once from any level of a coarse schedule of M
 * steps. A step takes the guess and puts fresh noise on it, as much as the next level has:
 *
 *   f = c_out x0 + c_skip x,   x' = sqrt(A') f + sqrt(1-A') noise;   the last step is x' = f
 *   c_skip = s^2 / (q^2 + s^2),   c_out = q / sqrt(q^2 + s^2),   q = 10 t,  s = 0.5
 *
 * The levels of M = origin_steps are k - 1, 2k - 1 .. M k - 1 with k = T / M. N of them are
 * visited, evenly by their place in that list. Spacing and offset are not used. */
#include <math.h>

#include "sampler/sampler_internal.h"

#define SIGMA_DATA 0.5
#define TIME_SCALE 10.0

static bool draws(const weft_sampler *s, int32_t call)
{
    return call + 1 < s->calls;
}

static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise,
                 float *history, float *x, size_t len)
{
    bool   last = call + 1 == s->calls;
    double t = s->timesteps[call];
    double A_next = last ? 1 : wf_vp_alpha(s, (int32_t)s->timesteps[call + 1]);
    double q = TIME_SCALE * t, all = q * q + SIGMA_DATA * SIGMA_DATA;
    double keep = sqrt(A_next), sd = sqrt(1 - A_next);
    double out = q / sqrt(all), skip = SIGMA_DATA * SIGMA_DATA / all;
    wf_mix x0 = s->process->to_x0(s, s->process->level(s, call));
    wf_mix by = { keep * (out * x0.x_part + skip), keep * out * x0.p_part };

    (void)history;
    wf_step_linear(by, sd, prediction, noise, x, len);
}

static const char *const aliases[] = { "LCMScheduler", NULL };
static const wf_setting  settings[] = {
    { "timestep_scaling", JSON_REAL, NULL, TIME_SCALE, "it is 10 here" },
    WF_SETTINGS_END,
};

const wf_solver wf_solver_lcm = {
    .name = "lcm",
    .kind = WEFT_SAMPLER_LCM,
    .aliases = aliases,
    .layout = WF_LAYOUT_DISTILLED,
    .spacing = WEFT_SPACING_LEADING,
    .draws = draws,
    .step = step,
    .takes = WF_TAKES_CLIP | WF_TAKES_THRESHOLD,
    .absent = { WEFT_BETAS_SCALED_LINEAR, 0.00085f, 0.012f, WEFT_SAMPLER_ALPHA_TO_ONE },
    .settings = settings,
};
