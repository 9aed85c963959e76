/* clip.c - token ids in, one vector for each token out: pre-norm transformer with a causal mask.
 *
 * Padding is not masked, as in the original: what a prompt is padded with is part of what it says.
 */
#include "nets/clip.h"

typedef struct layer {
    wf_norm         norm1, norm2;
    const wf_layer *q, *k, *v, *out, *fc1, *fc2;
} layer;

struct wf_clip {
    wf_clip_config   c;
    const wf_tensor *tokens, *positions;
    wf_norm          final;
    const wf_layer  *projection;
    layer           *layers;
};

static weft_status build(wf_clip *m, wf_binder *b, weft_error *err)
{
    const wf_clip_config *c = &m->c;
    const char *base = "text_model";
    char p[96];
    int32_t d = c->hidden;

    WF_TRY(wf_bind_table(b, &m->tokens, base, "embeddings.token_embedding", c->vocab, d, err));
    WF_TRY(wf_bind_table(b, &m->positions, base, "embeddings.position_embedding", c->positions, d,
                         err));
    for (int32_t i = 0; i < c->layers; i++) {
        layer *l = &m->layers[i];
        wf_format(p, sizeof p, "%s.encoder.layers.%d", base, i);
        WF_TRY(wf_bind_norm(b, &l->norm1, p, "layer_norm1", d, 0, c->eps, err));
        WF_TRY(wf_bind_linear(b, &l->q, p, "self_attn.q_proj", d, d, true, err));
        WF_TRY(wf_bind_linear(b, &l->k, p, "self_attn.k_proj", d, d, true, err));
        WF_TRY(wf_bind_linear(b, &l->v, p, "self_attn.v_proj", d, d, true, err));
        WF_TRY(wf_bind_linear(b, &l->out, p, "self_attn.out_proj", d, d, true, err));
        WF_TRY(wf_bind_norm(b, &l->norm2, p, "layer_norm2", d, 0, c->eps, err));
        WF_TRY(wf_bind_linear(b, &l->fc1, p, "mlp.fc1", c->intermediate, d, true, err));
        WF_TRY(wf_bind_linear(b, &l->fc2, p, "mlp.fc2", d, c->intermediate, true, err));
    }
    WF_TRY(wf_bind_norm(b, &m->final, base, "final_layer_norm", d, 0, c->eps, err));
    if (c->projection > 0)
        WF_TRY(
            wf_bind_linear(b, &m->projection, "", "text_projection", c->projection, d, false, err));
    return wf_bind_finish(b, err);
}

weft_status wf_clip_build(const wf_clip_config *config, wf_binder *b, wf_clip **out,
                          weft_error *err)
{
    *out = NULL;
    wf_clip *m = wf_zalloc(b->alloc, 1, sizeof *m);
    if (m == NULL) return wf_nomem(err, sizeof *m, "the text encoder");
    m->c = *config;
    m->layers = wf_zalloc(b->alloc, (size_t)config->layers, sizeof *m->layers);
    weft_status st = m->layers != NULL ? build(m, b, err)
                                       : wf_nomem(err, (size_t)config->layers * sizeof *m->layers,
                                                  "the text encoder");
    if (st == WEFT_OK) *out = m;
    else wf_clip_free(m, b->alloc);
    return st;
}

void wf_clip_free(wf_clip *m, const weft_allocator *alloc)
{
    if (m == NULL) return;
    wf_free(alloc, m->layers);
    wf_free(alloc, m);
}

const wf_clip_config *wf_clip_get_config(const wf_clip *m) { return &m->c; }
const wf_tensor      *wf_clip_tokens(const wf_clip *m) { return m->tokens; }

static void read_row(float *row, const wf_tensor *table, size_t index, size_t width)
{
    size_t size = (size_t)(wf_dtype_bits(table->dtype) / 8);
    wf_widen_any(row, table->data + index * width * size, table->dtype, width);
}

