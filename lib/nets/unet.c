/* unet.c - noise in, noise out: down, through the middle, up again over the skip connections.
 *
 * The building part walks the configuration in the order in which the running part executes, so
 * layer ids are the order of execution, but for the time's projection in a resnet: it is the bias
 * of the convolution before it. Running keeps one buffer per skip connection and one for
 * the way up; every other buffer lives for a block and is given back to the arena. */
#include "nets/config.h"
#include "nets/keys.h"
#include "nets/tape.h"
#include "weft/model.h"

typedef struct resnet {
    wf_norm         norm1, norm2;
    const wf_layer *conv1, *conv2, *time, *shortcut; /* shortcut NULL where in = out */
    int32_t         in, out;
    float           scale; /* its result is multiplied with it */
} resnet;

typedef struct attention {
    const wf_layer *q, *k, *v, *out;
    int32_t         heads;
    int32_t         number, of; /* among the self-attentions, as diffusers lists them */
} attention;

typedef struct block {
    wf_norm         norm1, norm2, norm3;
    attention       self, cross;
    const wf_layer *ff_in, *ff_out;
} block;

typedef struct transformer {
    wf_norm         norm;
    const wf_layer *proj_in, *proj_out;
    block          *blocks;
    int32_t         depth;
    int32_t         channels;
} transformer;

typedef struct stage {
    resnet         *resnets;
    transformer    *transformers; /* [count], or NULL without attention */
    const wf_layer *resample;     /* NULL at the last level             */
    int32_t         count;
} stage;

typedef struct wf_unet {
    wf_denoiser     denoiser; /* first: a wf_denoiser with wf_unet_ops is one of these */
    wf_unet_config  c;
    const wf_layer *conv_in, *conv_out, *time1, *time2, *add1, *add2;
    const wf_layer *guidance; /* cond_proj: added to the sinusoids of the time; NULL: the guidance
                                 is no input */
    wf_norm         norm_out;
    stage           down[WF_LEVELS], mid, up[WF_LEVELS];
} wf_unet;

/* ---- building -------------------------------------------------------------------------------- */

typedef struct name { char s[128]; } name;

static name join(const char *a, const char *b)
{
    name n;
    wf_format(n.s, sizeof n.s, "%s.%s", a, b);
    return n;
}

static name numbered(const char *a, const char *b, int32_t i)
{
    name n;
    wf_format(n.s, sizeof n.s, "%s.%s.%d", a, b, i);
    return n;
}

static weft_status build_resnet(wf_binder *b, const wf_unet_config *c, resnet *r, name at,
                                int32_t in, int32_t out, float scale, weft_error *err)
{
    const char *p = at.s;
    r->in = in;
    r->out = out;
    r->scale = scale;
    WF_TRY(wf_bind_norm(b, &r->norm1, p, "norm1", in, c->groups, c->eps, err));
    WF_TRY(wf_bind_conv(b, &r->conv1, p, "conv1", out, in, 3, 1, err));
    WF_TRY(wf_bind_linear(b, &r->time, p, "time_emb_proj", out, c->time_dim, true, err));
    WF_TRY(wf_bind_norm(b, &r->norm2, p, "norm2", out, c->groups, c->eps, err));
    WF_TRY(wf_bind_conv(b, &r->conv2, p, "conv2", out, out, 3, 1, err));
    if (in != out) WF_TRY(wf_bind_conv(b, &r->shortcut, p, "conv_shortcut", out, in, 1, 1, err));
    return WEFT_OK;
}

static weft_status build_attention(wf_binder *b, attention *a, name at, int32_t channels,
                                   int32_t context, int32_t heads, weft_error *err)
{
    const char *p = at.s;
    a->heads = heads;
    WF_TRY(wf_bind_linear(b, &a->q, p, "to_q", channels, channels, false, err));
    wf_bind_last(b)->attention = true;
    WF_TRY(wf_bind_linear(b, &a->k, p, "to_k", channels, context, false, err));
    wf_bind_last(b)->attention = true;
    WF_TRY(wf_bind_linear(b, &a->v, p, "to_v", channels, context, false, err));
    wf_bind_last(b)->attention = true;
    WF_TRY(wf_bind_linear(b, &a->out, p, "to_out.0", channels, channels, true, err));
    wf_bind_last(b)->attention = true;
    return WEFT_OK;
}

static weft_status build_block(wf_binder *b, block *k, name at, int32_t channels, int32_t context,
                               int32_t heads, weft_error *err)
{
    const char *p = at.s;
    WF_TRY(wf_bind_norm(b, &k->norm1, p, "norm1", channels, 0, 1e-5f, err));
    WF_TRY(build_attention(b, &k->self, join(p, "attn1"), channels, channels, heads, err));
    WF_TRY(wf_bind_norm(b, &k->norm2, p, "norm2", channels, 0, 1e-5f, err));
    WF_TRY(build_attention(b, &k->cross, join(p, "attn2"), channels, context, heads, err));
    WF_TRY(wf_bind_norm(b, &k->norm3, p, "norm3", channels, 0, 1e-5f, err));
    WF_TRY(wf_bind_linear(b, &k->ff_in, p, "ff.net.0.proj", 8 * channels, channels, true, err));
    WF_TRY(wf_bind_linear(b, &k->ff_out, p, "ff.net.2", channels, 4 * channels, true, err));
    return WEFT_OK;
}

static weft_status build_projection(wf_binder *b, const wf_unet_config *c, const wf_layer **out,
                                    const char *prefix, const char *what, int32_t channels,
                                    weft_error *err)
{
    return c->linear_projection
               ? wf_bind_linear(b, out, prefix, what, channels, channels, true, err)
               : wf_bind_conv(b, out, prefix, what, channels, channels, 1, 1, err);
}

