/* null_space.c - NP-LoRA: one adapter stays, and the others give way to it.
 *
 * Adapters disturb each other where they read the same directions of a layer's input. The right
 * singular vectors V of the adapter that stays, D_s = U S V^T, are the directions that it reads.
 * The others lose their part in them:
 *
 *     D = w_s D_s + sum over the others of  w_i D_i (I - c V V^T),   c = mu / (1 + mu)
 *
 * which is the X that minimises |X - D_i|^2 + mu |X V|^2. near mu 0 that is the plain sum; at infinity the
 * others have nothing left where the first reads. Only A_i changes, A_i - c (A_i V) V^T, so the
 * ranks add up as in a concatenation.
 *
 * Source: NP-LoRA (arXiv 2511.11051, 2025), for one content and one
 * style, which stays: the other way round the style is lost. Several others beside one, and
 * convolutions, whose columns are (in, ky, kx), are our extension. */
#include <math.h>

#include "merge/merge_internal.h"
#include "tensor/gemm.h"

/* V^T (rank, K) of the pair, orthonormal rows. */
static weft_status directions(const wf_merge_pairs *in, int32_t i, wf_bag *bag,
                              wf_merge_factors *V, weft_error *err)
{
    const wf_merge_bound all = { 0 };
    size_t               R = in->rank[i];
    float               *D;

    if (R <= WF_MIN(in->out, in->K))
        return wf_merge_factor_pair(in->up[i], in->down[i], in->out, in->K, R, all, bag, V, err);
    D = wf_bag_take(bag, in->out * in->K, sizeof *D);
    if (D == NULL) return wf_nomem(err, in->out * in->K * sizeof *D, "a layer that is merged");
    wf_gemm_nn(D, in->K, in->up[i], R, in->down[i], in->K, in->out, in->K, R, 0);
    return wf_merge_factor(D, in->out, in->K, all, bag, V, err);
}

/* a (K) -= c V V^T a */
static void give_way(float *a, const wf_merge_factors *V, size_t K, double c, double *part)
{
    for (size_t r = 0; r < V->rank; r++) {
        part[r] = 0;
        for (size_t k = 0; k < K; k++) part[r] += (double)a[k] * V->down[r * K + k];
    }
    for (size_t k = 0; k < K; k++) {
        double sum = 0;
        for (size_t r = 0; r < V->rank; r++) sum += part[r] * V->down[r * K + k];
        a[k] = (float)(a[k] - c * sum);
    }
}

static weft_status prepare(wf_merge_pairs *in, wf_bag *bag, weft_error *err)
{
    double           mu = in->o->strength != 0 ? in->o->strength : 0.5;
    double           c = isinf(mu) ? 1 : mu / (1 + mu), *part;
    wf_merge_factors V;

    if (in->fixed < 0 || in->count < 2 || in->weight[in->fixed] == 0) return WEFT_OK;
    WF_TRY(directions(in, in->fixed, bag, &V, err));
    part = wf_bag_take(bag, V.rank + 1, sizeof *part);
    if (part == NULL) return wf_nomem(err, (V.rank + 1) * sizeof *part, "a projection");
    for (int32_t i = 0; i < in->count; i++)
        for (size_t r = 0; i != in->fixed && r < in->rank[i]; r++)
            give_way(in->down[i] + r * in->K, &V, in->K, c, part);
    return WEFT_OK;
}

const wf_merge_method wf_merge_null_space = {
    .kind = WEFT_MERGE_NULL_SPACE,
    .title = "the null-space projection",
    .can = WF_MERGE_GIVES_WAY | WF_MERGE_PAIRS_ONLY | WF_MERGE_COMPARES,
    .combine = wf_merge_add_up,
    .prepare = prepare,
    .stack = wf_merge_concatenate,
};
