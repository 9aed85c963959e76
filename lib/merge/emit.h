/* emit.h - what a layer became, and its tensors in a file: for this room and for fuse/. */
#ifndef WF_MERGE_EMIT_H
#define WF_MERGE_EMIT_H

#include "io/io.h"
#include "model/model.h"

/* What a layer became, in memory from a bag; what it has not is NULL. Columns are in the order of
 * files: (in, ky, kx). */
typedef struct wf_merged_layer {
    float *down;      /* (rank, K)                                           */
    float *up;        /* (out, rank)                                         */
    float *full;      /* (out, K)                                            */
    float *bias;      /* (out)                                               */
    float *magnitude; /* (out), or (in) if it is of columns                  */
    bool   of_columns;
    int32_t rank;
    double alpha;     /* of the factors                                      */
    double norm;
    double error;
} wf_merged_layer;

/* The layer's tensors, under kohya's names. */
weft_status wf_merge_emit(weft_tensors *t, const weft_model *model, const wf_layer *l,
                          const wf_merged_layer *r, weft_error *err);

#endif
