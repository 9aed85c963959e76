/* encode.c - a prompt becomes text streams: tokens, chunks, text encoders, adapters on both.
 *
 * Each encoder runs once. Its hidden states and its pooled vector go to the streams that the
 * model's recipe (streams.c in lib/model) takes from it. A chunk of CLIP is BOS, up to 75 tokens,
 * EOS, padding. All chunks of a prompt are encoded in one batch and stand one after the other in a
 * sequence; a pooled vector is that of the first chunk.
 *
 * Weights multiply what the encoders give, token by token; BOS, EOS, padding and pooled vectors
 * keep theirs. Placeholder tokens with a vector for each cross-attention layer are
 * encoded once for each layer; a prompt without such tokens once for all. */
#include "base/structs.h"
#include "model/prompt.h"
#include "run/run_internal.h"

enum { CHUNKS = 64 }; /* most of one prompt */

/* ---- the computation ------------------------------------------------------------------------- */

static double mean(const float *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += v[i];
    return sum / (double)n;
}

/* One chunk of one encoder: y_t = w_t y_t, or e_t + w_t (y_t - e_t) with an empty prompt e to
 * measure from; then, with keep_mean, all of it times the number that brings its mean back. */
static void weigh(float *y, const float *w, const float *empty, size_t positions, size_t d,
                  bool keep_mean)
{
    double before = mean(y, positions * d), after;
    for (size_t t = 0; t < positions; t++) {
        float *y_t = y + t * d;
        const float *e_t = empty != NULL ? empty + t * d : NULL;
        if (w[t] == 1.0f) continue;
        for (size_t i = 0; i < d; i++)
            y_t[i] = e_t != NULL ? e_t[i] + w[t] * (y_t[i] - e_t[i]) : w[t] * y_t[i];
    }
    if (!keep_mean || (after = mean(y, positions * d)) == 0) return;
    float factor = (float)(before / after);
    for (size_t i = 0; i < positions * d; i++) y[i] *= factor;
}

static bool weighted(const float *w, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (w[i] != 1.0f) return true;
    return false;
}

/* The columns of stream `s` that come from this source: the hidden states y (rows, width), or the
 * pooled vector v of the first chunk. */
static void place(float *to, const wf_stream *s, const wf_stream_source *from, const float *y,
                  size_t rows, size_t width, const float *v)
{
    size_t wide = (size_t)s->facts->width, column = (size_t)from->column;
    if (s->facts->kind == WEFT_TEXT_POOLED) {
        memcpy(to + column, v, wide * sizeof *v);
        return;
    }
    for (size_t t = 0; t < rows; t++)
        memcpy(to + t * wide + column, y + t * width, width * sizeof *y);
}

static void run_encoder(const weft_run *r, wf_exec *e, const wf_encoding *in, int32_t which)
{
    const wf_networks *n = wf_run_networks(&r->memory);
    const wf_text_encoder *t = &n->encoder[which];
    const wf_clip_config *c = wf_clip_get_config(t->net);
    const wf_encoder_input *given = &in->encoder[which];
    size_t positions = (size_t)c->positions, chunks = (size_t)given->chunks;
    size_t rows = chunks * positions;
    size_t width = (size_t)c->hidden;
    float *y = wf_take(e, rows, width);
    float *v = c->projection > 0 ? wf_take(e, chunks, (size_t)c->projection) : NULL;
    wf_clip_input input = { .ids = given->ids, .extra = given->extra, .n = given->chunks,
                            .length = c->positions, .skip = in->skip + t->left_out,
                            .norm = t->norm, .eos_at = given->eos_at };

    wf_clip_forward(t->net, e, &input, y, v);
    if (e->dry || e->stopped) return;
    if (given->hidden != NULL) memcpy(given->hidden, y, rows * width * sizeof *y);
    for (size_t k = 0; k < chunks && given->weights != NULL; k++) {
        const float *w = given->weights + k * positions;
        if (weighted(w, positions))
            weigh(y + k * positions * width, w, given->empty, positions, width, in->keep_mean);
    }
    for (int32_t i = 0; i < n->streams; i++)
        for (int32_t k = 0; k < n->stream[i].sources && in->stream[i] != NULL; k++)
            if (n->stream[i].from[k].encoder == which)
                place(in->stream[i], &n->stream[i], &n->stream[i].from[k], y, rows, width, v);
}

