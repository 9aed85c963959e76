/* zip_network.c - ZipLoRA's coefficients from a network that was trained to choose them: LoRA.rar.
 *
 * For column j of a layer's matrices, content and style, the network reads both columns and gives
 * their coefficients:
 *
 *     (m_c[j], m_s[j]) = W_2 relu(W_1 [Delta_c[:, j]; Delta_s[:, j]] + b_1) + b_2
 *
 * It has an input for each height of column that it was trained for (640 and 1280 for SDXL). It
 * chooses for the queries and outputs of attentions, to_q and to_out.0; everything else is summed.
 * The file's scale is in Delta, which the authors' program leaves out, and the caller's weight is
 * not. Shenaj et al., LoRA.rar: Learning to Merge LoRAs via Hypernetworks (2024). */
#include <math.h>

#include "plan/method/method.h"
#include "tensor/gemm.h"

enum { INPUTS_MAX = 8, HIDDEN_MAX = 65536, NAME_MAX = 600 };

/* A network in float32. */
typedef struct input {
    size_t out;     /* rows of the layers that it is for */
    float *weight;  /* (hidden, 2 out)                   */
    float *bias;    /* (hidden)                          */
} input;

typedef struct network {
    int32_t inputs;
    size_t  hidden;
    input   input[INPUTS_MAX];
    float  *weight; /* (2, hidden) */
    float  *bias;   /* (2)         */
    wf_bag  bag;
} network;

static weft_status refuse(const weft_tensors *t, weft_error *err)
{
    return wf_fail(err, WEFT_E_MISMATCH,
                   "%s: no network for ZipLoRA's coefficients: wanted input_1.weight (hidden, 2 "
                   "out), input_1.bias, .., output.1.weight (2, hidden), output.1.bias",
                   wf_tensors_what(t));
}

/* *v = the tensor, (rows, columns) or with columns 0 (rows). */
static weft_status read(network *n, const weft_tensors *t, const wf_tensor *x, size_t rows,
                        size_t columns, float **v, weft_error *err)
{
    size_t count = rows * (columns > 0 ? columns : 1);

    if (x == NULL || x->count != count || x->rank != (columns > 0 ? 2 : 1)) return refuse(t, err);
    if (x->dtype != WF_F32 && x->dtype != WF_F16 && x->dtype != WF_BF16 && x->dtype != WF_F64)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: %.120s is %s, wanted floats",
                       wf_tensors_what(t), x->name, wf_dtype_name(x->dtype));
    *v = wf_bag_take(&n->bag, count, sizeof **v);
    if (*v == NULL) return wf_nomem(err, count * sizeof **v, "a network");
    wf_tensor_read(x, 0, count, *v);
    for (size_t i = 0; i < count; i++)
        if (!isfinite((*v)[i]))
            return wf_fail(err, WEFT_E_FORMAT, "%s: %.120s: value %zu is not finite",
                           wf_tensors_what(t), x->name, i);
    return WEFT_OK;
}

static weft_status read_network(network *n, const weft_tensors *t, weft_error *err)
{
    const wf_tensor *out = wf_tensors_find(t, "output.1.weight");

    if (out == NULL || out->rank != 2 || out->shape[0] != 2 || out->shape[1] < 1 ||
        out->shape[1] > HIDDEN_MAX)
        return refuse(t, err);
    n->hidden = (size_t)out->shape[1];
    WF_TRY(read(n, t, out, 2, n->hidden, &n->weight, err));
    WF_TRY(read(n, t, wf_tensors_find(t, "output.1.bias"), 2, 0, &n->bias, err));
    for (int i = 0; i < INPUTS_MAX; i++) {
        char name[32];
        wf_format(name, sizeof name, "input_%d.weight", i + 1);
        const wf_tensor *w = wf_tensors_find(t, name);
        if (w == NULL) continue;
        if (w->rank != 2 || w->shape[1] < 2 || w->shape[1] % 2 != 0) return refuse(t, err);
        input *in = &n->input[n->inputs++];
        in->out = (size_t)w->shape[1] / 2;
        WF_TRY(read(n, t, w, n->hidden, 2 * in->out, &in->weight, err));
        wf_format(name, sizeof name, "input_%d.bias", i + 1);
        WF_TRY(read(n, t, wf_tensors_find(t, name), n->hidden, 0, &in->bias, err));
    }
    if (n->inputs == 0 || wf_tensors_count(t) != 2 + 2 * (size_t)n->inputs) return refuse(t, err);
    return WEFT_OK;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), e = strlen(end);
    return n >= e && strcmp(s + n - e, end) == 0;
}

/* The network's input for a layer of both adapters; NULL: the layer is summed. */
static const input *input_of(const network *n, const weft_plan *p, const wf_layer *l)
{
    if (l->component != WEFT_COMPONENT_DENOISER || l->kind != WEFT_LAYER_LINEAR ||
        (!ends_with(l->name, ".to_q") && !ends_with(l->name, ".to_out.0")) ||
        wf_plan_module(p, 0, l->id) == NULL || wf_plan_module(p, 1, l->id) == NULL)
        return NULL;
    for (int32_t i = 0; i < n->inputs; i++)
        if (n->input[i].out == (size_t)l->out) return &n->input[i];
    return NULL;
}

