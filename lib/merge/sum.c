/* sum.c - the exact weighted sum: D = sum over the adapters of w D.
 *
 * PEFT calls the same on factors apart "linear", and kohya merges so: then B = sum of b B and
 * A = sum of a A have products of one adapter's B with another's A in them, and the sum is no
 * longer exact. */
#include "merge/merge_internal.h"

void wf_merge_add_up(const wf_merge_list *in, float *dst)
{
    for (size_t i = 0; i < in->n; i++) {
        double s = 0;
        for (int32_t k = 0; k < in->count; k++) s += in->weight[k] * in->tensor[k][i];
        dst[i] = (float)s;
    }
}

const wf_merge_method wf_merge_sum = {
    .kind = WEFT_MERGE_SUM,
    .title = "the sum",
    .can = WF_MERGE_FACTORED | WF_MERGE_AS_KOHYA,
    .combine = wf_merge_add_up,
};
