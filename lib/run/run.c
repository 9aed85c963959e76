/* run.c - the run handle: made for a shape, moved between plans, stopped from anywhere.
 *
 * A run owns the threads, the scratch memory and the cancel flag. Everything that a computation
 * needs was taken when the run was made (memory.c), so the calls between wf_run_begin() and
 * wf_run_end() only compute. */
#include "base/structs.h"
#include "run/run_internal.h"

enum {
    FLAGS = WEFT_RUN_KEEP_TEXT | WEFT_RUN_UNCHECKED | WEFT_RUN_MEASURE | WEFT_RUN_TRACE |
            WEFT_RUN_FORGET_TEXT
};

weft_status wf_run_shape(weft_run *r, const weft_plan *plan, const weft_run_options *o,
                         weft_error *err)
{
    const wf_networks *n = wf_model_networks(wf_plan_model(plan));
    const wf_denoiser_facts *f = wf_facts(n);
    int32_t chunk = 1; /* tokens of the longest stream */
    for (int32_t i = 0; i < n->streams; i++) chunk = WF_MAX(chunk, n->stream[i].tokens);
    if (o->tile < 0 || (o->tile > 0 && o->tile < 16))
        return wf_fail(err, WEFT_E_ARG,
                       "run options: tile is %d, wanted at least 16 latent pixels, or 0", o->tile);
    r->threads = o->threads != 0 ? o->threads : wf_cores();
    r->batch = o->batch != 0 ? o->batch : 1;
    r->height = o->height != 0 ? o->height : f->sample_size;
    r->width = o->width != 0 ? o->width : f->sample_size;
    r->text_tokens = o->text_tokens != 0 ? o->text_tokens : 4 * chunk;
    r->tile = o->tile;
    r->keep_text = (o->flags & WEFT_RUN_FORGET_TEXT) == 0;
    r->check = (o->flags & WEFT_RUN_UNCHECKED) == 0;
    r->measure = (o->flags & WEFT_RUN_MEASURE) != 0;
    r->trace = (o->flags & WEFT_RUN_TRACE) != 0;
    const struct { const char *name; int32_t value, most; } limits[] = {
        { "threads", r->threads, WF_MAX_THREADS }, { "batch", r->batch, 1024 },
        { "height", r->height, 8192 }, { "width", r->width, 8192 },
        { "text_tokens", r->text_tokens, 1 << 16 },
    };
    for (size_t i = 0; i < WF_LEN(limits); i++)
        if (limits[i].value < 1 || limits[i].value > limits[i].most)
            return wf_fail(err, WEFT_E_ARG, "run options: %s is %d, wanted 1 to %d", limits[i].name,
                           limits[i].value, limits[i].most);
    if (r->height % f->multiple != 0 || r->width % f->multiple != 0)
        return wf_fail(err, WEFT_E_ARG, "run options: latents of %d x %d, wanted multiples of %d",
                       r->width, r->height, f->multiple);
    if ((int64_t)r->batch * r->height * r->width > (int64_t)1 << 26)
        return wf_fail(err, WEFT_E_ARG,
                       "run options: %d latents of %d x %d are more than a run takes", r->batch,
                       r->width, r->height);
    return WEFT_OK;
}

/* Called at every layer, on the caller's thread. */
static bool stop(void *user)
{
    weft_run *r = user;
    if (atomic_load_explicit(&r->cancel, memory_order_relaxed) != 0) return true;
    if (r->progress == NULL) return false;
    r->done = WF_MIN(r->done + 1, r->total);
    return r->progress(r->progress_user, r->doing, r->done, r->total) != 0;
}

/* The exec works in the run's memory. */
static void attach(weft_run *r)
{
    const wf_networks *n = wf_run_networks(&r->memory);
    r->exec = (wf_exec){ .k = n->kernels, .products = n->products, .pool = r->pool,
                         .arena = { .base = r->memory.arena, .size = r->memory.arena_size },
                         .scratch = r->memory.scratch, .scratch_need = r->memory.scratch_size,
                         .stop = stop, .stop_user = r, .tap = r->tap };
}

void wf_run_set_tap(weft_run *r, const wf_tap *tap)
{
    r->tap = r->exec.tap = tap;
}

/* After fork() the child has the run's memory and none of its threads. */
static weft_status check_process(const weft_run *r, weft_error *err)
{
    if (wf_pool_own_process(r->pool)) return WEFT_OK;
    return wf_fail(err, WEFT_E_STATE,
                   "this run belongs to the process that forked: create one here");
}