/* m [2][columns] of a layer. */
static weft_status predict(const network *n, const input *in, const weft_plan *p,
                           const wf_layer *l, const int32_t adapter[2], float *m[2],
                           weft_error *err)
{
    size_t columns = (size_t)l->in, out = in->out;
    float *D = wf_alloc(&p->alloc, out * columns * sizeof *D);
    float *H = wf_alloc(&p->alloc, n->hidden * columns * sizeof *H);
    weft_status st = WEFT_OK;

    if (D == NULL || H == NULL) st = wf_nomem(err, out * columns * sizeof *D, "columns");
    for (int which = 0; which < 2 && st == WEFT_OK; which++) {
        st = wf_plan_difference(p, adapter[which], l, D, err);
        if (st == WEFT_OK)
            wf_gemm_nn(H, columns, in->weight + (size_t)which * out, 2 * out, D, columns,
                       n->hidden, columns, out, which == 0 ? 0.0f : 1.0f);
    }
    for (size_t j = 0; j < columns && st == WEFT_OK; j++)
        for (int which = 0; which < 2; which++) {
            double sum = n->bias[which];
            for (size_t h = 0; h < n->hidden; h++) {
                float v = H[h * columns + j] + in->bias[h];
                if (v > 0) sum += (double)n->weight[(size_t)which * n->hidden + h] * v;
            }
            m[which][j] = (float)sum;
        }
    wf_free(&p->alloc, D);
    wf_free(&p->alloc, H);
    return st;
}

static weft_status add_layer(weft_tensors *t, const network *n, const input *in,
                             const weft_plan *p, const wf_layer *l, const int32_t adapter[2],
                             weft_error *err)
{
    int64_t shape[] = { l->in };
    float  *m[2];

    for (int which = 0; which < 2; which++)
        if ((m[which] = wf_tensors_own(t, (size_t)l->in * sizeof(float), err)) == NULL)
            return WEFT_E_NOMEM;
    WF_TRY(predict(n, in, p, l, adapter, m, err));
    for (int which = 0; which < 2; which++) {
        char name[NAME_MAX];
        for (size_t j = 0; j < (size_t)l->in; j++)
            if (!isfinite(m[which][j]))
                return wf_fail(err, WEFT_E_NOT_FINITE, "%s: the network's coefficient of column "
                               "%zu is not finite", l->name, j);
        if (!wf_format(name, sizeof name, "%s%s", l->name, wf_zip_endings[which]))
            return wf_fail(err, WEFT_E_INTERNAL, "%.200s: a name too long", l->name);
        WF_TRY(wf_tensors_add(t, name, WF_F32, 1, shape, m[which], err));
    }
    return WEFT_OK;
}

static weft_status add_layers(weft_tensors *t, const network *n, const weft_plan *p,
                              const weft_tensors *file, weft_error *err)
{
    size_t          layers, found = 0;
    int32_t         adapter[2];
    const wf_layer *l = wf_model_layers(p->model, &layers);
    weft_status     st;

    WF_TRY(wf_zip_roles(p, &adapter[0], &adapter[1], err));
    WF_TRY(wf_blas_hold(1, err));
    wf_blas_begin();
    st = WEFT_OK;
    for (size_t i = 0; i < layers && st == WEFT_OK; i++) {
        const input *in = input_of(n, p, &l[i]);
        if (in == NULL) continue;
        found++;
        if (p->progress != NULL && p->progress(p->progress_user, "choosing columns", (int64_t)i,
                                               (int64_t)layers) != 0)
            st = wf_fail(err, WEFT_E_CANCELLED, "choosing columns was stopped");
        if (st == WEFT_OK) st = add_layer(t, n, in, p, &l[i], adapter, err);
    }
    wf_blas_end();
    wf_blas_let_go(1);
    if (st != WEFT_OK || found > 0) return st;
    return wf_fail(err, WEFT_E_MISMATCH,
                   "%s: the network is for layers of %zu%s rows, and the adapters share no to_q or "
                   "to_out.0 of that height",
                   wf_tensors_what(file), n->input[0].out, n->inputs > 1 ? " and other" : "");
}

weft_status weft_plan_zip_predict(const weft_plan *plan, weft_tensors *net,
                                  weft_tensors **coefficients, weft_error *err)
{
    network       n = { 0 };
    weft_tensors *t = NULL;
    weft_status   st;

    if (coefficients == NULL) return wf_fail(err, WEFT_E_ARG, "coefficients is NULL");
    *coefficients = NULL;
    if (plan == NULL || net == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_zip_predict: %s is NULL",
                       plan == NULL ? "plan" : "network");
    wf_bag_init(&n.bag, &plan->alloc);
    st = read_network(&n, net, err);
    if (st == WEFT_OK) st = wf_tensors_new(&plan->alloc, wf_tensors_what(net), &t, err);
    if (st == WEFT_OK) st = add_layers(t, &n, plan, net, err);
    if (st == WEFT_OK) st = wf_tensors_seal(t, err);
    wf_bag_free(&n.bag);
    if (st == WEFT_OK) *coefficients = t;
    else weft_tensors_free(t);
    return st;
}
