/* fuse_internal.h - what the files of lib/fuse share.
 *
 * fuse.c has the handle and the order of the stages; concepts.c knows what each concept changes,
 * what its prompts are, and makes the plans that a stage runs; rows.c keeps or sums the rows that
 * layers read; routed.c does it for the kind that keeps the concepts' factors; record.c makes the
 * rows, by encoding prompts and drawing images; solve.c turns them into weights. Calls go in this
 * direction only: fuse, record, routed, rows, solve; concepts stands beside record. */
#ifndef WF_FUSE_INTERNAL_H
#define WF_FUSE_INTERNAL_H

#include "adapter/adapter.h"
#include "plan/plan.h"
#include "weft/fuse.h"
#include "weft/run.h"
#include "weft/sampler.h"

/* ---- solve.c: the least squares, in double --------------------------------------------------- */

/* With H (K, K), symmetric, the C^T C of captions; E (m, K) of rows X (m, K), so that the fused
 * difference is R^T E for any R (m, out) that the rows are to give:
 *
 *     constrained   E = (X H^-1 X^T)^-1 X H^-1        H is lost
 *     ridge         E = (X X^T + l I)^-1 X = X (X^T X + l I)^-1,  l = ridge * trace / K
 *
 * *jitter is the largest that a diagonal needed, relative to its mean. `what` names the layer. */
weft_status wf_fuse_constrain(double *E, const double *X, size_t m, size_t K, double *H,
                              double *jitter, const char *what, const weft_allocator *alloc,
                              weft_error *err);
weft_status wf_fuse_ridge(double *E, const double *X, size_t m, size_t K, double ridge,
                          double *jitter, const char *what, const weft_allocator *alloc,
                          weft_error *err);
/* The same for sums: M (K, K), the sum of x^T x, becomes the factor of M + l I ... */
weft_status wf_fuse_factor(double *M, size_t K, double ridge, double *jitter, const char *what,
                           const weft_allocator *alloc, weft_error *err);

/* Q (R, R) becomes M = Q (G + l I)^-1 of ROUTED, with G (R, R), which is lost. */
weft_status wf_fuse_mix(double *Q, double *G, size_t R, double ridge, double *jitter,
                        const char *what, const weft_allocator *alloc, weft_error *err);

/* ---- the layers ------------------------------------------------------------------------------ */

/* When a layer is fused, and what its rows are. */
typedef int32_t wf_fuse_stage;
enum {
    WF_FUSE_TEXT,   /* tokens inside the text encoders          */
    WF_FUSE_KEYS,   /* tokens of the encoded text               */
    WF_FUSE_IMAGES, /* pixels, and all else in the denoiser     */
    WF_FUSE_WHOLE   /* ROUTED: everything at once               */
};

/* What some layers read, of all concepts one after the other: the rows themselves (m, K), or where
 * they are too many x^T x of the concept at work and of all. */
typedef struct wf_fuse_rows {
    size_t   K;
    double  *x;
    size_t   count, cap; /* rows                                          */
    size_t  *first;      /* [concepts + 1] of them, where x is kept       */
    double  *one, *all;  /* (K, K); `one` on and under the diagonal       */
    bool     distinct;   /* a row that is there already is not kept again */
} wf_fuse_rows;

/* ROUTED: the factors of all concepts that act at a layer, one below the other. Rows are A x. */
typedef struct wf_fuse_route {
    size_t  R;
    size_t *first; /* [concepts + 1] of each concept's rows of A                        */
    float  *A;     /* (R, columns)                                                      */
    float  *B;     /* (out, R), which becomes B M                                       */
    double *Q;     /* (R, R); NULL: one concept, nothing to decide                      */
} wf_fuse_route;

typedef struct wf_fuse_target {
    const wf_layer *layer;
    wf_fuse_stage   stage;
    int32_t         cross;  /* KEYS: which of the cross-attentions               */
    size_t          of;     /* the target whose rows it shares: the first of its kind, or itself */
    bool            open;   /* its rows are being recorded                       */
    wf_fuse_rows    rows;   /* where of is itself                                */
    double         *B;      /* (out, K) the sum of D x^T x, where rows are summed */
    double          before; /* the sum of |D x|^2                                */
    float          *delta;  /* (out, K) the result; NULL: not yet                */
    wf_fuse_route   route;  /* ROUTED: the result instead                        */
    weft_fuse_row   row;
} wf_fuse_target;

/* ---- concepts.c ------------------------------------------------------------------------------ */

typedef struct wf_fuse_concept {
    weft_plan      *plan;    /* kept                                            */
    weft_adapter   *adapter; /* all that the plan adds; NULL: it has tokens only */
    weft_report    *report;
    const wf_slice *slice;   /* in the order of layers                          */
    size_t          slices;
    char           *name;
    char          **prompts;
    size_t          count;   /* of prompts                                      */
    uint64_t        seed;
    int32_t         images;
    bool            layered; /* a token of it has a vector for each cross-attention */
} wf_fuse_concept;

struct weft_fuse {
    weft_allocator    alloc;
    weft_fuse_options o;       /* defaults filled in */
    char             *name;
    weft_model       *model;
    const wf_layer   *layers;
    size_t            layer_count;
    int32_t           sequence; /* the stream of tokens; -1: none */
    weft_text_info    text;     /* about it                       */
    wf_fuse_concept  *concept;
    size_t            concepts, concept_cap;
    char            **caption;
    size_t            captions;
    wf_fuse_target   *target;  /* [targets], in the order of layers; of the last run, or NULL */
    size_t            targets;
    bool              whole;   /* the last run came to its end        */
    const char       *doing;   /* for progress */
    int64_t           done, total;
};

