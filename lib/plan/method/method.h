/* method.h - what a method has to answer.
 *
 * A method is a row of functions, of which one is essential: `choose`, the coefficient of one cell.
 * Everything else about cells is the same for all methods and is in sheet.c and patch.c: user
 * weights, selections, text encoders, dropping what is always zero, folding equal rows, stacking
 * factors, choosing the path.
 *
 * A method works inside a phase: its calls are 0 .. s->calls - 1, counted from the phase's first.
 *
 * A new method is one file with its wf_method and its public setter, and its row in WF_METHODS. */
#ifndef WF_METHOD_H
#define WF_METHOD_H

#include "plan/fields.h"
#include "plan/plan_internal.h"

/* Every method, X(name). */
#define WF_METHODS(X) \
    X(merge) X(switch) X(composite) X(klora) X(zip) X(blora) X(blend) X(loratorio) X(subbands)

struct wf_method {
    const char *name;
    const char *title; /* as people write it                                                       */
    int32_t     text;  /* WEFT_TEXT_*: who acts on the text encoders unless the plan says otherwise */

    /* Required. The public setter; and the fields of its options, NULL if it has none. */
    weft_status (*use)(weft_plan *p, const void *options, weft_error *err);
    const wf_fields *fields;

    /* Required. The coefficient of a denoiser layer's cell before the user's weight; asked only
     * where the adapter has factors and is selected. Pure. Vectors that a cell names are those of
     * the sheet, which `begin` sets; the mask is the user's. */
    wf_cell (*choose)(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch,
                    int32_t layer, int32_t adapter);

    /* Everything below may be NULL. */

    /* Check the adapters, and read what the cells depend on into s->learnt and s->state. */
    weft_status (*begin)(const weft_plan *p, wf_table *t, wf_sheet *s, weft_error *err);
    /* The one adapter that acts in a branch: `choose` is then not asked for the others, so that a
     * plan of many is sealed in time. NULL: any may act. */
    int32_t (*alone)(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch);
    /* Branches of a call, at least 1. NULL: one. */
    int32_t (*branches)(const weft_plan *p, const wf_sheet *s, int32_t call);

    /* May this branch take its deep features from an earlier call? Never at call 0. NULL: no. */
    bool (*reuses)(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch);

    /* How the branches' predictions become one. NULL: the first branch's prediction. */
    void (*combine)(const weft_plan *p, const wf_sheet *s, const wf_combine *x);
    bool masks_predictions; /* combine reads the masks: cells have none */
    bool needs_base;   /* combine wants the prediction without adapters: one evaluation more */
    /* Floats of scratch that combine wants for predictions of this many values. NULL: none. */
    size_t (*scratch)(const weft_plan *p, const wf_sheet *s, size_t values);
    /* The weight of a branch in the combination, if it is a number. NULL: 1 of 1. */
    void (*weigh)(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch, float *weight,
                  float *divisor);

    /* The options without an adapter that leaves the plan: *out is a block of their own, in which
     * later adapters have moved up by one. NULL: no option names adapters. */
    weft_status (*forget)(wf_blob **out, const weft_plan *p, const wf_blob *options,
                          int32_t adapter, weft_error *err);

    /* The role of an adapter here, for reports. NULL: that of weft_add_options. */
    const char *(*part)(const weft_plan *p, const wf_sheet *s, int32_t adapter);
    /* Say what the options mean, in lines "  name      value"; and the sheet, in few lines. */
    void (*describe)(const weft_plan *p, const wf_sheet *s, wf_text *out);
    void (*explain)(const weft_plan *p, const wf_sheet *s, wf_text *out);
};

/* What a branch counts for in a part of the result, as a share of all of it; the base is branch
 * x->branches. A `combine` says so of every part (combine.c). */
void wf_take_down(const wf_combine *x, int32_t branch, double share);

/* The cells of most methods: the adapter acts in full, or not at all. */
#define WF_ALL     ((wf_cell){ 1, 0, 0 })
#define WF_NOTHING ((wf_cell){ 0, 0, 0 })

#define WF_METHOD_EXTERN(name) extern const wf_method wf_method_##name;
WF_METHODS(WF_METHOD_EXTERN)
#undef WF_METHOD_EXTERN

/* The setter of a method's file, for wf_method.use. */
#define WF_METHOD_USE(setter, type)                                                    \
    static weft_status use(weft_plan *p, const void *options, weft_error *err)         \
    {                                                                                  \
        return setter(p, (const type *)options, err);                                  \
    }

