/* sampler.h - noise schedules, solvers, and noise that equals torch's CPU generator. */
#ifndef WEFT_SAMPLER_H
#define WEFT_SAMPLER_H

#include "base.h"
#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A source of random numbers: MT19937 as torch's CPU generator uses it. One thread at a time. */
typedef struct weft_noise weft_noise;

/** Start a generator; only the low 32 bits of the seed matter, as in torch. @since 0.1 */
WEFT_API weft_status weft_noise_create(uint64_t seed, const weft_allocator *allocator, weft_noise **out,
                                       weft_error *err);
/** @since 0.1 */
WEFT_API void weft_noise_free(weft_noise *noise);
/** Fill `out` with what torch.randn(n, generator) gives in float32, to a unit in the last place. @since 0.1 */
WEFT_API weft_status weft_noise_normal(weft_noise *noise, float *out, size_t n, weft_error *err);

/** Solvers. */
enum weft_sampler_kind {
    WEFT_SAMPLER_DDIM     = 1,
    WEFT_SAMPLER_EULER    = 2,
    WEFT_SAMPLER_EULER_A  = 3, /* Euler ancestral           */
    WEFT_SAMPLER_DPMPP_2M = 4, /* DPM-Solver++, multistep 2 */
    WEFT_SAMPLER_PNDM     = 5, /* PLMS: pseudo numerical, without Runge-Kutta steps; steps + 1 calls, 1 for 1 */
    WEFT_SAMPLER_DDPM     = 6, /* with the small fixed variance */
    WEFT_SAMPLER_HEUN     = 7, /* 2 steps - 1 calls         */
    WEFT_SAMPLER_LCM      = 8, /* few steps, for latent consistency models and LCM-LoRA */
    WEFT_SAMPLER_TCD      = 9  /* few steps, for trajectory consistency distillation; eta is its gamma */
};
/** What the network predicts. */
enum weft_prediction {
    WEFT_PREDICT_EPSILON = 0,
    WEFT_PREDICT_V       = 1,
    WEFT_PREDICT_SAMPLE  = 2
};
/** Which timesteps the steps fall on. */
enum weft_spacing {
    WEFT_SPACING_DEFAULT  = 0, /* DDIM, PNDM, DDPM leading, the others linspace; LCM and TCD go by origin_steps */
    WEFT_SPACING_LEADING  = 1,
    WEFT_SPACING_LINSPACE = 2,
    WEFT_SPACING_TRAILING = 3
};
/** The curve of the betas. */
enum weft_betas {
    WEFT_BETAS_SCALED_LINEAR = 0,
    WEFT_BETAS_LINEAR        = 1
};
enum weft_sampler_flag {
    WEFT_SAMPLER_KARRAS       = 1u << 0, /* sigmas of Karras et al. (2022), rho 7; for the kinds that `sigmas` is for */
    WEFT_SAMPLER_ALPHA_TO_ONE = 1u << 1, /* DDIM, PNDM: the step past the last uses 1 instead of the first alpha */
    WEFT_SAMPLER_ZERO_SNR     = 1u << 2  /* betas rescaled to zero terminal signal */
};

typedef struct weft_sampler_options {
    uint32_t              struct_size;
    uint32_t              flags;        /* WEFT_SAMPLER_KARRAS ...                        */
    const weft_allocator *allocator;    /* NULL: malloc; copied                           */
    int32_t               kind;         /* WEFT_SAMPLER_DDIM ...; 0: DDIM                 */
    int32_t               steps;        /* 1 .. train_steps; 0: 20                        */
    int32_t               spacing;      /* WEFT_SPACING_*                                 */
    int32_t               prediction;   /* WEFT_PREDICT_*                                 */
    int32_t               betas;        /* WEFT_BETAS_*                                   */
    int32_t               train_steps;  /* 0: 1000                                        */
    int32_t               steps_offset; /* added to leading timesteps; 0: none            */
    float                 beta_start;   /* 0: 0.00085                                     */
    float                 beta_end;     /* 0: 0.012                                       */
    float                 eta;          /* DDIM: 0 deterministic .. 1; TCD: gamma         */
    int32_t               origin_steps; /* LCM, TCD: steps of the training's solver; 0: 50 */
    int32_t               reserved0;    /* zero                                           */
    const float          *sigmas;       /* noise levels of the caller's own, falling, without the last 0;
                                           copied; for Euler, Euler ancestral, Heun, DPM++; NULL: by spacing */
    size_t                sigmas_len;   /* how many: steps must be this or 0              */
} weft_sampler_options;
#define WEFT_SAMPLER_OPTIONS_INIT { sizeof(weft_sampler_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_SAMPLER_OPTIONS_INIT. @since 0.1 */
WEFT_API void weft_sampler_options_init(weft_sampler_options *options, size_t size);
/**
 * Fill options with what the model's scheduler_config.json says of betas, spacing, offset, prediction, the last alpha,
 * zero terminal signal, Karras' sigmas and the steps of a distillation, as diffusers would for a scheduler of this
 * kind: set kind first. Kind, steps, eta and sigmas stay as they are. Defaults where the model has no such file.
 * Three things differ, so that a picture is that of the model: PNDM and Heun heed zero terminal signal, which diffusers'
 * do not know; and where clip_sample or skip_prk_steps is absent, nothing is clipped and there are no Runge-Kutta steps.
 * @return WEFT_E_FORMAT, or WEFT_E_UNSUPPORTED for a setting that this kind would have to ignore, named
 * @since 0.1
 */
