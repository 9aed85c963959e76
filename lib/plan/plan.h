/* plan.h (internal) - what a sealed plan hands to a run: sheets of coefficients, and what each
 * does to each layer.
 *
 * The table of a plan is a list of sheets: one for each phase, over the layers of the denoiser, and
 * one for the text encoders. A sheet lists its slots, the (layer, adapter) pairs that can ever
 * matter, and holds its distinct rows: a row has a coefficient for each branch and slot. */
#ifndef WF_PLAN_H
#define WF_PLAN_H

#include "adapter/adapter.h"
#include "image/image.h"
#include "model/model.h"
#include "nets/exec.h"
#include "weft/plan.h"

typedef struct wf_binding wf_binding;
typedef struct wf_method wf_method;
typedef struct wf_blob wf_blob;

/* One adapter's part in a patch. */
typedef struct wf_patch_part {
    const wf_module *module;
    wf_slice         slice;  /* of the layer's rows                                        */
    double           scale;  /* the file's; 1 if the method leaves alpha out               */
    double           inside; /* WEFT_ADD_PEFT_DORA: the weight, inside the norm; else 1    */
} wf_patch_part;

/* What adapters do to one layer: which modules act there, and their factors unless the layer is
 * computed from a merged copy. Immutable, shared by phases and by copies of a plan. */
typedef struct wf_patch {
    wf_refs        refs;
    weft_allocator alloc;
    int32_t        layer;
    int32_t        parts;
    bool           merged;
    wf_binding   **from;   /* [parts], kept */
    wf_patch_part *part;   /* [parts]       */
    wf_stack       stack;  /* zeros where merged */
    void          *lists;
    void          *memory; /* the stack's; NULL where merged */
} wf_patch;

/* A patch in a sheet: its coefficients stand in slots [slot, slot + patch->parts) of a row. */
typedef struct wf_patched {
    int32_t   layer;
    int32_t   slot;
    wf_patch *patch;  /* kept                             */
    int32_t   reason; /* WEFT_REASON_*, for the patch's way */
} wf_patched;

/* Coefficients of a call: for each branch and patch a line of cells, one for each part. */
typedef struct wf_row {
    size_t  at;       /* of the sheet's lines, [branches][patched_count]  */
    int32_t branches; /* evaluations of the denoiser, the base's included */
} wf_row;

/* An adapter with several modules at a layer has a slot for each. */
typedef struct wf_slot {
    int32_t layer;
    int32_t adapter;
    int32_t slice;   /* of the adapter's at the layer */
} wf_slot;

typedef struct wf_sheet {
    int32_t          first;         /* call of the plan that it begins at              */
    int32_t          calls;
    int32_t          of;            /* calls of the plan                               */
    const wf_method *method;        /* NULL: the sheet of the text encoders            */
    wf_blob         *options;       /* the method's struct, or NULL                    */
    const wf_blob   *balanced;      /* the table's; NULL: nothing is balanced          */
    bool             base;          /* the last branch of each row has no adapters     */
    bool             ignore_alpha;  /* the method wants the files' alpha left out      */
    size_t           slots;
    wf_slot         *slot;          /* [slots], by layer, then by adapter              */
    size_t           rows;          /* distinct ones                                   */
    wf_row          *row;           /* [rows]                                          */
    wf_cell         *cells;         /* of all lines; equal ones are kept once          */
    size_t          *lines;         /* where a line begins among the cells             */
    const float *const *vectors;    /* that cells name: the method's, in its state     */
    int32_t         *row_of_call;   /* [calls]                                         */
    size_t           patched_count;
    wf_patched      *patched;       /* [patched_count], by layer                       */
    wf_blob         *learnt;        /* of the weights by the method; copies keep it    */
    wf_blob         *state;         /* what the method concluded for this sheet        */
} wf_sheet;

/* ---- reading a sealed plan (read.c) ---------------------------------------------------------- */

weft_model     *wf_plan_model(const weft_plan *p);
bool            wf_plan_sealed(const weft_plan *p);
int32_t         wf_plan_calls(const weft_plan *p);
int32_t         wf_plan_adapters(const weft_plan *p);
/* A mask as the caller gave it. Cells name it by 1 + its adapter. */
typedef struct wf_plan_mask {
    int32_t      h, w;
    bool         adds;    /* not shared where masks overlap */
    float        text;
    const float *values;  /* (h, w)                          */
} wf_plan_mask;
const wf_plan_mask *wf_plan_mask_of(const weft_plan *p, int32_t adapter); /* NULL: it has none */
bool            wf_plan_masked(const weft_plan *p);                       /* has any adapter one? */
const char     *wf_plan_adapter_name(const weft_plan *p, int32_t adapter);
/* Regions with prompts of their own, and the mask of one. */
int32_t             wf_plan_regions(const weft_plan *p);
const wf_plan_mask *wf_plan_region_mask(const weft_plan *p, int32_t region);
bool                wf_plan_region_isolated(const weft_plan *p, int32_t region);
/* cells [row's branches][slots] = the row's for layers over the prompt of a region, -1 for that of
 * the whole image: an adapter with a region acts on no other region's prompt. */
