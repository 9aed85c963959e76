/* plan.h - how adapters combine: a table of coefficients, c[call][branch][layer][adapter].
 *
 *     y = W x + b + sum over adapters i of  c[call][branch][layer][i] * s_i * B_i (A_i x)
 *
 * s_i is the scale of the file (alpha / rank) and is not part of c. Merge makes c constant. Switch
 * makes it one-hot in i, cycling with the call. Composite has one branch for each adapter and
 * averages the branches' predictions. K-LoRA is one-hot for each layer and call, as the weights
 * decide. A *call* is one weft_run_step(); a *branch* is one of the predictions that a call
 * combines.
 *
 * A plan is built (create, add, choose methods), then sealed for a number of calls, and immutable
 * from then on: usable from any thread, shared by any number of runs. Before sealing, one thread at
 * a time may use it. */
#ifndef WEFT_PLAN_H
#define WEFT_PLAN_H

#include "adapter.h"
#include "base.h"
#include "concept.h"
#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weft_plan weft_plan;

/** How a layer's adapters are computed; both ways are exact. */
enum weft_path {
    WEFT_PATH_AUTO   = 0, /* the cheaper for each layer, as weft_plan_text() shows               */
    WEFT_PATH_SIDE   = 1, /* W x + B (A x): no copy of any weight                                */
    WEFT_PATH_MERGED = 2  /* a private float32 copy of W + c s B A, for layers of the denoiser
                             whose c is the same in every call of a phase with one branch; other
                             layers as SIDE                                                      */
};

/** Which adapters act while a prompt is encoded (their text-encoder parts). */
enum weft_text_policy {
    WEFT_TEXT_METHOD = 0, /* as the method has it: switch the first, K-LoRA and B-LoRA none, all
                             others all                                                          */
    WEFT_TEXT_ALL    = 1,
    WEFT_TEXT_FIRST  = 2,
    WEFT_TEXT_NONE   = 3
};

/**
 * How several adapters on one layer of the denoiser combine if at least one of them depends on the
 * base weight W (DoRA, OFT, BOFT, (IA)^3, GLoRA, a whole weight in W's place).
 *
 * c_i is the coefficient. Delta_i is what an additive adapter i adds to W at strength 1. W'_i(U) is
 * what adapter i makes of a weight U. For DoRA g_i is the magnitude, and Delta_i = s_i B_i A_i.
 *
 *   DELTA      W + sum c_i (W'_i(W) - W)
 *              Every difference is taken on the base; the order does not matter.
 *   INSIDE     U + c (W'(U) - U),  U = W + sum c_j Delta_j
 *              The additive adapters j first, then the one that depends on the weight. For DoRA at
 *              c = 1 this is g (U + s B A) / |U + s B A|: the others change the direction only. A
 *              layer may have one such adapter.
 *   STACK      W_i = W_(i-1) + c_i (W'_i(W_(i-1)) - W_(i-1))
 *              Each on what those before it made, in the order in which they were added, biases
 *              too: PEFT's merge_and_unload() of each in turn.
 *   DIRECTION  g V / |V|,  V = W + sum c_i Delta_i,  g = |W| + sum over DoRA c_i (g_i - |W|)
 *              Directions and magnitudes are summed separately; the order does not matter, but for
 *              rounding. One DoRA at c = 1 gives its W'. Only DoRA and additive adapters, and
 *              magnitudes all of rows or all of columns.
 *
 * If such a policy applies to a layer, the layer is computed from a merged copy whatever the path.
 * Sealing fails with WEFT_E_UNSUPPORTED if the policy does not take the layer's adapters, if its
 * coefficients change from call to call, or if there are several branches. Other layers of the
 * denoiser, normalisations and text encoders are as under DELTA. WEFT_ADD_PEFT_DORA makes no
 * difference under DIRECTION.
 *
 * Sources: PEFT 0.21's merge for STACK (its merge_adapter() of several at once takes the norms of a
 * DoRA from W + s_i B_i A_i, also after others); Liu et al., DoRA (2024), for g V / |V|.
 */
enum weft_mixed {
    WEFT_MIXED_DELTA     = 0,
    WEFT_MIXED_INSIDE    = 1,
    WEFT_MIXED_STACK     = 2,
    WEFT_MIXED_DIRECTION = 3
};

typedef struct weft_plan_options {
    uint32_t              struct_size;
    uint32_t              flags;         /* zero                                        */
    const weft_allocator *allocator;     /* NULL: malloc; copied                        */
    weft_log_fn           log;           /* may be NULL                                 */
    void                 *log_user;
    weft_progress_fn      progress;      /* while sealing scores layers; may be NULL    */
    void                 *progress_user;
    int32_t               path;          /* WEFT_PATH_*                                 */
    int32_t               text;          /* WEFT_TEXT_*                                 */
    int32_t               mixed;         /* WEFT_MIXED_*                                */
    int32_t               reserved0;     /* zero                                        */
} weft_plan_options;
#define WEFT_PLAN_OPTIONS_INIT { sizeof(weft_plan_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_PLAN_OPTIONS_INIT. @since 0.1 */
WEFT_API void weft_plan_options_init(weft_plan_options *options, size_t size);

/**
 * Start a plan on a model, which it keeps alive. Without adapters it is the base model. @since 0.1
 */
WEFT_API weft_status weft_plan_create(weft_model *model, const weft_plan_options *options,
                                      weft_plan **out, weft_error *err);
/**
 * An unsealed copy that shares bindings and scores; sealing it recomputes only the table.
 * @since 0.1
 */
WEFT_API weft_status weft_plan_copy(const weft_plan *plan, weft_plan **out, weft_error *err);
/** Let go of a plan; runs that use it keep it alive. @since 0.1 */
WEFT_API void weft_plan_free(weft_plan *plan);

/** The role of an adapter, for methods that tell adapters apart. */
enum weft_role {
    WEFT_ROLE_NONE    = 0,
    WEFT_ROLE_CONTENT = 1,
    WEFT_ROLE_STYLE   = 2
};

enum weft_add_flag {
    /** Keys that match nothing are allowed; at least one must match all the same. */
    WEFT_ADD_PARTIAL    = 1u << 0,
    /** `share` is set, otherwise it is 1. */
    WEFT_ADD_SHARE      = 1u << 1,
    /**
     * DoRA as PEFT weighs it: the weight inside the norm, g (W + w s B A) / |W + w s B A|.
     * Otherwise W + w (W' - W) with W' at weight 1: exact at 0 and 1, and linear between.
     */
    WEFT_ADD_PEFT_DORA  = 1u << 2,
    /** A concept's token that is in the vocabulary already is replaced; else that is an error. */
    WEFT_ADD_REPLACE    = 1u << 3
};

/** Weights of an adapter's parts in the text encoders. */
typedef struct weft_text_weights {
    uint32_t struct_size;
    uint32_t flags;      /* zero                                          */
    float    text_1;     /* in the first text encoder                     */
    float    text_2;     /* in the second, if the model has one           */
    float    text_3;     /* in the third, if the model has one            */
    int32_t  reserved0;  /* zero                                          */
} weft_text_weights;
#define WEFT_TEXT_WEIGHTS_INIT { sizeof(weft_text_weights), 0, 0, 0, 0, 0 }
/** The function twin of WEFT_TEXT_WEIGHTS_INIT. @since 0.2 */
WEFT_API void weft_text_weights_init(weft_text_weights *weights, size_t size);

typedef struct weft_add_options {
    uint32_t    struct_size;
    uint32_t    flags;        /* WEFT_ADD_*                                                     */
    const char *select;       /* patterns over canonical layer names, separated by commas; * is
                                 any run of characters, ? any one; NULL selects every layer.
                                 At most 262144 characters                                      */
    const char *exclude;      /* patterns of layers to leave out; NULL: none                    */
    const weft_text_weights *text_weights; /* NULL: the text encoders take `weight` too         */
    float       share;        /* weight of this adapter's prediction, under methods that average
                                 them; of the calls, under WEFT_SWITCH_SHARES                   */
    int32_t     role;         /* WEFT_ROLE_*                                                    */
    int32_t     reserved0;    /* zero                                                           */
    int32_t     reserved1;    /* zero                                                           */
} weft_add_options;
#define WEFT_ADD_OPTIONS_INIT { sizeof(weft_add_options), 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_ADD_OPTIONS_INIT. @since 0.1 */
WEFT_API void weft_add_options_init(weft_add_options *options, size_t size);

