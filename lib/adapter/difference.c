/* difference.c - what adapters do to one layer, held beside each other.
 *
 * A difference of two factors is never multiplied out: <B1 A1, B2 A2> is the sum over the r1 r2
 * entries of (B1^T B2) * (A1 A2^T), so a norm or a cosine costs r1 r2 (in + out). Signs are only
 * known of the product itself; that is formed a row at a time. Other families are formed whole, one
 * layer at a time. Column spaces are those of factors only. Sums are in double. */
#include <math.h>

#include "adapter/adapter_internal.h"
#include "adapter/difference.h"

/* ---- loading --------------------------------------------------------------------------------- */

/* (r, out) and (r, K), or D. */
static weft_status load_pair(wf_difference *d, const wf_module *m, const wf_layer *l,
                             const weft_allocator *alloc, weft_error *err)
{
    size_t floats;

    d->r = (size_t)wf_module_pair_rank(m);
    if (!wf_mul(d->r, d->K + d->out, &floats))
        return wf_fail(err, WEFT_E_ARG, "%s: the factors are too large", m->key);
    d->A = wf_zalloc(alloc, floats, sizeof *d->A);
    if (d->A == NULL) return wf_nomem(err, floats * sizeof *d->A, "a layer's difference");
    d->B = d->A + d->r * d->K;
    return wf_module_pair(m, l, d->A, d->B, alloc, err);
}