WEFT_API weft_status weft_sampler_options_from_model(const weft_model *model, weft_sampler_options *options,
                                                     weft_error *err);

/** A schedule and a solver with its history. One thread at a time. */
typedef struct weft_sampler weft_sampler;

/**
 * @return WEFT_E_ARG for a setting outside its range; WEFT_E_UNSUPPORTED for Karras' or own sigmas with a solver that
 * goes by timesteps (DDIM, PNDM, DDPM, LCM, TCD)
 * @since 0.1
 */
WEFT_API weft_status weft_sampler_create(const weft_sampler_options *options, weft_sampler **out, weft_error *err);
/** @since 0.1 */
WEFT_API void weft_sampler_free(weft_sampler *sampler);
/** How many calls of the step function a picture takes: what a plan is sealed for. @since 0.1 */
WEFT_API int32_t weft_sampler_calls(const weft_sampler *sampler);
/** The timestep of a call; not a number past the end. @since 0.1 */
WEFT_API float weft_sampler_timestep(const weft_sampler *sampler, int32_t call);
/** The noise level of a call, sqrt((1-A)/A); 0 at `calls`. @since 0.1 */
WEFT_API float weft_sampler_sigma(const weft_sampler *sampler, int32_t call);
/** What the first noise is multiplied with. @since 0.1 */
WEFT_API float weft_sampler_init_scale(const weft_sampler *sampler);
/**
 * The call at which a picture starts that is given and to be changed by `strength` 0..1 (img2img): 1 starts at 0,
 * from noise alone; the number of calls that remain is weft_sampler_calls() less this one. As many steps are left out
 * as diffusers leaves out; with PNDM its first step then makes two calls, as at 0.
 * @return WEFT_E_ARG for a strength outside 0..1, or one that leaves no step to take
 * @since 0.1
 */
WEFT_API weft_status weft_sampler_start(const weft_sampler *sampler, float strength, int32_t *call, weft_error *err);
/**
 * out = the latents x0 with as much noise as call `call` begins with; `out` may be `x0`. At call 0 of weft_sampler_start()
 * with strength 1 diffusers begins with noise alone: noise times weft_sampler_init_scale().
 * @since 0.1
 */
WEFT_API weft_status weft_sampler_add_noise(const weft_sampler *sampler, int32_t call, const float *x0,
                                            const float *noise, float *out, size_t len, weft_error *err);
/** Scale latents for the network's input at a call; `out` may be `x`. @since 0.1 */
WEFT_API weft_status weft_sampler_scale(const weft_sampler *sampler, int32_t call, const float *x, float *out,
                                        size_t len, weft_error *err);
/**
 * Take one step: x becomes the latents of the next noise level. Calls come in order, from 0 or from the call that
 * weft_sampler_start() gave; a call that does not follow the last one begins a new picture, if it is one to start at.
 *
 * @param prediction  what weft_run_step() wrote
 * @param x           latents before scaling; read and written
 * @param noise       for the solvers that draw (Euler ancestral, DDPM, LCM; DDIM and TCD with eta); may be NULL for the
 *                    others. Drawn from at the calls where diffusers draws, and only there
 * @return WEFT_E_ARG, WEFT_E_STATE (the second call of a step of Heun's without the first), WEFT_E_NOMEM (the first
 * call takes the history)
 * @since 0.1
 */
WEFT_API weft_status weft_sampler_step(weft_sampler *sampler, int32_t call, const float *prediction, float *x,
                                       size_t len, weft_noise *noise, weft_error *err);

#ifdef __cplusplus
}
#endif
#endif
