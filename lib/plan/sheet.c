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
    s->slot = n <= INT32_MAX ? wf_zalloc(&p->alloc, n, sizeof *s->slot) : NULL;
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
    c.number = (float)((double)c.number * wf_plan_cell_weight(p, slot->adapter, slot->layer) *
                       wf_balance_at(s->balanced, slot->adapter) *
                       wf_curve_at(e->curve, s->first + call, s->of));
    if (c.number == 0) return (wf_cell){ 0, 0, 0 };
    if (e->mask != NULL && !s->method->masks_predictions) c.mask = 1 + slot->adapter;
    return c;
}

/* Rows while they are collected: of each only the cells that are not zero, by branch and slot. So a
 * method whose adapters act in a branch each (composite) costs what its slots are, and not their
 * product with the branches. */
typedef struct entry { int32_t branch; uint32_t slot; wf_cell cell; } entry;
typedef struct sketch { size_t first, count; int32_t branches; uint64_t hash; } sketch;

typedef struct row_set {
    sketch *row;
    size_t  count, cap;
    entry  *entry;
    size_t  used, room;
    size_t *by_adapter; /* [slots], of which adapter a has start[a] to start[a + 1] - 1; or NULL */
    size_t *start;      /* [adapters + 1] */
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

static void free_rows(row_set *set, const weft_allocator *alloc)
{
    wf_free(alloc, set->row);
    wf_free(alloc, set->entry);
    wf_free(alloc, set->by_adapter);
    wf_free(alloc, set->start);
}

/* The slots of each adapter, for methods that name the one that acts. */
static weft_status sort_slots(row_set *set, const weft_plan *p, const wf_sheet *s, weft_error *err)
{
    size_t adapters = (size_t)p->adapters;

    if (s->method == NULL || s->method->alone == NULL) return WEFT_OK;
    set->by_adapter = wf_zalloc(&p->alloc, s->slots, sizeof *set->by_adapter);
    set->start = wf_zalloc(&p->alloc, adapters + 2, sizeof *set->start);
    if (set->by_adapter == NULL || set->start == NULL)
        return wf_nomem(err, s->slots * sizeof *set->by_adapter, "a plan's slots");
    for (size_t k = 0; k < s->slots; k++) set->start[s->slot[k].adapter + 2]++;
    for (size_t i = 2; i <= adapters; i++) set->start[i] += set->start[i - 1];
    for (size_t k = 0; k < s->slots; k++)
        set->by_adapter[set->start[s->slot[k].adapter + 1]++] = k;
    return WEFT_OK;
}

/* The cells of a branch that are not zero. */
static weft_status add_branch(row_set *set, const weft_plan *p, const wf_sheet *s, int32_t call,
                              int32_t branch, weft_error *err)
{
    size_t from = 0, end = s->slots, need;
    bool   listed = set->by_adapter != NULL;

    if (listed) {
        int32_t adapter = s->method->alone(p, s, call, branch);
        from = set->start[adapter];
        end = set->start[adapter + 1];
    }
    if (!wf_add(set->used, end - from, &need)) return wf_nomem(err, SIZE_MAX, "a plan's rows");
    WF_TRY(grow(&set->entry, &set->room, need, sizeof *set->entry, &p->alloc, err));
    for (size_t i = from; i < end; i++) {
        size_t  k = listed ? set->by_adapter[i] : i;
        wf_cell c = cell_of(p, s, call, branch, &s->slot[k]);
        if (!isfinite(c.number))
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "adapter %s: its weight and what multiplies it are more than a float "
                           "holds",
                           wf_plan_adapter_name(p, s->slot[k].adapter));
        if (c.number != 0) set->entry[set->used++] = (entry){ branch, (uint32_t)k, c };
    }
    return WEFT_OK;
}

