/* svd.c - the best factors of a matrix: its largest singular values and their vectors.
 *
 * D (m, n), of p = min(m, n). The eigenvectors of D D^T, or of D^T D if that is smaller, are the
 * singular vectors of one side, and the other side is D applied to them: so the product is D
 * projected, exact to the last bits whatever the vectors' own error. It is done in double, where
 * the squares of what float32 holds keep all their digits.
 *
 * A sum of pairs has a low rank already. Its factors are made orthonormal, D = Qb^T C Qa, and C,
 * a few hundred rows at most, is decomposed in D's place.
 *
 *   up = U S, down = V^T: as PEFT and kohya store them. The largest entry of each row of down is
 *   positive, so that clamping, which depends on signs, does the same everywhere.
 *
 * Singular values below the largest times float's epsilon are rounding, and are left out. */
#include <float.h>
#include <math.h>

#include "merge/merge_internal.h"
#include "tensor/gemm.h"
#include "tensor/linalg.h"

enum { BLOCK = 256 }; /* rows or columns of D that are turned at once */

/* U S (m, rank) and V^T (rank, n). */
typedef struct decomposed {
    double *left;
    double *right;
    size_t  rank;
} decomposed;

static double *doubles(wf_bag *bag, size_t rows, size_t columns, weft_error *err)
{
    size_t  count;
    double *d = wf_mul(rows, columns, &count) ? wf_bag_take(bag, count, sizeof *d) : NULL;

    if (d == NULL) (void)wf_nomem(err, rows * columns * sizeof *d, "a decomposition");
    return d;
}

/* G (p, p) = D D^T if m <= n, else D^T D. */
static weft_status gram(const double *D, size_t m, size_t n, double *G, wf_bag *bag,
                        weft_error *err)
{
    size_t  p = WF_MIN(m, n), length = WF_MAX(m, n);
    bool    wide = m <= n;
    double *turned = doubles(bag, BLOCK, p, err);

    if (turned == NULL) return WEFT_E_NOMEM;
    for (size_t from = 0; from < length; from += BLOCK) {
        size_t count = WF_MIN((size_t)BLOCK, length - from);
        for (size_t i = 0; i < p; i++)
            for (size_t j = 0; j < count; j++) {
                if (wide) turned[j * p + i] = D[i * n + from + j];
                else turned[i * count + j] = D[(from + j) * n + i];
            }
        if (wide) wf_gemm_double(G, p, D + from, n, turned, p, p, p, count, 1, from > 0);
        else wf_gemm_double(G, p, turned, count, D + from * n, n, p, p, count, 1, from > 0);
    }
    return WEFT_OK;
}

/* The vectors of the other side with their lengths in them: P (r, n) = E D if m <= n, else P (m, r)
 * = D E^T. */
static weft_status project(const double *D, size_t m, size_t n, const double *E, size_t r,
                           double *P, wf_bag *bag, weft_error *err)
{
    double *turned;

    if (m <= n) {
        wf_gemm_double(P, n, E, m, D, n, r, n, m, 1, 0);
        return WEFT_OK;
    }
    if ((turned = doubles(bag, n, r, err)) == NULL) return WEFT_E_NOMEM;
    for (size_t i = 0; i < r; i++)
        for (size_t j = 0; j < n; j++) turned[j * r + i] = E[i * n + j];
    wf_gemm_double(P, r, D, n, turned, r, m, r, n, 1, 0);
    return WEFT_OK;
}

typedef struct value { double s; size_t at; } value;

