/* layer.c - one layer's result.
 *
 * What is merged is one of three things:
 *
 *   differences   D = W' - W of each adapter, whole, whatever its family (the default)
 *   pairs         their factors side by side (CONCAT, MIXER)
 *   factors       A and B of each adapter apart (FACTORS, kohya's sum)
 *
 * Then it is factored, if a rank or an error is asked. Everything is in the order of files here,
 * columns (in, ky, kx), so that "the first entry" and "entry number i" mean the same as in other
 * programs. */
#include <math.h>

#include "merge/merge_internal.h"
#include "tensor/gemm.h"

/* A layer while it is merged. */
typedef struct work {
    const wf_merge_method    *method;
    const weft_merge_options *o;
    const wf_layer           *l;
    const wf_merge_part      *part;
    int32_t                   parts;
    int32_t                   sources;
    size_t                    out, K;
    wf_bag                   *bag;
    weft_error               *err;
    float                   **tensor; /* [2 parts]                                  */
    double                   *weight; /* [parts]                                    */
    int32_t                  *source; /* [parts]                                    */
    char                      what[WF_MERGE_NAME + 16];
} work;

static float *floats(const work *w, size_t rows, size_t columns)
{
    size_t count;
    float *f = wf_mul(rows, columns, &count) ? wf_bag_take(w->bag, count, sizeof *f) : NULL;

    if (f == NULL) (void)wf_nomem(w->err, rows * columns * sizeof *f, "a layer that is merged");
    return f;
}

/* A file may hold numbers whose product no float holds. */
static weft_status check_finite(const work *w, const float *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(v[i]))
            return wf_fail(w->err, WEFT_E_ARG,
                           "%s: merged, its values are not finite: weights or adapters are too "
                           "large",
                           w->l->name);
    return WEFT_OK;
}

static double norm_of(const float *v, size_t n)
{
    double s = 0;

    for (size_t i = 0; i < n; i++) s += (double)v[i] * v[i];
    return sqrt(s);
}

/* ---- what an adapter has at the layer -------------------------------------------------------- */

static const wf_module *module_of(const wf_merge_part *p, int32_t i)
{
    return wf_adapter_module(p->adapter, (size_t)p->slice[i].module);
}

/* Is its magnitude merged apart? */
static const wf_module *magnitude_of(const work *w, const wf_merge_part *p)
{
    const wf_module *m = module_of(p, 0);

    return (w->o->flags & WEFT_MERGE_DIRECTION) != 0 && m->tensor[WF_TENSOR_MAGNITUDE] != NULL
               ? m : NULL;
}

/* Its pair is all that it has. */
static bool has_pair(const work *w, const wf_merge_part *p)
{
    const wf_module *m = module_of(p, 0);

    if (p->slices != 1) return false;
    if (magnitude_of(w, p) != NULL) return m->family->form(m, w->l) == WF_FORM_PAIR;
    return wf_slice_form(&p->slice[0], m, w->l) == WF_FORM_PAIR;
}

static bool all_pairs(const work *w)
{
    for (int32_t i = 0; i < w->parts; i++)
        if (!has_pair(w, &w->part[i])) return false;
    return true;
}

/* PEFT's doubled scale is of the first module: no file of LoRA has two at one layer. */
static double strength(const work *w, const wf_merge_part *p)
{
    return (w->o->flags & WEFT_MERGE_DOUBLE_SCALE) != 0
               ? p->weight * (double)module_of(p, 0)->scale : p->weight;
}

/* D (out, K) of the adapter, without its weight. */
static weft_status difference(const work *w, const wf_merge_part *p, float *D)
{
    float *sum = w->l->kernel > 1 ? floats(w, w->out, w->K) : D;

    if (sum == NULL) return WEFT_E_NOMEM;
    for (int32_t i = 0; i < p->slices; i++) {
        const wf_module *m = module_of(p, i);
        weft_status st = magnitude_of(w, p) != NULL
            ? wf_module_add_inner(m, w->l, (double)m->scale, 1, sum, w->bag->alloc, w->err)
            : wf_slice_add(&p->slice[i], m, w->l, (double)m->scale, 1, 1, sum, w->bag->alloc,
                           w->err);
        if (st != WEFT_OK) return st;
    }
    if (sum != D) wf_rows_as_stored(w->l, sum, w->out, D);
    return check_finite(w, D, w->out * w->K);
}

