/* full.c - whole matrices: what to add to a weight, or what to put in its place.
 *
 *   diff (out, in[, k, k])          Delta W = diff               LyCORIS' full, ComfyUI's extracts,
 * ZipLoRA's sums weight, bias                    Delta W = weight - W         a replacement, as
 * Custom Diffusion and PEFT's modules_to_save have it; the bias too u (out, n), v (n, in) Delta W =
 * u v                Custom Diffusion's compressed differences diff_b alone                    the
 * bias, and nothing of the weight
 *
 * No alpha and no rank: the strength is the user's. A diff of one dimension is a normalisation's
 * weight. */
#include "adapter/factor.h"
#include "adapter/save.h"
#include "tensor/gemm.h"

static const wf_tensor *whole(const wf_module *m)
{
    return m->tensor[WF_TENSOR_DIFF] != NULL
           ? m->tensor[WF_TENSOR_DIFF] : m->tensor[WF_TENSOR_REPLACE];
}

static bool compressed(const wf_module *m)
{
    return m->tensor[WF_TENSOR_DELTA_U] != NULL;
}

static weft_status check_one(const wf_module *m, const char *source, weft_error *err)
{
    bool u = compressed(m), v = m->tensor[WF_TENSOR_DELTA_V] != NULL;
    bool replaced = m->tensor[WF_TENSOR_REPLACE] != NULL || m->tensor[WF_TENSOR_REPLACE_B] != NULL;

    if (u != v)
        return wf_module_fail(m, source, err, "u and v come together, %s is missing",
                              u ? "v" : "u");
    if ((m->tensor[WF_TENSOR_DIFF] != NULL) + replaced + u > 1)
        return wf_module_fail(m, source, err, "a difference and a replacement of one weight");
    return WEFT_OK;
}

static weft_status shape_compressed(wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *u = m->tensor[WF_TENSOR_DELTA_U], *v = m->tensor[WF_TENSOR_DELTA_V];

    if (u->rank != 2) return wf_module_wrong_shape(u, source, "(out, n)", err);
    if (v->rank != 2 || v->shape[0] != u->shape[1])
        return wf_module_wrong_shape(v, source, "(n, in) with the n of u", err);
    m->out = (int32_t)u->shape[0];
    m->in = (int32_t)v->shape[1];
    m->rank = (int32_t)u->shape[1];
    return WEFT_OK;
}

static weft_status shape(wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *t = whole(m), *bias = m->tensor[WF_TENSOR_REPLACE_B],
                    *diff_b = m->tensor[WF_TENSOR_DIFF_B];

    WF_TRY(check_one(m, source, err));
    m->scale = 1;
    m->rank = 0;
    m->kernel = 1;
    if (compressed(m)) return shape_compressed(m, source, err);
    if (t == NULL) {
        m->out = (int32_t)WF_MIN((bias != NULL ? bias : diff_b)->count, (size_t)INT32_MAX);
        m->in = m->kernel = 0;
    } else {
        if (t->rank == 3 || (t->rank == 4 && wf_factor_kernel(t) == 0))
            return wf_module_wrong_shape(t, source, "(out, in), (out, in, k, k) or (channels)",
                                         err);
        m->out = (int32_t)t->shape[0];
        m->in = t->rank == 1 ? 1 : (int32_t)t->shape[1];
        m->kernel = t->rank == 1 ? 1 : wf_factor_kernel(t);
        m->norm = m->tensor[WF_TENSOR_DIFF] != NULL && t->rank == 1;
    }
    if (bias != NULL && bias->count != (size_t)m->out)
        return wf_module_wrong_shape(bias, source, "as many values as the weight has rows", err);
    return wf_module_check_columns(m, source, err);
}

static bool fits(const wf_module *m, const wf_layer *l)
{
    const wf_tensor *t = whole(m);

    if (t == NULL && !compressed(m)) return m->out == l->out;
    if (t != NULL && (t->rank == 1) != (l->kind == WEFT_LAYER_NORM)) return false;
    if (l->kind == WEFT_LAYER_NORM) return t != NULL && m->out == l->out;
    return m->out == l->out && m->in == l->in && m->kernel == l->kernel;
}

static int32_t form(const wf_module *m, const wf_layer *l)
{
    if (l != NULL && l->kind == WEFT_LAYER_NORM) return WF_FORM_NORM;
    return compressed(m) ? WF_FORM_PAIR : WF_FORM_DENSE;
}

static weft_status pair(const wf_module *m, const wf_layer *l, float *down, float *up,
                        const weft_allocator *alloc, weft_error *err)
{
    const wf_tensor *u = m->tensor[WF_TENSOR_DELTA_U], *v = m->tensor[WF_TENSOR_DELTA_V];

    (void)l, (void)alloc, (void)err;
    if (down != NULL) wf_tensor_read(v, 0, v->count, down);
    if (up != NULL) wf_tensor_transposed(u, (size_t)m->out, (size_t)m->rank, up);
    return WEFT_OK;
}

