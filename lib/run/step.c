/* step.c - one denoising step: branches and the two halves of guidance in one batch.
 *
 * Samples are numbered branch by branch, in each the unconditional half before the conditional, in each the
 * latents of the batch. One evaluation of the network serves them all: the base products share their widened
 * weights, each sample takes its own branch's coefficients. Split guidance runs the same samples in two
 * evaluations; as every sample is computed by itself, the bits are the same. Then the plan combines the
 * branches of each half, and guidance combines the halves. */
#include <math.h>

#include "run/room.h"

/* Conditioning blocks: one for all, or one for each latent, or for each branch of either. */
typedef struct blocks { const float *base; size_t stride, per_branch, per_latent; } blocks;

static weft_status read_blocks(blocks *out, const float *base, size_t len, size_t one, const weft_run *r,
                               bool branched, const char *what, weft_error *err)
{
    size_t n = (size_t)r->batch, k = branched ? (size_t)wf_plan_branches(r->fit.plan) : 1;
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

static size_t latent_floats(const weft_run *r)
{
    return (size_t)wf_run_parts(&r->fit)->unet_config.in_channels * (size_t)r->height * (size_t)r->width;
}

/* The network on samples of one half (or of both), predictions after each other into `out`. */
static void evaluate(const weft_run *r, wf_exec *e, const wf_fit *b, const float *latent, float *out, int32_t count,
                     const float *const *text, const float *const *pooled, int32_t tokens)
{
    const wf_parts *p = wf_run_parts(b);
    size_t floats = (size_t)p->unet_config.in_channels * (size_t)r->height * (size_t)r->width;
    size_t mark = wf_arena_mark(&e->arena);
    float *x = wf_take(e, (size_t)count, floats);
    for (size_t s = 0; s < (size_t)count && !e->dry && !e->stopped; s++)
        memcpy(x + s * floats, latent + s % (size_t)r->batch * floats, floats * sizeof *x);
    wf_unet_input in = { .grid = { count, r->height, r->width }, .latent = x, .timestep = b->timestep, .text = text,
                         .tokens = tokens, .pooled = pooled, .time_ids = b->time_ids };
    wf_unet_forward(p->unet, e, out, &in);
    wf_arena_release(&e->arena, mark);
}

/* Samples of a half begin at half * batch inside each branch when both run together. */
static void fill_branches(const wf_fit *b, int32_t batch, int32_t halves)
{
    int32_t each = halves * batch, count = each * wf_plan_branches(b->plan);
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

void wf_step_forward(const weft_run *r, wf_exec *e, const wf_fit *b, const weft_step *step, bool guided)
{
    int32_t branches = wf_plan_branches(b->plan), halves = guided ? 2 : 1, count = branches * halves * r->batch;
    size_t floats = (size_t)wf_run_parts(b)->unet_config.in_channels * (size_t)r->height * (size_t)r->width;
    size_t n = (size_t)r->batch * floats, mark = wf_arena_mark(&e->arena);
    bool split = guided && (step->flags & WEFT_STEP_SPLIT_GUIDANCE) != 0;
    float *preds = wf_take(e, (size_t)count, floats);
    float *sides[2] = { wf_take(e, (size_t)r->batch, floats), guided ? wf_take(e, (size_t)r->batch, floats) : NULL };

    if (split) { /* b->text holds the unconditional halves of all branches, then the conditional ones */
        int32_t each = branches * r->batch;
        fill_branches(b, r->batch, 1);
        for (int32_t h = 0; h < 2; h++)
            evaluate(r, e, b, step->latent, e->dry ? NULL : preds + (size_t)(h * each) * floats, each,
                     b->text + h * each, b->pooled + h * each, step->tokens);
    } else {
        fill_branches(b, r->batch, halves);
        evaluate(r, e, b, step->latent, preds, count, b->text, b->pooled, step->tokens);
    }
    for (int32_t h = 0; h < halves && !e->dry && !e->stopped; h++) {
        for (int32_t k = 0; k < branches; k++)
            b->preds[k] = preds + (size_t)(split ? h * branches + k : k * halves + h) * n;
        wf_plan_combine(b->plan, sides[h], b->preds, n, guided);
    }
    if (!e->dry && !e->stopped) guide(r, step, sides[0], sides[1]);
    wf_arena_release(&e->arena, mark);
}

/* Conditioning and timesteps of each sample, in the order that wf_step_forward() evaluates. */
static void fill_samples(weft_run *r, const weft_step *step, const blocks text[2], const blocks pooled[2], bool guided,
                         const float *time_ids)
{
    wf_fit *b = &r->fit;
    size_t branches = (size_t)wf_plan_branches(b->plan), halves = guided ? 2 : 1, n = (size_t)r->batch;
    size_t ids = (size_t)wf_run_parts(b)->unet_config.time_ids;
    bool split = (step->flags & WEFT_STEP_SPLIT_GUIDANCE) != 0;
    for (size_t k = 0; k < branches; k++)
        for (size_t h = 0; h < halves; h++)
            for (size_t i = 0; i < n; i++) {
                size_t s = (split ? h * branches + k : k * halves + h) * n + i;
                size_t side = guided ? h : 1; /* 0 unconditional, 1 conditional */
                b->text[s] = block(&text[side], k, i);
                b->pooled[s] = pooled[side].base != NULL ? block(&pooled[side], k, i) : NULL;
                b->timestep[s] = step->timestep;
                if (ids > 0) memcpy(b->time_ids + s * ids, time_ids, ids * sizeof *time_ids);
            }
}

static bool finite(float v) { return v - v == 0.0f; }

weft_status weft_run_step(weft_run *r, const weft_step *given, weft_error *err)
{
    weft_step s;
    blocks text[2] = { { 0 } }, pooled[2] = { { 0 } };
    weft_status st;

    if (r == NULL || given == NULL) return wf_fail(err, WEFT_E_ARG, "%s is NULL", r == NULL ? "run" : "step");
    st = wf_options(&s, sizeof s, sizeof s, given, WEFT_STEP_SPLIT_GUIDANCE | WEFT_STEP_TEXT_PER_BRANCH, "weft_step",
                    err);
    if (st != WEFT_OK) return st;
    if (s.reserved0 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "weft_step: reserved0 is %d, must be zero", s.reserved0);
    const wf_parts *p = wf_run_parts(&r->fit);
    const wf_unet_config *c = &p->unet_config;
    size_t want = (size_t)r->batch * latent_floats(r);
    bool branched = (s.flags & WEFT_STEP_TEXT_PER_BRANCH) != 0, guided = s.negative != NULL && s.guidance > 1.0f;

    if (s.latent == NULL || s.out == NULL || s.text == NULL)
        return wf_fail(err, WEFT_E_ARG, "step.%s is NULL", s.latent == NULL ? "latent" : s.out == NULL ? "out" : "text");
    if (s.latent_len != want || s.out_len != want)
        return wf_fail(err, WEFT_E_ARG, "step.%s has %zu floats, wanted %zu (%d x %d x %d x %d)",
                       s.latent_len != want ? "latent" : "out", s.latent_len != want ? s.latent_len : s.out_len, want,
                       r->batch, c->in_channels, r->height, r->width);
    if (s.call < 0 || s.call >= wf_plan_calls(r->fit.plan))
        return wf_fail(err, WEFT_E_ARG, "step.call is %d, the plan is sealed for %d calls", s.call,
                       wf_plan_calls(r->fit.plan));
    if (!finite(s.timestep) || !finite(s.guidance) || !finite(s.guidance_rescale))
        return wf_fail(err, WEFT_E_ARG, "step.timestep, guidance or guidance_rescale is not finite");
    if (s.tokens == 0) s.tokens = wf_run_positions(p);
    if (s.tokens < 1 || s.tokens > r->text_tokens)
        return wf_fail(err, WEFT_E_ARG, "step.tokens is %d, the run has room for %d: set weft_run_options.text_tokens",
                       s.tokens, r->text_tokens);
    size_t one = (size_t)s.tokens * (size_t)c->cross_dim[0];
    if ((st = read_blocks(&text[1], s.text, s.text_len, one, r, branched, "text", err)) != WEFT_OK) return st;
    if (guided && (st = read_blocks(&text[0], s.negative, s.negative_len, one, r, branched, "negative", err)) != WEFT_OK)
        return st;
    if (c->text_time) {
        size_t width = (size_t)c->pooled_dim;
        if (s.pooled == NULL || (guided && s.negative_pooled == NULL))
            return wf_fail(err, WEFT_E_ARG, "step.%s is NULL: this model wants a pooled conditioning of %zu floats",
                           s.pooled == NULL ? "pooled" : "negative_pooled", width);
        if ((st = read_blocks(&pooled[1], s.pooled, s.pooled_len, width, r, branched, "pooled", err)) != WEFT_OK ||
            (guided && (st = read_blocks(&pooled[0], s.negative_pooled, s.negative_pooled_len, width, r, branched,
                                         "negative_pooled", err)) != WEFT_OK))
            return st;
    }
    float factor = p->vae != NULL ? (float)wf_vae_factor(p->vae) : 8.0f;
    float usual[6] = { (float)r->height * factor, (float)r->width * factor, 0, 0, (float)r->height * factor,
                       (float)r->width * factor };
    if (s.time_ids != NULL && s.time_ids_len != (size_t)c->time_ids)
        return wf_fail(err, WEFT_E_ARG, "step.time_ids has %zu floats, wanted %d", s.time_ids_len, c->time_ids);

    int64_t evaluations = guided && (s.flags & WEFT_STEP_SPLIT_GUIDANCE) != 0 ? 2 : 1;
    if ((st = wf_run_begin(r, "step", evaluations * r->fit.step_layers, err)) != WEFT_OK) return st;
    fill_samples(r, &s, text, pooled, guided, s.time_ids != NULL ? s.time_ids : usual);
    r->exec.cells = wf_plan_row(r->fit.plan, s.call);
    r->exec.branch = r->fit.branch;
    wf_step_forward(r, &r->exec, &r->fit, &s, guided);
    return wf_run_end(r, err);
}
