/* model.h - open a diffusion model and describe it. */
#ifndef WEFT_MODEL_H
#define WEFT_MODEL_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * A model: weights (mapped), layer table, tokenizer, configuration. Immutable, any thread.
 *
 * A mapped file that is cut short while the model is in use, or whose disk or server is gone, ends
 * the process by SIGBUS: WEFT_OPEN_COPY reads the weights into memory instead.
 */
typedef struct weft_model weft_model;

/** Flags of weft_model_options besides WEFT_OPEN_COPY. */
enum weft_model_flag {
    /** The model predicts noise, whatever its files say or leave open. */
    WEFT_OPEN_EPSILON = 1u << 1,
    /** The model predicts v. Single files of SD2.x do not say which of the two they are. */
    WEFT_OPEN_V       = 1u << 2,
    /** Arithmetic that the processor has no instruction for is emulated: slower than float32. */
    WEFT_OPEN_EMULATE = 1u << 3
};

/**
 * Arithmetic: how a model's denoiser and VAE multiply. Text encoders and image encoders multiply in
 * float32 in any case: they take little time, and what they get wrong every step would read.
 *
 * Results differ between arithmetics, and between processors, by rounding. Within one they have the
 * same bits for any number of threads, any samples beside them, and guidance in one evaluation or
 * two.
 */
enum weft_arithmetic {
    WEFT_ARITHMETIC_F32  = 0, /* float32 */
    WEFT_ARITHMETIC_BF16 = 1  /* the factors of linear layers, of attention and of convolutions with
                                 few pixels are rounded to bfloat16; sums and all between products
                                 stay float32. Needs AVX512-BF16, or WEFT_OPEN_EMULATE */
};