static weft_status add_product(const wf_module *m, double f, float *dst,
                               const weft_allocator *alloc, weft_error *err)
{
    const wf_tensor *u = m->tensor[WF_TENSOR_DELTA_U], *v = m->tensor[WF_TENSOR_DELTA_V];
    size_t           n = (size_t)m->rank, in = (size_t)m->in, floats = u->count + v->count;
    float           *U = wf_zalloc(alloc, floats, sizeof *U);

    if (U == NULL) return wf_nomem(err, floats * sizeof *U, "an adapter's factors");
    float *V = U + u->count;
    wf_tensor_read(u, 0, u->count, U);
    wf_tensor_read(v, 0, v->count, V);
    for (size_t i = 0; i < u->count; i++) U[i] = (float)(f * U[i]);
    wf_gemm_nn(dst, in, U, n, V, in, (size_t)m->out, in, n, 1);
    wf_free(alloc, U);
    return WEFT_OK;
}

/* dst += f * (t - W) if the weight is replaced, else f * t; one row of each at a time. */
static weft_status add_whole(const wf_module *m, const wf_layer *l, double f, float *dst,
                             const weft_allocator *alloc, weft_error *err)
{
    const wf_tensor *t = whole(m);
    wf_columns       c = { (size_t)l->in, (size_t)l->kernel * (size_t)l->kernel, 0 };
    size_t           row_bytes;

    c.K = c.in * c.kk;
    row_bytes = c.K * (size_t)(wf_dtype_bits(t->dtype) / 8);
    float *row = wf_zalloc(alloc, 2 * c.K, sizeof *row);
    if (row == NULL) return wf_nomem(err, 2 * c.K * sizeof *row, "a row of a layer");
    float *W = row + c.K;
    for (size_t o = 0; o < (size_t)l->out; o++) {
        wf_tensor one = *t;
        one.data += o * row_bytes;
        wf_factor_rows(&one, 1, c, row);
        if (m->tensor[WF_TENSOR_REPLACE] != NULL) wf_layer_rows(l, o, 1, W);
        for (size_t i = 0; i < c.K; i++) dst[o * c.K + i] += (float)(f * ((double)row[i] - W[i]));
    }
    wf_free(alloc, row);
    return WEFT_OK;
}

static weft_status add(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                       const weft_allocator *alloc, weft_error *err)
{
    if (compressed(m)) return add_product(m, scale * c, dst, alloc, err);
    return whole(m) != NULL ? add_whole(m, l, scale * c, dst, alloc, err) : WEFT_OK;
}

/* ---- writing: a compressed difference is a low-rank pair with alpha = rank ---- */

static const char *cannot_write(const wf_module *m, int32_t dialect)
{
    if (dialect != WEFT_DIALECT_KOHYA) return compressed(m) ? NULL : "";
    return m->tensor[WF_TENSOR_REPLACE] != NULL || m->tensor[WF_TENSOR_REPLACE_B] != NULL
           ? "a replacement" : NULL;
}

static int32_t alpha_means(const wf_module *m)
{
    return compressed(m) ? WF_ALPHA_SCALE : WF_ALPHA_NONE;
}

static int32_t written_as(const wf_module *m, int32_t tensor)
{
    (void)m;
    return tensor == WF_TENSOR_DELTA_U ? WF_TENSOR_UP : tensor == WF_TENSOR_DELTA_V
           ? WF_TENSOR_DOWN : tensor;
}

static void shape_for(const wf_module *m, const wf_layer *l, int32_t tensor, wf_tensor *t)
{
    (void)m;
    if (tensor == WF_TENSOR_DELTA_U) wf_shape_outer(t, l);
    if (tensor == WF_TENSOR_DELTA_V) wf_shape_inner(t, l);
}

/* Normalisations that PEFT trains whole; what is written is only ever LoRA. */
static const wf_peft_type peft_types[] = {
    { .name = "LN_TUNING",
      .known_by = WF_BIT(WF_TENSOR_REPLACE) | WF_BIT(WF_TENSOR_REPLACE_B) },
    { .name = NULL },
};

static const wf_peft_type *peft_type(const wf_module *m, int32_t dialect)
{
    (void)m, (void)dialect;
    return wf_family_lora.peft_types;
}

static weft_status write_peft(const wf_peft_writer *w)
{
    return wf_family_lora.write_peft(w);
}

const wf_family wf_family_full = {
    .name = "full",
    .title = "full",
    .any = WF_BIT(WF_TENSOR_DIFF) | WF_BIT(WF_TENSOR_REPLACE) | WF_BIT(WF_TENSOR_REPLACE_B) |
        WF_BIT(WF_TENSOR_DELTA_U) |
           WF_BIT(WF_TENSOR_DELTA_V) | WF_BIT(WF_TENSOR_DIFF_B),
    .shape = shape,
    .fits = fits,
    .form = form,
    .pair = pair,
    .add = add,
    .dialects = 1 << WEFT_DIALECT_KOHYA | 1 << WEFT_DIALECT_DIFFUSERS | 1 << WEFT_DIALECT_PEFT,
    .cannot_write = cannot_write,
    .alpha_means = alpha_means,
    .written_as = written_as,
    .shape_for = shape_for,
    .peft_types = peft_types,
    .peft_type = peft_type,
    .write_peft = write_peft,
};
