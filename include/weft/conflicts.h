/* conflicts.h - how adapters get in each other's way: their differences held beside each other,
 * layer by layer, before anything is drawn.
 *
 * D is what an adapter adds to a layer's weight, times its weight in the plan. A merge is the sum of
 * the D, so what they have in common is what a merge makes of them:
 *
 *     norms    |D_1|, |D_2|            Frobenius; who is much larger drowns the other
 *     cosine   <D_1, D_2> / (|D_1| |D_2|)   1: both do the same; 0: nothing in common; -1: the opposite
 *     clash    share of the entries, where both have one, whose signs differ; 1/2 is chance
 *     overlap  |Q_1^T Q_2|^2 / min(r_1, r_2) of orthonormal bases Q of their column spaces: the mean
 *              squared cosine of the principal angles. 1: one writes only where the other writes too
 *     chance   the overlap of random spaces of these dimensions, max(r_1, r_2) / out */
#ifndef WEFT_CONFLICTS_H
#define WEFT_CONFLICTS_H

#include "base.h"
#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weft_conflicts weft_conflicts;

/**
 * Compare all pairs of a plan's adapters at all layers that both act on, those of the text encoders
 * too, normalisations left out. Weights count, and weft_plan_balance() in the denoiser; method,
 * curves and masks do not. Reads all weights once, and reports progress to the plan's callback.
 * Norms and cosines of two factors are taken from the factors; signs need the product, a row at a
 * time.
 *
 * @param plan  sealed; not kept
 * @return WEFT_E_STATE (not sealed), WEFT_E_UNSUPPORTED (not 2 to 32 adapters),
 *         WEFT_E_CANCELLED, WEFT_E_NOMEM, WEFT_E_ARG
 * @since 0.2
 */
WEFT_API weft_status weft_conflicts_create(const weft_plan *plan, weft_conflicts **out,
                                           weft_error *err);
/** @since 0.2 */
WEFT_API void weft_conflicts_free(weft_conflicts *conflicts);

/** Two adapters at one layer. */
typedef struct weft_conflict {
    uint32_t struct_size;
    int32_t  first;       /* adapters of the plan, first < second                               */
    int32_t  second;
    int32_t  reserved0;
    int64_t  layer;
    double   first_norm;
    double   second_norm;
    double   cosine;      /* 0 where one has only zeros                                         */
    double   clash;
    double   overlap;     /* -1: not known, one of them is no product of two factors            */
    double   chance;      /* of the overlap; 0 where that is not known                          */
} weft_conflict;
#define WEFT_CONFLICT_INIT { sizeof(weft_conflict), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_CONFLICT_INIT. @since 0.2 */
WEFT_API void weft_conflict_init(weft_conflict *conflict, size_t size);
/** How many there are: by pair, then by layer. @since 0.2 */
WEFT_API size_t weft_conflicts_count(const weft_conflicts *conflicts);
/** Read one, 0 <= index < weft_conflicts_count(). @since 0.2 */
WEFT_API weft_status weft_conflicts_get(const weft_conflicts *conflicts, size_t index,
                                        weft_conflict *out, weft_error *err);

/** What stands in the way, the first of these that holds. */
enum weft_verdict {
    WEFT_VERDICT_NONE          = 0, /* nothing: they can be summed                              */
    WEFT_VERDICT_FIRST_DROWNS  = 1, /* the first has 3 times the norm of the second, or more    */
    WEFT_VERDICT_SECOND_DROWNS = 2, /* likewise the second                                      */
    WEFT_VERDICT_AGAINST       = 3, /* cosine -0.2 or less: a sum takes away from both          */
    WEFT_VERDICT_SAME          = 4, /* cosine 0.5 or more: a sum is the same thing twice        */
    WEFT_VERDICT_SHARED        = 5  /* overlap 0.5 or more, and twice that of chance: both write
                                       into the same directions, and a sum mixes them           */
};
/** Two adapters in one block of the network, or in all of it. */
typedef struct weft_conflict_block {
    uint32_t    struct_size;
    int32_t     first;
    int32_t     second;
    int32_t     layers;       /* that both act on                                               */
    int32_t     first_alone;  /* layers that only the first acts on                             */
    int32_t     second_alone;
    int32_t     verdict;      /* WEFT_VERDICT_*                                                 */
    int32_t     reserved0;
    const char *name;         /* "up.1"; "" of the whole. Belongs to the handle, as does `words` */
    const char *words;        /* the verdict as a line for people, with what to do about it      */
    double      first_norm;   /* of all layers that both act on, as one vector                   */
    double      second_norm;
    double      cosine;       /* of these vectors                                                */
    double      clash;        /* of all their entries                                            */
    double      overlap;      /* mean over the layers where it is known; -1: over none           */
    double      chance;       /* likewise                                                        */
} weft_conflict_block;
#define WEFT_CONFLICT_BLOCK_INIT \
    { sizeof(weft_conflict_block), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_CONFLICT_BLOCK_INIT. @since 0.2 */
WEFT_API void weft_conflict_block_init(weft_conflict_block *block, size_t size);
/** How many there are: for each pair the whole, then its blocks. @since 0.2 */
WEFT_API size_t weft_conflicts_blocks(const weft_conflicts *conflicts);
/** Read one, 0 <= index < weft_conflicts_blocks(). @since 0.2 */
WEFT_API weft_status weft_conflicts_block(const weft_conflicts *conflicts, size_t index,
                                          weft_conflict_block *out, weft_error *err);

/**
 * The report for people: each pair by blocks, and the verdicts. Like weft_plan_text().
 * @since 0.2
 */
WEFT_API weft_status weft_conflicts_text(const weft_conflicts *conflicts, char *buf, size_t cap,
                                         size_t *needed, weft_error *err);

#ifdef __cplusplus
}
#endif
#endif