void wf_encode_forward(const weft_run *r, wf_exec *e, const wf_encoding *in)
{
    const wf_networks *n = wf_run_networks(&r->memory);
    size_t mark = wf_arena_mark(&e->arena);
    e->products = n->exact;
    for (int32_t i = 0; i < n->encoders; i++) run_encoder(r, e, in, i);
    wf_arena_release(&e->arena, mark);
}

/* First EOS of each chunk, or the highest id if the config is one of the old ones that say 2. */
static void find_eos(const wf_text_encoder *t, const int32_t *ids, int32_t chunks, int32_t *eos_at)
{
    const wf_clip_config *c = wf_clip_get_config(t->net);
    int32_t eos = t->tokenizer != NULL ? wf_tokenizer_eos(t->tokenizer) : c->eos, n = c->positions;
    bool highest = t->tokenizer == NULL && c->eos == 2;
    for (int32_t s = 0; s < chunks; s++) {
        const int32_t *chunk = ids + (size_t)s * (size_t)n;
        int32_t best = 0, at = -1;
        for (int32_t i = 0; i < n; i++) {
            if (chunk[i] > chunk[best]) best = i;
            if (at < 0 && chunk[i] == eos) at = i;
        }
        eos_at[s] = highest ? best : at < 0 ? 0 : at;
    }
}

/* ---- one call -------------------------------------------------------------------------------- */

/* What one encoder is to read, laid out before anything is computed. */
typedef struct reading {
    int32_t        chunks;  /* that there is room for                    */
    size_t         needed;  /* chunks that the prompt takes              */
    const int32_t *ids;     /* (chunks, positions): `own`, or the caller's */
    int32_t       *own;
    float         *weights; /* (chunks, positions); NULL without weights */
    int32_t       *blank;   /* (positions) the empty prompt */
    const float  **rows;    /* of the plan's tokens; NULL: it has none */
    float         *empty;   /* (positions, width) the empty prompt, encoded; NULL: not measured
                               from */
    int32_t        eos_at[CHUNKS];
} reading;

typedef struct layout {
    weft_text text[WF_STREAMS_MAX];
    reading   encoder[WF_ENCODERS_MAX];
    size_t    tokens;  /* of the prompt, the most of all encoders                             */
    size_t    dropped;
    int32_t   copies;  /* cross-attention layers that the caller wants rows for, at least 1   */
    int32_t   layers;  /* of these, how many must be encoded: 1, or copies if any word differs */
} layout;

static void layout_free(layout *l, const weft_allocator *alloc)
{
    for (int32_t i = 0; i < WF_ENCODERS_MAX; i++) {
        wf_free(alloc, l->encoder[i].own);
        wf_free(alloc, l->encoder[i].weights);
        wf_free(alloc, l->encoder[i].blank);
        wf_free(alloc, (void *)l->encoder[i].rows);
        wf_free(alloc, l->encoder[i].empty);
    }
}

/* Whole chunks, as many for every sequence that an encoder gives. */
static weft_status count_chunks(const wf_networks *n, layout *l, weft_error *err)
{
    for (int32_t i = 0; i < n->encoders; i++) l->encoder[i].chunks = 1;
    for (int32_t i = 0; i < n->streams; i++) {
        const wf_stream *s = &n->stream[i];
        int32_t chunks = l->text[i].tokens / s->tokens;
        if (l->text[i].tokens % s->tokens != 0 || chunks > CHUNKS)
            return wf_fail(err, WEFT_E_ARG,
                           "encode.text[%d].tokens is %d, wanted 1 to %d chunks of %d", i,
                           l->text[i].tokens, CHUNKS, s->tokens);
        if (s->facts->kind == WEFT_TEXT_POOLED) continue;
        for (int32_t k = 0; k < s->sources; k++) l->encoder[s->from[k].encoder].chunks = chunks;
    }
    return WEFT_OK;
}

