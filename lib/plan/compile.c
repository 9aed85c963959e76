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
    size_t columns = wf_layer_columns(layer), out = (size_t)layer->out, n = (size_t)stack->rank * (columns + out);

    for (int32_t p = 0; stack->other != NULL && p < stack->parts; p++) {
        const wf_other *x = &stack->other[p];
        if (x->w1 != NULL)
            n += (size_t)x->o1 * (size_t)x->i1 + (size_t)x->o2 * (size_t)x->i2 * (columns / (size_t)layer->in);
        n += (x->dense != NULL ? out * columns : 0) + (x->bias != NULL ? out : 0);
    }
    return n;
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

/* Is the user's weight inside the norm of this module? */
static bool weighs_inside(const weft_plan *p, int32_t adapter, int32_t layer)
{
    const wf_module *m = wf_plan_module(p, adapter, layer);
    return p->entry[adapter].peft_dora && m != NULL && m->part[WF_PART_MAGNITUDE] != NULL;
}

static float user_weight(const weft_plan *p, int32_t adapter, int32_t layer)
{
    const wf_layer *layers = wf_model_layers(p->model, &(size_t){ 0 });
    return layers[layer].component == 0 ? p->entry[adapter].weight : p->entry[adapter].text_weight;
}

float wf_plan_cell_weight(const weft_plan *p, int32_t adapter, int32_t layer)
{
    return weighs_inside(p, adapter, layer) ? 1 : user_weight(p, adapter, layer);
}

bool wf_plan_text_acts(const weft_plan *p, int32_t adapter)
{
    int32_t who = p->text != WEFT_TEXT_METHOD ? p->text : p->method->text;
    return who == WEFT_TEXT_ALL || (who == WEFT_TEXT_FIRST && adapter == 0);
}

float wf_plan_text_cell(const weft_plan *p, int32_t adapter, int32_t layer)
{
    return wf_plan_text_acts(p, adapter) ? wf_plan_cell_weight(p, adapter, layer) : 0;
}

static void fill_row(wf_cell *row, const wf_table *t, const weft_plan *p, int32_t call)
{
    const wf_layer *layers = wf_model_layers(p->model, &(size_t){ 0 });

    for (int32_t b = 0; b < t->branches; b++)
        for (size_t s = 0; s < t->slots; s++) {
            int32_t layer = t->slot[s].layer, adapter = t->slot[s].adapter;
            float   c;
            if (layers[layer].component != 0) {
                c = wf_plan_text_cell(p, adapter, layer);
            } else {
                c = p->method->choose(p, t, call, b, layer, adapter);
                if (c != 0) c *= wf_plan_cell_weight(p, adapter, layer); /* never -0: rows are compared as bytes */
            }
            row[(size_t)b * t->slots + s] = (wf_cell){ c, 0, 0 };
        }
}

static uint64_t hash_row(const wf_cell *row, size_t width)
{
    uint64_t h = 14695981039346656037u; /* FNV-1a over words: cheap, and equality is checked after it */

    for (size_t i = 0; i < width; i++) {
        uint32_t bits;
        memcpy(&bits, &row[i].number, sizeof bits);
        h = (h ^ bits) * 1099511628211u;
    }
    return h;
}

/* Distinct rows while they are collected. */
typedef struct row_set {
    wf_cell  *cells; /* [room][width] */
    uint64_t *hash;  /* [room]        */
    size_t    count;
    size_t    room;
    size_t    width;
} row_set;

static weft_status grow_rows(row_set *set, const weft_allocator *alloc, weft_error *err)
{
    size_t    room = set->room == 0 ? 4 : 2 * set->room, floats;
    wf_cell  *cells = NULL;
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
    wf_cell *row = set->cells + set->count * set->width;

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
        for (size_t i = 0; i < lines && !used; i++) used = set->cells[i * all + s].number != 0;
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

/* ---- what the parts are -------------------------------------------------------------------------------------------- */

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
    wf_free(&alloc, w->lists);
    wf_free(&alloc, w);
}

static wf_strand strand_of(const weft_plan *p, const wf_slot *slot, bool bare)
{
    const wf_module *m = wf_plan_module(p, slot->adapter, slot->layer);
    bool             inside = weighs_inside(p, slot->adapter, slot->layer);
    return (wf_strand){ m, bare ? 1 : m->scale, inside ? user_weight(p, slot->adapter, slot->layer) : 1 };
}

/* Weaves made before with exactly these parts. Bindings are compared by address: whoever has the cache
 * has the bindings too, so none of them can have been freed and its address used again. */
