/* open.c - a path becomes a model.
 *
 * First everything is gathered (folder.c, single_file.c, vae_file.c): for each component its
 * tensors under diffusers' names, and its configuration. Then the networks are built one after the
 * other, which checks every tensor, and then it is checked that they fit each other. Weights stay
 * mapped. A model without a tokenizer opens: it can be inspected, and stepped with text from
 * elsewhere; the first prompt fails with an error that says what to give. */
#include "base/structs.h"
#include "model/model_internal.h"
#include "model/tokenizer.h"
#include "nets/config.h"
#include "nets/keys.h"

#define ALL_FLAGS (WEFT_OPEN_COPY | WEFT_OPEN_EPSILON | WEFT_OPEN_V | WEFT_OPEN_EMULATE)

/* transformers 5 writes text encoders without the "text_model." of their module path, and so do
 * some merging tools. */
bool wf_text_old_name(const char *name, char *buf, size_t cap)
{
    static const char prefix[] = "text_model.";
    if (strncmp(name, prefix, sizeof prefix - 1) != 0) return false;
    return wf_format(buf, cap, "%s", name + sizeof prefix - 1);
}

/* ---- components ---- */

static weft_status build_encoder(weft_model *m, int32_t id, const wf_component *part, wf_binder *b,
                                 weft_error *err)
{
    wf_text_encoder *t = &m->networks.encoder[m->networks.encoders];
    wf_clip_config c;
    WF_TRY(wf_config_clip(&c, part->config, part->projection, part->config_from, err));
    b->old_name = wf_text_old_name;
    WF_TRY(wf_clip_build(&c, b, &t->net, err));
    t->component = id;
    m->networks.encoders++;
    return WEFT_OK;
}

static weft_status build_component(weft_model *m, int32_t id, const wf_component *part,
                                   const wf_denoiser_hints *hints, wf_binder *b, weft_error *err)
{
    wf_vae_config vae;
    switch (id) {
    case WEFT_COMPONENT_DENOISER:
        return wf_denoiser_build(part->config, part->config_from, hints, b, &m->networks.denoiser,
                                 err);
    case WEFT_COMPONENT_VAE:
        WF_TRY(wf_config_vae(&vae, part->config, part->config_from, err));
        b->old_name = wf_vae_old_name;
        return wf_vae_build(&vae, b, &m->networks.vae, err);
    default:
        return build_encoder(m, id, part, b, err);
    }
}

static weft_status bind_component(weft_model *m, int32_t id, const wf_component *part,
                                  const wf_denoiser_hints *hints, weft_error *err)
{
    weft_tensors *file = m->files[id];
    wf_binder b = { .alloc = &m->alloc, .file = file, .path = part->from,
                    .component = weft_component_name(id), .component_id = id,
                    .layers = m->layers, .layer_count = &m->layer_count,
                    .layer_cap = m->layer_cap, .derived = &m->derived, .names = &m->names };
    size_t count = wf_tensors_count(file);
    weft_status st;

    b.used = wf_zalloc(&m->alloc, count, 1);
    st = b.used != NULL ? build_component(m, id, part, hints, &b, err)
        : wf_nomem(err, count, part->from);
    st = wf_say_variant(st, file, part->from, err);
    m->parameters += b.parameters;
    wf_free(&m->alloc, b.used);
    return st;
}

/* The settings of a component that no reader knows. */
static void warn_of_keys(const weft_model *m, int32_t id, const wf_component *part,
                         const weft_model_options *o)
{
    const wf_key *keys = id == WEFT_COMPONENT_DENOISER ? m->networks.denoiser->ops->keys
                         : id == WEFT_COMPONENT_VAE    ? wf_vae_keys
                                                       : wf_clip_keys;

    wf_keys_warn(keys, part->config, part->config_from, o->log, o->log_user);
}

