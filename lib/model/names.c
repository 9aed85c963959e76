/* names.c - how adapter files call a layer: kohya's words, in diffusers' numbering of blocks and in LDM's.
 *
 * diffusers nests (down_blocks.1.attentions.0), LDM counts through (input_blocks.4.1): L = layers_per_block + 1
 * entries for each level, the last a down- or upsampler (formats.md B.3). Inside a transformer the names agree;
 * inside a resnet they do not. kohya's word is the path with underscores, which nobody can take apart again: so
 * names are only ever made from a layer, never read. */
#include "model/model.h"

/* A name being written; `ok` is false once something did not fit. */
typedef struct writer {
    char  *buf;
    size_t cap;
    size_t len;
    bool   ok;
} writer;

static void put(writer *w, const char *s)
{
    size_t n = strlen(s);

    if (!w->ok || n >= w->cap - w->len) {
        w->ok = false;
        return;
    }
    memcpy(w->buf + w->len, s, n + 1);
    w->len += n;
}

static void put_number(writer *w, int32_t v)
{
    char  digits[12];
    char *d = digits + sizeof digits - 1;

    *d = '\0';
    do *--d = (char)('0' + v % 10);
    while ((v /= 10) > 0);
    put(w, d);
}

static writer writer_at(char *buf, size_t cap)
{
    if (cap > 0) buf[0] = '\0';
    return (writer){ buf, cap, 0, cap > 0 };
}

static void underscores(char *s)
{
    for (; *s != '\0'; s++)
        if (*s == '.') *s = '_';
}

/* Skip `word` in *s; false, with *s untouched, where s does not begin so. */
static bool skip(const char **s, const char *word)
{
    size_t n = strlen(word);

    if (strncmp(*s, word, n) != 0) return false;
    *s += n;
    return true;
}

/* Skip a number and the dot behind it. */
static bool skip_number(const char **s, int32_t *v)
{
    const char *p = *s;

    for (*v = 0; *p >= '0' && *p <= '9' && *v < 10000; p++) *v = *v * 10 + (*p - '0');
    if (p == *s || *p != '.') return false;
    *s = p + 1;
    return true;
}

typedef struct pair { const char *diffusers, *ldm; } pair;

/* Layers outside the blocks; their names stand alone. */
static const pair roots[] = {
    { "conv_in", "input_blocks.0.0" },
    { "time_embedding.linear_1", "time_embed.0" },
    { "time_embedding.linear_2", "time_embed.2" },
    { "add_embedding.linear_1", "label_emb.0.0" },
    { "add_embedding.linear_2", "label_emb.0.2" },
    { "conv_norm_out", "out.0" },
    { "conv_out", "out.2" },
};

static const pair resnet[] = {
    { "norm1", "in_layers.0" },
    { "conv1", "in_layers.2" },
    { "time_emb_proj", "emb_layers.1" },
    { "norm2", "out_layers.0" },
    { "conv2", "out_layers.3" },
    { "conv_shortcut", "skip_connection" },
};

static const char *ldm_of(const pair *table, size_t count, const char *diffusers)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(table[i].diffusers, diffusers) == 0) return table[i].ldm;
    return NULL;
}

/* "input_blocks." + entry + "." + slot + "." + rest, the rest of a resnet in LDM's words. */
static bool put_entry(writer *w, const char *blocks, int32_t entry, int32_t slot, const char *rest, bool is_resnet)
{
    const char *tail = is_resnet ? ldm_of(resnet, WF_LEN(resnet), rest) : rest;

    if (tail == NULL) return false;
    put(w, blocks);
    put_number(w, entry);
    put(w, ".");
    put_number(w, slot);
    put(w, ".");
    put(w, tail);
    return w->ok;
}

static bool put_mid(writer *w, const char *s)
{
    int32_t     j;
    bool        is_resnet = skip(&s, "resnets.");
    const char *tail;

    if (!is_resnet && !skip(&s, "attentions.")) return false;
    if (!skip_number(&s, &j) || j > (is_resnet ? 1 : 0)) return false;
    tail = is_resnet ? ldm_of(resnet, WF_LEN(resnet), s) : s;
    if (tail == NULL) return false;
    put(w, "middle_block.");
    put_number(w, is_resnet ? 2 * j : 1);
    put(w, ".");
    put(w, tail);
    return w->ok;
}

