/* clip_vision.c - pixels in, a row for the image and one for each of its patches out.
 *
 * The patches lie side by side, so the convolution that embeds them is a linear layer over rows of
 * 3 x patch x patch pixels. In front of them stands a learnt row, which stands for the whole image.
 * What remains of the image when it is cut into whole patches is left out, as a convolution without
 * padding leaves it out. */
#include "nets/clip_vision.h"
#include "nets/clip_layer.h"

struct wf_clip_vision {
    wf_clip_vision_config c;
    int32_t          side;     /* patches in a row */
    const float     *whole;    /* (hidden) */
    const wf_tensor *positions;
    const wf_layer  *patches, *projection;
    wf_norm          first, last;
    wf_clip_shape    shape;
    wf_clip_layer   *layers;
};

static weft_status build(wf_clip_vision *m, wf_binder *b, weft_error *err)
{
    static const char base[] = "vision_model";
    const wf_clip_vision_config *c = &m->c;
    int32_t d = c->hidden;

    WF_TRY(wf_bind_values(b, &m->whole, "vision_model.embeddings.class_embedding",
                          (int64_t[]){ d }, 1, err));
    WF_TRY(wf_bind_windows(b, &m->patches, base, "embeddings.patch_embedding", d, 3, c->patch,
                           err));
    WF_TRY(wf_bind_table(b, &m->positions, base, "embeddings.position_embedding",
                         wf_clip_vision_tokens(m), d, err));
    WF_TRY(wf_bind_norm(b, &m->first, base, "pre_layrnorm", d, 0, c->eps, err)); /* so in files */
    for (int32_t i = 0; i < c->layers; i++)
        WF_TRY(wf_clip_layer_bind(b, &m->layers[i], &m->shape, base, i, err));
    WF_TRY(wf_bind_norm(b, &m->last, base, "post_layernorm", d, 0, c->eps, err));
    WF_TRY(wf_bind_linear(b, &m->projection, "", "visual_projection", c->projection, d, false,
                          err));
    return wf_bind_finish(b, err);
}

weft_status wf_clip_vision_build(const wf_clip_vision_config *config, wf_binder *b,
                                 wf_clip_vision **out, weft_error *err)
{
    weft_status st;

    *out = NULL;
    wf_clip_vision *m = wf_zalloc(b->alloc, 1, sizeof *m);
    if (m == NULL) return wf_nomem(err, sizeof *m, "the image encoder");
    m->c = *config;
    m->side = config->image / config->patch;
    m->shape = (wf_clip_shape){ .hidden = config->hidden, .heads = config->heads,
                                .intermediate = config->intermediate, .eps = config->eps,
                                .act = config->act };
    m->layers = wf_zalloc(b->alloc, (size_t)config->layers, sizeof *m->layers);
    st = m->layers != NULL ? build(m, b, err)
                           : wf_nomem(err, (size_t)config->layers * sizeof *m->layers,
                                      "the image encoder");
    if (st == WEFT_OK) *out = m;
    else wf_clip_vision_free(m, b->alloc);
    return st;
}

void wf_clip_vision_free(wf_clip_vision *m, const weft_allocator *alloc)
{
    if (m == NULL) return;
    wf_free(alloc, m->layers);
    wf_free(alloc, m);
}

const wf_clip_vision_config *wf_clip_vision_get_config(const wf_clip_vision *m) { return &m->c; }
int32_t wf_clip_vision_tokens(const wf_clip_vision *m) { return 1 + m->side * m->side; }

/* windows (n, side side, 3 patch patch) = the image's patches, row by row. */
static void cut(const wf_clip_vision *m, float *windows, const float *pixels, int32_t n)
{
    size_t p = (size_t)m->c.patch, w = (size_t)m->c.image, side = (size_t)m->side;

    for (size_t s = 0; s < (size_t)n; s++)
        for (size_t i = 0; i < side * side; i++)
            for (size_t c = 0; c < 3; c++)
                for (size_t y = 0; y < p; y++, windows += p) {
                    size_t row = (s * 3 + c) * w + i / side * p + y;
                    memcpy(windows, pixels + row * w + i % side * p, p * sizeof *windows);
                }
}

/* x (n, tokens, hidden) = [whole, patches] + positions */
static void embed(const wf_clip_vision *m, wf_exec *e, float *x, const float *pixels, int32_t n)
{
    size_t d = (size_t)m->c.hidden, patches = (size_t)m->side * (size_t)m->side;
    size_t tokens = 1 + patches, rows = (size_t)n * patches, mark = wf_arena_mark(&e->arena);
    size_t window = 3 * (size_t)m->c.patch * (size_t)m->c.patch;
    size_t bytes = (size_t)(wf_dtype_bits(m->positions->dtype) / 8);
    float *windows = wf_take(e, rows, window);
    float *row = wf_take(e, rows, d);
    float *at = wf_take(e, 1, d);

    if (!e->dry && !e->stopped) cut(m, windows, pixels, n);
    wf_layer_apply(e, m->patches, row, windows, wf_image_grid(n, m->side, m->side), false);
    for (size_t r = 0; r < (size_t)n * tokens && !e->dry && !e->stopped; r++) {
        size_t s = r / tokens, t = r % tokens;
        wf_widen_any(at, m->positions->data + t * d * bytes, m->positions->dtype, d);
        memcpy(x + r * d, t == 0 ? m->whole : row + (s * patches + t - 1) * d, d * sizeof *x);
        e->k->add(x + r * d, at, d);
    }
    wf_arena_release(&e->arena, mark);
}

void wf_clip_vision_forward(const wf_clip_vision *m, wf_exec *e, const float *pixels, int32_t n,
                            float *hidden, float *pooled)
{
    int32_t tokens = wf_clip_vision_tokens(m);
    wf_grid g = wf_image_grid(n, tokens, 1);
    size_t rows = wf_rows(g), d = (size_t)m->c.hidden, mark = wf_arena_mark(&e->arena);
    float *x = wf_take(e, rows, d);
    float *t = wf_take(e, rows, d);

    embed(m, e, t, pixels, n);
    wf_layer_norm(e, &m->first, x, t, g);
    for (int32_t i = 0; i < m->c.layers; i++) {
        if (i == m->c.layers - 1 && hidden != NULL) wf_copy(e, hidden, x, rows * d);
        if (i < m->c.layers - 1 || pooled != NULL || e->dry)
            wf_clip_layer_run(e, &m->layers[i], &m->shape, x, g);
    }
    if (pooled != NULL || e->dry) { /* a dry walk has no buffers, and needs its share */
        wf_grid v = wf_vector_grid(n);
        for (size_t s = 0; s < (size_t)n && !e->dry && !e->stopped; s++)
            memmove(x + s * d, x + s * (size_t)tokens * d, d * sizeof *x);
        wf_layer_norm(e, &m->last, t, x, v);
        wf_layer_apply(e, m->projection, pooled, t, v, false);
    }
    wf_arena_release(&e->arena, mark);
}
