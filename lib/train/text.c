/* text.c - captions become tokens, and tokens the rows of text that the denoiser reads.
 *
 * Where nothing of the text encoders is trained, a caption is encoded once and its rows are kept.
 * Else it is encoded in each evaluation, on the tape; samples with the same caption share its rows.
 * Each caption has buffers of its own in the arena, so that gradients find it by its address.
 *
 * A prompt is one chunk: what does not fit is cut off, with a line in the log. A word with a vector
 * for each cross-attention layer is encoded as a batch, one sequence for each layer, which differ in
 * the rows that follow the vocabulary: those of layer j begin at row j * words.rows. */
#include "model/prompt.h"
#include "train/trainer_internal.h"

/* ---- words ----------------------------------------------------------------------------------- */

static size_t hidden_of(const wf_networks *n, int32_t encoder)
{
    return (size_t)wf_clip_get_config(n->encoder[encoder].net)->hidden;
}

static size_t floats_of_layer(const wf_networks *n, const wf_words *w)
{
    size_t sum = 0;
    for (int32_t i = 0; i < n->encoders; i++) sum += w->rows * hidden_of(n, i);
    return sum;
}

size_t wf_words_floats(const wf_networks *n, const wf_words *w)
{
    return (size_t)WF_MAX(w->layers, 1) * floats_of_layer(n, w);
}

size_t wf_words_at(const wf_networks *n, const wf_words *w, int32_t layer, int32_t encoder,
                   size_t row)
{
    size_t at = (size_t)layer * floats_of_layer(n, w);
    for (int32_t i = 0; i < encoder; i++) at += w->rows * hidden_of(n, i);
    return at + row * hidden_of(n, encoder);
}

const float *wf_trainer_words(const weft_trainer *t)
{
    return (t->mean != NULL ? t->mean : t->values) + t->begin[WF_GROUP_WORDS];
}

weft_status wf_train_place_words(weft_trainer *t, weft_error *err)
{
    const wf_words *w = &t->words;
    size_t layers = (size_t)WF_MAX(w->layers, 1), count = layers * w->rows;

    for (int32_t i = 0; i < t->networks->encoders && count > 0; i++) {
        t->extra[i] = wf_bag_take(&t->bag, count, sizeof *t->extra[i]);
        t->g_extra[i] = wf_bag_take(&t->bag, count, sizeof *t->g_extra[i]);
        if (t->extra[i] == NULL || t->g_extra[i] == NULL)
            return wf_nomem(err, count * sizeof *t->extra[i], "the words that are learnt");
        for (size_t k = 0; k < count; k++) {
            size_t at = t->begin[WF_GROUP_WORDS] +
                        wf_words_at(t->networks, w, (int32_t)(k / w->rows), i, k % w->rows);
            t->extra[i][k] = t->values + at;
            t->g_extra[i][k] = t->grads + at;
        }
    }
    return WEFT_OK;
}

/* ---- tokens ---------------------------------------------------------------------------------- */

/* BOS, the tokens of the first chunk, EOS, padding; once for each layer. */
static weft_status lay_out(weft_trainer *t, wf_caption *c, int32_t which, const wf_chunks *chunks,
                           weft_error *err)
{
    const wf_text_encoder *encoder = &t->networks->encoder[which];
    const wf_tokenizer *tokenizer = encoder->tokenizer;
    int32_t positions = wf_encoder_positions(encoder), layers = WF_MAX(t->words.layers, 1);
    int32_t vocab = wf_clip_get_config(encoder->net)->vocab, n = (int32_t)chunks->begin[1];
    int32_t *ids = wf_bag_take(&t->bag, (size_t)(layers * positions), sizeof *ids);
    int32_t *eos_at = wf_bag_take(&t->bag, (size_t)layers, sizeof *eos_at);

    if (ids == NULL || eos_at == NULL)
        return wf_nomem(err, (size_t)(layers * positions) * sizeof *ids, "a caption's tokens");
    for (int32_t j = 0; j < layers; j++) {
        int32_t *row = ids + j * positions;
        for (int32_t i = 0; i < positions; i++) {
            int32_t id = i == 0 ? wf_tokenizer_bos(tokenizer)
                         : i <= n ? chunks->ids[i - 1]
                         : i == n + 1 ? wf_tokenizer_eos(tokenizer) : wf_tokenizer_pad(tokenizer);
            row[i] = id >= vocab ? id + j * (int32_t)t->words.rows : id;
        }
        for (eos_at[j] = 0; eos_at[j] < n + 1; eos_at[j]++) /* a caption may have one itself */
            if (row[eos_at[j]] == wf_tokenizer_eos(tokenizer)) break;
    }
    c->ids[which] = ids;
    c->eos_at[which] = eos_at;
    return WEFT_OK;
}

