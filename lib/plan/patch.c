/* patch.c - what the adapters do to one layer: stacked factors, or a merged copy of its weight.
 *
 * A patch names the modules that act at a layer. If the layer is not computed from a merged copy,
 * the factors of all parts are in one block, with the pairs stacked so that one product serves them
 * all. Phases and copies of a plan share patches that are equal. */
#include "plan/plan_internal.h"

size_t wf_layer_columns(const wf_layer *layer)
{
    return (size_t)layer->kernel * (size_t)layer->kernel * (size_t)layer->in;
}

size_t wf_stack_floats(const wf_layer *layer, const wf_stack *stack)
{
    size_t columns = wf_layer_columns(layer), out = (size_t)layer->out,
           n = (size_t)stack->rank * (columns + out);

    for (int32_t p = 0; stack->nonpair != NULL && p < stack->parts; p++) {
        const wf_nonpair *x = &stack->nonpair[p];
        if (x->w1 != NULL)
            n += (size_t)x->o1 * (size_t)x->i1 +
                 (size_t)x->o2 * (size_t)x->i2 * (columns / (size_t)layer->in);
        n += (x->dense != NULL ? out * columns : 0) + (x->bias != NULL ? out : 0);
    }
    return n;
}

/* ---- a patch's life -------------------------------------------------------------------------- */

wf_patch *wf_patch_ref(wf_patch *x)
{
    wf_ref_take(&x->refs);
    return x;
}

void wf_patch_drop(wf_patch *x)
{
    if (x == NULL || !wf_ref_drop(&x->refs)) return;
    weft_allocator alloc = x->alloc;
    for (int32_t i = 0; i < x->parts; i++) wf_binding_drop(x->from[i]);
    wf_free(&alloc, x->memory);
    wf_free(&alloc, x->lists);
    wf_free(&alloc, x);
}

static wf_patch_part part_of(const weft_plan *p, const wf_slot *slot, bool ignore_alpha)
{
    int32_t          count;
    const wf_slice  *slice = wf_plan_slices(p, slot->adapter, slot->layer, &count) + slot->slice;
    const wf_module *m =
        wf_adapter_module(p->entry[slot->adapter].bound->adapter, (size_t)slice->module);
    bool             inside = wf_plan_weighs_inside(p, slot->adapter, slot->layer);
    return (wf_patch_part){ m, *slice, ignore_alpha ? 1 : m->scale,
                            inside ? wf_plan_weight(p, slot->adapter, slot->layer) : 1 };
}

/* The lists of a patch: what the parts are, without their factors. */
static weft_status list_parts(wf_patch **out, const weft_plan *p, const wf_slot *slot,
                              int32_t parts, bool ignore_alpha, weft_error *err)
{
    size_t n = (size_t)parts, bytes = n * sizeof(wf_patch_part),
           size = bytes + n * sizeof(wf_binding *);
    wf_patch *x = wf_zalloc(&p->alloc, 1, sizeof *x);

    if (x == NULL) return wf_nomem(err, sizeof *x, "a layer's parts");
    wf_ref_init(&x->refs);
    x->alloc = p->alloc;
    x->lists = wf_alloc(&p->alloc, size);
    if (x->lists == NULL) {
        wf_patch_drop(x);
        return wf_nomem(err, size, "a layer's parts");
    }
    x->layer = slot->layer;
    x->parts = parts;
    x->part = x->lists;
    x->from = (wf_binding **)(void *)((char *)x->lists + bytes);
    for (size_t i = 0; i < n; i++) {
        x->part[i] = part_of(p, &slot[i], ignore_alpha);
        x->from[i] = wf_binding_ref(p->entry[slot[i].adapter].bound);
    }
    *out = x;
    return WEFT_OK;
}

