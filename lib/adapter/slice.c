/* slice.c - a module at some rows of a layer, with some of its own.
 *
 * A family knows whole matrices only. So it is asked for the whole, as for a layer that has all of
 * the module's rows, and the rows of the slice are taken out of it. For a pair that is its up
 * factor; the down factor is the same for every slice. A family that depends on the layer's own
 * weight cannot be asked so: no layer has that weight in one piece. */
#include "adapter/family.h"

bool wf_slice_whole(const wf_slice *b, const wf_layer *l)
{
    return b->row == 0 && b->from == 0 && b->rows == l->out && b->of == l->out;
}

/* The layer that would have all of the module's rows. */
static wf_layer whole_layer(const wf_slice *b, const wf_layer *l)
{
    wf_layer whole = *l;

    whole.out = b->of;
    whole.weight = NULL;
    whole.bias = NULL;
    return whole;
}

bool wf_slice_fits(const wf_slice *b, const wf_module *m, const wf_layer *l)
{
    wf_layer whole = whole_layer(b, l);

    if (wf_slice_whole(b, l)) return wf_module_fits(m, l);
    if (wf_module_of_weight(m) || l->kind == WEFT_LAYER_NORM ||
        m->tensor[WF_TENSOR_REPLACE_B] != NULL)
        return false;
    if (b->rows < 1 || b->row < 0 || b->row > l->out - b->rows) return false;
    if (b->from < 0 || b->from > b->of - b->rows) return false;
    return wf_module_fits(m, &whole);
}

int32_t wf_slice_form(const wf_slice *b, const wf_module *m, const wf_layer *l)
{
    wf_layer whole = whole_layer(b, l);
    int32_t  form;

    if (wf_slice_whole(b, l)) return wf_module_form(m, l);
    form = wf_module_form(m, &whole);
    return form == WF_FORM_KRON ? WF_FORM_DENSE : form;
}

weft_status wf_slice_pair(const wf_slice *b, const wf_module *m, const wf_layer *l, float *down,
                            float *up, const weft_allocator *alloc, weft_error *err)
{
    wf_layer    whole = whole_layer(b, l);
    size_t      r = (size_t)wf_module_pair_rank(m), of = (size_t)b->of, out = (size_t)l->out;
    weft_status st;

    if (wf_slice_whole(b, l)) return wf_module_pair(m, l, down, up, alloc, err);
    if (up == NULL) return wf_module_pair(m, &whole, down, NULL, alloc, err);
    float *all = wf_zalloc(alloc, r * of, sizeof *all); /* as large as the tensor of the file */
    if (all == NULL) return wf_nomem(err, r * of * sizeof *all, "an adapter's factors");
    st = wf_module_pair(m, &whole, down, all, alloc, err);
    if (st == WEFT_OK) memset(up, 0, r * out * sizeof *up);
    for (size_t p = 0; p < r && st == WEFT_OK; p++)
        memcpy(up + p * out + b->row, all + p * of + b->from, (size_t)b->rows * sizeof *up);
    wf_free(alloc, all);
    return st;
}

weft_status wf_slice_add(const wf_slice *b, const wf_module *m, const wf_layer *l, double scale,
                           double inside, double c, float *dst, const weft_allocator *alloc,
                           weft_error *err)
{
    wf_layer    whole = whole_layer(b, l);
    size_t      K = (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel, floats;
    weft_status st;

    if (wf_slice_whole(b, l)) return wf_module_add(m, l, scale, inside, c, dst, alloc, err);
    if (!wf_mul((size_t)b->of, K, &floats))
        return wf_fail(err, WEFT_E_ARG, "%s: the product is too large", m->key);
    float *all = wf_zalloc(alloc, floats, sizeof *all);
    if (all == NULL) return wf_nomem(err, floats * sizeof *all, "an adapter's product");
    st = wf_module_add(m, &whole, scale, inside, c, all, alloc, err);
    const float *from = all + (size_t)b->from * K;
    float       *to = dst + (size_t)b->row * K;
    for (size_t i = 0; st == WEFT_OK && i < (size_t)b->rows * K; i++) to[i] += from[i];
    wf_free(alloc, all);
    return st;
}

weft_status wf_slice_add_bias(const wf_slice *b, const wf_module *m, const wf_layer *l,
                                double scale, double c, float *dst, bool *any,
                                const weft_allocator *alloc, weft_error *err)
{
    wf_layer    whole = whole_layer(b, l);
    weft_status st;

    if (wf_slice_whole(b, l)) return wf_module_add_bias(m, l, scale, c, dst, any, err);
    if (dst == NULL) return wf_module_add_bias(m, &whole, scale, c, NULL, any, err);
    float *all = wf_zalloc(alloc, (size_t)b->of, sizeof *all);
    if (all == NULL) return wf_nomem(err, (size_t)b->of * sizeof *all, "a bias");
    st = wf_module_add_bias(m, &whole, scale, c, all, any, err);
    for (int32_t i = 0; st == WEFT_OK && *any && i < b->rows; i++)
        dst[b->row + i] += all[b->from + i];
    wf_free(alloc, all);
    return st;
}