/**
 * Bind an adapter to the plan's model with a weight; the plan keeps it alive. The order of the
 * calls is the order of the adapters: it decides the turns of switch, and content before style in
 * K-LoRA.
 *
 * @param weight   multiplies the adapter's delta; any finite number, 0 leaves the base bit for bit
 * @param options  NULL for defaults
 * @return WEFT_E_MISMATCH  no key matches, or some key does not and options do not allow it; the
 *                          text says for which base model the adapter is. weft_report_create()
 *                          tells key by key
 *         WEFT_E_STATE     the plan is sealed
 * @since 0.1
 */
WEFT_API weft_status weft_plan_add(weft_plan *plan, weft_adapter *adapter, float weight,
                                   const weft_add_options *options, weft_error *err);

/**
 * Give the plan a concept: its tokens stand for their embeddings in every prompt that is encoded
 * under this plan, and its adapter, if it has one, is added as weft_plan_add() does. Tokens make no
 * entry in the table.
 *
 * @return besides weft_plan_add()'s: WEFT_E_MISMATCH (a width that no text encoder of the model
 *         has; a token that is in the vocabulary or another concept's already; the text says which)
 * @since 0.1
 */
WEFT_API weft_status weft_plan_add_concept(weft_plan *plan, weft_concept *tokens, float weight,
                                           const weft_add_options *options, weft_error *err);

/**
 * Change the weights of adapter `index`, 0 the first that was added, on a plan that is not sealed,
 * such as a copy of a sealed one. Everything else stays, and sealing recomputes only the table.
 *
 * @param text  NULL: the text encoders take `weight` too
 * @return WEFT_E_STATE (sealed), WEFT_E_ARG
 * @since 0.1
 */
WEFT_API weft_status weft_plan_set_weight(weft_plan *plan, int32_t index, float weight,
                                          const weft_text_weights *text, weft_error *err);
/**
 * Put another adapter in the place of adapter `index` of a plan that is not sealed, with its own
 * weight and options. On failure the old one stays.
 *
 * @return as weft_plan_add()
 * @since 0.2
 */
WEFT_API weft_status weft_plan_replace(weft_plan *plan, int32_t index, weft_adapter *adapter,
                                       float weight, const weft_add_options *options,
                                       weft_error *err);
/**
 * Take adapter `index` out of a plan that is not sealed; those after it move up by one, and regions
 * and options that name adapters by number follow them: balance, the turns of switch. Its own turns
 * go with it. Tokens of a concept stay. On failure the plan is as it was.
 *
 * @return WEFT_E_UNSUPPORTED (it is what others are balanced to, or has all turns of a switch or
 *         its last calls: set these first), WEFT_E_STATE (sealed), WEFT_E_ARG, WEFT_E_NOMEM
 * @since 0.2
 */
WEFT_API weft_status weft_plan_remove(weft_plan *plan, int32_t index, weft_error *err);

/** How a curve goes on from one of its points to the next. */
enum weft_curve_shape {
    WEFT_CURVE_HOLD   = 0, /* the value stays until the next point        */
    WEFT_CURVE_LINEAR = 1, /* a straight line                             */
    WEFT_CURVE_COSINE = 2  /* half a cosine: flat at both ends            */
};
/** Bits of weft_plan_set_curve()'s flags. */
enum weft_curve_flag {
    /** weft_curve_point.at is a share of all calls, 0 to 1: call n is at n / calls. */
    WEFT_CURVE_AT_SHARE = 1u << 0
};
typedef struct weft_curve_point {
    uint32_t struct_size; /* of an array: the first one's counts for all              */
    uint32_t flags;       /* zero                                                     */
    int32_t  shape;       /* WEFT_CURVE_*, from here to the next point                */
    int32_t  reserved0;   /* zero                                                     */
    double   at;          /* the call, or with WEFT_CURVE_AT_SHARE its share          */
    double   value;       /* what the adapter's weight is multiplied with; any finite */
} weft_curve_point;
#define WEFT_CURVE_POINT_INIT { sizeof(weft_curve_point), 0, 0, 0, 0, 0 }
/** The function twin of WEFT_CURVE_POINT_INIT. @since 0.2 */
WEFT_API void weft_curve_point_init(weft_curve_point *point, size_t size);
/**
 * Let the weight of adapter `index` in the denoiser follow a curve over the calls of the plan, on
 * top of any method: what the method chooses is multiplied by the curve's value at the call. Before
 * the first point the curve has the first value, after the last the last. Text encoders, which run
 * before the first call, know no curve. Copies of the plan keep it; a replaced adapter loses it.
 *
 * @param flags   WEFT_CURVE_AT_SHARE
 * @param points  in order; of two at the same place the second counts from there on, a jump
 * @param count   0 takes the curve away
 * @return WEFT_E_ARG (a curve that goes backwards, a number that is not finite), WEFT_E_STATE
 *         (sealed)
 * @since 0.2
 */
WEFT_API weft_status weft_plan_set_curve(weft_plan *plan, int32_t index, uint32_t flags,
                                         const weft_curve_point *points, size_t count,
                                         weft_error *err);

/** Bits of weft_mask.flags. */
enum weft_mask_flag {
    /** `text` is set, otherwise it is 1. */
    WEFT_MASK_TEXT = 1u << 0,
    /**
     * Where masks of several adapters overlap they add up. Otherwise they share the place: each
     * mask is divided by the sum of all of them where that is above 1.
     */
    WEFT_MASK_ADD  = 1u << 1
};
typedef struct weft_mask {
    uint32_t     struct_size;
    uint32_t     flags;      /* WEFT_MASK_*                                                      */
    int32_t      height;     /* of the mask, which covers the image whatever its size: 1 to 4096 */
    int32_t      width;
    const float *values;     /* (height, width), 0 to 1; copied                                  */
    size_t       len;        /* height * width                                                   */
    float        text;       /* what layers over tokens of the text, which have no place, take   */
    int32_t      reserved0;  /* zero                                                             */
} weft_mask;
#define WEFT_MASK_INIT { sizeof(weft_mask), 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_MASK_INIT. @since 0.2 */
WEFT_API void weft_mask_init(weft_mask *mask, size_t size);
/**
 * Let adapter `index` act only in a part of the image: at a pixel p of any layer of the denoiser
 * y_p = W x_p + sum of M_i(p) c_i Delta_i x_p. The mask is averaged over each pixel of each
 * resolution that the denoiser has, so soft edges stay soft. Masked layers take the side path.
 * Copies of the plan keep the mask; a replaced adapter loses it.
 *
 * @param mask  NULL: everywhere again
 * @return WEFT_E_ARG (a size that is not len's, values outside 0 to 1), WEFT_E_STATE (sealed)
 * @since 0.2
 */
WEFT_API weft_status weft_plan_set_mask(weft_plan *plan, int32_t index, const weft_mask *mask,
                                        weft_error *err);

enum weft_region_flag {
    /** `adapter` is set: the region is where that adapter's mask is, and `mask` must be NULL. */
    WEFT_REGION_ADAPTER  = 1u << 0,
    /**
     * In self-attention the pixels of this region and those of other isolated regions do not see
     * each other. A pixel is a region's if more than half of it is. Pixels of no isolated region
     * see all, and all see them.
     */
    WEFT_REGION_ISOLATED = 1u << 1
};
typedef struct weft_region {
    uint32_t         struct_size;
    uint32_t         flags;      /* WEFT_REGION_*                                        */
    const weft_mask *mask;       /* copied; flags zero; NULL with WEFT_REGION_ADAPTER    */
    int32_t          adapter;    /* index of an adapter that has a mask                  */
    int32_t          reserved0;  /* zero                                                 */
} weft_region;
#define WEFT_REGION_INIT { sizeof(weft_region), 0, 0, 0, 0 }
/** The function twin of WEFT_REGION_INIT. @since 0.2 */
WEFT_API void weft_region_init(weft_region *region, size_t size);
/**
 * Give a part of the image a prompt of its own, which weft_step.region_text brings to each call. In
 * every cross-attention a pixel is
 *
 *     (max(0, 1 - S) y_0 + sum of M_i y_i) / max(S, 1),  S = sum of M_i
 *
 * where y_0 attends to the prompt of the whole image and y_i to that of region i, and M_i is the
 * region's mask averaged over the pixel. An adapter with a region acts on the keys and values of
 * that region's prompt only; one without acts on those of every prompt. Copies of the plan keep
 * regions; removing an adapter removes its region, and those after it move up by one.
 *
 * Source: Gu et al., Mix-of-Show (2023), regionally controllable sampling, with boxes in place of
 * masks. Isolation: Yang et al., LoRA-Composer (2024).
 *
 * @return WEFT_E_ARG (neither an adapter nor a mask, or both; no such adapter, or one with a region;
 *         a wrong mask), WEFT_E_UNSUPPORTED (more than 64 regions), WEFT_E_STATE (sealed). Sealing
 *         fails with WEFT_E_ARG if the adapter has no mask then
 * @since 0.2
 */