/* Bindings are compared by address. A patch keeps its bindings, so no address is used twice. */
static bool same(const wf_patch *a, const wf_patch *b)
{
    if (a->layer != b->layer || a->merged != b->merged || a->parts != b->parts) return false;
    for (int32_t i = 0; i < a->parts; i++)
        if (a->from[i] != b->from[i] || a->part[i].module != b->part[i].module ||
            memcmp(&a->part[i].slice, &b->part[i].slice, sizeof a->part[i].slice) != 0 ||
            a->part[i].scale != b->part[i].scale || a->part[i].inside != b->part[i].inside)
            return false;
    return true;
}

/* The patch of an earlier plan that equals this one, or NULL. */
static wf_patch *find_cached(const weft_plan *p, const wf_patch *like)
{
    size_t low = 0, high = p->cached;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (p->cache[mid]->layer < like->layer) low = mid + 1;
        else high = mid;
    }
    for (; low < p->cached && p->cache[low]->layer == like->layer; low++)
        if (same(p->cache[low], like)) return p->cache[low];
    return NULL;
}

static wf_patch *find_patched(const wf_sheet *s, const wf_patch *like)
{
    size_t low = 0, high = s->patched_count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (s->patched[mid].layer < like->layer) low = mid + 1;
        else high = mid;
    }
    bool here = low < s->patched_count && s->patched[low].layer == like->layer;
    return here && same(s->patched[low].patch, like) ? s->patched[low].patch : NULL;
}

/* In the plan that this one is a copy of, or in the phases before this one. */
static wf_patch *find(const weft_plan *p, const wf_table *t, const wf_patch *like)
{
    wf_patch *x = find_cached(p, like);

    for (size_t i = 0; i < t->phases && x == NULL; i++) x = find_patched(&t->phase[i], like);
    return x;
}

/* ---- stacks: the factors of a layer's parts in one block ------------------------------------- */

/* The block's layout: part_rank, part_scale and nonpair, then down (R, K), up (R, out), and the
 * matrices of each part that is no pair. Without a base it only counts. */
typedef struct block {
    char  *base;
    size_t used;
    bool   fits;
} block;

static void *take(block *b, size_t count, size_t size)
{
    size_t at = (b->used + 63) / 64 * 64, bytes;

    b->fits = b->fits && wf_mul(count, size, &bytes) && wf_add(at, bytes, &b->used) &&
              b->used < SIZE_MAX - 64;
    return b->base != NULL && b->fits ? b->base + at : NULL;
}

static bool has_bias(const wf_patch_part *s, const wf_layer *layer)
{
    bool any = false;
    (void)wf_slice_add_bias(&s->slice, s->module, layer, s->scale, 1, NULL, &any, NULL, NULL);
    return any;
}

static int32_t pair_rank(const wf_patch_part *s, const wf_layer *layer)
{
    return wf_slice_form(&s->slice, s->module, layer) == WF_FORM_PAIR
               ? wf_module_pair_rank(s->module)
               : 0;
}

