/* model.h - opening a diffusion model, and asking what it is. */
#ifndef WEFT_MODEL_H
#define WEFT_MODEL_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A model: weights (mapped), layer table, tokenizer, configuration. Immutable, any thread. */
typedef struct weft_model weft_model;

/** Flags of weft_model_options besides WEFT_OPEN_COPY. */
enum weft_model_flag {
    /** The model predicts noise, whatever its files say or leave open. */
    WEFT_OPEN_EPSILON = 1u << 1,
    /** The model predicts v, likewise: single files of SD2.x do not say which of the two they are. */
    WEFT_OPEN_V       = 1u << 2
};

typedef struct weft_model_options {
    uint32_t              struct_size;
    uint32_t              flags;         /* WEFT_OPEN_*                                                       */
    const weft_allocator *allocator;     /* NULL: malloc; copied                                              */
    weft_log_fn           log;           /* told of a variant taken, a tokenizer missing; may be NULL         */
    void                 *log_user;
    weft_progress_fn      progress;      /* during open; may be NULL                                          */
    void                 *progress_user;
    const char           *variant;       /* "fp16" takes diffusion_pytorch_model.fp16.safetensors; NULL: the
                                            plain file, else fp16, bf16, fp32, non_ema: the first there is    */
    const char           *tokenizer;     /* instead of the model's own, or NULL: a folder, a merges.txt, or
                                            OpenAI's bpe_simple_vocab_16e6.txt.gz                             */
    const char           *tokenizer_2;   /* likewise for the second text encoder; NULL: the model's own, or where
                                            it has none the first's                                           */
    const char           *vae;           /* a VAE instead of the model's own, a file or a folder; or NULL     */
    const char           *config;        /* for a single file: a diffusers folder whose config.json files
                                            describe it (and whose tokenizers it takes); NULL: the published
                                            model that its shapes point to                                    */
} weft_model_options;
#define WEFT_MODEL_OPTIONS_INIT { sizeof(weft_model_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_MODEL_OPTIONS_INIT. @since 0.1 */
WEFT_API void weft_model_options_init(weft_model_options *options, size_t size);

/**
 * Open a model: a diffusers folder (model_index.json beside unet/, vae/, text_encoder/; weights in one file or in
 * shards, as safetensors or as a pickle that is read and never executed), or a single file in the original
 * layout (LDM or SGM names; .safetensors or .ckpt). What a file is, its content tells, never its name.
 *
 * Every tensor's name and shape is checked against what the configuration asks for. A model without a tokenizer
 * opens (single files carry none); the first prompt then says what to give. What a single file predicts is what the
 * flags say, or a .yaml beside it, or options->config, or marks in it; SD2, which has none of these, is taken to predict
 * v (noise where it inpaints), and the log is told.
 *
 * @param path     the folder or the file
 * @param options  NULL for defaults
 * @return WEFT_E_IO        a file cannot be read
 *         WEFT_E_FORMAT    a file is broken, a tensor is missing, unknown or misshapen
 *         WEFT_E_UNSUPPORTED  a class or setting that this version does not run; the text names it
 *         WEFT_E_MISMATCH  the tokenizer has ids that the text encoder does not
 *         WEFT_E_CANCELLED, WEFT_E_NOMEM, WEFT_E_ARG
 * @since 0.1
 */
WEFT_API weft_status weft_model_open(const char *path, const weft_model_options *options, weft_model **out,
                                     weft_error *err);
/** Let go of a model; plans and runs that use it keep it alive. @since 0.1 */
WEFT_API void weft_model_free(weft_model *model);

/** Base models: what adapters are made for. Shapes and class names tell them. */
enum weft_base {
    WEFT_BASE_UNKNOWN      = 0,
    WEFT_BASE_SD1          = 1,
    WEFT_BASE_SD2          = 2,
    WEFT_BASE_SDXL         = 3,
    WEFT_BASE_SDXL_REFINER = 4,
    WEFT_BASE_FLUX         = 5
};

