/* merge.h - one new adapter made of several. */
#ifndef WEFT_MERGE_H
#define WEFT_MERGE_H

#include "adapter.h"
#include "base.h"
#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * How weft_adapter_merge() combines. D is what an adapter adds to a layer's weight, W' - W, with
 * the file's scale in it, and w the weight of its source.
 */
enum weft_merge_kind {
    WEFT_MERGE_SUM       = 1, /* sum of w D */
    WEFT_MERGE_CONCAT    = 2, /* the same with the factors one after the other, exact; a layer where
                                 one adapter has no factors gets the sum */
    WEFT_MERGE_TIES      = 3, /* of each D the largest entries; a sign elected for each entry; the
                                 mean of w D over those that agree (Yadav et al. 2023) */
    WEFT_MERGE_DARE      = 4, /* of each D entries drawn at random, divided by the density; sum of
                                 w D (Yu et al. 2023) */
    WEFT_MERGE_DARE_TIES = 5, /* entries drawn as for DARE, then elected as for TIES */
    WEFT_MERGE_PRUNE     = 6, /* of each D the largest entries; sum of w D */
    WEFT_MERGE_MIXER     = 7, /* [B1 B2 ..] M [A1; A2; ..]: `mixer` says how much the factors of
                                 one adapter meet those of another */
    WEFT_MERGE_NULL_SPACE = 8 /* NP-LoRA: one adapter stays, and the others lose what they do in
                                 the directions that it reads: w_s D_s + sum of w D (I - c V V^T),
                                 V the right singular vectors of D_s, c = mu / (1 + mu). Of LoRA
                                 alone (arXiv 2511.11051) */
};
enum weft_merge_majority {
    WEFT_MAJORITY_TOTAL     = 0, /* the sign of the sum of the entries, without their weights */
    WEFT_MAJORITY_FREQUENCY = 1  /* the sign that more of them have; + if as many */
};
enum weft_merge_flag {
    WEFT_MERGE_FACTORS      = 1u << 0, /* as PEFT without SVD: on A and on B apart, with weights
                                          sqrt|w s|; needs LoRA of one rank. Not CONCAT, MIXER    */
    WEFT_MERGE_DOUBLE_SCALE = 1u << 1, /* as older PEFT's SVD: the file's scale s twice */
    WEFT_MERGE_KOHYA        = 1u << 2, /* SUM, CONCAT as kohya's merge_lora: both factors times
                                          w sqrt(alpha / alpha of the first), alpha of the first  */
    WEFT_MERGE_DIRECTION    = 1u << 3  /* DoRA: the magnitudes are merged apart from the
                                          differences below them, and the result is DoRA where one
                                          adapter is. Else D = W' - W is all that counts          */
};

/** One of the adapters that are merged. */
typedef struct weft_merge_source {
    uint32_t      struct_size;
    uint32_t      flags;       /* WEFT_SOURCE_*                                                  */
    weft_adapter *adapter;
    const char   *select;      /* patterns of layers, as in weft_add_options; NULL: every layer  */
    const char   *exclude;     /* patterns of layers to leave out; NULL: none                    */
    float         weight;      /* w: any finite number                                           */
    float         text_weight; /* in the text encoders, with WEFT_SOURCE_TEXT_WEIGHT             */
} weft_merge_source;
#define WEFT_MERGE_SOURCE_INIT { sizeof(weft_merge_source), 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_MERGE_SOURCE_INIT. @since 0.2 */
WEFT_API void weft_merge_source_init(weft_merge_source *source, size_t size);
enum weft_merge_source_flag {
    WEFT_SOURCE_PARTIAL     = 1u << 0, /* keys that the model has no layer for are left out       */
    WEFT_SOURCE_TEXT_WEIGHT = 1u << 1, /* text_weight counts                                      */
    WEFT_SOURCE_FIXED       = 1u << 2  /* NULL_SPACE: this one stays; without it the last does    */
};

