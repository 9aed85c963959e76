/* dialect_custom.c - Custom Diffusion: new keys and values of the cross-attentions, whole.
 *
 *   the authors' program    state_dict.model.diffusion_model.<LDM path>.attn2.to_k.weight      embed
 *   its diffusers port      unet.<path>.attn2.to_k.weight, compressed .u and .v                 modifier_token.<new1>
 *   diffusers               <path>.attn2.processor.to_k_custom_diffusion.weight, also to_q, to_out
 *
 * The weights replace the model's, so that a part of them is a part of the way there. Only
 * cross-attentions are read: the rest of such names belongs to checkpoints. */
#include "adapter/dialect.h"

static const wf_prefix paths[] = {
    { "unet.", "unet." },
    { "down_blocks.", "unet.down_blocks." },
    { "mid_block.", "unet.mid_block." },
    { "up_blocks.", "unet.up_blocks." },
    { NULL, NULL },
};

static const wf_ending endings[] = {
    { ".attn2.to_q.weight", ".attn2.to_q", WF_TENSOR_REPLACE, 0 },
    { ".attn2.to_k.weight", ".attn2.to_k", WF_TENSOR_REPLACE, 0 },
    { ".attn2.to_v.weight", ".attn2.to_v", WF_TENSOR_REPLACE, 0 },
    { ".attn2.to_out.0.weight", ".attn2.to_out.0", WF_TENSOR_REPLACE, 0 },
    { ".attn2.to_out.0.bias", ".attn2.to_out.0", WF_TENSOR_REPLACE_B, 0 },
    { ".attn2.to_k.weight.u", ".attn2.to_k", WF_TENSOR_DELTA_U, 0 },
    { ".attn2.to_k.weight.v", ".attn2.to_k", WF_TENSOR_DELTA_V, 0 },
    { ".attn2.to_v.weight.u", ".attn2.to_v", WF_TENSOR_DELTA_U, 0 },
    { ".attn2.to_v.weight.v", ".attn2.to_v", WF_TENSOR_DELTA_V, 0 },
    { NULL, NULL, 0, 0 },
};

static const wf_ending processors[] = {
    { ".processor.to_q_custom_diffusion.weight", ".to_q", WF_TENSOR_REPLACE, 0 },
    { ".processor.to_k_custom_diffusion.weight", ".to_k", WF_TENSOR_REPLACE, 0 },
    { ".processor.to_v_custom_diffusion.weight", ".to_v", WF_TENSOR_REPLACE, 0 },
    { ".processor.to_out_custom_diffusion.0.weight", ".to_out.0", WF_TENSOR_REPLACE, 0 },
    { ".processor.to_out_custom_diffusion.0.bias", ".to_out.0", WF_TENSOR_REPLACE_B, 0 },
    { NULL, NULL, 0, 0 },
};

const wf_dialect wf_dialect_custom = {
    .name = "custom-diffusion", .title = "Custom Diffusion", .kind = "Custom Diffusion",
    .prefixes = paths,
    .endings = { processors },
};

static const wf_prefix delta_paths[] = {
    { "unet.", "unet." },
    { NULL, NULL },
};

const wf_dialect wf_dialect_custom_delta = {
    .name = "custom-diffusion", .title = "Custom Diffusion", .kind = "Custom Diffusion",
    .prefixes = delta_paths,
    .endings = { endings },
};

static const wf_prefix ldm_paths[] = {
    { "model.diffusion_model.", "lora_unet_" },
    { NULL, NULL },
};

const wf_dialect wf_dialect_custom_ldm = {
    .name = "custom-diffusion", .title = "Custom Diffusion", .kind = "Custom Diffusion",
    .wrapper = "state_dict.",
    .prefixes = ldm_paths, .endings = { endings }, .underscore = true,
};
