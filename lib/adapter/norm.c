/* norm.c - differences of a normalisation's weight and bias: w + w_norm, b + b_norm.
 *
 *   w_norm (channels), b_norm (channels), either may be missing. LyCORIS' keys. */
#include "adapter/factor.h"

static weft_status shape(wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *w = m->tensor[WF_TENSOR_W_NORM], *b = m->tensor[WF_TENSOR_B_NORM];

    m->out = (int32_t)WF_MIN((w != NULL ? w : b)->count, (size_t)INT32_MAX);
    m->in = m->kernel = 1;
    m->rank = 0;
    m->scale = 1;
    m->norm = true;
    if (w != NULL && w->rank != 1) return wf_module_wrong_shape(w, source, "(channels)", err);
    if (b != NULL && (b->rank != 1 || b->shape[0] != m->out))
        return wf_module_wrong_shape(b, source, "(channels), as many as w_norm has", err);
    return WEFT_OK;
}

static bool fits(const wf_module *m, const wf_layer *l)
{
    return l->kind == WEFT_LAYER_NORM && m->out == l->out;
}

static int32_t form(const wf_module *m, const wf_layer *l)
{
    (void)m, (void)l;
    return WF_FORM_NORM;
}

static weft_status add(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                       const weft_allocator *alloc, weft_error *err)
{
    (void)l, (void)alloc, (void)err;
    if (m->tensor[WF_TENSOR_W_NORM] != NULL)
        wf_tensor_add(m->tensor[WF_TENSOR_W_NORM], scale * c, dst);
    return WEFT_OK;
}

static bool add_bias(const wf_module *m, const wf_layer *l, double scale, double c, float *dst)
{
    const wf_tensor *t = m->tensor[WF_TENSOR_B_NORM];

    (void)l;
    if (t != NULL && dst != NULL) wf_tensor_add(t, scale * c, dst);
    return t != NULL;
}

const wf_family wf_family_norm = {
    .name = "norm",
    .title = "norm",
    .any = WF_BIT(WF_TENSOR_W_NORM) | WF_BIT(WF_TENSOR_B_NORM),
    .shape = shape,
    .fits = fits,
    .form = form,
    .add = add,
    .add_bias = add_bias,
    .dialects = 1 << WEFT_DIALECT_KOHYA,
};
