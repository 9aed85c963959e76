/* plan.c - the plan as a handle: built from adapters and phases, sealed once, read from then on.
 *
 * A plan holds bindings: what an adapter does on this model, seen through one selection of layers.
 * Bindings, patches and what a method learnt of the weights are immutable and counted. So a copy of
 * a plan costs a few pointers, and sealing it computes only what changed.
 *
 * Sealing fills a table of its own and puts it into the plan at the end. If it fails half way, the
 * plan is as it was, to be changed and sealed again. */
#include <math.h>
#include <stdio.h>

#include "base/structs.h"
#include "plan/method/method.h"

/* ---- counted blocks -------------------------------------------------------------------------- */

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
    if (b->drop != NULL) b->drop(b->data);
    wf_free(&alloc, b);
}

/* ---- phases ---------------------------------------------------------------------------------- */

/* A phase that merges, unless a setter follows. */
static weft_status add_phase(weft_plan *p, int32_t first, double at, weft_error *err)
{
    wf_phase *phase = wf_zalloc(&p->alloc, p->phases + 1, sizeof *phase);

    if (phase == NULL) return wf_nomem(err, (p->phases + 1) * sizeof *phase, "a plan's phases");
    if (p->phases > 0) memcpy(phase, p->phase, p->phases * sizeof *phase);
    wf_free(&p->alloc, p->phase);
    p->phase = phase;
    p->phase[p->phases++] = (wf_phase){ .first = first, .at = at, .method = &wf_method_merge };
    return WEFT_OK;
}

static void drop_phases(weft_plan *p)
{
    for (size_t i = 0; i < p->phases; i++) {
        wf_blob_drop(p->phase[i].options);
        wf_blob_drop(p->phase[i].learnt);
    }
    wf_free(&p->alloc, p->phase);
}

weft_status weft_plan_begin_phase(weft_plan *plan, const weft_phase_options *options,
                                  weft_error *err)
{
    weft_phase_options o;
    const wf_phase    *last;

    WF_TRY(wf_plan_still_open(plan, "weft_plan_begin_phase", err));
    WF_TRY(WF_OPTIONS(&o, options, weft_phase_options, WEFT_PHASE_AT, err));
    if (plan->phases >= WF_PHASES_MAX)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "weft_plan_begin_phase: a plan takes at most %d phases", WF_PHASES_MAX);
    if (o.reserved0 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "weft_phase_options: reserved0 is %d, must be zero",
                       (int)o.reserved0);
    if (o.flags & WEFT_PHASE_AT) {
        if (!(o.at >= 0 && o.at <= 1) || o.first != 0)
            return wf_fail(err, WEFT_E_ARG,
                           "weft_phase_options: at must be 0 to 1, and first 0 beside it");
        return add_phase(plan, 0, o.at, err);
    }
    last = &plan->phase[plan->phases - 1];
    if (o.first < 1 || (last->at < 0 && o.first <= last->first))
        return wf_fail(err, WEFT_E_ARG,
                       "weft_phase_options: first is %d, the phase before begins at call %d",
                       (int)o.first, (int)last->first);
    return add_phase(plan, o.first, -1, err);
}

weft_status wf_plan_use(weft_plan *plan, const wf_method *method, const void *options, size_t size,
                        weft_error *err)
{
    wf_blob  *kept = NULL;
    wf_phase *phase;

    WF_TRY(wf_plan_still_open(plan, method->name, err));
    if (size > 0) {
        kept = wf_blob_create(&plan->alloc, size);
        if (kept == NULL) return wf_nomem(err, size, "a method's options");
        memcpy(kept->data, options, size);
    }
    phase = &plan->phase[plan->phases - 1];
    wf_blob_drop(phase->options);
    if (phase->method != method) {
        wf_blob_drop(phase->learnt);
        phase->learnt = NULL;
    }
    phase->options = kept;
    phase->method = method;
    return WEFT_OK;
}

void *wf_plan_kept_options(weft_plan *plan)
{
    return plan->phase[plan->phases - 1].options->data;
}

/* ---- create, copy, free ---------------------------------------------------------------------- */