/* Place everything of the stack in the block. */
static void lay_out(wf_stack *stack, const wf_patch *w, const wf_layer *layer, block *b)
{
    size_t columns = wf_layer_columns(layer), out = (size_t)layer->out, n = (size_t)w->parts,
           rank = 0;
    int32_t  *part_rank = take(b, n, sizeof *part_rank);
    float    *part_scale = take(b, n, sizeof *part_scale);
    wf_nonpair *nonpair = NULL;
    bool      plain = true;

    for (size_t i = 0; i < n; i++) {
        int32_t r = pair_rank(&w->part[i], layer);
        rank += (size_t)r;
        plain = plain && r > 0 && !has_bias(&w->part[i], layer);
        if (part_rank != NULL) part_rank[i] = r;
        if (part_scale != NULL) part_scale[i] = (float)w->part[i].scale;
    }
    b->fits = b->fits && rank <= INT32_MAX;
    if (!plain) nonpair = take(b, n, sizeof *nonpair);
    float *down = take(b, rank, columns * sizeof *down), *up = take(b, rank, out * sizeof *up);
    for (size_t i = 0; i < n && !plain; i++) {
        const wf_patch_part *s = &w->part[i];
        int32_t form = wf_slice_form(&s->slice, s->module, layer), size[4] = { 0, 0, 0, 0 };
        wf_nonpair         x = { NULL, NULL, 0, 0, 0, 0, NULL, NULL };
        if (form == WF_FORM_KRON) {
            s->module->family->kron_size(s->module, layer, size);
            x.o1 = size[0], x.i1 = size[1], x.o2 = size[2], x.i2 = size[3];
            x.w1 = take(b, (size_t)x.o1, (size_t)x.i1 * sizeof(float));
            x.w2 =
                take(b, (size_t)x.o2, columns / (size_t)layer->in * (size_t)x.i2 * sizeof(float));
        }
        if (form == WF_FORM_DENSE || form == WF_FORM_NORM)
            x.dense = take(b, out, columns * sizeof(float));
        if (has_bias(s, layer)) x.bias = take(b, out, sizeof(float));
        if (nonpair != NULL) nonpair[i] = x;
    }
    *stack = (wf_stack){ w->parts, b->fits ? (int32_t)rank : 0, part_rank, part_scale, down, up,
                         nonpair };
}

/* One part's factors into their places; `at` counts the ranks before it. */
static weft_status fill_part(const wf_stack *stack, const wf_patch_part *s, const wf_layer *layer,
                             int32_t i, size_t at, const weft_allocator *alloc, weft_error *err)
{
    const wf_module *m = s->module;
    const wf_nonpair  *x = stack->nonpair != NULL ? &stack->nonpair[i] : NULL;
    size_t           columns = wf_layer_columns(layer), out = (size_t)layer->out;

    if (stack->part_rank[i] > 0)
        WF_TRY(wf_slice_pair(&s->slice, m, layer, (float *)stack->down + at * columns,
                             (float *)stack->up + at * out, alloc, err));
    if (x == NULL) return WEFT_OK;
    if (x->w1 != NULL) WF_TRY(wf_module_kron(m, layer, (float *)x->w1, (float *)x->w2, alloc, err));
    if (x->dense != NULL) {
        memset((float *)x->dense, 0, out * columns * sizeof *x->dense);
        WF_TRY(wf_slice_add(&s->slice, m, layer, s->scale, s->inside, 1, (float *)x->dense, alloc,
                            err));
    }
    if (x->bias != NULL) {
        memset((float *)x->bias, 0, out * sizeof *x->bias);
        WF_TRY(wf_slice_add_bias(&s->slice, m, layer, s->scale, s->inside, (float *)x->bias,
                                 &(bool){ false }, alloc, err));
    }
    return WEFT_OK;
}

static weft_status fill_stack(wf_patch *w, const wf_layer *layer, weft_error *err)
{
    block    count = { NULL, 0, true }, real = { NULL, 0, true };
    wf_stack unused;
    size_t   at = 0;

    lay_out(&unused, w, layer, &count);
    if (count.fits) real.base = w->memory = wf_alloc(&w->alloc, count.used);
    if (w->memory == NULL)
        return wf_nomem(err, count.fits ? count.used : SIZE_MAX, "a layer's stacked factors");
    lay_out(&w->stack, w, layer, &real);
    for (int32_t i = 0; i < w->parts; i++) {
        WF_TRY(fill_part(&w->stack, &w->part[i], layer, i, at, &w->alloc, err));
        at += (size_t)w->stack.part_rank[i];
    }
    return WEFT_OK;
}

/* ---- merged copies --------------------------------------------------------------------------- */

bool wf_patch_has_bias(const wf_patch *patch, const wf_layer *layer)
{
    for (int32_t i = 0; i < patch->parts; i++)
        if (has_bias(&patch->part[i], layer)) return true;
    return false;
}

