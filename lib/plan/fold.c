/* fold.c - a sealed plan as one adapter.
 *
 * Where coefficients stay the same in all calls, a plan adds one fixed difference to each layer,
 * and that is an adapter. Pairs stay pairs: the factors of all parts stand one below the other,
 *
 *     A' = [A_1 diag(v_1); A_2 diag(v_2); ..]     B' = [c_1 s_1 B_1, c_2 s_2 B_2, ..]
 *
 * of rank r_1 + r_2 + .., and nothing is lost but rounding. A layer where some part is no pair
 * becomes a whole difference, taken on this model's weights.
 *
 * Names are kohya's; weft_adapter_save() writes any other dialect. */
#include "plan/method/method.h"
#include "tensor/gemm.h"

enum { NAME_MAX = 600 };

typedef struct folding {
    const weft_plan *plan;
    weft_tensors    *to;
} folding;

/* A layer, and the parts of it that act. */
typedef struct folded {
    const wf_layer     *layer;
    const wf_patch     *patch;
    const wf_cell      *cells;   /* [patch->parts] */
    const float *const *vectors;
    char                stem[NAME_MAX];
} folded;

/* Memory for a tensor of this shape, zeroed, under stem + ending. */
static weft_status add_tensor(const folding *x, const folded *f, const char *ending, int32_t rank,
                              int64_t a, int64_t b, int64_t k, float **data, weft_error *err)
{
    char    name[NAME_MAX + 32];
    int64_t shape[] = { a, b, k, k };
    size_t  floats;

    if (!wf_mul((size_t)a, rank > 1 ? (size_t)b * (size_t)(k * k) : 1, &floats) ||
        !wf_mul(floats, sizeof **data, &floats))
        return wf_nomem(err, SIZE_MAX, "a folded adapter");
    *data = wf_tensors_own(x->to, floats, err);
    if (*data == NULL) return WEFT_E_NOMEM;
    memset(*data, 0, floats);
    wf_format(name, sizeof name, "%s%s", f->stem, ending);
    return wf_tensors_add(x->to, name, WF_F32, rank, shape, *data, err);
}

/* to (rows, in, ky, kx), as files have it, from w (rows, ky, kx, in). */
static void as_stored(const wf_layer *l, const float *w, size_t rows, float *to)
{
    size_t in = (size_t)l->in, K = wf_layer_columns(l), taps = K / in;

    for (size_t r = 0; r < rows; r++)
        for (size_t k = 0; k < K; k++) to[r * K + k % in * taps + k / in] = w[r * K + k];
}

/* ---- pairs ----------------------------------------------------------------------------------- */

/* The rank of all parts that act, or -1 if one of them is no pair. */
static int64_t rank_of(const folded *f)
{
    int64_t rank = 0;

    for (int32_t i = 0; i < f->patch->parts; i++) {
        const wf_patch_part *s = &f->patch->part[i];
        if (f->cells[i].number == 0) continue;
        if (wf_slice_form(&s->slice, s->module, f->layer) != WF_FORM_PAIR) return -1;
        rank += wf_module_pair_rank(s->module);
    }
    return rank;
}

/* One part's rows of `down` (R, in, k, k) and columns of `up` (out, R), from rank `at` on. A and B
 * are scratch: (r, K) and (r, out). */
static weft_status put_pair(const folding *x, const folded *f, int32_t part, size_t at, size_t R,
                            float *A, float *B, float *down, float *up, weft_error *err)
{
    const wf_patch_part *s = &f->patch->part[part];
    const wf_cell       *c = &f->cells[part];
    size_t               K = wf_layer_columns(f->layer), out = (size_t)f->layer->out,
           r = (size_t)wf_module_pair_rank(s->module);
    double               scale = s->scale * c->number;

    WF_TRY(wf_slice_pair(&s->slice, s->module, f->layer, A, B, &x->plan->alloc, err));
    for (size_t i = 0; i < r * K && c->vector != 0; i++) A[i] *= f->vectors[c->vector - 1][i % K];
    as_stored(f->layer, A, r, down + at * K);
    for (size_t o = 0; o < out; o++)
        for (size_t i = 0; i < r; i++) up[o * R + at + i] = (float)(scale * B[i * out + o]);
    return WEFT_OK;
}

