/* published.c - the configurations of the published models, for files that bring none.
 *
 * A single file holds tensors and nothing else. Which model it is its shapes tell (single_file.c); what the shapes
 * do not tell, numbers of heads, activations, noise schedules, stands here, as the config.json files that the
 * published folders have, so that one reader reads both. Keys that the reader would take the same way when absent
 * are left out. */
#include "model/model_internal.h"

#define XL_SCHEDULER \
    "{\"_class_name\": \"EulerDiscreteScheduler\", \"beta_start\": 0.00085, \"beta_end\": 0.012, " \
    "\"beta_schedule\": \"scaled_linear\", \"num_train_timesteps\": 1000, \"prediction_type\": \"epsilon\", " \
    "\"set_alpha_to_one\": false, \"steps_offset\": 1, \"timestep_spacing\": \"leading\", " \
    "\"interpolation_type\": \"linear\", \"use_karras_sigmas\": false, \"clip_sample\": false, \"skip_prk_steps\": true}"

#define VAE_SHAPE \
    "\"_class_name\": \"AutoencoderKL\", \"block_out_channels\": [128, 256, 512, 512], \"layers_per_block\": 2, " \
    "\"down_block_types\": [\"DownEncoderBlock2D\", \"DownEncoderBlock2D\", \"DownEncoderBlock2D\", " \
    "\"DownEncoderBlock2D\"], \"up_block_types\": [\"UpDecoderBlock2D\", \"UpDecoderBlock2D\", \"UpDecoderBlock2D\", " \
    "\"UpDecoderBlock2D\"], \"latent_channels\": 4, \"norm_num_groups\": 32, \"in_channels\": 3, \"out_channels\": 3"

#define CLIP_L \
    "{\"hidden_size\": 768, \"intermediate_size\": 3072, \"num_hidden_layers\": 12, \"num_attention_heads\": 12, " \
    "\"hidden_act\": \"quick_gelu\", \"vocab_size\": 49408, \"max_position_embeddings\": 77, \"eos_token_id\": 2, " \
    "\"projection_dim\": 768}"
#define CLIP_H /* 23 layers of its 24: the last is not used, and not in the folders */ \
    "{\"hidden_size\": 1024, \"intermediate_size\": 4096, \"num_hidden_layers\": 23, \"num_attention_heads\": 16, " \
    "\"hidden_act\": \"gelu\", \"vocab_size\": 49408, \"max_position_embeddings\": 77, \"eos_token_id\": 2, " \
    "\"projection_dim\": 512}"
#define CLIP_BIGG \
    "{\"hidden_size\": 1280, \"intermediate_size\": 5120, \"num_hidden_layers\": 32, \"num_attention_heads\": 20, " \
    "\"hidden_act\": \"gelu\", \"vocab_size\": 49408, \"max_position_embeddings\": 77, \"eos_token_id\": 2, " \
    "\"projection_dim\": 1280}"

#define SD_BLOCKS \
    "\"_class_name\": \"UNet2DConditionModel\", \"in_channels\": 4, \"out_channels\": 4, \"layers_per_block\": 2, " \
    "\"block_out_channels\": [320, 640, 1280, 1280], \"down_block_types\": [\"CrossAttnDownBlock2D\", " \
    "\"CrossAttnDownBlock2D\", \"CrossAttnDownBlock2D\", \"DownBlock2D\"], \"up_block_types\": [\"UpBlock2D\", " \
    "\"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\"]"

