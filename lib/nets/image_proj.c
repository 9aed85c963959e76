/* image_proj.c - features of an image become rows beside the text.
 *
 *   base  norm(reshape(proj(pooled))): one linear layer gives all 4 rows
 *   full  norm(fc2(gelu(fc1(x)))) of each hidden state
 *   plus  a resampler: learnt latents attend, layer by layer, to the hidden states and to
 *         themselves, and come out as the rows
 *
 * Source: Ye et al., IP-Adapter: Text Compatible Image Prompt Adapter for Text-to-Image Diffusion
 * Models (2023); the resampler is Flamingo's (Alayrac et al., 2022). Names are those of the
 * published files. */
#include "nets/image_proj.h"
#include "weft/image_prompt.h"

enum { BASE_TOKENS = 4, FULL_TOKENS = 257, HEAD = 64, MAX_WIDTH = 1 << 16, MAX_LAYERS = 64 };

/* norm1 is of the features, norm2 of the latents. The file has k and v in one matrix. */
typedef struct resampler_layer {
    wf_norm         norm1, norm2, norm3;
    const wf_layer *q, *out, *ff_in, *ff_out;
    wf_layer        k, v;
} resampler_layer;

struct wf_image_proj {
    wf_image_proj_config c;
    const wf_layer  *in, *out; /* BASE: out; FULL: both; PLUS: at its ends */
    wf_norm          norm;
    const float     *latents;  /* (tokens, hidden) */
    resampler_layer *layers;
};

/* ---- what a file has ------------------------------------------------------------------------- */

static const wf_tensor *find(const weft_tensors *file, const char *name)
{
    return wf_tensors_find(file, name);
}

/* Side `axis` of a tensor of this rank. */
static weft_status side_of(int32_t *out, const weft_tensors *file, const char *name, int32_t rank,
                           int32_t axis, const char *path, weft_error *err)
{
    const wf_tensor *t = find(file, name);
    wf_shape_text shape;

    if (t == NULL)
        return wf_fail(err, WEFT_E_FORMAT,
                       "%s: tensor %s is missing, which every IP-Adapter of its kind has", path,
                       name);
    if (t->rank != rank || t->shape[axis] < 1 || t->shape[axis] > MAX_WIDTH)
        return wf_fail(err, WEFT_E_FORMAT, "%s: tensor %s is %s, wanted %d sides of 1 to %d", path,
                       name, wf_shape(&shape, t->shape, t->rank), (int)rank, MAX_WIDTH);
    *out = (int32_t)t->shape[axis];
    return WEFT_OK;
}

static weft_status look_at_base(wf_image_proj_config *c, const weft_tensors *file,
                                const char *path, weft_error *err)
{
    static const char proj[] = "image_proj.proj.weight";
    int32_t rows;

    WF_TRY(side_of(&rows, file, proj, 2, 0, path, err));
    WF_TRY(side_of(&c->features, file, proj, 2, 1, path, err));
    if (rows % BASE_TOKENS != 0)
        return wf_fail(err, WEFT_E_FORMAT, "%s: tensor %s has %d rows, wanted a multiple of %d",
                       path, proj, (int)rows, BASE_TOKENS);
    c->kind = WEFT_IMAGE_BASE;
    c->tokens = BASE_TOKENS;
    c->width = rows / BASE_TOKENS;
    return WEFT_OK;
}

static weft_status look_at_full(wf_image_proj_config *c, const weft_tensors *file,
                                const char *path, weft_error *err)
{
    WF_TRY(side_of(&c->hidden, file, "image_proj.proj.0.weight", 2, 0, path, err));
    WF_TRY(side_of(&c->features, file, "image_proj.proj.0.weight", 2, 1, path, err));
    WF_TRY(side_of(&c->width, file, "image_proj.proj.3.weight", 1, 0, path, err));
    c->kind = WEFT_IMAGE_FULL;
    c->tokens = FULL_TOKENS;
    return WEFT_OK;
}

