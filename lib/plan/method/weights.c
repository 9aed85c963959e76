/* weights.c - what methods that average predictions share: a branch for each adapter, sums without
 * an order, shares, weights from scores, and their use on a part of the image. */
#include <math.h>

#include "plan/method/method.h"

double wf_sum_sorted(double *term, int32_t n)
{
    double sum;

    for (int32_t i = 1; i < n; i++) { /* insertion: branches are few */
        double  v = term[i];
        int32_t at = i;
        for (; at > 0 && term[at - 1] > v; at--) term[at] = term[at - 1];
        term[at] = v;
    }
    sum = n > 0 ? term[0] : 0; /* not 0 + term[0], which would lose the sign of -0 */
    for (int32_t i = 1; i < n; i++) sum += term[i];
    return sum;
}

double wf_share_sum(const weft_plan *p)
{
    double share[WF_ADAPTERS_MAX];

    for (int32_t a = 0; a < p->adapters; a++) share[a] = p->entry[a].share;
    return wf_sum_sorted(share, p->adapters);
}

void wf_weigh_shares(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch,
                     float *weight, float *divisor)
{
    (void)s, (void)call;
    if (p->adapters == 0) return;
    *weight = p->entry[branch].share;
    *divisor = (float)wf_share_sum(p);
}

weft_status wf_check_shares(const weft_plan *p, const char *method, weft_error *err)
{
    bool any = p->adapters == 0;

    for (int32_t a = 0; a < p->adapters; a++) {
        wf_number_text v;
        if (p->entry[a].share < 0)
            return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: the share of %s is %s, wanted 0 or more",
                           method, wf_adapter_name(p->entry[a].bound->adapter),
                           wf_number(&v, p->entry[a].share));
        any = any || p->entry[a].share > 0;
    }
    if (!any)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: the shares of all adapters are 0", method);
    return WEFT_OK;
}

void wf_weights_of(double *weight, const double *score, const float *share, int32_t n, int32_t keep,
                   wf_weight_fn *rule, double parameter)
{
    double best = -INFINITY, sorted[WF_ADAPTERS_MAX];

    for (int32_t i = 0; i < n; i++)
        if (share[i] > 0) best = WF_MAX(best, score[i]);
    for (int32_t i = 0; i < n; i++) {
        int32_t above = 0;
        for (int32_t k = 0; k < n; k++) above += share[k] > 0 && score[k] > score[i];
        sorted[i] = weight[i] = share[i] > 0 && (keep == 0 || above < keep)
                                    ? share[i] * rule(score[i], best, parameter) : 0;
    }
    double sum = wf_sum_sorted(sorted, n);
    for (int32_t i = 0; i < n; i++) weight[i] /= sum;
}

void wf_mix(float *out, const float *const *from, const double *weight, int32_t n,
            const wf_rect *k)
{
    double term[WF_ADAPTERS_MAX + 1];

    for (int32_t c = 0; c < k->c; c++)
        for (int32_t y = 0; y < k->h; y++) {
            size_t at = k->first + (size_t)c * k->plane + (size_t)y * k->across;
            for (int32_t x = 0; x < k->w; x++, at++) {
                for (int32_t i = 0; i < n; i++) term[i] = weight[i] * (double)from[i][at];
                out[at] = (float)wf_sum_sorted(term, n);
            }
        }
}

void wf_take_down_mix(const wf_combine *x, const double *weight, int32_t n, const wf_rect *k)
{
    double part = (double)k->h * k->w / ((double)x->n * x->h * x->w);
    for (int32_t i = 0; i < n; i++) wf_take_down(x, i, weight[i] * part);
}

void wf_explain_branches(const weft_plan *p, const wf_sheet *s, wf_text *out)
{
    for (int32_t a = 0; a < p->adapters; a++) {
        wf_letter_text letter;
        wf_number_text c, share;
        wf_text_add(out, "  branch %d  %s  %s at every call, at %d layers of the UNet; share %s\n",
                    (int)a, wf_letter(&letter, a), wf_number(&c, p->entry[a].weight),
                    (int)wf_sheet_reach(s, a), wf_number(&share, p->entry[a].share));
    }
}
