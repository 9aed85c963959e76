/* train.h - a model learns: adapters, words and whole networks, from pictures and captions.
 *
 * A trainer holds a model, a recipe, pictures, and the state of the training. The caller drives it
 * step by step, looks at the loss, draws with what is there so far, writes checkpoints, and saves
 * what was learnt as files that every other part of weft, and diffusers, reads. The model's own files
 * are never changed.
 *
 * A step draws noise e and a time t for each picture's latents x, and goes down the gradient of
 *
 *     mean of w(t) |target - network(noisy x, t, text)|^2,   target e, or v where the model predicts v
 *
 * All is computed in float32, whatever the model's arithmetic. The same options, pictures and seed
 * give the same bits for any number of threads, and with a break (a checkpoint, and a new trainer
 * that resumes from it) or without. */
#ifndef WEFT_TRAIN_H
#define WEFT_TRAIN_H

#include "adapter.h"
#include "base.h"
#include "concept.h"
#include "model.h"
#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A training. One thread at a time. */
typedef struct weft_trainer weft_trainer;

/**
 * What is trained, and how.
 *
 *   LORA               pairs A, B beside linear layers (and convolutions): Hu et al. (2021)
 *   DORA               pairs and each row's length: Liu et al. (2024)
 *   LOHA, LOKR         Hadamard and Kronecker products: Hyeon-Woo et al. (2022), Yeh et al. (2024)
 *   MOSLORA            pairs with a mixer between: Wu et al. (2024)
 *   FULL               every weight of the denoiser (DreamBooth, if there are class pictures: Ruiz
 *                      et al. (2023); LORA with class pictures is DreamBooth as LoRA)
 *   TEXTUAL_INVERSION  the vectors of a new word: Gal et al. (2022)
 *   CUSTOM_DIFFUSION   keys and values of the cross-attentions, and a word: Kumari et al. (2023)
 *   BLORA              pairs of two blocks, which take content and style of one picture apart:
 *                      Frenkel et al. (2024)
 *   ED_LORA            two words with vectors for each cross-attention, and pairs: Gu et al. (2023)
 *   ZIPLORA            coefficients for the columns of two adapters: Shah et al. (2023)
 */
enum weft_recipe {
    WEFT_RECIPE_LORA              = 1,
    WEFT_RECIPE_DORA              = 2,
    WEFT_RECIPE_LOHA              = 3,
    WEFT_RECIPE_LOKR              = 4,
    WEFT_RECIPE_MOSLORA           = 5,
    WEFT_RECIPE_FULL              = 6,
    WEFT_RECIPE_TEXTUAL_INVERSION = 7,
    WEFT_RECIPE_CUSTOM_DIFFUSION  = 8,
    WEFT_RECIPE_BLORA             = 9,
    WEFT_RECIPE_ED_LORA           = 10,
    WEFT_RECIPE_ZIPLORA           = 11
};

/** The recipe of a name ("lora", "textual-inversion", ..), or 0. @since 0.2 */
WEFT_API int32_t weft_recipe_from_name(const char *name);
/** The name of a recipe, or NULL. @since 0.2 */
WEFT_API const char *weft_recipe_name(int32_t recipe);

enum weft_train_flag {
    WEFT_TRAIN_TEXT        = 1u << 0,  /**< the text encoders' layers too; ED_LORA has it always   */
    WEFT_TRAIN_CONV        = 1u << 1,  /**< convolutions of the resnets too                        */
    WEFT_TRAIN_FEED        = 1u << 2,  /**< feed-forward layers and projections too                */
    WEFT_TRAIN_RECOMPUTE   = 1u << 3,  /**< compute each block twice and keep less: gradient
                                            checkpointing, Chen et al. (2016). The same bits       */
    WEFT_TRAIN_FLIP        = 1u << 4,  /**< mirror half of the pictures                            */
    WEFT_TRAIN_RANDOM_CROP = 1u << 5,  /**< crop anywhere, else in the centre                      */
    WEFT_TRAIN_SMALL       = 1u << 6,  /**< enlarge pictures that are smaller than the resolution  */
    WEFT_TRAIN_EXACT_NORM  = 1u << 7,  /**< DORA: the gradient of the row lengths too, which the
                                            paper and PEFT leave out                               */
    WEFT_TRAIN_ZIP_CODE    = 1u << 8,  /**< ZIPLORA: losses as in the known re-implementation      */
    WEFT_TRAIN_CROSS       = 1u << 9,  /**< CUSTOM_DIFFUSION: queries and outputs too              */
    WEFT_TRAIN_RESIZE      = 1u << 10, /**< CUSTOM_DIFFUSION: its changes of size, with a mask     */
    WEFT_TRAIN_BOTH        = 1u << 11  /**< LOKR: the first factor as a product too, if it is large
                                            beside the rank; else only the second                  */
};

