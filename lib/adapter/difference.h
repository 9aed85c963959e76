/* difference.h - what adapters do to one layer, held beside each other (difference.c): for this room
 * and for plan/. */
#ifndef WF_DIFFERENCE_H
#define WF_DIFFERENCE_H

#include "adapter/adapter.h"

/* All that an adapter has at a layer: scale B^T A, or D. */
typedef struct wf_difference {
    size_t  out;
    size_t  K;     /* columns of the layer's weight               */
    size_t  r;     /* of the factors                              */
    double  scale; /* of the factors                              */
    float  *A;     /* (r, K); NULL without factors                */
    float  *B;     /* (r, out)                                    */
    float  *D;     /* (out, K), with its scale; NULL with factors */
} wf_difference;

weft_status wf_difference_load(wf_difference *d, const weft_adapter *a, const wf_slice *slice,
                               int32_t count, const wf_layer *l, bool ignore_alpha,
                               const weft_allocator *alloc, weft_error *err);
void        wf_difference_free(wf_difference *d, const weft_allocator *alloc);
/* The sum of the products of both differences' entries. */
weft_status wf_difference_dot(double *sum, const wf_difference *x, const wf_difference *y,
                              const weft_allocator *alloc, weft_error *err);
/* Entries where both are not zero, and those of them whose signs differ. */
weft_status wf_difference_clash(double *compared, double *clashes, const wf_difference *x,
                                const wf_difference *y, const weft_allocator *alloc,
                                weft_error *err);
/* An orthonormal basis (*rank, out) of the columns of scale B^T A, for wf_free(); NULL without
 * factors. */
weft_status wf_difference_basis(double **basis, size_t *rank, const wf_difference *d,
                                const weft_allocator *alloc, weft_error *err);
/* The mean squared cosine of the principal angles of two spaces, neither of which is empty. */
double      wf_basis_overlap(const double *x, size_t x_rank, const double *y, size_t y_rank,
                             size_t out);
/* The Frobenius norm of all that an adapter has at a layer. */
weft_status wf_slices_energy(const weft_adapter *a, const wf_slice *slice, int32_t count,
                             const wf_layer *l, bool ignore_alpha, double *energy,
                             const weft_allocator *alloc, weft_error *err);

#endif
