/* pndm.c - Liu et al. (2022): pseudo numerical methods, the linear multistep part (PLMS).
 *
 * The step is DDIM's, from A to A', but with the network's answer replaced by what Adams and
 * Bashforth make of the last four:
 *
 *   p* = (55 p1 - 59 p2 + 37 p3 - 9 p4) / 24,   p1 the newest
 *
 * With fewer at first: (23 p1 - 16 p2 + 5 p3) / 12, then (3 p1 - p2) / 2. The very first step
 * has no earlier answer, so it is taken twice: once with p1 alone, then again from where it
 * began with the mean of p1 and the answer at its end, which is then forgotten. Hence N + 1
 * calls, and calls 1 and 2 share a timestep.
 *
 * The paper begins with Runge-Kutta steps instead; Stable Diffusion leaves them out. The answers
 * are averaged as they are, be they noise, v or x0.
 *
 * An image that starts at a later call also takes its first step twice. Timesteps there are not
 * doubled, so the steps after it start one level too low. diffusers does the same, and images
 * are to agree. */
#include <math.h>

#include "sampler/sampler_internal.h"

#define LOOK_BACK 3 /* answers kept beside the newest */

static const double weights[LOOK_BACK + 1][LOOK_BACK + 1] = {
    { 1 },
    { 3.0 / 2, -1.0 / 2 },
    { 23.0 / 12, -16.0 / 12, 5.0 / 12 },
    { 55.0 / 24, -59.0 / 24, 37.0 / 24, -9.0 / 24 },
};

static int32_t calls(int32_t steps)
{
    return steps == 1 ? 1 : steps + 1;
}

static int32_t step_of(int32_t call)
{
    return call > 1 ? call - 1 : call;
}

/* x moves from A at t to A at next, along the answer p. */
static float moved(wf_mix by, double x, double p)
{
    return (float)(by.x_part * x + by.p_part * p);
}

static wf_mix ddim(const weft_sampler *s, int32_t t, int32_t next)
{
    double   end = (s->o.flags & WEFT_SAMPLER_ALPHA_TO_ONE) ? 1.0 : wf_vp_alpha(s, 0);
    double   A_next = next >= 0 ? wf_vp_alpha(s, next) : end;
    double   keep = sqrt(A_next), toward = sqrt(1 - A_next);
    wf_level at = wf_vp_level(wf_vp_alpha(s, t));
    wf_mix   x0 = s->process->to_x0(s, at), e = wf_vp_to_noise(s, at);

    return (wf_mix){ keep * x0.x_part + toward * e.x_part, keep * x0.p_part + toward * e.p_part };
}

/* history: answer number n of the image in buffer n % 3. Until answer 1 comes, buffer 1 holds the
 * latents that the first step began with. */
static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise,
                 float *history, float *x, size_t len)
{
    int32_t count = call - s->first, apart = s->o.train_steps / s->o.steps;
    int32_t t = (int32_t)s->timesteps[call];
    int32_t kept = count > 1 ? count - 1 : count; /* answers so far, without the forgotten */
    int32_t order = WF_MIN(kept, LOOK_BACK);
    wf_mix  by = count == 1 ? ddim(s, WF_MIN(t + apart, s->o.train_steps - 1), t)
                            : ddim(s, t, t - apart);
    float  *began = history + len, *here = history + (size_t)(kept % LOOK_BACK) * len;
    const float *back[LOOK_BACK];

    (void)noise;
    if (count == 1) {
        for (size_t i = 0; i < len; i++) {
            double p = ((double)prediction[i] + (double)history[i]) / 2;

            x[i] = moved(by, (double)began[i], p);
        }
        return;
    }
    if (count == 0) memcpy(began, x, len * sizeof *x);
    for (int32_t k = 0; k < order; k++)
        back[k] = history + (size_t)((kept - 1 - k) % LOOK_BACK) * len;
    for (size_t i = 0; i < len; i++) {
        double p = weights[order][0] * (double)prediction[i];

        for (int32_t k = 0; k < order; k++) p += weights[order][k + 1] * (double)back[k][i];
        here[i] = prediction[i]; /* over the oldest, which was just read */
        x[i] = moved(by, (double)x[i], p);
    }
}

static const char *const aliases[] = { "PNDMScheduler", "plms", NULL };
static const wf_setting  settings[] = {
    { "skip_prk_steps", JSON_TRUE, NULL, 1, "there are no Runge-Kutta steps" },
    WF_SETTINGS_END,
};

const wf_solver wf_solver_pndm = {
    .name = "pndm",
    .kind = WEFT_SAMPLER_PNDM,
    .aliases = aliases,
    .layout = WF_LAYOUT_TIMESTEPS,
    .spacing = WEFT_SPACING_LEADING,
    .history = LOOK_BACK,
    .calls = calls,
    .step_of = step_of,
    .step = step,
    .absent = { WEFT_BETAS_LINEAR, 0.0001f, 0.02f, 0 },
    .settings = settings,
};