weft_status wf_fuse_concept_make(weft_fuse *f, wf_fuse_concept *c, const weft_fuse_concept *given,
                                 weft_error *err);
void        wf_fuse_concept_free(wf_fuse_concept *c, const weft_allocator *alloc);
wf_fuse_stage wf_fuse_stage_of(const wf_layer *l);
/* Does the concept change the layer? */
bool        wf_fuse_acts(const wf_fuse_concept *c, const wf_layer *l);
/* The rank of its pair there; 0: it does nothing there, or (before it was checked) is no pair. */
size_t      wf_fuse_pair_rank(const wf_fuse_concept *c, const wf_layer *l);
/* A (r, K), columns (ky, kx, in), and B turned over (r, out), the file's scale in it. */
weft_status wf_fuse_pair(const weft_fuse *f, const wf_fuse_concept *c, const wf_layer *l, float *A,
                         float *B, weft_error *err);
/* D (out, K), columns (ky, kx, in), what the concept adds to the layer; false: nothing. */
weft_status wf_fuse_difference(const weft_fuse *f, const wf_fuse_concept *c, const wf_layer *l,
                               float *D, bool *any, weft_error *err);
/* A sealed plan in which a stage's rows of the concept are made: its tokens, what was fused so far
 * (NULL: nothing), and what the concept adds where the rows are to come from it. concept NULL: the
 * model. */
weft_status wf_fuse_stage_plan(const weft_fuse *f, const wf_fuse_concept *c, wf_fuse_stage stage,
                               weft_adapter *fused, int32_t calls, weft_plan **out,
                               weft_error *err);
/* Ids of the first chunk of a prompt, without BOS and EOS, for wf_free(). What does not fit is
 * refused, or with `cut` left out. */
weft_status wf_fuse_ids(const weft_fuse *f, const weft_plan *plan, const char *prompt,
                        int32_t encoder, bool cut, int32_t **ids, size_t *count, weft_error *err);

/* ---- rows.c ---------------------------------------------------------------------------------- */

/* Of a layer's weight: K = kernel^2 in. */
size_t      wf_fuse_columns(const wf_layer *l);

/* Keep a row of floats; false without memory. */
bool        wf_fuse_keep(wf_fuse_rows *r, const float *row, const weft_allocator *alloc);
/* The difference of every target that shares the rows, from rows that were kept; H (K, K) of
 * captions, or NULL. */
weft_status wf_fuse_solve_kept(weft_fuse *f, size_t leader, const double *H, weft_error *err);
/* Summed rows: take the memory, add a tile of rows (n, K) on the pool, end a concept, solve. */
weft_status wf_fuse_sums_take(weft_fuse *f, size_t leader, weft_error *err);
void        wf_fuse_sums_add(wf_fuse_rows *r, const double *x, size_t n, wf_pool *pool);
weft_status wf_fuse_sums_end(weft_fuse *f, size_t leader, const wf_fuse_concept *c,
                             weft_error *err);
weft_status wf_fuse_solve_summed(weft_fuse *f, size_t leader, weft_error *err);
void        wf_fuse_rows_free(wf_fuse_rows *r, const weft_allocator *alloc);
/* Bytes of sums: theirs, and those of the targets that share them. */
uint64_t    wf_fuse_sums_bytes(const weft_fuse *f, size_t leader);

/* ---- routed.c -------------------------------------------------------------------------------- */

/* The factors of a target, and sums where concepts are to be told apart. */
weft_status wf_fuse_route_take(weft_fuse *f, size_t target, weft_error *err);
/* Bytes of that. */
uint64_t    wf_fuse_route_bytes(const weft_fuse *f, const wf_fuse_target *t);
/* Is something of the concept recorded there? */
bool        wf_fuse_route_reads(const wf_fuse_target *t, size_t concept);
/* to (columns, R) = A turned over, for products with rows. */
void        wf_fuse_route_turned(const wf_fuse_target *t, double *to);
/* The concept's rows are all there. */
void        wf_fuse_route_end(wf_fuse_target *t, size_t concept);
weft_status wf_fuse_route_solve(weft_fuse *f, size_t target, weft_error *err);
void        wf_fuse_route_free(wf_fuse_route *r, const weft_allocator *alloc);

/* ---- record.c -------------------------------------------------------------------------------- */

/* Rows inside the text encoders; rows of the encoded text; sums over images, of the targets that
 * are open. */
weft_status wf_fuse_record_text(weft_fuse *f, weft_error *err);
weft_status wf_fuse_record_keys(weft_fuse *f, weft_adapter *fused, weft_error *err);
weft_status wf_fuse_record_captions(weft_fuse *f, double *H, size_t K, weft_error *err);
weft_status wf_fuse_record_images(weft_fuse *f, weft_adapter *fused, weft_error *err);
/* The sampler of the images, and how many of its calls are made. */
enum { WF_FUSE_STEPS = 20 };
weft_status wf_fuse_sampler(const weft_fuse *f, weft_sampler **out, weft_error *err);
int32_t     wf_fuse_calls(const weft_fuse *f, const weft_sampler *s);

/* ---- fuse.c ---------------------------------------------------------------------------------- */

/* n more of f->total are done; WEFT_E_CANCELLED if the caller says so. */
weft_status wf_fuse_tick(weft_fuse *f, int64_t n, weft_error *err);

#endif
