/* mixer.c - a mixer between the factors of all adapters: [B1 B2 ..] M [A1; A2; ..].
 *
 * MoSLoRA (Wu et al. 2024) trains a mixer inside one adapter. Here it stands between several, and
 * its blocks are numbers times the identity: block [i][j] lets A_j's direction p out through B_i's
 * direction p. Zeros off the diagonal are the plain sum; ones everywhere are (B1 + B2)(A1 + A2).
 * The weights go into both factors, a square root each, and the sign into A. This use of a mixer is
 * not from the paper. */
#include <math.h>

#include "merge/merge_internal.h"

static void stack(const wf_merge_pairs *in, float *down, float *up)
{
    const float *M = in->o->mixer;
    size_t       K = in->K, R = 0, at = 0;

    wf_merge_concatenate(in, down, up); /* up's places; what is in them is weighted below */
    for (int32_t k = 0; k < in->count; k++) R += in->rank[k];
    for (int32_t i = 0; i < in->count; i++) {
        double b = sqrt(fabs(in->weight[i]));
        memset(down + at * K, 0, in->rank[i] * K * sizeof *down);
        for (int32_t j = 0; j < in->count; j++) {
            size_t n = (size_t)in->mixer_side;
            float  block = M != NULL ? M[(size_t)in->source[i] * n + (size_t)in->source[j]] : 1;
            double a = block * copysign(sqrt(fabs(in->weight[j])), in->weight[j]);
            for (size_t e = 0; e < WF_MIN(in->rank[i], in->rank[j]) * K; e++)
                down[at * K + e] += (float)(a * in->down[j][e]);
        }
        for (size_t o = 0; o < in->out; o++)
            for (size_t p = 0; p < in->rank[i]; p++)
                up[o * R + at + p] = (float)(b * up[o * R + at + p]);
        at += in->rank[i];
    }
}

const wf_merge_method wf_merge_mixer = {
    .kind = WEFT_MERGE_MIXER,
    .title = "the mixer",
    .can = WF_MERGE_MIXES | WF_MERGE_PAIRS_ONLY | WF_MERGE_COMPARES,
    .combine = wf_merge_add_up,
    .stack = stack,
};
