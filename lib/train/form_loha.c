/* form_loha.c - LoHa: two pairs, multiplied element by element, W + s (W1a W1b) . (W2a W2b).
 *
 * With twice the numbers of a pair the difference has a rank of up to r^2. One of the four factors
 * begins as zero, so the difference does. PEFT draws the others uniformly (and W2b is the zero);
 * `gaussian` is LyCORIS' way: W1a zero, W1b and W2b N(0, 1), W2a N(0, 0.01).
 *
 * With G the weight's gradient, P1 and P2 the two products, those of the first pair are
 *
 *   X = s G . P2      dW1a = X W1b^T      dW1b = W1a^T X
 *
 * The products are made again on the way back, strip by strip: keeping them would take twice the
 * memory of the layer's weight. Convolutions have their columns flat, as PEFT's default and
 * LyCORIS' without a Tucker core.
 *
 * Hyeon-Woo et al., FedPara, 2022; Yeh et al., LyCORIS, 2024. */
#include <math.h>

#include "tensor/gemm.h"
#include "train/form.h"

enum { STRIP = 32 };
enum { W1A, W1B, W2A, W2B };

static bool shape(wf_site *s, const wf_form_choice *c)
{
    if (s->layer->kind == WEFT_LAYER_NORM) return false;
    wf_site_rank(s, c);
    size_t r = (size_t)s->rank;
    s->tensor[W1A] = (wf_form_tensor){ "w1_a", s->out, r, false };
    s->tensor[W1B] = (wf_form_tensor){ "w1_b", r, s->K, false };
    s->tensor[W2A] = (wf_form_tensor){ "w2_a", s->out, r, false };
    s->tensor[W2B] = (wf_form_tensor){ "w2_b", r, s->K, false };
    s->tensors = 4;
    return true;
}

static size_t own(const wf_site *s)
{
    return 2 * WF_MIN((size_t)STRIP, s->out) * s->K;
}

static void begin(const wf_site *s, const wf_form_choice *c, wf_mersenne *g)
{
    size_t r = (size_t)s->rank, a = s->out * r, b = r * s->K;
    float  thin = 1 / sqrtf((float)r), wide = 1 / sqrtf((float)s->K);

    for (size_t i = 0; i < a; i++) s->value[W1A][i] = c->gaussian ? 0 : wf_draw_uniform(g, thin);
    for (size_t i = 0; i < b; i++)
        s->value[W1B][i] = c->gaussian ? wf_draw_normal(g) : wf_draw_uniform(g, wide);
    for (size_t i = 0; i < a; i++)
        s->value[W2A][i] = c->gaussian ? 0.1f * wf_draw_normal(g) : wf_draw_uniform(g, thin);
    for (size_t i = 0; i < b; i++) s->value[W2B][i] = c->gaussian ? wf_draw_normal(g) : 0;
}

/* P1 and P2 (n, K) of rows [o, o + n). */
static void multiply(const wf_site *s, size_t o, size_t n, float *P1, float *P2)
{
    size_t r = (size_t)s->rank, K = s->K;

    wf_gemm_nn(P1, K, s->value[W1A] + o * r, r, s->value[W1B], K, n, K, r, 0);
    wf_gemm_nn(P2, K, s->value[W2A] + o * r, r, s->value[W2B], K, n, K, r, 0);
}

static void make(const wf_site *s, const wf_form_choice *c)
{
    (void)c;
    for (size_t o = 0; o < s->out; o += STRIP) {
        size_t       n = WF_MIN((size_t)STRIP, s->out - o), count = n * s->K;
        const float *W = s->base + o * s->K;
        float       *P1 = s->own, *P2 = s->own + count, *to = s->weight + o * s->K;

        multiply(s, o, n, P1, P2);
        for (size_t i = 0; i < count; i++) to[i] = W[i] + s->scale * (P1[i] * P2[i]);
    }
}

static void pull_pair(const wf_site *s, int32_t a, int32_t b, const float *X, size_t o, size_t n)
{
    size_t r = (size_t)s->rank, K = s->K;

    wf_gemm_nt(s->grad[a] + o * r, r, X, K, s->value[b], K, n, r, K, 1);
    wf_gemm_tn(s->grad[b], K, s->value[a] + o * r, r, X, K, r, K, n, 1);
}

static void pull(const wf_site *s, const wf_form_choice *c)
{
    (void)c;
    for (size_t o = 0; o < s->out; o += STRIP) {
        size_t       n = WF_MIN((size_t)STRIP, s->out - o), count = n * s->K;
        const float *G = s->g_weight + o * s->K;
        float       *P1 = s->own, *P2 = s->own + count;

        multiply(s, o, n, P1, P2);
        for (size_t i = 0; i < count; i++) {
            float X2 = s->scale * G[i] * P1[i];
            P1[i] = s->scale * G[i] * P2[i];
            P2[i] = X2;
        }
        pull_pair(s, W1A, W1B, P1, o, n);
        pull_pair(s, W2A, W2B, P2, o, n);
    }
}

static int32_t write(const wf_site *s, int32_t dialect, wf_bag *bag, wf_form_out *out)
{
    static const char *const a[] = { "hada_w1_a", "hada_w2_a" }, *const b[] = { "hada_w1_b",
                                                                                "hada_w2_b" };
    size_t  r = (size_t)s->rank, taps = wf_site_taps(s);
    wf_outs o = { bag, out, 0 };

    if (dialect == WEFT_DIALECT_DIFFUSERS) return 0;
    for (int32_t i = 0; i < 2; i++) {
        wf_out_matrix(&o, a[i], s->value[2 * i], s->out, r);
        wf_out_flat(&o, b[i], s->value[2 * i + 1], r, taps, s->K / taps);
    }
    if (dialect == WEFT_DIALECT_KOHYA) wf_out_number(&o, "alpha", s->alpha);
    return o.count;
}

const wf_form wf_form_loha = {
    .name = "loha",
    .reads = WF_READS_WEIGHT,
    .base = true,
    .shape = shape,
    .own = own,
    .begin = begin,
    .make = make,
    .pull = pull,
    .write = write,
};
