/* kept.c - keys and values of text and image prompts, kept between calls.
 *
 * They depend on the rows that are read and on the layers' weights with their coefficients: on
 * nothing of the step. So they hold as long as the same samples read the same rows under the same
 * row of the plan's table. Rows are compared, not hashed: what they were is kept beside what was
 * made of them, the texts of a sample's regions and its image prompts behind its own. Where a text
 * has rows of its own for each cross-attention layer nothing is kept, nor under
 * WEFT_RUN_FORGET_TEXT.
 *
 * With split guidance a call has two evaluations, and each has its own place. Under a plan that
 * reuses deep features a call has any number of them, and nothing is kept. */
#include "run/run_internal.h"

bool wf_run_keeps_text(const weft_run *r, const wf_run_memory *b)
{
    return r->keep_text && !wf_plan_ever_reuses(b->plan);
}

int32_t wf_sequence_of(const wf_denoiser_facts *f)
{
    for (int32_t k = 0; k < f->streams; k++)
        if (f->stream[k].kind == WEFT_TEXT_SEQUENCE) return k;
    return -1;
}

/* Rows of a sample at most: of its text, of the regions' texts and of all image prompts. */
static size_t rows_of(const weft_run *r, const wf_run_memory *b)
{
    size_t n = (size_t)r->text_tokens * (1 + (size_t)wf_plan_regions(b->plan));
    for (int32_t i = 0; i < weft_plan_image_prompts(b->plan); i++)
        n += (size_t)wf_plan_image_tokens(b->plan, i);
    return n;
}

weft_status wf_run_kept_create(wf_run_kept **out, const weft_run *r, const wf_run_memory *b,
                               size_t floats, weft_error *err)
{
    const wf_denoiser_facts *f = wf_facts(wf_run_networks(b));
    int32_t                  k = wf_sequence_of(f);
    size_t                   width = k >= 0 ? (size_t)f->stream[k].width : 0;
    size_t                   rows = (size_t)b->samples * rows_of(r, b) * width;
    wf_run_kept             *x = wf_zalloc(&r->alloc, 1, sizeof *x);

    if (x == NULL) return wf_nomem(err, sizeof *x, "keys and values of the text");
    *x = (wf_run_kept){ .width = width, .tokens = rows_of(r, b), .samples = b->samples,
                        .floats = floats, .bytes = wf_run_kept_bytes(r, b, floats) };
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
           (floats + (size_t)b->samples * rows_of(r, b) * width) * sizeof(float);
}

bool wf_run_kept_serves(const wf_run_kept *x, const weft_run *r, const wf_run_memory *b,
                        size_t floats)
{
    return x != NULL && x->floats >= floats && x->tokens >= rows_of(r, b) &&
           x->samples >= b->samples;
}

/* Is what `rows` of each sample holds the same as what is kept `at` rows into it? If not, keep
 * it. */
static bool same_rows(wf_run_kept *x, const float *const *rows, int32_t tokens, size_t at,
                      int32_t first, int32_t count)
{
    size_t one = (size_t)tokens * x->width, most = x->tokens * x->width;
    bool   same = true;

    for (int32_t s = 0; s < count; s++) {
        float *kept = x->rows + (size_t)(first + s) * most + at * x->width;
        if (memcmp(kept, rows[s], one * sizeof *kept) == 0) continue;
        memcpy(kept, rows[s], one * sizeof *kept);
        same = false;
    }
    return same;
}

/* The same of all that a sample reads. */
static bool same_reading(wf_run_kept *x, const wf_denoise_input *in, int32_t stream, int32_t first,
                         int32_t count)
{
    const wf_text_input *text = &in->text[stream];
    bool   same = same_rows(x, text->rows, text->tokens, 0, first, count);
    size_t at = (size_t)text->tokens;

    for (int32_t i = 0; in->regions != NULL && i < in->regions->count; i++) {
        text = &in->regions->at[i].text;
        same = same_rows(x, text->rows, text->tokens, at, first, count) && same;
        at += (size_t)text->tokens;
    }
    for (int32_t i = 0; in->images != NULL && i < in->images->count; i++) {
        const wf_image_input *image = &in->images->of[i];
        same = same_rows(x, image->rows, image->tokens, at, first, count) && same;
        at += (size_t)image->tokens;
    }
    return same;
}

/* Do both hold as many rows of everything? */
static bool same_shape(const wf_kept_origin *a, const wf_kept_origin *b)
{
    return a->count == b->count && a->tokens == b->tokens &&
           memcmp(a->regions, b->regions, sizeof a->regions) == 0 &&
           memcmp(a->images, b->images, sizeof a->images) == 0;
}

/* Has any text rows of its own for each layer? */
static bool by_layer(const wf_denoise_input *in, int32_t stream)
{
    bool any = in->text[stream].cross_layers > 0;
    for (int32_t i = 0; in->regions != NULL && i < in->regions->count; i++)
        any = any || in->regions->at[i].text.cross_layers > 0;
    return any;
}

void wf_run_kept_begin(wf_exec *e, const wf_run_memory *b, const wf_call *call,
                       const wf_denoise_input *in, int32_t first, int32_t count)
{
    wf_run_kept             *x = b->kept;
    const wf_denoiser_facts *f = wf_facts(wf_run_networks(b));
    int32_t                  k = wf_sequence_of(f), place = first > 0;

    e->kept = NULL;
    if (x == NULL || k < 0 || by_layer(in, k)) return;
    if (e->tap != NULL) return; /* it is to see what every layer reads, in every call */
    wf_kept_origin now = { .row = call->row, .deltas = e->deltas, .count = count,
                           .tokens = in->text[k].tokens, .parts = call->guided ? 2 : 1 };
    const wf_kept_origin was = x->of[place];
    for (int32_t i = 0; in->regions != NULL && i < in->regions->count; i++)
        now.regions[i] = in->regions->at[i].text.tokens;
    for (int32_t i = 0; in->images != NULL && i < in->images->count; i++)
        now.images[i] = in->images->of[i].tokens;
    bool valid = was.row == now.row && was.deltas == now.deltas && was.parts == now.parts &&
                 same_shape(&was, &now);
    if (place == 0 && !same_shape(&was, &now))
        x->of[1].row = NULL; /* the other place begins elsewhere */
    if (!same_reading(x, in, k, first, count)) valid = false;
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
