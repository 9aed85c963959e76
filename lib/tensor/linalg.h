/* linalg.h - what LAPACK does, which comes with OpenBLAS; on the thread that asks for it
 * (blas_guard.h). */
#ifndef WF_LINALG_H
#define WF_LINALG_H

#include "base/base.h"

/* M (n, n) becomes its inverse. False, with M undefined, if it is singular.
 * work is scratch of wf_inverse_work(n) doubles; n and that must be below 2^31. */
bool   wf_inverse(double *M, size_t n, double *work);
size_t wf_inverse_work(size_t n);

/* The symmetric M (n, n), read on and under its diagonal, becomes its Cholesky factor there; what
 * is above the diagonal stays. False, with M undefined there, if it is not positive definite. n
 * must be below 2^31. */
bool   wf_cholesky(double *M, size_t n);
/* Each row b of B (rows, n) becomes the x with M x = b, with the factor of M. */
void   wf_cholesky_solve(const double *factor, size_t n, double *B, size_t rows);

/* E (r, n), 1 <= r <= n: orthonormal eigenvectors of the r largest eigenvalues of the symmetric
 * M (n, n), one in each row. M is read on and under its diagonal, has no NaN and no infinity, and
 * is lost. False, with E undefined, if they are not found. work is scratch of
 * wf_top_vectors_work(n) doubles; n times 40 must be below 2^31. */
bool   wf_top_vectors(double *E, double *M, size_t n, size_t r, double *work);
size_t wf_top_vectors_work(size_t n);

/* The rows of A (r, n), r <= n, become orthonormal, the first p of them spanning what the first p
 * did: Q^T of A^T = Q R, as LAPACK has it where rows depend on those before. False if LAPACK
 * refuses. work is scratch of wf_orthonormal_work(r) doubles. */
bool   wf_orthonormal(double *A, size_t r, size_t n, double *work);
size_t wf_orthonormal_work(size_t r);

#endif
