/* loha.c - the Hadamard family: Delta W = scale * (W1a W1b) . (W2a W2b), element by element.
 *
 *   plain    w*_a (out, r), w*_b (r, in * k * k)                               scale = alpha / r
 *   Tucker   t* (r, r, k, k), and w*_a (r, out), w*_b (r, in): the core is folded into w*_b, the
 * rest is as above
 *
 * Keys hada_w1_a hada_w1_b hada_w2_a hada_w2_b [hada_t1 hada_t2] [alpha], the same in LyCORIS and
 * in PEFT.
 *
 * Two products of rank r make one of rank up to r * r: its columns are all products of a column of
 * W1a with one of W2a. For small r that is a pair of thin factors like LoRA's; beyond MOST_PAIRS,
 * or if the layer is small itself, it is a dense matrix, formed strip by strip so that no second
 * matrix of the layer's size is needed.
 *
 * Hyeon-Woo et al., FedPara, 2021; Yeh et al., LyCORIS, 2023. */
#include "adapter/factor.h"
#include "adapter/save.h"
#include "tensor/gemm.h"

/* A side path of rank 64 still costs a fraction of a layer of 320 channels and more. */
enum { MOST_PAIRS = 64 };

typedef struct half {
    int32_t a;
    int32_t b;
    int32_t t;
} half;

static const half halves[] = { { WF_TENSOR_HADA_W1A, WF_TENSOR_HADA_W1B, WF_TENSOR_HADA_T1 },
                               { WF_TENSOR_HADA_W2A, WF_TENSOR_HADA_W2B, WF_TENSOR_HADA_T2 } };

static bool tucker(const wf_module *m)
{
    return m->tensor[WF_TENSOR_HADA_T1] != NULL;
}

/* ---- shapes ---------------------------------------------------------------------------------- */

static weft_status shape_plain(wf_module *m, const half *h, const char *source, weft_error *err)
{
    const wf_tensor *a = m->tensor[h->a], *b = m->tensor[h->b];

    if (a->rank != 2) return wf_module_wrong_shape(a, source, "(out, r)", err);
    if (wf_factor_kernel(b) == 0) return wf_module_wrong_shape(b, source, "(r, in * k * k)", err);
    m->out = (int32_t)a->shape[0];
    m->rank = (int32_t)a->shape[1];
    m->in = (int32_t)b->shape[1];
    m->kernel = wf_factor_kernel(b);
    if (b->shape[0] != m->rank)
        return wf_module_wrong_shape(b, source, "(r, in * k * k) with the rank of its partner",
                                     err);
    return WEFT_OK;
}

static weft_status shape_tucker(wf_module *m, const half *h, const char *source, weft_error *err)
{
    const wf_tensor *a = m->tensor[h->a], *b = m->tensor[h->b], *t = m->tensor[h->t];

    if (t->rank != 4 || wf_factor_kernel(t) == 0 || t->shape[0] != t->shape[1])
        return wf_module_wrong_shape(t, source, "(r, r, k, k)", err);
    m->rank = (int32_t)t->shape[0];
    m->kernel = wf_factor_kernel(t);
    if (a->rank != 2 || a->shape[0] != m->rank)
        return wf_module_wrong_shape(a, source, "(r, out) with the rank of its core", err);
    if (b->rank != 2 || b->shape[0] != m->rank)
        return wf_module_wrong_shape(b, source, "(r, in) with the rank of its core", err);
    m->out = (int32_t)a->shape[1];
    m->in = (int32_t)b->shape[1];
    return WEFT_OK;
}

