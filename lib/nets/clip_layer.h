/* clip_layer.h - the transformer layer that CLIP's two encoders share, for text and for images. */
#ifndef WF_CLIP_LAYER_H
#define WF_CLIP_LAYER_H

#include "nets/exec.h"

typedef struct wf_clip_layer {
    wf_norm         norm1, norm2;
    const wf_layer *q, *k, *v, *out, *fc1, *fc2;
} wf_clip_layer;

/* What all layers of an encoder have in common. */
typedef struct wf_clip_shape {
    int32_t hidden, heads, intermediate;
    float   eps;
    wf_act  act;
    bool    causal; /* a token sees itself and those before it */
} wf_clip_shape;

/* Layer `index` under "<base>.encoder.layers". */
weft_status wf_clip_layer_bind(wf_binder *b, wf_clip_layer *l, const wf_clip_shape *s,
                               const char *base, int32_t index, weft_error *err);
/* x (rows of g, hidden) becomes the layer's result. */
void wf_clip_layer_run(wf_exec *e, const wf_clip_layer *l, const wf_clip_shape *s, float *x,
                       wf_grid g);

#endif
