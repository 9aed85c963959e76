/* form_moslora.c - MoSLoRA: a pair with a small matrix between its factors, B M A.
 *
 * M mixes the r subspaces that a plain pair keeps apart. The network reads the pair (M A, B), so a
 * step costs what LoRA's costs, and files have it folded in: every program reads them.
 *
 * With B = 0 nothing moves but B, so M must not begin as zero too: the authors' program draws it as
 * A. dM = g A^T and dA = M^T g, with g the gradient of M A.
 *
 * Wu et al., Mixture-of-Subspaces in Low-Rank Adaptation, 2024. */
#include <math.h>

#include "tensor/gemm.h"
#include "train/form.h"

enum { A, B, MIXER };

static bool shape(wf_site *s, const wf_form_choice *c)
{
    if (!wf_pair_shape(s, c)) return false;
    s->tensor[MIXER] = (wf_form_tensor){ "mixer", (size_t)s->rank, (size_t)s->rank, false };
    s->tensors = 3;
    return true;
}

static void begin(const wf_site *s, const wf_form_choice *c, wf_mersenne *g)
{
    size_t n = (size_t)s->rank * (size_t)s->rank;

    wf_pair_begin(s, c, g);
    for (size_t i = 0; i < n; i++)
        s->value[MIXER][i] = wf_draw_uniform(g, 1 / sqrtf((float)s->rank));
}

static void mix(const wf_site *s, float *down)
{
    size_t r = (size_t)s->rank;
    wf_gemm_nn(down, s->K, s->value[MIXER], r, s->value[A], s->K, r, s->K, r, 0);
}

static void make(const wf_site *s, const wf_form_choice *c)
{
    (void)c;
    mix(s, s->down);
    memcpy(s->up, s->value[B], (size_t)s->rank * s->out * sizeof *s->up);
}

static void pull(const wf_site *s, const wf_form_choice *c)
{
    size_t r = (size_t)s->rank, K = s->K;

    (void)c;
    for (size_t i = 0; i < r * s->out; i++) s->grad[B][i] += s->g_up[i];
    wf_gemm_nt(s->grad[MIXER], r, s->g_down, K, s->value[A], K, r, r, K, 1);
    wf_gemm_tn(s->grad[A], K, s->value[MIXER], r, s->g_down, K, r, K, r, 1);
}

static int32_t write(const wf_site *s, int32_t dialect, wf_bag *bag, wf_form_out *out)
{
    float  *down = wf_bag_take(bag, (size_t)s->rank * s->K, sizeof *down);
    wf_outs o = { bag, out, 0 };

    if (down == NULL) return -1;
    mix(s, down);
    wf_pair_write(s, dialect == WEFT_DIALECT_KOHYA, down, s->value[B], &o);
    return o.count;
}

const wf_form wf_form_moslora = {
    .name = "moslora",
    .reads = WF_READS_PAIR,
    .shape = shape,
    .begin = begin,
    .make = make,
    .pull = pull,
    .write = write,
};