static weft_status build_transformer(wf_binder *b, const wf_unet_config *c, transformer *t, name at,
                                     int32_t level, int32_t depth, weft_error *err)
{
    int32_t channels = c->channels[level];
    t->channels = channels;
    if (c->heads[level] < 1 || channels % c->heads[level] != 0)
        return wf_fail(err, WEFT_E_FORMAT, "%s: %d heads do not divide the %d channels of %s",
                       b->path, c->heads[level], channels, at.s);
    t->blocks = wf_zalloc(b->alloc, (size_t)depth, sizeof *t->blocks);
    if (t->blocks == NULL) return wf_nomem(err, (size_t)depth * sizeof *t->blocks, at.s);
    t->depth = depth;
    WF_TRY(wf_bind_norm(b, &t->norm, at.s, "norm", channels, c->groups, 1e-6f, err));
    WF_TRY(build_projection(b, c, &t->proj_in, at.s, "proj_in", channels, err));
    for (int32_t i = 0; i < t->depth; i++)
        WF_TRY(build_block(b, &t->blocks[i], numbered(at.s, "transformer_blocks", i), channels,
                           c->cross_dim[level], c->heads[level], err));
    return build_projection(b, c, &t->proj_out, at.s, "proj_out", channels, err);
}

/* A level: `count` resnets of widths in[j] -> out, with a transformer of depth[j] after each where
 * attention is (depth NULL: no attention). */
static weft_status build_stage(wf_binder *b, const wf_unet_config *c, stage *s, name at,
                               int32_t count, const int32_t *in, int32_t level,
                               const int32_t *depth, weft_error *err)
{
    int32_t out = c->channels[level];
    s->resnets = wf_zalloc(b->alloc, (size_t)count, sizeof *s->resnets);
    if (s->resnets == NULL) return wf_nomem(err, (size_t)count * sizeof *s->resnets, at.s);
    s->count = count;
    if (depth != NULL) {
        s->transformers = wf_zalloc(b->alloc, (size_t)count, sizeof *s->transformers);
        if (s->transformers == NULL)
            return wf_nomem(err, (size_t)count * sizeof *s->transformers, at.s);
    }
    for (int32_t j = 0; j < count; j++) {
        WF_TRY(build_resnet(b, c, &s->resnets[j], numbered(at.s, "resnets", j), in[j], out, 1.0f,
                            err));
        if (depth != NULL)
            WF_TRY(build_transformer(b, c, &s->transformers[j], numbered(at.s, "attentions", j),
                                     level, depth[j], err));
    }
    return WEFT_OK;
}

/* The convolution that halves the image, or follows on its doubling. */
static weft_status build_resample(wf_binder *b, const wf_unet_config *c, stage *s, name at,
                                  int32_t level, bool down, weft_error *err)
{
    int32_t width = c->channels[level];
    const char *what = down ? "downsamplers.0.conv" : "upsamplers.0.conv";

    WF_TRY(wf_bind_conv(b, &s->resample, at.s, what, width, width, 3, down ? 2 : 1, err));
    if (down && c->down_pad == 0) {
        wf_bind_last(b)->pad = 0;
        wf_bind_last(b)->asymmetric = true;
    }
    return WEFT_OK;
}

/* The middle: resnet, then, where it attends, (transformer, resnet). */
static weft_status build_mid(wf_binder *b, const wf_unet_config *c, stage *s, weft_error *err)
{
    int32_t level = c->levels - 1, channels = c->channels[level];
    float scale = 1.0f / c->mid_scale;
    s->resnets = wf_zalloc(b->alloc, 2, sizeof *s->resnets);
    s->transformers = c->mid_attention ? wf_zalloc(b->alloc, 1, sizeof *s->transformers) : NULL;
    if (s->resnets == NULL || (c->mid_attention && s->transformers == NULL))
        return wf_nomem(err, 2 * sizeof *s->resnets, "mid_block");
    s->count = 1; /* transformers */
    WF_TRY(build_resnet(b, c, &s->resnets[0], join("mid_block", "resnets.0"), channels, channels,
                        scale, err));
    if (!c->mid_attention) return WEFT_OK;
    WF_TRY(build_transformer(b, c, &s->transformers[0], join("mid_block", "attentions.0"), level,
                             c->mid_depth, err));
    return build_resnet(b, c, &s->resnets[1], join("mid_block", "resnets.1"), channels, channels,
                        scale, err);
}

static weft_status build(wf_unet *u, wf_binder *b, weft_error *err)
{
    const wf_unet_config *c = &u->c;
    int32_t skips[WF_LEVELS * 32], count = 0, last = c->levels - 1, wide = c->time_dim;
    name at;

    if (c->guidance_dim > 0)
        WF_TRY(wf_bind_linear(b, &u->guidance, "time_embedding", "cond_proj", c->channels[0],
                              c->guidance_dim, false, err));
    WF_TRY(wf_bind_linear(b, &u->time1, "time_embedding", "linear_1", wide, c->channels[0], true,
                          err));
    WF_TRY(wf_bind_linear(b, &u->time2, "time_embedding", "linear_2", wide, wide, true, err));
    if (c->text_time) {
        WF_TRY(wf_bind_linear(b, &u->add1, "add_embedding", "linear_1", wide, c->added_dim, true,
                              err));
        WF_TRY(wf_bind_linear(b, &u->add2, "add_embedding", "linear_2", wide, wide, true, err));
    }
    WF_TRY(wf_bind_conv(b, &u->conv_in, "", "conv_in", c->channels[0], c->in_channels,
                        c->in_kernel, 1, err));
    skips[count++] = c->channels[0];
    for (int32_t i = 0; i <= last; i++) {
        int32_t in[WF_LAYERS];
        for (int32_t j = 0; j < c->layers[i]; j++) {
            in[j] = j > 0 ? c->channels[i] : c->channels[i > 0 ? i - 1 : 0];
            skips[count++] = c->channels[i];
        }
        wf_format(at.s, sizeof at.s, "down_blocks.%d", i);
        WF_TRY(build_stage(b, c, &u->down[i], at, c->layers[i], in, i,
                           c->down_attention[i] ? c->down_depth[i] : NULL, err));
        if (i == last) continue;
        WF_TRY(build_resample(b, c, &u->down[i], at, i, true, err));
        skips[count++] = c->channels[i];
    }
    if (c->has_mid) WF_TRY(build_mid(b, c, &u->mid, err));
    int32_t below = c->channels[last];
    for (int32_t i = 0; i <= last; i++) {
        int32_t level = last - i, in[WF_LAYERS];
        for (int32_t j = 0; j <= c->layers[level]; j++)
            in[j] = (j > 0 ? c->channels[level] : below) + skips[--count];
        wf_format(at.s, sizeof at.s, "up_blocks.%d", i);
        WF_TRY(build_stage(b, c, &u->up[i], at, c->layers[level] + 1, in, level,
                           c->up_attention[i] ? c->up_depth[i] : NULL, err));
        if (i < last) WF_TRY(build_resample(b, c, &u->up[i], at, level, false, err));
        below = c->channels[level];
    }
    WF_TRY(
        wf_bind_norm(b, &u->norm_out, "", "conv_norm_out", c->channels[0], c->groups, c->eps, err));
    return wf_bind_conv(b, &u->conv_out, "", "conv_out", c->out_channels, c->channels[0],
                        c->out_kernel, 1, err);
}

