/* hra.c - Householder reflections of a layer's inputs.
 *
 *   hra_u (columns, r)    W's columns in the order (in, ky, kx)
 *   W' = W (I - 2 u_1 u_1^T) (I - 2 u_2 u_2^T) ..    u_i the columns of hra_u at length 1
 *
 * With apply_GS in the configuration the columns are first made orthogonal, each to those before it
 * (Gram and Schmidt). The same product then stands for what PEFT writes as I - 2 U U^T. A column of
 * zeros has no direction, and PEFT makes a weight without numbers of it: refused. The bias stays.
 *
 * All reflections together take away a product of rank r, W U^T (T U) with U's rows the directions
 * and T triangular (Schreiber and Van Loan, 1989), so that W is multiplied twice however many there
 * are.
 *
 * Yuan et al., Bridging the Gap between Low-Rank and Orthogonal Adaptation via Householder
 * Reflection Adaptation, 2024. */
#include <math.h>

#include "adapter/factor.h"
#include "adapter/save.h"
#include "tensor/gemm.h"

/* What a module keeps of the configuration. */
typedef struct hra {
    bool orthogonal; /* apply_GS */
    bool told;
} hra;

/* More of them than columns say nothing that fewer could not; a small layer may have that. The
 * triangle of a few bytes for each must not ask for gigabytes. */
enum { MOST_RANKS = 4096 };

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
    if (t->shape[1] > WF_MAX(t->shape[0], (int64_t)MOST_RANKS))
        return wf_module_wrong_shape(t, source, "no more reflections than columns", err);
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

/* T (r, r), upper triangular, so that the product of the reflections is I - U^T T U. */
static void fill_triangle(double *T, const double *U, size_t r, size_t K)
{
    for (size_t k = 0; k < r; k++) {
        T[k * r + k] = 2;
        for (size_t j = 0; j < k; j++) {
            double along = dot(U + j * K, U + k * K, K);
            for (size_t i = 0; i <= j; i++) T[i * r + k] -= 2 * T[i * r + j] * along;
        }
    }
}

/* down (r, K) = T U, as floats, and U as well. */
static void narrow(float *down, float *directions, const double *T, const double *U, double *row,
                   size_t r, size_t K)
{
    for (size_t i = 0; i < r; i++) {
        memset(row, 0, K * sizeof *row);
        for (size_t j = i; j < r; j++)
            for (size_t k = 0; k < K; k++) row[k] += T[i * r + j] * U[j * K + k];
        for (size_t k = 0; k < K; k++) {
            down[i * K + k] = (float)row[k];
            directions[i * K + k] = (float)U[i * K + k];
        }
    }
}

/* W' - W = -(W U^T) (T U), a strip of rows at a time. */
static weft_status add(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                       const weft_allocator *alloc, weft_error *err)
{
    size_t      r = (size_t)m->rank, K = (size_t)m->in, out = (size_t)l->out;
    size_t      doubles = r * K + r * r + K, floats = 2 * r * K + WF_STRIP * (2 * K + r);
    double     *U = wf_zalloc(alloc, doubles, sizeof *U); /* in step with the tensor of the file */
    float      *down = wf_zalloc(alloc, floats, sizeof *down);
    weft_status st = WEFT_OK;

    if (U == NULL || down == NULL) {
        st = wf_nomem(err, doubles * sizeof *U + floats * sizeof *down, "reflections of a layer");
        goto done;
    }
    double *T = U + r * K;
    float  *directions = down + r * K, *W = directions + r * K, *delta = W + WF_STRIP * K,
           *along = delta + WF_STRIP * K;
    if (!read_directions(m, r, K, U)) {
        st = wf_fail(err, WEFT_E_FORMAT,
                     "%s: a column of hra_u lies within those before it, and apply_GS leaves "
                     "nothing of it", m->key);
        goto done;
    }
    fill_triangle(T, U, r, K);
    narrow(down, directions, T, U, T + r * r, r, K);
    for (size_t o = 0; o < out; o += WF_STRIP) {
        size_t n = WF_MIN((size_t)WF_STRIP, out - o);
        wf_layer_rows_as_stored(l, o, n, W);
        wf_gemm_nt(along, r, W, K, directions, K, n, r, K, 0);
        wf_gemm_nn(delta, K, along, r, down, K, n, K, r, 0);
        wf_add_as_stored(l, o, n, delta, -scale * c, dst);
    }
done:
    wf_free(alloc, down);
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