/* down (r, K) and up (out, r) of the adapter, without scale and weight. */
static weft_status pair_of(const work *w, const wf_merge_part *p, size_t r, float **down,
                           float **up)
{
    float *turned = floats(w, r, w->out), *last = floats(w, r, w->K);

    *down = floats(w, r, w->K);
    *up = floats(w, w->out, r);
    if (turned == NULL || last == NULL || *down == NULL || *up == NULL) return WEFT_E_NOMEM;
    WF_TRY(wf_slice_pair(&p->slice[0], module_of(p, 0), w->l, last, turned, w->bag->alloc, w->err));
    wf_rows_as_stored(w->l, last, r, *down);
    for (size_t k = 0; k < r; k++)
        for (size_t o = 0; o < w->out; o++) (*up)[o * r + k] = turned[k * w->out + o];
    return WEFT_OK;
}

/* ---- differences ----------------------------------------------------------------------------- */

static wf_merge_list list_of(work *w, const char *part, size_t n)
{
    (void)wf_format(w->what, sizeof w->what, "%s.%s", w->l->name, part);
    return (wf_merge_list){ .count = w->parts, .n = n, .tensor = w->tensor, .weight = w->weight,
                            .source = w->source, .what = w->what, .o = w->o };
}

static weft_status merge_differences(work *w, void (*combine)(const wf_merge_list *, float *),
                                     float **D)
{
    size_t        n = w->out * w->K;
    wf_merge_list list = list_of(w, "weight", n);

    for (int32_t i = 0; i < w->parts; i++) {
        w->weight[i] = strength(w, &w->part[i]);
        if ((w->tensor[i] = floats(w, w->out, w->K)) == NULL) return WEFT_E_NOMEM;
        WF_TRY(difference(w, &w->part[i], w->tensor[i]));
    }
    if ((*D = floats(w, w->out, w->K)) == NULL) return WEFT_E_NOMEM;
    combine(&list, *D);
    return check_finite(w, *D, n);
}

/* Biases go the way of the weights; those of methods about factors are added up. */
static weft_status merge_biases(work *w, wf_merged_layer *r)
{
    wf_merge_list list = list_of(w, "bias", w->out);

    list.count = 0;
    for (int32_t i = 0; i < w->parts; i++) {
        const wf_merge_part *p = &w->part[i];
        float *bias = floats(w, w->out, 1);
        bool   has = false;
        if (bias == NULL) return WEFT_E_NOMEM;
        for (int32_t k = 0; k < p->slices; k++) {
            const wf_module *m = module_of(p, k);
            bool             any;
            WF_TRY(wf_slice_add_bias(&p->slice[k], m, w->l, (double)m->scale, 1, bias, &any,
                                     w->bag->alloc, w->err));
            has |= any;
        }
        if (!has) continue;
        w->tensor[list.count] = bias;
        w->weight[list.count] = p->weight;
        w->source[list.count++] = p->source;
    }
    if (list.count > 0) {
        if ((r->bias = floats(w, w->out, 1)) == NULL) return WEFT_E_NOMEM;
        w->method->combine(&list, r->bias);
        WF_TRY(check_finite(w, r->bias, w->out));
        if (norm_of(r->bias, w->out) == 0) r->bias = NULL;
    }
    for (int32_t i = 0; i < w->parts; i++) w->source[i] = w->part[i].source;
    return WEFT_OK;
}

/* ---- pairs and factors ----------------------------------------------------------------------- */

/* The factors of all adapters: of part i in tensor[i] (down) and tensor[parts + i] (up). */
static weft_status take_pairs(work *w, size_t *rank, size_t *all)
{
    *all = 0;
    for (int32_t i = 0; i < w->parts; i++) {
        const wf_module *m = module_of(&w->part[i], 0);
        rank[i] = (size_t)wf_module_pair_rank(m);
        *all += rank[i];
        w->weight[i] = w->part[i].weight * (double)m->scale;
        WF_TRY(pair_of(w, &w->part[i], rank[i], &w->tensor[i], &w->tensor[w->parts + i]));
    }
    if (*all > INT32_MAX)
        return wf_fail(w->err, WEFT_E_ARG, "%s: the ranks add up to %zu", w->l->name, *all);
    return WEFT_OK;
}

/* What kohya multiplies both factors with; its alpha is that of the first adapter. */
static double kohya_ratio(const work *w, const size_t *rank, int32_t i)
{
    double alpha = (double)module_of(&w->part[i], 0)->scale * (double)rank[i];
    double first = (double)module_of(&w->part[0], 0)->scale * (double)rank[0];

    return first != 0 ? sqrt(fabs(alpha / first)) * w->part[i].weight : 0;
}

