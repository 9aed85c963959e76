/* step.c - one call: branches and the two halves of guidance in one batch.
 *
 * Samples are numbered branch by branch, in each the unconditional half before the conditional, in
 * each the batch. One evaluation of the denoiser serves them all: the base products share their
 * widened weights, each sample takes its own branch's coefficients. Split guidance runs the same
 * samples in two evaluations; as every sample is computed by itself, the bits are the same. So they
 * are under a plan that aligns samples: these depend on the first of their batch, and a batch of a
 * half of a branch always lies together. Then the plan combines the branches of each half, and
 * guidance combines the halves.
 *
 * The caller's `out` is written last, from the arena: so it may be the buffer of the latents. */
#include <math.h>

#include "base/structs.h"
#include "run/run_internal.h"

/* The blocks of one stream: one for all, or one for each sample, or for each branch of either. */
typedef struct blocks { const float *base; size_t stride, per_branch, per_sample; } blocks;

static weft_status read_blocks(blocks *out, const weft_text *text, size_t one, const weft_run *r,
                               size_t branches, const char *what, int32_t stream, weft_error *err)
{
    size_t n = (size_t)r->batch, k = WF_MAX(branches, (size_t)1);
    *out = (blocks){ .base = text->data, .stride = one };
    if (text->data == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s[%d].data is NULL, wanted %zu floats", what, stream,
                       one);
    if (text->len == k * one) {
        out->per_branch = branches > 0;
    } else if (text->len == k * n * one) {
        out->per_branch = branches > 0 ? n : 0;
        out->per_sample = 1;
    } else {
        return wf_fail(err, WEFT_E_ARG, "%s[%d].len is %zu, wanted %zu, or %zu for one each", what,
                       stream, text->len, k * one, k * n * one);
    }
    return WEFT_OK;
}

static const float *block(const blocks *b, size_t branch, size_t sample)
{
    return b->base + (branch * b->per_branch + sample * b->per_sample) * b->stride;
}

/* What the plan's regions bring to samples from `first` on; NULL: nothing. */
static const wf_regions *see_regions(wf_regions *regions, wf_region_input at[WF_REGIONS_MAX],
                                     const wf_run_memory *b, const wf_call *call, int32_t first)
{
    int32_t count = wf_plan_regions(b->plan);

    for (int32_t i = 0; i < count; i++)
        at[i] = (wf_region_input){
            .text = { b->region_of + (size_t)i * (size_t)b->samples + first,
                      call->region[i].tokens, call->region[i].cross_layers },
            .mask = b->masks.region != NULL ? &b->masks.region[i] : NULL,
            .isolated = wf_plan_region_isolated(b->plan, i),
            .cells = b->region_cells + (size_t)(1 + i) * b->region_stride };
    *regions = (wf_regions){ count, at, b->region_cells };
    return count > 0 ? regions : NULL;
}

/* The same of its image prompts. */
static const wf_images *see_images(wf_images *images, wf_image_input of[WF_IMAGES_MAX],
                                   const wf_run_memory *b, const wf_call *call, int32_t first)
{
    int32_t count = weft_plan_image_prompts(b->plan);

    for (int32_t i = 0; i < count; i++)
        of[i] = (wf_image_input){
            .rows = b->image_of + (size_t)i * (size_t)b->samples + first, .tokens = call->image[i],
            .weight = wf_plan_image_weight(b->plan, i, call->step->call),
            .at = wf_plan_image_at(b->plan, i),
            .mask = b->masks.image != NULL && wf_plan_image_mask(b->plan, i) != NULL
                        ? &b->masks.image[i] : NULL };
    *images = (wf_images){ count, of };
    return count > 0 ? images : NULL;
}

/* How samples of an evaluation are aligned, which lie batch by batch; NULL: they are not. */
static const wf_align *align_samples(wf_align *to, const weft_run *r, const wf_run_memory *b)
{
    const weft_align_options *o = wf_plan_align(b->plan);

    if (o == NULL || r->batch == 1) return NULL;
    *to = (wf_align){ .group = r->batch,
                      .norm = !(o->flags & WEFT_ALIGN_NO_GROUP_NORM),
                      .attention = !(o->flags & WEFT_ALIGN_NO_ATTENTION),
                      .queries = !(o->flags & WEFT_ALIGN_NO_QUERIES),
                      .keys = !(o->flags & WEFT_ALIGN_NO_KEYS),
                      .values = (o->flags & WEFT_ALIGN_VALUES) != 0,
                      .full = (o->flags & WEFT_ALIGN_FULL) != 0,
                      .scale = o->shared_score_scale,
                      .shift = o->shared_score_shift,
                      .own = o->only_self_level };
    return to;
}

