/* solve.c - the least squares behind both ways of fusion, in double.
 *
 * A layer reads rows X (m, K), and shall give R (m, out) more than it does. In both ways the new
 * difference is R^T E with a matrix E (m, K) that depends on the rows alone, so layers that read
 * the same share it. Where rows are few, m < K, E comes from an m x m system; else from a K x K
 * one.
 *
 * Systems are symmetric and, but for rounding, positive: Cholesky. One that is not gets a growing
 * part of its mean diagonal added, from 1e-8 on; past 1e-4 of it the answer would be another
 * problem's, and is refused. */
#include "fuse/fuse_internal.h"
#include "tensor/gemm.h"
#include "tensor/linalg.h"

static const double FIRST_JITTER = 1e-8, LAST_JITTER = 2e-4;

static double mean_diagonal(const double *M, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += M[i * n + i];
    return n > 0 ? sum / (double)n : 0;
}

/* M (n, n), symmetric, becomes a factor of M + jitter I; what is above the diagonal stays. */
static weft_status factor(double *M, size_t n, double *jitter, const char *what,
                          const weft_allocator *alloc, weft_error *err)
{
    double *diagonal = wf_zalloc(alloc, n, sizeof *diagonal), mean = mean_diagonal(M, n);
    double  add = 0;
    bool    found;

    if (diagonal == NULL) return wf_nomem(err, n * sizeof *diagonal, "a diagonal");
    for (size_t i = 0; i < n; i++) diagonal[i] = M[i * n + i];
    while (!(found = wf_cholesky(M, n)) && mean > 0 && add * 10 < LAST_JITTER) {
        add = add == 0 ? FIRST_JITTER : add * 10;
        for (size_t i = 0; i < n; i++) {
            for (size_t k = 0; k < i; k++) M[i * n + k] = M[k * n + i];
            M[i * n + i] = diagonal[i] + add * mean;
        }
    }
    wf_free(alloc, diagonal);
    *jitter = WF_MAX(*jitter, add);
    if (found) return WEFT_OK;
    return wf_fail(err, WEFT_E_UNSUPPORTED,
                   "%s: the rows that it reads leave no solution in double precision", what);
}

/* to (n, m) = x (m, n) turned over. */
static void transpose(double *to, const double *x, size_t m, size_t n)
{
    for (size_t i = 0; i < m; i++)
        for (size_t k = 0; k < n; k++) to[k * m + i] = x[i * n + k];
}

static void mirror(double *M, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < i; k++) M[k * n + i] = M[i * n + k];
}

/* E (m, K) = S^-1 D, with S (m, m), which is lost; t (K, m) is scratch. */
static weft_status solve_rows(double *E, double *S, const double *D, double *t, size_t m, size_t K,
                              double *jitter, const char *what, const weft_allocator *alloc,
                              weft_error *err)
{
    WF_TRY(factor(S, m, jitter, what, alloc, err));
    transpose(t, D, m, K);
    wf_cholesky_solve(S, m, t, K);
    transpose(E, t, K, m);
    return WEFT_OK;
}

/* Scratch for S (m, m) and a turned (K, m). */
static double *take(size_t m, size_t K, const weft_allocator *alloc, weft_error *err)
{
    size_t  n, bytes = SIZE_MAX;
    double *scratch = NULL;

    if (wf_add(m, K, &n) && wf_mul(n, m, &n) && wf_mul(n, sizeof *scratch, &bytes))
        scratch = wf_alloc(alloc, bytes);
    if (scratch == NULL) (void)wf_nomem(err, bytes, "rows that a layer reads");
    return scratch;
}

weft_status wf_fuse_constrain(double *E, const double *X, size_t m, size_t K, double *H,
                              double *jitter, const char *what, const weft_allocator *alloc,
                              weft_error *err)
{
    double *S = take(m, K, alloc, err);

    *jitter = 0;
    if (S == NULL) return WEFT_E_NOMEM;
    double     *t = S + m * m;
    weft_status st = factor(H, K, jitter, what, alloc, err);
    if (st == WEFT_OK) {
        memcpy(E, X, m * K * sizeof *E);
        wf_cholesky_solve(H, K, E, m); /* X H^-1 */
        transpose(t, E, m, K);
        wf_gemm_double(S, m, X, K, t, m, m, m, K, 1, 0);
        mirror(S, m);
        st = solve_rows(E, S, E, t, m, K, jitter, what, alloc, err);
    }
    wf_free(alloc, S);
    return st;
}

weft_status wf_fuse_factor(double *M, size_t K, double ridge, double *jitter, const char *what,
                           const weft_allocator *alloc, weft_error *err)
{
    double add = ridge * mean_diagonal(M, K);

    *jitter = 0;
    for (size_t i = 0; i < K; i++) M[i * K + i] += add;
    return factor(M, K, jitter, what, alloc, err);
}

weft_status wf_fuse_mix(double *Q, double *G, size_t R, double ridge, double *jitter,
                        const char *what, const weft_allocator *alloc, weft_error *err)
{
    WF_TRY(wf_fuse_factor(G, R, ridge, jitter, what, alloc, err));
    wf_cholesky_solve(G, R, Q, R);
    return WEFT_OK;
}

/* E = X (X^T X + l I)^-1, for many rows. */
static weft_status ridge_by_columns(double *E, const double *X, size_t m, size_t K, double ridge,
                                    double *jitter, const char *what, const weft_allocator *alloc,
                                    weft_error *err)
{
    double *M = wf_zalloc(alloc, K * K, sizeof *M);

    if (M == NULL) return wf_nomem(err, K * K * sizeof *M, "sums over the rows that a layer reads");
    wf_gram_double(M, K, X, m);
    mirror(M, K);
    weft_status st = wf_fuse_factor(M, K, ridge, jitter, what, alloc, err);
    if (st == WEFT_OK) {
        memcpy(E, X, m * K * sizeof *E);
        wf_cholesky_solve(M, K, E, m);
    }
    wf_free(alloc, M);
    return st;
}

weft_status wf_fuse_ridge(double *E, const double *X, size_t m, size_t K, double ridge,
                          double *jitter, const char *what, const weft_allocator *alloc,
                          weft_error *err)
{
    if (m >= K) return ridge_by_columns(E, X, m, K, ridge, jitter, what, alloc, err);
    double *S = take(m, K, alloc, err), add;

    *jitter = 0;
    if (S == NULL) return WEFT_E_NOMEM;
    double *t = S + m * m;
    transpose(t, X, m, K);
    wf_gemm_double(S, m, X, K, t, m, m, m, K, 1, 0);
    mirror(S, m);
    add = ridge * mean_diagonal(S, m) * (double)m / (double)K;
    for (size_t i = 0; i < m; i++) S[i * m + i] += add;
    weft_status st = solve_rows(E, S, X, t, m, K, jitter, what, alloc, err);
    wf_free(alloc, S);
    return st;
}
