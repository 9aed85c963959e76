/* emit.c - a merged layer as tensors of an adapter's file.
 *
 * In kohya's dialect with LyCORIS' keys, because that has a word for everything: factors with
 * alpha, whole differences, biases, magnitudes, normalisations. Whoever wants another dialect has
 * weft_adapter_save(). */
#include "merge/merge_internal.h"

/* n floats named stem + ending. */
static weft_status put(weft_tensors *t, const char *stem, const char *ending, const float *v,
                       int32_t rank, const int64_t *shape, size_t n, weft_error *err)
{
    char   name[WF_MERGE_NAME + 32];
    float *own = wf_tensors_own(t, n * sizeof *own, err);

    if (own == NULL) return WEFT_E_NOMEM;
    memcpy(own, v, n * sizeof *own);
    (void)wf_format(name, sizeof name, "%s.%s", stem, ending);
    return wf_tensors_add(t, name, WF_F32, rank, shape, own, err);
}

static weft_status put_factors(weft_tensors *t, const char *stem, const wf_layer *l,
                               const wf_merged_layer *r, int32_t dims, weft_error *err)
{
    size_t  rank = (size_t)r->rank, k = (size_t)l->kernel, K = (size_t)l->in * k * k;
    int64_t down[] = { r->rank, l->in, l->kernel, l->kernel }, up[] = { l->out, r->rank, 1, 1 };
    float   alpha = (float)r->alpha;

    WF_TRY(put(t, stem, "lora_down.weight", r->down, dims, down, rank * K, err));
    WF_TRY(put(t, stem, "lora_up.weight", r->up, dims, up, (size_t)l->out * rank, err));
    return put(t, stem, "alpha", &alpha, 0, NULL, 1, err);
}

weft_status wf_merge_emit(weft_tensors *t, const weft_model *model, const wf_layer *l,
                          const wf_merged_layer *r, weft_error *err)
{
    bool    norm = l->kind == WEFT_LAYER_NORM;
    int32_t dims = norm ? 1 : l->kind == WEFT_LAYER_CONV ? 4 : 2;
    int64_t whole[] = { l->out, l->in, l->kernel, l->kernel }, g[] = { l->out, 1, 1, 1 };
    size_t  out = (size_t)l->out, in = (size_t)l->in, kk = (size_t)l->kernel * (size_t)l->kernel;
    char    stem[WF_MERGE_NAME];

    if (!wf_name_kohya(model, l, stem, sizeof stem))
        return wf_fail(err, WEFT_E_UNSUPPORTED, "%s has no name in an adapter's file", l->name);
    if (r->of_columns) g[0] = 1, g[1] = l->in;
    if (r->down != NULL) WF_TRY(put_factors(t, stem, l, r, dims, err));
    if (r->full != NULL)
        WF_TRY(put(t, stem, norm ? "w_norm" : "diff", r->full, dims, whole, out * in * kk, err));
    if (r->bias != NULL)
        WF_TRY(put(t, stem, norm ? "b_norm" : "diff_b", r->bias, 1, whole, out, err));
    if (r->magnitude != NULL)
        WF_TRY(put(t, stem, "dora_scale", r->magnitude, dims, g, r->of_columns ? in : out, err));
    return WEFT_OK;
}