/* The denoiser on samples [first, first + count), predictions one after the other into `out`. */
static void evaluate(const weft_run *r, wf_exec *e, const wf_run_memory *b, const wf_call *call,
                     float *out, int32_t first, int32_t count)
{
    const wf_denoiser *d = wf_run_networks(b)->denoiser;
    const weft_step *step = call->step;
    size_t latent = wf_run_latent_floats(r), plane = (size_t)r->height * (size_t)r->width;
    size_t all = (size_t)d->facts.in_channels * plane, extra = all - latent;
    size_t mark = wf_arena_mark(&e->arena);
    wf_region_input at[WF_REGIONS_MAX];
    wf_image_input of[WF_IMAGES_MAX];
    wf_regions regions;
    wf_images images;
    wf_align align;
    float *x = wf_take(e, (size_t)count, all);
    for (size_t s = 0; s < (size_t)count && !e->dry && !e->stopped; s++) {
        size_t i = s % (size_t)r->batch;
        memcpy(x + s * all, step->latent + i * latent, latent * sizeof *x);
        if (extra > 0) memcpy(x + s * all + latent, step->extra + i * extra, extra * sizeof *x);
    }
    wf_denoise_input in = { .grid = wf_image_grid(count, r->height, r->width), .latent = x,
                            .timestep = b->timestep + first,
                            .time_ids = b->time_ids + (size_t)first * (size_t)d->facts.time_ids,
                            .guidance = b->guidance + first,
                            .regions = see_regions(&regions, at, b, call, first),
                            .images = see_images(&images, of, b, call, first) };
    for (int32_t k = 0; k < d->facts.streams; k++)
        in.text[k] = (wf_text_input){ b->text_of + k * b->samples + first, call->text[k].tokens,
                                      call->text[k].cross_layers };
    e->align = align_samples(&align, r, b);
    if (e->dry) {
        wf_denoise(d, e, out, &in);
    } else {
        wf_run_kept_begin(e, b, call, &in, first, count);
        wf_denoise(d, e, out, &in);
        wf_run_kept_end(e, b, call, first);
    }
    e->align = NULL;
    wf_arena_release(&e->arena, mark);
}

bool wf_call_reuses(const wf_run_memory *b, const wf_call *call, int32_t branch)
{
    return call->reuse && wf_plan_reuses(b->plan, call->step->call, branch);
}

/* Evaluations of each half of a call. */
static int32_t count_passes(const wf_run_memory *b, const wf_call *call)
{
    int32_t n = 1;
    for (int32_t k = 1; k < call->evaluations; k++)
        n += wf_call_reuses(b, call, k) != wf_call_reuses(b, call, k - 1);
    return n;
}

/* Does the call reuse features, of a call right before it? */
static void choose_reuse(const weft_run *r, wf_call *call)
{
    const wf_run_deep *d = &r->memory.deep;

    call->keeps = d->floats != NULL;
    call->reuse = call->keeps && d->call + 1 == call->step->call && d->guided == call->guided;
}

/* Samples of a half begin at half * batch inside each branch when both run together. */
static void fill_branches(const wf_run_memory *b, int32_t batch, int32_t halves,
                          int32_t evaluations)
{
    int32_t each = halves * batch, count = each * evaluations;
    for (int32_t s = 0; s < count; s++) b->branch[s] = s / each;
}

/* y = rescale * y std(c) / std(y) + (1 - rescale) y: guidance without growing contrast. Lin et al.,
 * Common Diffusion Noise Schedules and Sample Steps Are Flawed (2023), section 3.4; over one
 * sample's n values. */
static void keep_spread(float *y, const float *c, size_t n, double rescale)
{
    double sum[2] = { 0, 0 }, square[2] = { 0, 0 };
    for (size_t i = 0; i < n; i++) {
        sum[0] += y[i];
        sum[1] += c[i];
    }
    for (size_t i = 0; i < n; i++) {
        double a = y[i] - sum[0] / (double)n, b = c[i] - sum[1] / (double)n;
        square[0] += a * a;
        square[1] += b * b;
    }
    double factor = square[0] > 0 ? sqrt(square[1] / square[0]) : 1.0;
    for (size_t i = 0; i < n; i++) y[i] = (float)(y[i] * (rescale * factor + (1.0 - rescale)));
}

/* u = e_u + w (e_c - e_u) of the combined predictions; or what it is, if it is the only one there
 * is (c NULL). */
static void guide(const weft_run *r, const weft_step *step, float *u, const float *c)
{
    size_t each = step->out_len / (size_t)r->batch;
    if (c == NULL) return;
    for (size_t i = 0; i < step->out_len; i++) u[i] = u[i] + step->guidance * (c[i] - u[i]);
    for (size_t s = 0; s < (size_t)r->batch && step->guidance_rescale != 0.0f; s++)
        keep_spread(u + s * each, c + s * each, each, step->guidance_rescale);
}

