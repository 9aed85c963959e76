/* encoder.c - CLIP's image encoder from a folder, as transformers saves it.
 *
 * diffusers prepares pictures by CLIP's published mean and deviation whatever the folder holds.
 * Where the folder has a preprocessor_config.json, its mean and deviation are followed, and
 * settings that would prepare a picture in another way are refused. */
#include <errno.h>

#include "base/structs.h"
#include "image/image_internal.h"
#include "nets/config.h"
#include "nets/keys.h"

struct weft_image_encoder {
    wf_image_parts  parts;
    wf_clip_vision *net;
    wf_picture_norm norm;
    int64_t         parameters;
};

static const wf_picture_norm clip = { { 0.48145466f, 0.4578275f, 0.40821073f },
                                      { 0.26862954f, 0.26130258f, 0.27577711f } };

/* ---- preprocessor_config.json ---------------------------------------------------------------- */

static const wf_key preprocessor_keys[] = {
    { "do_resize", WF_KEY_ONLY, "true" },
    { "do_center_crop", WF_KEY_ONLY, "true" },
    { "do_rescale", WF_KEY_ONLY, "true" },
    { "do_normalize", WF_KEY_ONLY, "true" },
    { "do_pad", WF_KEY_ONLY, "false null" },
    { "resample", WF_KEY_ONLY, "3" },
    { "do_convert_rgb", WF_KEY_IDLE, NULL }, /* pictures come as RGB */
    { "rescale_factor", WF_KEY_READ, NULL },
    { "image_mean", WF_KEY_READ, NULL },
    { "image_std", WF_KEY_READ, NULL },
    { "size", WF_KEY_READ, NULL },
    { "crop_size", WF_KEY_READ, NULL },
    { NULL, WF_KEY_IDLE, NULL },
};

static weft_status read_three(float to[3], const json_t *json, const char *key, bool divides,
                              const char *path, weft_error *err)
{
    const json_t *list = json_object_get(json, key);

    if (list == NULL) return WEFT_OK;
    for (size_t i = 0; i < 3; i++) {
        double v = json_number_value(json_array_get(list, i));
        if (json_array_size(list) != 3 || !json_is_number(json_array_get(list, i)) ||
            !(v >= (divides ? 1e-6 : -1e6) && v <= 1e6))
            return wf_fail(err, WEFT_E_FORMAT, "%s: %s is not a list of 3 numbers%s", path, key,
                           divides ? " above 0" : "");
        to[i] = (float)v;
    }
    return WEFT_OK;
}

/* A number, or an object whose every member is that number. */
static weft_status check_size(const json_t *json, const char *key, int32_t side, const char *path,
                              weft_error *err)
{
    const json_t *size = json_object_get(json, key), *v;
    const char   *name;
    bool          same = json_is_integer(size) && json_integer_value(size) == side;

    if (size == NULL) return WEFT_OK;
    if (json_object_size(size) > 0) same = true;
    json_object_foreach((json_t *)(uintptr_t)size, name, v)
        same = same && json_is_integer(v) && json_integer_value(v) == side;
    if (json_object_get(size, "shortest_edge") == NULL && strcmp(key, "size") == 0 &&
        json_is_object(size))
        same = false; /* both sides given: no shorter side to bring to a size */
    if (same) return WEFT_OK;
    return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: %s is not %s%d, the encoder's image_size", path,
                   key, strcmp(key, "size") == 0 ? "a shortest_edge of " : "", (int)side);
}

weft_status wf_picture_config(wf_picture_norm *norm, const json_t *json, int32_t side,
                              const char *path, weft_error *err)
{
    const json_t *factor = json_object_get(json, "rescale_factor");

    *norm = clip;
    WF_TRY(wf_keys_check(preprocessor_keys, json, path, err));
    if (factor != NULL && !(json_number_value(factor) * 255 > 1 - 1e-6 &&
                            json_number_value(factor) * 255 < 1 + 1e-6))
        return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: rescale_factor is not 1/255", path);
    WF_TRY(read_three(norm->mean, json, "image_mean", false, path, err));
    WF_TRY(read_three(norm->deviation, json, "image_std", true, path, err));
    WF_TRY(check_size(json, "size", side, path, err));
    return check_size(json, "crop_size", side, path, err);
}

/* ---- opening --------------------------------------------------------------------------------- */

static weft_status in_folder(char **out, const char *folder, const char *name,
                             const weft_allocator *alloc, weft_error *err)
{
    *out = wf_path_join(alloc, folder, name);
    return *out != NULL ? WEFT_OK : wf_nomem(err, strlen(folder) + strlen(name), "a path");
}

static weft_status open_weights(weft_image_encoder *e, char **path, const char *folder, bool copy,
                                weft_error *err)
{
    static const struct { const char *name; bool index; } files[] = {
        { "model.safetensors", false },
        { "model.safetensors.index.json", true },
        { "pytorch_model.bin", false },
        { "pytorch_model.bin.index.json", true },
    };
    const weft_allocator *alloc = &e->parts.alloc;

    for (size_t i = 0; i < WF_LEN(files); i++) {
        WF_TRY(in_folder(path, folder, files[i].name, alloc, err));
        if (wf_path_exists(*path))
            return files[i].index
                       ? wf_tensors_open_index(*path, copy, alloc, &e->parts.file, err)
                       : wf_tensors_open(*path, copy, alloc, &e->parts.file, err);
        wf_free(alloc, *path);
        *path = NULL;
    }
    return wf_fail_sys(err, ENOENT, "%s: no weights of an image encoder, wanted %s or %s", folder,
                       files[0].name, files[2].name);
}