weft_status wf_run_ready(const weft_plan *plan, weft_error *err)
{
    if (plan == NULL) return wf_fail(err, WEFT_E_ARG, "plan is NULL");
    if (!wf_plan_sealed(plan))
        return wf_fail(err, WEFT_E_STATE, "the plan is not sealed: call weft_plan_seal() first");
    return WEFT_OK;
}

weft_status weft_run_create(weft_plan *plan, const weft_run_options *options, weft_run **out,
                            weft_error *err)
{
    weft_run_options o;
    weft_status st;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "out is NULL");
    *out = NULL;
    if ((st = wf_run_ready(plan, err)) != WEFT_OK) return st;
    if ((st = WF_OPTIONS(&o, options, weft_run_options, FLAGS, err)) != WEFT_OK)
        return st;
    if ((st = wf_check_allocator(o.allocator, err)) != WEFT_OK) return st;

    weft_allocator alloc = wf_allocator(o.allocator);
    weft_run *r = wf_zalloc(&alloc, 1, sizeof *r);
    if (r == NULL) return wf_nomem(err, sizeof *r, "a run");
    r->alloc = alloc;
    r->log = o.log;
    r->log_user = o.log_user;
    r->progress = o.progress;
    r->progress_user = o.progress_user;
    if ((st = wf_run_shape(r, plan, &o, err)) != WEFT_OK) goto done;
    if ((st = wf_pool_create(&r->alloc, r->threads, &r->pool, err)) != WEFT_OK) goto done;
    r->memory.plan = plan; /* what the dry walk asks for the model; replaced by the whole */
    st = wf_run_memory_create(r, plan, false, &r->memory, err);
    if (st != WEFT_OK) {
        r->memory.plan = NULL;
        goto done;
    }
    if ((st = wf_blas_hold(r->threads, err)) != WEFT_OK) goto done;
    r->areas = r->threads;
    attach(r);
    *out = r;
    r = NULL;
done:
    weft_run_free(r);
    return st;
}

void weft_run_free(weft_run *r)
{
    if (r == NULL) return;
    weft_allocator alloc = r->alloc;
    wf_pool_free(r->pool);
    wf_blas_let_go(r->areas);
    wf_run_memory_free(&r->memory, &alloc);
    wf_run_locate_free(r->locate);
    wf_free(&alloc, r);
}

weft_status wf_run_measure(weft_run *shape, weft_plan *plan, wf_run_memory *b,
                           const weft_run_options *options, weft_error *err)
{
    weft_run_options o;

    WF_TRY(WF_OPTIONS(&o, options, weft_run_options, FLAGS, err));
    WF_TRY(wf_check_allocator(o.allocator, err));
    *shape = (weft_run){ .alloc = wf_allocator(o.allocator), .memory.plan = plan };
    WF_TRY(wf_run_shape(shape, plan, &o, err));
    return wf_run_memory_create(shape, plan, true, b, err);
}

weft_status weft_run_bytes(const weft_plan *plan, const weft_run_options *options, uint64_t *bytes,
                           weft_error *err)
{
    weft_plan *held = (weft_plan *)(uintptr_t)plan; /* counted while this call looks at it, and
                                                       let go */
    weft_run shape = { 0 };
    wf_run_memory b = { 0 };
    weft_status st;

    if (bytes == NULL) return wf_fail(err, WEFT_E_ARG, "bytes is NULL");
    if ((st = wf_run_ready(plan, err)) != WEFT_OK) return st;
    if ((st = wf_run_measure(&shape, held, &b, options, err)) != WEFT_OK) return st;
    *bytes = b.bytes;
    wf_run_memory_free(&b, &shape.alloc);
    return WEFT_OK;
}

weft_status weft_run_set_plan(weft_run *r, weft_plan *plan, weft_error *err)
{
    weft_status st;
    if (r == NULL) return wf_fail(err, WEFT_E_ARG, "run is NULL");
    if ((st = wf_run_ready(plan, err)) != WEFT_OK) return st;
    if ((st = check_process(r, err)) != WEFT_OK) return st;
    if (wf_plan_model(plan) != wf_plan_model(r->memory.plan))
        return wf_fail(err, WEFT_E_MISMATCH, "the plan is for another model than the run's");
    if ((st = wf_run_memory_replace(r, plan, err)) != WEFT_OK) return st;
    wf_run_locate_forget(r);
    attach(r);
    return WEFT_OK;
}