static int32_t stage_cross_layers(const stage *s)
{
    int32_t n = 0;
    for (int32_t j = 0; s->transformers != NULL && j < s->count; j++) n += s->transformers[j].depth;
    return n;
}

/* Down, up, and only then the middle: so StyleAligned's program counts them. */
static void number_self_attentions(wf_unet *u, int32_t of)
{
    stage  *all[2 * WF_LEVELS + 1];
    int32_t stages = 0, number = 0;

    for (int32_t i = 0; i < u->c.levels; i++) all[stages++] = &u->down[i];
    for (int32_t i = 0; i < u->c.levels; i++) all[stages++] = &u->up[i];
    all[stages++] = &u->mid;
    for (int32_t i = 0; i < stages; i++)
        for (int32_t j = 0; all[i]->transformers != NULL && j < all[i]->count; j++)
            for (int32_t k = 0; k < all[i]->transformers[j].depth; k++) {
                all[i]->transformers[j].blocks[k].self.number = number++;
                all[i]->transformers[j].blocks[k].self.of = of;
            }
}

static int32_t count_cross_layers(const wf_unet *u)
{
    int32_t n = stage_cross_layers(&u->mid);
    for (int32_t i = 0; i < u->c.levels; i++)
        n += stage_cross_layers(&u->down[i]) + stage_cross_layers(&u->up[i]);
    return n;
}

enum {
    BASE_IDS = 6,
    REFINER_IDS = 5
}; /* original size, crop, target size; or original size, crop, score */
enum { SEQUENCE, POOLED };              /* streams */

static wf_denoiser_facts facts_of(const wf_unet *u)
{
    const wf_unet_config *c = &u->c;
    wf_denoiser_facts f = { .in_channels = c->in_channels,
                            .out_channels = c->out_channels,
                            .multiple = 1,
                            .sample_size = c->sample_size,
                            .time_ids = c->time_ids,
                            .guidance = c->guidance_dim > 0,
                            .deep = c->levels > 1 ? c->channels[1] : 0,
                            .streams = c->text_time ? 2 : 1 };
    f.base = c->text_time && c->time_ids == REFINER_IDS ? WEFT_BASE_SDXL_REFINER
             : c->text_time                             ? WEFT_BASE_SDXL
             : c->linear_projection                     ? WEFT_BASE_SD2
                                                        : WEFT_BASE_SD1;
    f.stream[SEQUENCE] =
        (wf_stream_facts){ WEFT_TEXT_SEQUENCE, c->cross_dim[0], count_cross_layers(u) };
    f.stream[POOLED] = (wf_stream_facts){ WEFT_TEXT_POOLED, c->pooled_dim, 0 };
    return f;
}

static void free_stage(stage *s, const weft_allocator *alloc)
{
    for (int32_t j = 0; s->transformers != NULL && j < s->count; j++)
        wf_free(alloc, s->transformers[j].blocks);
    wf_free(alloc, s->transformers);
    wf_free(alloc, s->resnets);
}

static void free_unet(wf_denoiser *d, const weft_allocator *alloc)
{
    wf_unet *u = (wf_unet *)d;
    for (int32_t i = 0; i < WF_LEVELS; i++) {
        free_stage(&u->down[i], alloc);
        free_stage(&u->up[i], alloc);
    }
    free_stage(&u->mid, alloc);
    wf_free(alloc, u);
}

weft_status wf_unet_build(const wf_unet_config *config, wf_binder *b, wf_denoiser **out,
                          weft_error *err)
{
    *out = NULL;
    wf_unet *u = wf_zalloc(b->alloc, 1, sizeof *u);
    if (u == NULL) return wf_nomem(err, sizeof *u, "the UNet");
    u->denoiser.ops = &wf_unet_ops;
    u->c = *config;
    weft_status st = build(u, b, err);
    if (st == WEFT_OK) st = wf_bind_finish(b, err);
    if (st != WEFT_OK) {
        free_unet(&u->denoiser, b->alloc);
        return st;
    }
    u->denoiser.facts = facts_of(u);
    number_self_attentions(u, count_cross_layers(u)); /* there are as many */
    *out = &u->denoiser;
    return WEFT_OK;
}

/* SDXL's base and its refiner write the same settings, and share the added channels out differently
 * between pooled vector and time ids: the width of the text encoders' pooled vector tells them
 * apart, or else model_index.json. */
static weft_status settle_time_ids(wf_unet_config *c, const char *path,
                                   const wf_denoiser_hints *hints, weft_error *err)
{
    int32_t refined = c->added_dim -
                      REFINER_IDS * c->time_id_dim; /* the pooled width that a refiner would have */
    if (!c->text_time) return WEFT_OK;
    if (hints->pooled >= 0 ? hints->pooled == refined : hints->aesthetic)
        WF_TRY(wf_config_time_ids(c, REFINER_IDS, path, err));
    if (hints->pooled <= 0 || hints->pooled == c->pooled_dim)
        return WEFT_OK; /* without one, no ids tell more */
    return wf_fail(err, WEFT_E_UNSUPPORTED,
                   "%s: the UNet takes %d added channels, which is not %d time ids of %d and "
                   "the pooled vector of %d",
                   path, c->added_dim, c->time_ids, c->time_id_dim, hints->pooled);
}

static weft_status read_and_build(const json_t *json, const char *path,
                                  const wf_denoiser_hints *hints, wf_binder *b, wf_denoiser **out,
                                  weft_error *err)
{
    wf_unet_config c;
    WF_TRY(wf_config_unet(&c, json, path, err));
    WF_TRY(settle_time_ids(&c, path, hints, err));
    return wf_unet_build(&c, b, out, err);
}

