/* encode.c - a prompt becomes conditioning: tokens, chunks, text encoders, adapters on both.
 *
 * A chunk is BOS, up to 75 tokens, EOS, padding. All chunks of a prompt are encoded in one batch and stand
 * one after the other on the token axis. SDXL puts its two encoders side by side on the channel axis, takes
 * both from the layer before the last, and the pooled vector from the first chunk of the second encoder.
 *
 * Weights multiply what the encoders give, token by token; BOS, EOS, padding and the pooled vector keep theirs. Words
 * with a vector for each cross-attention layer are encoded once for each; a prompt without such words once for all. */
#include "base/structs.h"
#include "model/prompt.h"
#include "run/room.h"

enum { CHUNKS = 64 }; /* most of one prompt */

/* ---- the computation ------------------------------------------------------------------------------------- */

static double mean(const float *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += v[i];
    return sum / (double)n;
}

/* One chunk of one encoder: y_t = w_t y_t, or e_t + w_t (y_t - e_t) where there is an empty prompt e to measure from;
 * then, with keep_mean, all of it times the number that brings its mean back. */
static void weigh(float *y, const float *w, const float *empty, size_t stride, size_t positions, size_t d,
                  bool keep_mean)
{
    double before = mean(y, positions * d), after;
    for (size_t t = 0; t < positions; t++) {
        float *y_t = y + t * d;
        const float *e_t = empty != NULL ? empty + t * stride : NULL;
        if (w[t] == 1.0f) continue;
        for (size_t i = 0; i < d; i++) y_t[i] = e_t != NULL ? e_t[i] + w[t] * (y_t[i] - e_t[i]) : w[t] * y_t[i];
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

void wf_encode_forward(const weft_run *r, wf_exec *e, const wf_encoding *in)
{
    const wf_parts *p = wf_run_parts(&r->fit);
    size_t mark = wf_arena_mark(&e->arena), positions = (size_t)wf_run_positions(p), at = 0;
    size_t chunks = (size_t)in->chunks, rows = chunks * positions, d = (size_t)p->unet_config.cross_dim[0];
    for (int i = 0; i < 2; i++) {
        if (p->text[i] == NULL) continue;
        const wf_clip_config *c = wf_clip_get_config(p->text[i]);
        size_t width = (size_t)c->hidden;
        float *y = wf_take(e, rows, width);
        float *v = c->projection > 0 ? wf_take(e, chunks, (size_t)c->projection) : NULL;
        wf_clip_input input = { .ids = in->ids[i], .extra = in->extra[i], .n = in->chunks, .length = c->positions,
                                .skip = in->skip + p->penultimate, .norm = !p->penultimate, .eos_at = in->eos_at };
        wf_clip_forward(p->text[i], e, &input, y, v);
        for (size_t k = 0; k < chunks && in->weights[i] != NULL && !e->dry && !e->stopped; k++) {
            const float *w = in->weights[i] + k * positions;
            if (weighted(w, positions))
                weigh(y + k * positions * width, w, in->empty != NULL ? in->empty + at : NULL, d, positions, width,
                      in->keep_mean);
        }
        for (size_t t = 0; t < rows && !e->dry && !e->stopped; t++)
            memcpy(in->text + t * d + at, y + t * width, width * sizeof *y);
        bool pools = i == (p->text[1] != NULL ? 1 : 0) && c->projection == p->unet_config.pooled_dim;
        if (in->pooled != NULL && v != NULL && pools && !e->dry && !e->stopped)
            memcpy(in->pooled, v, (size_t)c->projection * sizeof *v);
        at += width;
    }
    wf_arena_release(&e->arena, mark);
}

/* First EOS of each chunk, or the highest id where the config is one of the old ones that say 2. */
static void find_eos(const wf_parts *p, const int32_t *const ids[2], int32_t chunks, int32_t *eos_at)
{
    int which = p->text[1] != NULL ? 1 : 0;
    const wf_clip_config *c = wf_clip_get_config(p->text[which]);
    int32_t eos = p->tokenizer[which] != NULL ? wf_tokenizer_eos(p->tokenizer[which]) : c->eos, n = c->positions;
    bool highest = p->tokenizer[which] == NULL && c->eos == 2;
    for (int32_t s = 0; s < chunks; s++) {
        const int32_t *chunk = ids[which] + (size_t)s * (size_t)n;
        int32_t best = 0, at = -1;
        for (int32_t i = 0; i < n; i++) {
            if (chunk[i] > chunk[best]) best = i;
            if (at < 0 && chunk[i] == eos) at = i;
        }
        eos_at[s] = highest ? best : at < 0 ? 0 : at;
    }
}

/* ---- one call -------------------------------------------------------------------------------------------- */

/* What a call lays out before anything is computed. */
typedef struct layout {
    int32_t       chunks;     /* that there is room for                        */
    size_t        tokens;     /* of the prompt, the more of both encoders      */
    size_t        dropped;
    size_t        needed;     /* chunks                                        */
    int32_t      *ids[2];     /* (chunks, positions)                           */
    float        *weights[2]; /* likewise; NULL without weights                */
    int32_t      *blank[2];   /* (positions) the empty prompt                  */
    const float **rows[2];    /* of the plan's words                           */
    float        *empty;      /* (positions, d) the empty prompt, encoded      */
    int32_t       layers;     /* encodings that differ: 1, or e->layers        */
} layout;

static void layout_free(layout *l, const weft_allocator *alloc)
{
    for (int i = 0; i < 2; i++) {
        wf_free(alloc, l->ids[i]);
        wf_free(alloc, l->weights[i]);
        wf_free(alloc, l->blank[i]);
        wf_free(alloc, (void *)l->rows[i]);
    }
    wf_free(alloc, l->empty);
}

/* Check the buffers of an encode against the number of chunks. */
static weft_status check_room(const weft_run *r, const weft_encode *e, int32_t chunks, weft_error *err)
{
    const wf_parts *p = wf_run_parts(&r->fit);
    size_t want = (size_t)chunks * (size_t)wf_run_positions(p) * (size_t)p->unet_config.cross_dim[0];
    size_t pooled = (size_t)p->unet_config.pooled_dim;
    if (e->text == NULL) return wf_fail(err, WEFT_E_ARG, "encode.text is NULL");
    if (e->layers == 0 && e->text_len != want)
        return wf_fail(err, WEFT_E_ARG, "encode.text has %zu floats, wanted %zu (%d chunks of %d x %d)", e->text_len,
                       want, chunks, wf_run_positions(p), p->unet_config.cross_dim[0]);
    if (e->layers != 0 && e->text_len != want * (size_t)e->layers)
        return wf_fail(err, WEFT_E_ARG, "encode.text has %zu floats, wanted %zu (%d layers of %d chunks of %d x %d)",
                       e->text_len, want * (size_t)e->layers, e->layers, chunks, wf_run_positions(p),
                       p->unet_config.cross_dim[0]);
    if (e->pooled != NULL && e->pooled_len != pooled)
        return wf_fail(err, WEFT_E_ARG, "encode.pooled has %zu floats, wanted %zu", e->pooled_len, pooled);
    if (chunks * wf_run_positions(p) > r->text_tokens)
        return wf_fail(err, WEFT_E_ARG, "%d chunks are %d tokens, the run has room for %d: set "
                       "weft_run_options.text_tokens", chunks, chunks * wf_run_positions(p), r->text_tokens);
    if ((e->flags & WEFT_ENCODE_ADAPTER) != 0 && (e->adapter < 0 || e->adapter >= wf_plan_adapters(r->fit.plan)))
        return wf_fail(err, WEFT_E_ARG, "encode.adapter is %d, the plan has %d", e->adapter,
                       wf_plan_adapters(r->fit.plan));
    return WEFT_OK;
}

/* The model's own layers left out count: SDXL can leave out one less than its encoder has. */
static weft_status check_depth(const wf_parts *p, const weft_encode *e, weft_error *err)
{
    int32_t layers = wf_unet_text_layers(p->unet);
    for (int i = 0; i < 2; i++) {
        if (p->text[i] == NULL) continue;
        int32_t most = wf_clip_get_config(p->text[i])->layers - p->penultimate;
        if (e->clip_skip < 0 || e->clip_skip > most)
            return wf_fail(err, WEFT_E_ARG, "encode.clip_skip is %d, wanted 0 to %d, which is what the text encoder "
                           "can leave out", e->clip_skip, most);
    }
    if (e->layers != 0 && e->layers != layers)
        return wf_fail(err, WEFT_E_ARG, "encode.layers is %d, wanted %d, the model's cross-attention layers, or 0",
                       e->layers, layers);
    return WEFT_OK;
}

static weft_status check_encode(weft_run *r, const weft_encode *given, uint32_t flags, weft_encode *e, layout *l,
                                weft_error *err)
{
    if (r == NULL || given == NULL) return wf_fail(err, WEFT_E_ARG, "%s is NULL", r == NULL ? "run" : "encode");
    weft_status st = WF_OPTIONS(e, given, weft_encode, flags, err);
    if (st != WEFT_OK) return st;
    const wf_parts *p = wf_run_parts(&r->fit);
    if (p->text[0] == NULL && p->text[1] == NULL) return wf_model_need_tokenizer(wf_plan_model(r->fit.plan), err);
    if (e->chunks < 0 || e->chunks > CHUNKS)
        return wf_fail(err, WEFT_E_ARG, "encode.chunks is %d, wanted 1 to %d, or 0 for 1", e->chunks, CHUNKS);
    l->chunks = e->chunks != 0 ? e->chunks : 1;
    l->layers = 1;
    if ((e->flags & WEFT_ENCODE_WEIGHTS) == 0 && (e->flags & (WEFT_ENCODE_NO_MEAN | WEFT_ENCODE_FROM_EMPTY)) != 0)
        return wf_fail(err, WEFT_E_ARG, "encode.flags: NO_MEAN and FROM_EMPTY say how WEIGHTS are applied, and WEIGHTS "
                       "is not set");
    if ((st = check_depth(p, e, err)) != WEFT_OK) return st;
    return check_room(r, e, l->chunks, err);
}

/* BOS, n tokens, EOS, padding, into one chunk. */
static void wrap(int32_t *ids, const wf_tokenizer *t, const int32_t *tokens, size_t n, size_t positions)
{
    for (size_t i = 0; i < positions; i++) ids[i] = wf_tokenizer_pad(t);
    ids[0] = wf_tokenizer_bos(t);
    for (size_t i = 0; i < n; i++) ids[1 + i] = tokens[i];
    ids[1 + n] = wf_tokenizer_eos(t);
}

/* Chunks of one encoder into its ids and weights; chunks beyond the room are left out. */
static weft_status lay_out(const weft_run *r, layout *l, int which, const wf_chunks *c, bool weights, weft_error *err)
{
    const wf_tokenizer *t = wf_run_parts(&r->fit)->tokenizer[which];
    size_t positions = (size_t)wf_run_positions(wf_run_parts(&r->fit)), all = (size_t)l->chunks * positions;
    l->ids[which] = wf_zalloc(&r->alloc, all, sizeof *l->ids[which]);
    l->blank[which] = wf_zalloc(&r->alloc, positions, sizeof *l->blank[which]);
    if (weights) l->weights[which] = wf_zalloc(&r->alloc, all, sizeof *l->weights[which]);
    if (l->ids[which] == NULL || l->blank[which] == NULL || (weights && l->weights[which] == NULL))
        return wf_nomem(err, all * sizeof *l->ids[which], "the prompt's tokens");
    wrap(l->blank[which], t, NULL, 0, positions);
    for (size_t i = 0; weights && i < all; i++) l->weights[which][i] = 1;
    for (size_t k = 0; k < (size_t)l->chunks; k++) {
        size_t begin = k < c->count ? c->begin[k] : c->tokens, n = k < c->count ? c->begin[k + 1] - begin : 0;
        wrap(l->ids[which] + k * positions, t, c->ids + begin, n, positions);
        if (weights && n > 0) memcpy(l->weights[which] + k * positions + 1, c->weights + begin, n * sizeof *c->weights);
    }
    return WEFT_OK;
}

/* Where a plan has words: the rows that they are, and whether one of these tokens differs from layer to layer. */
static weft_status take_words(const weft_run *r, layout *l, int which, const weft_encode *e, weft_error *err)
{
    const wf_words *words = wf_plan_words(r->fit.plan);
    size_t rows = wf_words_rows(words), positions = (size_t)wf_run_positions(wf_run_parts(&r->fit));
    if (rows == 0) return WEFT_OK;
    l->rows[which] = wf_zalloc(&r->alloc, rows, sizeof *l->rows[which]);
    if (l->rows[which] == NULL) return wf_nomem(err, rows * sizeof *l->rows[which], "the plan's words");
    for (size_t i = 0; i < (size_t)l->chunks * positions; i++) {
        int32_t row = l->ids[which][i] - wf_words_extras(words, which)->base;
        if (row < 0 || wf_words_layers(words, row) == 0) continue;
        if (e->layers == 0)
            return wf_fail(err, WEFT_E_ARG, "the word %s has a vector for each of %d cross-attention layers: set "
                           "encode.layers to %d, and weft_step.text_layers", wf_words_name(words, row),
                           wf_words_layers(words, row), wf_words_layers(words, row));
        l->layers = e->layers;
    }
    return WEFT_OK;
}

/* The prompt into chunks for each encoder. */
static weft_status read_prompt(const weft_run *r, const weft_encode *e, layout *l, weft_error *err)
{
    const wf_parts *p = wf_run_parts(&r->fit);
    const wf_words *words = wf_plan_words(r->fit.plan);
    bool weights = (e->flags & WEFT_ENCODE_WEIGHTS) != 0, cut = (e->flags & WEFT_ENCODE_TRUNCATE) != 0;
    bool comma = (e->flags & WEFT_ENCODE_COMMA) != 0 && !cut; /* there is no next chunk to move to */
    wf_prompt prompt;
    weft_status st = wf_prompt_parse(&prompt, e->prompt, weights, &r->alloc, err);
    for (int i = 0; i < 2 && st == WEFT_OK; i++) {
        wf_chunks c;
        if (p->text[i] == NULL) continue;
        st = wf_prompt_chunk(&c, &prompt, p->tokenizer[i], wf_words_extras(words, i),
                             (size_t)wf_run_positions(p) - 2, comma, err);
        if (st != WEFT_OK) break;
        if (cut && c.count > 1) {
            l->dropped = WF_MAX(l->dropped, c.tokens - c.begin[1]);
            c.count = 1;
        }
        l->tokens = WF_MAX(l->tokens, c.tokens);
        l->needed = WF_MAX(l->needed, c.count);
        st = lay_out(r, l, i, &c, weights, err);
        wf_chunks_free(&c);
        if (st == WEFT_OK) st = take_words(r, l, i, e, err);
    }
    wf_prompt_free(&prompt);
    if (st == WEFT_OK && l->needed > (size_t)l->chunks)
        st = wf_fail(err, WEFT_E_ARG, "the prompt has %zu tokens, which take %zu chunks; there is room for %d",
                     l->tokens, l->needed, l->chunks);
    return st;
}

/* The empty prompt, which weights are measured from. */
static weft_status encode_empty(weft_run *r, const weft_encode *e, layout *l, weft_error *err)
{
    const wf_parts *p = wf_run_parts(&r->fit);
    size_t floats = (size_t)wf_run_positions(p) * (size_t)p->unet_config.cross_dim[0];
    int32_t nowhere = 0;
    l->empty = wf_zalloc(&r->alloc, floats, sizeof *l->empty);
    if (l->empty == NULL) return wf_nomem(err, floats * sizeof *l->empty, "the empty prompt");
    wf_encode_forward(r, &r->exec, &(wf_encoding){ .chunks = 1, .skip = e->clip_skip, .eos_at = &nowhere,
                                                   .ids = { l->blank[0], l->blank[1] }, .text = l->empty });
    return WEFT_OK;
}

/* Every pass over the encoders that a call takes. */
static weft_status run_passes(weft_run *r, const weft_encode *e, layout *l, const int32_t *const ids[2],
                              weft_error *err)
{
    const wf_parts *p = wf_run_parts(&r->fit);
    const wf_words *words = wf_plan_words(r->fit.plan);
    bool from_empty = l->weights[p->text[0] == NULL] != NULL && (e->flags & WEFT_ENCODE_FROM_EMPTY) != 0;
    int32_t eos_at[CHUNKS], copies = WF_MAX(e->layers, 1);
    size_t floats = e->text_len / (size_t)copies;
    weft_status st = wf_run_begin(r, "encoding the prompt", (l->layers + from_empty) * r->fit.encode_layers, err), end;
    if (st != WEFT_OK) return st;
    find_eos(p, ids, l->chunks, eos_at);
    r->exec.branch = NULL;
    const wf_sheet *sheet = wf_plan_text_sheet(r->fit.plan);
    r->exec.deltas = r->fit.text.deltas;
    r->exec.slots = sheet->slots;
    r->exec.cells = wf_sheet_cells(sheet, &sheet->row[0]);
    if ((e->flags & WEFT_ENCODE_ADAPTER) != 0) {
        wf_plan_text_cells(r->fit.plan, e->adapter, r->fit.text_cells);
        r->exec.cells = r->fit.text_cells;
    }
    if (from_empty) st = encode_empty(r, e, l, err);
    wf_encoding in = { .chunks = l->chunks, .skip = e->clip_skip, .ids = { ids[0], ids[1] }, .eos_at = eos_at,
                       .extra = { l->rows[0], l->rows[1] }, .weights = { l->weights[0], l->weights[1] },
                       .empty = l->empty, .keep_mean = !from_empty && (e->flags & WEFT_ENCODE_NO_MEAN) == 0 };
    for (int32_t j = 0; j < copies && st == WEFT_OK && !r->exec.stopped; j++) {
        in.text = e->text + (size_t)j * floats;
        in.pooled = j == 0 ? e->pooled : NULL;
        for (int i = 0; i < 2; i++)
            if (l->rows[i] != NULL) wf_words_fill(words, i, j, l->rows[i]);
        if (j < l->layers) wf_encode_forward(r, &r->exec, &in);
        else memcpy(in.text, e->text, floats * sizeof *e->text);
    }
    end = wf_run_end(r, err);
    return st != WEFT_OK ? st : end;
}

uint64_t wf_run_stamp(weft_run *r)
{
    if (r->fit.stamp == 0) r->fit.stamp = wf_plan_text_stamp(r->fit.plan);
    return r->fit.stamp;
}

weft_status weft_run_encode(weft_run *r, weft_encode *encode, weft_error *err)
{
    weft_encode e;
    layout l = { 0 };
    weft_status st = check_encode(r, encode, WF_ENCODE_FLAGS, &e, &l, err);
    if (st != WEFT_OK) return st;
    if (e.prompt == NULL) return wf_fail(err, WEFT_E_ARG, "encode.prompt is NULL");
    if ((st = wf_model_need_tokenizer(wf_plan_model(r->fit.plan), err)) != WEFT_OK) return st;

    st = read_prompt(r, &e, &l, err);
    if (st == WEFT_OK) st = run_passes(r, &e, &l, (const int32_t *const[2]){ l.ids[0], l.ids[1] }, err);
    layout_free(&l, &r->alloc);
    if (st != WEFT_OK) return st;
    encode->tokens = (int32_t)l.tokens;
    encode->dropped = (int32_t)l.dropped;
    encode->stamp = wf_run_stamp(r);
    if (l.dropped > 0)
        wf_log(r->log, r->log_user, WEFT_LOG_WARN, "the prompt has %zu tokens; %zu were dropped", l.tokens, l.dropped);
    return WEFT_OK;
}

weft_status weft_run_encode_ids(weft_run *r, const int32_t *ids, const int32_t *ids_2, size_t ids_len,
                                weft_encode *encode, weft_error *err)
{
    weft_encode e;
    layout l = { 0 };
    weft_status st = check_encode(r, encode, WEFT_ENCODE_TRUNCATE | WEFT_ENCODE_ADAPTER, &e, &l, err);
    if (st != WEFT_OK) return st;
    const wf_parts *p = wf_run_parts(&r->fit);
    const int32_t *const all[2] = { ids, ids_2 };
    size_t want = (size_t)l.chunks * (size_t)wf_run_positions(p);
    if (ids_len != want) return wf_fail(err, WEFT_E_ARG, "ids_len is %zu, wanted %zu", ids_len, want);
    for (int i = 0; i < 2; i++) {
        if (p->text[i] == NULL) continue;
        if (all[i] == NULL) return wf_fail(err, WEFT_E_ARG, "%s is NULL", i == 0 ? "ids" : "ids_2");
        int32_t vocab = wf_clip_get_config(p->text[i])->vocab;
        for (size_t k = 0; k < want; k++)
            if (all[i][k] < 0 || all[i][k] >= vocab)
                return wf_fail(err, WEFT_E_ARG, "id %d at %zu is not in the vocabulary of %d", all[i][k], k, vocab);
    }
    st = run_passes(r, &e, &l, all, err);
    if (st != WEFT_OK) return st;
    encode->tokens = encode->dropped = 0;
    encode->stamp = wf_run_stamp(r);
    return WEFT_OK;
}
