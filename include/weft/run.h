/* run.h - a sealed plan meets the networks: encode a prompt, predict one step, decode latents.
 *
 * A run owns threads, scratch memory and the cancel flag; everything else it shares. One thread at a
 * time may use a run (weft_run_cancel() apart); any number of runs may share a plan. A step allocates
 * nothing, and gives the same bits for any number of threads and however guidance is batched. */
#ifndef WEFT_RUN_H
#define WEFT_RUN_H

#include "base.h"
#include "plan.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct weft_run weft_run;

typedef struct weft_run_options {
    uint32_t              struct_size;
    uint32_t              flags;         /* zero                                                             */
    const weft_allocator *allocator;     /* NULL: malloc; copied                                             */
    weft_log_fn           log;           /* may be NULL                                                      */
    void                 *log_user;
    weft_progress_fn      progress;      /* inside long calls: layers done of all; may be NULL               */
    void                 *progress_user;
    int32_t               threads;       /* with the caller's, at most 128; 0: one for each core             */
    int32_t               batch;         /* latents in a call; 0: 1                                          */
    int32_t               height;        /* of the latents; 0: the size the model was trained at             */
    int32_t               width;         /* likewise                                                         */
    int32_t               text_tokens;   /* most tokens of a conditioning; 0: four chunks                    */
    int32_t               tile;          /* code pictures in overlapping tiles of this many latent pixels, so
                                            that memory does not grow with the picture; 0: whole pictures    */
} weft_run_options;
#define WEFT_RUN_OPTIONS_INIT { sizeof(weft_run_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_RUN_OPTIONS_INIT. @since 0.1 */
WEFT_API void weft_run_options_init(weft_run_options *options, size_t size);

/**
 * Create a run on a sealed plan: takes all scratch memory, makes merged copies, starts the threads.
 * All runs of a process together have at most 384 threads of their own, beside those that call them.
 *
 * @return WEFT_E_STATE (plan not sealed, or other runs have too many threads),
 *         WEFT_E_ARG (a size the networks cannot take), WEFT_E_NOMEM, WEFT_E_IO (a thread does not start)
 * @since 0.1
 */
WEFT_API weft_status weft_run_create(weft_plan *plan, const weft_run_options *options, weft_run **out,
                                     weft_error *err);
/** Stop the threads and release everything. @since 0.1 */
WEFT_API void weft_run_free(weft_run *run);
/** Bytes that weft_run_create() would take for a run with these options, besides threads and handle. @since 0.1 */
WEFT_API weft_status weft_run_bytes(const weft_plan *plan, const weft_run_options *options, uint64_t *bytes,
                                    weft_error *err);
/**
 * Move a run to another sealed plan of the same model, between steps; on failure it stays on its plan.
 * Takes the memory that the new plan needs. WEFT_E_MISMATCH for a plan of another model.
 * @since 0.1
 */
WEFT_API weft_status weft_run_set_plan(weft_run *run, weft_plan *plan, weft_error *err);

typedef struct weft_run_info {
    uint32_t struct_size;
    int32_t  threads;
    uint64_t bytes;        /* scratch and merged copies                                        */
    double   step_flops;   /* of one guided call, multiply and add counted as two              */
    double   side_flops;   /* of those, the adapters' low-rank products, at most               */
    double   decode_flops; /* of decoding one batch                                            */
    int32_t  branches;
    int32_t  reserved0;
} weft_run_info;
#define WEFT_RUN_INFO_INIT { sizeof(weft_run_info), 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_RUN_INFO_INIT. @since 0.1 */
WEFT_API void weft_run_info_init(weft_run_info *info, size_t size);
/** Describe a run. @since 0.1 */
WEFT_API weft_status weft_run_info_get(const weft_run *run, weft_run_info *info, weft_error *err);

/**
 * Ask the call that is in progress, or else the next one, to stop: it returns WEFT_E_CANCELLED, once.
 * Safe from any thread, from callbacks and from signal handlers.
 * @since 0.1
 */
WEFT_API void weft_run_cancel(weft_run *run);

