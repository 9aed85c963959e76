/* clip.h - CLIP's text encoder (OpenAI's and OpenCLIP's forms). */
#ifndef WF_CLIP_H
#define WF_CLIP_H

#include "nets/exec.h"

typedef struct wf_clip_config {
    int32_t hidden, layers, heads, intermediate;
    int32_t vocab, positions;
    int32_t projection; /* width of text_projection; 0: none */
    float   eps;
    wf_act  act;
    int32_t eos;        /* eos_token_id as the config says   */
} wf_clip_config;

typedef struct wf_clip wf_clip;

weft_status           wf_clip_build(const wf_clip_config *config, wf_binder *b, wf_clip **out, weft_error *err);
void                  wf_clip_free(wf_clip *c, const weft_allocator *alloc);
const wf_clip_config *wf_clip_get_config(const wf_clip *c);

/* Encode n sequences of `length` ids (n, length).
 * last        (n, length, hidden) after the last layer and the final norm; may be NULL
 * penultimate (n, length, hidden) after all layers but the last, without the final norm; may be NULL
 * pooled      (n, projection): final norm at position eos_at[s], then text_projection; may be NULL   */
void wf_clip_forward(const wf_clip *c, wf_exec *e, const int32_t *ids, int32_t n, int32_t length, float *last,
                     float *penultimate, float *pooled, const int32_t *eos_at);

#endif
