/* form_pair.c - what forms with a pair of thin factors share: A (r, K) and B, transposed, (r, out).
 *
 * A is drawn and B is zero, so that training begins at the model as it is: uniform within
 * 1 / sqrt(K) as PEFT draws it (torch's Kaiming), or N(0, 1 / r^2). A layer with fewer rows or
 * columns than the rank gets as many as it has, and keeps the scale. Without an alpha that is 1. */
#include <math.h>

#include "train/form.h"

void wf_site_rank(wf_site *s, const wf_form_choice *c)
{
    s->rank = (int32_t)WF_MIN((size_t)c->rank, WF_MIN(s->out, s->K));
    s->scale = c->alpha != 0 ? c->alpha / (float)c->rank : 1;
    s->alpha = s->rank == c->rank && c->alpha != 0 ? c->alpha : s->scale * (float)s->rank;
}

bool wf_pair_shape(wf_site *s, const wf_form_choice *c)
{
    if (s->layer->kind == WEFT_LAYER_NORM) return false;
    wf_site_rank(s, c);
    s->tensor[0] = (wf_form_tensor){ "lora_A", (size_t)s->rank, s->K, false };
    s->tensor[1] = (wf_form_tensor){ "lora_B", (size_t)s->rank, s->out, false };
    s->tensors = 2;
    return true;
}

void wf_pair_begin(const wf_site *s, const wf_form_choice *c, wf_mersenne *g)
{
    size_t r = (size_t)s->rank;
    float  bound = 1 / sqrtf((float)s->K), deviation = 1 / (float)s->rank;

    for (size_t i = 0; i < r * s->K; i++)
        s->value[0][i] = c->gaussian ? deviation * wf_draw_normal(g) : wf_draw_uniform(g, bound);
    memset(s->value[1], 0, r * s->out * sizeof(float));
}

void wf_pair_write(const wf_site *s, bool kohya, const float *A, const float *B, wf_outs *o)
{
    wf_out_inner(o, s, kohya ? "lora_down.weight" : "lora_A.weight", A, (size_t)s->rank,
                 s->K / wf_site_taps(s));
    wf_out_outer(o, s, kohya ? "lora_up.weight" : "lora_B.weight", B);
    if (kohya) wf_out_number(o, "alpha", s->alpha);
}
