/* config.c - config.json of each network becomes the struct that builds it.
 *
 * An absent key has diffusers' (or transformers') default. keys.c says which keys there are and
 * refuses what is not run; here those that are followed are read. Numbers are bounded before
 * anything is allocated for them. */
#include "nets/config.h"
#include "nets/keys.h"

enum { MAX_WIDTH = 1 << 16, MAX_DEPTH = 64 };

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

/* The names of activations that diffusers knows, in any case of letters. */
static weft_status get_act(wf_act *out, const json_t *json, const char *key, wf_act preset,
                           const char *path, weft_error *err)
{
    static const char *const names[] = { "silu", "swish", "mish", "gelu", "relu" };
    const json_t *v = json_object_get(json, key);
    char lower[16] = "";

    *out = preset;
    if (absent(v)) return WEFT_OK;
    const char *name = json_string_value(v);
    if (name == NULL) return wf_fail(err, WEFT_E_FORMAT, "%s: %s is not a name", path, key);
    for (size_t i = 0; i + 1 < sizeof lower && name[i] != '\0'; i++)
        lower[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] - 'A' + 'a' : name[i]);
    for (size_t i = 0; i < WF_LEN(names); i++)
        if (strcmp(lower, names[i]) == 0 && wf_act_from_name(lower, out)) return WEFT_OK;
    return wf_fail(err, WEFT_E_UNSUPPORTED,
                   "%s: %s \"%s\" is not supported, wanted silu, mish, gelu or relu", path, key,
                   name);
}

/* The classes of blocks in a list: plain gives false, other true. */
typedef struct blocks {
    const char *plain, *other; /* other NULL: there is none   */
    int32_t     levels;        /* of the list that is absent  */
    bool        preset[4];     /* and its classes             */
} blocks;

/* diffusers takes "UNetRes" off the names that its first versions wrote. */
static weft_status get_blocks(bool *out, int32_t levels, const json_t *json, const char *key,
                              const blocks *b, const char *path, weft_error *err)
{
    static const char old[] = "UNetRes";
    const json_t *v = json_object_get(json, key);
    if (v == NULL && levels == b->levels) {
        memcpy(out, b->preset, (size_t)levels * sizeof *out);
        return WEFT_OK;
    }
    if (!json_is_array(v) || json_array_size(v) != (size_t)levels)
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s is not a list of %d blocks", path, key, levels);
    for (int32_t i = 0; i < levels; i++) {
        const char *full = json_string_value(json_array_get(v, (size_t)i)), *name = full;
        if (name == NULL)
            return wf_fail(err, WEFT_E_FORMAT, "%s: %s holds something that is not a name", path,
                           key);
        if (strncmp(name, old, sizeof old - 1) == 0) name += sizeof old - 1;
        out[i] = b->other != NULL && strcmp(name, b->other) == 0;
        if (!out[i] && strcmp(name, b->plain) != 0)
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "%s: block class \"%s\" in %s is not supported, wanted %s%s%s", path,
                           full, key, b->plain, b->other != NULL ? " or " : "",
                           b->other != NULL ? b->other : "");
    }
    return WEFT_OK;
}

