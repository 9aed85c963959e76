/* form_lokr.c - LoKr: the Kronecker product of a small matrix and a large one, W + s W1 (x) W2.
 *
 * The layer's outputs are cut into o1 * o2 and its inputs into i1 * i2, the smaller factors first:
 * by `factor` where that divides them, else as near to a square as it allows (-1: as any). W1
 * (o1, i1) stands whole; W2 (o2, i2[, k, k]) is a product of two thin matrices where the rank is
 * under half of its larger side, as in LyCORIS and PEFT. `both` treats W1 so too.
 *
 *   W'[a o2 + b, k, c i2 + d] = W[..] + s W1[a, c] W2[b, k, d]
 *
 * so dW1[a, c] is the sum of G over the block times W2, and dW2 that of the blocks times W1: one
 * walk over G. With both factors whole there is no rank to divide alpha by: s is 1, as LyCORIS
 * reads such files.
 *
 * W1 begins as zero (of a product, its first), the rest as PEFT draws it; `gaussian` is LyCORIS'
 * way, in which W2 is the zero.
 *
 * Yeh et al., LyCORIS, 2024; Edalati et al., KronA, 2022. */
#include <math.h>

#include "tensor/gemm.h"
#include "train/form.h"

enum { O1, I1, O2, I2, THIN_1, THIN_2 }; /* of site.shape; THIN: W1, W2 is a product */

/* ---- the cut --------------------------------------------------------------------------------- */

/* dimension = one * other with one <= other, but for a factor that says otherwise. */
static void cut(int32_t dimension, int32_t factor, int32_t *one, int32_t *other)
{
    *one = 1;
    if (factor > 0 && dimension % factor == 0) {
        *one = factor;
    } else {
        for (int32_t i = 2; (int64_t)i * i <= dimension && (factor < 0 || i <= factor); i++)
            if (dimension % i == 0) *one = i;
    }
    *other = dimension / *one;
}

static void add_tensor(wf_site *s, const char *name, int32_t rows, int32_t columns)
{
    s->tensor[s->tensors++] = (wf_form_tensor){ name, (size_t)rows, (size_t)columns, false };
}

static bool shape(wf_site *s, const wf_form_choice *c)
{
    int32_t *n = s->shape, taps;

    if (s->layer->kind == WEFT_LAYER_NORM) return false;
    taps = (int32_t)wf_site_taps(s);
    cut(s->layer->out, c->factor, &n[O1], &n[O2]);
    cut(s->layer->in, c->factor, &n[I1], &n[I2]);
    n[THIN_1] = c->both && 2 * (int64_t)c->rank < WF_MAX(n[O1], n[I1]);
    n[THIN_2] = 2 * (int64_t)c->rank < WF_MAX(n[O2], n[I2]);
    s->rank = c->rank;
    s->alpha = c->alpha != 0 ? c->alpha : (float)c->rank;
    s->scale = n[THIN_1] || n[THIN_2] ? s->alpha / (float)s->rank : 1;
    s->tensors = 0;
    if (n[THIN_1]) add_tensor(s, "w1_a", n[O1], s->rank);
    if (n[THIN_1]) add_tensor(s, "w1_b", s->rank, n[I1]);
    if (!n[THIN_1]) add_tensor(s, "w1", n[O1], n[I1]);
    if (n[THIN_2]) add_tensor(s, "w2_a", n[O2], s->rank);
    if (n[THIN_2]) add_tensor(s, "w2_b", s->rank, taps * n[I2]);
    if (!n[THIN_2]) add_tensor(s, "w2", n[O2], taps * n[I2]);
    return true;
}

/* One of the two factors: whole at value[first], or a product of it and the next. */
typedef struct factor {
    int32_t first;
    bool    thin;
    size_t  rows, columns;
    float  *whole; /* the value itself, or what the product is put into */
    float  *grad;  /* likewise                                          */
} factor;

typedef struct factors {
    factor w1, w2;
} factors;

static size_t own(const wf_site *s)
{
    size_t one = (size_t)s->shape[O1] * (size_t)s->shape[I1];
    return 2 * (one + (size_t)s->shape[O2] * (size_t)s->shape[I2] * wf_site_taps(s));
}

static factor factor_of(const wf_site *s, int32_t first, bool thin, size_t rows, size_t columns,
                        float *room)
{
    factor f = { first, thin, rows, columns, room, room + rows * columns };

    if (!thin) f.whole = s->value[first];
    if (!thin) f.grad = s->grad[first];
    return f;
}

static factors factors_of(const wf_site *s)
{
    size_t o1 = (size_t)s->shape[O1], i1 = (size_t)s->shape[I1], o2 = (size_t)s->shape[O2],
           K2 = (size_t)s->shape[I2] * wf_site_taps(s);
    bool   thin_1 = s->shape[THIN_1] != 0, thin_2 = s->shape[THIN_2] != 0;

    return (factors){ factor_of(s, 0, thin_1, o1, i1, s->own),
                      factor_of(s, thin_1 ? 2 : 1, thin_2, o2, K2, s->own + 2 * o1 * i1) };
}

/* ---- the beginning --------------------------------------------------------------------------- */

static void draw(float *v, size_t rows, size_t columns, bool zero, wf_mersenne *g)
{
    float bound = 1 / sqrtf((float)columns);
    for (size_t i = 0; i < rows * columns; i++) v[i] = zero ? 0 : wf_draw_uniform(g, bound);
}

