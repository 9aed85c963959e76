/* lokr.c - the Kronecker family: Delta W = scale * W1 (x) W2, where (W1 (x) W2)[a * o2 + b, c * i2
 * + d] = W1[a, c] W2[b, d].
 *
 *   W1 (o1, i1)           lokr_w1, or lokr_w1_a (o1, r) times lokr_w1_b (r, i1)
 *   W2 (o2, i2[, k, k])   lokr_w2, or lokr_w2_a (o2, r) times lokr_w2_b (r, i2 * k * k), 2-D or
 * 4-D, or with a Tucker core lokr_t2 (r, r, k, k): lokr_w2_a (r, o2), lokr_w2_b (r, i2)
 *
 * The shapes show how the layer was cut into o1 * o2 by i1 * i2. The product is never formed
 * to apply it: x reshaped to (i1, i2) gives W1 X W2^T, two small products.
 *
 * scale = alpha / r, r the rank of whichever is factored, W1 first. With both whole LyCORIS takes 1
 * whatever alpha says (there are files with an alpha of 1e10), and PEFT stays with alpha / r, where
 * only its configuration knows r.
 *
 * Yeh et al., LyCORIS, 2023; Edalati et al., KronA, 2022. */
#include "adapter/factor.h"
#include "adapter/save.h"
#include "tensor/gemm.h"

static const wf_tensor *part(const wf_module *m, int32_t p)
{
    return m->tensor[p];
}

/* ---- shapes ---------------------------------------------------------------------------------- */

/* A factor stands whole, or as the product of two. */
static weft_status check_whole(const wf_module *m, const char *name, int32_t whole, int32_t a,
                               int32_t b, const char *source, weft_error *err)
{
    if (part(m, whole) != NULL && (part(m, a) != NULL || part(m, b) != NULL))
        return wf_module_fail(m, source, err, "%s stands there whole and as a product", name);
    if (part(m, whole) == NULL && (part(m, a) == NULL || part(m, b) == NULL))
        return wf_module_fail(m, source, err,
                              "%s is missing: neither whole nor both of %s_a and %s_b", name, name,
                              name);
    return WEFT_OK;
}

static weft_status shape_w1(const wf_module *m, int64_t *o1, int64_t *i1, int64_t *r,
                            const char *source, weft_error *err)
{
    const wf_tensor *w = part(m, WF_TENSOR_LOKR_W1), *a = part(m, WF_TENSOR_LOKR_W1A),
                    *b = part(m, WF_TENSOR_LOKR_W1B);

    WF_TRY(check_whole(m, "lokr_w1", WF_TENSOR_LOKR_W1, WF_TENSOR_LOKR_W1A, WF_TENSOR_LOKR_W1B,
                       source, err));
    if (w != NULL) {
        if (w->rank != 2) return wf_module_wrong_shape(w, source, "(o1, i1)", err);
        *o1 = w->shape[0];
        *i1 = w->shape[1];
        return WEFT_OK;
    }
    if (a->rank != 2) return wf_module_wrong_shape(a, source, "(o1, r)", err);
    if (b->rank != 2 || b->shape[0] != a->shape[1])
        return wf_module_wrong_shape(b, source, "(r, i1) with the rank of lokr_w1_a", err);
    *o1 = a->shape[0];
    *i1 = b->shape[1];
    *r = b->shape[0];
    return WEFT_OK;
}

/* i2 stands for i2 * k * k if the tensor is flat, and the kernel for 1. */
static weft_status shape_w2(const wf_module *m, int64_t *o2, int64_t *i2, int32_t *kernel,
                            int64_t *r, const char *source, weft_error *err)
{
    const wf_tensor *w = part(m, WF_TENSOR_LOKR_W2), *a = part(m, WF_TENSOR_LOKR_W2A),
                    *b = part(m, WF_TENSOR_LOKR_W2B);
    const wf_tensor *t = part(m, WF_TENSOR_LOKR_T2);

    WF_TRY(check_whole(m, "lokr_w2", WF_TENSOR_LOKR_W2, WF_TENSOR_LOKR_W2A, WF_TENSOR_LOKR_W2B,
                       source, err));
    if (w != NULL) {
        if (t != NULL) return wf_module_fail(m, source, err, "lokr_t2 beside a whole lokr_w2");
        if ((*kernel = wf_factor_kernel(w)) == 0)
            return wf_module_wrong_shape(w, source, "(o2, i2) or (o2, i2, k, k)", err);
        *o2 = w->shape[0];
        *i2 = w->shape[1];
        return WEFT_OK;
    }
    if (a->rank != 2)
        return wf_module_wrong_shape(a, source, t != NULL ? "(r, o2)" : "(o2, r)", err);
    if (wf_factor_kernel(b) == 0 || b->shape[0] != a->shape[t != NULL ? 0 : 1] ||
        (t != NULL && b->rank != 2))
        return wf_module_wrong_shape(b, source,
                                     "(r, i2) or (r, i2 * k * k) with the rank of lokr_w2_a", err);
    *o2 = a->shape[t != NULL ? 1 : 0];
    *i2 = b->shape[1];
    *r = b->shape[0];
    *kernel = wf_factor_kernel(t != NULL ? t : b);
    if (t != NULL && (t->rank != 4 || *kernel == 0 || t->shape[0] != *r || t->shape[1] != *r))
        return wf_module_wrong_shape(t, source, "(r, r, k, k) with the rank of its factors", err);
    return WEFT_OK;
}

