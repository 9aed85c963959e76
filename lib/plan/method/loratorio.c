/* loratorio.c - each adapter has a prediction of its own, and in each patch of the image those
 * count most that differ most from the base model.
 *
 * An adapter that has nothing to say about a place predicts there what the base predicts. So in
 * each patch of the latents the cosine between an adapter's prediction and the base's says how much
 * the place is the adapter's, and a softmin over the adapters makes weights of the cosines. The
 * conditional predictions decide, and their weights serve both halves of guidance: a patch is
 * pushed away from the same mixture that it is pushed towards. Foteinopoulou et al., LoRAtorio
 * (2025).
 *
 * Adapters of a narrow subject have a narrow idea of an image without a prompt. So the unconditional
 * half is mixed with the base's, which brings it back to the centre.
 *
 * The price is an evaluation for each adapter, and one for the base. No order of the adapters shows
 * in the result, as in composite.c. */
#include <math.h>

#include "base/structs.h"
#include "plan/method/method.h"

enum { PATCH = 8, PATCH_MAX = 4096 };
#define TEMPERATURE 0.1f
#define BASE        0.5f

static const weft_loratorio_options *options_of(const wf_sheet *s)
{
    return s->options->data;
}

static weft_status begin(const weft_plan *p, wf_table *t, wf_sheet *s, weft_error *err)
{
    (void)t, (void)s;
    return wf_check_shares(p, "loratorio", err);
}

/* 1 where both are zero: nothing differs. */
static double cosine(const float *a, const float *b, const wf_rect *k)
{
    double ab = 0, aa = 0, bb = 0;

    for (int32_t c = 0; c < k->c; c++)
        for (int32_t y = 0; y < k->h; y++) {
            size_t at = k->first + (size_t)c * k->plane + (size_t)y * k->across;
            for (int32_t x = 0; x < k->w; x++, at++) {
                ab += (double)a[at] * (double)b[at];
                aa += (double)a[at] * (double)a[at];
                bb += (double)b[at] * (double)b[at];
            }
        }
    if (aa == 0 || bb == 0) return aa == bb;
    return ab / (sqrt(aa) * sqrt(bb));
}

/* The score is the negative of the cosine, so the best is the least alike. */
static double softmin(double score, double best, double temperature)
{
    return exp((score - best) / temperature);
}

/* The weights of a patch; base: the base's share of it, the last weight. */
static void weigh(double *weight, const wf_combine *x, const float *share,
                  const weft_loratorio_options *o, double base, const wf_rect *k)
{
    double score[WF_ADAPTERS_MAX];

    for (int32_t b = 0; b < x->branches; b++) score[b] = -cosine(x->cond[b], x->cond_base, k);
    wf_weights_of(weight, score, share, x->branches, o->keep, softmin, o->temperature);
    for (int32_t b = 0; b < x->branches; b++) weight[b] *= 1 - base;
    weight[x->branches] = base;
}

void wf_loratorio_combine(const wf_combine *x, const float *share,
                          const weft_loratorio_options *o)
{
    const float *from[WF_ADAPTERS_MAX + 1];
    double       weight[WF_ADAPTERS_MAX + 1], base = x->half == WF_UNCONDITIONAL ? o->base : 0;
    size_t       plane = (size_t)x->h * (size_t)x->w, across = (size_t)x->w;

    for (int32_t b = 0; b < x->branches; b++) from[b] = x->preds[b];
    from[x->branches] = x->base;
    for (int32_t n = 0; n < x->n; n++)
        for (int32_t top = 0; top < x->h; top += o->patch)
            for (int32_t left = 0; left < x->w; left += o->patch) {
                wf_rect k = { (size_t)n * (size_t)x->c * plane + (size_t)top * across + (size_t)left,
                                plane, across, x->c, WF_MIN(o->patch, x->h - top),
                                WF_MIN(o->patch, x->w - left) };
                weigh(weight, x, share, o, base, &k);
                wf_mix(x->out, from, weight, x->branches + (base != 0), &k);
                wf_take_down_mix(x, weight, x->branches + (base != 0), &k);
            }
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
    wf_loratorio_combine(x, share, options_of(s));
}

static void describe(const weft_plan *p, const wf_sheet *s, wf_text *out)
{
    const weft_loratorio_options *o = options_of(s);
    wf_number_text                t, b;

    (void)p;
    wf_text_add(out, "  patches    of %d x %d latent pixels, softmin of cosines at temperature %s\n",
                (int)o->patch, (int)o->patch, wf_number(&t, o->temperature));
    if (o->keep > 0) wf_text_add(out, "  keep       the %d least like the base in each patch\n", (int)o->keep);
    wf_text_add(out, "  base       %s of the unconditional half\n", wf_number(&b, o->base));
}

weft_status weft_plan_loratorio(weft_plan *plan, const weft_loratorio_options *options,
                                weft_error *err)
{
    weft_loratorio_options o;

    WF_TRY(WF_OPTIONS(&o, options, weft_loratorio_options, WEFT_LORATORIO_BASE, err));
    if (o.patch < 0 || o.patch > PATCH_MAX)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_loratorio_options: patch is %d, wanted 1 to %d, or 0 for %d",
                       (int)o.patch, PATCH_MAX, PATCH);
    if (o.keep < 0)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_loratorio_options: keep is %d, wanted at least 1, or 0 for all",
                       (int)o.keep);
    if (!(o.temperature == 0 || (o.temperature >= 1e-6f && o.temperature <= 1e6f)))
        return wf_fail(err, WEFT_E_ARG,
                       "weft_loratorio_options: temperature is not between 1e-6 and 1e6, nor 0 for 0.1");
    if ((o.flags & WEFT_LORATORIO_BASE) != 0 && !(o.base >= 0 && o.base <= 1))
        return wf_fail(err, WEFT_E_ARG, "weft_loratorio_options: base is not between 0 and 1");
    if (o.patch == 0) o.patch = PATCH;
    if (o.temperature == 0) o.temperature = TEMPERATURE;
    if ((o.flags & WEFT_LORATORIO_BASE) == 0) o.base = BASE;
    return wf_plan_use(plan, &wf_method_loratorio, &o, sizeof o, err);
}

static const wf_field field_list[] = {
    { WF_VALUE("patch", INT32, weft_loratorio_options, patch), .otherwise = PATCH },
    { WF_VALUE("keep", INT32, weft_loratorio_options, keep) },
    { WF_VALUE("temperature", FLOAT, weft_loratorio_options, temperature),
      .otherwise = (double)TEMPERATURE },
    { WF_VALUE("base", FLOAT, weft_loratorio_options, base), .bit = WEFT_LORATORIO_BASE,
      .otherwise = (double)BASE },
};
static const wf_fields fields = WF_FIELDS(field_list, weft_loratorio_options);
WF_METHOD_USE(weft_plan_loratorio, weft_loratorio_options)

const wf_method wf_method_loratorio = {
    .name = "loratorio",
    .title = "LoRAtorio",
    .text = WEFT_TEXT_ALL,
    .use = use,
    .fields = &fields,
    .begin = begin,
    .alone = wf_alone_own,
    .choose = wf_choose_own,
    .branches = wf_branches_each,
    .combine = combine,
    .needs_base = true,
    .weigh = wf_weigh_shares,
    .describe = describe,
    .explain = wf_explain_branches,
};
