/* weight_dependent.c - combining weight-dependent adapters on one layer.
 *
 * LoRA adds the same to any weight. DoRA, OFT, BOFT, (IA)^3, GLoRA and a whole weight do not:
 * beside other adapters it matters which weight they see. By default they see the base's: a sum of
 * differences without an order, which any table of coefficients can hold. The other policies make
 * one weight of all parts together:
 *
 *   INSIDE     additive parts first, then the one that depends on the weight, on their result
 *   STACK      each part on the result of those before it
 *   DIRECTION  V = W + sum c Delta, g = |W| + sum over DoRA c (g_i - |W|), and then g V / |V|
 *
 * The result is no sum of parts any more. So these layers are computed from a merged copy, and
 * their coefficients must not change. A part sees the weight so far through a copy of the layer
 * that has this weight in place of the base's. */
#include <math.h>

#include "model/networks.h"
#include "plan/method/method.h"

const char *wf_mixed_name(int32_t mixed)
{
    static const char *const names[] = { "delta", "inside", "stack", "direction" };
    return names[mixed];
}

/* ---- when it matters, and what is allowed ---------------------------------------------------- */

static bool is_dora(const wf_patch_part *s)
{
    return s->module->tensor[WF_TENSOR_MAGNITUDE] != NULL;
}

/* Does this part depend on what others made? Under STACK a bias in the base's place does too. */
static bool depends(const weft_plan *p, const wf_patch_part *s)
{
    return wf_module_of_weight(s->module) ||
           (p->mixed == WEFT_MIXED_STACK && s->module->tensor[WF_TENSOR_REPLACE_B] != NULL);
}

bool wf_mixed_matters(const weft_plan *p, const wf_layer *layer, const wf_patch_part *part,
                      int32_t parts)
{
    int32_t dependent = 0, dora = 0;

    if (p->mixed == WEFT_MIXED_DELTA || layer->kind == WEFT_LAYER_NORM) return false;
    for (int32_t i = 0; i < parts; i++) {
        dependent += depends(p, &part[i]);
        dora += is_dora(&part[i]);
    }
    return p->mixed == WEFT_MIXED_DIRECTION ? dora > 0 : dependent > 0 && parts > 1;
}

static const char *adapter_of(const weft_plan *p, const wf_slot *slot)
{
    return wf_adapter_name(p->entry[slot->adapter].bound->adapter);
}

static weft_status check_inside(const weft_plan *p, const wf_layer *layer, const wf_slot *slot,
                                const wf_patch_part *part, int32_t parts, weft_error *err)
{
    int32_t first = -1;

    for (int32_t i = 0; i < parts; i++) {
        if (!depends(p, &part[i])) continue;
        if (first >= 0)
            return wf_fail(
                err, WEFT_E_UNSUPPORTED,
                "%s: adapters %s and %s both depend on its weight, and policy inside takes one; "
                "stack and direction take more",
                layer->name, adapter_of(p, &slot[first]), adapter_of(p, &slot[i]));
        first = i;
    }
    return WEFT_OK;
}

static weft_status check_direction(const weft_plan *p, const wf_layer *layer, const wf_slot *slot,
                                   const wf_patch_part *part, int32_t parts, weft_error *err)
{
    int32_t first = -1;

    for (int32_t i = 0; i < parts; i++) {
        const wf_module *m = part[i].module;
        if (!is_dora(&part[i]) && depends(p, &part[i]))
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "%s: adapter %s (%s) depends on its weight without being DoRA, and "
                           "policy direction "
                           "takes DoRA and additive adapters",
                           layer->name, adapter_of(p, &slot[i]), m->family->title);
        if (!is_dora(&part[i])) continue;
        if (first >= 0 && wf_dora_rows(m, layer) != wf_dora_rows(part[first].module, layer))
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "%s: one of adapters %s and %s has magnitudes of rows and one of "
                           "columns, and policy "
                           "direction takes one kind",
                           layer->name, adapter_of(p, &slot[first]), adapter_of(p, &slot[i]));
        first = i;
    }
    return WEFT_OK;
}