static void begin_factor(const wf_site *s, const factor *f, bool zero, bool zero_last,
                         wf_mersenne *g)
{
    size_t r = (size_t)s->rank;

    if (!f->thin) {
        draw(s->value[f->first], f->rows, f->columns, zero, g);
        return;
    }
    draw(s->value[f->first], f->rows, r, zero && !zero_last, g);
    draw(s->value[f->first + 1], r, f->columns, zero && zero_last, g);
}

static void begin(const wf_site *s, const wf_form_choice *c, wf_mersenne *g)
{
    factors f = factors_of(s);

    begin_factor(s, &f.w1, !c->gaussian, false, g);
    begin_factor(s, &f.w2, c->gaussian, true, g);
}

/* ---- there and back -------------------------------------------------------------------------- */

static void multiply(const wf_site *s, const factor *f)
{
    size_t r = (size_t)s->rank;

    if (f->thin)
        wf_gemm_nn(f->whole, f->columns, s->value[f->first], r, s->value[f->first + 1], f->columns,
                   f->rows, f->columns, r, 0);
}

static void make(const wf_site *s, const wf_form_choice *choice)
{
    factors f = factors_of(s);
    size_t  o1 = f.w1.rows, i1 = f.w1.columns, o2 = f.w2.rows, taps = wf_site_taps(s),
            i2 = f.w2.columns / taps;

    (void)choice;
    multiply(s, &f.w1);
    multiply(s, &f.w2);
    for (size_t row = 0; row < o1 * o2 * taps; row++) {
        size_t       a = row / taps / o2, b = row / taps % o2;
        const float *w2 = f.w2.whole + (b * taps + row % taps) * i2;
        for (size_t c = 0; c < i1; c++) {
            float        v = s->scale * f.w1.whole[a * i1 + c];
            const float *from = s->base + (row * i1 + c) * i2;
            float       *to = s->weight + (row * i1 + c) * i2;
            for (size_t d = 0; d < i2; d++) to[d] = from[d] + v * w2[d];
        }
    }
}

/* dW1 and dW2 += those of G; the sums of W1 in double, row by row of W2. */
static void pull_product(const wf_site *s, const factors *f)
{
    size_t o1 = f->w1.rows, i1 = f->w1.columns, o2 = f->w2.rows, taps = wf_site_taps(s),
           i2 = f->w2.columns / taps;

    for (size_t at = 0; at < o1 * i1; at++) {
        size_t a = at / i1, c = at % i1;
        float  v = s->scale * f->w1.whole[at];
        double sum = 0;
        for (size_t row = 0; row < o2 * taps; row++) {
            const float *G = s->g_weight + ((a * o2 * taps + row) * i1 + c) * i2;
            const float *w2 = f->w2.whole + row * i2;
            float       *g2 = f->w2.grad + row * i2, part = 0;
            for (size_t d = 0; d < i2; d++) {
                part += G[d] * w2[d];
                g2[d] += v * G[d];
            }
            sum += part;
        }
        f->w1.grad[at] += (float)(s->scale * sum);
    }
}

static void pull_factor(const wf_site *s, const factor *f)
{
    size_t r = (size_t)s->rank, n = f->columns;
    float *a = s->value[f->first];

    if (!f->thin) return;
    wf_gemm_nt(s->grad[f->first], r, f->grad, n, s->value[f->first + 1], n, f->rows, r, n, 1);
    wf_gemm_tn(s->grad[f->first + 1], n, a, r, f->grad, n, r, n, f->rows, 1);
}

static void pull(const wf_site *s, const wf_form_choice *c)
{
    factors f = factors_of(s);

    (void)c;
    if (f.w1.thin) memset(f.w1.grad, 0, f.w1.rows * f.w1.columns * sizeof(float));
    if (f.w2.thin) memset(f.w2.grad, 0, f.w2.rows * f.w2.columns * sizeof(float));
    pull_product(s, &f);
    pull_factor(s, &f.w1);
    pull_factor(s, &f.w2);
}

static int32_t write(const wf_site *s, int32_t dialect, wf_bag *bag, wf_form_out *out)
{
    factors f = factors_of(s);
    size_t  r = (size_t)s->rank, taps = wf_site_taps(s), i2 = f.w2.columns / taps;
    wf_outs o = { bag, out, 0 };

    if (dialect == WEFT_DIALECT_DIFFUSERS) return 0;
    wf_out_matrix(&o, f.w1.thin ? "lokr_w1_a" : "lokr_w1", s->value[0], f.w1.rows,
                  f.w1.thin ? r : f.w1.columns);
    if (f.w1.thin) wf_out_matrix(&o, "lokr_w1_b", s->value[1], r, f.w1.columns);
    if (f.w2.thin) {
        wf_out_matrix(&o, "lokr_w2_a", s->value[f.w2.first], f.w2.rows, r);
        wf_out_flat(&o, "lokr_w2_b", s->value[f.w2.first + 1], r, taps, i2);
    } else {
        wf_out_inner(&o, s, "lokr_w2", s->value[f.w2.first], f.w2.rows, i2);
    }
    if (dialect == WEFT_DIALECT_KOHYA) wf_out_number(&o, "alpha", s->alpha);
    return o.count;
}

const wf_form wf_form_lokr = {
    .name = "lokr",
    .reads = WF_READS_WEIGHT,
    .base = true,
    .shape = shape,
    .own = own,
    .begin = begin,
    .make = make,
    .pull = pull,
    .write = write,
};