typedef struct weft_model_info {
    uint32_t    struct_size;
    int32_t     base;              /* WEFT_BASE_*                                                 */
    const char *base_name;         /* "SD1.x", "SD2.x", "SDXL", ...                               */
    int32_t     latent_channels;   /* c of the latents                                            */
    int32_t     latent_size;       /* the size it was trained at, in latent pixels                */
    int32_t     image_factor;      /* image pixels for each latent pixel, 8 in the published ones */
    int32_t     text_encoders;     /* 0, 1 or 2                                                   */
    int32_t     text_dim;          /* width of the conditioning, d                                */
    int32_t     text_tokens;       /* tokens of one chunk, 77                                     */
    int32_t     pooled_dim;        /* width of the pooled conditioning; 0 where there is none     */
    int32_t     time_ids;          /* added time ids the UNet wants; 0 where it wants none        */
    int32_t     has_tokenizer;     /* 1 when prompts can be encoded                               */
    int32_t     has_vae;           /* 1 when latents can be decoded                               */
    int64_t     parameters;        /* of all components                                           */
    int64_t     bytes;             /* of all weight files                                         */
    int64_t     layers;            /* that adapters can address: linear, convolution, normalisation */
    float       vae_scale;         /* latents = vae latents * vae_scale                           */
    int32_t     prediction;        /* WEFT_PREDICT_* of sampler.h: options, else scheduler config */
    int32_t     unet_channels;     /* that the UNet reads: c, or 9 for inpainting, 8 for editing: the others are
                                      weft_step.extra                                             */
    int32_t     text_layers;       /* cross-attention layers, each of which may have a conditioning of its own */
    int32_t     zero_negative;     /* 1: made to be run with zeros where no negative prompt is given */
    int32_t     guidance_embed;    /* 1: distilled, is told the guidance (weft_step.guidance_embed) */
    const char *layout;            /* "diffusers" or "single file"                                */
    int64_t     derived_bytes;     /* memory for what is made of the weights once and shared by all runs: norms
                                      and biases in float32                                       */
} weft_model_info;
#define WEFT_MODEL_INFO_INIT \
    { sizeof(weft_model_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_MODEL_INFO_INIT. @since 0.1 */
WEFT_API void weft_model_info_init(weft_model_info *info, size_t size);
/** Describe a model; `info->struct_size` must be set. @since 0.1 */
WEFT_API weft_status weft_model_info_get(const weft_model *model, weft_model_info *info, weft_error *err);

/** The networks that a model is made of. */
enum weft_component {
    WEFT_COMPONENT_DENOISER = 0, /* predicts the noise of a step: the UNet  */
    WEFT_COMPONENT_TEXT_1   = 1, /* text encoders, in the order of the file */
    WEFT_COMPONENT_TEXT_2   = 2,
    WEFT_COMPONENT_VAE      = 3,
    WEFT_COMPONENT_TEXT_3   = 4
};

/** Kinds of layer. */
enum weft_layer_kind {
    WEFT_LAYER_LINEAR = 1,
    WEFT_LAYER_CONV   = 2,
    WEFT_LAYER_NORM   = 3  /* a normalisation: out channels of weight and bias, in and kernel are 1 */
};

/** One layer that adapters can address; ids are dense and follow the order of execution in each component. */
typedef struct weft_layer_info {
    uint32_t    struct_size;
    int32_t     kind;      /* WEFT_LAYER_*                                                          */
    const char *name;      /* canonical: "unet.down_blocks.0.attentions.0...attn1.to_q"             */
    int32_t     component; /* WEFT_COMPONENT_*                                                         */
    int32_t     out;       /* output features or channels                                           */
    int32_t     in;        /* input features or channels                                            */
    int32_t     kernel;    /* 1 for linear layers and 1x1 convolutions, 3 for 3x3                   */
    int32_t     stride;
    int32_t     attention; /* 1 for q, k, v and out of an attention of the UNet: K-LoRA's own layers */
} weft_layer_info;
#define WEFT_LAYER_INFO_INIT { sizeof(weft_layer_info), 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_LAYER_INFO_INIT. @since 0.1 */
WEFT_API void weft_layer_info_init(weft_layer_info *info, size_t size);
/** Describe layer `id`, 0 <= id < weft_model_info.layers. @since 0.1 */
WEFT_API weft_status weft_model_layer(const weft_model *model, int64_t id, weft_layer_info *info, weft_error *err);

#ifdef __cplusplus
}
#endif
#endif
