/* randlora.c - RandLoRA: a matrix of full rank from random bases, and learnt scales of theirs.
 *
 *   randlora_lambda (r, n), randlora_gamma (n, short)     short the smaller side of the layer, long
 *                                                         the other, n = short / r, rounded up
 *   randlora_A (r, 1, shorts), randlora_B (longs, bases, r), for all modules, at least as large
 *
 *   F (r n, short)   row (a, b) = lambda[a, b] * A[a] * gamma[b]
 *   G (long, r n)    the first n bases of each row of B, in the order (base, r)
 *   Delta W = alpha / r * G F, or its transpose where the layer has more inputs than outputs
 *
 * F counts its rows by rank and base and G its columns by base and rank: so training has it, and
 * they are multiplied as they lie. That is a matrix of full rank, so it is formed.
 *
 * A and B are never trained. A file may leave them out (save_projection false), and then
 * projection_prng_key gives them: numbers of torch's CPU generator, A's first. Plain ones are
 * spread evenly between -b and b, b = 1 / sqrt(row length), and divided by their deviation, in
 * bfloat16.
 * Sparse ones are -1, 0 and 1, also divided. PEFT takes float16 on GPUs without bfloat16; what was
 * trained there has to be saved with its projections.
 *
 * Keys randlora_lambda randlora_gamma, base_model.randlora_A, base_model.randlora_B, which PEFT
 * repeats for every module. Albert et al., RandLoRA, 2025. */
#include <math.h>

#include "adapter/factor.h"
#include "adapter/save.h"
#include "tensor/gemm.h"

/* What a module keeps of the configuration. */
typedef struct randlora {
    int64_t seed;
    int32_t sparse; /* 0, 1, or 2: very */
    bool    told;   /* does a configuration say it? */
} randlora;

static weft_status settle(wf_module *m, const wf_settings *s, const wf_config *config,
                          const char *path, weft_error *err)
{
    randlora *extra = m->extra;

    (void)s, (void)path, (void)err;
    if (config == NULL) return WEFT_OK;
    extra->told = wf_config_integer(config, "projection_prng_key", 0, &extra->seed);
    extra->sparse = wf_config_true(config, "very_sparse") ? 2 : wf_config_true(config, "sparse");
    return WEFT_OK;
}

/* ---- shapes ---------------------------------------------------------------------------------- */

static int64_t short_of(const wf_module *m)
{
    return m->tensor[WF_TENSOR_RANDLORA_GAMMA]->shape[1];
}

static bool lacks(const wf_module *m)
{
    return m->tensor[WF_TENSOR_RANDLORA_A] == NULL && m->tensor[WF_TENSOR_RANDLORA_B] == NULL;
}

static weft_status check_bases(const wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *A = m->tensor[WF_TENSOR_RANDLORA_A], *B = m->tensor[WF_TENSOR_RANDLORA_B];
    int64_t          n = m->tensor[WF_TENSOR_RANDLORA_LAMBDA]->shape[1];

    if (lacks(m)) {
        if (((const randlora *)m->extra)->told) return WEFT_OK;
        return wf_module_fail(m, source, err,
                              "the file has neither randlora_A and randlora_B nor a configuration "
                              "that gives their seed; save it with save_projection");
    }
    if (A == NULL || B == NULL)
        return wf_module_fail(m, source, err, "the file has %s without %s",
                              A != NULL ? "randlora_A" : "randlora_B",
                              A != NULL ? "randlora_B" : "randlora_A");
    if (A->rank != 3 || A->shape[0] != m->rank || A->shape[1] != 1 || A->shape[2] < short_of(m))
        return wf_module_wrong_shape(A, source,
                                     "(r, 1, shorts) with the r of randlora_lambda and no fewer "
                                     "columns than randlora_gamma", err);
    if (B->rank != 3 || B->shape[2] != m->rank || B->shape[1] < n || B->shape[0] < short_of(m))
        return wf_module_wrong_shape(B, source,
                                     "(longs, bases, r) with the r and no fewer bases than "
                                     "randlora_lambda", err);
    return WEFT_OK;
}

static weft_status shape(wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *lambda = m->tensor[WF_TENSOR_RANDLORA_LAMBDA],
                    *gamma = m->tensor[WF_TENSOR_RANDLORA_GAMMA];

    if (lambda->rank != 2) return wf_module_wrong_shape(lambda, source, "(r, n)", err);
    if (gamma->rank != 2 || gamma->shape[0] != lambda->shape[1])
        return wf_module_wrong_shape(gamma, source, "(n, short) with the n of randlora_lambda",
                                     err);
    if ((gamma->shape[1] + lambda->shape[0] - 1) / lambda->shape[0] != gamma->shape[0])
        return wf_module_wrong_shape(gamma, source, "(n, short), n = short / r rounded up", err);
    m->rank = (int32_t)lambda->shape[0];
    m->in = m->out = 0;
    m->kernel = 1;
    WF_TRY(check_bases(m, source, err));
    wf_module_set_scale(m, m->rank);
    return WEFT_OK;
}

