/* step.c - one denoising step: branches and the two halves of guidance in one batch.
 *
 * Samples are numbered branch by branch, in each the unconditional half before the conditional, in each the
 * latents of the batch. One evaluation of the network serves them all: the base products share their widened
 * weights, each sample takes its own branch's coefficients. Split guidance runs the same samples in two
 * evaluations; as every sample is computed by itself, the bits are the same. Then the plan combines the
 * branches of each half, and guidance combines the halves. */
#include <math.h>

#include "base/structs.h"
#include "run/room.h"

/* Conditioning blocks: one for all, or one for each latent, or for each branch of either. */
typedef struct blocks { const float *base; size_t stride, per_branch, per_latent; } blocks;

static weft_status read_blocks(blocks *out, const float *base, size_t len, size_t one, const weft_run *r,
                               bool branched, size_t branches, const char *what, weft_error *err)
{
    size_t n = (size_t)r->batch, k = branched ? branches : 1;
    *out = (blocks){ .base = base, .stride = one };
    if (len == k * one) {
        out->per_branch = branched;
    } else if (len == k * n * one) {
        out->per_branch = branched ? n : 0;
        out->per_latent = 1;
    } else {
        return wf_fail(err, WEFT_E_ARG, "step.%s has %zu floats, wanted %zu, or %zu for one each", what, len, k * one,
                       k * n * one);
    }
    return WEFT_OK;
}

static const float *block(const blocks *b, size_t branch, size_t latent)
{
    return b->base + (branch * b->per_branch + latent * b->per_latent) * b->stride;
}

/* The network on samples [first, first + count), predictions after each other into `out`. */
static void evaluate(const weft_run *r, wf_exec *e, const wf_fit *b, const weft_step *step, float *out, int32_t first,
                     int32_t count)
{
    const wf_unet_config *c = &wf_run_parts(b)->unet_config;
    size_t latent = wf_run_latent_floats(r), plane = (size_t)r->height * (size_t)r->width;
    size_t all = (size_t)c->in_channels * plane, extra = all - latent, ids = (size_t)c->time_ids;
    size_t mark = wf_arena_mark(&e->arena);
    float *x = wf_take(e, (size_t)count, all);
    for (size_t s = 0; s < (size_t)count && !e->dry && !e->stopped; s++) {
        size_t i = s % (size_t)r->batch;
        memcpy(x + s * all, step->latent + i * latent, latent * sizeof *x);
        if (extra > 0) memcpy(x + s * all + latent, step->extra + i * extra, extra * sizeof *x);
    }
    wf_unet_input in = { .grid = wf_image_grid(count, r->height, r->width), .latent = x, .timestep = b->timestep + first,
                         .text = b->text_of + first, .tokens = step->tokens, .text_layers = step->text_layers,
                         .pooled = b->pooled + first, .time_ids = b->time_ids + (size_t)first * ids,
                         .ids = c->time_ids, .guidance = b->guidance + first };
    wf_unet_forward(wf_run_parts(b)->unet, e, out, &in);
    wf_arena_release(&e->arena, mark);
}

/* Samples of a half begin at half * batch inside each branch when both run together. */
static void fill_branches(const wf_fit *b, int32_t batch, int32_t halves, int32_t evaluations)
{
    int32_t each = halves * batch, count = each * evaluations;
    for (int32_t s = 0; s < count; s++) b->branch[s] = s / each;
}

/* y = rescale * y std(c) / std(y) + (1 - rescale) y: guidance without growing contrast. Lin et al., Common Diffusion
 * Noise Schedules and Sample Steps Are Flawed (2023), section 3.4; over one sample's n values. */
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

/* step->out from the combined predictions: e_u + w (e_c - e_u), or the only one there is (c NULL). */
static void guide(const weft_run *r, const weft_step *step, const float *u, const float *c)
{
    size_t each = step->out_len / (size_t)r->batch;
    if (c == NULL) {
        memcpy(step->out, u, step->out_len * sizeof *u);
        return;
    }
    for (size_t i = 0; i < step->out_len; i++) step->out[i] = u[i] + step->guidance * (c[i] - u[i]);
    for (size_t s = 0; s < (size_t)r->batch && step->guidance_rescale != 0.0f; s++)
        keep_spread(step->out + s * each, c + s * each, each, step->guidance_rescale);
}