weft_status weft_plan_create(weft_model *model, const weft_plan_options *options, weft_plan **out,
                             weft_error *err)
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
        return wf_fail(err, WEFT_E_ARG, "weft_plan_options: path is %d, not one of WEFT_PATH_*",
                       (int)o.path);
    if (o.text < WEFT_TEXT_METHOD || o.text > WEFT_TEXT_NONE)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_options: text is %d, not one of WEFT_TEXT_*",
                       (int)o.text);

    if (o.mixed < WEFT_MIXED_DELTA || o.mixed > WEFT_MIXED_DIRECTION)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_options: mixed is %d, not one of WEFT_MIXED_*",
                       (int)o.mixed);
    if (o.reserved0 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "weft_plan_options: reserved0 is %d, must be zero",
                       (int)o.reserved0);

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
    p->model = model;
    wf_model_ref(model);
    st = add_phase(p, 0, -1, err);
    if (st == WEFT_OK) *out = p;
    else weft_plan_free(p);
    return st;
}

/* The patches of a plan, by layer: those of its sheets, or those that it began with. */
static weft_status share_patches(weft_plan *p, const weft_plan *from, weft_error *err)
{
    const wf_table *t = &from->table;
    size_t          count = from->sealed ? t->text.patched_count : from->cached, layers;

    wf_model_layers(from->model, &layers);
    for (size_t i = 0; i < t->phases; i++) count += t->phase[i].patched_count;
    if (count == 0) return WEFT_OK;
    p->cache = wf_zalloc(&p->alloc, count, sizeof *p->cache);
    if (p->cache == NULL) return wf_nomem(err, count * sizeof *p->cache, "a copy of a plan");
    for (size_t i = 0; i < from->cached; i++) p->cache[p->cached++] = wf_patch_ref(from->cache[i]);
    for (size_t l = 0; l < layers && from->sealed; l++)
        for (size_t i = 0; i <= t->phases; i++) {
            const wf_sheet *s = i < t->phases ? &t->phase[i] : &t->text;
            size_t          low = 0, high = s->patched_count;
            while (low < high) {
                size_t mid = low + (high - low) / 2;
                if ((size_t)s->patched[mid].layer < l) low = mid + 1;
                else high = mid;
            }
            if (low < s->patched_count && (size_t)s->patched[low].layer == l)
                p->cache[p->cached++] = wf_patch_ref(s->patched[low].patch);
        }
    return WEFT_OK;
}

/* What a sealed plan's phase learnt; phases without a call have no sheet. */
static wf_blob *learnt_of(const weft_plan *p, const wf_phase *phase)
{
    if (!p->sealed) return phase->learnt;
    for (size_t i = 0; i < p->table.phases; i++)
        if (p->table.phase[i].method == phase->method &&
            p->table.phase[i].options == phase->options)
            return p->table.phase[i].learnt;
    return NULL;
}

static weft_status copy_phases(weft_plan *p, const weft_plan *from, weft_error *err)
{
    p->phase = wf_zalloc(&p->alloc, from->phases, sizeof *p->phase);
    if (p->phase == NULL) return wf_nomem(err, from->phases * sizeof *p->phase, "a copy of a plan");
    for (; p->phases < from->phases; p->phases++) {
        const wf_phase *old = &from->phase[p->phases];
        p->phase[p->phases] = *old;
        (void)wf_blob_ref(old->options);
        p->phase[p->phases].learnt = wf_blob_ref(learnt_of(from, old));
    }
    return WEFT_OK;
}

static void drop_entry(wf_entry *e)
{
    wf_binding_drop(e->bound);
    wf_blob_drop(e->curve);
    wf_blob_drop(e->mask);
    wf_blob_drop(e->blocks);
}

static weft_status copy_entries(weft_plan *p, const weft_plan *from, weft_error *err)
{
    if (from->adapters == 0) return WEFT_OK;
    p->entry = wf_zalloc(&p->alloc, (size_t)from->adapters, sizeof *p->entry);
    if (p->entry == NULL)
        return wf_nomem(err, (size_t)from->adapters * sizeof *p->entry, "a copy of a plan");
    p->entry_cap = p->adapters = from->adapters;
    for (int32_t i = 0; i < p->adapters; i++) {
        p->entry[i] = from->entry[i];
        (void)wf_binding_ref(p->entry[i].bound);
        (void)wf_blob_ref(p->entry[i].curve);
        (void)wf_blob_ref(p->entry[i].mask);
        (void)wf_blob_ref(p->entry[i].blocks);
    }
    return WEFT_OK;
}

