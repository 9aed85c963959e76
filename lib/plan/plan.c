/* plan.c - the plan as a handle: built from adapters and one method, sealed once, read ever after.
 *
 * A plan holds bindings, not adapters: what an adapter does on this model, seen through one selection of
 * layers. Bindings, stacks of factors and what a method learnt of the weights are immutable and counted,
 * so that a copy of a plan costs a few pointers, and sealing it costs the table alone.
 *
 * Sealing works on a table of its own and puts it into the plan when it is whole: a failure half way
 * leaves the plan as it was, to be mended and sealed again. */
#include <math.h>
#include <stdio.h>

#include "base/structs.h"
#include "plan/method.h"

/* ---- counted blocks ---------------------------------------------------------------------------------- */

wf_blob *wf_blob_create(const weft_allocator *alloc, size_t size)
{
    size_t   head = (sizeof(wf_blob) + 63) / 64 * 64, total;
    wf_blob *b;

    if (!wf_add(head, size, &total)) return NULL;
    b = wf_zalloc(alloc, 1, total);
    if (b == NULL) return NULL;
    wf_ref_init(&b->refs);
    b->alloc = *alloc;
    b->data = (char *)b + head;
    return b;
}

wf_blob *wf_blob_ref(wf_blob *b)
{
    if (b != NULL) wf_ref_take(&b->refs);
    return b;
}

void wf_blob_drop(wf_blob *b)
{
    if (b == NULL || !wf_ref_drop(&b->refs)) return;
    weft_allocator alloc = b->alloc;
    wf_free(&alloc, b);
}

/* ---- bindings ---------------------------------------------------------------------------------------- */

static void bound_drop(wf_bound *b)
{
    if (b == NULL || !wf_ref_drop(&b->refs)) return;
    weft_allocator alloc = b->alloc;
    wf_free(&alloc, b->select);
    wf_free(&alloc, b->exclude);
    wf_free(&alloc, b->module);
    weft_report_free(b->report);
    weft_adapter_free(b->adapter);
    wf_free(&alloc, b);
}

/* Which module acts at which layer, before the selection. */
static weft_status place_modules(wf_bound *b, const wf_layer *layers, size_t count, weft_error *err)
{
    const int64_t *at = wf_report_layers(b->report);
    size_t         modules = wf_adapter_modules(b->adapter);

    for (size_t l = 0; l < count; l++) b->module[l] = -1;
    for (size_t m = 0; m < modules; m++) {
        if (at[m] < 0 || (size_t)at[m] >= count) continue;
        const wf_layer *layer = &layers[at[m]];
        if (layer->component > 2)
            return wf_fail(err, WEFT_E_UNSUPPORTED, "adapter %s: %s: adapters act on the UNet and the text encoders",
                           wf_adapter_name(b->adapter), layer->name);
        if (b->module[at[m]] >= 0)
            return wf_fail(err, WEFT_E_MISMATCH, "adapter %s: %s and %s both mean layer %s",
                           wf_adapter_name(b->adapter), wf_adapter_module(b->adapter, (size_t)b->module[at[m]])->key,
                           wf_adapter_module(b->adapter, m)->key, layer->name);
        b->module[at[m]] = (int32_t)m;
    }
    return WEFT_OK;
}

/* A pattern that selects nothing is a slip of the pen more often than a wish. */
static weft_status check_patterns(const wf_bound *b, const wf_layer *layers, size_t count, weft_error *err)
{
    weft_status st = WEFT_OK;
    char       *one = wf_strdup(&b->alloc, b->select);

    if (one == NULL) return wf_nomem(err, strlen(b->select) + 1, "a pattern");
    for (const char *p = b->select; st == WEFT_OK; ) {
        size_t n = strcspn(p, ","), hits = 0;
        memcpy(one, p, n);
        one[n] = '\0';
        for (size_t l = 0; l < count; l++)
            if (b->module[l] >= 0 && wf_glob_any(one, layers[l].name)) hits++;
        if (hits == 0)
            st = wf_fail(err, WEFT_E_MISMATCH, "adapter %s: select pattern \"%s\" matches none of its layers",
                         wf_adapter_name(b->adapter), one);
        if (p[n] == '\0') break;
        p += n + 1;
    }
    wf_free(&b->alloc, one);
    return st;
}