const wf_unet_config *wf_unet_get_config(const wf_denoiser *d)
{
    return d->ops == &wf_unet_ops ? &((const wf_unet *)d)->c : NULL;
}

/* ---- running --------------------------------------------------------------------------------- */

/* y = scale (shortcut(x) + conv2(act(norm2(conv1(act(norm1 x)) + time)))); y may be x where there
 * is no shortcut. The time is a bias of each sample. */
static void run_resnet(const wf_unet *u, wf_exec *e, const resnet *r, float *y, const float *x,
                       const float *temb, wf_grid g)
{
    size_t mark = wf_arena_mark(&e->arena);
    float *t = wf_take(e, (size_t)g.n, (size_t)r->out);
    float *h = wf_take(e, wf_rows(g), (size_t)r->out);
    size_t inner = wf_arena_mark(&e->arena);
    float *a = wf_take(e, wf_rows(g), (size_t)r->in);

    wf_group_norm(e, &r->norm1, a, x, g, u->c.act);
    wf_layer_apply(e, r->time, t, temb, wf_vector_grid(g.n), false);
    wf_layer_apply_to_each(e, r->conv1, h, a, g, t);
    wf_arena_release(&e->arena, inner);
    float *b = wf_take(e, wf_rows(g), (size_t)r->out);
    wf_group_norm(e, &r->norm2, b, h, g, u->c.act);
    if (r->shortcut != NULL) wf_layer_apply(e, r->shortcut, y, x, g, false);
    else wf_copy(e, y, x, wf_rows(g) * (size_t)r->out);
    wf_layer_apply(e, r->conv2, y, b, g, true);
    if (r->scale != 1.0f) wf_rescale(e, y, r->scale, 0.0f, wf_rows(g) * (size_t)r->out);
    wf_arena_release(&e->arena, mark);
}

typedef struct resnet_args {
    const wf_unet *u;
    const resnet  *r;
    float         *y;
    const float   *x, *temb;
    wf_grid        g;
} resnet_args;

static void run_resnet_segment(wf_exec *e, const void *args)
{
    const resnet_args *a = args;
    run_resnet(a->u, e, a->r, a->y, a->x, a->temb, a->g);
}

/* A resnet as a segment of a tape. What it reads is not written over later, but where y is x. */
static void pass_resnet(const wf_unet *u, wf_exec *e, const resnet *r, float *y, const float *x,
                        const float *temb, wf_grid g)
{
    resnet_args args = { u, r, y, x, temb, g };
    wf_segment_input in_place = { y, wf_rows(g) * (size_t)r->in };
    wf_segment(e, run_resnet_segment, &args, sizeof args, y, &in_place, y == x);
}

/* Text rows for cross-attention: gathered once if shared by all layers, or per layer on demand. */
typedef struct context {
    const wf_text_input *in;
    int32_t n;      /* samples        */
    float  *rows;   /* (n, tokens, d) */
    size_t  width;  /* of a sample    */
    int32_t next;   /* layer          */
} context;

/* Rows were copied from where each sample has its own: gx (n) += gy's first n, gy (width) = 0. */
typedef struct rows_entry { float *gx, *gy; size_t n, width; } rows_entry;

static void back_rows(wf_exec *e, const void *entry)
{
    const rows_entry *t = entry;
    if (t->gx != NULL) wf_grad_add(e, t->gx, t->gy, t->n);
    wf_grad_done(e, t->gy, t->width);
}

/* y (samples, width) begins in each sample with n floats from place `at` of its rows. */
static void record_rows(wf_exec *e, float *y, size_t samples, size_t width,
                        const float *const *rows, size_t at, size_t n)
{
    bool wanted = e->dry;

    for (size_t s = 0; s < samples && !wanted; s++) wanted = wf_wanted(e, rows[s]);
    if (!wf_track(e, y, false, wanted)) return;
    float *gy = wf_grad(e, y);
    for (size_t s = 0; s < samples; s++) {
        rows_entry *t = wf_record(e, back_rows, sizeof *t);
        if (t == NULL) return;
        float *gx = wf_grad(e, rows[s]);
        *t = (rows_entry){ gx != NULL ? gx + at : NULL, gy + s * width, n, width };
    }
}

static void gather_text(wf_exec *e, const context *c, int32_t layer)
{
    size_t at = (size_t)layer * c->width;

    for (int32_t s = 0; s < c->n && !e->dry && !e->stopped; s++)
        memcpy(c->rows + (size_t)s * c->width, c->in->rows[s] + at, c->width * sizeof *c->rows);
    record_rows(e, c->rows, (size_t)c->n, c->width, c->in->rows, at, c->width);
}

static void begin_text(wf_exec *e, context *c, const wf_text_input *in, int32_t n, int32_t dim)
{
    *c = (context){ .in = in, .n = n, .width = (size_t)in->tokens * (size_t)dim };
    c->rows = wf_take(e, (size_t)n, c->width);
    gather_text(e, c, 0);
}

/* (n, tokens, dim) of an image prompt's rows */
static float *gather_image(wf_exec *e, const wf_image_input *in, int32_t n, int32_t dim)
{
    size_t each = (size_t)in->tokens * (size_t)dim;
    float *rows = wf_take(e, (size_t)n, each);

    for (int32_t s = 0; s < n && !e->dry && !e->stopped; s++)
        memcpy(rows + (size_t)s * each, in->rows[s], each * sizeof *rows);
    return rows;
}

static const float *next_text(wf_exec *e, context *c)
{
    if (c->in->cross_layers == 0) return c->rows;
    if (wf_taped(e)) c->rows = wf_take(e, (size_t)c->n, c->width); /* the last layer's are needed */
    gather_text(e, c, c->next++);
    return c->rows;
}

/* What the attentions of an evaluation see: the text of the whole image, then that of each region;
 * and image prompts. */
typedef struct sight {
    context           text[1 + WF_REGIONS_MAX];
    const wf_regions *regions; /* NULL: none */
    float            *images[WF_IMAGES_MAX]; /* (n, tokens, d) */
    const wf_images  *prompts; /* NULL: none */
} sight;

/* Where keys and values come from. */
typedef struct source {
    const wf_layer *k, *v;
    const float    *rows;
    wf_grid         g;
    const wf_cell  *cells;  /* other coefficients than the call's; NULL: those               */
    bool            alone;  /* the layers are none of the model's: nothing hangs beside them */
    bool            unseen; /* nobody attends to them in this call: they are only kept       */
} source;

