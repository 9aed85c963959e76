/* vblora.c - VB-LoRA: low-rank factors put together from a bank of vectors that all modules share.
 *
 *   vblora_vector_bank (n, length)
 *   vblora_logits_A (r, in / length, n), vblora_logits_B (out / length, r, n)
 *   or of each its K largest: .._topk_indices (.., K), .._topk_weights (.., K - 1)
 *
 *   Delta W = B A. Row p of A has pieces of the bank's length, column p of B too; a piece is the
 *   mean of the K vectors with the largest logits, weighed by the softmax of those K
 *
 * How many K is, the configuration says (topk); where only the weights of the K are kept, the
 * tensors do, and the last weight is what the others leave of 1. PEFT has it for linear layers.
 *
 * Keys base_model.vblora_vector_bank. Li et al., VB-LoRA, 2024. */
#include <math.h>

#include "adapter/factor.h"
#include "adapter/save.h"

/* Those of a module, in either form. */
#define TENSORS \
    (WF_BIT(WF_TENSOR_VB_LOGITS_A) | WF_BIT(WF_TENSOR_VB_LOGITS_B) | \
     WF_BIT(WF_TENSOR_VB_INDICES_A) | WF_BIT(WF_TENSOR_VB_INDICES_B) | \
     WF_BIT(WF_TENSOR_VB_WEIGHTS_A) | WF_BIT(WF_TENSOR_VB_WEIGHTS_B))

/* What a module keeps of the configuration. */
typedef struct vblora {
    int32_t best; /* topk; 0: not told */
} vblora;

static weft_status settle(wf_module *m, const wf_settings *s, const wf_config *config,
                          const char *path, weft_error *err)
{
    (void)s, (void)path, (void)err;
    if (config != NULL) ((vblora *)m->extra)->best = wf_config_count(config, "topk", 2);
    return WEFT_OK;
}

static bool kept(const wf_module *m)
{
    return m->tensor[WF_TENSOR_VB_INDICES_A] != NULL;
}

/* The tensor that has the pieces of one factor: logits or indices. */
static const wf_tensor *pieces_of(const wf_module *m, bool down)
{
    if (kept(m)) return m->tensor[down ? WF_TENSOR_VB_INDICES_A : WF_TENSOR_VB_INDICES_B];
    return m->tensor[down ? WF_TENSOR_VB_LOGITS_A : WF_TENSOR_VB_LOGITS_B];
}

/* How many vectors a piece is made of. */
static size_t best_of(const wf_module *m)
{
    return kept(m) ? (size_t)m->tensor[WF_TENSOR_VB_INDICES_A]->shape[2]
                   : (size_t)((const vblora *)m->extra)->best;
}

/* With K = 1 no weight is kept. */
static bool may_be_empty(const wf_module *m)
{
    return kept(m);
}

static weft_status check_complete(const wf_module *m, const char *source, weft_error *err)
{
    static const int32_t logits[] = { WF_TENSOR_VB_LOGITS_A, WF_TENSOR_VB_LOGITS_B },
                         best[] = { WF_TENSOR_VB_INDICES_A, WF_TENSOR_VB_WEIGHTS_A,
                                    WF_TENSOR_VB_INDICES_B, WF_TENSOR_VB_WEIGHTS_B };
    size_t n = 0, b = 0;

    for (size_t i = 0; i < WF_LEN(logits); i++) n += m->tensor[logits[i]] != NULL;
    for (size_t i = 0; i < WF_LEN(best); i++) b += m->tensor[best[i]] != NULL;
    if (n + b != WF_MAX(n, b) || n + b == 0 || (n > 0 && n < 2) || (b > 0 && b < 4))
        return wf_module_fail(m, source, err,
                              "wanted vblora_logits_A and _B, or topk_indices and topk_weights of "
                              "both");
    if (m->tensor[WF_TENSOR_VB_BANK] == NULL)
        return wf_module_fail(m, source, err, "the file has no vblora_vector_bank");
    return WEFT_OK;
}

static weft_status check_best(const wf_module *m, int32_t indices, int32_t weights, int64_t vectors,
                              const char *source, weft_error *err)
{
    const wf_tensor *at = m->tensor[indices], *w = m->tensor[weights];

    if (w->rank != 3 || w->shape[0] != at->shape[0] || w->shape[1] != at->shape[1] ||
        w->shape[2] != at->shape[2] - 1)
        return wf_module_wrong_shape(w, source, "one weight less than there are indices", err);
    return wf_tensor_check_indices(at, 0, at->count, (double)vectors, source, err);
}