/* The row of a call: an earlier one, or the next. */
static weft_status add_row(row_set *set, const weft_plan *p, const wf_sheet *s, int32_t call,
                           int32_t *index, weft_error *err)
{
    int32_t branches = branches_of(p, s, call);
    sketch  row = { .first = set->used, .branches = branches + s->base };

    WF_TRY(grow(&set->row, &set->cap, set->count + 1, sizeof *set->row, &p->alloc, err));
    for (int32_t b = 0; b < branches && s->slots > 0; b++)
        WF_TRY(add_branch(set, p, s, call, b, err));
    row.count = set->used - row.first;
    if (row.count > 0)
        row.hash = wf_hash(0, set->entry + row.first, row.count * sizeof *set->entry);
    for (size_t r = 0; r < set->count; r++) {
        const sketch *old = &set->row[r];
        if (old->hash != row.hash || old->branches != row.branches || old->count != row.count ||
            (row.count > 0 && memcmp(set->entry + old->first, set->entry + row.first,
                                     row.count * sizeof *set->entry) != 0))
            continue;
        set->used = row.first;
        *index = (int32_t)r;
        return WEFT_OK;
    }
    set->row[set->count] = row;
    *index = (int32_t)set->count++;
    return WEFT_OK;
}

/* Keep the slots that some row or branch uses, in the slot list and in the rows. */
static weft_status keep_live(wf_sheet *s, const weft_plan *p, row_set *set, weft_error *err)
{
    size_t    live = 0;
    uint32_t *place = wf_zalloc(&p->alloc, s->slots, sizeof *place); /* 1 + the new index */

    if (place == NULL) return wf_nomem(err, s->slots * sizeof *place, "a plan's slots");
    for (size_t i = 0; i < set->used; i++) place[set->entry[i].slot] = 1;
    for (size_t k = 0; k < s->slots; k++) {
        if (place[k] == 0 && s->method != NULL) continue;
        s->slot[live++] = s->slot[k];
        place[k] = (uint32_t)live;
    }
    for (size_t i = 0; i < set->used; i++) set->entry[i].slot = place[set->entry[i].slot] - 1;
    s->slots = live;
    wf_free(&p->alloc, place);
    return WEFT_OK;
}

/* Which slots are of one layer: the patches, still to be made. */
static weft_status list_patches(wf_sheet *s, const weft_plan *p, weft_error *err)
{
    size_t n = 0;

    for (size_t k = 0; k < s->slots; k++) n += k == 0 || s->slot[k].layer != s->slot[k - 1].layer;
    s->patched = wf_zalloc(&p->alloc, n, sizeof *s->patched);
    if (s->patched == NULL) return wf_nomem(err, n * sizeof *s->patched, "a plan's layers");
    for (size_t k = 0; k < s->slots; k++)
        if (k == 0 || s->slot[k].layer != s->slot[k - 1].layer)
            s->patched[s->patched_count++] = (wf_patched){ s->slot[k].layer, (int32_t)k, NULL, 0 };
    return WEFT_OK;
}

static size_t parts_of(const wf_sheet *s, size_t patch)
{
    size_t end = patch + 1 < s->patched_count ? (size_t)s->patched[patch + 1].slot : s->slots;
    return end - (size_t)s->patched[patch].slot;
}

/* ---- lines: the cells of a layer in a branch; layers and branches share those that are equal ---- */

typedef struct line { uint64_t hash; size_t parts, at, first, count; uint32_t slot; } line;

typedef struct line_set {
    line   *line;
    size_t  count, cap;
    size_t *table; /* 1 + an index into line */
    size_t  mask;
    size_t  used, room; /* cells */
} line_set;

static uint64_t hash_line(const line *x, const entry *e)
{
    uint64_t h = wf_hash(0, &x->parts, sizeof x->parts);
    for (size_t i = 0; i < x->count; i++) {
        entry own = { 0, e[x->first + i].slot - x->slot, e[x->first + i].cell };
        h = wf_hash(h, &own, sizeof own);
    }
    return h;
}

static bool same_line(const line *a, const line *b, const entry *e)
{
    if (a->hash != b->hash || a->parts != b->parts || a->count != b->count) return false;
    for (size_t i = 0; i < a->count; i++) {
        const entry *x = &e[a->first + i], *y = &e[b->first + i];
        if (x->slot - a->slot != y->slot - b->slot || memcmp(&x->cell, &y->cell, sizeof x->cell) != 0)
            return false;
    }
    return true;
}

