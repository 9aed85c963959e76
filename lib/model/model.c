/* model.c - the model handle: letting go, describing, tokenizing. */
#include "base/structs.h"
#include "model/room.h"
#include "weft/sampler.h"

void wf_model_ref(weft_model *m) { wf_ref_take(&m->refs); }

void weft_model_free(weft_model *m)
{
    if (m == NULL || !wf_ref_drop(&m->refs)) return;
    weft_allocator alloc = m->alloc;
    wf_unet_free(m->parts.unet, &alloc);
    wf_vae_free(m->parts.vae, &alloc);
    for (int i = 0; i < 2; i++) {
        wf_clip_free(m->parts.text[i], &alloc);
        wf_tokenizer_free(m->parts.tokenizer[i]);
    }
    wf_derived_free(&m->derived);
    wf_bag_free(&m->names);
    wf_free(&alloc, m->layers);
    for (int i = 0; i < WF_COMPONENTS; i++) weft_tensors_free(m->files[i]);
    weft_tensors_free(m->whole);
    json_decref(m->scheduler);
    wf_free(&alloc, m->path);
    wf_free(&alloc, m);
}

const wf_layer *wf_model_layers(const weft_model *m, size_t *count)
{
    *count = m->layer_count;
    return m->layers;
}

int32_t         wf_model_base(const weft_model *m) { return m->base; }
const wf_parts *wf_model_parts(const weft_model *m) { return &m->parts; }
const json_t   *wf_model_scheduler(const weft_model *m) { return m->scheduler; }

int32_t wf_model_unet_layers_per_block(const weft_model *m) { return m->parts.unet_config.layers[0]; }
int32_t wf_model_unet_blocks(const weft_model *m) { return m->parts.unet_config.levels; }

bool wf_model_unet_attention(const weft_model *m, bool up, int32_t block)
{
    const wf_unet_config *c = &m->parts.unet_config;
    if (block < 0 || block >= c->levels) return false;
    return up ? c->up_attention[block] : c->down_attention[block];
}

const char *wf_base_name(int32_t base)
{
    static const char *const names[] = { "unknown", "SD1.x", "SD2.x", "SDXL", "SDXL refiner", "FLUX" };
    return base >= 0 && (size_t)base < WF_LEN(names) ? names[base] : names[0];
}

weft_status weft_model_info_get(const weft_model *m, weft_model_info *info, weft_error *err)
{
    weft_model_info r = WEFT_MODEL_INFO_INIT;
    if (m == NULL || info == NULL) return wf_fail(err, WEFT_E_ARG, "%s is NULL", m == NULL ? "model" : "info");
    const wf_unet_config *c = &m->parts.unet_config;
    const wf_vae_config *v = m->parts.vae != NULL ? wf_vae_get_config(m->parts.vae) : NULL;
    const json_t *predict = json_object_get(m->scheduler, "prediction_type");
    const char *word = json_is_string(predict) ? json_string_value(predict) : "epsilon";

    r.base = m->base;
    r.base_name = wf_base_name(m->base);
    r.latent_channels = c->out_channels;
    r.latent_size = c->sample_size;
    r.image_factor = v != NULL ? wf_vae_factor(m->parts.vae) : 8;
    r.text_encoders = (m->parts.text[0] != NULL) + (m->parts.text[1] != NULL);
    r.text_dim = c->cross_dim[0];
    const wf_clip *first = m->parts.text[m->parts.text[0] != NULL ? 0 : 1];
    r.text_tokens = first != NULL ? wf_clip_get_config(first)->positions : 77;
    r.pooled_dim = c->pooled_dim;
    r.time_ids = c->time_ids;
    r.has_tokenizer = wf_model_need_tokenizer(m, NULL) == WEFT_OK;
    r.has_vae = v != NULL;
    r.parameters = m->parameters;
    r.bytes = m->bytes;
    r.derived_bytes = (int64_t)m->derived.bytes;
    r.layers = (int64_t)m->layer_count;
    r.vae_scale = v != NULL ? v->scaling_factor : 0;
    r.unet_channels = c->in_channels;
    r.text_layers = wf_unet_text_layers(m->parts.unet);
    r.zero_negative = m->zero_negative;
    r.guidance_embed = c->guidance_dim > 0;
    r.layout = m->layout;
    r.prediction = strcmp(word, "v_prediction") == 0 ? WEFT_PREDICT_V
                   : strcmp(word, "sample") == 0     ? WEFT_PREDICT_SAMPLE
                                                     : WEFT_PREDICT_EPSILON;
    return WF_RESULT(info, &r, weft_model_info, err);
}

