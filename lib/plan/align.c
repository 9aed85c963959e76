/* align.c - the samples of a batch take on the style of the first (StyleAligned).
 *
 * What it does to attentions and norms is in nets/: here are its options, which a plan has under
 * any method. They name what the authors' program names, and begin as it does. Its share_layer_norm
 * is left out: a LayerNorm looks at one token at a time, so that tokens of another image beside it
 * change nothing. */
#include <math.h>

#include "base/structs.h"
#include "plan/plan_internal.h"

enum {
    ALL = WEFT_ALIGN_NO_GROUP_NORM | WEFT_ALIGN_NO_ATTENTION | WEFT_ALIGN_NO_QUERIES |
          WEFT_ALIGN_NO_KEYS | WEFT_ALIGN_VALUES | WEFT_ALIGN_FULL | WEFT_ALIGN_SCALE |
          WEFT_ALIGN_OFF,
    ADAPTED = WEFT_ALIGN_NO_ATTENTION | WEFT_ALIGN_NO_QUERIES | WEFT_ALIGN_NO_KEYS |
              WEFT_ALIGN_VALUES /* what FULL leaves without effect, besides the scores */
};

const weft_align_options *wf_plan_align(const weft_plan *p)
{
    return p->align != NULL ? p->align->data : NULL;
}

static weft_status check(const weft_align_options *o, weft_error *err)
{
    bool scores = (o->flags & WEFT_ALIGN_SCALE) != 0 || o->shared_score_shift != 0.0f;

    if (!isfinite(o->shared_score_scale) || o->shared_score_scale < 0.0f)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_align_options: shared_score_scale is %g, wanted a number from 0 on",
                       (double)o->shared_score_scale);
    if (!isfinite(o->shared_score_shift))
        return wf_fail(err, WEFT_E_ARG,
                       "weft_align_options: shared_score_shift is not a finite number");
    if (!(o->only_self_level >= 0 && o->only_self_level <= 1))
        return wf_fail(err, WEFT_E_ARG,
                       "weft_align_options: only_self_level is %g, wanted 0 to 1",
                       o->only_self_level);
    if (!(o->flags & WEFT_ALIGN_SCALE) && o->shared_score_scale != 0.0f)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_align_options: shared_score_scale is %g, but flags has no "
                       "WEFT_ALIGN_SCALE",
                       (double)o->shared_score_scale);
    if ((o->flags & WEFT_ALIGN_FULL) && ((o->flags & ADAPTED) || scores))
        return wf_fail(err, WEFT_E_ARG,
                       "weft_align_options: under WEFT_ALIGN_FULL there is no reference: queries, "
                       "keys, values, attention and its scores have no options");
    if ((o->flags & WEFT_ALIGN_NO_ATTENTION) && scores)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_align_options: with WEFT_ALIGN_NO_ATTENTION nothing is scored on the "
                       "reference, and shared_score_scale and shift have no effect");
    if ((o->flags & WEFT_ALIGN_OFF) &&
        (o->flags != WEFT_ALIGN_OFF || scores || o->only_self_level != 0))
        return wf_fail(err, WEFT_E_ARG, "weft_align_options: WEFT_ALIGN_OFF takes no other option");
    return WEFT_OK;
}

weft_status wf_plan_check_align(const weft_plan *p, weft_error *err)
{
    const weft_align_options *o = wf_plan_align(p);

    for (int32_t i = 0; i < p->regions && o != NULL && (o->flags & WEFT_ALIGN_FULL); i++)
        if (p->region[i].isolated)
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "region %d is isolated, but under WEFT_ALIGN_FULL every pixel sees all "
                           "pixels of the batch: one or the other",
                           (int)i);
    return WEFT_OK;
}

/* ", a, b and c". */
static void list(wf_text *out, const char *const *names, const bool *is, size_t n)
{
    size_t left = 0, done = 0;

    for (size_t i = 0; i < n; i++) left += is[i];
    for (size_t i = 0; i < n; i++) {
        if (!is[i]) continue;
        left--;
        wf_text_add(out, "%s%s", done == 0 ? "" : left == 0 ? " and " : ", ", names[i]);
        done++;
    }
}

