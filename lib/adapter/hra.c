/* hra.c - Householder reflections of a layer's inputs.
 *
 *   hra_u (columns, r)    W's columns in the order (in, ky, kx)
 *   W' = W (I - 2 u_1 u_1^T) (I - 2 u_2 u_2^T) ..    u_i the columns of hra_u at length 1
 *
 * With apply_GS in the configuration the columns are first made orthogonal, each to those before it
 * (Gram and Schmidt). The same product then stands for what PEFT writes as I - 2 U U^T. A column of
 * zeros has no direction, and PEFT makes a weight without numbers of it: refused. The bias stays.
 *
 * Yuan et al., Bridging the Gap between Low-Rank and Orthogonal Adaptation via Householder
 * Reflection Adaptation, 2024. */
#include <math.h>

#include "adapter/factor.h"
#include "adapter/save.h"

/* What a module keeps of the configuration. */
typedef struct hra {
    bool orthogonal; /* apply_GS */
    bool told;
} hra;

static const hra *hra_of(const wf_module *m)
{
    return m->extra;
}

static weft_status settle(wf_module *m, const wf_settings *s, const wf_config *config,
                          const char *path, weft_error *err)
{
    hra *extra = m->extra;

    (void)s, (void)path, (void)err;
    extra->told = config != NULL;
    extra->orthogonal = config != NULL && wf_config_true(config, "apply_GS");
    return WEFT_OK;
}

/* Has column i a value other than zero? */
static bool points(const wf_tensor *t, size_t i)
{
    size_t rows = (size_t)t->shape[0], r = (size_t)t->shape[1];
    float  v = 0;

    for (size_t k = 0; k < rows && v == 0; k++) wf_tensor_read(t, k * r + i, 1, &v);
    return v != 0;
}

static weft_status shape(wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *t = m->tensor[WF_TENSOR_HRA_U];

    if (t->rank != 2) return wf_module_wrong_shape(t, source, "(columns, r)", err);
    if (!hra_of(m)->told)
        return wf_module_fail(m, source, err,
                              "no configuration says whether apply_GS is set: keep "
                              "adapter_config.json beside the file");
    m->rank = (int32_t)t->shape[1];
    m->in = (int32_t)t->shape[0];
    m->out = 0;
    m->kernel = 1;
    m->scale = 1;
    for (size_t i = 0; i < (size_t)m->rank; i++)
        if (!points(t, i))
            return wf_module_fail(m, source, err,
                                  "column %zu of hra_u is zero: it has no direction to reflect in",
                                  i);
    return WEFT_OK;
}

static bool fits(const wf_module *m, const wf_layer *l)
{
    return l->kind != WEFT_LAYER_NORM &&
           (size_t)m->in == (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel;
}

static double dot(const double *a, const double *b, size_t n)
{
    double sum = 0;

    for (size_t k = 0; k < n; k++) sum += a[k] * b[k];
    return sum;
}

/* U (r, K): the directions, each of length 1. False if one of them lies within those before it. */
static bool read_directions(const wf_module *m, size_t r, size_t K, double *U)
{
    for (size_t i = 0; i < r; i++) {
        double *u = U + i * K, length;
        for (size_t k = 0; k < K; k++) {
            float v;
            wf_tensor_read(m->tensor[WF_TENSOR_HRA_U], k * r + i, 1, &v);
            u[k] = v;
        }
        for (size_t j = 0; hra_of(m)->orthogonal && j < i; j++) {
            double along = dot(U + j * K, u, K);
            for (size_t k = 0; k < K; k++) u[k] -= along * U[j * K + k];
        }
        length = sqrt(dot(u, u, K));
        if (!(length > 0)) return false;
        for (size_t k = 0; k < K; k++) u[k] /= length;
    }
    return true;
}

/* One row w of W becomes w' - w. */
static void reflect(double *w, const float *row, const double *U, size_t r, size_t K)
{
    for (size_t k = 0; k < K; k++) w[k] = row[k];
    for (size_t i = 0; i < r; i++) {
        const double *u = U + i * K;
        double        twice = 2 * dot(w, u, K);
        for (size_t k = 0; k < K; k++) w[k] -= twice * u[k];
    }
    for (size_t k = 0; k < K; k++) w[k] -= row[k];
}

static weft_status add(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                       const weft_allocator *alloc, weft_error *err)
{
    size_t      r = (size_t)m->rank, K = (size_t)m->in, out = (size_t)l->out;
    double     *U = wf_zalloc(alloc, (r + 1) * K, sizeof *U); /* little more than the tensor */
    float      *W = wf_zalloc(alloc, 2 * K, sizeof *W);
    weft_status st = WEFT_OK;

    if (U == NULL || W == NULL) {
        st = wf_nomem(err, (r + 2) * K * sizeof *U, "reflections of a layer");
        goto done;
    }
    double *w = U + r * K;
    float  *delta = W + K;
    if (!read_directions(m, r, K, U)) {
        st = wf_fail(err, WEFT_E_FORMAT,
                     "%s: a column of hra_u lies within those before it, and apply_GS leaves "
                     "nothing of it", m->key);
        goto done;
    }
    for (size_t o = 0; o < out; o++) {
        wf_layer_rows_as_stored(l, o, 1, W);
        reflect(w, W, U, r, K);
        for (size_t k = 0; k < K; k++) delta[k] = (float)w[k];
        wf_add_as_stored(l, o, 1, delta, scale * c, dst);
    }
done:
    wf_free(alloc, W);
    wf_free(alloc, U);
    return st;
}

/* ---- PEFT's configuration -------------------------------------------------------------------- */

static const wf_peft_type peft_types[] = {
    { .name = "HRA", .known_by = WF_BIT(WF_TENSOR_HRA_U), .rank = "r" },
    { .name = NULL },
};

static weft_status write_peft(const wf_peft_writer *w)
{
    const wf_module *one = wf_peft_first(w);

    for WF_EACH(w, i) {
        const wf_module *m = wf_peft_module(w, i);
        if (m->rank != one->rank || hra_of(m)->orthogonal != hra_of(one)->orthogonal)
            return wf_peft_refuse(w, i, "has another rank or apply_GS than the others");
    }
    wf_peft_common(w, "init_weights");
    wf_peft_value(w, "r", one->rank);
    wf_peft_bool(w, "apply_GS", hra_of(one)->orthogonal);
    wf_peft_text(w, "bias", "none");
    return WEFT_OK;
}

const wf_family wf_family_hra = {
    .name = "hra",
    .title = "HRA",
    .of_weight = true,
    .needs = WF_BIT(WF_TENSOR_HRA_U),
    .extra_size = sizeof(hra),
    .settle = settle,
    .shape = shape,
    .fits = fits,
    .form = wf_form_dense,
    .add = add,
    .dialects = 1 << WEFT_DIALECT_PEFT,
    .peft_types = peft_types,
    .write_peft = write_peft,
};
