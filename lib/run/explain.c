/* explain.c - a plan and what it costs at one size, and the trace of a run, as JSON.
 *
 * What a plan knows by itself is written by plan/report.c; here comes what depends on the size of
 * the image. */
#include "base/structs.h"
#include "run/run_internal.h"

enum { FORMAT = 1 }; /* of both documents; it changes when a field that was there means another */

static void begin(wf_doc *d, const char *what, const weft_plan *plan)
{
    char version[24];
    weft_model_info info = WEFT_MODEL_INFO_INIT;

    wf_format(version, sizeof version, "%d.%d.%d", WEFT_VERSION_MAJOR, WEFT_VERSION_MINOR,
              WEFT_VERSION_PATCH);
    wf_node_int(d, d->root, what, FORMAT);
    wf_node_text(d, d->root, "weft", version);
    if (weft_model_info_get(wf_plan_model(plan), &info, NULL) != WEFT_OK) return;
    wf_node_text(d, d->root, "base", info.base_name);
    wf_node_text(d, d->root, "arithmetic", weft_arithmetic_name(info.arithmetic));
    wf_node_text(d, d->root, "tier", info.tier);
}

static weft_status finish(wf_doc *d, char *buf, size_t cap, size_t *needed, weft_error *err)
{
    wf_text text;
    weft_status st = WEFT_OK;

    wf_text_init(&text, &d->alloc);
    wf_doc_write(d, &text);
    if (text.failed) st = wf_nomem(err, text.len, "a report as JSON");
    else if (d->not_utf8)
        st = wf_fail(err, WEFT_E_UNSUPPORTED, "an option of a method is not UTF-8");
    else wf_copy_out(text.s, text.len, buf, cap, needed);
    wf_text_free(&text);
    return st;
}

static weft_status check_buffer(const char *what, const char *buf, size_t cap, size_t *needed,
                                weft_error *err)
{
    if (needed != NULL) *needed = 0;
    if (buf != NULL || cap == 0) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG, "%s: buf is NULL but cap is %zu", what, cap);
}

/* ---- before ---------------------------------------------------------------------------------- */

/* Numbers of a plan, in one block. */
typedef struct numbers {
    weft_call_cost *cost;     /* [calls]           */
    wf_node       **call;     /* [calls]           */
    double         *strength; /* [calls][adapters] */
    double         *norm;     /* [adapters]        */
} numbers;

static void add_cost(wf_doc *d, wf_node *o, const weft_call_cost *c)
{
    wf_node_int(d, o, "samples", c->samples);
    wf_node_double(d, o, "flops", c->flops);
    wf_node_double(d, o, "side_flops", c->side_flops);
    wf_node_double(d, o, "weight_bytes", c->weight_bytes);
    wf_node_double(d, o, "activation_bytes", c->activation_bytes);
}

static weft_status add_image(wf_doc *d, const weft_plan *plan, const weft_run_options *options,
                             uint32_t flags, weft_error *err)
{
    weft_plan *held = (weft_plan *)(uintptr_t)plan; /* as in weft_run_bytes() */
    weft_plan_info info = WEFT_PLAN_INFO_INIT;
    weft_run shape = { 0 };
    wf_run_memory b = { 0 };
    wf_node *o;

    WF_TRY(weft_plan_info_get(plan, &info, err));
    WF_TRY(wf_run_measure(&shape, held, &b, options, err));
    o = wf_node_object(d, d->root, "image");
    wf_node_int(d, o, "width", shape.width);
    wf_node_int(d, o, "height", shape.height);
    wf_node_int(d, o, "batch", shape.batch);
    wf_node_int(d, o, "text_tokens", shape.text_tokens);
    wf_node_bool(d, o, "guided", (flags & WEFT_COSTS_GUIDED) != 0);
    o = wf_node_object(d, d->root, "memory");
    wf_node_int(d, o, "factors", info.side_bytes);
    wf_node_int(d, o, "copies", info.merged_bytes);
    wf_node_int(d, o, "run", (int64_t)b.bytes);
    wf_node_int(d, o, "scratch", (int64_t)b.use.scratch);
    wf_node_int(d, o, "kept", (int64_t)b.use.kept);
    wf_node_int(d, o, "step", (int64_t)b.use.step);
    wf_node_int(d, o, "encode", (int64_t)b.use.encode);
    wf_node_int(d, o, "decode", (int64_t)b.use.decode);
    wf_node_int(d, o, "encode_image", (int64_t)b.use.encode_image);
    wf_run_memory_free(&b, &shape.alloc);
    return WEFT_OK;
}

