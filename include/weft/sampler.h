/* sampler.h - noise schedules, solvers, and noise that equals torch's CPU generator.
 *
 * A sampler says which noise levels an image passes through and takes it from one to the next. A
 * step is made of one or more calls of weft_run_step(). The loop is the caller's:
 *
 *   weft_sampler_begin(sampler, 0, len, &err);
 *   for (int32_t n = 0; n < weft_sampler_calls(sampler); n++) {
 *       weft_sampler_scale(sampler, n, x, scaled, len, &err);
 *       ... predict from `scaled` at weft_sampler_timestep(sampler, n) ...
 *       weft_sampler_step(sampler, n, prediction, x, len, noise, &err);
 *   }
 */
#ifndef WEFT_SAMPLER_H
#define WEFT_SAMPLER_H

#include "base.h"
#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- noise --------------------------------------------------------------------------------- */

/** A source of random numbers. One thread at a time. */
typedef struct weft_noise weft_noise;

/** Generators of weft_noise_options.kind. */
enum weft_noise_kind {
    WEFT_NOISE_TORCH_CPU = 1 /* MT19937, as torch's CPU generator uses it */
};

typedef struct weft_noise_options {
    uint32_t              struct_size;
    uint32_t              flags;     /* zero                                   */
    const weft_allocator *allocator; /* NULL: malloc; copied                   */
    int32_t               kind;      /* WEFT_NOISE_*; 0: WEFT_NOISE_TORCH_CPU  */
    int32_t               reserved0; /* zero                                   */
} weft_noise_options;
#define WEFT_NOISE_OPTIONS_INIT { sizeof(weft_noise_options), 0, 0, 0, 0 }
/** The function twin of WEFT_NOISE_OPTIONS_INIT. @since 0.1 */
WEFT_API void weft_noise_options_init(weft_noise_options *options, size_t size);

/**
 * Start a generator.
 *
 * @param seed     torch's CPU generator uses only the low 32 bits
 * @param options  may be NULL: all defaults
 * @param out      the generator, to be freed with weft_noise_free(); NULL on failure
 * @return WEFT_E_ARG for a kind that this version does not have, WEFT_E_NOMEM
 * @since 0.1
 */
WEFT_API weft_status weft_noise_create(uint64_t seed, const weft_noise_options *options,
                                       weft_noise **out, weft_error *err);
/** NULL is fine. @since 0.1 */
WEFT_API void weft_noise_free(weft_noise *noise);
/**
 * Fill `out` with n normal numbers: for WEFT_NOISE_TORCH_CPU those of torch.randn(n, generator) in
 * float32, to a unit in the last place.
 * @since 0.1
 */
WEFT_API weft_status weft_noise_normal(weft_noise *noise, float *out, size_t n, weft_error *err);

/* ---- solvers ------------------------------------------------------------------------------- */

