/* dialect_peft.c - what PEFT's save_pretrained writes: one component's modules under
 * base_model.model.
 *
 * The prefix does not say which component it is; the first word of the path does (down_blocks is a
 * UNet's), unless the whole pipeline was wrapped and a component's name comes first. A second text
 * encoder looks like the first: there the folder's name decides (read.c). An adapter's name may
 * stand after lora_A. Alpha and the scale's form are in adapter_config.json. */
#include "adapter/dialect.h"

static const wf_prefix prefixes[] = {
    { "down_blocks.", "unet.down_blocks." },
    { "mid_block.", "unet.mid_block." },
    { "up_blocks.", "unet.up_blocks." },
    { "conv_in", "unet.conv_in" },
    { "conv_out", "unet.conv_out" },
    { "conv_norm_out", "unet.conv_norm_out" },
    { "time_embedding.", "unet.time_embedding." },
    { "add_embedding.", "unet.add_embedding." },
    { "text_model.", "text_encoder.text_model." },
    { "encoder.layers.", "text_encoder.encoder.layers." },
    { "final_layer_norm", "text_encoder.final_layer_norm" },
    { "unet.", "unet." },
    { "text_encoder.", "text_encoder." },
    { "text_encoder_2.", "text_encoder_2." },
    { NULL, NULL },
};

const wf_dialect wf_dialect_peft = {
    .name = "peft", .title = "PEFT", .wrapper = WF_PEFT_WRAPPER, .prefixes = prefixes,
    .endings = { wf_peft_endings }, .config = WF_CONFIG_FILE, .peft = true,
};