static weft_status get_channels(int32_t *channels, int32_t *levels, int32_t most,
                                const json_t *json, const int32_t *preset, int32_t count,
                                const char *path, weft_error *err)
{
    const json_t *v = json_object_get(json, "block_out_channels");
    *levels = count;
    if (v == NULL) {
        memcpy(channels, preset, (size_t)count * sizeof *channels);
        return WEFT_OK;
    }
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

/* ---- UNet ------------------------------------------------------------------------------------ */

/* How many blocks each transformer of a stage has: one number for all, or a list of at least as
 * many as the stage has. Stages without attention have none, whatever is said. */
static weft_status stage_depth(int32_t *out, int32_t count, const json_t *v, const char *key,
                               const char *path, weft_error *err)
{
    for (int32_t j = 0; j < count; j++) out[j] = 1;
    if (v == NULL) return WEFT_OK;
    if (json_is_array(v) && json_array_size(v) < (size_t)count)
        return wf_fail(err, WEFT_E_FORMAT, "%s: a list in %s has %zu entries, wanted %d", path, key,
                       json_array_size(v), count);
    for (int32_t j = 0; j < count; j++)
        WF_TRY(as_int(&out[j], json_is_array(v) ? json_array_get(v, (size_t)j) : v, key, 0,
                      MAX_DEPTH, path, err));
    return WEFT_OK;
}

/* The entry of a level: the value itself, or that of a list with one for each level. */
static const json_t *at_level(const json_t *v, int32_t i)
{
    return json_is_array(v) ? json_array_get(v, (size_t)i) : v;
}

/* The way up has the depths of the way down, unless it has its own. */
static weft_status get_depths(wf_unet_config *c, const json_t *json, const char *path,
                              weft_error *err)
{
    static const char down_key[] = "transformer_layers_per_block",
                      up_key[] = "reverse_transformer_layers_per_block";
    const json_t *down = json_object_get(json, down_key), *up = json_object_get(json, up_key);
    int32_t last = c->levels - 1;
    bool own = !absent(up);

    for (int i = 0; i < 2; i++) {
        const json_t *v = i == 0 ? down : own ? up : NULL;
        if (json_is_array(v) && json_array_size(v) != (size_t)c->levels)
            return wf_fail(err, WEFT_E_FORMAT, "%s: %s has %zu entries, wanted %d", path,
                           i == 0 ? down_key : up_key, json_array_size(v), c->levels);
    }
    if (own && !json_is_array(up))
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s is not a list", path, up_key);
    for (int32_t i = 0; i <= last; i++) {
        if (!own && json_is_array(at_level(down, i)))
            return wf_fail(err, WEFT_E_FORMAT,
                           "%s: %s has lists in its list, which wants a %s beside it", path,
                           down_key, up_key);
        if (c->down_attention[i])
            WF_TRY(stage_depth(c->down_depth[i], c->layers[i], at_level(down, i), down_key, path,
                               err));
        if (c->up_attention[i])
            WF_TRY(stage_depth(c->up_depth[i], c->layers[last - i] + 1,
                               own ? at_level(up, i) : at_level(down, last - i),
                               own ? up_key : down_key, path, err));
    }
    return c->mid_attention
               ? stage_depth(&c->mid_depth, 1, at_level(down, last), down_key, path, err)
               : WEFT_OK;
}

static weft_status get_mid(wf_unet_config *c, const json_t *json, const char *path, weft_error *err)
{
    static const char attends[] = "UNetMidBlock2DCrossAttn", plain[] = "UNetMidBlock2D";
    const json_t *v = json_object_get(json, "mid_block_type");
    const char *name = v == NULL ? attends : json_string_value(v);
    double scale;

    c->has_mid = !json_is_null(v);
    c->mid_attention = name != NULL && strcmp(name, attends) == 0;
    if (c->has_mid && !c->mid_attention && (name == NULL || strcmp(name, plain) != 0))
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: mid_block_type \"%s\" is not supported, wanted %s, %s or null", path,
                       name != NULL ? name : "?", attends, plain);
    WF_TRY(get_float(&scale, json, "mid_block_scale_factor", 1, 1e-3, 1e3, path, err));
    c->mid_scale = (float)scale;
    return WEFT_OK;
}

/* The image's ends, and how it gets smaller. */
static weft_status get_convolutions(wf_unet_config *c, const json_t *json, const char *path,
                                    weft_error *err)
{
    const struct { const char *key; int32_t *out; } kernels[] = {
        { "conv_in_kernel", &c->in_kernel }, { "conv_out_kernel", &c->out_kernel }
    };
    for (size_t i = 0; i < WF_LEN(kernels); i++) {
        WF_TRY(get_int(kernels[i].out, json, kernels[i].key, 3, 1, 1 << 16, path, err));
        if (*kernels[i].out != 1 && *kernels[i].out != 3)
            return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: %s is %d, wanted 1 or 3", path,
                           kernels[i].key, *kernels[i].out);
    }
    WF_TRY(get_bool(&c->center, json, "center_input_sample", false, path, err));
    return get_int(&c->down_pad, json, "downsample_padding", 1, 0, 1, path, err);
}