static weft_status look_at_plus(wf_image_proj_config *c, const weft_tensors *file,
                                const char *path, weft_error *err)
{
    char name[64];

    WF_TRY(side_of(&c->tokens, file, "image_proj.latents", 3, 1, path, err));
    WF_TRY(side_of(&c->hidden, file, "image_proj.latents", 3, 2, path, err));
    WF_TRY(side_of(&c->features, file, "image_proj.proj_in.weight", 2, 1, path, err));
    WF_TRY(side_of(&c->width, file, "image_proj.proj_out.weight", 2, 0, path, err));
    WF_TRY(side_of(&c->inner, file, "image_proj.layers.0.0.to_q.weight", 2, 0, path, err));
    WF_TRY(side_of(&c->wide, file, "image_proj.layers.0.1.1.weight", 2, 0, path, err));
    if (c->tokens > 1024)
        return wf_fail(err, WEFT_E_FORMAT, "%s: image_proj.latents has %d rows, wanted 1 to 1024",
                       path, (int)c->tokens);
    if (c->inner % HEAD != 0)
        return wf_fail(err, WEFT_E_FORMAT,
                       "%s: image_proj.layers.0.0.to_q.weight has %d rows, wanted a multiple of "
                       "%d, the width of a head", path, (int)c->inner, HEAD);
    c->heads = c->inner / HEAD;
    for (c->layers = 0; c->layers < MAX_LAYERS; c->layers++) {
        wf_format(name, sizeof name, "image_proj.layers.%d.0.to_q.weight", (int)c->layers);
        if (find(file, name) == NULL) break;
    }
    c->kind = WEFT_IMAGE_PLUS;
    return WEFT_OK;
}

/* Projections that read something else than CLIP's features. */
static const struct { const char *has, *is; } others[] = {
    { "image_proj.perceiver_resampler.proj_in.weight",
      "for a face's features of InsightFace (FaceID Plus)" },
    { "image_proj.proj.2.weight", "for a face's features of InsightFace (FaceID)" },
    { "ip_adapter.0.to_q_lora.down.weight", "with LoRAs for a face's features (FaceID)" },
};

weft_status wf_image_proj_look(wf_image_proj_config *c, const weft_tensors *file, const char *path,
                               weft_error *err)
{
    *c = (wf_image_proj_config){ .tokens = 0 };
    bool full = find(file, "image_proj.proj.3.weight") != NULL;

    for (size_t i = 0; i < WF_LEN(others); i++)
        if (find(file, others[i].has) != NULL && !(full && i == 1))
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "%s is an IP-Adapter %s, which this version does not run: wanted one "
                           "for CLIP's features (base, plus or full)", path, others[i].is);
    if (find(file, "image_proj.proj.weight") != NULL) return look_at_base(c, file, path, err);
    if (full) return look_at_full(c, file, path, err);
    return look_at_plus(c, file, path, err);
}

/* ---- building -------------------------------------------------------------------------------- */

static weft_status build_layer(wf_image_proj *m, wf_binder *b, int32_t index, weft_error *err)
{
    const wf_image_proj_config *c = &m->c;
    resampler_layer *l = &m->layers[index];
    int32_t d = c->hidden;
    const wf_layer *both;
    char p[64], attention[72], forward[72];

    wf_format(p, sizeof p, "image_proj.layers.%d", (int)index);
    wf_format(attention, sizeof attention, "%s.0", p);
    wf_format(forward, sizeof forward, "%s.1", p);
    WF_TRY(wf_bind_norm(b, &l->norm1, attention, "norm1", d, 0, 1e-5f, err));
    WF_TRY(wf_bind_norm(b, &l->norm2, attention, "norm2", d, 0, 1e-5f, err));
    WF_TRY(wf_bind_linear(b, &l->q, attention, "to_q", c->inner, d, false, err));
    WF_TRY(wf_bind_linear(b, &both, attention, "to_kv", 2 * c->inner, d, false, err));
    WF_TRY(wf_bind_linear(b, &l->out, attention, "to_out", d, c->inner, false, err));
    WF_TRY(wf_bind_norm(b, &l->norm3, forward, "0", d, 0, 1e-5f, err));
    WF_TRY(wf_bind_linear(b, &l->ff_in, forward, "1", c->wide, d, false, err));
    WF_TRY(wf_bind_linear(b, &l->ff_out, forward, "3", d, c->wide, false, err));
    l->k = l->v = *both;
    l->k.out = l->v.out = c->inner;
    l->v.weight = (const uint8_t *)both->weight + (size_t)c->inner * (size_t)d *
                                                      (size_t)(wf_dtype_bits(both->dtype) / 8);
    return WEFT_OK;
}