void wf_plan_region_cells(const weft_plan *p, const wf_sheet *s, const wf_row *row, int32_t region,
                          wf_cell *cells);
/* Image prompts, weft_plan_image_prompts() of them: the IP-Adapter, what it does at each layer, its
 * mask (NULL: none), its weight in a call, and the most rows that a call may bring. */
const weft_image_adapter *wf_plan_image_adapter(const weft_plan *p, int32_t index);
const wf_image_at        *wf_plan_image_at(const weft_plan *p, int32_t index);
const wf_plan_mask       *wf_plan_image_mask(const weft_plan *p, int32_t index);
float                     wf_plan_image_weight(const weft_plan *p, int32_t index, int32_t call);
int32_t                   wf_plan_image_tokens(const weft_plan *p, int32_t index);
/* How the samples of a batch take on the style of the first; NULL: they do not. */
const weft_align_options *wf_plan_align(const weft_plan *p);
/* Most evaluations of the denoiser in a call, over all calls; guidance is not counted. */
int32_t         wf_plan_evaluations(const weft_plan *p);
const wf_sheet *wf_plan_phases(const weft_plan *p, size_t *count);
/* The phase of a call, 0 <= call < calls. */
const wf_sheet *wf_plan_phase(const weft_plan *p, int32_t call);
/* What acts while a prompt is encoded: a sheet with one row of one branch. */
const wf_sheet *wf_plan_text_sheet(const weft_plan *p);
/* The row of a call of the plan that is one of the sheet's. */
const wf_row   *wf_sheet_row(const wf_sheet *s, int32_t call);
/* The cells of a row of one branch, [slots]. */
const wf_cell  *wf_sheet_cells(const wf_sheet *s, const wf_row *row);
/* The cells of a branch in a patch of any row, [parts]. */
const wf_cell  *wf_sheet_line(const wf_sheet *s, const wf_row *row, int32_t branch, size_t patch);
/* The first slot of an adapter at a layer, or -1. */
int64_t         wf_sheet_slot(const wf_sheet *s, int64_t layer, int32_t adapter);
/* Cells of the text sheet for encoding with one adapter only; cells has its `slots` cells. */
void            wf_plan_text_cells(const weft_plan *p, int32_t adapter, wf_cell *cells);
void            wf_plan_ref(weft_plan *p);

/* Does a branch of a call of the plan reuse deep features? Does any, in any call? */
bool            wf_plan_reuses(const weft_plan *p, int32_t call, int32_t branch);
bool            wf_plan_ever_reuses(const weft_plan *p);

/* Most branches of a row, the base's not counted. */
int32_t         wf_sheet_branches(const wf_sheet *s);

/* ---- merged copies (patch.c, pairs.c, weight_dependent.c) --------------------------------------------- */

/* weight (out, K) = the layer's weight with the patch in it, under the plan's policy for adapters
 * that depend on the weight; and unless it is NULL, bias (out). cells [parts] of the patch;
 * `vectors` are the sheet's, NULL where no cell names one. */
weft_status wf_plan_patched_weight(const weft_plan *p, const wf_patch *patch, const wf_cell *cells,
                                   const float *const *vectors, float *weight, float *bias,
                                   const weft_allocator *alloc, weft_error *err);
/* Bytes that it takes from `alloc` at once where all parts are plain pairs (one block, the
 * factors); 0: unknown. */
size_t      wf_plan_pairs_scratch(const weft_plan *p, const wf_patch *patch, const wf_cell *cells);
wf_patch   *wf_patch_ref(wf_patch *x);
void        wf_patch_drop(wf_patch *x);
/* Does any part change the bias? */
bool        wf_patch_has_bias(const wf_patch *patch, const wf_layer *layer);
/* Floats of a merged copy: the weight, and the bias if a part changes it. */
size_t      wf_patch_merged_floats(const wf_patch *patch, const wf_layer *layer);

/* ---- show.c: how texts and images call things ------------------------------------------------ */

/* "A" .. "Z", then "A1" ..: how texts and images call an adapter. */
typedef struct wf_letter_text { char text[8]; } wf_letter_text;
const char *wf_letter(wf_letter_text *buf, int32_t adapter);
/* "down.1.att.0.tf.0.attn1.to_q" of a canonical layer name, cut to fit; and of its block,
 * "down.1". */
typedef struct wf_short_text { char text[64]; } wf_short_text;
const char *wf_short_name(wf_short_text *buf, const char *layer);
const char *wf_block_name(wf_short_text *buf, const char *layer);

/* ---- strength.c, report.c -------------------------------------------------------------------- */