weft_status wf_difference_load(wf_difference *d, const weft_adapter *a, const wf_slice *slice,
                               int32_t count, const wf_layer *l, bool ignore_alpha,
                               const weft_allocator *alloc, weft_error *err)
{
    const wf_module *m = wf_adapter_module(a, (size_t)slice->module);
    size_t           K = (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel, entries;
    weft_status      st = WEFT_OK;

    *d = (wf_difference){ .out = (size_t)l->out, .K = K, .scale = 1 };
    if (!wf_mul(d->out, K, &entries))
        return wf_fail(err, WEFT_E_ARG, "%s: the product is too large", m->key);
    if (count == 1 && wf_slice_whole(slice, l) && wf_module_form(m, l) == WF_FORM_PAIR) {
        d->scale = ignore_alpha ? 1 : (double)m->scale;
        st = load_pair(d, m, l, alloc, err);
    } else {
        d->D = wf_zalloc(alloc, entries, sizeof *d->D);
        if (d->D == NULL) return wf_nomem(err, entries * sizeof *d->D, "a layer's difference");
        for (int32_t i = 0; i < count && st == WEFT_OK; i++) {
            m = wf_adapter_module(a, (size_t)slice[i].module);
            st = wf_slice_add(&slice[i], m, l, ignore_alpha ? 1 : (double)m->scale, 1, 1, d->D,
                              alloc, err);
        }
    }
    if (st != WEFT_OK) wf_difference_free(d, alloc);
    return st;
}

void wf_difference_free(wf_difference *d, const weft_allocator *alloc)
{
    wf_free(alloc, d->A);
    wf_free(alloc, d->D);
    *d = (wf_difference){ 0 };
}

/* ---- products -------------------------------------------------------------------------------- */

/* Four partial sums, so that additions need not wait for each other. */
static double dot(const float *a, const float *b, size_t n)
{
    double s[4] = { 0 };
    size_t i = 0;

    for (; i + 4 <= n; i += 4)
        for (size_t j = 0; j < 4; j++) s[j] += (double)a[i + j] * (double)b[i + j];
    for (; i < n; i++) s[0] += (double)a[i] * (double)b[i];
    return s[0] + s[1] + (s[2] + s[3]);
}

/* Row o: D[o,:], formed in `row` if need be. */
static const float *row_of(const wf_difference *d, size_t o, float *row)
{
    if (d->D != NULL) return d->D + o * d->K;
    memset(row, 0, d->K * sizeof *row);
    for (size_t p = 0; p < d->r; p++) {
        float        b = (float)(d->scale * (double)d->B[p * d->out + o]);
        const float *A = d->A + p * d->K;
        for (size_t k = 0; k < d->K; k++) row[k] += b * A[k];
    }
    return row;
}

static double dot_of_factors(const wf_difference *x, const wf_difference *y)
{
    double sum = 0;

    for (size_t p = 0; p < x->r; p++)
        for (size_t q = 0; q < y->r; q++)
            sum += dot(x->B + p * x->out, y->B + q * y->out, x->out) *
                   dot(x->A + p * x->K, y->A + q * y->K, x->K);
    return sum * x->scale * y->scale;
}

weft_status wf_difference_dot(double *sum, const wf_difference *x, const wf_difference *y,
                              const weft_allocator *alloc, weft_error *err)
{
    float *rows;

    *sum = 0;
    if (x->D == NULL && y->D == NULL) {
        *sum = dot_of_factors(x, y);
        return WEFT_OK;
    }
    rows = wf_zalloc(alloc, 2 * x->K, sizeof *rows);
    if (rows == NULL) return wf_nomem(err, 2 * x->K * sizeof *rows, "rows of two differences");
    for (size_t o = 0; o < x->out; o++)
        *sum += dot(row_of(x, o, rows), row_of(y, o, rows + x->K), x->K);
    wf_free(alloc, rows);
    return WEFT_OK;
}

weft_status wf_slices_energy(const weft_adapter *a, const wf_slice *slice, int32_t count,
                             const wf_layer *l, bool ignore_alpha, double *energy,
                             const weft_allocator *alloc, weft_error *err)
{
    wf_difference d;
    weft_status   st;

    WF_TRY(wf_difference_load(&d, a, slice, count, l, ignore_alpha, alloc, err));
    st = wf_difference_dot(energy, &d, &d, alloc, err);
    *energy = *energy > 0 ? sqrt(*energy) : 0; /* rounding may leave less than nothing of nothing */
    wf_difference_free(&d, alloc);
    return st;
}

/* ---- signs ----------------------------------------------------------------------------------- */

weft_status wf_difference_clash(double *compared, double *clashes, const wf_difference *x,
                                const wf_difference *y, const weft_allocator *alloc,
                                weft_error *err)
{
    float *rows = wf_zalloc(alloc, 2 * x->K, sizeof *rows);

    *compared = *clashes = 0;
    if (rows == NULL) return wf_nomem(err, 2 * x->K * sizeof *rows, "rows of two differences");
    for (size_t o = 0; o < x->out; o++) {
        const float *a = row_of(x, o, rows), *b = row_of(y, o, rows + x->K);
        size_t       both = 0, differ = 0;
        for (size_t k = 0; k < x->K; k++) {
            bool there = a[k] != 0 && b[k] != 0;
            both += there;
            differ += there && (a[k] < 0) != (b[k] < 0);
        }
        *compared += (double)both;
        *clashes += (double)differ;
    }
    wf_free(alloc, rows);
    return WEFT_OK;
}

/* ---- column spaces --------------------------------------------------------------------------- */

static double dot64(const double *a, const double *b, size_t n)
{
    double s = 0;
    for (size_t i = 0; i < n; i++) s += a[i] * b[i];
    return s;
}

static void take_away(double *v, const double *q, size_t n)
{
    double c = dot64(q, v, n);
    for (size_t i = 0; i < n; i++) v[i] -= c * q[i];
}

/* Make the n rows of v (n, len) orthonormal, the longest that is left first, and say how many there
 * are: what is left of a row that others span is rounding. */
static size_t orthonormalize(double *v, size_t n, size_t len)
{
    static const double NOTHING = 1e-12; /* of the longest row's square: float32 has 1e-7 of a row */
    double first = 0;

    for (size_t k = 0; k < n; k++) {
        size_t  best = k;
        double  most = -1;
        double *q = v + k * len;
        for (size_t i = k; i < n; i++) {
            double s = dot64(v + i * len, v + i * len, len);
            if (s > most) {
                most = s;
                best = i;
            }
        }
        if (k == 0) first = most;
        if (!(most > NOTHING * first)) return k;
        for (size_t i = 0; i < len && best != k; i++) {
            double x = q[i];
            q[i] = v[best * len + i];
            v[best * len + i] = x;
        }
        for (size_t j = 0; j < k; j++) take_away(q, v + j * len, len); /* again, after much went */
        most = sqrt(dot64(q, q, len));
        for (size_t i = 0; i < len; i++) q[i] /= most;
        for (size_t i = k + 1; i < n; i++) take_away(v + i * len, q, len);
    }
    return n;
}

/* The columns of B^T A are those of B^T L, where A = L Q with orthonormal rows of Q: so rows of A
 * that others span, or that are zero, count for nothing. */
static size_t basis_of(double *U, double *Q, double *L, const wf_difference *d)
{
    size_t rank;

    for (size_t i = 0; i < d->r * d->K; i++) Q[i] = (double)d->A[i];
    rank = orthonormalize(Q, d->r, d->K);
    for (size_t p = 0; p < d->r; p++)
        for (size_t j = 0; j < rank; j++) {
            double s = 0;
            for (size_t k = 0; k < d->K; k++) s += (double)d->A[p * d->K + k] * Q[j * d->K + k];
            L[p * rank + j] = s;
        }
    for (size_t j = 0; j < rank; j++)
        for (size_t o = 0; o < d->out; o++) {
            double s = 0;
            for (size_t p = 0; p < d->r; p++) s += (double)d->B[p * d->out + o] * L[p * rank + j];
            U[j * d->out + o] = s;
        }
    return orthonormalize(U, rank, d->out);
}

weft_status wf_difference_basis(double **basis, size_t *rank, const wf_difference *d,
                                const weft_allocator *alloc, weft_error *err)
{
    size_t  floats = d->r * (d->K + d->r);
    double *work;

    *basis = NULL;
    *rank = 0;
    if (d->D != NULL) return WEFT_OK;
    *basis = wf_zalloc(alloc, d->r * d->out, sizeof **basis);
    work = wf_zalloc(alloc, floats, sizeof *work);
    if (*basis == NULL || work == NULL) {
        wf_free(alloc, *basis);
        wf_free(alloc, work);
        *basis = NULL;
        return wf_nomem(err, floats * sizeof *work, "the columns of a difference");
    }
    if (d->scale != 0) *rank = basis_of(*basis, work, work + d->r * d->K, d);
    wf_free(alloc, work);
    return WEFT_OK;
}

double wf_basis_overlap(const double *x, size_t x_rank, const double *y, size_t y_rank, size_t out)
{
    double sum = 0;

    for (size_t i = 0; i < x_rank; i++)
        for (size_t j = 0; j < y_rank; j++) {
            double c = dot64(x + i * out, y + j * out, out);
            sum += c * c;
        }
    return sum / (double)WF_MIN(x_rank, y_rank);
}
