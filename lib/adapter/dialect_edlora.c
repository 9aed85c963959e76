/* dialect_edlora.c - ED-LoRA, as Mix-of-Show's program saves it: a pickle of params.unet,
 * params.text_encoder and params.new_concept_embedding.
 *
 * Factors have kohya's names behind diffusers' paths and no alpha: they are multiplied as they are.
 * The embeddings of the concept's words belong to a concept, not to the adapter. */
#include "adapter/dialect.h"

static const wf_prefix prefixes[] = {
    { "unet.", "unet." },
    { "text_encoder.", "text_encoder." },
    { NULL, NULL },
};

static const wf_ending endings[] = {
    { ".lora_down.weight", "", WF_TENSOR_DOWN, WF_WRAPPED },
    { ".lora_up.weight", "", WF_TENSOR_UP, WF_WRAPPED },
    { NULL, NULL, 0, 0 },
};

const wf_dialect wf_dialect_edlora = {
    .name = "ed-lora", .title = "ED-LoRA", .kind = "ED-LoRA", .wrapper = "params.",
    .unscaled = true,
    .prefixes = prefixes,
    .endings = { endings },
};
