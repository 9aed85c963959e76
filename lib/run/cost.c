/* cost.c - what each call costs, before any runs: the dry walk of memory.c, with the call's
 * coefficients.
 *
 * memory.c walks the dearest call of each phase, since memory must do for all. Here every call is
 * walked, and of the adapters only those parts count that have a coefficient in some branch. Calls
 * with the same row of the table, the same image prompts, the same reuse of features and of what is
 * kept of the text cost the same and are walked once. */
#include "base/structs.h"
#include "run/run_internal.h"

/* Masks of no size: a dry walk asks only what layers take that have no place in the image. */
static weft_status make_masks(wf_mask **out, const weft_run *r, const weft_plan *p, weft_error *err)
{
    size_t n = (size_t)wf_plan_adapters(p);

    *out = NULL;
    if (!wf_plan_masked(p)) return WEFT_OK;
    if ((*out = wf_zalloc(&r->alloc, n, sizeof **out)) == NULL)
        return wf_nomem(err, n * sizeof **out, "the masks of a plan");
    for (size_t a = 0; a < n; a++) {
        const wf_plan_mask *m = wf_plan_mask_of(p, (int32_t)a);
        if (m != NULL) (*out)[a].elsewhere = m->text;
    }
    return WEFT_OK;
}

/* Does call n find keys and values of the text as the call before it made them? */
static bool finds_kept(const weft_run *r, const wf_run_memory *b, int32_t n)
{
    const wf_sheet *s = wf_plan_phase(b->plan, n);

    return wf_run_keeps_text(r, b) && n > s->first &&
           wf_sheet_row(s, n - 1) == wf_sheet_row(s, n);
}

static void walk(weft_call_cost *cost, const weft_run *r, wf_run_memory *b, const wf_mask *masks,
                 int32_t n, bool guided)
{
    const wf_networks *p = wf_run_networks(b);
    const wf_sheet *s = wf_plan_phase(b->plan, n);
    weft_step step = WEFT_STEP_INIT;
    wf_call call = wf_run_dry_call(r, b, &step);
    wf_kept kept = { .valid = finds_kept(r, b, n) };
    wf_exec e = { .k = p->kernels, .products = p->products, .dry = true, .arena = { .dry = true },
                  .branch = b->branch, .masks = masks, .exact = true,
                  .kept = wf_run_keeps_text(r, b) ? &kept : NULL };

    step.call = n;
    call.guided = guided;
    call.row = wf_sheet_row(s, n);
    call.base = s->base;
    call.evaluations = call.row->branches;
    call.keeps = call.reuse = wf_plan_ever_reuses(b->plan);
    e.deltas = b->phase[s - wf_plan_phases(b->plan, &(size_t){ 0 })].deltas;
    e.slots = s->slots;
    e.cells = s->cells;
    e.lines = s->lines + call.row->at;
    e.patches = s->patched_count;
    e.vectors = s->vectors;
    for (int32_t i = 0, k = wf_plan_regions(b->plan); k > 0 && i <= k; i++)
        wf_plan_region_cells(b->plan, s, call.row, i - 1,
                             b->region_cells + (size_t)i * b->region_stride);
    wf_step_forward(r, &e, b, &call);
    cost->evaluations = call.evaluations;
    for (int32_t k = 0; k < call.evaluations; k++) cost->reused += wf_call_reuses(b, &call, k);
    cost->samples = call.evaluations * (guided ? 2 : 1) * r->batch;
    cost->flops = e.flops;
    cost->side_flops = e.side_flops;
    cost->weight_bytes = e.weight_bytes;
    cost->activation_bytes = e.moved_bytes;
}

/* An earlier call that costs the same; n: none. */
static int32_t find_like(const weft_run *r, const wf_run_memory *b, int32_t n)
{
    const weft_plan *p = b->plan;
    const wf_sheet *s = wf_plan_phase(p, n);
    const wf_row *row = wf_sheet_row(s, n);

    for (int32_t m = s->first; m < n; m++) {
        bool same = wf_sheet_row(s, m) == row && finds_kept(r, b, m) == finds_kept(r, b, n);
        for (int32_t k = 0; k < row->branches && same; k++)
            same = wf_plan_reuses(p, m, k) == wf_plan_reuses(p, n, k);
        for (int32_t i = 0; i < weft_plan_image_prompts(p) && same; i++)
            same = (wf_plan_image_weight(p, i, m) == 0) == (wf_plan_image_weight(p, i, n) == 0);
        if (same) return m;
    }
    return n;
}

static weft_status write_costs(weft_call_cost *costs, uint32_t stride, const weft_run *r,
                               wf_run_memory *b, bool guided, weft_error *err)
{
    wf_mask *masks;
    float    mark;
    weft_status st;

    WF_TRY(make_masks(&masks, r, b->plan, err));
    wf_run_mark_merged(b, &mark);
    st = WEFT_OK;
    for (int32_t n = 0; n < wf_plan_calls(b->plan) && st == WEFT_OK; n++) {
        weft_call_cost cost = WEFT_CALL_COST_INIT;
        int32_t like = find_like(r, b, n);
        void *to = (char *)costs + (size_t)n * stride;
        if (like == n) walk(&cost, r, b, masks, n, guided);
        else memcpy(&cost, (char *)costs + (size_t)like * stride, WF_MIN(stride, sizeof cost));
        memcpy(to, &stride, sizeof stride);
        st = WF_RESULT((weft_call_cost *)to, &cost, weft_call_cost, err);
    }
    wf_free(&r->alloc, masks);
    return st;
}

weft_status weft_run_costs(const weft_plan *plan, const weft_run_options *options, uint32_t flags,
                           weft_call_cost *costs, size_t count, weft_error *err)
{
    weft_plan *held = (weft_plan *)(uintptr_t)plan; /* as in weft_run_bytes() */
    weft_run shape = { 0 };
    wf_run_memory b = { 0 };
    uint32_t stride;
    weft_status st;

    WF_TRY(wf_run_ready(plan, err));
    if (costs == NULL) return wf_fail(err, WEFT_E_ARG, "weft_run_costs: costs is NULL");
    if ((flags & ~(uint32_t)WEFT_COSTS_GUIDED) != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "weft_run_costs: unknown flags");
    if (count != (size_t)wf_plan_calls(plan))
        return wf_fail(err, WEFT_E_ARG, "weft_run_costs: count is %zu, the plan has %d calls",
                       count, (int)wf_plan_calls(plan));
    memcpy(&stride, costs, sizeof stride);
    if (stride < WF_FIRST_weft_call_cost)
        return wf_fail(err, WEFT_E_ARG, "weft_call_cost: struct_size is %u, wanted at least %d",
                       stride, (int)WF_FIRST_weft_call_cost);
    WF_TRY(wf_run_measure(&shape, held, &b, options, err));
    st = write_costs(costs, stride, &shape, &b, (flags & WEFT_COSTS_GUIDED) != 0, err);
    wf_run_memory_free(&b, &shape.alloc);
    return st;
}