static wf_weave *find_weave(const weft_plan *p, const wf_slot *slot, const wf_weave *like)
{
    size_t low = 0, high = p->cached;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (p->cache[mid]->layer < slot->layer) low = mid + 1;
        else high = mid;
    }
    if (low == p->cached || p->cache[low]->layer != slot->layer) return NULL;
    wf_weave *w = p->cache[low];
    if (w->merged != like->merged || w->parts != like->parts) return NULL;
    for (int32_t i = 0; i < w->parts; i++)
        if (w->from[i] != like->from[i] || w->strand[i].module != like->strand[i].module ||
            w->strand[i].scale != like->strand[i].scale || w->strand[i].inside != like->strand[i].inside)
            return NULL;
    return w;
}

/* The lists of a weave: what the parts are, without their factors. */
static weft_status list_parts(wf_weave **out, const weft_plan *p, const wf_layer *layer, const wf_slot *slot,
                              int32_t parts, bool bare, weft_error *err)
{
    size_t    n = (size_t)parts, strands = n * sizeof(wf_strand), size = strands + n * sizeof(wf_bound *);
    wf_weave *w = wf_zalloc(&p->alloc, 1, sizeof *w);

    if (w == NULL) return wf_nomem(err, sizeof *w, "a layer's parts");
    wf_ref_init(&w->refs);
    w->alloc = p->alloc;
    w->lists = wf_alloc(&p->alloc, size);
    if (w->lists == NULL) {
        wf_weave_drop(w);
        return wf_nomem(err, size, "a layer's parts");
    }
    w->layer = layer->id;
    w->parts = parts;
    w->strand = w->lists;
    w->from = (const wf_bound **)(void *)((char *)w->lists + strands);
    for (size_t i = 0; i < n; i++) {
        w->strand[i] = strand_of(p, &slot[i], bare);
        w->from[i] = p->entry[slot[i].adapter].bound;
    }
    *out = w;
    return WEFT_OK;
}

/* ---- stacks: the factors of a layer's parts in one block ------------------------------------------------------- */

/* The block's layout. With no base it only counts: part_rank, part_scale and other, then down (R, K), up (R, out), and
 * for each part that is no pair its matrices. */
typedef struct block {
    char  *base;
    size_t used;
    bool   fits;
} block;

static void *take(block *b, size_t count, size_t size)
{
    size_t at = (b->used + 63) / 64 * 64, bytes;

    b->fits = b->fits && wf_mul(count, size, &bytes) && wf_add(at, bytes, &b->used) && b->used < SIZE_MAX - 64;
    return b->base != NULL && b->fits ? b->base + at : NULL;
}

static bool has_bias(const wf_strand *s, const wf_layer *layer)
{
    bool any = false;
    (void)wf_module_add_bias(s->module, layer, s->scale, 1, NULL, &any, NULL);
    return any;
}

static int32_t pair_rank(const wf_strand *s, const wf_layer *layer)
{
    return wf_module_form(s->module, layer) == WF_FORM_PAIR ? wf_module_pair_rank(s->module) : 0;
}

/* Where everything of the stack stands in the block. */
static void lay_out(wf_stack *stack, const wf_weave *w, const wf_layer *layer, block *b)
{
    size_t    columns = wf_layer_columns(layer), out = (size_t)layer->out, n = (size_t)w->parts, rank = 0;
    int32_t  *part_rank = take(b, n, sizeof *part_rank);
    float    *part_scale = take(b, n, sizeof *part_scale);
    wf_other *other = NULL;
    bool      plain = true;

    for (size_t i = 0; i < n; i++) {
        int32_t r = pair_rank(&w->strand[i], layer);
        rank += (size_t)r;
        plain = plain && r > 0 && !has_bias(&w->strand[i], layer);
        if (part_rank != NULL) part_rank[i] = r;
        if (part_scale != NULL) part_scale[i] = (float)w->strand[i].scale;
    }
    b->fits = b->fits && rank <= INT32_MAX;
    if (!plain) other = take(b, n, sizeof *other);
    float *down = take(b, rank, columns * sizeof *down), *up = take(b, rank, out * sizeof *up);
    for (size_t i = 0; i < n && !plain; i++) {
        const wf_strand *s = &w->strand[i];
        int32_t          form = wf_module_form(s->module, layer), size[4] = { 0, 0, 0, 0 };
        wf_other         x = { NULL, NULL, 0, 0, 0, 0, NULL, NULL };
        if (form == WF_FORM_KRON) {
            s->module->family->kron_size(s->module, layer, size);
            x.o1 = size[0], x.i1 = size[1], x.o2 = size[2], x.i2 = size[3];
            x.w1 = take(b, (size_t)x.o1, (size_t)x.i1 * sizeof(float));
            x.w2 = take(b, (size_t)x.o2, columns / (size_t)layer->in * (size_t)x.i2 * sizeof(float));
        }
        if (form == WF_FORM_DENSE || form == WF_FORM_NORM) x.dense = take(b, out, columns * sizeof(float));
        if (has_bias(s, layer)) x.bias = take(b, out, sizeof(float));
        if (other != NULL) other[i] = x;
    }
    *stack = (wf_stack){ w->parts, b->fits ? (int32_t)rank : 0, part_rank, part_scale, down, up, other };
}