/* k and v of the source's rows, under the coefficients that count for it, or as they were kept. */
static void make_keys(wf_exec *e, const source *s, float *k, float *v, bool kept)
{
    const wf_cell *cells = e->cells;
    const size_t *lines = e->lines;
    const wf_delta *deltas = e->deltas;

    if (s->cells != NULL) e->cells = s->cells, e->lines = NULL;
    if (s->alone) e->deltas = NULL;
    if (kept) {
        wf_layer_kept(e, s->k, s->g);
        wf_layer_kept(e, s->v, s->g);
    } else {
        wf_layer_apply(e, s->k, k, s->rows, s->g, false);
        wf_layer_apply(e, s->v, v, s->rows, s->g, false);
    }
    e->cells = cells, e->lines = lines, e->deltas = deltas;
}

/* o = attend(q, k(source), v(source)). */
static void attend_to(wf_exec *e, const attention *a, float *o, const float *q, wf_grid g,
                      const source *s)
{
    int32_t channels = s->k->out, lk = s->g.h * s->g.w;
    size_t mark = wf_arena_mark(&e->arena), keys = wf_rows(s->g);
    bool kept = e->kept != NULL;
    float *k = kept ? wf_take_kept(e, keys, (size_t)channels) : wf_take(e, keys, (size_t)channels);
    float *v = kept ? wf_take_kept(e, keys, (size_t)channels) : wf_take(e, keys, (size_t)channels);

    make_keys(e, s, k, v, kept && e->kept->valid);
    if (!s->alone && wf_locates(e, a->q, g)) wf_locate_seen(e, q, k, a->heads, g, lk);
    if (!s->unseen)
        wf_attend(e, o, &(wf_attention){ .n = g.n, .heads = a->heads, .d = channels / a->heads,
                                         .lq = g.h * g.w, .q = q,
                                         .keys = &(wf_keys){ .k = k, .v = v, .length = lk },
                                         .segments = 1 });
    wf_arena_release(&e->arena, mark);
}

/* Does a self-attention stay as it is, of those that a share `level` of all are to? The authors'
 * program spreads them evenly, and rounds as it comes out; where it would divide by 0 none does. */
static bool stays_alone(double level, const attention *a)
{
    bool rather_all = level > 0.5;
    int32_t few = (int32_t)((rather_all ? 1 - level : level) * a->of);
    return rather_all != (few > 0 && a->number % (a->of / few) == 0);
}

/* o = attend to the pixels t of the own sample; under wf_align also to those of its reference, of
 * which queries, keys and values take on mean and deviation, or to those of the whole group. */
static void attend_to_pixels(wf_exec *e, const attention *a, float *o, float *q, wf_grid g,
                             const float *t, const int32_t *group)
{
    int32_t channels = a->q->out, pixels = g.h * g.w, each = 1;
    size_t mark = wf_arena_mark(&e->arena), c = (size_t)channels;
    const wf_align *with = e->align;
    float *k = wf_take(e, wf_rows(g), c);
    float *v = wf_take(e, wf_rows(g), c);

    wf_layer_apply(e, a->k, k, t, g, false);
    wf_layer_apply(e, a->v, v, t, g, false);
    if (with != NULL && stays_alone(with->own, a)) with = NULL;
    if (with != NULL && with->full) { /* a group lies in memory as one sample */
        each = with->group;
        with = NULL;
    }
    if (with != NULL && with->queries) wf_adapt_to_reference(e, q, g, c);
    if (with != NULL && with->keys) wf_adapt_to_reference(e, k, g, c);
    if (with != NULL && with->values) wf_adapt_to_reference(e, v, g, c);
    const wf_keys keys[] = { { k, v, each * pixels }, { k, v, pixels } };
    bool lent = with != NULL && with->attention;
    wf_attend(e, o,
              &(wf_attention){ .n = g.n / each,
                               .heads = a->heads,
                               .d = channels / a->heads,
                               .lq = each * pixels,
                               .q = q,
                               .keys = keys,
                               .segments = lent ? 2 : 1,
                               .shared = lent ? with->group : 0,
                               .factor = lent ? with->scale : 1,
                               .shift = lent ? with->shift : 0,
                               .group = group });
    wf_arena_release(&e->arena, mark);
}

/* The share of each pixel that a region, or an image prompt, has. */
static const float *share_of(wf_exec *e, const wf_mask *mask, wf_grid g)
{
    const float *share = e->dry ? NULL : wf_mask_rows(mask, g.h, g.w);
    if (share == NULL && !e->dry) e->stopped = e->arena.overflow = true; /* of other sizes */
    return share;
}

/* What the regions leave of each pixel. */
static void fill_rest(wf_exec *e, float *rest, const wf_regions *r, wf_grid g)
{
    for (size_t i = 0; i < (size_t)g.h * (size_t)g.w && !e->dry && !e->stopped; i++) {
        double sum = 0;
        for (int32_t k = 0; k < r->count && !e->stopped; k++) {
            const float *share = share_of(e, r->at[k].mask, g);
            if (share != NULL) sum += (double)share[i];
        }
        rest[i] = sum < 1 ? (float)(1 - sum) : 0;
    }
}

/* Two regions that cover a pixel alike have half of it each, and rounding must not decide between
 * them. */
#define MORE_THAN_HALF 0.501f

/* 1 + the isolated region that has more than half of a pixel, or 0; NULL: nothing is isolated. */
static const int32_t *group_pixels(wf_exec *e, const wf_regions *r, wf_grid g)
{
    size_t pixels = (size_t)g.h * (size_t)g.w;
    int32_t isolated = 0;

    for (int32_t k = 0; r != NULL && k < r->count; k++) isolated += r->at[k].isolated;
    if (isolated == 0) return NULL;
    int32_t *group = (int32_t *)(void *)wf_take(e, pixels, 1);
    if (group != NULL) memset(group, 0, pixels * sizeof *group);
    for (int32_t k = 0; k < r->count && group != NULL; k++) {
        const float *share = r->at[k].isolated ? share_of(e, r->at[k].mask, g) : NULL;
        for (size_t i = 0; i < pixels && share != NULL; i++)
            if (share[i] > MORE_THAN_HALF) group[i] = 1 + k;
    }
    return group;
}