/* strength [calls][adapters], and unless it is NULL norm [adapters]: weft_plan_strengths(). */
weft_status wf_plan_strengths(const weft_plan *p, double *strength, double *norm, weft_error *err);
/* Add all that is known of a plan without an image's size to a document; call [calls] are then the
 * objects of its calls. */
weft_status wf_plan_report(const weft_plan *p, const double *strength, const double *norm,
                           wf_doc *d, wf_node **call, weft_error *err);
/* A text of a file's or a caller's, as one clean line. */
void        wf_node_washed(wf_doc *d, wf_node *in, const char *key, const char *s);

/* ---- combining branches (combine.c) ---------------------------------------------------------- */

enum { WF_UNCONDITIONAL = 0, WF_CONDITIONAL = 1 };

/* The predictions of a call's branches, for one half of guidance, and all that a method may need to
 * combine them. All arrays are (n, c, h, w). */
typedef struct wf_combine {
    int32_t             call;      /* of the plan                                                  */
    float               timestep;  /* the noise level, as the denoiser got it                      */
    int32_t             n, c, h, w;
    const float        *latent;    /* what the denoiser read                                       */
    int32_t             half;      /* WF_CONDITIONAL, or with guidance first WF_UNCONDITIONAL      */
    bool                guided;
    int32_t             branches;  /* the base's is not counted                                    */
    const wf_mask      *masks;     /* [adapters], with a level of (h, w); NULL: none has a mask    */
    const float *const *preds;     /* [branches]                                                   */
    const float        *base;      /* the prediction without adapters, if the method asks; or NULL */
    const float *const *cond;      /* preds and base of the conditional half, which the other half's    */
    const float        *cond_base; /* weights may depend on; of that half the same as preds and base    */
    float              *scratch;   /* as many floats as wf_plan_combine_scratch() said             */
    float              *out;       /* must not be one of preds                                     */
    double             *shares;    /* [branches, and 1 for the base] written: what each counts for
                                      in `out`, its mean over the values; NULL: nobody asks       */
} wf_combine;
/* Floats that the methods of the plan want for a combination of n * c * h * w values: the most. */
size_t wf_plan_combine_scratch(const weft_plan *p, size_t values);
void   wf_plan_combine(const weft_plan *p, const wf_combine *x);

/* ---- stamp.c --------------------------------------------------------------------------------- */

/* A number for all that can change an encoding: the text encoders, what adapters add to them,
 * placeholder tokens. Never 0. */
uint64_t wf_plan_text_stamp(const weft_plan *p);

/* ---- tokens.c: what concepts add to the vocabulary of a plan's prompts ----------------------- */

/* All WEFT_ENCODE_* that there are. */
#define WF_ENCODE_FLAGS (WEFT_ENCODE_TRUNCATE | WEFT_ENCODE_ADAPTER | WEFT_ENCODE_WEIGHTS | \
                         WEFT_ENCODE_NO_MEAN | WEFT_ENCODE_FROM_EMPTY | WEFT_ENCODE_COMMA)

/* Immutable; NULL for a plan without any, which every function here takes. */
typedef struct wf_tokens wf_tokens;
const wf_tokens *wf_plan_tokens(const weft_plan *p);
const wf_extras *wf_tokens_extras(const wf_tokens *t, int32_t encoder);
size_t           wf_tokens_rows(const wf_tokens *t);
/* The token that owns a row, and for how many cross-attention layers it has vectors; 0: the same
 * for all. */
const char      *wf_tokens_name(const wf_tokens *t, int32_t row);
int32_t          wf_tokens_layers(const wf_tokens *t, int32_t row);
/* The tokens of another plan, of the same model, in place of those that an unsealed plan has. */
void             wf_plan_take_tokens(weft_plan *to, const weft_plan *from);
/* rows[k] = row k for this encoder, as cross-attention layer `layer` is to see it. */
void             wf_tokens_fill(const wf_tokens *t, int32_t encoder, int32_t layer,
                                const float **rows);
/* Whether the model's vocabularies have a folded text as one token, and whether its tokenizers find
 * it in a prompt if it stands for something. */
weft_status      wf_tokens_look_up(const weft_model *m, const char *text, size_t len, bool *taken,
                                   bool *found, weft_error *err);

/* ---- method/zip.c: ZipLoRA's coefficients in files -------------------------------------------- */

/* What stands behind a layer's name in a file of coefficients: content's, style's. And the metadata
 * with the names of the adapters. */
extern const char *const wf_zip_endings[2];
extern const char *const wf_zip_names[2];
/* Mean of |m n|, as the published program has the similarity of two vectors. */
double wf_zip_similarity(const float *m, const float *n, size_t count);

/* ---- method/blora.c: where a model has content and style ------------------------------------- */

enum { WF_PLACES_MAX = 1024 };
/* Patterns of layers' names; false for a model that has no levels with attention. */
bool wf_blora_places(const weft_model *m, char content[WF_PLACES_MAX], char style[WF_PLACES_MAX]);

#endif
