/* kept.c - keys and values of the text, kept between calls (WEFT_RUN_KEEP_TEXT).
 *
 * They depend on the rows of the text and on the layers' weights with their coefficients: on
 * nothing of the step. So they hold as long as the same samples read the same text under the same
 * row of the plan's table. Text is compared, not hashed: what it was is kept beside what was made
 * of it. A text with rows of its own for each cross-attention layer is not kept, nor is any under a
 * plan with regions.
 *
 * With split guidance a call has two evaluations, and each has its own place. Under a plan that
 * reuses deep features a call has any number of them, and nothing is kept. */
#include "run/run_internal.h"

int32_t wf_sequence_of(const wf_denoiser_facts *f)
{
    for (int32_t k = 0; k < f->streams; k++)
        if (f->stream[k].kind == WEFT_TEXT_SEQUENCE) return k;
    return -1;
}

weft_status wf_run_kept_create(wf_run_kept **out, const weft_run *r, const wf_run_memory *b,
                               size_t floats, weft_error *err)
{
    const wf_denoiser_facts *f = wf_facts(wf_run_networks(b));
    int32_t                  k = wf_sequence_of(f);
    size_t                   width = k >= 0 ? (size_t)f->stream[k].width : 0;
    size_t                   rows = (size_t)b->samples * (size_t)r->text_tokens * width;
    wf_run_kept             *x = wf_zalloc(&r->alloc, 1, sizeof *x);

    if (x == NULL) return wf_nomem(err, sizeof *x, "keys and values of the text");
    *x = (wf_run_kept){ .width = width, .tokens = (size_t)r->text_tokens, .samples = b->samples };
    x->rows = wf_alloc(&r->alloc, rows * sizeof *x->rows);
    x->at[0].floats = wf_alloc(&r->alloc, floats * sizeof *x->at[0].floats);
    x->at[0].size = floats;
    if (x->rows == NULL || x->at[0].floats == NULL) {
        wf_run_kept_free(x, &r->alloc);
        return wf_nomem(err, (rows + floats) * sizeof(float), "keys and values of the text");
    }
    *out = x;
    return WEFT_OK;
}

void wf_run_kept_free(wf_run_kept *x, const weft_allocator *alloc)
{
    if (x == NULL) return;
    wf_free(alloc, x->rows);
    wf_free(alloc, x->at[0].floats);
    wf_free(alloc, x);
}

size_t wf_run_kept_bytes(const weft_run *r, const wf_run_memory *b, size_t floats)
{
    const wf_denoiser_facts *f = wf_facts(wf_run_networks(b));
    int32_t                  k = wf_sequence_of(f);
    size_t                   width = k >= 0 ? (size_t)f->stream[k].width : 0;
    return sizeof(wf_run_kept) +
           (floats + (size_t)b->samples * (size_t)r->text_tokens * width) * sizeof(float);
}

/* Is the text of each sample what is kept? If not, keep it. */
static bool same_text(wf_run_kept *x, const wf_text_input *text, int32_t first, int32_t count)
{
    size_t one = (size_t)text->tokens * x->width, most = x->tokens * x->width;
    bool   same = true;

    for (int32_t s = 0; s < count; s++) {
        float *kept = x->rows + (size_t)(first + s) * most;
        if (memcmp(kept, text->rows[s], one * sizeof *kept) == 0) continue;
        memcpy(kept, text->rows[s], one * sizeof *kept);
        same = false;
    }
    return same;
}

void wf_run_kept_begin(wf_exec *e, const wf_run_memory *b, const wf_call *call,
                       const wf_denoise_input *in, int32_t first, int32_t count)
{
    wf_run_kept             *x = b->kept;
    const wf_denoiser_facts *f = wf_facts(wf_run_networks(b));
    int32_t                  k = wf_sequence_of(f), place = first > 0;

    e->kept = NULL;
    if (x == NULL || k < 0 || in->regions != NULL || in->text[k].cross_layers > 0)
        return;
    const wf_kept_origin now = { call->row, e->deltas, count, in->text[k].tokens,
                                 call->guided ? 2 : 1 };
    const wf_kept_origin was = x->of[place];
    bool         valid = was.row == now.row && was.deltas == now.deltas && was.count == now.count &&
                 was.tokens == now.tokens && was.parts == now.parts;
    if (place == 0 && (count != was.count || now.tokens != was.tokens))
        x->of[1].row = NULL; /* the other place begins elsewhere */
    if (!same_text(x, &in->text[k], first, count)) valid = false;
    if (place == 1) { /* behind what the first evaluation has */
        x->at[1].floats = x->at[0].floats + x->at[0].used;
        x->at[1].size = x->at[0].size - x->at[0].used;
    }
    x->at[place].used = 0;
    x->at[place].valid = valid;
    x->of[place] = now;
    if (!valid) x->of[place].row = NULL; /* until it is written whole */
    e->kept = &x->at[place];
}

void wf_run_kept_forget(const wf_run_memory *b)
{
    for (int i = 0; b->kept != NULL && i < 2; i++) b->kept->of[i].row = NULL;
}

void wf_run_kept_end(wf_exec *e, const wf_run_memory *b, const wf_call *call, int32_t first)
{
    if (e->kept != NULL && !e->stopped) b->kept->of[first > 0].row = call->row;
    e->kept = NULL;
}
