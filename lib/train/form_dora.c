/* form_dora.c - DoRA: a pair says where each row of the weight points, a number how long it is.
 *
 *   V = W + s B A      W'_j = g_j V_j / |V_j|      g begins as |W_j|, so W' as W
 *
 * Going back, the paper (its section 4.3) and PEFT take |V_j| for a constant, which leaves out a
 * weight-sized term and costs them no accuracy. With f_j = g_j / |V_j| and G the gradient of W':
 *
 *   dB = s f G A^T      dA = s (f B)^T G      dg_j = G_j V_j / |V_j|
 *
 * `exact_norm` goes through the norm too: G - c V in place of G, c_j = G_j V_j / |V_j|^2. V is not
 * kept: its products with thin matrices are those of W, B and A.
 *
 * Liu et al., DoRA: Weight-Decomposed Low-Rank Adaptation, 2024. */
#include <math.h>

#include "tensor/gemm.h"
#include "train/form.h"

/* Rows of the weight at a time: they stay in the cache while three things are done to them. */
enum { STRIP = 32 };
enum { A, B, LENGTHS };

static bool shape(wf_site *s, const wf_form_choice *c)
{
    if (!wf_pair_shape(s, c)) return false;
    s->tensor[LENGTHS] = (wf_form_tensor){ "lengths", 1, s->out, true };
    s->tensors = 3;
    return true;
}

/* What make() leaves, and what pull() works with. */
typedef struct room {
    float *inverse; /* (out) 1 / |V_j|, 0 for a row of zeros                     */
    float *up;      /* (r, out) s B, or s f B                                    */
    float *T;       /* (out, r) G A^T                                            */
    float *c;       /* (r, out) s f c B                                          */
    float *U;       /* (out, r) W A^T                                            */
    float *square;  /* (r, r)                                                    */
} room;

static room room_of(const wf_site *s)
{
    size_t n = s->out * (size_t)s->rank;
    float *up = s->own + s->out;

    return (room){ s->own, up, up + n, up + 2 * n, up + 3 * n, up + 4 * n };
}

static size_t own(const wf_site *s)
{
    size_t r = (size_t)s->rank;
    return s->out + 4 * s->out * r + r * r;
}

static double dot(const float *a, const float *b, size_t n)
{
    double sum[4] = { 0 };
    size_t i = 0;

    for (; i + 4 <= n; i += 4)
        for (size_t k = 0; k < 4; k++) sum[k] += (double)a[i + k] * b[i + k];
    for (; i < n; i++) sum[0] += (double)a[i] * b[i];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static void begin(const wf_site *s, const wf_form_choice *c, wf_mersenne *g)
{
    wf_pair_begin(s, c, g);
    for (size_t j = 0; j < s->out; j++) {
        const float *W_j = s->base + j * s->K;
        s->value[LENGTHS][j] = (float)sqrt(dot(W_j, W_j, s->K));
    }
}

static void make(const wf_site *s, const wf_form_choice *choice)
{
    size_t r = (size_t)s->rank, K = s->K;
    room   m = room_of(s);

    (void)choice;
    for (size_t i = 0; i < r * s->out; i++) m.up[i] = s->scale * s->value[B][i];
    for (size_t o = 0; o < s->out; o += STRIP) {
        size_t n = WF_MIN((size_t)STRIP, s->out - o);
        float *V = s->weight + o * K;
        memcpy(V, s->base + o * K, n * K * sizeof *V);
        wf_gemm_tn(V, K, m.up + o, s->out, s->value[A], K, n, K, r, 1);
        for (size_t j = 0; j < n; j++) {
            float *V_j = V + j * K, length = (float)sqrt(dot(V_j, V_j, K));
            /* In this order, so that an untouched row has the factor 1 to the bit. */
            float f = length > 0 ? s->value[LENGTHS][o + j] / length : 0;
            m.inverse[o + j] = length > 0 ? 1 / length : 0;
            for (size_t i = 0; i < K; i++) V_j[i] *= f;
        }
    }
}

/* What going through the norm takes away: s f c B for every c, from both factors' gradients. */
static void pull_norm(const wf_site *s, const room *m)
{
    size_t       r = (size_t)s->rank, out = s->out, K = s->K;
    const float *down = s->value[A], *up = s->value[B];

    wf_gemm_nt(m->U, r, s->base, K, down, K, out, r, K, 0);
    wf_gemm_nt(m->square, r, down, K, down, K, r, r, K, 0);
    for (size_t j = 0; j < out; j++)
        for (size_t p = 0; p < r; p++) {
            double VA = m->U[j * r + p]; /* V_j A_p */
            for (size_t q = 0; q < r; q++)
                VA += (double)s->scale * up[q * out + j] * m->square[q * r + p];
            /* c holds c_j f_j s in all its rows until here */
            s->grad[B][p * out + j] -= (float)(m->c[p * out + j] * VA);
        }
    for (size_t i = 0; i < r * out; i++) m->c[i] *= -up[i];
    wf_gemm_nn(s->grad[A], K, m->c, out, s->base, K, r, K, out, 1);
    wf_gemm_nt(m->square, r, m->c, out, up, out, r, r, out, 0);
    for (size_t i = 0; i < r * r; i++) m->square[i] *= s->scale;
    wf_gemm_nn(s->grad[A], K, m->square, r, down, K, r, K, r, 1);
}

static void pull(const wf_site *s, const wf_form_choice *choice)
{
    size_t       r = (size_t)s->rank, out = s->out, K = s->K;
    const float *G = s->g_weight, *up = s->value[B];
    room         m = room_of(s);

    wf_gemm_nt(m.T, r, G, K, s->value[A], K, out, r, K, 0);
    for (size_t j = 0; j < out; j++) {
        const float *T_j = m.T + j * r;
        float        f = s->value[LENGTHS][j] * m.inverse[j];
        double       GV = dot(G + j * K, s->base + j * K, K);

        for (size_t p = 0; p < r; p++) {
            size_t at = p * out + j;
            GV += (double)s->scale * up[at] * T_j[p];
            s->grad[B][at] += s->scale * f * T_j[p];
            m.up[at] = s->scale * f * up[at];
        }
        s->grad[LENGTHS][j] += (float)(GV * m.inverse[j]);
        for (size_t p = 0; p < r; p++)
            m.c[p * out + j] = (float)(GV * m.inverse[j] * m.inverse[j] * f * s->scale);
    }
    wf_gemm_nn(s->grad[A], K, m.up, out, G, K, r, K, out, 1);
    if (choice->exact_norm) pull_norm(s, &m);
}

static int32_t write(const wf_site *s, int32_t dialect, wf_bag *bag, wf_form_out *out)
{
    bool    kohya = dialect == WEFT_DIALECT_KOHYA;
    wf_outs o = { bag, out, 0 };

    wf_pair_write(s, kohya, s->value[A], s->value[B], &o);
    wf_out_rows(&o, s, kohya ? "dora_scale" : "lora_magnitude_vector", s->value[LENGTHS], kohya);
    return o.count;
}

const wf_form wf_form_dora = {
    .name = "dora",
    .reads = WF_READS_WEIGHT,
    .base = true,
    .shape = shape,
    .own = own,
    .begin = begin,
    .make = make,
    .pull = pull,
    .write = write,
};
