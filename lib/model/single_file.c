/* single_file.c - a file in LDM's or SGM's layout: all components in one, under prefixes.
 *
 * A first walk over the names finds out what the file is, by the prefixes that occur and the shapes
 * of three tensors that no two published models share. A second walk gives each component's tensors
 * their diffusers' names. Only text_projection is copied, because it is stored transposed: q, k and
 * v of a fused matrix are three views of its rows, and 1x1 convolutions serve as linear layers as
 * they are.
 *
 * What is not part of a model (noise schedules, the shadow weights of EMA, losses) is skipped by
 * name. Any other tensor is refused by name: it may belong to something that would not be computed.
 */
#include "model/model_internal.h"

enum { NAME = 256 };

/* How a component's names are made. */
enum { LDM_UNET, LDM_VAE, HF_CLIP, OPENCLIP };

static const struct prefix {
    const char *text;
    int32_t     component;
    int32_t     names;
} prefixes[] = {
    { "model.diffusion_model.", WEFT_COMPONENT_DENOISER, LDM_UNET },
    { "diffusion_model.", WEFT_COMPONENT_DENOISER, LDM_UNET },
    { "first_stage_model.", WEFT_COMPONENT_VAE, LDM_VAE },
    { "cond_stage_model.transformer.", WEFT_COMPONENT_TEXT_1, HF_CLIP },
    { "cond_stage_model.model.", WEFT_COMPONENT_TEXT_1, OPENCLIP },
    { "conditioner.embedders.0.transformer.", WEFT_COMPONENT_TEXT_1, HF_CLIP },
    { "conditioner.embedders.0.model.", WEFT_COMPONENT_TEXT_2, OPENCLIP }, /* the refiner's only one */
    { "conditioner.embedders.1.model.", WEFT_COMPONENT_TEXT_2, OPENCLIP },
};
/* A file that holds only a UNet, without any prefix. */
static const struct prefix bare_unet = { "", WEFT_COMPONENT_DENOISER, LDM_UNET };

typedef struct look {
    const weft_tensors *file;
    const char         *nest;  /* "state_dict." where the tensors lie inside that */
    bool                bare;  /* a UNet without a prefix                         */
    bool                there[WF_COMPONENTS];
    int32_t             names[WF_COMPONENTS];
    const wf_tensor    *conv_in, *label, *context; /* of the UNet; NULL where absent */
    const wf_tensor    *tokens[WF_COMPONENTS];     /* token embeddings of the text encoders */
    bool                v_pred, ztsnr;
    const char         *other;  /* a model that this version does not run */
} look;

static bool begins(const char *s, const char *word) { return strncmp(s, word, strlen(word)) == 0; }

static bool ends(const char *s, const char *word)
{
    size_t n = strlen(s), w = strlen(word);
    return n >= w && strcmp(s + n - w, word) == 0;
}

/* The name without what it is nested in; NULL for what lies beside that. */
static const char *inner_name(const look *l, const char *name)
{
    return begins(name, l->nest) ? name + strlen(l->nest) : NULL;
}

/* The component that a name belongs to, and in *rest the name without its prefix. */
static const struct prefix *prefix_of(const look *l, const char *name, const char **rest)
{
    for (size_t i = 0; i < WF_LEN(prefixes); i++)
        if (begins(name, prefixes[i].text)) {
            *rest = name + strlen(prefixes[i].text);
            return &prefixes[i];
        }
    *rest = name;
    return l->bare ? &bare_unet : NULL;
}

static void look_at_unet(look *l, const char *name, const wf_tensor *t)
{
    if (strcmp(name, "input_blocks.0.0.weight") == 0) l->conv_in = t;
    if (strcmp(name, "label_emb.0.0.weight") == 0) l->label = t;
    if (strcmp(name, "input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight") == 0)
        l->context = t;
    if (strstr(name, "double_blocks.") != NULL) l->other = "FLUX";
    if (strstr(name, "joint_blocks.") != NULL) l->other = "SD3";
}

static void look_at(look *l, const char *name, const wf_tensor *t)
{
    const char *rest;
    const struct prefix *p = prefix_of(l, name, &rest);

    l->v_pred = l->v_pred || strcmp(name, "v_pred") == 0;
    l->ztsnr = l->ztsnr || strcmp(name, "ztsnr") == 0;
    if (begins(name, "double_blocks.")) l->other = "FLUX";
    if (p == NULL) return;
    l->there[p->component] = true;
    l->names[p->component] = p->names;
    if (p->component == WEFT_COMPONENT_DENOISER) look_at_unet(l, rest, t);
    if (ends(rest, "token_embedding.weight")) l->tokens[p->component] = t;
}