/* The caller's buffers. */
static weft_status read_buffers(const weft_run *r, const weft_encode *e, layout *l, weft_error *err)
{
    const wf_networks *n = wf_run_networks(&r->memory);
    bool any = false;
    l->copies = l->layers = 1;
    WF_TRY(wf_read_texts(l->text, r, e->text, e->text_count, "encode.text", err));
    WF_TRY(count_chunks(n, l, err));
    for (int32_t i = 0; i < n->streams; i++) {
        const weft_text *t = &l->text[i];
        size_t want = wf_text_floats(&n->stream[i], t);
        if (t->data == NULL) continue;
        any = true;
        if (n->stream[i].sources == 0)
            return wf_fail(err, WEFT_E_STATE,
                           "encode.text[%d]: no text encoder of the model gives this stream", i);
        if (t->len != want)
            return wf_fail(err, WEFT_E_ARG, "encode.text[%d].len is %zu, wanted %zu (%d x %d x %d)",
                           i, t->len, want,
                           WF_MAX(t->cross_layers, 1), t->tokens, n->stream[i].facts->width);
        l->copies = WF_MAX(l->copies, t->cross_layers);
    }
    return any ? WEFT_OK : wf_fail(err, WEFT_E_ARG, "encode.text: data of every stream is NULL");
}

/* The layers that the base leaves out count: SDXL can leave out one less than its encoder has. */
static weft_status check_depth(const wf_networks *n, const weft_encode *e, weft_error *err)
{
    for (int32_t i = 0; i < n->encoders; i++) {
        int32_t most = wf_clip_get_config(n->encoder[i].net)->layers - n->encoder[i].left_out;
        if (e->clip_skip < 0 || e->clip_skip > most)
            return wf_fail(err, WEFT_E_ARG,
                           "encode.clip_skip is %d, wanted 0 to %d, which is what the text encoder "
                           "can leave out", e->clip_skip, most);
    }
    return WEFT_OK;
}

