/* vae.c - images to latents and back: resnets without time, one attention in the middle.
 *
 * Every norm has eps 1e-6. The configuration's activation is that of the resnets; before the last
 * convolution of each half it is always SiLU. The encoder halves the image by padding only at the bottom and right and
 * a convolution of stride 2; the decoder doubles it by nearest neighbour and a convolution. */
#include "nets/vae.h"

typedef struct resnet {
    wf_norm         norm1, norm2;
    const wf_layer *conv1, *conv2, *shortcut;
    int32_t         in, out;
} resnet;

typedef struct middle {
    resnet          first, second;
    wf_norm         norm;
    const wf_layer *q, *k, *v, *out; /* NULL without attention */
} middle;

typedef struct stage {
    resnet         *resnets;
    const wf_layer *resample;
    int32_t         count;
} stage;

typedef struct half {
    const wf_layer *conv_in, *conv_out;
    middle          mid;
    stage           stages[WF_VAE_LEVELS]; /* in order of execution */
    wf_norm         norm_out;
} half;

struct wf_vae {
    wf_vae_config   c;
    half            encoder, decoder;
    const wf_layer *quant, *post_quant;
};

/* ---- building -------------------------------------------------------------------------------- */

enum { PATH = 96 };
static const float EPS = 1e-6f;

static weft_status build_resnet(wf_binder *b, const wf_vae_config *c, resnet *r, const char *p,
                                int32_t in, int32_t out, weft_error *err)
{
    r->in = in;
    r->out = out;
    WF_TRY(wf_bind_norm(b, &r->norm1, p, "norm1", in, c->groups, EPS, err));
    WF_TRY(wf_bind_conv(b, &r->conv1, p, "conv1", out, in, 3, 1, err));
    WF_TRY(wf_bind_norm(b, &r->norm2, p, "norm2", out, c->groups, EPS, err));
    WF_TRY(wf_bind_conv(b, &r->conv2, p, "conv2", out, out, 3, 1, err));
    if (in != out) WF_TRY(wf_bind_conv(b, &r->shortcut, p, "conv_shortcut", out, in, 1, 1, err));
    return WEFT_OK;
}

static weft_status build_middle(wf_binder *b, const wf_vae_config *c, middle *m, const char *side,
                                weft_error *err)
{
    char p[PATH];
    int32_t d = c->channels[c->levels - 1];
    wf_format(p, sizeof p, "%s.mid_block.resnets.0", side);
    WF_TRY(build_resnet(b, c, &m->first, p, d, d, err));
    if (c->mid_attention) {
        wf_format(p, sizeof p, "%s.mid_block.attentions.0", side);
        WF_TRY(wf_bind_norm(b, &m->norm, p, "group_norm", d, c->groups, EPS, err));
        WF_TRY(wf_bind_linear(b, &m->q, p, "to_q", d, d, true, err));
        WF_TRY(wf_bind_linear(b, &m->k, p, "to_k", d, d, true, err));
        WF_TRY(wf_bind_linear(b, &m->v, p, "to_v", d, d, true, err));
        WF_TRY(wf_bind_linear(b, &m->out, p, "to_out.0", d, d, true, err));
    }
    wf_format(p, sizeof p, "%s.mid_block.resnets.1", side);
    return build_resnet(b, c, &m->second, p, d, d, err);
}

/* A level of the encoder ("down_blocks", with downsampler) or of the decoder ("up_blocks", with
 * upsampler). */
