/* plan_internal.h - the plan as the files of this room see it.
 *
 * From adapters to coefficients, and each file uses only those before it:
 *
 *   show.c       names and numbers for people
 *   binding.c    an adapter on a model, seen through one selection of layers
 *   cell.c       the user's weights, and who acts on the text encoders
 *   curve.c      a weight as key frames over the calls
 *   mask.c       where in the image an adapter acts
 *   region.c     parts of the image with prompts of their own
 *   align.c      samples that take on the style of their batch's first
 *   blocks.c     factors of a weight, block by block
 *   image.c      pictures as prompts
 *   balance.c    how much stronger one adapter is than another
 *   weight_dependent.c  adapters that depend on the layer's weight, beside others
 *   patch.c      what the adapters do to one layer: factors, or a merged copy
 *   sheet.c      slots and rows of a phase, from what its method says
 *   method/      one file for each method
 *   plan.c       the handle: building, phases, sealing, copying
 *   read.c       a sealed plan's cells and facts
 *   combine.c    how the branches' predictions become one
 *   strength.c   how much of each adapter acts at each call
 *   tokens.c, stamp.c, explain.c, report.c, conflicts.c, save_model.c, fold.c   what else is made
 *                of a plan
 *   fields.c     option structs as data; the methods' tables are in their files
 *   notes.c, mask_text.c, save.c, load.c   the plan as text */
#ifndef WF_PLAN_INTERNAL_H
#define WF_PLAN_INTERNAL_H

#include "adapter/family.h"
#include "plan/fields.h"
#include "plan/plan.h"

enum {
    WF_ADAPTERS_MAX = 1024,  /* of one plan: what a combination sorts on the stack         */
    WF_TOKENS_MAX   = 65536, /* of one plan, and of their vectors                          */
    WF_CALLS_MAX    = 100000, /* an image takes tens; beyond this somebody's number is wrong */
    WF_PHASES_MAX   = 1024
};

/* ---- counted blocks (plan.c) ----------------------------------------------------------------- */

/* A counted block of plain memory that several plans share and none changes. */
struct wf_blob {
    wf_refs        refs;
    weft_allocator alloc;
    void         (*drop)(void *data); /* lets go of what the data holds; NULL: nothing */
    void          *data;
};
wf_blob *wf_blob_create(const weft_allocator *alloc, size_t size); /* zeroed; NULL without memory */
wf_blob *wf_blob_ref(wf_blob *b);
void     wf_blob_drop(wf_blob *b);

/* ---- the plan -------------------------------------------------------------------------------- */

/* An adapter on a model, seen through one selection of layers. Immutable, shared by copies of a
 * plan. */
struct wf_binding {
    wf_refs        refs;
    weft_allocator alloc;
    weft_adapter  *adapter;
    char          *select;  /* NULL: every layer */
    char          *exclude; /* NULL: none        */
    size_t         layers;  /* of the model     */
    wf_slice      *slice;   /* what acts at layer l: slice[first[l]] to slice[first[l + 1] - 1] */
    int32_t       *first;   /* [layers + 1]     */
    _Atomic uint64_t text_stamp; /* of what it adds to the text encoders, once asked for; else 0 */
};

enum { WF_TEXT_ENCODERS = 3 };

typedef struct wf_entry {
    wf_binding *bound;
    float       weight;                        /* in the denoiser           */
    float       text_weight[WF_TEXT_ENCODERS]; /* in the 1st, 2nd, 3rd text encoder */
    float       share;
    int32_t     role;
    bool        peft_dora;                     /* WEFT_ADD_PEFT_DORA        */
    bool        partial;                       /* WEFT_ADD_PARTIAL          */
    wf_blob    *curve;                         /* of the weight over the calls; NULL: 1   */
    wf_blob    *mask;                          /* where in the image; NULL: everywhere    */
    wf_blob    *blocks;                        /* factors of the weight by layer; NULL: 1 */
} wf_entry;

/* A part of the image with a prompt of its own. */
typedef struct wf_region {
    wf_blob *mask;     /* NULL: that of the adapter */
    int32_t  adapter;  /* -1: none                  */
    bool     isolated;
} wf_region;