static weft_status merge_stacked(work *w, wf_merged_layer *r)
{
    size_t         *rank = wf_bag_take(w->bag, (size_t)w->parts, sizeof *rank), R;
    wf_merge_pairs  pairs = { .count = w->parts, .out = w->out, .K = w->K, .rank = rank,
                              .down = w->tensor, .up = w->tensor + w->parts, .weight = w->weight,
                              .source = w->source, .mixer_side = w->sources, .fixed = -1,
                              .o = w->o };
    bool            kohya = (w->o->flags & WEFT_MERGE_KOHYA) != 0;

    if (rank == NULL) return wf_nomem(w->err, (size_t)w->parts * sizeof *rank, "ranks");
    WF_TRY(take_pairs(w, rank, &R));
    for (int32_t i = 0; i < w->parts && kohya; i++) {
        w->weight[i] = kohya_ratio(w, rank, i);
        for (size_t e = 0; e < w->out * rank[i]; e++)
            pairs.up[i][e] = (float)(fabs(w->weight[i]) * pairs.up[i][e]);
    }
    for (int32_t i = 0; i < w->parts; i++)
        if (w->part[i].fixed) pairs.fixed = i;
    if (w->method->prepare != NULL) WF_TRY(w->method->prepare(&pairs, w->bag, w->err));
    r->down = floats(w, R, w->K);
    r->up = floats(w, w->out, R);
    if (r->down == NULL || r->up == NULL) return WEFT_E_NOMEM;
    (w->method->stack != NULL ? w->method->stack : wf_merge_concatenate)(&pairs, r->down, r->up);
    r->rank = (int32_t)R;
    r->alpha = kohya ? (double)module_of(&w->part[0], 0)->scale * (double)rank[0] : (double)R;
    return WEFT_OK;
}

/* Needed where factors are merged one by one: pairs, of one rank. */
static weft_status check_ranks(const work *w)
{
    const wf_merge_part *first = &w->part[0];

    for (int32_t i = 0; i < w->parts; i++) {
        const wf_merge_part *p = &w->part[i];
        if (!has_pair(w, p))
            return wf_fail(w->err, WEFT_E_UNSUPPORTED,
                           "%s: adapter %s (%s) has no factors there, and %s is to be made of "
                           "factors",
                           w->l->name, wf_adapter_name(p->adapter), module_of(p, 0)->family->title,
                           w->method->title);
        int32_t a = wf_module_pair_rank(module_of(first, 0)),
                b = wf_module_pair_rank(module_of(p, 0));
        if (a != b && w->method->stack == NULL)
            return wf_fail(w->err, WEFT_E_MISMATCH,
                           "%s: adapter %s has rank %d and %s has %d: factors of one rank can be "
                           "merged apart, no others",
                           w->l->name, wf_adapter_name(first->adapter), a,
                           wf_adapter_name(p->adapter), b);
    }
    return WEFT_OK;
}

static weft_status merge_factors(work *w, wf_merged_layer *r)
{
    size_t *rank = wf_bag_take(w->bag, (size_t)w->parts, sizeof *rank), R;
    bool    kohya = (w->o->flags & WEFT_MERGE_KOHYA) != 0;

    if (rank == NULL) return wf_nomem(w->err, (size_t)w->parts * sizeof *rank, "ranks");
    WF_TRY(take_pairs(w, rank, &R));
    R = rank[0];
    r->down = floats(w, R, w->K);
    r->up = floats(w, w->out, R);
    if (r->down == NULL || r->up == NULL) return WEFT_E_NOMEM;
    for (int32_t i = 0; i < w->parts; i++)
        w->weight[i] = kohya ? kohya_ratio(w, rank, i)
                             : copysign(sqrt(fabs(w->weight[i])), w->weight[i]);
    wf_merge_list list = list_of(w, "down", R * w->K);
    w->method->combine(&list, r->down);
    for (int32_t i = 0; i < w->parts; i++) w->weight[i] = fabs(w->weight[i]);
    list = list_of(w, "up", w->out * R);
    list.tensor = w->tensor + w->parts;
    w->method->combine(&list, r->up);
    r->rank = (int32_t)R;
    r->alpha = kohya ? (double)module_of(&w->part[0], 0)->scale * (double)R : (double)R;
    return WEFT_OK;
}

/* ---- what is lost ---------------------------------------------------------------------------- */

