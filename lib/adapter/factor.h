/* factor.h - what several families do with their factors and with a layer's weight. */
#ifndef WF_FACTOR_H
#define WF_FACTOR_H

#include "adapter/family.h"

/* Rows of a layer that are worked on at once: a strip of the widest layer of SDXL stays within a few MB. */
enum { WF_STRIP = 64 };

/* dst (r, kk, in) = t (r, q, k, k) with b (q, in) folded in: what Tucker's core makes of the inner factor. */
weft_status wf_tucker_fold(const wf_tensor *t, const wf_tensor *b, size_t r, size_t q, size_t in, size_t kk, float *dst,
                           const weft_allocator *alloc, weft_error *err);

/* k of a tensor (a, b, k, k), 1 of a tensor (a, b); 0 of any other. */
int32_t wf_factor_kernel(const wf_tensor *t);
/* Do m's columns fill l's rows, also where a tensor (r, in * k * k) stands for a convolution? */
bool    wf_fits_columns(const wf_module *m, const wf_layer *l);
/* Columns K = kernel * kernel * in of a module's matrix. */
size_t  wf_module_columns(const wf_module *m);
/* Refuse a K beyond INT32_MAX. */
weft_status wf_module_check_columns(const wf_module *m, const char *source, weft_error *err);
/* dst += f * t, all of it in the file's order. */
void    wf_tensor_add(const wf_tensor *t, double f, float *dst);
/* How a factor (r, in * k * k) or (r, in, k, k) of m is to be read for layer l, which may be NULL. */
typedef struct wf_columns {
    size_t in;
    size_t kk;
    size_t K;
} wf_columns;
wf_columns wf_columns_at(const wf_module *m, const wf_layer *l);
/* t's rows, (rows, in, k, k) or flat, as (rows, kk, in). */
void wf_factor_rows(const wf_tensor *t, size_t rows, wf_columns c, float *dst);

/* n rows of a layer from row `from`, columns in the file's order (in, ky, kx); and dst (out, K), ordered (ky, kx, in),
 * += f * those rows' delta. */
void wf_layer_rows_as_stored(const wf_layer *l, size_t from, size_t n, float *w);
void wf_add_as_stored(const wf_layer *l, size_t from, size_t n, const float *delta, double f, float *dst);

/* Are GLoRA's factors in the order of older files (glora.c)? */
bool    wf_glora_older(const wf_module *m);

/* DENSE whatever the layer. */
int32_t wf_form_dense(const wf_module *m, const wf_layer *l);

#endif
