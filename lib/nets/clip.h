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
const wf_tensor      *wf_clip_tokens(const wf_clip *c); /* (vocab, hidden) */

/* n sequences of `length` tokens each. */
typedef struct wf_clip_input {
    const int32_t      *ids;   /* (n, length); from the vocabulary's size on they number rows of `extra`     */
    const float *const *extra; /* rows of `hidden` floats that follow the vocabulary; NULL if no id needs one */
    int32_t             n, length;
    int32_t             skip;  /* layers at the end that `text` is taken before, 0 to all                    */
    bool                norm;  /* `text` goes through the final norm                                         */
    const int32_t      *eos_at; /* [n] position that is pooled                                               */
} wf_clip_input;

/* text   (n, length, hidden); may be NULL
 * pooled (n, projection): the last layer, final norm, at eos_at, then text_projection; may be NULL
 * Under a tape `ids` and `eos_at` are read on the way back, and gradients of extra rows are added to
 * the tape's. */
void wf_clip_forward(const wf_clip *c, wf_exec *e, const wf_clip_input *in, float *text, float *pooled);

#endif