static source text_source(wf_exec *e, const attention *a, context *text, int32_t n,
                          const wf_cell *cells)
{
    return (source){ .k = a->k, .v = a->v, .rows = next_text(e, text),
                     .g = wf_text_grid(n, text->in->tokens), .cells = cells };
}

/* o = attend to the text of the whole image; under regions each pixel takes the mean of what it
 * sees in the texts, by the regions' shares of it. */
static void attend_to_texts(wf_exec *e, const attention *a, float *o, const float *q, wf_grid g,
                            sight *s)
{
    const wf_regions *r = s->regions;
    size_t mark = wf_arena_mark(&e->arena), channels = (size_t)a->q->out;
    source whole = text_source(e, a, &s->text[0], g.n, r != NULL ? r->cells : NULL);

    attend_to(e, a, o, q, g, &whole);
    if (r == NULL) return;
    float *rest = wf_take(e, (size_t)g.h * (size_t)g.w, 1);
    float *own = wf_take(e, wf_rows(g), channels);
    fill_rest(e, rest, r, g);
    wf_weigh_rows(e, o, NULL, rest, g, channels);
    for (int32_t k = 0; k < r->count; k++) {
        source part = text_source(e, a, &s->text[1 + k], g.n, r->at[k].cells);
        attend_to(e, a, own, q, g, &part);
        wf_weigh_rows(e, o, own, share_of(e, r->at[k].mask, g), g, channels);
    }
    wf_arena_release(&e->arena, mark);
}

/* o += weight attend(q, keys and values of the rows), of one image prompt. One without weight in
 * this call is passed over, but for what is kept of it. */
static void attend_to_image(wf_exec *e, const attention *a, float *o, const float *q, wf_grid g,
                            const wf_image_input *in, const float *rows)
{
    const wf_image_at *at = &in->at[a->k->id];
    float weight = in->weight * at->factor;
    size_t mark = wf_arena_mark(&e->arena), channels = (size_t)a->q->out,
           pixels = (size_t)g.h * (size_t)g.w;
    source s = { .k = at->pair.k, .v = at->pair.v, .rows = rows,
                 .g = wf_text_grid(g.n, in->tokens), .alone = true };

    s.unseen = weight == 0 && (!e->dry || e->exact);
    if (s.unseen) {
        if (e->kept != NULL) attend_to(e, a, NULL, q, g, &s);
        else wf_layer_skip(e), wf_layer_skip(e);
        return;
    }
    float *own = wf_take(e, wf_rows(g), channels);
    float *share = wf_take(e, pixels, 1);
    attend_to(e, a, own, q, g, &s);
    const float *mask = in->mask != NULL ? share_of(e, in->mask, g) : NULL;
    for (size_t i = 0; i < pixels && !e->dry && !e->stopped; i++)
        share[i] = mask != NULL ? weight * mask[i] : weight;
    wf_weigh_rows(e, o, own, share, g, channels);
    wf_arena_release(&e->arena, mark);
}

/* x += out(attend(q(t), k(c), v(c))) where t = norm(x) and c = t, or with `cross` the text. */
static void run_attention(wf_exec *e, const attention *a, const wf_norm *norm, float *x, wf_grid g,
                          sight *s, bool cross)
{
    size_t mark = wf_arena_mark(&e->arena), rows = wf_rows(g), channels = (size_t)a->q->out;
    float *t = wf_take(e, rows, channels);
    float *q = wf_take(e, rows, channels);
    float *o = wf_take(e, rows, channels);

    wf_layer_norm(e, norm, t, x, g);
    wf_layer_apply(e, a->q, q, t, g, false);
    if (cross) attend_to_texts(e, a, o, q, g, s);
    else attend_to_pixels(e, a, o, q, g, t, group_pixels(e, s->regions, g));
    for (int32_t i = 0; cross && s->prompts != NULL && i < s->prompts->count; i++)
        if (s->prompts->of[i].at[a->k->id].pair.k != NULL)
            attend_to_image(e, a, o, q, g, &s->prompts->of[i], s->images[i]);
    bool noted = !cross && wf_locates(e, a->q, g);
    if (noted) wf_locate_inner(e, x, -1, g);
    wf_layer_apply(e, a->out, x, o, g, true);
    if (noted && !e->stopped) wf_locate_inner(e, x, 1, g);
    wf_arena_release(&e->arena, mark);
}

static void run_feed_forward(wf_exec *e, const block *k, float *x, wf_grid g, int32_t channels)
{
    size_t mark = wf_arena_mark(&e->arena), rows = wf_rows(g), c = (size_t)channels;
    float *n = wf_take(e, rows, c);
    float *t = wf_take(e, rows, 4 * c);

    wf_layer_norm(e, &k->norm3, n, x, g);
    wf_layer_apply_gated(e, k->ff_in, t, n, g);
    wf_layer_apply(e, k->ff_out, x, t, g, true);
    wf_arena_release(&e->arena, mark);
}

typedef struct block_args {
    const block *k;
    float       *x;
    wf_grid      g;
    context      text; /* at the block's layer: running it moves a copy on */
} block_args;

static void run_self_segment(wf_exec *e, const void *args)
{
    const block_args *a = args;
    sight none = { .regions = NULL };
    run_attention(e, &a->k->self, &a->k->norm1, a->x, a->g, &none, false);
}

static void run_cross_segment(wf_exec *e, const void *args)
{
    const block_args *a = args;
    sight s = { .text = { a->text } };
    run_attention(e, &a->k->cross, &a->k->norm2, a->x, a->g, &s, true);
}

static void run_feed_segment(wf_exec *e, const void *args)
{
    const block_args *a = args;
    run_feed_forward(e, a->k, a->x, a->g, a->k->ff_out->out);
}

/* A block as three segments of a tape. */
static void pass_block(wf_exec *e, const block *k, float *x, wf_grid g, context *text)
{
    block_args args = { k, x, g, *text };
    wf_segment_input in = { x, wf_rows(g) * (size_t)k->ff_out->out };

    wf_segment(e, run_self_segment, &args, sizeof args, x, &in, 1);
    wf_segment(e, run_cross_segment, &args, sizeof args, x, &in, 1);
    wf_segment(e, run_feed_segment, &args, sizeof args, x, &in, 1);
    if (text->in->cross_layers > 0) text->next++;
}

