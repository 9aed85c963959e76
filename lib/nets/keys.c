/* keys.c - what becomes of each key of a config.json.
 *
 * A setting that we do not know of is a picture that is quietly wrong. So every key that diffusers'
 * and transformers' classes take stands here, and is followed, or refused unless its value says
 * what we do, or known to change nothing: tests/reference/make_settings.py lists the keys of those
 * classes and runs them at other values. A key of a newer version is warned about. */
#include "nets/keys.h"

#define READ(name)         { name, WF_KEY_READ, NULL }
#define OPTION(name)       { name, WF_KEY_OPTION, NULL }
#define ONLY(name, wanted) { name, WF_KEY_ONLY, wanted }
#define IDLE(name)         { name, WF_KEY_IDLE, NULL }
#define END                { NULL, WF_KEY_IDLE, NULL }

const wf_key wf_unet_keys[] = {
    OPTION("sample_size"),
    READ("in_channels"),
    READ("out_channels"),
    READ("block_out_channels"),
    READ("down_block_types"),
    OPTION("mid_block_type"),
    READ("up_block_types"),
    READ("layers_per_block"),
    READ("transformer_layers_per_block"),
    OPTION("reverse_transformer_layers_per_block"),
    READ("cross_attention_dim"),
    READ("attention_head_dim"), /* means the number of heads, as it always did */
    ONLY("num_attention_heads", "null"),
    READ("use_linear_projection"),
    READ("act_fn"),
    READ("norm_num_groups"),
    READ("norm_eps"),
    READ("center_input_sample"),
    READ("conv_in_kernel"),
    READ("conv_out_kernel"),
    READ("downsample_padding"),
    READ("mid_block_scale_factor"),
    READ("flip_sin_to_cos"),
    READ("freq_shift"),
    OPTION("time_embedding_dim"),
    OPTION("time_embedding_act_fn"),
    OPTION("timestep_post_act"),
    OPTION("time_cond_proj_dim"),
    OPTION("addition_embed_type"),
    OPTION("addition_time_embed_dim"),
    OPTION("projection_class_embeddings_input_dim"),
    ONLY("time_embedding_type", "\"positional\""),
    ONLY("class_embed_type", "null"),
    ONLY("num_class_embeds", "null"),
    ONLY("class_embeddings_concat", "false null"),
    ONLY("encoder_hid_dim", "null"),
    ONLY("encoder_hid_dim_type", "null"),
    ONLY("only_cross_attention", "false [false]"),
    ONLY("dual_cross_attention", "false null"),
    ONLY("attention_type", "\"default\""),
    ONLY("resnet_time_scale_shift", "\"default\""),
    ONLY("quantization_config", "null"),
    IDLE("resnet_skip_time_act"), /* these five are for classes of blocks that are refused */
    IDLE("resnet_out_scale_factor"),
    IDLE("cross_attention_norm"),
    IDLE("mid_block_only_cross_attention"),
    IDLE("addition_embed_type_num_heads"),
    IDLE("upcast_attention"), /* everything is float32 */
    IDLE("dropout"),
    END
};

const wf_key wf_vae_keys[] = {
    READ("in_channels"),
    READ("out_channels"),
    READ("latent_channels"),
    READ("block_out_channels"),
    READ("down_block_types"),
    READ("up_block_types"),
    READ("layers_per_block"),
    READ("act_fn"),
    READ("norm_num_groups"),
    READ("mid_block_add_attention"),
    READ("use_quant_conv"),
    READ("use_post_quant_conv"),
    READ("scaling_factor"),
    OPTION("shift_factor"),
    ONLY("latents_mean", "null"),
    ONLY("latents_std", "null"),
    ONLY("quantization_config", "null"),
    IDLE("force_upcast"), /* everything is float32 */
    IDLE("sample_size"),  /* tiles are the caller's choice */
    END
};

/* What every configuration of transformers has, or had. */
#define TRANSFORMERS \
    IDLE("attention_dropout"), IDLE("dropout"), IDLE("initializer_range"), \
    IDLE("initializer_factor"), IDLE("transformers_version"), IDLE("architectures"), \
    IDLE("dtype"), IDLE("torch_dtype"), IDLE("output_hidden_states"), \
    IDLE("output_attentions"), IDLE("return_dict"), IDLE("use_return_dict"), \
    IDLE("chunk_size_feed_forward"), IDLE("is_encoder_decoder"), IDLE("id2label"), \
    IDLE("label2id"), IDLE("problem_type"), IDLE("num_labels"), IDLE("attn_implementation"), \
    IDLE("add_cross_attention"), IDLE("bad_words_ids"), IDLE("begin_suppress_tokens"), \
    IDLE("cross_attention_hidden_size"), IDLE("decoder_start_token_id"), \
    IDLE("diversity_penalty"), IDLE("do_sample"), IDLE("early_stopping"), \
    IDLE("encoder_no_repeat_ngram_size"), IDLE("exponential_decay_length_penalty"), \
    IDLE("finetuning_task"), IDLE("forced_bos_token_id"), IDLE("forced_eos_token_id"), \
    IDLE("gradient_checkpointing"), IDLE("is_decoder"), IDLE("length_penalty"), \
    IDLE("max_length"), IDLE("min_length"), IDLE("no_repeat_ngram_size"), \
    IDLE("num_beam_groups"), IDLE("num_beams"), IDLE("num_return_sequences"), \
    IDLE("output_scores"), IDLE("prefix"), IDLE("pruned_heads"), \
    IDLE("remove_invalid_values"), IDLE("repetition_penalty"), \
    IDLE("return_dict_in_generate"), IDLE("sep_token_id"), IDLE("suppress_tokens"), \
    IDLE("task_specific_params"), IDLE("temperature"), IDLE("tf_legacy_loss"), \
    IDLE("tie_encoder_decoder"), IDLE("tie_word_embeddings"), IDLE("tokenizer_class"), \
    IDLE("top_k"), IDLE("top_p"), IDLE("torchscript"), IDLE("typical_p"), \
    IDLE("use_bfloat16"), IDLE("use_cache")