size_t wf_patch_merged_floats(const wf_patch *patch, const wf_layer *layer)
{
    return (size_t)layer->out *
           (wf_layer_columns(layer) + (wf_patch_has_bias(patch, layer) ? 1 : 0));
}

/* dst (out, K) += c Delta diag(v). */
static weft_status add_columns(const wf_patch_part *s, const wf_layer *layer, float c,
                               const float *v, float *dst, const weft_allocator *alloc,
                               weft_error *err)
{
    size_t K = wf_layer_columns(layer), floats = (size_t)layer->out * K;
    float *D = wf_zalloc(alloc, floats, sizeof *D);

    if (D == NULL) return wf_nomem(err, floats * sizeof *D, "a layer's difference");
    weft_status st =
        wf_slice_add(&s->slice, s->module, layer, s->scale, s->inside, c, D, alloc, err);
    for (size_t i = 0; i < floats && st == WEFT_OK; i++) dst[i] += D[i] * v[i % K];
    wf_free(alloc, D);
    return st;
}

weft_status wf_patch_add(const wf_patch *patch, const wf_layer *layer, const wf_cell *cells,
                         const float *const *vectors, float *dst, float *bias,
                         const weft_allocator *alloc, weft_error *err)
{
    for (int32_t i = 0; i < patch->parts; i++) {
        const wf_patch_part *s = &patch->part[i];
        if (cells[i].number == 0) continue;
        WF_TRY(cells[i].vector == 0
                   ? wf_slice_add(&s->slice, s->module, layer, s->scale, s->inside, cells[i].number,
                                  dst, alloc, err)
                   : add_columns(s, layer, cells[i].number, vectors[cells[i].vector - 1], dst,
                                 alloc, err));
        if (bias != NULL)
            WF_TRY(wf_slice_add_bias(&s->slice, s->module, layer, s->scale,
                                     s->inside * cells[i].number, bias, &(bool){ false }, alloc,
                                     err));
    }
    return WEFT_OK;
}

/* ---- paths ----------------------------------------------------------------------------------- */

/* WEFT_REASON_* for coefficients that no merged copy can hold; NONE: plain numbers, the same in
 * every call, in one branch. */
static int32_t varies(const wf_sheet *s, size_t patch, int32_t parts)
{
    const wf_cell *first = s->rows > 0 ? wf_sheet_line(s, &s->row[0], 0, patch) : NULL;

    for (size_t r = 0; r < s->rows; r++)
        if (s->row[r].branches != 1) return WEFT_REASON_BRANCHES;
    for (int32_t i = 0; s->rows > 0 && i < parts; i++) {
        if (first[i].mask != 0) return WEFT_REASON_MASK;
        if (first[i].vector != 0) return WEFT_REASON_COLUMNS;
    }
    for (size_t r = 1; r < s->rows; r++)
        if (memcmp(wf_sheet_line(s, &s->row[r], 0, patch), first,
                   (size_t)parts * sizeof *s->cells) != 0)
            return WEFT_REASON_CALLS;
    return WEFT_REASON_NONE;
}

double wf_patch_work(const wf_patch *x, const wf_layer *layer, bool *whole)
{
    double columns = (double)wf_layer_columns(layer), out = layer->out, products = 0;

    *whole = false;
    for (int32_t i = 0; i < x->parts; i++) {
        const wf_module *m = x->part[i].module;
        int32_t          form = wf_slice_form(&x->part[i].slice, m, layer), size[4];
        *whole = *whole || form == WF_FORM_DENSE;
        if (form == WF_FORM_PAIR) products += wf_module_pair_rank(m) * (columns + out);
        if (form != WF_FORM_KRON) continue;
        m->family->kron_size(m, layer, size);
        products += (double)size[1] * size[2] * (columns / layer->in * size[3] + size[0]);
    }
    return products / (columns * out);
}