static bool fits(const wf_module *m, const wf_layer *l)
{
    const wf_tensor *B = m->tensor[WF_TENSOR_RANDLORA_B];

    return l->kind != WEFT_LAYER_NORM && l->kernel == 1 && WF_MIN(l->in, l->out) == short_of(m) &&
           (B == NULL || WF_MAX(l->in, l->out) <= B->shape[0]);
}

/* ---- the sum --------------------------------------------------------------------------------- */

/* F (r n, width); `gamma` (n, width) is scratch. */
static void read_scaled(const wf_module *m, size_t r, size_t n, size_t width, float *gamma,
                        float *F)
{
    const wf_tensor *A = m->tensor[WF_TENSOR_RANDLORA_A];
    size_t           columns = (size_t)A->shape[2];

    wf_tensor_read(m->tensor[WF_TENSOR_RANDLORA_GAMMA], 0, n * width, gamma);
    for (size_t a = 0; a < r; a++)
        for (size_t b = 0; b < n; b++) {
            float  lambda;
            float *row = F + (a * n + b) * width;
            wf_tensor_read(m->tensor[WF_TENSOR_RANDLORA_LAMBDA], a * n + b, 1, &lambda);
            wf_tensor_read(A, a * columns, width, row);
            for (size_t i = 0; i < width; i++) row[i] *= lambda * gamma[b * width + i];
        }
}

/* Rows of G, `count` of them from `from`. */
static void read_basis(const wf_module *m, size_t k, size_t from, size_t count, float *G)
{
    const wf_tensor *B = m->tensor[WF_TENSOR_RANDLORA_B];
    size_t           length = (size_t)B->shape[1] * (size_t)B->shape[2];

    for (size_t o = 0; o < count; o++) wf_tensor_read(B, (from + o) * length, k, G + o * k);
}

static weft_status add(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                       const weft_allocator *alloc, weft_error *err)
{
    size_t r = (size_t)m->rank, n = (size_t)m->tensor[WF_TENSOR_RANDLORA_LAMBDA]->shape[1],
           k = r * n, out = (size_t)l->out, in = (size_t)l->in, width = WF_MIN(in, out),
           length = WF_MAX(in, out), floats;
    float  f = (float)(scale * c);

    if (!wf_mul(k + n + WF_STRIP, width, &floats) || !wf_add(floats, WF_STRIP * k, &floats))
        return wf_fail(err, WEFT_E_ARG, "%s: the bases are too large", m->key);
    float *F = wf_zalloc(alloc, floats, sizeof *F);
    if (F == NULL) return wf_nomem(err, floats * sizeof *F, "the bases of a layer");
    float *G = F + k * width, *D = G + WF_STRIP * k, *gamma = D + WF_STRIP * width;
    read_scaled(m, r, n, width, gamma, F);
    for (size_t i = 0; i < k * width; i++) F[i] *= f;
    for (size_t at = 0; at < length; at += WF_STRIP) {
        size_t count = WF_MIN((size_t)WF_STRIP, length - at);
        read_basis(m, k, at, count, G);
        if (in <= out) {
            wf_gemm_nn(dst + at * in, in, G, k, F, width, count, width, k, 1);
            continue;
        }
        wf_gemm_nn(D, width, G, k, F, width, count, width, k, 0);
        for (size_t i = 0; i < count; i++)
            for (size_t o = 0; o < out; o++) dst[o * in + at + i] += D[i * width + o];
    }
    wf_free(alloc, F);
    return WEFT_OK;
}

/* ---- bases that the file leaves out ---------------------------------------------------------- */

