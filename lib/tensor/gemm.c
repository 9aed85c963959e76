/* gemm.c - calls into OpenBLAS, and the guard over its thread count.
 *
 * The guard is the library's one exception to "no global state" (see the guide): OpenBLAS has one thread
 * count for the whole process. The first user saves it and sets 1, the last puts it back; the mutex makes
 * the pair atomic. A host that changes the count in between has its change undone at the end.
 *
 * A child that was forked in between inherits the count of users without the users: its first one starts anew. */
#include <cblas.h>
#include <pthread.h>
#include <unistd.h>

#include "tensor/gemm.h"

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static int             users;
static int             host_threads;
static pid_t           process; /* that the users belong to */

void wf_blas_begin(void)
{
    pthread_mutex_lock(&guard);
    if (users > 0 && process != getpid()) {
        users = 0;
        openblas_set_num_threads(host_threads);
    }
    process = getpid();
    if (users++ == 0) {
        host_threads = openblas_get_num_threads();
        if (host_threads != 1) openblas_set_num_threads(1);
    }
    pthread_mutex_unlock(&guard);
}

void wf_blas_end(void)
{
    pthread_mutex_lock(&guard);
    if (--users == 0 && host_threads != 1) openblas_set_num_threads(host_threads);
    pthread_mutex_unlock(&guard);
}

void wf_gemm_nt(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw, size_t m, size_t n,
                size_t k, float beta)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)m, (blasint)n, (blasint)k, 1.0f, x, (blasint)ldx,
                w, (blasint)ldw, beta, y, (blasint)ldy);
}

void wf_gemm_nn(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw, size_t m, size_t n,
                size_t k, float beta)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)m, (blasint)n, (blasint)k, 1.0f, x,
                (blasint)ldx, w, (blasint)ldw, beta, y, (blasint)ldy);
}

void wf_gemm_tn(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw, size_t m, size_t n,
                size_t k, float beta)
{
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (blasint)m, (blasint)n, (blasint)k, 1.0f, x, (blasint)ldx,
                w, (blasint)ldw, beta, y, (blasint)ldy);
}

void wf_gemm_double(double *y, size_t ldy, const double *x, size_t ldx, const double *w, size_t ldw, size_t m, size_t n,
                    size_t k, double alpha, double beta)
{
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)m, (blasint)n, (blasint)k, alpha, x, (blasint)ldx, w,
                (blasint)ldw, beta, y, (blasint)ldy);
}
