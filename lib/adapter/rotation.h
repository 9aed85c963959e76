/* rotation.h - what the families of rotations share (rotation.c). */
#ifndef WF_ROTATION_H
#define WF_ROTATION_H

#include "adapter/factor.h"

/* What PEFT's OFT keeps of its configuration. */
typedef struct wf_oft_peft {
    int32_t terms; /* of the series (num_cayley_neumann_terms); 0: the exact inverse */
    float   limit; /* eps if the configuration says coft; 0: no bound                */
} wf_oft_peft;

/* Set what a module of oft_blocks over `out` rows knows of itself; check rescale. */
weft_status wf_rotation_shape(wf_module *m, int64_t out, const char *source, weft_error *err);
/* Rows are as many as the layer's outputs. */
bool        wf_rotation_fits(const wf_module *m, const wf_layer *l);
/* What the constraint leaves of all of Q = S - S^T: 1 if it does not bind. t is (.., b, b). */
double      wf_rotation_shrink(const wf_module *m, const wf_tensor *t);
/* R (b, b) of block k of t (.., b, b), of Q shortened by `shrink`. R has room for
 * wf_rotation_doubles(b). */
void        wf_rotation_read(const wf_tensor *t, size_t k, size_t b, double shrink, double *R);
/* What row o is multiplied with: 1 without a rescale. */
double      wf_rotation_rescale(const wf_module *m, size_t o);

/* A rotation (n, n), and what making one needs behind it. */
size_t      wf_rotation_doubles(size_t n);
/* q (n, n), skew (q^T = -q), becomes (I + q) (I - q)^-1. q has room for wf_rotation_doubles(n). */
void        wf_cayley(double *q, size_t n);

#endif