/* One half's predictions become one. */
static void combine(const weft_run *r, wf_exec *e, const wf_run_memory *b, const wf_call *call,
                    float *out, int32_t which)
{
    size_t values = (size_t)r->batch * wf_run_latent_floats(r), mark = wf_arena_mark(&e->arena);
    float *scratch = wf_take(e, 1, wf_plan_combine_scratch(b->plan, values));

    if (!e->dry && !e->stopped)
        wf_plan_combine(b->plan, &(wf_combine){
            .call = call->step->call, .timestep = call->step->timestep, .n = r->batch,
            .c = wf_facts(wf_run_networks(b))->out_channels, .h = r->height, .w = r->width,
            .latent = call->step->latent, .half = which, .guided = call->guided,
            .branches = call->evaluations - call->base, .preds = b->preds,
            .masks = b->masks.of, .base = call->base ? b->preds[call->evaluations - 1] : NULL,
            .cond = b->cond_preds,
            .cond_base = call->base ? b->cond_preds[call->evaluations - 1] : NULL,
            .scratch = scratch, .out = out,
            .shares = wf_run_trace_shares(e, b, call, which) });
    wf_arena_release(&e->arena, mark);
}

/* Where the predictions of a half begin to be not finite; n floats each. */
static void find_fault(wf_step_fault *f, const wf_run_memory *b, const wf_call *call, int32_t half,
                       const float *combined, size_t n)
{
    if (f->where != WF_SOUND) return;
    f->half = half;
    for (f->branch = 0; f->branch < call->evaluations; f->branch++)
        if (wf_not_finite(b->preds[f->branch], n) < n) {
            f->where = WF_FAULT_PREDICTION;
            return;
        }
    if (wf_not_finite(combined, n) < n) f->where = WF_FAULT_COMBINED;
}

/* `branches` of a call, `each` samples of a branch, the first of them sample `first`. Branches that
 * reuse their deep features are evaluated by themselves, as are those between them. */
static void evaluate_branches(const weft_run *r, wf_exec *e, const wf_run_memory *b,
                              const wf_call *call, float *preds, int32_t first, int32_t each)
{
    size_t floats = wf_run_latent_floats(r);

    for (int32_t k = 0, end; k < call->evaluations; k = end) {
        bool    reuse = wf_call_reuses(b, call, k);
        int32_t at = first + k * each;
        wf_deep deep = { b->deep.floats, b->deep.each, b->slot + at, reuse };
        end = k + 1;
        while (end < call->evaluations && wf_call_reuses(b, call, end) == reuse) end++;
        e->branch = b->branch + k * each;
        if (e->locate != NULL && !e->dry) e->locate->slot = b->slot + at;
        e->deep = call->keeps ? &deep : NULL;
        evaluate(r, e, b, call, e->dry ? NULL : preds + (size_t)at * floats, at, (end - k) * each);
        e->deep = NULL;
    }
}

/* The combined predictions of each half. */
static void predict(const weft_run *r, wf_exec *e, const wf_run_memory *b, const wf_call *call,
                    float *const halves[2])
{
    bool guided = call->guided;
    bool split = guided && (call->step->flags & WEFT_STEP_SPLIT_GUIDANCE) != 0;
    int32_t evaluations = call->evaluations, parts = guided ? 2 : 1;
    int32_t count = evaluations * parts * r->batch;
    size_t floats = wf_run_latent_floats(r), n = (size_t)r->batch * floats;
    size_t mark = wf_arena_mark(&e->arena);
    float *preds = wf_take(e, (size_t)count, floats);

    if (split) { /* the unconditional halves of all branches, then the conditional ones */
        fill_branches(b, r->batch, 1, evaluations);
        for (int32_t h = 0; h < 2; h++)
            evaluate_branches(r, e, b, call, preds, h * evaluations * r->batch, r->batch);
    } else {
        fill_branches(b, r->batch, parts, evaluations);
        evaluate_branches(r, e, b, call, preds, 0, parts * r->batch);
    }
    for (int32_t h = 0; h < parts; h++) {
        for (int32_t k = 0; k < evaluations && !e->dry; k++) {
            int32_t last = parts - 1; /* the conditional half */
            b->preds[k] = preds + (size_t)(split ? h * evaluations + k : k * parts + h) * n;
            b->cond_preds[k] = preds + (size_t)(split ? last * evaluations + k : k * parts + last) * n;
        }
        combine(r, e, b, call, halves[h], guided ? h : WF_CONDITIONAL);
        if (e->watch != NULL && !e->dry && !e->stopped) find_fault(call->fault, b, call, h, halves[h], n);
    }
    wf_arena_release(&e->arena, mark);
}