static look look_over(const weft_tensors *file)
{
    look l = { .file = file, .nest = "" };

    for (size_t i = 0; i < wf_tensors_count(file); i++)
        if (begins(wf_tensors_at(file, i)->name, "state_dict.")) l.nest = "state_dict.";
    for (size_t i = 0; i < wf_tensors_count(file); i++) {
        const char *name = inner_name(&l, wf_tensors_at(file, i)->name);
        l.bare = l.bare || (name != NULL && strcmp(name, "input_blocks.0.0.weight") == 0);
    }
    for (size_t i = 0; i < wf_tensors_count(file); i++) {
        const wf_tensor *t = wf_tensors_at(file, i);
        const char *name = inner_name(&l, t->name);
        if (name != NULL) look_at(&l, name, t);
    }
    return l;
}

/* ---- which of the published models ----------------------------------------------------------- */

static int64_t last_dim(const wf_tensor *t) { return t != NULL && t->rank == 2 ? t->shape[1] : 0; }

static int32_t base_of(const look *l)
{
    int64_t added = last_dim(l->label), context = last_dim(l->context);
    if (added == 2816) return WEFT_BASE_SDXL;
    if (added == 2560) return WEFT_BASE_SDXL_REFINER;
    if (added != 0) return WEFT_BASE_UNKNOWN;
    return context == 1024 ? WEFT_BASE_SD2 : context == 768 ? WEFT_BASE_SD1 : WEFT_BASE_UNKNOWN;
}

static weft_status set_int(json_t *config, const char *key, int64_t value, weft_error *err)
{
    return json_object_set_new(config, key, json_integer(value)) == 0
               ? WEFT_OK
               : wf_nomem(err, sizeof value, key);
}

/* The published configurations, with what files of the same base differ in taken from the shapes.
 */
static weft_status describe_published(const look *l, const char *path, wf_gathered *s,
                                      weft_error *err)
{
    const wf_published *p = wf_published_model(base_of(l));
    if (p == NULL)
        return wf_fail(
            err, WEFT_E_UNSUPPORTED,
            "%s: its shapes are those of no published model: give "
            "weft_model_options.config, a diffusers folder whose config.json files describe it",
            path);
    for (int32_t i = 0; i < WF_COMPONENTS; i++) {
        wf_component *part = &s->component[i];
        part->projection = i == WEFT_COMPONENT_TEXT_2;
        if (!l->there[i]) continue;
        WF_TRY(wf_published_config(&part->config, p, i, err));
        wf_format(part->config_from, WF_PATH, "%s", p->name);
        if (i == WEFT_COMPONENT_DENOISER && l->conv_in != NULL &&
            l->conv_in->rank == 4) /* 9 to inpaint, 8 to edit */
            WF_TRY(set_int(part->config, "in_channels", l->conv_in->shape[1], err));
        if (l->tokens[i] != NULL && l->tokens[i]->rank == 2) /* more where words were learnt */
            WF_TRY(set_int(part->config, "vocab_size", l->tokens[i]->shape[0], err));
    }
    s->aesthetic = p->aesthetic;
    s->zero_negative = p->zero_negative;
    return wf_json_parse(&s->scheduler, p->scheduler, strlen(p->scheduler), p->name, err);
}

/* ---- each component under diffusers' names --------------------------------------------------- */

/* What is in such files beside the model. */
static bool is_aside(const char *name)
{
    static const char *const heads[] = {
        "model_ema.",
        "betas",
        "alphas_cumprod",
        "sqrt_",
        "posterior_",
        "log_one_minus_",
        "logvar",
        "lvlb_weights",
        "denoiser.sigmas",
        "embedding_manager.",
        "v_pred",
        "ztsnr",
        "scale_factor",
        "global_step",
        /* What ComfyUI's CLIP-L has beside the transformer, in the files it wrote until 2024;
           nothing reads them. */
        "cond_stage_model.logit_scale",
        "cond_stage_model.text_projection",
        "conditioner.embedders.0.logit_scale",
        "conditioner.embedders.0.text_projection",
        "conditioner.embedders.1.logit_scale",
    };
    for (size_t i = 0; i < WF_LEN(heads); i++)
        if (begins(name, heads[i])) return true;
    return false;
}

static bool is_aside_in_part(const char *rest, int32_t names)
{
    if (names == LDM_VAE) return begins(rest, "loss.") || begins(rest, "model_ema.");
    return names != LDM_UNET && (ends(rest, "position_ids") || strcmp(rest, "logit_scale") == 0);
}

/* Numbers of the configuration that the names depend on. */
typedef struct shape { int32_t unet_layers, vae_levels, text_layers; } shape;

