/* gralora.c - granular low-rank adaptation: the matrix in N x N blocks, each of a rank of its own.
 *
 *   A (N, in / N, r), B (N, r, out / N), s = r / N
 *   block (j, n) of Delta W = scale * sum over q < s of  B[j, n s + q, :]^T A[n, :, j s + q]^T
 *   beside them, perhaps, a plain pair: A_general (h, in), B_general (out, h)
 *   scale = alpha / (r + h)
 *
 * That is a pair of rank N r + h whose factors are mostly zero: row (n, j, q) of its down factor
 * reads the inputs of block column n alone, and its up factor writes the outputs of block row j.
 * Where that rank is more than the layer has, the matrix is formed.
 *
 * Keys gralora_A gralora_B [gralora_A_general.weight gralora_B_general.weight]. Jung et al.,
 * GraLoRA, 2025. */
#include "adapter/factor.h"
#include "adapter/save.h"
#include "tensor/gemm.h"

/* What a module keeps of its configuration. */
typedef struct wf_gralora {
    bool    told;   /* is there one?          */
    int32_t hybrid; /* rank of the plain pair */
} wf_gralora;

static weft_status settle(wf_module *m, const wf_settings *s, const wf_config *config,
                          const char *path, weft_error *err)
{
    wf_gralora *extra = m->extra;

    (void)s, (void)path, (void)err;
    extra->told = config != NULL;
    if (config != NULL) extra->hybrid = wf_config_count(config, "hybrid_r", 0);
    return WEFT_OK;
}

/* What the shapes say. */
typedef struct grain {
    size_t n; /* blocks in a row and in a column */
    size_t r;
    size_t s; /* rank of a block                 */
    size_t h; /* rank of the plain pair          */
    size_t in;  /* of a block */
    size_t out; /* of a block */
} grain;

static grain grain_of(const wf_module *m)
{
    const wf_tensor *A = m->tensor[WF_TENSOR_GRALORA_A], *B = m->tensor[WF_TENSOR_GRALORA_B],
                    *down = m->tensor[WF_TENSOR_GRALORA_DOWN];
    size_t           n = (size_t)A->shape[0], r = (size_t)A->shape[2];

    return (grain){ .n = n, .r = r, .s = r / n, .h = down != NULL ? (size_t)down->shape[0] : 0,
                    .in = (size_t)A->shape[1], .out = (size_t)B->shape[2] };
}

static weft_status shape(wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *A = m->tensor[WF_TENSOR_GRALORA_A], *B = m->tensor[WF_TENSOR_GRALORA_B],
                    *down = m->tensor[WF_TENSOR_GRALORA_DOWN],
                    *up = m->tensor[WF_TENSOR_GRALORA_UP];
    const wf_gralora *extra = m->extra;

    if (A->rank != 3 || A->shape[2] % A->shape[0] != 0)
        return wf_module_wrong_shape(A, source, "(N, in / N, r) with r a multiple of N", err);
    if (B->rank != 3 || B->shape[0] != A->shape[0] || B->shape[1] != A->shape[2])
        return wf_module_wrong_shape(B, source, "(N, r, out / N) with the N and r of gralora_A",
                                     err);
    int64_t in = A->shape[0] * A->shape[1], out = B->shape[0] * B->shape[2],
            r = A->shape[2] + (down != NULL && down->rank == 2 ? down->shape[0] : 0);
    if (in > INT32_MAX || out > INT32_MAX || r > INT32_MAX)
        return wf_module_fail(m, source, err, "the blocks make a matrix wider than 2^31");
    if ((down == NULL) != (up == NULL))
        return wf_module_fail(m, source, err,
                              "gralora_A_general and gralora_B_general come together, %s is "
                              "missing",
                              down == NULL ? "the first" : "the second");
    if (down != NULL && (down->rank != 2 || down->shape[1] != in))
        return wf_module_wrong_shape(down, source, "(h, in) as gralora_A has it", err);
    if (up != NULL && (up->rank != 2 || up->shape[0] != out || up->shape[1] != down->shape[0]))
        return wf_module_wrong_shape(up, source, "(out, h) as gralora_B has it", err);
    if (extra->told && extra->hybrid != r - A->shape[2])
        return wf_module_fail(m, source, err,
                              "the configuration says hybrid_r %d, and beside gralora_A is a plain "
                              "pair of rank %d", extra->hybrid, (int32_t)(r - A->shape[2]));
    m->rank = (int32_t)r;
    m->in = (int32_t)in;
    m->out = (int32_t)out;
    m->kernel = 1;
    wf_module_set_scale(m, m->rank);
    return WEFT_OK;
}

