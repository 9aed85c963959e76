/* blend.c - each adapter with a mask has a prediction of its own, and counts where its mask is.
 *
 *     e(p) = (max(0, 1 - S(p)) e_0(p) + sum of M_i(p) e_i(p)) / max(S(p), 1),  S = sum of M_i
 *
 * Branch 0 is the picture without the masked adapters; each further branch has one of them, acting
 * in every layer and everywhere. So adapters never meet inside the network, and none reaches into
 * another's place other than through what the latents already show. An adapter without a mask acts
 * in all branches. The price is one evaluation more for each mask.
 *
 * Until call `start` there is only branch 0: it lays the picture out, and the adapters then fill in
 * their places. An early start follows the adapters more, a late one the layout.
 *
 * The masks come from the run, which averaged them over the latents' pixels and divided them where
 * they sum to more than 1. The terms are added in order of size, as in composite.c. */
#include "base/structs.h"
#include "plan/method/method.h"

static int32_t start_of(const wf_sheet *s)
{
    return ((const weft_blend_options *)s->options->data)->start;
}

static int32_t masks_of(const weft_plan *p)
{
    int32_t n = 0;

    for (int32_t a = 0; a < p->adapters; a++) n += p->entry[a].mask != NULL;
    return n;
}

static int32_t branches(const weft_plan *p, const wf_sheet *s, int32_t call)
{
    return call < start_of(s) ? 1 : 1 + masks_of(p);
}

static weft_status begin(const weft_plan *p, wf_table *t, wf_sheet *s, weft_error *err)
{
    int32_t masks = masks_of(p);

    if (masks == 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "blend: none of %d adapters has a mask, and predictions are blended by "
                       "their masks",
                       (int)p->adapters);
    if (masks >= WF_ADAPTERS_MAX)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "blend: %d adapters with masks, at most %d",
                       (int)masks, WF_ADAPTERS_MAX - 1);
    for (int32_t a = 0; a < p->adapters; a++) {
        const wf_plan_mask *m = wf_plan_mask_of(p, a);
        if (m != NULL && m->adds)
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "blend: the mask of adapter %s adds up with others, but predictions "
                           "can only share a place",
                           wf_adapter_name(p->entry[a].bound->adapter));
    }
    if (start_of(s) >= s->calls)
        wf_table_warn(p, t, "blend: it starts at call %d of %d, so no masked adapter ever acts",
                      (int)start_of(s), (int)s->calls);
    return WEFT_OK;
}

/* What each branch counts for at a pixel, m [masks]. */
static void take_down(const wf_combine *x, const float *m, int32_t masks)
{
    double sum = 0, pixels = (double)x->n * x->h * x->w;

    if (x->shares == NULL) return;
    for (int32_t i = 0; i < masks; i++) sum += (double)m[i];
    wf_take_down(x, 0, WF_MAX(1 - sum, 0.0) / pixels);
    for (int32_t i = 0; i < masks; i++) wf_take_down(x, 1 + i, m[i] / WF_MAX(sum, 1.0) / pixels);
}

/* The branch of a masked adapter; 0: it has no mask. */
static int32_t branch_of(const weft_plan *p, int32_t adapter)
{
    int32_t n = 0;

    if (p->entry[adapter].mask == NULL) return 0;
    for (int32_t a = 0; a <= adapter; a++) n += p->entry[a].mask != NULL;
    return n;
}

static wf_cell choose(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch,
                      int32_t layer, int32_t adapter)
{
    int32_t own = branch_of(p, adapter);

    (void)s, (void)call, (void)layer;
    return own == 0 || own == branch ? WF_ALL : WF_NOTHING;
}

