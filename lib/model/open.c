/* open.c - a path becomes a model.
 *
 * What there is is gathered first (folder.c, single_file.c, vae_file.c): for each component its tensors under
 * diffusers' names and its configuration. Then the networks are built one after the other, which checks every
 * tensor, and held against each other. Weights stay mapped where they are. A model without a tokenizer opens: it can
 * be inspected and stepped with conditioning from elsewhere, and the first prompt gets the error that says what to
 * give. */
#include "base/structs.h"
#include "model/open.h"
#include "model/tokenizer.h"

enum { REFINER_IDS = 5 }; /* time ids of SDXL's refiner: original size, crop, aesthetic score */
#define ALL_FLAGS (WEFT_OPEN_COPY | WEFT_OPEN_EPSILON | WEFT_OPEN_V)

/* transformers 5 writes text encoders without the "text_model." of their module path, and so do some merging tools. */
bool wf_text_old_name(const char *name, char *buf, size_t cap)
{
    static const char prefix[] = "text_model.";
    if (strncmp(name, prefix, sizeof prefix - 1) != 0) return false;
    return wf_format(buf, cap, "%s", name + sizeof prefix - 1);
}

/* ---- components ---- */

static weft_status build_component(weft_model *m, int32_t id, const json_t *config, const char *path, bool projection,
                                   wf_binder *b, weft_error *err)
{
    wf_clip_config clip;
    wf_vae_config vae;
    switch (id) {
    case WF_UNET:
        WF_TRY(wf_config_unet(&m->parts.unet_config, config, path, err));
        return wf_unet_build(&m->parts.unet_config, b, &m->parts.unet, err);
    case WF_VAE:
        WF_TRY(wf_config_vae(&vae, config, path, err));
        b->old_name = wf_vae_old_name;
        return wf_vae_build(&vae, b, &m->parts.vae, err);
    default:
        WF_TRY(wf_config_clip(&clip, config, projection, path, err));
        b->old_name = wf_text_old_name;
        return wf_clip_build(&clip, b, &m->parts.text[id - WF_TEXT], err);
    }
}

static weft_status bind_component(weft_model *m, int32_t id, const wf_component *part, weft_error *err)
{
    weft_tensors *file = m->files[id];
    wf_binder b = { .alloc = &m->alloc, .file = file, .path = part->from, .component = wf_component_name(id),
                    .component_id = id, .layers = m->layers, .layer_count = &m->layer_count, .layer_cap = m->layer_cap,
                    .derived = &m->derived, .names = &m->names };
    size_t count = wf_tensors_count(file);
    weft_status st;

    b.used = wf_zalloc(&m->alloc, count, 1);
    st = b.used != NULL ? build_component(m, id, part->config, part->config_from, part->projection, &b, err)
                        : wf_nomem(err, count, part->from);
    m->parameters += b.parameters;
    wf_free(&m->alloc, b.used);
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
    m->base = c->text_time && c->time_ids == REFINER_IDS ? WEFT_BASE_SDXL_REFINER
                : c->text_time                             ? WEFT_BASE_SDXL
                : c->linear_projection                     ? WEFT_BASE_SD2
                                                           : WEFT_BASE_SD1;
    return WEFT_OK;
}

static weft_status told(const weft_model_options *o, int64_t done, weft_error *err)
{
    if (o->progress != NULL && o->progress(o->progress_user, "opening model", done, WF_COMPONENTS) != 0)
        return wf_fail(err, WEFT_E_CANCELLED, "opening the model was cancelled");
    return WEFT_OK;
}

/* The tables' size is known once all tensors are. */
static weft_status make_tables(weft_model *m, weft_error *err)
{
    size_t tensors = 0;
    for (int32_t i = 0; i < WF_COMPONENTS; i++) tensors += m->files[i] != NULL ? wf_tensors_count(m->files[i]) : 0;
    m->layer_cap = tensors;
    m->layers = wf_zalloc(&m->alloc, m->layer_cap, sizeof *m->layers);
    if (m->layers == NULL) return wf_nomem(err, m->layer_cap * sizeof *m->layers, "the layer table");
    return WEFT_OK;
}