typedef struct weft_model_options {
    uint32_t              struct_size;
    uint32_t              flags;     /* WEFT_OPEN_* */
    const weft_allocator *allocator; /* NULL: malloc; copied */
    weft_log_fn           log;       /* gets the variant that was chosen, a missing tokenizer;
                                        may be NULL */
    void                 *log_user;
    weft_progress_fn      progress; /* during open; may be NULL */
    void                 *progress_user;
    const char           *variant;     /* "fp16" takes diffusion_pytorch_model.fp16.safetensors;
                                          NULL: the first that exists of the plain file, fp16,
                                          bf16, fp32, non_ema */
    const char           *tokenizer;   /* instead of the model's own, or NULL: a folder, a
                                          merges.txt, or OpenAI's bpe_simple_vocab_16e6.txt.gz */
    const char           *tokenizer_2; /* for the second text encoder; NULL: the model's own, or
                                          if it has none the first's */
    const char           *vae;         /* a VAE instead of the model's own, a file or a folder;
                                          or NULL */
    const char           *config;      /* for a single file: a diffusers folder whose config.json
                                          files describe it (and whose tokenizers it takes);
                                          NULL: the published model that its shapes point to */
    int32_t               arithmetic;  /* WEFT_ARITHMETIC_*, since 0.2 */
    int32_t               reserved0;
} weft_model_options;
#define WEFT_MODEL_OPTIONS_INIT \
    { sizeof(weft_model_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_MODEL_OPTIONS_INIT. @since 0.1 */
WEFT_API void weft_model_options_init(weft_model_options *options, size_t size);

/**
 * Open a model: a diffusers folder (model_index.json beside unet/, vae/, text_encoder/; weights in
 * one file or in shards, as safetensors or as a pickle that is read and never executed), or a
 * single file in the original layout (LDM or SGM names; .safetensors or .ckpt). The content of a
 * file decides what it is, never its name.
 *
 * Every tensor's name and shape is checked against the configuration. A model without a tokenizer
 * opens (single files carry none); the first prompt then fails with a text that says what to give.
 * The flags decide what a single file predicts, else a .yaml beside it, else options->config, else
 * marks in it. SD2 files have none of these: they are taken to predict v (noise if they inpaint),
 * and the log says so.
 *
 * @param path     the folder or the file
 * @param options  NULL for defaults
 * @return WEFT_E_IO        a file cannot be read
 *         WEFT_E_FORMAT    a file is broken, a tensor is missing, unknown or of another shape
 *         WEFT_E_UNSUPPORTED  a class or setting that this version does not run; the text names it;
 *                          or an arithmetic that this processor does not have, without
 *                          WEFT_OPEN_EMULATE
 *         WEFT_E_MISMATCH  the tokenizer has ids that the text encoder does not
 *         WEFT_E_CANCELLED, WEFT_E_NOMEM, WEFT_E_ARG
 * @since 0.1
 */
WEFT_API weft_status weft_model_open(const char *path, const weft_model_options *options,
                                     weft_model **out, weft_error *err);
/** Release a model; plans and runs that use it keep it alive. @since 0.1 */
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
    int32_t     base;            /* WEFT_BASE_* */
    const char *base_name;       /* "SD1.x", "SD2.x", "SDXL", ... */
    const char *layout;          /* "diffusers" or "single file" */
    int64_t     parameters;      /* of all components */
    int64_t     bytes;           /* of all weight files */
    int64_t     derived_bytes;   /* memory for what is made of the weights once and shared by all
                                    runs: norms and biases in float32 */
    int64_t     layers;          /* that adapters can address: linear, convolution, normalisation */
    int32_t     latent_channels; /* c of the latents */
    int32_t     latent_size;     /* height and width that it was trained at, in latent pixels */
    int32_t     image_factor;    /* image pixels for each latent pixel; 8 in the published models */
    int32_t     input_channels;  /* that the denoiser reads: c; 9 for inpainting, 8 for editing,
                                    where weft_step.extra brings the rest */
    int32_t     text_streams;    /* that the denoiser reads: see weft_model_text() */
    int32_t     text_encoders;   /* that the model has */
    int32_t     time_ids;        /* numbers about the image's size that the denoiser reads; 0:
                                    none */
    int32_t     guidance_embed;  /* 1: guidance-distilled, weft_step.guidance_embed must be given */
    int32_t     prediction;      /* WEFT_PREDICT_* of sampler.h: from the options, else the files */
    int32_t     zero_negative;   /* 1: trained with zeros in place of an empty negative prompt */
    int32_t     has_tokenizer;   /* 1: prompts can be encoded */
    int32_t     has_vae;         /* 1: latents can be decoded */
    float       vae_scale;       /* latents = vae latents * vae_scale */
    int32_t     reserved0;
    int32_t     arithmetic;      /* WEFT_ARITHMETIC_*: as asked for; since 0.2, like the next two */
    int32_t     emulated;        /* 1: this processor does not have it, WEFT_OPEN_EMULATE does it */
    const char *tier;            /* the loops that denoiser and VAE run: "avx2", "avx512",
                                    "avx512_bf16", "bf16_emulated", "openblas", ... */
} weft_model_info;
#define WEFT_MODEL_INFO_INIT                                                                    \
    { sizeof(weft_model_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, \
      0, 0 }
/** "f32", "bf16", or NULL for any other number. A string constant; any thread. @since 0.2 */
WEFT_API const char *weft_arithmetic_name(int32_t arithmetic);
/** The function twin of WEFT_MODEL_INFO_INIT. @since 0.1 */
WEFT_API void weft_model_info_init(weft_model_info *info, size_t size);
/** Describe a model; `info->struct_size` must be set. @since 0.1 */
WEFT_API weft_status weft_model_info_get(const weft_model *model, weft_model_info *info,
                                         weft_error *err);

/** What a text stream is. */
enum weft_text_kind {
    WEFT_TEXT_SEQUENCE = 1, /* one row for each token; the denoiser's cross-attention reads all
                               rows */
    WEFT_TEXT_POOLED   = 2  /* one row for the whole prompt */
};

/**
 * One stream of text that the denoiser reads. SD1 and SD2 read one sequence; SDXL reads a sequence
 * (the hidden states of its two encoders side by side) and a pooled vector.
 */
typedef struct weft_text_info {
    uint32_t    struct_size;
    int32_t     kind;         /* WEFT_TEXT_SEQUENCE or WEFT_TEXT_POOLED */
    const char *name;         /* "sequence" or "pooled" */
    int32_t     width;        /* floats of a row */
    int32_t     tokens;       /* rows of one chunk of a prompt: 77 with CLIP; 1 if pooled */
    int32_t     cross_layers; /* cross-attention layers that may each get rows of their own; 0:
                                 none */
    int32_t     reserved0;
} weft_text_info;
#define WEFT_TEXT_INFO_INIT { sizeof(weft_text_info), 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_TEXT_INFO_INIT. @since 0.2 */
WEFT_API void weft_text_info_init(weft_text_info *info, size_t size);
/**
 * Describe text stream `stream`, 0 <= stream < weft_model_info.text_streams. Encoding and steps
 * take the streams in this order.
 * @since 0.2
 */
WEFT_API weft_status weft_model_text(const weft_model *model, int32_t stream, weft_text_info *info,
                                     weft_error *err);

/** The networks that a model is made of. */
enum weft_component {
    WEFT_COMPONENT_DENOISER = 0, /* predicts the noise of a step: the UNet  */
    WEFT_COMPONENT_TEXT_1   = 1, /* text encoders, in the order of the file */
    WEFT_COMPONENT_TEXT_2   = 2,
    WEFT_COMPONENT_VAE      = 3,
    WEFT_COMPONENT_TEXT_3   = 4
};
/**
 * A component's name in files, with which the names of its layers begin: "unet", "text_encoder",
 * "text_encoder_2", "vae", "text_encoder_3"; NULL for any other number. A string constant; any
 * thread.
 * @since 0.2
 */
WEFT_API const char *weft_component_name(int32_t component);

/** Kinds of layer. */
enum weft_layer_kind {
    WEFT_LAYER_LINEAR = 1,
    WEFT_LAYER_CONV   = 2,
    WEFT_LAYER_NORM   = 3 /* a normalisation: out channels of weight and bias, in and kernel are
                             1 */
};

/** One layer that adapters can address; ids are dense and follow the order of execution in each
 * component. */
typedef struct weft_layer_info {
    uint32_t    struct_size;
    int32_t     kind;      /* WEFT_LAYER_* */
    const char *name;      /* canonical: "unet.down_blocks.0.attentions.0...attn1.to_q" */
    int32_t     component; /* WEFT_COMPONENT_* */
    int32_t     out;       /* output features or channels */
    int32_t     in;        /* input features or channels */
    int32_t     kernel;    /* 1 for linear layers and 1x1 convolutions, 3 for 3x3 */
    int32_t     stride;
    int32_t     attention; /* 1 for q, k, v and out of an attention of the denoiser: K-LoRA's
                              layers */
} weft_layer_info;
#define WEFT_LAYER_INFO_INIT { sizeof(weft_layer_info), 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_LAYER_INFO_INIT. @since 0.1 */
WEFT_API void weft_layer_info_init(weft_layer_info *info, size_t size);
/** Describe layer `id`, 0 <= id < weft_model_info.layers. @since 0.1 */
WEFT_API weft_status weft_model_layer(const weft_model *model, int64_t id, weft_layer_info *info,
                                      weft_error *err);

#ifdef __cplusplus
}
#endif
#endif