/* x += out(attend(q, k, v)); x += fc2(act(fc1(norm x))) */
static void run_layer(const wf_clip *m, wf_exec *e, const layer *l, float *x, int32_t n,
                      int32_t length)
{
    const wf_clip_config *c = &m->c;
    size_t rows = (size_t)n * (size_t)length, d = (size_t)c->hidden,
           mark = wf_arena_mark(&e->arena);
    wf_grid g = wf_text_grid(n, length);
    float *t = wf_take(e, rows, d);
    size_t inner = wf_arena_mark(&e->arena);
    float *q = wf_take(e, rows, d);
    float *k = wf_take(e, rows, d);
    float *v = wf_take(e, rows, d);
    float *o = wf_take(e, rows, d);

    wf_layer_norm(e, &l->norm1, t, x, g);
    wf_layer_apply(e, l->q, q, t, g, false);
    wf_layer_apply(e, l->k, k, t, g, false);
    wf_layer_apply(e, l->v, v, t, g, false);
    wf_attend(e, o, &(wf_attention){ .n = n, .heads = c->heads, .d = c->hidden / c->heads,
                                     .lq = length, .q = q, .keys = &(wf_keys){ k, v, length },
                                     .segments = 1, .causal = true });
    wf_layer_apply(e, l->out, x, o, g, true);
    wf_arena_release(&e->arena, inner);

    float *wide = wf_take(e, rows, (size_t)c->intermediate);
    float *acted = wf_take(e, rows, (size_t)c->intermediate);
    wf_layer_norm(e, &l->norm2, t, x, g);
    wf_layer_apply(e, l->fc1, wide, t, g, false);
    wf_activate(e, c->act, acted, wide, rows, (size_t)c->intermediate);
    wf_layer_apply(e, l->fc2, x, acted, g, true);
    wf_arena_release(&e->arena, mark);
}

/* x = token + position of each */
static void embed(const wf_clip *m, wf_exec *e, const wf_clip_input *in, float *x, float *t,
                  size_t rows)
{
    size_t d = (size_t)m->c.hidden;
    for (size_t r = 0; r < rows && !e->dry && !e->stopped; r++) {
        int32_t id = in->ids[r];
        if (id < m->c.vocab) read_row(x + r * d, m->tokens, (size_t)id, d);
        else memcpy(x + r * d, in->extra[id - m->c.vocab], d * sizeof *x);
        read_row(t + r * d, m->positions, r % (size_t)in->length, d);
        e->k->add(x + r * d, t + r * d, d);
    }
}

void wf_clip_forward(const wf_clip *m, wf_exec *e, const wf_clip_input *in, float *text,
                     float *pooled)
{
    const wf_clip_config *c = &m->c;
    size_t rows = (size_t)in->n * (size_t)in->length, d = (size_t)c->hidden,
           mark = wf_arena_mark(&e->arena);
    wf_grid g = wf_text_grid(in->n, in->length);
    float *x = wf_take(e, rows, d);
    float *t = wf_take(e, rows, d);

    embed(m, e, in, x, t, rows);
    for (int32_t i = 0; i <= c->layers; i++) {
        if (text != NULL && i == c->layers - in->skip) {
            if (in->norm) wf_layer_norm(e, &m->final, text, x, g);
            else wf_copy(e, text, x, rows * d);
        }
        if (i < c->layers) run_layer(m, e, &m->layers[i], x, in->n, in->length);
    }
    if (m->projection != NULL &&
        (pooled != NULL || e->dry)) { /* a dry walk has no buffers, and needs its share */
        wf_layer_norm(e, &m->final, t, x, g);
        for (size_t s = 0; s < (size_t)in->n && !e->dry && !e->stopped; s++)
            memcpy(x + s * d, t + (s * (size_t)in->length + (size_t)in->eos_at[s]) * d,
                   d * sizeof *x);
        wf_layer_apply(e, m->projection, pooled, x, wf_vector_grid(in->n), false);
    }
    wf_arena_release(&e->arena, mark);
}
