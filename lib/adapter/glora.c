/* glora.c - generalised LoRA: Delta W = scale * (W A1 A2 + B1 B2), a low-rank part that reads W and
 * one that does not.
 *
 *   a1 (in, r), a2 (r, in), b1 (out, r), b2 (r, in[, k, k])     scale = alpha / r
 *   bm (r, r, k, k)    a Tucker core for the second part; b2 is then (r, in, 1, 1)
 *
 * Older LyCORIS wrote the factors of both products in the other order, a1 (r, in), a2 (in, r), b1
 * (r, in), b2 (out, r): W A2 A1 + B2 B1. The ranks that must agree tell which; for a square layer
 * both may, and it is the one whose rank is lower, the newer if they are equal.
 *
 * A1 A2 acts on channels, at each place of the kernel alike. For a linear layer the whole is one
 * pair of rank 2r, [W A1, B1] and [A2; B2]; for a k x k convolution W A1 is k * k times as wide,
 * and the module is dense.
 *
 * Keys a1.weight a2.weight b1.weight b2.weight [bm.weight] [alpha]. Chavan et al., GLoRA, 2023. */
#include "adapter/factor.h"
#include "tensor/gemm.h"

/* The factors in the newer order, whichever the file has. */
typedef struct factors {
    const wf_tensor *a1; /* (in, r)  */
    const wf_tensor *a2; /* (r, in)  */
    const wf_tensor *b1; /* (out, r) */
    const wf_tensor *b2; /* (r, in)  */
} factors;

/* Are the factors in the order of older files? */
static bool older_order(const wf_module *m)
{
    const wf_tensor *a1 = m->tensor[WF_TENSOR_GLORA_A1], *a2 = m->tensor[WF_TENSOR_GLORA_A2];
    const wf_tensor *b1 = m->tensor[WF_TENSOR_GLORA_B1], *b2 = m->tensor[WF_TENSOR_GLORA_B2];
    bool newer = a1->shape[1] == a2->shape[0] && b1->shape[1] == b2->shape[0] &&
         a1->shape[1] == b1->shape[1];
    bool older = a2->shape[1] == a1->shape[0] && b2->shape[1] == b1->shape[0] &&
         a2->shape[1] == b2->shape[1];

    if (newer && older && wf_factor_kernel(b1) == wf_factor_kernel(b2))
        newer = a1->shape[1] <= a1->shape[0]; /* newer: (in, r); older: (r, in) */
    else if (newer && older)
        newer = wf_factor_kernel(b1) == 1; /* the inner factor has the layer's kernel */
    return older && !newer;
}

static factors factors_of(const wf_module *m)
{
    const wf_tensor *a1 = m->tensor[WF_TENSOR_GLORA_A1], *a2 = m->tensor[WF_TENSOR_GLORA_A2];
    const wf_tensor *b1 = m->tensor[WF_TENSOR_GLORA_B1], *b2 = m->tensor[WF_TENSOR_GLORA_B2];

    return older_order(m) ? (factors){ a2, a1, b2, b1 } : (factors){ a1, a2, b1, b2 };
}

static weft_status shape(wf_module *m, const char *source, weft_error *err)
{
    static const int32_t all[] = { WF_TENSOR_GLORA_A1, WF_TENSOR_GLORA_A2, WF_TENSOR_GLORA_B1,
                                   WF_TENSOR_GLORA_B2 };
    const wf_tensor     *bm = m->tensor[WF_TENSOR_GLORA_BM];

    for (size_t i = 0; i < WF_LEN(all); i++) /* before anything asks for its second dimension */
        if (wf_factor_kernel(m->tensor[all[i]]) == 0)
            return wf_module_wrong_shape(m->tensor[all[i]], source, "(a, b) or (a, b, k, k)", err);
    factors f = factors_of(m);
    m->in = (int32_t)f.b2->shape[1];
    m->out = (int32_t)f.b1->shape[0];
    m->rank = (int32_t)f.b2->shape[0];
    m->kernel = wf_factor_kernel(f.b2);
    if (f.b1->shape[1] != m->rank || wf_factor_kernel(f.b1) != 1)
        return wf_module_wrong_shape(f.b1, source, "(out, r) with the rank of its partner", err);
    if (f.a1->shape[1] != m->rank || f.a1->shape[0] != m->in || wf_factor_kernel(f.a1) != 1)
        return wf_module_wrong_shape(f.a1, source, "(in, r) as b1 and b2 have them", err);
    if (f.a2->shape[0] != m->rank || f.a2->shape[1] != m->in || wf_factor_kernel(f.a2) != 1)
        return wf_module_wrong_shape(f.a2, source, "(r, in) as b1 and b2 have them", err);
    if (bm != NULL && (bm->rank != 4 || wf_factor_kernel(bm) == 0 || bm->shape[0] != m->rank ||
                       bm->shape[1] != m->rank || m->kernel != 1))
        return wf_module_wrong_shape(bm, source, "(r, r, k, k) beside factors of 1x1", err);
    if (bm != NULL) m->kernel = wf_factor_kernel(bm);
    WF_TRY(wf_module_check_columns(m, source, err));
    wf_module_set_scale(m, m->rank);
    return WEFT_OK;
}

static int32_t form(const wf_module *m, const wf_layer *l)
{
    return m->kernel == 1 && l != NULL && l->kernel == 1 ? WF_FORM_PAIR : WF_FORM_DENSE;
}

static int32_t pair_rank(const wf_module *m)
{
    return m->rank <= INT32_MAX / 2 ? 2 * m->rank : INT32_MAX;
}

