/* tcd.c - Zheng et al. (2024): trajectory consistency distillation, images in a few steps.
 *
 * A latent consistency model jumps to the image and puts noise back. This one jumps along the
 * trajectory to a level s below the next one, t', and puts back only the noise between the two.
 * With gamma = eta:
 *
 *   s = floor((1 - gamma) t'),   x_s = sqrt(A_s) x0 + sqrt(1 - A_s) e
 *   x' = sqrt(A'/A_s) x_s + sqrt(1 - A'/A_s) noise
 *
 * gamma 0 draws nothing and is DDIM's step; gamma 1 goes all the way down each time. After the last
 * call t' is 0, and no noise is drawn there. The levels are those of lcm.c. */
#include <math.h>

#include "sampler/sampler_internal.h"

static bool draws(const weft_sampler *s, int32_t call)
{
    return s->o.eta > 0 && call + 1 < s->calls;
}

static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise,
                 float *history, float *x, size_t len)
{
    int32_t  next = call + 1 < s->calls ? (int32_t)s->timesteps[call + 1] : 0;
    /* float32 as in diffusers */
    int32_t  below = (int32_t)floorf((float)(1 - wf_decimal(s->o.eta)) * (float)next);
    double   A_below = wf_vp_alpha(s, below), back = noise ? wf_vp_alpha(s, next) / A_below : 1;
    double   keep = sqrt(back * A_below), toward = sqrt(back * (1 - A_below)), sd = sqrt(1 - back);
    wf_level at = s->process->level(s, call);
    wf_mix   x0 = s->process->to_x0(s, at), e = wf_vp_to_noise(s, at);
    wf_mix   by = { keep * x0.x_part + toward * e.x_part, keep * x0.p_part + toward * e.p_part };

    (void)history;
    wf_step_linear(by, sd, prediction, noise, x, len);
}

static const char *const aliases[] = { "TCDScheduler", NULL };
static const wf_setting  settings[] = { WF_SETTINGS_END };

const wf_solver wf_solver_tcd = {
    .name = "tcd",
    .kind = WEFT_SAMPLER_TCD,
    .aliases = aliases,
    .layout = WF_LAYOUT_DISTILLED,
    .spacing = WEFT_SPACING_LEADING,
    .eta = true,
    .draws = draws,
    .step = step,
    .absent = { WEFT_BETAS_SCALED_LINEAR, 0.00085f, 0.012f, WEFT_SAMPLER_ALPHA_TO_ONE },
    .settings = settings,
};