static void set_scale(wf_module *m)
{
    int32_t r = m->rank > 0 ? m->rank : m->peft && m->has_alpha ? wf_start_rank_of(m) : 0;

    m->scale = 1;
    if (r > 0) wf_module_set_scale(m, r);
}

/* With both factors whole PEFT's configuration alone knows r. */
static bool divides(const wf_module *m)
{
    return m->rank > 0 || !m->peft || wf_start_rank_of(m) > 0;
}

static weft_status shape(wf_module *m, const char *source, weft_error *err)
{
    int64_t o1 = 0, i1 = 0, o2 = 0, i2 = 0, r1 = 0, r2 = 0;

    WF_TRY(shape_w1(m, &o1, &i1, &r1, source, err));
    WF_TRY(shape_w2(m, &o2, &i2, &m->kernel, &r2, source, err));
    if (o1 * o2 > INT32_MAX || i1 * i2 > INT32_MAX)
        return wf_module_fail(m, source, err,
                              "the product of (%d, %d) with (%d, %d) is wider than 2^31",
                              (int32_t)o1, (int32_t)i1, (int32_t)o2, (int32_t)i2);
    m->out = (int32_t)(o1 * o2);
    m->in = (int32_t)(i1 * i2);
    m->rank = (int32_t)(r1 > 0 ? r1 : r2);
    WF_TRY(wf_module_check_columns(m, source, err));
    set_scale(m);
    return WEFT_OK;
}

/* ---- the factors ----------------------------------------------------------------------------- */

static size_t rows_1(const wf_module *m)
{
    const wf_tensor *w = part(m, WF_TENSOR_LOKR_W1);
    return (size_t)(w != NULL ? w : part(m, WF_TENSOR_LOKR_W1A))->shape[0];
}

static size_t columns_1(const wf_module *m)
{
    const wf_tensor *w = part(m, WF_TENSOR_LOKR_W1);
    return (size_t)(w != NULL ? w : part(m, WF_TENSOR_LOKR_W1B))->shape[1];
}

static void kron_size(const wf_module *m, const wf_layer *l, int32_t size[4])
{
    size[0] = (int32_t)rows_1(m);
    size[1] = (int32_t)columns_1(m);
    size[2] = m->out / size[0];
    size[3] = (int32_t)(wf_columns_at(m, l).in / (size_t)size[1]);
}

/* A flat factor must leave whole channels to each of the i1 groups. */
static bool fits(const wf_module *m, const wf_layer *l)
{
    return wf_fits_columns(m, l) && (size_t)l->in % columns_1(m) == 0;
}

static weft_status read_w1(const wf_module *m, float *w1, const weft_allocator *alloc,
                           weft_error *err)
{
    const wf_tensor *w = part(m, WF_TENSOR_LOKR_W1), *a = part(m, WF_TENSOR_LOKR_W1A),
                    *b = part(m, WF_TENSOR_LOKR_W1B);

    if (w != NULL) {
        wf_tensor_read(w, 0, w->count, w1);
        return WEFT_OK;
    }
    size_t r = (size_t)b->shape[0], o1 = rows_1(m), i1 = columns_1(m), floats = a->count + b->count;
    float *A = wf_zalloc(alloc, floats, sizeof *A);
    if (A == NULL) return wf_nomem(err, floats * sizeof *A, "a Kronecker factor");
    float *B = A + a->count;
    wf_tensor_read(a, 0, a->count, A);
    wf_tensor_read(b, 0, b->count, B);
    wf_gemm_nn(w1, i1, A, r, B, i1, o1, i1, r, 0);
    wf_free(alloc, A);
    return WEFT_OK;
}