/** Solvers. weft_sampler_kind_at() lists those of the library that was loaded. */
enum weft_sampler_kind {
    WEFT_SAMPLER_DDIM     = 1,
    WEFT_SAMPLER_EULER    = 2,
    WEFT_SAMPLER_EULER_A  = 3, /* Euler ancestral                                              */
    WEFT_SAMPLER_DPMPP_2M = 4, /* DPM-Solver++, multistep 2                                    */
    WEFT_SAMPLER_PNDM     = 5, /* PLMS: pseudo numerical, without Runge-Kutta steps; steps + 1
                                  calls, 1 for 1                                               */
    WEFT_SAMPLER_DDPM     = 6, /* with the small fixed variance                                */
    WEFT_SAMPLER_HEUN     = 7, /* 2 steps - 1 calls                                            */
    WEFT_SAMPLER_LCM      = 8, /* few steps, for latent consistency models and LCM-LoRA        */
    WEFT_SAMPLER_TCD      = 9, /* few steps, for trajectory consistency distillation; eta is its
                                  gamma                                                        */
    /* since 0.2 */
    WEFT_SAMPLER_DPMPP_2M_SDE = 10, /* DPMPP_2M with WEFT_ALGORITHM_DPMPP_SDE                  */
    WEFT_SAMPLER_DPMPP_3M     = 11, /* DPMPP_2M of order 3                                     */
    WEFT_SAMPLER_DPMPP_3M_SDE = 12, /* both                                                    */
    WEFT_SAMPLER_DPMPP_SDE    = 13, /* DPM-Solver++, one step of order 2 with noise; 2 steps - 1
                                       calls                                                   */
    WEFT_SAMPLER_DPMPP_2S     = 14, /* DPM-Solver++, single steps of 2 calls (order 3: of 3)
                                       each; as many calls as steps are asked for              */
    WEFT_SAMPLER_UNIPC        = 15, /* predictor and corrector, multistep                      */
    WEFT_SAMPLER_LMS          = 16, /* linear multistep 4                                      */
    WEFT_SAMPLER_DPM2         = 17, /* Euler's step from the middle; 2 steps - 1 calls         */
    WEFT_SAMPLER_DPM2_A       = 18, /* the same, ancestral                                     */
    WEFT_SAMPLER_DEIS         = 19  /* exponential integrator, multistep                       */
};
/** What a solver can be given or asks for: bits of weft_sampler_traits(). */
enum weft_sampler_trait {
    WEFT_TRAIT_SIGMAS = 1u << 0, /* noise levels of the caller's own, and WEFT_SCHEDULE_*  */
    WEFT_TRAIT_ETA    = 1u << 1, /* weft_sampler_options.eta                               */
    WEFT_TRAIT_DRAWS  = 1u << 2  /* draws noise in some calls, some only if eta is above 0 */
                                 /* or with an algorithm that does                         */
};
/**
 * The kinds of solver that the loaded library has: kind `index` from 0 on, and 0 past the last.
 * Threads: any, as for the three functions below.
 * @since 0.1
 */
WEFT_API int32_t weft_sampler_kind_at(size_t index);
/** A kind's name, as weft_has() knows it: "ddim" ... NULL for no kind of this library. The text is
 * the library's and lives as long as it is loaded. @since 0.1 */
WEFT_API const char *weft_sampler_name(int32_t kind);
/** The kind with this name; diffusers' class ("EulerDiscreteScheduler") and the names of other
 * programs ("DPM++ 2M") are accepted too, and capitals and separators do not matter. 0 for a name
 * that no kind has, that says more than a kind ("DPM++ 2M Karras"), and for NULL. @since 0.1 */
WEFT_API int32_t weft_sampler_find(const char *name);
/** Bits of weft_sampler_trait; ignore those you do not know. 0 for no kind of this library.
 * @since 0.1 */
WEFT_API uint32_t weft_sampler_traits(int32_t kind);

/* ---- a sampler ----------------------------------------------------------------------------- */

