/* dialect_kohya.c - kohya's scripts, A1111, ComfyUI, LyCORIS: one underscore word for each module.
 *
 * The word is the module's path with its dots turned into underscores, and the way back is ambiguous, so the
 * name stays as it is until a model is there: every layer of the model then says how it would be called, in
 * diffusers' names and in LDM's. Variants that keep dots, or another prefix, are brought to the same word. */
#include "adapter/dialect.h"

static const wf_prefix prefixes[] = {
    { "lora_unet_", "lora_unet_" },
    { "lora_te_", "lora_te_" },
    { "lora_te1_", "lora_te1_" },
    { "lora_te2_", "lora_te2_" },
    { "lycoris_", "lora_unet_" },
    { "unet.", "lora_unet_" },
    { "text_encoder.", "lora_te1_" },
    { "text_encoder_2.", "lora_te2_" },
    { "diffusion_model.", "lora_unet_" },
    { "text_encoders.clip_l.transformer.", "lora_te1_" },
    { "text_encoders.clip_g.transformer.", "lora_te2_" },
    { NULL, NULL },
};

static const wf_ending endings[] = {
    { ".lora_down.weight", "", WF_PART_DOWN, 0 },
    { ".lora_up.weight", "", WF_PART_UP, 0 },
    { ".alpha", "", WF_PART_ALPHA, WF_JOINS },
    { NULL, NULL, 0, 0 },
};

const wf_dialect wf_dialect_kohya = { "kohya", NULL, prefixes, endings, NULL, WF_CONFIG_NONE, WF_WEAK };
