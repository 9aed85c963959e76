/* text_rows.c - encoders run one after the other, then each stream's rows are put together from
 * their columns: SDXL's are the hidden states of two encoders side by side.
 *
 * encode.c does the same for a prompt of any length with weights, without a tape; what is put
 * together here is small beside what the encoders compute. */
#include "run/text_rows.h"

/* What an encoder gave in one layer. */
typedef struct given { float *hidden, *pooled; } given;

/* A part of a stream: columns [column, column + width) of some of its rows. */
typedef struct part {
    const float *x;      /* (samples, tokens, width)    */
    float       *gx;     /* NULL: not wanted            */
    size_t       column, width, layer;
} part;

/* A stream, and behind it its parts. */
typedef struct join {
    float *gy;
    size_t samples, layers, tokens, width;
    size_t parts;
} join;

/* The row of y where token t of sample s lies in a part's layer. */
static size_t row_of(const join *j, const part *p, size_t s, size_t t)
{
    return ((s * j->layers + p->layer) * j->tokens + t) * j->width + p->column;
}

static void back_join(wf_exec *e, const void *entry)
{
    const join *j = entry;
    const part *p = (const part *)(const void *)(j + 1);
    for (size_t i = 0; i < j->parts; i++, p++)
        for (size_t s = 0; s < j->samples && p->gx != NULL; s++)
            for (size_t t = 0; t < j->tokens; t++)
                e->k->add(p->gx + (s * j->tokens + t) * p->width, j->gy + row_of(j, p, s, t),
                          p->width);
    wf_grad_done(e, j->gy, j->samples * j->layers * j->tokens * j->width);
}

/* Each sample's rows are a buffer: the denoiser asks for them by where they begin. */
static bool track_samples(wf_exec *e, const float *y, const join *j, bool wanted)
{
    bool record = wf_track(e, y, false, wanted);
    for (size_t s = 1; s < j->samples && !e->dry; s++)
        (void)wf_track(e, y + s * j->layers * j->tokens * j->width, false, wanted);
    return record;
}

/* Stream i from what encoder k gave in layer l: from[l * encoders + k]. */
static float *join_stream(const wf_networks *n, wf_exec *e, int32_t i, const given *from,
                          int32_t samples, int32_t layers)
{
    const wf_stream *s = &n->stream[i];
    bool pooled = s->facts->kind == WEFT_TEXT_POOLED, wanted = false;
    join j = { .samples = (size_t)samples, .layers = pooled ? 1 : (size_t)layers,
               .tokens = pooled ? 1 : (size_t)s->tokens, .width = (size_t)s->facts->width };
    float *y = wf_take(e, j.samples * j.layers, j.tokens * j.width);

    j.parts = j.layers * (size_t)s->sources;
    part *parts = (part *)wf_arena_take(&e->arena, j.parts, sizeof *parts);
    for (size_t k = 0; k < j.parts && parts != NULL; k++) {
        const wf_stream_source *source = &s->from[k % (size_t)s->sources];
        part *p = &parts[k];
        p->layer = k / (size_t)s->sources;
        const given *g = &from[p->layer * (size_t)n->encoders + (size_t)source->encoder];
        const wf_clip_config *c = wf_clip_get_config(n->encoder[source->encoder].net);
        p->x = pooled ? g->pooled : g->hidden;
        p->width = pooled ? j.width : (size_t)c->hidden;
        p->column = (size_t)source->column;
        wanted = wanted || wf_wanted(e, p->x);
        for (size_t r = 0; r < j.samples * j.tokens && !e->stopped; r++)
            memcpy(y + row_of(&j, p, r / j.tokens, r % j.tokens), p->x + r * p->width,
                   p->width * sizeof *y);
    }
    e->stopped = e->stopped || e->arena.overflow;
    if (!track_samples(e, y, &j, wanted)) return y;
    join *entry = wf_record(e, back_join, sizeof *entry + j.parts * sizeof *parts);
    if (entry == NULL) return y;
    for (size_t k = 0; k < j.parts; k++) parts[k].gx = wf_grad(e, parts[k].x);
    j.gy = wf_grad(e, y);
    *entry = j;
    memcpy(entry + 1, parts, j.parts * sizeof *parts);
    return y;
}

static void run_encoder(const wf_text_encoder *t, wf_exec *e, const wf_text_source *from,
                        int32_t samples, size_t layer, int32_t skip, given *to)
{
    const wf_clip_config *c = wf_clip_get_config(t->net);
    wf_clip_input in = { .ids = from->ids, .n = samples, .length = c->positions,
                         .skip = skip + t->left_out, .norm = t->norm, .eos_at = from->eos_at };

    if (from->extra != NULL) in.extra = from->extra + layer * from->extras;
    if (e->tape != NULL) {
        float *const *grads = from->extra_grads;
        e->tape->extra = grads != NULL ? grads + layer * from->extras : NULL;
        e->tape->extras = from->extras;
    }
    to->hidden = wf_take(e, (size_t)samples * (size_t)c->positions, (size_t)c->hidden);
    if (c->projection > 0 && layer == 0)
        to->pooled = wf_take(e, (size_t)samples, (size_t)c->projection);
    wf_clip_forward(t->net, e, &in, to->hidden, to->pooled);
}

void wf_text_rows(const wf_networks *n, wf_exec *e, const wf_text_source *from, int32_t samples,
                  int32_t layers, int32_t skip, float **rows)
{
    size_t count = (size_t)layers * (size_t)n->encoders;
    /* These small tables lie in the arena too: they are counted with it. */
    given *all = (given *)wf_arena_take(&e->arena, count, sizeof *all), none[1] = { { 0 } };

    e->stopped = e->stopped || e->arena.overflow;
    if (all != NULL) memset(all, 0, count * sizeof *all);
    for (size_t i = 0; i < count; i++) {
        given *to = all != NULL ? &all[i] : none;
        size_t encoder = i % (size_t)n->encoders;
        run_encoder(&n->encoder[encoder], e, &from[encoder], samples, i / (size_t)n->encoders, skip,
                    to);
    }
    for (int32_t i = 0; i < n->streams; i++)
        rows[i] = n->stream[i].sources > 0 && (e->dry || !e->stopped)
                      ? join_stream(n, e, i, all, samples, layers)
                      : NULL;
}
