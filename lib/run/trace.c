/* trace.c - what acted in each call, taken down while it ran (WEFT_RUN_TRACE).
 *
 * The plan says what is meant to act. This says what did: nets/layer.c notes for each layer that it
 * computes by which way, and under which coefficients; a layer that is not noted was not computed,
 * because deep features were reused. The method says, while it combines the predictions, what each
 * counts for. Nothing here is read from the plan but where things stand.
 *
 * All memory is taken with the run: for each evaluation of a call a byte for each layer of the
 * model and five for each slot of the phase. */
#include "base/structs.h"
#include "run/run_internal.h"

_Static_assert((int)WF_NOTE_BASE == (int)WEFT_TRACE_BASE &&
                   (int)WF_NOTE_SIDE == (int)WEFT_TRACE_SIDE &&
                   (int)WF_NOTE_MERGED == (int)WEFT_TRACE_MERGED &&
                   (int)WF_NOTE_KEPT == (int)WEFT_TRACE_KEPT &&
                   (int)WF_NOTE_VECTOR == (int)WEFT_CELL_VECTOR &&
                   (int)WF_NOTE_MASK == (int)WEFT_CELL_MASK,
               "notes are shown as they are");

/* One call. */
typedef struct at_call {
    size_t  first;       /* evaluation, of those of all calls */
    size_t  cell;        /* of all calls                      */
    int32_t evaluations;
    int32_t slots;
    bool    done, guided;
    float   timestep;
} at_call;

struct wf_run_trace {
    size_t    layers;
    at_call  *call;   /* [calls]                          */
    double   *share[2]; /* [evaluations of all calls], of each half of guidance */
    uint8_t  *reused; /* [evaluations of all calls]       */
    uint8_t  *ways;   /* [evaluations of all calls][layers] */
    uint8_t  *kinds;  /* [cells of all calls]             */
    float    *cells;
    wf_notes  notes;  /* of the call in progress          */
};

/* ---- memory ---------------------------------------------------------------------------------- */

typedef struct sizes { size_t calls, evaluations, cells, ways, bytes; } sizes;

/* What all calls together have; false past what can be counted. */
static bool count(sizes *n, const weft_plan *plan, size_t layers)
{
    size_t more, bytes;

    *n = (sizes){ .calls = (size_t)wf_plan_calls(plan) };
    for (size_t k = 0; k < n->calls; k++) {
        const wf_sheet *s = wf_plan_phase(plan, (int32_t)k);
        size_t evaluations = (size_t)wf_sheet_row(s, (int32_t)k)->branches;
        if (!wf_mul(evaluations, s->slots, &more) || !wf_add(n->cells, more, &n->cells))
            return false;
        n->evaluations += evaluations;
    }
    if (!wf_mul(n->evaluations, layers, &n->ways) || !wf_mul(n->cells, 5, &bytes)) return false;
    more = sizeof(wf_run_trace) + n->calls * sizeof(at_call) +
           n->evaluations * (2 * sizeof(double) + 1);
    return wf_add(bytes, n->ways, &bytes) && wf_add(bytes, more, &n->bytes);
}

static void place_calls(wf_run_trace *t, const weft_plan *plan)
{
    size_t first = 0, cell = 0;

    for (int32_t k = 0; k < wf_plan_calls(plan); k++) {
        const wf_sheet *s = wf_plan_phase(plan, k);
        int32_t evaluations = wf_sheet_row(s, k)->branches;
        t->call[k] = (at_call){ .first = first, .cell = cell, .evaluations = evaluations,
                                .slots = (int32_t)s->slots };
        first += (size_t)evaluations;
        cell += (size_t)evaluations * s->slots;
    }
}

