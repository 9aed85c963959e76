/* lowrank.c - the low-rank family: Delta W = scale * B A.
 *
 *   LoRA, LoCon   A "down" (r, in) or (r, in, k, k), B "up" (out, r) or (out, r, 1, 1)       scale = alpha / r
 *                 keys lora_down lora_up [alpha]; lora_A lora_B; lora.down lora.up
 *   Tucker        a core between them, "mid" (r, r, k, k), down (r, in, 1, 1)                keys .. lora_mid
 *   MoSLoRA       a mixer between them, (r, r): B M A                                        keys .. lora_AB
 *   AdaLoRA       a weight for each of the r triplets, E (r, 1): B diag(E) A                 keys .. lora_E
 *                 scale = alpha / (r0 + 1e-5), r0 the rank at the start of training
 *
 * What stands in the middle is folded into A when the factors are read, so all four are one pair of thin factors to
 * whoever computes. A triplet that AdaLoRA pruned has E = 0, or is left out, down to a rank of 0: it adds nothing. PEFT may give the up factor a bias,
 * which it scales like the product.
 *
 * Factors stay in the file's dtype, where they are mapped; whoever computes asks for them widened, in the order that
 * the networks use: channels last, so K = k * k * in runs over (ky, kx, in). A 1x1 convolution and a linear layer are
 * the same thing here, whichever of the two forms the file chose.
 *
 * Hu et al., LoRA, 2021; Yeh et al., LyCORIS, 2023; Wu et al., MoSLoRA, 2024; Zhang et al., AdaLoRA, 2023. */
#include "adapter/factor.h"
#include "tensor/gemm.h"

/* ---- what the shapes say ------------------------------------------------------------------------- */

static weft_status check_factors(const wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *A = m->part[WF_PART_DOWN], *B = m->part[WF_PART_UP];
    wf_shape_text    a, b;

    if (A->rank != 2 && A->rank != 4) return wf_module_misshapen(m, A, source, "(r, in) or (r, in, k, k)", err);
    if (B->rank != 2 && B->rank != 4) return wf_module_misshapen(m, B, source, "(out, r) or (out, r, 1, 1)", err);
    if (wf_factor_kernel(A) == 0) return wf_module_misshapen(m, A, source, "a square kernel", err);
    if (wf_factor_kernel(B) != 1) return wf_module_misshapen(m, B, source, "(out, r, 1, 1)", err);
    if (A->shape[0] != B->shape[1])
        return wf_module_fail(m, source, err, "up is %s but down is %s: ranks %d and %d differ",
                              wf_shape(&b, B->shape, B->rank), wf_shape(&a, A->shape, A->rank), (int32_t)B->shape[1],
                              (int32_t)A->shape[0]);
    return WEFT_OK;
}

/* What stands between the factors: at most one thing, of the right rank. */
static weft_status check_middle(const wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *mid = m->part[WF_PART_MID], *M = m->part[WF_PART_MIXER], *E = m->part[WF_PART_LORA_E];
    const wf_tensor *bias = m->part[WF_PART_UP_BIAS];

    if ((mid != NULL) + (M != NULL) + (E != NULL) > 1)
        return wf_module_fail(m, source, err, "of lora_mid, lora_AB and lora_E a module has one, not several");
    if (mid != NULL && (mid->rank != 4 || wf_factor_kernel(mid) == 0 || mid->shape[0] != m->rank ||
                        mid->shape[1] != m->rank))
        return wf_module_misshapen(m, mid, source, "(r, r, k, k) with the rank of its factors", err);
    if (mid != NULL && m->kernel != 1)
        return wf_module_misshapen(m, m->part[WF_PART_DOWN], source, "(r, in, 1, 1) beside lora_mid", err);
    if (M != NULL && (M->rank != 2 || M->shape[0] != m->rank || M->shape[1] != m->rank))
        return wf_module_misshapen(m, M, source, "(r, r) with the rank of its factors", err);
    if (E != NULL && (E->count != (size_t)m->rank || E->shape[0] != m->rank))
        return wf_module_misshapen(m, E, source, "(r, 1) with the rank of its factors", err);
    if (bias != NULL && (bias->rank != 1 || bias->shape[0] != m->out))
        return wf_module_misshapen(m, bias, source, "(out) as its up factor has it", err);
    return WEFT_OK;
}

/* AdaLoRA divides by the rank that training began with, and keeps clear of zero by adding a little to it. */
static void scale_of_adalora(wf_module *m)
{
    double r0 = m->init_rank > 0 ? (double)m->init_rank : m->rank > 0 ? (double)m->rank : 1;

    if (m->part[WF_PART_RANKNUM] != NULL && wf_tensor_scalar(m->part[WF_PART_RANKNUM]) > 0)
        r0 = wf_tensor_scalar(m->part[WF_PART_RANKNUM]);
    if (!m->has_alpha || !(m->alpha > 0)) m->alpha = (float)r0;
    m->scale = (float)(m->alpha / (r0 + 1e-5));
}

