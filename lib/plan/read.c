/* read.c - reading a sealed plan: for callers, for a run, and for the files that show it. */
#include "base/structs.h"
#include "plan/method/method.h"

weft_status wf_plan_must_be_sealed(const weft_plan *plan, const char *what, weft_error *err)
{
    if (plan == NULL) return wf_fail(err, WEFT_E_ARG, "%s: plan is NULL", what);
    if (!plan->sealed) return wf_fail(err, WEFT_E_STATE, "%s: the plan is not sealed", what);
    return WEFT_OK;
}

/* ---- sheets ---------------------------------------------------------------------------------- */

weft_model     *wf_plan_model(const weft_plan *p) { return p->model; }
bool            wf_plan_sealed(const weft_plan *p) { return p->sealed; }
int32_t         wf_plan_calls(const weft_plan *p) { return p->table.calls; }
int32_t         wf_plan_adapters(const weft_plan *p) { return p->adapters; }
const wf_sheet *wf_plan_text_sheet(const weft_plan *p) { return &p->table.text; }

const char *wf_plan_adapter_name(const weft_plan *p, int32_t adapter)
{
    return wf_adapter_name(p->entry[adapter].bound->adapter);
}

const wf_sheet *wf_plan_phases(const weft_plan *p, size_t *count)
{
    *count = p->table.phases;
    return p->table.phase;
}

static size_t phase_index(const weft_plan *p, int32_t call)
{
    size_t i = 0;
    while (i + 1 < p->table.phases && p->table.phase[i + 1].first <= call) i++;
    return i;
}

const wf_sheet *wf_plan_phase(const weft_plan *p, int32_t call)
{
    return &p->table.phase[phase_index(p, call)];
}

int32_t wf_plan_evaluations(const weft_plan *p)
{
    int32_t most = 0;
    for (size_t i = 0; i < p->table.phases; i++) {
        const wf_sheet *s = &p->table.phase[i];
        most = WF_MAX(most, wf_sheet_branches(s) + s->base);
    }
    return most;
}

const wf_row *wf_sheet_row(const wf_sheet *s, int32_t call)
{
    return &s->row[s->row_of_call[call - s->first]];
}

const wf_cell *wf_sheet_cells(const wf_sheet *s, const wf_row *row)
{
    return s->patched_count > 0 ? s->cells + s->lines[row->at] : s->cells;
}

const wf_cell *wf_sheet_line(const wf_sheet *s, const wf_row *row, int32_t branch, size_t patch)
{
    return s->cells + s->lines[row->at + (size_t)branch * s->patched_count + patch];
}

void wf_plan_text_cells(const weft_plan *p, int32_t adapter, wf_cell *cells)
{
    const wf_sheet *s = &p->table.text;

    for (size_t k = 0; k < s->slots; k++) {
        cells[k] = (wf_cell){ 0, 0, 0 };
        if (s->slot[k].adapter == adapter)
            cells[k].number = (float)wf_plan_cell_weight(p, adapter, s->slot[k].layer);
    }
}

/* Slots are in order of layer, then adapter. */
int64_t wf_sheet_slot(const wf_sheet *s, int64_t layer, int32_t adapter)
{
    size_t low = 0, high = s->slots;

    while (low < high) {
        size_t         mid = low + (high - low) / 2;
        const wf_slot *at = &s->slot[mid];
        if (at->layer < layer || (at->layer == layer && at->adapter < adapter)) low = mid + 1;
        else high = mid;
    }
    if (low == s->slots || s->slot[low].layer != layer || s->slot[low].adapter != adapter)
        return -1;
    return (int64_t)low;
}

/* The patch of a layer that has slots. */
static size_t patch_at(const wf_sheet *s, int64_t layer)
{
    size_t low = 0, high = s->patched_count;

    while (low + 1 < high) {
        size_t mid = low + (high - low) / 2;
        if (s->patched[mid].layer <= layer) low = mid;
        else high = mid;
    }
    return low;
}

wf_cell wf_sheet_cell(const wf_sheet *s, const wf_row *row, int32_t branch, int64_t layer,
                      int32_t adapter)
{
    int64_t slot = wf_sheet_slot(s, layer, adapter);
    size_t  patch = patch_at(s, layer);

    if (slot < 0) return (wf_cell){ 0, 0, 0 };
    return wf_sheet_line(s, row, branch, patch)[slot - s->patched[patch].slot];
}

