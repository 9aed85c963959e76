/* fit.c - the memory of a run, found by running everything once with nothing behind it.
 *
 * A dry exec walks the step, the encoding and the decoding (of prompts and of pictures) of the run's shape: the arena's
 * high-water mark is the scratch memory, and the same walk counts the arithmetic and the layers. So a step never allocates, and
 * weft_run_bytes() tells what is taken here before it is. */
#include <pthread.h>

#include "run/room.h"

/* ---- deltas: what the plan adds to each layer ---- */

static weft_status make_deltas(const weft_run *r, wf_fit *b, weft_error *err)
{
    size_t layers, bytes;
    wf_model_layers(wf_plan_model(b->plan), &layers);
    const wf_touched *t = wf_plan_touched(b->plan, &b->touched);
    b->deltas = wf_zalloc(&r->alloc, layers, sizeof *b->deltas);
    b->merged = wf_zalloc(&r->alloc, b->touched, sizeof *b->merged);
    bytes = layers * sizeof *b->deltas + b->touched * sizeof *b->merged;
    if (b->deltas == NULL || b->merged == NULL) return wf_nomem(err, bytes, "the layers' adapters");
    for (size_t i = 0; i < b->touched; i++) {
        wf_delta *d = &b->deltas[t[i].layer];
        d->stack = t[i].merged ? NULL : &t[i].stack;
        d->slot = (size_t)t[i].slot;
    }
    b->bytes += bytes;
    return WEFT_OK;
}

/* An allocator behind a lock: merging asks from every worker, and callers' allocators serve one thread at a time. */
typedef struct locked {
    const weft_allocator *inner;
    pthread_mutex_t       lock;
} locked;

static void *locked_alloc(void *user, size_t size, size_t align)
{
    locked *l = user;
    (void)pthread_mutex_lock(&l->lock);
    void *p = l->inner->alloc(l->inner->user, size, align);
    (void)pthread_mutex_unlock(&l->lock);
    return p;
}

static void locked_free(void *user, void *ptr, size_t size)
{
    locked *l = user;
    (void)pthread_mutex_lock(&l->lock);
    l->inner->free(l->inner->user, ptr, size);
    (void)pthread_mutex_unlock(&l->lock);
}

typedef struct merge_job {
    const wf_fit         *b;
    const wf_touched     *touched;
    const weft_allocator *alloc;
    weft_status          *status; /* [touched] */
    weft_error           *errors; /* [touched] */
} merge_job;

/* The weight, and where it is wanted the bias behind it. */
static void merge_task(void *user, size_t i, int32_t worker)
{
    merge_job *j = user;
    const wf_touched *t = &j->touched[i];
    float *weight = j->b->merged[i], *bias = (float *)j->b->deltas[t->layer].merged_bias;
    (void)worker;
    if (!t->merged) return;
    j->status[i] = wf_plan_merged_weight(j->b->plan, t, weight, bias, j->alloc, &j->errors[i]);
}

static weft_status run_merges(const weft_run *r, merge_job *j, size_t count, weft_error *err)
{
    locked lock = { .inner = &r->alloc };
    const weft_allocator shared = { locked_alloc, locked_free, &lock };
    weft_status st = WEFT_OK;

    j->status = wf_zalloc(&r->alloc, count, sizeof *j->status);
    j->errors = wf_zalloc(&r->alloc, count, sizeof *j->errors);
    if (j->status == NULL || j->errors == NULL) st = wf_nomem(err, count * sizeof *j->errors, "merged copies");
    else if (pthread_mutex_init(&lock.lock, NULL) != 0) st = wf_nomem(err, sizeof lock, "a lock");
    else {
        j->alloc = &shared;
        wf_blas_begin();
        wf_pool_run(r->pool, count, merge_task, j);
        wf_blas_end();
        (void)pthread_mutex_destroy(&lock.lock);
        for (size_t i = 0; i < count && st == WEFT_OK; i++)
            if ((st = j->status[i]) != WEFT_OK && err != NULL) *err = j->errors[i];
    }
    wf_free(&r->alloc, j->status);
    wf_free(&r->alloc, j->errors);
    return st;
}