WEFT_API weft_status weft_plan_add_region(weft_plan *plan, const weft_region *region,
                                          weft_error *err);
/**
 * Take region `index` away, 0 the first that was added; those after it move up by one.
 *
 * @return WEFT_E_STATE (sealed), WEFT_E_ARG
 * @since 0.2
 */
WEFT_API weft_status weft_plan_remove_region(weft_plan *plan, int32_t index, weft_error *err);
/**
 * Weigh adapter `index` block by block: its weight at each layer of the denoiser and of the text
 * encoders is multiplied with the layer's factor, under any method. Copies of the plan keep the
 * factors; a replaced adapter loses them. weft_plan_text() shows what they come to.
 *
 * The blocks of a UNet are BASE (the text encoders), IN00 and on, MID, OUT00 and on, as LDM numbers
 * them: 26 in SD1.x and SD2.x, 20 in SDXL. Layers outside of them have factor 1.
 *
 * @param text  NULL: 1 everywhere again. Else, not empty, separated by commas, first one of
 *                numbers    one for each block; or one for BASE and for each block with attention
 *                           (17 in SD1.x, 12 in SDXL), and the others have 0
 *                a preset   NONE, ALL, INS, IND, INALL, MIDD, OUTD, OUTS, OUTALL (docs/methods.md),
 *                           ALL and a number as in ALL0.5, or a block or range: 1 there, else 0
 *                nothing    1 everywhere
 *              and then settings, each over those before it: BLOCK=NUMBER, BLOCK-BLOCK=NUMBER, or
 *              PATTERN=NUMBER over layer names, with or without their component
 *              ("up_blocks.1*=0.5,*attn2*=0")
 * @return WEFT_E_ARG (a number of numbers that does not fit, with those that do; anything that is
 *         none of these), WEFT_E_MISMATCH (a pattern without a layer), WEFT_E_STATE (sealed)
 *
 * Source: the extension sd-webui-lora-block-weight, for the order of the blocks and the presets.
 * @since 0.2
 */
WEFT_API weft_status weft_plan_set_blocks(weft_plan *plan, int32_t index, const char *text,
                                          weft_error *err);

enum weft_align_flag {
    /** GroupNorms take the statistics of each sample alone (share_group_norm = False). */
    WEFT_ALIGN_NO_GROUP_NORM = 1u << 0,
    /** No keys and values of the reference are seen (share_attention = False). */
    WEFT_ALIGN_NO_ATTENTION  = 1u << 1,
    /** Queries stay as they are (adain_queries = False). */
    WEFT_ALIGN_NO_QUERIES    = 1u << 2,
    /** Keys stay as they are (adain_keys = False). */
    WEFT_ALIGN_NO_KEYS       = 1u << 3,
    /** Values too take the reference's mean and deviation (adain_values = True). */
    WEFT_ALIGN_VALUES        = 1u << 4,
    /**
     * Every sample sees the keys and values of all, and nothing takes on a mean or deviation
     * (full_attention_share = True).
     */
    WEFT_ALIGN_FULL          = 1u << 5,
    /** shared_score_scale is set, otherwise it is 1. */
    WEFT_ALIGN_SCALE         = 1u << 6,
    /** Nothing is aligned: for a copy of a plan that does. Takes no other option. */
    WEFT_ALIGN_OFF           = 1u << 7
};
/** The authors' names and defaults; share_layer_norm is not here, since it changes nothing. */
typedef struct weft_align_options {
    uint32_t struct_size;
    uint32_t flags;              /* WEFT_ALIGN_*                                                  */
    float    shared_score_scale; /* multiplies what a pixel scores on the reference's keys, from 0
                                    on; above 1: more of the reference's likeness                 */
    float    shared_score_shift; /* is added to it; log 2 counts the reference twice              */
    double   only_self_level;    /* share of the self-attentions that stay as they are, 0 to 1    */
} weft_align_options;
#define WEFT_ALIGN_OPTIONS_INIT { sizeof(weft_align_options), 0, 0, 0, 0 }
/** The function twin of WEFT_ALIGN_OPTIONS_INIT. @since 0.2 */
WEFT_API void weft_align_options_init(weft_align_options *options, size_t size);
/**
 * StyleAligned: the samples of a run's batch take on the style of the first, the reference, under
 * any method. In every self-attention of the denoiser, for sample s and the reference 0,
 *
 *     q_s <- AdaIN(q_s, q_0),  k_s <- AdaIN(k_s, k_0)
 *     o_s  = softmax(q_s [k_s, a k_0]^T / sqrt(d) + [0, b]) [v_s, v_0]
 *
 * where AdaIN(x, y) = (x - mean x) / std x * std y + mean y, for each head's channel over the
 * pixels, a is shared_score_scale and b is shared_score_shift. GroupNorms take mean and variance
 * over the pixels of both. The reference is computed as it is alone, bit for bit; so is a batch of
 * 1. Each half of guidance and each branch is aligned within itself.
 *
 * Hence the one exception to what run.h promises of batches: a sample depends on the reference of
 * its batch, and under WEFT_ALIGN_FULL on all of it. The bits are the same for any number of
 * threads, and without FULL for any samples beside the two.
 *
 * Copies of the plan keep it; weft_plan_merge() and other methods leave it. Hertz et al., Style
 * Aligned Image Generation via Shared Attention (2023), equations 3 to 5, and the authors' program.
 *
 * @param options  NULL: the authors' defaults
 * @return WEFT_E_ARG (a number outside its range, an option that another leaves without effect),
 *         WEFT_E_STATE (sealed). Sealing fails with WEFT_E_UNSUPPORTED for WEFT_ALIGN_FULL with
 *         isolated regions: one shows every pixel what the other hides
 * @since 0.2
 */
WEFT_API weft_status weft_plan_align(weft_plan *plan, const weft_align_options *options,
                                     weft_error *err);
/**
 * The options of a plan's alignment, as weft_plan_align() takes them again: WEFT_ALIGN_OFF if
 * nothing is aligned. WEFT_E_ARG (NULL). @since 0.2
 */
WEFT_API weft_status weft_plan_alignment(const weft_plan *plan, weft_align_options *options,
                                         weft_error *err);

enum weft_phase_flag {
    /** `at` is set: the phase begins there, and `first` must be 0. */
    WEFT_PHASE_AT = 1u << 0
};
typedef struct weft_phase_options {
    uint32_t struct_size;
    uint32_t flags;      /* WEFT_PHASE_*                                                       */
    int32_t  first;      /* call at which the phase begins, after that of the phase before      */
    int32_t  reserved0;  /* zero                                                               */
    double   at;         /* share of all calls, 0 to 1: the first call n with n / calls >= at   */
} weft_phase_options;
#define WEFT_PHASE_OPTIONS_INIT { sizeof(weft_phase_options), 0, 0, 0, 0 }
/** The function twin of WEFT_PHASE_OPTIONS_INIT. @since 0.2 */
WEFT_API void weft_phase_options_init(weft_phase_options *options, size_t size);
/**
 * Begin a phase: a range of calls with a method of its own. From its first call on the plan follows
 * the method that is set after this call, or merge if none is. A plan begins with a phase at call
 * 0, and method setters always set the last phase. A method counts the calls of its own phase, from
 * 0. Text encoders follow the method of the first phase.
 *
 * A phase that turns out to have no call, because the plan is sealed for fewer, is left out with a
 * warning.
 *
 * @return WEFT_E_STATE (sealed), WEFT_E_ARG (not after the phase before), WEFT_E_UNSUPPORTED (too
 *         many)
 * @since 0.2
 */
