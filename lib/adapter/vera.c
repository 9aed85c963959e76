/* vera.c - VeRA: two random projections that all modules share, and a module's own scales for them.
 *
 *   vera_lambda_d (r), vera_lambda_b (out)    vera_A (r, inputs), vera_B (outputs, r)
 *   Delta W = diag(lambda_b) B diag(lambda_d) A, with as many columns of A and rows of B as the
 *   layer has inputs and outputs
 *
 * A and B are never trained and are as large as the largest layer. A file may leave them out
 * (save_projection false). Then the configuration's projection_prng_key gives them: numbers of
 * torch's CPU generator, A's first, spread evenly between -b and b, b = sqrt(6 / columns).
 *
 * Keys base_model.vera_A, base_model.vera_B; PEFT has it for linear layers. Kopiczko et al., VeRA,
 * 2023. */
#include <math.h>

#include "adapter/factor.h"
#include "adapter/save.h"

/* What a module keeps of the configuration. */
typedef struct vera {
    int64_t seed;
    bool    told; /* does a configuration say it? */
} vera;

static weft_status settle(wf_module *m, const wf_settings *s, const wf_config *config,
                          const char *path, weft_error *err)
{
    vera *extra = m->extra;

    (void)s, (void)path, (void)err;
    extra->told = config != NULL &&
                  wf_config_integer(config, "projection_prng_key", 0, &extra->seed);
    return WEFT_OK;
}

static bool lacks(const wf_module *m)
{
    return m->tensor[WF_TENSOR_VERA_A] == NULL && m->tensor[WF_TENSOR_VERA_B] == NULL;
}

static weft_status check_projections(const wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *A = m->tensor[WF_TENSOR_VERA_A], *B = m->tensor[WF_TENSOR_VERA_B];

    if (lacks(m)) {
        if (((const vera *)m->extra)->told) return WEFT_OK;
        return wf_module_fail(m, source, err,
                              "the file has neither vera_A and vera_B nor a configuration that "
                              "gives their seed; save it with save_projection");
    }
    if (A == NULL || B == NULL)
        return wf_module_fail(m, source, err, "the file has %s without %s",
                              A != NULL ? "vera_A" : "vera_B", A != NULL ? "vera_B" : "vera_A");
    if (A->rank != 2 || A->shape[0] != m->rank)
        return wf_module_wrong_shape(A, source, "(r, inputs) with the r of vera_lambda_d", err);
    if (B->rank != 2 || B->shape[1] != A->shape[0] || B->shape[0] < m->out)
        return wf_module_wrong_shape(B, source,
                                     "(outputs, r) with the r of vera_A and no fewer outputs than "
                                     "vera_lambda_b", err);
    return WEFT_OK;
}

static weft_status shape(wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *b = m->tensor[WF_TENSOR_VERA_LAMBDA_B],
                    *d = m->tensor[WF_TENSOR_VERA_LAMBDA_D];

    if (b->rank != 1) return wf_module_wrong_shape(b, source, "(out)", err);
    if (d->rank != 1) return wf_module_wrong_shape(d, source, "(r)", err);
    m->rank = (int32_t)d->shape[0];
    m->out = (int32_t)b->shape[0];
    m->in = 0;
    m->kernel = 1;
    m->scale = 1;
    return check_projections(m, source, err);
}

static bool fits(const wf_module *m, const wf_layer *l)
{
    const wf_tensor *A = m->tensor[WF_TENSOR_VERA_A];

    return l->kind != WEFT_LAYER_NORM && l->kernel == 1 && l->out == m->out &&
           (A == NULL || l->in <= A->shape[1]);
}

static weft_status pair(const wf_module *m, const wf_layer *l, float *down, float *up,
                        const weft_allocator *alloc, weft_error *err)
{
    const wf_tensor *A = m->tensor[WF_TENSOR_VERA_A], *B = m->tensor[WF_TENSOR_VERA_B];
    size_t           r = (size_t)m->rank, in = (size_t)l->in, out = (size_t)l->out,
                     columns = (size_t)A->shape[1];

    (void)alloc, (void)err;
    for (size_t p = 0; down != NULL && p < r; p++) {
        float d;
        wf_tensor_read(m->tensor[WF_TENSOR_VERA_LAMBDA_D], p, 1, &d);
        wf_tensor_read(A, p * columns, in, down + p * in);
        for (size_t i = 0; i < in; i++) down[p * in + i] *= d;
    }
    for (size_t o = 0; up != NULL && o < out; o++) {
        float b, v;
        wf_tensor_read(m->tensor[WF_TENSOR_VERA_LAMBDA_B], o, 1, &b);
        for (size_t p = 0; p < r; p++) {
            wf_tensor_read(B, o * r + p, 1, &v);
            up[p * out + o] = b * v;
        }
    }
    return WEFT_OK;
}

