/* merge_internal.h - what the files of lib/merge share.
 *
 * merge.c reads the options and walks the layers; layer.c makes one layer's result with a method's
 * formula (a file for each method); svd.c factors what is to have a rank; emit.c makes tensors of
 * it, which become the adapter; report.c keeps what each layer became. */
#ifndef WF_MERGE_INTERNAL_H
#define WF_MERGE_INTERNAL_H

#include "adapter/adapter.h"
#include "adapter/family.h"
#include "merge/emit.h"
#include "weft/merge.h"

enum { WF_MERGE_NAME = 512 }; /* bytes of a name */

/* ---- methods --------------------------------------------------------------------------------- */

/* The same thing of each adapter at one layer: differences of the weight, of the bias, or factors.
 * A method may change the tensors. */
typedef struct wf_merge_list {
    int32_t        count;
    size_t         n;      /* entries of each tensor, in the order of files                       */
    float        **tensor; /* [count]                                                             */
    const double  *weight; /* [count]                                                             */
    const int32_t *source; /* [count] which of the sources each is of                             */
    const char    *what;   /* layer and part: what draws depend on besides source and entry       */
    const weft_merge_options *o;
} wf_merge_list;

/* Low-rank pairs B A of each adapter at one layer. */
typedef struct wf_merge_pairs {
    int32_t        count;
    size_t         out;
    size_t         K;      /* columns, in the order of files                                      */
    const size_t  *rank;   /* [count]                                                             */
    float        **down;   /* [count] (rank, K)                                                   */
    float        **up;     /* [count] (out, rank)                                                 */
    const double  *weight; /* [count] the file's scale in it                                      */
    const int32_t *source;
    int32_t        mixer_side; /* how many sources there are: rows and columns of the mixer       */
    int32_t        fixed;  /* the pair of WEFT_SOURCE_FIXED, -1: it is not at this layer           */
    const weft_merge_options *o;
} wf_merge_pairs;

/* What a method reads of the options, and what it can do. */
enum {
    WF_MERGE_DENSITY  = 1,
    WF_MERGE_MAJORITY = 2,
    WF_MERGE_SEED     = 4,
    WF_MERGE_MIXES    = 8,
    WF_MERGE_FACTORED = 16, /* also on factors apart              */
    WF_MERGE_AS_KOHYA = 32,
    WF_MERGE_COMPARES = 64, /* makes no sense of adapters that share no layer */
    WF_MERGE_GIVES_WAY = 128, /* to WEFT_SOURCE_FIXED                          */
    WF_MERGE_PAIRS_ONLY = 256 /* of LoRA alone                                 */
};

typedef struct wf_merge_method {
    int32_t     kind;
    const char *title;
    uint32_t    can;       /* bits of the above                                                   */
    /* dst (n) of the tensors. */
    void (*combine)(const wf_merge_list *in, float *dst);
    /* Change the pairs before they are stacked; NULL: they stay. */
    weft_status (*prepare)(wf_merge_pairs *in, wf_bag *bag, weft_error *err);
    /* down (R, K) and up (out, R), R the sum of the ranks; NULL: it is not about factors. */
    void (*stack)(const wf_merge_pairs *in, float *down, float *up);
} wf_merge_method;

#define WF_MERGES(row) \
    row(sum) row(concat) row(ties) row(dare) row(dare_ties) row(prune) row(mixer) row(null_space)
#define WF_MERGE_EXTERN(name) extern const wf_merge_method wf_merge_##name;
WF_MERGES(WF_MERGE_EXTERN)
#undef WF_MERGE_EXTERN

/* The sum of w D: sum.c, and the biases of those that are about factors. */
void wf_merge_add_up(const wf_merge_list *in, float *dst);
/* Zero all but the largest floor(density n) entries of each; the first ones where some are equal:
 * prune.c. */
void wf_merge_keep_largest(const wf_merge_list *in);
/* Zero all but drawn entries of each, and divide these by the density: dare.c. */
void wf_merge_keep_drawn(const wf_merge_list *in);
/* Elect a sign for each entry; the mean of w D over those that have it: ties.c. */
void wf_merge_elect(const wf_merge_list *in, float *dst);
/* The factors one after the other: concat.c, which mixer.c mixes. */
void wf_merge_concatenate(const wf_merge_pairs *in, float *down, float *up);

/* ---- svd.c ----------------------------------------------------------------------------------- */

/* Factors down (rank, n) with orthonormal rows and up (m, rank), in memory from a bag. */
typedef struct wf_merge_factors {
    float *down;
    float *up;
    size_t rank;
} wf_merge_factors;

/* How far to go: at most this rank (0: no bound), and no further than a relative error (0: as far
 * as the rank goes). */
typedef struct wf_merge_bound {
    size_t rank;
    double error;
    double clamp;
} wf_merge_bound;

/* The best factors of D (m, n). Rank 0, and nothing else, of zeros. */
weft_status wf_merge_factor(const float *D, size_t m, size_t n, wf_merge_bound bound, wf_bag *bag,
                            wf_merge_factors *out, weft_error *err);
/* The same of up (m, R) down (R, n), R <= m and n, without forming the product. */
weft_status wf_merge_factor_pair(const float *up, const float *down, size_t m, size_t n, size_t R,
                                 wf_merge_bound bound, wf_bag *bag, wf_merge_factors *out,
                                 weft_error *err);

/* ---- layer.c --------------------------------------------------------------------------------- */

/* An adapter at a layer. */
typedef struct wf_merge_part {
    const weft_adapter *adapter;
    const wf_slice     *slice;
    int32_t             slices; /* how many                              */
    int32_t             source; /* which of the sources it is            */
    bool                fixed;  /* WEFT_SOURCE_FIXED                     */
    double              weight;
} wf_merge_part;

weft_status wf_merge_one_layer(const wf_merge_method *method, const weft_merge_options *o,
                               int32_t sources, const wf_layer *l, const wf_merge_part *part,
                               int32_t parts, wf_bag *bag, wf_merged_layer *out, weft_error *err);

/* ---- report.c -------------------------------------------------------------------------------- */

weft_status wf_merge_report_new(weft_model *model, size_t rows, const weft_allocator *alloc,
                                weft_merge_report **out, weft_error *err);
/* One more row; there is room. */
void        wf_merge_report_add(weft_merge_report *r, const wf_layer *l, int32_t adapters,
                                const wf_merged_layer *became);

#endif
