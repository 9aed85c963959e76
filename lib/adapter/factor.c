/* factor.c - what several families do with their factors and with a layer's weight. */
#include "adapter/factor.h"

#include "adapter/adapter_internal.h"
#include "tensor/gemm.h"

weft_status wf_tucker_fold(const wf_tensor *t, const wf_tensor *b, size_t r, size_t q, size_t in,
                           size_t kk, float *dst, const weft_allocator *alloc, weft_error *err)
{
    size_t floats = t->count + b->count; /* of tensors that are in memory: no overflow */
    float *core = wf_zalloc(alloc, floats, sizeof *core);

    if (core == NULL) return wf_nomem(err, floats * sizeof *core, "a Tucker core");
    float *inner = core + t->count;
    wf_tensor_transposed(t, r * q, kk,
                         core); /* (kk, r, q): one matrix for each place of the kernel */
    wf_tensor_read(b, 0, b->count, inner);
    for (size_t k = 0; k < kk; k++)
        wf_gemm_nn(dst + k * in, kk * in, core + k * r * q, q, inner, in, r, in, q, 0);
    wf_free(alloc, core);
    return WEFT_OK;
}

int32_t wf_factor_kernel(const wf_tensor *t)
{
    if (t->rank == 2) return 1;
    return t->rank == 4 && t->shape[2] == t->shape[3] ? (int32_t)t->shape[2] : 0;
}

size_t wf_module_columns(const wf_module *m)
{
    return (size_t)m->in * (size_t)m->kernel * (size_t)m->kernel;
}

weft_status wf_module_check_columns(const wf_module *m, const char *source, weft_error *err)
{
    size_t K;

    if (wf_mul((size_t)m->in, (size_t)m->kernel, &K) && wf_mul(K, (size_t)m->kernel, &K) &&
        K <= INT32_MAX)
        return WEFT_OK;
    return wf_module_fail(m, source, err,
                          "a row of %d channels and a kernel of %d is longer than 2^31", m->in,
                          m->kernel);
}

bool wf_fits_columns(const wf_module *m, const wf_layer *l)
{
    if (l->kind == WEFT_LAYER_NORM || m->out != l->out) return false;
    if (m->kernel != 1) return m->in == l->in && m->kernel == l->kernel;
    return (size_t)m->in == (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel;
}

wf_columns wf_columns_at(const wf_module *m, const wf_layer *l)
{
    size_t kernel = (size_t)(l != NULL ? l->kernel : m->kernel), K = wf_module_columns(m);

    return (wf_columns){ .in = K / (kernel * kernel), .kk = kernel * kernel, .K = K };
}

weft_status wf_add_pair(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                        const weft_allocator *alloc, weft_error *err)
{
    size_t      r = (size_t)wf_module_pair_rank(m), out = (size_t)l->out, floats,
                K = (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel;
    weft_status st;

    if (!wf_mul(r, K + out, &floats))
        return wf_fail(err, WEFT_E_ARG, "%s: the factors are too large", m->key);
    float *down = wf_zalloc(alloc, floats, sizeof *down);
    if (down == NULL) return wf_nomem(err, floats * sizeof *down, "an adapter's factors");
    float *up = down + r * K;
    st = m->family->pair(m, l, down, up, alloc, err);
    for (size_t i = 0; st == WEFT_OK && i < r * out; i++) up[i] = (float)(scale * c * up[i]);
    if (st == WEFT_OK) wf_gemm_tn(dst, K, up, out, down, K, out, K, r, 1);
    wf_free(alloc, down);
    return st;
}

int32_t wf_form_pair(const wf_module *m, const wf_layer *l)
{
    (void)m, (void)l;
    return WF_FORM_PAIR;
}

int32_t wf_form_dense(const wf_module *m, const wf_layer *l)
{
    (void)m, (void)l;
    return WF_FORM_DENSE;
}

int32_t wf_alpha_scales(const wf_module *m)
{
    (void)m;
    return WF_ALPHA_SCALE;
}

int32_t wf_alpha_limits(const wf_module *m)
{
    (void)m;
    return WF_ALPHA_LIMIT;
}

weft_status wf_settle_start_rank(wf_module *m, const wf_settings *s, const wf_config *config,
                                 const char *path, weft_error *err)
{
    wf_start_rank *extra = m->extra;

    (void)config, (void)path, (void)err;
    extra->rank = s->start_rank;
    return WEFT_OK;
}

int32_t wf_start_rank_of(const wf_module *m)
{
    return ((const wf_start_rank *)m->extra)->rank;
}

static void set_shape(wf_tensor *t, int32_t rank, int64_t a, int64_t b, int64_t k)
{
    t->rank = rank;
    t->shape[0] = a;
    t->shape[1] = b;
    t->shape[2] = t->shape[3] = k;
}

static int64_t row_length(const wf_tensor *t)
{
    return (int64_t)t->count / WF_MAX(t->shape[0], 1);
}

void wf_shape_matrix(wf_tensor *t)
{
    set_shape(t, 2, t->shape[0], row_length(t), 0);
}

void wf_shape_inner(wf_tensor *t, const wf_layer *l)
{
    int64_t kk = (int64_t)l->kernel * l->kernel;

    if (l->kind == WEFT_LAYER_CONV) set_shape(t, 4, t->shape[0], row_length(t) / kk, l->kernel);
    else wf_shape_matrix(t);
}

void wf_shape_outer(wf_tensor *t, const wf_layer *l)
{
    if (l->kind == WEFT_LAYER_CONV) set_shape(t, 4, t->shape[0], row_length(t), 1);
    else wf_shape_matrix(t);
}