/* Where the line's cells are: those of an equal one, or new ones. */
static weft_status place_line(line_set *set, line x, const entry *e, wf_sheet *s,
                              const weft_plan *p, size_t *at, weft_error *err)
{
    size_t i;

    x.hash = hash_line(&x, e);
    for (i = (size_t)x.hash & set->mask; set->table[i] != 0; i = (i + 1) & set->mask)
        if (same_line(&set->line[set->table[i] - 1], &x, e)) {
            *at = set->line[set->table[i] - 1].at;
            return WEFT_OK;
        }
    WF_TRY(grow(&set->line, &set->cap, set->count + 1, sizeof *set->line, &p->alloc, err));
    WF_TRY(grow(&s->cells, &set->room, set->used + x.parts, sizeof *s->cells, &p->alloc, err));
    *at = x.at = set->used;
    set->used += x.parts;
    for (size_t k = 0; k < x.count; k++)
        s->cells[x.at + e[x.first + k].slot - x.slot] = e[x.first + k].cell;
    set->line[set->count] = x;
    set->table[i] = ++set->count;
    return WEFT_OK;
}

/* A row of one branch lies in one piece, as readers of such a row want it. */
static weft_status place_row(line_set *set, const entry *e, const sketch *row, wf_sheet *s,
                             const weft_plan *p, size_t *lines, weft_error *err)
{
    WF_TRY(grow(&s->cells, &set->room, set->used + s->slots, sizeof *s->cells, &p->alloc, err));
    for (size_t i = row->first; i < row->first + row->count; i++)
        s->cells[set->used + e[i].slot] = e[i].cell;
    for (size_t k = 0; k < s->patched_count; k++) lines[k] = set->used + (size_t)s->patched[k].slot;
    set->used += s->slots;
    return WEFT_OK;
}

static weft_status place_branches(line_set *set, const entry *e, const sketch *row, wf_sheet *s,
                                  const weft_plan *p, size_t *lines, weft_error *err)
{
    size_t at = row->first, end = row->first + row->count;

    for (int32_t b = 0; b < row->branches; b++)
        for (size_t k = 0; k < s->patched_count; k++) {
            line   x = { .parts = parts_of(s, k), .slot = (uint32_t)s->patched[k].slot, .first = at };
            while (at < end && e[at].branch == b && e[at].slot < x.slot + x.parts) at++;
            x.count = at - x.first;
            WF_TRY(place_line(set, x, e, s, p, lines++, err));
        }
    return WEFT_OK;
}

/* A table that stays half empty, for every line that there may be. */
static weft_status make_table(line_set *set, size_t lines, const weft_plan *p, weft_error *err)
{
    size_t size = 4;

    while (size / 2 < lines && size <= SIZE_MAX / 4) size *= 2;
    set->table = wf_zalloc(&p->alloc, size, sizeof *set->table);
    set->mask = size - 1;
    return set->table != NULL ? WEFT_OK : wf_nomem(err, size * sizeof *set->table, "a plan's rows");
}

static weft_status store_rows(wf_sheet *s, const weft_plan *p, const row_set *rows, weft_error *err)
{
    line_set    set = { .count = 0 };
    size_t      all = 0, shared = 0, at = 0;
    weft_status st;

    for (size_t r = 0; r < rows->count; r++) {
        size_t n = (size_t)rows->row[r].branches * s->patched_count;
        all += n;
        shared += rows->row[r].branches > 1 ? n : 0;
    }
    s->lines = wf_zalloc(&p->alloc, all, sizeof *s->lines);
    s->row = wf_zalloc(&p->alloc, rows->count, sizeof *s->row);
    if (s->lines == NULL || s->row == NULL)
        return wf_nomem(err, all * sizeof *s->lines, "a plan's rows");
    st = make_table(&set, shared, p, err);
    if (st == WEFT_OK) st = grow(&s->cells, &set.room, 1, sizeof *s->cells, &p->alloc, err);
    for (size_t r = 0; r < rows->count && st == WEFT_OK; r++) {
        const sketch *row = &rows->row[r];
        s->row[s->rows++] = (wf_row){ at, row->branches };
        st = (row->branches == 1 ? place_row : place_branches)(&set, rows->entry, row, s, p,
                                                               s->lines + at, err);
        at += (size_t)row->branches * s->patched_count;
    }
    wf_free(&p->alloc, set.line);
    wf_free(&p->alloc, set.table);
    return st;
}

