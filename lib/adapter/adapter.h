/* adapter.h (internal) - an opened adapter: its modules, and its binding to a model. */
#ifndef WF_ADAPTER_H
#define WF_ADAPTER_H

#include "io/io.h"
#include "model/model.h"
#include "weft/adapter.h"

/* One module of an adapter: tensors with their parts, and the family that they make (family.h). */
typedef struct wf_module wf_module;

size_t           wf_adapter_modules(const weft_adapter *a);
const wf_module *wf_adapter_module(const weft_adapter *a, size_t i);
const char      *wf_adapter_name(const weft_adapter *a);
void             wf_adapter_ref(weft_adapter *a);

/* Binding: for each module the layer id or -1, with a report row for every key of the file. A report owns
 * this list and keeps the adapter alive. */
const int64_t *wf_report_layers(const weft_report *r); /* [modules] layer id, -1 where not matched */
/* Turn a report into the status that weft_plan_add() gives: WEFT_OK, or WEFT_E_MISMATCH with the one line. */
weft_status wf_report_verdict(const weft_report *r, bool allow_partial, weft_error *err);

/* Sums over |Delta W| of a module at a layer (score.c): *all = sum of all entries' absolute values, *top = sum of the
 * k largest. In double, tile by tile where the form is PAIR; scratch from alloc. `scale` 1 leaves alpha out. */
weft_status wf_module_score(const wf_module *m, const wf_layer *l, double scale, int64_t k, double *all, double *top,
                            const weft_allocator *alloc, weft_error *err);

#endif
