/* compile.c - from adapters and a method to the table: slots, rows, stacks, and the path of each layer.
 *
 * A slot is a (layer, adapter) pair that can ever matter. We ask the method for every call, keep each
 * distinct row once (merge has 1, switch one for each adapter, K-LoRA at most one for each call), and
 * then drop the slots that are zero in all of them. So an adapter of weight 0 is not there at all, and
 * the layers it would have touched compute what the base computes, bit for bit.
 *
 * A slot of a text encoder stays while its text weight is not zero, also where the method keeps it
 * silent: a caller may still encode a prompt with that adapter alone. */
#include "plan/method.h"

size_t wf_layer_columns(const wf_layer *layer)
{
    return (size_t)layer->kernel * (size_t)layer->kernel * (size_t)layer->in;
}

size_t wf_stack_floats(const wf_layer *layer, const wf_stack *stack)
{
    return (size_t)stack->rank * (wf_layer_columns(layer) + (size_t)layer->out);
}

/* ---- slots --------------------------------------------------------------------------------------------- */

static bool takes_part(const weft_plan *p, const wf_layer *layer, int32_t adapter)
{
    const wf_entry *e = &p->entry[adapter];
    return e->bound->module[layer->id] >= 0 && (layer->component == 0 ? e->weight : e->text_weight) != 0;
}

static weft_status list_slots(wf_table *t, const weft_plan *p, weft_error *err)
{
    size_t          layers_count, n = 0;
    const wf_layer *layers = wf_model_layers(p->model, &layers_count);

    for (size_t l = 0; l < layers_count; l++)
        for (int32_t a = 0; a < p->adapters; a++) n += takes_part(p, &layers[l], a);
    t->slot = wf_zalloc(&p->alloc, n, sizeof *t->slot);
    if (t->slot == NULL) return wf_nomem(err, n * sizeof *t->slot, "a plan's slots");
    for (size_t l = 0; l < layers_count; l++)
        for (int32_t a = 0; a < p->adapters; a++)
            if (takes_part(p, &layers[l], a)) t->slot[t->slots++] = (wf_slot){ (int32_t)l, a };
    return WEFT_OK;
}

/* ---- rows ---------------------------------------------------------------------------------------------- */

float wf_plan_text_cell(const weft_plan *p, int32_t adapter)
{
    int32_t who = p->text != WEFT_TEXT_METHOD ? p->text : p->method->text;
    bool    acts = who == WEFT_TEXT_ALL || (who == WEFT_TEXT_FIRST && adapter == 0);
    return acts ? p->entry[adapter].text_weight : 0;
}

static void fill_row(float *row, const wf_table *t, const weft_plan *p, int32_t call)
{
    const wf_layer *layers = wf_model_layers(p->model, &(size_t){ 0 });

    for (int32_t b = 0; b < t->branches; b++)
        for (size_t s = 0; s < t->slots; s++) {
            int32_t layer = t->slot[s].layer, adapter = t->slot[s].adapter;
            float   c;
            if (layers[layer].component != 0) {
                c = wf_plan_text_cell(p, adapter);
            } else {
                c = p->method->choose(p, t, call, b, layer, adapter);
                if (c != 0) c *= p->entry[adapter].weight; /* never -0: rows are compared as bytes */
            }
            row[(size_t)b * t->slots + s] = c;
        }
}

static uint64_t hash_row(const float *row, size_t width)
{
    uint64_t h = 14695981039346656037u; /* FNV-1a over words: cheap, and equality is checked after it */

    for (size_t i = 0; i < width; i++) {
        uint32_t bits;
        memcpy(&bits, &row[i], sizeof bits);
        h = (h ^ bits) * 1099511628211u;
    }
    return h;
}

/* Distinct rows while they are collected. */
typedef struct row_set {
    float    *cells; /* [room][width] */
    uint64_t *hash;  /* [room]        */
    size_t    count;
    size_t    room;
    size_t    width;
} row_set;