static weft_status build_model(weft_model *m, const weft_model_options *o, wf_gathered *s, weft_error *err)
{
    for (int32_t i = 0; i < WF_COMPONENTS; i++) { /* the model's from here on, as is the scheduler */
        m->files[i] = s->parts[i].tensors;
        s->parts[i].tensors = NULL;
    }
    m->scheduler = s->scheduler;
    s->scheduler = NULL;
    m->layout = s->layout;
    m->aesthetic = s->aesthetic;
    m->zero_negative = s->zero_negative;
    WF_TRY(make_tables(m, err));
    for (int32_t i = 0; i < WF_COMPONENTS; i++) {
        WF_TRY(told(o, i, err));
        if (s->parts[i].there) WF_TRY(bind_component(m, i, &s->parts[i], err));
    }
    WF_TRY(check_fit(m, err));
    WF_TRY(wf_open_tokenizers(m, o, s, err));
    weft_error missing;
    if ((m->parts.text[0] != NULL || m->parts.text[1] != NULL) && wf_model_need_tokenizer(m, &missing) != WEFT_OK)
        wf_log(o->log, o->log_user, WEFT_LOG_WARN, "%s", missing.text);
    WF_TRY(wf_settle_prediction(m, o, err));
    return told(o, WF_COMPONENTS, err);
}

static weft_status open_model(weft_model *m, const weft_model_options *o, weft_error *err)
{
    weft_status st;
    wf_gathered *s = wf_zalloc(&m->alloc, 1, sizeof *s);

    if (s == NULL) return wf_nomem(err, sizeof *s, "opening a model");
    if (!wf_path_exists(m->path)) st = wf_fail_sys(err, ENOENT, "%s", m->path);
    else st = wf_path_is_dir(m->path) ? wf_gather_folder(m, o, s, err) : wf_gather_file(m, o, s, err);
    if (st == WEFT_OK && o->vae != NULL) st = wf_gather_vae(m, o, s, err);
    if (st == WEFT_OK) st = build_model(m, o, s, err);
    for (int32_t i = 0; i < WF_COMPONENTS; i++) {
        weft_tensors_free(s->parts[i].tensors);
        json_decref(s->parts[i].config);
    }
    json_decref(s->scheduler);
    wf_free(&m->alloc, s);
    return st;
}

weft_status weft_model_open(const char *path, const weft_model_options *options, weft_model **out, weft_error *err)
{
    weft_model_options o;
    weft_status st;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "out is NULL");
    *out = NULL;
    if (path == NULL) return wf_fail(err, WEFT_E_ARG, "path is NULL");
    st = WF_OPTIONS(&o, options, weft_model_options, ALL_FLAGS, err);
    if (st == WEFT_OK) st = wf_check_allocator(o.allocator, err);
    if (st == WEFT_OK && (o.flags & WEFT_OPEN_EPSILON) != 0 && (o.flags & WEFT_OPEN_V) != 0)
        st = wf_fail(err, WEFT_E_ARG, "weft_model_options.flags has both WEFT_OPEN_EPSILON and WEFT_OPEN_V");
    if (st != WEFT_OK) return st;

    weft_allocator alloc = wf_allocator(o.allocator);
    weft_model *m = wf_zalloc(&alloc, 1, sizeof *m);
    if (m == NULL) return wf_nomem(err, sizeof *m, "a model");
    wf_ref_init(&m->refs);
    m->alloc = alloc;
    m->derived.alloc = &m->alloc;
    wf_bag_init(&m->names, &m->alloc);
    m->parts.kernels = wf_kernels_pick(wf_cpu_detect());
    m->parts.products = wf_products_pick(wf_cpu_detect());
    m->path = wf_strdup(&alloc, path);
    st = m->path != NULL ? open_model(m, &o, err) : wf_nomem(err, strlen(path), "a path");
    if (st == WEFT_OK) *out = m;
    else weft_model_free(m);
    return st;
}
