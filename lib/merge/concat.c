/* concat.c - the factors of all adapters, one after the other: [B1 B2 ..] [w1 A1; w2 A2; ..].
 *
 * Exact, and as small as the files together: the ranks add up. PEFT's "cat". */
#include "merge/merge_internal.h"

void wf_merge_concatenate(const wf_merge_pairs *in, float *down, float *up)
{
    size_t R = 0, at = 0;

    for (int32_t k = 0; k < in->count; k++) R += in->rank[k];
    for (int32_t k = 0; k < in->count; k++) {
        size_t r = in->rank[k];
        for (size_t i = 0; i < r * in->K; i++)
            down[at * in->K + i] = (float)(in->weight[k] * in->down[k][i]);
        for (size_t o = 0; o < in->out; o++)
            memcpy(up + o * R + at, in->up[k] + o * r, r * sizeof *up);
        at += r;
    }
}

const wf_merge_method wf_merge_concat = {
    .kind = WEFT_MERGE_CONCAT,
    .title = "concatenation",
    .can = WF_MERGE_AS_KOHYA,
    .combine = wf_merge_add_up,
    .stack = wf_merge_concatenate,
};