/* x += proj_out(blocks(proj_in(norm x))) */
static void run_transformer(wf_exec *e, const transformer *t, float *x, wf_grid g, sight *text)
{
    size_t mark = wf_arena_mark(&e->arena), rows = wf_rows(g), c = (size_t)t->channels;
    float *h = wf_take(e, rows, c);
    size_t inner = wf_arena_mark(&e->arena);
    float *n = wf_take(e, rows, c);

    wf_group_norm(e, &t->norm, n, x, g, WF_ACT_NONE);
    wf_layer_apply(e, t->proj_in, h, n, g, false);
    wf_arena_release(&e->arena, inner);
    for (int32_t i = 0; i < t->depth; i++) {
        const block *k = &t->blocks[i];
        if (wf_taped(e)) {
            pass_block(e, k, h, g, &text->text[0]);
            continue;
        }
        run_attention(e, &k->self, &k->norm1, h, g, text, false);
        run_attention(e, &k->cross, &k->norm2, h, g, text, true);
        run_feed_forward(e, k, h, g, t->channels);
    }
    wf_layer_apply(e, t->proj_out, x, h, g, true);
    wf_arena_release(&e->arena, mark);
}

/* x = act(x); a tape needs the old x, so there the result lies elsewhere. */
static float *activate_in_place(wf_exec *e, wf_act act, float *x, size_t n, size_t wide)
{
    float *y = act != WF_ACT_NONE && wf_taped(e) ? wf_take(e, n, wide) : x;
    wf_activate(e, act, y, x, n, wide);
    return y;
}

/* [pooled text, sinusoids of the time ids] (n, added_dim) */
static float *embed_size(const wf_unet *u, wf_exec *e, const wf_denoise_input *in)
{
    const wf_unet_config *c = &u->c;
    size_t n = (size_t)in->grid.n, ids = (size_t)c->time_ids, dim = (size_t)c->time_id_dim;
    size_t width = (size_t)c->added_dim, pooled = (size_t)c->pooled_dim;
    const float *const *rows = in->text[POOLED].rows;
    float *added = wf_take(e, n, width);
    float *angles = wf_take(e, n * ids, dim);

    wf_sinusoid(e, angles, in->time_ids, n * ids, c->time_id_dim, c->flip_sin_to_cos,
                c->freq_shift);
    for (size_t s = 0; s < n && !e->dry && !e->stopped; s++) {
        memcpy(added + s * width, rows[s], pooled * sizeof *added);
        memcpy(added + s * width + pooled, angles + s * ids * dim, ids * dim * sizeof *added);
    }
    record_rows(e, added, n, width, rows, 0, pooled);
    return added;
}

/* act(time embedding + added conditioning), as every resnet wants it: (n, time_dim) */
static float *embed_time(const wf_unet *u, wf_exec *e, const wf_denoise_input *in)
{
    const wf_unet_config *c = &u->c;
    size_t n = (size_t)in->grid.n, wide = (size_t)c->time_dim;
    wf_grid g = wf_vector_grid(in->grid.n);
    float *temb = wf_take(e, n, wide);
    size_t mark = wf_arena_mark(&e->arena);
    float *sum = wf_take(e, n, wide);
    size_t inner = wf_arena_mark(&e->arena);
    float *hidden = wf_take(e, n, wide);
    float *acted = wf_take(e, n, wide);
    float *sinusoid = wf_take(e, n, (size_t)c->channels[0]);

    wf_sinusoid(e, sinusoid, in->timestep, n, c->channels[0], c->flip_sin_to_cos, c->freq_shift);
    if (u->guidance != NULL) { /* Meng et al., On Distillation of Guided Diffusion Models (2022) */
        float *angles = wf_take(e, n, (size_t)c->guidance_dim);
        float *w = wf_take(e, n, 1);
        for (size_t s = 0; s < n && !e->dry && !e->stopped; s++)
            w[s] = (in->guidance[s] - 1.0f) * 1000.0f;
        wf_sinusoid(e, angles, w, n, c->guidance_dim, false, 1.0);
        wf_layer_apply(e, u->guidance, sinusoid, angles, g, true);
    }
    wf_layer_apply(e, u->time1, hidden, sinusoid, g, false);
    wf_activate(e, c->act, acted, hidden, n, wide);
    wf_layer_apply(e, u->time2, sum, acted, g, false);
    sum = activate_in_place(e, c->time_post_act, sum, n, wide);
    if (c->text_time) {
        wf_arena_release(&e->arena, inner);
        hidden = wf_take(e, n, wide);
        acted = wf_take(e, n, wide);
        float *added = embed_size(u, e, in);
        wf_layer_apply(e, u->add1, hidden, added, g, false);
        wf_activate(e, WF_ACT_SILU, acted, hidden, n, wide);
        wf_layer_apply(e, u->add2, sum, acted, g, true);
    }
    sum = activate_in_place(e, c->time_act, sum, n, wide);
    wf_activate(e, c->act, temb, sum, n, wide);
    wf_arena_release(&e->arena, mark);
    return temb;
}

typedef struct skip { float *x; wf_grid g; int32_t channels; } skip;

/* Floats of the buffer that carries the image up again: at each level its own width or that from
 * below. */
static size_t largest(const wf_unet *u, const wf_grid *grids)
{
    size_t most = 0;
    for (int32_t i = 0; i < u->c.levels; i++) {
        int32_t below = u->c.channels[i + 1 < u->c.levels ? i + 1 : i];
        most = WF_MAX(most, wf_rows(grids[i]) * (size_t)WF_MAX(u->c.channels[i], below));
    }
    return most;
}

/* Between the outermost level on the way down and on the way up nothing is computed: layers and text
 * rows are counted as passed. Each region and image prompt has keys and values of its own. */
static void pass_inner(const wf_unet *u, wf_exec *e, sight *s)
{
    int32_t last = u->c.levels - 1, regions = s->regions != NULL ? s->regions->count : 0;
    int32_t layers = u->up[last].resnets[0].conv1->id - u->down[0].resample->id;
    int32_t before = count_cross_layers(u) - stage_cross_layers(&u->up[last]);

    layers += 2 * regions * (before - stage_cross_layers(&u->down[0]));
    for (int32_t i = 0; s->prompts != NULL && i < s->prompts->count; i++)
        for (int32_t l = u->down[0].resample->id; l < u->up[last].resnets[0].conv1->id; l++)
            layers += s->prompts->of[i].at[l].pair.k != NULL ? 2 : 0;
    for (int32_t l = 0; l < layers; l++) wf_layer_skip(e);
    for (int32_t i = 0; i <= regions; i++) s->text[i].next = before;
}

