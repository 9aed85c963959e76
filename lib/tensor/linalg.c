/* linalg.c - LAPACK's functions by their Fortran names.
 *
 * OpenBLAS has LAPACK inside and brings it in every link; its C interface, LAPACKE, is left out by
 * some distributions. Fortran reads matrices by columns, so it sees the transpose of ours, and
 * leaves the transpose of the inverse, which we read as the inverse. Behind its last argument
 * Fortran takes the length of each text. */
#include <cblas.h>

#include "tensor/linalg.h"

void dgetrf_(blasint *m, blasint *n, double *a, blasint *lda, blasint *pivots, blasint *info);
void dgetri_(blasint *n, double *a, blasint *lda, blasint *pivots, double *work, blasint *lwork,
             blasint *info);

void dsyevr_(const char *job, const char *range, const char *part, blasint *n, double *a,
             blasint *lda, double *vl, double *vu, blasint *il, blasint *iu, double *tolerance,
             blasint *found, double *values, double *z, blasint *ldz, blasint *support,
             double *work, blasint *lwork, blasint *iwork, blasint *liwork, blasint *info, size_t,
             size_t, size_t);
void dpotrf_(const char *part, blasint *n, double *a, blasint *lda, blasint *info, size_t);
void dpotrs_(const char *part, blasint *n, blasint *rhs, const double *a, blasint *lda, double *b,
             blasint *ldb, blasint *info, size_t);
void dgeqrf_(blasint *m, blasint *n, double *a, blasint *lda, double *tau, double *work,
             blasint *lwork, blasint *info);
void dorgqr_(blasint *m, blasint *n, blasint *k, double *a, blasint *lda, double *tau, double *work,
             blasint *lwork, blasint *info);

enum { BLOCK = 64 }; /* columns that LAPACK takes at once, if it has room for them */

/* Doubles that hold n whole numbers of Fortran's. */
static size_t int_doubles(size_t n)
{
    return (n * sizeof(blasint) + sizeof(double) - 1) / sizeof(double);
}

size_t wf_inverse_work(size_t n)
{
    return n * BLOCK + int_doubles(n);
}

bool wf_inverse(double *M, size_t n, double *work)
{
    blasint  order = (blasint)n, room = (blasint)(n * BLOCK), info = 0;
    blasint *pivots = (blasint *)(void *)work;

    if (n == 0) return true;
    dgetrf_(&order, &order, M, &order, pivots, &info);
    if (info == 0) dgetri_(&order, M, &order, pivots, work + int_doubles(n), &room, &info);
    return info == 0;
}

/* What is on and under our diagonal is on and above Fortran's. */
bool wf_cholesky(double *M, size_t n)
{
    blasint order = (blasint)n, info = 0;

    if (n > 0) dpotrf_("U", &order, M, &order, &info, 1);
    return info == 0;
}

void wf_cholesky_solve(const double *factor, size_t n, double *B, size_t rows)
{
    blasint order = (blasint)n, count = (blasint)rows, info = 0;

    if (n > 0 && rows > 0) dpotrs_("U", &order, &count, factor, &order, B, &order, &info, 1);
}

/* dsyevr's own scratch, of doubles for each row: 26 at least, and more to work on blocks. */
enum { ROOM = 40, INTS = 10 };

size_t wf_top_vectors_work(size_t n)
{
    return n + ROOM * n + int_doubles((INTS + 2) * n);
}

bool wf_top_vectors(double *E, double *M, size_t n, size_t r, double *work)
{
    blasint  order = (blasint)n, first = (blasint)(n - r + 1), last = order, found = 0, info = 0,
             room = (blasint)(ROOM * n), int_room = (blasint)(INTS * n);
    double  *values = work, *doubles = values + n, none = 0;
    blasint *ints = (blasint *)(void *)(doubles + ROOM * n), *support = ints + INTS * n;

    dsyevr_("V", "I", "U", &order, M, &order, &none, &none, &first, &last, &none, &found, values, E,
            &order, support, doubles, &room, ints, &int_room, &info, 1, 1, 1);
    return info == 0 && (size_t)found == r;
}

size_t wf_orthonormal_work(size_t r)
{
    return r + r * BLOCK;
}

bool wf_orthonormal(double *A, size_t r, size_t n, double *work)
{
    blasint rows = (blasint)n, columns = (blasint)r, room = (blasint)(r * BLOCK), info = 0;

    if (r == 0) return true;
    dgeqrf_(&rows, &columns, A, &rows, work, work + r, &room, &info);
    if (info == 0) dorgqr_(&rows, &columns, &columns, A, &rows, work, work + r, &room, &info);
    return info == 0;
}