/* One half's predictions become one. */
static void combine(const weft_run *r, wf_exec *e, const wf_fit *b, const weft_step *step, float *out, int32_t half,
                    bool guided, int32_t evaluations, bool base)
{
    int32_t c = wf_run_parts(b)->unet_config.out_channels;
    size_t  values = (size_t)r->batch * wf_run_latent_floats(r), mark = wf_arena_mark(&e->arena);
    float  *scratch = wf_take(e, 1, wf_plan_combine_scratch(b->plan, values));

    if (!e->dry && !e->stopped)
        wf_plan_combine(b->plan, &(wf_combine){
            .call = step->call, .timestep = step->timestep, .n = r->batch, .c = c, .h = r->height, .w = r->width,
            .latent = step->latent, .half = half, .guided = guided, .branches = evaluations - base,
            .preds = b->preds, .base = base ? b->preds[evaluations - 1] : NULL, .scratch = scratch, .out = out });
    wf_arena_release(&e->arena, mark);
}

void wf_step_forward(const weft_run *r, wf_exec *e, const wf_fit *b, const weft_step *step, bool guided,
                     int32_t evaluations, bool base)
{
    int32_t halves = guided ? 2 : 1, count = evaluations * halves * r->batch;
    size_t floats = wf_run_latent_floats(r), n = (size_t)r->batch * floats, mark = wf_arena_mark(&e->arena);
    bool split = guided && (step->flags & WEFT_STEP_SPLIT_GUIDANCE) != 0;
    float *preds = wf_take(e, (size_t)count, floats);
    float *half[2] = { wf_take(e, (size_t)r->batch, floats), guided ? wf_take(e, (size_t)r->batch, floats) : NULL };

    if (split) { /* the unconditional halves of all branches, then the conditional ones */
        int32_t each = evaluations * r->batch;
        fill_branches(b, r->batch, 1, evaluations);
        for (int32_t h = 0; h < 2; h++)
            evaluate(r, e, b, step, e->dry ? NULL : preds + (size_t)(h * each) * floats, h * each, each);
    } else {
        fill_branches(b, r->batch, halves, evaluations);
        evaluate(r, e, b, step, preds, 0, count);
    }
    for (int32_t h = 0; h < halves; h++) {
        for (int32_t k = 0; k < evaluations && !e->dry; k++)
            b->preds[k] = preds + (size_t)(split ? h * evaluations + k : k * halves + h) * n;
        combine(r, e, b, step, half[h], guided ? h : WF_CONDITIONAL, guided, evaluations, base);
    }
    if (!e->dry && !e->stopped) guide(r, step, half[0], half[1]);
    wf_arena_release(&e->arena, mark);
}

/* What the samples of one side of guidance are told. */
typedef struct side { blocks text, pooled; float time_ids[6]; } side;
enum { UNCONDITIONAL, CONDITIONAL };

/* Conditioning and timesteps of each sample, in the order that wf_step_forward() evaluates. */
static void fill_samples(weft_run *r, const weft_step *step, const side sides[2], bool guided, size_t branches,
                         bool base)
{
    wf_fit *b = &r->fit;
    size_t halves = guided ? 2 : 1, n = (size_t)r->batch;
    size_t ids = (size_t)wf_run_parts(b)->unet_config.time_ids;
    bool split = (step->flags & WEFT_STEP_SPLIT_GUIDANCE) != 0;
    for (size_t k = 0; k < branches; k++)
        for (size_t h = 0; h < halves; h++)
            for (size_t i = 0; i < n; i++) {
                size_t s = (split ? h * branches + k : k * halves + h) * n + i;
                const side *told = &sides[guided ? h : CONDITIONAL];
                size_t from = base && k + 1 == branches ? 0 : k; /* the base reads what the first branch reads */
                b->text_of[s] = block(&told->text, from, i);
                b->pooled[s] = told->pooled.base != NULL ? block(&told->pooled, from, i) : NULL;
                b->timestep[s] = step->timestep;
                b->guidance[s] = step->guidance_embed;
                if (ids > 0) memcpy(b->time_ids + s * ids, told->time_ids, ids * sizeof *told->time_ids);
            }
}

static bool finite(float v) { return v - v == 0.0f; }

/* SDXL's base is told the original size, the crop's corner and the size to make; its refiner an aesthetic score in
 * place of the last. What is not given is a picture of the run's own size. */
