/* config.c - config.json of each network becomes the struct that builds it.
 *
 * An absent key has diffusers' (or transformers') default. A setting that would change the result
 * and that we do not run is refused by name, never ignored: an image that is quietly wrong is worse
 * than none. Numbers are bounded here, before anything is allocated for them. */
#include "nets/config.h"

enum { MAX_WIDTH = 1 << 16, MAX_LAYERS = 16, MAX_DEPTH = 64 };

static bool absent(const json_t *v) { return v == NULL || json_is_null(v); }

static weft_status as_int(int32_t *out, const json_t *v, const char *key, int32_t low, int32_t high,
                          const char *path, weft_error *err)
{
    if (!json_is_integer(v))
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s is not a whole number", path, key);
    json_int_t n = json_integer_value(v);
    if (n < low || n > high)
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s is %lld, wanted %d to %d", path, key,
                       (long long)n, low, high);
    *out = (int32_t)n;
    return WEFT_OK;
}

static weft_status get_int(int32_t *out, const json_t *json, const char *key, int32_t preset,
                           int32_t low, int32_t high, const char *path, weft_error *err)
{
    const json_t *v = json_object_get(json, key);
    *out = preset;
    return absent(v) ? WEFT_OK : as_int(out, v, key, low, high, path, err);
}

static weft_status get_float(double *out, const json_t *json, const char *key, double preset,
                             double low, double high, const char *path, weft_error *err)
{
    const json_t *v = json_object_get(json, key);
    *out = preset;
    if (absent(v)) return WEFT_OK;
    if (!json_is_number(v)) return wf_fail(err, WEFT_E_FORMAT, "%s: %s is not a number", path, key);
    double n = json_number_value(v);
    if (!(n >= low && n <= high)) {
        wf_number_text a, b, c;
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s is %s, wanted %s to %s", path, key,
                       wf_number(&a, n), wf_number(&b, low), wf_number(&c, high));
    }
    *out = n;
    return WEFT_OK;
}

static weft_status get_bool(bool *out, const json_t *json, const char *key, bool preset,
                            const char *path, weft_error *err)
{
    const json_t *v = json_object_get(json, key);
    *out = preset;
    if (absent(v)) return WEFT_OK;
    if (!json_is_boolean(v))
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s is not true or false", path, key);
    *out = json_is_true(v);
    return WEFT_OK;
}

/* One number for all levels, or a list with one for each. */
static weft_status get_levels(int32_t *out, int32_t levels, const json_t *json, const char *key,
                              int32_t preset, int32_t low, int32_t high, const char *path,
                              weft_error *err)
{
    const json_t *v = json_object_get(json, key);
    for (int32_t i = 0; i < levels; i++) out[i] = preset;
    if (absent(v)) return WEFT_OK;
    if (json_is_array(v) && json_array_size(v) != (size_t)levels)
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s has %zu entries, wanted %d", path, key,
                       json_array_size(v), levels);
    for (int32_t i = 0; i < levels; i++)
        WF_TRY(as_int(&out[i], json_is_array(v) ? json_array_get(v, (size_t)i) : v, key, low, high,
                      path, err));
    return WEFT_OK;
}

/* Settings that must be absent, null, false, 0 or one word: anything else is another network. */
typedef struct fixed { const char *key; const char *word; double number; } fixed;

static weft_status check_fixed(const json_t *json, const fixed *table, size_t count,
                               const char *path, weft_error *err)
{
    for (size_t i = 0; i < count; i++) {
        const json_t *v = json_object_get(json, table[i].key);
        bool ok = absent(v) || json_is_false(v);
        if (!ok && json_is_number(v)) ok = json_number_value(v) == table[i].number;
        if (!ok && json_is_string(v))
            ok = table[i].word != NULL && strcmp(json_string_value(v), table[i].word) == 0;
        if (!ok && json_is_array(v)) { /* a list of falses */
            ok = true;
            for (size_t k = 0; k < json_array_size(v); k++)
                ok = ok && json_is_false(json_array_get(v, k));
        }
        if (!ok && json_is_string(v))
            return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: %s \"%s\" is not supported", path,
                           table[i].key, json_string_value(v));
        if (!ok)
            return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: this setting of %s is not supported", path,
                           table[i].key);
    }
    return WEFT_OK;
}

