/* stamp.c - one number for all that can change how a prompt is encoded.
 *
 * A prompt is encoded under one plan and used by the steps of a run, which may have moved to
 * another plan in between. The stamp says whether that matters. It is a hash of contents: equal
 * plans have the same stamp, and so has a copy with other weights in the denoiser. Another text
 * encoder, another adapter or weight in it, or another placeholder token gives another stamp. 64
 * bits guard against mistakes, not against malice.
 *
 * Of the text encoders we read a few bytes of each weight, since fine-tuning changes nearly all of
 * them. Of adapters and tokens every byte counts; an adapter is read once, when the first stamp is
 * asked for. */
#include "model/networks.h"
#include "plan/plan_internal.h"

static uint64_t mix(uint64_t h, uint64_t v)
{
    return wf_hash(h, &v, sizeof v);
}

static uint64_t mix_float(uint64_t h, float v)
{
    uint32_t bits;

    v += 0; /* -0 weighs what 0 weighs */
    memcpy(&bits, &v, sizeof bits);
    return mix(h, bits);
}

static uint64_t mix_module(uint64_t h, const wf_module *m)
{
    for (int32_t k = 0; k < WF_TENSORS; k++) {
        const wf_tensor *t = m->tensor[k];
        if (t == NULL) continue;
        h = mix(mix(mix(h, (uint64_t)k), (uint64_t)t->dtype), (uint64_t)t->rank);
        for (int32_t i = 0; i < t->rank; i++) h = mix(h, (uint64_t)t->shape[i]);
        h = wf_hash(h, t->data, t->bytes);
    }
    h = mix_float(h, m->scale);
    if (m->extra != NULL) h = wf_hash(h, m->extra, m->family->extra_size);
    return mix(h, (uint64_t)m->peft << 2 | (uint64_t)m->peft_magnitude << 1);
}

enum { NO_TEXT = 1 };

/* Of what a binding adds to the text encoders. Threads that ask at the same time find the same. */
static uint64_t bound_stamp(wf_binding *b, const weft_model *model)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(model, &count);
    uint64_t        h = atomic_load_explicit(&b->text_stamp, memory_order_relaxed);

    if (h != 0) return h;
    h = NO_TEXT;
    for (size_t l = 0; l < count; l++) {
        for (int32_t i = b->first[l];
             i < b->first[l + 1] && wf_component_encoder(layers[l].component) >= 0; i++) {
            const wf_slice *s = &b->slice[i];
            h = mix_module(mix(h, l), wf_adapter_module(b->adapter, (size_t)s->module));
            if (!wf_slice_whole(s, &layers[l]))
                h = mix(mix(mix(h, (uint64_t)s->row), (uint64_t)s->rows), (uint64_t)s->from);
        }
    }
    atomic_store_explicit(&b->text_stamp, h, memory_order_relaxed);
    return h;
}

/* A few bytes at the beginning, the end and two places between. */
static uint64_t mix_sample(uint64_t h, const uint8_t *data, size_t bytes)
{
    enum { PLACES = 4, EACH = 16 };

    if (bytes <= PLACES * EACH) return wf_hash(h, data, bytes);
    for (size_t i = 0; i < PLACES; i++)
        h = wf_hash(h, data + (bytes - EACH) / (PLACES - 1) * i, EACH);
    return h;
}

static uint64_t mix_model(uint64_t h, const weft_model *model)
{
    const wf_networks *n = wf_model_networks(model);
    size_t          count;
    const wf_layer *layers = wf_model_layers(model, &count);

    for (size_t l = 0; l < count; l++) {
        const wf_layer *at = &layers[l];
        if (!wf_is_text(at->component) || at->weight == NULL) continue;
        h = mix(mix(mix(h, l), (uint64_t)at->out), (uint64_t)at->in);
        h = mix_sample(h, at->weight,
                       (size_t)at->out * wf_layer_columns(at) * (size_t)wf_dtype_bits(at->dtype) /
                           8);
    }
    for (int32_t i = 0; i < n->encoders; i++) {
        const wf_tensor *tokens = wf_clip_tokens(n->encoder[i].net);
        const wf_tokenizer *t = n->encoder[i].tokenizer;
        h = mix_sample(mix(h, tokens->count), tokens->data, tokens->bytes);
        if (t != NULL)
            h = mix(mix(h, (uint64_t)wf_tokenizer_size(t)), (uint64_t)wf_tokenizer_pad(t));
    }
    return h;
}

static bool weighs_text(const wf_entry *e)
{
    for (int i = 0; i < WF_TEXT_ENCODERS; i++)
        if (e->text_weight[i] != 0) return true;
    return false;
}

/* Blocks that leave the text encoders alone leave the stamp alone. */
static uint64_t mix_blocks(uint64_t h, const wf_blob *blocks, const weft_model *m)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(m, &count);
    uint64_t        mixed = h;
    bool            any = false;

    for (size_t l = 0; l < count; l++) {
        if (wf_component_encoder(layers[l].component) < 0) continue;
        any = any || wf_blocks_at(blocks, layers[l].id) != 1;
        mixed = mix_float(mixed, wf_blocks_at(blocks, layers[l].id));
    }
    return any ? mixed : h;
}

uint64_t wf_plan_text_stamp(const weft_plan *p)
{
    uint64_t h = mix_model(0x77656674, p->model);

    for (int32_t a = 0; a < p->adapters; a++) {
        const wf_entry *e = &p->entry[a];
        uint64_t        part = weighs_text(e) ? bound_stamp(e->bound, p->model) : NO_TEXT;
        if (part == NO_TEXT) continue;
        h = mix(h, part);
        for (int i = 0; i < WF_TEXT_ENCODERS; i++) h = mix_float(h, e->text_weight[i]);
        h = mix(mix(h, wf_plan_text_acts(p, a)), e->peft_dora);
        if (e->blocks != NULL) h = mix_blocks(h, e->blocks, p->model);
    }
    h = mix(h, wf_tokens_stamp(p->tokens));
    return h != 0 ? h : 1;
}

uint64_t wf_stamp_text(uint64_t h, const char *s, size_t n) { return wf_hash(h, s, n); }

uint64_t wf_stamp_floats(uint64_t h, const float *v, size_t n)
{
    return wf_hash(h, v, n * sizeof *v);
}
