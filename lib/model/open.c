/* open.c - a diffusers folder becomes a model.
 *
 * First every weight file is opened, so that the size of the layer table is known; then each component is
 * built from its config.json, which checks every tensor. Weights stay mapped where they are. A model without
 * a tokenizer opens: it can be inspected and stepped with conditioning from elsewhere, and the first prompt
 * gets the error that says what to give. */
#include "model/room.h"

enum { UNET, TEXT, TEXT_2, VAE };
enum { REFINER_IDS = 5 }; /* time ids of SDXL's refiner: original size, crop, aesthetic score */

#define ALL_FLAGS (WEFT_OPEN_COPY | WEFT_OPEN_EPSILON | WEFT_OPEN_V)

static const struct component {
    const char *folder;
    const char *stem;      /* of the weight file */
} components[WF_COMPONENTS] = {
    { "unet", "diffusion_pytorch_model" },
    { "text_encoder", "model" },
    { "text_encoder_2", "model" },
    { "vae", "diffusion_pytorch_model" },
};

/* transformers 5 writes text encoders without the "text_model." of their module path. */
static bool text_old_name(const char *name, char *buf, size_t cap)
{
    static const char prefix[] = "text_model.";
    if (strncmp(name, prefix, sizeof prefix - 1) != 0) return false;
    return wf_format(buf, cap, "%s", name + sizeof prefix - 1);
}

/* path/folder/stem[.variant].safetensors: the variant that was asked for, else the plain file, else the only
 * other one that is there. */
static weft_status find_weights(const weft_model *m, const struct component *c, const weft_model_options *o, char *buf,
                                size_t cap, weft_error *err)
{
    const char *variant = o->variant;
    static const char *const variants[] = { "", ".fp16", ".bf16", ".fp32", ".non_ema" };
    static const char *const shards[] = { ".safetensors.index.json", ".safetensors.fp16.index.json",
                                          ".safetensors.index.fp16.json" };
    static const char *const pickles[] = { "diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.bin",
                                           "pytorch_model.bin", "pytorch_model.fp16.bin" };
    if (variant != NULL) {
        if (wf_format(buf, cap, "%s/%s/%s.%s.safetensors", m->path, c->folder, c->stem, variant) &&
            wf_path_exists(buf))
            return WEFT_OK;
        return wf_fail(err, WEFT_E_IO, "%s/%s: no %s.%s.safetensors for the variant that was asked for", m->path,
                       c->folder, c->stem, variant);
    }
    for (size_t i = 0; i < WF_LEN(variants); i++)
        if (wf_format(buf, cap, "%s/%s/%s%s.safetensors", m->path, c->folder, c->stem, variants[i]) &&
            wf_path_exists(buf)) {
            if (i > 0) wf_log(o->log, o->log_user, WEFT_LOG_INFO, "no %s.safetensors: opening %s", c->stem, buf);
            return WEFT_OK;
        }
    for (size_t i = 0; i < WF_LEN(shards); i++)
        if (wf_format(buf, cap, "%s/%s/%s%s", m->path, c->folder, c->stem, shards[i]) && wf_path_exists(buf))
            return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: weights in several files are not supported, wanted one "
                           "%s.safetensors", buf, c->stem);
    for (size_t i = 0; i < WF_LEN(pickles); i++)
        if (wf_format(buf, cap, "%s/%s/%s", m->path, c->folder, pickles[i]) && wf_path_exists(buf))
            return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: pickled weights are not supported, wanted %s.safetensors", buf,
                           c->stem);
    return wf_fail(err, WEFT_E_IO, "%s/%s: no weights, wanted %s.safetensors", m->path, c->folder, c->stem);
}

static weft_status load_json(const weft_model *m, json_t **out, const char *folder, const char *file, weft_error *err)
{
    char path[1024];
    if (!wf_format(path, sizeof path, "%s/%s%s%s", m->path, folder, *folder != 0 ? "/" : "", file))
        return wf_fail(err, WEFT_E_ARG, "the path of the model is too long: %.*s...", 100, m->path);
    return wf_json_load(out, path, &m->alloc, err);
}

static bool has(const weft_model *m, const char *folder, const char *file)
{
    char path[1024];
    return wf_format(path, sizeof path, "%s/%s%s%s", m->path, folder, *folder != 0 ? "/" : "", file) &&
           wf_path_exists(path);
}

/* ---- model_index.json: which components, of which class ---- */

static const char *class_of(const json_t *index, const char *component)
{
    const json_t *v = json_object_get(index, component);
    return json_string_value(json_array_get(v, 1));
}

