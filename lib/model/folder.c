/* folder.c - a diffusers folder: model_index.json names the components, each has a folder with
 * weights and a config.json.
 *
 * Weight files have many names. The first that exists is opened, in this order: the plain file,
 * then the variants fp16, bf16, fp32, non_ema, each in one file or in shards with an index;
 * safetensors before pickles. Without a model_index.json the subfolders decide which components
 * there are. */
#include "model/model_internal.h"

/* Names of weight files: transformers' for text encoders, diffusers' for the rest. */
typedef struct stem { const char *plain, *pickled; } stem;

static const stem *stem_of(int32_t component)
{
    static const stem text = { "model", "pytorch_model" };
    static const stem rest = { "diffusion_pytorch_model", "diffusion_pytorch_model" };
    return wf_is_text(component) ? &text : &rest;
}

/* dir/folder/file into buf; folder may be "". */
static weft_status path_to(char *buf, const char *dir, const char *folder, const char *file,
                           weft_error *err)
{
    if (!wf_format(buf, WF_PATH, "%s%s%s/%s", dir, *folder != 0 ? "/" : "", folder, file))
        return wf_fail(err, WEFT_E_ARG, "the path of the model is too long: %.*s...", 100, dir);
    return WEFT_OK;
}

static bool has(const char *dir, const char *folder, const char *file)
{
    char path[WF_PATH];
    return path_to(path, dir, folder, file, NULL) == WEFT_OK && wf_path_exists(path);
}

/* ---- weights --------------------------------------------------------------------------------- */

enum { ONE_FILE, INDEX, INDEX_VARIANT_LAST, FORMS };

/* The name of a weight file in one of its forms; true if there is such a file. */
static bool spelled(char *buf, const char *dir, const char *stem, const char *variant,
                    const char *ending, int form)
{
    bool fits = form == ONE_FILE ? wf_format(buf, WF_PATH, "%s/%s%s.%s", dir, stem, variant, ending)
                : form == INDEX
                    ? wf_format(buf, WF_PATH, "%s/%s%s.%s.index.json", dir, stem, variant, ending)
                    : wf_format(buf, WF_PATH, "%s/%s.%s.index%s.json", dir, stem, ending, variant);
    return fits && wf_path_exists(buf);
}

static bool ends_in(const char *path, const char *end)
{
    size_t n = strlen(path), e = strlen(end);
    return n >= e && strcmp(path + n - e, end) == 0;
}

/* The weights of a component: the variant that was asked for, else the first there is. */
static weft_status find_weights(const weft_model_options *o, const char *dir, const stem *c,
                                char *buf, bool *sharded, weft_error *err)
{
    static const char *const usual[] = { "", ".fp16", ".bf16", ".fp32", ".non_ema" };
    char asked[64] = "";
    size_t count = o->variant != NULL ? 1 : WF_LEN(usual);

    if (o->variant != NULL && !wf_format(asked, sizeof asked, ".%s", o->variant))
        return wf_fail(err, WEFT_E_ARG, "weft_model_options.variant is too long: %.*s...", 60,
                       o->variant);
    for (int pickle = 0; pickle < 2; pickle++)
        for (size_t i = 0; i < count; i++)
            for (int form = 0; form < FORMS; form++) {
                *sharded = form != ONE_FILE;
                if (!spelled(buf, dir, pickle ? c->pickled : c->plain,
                             o->variant != NULL ? asked : usual[i], pickle ? "bin" : "safetensors",
                             form))
                    continue;
                if (pickle || (i > 0 && o->variant == NULL))
                    wf_log(o->log, o->log_user, WEFT_LOG_INFO, "no %s.safetensors: opening %s",
                           c->plain, buf);
                return WEFT_OK;
            }
    if (o->variant == NULL)
        return wf_fail(err, WEFT_E_IO, "%s: no weights, wanted %s.safetensors%s", dir, c->plain,
                       c == stem_of(WEFT_COMPONENT_VAE) && ends_in(dir, "/vae")
                           ? "; another VAE is given with weft_model_options.vae" : "");
    return wf_fail(err, WEFT_E_IO, "%s: no %s.%s.safetensors for the variant that was asked for",
                   dir, c->plain, o->variant);
}

