/* dare_ties.c - DARE's draws in place of TIES' largest entries, and then TIES' election. */
#include "merge/merge_internal.h"

static void combine(const wf_merge_list *in, float *dst)
{
    wf_merge_keep_drawn(in);
    wf_merge_elect(in, dst);
}

const wf_merge_method wf_merge_dare_ties = {
    .kind = WEFT_MERGE_DARE_TIES,
    .title = "DARE with TIES",
    .can = WF_MERGE_DENSITY | WF_MERGE_SEED | WF_MERGE_MAJORITY | WF_MERGE_FACTORED |
           WF_MERGE_COMPARES,
    .combine = combine,
};