static weft_status get_time(wf_unet_config *c, const json_t *json, const char *path,
                            weft_error *err)
{
    double shift;

    WF_TRY(get_int(&c->time_dim, json, "time_embedding_dim", 0, 0, MAX_WIDTH, path, err));
    if (c->time_dim == 0) c->time_dim = 4 * c->channels[0];
    WF_TRY(get_act(&c->time_post_act, json, "timestep_post_act", WF_ACT_NONE, path, err));
    WF_TRY(get_act(&c->time_act, json, "time_embedding_act_fn", WF_ACT_NONE, path, err));
    WF_TRY(get_int(&c->guidance_dim, json, "time_cond_proj_dim", 0, 4, MAX_WIDTH, path, err));
    WF_TRY(get_bool(&c->flip_sin_to_cos, json, "flip_sin_to_cos", true, path, err));
    WF_TRY(get_float(&shift, json, "freq_shift", 0, 0, 1, path, err));
    c->freq_shift = shift;
    return WEFT_OK;
}

/* Pictures have one size or two that are the same: it is only what a run takes by itself. */
static weft_status get_sample_size(wf_unet_config *c, const json_t *json, const char *path,
                                   weft_error *err)
{
    static const char key[] = "sample_size";
    const json_t *v = json_object_get(json, key);

    if (!json_is_array(v))
        return get_int(&c->sample_size, json, key, 64, 1, 1 << 14, path, err);
    if (json_array_size(v) != 2 || !json_equal(json_array_get(v, 0), json_array_get(v, 1)))
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: %s is a list of different sizes, wanted one number", path, key);
    return as_int(&c->sample_size, json_array_get(v, 0), key, 1, 1 << 14, path, err);
}

static weft_status get_added(wf_unet_config *c, const json_t *json, const char *path,
                             weft_error *err)
{
    static const char *const widths[] = { "addition_time_embed_dim",
                                          "projection_class_embeddings_input_dim" };
    const json_t *v = json_object_get(json, "addition_embed_type");
    const char *kind = json_string_value(v);

    if (absent(v)) return WEFT_OK;
    if (kind == NULL || strcmp(kind, "text_time") != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: addition_embed_type \"%s\" is not supported, wanted text_time or null",
                       path, kind != NULL ? kind : "?");
    for (size_t i = 0; i < WF_LEN(widths); i++)
        if (absent(json_object_get(json, widths[i])))
            return wf_fail(err, WEFT_E_FORMAT,
                           "%s: no %s, which addition_embed_type \"text_time\" wants", path,
                           widths[i]);
    c->text_time = true;
    WF_TRY(get_int(&c->time_id_dim, json, widths[0], 0, 2, MAX_WIDTH, path, err));
    WF_TRY(get_int(&c->added_dim, json, widths[1], 0, 1, 1 << 20, path, err));
    if (c->time_id_dim / 2 <= c->freq_shift) /* the last frequency would be 0 / 0 */
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s is %d, too small for a freq_shift of 1", path,
                       widths[0], c->time_id_dim);
    return wf_config_time_ids(c, 6, path, err); /* original, crop and target size */
}

