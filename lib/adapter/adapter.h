/* adapter.h (internal) - an opened adapter: its modules, and its binding to a model. */
#ifndef WF_ADAPTER_H
#define WF_ADAPTER_H

#include "io/io.h"
#include "model/model.h"
#include "weft/adapter.h"

/* One module of an adapter: its tensors, and the family that they make (family.h). */
typedef struct wf_module wf_module;

size_t           wf_adapter_modules(const weft_adapter *a);
const wf_module *wf_adapter_module(const weft_adapter *a, size_t i);
const char      *wf_adapter_name(const weft_adapter *a);
void             wf_adapter_ref(weft_adapter *a);

/* What weft_adapter_open() was given, and the files that it found. */
typedef struct wf_opened {
    wf_origin path;         /* the file or folder; without a path: made in memory      */
    wf_origin weights;      /* the file with the tensors                               */
    wf_origin config;       /* PEFT's configuration, where one was read from a file    */
    bool      config_named; /* by the caller, and not found beside the weights         */
    char     *config_text;  /* options, as they were given                             */
    char     *name;
    float     alpha, scale;
} wf_opened;
const wf_opened *wf_adapter_opened(const weft_adapter *a);
/* Is b the adapter a, or a as it was completed for a model? */
bool             wf_adapter_same(const weft_adapter *a, const weft_adapter *b);

/* A module at a slice of a layer: rows [row, row + rows) of the layer's weight are rows [from, from + rows) of
 * the module's. A file may have one module for what the model has as several layers (queries, keys
 * and values in one matrix), or several modules for one layer. A module that acts on a whole layer,
 * and on nothing else, has row and from 0, and rows and of are the layer's outputs; today's
 * dialects have no other. */
typedef struct wf_slice {
    int32_t module;
    int32_t layer; /* id */
    int32_t row;
    int32_t rows;
    int32_t from;
    int32_t of;    /* rows of the module's whole matrix */
} wf_slice;

/* The adapter as it acts on these layers, where these slices say which module acts at which: itself
 * with one more reference; or, if its file leaves out tensors that a seed gives, a copy that has
 * them (complete.c). */
weft_status wf_adapter_complete(weft_adapter *a, const wf_layer *layers, const wf_slice *slices,
                                size_t count, weft_adapter **out, weft_error *err);

/* The slices of all modules that matched, in the order of the layers. The report owns them. */
const wf_slice *wf_report_slices(const weft_report *r, size_t *count);
/* Turn a report into the status that weft_plan_add() gives: WEFT_OK, or WEFT_E_MISMATCH with the
 * one line. */
weft_status wf_report_verdict(const weft_report *r, bool allow_partial, weft_error *err);

/* Sums over |Delta W| of a module at a layer (score.c): *all = sum of all entries' absolute values,
 * *top = sum of the k largest. In double, tile by tile if the form is PAIR; scratch from alloc.
 * `scale` 1 leaves alpha out. */
weft_status wf_module_score(const wf_module *m, const wf_layer *l, double scale, int64_t k,
                            double *all, double *top, const weft_allocator *alloc, weft_error *err);
/* The same of all that an adapter has at a layer. Slices that are not the whole are formed in one
 * matrix of the layer's size. */
weft_status wf_slices_score(const weft_adapter *a, const wf_slice *slice, int32_t count, const wf_layer *l,
                            bool ignore_alpha, int64_t k, double *all, double *top,
                            const weft_allocator *alloc, weft_error *err);

#endif