static weft_status make_rows(wf_sheet *s, const weft_plan *p, weft_error *err)
{
    row_set     set = { 0 };
    weft_status st;

    s->row_of_call = wf_zalloc(&p->alloc, (size_t)s->calls, sizeof *s->row_of_call);
    if (s->row_of_call == NULL)
        return wf_nomem(err, (size_t)s->calls * sizeof *s->row_of_call, "a plan's calls");
    st = sort_slots(&set, p, s, err);
    for (int32_t n = 0; n < s->calls && st == WEFT_OK; n++)
        st = add_row(&set, p, s, n, &s->row_of_call[n], err);
    if (st == WEFT_OK) st = keep_live(s, p, &set, err);
    if (st == WEFT_OK) st = list_patches(s, p, err);
    if (st == WEFT_OK) st = store_rows(s, p, &set, err);
    free_rows(&set, &p->alloc);
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
    for (size_t i = 0; i < s->patched_count; i++)
        WF_TRY(wf_patch_find_or_make(&s->patched[i].patch, &s->patched[i].reason, p, t, s, i,
                                     (int32_t)parts_of(s, i), err));
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
    wf_free(alloc, s->lines);
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
                       .options = wf_blob_ref(phase->options), .balanced = t->balanced, .base = phase->method->needs_base,
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

/* A method that lets nobody act on the text encoders leaves out what many files have there. */
static void warn_of_left_out(const weft_plan *p, wf_table *t)
{
    const wf_method *m = p->phase[0].method;
    size_t           layers;
    const wf_layer  *l = wf_model_layers(p->model, &layers);

    if (p->text != WEFT_TEXT_METHOD || m->text != WEFT_TEXT_NONE) return;
    for (int32_t a = 0; a < p->adapters; a++) {
        int32_t n = 0;
        for (size_t i = 0; i < layers; i++)
            n += wf_is_text(l[i].component) && wf_plan_cell_weight(p, a, (int32_t)i) != 0 &&
                 wf_plan_module(p, a, (int32_t)i) != NULL;
        if (n > 0)
            wf_table_warn(p, t,
                          "adapter %s: %d %s of the text encoders left out by %s; text policy all "
                          "has them",
                          wf_plan_adapter_name(p, a), (int)n, n == 1 ? "layer" : "layers",
                          m->title);
    }
}

/* ---- the whole ------------------------------------------------------------------------------- */

void wf_table_free(wf_table *t, const weft_allocator *alloc)
{
    for (size_t i = 0; i < t->phases; i++) free_sheet(&t->phase[i], alloc);
    wf_free(alloc, t->phase);
    free_sheet(&t->text, alloc);
    wf_blob_drop(t->balanced);
    if (t->warnings.alloc != NULL) wf_text_free(&t->warnings);
    *t = (wf_table){ 0 };
}

weft_status wf_table_make(wf_table *t, const weft_plan *p, int32_t calls, weft_error *err)
{
    weft_status st;

    *t = (wf_table){ .calls = calls };
    wf_text_init(&t->warnings, &p->alloc);
    t->text.calls = 1;
    if ((st = wf_balance_make(t, p, err)) == WEFT_OK) st = make_phases(t, p, err);
    if (st == WEFT_OK) st = make_sheet(&t->text, t, p, err);
    if (st == WEFT_OK) {
        warn_of_text(p, t);
        warn_of_left_out(p, t);
        if (t->warnings.failed) st = wf_nomem(err, 0, "a plan's warnings");
    }
    if (st != WEFT_OK) wf_table_free(t, &p->alloc);
    return st;
}