static weft_status grow_rows(row_set *set, const weft_allocator *alloc, weft_error *err)
{
    size_t    room = set->room == 0 ? 4 : 2 * set->room, floats;
    float    *cells = NULL;
    uint64_t *hash = NULL;

    if (set->count < set->room) return WEFT_OK;
    if (wf_mul(room, set->width, &floats)) {
        cells = wf_zalloc(alloc, floats, sizeof *cells);
        hash = wf_zalloc(alloc, room, sizeof *hash);
    }
    if (cells == NULL || hash == NULL) {
        wf_free(alloc, cells);
        wf_free(alloc, hash);
        return wf_nomem(err, room * set->width * sizeof *cells, "a plan's rows");
    }
    if (set->count > 0) {
        memcpy(cells, set->cells, set->count * set->width * sizeof *cells);
        memcpy(hash, set->hash, set->count * sizeof *hash);
    }
    wf_free(alloc, set->cells);
    wf_free(alloc, set->hash);
    set->cells = cells;
    set->hash = hash;
    set->room = room;
    return WEFT_OK;
}

/* The row just written at cells[count] is an earlier one, or the next. */
static size_t settle_row(row_set *set)
{
    float *row = set->cells + set->count * set->width;

    set->hash[set->count] = hash_row(row, set->width);
    for (size_t r = 0; r < set->count; r++)
        if (set->hash[r] == set->hash[set->count] &&
            memcmp(set->cells + r * set->width, row, set->width * sizeof *row) == 0)
            return r;
    return set->count++;
}

/* Keep the slots that some row or branch uses, in the slot list and in the rows. */
static weft_status keep_live(wf_table *t, const weft_plan *p, const row_set *set, weft_error *err)
{
    const wf_layer *layers = wf_model_layers(p->model, &(size_t){ 0 });
    size_t          lines = set->count * (size_t)t->branches, all = t->slots, live = 0;
    size_t         *kept = wf_zalloc(&p->alloc, all, sizeof *kept);

    if (kept == NULL) return wf_nomem(err, all * sizeof *kept, "a plan's slots");
    for (size_t s = 0; s < all; s++) {
        bool used = layers[t->slot[s].layer].component != 0;
        for (size_t i = 0; i < lines && !used; i++) used = set->cells[i * all + s] != 0;
        if (used) kept[live++] = s;
    }
    t->cells = wf_zalloc(&p->alloc, lines * live, sizeof *t->cells);
    if (t->cells == NULL) {
        wf_free(&p->alloc, kept);
        return wf_nomem(err, lines * live * sizeof *t->cells, "a plan's rows");
    }
    for (size_t i = 0; i < lines; i++)
        for (size_t s = 0; s < live; s++) t->cells[i * live + s] = set->cells[i * all + kept[s]];
    for (size_t s = 0; s < live; s++) t->slot[s] = t->slot[kept[s]];
    t->slots = live;
    t->rows = set->count;
    wf_free(&p->alloc, kept);
    return WEFT_OK;
}

static weft_status make_rows(wf_table *t, const weft_plan *p, weft_error *err)
{
    row_set     set = { NULL, NULL, 0, 0, t->slots * (size_t)t->branches };
    weft_status st = WEFT_OK;

    t->row_of_call = wf_zalloc(&p->alloc, (size_t)t->calls, sizeof *t->row_of_call);
    if (t->row_of_call == NULL) return wf_nomem(err, (size_t)t->calls * sizeof *t->row_of_call, "a plan's calls");
    for (int32_t n = 0; n < t->calls && st == WEFT_OK; n++) {
        if ((st = grow_rows(&set, &p->alloc, err)) != WEFT_OK) break;
        fill_row(set.cells + set.count * set.width, t, p, n);
        t->row_of_call[n] = (int32_t)settle_row(&set);
    }
    if (st == WEFT_OK) st = keep_live(t, p, &set, err);
    wf_free(&p->alloc, set.cells);
    wf_free(&p->alloc, set.hash);
    return st;
}

/* ---- stacks -------------------------------------------------------------------------------------------- */

wf_weave *wf_weave_ref(wf_weave *w)
{
    wf_ref_take(&w->refs);
    return w;
}