static weft_status read_b2(const wf_module *m, const factors *f, float *dst,
                           const weft_allocator *alloc, weft_error *err)
{
    size_t           r = (size_t)m->rank, in = (size_t)m->in,
                     kk = (size_t)m->kernel * (size_t)m->kernel;
    const wf_tensor *bm = m->tensor[WF_TENSOR_GLORA_BM];

    if (bm != NULL) return wf_tucker_fold(bm, f->b2, r, r, in, kk, dst, alloc, err);
    wf_factor_rows(f->b2, r, wf_columns_at(m, NULL), dst);
    return WEFT_OK;
}

/* WA (rows, r) = the layer's rows * k * k places, each `in` channels, times A1; in strips of W. */
static void read_strip(const wf_layer *l, size_t o, size_t n, const float *a1, size_t r, float *W,
                       float *WA)
{
    size_t in = (size_t)l->in, kk = (size_t)l->kernel * (size_t)l->kernel;

    wf_layer_rows(l, o, n, W);
    wf_gemm_nn(WA, r, W, in, a1, r, n * kk, r, in, 0);
}

static weft_status pair(const wf_module *m, const wf_layer *l, float *down, float *up,
                        const weft_allocator *alloc, weft_error *err)
{
    factors f = factors_of(m);
    size_t  r = (size_t)m->rank, in = (size_t)m->in, out = (size_t)m->out,
            floats = f.a1->count + WF_STRIP * (in + r);

    if (down != NULL) {
        WF_TRY(read_b2(m, &f, down, alloc, err));
        wf_tensor_read(f.a2, 0, f.a2->count, down + r * in);
    }
    if (up == NULL) return WEFT_OK;
    float *a1 = wf_zalloc(alloc, floats, sizeof *a1);
    if (a1 == NULL) return wf_nomem(err, floats * sizeof *a1, "a strip of a layer");
    float *W = a1 + f.a1->count, *WA = W + WF_STRIP * in;
    wf_tensor_read(f.a1, 0, f.a1->count, a1);
    wf_tensor_transposed(f.b1, out, r, up);
    for (size_t o = 0; o < out; o += WF_STRIP) {
        size_t n = WF_MIN((size_t)WF_STRIP, out - o);
        read_strip(l, o, n, a1, r, W, WA);
        for (size_t j = 0; j < n; j++)
            for (size_t p = 0; p < r; p++) up[(r + p) * out + o + j] = WA[j * r + p];
    }
    wf_free(alloc, a1);
    return WEFT_OK;
}

static weft_status add(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                       const weft_allocator *alloc, weft_error *err)
{
    factors     f = factors_of(m);
    size_t      r = (size_t)m->rank, in = (size_t)m->in, out = (size_t)m->out,
                K = wf_module_columns(m), kk = K / in;
    size_t      fixed = f.a1->count + f.a2->count + f.b1->count, floats;
    float       s = (float)(scale * c);
    weft_status st;

    if (!wf_mul(r + WF_STRIP, K, &floats) || !wf_add(floats, fixed + WF_STRIP * kk * r, &floats))
        return wf_fail(err, WEFT_E_ARG, "%s: the factors are too large", m->key);
    float *a1 = wf_zalloc(alloc, floats, sizeof *a1);
    if (a1 == NULL) return wf_nomem(err, floats * sizeof *a1, "an adapter's factors");
    float *a2 = a1 + f.a1->count, *b1 = a2 + f.a2->count;
    float *b2 = b1 + f.b1->count, *W = b2 + r * K, *WA = W + WF_STRIP * K;
    if ((st = read_b2(m, &f, b2, alloc, err)) != WEFT_OK) goto done;
    wf_tensor_read(f.a1, 0, f.a1->count, a1);
    wf_tensor_read(f.a2, 0, f.a2->count, a2);
    wf_tensor_read(f.b1, 0, f.b1->count, b1);
    for (size_t i = 0; i < f.b1->count; i++) b1[i] *= s;
    for (size_t i = 0; i < f.a2->count; i++) a2[i] *= s;
    wf_gemm_nn(dst, K, b1, r, b2, K, out, K, r, 1);
    for (size_t o = 0; o < out; o += WF_STRIP) {
        size_t n = WF_MIN((size_t)WF_STRIP, out - o);
        read_strip(l, o, n, a1, r, W, WA);
        wf_gemm_nn(dst + o * K, in, WA, r, a2, in, n * kk, in, r, 1);
    }
done:
    wf_free(alloc, a1);
    return st;
}

/* In the order that LyCORIS writes now, whichever the file had. */
static int32_t written_as(const wf_module *m, int32_t tensor)
{
    if (!older_order(m)) return tensor;
    switch (tensor) {
    case WF_TENSOR_GLORA_A1: return WF_TENSOR_GLORA_A2;
    case WF_TENSOR_GLORA_A2: return WF_TENSOR_GLORA_A1;
    case WF_TENSOR_GLORA_B1: return WF_TENSOR_GLORA_B2;
    case WF_TENSOR_GLORA_B2: return WF_TENSOR_GLORA_B1;
    default:                 return tensor;
    }
}

const wf_family wf_family_glora = {
    .name = "glora",
    .title = "GLoRA",
    .of_weight = true,
    .needs = WF_BIT(WF_TENSOR_GLORA_A1) | WF_BIT(WF_TENSOR_GLORA_A2) |
        WF_BIT(WF_TENSOR_GLORA_B1) | WF_BIT(WF_TENSOR_GLORA_B2),
    .may = WF_BIT(WF_TENSOR_GLORA_BM),
    .shape = shape,
    .form = form,
    .pair_rank = pair_rank,
    .pair = pair,
    .add = add,
    .dialects = 1 << WEFT_DIALECT_KOHYA,
    .alpha_means = wf_alpha_scales,
    .written_as = written_as,
};
