/* boft.c - OFT in butterflies, LyCORIS' form: several stages of small rotations that together mix
 * all outputs.
 *
 *   oft_blocks (m, n, b, b), n b = out     R as in oft.c, for each stage and block; alpha and
 * rescale as there
 *
 * Stage i takes rows in groups of 2 * half, half = 2^i b / 2, and pairs row j of a group's first
 * half with row j of its second: (c, 2, half) is read as (c, half, 2). Every b rows in that order
 * are turned, R_i W (not R^T), and put back. A product of rotations cannot be taken on a strip of
 * rows alone, so this family needs a copy of the layer.
 *
 * LyCORIS gives a strength between 0 and 1 to every stage's distance from I; here strength moves
 * along the line from W to W', as for every family. They agree at 0 and at 1.
 *
 * Liu et al., Parameter-Efficient Orthogonal Finetuning via Butterfly Factorization, 2024. */
#include "adapter/rotation.h"
#include "tensor/gemm.h"

static weft_status shape(wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *t = m->tensor[WF_TENSOR_OFT_BLOCKS];
    int64_t          b = t->shape[t->rank - 1], out;

    if (t->rank != 4 || t->shape[2] != b)
        return wf_module_wrong_shape(t, source, "(stages, blocks, b, b)", err);
    out = t->shape[1] * b;
    WF_TRY(wf_rotation_shape(m, out, source, err));
    if (b % 2 != 0) return wf_module_wrong_shape(t, source, "blocks of an even size", err);
    for (int64_t i = 0, group = b; i < t->shape[0]; i++, group *= 2)
        if (group > out || out % group != 0)
            return wf_module_wrong_shape(t, source, "no more stages than the blocks can be paired",
                                         err);
    return WEFT_OK;
}

/* Row of W that is row j in the order of stage i. */
static size_t row_at(size_t j, size_t half)
{
    size_t group = j / (2 * half), place = j % (2 * half);
    return (2 * group + place % 2) * half + place / 2;
}

/* One stage: W's rows turned in place. rows and turned are (b, K). */
static void turn(float *W, const double *R, float *D, float *rows, float *turned, size_t block,
                 size_t b, size_t half, size_t K)
{
    for (size_t i = 0; i < b * b; i++) D[i] = (float)R[i];
    for (size_t j = 0; j < b; j++)
        memcpy(rows + j * K, W + row_at(block * b + j, half) * K, K * sizeof *rows);
    wf_gemm_nn(turned, K, D, b, rows, K, b, K, b, 0);
    for (size_t j = 0; j < b; j++)
        memcpy(W + row_at(block * b + j, half) * K, turned + j * K, K * sizeof *rows);
}

/* dst += f (rescale W' - W), strip by strip: the strip is W again. */
static void add_difference(const wf_module *m, const wf_layer *l, const float *turned, float *strip,
                           double f, size_t K, float *dst)
{
    size_t out = (size_t)l->out;

    for (size_t o = 0; o < out; o++) {
        double s = wf_rotation_rescale(m, o);
        wf_layer_rows(l, o, 1, strip);
        for (size_t i = 0; i < K; i++)
            dst[o * K + i] += (float)(f * (s * turned[o * K + i] - strip[i]));
    }
}

static weft_status add(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                       const weft_allocator *alloc, weft_error *err)
{
    const wf_tensor *t = m->tensor[WF_TENSOR_OFT_BLOCKS];
    size_t           stages = (size_t)t->shape[0], n = (size_t)t->shape[1], b = (size_t)t->shape[2];
    size_t           out = (size_t)l->out,
                     K = (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel, floats;
    double           shrink = wf_rotation_shrink(m, t),
                     *R = wf_zalloc(alloc, wf_rotation_doubles(b), sizeof *R);
    float           *W = NULL;
    weft_status      st = WEFT_OK;

    if (!wf_mul(out + 2 * b, K, &floats) || !wf_add(floats, b * b, &floats))
        floats = SIZE_MAX / sizeof *W;
    if (R == NULL || (W = wf_zalloc(alloc, floats, sizeof *W)) == NULL) {
        st = wf_nomem(err, floats * sizeof *W, "a layer's weight");
        goto done;
    }
    float *rows = W + out * K, *turned = rows + b * K, *D = turned + b * K;
    wf_layer_rows(l, 0, out, W);
    for (size_t i = 0; i < stages; i++)
        for (size_t k = 0; k < n; k++) {
            wf_rotation_read(t, i * n + k, b, shrink, R);
            turn(W, R, D, rows, turned, k, b, ((size_t)1 << i) * (b / 2), K);
        }
    add_difference(m, l, W, rows, scale * c, K, dst);
done:
    wf_free(alloc, W);
    wf_free(alloc, R);
    return st;
}

static bool takes(const wf_module *m)
{
    return m->tensor[WF_TENSOR_OFT_BLOCKS]->rank == 4;
}

const wf_family wf_family_boft = {
    .name = "boft",
    .title = "BOFT",
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
