/* boft_peft.c - PEFT's OFT in butterflies: stages of rotations of the inputs, and a factor for each
 * output.
 *
 *   boft_R (stages, blocks, b, b)   S = (A - A^T) / 2 of each      R = (I - S) (I + S)^-1
 *   boft_s (out, 1), or (1, out) for a convolution
 *   W' = diag(s) W B_0^T B_1^T ..   over W's columns in the order (in, ky, kx), blocks * b of them
 *
 * B_i = P_i blockdiag(R_i) P_i^T, where P_i x takes, in groups of 2^i b columns, the even runs of b
 * / 2 columns before the odd ones: row j of P_i has its 1 in column_at(j). With one stage, which is
 * all that PEFT makes without its CUDA extension, there is no permutation. The bias is neither
 * turned nor scaled.
 *
 * Keys boft_R boft_s. Liu et al., Parameter-Efficient Orthogonal Finetuning via Butterfly
 * Factorization, 2024. */
#include "adapter/rotation.h"
#include "adapter/save.h"
#include "tensor/gemm.h"

static weft_status shape(wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *t = m->tensor[WF_TENSOR_BOFT_R], *s = m->tensor[WF_TENSOR_BOFT_S];
    int64_t          b = t->shape[t->rank - 1], columns;

    if (t->rank != 4 || t->shape[2] != b)
        return wf_module_wrong_shape(t, source, "(stages, blocks, b, b)", err);
    if (s->rank != 2 || (s->shape[0] != 1 && s->shape[1] != 1))
        return wf_module_wrong_shape(s, source, "(out, 1) or (1, out)", err);
    columns = t->shape[1] * b;
    if (columns > INT32_MAX)
        return wf_module_fail(m, source, err, "the blocks turn more than 2^31 columns");
    for (int64_t i = 0, group = b; t->shape[0] > 1 && i < t->shape[0]; i++, group *= 2)
        if (b % 2 != 0 || group > columns || columns % group != 0)
            return wf_module_wrong_shape(t, source, "no more stages than the blocks can be paired",
                                         err);
    m->out = (int32_t)s->count;
    m->in = (int32_t)columns;
    m->kernel = 1;
    m->rank = 0;
    m->scale = 1;
    return WEFT_OK;
}

/* The column in which row j of P_i has its 1. */
static size_t column_at(size_t j, size_t i, size_t b, size_t stages)
{
    size_t run = b / 2, runs = (size_t)2 << i, place = j % (runs * run) / run;

    if (stages == 1) return j;
    place = place < runs / 2 ? 2 * place : 2 * (place - runs / 2) + 1;
    return j / (runs * run) * (runs * run) + place * run + j % run;
}

/* One stage on n rows: W becomes W B_i^T. R (blocks, b, b); U and V are as large as W. */
static void turn(float *W, float *U, float *V, const float *R, size_t i, size_t n, size_t b,
                 size_t K, size_t stages)
{
    for (size_t j = 0; j < K; j++)
        for (size_t o = 0, at = column_at(j, i, b, stages); o < n; o++)
            U[o * K + at] = W[o * K + j];
    for (size_t k = 0; k < K / b; k++)
        wf_gemm_nt(V + k * b, K, U + k * b, K, R + k * b * b, b, n, b, b, 0);
    for (size_t j = 0; j < K; j++)
        for (size_t o = 0, at = column_at(j, i, b, stages); o < n; o++)
            W[o * K + j] = V[o * K + at];
}

static void read_rotations(const wf_tensor *t, size_t b, double *Q, float *R)
{
    for (size_t k = 0; k < t->count / (b * b); k++) {
        wf_rotation_read(t, k, b, -0.5, Q);
        for (size_t i = 0; i < b * b; i++) R[k * b * b + i] = (float)Q[i];
    }
}

static weft_status add(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                       const weft_allocator *alloc, weft_error *err)
{
    const wf_tensor *t = m->tensor[WF_TENSOR_BOFT_R];
    size_t           stages = (size_t)t->shape[0], b = (size_t)t->shape[2], out = (size_t)l->out,
                     K = (size_t)m->in;
    size_t           strip = WF_STRIP * K, floats = t->count + 4 * strip;
    double          *Q = wf_zalloc(alloc, wf_rotation_doubles(b), sizeof *Q);
    float           *R = wf_zalloc(alloc, floats, sizeof *R);
    weft_status      st = WEFT_OK;

    if (Q == NULL || R == NULL) {
        st = wf_nomem(err, wf_rotation_doubles(b) * sizeof *Q + floats * sizeof *R,
                      "rotations of a layer");
        goto done;
    }
    float *W = R + t->count, *turned = W + strip, *U = turned + strip, *V = U + strip;
    read_rotations(t, b, Q, R);
    for (size_t o = 0; o < out; o += WF_STRIP) {
        size_t n = WF_MIN((size_t)WF_STRIP, out - o);
        wf_layer_rows_as_stored(l, o, n, W);
        memcpy(turned, W, n * K * sizeof *W);
        for (size_t i = 0; i < stages; i++) turn(turned, U, V, R + i * K * b, i, n, b, K, stages);
        for (size_t j = 0; j < n; j++) {
            float s;
            wf_tensor_read(m->tensor[WF_TENSOR_BOFT_S], o + j, 1, &s);
            for (size_t x = 0; x < K; x++) turned[j * K + x] = s * turned[j * K + x] - W[j * K + x];
        }
        wf_add_as_stored(l, o, n, turned, scale * c, dst);
    }
done:
    wf_free(alloc, R);
    wf_free(alloc, Q);
    return st;
}

/* ---- PEFT's configuration -------------------------------------------------------------------- */

static const wf_peft_type peft_types[] = {
    { .name = "BOFT", .known_by = WF_BIT(WF_TENSOR_BOFT_R), .rank = "r",
      .rank_patterns = "rank_pattern", .alpha = "lora_alpha" },
    { .name = NULL },
};

static weft_status write_peft(const wf_peft_writer *w)
{
    const wf_tensor *one = wf_peft_first(w)->tensor[WF_TENSOR_BOFT_R];

    for WF_EACH(w, i) {
        const wf_tensor *t = wf_peft_module(w, i)->tensor[WF_TENSOR_BOFT_R];
        if (t->shape[0] != one->shape[0] || t->shape[2] != one->shape[2])
            return wf_peft_refuse(w, i, "has other stages or blocks than the others");
    }
    wf_peft_common(w, "init_weights");
    wf_peft_value(w, "boft_block_size", (double)one->shape[2]);
    wf_peft_value(w, "boft_block_num", 0);
    wf_peft_value(w, "boft_n_butterfly_factor", (double)one->shape[0]);
    wf_peft_text(w, "bias", "none");
    return WEFT_OK;
}

const wf_family wf_family_boft_peft = {
    .name = "boft",
    .title = "PEFT's BOFT",
    .of_weight = true,
    .needs = WF_BIT(WF_TENSOR_BOFT_R) | WF_BIT(WF_TENSOR_BOFT_S),
    .shape = shape,
    .fits = wf_fits_columns,
    .form = wf_form_dense,
    .add = add,
    .dialects = 1 << WEFT_DIALECT_PEFT,
    .peft_types = peft_types,
    .write_peft = write_peft,
};
