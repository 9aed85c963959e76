/* encode.c - a prompt becomes conditioning: tokens, chunks, text encoders, adapters on both.
 *
 * A chunk is BOS, up to 75 tokens, EOS, padding. All chunks of a prompt are encoded in one batch and stand
 * one after the other on the token axis. SDXL puts its two encoders side by side on the channel axis, takes
 * both from the layer before the last, and the pooled vector from the first chunk of the second encoder. */
#include "run/room.h"

enum { CHUNKS = 64 }; /* most of one prompt */

/* text (chunks * positions, d), pooled (chunks, projection) */
void wf_encode_forward(const weft_run *r, wf_exec *e, const int32_t *ids, const int32_t *ids_2, int32_t chunks,
                       float *text, float *pooled, const int32_t *eos_at)
{
    const wf_parts *p = wf_run_parts(&r->fit);
    const int32_t *all[2] = { ids, ids_2 };
    size_t mark = wf_arena_mark(&e->arena), rows = (size_t)(chunks * wf_run_positions(p)), at = 0;
    size_t d = (size_t)p->unet_config.cross_dim[0];
    for (int i = 0; i < 2; i++) {
        if (p->text[i] == NULL) continue;
        const wf_clip_config *c = wf_clip_get_config(p->text[i]);
        float *y = wf_take(e, rows, (size_t)c->hidden);
        float *v = c->projection > 0 ? wf_take(e, (size_t)chunks, (size_t)c->projection) : NULL;
        wf_clip_forward(p->text[i], e, all[i], chunks, c->positions, p->penultimate ? NULL : y,
                        p->penultimate ? y : NULL, v, eos_at);
        for (size_t t = 0; t < rows && !e->dry && !e->stopped; t++)
            memcpy(text + t * d + at, y + t * (size_t)c->hidden, (size_t)c->hidden * sizeof *text);
        bool pools = i == (p->text[1] != NULL ? 1 : 0) && c->projection == p->unet_config.pooled_dim;
        if (pooled != NULL && v != NULL && pools && !e->dry && !e->stopped)
            memcpy(pooled, v, (size_t)c->projection * sizeof *pooled);
        at += (size_t)c->hidden;
    }
    wf_arena_release(&e->arena, mark);
}