static weft_status shape(wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *bank = m->tensor[WF_TENSOR_VB_BANK], *A, *B;
    int64_t          last;

    WF_TRY(check_complete(m, source, err));
    A = pieces_of(m, true);
    B = pieces_of(m, false);
    if (bank->rank != 2 || bank->count == 0 || bank->shape[0] > WF_INDICES_END)
        return wf_module_wrong_shape(bank, source, "(vectors, length), 2^24 vectors at most", err);
    last = kept(m) ? A->rank == 3 ? A->shape[2] : 0 : bank->shape[0];
    if (A->rank != 3 || A->count == 0 || A->shape[2] != last)
        return wf_module_wrong_shape(A, source, "(r, pieces, vectors of the bank)", err);
    if (B->rank != 3 || B->count == 0 || B->shape[1] != A->shape[0] || B->shape[2] != last)
        return wf_module_wrong_shape(B, source, "(pieces, r, as many as vblora_logits_A)", err);
    if (A->shape[1] > INT32_MAX / bank->shape[1] || B->shape[0] > INT32_MAX / bank->shape[1])
        return wf_module_fail(m, source, err, "the pieces are more than 2^31 inputs or outputs");
    if (kept(m)) {
        WF_TRY(check_best(m, WF_TENSOR_VB_INDICES_A, WF_TENSOR_VB_WEIGHTS_A, bank->shape[0], source,
                          err));
        WF_TRY(check_best(m, WF_TENSOR_VB_INDICES_B, WF_TENSOR_VB_WEIGHTS_B, bank->shape[0], source,
                          err));
    } else if (best_of(m) < 1 || (int64_t)best_of(m) > bank->shape[0]) {
        return wf_module_fail(m, source, err,
                              "no configuration says a topk from 1 to the bank's %d vectors: keep "
                              "adapter_config.json beside the file", (int)bank->shape[0]);
    }
    m->rank = (int32_t)A->shape[0];
    m->in = (int32_t)(A->shape[1] * bank->shape[1]);
    m->out = (int32_t)(B->shape[0] * bank->shape[1]);
    m->kernel = 1;
    m->scale = 1;
    return WEFT_OK;
}

/* ---- the factors ----------------------------------------------------------------------------- */

/* A logit and the vector that it is of. */
typedef struct scored {
    float  logit;
    size_t vector;
} scored;

/* The largest first, and of equal ones the first vector's. */
static int compare(const void *a, const void *b)
{
    const scored *x = a, *y = b;

    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return x->vector < y->vector ? -1 : x->vector > y->vector;
}

static void softmax(double *v, size_t n)
{
    double sum = 0, most = v[0];

    for (size_t k = 0; k < n; k++) sum += v[k] = exp(v[k] - most);
    for (size_t k = 0; k < n; k++) v[k] /= sum;
}

/* What reading pieces needs. */
typedef struct reader {
    size_t  K, n, length;
    scored *best;   /* [most of K and n], the first K in use */
    double *weight; /* [K]                                   */
    double *sum;    /* [length]                              */
    float  *vector; /* [length]                              */
} reader;

/* Which vectors piece i of a factor takes, and how much of each: from logits, or from what is kept
 * of them. */
static void choose_vectors(const wf_tensor *logits, size_t i, reader *rd)
{
    for (size_t j = 0; j < rd->n; j++) {
        rd->best[j].vector = j;
        wf_tensor_read(logits, i * rd->n + j, 1, &rd->best[j].logit);
    }
    wf_sort(rd->best, rd->n, sizeof *rd->best, compare);
    for (size_t k = 0; k < rd->K; k++) rd->weight[k] = (double)rd->best[k].logit;
    softmax(rd->weight, rd->K);
}

static void read_kept(const wf_tensor *at, const wf_tensor *weights, size_t i, reader *rd)
{
    double left = 1;

    for (size_t k = 0; k < rd->K; k++) {
        float v;
        wf_tensor_read(at, i * rd->K + k, 1, &v);
        rd->best[k].vector = (size_t)v;
        if (k + 1 == rd->K) break;
        wf_tensor_read(weights, i * (rd->K - 1) + k, 1, &v);
        rd->weight[k] = (double)v;
        left -= (double)v;
    }
    rd->weight[rd->K - 1] = left;
}

