/* initial.h - the part of a layer's weight that training began by taking out (initial.c). */
#ifndef WF_INITIAL_H
#define WF_INITIAL_H

#include "adapter/factor.h"

/* What LoRA's factors were at first, and what was then missing in the base. */
enum {
    WF_INITIAL_NONE, /* nothing is missing                                                    */
    WF_INITIAL_TOP,  /* PiSSA: the weight's nearest matrix of rank r                          */
    WF_INITIAL_QR    /* OLoRA: scale times the part of the weight along its first r columns   */
};

/* What a LoRA module keeps of its configuration. */
typedef struct wf_lora {
    wf_start_rank start;
    int32_t       initial; /* WF_INITIAL_* */
} wf_lora;

/* up (r, out)^T down (r, in) = that part of the linear layer's weight, without a scale; 1 <= r <=
 * out and in. */
weft_status wf_initial_pair(int32_t initial, const wf_layer *l, size_t r, float *down, float *up,
                            const weft_allocator *alloc, weft_error *err);

#endif
