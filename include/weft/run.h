/* run.h - run a sealed plan: encode a prompt, predict one step, decode latents, encode an image.
 *
 * A run owns threads, scratch memory and the cancel flag; everything else it shares. One thread at
 * a time may use a run (only weft_run_cancel() may be called from any); any number of runs may
 * share a plan.
 *
 * A *step* is a sampler's step; a *call* is one weft_run_step(). A step of most samplers takes one
 * call, some take several. weft_run_step() allocates nothing, and gives the same bits for any
 * number of threads, any batch, and however guidance is batched. Only under weft_plan_align() does
 * a sample depend on others of its batch: it says on which.
 *
 * Letters in shapes: n samples of the run's batch, c latent channels, h and w of the latents, T
 * tokens. Every length counts floats. weft_run_info_get() and weft_run_text() tell them. */
#ifndef WEFT_RUN_H
#define WEFT_RUN_H

#include "base.h"
#include "plan.h"
#include "text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weft_run weft_run;

enum weft_run_flag {
    /** What every run does unless WEFT_RUN_FORGET_TEXT says otherwise: asking for it changes
     * nothing. */
    WEFT_RUN_KEEP_TEXT = 1u << 0,
    /**
     * Do not look whether what is computed is finite. Without it a step, an encode or a decode
     * whose result is infinite or no number returns WEFT_E_NOT_FINITE, with the layer where that
     * began; the look costs less than 0.1 % of the call. @since 0.2
     */
    WEFT_RUN_UNCHECKED = 1u << 1,
    /**
     * Compute every call that reuses features (WEFT_COMPOSITE_CACHED) in full as well, and keep the
     * largest difference: weft_run_info.reuse_error. @since 0.2
     */
    WEFT_RUN_MEASURE   = 1u << 2,
    /**
     * Take down what acts in each call, for weft_run_trace(). Costs memory (for each evaluation of
     * a call a byte for each layer of the model and five for each adapter at each layer) and next
     * to no time. The bits are the same. @since 0.2
     */
    WEFT_RUN_TRACE     = 1u << 3,
    /**
     * Do not keep the keys and values that cross-attentions make of the text from one call to the
     * next. They depend on the text and on the adapters' coefficients, and are made again when
     * these change. Keeping them costs memory and saves 0.4 to 2 % of a call: for every 77 of
     * text_tokens 8 MB a sample with SD1.5, 51 MB with SDXL, and guidance doubles the samples. The bits are the same. Nothing is kept where a text has
     * rows for each cross-attention layer, or under a plan with reused features.
     * @since 0.2
     */
    WEFT_RUN_FORGET_TEXT = 1u << 4
};

typedef struct weft_run_options {
    uint32_t              struct_size;
    uint32_t              flags;     /* WEFT_RUN_* */
    const weft_allocator *allocator; /* NULL: malloc; copied */
    weft_log_fn           log;       /* may be NULL */
    void                 *log_user;
    weft_progress_fn      progress; /* inside long calls: layers done of all; may be NULL */
    void                 *progress_user;
    int32_t               threads;     /* with the caller's, at most 128; 0: one for each core */
    int32_t               batch;       /* samples of a call; 0: 1 */
    int32_t               height;      /* of the latents; 0: the size the model was trained at */
    int32_t               width;       /* of the latents; 0: the size the model was trained at */
    int32_t               text_tokens; /* most tokens of a sequence; 0: four chunks */
    int32_t               tile;        /* the VAE works in overlapping tiles of this many latent
                                          pixels, so that memory does not grow with the image; 0:
                                          on whole images */
} weft_run_options;
#define WEFT_RUN_OPTIONS_INIT { sizeof(weft_run_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_RUN_OPTIONS_INIT. @since 0.1 */
WEFT_API void weft_run_options_init(weft_run_options *options, size_t size);