/* ---- projections that the file leaves out ---------------------------------------------------- */

/* PEFT begins with 256. A file of a few bytes for each rank must not ask for gigabytes. */
enum { MOST_RANKS = 16384 };

static wf_tensor *draw(const char *name, wf_mersenne *g, size_t rows, size_t columns, wf_bag *bag)
{
    double     bound = sqrt(3.0) * (sqrt(2.0) / sqrt((double)columns));
    size_t     n = rows * columns;
    wf_tensor *t = wf_bag_take(bag, 1, sizeof *t);
    float     *v = wf_bag_take(bag, n, sizeof *v), from = (float)-bound, to = (float)bound;

    if (t == NULL || v == NULL) return NULL;
    for (size_t i = 0; i < n; i++) v[i] = wf_mersenne_uniform(g) * (to - from) + from;
    *t = (wf_tensor){ .name = name, .data = (const uint8_t *)v, .bytes = n * sizeof *v, .count = n,
                      .shape = { (int64_t)rows, (int64_t)columns }, .rank = 2, .dtype = WF_F32 };
    return t;
}

static weft_status make(const wf_module *m, size_t in, size_t out, wf_bag *bag,
                        const wf_tensor *made[WF_TENSORS], weft_error *err)
{
    size_t      r = (size_t)m->rank, floats;
    wf_mersenne g;

    if (r > MOST_RANKS || !wf_mul(r, in + out, &floats))
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: projections of rank %zu are not made from a seed, %d at most; save "
                       "them with save_projection",
                       m->key, r, MOST_RANKS);
    wf_mersenne_seed(&g, (uint64_t)((const vera *)m->extra)->seed);
    made[WF_TENSOR_VERA_A] = draw("vera_A", &g, r, in, bag);
    if (made[WF_TENSOR_VERA_A] != NULL)
        made[WF_TENSOR_VERA_B] = draw("vera_B", &g, out, r, bag);
    return made[WF_TENSOR_VERA_B] != NULL ? WEFT_OK
                                          : wf_nomem(err, floats * sizeof(float), "projections");
}

/* ---- PEFT's configuration -------------------------------------------------------------------- */

static const wf_peft_type peft_types[] = {
    { .name = "VERA", .known_by = WF_BIT(WF_TENSOR_VERA_LAMBDA_B), .rank = "r" },
    { .name = NULL },
};

static weft_status write_peft(const wf_peft_writer *w)
{
    const wf_module *one = wf_peft_first(w);

    for WF_EACH(w, i)
        if (wf_peft_module(w, i)->rank != one->rank)
            return wf_peft_refuse(w, i, "has another rank than the others");
    wf_peft_common(w, "init_weights");
    wf_peft_value(w, "r", one->rank);
    wf_peft_integer(w, "projection_prng_key", ((const vera *)one->extra)->seed);
    wf_peft_bool(w, "save_projection", !lacks(one));
    wf_peft_text(w, "bias", "none");
    return WEFT_OK;
}

const wf_family wf_family_vera = {
    .name = "vera",
    .title = "VeRA",
    .needs = WF_BIT(WF_TENSOR_VERA_LAMBDA_B) | WF_BIT(WF_TENSOR_VERA_LAMBDA_D),
    .may = WF_BIT(WF_TENSOR_VERA_A) | WF_BIT(WF_TENSOR_VERA_B),
    .extra_size = sizeof(vera),
    .settle = settle,
    .shape = shape,
    .lacks = lacks,
    .make = make,
    .fits = fits,
    .misfit = "its projections have fewer inputs than the layer, or it is a convolution:",
    .form = wf_form_pair,
    .pair = pair,
    .add = wf_add_pair,
    .dialects = 1 << WEFT_DIALECT_PEFT,
    .peft_types = peft_types,
    .write_peft = write_peft,
};