/* A picture as a prompt. */
typedef struct wf_image_prompt {
    weft_image_adapter *adapter;
    float               weight;
    int32_t             images;  /* pictures whose rows it has room for        */
    wf_blob            *at;      /* wf_image_at [layers]                       */
    wf_blob            *blocks;  /* factors, as they were given; NULL: 1       */
    wf_blob            *mask;    /* NULL: everywhere                           */
    wf_blob            *curve;   /* of the weight over the calls; NULL: 1      */
} wf_image_prompt;

/* A phase as it was asked for: from a call on, a method and its options. */
typedef struct wf_phase {
    int32_t          first;    /* call; where `at` is negative */
    double           at;       /* share of all calls, else -1  */
    const wf_method *method;
    wf_blob         *options;  /* the method's public struct, with defaults filled in and pointers
                                  into the block, and what else it keeps; NULL: none      */
    wf_blob         *learnt;   /* of a sealed plan that this one is a copy of             */
} wf_phase;

/* What sealing makes. */
typedef struct wf_table {
    int32_t   calls;
    size_t    phases;
    wf_sheet *phase;    /* [phases]; together they cover all calls */
    wf_sheet  text;
    wf_blob  *balanced; /* g of every adapter; NULL: nothing is balanced */
    wf_text   warnings; /* lines */
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
    int32_t           entry_cap;
    wf_region        *region;
    int32_t           regions;
    wf_image_prompt  *image;       /* [WF_IMAGES_MAX]; NULL: none yet           */
    int32_t           images;
    wf_phase         *phase;       /* in order; the first begins at call 0      */
    size_t            phases;      /* at least 1                                */
    wf_patch        **cache;       /* of the plan that this one is a copy of, by layer */
    size_t            cached;
    wf_blob          *align;       /* its options; NULL: each sample by itself  */
    wf_blob          *balance;     /* its options; NULL: nothing is balanced    */
    wf_blob          *balanced;    /* of the plan that this one is a copy of    */
    wf_tokens        *tokens;      /* that concepts gave; NULL: none            */
    wf_blob          *notes;       /* that programs keep with it; NULL: none    */
    bool              sealed;
    wf_table          table;
};

/* What every method setter does: refuse a sealed plan, and set method and options of the last
 * phase. */
weft_status wf_plan_use(weft_plan *plan, const wf_method *method, const void *options, size_t size,
                        weft_error *err);
/* What the last phase keeps, to be completed by the setter that has just been at it. */
void       *wf_plan_kept_options(weft_plan *plan);
/* Is it a plan, and not sealed? `what` is for the line. */
weft_status wf_plan_still_open(const weft_plan *plan, const char *what, weft_error *err);
/* Is it a plan, not sealed, that has this adapter? */
weft_status wf_plan_check_index(const weft_plan *plan, int32_t adapter, const char *what,
                                weft_error *err);
weft_status wf_plan_must_be_sealed(const weft_plan *plan, const char *what, weft_error *err);
/* D (out, K) = all that an adapter adds to a layer, with the file's scale (method/zip.c). */
weft_status wf_plan_difference(const weft_plan *p, int32_t adapter, const wf_layer *l, float *D,
                               weft_error *err);
/* May an adapter, or a concept with one, be added so? `name` is for the line. */
weft_status wf_plan_check_add(const weft_add_options *o, float weight, const char *name,
                              weft_error *err);
/* Add a line to the report of a table that is being made. */
void        wf_table_warn(const weft_plan *p, wf_table *t, const char *format, ...) WF_PRINTF(3, 4);

/* ---- binding.c ------------------------------------------------------------------------------- */

weft_status wf_binding_create(wf_binding **out, weft_model *model, weft_adapter *adapter,
                              const weft_add_options *o, const weft_allocator *alloc,
                              weft_error *err);
wf_binding *wf_binding_ref(wf_binding *b);
void        wf_binding_drop(wf_binding *b);
/* The same with these slices, in the order of the layers, in place of those of the adapter's
 * report. */
weft_status wf_binding_make(wf_binding **out, weft_model *model, weft_adapter *adapter,
                            const wf_slice *slices, size_t n, const weft_add_options *o,
                            const weft_allocator *alloc, weft_error *err);
/* The modules of adapter `adapter` at a layer, and at which of its rows; none if it has none there
 * or the layer is not selected. */