static int32_t int_of(const json_t *config, const char *key, int32_t preset)
{
    const json_t *v = json_object_get(config, key);
    json_int_t n =
        json_is_array(v) ? json_integer_value(json_array_get(v, 0)) : json_integer_value(v);
    return v == NULL || n < 1 || n > 4096
               ? preset
               : (int32_t)n; /* anything else, the configuration's reader refuses */
}

static shape shape_of(const wf_gathered *s, int32_t component)
{
    const json_t *c = s->component[component].config;
    return (shape){ int_of(c, "layers_per_block", 2),
                    (int32_t)WF_MIN(json_array_size(json_object_get(c, "block_out_channels")),
                                    (size_t)64),
                    int_of(c, "num_hidden_layers", 12) };
}

static weft_status too_odd(const weft_tensors *view, const wf_tensor *t, const char *wanted,
                           weft_error *err)
{
    wf_shape_text text;
    return wf_fail(err, WEFT_E_FORMAT, "%s: tensor %s is %s, wanted %s", wf_tensors_what(view),
                   t->name, wf_shape(&text, t->shape, t->rank), wanted);
}

/* q, k and v: thirds of a matrix or a bias, by rows. */
static weft_status add_thirds(weft_tensors *view, char *name, const wf_tensor *t, weft_error *err)
{
    char *which = strchr(name, '*');
    int64_t dims[WF_MAX_RANK];

    if (t->rank < 1 || t->shape[0] % 3 != 0)
        return too_odd(view, t, "three times as many rows as columns", err);
    memcpy(dims, t->shape, sizeof dims);
    dims[0] /= 3;
    for (size_t i = 0; i < 3; i++) {
        *which = "qkv"[i];
        WF_TRY(
            wf_tensors_add(view, name, t->dtype, t->rank, dims, t->data + i * (t->bytes / 3), err));
    }
    return WEFT_OK;
}

/* A copy with rows for columns. */
static weft_status add_transposed(weft_model *m, weft_tensors *view, const char *name,
                                  const wf_tensor *t, weft_error *err)
{
    size_t size = (size_t)wf_dtype_bits(t->dtype) / 8;
    if (t->rank != 2 || size == 0) return too_odd(view, t, "a matrix", err);
    size_t rows = (size_t)t->shape[0], columns = (size_t)t->shape[1];
    uint8_t *to = wf_tensors_own(view, t->bytes, err);
    if (to == NULL) return WEFT_E_NOMEM;
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < columns; c++)
            memcpy(to + (c * rows + r) * size, t->data + (r * columns + c) * size, size);
    for (size_t i = 0; i < WF_LEN(m->turned); i++)
        if (m->turned[i].copy == NULL) {
            m->turned[i] = (wf_turned){ to, t };
            break;
        }
    return wf_tensors_add(view, name, t->dtype, 2, (int64_t[]){ t->shape[1], t->shape[0] }, to,
                          err);
}

/* One tensor of a component: *known is false if it has no place there. */
static weft_status add_tensor(weft_model *m, wf_component *part, const shape *of, int32_t names,
                              const char *rest, const wf_tensor *t, bool *known, weft_error *err)
{
    char name[NAME];
    wf_ldm_op op = WF_LDM_COPY;

    *known = true;
    if (begins(rest, "text_projection") && names != LDM_UNET && !part->projection)
        return WEFT_OK; /* CLIP's, not used */
    switch (names) {
    case LDM_UNET: *known = wf_ldm_unet(rest, of->unet_layers, name, sizeof name); break;
    case LDM_VAE:  *known = wf_ldm_vae(rest, of->vae_levels, name, sizeof name); break;
    case HF_CLIP:  *known = wf_format(name, sizeof name, "%s", rest); break;
    default:
        if (wf_ldm_openclip_layer(rest) == of->text_layers)
            return WEFT_OK; /* SD2's last, which is not used */
        *known = wf_ldm_openclip(rest, name, sizeof name, &op);
    }
    if (!*known) return WEFT_OK;
    if (op == WF_LDM_ROWS_OF_3) return add_thirds(part->tensors, name, t, err);
    if (op == WF_LDM_TRANSPOSE) return add_transposed(m, part->tensors, name, t, err);
    return wf_tensors_add_as(part->tensors, name, t, err);
}

const char *wf_single_name(const weft_model *m, const char *name)
{
    const look l = { .nest = m->nest };
    const char *inner = inner_name(&l, name);
    return inner == NULL || begins(inner, "model_ema.") ? NULL : inner;
}

