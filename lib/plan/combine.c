/* combine.c - the branches of a call become one prediction, by the rule of the phase's method. */
#include "plan/method/method.h"

size_t wf_plan_combine_scratch(const weft_plan *p, size_t values)
{
    size_t most = 0;

    for (size_t i = 0; i < p->table.phases; i++) {
        const wf_sheet *s = &p->table.phase[i];
        if (s->method->scratch != NULL) most = WF_MAX(most, s->method->scratch(p, s, values));
    }
    return most;
}

void wf_plan_combine(const weft_plan *p, const wf_combine *x)
{
    const wf_sheet *s = wf_plan_phase(p, x->call);
    size_t          values = (size_t)x->n * (size_t)x->c * (size_t)x->h * (size_t)x->w;

    for (int32_t b = 0; x->shares != NULL && b < x->branches + (x->base != NULL); b++)
        x->shares[b] = 0;
    if (s->method->combine != NULL) {
        s->method->combine(p, s, x);
        return;
    }
    memcpy(x->out, x->preds[0], values * sizeof *x->out);
    wf_take_down(x, 0, 1);
}

void wf_take_down(const wf_combine *x, int32_t branch, double share)
{
    if (x->shares != NULL) x->shares[branch] += share;
}