const wf_slice *wf_plan_slices(const weft_plan *p, int32_t adapter, int32_t layer, int32_t *count);
/* The first of them, or NULL. */
const wf_module *wf_plan_module(const weft_plan *p, int32_t adapter, int32_t layer);

/* ---- cell.c ---------------------------------------------------------------------------------- */

/* The user's weight at a layer. */
double  wf_plan_weight(const weft_plan *p, int32_t adapter, int32_t layer);
/* The same as it stands in a cell: 1 if it acts inside a norm instead (WEFT_ADD_PEFT_DORA). */
double  wf_plan_cell_weight(const weft_plan *p, int32_t adapter, int32_t layer);
bool    wf_plan_weighs_inside(const weft_plan *p, int32_t adapter, int32_t layer);
/* Does the adapter act while prompts are encoded? What a text slot's cell holds: its weight if so,
 * else 0. */
bool    wf_plan_text_acts(const weft_plan *p, int32_t adapter);
float   wf_plan_text_cell(const weft_plan *p, int32_t adapter, int32_t layer);

/* WEFT_ROLE_* of an adapter for methods of content and style: its own; of two adapters the other's
 * counterpart, or the first is content and the second style; else NONE. */
int32_t wf_plan_role(const weft_plan *p, int32_t adapter);

/* ---- curve.c, mask.c, blocks.c --------------------------------------------------------------- */

void   wf_curve_explain(const wf_blob *curve, wf_text *out);
/* A caller's points, copied; NULL for none. */
weft_status wf_curve_read(wf_blob **out, const weft_plan *plan, uint32_t flags,
                          const weft_curve_point *points, size_t count, weft_error *err);
/* As it was given: how many points, whether at shares of the calls, and each. */
size_t wf_curve_count(const wf_blob *curve, bool *share);
void   wf_curve_point(const wf_blob *curve, size_t i, weft_curve_point *out);
/* The curve's value at a call of the plan's; NULL: 1. */
double wf_curve_at(const wf_blob *curve, int32_t call, int32_t calls);
/* A caller's text, read for the plan's model. The factor of a layer; NULL: 1. The text as it was
 * given; NULL: "". What it comes to, in a line. */
weft_status wf_blocks_read(wf_blob **out, const weft_plan *plan, const char *text, weft_error *err);
float       wf_blocks_at(const wf_blob *blocks, int32_t layer);
const char *wf_blocks_text(const wf_blob *blocks);
void        wf_blocks_explain(const weft_plan *p, const wf_blob *blocks, wf_text *out);

/* ---- balance.c ------------------------------------------------------------------------------- */

/* What brings an adapter to the strength of another. */
typedef struct wf_balance {
    int32_t gamma;   /* WEFT_KLORA_GAMMA_*                                              */
    int32_t pairs;   /* layers that have something of both                              */
    int32_t dropped; /* of those, left out as far off                                   */
    bool    failed;  /* there is no such number: the factor is 1                        */
    double  factor;  /* its difference times this is as strong as that of the reference */
} wf_balance;
/* From the sums of all |entries| of the reference and of the other, a number for each layer; 0 where
 * one has nothing. `own` is scratch afterwards. */
wf_balance  wf_balance_of(double *own, const double *other, size_t count, int32_t gamma);
void        wf_balance_warn(const weft_plan *p, wf_table *t, const char *who, const char *what,
                            const wf_balance *b, int32_t reference, int32_t adapter);
/* t->balanced, if the plan asks for it: those of an earlier plan, or read from the weights. */
weft_status wf_balance_make(wf_table *t, const weft_plan *p, weft_error *err);
/* The options of a balance without an adapter that leaves the plan, as wf_method.forget has it;
 * options may be NULL, and *out is then too. */
weft_status wf_balance_forget(wf_blob **out, const weft_plan *p, const wf_blob *options,
                              int32_t adapter, weft_error *err);
/* What multiplies an adapter's weight; 1 without a balance (NULL). */
double      wf_balance_at(const wf_blob *balanced, int32_t adapter);
void        wf_balance_explain(const weft_plan *p, wf_text *out);
/* ", mean ratio of 12 layers, 0 far ones left out", and the end of the line. */
void        wf_balance_describe(const wf_balance *b, wf_text *out);
/* Mean of the ratios below three times their mean; *dropped tells how many were not. 1 when `count`
 * is 0. */