/* A merged copy costs out * K floats once. The side path costs its products for every row of the
 * activations: R * (K + out) for pairs, i1 o2 (k2 + o1) for a Kronecker product. Below an eighth of
 * the base product we take the side path: it needs no copy, and thin products of that size hardly
 * show beside the big one. A dense part costs the same memory either way, so it is merged. */
static int32_t choose_path(bool *merged, const weft_plan *p, const wf_layer *layer,
                           const wf_patch *x, int32_t variation)
{
    bool   whole;
    double work = wf_patch_work(x, layer, &whole);

    *merged = false;
    if (layer->component != WEFT_COMPONENT_DENOISER) return WEFT_REASON_TEXT;
    if (layer->kind == WEFT_LAYER_NORM) return WEFT_REASON_NORM;
    if (p->path == WEFT_PATH_SIDE) return WEFT_REASON_ASKED;
    if (p->path == WEFT_PATH_AUTO && !whole && work <= 1.0 / 8) return WEFT_REASON_CHEAP;
    if (variation != WEFT_REASON_NONE) return variation;
    *merged = true;
    if (p->path == WEFT_PATH_MERGED) return WEFT_REASON_ASKED;
    return whole ? WEFT_REASON_WHOLE : WEFT_REASON_PRODUCTS;
}

const char *wf_reason_words(int32_t reason)
{
    switch (reason) {
    case WEFT_REASON_ASKED:    return "the plan's path asks for it";
    case WEFT_REASON_TEXT:     return "a text encoder is computed once for an image";
    case WEFT_REASON_NORM:     return "a normalisation has no product to save";
    case WEFT_REASON_CHEAP:    return "the adapters' products are at most an eighth of the layer's";
    case WEFT_REASON_CALLS:    return "coefficients change from call to call";
    case WEFT_REASON_BRANCHES: return "branches have coefficients of their own";
    case WEFT_REASON_COLUMNS:  return "a coefficient for each column";
    case WEFT_REASON_MASK:     return "a coefficient that differs over the image";
    case WEFT_REASON_WHOLE:    return "a whole difference takes a copy's memory anyway";
    case WEFT_REASON_PRODUCTS: return "the adapters' products are over an eighth of the layer's";
    case WEFT_REASON_DEPENDS:  return "adapters depend on the weight, under the plan's mixed";
    default:                   return "no adapter acts";
    }
}

/* ---- the whole ------------------------------------------------------------------------------- */

weft_status wf_patch_find_or_make(wf_patch **out, int32_t *reason, const weft_plan *p,
                                  const wf_table *t, const wf_sheet *s, size_t patch, int32_t parts,
                                  weft_error *err)
{
    const wf_slot  *slot = &s->slot[s->patched[patch].slot];
    const wf_layer *layer = &wf_model_layers(p->model, &(size_t){ 0 })[slot->layer];
    int32_t         variation = varies(s, patch, parts);
    wf_patch       *x = NULL, *old;
    weft_status     st;

    if ((st = list_parts(&x, p, slot, parts, s->ignore_alpha, err)) != WEFT_OK) return st;
    *reason = choose_path(&x->merged, p, layer, x, variation);
    if (layer->component == WEFT_COMPONENT_DENOISER && wf_mixed_matters(p, layer, x->part, parts)) {
        if ((st = wf_mixed_check(p, s, layer, slot, x->part, parts, variation == WEFT_REASON_NONE,
                                 err)) != WEFT_OK) {
            wf_patch_drop(x);
            return st;
        }
        x->merged = true;
        *reason = WEFT_REASON_DEPENDS;
    }
    if ((old = find(p, t, x)) != NULL) {
        wf_patch_drop(x);
        x = wf_patch_ref(old);
    } else if (!x->merged && (st = fill_stack(x, layer, err)) != WEFT_OK) {
        wf_patch_drop(x);
        return st;
    }
    *out = x;
    return WEFT_OK;
}