static float bfloat(float v)
{
    uint32_t bits;

    memcpy(&bits, &v, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u; /* to the nearest, or the even one */
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* Evenly from -1 / sqrt(length) up to that, which is left out: what rounding makes of it is the
 * least again. Each row of `length` is `step` behind the one before. */
static void draw_even(wf_mersenne *g, size_t length, size_t count, size_t step, float *v)
{
    double gain = sqrt(2.0 / 6), bound = sqrt(3.0) * (gain / sqrt((double)length));
    float  from = (float)-bound, to = (float)bound;

    for (size_t i = 0; i < count; i++) {
        float one = bfloat((float)((double)wf_mersenne_uniform(g) * (to - from) + from));
        v[i / length * step + i % length] = one < bfloat(to) ? one : bfloat(from);
    }
}

static void draw_sparse(wf_mersenne *g, double sparsity, size_t count, float *v)
{
    float below = (float)(1 / (2 * sparsity)), above = (float)(1 - 1 / (2 * sparsity));

    for (size_t i = 0; i < count; i++) {
        float u = wf_mersenne_uniform(g);
        v[i] = u > above ? 1 : u < below ? -1 : 0;
    }
}

/* Divide by the deviation, in the type that they are drawn in. False if there is none. */
static bool normalise(float *v, size_t count, bool bf16)
{
    double mean = 0, squares = 0;

    for (size_t i = 0; i < count; i++) mean += v[i];
    mean /= (double)count;
    for (size_t i = 0; i < count; i++) squares += (v[i] - mean) * (v[i] - mean);
    float deviation = (float)sqrt(squares / ((double)count - 1));
    if (bf16) deviation = bfloat(deviation);
    if (!(deviation > 0)) return false;
    for (size_t i = 0; i < count; i++) v[i] = bf16 ? bfloat(v[i] / deviation) : v[i] / deviation;
    return true;
}

static wf_tensor *tensor_of(const char *name, size_t a, size_t b, size_t c, wf_bag *bag)
{
    size_t     n = a * b * c;
    wf_tensor *t = wf_bag_take(bag, 1, sizeof *t);
    float     *v = wf_bag_take(bag, n, sizeof *v);

    if (t == NULL || v == NULL) return NULL;
    *t = (wf_tensor){ .name = name, .data = (const uint8_t *)v, .bytes = n * sizeof *v, .count = n,
                      .shape = { (int64_t)a, (int64_t)b, (int64_t)c }, .rank = 3, .dtype = WF_F32 };
    return t;
}

static weft_status make(const wf_module *m, size_t in, size_t out, wf_bag *bag,
                        const wf_tensor *made[WF_TENSORS], weft_error *err)
{
    const randlora *extra = m->extra;
    size_t          r = (size_t)m->rank, width = WF_MIN(in, out), length = WF_MAX(in, out),
                    n = (width + r - 1) / r, floats;
    double          sparsity = extra->sparse == 2 ? sqrt((double)width) : 3;
    wf_mersenne     g;

    if (!wf_mul(r * n, length, &floats) || !wf_add(floats, r * width, &floats) ||
        floats > INT32_MAX)
        return wf_fail(err, WEFT_E_FORMAT, "%s: a rank of %zu is too large for bases", m->key, r);
    wf_tensor *A = tensor_of("randlora_A", r, 1, width, bag),
              *B = A != NULL ? tensor_of("randlora_B", length, n, r, bag) : NULL;
    if (B == NULL) return wf_nomem(err, floats * sizeof(float), "bases");
    float *a = (float *)A->data, *b = (float *)B->data; /* just taken */
    wf_mersenne_seed(&g, (uint64_t)extra->seed);
    if (extra->sparse != 0) {
        draw_sparse(&g, sparsity, A->count, a);
        draw_sparse(&g, sparsity, B->count, b);
    } else {
        draw_even(&g, width, A->count, width, a);
        for (size_t i = 0; i < n; i++) draw_even(&g, r, length * r, n * r, b + i * r);
    }
    if (!normalise(a, A->count, extra->sparse == 0) || !normalise(b, B->count, extra->sparse == 0))
        return wf_fail(err, WEFT_E_FORMAT, "%s: the configuration's bases are all zero", m->key);
    made[WF_TENSOR_RANDLORA_A] = A;
    made[WF_TENSOR_RANDLORA_B] = B;
    return WEFT_OK;
}

/* ---- PEFT's configuration -------------------------------------------------------------------- */

static const wf_peft_type peft_types[] = {
    { .name = "RANDLORA", .known_by = WF_BIT(WF_TENSOR_RANDLORA_LAMBDA), .rank = "r",
      .alpha = "randlora_alpha" },
    { .name = NULL },
};

static weft_status write_peft(const wf_peft_writer *w)
{
    size_t           at = wf_peft_next(w, 0);
    const wf_module *one = wf_peft_module(w, at);
    const randlora  *extra = one->extra;

    for WF_EACH(w, i)
        if (wf_peft_module(w, i)->rank != one->rank || wf_peft_module(w, i)->scale != one->scale)
            return wf_peft_refuse(w, i, "has another rank or alpha than the others");
    wf_peft_common(w, "init_weights");
    wf_peft_value(w, "r", one->rank);
    wf_peft_value(w, "randlora_alpha", wf_peft_alpha_of(w, at));
    wf_peft_integer(w, "projection_prng_key", extra->seed);
    wf_peft_bool(w, "save_projection", !lacks(one));
    wf_peft_bool(w, "sparse", extra->sparse == 1);
    wf_peft_bool(w, "very_sparse", extra->sparse == 2);
    wf_peft_text(w, "bias", "none");
    return WEFT_OK;
}

const wf_family wf_family_randlora = {
    .name = "randlora",
    .title = "RandLoRA",
    .needs = WF_BIT(WF_TENSOR_RANDLORA_LAMBDA) | WF_BIT(WF_TENSOR_RANDLORA_GAMMA),
    .may = WF_BIT(WF_TENSOR_RANDLORA_A) | WF_BIT(WF_TENSOR_RANDLORA_B),
    .extra_size = sizeof(randlora),
    .settle = settle,
    .shape = shape,
    .lacks = lacks,
    .make = make,
    .fits = fits,
    .misfit = "its bases are of another size, or it is a convolution:",
    .form = wf_form_dense,
    .add = add,
    .dialects = 1 << WEFT_DIALECT_PEFT,
    .alpha_means = wf_alpha_scales,
    .peft_types = peft_types,
    .write_peft = write_peft,
};
