/* method.h - the plan as its own files see it, and what a method has to answer.
 *
 * A method is one row of functions (wf_method) over a pure one: the coefficient of one cell. Everything
 * that happens around the cells is the same for all and lives in compile.c: user weights, selections,
 * text encoders, dropping what is always zero, folding equal rows, stacking factors, choosing the path.
 *
 * A new method is one file with its wf_method and its public setter, and its name in the list below. */
#ifndef WF_METHOD_H
#define WF_METHOD_H

#include "adapter/family.h"
#include "plan/plan.h"

enum {
    WF_ADAPTERS_MAX = 1024,  /* of one plan: what a combination sorts on the stack      */
    WF_WORDS_MAX    = 65536, /* of one plan, and of their vectors                       */
    WF_CALLS_MAX    = 100000 /* a picture takes tens; beyond this somebody's number is wrong */
};

/* A counted block of plain memory that several plans share and none changes. */
typedef struct wf_blob {
    wf_refs        refs;
    weft_allocator alloc;
    void          *data;
} wf_blob;
wf_blob *wf_blob_create(const weft_allocator *alloc, size_t size); /* zeroed; NULL without memory */
wf_blob *wf_blob_ref(wf_blob *b);
void     wf_blob_drop(wf_blob *b);

/* An adapter on a model, seen through one selection of layers. Immutable, shared by copies of a plan. */
typedef struct wf_bound {
    wf_refs        refs;
    weft_allocator alloc;
    weft_adapter  *adapter;
    weft_report   *report;
    char          *select;  /* NULL: every layer */
    char          *exclude; /* NULL: none        */
    int32_t       *module;  /* [layers of the model] index of the module that acts there, -1 for none */
    _Atomic uint64_t text_stamp; /* of what it adds to the text encoders, once that was asked for; else 0 */
} wf_bound;

typedef struct wf_entry {
    wf_bound *bound;
    float     weight;
    float     text_weight;
    float     share;
    int32_t   role;
    bool      peft_dora; /* WEFT_ADD_PEFT_DORA */
} wf_entry;

/* What one layer's parts are, and unless it is merged their factors. Immutable, shared by copies that need the same. */
typedef struct wf_weave {
    wf_refs          refs;
    weft_allocator   alloc;
    int32_t          layer;
    int32_t          parts;
    bool             merged;
    const wf_bound **from;   /* [parts] */
    wf_strand       *strand; /* [parts] */
    wf_stack         stack;
    void            *lists;
    void            *memory; /* the stack's; NULL where merged */
} wf_weave;

typedef struct wf_slot {
    int32_t layer;
    int32_t adapter;
} wf_slot;

typedef struct wf_method wf_method;

/* What sealing makes. */
typedef struct wf_table {
    int32_t     calls;
    int32_t     branches;
    size_t      slots;
    wf_slot    *slot;        /* [slots]                                                     */
    size_t      touched_count;
    wf_touched *touched;     /* [touched_count]                                             */
    wf_weave  **weave;       /* [touched_count]                                             */
    size_t      rows;        /* distinct ones                                               */
    wf_cell    *cells;       /* [rows][branches][slots]                                     */
    int32_t    *row_of_call; /* [calls]                                                     */
    bool        bare;        /* the method wants the file's alpha left out, in the UNet     */
    wf_blob    *memo;        /* what the method learnt of the weights: copies of the plan keep it */
    wf_blob    *found;       /* what it concluded for this table alone                      */
    wf_text     warnings;    /* lines                                                       */
} wf_table;

struct weft_plan {
    wf_refs           refs;
    weft_allocator    alloc;
    weft_log_fn       log;
    void             *log_user;
    weft_progress_fn  progress;
    void             *progress_user;
    int32_t           path;
    int32_t           text;
    int32_t           mixed;
    weft_model       *model;
    wf_entry         *entry;
    int32_t           adapters;
    int32_t           room;         /* entries that fit into `entry`                        */
    const wf_method  *method;
    wf_blob          *options;      /* the method's own struct, defaults filled in; NULL: none */
    const wf_method  *memo_of;      /* the method that `memo` belongs to                    */
    wf_blob          *memo;         /* from the plan that this one is a copy of             */
    wf_weave        **cache;        /* likewise, by layer                                   */
    size_t            cached;
    wf_words         *words;        /* that concepts gave; NULL: none                       */
    bool              sealed;
    wf_table          table;
};

struct wf_method {
    const char *name;
    const char *title; /* as people write it */
    int32_t     text; /* WEFT_TEXT_*: who acts on the text encoders unless the plan says otherwise */

    /* Check the adapters, set t->branches (1 so far) and read what the cells depend on. May be NULL. */
    weft_status (*begin)(const weft_plan *p, wf_table *t, weft_error *err);

    /* The coefficient of a UNet layer's cell before the user's weight; asked only where the adapter has
     * factors and is selected. Pure. */
    float (*choose)(const weft_plan *p, const wf_table *t, int32_t call, int32_t branch, int32_t layer,
                    int32_t adapter);

    /* With several branches: how their predictions become one, and the weights of the sum. NULL: one branch. */
    void (*combine)(const weft_plan *p, float *out, const float *const *preds, size_t n, bool guided);
    void (*weigh)(const weft_plan *p, int32_t branch, float *weight, float *divisor);

    /* The part an adapter plays here, for reports; NULL: what its role says. */
    const char *(*part)(const weft_plan *p, int32_t adapter);

    /* Say what the options mean (lines "  name      value"), and the table in few lines. */
    void (*describe)(const weft_plan *p, wf_text *out);
    void (*explain)(const weft_plan *p, wf_text *out);
};