static weft_status apply_selection(wf_bound *b, const wf_layer *layers, size_t count, weft_error *err)
{
    size_t      left = 0;
    weft_status st;

    if (b->select == NULL && b->exclude == NULL) return WEFT_OK;
    if (b->select != NULL && (st = check_patterns(b, layers, count, err)) != WEFT_OK) return st;
    for (size_t l = 0; l < count; l++) {
        if (b->module[l] < 0) continue;
        if ((b->select != NULL && !wf_glob_any(b->select, layers[l].name)) ||
            (b->exclude != NULL && wf_glob_any(b->exclude, layers[l].name)))
            b->module[l] = -1;
        else
            left++;
    }
    if (left == 0)
        return wf_fail(err, WEFT_E_MISMATCH, "adapter %s: exclude pattern \"%s\" leaves none of its layers",
                       wf_adapter_name(b->adapter), b->exclude);
    return WEFT_OK;
}

static weft_status bind(wf_bound **out, const weft_plan *plan, weft_adapter *adapter, const weft_add_options *o,
                        weft_error *err)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(plan->model, &count);
    wf_bound       *b = wf_zalloc(&plan->alloc, 1, sizeof *b);
    weft_status     st = WEFT_OK;

    if (b == NULL) return wf_nomem(err, sizeof *b, "a binding");
    wf_ref_init(&b->refs);
    b->alloc = plan->alloc;
    b->adapter = adapter;
    wf_adapter_ref(adapter);
    if ((st = weft_report_create(plan->model, adapter, &b->report, err)) != WEFT_OK) goto done;
    if ((st = wf_report_verdict(b->report, (o->flags & WEFT_ADD_PARTIAL) != 0, err)) != WEFT_OK) goto done;

    b->module = wf_zalloc(&plan->alloc, count, sizeof *b->module);
    if (b->module == NULL) st = wf_nomem(err, count * sizeof *b->module, "a binding");
    if (st == WEFT_OK && o->select != NULL && (b->select = wf_strdup(&plan->alloc, o->select)) == NULL)
        st = wf_nomem(err, strlen(o->select) + 1, "a selection");
    if (st == WEFT_OK && o->exclude != NULL && (b->exclude = wf_strdup(&plan->alloc, o->exclude)) == NULL)
        st = wf_nomem(err, strlen(o->exclude) + 1, "a selection");
    if (st != WEFT_OK) goto done;

    if ((st = place_modules(b, layers, count, err)) != WEFT_OK) goto done;
    if ((st = apply_selection(b, layers, count, err)) != WEFT_OK) goto done;
    *out = b;
    b = NULL;
done:
    bound_drop(b);
    return st;
}

const wf_module *wf_plan_module(const weft_plan *p, int32_t adapter, int32_t layer)
{
    const wf_bound *b = p->entry[adapter].bound;
    int32_t         m = b->module[layer];
    return m < 0 ? NULL : wf_adapter_module(b->adapter, (size_t)m);
}

/* ---- create, copy, free ------------------------------------------------------------------------------- */

weft_status weft_plan_create(weft_model *model, const weft_plan_options *options, weft_plan **out, weft_error *err)
{
    weft_plan_options o;
    weft_allocator    alloc;
    weft_plan        *p;
    weft_status       st;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "weft_plan_create: out is NULL");
    *out = NULL;
    if (model == NULL) return wf_fail(err, WEFT_E_ARG, "weft_plan_create: model is NULL");
    st = WF_OPTIONS(&o, options, weft_plan_options, 0, err);
    if (st == WEFT_OK) st = wf_check_allocator(o.allocator, err);
    if (st != WEFT_OK) return st;
    if (o.path < WEFT_PATH_AUTO || o.path > WEFT_PATH_MERGED)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_options: path is %d, not one of WEFT_PATH_*", (int)o.path);
    if (o.text < WEFT_TEXT_METHOD || o.text > WEFT_TEXT_NONE)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_options: text is %d, not one of WEFT_TEXT_*", (int)o.text);

    if (o.mixed < WEFT_MIXED_DELTA || o.mixed > WEFT_MIXED_DIRECTION)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_options: mixed is %d, not one of WEFT_MIXED_*", (int)o.mixed);
    if (o.reserved0 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "weft_plan_options: reserved0 is %d, must be zero", (int)o.reserved0);

    alloc = wf_allocator(o.allocator);
    p = wf_zalloc(&alloc, 1, sizeof *p);
    if (p == NULL) return wf_nomem(err, sizeof *p, "a plan");
    wf_ref_init(&p->refs);
    p->alloc = alloc;
    p->log = o.log;
    p->log_user = o.log_user;
    p->progress = o.progress;
    p->progress_user = o.progress_user;
    p->path = o.path;
    p->text = o.text;
    p->mixed = o.mixed;
    p->method = &wf_method_merge; /* until a setter says otherwise */
    p->model = model;
    wf_model_ref(model);
    *out = p;
    return WEFT_OK;
}