static void take_halves(const weft_run *r, wf_exec *e, const wf_call *call, float *halves[2])
{
    size_t floats = wf_run_latent_floats(r);
    halves[0] = wf_take(e, (size_t)r->batch, floats);
    halves[1] = call->guided ? wf_take(e, (size_t)r->batch, floats) : NULL;
}

/* How far a result with reused features is from the same call in full. */
static void measure(const weft_run *r, wf_exec *e, const wf_run_memory *b, const wf_call *call,
                    const float *got, float *const full[2], size_t n)
{
    wf_call whole = *call;
    double  off = 0, most = 0;

    wf_notes *notes = e->notes;
    whole.keeps = whole.reuse = false;
    e->notes = NULL;
    predict(r, e, b, &whole, full);
    e->notes = notes;
    if (e->stopped) return;
    guide(r, call->step, full[0], full[1]);
    for (size_t i = 0; i < n; i++) {
        off = fmax(off, fabs((double)got[i] - (double)full[0][i]));
        most = fmax(most, fabs((double)full[0][i]));
    }
    if (most > 0) *call->error = fmax(*call->error, off / most);
}

void wf_step_forward(const weft_run *r, wf_exec *e, const wf_run_memory *b, const wf_call *call)
{
    size_t n = (size_t)r->batch * wf_run_latent_floats(r), mark = wf_arena_mark(&e->arena);
    float *halves[2], *full[2];

    e->products = wf_run_networks(b)->products;
    take_halves(r, e, call, halves);
    if (r->measure) take_halves(r, e, call, full);
    predict(r, e, b, call, halves);
    if (!e->dry && !e->stopped) {
        guide(r, call->step, halves[0], halves[1]);
        bool sound = wf_watch_result(e, halves[0], n);
        if (!sound && call->fault->where == WF_SOUND) call->fault->where = WF_FAULT_GUIDED;
    }
    if (call->error != NULL && !e->stopped) measure(r, e, b, call, halves[0], full, n);
    if (!e->dry && !e->stopped) memcpy(call->step->out, halves[0], n * sizeof *halves[0]);
    wf_arena_release(&e->arena, mark);
}

/* What the samples of one half of guidance read besides the latents. */
typedef struct half {
    blocks text[WF_STREAMS_MAX], region[WF_REGIONS_MAX], image[WF_IMAGES_MAX];
    float  time_ids[WF_TIME_IDS_MAX];
} half;

/* Text, time ids and timesteps of each sample, in the order that wf_step_forward() evaluates. */
static void fill_samples(weft_run *r, const wf_call *call, const half halves[2])
{
    wf_run_memory *b = &r->memory;
    const wf_denoiser_facts *f = wf_facts(wf_run_networks(b));
    const weft_step *step = call->step;
    size_t branches = (size_t)call->evaluations, parts = call->guided ? 2 : 1;
    size_t n = (size_t)r->batch;
    size_t ids = (size_t)f->time_ids;
    bool split = (step->flags & WEFT_STEP_SPLIT_GUIDANCE) != 0;
    for (size_t k = 0; k < branches; k++)
        for (size_t h = 0; h < parts; h++)
            for (size_t i = 0; i < n; i++) {
                size_t s = (split ? h * branches + k : k * parts + h) * n + i;
                size_t read = call->base && k + 1 == branches ? 0 : k; /* the base: as the first */
                const half *from = &halves[call->guided ? h : WF_CONDITIONAL];
                for (int32_t t = 0; t < f->streams; t++)
                    b->text_of[(size_t)t * (size_t)b->samples + s] = block(&from->text[t], read, i);
                b->slot[s] = (int32_t)((k * 2 + (call->guided ? h : WF_CONDITIONAL)) * n + i);
                for (int32_t t = 0; t < wf_plan_regions(b->plan); t++)
                    b->region_of[(size_t)t * (size_t)b->samples + s] =
                        block(&from->region[t], read, i);
                for (int32_t t = 0; t < weft_plan_image_prompts(b->plan); t++)
                    b->image_of[(size_t)t * (size_t)b->samples + s] =
                        block(&from->image[t], read, i);
                b->timestep[s] = step->timestep;
                b->guidance[s] = step->guidance_embed;
                if (ids > 0)
                    memcpy(b->time_ids + s * ids, from->time_ids, ids * sizeof *from->time_ids);
            }
}

static bool finite(float v) { return v - v == 0.0f; }

/* SDXL's base reads the original size, the crop's corner and the size to make; its refiner an
 * aesthetic score in place of the last. What is not given is an image of the run's own size. */