weft_status wf_run_trace_create(wf_run_trace **out, const weft_run *r, wf_run_memory *b,
                                bool measure, weft_error *err)
{
    const weft_allocator *alloc = &r->alloc;
    wf_run_trace *t;
    size_t layers;
    sizes n;

    wf_model_layers(wf_plan_model(b->plan), &layers);
    if (!count(&n, b->plan, layers)) return wf_nomem(err, SIZE_MAX, "the trace of a run");
    b->bytes += n.bytes;
    if (measure) return WEFT_OK;
    if ((t = wf_zalloc(alloc, 1, sizeof *t)) == NULL)
        return wf_nomem(err, sizeof *t, "the trace of a run");
    t->layers = layers;
    t->call = wf_zalloc(alloc, n.calls, sizeof *t->call);
    for (int h = 0; h < 2; h++) t->share[h] = wf_zalloc(alloc, n.evaluations, sizeof(double));
    t->reused = wf_zalloc(alloc, n.evaluations, 1);
    t->ways = wf_zalloc(alloc, n.ways, 1);
    t->kinds = wf_zalloc(alloc, n.cells, 1);
    t->cells = wf_zalloc(alloc, n.cells, sizeof *t->cells);
    if (t->call == NULL || t->share[0] == NULL || t->share[1] == NULL || t->reused == NULL ||
        t->ways == NULL || t->kinds == NULL || t->cells == NULL) {
        wf_run_trace_free(t, alloc);
        return wf_nomem(err, n.bytes, "the trace of a run");
    }
    place_calls(t, b->plan);
    *out = t;
    return WEFT_OK;
}

void wf_run_trace_free(wf_run_trace *t, const weft_allocator *alloc)
{
    if (t == NULL) return;
    wf_free(alloc, t->call);
    for (int h = 0; h < 2; h++) wf_free(alloc, t->share[h]);
    wf_free(alloc, t->reused);
    wf_free(alloc, t->ways);
    wf_free(alloc, t->kinds);
    wf_free(alloc, t->cells);
    wf_free(alloc, t);
}

/* ---- taking down ----------------------------------------------------------------------------- */

static void clear(wf_run_trace *t, at_call *c)
{
    size_t n = (size_t)c->evaluations, cells = n * (size_t)c->slots;

    for (int h = 0; h < 2; h++)
        for (size_t i = 0; i < n; i++) t->share[h][c->first + i] = 0;
    memset(t->reused + c->first, 0, n);
    memset(t->ways + c->first * t->layers, 0, n * t->layers);
    memset(t->kinds + c->cell, 0, cells);
    for (size_t i = 0; i < cells; i++) t->cells[c->cell + i] = 0;
    c->done = false;
}

void wf_run_trace_begin(wf_exec *e, const wf_run_memory *b, const wf_call *call)
{
    wf_run_trace *t = b->trace;

    e->notes = NULL;
    if (t == NULL) return;
    at_call *c = &t->call[call->step->call];
    clear(t, c);
    c->guided = call->guided;
    c->timestep = call->step->timestep;
    for (int32_t k = 0; k < c->evaluations; k++)
        t->reused[c->first + (size_t)k] = wf_call_reuses(b, call, k);
    t->notes = (wf_notes){ t->layers, (size_t)c->slots, t->ways + c->first * t->layers,
                           t->kinds + c->cell, t->cells + c->cell };
    e->notes = &t->notes;
}

double *wf_run_trace_shares(const wf_exec *e, const wf_run_memory *b, const wf_call *call,
                            int32_t half)
{
    wf_run_trace *t = b->trace;
    /* notes are off while a call is computed once more to be measured */
    return t != NULL && e->notes != NULL ? t->share[half] + t->call[call->step->call].first : NULL;
}

void wf_run_trace_end(wf_exec *e, const wf_run_memory *b, const wf_call *call, bool done)
{
    wf_run_trace *t = b->trace;

    e->notes = NULL;
    if (t == NULL) return;
    at_call *c = &t->call[call->step->call];
    if (done) c->done = true;
    else clear(t, c);
}

