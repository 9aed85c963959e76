/* delora.c - decoupled low-rank adaptation: directions and a strength that are learned apart.
 *
 *   A (r, in), B (out, r), lambda (1), n (in)
 *   Delta W = lambda / r * sum over p of  B[:, p] A[p, :] / (|B[:, p]| |A[p, :]|) * n
 *
 * Each of the r products has length 1 before lambda, and each input's column is as long as n says:
 * the norms of W's columns when training began, which the file keeps. A file without them means
 * the layer's own norms, and the module then depends on W. Norms below 1e-4 count as 1e-4.
 * lambda / r is the module's scale.
 *
 * Keys delora_A delora_B delora_lambda [delora_w_norm]. Bini et al., Decoupling Angles and Strength
 * in Low-rank Adaptation, 2025. */
#include <math.h>

#include "adapter/factor.h"
#include "adapter/save.h"
#include "tensor/gemm.h"

static weft_status shape(wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *A = m->tensor[WF_TENSOR_DELORA_A], *B = m->tensor[WF_TENSOR_DELORA_B],
                    *n = m->tensor[WF_TENSOR_DELORA_NORM];

    if (A->rank != 2) return wf_module_wrong_shape(A, source, "(r, in)", err);
    if (B->rank != 2 || B->shape[1] != A->shape[0])
        return wf_module_wrong_shape(B, source, "(out, r) with the rank of delora_A", err);
    if (n != NULL && (n->rank != 1 || n->shape[0] != A->shape[1]))
        return wf_module_wrong_shape(n, source, "(in) as delora_A has it", err);
    m->rank = (int32_t)A->shape[0];
    m->in = (int32_t)A->shape[1];
    m->out = (int32_t)B->shape[0];
    m->kernel = 1;
    m->alpha = wf_tensor_scalar(m->tensor[WF_TENSOR_DELORA_LAMBDA]);
    m->scale = (float)((double)m->alpha / m->rank);
    return WEFT_OK;
}

static bool reads_weight(const wf_module *m)
{
    return m->tensor[WF_TENSOR_DELORA_NORM] == NULL;
}

/* ---- the factors ----------------------------------------------------------------------------- */

/* 1 / |v|, and no norm is shorter than 1e-4. */
static double inverse_norm(double squares)
{
    return 1 / fmax(sqrt(squares), 1e-4);
}

/* down (r, in) = A / |A[p, :]| * n. `columns` (in) is scratch. */
static weft_status read_down(const wf_module *m, const wf_layer *l, float *down,
                             const weft_allocator *alloc, weft_error *err)
{
    const wf_tensor *n = m->tensor[WF_TENSOR_DELORA_NORM];
    size_t           r = (size_t)m->rank, in = (size_t)m->in, out = (size_t)l->out;
    double          *norm = wf_zalloc(alloc, in, sizeof *norm);
    float           *row = wf_zalloc(alloc, in, sizeof *row);

    if (norm == NULL || row == NULL) {
        wf_free(alloc, row);
        wf_free(alloc, norm);
        return wf_nomem(err, in * (sizeof *norm + sizeof *row), "norms of a layer's columns");
    }
    if (n != NULL) wf_tensor_read(n, 0, in, row);
    for (size_t i = 0; i < in; i++) norm[i] = row[i];
    for (size_t o = 0; o < out && n == NULL; o++) {
        wf_layer_rows(l, o, 1, row);
        for (size_t i = 0; i < in; i++) norm[i] += (double)row[i] * row[i];
    }
    for (size_t i = 0; i < in && n == NULL; i++) norm[i] = sqrt(norm[i]);
    wf_tensor_read(m->tensor[WF_TENSOR_DELORA_A], 0, r * in, down);
    for (size_t p = 0; p < r; p++) {
        double squares = 0;
        for (size_t i = 0; i < in; i++) squares += (double)down[p * in + i] * down[p * in + i];
        double f = inverse_norm(squares);
        for (size_t i = 0; i < in; i++) down[p * in + i] = (float)(f * norm[i] * down[p * in + i]);
    }
    wf_free(alloc, row);
    wf_free(alloc, norm);
    return WEFT_OK;
}

/* up (r, out) = B[:, p] / |B[:, p]|, each column a row. */
static void read_up(const wf_module *m, float *up)
{
    size_t r = (size_t)m->rank, out = (size_t)m->out;

    wf_tensor_transposed(m->tensor[WF_TENSOR_DELORA_B], out, r, up);
    for (size_t p = 0; p < r; p++) {
        double squares = 0;
        for (size_t o = 0; o < out; o++) squares += (double)up[p * out + o] * up[p * out + o];
        double f = inverse_norm(squares);
        for (size_t o = 0; o < out; o++) up[p * out + o] = (float)(f * up[p * out + o]);
    }
}

static weft_status pair(const wf_module *m, const wf_layer *l, float *down, float *up,
                        const weft_allocator *alloc, weft_error *err)
{
    if (up != NULL) read_up(m, up);
    return down == NULL ? WEFT_OK : read_down(m, l, down, alloc, err);
}

/* ---- PEFT's configuration -------------------------------------------------------------------- */

static const wf_peft_type peft_types[] = {
    { .name = "DELORA", .known_by = WF_BIT(WF_TENSOR_DELORA_A), .rank = "r",
      .rank_patterns = "rank_pattern" },
    { .name = NULL },
};

static weft_status write_peft(const wf_peft_writer *w)
{
    wf_peft_common(w, "init_weights");
    wf_peft_numbers(w, "r", "rank_pattern", wf_peft_rank_of);
    wf_peft_value(w, "delora_lambda", 15); /* where training begins; each module has its own now */
    wf_peft_text(w, "bias", "none");
    return WEFT_OK;
}

const wf_family wf_family_delora = {
    .name = "delora",
    .title = "DeLoRA",
    .needs = WF_BIT(WF_TENSOR_DELORA_A) | WF_BIT(WF_TENSOR_DELORA_B) |
             WF_BIT(WF_TENSOR_DELORA_LAMBDA),
    .may = WF_BIT(WF_TENSOR_DELORA_NORM),
    .reads_weight = reads_weight,
    .shape = shape,
    .form = wf_form_pair,
    .pair = pair,
    .add = wf_add_pair,
    .dialects = 1 << WEFT_DIALECT_PEFT,
    .peft_types = peft_types,
    .write_peft = write_peft,
};
