/* vae.h - the autoencoder between images and latents. */
#ifndef WF_VAE_H
#define WF_VAE_H

#include "nets/exec.h"

enum { WF_VAE_LEVELS = 8 };

typedef struct wf_vae_config {
    int32_t in_channels, out_channels, latent_channels;
    int32_t levels;
    int32_t channels[WF_VAE_LEVELS];
    int32_t layers;          /* resnets of an encoder level; a decoder level has one more */
    int32_t groups;
    wf_act  act;
    bool    mid_attention;
    bool    quant_conv, post_quant_conv;
    float   scaling_factor;
    float   shift_factor;
} wf_vae_config;

typedef struct wf_vae wf_vae;

weft_status          wf_vae_build(const wf_vae_config *config, wf_binder *b, wf_vae **out, weft_error *err);
void                 wf_vae_free(wf_vae *v, const weft_allocator *alloc);
const wf_vae_config *wf_vae_get_config(const wf_vae *v);
/* Old files call the attention's layers query, key, value, proj_attn. */
bool                 wf_vae_old_name(const char *name, char *buf, size_t cap);

/* image (n, out_channels, f h, f w) = decoded z (n, latent_channels, h, w), no scaling applied. */
void wf_vae_decode(const wf_vae *v, wf_exec *e, float *image, const float *z, wf_grid g);
/* moments (n, 2 * latent_channels, h / f, w / f) of image (n, in_channels, h, w): mean, then log variance. */
void wf_vae_encode(const wf_vae *v, wf_exec *e, float *moments, const float *image, wf_grid g);
/* Image pixels for each latent pixel. */
int32_t wf_vae_factor(const wf_vae *v);

#endif
