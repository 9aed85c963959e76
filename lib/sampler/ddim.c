/* ddim.c - Song, Meng, Ermon (2021): denoising diffusion implicit models.
 *
 * Read the finished image x0 and the noise e out of the network's answer, then put the two together
 * again at the next, lower noise level:
 *
 *   x' = sqrt(A') x0 + sqrt(1 - A' - sd^2) e + sd noise
 *   sd = eta sqrt((1 - A') / (1 - A) (1 - A / A'))
 *
 * A' is A at t - T/N for every spacing, as in diffusers. With linspace or trailing spacing that is
 * not quite the timestep of the next call. Below t = 0 it is A_0, or 1 with
 * WEFT_SAMPLER_ALPHA_TO_ONE.
 *
 * If x0 is clipped, e stays that of the network's answer, unless WEFT_SAMPLER_CLIPPED_NOISE asks
 * for the e that leads from the clipped x0 to x. */
#include <math.h>

#include "sampler/sampler_internal.h"

static bool draws(const weft_sampler *s, int32_t call)
{
    (void)call;
    return s->o.eta > 0;
}

static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise,
                 float *history, float *x, size_t len)
{
    int32_t  t = (int32_t)s->timesteps[call], next = t - s->o.train_steps / s->o.steps;
    double   end = (s->o.flags & WEFT_SAMPLER_ALPHA_TO_ONE) ? 1.0 : wf_vp_alpha(s, 0);
    double   A = wf_vp_alpha(s, t), A_next = next >= 0 ? wf_vp_alpha(s, next) : end, sd = 0;
    wf_level at = wf_vp_level(A);
    wf_mix   x0 = s->process->to_x0(s, at), e = wf_vp_to_noise(s, at);

    (void)history;
    if (s->o.eta > 0) sd = (double)s->o.eta * sqrt((1 - A_next) / (1 - A) * (1 - A / A_next));

    double keep = sqrt(A_next), toward = sqrt(WF_MAX(1 - A_next - sd * sd, 0.0));
    wf_mix by = { keep * x0.x_part + toward * e.x_part, keep * x0.p_part + toward * e.p_part };

    if (s->answer != NULL && !(s->o.flags & WEFT_SAMPLER_CLIPPED_NOISE)) {
        e = wf_vp_noise_of(s->o.prediction, at);
        by = (wf_mix){ toward * e.x_part, keep };
        wf_step_linear(by, sd, prediction, noise, x, len);
        for (size_t i = 0; i < len; i++)
            x[i] = (float)((double)x[i] + toward * e.p_part * (double)s->answer[i]);
        return;
    }
    wf_step_linear(by, sd, prediction, noise, x, len);
}

static const char *const aliases[] = { "DDIMScheduler", NULL };
static const wf_setting  settings[] = { WF_SETTINGS_END };

const wf_solver wf_solver_ddim = {
    .name = "ddim",
    .kind = WEFT_SAMPLER_DDIM,
    .aliases = aliases,
    .layout = WF_LAYOUT_TIMESTEPS,
    .spacing = WEFT_SPACING_LEADING,
    .eta = true,
    .draws = draws,
    .step = step,
    .takes = WF_TAKES_CLIP | WF_TAKES_THRESHOLD | WF_TAKES_CLIPPED_NOISE,
    .absent = { WEFT_BETAS_LINEAR, 0.0001f, 0.02f, WEFT_SAMPLER_ALPHA_TO_ONE },
    .settings = settings,
};
