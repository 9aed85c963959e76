/* ldm.c - the names that single files use, and what diffusers calls the same tensors.
 *
 * diffusers nests (down_blocks.1.attentions.0), LDM counts through (input_blocks.4.1): L =
 * layers_per_block + 1 entries for each level, the last a down- or upsampler. Inside a transformer
 * the names agree; inside a resnet they do not. The VAE's decoder is numbered from the other end.
 * OpenCLIP's text encoder has names of its own and keeps q, k and v in one matrix.
 *
 * Pure functions over names: whether such a tensor exists, the networks ask later. */
#include "model/ldm.h"

typedef struct pair { const char *diffusers, *ldm; } pair;

/* Layers outside the UNet's blocks; their names stand alone. */
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

static const pair vae_attention[] = {
    { "group_norm", "norm" }, { "to_q", "q" }, { "to_k", "k" }, { "to_v", "v" }, { "to_out.0", "proj_out" },
};

static const pair openclip_layer[] = {
    { "layer_norm1", "ln_1" }, { "layer_norm2", "ln_2" }, { "self_attn.out_proj", "attn.out_proj" },
    { "mlp.fc1", "mlp.c_fc" }, { "mlp.fc2", "mlp.c_proj" },
};

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

/* ---- from diffusers' module to LDM's --------------------------------------------------------- */

static const char *ldm_of(const pair *table, size_t count, const char *diffusers)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(table[i].diffusers, diffusers) == 0) return table[i].ldm;
    return NULL;
}

/* "input_blocks." + entry + "." + slot + "." + rest, the rest of a resnet in LDM's words. */
static bool write_entry(char *buf, size_t cap, const char *blocks, int32_t entry, int32_t slot,
                        const char *rest, bool is_resnet)
{
    const char *tail = is_resnet ? ldm_of(resnet, WF_LEN(resnet), rest) : rest;

    return tail != NULL && wf_format(buf, cap, "%s.%d.%d.%s", blocks, entry, slot, tail);
}

static bool write_mid(char *buf, size_t cap, const char *s)
{
    int32_t     j;
    bool        is_resnet = skip(&s, "resnets.");
    const char *tail;

    if (!is_resnet && !skip(&s, "attentions.")) return false;
    if (!skip_number(&s, &j) || j > (is_resnet ? 1 : 0)) return false;
    tail = is_resnet ? ldm_of(resnet, WF_LEN(resnet), s) : s;
    return tail != NULL && wf_format(buf, cap, "middle_block.%d.%s", is_resnet ? 2 * j : 1, tail);
}

bool wf_name_ldm(const char *module, const wf_blocks *shape, char *buf, size_t cap)
{
    const char *s = module, *root = ldm_of(roots, WF_LEN(roots), module);
    int32_t     L = shape->layers_per_block + 1, i, j;
    bool        up;

    if (root != NULL) return wf_format(buf, cap, "%s", root);
    if (skip(&s, "mid_block.")) return write_mid(buf, cap, s);
    up = skip(&s, "up_blocks.");
    if ((!up && !skip(&s, "down_blocks.")) || !skip_number(&s, &i) || i >= shape->count)
        return false;

    const char *blocks = up ? "output_blocks" : "input_blocks";
    int32_t     base = up ? L * i : L * i + 1;
    if (skip(&s, "resnets."))
        return skip_number(&s, &j) && write_entry(buf, cap, blocks, base + j, 0, s, true);
    if (skip(&s, "attentions."))
        return skip_number(&s, &j) && write_entry(buf, cap, blocks, base + j, 1, s, false);
    if (!up && strcmp(s, "downsamplers.0.conv") == 0)
        return write_entry(buf, cap, blocks, L * (i + 1), 0, "op", false);
    if (up &&
        strcmp(s, "upsamplers.0.conv") == 0) /* behind the attention, where the block has one */
        return write_entry(buf, cap, blocks, base + L - 1, shape->up_attention[i] ? 2 : 1, "conv",
                           false);
    return false;
}

/* ---- from LDM's tensor to diffusers' --------------------------------------------------------- */

/* head + the word for what s begins with + the rest (".weight"), by a table; false where it begins
 * with none. */
static bool write_word(char *buf, size_t cap, const char *head, const pair *table, size_t count,
                       const char *s)
{
    for (size_t i = 0; i < count; i++) {
        const char *rest = s;
        if (skip(&rest, table[i].ldm) && *rest == '.')
            return wf_format(buf, cap, "%s%s%s", head, table[i].diffusers, rest);
    }
    return false;
}

typedef struct head { char s[64]; } head;

static head head_of(const char *blocks, int32_t i, const char *kind, int32_t j)
{
    head h;
    wf_format(h.s, sizeof h.s, "%s.%d.%s.%d.", blocks, i, kind, j);
    return h;
}

