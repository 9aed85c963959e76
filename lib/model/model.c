/* model.c - the model handle: letting go, describing, tokenizing. */
#include "base/structs.h"
#include "model/model_internal.h"
#include "weft/sampler.h"

void wf_model_ref(weft_model *m) { wf_ref_take(&m->refs); }

void weft_model_free(weft_model *m)
{
    if (m == NULL || !wf_ref_drop(&m->refs)) return;
    weft_allocator alloc = m->alloc;
    wf_denoiser_free(m->networks.denoiser, &alloc);
    wf_vae_free(m->networks.vae, &alloc);
    for (int32_t i = 0; i < m->networks.encoders; i++) {
        wf_clip_free(m->networks.encoder[i].net, &alloc);
        wf_tokenizer_free(m->networks.encoder[i].tokenizer);
    }
    wf_derived_free(&m->derived);
    wf_bag_free(&m->names);
    wf_free(&alloc, m->layers);
    for (int i = 0; i < WF_COMPONENTS; i++) weft_tensors_free(m->files[i]);
    weft_tensors_free(m->whole);
    json_decref(m->scheduler);
    wf_free(&alloc, m->trained_betas);
    wf_free(&alloc, m->path);
    wf_free(&alloc, m);
}

const wf_layer *wf_model_layers(const weft_model *m, size_t *count)
{
    *count = m->layer_count;
    return m->layers;
}

const char        *wf_model_path(const weft_model *m) { return m->path; }
int32_t            wf_model_base(const weft_model *m) { return wf_facts(&m->networks)->base; }
const wf_networks *wf_model_networks(const weft_model *m) { return &m->networks; }
const json_t      *wf_model_scheduler(const weft_model *m) { return m->scheduler; }

const float *wf_model_trained_betas(const weft_model *m, size_t *count)
{
    *count = m->trained_beta_count;
    return m->trained_betas;
}

const char *wf_base_name(int32_t base)
{
    static const char *const names[] =
        { "unknown", "SD1.x", "SD2.x", "SDXL", "SDXL refiner", "FLUX" };
    return base >= 0 && (size_t)base < WF_LEN(names) ? names[base] : names[0];
}