static weft_status check_encode(weft_run *r, const weft_encode *given, uint32_t flags,
                                weft_encode *e, layout *l, weft_error *err)
{
    if (r == NULL || given == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", r == NULL ? "run" : "encode");
    WF_TRY(WF_OPTIONS(e, given, weft_encode, flags, err));
    const wf_networks *n = wf_run_networks(&r->memory);
    if (n->encoders == 0) return wf_model_need_tokenizer(wf_plan_model(r->memory.plan), err);
    if ((e->flags & WEFT_ENCODE_WEIGHTS) == 0 &&
        (e->flags & (WEFT_ENCODE_NO_MEAN | WEFT_ENCODE_FROM_EMPTY)) != 0)
        return wf_fail(err, WEFT_E_ARG,
                       "encode.flags: NO_MEAN and FROM_EMPTY say how WEIGHTS are applied, and "
                       "WEIGHTS is not set");
    if ((e->flags & WEFT_ENCODE_ADAPTER) != 0 &&
        (e->adapter < 0 || e->adapter >= wf_plan_adapters(r->memory.plan)))
        return wf_fail(err, WEFT_E_ARG, "encode.adapter is %d, the plan has %d", e->adapter,
                       wf_plan_adapters(r->memory.plan));
    WF_TRY(check_depth(n, e, err));
    return read_buffers(r, e, l, err);
}

/* BOS, n tokens, EOS, padding, into one chunk. */
static void wrap(int32_t *ids, const wf_tokenizer *t, const int32_t *tokens, size_t n,
                 size_t positions)
{
    for (size_t i = 0; i < positions; i++) ids[i] = wf_tokenizer_pad(t);
    ids[0] = wf_tokenizer_bos(t);
    for (size_t i = 0; i < n; i++) ids[1 + i] = tokens[i];
    ids[1 + n] = wf_tokenizer_eos(t);
}

/* Chunks of one encoder into its ids and weights; chunks beyond the room are left out. */
static weft_status lay_out(const weft_run *r, reading *s, const wf_text_encoder *e,
                           const wf_chunks *c, bool weights, weft_error *err)
{
    const wf_tokenizer *t = e->tokenizer;
    size_t positions = (size_t)wf_encoder_positions(e), all = (size_t)s->chunks * positions;
    s->ids = s->own = wf_zalloc(&r->alloc, all, sizeof *s->own);
    s->blank = wf_zalloc(&r->alloc, positions, sizeof *s->blank);
    if (weights) s->weights = wf_zalloc(&r->alloc, all, sizeof *s->weights);
    if (s->own == NULL || s->blank == NULL || (weights && s->weights == NULL))
        return wf_nomem(err, all * sizeof *s->own, "the prompt's tokens");
    wrap(s->blank, t, NULL, 0, positions);
    for (size_t i = 0; weights && i < all; i++) s->weights[i] = 1;
    for (size_t k = 0; k < (size_t)s->chunks; k++) {
        size_t begin = k < c->count ? c->begin[k] : c->tokens;
        size_t n = k < c->count ? c->begin[k + 1] - begin : 0;
        wrap(s->own + k * positions, t, n > 0 ? c->ids + begin : NULL, n, positions);
        if (weights && n > 0)
            memcpy(s->weights + k * positions + 1, c->weights + begin, n * sizeof *c->weights);
    }
    return WEFT_OK;
}

/* If the plan has placeholder tokens: their rows, and whether one in the prompt differs from layer
 * to layer. */
static weft_status take_tokens(const weft_run *r, layout *l, int32_t which, weft_error *err)
{
    const wf_tokens *tokens = wf_plan_tokens(r->memory.plan);
    reading *s = &l->encoder[which];
    size_t rows = wf_tokens_rows(tokens);
    size_t positions = (size_t)wf_encoder_positions(&wf_run_networks(&r->memory)->encoder[which]);
    if (rows == 0) return WEFT_OK;
    s->rows = wf_zalloc(&r->alloc, rows, sizeof *s->rows);
    if (s->rows == NULL) return wf_nomem(err, rows * sizeof *s->rows, "the plan's tokens");
    for (size_t i = 0; i < (size_t)s->chunks * positions; i++) {
        int32_t row = s->ids[i] - wf_tokens_extras(tokens, which)->base;
        if (row < 0 || wf_tokens_layers(tokens, row) == 0) continue;
        if (l->copies == 1)
            return wf_fail(err, WEFT_E_ARG,
                           "the token %s has a vector for each of %d cross-attention layers: set "
                           "weft_text.cross_layers of the sequence to %d",
                           wf_tokens_name(tokens, row),
                           wf_tokens_layers(tokens, row), wf_tokens_layers(tokens, row));
        l->layers = l->copies;
    }
    return WEFT_OK;
}

/* The prompt into chunks for each encoder. */
static weft_status read_prompt(const weft_run *r, const weft_encode *e, layout *l, weft_error *err)
{
    const wf_networks *n = wf_run_networks(&r->memory);
    const wf_tokens *tokens = wf_plan_tokens(r->memory.plan);
    bool weights = (e->flags & WEFT_ENCODE_WEIGHTS) != 0;
    bool cut = (e->flags & WEFT_ENCODE_TRUNCATE) != 0;
    bool comma = (e->flags & WEFT_ENCODE_COMMA) != 0 && !cut; /* no next chunk to move to */
    wf_prompt prompt;
    weft_status st = wf_prompt_parse(&prompt, e->prompt, weights, &r->alloc, err);
    for (int32_t i = 0; i < n->encoders && st == WEFT_OK; i++) {
        const wf_text_encoder *t = &n->encoder[i];
        reading *s = &l->encoder[i];
        wf_chunks c;
        st = wf_prompt_chunk(&c, &prompt, t->tokenizer, wf_tokens_extras(tokens, i),
                             (size_t)wf_encoder_positions(t) - 2, comma, err);
        if (st != WEFT_OK) break;
        if (cut && c.count > 1) {
            l->dropped = WF_MAX(l->dropped, c.tokens - c.begin[1]);
            c.count = 1;
        }
        l->tokens = WF_MAX(l->tokens, c.tokens);
        s->needed = c.count;
        st = lay_out(r, s, t, &c, weights, err);
        wf_chunks_free(&c);
        if (st == WEFT_OK) st = take_tokens(r, l, i, err);
    }
    wf_prompt_free(&prompt);
    for (int32_t i = 0; i < n->encoders && st == WEFT_OK; i++)
        if (l->encoder[i].needed > (size_t)l->encoder[i].chunks)
            st = wf_fail(err, WEFT_E_ARG,
                         "the prompt has %zu tokens, which take %zu chunks; there is room for %d",
                         l->tokens, l->encoder[i].needed, l->encoder[i].chunks);
    return st;
}

/* Room for the empty prompt, which weights are measured from. */
static weft_status take_empty(weft_run *r, layout *l, weft_error *err)
{
    const wf_networks *n = wf_run_networks(&r->memory);
    for (int32_t i = 0; i < n->encoders; i++) {
        const wf_clip_config *c = wf_clip_get_config(n->encoder[i].net);
        size_t floats = (size_t)c->positions * (size_t)c->hidden;
        float *empty = l->encoder[i].empty = wf_zalloc(&r->alloc, floats, sizeof *empty);
        if (empty == NULL) return wf_nomem(err, floats * sizeof *empty, "the empty prompt");
    }
    return WEFT_OK;
}

static void encode_empty(weft_run *r, const weft_encode *e, layout *l)
{
    wf_encoding in = { .skip = e->clip_skip };
    int32_t nowhere = 0;
    for (int32_t i = 0; i < wf_run_networks(&r->memory)->encoders; i++)
        in.encoder[i] = (wf_encoder_input){ .chunks = 1, .ids = l->encoder[i].blank,
                                            .eos_at = &nowhere, .hidden = l->encoder[i].empty };
    wf_encode_forward(r, &r->exec, &in);
}

/* One pass for each cross-attention layer that differs; the others are copies of the first. */
static void encode_layers(weft_run *r, layout *l, wf_encoding *in)
{
    const wf_networks *n = wf_run_networks(&r->memory);
    const wf_tokens *tokens = wf_plan_tokens(r->memory.plan);
    for (int32_t j = 0; j < l->copies && !r->exec.stopped; j++) {
        for (int32_t i = 0; i < n->streams; i++) {
            const weft_text *t = &l->text[i];
            size_t one = t->len / (size_t)WF_MAX(t->cross_layers, 1);
            bool wanted = t->data != NULL && (j == 0 || t->cross_layers > 0);
            in->stream[i] = wanted ? t->data + (size_t)j * one : NULL;
            if (wanted && j >= l->layers) memcpy(in->stream[i], t->data, one * sizeof *t->data);
        }
        for (int32_t i = 0; i < n->encoders; i++)
            if (l->encoder[i].rows != NULL) wf_tokens_fill(tokens, i, j, l->encoder[i].rows);
        if (j < l->layers) wf_encode_forward(r, &r->exec, in);
        for (int32_t i = 0; i < n->streams; i++) {
            size_t one = l->text[i].len / (size_t)WF_MAX(l->text[i].cross_layers, 1);
            if (in->stream[i] != NULL) (void)wf_watch_result(&r->exec, in->stream[i], one);
        }
    }
}

/* Every pass over the encoders that a call takes. */
static weft_status run_passes(weft_run *r, const weft_encode *e, layout *l, weft_error *err)
{
    const wf_networks *n = wf_run_networks(&r->memory);
    bool from_empty = (e->flags & WEFT_ENCODE_FROM_EMPTY) != 0;
    if (from_empty) WF_TRY(take_empty(r, l, err));
    WF_TRY(wf_run_begin(r, "encoding the prompt", "the encoded prompt",
                        (l->layers + from_empty) * r->memory.encode_layers, err));
    const wf_sheet *sheet = wf_plan_text_sheet(r->memory.plan);
    r->exec.deltas = r->memory.text.deltas;
    r->exec.slots = sheet->slots;
    r->exec.cells = wf_sheet_cells(sheet, &sheet->row[0]);
    if ((e->flags & WEFT_ENCODE_ADAPTER) != 0) {
        wf_plan_text_cells(r->memory.plan, e->adapter, r->memory.text_cells);
        r->exec.cells = r->memory.text_cells;
    }
    if (from_empty) encode_empty(r, e, l);
    wf_encoding in = { .skip = e->clip_skip,
                       .keep_mean = !from_empty && (e->flags & WEFT_ENCODE_NO_MEAN) == 0 };
    for (int32_t i = 0; i < n->encoders; i++) {
        reading *s = &l->encoder[i];
        find_eos(&n->encoder[i], s->ids, s->chunks, s->eos_at);
        in.encoder[i] = (wf_encoder_input){ .chunks = s->chunks, .ids = s->ids, .extra = s->rows,
                                            .eos_at = s->eos_at,
                                            .weights = s->weights, .empty = s->empty };
    }
    encode_layers(r, l, &in);
    if (wf_run_look_again(r)) {
        if (from_empty) encode_empty(r, e, l);
        if (!r->exec.stopped) encode_layers(r, l, &in);
        if (r->watch.layer == NULL) /* the encoders give finite numbers */
            wf_format(r->result, sizeof r->result, "what the prompt's weights make of it");
    }
    return wf_run_end(r, err);
}

uint64_t wf_run_stamp(weft_run *r)
{
    if (r->memory.stamp == 0) r->memory.stamp = wf_plan_text_stamp(r->memory.plan);
    return r->memory.stamp;
}

/* A warning for the first of each kind of what the prompt has and is read as words. */
static void say_misread(const weft_run *r, const weft_encode *e)
{
    const wf_tokenizer *t = wf_run_networks(&r->memory)->encoder[0].tokenizer;
    const wf_extras    *extras = wf_tokens_extras(wf_plan_tokens(r->memory.plan), 0);
    bool       weights = (e->flags & WEFT_ENCODE_WEIGHTS) != 0, said[WF_MISREAD_KINDS] = { false };
    size_t     n = strlen(e->prompt), ids;
    wf_misread m = { 0 };
    weft_error why;

    while (r->log != NULL && wf_prompt_misread(e->prompt, n, weights, &m)) {
        const char *s = e->prompt + m.at;
        int32_t     id;
        weft_status st = WEFT_OK;

        if (said[m.kind]) continue;
        ids = 0;
        if (m.kind == WF_MISREAD_TOKEN)
            st = wf_tokenizer_encode_with(t, extras, s, m.len, &id, 1, &ids, &why);
        if (st != WEFT_OK || ids == 1) continue; /* it is a token */
        said[m.kind] = true;
        wf_log(r->log, r->log_user, WEFT_LOG_WARN,
               "the prompt has %.*s, which is read as words: %s", (int)WF_MIN(m.len, 80), s, wf_misread_says(m.kind));
    }
}

weft_status weft_run_encode(weft_run *r, weft_encode *encode, weft_error *err)
{
    weft_encode e;
    layout l = { 0 };
    WF_TRY(check_encode(r, encode, WF_ENCODE_FLAGS, &e, &l, err));
    if (e.prompt == NULL) return wf_fail(err, WEFT_E_ARG, "encode.prompt is NULL");
    WF_TRY(wf_model_need_tokenizer(wf_plan_model(r->memory.plan), err));

    weft_status st = read_prompt(r, &e, &l, err);
    if (st == WEFT_OK) st = run_passes(r, &e, &l, err);
    layout_free(&l, &r->alloc);
    if (st != WEFT_OK) return st;
    encode->prompt_tokens = (int32_t)l.tokens;
    encode->dropped = (int32_t)l.dropped;
    encode->stamp = wf_run_stamp(r);
    if (l.dropped > 0)
        wf_log(r->log, r->log_user, WEFT_LOG_WARN, "the prompt has %zu tokens; %zu were dropped",
               l.tokens, l.dropped);
    say_misread(r, &e);
    return WEFT_OK;
}

/* The caller's ids for one encoder, checked against its vocabulary. */
static weft_status take_ids(reading *s, const wf_text_encoder *t, const weft_ids *ids,
                            weft_error *err)
{
    size_t want = (size_t)s->chunks * (size_t)wf_encoder_positions(t);
    int32_t vocab = wf_clip_get_config(t->net)->vocab;
    const char *name = weft_component_name(t->component);

    if (s->ids != NULL) return wf_fail(err, WEFT_E_ARG, "ids: %s is given twice", name);
    if (ids->ids == NULL) return wf_fail(err, WEFT_E_ARG, "ids for %s is NULL", name);
    if (ids->len != want)
        return wf_fail(err, WEFT_E_ARG, "ids for %s: len is %zu, wanted %zu", name, ids->len, want);
    for (size_t k = 0; k < want; k++)
        if (ids->ids[k] < 0 || ids->ids[k] >= vocab)
            return wf_fail(err, WEFT_E_ARG,
                           "ids for %s: id %d at %zu is not in the vocabulary of %d", name,
                           ids->ids[k],
                           k, vocab);
    s->ids = ids->ids;
    return WEFT_OK;
}

static weft_status read_ids(const weft_run *r, const weft_ids *list, size_t count, layout *l,
                            weft_error *err)
{
    const wf_networks *n = wf_run_networks(&r->memory);
    uint32_t stride = 0, size;

    if (list == NULL) return wf_fail(err, WEFT_E_ARG, "ids is NULL");
    for (size_t i = 0; i < count; i++) {
        const uint8_t *at = (const uint8_t *)list + i * stride;
        int32_t which = -1;
        weft_ids ids;
        memcpy(&size, at, sizeof size);
        if (i == 0) stride = size;
        if (size != stride)
            return wf_fail(err, WEFT_E_ARG, "ids[%zu].struct_size is %u, but the first has %u", i,
                           size, stride);
        WF_TRY(WF_OPTIONS(&ids, at, weft_ids, 0, err));
        if (ids.reserved0 != 0)
            return wf_fail(err, WEFT_E_UNSUPPORTED, "weft_ids: reserved0 is %d, must be zero",
                           ids.reserved0);
        for (int32_t k = 0; k < n->encoders; k++)
            if (n->encoder[k].component == ids.component) which = k;
        if (which < 0)
            return wf_fail(err, WEFT_E_ARG,
                           "ids[%zu]: component %d is not a text encoder of the model", i,
                           ids.component);
        WF_TRY(take_ids(&l->encoder[which], &n->encoder[which], &ids, err));
    }
    for (int32_t k = 0; k < n->encoders; k++)
        if (l->encoder[k].ids == NULL)
            return wf_fail(err, WEFT_E_ARG, "ids: none for %s",
                           weft_component_name(n->encoder[k].component));
    return WEFT_OK;
}

weft_status weft_run_encode_ids(weft_run *r, const weft_ids *ids, size_t ids_count,
                                weft_encode *encode, weft_error *err)
{
    weft_encode e;
    layout l = { 0 };
    WF_TRY(check_encode(r, encode, WEFT_ENCODE_TRUNCATE | WEFT_ENCODE_ADAPTER, &e, &l, err));
    WF_TRY(read_ids(r, ids, ids_count, &l, err));
    WF_TRY(run_passes(r, &e, &l, err));
    encode->prompt_tokens = encode->dropped = 0;
    encode->stamp = wf_run_stamp(r);
    return WEFT_OK;
}