void wf_align_explain(const weft_plan *p, wf_text *out)
{
    static const char *const names[] = { "queries", "keys", "values" };
    const weft_align_options *o = wf_plan_align(p);
    wf_number_text            number;

    if (o == NULL) return;
    const bool adapted[] = { !(o->flags & WEFT_ALIGN_NO_QUERIES), !(o->flags & WEFT_ALIGN_NO_KEYS),
                             (o->flags & WEFT_ALIGN_VALUES) != 0 };
    wf_text_add(out, "  aligned    ");
    if (o->flags & WEFT_ALIGN_FULL) {
        wf_text_add(out, "in self-attention every sample of a batch sees all");
    } else {
        wf_text_add(out, "samples of a batch take the first for reference");
        if (!(o->flags & WEFT_ALIGN_NO_ATTENTION))
            wf_text_add(out, "; they see its keys and values");
        if (o->flags & WEFT_ALIGN_SCALE)
            wf_text_add(out, ", scores times %s", wf_number(&number, o->shared_score_scale));
        if (o->shared_score_shift != 0.0f)
            wf_text_add(out, ", scores plus %s", wf_number(&number, o->shared_score_shift));
        if (adapted[0] || adapted[1] || adapted[2]) {
            wf_text_add(out, "; AdaIN of ");
            list(out, names, adapted, 3);
        }
    }
    if (!(o->flags & WEFT_ALIGN_NO_GROUP_NORM)) wf_text_add(out, "; GroupNorms shared");
    if (o->only_self_level > 0)
        wf_text_add(out, "; %s of the self-attentions stay as they are",
                    wf_number(&number, o->only_self_level));
    wf_text_add(out, "\n");
}

static const wf_field field_list[] = {
    { WF_VALUE("shared_score_scale", FLOAT, weft_align_options, shared_score_scale),
      .bit = WEFT_ALIGN_SCALE, .otherwise = 1 },
    { WF_VALUE("shared_score_shift", FLOAT, weft_align_options, shared_score_shift) },
    { WF_VALUE("only_self_level", DOUBLE, weft_align_options, only_self_level) },
    { WF_FLAG("no_group_norm", WEFT_ALIGN_NO_GROUP_NORM) },
    { WF_FLAG("no_attention", WEFT_ALIGN_NO_ATTENTION) },
    { WF_FLAG("no_queries", WEFT_ALIGN_NO_QUERIES) },
    { WF_FLAG("no_keys", WEFT_ALIGN_NO_KEYS) },
    { WF_FLAG("adain_values", WEFT_ALIGN_VALUES) },
    { WF_FLAG("full_attention_share", WEFT_ALIGN_FULL) },
};
const wf_fields wf_align_fields = WF_FIELDS(field_list, weft_align_options);

weft_status weft_plan_align(weft_plan *plan, const weft_align_options *options, weft_error *err)
{
    weft_align_options o;
    wf_blob           *blob = NULL;

    WF_TRY(wf_plan_still_open(plan, "weft_plan_align", err));
    WF_TRY(WF_OPTIONS(&o, options, weft_align_options, ALL, err));
    WF_TRY(check(&o, err));
    if (!(o.flags & WEFT_ALIGN_OFF)) {
        if (!(o.flags & WEFT_ALIGN_SCALE)) o.shared_score_scale = 1.0f;
        if ((blob = wf_blob_create(&plan->alloc, sizeof o)) == NULL)
            return wf_nomem(err, sizeof o, "the options of an alignment");
        memcpy(blob->data, &o, sizeof o);
    }
    wf_blob_drop(plan->align);
    plan->align = blob;
    return WEFT_OK;
}

weft_status weft_plan_alignment(const weft_plan *plan, weft_align_options *options,
                                weft_error *err)
{
    weft_align_options o = WEFT_ALIGN_OPTIONS_INIT;

    if (plan == NULL || options == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_alignment: %s is NULL",
                       plan == NULL ? "plan" : "options");
    o.flags = WEFT_ALIGN_OFF;
    if (wf_plan_align(plan) != NULL) o = *wf_plan_align(plan);
    if (!(o.flags & WEFT_ALIGN_SCALE)) o.shared_score_scale = 0; /* as it was given */
    return WF_RESULT(options, &o, weft_align_options, err);
}
