/* turn.h - weights as the way back reads them.
 *
 * The gradient of a layer's input is a product too: of y's gradient with the weight transposed, and
 * a convolution's kernel turned around. So every tier's products do for it, Winograd's too. A
 * frozen weight is turned once, by who trains, in the type that its file has; one that changes in
 * each step is turned there and then (layer.c). */
#ifndef WF_TURN_H
#define WF_TURN_H

#include "nets/exec.h"

/* Bytes of a turned copy of a layer's weight. */
size_t wf_turned_bytes(const wf_layer *l);
/* dst (in, out, ky', kx') = the weight (out, in, ky, kx), both in the file's type and unaligned. */
void   wf_turn_weight(void *dst, const wf_layer *l, wf_pool *pool);
/* dst (in, ky', kx', out) in float32, from the weight of a product, whatever its type and order;
 * under a dry exec only its scratch is counted. */
void   wf_turn_product(wf_exec *e, float *dst, const wf_product *p);
/* y (n, h, w, c) = zeros, but for x (n, from.h, from.w, c) at every stride'th row and column from
 * `first` on. */
void   wf_spread(wf_exec *e, float *y, wf_grid to, const float *x, wf_grid from, int32_t stride,
                 int32_t first, size_t c);

#endif