enum weft_encode_flag {
    /** One chunk only; further tokens are dropped and counted in `dropped`, as most other tools do. */
    WEFT_ENCODE_TRUNCATE = 1u << 0,
    /** Only adapter number `adapter` acts on the text encoders, whatever the plan says. */
    WEFT_ENCODE_ADAPTER  = 1u << 1,
    /** The prompt weighs words: (word:1.3) times 1.3, (word) times 1.1, [word] times 1/1.1, \\( a bracket; BREAK ends
        a chunk. The mean of the conditioning is restored after weighting, as A1111 does. */
    WEFT_ENCODE_WEIGHTS  = 1u << 2,
    /** With WEIGHTS: do not restore the mean. */
    WEFT_ENCODE_NO_MEAN  = 1u << 3,
    /** With WEIGHTS: weigh the distance from the empty prompt, z_empty + w (z - z_empty), as compel does. No mean is
        restored then. */
    WEFT_ENCODE_FROM_EMPTY = 1u << 4,
    /** A chunk that is full moves what follows its last comma, at most 20 tokens, into the next, as A1111 does. Without
        effect where TRUNCATE leaves no next one. */
    WEFT_ENCODE_COMMA    = 1u << 5
};

/** A prompt to encode; inputs first, then what the call fills in. */
typedef struct weft_encode {
    uint32_t    struct_size;
    uint32_t    flags;       /* WEFT_ENCODE_*                                                              */
    const char *prompt;      /* may be ""                                                                  */
    float      *text;        /* (chunks * 77, d), written: the conditioning; (layers, chunks * 77, d) with `layers` */
    size_t      text_len;
    float      *pooled;      /* (pooled_dim), written; NULL where the model has none or it is not wanted   */
    size_t      pooled_len;
    int32_t     chunks;      /* chunks that `text` has room for; 0: 1. Unused ones encode the empty text   */
    int32_t     adapter;     /* for WEFT_ENCODE_ADAPTER                                                    */
    int32_t     tokens;      /* out: tokens of the prompt, without BOS and EOS                             */
    int32_t     dropped;     /* out: of those, how many were dropped                                       */
    int32_t     clip_skip;   /* layers left out at the end, besides those the model leaves out; 0: none    */
    int32_t     layers;      /* 0: one conditioning; else weft_model_info.text_layers: one for each cross-attention
                                layer, for words that have an embedding for each                           */
    uint64_t    stamp;       /* out: stands for the plan's text side (adapters, weights, words) that made this */
} weft_encode;
#define WEFT_ENCODE_INIT { sizeof(weft_encode), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_ENCODE_INIT. @since 0.1 */
WEFT_API void weft_encode_init(weft_encode *encode, size_t size);

/**
 * Encode a prompt with the plan's adapters acting on the text encoders.
 *
 * A prompt of more than 75 tokens is encoded in chunks of 75, each with its own BOS and EOS, joined on
 * the token axis. When the prompt needs more chunks than there is room for, the call fails and says how many;
 * weft_plan_prompt_size() tells beforehand. The plan's words mean their vectors; a word that has one for each
 * cross-attention layer needs `layers`.
 *
 * @return WEFT_E_STATE (the model has no tokenizer), WEFT_E_ARG, WEFT_E_CANCELLED
 * @since 0.1
 */
WEFT_API weft_status weft_run_encode(weft_run *run, weft_encode *encode, weft_error *err);

/**
 * Encode token ids as they are: `ids` holds (chunks * 77) ids with BOS, EOS and padding in place.
 * For a caller with a tokenizer of its own. `ids_2` is for the second encoder, NULL where there is none.
 * @since 0.1
 */
WEFT_API weft_status weft_run_encode_ids(weft_run *run, const int32_t *ids, const int32_t *ids_2, size_t ids_len,
                                         weft_encode *encode, weft_error *err);

enum weft_step_flag {
    /** Evaluate the two halves of guidance one after the other, for less scratch traffic; the same bits. */
    WEFT_STEP_SPLIT_GUIDANCE  = 1u << 0,
    /** `text`, `negative` and the pooled vectors hold one conditioning for each branch of the plan. */
    WEFT_STEP_TEXT_PER_BRANCH = 1u << 1
};