/* rd->sum = piece i of a factor. */
static void read_piece(const wf_module *m, bool down, size_t i, reader *rd)
{
    if (!kept(m)) choose_vectors(pieces_of(m, down), i, rd);
    else
        read_kept(pieces_of(m, down),
                  m->tensor[down ? WF_TENSOR_VB_WEIGHTS_A : WF_TENSOR_VB_WEIGHTS_B], i, rd);
    memset(rd->sum, 0, rd->length * sizeof *rd->sum);
    for (size_t k = 0; k < rd->K; k++) {
        wf_tensor_read(m->tensor[WF_TENSOR_VB_BANK], rd->best[k].vector * rd->length, rd->length,
                       rd->vector);
        for (size_t j = 0; j < rd->length; j++) rd->sum[j] += rd->weight[k] * (double)rd->vector[j];
    }
}

static weft_status pair(const wf_module *m, const wf_layer *l, float *down, float *up,
                        const weft_allocator *alloc, weft_error *err)
{
    const wf_tensor *bank = m->tensor[WF_TENSOR_VB_BANK];
    size_t           r = (size_t)m->rank, in = (size_t)m->in, out = (size_t)m->out,
                     length = (size_t)bank->shape[1];
    reader           rd = { .K = best_of(m), .n = (size_t)bank->shape[0], .length = length };
    size_t bytes = WF_MAX(rd.K, rd.n) * sizeof *rd.best + rd.K * sizeof *rd.weight +
                   length * (sizeof *rd.sum + sizeof *rd.vector);

    (void)l;
    if ((rd.best = wf_zalloc(alloc, bytes, 1)) == NULL)
        return wf_nomem(err, bytes, "pieces of a factor");
    rd.weight = (double *)(void *)(rd.best + WF_MAX(rd.K, rd.n));
    rd.sum = rd.weight + rd.K;
    rd.vector = (float *)(void *)(rd.sum + length);
    for (size_t i = 0; down != NULL && i < r * (in / length); i++) {
        read_piece(m, true, i, &rd);
        for (size_t j = 0; j < length; j++) down[i * length + j] = (float)rd.sum[j];
    }
    for (size_t i = 0; up != NULL && i < r * (out / length); i++) {
        read_piece(m, false, i, &rd); /* piece i / r of column i % r */
        for (size_t j = 0; j < length; j++)
            up[i % r * out + i / r * length + j] = (float)rd.sum[j];
    }
    wf_free(alloc, rd.best);
    return WEFT_OK;
}

/* ---- PEFT's configuration -------------------------------------------------------------------- */

static const wf_peft_type peft_types[] = {
    { .name = "VBLORA", .known_by = TENSORS, .rank = "r" },
    { .name = NULL },
};

static weft_status write_peft(const wf_peft_writer *w)
{
    const wf_module *one = wf_peft_first(w);
    const wf_tensor *bank = one->tensor[WF_TENSOR_VB_BANK];

    for WF_EACH(w, i) {
        const wf_module *m = wf_peft_module(w, i);
        if (m->rank != one->rank || kept(m) != kept(one) || best_of(m) != best_of(one))
            return wf_peft_refuse(w, i, "has another rank or topk than the others");
    }
    wf_peft_common(w, NULL);
    wf_peft_value(w, "r", one->rank);
    wf_peft_value(w, "num_vectors", (double)bank->shape[0]);
    wf_peft_value(w, "vector_length", (double)bank->shape[1]);
    wf_peft_value(w, "topk", (double)best_of(one));
    wf_peft_bool(w, "save_only_topk_weights", kept(one));
    wf_peft_text(w, "bias", "none");
    return WEFT_OK;
}

const wf_family wf_family_vblora = {
    .name = "vblora",
    .title = "VB-LoRA",
    .any = TENSORS,
    .may = WF_BIT(WF_TENSOR_VB_BANK),
    .extra_size = sizeof(vblora),
    .settle = settle,
    .may_be_empty = may_be_empty,
    .shape = shape,
    .form = wf_form_pair,
    .pair = pair,
    .add = wf_add_pair,
    .dialects = 1 << WEFT_DIALECT_PEFT,
    .peft_types = peft_types,
    .write_peft = write_peft,
};