WEFT_API weft_status weft_plan_begin_phase(weft_plan *plan, const weft_phase_options *options,
                                           weft_error *err);

/**
 * Merge: every adapter at every call, summed exactly. The method of a plan unless another is set.
 * @since 0.1
 */
WEFT_API weft_status weft_plan_merge(weft_plan *plan, weft_error *err);

enum weft_switch_flag {
    /**
     * The authors' timing: the first turn is one call longer, everything after it one call late.
     */
    WEFT_SWITCH_OFFICIAL_OFFSET = 1u << 0,
    /**
     * W-Switch: a cycle of k turns keeps its k * period calls, but they are divided in proportion to
     * the adapters' shares (weft_add_options.share), by largest remainder.
     */
    WEFT_SWITCH_SHARES          = 1u << 1
};
typedef struct weft_switch_options {
    uint32_t struct_size;
    uint32_t flags;        /* WEFT_SWITCH_*                                                      */
    int32_t  period;       /* calls of one turn; 0 means 5                                       */
    int32_t  reserved0;    /* zero                                                               */
    const int32_t *order;  /* adapters, 0 the first that was added, in the order of their turns;
                              one may have several, or none; copied. NULL: all, as added         */
    size_t   order_len;    /* turns of a cycle; 0 where order is NULL                            */
    int32_t  last_calls;   /* so many calls at the end of the phase go to one adapter; 0: none   */
    int32_t  last_adapter; /* which                                                              */
    int32_t  last_role;    /* or WEFT_ROLE_*: the first adapter with this role                   */
    int32_t  reserved1;    /* zero                                                               */
} weft_switch_options;
#define WEFT_SWITCH_OPTIONS_INIT { sizeof(weft_switch_options), 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_SWITCH_OPTIONS_INIT. @since 0.1 */
WEFT_API void weft_switch_options_init(weft_switch_options *options, size_t size);
/**
 * LoRA Switch: one adapter at a time, in turns: adapter floor(n / period) mod k at call n.
 * Zhong et al., Multi-LoRA Composition for Image Generation (2024), section 3.
 *
 * Sealing fails with WEFT_E_ARG if the order or the last calls name an adapter that the plan has
 * not, or a phase has fewer calls than go to the last adapter; with WEFT_E_UNSUPPORTED if shares
 * are negative or all zero, or no adapter has the last role.
 * @since 0.1
 */
WEFT_API weft_status weft_plan_switch(weft_plan *plan, const weft_switch_options *options,
                                      weft_error *err);

enum weft_composite_flag {
    /**
     * Divide the weighted sum by the number of adapters, as in the paper, not by the sum of shares.
     */
    WEFT_COMPOSITE_DIVIDE_BY_COUNT = 1u << 0,
    /** Without guidance keep only the last adapter's prediction, as the authors' program does. */
    WEFT_COMPOSITE_NOCFG_LAST      = 1u << 1,
    /**
     * Adapters reuse their deep features: what the denoiser has before its last level on the way
     * up. At call n of N one of k adapters is dominant, number floor(n k / N), and computes in
     * full. The others do so in every c1-th call of the first half and every c2-th of the second,
     * and in between only the outermost level. A run computes in full where it does not come from
     * the call before. So the calls of one image follow one another on such a run: two images in
     * turns, or one begun at the call where another was given up, would take each other's features.
     */
    WEFT_COMPOSITE_CACHED          = 1u << 2
};
typedef struct weft_composite_options {
    uint32_t struct_size;
    uint32_t flags;      /* WEFT_COMPOSITE_*                                             */
    int32_t  c1;         /* of CACHED: calls from one refresh to the next in the first half
                            of the phase; 0 means 2                                      */
    int32_t  c2;         /* in the second half; 0 means 3                                */
} weft_composite_options;
#define WEFT_COMPOSITE_OPTIONS_INIT { sizeof(weft_composite_options), 0, 0, 0 }
/** The function twin of WEFT_COMPOSITE_OPTIONS_INIT. @since 0.1 */
WEFT_API void weft_composite_options_init(weft_composite_options *options, size_t size);
/**
 * LoRA Composite: one branch for each adapter, predictions averaged with the adapters' shares. The
 * sum does not depend on the order in which adapters were added, bit for bit. Same source as
 * switch. WEFT_COMPOSITE_CACHED after Zou et al., Cached Multi-LoRA Composition (2025); which is
 * dominant when follows the order in which adapters were added.
 * @since 0.1
 */
WEFT_API weft_status weft_plan_composite(weft_plan *plan, const weft_composite_options *options,
                                         weft_error *err);

enum weft_loratorio_flag {
    /** `base` is set, otherwise it is 0.5. */
    WEFT_LORATORIO_BASE = 1u << 0
};
typedef struct weft_loratorio_options {
    uint32_t struct_size;
    uint32_t flags;        /* WEFT_LORATORIO_*                                                   */
    int32_t  patch;        /* side of a patch in latent pixels; 0 means 8                        */
    int32_t  keep;         /* adapters that count in a patch, those least like the base; 0: all  */
    float    temperature;  /* of the softmin; 0 means 0.1                                        */
    float    base;         /* the base's part of the unconditional half, 0 to 1                  */
} weft_loratorio_options;
#define WEFT_LORATORIO_OPTIONS_INIT { sizeof(weft_loratorio_options), 0, 0, 0, 0, 0 }
/** The function twin of WEFT_LORATORIO_OPTIONS_INIT. @since 0.2 */
WEFT_API void weft_loratorio_options_init(weft_loratorio_options *options, size_t size);
/**
 * LoRAtorio: one branch for each adapter and one evaluation of the base. In each patch p
 *
 *   weight_i(p) ~ share_i exp(-cos(e_i(p), e_base(p)) / temperature),  which sum to 1
 *
 * of the conditional predictions e. The conditional half is sum of weight_i e_i, the unconditional
 * base e_base + (1 - base) sum of weight_i e_i, with the same weights. Patches at the right and
 * lower edge are smaller where the size is no multiple. The order of the adapters does not show.
 * Foteinopoulou et al., LoRAtorio: An intrinsic approach to LoRA Skill Composition (2025); patch,
 * temperature, and keep within each patch are our choices where it leaves them open.
 *
 * Sealing fails with WEFT_E_UNSUPPORTED if a share is negative or all are 0.
 * @since 0.2
 */
WEFT_API weft_status weft_plan_loratorio(weft_plan *plan, const weft_loratorio_options *options,
                                         weft_error *err);

enum weft_subbands_flag {
    /** `sharpness` is set, otherwise it is 1. */
    WEFT_SUBBANDS_SHARPNESS = 1u << 0
};
typedef struct weft_subbands_options {
    uint32_t struct_size;
    uint32_t flags;      /* WEFT_SUBBANDS_*                                                      */
    int32_t  levels;     /* of the wavelet transform, 1 to 8: 3 levels + 1 bands; 0 means 2      */
    int32_t  keep;       /* adapters that count in a band, those that change most; 0: all        */
    float    sharpness;  /* 0: the plain mean; 1: in proportion; more: nearer the largest alone  */
    int32_t  reserved0;  /* zero                                                                 */
} weft_subbands_options;
#define WEFT_SUBBANDS_OPTIONS_INIT { sizeof(weft_subbands_options), 0, 0, 0, 0, 0 }
/** The function twin of WEFT_SUBBANDS_OPTIONS_INIT. @since 0.2 */
WEFT_API void weft_subbands_options_init(weft_subbands_options *options, size_t size);
/**
 * Sub-band weights: one branch for each adapter and one evaluation of the base. The predictions are
 * split into frequency bands by a Haar wavelet transform W; in each band b
 *
 *   weight_i(b) ~ share_i rms(W_b (e_i - e_base))^sharpness,  which sum to 1
 *
 * of the conditional predictions e. Each half of guidance is the inverse transform of the bands
 * sum of weight_i(b) W_b e_i. The order of the adapters does not show. After Roy et al., MultLFG:
 * Training-free Multi-LoRA composition using Frequency-domain Guidance (2025), whose text and
 * algorithm disagree on the weights: this rule for them is ours.
 *
 * Sealing fails with WEFT_E_UNSUPPORTED if a share is negative or all are 0.
 * @since 0.2
 */