extern const wf_method wf_method_merge;
extern const wf_method wf_method_switch;
extern const wf_method wf_method_composite;
extern const wf_method wf_method_klora;

/* ---- plan.c ---------------------------------------------------------------------------------------- */

/* What every public setter does: refuse a sealed plan, keep the method and its options. */
weft_status wf_plan_use(weft_plan *plan, const wf_method *method, const void *options, size_t size,
                        weft_error *err);
/* Is it a plan, and not sealed? And may an adapter, or a concept with one, be added so? `what` and `name` are for the line. */
weft_status wf_plan_still_open(const weft_plan *plan, const char *what, weft_error *err);
weft_status wf_plan_check_add(const weft_add_options *o, float weight, const char *name, weft_error *err);
/* Add a line to the report of a table that is being made. */
void wf_table_warn(const weft_plan *p, wf_table *t, const char *format, ...) WF_PRINTF(3, 4);
/* Module of adapter `adapter` at a layer, or NULL where it has none or is not selected. */
const wf_module *wf_plan_module(const weft_plan *p, int32_t adapter, int32_t layer);
/* "content", "style" or "". */
const char *wf_plan_part(const weft_plan *p, int32_t adapter);
/* Number of UNet layers where some cell of the adapter is not zero. */
int32_t wf_plan_reach(const weft_plan *p, int32_t adapter);

/* ---- words.c ------------------------------------------------------------------------------------------ */

wf_words *wf_words_ref(wf_words *w); /* NULL stays NULL */
void      wf_words_drop(wf_words *w);
void      wf_words_explain(const wf_words *w, wf_text *out);
uint64_t  wf_words_stamp(const wf_words *w); /* of all words with their vectors; 0 where there are none */

/* ---- stamp.c ------------------------------------------------------------------------------------------ */

/* Hashes that go on from h. */
uint64_t wf_stamp_text(uint64_t h, const char *s, size_t n);
uint64_t wf_stamp_floats(uint64_t h, const float *v, size_t n);

/* ---- compile.c --------------------------------------------------------------------------------------- */

weft_status wf_table_make(wf_table *t, const weft_plan *p, int32_t calls, weft_error *err);
void        wf_table_free(wf_table *t, const weft_allocator *alloc);
/* Does the adapter act while prompts are encoded? What a text slot's cell holds: its weight if so, else 0. */
bool        wf_plan_text_acts(const weft_plan *p, int32_t adapter);
float       wf_plan_text_cell(const weft_plan *p, int32_t adapter, int32_t layer);
/* The user's weight as it stands in a cell: 1 where it acts inside a norm instead (WEFT_ADD_PEFT_DORA). */
float       wf_plan_cell_weight(const weft_plan *p, int32_t adapter, int32_t layer);
/* Floats of a stack: factors, matrices, differences of biases. */
size_t      wf_stack_floats(const wf_layer *layer, const wf_stack *stack);
size_t      wf_layer_columns(const wf_layer *layer); /* K = kernel^2 * in */
void            wf_weave_drop(wf_weave *w);
wf_weave       *wf_weave_ref(wf_weave *w);

/* ---- mixed.c ------------------------------------------------------------------------------------------- */

/* Has the plan's policy for adapters that depend on the weight something to say at a layer with these parts? Of a text
 * encoder: would it, if it were in the UNet. Never under WEFT_MIXED_DELTA. */
bool        wf_mixed_matters(const weft_plan *p, const wf_layer *layer, const wf_strand *strand, int32_t parts);
/* Refuse what it does not allow there: slot and strand [parts]; `constant`: the same in every call, and one branch. */
weft_status wf_mixed_check(const weft_plan *p, const wf_layer *layer, const wf_slot *slot, const wf_strand *strand,
                           int32_t parts, bool constant, weft_error *err);
const char *wf_mixed_name(int32_t mixed); /* "delta", "inside", .. */

/* ---- klora.c: the rule alone, for tests -------------------------------------------------------------- */

/* Content (true) or style at call n of N, layer l of L (1-based, in order of execution). */
bool wf_klora_choose(double rho, int32_t n, int32_t N, int32_t l, int32_t L, const weft_klora_options *options);
/* Mean of the ratios below three times their mean; *dropped tells how many were not. 1 when `count` is 0. */
double wf_klora_gamma(const double *ratio, size_t count, int32_t *dropped);

/* ---- composite.c: the sum alone, for tests ------------------------------------------------------------ */

/* out = sum of share[b] * preds[b] / divisor, added in order of size: no order of the branches shows. */
void wf_composite_sum(float *out, const float *const *preds, const float *share, int32_t branches, double divisor,
                      size_t n);

/* ---- switch.c: the turn alone, for tests -------------------------------------------------------------- */

int32_t wf_switch_turn(int32_t call, int32_t period, int32_t adapters, bool official_offset);

/* ---- explain.c: names and numbers for people, also in pictures ------------------------------------------ */

/* "A" .. "Z", then "A1" ..: how texts and pictures call an adapter. */
typedef struct wf_letter_text { char text[8]; } wf_letter_text;
const char *wf_letter(wf_letter_text *buf, int32_t adapter);
/* "down.1.att.0.tf.0.attn1.to_q" of a canonical layer name, cut to fit; and of its block, "down.1". */
typedef struct wf_short_text { char text[64]; } wf_short_text;
const char *wf_short_name(wf_short_text *buf, const char *layer);
const char *wf_block_name(wf_short_text *buf, const char *layer);
/* v with this many decimals (0..6), or "inf". */
const char *wf_fixed(wf_number_text *buf, double v, int32_t decimals);

#endif