/* Sealing left a phase only the slots that some cell uses. */
bool wf_sheet_any_cell(const wf_sheet *s, size_t first, size_t end)
{
    if (s->method != NULL) return first < end;
    for (size_t k = first; k < end; k++)
        if (wf_sheet_cells(s, &s->row[0])[k].number != 0) return true;
    return false;
}

int32_t wf_sheet_reach(const wf_sheet *s, int32_t adapter)
{
    int32_t reach = 0;
    for (size_t k = 0; k < s->slots; k++)
        reach += s->slot[k].adapter == adapter && s->slot[k].slice == 0 &&
                 wf_sheet_any_cell(s, k, k + 1);
    return reach;
}

const char *wf_plan_role_name(const weft_plan *p, int32_t adapter)
{
    const wf_sheet *s = p->table.phases > 0 ? &p->table.phase[0] : NULL;
    int32_t         role = p->entry[adapter].role;

    if (s != NULL && s->method->part != NULL) return s->method->part(p, s, adapter);
    return role == WEFT_ROLE_CONTENT ? "content" : role == WEFT_ROLE_STYLE ? "style" : "";
}

/* ---- facts ----------------------------------------------------------------------------------- */

/* Layers and bytes of a sheet; a patch that an earlier sheet has too shares its factors. */
static void add_costs(const weft_plan *p, const wf_sheet *s, int64_t *touched, int64_t *merged,
                      int64_t *side_bytes, int64_t *merged_bytes)
{
    const wf_layer *layers = wf_model_layers(p->model, &(size_t){ 0 });

    for (size_t i = 0; i < s->patched_count; i++) {
        const wf_patched *at = &s->patched[i];
        const wf_layer   *layer = &layers[at->layer];
        size_t            first = (size_t)at->slot;
        *touched += wf_sheet_any_cell(s, first, first + (size_t)at->patch->parts);
        *side_bytes += (int64_t)(wf_stack_floats(layer, &at->patch->stack) * sizeof(float));
        if (!at->patch->merged) continue;
        *merged += 1;
        *merged_bytes += (int64_t)(wf_patch_merged_floats(at->patch, layer) * sizeof(float));
    }
}

weft_status weft_plan_info_get(const weft_plan *plan, weft_plan_info *info, weft_error *err)
{
    weft_plan_info i = WEFT_PLAN_INFO_INIT;
    size_t         count;

    if (plan == NULL || info == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_info_get: %s is NULL",
                       plan == NULL ? "plan" : "info");
    (void)wf_model_layers(plan->model, &count);
    i.sealed = plan->sealed;
    i.phases = (int32_t)(plan->sealed ? plan->table.phases : plan->phases);
    i.adapters = plan->adapters;
    i.calls = plan->table.calls;
    for (size_t k = 0; k < plan->table.phases; k++)
        i.branches = WF_MAX(i.branches, wf_sheet_branches(&plan->table.phase[k]));
    i.evaluations = wf_plan_evaluations(plan);
    i.layers = (int64_t)count;
    i.regions = plan->regions;
    for (size_t k = 0; k < plan->table.phases; k++)
        add_costs(plan, &plan->table.phase[k], &i.touched_layers, &i.merged_layers, &i.side_bytes,
                  &i.merged_bytes);
    add_costs(plan, &plan->table.text, &i.touched_layers, &i.merged_layers, &i.side_bytes,
              &i.merged_bytes);
    return WF_RESULT(info, &i, weft_plan_info, err);
}

