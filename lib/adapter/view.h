/* view.h - reading tensors of files and weights of layers as floats, in the order of the
 * networks. */
#ifndef WF_ADAPTER_VIEW_H
#define WF_ADAPTER_VIEW_H

#include "io/io.h"
#include "model/model.h"

/* n floats of t from element `from`. */
void  wf_tensor_read(const wf_tensor *t, size_t from, size_t n, float *dst);
/* One value of a 0-d or 1-element tensor. */
float wf_tensor_scalar(const wf_tensor *t);
/* dst (columns, rows) = t (rows, columns): rows become columns. */
void  wf_tensor_transposed(const wf_tensor *t, size_t rows, size_t columns, float *dst);
/* dst (r, k * k, in) = t (r, in, k, k): the order of the networks. */
void  wf_tensor_channels_last(const wf_tensor *t, size_t r, size_t in, size_t kk, float *dst);
/* dst += f * t, all of it in the file's order. */
void  wf_tensor_add(const wf_tensor *t, double f, float *dst);

/* The columns of a matrix: kk places of a kernel with `in` channels each, K = in * kk. */
typedef struct wf_columns {
    size_t in;
    size_t kk;
    size_t K;
} wf_columns;
/* t's rows, (rows, in, k, k) or flat, as (rows, kk, in). */
void  wf_factor_rows(const wf_tensor *t, size_t rows, wf_columns c, float *dst);

/* w (n, K) = rows [from, from + n) of the layer's base weight, K ordered (ky, kx, in). */
void  wf_layer_rows(const wf_layer *l, size_t from, size_t n, float *w);
/* The same with columns in the file's order (in, ky, kx); and dst (out, K), ordered (ky, kx, in),
 * += f * those rows' delta. */
void  wf_layer_rows_as_stored(const wf_layer *l, size_t from, size_t n, float *w);
void  wf_add_as_stored(const wf_layer *l, size_t from, size_t n, const float *delta, double f,
                       float *dst);
/* to (n, K), columns in the file's order, of w (n, K) in the networks'. */
void  wf_rows_as_stored(const wf_layer *l, const float *w, size_t n, float *to);

#endif
