/* plan.h (internal) - what a sealed plan hands to a run: stacks of factors and rows of coefficients. */
#ifndef WF_PLAN_H
#define WF_PLAN_H

#include "adapter/adapter.h"
#include "model/model.h"
#include "weft/plan.h"

/* A layer that some adapter touches. Slots are (layer, adapter) pairs, numbered layer by layer in order of
 * layer id, and inside a layer in the order of the adapters; a touched layer owns slots [slot, slot + parts). */
typedef struct wf_touched {
    int32_t  layer;
    int32_t  slot;
    wf_stack stack;
    bool     merged; /* compute from a private merged copy (coefficients are the same in every call) */
} wf_touched;

weft_model       *wf_plan_model(const weft_plan *p);
bool              wf_plan_sealed(const weft_plan *p);
int32_t           wf_plan_calls(const weft_plan *p);
int32_t           wf_plan_branches(const weft_plan *p);
const wf_touched *wf_plan_touched(const weft_plan *p, size_t *count); /* UNet and text layers, by layer id */
size_t            wf_plan_slots(const weft_plan *p);
/* Coefficients of a call: [branch][slot]. Slots of text layers hold what acts while a prompt is encoded. */
const float      *wf_plan_row(const weft_plan *p, int32_t call);
/* Coefficients for encoding with one adapter alone: text slots of others are zero. row has wf_plan_slots floats. */
void              wf_plan_text_row(const weft_plan *p, int32_t adapter, float *row);
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