/* First EOS of each chunk, or the highest id where the config is one of the old ones that say 2. */
static void find_eos(const wf_parts *p, const int32_t *ids, int32_t chunks, int32_t *eos_at)
{
    int which = p->text[1] != NULL ? 1 : 0;
    const wf_clip_config *c = wf_clip_get_config(p->text[which]);
    int32_t eos = p->tokenizer[which] != NULL ? wf_tokenizer_eos(p->tokenizer[which]) : c->eos, n = c->positions;
    bool highest = p->tokenizer[which] == NULL && c->eos == 2;
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

/* ids (chunks, positions) of a prompt; tokens beyond the last chunk are left out. */
static weft_status lay_out(weft_run *r, int which, const char *prompt, int32_t chunks, int32_t *ids, int32_t *plain,
                           size_t cap, size_t *count, weft_error *err)
{
    const wf_parts *p = wf_run_parts(&r->fit);
    const wf_tokenizer *t = p->tokenizer[which];
    int32_t n = wf_clip_get_config(p->text[which])->positions;
    weft_status st = wf_tokenizer_encode(t, prompt, plain, cap, count, err);
    if (st != WEFT_OK) return st;
    size_t left = WF_MIN(*count, cap), room = (size_t)n - 2;
    for (int32_t k = 0; k < chunks; k++) {
        int32_t *chunk = ids + (size_t)k * (size_t)n;
        size_t take = WF_MIN(left, room);
        for (int32_t i = 0; i < n; i++) chunk[i] = wf_tokenizer_pad(t);
        chunk[0] = wf_tokenizer_bos(t);
        memcpy(chunk + 1, plain, take * sizeof *chunk);
        chunk[1 + take] = wf_tokenizer_eos(t);
        plain += take;
        left -= take;
    }
    return WEFT_OK;
}

/* Check the buffers of an encode against the number of chunks. */
static weft_status check_room(const weft_run *r, const weft_encode *e, int32_t chunks, weft_error *err)
{
    const wf_parts *p = wf_run_parts(&r->fit);
    size_t want = (size_t)chunks * (size_t)wf_run_positions(p) * (size_t)p->unet_config.cross_dim[0];
    size_t pooled = (size_t)p->unet_config.pooled_dim;
    if (e->text == NULL) return wf_fail(err, WEFT_E_ARG, "encode.text is NULL");
    if (e->text_len != want)
        return wf_fail(err, WEFT_E_ARG, "encode.text has %zu floats, wanted %zu (%d chunks of %d x %d)", e->text_len,
                       want, chunks, wf_run_positions(p), p->unet_config.cross_dim[0]);
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

static weft_status encode_ids(weft_run *r, const int32_t *ids, const int32_t *ids_2, const weft_encode *e,
                              int32_t chunks, weft_error *err)
{
    const wf_parts *p = wf_run_parts(&r->fit);
    int32_t eos_at[CHUNKS];
    weft_status st = wf_run_begin(r, "encoding the prompt", r->fit.encode_layers, err);
    if (st != WEFT_OK) return st;
    find_eos(p, p->text[1] != NULL ? ids_2 : ids, chunks, eos_at);
    r->exec.branch = NULL;
    r->exec.cells = wf_plan_row(r->fit.plan, 0);
    if ((e->flags & WEFT_ENCODE_ADAPTER) != 0) {
        wf_plan_text_row(r->fit.plan, e->adapter, r->fit.text_row);
        r->exec.cells = r->fit.text_row;
    }
    wf_encode_forward(r, &r->exec, ids, ids_2, chunks, e->text, e->pooled, eos_at);
    return wf_run_end(r, err);
}

static weft_status check_encode(weft_run *r, const weft_encode *given, weft_encode *e, int32_t *chunks,
                                weft_error *err)
{
    if (r == NULL || given == NULL) return wf_fail(err, WEFT_E_ARG, "%s is NULL", r == NULL ? "run" : "encode");
    weft_status st = wf_options(e, sizeof *e, sizeof *e, given, WEFT_ENCODE_TRUNCATE | WEFT_ENCODE_ADAPTER,
                                "weft_encode", err);
    if (st != WEFT_OK) return st;
    const wf_parts *p = wf_run_parts(&r->fit);
    if (p->text[0] == NULL && p->text[1] == NULL) return wf_model_need_tokenizer(wf_plan_model(r->fit.plan), err);
    if (e->chunks < 0 || e->chunks > CHUNKS)
        return wf_fail(err, WEFT_E_ARG, "encode.chunks is %d, wanted 1 to %d, or 0 for 1", e->chunks, CHUNKS);
    *chunks = e->chunks != 0 ? e->chunks : 1;
    return check_room(r, e, *chunks, err);
}

weft_status weft_run_encode(weft_run *r, weft_encode *encode, weft_error *err)
{
    weft_encode e;
    int32_t chunks, *ids[2] = { NULL, NULL }, *plain = NULL;
    size_t counts[2] = { 0, 0 };
    weft_status st = check_encode(r, encode, &e, &chunks, err);
    if (st != WEFT_OK) return st;
    if (e.prompt == NULL) return wf_fail(err, WEFT_E_ARG, "encode.prompt is NULL");
    if ((st = wf_model_need_tokenizer(wf_plan_model(r->fit.plan), err)) != WEFT_OK) return st;

    const wf_parts *p = wf_run_parts(&r->fit);
    size_t n = (size_t)wf_run_positions(p), cap = (size_t)chunks * (n - 2);
    if ((e.flags & WEFT_ENCODE_TRUNCATE) != 0) cap = n - 2;
    plain = wf_alloc(&r->alloc, cap * sizeof *plain);
    for (int i = 0; i < 2; i++) ids[i] = wf_alloc(&r->alloc, (size_t)chunks * n * sizeof **ids);
    if (plain == NULL || ids[0] == NULL || ids[1] == NULL) {
        st = wf_nomem(err, cap * sizeof *plain, "the prompt's tokens");
        goto done;
    }
    for (int i = 0; i < 2; i++)
        if (p->text[i] != NULL &&
            (st = lay_out(r, i, e.prompt, chunks, ids[i], plain, cap, &counts[i], err)) != WEFT_OK)
            goto done;
    size_t most = WF_MAX(counts[0], counts[1]);
    if (most > cap && (e.flags & WEFT_ENCODE_TRUNCATE) == 0) {
        st = wf_fail(err, WEFT_E_ARG, "the prompt has %zu tokens, which take %zu chunks; there is room for %d", most,
                     (most + n - 3) / (n - 2), chunks);
        goto done;
    }
    st = encode_ids(r, ids[0], ids[1], &e, chunks, err);
    if (st == WEFT_OK) {
        encode->tokens = (int32_t)WF_MIN(most, (size_t)INT32_MAX);
        encode->dropped = (int32_t)WF_MIN(most > cap ? most - cap : 0, (size_t)INT32_MAX);
        if (most > cap)
            wf_log(r->log, r->log_user, WEFT_LOG_WARN, "the prompt has %zu tokens; %zu were dropped", most,
                   most - cap);
    }
done:
    wf_free(&r->alloc, plain);
    wf_free(&r->alloc, ids[0]);
    wf_free(&r->alloc, ids[1]);
    return st;
}

weft_status weft_run_encode_ids(weft_run *r, const int32_t *ids, const int32_t *ids_2, size_t ids_len,
                                weft_encode *encode, weft_error *err)
{
    weft_encode e;
    int32_t chunks;
    weft_status st = check_encode(r, encode, &e, &chunks, err);
    if (st != WEFT_OK) return st;
    const wf_parts *p = wf_run_parts(&r->fit);
    const int32_t *all[2] = { ids, ids_2 };
    size_t want = (size_t)chunks * (size_t)wf_run_positions(p);
    if (ids_len != want) return wf_fail(err, WEFT_E_ARG, "ids_len is %zu, wanted %zu", ids_len, want);
    for (int i = 0; i < 2; i++) {
        if (p->text[i] == NULL) continue;
        if (all[i] == NULL) return wf_fail(err, WEFT_E_ARG, "%s is NULL", i == 0 ? "ids" : "ids_2");
        int32_t vocab = wf_clip_get_config(p->text[i])->vocab;
        for (size_t k = 0; k < want; k++)
            if (all[i][k] < 0 || all[i][k] >= vocab)
                return wf_fail(err, WEFT_E_ARG, "id %d at %zu is not in the vocabulary of %d", all[i][k], k, vocab);
    }
    st = encode_ids(r, ids, ids_2, &e, chunks, err);
    if (st == WEFT_OK) encode->tokens = encode->dropped = 0;
    return st;
}
