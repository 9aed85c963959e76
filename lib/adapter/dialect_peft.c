/* dialect_peft.c - what PEFT's save_pretrained writes: one component's modules under
 * base_model.model.
 *
 * The prefix does not say which component it is; the first word of the path does (down_blocks is a
 * UNet's). A second text encoder looks like the first: there the folder's name decides (read.c). An
 * adapter's name may stand after lora_A. Alpha and the scale's form are in adapter_config.json. */
#include "adapter/dialect.h"

const wf_dialect wf_dialect_peft = {
    .name = "peft", .title = "PEFT", .wrapper = "base_model.model.", .prefixes = wf_bare_prefixes,
    .endings = { wf_peft_endings }, .config = WF_CONFIG_FILE, .peft = true,
};
