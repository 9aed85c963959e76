/* dialect_diffusers_old.c - what diffusers wrote before it took PEFT's names, in all its ages.
 *
 *   0.12-0.17  down_blocks.0...attn1.processor.to_q_lora.down.weight     no prefix, only the UNet
 *   later      unet.... and text_encoder....self_attn.to_q_lora.down.weight
 *   0.22-0.25  unet....attn1.to_q.lora.down.weight, sometimes unet.unet....
 *
 * The attention processors had names of their own for the projections, and put them on text
 * encoders too; the tables below bring them back to the modules' names. */
#include "adapter/dialect.h"

static const wf_prefix prefixes[] = {
    { "unet.", "unet." },
    { "text_encoder.", "text_encoder." },
    { "text_encoder_2.", "text_encoder_2." },
    { "down_blocks.", "unet.down_blocks." },
    { "mid_block.", "unet.mid_block." },
    { "up_blocks.", "unet.up_blocks." },
    { "text_model.", "text_encoder.text_model." },
    { NULL, NULL },
};

static const wf_ending endings[] = {
    { ".to_q_lora.down.weight", ".to_q", WF_TENSOR_DOWN, 0 },
    { ".to_q_lora.up.weight", ".to_q", WF_TENSOR_UP, 0 },
    { ".to_q_lora.alpha", ".to_q", WF_TENSOR_ALPHA, WF_JOINS },
    { ".to_k_lora.down.weight", ".to_k", WF_TENSOR_DOWN, 0 },
    { ".to_k_lora.up.weight", ".to_k", WF_TENSOR_UP, 0 },
    { ".to_k_lora.alpha", ".to_k", WF_TENSOR_ALPHA, WF_JOINS },
    { ".to_v_lora.down.weight", ".to_v", WF_TENSOR_DOWN, 0 },
    { ".to_v_lora.up.weight", ".to_v", WF_TENSOR_UP, 0 },
    { ".to_v_lora.alpha", ".to_v", WF_TENSOR_ALPHA, WF_JOINS },
    { ".to_out_lora.down.weight", ".to_out.0", WF_TENSOR_DOWN, 0 },
    { ".to_out_lora.up.weight", ".to_out.0", WF_TENSOR_UP, 0 },
    { ".to_out_lora.alpha", ".to_out.0", WF_TENSOR_ALPHA, WF_JOINS },
    { ".lora.down.weight", "", WF_TENSOR_DOWN, 0 },
    { ".lora.up.weight", "", WF_TENSOR_UP, 0 },
    { ".lora.alpha", "", WF_TENSOR_ALPHA, WF_JOINS },
    { ".lora.downB.weight", "", WF_TENSOR_MIXER, 0 }, /* MoSLoRA's lora_AB, caught by a renaming of lora_A */
    { ".lora.weight", "", WF_TENSOR_DIFF, 0 },        /* ZipLoRA's outcome: the product itself */
    { ".lora_linear_layer.down.weight", "", WF_TENSOR_DOWN, WF_WEAK },
    { ".lora_linear_layer.up.weight", "", WF_TENSOR_UP, WF_WEAK },
    { ".lora_linear_layer.alpha", "", WF_TENSOR_ALPHA, WF_WEAK | WF_JOINS },
    { ".alpha", "", WF_TENSOR_ALPHA, WF_WEAK | WF_JOINS },
    { NULL, NULL, 0, 0 },
};

static const wf_rename renames[] = {
    { ".processor.to_q", ".to_q" },
    { ".processor.to_k", ".to_k" },
    { ".processor.to_v", ".to_v" },
    { ".processor.to_out.0", ".to_out.0" },
    { ".self_attn.to_q", ".self_attn.q_proj" },
    { ".self_attn.to_k", ".self_attn.k_proj" },
    { ".self_attn.to_v", ".self_attn.v_proj" },
    { ".self_attn.to_out.0", ".self_attn.out_proj" },
    { NULL, NULL },
};

const wf_dialect wf_dialect_diffusers_old = {
    .name = "diffusers-old", .title = "diffusers", .whole_kind = "ZipLoRA", .prefixes = prefixes,
    .endings = { endings }, .renames = renames, .config = WF_CONFIG_METADATA,
    .rank_is_alpha = true,
};
