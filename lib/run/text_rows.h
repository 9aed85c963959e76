/* text_rows.h (internal) - texts that are tokens already, through a model's text encoders, on
 * whatever exec: a trainer's has a tape. */
#ifndef WF_TEXT_ROWS_H
#define WF_TEXT_ROWS_H

#include "model/networks.h"
#include "nets/tape.h"

/* What one encoder reads: a chunk for each sample. */
typedef struct wf_text_source {
    const int32_t      *ids;    /* (samples, positions)                                          */
    const int32_t      *eos_at; /* [samples] position that is pooled                             */
    const float *const *extra;  /* [layers][extras] rows of the ids from the vocabulary's size
                                 * on, a set for each layer; NULL: no id needs one               */
    float *const       *extra_grads; /* [layers][extras] where a tape adds their gradients up, NULL
                                      * for one that is frozen; NULL: all are                    */
    size_t              extras;
} wf_text_source;

/* The streams' rows of all samples, taken from the arena: rows[i] is (samples, layers, tokens,
 * width) of a sequence, (samples, width) of a pooled vector, and NULL of a stream that no encoder
 * gives or once the exec has stopped. layers is 1, or the number of cross-attention layers: the encoders then run once for each.
 * Under a tape each sample's rows are a buffer of their own to wf_wanted() and wf_grad(), and what
 * `from` points to, itself included, must stay as it is until the way back. Nothing is given back
 * to the arena. */
void wf_text_rows(const wf_networks *n, wf_exec *e, const wf_text_source *from, int32_t samples,
                  int32_t layers, int32_t skip, float **rows);

#endif
