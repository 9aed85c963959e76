/* lowrank.c - the low-rank family: Delta W = scale * B A.
 *
 *   LoRA, LoCon   A "down" (r, in) or (r, in, k, k), B "up" (out, r) or (out, r, 1, 1)       scale
 * = alpha / r keys lora_down lora_up [alpha]; lora_A lora_B; lora.down lora.up Tucker        a core
 * between them, "mid" (r, r, k, k), down (r, in, 1, 1)                keys .. lora_mid MoSLoRA a
 * mixer between them, (r, r): B M A                                        keys .. lora_AB AdaLoRA
 * a weight for each of the r triplets, E (r, 1): B diag(E) A                 keys .. lora_E scale =
 * alpha / (r0 + 1e-5), r0 the rank at the start of training
 *
 *   PiSSA, OLoRA  the base lacks a part P of itself beside the factors (initial.c), as their
 * configuration says: Delta W = scale * B A - P, a pair of twice the rank
 *
 * What stands in the middle is folded into A when the factors are read, so all four are one pair of
 * thin factors to whoever computes. A triplet that AdaLoRA pruned has E = 0, or is left out, down
 * to a rank of 0: it adds nothing. PEFT may give the up factor a bias, which it scales like the
 * product.
 *
 * Factors stay in the file's dtype, where they are mapped; whoever computes asks for them widened,
 * in the order that the networks use: channels last, so K = k * k * in runs over (ky, kx, in). A
 * 1x1 convolution and a linear layer are the same thing here, whichever of the two forms the file
 * chose.
 *
 * Hu et al., LoRA, 2021; Yeh et al., LyCORIS, 2023; Wu et al., MoSLoRA, 2024; Zhang et al.,
 * AdaLoRA, 2023. */
#include "adapter/factor.h"
#include "adapter/initial.h"
#include "adapter/save.h"
#include "tensor/gemm.h"

/* Also of another family's module that is written as LoRA. */
static int32_t initial_of(const wf_module *m)
{
    const wf_lora *extra = m->family == &wf_family_lora ? m->extra : NULL;
    return extra != NULL ? extra->initial : WF_INITIAL_NONE;
}

static bool reads_weight(const wf_module *m)
{
    return initial_of(m) != WF_INITIAL_NONE;
}

static weft_status settle(wf_module *m, const wf_settings *s, const wf_config *config,
                          const char *path, weft_error *err)
{
    ((wf_lora *)m->extra)->initial = s->initial;
    return wf_settle_start_rank(m, s, config, path, err);
}

/* ---- what the shapes say --------------------------------------------------------------------- */

static weft_status check_factors(const wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *A = m->tensor[WF_TENSOR_DOWN], *B = m->tensor[WF_TENSOR_UP];
    wf_shape_text    a, b;

    if (A->rank != 2 && A->rank != 4)
        return wf_module_wrong_shape(A, source, "(r, in) or (r, in, k, k)", err);
    if (B->rank != 2 && B->rank != 4)
        return wf_module_wrong_shape(B, source, "(out, r) or (out, r, 1, 1)", err);
    if (wf_factor_kernel(A) == 0) return wf_module_wrong_shape(A, source, "a square kernel", err);
    if (wf_factor_kernel(B) != 1) return wf_module_wrong_shape(B, source, "(out, r, 1, 1)", err);
    if (A->shape[0] != B->shape[1])
        return wf_module_fail(m, source, err, "up is %s but down is %s: ranks %d and %d differ",
                              wf_shape(&b, B->shape, B->rank), wf_shape(&a, A->shape, A->rank),
                              (int32_t)B->shape[1],
                              (int32_t)A->shape[0]);
    return WEFT_OK;
}

