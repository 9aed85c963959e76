/* locate.c - masks for adapters, found in the image while it begins: FreeFuse.
 *
 * A first pass of a few calls runs with all adapters. At one transformer block
 * it is noted what cross-attention sees of each subject's words
 * (nets/locate.c). From the last call's notes, for each sample, with s_i(p)
 * what pixel p sees of subject i, and h(p) what self-attention gave it:
 *
 *     c_i(p)   = L s_i(p) - sum over the other subjects of s_j(p),   L subjects
 *     core_i   = the max(1, floor(share H W)) pixels of largest c_i
 *     map_i(p) = softmax over p of (mean over q in core_i of <h(q), h(p)>) /
 * temperature
 *
 * and the maps become masks that share the image out, each pixel to one subject
 * (share.c).
 *
 * Source: FreeFuse (arXiv 2510.23515) and its program for SDXL. */
#include <math.h>

#include "base/structs.h"
#include "run/run_internal.h"

enum { SUBJECTS_MAX = 64, TOKENS_MAX = 4096, NAME_MAX = 600 };

struct wf_run_locate {
    weft_allocator alloc;
    wf_locate      at;
    double         share, temperature;
    int32_t        channels;
    bool           noted;  /* of a call that came to its end */
    int32_t       *ints;   /* token, then first */
    float         *floats; /* seen, then inner  */
};

void wf_run_locate_free(wf_run_locate *l)
{
    if (l == NULL) return;
    weft_allocator alloc = l->alloc;
    wf_free(&alloc, l->ints);
    wf_free(&alloc, l->floats);
    wf_free(&alloc, l);
}

wf_locate *wf_run_locate_of(const weft_run *r)
{
    if (r->locate == NULL || wf_plan_regions(r->memory.plan) > 0) return NULL;
    r->locate->at.slot = r->memory.slot;
    r->locate->at.begun = r->locate->at.whole = false;
    return &r->locate->at;
}

void wf_run_locate_end(const weft_run *r, bool well)
{
    if (r->locate != NULL && r->locate->at.begun) r->locate->noted = well && r->locate->at.whole;
}

void wf_run_locate_forget(const weft_run *r)
{
    if (r->locate != NULL) r->locate->noted = false;
}

/* ---- which block ----------------------------------------------------------------------------- */

static const wf_layer *find(const weft_run *r, const char *block, const char *which)
{
    size_t count;
    const wf_layer *l = wf_model_layers(wf_plan_model(r->memory.plan), &count);
    char name[NAME_MAX];

    if (!wf_format(name, sizeof name, "unet.%s.%s.to_q", block, which)) return NULL;
    for (size_t i = 0; i < count; i++)
        if (strcmp(l[i].name, name) == 0) return &l[i];
    return NULL;
}

/* SDXL's is the program's own. Elsewhere it is the same place: the coarsest level on the way up that
 * has attention, its first transformer, the fourth block or the last. */
static weft_status choose_block(const weft_run *r, wf_locate *l, const char *block, weft_error *err)
{
    char name[80];

    for (int level = 0; level < 8 && block == NULL; level++)
        for (int k = 3; k >= 0 && l->cross == NULL; k--) {
            wf_format(name, sizeof name, "up_blocks.%d.attentions.0.transformer_blocks.%d", level,
                      k);
            l->cross = find(r, name, "attn2");
            l->self = find(r, name, "attn1");
        }
    if (block != NULL) l->cross = find(r, block, "attn2"), l->self = find(r, block, "attn1");
    if (l->cross != NULL && l->self != NULL) return WEFT_OK;
    if (block == NULL)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "weft_run_locate: this model has no attention to "
                       "its text on the way up");
    return wf_fail(err, WEFT_E_MISMATCH,
                   "weft_run_locate: the model has no transformer block %.200s, wanted one as "
                   "up_blocks.0.attentions.0.transformer_blocks.3",
                   block);
}

/* ---- subjects -------------------------------------------------------------------------------- */