weft_status wf_config_unet(wf_unet_config *c, const json_t *json, const char *path, weft_error *err)
{
    static const int32_t channels[] = { 320, 640, 1280, 1280 };
    static const blocks down = { "DownBlock2D", "CrossAttnDownBlock2D", 4, { 1, 1, 1, 0 } },
                        up = { "UpBlock2D", "CrossAttnUpBlock2D", 4, { 0, 1, 1, 1 } };
    double eps;

    memset(c, 0, sizeof *c);
    WF_TRY(check_class(json, "UNet2DConditionModel", path, err));
    WF_TRY(wf_keys_check(wf_unet_keys, json, path, err));
    WF_TRY(get_channels(c->channels, &c->levels, WF_LEVELS, json, channels, WF_LEN(channels), path,
                        err));
    if (c->channels[0] < 4)
        return wf_fail(err, WEFT_E_FORMAT, "%s: block_out_channels begins below 4", path);
    WF_TRY(get_blocks(c->down_attention, c->levels, json, "down_block_types", &down, path, err));
    WF_TRY(get_blocks(c->up_attention, c->levels, json, "up_block_types", &up, path, err));
    WF_TRY(get_mid(c, json, path, err));
    WF_TRY(get_int(&c->in_channels, json, "in_channels", 4, 1, 256, path, err));
    WF_TRY(get_int(&c->out_channels, json, "out_channels", 4, 1, 256, path, err));
    if (c->in_channels < c->out_channels)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: in_channels: the UNet takes %d channels and gives %d, wanted as many "
                       "or fewer",
                       path, c->in_channels, c->out_channels);
    WF_TRY(get_levels(c->layers, c->levels, json, "layers_per_block", 2, 1, WF_LAYERS - 1, path,
                      err));
    WF_TRY(get_depths(c, json, path, err));
    WF_TRY(get_levels(c->cross_dim, c->levels, json, "cross_attention_dim", 1280, 1, MAX_WIDTH,
                      path, err));
    for (int32_t i = 1; i < c->levels; i++)
        if (c->cross_dim[i] != c->cross_dim[0])
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "%s: cross_attention_dim differs between levels", path);
    WF_TRY(get_levels(c->heads, c->levels, json, "attention_head_dim", 8, 1, MAX_WIDTH, path, err));
    WF_TRY(get_int(&c->groups, json, "norm_num_groups", 32, 1, MAX_WIDTH, path, err));
    WF_TRY(get_float(&eps, json, "norm_eps", 1e-5, 0, 1, path, err));
    c->eps = (float)eps;
    WF_TRY(get_act(&c->act, json, "act_fn", WF_ACT_SILU, path, err));
    WF_TRY(get_bool(&c->linear_projection, json, "use_linear_projection", false, path, err));
    WF_TRY(get_convolutions(c, json, path, err));
    WF_TRY(get_time(c, json, path, err));
    WF_TRY(get_sample_size(c, json, path, err));
    return get_added(c, json, path, err);
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

/* ---- CLIP ------------------------------------------------------------------------------------ */

static weft_status get_clip_act(wf_act *out, const json_t *json, const char *path, weft_error *err)
{
    const json_t *v = json_object_get(json, "hidden_act");
    const char *name = v == NULL ? "quick_gelu" : json_string_value(v);

    if (name == NULL) return wf_fail(err, WEFT_E_FORMAT, "%s: hidden_act is not a name", path);
    if (!wf_act_from_name(name, out))
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: hidden_act \"%s\" is not supported, wanted quick_gelu, gelu, silu, "
                       "mish or relu",
                       path, name);
    return WEFT_OK;
}

weft_status wf_config_clip(wf_clip_config *c, const json_t *json, bool projection, const char *path,
                           weft_error *err)
{
    static const char projected[] = "projection_dim";
    double eps;

    memset(c, 0, sizeof *c);
    WF_TRY(wf_keys_check(wf_clip_keys, json, path, err));
    WF_TRY(get_int(&c->hidden, json, "hidden_size", 512, 1, MAX_WIDTH, path, err));
    WF_TRY(get_int(&c->layers, json, "num_hidden_layers", 12, 1, 128, path, err));
    WF_TRY(get_int(&c->heads, json, "num_attention_heads", 8, 1, MAX_WIDTH, path, err));
    WF_TRY(get_int(&c->intermediate, json, "intermediate_size", 2048, 1, MAX_WIDTH, path, err));
    WF_TRY(get_int(&c->vocab, json, "vocab_size", 49408, 3, 1 << 22, path, err));
    WF_TRY(get_int(&c->positions, json, "max_position_embeddings", 77, 3, 4096, path, err));
    WF_TRY(get_int(&c->eos, json, "eos_token_id", 49407, 0, 1 << 22, path, err));
    if (projection && json_is_null(json_object_get(json, projected)))
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s is null, wanted a value", path, projected);
    if (projection)
        WF_TRY(get_int(&c->projection, json, projected, 512, 1, MAX_WIDTH, path, err));
    WF_TRY(get_float(&eps, json, "layer_norm_eps", 1e-5, 0, 1, path, err));
    c->eps = (float)eps;
    WF_TRY(get_clip_act(&c->act, json, path, err));
    if (c->hidden % c->heads != 0)
        return wf_fail(err, WEFT_E_FORMAT, "%s: %d heads do not divide hidden_size %d", path,
                       c->heads, c->hidden);
    return WEFT_OK;
}