static weft_status check_index(weft_model *m, const json_t *index, weft_error *err)
{
    static const char *const pipelines[] = {
        "StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline",
        "StableDiffusionInstructPix2PixPipeline", "StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLInpaintPipeline", "StableDiffusionXLInstructPix2PixPipeline",
        "LatentConsistencyModelPipeline", "LatentConsistencyModelImg2ImgPipeline",
    };
    static const struct { const char *component, *class1, *class2; } wanted[] = {
        { "unet", "UNet2DConditionModel", NULL },
        { "vae", "AutoencoderKL", NULL },
        { "text_encoder", "CLIPTextModel", "CLIPTextModelWithProjection" },
        { "text_encoder_2", "CLIPTextModelWithProjection", NULL },
    };
    const char *name = json_string_value(json_object_get(index, "_class_name"));
    bool known = false;
    for (size_t i = 0; name != NULL && i < WF_LEN(pipelines); i++) known = known || strcmp(name, pipelines[i]) == 0;
    if (!known)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "%s/model_index.json: pipeline class \"%s\" is not supported, wanted "
                       "StableDiffusionPipeline or StableDiffusionXLPipeline", m->path, name != NULL ? name : "?");
    for (size_t i = 0; i < WF_LEN(wanted); i++) {
        const json_t *entry = json_object_get(index, wanted[i].component), *named = json_array_get(entry, 1);
        const char *c = class_of(index, wanted[i].component);
        if (entry != NULL && !json_is_null(entry) && c == NULL && !json_is_null(named))
            return wf_fail(err, WEFT_E_FORMAT, "%s/model_index.json: %s is not a pair of library and class", m->path,
                           wanted[i].component);
        if (c == NULL) continue;
        if (strcmp(c, wanted[i].class1) != 0 && (wanted[i].class2 == NULL || strcmp(c, wanted[i].class2) != 0))
            return wf_fail(err, WEFT_E_UNSUPPORTED, "%s/model_index.json: %s of class \"%s\" is not supported, "
                           "wanted %s", m->path, wanted[i].component, c, wanted[i].class1);
    }
    if (class_of(index, "unet") == NULL)
        return wf_fail(err, WEFT_E_FORMAT, "%s/model_index.json: no unet", m->path);
    return WEFT_OK;
}

/* ---- components ---- */

static weft_status build_component(weft_model *m, int32_t id, const json_t *config, const char *path, bool projection,
                                   wf_binder *b, weft_error *err)
{
    wf_clip_config clip;
    wf_vae_config vae;
    switch (id) {
    case UNET:
        WF_TRY(wf_config_unet(&m->parts.unet_config, config, path, err));
        return wf_unet_build(&m->parts.unet_config, b, &m->parts.unet, err);
    case VAE:
        WF_TRY(wf_config_vae(&vae, config, path, err));
        b->old_name = wf_vae_old_name;
        return wf_vae_build(&vae, b, &m->parts.vae, err);
    default:
        WF_TRY(wf_config_clip(&clip, config, projection, path, err));
        b->old_name = text_old_name;
        return wf_clip_build(&clip, b, &m->parts.text[id - TEXT], err);
    }
}

static weft_status bind_component(weft_model *m, int32_t id, const char *weights, bool projection, weft_error *err)
{
    const struct component *c = &components[id];
    weft_tensors *file = m->files[id];
    char path[1024];
    json_t *config = NULL;
    wf_binder b = { .alloc = &m->alloc, .file = file, .path = weights, .component = c->folder, .component_id = id,
                    .layers = m->layers, .layer_count = &m->layer_count, .layer_cap = m->layer_cap, .kept = m->kept,
                    .kept_count = &m->kept_count, .kept_cap = m->kept_cap };
    weft_status st;

    if (!wf_format(path, sizeof path, "%s/%s/config.json", m->path, c->folder))
        return wf_fail(err, WEFT_E_ARG, "the path of the model is too long: %.*s...", 100, m->path);
    if ((st = load_json(m, &config, c->folder, "config.json", err)) != WEFT_OK) return st;
    size_t count = wf_tensors_count(file);
    b.used = wf_zalloc(&m->alloc, count, 1);
    st = b.used != NULL ? build_component(m, id, config, path, projection, &b, err) : wf_nomem(err, count, weights);
    m->parameters += b.parameters;
    wf_free(&m->alloc, b.used);
    json_decref(config);
    return st;
}

