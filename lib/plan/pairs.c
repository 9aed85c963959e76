/* pairs.c - a merged copy of a layer whose adapters are all pairs of thin factors.
 *
 * The general way makes the whole copy, and each part adds its whole difference: passes over
 * memory, of which a large layer has more than the caches. Here a strip of rows is widened, and
 * the products of all parts are added to it while it is in the cache. Strips are cut by shape. */
#include "model/networks.h"
#include "plan/plan_internal.h"
#include "tensor/gemm.h"

enum {
    STRIP_FLOATS = 64 * 1024, /* 256 KB: a quarter to a half of a second-level cache */
    STRIP_ROWS = 32           /* at least: each strip packs the down factor again    */
};

static bool adds(const wf_cell *cell)
{
    return cell->number != 0;
}

bool wf_patch_of_pairs(const wf_patch *patch, const wf_layer *layer, const wf_cell *cells)
{
    for (int32_t i = 0; i < patch->parts; i++) {
        const wf_module *m = patch->part[i].module;
        if (adds(&cells[i]) &&
            (cells[i].vector != 0 || wf_module_of_weight(m) ||
             wf_slice_form(&patch->part[i].slice, m, layer) != WF_FORM_PAIR ||
             wf_module_pair_rank(m) != m->rank)) /* it is written shorter than as a pair */
            return false;
    }
    return true;
}

/* Floats of the factors of all parts that add something. */
static bool factor_floats(const wf_patch *patch, const wf_layer *layer, const wf_cell *cells,
                          size_t *floats)
{
    size_t rank = 0;

    for (int32_t i = 0; i < patch->parts; i++)
        if (adds(&cells[i]) && !wf_add(rank, (size_t)patch->part[i].module->rank, &rank))
            return false;
    return wf_mul(rank, wf_layer_columns(layer) + (size_t)layer->out, floats);
}

size_t wf_plan_pairs_scratch(const weft_plan *p, const wf_patch *patch, const wf_cell *cells)
{
    const wf_layer *l = &wf_model_layers(p->model, &(size_t){ 0 })[patch->layer];
    size_t          floats;

    return !wf_mixed_matters(p, l, patch->part, patch->parts) &&
           wf_patch_of_pairs(patch, l, cells) && factor_floats(patch, l, cells, &floats) &&
           wf_mul(floats, sizeof(float), &floats) ? floats : 0;
}

/* The factors of the parts that add, one after another: down (rank, K), up (rank, out) with the
 * part's coefficient in it. */
static weft_status read_factors(const wf_patch *patch, const wf_layer *layer, const wf_cell *cells,
                                float *factor, const weft_allocator *alloc, weft_error *err)
{
    size_t K = wf_layer_columns(layer), out = (size_t)layer->out;

    for (int32_t i = 0; i < patch->parts; i++) {
        const wf_patch_part *s = &patch->part[i];
        size_t               rank = (size_t)s->module->rank;
        if (!adds(&cells[i])) continue;
        float *up = factor + rank * K;
        WF_TRY(wf_slice_pair(&s->slice, s->module, layer, factor, up, alloc, err));
        for (size_t k = 0; k < rank * out; k++)
            up[k] = (float)(s->scale * (double)cells[i].number * up[k]);
        factor = up + rank * out;
    }
    return WEFT_OK;
}

static void fill(const wf_patch *patch, const wf_layer *layer, const wf_cell *cells,
                 const wf_kernels *k, const float *factors, float *weight)
{
    size_t K = wf_layer_columns(layer), out = (size_t)layer->out,
           strip = WF_MAX(STRIP_FLOATS / K, (size_t)STRIP_ROWS);

    for (size_t o = 0; o < out; o += strip) {
        size_t       rows = WF_MIN(strip, out - o);
        const float *factor = factors;
        wf_touch(weight + o * K, rows * K * sizeof *weight);
        wf_layer_load_rows(weight + o * K, k, layer, o, rows);
        for (int32_t i = 0; i < patch->parts; i++) {
            size_t rank = (size_t)patch->part[i].module->rank;
            if (!adds(&cells[i])) continue;
            wf_gemm_tn(weight + o * K, K, factor + rank * K + o, out, factor, K, rows, K, rank, 1);
            factor += rank * (K + out);
        }
    }
}

weft_status wf_patch_fill_pairs(const wf_patch *patch, const wf_layer *layer, const wf_kernels *k,
                                const wf_cell *cells, float *weight, float *bias,
                                const weft_allocator *alloc, weft_error *err)
{
    size_t      floats;
    weft_status st;

    if (!factor_floats(patch, layer, cells, &floats))
        return wf_fail(err, WEFT_E_ARG, "%s: the adapters' factors are too large", layer->name);
    float *factors = wf_zalloc(alloc, floats, sizeof *factors);
    if (factors == NULL) return wf_nomem(err, floats * sizeof *factors, "a layer's factors");
    st = read_factors(patch, layer, cells, factors, alloc, err);
    if (st == WEFT_OK && (st = wf_blas_hold(1, err)) == WEFT_OK) {
        wf_blas_begin();
        fill(patch, layer, cells, k, factors, weight);
        wf_blas_end();
        wf_blas_let_go(1);
    }
    wf_free(alloc, factors);
    for (int32_t i = 0; i < patch->parts && st == WEFT_OK && bias != NULL; i++) {
        const wf_patch_part *s = &patch->part[i];
        if (adds(&cells[i]))
            st = wf_slice_add_bias(&s->slice, s->module, layer, s->scale,
                                   s->inside * cells[i].number, bias, &(bool){ false }, alloc, err);
    }
    return st;
}