enum weft_optimiser {
    WEFT_OPTIMISER_ADAMW = 1, /**< Loshchilov and Hutter, Decoupled Weight Decay (2019)            */
    WEFT_OPTIMISER_SGD   = 2  /**< beta1 is the momentum                                           */
};

enum weft_rates {
    WEFT_RATES_CONSTANT = 1, /**< after `warmup` steps                                             */
    WEFT_RATES_COSINE   = 2, /**< down to 0 at `steps`                                             */
    WEFT_RATES_LINEAR   = 3  /**< likewise                                                         */
};

/** Zero means the recipe's own number everywhere; below zero means none where 0 would be a choice. */
typedef struct weft_train_options {
    uint32_t              struct_size;
    uint32_t              flags;       /* WEFT_TRAIN_*                                             */
    const weft_allocator *allocator;   /* NULL: malloc; copied                                     */
    weft_log_fn           log;         /* may be NULL                                              */
    void                 *log_user;
    weft_progress_fn      progress;    /* while pictures are encoded and steps run; may be NULL;
                                          nonzero cancels                                          */
    void                 *progress_user;
    const char           *modules;     /* layers to train, patterns of their names, separated by
                                          commas, without TEXT, CONV, FEED; NULL: the recipe's
                                          choice and these flags                                   */
    const char           *tokens;      /* words to learn, separated by commas: "<new1>"; of the
                                          recipes that learn words                                 */
    const char           *initial;     /* words that they begin as, one for each, likewise: of one
                                          token, or of as many as `vectors`; an empty one, and
                                          NULL: random numbers as large as the vocabulary's, but
                                          rare words of CLIP's for CUSTOM_DIFFUSION                */
    const char           *name;        /* of what is saved; NULL: the recipe's                     */
    weft_adapter         *content;     /* ZIPLORA                                                  */
    weft_adapter         *style;       /* ZIPLORA                                                  */
    uint64_t              seed;
    double                rate;        /* of pairs and weights                                     */
    double                text_rate;   /* of the text encoders' layers; 0: as `rate`               */
    double                token_rate;  /* of words                                                 */
    double                beta1;
    double                beta2;       /* of ADAMW                                                 */
    double                epsilon;     /* likewise                                                 */
    double                weight_decay; /* below 0: none                                           */
    double                clip;        /* largest norm of all gradients; 0: 1; below 0: none       */
    double                alpha;       /* of pairs; 0: the rank                                    */
    double                noise_offset; /* 0: none                                                 */
    double                min_snr;     /* gamma of Hang et al. (2023); 0: none                     */
    double                prior_weight; /* of class pictures' loss; 0: 1                           */
    double                dropout;     /* share of instance captions left empty; 0: none           */
    double                ema;         /* FULL: decay of the mean of the weights; 0: none          */
    double                similarity;  /* ZIPLORA: weight of the third term; 0: 0.01               */
    int32_t               recipe;      /* WEFT_RECIPE_*                                            */
    int32_t               steps;       /* for the rates; training may go on                        */
    int32_t               batch;       /* pictures in an evaluation; with class pictures, as many
                                          of them besides                                          */
    int32_t               accumulate;  /* evaluations in a step                                    */
    int32_t               rank;        /* of pairs                                                 */
    int32_t               factor;      /* LOKR                                                     */
    int32_t               vectors;     /* of a word                                                */
    int32_t               optimiser;   /* WEFT_OPTIMISER_*                                         */
    int32_t               rates;       /* WEFT_RATES_*                                             */
    int32_t               warmup;      /* steps that the rate rises in, from 0 at the first        */
    int32_t               width;       /* of the pictures; 0: the model's                          */
    int32_t               height;
    int32_t               threads;     /* 0: one for each core                                     */
    int32_t               reserved0;
} weft_train_options;
#define WEFT_TRAIN_OPTIONS_INIT                                                                     \
    { sizeof(weft_train_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  \
      0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_TRAIN_OPTIONS_INIT. @since 0.2 */
WEFT_API void weft_train_options_init(weft_train_options *options, size_t size);

/**
 * Start a training on a model, which it keeps alive. Pictures are added next.
 *
 * @return WEFT_E_ARG          a number out of its range, an option of another recipe, no layer that
 *                             `modules` names
 *         WEFT_E_STATE        the model has no VAE or no tokenizer
 *         WEFT_E_UNSUPPORTED  the model is of a base that the recipe cannot train
 *         WEFT_E_NOMEM
 * @since 0.2
 */
WEFT_API weft_status weft_trainer_create(weft_model *model, const weft_train_options *options,
                                         weft_trainer **out, weft_error *err);
/** Let go of a trainer; NULL is fine. @since 0.2 */
WEFT_API void weft_trainer_free(weft_trainer *trainer);

/** What a picture is there for. */
enum weft_picture {
    WEFT_PICTURE_INSTANCE = 1, /**< to learn from; of ZIPLORA the content                          */
    WEFT_PICTURE_CLASS    = 2, /**< what must stay as it is: prior preservation; of ZIPLORA the
                                    style                                                          */
};

/**
 * Add a picture from memory. All pictures are added before the first step.
 *
 * @param rgb      (height, width, 3), read and copied
 * @param caption  UTF-8. Of recipes that learn words it has one of them, or {} in their place;
 *                 {object} and {style} stand for sentences with the words, drawn for each sample
 * @param kind     WEFT_PICTURE_*
 * @return WEFT_E_ARG (smaller than the resolution), WEFT_E_FORMAT (a caption that is not UTF-8),
 *         WEFT_E_UNSUPPORTED (a side above 16384), WEFT_E_STATE (after the first step),
 *         WEFT_E_NOMEM
 * @since 0.2
 */
WEFT_API weft_status weft_trainer_add_picture(weft_trainer *trainer, const uint8_t *rgb,
                                              size_t rgb_len, int32_t width, int32_t height,
                                              const char *caption, int32_t kind, weft_error *err);
/**
 * Add all PNG and JPEG files of a folder, in the order of their names. The caption is the text of
 * the file of the same name with the ending .txt, or `prompt`.
 *
 * @param prompt  for pictures without a .txt; may be NULL: then each must have one
 * @return WEFT_E_IO, WEFT_E_FORMAT (no picture; one that is broken; a caption that is not one line
 *         of UTF-8), WEFT_E_ARG (a picture smaller than the resolution, or without a caption),
 *         WEFT_E_UNSUPPORTED (a side above 16384), WEFT_E_STATE, WEFT_E_NOMEM: the text names the
 *         file. Nothing is added on failure
 * @since 0.2
 */
WEFT_API weft_status weft_trainer_add_folder(weft_trainer *trainer, const char *folder,
                                             const char *prompt, int32_t kind, weft_error *err);

/** What a trainer holds. */
typedef struct weft_trainer_info {
    uint32_t struct_size;
    uint32_t flags;        /* as given                                                             */
    int64_t  parameters;   /* numbers that are trained                                             */
    int64_t  step;         /* steps done                                                           */
    uint64_t state_bytes;  /* of parameters, gradients, moments and means                          */
    uint64_t step_bytes;   /* that a step takes for activations and their gradients; 0 before it is
                              known: weft_trainer_prepare()                                        */
    uint64_t weight_bytes; /* of copies of the model's weights                                     */
    uint64_t cache_bytes;  /* of latents and text states that are kept                             */
    int32_t  recipe;
    int32_t  layers;       /* that are trained                                                     */
    int32_t  pictures;
    int32_t  class_pictures;
} weft_trainer_info;
#define WEFT_TRAINER_INFO_INIT { sizeof(weft_trainer_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_TRAINER_INFO_INIT. @since 0.2 */
WEFT_API void weft_trainer_info_init(weft_trainer_info *info, size_t size);
/** @since 0.2 */
WEFT_API weft_status weft_trainer_get_info(const weft_trainer *trainer, weft_trainer_info *info,
                                           weft_error *err);
/** The options with all defaults filled in, as metadata has them. Strings belong to the trainer.
 *  @since 0.2 */
WEFT_API weft_status weft_trainer_get_options(const weft_trainer *trainer,
                                              weft_train_options *options, weft_error *err);

/**
 * Encode pictures and captions and take all memory, so that the first step is as the others. The
 * first step does it if nobody did.
 *
 * @return WEFT_E_STATE (no pictures), WEFT_E_MISMATCH (others than the checkpoint's),
 *         WEFT_E_FORMAT (a caption without the words to be learnt), WEFT_E_CANCELLED, WEFT_E_NOMEM
 *         and as encoding
 * @since 0.2
 */
WEFT_API weft_status weft_trainer_prepare(weft_trainer *trainer, weft_error *err);

/** What a step did. */
typedef struct weft_train_step {
    uint32_t struct_size;
    uint32_t flags;         /* zero                                                                */
    int64_t  step;          /* steps done, with this one                                           */
    double   loss;          /* all that was minimised, the mean over the step's evaluations        */
    double   prior_loss;    /* of it: class pictures, unweighted                                   */
    double   other_loss;    /* of it: ZIPLORA's third term, unweighted                             */
    double   gradient_norm; /* before it was clipped                                               */
    double   rate;          /* of this step: of pairs and weights, or where only words are learnt,
                               of these                                                            */
} weft_train_step;
#define WEFT_TRAIN_STEP_INIT { sizeof(weft_train_step), 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_TRAIN_STEP_INIT. @since 0.2 */
WEFT_API void weft_train_step_init(weft_train_step *step, size_t size);
/**
 * One step. After a failure nothing has changed: a cancelled step can be taken again.
 *
 * @return WEFT_E_CANCELLED; WEFT_E_NOT_FINITE (the loss or a gradient is not finite: the step was
 *         not taken); as weft_trainer_prepare()
 * @since 0.2
 */
WEFT_API weft_status weft_trainer_step(weft_trainer *trainer, weft_train_step *step,
                                       weft_error *err);

/**
 * Write everything that a training needs to go on into one safetensors file, which appears whole
 * or not at all: what is trained, moments, the mean of the weights, the step, the options.
 *
 * @return WEFT_E_IO, WEFT_E_NOT_FINITE (a number that no step can go on from: the file that was there
 *         stays), WEFT_E_NOMEM
 * @since 0.2
 */
WEFT_API weft_status weft_trainer_checkpoint(weft_trainer *trainer, const char *path,
                                             weft_error *err);
/**
 * Go on from a checkpoint: the trainer was created with the same options on the same model. The next
 * steps have the bits that they would have had without the break. `threads` and RECOMPUTE may differ,
 * and under a constant rate `steps`.
 *
 * @return WEFT_E_IO, WEFT_E_FORMAT, WEFT_E_MISMATCH (another model, VAE, recipe or option, other
 *         pictures; the text says which), WEFT_E_NOMEM. The trainer is unchanged on failure
 * @since 0.2
 */
WEFT_API weft_status weft_trainer_resume(weft_trainer *trainer, const char *path, weft_error *err);

/**
 * What was learnt so far, for a plan. WEFT_E_UNSUPPORTED where the recipe learns none of that kind:
 * words give no adapter, pairs no concept. FULL gives an adapter of whole differences.
 *
 * @since 0.2
 */
WEFT_API weft_status weft_trainer_adapter(weft_trainer *trainer, weft_adapter **out,
                                          weft_error *err);
/** The words that were learnt so far, with the adapter that was learnt beside them. @since 0.2 */
WEFT_API weft_status weft_trainer_concept(weft_trainer *trainer, weft_concept **out,
                                          weft_error *err);

/**
 * Save what was learnt, with metadata (base, rank, alpha, trigger words, recipe, seed, steps).
 *
 * @param path     a file ending in .safetensors, or a folder for WEFT_DIALECT_PEFT; words go into
 *                 the same file where the format has a place for them, else beside it
 * @param dialect  WEFT_DIALECT_DIFFUSERS, _KOHYA, _PEFT; 0: diffusers' names, and kohya's of LOHA,
 *                 LOKR and FULL, for which diffusers has none. CUSTOM_DIFFUSION,
 *                 TEXTUAL_INVERSION and ED_LORA have formats of their own: 0; ZIPLORA too, the
 *                 coefficients that weft_plan_zip() takes, and with a dialect the merged pairs
 * @param half     1: in float16, 0: in float32
 *
 * FULL saves differences to a path that ends in .safetensors; any other is a folder, not there yet,
 * for the whole model in its own types: dialect and half are 0.
 *
 * @return WEFT_E_ARG, WEFT_E_UNSUPPORTED (the dialect has no form for it, float16 no room for a
 *         number), WEFT_E_IO, WEFT_E_NOMEM
 * @since 0.2
 */
WEFT_API weft_status weft_trainer_save(weft_trainer *trainer, const char *path, int32_t dialect,
                                       int32_t half, weft_error *err);

#ifdef __cplusplus
}
#endif
#endif