static weft_status read_time_ids(const weft_run *r, const weft_step *step, side sides[2], weft_error *err)
{
    const wf_parts *p = wf_run_parts(&r->fit);
    size_t ids = (size_t)p->unet_config.time_ids;
    bool refiner = ids == 5;
    float factor = p->vae != NULL ? (float)wf_vae_factor(p->vae) : 8.0f;
    float h = (float)r->height * factor, w = (float)r->width * factor;
    const struct { const char *name; const float *given; size_t len; float score; } all[2] = {
        { "negative_time_ids", step->negative_time_ids, step->negative_time_ids_len, 2.5f },
        { "time_ids", step->time_ids, step->time_ids_len, 6.0f },
    };
    for (int i = CONDITIONAL; i >= 0; i--) {
        float *to = sides[i].time_ids, usual[6] = { h, w, 0, 0, refiner ? all[i].score : h, w };
        if (all[i].given != NULL && all[i].len != ids)
            return wf_fail(err, WEFT_E_ARG, "step.%s has %zu floats, wanted %zu", all[i].name, all[i].len, ids);
        memcpy(to, usual, sizeof usual);
        if (i == UNCONDITIONAL && all[CONDITIONAL].given != NULL) {
            memcpy(to, sides[CONDITIONAL].time_ids, ids * sizeof *to);
            if (refiner) to[4] = all[i].score;
        }
        if (all[i].given != NULL && ids > 0) memcpy(to, all[i].given, ids * sizeof *to);
    }
    return WEFT_OK;
}

/* Latents, what the UNet reads beside them, and where the prediction goes. */
static weft_status check_pictures(const weft_run *r, const weft_step *s, weft_error *err)
{
    const wf_unet_config *c = &wf_run_parts(&r->fit)->unet_config;
    size_t want = (size_t)r->batch * wf_run_latent_floats(r);
    int32_t others = c->in_channels - c->out_channels;
    size_t extra = (size_t)r->batch * (size_t)others * (size_t)r->height * (size_t)r->width;

    if (s->latent == NULL || s->out == NULL)
        return wf_fail(err, WEFT_E_ARG, "step.%s is NULL", s->latent == NULL ? "latent" : "out");
    if (s->latent_len != want || s->out_len != want)
        return wf_fail(err, WEFT_E_ARG, "step.%s has %zu floats, wanted %zu (%d x %d x %d x %d)",
                       s->latent_len != want ? "latent" : "out", s->latent_len != want ? s->latent_len : s->out_len,
                       want, r->batch, c->out_channels, r->height, r->width);
    if (others == 0 && s->extra != NULL)
        return wf_fail(err, WEFT_E_ARG, "step.extra is given, but this UNet reads the %d channels of the latents alone",
                       c->in_channels);
    if (others > 0 && s->extra == NULL)
        return wf_fail(err, WEFT_E_ARG, "step.extra is NULL: this UNet reads %d channels after the %d of the latents",
                       others, c->out_channels);
    if (others > 0 && s->extra_len != extra)
        return wf_fail(err, WEFT_E_ARG, "step.extra has %zu floats, wanted %zu (%d x %d x %d x %d)", s->extra_len,
                       extra, r->batch, others, r->height, r->width);
    return WEFT_OK;
}

static weft_status check_numbers(const weft_run *r, weft_step *s, weft_error *err)
{
    const wf_parts *p = wf_run_parts(&r->fit);
    bool told = p->unet_config.guidance_dim > 0;
    int32_t layers = wf_unet_text_layers(p->unet);
    if (s->call < 0 || s->call >= wf_plan_calls(r->fit.plan))
        return wf_fail(err, WEFT_E_ARG, "step.call is %d, the plan is sealed for %d calls", s->call,
                       wf_plan_calls(r->fit.plan));
    if (!finite(s->timestep) || !finite(s->guidance) || !finite(s->guidance_rescale) || !finite(s->guidance_embed))
        return wf_fail(err, WEFT_E_ARG, "step.timestep, guidance, guidance_rescale or guidance_embed is not finite");
    if (told != (s->guidance_embed != 0.0f))
        return wf_fail(err, WEFT_E_ARG, told ? "step.guidance_embed is 0: this UNet is distilled, and told its guidance"
                                             : "step.guidance_embed is given, but this UNet is not told its guidance");
    if (s->tokens == 0) s->tokens = wf_run_positions(p);
    if (s->tokens < 1 || s->tokens > r->text_tokens)
        return wf_fail(err, WEFT_E_ARG, "step.tokens is %d, the run has room for %d: set weft_run_options.text_tokens",
                       s->tokens, r->text_tokens);
    if (s->text_layers != 0 && s->text_layers != layers)
        return wf_fail(err, WEFT_E_ARG, "step.text_layers is %d, the model has %d cross-attention layers",
                       s->text_layers, layers);
    return WEFT_OK;
}

