/* fuse.h - several concepts become one adapter by least squares over what the layers read.
 *
 * Adding up differences mixes them everywhere. Fusion asks for less: the new weight W shall do what
 * concept i's own weight W_i does, but only on the rows x that the layer reads where concept i is
 * meant. Each layer is a linear least-squares problem with a closed form; the rows come from
 * prompts and images that weft computes by itself. Two kinds are free in the whole weight; the third
 * keeps the concepts' factors and only says which of them answers. */
#ifndef WEFT_FUSE_H
#define WEFT_FUSE_H

#include "adapter.h"
#include "base.h"
#include "model.h"
#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A fusion: concepts, captions and, once it ran, a report. One thread at a time. */
typedef struct weft_fuse weft_fuse;

/**
 * How weft_fuse_run() chooses the weights. W0 is the model's weight, W_i = W0 + D_i concept i's,
 * the rows of X what the layer reads in all concepts, and R = X_i D_i^T, stacked, what the concepts
 * add to their rows.
 *
 *   CONSTRAINED  min |(W - W0) C^T| over captions' rows C, so that W X^T = W0 X^T + R^T exactly:
 *                W = W0 + R^T (X H^-1 X^T)^-1 X H^-1,  H = C^T C
 *                Keys and values of cross-attentions only, whose rows are tokens of prompts. A row
 *                that two concepts have in common counts for the first. Source: Kumari et al.,
 *                Multi-Concept Customization of Text-to-Image Diffusion (2023).
 *   GRADIENT     min sum of |W X_i^T - W_i X_i^T|^2 + l |W - W0|^2:
 *                W = W0 + R^T X (X^T X + l I)^-1,  l = ridge * trace(X^T X) / columns
 *                All linear layers and convolutions: first those of the text encoders, then keys
 *                and values on texts of the fused encoders, then the rest on images that each
 *                concept draws by itself. Source: Gu et al., Mix-of-Show (2023), where the same sum
 *                is minimised step by step from W0.
 *   ROUTED       A = [A_1; A_2; ..] (R, columns) and B = [B_1 B_2 ..] are the LoRA factors of all
 *                concepts, scales and weights in B; z = A x on the rows of all concepts, z_i its
 *                block i on those of concept i alone. W = W0 + B M A with
 *                min sum of |M z - [0; z_i; 0]|^2 + l |M|^2:
 *                M = Q (G + l I)^-1,  G = sum of z z^T,  Q = its rows of block i over the rows of i
 *                alone,  l = ridge * trace(G) / R
 *                All layers in one pass over each concept's own plan, its text encoders too; LoRA
 *                pairs only, and the result is pairs of the summed rank. Where one concept acts it
 *                is passed through. Source: SSR-Merge (arXiv 2606.10617).
 */
enum weft_fuse_kind {
    WEFT_FUSE_CONSTRAINED = 1,
    WEFT_FUSE_GRADIENT    = 2,
    WEFT_FUSE_ROUTED      = 3
};

enum weft_fuse_flag {
    /**
     * CONSTRAINED, as the authors' program: where "photo of a" stands in the first 15 characters of
     * a prompt or caption, its tokens count from the fourth on.
     */
    WEFT_FUSE_SKIP_PHOTO = 1u << 0
};