static weft_status build_stage(wf_binder *b, const wf_vae_config *c, stage *s, bool down, int32_t i,
                               int32_t in, int32_t out, weft_error *err)
{
    char p[PATH];
    const char *side = down ? "encoder.down_blocks" : "decoder.up_blocks";
    int32_t count = c->layers + (down ? 0 : 1);
    s->resnets = wf_zalloc(b->alloc, (size_t)count, sizeof *s->resnets);
    if (s->resnets == NULL) return wf_nomem(err, (size_t)count * sizeof *s->resnets, side);
    s->count = count;
    for (int32_t j = 0; j < count; j++) {
        wf_format(p, sizeof p, "%s.%d.resnets.%d", side, i, j);
        WF_TRY(build_resnet(b, c, &s->resnets[j], p, j == 0 ? in : out, out, err));
    }
    if (i == c->levels - 1) return WEFT_OK;
    wf_format(p, sizeof p, "%s.%d.%s.0", side, i, down ? "downsamplers" : "upsamplers");
    WF_TRY(wf_bind_conv(b, &s->resample, p, "conv", out, out, 3, down ? 2 : 1, err));
    if (down) {
        wf_bind_last(b)->pad = 0;
        wf_bind_last(b)->asymmetric = true;
    }
    return WEFT_OK;
}

static weft_status build(wf_vae *v, wf_binder *b, weft_error *err)
{
    const wf_vae_config *c = &v->c;
    int32_t last = c->levels - 1, z = c->latent_channels;
    half *in = &v->encoder, *out = &v->decoder;

    WF_TRY(wf_bind_conv(b, &in->conv_in, "encoder", "conv_in", c->channels[0], c->in_channels, 3, 1,
                        err));
    for (int32_t i = 0; i <= last; i++)
        WF_TRY(build_stage(b, c, &in->stages[i], true, i, c->channels[i > 0 ? i - 1 : 0],
                           c->channels[i], err));
    WF_TRY(build_middle(b, c, &in->mid, "encoder", err));
    WF_TRY(wf_bind_norm(b, &in->norm_out, "encoder", "conv_norm_out", c->channels[last], c->groups,
                        EPS, err));
    WF_TRY(
        wf_bind_conv(b, &in->conv_out, "encoder", "conv_out", 2 * z, c->channels[last], 3, 1, err));
    if (c->quant_conv)
        WF_TRY(wf_bind_conv(b, &v->quant, "", "quant_conv", 2 * z, 2 * z, 1, 1, err));

    if (c->post_quant_conv)
        WF_TRY(wf_bind_conv(b, &v->post_quant, "", "post_quant_conv", z, z, 1, 1, err));
    WF_TRY(wf_bind_conv(b, &out->conv_in, "decoder", "conv_in", c->channels[last], z, 3, 1, err));
    WF_TRY(build_middle(b, c, &out->mid, "decoder", err));
    for (int32_t i = 0; i <= last; i++)
        WF_TRY(build_stage(b, c, &out->stages[i], false, i,
                           c->channels[i > 0 ? last - i + 1 : last], c->channels[last - i], err));
    WF_TRY(wf_bind_norm(b, &out->norm_out, "decoder", "conv_norm_out", c->channels[0], c->groups,
                        EPS, err));
    WF_TRY(wf_bind_conv(b, &out->conv_out, "decoder", "conv_out", c->out_channels, c->channels[0],
                        3, 1, err));
    return wf_bind_finish(b, err);
}

weft_status wf_vae_build(const wf_vae_config *config, wf_binder *b, wf_vae **out, weft_error *err)
{
    *out = NULL;
    wf_vae *v = wf_zalloc(b->alloc, 1, sizeof *v);
    if (v == NULL) return wf_nomem(err, sizeof *v, "the VAE");
    v->c = *config;
    weft_status st = build(v, b, err);
    if (st == WEFT_OK) *out = v;
    else wf_vae_free(v, b->alloc);
    return st;
}

void wf_vae_free(wf_vae *v, const weft_allocator *alloc)
{
    if (v == NULL) return;
    for (int32_t i = 0; i < WF_VAE_LEVELS; i++) {
        wf_free(alloc, v->encoder.stages[i].resnets);
        wf_free(alloc, v->decoder.stages[i].resnets);
    }
    wf_free(alloc, v);
}