void wf_weave_drop(wf_weave *w)
{
    if (w == NULL || !wf_ref_drop(&w->refs)) return;
    weft_allocator alloc = w->alloc;
    wf_free(&alloc, w->memory);
    wf_free(&alloc, w);
}

/* A stack made before with exactly these parts. Bindings are compared by address: whoever has the cache
 * has the bindings too, so none of them can have been freed and its address used again. */
static wf_weave *find_weave(const weft_plan *p, const wf_slot *slot, int32_t parts, bool bare)
{
    size_t low = 0, high = p->cached;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (p->cache[mid]->layer < slot->layer) low = mid + 1;
        else high = mid;
    }
    if (low == p->cached || p->cache[low]->layer != slot->layer) return NULL;
    wf_weave *w = p->cache[low];
    if (w->bare != bare || w->stack.parts != parts) return NULL;
    for (int32_t i = 0; i < parts; i++)
        if (w->from[i] != p->entry[slot[i].adapter].bound) return NULL;
    return w;
}

/* One block holds the lists and the factors of a layer:
 *   from (parts)   part_rank (parts)   part_scale (parts)   down (R, K)   up (R, out) */
static weft_status make_weave(wf_weave **out, const weft_plan *p, const wf_layer *layer, const wf_slot *slot,
                              int32_t parts, bool bare, weft_error *err)
{
    size_t    columns = wf_layer_columns(layer), n = (size_t)parts, rank = 0, floats, size = 0;
    size_t    lists = (n * (sizeof(wf_bound *) + sizeof(int32_t) + sizeof(float)) + 63) / 64 * 64;
    wf_weave *w;
    int32_t  *part_rank;
    float    *part_scale, *down, *up;
    bool      fits;

    for (int32_t i = 0; i < parts; i++) rank += (size_t)wf_module_pair_rank(wf_plan_module(p, slot[i].adapter, layer->id));
    fits = rank <= INT32_MAX && wf_mul(rank, columns + (size_t)layer->out, &floats) &&
           wf_mul(floats, sizeof(float), &size) && wf_add(size, lists, &size);
    w = fits ? wf_zalloc(&p->alloc, 1, sizeof *w) : NULL;
    if (w == NULL) return wf_nomem(err, fits ? sizeof *w : SIZE_MAX, "a layer's stacked factors");
    w->memory = wf_alloc(&p->alloc, size);
    if (w->memory == NULL) {
        wf_free(&p->alloc, w);
        return wf_nomem(err, size, "a layer's stacked factors");
    }
    wf_ref_init(&w->refs);
    w->alloc = p->alloc;
    w->layer = layer->id;
    w->bare = bare;
    w->from = w->memory;
    part_rank = (int32_t *)(void *)(w->from + n);
    part_scale = (float *)(void *)(part_rank + n);
    down = (float *)(void *)((char *)w->memory + lists);
    up = down + rank * columns;
    w->stack = (wf_stack){ parts, (int32_t)rank, part_rank, part_scale, down, up };
    for (int32_t i = 0; i < parts; i++) {
        const wf_module *m = wf_plan_module(p, slot[i].adapter, layer->id);
        w->from[i] = p->entry[slot[i].adapter].bound;
        part_rank[i] = wf_module_pair_rank(m);
        part_scale[i] = bare ? 1 : m->scale;
        weft_status st = wf_module_pair(m, layer, down, up, &p->alloc, err);
        if (st != WEFT_OK) {
            wf_weave_drop(w);
            return st;
        }
        down += (size_t)part_rank[i] * columns;
        up += (size_t)part_rank[i] * (size_t)layer->out;
    }
    *out = w;
    return WEFT_OK;
}

/* ---- paths --------------------------------------------------------------------------------------------- */

/* Are the layer's coefficients the same in every call? Then they are what the first row says. */
static bool never_changes(const wf_table *t, const wf_touched *at)
{
    size_t width = t->slots * (size_t)t->branches, n = (size_t)at->stack.parts;

    for (size_t r = 1; r < t->rows; r++)
        if (memcmp(t->cells + r * width + at->slot, t->cells + at->slot, n * sizeof(float)) != 0) return false;
    return true;
}

