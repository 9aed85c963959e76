/* shira.c - SHiRA: a sparse difference, a few values and where they stand.
 *
 *   shira_weight (n), shira_indices (2, n): rows, then columns
 *   Delta W[row, column] = value; what stands at one place twice is added up
 *
 * The indices are in every file, so that whatever mask was trained is what is read. PEFT has it for
 * linear layers and saves no strength: 1. Bhardwaj et al., Sparse High Rank Adapters, 2024. */
#include "adapter/factor.h"
#include "adapter/save.h"

/* The largest row and column of a module, found when it is opened. */
typedef struct shira {
    int32_t row, column;
} shira;

static size_t index_at(const wf_module *m, size_t i)
{
    float v;

    wf_tensor_read(m->tensor[WF_TENSOR_SHIRA_INDICES], i, 1, &v);
    return (size_t)v;
}

static weft_status shape(wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *v = m->tensor[WF_TENSOR_SHIRA_WEIGHT],
                    *at = m->tensor[WF_TENSOR_SHIRA_INDICES];
    shira           *most = m->extra;

    if (v->rank != 1) return wf_module_wrong_shape(v, source, "(n)", err);
    if (at->rank != 2 || at->shape[0] != 2 || at->shape[1] != v->shape[0])
        return wf_module_wrong_shape(at, source, "(2, n) with the n of shira_weight", err);
    WF_TRY(wf_tensor_check_indices(at, 0, at->count, WF_INDICES_END, source, err));
    m->rank = m->out = m->in = 0;
    m->kernel = 1;
    m->scale = 1;
    for (size_t i = 0; i < v->count; i++) {
        most->row = WF_MAX(most->row, (int32_t)index_at(m, i));
        most->column = WF_MAX(most->column, (int32_t)index_at(m, v->count + i));
    }
    return WEFT_OK;
}

static bool fits(const wf_module *m, const wf_layer *l)
{
    const shira *most = m->extra;

    return l->kind != WEFT_LAYER_NORM && l->kernel == 1 && most->row < l->out &&
           most->column < l->in;
}

static weft_status add(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                       const weft_allocator *alloc, weft_error *err)
{
    size_t n = m->tensor[WF_TENSOR_SHIRA_WEIGHT]->count, in = (size_t)l->in;

    (void)alloc, (void)err;
    for (size_t i = 0; i < n; i++) {
        float v;
        wf_tensor_read(m->tensor[WF_TENSOR_SHIRA_WEIGHT], i, 1, &v);
        dst[index_at(m, i) * in + index_at(m, n + i)] += (float)(scale * c * v);
    }
    return WEFT_OK;
}

/* ---- PEFT's configuration -------------------------------------------------------------------- */

static const wf_peft_type peft_types[] = {
    { .name = "SHIRA", .known_by = WF_BIT(WF_TENSOR_SHIRA_WEIGHT), .rank = "r" },
    { .name = NULL },
};

/* PEFT counts the values as those of two factors of rank r. */
static double rank_at(const wf_peft_writer *w, size_t i)
{
    const wf_layer *l = wf_peft_layer(w, i);
    return (double)wf_peft_module(w, i)->tensor[WF_TENSOR_SHIRA_WEIGHT]->count /
           ((double)l->in + l->out);
}

static weft_status write_peft(const wf_peft_writer *w)
{
    double r = rank_at(w, wf_peft_next(w, 0));

    for WF_EACH(w, i)
        if (rank_at(w, i) != r || r != (double)(int64_t)r)
            return wf_peft_refuse(w, i, "has a number of values that no common rank gives");
    wf_peft_common(w, "init_weights");
    wf_peft_value(w, "r", r);
    wf_peft_text(w, "mask_type", "random");
    return WEFT_OK;
}

const wf_family wf_family_shira = {
    .name = "shira",
    .title = "SHiRA",
    .needs = WF_BIT(WF_TENSOR_SHIRA_WEIGHT) | WF_BIT(WF_TENSOR_SHIRA_INDICES),
    .extra_size = sizeof(shira),
    .shape = shape,
    .fits = fits,
    .misfit = "it has values outside of the layer, or the layer is a convolution:",
    .form = wf_form_dense,
    .add = add,
    .dialects = 1 << WEFT_DIALECT_PEFT,
    .peft_types = peft_types,
    .write_peft = write_peft,
};
