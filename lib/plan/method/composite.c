/* composite.c - each adapter has a prediction of its own, and the predictions are averaged.
 *
 * Adapters never meet inside the network, so none disturbs another's layers: only their noise
 * predictions are averaged. The mean is taken before guidance, which is linear, so that afterwards
 * would give the same. The price is one evaluation of the network for each adapter and call.
 *
 * The result does not depend on the order in which adapters were added, not even in the last bit:
 * the terms of each sum are added in order of size. The sum is in double, so k equal predictions
 * average to themselves.
 *
 * Cached, a branch need not go through the whole network in every call: what is deep in it changes
 * little from call to call. One adapter after the other is dominant and computes in full; the
 * others reuse their deep features and refresh them at intervals. Zou et al., Cached Multi-LoRA
 * Composition (2025). The run keeps the features. */
#include "base/structs.h"
#include "plan/method/method.h"

static const weft_composite_options *options_of(const wf_sheet *s)
{
    return s->options->data;
}

static double divisor_of(const weft_plan *p, const wf_sheet *s)
{
    return options_of(s)->flags & WEFT_COMPOSITE_DIVIDE_BY_COUNT ? (double)p->adapters
                                                                 : wf_share_sum(p);
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

int32_t wf_branches_each(const weft_plan *p, const wf_sheet *s, int32_t call)
{
    (void)s, (void)call;
    return WF_MAX(p->adapters, 1);
}

wf_cell wf_choose_own(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch,
                      int32_t layer, int32_t adapter)
{
    (void)p, (void)s, (void)call, (void)layer;
    return branch == adapter ? WF_ALL : WF_NOTHING;
}

int32_t wf_alone_own(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch)
{
    (void)p, (void)s, (void)call;
    return branch;
}

void wf_composite_sum(float *out, const float *const *preds, const float *share, int32_t branches,
                      double divisor, size_t n)
{
    double term[WF_ADAPTERS_MAX];

    for (size_t i = 0; i < n; i++) {
        for (int32_t b = 0; b < branches; b++) term[b] = (double)share[b] * (double)preds[b][i];
        out[i] = (float)(wf_sum_sorted(term, branches) / divisor);
    }
}

static void combine(const weft_plan *p, const wf_sheet *s, const wf_combine *x)
{
    float   share[WF_ADAPTERS_MAX];
    size_t  values = (size_t)x->n * (size_t)x->c * (size_t)x->h * (size_t)x->w;
    int32_t last = x->branches - 1;

    if (p->adapters == 0 || (!x->guided && (options_of(s)->flags & WEFT_COMPOSITE_NOCFG_LAST))) {
        memcpy(x->out, x->preds[last], values * sizeof *x->out);
        wf_take_down(x, last, 1);
        return;
    }
    for (int32_t b = 0; b <= last; b++) {
        share[b] = p->entry[b].share;
        wf_take_down(x, b, (double)share[b] / divisor_of(p, s));
    }
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

/* One after the other is dominant, in the order in which they were added. */
int32_t wf_composite_dominant(int32_t call, int32_t calls, int32_t adapters)
{
    return (int32_t)((int64_t)call * adapters / calls);
}

bool wf_composite_refreshes(int32_t call, int32_t calls, int32_t c1, int32_t c2)
{
    return call % (2 * (int64_t)call < calls ? c1 : c2) == 0;
}

static bool reuses(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch)
{
    const weft_composite_options *o = options_of(s);
    return (o->flags & WEFT_COMPOSITE_CACHED) != 0 && p->adapters > 0 &&
           branch != wf_composite_dominant(call, s->calls, p->adapters) &&
           !wf_composite_refreshes(call, s->calls, o->c1, o->c2);
}

static void describe(const weft_plan *p, const wf_sheet *s, wf_text *out)
{
    uint32_t flags = options_of(s)->flags;
    int32_t  reused = 0;

    for (int32_t n = 0; n < s->calls; n++)
        for (int32_t b = 0; b < p->adapters; b++) reused += reuses(p, s, n, b);
    if (flags & WEFT_COMPOSITE_CACHED)
        wf_text_add(out,
                    "  cached     every %d. call, then every %d.; %d of %d evaluations reuse deep "
                    "features\n", (int)options_of(s)->c1, (int)options_of(s)->c2, (int)reused,
                    (int)(s->calls * WF_MAX(p->adapters, 1)));
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
                                WEFT_COMPOSITE_DIVIDE_BY_COUNT | WEFT_COMPOSITE_NOCFG_LAST |
                                    WEFT_COMPOSITE_CACHED, err);

    if (st != WEFT_OK) return st;
    if (o.c1 < 0 || o.c2 < 0)
        return wf_fail(err, WEFT_E_ARG, "weft_composite_options: c%d is %d, wanted at least 1, or 0",
                       o.c1 < 0 ? 1 : 2, (int)(o.c1 < 0 ? o.c1 : o.c2));
    if ((o.c1 != 0 || o.c2 != 0) && (o.flags & WEFT_COMPOSITE_CACHED) == 0)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_composite_options: c%d is set, but not WEFT_COMPOSITE_CACHED",
                       o.c1 != 0 ? 1 : 2);
    if (o.c1 == 0) o.c1 = 2;
    if (o.c2 == 0) o.c2 = 3;
    return wf_plan_use(plan, &wf_method_composite, &o, sizeof o, err);
}

static const wf_field field_list[] = {
    { WF_FLAG("cached", WEFT_COMPOSITE_CACHED) },
    { WF_VALUE("c1", INT32, weft_composite_options, c1), .otherwise = 2 },
    { WF_VALUE("c2", INT32, weft_composite_options, c2), .otherwise = 3 },
    { WF_FLAG("divide_by_count", WEFT_COMPOSITE_DIVIDE_BY_COUNT) },
    { WF_FLAG("last_without_guidance", WEFT_COMPOSITE_NOCFG_LAST) },
};
static const wf_fields fields = WF_FIELDS(field_list, weft_composite_options);
WF_METHOD_USE(weft_plan_composite, weft_composite_options)

const wf_method wf_method_composite = {
    .name = "composite",
    .title = "LoRA Composite",
    .text = WEFT_TEXT_ALL,
    .use = use,
    .fields = &fields,
    .choose = wf_choose_own,
    .begin = begin,
    .alone = wf_alone_own,
    .branches = wf_branches_each,
    .reuses = reuses,
    .combine = combine,
    .weigh = weigh,
    .describe = describe,
    .explain = explain,
};
