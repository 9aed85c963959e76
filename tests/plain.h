/* plain.h - steps and encodes of models that read one sequence and at most one pooled vector, as
 * all do today: each text is a field of its own here. The arrays of streams themselves are tested
 * in run/test_streams.c. */
#ifndef PLAIN_H
#define PLAIN_H

#include "golden.h"

typedef struct plain_step {
    uint32_t     flags;
    const float *latent, *extra;
    size_t       latent_len, extra_len;
    const float *text, *negative, *pooled, *negative_pooled; /* negative_pooled goes with
                                                                negative */
    size_t       text_len, negative_len, pooled_len, negative_pooled_len;
    int32_t      tokens, text_layers;
    const float *time_ids, *negative_time_ids;
    size_t       time_ids_len, negative_time_ids_len;
    float       *out;
    size_t       out_len;
    uint64_t     stamp;
    float        timestep, guidance, guidance_rescale, guidance_embed;
    int32_t      call;
} plain_step;
#define PLAIN_STEP_INIT { .flags = 0 }

typedef struct plain_encode {
    uint32_t    flags;
    const char *prompt;
    float      *text, *pooled;
    size_t      text_len, pooled_len;
    int32_t     chunks, layers, adapter, clip_skip;
    int32_t     tokens, dropped; /* out */
    uint64_t    stamp;           /* out */
} plain_encode;
#define PLAIN_ENCODE_INIT { .flags = 0 }

static inline size_t plain_streams(const weft_run *run)
{
    weft_run_info info = WEFT_RUN_INFO_INIT;
    return run != NULL && weft_run_info_get(run, &info, NULL) == WEFT_OK
        ? (size_t)info.text_streams : 1;
}

static inline weft_text plain_text(const float *data, size_t len, int32_t tokens,
                                   int32_t cross_layers)
{
    weft_text t = WEFT_TEXT_INIT;
    t.data = (float *)(uintptr_t)data;
    t.len = len;
    t.tokens = tokens;
    t.cross_layers = cross_layers;
    return t;
}

static inline weft_status plain_run_step(weft_run *run, const plain_step *s, weft_error *err)
{
    const weft_text text[2] = { plain_text(s->text, s->text_len, s->tokens, s->text_layers),
                                plain_text(s->pooled, s->pooled_len, 0, 0) };
    const weft_text negative[2] = { plain_text(s->negative, s->negative_len, s->tokens,
                                               s->text_layers),
                                    plain_text(s->negative_pooled, s->negative_pooled_len, 0, 0) };
    weft_step step = WEFT_STEP_INIT;
    step.flags = s->flags;
    step.latent = s->latent, step.latent_len = s->latent_len;
    step.extra = s->extra, step.extra_len = s->extra_len;
    step.text = text, step.text_count = plain_streams(run);
    if (s->negative != NULL) step.negative = negative, step.negative_count = step.text_count;
    step.time_ids = s->time_ids, step.time_ids_len = s->time_ids_len;
    step.negative_time_ids = s->negative_time_ids,
        step.negative_time_ids_len = s->negative_time_ids_len;
    step.out = s->out, step.out_len = s->out_len;
    step.stamp = s->stamp;
    step.timestep = s->timestep, step.guidance = s->guidance;
    step.guidance_rescale = s->guidance_rescale, step.guidance_embed = s->guidance_embed;
    step.call = s->call;
    return weft_run_step(run, &step, err);
}

static inline weft_encode plain_encoding(const weft_run *run, const plain_encode *e,
                                         weft_text text[2])
{
    weft_encode encode = WEFT_ENCODE_INIT;
    text[0] = plain_text(e->text, e->text_len, 77 * e->chunks, e->layers);
    text[1] = plain_text(e->pooled, e->pooled_len, 0, 0);
    encode.flags = e->flags;
    encode.prompt = e->prompt;
    encode.text = text;
    encode.text_count = plain_streams(run);
    encode.adapter = e->adapter;
    encode.clip_skip = e->clip_skip;
    return encode;
}

static inline weft_status plain_encoded(plain_encode *e, const weft_encode *encode, weft_status st)
{
    if (st != WEFT_OK) return st;
    e->tokens = encode->prompt_tokens;
    e->dropped = encode->dropped;
    e->stamp = encode->stamp;
    return st;
}

static inline weft_status plain_run_encode(weft_run *run, plain_encode *e, weft_error *err)
{
    weft_text text[2];
    weft_encode encode = plain_encoding(run, e, text);
    return plain_encoded(e, &encode, weft_run_encode(run, &encode, err));
}

/* Ids for the first and the second encoder; NULL: it has none. */
static inline weft_status plain_run_encode_ids(weft_run *run, const int32_t *ids,
                                               const int32_t *ids_2, size_t len,
                                               plain_encode *e, weft_error *err)
{
    weft_text text[2];
    weft_encode encode = plain_encoding(run, e, text);
    weft_ids list[2] = { WEFT_IDS_INIT, WEFT_IDS_INIT };
    size_t count = 0;
    if (ids != NULL) list[count].ids = ids, list[count++].component = WEFT_COMPONENT_TEXT_1;
    if (ids_2 != NULL) list[count].ids = ids_2, list[count++].component = WEFT_COMPONENT_TEXT_2;
    list[0].len = list[1].len = len;
    return plain_encoded(e, &encode, weft_run_encode_ids(run, list, count, &encode, err));
}

/* What a model reads. */
typedef struct plain_shape { int32_t dim, tokens, layers, pooled; } plain_shape;

static inline plain_shape plain_shape_of(const weft_model *model)
{
    weft_model_info m = WEFT_MODEL_INFO_INIT;
    weft_text_info sequence = WEFT_TEXT_INFO_INIT, pooled = WEFT_TEXT_INFO_INIT;
    must(weft_model_info_get(model, &m, &golden_err));
    must(weft_model_text(model, 0, &sequence, &golden_err));
    ck_assert_int_eq(sequence.kind, WEFT_TEXT_SEQUENCE);
    if (m.text_streams == 2) {
        must(weft_model_text(model, 1, &pooled, &golden_err));
        ck_assert_int_eq(pooled.kind, WEFT_TEXT_POOLED);
    }
    return (plain_shape){ sequence.width, sequence.tokens, sequence.cross_layers, pooled.width };
}

#endif