static weft_status read_conditioning(const weft_run *r, const weft_step *s, bool guided, size_t branches,
                                     side sides[2], weft_error *err)
{
    const wf_unet_config *c = &wf_run_parts(&r->fit)->unet_config;
    side *no = &sides[UNCONDITIONAL], *yes = &sides[CONDITIONAL];
    bool branched = (s->flags & WEFT_STEP_TEXT_PER_BRANCH) != 0;
    size_t one = (size_t)WF_MAX(s->text_layers, 1) * (size_t)s->tokens * (size_t)c->cross_dim[0];
    size_t width = (size_t)c->pooled_dim;

    if (s->text == NULL) return wf_fail(err, WEFT_E_ARG, "step.text is NULL");
    WF_TRY(read_blocks(&yes->text, s->text, s->text_len, one, r, branched, branches, "text", err));
    if (guided) WF_TRY(read_blocks(&no->text, s->negative, s->negative_len, one, r, branched, branches, "negative", err));
    if (!c->text_time) return WEFT_OK;
    if (s->pooled == NULL || (guided && s->negative_pooled == NULL))
        return wf_fail(err, WEFT_E_ARG, "step.%s is NULL: this model wants a pooled conditioning of %zu floats",
                       s->pooled == NULL ? "pooled" : "negative_pooled", width);
    WF_TRY(read_blocks(&yes->pooled, s->pooled, s->pooled_len, width, r, branched, branches, "pooled", err));
    if (guided)
        WF_TRY(read_blocks(&no->pooled, s->negative_pooled, s->negative_pooled_len, width, r, branched, branches,
                           "negative_pooled", err));
    return WEFT_OK;
}

weft_status weft_run_step(weft_run *r, const weft_step *given, weft_error *err)
{
    weft_step s;
    side sides[2] = { { .text = { 0 } } };

    if (r == NULL || given == NULL) return wf_fail(err, WEFT_E_ARG, "%s is NULL", r == NULL ? "run" : "step");
    WF_TRY(WF_OPTIONS(&s, given, weft_step, WEFT_STEP_SPLIT_GUIDANCE | WEFT_STEP_TEXT_PER_BRANCH,
                      err));
    if (s.reserved0 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "weft_step: reserved0 is %d, must be zero", s.reserved0);
    if (s.stamp != 0 && s.stamp != wf_run_stamp(r))
        return wf_fail(err, WEFT_E_STATE, "step.stamp: the text was encoded with other text encoders, text weights of "
                       "adapters, or words than the run's plan has now: encode the prompts again");
    bool guided = s.negative != NULL && s.guidance > 1.0f;
    WF_TRY(check_pictures(r, &s, err));
    WF_TRY(check_numbers(r, &s, err));
    const wf_sheet *phase = wf_plan_phase(r->fit.plan, s.call);
    const wf_row *row = wf_sheet_row(phase, s.call);
    int32_t index = (int32_t)(phase - wf_plan_phases(r->fit.plan, &(size_t){ 0 }));
    WF_TRY(read_conditioning(r, &s, guided, (size_t)(row->branches - phase->base), sides, err));
    WF_TRY(read_time_ids(r, &s, sides, err));

    int64_t evaluations = guided && (s.flags & WEFT_STEP_SPLIT_GUIDANCE) != 0 ? 2 : 1;
    WF_TRY(wf_run_begin(r, "step", evaluations * r->fit.step_layers, err));
    fill_samples(r, &s, sides, guided, (size_t)row->branches, phase->base);
    r->exec.deltas = r->fit.phase[index].deltas;
    r->exec.slots = phase->slots;
    r->exec.cells = wf_sheet_cells(phase, row);
    r->exec.vectors = phase->vectors;
    r->exec.masks = phase->masks;
    r->exec.branch = r->fit.branch;
    wf_step_forward(r, &r->exec, &r->fit, &s, guided, row->branches, phase->base);
    return wf_run_end(r, err);
}