double      wf_klora_gamma(const double *ratio, size_t count, int32_t *dropped);

/* The share of the image that a mask is. */
double      wf_plan_mask_mean(const wf_plan_mask *m);
/* A caller's mask, copied. */
weft_status wf_plan_mask_read(wf_blob **out, const weft_plan *plan, const weft_mask *mask,
                              uint32_t flags, weft_error *err);

/* ---- region.c -------------------------------------------------------------------------------- */

/* Has every region a mask? */
weft_status wf_plan_check_regions(const weft_plan *p, weft_error *err);
weft_status wf_plan_copy_regions(weft_plan *p, const weft_plan *from, weft_error *err);
void        wf_plan_drop_regions(weft_plan *p);
/* An adapter is taken out, and its region with it. */
void        wf_plan_regions_forget(weft_plan *p, int32_t adapter);

/* ---- image.c --------------------------------------------------------------------------------- */

weft_status wf_plan_copy_images(weft_plan *p, const weft_plan *from, weft_error *err);
void        wf_plan_drop_images(weft_plan *p);
void        wf_images_explain(const weft_plan *p, wf_text *out);

/* ---- align.c --------------------------------------------------------------------------------- */

/* May samples be aligned with the plan's regions as they are? */
weft_status wf_plan_check_align(const weft_plan *p, weft_error *err);
weft_status wf_plan_check_images(const weft_plan *p, int32_t calls, weft_error *err);
void        wf_align_explain(const weft_plan *p, wf_text *out);

/* ---- patch.c --------------------------------------------------------------------------------- */

/* A patch of a sheet, of which layer, first slot and number of parts are known: one that the sheets
 * before it or the plan's cache have already, or a new one. */
weft_status wf_patch_find_or_make(wf_patch **out, int32_t *reason, const weft_plan *p,
                                  const wf_table *t, const wf_sheet *s, size_t patch, int32_t parts,
                                  weft_error *err);
/* Products of the side path over those of the layer itself; is a part a whole difference? */
double      wf_patch_work(const wf_patch *patch, const wf_layer *layer, bool *whole);
/* WEFT_REASON_* as a person reads it. */
const char *wf_reason_words(int32_t reason);
/* dst (out, K) += sum over the parts of cells[p] * Delta_p, and the same for bias (out) unless it
 * is NULL. `vectors` are those that cells name, NULL if none does; masks are left out. */
weft_status wf_patch_add(const wf_patch *patch, const wf_layer *layer, const wf_cell *cells,
                         const float *const *vectors, float *dst, float *bias,
                         const weft_allocator *alloc, weft_error *err);
/* Floats of a stack: factors, matrices, differences of biases. */
size_t      wf_stack_floats(const wf_layer *layer, const wf_stack *stack);
size_t      wf_layer_columns(const wf_layer *layer); /* K = kernel^2 * in */

/* ---- pairs.c --------------------------------------------------------------------------------- */

/* Are all parts that add something plain pairs of factors, and their coefficients numbers? */
bool        wf_patch_of_pairs(const wf_patch *patch, const wf_layer *layer, const wf_cell *cells);
/* Of such a patch: weight (out, K) = the layer's with the patch in it, and bias (out), which holds
 * the layer's, += what the parts add, unless it is NULL. */
weft_status wf_patch_fill_pairs(const wf_patch *patch, const wf_layer *layer, const wf_kernels *k,
                                const wf_cell *cells, float *weight, float *bias,
                                const weft_allocator *alloc, weft_error *err);

/* ---- weight_dependent.c ---------------------------------------------------------------------- */

/* Does the plan's policy for adapters that depend on the weight apply to a layer with these parts?
 * For a layer of a text encoder: would it, in the denoiser? Never under WEFT_MIXED_DELTA. */
bool        wf_mixed_matters(const weft_plan *p, const wf_layer *layer, const wf_patch_part *part,
                             int32_t parts);
/* Refuse what it does not allow there: slot and part [parts]; `constant`: the same in every call of
 * the phase, and one branch. */
weft_status wf_mixed_check(const weft_plan *p, const wf_sheet *s, const wf_layer *layer,
                           const wf_slot *slot, const wf_patch_part *part, int32_t parts,
                           bool constant, weft_error *err);
