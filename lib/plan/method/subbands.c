/* subbands.c - each adapter has a prediction of its own, and in each band of frequencies those
 * count most that change most there.
 *
 * Coarse structure and fine texture belong to different adapters. So predictions are taken apart by
 * a Haar wavelet transform. In each band, the size of an adapter's difference from the base model
 * says how much the band is the adapter's, and the adapters' weights are in proportion to it. The
 * bands are summed with their weights and put together again. The idea is that of Roy et al.,
 * MultLFG (2025). Its text and its algorithm disagree on what the weights are made from, so the
 * rule for the weights is ours: it needs no evaluation but the base's, and with one parameter goes
 * from the plain mean (0) over proportion (1) to the largest alone.
 *
 * The conditional predictions decide for both halves of guidance, as in loratorio.c. The weights
 * are of a call: early calls have their differences in the coarse bands, late ones in the fine. */
#include <math.h>

#include "base/structs.h"
#include "plan/method/method.h"

enum { LEVELS = 2, LEVELS_MAX = 8 };
#define ROOT_HALF 0.70710678118654752440

static const weft_subbands_options *options_of(const wf_sheet *s)
{
    return s->options->data;
}

static weft_status begin(const weft_plan *p, wf_table *t, wf_sheet *s, weft_error *err)
{
    (void)t, (void)s;
    return wf_check_shares(p, "subbands", err);
}

/* n values `step` apart become ceil(n / 2) sums and floor(n / 2) differences; the last of an odd
 * number stands beside itself. temp (n). */
static void split(float *v, size_t step, int32_t n, float *temp)
{
    int32_t low = (n + 1) / 2;

    for (int32_t i = 0; i < low; i++) {
        double a = v[(size_t)(2 * i) * step];
        double b = 2 * i + 1 < n ? (double)v[(size_t)(2 * i + 1) * step] : a;
        temp[i] = (float)((a + b) * ROOT_HALF);
        if (low + i < n) temp[low + i] = (float)((a - b) * ROOT_HALF);
    }
    for (int32_t i = 0; i < n; i++) v[(size_t)i * step] = temp[i];
}

static void join(float *v, size_t step, int32_t n, float *temp)
{
    int32_t low = (n + 1) / 2;

    for (int32_t i = 0; i < low; i++) {
        double a = v[(size_t)i * step];
        double d = low + i < n ? (double)v[(size_t)(low + i) * step] : 0;
        temp[2 * i] = (float)((a + d) * ROOT_HALF);
        if (2 * i + 1 < n) temp[2 * i + 1] = (float)((a - d) * ROOT_HALF);
    }
    for (int32_t i = 0; i < n; i++) v[(size_t)i * step] = temp[i];
}

/* After a level the sums stand in the upper left ceil(h / 2) x ceil(w / 2), and the next level
 * begins with those. */
void wf_subbands_split(float *v, int32_t h, int32_t w, int32_t levels, float *temp)
{
    size_t across = (size_t)w;

    for (int32_t l = 0; l < levels; l++, h = (h + 1) / 2, w = (w + 1) / 2) {
        for (int32_t y = 0; y < h; y++) split(v + (size_t)y * across, 1, w, temp);
        for (int32_t x = 0; x < w; x++) split(v + x, across, h, temp);
    }
}

void wf_subbands_join(float *v, int32_t h, int32_t w, int32_t levels, float *temp)
{
    int32_t hs[LEVELS_MAX], ws[LEVELS_MAX];
    size_t  across = (size_t)w;

    for (int32_t l = 0; l < levels; l++, h = (h + 1) / 2, w = (w + 1) / 2) hs[l] = h, ws[l] = w;
    for (int32_t l = levels - 1; l >= 0; l--) {
        for (int32_t x = 0; x < ws[l]; x++) join(v + x, across, hs[l], temp);
        for (int32_t y = 0; y < hs[l]; y++) join(v + (size_t)y * across, 1, ws[l], temp);
    }
}