weft_status weft_model_info_get(const weft_model *m, weft_model_info *info, weft_error *err)
{
    weft_model_info r = WEFT_MODEL_INFO_INIT;
    if (m == NULL || info == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", m == NULL ? "model" : "info");
    const wf_networks *n = &m->networks;
    const wf_denoiser_facts *f = wf_facts(n);
    const wf_vae_config *v = n->vae != NULL ? wf_vae_get_config(n->vae) : NULL;
    const json_t *predict = json_object_get(m->scheduler, "prediction_type");
    const char *word = json_is_string(predict) ? json_string_value(predict) : "epsilon";

    r.base = f->base;
    r.base_name = wf_base_name(f->base);
    r.latent_channels = f->out_channels;
    r.latent_size = f->sample_size;
    r.image_factor = v != NULL ? wf_vae_factor(n->vae) : 8;
    r.text_encoders = n->encoders;
    r.text_streams = n->streams;
    r.time_ids = f->time_ids;
    r.has_tokenizer = wf_model_need_tokenizer(m, NULL) == WEFT_OK;
    r.has_vae = v != NULL;
    r.parameters = m->parameters;
    r.bytes = m->bytes;
    r.derived_bytes = (int64_t)m->derived.bytes;
    r.layers = (int64_t)m->layer_count;
    r.vae_scale = v != NULL ? v->scaling_factor : 0;
    r.input_channels = f->in_channels;
    r.zero_negative = m->zero_negative;
    r.guidance_embed = f->guidance;
    r.layout = m->layout;
    r.arithmetic = n->arithmetic;
    r.emulated = n->emulated;
    r.tier = n->products->name;
    r.prediction = strcmp(word, "v_prediction") == 0 ? WEFT_PREDICT_V
                   : strcmp(word, "sample") == 0     ? WEFT_PREDICT_SAMPLE
                                                     : WEFT_PREDICT_EPSILON;
    return WF_RESULT(info, &r, weft_model_info, err);
}

weft_status weft_model_text(const weft_model *m, int32_t stream, weft_text_info *info,
                            weft_error *err)
{
    weft_text_info r = WEFT_TEXT_INFO_INIT;
    if (m == NULL || info == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", m == NULL ? "model" : "info");
    if (stream < 0 || stream >= m->networks.streams)
        return wf_fail(err, WEFT_E_ARG, "text stream %d is not one of the model's %d", stream,
                       m->networks.streams);
    const wf_stream *s = &m->networks.stream[stream];
    r.kind = s->facts->kind;
    r.name = r.kind == WEFT_TEXT_POOLED ? "pooled" : "sequence";
    r.width = s->facts->width;
    r.tokens = s->tokens;
    r.cross_layers = s->facts->cross_layers;
    return WF_RESULT(info, &r, weft_text_info, err);
}

weft_status weft_model_layer(const weft_model *m, int64_t id, weft_layer_info *info,
                             weft_error *err)
{
    weft_layer_info r = WEFT_LAYER_INFO_INIT;
    if (m == NULL || info == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", m == NULL ? "model" : "info");
    if (id < 0 || (size_t)id >= m->layer_count)
        return wf_fail(err, WEFT_E_ARG, "layer %lld is not one of the model's %zu", (long long)id,
                       m->layer_count);
    const wf_layer *l = &m->layers[id];
    r.kind = l->kind;
    r.name = l->name;
    r.component = l->component;
    r.out = l->out;
    r.in = l->in;
    r.kernel = l->kernel;
    r.stride = l->stride;
    r.attention = l->attention;
    return WF_RESULT(info, &r, weft_layer_info, err);
}

static weft_status need_one(const weft_model *m, const wf_text_encoder *t, weft_error *err)
{
    const char *which = t->component == WEFT_COMPONENT_TEXT_1 ? "" : "_2";
    if (t->tokenizer != NULL) return WEFT_OK;
    return wf_fail(err, WEFT_E_STATE,
                   "%s has no tokenizer%s: open it with weft_model_options.tokenizer%s: a folder "
                   "with vocab.json and merges.txt, a merges.txt, or OpenAI's "
                   "bpe_simple_vocab_16e6.txt.gz", m->path, which, which);
}

weft_status wf_model_need_tokenizer(const weft_model *m, weft_error *err)
{
    if (m->networks.encoders == 0)
        return wf_fail(err, WEFT_E_STATE, "%s has no text encoder: the conditioning must be given in place of a prompt",
                       m->path);
    for (int32_t i = 0; i < m->networks.encoders; i++)
        WF_TRY(need_one(m, &m->networks.encoder[i], err));
    return WEFT_OK;
}

weft_status weft_model_tokenize(const weft_model *m, int32_t component, const char *text,
                                int32_t *ids, size_t cap, size_t *needed, weft_error *err)
{
    const wf_text_encoder *t = NULL;
    size_t count;
    if (m == NULL || text == NULL || (ids == NULL && cap > 0))
        return wf_fail(err, WEFT_E_ARG, "%s is NULL",
                       m == NULL ? "model" : text == NULL ? "text" : "ids");
    for (int32_t i = 0; i < m->networks.encoders; i++)
        if (m->networks.encoder[i].component == component) t = &m->networks.encoder[i];
    if (t == NULL) {
        const char *name = weft_component_name(component);
        return wf_fail(err, WEFT_E_ARG, "component %d (%s) is not a text encoder of the model",
                       component, name != NULL ? name : "unknown");
    }
    weft_status st = need_one(m, t, err);
    if (st == WEFT_OK) st = wf_tokenizer_encode(t->tokenizer, text, ids, cap, &count, err);
    if (st == WEFT_OK && needed != NULL) *needed = count;
    return st;
}

weft_status weft_model_prompt_size(const weft_model *m, const char *prompt, int32_t *tokens,
                                   int32_t *chunks, weft_error *err)
{
    size_t most = 0, needed = 1, count = 0;
    if (m == NULL || prompt == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", m == NULL ? "model" : "prompt");
    weft_status st = wf_model_need_tokenizer(m, err);
    for (int32_t i = 0; i < m->networks.encoders && st == WEFT_OK; i++) {
        const wf_text_encoder *t = &m->networks.encoder[i];
        size_t fits = (size_t)wf_encoder_positions(t) - 2;
        st = wf_tokenizer_encode(t->tokenizer, prompt, NULL, 0, &count, err);
        most = WF_MAX(most, count);
        needed = WF_MAX(needed, (count + fits - 1) / fits);
    }
    if (st != WEFT_OK) return st;
    if (most > 1000000)
        return wf_fail(err, WEFT_E_ARG, "the prompt has %zu tokens, wanted at most 1000000", most);
    if (tokens != NULL) *tokens = (int32_t)most;
    if (chunks != NULL) *chunks = (int32_t)needed;
    return WEFT_OK;
}
