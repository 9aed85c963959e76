/* derived.h - what a model makes of its weights, and owns.
 *
 * A network computes from the weights in the mapped file. What it needs in another form (norms
 * and biases, widened once; packed or transformed weights of a tier later) is made once for each
 * model, shared by all its runs, and counted: weft_model_info.derived_bytes. The blocks never move
 * and end with the model. They are made while the model opens, so reading them needs no lock. */
#ifndef WF_DERIVED_H
#define WF_DERIVED_H

#include "base/base.h"

typedef struct wf_derived {
    const weft_allocator *alloc; /* the model's */
    void                **block;
    size_t                count, room;
    uint64_t              bytes; /* of all blocks */
} wf_derived;

/* A block of `count` elements of `size` bytes, not cleared; `what` is for the error. */
weft_status wf_derived_take(wf_derived *d, void **out, size_t count, size_t size, const char *what,
                            weft_error *err);
void        wf_derived_free(wf_derived *d);

#endif
