/* dialect_diffusers.c - what diffusers writes since 0.26: PEFT's factors under the pipeline's
 * component names.
 *
 * Text encoders may keep the older lora_linear_layer beside a UNet in the new form; diffusers' own
 * training scripts wrote both into one file, so that ending alone does not tell which dialect a
 * file is in. Alpha stands in the metadata (lora_adapter_metadata) for each component, or nowhere:
 * then it is the rank. */
#include "adapter/dialect.h"

static const wf_prefix prefixes[] = {
    { "unet.", "unet." },
    { "text_encoder.", "text_encoder." },
    { "text_encoder_2.", "text_encoder_2." },
    { NULL, NULL },
};

static const wf_ending endings[] = {
    { ".lora_linear_layer.down.weight", "", WF_TENSOR_DOWN, WF_WEAK },
    { ".lora_linear_layer.up.weight", "", WF_TENSOR_UP, WF_WEAK },
    { ".lora_linear_layer.alpha", "", WF_TENSOR_ALPHA, WF_WEAK | WF_JOINS },
    { ".alpha", "", WF_TENSOR_ALPHA, WF_WEAK | WF_JOINS },
    { NULL, NULL, 0, 0 },
};

const wf_dialect wf_dialect_diffusers = {
    .name = "diffusers", .title = "diffusers", .prefixes = prefixes,
    .endings = { wf_peft_endings, endings },
    .config = WF_CONFIG_METADATA, .peft = true,
};
