/* memory.c - the memory of a run, sized by a dry run: no memory, no arithmetic.
 *
 * A dry exec walks a step of each phase, the encoding of prompts, and the coding of images, in the
 * run's shape: the arena's high-water mark is the scratch memory, and the same walk counts the
 * arithmetic and the layers. So a step never allocates, and weft_run_bytes() tells what is taken
 * here before it is.
 *
 * A run that moves to another plan keeps what still fits: the scratch, the room for what is kept of
 * the text, and each merged copy whose adapters and coefficients are the same. */
#include "run/run_internal.h"

/* ---- merged copies ---- */

static void merged_drop(wf_merged *m, const weft_allocator *alloc)
{
    if (m == NULL || --m->refs > 0) return;
    wf_patch_drop(m->patch);
    wf_free(alloc, m->cells);
    wf_free(alloc, m->weight);
    wf_free(alloc, m);
}

static wf_merged *merged_create(const weft_run *r, wf_patch *patch, const wf_cell *cells,
                                const wf_layer *l, bool measure)
{
    size_t     weight = (size_t)l->out * (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel;
    wf_merged *m = wf_zalloc(&r->alloc, 1, sizeof *m);

    if (m == NULL) return NULL;
    m->refs = 1;
    m->patch = wf_patch_ref(patch);
    m->floats = wf_patch_merged_floats(patch, l);
    m->cells = wf_alloc(&r->alloc, (size_t)patch->parts * sizeof *cells);
    if (!measure) m->weight = wf_alloc(&r->alloc, m->floats * sizeof(float));
    if (m->cells == NULL || (!measure && m->weight == NULL)) {
        merged_drop(m, &r->alloc);
        return NULL;
    }
    memcpy(m->cells, cells, (size_t)patch->parts * sizeof *cells);
    if (m->floats > weight && !measure) m->bias = m->weight + weight;
    return m;
}

/* The copy that is like this, or NULL. A patch is shared wherever it is the same. */
static wf_merged *merged_find(const wf_run_memory *b, const wf_patch *patch, const wf_cell *cells)
{
    for (size_t i = 0; b != NULL && i < b->phases; i++)
        for (size_t k = 0; k < b->phase[i].count; k++) {
            wf_merged *m = b->phase[i].merged[k];
            if (m != NULL && m->patch == patch &&
                memcmp(m->cells, cells, (size_t)patch->parts * sizeof *cells) == 0)
                return m;
        }
    return NULL;
}

/* ---- deltas: what the plan adds to each layer ---- */

static void free_deltas(wf_sheet_deltas *d, const weft_allocator *alloc)
{
    for (size_t i = 0; d->merged != NULL && i < d->count; i++) merged_drop(d->merged[i], alloc);
    wf_free(alloc, d->merged);
    wf_free(alloc, d->deltas);
}

static weft_status make_deltas(const weft_run *r, wf_run_memory *b, wf_sheet_deltas *d,
                               const wf_sheet *s, weft_error *err)
{
    size_t layers, bytes;
    wf_model_layers(wf_plan_model(b->plan), &layers);
    d->count = s->patched_count;
    d->deltas = wf_zalloc(&r->alloc, layers, sizeof *d->deltas);
    d->merged = wf_zalloc(&r->alloc, d->count, sizeof *d->merged);
    bytes = layers * sizeof *d->deltas + d->count * sizeof *d->merged;
    if (d->deltas == NULL || d->merged == NULL) return wf_nomem(err, bytes, "the layers' adapters");
    for (size_t i = 0; i < d->count; i++) {
        const wf_patched *at = &s->patched[i];
        d->deltas[at->layer].stack = at->patch->merged ? NULL : &at->patch->stack;
        d->deltas[at->layer].slot = (size_t)at->slot;
        d->deltas[at->layer].patch = i;
    }
    b->bytes += bytes;
    return WEFT_OK;
}

/* Take or share the merged copies of a sheet; in `made` those that are to be filled. */
static weft_status take_merged(const weft_run *r, wf_run_memory *b, const wf_run_memory *old,
                               wf_sheet_deltas *d, const wf_sheet *s, bool measure,
                               wf_merged **made, size_t *count, weft_error *err)
{
    const wf_layer *table = wf_model_layers(wf_plan_model(b->plan), &(size_t){ 0 });

    for (size_t i = 0; i < s->patched_count; i++) {
        const wf_patched *at = &s->patched[i];
        const wf_layer   *l = &table[at->layer];
        if (!at->patch->merged) continue;
        const wf_cell *cells = wf_sheet_cells(s, &s->row[0]) + at->slot; /* the same in all rows */
        wf_merged   *m = merged_find(b, at->patch, cells);
        bool         ours = m != NULL;
        if (m == NULL) m = merged_find(old, at->patch, cells);
        if (m != NULL) {
            m->refs++;
        } else {
            m = merged_create(r, at->patch, cells, l, measure);
            if (m == NULL)
                return wf_nomem(err, wf_patch_merged_floats(at->patch, l) * sizeof(float), l->name);
            made[(*count)++] = m;
        }
        if (!ours) b->use.copies += m->floats * sizeof(float);
        d->merged[i] = m;
        d->deltas[at->layer].merged = m->weight;
        d->deltas[at->layer].merged_bias = m->bias;
        d->deltas[at->layer].copied = m->cells;
        d->deltas[at->layer].copied_parts = at->patch->parts;
    }
    return WEFT_OK;
}

static weft_status make_merged(const weft_run *r, wf_run_memory *b, const wf_run_memory *old,
                               bool measure, weft_error *err)
{
    const wf_sheet *phase = wf_plan_phases(b->plan, &(size_t){ 0 });
    size_t          most = 0, count = 0;
    weft_status     st = WEFT_OK;

    for (size_t i = 0; i < b->phases; i++) most += phase[i].patched_count;
    wf_merged **made = wf_zalloc(&r->alloc, most, sizeof *made);
    if (made == NULL) return wf_nomem(err, most * sizeof *made, "merged copies");
    for (size_t i = 0; i < b->phases && st == WEFT_OK; i++)
        st = take_merged(r, b, old, &b->phase[i], &phase[i], measure, made, &count, err);
    b->bytes += b->use.copies;
    if (st == WEFT_OK && !measure) st = wf_merged_make(r, b->plan, made, count, err);
    wf_free(&r->alloc, made);
    return st;
}

void wf_run_mark_merged(wf_run_memory *b, float *mark)
{
    const wf_sheet *phase = wf_plan_phases(b->plan, &(size_t){ 0 });
    for (size_t i = 0; i < b->phases; i++)
        for (size_t k = 0; k < phase[i].patched_count; k++)
            if (phase[i].patched[k].patch->merged)
                b->phase[i].deltas[phase[i].patched[k].layer].merged = mark;
}

/* ---- arrays with an entry for each sample ---- */

static weft_status make_arrays(const weft_run *r, wf_run_memory *b, weft_error *err)
{
    const wf_denoiser_facts *f = wf_facts(wf_run_networks(b));
    size_t n = (size_t)b->samples, ids = (size_t)f->time_ids, streams = (size_t)f->streams;
    size_t branches = (size_t)wf_plan_evaluations(b->plan),
           slots = wf_plan_text_sheet(b->plan)->slots;
    b->branch = wf_zalloc(&r->alloc, n, sizeof *b->branch);
    b->timestep = wf_zalloc(&r->alloc, n, sizeof *b->timestep);
    b->time_ids = wf_zalloc(&r->alloc, n * ids, sizeof *b->time_ids);
    b->guidance = wf_zalloc(&r->alloc, n, sizeof *b->guidance);
    b->text_of = wf_zalloc(&r->alloc, n * streams, sizeof *b->text_of);
    b->preds = wf_zalloc(&r->alloc, 2 * branches, sizeof *b->preds);
    b->text_cells = wf_zalloc(&r->alloc, slots, sizeof *b->text_cells);
    b->slot = wf_zalloc(&r->alloc, n, sizeof *b->slot);
    size_t bytes = n * (sizeof *b->branch + sizeof *b->slot + (2 + ids) * sizeof *b->timestep) +
                   n * streams * sizeof *b->text_of + 2 * branches * sizeof *b->preds +
                   slots * sizeof *b->text_cells;
    if (b->branch == NULL || b->timestep == NULL || b->time_ids == NULL || b->guidance == NULL ||
        b->text_of == NULL || b->preds == NULL || b->text_cells == NULL || b->slot == NULL)
        return wf_nomem(err, bytes, "the samples of a step");
    b->cond_preds = b->preds + branches;
    b->bytes += bytes;
    return WEFT_OK;
}

/* ---- deep features ---- */

static weft_status make_deep(const weft_run *r, wf_run_memory *b, bool measure, weft_error *err)
{
    const wf_denoiser_facts *f = wf_facts(wf_run_networks(b));
    size_t bytes;

    b->deep.call = -2;
    if (!wf_plan_ever_reuses(b->plan)) return WEFT_OK;
    if (f->deep == 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "composite, cached: the UNet has one level, so it has no deep features");
    if (!wf_mul((size_t)r->height * (size_t)r->width, (size_t)f->deep, &b->deep.each) ||
        !wf_mul(b->deep.each, (size_t)b->samples, &bytes) ||
        !wf_mul(bytes, sizeof(float), &bytes))
        return wf_nomem(err, SIZE_MAX, "deep features");
    b->bytes += bytes;
    if (measure) return WEFT_OK;
    if ((b->deep.floats = wf_alloc(&r->alloc, bytes)) == NULL)
        return wf_nomem(err, bytes, "deep features");
    return WEFT_OK;
}

/* Texts of the regions, and the coefficients under which they are read. */
static weft_status make_regions(const weft_run *r, wf_run_memory *b, weft_error *err)
{
    const wf_sheet *phase = wf_plan_phases(b->plan, &(size_t){ 0 });
    size_t regions = (size_t)wf_plan_regions(b->plan), samples = (size_t)b->samples;

    if (regions == 0) return WEFT_OK;
    for (size_t i = 0; i < b->phases; i++) {
        size_t branches = (size_t)(wf_sheet_branches(&phase[i]) + phase[i].base);
        b->region_stride = WF_MAX(b->region_stride, branches * phase[i].slots);
    }
    b->region_of = wf_zalloc(&r->alloc, regions * samples, sizeof *b->region_of);
    b->region_cells = wf_zalloc(&r->alloc, (1 + regions) * b->region_stride,
                                sizeof *b->region_cells);
    size_t bytes = regions * samples * sizeof *b->region_of +
                   (1 + regions) * b->region_stride * sizeof *b->region_cells;
    if (b->region_of == NULL || b->region_cells == NULL)
        return wf_nomem(err, bytes, "the regions of a step");
    b->bytes += bytes;
    return WEFT_OK;
}

/* Rows of the image prompts. */
static weft_status make_images(const weft_run *r, wf_run_memory *b, weft_error *err)
{
    size_t count = (size_t)weft_plan_image_prompts(b->plan) * (size_t)b->samples;

    if (count == 0) return WEFT_OK;
    b->image_of = wf_zalloc(&r->alloc, count, sizeof *b->image_of);
    if (b->image_of == NULL)
        return wf_nomem(err, count * sizeof *b->image_of, "the image prompts of a step");
    b->bytes += count * sizeof *b->image_of;
    return WEFT_OK;
}

/* ---- the dry walk ---- */

static bool count_layer(void *user)
{
    (*(int64_t *)user)++;
    return false;
}

wf_call wf_run_dry_call(const weft_run *r, const wf_run_memory *b, const weft_step *step)
{
    const wf_networks *p = wf_run_networks(b);
    wf_call            call = { .step = step, .guided = true, .evaluations = 1 };

    for (int32_t i = 0; i < p->streams; i++)
        call.text[i].tokens = p->stream[i].facts->kind == WEFT_TEXT_POOLED ? 1 : r->text_tokens;
    for (int32_t i = 0; i < wf_plan_regions(b->plan); i++) call.region[i].tokens = r->text_tokens;
    for (int32_t i = 0; i < weft_plan_image_prompts(b->plan); i++)
        call.image[i] = wf_plan_image_tokens(b->plan, i);
    return call;
}

/* What was walked since the last time is one of the things that use the scratch in turn: its bytes,
 * and the scratch has room for the largest. */
static uint64_t end_use(wf_run_memory *b, wf_exec *e)
{
    uint64_t bytes = e->arena.peak + (uint64_t)b->threads * e->scratch_need;

    b->arena_size = WF_MAX(b->arena_size, e->arena.peak);
    b->scratch_size = WF_MAX(b->scratch_size, e->scratch_need);
    e->arena.peak = e->scratch_need = 0;
    return bytes;
}

/* False where what it needs cannot be counted in 64 bits. */
static bool walk(const weft_run *r, wf_run_memory *b, size_t *kept_floats, wf_sizes *sizes)
{
    static const wf_mask some; /* a dry walk asks only whether there are any */
    wf_kept kept = { .size = 0 };
    const wf_networks *p = wf_run_networks(b);
    const wf_sheet *phase = wf_plan_phases(b->plan, &(size_t){ 0 });
    int64_t layers = 0;
    wf_exec e = { .k = p->kernels, .products = p->products, .dry = true, .arena = { .dry = true },
                  .branch = b->branch, .stop = count_layer,
                  .stop_user = &layers };
    weft_step step = WEFT_STEP_INIT;
    wf_call call = wf_run_dry_call(r, b, &step);
    for (size_t i = 0; i < b->phases; i++) { /* a call of the phase that costs most */
        e.deltas = b->phase[i].deltas;
        e.slots = phase[i].slots;
        e.vectors = phase[i].vectors;
        e.masks = wf_plan_masked(b->plan) ? &some : NULL;
        e.sizes = sizes;
        kept.used = 0;
        e.flops = e.side_flops = 0;
        layers = 0;
        call.evaluations = wf_sheet_branches(&phase[i]) + phase[i].base;
        call.base = phase[i].base;
        if (wf_run_keeps_text(r, b)) { /* sized apart: a text for each layer needs scratch */
            wf_exec counting = e;
            int64_t ignored = 0;
            counting.kept = &kept;
            counting.stop_user = &ignored;
            wf_step_forward(r, &counting, b, &call);
        }
        wf_step_forward(r, &e, b, &call);
        b->side_flops = e.flops > b->step_flops ? e.side_flops : b->side_flops;
        b->step_flops = WF_MAX(b->step_flops, e.flops);
        b->step_layers = layers;
        *kept_floats = WF_MAX(*kept_floats, kept.used);
    }
    b->use.step = end_use(b, &e);
    e.sizes = NULL;
    e.masks = NULL;
    e.vectors = NULL;
    e.deltas = b->text.deltas;
    e.slots = wf_plan_text_sheet(b->plan)->slots;
    if (p->encoders > 0) {
        wf_encoding in = { .skip = 0 };
        for (int32_t i = 0; i < p->encoders; i++)
            in.encoder[i].chunks = WF_MAX(r->text_tokens / wf_encoder_positions(&p->encoder[i]), 1);
        layers = 0;
        wf_encode_forward(r, &e, &in);
        b->encode_layers = layers;
        b->use.encode = end_use(b, &e);
    }
    e.deltas = NULL;
    if (p->vae != NULL) {
        layers = 0;
        e.flops = 0;
        wf_decode_forward(r, &e, NULL, NULL);
        b->decode_flops = e.flops * r->batch;
        b->decode_layers = layers * r->batch;
        b->use.decode = end_use(b, &e);
        layers = 0;
        wf_encode_image_forward(r, &e, NULL, NULL, NULL);
        b->encode_image_layers = layers * r->batch;
        b->use.encode_image = end_use(b, &e);
    }
    b->use.scratch = b->arena_size + (uint64_t)r->threads * b->scratch_size;
    b->bytes += b->use.scratch;
    return !e.arena.overflow;
}

void wf_run_dry_step(const weft_run *r, wf_locate *locate)
{
    const wf_networks *p = wf_run_networks(&r->memory);
    int64_t layers = 0;
    wf_exec e = { .k = p->kernels, .products = p->products, .dry = true, .arena = { .dry = true },
                  .branch = r->memory.branch, .stop = count_layer, .stop_user = &layers,
                  .locate = locate };
    weft_step step = WEFT_STEP_INIT;
    wf_call call = wf_run_dry_call(r, &r->memory, &step);

    wf_step_forward(r, &e, &r->memory, &call);
}

static weft_status make_scratch(const weft_run *r, wf_run_memory *b, weft_error *err)
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

/* A larger scratch serves as well: it is handed on when the new memory is whole. */
static bool scratch_serves(const wf_run_memory *b, const wf_run_memory *old)
{
    return old != NULL && old->arena_size >= b->arena_size && old->scratch_size >= b->scratch_size;
}

/* So does a larger one of what is kept of the text: nothing in it holds under another plan. */
static void hand_on_kept(wf_run_memory *b, wf_run_memory *old)
{
    b->use.kept = old->kept->bytes;
    b->bytes += b->use.kept;
    b->kept = old->kept;
    old->kept = NULL;
    wf_run_kept_forget(b);
}

static void hand_on_scratch(wf_run_memory *b, wf_run_memory *old)
{
    uint64_t more = old->arena_size - b->arena_size +
                    (uint64_t)b->threads * (old->scratch_size - b->scratch_size);

    b->use.scratch += more;
    b->bytes += more;
    b->arena = old->arena;
    b->arena_size = old->arena_size;
    b->scratch = old->scratch;
    b->scratch_size = old->scratch_size;
    old->arena = NULL;
    old->scratch = NULL;
}

/* What is kept of the text, of `floats` of keys and values, unless the old one's serves. */
static weft_status make_kept(const weft_run *r, wf_run_memory *b, const wf_run_memory *old,
                             bool measure, size_t floats, weft_error *err)
{
    if (old != NULL && wf_run_kept_serves(old->kept, r, b, floats)) return WEFT_OK;
    b->use.kept = wf_run_kept_bytes(r, b, floats);
    b->bytes += b->use.kept;
    return measure ? WEFT_OK : wf_run_kept_create(&b->kept, r, b, floats, err);
}

/* All but what the old one has and serves: scratch, and what is kept of the text. */
static weft_status create(const weft_run *r, weft_plan *plan, const wf_run_memory *old,
                          bool measure, wf_run_memory *out, weft_error *err)
{
    wf_run_memory          b = { .plan = plan, .threads = r->threads };
    const wf_sheet *phase = wf_plan_phases(plan, &b.phases);
    size_t          kept = 0;
    wf_sizes        sizes = { 0 };
    float           mark;
    weft_status     st = WEFT_OK;

    wf_plan_ref(plan);
    b.samples = wf_plan_evaluations(plan) * 2 * r->batch;
    b.phase = wf_zalloc(&r->alloc, b.phases, sizeof *b.phase);
    if (b.phase == NULL) st = wf_nomem(err, b.phases * sizeof *b.phase, "the phases of a run");
    for (size_t i = 0; i < b.phases && st == WEFT_OK; i++)
        st = make_deltas(r, &b, &b.phase[i], &phase[i], err);
    if (st == WEFT_OK) st = make_deltas(r, &b, &b.text, wf_plan_text_sheet(plan), err);
    if (st == WEFT_OK) st = make_arrays(r, &b, err);
    if (st == WEFT_OK) st = make_deep(r, &b, measure, err);
    if (st == WEFT_OK) st = make_regions(r, &b, err);
    if (st == WEFT_OK) st = make_images(r, &b, err);
    if (st == WEFT_OK) {
        wf_run_mark_merged(&b, &mark);
        if (!walk(r, &b, &kept, &sizes))
            st = wf_fail(err, WEFT_E_ARG,
                         "a run of %d latents of %d x %d needs more memory than can be counted",
                         r->batch, r->width, r->height);
    }
    if (st == WEFT_OK) st = wf_run_masks_make(&b.masks, plan, &sizes, measure, &r->alloc, err);
    if (st == WEFT_OK) b.bytes += b.masks.bytes;
    if (st == WEFT_OK) st = make_merged(r, &b, old, measure, err);
    if (st == WEFT_OK && r->trace) st = wf_run_trace_create(&b.trace, r, &b, measure, err);
    if (st == WEFT_OK && !measure && !scratch_serves(&b, old)) st = make_scratch(r, &b, err);
    if (st == WEFT_OK && wf_run_keeps_text(r, &b)) st = make_kept(r, &b, old, measure, kept, err);
    if (st != WEFT_OK) wf_run_memory_free(&b, &r->alloc);
    else *out = b;
    return st;
}

weft_status wf_run_memory_create(const weft_run *r, weft_plan *plan, bool measure,
                                 wf_run_memory *out, weft_error *err)
{
    return create(r, plan, NULL, measure, out, err);
}

weft_status wf_run_memory_replace(weft_run *r, weft_plan *plan, weft_error *err)
{
    wf_run_memory b;

    WF_TRY(create(r, plan, &r->memory, false, &b, err));
    if (scratch_serves(&b, &r->memory)) hand_on_scratch(&b, &r->memory);
    if (wf_run_keeps_text(r, &b) && b.kept == NULL) hand_on_kept(&b, &r->memory);
    wf_run_memory_free(&r->memory, &r->alloc);
    r->memory = b;
    return WEFT_OK;
}

void wf_run_memory_free(wf_run_memory *b, const weft_allocator *alloc)
{
    for (size_t i = 0; b->phase != NULL && i < b->phases; i++) free_deltas(&b->phase[i], alloc);
    wf_free(alloc, b->phase);
    free_deltas(&b->text, alloc);
    wf_free(alloc, b->branch);
    wf_free(alloc, b->timestep);
    wf_free(alloc, b->time_ids);
    wf_free(alloc, b->guidance);
    wf_free(alloc, b->text_of);
    wf_free(alloc, b->preds);
    wf_free(alloc, b->text_cells);
    wf_free(alloc, b->slot);
    wf_free(alloc, b->deep.floats);
    wf_free(alloc, b->region_of);
    wf_free(alloc, b->image_of);
    wf_free(alloc, b->region_cells);
    wf_run_kept_free(b->kept, alloc);
    wf_run_trace_free(b->trace, alloc);
    wf_run_masks_free(&b->masks, alloc);
    wf_free(alloc, b->arena);
    for (int32_t i = 0; b->scratch != NULL && i < b->threads; i++) wf_free(alloc, b->scratch[i]);
    wf_free(alloc, b->scratch);
    weft_plan_free(b->plan);
    *b = (wf_run_memory){ 0 };
}
