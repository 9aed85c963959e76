/* heun.c - Heun's method on the probability flow, algorithm 1 of Karras et al. (2022) without added noise.
 *
 * A step of Euler's to the next sigma, and a second call there; then from where the step began once more, along the
 * mean of both slopes. Twice the calls for a method of order two. The last step goes to sigma = 0, where there is no
 * slope, and stays Euler's: 2 N - 1 calls, of which all but the first come in pairs that share a timestep.
 *
 *   d1 = (x - x0) / sigma,   x' = x + (sigma' - sigma) d1
 *   d2 = (x' - x0') / sigma',   x'' = x + (sigma' - sigma) (d1 + d2) / 2
 *
 * Noise levels, timesteps and scaling are Euler's. A picture may start only where a pair of calls does. */
#include "sampler/sampler.h"

static int32_t calls(int32_t steps)
{
    return 2 * steps - 1;
}

static weft_status plan(weft_sampler *s, weft_error *err)
{
    weft_status st = wf_solver_euler.plan(s, err);

    if (st != WEFT_OK) return st;
    for (int32_t i = s->o.steps - 1; i > 0; i--) {
        s->timesteps[2 * i] = s->timesteps[2 * i - 1] = s->timesteps[i];
        s->sigmas[2 * i] = s->sigmas[2 * i - 1] = s->sigmas[i];
    }
    s->sigmas[s->calls] = 0;
    return WEFT_OK;
}

/* history: the first slope of the step, and the latents that it began with. */
static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise, float *history,
                 float *x, size_t len)
{
    bool   second = call % 2 != 0;
    double sigma = s->sigmas[call], along = second ? sigma - s->sigmas[call - 1] : s->sigmas[call + 1] - sigma;
    wf_mix x0 = wf_predicted_x0_exploding(s->o.prediction, sigma);
    double x_part = (1 - x0.x_part) / sigma, p_part = -x0.p_part / sigma;
    float *slope = history, *began = history + len;

    (void)noise;
    for (size_t i = 0; i < len; i++) {
        double d = x_part * (double)x[i] + p_part * (double)prediction[i];

        if (second) {
            x[i] = (float)((double)began[i] + along * ((double)slope[i] + d) / 2);
        } else {
            slope[i] = (float)d;
            began[i] = x[i];
            x[i] = (float)((double)x[i] + along * d);
        }
    }
}

const wf_solver wf_solver_heun = {
    .name = "heun", .kind = WEFT_SAMPLER_HEUN, .spacing = WEFT_SPACING_LINSPACE, .order = 2, .history = 2,
    .free_sigmas = true, .exploding = true, .calls = calls, .plan = plan, .step = step,
};