/* What the denoiser is to know of the rest: the last text encoder gives the pooled vector. */
static weft_status read_hints(const wf_gathered *s, wf_denoiser_hints *h, weft_error *err)
{
    *h = (wf_denoiser_hints){ .pooled = -1, .aesthetic = s->aesthetic };
    for (int32_t i = 0; i < WF_COMPONENTS; i++) {
        const wf_component *part = &s->component[i];
        wf_clip_config c;
        if (!part->there || !wf_is_text(i)) continue;
        WF_TRY(wf_config_clip(&c, part->config, part->projection, part->config_from, err));
        h->pooled = c.projection;
    }
    return WEFT_OK;
}

/* The networks must fit each other: the widths of text, the channels of latents. */
static weft_status check_fit(weft_model *m, weft_error *err)
{
    const wf_denoiser_facts *f = wf_facts(&m->networks);
    const wf_vae_config *v = m->networks.vae != NULL ? wf_vae_get_config(m->networks.vae) : NULL;

    WF_TRY(wf_make_streams(&m->networks, m->path, err));
    if (v != NULL && v->latent_channels != f->out_channels)
        return wf_fail(err, WEFT_E_FORMAT, "%s: the VAE has %d latent channels, the denoiser %d",
                       m->path, v->latent_channels, f->out_channels);
    return WEFT_OK;
}

/* A pooled vector is taken at the end token, so the encoder and its vocabulary must mean the same
 * one. Old configurations say 2 and mean the vocabulary's. */
static weft_status check_ends(const weft_model *m, const wf_gathered *s, weft_error *err)
{
    for (int32_t i = 0; i < m->networks.encoders; i++) {
        const wf_text_encoder *t = &m->networks.encoder[i];
        const wf_clip_config *c = wf_clip_get_config(t->net);
        if (t->tokenizer == NULL || c->projection == 0 || c->eos == 2) continue;
        if (c->eos != wf_tokenizer_eos(t->tokenizer))
            return wf_fail(err, WEFT_E_FORMAT,
                           "%s: eos_token_id is %d, but the vocabulary ends prompts with %d",
                           s->component[t->component].config_from, c->eos,
                           wf_tokenizer_eos(t->tokenizer));
    }
    return WEFT_OK;
}

static weft_status report(const weft_model_options *o, int64_t done, weft_error *err)
{
    if (o->progress != NULL && o->progress(o->progress_user, "opening model", done,
                                           WF_COMPONENTS) != 0)
        return wf_fail(err, WEFT_E_CANCELLED, "opening the model was cancelled");
    return WEFT_OK;
}

/* The tables' size is known once all tensors are. */
static weft_status make_tables(weft_model *m, weft_error *err)
{
    size_t tensors = 0;
    for (int32_t i = 0; i < WF_COMPONENTS; i++)
        tensors += m->files[i] != NULL ? wf_tensors_count(m->files[i]) : 0;
    m->layer_cap = tensors;
    m->layers = wf_zalloc(&m->alloc, m->layer_cap, sizeof *m->layers);
    if (m->layers == NULL)
        return wf_nomem(err, m->layer_cap * sizeof *m->layers, "the layer table");
    return WEFT_OK;
}

/* Only whoever makes a sampler needs them: what is no list of numbers is refused there. */
static weft_status take_trained_betas(weft_model *m, weft_error *err)
{
    const json_t *list = json_object_get(m->scheduler, "trained_betas"), *v;
    size_t        count = json_array_size(list), i;

    json_array_foreach(list, i, v)
        if (!json_is_number(v)) return WEFT_OK;
    if (count == 0) return WEFT_OK;
    m->trained_betas = wf_zalloc(&m->alloc, count, sizeof(float));
    if (m->trained_betas == NULL) return wf_nomem(err, count * sizeof(float), "trained betas");
    json_array_foreach(list, i, v) m->trained_betas[i] = (float)json_number_value(v);
    m->trained_beta_count = count;
    return WEFT_OK;
}

