/* view.c - reading tensors of files and weights of layers as floats, in the order of the networks.
 *
 * Factors and weights stay in the file's dtype, where they are mapped; they are widened piece by
 * piece as they are read. Columns run over (ky, kx, in) everywhere except in two families that turn
 * columns in the order of the file. */
#include "adapter/view.h"

enum { CHUNK = 1024 };

void wf_tensor_read(const wf_tensor *t, size_t from, size_t n, float *dst)
{
    (void)wf_widen_any(dst, t->data + from * (size_t)(wf_dtype_bits(t->dtype) / 8), t->dtype, n);
}

float wf_tensor_scalar(const wf_tensor *t)
{
    float v = 0;

    wf_tensor_read(t, 0, 1, &v);
    return v;
}

void wf_tensor_transposed(const wf_tensor *t, size_t rows, size_t columns, float *dst)
{
    float buf[CHUNK];

    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < columns; c += CHUNK) {
            size_t n = WF_MIN((size_t)CHUNK, columns - c);
            wf_tensor_read(t, r * columns + c, n, buf);
            for (size_t j = 0; j < n; j++) dst[(c + j) * rows + r] = buf[j];
        }
}

void wf_tensor_channels_last(const wf_tensor *t, size_t r, size_t in, size_t kk, float *dst)
{
    float  buf[CHUNK];
    size_t K = in * kk;

    for (size_t p = 0; p < r; p++) {
        float *dst_p = dst + p * K;
        for (size_t i = 0; i < K; i += CHUNK) {
            size_t n = WF_MIN((size_t)CHUNK, K - i);
            wf_tensor_read(t, p * K + i, n, buf);
            for (size_t j = 0; j < n; j++) dst_p[(i + j) % kk * in + (i + j) / kk] = buf[j];
        }
    }
}

void wf_tensor_add(const wf_tensor *t, double f, float *dst)
{
    float buf[CHUNK];

    for (size_t i = 0; i < t->count; i += CHUNK) {
        size_t n = WF_MIN((size_t)CHUNK, t->count - i);
        wf_tensor_read(t, i, n, buf);
        for (size_t j = 0; j < n; j++) dst[i + j] += (float)(f * buf[j]);
    }
}

void wf_factor_rows(const wf_tensor *t, size_t rows, wf_columns c, float *dst)
{
    if (c.kk == 1) wf_tensor_read(t, 0, rows * c.K, dst);
    else wf_tensor_channels_last(t, rows, c.in, c.kk, dst);
}

/* Element `i` of the layer's weight. */
static const uint8_t *weight_at(const wf_layer *l, size_t i)
{
    return (const uint8_t *)l->weight + i * (size_t)(wf_dtype_bits(l->dtype) / 8);
}

void wf_layer_rows(const wf_layer *l, size_t from, size_t n, float *w)
{
    size_t         in = (size_t)l->in, kk = (size_t)l->kernel * (size_t)l->kernel, K = in * kk;
    const uint8_t *data = weight_at(l, from * K);
    wf_tensor      t = { .name = l->name, .data = data, .count = n * K, .dtype = l->dtype };

    wf_factor_rows(&t, n, (wf_columns){ .in = in, .kk = kk, .K = K }, w);
}

void wf_layer_rows_as_stored(const wf_layer *l, size_t from, size_t n, float *w)
{
    size_t K = (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel;

    (void)wf_widen_any(w, weight_at(l, from * K), l->dtype, n * K);
}

void wf_add_as_stored(const wf_layer *l, size_t from, size_t n, const float *delta, double f,
                      float *dst)
{
    size_t in = (size_t)l->in, kk = (size_t)l->kernel * (size_t)l->kernel, K = in * kk;

    for (size_t o = 0; o < n; o++)
        for (size_t i = 0; i < K; i++)
            dst[(from + o) * K + i % kk * in + i / kk] += (float)(f * delta[o * K + i]);
}

void wf_rows_as_stored(const wf_layer *l, const float *w, size_t n, float *to)
{
    size_t in = (size_t)l->in, kk = (size_t)l->kernel * (size_t)l->kernel, K = in * kk;

    if (kk == 1) memcpy(to, w, n * K * sizeof *to);
    for (size_t o = 0; o < n && kk > 1; o++)
        for (size_t i = 0; i < K; i++) to[o * K + i] = w[o * K + i % kk * in + i / kk];
}