/* The product of the stored factors, with its scale. */
static weft_status product_of(const work *w, const wf_merged_layer *r, float **P)
{
    size_t R = (size_t)r->rank;
    float *up = floats(w, w->out, R);

    if (up == NULL || (*P = floats(w, w->out, w->K)) == NULL) return WEFT_E_NOMEM;
    for (size_t i = 0; i < w->out * R; i++) up[i] = (float)(r->alpha / r->rank * r->up[i]);
    if (R > 0) wf_gemm_nn(*P, w->K, up, R, r->down, w->K, w->out, w->K, R, 0);
    return check_finite(w, *P, w->out * w->K);
}

/* norm and error of the stored factors; `wanted` NULL: nothing was lost. */
static weft_status measure(const work *w, const float *wanted, wf_merged_layer *r)
{
    size_t n = w->out * w->K;
    float *P;

    WF_TRY(product_of(w, r, &P));
    r->norm = norm_of(P, n);
    r->error = 0;
    if (wanted == NULL) return WEFT_OK;
    double full = norm_of(wanted, n);
    for (size_t i = 0; i < n; i++) P[i] -= wanted[i];
    r->error = full > 0 ? norm_of(P, n) / full : r->norm > 0 ? 1 : 0;
    return WEFT_OK;
}

/* ---- magnitudes ------------------------------------------------------------------------------ */

/* g = |W| + sum over the DoRA adapters of w (g_i - |W|), along rows or columns. */
static weft_status merge_magnitudes(const work *w, wf_merged_layer *r)
{
    const wf_merge_part *first = NULL;
    bool                 rows = true, any = false;

    for (int32_t i = 0; i < w->parts; i++) any |= magnitude_of(w, &w->part[i]) != NULL;
    if (!any) return WEFT_OK;
    for (int32_t i = 0; i < w->parts; i++) {
        const wf_merge_part *p = &w->part[i];
        const wf_module     *m = magnitude_of(w, p);
        for (int32_t k = 0; m == NULL && k < p->slices; k++)
            if (wf_module_of_weight(module_of(p, k)))
                return wf_fail(w->err, WEFT_E_UNSUPPORTED,
                               "%s: adapter %s (%s) depends on its weight without being DoRA, and "
                               "directions are merged of DoRA and additive adapters",
                               w->l->name, wf_adapter_name(p->adapter),
                               module_of(p, k)->family->title);
        if (m == NULL) continue;
        if (first != NULL && wf_dora_rows(m, w->l) != rows)
            return wf_fail(w->err, WEFT_E_UNSUPPORTED,
                           "%s: one of adapters %s and %s has magnitudes of rows and one of "
                           "columns, and one kind is merged",
                           w->l->name, wf_adapter_name(first->adapter),
                           wf_adapter_name(p->adapter));
        rows = wf_dora_rows(m, w->l);
        if (first == NULL) first = p;
    }
    size_t  n = rows ? w->out : (size_t)w->l->in;
    float  *W = floats(w, w->out, w->K);
    double *norm = wf_bag_take(w->bag, n, sizeof *norm);
    if (norm == NULL) return wf_nomem(w->err, n * sizeof *norm, "magnitudes");
    if (W == NULL || (r->magnitude = floats(w, n, 1)) == NULL) return WEFT_E_NOMEM;
    wf_layer_rows(w->l, 0, w->out, W);
    wf_dora_norms(norm, W, w->l, rows);
    for (size_t k = 0; k < n; k++) {
        double g = norm[k];
        for (int32_t i = 0; i < w->parts; i++) {
            const wf_module *m = magnitude_of(w, &w->part[i]);
            float            v;
            if (m == NULL) continue;
            wf_tensor_read(m->tensor[WF_TENSOR_MAGNITUDE], k, 1, &v);
            g += w->part[i].weight * ((double)v - norm[k]);
        }
        r->magnitude[k] = (float)g;
    }
    r->of_columns = !rows;
    return check_finite(w, r->magnitude, n);
}

/* ---- the layer ------------------------------------------------------------------------------- */

static wf_merge_bound bound_of(const work *w)
{
    bool    conv = w->l->kernel > 1 && w->o->conv_rank > 0;
    int32_t rank = conv ? w->o->conv_rank : w->o->rank;

    return (wf_merge_bound){ (size_t)rank, w->o->error, w->o->clamp };
}

static void store(wf_merged_layer *r, const wf_merge_factors *f)
{
    r->down = f->down;
    r->up = f->up;
    r->rank = (int32_t)f->rank;
    r->alpha = (double)f->rank;
}

