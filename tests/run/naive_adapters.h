/* naive_adapters.h - adapters of many families for the tiny SD1 model, made in memory, and what each
 * adds to every layer as a dense matrix in double: the family's formula written out. */
#ifndef NAIVE_ADAPTERS_H
#define NAIVE_ADAPTERS_H

#include "naive.h"

enum { F_LORA, F_LOHA, F_LOKR, F_FULL, F_DORA, F_IA3, F_OFT, F_GLORA, F_TUCKER, F_NORM, FAMILIES };

typedef struct naive_adapter {
    weft_adapter *handle;
    int          *family;  /* [layers], -1: it has nothing there                 */
    int          *rank;    /* [layers], as files have it; 0: none                */
    double      **w, **b;  /* [layers] (out, K) and (out); NULL: 0               */
    bool          common;  /* is a LoRA everywhere                               */
} naive_adapter;

/* ---- numbers --------------------------------------------------------------------------------- */

/* SplitMix64. */
static inline uint64_t draw(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline int below(uint64_t *state, int n) { return (int)(draw(state) % (uint64_t)n); }
static inline bool chance(uint64_t *state, int of) { return below(state, of) == 0; }
static inline double unit(uint64_t *state) { return (double)(draw(state) >> 40) / 16777216; }

/* ---- files ----------------------------------------------------------------------------------- */

typedef struct naive_file {
    weft_tensor_out tensor[4096];
    size_t          count;
    uint64_t       *random;
} naive_file;

/* A tensor of random numbers up to `size`, in `rank` dimensions; what it holds, in double. */
static inline const double *naive_tensor(naive_file *f, const char *stem, const char *ending, double size,
                                         size_t rank, int64_t a, int64_t b, int64_t c, int64_t d)
{
    weft_tensor_out *t = &f->tensor[f->count++];
    int64_t          shape[4] = { a, b, c, d };
    size_t           n = 1;
    char            *name = malloc(strlen(stem) + strlen(ending) + 1);

    ck_assert_uint_lt(f->count, sizeof f->tensor / sizeof *f->tensor);
    strcpy(name, stem);
    strcat(name, ending);
    weft_tensor_out_init(t, sizeof *t);
    t->name = name;
    t->rank = rank;
    for (size_t i = 0; i < rank; i++) n *= (size_t)(t->shape[i] = shape[i]);
    float  *v = malloc(n * sizeof *v);
    double *wide = naive_zeros(n);
    for (size_t i = 0; i < n; i++) wide[i] = v[i] = (float)(size * (2 * unit(f->random) - 1));
    t->data = v;
    return wide;
}

/* A number by itself. */
static inline void naive_number(naive_file *f, const char *stem, const char *ending, float value)
{
    free((void *)(uintptr_t)naive_tensor(f, stem, ending, 0, 0, 1, 1, 1, 1));
    *(float *)(uintptr_t)f->tensor[f->count - 1].data = value;
}

static inline weft_adapter *naive_finish(naive_file *f, const char *name)
{
    weft_adapter_options o = WEFT_ADAPTER_OPTIONS_INIT;
    weft_tensors        *t;
    weft_adapter        *a;
    o.name = name;
    must(weft_tensors_create(f->tensor, f->count, NULL, 0, NULL, &t, &golden_err));
    must(weft_adapter_create(t, &o, &a, &golden_err));
    weft_tensors_free(t);
    for (size_t i = 0; i < f->count; i++) {
        free((void *)(uintptr_t)f->tensor[i].name);
        free((void *)(uintptr_t)f->tensor[i].data);
    }
    free(f);
    return a;
}

/* ---- formulas -------------------------------------------------------------------------------- */

/* d (n, m) += s a (n, r) b (r, m) */
static inline void naive_product(double *d, double s, const double *a, const double *b, size_t n, size_t r,
                                 size_t m)
{
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < r; k++)
            for (size_t j = 0; j < m; j++) d[i * m + j] += s * a[i * r + k] * b[k * m + j];
}

static inline void drop(const double *v) { free((void *)(uintptr_t)v); }

/* alpha / rank, with an alpha in the file or without. */
static inline double naive_scale(naive_file *f, const char *stem, int rank)
{
    float alpha = (float)(1 + below(f->random, 4)) / 2;
    if (chance(f->random, 3)) return 1;
    naive_number(f, stem, ".alpha", alpha);
    return (double)alpha / rank;
}

