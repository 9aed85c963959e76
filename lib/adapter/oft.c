/* oft.c - orthogonal finetuning of the outputs: blocks of rows of W, each turned by a rotation.
 *
 *   oft_blocks S (n, b, b), n b = out     Q = S - S^T      R = (I + Q) (I - Q)^-1      W'_k = R_k^T
 * W_k alpha      the constraint: with alpha > 0, Q is shortened to |Q| <= alpha * out, over all
 * blocks together rescale    (out, 1, ..), optional: each row of the turned weight times a number
 *
 * Keys oft_blocks [rescale] [alpha], LyCORIS' diag-OFT and kohya's networks.oft alike: theirs is
 * the same map, and the shape of the blocks says how the rows were cut. An alpha of 0, which
 * LyCORIS stores when there is no constraint, binds nothing.
 *
 * Strength moves along the line from W to W'; at 1 every row block keeps its norm. What is added to
 * block k is (diag(rescale) R_k^T - I) W_k, one small matrix on W's rows, so that nothing of the
 * layer's size is needed.
 *
 * Qiu et al., Controlling Text-to-Image Diffusion by Orthogonal Finetuning, 2023. */
#include "adapter/rotation.h"
#include "tensor/gemm.h"

static weft_status shape(wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *t = m->tensor[WF_TENSOR_OFT_BLOCKS];

    if (t->rank != 3 || t->shape[1] != t->shape[2])
        return wf_module_wrong_shape(t, source, "(blocks, b, b)", err);
    return wf_rotation_shape(m, t->shape[0] * t->shape[1], source, err);
}

static weft_status add(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                       const weft_allocator *alloc, weft_error *err)
{
    const wf_tensor *t = m->tensor[WF_TENSOR_OFT_BLOCKS];
    size_t           n = (size_t)t->shape[0], b = (size_t)t->shape[1], bb = b * b;
    size_t           K = (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel;
    double           shrink = wf_rotation_shrink(m, t);
    weft_status      st = WEFT_OK;
    double          *R = wf_zalloc(alloc, wf_rotation_doubles(b), sizeof *R);
    float           *D = wf_zalloc(alloc, bb + b * K, sizeof *D), *W;

    if (R == NULL || D == NULL) {
        st = wf_nomem(err, wf_rotation_doubles(b) * sizeof *R + (bb + b * K) * sizeof *D,
                      "a block of a layer");
        goto done;
    }
    W = D + bb;
    for (size_t k = 0; k < n; k++) {
        wf_rotation_read(t, k, b, shrink, R);
        for (size_t i = 0; i < b; i++) {
            double s = wf_rotation_rescale(m, k * b + i);
            for (size_t j = 0; j < b; j++)
                D[i * b + j] = (float)(scale * c * (s * R[j * b + i] - (i == j ? 1 : 0)));
        }
        wf_layer_rows(l, k * b, b, W);
        wf_gemm_nn(dst + k * b * K, K, D, b, W, K, b, K, b, 1);
    }
done:
    wf_free(alloc, D);
    wf_free(alloc, R);
    return st;
}

/* Four dimensions are BOFT's. */
static bool takes(const wf_module *m)
{
    return m->tensor[WF_TENSOR_OFT_BLOCKS]->rank != 4;
}

const wf_family wf_family_oft = {
    .name = "oft",
    .title = "OFT",
    .of_weight = true,
    .needs = WF_BIT(WF_TENSOR_OFT_BLOCKS),
    .may = WF_BIT(WF_TENSOR_RESCALE),
    .takes = takes,
    .shape = shape,
    .fits = wf_rotation_fits,
    .form = wf_form_dense,
    .add = add,
    .dialects = 1 << WEFT_DIALECT_KOHYA,
    .elsewhere = "in LyCORIS' form",
    .alpha_means = wf_alpha_limits,
};