/* A difference, or pairs side by side, as factors of the rank that is asked. The sum of a few pairs
 * is factored through them. */
static weft_status merge_and_factor(work *w, wf_merged_layer *r)
{
    bool             stack = (w->method->kind == WEFT_MERGE_SUM || w->method->stack != NULL) &&
                 (w->o->flags & WEFT_MERGE_DOUBLE_SCALE) == 0 && all_pairs(w);
    wf_merged_layer  pairs = { 0 };
    wf_merge_factors f;
    float           *D;

    if (stack) {
        WF_TRY(merge_stacked(w, &pairs));
        WF_TRY(product_of(w, &pairs, &D));
    } else {
        WF_TRY(merge_differences(w, w->method->combine, &D));
    }
    if (stack && (size_t)pairs.rank < WF_MIN(w->out, w->K))
        WF_TRY(wf_merge_factor_pair(pairs.up, pairs.down, w->out, w->K, (size_t)pairs.rank,
                                    bound_of(w), w->bag, &f, w->err));
    else
        WF_TRY(wf_merge_factor(D, w->out, w->K, bound_of(w), w->bag, &f, w->err));
    store(r, &f);
    return measure(w, D, r);
}

static weft_status merge_whole(work *w, wf_merged_layer *r)
{
    WF_TRY(merge_differences(w, w->method->combine, &r->full));
    r->norm = norm_of(r->full, w->out * w->K);
    return WEFT_OK;
}

static weft_status merge_weights(work *w, wf_merged_layer *r)
{
    const weft_merge_options *o = w->o;
    bool   kohya = (o->flags & WEFT_MERGE_KOHYA) != 0;
    bool   apart = (o->flags & WEFT_MERGE_FACTORS) != 0 || (kohya && w->method->stack == NULL);
    float *exact;

    if (w->l->kind == WEFT_LAYER_NORM) return merge_whole(w, r);
    if (apart || kohya || (w->method->can & WF_MERGE_PAIRS_ONLY) != 0) WF_TRY(check_ranks(w));
    if (apart || kohya) {
        WF_TRY(merge_differences(w, wf_merge_add_up, &exact));
        WF_TRY(apart ? merge_factors(w, r) : merge_stacked(w, r));
        return measure(w, exact, r);
    }
    if (o->rank > 0 || o->error > 0) return merge_and_factor(w, r);
    if (w->method->stack == NULL || !all_pairs(w)) return merge_whole(w, r);
    WF_TRY(merge_stacked(w, r));
    return measure(w, NULL, r);
}

/* What is zero is left out; but a magnitude stands on something. */
static weft_status drop_zeros(const work *w, wf_merged_layer *r)
{
    if (r->norm > 0) return WEFT_OK;
    r->down = r->up = r->full = NULL;
    r->rank = 0;
    if (r->magnitude != NULL && (r->full = floats(w, w->out, w->K)) == NULL) return WEFT_E_NOMEM;
    return WEFT_OK;
}

weft_status wf_merge_one_layer(const wf_merge_method *method, const weft_merge_options *o,
                               int32_t sources, const wf_layer *l, const wf_merge_part *part,
                               int32_t parts, wf_bag *bag, wf_merged_layer *out, weft_error *err)
{
    size_t      n = (size_t)parts;
    work        w = { .method = method, .o = o, .l = l, .part = part, .parts = parts,
                      .sources = sources, .out = (size_t)l->out,
                      .K = (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel, .bag = bag,
                      .err = err };
    weft_status st = WEFT_OK;

    *out = (wf_merged_layer){ 0 };
    w.tensor = wf_bag_take(bag, 2 * n, sizeof *w.tensor);
    w.weight = wf_bag_take(bag, n, sizeof *w.weight);
    w.source = wf_bag_take(bag, n, sizeof *w.source);
    if (w.tensor == NULL || w.weight == NULL || w.source == NULL)
        return wf_nomem(err, n * sizeof *w.tensor, "a layer's adapters");
    for (int32_t i = 0; i < parts; i++) w.source[i] = part[i].source;
    WF_TRY(wf_blas_hold(1, err));
    wf_blas_begin();
    if (l->kind != WEFT_LAYER_NORM) st = merge_magnitudes(&w, out);
    if (st == WEFT_OK) st = merge_weights(&w, out);
    if (st == WEFT_OK) st = merge_biases(&w, out);
    if (st == WEFT_OK) st = drop_zeros(&w, out);
    wf_blas_end();
    wf_blas_let_go(1);
    return st;
}