static weft_status read_w2(const wf_module *m, const wf_layer *l, float *w2,
                           const weft_allocator *alloc, weft_error *err)
{
    const wf_tensor *w = part(m, WF_TENSOR_LOKR_W2), *a = part(m, WF_TENSOR_LOKR_W2A),
                    *b = part(m, WF_TENSOR_LOKR_W2B);
    const wf_tensor *t = part(m, WF_TENSOR_LOKR_T2);
    size_t           o2 = (size_t)m->out / rows_1(m), floats;
    wf_columns       c = wf_columns_at(m, l);
    weft_status      st = WEFT_OK;

    c.in /= columns_1(m);
    c.K /= columns_1(m);
    if (w != NULL) {
        wf_factor_rows(w, o2, c, w2);
        return WEFT_OK;
    }
    size_t r = (size_t)b->shape[0];
    if (!wf_mul(r, c.K, &floats) || !wf_add(floats, a->count, &floats))
        return wf_fail(err, WEFT_E_ARG, "%s: the factors are too large", m->key);
    float *A = wf_zalloc(alloc, floats, sizeof *A);
    if (A == NULL) return wf_nomem(err, floats * sizeof *A, "a Kronecker factor");
    float *B = A + a->count;
    if (t == NULL) {
        wf_tensor_read(a, 0, a->count, A);
        wf_factor_rows(b, r, c, B);
    } else {
        wf_tensor_transposed(a, r, o2, A);
        st = wf_tucker_fold(t, b, r, r, c.in, c.kk, B, alloc, err);
    }
    if (st == WEFT_OK) wf_gemm_nn(w2, c.K, A, r, B, c.K, o2, c.K, r, 0);
    wf_free(alloc, A);
    return st;
}

static weft_status kron(const wf_module *m, const wf_layer *l, float *w1, float *w2,
                        const weft_allocator *alloc, weft_error *err)
{
    WF_TRY(read_w1(m, w1, alloc, err));
    return read_w2(m, l, w2, alloc, err);
}

static int32_t form(const wf_module *m, const wf_layer *l)
{
    (void)m, (void)l;
    return WF_FORM_KRON;
}

/* One row of the sum: i1 scaled copies of a row of W2 beside each other, at each place of the
 * kernel. */
static void add_row(float *dst, const float *w1, const float *w2, float f, size_t i1, size_t i2,
                    size_t kk)
{
    for (size_t k = 0; k < kk; k++)
        for (size_t c = 0; c < i1; c++) {
            float        v = f * w1[c];
            float       *dst_c = dst + (k * i1 + c) * i2;
            const float *w2_k = w2 + k * i2;
            for (size_t d = 0; d < i2; d++) dst_c[d] += v * w2_k[d];
        }
}

static weft_status add(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                       const weft_allocator *alloc, weft_error *err)
{
    int32_t     size[4];
    wf_columns  at = wf_columns_at(m, l);
    weft_status st;

    kron_size(m, l, size);
    size_t o1 = (size_t)size[0], i1 = (size_t)size[1], o2 = (size_t)size[2], i2 = (size_t)size[3],
           n2, floats;
    if (!wf_mul(o2, at.kk * i2, &n2) || !wf_mul(o1, i1, &floats) || !wf_add(floats, n2, &floats))
        return wf_fail(err, WEFT_E_ARG, "%s: the factors are too large", m->key);
    float *w1 = wf_zalloc(alloc, floats, sizeof *w1);
    if (w1 == NULL) return wf_nomem(err, floats * sizeof *w1, "an adapter's factors");
    float *w2 = w1 + o1 * i1;
    if ((st = kron(m, l, w1, w2, alloc, err)) != WEFT_OK) goto done;
    for (size_t a = 0; a < o1; a++)
        for (size_t b = 0; b < o2; b++)
            add_row(dst + (a * o2 + b) * at.K, w1 + a * i1, w2 + b * at.kk * i2, (float)(scale * c),
                    i1, i2, at.kk);
done:
    wf_free(alloc, w1);
    return st;
}

/* ---- writing --------------------------------------------------------------------------------- */

static const char *cannot_write(const wf_module *m, int32_t dialect)
{
    return dialect == WEFT_DIALECT_KOHYA && m->rank == 0 && m->scale != 1
           ? "with a scale but both factors whole" : NULL;
}

static void shape_for(const wf_module *m, const wf_layer *l, int32_t tensor, wf_tensor *t)
{
    (void)m;
    if (tensor == WF_TENSOR_LOKR_W2) wf_shape_inner(t, l);
    if (tensor == WF_TENSOR_LOKR_W2B) wf_shape_matrix(t);
}

static const wf_peft_type peft_types[] = {
    { .name = "LOKR", .known_by = WF_BIT(WF_TENSOR_LOKR_W1) | WF_BIT(WF_TENSOR_LOKR_W1A),
      .rank = "r", .rank_patterns = "rank_pattern", .alpha = "alpha" },
    { .name = NULL },
};

/* How PEFT cuts a dimension into two factors: by the factor where that divides it, else the nearest
 * to a square whose smaller is not above the factor; -1 means no bound. */