WEFT_API weft_status weft_plan_subbands(weft_plan *plan, const weft_subbands_options *options,
                                        weft_error *err);

typedef struct weft_blend_options {
    uint32_t struct_size;
    uint32_t flags;      /* zero                                                             */
    int32_t  start;      /* call from which on there is something to blend                   */
    int32_t  reserved0;  /* zero                                                             */
} weft_blend_options;
#define WEFT_BLEND_OPTIONS_INIT { sizeof(weft_blend_options), 0, 0, 0 }
/** The function twin of WEFT_BLEND_OPTIONS_INIT. @since 0.2 */
WEFT_API void weft_blend_options_init(weft_blend_options *options, size_t size);
/**
 * Blend: predictions, not layers, follow the adapters' masks (weft_plan_set_mask()):
 *
 *     e = (max(0, 1 - S) e_0 + sum of M_i e_i) / max(S, 1),  S = sum of M_i, at each latent pixel
 *
 * Branch 0 (e_0) is without the masked adapters. Each adapter with a mask has a branch, in the
 * order in which they were added, in which it acts everywhere. An adapter without a mask acts in
 * all branches. Calls before `start`, counted in the phase, have branch 0 alone. With
 * WEFT_STEP_TEXT_PER_BRANCH each branch reads its own prompt: one before `start`, and from then on
 * one for each branch. The result does not depend on the order in which adapters were added.
 *
 * Sealing fails with WEFT_E_UNSUPPORTED if no adapter has a mask, or one has WEFT_MASK_ADD.
 *
 * Source: Kong et al., OMG: Occlusion-friendly Personalized Multi-concept Generation (2024), which
 * blends so in a second pass over a layout; here the layout is the calls before `start`.
 * @since 0.2
 */
WEFT_API weft_status weft_plan_blend(weft_plan *plan, const weft_blend_options *options,
                                     weft_error *err);

/** Curve S(tau), the factor of the style's score; tau runs from 0 to 1 over the phase. */
enum weft_klora_pattern {
    WEFT_KLORA_S_STAR = 0, /* (alpha tau + 0.85 alpha) mod alpha: a first touch of style, then
                              content, style at the end                                       */
    WEFT_KLORA_S      = 1, /* alpha tau + beta: content first, then style                     */
    WEFT_KLORA_CUSTOM = 2, /* (alpha tau + beta) mod modulus, all three from the options;
                              modulus 0: no modulus                                           */
    WEFT_KLORA_FIXED  = 3  /* no curve and no scores: all layers the content's in the first
                              `share` of the calls, then the style's; the plain baseline      */
};
/** What makes a layer's score. */
enum weft_klora_scoring {
    WEFT_KLORA_TOP_K  = 0, /* sum of the K largest |entries| of Delta W                       */
    WEFT_KLORA_ENERGY = 1  /* its Frobenius norm, of which the balance is made too; from two
                              factors without their product                                   */
};
/** Balance between the two adapters' scores. */
enum weft_klora_gamma {
    WEFT_KLORA_GAMMA_CODE  = 0, /* mean of the layers' ratios below three times their mean */
    WEFT_KLORA_GAMMA_PAPER = 1, /* ratio of the global sums                                */
    WEFT_KLORA_GAMMA_NONE  = 2  /* 1                                                       */
};
/** What tau counts. */
enum weft_klora_granularity {
    WEFT_KLORA_BY_CALL = 0, /* every layer: tau = (n L + l) / (N L), l = 1..L in order of
                               execution                                                   */
    WEFT_KLORA_BY_STEP = 1  /* every call: tau = n / N                                     */
};
enum weft_klora_flag {
    /** Keep the authors' counter, which wraps to 0 at the very last layer of the last call. */
    WEFT_KLORA_WRAP           = 1u << 0,
    /** Score and apply with the file's alpha left out, as the authors' program does. */
    WEFT_KLORA_IGNORE_ALPHA   = 1u << 1,
    /** Govern only q, k, v and out of the attentions; adapters act nowhere else. */
    WEFT_KLORA_ATTENTION_ONLY = 1u << 2,
    /** Pattern s* with the paper's offset 1.3 in place of the program's 1.275. */
    WEFT_KLORA_PAPER_BETA     = 1u << 3
};
typedef struct weft_klora_options {
    uint32_t struct_size;
    uint32_t flags;        /* WEFT_KLORA_*                                             */
    int32_t  pattern;      /* WEFT_KLORA_S_STAR, _S, _CUSTOM                           */
    int32_t  gamma;        /* WEFT_KLORA_GAMMA_*                                       */
    int32_t  granularity;  /* WEFT_KLORA_BY_*                                          */
    int32_t  reserved0;    /* zero                                                     */
    int64_t  top_k;        /* largest entries that make a score; 0: rank_c * rank_s (for a family
                              without a rank the smaller side of the layer)            */
    double   alpha;        /* of CUSTOM only, as are beta and modulus                  */
    double   beta;
    double   modulus;
    int32_t  score;        /* WEFT_KLORA_TOP_K, _ENERGY; since 0.2                     */
    int32_t  reserved1;    /* zero                                                     */
    double   share;        /* of FIXED only: call n is the content's while n / calls < share; 0:
                              1/3, where pattern s is 1; since 0.2                     */
} weft_klora_options;
#define WEFT_KLORA_OPTIONS_INIT { sizeof(weft_klora_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_KLORA_OPTIONS_INIT. @since 0.1 */
WEFT_API void weft_klora_options_init(weft_klora_options *options, size_t size);
/**
 * K-LoRA: for every layer and call either the content adapter or the style adapter, whichever has
 * the larger sum of its K largest |entries| of Delta W, the style's multiplied with gamma S(tau).
 * Of two adapters the first is content and the second style, unless they have roles. Weights, block
 * factors, curves and masks multiply what was chosen and do not choose: a layer that goes to an
 * adapter whose factor there is 0 stays the base's. Ouyang et al., K-LoRA: Unlocking Training-Free
 * Fusion of Any Subject and Style LoRAs (2025), eq. 3-7.
 *
 * Since 0.2 there may be more adapters, each with a role. A layer goes to the largest of
 * g_i S_i p_i(tau), p = 1 for contents and S(tau) for styles: the content with the largest g S
 * against the style with the largest g S, as of two. g_i is gamma between the first content, whose
 * own is 1, and adapter i; K is the product of the largest ranks of both roles. With one content
 * and one style this is K-LoRA. The rule for more is weft's own.
 * @since 0.1
 */
WEFT_API weft_status weft_plan_klora(weft_plan *plan, const weft_klora_options *options,
                                     weft_error *err);

/** What K-LoRA saw in a layer; of a sealed plan. */
typedef struct weft_klora_score {
    uint32_t struct_size;
    int32_t  position;  /* l, 1..L in order of execution; 0: K-LoRA does not govern the layer */
    int64_t  top_k;     /* K of this layer; 0 under ENERGY                                    */
    double   content;   /* S_c, sum of the K largest |entries|                                */
    double   style;     /* S_s                                                                */
    double   ratio;     /* q, sum of |Delta W_c| over sum of |Delta W_s|; 0 if one is missing */
    double   gamma;     /* of the pair; of two adapters the same in every layer               */
    double   rho;       /* S_c / (gamma S_s): content if and only if rho > S(tau)             */
    int32_t  content_index; /* the content that is compared, -1: none has anything here; since 0.2 */
    int32_t  style_index;   /* the style; likewise                                             */
} weft_klora_score;
#define WEFT_KLORA_SCORE_INIT { sizeof(weft_klora_score), 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_KLORA_SCORE_INIT. @since 0.1 */
WEFT_API void weft_klora_score_init(weft_klora_score *score, size_t size);
/**
 * Read layer `layer`'s score in the phase of `call`. WEFT_E_STATE unless that phase is sealed under
 * K-LoRA.
 * @since 0.1
 */
WEFT_API weft_status weft_plan_klora_score(const weft_plan *plan, int32_t call, int64_t layer,
                                           weft_klora_score *score,
                                           weft_error *err);

