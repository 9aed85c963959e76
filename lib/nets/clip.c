/* clip.c - token ids in, one vector for each token out: pre-norm transformer with a causal mask.
 *
 * Padding is not masked, as in the original: what a prompt is padded with is part of what it says.
 */
#include "nets/clip.h"
#include "nets/clip_layer.h"
#include "nets/tape.h"

struct wf_clip {
    wf_clip_config   c;
    const wf_tensor *tokens, *positions;
    wf_norm          final;
    const wf_layer  *projection;
    wf_clip_shape    shape;
    wf_clip_layer   *layers;
};

static weft_status build(wf_clip *m, wf_binder *b, weft_error *err)
{
    const wf_clip_config *c = &m->c;
    const char *base = "text_model";
    int32_t d = c->hidden;

    WF_TRY(wf_bind_table(b, &m->tokens, base, "embeddings.token_embedding", c->vocab, d, err));
    WF_TRY(wf_bind_table(b, &m->positions, base, "embeddings.position_embedding", c->positions, d,
                         err));
    for (int32_t i = 0; i < c->layers; i++)
        WF_TRY(wf_clip_layer_bind(b, &m->layers[i], &m->shape, base, i, err));
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
    m->shape = (wf_clip_shape){ .hidden = config->hidden, .heads = config->heads,
                                .intermediate = config->intermediate, .eps = config->eps,
                                .act = config->act, .causal = true };
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

/* What the rows of x had for gradients goes to the extra rows that they were. */
typedef struct embed_entry {
    float         *gx;
    float *const  *extra; /* gradients; NULL: frozen */
    const int32_t *ids;
    size_t         rows, d, extras;
    int32_t        vocab;
} embed_entry;

static void back_embed(wf_exec *e, const void *entry)
{
    const embed_entry *t = entry;
    for (size_t r = 0; r < t->rows; r++) {
        int32_t row = t->ids[r] - t->vocab;
        if (row >= 0 && (size_t)row < t->extras && t->extra[row] != NULL)
            e->k->add(t->extra[row], t->gx + r * t->d, t->d);
    }
    wf_grad_done(e, t->gx, t->rows * t->d);
}

static void record_embed(const wf_clip *m, wf_exec *e, const wf_clip_input *in, float *x,
                         size_t rows)
{
    const wf_tape *tape = e->tape;
    bool wanted = false;
    for (size_t r = 0; tape != NULL && tape->extra != NULL && r < rows && !e->dry; r++) {
        int32_t row = in->ids[r] - m->c.vocab;
        wanted = wanted || (row >= 0 && (size_t)row < tape->extras && tape->extra[row] != NULL);
    }
    if (!wf_track(e, x, false, wanted)) return;
    embed_entry *t = wf_record(e, back_embed, sizeof *t);
    if (t != NULL)
        *t = (embed_entry){ .gx = wf_grad(e, x), .extra = tape->extra, .ids = in->ids, .rows = rows,
                            .d = (size_t)m->c.hidden, .extras = tape->extras,
                            .vocab = m->c.vocab };
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
    record_embed(m, e, in, x, rows);
}

typedef struct pick_entry {
    float         *gy, *gx;
    const int32_t *at;
    size_t         n, length, d;
} pick_entry;

static void back_pick(wf_exec *e, const void *entry)
{
    const pick_entry *t = entry;
    for (size_t s = 0; s < t->n; s++)
        e->k->add(t->gx + (s * t->length + (size_t)t->at[s]) * t->d, t->gy + s * t->d, t->d);
    wf_grad_done(e, t->gy, t->n * t->d);
}

/* y (n, d) = the row of each sequence at eos_at */
static void pick_rows(wf_exec *e, const wf_clip_input *in, float *y, const float *x, size_t d)
{
    size_t n = (size_t)in->n, length = (size_t)in->length;
    for (size_t s = 0; s < n && !e->dry && !e->stopped; s++)
        memcpy(y + s * d, x + (s * length + (size_t)in->eos_at[s]) * d, d * sizeof *y);
    if (!wf_track(e, y, false, wf_wanted(e, x))) return;
    pick_entry *t = wf_record(e, back_pick, sizeof *t);
    if (t != NULL)
        *t = (pick_entry){ .gy = wf_grad(e, y), .gx = wf_grad(e, x), .at = in->eos_at, .n = n,
                           .length = length, .d = d };
}

void wf_clip_forward(const wf_clip *m, wf_exec *e, const wf_clip_input *in, float *text,
                     float *pooled)
{
    const wf_clip_config *c = &m->c;
    size_t rows = (size_t)in->n * (size_t)in->length, d = (size_t)c->hidden,
           mark = wf_arena_mark(&e->arena);
    wf_grid g = wf_text_grid(in->n, in->length);
    float *x = wf_take(e, rows, d);
    size_t inner = wf_arena_mark(&e->arena);
    float *t = wf_take(e, rows, d);

    embed(m, e, in, x, t, rows);
    for (int32_t i = 0; i <= c->layers; i++) {
        if ((text != NULL || (e->dry && e->tape != NULL)) && i == c->layers - in->skip) {
            if (in->norm) wf_layer_norm(e, &m->final, text, x, g);
            else wf_copy(e, text, x, rows * d);
        }
        if (i < c->layers) wf_clip_layer_run(e, &m->layers[i], &m->shape, x, g);
    }
    if (m->projection != NULL &&
        (pooled != NULL || e->dry)) { /* a dry walk has no buffers, and needs its share */
        wf_arena_release(&e->arena, inner);
        float *normed = wf_take(e, rows, d);
        float *picked = wf_take(e, (size_t)in->n, d);
        wf_layer_norm(e, &m->final, normed, x, g);
        pick_rows(e, in, picked, normed, d);
        wf_layer_apply(e, m->projection, pooled, picked, wf_vector_grid(in->n), false);
    }
    wf_arena_release(&e->arena, mark);
}
