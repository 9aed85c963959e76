/* linalg.h - what LAPACK does, which comes with OpenBLAS; on the thread that asks for it (blas_guard.h). */
#ifndef WF_LINALG_H
#define WF_LINALG_H

#include "base/base.h"

/* M (n, n) becomes its inverse. False, with M undefined, if it is singular.
 * work is scratch of wf_inverse_work(n) doubles; n and that must be below 2^31. */
bool   wf_inverse(double *M, size_t n, double *work);
size_t wf_inverse_work(size_t n);

#endif