/**
 * Create a run on a sealed plan: takes all scratch memory, makes merged copies, starts the threads,
 * and sees to it that OpenBLAS has a work area of 128 MiB of addresses for each of them.
 * All runs of a process together have at most 384 threads of their own, besides those that call.
 *
 * @return WEFT_E_STATE (plan not sealed, or other runs have too many threads),
 *         WEFT_E_ARG (a size the networks cannot take), WEFT_E_NOMEM, WEFT_E_IO (a thread does not
 *         start)
 * @since 0.1
 */
WEFT_API weft_status weft_run_create(weft_plan *plan, const weft_run_options *options,
                                     weft_run **out, weft_error *err);
/** Stop the threads and release everything. @since 0.1 */
WEFT_API void weft_run_free(weft_run *run);
/**
 * Bytes that weft_run_create() would take for a run with these options, besides threads, handle and
 * OpenBLAS's work areas.
 * @since 0.1
 */
WEFT_API weft_status weft_run_bytes(const weft_plan *plan, const weft_run_options *options,
                                    uint64_t *bytes, weft_error *err);
/**
 * Move a run to another sealed plan of the same model, between steps; on failure it stays on its
 * plan. Takes the memory that the new plan needs. WEFT_E_MISMATCH for a plan of another model.
 * @since 0.1
 */
WEFT_API weft_status weft_run_set_plan(weft_run *run, weft_plan *plan, weft_error *err);