static weft_status read_subjects(const weft_run *r, wf_run_locate *l, const weft_locate_options *o,
                                 weft_error *err)
{
    size_t all = 0;
    uint32_t stride;

    memcpy(&stride, o->subjects, sizeof stride);
    l->ints = wf_zalloc(&l->alloc, TOKENS_MAX + SUBJECTS_MAX + 1, sizeof *l->ints);
    if (l->ints == NULL) return wf_nomem(err, sizeof *l->ints * TOKENS_MAX, "subjects");
    int32_t *first = l->ints + TOKENS_MAX;
    for (size_t i = 0; i < o->subject_count; i++) {
        weft_subject s;
        WF_TRY(WF_OPTIONS(&s, (const uint8_t *)o->subjects + i * stride, weft_subject, 0, err));
        if (s.tokens == NULL || s.count < 1 || s.count > TOKENS_MAX - all)
            return wf_fail(err, WEFT_E_ARG,
                           "subject %zu has %zu tokens, wanted 1 or more, of all "
                           "subjects at most %d",
                           i, s.count, TOKENS_MAX);
        for (size_t t = 0; t < s.count; t++) {
            if (s.tokens[t] < 0 || s.tokens[t] >= r->text_tokens)
                return wf_fail(err, WEFT_E_ARG,
                               "token %zu of subject %zu is row %d of the text, "
                               "wanted 0 to %d",
                               t, i, (int)s.tokens[t], r->text_tokens - 1);
            l->ints[all++] = s.tokens[t];
        }
        first[i + 1] = (int32_t)all;
    }
    l->at.token = l->ints;
    l->at.first = first;
    l->at.count = (int32_t)o->subject_count;
    return WEFT_OK;
}

static weft_status check(const weft_locate_options *o, weft_error *err)
{
    if (o->subjects == NULL || o->subject_count < 2 || o->subject_count > SUBJECTS_MAX)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_run_locate: %zu subjects, wanted 2 to %d that share "
                       "the image",
                       o->subjects == NULL ? 0 : o->subject_count, SUBJECTS_MAX);
    if (!(o->share >= 0 && o->share <= 1))
        return wf_fail(err, WEFT_E_ARG, "weft_run_locate: share is %g, wanted 0 to 1",
                       (double)o->share);
    if (!(o->temperature >= 0) || isinf(o->temperature))
        return wf_fail(err, WEFT_E_ARG, "weft_run_locate: temperature is %g, wanted 0 or more",
                       (double)o->temperature);
    return WEFT_OK;
}

/* The size of the image at the block, by a dry walk. */
static weft_status size_up(const weft_run *r, wf_run_locate *l, weft_error *err)
{
    size_t pixels, each, all;

    wf_run_dry_step(r, &l->at);
    if (l->at.h < 1 || l->at.w < 1)
        return wf_fail(err, WEFT_E_INTERNAL, "weft_run_locate: the block is not passed");
    pixels = (size_t)l->at.h * (size_t)l->at.w;
    l->at.samples = r->batch;
    l->at.from = r->batch; /* the conditional half of branch 0: step.c's slots */
    l->channels = l->at.self->out;
    if (!wf_mul(pixels, (size_t)(l->at.count + l->channels), &each) ||
        !wf_mul(each, (size_t)r->batch, &all))
        return wf_nomem(err, SIZE_MAX, "what is located");
    l->floats = wf_zalloc(&l->alloc, all, sizeof *l->floats);
    if (l->floats == NULL) return wf_nomem(err, all * sizeof *l->floats, "what is located");
    l->at.seen = l->floats;
    l->at.inner = l->floats + (size_t)r->batch * (size_t)l->at.count * pixels;
    return WEFT_OK;
}

static weft_status create(const weft_run *r, wf_run_locate *l, const weft_locate_options *o,
                          weft_error *err)
{
    WF_TRY(check(o, err));
    if (wf_plan_regions(r->memory.plan) > 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "weft_run_locate: the plan has regions with texts of their own, and what is "
                       "looked for is one text's");
    l->share = o->share > 0 ? (double)o->share : 0.1;
    l->temperature = o->temperature > 0 ? (double)o->temperature : 1000;
    WF_TRY(read_subjects(r, l, o, err));
    WF_TRY(choose_block(r, &l->at, o->block, err));
    return size_up(r, l, err);
}

weft_status weft_run_locate(weft_run *r, const weft_locate_options *options, weft_error *err)
{
    weft_locate_options o;
    wf_run_locate *l;
    weft_status st;

    if (r == NULL) return wf_fail(err, WEFT_E_ARG, "run is NULL");
    if (options == NULL) {
        wf_run_locate_free(r->locate);
        r->locate = NULL;
        return WEFT_OK;
    }
    WF_TRY(WF_OPTIONS(&o, options, weft_locate_options, 0, err));
    l = wf_zalloc(&r->alloc, 1, sizeof *l);
    if (l == NULL) return wf_nomem(err, sizeof *l, "what is located");
    l->alloc = r->alloc;
    if ((st = create(r, l, &o, err)) != WEFT_OK) {
        wf_run_locate_free(l);
        return st;
    }
    wf_run_locate_free(r->locate);
    r->locate = l;
    return WEFT_OK;
}

/* ---- what was found -------------------------------------------------------------------------- */

typedef struct ranked {
    double value;
    size_t at;
} ranked;