static weft_status make_merged(const weft_run *r, wf_fit *b, bool measure, weft_error *err)
{
    size_t count, layers, any = 0;
    const wf_touched *t = wf_plan_touched(b->plan, &count);
    const wf_layer *table = wf_model_layers(wf_plan_model(b->plan), &layers);
    for (size_t i = 0; i < count; i++) {
        if (!t[i].merged) continue;
        const wf_layer *l = &table[t[i].layer];
        size_t floats = wf_merged_floats(&t[i], l), weight = (size_t)l->out * (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel;
        b->bytes += floats * sizeof(float);
        any++;
        if (measure) continue;
        b->merged[i] = wf_alloc(&r->alloc, floats * sizeof(float));
        if (b->merged[i] == NULL) return wf_nomem(err, floats * sizeof(float), l->name);
        b->deltas[t[i].layer].merged = b->merged[i];
        if (floats > weight) b->deltas[t[i].layer].merged_bias = b->merged[i] + weight;
    }
    merge_job j = { .b = b, .touched = t };
    return measure || any == 0 ? WEFT_OK : run_merges(r, &j, count, err);
}

/* In a dry walk a merged layer only has to be known as such. */
static void mark_merged(wf_fit *b, float *mark)
{
    size_t count;
    const wf_touched *t = wf_plan_touched(b->plan, &count);
    for (size_t i = 0; i < count; i++)
        if (t[i].merged) b->deltas[t[i].layer].merged = mark;
}

/* ---- arrays with an entry for each sample ---- */

static weft_status make_arrays(const weft_run *r, wf_fit *b, weft_error *err)
{
    size_t n = (size_t)b->samples, ids = (size_t)wf_run_parts(b)->unet_config.time_ids;
    size_t branches = (size_t)wf_plan_branches(b->plan), slots = wf_plan_slots(b->plan);
    b->branch = wf_zalloc(&r->alloc, n, sizeof *b->branch);
    b->timestep = wf_zalloc(&r->alloc, n, sizeof *b->timestep);
    b->time_ids = wf_zalloc(&r->alloc, n * ids, sizeof *b->time_ids);
    b->guidance = wf_zalloc(&r->alloc, n, sizeof *b->guidance);
    b->text = wf_zalloc(&r->alloc, n, sizeof *b->text);
    b->pooled = wf_zalloc(&r->alloc, n, sizeof *b->pooled);
    b->preds = wf_zalloc(&r->alloc, branches, sizeof *b->preds);
    b->text_row = wf_zalloc(&r->alloc, slots, sizeof *b->text_row);
    size_t bytes = n * (sizeof *b->branch + (2 + ids) * sizeof *b->timestep + 2 * sizeof *b->text) +
                   branches * sizeof *b->preds + slots * sizeof *b->text_row;
    if (b->branch == NULL || b->timestep == NULL || b->time_ids == NULL || b->guidance == NULL || b->text == NULL ||
        b->pooled == NULL || b->preds == NULL || b->text_row == NULL)
        return wf_nomem(err, bytes, "the samples of a step");
    b->bytes += bytes;
    return WEFT_OK;
}

/* ---- the dry walk ---- */

static bool count_layer(void *user)
{
    (*(int64_t *)user)++;
    return false;
}

/* False where what it needs cannot be counted in 64 bits. */
static bool walk(const weft_run *r, wf_fit *b)
{
    const wf_parts *p = wf_run_parts(b);
    int64_t layers = 0;
    wf_exec e = { .k = p->kernels, .products = p->products, .dry = true, .arena = { .dry = true }, .deltas = b->deltas, .branch = b->branch,
                  .slots = wf_plan_slots(b->plan), .stop = count_layer, .stop_user = &layers };
    weft_step step = WEFT_STEP_INIT;
    step.tokens = r->text_tokens;
    wf_step_forward(r, &e, b, &step, true);
    b->step_flops = e.flops;
    b->side_flops = e.side_flops;
    b->step_layers = layers;
    if (p->text[0] != NULL || p->text[1] != NULL) {
        layers = 0;
        wf_encode_forward(r, &e, &(wf_encoding){ .chunks = WF_MAX(r->text_tokens / wf_run_positions(p), 1) });
        b->encode_layers = layers;
    }
    if (p->vae != NULL) {
        layers = 0;
        e.flops = 0;
        wf_decode_forward(r, &e, NULL, NULL);
        b->decode_flops = e.flops * r->batch;
        b->decode_layers = layers * r->batch;
        layers = 0;
        wf_encode_image_forward(r, &e, NULL, NULL, NULL);
        b->encode_image_layers = layers * r->batch;
    }
    b->arena_size = e.arena.peak;
    b->scratch_size = e.scratch_need;
    b->bytes += b->arena_size + (uint64_t)r->threads * b->scratch_size;
    return !e.arena.overflow;
}

static weft_status make_scratch(const weft_run *r, wf_fit *b, weft_error *err)
{
    b->arena = wf_alloc(&r->alloc, b->arena_size);
    if (b->arena == NULL) return wf_nomem(err, b->arena_size, "a run's scratch");
    b->scratch = wf_zalloc(&r->alloc, (size_t)r->threads, sizeof *b->scratch);
    for (int32_t i = 0; b->scratch != NULL && i < r->threads; i++) {
        b->scratch[i] = wf_alloc(&r->alloc, b->scratch_size);
        if (b->scratch[i] == NULL) return wf_nomem(err, b->scratch_size, "a worker's scratch");
    }
    return b->scratch != NULL ? WEFT_OK : wf_nomem(err, sizeof *b->scratch, "the workers' scratch");
}

weft_status wf_fit_create(const weft_run *r, weft_plan *plan, bool measure, wf_fit *out, weft_error *err)
{
    wf_fit b = { .plan = plan, .threads = r->threads };
    float mark;
    weft_status st;

    wf_plan_ref(plan);
    b.samples = wf_plan_branches(plan) * 2 * r->batch;
    if ((st = make_deltas(r, &b, err)) != WEFT_OK) goto done;
    if ((st = make_arrays(r, &b, err)) != WEFT_OK) goto done;
    mark_merged(&b, &mark);
    if (!walk(r, &b)) {
        st = wf_fail(err, WEFT_E_ARG, "a run of %d latents of %d x %d needs more memory than can be counted", r->batch,
                     r->width, r->height);
        goto done;
    }
    if ((st = make_merged(r, &b, measure, err)) != WEFT_OK) goto done;
    if (!measure) st = make_scratch(r, &b, err);
done:
    if (st != WEFT_OK) wf_fit_free(&b, &r->alloc);
    else *out = b;
    return st;
}

void wf_fit_free(wf_fit *b, const weft_allocator *alloc)
{
    for (size_t i = 0; b->merged != NULL && i < b->touched; i++) wf_free(alloc, b->merged[i]);
    wf_free(alloc, b->merged);
    wf_free(alloc, b->deltas);
    wf_free(alloc, b->branch);
    wf_free(alloc, b->timestep);
    wf_free(alloc, b->time_ids);
    wf_free(alloc, b->guidance);
    wf_free(alloc, b->text);
    wf_free(alloc, b->pooled);
    wf_free(alloc, b->preds);
    wf_free(alloc, b->text_row);
    wf_free(alloc, b->arena);
    for (int32_t i = 0; b->scratch != NULL && i < b->threads; i++) wf_free(alloc, b->scratch[i]);
    wf_free(alloc, b->scratch);
    weft_plan_free(b->plan);
    *b = (wf_fit){ 0 };
}