/* What a later seal may take over: stacks and findings of a sealed plan, or what an unsealed one was given. */
static weft_status take_over(weft_plan *p, const weft_plan *from, weft_error *err)
{
    wf_weave *const *weave = from->sealed ? from->table.weave : from->cache;
    size_t           count = from->sealed ? from->table.touched_count : from->cached;

    p->memo_of = from->sealed ? from->method : from->memo_of;
    p->memo = wf_blob_ref(from->sealed ? from->table.memo : from->memo);
    if (count == 0) return WEFT_OK;
    p->cache = wf_zalloc(&p->alloc, count, sizeof *p->cache);
    if (p->cache == NULL) return wf_nomem(err, count * sizeof *p->cache, "a copy of a plan");
    for (size_t i = 0; i < count; i++) p->cache[i] = wf_weave_ref(weave[i]);
    p->cached = count;
    return WEFT_OK;
}

weft_status weft_plan_copy(const weft_plan *plan, weft_plan **out, weft_error *err)
{
    weft_plan  *p;
    weft_status st = WEFT_OK;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "weft_plan_copy: out is NULL");
    *out = NULL;
    if (plan == NULL) return wf_fail(err, WEFT_E_ARG, "weft_plan_copy: plan is NULL");
    p = wf_zalloc(&plan->alloc, 1, sizeof *p);
    if (p == NULL) return wf_nomem(err, sizeof *p, "a copy of a plan");

    wf_ref_init(&p->refs);
    p->alloc = plan->alloc;
    p->log = plan->log;
    p->log_user = plan->log_user;
    p->progress = plan->progress;
    p->progress_user = plan->progress_user;
    p->path = plan->path;
    p->text = plan->text;
    p->mixed = plan->mixed;
    p->method = plan->method;
    p->options = wf_blob_ref(plan->options);
    p->model = plan->model;
    wf_model_ref(p->model);
    p->words = wf_words_ref(plan->words);

    if (plan->adapters > 0) {
        p->entry = wf_zalloc(&p->alloc, (size_t)plan->adapters, sizeof *p->entry);
        if (p->entry == NULL) {
            st = wf_nomem(err, (size_t)plan->adapters * sizeof *p->entry, "a copy of a plan");
            goto done;
        }
        p->room = p->adapters = plan->adapters;
        for (int32_t i = 0; i < p->adapters; i++) {
            p->entry[i] = plan->entry[i];
            wf_ref_take(&p->entry[i].bound->refs);
        }
    }
    if ((st = take_over(p, plan, err)) != WEFT_OK) goto done;
    *out = p;
    p = NULL;
done:
    weft_plan_free(p);
    return st;
}

/* Let go of what only an unsealed plan needs. */
static void drop_cache(weft_plan *p)
{
    for (size_t i = 0; i < p->cached; i++) wf_weave_drop(p->cache[i]);
    wf_free(&p->alloc, p->cache);
    wf_blob_drop(p->memo);
    p->cache = NULL;
    p->cached = 0;
    p->memo = NULL;
}

void weft_plan_free(weft_plan *plan)
{
    if (plan == NULL || !wf_ref_drop(&plan->refs)) return;
    weft_allocator alloc = plan->alloc;
    wf_table_free(&plan->table, &plan->alloc);
    drop_cache(plan);
    wf_blob_drop(plan->options);
    for (int32_t i = 0; i < plan->adapters; i++) bound_drop(plan->entry[i].bound);
    wf_free(&alloc, plan->entry);
    wf_words_drop(plan->words);
    weft_model_free(plan->model);
    wf_free(&alloc, plan);
}

void wf_plan_ref(weft_plan *p)
{
    wf_ref_take(&p->refs);
}

/* ---- building ------------------------------------------------------------------------------------------ */

weft_status wf_plan_still_open(const weft_plan *plan, const char *what, weft_error *err)
{
    if (plan == NULL) return wf_fail(err, WEFT_E_ARG, "%s: plan is NULL", what);
    if (plan->sealed)
        return wf_fail(err, WEFT_E_STATE, "%s: the plan is sealed; weft_plan_copy() gives one that can be changed", what);
    return WEFT_OK;
}

