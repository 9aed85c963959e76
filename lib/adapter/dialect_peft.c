/* dialect_peft.c - what PEFT's save_pretrained writes: one component's modules under base_model.model.
 *
 * The prefix does not say which component it is; the first word of the path does (down_blocks is a UNet's).
 * A second text encoder looks like the first: there the folder's name decides (read.c). An adapter's name may
 * stand after lora_A. Alpha and the scale's form are in adapter_config.json. */
#include "adapter/dialect.h"

static const wf_ending endings[] = {
    { ".lora_A.weight", "", WF_PART_DOWN, 0 },
    { ".lora_B.weight", "", WF_PART_UP, 0 },
    { ".lora_A.*.weight", "", WF_PART_DOWN, 0 },
    { ".lora_B.*.weight", "", WF_PART_UP, 0 },
    { NULL, NULL, 0, 0 },
};

const wf_dialect wf_dialect_peft = {
    "peft", "base_model.model.", wf_bare_prefixes, endings, NULL, WF_CONFIG_FILE, false,
};