typedef struct weft_run_info {
    uint32_t struct_size;
    int32_t  threads;
    uint64_t bytes;        /* scratch and merged copies                                        */
    double   step_flops;   /* of one guided call, multiply and add counted as two              */
    double   side_flops;   /* and beside them the adapters' low-rank products, at most         */
    double   decode_flops; /* of decoding one batch                                            */
    size_t   latent_len;   /* floats of latents for weft_run_step(), decode and encode_image   */
    size_t   extra_len;    /* of weft_step.extra; 0: the model reads none                      */
    size_t   image_len;    /* of images for decode and encode_image; 0: no VAE                 */
    int32_t  branches;
    int32_t  batch;
    int32_t  height;       /* of the latents                                                   */
    int32_t  width;
    int32_t  text_tokens;  /* most tokens of a sequence                                        */
    int32_t  text_streams; /* entries of weft_step.text                                        */
    double   reuse_error;  /* WEFT_RUN_MEASURE: most that reused features changed in a call's result
                              since the run has its plan, max|difference| / max|full result| */
    uint64_t scratch_bytes; /* of `bytes`: what calls use one after the other, and between them
                               nothing lives in                                                */
    uint64_t copy_bytes;    /* of `bytes`: merged copies                                       */
    uint64_t kept_bytes;    /* of `bytes`: keys and values of the text                         */
    uint64_t step_bytes;    /* of the scratch: what a call of weft_run_step() needs            */
    uint64_t encode_bytes;  /* ..., a prompt as long as the run takes; 0: no text encoder      */
    uint64_t decode_bytes;  /* ..., decoding; 0: no VAE                                        */
    uint64_t encode_image_bytes; /* ..., encoding an image; 0: no VAE                          */
} weft_run_info;
#define WEFT_RUN_INFO_INIT \
    { sizeof(weft_run_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_RUN_INFO_INIT. @since 0.1 */
WEFT_API void weft_run_info_init(weft_run_info *info, size_t size);
/** Describe a run. @since 0.1 */
WEFT_API weft_status weft_run_info_get(const weft_run *run, weft_run_info *info, weft_error *err);
/**
 * What weft_run_info_get() would say of a run with these options, before it is made: nothing is
 * taken and nothing computed, but for the lists that the walk through the networks needs.
 * @since 0.2
 */
WEFT_API weft_status weft_run_measure(const weft_plan *plan, const weft_run_options *options,
                                      weft_run_info *info, weft_error *err);
/**
 * Fill in `text->tokens` and `text->len` for one stream and a prompt of `chunks` chunks, as
 * weft_plan_prompt_size() counts them. If text->cross_layers is set, `len` has room for rows for
 * each of them. The rest is left as it is: the caller takes `len` floats and sets `data`.
 *
 * @return WEFT_E_ARG  no such stream, chunks below 1 or more than the run has room for, or
 *                     cross_layers is not the stream's
 * @since 0.2
 */
WEFT_API weft_status weft_run_text(const weft_run *run, int32_t stream, int32_t chunks,
                                   weft_text *text, weft_error *err);

/**
 * Ask the call that is in progress, or else the next one, to stop: it returns WEFT_E_CANCELLED,
 * once. Safe from any thread, from callbacks and from signal handlers.
 * @since 0.1
 */
WEFT_API void weft_run_cancel(weft_run *run);

enum weft_encode_flag {
    /**
     * Only one chunk; further tokens are dropped and counted in `dropped`, as in most other tools.
     */
    WEFT_ENCODE_TRUNCATE = 1u << 0,
    /** Only adapter number `adapter` acts on the text encoders, whatever the plan says. */
    WEFT_ENCODE_ADAPTER  = 1u << 1,
    /**
     * The prompt has weights: (word:1.3) times 1.3, (word) times 1.1, [word] times 1/1.1, \\( a
     * bracket; BREAK ends a chunk. The mean of the embeddings is restored after weighting, as in
     * A1111.
     */
    WEFT_ENCODE_WEIGHTS  = 1u << 2,
    /** With WEIGHTS: do not restore the mean. */
    WEFT_ENCODE_NO_MEAN  = 1u << 3,
    /** With WEIGHTS: weigh the distance from the empty prompt, z_empty + w (z - z_empty), as compel
       does. The mean is then left as it comes out. */
    WEFT_ENCODE_FROM_EMPTY = 1u << 4,
    /** When a chunk is full, move what follows its last comma, at most 20 tokens, into the next, as
       A1111 does. No effect with TRUNCATE, which leaves no next chunk. */
    WEFT_ENCODE_COMMA    = 1u << 5
};

/** A prompt to encode; inputs first, then what the call fills in. */
typedef struct weft_encode {
    uint32_t         struct_size;
    uint32_t         flags;         /* WEFT_ENCODE_* */
    const char      *prompt;        /* may be "" */
    const weft_text *text;          /* [text_count] where the streams go; `data` of each is
                                       written */
    size_t           text_count;    /* weft_model_info.text_streams */
    int32_t          adapter;       /* for WEFT_ENCODE_ADAPTER */
    int32_t          clip_skip;     /* more layers of the text encoders to leave out at the end;
                                       0: none */
    int32_t          prompt_tokens; /* out: tokens of the prompt, without BOS and EOS */
    int32_t          dropped;       /* out: of those, how many were dropped */
    uint64_t         stamp;         /* out: stands for all that made this: encoders, text
                                       weights, placeholder tokens */
} weft_encode;
#define WEFT_ENCODE_INIT { sizeof(weft_encode), 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_ENCODE_INIT. @since 0.1 */
WEFT_API void weft_encode_init(weft_encode *encode, size_t size);

/**
 * Encode a prompt with the plan's adapters acting on the text encoders.
 *
 * CLIP encodes in chunks of 77 tokens: BOS, up to 75 tokens of the prompt, EOS, padding. `tokens`
 * of a sequence says how many chunks it has room for; all are written, one after the other, and
 * unused ones encode the empty text. A pooled vector is that of the first chunk. A prompt that
 * needs more chunks fails with a text that says how many; weft_plan_prompt_size() tells beforehand.
 * A placeholder token of the plan stands for its vectors; one with a vector for each
 * cross-attention layer needs weft_text.cross_layers. What other programs act on and is read as
 * words here (<lora:name:0.8>, embedding:name, a <token> that the plan does not have, weights
 * without WEFT_ENCODE_WEIGHTS) is logged as a warning.
 *
 * @return WEFT_E_STATE (the model has no tokenizer), WEFT_E_ARG, WEFT_E_CANCELLED,
 *         WEFT_E_NOT_FINITE; the streams are then unspecified
 * @since 0.1
 */
WEFT_API weft_status weft_run_encode(weft_run *run, weft_encode *encode, weft_error *err);

/**
 * Encode token ids as they are, for a caller with a tokenizer of its own; `encode->prompt` is not
 * read.
 *
 * @param ids  [ids_count] one entry for each text encoder of the model, in any order, each with as
 *             many chunks as the sequences have room for
 * @since 0.1
 */
WEFT_API weft_status weft_run_encode_ids(weft_run *run, const weft_ids *ids, size_t ids_count,
                                         weft_encode *encode, weft_error *err);

enum weft_step_flag {
    /** Evaluate the two halves of guidance one after the other: less scratch traffic, the same
     * bits. */
    WEFT_STEP_SPLIT_GUIDANCE  = 1u << 0,
    /** `text` and `negative` hold a block for each branch of the plan. */
    WEFT_STEP_TEXT_PER_BRANCH = 1u << 1
};

/**
 * One call. Text streams hold one block (see weft_text) for all samples, or n blocks, one for each
 * sample; with WEFT_STEP_TEXT_PER_BRANCH one for each branch, or n for each branch, branch by
 * branch.
 *
 * `out` may be the same buffer as `latent`: everything is read before anything is written. No other
 * two buffers may overlap if one of them is `out`.
 */
typedef struct weft_step {
    uint32_t         struct_size;
    uint32_t         flags;  /* WEFT_STEP_* */
    const float     *latent; /* (n, c, h, w), scaled as the sampler wants it; read */
    size_t           latent_len;
    const float     *extra; /* (n, input_channels - c, h, w), read after the latents: to inpaint
                               the mask, then the latents of the masked image; or NULL */
    size_t           extra_len;
    const weft_text *text;       /* [text_count] the conditional half */
    size_t           text_count; /* weft_model_info.text_streams */
    const weft_text *negative;   /* [negative_count] the unconditional half; NULL: no guidance */
    size_t           negative_count;
    const float     *time_ids; /* SDXL (6): original h, w, crop top, left, target h, w. Its
                                  refiner (5): the first four, aesthetic score. NULL: the run's
                                  own size, score 6 */
    size_t           time_ids_len;
    const float     *negative_time_ids; /* of the unconditional half; NULL: as time_ids, score
                                           2.5 */
    size_t           negative_time_ids_len;
    float           *out; /* (n, c, h, w), written: the guided prediction */
    size_t           out_len;
    uint64_t         stamp;            /* of the encode that made text and negative: refused if
                                          the plan encodes otherwise now; 0: not checked */
    float            timestep;         /* 0 .. 999, fractions allowed */
    float            guidance;         /* w in e_u + w (e_c - e_u). Without negative, or 0 < w <=
                                          1: e_c. With negative, 0 is refused */
    float            guidance_rescale; /* 0: none */
    float            guidance_embed;   /* the guidance scale as an input, for a
                                          guidance-distilled model
                                          (weft_model_info.guidance_embed); must be 0 for others */
    int32_t          call;             /* 0 .. calls - 1 of the plan */
    int32_t          reserved0;        /* zero */
    const weft_text *region_text;      /* [regions of the plan][text streams] the prompts of its
                                          regions; of each the sequence is read, for all samples
                                          or one for each, the same in every branch */
    size_t           region_text_count;
    const weft_text *region_negative;  /* of the unconditional half; NULL: `negative` for all */
    size_t           region_negative_count;
    const weft_text *image;            /* [image prompts of the plan] their rows, of all samples or
                                          one block for each, the same in every branch; tokens 0:
                                          as many as the plan has room for */
    size_t           image_count;
    const weft_text *image_negative;   /* of the unconditional half; with `negative`, needed */
    size_t           image_negative_count;
} weft_step;
#define WEFT_STEP_INIT \
    { sizeof(weft_step), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, \
      0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_STEP_INIT. @since 0.1 */
WEFT_API void weft_step_init(weft_step *step, size_t size);

/**
 * Predict the noise (or v, or the sample: whatever the model predicts) of one call, with the plan's
 * coefficients of `step->call`.
 *
 * Allocates nothing. Every buffer stays the caller's; no pointer is kept.
 *
 * @return WEFT_E_ARG        a length disagrees with the run's shape, a stream is missing,
 *                           `negative` is given and guidance is 0, call is past the plan's end, or
 *                           the prediction is not finite since a buffer of the caller's is not
 *         WEFT_E_NOT_FINITE the prediction is not finite; step->out is as it was
 *         WEFT_E_CANCELLED  asked to stop; step->out is unspecified, the run is still usable
 *         WEFT_E_STATE      in a child after fork, or the stamp is another
 * @since 0.1
 */
WEFT_API weft_status weft_run_step(weft_run *run, const weft_step *step, weft_error *err);

/* ---- where words are in the image -------------------------------------------------------------- */

/** One of the subjects that share an image. */
typedef struct weft_subject {
    uint32_t       struct_size; /* of an array: the first one's counts for all                 */
    uint32_t       flags;       /* zero                                                         */
    const int32_t *tokens;      /* [count] rows of the text, as weft_plan_find_words() tells    */
    size_t         count;
} weft_subject;
#define WEFT_SUBJECT_INIT { sizeof(weft_subject), 0, 0, 0 }
/** The function twin of WEFT_SUBJECT_INIT. @since 0.2 */
WEFT_API void weft_subject_init(weft_subject *subject, size_t size);

typedef struct weft_locate_options {
    uint32_t            struct_size;
    uint32_t            flags;         /* zero                                                  */
    const weft_subject *subjects;      /* [subject_count]; copied                               */
    size_t              subject_count; /* 2 to 64                                               */
    const char         *block;         /* the transformer block that is watched, by its name; NULL:
                                          SDXL's up_blocks.0.attentions.0.transformer_blocks.3, in
                                          other models the same place                            */
    float               share;         /* of the pixels, that make a subject's core; 0: 0.1      */
    float               temperature;   /* of the maps; 0: 1000                                   */
} weft_locate_options;
#define WEFT_LOCATE_OPTIONS_INIT { sizeof(weft_locate_options), 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_LOCATE_OPTIONS_INIT. @since 0.2 */
WEFT_API void weft_locate_options_init(weft_locate_options *options, size_t size);
/**
 * From the next call on note where in the image the subjects' words are seen: the conditional half
 * of branch 0, at one transformer block. Takes memory now; calls take none, and their results are
 * the same bits. What was noted before is lost. options NULL: stop.
 *
 * FreeFuse (arXiv 2510.23515): ten calls with all adapters, then weft_run_located() gives each
 * adapter a mask (weft_plan_set_mask() on a copy of the plan), and the image begins anew from the
 * same noise.
 *
 * @return WEFT_E_ARG, WEFT_E_MISMATCH (no such block), WEFT_E_UNSUPPORTED (a plan with regions, a
 *         model without such a block), WEFT_E_NOMEM
 * @since 0.2
 */
WEFT_API weft_status weft_run_locate(weft_run *run, const weft_locate_options *options,
                                     weft_error *err);
/** Height and width of what is located: the image's at the block. @since 0.2 */
WEFT_API weft_status weft_run_located_size(const weft_run *run, int32_t *height, int32_t *width,
                                           weft_error *err);
enum weft_located {
    WEFT_LOCATED_MAPS  = 0, /* of each subject, a softmax over the image                          */
    WEFT_LOCATED_MASKS = 1  /* of each subject 1 where it has the pixel, else 0: each pixel is one
                               subject's, and all have about as many                              */
};
/**
 * What was noted of one sample: of the last call that passed the block, if that came to its end,
 * under the plan that the run is on.
 *
 * @param kind    WEFT_LOCATED_*
 * @param values  (subjects, height, width), written
 * @return WEFT_E_STATE (nothing is noted), WEFT_E_ARG, WEFT_E_NOMEM
 * @since 0.2
 */
WEFT_API weft_status weft_run_located(const weft_run *run, int32_t sample, int32_t kind,
                                      float *values, size_t len, weft_error *err);

/** Bits of weft_run_costs()'s flags. @since 0.2 */
enum weft_costs_flag {
    /** Calls have both halves of guidance. */
    WEFT_COSTS_GUIDED = 1u << 0
};
/** What a call costs. @since 0.2 */
typedef struct weft_call_cost {
    uint32_t struct_size;   /* of an array: the first one's counts for all                       */
    int32_t  evaluations;   /* of the network, guidance not counted                              */
    int32_t  reused;        /* of those, through the outermost level alone                       */
    int32_t  samples;       /* evaluations * halves * batch                                      */
    double   flops;         /* of the network without adapters, multiply and add counted as two:
                               layers and attention                                              */
    double   side_flops;    /* and of what adapters have beside it                               */
    double   weight_bytes;  /* read of weights as they are stored, of merged copies and of factors,
                               once for each pass: evaluations that reuse features are a pass by
                               themselves                                                        */
    double   activation_bytes; /* read and written by layers, normalisations and attention       */
} weft_call_cost;
#define WEFT_CALL_COST_INIT { sizeof(weft_call_cost), 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_CALL_COST_INIT. @since 0.2 */
WEFT_API void weft_call_cost_init(weft_call_cost *cost, size_t size);
/**
 * What each call of a sealed plan would cost a run with these options, without running it: the
 * network is walked with the call's coefficients, and nothing is computed. Parts of adapters whose
 * coefficient is 0 in every branch do not count. Sequences of text have the most tokens that the
 * options allow. Calls are taken one after the other from the first, with the same texts: what is
 * kept of these (WEFT_RUN_FORGET_TEXT) is counted in the call that makes it. What WEFT_RUN_MEASURE
 * adds is not counted.
 *
 * @param flags  WEFT_COSTS_GUIDED
 * @param costs  [count] written
 * @param count  weft_plan_info.calls
 * @return WEFT_E_STATE (not sealed), WEFT_E_ARG, WEFT_E_NOMEM
 * @since 0.2
 */
WEFT_API weft_status weft_run_costs(const weft_plan *plan, const weft_run_options *options,
                                    uint32_t flags, weft_call_cost *costs, size_t count,
                                    weft_error *err);
/**
 * Explain a sealed plan as JSON: adapters, phases, what each call costs a run with these options
 * and how much of each adapter acts in it, which way each layer takes and why, and the table. docs/
 * explain.md has the fields; they keep their names, and new ones may come. Reads every adapter's
 * weights, as weft_plan_strengths() does.
 *
 * @param flags   WEFT_COSTS_GUIDED
 * @param buf     UTF-8; may be NULL when cap is 0
 * @param needed  bytes of the whole text with its NUL; may be NULL
 * @return WEFT_OK also when the text was cut at cap; as weft_run_costs() and weft_plan_strengths()
 * @since 0.2
 */
WEFT_API weft_status weft_explain_json(const weft_plan *plan, const weft_run_options *options,
                                       uint32_t flags, char *buf, size_t cap, size_t *needed,
                                       weft_error *err);

/** How a layer was computed: bits, since a layer may be computed for several texts. @since 0.2 */
enum weft_trace_way {
    WEFT_TRACE_SKIPPED = 0, /* not at all: deep features were reused              */
    WEFT_TRACE_BASE    = 1, /* without adapters                                   */
    WEFT_TRACE_SIDE    = 2, /* with the factors beside the weight                 */
    WEFT_TRACE_MERGED  = 4, /* from a merged copy                                 */
    WEFT_TRACE_KEPT    = 8  /* besides: its result was kept from an earlier call  */
};
/** One evaluation of a call that was taken. @since 0.2 */
typedef struct weft_trace {
    uint32_t struct_size;
    int32_t  done;           /* 0: the call was not taken, or failed, and the rest is 0           */
    int32_t  evaluations;    /* of the call                                                       */
    int32_t  base;           /* this one is the base model's, without adapters                    */
    int32_t  guided;         /* the call had both halves of guidance                              */
    int32_t  reused;         /* it took deep features from the call before                        */
    int32_t  layers;         /* of the denoiser that were computed                                */
    int32_t  side;           /* of those, with factors beside the weight                          */
    int32_t  merged;         /* from merged copies                                                */
    int32_t  kept;           /* results of an earlier call                                        */
    float    timestep;
    int32_t  reserved0;
    double   share;          /* what its prediction counted for in the conditional half: the mean
                                over the values of the weight that it had                         */
    double   negative_share; /* the same in the unconditional half                                */
} weft_trace;
#define WEFT_TRACE_INIT { sizeof(weft_trace), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_TRACE_INIT. @since 0.2 */
WEFT_API void weft_trace_init(weft_trace *trace, size_t size);
/**
 * What happened in evaluation `evaluation` of call `call`: branches in their order, then the base's
 * if the method asks for it. It was taken down while the call ran, the last time that it was taken
 * under this plan; weft_run_set_plan() begins anew.
 *
 * @return WEFT_E_STATE (created without WEFT_RUN_TRACE), WEFT_E_ARG
 * @since 0.2
 */
WEFT_API weft_status weft_run_trace(const weft_run *run, int32_t call, int32_t evaluation,
                                    weft_trace *out, weft_error *err);
/** What acted at a layer. @since 0.2 */
typedef struct weft_trace_cell {
    uint32_t struct_size;
    int32_t  way;    /* WEFT_TRACE_*, of the layer                                              */
    int32_t  kind;   /* WEFT_CELL_*                                                             */
    float    number; /* the coefficient that the adapter had; where a layer was computed for
                        several texts, the largest                                              */
} weft_trace_cell;
#define WEFT_TRACE_CELL_INIT { sizeof(weft_trace_cell), 0, 0, 0 }
/** The function twin of WEFT_TRACE_CELL_INIT. @since 0.2 */
WEFT_API void weft_trace_cell_init(weft_trace_cell *cell, size_t size);
/**
 * What acted of an adapter at a layer of the denoiser in an evaluation of a call. Of a plan without
 * adapters, adapter 0 tells the layer's way. Text encoders are not traced. As weft_run_trace().
 * @since 0.2
 */
WEFT_API weft_status weft_run_trace_cell(const weft_run *run, int32_t call, int32_t evaluation,
                                         int64_t layer, int32_t adapter, weft_trace_cell *out,
                                         weft_error *err);
/**
 * The whole trace as JSON; the fields are in docs/explain.md.
 *
 * @param buf     UTF-8; may be NULL when cap is 0
 * @param needed  bytes of the whole text with its NUL; may be NULL
 * @return WEFT_OK also when the text was cut at cap; WEFT_E_STATE, WEFT_E_NOMEM
 * @since 0.2
 */
WEFT_API weft_status weft_run_trace_json(const weft_run *run, char *buf, size_t cap, size_t *needed,
                                         weft_error *err);

/**
 * Decode latents to images.
 *
 * @param latent  (n, c, h, w), read, as they come out of the sampler
 * @param image   (n, 3, h * factor, w * factor), written, in 0..1
 * @return WEFT_E_STATE (the model has no VAE), WEFT_E_ARG (a length; latents that are not finite),
 *         WEFT_E_CANCELLED, WEFT_E_NOT_FINITE; the image is then unspecified
 * @since 0.1
 */
WEFT_API weft_status weft_run_decode(weft_run *run, const float *latent, size_t latent_len,
                                     float *image, size_t image_len, weft_error *err);

/**
 * Encode images to latents: where img2img and inpainting start.
 *
 * The encoder gives a distribution for each latent pixel: latent = (mean + noise * deviation) *
 * vae_scale.
 *
 * @param image   (n, 3, h * factor, w * factor), read, in 0..1
 * @param noise   (n, c, h, w), read; NULL takes the mean
 * @param latent  (n, c, h, w), written, as samplers take them
 * @return WEFT_E_STATE (the model has no VAE encoder), WEFT_E_ARG (a length; an image or noise that
 *         is not finite), WEFT_E_CANCELLED, WEFT_E_NOT_FINITE; the latents are then unspecified
 * @since 0.1
 */
WEFT_API weft_status weft_run_encode_image(weft_run *run, const float *image, size_t image_len,
                                           const float *noise, size_t noise_len, float *latent,
                                           size_t latent_len, weft_error *err);

#ifdef __cplusplus
}
#endif
#endif