static weft_status shape(wf_module *m, const char *source, weft_error *err)
{
    wf_module first;

    if (tucker(m) != (m->tensor[WF_TENSOR_HADA_T2] != NULL))
        return wf_module_fail(m, source, err, "hada_t1 and hada_t2 come together, %s is missing",
                              tucker(m) ? "hada_t2" : "hada_t1");
    for (size_t i = 0; i < WF_LEN(halves); i++) {
        WF_TRY((tucker(m) ? shape_tucker : shape_plain)(m, &halves[i], source, err));
        if (i == 0) first = *m;
    }
    if (m->out != first.out || m->in != first.in || m->rank != first.rank ||
        m->kernel != first.kernel)
        return wf_module_fail(m, source, err,
                              "the halves are multiplied element by element, but one is (%d, %d) "
                              "of rank %d and kernel %d, "
                              "the other (%d, %d) of rank %d and kernel %d",
                              first.out, first.in, first.rank, first.kernel, m->out, m->in, m->rank,
                              m->kernel);
    WF_TRY(wf_module_check_columns(m, source, err));
    wf_module_set_scale(m, m->rank);
    return WEFT_OK;
}

/* ---- the factors ----------------------------------------------------------------------------- */

/* Both halves: outer (out, r) and inner (r, K), in one block of memory. */
typedef struct factors {
    float *a[2];
    float *b[2];
} factors;

static weft_status read_factors(const wf_module *m, const wf_layer *l, factors *f,
                                const weft_allocator *alloc, weft_error *err)
{
    size_t      r = (size_t)m->rank, out = (size_t)m->out, floats;
    wf_columns  c = wf_columns_at(m, l);
    weft_status st = WEFT_OK;

    f->a[0] = NULL;
    if (!wf_mul(r, out + c.K, &floats) || !wf_mul(floats, 2, &floats))
        return wf_fail(err, WEFT_E_ARG, "%s: the factors are too large", m->key);
    if ((f->a[0] = wf_zalloc(alloc, floats, sizeof(float))) == NULL)
        return wf_nomem(err, floats * sizeof(float), "an adapter's factors");
    f->a[1] = f->a[0] + out * r;
    f->b[0] = f->a[1] + out * r;
    f->b[1] = f->b[0] + r * c.K;
    for (size_t i = 0; i < 2 && st == WEFT_OK; i++) {
        const wf_tensor *a = m->tensor[halves[i].a], *b = m->tensor[halves[i].b],
                        *t = m->tensor[halves[i].t];
        if (t == NULL) {
            wf_tensor_read(a, 0, a->count, f->a[i]);
            wf_factor_rows(b, r, c, f->b[i]);
        } else {
            wf_tensor_transposed(a, r, out, f->a[i]);
            st = wf_tucker_fold(t, b, r, r, c.in, c.kk, f->b[i], alloc, err);
        }
    }
    return st;
}

static int32_t form(const wf_module *m, const wf_layer *l)
{
    size_t out = (size_t)m->out, K = wf_module_columns(m),
           pairs = (size_t)m->rank * (size_t)m->rank;

    (void)l;
    return pairs <= MOST_PAIRS && pairs * (out + K) < out * K ? WF_FORM_PAIR : WF_FORM_DENSE;
}

static int32_t pair_rank(const wf_module *m)
{
    return m->rank * m->rank; /* asked where form() said PAIR: at most MOST_PAIRS */
}

/* Row p * r + q is row p of one half times row q of the other. */
static void multiply_rows(float *dst, const float *one, const float *other, size_t r, size_t n)
{
    for (size_t p = 0; p < r; p++)
        for (size_t q = 0; q < r; q++)
            for (size_t i = 0; i < n; i++)
                dst[(p * r + q) * n + i] = one[p * n + i] * other[q * n + i];
}

static void multiply_columns(float *dst, const float *one, const float *other, size_t r, size_t n)
{
    for (size_t p = 0; p < r; p++)
        for (size_t q = 0; q < r; q++)
            for (size_t o = 0; o < n; o++)
                dst[(p * r + q) * n + o] = one[o * r + p] * other[o * r + q];
}

