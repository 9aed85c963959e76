/* plan.h (internal) - what a sealed plan hands to a run: stacks of factors and rows of coefficients. */
#ifndef WF_PLAN_H
#define WF_PLAN_H

#include "adapter/adapter.h"
#include "model/model.h"
#include "weft/plan.h"

/* What one part of a touched layer is: a module, and how strongly it is taken besides its cell. */
typedef struct wf_strand {
    const wf_module *module;
    double           scale;  /* the file's, 1 where the method leaves it out            */
    double           inside; /* DoRA as PEFT weighs it: the weight inside the norm; else 1 */
} wf_strand;

/* A layer that some adapter touches. Slots are (layer, adapter) pairs, numbered layer by layer in order of
 * layer id, and inside a layer in the order of the adapters; a touched layer owns slots [slot, slot + parts). */
typedef struct wf_touched {
    int32_t          layer;
    int32_t          slot;
    int32_t          parts;
    bool             merged; /* compute from a private merged copy (coefficients are the same in every call) */
    const wf_strand *strand; /* [parts]                                                                      */
    wf_stack         stack;  /* of a layer that is not merged                                                */
} wf_touched;

/* dst (out, K) += sum over the parts of cells[p] * Delta_p, and bias (out) += likewise, where bias is not NULL: a merged
 * copy, beyond the base that is in dst already. */
weft_status wf_touched_add(const wf_touched *t, const wf_layer *layer, const wf_cell *cells, float *dst, float *bias,
                           const weft_allocator *alloc, weft_error *err);
/* What a layer becomes under the plan's first row, whatever the policy for adapters that depend on the weight (mixed.c):
 * weight (out, K) from the base on, and unless it is NULL bias (out). */
weft_status wf_plan_merged_weight(const weft_plan *p, const wf_touched *t, float *weight, float *bias,
                                  const weft_allocator *alloc, weft_error *err);
/* Does any part change the bias? */
bool        wf_touched_has_bias(const wf_touched *t, const wf_layer *layer);
/* Floats of a merged copy: the weight, and the bias where a part changes it. */
size_t      wf_merged_floats(const wf_touched *t, const wf_layer *layer);

weft_model       *wf_plan_model(const weft_plan *p);
bool              wf_plan_sealed(const weft_plan *p);
int32_t           wf_plan_calls(const weft_plan *p);
int32_t           wf_plan_branches(const weft_plan *p);
const wf_touched *wf_plan_touched(const weft_plan *p, size_t *count); /* UNet and text layers, by layer id */
size_t            wf_plan_slots(const weft_plan *p);
/* Coefficients of a call: [branch][slot]. Slots of text layers hold what acts while a prompt is encoded. */
const wf_cell    *wf_plan_row(const weft_plan *p, int32_t call);
/* Coefficients for encoding with one adapter alone: text slots of others are zero. row has wf_plan_slots floats. */
void              wf_plan_text_row(const weft_plan *p, int32_t adapter, wf_cell *row);
int32_t           wf_plan_adapters(const weft_plan *p);
/* out[i] = combination of the branches' predictions preds[b][i] (run of n floats), by the method's rule;
 * guided says whether these are halves of a guided step. Sums in an order of its own. */
void              wf_plan_combine(const weft_plan *p, float *out, const float *const *preds, size_t n, bool guided);
void              wf_plan_ref(weft_plan *p);

/* ---- stamp.c --------------------------------------------------------------------------------------- */

/* A number for all that can change an encoding: the text encoders, what adapters add to them, words. Never 0. */
uint64_t wf_plan_text_stamp(const weft_plan *p);

/* ---- words.c: what concepts add to the vocabulary of a plan's prompts ------------------------------ */

/* All WEFT_ENCODE_* that there are. */
#define WF_ENCODE_FLAGS (WEFT_ENCODE_TRUNCATE | WEFT_ENCODE_ADAPTER | WEFT_ENCODE_WEIGHTS | WEFT_ENCODE_NO_MEAN | \
                         WEFT_ENCODE_FROM_EMPTY | WEFT_ENCODE_COMMA)

/* Immutable; NULL where a plan has none, which every function here takes. */
typedef struct wf_words wf_words;
const wf_words  *wf_plan_words(const weft_plan *p);
const wf_extras *wf_words_extras(const wf_words *w, int32_t encoder);
size_t           wf_words_rows(const wf_words *w);
/* The word that owns a row, and for how many cross-attention layers it has vectors; 0: one for all. */
const char      *wf_words_name(const wf_words *w, int32_t row);
int32_t          wf_words_layers(const wf_words *w, int32_t row);
/* rows[k] = row k for this encoder, as cross-attention layer `layer` is to see it. */
void             wf_words_fill(const wf_words *w, int32_t encoder, int32_t layer, const float **rows);

#endif