/* ---- reading --------------------------------------------------------------------------------- */

static weft_status find(const weft_run *run, int32_t call, int32_t evaluation, const at_call **out,
                        const char *what, weft_error *err)
{
    int32_t calls;

    if (run == NULL) return wf_fail(err, WEFT_E_ARG, "%s: run is NULL", what);
    if (run->memory.trace == NULL)
        return wf_fail(err, WEFT_E_STATE, "%s: the run was created without WEFT_RUN_TRACE", what);
    calls = wf_plan_calls(run->memory.plan);
    if (call < 0 || call >= calls)
        return wf_fail(err, WEFT_E_ARG, "%s: call %d of %d", what, (int)call, (int)calls);
    *out = &run->memory.trace->call[call];
    if (evaluation < 0 || evaluation >= (*out)->evaluations)
        return wf_fail(err, WEFT_E_ARG, "%s: evaluation %d of %d", what, (int)evaluation,
                       (int)(*out)->evaluations);
    return WEFT_OK;
}

weft_status weft_run_trace(const weft_run *run, int32_t call, int32_t evaluation, weft_trace *out,
                           weft_error *err)
{
    weft_trace     x = WEFT_TRACE_INIT;
    const at_call *c;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "weft_run_trace: out is NULL");
    WF_TRY(find(run, call, evaluation, &c, "weft_run_trace", err));
    const wf_run_trace *t = run->memory.trace;
    const wf_sheet     *s = wf_plan_phase(run->memory.plan, call);
    size_t              at = c->first + (size_t)evaluation;
    x.done = c->done;
    x.evaluations = c->evaluations;
    x.base = s->base && evaluation + 1 == c->evaluations;
    x.guided = c->done && c->guided;
    x.reused = t->reused[at];
    x.timestep = c->done ? c->timestep : 0;
    x.share = t->share[WF_CONDITIONAL][at];
    x.negative_share = t->share[WF_UNCONDITIONAL][at];
    for (size_t l = 0; l < t->layers; l++) {
        uint8_t way = t->ways[at * t->layers + l];
        x.layers += way != 0;
        x.side += (way & WEFT_TRACE_SIDE) != 0;
        x.merged += (way & WEFT_TRACE_MERGED) != 0;
        x.kept += (way & WEFT_TRACE_KEPT) != 0;
    }
    return WF_RESULT(out, &x, weft_trace, err);
}

weft_status weft_run_trace_cell(const weft_run *run, int32_t call, int32_t evaluation,
                                int64_t layer, int32_t adapter, weft_trace_cell *out,
                                weft_error *err)
{
    weft_trace_cell x = WEFT_TRACE_CELL_INIT;
    const at_call  *c;
    int32_t         adapters;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "weft_run_trace_cell: out is NULL");
    WF_TRY(find(run, call, evaluation, &c, "weft_run_trace_cell", err));
    const wf_run_trace *t = run->memory.trace;
    adapters = wf_plan_adapters(run->memory.plan);
    if (layer < 0 || (uint64_t)layer >= t->layers)
        return wf_fail(err, WEFT_E_ARG, "weft_run_trace_cell: layer %lld of %zu", (long long)layer,
                       t->layers);
    if (adapter < 0 || adapter >= WF_MAX(adapters, 1))
        return wf_fail(err, WEFT_E_ARG, "weft_run_trace_cell: adapter %d of %d", (int)adapter,
                       (int)adapters);
    int64_t slot = wf_sheet_slot(wf_plan_phase(run->memory.plan, call), layer, adapter);
    x.way = t->ways[(c->first + (size_t)evaluation) * t->layers + (size_t)layer];
    if (slot >= 0) {
        size_t at = c->cell + (size_t)evaluation * (size_t)c->slots + (size_t)slot;
        x.kind = t->kinds[at];
        x.number = t->cells[at];
    }
    return WF_RESULT(out, &x, weft_trace_cell, err);
}
