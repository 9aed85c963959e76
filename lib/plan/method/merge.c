/* merge.c - every adapter at every call, summed.
 *
 * The sum is exact: each delta is s_i B_i A_i with its own rank, weighted and added. Other tools
 * often add the factors instead, (B_1 + B_2)(A_1 + A_2), and get cross terms that belong to no
 * adapter.
 *
 * Plain sums dilute: by the third adapter on the same layers each one fades. The other methods are
 * ways out of that. */
#include "plan/method/method.h"

static wf_cell choose(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch,
                      int32_t layer, int32_t adapter)
{
    (void)p, (void)s, (void)call, (void)branch, (void)layer, (void)adapter;
    return WF_ALL;
}

static void explain(const weft_plan *p, const wf_sheet *s, wf_text *out)
{
    for (int32_t a = 0; a < p->adapters; a++) {
        wf_letter_text letter;
        wf_number_text c;
        wf_text_add(out, "  %s  %s at every call, at %d layers of the UNet\n",
                    wf_letter(&letter, a), wf_number(&c, p->entry[a].weight),
                    (int)wf_sheet_reach(s, a));
    }
}

weft_status weft_plan_merge(weft_plan *plan, weft_error *err)
{
    return wf_plan_use(plan, &wf_method_merge, NULL, 0, err);
}

static weft_status use(weft_plan *p, const void *options, weft_error *err)
{
    (void)options;
    return weft_plan_merge(p, err);
}

const wf_method wf_method_merge = {
    .name = "merge",
    .title = "Merge",
    .text = WEFT_TEXT_ALL,
    .use = use,
    .choose = choose,
    .explain = explain,
};