/** One denoising step. All lengths count floats. n is the run's batch, T any number of tokens. */
typedef struct weft_step {
    uint32_t     struct_size;
    uint32_t     flags;               /* WEFT_STEP_*                                                        */
    const float *latent;              /* (n, c, h, w), scaled as the sampler wants it; read                 */
    size_t       latent_len;
    const float *text;                /* (T, d) for all, or (n, T, d); read. (L, T, d) or (n, L, T, d) with
                                         text_layers                                                        */
    size_t       text_len;
    const float *negative;            /* the unconditional side, shaped as text; NULL: no guidance          */
    size_t       negative_len;
    const float *pooled;              /* (p) or (n, p), for models with pooled conditioning                 */
    size_t       pooled_len;
    const float *negative_pooled;
    size_t       negative_pooled_len;
    const float *time_ids;            /* (6) original h, w, crop top, left, target h, w; NULL: image size.
                                         A refiner's (5): original h, w, crop top, left, aesthetic score;
                                         NULL: image size and 6, 2.5 on the unconditional side              */
    size_t       time_ids_len;
    float       *out;                 /* (n, c, h, w), written: the guided prediction                       */
    size_t       out_len;
    float        timestep;            /* 0 .. 999, fractions allowed                                        */
    float        guidance;            /* w in e_u + w (e_c - e_u); at most 1 or without negative: e_c       */
    float        guidance_rescale;    /* 0: none                                                            */
    int32_t      call;                /* 0 .. calls-1 of the plan                                           */
    int32_t      tokens;              /* T; 0: the model's 77                                               */
    int32_t      text_layers;         /* L: text and negative hold a conditioning for each cross-attention layer
                                         in order of execution (weft_model_info.text_layers); 0: one for all */
    const float *extra;               /* (n, unet_channels - c, h, w) that the UNet reads after the latents:
                                         for inpainting the mask, then the masked picture's latents; or NULL */
    size_t       extra_len;
    uint64_t     stamp;               /* of the encode that made text and negative: refused where the plan's text
                                         side is another now; 0: not checked                                 */
    float        guidance_embed;      /* for a distilled UNet that is told its guidance (weft_model_info);
                                         others take 0 alone                                                */
    int32_t      reserved0;           /* zero                                                                */
    const float *negative_time_ids;   /* of the unconditional side; NULL: as time_ids (a refiner's score: 2.5) */
    size_t       negative_time_ids_len;
} weft_step;
#define WEFT_STEP_INIT \
    { sizeof(weft_step), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_STEP_INIT. @since 0.1 */
WEFT_API void weft_step_init(weft_step *step, size_t size);

/**
 * Predict the noise (or v, or the sample: whatever the model predicts) of one denoising step, with the
 * plan's coefficients of `step->call`.
 *
 * Allocates nothing. Every buffer stays the caller's; no pointer is kept.
 *
 * @return WEFT_E_ARG        a length disagrees with the run's shape, or call is past the plan's end
 *         WEFT_E_CANCELLED  asked to stop; step->out is unspecified, the run is still usable
 *         WEFT_E_STATE      in a child after fork
 * @since 0.1
 */
WEFT_API weft_status weft_run_step(weft_run *run, const weft_step *step, weft_error *err);

/**
 * Decode latents to pictures.
 *
 * @param latent  (n, c, h, w), read, as they come out of the sampler
 * @param image   (n, 3, h * factor, w * factor), written, in 0..1
 * @return WEFT_E_STATE (the model has no VAE), WEFT_E_ARG, WEFT_E_CANCELLED
 * @since 0.1
 */
WEFT_API weft_status weft_run_decode(weft_run *run, const float *latent, size_t latent_len, float *image,
                                     size_t image_len, weft_error *err);

/**
 * Encode pictures to latents: where img2img and inpainting start.
 *
 * The encoder gives a distribution for each latent pixel: latent = (mean + noise * deviation) * vae_scale.
 *
 * @param image   (n, 3, h * factor, w * factor), read, in 0..1
 * @param noise   (n, c, h, w), read; NULL takes the mean
 * @param latent  (n, c, h, w), written, as samplers take them
 * @return WEFT_E_STATE (the model has no VAE encoder), WEFT_E_ARG, WEFT_E_CANCELLED
 * @since 0.1
 */
WEFT_API weft_status weft_run_encode_image(weft_run *run, const float *image, size_t image_len, const float *noise,
                                           size_t noise_len, float *latent, size_t latent_len, weft_error *err);

#ifdef __cplusplus
}
#endif
#endif