typedef struct weft_balance_options {
    uint32_t struct_size;
    uint32_t flags;      /* zero                                                                */
    int32_t  gamma;      /* WEFT_KLORA_GAMMA_CODE or _PAPER; _NONE takes the balance away       */
    int32_t  role;       /* WEFT_ROLE_*: the first adapter of this role is the measure; NONE:
                            `reference` is                                                      */
    int32_t  reference;  /* the adapter that the others are brought to, 0 the first             */
    int32_t  reserved0;  /* zero                                                                */
} weft_balance_options;
#define WEFT_BALANCE_OPTIONS_INIT { sizeof(weft_balance_options), 0, 0, 0, 0, 0 }
/** The function twin of WEFT_BALANCE_OPTIONS_INIT. @since 0.2 */
WEFT_API void weft_balance_options_init(weft_balance_options *options, size_t size);
/**
 * Bring all adapters of the plan to the strength of one of them, under any method: what the method
 * chooses for adapter i in the denoiser is multiplied with
 *
 *     g_i = mean of those q_l that are below three times their mean              (CODE)
 *     g_i = sum over l of |Delta_ref| / sum over l of |Delta_i|                  (PAPER)
 *     q_l = sum of all |entries| of Delta_ref / the same of Delta_i, in layer l
 *
 * over the selected layers of the denoiser that have something of both, normalisations left out.
 * This is K-LoRA's gamma (Ouyang et al., 2025). Of the reference it is 1. Without a common layer it
 * is 1 too, and the plan warns. Weights, curves and masks count on top of it; text encoders, where
 * nothing is balanced, take the weights as they are. Sealing reads all weights once; a copy of the
 * plan does not read them again. weft_plan_adapter_info.balance tells what came out.
 *
 * @param options  NULL for defaults: CODE, to the first adapter
 * @return WEFT_E_STATE (sealed), WEFT_E_ARG; weft_plan_seal() fails with WEFT_E_UNSUPPORTED if the
 *         plan has no such reference
 * @since 0.2
 */
WEFT_API weft_status weft_plan_balance(weft_plan *plan, const weft_balance_options *options,
                                       weft_error *err);
enum weft_zip_flag {
    /** `lambda` is set, otherwise it is 1. */
    WEFT_ZIP_LAMBDA = 1u << 0,
    /** `style` is set, otherwise it is 1. */
    WEFT_ZIP_STYLE  = 1u << 1
};
typedef struct weft_zip_options {
    uint32_t      struct_size;
    uint32_t      flags;        /* WEFT_ZIP_*                                                     */
    weft_tensors *coefficients; /* of training, which the plan keeps; NULL: the closed form       */
    double        lambda;       /* of the closed form: 0 the plain sum, from 1 on no column is left
                                   to both adapters                                               */
    double        style;        /* w_s, multiplies the style's part                               */
} weft_zip_options;
#define WEFT_ZIP_OPTIONS_INIT { sizeof(weft_zip_options), 0, 0, 0, 0 }
/** The function twin of WEFT_ZIP_OPTIONS_INIT. @since 0.2 */
WEFT_API void weft_zip_options_init(weft_zip_options *options, size_t size);
/**
 * ZipLoRA: Delta W = Delta_c diag(m_c) + w_s Delta_s diag(m_s), with a coefficient for every column
 * (input) of each layer's matrix. Needs exactly two adapters: by role, else the first is content
 * and the second style. Normalisations, biases and text encoders have no columns: they are summed.
 * Shah et al., ZipLoRA: Any Subject in Any Style by Effectively Merging LoRAs (2023).
 *
 * Coefficients of training are tensors `<layer>.zip.m_c` and `<layer>.zip.m_s` under canonical
 * layer names, floats: one for each input, or for each column of a convolution as stored,
 * (in, ky, kx). A layer without them has 1.
 *
 * Without them they are chosen from the weights by a rule of our own, which is not the paper's. In
 * each layer of both adapters, with a_j and b_j column j's shares of the squared sums of Delta_c
 * and Delta_s, m and n >= 0 minimise
 *
 *     sum over j of  a_j (m_j - 1)^2 + b_j (n_j - 1)^2 + 2 lambda sqrt(a_j b_j) m_j n_j
 *
 * what each adapter loses of its own output, and a bound on how far the columns overlap.
 *
 * @return WEFT_E_ARG, WEFT_E_MISMATCH (coefficients for no layer, or of another length),
 *         WEFT_E_FORMAT (a value that is not finite), WEFT_E_STATE (sealed)
 * @since 0.2
 */
WEFT_API weft_status weft_plan_zip(weft_plan *plan, const weft_zip_options *options,
                                   weft_error *err);
/**
 * Write the coefficients of a sealed plan's first phase under ZipLoRA, in the form that
 * weft_plan_zip() takes. The metadata names the two adapters.
 *
 * @return WEFT_E_STATE, WEFT_E_UNSUPPORTED (no layer has any), WEFT_E_IO, WEFT_E_NOMEM, WEFT_E_ARG
 * @since 0.2
 */
WEFT_API weft_status weft_plan_zip_save(const weft_plan *plan, const char *path, weft_error *err);

/**
 * Let a network of LoRA.rar choose the coefficients of a plan's two adapters, in the form that
 * weft_plan_zip() takes. The network reads the columns of both adapters in a layer's to_q and
 * to_out.0; other layers are left to be summed. The plan need not be sealed.
 *
 * @param network       tensors input_1.weight (hidden, 2 out), input_1.bias (hidden), the same of
 *                      input_2 and on for other heights of columns, output.1.weight (2, hidden),
 *                      output.1.bias (2): the published file has 640 and 1280, for SDXL
 * @param coefficients  the caller's, weft_tensors_free()
 * @return WEFT_E_MISMATCH (no such network; none of its heights is here), WEFT_E_UNSUPPORTED (not
 *         two adapters, or two of one role), WEFT_E_FORMAT, WEFT_E_CANCELLED, WEFT_E_NOMEM,
 *         WEFT_E_ARG
 *
 * Source: Shenaj et al., LoRA.rar: Learning to Merge LoRAs via Hypernetworks (2024); its program
 * leaves out the files' alpha, which counts here.
 * @since 0.2
 */
WEFT_API weft_status weft_plan_zip_predict(const weft_plan *plan, weft_tensors *network,
                                           weft_tensors **coefficients, weft_error *err);

enum weft_blora_flag {
    /** The authors' program: an adapter's weight is squared. */
    WEFT_BLORA_SQUARED = 1u << 0
};
typedef struct weft_blora_options {
    uint32_t    struct_size;
    uint32_t    flags;    /* WEFT_BLORA_*                                                         */
    const char *content;  /* patterns of the layers of content, separated by commas; copied; NULL:
                             the model's own, see below                                           */
    const char *style;    /* the same for style                                                   */
} weft_blora_options;
#define WEFT_BLORA_OPTIONS_INIT { sizeof(weft_blora_options), 0, 0, 0 }
/** The function twin of WEFT_BLORA_OPTIONS_INIT. @since 0.2 */
WEFT_API void weft_blora_options_init(weft_blora_options *options, size_t size);
/**
 * B-LoRA: what is shown from one adapter and how it looks from another, by the blocks that hold
 * them: in SDXL up_blocks.0.attentions.0 and .1. Adapters act nowhere else, and not on text
 * encoders. They need not be B-LoRAs. In other models, for which nothing is published, content is
 * the coarser half of the levels with attention and the middle, style the finer half: in SD1.x
 * down_blocks 0 and 1 and up_blocks 2 and 3 are style.
 *
 * Each adapter acts by its role; of two without roles the first is content and the second style,
 * and a single one without is both. Frenkel et al., Implicit Style-Content Separation using B-LoRA
 * (2024).
 *
 * @return WEFT_E_ARG, WEFT_E_STATE (sealed); sealing fails with WEFT_E_MISMATCH if an adapter has
 *         nothing in its block
 * @since 0.2
 */
WEFT_API weft_status weft_plan_blora(weft_plan *plan, const weft_blora_options *options,
                                     weft_error *err);

/**
 * Seal the plan for a number of calls (weft_sampler_calls() of the sampler): make its table.
 *
 * @return WEFT_E_STATE (sealed already), WEFT_E_UNSUPPORTED (a method that cannot work with these
 *         adapters; the text says why), WEFT_E_CANCELLED, WEFT_E_NOMEM, WEFT_E_ARG
 * @since 0.1
 */