weft_status weft_plan_phase(const weft_plan *plan, int32_t index, weft_phase_info *info,
                            weft_error *err)
{
    weft_phase_info i = WEFT_PHASE_INFO_INIT;
    int32_t         count;

    if (plan == NULL || info == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_phase: %s is NULL",
                       plan == NULL ? "plan" : "info");
    count = (int32_t)(plan->sealed ? plan->table.phases : plan->phases);
    if (index < 0 || index >= count)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_phase: phase %d of %d", (int)index, (int)count);
    if (!plan->sealed) {
        i.method = plan->phase[index].method->name;
        i.title = plan->phase[index].method->title;
        return WF_RESULT(info, &i, weft_phase_info, err);
    }
    const wf_sheet *s = &plan->table.phase[index];
    i.method = s->method->name;
    i.title = s->method->title;
    i.first = s->first;
    i.calls = s->calls;
    i.branches = wf_sheet_branches(s);
    i.evaluations = i.branches + s->base;
    i.rows = (int32_t)s->rows;
    add_costs(plan, s, &i.touched_layers, &i.merged_layers, &i.side_bytes, &i.merged_bytes);
    return WF_RESULT(info, &i, weft_phase_info, err);
}

weft_status weft_plan_adapter(const weft_plan *plan, int32_t adapter, weft_plan_adapter_info *info,
                              weft_error *err)
{
    weft_plan_adapter_info i = WEFT_PLAN_ADAPTER_INFO_INIT;

    WF_TRY(wf_plan_must_be_sealed(plan, "weft_plan_adapter",
                                  err)); /* K-LoRA tells its parts apart at the end */
    if (info == NULL) return wf_fail(err, WEFT_E_ARG, "weft_plan_adapter: info is NULL");
    if (adapter < 0 || adapter >= plan->adapters)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_adapter: adapter is %d, the plan has %d",
                       (int)adapter, (int)plan->adapters);
    const wf_entry *e = &plan->entry[adapter];
    i.role = e->role;
    i.name = wf_adapter_name(e->bound->adapter);
    i.part = wf_plan_role_name(plan, adapter);
    i.weight = e->weight;
    i.text_1 = e->text_weight[0];
    i.text_2 = e->text_weight[1];
    i.text_3 = e->text_weight[2];
    i.share = e->share;
    i.blocks = wf_blocks_text(e->blocks);
    i.balance = wf_balance_at(plan->table.balanced, adapter);
    return WF_RESULT(info, &i, weft_plan_adapter_info, err);
}

/* ---- cells ----------------------------------------------------------------------------------- */

static weft_status check_call(const weft_plan *p, int32_t call, const char *what, weft_error *err)
{
    WF_TRY(wf_plan_must_be_sealed(p, what, err));
    if (call < 0 || call >= p->table.calls)
        return wf_fail(err, WEFT_E_ARG, "%s: call %d of %d", what, (int)call, (int)p->table.calls);
    return WEFT_OK;
}

bool wf_plan_reuses(const weft_plan *p, int32_t call, int32_t branch)
{
    const wf_sheet *s = wf_plan_phase(p, call);
    return s->method->reuses != NULL && s->method->reuses(p, s, call - s->first, branch);
}

bool wf_plan_ever_reuses(const weft_plan *p)
{
    for (int32_t n = 0; n < wf_plan_calls(p); n++)
        for (int32_t b = 0; b < wf_sheet_row(wf_plan_phase(p, n), n)->branches; b++)
            if (wf_plan_reuses(p, n, b)) return true;
    return false;
}

weft_status weft_plan_call(const weft_plan *plan, int32_t call, weft_call_info *info,
                           weft_error *err)
{
    weft_call_info i = WEFT_CALL_INFO_INIT;

    if (info == NULL) return wf_fail(err, WEFT_E_ARG, "weft_plan_call: info is NULL");
    WF_TRY(check_call(plan, call, "weft_plan_call", err));
    const wf_sheet *s = wf_plan_phase(plan, call);
    const wf_row   *row = wf_sheet_row(s, call);
    i.phase = (int32_t)(s - plan->table.phase);
    i.branches = row->branches - s->base;
    i.evaluations = row->branches;
    i.row = s->row_of_call[call - s->first];
    for (int32_t b = 0; b < row->branches; b++) i.reused += wf_plan_reuses(plan, call, b);
    return WF_RESULT(info, &i, weft_call_info, err);
}