static weft_status fold_pairs(const folding *x, const folded *f, size_t R, weft_error *err)
{
    const wf_layer *l = f->layer;
    size_t          K = wf_layer_columns(l), at = 0, floats;
    int32_t         dims = l->kind == WEFT_LAYER_CONV ? 4 : 2;
    float          *down, *up, *alpha, *A;
    weft_status     st = WEFT_OK;

    WF_TRY(add_tensor(x, f, ".lora_down.weight", dims, (int64_t)R, l->in, l->kernel, &down, err));
    WF_TRY(add_tensor(x, f, ".lora_up.weight", dims, l->out, (int64_t)R, 1, &up, err));
    WF_TRY(add_tensor(x, f, ".alpha", 0, 1, 1, 1, &alpha, err));
    *alpha = (float)R;
    if (!wf_mul(R, K + (size_t)l->out, &floats)) return wf_nomem(err, SIZE_MAX, "folded factors");
    A = wf_zalloc(&x->plan->alloc, floats, sizeof *A);
    if (A == NULL) return wf_nomem(err, floats * sizeof *A, "folded factors");
    for (int32_t i = 0; i < f->patch->parts && st == WEFT_OK; i++) {
        if (f->cells[i].number == 0) continue;
        st = put_pair(x, f, i, at, R, A, A + R * K, down, up, err);
        at += (size_t)wf_module_pair_rank(f->patch->part[i].module);
    }
    wf_free(&x->plan->alloc, A);
    return st;
}

/* ---- whole differences, and biases ----------------------------------------------------------- */

/* D (out, K) and bias (out) or NULL += the difference of all parts. */
static weft_status add_parts(const folding *x, const folded *f, float *D, float *bias,
                             weft_error *err)
{
    return wf_patch_add(f->patch, f->layer, f->cells, f->vectors, D, bias, &x->plan->alloc, err);
}

static weft_status fold_layer(const folding *x, const folded *f, weft_error *err)
{
    const wf_layer *l = f->layer;
    bool            norm = l->kind == WEFT_LAYER_NORM, bias = wf_patch_has_bias(f->patch, l);
    size_t          floats = (size_t)l->out * wf_layer_columns(l);
    int64_t         rank = norm ? -1 : rank_of(f);
    float          *D = NULL, *to, *b = NULL;
    weft_status     st;

    if (rank >= 0) WF_TRY(fold_pairs(x, f, (size_t)rank, err));
    if (rank >= 0 && !bias) return WEFT_OK;
    if (bias) WF_TRY(add_tensor(x, f, norm ? ".b_norm" : ".diff_b", 1, l->out, 1, 1, &b, err));
    D = wf_zalloc(&x->plan->alloc, floats, sizeof *D);
    if (D == NULL) return wf_nomem(err, floats * sizeof *D, "a folded difference");
    st = add_parts(x, f, D, b, err);
    if (st == WEFT_OK && rank < 0) {
        st = add_tensor(x, f, norm ? ".w_norm" : ".diff",
                        norm ? 1 : l->kind == WEFT_LAYER_CONV ? 4 : 2, l->out, l->in, l->kernel,
                        &to, err);
        if (st == WEFT_OK) as_stored(l, D, (size_t)l->out, to);
    }
    wf_free(&x->plan->alloc, D);
    return st;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static weft_status fold_sheet(const folding *x, const wf_sheet *s, weft_error *err)
{
    const wf_layer *layers = wf_model_layers(x->plan->model, &(size_t){ 0 });

    for (size_t i = 0; i < s->patched_count; i++) {
        const wf_patched *at = &s->patched[i];
        folded            f = { .layer = &layers[at->layer], .patch = at->patch,
                                .cells = wf_sheet_cells(s, &s->row[0]) + at->slot,
                                .vectors = s->vectors };
        if (!wf_sheet_any_cell(s, (size_t)at->slot, (size_t)(at->slot + at->patch->parts)))
            continue;
        if (!wf_name_kohya(x->plan->model, f.layer, f.stem, sizeof f.stem))
            return wf_fail(err, WEFT_E_INTERNAL, "%s: kohya has no name for it", f.layer->name);
        if (f.layer->component == WEFT_COMPONENT_DENOISER &&
            wf_mixed_matters(x->plan, f.layer, at->patch->part, at->patch->parts))
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "%s: under policy %s its adapters are no sum, so they do not fold into "
                           "one; delta does",
                           f.layer->name, wf_mixed_name(x->plan->mixed));
        WF_TRY(fold_layer(x, &f, err));
    }
    return WEFT_OK;
}

weft_status weft_plan_fold(const weft_plan *plan, const weft_adapter_options *options,
                           weft_adapter **out, weft_error *err)
{
    folding     x = { .plan = plan };
    weft_status st;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "weft_plan_fold: out is NULL");
    *out = NULL;
    WF_TRY(wf_plan_must_be_fixed(plan, "weft_plan_fold", err));
    WF_TRY(wf_tensors_new(&plan->alloc, "the folded plan", &x.to, err));
    st = fold_sheet(&x, wf_plan_phase(plan, 0), err);
    if (st == WEFT_OK) st = fold_sheet(&x, wf_plan_text_sheet(plan), err);
    if (st == WEFT_OK && wf_tensors_count(x.to) == 0)
        st = wf_fail(err, WEFT_E_UNSUPPORTED, "weft_plan_fold: the plan adds nothing to any layer");
    if (st == WEFT_OK) st = wf_tensors_seal(x.to, err);
    if (st == WEFT_OK) st = weft_adapter_create(x.to, options, out, err);
    weft_tensors_free(x.to);
    return st;
}