const wf_vae_config *wf_vae_get_config(const wf_vae *v) { return &v->c; }

int32_t wf_vae_factor(const wf_vae *v) { return 1 << (v->c.levels - 1); }

bool wf_vae_old_name(const char *name, char *buf, size_t cap)
{
    static const char *const names[][2] = {
        { "to_q.", "query." }, { "to_k.", "key." }, { "to_v.", "value." }, { "to_out.0.", "proj_attn." },
    };
    for (size_t i = 0; i < WF_LEN(names); i++) {
        const char *at = strstr(name, names[i][0]);
        if (at != NULL)
            return wf_format(buf, cap, "%.*s%s%s", (int)(at - name), name, names[i][1],
                             at + strlen(names[i][0]));
    }
    return false;
}

/* ---- running --------------------------------------------------------------------------------- */

/* A half works between two buffers, x and spare, that are each large enough for any level: most of
 * an image's memory is here, so a resnet takes nothing besides. */
static size_t largest(const wf_vae *v, wf_grid image)
{
    size_t most = 0;
    const int32_t *c = v->c.channels;
    int32_t last = v->c.levels - 1;
    int32_t ends = WF_MAX(WF_MAX(v->c.in_channels, v->c.out_channels), 2 * v->c.latent_channels);
    for (int32_t i = 0; i <= last; i++) {
        int32_t wide = WF_MAX(2 * c[i], WF_MAX(c[WF_MAX(i - 1, 0)], c[WF_MIN(i + 1, last)]));
        if (i == 0 || i == last) wide = WF_MAX(wide, ends);
        if (i == last) wide = WF_MAX(wide, 4 * c[i]); /* the attention's */
        wf_grid g = wf_image_grid(image.n, WF_MAX(image.h >> i, 1), WF_MAX(image.w >> i, 1));
        most = WF_MAX(most, wf_rows(g) * (size_t)wide);
    }
    return most;
}

/* The rest of a buffer; a dry walk has none. */
static float *behind(float *p, size_t n) { return p != NULL ? p + n : NULL; }

/* shortcut(x) + conv2(act(norm2(conv1(act(norm1 x))))), returned in x, or in spare where there is a
 * shortcut; the other is lost. */
static float *run_resnet(const wf_vae *v, wf_exec *e, const resnet *r, float *x, float *spare,
                         wf_grid g)
{
    float *y = x, *a = spare, *h = behind(spare, wf_rows(g) * (size_t)r->out);

    /* With a shortcut x has served once y has begun, and is normalised in place: a buffer of its
     * own would take half as much memory again, and no gradient ever goes through a VAE here. */
    if (r->shortcut != NULL) {
        y = spare;
        a = x;
        wf_layer_apply(e, r->shortcut, y, x, g, false);
    }
    wf_group_norm(e, &r->norm1, a, x, g, v->c.act);
    wf_layer_apply(e, r->conv1, h, a, g, false);
    wf_group_norm(e, &r->norm2, a, h, g, v->c.act);
    wf_layer_apply(e, r->conv2, y, a, g, true);
    return y;
}

/* The middle has no shortcuts: its result is in x. */
static void run_middle(const wf_vae *v, wf_exec *e, const middle *m, float *x, float *spare,
                       wf_grid g)
{
    run_resnet(v, e, &m->first, x, spare, g);
    if (m->q != NULL) {
        size_t n = wf_rows(g) * (size_t)m->q->out;
        int32_t length = g.h * g.w;
        float *t = spare, *q = behind(spare, n), *k = behind(spare, 2 * n),
              *w = behind(spare, 3 * n);
        wf_group_norm(e, &m->norm, t, x, g, WF_ACT_NONE);
        wf_layer_apply(e, m->q, q, t, g, false);
        wf_layer_apply(e, m->k, k, t, g, false);
        wf_layer_apply(e, m->v, w, t, g, false);
        wf_attend(e, t, &(wf_attention){ .n = g.n, .heads = 1, .d = m->q->out, .lq = length, .q = q,
                                         .keys = &(wf_keys){ k, w, length }, .segments = 1 });
        wf_layer_apply(e, m->out, x, t, g, true);
    }
    run_resnet(v, e, &m->second, x, spare, g);
}

