/* refused.c - families and formats that are known by their keys and not applied by this version.
 *
 * Half of such a file may look like LoRA, and an image made with that half would be quietly wrong:
 * the file is refused whole, with the family's name, since that is what its owner needs to know.
 * These are asked about keys that no dialect reads, and about modules whose names alone show what
 * they are for. Anything else that nobody reads ends in the report as a key that nobody knows. */
#include "adapter/dialect.h"

static const char unets_only[] = "adapters for SD1.x, SD2.x and SDXL only";

static const wf_refused refused[] = {
    { "lora_*.lora_A.*,lora_*.lora_B.*", "DyLoRA in training", "its export in LoRA's own form",
      true },
    { "*lora_embedding_A*,*lora_embedding_B*", "embedding LoRA",
      "LoRA to linear and convolution layers only", true },
    { "*.q_layer.weight,*.p_layer.weight,*.lambda_layer", "T-LoRA",
      "LoRA whose rank does not depend on the step", true },
    { "lora_*.oft_R.*", "OneTrainer's OFT", "OFT of LyCORIS, kohya and PEFT", true },
    { "*.set_weight,*.reshape_weight", "of ComfyUI only",
      "differences and whole weights in other dialects", true },
    { "lllite_*", "a ControlNet-LLLite", "adapters of a UNet and its text encoders only", true },
    { "image_proj.*,ip_adapter.*", "an IP-Adapter", "adapters here: open it as an image prompt",
      false },
    { "*.lora_A.bias,*.lora_down.bias", "LoRA with a bias inside", "LoRA without one", true },
    { "*.oft_diag,*.oft_r,*.oft_r.*,*.oft_s,*.oft_s.*", "an older form of OFT",
      "what its trainer writes today", true },
    { "*.lora_A_*", "of a method of PEFT", "LoRA without it", true },
    { "lora_controlnet,input_blocks.*.up,input_blocks.*.down,middle_block.*.up,middle_block.*.down,"
      "input_hint_block.*,zero_convs.*,time_embed.*.up,time_embed.*.down",
      "a ControlNet-LoRA", "adapters of a UNet and its text encoders only", true },
    { "transformer.*,lora_transformer_*,*double_blocks*,*single_blocks*,*single_transformer_blocks*,*joint_blocks*,"
      "lora_te3_*,text_encoder_3.*",
      "for a diffusion transformer (FLUX, SD3)", unets_only, false },
    { "lora_prior_unet_*,lora_prior_te_*", "for Stable Cascade", unets_only, false },
    { "model.diffusion_model.*,first_stage_model.*,cond_stage_model.*,conditioner.embedders.*,model_ema.*,"
      "state_dict.model.diffusion_model.*,state_dict.first_stage_model.*,state_dict.cond_stage_model.*",
      "of a checkpoint", "adapters here: open it as a model", false },
};

static const char others[] = "other methods of PEFT";
static const char as_lora[] = "other methods of PEFT, and the LoRA that its save_as_lora makes of "
                              "this one";
static const char plain[] = "LoRA without it";

/* Methods of PEFT, by tensors that no other has: of some of them a dialect reads a weight. */
static const wf_refused of_peft[] = {
    { "*.adamss_*", "AdaMSS", others, true },
    { "*.beft_bias*", "BEFT", others, true },
    { "*.deft_P*,*.deft_R*", "DEFT", others, true },
    { "*.frod_*", "FRoD", others, true },
    { "*.glora_A.*,*.glora_B.*,*.glora_C.*,*.glora_D.*,*.glora_E.*", "PEFT's GLoRA",
      "GLoRA of LyCORIS", false },
    { "*.hira_*", "HiRA", as_lora, true },
    { "*.lily_A*,*.lily_B*,*.lily_router*", "Lily", others, true },
    { "*.osf_svd_params*", "OSF", others, false },
    { "*.peanut_*", "PEANuT", others, true },
    { "*.poly_lora_*,*.poly_router*", "Poly", others, true },
    { "*.psoft_R*", "PSOFT", as_lora, false },
    { "*.pvera_*", "PVeRA", others, true },
    { "*.road_theta*,*.road_alpha*", "RoAd", others, true },
    { "*.shadow_*", "Shadow", others, false },
    { "*.supertuning_*", "supertuning", others, true },
    { "*tinylora_v*,*.tinylora_*", "TinyLoRA", as_lora, false },
    { "*unilora_theta_d*,*.unilora_*", "Uni-LoRA", as_lora, false },
    { "*.waveft_spectrum*", "WaveFT", as_lora, true },
    { "*xlora_classifier*", "X-LoRA", others, false },
    { "*trainable_tokens_delta*", "PEFT's trainable tokens", "textual inversion, as a concept",
      false },
    { "prompt_embeddings,prompt_encoder.*,base_model.prompt_encoder.*", "a learned prompt of PEFT",
      "textual inversion, as a concept", false },
    { "*.adaption_prompt,*.adaption_gate", "an adaption prompt", others, false },
    { "*.lora_diag*", "KaSA", plain, true },
    { "*.lora_velora_*", "VeLoRA", plain, true },
    { "*.lora_monteclora_sampler*", "MonteCLoRA", plain, false },
    { "*.lora_arrow*", "an Arrow router", plain, false },
};

/* What a module's name shows. */
static const wf_refused refused_names[] = {
    { "*double_blocks*,*single_blocks*,*single_transformer_blocks*,*joint_blocks*",
      "for a diffusion transformer (FLUX, SD3)", unets_only, false },
};

static const wf_refused *find(const wf_refused *rows, size_t count, const char *key)
{
    for (size_t i = 0; i < count; i++)
        if (wf_glob_any(rows[i].keys, key)) return &rows[i];
    return NULL;
}

const wf_refused *wf_refused_family(const char *key, bool read)
{
    const wf_refused *row = find(of_peft, WF_LEN(of_peft), key);

    if (row != NULL) return row;
    return read ? find(refused_names, WF_LEN(refused_names), key)
                : find(refused, WF_LEN(refused), key);
}

bool wf_is_token(const char *key)
{
    return wf_glob_any("emb_params,clip_l,clip_g,text_encoders_0,text_encoders_1,<*>,string_to_param*,string_to_token*,"
                       "bundle_emb.*,modifier_token.*,embed,state_dict.embed,params.new_concept_embedding.*,"
                       "new_concept_embedding.*", key);
}
