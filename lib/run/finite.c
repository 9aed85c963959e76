/* finite.c - a result that is not finite becomes an error that says where it began.
 *
 * Looking at a result costs one pass over it, which is nothing beside the network that made it.
 * Only where something is found do we go on: first what the caller gave, then, as the caller's
 * buffers are fine, the same computation once more with a look at every layer. It gives the same
 * bits, so the first layer that goes wrong is where it began. What is wrong there (a weight of the
 * model, or numbers beyond float32) is looked up last. */
#include <math.h>

#include "run/run_internal.h"

weft_status wf_input_finite(const char *what, int32_t index, const float *v, size_t n,
                            weft_error *err)
{
    char   number[16] = "";
    size_t at = v != NULL ? wf_not_finite(v, n) : n;

    if (at == n) return WEFT_OK;
    if (index >= 0) wf_format(number, sizeof number, "[%d]", (int)index);
    return wf_fail(err, WEFT_E_ARG, "%s%s: value %zu of %zu is not finite: %s", what, number, at, n,
                   isnan(v[at]) ? "nan" : v[at] < 0 ? "-inf" : "inf");
}

weft_status wf_texts_finite(const char *what, const weft_text *list, size_t count, weft_error *err)
{
    uint32_t stride;

    if (list == NULL) return WEFT_OK;
    memcpy(&stride, list, sizeof stride);
    for (size_t i = 0; i < count; i++) {
        const weft_text *t = (const void *)((const char *)list + i * stride);
        WF_TRY(wf_input_finite(what, (int32_t)i, t->data, t->len, err));
    }
    return WEFT_OK;
}

bool wf_run_look_again(weft_run *r)
{
    if (!r->watch.found) return false;
    r->watch = (wf_watch){ .layers = true };
    r->exec.stopped = false;
    wf_run_kept_forget(&r->memory);
    return true;
}

/* ---- what is wrong with a layer -------------------------------------------------------------- */

/* The sheet that was computed with, or NULL: the VAE has none. */
static const wf_sheet *sheet_of(const weft_run *r)
{
    const wf_run_memory *b = &r->memory;

    if (r->exec.deltas == NULL) return NULL;
    if (r->exec.deltas == b->text.deltas) return wf_plan_text_sheet(b->plan);
    for (size_t i = 0; i < b->phases; i++)
        if (r->exec.deltas == b->phase[i].deltas) return wf_plan_phases(b->plan, &(size_t){ 0 }) + i;
    return NULL;
}

static const wf_patched *patched_at(const wf_sheet *s, int32_t layer)
{
    for (size_t i = 0; s != NULL && i < s->patched_count; i++)
        if (s->patched[i].layer == layer) return &s->patched[i];
    return NULL;
}

/* Why this layer, in a few words. The files of adapters were looked at when they were opened. */
static void explain_layer(const weft_run *r, const wf_layer *l, char *buf, size_t cap)
{
    size_t columns = (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel, n = (size_t)l->out;
    const wf_sheet *sheet = sheet_of(r);
    const wf_patched *at = l->component >= 0 ? patched_at(sheet, l->id) : NULL;

    if (!wf_finite_any(l->weight, l->dtype, n * columns))
        wf_format(buf, cap, "a weight of the model is not finite there");
    else if (l->bias != NULL && wf_not_finite(l->bias, n) < n)
        wf_format(buf, cap, "a bias of the model is not finite there");
    else if (at == NULL)
        wf_format(buf, cap, "the numbers exceed float32");
    else if (at->patch->parts == 1)
        wf_format(buf, cap, "the numbers exceed float32: lower the weight of adapter %.100s",
                  wf_plan_adapter_name(r->memory.plan, sheet->slot[at->slot].adapter));
    else
        wf_format(buf, cap, "the numbers exceed float32: lower the weights of the adapters");
}

weft_status wf_run_not_finite(const weft_run *r, weft_error *err)
{
    const wf_layer *l = r->watch.layer;
    const wf_sheet *s = sheet_of(r);
    char            why[200];

    if (l == NULL) return wf_fail(err, WEFT_E_NOT_FINITE, "%s is not finite", r->result);
    if (!r->watch.before) explain_layer(r, l, why, sizeof why);
    else /* between two layers: in an embedding, an activation, an attention */
        wf_format(why, sizeof why, "the numbers exceed float32%s",
                  s != NULL && s->slots > 0 ? ": lower the weights of the adapters" : "");
    return wf_fail(err, WEFT_E_NOT_FINITE, "%s is not finite: it began in %s%s%s: %s", r->result,
                   r->watch.before ? "what " : "", l->name, r->watch.before ? " reads" : "", why);
}