/* The bands of a level, 0 right, 1 lower left, 2 lower right; and 3, the sums of the last level. */
static wf_rect band_of(const wf_combine *x, int32_t level, int32_t which)
{
    int32_t h = x->h, w = x->w;

    for (int32_t l = 0; l < level; l++) h = (h + 1) / 2, w = (w + 1) / 2;
    int32_t low_h = (h + 1) / 2, low_w = (w + 1) / 2;
    bool    down = which == 1 || which == 2, right = which == 0 || which == 2;
    return (wf_rect){ (size_t)(down ? low_h : 0) * (size_t)x->w + (size_t)(right ? low_w : 0),
                        (size_t)x->h * (size_t)x->w, (size_t)x->w, x->c,
                        down ? h - low_h : low_h, right ? w - low_w : low_w };
}

/* The size of what a band holds: the root of the mean square. */
static double size_of(const float *v, const wf_rect *k)
{
    double sum = 0, n = (double)k->c * k->h * k->w;

    for (int32_t c = 0; c < k->c; c++)
        for (int32_t y = 0; y < k->h; y++) {
            const float *row = v + k->first + (size_t)c * k->plane + (size_t)y * k->across;
            for (int32_t i = 0; i < k->w; i++) sum += (double)row[i] * (double)row[i];
        }
    return n > 0 ? sqrt(sum / n) : 0;
}

/* Where all are 0 the adapters say the same, and all weights are right. */
static double power(double score, double best, double sharpness)
{
    return best > 0 ? pow(score / best, sharpness) : 1;
}

static void split_all(const wf_combine *x, float *v, int32_t levels, float *temp)
{
    size_t plane = (size_t)x->h * (size_t)x->w;
    for (int32_t c = 0; c < x->c; c++)
        wf_subbands_split(v + (size_t)c * plane, x->h, x->w, levels, temp);
}

static bool all_alike(const wf_combine *x, size_t at, size_t sample)
{
    for (int32_t b = 1; b < x->branches; b++)
        if (memcmp(x->preds[b] + at, x->preds[0] + at, sample * sizeof *x->out) != 0) return false;
    return true;
}

/* One sample, whose first value is `at`. What all predict alike is not taken apart, since rounding
 * would show: adapters of weight 0 leave the base, bit for bit. Scratch: each branch's difference
 * from the base, each branch's prediction, and a row. */
static void combine_sample(const wf_combine *x, const float *share, const weft_subbands_options *o,
                           size_t at)
{
    const float *from[WF_ADAPTERS_MAX];
    double score[WF_ADAPTERS_MAX], weight[WF_ADAPTERS_MAX];
    size_t plane = (size_t)x->h * (size_t)x->w, sample = (size_t)x->c * plane;
    float *d = x->scratch, *e = d + (size_t)x->branches * sample;
    float *temp = e + (size_t)x->branches * sample, *out = x->out + at;

    if (all_alike(x, at, sample)) {
        memcpy(out, x->preds[0] + at, sample * sizeof *out);
        return;
    }
    for (int32_t b = 0; b < x->branches; b++) {
        float *d_b = d + (size_t)b * sample, *e_b = e + (size_t)b * sample;
        for (size_t i = 0; i < sample; i++) d_b[i] = x->cond[b][at + i] - x->cond_base[at + i];
        from[b] = e_b;
        memcpy(e_b, x->preds[b] + at, sample * sizeof *e_b);
        split_all(x, d_b, o->levels, temp);
        split_all(x, e_b, o->levels, temp);
    }
    for (int32_t l = 0; l < o->levels; l++)
        for (int32_t which = 0; which < (l + 1 == o->levels ? 4 : 3); which++) {
            wf_rect k = band_of(x, l, which);
            for (int32_t b = 0; b < x->branches; b++)
                score[b] = size_of(d + (size_t)b * sample, &k);
            wf_weights_of(weight, score, share, x->branches, o->keep, power, o->sharpness);
            wf_mix(out, from, weight, x->branches, &k);
            wf_take_down_mix(x, weight, x->branches, &k);
        }
    for (int32_t c = 0; c < x->c; c++)
        wf_subbands_join(out + (size_t)c * plane, x->h, x->w, o->levels, temp);
}