/* A merged copy costs out * K floats once; the side path costs R * (K + out) products for every row of the
 * activations. Below an eighth of the base product we keep the side path: it needs no copy, and thin
 * products of that size hide beside the big one. */
static bool merging_pays(const wf_layer *layer, const wf_stack *stack)
{
    size_t columns = wf_layer_columns(layer);
    return wf_stack_floats(layer, stack) > columns * (size_t)layer->out / 8;
}

static bool choose_merged(const wf_table *t, const weft_plan *p, const wf_layer *layer, const wf_touched *at)
{
    if (p->path == WEFT_PATH_SIDE || t->branches != 1 || layer->component != 0) return false;
    if (p->path == WEFT_PATH_AUTO && !merging_pays(layer, &at->stack)) return false;
    return never_changes(t, at);
}

static weft_status make_touched(wf_table *t, const weft_plan *p, weft_error *err)
{
    const wf_layer *layers = wf_model_layers(p->model, &(size_t){ 0 });
    size_t          n = 0;

    for (size_t s = 0; s < t->slots; s++) n += s == 0 || t->slot[s].layer != t->slot[s - 1].layer;
    t->touched = wf_zalloc(&p->alloc, n, sizeof *t->touched);
    if (t->touched == NULL) return wf_nomem(err, n * sizeof *t->touched, "a plan's layers");
    t->weave = wf_zalloc(&p->alloc, n, sizeof *t->weave);
    if (t->weave == NULL) return wf_nomem(err, n * sizeof *t->weave, "a plan's layers");

    for (size_t s = 0, end; s < t->slots; s = end) {
        const wf_layer *layer = &layers[t->slot[s].layer];
        wf_weave       *w;
        weft_status     st;

        for (end = s + 1; end < t->slots && t->slot[end].layer == layer->id; end++) {}
        bool bare = t->bare && layer->component == 0; /* methods speak of the UNet */
        w = find_weave(p, &t->slot[s], (int32_t)(end - s), bare);
        if (w != NULL) wf_weave_ref(w);
        else if ((st = make_weave(&w, p, layer, &t->slot[s], (int32_t)(end - s), bare, err)) != WEFT_OK) return st;
        wf_touched *at = &t->touched[t->touched_count];
        t->weave[t->touched_count++] = w;
        at->layer = layer->id;
        at->slot = (int32_t)s;
        at->stack = w->stack;
        at->merged = choose_merged(t, p, layer, at);
    }
    return WEFT_OK;
}

/* ---- the whole ------------------------------------------------------------------------------------------ */

void wf_table_free(wf_table *t, const weft_allocator *alloc)
{
    for (size_t i = 0; i < t->touched_count; i++) wf_weave_drop(t->weave[i]);
    wf_free(alloc, t->weave);
    wf_free(alloc, t->touched);
    wf_free(alloc, t->slot);
    wf_free(alloc, t->cells);
    wf_free(alloc, t->row_of_call);
    wf_blob_drop(t->memo);
    wf_blob_drop(t->found);
    if (t->warnings.alloc != NULL) wf_text_free(&t->warnings);
    memset(t, 0, sizeof *t);
}

weft_status wf_table_make(wf_table *t, const weft_plan *p, int32_t calls, weft_error *err)
{
    weft_status st = WEFT_OK;

    memset(t, 0, sizeof *t);
    wf_text_init(&t->warnings, &p->alloc);
    t->calls = calls;
    t->branches = 1;
    if (p->method->begin != NULL && (st = p->method->begin(p, t, err)) != WEFT_OK) goto failed;
    if ((st = list_slots(t, p, err)) != WEFT_OK) goto failed;
    if ((st = make_rows(t, p, err)) != WEFT_OK) goto failed;
    if ((st = make_touched(t, p, err)) != WEFT_OK) goto failed;
    if (t->warnings.failed) {
        st = wf_nomem(err, 0, "a plan's warnings");
        goto failed;
    }
    return WEFT_OK;
failed:
    wf_table_free(t, &p->alloc);
    return st;
}