static weft_status get_act(wf_act *out, const json_t *json, const char *key, const char *preset,
                           const char *path, weft_error *err)
{
    const json_t *v = json_object_get(json, key);
    const char *name = absent(v) ? preset : json_string_value(v);
    if (name == NULL) return wf_fail(err, WEFT_E_FORMAT, "%s: %s is not a name", path, key);
    if (!wf_act_from_name(name, out))
        return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: %s \"%s\" is not supported", path, key, name);
    return WEFT_OK;
}

/* The class of a list of blocks: names[0] gives false, names[1] true. */
static weft_status get_blocks(bool *out, int32_t levels, const json_t *json, const char *key,
                              const char *plain, const char *other, const char *path,
                              weft_error *err)
{
    const json_t *v = json_object_get(json, key);
    if (!json_is_array(v) || json_array_size(v) != (size_t)levels)
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s is not a list of %d blocks", path, key, levels);
    for (int32_t i = 0; i < levels; i++) {
        const char *name = json_string_value(json_array_get(v, (size_t)i));
        if (name == NULL)
            return wf_fail(err, WEFT_E_FORMAT, "%s: %s holds something that is not a name", path,
                           key);
        out[i] = other != NULL && strcmp(name, other) == 0;
        if (!out[i] && strcmp(name, plain) != 0)
            return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: block class \"%s\" in %s is not supported",
                           path, name, key);
    }
    return WEFT_OK;
}

static weft_status get_channels(int32_t *channels, int32_t *levels, int32_t most,
                                const json_t *json, const char *path, weft_error *err)
{
    const json_t *v = json_object_get(json, "block_out_channels");
    if (!json_is_array(v) || json_array_size(v) == 0 || json_array_size(v) > (size_t)most)
        return wf_fail(err, WEFT_E_FORMAT,
                       "%s: block_out_channels is not a list of 1 to %d numbers", path, most);
    *levels = (int32_t)json_array_size(v);
    for (int32_t i = 0; i < *levels; i++)
        WF_TRY(as_int(&channels[i], json_array_get(v, (size_t)i), "block_out_channels", 1,
                      MAX_WIDTH, path, err));
    return WEFT_OK;
}

static weft_status check_class(const json_t *json, const char *wanted, const char *path,
                               weft_error *err)
{
    const json_t *v = json_object_get(json, "_class_name");
    if (absent(v)) return WEFT_OK;
    const char *name = json_string_value(v);
    if (name == NULL || strcmp(name, wanted) != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: class \"%s\" is not supported, wanted %s",
                       path, name != NULL ? name : "?", wanted);
    return WEFT_OK;
}

