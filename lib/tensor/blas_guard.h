/* blas_guard.h - holds OpenBLAS at one thread for each of ours.
 *
 * Work is cut into tiles by the callers, by shape only, so results do not depend on the number of threads.
 * For that OpenBLAS must not cut it again. Its thread count is one for the whole process: while anybody is
 * between begin and end it is 1, and then what the host had set. */
#ifndef WF_BLAS_GUARD_H
#define WF_BLAS_GUARD_H

#include "base/base.h"

/* Nest and overlap in any thread. */
void wf_blas_begin(void);
void wf_blas_end(void);

/* OpenBLAS works in an area for each thread inside a product, and never returns from a product that
 * finds no memory for one. Whoever multiplies holds an area for each of its threads, from before
 * the first product on: WEFT_E_NOMEM if the process has no room for them. */
weft_status wf_blas_hold(int32_t areas, weft_error *err);
void        wf_blas_let_go(int32_t areas);

#endif