/* N r + h, or more than any layer has where that is no number of 31 bits. */
static int32_t pair_rank(const wf_module *m)
{
    grain  g = grain_of(m);
    size_t rank;

    return wf_mul(g.n, g.r, &rank) && wf_add(rank, g.h, &rank) && rank < INT32_MAX ? (int32_t)rank
                                                                                  : INT32_MAX;
}

static int32_t form(const wf_module *m, const wf_layer *l)
{
    (void)l;
    return pair_rank(m) <= WF_MIN(m->in, m->out) ? WF_FORM_PAIR : WF_FORM_DENSE;
}

/* ---- the factors ----------------------------------------------------------------------------- */

/* down (N r + h, in): row (n, j, q) is A[n, :, j s + q] in the columns of n. */
static void read_down(const wf_module *m, const grain *g, float *down)
{
    const wf_tensor *A = m->tensor[WF_TENSOR_GRALORA_A];
    size_t           in = (size_t)m->in;

    memset(down, 0, g->n * g->r * in * sizeof *down);
    for (size_t n = 0; n < g->n; n++)
        for (size_t i = 0; i < g->in; i++)
            for (size_t p = 0; p < g->r; p++)
                wf_tensor_read(A, (n * g->in + i) * g->r + p, 1,
                               down + (n * g->r + p) * in + n * g->in + i);
    if (g->h > 0)
        wf_tensor_read(m->tensor[WF_TENSOR_GRALORA_DOWN], 0, g->h * in, down + g->n * g->r * in);
}

/* up (N r + h, out): row (n, j, q) is B[j, n s + q, :] in the columns of j. */
static void read_up(const wf_module *m, const grain *g, float *up)
{
    const wf_tensor *B = m->tensor[WF_TENSOR_GRALORA_B];
    size_t           out = (size_t)m->out;

    memset(up, 0, g->n * g->r * out * sizeof *up);
    for (size_t n = 0; n < g->n; n++)
        for (size_t j = 0; j < g->n; j++)
            for (size_t q = 0; q < g->s; q++)
                wf_tensor_read(B, (j * g->r + n * g->s + q) * g->out, g->out,
                               up + (n * g->r + j * g->s + q) * out + j * g->out);
    if (g->h > 0)
        wf_tensor_transposed(m->tensor[WF_TENSOR_GRALORA_UP], out, g->h, up + g->n * g->r * out);
}

static weft_status pair(const wf_module *m, const wf_layer *l, float *down, float *up,
                        const weft_allocator *alloc, weft_error *err)
{
    grain g = grain_of(m);

    (void)l, (void)alloc, (void)err;
    if (down != NULL) read_down(m, &g, down);
    if (up != NULL) read_up(m, &g, up);
    return WEFT_OK;
}

