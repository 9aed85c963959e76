/* linalg.c - LAPACK's functions by their Fortran names.
 *
 * OpenBLAS has LAPACK inside and brings it in every link; its C interface, LAPACKE, is left out by
 * some distributions. Fortran reads matrices by columns, so it sees the transpose of ours, and
 * leaves the transpose of the inverse, which we read as the inverse. */
#include <cblas.h>

#include "tensor/linalg.h"

void dgetrf_(blasint *m, blasint *n, double *a, blasint *lda, blasint *pivots, blasint *info);
void dgetri_(blasint *n, double *a, blasint *lda, blasint *pivots, double *work, blasint *lwork,
             blasint *info);

enum { BLOCK = 64 }; /* columns that dgetri takes at once, if it has room for them */

static size_t pivot_doubles(size_t n)
{
    return (n * sizeof(blasint) + sizeof(double) - 1) / sizeof(double);
}

size_t wf_inverse_work(size_t n)
{
    return n * BLOCK + pivot_doubles(n);
}

bool wf_inverse(double *M, size_t n, double *work)
{
    blasint  order = (blasint)n, room = (blasint)(n * BLOCK), info = 0;
    blasint *pivots = (blasint *)(void *)work;

    if (n == 0) return true;
    dgetrf_(&order, &order, M, &order, pivots, &info);
    if (info == 0) dgetri_(&order, M, &order, pivots, work + pivot_doubles(n), &room, &info);
    return info == 0;
}