void wf_blend_pixel(float *out, const float *const *preds, const float *m, int32_t masks,
                    size_t channels, size_t plane)
{
    const float *live[WF_ADAPTERS_MAX];
    float        share[WF_ADAPTERS_MAX];
    double       sum = 0;
    int32_t      n = 0;

    for (int32_t i = 0; i < masks; i++) sum += (double)m[i];
    if (sum < 1) {
        share[n] = (float)(1 - sum);
        live[n++] = preds[0];
    }
    for (int32_t i = 0; i < masks; i++)
        if (m[i] > 0) {
            share[n] = m[i];
            live[n++] = preds[1 + i];
        }
    for (size_t c = 0; c < channels; c++) {
        wf_composite_sum(out + c * plane, live, share, n, sum > 1 ? sum : 1, 1);
        for (int32_t i = 0; i < n; i++) live[i] += plane;
    }
}

static void combine(const weft_plan *p, const wf_sheet *s, const wf_combine *x)
{
    size_t       plane = (size_t)x->h * (size_t)x->w, each = (size_t)x->c * plane;
    const float *rows[WF_ADAPTERS_MAX], *preds[WF_ADAPTERS_MAX];
    float        m[WF_ADAPTERS_MAX];
    int32_t      masks = 0;

    (void)s;
    if (x->branches == 1) {
        memcpy(x->out, x->preds[0], (size_t)x->n * each * sizeof *x->out);
        wf_take_down(x, 0, 1);
        return;
    }
    for (int32_t a = 0; a < p->adapters; a++)
        if (p->entry[a].mask != NULL) rows[masks++] = wf_mask_rows(&x->masks[a], x->h, x->w);
    for (size_t n = 0; n < (size_t)x->n; n++)
        for (size_t i = 0; i < plane; i++) {
            for (int32_t k = 0; k < masks; k++) m[k] = rows[k][i];
            take_down(x, m, masks);
            for (int32_t b = 0; b <= masks; b++) preds[b] = x->preds[b] + n * each + i;
            wf_blend_pixel(x->out + n * each + i, preds, m, masks, (size_t)x->c, plane);
        }
}

static void describe(const weft_plan *p, const wf_sheet *s, wf_text *out)
{
    (void)p;
    if (start_of(s) > 0)
        wf_text_add(out, "  start      call %d; before it, the picture without masked adapters\n",
                    (int)start_of(s));
}

static void explain(const weft_plan *p, const wf_sheet *s, wf_text *out)
{
    wf_text_add(out, "  branch 0  without the masked adapters; it counts where no mask is\n");
    for (int32_t a = 0; a < p->adapters; a++) {
        wf_letter_text letter;
        wf_number_text c;
        int32_t own = branch_of(p, a);
        if (own == 0)
            wf_text_add(out, "  each branch  %s  %s, at %d layers of the UNet\n", wf_letter(&letter, a),
                        wf_number(&c, p->entry[a].weight), (int)wf_sheet_reach(s, a));
        else
            wf_text_add(out,
                        "  branch %d  %s  %s, at %d layers of the UNet; it counts where its mask "
                        "is\n",
                        (int)own, wf_letter(&letter, a), wf_number(&c, p->entry[a].weight),
                        (int)wf_sheet_reach(s, a));
    }
}

weft_status weft_plan_blend(weft_plan *plan, const weft_blend_options *options, weft_error *err)
{
    weft_blend_options o;

    WF_TRY(WF_OPTIONS(&o, options, weft_blend_options, 0, err));
    if (o.start < 0)
        return wf_fail(err, WEFT_E_ARG, "weft_blend_options: start is %d, wanted a call", (int)o.start);
    if (o.reserved0 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "weft_blend_options: reserved0 is %d, must be zero",
                       (int)o.reserved0);
    return wf_plan_use(plan, &wf_method_blend, &o, sizeof o, err);
}

static const wf_field field_list[] = {
    { WF_VALUE("start", INT32, weft_blend_options, start) },
};
static const wf_fields fields = WF_FIELDS(field_list, weft_blend_options);
WF_METHOD_USE(weft_plan_blend, weft_blend_options)

const wf_method wf_method_blend = {
    .name = "blend",
    .title = "Blend",
    .text = WEFT_TEXT_ALL,
    .use = use,
    .fields = &fields,
    .choose = choose,
    .begin = begin,
    .branches = branches,
    .combine = combine,
    .masks_predictions = true,
    .describe = describe,
    .explain = explain,
};