/* The networks must fit each other: the text encoders' widths, the pooled vector, the time ids. */
static weft_status check_fit(weft_model *m, weft_error *err)
{
    const wf_unet_config *c = &m->parts.unet_config;
    const wf_clip_config *a = m->parts.text[0] != NULL ? wf_clip_get_config(m->parts.text[0]) : NULL;
    const wf_clip_config *b = m->parts.text[1] != NULL ? wf_clip_get_config(m->parts.text[1]) : NULL;
    int32_t width = (a != NULL ? a->hidden : 0) + (b != NULL ? b->hidden : 0);

    if (width > 0 && width != c->cross_dim[0])
        return wf_fail(err, WEFT_E_FORMAT, "%s: the text encoders give %d channels, the UNet takes %d", m->path,
                       width, c->cross_dim[0]);
    if (a != NULL && b != NULL && a->positions != b->positions)
        return wf_fail(err, WEFT_E_FORMAT, "%s: the text encoders take %d and %d tokens", m->path, a->positions,
                       b->positions);
    m->parts.penultimate = c->text_time;
    const wf_clip_config *pools = b != NULL ? b : a; /* the one that gives the pooled vector */
    int32_t refined = c->added_dim - REFINER_IDS * c->time_id_dim; /* the pooled width that a refiner would have */
    if (c->text_time && (pools != NULL ? pools->projection == refined : m->aesthetic))
        WF_TRY(wf_config_time_ids(&m->parts.unet_config, REFINER_IDS, m->path, err));
    if (pools != NULL && c->text_time && pools->projection != c->pooled_dim)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: the UNet takes %d added channels, which is not %d time ids of %d "
                       "and the pooled vector of %d", m->path, c->added_dim, c->time_ids, c->time_id_dim,
                       pools->projection);
    const wf_vae_config *v = m->parts.vae != NULL ? wf_vae_get_config(m->parts.vae) : NULL;
    if (v != NULL && v->latent_channels != c->out_channels)
        return wf_fail(err, WEFT_E_FORMAT, "%s: the VAE has %d latent channels, the UNet %d", m->path,
                       v->latent_channels, c->out_channels);
    m->family = c->text_time && c->time_ids == REFINER_IDS ? WEFT_FAMILY_SDXL_REFINER
                : c->text_time                             ? WEFT_FAMILY_SDXL
                : c->linear_projection                     ? WEFT_FAMILY_SD2
                                                           : WEFT_FAMILY_SD1;
    return WEFT_OK;
}

static weft_status open_tokenizer(weft_model *m, int32_t which, const char *given, weft_error *err)
{
    const char *folder = which == 0 ? "tokenizer" : "tokenizer_2";
    char path[1024];
    if (m->parts.text[which] == NULL) return WEFT_OK;
    if (given == NULL && !has(m, folder, "merges.txt") && !has(m, folder, "tokenizer.json")) return WEFT_OK;
    if (!wf_format(path, sizeof path, "%s%s%s", given != NULL ? given : m->path, given != NULL ? "" : "/",
                   given != NULL ? "" : folder))
        return wf_fail(err, WEFT_E_ARG, "the path of the tokenizer is too long: %.*s...", 100, m->path);
    WF_TRY(wf_tokenizer_open(path, &m->alloc, &m->parts.tokenizer[which], err));
    int32_t size = wf_tokenizer_size(m->parts.tokenizer[which]);
    int32_t vocab = wf_clip_get_config(m->parts.text[which])->vocab;
    if (size > vocab)
        return wf_fail(err, WEFT_E_MISMATCH, "%s: the tokenizer has ids up to %d, the text encoder only %d rows", path,
                       size - 1, vocab);
    return WEFT_OK;
}

static weft_status told(const weft_model_options *o, int64_t done, weft_error *err)
{
    if (o->progress != NULL && o->progress(o->progress_user, "opening model", done, WF_COMPONENTS) != 0)
        return wf_fail(err, WEFT_E_CANCELLED, "opening the model was cancelled");
    return WEFT_OK;
}

/* What the caller says that the model predicts stands in the scheduler's configuration, for everyone who asks. */
static weft_status settle_prediction(weft_model *m, const weft_model_options *o, weft_error *err)
{
    uint32_t said = o->flags & (WEFT_OPEN_EPSILON | WEFT_OPEN_V);
    if (said == 0) return WEFT_OK;
    if (m->scheduler == NULL) m->scheduler = json_object();
    json_t *word = json_string(said == WEFT_OPEN_V ? "v_prediction" : "epsilon");
    return json_object_set_new(m->scheduler, "prediction_type", word) == 0
               ? WEFT_OK : wf_nomem(err, sizeof *word, "the scheduler's configuration");
}