static weft_status build(weft_image_encoder *e, const json_t *config, const char *config_path,
                         const char *path, weft_error *err)
{
    wf_clip_vision_config c;
    wf_binder b;

    WF_TRY(wf_config_clip_vision(&c, config, config_path, err));
    WF_TRY(wf_image_parts_bind(&e->parts, &b, "image_encoder", path, err));
    weft_status st = wf_clip_vision_build(&c, &b, &e->net, err);
    e->parameters = b.parameters;
    wf_free(&e->parts.alloc, b.used);
    return st;
}

/* Prepared as CLIP has it, unless the folder says more. */
static weft_status read_preprocessor(weft_image_encoder *e, const char *folder, weft_error *err)
{
    char       *path;
    json_t     *json = NULL;
    weft_status st;

    WF_TRY(in_folder(&path, folder, "preprocessor_config.json", &e->parts.alloc, err));
    e->norm = clip;
    st = wf_path_exists(path) ? wf_json_load(&json, path, &e->parts.alloc, err) : WEFT_OK;
    if (st == WEFT_OK && json != NULL)
        st = wf_picture_config(&e->norm, json, wf_clip_vision_get_config(e->net)->image, path, err);
    json_decref(json);
    wf_free(&e->parts.alloc, path);
    return st;
}

static weft_status open_folder(weft_image_encoder *e, const char *folder,
                               const weft_image_options *o, weft_error *err)
{
    const weft_allocator *alloc = &e->parts.alloc;
    char       *config_path = NULL, *path = NULL;
    json_t     *config = NULL;
    weft_status st;

    if (!wf_path_exists(folder)) return wf_fail_sys(err, ENOENT, "%s", folder);
    if (!wf_path_is_dir(folder))
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s is a file: an image encoder is a folder with config.json and "
                       "model.safetensors", folder);
    WF_TRY(in_folder(&config_path, folder, "config.json", alloc, err));
    st = wf_json_load(&config, config_path, alloc, err);
    if (st == WEFT_OK) st = open_weights(e, &path, folder, (o->flags & WEFT_OPEN_COPY) != 0, err);
    if (st == WEFT_OK) st = build(e, config, config_path, path, err);
    if (st == WEFT_OK) wf_keys_warn(wf_clip_vision_keys, config, config_path, o->log, o->log_user);
    if (st == WEFT_OK) st = read_preprocessor(e, folder, err);
    json_decref(config);
    wf_free(alloc, config_path);
    wf_free(alloc, path);
    return st;
}

weft_status weft_image_encoder_open(const char *folder, const weft_image_options *options,
                                    weft_image_encoder **out, weft_error *err)
{
    weft_image_options o;
    weft_status st;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "out is NULL");
    *out = NULL;
    if (folder == NULL) return wf_fail(err, WEFT_E_ARG, "folder is NULL");
    WF_TRY(WF_OPTIONS(&o, options, weft_image_options, WEFT_OPEN_COPY, err));
    WF_TRY(wf_check_allocator(o.allocator, err));

    weft_allocator alloc = wf_allocator(o.allocator);
    weft_image_encoder *e = wf_zalloc(&alloc, 1, sizeof *e);
    if (e == NULL) return wf_nomem(err, sizeof *e, "an image encoder");
    e->parts.alloc = alloc;
    st = open_folder(e, folder, &o, err);
    if (st == WEFT_OK) *out = e;
    else weft_image_encoder_free(e);
    return st;
}

void weft_image_encoder_free(weft_image_encoder *e)
{
    if (e == NULL) return;
    weft_allocator alloc = e->parts.alloc;
    wf_clip_vision_free(e->net, &alloc);
    wf_image_parts_free(&e->parts);
    wf_free(&alloc, e);
}

const wf_clip_vision  *wf_image_encoder_net(const weft_image_encoder *e) { return e->net; }
const wf_picture_norm *wf_image_encoder_norm(const weft_image_encoder *e) { return &e->norm; }

weft_status weft_image_encoder_info_get(const weft_image_encoder *e, weft_image_encoder_info *info,
                                        weft_error *err)
{
    weft_image_encoder_info r = WEFT_IMAGE_ENCODER_INFO_INIT;

    if (e == NULL || info == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", e == NULL ? "encoder" : "info");
    const wf_clip_vision_config *c = wf_clip_vision_get_config(e->net);
    r.image_size = c->image;
    r.patch_size = c->patch;
    r.tokens = wf_clip_vision_tokens(e->net);
    r.width = c->hidden;
    r.pooled = c->projection;
    r.layers = c->layers;
    r.parameters = e->parameters;
    return WF_RESULT(info, &r, weft_image_encoder_info, err);
}
