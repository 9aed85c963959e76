/* factor.c - what several families do with their factors and with a layer's weight.
 *
 * Layers are gone through in strips of rows, so that adding an adapter to a layer needs little beside the sum itself.
 * Columns run over (ky, kx, in) everywhere but in two families that turn columns in the order of the file. */
#include "adapter/factor.h"
#include "tensor/gemm.h"

weft_status wf_tucker_fold(const wf_tensor *t, const wf_tensor *b, size_t r, size_t q, size_t in, size_t kk, float *dst,
                           const weft_allocator *alloc, weft_error *err)
{
    size_t floats = t->count + b->count; /* of tensors that are in memory: no overflow */
    float *core = wf_zalloc(alloc, floats, sizeof *core);

    if (core == NULL) return wf_nomem(err, floats * sizeof *core, "a Tucker core");
    float *inner = core + t->count;
    wf_tensor_transposed(t, r * q, kk, core); /* (kk, r, q): one matrix for each place of the kernel */
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

    if (wf_mul((size_t)m->in, (size_t)m->kernel, &K) && wf_mul(K, (size_t)m->kernel, &K) && K <= INT32_MAX)
        return WEFT_OK;
    return wf_module_fail(m, source, err, "a row of %d channels and a kernel of %d is longer than 2^31", m->in, m->kernel);
}

void wf_tensor_add(const wf_tensor *t, double f, float *dst)
{
    float buf[1024];

    for (size_t i = 0; i < t->count; i += WF_LEN(buf)) {
        size_t n = WF_MIN(WF_LEN(buf), t->count - i);
        wf_tensor_read(t, i, n, buf);
        for (size_t j = 0; j < n; j++) dst[i + j] += (float)(f * buf[j]);
    }
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

void wf_factor_rows(const wf_tensor *t, size_t rows, wf_columns c, float *dst)
{
    if (c.kk == 1) wf_tensor_read(t, 0, rows * c.K, dst);
    else wf_tensor_channels_last(t, rows, c.in, c.kk, dst);
}

void wf_layer_rows(const wf_layer *l, size_t from, size_t n, float *w)
{
    size_t         in = (size_t)l->in, kk = (size_t)l->kernel * (size_t)l->kernel, K = in * kk;
    const uint8_t *data = (const uint8_t *)l->weight + from * K * (size_t)(wf_dtype_bits(l->dtype) / 8);
    wf_tensor      t = { .name = l->name, .data = data, .count = n * K, .dtype = l->dtype };

    wf_factor_rows(&t, n, (wf_columns){ .in = in, .kk = kk, .K = K }, w);
}

void wf_layer_rows_as_stored(const wf_layer *l, size_t from, size_t n, float *w)
{
    size_t K = (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel;

    (void)wf_widen_any(w, (const uint8_t *)l->weight + from * K * (size_t)(wf_dtype_bits(l->dtype) / 8), l->dtype, n * K);
}

void wf_add_as_stored(const wf_layer *l, size_t from, size_t n, const float *delta, double f, float *dst)
{
    size_t in = (size_t)l->in, kk = (size_t)l->kernel * (size_t)l->kernel, K = in * kk;

    for (size_t o = 0; o < n; o++)
        for (size_t i = 0; i < K; i++) dst[(from + o) * K + i % kk * in + i / kk] += (float)(f * delta[o * K + i]);
}

int32_t wf_form_dense(const wf_module *m, const wf_layer *l)
{
    (void)m, (void)l;
    return WF_FORM_DENSE;
}