static weft_status open_folder(weft_model *m, const weft_model_options *o, weft_error *err)
{
    char weights[WF_COMPONENTS][1024];
    json_t *index = NULL;
    size_t tensors = 0;
    weft_status st = WEFT_OK;
    bool there[WF_COMPONENTS], projection = false;

    if (!wf_path_exists(m->path)) return wf_fail_sys(err, ENOENT, "%s", m->path);
    if (!wf_path_is_dir(m->path))
        return wf_fail(err, WEFT_E_UNSUPPORTED, "%s is a file: this version opens models as diffusers folders", m->path);
    bool indexed = has(m, "", "model_index.json");
    if (!indexed && !has(m, "unet", "config.json"))
        return wf_fail(err, WEFT_E_FORMAT, "%s: no model_index.json and no unet/config.json: not a model's folder",
                       m->path);
    if (indexed) {
        WF_TRY(load_json(m, &index, "", "model_index.json", err));
        st = check_index(m, index, err);
        const char *class1 = class_of(index, "text_encoder");
        projection = class1 != NULL && strcmp(class1, "CLIPTextModelWithProjection") == 0;
        m->aesthetic = json_is_true(json_object_get(index, "requires_aesthetics_score"));
        m->zero_negative = json_is_true(json_object_get(index, "force_zeros_for_empty_prompt"));
    }
    for (int32_t i = 0; i < WF_COMPONENTS; i++)
        there[i] = indexed ? class_of(index, components[i].folder) != NULL : has(m, components[i].folder, "config.json");
    json_decref(index);
    for (int32_t i = 0; i < WF_COMPONENTS && st == WEFT_OK; i++) {
        if (!there[i]) continue;
        st = find_weights(m, &components[i], o, weights[i], sizeof weights[i], err);
        if (st == WEFT_OK)
            st = wf_tensors_open(weights[i], (o->flags & WEFT_OPEN_COPY) != 0, &m->alloc, &m->files[i], err);
        if (st != WEFT_OK) break;
        tensors += wf_tensors_count(m->files[i]);
        m->bytes += (int64_t)wf_tensors_file_size(m->files[i]);
    }
    if (st != WEFT_OK) return st;
    m->layer_cap = tensors;
    m->kept_cap = 2 * tensors + 1; /* a widened vector or a name for each */
    m->layers = wf_zalloc(&m->alloc, m->layer_cap, sizeof *m->layers);
    m->kept = wf_zalloc(&m->alloc, m->kept_cap, sizeof *m->kept);
    if (m->layers == NULL || m->kept == NULL) return wf_nomem(err, m->layer_cap * sizeof *m->layers, "the layer table");
    for (int32_t i = 0; i < WF_COMPONENTS; i++) {
        WF_TRY(told(o, i, err));
        if (there[i]) WF_TRY(bind_component(m, i, weights[i], i == TEXT_2 || projection, err));
    }
    WF_TRY(check_fit(m, err));
    WF_TRY(open_tokenizer(m, 0, o->tokenizer, err));
    WF_TRY(open_tokenizer(m, 1, o->tokenizer_2, err));
    weft_error missing;
    if (m->parts.text[0] != NULL && wf_model_need_tokenizer(m, &missing) != WEFT_OK)
        wf_log(o->log, o->log_user, WEFT_LOG_WARN, "%s", missing.text);
    if (has(m, "scheduler", "scheduler_config.json"))
        WF_TRY(load_json(m, &m->scheduler, "scheduler", "scheduler_config.json", err));
    m->layout = "diffusers";
    WF_TRY(settle_prediction(m, o, err));
    return told(o, WF_COMPONENTS, err);
}

weft_status weft_model_open(const char *path, const weft_model_options *options, weft_model **out, weft_error *err)
{
    weft_model_options o;
    weft_status st;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "out is NULL");
    *out = NULL;
    if (path == NULL) return wf_fail(err, WEFT_E_ARG, "path is NULL");
    st = wf_options(&o, sizeof o, sizeof o, options, ALL_FLAGS, "weft_model_options", err);
    if (st == WEFT_OK) st = wf_check_allocator(o.allocator, err);
    if (st == WEFT_OK && (o.flags & WEFT_OPEN_EPSILON) != 0 && (o.flags & WEFT_OPEN_V) != 0)
        st = wf_fail(err, WEFT_E_ARG, "weft_model_options.flags has both WEFT_OPEN_EPSILON and WEFT_OPEN_V");
    if (st != WEFT_OK) return st;

    weft_allocator alloc = wf_allocator(o.allocator);
    weft_model *m = wf_zalloc(&alloc, 1, sizeof *m);
    if (m == NULL) return wf_nomem(err, sizeof *m, "a model");
    wf_ref_init(&m->refs);
    m->alloc = alloc;
    m->parts.kernels = wf_kernels_pick(wf_cpu_detect());
    m->path = wf_strdup(&alloc, path);
    st = m->path != NULL ? open_folder(m, &o, err) : wf_nomem(err, strlen(path), "a path");
    if (st == WEFT_OK) *out = m;
    else weft_model_free(m);
    return st;
}
