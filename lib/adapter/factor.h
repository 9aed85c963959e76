/* factor.h - what several families do with their factors and with a layer's weight, for the
 * families' files. */
#ifndef WF_FACTOR_H
#define WF_FACTOR_H

#include "adapter/family.h"

/* Rows of a layer that are worked on at once: a strip of the widest layer of SDXL stays within a
 * few MB. */
enum { WF_STRIP = 64 };

/* dst (r, kk, in) = t (r, q, k, k) with b (q, in) folded in: what Tucker's core makes of the inner
 * factor. */
weft_status wf_tucker_fold(const wf_tensor *t, const wf_tensor *b, size_t r, size_t q, size_t in,
                           size_t kk, float *dst, const weft_allocator *alloc, weft_error *err);

/* k of a tensor (a, b, k, k), 1 of a tensor (a, b); 0 of any other. */
int32_t wf_factor_kernel(const wf_tensor *t);
/* Do m's columns fill l's rows, also if a tensor (r, in * k * k) stands for a convolution? */
bool    wf_fits_columns(const wf_module *m, const wf_layer *l);
/* Columns K = kernel * kernel * in of a module's matrix. */
size_t  wf_module_columns(const wf_module *m);
/* Refuse a K beyond INT32_MAX. */
weft_status wf_module_check_columns(const wf_module *m, const char *source, weft_error *err);
/* How a factor (r, in * k * k) or (r, in, k, k) of m is to be read for layer l, which may be
 * NULL. */
wf_columns wf_columns_at(const wf_module *m, const wf_layer *l);

/* The member of wf_family. */
typedef weft_status (*wf_add_fn)(const wf_module *m, const wf_layer *l, double scale, double c,
                                 float *dst, const weft_allocator *alloc, weft_error *err);
/* dora.c: dst += c * (W' - W), W' = g V / |V|, V = W + inside * scale * Delta, which `inner`
 * adds. */
weft_status wf_dora_add(const wf_module *m, const wf_layer *l, wf_add_fn inner, double scale,
                        double inside, double c, float *dst, const weft_allocator *alloc,
                        weft_error *err);

/* ---- members of wf_family that several share ---- */

/* add() of a family whose difference is its pair. */
weft_status wf_add_pair(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                        const weft_allocator *alloc, weft_error *err);
/* PAIR whatever the layer. */
int32_t wf_form_pair(const wf_module *m, const wf_layer *l);

/* DENSE whatever the layer. */
int32_t wf_form_dense(const wf_module *m, const wf_layer *l);
/* WF_ALPHA_SCALE and WF_ALPHA_LIMIT whatever the module. */
int32_t wf_alpha_scales(const wf_module *m);
int32_t wf_alpha_limits(const wf_module *m);

/* The rank at the start of training, if that is all that a family keeps of its configuration. */
typedef struct wf_start_rank {
    int32_t rank; /* 0: not told */
} wf_start_rank;
weft_status wf_settle_start_rank(wf_module *m, const struct wf_settings *s,
                                 const struct wf_config *config, const char *path, weft_error *err);
int32_t     wf_start_rank_of(const wf_module *m);

/* What PEFT's (IA)^3 keeps of its configuration: does a convolution's factor scale the input? */
typedef struct wf_ia3_peft {
    bool on_input;
} wf_ia3_peft;

/* What MiSS keeps of its configuration: which of its three kinds it says, if there is one. */
typedef struct wf_miss {
    bool told;
    bool mini;
    bool bat;
} wf_miss;

/* ---- shapes that wf_family.shape_for gives ---- */

/* (rows, the rest), and for a convolution (rows, channels, k, k). */
void wf_shape_matrix(wf_tensor *t);
void wf_shape_inner(wf_tensor *t, const wf_layer *l);
/* (rows, the rest, 1, 1) for a convolution, else (rows, the rest). */
void wf_shape_outer(wf_tensor *t, const wf_layer *l);

#endif