const wf_key wf_clip_keys[] = {
    READ("vocab_size"),
    READ("hidden_size"),
    READ("intermediate_size"),
    READ("num_hidden_layers"),
    READ("num_attention_heads"),
    READ("max_position_embeddings"),
    READ("hidden_act"),
    READ("layer_norm_eps"),
    OPTION("projection_dim"),
    READ("eos_token_id"),
    ONLY("model_type", "\"clip_text_model\""),
    ONLY("quantization_config", "null"),
    IDLE("bos_token_id"), /* the tokenizer begins and pads prompts */
    IDLE("pad_token_id"),
    TRANSFORMERS,
    END
};

const wf_key wf_clip_vision_keys[] = {
    READ("hidden_size"),
    READ("intermediate_size"),
    READ("num_hidden_layers"),
    READ("num_attention_heads"),
    READ("image_size"),
    READ("patch_size"),
    READ("projection_dim"),
    READ("hidden_act"),
    READ("layer_norm_eps"),
    ONLY("num_channels", "3"),
    ONLY("model_type", "\"clip_vision_model\""),
    ONLY("quantization_config", "null"),
    TRANSFORMERS,
    END
};

enum { SHOWN = 96, NAMED = 3 }; /* bytes of a value, and unknown keys, that a message names */

/* A value as JSON, for a message and for comparing with the words of `wanted`. */
static const char *show_one(const json_t *v, char buf[SHOWN])
{
    wf_number_text number;

    switch (json_typeof(v)) {
    case JSON_NULL:  return "null";
    case JSON_TRUE:  return "true";
    case JSON_FALSE: return "false";
    case JSON_STRING:
        wf_format(buf, SHOWN, "\"%s\"", json_string_value(v));
        return buf;
    case JSON_INTEGER:
    case JSON_REAL:
        wf_format(buf, SHOWN, "%s", wf_number(&number, json_number_value(v)));
        return buf;
    default: return json_is_array(v) ? "a list" : "an object";
    }
}

/* A list that has one value for every level is shown as a list of one. */
static const char *show(const json_t *v, char buf[SHOWN])
{
    char one[SHOWN], other[SHOWN];

    if (json_array_size(v) == 0) return show_one(v, buf);
    const char *first = show_one(json_array_get(v, 0), one);
    for (size_t i = 1; i < json_array_size(v); i++)
        if (strcmp(first, show_one(json_array_get(v, i), other)) != 0) return "a list";
    wf_format(buf, SHOWN, "[%s]", first);
    return buf;
}

static bool is_one_of(const char *words, const char *s)
{
    for (size_t n; *words != '\0'; words += n + (words[n] == ' ')) {
        n = strcspn(words, " ");
        if (strlen(s) == n && memcmp(words, s, n) == 0) return true;
    }
    return false;
}

weft_status wf_keys_check(const wf_key *keys, const json_t *config, const char *path,
                          weft_error *err)
{
    char buf[SHOWN];

    for (const wf_key *k = keys; k->name != NULL; k++) {
        const json_t *v = json_object_get(config, k->name);
        if (v == NULL) continue;
        if (k->fate == WF_KEY_READ && json_is_null(v))
            return wf_fail(err, WEFT_E_FORMAT, "%s: %s is null, wanted a value", path, k->name);
        if (k->fate == WF_KEY_ONLY && !is_one_of(k->wanted, show(v, buf)))
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "%s: %s is %s, which is not supported: wanted %.*s", path, k->name,
                           show(v, buf), (int)strcspn(k->wanted, " "), k->wanted);
    }
    return WEFT_OK;
}

static bool is_known(const wf_key *keys, const char *name)
{
    for (; keys->name != NULL; keys++)
        if (strcmp(keys->name, name) == 0) return true;
    return false;
}

void wf_keys_warn(const wf_key *keys, const json_t *config, const char *path, weft_log_fn log,
                  void *user)
{
    const char   *name, *unknown[NAMED] = { "", "", "" };
    const json_t *v;
    size_t        count = 0;

    json_object_foreach((json_t *)(uintptr_t)config, name, v) {
        if (name[0] == '_' || json_is_null(v) || is_known(keys, name)) continue;
        if (count < NAMED) unknown[count] = name;
        count++;
    }
    if (count == 0) return;
    wf_log(log, user, WEFT_LOG_WARN,
           "%s: %zu setting%s that this version does not know, without effect: "
           "%.40s%s%.40s%s%.40s%s",
           path, count, count == 1 ? "" : "s", unknown[0], count > 1 ? ", " : "", unknown[1],
           count > 2 ? ", " : "", unknown[2], count > NAMED ? ", ..." : "");
}
