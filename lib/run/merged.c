/* merged.c - the merged copies of a run, made on all its threads.
 *
 * A copy needs memory beside itself: widened factors, a weight's strip, a rotation. How much
 * depends on the families and shapes that meet in a layer. The caller's allocator is for the
 * caller's thread (weft/base.h), so workers get blocks of scratch that are taken before. Their size
 * is measured: the caller's thread makes one layer with its own allocator, and all workers get as
 * much as that one took. Layers that needed more say so; the one that wants most is the next to be
 * made and measured, and the rest is tried again. So each round makes a layer at least, and as
 * layers of one adapter are alike there are one or two rounds. Where all parts are plain pairs the
 * plan tells what they need, so nobody waits for the first layer. */
#include "run/run_internal.h"

/* A block that is used like a stack: an allocator for one worker. */
typedef struct scratch {
    uint8_t *base;
    size_t   size;
    size_t   used;
    size_t   live; /* blocks                                 */
    size_t   need; /* bytes that would have served, 0: enough */
} scratch;

enum {
    ALIGN = 64,
    BESIDE = 64 /* the head of a block, memory.c */
};

static bool rounded_up(size_t used, size_t size, size_t *end)
{
    size_t sum;

    if (!wf_add(used, size, &sum) || !wf_add(sum, ALIGN - 1, &sum)) return false;
    *end = sum / ALIGN * ALIGN;
    return true;
}

static void *scratch_alloc(void *user, size_t size, size_t align)
{
    scratch *s = user;
    size_t   end;

    (void)align; /* at most ALIGN */
    if (!rounded_up(s->used, size, &end)) end = SIZE_MAX;
    if (end > s->size) {
        s->need = end;
        return NULL;
    }
    void *p = s->base + s->used;
    s->used = end;
    s->live++;
    return p;
}

/* What is freed out of order stays taken until all is free. */
static void scratch_free(void *user, void *ptr, size_t size)
{
    scratch *s = user;
    size_t   at = (size_t)((uint8_t *)ptr - s->base), end;

    if (rounded_up(at, size, &end) && end == s->used) s->used = at;
    if (--s->live == 0) s->used = 0;
}

/* The caller's allocator, with what was taken from it at once. */
typedef struct measured {
    const weft_allocator *inner;
    size_t now, peak;
} measured;

static void *measured_alloc(void *user, size_t size, size_t align)
{
    measured *m = user;
    void     *p = m->inner->alloc(m->inner->user, size, align);
    size_t    end;

    if (p != NULL && rounded_up(m->now, size, &end)) {
        m->now = end;
        m->peak = WF_MAX(m->peak, end);
    }
    return p;
}

static void measured_free(void *user, void *ptr, size_t size)
{
    measured *m = user;
    size_t    rounded;

    if (rounded_up(0, size, &rounded)) m->now -= WF_MIN(rounded, m->now);
    m->inner->free(m->inner->user, ptr, size);
}

/* ---- one layer, and all ---- */

typedef struct merge {
    bool        todo;
    size_t      floats; /* of the copy                                      */
    size_t      need;   /* bytes of scratch, once there was found too little */
    weft_status status;
    weft_error  error;
} merge;

typedef struct job {
    const weft_run   *run;
    const weft_plan  *plan;
    wf_merged *const *copy;    /* [count]            */
    size_t            count;
    merge            *merge;   /* [count]            */
    scratch          *scratch; /* [threads]          */
    uint8_t          *block;   /* of all the scratch */
} job;

static weft_status make(const job *j, size_t i, const weft_allocator *alloc, weft_error *err)
{
    const wf_merged *m = j->copy[i];

    return wf_plan_patched_weight(j->plan, m->patch, m->cells, NULL, m->weight, m->bias, alloc,
                                  err);
}

static void merge_task(void *user, size_t i, int32_t worker)
{
    job     *j = user;
    merge   *m = &j->merge[i];
    scratch *s = &j->scratch[worker];

    if (!m->todo) return;
    s->need = 0;
    m->status = make(j, i, &(weft_allocator){ scratch_alloc, scratch_free, s }, &m->error);
    m->need = m->status == WEFT_E_NOMEM ? s->need : 0;
    m->todo = m->need > 0;
}

