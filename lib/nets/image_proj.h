/* image_proj.h - IP-Adapter's image projection: features of an image in, rows for cross-attention
 * out. Three networks go by that name; the tensors of a file tell which it has. */
#ifndef WF_IMAGE_PROJ_H
#define WF_IMAGE_PROJ_H

#include "nets/exec.h"

/* The values of WEFT_IMAGE_*. */
typedef int32_t wf_image_kind;

typedef struct wf_image_proj_config {
    wf_image_kind kind;
    int32_t       features; /* width of the features that it reads            */
    int32_t       width;    /* of the rows that it gives: the text's           */
    int32_t       tokens;   /* rows of an image; FULL: as many as it reads     */
    int32_t       hidden;   /* PLUS: width of the latents; FULL: between       */
    int32_t       inner;    /* PLUS: width of q, k and v                       */
    int32_t       heads;    /* PLUS                                            */
    int32_t       layers;   /* PLUS                                            */
    int32_t       wide;     /* PLUS: between the two halves of a feed-forward  */
} wf_image_proj_config;

typedef struct wf_image_proj wf_image_proj;

/* The sizes that a file's tensors show. WEFT_E_UNSUPPORTED for projections of other models, by
 * name; WEFT_E_FORMAT where a tensor is missing. */
weft_status wf_image_proj_look(wf_image_proj_config *c, const weft_tensors *file, const char *path,
                               weft_error *err);
weft_status wf_image_proj_build(const wf_image_proj_config *config, wf_binder *b,
                                wf_image_proj **out, weft_error *err);
void        wf_image_proj_free(wf_image_proj *m, const weft_allocator *alloc);
const wf_image_proj_config *wf_image_proj_get_config(const wf_image_proj *m);

/* features (n, length, features): BASE the pooled vectors, length 1; else hidden states
 * rows     (n, tokens, width) written */
void wf_image_proj_forward(const wf_image_proj *m, wf_exec *e, const float *features, int32_t n,
                           int32_t length, float *rows);

#endif