weft_status weft_plan_copy(const weft_plan *plan, weft_plan **out, weft_error *err)
{
    weft_plan  *p;
    weft_status st;

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
    p->model = plan->model;
    wf_model_ref(p->model);
    p->tokens = wf_tokens_ref(plan->tokens);
    p->notes = wf_blob_ref(plan->notes);
    p->align = wf_blob_ref(plan->align);
    p->balance = wf_blob_ref(plan->balance);
    p->balanced = wf_blob_ref(plan->sealed ? plan->table.balanced : plan->balanced);
    if ((st = copy_phases(p, plan, err)) == WEFT_OK && (st = copy_entries(p, plan, err)) == WEFT_OK &&
        (st = wf_plan_copy_regions(p, plan, err)) == WEFT_OK &&
        (st = wf_plan_copy_images(p, plan, err)) == WEFT_OK)
        st = share_patches(p, plan, err);
    if (st == WEFT_OK) *out = p;
    else weft_plan_free(p);
    return st;
}

/* Release what only an unsealed plan needs. */
static void drop_cache(weft_plan *p)
{
    for (size_t i = 0; i < p->cached; i++) wf_patch_drop(p->cache[i]);
    wf_free(&p->alloc, p->cache);
    p->cache = NULL;
    p->cached = 0;
    for (size_t i = 0; i < p->phases; i++) {
        wf_blob_drop(p->phase[i].learnt);
        p->phase[i].learnt = NULL;
    }
    wf_blob_drop(p->balanced);
    p->balanced = NULL;
}

void weft_plan_free(weft_plan *plan)
{
    if (plan == NULL || !wf_ref_drop(&plan->refs)) return;
    weft_allocator alloc = plan->alloc;
    wf_table_free(&plan->table, &plan->alloc);
    drop_cache(plan);
    drop_phases(plan);
    for (int32_t i = 0; i < plan->adapters; i++) drop_entry(&plan->entry[i]);
    wf_free(&alloc, plan->entry);
    wf_blob_drop(plan->align);
    wf_blob_drop(plan->balance);
    wf_plan_drop_regions(plan);
    wf_plan_drop_images(plan);
    wf_tokens_drop(plan->tokens);
    wf_blob_drop(plan->notes);
    weft_model_free(plan->model);
    wf_free(&alloc, plan);
}

void wf_plan_ref(weft_plan *p)
{
    wf_ref_take(&p->refs);
}

/* ---- adapters -------------------------------------------------------------------------------- */

weft_status wf_plan_still_open(const weft_plan *plan, const char *what, weft_error *err)
{
    if (plan == NULL) return wf_fail(err, WEFT_E_ARG, "%s: plan is NULL", what);
    if (plan->sealed)
        return wf_fail(err, WEFT_E_STATE,
                       "%s: the plan is sealed; weft_plan_copy() gives one that can be changed",
                       what);
    return WEFT_OK;
}

static weft_status grow_entries(weft_plan *p, weft_error *err)
{
    int32_t   cap = p->entry_cap < 4 ? 4 : 2 * p->entry_cap;
    wf_entry *entry;

    if (p->adapters < p->entry_cap) return WEFT_OK;
    entry = wf_zalloc(&p->alloc, (size_t)cap, sizeof *entry);
    if (entry == NULL) return wf_nomem(err, (size_t)cap * sizeof *entry, "a plan's adapters");
    if (p->adapters > 0) memcpy(entry, p->entry, (size_t)p->adapters * sizeof *entry);
    wf_free(&p->alloc, p->entry);
    p->entry = entry;
    p->entry_cap = cap;
    return WEFT_OK;
}