weft_status wf_mixed_check(const weft_plan *p, const wf_sheet *s, const wf_layer *layer,
                           const wf_slot *slot, const wf_patch_part *part, int32_t parts,
                           bool constant, weft_error *err)
{
    if (!constant)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: policy %s needs coefficients that are the same in every call of one "
                       "branch, and %s "
                       "has others; delta does without",
                       layer->name, wf_mixed_name(p->mixed), s->method->title);
    if (p->mixed == WEFT_MIXED_INSIDE) return check_inside(p, layer, slot, part, parts, err);
    return p->mixed == WEFT_MIXED_DIRECTION ? check_direction(p, layer, slot, part, parts, err)
                                            : WEFT_OK;
}

/* ---- one after another ----------------------------------------------------------------------- */

/* A layer being made: its weight (out, K) and, unless NULL, bias (out) so far. */
typedef struct making {
    const wf_layer       *layer;
    float                *weight;
    float                *bias;
    const weft_allocator *alloc;
} making;

static weft_status add_part(const making *x, const wf_patch_part *s, const wf_layer *seen,
                            float cell, weft_error *err)
{
    WF_TRY(wf_slice_add(&s->slice, s->module, seen, s->scale, s->inside, cell, x->weight, x->alloc,
                        err));
    if (x->bias == NULL) return WEFT_OK;
    return wf_slice_add_bias(&s->slice, s->module, seen, s->scale, s->inside * cell, x->bias,
                             &(bool){ false }, x->alloc, err);
}

/* Apply a part to the weight so far, and under STACK to the bias so far. */
static weft_status add_dependent(const making *x, const wf_patch_part *s, bool stack, float cell,
                                 weft_error *err)
{
    size_t out = (size_t)x->layer->out, weight = out * wf_layer_columns(x->layer),
           floats = weight + out;
    wf_layer seen = *x->layer;
    float   *copy = wf_zalloc(x->alloc, floats, sizeof *copy);

    if (copy == NULL) return wf_nomem(err, floats * sizeof *copy, "a layer's weight");
    wf_rows_as_stored(x->layer, x->weight, (size_t)x->layer->out, copy);
    seen.weight = copy;
    seen.dtype = WF_F32;
    if (stack && x->bias != NULL) seen.bias = memcpy(copy + weight, x->bias, out * sizeof *copy);
    weft_status st = add_part(x, s, &seen, cell, err);
    wf_free(x->alloc, copy);
    return st;
}

static weft_status make_stack(const weft_plan *p, const making *x, const wf_patch *patch,
                              const wf_cell *cells, weft_error *err)
{
    for (int32_t i = 0; i < patch->parts; i++)
        WF_TRY(depends(p, &patch->part[i])
                   ? add_dependent(x, &patch->part[i], true, cells[i].number, err)
                   : add_part(x, &patch->part[i], x->layer, cells[i].number, err));
    return WEFT_OK;
}

static weft_status make_inside(const weft_plan *p, const making *x, const wf_patch *patch,
                               const wf_cell *cells, weft_error *err)
{
    for (int32_t i = 0; i < patch->parts; i++)
        if (!depends(p, &patch->part[i]))
            WF_TRY(add_part(x, &patch->part[i], x->layer, cells[i].number, err));
    for (int32_t i = 0; i < patch->parts; i++)
        if (depends(p, &patch->part[i]))
            WF_TRY(add_dependent(x, &patch->part[i], false, cells[i].number, err));
    return WEFT_OK;
}

/* ---- directions and magnitudes --------------------------------------------------------------- */

