/* pndm.c - Liu et al. (2022): pseudo numerical methods, the linear multistep part (PLMS).
 *
 * The step is DDIM's, from A to A', but with the network's answer replaced by what Adams and Bashforth make of
 * the last four:
 *
 *   p* = (55 p1 - 59 p2 + 37 p3 - 9 p4) / 24,   p1 the newest
 *
 * Fewer at first: (23 p1 - 16 p2 + 5 p3) / 12, then (3 p1 - p2) / 2. The very first step has nothing to look back
 * on, so it is taken twice: once with p1 alone, then again from where it began with the mean of p1 and the answer
 * at its end, which is then forgotten. Hence N + 1 calls, of which calls 1 and 2 share a timestep.
 *
 * The paper begins with Runge-Kutta steps instead; Stable Diffusion leaves them out. What is averaged is the
 * network's answer as it is, noise, v or picture.
 *
 * A picture that starts at a later call also takes its first step twice. Timesteps there are not doubled, so the
 * steps after it start one level too low: that is how diffusers does it, and pictures are to agree. */
#include <math.h>

#include "sampler/sampler.h"

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

static weft_status plan(weft_sampler *s, weft_error *err)
{
    weft_status st = wf_schedule_timesteps(s, s->o.steps, true, err);

    if (st != WEFT_OK) return st;
    wf_schedule_interpolate(s);
    for (int32_t i = s->calls - 1; i > 1; i--) {
        s->timesteps[i] = s->timesteps[i - 1];
        s->sigmas[i] = s->sigmas[i - 1];
    }
    s->sigmas[s->calls] = 0;
    return WEFT_OK;
}

/* x moves from A at t to A at next, along the answer p. */
static float moved(wf_mix by, double x, double p)
{
    return (float)(by.x_part * x + by.p_part * p);
}

static wf_mix ddim(const weft_sampler *s, int32_t t, int32_t next)
{
    double past = (s->o.flags & WEFT_SAMPLER_ALPHA_TO_ONE) ? 1.0 : s->alphas[0];
    double A = s->alphas[t], A_next = next >= 0 ? s->alphas[next] : past;
    double keep = sqrt(A_next), toward = sqrt(1 - A_next);
    wf_mix x0 = wf_predicted_x0(s->o.prediction, sqrt(A), sqrt(1 - A));
    wf_mix e  = wf_predicted_noise(s->o.prediction, sqrt(A), sqrt(1 - A));

    return (wf_mix){ keep * x0.x_part + toward * e.x_part, keep * x0.p_part + toward * e.p_part };
}

/* history: answer number n of the picture in buffer n % 3, save that buffer 1 holds, until answer 1 comes, the
 * latents that the first step began with. */
static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise, float *history,
                 float *x, size_t len)
{
    int32_t count = call - s->first, t = (int32_t)s->timesteps[call], apart = s->o.train_steps / s->o.steps;
    int32_t kept = count > 1 ? count - 1 : count;  /* answers before this one, the forgotten one left out */
    int32_t order = WF_MIN(kept, LOOK_BACK);
    wf_mix  by = count == 1 ? ddim(s, WF_MIN(t + apart, s->o.train_steps - 1), t) : ddim(s, t, t - apart);
    float  *began = history + len, *here = history + (size_t)(kept % LOOK_BACK) * len;
    const float *back[LOOK_BACK];

    (void)noise;
    if (count == 1) {
        for (size_t i = 0; i < len; i++)
            x[i] = moved(by, (double)began[i], ((double)prediction[i] + (double)history[i]) / 2);
        return;
    }
    if (count == 0) memcpy(began, x, len * sizeof *x);
    for (int32_t k = 0; k < order; k++) back[k] = history + (size_t)((kept - 1 - k) % LOOK_BACK) * len;
    for (size_t i = 0; i < len; i++) {
        double p = weights[order][0] * (double)prediction[i];

        for (int32_t k = 0; k < order; k++) p += weights[order][k + 1] * (double)back[k][i];
        here[i] = prediction[i]; /* over the oldest, which was just read */
        x[i] = moved(by, (double)x[i], p);
    }
}

const wf_solver wf_solver_pndm = {
    .name = "pndm", .kind = WEFT_SAMPLER_PNDM, .spacing = WEFT_SPACING_LEADING, .history = LOOK_BACK, .calls = calls,
    .plan = plan, .step = step,
};
