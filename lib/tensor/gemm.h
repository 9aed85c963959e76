/* gemm.h - the matrix products, all through OpenBLAS, each on the thread that asks for it (blas_guard.h). */
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
/* y (m, n) = alpha * x (m, k) w (k, n) + beta * y in double, for what inverses need */
void wf_gemm_double(double *y, size_t ldy, const double *x, size_t ldx, const double *w, size_t ldw, size_t m, size_t n,
                    size_t k, double alpha, double beta);

#endif