/* What stands between the factors: at most one thing, of the right rank. */
static weft_status check_middle(const wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *mid = m->tensor[WF_TENSOR_MID], *M = m->tensor[WF_TENSOR_MIXER],
                    *E = m->tensor[WF_TENSOR_LORA_E];
    const wf_tensor *bias = m->tensor[WF_TENSOR_UP_BIAS];

    if ((mid != NULL) + (M != NULL) + (E != NULL) > 1)
        return wf_module_fail(m, source, err,
                              "of lora_mid, lora_AB and lora_E a module has one, not several");
    if (mid != NULL && (mid->rank != 4 || wf_factor_kernel(mid) == 0 || mid->shape[0] != m->rank ||
                        mid->shape[1] != m->rank))
        return wf_module_wrong_shape(mid, source, "(r, r, k, k) with the rank of its factors", err);
    if (mid != NULL && m->kernel != 1)
        return wf_module_wrong_shape(m->tensor[WF_TENSOR_DOWN], source,
                                     "(r, in, 1, 1) beside lora_mid", err);
    if (M != NULL && (M->rank != 2 || M->shape[0] != m->rank || M->shape[1] != m->rank))
        return wf_module_wrong_shape(M, source, "(r, r) with the rank of its factors", err);
    if (E != NULL && (E->count != (size_t)m->rank || E->shape[0] != m->rank))
        return wf_module_wrong_shape(E, source, "(r, 1) with the rank of its factors", err);
    if (bias != NULL && (bias->rank != 1 || bias->shape[0] != m->out))
        return wf_module_wrong_shape(bias, source, "(out) as its up factor has it", err);
    return WEFT_OK;
}

/* PEFT has such bases of plain pairs beside linear layers alone. A P of the file's own strength is
 * divided by its scale again. */
static weft_status check_initial(const wf_module *m, const char *source, weft_error *err)
{
    if (initial_of(m) == WF_INITIAL_NONE) return WEFT_OK;
    if (m->tensor[WF_TENSOR_DOWN]->rank != 2 || m->tensor[WF_TENSOR_MID] != NULL ||
        m->tensor[WF_TENSOR_MIXER] != NULL || m->tensor[WF_TENSOR_LORA_E] != NULL)
        return wf_module_fail(m, source, err,
                              "the configuration takes a part out of the base's weight, which is "
                              "for plain pairs of linear layers");
    if (m->rank > WF_MIN(m->in, m->out))
        return wf_module_fail(m, source, err,
                              "the configuration takes a part of rank %d out of a weight of "
                              "%d x %d", m->rank, m->out, m->in);
    if (initial_of(m) == WF_INITIAL_TOP && !(m->scale > 0))
        return wf_module_fail(m, source, err, "PiSSA with a scale that is not above zero");
    return WEFT_OK;
}

/* AdaLoRA divides by the rank that training began with, and keeps clear of zero by adding a little
 * to it. */
static void scale_of_adalora(wf_module *m)
{
    int32_t start = wf_start_rank_of(m);
    double  r0 = start > 0 ? (double)start : m->rank > 0 ? (double)m->rank : 1;

    if (m->tensor[WF_TENSOR_RANKNUM] != NULL && wf_tensor_scalar(m->tensor[WF_TENSOR_RANKNUM]) > 0)
        r0 = wf_tensor_scalar(m->tensor[WF_TENSOR_RANKNUM]);
    if (!m->has_alpha || !(m->alpha > 0)) m->alpha = (float)r0;
    m->scale = (float)(m->alpha / (r0 + 1e-5));
}

/* AdaLoRA's first rank is told by the configuration, or by a number in the file. */
static bool divides(const wf_module *m)
{
    const wf_tensor *ranknum = m->tensor[WF_TENSOR_RANKNUM];

    return m->tensor[WF_TENSOR_LORA_E] == NULL || wf_start_rank_of(m) > 0 ||
           (ranknum != NULL && wf_tensor_scalar(ranknum) > 0);
}

