/* lms.c - a linear multistep method on the probability flow: Adams and Bashforth over sigma.
 *
 * The slope d = (x - x0) / sigma of this call and of up to three before it are taken for a
 * polynomial in sigma, which is integrated to the next level:
 *
 *   x' = x + sum over j of d_j * (integral from sigma to sigma' of l_j(s) ds)
 *   l_j(s) = prod_{k != j} (s - s_k) / (s_j - s_k)
 *
 * The integral of a cubic is exact with two points of Gauss, so no polynomial is multiplied out.
 *
 * An image that starts at a later call has the weights of as many slopes as if it had started at
 * call 0, but only the slopes that there are. diffusers does the same, and images are to agree. */
#include <math.h>

#include "sampler/sampler_internal.h"

#define LOOK_BACK 3 /* slopes kept beside the newest */

/* The j-th of `order` Lagrange polynomials over the levels of this call and of those before it. */
static double lagrange(const weft_sampler *s, int32_t call, int32_t order, int32_t j, double sigma)
{
    double product = 1;

    for (int32_t k = 0; k < order; k++)
        if (k != j)
            product *= (sigma - s->sigmas[call - k]) / (s->sigmas[call - j] - s->sigmas[call - k]);
    return product;
}

static double weight(const weft_sampler *s, int32_t call, int32_t order, int32_t j)
{
    double half = (s->sigmas[call + 1] - s->sigmas[call]) / 2;
    double middle = s->sigmas[call] + half, off = half / sqrt(3.0);

    return half * (lagrange(s, call, order, j, middle - off) +
                   lagrange(s, call, order, j, middle + off));
}

/* How many slopes are weighed: none behind two equal levels, between which nothing can be read. */
static int32_t order_of(const weft_sampler *s, int32_t call)
{
    int32_t order = 1;

    while (order < s->o.order && order <= call &&
           s->sigmas[call - order] > s->sigmas[call - order + 1])
        order++;
    return order;
}

/* history: the slope of call n in buffer n % 3. */
static void step(const weft_sampler *s, int32_t call, const float *prediction, const float *noise,
                 float *history, float *x, size_t len)
{
    int32_t order = order_of(s, call), known = WF_MIN(order, call - s->first + 1);
    double  sigma = s->sigmas[call], weights[LOOK_BACK + 1];
    wf_mix  x0 = s->process->to_x0(s, s->process->level(s, call));
    double  x_part = (1 - x0.x_part) / sigma, p_part = -x0.p_part / sigma;
    float  *here = history + (size_t)(call % LOOK_BACK) * len;
    const float *back[LOOK_BACK + 1] = { NULL };

    (void)noise;
    for (int32_t j = 0; j < known; j++) weights[j] = weight(s, call, order, j);
    for (int32_t j = 1; j < known; j++)
        back[j] = history + (size_t)((call - j) % LOOK_BACK) * len;
    for (size_t i = 0; i < len; i++) {
        double d = x_part * (double)x[i] + p_part * (double)prediction[i];
        double sum = (double)x[i] + weights[0] * d;

        for (int32_t j = 1; j < known; j++) sum += weights[j] * (double)back[j][i];
        here[i] = (float)d; /* over the oldest, which was just read */
        x[i] = (float)sum;
    }
}

static const char *const aliases[] = { "LMSDiscreteScheduler", NULL };
static const wf_setting  settings[] = { WF_SETTINGS_END };

const wf_solver wf_solver_lms = {
    .name = "lms",
    .kind = WEFT_SAMPLER_LMS,
    .aliases = aliases,
    .layout = WF_LAYOUT_LEVELS,
    .spacing = WEFT_SPACING_LINSPACE,
    .straight = true,
    .history = LOOK_BACK,
    .step = step,
    .order = LOOK_BACK + 1,
    .max_order = LOOK_BACK + 1,
    .karras = true,
    .karras_range = true,
    .absent = { WEFT_BETAS_LINEAR, 0.0001f, 0.02f, WEFT_SAMPLER_ALPHA_TO_ONE },
    .settings = settings,
};
