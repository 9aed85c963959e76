/* encoder.h - pictures become the latents' distributions, for the files of lib/train. */
#ifndef WF_TRAIN_ENCODER_H
#define WF_TRAIN_ENCODER_H

#include "model/networks.h"

/* A VAE's encoder for pictures of one size, with memory of its own, so that it can be let go before
 * training begins, or kept beside it where pictures are encoded anew in each step. The model and
 * the pool must outlive it. */
typedef struct wf_encoder wf_encoder;
/* WEFT_E_STATE if the model has no VAE; WEFT_E_ARG for sides that are no multiples of the VAE's
 * factor. `stop` is asked at every layer, as wf_exec.stop; it may be NULL. */
weft_status wf_encoder_create(wf_encoder **out, const weft_model *model, wf_pool *pool,
                              int32_t width, int32_t height, bool (*stop)(void *user),
                              void *stop_user, const weft_allocator *alloc, weft_error *err);
void        wf_encoder_free(wf_encoder *e); /* NULL is fine */
/* Floats of a mean: (c, height / factor, width / factor). */
size_t      wf_encoder_floats(const wf_encoder *e);
const wf_vae_config *wf_encoder_vae(const wf_encoder *e);
/* Of a picture (3, height, width) in -1..1: a latent is (mean + noise deviation - shift) scale,
 * with both of the VAE's configuration. Not in tiles: what weft_run_encode_image() gives without
 * `tile`, to the bit. `what` names the picture. WEFT_E_CANCELLED, WEFT_E_NOT_FINITE. */
weft_status wf_encoder_encode(wf_encoder *e, const float *image, float *mean, float *deviation,
                              const char *what, weft_error *err);

#endif