static weft_status build(wf_image_proj *m, wf_binder *b, weft_error *err)
{
    static const char at[] = "image_proj";
    const wf_image_proj_config *c = &m->c;

    switch (c->kind) {
    case WEFT_IMAGE_BASE:
        WF_TRY(wf_bind_linear(b, &m->out, at, "proj", c->tokens * c->width, c->features, true,
                              err));
        return wf_bind_norm(b, &m->norm, at, "norm", c->width, 0, 1e-5f, err);
    case WEFT_IMAGE_FULL:
        WF_TRY(wf_bind_linear(b, &m->in, at, "proj.0", c->hidden, c->features, true, err));
        WF_TRY(wf_bind_linear(b, &m->out, at, "proj.2", c->width, c->hidden, true, err));
        return wf_bind_norm(b, &m->norm, at, "proj.3", c->width, 0, 1e-5f, err);
    default:
        m->layers = wf_zalloc(b->alloc, (size_t)c->layers, sizeof *m->layers);
        if (m->layers == NULL)
            return wf_nomem(err, (size_t)c->layers * sizeof *m->layers, "an image projection");
        WF_TRY(wf_bind_values(b, &m->latents, "image_proj.latents",
                              (int64_t[]){ 1, c->tokens, c->hidden }, 3, err));
        WF_TRY(wf_bind_linear(b, &m->in, at, "proj_in", c->hidden, c->features, true, err));
        for (int32_t i = 0; i < c->layers; i++) WF_TRY(build_layer(m, b, i, err));
        WF_TRY(wf_bind_linear(b, &m->out, at, "proj_out", c->width, c->hidden, true, err));
        return wf_bind_norm(b, &m->norm, at, "norm_out", c->width, 0, 1e-5f, err);
    }
}

weft_status wf_image_proj_build(const wf_image_proj_config *config, wf_binder *b,
                                wf_image_proj **out, weft_error *err)
{
    weft_status st;

    *out = NULL;
    wf_image_proj *m = wf_zalloc(b->alloc, 1, sizeof *m);
    if (m == NULL) return wf_nomem(err, sizeof *m, "an image projection");
    m->c = *config;
    st = build(m, b, err);
    if (st == WEFT_OK) *out = m;
    else wf_image_proj_free(m, b->alloc);
    return st;
}

void wf_image_proj_free(wf_image_proj *m, const weft_allocator *alloc)
{
    if (m == NULL) return;
    wf_free(alloc, m->layers);
    wf_free(alloc, m);
}

const wf_image_proj_config *wf_image_proj_get_config(const wf_image_proj *m) { return &m->c; }

/* ---- running --------------------------------------------------------------------------------- */

