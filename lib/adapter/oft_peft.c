/* oft_peft.c - PEFT's orthogonal finetuning: rotations of the inputs, packed.
 *
 *   oft_R (blocks, b (b - 1) / 2)      each row the part of a skew Q above its diagonal, row by row
 *   W' = W blockdiag(R)^T              over W's columns in the order (in, ky, kx); blocks * b of
 * them, or one block for all of them (block_share)
 *
 * R is as the configuration says, and the two ways have opposite signs: the series I + 2Q + 2Q^2 +
 * .. + Q^(t-1) of t terms approaches (I + Q) (I - Q)^-1, the exact way takes (I - Q) (I + Q)^-1.
 * Constrained OFT (coft) shortens each block's Q to eps / sqrt(blocks) first. The bias stays.
 *
 * For a k x k convolution this is what PEFT's merge computes. Its own unmerged forward pass folds
 * the rotated patches back into an image, in which patches overlap: not a rotation, and not what
 * merging gives. For linear layers and 1x1 convolutions both agree.
 *
 * Strength moves along the line from W to W', which PEFT has no strength for. Keys oft_R.weight.
 * Qiu et al., OFT, 2023; Qiu et al., OFTv2, 2025 (the series). */
#include <math.h>

#include "adapter/rotation.h"
#include "adapter/save.h"
#include "tensor/gemm.h"

/* PEFT's default is 5; more than this adds nothing that a float would show. */
enum { MOST_TERMS = 64 };

/* b of b (b - 1) / 2 packed values, 0 if there is none. */
static int64_t block_of(int64_t packed)
{
    int64_t b = (int64_t)((1 + sqrt(1 + 8 * (double)packed)) / 2);

    for (int64_t near = b - 1; near <= b + 1; near++)
        if (near > 1 && near * (near - 1) / 2 == packed) return near;
    return 0;
}

static const wf_oft_peft *oft_of(const wf_module *m)
{
    return m->extra;
}

static weft_status settle(wf_module *m, const wf_settings *s, const wf_config *config,
                          const char *path, weft_error *err)
{
    wf_oft_peft *extra = m->extra;

    (void)s, (void)path, (void)err;
    extra->terms = 5; /* what PEFT does if it is not told */
    if (config == NULL) return WEFT_OK;
    extra->terms = wf_config_false(config, "use_cayley_neumann")
                       ? 0 : wf_config_count(config, "num_cayley_neumann_terms", extra->terms);
    if (wf_config_true(config, "coft")) extra->limit = (float)wf_config_number(config, "eps", 6e-5);
    return WEFT_OK;
}

static weft_status shape(wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *t = m->tensor[WF_TENSOR_OFT_R];
    int64_t          b = t->rank == 2 ? block_of(t->shape[1]) : 0;

    if (b == 0) return wf_module_wrong_shape(t, source, "(blocks, b (b - 1) / 2)", err);
    if (oft_of(m)->terms > MOST_TERMS)
        return wf_module_fail(m, source, err, "a series of %d terms, wanted %d at most",
                              oft_of(m)->terms, MOST_TERMS);
    if (t->shape[0] * b > INT32_MAX)
        return wf_module_fail(m, source, err, "the blocks turn more than 2^31 columns");
    m->rank = m->out = m->kernel = 0;
    m->in = t->shape[0] == 1 ? 0 : (int32_t)(t->shape[0] * b);
    m->scale = 1;
    return WEFT_OK;
}