static int larger_first(const void *a, const void *b)
{
    const value *x = a, *y = b;

    if (x->s != y->s) return x->s > y->s ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* How many of the values are kept; total is the square of all of D. */
static size_t choose(const value *v, size_t count, double total, wf_merge_bound bound)
{
    double rest = total;
    size_t k = 0;

    if (bound.rank > 0) count = WF_MIN(count, bound.rank);
    for (; k < count && v[k].s > (double)FLT_EPSILON * v[0].s; k++) {
        if (bound.error > 0 && rest <= bound.error * bound.error * total) break;
        rest -= v[k].s * v[k].s;
    }
    return k;
}

/* Values with the rows of P that they are the lengths of, the largest first. */
static void order(const double *P, size_t m, size_t n, size_t r, value *v)
{
    for (size_t i = 0; i < r; i++) {
        double s = 0;
        for (size_t j = 0; j < (m <= n ? n : m); j++) {
            double x = m <= n ? P[i * n + j] : P[j * r + i];
            s += x * x;
        }
        v[i] = (value){ sqrt(s), i };
    }
    wf_sort(v, r, sizeof *v, larger_first);
}

static void take(const double *P, const double *E, size_t m, size_t n, size_t r, const value *v,
                 decomposed *out)
{
    for (size_t k = 0; k < out->rank; k++) {
        size_t at = v[k].at;
        for (size_t i = 0; i < m; i++)
            out->left[i * out->rank + k] = m <= n ? E[at * m + i] * v[k].s : P[i * r + at];
        for (size_t j = 0; j < n; j++)
            out->right[k * n + j] = m <= n ? P[at * n + j] / v[k].s : E[at * n + j];
    }
}

static weft_status decompose(const double *D, size_t m, size_t n, wf_merge_bound bound, wf_bag *bag,
                             decomposed *out, weft_error *err)
{
    size_t  p = WF_MIN(m, n), r = bound.rank > 0 ? WF_MIN(bound.rank, p) : p;
    double *G = doubles(bag, p, p, err), *E, *P, *work, total = 0;
    value  *v = wf_bag_take(bag, r, sizeof *v);

    if (G == NULL || v == NULL || (E = doubles(bag, r, p, err)) == NULL ||
        (P = doubles(bag, r, WF_MAX(m, n), err)) == NULL ||
        (work = doubles(bag, wf_top_vectors_work(p), 1, err)) == NULL)
        return wf_nomem(err, p * p * sizeof *G, "a decomposition");
    WF_TRY(gram(D, m, n, G, bag, err));
    for (size_t i = 0; i < p; i++) total += G[i * p + i];
    out->rank = 0;
    if (total == 0) return WEFT_OK;
    if (!wf_top_vectors(E, G, p, r, work))
        return wf_fail(err, WEFT_E_INTERNAL,
                       "the singular values of a %zu x %zu matrix are not found", m, n);
    WF_TRY(project(D, m, n, E, r, P, bag, err));
    order(P, m, n, r, v);
    out->rank = choose(v, r, total, bound);
    out->left = doubles(bag, m, out->rank, err);
    out->right = doubles(bag, out->rank, n, err);
    if (out->left == NULL || out->right == NULL) return WEFT_E_NOMEM;
    take(P, E, m, n, r, v, out);
    return WEFT_OK;
}

/* ---- as factors ------------------------------------------------------------------------------ */

static int ascending(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

/* Both factors within +- the quantile of the entries of both, between two entries in proportion. */
static weft_status clamp(const wf_merge_factors *f, size_t m, size_t n, double quantile,
                         wf_bag *bag, weft_error *err)
{
    size_t ups = m * f->rank, downs = f->rank * n, all = ups + downs;
    float *sorted = wf_bag_take(bag, all, sizeof *sorted);
    double at = quantile * (double)(all - 1);
    size_t low = (size_t)at;

    if (sorted == NULL) return wf_nomem(err, all * sizeof *sorted, "a quantile");
    memcpy(sorted, f->up, ups * sizeof *sorted);
    memcpy(sorted + ups, f->down, downs * sizeof *sorted);
    wf_sort(sorted, all, sizeof *sorted, ascending);
    double a = sorted[low], b = sorted[WF_MIN(low + 1, all - 1)];
    float  most = (float)fabs(a + (b - a) * (at - (double)low));
    for (size_t i = 0; i < ups; i++) f->up[i] = WF_MAX(-most, WF_MIN(most, f->up[i]));
    for (size_t i = 0; i < downs; i++) f->down[i] = WF_MAX(-most, WF_MIN(most, f->down[i]));
    return WEFT_OK;
}

static double sign_of_largest(const double *row, size_t n)
{
    size_t best = 0;

    for (size_t j = 1; j < n; j++)
        if (fabs(row[j]) > fabs(row[best])) best = j;
    return row[best] < 0 ? -1 : 1;
}

static weft_status as_floats(const decomposed *d, size_t m, size_t n, double quantile, wf_bag *bag,
                             wf_merge_factors *out, weft_error *err)
{
    size_t r = d->rank;

    *out = (wf_merge_factors){ NULL, NULL, r };
    if (r == 0) return WEFT_OK;
    out->up = wf_bag_take(bag, m * r, sizeof *out->up);
    out->down = wf_bag_take(bag, r * n, sizeof *out->down);
    if (out->up == NULL || out->down == NULL)
        return wf_nomem(err, (m + n) * r * sizeof *out->up, "factors");
    for (size_t k = 0; k < r; k++) {
        double sign = sign_of_largest(d->right + k * n, n);
        for (size_t i = 0; i < m; i++) out->up[i * r + k] = (float)(sign * d->left[i * r + k]);
        for (size_t j = 0; j < n; j++) out->down[k * n + j] = (float)(sign * d->right[k * n + j]);
    }
    return quantile > 0 ? clamp(out, m, n, quantile, bag, err) : WEFT_OK;
}

weft_status wf_merge_factor(const float *D, size_t m, size_t n, wf_merge_bound bound, wf_bag *bag,
                            wf_merge_factors *out, weft_error *err)
{
    double    *wide = doubles(bag, m, n, err);
    decomposed d;

    if (wide == NULL) return WEFT_E_NOMEM;
    for (size_t i = 0; i < m * n; i++) wide[i] = D[i];
    WF_TRY(decompose(wide, m, n, bound, bag, &d, err));
    return as_floats(&d, m, n, bound.clamp, bag, out, err);
}

/* Q (R, n) with orthonormal rows and L (R, R) such that X (R, n) = L Q; X is the transpose of
 * what is given if `turn`. */
static weft_status split(const float *given, size_t R, size_t n, bool turn, double **Q, double **L,
                         wf_bag *bag, weft_error *err)
{
    double *X = doubles(bag, R, n, err), *turned = doubles(bag, n, R, err),
           *work = doubles(bag, wf_orthonormal_work(R), 1, err);

    *Q = doubles(bag, R, n, err);
    *L = doubles(bag, R, R, err);
    if (X == NULL || turned == NULL || work == NULL || *Q == NULL || *L == NULL)
        return WEFT_E_NOMEM;
    for (size_t p = 0; p < R; p++)
        for (size_t j = 0; j < n; j++) X[p * n + j] = turn ? given[j * R + p] : given[p * n + j];
    memcpy(*Q, X, R * n * sizeof *X);
    if (!wf_orthonormal(*Q, R, n, work))
        return wf_fail(err, WEFT_E_INTERNAL, "%zu rows of %zu do not become orthonormal", R, n);
    for (size_t p = 0; p < R; p++)
        for (size_t j = 0; j < n; j++) turned[j * R + p] = (*Q)[p * n + j];
    wf_gemm_double(*L, R, X, n, turned, R, R, R, n, 1, 0);
    return WEFT_OK;
}

weft_status wf_merge_factor_pair(const float *up, const float *down, size_t m, size_t n, size_t R,
                                 wf_merge_bound bound, wf_bag *bag, wf_merge_factors *out,
                                 weft_error *err)
{
    double    *Qa, *La, *Qb, *Lb, *turned, *C;
    decomposed core, d;

    WF_TRY(split(down, R, n, false, &Qa, &La, bag, err));
    WF_TRY(split(up, R, m, true, &Qb, &Lb, bag, err));
    if ((turned = doubles(bag, R, WF_MAX(R, m), err)) == NULL ||
        (C = doubles(bag, R, R, err)) == NULL)
        return WEFT_E_NOMEM;
    for (size_t p = 0; p < R; p++)
        for (size_t q = 0; q < R; q++) turned[p * R + q] = Lb[q * R + p];
    wf_gemm_double(C, R, turned, R, La, R, R, R, R, 1, 0); /* Lb^T La */
    WF_TRY(decompose(C, R, R, bound, bag, &core, err));
    d = (decomposed){ doubles(bag, m, core.rank, err), doubles(bag, core.rank, n, err), core.rank };
    if (d.left == NULL || d.right == NULL) return WEFT_E_NOMEM;
    for (size_t p = 0; p < R; p++)
        for (size_t i = 0; i < m; i++) turned[i * R + p] = Qb[p * m + i];
    if (core.rank > 0) {
        wf_gemm_double(d.left, core.rank, turned, R, core.left, core.rank, m, core.rank, R, 1, 0);
        wf_gemm_double(d.right, n, core.right, R, Qa, n, core.rank, n, R, 1, 0);
    }
    return as_floats(&d, m, n, bound.clamp, bag, out, err);
}
