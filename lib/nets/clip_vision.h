/* clip_vision.h - CLIP's image encoder (OpenAI's and OpenCLIP's forms). */
#ifndef WF_CLIP_VISION_H
#define WF_CLIP_VISION_H

#include "nets/exec.h"

typedef struct wf_clip_vision_config {
    int32_t hidden, layers, heads, intermediate;
    int32_t image, patch; /* sides in pixels: of what it reads, and of one patch */
    int32_t projection;   /* width of the pooled vector */
    float   eps;
    wf_act  act;
} wf_clip_vision_config;

typedef struct wf_clip_vision wf_clip_vision;

weft_status wf_clip_vision_build(const wf_clip_vision_config *config, wf_binder *b,
                                 wf_clip_vision **out, weft_error *err);
void        wf_clip_vision_free(wf_clip_vision *m, const weft_allocator *alloc);
const wf_clip_vision_config *wf_clip_vision_get_config(const wf_clip_vision *m);
/* Rows of the hidden states of an image: one for the whole, then one for each patch. */
int32_t     wf_clip_vision_tokens(const wf_clip_vision *m);

/* pixels (n, 3, image, image), normalised as the encoder wants them
 * hidden (n, tokens, hidden) written: what the last layer but one gives; may be NULL
 * pooled (n, projection)     written: the whole's row of the last layer, normed and projected; may
 *                            be NULL */
void wf_clip_vision_forward(const wf_clip_vision *m, wf_exec *e, const float *pixels, int32_t n,
                            float *hidden, float *pooled);

#endif