weft_status wf_config_unet(wf_unet_config *c, const json_t *json, const char *path, weft_error *err)
{
    static const fixed plain[] = {
        { "center_input_sample", NULL, 0 }, { "class_embed_type", NULL, 0 }, { "num_class_embeds", NULL, 0 },
        { "only_cross_attention", NULL, 0 }, { "dual_cross_attention", NULL, 0 }, { "encoder_hid_dim", NULL, 0 },
        { "encoder_hid_dim_type", NULL, 0 }, { "resnet_time_scale_shift", "default", 0 },
        { "resnet_skip_time_act", NULL, 0 }, { "resnet_out_scale_factor", NULL, 1 },
        { "mid_block_scale_factor", NULL, 1 }, { "time_embedding_type", "positional", 0 },
        { "time_embedding_dim", NULL, 0 }, { "time_embedding_act_fn", NULL, 0 }, { "timestep_post_act", NULL, 0 },
        { "conv_in_kernel", NULL, 3 }, { "conv_out_kernel", NULL, 3 },
        { "downsample_padding", NULL, 1 }, { "attention_type", "default", 0 }, { "cross_attention_norm", NULL, 0 },
        { "mid_block_only_cross_attention", NULL, 0 }, { "class_embeddings_concat", NULL, 0 },
        { "reverse_transformer_layers_per_block", NULL, 0 },
    };
    static const char *const heads_key[] = { "attention_head_dim", "num_attention_heads" };
    const json_t *added = json_object_get(json, "addition_embed_type"),
                 *mid = json_object_get(json, "mid_block_type");
    double eps, shift;

    memset(c, 0, sizeof *c);
    WF_TRY(check_class(json, "UNet2DConditionModel", path, err));
    WF_TRY(check_fixed(json, plain, WF_LEN(plain), path, err));
    WF_TRY(get_channels(c->channels, &c->levels, WF_LEVELS, json, path, err));
    WF_TRY(get_blocks(c->down_attention, c->levels, json, "down_block_types", "DownBlock2D",
                      "CrossAttnDownBlock2D", path, err));
    WF_TRY(get_blocks(c->up_attention, c->levels, json, "up_block_types", "UpBlock2D",
                      "CrossAttnUpBlock2D", path, err));
    const char *mid_name = mid == NULL ? "UNetMidBlock2DCrossAttn" : json_string_value(mid);
    c->has_mid = mid == NULL || !json_is_null(mid);
    c->mid_attention = mid_name != NULL && strcmp(mid_name, "UNetMidBlock2DCrossAttn") == 0;
    if (c->has_mid && !c->mid_attention &&
        (mid_name == NULL || strcmp(mid_name, "UNetMidBlock2D") != 0))
        return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: mid_block_type \"%s\" is not supported", path,
                       mid_name != NULL ? mid_name : "?");
    WF_TRY(get_int(&c->in_channels, json, "in_channels", 4, 1, 256, path, err));
    WF_TRY(get_int(&c->out_channels, json, "out_channels", 4, 1, 256, path, err));
    if (c->in_channels < c->out_channels)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: the UNet takes %d channels and gives %d, wanted as many or fewer", path,
                       c->in_channels, c->out_channels);
    WF_TRY(get_int(&c->guidance_dim, json, "time_cond_proj_dim", 0, 4, MAX_WIDTH, path, err));
    WF_TRY(get_levels(c->layers, c->levels, json, "layers_per_block", 2, 1, MAX_LAYERS, path, err));
    WF_TRY(get_levels(c->depth, c->levels, json, "transformer_layers_per_block", 1, 1, MAX_DEPTH,
                      path, err));
    WF_TRY(get_levels(c->cross_dim, c->levels, json, "cross_attention_dim", 1280, 1, MAX_WIDTH,
                      path, err));
    for (int32_t i = 1; i < c->levels; i++)
        if (c->cross_dim[i] != c->cross_dim[0])
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "%s: cross_attention_dim differs between levels", path);
    WF_TRY(get_levels(c->heads, c->levels, json,
                      heads_key[!absent(json_object_get(json, "num_attention_heads"))], 8, 1,
                      MAX_WIDTH, path, err));
    WF_TRY(get_int(&c->groups, json, "norm_num_groups", 32, 1, MAX_WIDTH, path, err));
    WF_TRY(get_float(&eps, json, "norm_eps", 1e-5, 0, 1, path, err));
    WF_TRY(get_float(&shift, json, "freq_shift", 0, 0, 1, path, err));
    c->eps = (float)eps;
    c->freq_shift = shift;
    WF_TRY(get_act(&c->act, json, "act_fn", "silu", path, err));
    WF_TRY(get_bool(&c->linear_projection, json, "use_linear_projection", false, path, err));
    WF_TRY(get_bool(&c->flip_sin_to_cos, json, "flip_sin_to_cos", true, path, err));
    WF_TRY(get_int(&c->sample_size, json, "sample_size", 64, 1, 1 << 14, path, err));
    if (c->channels[0] < 4)
        return wf_fail(err, WEFT_E_FORMAT, "%s: block_out_channels begins below 4", path);

    if (absent(added)) return WEFT_OK;
    const char *kind = json_string_value(added);
    if (kind == NULL || strcmp(kind, "text_time") != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: addition_embed_type \"%s\" is not supported",
                       path, kind != NULL ? kind : "?");
    c->text_time = true;
    WF_TRY(get_int(&c->time_id_dim, json, "addition_time_embed_dim", 256, 2, MAX_WIDTH, path, err));
    WF_TRY(get_int(&c->added_dim, json, "projection_class_embeddings_input_dim", 2816, 1, 1 << 20,
                   path, err));
    return wf_config_time_ids(c, 6, path, err); /* original, crop and target size */
}