/** What the network predicts. */
enum weft_prediction {
    WEFT_PREDICT_EPSILON = 0,
    WEFT_PREDICT_V       = 1,
    WEFT_PREDICT_SAMPLE  = 2
};
/** Which timesteps the steps are at. */
enum weft_spacing {
    WEFT_SPACING_DEFAULT  = 0, /* DDIM, PNDM, DDPM leading; the others linspace; LCM and TCD go by
                                  origin_steps                                                 */
    WEFT_SPACING_LEADING  = 1,
    WEFT_SPACING_LINSPACE = 2,
    WEFT_SPACING_TRAILING = 3
};
/** The curve of the betas. */
enum weft_betas {
    WEFT_BETAS_SCALED_LINEAR = 0,
    WEFT_BETAS_LINEAR        = 1,
    WEFT_BETAS_SQUARED_COS   = 2, /* capped at 0.999; beta_start and beta_end are not used; since
                                     0.2                                                       */
    WEFT_BETAS_TRAINED       = 3, /* weft_sampler_options.trained_betas; since 0.2             */
    WEFT_BETAS_SIGMOID       = 4, /* from beta_start to beta_end along a sigmoid; since 0.2    */
    WEFT_BETAS_LAPLACE       = 5, /* as SQUARED_COS, for another curve; since 0.2              */
    WEFT_BETAS_EXP           = 6  /* as SQUARED_COS, for another curve; since 0.2              */
};
/** Which sigmas the steps are at, for kinds with WEFT_TRAIT_SIGMAS. @since 0.2 */
enum weft_sigma_schedule {
    WEFT_SCHEDULE_DEFAULT     = 0, /* those of the spacing's timesteps; Karras' with
                                      WEFT_SAMPLER_KARRAS                                      */
    WEFT_SCHEDULE_KARRAS      = 1, /* Karras et al. (2022), with rho                           */
    WEFT_SCHEDULE_EXPONENTIAL = 2, /* evenly spaced logarithms                                 */
    WEFT_SCHEDULE_BETA        = 3, /* quantiles of the beta distribution with 0.6, 0.6, of sigma:
                                      use_beta_sigmas in diffusers                             */
    WEFT_SCHEDULE_LU          = 4, /* evenly spaced log(signal/noise), Lu et al. (2022)        */
    WEFT_SCHEDULE_SGM_UNIFORM = 5, /* even timesteps, as Stability's generative-models lays
                                      them out                                                 */
    WEFT_SCHEDULE_SIMPLE      = 6, /* every (train_steps / steps)th of training's sigmas       */
    WEFT_SCHEDULE_ALIGN       = 7, /* align your steps, Sabour et al. (2024): the table of SD
                                      1.5. weft_sampler_options_from_model() makes ALIGN_SDXL of
                                      it for a model of that kind                              */
    WEFT_SCHEDULE_ALIGN_SDXL  = 8, /* the table of SDXL                                        */
    WEFT_SCHEDULE_BETA_STEPS  = 9, /* quantiles of the same distribution, of timesteps: "beta" in
                                      ComfyUI and A1111                                        */
    WEFT_SCHEDULE_NORMAL      = 10, /* even timesteps from the last to the first, both included */
    WEFT_SCHEDULE_DDIM_UNIFORM = 11, /* every (train_steps / steps)th timestep, from 1 on      */
    WEFT_SCHEDULE_KL_OPTIMAL  = 12 /* even arc tangents of sigma; also in Align your steps     */
};
/** The sigma behind the last step. @since 0.2 */
enum weft_final_sigma {
    WEFT_FINAL_DEFAULT = 0, /* DEIS: the smallest; the others: zero                            */
    WEFT_FINAL_ZERO    = 1,
    WEFT_FINAL_MIN     = 2  /* training's smallest: some noise stays                           */
};
/** How a sigma between two timesteps is found. @since 0.2 */
enum weft_interpolation {
    WEFT_INTERPOLATION_LINEAR     = 0,
    WEFT_INTERPOLATION_LOG_LINEAR = 1 /* Euler: even logarithms between the first and the last */
};
/** What a DPM solver integrates. @since 0.2 */
enum weft_algorithm {
    WEFT_ALGORITHM_DEFAULT   = 0, /* what the kind is named for                                */
    WEFT_ALGORITHM_DPMPP     = 1, /* the predicted image; "dpmsolver++"                        */
    WEFT_ALGORITHM_DPMPP_SDE = 2, /* the same, with noise; "sde-dpmsolver++"                   */
    WEFT_ALGORITHM_DPM       = 3, /* the predicted noise; "dpmsolver"                          */
    WEFT_ALGORITHM_DPM_SDE   = 4  /* the same, with noise; "sde-dpmsolver"                     */
};
/** A variant of a solver of higher order. @since 0.2 */
enum weft_solver_type {
    WEFT_SOLVER_DEFAULT  = 0, /* DPM: midpoint; UniPC: bh2                                     */
    WEFT_SOLVER_MIDPOINT = 1, /* DPM                                                           */
    WEFT_SOLVER_HEUN     = 2, /* DPM                                                           */
    WEFT_SOLVER_BH1      = 3, /* UniPC: B(h) = h                                               */
    WEFT_SOLVER_BH2      = 4  /* UniPC: B(h) = exp(h) - 1                                      */
};
/** The order of the last steps. @since 0.2 */
enum weft_last_steps {
    WEFT_LAST_DEFAULT = 0, /* DPM++ 2S: full; the others: lower                                */
    WEFT_LAST_LOWER   = 1, /* it falls to 1; DPM++ and DEIS: only with fewer than 15 steps     */
    WEFT_LAST_FULL    = 2  /* it stays, but for a last step to sigma 0                         */
};
/** The variance of DDPM's noise. @since 0.2 */
enum weft_variance {
    WEFT_VARIANCE_SMALL = 0, /* "fixed_small": that of the next latents if x0 is known         */
    WEFT_VARIANCE_LARGE = 1  /* "fixed_large": beta                                            */
};
/** Bits of weft_sampler_options.flags. */
enum weft_sampler_flag {
    WEFT_SAMPLER_KARRAS       = 1u << 0, /* sigmas of Karras et al. (2022), rho 7; for kinds with
                                            WEFT_TRAIT_SIGMAS                                  */
    WEFT_SAMPLER_ALPHA_TO_ONE = 1u << 1, /* DDIM, PNDM: the step past the last uses 1 instead of
                                            the first alpha                                    */
    WEFT_SAMPLER_ZERO_SNR     = 1u << 2, /* betas rescaled to zero terminal signal             */
    WEFT_SAMPLER_EULER_LAST   = 1u << 3, /* DPM++ multistep: the last step is of order 1       */
    WEFT_SAMPLER_OF_NOISE     = 1u << 4, /* UniPC: integrate the predicted noise, not the image */
    WEFT_SAMPLER_CLIP         = 1u << 5, /* DDIM, DDPM, LCM, Heun: clip the predicted image to
                                            clip_range                                         */
    WEFT_SAMPLER_THRESHOLD    = 1u << 6, /* clip the predicted image to a quantile of its
                                            magnitudes (Saharia et al., 2022), not to clip_range */
    WEFT_SAMPLER_CLIPPED_NOISE = 1u << 7, /* DDIM: noise that agrees with the clipped image    */
    WEFT_SAMPLER_LOG_TIMESTEPS = 1u << 8 /* Euler, for a network that predicts v: it is told
                                            log(sigma) / 4, not the timestep                   */
};