static inline void naive_lora(naive_file *f, const wf_layer *l, const char *stem, int rank, double *d)
{
    int64_t k = l->kernel;
    size_t  dims = l->kind == WEFT_LAYER_CONV ? 4 : 2, K = naive_columns(l);
    double  s = naive_scale(f, stem, rank), size = 0.5 / sqrt((double)K);
    const double *down = naive_tensor(f, stem, ".lora_down.weight", size, dims, rank, l->in, k, k);
    const double *up = naive_tensor(f, stem, ".lora_up.weight", 1, dims, l->out, rank, 1, 1);
    naive_product(d, s, up, down, (size_t)l->out, (size_t)rank, K);
    drop(down), drop(up);
}

/* up (out, r), core (r, r, k, k), down (r, in). */
static inline void naive_tucker(naive_file *f, const wf_layer *l, const char *stem, int rank, double *d)
{
    size_t  r = (size_t)rank, in = (size_t)l->in, taps = (size_t)(l->kernel * l->kernel);
    double  s = naive_scale(f, stem, rank), size = 0.5 / sqrt((double)l->in);
    const double *mid = naive_tensor(f, stem, ".lora_mid.weight", 1, 4, rank, rank, l->kernel, l->kernel);
    const double *down = naive_tensor(f, stem, ".lora_down.weight", size, 4, rank, l->in, 1, 1);
    const double *up = naive_tensor(f, stem, ".lora_up.weight", 0.5, 4, l->out, rank, 1, 1);
    for (size_t o = 0; o < (size_t)l->out; o++)
        for (size_t p = 0; p < r; p++)
            for (size_t q = 0; q < r; q++)
                for (size_t i = 0; i < in; i++)
                    for (size_t t = 0; t < taps; t++)
                        d[(o * in + i) * taps + t] +=
                            s * up[o * r + p] * mid[(p * r + q) * taps + t] * down[q * in + i];
    drop(mid), drop(down), drop(up);
}

static inline void naive_loha(naive_file *f, const wf_layer *l, const char *stem, int rank, double *d)
{
    int64_t K = (int64_t)naive_columns(l);
    size_t  n = (size_t)l->out * (size_t)K, r = (size_t)rank, out = (size_t)l->out;
    double  s = naive_scale(f, stem, rank), *one = naive_zeros(n), *two = naive_zeros(n);
    const double *a1 = naive_tensor(f, stem, ".hada_w1_a", 0.5, 2, l->out, rank, 1, 1);
    const double *b1 = naive_tensor(f, stem, ".hada_w1_b", 0.5, 2, rank, K, 1, 1);
    const double *a2 = naive_tensor(f, stem, ".hada_w2_a", 0.5, 2, l->out, rank, 1, 1);
    const double *b2 = naive_tensor(f, stem, ".hada_w2_b", 0.5, 2, rank, K, 1, 1);
    naive_product(one, 1, a1, b1, out, r, (size_t)K);
    naive_product(two, 1, a2, b2, out, r, (size_t)K);
    for (size_t i = 0; i < n; i++) d[i] += s * one[i] * two[i];
    drop(a1), drop(b1), drop(a2), drop(b2), free(one), free(two);
}

/* Both factors whole: alpha counts for nothing. */
static inline void naive_lokr(naive_file *f, const wf_layer *l, const char *stem, double *d)
{
    size_t  o1 = 2, i1 = 2, o2 = (size_t)l->out / o1, i2 = (size_t)l->in / i1, in = (size_t)l->in;
    size_t  taps = (size_t)(l->kernel * l->kernel);
    double  size = 0.3 / sqrt((double)naive_columns(l));
    const double *w1 = naive_tensor(f, stem, ".lokr_w1", 1, 2, (int64_t)o1, (int64_t)i1, 1, 1);
    const double *w2 = naive_tensor(f, stem, ".lokr_w2", size, l->kernel > 1 ? 4 : 2, (int64_t)o2,
                                    (int64_t)i2, l->kernel, l->kernel);
    if (chance(f->random, 2)) naive_number(f, stem, ".alpha", 3);
    for (size_t a = 0; a < o1; a++)
        for (size_t b = 0; b < o2; b++)
            for (size_t c = 0; c < i1; c++)
                for (size_t e = 0; e < i2; e++)
                    for (size_t t = 0; t < taps; t++)
                        d[((a * o2 + b) * in + c * i2 + e) * taps + t] +=
                            w1[a * i1 + c] * w2[(b * i2 + e) * taps + t];
    drop(w1), drop(w2);
}

