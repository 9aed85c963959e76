/* blas_guard.h - holds OpenBLAS at one thread for each of ours.
 *
 * Work is cut into tiles by the callers, by shape only, so results do not depend on the number of threads.
 * For that OpenBLAS must not cut it again. Its thread count is one for the whole process: while anybody is
 * between begin and end it is 1, and then what the host had set. */
#ifndef WF_BLAS_GUARD_H
#define WF_BLAS_GUARD_H

/* Nest and overlap in any thread. */
void wf_blas_begin(void);
void wf_blas_end(void);

#endif