static weft_status read_time_ids(const weft_run *r, const weft_step *step, half halves[2],
                                 weft_error *err)
{
    const wf_networks *networks = wf_run_networks(&r->memory);
    const wf_denoiser_facts *f = wf_facts(networks);
    size_t ids = (size_t)f->time_ids;
    bool refiner = f->base == WEFT_BASE_SDXL_REFINER;
    float factor = networks->vae != NULL ? (float)wf_vae_factor(networks->vae) : 8.0f;
    float h = (float)r->height * factor, w = (float)r->width * factor;
    const struct { const char *name; const float *given; size_t len; float score; } all[2] = {
        { "negative_time_ids", step->negative_time_ids, step->negative_time_ids_len, 2.5f },
        { "time_ids", step->time_ids, step->time_ids_len, 6.0f },
    };
    for (int i = WF_CONDITIONAL; i >= 0; i--) {
        float *to = halves[i].time_ids;
        float usual[WF_TIME_IDS_MAX] = { h, w, 0, 0, refiner ? all[i].score : h, w };
        if (all[i].given != NULL && all[i].len != ids)
            return wf_fail(err, WEFT_E_ARG, "step.%s has %zu floats, wanted %zu", all[i].name,
                           all[i].len, ids);
        memcpy(to, usual, sizeof usual);
        if (i == WF_UNCONDITIONAL && all[WF_CONDITIONAL].given != NULL) {
            memcpy(to, halves[WF_CONDITIONAL].time_ids, ids * sizeof *to);
            if (refiner) to[4] = all[i].score;
        }
        if (all[i].given != NULL && ids > 0) memcpy(to, all[i].given, ids * sizeof *to);
    }
    return WEFT_OK;
}

/* Latents, what the denoiser reads after them, and where the prediction goes. */
static weft_status check_images(const weft_run *r, const weft_step *s, weft_error *err)
{
    const wf_denoiser_facts *f = wf_facts(wf_run_networks(&r->memory));
    size_t want = (size_t)r->batch * wf_run_latent_floats(r);
    int32_t others = f->in_channels - f->out_channels;
    size_t extra = wf_run_extra_floats(r);

    if (s->latent == NULL || s->out == NULL)
        return wf_fail(err, WEFT_E_ARG, "step.%s is NULL", s->latent == NULL ? "latent" : "out");
    if (s->latent_len != want || s->out_len != want)
        return wf_fail(err, WEFT_E_ARG, "step.%s has %zu floats, wanted %zu (%d x %d x %d x %d)",
                       s->latent_len != want ? "latent" : "out",
                       s->latent_len != want ? s->latent_len : s->out_len,
                       want, r->batch, f->out_channels, r->height, r->width);
    if (others == 0 && s->extra != NULL)
        return wf_fail(err, WEFT_E_ARG,
            "step.extra is given, but this model reads only the %d channels of the latents",
                       f->in_channels);
    if (others > 0 && s->extra == NULL)
        return wf_fail(err, WEFT_E_ARG,
            "step.extra is NULL: this model reads %d channels after the %d of the latents",
                       others, f->out_channels);
    if (others > 0 && s->extra_len != extra)
        return wf_fail(err, WEFT_E_ARG, "step.extra has %zu floats, wanted %zu (%d x %d x %d x %d)",
                       s->extra_len, extra, r->batch, others, r->height, r->width);
    return WEFT_OK;
}

static weft_status check_numbers(const weft_run *r, const weft_step *s, weft_error *err)
{
    bool takes = wf_facts(wf_run_networks(&r->memory))->guidance;
    if (s->call < 0 || s->call >= wf_plan_calls(r->memory.plan))
        return wf_fail(err, WEFT_E_ARG, "step.call is %d, the plan is sealed for %d calls", s->call,
                       wf_plan_calls(r->memory.plan));
    if (!finite(s->timestep) || !finite(s->guidance) || !finite(s->guidance_rescale) ||
        !finite(s->guidance_embed))
        return wf_fail(err, WEFT_E_ARG,
                       "step.timestep, guidance, guidance_rescale or guidance_embed is not finite");
    if (takes != (s->guidance_embed != 0.0f))
        return wf_fail(err, WEFT_E_ARG,
                       takes ? "step.guidance_embed is 0, but this guidance-distilled model takes "
                               "the guidance scale as an input"
                             : "step.guidance_embed must be 0: this model does not take the "
                               "guidance scale as an input");
    if (s->negative != NULL && s->guidance <= 0.0f)
        return wf_fail(err, WEFT_E_ARG,
                       "step.negative is given, but step.guidance is not above 0: set the guidance "
                       "scale, or leave negative NULL");
    return WEFT_OK;
}

static weft_status read_half(const weft_run *r, const wf_call *call,
                             const weft_text text[WF_STREAMS_MAX], const char *what, half *out,
                             weft_error *err)
{
    const wf_networks *n = wf_run_networks(&r->memory);
    bool branched = (call->step->flags & WEFT_STEP_TEXT_PER_BRANCH) != 0;
    size_t branches = branched ? (size_t)(call->evaluations - call->base) : 0;
    for (int32_t i = 0; i < n->streams; i++)
        WF_TRY(read_blocks(&out->text[i], &text[i], wf_text_floats(&n->stream[i], &text[i]), r,
                           branches, what, i, err));
    return WEFT_OK;
}