weft_status wf_config_clip_vision(wf_clip_vision_config *c, const json_t *json, const char *path,
                                  weft_error *err)
{
    double eps;

    memset(c, 0, sizeof *c);
    WF_TRY(wf_keys_check(wf_clip_vision_keys, json, path, err));
    WF_TRY(get_int(&c->hidden, json, "hidden_size", 768, 1, MAX_WIDTH, path, err));
    WF_TRY(get_int(&c->layers, json, "num_hidden_layers", 12, 1, 128, path, err));
    WF_TRY(get_int(&c->heads, json, "num_attention_heads", 12, 1, MAX_WIDTH, path, err));
    WF_TRY(get_int(&c->intermediate, json, "intermediate_size", 3072, 1, MAX_WIDTH, path, err));
    WF_TRY(get_int(&c->image, json, "image_size", 224, 1, 4096, path, err));
    WF_TRY(get_int(&c->patch, json, "patch_size", 32, 1, 1024, path, err));
    WF_TRY(get_int(&c->projection, json, "projection_dim", 512, 1, MAX_WIDTH, path, err));
    WF_TRY(get_float(&eps, json, "layer_norm_eps", 1e-5, 0, 1, path, err));
    c->eps = (float)eps;
    WF_TRY(get_clip_act(&c->act, json, path, err));
    if (c->hidden % c->heads != 0)
        return wf_fail(err, WEFT_E_FORMAT, "%s: %d heads do not divide hidden_size %d", path,
                       c->heads, c->hidden);
    if (c->image < c->patch || c->image / c->patch > 256)
        return wf_fail(err, WEFT_E_FORMAT,
                       "%s: image_size %d and patch_size %d, wanted 1 to 256 patches a side", path,
                       c->image, c->patch);
    return WEFT_OK;
}

/* ---- VAE ------------------------------------------------------------------------------------- */

weft_status wf_config_vae(wf_vae_config *c, const json_t *json, const char *path, weft_error *err)
{
    static const int32_t channels[] = { 64 };
    static const blocks down = { "DownEncoderBlock2D", NULL, 1, { false } },
                        up = { "UpDecoderBlock2D", NULL, 1, { false } };
    bool unused[WF_VAE_LEVELS];
    double scale, shift;

    memset(c, 0, sizeof *c);
    WF_TRY(check_class(json, "AutoencoderKL", path, err));
    WF_TRY(wf_keys_check(wf_vae_keys, json, path, err));
    WF_TRY(get_channels(c->channels, &c->levels, WF_VAE_LEVELS, json, channels, WF_LEN(channels),
                        path, err));
    WF_TRY(get_blocks(unused, c->levels, json, "down_block_types", &down, path, err));
    WF_TRY(get_blocks(unused, c->levels, json, "up_block_types", &up, path, err));
    WF_TRY(get_int(&c->in_channels, json, "in_channels", 3, 3, 3, path, err));
    WF_TRY(get_int(&c->out_channels, json, "out_channels", 3, 3, 3, path, err));
    WF_TRY(get_int(&c->latent_channels, json, "latent_channels", 4, 1, 256, path, err));
    WF_TRY(get_int(&c->layers, json, "layers_per_block", 1, 1, WF_LAYERS - 1, path, err));
    WF_TRY(get_int(&c->groups, json, "norm_num_groups", 32, 1, MAX_WIDTH, path, err));
    WF_TRY(get_bool(&c->mid_attention, json, "mid_block_add_attention", true, path, err));
    WF_TRY(get_bool(&c->quant_conv, json, "use_quant_conv", true, path, err));
    WF_TRY(get_bool(&c->post_quant_conv, json, "use_post_quant_conv", true, path, err));
    WF_TRY(get_act(&c->act, json, "act_fn", WF_ACT_SILU, path, err));
    WF_TRY(get_float(&scale, json, "scaling_factor", 0.18215, 1e-6, 1e6, path, err));
    WF_TRY(get_float(&shift, json, "shift_factor", 0, -1e6, 1e6, path, err));
    c->scaling_factor = (float)scale;
    c->shift_factor = (float)shift;
    return WEFT_OK;
}
