/* ties.c - TIES: the largest entries, a sign elected for each entry, the mean of those that agree.
 *
 * Yadav et al. 2023. The election counts entries without the user's weights: by their sum (total),
 * or by how many have which sign (frequency); where it is even, + is elected. An entry that is zero
 * agrees with neither. The mean is over how many agree, not over their weights, so one adapter
 * alone comes out pruned and nothing else. */
#include "merge/merge_internal.h"

static double sign_of(float v)
{
    return v > 0 ? 1 : v < 0 ? -1 : 0;
}

void wf_merge_elect(const wf_merge_list *in, float *dst)
{
    bool count_signs = in->o->majority == WEFT_MAJORITY_FREQUENCY;

    for (size_t i = 0; i < in->n; i++) {
        double votes = 0, sum = 0;
        int32_t agree = 0;
        for (int32_t k = 0; k < in->count; k++) {
            float v = in->tensor[k][i];
            votes += count_signs ? sign_of(v) : (double)v;
        }
        for (int32_t k = 0; k < in->count; k++) {
            float v = in->tensor[k][i];
            if (sign_of(v) != (votes >= 0 ? 1 : -1)) continue;
            agree++;
            sum += in->weight[k] * v;
        }
        dst[i] = (float)(agree > 0 ? sum / agree : 0);
    }
}

static void combine(const wf_merge_list *in, float *dst)
{
    wf_merge_keep_largest(in);
    wf_merge_elect(in, dst);
}

const wf_merge_method wf_merge_ties = {
    .kind = WEFT_MERGE_TIES,
    .title = "TIES",
    .can = WF_MERGE_DENSITY | WF_MERGE_MAJORITY | WF_MERGE_FACTORED | WF_MERGE_COMPARES,
    .combine = combine,
};
