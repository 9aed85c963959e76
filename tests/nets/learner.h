/* learner.h - a network under a tape with pairs beside some of its layers: one forward pass and the way back, in memory
 * of the size that a dry walk asked for. What a trainer does, without the trainer. */
#ifndef WF_TEST_LEARNER_H
#define WF_TEST_LEARNER_H

#include <stdio.h>
#include <stdlib.h>

#include "model/networks.h"
#include "nets/tape.h"
#include "nets/turn.h"
#include "tensor/blas_guard.h"
#include "weft/weft.h"

typedef struct learner_options {
    bool  (*picks)(const wf_layer *l); /* layers that get a pair                              */
    int32_t rank, n, h, w, tokens, threads;
    bool    segments, turned, text;    /* text: its gradient is wanted too                    */
    bool    per_layer;                 /* text rows for each cross-attention                  */
    const wf_products *tier;           /* NULL: the model's exact one                         */
} learner_options;

typedef struct learner {
    learner_options    o;
    const wf_networks *nets;
    weft_allocator     alloc;
    wf_exec            e;
    wf_tape            tape;
    wf_delta          *deltas;
    wf_layer_grads    *grads;
    wf_stack          *stacks;
    void             **turned;
    int32_t            rank;
    float              scale;
    wf_cell            cell;
    size_t             layers, numbers, bytes;
    float             *values, *gradient;   /* of all pairs: each layer's down, then its up    */
    float             *latent, *text, *pooled, *time_ids, *timestep;
    size_t             latents, texts, pooleds, outs;
    float             *aim;                 /* the loss is the sum of out times these          */
    float             *out, *text_gradient; /* copies of the last step's                       */
} learner;

static inline void *learner_zero(size_t n, size_t size)
{
    void *p = calloc(n + 1, size);
    if (p == NULL) abort();
    return p;
}

static inline float *learner_floats(size_t n, uint32_t seed, float size)
{
    float *p = learner_zero(n, sizeof *p);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        p[i] = size * ((float)(seed >> 8) / (float)(1 << 23) - 1.0f);
    }
    return p;
}

/* A forward pass; the buffers of the result and of the text, NULL where dry. */
static inline float *learner_forward(learner *l, float **text)
{
    const wf_denoiser_facts *f = wf_facts(l->nets);
    wf_exec *e = &l->e;
    size_t n = (size_t)l->o.n;
    const float **rows = learner_zero(n, sizeof *rows), **pooled = learner_zero(n, sizeof *pooled);
    wf_denoise_input in = { .grid = wf_image_grid(l->o.n, l->o.h, l->o.w), .latent = l->latent, .timestep = l->timestep,
                            .time_ids = l->time_ids };

    for (size_t i = 0; i < n && !e->dry; i++) {
        rows[i] = l->text + i * l->texts / n;
        pooled[i] = l->pooled + i * l->pooleds / n;
    }
    for (size_t i = 0; i < n && l->o.text; i++) { /* a buffer for each: the tape knows where it begins */
        float *at = wf_take(e, l->texts / n, 1);
        if (at == NULL) continue;
        memcpy(at, rows[i], l->texts / n * sizeof *at);
        (void)wf_track(e, at, false, true);
        rows[i] = text[i] = at;
    }
    in.text[0] = (wf_text_input){ rows, l->o.tokens, l->o.per_layer ? f->stream[0].cross_layers : 0 };
    in.text[1] = (wf_text_input){ pooled, 1, 0 };
    float *out = wf_take(e, l->outs, 1);
    wf_denoise(l->nets->denoiser, e, out, &in);
    if (e->dry) {
        free(rows), free(pooled);
        return NULL;
    }
    if (!e->stopped && e->tape != NULL) { /* the rows' pointers must live until then */
        float *g = wf_grad(e, out), *texts[8] = { NULL };
        for (size_t i = 0; i < n && l->o.text; i++) texts[i] = wf_grad(e, text[i]);
        memcpy(l->out, out, l->outs * sizeof *out);
        if (g != NULL) memcpy(g, l->aim, l->outs * sizeof *g);
        wf_tape_back(e);
        size_t each = l->texts / n;
        for (size_t i = 0; i < n && l->o.text; i++) {
            memcpy(l->text_gradient + i * each, texts[i], each * sizeof *g);
            memset(texts[i], 0, each * sizeof *g);
        }
    }
    free(rows), free(pooled);
    return out;
}

/* out and gradients of a step; gradients are added up. False: it stopped. */
static inline bool learner_step(learner *l)
{
    float *text[8] = { NULL };

    l->e.arena.used = 0;
    l->e.arena.held = false;
    l->e.stopped = false;
    wf_tape_begin(&l->e);
    learner_forward(l, text);
    return !l->e.stopped;
}

static inline double learner_loss(const learner *l)
{
    double sum = 0;
    for (size_t i = 0; i < l->outs; i++) sum += (double)l->out[i] * (double)l->aim[i];
    return sum;
}