static weft_status build_model(weft_model *m, const weft_model_options *o, wf_gathered *s,
                               weft_error *err)
{
    wf_denoiser_hints hints;

    for (int32_t i = 0; i < WF_COMPONENTS; i++) { /* the model's from here on, as is the
                                                     scheduler */
        m->files[i] = s->component[i].tensors;
        s->component[i].tensors = NULL;
    }
    m->scheduler = s->scheduler;
    s->scheduler = NULL;
    m->layout = s->layout;
    m->zero_negative = s->zero_negative;
    WF_TRY(make_tables(m, err));
    WF_TRY(read_hints(s, &hints, err));
    for (int32_t i = 0; i < WF_COMPONENTS; i++) {
        WF_TRY(report(o, i, err));
        if (!s->component[i].there) continue;
        WF_TRY(bind_component(m, i, &s->component[i], &hints, err));
        warn_of_keys(m, i, &s->component[i], o);
    }
    WF_TRY(check_fit(m, err));
    WF_TRY(wf_open_tokenizers(m, o, s, err));
    WF_TRY(check_ends(m, s, err));
    weft_error missing;
    if (m->networks.encoders > 0 && wf_model_need_tokenizer(m, &missing) != WEFT_OK)
        wf_log(o->log, o->log_user, WEFT_LOG_WARN, "%s", missing.text);
    WF_TRY(wf_settle_prediction(m, o, err));
    WF_TRY(take_trained_betas(m, err));
    return report(o, WF_COMPONENTS, err);
}

static weft_status open_model(weft_model *m, const weft_model_options *o, weft_error *err)
{
    weft_status st;
    wf_gathered *s = wf_zalloc(&m->alloc, 1, sizeof *s);

    if (s == NULL) return wf_nomem(err, sizeof *s, "opening a model");
    if (!wf_path_exists(m->path)) st = wf_fail_sys(err, ENOENT, "%s", m->path);
    else st = wf_path_is_dir(m->path) ? wf_gather_folder(m, o, s, err)
        : wf_gather_file(m, o, s, err);
    if (st == WEFT_OK && o->vae != NULL) st = wf_gather_vae(m, o, s, err);
    if (st == WEFT_OK) st = build_model(m, o, s, err);
    for (int32_t i = 0; i < WF_COMPONENTS; i++) {
        weft_tensors_free(s->component[i].tensors);
        json_decref(s->component[i].config);
    }
    json_decref(s->scheduler);
    wf_free(&m->alloc, s);
    return st;
}

weft_status weft_model_open(const char *path, const weft_model_options *options, weft_model **out,
                            weft_error *err)
{
    weft_model_options o;
    weft_status st;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "out is NULL");
    *out = NULL;
    if (path == NULL) return wf_fail(err, WEFT_E_ARG, "path is NULL");
    st = WF_OPTIONS(&o, options, weft_model_options, ALL_FLAGS, err);
    if (st == WEFT_OK) st = wf_check_allocator(o.allocator, err);
    if (st == WEFT_OK && (o.flags & WEFT_OPEN_EPSILON) != 0 && (o.flags & WEFT_OPEN_V) != 0)
        st = wf_fail(err, WEFT_E_ARG,
                     "weft_model_options.flags has both WEFT_OPEN_EPSILON and WEFT_OPEN_V");
    if (st != WEFT_OK) return st;

    weft_allocator alloc = wf_allocator(o.allocator);
    weft_model *m = wf_zalloc(&alloc, 1, sizeof *m);
    if (m == NULL) return wf_nomem(err, sizeof *m, "a model");
    wf_ref_init(&m->refs);
    m->alloc = alloc;
    m->derived.alloc = &m->alloc;
    wf_bag_init(&m->names, &m->alloc);
    m->networks.kernels = wf_kernels_pick(wf_cpu_detect());
    m->path = wf_strdup(&alloc, path);
    st = m->path != NULL ? WEFT_OK : wf_nomem(err, strlen(path), "a path");
    if (st == WEFT_OK)
        st = wf_model_set_arithmetic(m, o.arithmetic, (o.flags & WEFT_OPEN_EMULATE) != 0,
                                     wf_cpu_detect(), err);
    if (st == WEFT_OK) st = open_model(m, &o, err);
    if (st == WEFT_OK) *out = m;
    else weft_model_free(m);
    return st;
}
