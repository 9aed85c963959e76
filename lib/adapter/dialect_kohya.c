/* dialect_kohya.c - kohya's scripts, A1111, ComfyUI, OneTrainer, LyCORIS: one underscore word for
 * each module.
 *
 * The word is the module's path with its dots turned into underscores, and the way back is
 * ambiguous, so the name stays as it is until a model is there: every layer of the model then says
 * how it would be called, in diffusers' names and in LDM's. Variants that keep dots, or another
 * prefix, are brought to the same word. */
#include "adapter/dialect.h"

static const wf_prefix prefixes[] = {
    { "lora_unet_", "lora_unet_" },
    { "lora_te_", "lora_te_" },
    { "lora_te1_", "lora_te1_" },
    { "lora_te2_", "lora_te2_" },
    { "lora_unet.", "lora_unet_" },
    { "lora_te.", "lora_te_" },
    { "lora_te1.", "lora_te1_" },
    { "lora_te2.", "lora_te2_" },
    { "oft_unet_", "lora_unet_" }, /* networks.oft */
    { "unet.", "lora_unet_" },
    { "clip_l.", "lora_te1_" },    /* OneTrainer's OMI form, LDM's names behind unet. */
    { "clip_g.", "lora_te2_" },
    { "text_encoder.", "lora_te1_" },
    { "text_encoder_2.", "lora_te2_" },
    { "diffusion_model.", "lora_unet_" },
    { "text_encoders.clip_l.transformer.", "lora_te1_" },
    { "text_encoders.clip_g.transformer.", "lora_te2_" },
    { NULL, NULL },
};

static const wf_prefix wrapped[] = {
    { "lycoris_text_model_", "lora_te1_text_model_" },
    { "lycoris_encoder_layers_", "lora_te1_encoder_layers_" }, /* a text encoder of newer transformers */
    { "lycoris_final_layer_norm", "lora_te1_final_layer_norm" },
    { "lycoris_", "lora_unet_" },
    { NULL, NULL },
};

static const wf_ending endings[] = {
    { ".lora_down.weight", "", WF_TENSOR_DOWN, 0 },
    { ".lora_up.weight", "", WF_TENSOR_UP, 0 },
    { NULL, NULL, 0, 0 },
};

const wf_dialect wf_dialect_kohya = {
    .name = "kohya", .title = "kohya", .prefixes = prefixes, .endings = { endings,
                                                                          wf_lycoris_endings },
                                                                          .underscore = true,
};

/* The same words with PEFT's endings: programs that turned the path into a word and left the
 * factors' names, and ComfyUI's paths since PEFT's names are everywhere. What diffusers reads with
 * these endings is not among them. */
static const wf_prefix words[] = {
    { "lora_unet_", "lora_unet_" },
    { "lora_te_", "lora_te_" },
    { "lora_te1_", "lora_te1_" },
    { "lora_te2_", "lora_te2_" },
    { "diffusion_model.", "lora_unet_" },
    { "text_encoders.clip_l.transformer.", "lora_te1_" },
    { "text_encoders.clip_g.transformer.", "lora_te2_" },
    { NULL, NULL },
};

static const wf_ending peft_endings[] = {
    { ".lora_A.weight", "", WF_TENSOR_DOWN, 0 },
    { ".lora_B.weight", "", WF_TENSOR_UP, 0 },
    { ".lora_A.default.weight", "", WF_TENSOR_DOWN, 0 },
    { ".lora_B.default.weight", "", WF_TENSOR_UP, 0 },
    { ".lora_magnitude_vector.weight", "", WF_TENSOR_MAGNITUDE, WF_JOINS },
    { ".lora_magnitude_vector", "", WF_TENSOR_MAGNITUDE, WF_JOINS },
    { NULL, NULL, 0, 0 },
};

const wf_dialect wf_dialect_kohya_peft = {
    .name = "kohya", .title = "kohya", .prefixes = words, .endings = { peft_endings },
    .underscore = true, .peft = true,
};

/* What LyCORIS calls modules of a model that it wrapped itself: just the path inside that model. */
const wf_dialect wf_dialect_lycoris = {
    .name = "lycoris", .title = "LyCORIS", .prefixes = wrapped, .endings = { endings,
                                                                             wf_lycoris_endings },
                                                                             .underscore = true,
};