typedef struct weft_fuse_options {
    uint32_t              struct_size;
    uint32_t              flags;     /* WEFT_FUSE_SKIP_PHOTO                                      */
    const weft_allocator *allocator; /* NULL: malloc; copied                                      */
    weft_log_fn           log;       /* may be NULL                                               */
    void                 *log_user;
    weft_progress_fn      progress;  /* while it runs; may be NULL                                */
    void                 *progress_user;
    const char           *name;      /* of the new adapter; NULL: "fused"                         */
    uint64_t              budget;    /* GRADIENT: bytes that the sums over images may take; the
                                        layers are then fused in groups, each with its own images.
                                        0: no bound, all at once                                  */
    double                ridge;     /* GRADIENT, ROUTED: above 0; 0: 1e-3, ROUTED 1e-4           */
    int32_t               kind;      /* WEFT_FUSE_*; 0: GRADIENT                                  */
    int32_t               threads;   /* 0: one for each core                                      */
    int32_t               height;    /* of the images' latents; 0: the model's size. This and     */
    int32_t               width;     /* the next two: not of CONSTRAINED                          */
    int32_t               steps;     /* GRADIENT: denoising steps of an image; 0: 20. ROUTED: how
                                        many of an image's first calls are recorded, of a schedule
                                        of 20 steps, or of so many where that is more; 0: 1       */
    int32_t               sampler;   /* WEFT_SAMPLER_*; 0: WEFT_SAMPLER_DPMPP_2M                  */
} weft_fuse_options;
#define WEFT_FUSE_OPTIONS_INIT \
    { sizeof(weft_fuse_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_FUSE_OPTIONS_INIT. @since 0.2 */
WEFT_API void weft_fuse_options_init(weft_fuse_options *options, size_t size);

/**
 * Start a fusion on a model, which it keeps alive.
 *
 * @return WEFT_E_ARG          a number out of its range, an option of the other kind
 *         WEFT_E_STATE        the model has no tokenizer
 *         WEFT_E_UNSUPPORTED  CONSTRAINED, and the model has no cross-attention to a prompt
 *         WEFT_E_NOMEM
 * @since 0.2
 */
WEFT_API weft_status weft_fuse_create(weft_model *model, const weft_fuse_options *options,
                                      weft_fuse **out, weft_error *err);
/** Let go of a fusion; NULL is fine. @since 0.2 */
WEFT_API void weft_fuse_free(weft_fuse *fuse);

/** One of the concepts that are fused. Strings are copied. */
typedef struct weft_fuse_concept {
    uint32_t           struct_size;
    uint32_t           flags;    /* zero                                                          */
    weft_plan         *plan;     /* sealed, of the same model: its tokens, and the adapters that
                                    make W_i, with their weights. Kept                            */
    const char        *name;     /* what prompts call it: "<new1> cat"; NULL: the plan's tokens,
                                    one after the other                                           */
    const char *const *prompts;  /* whose tokens count; NULL: made of the name, CONSTRAINED
                                    "NAME" and "a photo of NAME", else "photo of a NAME" and
                                    "NAME"                                                        */
    size_t             prompts_count;
    uint64_t           seed;     /* of the first image's noise; the next has seed + 1             */
    int32_t            images;   /* how many it draws, from the first prompt, the second, and so
                                    on, and then from the first again; 0: 1. CONSTRAINED: 0       */
    int32_t            reserved0; /* zero                                                         */
} weft_fuse_concept;
#define WEFT_FUSE_CONCEPT_INIT { sizeof(weft_fuse_concept), 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_FUSE_CONCEPT_INIT. @since 0.2 */
WEFT_API void weft_fuse_concept_init(weft_fuse_concept *added, size_t size);

/**
 * Add a concept. The plan is one that weft_plan_fold() takes, or has no adapter (tokens alone,
 * which pull the weights towards the model's own on their rows).
 *
 * @return WEFT_E_ARG          the plan is of another model; no name is given and it has no token; a
 *                             prompt that does not fit into one chunk
 *         WEFT_E_MISMATCH     a token that another concept has too: open one of the files under
 *                             another name (weft_concept_options.tokens)
 *         WEFT_E_UNSUPPORTED  the plan does not fold into one adapter; it changes a normalisation
 *                             or a bias; CONSTRAINED: it changes other layers than keys and
 *                             values; ROUTED: it has no adapter, or is no LoRA pair at some layer
 *         WEFT_E_STATE        the plan is not sealed
 * @since 0.2
 */
WEFT_API weft_status weft_fuse_add_concept(weft_fuse *fuse, const weft_fuse_concept *added,
                                           weft_error *err);
/**
 * CONSTRAINED: add captions of ordinary pictures; on their tokens the model is to change least. The
 * authors take 200. Each is cut after one chunk. Copied.
 * @since 0.2
 */
WEFT_API weft_status weft_fuse_add_captions(weft_fuse *fuse, const char *const *captions,
                                            size_t count, weft_error *err);

/** What weft_fuse_run() would take. */
typedef struct weft_fuse_info {
    uint32_t struct_size;
    int32_t  layers;     /* that are fused                                                        */
    uint64_t bytes;      /* most for sums, rows and weights at once, beside a run's memory        */
    int32_t  concepts;
    int32_t  passes;     /* how often each concept draws its images                               */
    int64_t  calls;      /* of the denoiser, in all                                               */
    int64_t  prompts;    /* that are encoded, captions among them                                 */
} weft_fuse_info;
#define WEFT_FUSE_INFO_INIT { sizeof(weft_fuse_info), 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_FUSE_INFO_INIT. @since 0.2 */
WEFT_API void weft_fuse_info_init(weft_fuse_info *info, size_t size);
/**
 * Say what a run would take, before it takes anything. WEFT_E_ARG if one layer alone is past the
 * budget.
 * @since 0.2
 */
WEFT_API weft_status weft_fuse_info_get(const weft_fuse *fuse, weft_fuse_info *info,
                                        weft_error *err);

/**
 * Fuse. The result is an adapter like any other, with a whole difference for each layer, or under
 * ROUTED a pair; weft_adapter_merge() of it alone factors it to a rank. Prompts that use it need the concepts'
 * tokens beside it: weft_plan_add_concept() with weight 0 gives a plan the tokens and not the
 * concept's own adapter.
 *
 * The same bits for any number of threads. The order of the concepts shows in rounding only, but
 * for rows that CONSTRAINED finds in two of them. May be called again.
 *
 * @return WEFT_E_ARG          no concept; CONSTRAINED: no captions; one layer is past the budget
 *         WEFT_E_MISMATCH     no concept changes any layer, or nothing remains of it
 *         WEFT_E_UNSUPPORTED  the captions or rows leave no solution in double precision
 *         WEFT_E_CANCELLED, WEFT_E_NOMEM, WEFT_E_NOT_FINITE, or what a run returns
 * @since 0.2
 */
WEFT_API weft_status weft_fuse_run(weft_fuse *fuse, weft_adapter **out, weft_error *err);

/** What became of a layer. */
typedef struct weft_fuse_row {
    uint32_t    struct_size;
    int32_t     concepts;  /* that change this layer                                              */
    const char *layer;     /* canonical name                                                      */
    int64_t     layer_id;  /* of the model                                                        */
    int64_t     rows;      /* that were summed; CONSTRAINED: without duplicates; ROUTED: 0 where
                              one concept acts                                                    */
    double      before;    /* mean square of R: how far the model's own weight is from what the
                              concepts give                                                       */
    double      after;     /* the same of the fused weight                                        */
    double      residual;  /* sqrt(after / before); 0 if nothing was wanted                       */
    double      drift;     /* CONSTRAINED: |(W - W0) C^T|, summed squares over the captions' rows */
    double      jitter;    /* what was added to a diagonal so that it could be factored, relative
                              to its mean; 0: nothing                                             */
    double      norm;      /* Frobenius norm of the difference                                    */
} weft_fuse_row;
#define WEFT_FUSE_ROW_INIT { sizeof(weft_fuse_row), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_FUSE_ROW_INIT. @since 0.2 */
WEFT_API void weft_fuse_row_init(weft_fuse_row *row, size_t size);
/** Layers of the last run that came to its end; 0 before. @since 0.2 */
WEFT_API size_t weft_fuse_count(const weft_fuse *fuse);
/** Row `index`, in the order of the model's layers. WEFT_E_ARG past the end. @since 0.2 */
WEFT_API weft_status weft_fuse_get(const weft_fuse *fuse, size_t index, weft_fuse_row *row,
                                   weft_error *err);

#ifdef __cplusplus
}
#endif
#endif