/* The levels of one half; returns which of the two buffers holds the result. */
static float *run_stages(const wf_vae *v, wf_exec *e, const half *h, float *x, float *spare,
                         wf_grid *g, bool down)
{
    for (int32_t i = 0; i < v->c.levels; i++) {
        const stage *s = &h->stages[i];
        for (int32_t j = 0; j < s->count; j++) {
            float *y = run_resnet(v, e, &s->resnets[j], x, spare, *g);
            if (s->resnets[j].shortcut == NULL) continue;
            spare = x;
            x = y;
        }
        if (s->resample == NULL) continue;
        if (down) {
            wf_layer_apply(e, s->resample, spare, x, *g, false);
            *g = wf_layer_grid(s->resample, *g);
            float *t = x;
            x = spare;
            spare = t;
        } else {
            wf_grid up = wf_image_grid(g->n, 2 * g->h, 2 * g->w);
            wf_upsample(e, spare, up, x, *g, (size_t)s->resample->in);
            wf_layer_apply(e, s->resample, x, spare, up, false);
            *g = up;
        }
    }
    return x;
}

void wf_vae_decode(const wf_vae *v, wf_exec *e, float *image, const float *z, wf_grid g)
{
    const wf_vae_config *c = &v->c;
    size_t mark = wf_arena_mark(&e->arena), zc = (size_t)c->latent_channels;
    int32_t f = wf_vae_factor(v);
    size_t size = largest(v, wf_image_grid(g.n, g.h * f, g.w * f));
    float *x = wf_take(e, size, 1);
    float *spare = wf_take(e, size, 1);

    wf_to_rows(e, x, z, g, zc);
    if (v->post_quant != NULL) {
        wf_layer_apply(e, v->post_quant, spare, x, g, false);
        wf_copy(e, x, spare, wf_rows(g) * zc);
    }
    wf_layer_apply(e, v->decoder.conv_in, spare, x, g, false);
    run_middle(v, e, &v->decoder.mid, spare, x, g);
    float *y = run_stages(v, e, &v->decoder, spare, x, &g, false);
    float *other = y == x ? spare : x;
    wf_group_norm(e, &v->decoder.norm_out, other, y, g, WF_ACT_SILU);
    wf_layer_apply(e, v->decoder.conv_out, y, other, g, false);
    wf_from_rows(e, image, y, g, (size_t)c->out_channels);
    wf_arena_release(&e->arena, mark);
}

void wf_vae_encode(const wf_vae *v, wf_exec *e, float *moments, const float *image, wf_grid g)
{
    const wf_vae_config *c = &v->c;
    size_t mark = wf_arena_mark(&e->arena), two = 2 * (size_t)c->latent_channels;
    size_t size = largest(v, g);
    float *x = wf_take(e, size, 1);
    float *spare = wf_take(e, size, 1);

    wf_to_rows(e, spare, image, g, (size_t)c->in_channels);
    wf_layer_apply(e, v->encoder.conv_in, x, spare, g, false);
    float *y = run_stages(v, e, &v->encoder, x, spare, &g, true);
    float *other = y == x ? spare : x;
    run_middle(v, e, &v->encoder.mid, y, other, g);
    wf_group_norm(e, &v->encoder.norm_out, other, y, g, WF_ACT_SILU);
    wf_layer_apply(e, v->encoder.conv_out, y, other, g, false);
    if (v->quant != NULL) {
        wf_layer_apply(e, v->quant, other, y, g, false);
        y = other;
    }
    wf_from_rows(e, moments, y, g, two);
    wf_arena_release(&e->arena, mark);
}