typedef struct weft_sampler_options {
    uint32_t              struct_size;
    uint32_t              flags;        /* WEFT_SAMPLER_KARRAS ...                         */
    const weft_allocator *allocator;    /* NULL: malloc; copied                            */
    int32_t               kind;         /* WEFT_SAMPLER_DDIM ...; 0: DDIM                  */
    int32_t               steps;        /* 1 .. train_steps; 0: 20                         */
    int32_t               spacing;      /* WEFT_SPACING_*                                  */
    int32_t               prediction;   /* WEFT_PREDICT_*                                  */
    int32_t               betas;        /* WEFT_BETAS_*                                    */
    int32_t               train_steps;  /* 0: 1000                                         */
    int32_t               steps_offset; /* added to leading timesteps; 0: none             */
    float                 beta_start;   /* 0: 0.00085                                      */
    float                 beta_end;     /* 0: 0.012                                        */
    float                 eta;          /* DDIM: 0 deterministic .. 1; TCD: gamma          */
    int32_t               origin_steps; /* LCM, TCD: steps of the training's solver; 0: 50 */
    int32_t               reserved0;    /* zero                                            */
    const float          *sigmas;       /* noise levels of the caller's own, falling, without
                                           the last 0; copied; NULL: by spacing. For kinds
                                           with WEFT_TRAIT_SIGMAS                          */
    size_t                sigmas_len;   /* how many: steps must be this or 0               */
    /* since 0.2 */
    int32_t               order;        /* of the solver; 0: the kind's own                */
    int32_t               algorithm;    /* WEFT_ALGORITHM_*                                */
    int32_t               solver_type;  /* WEFT_SOLVER_*                                   */
    int32_t               last_steps;   /* WEFT_LAST_*                                     */
    int32_t               variance;     /* WEFT_VARIANCE_*                                 */
    int32_t               images;       /* images in the latents, for WEFT_SAMPLER_THRESHOLD,
                                           which treats them one by one; 0: 1              */
    float                 clip_range;   /* of WEFT_SAMPLER_CLIP; 0: 1                      */
    float                 threshold_ratio; /* of WEFT_SAMPLER_THRESHOLD: which quantile; 0:
                                           0.995                                           */
    float                 threshold_max; /* the largest that it may be, from 1 on; 0: 1    */
    float                 lambda_min;   /* DPM++: begin where log(signal/noise) is at least
                                           this; 0: anywhere                               */
    int32_t               sigma_schedule; /* WEFT_SCHEDULE_*                               */
    int32_t               final_sigma;  /* WEFT_FINAL_*                                    */
    int32_t               interpolation; /* WEFT_INTERPOLATION_*                           */
    float                 sigma_min;    /* of Karras' and other schedules between two sigmas;
                                           0: by spacing                                   */
    float                 sigma_max;    /* 0: by spacing; both 1e-6 to 1e6                 */
    float                 rho;          /* of Karras' schedule; 0: 7                       */
    const float          *trained_betas; /* of WEFT_BETAS_TRAINED: train_steps of them, between
                                           0 and 1; copied                                 */
    size_t                trained_betas_len; /* train_steps must be this or 0              */
    uint64_t              uncorrected;  /* UniPC: bit i is set: the end of step i is not
                                           corrected                                       */
} weft_sampler_options;
#define WEFT_SAMPLER_OPTIONS_INIT                                                               \
    { sizeof(weft_sampler_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, \
      0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_SAMPLER_OPTIONS_INIT. @since 0.1 */
WEFT_API void weft_sampler_options_init(weft_sampler_options *options, size_t size);
/**
 * Fill options with what the model's scheduler_config.json says, as diffusers would for a scheduler
 * of options->kind: betas, spacing, offset, prediction, the last alpha, zero terminal signal, the
 * sigma schedule, the steps of a distillation. Set kind first. Kind, steps, eta and sigmas stay as
 * they are, and so does every other choice since 0.2 that is not zero; the file fills in the rest.
 * trained_betas is the model's: it may go when a sampler was created. A model without the file
 * changes nothing. docs/formats.md has every key.
 *
 * Differences from diffusers, so that images match the trained model: kinds whose class there lacks
 * rescale_betas_zero_snr honour it. If clip_sample is absent, nothing is clipped. If skip_prk_steps
 * is absent, there are no Runge-Kutta steps.
 *
 * @return WEFT_E_ARG for a kind that this version does not have; WEFT_E_FORMAT;
 *   WEFT_E_UNSUPPORTED for a setting that this kind would have to ignore, named
 * @since 0.1
 */
WEFT_API weft_status weft_sampler_options_from_model(const weft_model *model,
                                                     weft_sampler_options *options,
                                                     weft_error *err);

/**
 * Set options to what a name stands for in diffusers, A1111, Forge, ComfyUI or InvokeAI: a sampler
 * ("Euler a", "dpmpp_2m_sde"), a sigma schedule ("karras", "SGM Uniform"), or both in this order
 * ("DPM++ 2M SDE Karras", "dpmpp_2m_k"). Capitals and separators do not matter. A sampler's name
 * sets kind and solver_type, a schedule's sets sigma_schedule and clears WEFT_SAMPLER_KARRAS; the
 * rest stays. Call it before weft_sampler_options_from_model(), which asks for the kind.
 * docs/guide.md has the names. Threads: any.
 *
 * @return WEFT_E_ARG for a name that stands for nothing here, with the nearest ones, and for NULL
 * @since 0.2
 */
WEFT_API weft_status weft_sampler_options_named(const char *name, weft_sampler_options *options,
                                                weft_error *err);
/** The name of a WEFT_SCHEDULE_*: "default", "karras" ... NULL for none of this library, so that
 * they can be listed from 0 on. The text is the library's. Threads: any. @since 0.2 */
WEFT_API const char *weft_sampler_schedule_name(int32_t schedule);
/** A schedule, a solver and the solver's memory of the image under way. One thread at a time. */
typedef struct weft_sampler weft_sampler;

/**
 * @return WEFT_E_ARG for a setting outside its range or that this kind does not have;
 *   WEFT_E_UNSUPPORTED for a sigma schedule or own sigmas with a kind without WEFT_TRAIT_SIGMAS,
 *   and for another setting about sigmas that the kind does not take; WEFT_E_NOMEM
 * @since 0.1
 */
WEFT_API weft_status weft_sampler_create(const weft_sampler_options *options, weft_sampler **out,
                                         weft_error *err);
/** NULL is fine. @since 0.1 */
WEFT_API void weft_sampler_free(weft_sampler *sampler);
/** How many calls an image takes: a plan is sealed for this number. @since 0.1 */
WEFT_API int32_t weft_sampler_calls(const weft_sampler *sampler);
/** The timestep of a call; NaN past the end. @since 0.1 */
WEFT_API float weft_sampler_timestep(const weft_sampler *sampler, int32_t call);
/** The noise level of a call, sqrt((1-A)/A); 0 at `calls`, NaN past it. @since 0.1 */
WEFT_API float weft_sampler_sigma(const weft_sampler *sampler, int32_t call);
/** The factor for the first noise. @since 0.1 */
WEFT_API float weft_sampler_init_scale(const weft_sampler *sampler);
/**
 * The call at which an image starts that is given and to be changed by `strength` 0..1
 * (img2img): 1 starts at call 0, from noise only. weft_sampler_calls() less this call is the
 * number of calls that remain. As many steps are left out as in diffusers. Give the call to
 * weft_sampler_add_noise() and weft_sampler_begin(). With PNDM the first step makes two calls,
 * wherever it is.
 * @return WEFT_E_ARG for a strength outside 0..1, or one that leaves no step to take
 * @since 0.1
 */
WEFT_API weft_status weft_sampler_start(const weft_sampler *sampler, float strength, int32_t *call,
                                        weft_error *err);
/**
 * out = the latents x0 with as much noise as call `call` begins with; `out` may be `x0`. At
 * strength 1 diffusers begins with noise only: noise times weft_sampler_init_scale().
 * @since 0.1
 */
WEFT_API weft_status weft_sampler_add_noise(const weft_sampler *sampler, int32_t call,
                                            const float *x0, const float *noise, float *out,
                                            size_t len, weft_error *err);
/**
 * Inversion: x, the latents that call `call` + 1 begins with, or after the last call the finished
 * image, becomes latents that `call` begins with, from which the calls lead back to it. From the last
 * call down to 0 an image turns into the noise that it could have been made of. DDIM's step taken
 * backwards (Song et al., Denoising Diffusion Implicit Models, 2021, section 4.3), whatever the solver
 * is, so only as near as the network's answers at two levels are alike: best with many steps, and
 * without guidance.
 *
 * @param prediction  what weft_run_step() made of x, scaled as for call + 1 (of the image itself, not
 *                    at all), with the timestep of `call`
 * @param x           latents before scaling; read and written
 * @return WEFT_E_ARG; WEFT_E_UNSUPPORTED for a network that predicts the sample: its answer says
 *   nothing of the noise of an image without any
 * @since 0.2
 */
WEFT_API weft_status weft_sampler_invert(const weft_sampler *sampler, int32_t call,
                                         const float *prediction, float *x, size_t len,
                                         weft_error *err);
/** Scale latents for the network's input at a call; `out` may be `x`. @since 0.1 */
WEFT_API weft_status weft_sampler_scale(const weft_sampler *sampler, int32_t call, const float *x,
                                        float *out, size_t len, weft_error *err);
/**
 * Begin an image. An image under way is abandoned, and nothing of it reaches the new one.
 *
 * @param call  the first call: 0, or what weft_sampler_start() gave
 * @param len   floats of the latents, of the whole batch
 *
 * Takes the solver's memory for this length, so that no step allocates. On failure an image under
 * way can go on.
 *
 * @return WEFT_E_ARG for a call past the last, for the second of a step of two calls, and for a
 *   length that is no multiple of the images to be thresholded; WEFT_E_NOMEM
 * @since 0.1
 */
WEFT_API weft_status weft_sampler_begin(weft_sampler *sampler, int32_t call, size_t len,
                                        weft_error *err);
/**
 * Take one call's step: x becomes the latents of the next noise level. Calls come in order, from
 * the one that weft_sampler_begin() was given to the last. A call that failed may be repeated.
 *
 * @param prediction  what weft_run_step() wrote
 * @param x           latents before scaling; read and written
 * @param len         as given to weft_sampler_begin()
 * @param noise       for kinds with WEFT_TRAIT_DRAWS; may be NULL for the others. Drawn from at the
 *                    calls where diffusers draws, and only there
 *
 * @return WEFT_E_ARG; WEFT_E_STATE for a call without weft_sampler_begin() or out of order
 * @since 0.1
 */
WEFT_API weft_status weft_sampler_step(weft_sampler *sampler, int32_t call, const float *prediction,
                                       float *x, size_t len, weft_noise *noise, weft_error *err);

#ifdef __cplusplus
}
#endif
#endif