/* ---- weights.c, composite.c: methods that average predictions ---------------------------------- */

/* A branch for each adapter, in which it acts alone. */
int32_t wf_branches_each(const weft_plan *p, const wf_sheet *s, int32_t call);
wf_cell wf_choose_own(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch,
                      int32_t layer, int32_t adapter);
int32_t wf_alone_own(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch);
/* The share of a branch's adapter, of the sum of all. */
void    wf_weigh_shares(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch,
                        float *weight, float *divisor);
void    wf_explain_branches(const weft_plan *p, const wf_sheet *s, wf_text *out);
double  wf_share_sum(const weft_plan *p);
/* Refuse shares below 0, and none above. */
weft_status wf_check_shares(const weft_plan *p, const char *method, weft_error *err);

/* Sorts the terms and adds them up: no order of theirs shows in the sum. */
double  wf_sum_sorted(double *term, int32_t n);
/* The weight for a score, when the best of all is `best`; above 0 for the best itself. */
typedef double wf_weight_fn(double score, double best, double parameter);
/* weight [n], which sum to 1: share times rule(score), for the `keep` best scores of those that have
 * a share (all if keep is 0, and more if several are equal). */
void    wf_weights_of(double *weight, const double *score, const float *share, int32_t n,
                      int32_t keep, wf_weight_fn *rule, double parameter);
/* A part of an image: h rows of w values, `across` apart, in each of c planes, `plane` apart. */
typedef struct wf_rect { size_t first, plane, across; int32_t c, h, w; } wf_rect;
/* There, out = sum of weight[i] * from[i]; n at most WF_ADAPTERS_MAX + 1. */
void    wf_mix(float *out, const float *const *from, const double *weight, int32_t n,
               const wf_rect *k);
/* Of those that were mixed so, branches in order, the base last. */
void    wf_take_down_mix(const wf_combine *x, const double *weight, int32_t n, const wf_rect *k);

/* ---- rules by themselves, for tests ---------------------------------------------------------- */

/* K-LoRA: content (true) or style at call n of N, layer l of L (1-based, in order of execution). */
bool wf_klora_choose(double rho, int32_t n, int32_t N, int32_t l, int32_t L,
                     const weft_klora_options *options);
/* Composite: out = sum of share[b] * preds[b] / divisor, in order of size: no order of the branches
 * shows. */
void wf_composite_sum(float *out, const float *const *preds, const float *share, int32_t branches,
                      double divisor, size_t n);
/* Composite, cached: who is dominant at a call, and whether the others are computed anew. */
int32_t wf_composite_dominant(int32_t call, int32_t calls, int32_t adapters);
bool    wf_composite_refreshes(int32_t call, int32_t calls, int32_t c1, int32_t c2);
/* LoRAtorio and sub-bands: share [branches]. */
void wf_loratorio_combine(const wf_combine *x, const float *share, const weft_loratorio_options *o);
void wf_subbands_combine(const wf_combine *x, const float *share, const weft_subbands_options *o);
/* Haar transform of one plane in place, and back; temp holds the longer side. */
void wf_subbands_split(float *v, int32_t h, int32_t w, int32_t levels, float *temp);
void wf_subbands_join(float *v, int32_t h, int32_t w, int32_t levels, float *temp);
/* Switch: which turn it is, when each of them takes calls[turn] in a row. */
int32_t wf_switch_turn(int32_t call, const int32_t *calls, int32_t turns, bool official_offset);
/* W-Switch: calls [turns] of a cycle in proportion to the shares, by largest remainder, the earlier
 * turn where remainders are equal. */
void wf_switch_divide(int32_t *calls, const double *share, int32_t turns, int64_t cycle);
/* Blend: out[c plane] of one pixel, from preds[0] without masks and preds[1 ..] with m[0 ..]. */
void wf_blend_pixel(float *out, const float *const *preds, const float *m, int32_t masks,
                    size_t channels, size_t plane);
/* ZipLoRA in closed form: the coefficients m and n of a column with these shares of the content's
 * and the style's squares. */
void wf_zip_columns(double a, double b, double lambda, double *m, double *n);
/* Which of a plan's two adapters is content and which style. */
weft_status wf_zip_roles(const weft_plan *p, int32_t *content, int32_t *style, weft_error *err);

#endif