weft_status weft_plan_branch_reuses(const weft_plan *plan, int32_t call, int32_t branch,
                                    int32_t *reuses, weft_error *err)
{
    if (reuses == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_branch_reuses: reuses is NULL");
    *reuses = 0;
    WF_TRY(check_call(plan, call, "weft_plan_branch_reuses", err));
    int32_t branches = wf_sheet_row(wf_plan_phase(plan, call), call)->branches;
    if (branch < 0 || branch >= branches)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_branch_reuses: branch %d of %d", (int)branch,
                       (int)branches);
    *reuses = wf_plan_reuses(plan, call, branch);
    return WEFT_OK;
}

/* ---- layers ---------------------------------------------------------------------------------- */

weft_status weft_plan_layer(const weft_plan *plan, int32_t phase, int64_t layer,
                            weft_layer_use *use, weft_error *err)
{
    weft_layer_use u = WEFT_LAYER_USE_INIT;
    size_t         count;
    bool           whole;

    if (use == NULL) return wf_fail(err, WEFT_E_ARG, "weft_plan_layer: use is NULL");
    WF_TRY(wf_plan_must_be_sealed(plan, "weft_plan_layer", err));
    const wf_layer *layers = wf_model_layers(plan->model, &count);
    if (phase < 0 || (size_t)phase >= plan->table.phases)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_layer: phase %d of %zu", (int)phase,
                       plan->table.phases);
    if (layer < 0 || (uint64_t)layer >= count)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_layer: layer %lld of %zu", (long long)layer,
                       count);
    const wf_layer *l = &layers[layer];
    const wf_sheet *s = wf_component_encoder(l->component) >= 0 ? &plan->table.text
                                                                : &plan->table.phase[phase];
    size_t          patch = patch_at(s, layer);
    if (patch < s->patched_count && s->patched[patch].layer == layer &&
        wf_sheet_any_cell(s, (size_t)s->patched[patch].slot,
                          (size_t)s->patched[patch].slot +
                              (size_t)s->patched[patch].patch->parts)) {
        const wf_patched *at = &s->patched[patch];
        u.path = at->patch->merged ? WEFT_PATH_MERGED : WEFT_PATH_SIDE;
        u.reason = at->reason;
        u.parts = at->patch->parts;
        for (int32_t i = 0; i < at->patch->parts; i++)
            if (wf_slice_form(&at->patch->part[i].slice, at->patch->part[i].module, l) ==
                WF_FORM_PAIR)
                u.rank += wf_module_pair_rank(at->patch->part[i].module);
        u.work = wf_patch_work(at->patch, l, &whole);
        u.bytes = (int64_t)((at->patch->merged ? wf_patch_merged_floats(at->patch, l)
                                               : wf_stack_floats(l, &at->patch->stack)) *
                            sizeof(float));
    }
    u.words = wf_reason_words(u.reason);
    return WF_RESULT(use, &u, weft_layer_use, err);
}

/* ---- where adapters act ---------------------------------------------------------------------- */

static weft_status check_adapter(const weft_plan *p, int32_t adapter, const char *what,
                                 weft_error *err)
{
    if (p == NULL) return wf_fail(err, WEFT_E_ARG, "%s: plan is NULL", what);
    if (adapter < 0 || adapter >= p->adapters)
        return wf_fail(err, WEFT_E_ARG, "%s: adapter %d of %d", what, (int)adapter,
                       (int)p->adapters);
    return WEFT_OK;
}

static weft_mask show_mask(const wf_plan_mask *m)
{
    weft_mask out = WEFT_MASK_INIT;

    if (m == NULL) return out;
    out.flags = WEFT_MASK_TEXT | (m->adds ? WEFT_MASK_ADD : 0u);
    out.height = m->h;
    out.width = m->w;
    out.values = m->values;
    out.len = (size_t)m->h * (size_t)m->w;
    out.text = m->text;
    return out;
}

weft_status weft_plan_mask(const weft_plan *plan, int32_t adapter, weft_mask *mask, weft_error *err)
{
    weft_mask m;

    if (mask == NULL) return wf_fail(err, WEFT_E_ARG, "weft_plan_mask: mask is NULL");
    WF_TRY(check_adapter(plan, adapter, "weft_plan_mask", err));
    m = show_mask(wf_plan_mask_of(plan, adapter));
    return WF_RESULT(mask, &m, weft_mask, err);
}