static inline void naive_full(naive_file *f, const wf_layer *l, const char *stem, double *d, double *bias)
{
    const double *w = naive_tensor(f, stem, ".diff", 0.3 / sqrt((double)naive_columns(l)),
                                   l->kind == WEFT_LAYER_CONV ? 4 : 2, l->out, l->in, l->kernel, l->kernel);
    const double *b = naive_tensor(f, stem, ".diff_b", 0.1, 1, l->out, 1, 1, 1);
    memcpy(d, w, (size_t)l->out * naive_columns(l) * sizeof *d);
    memcpy(bias, b, (size_t)l->out * sizeof *bias);
    drop(w), drop(b);
}

/* g (W + D) / |W + D| - W, row by row. */
static inline void naive_dora(naive_file *f, const wf_layer *l, const char *stem, int rank, const double *W,
                              double *d)
{
    size_t K = naive_columns(l);
    naive_lora(f, l, stem, rank, d);
    const double *drawn = naive_tensor(f, stem, ".dora_scale", 0.5, l->kind == WEFT_LAYER_CONV ? 4 : 2,
                                       l->out, 1, 1, 1);
    double       *g = (double *)(uintptr_t)drawn;
    float        *stored = (float *)(uintptr_t)f->tensor[f->count - 1].data;
    for (size_t o = 0; o < (size_t)l->out; o++) g[o] = stored[o] = fabsf(stored[o]) + 0.25f; /* a magnitude */
    for (size_t o = 0; o < (size_t)l->out; o++) {
        double norm = 0;
        for (size_t i = 0; i < K; i++) norm += pow(W[o * K + i] + d[o * K + i], 2);
        for (size_t i = 0; i < K; i++)
            d[o * K + i] = g[o] * (W[o * K + i] + d[o * K + i]) / sqrt(norm) - W[o * K + i];
    }
    free(g);
}

static inline void naive_ia3(naive_file *f, const wf_layer *l, const char *stem, const double *W, double *d)
{
    bool    input = chance(f->random, 2), conv = l->kind == WEFT_LAYER_CONV;
    size_t  K = naive_columns(l), taps = (size_t)(l->kernel * l->kernel);
    int64_t n = input ? l->in : l->out;
    const double *v = conv ? naive_tensor(f, stem, ".weight", 0.4, 4, 1, n, 1, 1)
                           : naive_tensor(f, stem, ".weight", 0.4, 1, n, 1, 1, 1);
    naive_number(f, stem, ".on_input", input ? 1 : 0);
    for (size_t o = 0; o < (size_t)l->out; o++)
        for (size_t i = 0; i < K; i++) d[o * K + i] = v[input ? i / taps : o] * W[o * K + i];
    drop(v);
}

/* Pairs of rows, turned: R = (I + Q)(I - Q)^-1 of Q = [[0 q] [-q 0]], W' = R^T W. */
static inline void naive_oft(naive_file *f, const wf_layer *l, const char *stem, const double *W, double *d)
{
    size_t K = naive_columns(l);
    const double *s = naive_tensor(f, stem, ".oft_blocks", 0.3, 3, l->out / 2, 2, 2, 1);
    for (size_t p = 0; p < (size_t)l->out / 2; p++) {
        double q = s[4 * p + 1] - s[4 * p + 2], cosine = (1 - q * q) / (1 + q * q), sine = 2 * q / (1 + q * q);
        for (size_t i = 0; i < K; i++) {
            double a = W[2 * p * K + i], b = W[(2 * p + 1) * K + i];
            d[2 * p * K + i] = cosine * a - sine * b - a;
            d[(2 * p + 1) * K + i] = sine * a + cosine * b - b;
        }
    }
    drop(s);
}

/* s (W A1 A2 + B1 B2), A1 A2 on the channels at every place of the kernel. */
static inline void naive_glora(naive_file *f, const wf_layer *l, const char *stem, int rank, const double *W,
                               double *d)
{
    size_t  in = (size_t)l->in, out = (size_t)l->out, r = (size_t)rank;
    double  s = naive_scale(f, stem, rank), size = 0.5 / sqrt((double)l->in), *mix = naive_zeros(in * in);
    const double *a1 = naive_tensor(f, stem, ".a1.weight", size, 2, l->in, rank, 1, 1);
    const double *a2 = naive_tensor(f, stem, ".a2.weight", 0.5, 2, rank, l->in, 1, 1);
    const double *b1 = naive_tensor(f, stem, ".b1.weight", 0.5, 2, l->out, rank, 1, 1);
    const double *b2 = naive_tensor(f, stem, ".b2.weight", size, 2, rank, l->in, 1, 1);
    naive_product(mix, 1, a1, a2, in, r, in);
    naive_product(d, s, W, mix, out, in, in);
    naive_product(d, s, b1, b2, out, r, in);
    drop(a1), drop(a2), drop(b1), drop(b2), free(mix);
}