/* One part's factors into their places; `at` counts the ranks before it. */
static weft_status fill_part(const wf_stack *stack, const wf_strand *s, const wf_layer *layer, int32_t i, size_t at,
                             const weft_allocator *alloc, weft_error *err)
{
    const wf_module *m = s->module;
    const wf_other  *x = stack->other != NULL ? &stack->other[i] : NULL;
    size_t           columns = wf_layer_columns(layer), out = (size_t)layer->out;

    if (stack->part_rank[i] > 0)
        WF_TRY(wf_module_pair(m, layer, (float *)stack->down + at * columns, (float *)stack->up + at * out, alloc, err));
    if (x == NULL) return WEFT_OK;
    if (x->w1 != NULL) WF_TRY(wf_module_kron(m, layer, (float *)x->w1, (float *)x->w2, alloc, err));
    if (x->dense != NULL) {
        memset((float *)x->dense, 0, out * columns * sizeof *x->dense);
        WF_TRY(wf_module_add(m, layer, s->scale, s->inside, 1, (float *)x->dense, alloc, err));
    }
    if (x->bias != NULL) {
        memset((float *)x->bias, 0, out * sizeof *x->bias);
        WF_TRY(wf_module_add_bias(m, layer, s->scale, s->inside, (float *)x->bias, &(bool){ false }, err));
    }
    return WEFT_OK;
}

static weft_status fill_stack(wf_weave *w, const wf_layer *layer, weft_error *err)
{
    block    count = { NULL, 0, true }, real = { NULL, 0, true };
    wf_stack unused;
    size_t   at = 0;

    lay_out(&unused, w, layer, &count);
    if (count.fits) real.base = w->memory = wf_alloc(&w->alloc, count.used);
    if (w->memory == NULL) return wf_nomem(err, count.fits ? count.used : SIZE_MAX, "a layer's stacked factors");
    lay_out(&w->stack, w, layer, &real);
    for (int32_t i = 0; i < w->parts; i++) {
        WF_TRY(fill_part(&w->stack, &w->strand[i], layer, i, at, &w->alloc, err));
        at += (size_t)w->stack.part_rank[i];
    }
    return WEFT_OK;
}

/* ---- merged copies ------------------------------------------------------------------------------------------- */

bool wf_touched_has_bias(const wf_touched *t, const wf_layer *layer)
{
    for (int32_t i = 0; i < t->parts; i++)
        if (has_bias(&t->strand[i], layer)) return true;
    return false;
}

size_t wf_merged_floats(const wf_touched *t, const wf_layer *layer)
{
    return (size_t)layer->out * (wf_layer_columns(layer) + (wf_touched_has_bias(t, layer) ? 1 : 0));
}

weft_status wf_touched_add(const wf_touched *t, const wf_layer *layer, const wf_cell *cells, float *dst, float *bias,
                           const weft_allocator *alloc, weft_error *err)
{
    for (int32_t i = 0; i < t->parts; i++) {
        const wf_strand *s = &t->strand[i];
        if (cells[i].number == 0) continue;
        WF_TRY(wf_module_add(s->module, layer, s->scale, s->inside, cells[i].number, dst, alloc, err));
        if (bias != NULL)
            WF_TRY(wf_module_add_bias(s->module, layer, s->scale, s->inside * cells[i].number, bias, &(bool){ false }, err));
    }
    return WEFT_OK;
}

/* ---- paths --------------------------------------------------------------------------------------------- */

/* Are the layer's coefficients the same in every call? Then they are what the first row says. */
static bool never_changes(const wf_table *t, const wf_slot *slot, int32_t parts)
{
    size_t width = t->slots * (size_t)t->branches, first = (size_t)(slot - t->slot);

    for (size_t r = 1; r < t->rows; r++)
        if (memcmp(t->cells + r * width + first, t->cells + first, (size_t)parts * sizeof *t->cells) != 0) return false;
    return true;
}

/* A merged copy costs out * K floats once; the side path costs its products for every row of the activations:
 * R * (K + out) of pairs, i1 o2 (k2 + o1) of a Kronecker product. Below an eighth of the base product we keep the
 * side path: it needs no copy, and thin products of that size hide beside the big one. A matrix costs as much
 * memory beside the weight as in place of it. */
