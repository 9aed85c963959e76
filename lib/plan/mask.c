/* mask.c - where in the image an adapter acts.
 *
 * The plan keeps the mask as it was given. It knows no image size, so the run averages it for each
 * resolution of the denoiser (run/mask.c). Every cell of the adapter names it. */
#include <math.h>

#include "base/structs.h"
#include "plan/plan_internal.h"

enum { SIDE_MAX = 4096 };

const wf_plan_mask *wf_plan_mask_of(const weft_plan *p, int32_t adapter)
{
    const wf_blob *mask = p->entry[adapter].mask;
    return mask != NULL ? mask->data : NULL;
}

bool wf_plan_masked(const weft_plan *p)
{
    bool any = false;
    for (int32_t a = 0; a < p->adapters; a++) any = any || p->entry[a].mask != NULL;
    return any;
}

double wf_plan_mask_mean(const wf_plan_mask *m)
{
    size_t n = (size_t)m->h * (size_t)m->w;
    double sum = 0;

    for (size_t i = 0; i < n; i++) sum += (double)m->values[i];
    return sum / (double)n;
}

static weft_status check(const weft_mask *m, weft_error *err)
{
    if (m->height < 1 || m->width < 1 || m->height > SIDE_MAX || m->width > SIDE_MAX)
        return wf_fail(err, WEFT_E_ARG, "a mask of %d x %d, wanted sides of 1 to %d",
                       (int)m->width, (int)m->height, SIDE_MAX);
    if (m->values == NULL) return wf_fail(err, WEFT_E_ARG, "weft_mask: values is NULL");
    if (m->len != (size_t)m->height * (size_t)m->width)
        return wf_fail(err, WEFT_E_ARG, "a mask of %d x %d has %zu values, wanted %zu",
                       (int)m->width, (int)m->height, m->len,
                       (size_t)m->height * (size_t)m->width);
    if (m->reserved0 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "weft_mask: reserved0 is %d, must be zero",
                       (int)m->reserved0);
    if ((m->flags & WEFT_MASK_TEXT) != 0 && !(m->text >= 0 && m->text <= 1))
        return wf_fail(err, WEFT_E_ARG, "weft_mask: text is not between 0 and 1");
    for (size_t i = 0; i < m->len; i++)
        if (!(m->values[i] >= 0 && m->values[i] <= 1))
            return wf_fail(err, WEFT_E_ARG,
                           "a mask's value at row %zu, column %zu is not between 0 and 1",
                           i / (size_t)m->width, i % (size_t)m->width);
    return WEFT_OK;
}

weft_status wf_plan_mask_read(wf_blob **out, const weft_plan *plan, const weft_mask *mask,
                              uint32_t flags, weft_error *err)
{
    weft_mask m;
    wf_blob  *blob;

    WF_TRY(WF_OPTIONS(&m, mask, weft_mask, flags, err));
    WF_TRY(check(&m, err));
    blob = wf_blob_create(&plan->alloc, sizeof(wf_plan_mask) + m.len * sizeof(float));
    if (blob == NULL) return wf_nomem(err, m.len * sizeof(float), "a mask");
    float *values = (float *)((wf_plan_mask *)blob->data + 1);
    memcpy(values, m.values, m.len * sizeof *values);
    *(wf_plan_mask *)blob->data =
        (wf_plan_mask){ .h = m.height, .w = m.width, .values = values,
                        .adds = (m.flags & WEFT_MASK_ADD) != 0,
                        .text = (m.flags & WEFT_MASK_TEXT) != 0 ? m.text : 1 };
    *out = blob;
    return WEFT_OK;
}

weft_status weft_plan_set_mask(weft_plan *plan, int32_t index, const weft_mask *mask,
                               weft_error *err)
{
    wf_blob *blob = NULL;

    WF_TRY(wf_plan_check_index(plan, index, "weft_plan_set_mask", err));
    if (mask != NULL)
        WF_TRY(wf_plan_mask_read(&blob, plan, mask, WEFT_MASK_TEXT | WEFT_MASK_ADD, err));
    wf_blob_drop(plan->entry[index].mask);
    plan->entry[index].mask = blob;
    return WEFT_OK;
}