weft_status weft_model_layer(const weft_model *m, int64_t id, weft_layer_info *info, weft_error *err)
{
    weft_layer_info r = WEFT_LAYER_INFO_INIT;
    if (m == NULL || info == NULL) return wf_fail(err, WEFT_E_ARG, "%s is NULL", m == NULL ? "model" : "info");
    if (id < 0 || (size_t)id >= m->layer_count)
        return wf_fail(err, WEFT_E_ARG, "layer %lld is not one of the model's %zu", (long long)id, m->layer_count);
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

static weft_status need_one(const weft_model *m, int32_t encoder, weft_error *err)
{
    const char *which = encoder == 0 ? "" : "_2";
    if (m->parts.tokenizer[encoder] != NULL) return WEFT_OK;
    return wf_fail(err, WEFT_E_STATE, "%s has no tokenizer%s: open it with weft_model_options.tokenizer%s: a folder with "
                   "vocab.json and merges.txt, a merges.txt alone, or OpenAI's bpe_simple_vocab_16e6.txt.gz", m->path,
                   which, which);
}

weft_status wf_model_need_tokenizer(const weft_model *m, weft_error *err)
{
    if (m->parts.text[0] == NULL && m->parts.text[1] == NULL)
        return wf_fail(err, WEFT_E_STATE, "%s has no text encoder: give the conditioning itself", m->path);
    weft_status st = m->parts.text[0] != NULL ? need_one(m, 0, err) : WEFT_OK;
    return st == WEFT_OK && m->parts.text[1] != NULL ? need_one(m, 1, err) : st;
}

weft_status weft_model_tokenize(const weft_model *m, int32_t encoder, const char *text, int32_t *ids, size_t cap,
                                size_t *needed, weft_error *err)
{
    size_t count;
    if (m == NULL || text == NULL || (ids == NULL && cap > 0))
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", m == NULL ? "model" : text == NULL ? "text" : "ids");
    if (encoder < 0 || encoder > 1 || m->parts.text[encoder] == NULL)
        return wf_fail(err, WEFT_E_ARG, "the model has no text encoder %d", encoder);
    weft_status st = need_one(m, encoder, err);
    if (st == WEFT_OK) st = wf_tokenizer_encode(m->parts.tokenizer[encoder], text, ids, cap, &count, err);
    if (st == WEFT_OK && needed != NULL) *needed = count;
    return st;
}

weft_status weft_model_prompt_size(const weft_model *m, const char *prompt, int32_t *tokens, int32_t *chunks,
                                   weft_error *err)
{
    size_t most = 0, count = 0;
    if (m == NULL || prompt == NULL) return wf_fail(err, WEFT_E_ARG, "%s is NULL", m == NULL ? "model" : "prompt");
    weft_status st = wf_model_need_tokenizer(m, err);
    for (int i = 0; i < 2 && st == WEFT_OK; i++) {
        if (m->parts.text[i] == NULL) continue;
        st = wf_tokenizer_encode(m->parts.tokenizer[i], prompt, NULL, 0, &count, err);
        most = WF_MAX(most, count);
    }
    if (st != WEFT_OK) return st;
    size_t room = (size_t)wf_clip_get_config(m->parts.text[m->parts.text[0] != NULL ? 0 : 1])->positions - 2;
    if (most > 1000000) return wf_fail(err, WEFT_E_ARG, "the prompt has %zu tokens, wanted at most 1000000", most);
    if (tokens != NULL) *tokens = (int32_t)most;
    if (chunks != NULL) *chunks = (int32_t)WF_MAX((most + room - 1) / room, (size_t)1);
    return WEFT_OK;
}