static bool merging_pays(const wf_weave *w, const wf_layer *layer)
{
    double columns = (double)wf_layer_columns(layer), out = layer->out, products = 0;

    for (int32_t i = 0; i < w->parts; i++) {
        const wf_module *m = w->strand[i].module;
        int32_t          form = wf_module_form(m, layer), size[4];
        if (form == WF_FORM_DENSE) return true;
        if (form == WF_FORM_PAIR) products += wf_module_pair_rank(m) * (columns + out);
        if (form != WF_FORM_KRON) continue;
        m->family->kron_size(m, layer, size);
        products += (double)size[1] * size[2] * (columns / layer->in * size[3] + size[0]);
    }
    return products > columns * out / 8;
}

static bool choose_merged(const wf_table *t, const weft_plan *p, const wf_layer *layer, const wf_weave *w,
                          const wf_slot *slot)
{
    if (p->path == WEFT_PATH_SIDE || t->branches != 1 || layer->component != 0 || layer->kind == WEFT_LAYER_NORM)
        return false;
    if (p->path == WEFT_PATH_AUTO && !merging_pays(w, layer)) return false;
    return never_changes(t, slot, w->parts);
}

/* ---- touched layers ------------------------------------------------------------------------------------ */

/* The weave of slots [slot, slot + parts) of one layer: one made before, or a new one. */
static weft_status find_or_make(wf_weave **out, const wf_table *t, const weft_plan *p, const wf_slot *slot,
                                int32_t parts, weft_error *err)
{
    const wf_layer *layer = &wf_model_layers(p->model, &(size_t){ 0 })[slot->layer];
    bool            bare = t->bare && layer->component == 0; /* methods speak of the UNet */
    wf_weave       *w = NULL, *old;
    weft_status     st;

    if ((st = list_parts(&w, p, layer, slot, parts, bare, err)) != WEFT_OK) return st;
    w->merged = choose_merged(t, p, layer, w, slot);
    if (layer->component == 0 && wf_mixed_matters(p, layer, w->strand, parts)) {
        bool constant = t->branches == 1 && never_changes(t, slot, parts);
        if ((st = wf_mixed_check(p, layer, slot, w->strand, parts, constant, err)) != WEFT_OK) {
            wf_weave_drop(w);
            return st;
        }
        w->merged = true;
    }
    if ((old = find_weave(p, slot, w)) != NULL) {
        wf_weave_drop(w);
        w = wf_weave_ref(old);
    } else if (!w->merged && (st = fill_stack(w, layer, err)) != WEFT_OK) {
        wf_weave_drop(w);
        return st;
    }
    *out = w;
    return WEFT_OK;
}

static weft_status make_touched(wf_table *t, const weft_plan *p, weft_error *err)
{
    size_t n = 0;

    for (size_t s = 0; s < t->slots; s++) n += s == 0 || t->slot[s].layer != t->slot[s - 1].layer;
    t->touched = wf_zalloc(&p->alloc, n, sizeof *t->touched);
    if (t->touched == NULL) return wf_nomem(err, n * sizeof *t->touched, "a plan's layers");
    t->weave = wf_zalloc(&p->alloc, n, sizeof *t->weave);
    if (t->weave == NULL) return wf_nomem(err, n * sizeof *t->weave, "a plan's layers");

    for (size_t s = 0, end; s < t->slots; s = end) {
        wf_weave *w;
        for (end = s + 1; end < t->slots && t->slot[end].layer == t->slot[s].layer; end++) {}
        WF_TRY(find_or_make(&w, t, p, &t->slot[s], (int32_t)(end - s), err));
        t->weave[t->touched_count] = w;
        t->touched[t->touched_count++] = (wf_touched){ .layer = w->layer, .slot = (int32_t)s, .parts = w->parts,
                                                       .merged = w->merged, .strand = w->strand, .stack = w->stack };
    }
    return WEFT_OK;
}

/* Text encoders are computed on the side path, where every difference is taken on the base. */
static void warn_of_text(const weft_plan *p, wf_table *t)
{
    const wf_layer *layers = wf_model_layers(p->model, &(size_t){ 0 });
    int32_t         n = 0;

    for (size_t i = 0; i < t->touched_count; i++) {
        const wf_touched *at = &t->touched[i];
        n += layers[at->layer].component != 0 && wf_mixed_matters(p, &layers[at->layer], at->strand, at->parts);
    }
    if (n > 0)
        wf_table_warn(p, t, "%d %s of the text encoders, where adapters depend on the weights: summed as under delta, %s is for "
                      "the UNet alone", (int)n, n == 1 ? "layer" : "layers", wf_mixed_name(p->mixed));
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
    warn_of_text(p, t);
    if (t->warnings.failed) {
        st = wf_nomem(err, 0, "a plan's warnings");
        goto failed;
    }
    return WEFT_OK;
failed:
    wf_table_free(t, &p->alloc);
    return st;
}