weft_status wf_gather_weights(weft_model *m, const weft_model_options *o, const char *dir,
                              int32_t component, wf_component *part, weft_error *err)
{
    bool sharded, copy = (o->flags & WEFT_OPEN_COPY) != 0;

    WF_TRY(find_weights(o, dir, stem_of(component), part->from, &sharded, err));
    WF_TRY(sharded ? wf_tensors_open_index(part->from, copy, &m->alloc, &part->tensors, err)
                   : wf_tensors_open(part->from, copy, &m->alloc, &part->tensors, err));
    m->bytes += (int64_t)wf_tensors_file_size(part->tensors);
    return WEFT_OK;
}

/* ---- model_index.json: which components, of which class -------------------------------------- */

static const char *class_of(const json_t *index, const char *component)
{
    const json_t *v = json_object_get(index, component);
    return json_string_value(json_array_get(v, 1));
}

static weft_status check_index(const char *dir, const json_t *index, weft_error *err)
{
    static const char *const pipelines[] = {
        "StableDiffusionPipeline",          "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",   "StableDiffusionInstructPix2PixPipeline",
        "StableDiffusionXLPipeline",        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLInpaintPipeline", "StableDiffusionXLInstructPix2PixPipeline",
        "LatentConsistencyModelPipeline",   "LatentConsistencyModelImg2ImgPipeline",
    };
    static const struct { const char *component, *class1, *class2; } wanted[] = {
        { "unet", "UNet2DConditionModel", NULL },
        { "vae", "AutoencoderKL", NULL },
        { "text_encoder", "CLIPTextModel", "CLIPTextModelWithProjection" },
        { "text_encoder_2", "CLIPTextModelWithProjection", NULL },
    };
    const char *name = json_string_value(json_object_get(index, "_class_name"));
    bool known = false;
    for (size_t i = 0; name != NULL && i < WF_LEN(pipelines); i++)
        known = known || strcmp(name, pipelines[i]) == 0;
    if (!known)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s/model_index.json: pipeline class \"%s\" is not supported, wanted "
                       "StableDiffusionPipeline or StableDiffusionXLPipeline",
                       dir, name != NULL ? name : "?");
    for (size_t i = 0; i < WF_LEN(wanted); i++) {
        const json_t *entry = json_object_get(index, wanted[i].component),
                     *named = json_array_get(entry, 1);
        const char *c = class_of(index, wanted[i].component);
        if (entry != NULL && !json_is_null(entry) && c == NULL && !json_is_null(named))
            return wf_fail(err, WEFT_E_FORMAT,
                           "%s/model_index.json: %s is not a pair of library and class", dir,
                           wanted[i].component);
        if (c == NULL) continue;
        if (strcmp(c, wanted[i].class1) != 0 &&
            (wanted[i].class2 == NULL || strcmp(c, wanted[i].class2) != 0))
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "%s/model_index.json: %s of class \"%s\" is not supported, "
                           "wanted %s",
                           dir, wanted[i].component, c, wanted[i].class1);
    }
    if (class_of(index, "unet") == NULL)
        return wf_fail(err, WEFT_E_FORMAT, "%s/model_index.json: no unet", dir);
    return WEFT_OK;
}

/* What a folder without a model may be. */
static const char *what_folder(const char *dir)
{
    if (has(dir, "", "adapter_config.json")) return ", but an adapter: open it as an adapter";
    if (has(dir, "", "config.json")) return ", but a part of one: open the folder that it lies in";
    return "";
}

/* *index is NULL if the folder has none. */
static weft_status load_index(const weft_model *m, const char *dir, json_t **index, weft_error *err)
{
    char path[WF_PATH];
    weft_status st;

    *index = NULL;
    if (!has(dir, "", "model_index.json")) {
        if (has(dir, "unet", "config.json")) return WEFT_OK;
        return wf_fail(err, WEFT_E_FORMAT,
                       "%s: no model_index.json and no unet/config.json: not a model's folder%s",
                       dir, what_folder(dir));
    }
    WF_TRY(path_to(path, dir, "", "model_index.json", err));
    WF_TRY(wf_json_load(index, path, &m->alloc, err));
    if ((st = check_index(dir, *index, err)) != WEFT_OK) {
        json_decref(*index);
        *index = NULL;
    }
    return st;
}