/* dst (out, in) += f * each block's product: a strip of blocks has one B and a part of each A. */
static weft_status add(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                       const weft_allocator *alloc, weft_error *err)
{
    grain       g = grain_of(m);
    size_t      in = (size_t)m->in, out = (size_t)m->out, floats, a, b, plain;
    float       f = (float)(scale * c);
    bool        ok = wf_mul(g.r, in, &a) && wf_mul(g.r, out, &b) && wf_mul(g.h, in + out, &plain);

    (void)l;
    if (!ok || !wf_add(a, b, &floats) || !wf_add(floats, plain, &floats))
        return wf_fail(err, WEFT_E_ARG, "%s: the factors are too large", m->key);
    float *A = wf_zalloc(alloc, floats, sizeof *A);
    if (A == NULL) return wf_nomem(err, floats * sizeof *A, "an adapter's factors");
    float *B = A + a, *down = B + b, *up = down + g.h * in;
    for (size_t n = 0; n < g.n; n++) /* A^T of each n, (r, in / N) */
        for (size_t i = 0; i < g.in; i++)
            for (size_t p = 0; p < g.r; p++)
                wf_tensor_read(m->tensor[WF_TENSOR_GRALORA_A], (n * g.in + i) * g.r + p, 1,
                               A + (n * g.r + p) * g.in + i);
    wf_tensor_read(m->tensor[WF_TENSOR_GRALORA_B], 0, b, B);
    for (size_t i = 0; i < b; i++) B[i] *= f;
    for (size_t j = 0; j < g.n; j++)
        for (size_t n = 0; n < g.n; n++)
            wf_gemm_tn(dst + j * g.out * in + n * g.in, in, B + (j * g.r + n * g.s) * g.out, g.out,
                       A + (n * g.r + j * g.s) * g.in, g.in, g.out, g.in, g.s, 1);
    if (g.h > 0) {
        wf_tensor_read(m->tensor[WF_TENSOR_GRALORA_DOWN], 0, g.h * in, down);
        wf_tensor_read(m->tensor[WF_TENSOR_GRALORA_UP], 0, g.h * out, up);
        for (size_t i = 0; i < g.h * out; i++) up[i] *= f;
        wf_gemm_nn(dst, in, up, g.h, down, in, out, in, g.h, 1);
    }
    wf_free(alloc, A);
    return WEFT_OK;
}

/* ---- PEFT's configuration -------------------------------------------------------------------- */

static const wf_peft_type peft_types[] = {
    { .name = "GRALORA", .known_by = WF_BIT(WF_TENSOR_GRALORA_A), .rank = "r", .alpha = "alpha" },
    { .name = NULL },
};

static weft_status write_peft(const wf_peft_writer *w)
{
    size_t at = wf_peft_next(w, 0);
    grain  one = grain_of(wf_peft_module(w, at));

    for WF_EACH(w, i) {
        grain g = grain_of(wf_peft_module(w, i));
        if (g.n != one.n || g.r != one.r || g.h != one.h)
            return wf_peft_refuse(w, i, "has other blocks or ranks than the others");
        if (wf_peft_module(w, i)->scale != wf_peft_module(w, at)->scale)
            return wf_peft_refuse(w, i, "has another alpha than the others");
    }
    wf_peft_common(w, "init_weights");
    wf_peft_value(w, "r", (double)one.r);
    wf_peft_value(w, "hybrid_r", (double)one.h);
    wf_peft_value(w, "gralora_k", (double)one.n);
    wf_peft_value(w, "alpha", wf_peft_alpha_of(w, at));
    wf_peft_text(w, "bias", "none");
    return WEFT_OK;
}

const wf_family wf_family_gralora = {
    .name = "gralora",
    .title = "GraLoRA",
    .needs = WF_BIT(WF_TENSOR_GRALORA_A) | WF_BIT(WF_TENSOR_GRALORA_B),
    .may = WF_BIT(WF_TENSOR_GRALORA_DOWN) | WF_BIT(WF_TENSOR_GRALORA_UP),
    .extra_size = sizeof(wf_gralora),
    .settle = settle,
    .shape = shape,
    .pair_rank = pair_rank,
    .form = form,
    .pair = pair,
    .add = add,
    .dialects = 1 << WEFT_DIALECT_PEFT,
    .alpha_means = wf_alpha_scales,
    .peft_types = peft_types,
    .write_peft = write_peft,
};