static inline void naive_normalisation(naive_file *f, const wf_layer *l, const char *stem, double *d,
                                       double *bias)
{
    const double *w = naive_tensor(f, stem, ".w_norm", 0.2, 1, l->out, 1, 1, 1);
    const double *b = naive_tensor(f, stem, ".b_norm", 0.2, 1, l->out, 1, 1, 1);
    memcpy(d, w, (size_t)l->out * sizeof *d);
    memcpy(bias, b, (size_t)l->out * sizeof *bias);
    drop(w), drop(b);
}

/* ---- a whole adapter ------------------------------------------------------------------------- */

static inline void naive_module(naive_adapter *a, naive_file *f, const wf_layer *l, const char *stem,
                                int family, const double *W)
{
    double *d = naive_zeros((size_t)l->out * naive_columns(l)), *b = naive_zeros((size_t)l->out);
    int     rank = 1 + below(f->random, 3);
    bool    ranked = family == F_LORA || family == F_LOHA || family == F_DORA || family == F_GLORA ||
                  family == F_TUCKER;

    if (family == F_LORA) naive_lora(f, l, stem, rank, d);
    if (family == F_LOHA) naive_loha(f, l, stem, rank, d);
    if (family == F_LOKR) naive_lokr(f, l, stem, d);
    if (family == F_FULL) naive_full(f, l, stem, d, b);
    if (family == F_DORA) naive_dora(f, l, stem, rank, W, d);
    if (family == F_IA3) naive_ia3(f, l, stem, W, d);
    if (family == F_OFT) naive_oft(f, l, stem, W, d);
    if (family == F_GLORA) naive_glora(f, l, stem, rank, W, d);
    if (family == F_TUCKER) naive_tucker(f, l, stem, rank, d);
    if (family == F_NORM) naive_normalisation(f, l, stem, d, b);
    a->family[l->id] = family;
    a->rank[l->id] = ranked ? rank : 0;
    a->w[l->id] = d;
    a->b[l->id] = b;
}

/* A family that the layer can have: `only`, or any where that is -1. */
static inline int naive_pick(uint64_t *random, const wf_layer *l, int only)
{
    for (;;) {
        int family = only >= 0 ? only : below(random, FAMILIES);
        if (l->kind == WEFT_LAYER_NORM) return only < 0 || only == F_NORM ? F_NORM : -1;
        if (only == F_NORM) return -1;
        bool fits = family != F_NORM && (family != F_GLORA || l->kind == WEFT_LAYER_LINEAR) &&
                    (family != F_TUCKER || l->kernel == 3);
        if (fits) return family;
        if (only >= 0) return F_LORA;
    }
}

/* On one of `sparse` layers of the UNet, of one family or (-1) of any; LoRAs on a few text layers. */
static inline naive_adapter naive_make(const naive_net *net, const weft_model *model, const char *name,
                                       int only, int sparse, uint64_t seed)
{
    naive_adapter a = { .common = only == F_LORA };
    naive_file   *f = calloc(1, sizeof *f);
    f->random = &seed;
    a.family = calloc(net->count, sizeof *a.family);
    a.rank = calloc(net->count, sizeof *a.rank);
    a.w = calloc(net->count, sizeof *a.w);
    a.b = calloc(net->count, sizeof *a.b);
    for (size_t i = 0; i < net->count; i++) {
        const wf_layer *l = &net->layers[i];
        bool            text = l->component == WEFT_COMPONENT_TEXT_1;
        char            stem[512];
        a.family[i] = -1;
        if (!text && l->component != WEFT_COMPONENT_DENOISER) continue;
        if (text && (l->kind == WEFT_LAYER_NORM || !chance(&seed, 6))) continue;
        if (!chance(&seed, sparse) || !wf_name_kohya(model, l, stem, sizeof stem)) continue;
        int family = text ? F_LORA : naive_pick(&seed, l, only);
        if (family >= 0) naive_module(&a, f, l, stem, family, net->w[i]);
    }
    a.handle = naive_finish(f, name);
    return a;
}

static inline void naive_adapter_free(naive_adapter *a, size_t layers)
{
    for (size_t i = 0; i < layers; i++) free(a->w[i]), free(a->b[i]);
    free(a->w), free(a->b), free(a->family), free(a->rank);
    weft_adapter_free(a->handle);
}

#endif
