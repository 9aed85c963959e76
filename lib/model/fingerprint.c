/* fingerprint.c - a hash that tells a model from others, for plans that are saved.
 *
 * A checkpoint takes seconds to read, so a few bytes of each weight count: fine-tuning changes
 * nearly all weights, and a merged adapter whole ones. What adapters act on counts, and what turns
 * a prompt into rows; a VAE does not, since no plan says anything of it: its encoder has a hash of
 * its own, for trainings that go on. Names are canonical and weights those of layers, so a single
 * file and a folder of the same weights are one model. */
#include "model/networks.h"

static void add_number(wf_sha256 *s, uint64_t v)
{
    uint8_t bytes[8];

    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(v >> 8 * i);
    wf_sha256_add(s, bytes, sizeof bytes);
}

/* Some of the beginning, the end and two places between. */
static void add_sample(wf_sha256 *s, const uint8_t *data, size_t bytes)
{
    enum { PLACES = 4, EACH = 64 };

    add_number(s, bytes);
    if (bytes <= PLACES * EACH) {
        wf_sha256_add(s, data, bytes);
        return;
    }
    for (size_t i = 0; i < PLACES; i++)
        wf_sha256_add(s, data + (bytes - EACH) / (PLACES - 1) * i, EACH);
}

static void add_layer(wf_sha256 *s, const wf_layer *l)
{
    wf_sha256_add(s, l->name, strlen(l->name) + 1);
    add_number(s, (uint64_t)l->dtype);
    add_sample(s, l->weight, (size_t)l->out * (size_t)l->in * (size_t)l->kernel *
                                 (size_t)l->kernel * (size_t)wf_dtype_bits(l->dtype) / 8);
}

void wf_model_fingerprint(const weft_model *m, wf_sha256_text *out)
{
    const wf_networks *n = wf_model_networks(m);
    size_t             count;
    const wf_layer    *layers = wf_model_layers(m, &count);
    wf_sha256          s;

    wf_sha256_init(&s);
    for (const wf_layer *l = layers; l < layers + count; l++) {
        bool text = wf_is_text(l->component);
        if ((!text && l->component != WEFT_COMPONENT_DENOISER) || l->weight == NULL) continue;
        add_layer(&s, l);
    }
    for (int32_t i = 0; i < n->encoders; i++) {
        const wf_tensor *tokens = wf_clip_tokens(n->encoder[i].net);
        add_number(&s, (uint64_t)tokens->dtype);
        add_sample(&s, tokens->data, tokens->bytes);
    }
    wf_sha256_end(&s, out);
}

void wf_vae_fingerprint(const weft_model *m, wf_sha256_text *out)
{
    const wf_networks *n = wf_model_networks(m);
    size_t             count;
    const wf_layer    *layers = wf_model_layers(m, &count);
    wf_sha256          s;

    wf_sha256_init(&s);
    for (const wf_layer *l = layers; l < layers + count; l++)
        if (l->component == WEFT_COMPONENT_VAE && l->weight != NULL &&
            !wf_glob_any("*decoder.*,*post_quant_conv", l->name))
            add_layer(&s, l);
    if (n->vae != NULL) {
        const wf_vae_config *c = wf_vae_get_config(n->vae);
        wf_sha256_add(&s, &c->scaling_factor, sizeof c->scaling_factor);
        wf_sha256_add(&s, &c->shift_factor, sizeof c->shift_factor);
    }
    wf_sha256_end(&s, out);
}
