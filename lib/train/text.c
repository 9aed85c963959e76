/* text.c - captions become tokens, and tokens the rows of text that the denoiser reads.
 *
 * Where nothing of the text encoders is trained, a caption is encoded once and its rows are kept.
 * Else the captions of a batch are encoded in each evaluation, on the tape, each different one
 * once: samples with the same caption share its rows. A caption is one chunk: what does not fit is
 * cut off, with a line in the log. */
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

/* BOS, the tokens of the first chunk, EOS, padding. */
static weft_status lay_out(weft_trainer *t, wf_caption *c, int32_t which, const wf_chunks *chunks,
                           weft_error *err)
{
    const wf_text_encoder *encoder = &t->networks->encoder[which];
    const wf_tokenizer *tokenizer = encoder->tokenizer;
    int32_t positions = wf_encoder_positions(encoder), n = (int32_t)chunks->begin[1];
    int32_t *ids = wf_bag_take(&t->bag, (size_t)positions, sizeof *ids), at = 0;

    if (ids == NULL) return wf_nomem(err, (size_t)positions * sizeof *ids, "a caption's tokens");
    for (int32_t i = 0; i < positions; i++)
        ids[i] = i == 0       ? wf_tokenizer_bos(tokenizer)
                 : i <= n     ? chunks->ids[i - 1]
                 : i == n + 1 ? wf_tokenizer_eos(tokenizer)
                              : wf_tokenizer_pad(tokenizer);
    /* a caption may have one itself: the first counts */
    while (at < n + 1 && ids[at] != wf_tokenizer_eos(tokenizer)) at++;
    c->ids[which] = ids;
    c->eos_at[which] = at;
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

weft_status wf_train_take_text(weft_trainer *t, weft_error *err)
{
    size_t n = (size_t)t->batch.n;

    for (int32_t i = 0; i < t->networks->encoders; i++) {
        size_t positions = (size_t)wf_encoder_positions(&t->networks->encoder[i]);
        int32_t *ids = wf_bag_take(&t->bag, n * positions, sizeof *ids);
        int32_t *eos_at = wf_bag_take(&t->bag, n, sizeof *eos_at);
        if (ids == NULL || eos_at == NULL)
            return wf_nomem(err, n * positions * sizeof *ids, "a batch's tokens");
        t->ids[i] = ids;
        t->eos_at[i] = eos_at;
        t->from[i] = (wf_text_source){ .ids = ids, .eos_at = eos_at, .extra = t->extra[i],
                                       .extra_grads = t->g_extra[i],
                                       .extras = t->words.rows };
    }
    for (int32_t i = 0; i < t->networks->streams; i++)
        if ((t->rows[i] = wf_bag_take(&t->bag, n, sizeof *t->rows[i])) == NULL)
            return wf_nomem(err, n * sizeof *t->rows[i], "a batch's texts");
    t->place = wf_bag_take(&t->bag, n, sizeof *t->place);
    return t->place != NULL ? WEFT_OK : wf_nomem(err, n * sizeof *t->place, "a batch's texts");
}

/* Caption c is what sequence `place` of the encoders reads. */
static void put(weft_trainer *t, const wf_caption *c, int32_t place)
{
    for (int32_t i = 0; i < t->networks->encoders; i++) {
        size_t positions = (size_t)wf_encoder_positions(&t->networks->encoder[i]);
        memcpy(t->ids[i] + (size_t)place * positions, c->ids[i], positions * sizeof *c->ids[i]);
        t->eos_at[i][place] = c->eos_at[i];
    }
}

/* Floats of one caption's rows. */
static size_t row_floats(const weft_trainer *t, int32_t stream)
{
    wf_text_input one = wf_train_text(t, stream);
    return (size_t)WF_MAX(one.cross_layers, 1) * (size_t)one.tokens *
           (size_t)t->networks->stream[stream].facts->width;
}

void wf_train_read_text(weft_trainer *t, wf_exec *e, const wf_batch *b, int32_t first,
                        int32_t count)
{
    int32_t layers = WF_MAX(t->words.layers, 1), different = 0;
    float *rows[WF_STREAMS_MAX] = { NULL };

    if (b == NULL) { /* dry: every caption is another */
        wf_text_rows(t->networks, e, t->from, count, layers, 0, rows);
        return;
    }
    for (int32_t s = 0; s < count; s++) {
        const wf_caption *c = b->caption[first + s];
        int32_t same = 0;
        while (b->caption[first + same] != c) same++;
        t->place[s] = same < s ? t->place[same] : different;
        if (same == s) put(t, c, different++);
    }
    if (t->text_taped) wf_text_rows(t->networks, e, t->from, different, layers, 0, rows);
    for (int32_t i = 0; i < t->networks->streams && !e->stopped; i++)
        for (int32_t s = 0; s < count; s++)
            t->rows[i][s] = t->text_taped ? rows[i] + (size_t)t->place[s] * row_floats(t, i)
                                          : b->caption[first + s]->rows[i];
}

/* ---- captions that are kept ------------------------------------------------------------------ */

/* Encode a caption once and for all. */
static weft_status keep_rows(weft_trainer *t, wf_caption *c, weft_error *err)
{
    wf_exec *e = &t->exec;
    struct wf_tape *tape = e->tape;
    float *rows[WF_STREAMS_MAX];
    size_t mark = wf_arena_mark(&e->arena);
    weft_status st = WEFT_OK;

    e->tape = NULL;
    put(t, c, 0);
    wf_text_rows(t->networks, e, t->from, 1, 1, 0, rows);
    for (int32_t i = 0; i < t->networks->streams && !e->stopped && st == WEFT_OK; i++) {
        size_t n = row_floats(t, i);
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