/* weight becomes g weight / |weight|, along rows or columns; what is zero stays zero. */
static void take_magnitudes(const wf_layer *l, const double *g, double *norm, bool rows,
                            float *weight)
{
    size_t K = wf_layer_columns(l), in = (size_t)l->in;

    wf_dora_norms(norm, weight, l, rows);
    for (size_t o = 0; o < (size_t)l->out; o++)
        for (size_t i = 0; i < K; i++) {
            size_t at = rows ? o : i % in;
            weight[o * K + i] = norm[at] > 0 ? (float)(g[at] * weight[o * K + i] / norm[at]) : 0;
        }
}

static weft_status make_direction(const making *x, const wf_patch *patch, const wf_cell *cells,
                                  weft_error *err)
{
    const wf_layer *l = x->layer;
    bool            rows = true;
    weft_status     st = WEFT_OK;

    for (int32_t i = 0; i < patch->parts; i++)
        if (is_dora(&patch->part[i])) rows = wf_dora_rows(patch->part[i].module, l);
    size_t  n = (size_t)(rows ? l->out : l->in);
    double *g = wf_zalloc(x->alloc, 2 * n, sizeof *g);
    if (g == NULL) return wf_nomem(err, 2 * n * sizeof *g, "a layer's magnitudes");
    double *norm = g + n;

    wf_dora_norms(norm, x->weight, l, rows);
    memcpy(g, norm, n * sizeof *g);
    for (int32_t i = 0; i < patch->parts && st == WEFT_OK; i++) {
        const wf_patch_part *s = &patch->part[i];
        double           c = s->inside * cells[i].number; /* either is 1 */
        for (size_t k = 0; is_dora(s) && k < n; k++) {
            float v;
            wf_tensor_read(s->module->tensor[WF_TENSOR_MAGNITUDE], k, 1, &v);
            g[k] += c * (v - norm[k]);
        }
        st = wf_slice_whole(&s->slice, l)
                 ? wf_module_add_inner(s->module, l, s->scale, c, x->weight, x->alloc, err)
                 : wf_slice_add(&s->slice, s->module, l, s->scale, 1, c, x->weight, x->alloc, err);
        if (st == WEFT_OK && x->bias != NULL)
            st = wf_slice_add_bias(&s->slice, s->module, l, s->scale, c, x->bias, &(bool){ false },
                                   x->alloc, err);
    }
    if (st == WEFT_OK) take_magnitudes(l, g, norm, rows, x->weight);
    wf_free(x->alloc, g);
    return st;
}

/* ---- the whole ------------------------------------------------------------------------------- */

weft_status wf_plan_patched_weight(const weft_plan *p, const wf_patch *patch, const wf_cell *cells,
                                   const float *const *vectors, float *weight, float *bias,
                                   const weft_allocator *alloc, weft_error *err)
{
    const wf_layer *l = &wf_model_layers(p->model, &(size_t){ 0 })[patch->layer];
    making          x = { l, weight, bias, alloc };

    const wf_kernels *k = wf_model_networks(p->model)->kernels;
    bool            mixed = l->component == WEFT_COMPONENT_DENOISER &&
                 wf_mixed_matters(p, l, patch->part, patch->parts);

    if (bias != NULL && l->bias != NULL) memcpy(bias, l->bias, (size_t)l->out * sizeof *bias);
    else if (bias != NULL) memset(bias, 0, (size_t)l->out * sizeof *bias);
    if (!mixed && wf_patch_of_pairs(patch, l, cells))
        return wf_patch_fill_pairs(patch, l, k, cells, weight, bias, alloc, err);
    wf_layer_load(weight, k, l);
    if (!mixed) return wf_patch_add(patch, l, cells, vectors, weight, bias, alloc, err);
    if (p->mixed == WEFT_MIXED_STACK) return make_stack(p, &x, patch, cells, err);
    return p->mixed == WEFT_MIXED_INSIDE ? make_inside(p, &x, patch, cells, err)
                                         : make_direction(&x, patch, cells, err);
}