static weft_status explain(const numbers *n, const weft_plan *plan, const weft_run_options *options,
                           uint32_t flags, wf_doc *d, weft_error *err)
{
    size_t calls = (size_t)wf_plan_calls(plan);

    for (size_t k = 0; k < calls; k++) n->cost[k] = (weft_call_cost)WEFT_CALL_COST_INIT;
    WF_TRY(weft_run_costs(plan, options, flags, n->cost, calls, err));
    WF_TRY(wf_plan_strengths(plan, n->strength, n->norm, err));
    begin(d, "explain", plan);
    WF_TRY(add_image(d, plan, options, flags, err));
    WF_TRY(wf_plan_report(plan, n->strength, n->norm, d, n->call, err));
    for (size_t k = 0; k < calls; k++) add_cost(d, n->call[k], &n->cost[k]);
    return WEFT_OK;
}

weft_status weft_explain_json(const weft_plan *plan, const weft_run_options *options,
                              uint32_t flags, char *buf, size_t cap, size_t *needed,
                              weft_error *err)
{
    weft_run_options o;
    numbers n;
    wf_doc d;
    weft_status st;

    WF_TRY(check_buffer("weft_explain_json", buf, cap, needed, err));
    WF_TRY(wf_run_ready(plan, err));
    WF_TRY(WF_OPTIONS(&o, options, weft_run_options, UINT32_MAX, err));
    WF_TRY(wf_check_allocator(o.allocator, err));
    weft_allocator alloc = wf_allocator(o.allocator);
    size_t calls = (size_t)wf_plan_calls(plan), adapters = (size_t)wf_plan_adapters(plan);
    n.cost = wf_zalloc(&alloc, calls, sizeof *n.cost);
    n.call = wf_zalloc(&alloc, calls, sizeof *n.call);
    n.strength = wf_zalloc(&alloc, calls * adapters, sizeof *n.strength);
    n.norm = wf_zalloc(&alloc, adapters, sizeof *n.norm);
    wf_doc_init(&d, &alloc);
    if (n.cost == NULL || n.call == NULL || n.strength == NULL || n.norm == NULL)
        st = wf_nomem(err, calls * (adapters + 10) * sizeof(double), "a report as JSON");
    else st = explain(&n, plan, &o, flags, &d, err);
    if (st == WEFT_OK) st = finish(&d, buf, cap, needed, err);
    wf_doc_free(&d);
    wf_free(&alloc, n.cost);
    wf_free(&alloc, n.call);
    wf_free(&alloc, n.strength);
    wf_free(&alloc, n.norm);
    return st;
}

/* ---- after ----------------------------------------------------------------------------------- */

/* Layers of the denoiser that an adapter acted on. */
static bool acted(const weft_run *r, int64_t layer)
{
    const weft_plan *p = r->memory.plan;
    size_t phases;
    const wf_sheet *phase = wf_plan_phases(p, &phases);
    bool may = false;

    for (size_t i = 0; i < phases && !may; i++)
        for (int32_t a = 0; a < wf_plan_adapters(p) && !may; a++)
            may = wf_sheet_slot(&phase[i], layer, a) >= 0;
    for (int32_t n = 0; n < wf_plan_calls(p) && may; n++) {
        const wf_sheet *s = wf_plan_phase(p, n);
        for (int32_t k = 0; k < wf_sheet_row(s, n)->branches; k++)
            for (int32_t a = 0; a < wf_plan_adapters(p); a++) {
                weft_trace_cell c = WEFT_TRACE_CELL_INIT;
                if (weft_run_trace_cell(r, n, k, layer, a, &c, NULL) == WEFT_OK && c.number != 0)
                    return true;
            }
    }
    return false;
}

