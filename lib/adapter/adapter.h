/* adapter.h (internal) - an opened adapter: modules with factors, and its binding to a model. */
#ifndef WF_ADAPTER_H
#define WF_ADAPTER_H

#include "io/io.h"
#include "model/model.h"
#include "weft/adapter.h"

/* One module of an adapter: low-rank factors (lowrank.c is the only family so far). */
typedef struct wf_module {
    const char      *key;      /* stem of the file's keys                                  */
    const char      *name;     /* canonical name, or the underscore name when `underscore` */
    const wf_tensor *down;     /* (r, in) or (r, in, k, k)                                 */
    const wf_tensor *up;       /* (out, r) or (out, r, 1, 1)                               */
    int32_t          rank;
    int32_t          out;
    int32_t          in;
    int32_t          kernel;   /* k, 1 for linear                                          */
    float            alpha;
    float            scale;    /* alpha / rank, or alpha / sqrt(rank)                      */
    bool             has_alpha;
    bool             underscore;
} wf_module;

size_t           wf_adapter_modules(const weft_adapter *a);
const wf_module *wf_adapter_module(const weft_adapter *a, size_t i);
const char      *wf_adapter_name(const weft_adapter *a);
void             wf_adapter_ref(weft_adapter *a);

/* Binding: for each module the layer id or -1, with a report row for every key of the file. A report owns
 * module_layer and keeps the adapter alive. */
const int64_t *wf_report_layers(const weft_report *r); /* [modules] layer id, -1 where not matched */
/* Turn a report into the status that weft_plan_add() gives: WEFT_OK, or WEFT_E_MISMATCH with the one line. */
weft_status wf_report_verdict(const weft_report *r, bool allow_partial, weft_error *err);

/* The low-rank family's operations (lowrank.c). K = kernel^2 * in ordered (ky, kx, in). */
/* Factors widened to f32: down (r, K), up transposed (r, out). Either may be NULL. */
void wf_module_factors(const wf_module *m, float *down, float *up);
/* Sums over |Delta W| of scale * B A: *all = sum of all entries' absolute values, *top = sum of the k largest.
 * In double, tile by tile; scratch from alloc. `scale` 1 leaves alpha out. */
weft_status wf_module_score(const wf_module *m, double scale, int64_t k, double *all, double *top,
                            const weft_allocator *alloc, weft_error *err);

#endif