bool wf_ldm_unet(const char *name, int32_t layers_per_block, char *buf, size_t cap)
{
    const char *s = name;
    int32_t     L = layers_per_block + 1, n, slot;
    bool        up;

    if (write_word(buf, cap, "", roots, WF_LEN(roots), s)) return true;
    if (skip(&s, "middle_block.")) {
        if (!skip_number(&s, &n) || n > 2) return false;
        if (n == 1) return wf_format(buf, cap, "mid_block.attentions.0.%s", s);
        return write_word(buf, cap, n == 0 ? "mid_block.resnets.0." : "mid_block.resnets.1.",
                          resnet, WF_LEN(resnet), s);
    }
    up = skip(&s, "output_blocks.");
    if ((!up && !skip(&s, "input_blocks.")) || !skip_number(&s, &n) || !skip_number(&s, &slot))
        return false;
    if (up &&
        skip(&s, "conv.")) /* slot 1, or 2 behind an attention; merging tools have written either */
        return slot > 0 && n % L == L - 1 &&
               wf_format(buf, cap, "up_blocks.%d.upsamplers.0.conv.%s", n / L, s);
    if (!up && slot == 0 && skip(&s, "op."))
        return n > 0 && n % L == 0 &&
               wf_format(buf, cap, "down_blocks.%d.downsamplers.0.conv.%s", n / L - 1, s);

    int32_t     at = up ? n : n - 1; /* input block 0 is conv_in */
    const char *blocks = up ? "up_blocks" : "down_blocks";
    if (at < 0 || slot > 1) return false;
    if (slot == 1)
        return wf_format(buf, cap, "%s%s", head_of(blocks, at / L, "attentions", at % L).s, s);
    return write_word(buf, cap, head_of(blocks, at / L, "resnets", at % L).s, resnet,
                      WF_LEN(resnet), s);
}

/* norm1, conv1, norm2, conv2 are the same in both; the shortcut is not. */
static bool write_vae_resnet(char *buf, size_t cap, const char *head, const char *s)
{
    const char *rest = s;
    if (skip(&rest, "nin_shortcut.")) return wf_format(buf, cap, "%sconv_shortcut.%s", head, rest);
    return wf_format(buf, cap, "%s%s", head, s);
}

bool wf_ldm_vae(const char *name, int32_t levels, char *buf, size_t cap)
{
    const char *s = name, *side = "encoder", *blocks = "down_blocks", *resample = "downsamplers";
    int32_t     i, j;
    bool        down = skip(&s, "encoder.");
    head        h;

    if (!down) {
        if (!skip(&s, "decoder."))
            return wf_format(buf, cap, "%s", name); /* quant_conv, post_quant_conv */
        side = "decoder", blocks = "up_blocks", resample = "upsamplers";
    }
    if (skip(&s, "norm_out.")) return wf_format(buf, cap, "%s.conv_norm_out.%s", side, s);
    if (skip(&s, "mid.")) {
        wf_format(h.s, sizeof h.s, "%s.mid_block.", side);
        if (skip(&s, "attn_1.")) {
            wf_format(h.s, sizeof h.s, "%s.mid_block.attentions.0.", side);
            return write_word(buf, cap, h.s, vae_attention, WF_LEN(vae_attention), s);
        }
        if (!skip(&s, "block_") || !skip_number(&s, &j) || j < 1 || j > 2) return false;
        wf_format(h.s, sizeof h.s, "%s.mid_block.resnets.%d.", side, j - 1);
        return write_vae_resnet(buf, cap, h.s, s);
    }
    if (!skip(&s, down ? "down." : "up."))
        return wf_format(buf, cap, "%s", name); /* conv_in, conv_out */
    if (!skip_number(&s, &i) || i >= levels) return false;
    if (!down) i = levels - 1 - i;
    if (skip(&s, down ? "downsample." : "upsample."))
        return wf_format(buf, cap, "%s.%s.%d.%s.0.%s", side, blocks, i, resample, s);
    if (!skip(&s, "block.") || !skip_number(&s, &j)) return false;
    wf_format(h.s, sizeof h.s, "%s.%s.%d.resnets.%d.", side, blocks, i, j);
    return write_vae_resnet(buf, cap, h.s, s);
}

bool wf_ldm_openclip(const char *name, char *buf, size_t cap, wf_ldm_op *op)
{
    static const pair whole[] = {
        { "text_model.embeddings.token_embedding", "token_embedding" },
        { "text_model.final_layer_norm", "ln_final" },
        { "text_projection", "text_projection" }, /* with ".weight" it is transposed already */
    };
    const char *s = name;
    int32_t     i;
    head        h;

    *op = WF_LDM_COPY;
    if (strcmp(name, "positional_embedding") == 0)
        return wf_format(buf, cap, "text_model.embeddings.position_embedding.weight");
    if (strcmp(name, "text_projection") == 0) {
        *op = WF_LDM_TRANSPOSE;
        return wf_format(buf, cap, "text_projection.weight");
    }
    if (write_word(buf, cap, "", whole, WF_LEN(whole), s)) return true;
    if (!skip(&s, "transformer.resblocks.") || !skip_number(&s, &i)) return false;
    wf_format(h.s, sizeof h.s, "text_model.encoder.layers.%d.", i);
    if (write_word(buf, cap, h.s, openclip_layer, WF_LEN(openclip_layer), s)) return true;
    if (!skip(&s, "attn.in_proj_") || (strcmp(s, "weight") != 0 && strcmp(s, "bias") != 0))
        return false;
    *op = WF_LDM_ROWS_OF_3;
    return wf_format(buf, cap, "%sself_attn.*_proj.%s", h.s, s);
}

int32_t wf_ldm_openclip_layer(const char *name)
{
    int32_t i;
    return skip(&name, "transformer.resblocks.") && skip_number(&name, &i) ? i : -1;
}
