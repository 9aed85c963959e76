/* layer.h - what a layer is, and what adapters may add to one.
 *
 * A layer is a linear map or a convolution; its weights stay in the mapped file. The networks call
 * wf_layer_apply() and know nothing more. What adapters add is data that the run hangs beside the
 * layer: a stack of parts with their coefficients, or a merged copy of the weight, or nothing.
 * A normalisation is a layer too, with a weight of one column; norm.c looks at its stack as layer.c
 * does at the others'. */
#ifndef WF_LAYER_H
#define WF_LAYER_H

#include "tensor/dtype.h"

typedef struct wf_layer {
    const char *name;      /* canonical, "unet.down_blocks.0..."                                  */
    const void *weight;    /* (out, in, kernel, kernel) in the file's dtype, unaligned            */
    const float *bias;     /* (out) or NULL                                                       */
    wf_dtype    dtype;
    int32_t     id;        /* index in the model's layer table                                    */
    int32_t     component; /* WEFT_COMPONENT_*                                                   */
    int32_t     kind;      /* WEFT_LAYER_*                                                        */
    int32_t     out;
    int32_t     in;        /* 1 for a normalisation                                               */
    int32_t     kernel;    /* of a convolution, square: 1 or 3 in the networks of today           */
    int32_t     stride;    /* 1 or 2                                                              */
    int32_t     pad;       /* on the top and left; bottom and right are padded as far as needed   */
    bool        attention; /* q, k, v, out of an attention of the UNet                            */
    bool        asymmetric; /* a VAE encoder's downsampler: padded only at the bottom and right   */
} wf_layer;

/* A coefficient: how much of one part a branch takes. A number; times a vector over the layer's
 * columns (the K inputs of its weight as a matrix (out, K): the part D becomes D diag(v), as
 * ZipLoRA merges); times a mask over the image's rows. `vector` and `mask` are 1 + an index into
 * the tables of the exec, 0 for none. If the number is 0, nothing is computed. */
typedef struct wf_cell {
    float   number;
    int32_t vector;
    int32_t mask;
} wf_cell;

/* A part of a stack that is no pair: a Kronecker product, a matrix, or only a
 * difference of the bias, which any part may have besides. */
typedef struct wf_nonpair {
    const float *w1;    /* KRON: (o1, i1), NULL: none                            */
    const float *w2;    /* (o2, taps * i2) ordered ky, kx, i2                    */
    int32_t      o1, i1, o2, i2;
    const float *dense; /* DENSE: (out, K), NULL: none; of a normalisation (out) */
    const float *bias;  /* (out), NULL: none                                     */
} wf_nonpair;

/* What adapters add to one layer, part by part: with c_p the part's coefficient,
 *
 *     sum over p of  c_p s_p B_p (A_p x)  +  c_p s_p W1 X W2^T  +  c_p D_p x  +  c_p db_p
 *
 * Pairs are stacked: rows [begin_p, begin_p + rank_p) belong to part p. K = kernel * kernel * in,
 * ordered (ky, kx, in). */
typedef struct wf_stack {
    int32_t         parts;
    int32_t         rank;       /* R, the sum of part_rank                               */
    const int32_t  *part_rank;  /* [parts], 0 for a part that is no pair                 */
    const float    *part_scale; /* [parts], s_p: alpha / rank of the file                */
    const float    *down;       /* (R, K)                                                */
    const float    *up;         /* (R, out): the transpose of the stacked B              */
    const wf_nonpair *nonpair;     /* [parts]; NULL if all are pairs and none has a bias    */
} wf_stack;

#endif