static const wf_published models[] = {
    {
        .base = WEFT_BASE_SD1,
        .name = "the published SD1",
        .component = {
            "{" SD_BLOCKS ", \"cross_attention_dim\": 768, \"attention_head_dim\": 8, \"sample_size\": 64}",
            CLIP_L,
            NULL,
            "{" VAE_SHAPE ", \"scaling_factor\": 0.18215, \"sample_size\": 512}",
        },
        .scheduler = "{\"_class_name\": \"PNDMScheduler\", \"beta_start\": 0.00085, \"beta_end\": 0.012, "
                     "\"beta_schedule\": \"scaled_linear\", \"num_train_timesteps\": 1000, \"prediction_type\": \"epsilon\", "
                     "\"set_alpha_to_one\": false, \"skip_prk_steps\": true, \"steps_offset\": 1, \"clip_sample\": false}",
    },
    {
        .base = WEFT_BASE_SD2,
        .name = "the published SD2",
        .component = {
            "{" SD_BLOCKS ", \"cross_attention_dim\": 1024, \"attention_head_dim\": [5, 10, 20, 20], "
            "\"use_linear_projection\": true, \"upcast_attention\": true, \"sample_size\": 96}",
            CLIP_H,
            NULL,
            "{" VAE_SHAPE ", \"scaling_factor\": 0.18215, \"sample_size\": 768}",
        },
        .scheduler = "{\"_class_name\": \"DDIMScheduler\", \"beta_start\": 0.00085, \"beta_end\": 0.012, "
                     "\"beta_schedule\": \"scaled_linear\", \"num_train_timesteps\": 1000, "
                     "\"prediction_type\": \"v_prediction\", \"set_alpha_to_one\": false, \"steps_offset\": 1, "
                     "\"clip_sample\": false}",
    },
    {
        .base = WEFT_BASE_SDXL,
        .name = "the published SDXL",
        .zero_negative = true,
        .component = {
            "{\"_class_name\": \"UNet2DConditionModel\", \"in_channels\": 4, \"out_channels\": 4, \"layers_per_block\": 2, "
            "\"block_out_channels\": [320, 640, 1280], \"down_block_types\": [\"DownBlock2D\", \"CrossAttnDownBlock2D\", "
            "\"CrossAttnDownBlock2D\"], \"up_block_types\": [\"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\", "
            "\"UpBlock2D\"], \"cross_attention_dim\": 2048, \"attention_head_dim\": [5, 10, 20], "
            "\"transformer_layers_per_block\": [1, 2, 10], \"use_linear_projection\": true, "
            "\"addition_embed_type\": \"text_time\", \"addition_time_embed_dim\": 256, "
            "\"projection_class_embeddings_input_dim\": 2816, \"sample_size\": 128}",
            CLIP_L,
            CLIP_BIGG,
            "{" VAE_SHAPE ", \"scaling_factor\": 0.13025, \"sample_size\": 1024, \"force_upcast\": true}",
        },
        .scheduler = XL_SCHEDULER,
    },
    {
        .base = WEFT_BASE_SDXL_REFINER,
        .name = "the published SDXL refiner",
        .aesthetic = true,
        .component = {
            "{\"_class_name\": \"UNet2DConditionModel\", \"in_channels\": 4, \"out_channels\": 4, \"layers_per_block\": 2, "
            "\"block_out_channels\": [384, 768, 1536, 1536], \"down_block_types\": [\"DownBlock2D\", "
            "\"CrossAttnDownBlock2D\", \"CrossAttnDownBlock2D\", \"DownBlock2D\"], \"up_block_types\": [\"UpBlock2D\", "
            "\"CrossAttnUpBlock2D\", \"CrossAttnUpBlock2D\", \"UpBlock2D\"], \"cross_attention_dim\": 1280, "
            "\"attention_head_dim\": [6, 12, 24, 24], \"transformer_layers_per_block\": 4, "
            "\"use_linear_projection\": true, \"addition_embed_type\": \"text_time\", \"addition_time_embed_dim\": 256, "
            "\"projection_class_embeddings_input_dim\": 2560, \"sample_size\": 128}",
            NULL,
            CLIP_BIGG,
            "{" VAE_SHAPE ", \"scaling_factor\": 0.13025, \"sample_size\": 1024, \"force_upcast\": true}",
        },
        .scheduler = XL_SCHEDULER,
    },
};

const wf_published *wf_published_model(int32_t base)
{
    for (size_t i = 0; i < WF_LEN(models); i++)
        if (models[i].base == base) return &models[i];
    return NULL;
}

weft_status wf_published_config(json_t **out, const wf_published *p, int32_t component, weft_error *err)
{
    const char *text = p->component[component];

    *out = NULL;
    if (text == NULL)
        return wf_fail(err, WEFT_E_FORMAT, "%s has no %s, but the file does: give weft_model_options.config", p->name,
                       weft_component_name(component));
    return wf_json_parse(out, text, strlen(text), p->name, err);
}
