/* unet.h - the UNet of Stable Diffusion 1.x, 2.x and XL, as its configuration describes it. */
#ifndef WF_UNET_H
#define WF_UNET_H

#include "nets/denoiser.h"

enum {
    WF_LEVELS = 8,  /* most levels that a configuration may have    */
    WF_LAYERS = 17  /* and resnets of a stage: one more on the way up */
};

typedef struct wf_unet_config {
    int32_t in_channels, out_channels; /* latents have out_channels; more are read after them (mask, image) */
    int32_t levels;
    int32_t channels[WF_LEVELS];       /* block_out_channels                                     */
    bool    down_attention[WF_LEVELS]; /* CrossAttnDownBlock2D                                   */
    bool    up_attention[WF_LEVELS];   /* CrossAttnUpBlock2D, in order of execution              */
    bool    has_mid;
    bool    mid_attention;             /* UNetMidBlock2DCrossAttn; else UNetMidBlock2D, one resnet */
    float   mid_scale;                 /* mid_block_scale_factor: its resnets are divided by it  */
    int32_t layers[WF_LEVELS];         /* layers_per_block                                       */
    int32_t heads[WF_LEVELS];          /* number of heads (attention_head_dim means that too)    */
    int32_t down_depth[WF_LEVELS][WF_LAYERS]; /* transformer_layers_per_block of each transformer */
    int32_t up_depth[WF_LEVELS][WF_LAYERS];   /* in order of execution                           */
    int32_t mid_depth;
    int32_t cross_dim[WF_LEVELS];
    int32_t groups;
    float   eps;
    wf_act  act;
    bool    linear_projection;
    bool    center;                    /* center_input_sample: x becomes 2 x - 1                 */
    int32_t in_kernel, out_kernel;     /* of conv_in and conv_out: 1 or 3                        */
    int32_t down_pad;                  /* downsample_padding: 1 all around, or 0: bottom and right */
    int32_t time_dim;                  /* width of the time embedding                            */
    wf_act  time_post_act;             /* timestep_post_act: after its second layer              */
    wf_act  time_act;                  /* time_embedding_act_fn: after what is added to it       */
    bool    flip_sin_to_cos;
    double  freq_shift;
    bool    text_time;                 /* addition_embed_type "text_time"                        */
    int32_t time_id_dim;               /* addition_time_embed_dim                                */
    int32_t added_dim;                 /* projection_class_embeddings_input_dim                  */
    int32_t time_ids;                  /* how many; added_dim = pooled_dim + time_ids * time_id_dim */
    int32_t pooled_dim;
    int32_t guidance_dim;              /* time_cond_proj_dim: sinusoids of the guidance; 0: no such input */
    int32_t sample_size;
} wf_unet_config;

/* Build from a file; layers go into the binder's table in order of execution. Streams of text: a sequence; with
 * text_time a pooled vector besides. */
weft_status wf_unet_build(const wf_unet_config *config, wf_binder *b, wf_denoiser **out, weft_error *err);
/* The configuration of a denoiser that is a UNet, else NULL: for the names of its blocks in files. */
const wf_unet_config *wf_unet_get_config(const wf_denoiser *d);

extern const wf_denoiser_ops wf_unet_ops;

#endif
