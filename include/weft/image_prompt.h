/* image_prompt.h - pictures as prompts: IP-Adapter.
 *
 * Beside the text each cross-attention of the denoiser sees rows that stand for a picture, through
 * keys and values of their own:
 *
 *     o = attention(q, K, V) + sum over image prompts j of  w_j M_j attention(q, K_j, V_j)
 *
 * A weft_image_encoder turns the picture into features, a weft_image_adapter (the IP-Adapter file)
 * turns these into rows and has the matrices for keys and values. Both are immutable once opened,
 * and usable from any thread. A plan takes any number of image prompts, beside adapters, regions
 * and under any method; each call brings their rows, in weft_step.image.
 *
 * Source: Ye et al., IP-Adapter: Text Compatible Image Prompt Adapter for Text-to-Image Diffusion
 * Models (2023), equation 5; Wang et al., InstantStyle (2024), for weights by block. */
#ifndef WEFT_IMAGE_PROMPT_H
#define WEFT_IMAGE_PROMPT_H

#include "base.h"
#include "plan.h"
#include "run.h"

#ifdef __cplusplus
extern "C" {
#endif

/** CLIP's image encoder with its projection, transformers' CLIPVisionModelWithProjection. */
typedef struct weft_image_encoder weft_image_encoder;
/** An IP-Adapter: an image projection, and keys and values for each cross-attention. */
typedef struct weft_image_adapter weft_image_adapter;

/** For opening either. */
typedef struct weft_image_options {
    uint32_t              struct_size;
    uint32_t              flags;      /* WEFT_OPEN_COPY                  */
    const weft_allocator *allocator;  /* NULL: malloc; copied            */
    weft_log_fn           log;        /* may be NULL                     */
    void                 *log_user;
} weft_image_options;
#define WEFT_IMAGE_OPTIONS_INIT { sizeof(weft_image_options), 0, 0, 0, 0 }
/** The function twin of WEFT_IMAGE_OPTIONS_INIT. @since 0.2 */
WEFT_API void weft_image_options_init(weft_image_options *options, size_t size);

/**
 * Open an image encoder.
 *
 * @param folder   with config.json, and model.safetensors or pytorch_model.bin, whole or in shards
 * @param options  NULL for defaults
 * @return WEFT_E_IO, WEFT_E_FORMAT (a broken file; a tensor is missing, unknown or of another
 *         shape), WEFT_E_UNSUPPORTED (another class, a setting that is not followed; the text names
 *         it), WEFT_E_NOMEM, WEFT_E_ARG
 * @since 0.2
 */
WEFT_API weft_status weft_image_encoder_open(const char *folder, const weft_image_options *options,
                                             weft_image_encoder **out, weft_error *err);
/** Let go of an image encoder. @since 0.2 */
WEFT_API void weft_image_encoder_free(weft_image_encoder *encoder);

typedef struct weft_image_encoder_info {
    uint32_t struct_size;
    int32_t  image_size;  /* side of the picture that it reads, in pixels             */
    int32_t  patch_size;  /* side of a patch, in pixels                               */
    int32_t  tokens;      /* rows of the hidden states: 1 + the patches               */
    int32_t  width;       /* of the hidden states, which PLUS and FULL read           */
    int32_t  pooled;      /* width of the projected vector, which BASE reads          */
    int32_t  layers;
    int32_t  reserved0;
    int64_t  parameters;
} weft_image_encoder_info;
#define WEFT_IMAGE_ENCODER_INFO_INIT { sizeof(weft_image_encoder_info), 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_IMAGE_ENCODER_INFO_INIT. @since 0.2 */
WEFT_API void weft_image_encoder_info_init(weft_image_encoder_info *info, size_t size);
/** Describe an image encoder. @since 0.2 */
WEFT_API weft_status weft_image_encoder_info_get(const weft_image_encoder *encoder,
                                                 weft_image_encoder_info *info, weft_error *err);

/** What an IP-Adapter makes its rows of. */
enum weft_image_kind {
    WEFT_IMAGE_BASE = 1, /* 4 rows of the encoder's projected vector                      */
    WEFT_IMAGE_PLUS = 2, /* as many rows as the file says, resampled from the hidden states */
    WEFT_IMAGE_FULL = 3  /* a row for each hidden state ("full face"), at most 257          */
};

/**
 * Open an IP-Adapter file for SD1.x, SD2.x or SDXL: safetensors or torch.save, in the names of the
 * published files (image_proj.*, ip_adapter.N.to_k_ip.weight).
 *
 * @return WEFT_E_IO, WEFT_E_FORMAT (a broken file, a tensor that is missing, unknown or of another
 *         shape), WEFT_E_UNSUPPORTED (no IP-Adapter; FaceID), WEFT_E_NOMEM, WEFT_E_ARG
 * @since 0.2
 */
WEFT_API weft_status weft_image_adapter_open(const char *path, const weft_image_options *options,
                                             weft_image_adapter **out, weft_error *err);
/** Let go of an IP-Adapter; plans that use it keep it. @since 0.2 */
WEFT_API void weft_image_adapter_free(weft_image_adapter *adapter);

typedef struct weft_image_adapter_info {
    uint32_t    struct_size;
    int32_t     kind;          /* WEFT_IMAGE_*                                                */
    int32_t     features;      /* width of what it reads of the encoder: `pooled` or `width`  */
    int32_t     tokens;        /* rows of one picture; of FULL at most                        */
    int32_t     width;         /* of a row: the text's                                        */
    int32_t     cross_layers;  /* cross-attentions that it has keys and values for            */
    int64_t     parameters;
    const char *name;          /* the file's name; belongs to the adapter                     */
} weft_image_adapter_info;
#define WEFT_IMAGE_ADAPTER_INFO_INIT { sizeof(weft_image_adapter_info), 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_IMAGE_ADAPTER_INFO_INIT. @since 0.2 */
WEFT_API void weft_image_adapter_info_init(weft_image_adapter_info *info, size_t size);
/** Describe an IP-Adapter. @since 0.2 */
WEFT_API weft_status weft_image_adapter_info_get(const weft_image_adapter *adapter,
                                                 weft_image_adapter_info *info, weft_error *err);

/* ---- in a plan ------------------------------------------------------------------------------- */

typedef struct weft_image_prompt_options {
    uint32_t         struct_size;
    uint32_t         flags;     /* zero                                                         */
    const char      *blocks;    /* as weft_plan_set_blocks() takes it, with cross-attentions for
                                   layers; NULL: the weight everywhere                          */
    const weft_mask *mask;      /* where in the image; flags zero; copied; NULL: everywhere     */
    int32_t          images;    /* pictures, side by side as rows of one prompt; 0: 1; at most 64 */
    int32_t          reserved0; /* zero                                                         */
} weft_image_prompt_options;
#define WEFT_IMAGE_PROMPT_OPTIONS_INIT { sizeof(weft_image_prompt_options), 0, 0, 0, 0, 0 }
/** The function twin of WEFT_IMAGE_PROMPT_OPTIONS_INIT. @since 0.2 */
WEFT_API void weft_image_prompt_options_init(weft_image_prompt_options *options, size_t size);

/**
 * Add an image prompt to a plan, which keeps the adapter. Its rows come with each call, in
 * weft_step.image. All branches of a method see it alike; copies of the plan keep it.
 *
 * @param weight   w of the formula; any finite number, 0 leaves the result bit for bit
 * @param options  NULL for defaults
 * @return WEFT_E_MISMATCH (an IP-Adapter for another base model; a pattern without a layer),
 *         WEFT_E_ARG (block weights, a mask), WEFT_E_UNSUPPORTED (more than 16 image prompts),
 *         WEFT_E_STATE (sealed), WEFT_E_NOMEM
 * @since 0.2
 */
WEFT_API weft_status weft_plan_add_image_prompt(weft_plan *plan, weft_image_adapter *adapter,
                                                float weight,
                                                const weft_image_prompt_options *options,
                                                weft_error *err);
/**
 * Change the weight of image prompt `index`, 0 the first that was added.
 *
 * @return WEFT_E_STATE (sealed), WEFT_E_ARG
 * @since 0.2
 */
WEFT_API weft_status weft_plan_set_image_weight(weft_plan *plan, int32_t index, float weight,
                                                weft_error *err);
/**
 * Let the weight of image prompt `index` follow a curve over the calls; as weft_plan_set_curve().
 *
 * @since 0.2
 */
WEFT_API weft_status weft_plan_set_image_curve(weft_plan *plan, int32_t index, uint32_t flags,
                                               const weft_curve_point *points, size_t count,
                                               weft_error *err);
/**
 * Take image prompt `index` away; those after it move up by one.
 *
 * @return WEFT_E_STATE (sealed), WEFT_E_ARG
 * @since 0.2
 */
WEFT_API weft_status weft_plan_remove_image_prompt(weft_plan *plan, int32_t index,
                                                   weft_error *err);
/** Number of image prompts; 0 for NULL. @since 0.2 */
WEFT_API int32_t weft_plan_image_prompts(const weft_plan *plan);

typedef struct weft_image_prompt_info {
    uint32_t    struct_size;
    int32_t     kind;     /* WEFT_IMAGE_*                                                  */
    const char *name;     /* of the file; belongs to the plan, as does blocks              */
    const char *blocks;   /* as given, or ""                                               */
    float       weight;
    int32_t     images;
    int32_t     tokens;   /* rows of all its pictures, at most                             */
    int32_t     width;    /* floats of a row                                               */
    int32_t     layers;   /* cross-attentions of the model that it reaches                 */
    int32_t     masked;   /* 1: it has a mask                                              */
} weft_image_prompt_info;
#define WEFT_IMAGE_PROMPT_INFO_INIT { sizeof(weft_image_prompt_info), 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_IMAGE_PROMPT_INFO_INIT. @since 0.2 */
WEFT_API void weft_image_prompt_info_init(weft_image_prompt_info *info, size_t size);
/** Describe image prompt `index`. WEFT_E_ARG past the end. @since 0.2 */
WEFT_API weft_status weft_plan_image_prompt(const weft_plan *plan, int32_t index,
                                            weft_image_prompt_info *info, weft_error *err);
/**
 * The weight of each image prompt at each call of a sealed plan: its own times its curve.
 *
 * @param weights  (calls, image prompts), written
 * @return WEFT_E_STATE (not sealed), WEFT_E_ARG (NULL, a length)
 * @since 0.2
 */
WEFT_API weft_status weft_plan_image_weights(const weft_plan *plan, float *weights, size_t len,
                                             weft_error *err);

/* ---- in a run -------------------------------------------------------------------------------- */

/** A picture to encode; inputs first, then what the call fills in. */
typedef struct weft_image_encode {
    uint32_t                  struct_size;
    uint32_t                  flags;     /* zero                                                 */
    const weft_image_encoder *encoder;   /* NULL is enough for a BASE adapter without a picture  */
    const float              *image;     /* (3, height, width), read, 0..1; NULL: no picture, for
                                            the unconditional half                               */
    size_t                    image_len;
    int32_t                   height;    /* of the picture, 1 to 16384                           */
    int32_t                   width;
    int32_t                   prompt;    /* the plan's image prompt that it is for               */
    int32_t                   tokens;    /* out: rows written                                    */
    float                    *data;      /* (tokens, width) written                              */
    size_t                    len;       /* room in floats: at least weft_image_adapter_info's
                                            tokens * width, or with FULL the encoder's tokens    */
} weft_image_encode;
#define WEFT_IMAGE_ENCODE_INIT { sizeof(weft_image_encode), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_IMAGE_ENCODE_INIT. @since 0.2 */
WEFT_API void weft_image_encode_init(weft_image_encode *encode, size_t size);

/**
 * Turn a picture into the rows of an image prompt, with the run's threads. Takes memory of its own
 * for the time of the call.
 *
 * The picture is rounded to bytes, its shorter side brought to the encoder's size by Pillow's
 * bicubic filter, the middle cut out, and the channels normalised by CLIP's mean and deviation: as
 * transformers' CLIPImageProcessor does it. Without a picture a BASE adapter projects a vector of
 * zeros, the others what the encoder makes of normalised pixels of zero: diffusers' unconditional
 * half.
 *
 * @return WEFT_E_MISMATCH (an encoder of another width than the IP-Adapter's features), WEFT_E_ARG
 *         (a length, a size, a picture that is not finite, no such prompt), WEFT_E_NOT_FINITE,
 *         WEFT_E_CANCELLED, WEFT_E_NOMEM; data is then unspecified
 * @since 0.2
 */
WEFT_API weft_status weft_run_encode_image_prompt(weft_run *run, weft_image_encode *encode,
                                                  weft_error *err);

#ifdef __cplusplus
}
#endif
#endif