/* One block may stand for all of a layer's. */
static bool fits(const wf_module *m, const wf_layer *l)
{
    const wf_tensor *t = m->tensor[WF_TENSOR_OFT_R];
    size_t           K = (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel,
                     b = (size_t)block_of(t->shape[1]);

    if (l->kind == WEFT_LAYER_NORM) return false;
    return t->shape[0] == 1 ? K % b == 0 : K == (size_t)t->shape[0] * b;
}

/* Q (b, b) of block k, shortened where coft says so. */
static void read_skew(const wf_module *m, size_t k, size_t b, double *Q)
{
    const wf_tensor *t = m->tensor[WF_TENSOR_OFT_R];
    size_t           at = k * (b * (b - 1) / 2);
    double           sum = 0, limit = oft_of(m)->limit / sqrt((double)t->shape[0]);

    for (size_t i = 0; i < b; i++) {
        Q[i * b + i] = 0;
        for (size_t j = i + 1; j < b; j++) {
            float v;
            wf_tensor_read(t, at++, 1, &v);
            Q[i * b + j] = v;
            Q[j * b + i] = -(double)v;
            sum += 2 * (double)v * v;
        }
    }
    if (!(oft_of(m)->limit > 0) || sqrt(sum) <= limit) return;
    for (size_t i = 0; i < b * b; i++) Q[i] *= limit / sqrt(sum);
}

/* R = I + 2Q + 2Q^2 + .. as far as `terms` says, the last of them once; three terms end in Q^3
 * after 2Q^2, as PEFT has it. power and next are scratch of R's size. */
static void series(double *R, const double *Q, double *power, double *next, int32_t terms, size_t b)
{
    int32_t last = terms == 3 ? 3 : terms - 1;

    memset(R, 0, b * b * sizeof *R);
    for (size_t i = 0; i < b; i++) R[i * b + i] = 1;
    memcpy(power, Q, b * b * sizeof *power);
    for (int32_t p = 1; p <= last; p++) {
        double f = p == last && p > 2 ? 1 : 2;
        if (p > 1) {
            wf_gemm_double(next, b, power, b, Q, b, b, b, b, 1, 0);
            memcpy(power, next, b * b * sizeof *power);
        }
        for (size_t i = 0; i < b * b; i++) R[i] += f * power[i];
    }
}

/* D (blocks, b, b) = R - I of every block that is stored. Behind Q (b, b) stand R and its
 * scratch. */
static void read_blocks(const wf_module *m, size_t blocks, size_t b, double *Q, float *D)
{
    size_t  bb = b * b;
    double *R = Q + bb, *power = R + bb, *next = power + bb;

    for (size_t k = 0; k < blocks; k++) {
        read_skew(m, k, b, Q);
        if (oft_of(m)->terms > 0) {
            series(R, Q, power, next, oft_of(m)->terms, b);
        } else {
            for (size_t i = 0; i < bb; i++) R[i] = -Q[i];
            wf_cayley(R, b);
        }
        for (size_t i = 0; i < b; i++)
            for (size_t j = 0; j < b; j++)
                D[k * bb + i * b + j] = (float)(R[i * b + j] - (i == j ? 1 : 0));
    }
}

static weft_status add(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                       const weft_allocator *alloc, weft_error *err)
{
    const wf_tensor *t = m->tensor[WF_TENSOR_OFT_R];
    size_t           blocks = (size_t)t->shape[0], b = (size_t)block_of(t->shape[1]), bb = b * b;
    size_t           out = (size_t)l->out,
                     K = (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel;
    size_t           floats = blocks * bb + 2 * WF_STRIP * K;
    size_t doubles = bb + WF_MAX(wf_rotation_doubles(b), 3 * bb); /* the exact way, or the series */
    double          *Q = wf_zalloc(alloc, doubles, sizeof *Q);
    float           *D = wf_zalloc(alloc, floats, sizeof *D);
    weft_status      st = WEFT_OK;

    if (Q == NULL || D == NULL) {
        st = wf_nomem(err, doubles * sizeof *Q + floats * sizeof *D, "rotations of a layer");
        goto done;
    }
    float *W = D + blocks * bb, *turned = W + WF_STRIP * K;
    read_blocks(m, blocks, b, Q, D);
    for (size_t o = 0; o < out; o += WF_STRIP) {
        size_t n = WF_MIN((size_t)WF_STRIP, out - o);
        wf_layer_rows_as_stored(l, o, n, W);
        for (size_t k = 0; k < K / b; k++)
            wf_gemm_nt(turned + k * b, K, W + k * b, K, D + (blocks == 1 ? 0 : k * bb), b, n, b, b,
                       0);
        wf_add_as_stored(l, o, n, turned, scale * c, dst);
    }
done:
    wf_free(alloc, D);
    wf_free(alloc, Q);
    return st;
}

/* ---- PEFT's configuration -------------------------------------------------------------------- */

static const wf_peft_type peft_types[] = {
    { .name = "OFT", .known_by = WF_BIT(WF_TENSOR_OFT_R), .rank = "r",
      .rank_patterns = "rank_pattern", .alpha = "lora_alpha" },
    { .name = NULL },
};

static int64_t columns_at(const wf_peft_writer *w, size_t i)
{
    const wf_layer *l = wf_peft_layer(w, i);
    return (int64_t)l->in * l->kernel * l->kernel;
}

/* b of rows with b (b - 1) / 2 values. */
static int64_t block_at(const wf_peft_writer *w, size_t i)
{
    int64_t packed = wf_peft_module(w, i)->tensor[WF_TENSOR_OFT_R]->shape[1], b = 2;
    while (b * (b - 1) / 2 < packed) b++;
    return b;
}

/* What PEFT takes for a size, or a number, of blocks that does not divide the columns: the nearest
 * that does, the smaller first. */
static int64_t adjusted(int64_t columns, int64_t wanted)
{
    int64_t low = wanted, high = wanted;

    if (wanted >= columns) return columns;
    while (columns % high != 0) high++;
    while (low > 1 && columns % low != 0) low--;
    return wanted - low <= high - wanted ? low : high;
}

static bool block_for_all(const wf_peft_writer *w, int64_t block)
{
    for WF_EACH(w, i)
        if (adjusted(columns_at(w, i), block) != block_at(w, i)) return false;
    return true;
}

static bool blocks_for_all(const wf_peft_writer *w, int64_t blocks)
{
    for WF_EACH(w, i) {
        int64_t K = columns_at(w, i);
        if (K / adjusted(K, blocks) != block_at(w, i)) return false;
    }
    return true;
}

static weft_status write_peft(const wf_peft_writer *w)
{
    const wf_module *one = wf_peft_first(w);
    bool             shared = false;
    int64_t          block = 0, blocks = 0; /* PEFT wants one of the two */

    for WF_EACH(w, i) {
        int64_t r = columns_at(w, i) / block_at(w, i);
        if (block == 0 && blocks == 0 && blocks_for_all(w, r)) blocks = r;
        shared = shared || (wf_peft_module(w, i)->tensor[WF_TENSOR_OFT_R]->shape[0] == 1 &&
                            columns_at(w, i) != block_at(w, i));
        if (block == 0 && block_for_all(w, block_at(w, i))) block = block_at(w, i);
    }
    if (block == 0 && blocks == 0)
        return wf_peft_refuse(w, wf_peft_next(w, 0),
                              "and the others have blocks of sizes that no one size gives");
    for WF_EACH(w, i)
        if (shared && wf_peft_module(w, i)->tensor[WF_TENSOR_OFT_R]->shape[0] != 1)
            return wf_peft_refuse(w, i, "has a block of each, where others share one");
    wf_peft_common(w, "init_weights");
    wf_peft_value(w, "r", block > 0 ? 0 : (double)blocks);
    wf_peft_value(w, "oft_block_size", (double)block);
    wf_peft_bool(w, "block_share", shared);
    wf_peft_bool(w, "coft", oft_of(one)->limit > 0);
    wf_peft_value(w, "eps", oft_of(one)->limit > 0 ? (double)oft_of(one)->limit : 6e-5);
    wf_peft_bool(w, "use_cayley_neumann", oft_of(one)->terms > 0);
    wf_peft_value(w, "num_cayley_neumann_terms", oft_of(one)->terms > 0 ? oft_of(one)->terms : 5);
    wf_peft_text(w, "bias", "none");
    wf_peft_text(w, "peft_version", "0.18.0"); /* the first whose series this is */
    return WEFT_OK;
}

const wf_family wf_family_oft_peft = {
    .name = "oft",
    .title = "PEFT's OFT",
    .of_weight = true,
    .needs = WF_BIT(WF_TENSOR_OFT_R),
    .extra_size = sizeof(wf_oft_peft),
    .settle = settle,
    .shape = shape,
    .fits = fits,
    .form = wf_form_dense,
    .add = add,
    .dialects = 1 << WEFT_DIALECT_PEFT,
    .peft_types = peft_types,
    .write_peft = write_peft,
};