WEFT_API weft_status weft_plan_seal(weft_plan *plan, int32_t calls, weft_error *err);

/**
 * Write the model with the plan merged into its weights, in the layout that it was opened from.
 * Every weight keeps its dtype. The plan must be sealed, with one branch and the same coefficients
 * in every call. Text encoders get what acts while prompts are encoded. Placeholder tokens are not
 * part of a checkpoint, nor is a VAE that was given to weft_model_open(). A folder gets one weight
 * file for each component, and what else its index names.
 *
 * @param path  a file for a single-file model, else a folder, which is made; it must not exist yet
 * @return WEFT_E_STATE, WEFT_E_UNSUPPORTED (coefficients that change, or since 0.2 a merged weight
 *         that its dtype cannot hold: the text names layer and value), WEFT_E_IO, WEFT_E_NOMEM,
 *         WEFT_E_ARG
 * @since 0.1
 */
WEFT_API weft_status weft_plan_save_model(const weft_plan *plan, const char *path, weft_error *err);

/**
 * Make one adapter of a sealed plan whose coefficients are the same in every call, with one branch
 * and no mask. It adds to the model what the plan adds, text encoders as while prompts are encoded:
 * a layer's LoRAs become one of the sum of their ranks, exactly but for rounding; a layer with
 * other families a whole difference, taken on this model's weights. weft_adapter_save() writes it.
 *
 * @param options  of weft_adapter_create(); may be NULL
 * @return WEFT_E_STATE, WEFT_E_UNSUPPORTED (coefficients that change; a policy of weft_mixed that
 *         is no sum; a plan that adds nothing), WEFT_E_NOMEM, WEFT_E_ARG
 * @since 0.2
 */
WEFT_API weft_status weft_plan_fold(const weft_plan *plan, const weft_adapter_options *options,
                                    weft_adapter **out, weft_error *err);

/**
 * How many tokens a prompt has under a plan, with the places that placeholder tokens take, and how
 * many chunks (at least 1) weft_run_encode() needs for it with the same flags. Either result may be
 * NULL. With several text encoders: the largest. The plan need not be sealed.
 *
 * @param flags  WEFT_ENCODE_* of run.h
 * @return WEFT_E_STATE (the model has no tokenizer), WEFT_E_ARG, WEFT_E_NOMEM
 * @since 0.1
 */
WEFT_API weft_status weft_plan_prompt_size(const weft_plan *plan, const char *prompt,
                                           uint32_t flags, int32_t *tokens, int32_t *chunks,
                                           weft_error *err);

/**
 * How often a prompt has a token of a concept that was added to the plan, under any of its names. A
 * token that stands in no prompt has no effect, and the picture does not say so.
 *
 * @param of      the concept
 * @param index   0 <= index < weft_concept_info.tokens
 * @param prompt  UTF-8, read with the same flags as by weft_run_encode()
 * @param flags   WEFT_ENCODE_* of run.h
 * @param count   set to the number of times
 *
 * The plan need not be sealed.
 *
 * @return WEFT_E_ARG (also for a concept that is not of the plan), WEFT_E_STATE (the model has no
 *         tokenizer), WEFT_E_UNSUPPORTED (an unknown flag), WEFT_E_NOMEM
 * @since 0.2
 */
WEFT_API weft_status weft_plan_token_count(const weft_plan *plan, const weft_concept *of,
                                           size_t index, const char *prompt, uint32_t flags,
                                           int32_t *count, weft_error *err);

/**
 * Where some words of a prompt stand in its encoded sequence: for weft_run_locate(). The words are
 * looked for as tokens, wherever they occur; a placeholder token of the plan has all its rows.
 *
 * @param words  UTF-8, at least one token
 * @param flags  WEFT_ENCODE_* of run.h, as for the prompt
 * @param rows   [cap] written, in order; NULL when cap is 0
 * @param count  how many there are, also where cap has no room for all
 * @return WEFT_E_MISMATCH (the words are not in the prompt), WEFT_E_STATE (the model has no
 *         tokenizer), WEFT_E_UNSUPPORTED (an unknown flag), WEFT_E_ARG, WEFT_E_NOMEM
 * @since 0.2
 */
WEFT_API weft_status weft_plan_find_words(const weft_plan *plan, const char *prompt,
                                          const char *words, uint32_t flags, int32_t *rows,
                                          size_t cap, size_t *count, weft_error *err);

typedef struct weft_plan_info {
    uint32_t    struct_size;
    int32_t     sealed;
    int32_t     phases;         /* describe each with weft_plan_phase()                           */
    int32_t     adapters;
    int32_t     calls;          /* 0 until sealed                                                 */
    int32_t     branches;       /* most predictions that a call combines                          */
    int32_t     evaluations;    /* most network evaluations of a call, guidance not counted       */
    int32_t     reserved0;
    int64_t     layers;         /* of the model                                                   */
    int64_t     touched_layers; /* layers with a coefficient that is not zero, of all phases and the
                                   text encoders; a layer counts in each                          */
    int64_t     merged_layers;  /* of those, computed from a merged copy                          */
    int64_t     side_bytes;     /* of the stacked factors of the layers that are not merged       */
    int64_t     merged_bytes;   /* of the merged copies that a run makes                          */
    int32_t     regions;        /* with prompts of their own                                      */
    int32_t     reserved1;
} weft_plan_info;
#define WEFT_PLAN_INFO_INIT { sizeof(weft_plan_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_PLAN_INFO_INIT. @since 0.1 */
WEFT_API void weft_plan_info_init(weft_plan_info *info, size_t size);
/** Describe a plan. @since 0.1 */
WEFT_API weft_status weft_plan_info_get(const weft_plan *plan, weft_plan_info *info,
                                        weft_error *err);

/** One adapter of a plan, as it was added. Texts belong to the plan and hold until it changes. */
typedef struct weft_plan_adapter_info {
    uint32_t    struct_size;
    int32_t     role;         /* WEFT_ROLE_* that it was added with                             */
    const char *name;         /* the adapter's                                                  */
    const char *part;         /* what the method takes it for: "content", "style", "both", or "" */
    float       weight;
    float       text_1;       /* weight of its part in the first text encoder                   */
    float       text_2;       /* in the second                                                  */
    float       text_3;       /* in the third                                                   */
    float       share;        /* composite: weight of its prediction                            */
    int32_t     reserved0;
    const char *blocks;       /* the text of weft_plan_set_blocks(), or ""                      */
    double      balance;      /* what weft_plan_balance() multiplies its weight with; else 1    */
} weft_plan_adapter_info;
#define WEFT_PLAN_ADAPTER_INFO_INIT { sizeof(weft_plan_adapter_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_PLAN_ADAPTER_INFO_INIT. @since 0.2 */
WEFT_API void weft_plan_adapter_info_init(weft_plan_adapter_info *info, size_t size);
/** Describe adapter number `adapter`, 0 the first that was added, of a sealed plan. @since 0.2 */
WEFT_API weft_status weft_plan_adapter(const weft_plan *plan, int32_t adapter,
                                       weft_plan_adapter_info *info, weft_error *err);

/** One phase. Before sealing only method and title are known. */
typedef struct weft_phase_info {
    uint32_t    struct_size;
    int32_t     first;          /* its first call                                        */
    const char *method;         /* weft_plan_merge()'s is "merge", and so on             */
    const char *title;          /* as people write it: "K-LoRA"                          */
    int32_t     calls;
    int32_t     branches;       /* most branches of a call                               */
    int32_t     evaluations;    /* the same, and the base's if the method asks for it    */
    int32_t     rows;           /* distinct rows of its coefficients                     */
    int64_t     touched_layers; /* as in weft_plan_info, of this phase                   */
    int64_t     merged_layers;
    int64_t     side_bytes;
    int64_t     merged_bytes;
} weft_phase_info;
#define WEFT_PHASE_INFO_INIT { sizeof(weft_phase_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_PHASE_INFO_INIT. @since 0.2 */
WEFT_API void weft_phase_info_init(weft_phase_info *info, size_t size);
/** Describe phase `index`, 0 <= index < weft_plan_info.phases. @since 0.2 */
WEFT_API weft_status weft_plan_phase(const weft_plan *plan, int32_t index, weft_phase_info *info,
                                     weft_error *err);

