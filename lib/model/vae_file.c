/* vae_file.c - a VAE from elsewhere in the place of the model's own.
 *
 * People exchange VAEs as files, in LDM's names or in diffusers', and as folders. A file does not
 * say how latents are scaled. Then the model's own VAE decides, or the published one of the model's
 * base, because the denoiser was trained on latents of that scale. */
#include "model/model_internal.h"

static weft_status from_folder(weft_model *m, const weft_model_options *o, wf_component *part,
                               weft_error *err)
{
    weft_model_options plain = *o;
    char dir[WF_PATH], path[WF_PATH];

    plain.variant = NULL; /* that is the model's */
    if (!wf_format(dir, sizeof dir, "%s", o->vae) ||
        !wf_format(path, sizeof path, "%s/config.json", dir))
        return wf_fail(err, WEFT_E_ARG, "the path of the VAE is too long: %.*s...", 100, o->vae);
    if (!wf_path_exists(path) && (!wf_format(dir, sizeof dir, "%s/vae", o->vae) ||
                                  !wf_format(path, sizeof path, "%s/config.json", dir)))
        return wf_fail(err, WEFT_E_ARG, "the path of the VAE is too long: %.*s...", 100, o->vae);
    json_decref(part->config);
    part->config = NULL;
    wf_format(part->config_from, WF_PATH, "%s", path);
    WF_TRY(wf_json_load(&part->config, path, &m->alloc, err));
    return wf_gather_weights(m, &plain, dir, WEFT_COMPONENT_VAE, part, err);
}

/* What stands before "decoder.conv_in.weight", which both layouts have; false if no tensor is
 * called so. */
static bool find_prefix(const weft_tensors *file, char *prefix, size_t cap)
{
    static const char tail[] = "decoder.conv_in.weight";
    for (size_t i = 0; i < wf_tensors_count(file); i++) {
        const char *name = wf_tensors_at(file, i)->name;
        size_t n = strlen(name);
        if (n >= sizeof tail - 1 && strcmp(name + n - (sizeof tail - 1), tail) == 0)
            return wf_format(prefix, cap, "%.*s", (int)(n - (sizeof tail - 1)), name);
    }
    return false;
}

static bool has_diffusers_names(const weft_tensors *file)
{
    return wf_tensors_find(file, "decoder.mid_block.resnets.0.conv1.weight") != NULL;
}

static weft_status show(weft_model *m, weft_tensors *file, const char *path, wf_component *part,
                        weft_error *err)
{
    char prefix[64];

    if (!find_prefix(file, prefix, sizeof prefix))
        return wf_fail(err, WEFT_E_FORMAT, "%s: no tensor decoder.conv_in.weight: not a VAE", path);
    if (!has_diffusers_names(file)) return wf_gather_ldm_vae(m, file, prefix, part, err);
    wf_tensors_ref(part->tensors = file);
    return WEFT_OK;
}

static weft_status from_file(weft_model *m, const weft_model_options *o, wf_component *part,
                             weft_error *err)
{
    weft_tensors *file;

    wf_format(part->from, WF_PATH, "%s", o->vae);
    WF_TRY(wf_tensors_open(o->vae, (o->flags & WEFT_OPEN_COPY) != 0, &m->alloc, &file, err));
    m->bytes += (int64_t)wf_tensors_file_size(file);
    weft_status st = show(m, file, o->vae, part, err);
    weft_tensors_free(file); /* the component keeps it */
    return st;
}

/* Where nothing says how the VAE is made: as published for the model's base. */
static weft_status presume(wf_gathered *s, wf_component *part, weft_error *err)
{
    const json_t *unet = s->component[WEFT_COMPONENT_DENOISER].config;
    bool xl = json_is_string(json_object_get(unet, "addition_embed_type"));
    const wf_published *p = wf_published_model(xl ? WEFT_BASE_SDXL : WEFT_BASE_SD1);

    wf_format(part->config_from, WF_PATH, "%s", p->name);
    return wf_published_config(&part->config, p, WEFT_COMPONENT_VAE, err);
}

weft_status wf_gather_vae(weft_model *m, const weft_model_options *o, wf_gathered *s,
                          weft_error *err)
{
    wf_component *part = &s->component[WEFT_COMPONENT_VAE];

    weft_tensors_free(part->tensors);
    part->tensors = NULL;
    part->there = m->vae_given = true;
    if (wf_path_is_dir(o->vae)) return from_folder(m, o, part, err);
    if (part->config == NULL) WF_TRY(presume(s, part, err));
    return from_file(m, o, part, err);
}