static weft_status shape(wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *A = m->part[WF_PART_DOWN], *B = m->part[WF_PART_UP], *mid = m->part[WF_PART_MID];

    WF_TRY(check_factors(m, source, err));
    m->rank = (int32_t)A->shape[0];
    m->in = (int32_t)A->shape[1];
    m->out = (int32_t)B->shape[0];
    m->kernel = wf_factor_kernel(A);
    if (m->in == 0 || m->out == 0) return wf_module_fail(m, source, err, "it has %d inputs and %d outputs", m->in, m->out);
    WF_TRY(check_middle(m, source, err));
    if (mid != NULL) m->kernel = wf_factor_kernel(mid);
    WF_TRY(wf_module_check_columns(m, source, err));
    if (m->part[WF_PART_LORA_E] != NULL) scale_of_adalora(m);
    else wf_module_set_scale(m, m->rank);
    return WEFT_OK;
}

/* ---- the factors ------------------------------------------------------------------------------------ */

/* down (r, K) becomes M down. */
static weft_status mix(const wf_module *m, size_t r, size_t K, float *down, const weft_allocator *alloc, weft_error *err)
{
    size_t floats = r * r + r * K; /* as many as two tensors of the file have */
    float *M = wf_zalloc(alloc, floats, sizeof *M);

    if (M == NULL) return wf_nomem(err, floats * sizeof *M, "a mixer");
    float *A = M + r * r;
    wf_tensor_read(m->part[WF_PART_MIXER], 0, r * r, M);
    memcpy(A, down, r * K * sizeof *A);
    wf_gemm_nn(down, K, M, r, A, K, r, K, r, 0);
    wf_free(alloc, M);
    return WEFT_OK;
}

/* down (r, K) becomes diag(E) down. */
static void weigh(const wf_tensor *E, size_t r, size_t K, float *down)
{
    for (size_t p = 0; p < r; p++) {
        float E_p;
        wf_tensor_read(E, p, 1, &E_p);
        for (size_t i = 0; i < K; i++) down[p * K + i] *= E_p;
    }
}

static weft_status read_down(const wf_module *m, const wf_layer *l, float *down, const weft_allocator *alloc,
                             weft_error *err)
{
    size_t     r = (size_t)m->rank;
    wf_columns c = wf_columns_at(m, l);

    if (m->part[WF_PART_MID] != NULL)
        return wf_tucker_fold(m->part[WF_PART_MID], m->part[WF_PART_DOWN], r, r, c.in, c.kk, down, alloc, err);
    wf_factor_rows(m->part[WF_PART_DOWN], r, c, down);
    if (m->part[WF_PART_LORA_E] != NULL) weigh(m->part[WF_PART_LORA_E], r, c.K, down);
    if (m->part[WF_PART_MIXER] != NULL) return mix(m, r, c.K, down, alloc, err);
    return WEFT_OK;
}

/* All triplets pruned: no pair, and the sum adds nothing. */
static int32_t form(const wf_module *m, const wf_layer *l)
{
    (void)l;
    return m->rank > 0 ? WF_FORM_PAIR : WF_FORM_DENSE;
}

static weft_status pair(const wf_module *m, const wf_layer *l, float *down, float *up, const weft_allocator *alloc,
                        weft_error *err)
{
    if (up != NULL) wf_tensor_transposed(m->part[WF_PART_UP], (size_t)m->out, (size_t)m->rank, up);
    return down == NULL ? WEFT_OK : read_down(m, l, down, alloc, err);
}

static weft_status add(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                       const weft_allocator *alloc, weft_error *err)
{
    size_t      r = (size_t)m->rank, out = (size_t)m->out, K = wf_module_columns(m), floats;
    weft_status st;

    if (r == 0) return WEFT_OK;
    if (!wf_mul(r, K, &floats) || !wf_add(floats, r * out, &floats))
        return wf_fail(err, WEFT_E_ARG, "%s: the factors are too large", m->key);
    float *down = wf_zalloc(alloc, floats, sizeof *down), *up = down + r * K;
    if (down == NULL) return wf_nomem(err, floats * sizeof *down, "an adapter's factors");
    if ((st = read_down(m, l, down, alloc, err)) != WEFT_OK) goto done;
    wf_tensor_read(m->part[WF_PART_UP], 0, r * out, up);
    for (size_t i = 0; i < r * out; i++) up[i] = (float)(scale * c * up[i]);
    wf_gemm_nn(dst, K, up, r, down, K, out, K, r, 1);
done:
    wf_free(alloc, down);
    return st;
}

static bool add_bias(const wf_module *m, const wf_layer *l, double scale, double c, float *dst)
{
    const wf_tensor *t = m->part[WF_PART_UP_BIAS];

    (void)l;
    if (t != NULL && dst != NULL) wf_tensor_add(t, scale * c, dst);
    return t != NULL;
}

const wf_family wf_family_lora = {
    .name = "lora",
    .title = "LoRA",
    .needs = WF_BIT(WF_PART_DOWN) | WF_BIT(WF_PART_UP),
    .may = WF_BIT(WF_PART_MID) | WF_BIT(WF_PART_MIXER) | WF_BIT(WF_PART_LORA_E) | WF_BIT(WF_PART_RANKNUM) |
           WF_BIT(WF_PART_UP_BIAS),
    .shape = shape,
    .fits = wf_fits_columns,
    .form = form,
    .pair = pair,
    .add = add,
    .add_bias = add_bias,
};