weft_status weft_plan_region(const weft_plan *plan, int32_t index, weft_region *region,
                             weft_mask *mask, weft_error *err)
{
    weft_region r = WEFT_REGION_INIT;
    weft_mask   m;

    if (plan == NULL || region == NULL || mask == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_region: %s is NULL",
                       plan == NULL ? "plan" : region == NULL ? "region" : "mask");
    if (index < 0 || index >= plan->regions)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_region: region %d of %d", (int)index,
                       (int)plan->regions);
    const wf_region *own = &plan->region[index];
    if (own->adapter >= 0) {
        r.flags |= WEFT_REGION_ADAPTER;
        r.adapter = own->adapter;
    }
    if (own->isolated) r.flags |= WEFT_REGION_ISOLATED;
    r.mask = mask;
    m = show_mask(wf_plan_region_mask(plan, index));
    WF_TRY(WF_RESULT(mask, &m, weft_mask, err));
    return WF_RESULT(region, &r, weft_region, err);
}

weft_status weft_plan_blocks(const weft_plan *plan, int32_t adapter, float *factors,
                             size_t factors_len, weft_error *err)
{
    size_t count;

    if (factors == NULL) return wf_fail(err, WEFT_E_ARG, "weft_plan_blocks: factors is NULL");
    WF_TRY(check_adapter(plan, adapter, "weft_plan_blocks", err));
    wf_model_layers(plan->model, &count);
    if (factors_len != count)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_plan_blocks: factors_len is %zu, wanted %zu: a number for each layer",
                       factors_len, count);
    for (size_t l = 0; l < count; l++)
        factors[l] = wf_blocks_at(plan->entry[adapter].blocks, (int32_t)l);
    return WEFT_OK;
}

weft_status weft_plan_cell(const weft_plan *plan, int32_t call, int32_t branch, int64_t layer,
                           int32_t adapter, weft_cell *out, weft_error *err)
{
    weft_cell       cell = WEFT_CELL_INIT;
    const wf_layer *layers;
    const wf_sheet *s;
    const wf_row   *row;
    size_t          count;
    int32_t         branches;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "weft_plan_cell: out is NULL");
    WF_TRY(check_call(plan, call, "weft_plan_cell", err));
    layers = wf_model_layers(plan->model, &count);
    s = wf_plan_phase(plan, call);
    row = wf_sheet_row(s, call);
    branches = row->branches - s->base;
    if (branch < 0 || branch >= branches)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_cell: branch %d of %d", (int)branch,
                       (int)branches);
    if (layer < 0 || (uint64_t)layer >= count)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_cell: layer %lld of %zu", (long long)layer,
                       count);
    if (adapter < 0 || adapter >= plan->adapters)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_cell: adapter %d of %d", (int)adapter,
                       (int)plan->adapters);
    if (wf_component_encoder(layers[layer].component) >= 0) {
        s = &plan->table.text;
        row = &s->row[0];
        branch = 0;
    }
    wf_cell found = wf_sheet_cell(s, row, branch, layer, adapter);
    cell.number = found.number;
    cell.kind = (found.vector != 0 ? WEFT_CELL_VECTOR : WEFT_CELL_NUMBER) |
                (found.mask != 0 ? WEFT_CELL_MASK : WEFT_CELL_NUMBER);
    return WF_RESULT(out, &cell, weft_cell, err);
}

weft_status weft_plan_branch_weight(const weft_plan *plan, int32_t call, int32_t branch,
                                    float *weight, float *divisor, weft_error *err)
{
    float w = 1, d = 1;

    if (weight != NULL) *weight = 0;
    if (divisor != NULL) *divisor = 0;
    WF_TRY(check_call(plan, call, "weft_plan_branch_weight", err));
    const wf_sheet *s = wf_plan_phase(plan, call);
    int32_t         branches = wf_sheet_row(s, call)->branches - s->base;
    if (branch < 0 || branch >= branches)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_branch_weight: branch %d of %d", (int)branch,
                       (int)branches);
    if (s->method->weigh != NULL) s->method->weigh(plan, s, call - s->first, branch, &w, &d);
    if (weight != NULL) *weight = w;
    if (divisor != NULL) *divisor = d;
    return WEFT_OK;
}
