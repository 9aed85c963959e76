/* module.c - what holds for a module of any family: its form, its sum, its bias and its scale.
 *
 * Three tensors belong to no family. A magnitude makes any module DoRA: the family's own difference
 * then turns the weight, and the whole becomes a dense one. A difference of the bias, or a bias to
 * put in its place, stands beside the family's own. */
#include <math.h>

#include "adapter/factor.h"
#include "tensor/gemm.h"

wf_tensor_set wf_module_tensors(const wf_module *m)
{
    wf_tensor_set parts = 0;

    for (int32_t p = 0; p < WF_TENSORS; p++)
        if (m->tensor[p] != NULL) parts |= WF_BIT(p);
    return parts;
}

const char *wf_module_family_name(const wf_module *m)
{
    return m->tensor[WF_TENSOR_MAGNITUDE] != NULL ? "dora" : m->family->name;
}

int32_t wf_module_form(const wf_module *m, const wf_layer *l)
{
    return m->tensor[WF_TENSOR_MAGNITUDE] != NULL ? WF_FORM_DENSE : m->family->form(m, l);
}

bool wf_module_fits(const wf_module *m, const wf_layer *l)
{
    const wf_tensor *bias[] = { m->tensor[WF_TENSOR_DIFF_B], m->tensor[WF_TENSOR_REPLACE_B] };

    for (size_t i = 0; i < WF_LEN(bias); i++)
        if (bias[i] != NULL && bias[i]->count != (size_t)l->out) return false;
    if (m->tensor[WF_TENSOR_MAGNITUDE] != NULL && !wf_dora_fits(m, l)) return false;
    if (m->family->fits != NULL) return m->family->fits(m, l);
    return l->kind != WEFT_LAYER_NORM && m->out == l->out && m->in == l->in &&
           m->kernel == l->kernel;
}

int32_t wf_module_pair_rank(const wf_module *m)
{
    return m->family->pair_rank != NULL ? m->family->pair_rank(m) : m->rank;
}

/* Families may multiply matrices, on the caller's thread. */
static weft_status begin(weft_error *err)
{
    WF_TRY(wf_blas_hold(1, err));
    wf_blas_begin();
    return WEFT_OK;
}

static weft_status end(weft_status st)
{
    wf_blas_end();
    wf_blas_let_go(1);
    return st;
}

weft_status wf_module_pair(const wf_module *m, const wf_layer *l, float *down, float *up,
                           const weft_allocator *alloc, weft_error *err)
{
    WF_TRY(begin(err));
    return end(m->family->pair(m, l, down, up, alloc, err));
}

weft_status wf_module_add(const wf_module *m, const wf_layer *l, double scale, double inside,
                          double c, float *dst, const weft_allocator *alloc, weft_error *err)
{
    WF_TRY(begin(err));
    return end(m->tensor[WF_TENSOR_MAGNITUDE] != NULL
                   ? wf_dora_add(m, l, m->family->add, scale, inside, c, dst, alloc, err)
                   : m->family->add(m, l, scale, c, dst, alloc, err));
}

weft_status wf_module_add_inner(const wf_module *m, const wf_layer *l, double scale, double c,
                                float *dst, const weft_allocator *alloc, weft_error *err)
{
    WF_TRY(begin(err));
    return end(m->family->add(m, l, scale, c, dst, alloc, err));
}

bool wf_module_of_weight(const wf_module *m)
{
    return m->tensor[WF_TENSOR_MAGNITUDE] != NULL || m->tensor[WF_TENSOR_REPLACE] != NULL ||
           m->family->of_weight ||
           (m->family->reads_weight != NULL && m->family->reads_weight(m));
}

weft_status wf_module_kron(const wf_module *m, const wf_layer *l, float *w1, float *w2,
                           const weft_allocator *alloc, weft_error *err)
{
    WF_TRY(begin(err));
    return end(m->family->kron(m, l, w1, w2, alloc, err));
}

weft_status wf_module_add_bias(const wf_module *m, const wf_layer *l, double scale, double c,
                               float *dst, bool *any, weft_error *err)
{
    const wf_tensor *t = m->tensor[WF_TENSOR_DIFF_B], *whole = m->tensor[WF_TENSOR_REPLACE_B];

    (void)err;
    *any = t != NULL || whole != NULL;
    if (t != NULL && dst != NULL) wf_tensor_add(t, c, dst);
    if (whole != NULL && dst != NULL) {
        wf_tensor_add(whole, c, dst);
        for (size_t o = 0; l->bias != NULL && o < whole->count; o++)
            dst[o] -= (float)(c * l->bias[o]);
    }
    if (m->family->add_bias != NULL) *any |= m->family->add_bias(m, l, scale, c, dst);
    return WEFT_OK;
}

weft_status wf_module_settle(wf_module *m, const struct wf_settings *s,
                             const struct wf_config *config, const char *path, weft_error *err)
{
    return m->family->settle != NULL ? m->family->settle(m, s, config, path, err) : WEFT_OK;
}

void wf_module_set_scale(wf_module *m, double divisor)
{
    if (m->has_alpha && m->alpha == 0 && m->underscore) m->zero_alpha = true;
    if (!m->has_alpha || m->zero_alpha) m->alpha = (float)m->rank;
    m->scale = (float)((double)m->alpha / (m->rslora ? sqrt(divisor) : divisor));
}