/* What is told of a run's shape and memory, made or only measured. */
static weft_run_info describe(const weft_run *r, const wf_run_memory *b)
{
    weft_run_info i = WEFT_RUN_INFO_INIT;

    i.threads = r->threads;
    i.bytes = b->bytes;
    i.step_flops = b->step_flops;
    i.side_flops = b->side_flops;
    i.decode_flops = b->decode_flops;
    i.branches = wf_plan_evaluations(b->plan);
    i.latent_len = (size_t)r->batch * wf_run_latent_floats(r);
    i.extra_len = wf_run_extra_floats(r);
    i.image_len = wf_run_networks(b)->vae != NULL ? (size_t)r->batch * wf_run_image_floats(r) : 0;
    i.batch = r->batch;
    i.height = r->height;
    i.width = r->width;
    i.text_tokens = r->text_tokens;
    i.text_streams = wf_run_networks(b)->streams;
    i.reuse_error = b->deep.error;
    i.scratch_bytes = b->use.scratch;
    i.copy_bytes = b->use.copies;
    i.kept_bytes = b->use.kept;
    i.step_bytes = b->use.step;
    i.encode_bytes = b->use.encode;
    i.decode_bytes = b->use.decode;
    i.encode_image_bytes = b->use.encode_image;
    return i;
}

weft_status weft_run_info_get(const weft_run *r, weft_run_info *info, weft_error *err)
{
    if (r == NULL || info == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", r == NULL ? "run" : "info");
    weft_run_info i = describe(r, &r->memory);
    return WF_RESULT(info, &i, weft_run_info, err);
}

weft_status weft_run_measure(const weft_plan *plan, const weft_run_options *options,
                             weft_run_info *info, weft_error *err)
{
    weft_plan *held = (weft_plan *)(uintptr_t)plan; /* as in weft_run_bytes() */
    weft_run shape = { 0 };
    wf_run_memory b = { 0 };

    if (info == NULL) return wf_fail(err, WEFT_E_ARG, "info is NULL");
    WF_TRY(wf_run_ready(plan, err));
    WF_TRY(wf_run_measure(&shape, held, &b, options, err));
    weft_run_info i = describe(&shape, &b);
    wf_run_memory_free(&b, &shape.alloc);
    return WF_RESULT(info, &i, weft_run_info, err);
}

void weft_run_cancel(weft_run *r)
{
    if (r != NULL) atomic_store_explicit(&r->cancel, 1, memory_order_relaxed);
}

/* What hung beside the layers in the last call is nothing to the next. */
static void forget_call(wf_exec *e)
{
    e->deltas = NULL;
    e->cells = NULL;
    e->lines = NULL;
    e->slots = e->patches = 0;
    e->vectors = NULL;
    e->masks = NULL;
    e->branch = NULL;
    e->locate = NULL;
    e->notes = NULL;
    e->align = NULL;
    e->kept = NULL;
    e->deep = NULL;
}

weft_status wf_run_begin(weft_run *r, const char *doing, const char *result, int64_t total,
                         weft_error *err)
{
    weft_status st = check_process(r, err);
    if (st != WEFT_OK) return st;
    if (atomic_exchange(&r->cancel, 0) != 0)
        return wf_fail(err, WEFT_E_CANCELLED, "%s was cancelled", doing);
    r->doing = doing;
    r->done = 0;
    r->total = total;
    r->exec.stopped = false;
    forget_call(&r->exec);
    r->watch = (wf_watch){ .found = false };
    r->exec.watch = r->check ? &r->watch : NULL;
    wf_format(r->result, sizeof r->result, "%s", result);
    wf_blas_begin();
    return WEFT_OK;
}

weft_status wf_run_end(weft_run *r, weft_error *err)
{
    bool overflow = r->exec.arena.overflow;

    wf_blas_end();
    r->exec.arena.used = 0;
    r->exec.arena.overflow = false;
    if (!r->exec.stopped && !overflow) return WEFT_OK;
    atomic_store(&r->cancel, 0);
    if (r->watch.found) return wf_run_not_finite(r, err);
    if (overflow)
        return wf_fail(err, WEFT_E_INTERNAL, "%s needed more memory than was counted", r->doing);
    return wf_fail(err, WEFT_E_CANCELLED, "%s was cancelled", r->doing);
}
