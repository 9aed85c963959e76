/* unet.h - the UNet of Stable Diffusion 1.x, 2.x and XL, as its configuration describes it. */
#ifndef WF_UNET_H
#define WF_UNET_H

#include "nets/exec.h"

enum { WF_LEVELS = 8 }; /* most levels that a configuration may have */

typedef struct wf_unet_config {
    int32_t in_channels, out_channels; /* latents have out_channels; what is more is told (mask, picture) */
    int32_t levels;
    int32_t channels[WF_LEVELS];       /* block_out_channels                                     */
    bool    down_attention[WF_LEVELS]; /* CrossAttnDownBlock2D                                   */
    bool    up_attention[WF_LEVELS];   /* CrossAttnUpBlock2D, in order of execution              */
    bool    mid_attention;             /* UNetMidBlock2DCrossAttn                                */
    bool    has_mid;
    int32_t layers[WF_LEVELS];         /* layers_per_block                                       */
    int32_t heads[WF_LEVELS];          /* number of heads (attention_head_dim means that too)    */
    int32_t depth[WF_LEVELS];          /* transformer_layers_per_block                           */
    int32_t cross_dim[WF_LEVELS];
    int32_t groups;
    float   eps;
    wf_act  act;
    bool    linear_projection;
    bool    flip_sin_to_cos;
    double  freq_shift;
    bool    text_time;                 /* addition_embed_type "text_time"                        */
    int32_t time_id_dim;               /* addition_time_embed_dim                                */
    int32_t added_dim;                 /* projection_class_embeddings_input_dim                  */
    int32_t time_ids;                  /* how many; added_dim = pooled_dim + time_ids * time_id_dim */
    int32_t pooled_dim;
    int32_t guidance_dim;              /* time_cond_proj_dim: sinusoids of the guidance; 0: not told   */
    int32_t sample_size;
} wf_unet_config;

typedef struct wf_unet wf_unet;

/* Build from a file; layers go into the binder's table in order of execution. */
weft_status wf_unet_build(const wf_unet_config *config, wf_binder *b, wf_unet **out, weft_error *err);
void        wf_unet_free(wf_unet *u, const weft_allocator *alloc);
/* Cross-attention layers, each of which reads the conditioning. */
int32_t     wf_unet_text_layers(const wf_unet *u);

/* Inputs of one evaluation. n = grid.n samples, each with its own timestep and conditioning. */
typedef struct wf_unet_input {
    wf_grid      grid;       /* (n, h, w) of the latents                     */
    const float *latent;     /* (n, in_channels, h, w)                       */
    const float *timestep;   /* (n)                                          */
    const float *const *text; /* [n] pointers to (tokens, cross_dim) each, or (text_layers, tokens, cross_dim) */
    int32_t      tokens;
    int32_t      text_layers; /* wf_unet_text_layers(), or 0: the same text for every layer */
    const float *const *pooled; /* [n] pointers to (pooled_dim), or NULL     */
    const float *time_ids;   /* (n, ids), or NULL                            */
    int32_t      ids;        /* 6, or a refiner's 5: known once the model is whole, later than the UNet */
    const float *guidance;   /* (n) scales, for a UNet that is told          */
} wf_unet_input;

/* out (n, out_channels, h, w) */
void wf_unet_forward(const wf_unet *u, wf_exec *e, float *out, const wf_unet_input *in);

#endif