weft_status wf_plan_check_add(const weft_add_options *o, float weight, const char *name,
                              weft_error *err)
{
    if (!isfinite(weight))
        return wf_fail(err, WEFT_E_ARG, "adapter %s: the weight is not a finite number", name);
    if ((o->flags & WEFT_ADD_SHARE) && !isfinite(o->share))
        return wf_fail(err, WEFT_E_ARG, "adapter %s: the share is not a finite number", name);
    if (o->role < WEFT_ROLE_NONE || o->role > WEFT_ROLE_STYLE)
        return wf_fail(err, WEFT_E_ARG, "adapter %s: role is %d, not one of WEFT_ROLE_*", name,
                       (int)o->role);
    if (o->reserved0 != 0 || o->reserved1 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "weft_add_options: reserved fields must be zero");
    return WEFT_OK;
}

/* The weights of the text encoders: as given, or all the weight itself. */
static weft_status read_text_weights(float to[WF_TEXT_ENCODERS], const weft_text_weights *given,
                                     float weight, const char *name, weft_error *err)
{
    weft_text_weights t;

    for (int i = 0; i < WF_TEXT_ENCODERS; i++) to[i] = weight;
    if (given == NULL) return WEFT_OK;
    WF_TRY(WF_OPTIONS(&t, given, weft_text_weights, 0, err));
    if (!isfinite(t.text_1) || !isfinite(t.text_2) || !isfinite(t.text_3))
        return wf_fail(err, WEFT_E_ARG, "adapter %s: a text weight is not a finite number", name);
    if (t.reserved0 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "weft_text_weights: reserved0 is %d, must be zero",
                       (int)t.reserved0);
    to[0] = t.text_1;
    to[1] = t.text_2;
    to[2] = t.text_3;
    return WEFT_OK;
}

/* What an adapter is in a plan, from its options. */
static weft_status make_entry(wf_entry *e, const weft_plan *plan, weft_adapter *adapter,
                              float weight, const weft_add_options *options, const char *what,
                              weft_error *err)
{
    weft_add_options o;

    if (adapter == NULL) return wf_fail(err, WEFT_E_ARG, "%s: adapter is NULL", what);
    WF_TRY(WF_OPTIONS(&o, options, weft_add_options,
                      WEFT_ADD_PARTIAL | WEFT_ADD_SHARE | WEFT_ADD_PEFT_DORA | WEFT_ADD_REPLACE,
                      err));
    if (o.flags & WEFT_ADD_REPLACE)
        return wf_fail(err, WEFT_E_ARG,
                       "adapter %s: WEFT_ADD_REPLACE is for the tokens of a concept: "
                       "use weft_plan_add_concept",
                       wf_adapter_name(adapter));
    WF_TRY(wf_plan_check_add(&o, weight, wf_adapter_name(adapter), err));
    *e = (wf_entry){ .weight = weight,
                     .share = o.flags & WEFT_ADD_SHARE ? o.share : 1,
                     .role = o.role,
                     .peft_dora = (o.flags & WEFT_ADD_PEFT_DORA) != 0,
                     .partial = (o.flags & WEFT_ADD_PARTIAL) != 0 };
    WF_TRY(
        read_text_weights(e->text_weight, o.text_weights, weight, wf_adapter_name(adapter), err));
    return wf_binding_create(&e->bound, plan->model, adapter, &o, &plan->alloc, err);
}

weft_status weft_plan_add(weft_plan *plan, weft_adapter *adapter, float weight,
                          const weft_add_options *options, weft_error *err)
{
    wf_entry e;

    WF_TRY(wf_plan_still_open(plan, "weft_plan_add", err));
    if (plan->adapters >= WF_ADAPTERS_MAX)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "weft_plan_add: a plan takes at most %d adapters",
                       WF_ADAPTERS_MAX);
    WF_TRY(grow_entries(plan, err));
    WF_TRY(make_entry(&e, plan, adapter, weight, options, "weft_plan_add", err));
    plan->entry[plan->adapters++] = e;
    return WEFT_OK;
}

weft_status wf_plan_check_index(const weft_plan *plan, int32_t adapter, const char *what,
                                weft_error *err)
{
    WF_TRY(wf_plan_still_open(plan, what, err));
    if (adapter < 0 || adapter >= plan->adapters)
        return wf_fail(err, WEFT_E_ARG, "%s: adapter %d of %d", what, (int)adapter,
                       (int)plan->adapters);
    return WEFT_OK;
}