void wf_subbands_combine(const wf_combine *x, const float *share, const weft_subbands_options *o)
{
    size_t sample = (size_t)x->c * (size_t)x->h * (size_t)x->w;
    for (int32_t n = 0; n < x->n; n++) combine_sample(x, share, o, (size_t)n * sample);
}

static void combine(const weft_plan *p, const wf_sheet *s, const wf_combine *x)
{
    float  share[WF_ADAPTERS_MAX];
    size_t values = (size_t)x->n * (size_t)x->c * (size_t)x->h * (size_t)x->w;

    if (p->adapters == 0) {
        memcpy(x->out, x->base, values * sizeof *x->out);
        wf_take_down(x, x->branches, 1);
        return;
    }
    for (int32_t a = 0; a < p->adapters; a++) share[a] = p->entry[a].share;
    wf_subbands_combine(x, share, options_of(s));
}

/* For combine_sample(). Only the values of all samples are known here; no row is longer than those. */
static size_t scratch(const weft_plan *p, const wf_sheet *s, size_t values)
{
    (void)s;
    return (2 * (size_t)p->adapters + 1) * values;
}

static void describe(const weft_plan *p, const wf_sheet *s, wf_text *out)
{
    const weft_subbands_options *o = options_of(s);
    wf_number_text               v;

    (void)p;
    wf_text_add(out, "  bands      %d of %d wavelet levels, weights as differences to the power %s\n",
                (int)(3 * o->levels + 1), (int)o->levels, wf_number(&v, o->sharpness));
    if (o->keep > 0) wf_text_add(out, "  keep       the %d that change most in each band\n", (int)o->keep);
}

weft_status weft_plan_subbands(weft_plan *plan, const weft_subbands_options *options,
                               weft_error *err)
{
    weft_subbands_options o;

    WF_TRY(WF_OPTIONS(&o, options, weft_subbands_options, WEFT_SUBBANDS_SHARPNESS, err));
    if (o.reserved0 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "weft_subbands_options: reserved0 is %d, must be zero", (int)o.reserved0);
    if (o.levels < 0 || o.levels > LEVELS_MAX)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_subbands_options: levels is %d, wanted 1 to %d, or 0 for %d",
                       (int)o.levels, LEVELS_MAX, LEVELS);
    if (o.keep < 0)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_subbands_options: keep is %d, wanted at least 1, or 0 for all",
                       (int)o.keep);
    if ((o.flags & WEFT_SUBBANDS_SHARPNESS) != 0 && !(o.sharpness >= 0 && o.sharpness <= 100))
        return wf_fail(err, WEFT_E_ARG,
                       "weft_subbands_options: sharpness is not between 0 and 100");
    if (o.levels == 0) o.levels = LEVELS;
    if ((o.flags & WEFT_SUBBANDS_SHARPNESS) == 0) o.sharpness = 1;
    return wf_plan_use(plan, &wf_method_subbands, &o, sizeof o, err);
}

static const wf_field field_list[] = {
    { WF_VALUE("levels", INT32, weft_subbands_options, levels), .otherwise = LEVELS },
    { WF_VALUE("keep", INT32, weft_subbands_options, keep) },
    { WF_VALUE("sharpness", FLOAT, weft_subbands_options, sharpness),
      .bit = WEFT_SUBBANDS_SHARPNESS, .otherwise = 1 },
};
static const wf_fields fields = WF_FIELDS(field_list, weft_subbands_options);
WF_METHOD_USE(weft_plan_subbands, weft_subbands_options)

const wf_method wf_method_subbands = {
    .name = "subbands",
    .title = "Sub-band weights",
    .text = WEFT_TEXT_ALL,
    .use = use,
    .fields = &fields,
    .begin = begin,
    .alone = wf_alone_own,
    .choose = wf_choose_own,
    .branches = wf_branches_each,
    .combine = combine,
    .needs_base = true,
    .scratch = scratch,
    .weigh = wf_weigh_shares,
    .describe = describe,
    .explain = wf_explain_branches,
};