static weft_status tokenize(weft_trainer *t, wf_caption *c, weft_error *err)
{
    const wf_networks *n = t->networks;
    wf_prompt   prompt;
    weft_status st = wf_prompt_parse(&prompt, c->text, false, &t->alloc, err);

    for (int32_t i = 0; i < n->encoders && st == WEFT_OK; i++) {
        size_t fits = (size_t)wf_encoder_positions(&n->encoder[i]) - 2;
        wf_chunks chunks;
        st = wf_prompt_chunk(&chunks, &prompt, n->encoder[i].tokenizer,
                             t->words.rows > 0 ? &t->words.extras[i] : NULL, fits, false, err);
        if (st != WEFT_OK) break;
        if (chunks.count > 1 && i == 0)
            wf_log(t->o.log, t->o.log_user, WEFT_LOG_WARN,
                   "the caption \"%.80s\" has %zu tokens; %zu were dropped", c->text,
                   chunks.tokens, chunks.tokens - chunks.begin[1]);
        st = lay_out(t, c, i, &chunks, err);
        wf_chunks_free(&chunks);
    }
    wf_prompt_free(&prompt);
    return st;
}

/* ---- the text encoders ----------------------------------------------------------------------- */

/* One source's columns after the others': the hidden states of encoders side by side. */
static const float *join(const weft_trainer *t, wf_exec *e, const wf_stream *s,
                         float *const hidden[WF_ENCODERS_MAX], size_t rows)
{
    const float *wide = hidden[s->from[0].encoder];
    size_t width = hidden_of(t->networks, s->from[0].encoder);

    for (int32_t k = 1; k < s->sources; k++) { /* in the order of their columns: streams.c */
        size_t more = hidden_of(t->networks, s->from[k].encoder);
        float *y = wf_take(e, rows, width + more);
        wf_concat(e, y, wide, width, hidden[s->from[k].encoder], more, rows);
        wide = y;
        width += more;
    }
    return wide;
}

/* Does a stream take this encoder's pooled vector? */
static bool pools(const wf_networks *n, int32_t encoder)
{
    for (int32_t i = 0; i < n->streams; i++)
        if (n->stream[i].facts->kind == WEFT_TEXT_POOLED && n->stream[i].sources > 0 &&
            n->stream[i].from[0].encoder == encoder)
            return true;
    return false;
}