static weft_status pair(const wf_module *m, const wf_layer *l, float *down, float *up,
                        const weft_allocator *alloc, weft_error *err)
{
    factors     f;
    weft_status st = read_factors(m, l, &f, alloc, err);

    if (st == WEFT_OK && down != NULL)
        multiply_rows(down, f.b[0], f.b[1], (size_t)m->rank, wf_module_columns(m));
    if (st == WEFT_OK && up != NULL)
        multiply_columns(up, f.a[0], f.a[1], (size_t)m->rank, (size_t)m->out);
    wf_free(alloc, f.a[0]);
    return st;
}

static weft_status add(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                       const weft_allocator *alloc, weft_error *err)
{
    size_t      r = (size_t)m->rank, out = (size_t)m->out, K = wf_module_columns(m);
    float       s = (float)(scale * c), *strip = NULL;
    factors     f;
    weft_status st = read_factors(m, l, &f, alloc, err);

    if (st != WEFT_OK) goto done;
    if ((strip = wf_zalloc(alloc, 2 * WF_STRIP * K, sizeof *strip)) == NULL) {
        st = wf_nomem(err, 2 * WF_STRIP * K * sizeof *strip, "a strip of a layer");
        goto done;
    }
    for (size_t o = 0; o < out; o += WF_STRIP) {
        size_t n = WF_MIN((size_t)WF_STRIP, out - o);
        float *one = strip, *other = strip + n * K, *dst_o = dst + o * K;
        wf_gemm_nn(one, K, f.a[0] + o * r, r, f.b[0], K, n, K, r, 0);
        wf_gemm_nn(other, K, f.a[1] + o * r, r, f.b[1], K, n, K, r, 0);
        for (size_t i = 0; i < n * K; i++) dst_o[i] += s * (one[i] * other[i]);
    }
done:
    wf_free(alloc, strip);
    wf_free(alloc, f.a[0]);
    return st;
}

/* ---- writing --------------------------------------------------------------------------------- */

static void shape_for(const wf_module *m, const wf_layer *l, int32_t tensor, wf_tensor *t)
{
    (void)m, (void)l;
    if (tensor == WF_TENSOR_HADA_W1B || tensor == WF_TENSOR_HADA_W2B) wf_shape_matrix(t);
}

static const wf_peft_type peft_types[] = {
    { .name = "LOHA", .known_by = WF_BIT(WF_TENSOR_HADA_W1A), .rank = "r",
      .rank_patterns = "rank_pattern", .alpha = "alpha" },
    { .name = NULL },
};

static weft_status write_peft(const wf_peft_writer *w)
{
    bool tucker;

    WF_TRY(wf_peft_find_tucker(w, WF_TENSOR_HADA_T1, WF_TENSOR_HADA_W1B, &tucker));
    wf_peft_common(w, "init_weights");
    wf_peft_numbers(w, "r", "rank_pattern", wf_peft_rank_of);
    wf_peft_numbers(w, "alpha", "alpha_pattern", wf_peft_alpha_of);
    wf_peft_bool(w, "use_effective_conv2d", tucker);
    return WEFT_OK;
}

const wf_family wf_family_loha = {
    .name = "loha",
    .title = "LoHa",
    .needs = WF_BIT(WF_TENSOR_HADA_W1A) | WF_BIT(WF_TENSOR_HADA_W1B) |
        WF_BIT(WF_TENSOR_HADA_W2A) | WF_BIT(WF_TENSOR_HADA_W2B),
    .may = WF_BIT(WF_TENSOR_HADA_T1) | WF_BIT(WF_TENSOR_HADA_T2),
    .shape = shape,
    .fits = wf_fits_columns,
    .form = form,
    .pair_rank = pair_rank,
    .pair = pair,
    .add = add,
    .dialects = 1 << WEFT_DIALECT_KOHYA | 1 << WEFT_DIALECT_PEFT,
    .alpha_means = wf_alpha_scales,
    .shape_for = shape_for,
    .peft_types = peft_types,
    .write_peft = write_peft,
};
