/* refused.c - families and formats that are known by their keys and not applied by this version.
 *
 * A LoHa read as far as it looks like LoRA would give a picture that is quietly wrong, so such a file is
 * refused whole, with the family's name: that is what its owner needs to know. Anything that is neither here
 * nor in a dialect's tables ends in the report as a key that nobody knows. */
#include "adapter/dialect.h"

static const char lora_only[] = "LoRA only";
static const char unets_only[] = "LoRA to SD1.x, SD2.x and SDXL only";

static const wf_refused refused[] = {
    { "*hada_w1_*,*hada_w2_*,*hada_t1,*hada_t2", "LoHa", lora_only, true },
    { "*lokr_w1*,*lokr_w2*,*lokr_t2", "LoKr", lora_only, true },
    { "*.dora_scale,*lora_magnitude_vector*", "DoRA", lora_only, true },
    { "*.oft_blocks,*.oft_diag,*.oft_R*,*.boft_R*,*.boft_s*,*.rescale", "OFT", lora_only, true },
    { "*.diff,*.diff_b", "a full difference", lora_only, true },
    { "*.w_norm,*.b_norm", "a norm difference", lora_only, true },
    { "*.on_input,*.ia3_l*", "(IA)^3", lora_only, true },
    { "*.lora_mid.weight", "Tucker LoRA", "plain LoRA only", true },
    { "*.lora_AB.weight,*.lora.downB.weight,*.lora_AB.*.weight", "MoSLoRA", "plain LoRA only", true },
    { "*.lora_E*,*.ranknum", "AdaLoRA", "plain LoRA only", true },
    { "*.a1.weight,*.a2.weight,*.b1.weight,*.b2.weight,*.bm.weight", "GLoRA", lora_only, true },
    { "lora_*.lora_A.*,lora_*.lora_B.*", "DyLoRA in training", "plain LoRA only", true },
    { "*.lora_B.bias,*.lora_B.*.bias,*.lora_up.bias,*.lora.up.bias,*.lora_A.bias,*.lora_down.bias",
      "LoRA with a bias", "LoRA without one", true },
    { "*lora_embedding_A*,*lora_embedding_B*", "embedding LoRA", "LoRA to linear and convolution layers only", true },
    { "*.modules_to_save.*", "a replaced module", lora_only, true },
    { "*.lora.weight", "a full matrix", "LoRA in two factors only", false },
    { "*_custom_diffusion*", "Custom Diffusion", lora_only, true },
    { "emb_params,clip_l,clip_g,<*>,string_to_param*,bundle_emb.*", "a textual inversion", lora_only, true },
    { "unet:*:up,unet:*:down,text_encoder:*:up,text_encoder:*:down", "cloneofsimo's numbered LoRA",
      "LoRA with named modules only", false },
    { "lora_controlnet,input_blocks.*.up,input_blocks.*.down,middle_block.*.up,middle_block.*.down,"
      "input_hint_block.*,zero_convs.*,time_embed.*.up,time_embed.*.down",
      "a ControlNet-LoRA", lora_only, true },
    { "transformer.*,lora_transformer_*,*double_blocks*,*single_blocks*,*single_transformer_blocks*,*joint_blocks*,"
      "lora_te3_*,text_encoder_3.*",
      "for a diffusion transformer (FLUX, SD3)", unets_only, false },
    { "lora_prior_unet_*,lora_prior_te_*", "for Stable Cascade", unets_only, false },
};

const wf_refused *wf_refused_family(const char *key)
{
    for (size_t i = 0; i < WF_LEN(refused); i++)
        if (wf_glob_any(refused[i].keys, key)) return &refused[i];
    return NULL;
}
