/* tape.h - what a network did, kept so that gradients go back through it.
 *
 * While an exec has a tape, operations whose result depends on something trained leave an entry:
 * their function for the way back, and where their inputs lie. The arena then gives nothing back
 * (wf_arena.held), so that inputs stay, and the gradient of each float of the arena lies at the
 * same place of a second block, `grads`: wf_grad() is a subtraction and an addition.
 *
 * The rules of an operation y = f(x):
 *
 *   - Forward, after it has computed: `if (wf_track(e, y, add, wanted))` with `wanted` true if some
 *     input is (wf_wanted) or something of its own is trained. If that is true it asks for an entry
 *     and fills it. Gradients' addresses are taken then, with wf_grad(): NULL says that an input's
 *     gradient is not wanted. (Later it may be: a buffer that is added to is one buffer.)
 *   - Backward: it adds to the gradients of its inputs, never sets them. If it wrote y anew (not
 *     added to it), it then sets y's gradient to zero with wf_grad_done(): what lay in y before is
 *     another value. The same if it added to a y that nothing wanted before. So at the end of the
 *     way back all of `grads` is zero again, as it must be at the beginning.
 *   - An input that may be written over later (x += ..) is copied with wf_keep().
 *   - What it needs on the way back is said on the way there: wf_need_back() floats of the arena,
 *     which it takes and releases there as in a forward pass, and wf_need_scratch().
 *   - In a dry run everything counts as wanted, wf_record() gives NULL, and only memory is counted:
 *     an upper bound.
 *
 * What costs memory can be computed twice instead: wf_segment() keeps a block's inputs, and runs it
 * again on the way back (gradient checkpointing: Chen et al., Training Deep Nets with Sublinear
 * Memory Cost, 2016). */
#ifndef WF_TAPE_H
#define WF_TAPE_H

#include "nets/exec.h"

/* Where the gradients of what is trained of a layer are added up; NULL: that is frozen. */
typedef struct wf_layer_grads {
    float *down;   /* of the layer's stack: (R, K)                                            */
    float *up;     /* (R, out)                                                                */
    float *weight; /* of its merged copy: (out, K), K ordered (ky, kx, in); of a norm (channels) */
    float *bias;   /* (out); of a norm (channels)                                             */
} wf_layer_grads;

typedef void (*wf_back)(wf_exec *e, const void *entry);

typedef struct wf_tape_entry {
    wf_back back;
    size_t  at; /* in `room` */
} wf_tape_entry;

typedef int32_t wf_tape_mode;
enum {
    WF_TAPE_OFF,    /* nothing is recorded                              */
    WF_TAPE_FOLLOW, /* only which buffers depend on what is trained     */
    WF_TAPE_RECORD
};

typedef struct wf_tape {
    const weft_allocator *alloc;
    wf_tape_mode          mode;
    bool                  segments; /* run blocks twice                                            */
    float                *grads;    /* of the arena, float by float                                */
    const wf_layer_grads *layers;   /* [layers of the model], or NULL: no layer is trained         */
    float *const         *extra;    /* gradients of a text encoder's extra rows, or NULL           */
    size_t                extras;
    const void *const    *turned;   /* [layers]: weights turned for the way back (layer.c), or NULL */
    wf_tape_entry        *entries;
    size_t                count, cap;
    uint8_t              *room;     /* what the entries hold                                       */
    size_t                used, size;
    const float         **wanted;   /* buffers that depend on what is trained: a hash table        */
    size_t                wanted_count, wanted_cap;
    size_t                back_need;    /* bytes of the arena that the way back takes, a dry run's */
    size_t                segment_need; /* and those of the largest segment                        */
    bool                  failed;       /* no memory for an entry                                  */
    bool                  unsupported;  /* something ran that has no way back (wf_no_way_back)     */
} wf_tape;

void wf_tape_init(wf_tape *t, const weft_allocator *alloc);
void wf_tape_free(wf_tape *t);
/* Begin a forward pass: forget what was recorded. */
void wf_tape_begin(wf_exec *e);
/* Walk back over all that was recorded, from the last entry to the first. Who calls it has put the
 * gradient of the loss into wf_grad() of the result. */
void wf_tape_back(wf_exec *e);
/* Bytes of the arena that a step takes, after a dry forward pass. */
size_t wf_tape_bytes(const wf_exec *e);

/* Is there a tape that records, or follows? */
static inline bool wf_taped(const wf_exec *e)
{
    return e->tape != NULL && e->tape->mode != WF_TAPE_OFF;
}
bool   wf_wanted(const wf_exec *e, const float *x);
/* y was written, or added to. Does an entry belong here? */
bool   wf_track(wf_exec *e, const float *y, bool add, bool wanted);
/* Are entries made (in a dry run: counted) now? Asked before an operation computes, by one that must
 * keep what it is about to write over. */
bool   wf_recording(const wf_exec *e);
/* What has no way back says so: a network under a tape stops. */
void   wf_no_way_back(wf_exec *e);
/* Room for an entry, zeroed; NULL in a dry run, and without memory: then `stopped` is set. */
void  *wf_record(wf_exec *e, wf_back back, size_t size);
/* The gradient of a buffer of the arena; NULL: not wanted, or a dry run. */
float *wf_grad(const wf_exec *e, const float *x);
/* Set the gradient of a buffer to zero: on the way back of what wrote it anew. */
void   wf_grad_done(wf_exec *e, float *gy, size_t n);
/* A copy of n floats in the arena. */
float *wf_keep(wf_exec *e, const float *x, size_t n);
void   wf_need_back(wf_exec *e, size_t floats);
/* What is trained of a layer, or NULL. */
const wf_layer_grads *wf_trained(const wf_exec *e, const wf_layer *l);
/* gx += gy over n floats. */
void   wf_grad_add(wf_exec *e, float *gx, const float *gy, size_t n);
/* to (groups, c) += sums over the rows of g (groups, rows, c): in double and in the rows' order, so
 * the bits are the same for any number of threads. */
void   wf_add_columns(wf_exec *e, float *to, const float *g, size_t groups, size_t rows, size_t c);

/* A buffer that a segment reads (and may write, as a block adds to its rows). */
typedef struct wf_segment_input {
    float *x;
    size_t n;
} wf_segment_input;
enum { WF_SEGMENT_INPUTS = 4 };
/* run(e, args), which writes y: at once, or under a tape that runs segments twice, then and on the
 * way back. `args` (size bytes, at most 256) are copied; what they point to must stay until then,
 * and so must y and every input but for what is written into them. */
void wf_segment(wf_exec *e, void (*run)(wf_exec *e, const void *args), const void *args,
                size_t size, const float *y, const wf_segment_input *inputs, size_t count);

#endif