/* Both halves of a sample pass through the denoiser in one batch, so their texts have one shape. */
static weft_status read_text(const weft_run *r, wf_call *call, half halves[2], weft_error *err)
{
    const weft_step *s = call->step;
    int32_t streams = wf_run_networks(&r->memory)->streams;
    weft_text yes[WF_STREAMS_MAX], no[WF_STREAMS_MAX];

    WF_TRY(wf_read_texts(yes, r, s->text, s->text_count, "step.text", err));
    WF_TRY(read_half(r, call, yes, "step.text", &halves[WF_CONDITIONAL], err));
    for (int32_t i = 0; i < streams; i++) {
        call->text[i].tokens = yes[i].tokens;
        call->text[i].cross_layers = yes[i].cross_layers;
    }
    if (s->negative == NULL) return WEFT_OK;
    WF_TRY(wf_read_texts(no, r, s->negative, s->negative_count, "step.negative", err));
    for (int32_t i = 0; i < streams; i++)
        if (no[i].tokens != yes[i].tokens || no[i].cross_layers != yes[i].cross_layers)
            return wf_fail(err, WEFT_E_ARG,
                "step.negative[%d] has %d tokens and cross_layers %d, step.text[%d] has %d "
                           "and %d: they must agree", i, no[i].tokens, no[i].cross_layers, i,
                           yes[i].tokens, yes[i].cross_layers);
    return read_half(r, call, no, "step.negative", &halves[WF_UNCONDITIONAL], err);
}

/* What the caller gave, where the result is not finite. */
static weft_status inputs_finite(const weft_step *s, weft_error *err)
{
    WF_TRY(wf_input_finite("step.latent", -1, s->latent, s->latent_len, err));
    WF_TRY(wf_input_finite("step.extra", -1, s->extra, s->extra_len, err));
    WF_TRY(wf_texts_finite("step.text", s->text, s->text_count, err));
    WF_TRY(wf_texts_finite("step.negative", s->negative, s->negative_count, err));
    WF_TRY(wf_texts_finite("step.image", s->image, s->image_count, err));
    WF_TRY(wf_texts_finite("step.image_negative", s->image_negative, s->image_negative_count, err));
    WF_TRY(wf_input_finite("step.time_ids", -1, s->time_ids, s->time_ids_len, err));
    return wf_input_finite("step.negative_time_ids", -1, s->negative_time_ids,
                           s->negative_time_ids_len, err);
}

/* Name the prediction that is not finite. */
static void name_fault(weft_run *r, const wf_call *call)
{
    const wf_step_fault *f = call->fault;
    bool base = call->base && f->branch + 1 == call->evaluations;
    char half[40] = "", branch[40] = "";

    if (call->guided)
        wf_format(half, sizeof half, ", %s half",
                  f->half == WF_UNCONDITIONAL ? "unconditional" : "conditional");
    if (call->evaluations > 1)
        wf_format(branch, sizeof branch, base ? " of the base" : " of branch %d",
                  (int)f->branch);
    if (f->where == WF_FAULT_COMBINED)
        wf_format(r->result, sizeof r->result, "what the method makes of finite predictions%s", half);
    else if (f->where == WF_FAULT_GUIDED)
        wf_format(r->result, sizeof r->result, "what guidance makes of finite predictions");
    else
        wf_format(r->result, sizeof r->result, "the prediction%s%s", branch, half);
}

static weft_status regions_finite(const weft_run *r, const char *what, const weft_text *list,
                                  size_t count, weft_error *err)
{
    const wf_networks *n = wf_run_networks(&r->memory);
    uint32_t stride;

    if (list == NULL) return WEFT_OK;
    memcpy(&stride, list, sizeof stride);
    for (size_t i = (size_t)wf_sequence_of(wf_facts(n)); i < count; i += (size_t)n->streams) {
        const weft_text *t = (const void *)((const char *)list + i * stride);
        WF_TRY(wf_input_finite(what, (int32_t)i, t->data, t->len, err));
    }
    return WEFT_OK;
}

/* The fault lies with the caller, or is looked for once more in every layer. */
static weft_status find_cause(weft_run *r, const wf_call *call, weft_error *err)
{
    const weft_step *s = call->step;

    WF_TRY(inputs_finite(s, err));
    WF_TRY(regions_finite(r, "step.region_text", s->region_text, s->region_text_count, err));
    WF_TRY(regions_finite(r, "step.region_negative", s->region_negative, s->region_negative_count,
                          err));
    name_fault(r, call);
    if (call->fault->where == WF_FAULT_PREDICTION && wf_run_look_again(r))
        wf_step_forward(r, &r->exec, &r->memory, call);
    return WEFT_OK;
}