static inline void learner_open(learner *l, const weft_model *model, const learner_options *o)
{
    *l = (learner){ .o = *o, .nets = wf_model_networks(model), .alloc = wf_allocator(NULL), .rank = o->rank, .scale = 0.5f,
                    .cell = { 1, 0, 0 } };
    const wf_layer *layer = wf_model_layers(model, &l->layers);
    const wf_denoiser_facts *f = wf_facts(l->nets);
    size_t n = (size_t)o->n, pixels = (size_t)o->h * (size_t)o->w, R = (size_t)o->rank, at = 0;

    l->deltas = learner_zero(l->layers, sizeof *l->deltas);
    l->grads = learner_zero(l->layers, sizeof *l->grads);
    l->stacks = learner_zero(l->layers, sizeof *l->stacks);
    l->turned = learner_zero(l->layers, sizeof *l->turned);
    l->e = (wf_exec){ .k = l->nets->kernels, .products = o->tier != NULL ? o->tier : l->nets->exact, .dry = true,
                      .arena = { .dry = true }, .deltas = l->deltas, .cells = &l->cell, .tape = &l->tape };
    if (wf_pool_create(&l->alloc, o->threads, &l->e.pool, NULL) != WEFT_OK) abort();
    for (size_t i = 0; i < l->layers; i++) {
        const wf_layer *y = &layer[i];
        if (y->component != WEFT_COMPONENT_DENOISER || y->kind == WEFT_LAYER_NORM) continue;
        if (o->picks(y)) l->numbers += R * (size_t)(y->kernel * y->kernel * y->in + y->out);
        if (!o->turned) continue;
        l->turned[i] = learner_zero(wf_turned_bytes(y), 1);
        wf_turn_weight(l->turned[i], y, l->e.pool);
    }
    l->values = learner_floats(l->numbers, 1, 0.1f);
    l->gradient = learner_zero(l->numbers, sizeof *l->gradient);
    for (size_t i = 0; i < l->layers; i++) {
        const wf_layer *y = &layer[i];
        if (y->component != WEFT_COMPONENT_DENOISER || y->kind == WEFT_LAYER_NORM || !o->picks(y)) continue;
        size_t up = at + R * (size_t)(y->kernel * y->kernel * y->in);
        l->stacks[i] = (wf_stack){ 1, l->rank, &l->rank, &l->scale, l->values + at, l->values + up, NULL };
        l->deltas[i].stack = &l->stacks[i];
        l->grads[i] = (wf_layer_grads){ .down = l->gradient + at, .up = l->gradient + up };
        at = up + R * (size_t)y->out;
    }
    size_t texts = o->per_layer ? (size_t)f->stream[0].cross_layers : 1;
    l->latents = n * pixels * (size_t)f->in_channels;
    l->texts = n * texts * (size_t)o->tokens * (size_t)f->stream[0].width;
    l->pooleds = f->streams > 1 ? n * (size_t)f->stream[1].width : 0;
    l->outs = n * pixels * (size_t)f->out_channels;
    l->latent = learner_floats(l->latents, 2, 1.5f);
    l->text = learner_floats(l->texts, 3, 1.0f);
    l->pooled = learner_floats(l->pooleds, 4, 1.0f);
    l->time_ids = learner_floats(n * (size_t)f->time_ids, 5, 512.0f);
    l->timestep = learner_floats(n, 6, 400.0f);
    for (size_t i = 0; i < n; i++) l->timestep[i] += 500;
    l->aim = learner_floats(l->outs, 7, 1.0f);
    l->out = learner_zero(l->outs, sizeof(float));
    l->text_gradient = learner_zero(l->texts, sizeof(float));

    wf_tape_init(&l->tape, &l->alloc);
    l->tape.segments = o->segments;
    l->tape.layers = l->grads;
    l->tape.turned = (const void *const *)l->turned;
    float *none[8];
    wf_tape_begin(&l->e);
    learner_forward(l, none);
    l->bytes = wf_tape_bytes(&l->e);
    l->e.dry = false;
    l->e.arena = (wf_arena){ .base = wf_zalloc(&l->alloc, l->bytes, 1), .size = l->bytes };
    l->tape.grads = wf_zalloc(&l->alloc, l->bytes, 1);
    l->e.scratch = wf_zalloc(&l->alloc, (size_t)o->threads, sizeof *l->e.scratch);
    for (int32_t i = 0; i < o->threads; i++) l->e.scratch[i] = wf_zalloc(&l->alloc, l->e.scratch_need, 1);
    wf_blas_begin();
}

static inline void learner_close(learner *l)
{
    wf_blas_end();
    for (size_t i = 0; i < l->layers; i++) free(l->turned[i]);
    for (int32_t i = 0; i < l->o.threads; i++) wf_free(&l->alloc, l->e.scratch[i]);
    wf_free(&l->alloc, l->e.scratch);
    wf_free(&l->alloc, l->e.arena.base);
    wf_free(&l->alloc, l->tape.grads);
    wf_tape_free(&l->tape);
    wf_pool_free(l->e.pool);
    free(l->deltas), free(l->grads), free(l->stacks), free(l->turned), free(l->values), free(l->gradient);
    free(l->latent), free(l->text), free(l->pooled), free(l->time_ids), free(l->timestep), free(l->aim), free(l->out);
    free(l->text_gradient);
}

#endif