static void cut(int32_t dimension, int32_t factor, int32_t *one, int32_t *other)
{
    int32_t limit = factor < 0 ? dimension : factor;

    *one = 1;
    *other = dimension;
    if (factor > 0 && dimension % factor == 0) {
        *one = factor;
        *other = dimension / factor;
        return;
    }
    for (int64_t length = (int64_t)dimension + 1; *one < *other;) {
        int32_t next = *one + 1;
        while (dimension % next != 0) next++;
        if ((int64_t)next + dimension / next > length || next > limit) return;
        *one = next;
        *other = dimension / next;
    }
    if (*one > *other) {
        *other = *one;
        *one = dimension / *other;
    }
}

/* The rank that PEFT must be told: if both factors are whole, one that leaves them so. */
static int32_t kron_rank(const wf_peft_writer *w, size_t i)
{
    const wf_module *m = wf_peft_module(w, i);
    int32_t          size[4];

    if (m->rank > 0) return m->rank;
    kron_size(m, wf_peft_layer(w, i), size);
    return WF_MAX(wf_start_rank_of(m), WF_MAX(WF_MAX(size[0], size[1]), WF_MAX(size[2], size[3])));
}

static double kron_rank_of(const wf_peft_writer *w, size_t i)
{
    return kron_rank(w, i);
}

static double kron_alpha_of(const wf_peft_writer *w, size_t i)
{
    return (double)wf_alpha_for(wf_peft_module(w, i), kron_rank(w, i));
}

/* Would PEFT cut this module's layer as its tensors are, and leave whole what is whole? */
static bool cuts(const wf_peft_writer *w, size_t i, int32_t factor, bool both)
{
    const wf_module *m = wf_peft_module(w, i);
    const wf_layer  *l = wf_peft_layer(w, i);
    int32_t          size[4], o1, o2, i1, i2, r = kron_rank(w, i);

    kron_size(m, l, size);
    cut(l->out, factor, &o1, &o2);
    cut(l->in, factor, &i1, &i2);
    if (size[0] != o1 || size[1] != i1 || size[2] != o2 || size[3] != i2) return false;
    return (m->tensor[WF_TENSOR_LOKR_W1] == NULL) == (both && 2 * (int64_t)r < WF_MAX(o1, i1)) &&
           (m->tensor[WF_TENSOR_LOKR_W2] == NULL) == (2 * (int64_t)r < WF_MAX(o2, i2));
}

static bool factor_for_all(const wf_peft_writer *w, int32_t factor, bool both)
{
    for WF_EACH(w, i)
        if (!cuts(w, i, factor, both)) return false;
    return true;
}

static weft_status write_peft(const wf_peft_writer *w)
{
    int32_t factor = -1, found = 0;
    bool    both = false, tucker;

    WF_TRY(wf_peft_find_tucker(w, WF_TENSOR_LOKR_T2, WF_TENSOR_LOKR_W2B, &tucker));
    for WF_EACH(w, i) both = both || wf_peft_module(w, i)->tensor[WF_TENSOR_LOKR_W1A] != NULL;
    for (; factor <= 1024 && found == 0; factor++)
        if (factor != 0 && factor_for_all(w, factor, both)) found = factor;
    if (found == 0)
        return wf_peft_refuse(w, wf_peft_next(w, 0),
                              "and the others are cut in ways that no one factor gives");
    wf_peft_common(w, "init_weights");
    wf_peft_numbers(w, "r", "rank_pattern", kron_rank_of);
    wf_peft_numbers(w, "alpha", "alpha_pattern", kron_alpha_of);
    wf_peft_bool(w, "decompose_both", both);
    wf_peft_value(w, "decompose_factor", found);
    wf_peft_bool(w, "use_effective_conv2d", tucker);
    return WEFT_OK;
}

const wf_family wf_family_lokr = {
    .name = "lokr",
    .title = "LoKr",
    .any = WF_BIT(WF_TENSOR_LOKR_W1) | WF_BIT(WF_TENSOR_LOKR_W1A) | WF_BIT(WF_TENSOR_LOKR_W1B) |
        WF_BIT(WF_TENSOR_LOKR_W2) |
           WF_BIT(WF_TENSOR_LOKR_W2A) | WF_BIT(WF_TENSOR_LOKR_W2B) | WF_BIT(WF_TENSOR_LOKR_T2),
    .extra_size = sizeof(wf_start_rank),
    .settle = wf_settle_start_rank,
    .shape = shape,
    .divides = divides,
    .fits = fits,
    .form = form,
    .kron_size = kron_size,
    .kron = kron,
    .add = add,
    .dialects = 1 << WEFT_DIALECT_KOHYA | 1 << WEFT_DIALECT_PEFT,
    .cannot_write = cannot_write,
    .alpha_means = wf_alpha_scales,
    .shape_for = shape_for,
    .peft_types = peft_types,
    .write_peft = write_peft,
};