typedef struct weft_merge_options {
    uint32_t              struct_size;
    uint32_t              flags;         /* WEFT_MERGE_FACTORS ...                                */
    const weft_allocator *allocator;     /* NULL: malloc; copied                                  */
    weft_progress_fn      progress;      /* may be NULL; called for each layer                    */
    void                 *progress_user;
    const char           *name;          /* of the new adapter; NULL: "merged"                    */
    const float          *mixer;         /* MIXER: (count, count), block [i][j] is this times the
                                            identity between B_i and A_j; NULL: ones              */
    double                density;       /* TIES, DARE, DARE_TIES, PRUNE: the share of the entries
                                            that is kept, above 0, at most 1 (1 keeps all)        */
    double                error;         /* factor each layer by SVD, with the least rank whose
                                            relative error, in the Frobenius norm, is at most this:
                                            0 < error < 1. 0: not asked                           */
    double                clamp;         /* after SVD clamp both factors to +- this quantile of
                                            their entries, as PEFT and kohya do; 0: not           */
    uint64_t              seed;          /* DARE, DARE_TIES                                       */
    int32_t               kind;          /* WEFT_MERGE_*; 0: SUM                                  */
    int32_t               majority;      /* TIES, DARE_TIES: WEFT_MAJORITY_*                      */
    int32_t               rank;          /* factor each layer by SVD, with this rank at most. 0: no
                                            bound. If neither rank nor error is asked, layers are
                                            stored as whole differences, those of CONCAT, MIXER,
                                            NULL_SPACE and FACTORS as factors                                   */
    int32_t               conv_rank;     /* for k x k convolutions; 0: as rank                    */
    double                strength;      /* NULL_SPACE: mu, INFINITY takes out all; 0: 0.5        */
} weft_merge_options;
#define WEFT_MERGE_OPTIONS_INIT \
    { sizeof(weft_merge_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_MERGE_OPTIONS_INIT. @since 0.2 */
WEFT_API void weft_merge_options_init(weft_merge_options *options, size_t size);

/** What a merge did, layer by layer. Immutable; any thread. */
typedef struct weft_merge_report weft_merge_report;

typedef struct weft_merge_row {
    uint32_t    struct_size;
    int32_t     rank;      /* of the stored factors; 0: a whole difference, or nothing            */
    const char *layer;     /* canonical name                                                      */
    int64_t     layer_id;  /* of the model                                                        */
    double      norm;      /* Frobenius norm of what is stored for the layer's weight             */
    double      error;     /* |stored - wanted| / |wanted|, in the same norm. Wanted is the merged
                              difference before it is factored; under FACTORS and KOHYA the exact
                              weighted sum. 0 where nothing is lost                               */
    int32_t     adapters;  /* how many of the sources act at the layer                            */
    int32_t     reserved0;
} weft_merge_row;
#define WEFT_MERGE_ROW_INIT { sizeof(weft_merge_row), 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_MERGE_ROW_INIT. @since 0.2 */
WEFT_API void weft_merge_row_init(weft_merge_row *row, size_t size);

/**
 * Make one adapter of several, on a model's layers. The new adapter is like any other: it can be
 * added to plans, and weft_adapter_save() writes it.
 *
 * A layer that only one adapter has takes part all the same: its D goes through the same formula.
 * Adapters of any families may be mixed; those that depend on the weight (DoRA, OFT, ..) see the
 * model's own. Biases and normalisations are merged by the same formula and stored as differences.
 * A layer of which nothing remains is left out. Embeddings of tokens are not merged.
 *
 * One layer at a time is in memory besides the result. The result is the same whenever and however
 * often it is computed; DARE's draws depend on seed, order of the sources, layer and entry alone.
 *
 * @param sources  `count` structs, `struct_size` set in each
 * @param options  may be NULL: the exact sum, as whole differences
 * @param out      the adapter, independent of the sources
 * @param report   NULL, or where to put what became of each layer
 * Threads: none are made; sources and model may be in use elsewhere.
 * @return WEFT_E_ARG         a number out of its range, an option of another kind
 *         WEFT_E_MISMATCH    keys that the model has no layer for; adapters that share no layer
 *                            under a kind that compares them; ranks that differ under FACTORS
 *         WEFT_E_UNSUPPORTED a family that has no factors where they are needed
 *         WEFT_E_CANCELLED, WEFT_E_NOMEM
 * @since 0.2
 */
WEFT_API weft_status weft_adapter_merge(weft_model *model, const weft_merge_source *sources,
                                        size_t count, const weft_merge_options *options,
                                        weft_adapter **out, weft_merge_report **report,
                                        weft_error *err);
/** @since 0.2 */
WEFT_API void weft_merge_report_free(weft_merge_report *report);
/** Number of layers at which a source acts. @since 0.2 */
WEFT_API size_t weft_merge_report_count(const weft_merge_report *report);
/** Row `index`, in the order of the model's layers. @since 0.2 */
WEFT_API weft_status weft_merge_report_get(const weft_merge_report *report, size_t index,
                                           weft_merge_row *row, weft_error *err);

#ifdef __cplusplus
}
#endif
#endif