bool wf_name_ldm(const char *module, const wf_blocks *shape, char *buf, size_t cap)
{
    writer      w = writer_at(buf, cap);
    const char *s = module, *root = ldm_of(roots, WF_LEN(roots), module);
    int32_t     L = shape->layers_per_block + 1, i, j;
    bool        up;

    if (root != NULL) {
        put(&w, root);
        return w.ok;
    }
    if (skip(&s, "mid_block.")) return put_mid(&w, s);
    up = skip(&s, "up_blocks.");
    if ((!up && !skip(&s, "down_blocks.")) || !skip_number(&s, &i) || i >= shape->count) return false;

    const char *blocks = up ? "output_blocks." : "input_blocks.";
    int32_t     base = up ? L * i : L * i + 1;
    if (skip(&s, "resnets.")) return skip_number(&s, &j) && put_entry(&w, blocks, base + j, 0, s, true);
    if (skip(&s, "attentions.")) return skip_number(&s, &j) && put_entry(&w, blocks, base + j, 1, s, false);
    if (!up && strcmp(s, "downsamplers.0.conv") == 0) return put_entry(&w, blocks, L * (i + 1), 0, "op", false);
    if (up && strcmp(s, "upsamplers.0.conv") == 0) /* behind the attention, where the block has one */
        return put_entry(&w, blocks, base + L - 1, shape->up_attention[i] ? 2 : 1, "conv", false);
    return false;
}

/* ---- kohya's words ------------------------------------------------------------------------------------ */

bool wf_name_kohya_path(const char *prefix, const char *path, char *buf, size_t cap)
{
    writer w = writer_at(buf, cap);

    put(&w, prefix);
    put(&w, path);
    if (w.ok) underscores(buf);
    return w.ok;
}

/* The path of a layer inside its component, or NULL for a component that kohya has no word for. */
static const char *path_in_component(const wf_layer *layer)
{
    static const char *const heads[] = { "unet.", "text_encoder.", "text_encoder_2." };
    const char              *s = layer->name;

    if (layer->component < 0 || layer->component >= (int32_t)WF_LEN(heads)) return NULL;
    return skip(&s, heads[layer->component]) ? s : NULL;
}

static bool has_second_encoder(const weft_model *m)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(m, &count);

    for (size_t i = count; i-- > 0;)
        if (layers[i].component == 2) return true;
    return false;
}

bool wf_name_kohya(const weft_model *m, const wf_layer *layer, char *buf, size_t cap)
{
    const char *path = path_in_component(layer), *prefix = "lora_unet_";
    writer      w = writer_at(buf, cap);

    if (path == NULL) return false;
    if (layer->component > 0) prefix = layer->component == 2 ? "lora_te2_" : has_second_encoder(m) ? "lora_te1_" : "lora_te_";
    put(&w, prefix);
    if (layer->component > 0 && strncmp(path, "encoder.", 8) == 0) put(&w, "text_model_"); /* transformers 5 drops it */
    put(&w, path);
    if (w.ok) underscores(buf);
    return w.ok;
}

bool wf_name_kohya_ldm(const weft_model *m, const wf_layer *layer, char *buf, size_t cap)
{
    const char *path = path_in_component(layer);
    wf_blocks   shape = { .layers_per_block = wf_model_unet_layers_per_block(m), .count = wf_model_unet_blocks(m) };
    char        ldm[256];

    if (path == NULL || layer->component != 0 || shape.count > (int32_t)WF_LEN(shape.up_attention)) return false;
    for (int32_t i = 0; i < shape.count; i++) shape.up_attention[i] = wf_model_unet_attention(m, true, i);
    return wf_name_ldm(path, &shape, ldm, sizeof ldm) && wf_name_kohya_path("lora_unet_", ldm, buf, cap);
}