static weft_status make_room(weft_plan *p, weft_error *err)
{
    int32_t   room = p->room < 4 ? 4 : 2 * p->room;
    wf_entry *entry;

    if (p->adapters < p->room) return WEFT_OK;
    entry = wf_zalloc(&p->alloc, (size_t)room, sizeof *entry);
    if (entry == NULL) return wf_nomem(err, (size_t)room * sizeof *entry, "a plan's adapters");
    if (p->adapters > 0) memcpy(entry, p->entry, (size_t)p->adapters * sizeof *entry);
    wf_free(&p->alloc, p->entry);
    p->entry = entry;
    p->room = room;
    return WEFT_OK;
}

weft_status wf_plan_check_add(const weft_add_options *o, float weight, const char *name, weft_error *err)
{
    if (!isfinite(weight)) return wf_fail(err, WEFT_E_ARG, "adapter %s: the weight is not a finite number", name);
    if ((o->flags & WEFT_ADD_TEXT_WEIGHT) && !isfinite(o->text_weight))
        return wf_fail(err, WEFT_E_ARG, "adapter %s: the text weight is not a finite number", name);
    if ((o->flags & WEFT_ADD_SHARE) && !isfinite(o->share))
        return wf_fail(err, WEFT_E_ARG, "adapter %s: the share is not a finite number", name);
    if (o->role < WEFT_ROLE_NONE || o->role > WEFT_ROLE_STYLE)
        return wf_fail(err, WEFT_E_ARG, "adapter %s: role is %d, not one of WEFT_ROLE_*", name, (int)o->role);
    if (o->reserved0 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "weft_add_options: reserved0 is %d, must be zero", (int)o->reserved0);
    return WEFT_OK;
}

weft_status weft_plan_add(weft_plan *plan, weft_adapter *adapter, float weight, const weft_add_options *options,
                               weft_error *err)
{
    weft_add_options o;
    wf_bound        *bound = NULL;
    wf_entry        *e;
    weft_status      st;

    if ((st = wf_plan_still_open(plan, "weft_plan_add", err)) != WEFT_OK) return st;
    if (adapter == NULL) return wf_fail(err, WEFT_E_ARG, "weft_plan_add: adapter is NULL");
    st = WF_OPTIONS(&o, options, weft_add_options, WEFT_ADD_PARTIAL | WEFT_ADD_TEXT_WEIGHT |
                    WEFT_ADD_SHARE | WEFT_ADD_PEFT_DORA | WEFT_ADD_REPLACE, err);
    if (st != WEFT_OK) return st;
    if (o.flags & WEFT_ADD_REPLACE)
        return wf_fail(err, WEFT_E_ARG, "adapter %s: WEFT_ADD_REPLACE is for the words of a concept: "
                       "use weft_plan_add_concept", wf_adapter_name(adapter));
    if ((st = wf_plan_check_add(&o, weight, wf_adapter_name(adapter), err)) != WEFT_OK) return st;
    if (plan->adapters >= WF_ADAPTERS_MAX)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "adapter %s: a plan takes at most %d adapters",
                       wf_adapter_name(adapter), WF_ADAPTERS_MAX);

    if ((st = make_room(plan, err)) != WEFT_OK) return st;
    if ((st = bind(&bound, plan, adapter, &o, err)) != WEFT_OK) return st;
    e = &plan->entry[plan->adapters++];
    e->bound = bound;
    e->weight = weight;
    e->text_weight = (o.flags & WEFT_ADD_TEXT_WEIGHT) ? o.text_weight : weight;
    e->share = (o.flags & WEFT_ADD_SHARE) ? o.share : 1;
    e->role = o.role;
    e->peft_dora = (o.flags & WEFT_ADD_PEFT_DORA) != 0;
    return WEFT_OK;
}

weft_status weft_plan_set_weight(weft_plan *plan, int32_t adapter, float weight, float text_weight, weft_error *err)
{
    weft_status st = wf_plan_still_open(plan, "weft_plan_set_weight", err);

    if (st != WEFT_OK) return st;
    if (adapter < 0 || adapter >= plan->adapters)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_set_weight: adapter %d of %d", (int)adapter, (int)plan->adapters);
    if (!isfinite(weight) || !isfinite(text_weight))
        return wf_fail(err, WEFT_E_ARG, "adapter %s: the weight is not a finite number",
                       wf_adapter_name(plan->entry[adapter].bound->adapter));
    plan->entry[adapter].weight = weight;
    plan->entry[adapter].text_weight = text_weight;
    return WEFT_OK;
}

