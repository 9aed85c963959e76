/* gemm.c - matrix products by OpenBLAS. */
#include <cblas.h>

#include "tensor/gemm.h"

void wf_gemm_nt(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw,
                size_t m, size_t n, size_t k, float beta)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)m, (blasint)n, (blasint)k, 1.0f,
                x, (blasint)ldx, w, (blasint)ldw, beta, y, (blasint)ldy);
}

void wf_gemm_nn(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw,
                size_t m, size_t n, size_t k, float beta)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)m, (blasint)n, (blasint)k, 1.0f,
                x, (blasint)ldx, w, (blasint)ldw, beta, y, (blasint)ldy);
}

void wf_gemm_tn(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw,
                size_t m, size_t n, size_t k, float beta)
{
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (blasint)m, (blasint)n, (blasint)k, 1.0f,
                x, (blasint)ldx, w, (blasint)ldw, beta, y, (blasint)ldy);
}

void wf_gemm_double(double *y, size_t ldy, const double *x, size_t ldx, const double *w, size_t ldw,
                    size_t m, size_t n, size_t k, double alpha, double beta)
{
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)m, (blasint)n, (blasint)k,
                alpha, x, (blasint)ldx, w, (blasint)ldw, beta, y, (blasint)ldy);
}

void wf_gram_double(double *y, size_t n, const double *x, size_t k)
{
    cblas_dsyrk(CblasRowMajor, CblasLower, CblasTrans, (blasint)n, (blasint)k, 1, x, (blasint)n, 1,
                y, (blasint)n);
}

void wf_gram_rows_double(double *y, size_t n, const double *x, size_t k, size_t first, size_t count)
{
    cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (blasint)count, (blasint)(first + count),
                (blasint)k, 1, x + first, (blasint)n, x, (blasint)n, 1, y + first * n, (blasint)n);
}