/* ---- what a folder says ---------------------------------------------------------------------- */

static weft_status describe_parts(const weft_model *m, const char *dir, const json_t *index,
                                  wf_gathered *s, weft_error *err)
{
    const char *text_class = class_of(index, "text_encoder");

    for (int32_t i = 0; i < WF_COMPONENTS; i++) {
        wf_component *p = &s->component[i];
        p->projection =
            i == WEFT_COMPONENT_TEXT_2 || (i == WEFT_COMPONENT_TEXT_1 && text_class != NULL &&
                                           strcmp(text_class, "CLIPTextModelWithProjection") == 0);
        if (!p->there) continue;
        WF_TRY(path_to(p->config_from, dir, weft_component_name(i), "config.json", err));
        WF_TRY(wf_json_load(&p->config, p->config_from, &m->alloc, err));
    }
    s->aesthetic = json_is_true(json_object_get(index, "requires_aesthetics_score"));
    s->zero_negative = json_is_true(json_object_get(index, "force_zeros_for_empty_prompt"));
    return WEFT_OK;
}

/* Another file in its place would be read as a scheduler of which every setting is absent. */
static weft_status check_scheduler(const char *path, const json_t *config, weft_error *err)
{
    const char *name = json_string_value(json_object_get(config, "_class_name"));

    if (name != NULL && strstr(name, "Scheduler") != NULL) return WEFT_OK;
    return wf_fail(err, WEFT_E_FORMAT,
                   "%s: not a scheduler's configuration: _class_name is %s, wanted such as "
                   "\"DDIMScheduler\"",
                   path, name != NULL ? name : "absent");
}

weft_status wf_gather_descriptions(const weft_model *m, const char *dir, wf_gathered *s,
                                   weft_error *err)
{
    static const char *const tokenizers[] = { "tokenizer", "tokenizer_2" };
    char path[WF_PATH];
    json_t *index;
    weft_status st;

    WF_TRY(load_index(m, dir, &index, err));
    st = describe_parts(m, dir, index, s, err);
    json_decref(index);
    WF_TRY(st);
    for (size_t i = 0; i < WF_LEN(tokenizers); i++) {
        if (!has(dir, tokenizers[i], "merges.txt") && !has(dir, tokenizers[i], "tokenizer.json"))
            continue;
        WF_TRY(path_to(s->vocabulary[i], dir, "", tokenizers[i], err));
    }
    if (!has(dir, "scheduler", "scheduler_config.json")) return WEFT_OK;
    WF_TRY(path_to(path, dir, "scheduler", "scheduler_config.json", err));
    WF_TRY(wf_json_load(&s->scheduler, path, &m->alloc, err));
    return check_scheduler(path, s->scheduler, err);
}

weft_status wf_gather_folder(weft_model *m, const weft_model_options *o, wf_gathered *s,
                             weft_error *err)
{
    char dir[WF_PATH];
    json_t *index;
    weft_status st = WEFT_OK;

    s->layout = "diffusers";
    WF_TRY(load_index(m, m->path, &index, err));
    for (int32_t i = 0; i < WF_COMPONENTS && st == WEFT_OK; i++) {
        const char *folder = weft_component_name(i);
        if (index != NULL ? class_of(index, folder) == NULL : !has(m->path, folder, "config.json"))
            continue;
        if (i == WEFT_COMPONENT_VAE &&
            o->vae != NULL) { /* another one is given: this one's description may serve it */
            s->component[i].there = has(m->path, folder, "config.json");
            continue;
        }
        st = path_to(dir, m->path, "", folder, err);
        if (st == WEFT_OK) st = wf_gather_weights(m, o, dir, i, &s->component[i], err);
        s->component[i].there = st == WEFT_OK;
    }
    json_decref(index);
    return st == WEFT_OK ? wf_gather_descriptions(m, m->path, s, err) : st;
}