/* The sequence of region `region` in an array with the streams of all regions. */
static weft_status read_region(weft_text *out, blocks *of, const weft_run *r, const weft_text *list,
                               int32_t region, const char *name, weft_error *err)
{
    const wf_networks *n = wf_run_networks(&r->memory);
    int32_t sequence = wf_sequence_of(wf_facts(n));
    weft_text text[WF_STREAMS_MAX];
    uint32_t stride;
    char what[48];

    memcpy(&stride, list, sizeof stride);
    list = (const weft_text *)(const void *)((const uint8_t *)list + (size_t)region *
                                             (size_t)n->streams * stride);
    wf_format(what, sizeof what, "step.%s of region %d", name, (int)region);
    WF_TRY(wf_read_texts(text, r, list, (size_t)n->streams, what, err));
    *out = text[sequence];
    return read_blocks(of, out, wf_text_floats(&n->stream[sequence], out), r, 0, what, sequence,
                       err);
}

/* The negative half of a region is its own, or that of the whole image. */
static weft_status read_region_half(const weft_run *r, const wf_call *call, half *negative,
                                    int32_t region, const weft_text *yes, weft_error *err)
{
    const weft_step *s = call->step;
    int32_t sequence = wf_sequence_of(wf_facts(wf_run_networks(&r->memory)));
    weft_text no = { .tokens = call->text[sequence].tokens,
                     .cross_layers = call->text[sequence].cross_layers };

    negative->region[region] = negative->text[sequence];
    if (s->region_negative != NULL)
        WF_TRY(read_region(&no, &negative->region[region], r, s->region_negative, region,
                           "region_negative", err));
    if (no.tokens == yes->tokens && no.cross_layers == yes->cross_layers) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG,
                   "step.region_text of region %d has %d tokens and cross_layers %d, but step.%s "
                   "%d and %d: they must agree",
                   (int)region, (int)yes->tokens, (int)yes->cross_layers,
                   s->region_negative != NULL ? "region_negative" : "negative", (int)no.tokens,
                   (int)no.cross_layers);
}

static weft_status read_regions(const weft_run *r, wf_call *call, half halves[2], weft_error *err)
{
    const weft_step *s = call->step;
    int32_t regions = wf_plan_regions(r->memory.plan);
    size_t want = (size_t)regions * (size_t)wf_run_networks(&r->memory)->streams;
    const struct { const char *name; const weft_text *list; size_t count; bool needed; } all[2] = {
        { "region_text", s->region_text, s->region_text_count, regions > 0 },
        { "region_negative", s->region_negative, s->region_negative_count, false },
    };

    for (int i = 0; i < 2; i++) {
        if (all[i].list == NULL && !all[i].needed) continue;
        if (all[i].list == NULL || regions == 0 || all[i].count != want)
            return wf_fail(err, WEFT_E_ARG,
                           "step.%s has %zu texts, wanted %zu: the streams of the plan's %d region%s",
                           all[i].name, all[i].list == NULL ? 0 : all[i].count, want, (int)regions,
                           regions == 1 ? "" : "s");
    }
    if (s->region_negative != NULL && s->negative == NULL)
        return wf_fail(err, WEFT_E_ARG, "step.region_negative is given, but step.negative is NULL");
    for (int32_t i = 0; i < regions; i++) {
        weft_text yes;
        WF_TRY(read_region(&yes, &halves[WF_CONDITIONAL].region[i], r, s->region_text, i,
                           "region_text", err));
        call->region[i].tokens = yes.tokens;
        call->region[i].cross_layers = yes.cross_layers;
        if (s->negative != NULL)
            WF_TRY(read_region_half(r, call, &halves[WF_UNCONDITIONAL], i, &yes, err));
    }
    return WEFT_OK;
}

/* Rows of the image prompts for one half. */
static weft_status read_images(const weft_run *r, half *of, weft_text images[WF_IMAGES_MAX],
                               const weft_text *list, size_t count, const char *what,
                               weft_error *err)
{
    const wf_networks *n = wf_run_networks(&r->memory);
    const wf_stream   *sequence = &n->stream[wf_sequence_of(wf_facts(n))];

    WF_TRY(wf_read_images(images, r, list, count, what, err));
    for (int32_t i = 0; i < weft_plan_image_prompts(r->memory.plan); i++)
        WF_TRY(read_blocks(&of->image[i], &images[i], wf_text_floats(sequence, &images[i]), r, 0,
                           what, i, err));
    return WEFT_OK;
}

