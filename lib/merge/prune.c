/* prune.c - of each adapter's difference the largest entries, and their weighted sum.
 *
 * floor(density n) of n entries stay. Where entries are equal in size the first ones stay, so the
 * choice is the same everywhere. What is left of a float without its sign grows as the float does,
 * so the least that stays is found by counting its bits from the top, in three passes. */
#include <math.h>

#include "merge/merge_internal.h"

static uint32_t bits_of(float v)
{
    uint32_t b;

    memcpy(&b, &v, sizeof b);
    return b & 0x7fffffffu;
}

/* The bits of the k-th largest entry, k >= 1, and of its equals how many are among the k. */
static uint32_t least_kept(const float *t, size_t n, size_t k, size_t *equals)
{
    static const int shift[] = { 20, 10, 0 };
    uint32_t prefix = 0;

    for (size_t pass = 0; pass < WF_LEN(shift); pass++) {
        size_t   count[2048] = { 0 };
        uint32_t mask = pass == 0 ? 0x7ffu : 0x3ffu, digit = mask;
        for (size_t i = 0; i < n; i++) {
            uint32_t b = bits_of(t[i]);
            if (pass == 0 || b >> shift[pass - 1] == prefix) count[b >> shift[pass] & mask]++;
        }
        for (; count[digit] < k; digit--) k -= count[digit];
        prefix = pass == 0 ? digit : prefix << 10 | digit;
    }
    *equals = k;
    return prefix;
}

static void keep_largest(float *t, size_t n, size_t k)
{
    size_t   equals = 0;
    uint32_t least = k > 0 ? least_kept(t, n, k, &equals) : UINT32_MAX;

    for (size_t i = 0; i < n; i++) {
        uint32_t b = bits_of(t[i]);
        if (b > least) continue;
        if (b == least && equals > 0) equals--;
        else t[i] = 0;
    }
}

void wf_merge_keep_largest(const wf_merge_list *in)
{
    size_t k = (size_t)floor(in->o->density * (double)in->n);

    if (in->o->density >= 1) return;
    for (int32_t i = 0; i < in->count; i++) keep_largest(in->tensor[i], in->n, k);
}

static void combine(const wf_merge_list *in, float *dst)
{
    wf_merge_keep_largest(in);
    wf_merge_add_up(in, dst);
}

const wf_merge_method wf_merge_prune = {
    .kind = WEFT_MERGE_PRUNE,
    .title = "pruning",
    .can = WF_MERGE_DENSITY | WF_MERGE_FACTORED,
    .combine = combine,
};