const char *wf_mixed_name(int32_t mixed); /* "delta", "inside", .. */

/* ---- sheet.c --------------------------------------------------------------------------------- */

weft_status wf_table_make(wf_table *t, const weft_plan *p, int32_t calls, weft_error *err);
void        wf_table_free(wf_table *t, const weft_allocator *alloc);

/* ---- read.c ---------------------------------------------------------------------------------- */

/* Coefficient of an adapter at a layer in a row's branch; 0 if the sheet has no such slot. */
wf_cell wf_sheet_cell(const wf_sheet *s, const wf_row *row, int32_t branch, int64_t layer,
                      int32_t adapter);
/* Number of layers of a sheet with a cell of the adapter that is not zero. */
int32_t wf_sheet_reach(const wf_sheet *s, int32_t adapter);
/* Is any cell of slots [first, end) not zero, in any row and branch? */
bool    wf_sheet_any_cell(const wf_sheet *s, size_t first, size_t end);
/* "content", "style" or "": the role of an adapter. */
const char *wf_plan_role_name(const weft_plan *p, int32_t adapter);

/* ---- save_model.c ---------------------------------------------------------------------------- */

/* Is it a sealed plan with one phase, one branch that counts in full, no mask or region, and the
 * same coefficients in every call? */
weft_status wf_plan_must_be_fixed(const weft_plan *p, const char *what, weft_error *err);

/* ---- tokens.c -------------------------------------------------------------------------------- */

wf_tokens *wf_tokens_ref(wf_tokens *t); /* NULL stays NULL */
void       wf_tokens_drop(wf_tokens *t);
void       wf_tokens_explain(const wf_tokens *t, wf_text *out);
/* Warn of adapters whose files have tokens too, where no concept of the plan gives them. */
void       wf_tokens_warn(const weft_plan *p, wf_table *t);
/* Concept number `index`, 0 the first that gave tokens, and whether it replaces those of the
 * vocabulary; NULL: there are no more. */
weft_concept *wf_tokens_concept(const wf_tokens *t, size_t index, bool *replace);
/* Add a concept's tokens, and not its adapter. */
weft_status   wf_plan_add_tokens(weft_plan *plan, weft_concept *concept, bool replace,
                                 weft_error *err);
/* Of all tokens with their vectors; 0 without any. */
uint64_t   wf_tokens_stamp(const wf_tokens *t);

/* ---- stamp.c --------------------------------------------------------------------------------- */

/* Hashes that go on from h. */
uint64_t wf_stamp_text(uint64_t h, const char *s, size_t n);
uint64_t wf_stamp_floats(uint64_t h, const float *v, size_t n);

/* ---- notes.c, mask_text.c, save.c, load.c: a plan as text ------------------------------------ */

enum {
    WF_PLAN_FORMAT  = 1,      /* of the text                                                  */
    WF_MASK_PIXELS  = 1 << 27 /* of all masks in a text: eight lines can say a mask of 64 MiB */
};
/* A note, in the plan's own memory. `file` is of one that is a file, whose path is the value; of a
 * text it has no path. */
typedef struct wf_note {
    const char *name, *value;
    wf_origin   file;
} wf_note;
/* Note number `index`; false: there are no more. */
bool        wf_plan_note_at(const weft_plan *p, size_t index, wf_note *out);
/* The note of a name; false: there is none. */
bool        wf_plan_note_find(const weft_plan *p, const char *name, wf_note *out);
void        wf_mask_write(wf_doc *d, wf_node *to, const wf_plan_mask *m,
                          const weft_allocator *alloc);
/* The size and the values of a mask, which live in the reader's bag. It takes its pixels from
 * *left, those that the text may have yet. */
weft_status wf_mask_read(const wf_fields_reader *r, json_t *object, const wf_place *place,
                         size_t *left, weft_mask *out, weft_error *err);

/* ---- show.c: names and numbers for people, also in images ------------------------------------ */

/* v with this many decimals (0..6), or "inf". */
const char *wf_fixed(wf_number_text *buf, double v, int32_t decimals);
/* "12.3 MB". */
const char *wf_bytes_text(wf_number_text *buf, size_t bytes);

#endif
