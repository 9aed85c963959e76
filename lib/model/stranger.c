/* stranger.c - names of tensors that belong to no model of ours, and what they show a file to be.
 *
 * Asked only when a file is refused already: then the line says what was given and where it
 * belongs, rather than that some tensor is unknown or missing. */
#include "model/model_internal.h"

typedef struct row { const char *names, *is; } row;

/* Tensors inside a model that make it another one. */
static const row variants[] = {
    { "scaled_fp8,*.scaled_fp8,*.scale_weight,*.scale_input,*.weight_scale,*.input_scale,"
      "*.comfy_quant",
      "of a float8 model with scales beside its weights (scaled fp8): get the model in f16 or "
      "bf16" },
    { "*.absmax,*.quant_map,*.quant_state.*,*.nested_absmax,*.nested_quant_map,*.qweight,"
      "*.qzeros,*.SCB",
      "of a model quantised to 4 or 8 bits (bitsandbytes, GPTQ): get the model in f16 or bf16" },
    { "edm_mean,edm_std,edm_vpred.*",
      "of a model with EDM's noise levels (Playground v2.5, CosXL), which this version does not "
      "run" },
    { "control_model.*,*input_hint_block.*,*zero_convs.*,*controlnet_cond_embedding.*,"
      "controlnet_down_blocks.*,controlnet_mid_block.*",
      "of a ControlNet, which this version does not run" },
    { "ip_adapter.*,image_proj.*,image_proj_model.*",
      "of an IP-Adapter: open it as an image prompt" },
    { "adapter.body.*,body.*.block1.*", "of a T2I-Adapter, which this version does not run" },
    { "depth_model.*", "of SD2's depth model, which this version does not run" },
    { "*motion_modules*,*temporal_transformer*,*time_stack*,*time_mixer*,*temporal_res_block*",
      "of a video model (AnimateDiff, SVD), which this version does not run" },
    { "*double_blocks.*,*single_transformer_blocks.*,*add_q_proj*,*joint_blocks.*,"
      "context_embedder.*",
      "of a diffusion transformer (FLUX, SD3), which this version does not run" },
    { NULL, NULL },
};

/* Whole files that are no model in one file, in the order of asking. */
static const row wholes[] = {
    { "lora_*,*.lora_*,*.lora.*,base_model.*,lycoris_*,oft_unet_*,*.hada_w*,*.lokr_w*,*.dora_scale,"
      "*.alpha",
      "of an adapter (LoRA or its like): open it as an adapter" },
    { "emb_params,clip_l,clip_g,<*>,string_to_param*,text_encoders_0,text_encoders_1",
      "of a textual inversion: open it as a concept" },
    { "params_ema*,model.*.sub.*,*RDB?.*,conv_body.*",
      "of an upscaler, which this version does not run" },
    { "vision_model.*,visual.*",
      "of an image encoder, not of a model that draws: open its folder for image prompts" },
    { "down_blocks.*,mid_block.*,up_blocks.*,conv_norm_out.*",
      "of a diffusers UNet, one part of a model: open the folder that has model_index.json" },
    { "encoder.block.*,decoder.block.*,shared.weight",
      "of a T5 text encoder (FLUX, SD3), which this version does not run" },
    { "text_model.*,encoder.layers.*",
      "of a text encoder, one part of a model: open the folder that has model_index.json" },
    { "decoder.*,encoder.*,first_stage_model.*",
      "of a VAE, one part of a model: open it beside a model, as its weft_model_options.vae" },
    { NULL, NULL },
};

static const char *find(const row *rows, const char *name)
{
    for (; rows->names != NULL; rows++)
        if (wf_glob_any(rows->names, name)) return rows->is;
    return NULL;
}

const char *wf_stranger_tensor(const char *name) { return find(variants, name); }

static weft_status say(const row *one, const weft_tensors *file, const char *path, weft_error *err)
{
    for (size_t i = 0; i < wf_tensors_count(file); i++) {
        const char *name = wf_tensors_at(file, i)->name;
        if (wf_glob_any(one->names, name))
            return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: tensor %.160s is %s", path, name, one->is);
    }
    return WEFT_OK;
}

/* The first row that any tensor is of decides. */
static weft_status say_first(weft_status st, const row *rows, const weft_tensors *file,
                             const char *path, weft_error *err)
{
    weft_status known = WEFT_OK;

    for (; rows->names != NULL && known == WEFT_OK; rows++) known = say(rows, file, path, err);
    return known == WEFT_OK ? st : known;
}

weft_status wf_say_variant(weft_status st, const weft_tensors *file, const char *path,
                           weft_error *err)
{
    return st == WEFT_E_FORMAT ? say_first(st, variants, file, path, err) : st;
}

weft_status wf_say_whole(weft_status st, const weft_tensors *file, const char *path,
                         weft_error *err)
{
    return st == WEFT_E_FORMAT ? say_first(st, wholes, file, path, err) : st;
}
