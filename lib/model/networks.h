/* networks.h - the networks of an opened model, and how their text streams are made, for the rooms
 * that run them. */
#ifndef WF_NETWORKS_H
#define WF_NETWORKS_H

#include "model/model.h"
#include "nets/clip.h"
#include "nets/denoiser.h"
#include "nets/vae.h"
#include "tensor/product.h"

enum { WF_ENCODERS_MAX = 3 };

typedef struct wf_text_encoder {
    int32_t       component; /* WEFT_COMPONENT_TEXT_1, .. */
    wf_clip      *net;
    wf_tokenizer *tokenizer; /* NULL: prompts cannot be encoded                           */
    int32_t       left_out;  /* layers at its end that the base never runs: 0, or SDXL's 1 */
    bool          norm;      /* its hidden states go through its final norm               */
} wf_text_encoder;

/* Where a part of a stream's row comes from: the hidden states of an encoder, or its pooled
 * vector. */
typedef struct wf_stream_source {
    int32_t encoder; /* index in wf_networks                    */
    int32_t column;  /* of the row, where its floats begin      */
} wf_stream_source;

/* A text stream: what the denoiser reads, and which encoders give it. */
typedef struct wf_stream {
    const wf_stream_facts *facts;
    int32_t                tokens;  /* of one chunk of a prompt; 1 for a pooled vector  */
    int32_t                sources; /* 0: no encoder gives it, the caller brings it     */
    wf_stream_source       from[WF_ENCODERS_MAX];
} wf_stream;

typedef struct wf_networks {
    wf_denoiser      *denoiser;
    wf_text_encoder   encoder[WF_ENCODERS_MAX];
    int32_t           encoders;
    wf_stream         stream[WF_STREAMS_MAX];
    int32_t           streams;
    wf_vae           *vae;     /* NULL: it has none */
    const wf_kernels  *kernels;
    const wf_products *products; /* of the denoiser and the VAE, in the model's arithmetic      */
    const wf_products *exact;    /* in float32: of text encoders and of what reads pictures     */
    int32_t            arithmetic; /* WEFT_ARITHMETIC_*                                         */
    bool               emulated;   /* the processor does not have it                            */
} wf_networks;

const wf_networks *wf_model_networks(const weft_model *m);
/* WEFT_E_STATE with what to give, if prompts cannot be encoded. */
weft_status        wf_model_need_tokenizer(const weft_model *m, weft_error *err);

static inline const wf_denoiser_facts *wf_facts(const wf_networks *n)
{
    return &n->denoiser->facts;
}

/* Tokens of one chunk of a text encoder, with BOS and EOS. */
static inline int32_t wf_encoder_positions(const wf_text_encoder *t)
{
    return wf_clip_get_config(t->net)->positions;
}

#endif