weft_status wf_config_time_ids(wf_unet_config *c, int32_t time_ids, const char *path,
                               weft_error *err)
{
    c->time_ids = time_ids;
    c->pooled_dim = c->added_dim - time_ids * c->time_id_dim;
    if (c->pooled_dim < 1)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: projection_class_embeddings_input_dim %d has no room for %d time ids "
                       "of %d and a pooled vector",
                       path, c->added_dim, time_ids, c->time_id_dim);
    return WEFT_OK;
}

weft_status wf_config_clip(wf_clip_config *c, const json_t *json, bool projection, const char *path,
                           weft_error *err)
{
    double eps;
    memset(c, 0, sizeof *c);
    WF_TRY(get_int(&c->hidden, json, "hidden_size", 512, 1, MAX_WIDTH, path, err));
    WF_TRY(get_int(&c->layers, json, "num_hidden_layers", 12, 1, 128, path, err));
    WF_TRY(get_int(&c->heads, json, "num_attention_heads", 8, 1, MAX_WIDTH, path, err));
    WF_TRY(get_int(&c->intermediate, json, "intermediate_size", 2048, 1, MAX_WIDTH, path, err));
    WF_TRY(get_int(&c->vocab, json, "vocab_size", 49408, 3, 1 << 22, path, err));
    WF_TRY(get_int(&c->positions, json, "max_position_embeddings", 77, 3, 4096, path, err));
    WF_TRY(get_int(&c->eos, json, "eos_token_id", 49407, 0, 1 << 22, path, err));
    if (projection)
        WF_TRY(get_int(&c->projection, json, "projection_dim", 512, 1, MAX_WIDTH, path, err));
    WF_TRY(get_float(&eps, json, "layer_norm_eps", 1e-5, 0, 1, path, err));
    c->eps = (float)eps;
    WF_TRY(get_act(&c->act, json, "hidden_act", "quick_gelu", path, err));
    if (c->hidden % c->heads != 0)
        return wf_fail(err, WEFT_E_FORMAT, "%s: %d heads do not divide hidden_size %d", path,
                       c->heads, c->hidden);
    return WEFT_OK;
}

weft_status wf_config_vae(wf_vae_config *c, const json_t *json, const char *path, weft_error *err)
{
    static const fixed plain[] = { { "latents_mean", NULL, 0 }, { "latents_std", NULL, 0 } };
    bool unused[WF_VAE_LEVELS];
    double scale, shift;

    memset(c, 0, sizeof *c);
    WF_TRY(check_class(json, "AutoencoderKL", path, err));
    WF_TRY(check_fixed(json, plain, WF_LEN(plain), path, err));
    WF_TRY(get_channels(c->channels, &c->levels, WF_VAE_LEVELS, json, path, err));
    WF_TRY(get_blocks(unused, c->levels, json, "down_block_types", "DownEncoderBlock2D", NULL, path,
                      err));
    WF_TRY(
        get_blocks(unused, c->levels, json, "up_block_types", "UpDecoderBlock2D", NULL, path, err));
    WF_TRY(get_int(&c->in_channels, json, "in_channels", 3, 3, 3, path, err));
    WF_TRY(get_int(&c->out_channels, json, "out_channels", 3, 3, 3, path, err));
    WF_TRY(get_int(&c->latent_channels, json, "latent_channels", 4, 1, 256, path, err));
    WF_TRY(get_int(&c->layers, json, "layers_per_block", 1, 1, MAX_LAYERS, path, err));
    WF_TRY(get_int(&c->groups, json, "norm_num_groups", 32, 1, MAX_WIDTH, path, err));
    WF_TRY(get_int(&c->sample_size, json, "sample_size", 512, 1, 1 << 16, path, err));
    WF_TRY(get_bool(&c->mid_attention, json, "mid_block_add_attention", true, path, err));
    WF_TRY(get_bool(&c->quant_conv, json, "use_quant_conv", true, path, err));
    WF_TRY(get_bool(&c->post_quant_conv, json, "use_post_quant_conv", true, path, err));
    WF_TRY(get_act(&c->act, json, "act_fn", "silu", path, err));
    WF_TRY(get_float(&scale, json, "scaling_factor", 0.18215, 1e-6, 1e6, path, err));
    WF_TRY(get_float(&shift, json, "shift_factor", 0, -1e6, 1e6, path, err));
    c->scaling_factor = (float)scale;
    c->shift_factor = (float)shift;
    return WEFT_OK;
}