/* carry (rows, channels) of each sample is what is kept of it, or the other way round. */
static void take_deep(const wf_exec *e, float *carry, int32_t samples)
{
    for (int32_t s = 0; s < samples && !e->dry && !e->stopped; s++) {
        float *kept = e->deep->floats + (size_t)e->deep->slot[s] * e->deep->each;
        float *own = carry + (size_t)s * e->deep->each;
        memcpy(e->deep->read ? own : kept, e->deep->read ? kept : own,
               e->deep->each * sizeof *own);
    }
}

static void forward(const wf_denoiser *d, wf_exec *e, float *out, const wf_denoise_input *in)
{
    const wf_unet *u = (const wf_unet *)d;
    const wf_unet_config *c = &u->c;
    size_t start = wf_arena_mark(&e->arena);
    skip skips[WF_LEVELS * 32];
    int32_t count = 0, last = c->levels - 1;
    wf_grid g = in->grid, grids[WF_LEVELS];

    if (in->regions != NULL || in->images != NULL || e->kept != NULL || e->deep != NULL ||
        e->align != NULL || e->locate != NULL)
        wf_no_way_back(e);
    sight text = { .regions = in->regions, .prompts = in->images };
    begin_text(e, &text.text[0], &in->text[SEQUENCE], g.n, c->cross_dim[0]);
    for (int32_t i = 0; in->regions != NULL && i < in->regions->count; i++)
        begin_text(e, &text.text[1 + i], &in->regions->at[i].text, g.n, c->cross_dim[0]);
    for (int32_t i = 0; in->images != NULL && i < in->images->count; i++)
        text.images[i] = gather_image(e, &in->images->of[i], g.n, c->cross_dim[0]);
    float *temb = embed_time(u, e, in);

    float *rows = wf_take(e, wf_rows(g), (size_t)c->in_channels);
    wf_to_rows(e, rows, in->latent, g, (size_t)c->in_channels);
    if (c->center) wf_rescale(e, rows, 2.0f, -1.0f, wf_rows(g) * (size_t)c->in_channels);
    float *h = wf_take(e, wf_rows(g), (size_t)c->channels[0]);
    wf_layer_apply(e, u->conv_in, h, rows, g, false);
    skips[count++] = (skip){ h, g, c->channels[0] };

    bool reuse = e->deep != NULL && e->deep->read;
    for (int32_t i = 0; i <= last; i++) {
        const stage *s = &u->down[i];
        if (reuse && i > 0) break;
        grids[i] = g;
        for (int32_t j = 0; j < s->count; j++) {
            float *y = wf_take(e, wf_rows(g), (size_t)c->channels[i]);
            pass_resnet(u, e, &s->resnets[j], y, h, temb, g);
            if (s->transformers != NULL) run_transformer(e, &s->transformers[j], y, g, &text);
            skips[count++] = (skip){ h = y, g, c->channels[i] };
        }
        if (s->resample != NULL && !reuse) {
            wf_grid half = wf_layer_grid(s->resample, g);
            float *y = wf_take(e, wf_rows(half), (size_t)c->channels[i]);
            wf_layer_apply(e, s->resample, y, h, g, false);
            skips[count++] = (skip){ h = y, g = half, c->channels[i] };
        }
    }

    float *carry = reuse ? wf_take(e, wf_rows(g), (size_t)WF_MAX(c->channels[0], c->channels[1]))
                         : wf_take(e, largest(u, grids), 1);
    int32_t wide = c->channels[last];
    if (reuse) {
        pass_inner(u, e, &text);
        wide = c->channels[1];
    } else {
        wf_copy(e, carry, h, wf_rows(g) * (size_t)wide);
    }
    if (c->has_mid && !reuse) {
        pass_resnet(u, e, &u->mid.resnets[0], carry, carry, temb, g);
        if (c->mid_attention) {
            run_transformer(e, &u->mid.transformers[0], carry, g, &text);
            pass_resnet(u, e, &u->mid.resnets[1], carry, carry, temb, g);
        }
    }
    for (int32_t i = reuse ? last : 0; i <= last; i++) {
        const stage *s = &u->up[i];
        if (i == last && e->deep != NULL) take_deep(e, carry, g.n);
        for (int32_t j = 0; j < s->count; j++) {
            const skip *k = &skips[--count];
            size_t mark = wf_arena_mark(&e->arena);
            float *both = wf_take(e, wf_rows(g), (size_t)(wide + k->channels));
            wf_concat(e, both, carry, (size_t)wide, k->x, (size_t)k->channels, wf_rows(g));
            pass_resnet(u, e, &s->resnets[j], carry, both, temb, g);
            wf_arena_release(&e->arena, mark);
            wide = s->resnets[j].out;
            if (s->transformers != NULL) run_transformer(e, &s->transformers[j], carry, g, &text);
        }
        if (s->resample != NULL) {
            wf_grid up =
                skips[count - 1]
                    .g; /* the next skip's size: twice ours, or one less where that was odd */
            size_t mark = wf_arena_mark(&e->arena);
            float *large = wf_take(e, wf_rows(up), (size_t)wide);
            wf_upsample(e, large, up, carry, g, (size_t)wide);
            wf_layer_apply(e, s->resample, carry, large, up, false);
            wf_arena_release(&e->arena, mark);
            g = up;
        }
    }
    float *n = wf_take(e, wf_rows(g), (size_t)c->channels[0]);
    wf_group_norm(e, &u->norm_out, n, carry, g, c->act);
    float *y = wf_take(e, wf_rows(g), (size_t)c->out_channels);
    wf_layer_apply(e, u->conv_out, y, n, g, false);
    wf_from_rows(e, out, y, g, (size_t)c->out_channels);
    wf_arena_release(&e->arena, start);
}

const wf_denoiser_ops wf_unet_ops = { "UNet2DConditionModel", wf_unet_keys, read_and_build,
                                      free_unet, forward };
