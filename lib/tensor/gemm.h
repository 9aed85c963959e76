/* gemm.h - single matrix products in float32 and double: all of BLAS that weft calls
 * (LAPACK is linalg.h).
 *
 * What is made of weights comes here directly; what a network computes comes here through its tier
 * (product.h). Each product runs on the calling thread (blas_guard.h). Callers cut work into tiles by
 * shape only, so results do not depend on the number of threads. */
#ifndef WF_GEMM_H
#define WF_GEMM_H

#include "base/base.h"
#include "tensor/blas_guard.h"

/* y (m, n) = x (m, k) w (n, k)^T + beta * y; ld* are row strides in floats */
void wf_gemm_nt(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw, size_t m, size_t n,
                size_t k, float beta);
/* y (m, n) = x (m, k) w (k, n) + beta * y */
void wf_gemm_nn(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw, size_t m, size_t n,
                size_t k, float beta);
/* y (m, n) = x (k, m)^T w (k, n) + beta * y: a gradient of weights, summed over k rows */
void wf_gemm_tn(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw, size_t m, size_t n,
                size_t k, float beta);
/* y (m, n) = alpha * x (m, k) w (k, n) + beta * y in double, for what inverses need */
void wf_gemm_double(double *y, size_t ldy, const double *x, size_t ldx, const double *w, size_t ldw, size_t m, size_t n,
                    size_t k, double alpha, double beta);
/* Rows [first, first + count) of y (n, n), on and left of the diagonal's block, += those of
 * x (k, n)^T x, in double. */
void wf_gram_rows_double(double *y, size_t n, const double *x, size_t k, size_t first,
                         size_t count);
/* The part of y (n, n) on and under its diagonal += that of x (k, n)^T x, in double. */
void wf_gram_double(double *y, size_t n, const double *x, size_t k);

#endif