/** What one call does, of a sealed plan. */
typedef struct weft_call_info {
    uint32_t struct_size;
    int32_t  phase;
    int32_t  branches;     /* predictions that are combined                  */
    int32_t  evaluations;  /* network evaluations, guidance not counted      */
    int32_t  reused;       /* of those, that reuse deep features of the call before */
    int32_t  row;          /* of the phase's distinct rows; since 0.2        */
} weft_call_info;
#define WEFT_CALL_INFO_INIT { sizeof(weft_call_info), 0, 0, 0, 0, 0 }
/** The function twin of WEFT_CALL_INFO_INIT. @since 0.2 */
WEFT_API void weft_call_info_init(weft_call_info *info, size_t size);
/** Describe call `call`. @since 0.2 */
WEFT_API weft_status weft_plan_call(const weft_plan *plan, int32_t call, weft_call_info *info,
                                    weft_error *err);

/** What a coefficient is besides its number: bits. */
enum weft_cell_kind {
    WEFT_CELL_NUMBER = 0,
    WEFT_CELL_VECTOR = 1, /* times a vector over the columns of the adapter's difference */
    WEFT_CELL_MASK   = 2  /* times a mask over the image                                 */
};
typedef struct weft_cell {
    uint32_t struct_size;
    int32_t  kind;       /* WEFT_CELL_*      */
    float    number;     /* the coefficient  */
    int32_t  reserved0;  /* zero             */
} weft_cell;
#define WEFT_CELL_INIT { sizeof(weft_cell), 0, 0, 0 }
/** The function twin of WEFT_CELL_INIT. @since 0.2 */
WEFT_API void weft_cell_init(weft_cell *cell, size_t size);
/**
 * Read one cell of a sealed plan: the coefficient c of adapter `adapter` at `layer` in `branch` of
 * `call`. Zero if the adapter has nothing for the layer. For layers of a text encoder, call and
 * branch do not matter: the cell says what acts while a prompt is encoded.
 * @since 0.1
 */
WEFT_API weft_status weft_plan_cell(const weft_plan *plan, int32_t call, int32_t branch,
                                    int64_t layer, int32_t adapter, weft_cell *out,
                                    weft_error *err);
/**
 * Weight of a branch's prediction in the combination of a call, before it is divided by `*divisor`.
 * @since 0.1
 */
WEFT_API weft_status weft_plan_branch_weight(const weft_plan *plan, int32_t call, int32_t branch,
                                             float *weight, float *divisor, weft_error *err);

/** Does branch `branch` of a call reuse deep features (WEFT_COMPOSITE_CACHED)? @since 0.2 */
WEFT_API weft_status weft_plan_branch_reuses(const weft_plan *plan, int32_t call, int32_t branch,
                                             int32_t *reuses, weft_error *err);

/** Why a layer is computed the way it is. @since 0.2 */
enum weft_reason {
    WEFT_REASON_NONE     = 0,  /* no adapter acts                                                */
    WEFT_REASON_ASKED    = 1,  /* either way: weft_plan_options.path says so                     */
    WEFT_REASON_TEXT     = 2,  /* side: of a text encoder, which is computed once for an image   */
    WEFT_REASON_NORM     = 3,  /* side: a normalisation has no product that a copy could save    */
    WEFT_REASON_CHEAP    = 4,  /* side: the adapters' products are at most 1/8 of the layer's    */
    WEFT_REASON_CALLS    = 5,  /* side: coefficients change from call to call in this phase      */
    WEFT_REASON_BRANCHES = 6,  /* side: branches have coefficients of their own                  */
    WEFT_REASON_COLUMNS  = 7,  /* side: a coefficient is a vector over the columns               */
    WEFT_REASON_MASK     = 8,  /* side: a coefficient has a mask over the image                  */
    WEFT_REASON_WHOLE    = 9,  /* merged: a whole difference takes a copy's memory anyway        */
    WEFT_REASON_PRODUCTS = 10, /* merged: the adapters' products are over 1/8 of the layer's     */
    WEFT_REASON_DEPENDS  = 11  /* merged: adapters depend on the weight, and weft_plan_options.
                                  mixed is not DELTA                                             */
};
/** What a phase does to a layer. Texts are static. @since 0.2 */
typedef struct weft_layer_use {
    uint32_t    struct_size;
    int32_t     path;     /* WEFT_PATH_SIDE or _MERGED; AUTO, 0: no adapter acts               */
    int32_t     reason;   /* WEFT_REASON_*                                                     */
    int32_t     parts;    /* modules of adapters that act in some call                         */
    int32_t     rank;     /* sum of the ranks of those that are low-rank pairs                 */
    int32_t     reserved0;
    double      work;     /* multiplications on the side path over those of the layer itself   */
    int64_t     bytes;    /* of the stacked factors, or of the merged copy                     */
    const char *words;    /* the reason as a person reads it                                   */
} weft_layer_use;
#define WEFT_LAYER_USE_INIT { sizeof(weft_layer_use), 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_LAYER_USE_INIT. @since 0.2 */
WEFT_API void weft_layer_use_init(weft_layer_use *use, size_t size);
/**
 * Say which of the two exact ways layer `layer` takes in phase `phase` of a sealed plan, and why.
 * For a layer of a text encoder the phase does not matter. @since 0.2
 */
WEFT_API weft_status weft_plan_layer(const weft_plan *plan, int32_t phase, int64_t layer,
                                     weft_layer_use *use, weft_error *err);

/**
 * How much of each adapter acts at each call of a sealed plan, in the denoiser, 1 being the whole
 * adapter at weight 1 at every selected layer:
 *
 *     strength = sum over branches b of q_b sqrt(sum over layers l of (c_l m |Delta_l|_F)^2)
 *                / sqrt(sum over layers l of |Delta_l|_F^2)
 *
 * c_l is the cell, |Delta_l|_F the Frobenius norm of what the adapter adds at weight 1 with its
 * file's scale (times its column coefficients, where the cell has them), m the mean of its mask and
 * q_b the branch's share of the call's result. Under blend m stands for q_b; under LoRAtorio and
 * sub-bands, which decide while they run, q_b is the share that was asked for. Reads every
 * adapter's weights once for each phase; the plan's progress callback may stop it.
 *
 * @param strength  (calls, adapters), written; signs do not show
 * @param norm      (adapters), written: the root below the line; NULL: not wanted
 * @return WEFT_E_STATE (not sealed), WEFT_E_ARG (a length), WEFT_E_CANCELLED, WEFT_E_NOMEM
 * @since 0.2
 */
WEFT_API weft_status weft_plan_strengths(const weft_plan *plan, double *strength,
                                         size_t strength_len, double *norm, size_t norm_len,
                                         weft_error *err);

/**
 * Read the mask of an adapter; its values belong to the plan. Height 0: it has none. @since 0.2
 */
WEFT_API weft_status weft_plan_mask(const weft_plan *plan, int32_t adapter, weft_mask *mask,
                                    weft_error *err);
/**
 * Read region `index`. `mask`, which region->mask then points to, is filled in with the region's
 * own mask or its adapter's; the values belong to the plan. WEFT_E_ARG if there is no such region.
 * @since 0.2
 */
WEFT_API weft_status weft_plan_region(const weft_plan *plan, int32_t index, weft_region *region,
                                      weft_mask *mask, weft_error *err);
/**
 * Read the factors by which weft_plan_set_blocks() multiplies the weight of an adapter.
 *
 * @param factors  (layers of the model), written: 1 where nothing was set
 * @return WEFT_E_ARG (no such adapter, a length)
 * @since 0.2
 */
WEFT_API weft_status weft_plan_blocks(const weft_plan *plan, int32_t adapter, float *factors,
                                      size_t factors_len, weft_error *err);

/**
 * Explain a sealed plan in words: method, adapters, evaluations, bytes, and the table with runs of equal
 * rows and equal calls folded.
 *
 * @param buf     may be NULL when cap is 0
 * @param needed  bytes of the whole text with its NUL; may be NULL
 * @return WEFT_OK also when the text was cut at cap
 * @since 0.1
 */
WEFT_API weft_status weft_plan_text(const weft_plan *plan, char *buf, size_t cap, size_t *needed,
                                    weft_error *err);

#ifdef __cplusplus
}
#endif
#endif