/* Make layer i on the caller's thread: how much scratch did it take? */
static weft_status make_first(const job *j, size_t i, size_t *size, weft_error *err)
{
    measured m = { .inner = &j->run->alloc };

    WF_TRY(make(j, i, &(weft_allocator){ measured_alloc, measured_free, &m }, err));
    j->merge[i].todo = false;
    j->merge[i].status = WEFT_OK;
    *size = WF_MAX(m.peak, j->merge[i].need);
    return WEFT_OK;
}

static weft_status share_out(job *j, size_t size, weft_error *err)
{
    const weft_allocator *alloc = &j->run->alloc;
    size_t                threads = (size_t)j->run->threads;

    size_t                bytes;

    if (size <= j->scratch[0].size) return WEFT_OK;
    wf_free(alloc, j->block);
    j->block = wf_mul(threads, size, &bytes) ? wf_alloc(alloc, bytes) : NULL;
    if (j->block == NULL) return wf_nomem(err, size, "each worker's scratch for merged copies");
    for (size_t w = 0; w < threads; w++)
        j->scratch[w] = (scratch){ .base = j->block + w * size, .size = size };
    return WEFT_OK;
}

static bool wants_more(const merge *a, const merge *b)
{
    return a->need != b->need ? a->need > b->need : a->floats > b->floats;
}

/* Of the layers still to be made the one that wants most; j->count if there is none. */
static size_t next_layer(const job *j)
{
    size_t next = j->count;

    for (size_t i = 0; i < j->count; i++)
        if (j->merge[i].todo && (next == j->count || wants_more(&j->merge[i], &j->merge[next])))
            next = i;
    return next;
}

/* Bytes of scratch that serve every layer, if all say what they need; else 0. */
static size_t told(const job *j)
{
    size_t most = 0, size;

    for (size_t i = 0; i < j->count; i++) {
        size = wf_plan_pairs_scratch(j->plan, j->copy[i]->patch, j->copy[i]->cells);
        if (size == 0) return 0;
        most = WF_MAX(most, size);
    }
    return rounded_up(most, BESIDE, &size) ? size : 0;
}

/* All layers that are still to be made, on the scratch that is there. */
static weft_status make_round(job *j, weft_error *err)
{
    wf_pool_run(j->run->pool, j->count, merge_task, j);
    for (size_t i = 0; i < j->count; i++)
        if (!j->merge[i].todo && j->merge[i].status != WEFT_OK) {
            if (err != NULL) *err = j->merge[i].error;
            return j->merge[i].status;
        }
    return WEFT_OK;
}

static weft_status make_all(job *j, weft_error *err)
{
    size_t size = told(j);

    if (size > 0) {
        WF_TRY(share_out(j, size, err));
        WF_TRY(make_round(j, err));
    }
    for (size_t i; (i = next_layer(j)) < j->count;) {
        WF_TRY(make_first(j, i, &size, err));
        if (next_layer(j) == j->count) break;
        WF_TRY(share_out(j, size, err));
        WF_TRY(make_round(j, err));
    }
    return WEFT_OK;
}

weft_status wf_merged_make(const weft_run *r, const weft_plan *plan, wf_merged *const *copy,
                           size_t count, weft_error *err)
{
    const weft_allocator *alloc = &r->alloc;
    job                   j = { .run = r, .plan = plan, .copy = copy, .count = count };
    weft_status           st;

    if (count == 0) return WEFT_OK;
    j.merge = wf_zalloc(alloc, count, sizeof *j.merge);
    j.scratch = wf_zalloc(alloc, (size_t)r->threads, sizeof *j.scratch);
    if (j.merge == NULL || j.scratch == NULL) {
        st = wf_nomem(err, count * sizeof *j.merge, "merged copies");
    } else {
        for (size_t i = 0; i < count; i++) {
            j.merge[i].todo = true;
            j.merge[i].floats = copy[i]->floats;
        }
        wf_blas_begin();
        st = make_all(&j, err);
        wf_blas_end();
    }
    wf_free(alloc, j.block);
    wf_free(alloc, j.scratch);
    wf_free(alloc, j.merge);
    return st;
}