/* Rows of every stream of one caption, in the arena. Dry: c is NULL. */
static void encode(weft_trainer *t, wf_exec *e, const wf_caption *c,
                   const float *rows[WF_STREAMS_MAX])
{
    const wf_networks *n = t->networks;
    int32_t layers = WF_MAX(t->words.layers, 1);
    float *hidden[WF_ENCODERS_MAX] = { NULL }, *pooled[WF_ENCODERS_MAX] = { NULL };

    for (int32_t i = 0; i < n->encoders; i++) {
        const wf_text_encoder *encoder = &n->encoder[i];
        const wf_clip_config *config = wf_clip_get_config(encoder->net);
        size_t all = (size_t)layers * (size_t)config->positions;
        hidden[i] = wf_take(e, all, (size_t)config->hidden);
        if (config->projection > 0 && pools(n, i))
            pooled[i] = wf_take(e, (size_t)layers, (size_t)config->projection);
        if (e->tape != NULL) {
            e->tape->extra = t->words.rows > 0 ? t->g_extra[i] : NULL;
            e->tape->extras = (size_t)layers * t->words.rows;
        }
        wf_clip_input input = { .ids = c != NULL ? c->ids[i] : NULL, .extra = t->extra[i],
                                .n = layers, .length = config->positions,
                                .skip = encoder->left_out, .norm = encoder->norm,
                                .eos_at = c != NULL ? c->eos_at[i] : NULL };
        wf_clip_forward(encoder->net, e, &input, hidden[i], pooled[i]);
    }
    for (int32_t i = 0; i < n->streams; i++) {
        const wf_stream *s = &n->stream[i];
        if (s->facts->kind == WEFT_TEXT_POOLED) rows[i] = pooled[s->from[0].encoder];
        else rows[i] = join(t, e, s, hidden, (size_t)layers * (size_t)s->tokens);
    }
}

void wf_train_read_text(weft_trainer *t, wf_exec *e, const wf_batch *b, int32_t first,
                        int32_t count)
{
    const float *rows[WF_STREAMS_MAX] = { NULL };

    for (int32_t s = 0; s < count && !e->stopped; s++) {
        const wf_caption *c = b != NULL ? b->caption[first + s] : NULL;
        int32_t same = 0;
        while (same < s && (c == NULL || b->caption[first + same] != c)) same++;
        for (int32_t i = 0; i < t->networks->streams; i++)
            rows[i] = same < s ? t->rows[i][same] : c != NULL ? c->rows[i] : NULL;
        if (same == s && (c == NULL ? t->text_taped : c->rows[0] == NULL)) encode(t, e, c, rows);
        for (int32_t i = 0; i < t->networks->streams && !e->dry; i++) t->rows[i][s] = rows[i];
    }
}

/* ---- captions that are kept ------------------------------------------------------------------ */

/* Encode a caption once and for all. */
static weft_status keep_rows(weft_trainer *t, wf_caption *c, weft_error *err)
{
    wf_exec *e = &t->exec;
    struct wf_tape *tape = e->tape;
    const float *rows[WF_STREAMS_MAX];
    size_t mark = wf_arena_mark(&e->arena);
    weft_status st = WEFT_OK;

    e->tape = NULL;
    encode(t, e, c, rows);
    for (int32_t i = 0; i < t->networks->streams && !e->stopped && st == WEFT_OK; i++) {
        const wf_stream *s = &t->networks->stream[i];
        size_t n = (size_t)s->tokens * (size_t)s->facts->width;
        c->rows[i] = wf_bag_take(&t->bag, n, sizeof(float));
        if (c->rows[i] == NULL) {
            st = wf_nomem(err, n * sizeof(float), "a caption's rows");
            break;
        }
        memcpy(c->rows[i], rows[i], n * sizeof(float));
        t->cache_bytes += n * sizeof(float);
    }
    wf_arena_release(&e->arena, mark);
    e->tape = tape;
    return st;
}

weft_status wf_train_caption(weft_trainer *t, const char *text, const wf_caption **out,
                             weft_error *err)
{
    for (const wf_caption *c = t->captions; c != NULL; c = c->next)
        if (strcmp(c->text, text) == 0) {
            *out = c;
            return WEFT_OK;
        }
    wf_caption *c = wf_bag_take(&t->bag, 1, sizeof *c);
    if (c == NULL || (c->text = wf_bag_string(&t->bag, text, strlen(text))) == NULL)
        return wf_nomem(err, sizeof *c + strlen(text), "a caption");
    WF_TRY(tokenize(t, c, err));
    if (!t->text_taped) WF_TRY(keep_rows(t, c, err));
    if (t->exec.stopped) return WEFT_OK; /* the caller asks */
    c->next = t->captions;
    t->captions = c;
    *out = c;
    return WEFT_OK;
}