/* latents += out(attend(q(latents), k v of [features, latents])), both normed */
static void attend(const wf_image_proj *m, wf_exec *e, const resampler_layer *l, float *latents,
                   wf_grid own, const float *x, wf_grid from)
{
    size_t d = (size_t)m->c.hidden, inner = (size_t)m->c.inner, mark = wf_arena_mark(&e->arena);
    float *there = wf_take(e, wf_rows(from), d);
    float *here = wf_take(e, wf_rows(own), d);
    float *q = wf_take(e, wf_rows(own), inner);
    float *o = wf_take(e, wf_rows(own), inner);
    float *k1 = wf_take(e, wf_rows(from), inner);
    float *v1 = wf_take(e, wf_rows(from), inner);
    float *k2 = wf_take(e, wf_rows(own), inner);
    float *v2 = wf_take(e, wf_rows(own), inner);

    wf_layer_norm(e, &l->norm1, there, x, from);
    wf_layer_norm(e, &l->norm2, here, latents, own);
    wf_layer_apply(e, l->q, q, here, own, false);
    wf_layer_apply(e, &l->k, k1, there, from, false);
    wf_layer_apply(e, &l->v, v1, there, from, false);
    wf_layer_apply(e, &l->k, k2, here, own, false);
    wf_layer_apply(e, &l->v, v2, here, own, false);
    wf_attend(e, o, &(wf_attention){ .n = own.n, .heads = m->c.heads, .d = HEAD, .lq = own.h,
                                     .q = q, .keys = (wf_keys[]){ { k1, v1, from.h },
                                                                  { k2, v2, own.h } },
                                     .segments = 2 });
    wf_layer_apply(e, l->out, latents, o, own, true);
    wf_arena_release(&e->arena, mark);
}

/* y += fc2(gelu(fc1(norm y))); or without a norm y = of x */
static void feed_forward(wf_exec *e, const wf_layer *fc1, const wf_layer *fc2, float *y,
                         const float *x, wf_grid g, bool add)
{
    size_t mark = wf_arena_mark(&e->arena), wide = (size_t)fc1->out;
    float *a = wf_take(e, wf_rows(g), wide);

    wf_layer_apply(e, fc1, a, x, g, false);
    wf_activate(e, WF_ACT_GELU, a, a, wf_rows(g), wide);
    wf_layer_apply(e, fc2, y, a, g, add);
    wf_arena_release(&e->arena, mark);
}

static void resample(const wf_image_proj *m, wf_exec *e, const float *features, wf_grid from,
                     wf_grid own, float *rows)
{
    size_t d = (size_t)m->c.hidden, each = (size_t)own.h * d;
    float *x = wf_take(e, wf_rows(from), d);
    float *latents = wf_take(e, wf_rows(own), d);
    float *t = wf_take(e, wf_rows(own), d);

    wf_layer_apply(e, m->in, x, features, from, false);
    for (int32_t s = 0; s < own.n && !e->dry && !e->stopped; s++)
        memcpy(latents + (size_t)s * each, m->latents, each * sizeof *latents);
    for (int32_t i = 0; i < m->c.layers; i++) {
        const resampler_layer *l = &m->layers[i];
        attend(m, e, l, latents, own, x, from);
        wf_layer_norm(e, &l->norm3, t, latents, own);
        feed_forward(e, l->ff_in, l->ff_out, latents, t, own, true);
    }
    wf_layer_apply(e, m->out, rows, latents, own, false);
}

void wf_image_proj_forward(const wf_image_proj *m, wf_exec *e, const float *features, int32_t n,
                           int32_t length, float *rows)
{
    int32_t tokens = m->c.kind == WEFT_IMAGE_FULL ? length : m->c.tokens;
    wf_grid from = wf_text_grid(n, length), own = wf_text_grid(n, tokens);
    size_t mark = wf_arena_mark(&e->arena);
    float *t = wf_take(e, wf_rows(own), (size_t)m->c.width);

    if (m->c.kind == WEFT_IMAGE_BASE)
        wf_layer_apply(e, m->out, t, features, wf_vector_grid(n), false);
    else if (m->c.kind == WEFT_IMAGE_FULL)
        feed_forward(e, m->in, m->out, t, features, own, false);
    else
        resample(m, e, features, from, own, t);
    wf_layer_norm(e, &m->norm, rows, t, own);
    wf_arena_release(&e->arena, mark);
}