weft_status wf_plan_use(weft_plan *plan, const wf_method *method, const void *options, size_t size, weft_error *err)
{
    wf_blob    *kept = NULL;
    weft_status st = wf_plan_still_open(plan, method->name, err);

    if (st != WEFT_OK) return st;
    if (size > 0) {
        kept = wf_blob_create(&plan->alloc, size);
        if (kept == NULL) return wf_nomem(err, size, "a method's options");
        memcpy(kept->data, options, size);
    }
    wf_blob_drop(plan->options);
    plan->options = kept;
    plan->method = method;
    return WEFT_OK;
}

weft_status weft_plan_seal(weft_plan *plan, int32_t calls, weft_error *err)
{
    wf_table    table;
    weft_status st = wf_plan_still_open(plan, "weft_plan_seal", err);

    if (st != WEFT_OK) return st;
    if (calls < 1 || calls > WF_CALLS_MAX)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_seal: %d calls, need 1 to %d", (int)calls, WF_CALLS_MAX);
    if ((st = wf_table_make(&table, plan, calls, err)) != WEFT_OK) return st;
    drop_cache(plan);
    plan->table = table;
    plan->sealed = true;
    return WEFT_OK;
}

void wf_table_warn(const weft_plan *p, wf_table *t, const char *format, ...)
{
    char    line[1024], clean[sizeof line];
    va_list args;

    va_start(args, format);
    if (vsnprintf(line, sizeof line, format, args) < 0) line[0] = '\0';
    va_end(args);
    wf_wash(clean, sizeof clean, line);
    wf_text_add(&t->warnings, "%s\n", clean);
    wf_log(p->log, p->log_user, WEFT_LOG_WARN, "%s", clean);
}

/* ---- reading: for callers ------------------------------------------------------------------------------- */

static weft_status must_be_sealed(const weft_plan *plan, const char *what, weft_error *err)
{
    if (plan == NULL) return wf_fail(err, WEFT_E_ARG, "%s: plan is NULL", what);
    if (!plan->sealed) return wf_fail(err, WEFT_E_STATE, "%s: the plan is not sealed", what);
    return WEFT_OK;
}

/* Is any cell of these slots not zero, in any row and branch? */
static bool any_cell(const wf_table *t, size_t first, size_t end)
{
    for (size_t r = 0; r < t->rows * (size_t)t->branches; r++)
        for (size_t s = first; s < end; s++)
            if (t->cells[r * t->slots + s].number != 0) return true;
    return false;
}

const char *wf_plan_part(const weft_plan *p, int32_t adapter)
{
    int32_t role = p->entry[adapter].role;

    if (p->method->part != NULL) return p->method->part(p, adapter);
    return role == WEFT_ROLE_CONTENT ? "content" : role == WEFT_ROLE_STYLE ? "style" : "";
}

int32_t wf_plan_reach(const weft_plan *p, int32_t adapter)
{
    const wf_layer *layers = wf_model_layers(p->model, &(size_t){ 0 });
    int32_t         reach = 0;

    for (size_t s = 0; s < p->table.slots; s++)
        if (p->table.slot[s].adapter == adapter && layers[p->table.slot[s].layer].component == 0)
            reach += any_cell(&p->table, s, s + 1);
    return reach;
}