static weft_status read_image_prompts(const weft_run *r, wf_call *call, half halves[2],
                                      weft_error *err)
{
    const weft_step *s = call->step;
    weft_text yes[WF_IMAGES_MAX], no[WF_IMAGES_MAX];

    WF_TRY(read_images(r, &halves[WF_CONDITIONAL], yes, s->image, s->image_count, "step.image",
                       err));
    for (int32_t i = 0; i < weft_plan_image_prompts(r->memory.plan); i++)
        call->image[i] = yes[i].tokens;
    if (s->image_negative != NULL && s->negative == NULL)
        return wf_fail(err, WEFT_E_ARG, "step.image_negative is given, but step.negative is NULL");
    if (s->negative == NULL) return WEFT_OK;
    WF_TRY(read_images(r, &halves[WF_UNCONDITIONAL], no, s->image_negative,
                       s->image_negative_count, "step.image_negative", err));
    for (int32_t i = 0; i < weft_plan_image_prompts(r->memory.plan); i++)
        if (no[i].tokens != yes[i].tokens)
            return wf_fail(err, WEFT_E_ARG,
                           "step.image_negative[%d] has %d tokens, step.image[%d] has %d: they "
                           "must agree", (int)i, (int)no[i].tokens, (int)i, (int)yes[i].tokens);
    return WEFT_OK;
}

weft_status weft_run_step(weft_run *r, const weft_step *given, weft_error *err)
{
    weft_step s;
    wf_step_fault fault = { .where = WF_SOUND };
    wf_call call = { .step = &s, .fault = &fault };
    half halves[2] = { { .time_ids = { 0 } } };

    if (r == NULL || given == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", r == NULL ? "run" : "step");
    WF_TRY(WF_OPTIONS(&s, given, weft_step, WEFT_STEP_SPLIT_GUIDANCE | WEFT_STEP_TEXT_PER_BRANCH,
                      err));
    if (s.reserved0 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "weft_step: reserved0 is %d, must be zero",
                       s.reserved0);
    if (s.stamp != 0 && s.stamp != wf_run_stamp(r))
        return wf_fail(err, WEFT_E_STATE,
                       "step.stamp: the text was encoded with other text encoders, text weights of "
                       "adapters, or tokens than the run's plan has now: encode the prompts again");
    bool guided = call.guided = s.negative != NULL && s.guidance > 1.0f;
    WF_TRY(check_images(r, &s, err));
    WF_TRY(check_numbers(r, &s, err));
    const wf_sheet *phase = wf_plan_phase(r->memory.plan, s.call);
    const wf_row *row = wf_sheet_row(phase, s.call);
    size_t index = (size_t)(phase - wf_plan_phases(r->memory.plan, &(size_t){ 0 }));
    call.evaluations = row->branches;
    call.row = row;
    call.base = phase->base;
    WF_TRY(read_text(r, &call, halves, err));
    WF_TRY(read_regions(r, &call, halves, err));
    WF_TRY(read_image_prompts(r, &call, halves, err));
    WF_TRY(read_time_ids(r, &s, halves, err));

    choose_reuse(r, &call);
    int32_t groups = count_passes(&r->memory, &call);
    if (r->measure && groups > 1) call.error = &r->memory.deep.error;
    int64_t passes = guided && (s.flags & WEFT_STEP_SPLIT_GUIDANCE) != 0 ? 2 : 1;
    passes *= groups + (call.error != NULL);
    WF_TRY(wf_run_begin(r, "step", "the prediction", passes * r->memory.step_layers, err));
    fill_samples(r, &call, halves);
    r->exec.deltas = r->memory.phase[index].deltas;
    r->exec.slots = phase->slots;
    r->exec.cells = phase->cells;
    r->exec.lines = phase->lines + row->at;
    r->exec.patches = phase->patched_count;
    r->exec.vectors = phase->vectors;
    r->exec.masks = wf_plan_masked(r->memory.plan) ? r->memory.masks.of : NULL;
    r->exec.branch = r->memory.branch;
    r->exec.locate = wf_run_locate_of(r);
    for (int32_t i = 0, n = wf_plan_regions(r->memory.plan); n > 0 && i <= n; i++)
        wf_plan_region_cells(r->memory.plan, phase, row, i - 1,
                             r->memory.region_cells + (size_t)i * r->memory.region_stride);
    wf_run_trace_begin(&r->exec, &r->memory, &call);
    wf_step_forward(r, &r->exec, &r->memory, &call);
    weft_status st = r->watch.found ? find_cause(r, &call, err) : WEFT_OK;
    weft_status end = wf_run_end(r, st == WEFT_OK ? err : NULL);
    if (st == WEFT_OK) st = end;
    wf_run_trace_end(&r->exec, &r->memory, &call, st == WEFT_OK);
    wf_run_locate_end(r, st == WEFT_OK);
    r->memory.deep.call = st == WEFT_OK ? s.call : -2;
    r->memory.deep.guided = guided;
    return st;
}