static weft_status shape(wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *A = m->tensor[WF_TENSOR_DOWN], *B = m->tensor[WF_TENSOR_UP],
                    *mid = m->tensor[WF_TENSOR_MID];

    WF_TRY(check_factors(m, source, err));
    m->rank = (int32_t)A->shape[0];
    m->in = (int32_t)A->shape[1];
    m->out = (int32_t)B->shape[0];
    m->kernel = wf_factor_kernel(A);
    if (m->in == 0 || m->out == 0)
        return wf_module_fail(m, source, err, "it has %d inputs and %d outputs", m->in, m->out);
    WF_TRY(check_middle(m, source, err));
    if (mid != NULL) m->kernel = wf_factor_kernel(mid);
    WF_TRY(wf_module_check_columns(m, source, err));
    if (m->tensor[WF_TENSOR_LORA_E] != NULL) scale_of_adalora(m);
    else wf_module_set_scale(m, m->rank);
    return check_initial(m, source, err);
}

/* AdaLoRA prunes modules away, to rank 0. */
static bool may_be_empty(const wf_module *m)
{
    return m->tensor[WF_TENSOR_LORA_E] != NULL;
}

static const char *kind(const wf_module *m)
{
    static const char *const initial[] = { NULL, "PiSSA", "OLoRA" };

    return m->tensor[WF_TENSOR_LORA_E] != NULL ? "AdaLoRA" : m->tensor[WF_TENSOR_MIXER] != NULL
           ? "MoSLoRA" : initial[initial_of(m)];
}

/* ---- the factors ----------------------------------------------------------------------------- */