weft_status weft_plan_replace(weft_plan *plan, int32_t index, weft_adapter *adapter, float weight,
                              const weft_add_options *options, weft_error *err)
{
    wf_entry e;

    WF_TRY(wf_plan_check_index(plan, index, "weft_plan_replace", err));
    WF_TRY(make_entry(&e, plan, adapter, weight, options, "weft_plan_replace", err));
    drop_entry(&plan->entry[index]);
    plan->entry[index] = e;
    return WEFT_OK;
}

/* options [phases] without an adapter; NULL where they do not name any. */
static weft_status forget_options(wf_blob **options, const weft_plan *p, int32_t adapter,
                                  weft_error *err)
{
    for (size_t i = 0; i < p->phases; i++) {
        const wf_method *m = p->phase[i].method;
        if (m->forget == NULL) continue;
        WF_TRY(m->forget(&options[i], p, p->phase[i].options, adapter, err));
    }
    return WEFT_OK;
}

/* Options that name adapters by number follow them. If they cannot, all stays as it was. */
static weft_status renumber(weft_plan *p, int32_t adapter, weft_error *err)
{
    wf_blob   **options = wf_zalloc(&p->alloc, p->phases, sizeof *options), *balance = NULL;
    weft_status st;

    if (options == NULL) return wf_nomem(err, p->phases * sizeof *options, "a plan's phases");
    st = forget_options(options, p, adapter, err);
    if (st == WEFT_OK) st = wf_balance_forget(&balance, p, p->balance, adapter, err);
    for (size_t i = 0; i < p->phases; i++) {
        if (options[i] == NULL) continue;
        wf_blob_drop(st == WEFT_OK ? p->phase[i].options : options[i]);
        if (st == WEFT_OK) p->phase[i].options = options[i];
    }
    if (st == WEFT_OK) {
        wf_blob_drop(p->balance);
        p->balance = balance;
    }
    wf_free(&p->alloc, options);
    return st;
}

weft_status weft_plan_remove(weft_plan *plan, int32_t index, weft_error *err)
{
    WF_TRY(wf_plan_check_index(plan, index, "weft_plan_remove", err));
    WF_TRY(renumber(plan, index, err));
    drop_entry(&plan->entry[index]);
    plan->adapters--;
    for (int32_t i = index; i < plan->adapters; i++) plan->entry[i] = plan->entry[i + 1];
    wf_plan_regions_forget(plan, index);
    return WEFT_OK;
}

weft_status weft_plan_set_weight(weft_plan *plan, int32_t index, float weight,
                                 const weft_text_weights *text, weft_error *err)
{
    float    weights[WF_TEXT_ENCODERS];

    WF_TRY(wf_plan_check_index(plan, index, "weft_plan_set_weight", err));
    wf_entry   *e = &plan->entry[index];
    const char *name = wf_adapter_name(e->bound->adapter);
    if (!isfinite(weight))
        return wf_fail(err, WEFT_E_ARG, "adapter %s: the weight is not a finite number", name);
    WF_TRY(read_text_weights(weights, text, weight, name, err));
    e->weight = weight;
    memcpy(e->text_weight, weights, sizeof weights);
    return WEFT_OK;
}

/* ---- sealing --------------------------------------------------------------------------------- */

weft_status weft_plan_seal(weft_plan *plan, int32_t calls, weft_error *err)
{
    wf_table    table;
    weft_status st = wf_plan_still_open(plan, "weft_plan_seal", err);

    if (st != WEFT_OK) return st;
    if (calls < 1 || calls > WF_CALLS_MAX)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_seal: %d calls, need 1 to %d", (int)calls,
                       WF_CALLS_MAX);
    if ((st = wf_plan_check_regions(plan, err)) != WEFT_OK) return st;
    if ((st = wf_plan_check_align(plan, err)) != WEFT_OK) return st;
    if ((st = wf_plan_check_images(plan, calls, err)) != WEFT_OK) return st;
    if ((st = wf_table_make(&table, plan, calls, err)) != WEFT_OK) return st;
    wf_tokens_warn(plan, &table);
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
