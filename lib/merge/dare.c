/* dare.c - DARE: of each adapter's difference entries drawn at random, divided by the density.
 *
 * Yu et al. 2023. What is dropped is made up for on average. Each entry's draw is a function of the
 * seed, which of the sources it is, the layer with its part, and the entry's number, and of nothing
 * else: no stream is consumed, so order and threads cannot change it. An entry stays if its draw,
 * a number of 53 bits from 0 up to 1, is below the density. */
#include "merge/merge_internal.h"

/* Every bit of x in every bit of the result (Steele, Lea and Flood 2014; Stafford's numbers). */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

void wf_merge_keep_drawn(const wf_merge_list *in)
{
    const uint64_t step = UINT64_C(0x9e3779b97f4a7c15);
    double         density = in->o->density;

    for (int32_t k = 0; k < in->count && density < 1; k++) {
        uint64_t key = mix(in->o->seed + step * ((uint64_t)in->source[k] + 1));
        key = wf_hash(key, in->what, strlen(in->what));
        for (size_t i = 0; i < in->n; i++) {
            uint64_t draw = mix(key + step * ((uint64_t)i + 1));
            float   *v = &in->tensor[k][i];
            *v = (double)(draw >> 11) * 0x1p-53 < density ? (float)(*v / density) : 0;
        }
    }
}

static void combine(const wf_merge_list *in, float *dst)
{
    wf_merge_keep_drawn(in);
    wf_merge_add_up(in, dst);
}

const wf_merge_method wf_merge_dare = {
    .kind = WEFT_MERGE_DARE,
    .title = "DARE",
    .can = WF_MERGE_DENSITY | WF_MERGE_SEED | WF_MERGE_FACTORED,
    .combine = combine,
};