/* down (r, K) becomes M down. */
static weft_status mix(const wf_module *m, size_t r, size_t K, float *down,
                       const weft_allocator *alloc, weft_error *err)
{
    size_t floats = r * r + r * K; /* as many as two tensors of the file have */
    float *M = wf_zalloc(alloc, floats, sizeof *M);

    if (M == NULL) return wf_nomem(err, floats * sizeof *M, "a mixer");
    float *A = M + r * r;
    wf_tensor_read(m->tensor[WF_TENSOR_MIXER], 0, r * r, M);
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

static weft_status read_down(const wf_module *m, const wf_layer *l, float *down,
                             const weft_allocator *alloc, weft_error *err)
{
    size_t     r = (size_t)m->rank;
    wf_columns c = wf_columns_at(m, l);

    if (m->tensor[WF_TENSOR_MID] != NULL)
        return wf_tucker_fold(m->tensor[WF_TENSOR_MID], m->tensor[WF_TENSOR_DOWN], r, r, c.in, c.kk,
                              down, alloc, err);
    wf_factor_rows(m->tensor[WF_TENSOR_DOWN], r, c, down);
    if (m->tensor[WF_TENSOR_LORA_E] != NULL) weigh(m->tensor[WF_TENSOR_LORA_E], r, c.K, down);
    if (m->tensor[WF_TENSOR_MIXER] != NULL) return mix(m, r, c.K, down, alloc, err);
    return WEFT_OK;
}

/* All triplets pruned: no pair, and the sum adds nothing. */
static int32_t form(const wf_module *m, const wf_layer *l)
{
    (void)l;
    return m->rank > 0 ? WF_FORM_PAIR : WF_FORM_DENSE;
}

static int32_t pair_rank(const wf_module *m)
{
    return initial_of(m) == WF_INITIAL_NONE ? m->rank : m->rank <= INT32_MAX / 2
           ? 2 * m->rank : INT32_MAX;
}

/* How often the unscaled part counts beside a product that is multiplied with `scale`. */
static double initial_share(const wf_module *m, double scale)
{
    return initial_of(m) == WF_INITIAL_TOP ? scale / (double)m->scale : scale;
}

/* -P behind the factors; whichever of the two is asked for, both are made. */
static weft_status add_initial_pair(const wf_module *m, const wf_layer *l, float *down, float *up,
                                    const weft_allocator *alloc, weft_error *err)
{
    size_t r = (size_t)m->rank, K = (size_t)m->in, out = (size_t)m->out;
    size_t other = (down == NULL ? r * K : 0) + (up == NULL ? r * out : 0);
    float *spare = wf_zalloc(alloc, other, sizeof *spare);

    if (spare == NULL) return wf_nomem(err, other * sizeof *spare, "an adapter's factors");
    float      *P = down != NULL ? down + r * K : spare, *Q = up != NULL ? up + r * out : spare;
    weft_status st = wf_initial_pair(initial_of(m), l, r, P, Q, alloc, err);
    float       f = (float)-initial_share(m, 1);
    for (size_t i = 0; st == WEFT_OK && up != NULL && i < r * out; i++) Q[i] *= f;
    wf_free(alloc, spare);
    return st;
}

static weft_status pair(const wf_module *m, const wf_layer *l, float *down, float *up,
                        const weft_allocator *alloc, weft_error *err)
{
    if (up != NULL)
        wf_tensor_transposed(m->tensor[WF_TENSOR_UP], (size_t)m->out, (size_t)m->rank, up);
    if (down != NULL) WF_TRY(read_down(m, l, down, alloc, err));
    return initial_of(m) != WF_INITIAL_NONE ? add_initial_pair(m, l, down, up, alloc, err)
                                            : WEFT_OK;
}

/* dst -= c * P. */
static weft_status subtract_initial(const wf_module *m, const wf_layer *l, double c, float *dst,
                                    const weft_allocator *alloc, weft_error *err)
{
    size_t r = (size_t)m->rank, K = (size_t)m->in, out = (size_t)m->out, floats = r * (K + out);
    float *down = wf_zalloc(alloc, floats, sizeof *down);

    if (down == NULL) return wf_nomem(err, floats * sizeof *down, "an adapter's factors");
    float      *up = down + r * K;
    weft_status st = wf_initial_pair(initial_of(m), l, r, down, up, alloc, err);
    for (size_t i = 0; st == WEFT_OK && i < r * out; i++) up[i] = (float)(-c * up[i]);
    if (st == WEFT_OK) wf_gemm_tn(dst, K, up, out, down, K, out, K, r, 1);
    wf_free(alloc, down);
    return st;
}

static weft_status add(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                       const weft_allocator *alloc, weft_error *err)
{
    size_t      r = (size_t)m->rank, out = (size_t)m->out, K = wf_module_columns(m), floats;
    weft_status st;

    if (r == 0) return WEFT_OK;
    if (!wf_mul(r, K, &floats) || !wf_add(floats, r * out, &floats))
        return wf_fail(err, WEFT_E_ARG, "%s: the factors are too large", m->key);
    float *down = wf_zalloc(alloc, floats, sizeof *down);
    if (down == NULL) return wf_nomem(err, floats * sizeof *down, "an adapter's factors");
    float *up = down + r * K;
    if ((st = read_down(m, l, down, alloc, err)) != WEFT_OK) goto done;
    wf_tensor_read(m->tensor[WF_TENSOR_UP], 0, r * out, up);
    for (size_t i = 0; i < r * out; i++) up[i] = (float)(scale * c * up[i]);
    wf_gemm_nn(dst, K, up, r, down, K, out, K, r, 1);
done:
    wf_free(alloc, down);
    if (st == WEFT_OK && initial_of(m) != WF_INITIAL_NONE)
        st = subtract_initial(m, l, initial_share(m, scale) * c, dst, alloc, err);
    return st;
}

static bool add_bias(const wf_module *m, const wf_layer *l, double scale, double c, float *dst)
{
    const wf_tensor *t = m->tensor[WF_TENSOR_UP_BIAS];

    (void)l;
    if (t != NULL && dst != NULL) wf_tensor_add(t, scale * c, dst);
    return t != NULL;
}

/* ---- writing --------------------------------------------------------------------------------- */

static const char *cannot_write(const wf_module *m, int32_t dialect)
{
    if (dialect != WEFT_DIALECT_PEFT && initial_of(m) != WF_INITIAL_NONE)
        return "beside a base that lacks a part of itself"; /* diffusers 0.42 cannot open it */
    bool two = m->tensor[WF_TENSOR_UP_BIAS] != NULL && m->tensor[WF_TENSOR_DIFF_B] != NULL;
    return dialect == WEFT_DIALECT_KOHYA && two ? "with two differences of the bias" : NULL;
}

/* A mixer has a word in no dialect, AdaLoRA's weights only in PEFT, Tucker's core only in
 * kohya's. */
static wf_tensor_set folded(const wf_module *m, int32_t dialect)
{
    wf_tensor_set middle = WF_BIT(WF_TENSOR_MID) | WF_BIT(WF_TENSOR_MIXER) | WF_BIT(WF_TENSOR_LORA_E);

    if (dialect == WEFT_DIALECT_PEFT) middle &= ~WF_BIT(WF_TENSOR_LORA_E);
    if (dialect == WEFT_DIALECT_KOHYA) middle &= ~WF_BIT(WF_TENSOR_MID);
    return wf_module_tensors(m) & middle;
}

/* What AdaLoRA began with stands in the configuration. */
static int32_t written_as(const wf_module *m, int32_t tensor)
{
    (void)m;
    return tensor == WF_TENSOR_RANKNUM ? WF_TENSOR_NONE : tensor;
}

static void shape_for(const wf_module *m, const wf_layer *l, int32_t tensor, wf_tensor *t)
{
    if (tensor == WF_TENSOR_UP || (tensor == WF_TENSOR_DOWN && m->tensor[WF_TENSOR_MID] != NULL))
        wf_shape_outer(t, l);
    else if (tensor == WF_TENSOR_DOWN) wf_shape_inner(t, l);
}

static double stored_alpha(const wf_peft_writer *w, size_t i)
{
    return (double)wf_peft_module(w, i)->alpha;
}

static weft_status write_lora(const wf_peft_writer *w)
{
    const wf_module *one = wf_peft_first(w);
    bool             dora = one->tensor[WF_TENSOR_MAGNITUDE] != NULL, rslora = true, bias = false;

    for WF_EACH(w, i) {
        const wf_module *m = wf_peft_module(w, i);
        if ((m->tensor[WF_TENSOR_MAGNITUDE] != NULL) != dora)
            return wf_peft_refuse(w, i,
                                  dora ? "has no magnitude, but others have"
                                       : "has a magnitude, but others have not");
        if (initial_of(m) != initial_of(one))
            return wf_peft_refuse(w, i, "lacks another part of the base's weight than the others");
        rslora = rslora && m->rslora;
        bias = bias || m->tensor[WF_TENSOR_UP_BIAS] != NULL;
    }
    wf_peft_common(w, initial_of(one) == WF_INITIAL_NONE ? "init_lora_weights" : NULL);
    if (initial_of(one) != WF_INITIAL_NONE)
        wf_peft_text(w, "init_lora_weights",
                     initial_of(one) == WF_INITIAL_TOP ? "pissa" : "olora");
    wf_peft_numbers(w, "r", "rank_pattern", wf_peft_rank_of);
    wf_peft_numbers(w, "lora_alpha", "alpha_pattern", rslora ? stored_alpha : wf_peft_alpha_of);
    wf_peft_bool(w, "use_rslora", rslora);
    wf_peft_bool(w, "use_dora", dora);
    wf_peft_bool(w, "lora_bias", bias);
    wf_peft_text(w, "bias", "none");
    wf_peft_value(w, "lora_dropout", 0);
    return WEFT_OK;
}

static int32_t first_rank(const wf_module *m)
{
    return wf_start_rank_of(m) > 0 ? wf_start_rank_of(m) : m->rank;
}

/* What pruning left of a module's triplets: the first ones, as the tensors have them. */
static void put_pruned(const wf_peft_writer *w)
{
    bool first = true;

    wf_peft_key(w, "rank_pattern");
    wf_text_add(w->out, "{");
    for WF_EACH(w, i) {
        const wf_module *m = wf_peft_module(w, i);
        if (m->rank == first_rank(m)) continue;
        wf_text_add(w->out, "%s\"%s.lora_E\": [", first ? "" : ", ",
                    wf_saver_path(wf_peft_layer(w, i)));
        for (int32_t p = 0; p < first_rank(m); p++)
            wf_text_add(w->out, "%s%s", p > 0 ? ", " : "", p < m->rank ? "true" : "false");
        wf_text_add(w->out, "]");
        first = false;
    }
    wf_text_add(w->out, "}");
}

static weft_status write_adalora(const wf_peft_writer *w)
{
    const wf_module *one = wf_peft_first(w);

    for WF_EACH(w, i) {
        const wf_module *m = wf_peft_module(w, i);
        if (first_rank(m) != first_rank(one) || m->alpha != one->alpha)
            return wf_peft_refuse(w, i, "began with another rank or alpha than the others");
        if (first_rank(m) < m->rank || first_rank(m) > 1 << 20)
            return wf_peft_refuse(w, i, "has more triplets than it began with");
        if (m->tensor[WF_TENSOR_MAGNITUDE] != NULL)
            return wf_peft_refuse(w, i, "has a magnitude beside AdaLoRA's weights");
    }
    wf_peft_common(w, "init_lora_weights");
    wf_peft_value(w, "init_r", first_rank(one));
    wf_peft_value(w, "target_r", first_rank(one));
    wf_peft_value(w, "lora_alpha", (double)one->alpha);
    put_pruned(w);
    wf_peft_value(w, "tinit", 0); /* its schedule of training, which must make sense */
    wf_peft_value(w, "tfinal", 0);
    wf_peft_value(w, "total_step", 1);
    return WEFT_OK;
}

static const wf_peft_type peft_types[] = {
    { .name = "LORA", .known_by = WF_BIT(WF_TENSOR_DOWN), .rank = "r",
      .rank_patterns = "rank_pattern", .alpha = "lora_alpha", .lora = true },
    { .name = "ADALORA", .known_by = WF_BIT(WF_TENSOR_LORA_E), .rank = "init_r",
      .alpha = "lora_alpha", .bare = true },
    { .name = NULL },
};

static const wf_peft_type *peft_type(const wf_module *m, int32_t dialect)
{
    return &peft_types[m->tensor[WF_TENSOR_LORA_E] != NULL && dialect == WEFT_DIALECT_PEFT];
}

static weft_status write_peft(const wf_peft_writer *w)
{
    return w->type == &peft_types[1] ? write_adalora(w) : write_lora(w);
}

const wf_family wf_family_lora = {
    .name = "lora",
    .title = "LoRA",
    .needs = WF_BIT(WF_TENSOR_DOWN) | WF_BIT(WF_TENSOR_UP),
    .may = WF_BIT(WF_TENSOR_MID) | WF_BIT(WF_TENSOR_MIXER) | WF_BIT(WF_TENSOR_LORA_E) |
        WF_BIT(WF_TENSOR_RANKNUM) |
           WF_BIT(WF_TENSOR_UP_BIAS),
    .reads_weight = reads_weight,
    .extra_size = sizeof(wf_lora),
    .may_be_empty = may_be_empty,
    .settle = settle,
    .shape = shape,
    .divides = divides,
    .kind = kind,
    .fits = wf_fits_columns,
    .form = form,
    .pair_rank = pair_rank,
    .pair = pair,
    .add = add,
    .add_bias = add_bias,
    .dialects = 1 << WEFT_DIALECT_KOHYA | 1 << WEFT_DIALECT_DIFFUSERS | 1 << WEFT_DIALECT_PEFT,
    .cannot_write = cannot_write,
    .alpha_means = wf_alpha_scales,
    .written_as = written_as,
    .folded = folded,
    .shape_for = shape_for,
    .peft_types = peft_types,
    .peft_type = peft_type,
    .write_peft = write_peft,
};