weft_status weft_plan_info_get(const weft_plan *plan, weft_plan_info *info, weft_error *err)
{
    weft_plan_info  i = WEFT_PLAN_INFO_INIT;
    const wf_layer *layers;
    size_t          count;

    if (plan == NULL || info == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_info_get: %s is NULL", plan == NULL ? "plan" : "info");
    layers = wf_model_layers(plan->model, &count);
    i.sealed = plan->sealed;
    i.method = plan->method->name;
    i.adapters = plan->adapters;
    i.calls = plan->table.calls;
    i.branches = plan->table.branches;
    i.layers = (int64_t)count;
    for (size_t k = 0; k < plan->table.touched_count; k++) {
        const wf_touched *at = &plan->table.touched[k];
        const wf_layer   *layer = &layers[at->layer];
        i.touched_layers += any_cell(&plan->table, (size_t)at->slot, (size_t)(at->slot + at->parts));
        i.side_bytes += (int64_t)(wf_stack_floats(layer, &at->stack) * sizeof(float));
        if (!at->merged) continue;
        i.merged_layers++;
        i.merged_bytes += (int64_t)(wf_merged_floats(at, layer) * sizeof(float));
    }
    return WF_RESULT(info, &i, weft_plan_info, err);
}

/* The slot of an adapter at a layer, or -1. Slots are in order of layer, then adapter. */
static int64_t find_slot(const wf_table *t, int64_t layer, int32_t adapter)
{
    size_t low = 0, high = t->slots;

    while (low < high) {
        size_t         mid = low + (high - low) / 2;
        const wf_slot *s = &t->slot[mid];
        if (s->layer < layer || (s->layer == layer && s->adapter < adapter)) low = mid + 1;
        else high = mid;
    }
    if (low == t->slots || t->slot[low].layer != layer || t->slot[low].adapter != adapter) return -1;
    return (int64_t)low;
}

weft_status weft_plan_cell(const weft_plan *plan, int32_t call, int32_t branch, int64_t layer, int32_t adapter,
                           float *out, weft_error *err)
{
    const wf_table *t;
    size_t          count;
    int64_t         slot;
    weft_status     st;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "weft_plan_cell: out is NULL");
    *out = 0;
    if ((st = must_be_sealed(plan, "weft_plan_cell", err)) != WEFT_OK) return st;
    t = &plan->table;
    wf_model_layers(plan->model, &count);
    if (call < 0 || call >= t->calls)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_cell: call %d of %d", (int)call, (int)t->calls);
    if (branch < 0 || branch >= t->branches)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_cell: branch %d of %d", (int)branch, (int)t->branches);
    if (layer < 0 || (uint64_t)layer >= count)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_cell: layer %lld of %zu", (long long)layer, count);
    if (adapter < 0 || adapter >= plan->adapters)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_cell: adapter %d of %d", (int)adapter, (int)plan->adapters);
    slot = find_slot(t, layer, adapter);
    if (slot >= 0) *out = wf_plan_row(plan, call)[(size_t)branch * t->slots + (size_t)slot].number;
    return WEFT_OK;
}

weft_status weft_plan_branch_weight(const weft_plan *plan, int32_t branch, float *weight, float *divisor,
                                    weft_error *err)
{
    float       w = 1, d = 1;
    weft_status st = must_be_sealed(plan, "weft_plan_branch_weight", err);

    if (weight != NULL) *weight = 0;
    if (divisor != NULL) *divisor = 0;
    if (st != WEFT_OK) return st;
    if (branch < 0 || branch >= plan->table.branches)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_branch_weight: branch %d of %d", (int)branch,
                       (int)plan->table.branches);
    if (plan->method->weigh != NULL) plan->method->weigh(plan, branch, &w, &d);
    if (weight != NULL) *weight = w;
    if (divisor != NULL) *divisor = d;
    return WEFT_OK;
}

/* ---- reading: for the run --------------------------------------------------------------------------------- */

weft_model *wf_plan_model(const weft_plan *p) { return p->model; }
bool        wf_plan_sealed(const weft_plan *p) { return p->sealed; }
int32_t     wf_plan_calls(const weft_plan *p) { return p->table.calls; }
int32_t     wf_plan_branches(const weft_plan *p) { return p->table.branches; }
int32_t     wf_plan_adapters(const weft_plan *p) { return p->adapters; }
size_t      wf_plan_slots(const weft_plan *p) { return p->table.slots; }

const wf_touched *wf_plan_touched(const weft_plan *p, size_t *count)
{
    *count = p->table.touched_count;
    return p->table.touched;
}

const wf_cell *wf_plan_row(const weft_plan *p, int32_t call)
{
    size_t width = p->table.slots * (size_t)p->table.branches;
    return p->table.cells + (size_t)p->table.row_of_call[call] * width;
}

void wf_plan_text_row(const weft_plan *p, int32_t adapter, wf_cell *row)
{
    const wf_layer *layers = wf_model_layers(p->model, &(size_t){ 0 });

    for (size_t s = 0; s < p->table.slots; s++) {
        const wf_slot *at = &p->table.slot[s];
        bool           text = layers[at->layer].component != 0;
        row[s] = (wf_cell){ 0, 0, 0 };
        if (text && at->adapter == adapter) row[s].number = wf_plan_cell_weight(p, adapter, at->layer);
    }
}

void wf_plan_combine(const weft_plan *p, float *out, const float *const *preds, size_t n, bool guided)
{
    if (p->method->combine != NULL) p->method->combine(p, out, preds, n, guided);
    else if (out != preds[0]) memcpy(out, preds[0], n * sizeof *out);
}
