/* composite.c - each adapter has a prediction of its own, and the predictions are averaged.
 *
 * Adapters never meet inside the network, so none disturbs another's layers: only their noise
 * predictions are averaged. The mean is taken before guidance, which is linear, so that afterwards
 * would give the same. The price is one evaluation of the network for each adapter and call.
 *
 * The result does not depend on the order in which adapters were added, not even in the last bit:
 * the terms of each sum are added in order of size. The sum is in double, so k equal predictions
 * average to themselves. */
#include "base/structs.h"
#include "plan/method/method.h"

static const weft_composite_options *options_of(const wf_sheet *s)
{
    return s->options->data;
}

/* Shares are few and floats: sorted and added in double, their sum has no order either. */
static double share_sum(const weft_plan *p)
{
    double sorted[WF_ADAPTERS_MAX], sum = 0;

    for (int32_t a = 0; a < p->adapters; a++) {
        double  v = p->entry[a].share;
        int32_t i = a;
        for (; i > 0 && sorted[i - 1] > v; i--) sorted[i] = sorted[i - 1];
        sorted[i] = v;
    }
    for (int32_t a = 0; a < p->adapters; a++) sum += sorted[a];
    return sum;
}

static double divisor_of(const weft_plan *p, const wf_sheet *s)
{
    return options_of(s)->flags & WEFT_COMPOSITE_DIVIDE_BY_COUNT ? (double)p->adapters
                                                                 : share_sum(p);
}

static weft_status begin(const weft_plan *p, wf_table *t, wf_sheet *s, weft_error *err)
{
    (void)t;
    if (p->adapters == 0) return WEFT_OK;
    if (divisor_of(p, s) == 0)
        return wf_fail(
            err, WEFT_E_UNSUPPORTED,
            "composite: the shares of %d adapters sum to 0, nothing can be divided by that",
            (int)p->adapters);
    return WEFT_OK;
}

static int32_t branches(const weft_plan *p, const wf_sheet *s, int32_t call)
{
    (void)s, (void)call;
    return WF_MAX(p->adapters, 1);
}

static wf_cell choose(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch,
                      int32_t layer, int32_t adapter)
{
    (void)p, (void)s, (void)call, (void)layer;
    return branch == adapter ? WF_ALL : WF_NOTHING;
}

static int32_t alone(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch)
{
    (void)p, (void)s, (void)call;
    return branch;
}

void wf_composite_sum(float *out, const float *const *preds, const float *share, int32_t branches,
                      double divisor, size_t n)
{
    double term[WF_ADAPTERS_MAX];

    for (size_t i = 0; i < n; i++) {
        double sum;
        for (int32_t b = 0; b < branches; b++) { /* insertion: branches are few */
            double  v = (double)share[b] * (double)preds[b][i];
            int32_t at = b;
            for (; at > 0 && term[at - 1] > v; at--) term[at] = term[at - 1];
            term[at] = v;
        }
        sum = term[0]; /* not 0 + term[0], which would lose the sign of -0 */
        for (int32_t b = 1; b < branches; b++) sum += term[b];
        out[i] = (float)(sum / divisor);
    }
}

static void combine(const weft_plan *p, const wf_sheet *s, const wf_combine *x)
{
    float   share[WF_ADAPTERS_MAX];
    size_t  values = (size_t)x->n * (size_t)x->c * (size_t)x->h * (size_t)x->w;
    int32_t last = x->branches - 1;

    if (p->adapters == 0 || (!x->guided && (options_of(s)->flags & WEFT_COMPOSITE_NOCFG_LAST))) {
        memcpy(x->out, x->preds[last], values * sizeof *x->out);
        return;
    }
    for (int32_t b = 0; b <= last; b++) share[b] = p->entry[b].share;
    wf_composite_sum(x->out, x->preds, share, last + 1, divisor_of(p, s), values);
}

static void weigh(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch,
                  float *weight, float *divisor)
{
    (void)call;
    if (p->adapters == 0) return;
    *weight = p->entry[branch].share;
    *divisor = (float)divisor_of(p, s);
}

static void describe(const weft_plan *p, const wf_sheet *s, wf_text *out)
{
    uint32_t flags = options_of(s)->flags;

    (void)p;
    if (flags & WEFT_COMPOSITE_DIVIDE_BY_COUNT)
        wf_text_add(
            out,
            "  mean       shares are divided by the number of adapters (as the paper prints it)\n");
    if (flags & WEFT_COMPOSITE_NOCFG_LAST)
        wf_text_add(out,
                    "  unguided   only the last adapter's prediction (the authors' program)\n");
}

static void explain(const weft_plan *p, const wf_sheet *s, wf_text *out)
{
    for (int32_t a = 0; a < p->adapters; a++) {
        wf_letter_text letter;
        wf_number_text c, share, divisor;
        wf_text_add(out,
                    "  branch %d  %s  %s at every call, at %d layers of the UNet; its prediction "
                    "counts %s / %s\n",
                    (int)a, wf_letter(&letter, a), wf_number(&c, p->entry[a].weight),
                    (int)wf_sheet_reach(s, a), wf_number(&share, p->entry[a].share),
                    wf_number(&divisor, divisor_of(p, s)));
    }
}

weft_status weft_plan_composite(weft_plan *plan, const weft_composite_options *options,
                                weft_error *err)
{
    weft_composite_options o;
    weft_status st = WF_OPTIONS(&o, options, weft_composite_options,
                                WEFT_COMPOSITE_DIVIDE_BY_COUNT | WEFT_COMPOSITE_NOCFG_LAST, err);

    if (st != WEFT_OK) return st;
    return wf_plan_use(plan, &wf_method_composite, &o, sizeof o, err);
}

const wf_method wf_method_composite = {
    .name = "composite",
    .title = "LoRA Composite",
    .text = WEFT_TEXT_ALL,
    .choose = choose,
    .begin = begin,
    .alone = alone,
    .branches = branches,
    .combine = combine,
    .weigh = weigh,
    .describe = describe,
    .explain = explain,
};