static weft_status unknown(const weft_model *m, const wf_tensor *t, weft_error *err)
{
    const char *is = wf_stranger_tensor(t->name);
    wf_shape_text text;

    if (is != NULL)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: tensor %.160s is %s", m->path, t->name, is);
    return wf_fail(err, WEFT_E_FORMAT, "%s: tensor %.160s %s is unknown to this kind of file",
                   m->path, t->name, wf_shape(&text, t->shape, t->rank));
}

static weft_status split(weft_model *m, weft_tensors *file, const look *l, wf_gathered *s,
                         weft_error *err)
{
    shape shapes[WF_COMPONENTS];

    for (int32_t i = 0; i < WF_COMPONENTS; i++) {
        wf_component *part = &s->component[i];
        shapes[i] = shape_of(s, i);
        if (!l->there[i]) continue;
        wf_format(part->from, WF_PATH, "%s (%s)", m->path, weft_component_name(i));
        WF_TRY(wf_tensors_new(&m->alloc, part->from, &part->tensors, err));
        WF_TRY(wf_tensors_keep(part->tensors, file, err));
    }
    for (size_t i = 0; i < wf_tensors_count(file); i++) {
        const wf_tensor *t = wf_tensors_at(file, i);
        const char *name = inner_name(l, t->name), *rest;
        bool known = false;
        if (name == NULL || is_aside(name)) continue;
        const struct prefix *p = prefix_of(l, name, &rest);
        if (p != NULL && is_aside_in_part(rest, p->names)) continue;
        if (p != NULL)
            WF_TRY(add_tensor(m, &s->component[p->component], &shapes[p->component], p->names, rest,
                              t, &known, err));
        if (!known) return unknown(m, t, err);
    }
    for (int32_t i = 0; i < WF_COMPONENTS; i++)
        if (s->component[i].tensors != NULL) WF_TRY(wf_tensors_seal(s->component[i].tensors, err));
    return WEFT_OK;
}

weft_status wf_gather_ldm_vae(weft_model *m, weft_tensors *file, const char *prefix,
                              wf_component *part, weft_error *err)
{
    shape of = { 0,
                 (int32_t)WF_MIN(
                     json_array_size(json_object_get(part->config, "block_out_channels")),
                     (size_t)64),
                 0 };
    const look l = { .nest = prefix };

    WF_TRY(wf_tensors_new(&m->alloc, part->from, &part->tensors, err));
    WF_TRY(wf_tensors_keep(part->tensors, file, err));
    for (size_t i = 0; i < wf_tensors_count(file); i++) {
        const wf_tensor *t = wf_tensors_at(file, i);
        const char *name = inner_name(&l, t->name);
        bool known;
        if (name == NULL || is_aside_in_part(name, LDM_VAE)) continue;
        WF_TRY(add_tensor(m, part, &of, LDM_VAE, name, t, &known, err));
        if (!known)
            return wf_fail(err, WEFT_E_FORMAT, "%s: tensor %.160s is unknown to a VAE", part->from,
                           t->name);
    }
    return wf_tensors_seal(part->tensors, err);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static weft_status not_a_model(const weft_model *m, const look *l, weft_error *err)
{
    weft_status st;

    if (l->other != NULL)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: a %s model, which this version does not run",
                       m->path, l->other);
    st = wf_fail(err, WEFT_E_FORMAT,
                 "%s: no UNet under the names of LDM's checkpoints (model.diffusion_model.*): not "
                 "a model in one file",
                 m->path);
    st = wf_say_variant(st, l->file, m->path, err);
    return wf_say_whole(st, l->file, m->path, err);
}

weft_status wf_gather_file(weft_model *m, const weft_model_options *o, wf_gathered *s,
                           weft_error *err)
{
    s->layout = "single file";
    WF_TRY(wf_tensors_open(m->path, (o->flags & WEFT_OPEN_COPY) != 0, &m->alloc, &m->whole, err));
    m->bytes += (int64_t)wf_tensors_file_size(m->whole);
    look l = look_over(m->whole);
    m->nest = l.nest;
    if (l.other != NULL || l.conv_in == NULL) return not_a_model(m, &l, err);
    for (int32_t i = 0; i < WF_COMPONENTS; i++) s->component[i].there = l.there[i];
    WF_TRY(o->config != NULL ? wf_gather_descriptions(m, o->config, s, err)
                             : describe_published(&l, m->path, s, err));
    const wf_hints hints = { base_of(&l),
                             (int32_t)WF_MIN(l.conv_in->rank == 4 ? l.conv_in->shape[1] : 0, 4096),
                             l.v_pred, l.ztsnr };
    WF_TRY(wf_find_prediction(m, o, &hints, s, err));
    return split(m, m->whole, &l, s, err);
}