static int larger_first(const void *a, const void *b)
{
    const ranked *x = a, *y = b;

    if (x->value != y->value) return x->value > y->value ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* The pixels of the subject's core come first in `order`. */
static void rank(const wf_locate *l, const float *seen, int32_t subject, size_t pixels,
                 ranked *order)
{
    for (size_t p = 0; p < pixels; p++) {
        double c = 0;
        for (int32_t i = 0; i < l->count; i++)
            c += (i == subject ? (double)l->count : -1.0) * seen[(size_t)i * pixels + p];
        order[p] = (ranked){c, p};
    }
    wf_sort(order, pixels, sizeof *order, larger_first);
}

/* map (pixels) of one subject; mean (channels) is scratch. */
static void draw_map(const wf_run_locate *l, const float *seen, const float *inner, int32_t subject,
                     ranked *order, double *mean, float *map)
{
    size_t pixels = (size_t)l->at.h * (size_t)l->at.w, channels = (size_t)l->channels;
    size_t core = WF_MAX((size_t)(l->share * (double)pixels), (size_t)1);
    double top = -INFINITY, sum = 0;

    rank(&l->at, seen, subject, pixels, order);
    memset(mean, 0, channels * sizeof *mean);
    for (size_t i = 0; i < core; i++)
        for (size_t c = 0; c < channels; c++)
            mean[c] += (double)inner[order[i].at * channels + c] / (double)core;
    for (size_t p = 0; p < pixels; p++) {
        double s = 0;
        for (size_t c = 0; c < channels; c++) s += mean[c] * inner[p * channels + c];
        order[p].value = s / l->temperature; /* the order is done with */
        top = fmax(top, order[p].value);
    }
    for (size_t p = 0; p < pixels; p++) sum += exp(order[p].value - top);
    for (size_t p = 0; p < pixels; p++) map[p] = (float)(exp(order[p].value - top) / sum);
}

static weft_status draw_maps(const wf_run_locate *l, int32_t sample, float *maps, weft_error *err)
{
    size_t pixels = (size_t)l->at.h * (size_t)l->at.w, channels = (size_t)l->channels;
    ranked *order = wf_alloc(&l->alloc, pixels * sizeof *order);
    double *mean = wf_alloc(&l->alloc, channels * sizeof *mean);
    bool ok = order != NULL && mean != NULL;

    for (int32_t i = 0; i < l->at.count && ok; i++)
        draw_map(l, l->at.seen + (size_t)sample * (size_t)l->at.count * pixels,
                 l->at.inner + (size_t)sample * pixels * channels, i, order, mean,
                 maps + (size_t)i * pixels);
    wf_free(&l->alloc, order);
    wf_free(&l->alloc, mean);
    return ok ? WEFT_OK : wf_nomem(err, pixels * sizeof *order, "maps");
}

weft_status weft_run_located_size(const weft_run *r, int32_t *height, int32_t *width,
                                  weft_error *err)
{
    if (r == NULL || height == NULL || width == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_run_located_size: %s is NULL",
                       r == NULL        ? "run"
                       : height == NULL ? "height"
                                        : "width");
    if (r->locate == NULL)
        return wf_fail(err, WEFT_E_STATE, "nothing is located: call weft_run_locate() first");
    *height = r->locate->at.h;
    *width = r->locate->at.w;
    return WEFT_OK;
}

weft_status weft_run_located(const weft_run *r, int32_t sample, int32_t kind, float *values,
                             size_t len, weft_error *err)
{
    const wf_run_locate *l = r != NULL ? r->locate : NULL;

    if (r == NULL || values == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_run_located: %s is NULL",
                       r == NULL ? "run" : "values");
    if (l == NULL)
        return wf_fail(err, WEFT_E_STATE, "nothing is located: call weft_run_locate() first");
    if (!l->noted)
        return wf_fail(err, WEFT_E_STATE,
                       "nothing is located: no call under this plan came to its end that passed the block "
                       "whose text has the subjects' tokens");
    if (sample < 0 || sample >= r->batch ||
        (kind != WEFT_LOCATED_MAPS && kind != WEFT_LOCATED_MASKS))
        return wf_fail(err, WEFT_E_ARG,
                       "weft_run_located: sample %d and kind %d, wanted a sample "
                       "of %d and a WEFT_LOCATED_*",
                       (int)sample, (int)kind, (int)r->batch);
    size_t want = (size_t)l->at.count * (size_t)l->at.h * (size_t)l->at.w;
    if (len != want)
        return wf_fail(err, WEFT_E_ARG, "weft_run_located: len is %zu, wanted %zu (%d x %d x %d)",
                       len, want, (int)l->at.count, (int)l->at.h, (int)l->at.w);
    WF_TRY(draw_maps(l, sample, values, err));
    if (kind == WEFT_LOCATED_MAPS) return WEFT_OK;
    return wf_share_image(values, l->at.count, l->at.h, l->at.w, &l->alloc, err);
}