static void add_cells(wf_doc *d, wf_node *o, const weft_run *r, int32_t n, int32_t k,
                      const uint8_t *listed, size_t layers)
{
    wf_node *ways = wf_node_list(d, o, "ways"), *cells = wf_node_object(d, o, "cells");
    weft_trace_cell c = WEFT_TRACE_CELL_INIT;

    for (size_t l = 0; l < layers; l++)
        if (listed[l] && weft_run_trace_cell(r, n, k, (int64_t)l, 0, &c, NULL) == WEFT_OK)
            wf_node_int(d, ways, NULL, c.way);
    for (int32_t a = 0; a < wf_plan_adapters(r->memory.plan); a++) {
        wf_letter_text letter;
        wf_node *list;
        bool any = false;
        for (size_t l = 0; l < layers && !any; l++)
            any = listed[l] &&
                  weft_run_trace_cell(r, n, k, (int64_t)l, a, &c, NULL) == WEFT_OK && c.number != 0;
        if (!any) continue;
        list = wf_node_list(d, cells, wf_letter(&letter, a));
        for (size_t l = 0; l < layers; l++)
            if (listed[l] && weft_run_trace_cell(r, n, k, (int64_t)l, a, &c, NULL) == WEFT_OK)
                wf_node_float(d, list, NULL, c.number);
    }
}

static weft_status add_call(wf_doc *d, wf_node *list, const weft_run *r, int32_t n,
                            const uint8_t *listed, size_t layers, weft_error *err)
{
    weft_trace t = WEFT_TRACE_INIT;
    wf_node *o, *of;

    WF_TRY(weft_run_trace(r, n, 0, &t, err));
    if (!t.done) return WEFT_OK;
    o = wf_node_object(d, list, NULL);
    wf_node_int(d, o, "call", n);
    wf_node_float(d, o, "timestep", t.timestep);
    wf_node_bool(d, o, "guided", t.guided != 0);
    of = wf_node_list(d, o, "evaluations");
    for (int32_t k = 0, count = t.evaluations; k < count; k++) {
        wf_node *e = wf_node_object(d, of, NULL);
        WF_TRY(weft_run_trace(r, n, k, &t, err));
        wf_node_bool(d, e, "base", t.base != 0);
        wf_node_bool(d, e, "reused", t.reused != 0);
        wf_node_double(d, e, "share", t.share);
        if (t.guided) wf_node_double(d, e, "negative_share", t.negative_share);
        wf_node_int(d, e, "layers", t.layers);
        wf_node_int(d, e, "side", t.side);
        wf_node_int(d, e, "merged", t.merged);
        wf_node_int(d, e, "kept", t.kept);
        add_cells(d, e, r, n, k, listed, layers);
    }
    return WEFT_OK;
}

static weft_status trace(wf_doc *d, const weft_run *r, uint8_t *listed, size_t layers,
                         weft_error *err)
{
    const weft_plan *p = r->memory.plan;
    const wf_layer *layer = wf_model_layers(wf_plan_model(p), &(size_t){ 0 });
    wf_node *list;

    begin(d, "trace", p);
    list = wf_node_list(d, d->root, "adapters");
    for (int32_t a = 0; a < wf_plan_adapters(p); a++) {
        wf_node *o = wf_node_object(d, list, NULL);
        wf_letter_text letter;
        wf_node_text(d, o, "letter", wf_letter(&letter, a));
        wf_node_washed(d, o, "name", wf_plan_adapter_name(p, a));
    }
    list = wf_node_list(d, d->root, "layers");
    for (size_t l = 0; l < layers; l++) {
        listed[l] = acted(r, (int64_t)l);
        if (listed[l]) wf_node_text(d, list, NULL, layer[l].name);
    }
    list = wf_node_list(d, d->root, "calls");
    for (int32_t n = 0; n < wf_plan_calls(p); n++)
        WF_TRY(add_call(d, list, r, n, listed, layers, err));
    return WEFT_OK;
}

weft_status weft_run_trace_json(const weft_run *run, char *buf, size_t cap, size_t *needed,
                                weft_error *err)
{
    size_t layers;
    wf_doc d;
    weft_status st;

    WF_TRY(check_buffer("weft_run_trace_json", buf, cap, needed, err));
    if (run == NULL) return wf_fail(err, WEFT_E_ARG, "weft_run_trace_json: run is NULL");
    if (run->memory.trace == NULL)
        return wf_fail(err, WEFT_E_STATE,
                       "weft_run_trace_json: the run was created without WEFT_RUN_TRACE");
    wf_model_layers(wf_plan_model(run->memory.plan), &layers);
    uint8_t *listed = wf_zalloc(&run->alloc, layers, 1);
    if (listed == NULL) return wf_nomem(err, layers, "a trace as JSON");
    wf_doc_init(&d, &run->alloc);
    st = trace(&d, run, listed, layers, err);
    if (st == WEFT_OK) st = finish(&d, buf, cap, needed, err);
    wf_doc_free(&d);
    wf_free(&run->alloc, listed);
    return st;
}
