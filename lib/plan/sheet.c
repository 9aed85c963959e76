/* sheet.c - from adapters and a method to a sheet of the table: slots, rows, and patches.
 *
 * We ask the method for every call of its phase, and keep each distinct row once: merge has 1,
 * switch one for each adapter, K-LoRA at most one for each call. Then we drop the slots that are
 * zero in all rows. So an adapter of weight 0 leaves no slot, and its layers compute what the base
 * computes, bit for bit.
 *
 * The sheet of the text encoders has one row. There a slot stays if its weight is not zero, even if
 * the policy silences it: a caller may still encode a prompt with only that adapter. */
#include <math.h>

#include "plan/method/method.h"

/* ---- slots ----------------------------------------------------------------------------------- */

/* Slots of an adapter at a layer of this sheet. */
static int32_t slots_at(const weft_plan *p, const wf_sheet *s, const wf_layer *layer,
                        int32_t adapter)
{
    bool    text = wf_component_encoder(layer->component) >= 0;
    int32_t count;

    (void)wf_plan_slices(p, adapter, layer->id, &count);
    return text == (s->method == NULL) && wf_plan_weight(p, adapter, layer->id) != 0 ? count : 0;
}

static weft_status list_slots(wf_sheet *s, const weft_plan *p, weft_error *err)
{
    size_t          layers_count, n = 0;
    const wf_layer *layers = wf_model_layers(p->model, &layers_count);

    for (size_t l = 0; l < layers_count; l++)
        for (int32_t a = 0; a < p->adapters; a++) n += (size_t)slots_at(p, s, &layers[l], a);
    s->slot = wf_zalloc(&p->alloc, n, sizeof *s->slot);
    if (s->slot == NULL) return wf_nomem(err, n * sizeof *s->slot, "a plan's slots");
    for (size_t l = 0; l < layers_count; l++)
        for (int32_t a = 0; a < p->adapters; a++)
            for (int32_t i = 0, k = slots_at(p, s, &layers[l], a); i < k; i++)
                s->slot[s->slots++] = (wf_slot){ (int32_t)l, a, i };
    return WEFT_OK;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static int32_t branches_of(const weft_plan *p, const wf_sheet *s, int32_t call)
{
    return s->method != NULL && s->method->branches != NULL ? s->method->branches(p, s, call) : 1;
}

static wf_cell cell_of(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch,
                       const wf_slot *slot)
{
    if (s->method == NULL)
        return (wf_cell){ wf_plan_text_cell(p, slot->adapter, slot->layer), 0, 0 };
    wf_cell c = s->method->choose(p, s, call, branch, slot->layer, slot->adapter);
    if (c.number == 0) return (wf_cell){ 0, 0, 0 }; /* never -0: rows are compared as bytes */
    const wf_entry *e = &p->entry[slot->adapter];
    c.number *= wf_plan_cell_weight(p, slot->adapter, slot->layer);
    if (e->curve != NULL)
        c.number = (float)((double)c.number * wf_curve_at(e->curve, s->first + call, s->of));
    if (c.number == 0) return (wf_cell){ 0, 0, 0 };
    if (e->mask != NULL) c.mask = 1 + slot->adapter;
    return c;
}

/* Distinct rows while they are collected. */
typedef struct row_set {
    wf_row   *row;
    uint64_t *hash;
    size_t    count, cap;
    wf_cell  *cells;
    size_t    used, room;
} row_set;

/* Make room for n elements of `size` bytes behind the pointer at `at`, which has room for *cap. */
static weft_status grow(void *at, size_t *cap, size_t n, size_t size, const weft_allocator *alloc,
                        weft_error *err)
{
    size_t room = WF_MAX(WF_MAX((size_t)4, n), *cap <= SIZE_MAX / 2 ? 2 * *cap : n);
    void  *old, *more;

    memcpy(&old, at, sizeof old);
    if (n <= *cap && old != NULL) return WEFT_OK;
    if ((more = wf_zalloc(alloc, room, size)) == NULL)
        return wf_nomem(err, room * size, "a plan's rows");
    if (*cap > 0) memcpy(more, old, *cap * size);
    wf_free(alloc, old);
    memcpy(at, &more, sizeof more);
    *cap = room;
    return WEFT_OK;
}

/* The row of a call: an earlier one, or the next. */
static weft_status add_row(row_set *set, const weft_plan *p, const wf_sheet *s, int32_t call,
                           int32_t *index, weft_error *err)
{
    int32_t branches = branches_of(p, s, call), all = branches + s->base;
    size_t  width, need, cap = set->cap;

    if (!wf_mul((size_t)all, s->slots, &width) || !wf_add(set->used, width, &need))
        return wf_nomem(err, SIZE_MAX, "a plan's rows");
    WF_TRY(grow(&set->cells, &set->room, need, sizeof *set->cells, &p->alloc, err));
    WF_TRY(grow(&set->row, &cap, set->count + 1, sizeof *set->row, &p->alloc, err));
    WF_TRY(grow(&set->hash, &set->cap, set->count + 1, sizeof *set->hash, &p->alloc, err));

    wf_cell *cells = set->cells + set->used;
    for (int32_t b = 0; b < all; b++)
        for (size_t k = 0; k < s->slots; k++)
            cells[(size_t)b * s->slots + k] =
                b < branches ? cell_of(p, s, call, b, &s->slot[k]) : (wf_cell){ 0, 0, 0 };
    set->hash[set->count] = wf_hash(0, cells, width * sizeof *cells);
    for (size_t r = 0; r < set->count; r++)
        if (set->hash[r] == set->hash[set->count] && set->row[r].branches == all &&
            memcmp(set->cells + set->row[r].at, cells, width * sizeof *cells) == 0) {
            *index = (int32_t)r;
            return WEFT_OK;
        }
    set->row[set->count] = (wf_row){ set->used, all };
    set->used = need;
    *index = (int32_t)set->count++;
    return WEFT_OK;
}

/* Keep the slots that some row or branch uses, in the slot list and in the rows. */
static weft_status keep_live(wf_sheet *s, const weft_plan *p, const row_set *set, weft_error *err)
{
    size_t  lines = s->slots > 0 ? set->used / s->slots : 0, all = s->slots, live = 0, at = 0;
    size_t *kept = wf_zalloc(&p->alloc, all, sizeof *kept);

    if (kept == NULL) return wf_nomem(err, all * sizeof *kept, "a plan's slots");
    for (size_t k = 0; k < all; k++) {
        bool used = s->method == NULL;
        for (size_t i = 0; i < lines && !used; i++) used = set->cells[i * all + k].number != 0;
        if (used) kept[live++] = k;
    }
    s->cells = wf_zalloc(&p->alloc, lines * live, sizeof *s->cells);
    s->row = wf_zalloc(&p->alloc, set->count, sizeof *s->row);
    if (s->cells == NULL || s->row == NULL) {
        wf_free(&p->alloc, kept);
        return wf_nomem(err, lines * live * sizeof *s->cells, "a plan's rows");
    }
    for (size_t i = 0; i < lines; i++)
        for (size_t k = 0; k < live; k++) s->cells[i * live + k] = set->cells[i * all + kept[k]];
    for (size_t r = 0; r < set->count; r++) {
        s->row[r] = (wf_row){ at, set->row[r].branches };
        at += live * (size_t)set->row[r].branches;
    }
    for (size_t k = 0; k < live; k++) s->slot[k] = s->slot[kept[k]];
    s->slots = live;
    s->rows = set->count;
    wf_free(&p->alloc, kept);
    return WEFT_OK;
}

static weft_status make_rows(wf_sheet *s, const weft_plan *p, weft_error *err)
{
    row_set     set = { 0 };
    weft_status st = WEFT_OK;

    s->row_of_call = wf_zalloc(&p->alloc, (size_t)s->calls, sizeof *s->row_of_call);
    if (s->row_of_call == NULL)
        return wf_nomem(err, (size_t)s->calls * sizeof *s->row_of_call, "a plan's calls");
    for (int32_t n = 0; n < s->calls && st == WEFT_OK; n++)
        st = add_row(&set, p, s, n, &s->row_of_call[n], err);
    if (st == WEFT_OK) st = keep_live(s, p, &set, err);
    wf_free(&p->alloc, set.cells);
    wf_free(&p->alloc, set.row);
    wf_free(&p->alloc, set.hash);
    return st;
}

int32_t wf_sheet_branches(const wf_sheet *s)
{
    int32_t most = 0;
    for (size_t r = 0; r < s->rows; r++) most = WF_MAX(most, s->row[r].branches);
    return most - s->base;
}

/* ---- patches --------------------------------------------------------------------------------- */

static weft_status make_patches(wf_sheet *s, const wf_table *t, const weft_plan *p, weft_error *err)
{
    size_t n = 0;

    for (size_t k = 0; k < s->slots; k++) n += k == 0 || s->slot[k].layer != s->slot[k - 1].layer;
    s->patched = wf_zalloc(&p->alloc, n, sizeof *s->patched);
    if (s->patched == NULL) return wf_nomem(err, n * sizeof *s->patched, "a plan's layers");
    for (size_t k = 0, end; k < s->slots; k = end) {
        wf_patch *x;
        for (end = k + 1; end < s->slots && s->slot[end].layer == s->slot[k].layer; end++) {}
        WF_TRY(wf_patch_find_or_make(&x, p, t, s, k, (int32_t)(end - k), err));
        s->patched[s->patched_count++] = (wf_patched){ x->layer, (int32_t)k, x };
    }
    return WEFT_OK;
}

/* ---- one sheet ------------------------------------------------------------------------------- */

static void free_sheet(wf_sheet *s, const weft_allocator *alloc)
{
    for (size_t i = 0; i < s->patched_count; i++) wf_patch_drop(s->patched[i].patch);
    wf_free(alloc, s->patched);
    wf_free(alloc, s->slot);
    wf_free(alloc, s->row);
    wf_free(alloc, s->cells);
    wf_free(alloc, s->row_of_call);
    wf_blob_drop(s->options);
    wf_blob_drop(s->learnt);
    wf_blob_drop(s->state);
    *s = (wf_sheet){ 0 };
}

static weft_status make_sheet(wf_sheet *s, wf_table *t, const weft_plan *p, weft_error *err)
{
    if (s->method != NULL && s->method->begin != NULL) WF_TRY(s->method->begin(p, t, s, err));
    WF_TRY(list_slots(s, p, err));
    WF_TRY(make_rows(s, p, err));
    return make_patches(s, t, p, err);
}

/* ---- phases ---------------------------------------------------------------------------------- */

/* First call of a phase: the first n with n / calls >= at. */
static int32_t first_call(const wf_phase *phase, int32_t calls)
{
    int32_t n = 0;

    if (phase->at < 0) return phase->first;
    while (n < calls && (double)n / calls < phase->at) n++;
    return n;
}

/* What an earlier plan learnt of the weights under this method, else a phase before this one. */
static wf_blob *learnt_before(const wf_phase *phase, const wf_table *t)
{
    wf_blob *learnt = phase->learnt;

    for (size_t i = t->phases; i-- > 0 && learnt == NULL; )
        if (t->phase[i].method == phase->method) learnt = t->phase[i].learnt;
    return wf_blob_ref(learnt);
}

/* A phase that begins at the same call as the next, or past the last call, has no sheet. */
static weft_status make_phases(wf_table *t, const weft_plan *p, weft_error *err)
{
    t->phase = wf_zalloc(&p->alloc, p->phases, sizeof *t->phase);
    if (t->phase == NULL) return wf_nomem(err, p->phases * sizeof *t->phase, "a plan's phases");
    for (size_t i = 0; i < p->phases; i++) {
        const wf_phase *phase = &p->phase[i];
        int32_t first = first_call(phase, t->calls);
        int32_t end = i + 1 < p->phases ? first_call(&p->phase[i + 1], t->calls) : t->calls;
        if (i + 1 < p->phases && end < first)
            return wf_fail(err, WEFT_E_ARG,
                           "phase %zu begins at call %d of %d, before phase %zu at %d", i + 1,
                           (int)end, (int)t->calls, i, (int)first);
        end = WF_MIN(end, t->calls);
        if (first >= end) {
            wf_table_warn(p, t, "phase %zu (%s) has no call: it begins at call %d of %d", i,
                          phase->method->title, (int)first, (int)t->calls);
            continue;
        }
        wf_sheet s = { .first = first, .calls = end - first, .of = t->calls, .method = phase->method,
                       .options = wf_blob_ref(phase->options), .base = phase->method->needs_base,
                       .learnt = learnt_before(phase, t) };
        weft_status st = make_sheet(&s, t, p, err);
        if (st != WEFT_OK) {
            free_sheet(&s, &p->alloc);
            return st;
        }
        t->phase[t->phases++] = s;
    }
    return WEFT_OK;
}

/* Text encoders are computed on the side path, where every difference is taken on the base. */
static void warn_of_text(const weft_plan *p, wf_table *t)
{
    const wf_layer *layers = wf_model_layers(p->model, &(size_t){ 0 });
    int32_t         n = 0;

    for (size_t i = 0; i < t->text.patched_count; i++) {
        const wf_patch *x = t->text.patched[i].patch;
        n += wf_mixed_matters(p, &layers[x->layer], x->part, x->parts);
    }
    if (n > 0)
        wf_table_warn(p, t,
                      "%d %s of the text encoders, where adapters depend on the weights: summed as "
                      "under delta, %s is only for the UNet",
                      (int)n, n == 1 ? "layer" : "layers", wf_mixed_name(p->mixed));
}

/* ---- the whole ------------------------------------------------------------------------------- */

void wf_table_free(wf_table *t, const weft_allocator *alloc)
{
    for (size_t i = 0; i < t->phases; i++) free_sheet(&t->phase[i], alloc);
    wf_free(alloc, t->phase);
    free_sheet(&t->text, alloc);
    if (t->warnings.alloc != NULL) wf_text_free(&t->warnings);
    *t = (wf_table){ 0 };
}

weft_status wf_table_make(wf_table *t, const weft_plan *p, int32_t calls, weft_error *err)
{
    weft_status st;

    *t = (wf_table){ .calls = calls };
    wf_text_init(&t->warnings, &p->alloc);
    t->text.calls = 1;
    if ((st = make_phases(t, p, err)) == WEFT_OK) st = make_sheet(&t->text, t, p, err);
    if (st == WEFT_OK) {
        warn_of_text(p, t);
        if (t->warnings.failed) st = wf_nomem(err, 0, "a plan's warnings");
    }
    if (st != WEFT_OK) wf_table_free(t, &p->alloc);
    return st;
}
