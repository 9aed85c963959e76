/* adapter.h - opening an adapter, reading what it holds, checking it against a model, writing
 * it. */
#ifndef WEFT_ADAPTER_H
#define WEFT_ADAPTER_H

#include "base.h"
#include "model.h"
#include "tensors.h"

#ifdef __cplusplus
extern "C" {
#endif

/** An adapter: what it adds to named layers. Immutable; independent of any model; any thread. */
typedef struct weft_adapter weft_adapter;

typedef struct weft_adapter_options {
    uint32_t              struct_size;
    uint32_t              flags;       /* WEFT_OPEN_COPY */
    const weft_allocator *allocator;   /* NULL: malloc; copied */
    weft_log_fn           log;         /* may be NULL */
    void                 *log_user;
    const char           *config;      /* path of a PEFT adapter_config.json; NULL: the one beside
                                          the file                                            */
    const char           *name;        /* what reports call it; NULL: the file's name without its
                                          ending, or the tensors' name */
    const char           *config_text; /* a PEFT configuration itself, not a path; or NULL */
    float                 alpha;       /* of the modules whose alpha nothing in the file says; 0:
                                          not given. @since 0.2                               */
    float                 scale;       /* or, in alpha's place, their scale; 0: not given. For a
                                          file whose rank is not known either. @since 0.2     */
} weft_adapter_options;
#define WEFT_ADAPTER_OPTIONS_INIT { sizeof(weft_adapter_options), 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_ADAPTER_OPTIONS_INIT. @since 0.1 */
WEFT_API void weft_adapter_options_init(weft_adapter_options *options, size_t size);

/**
 * Open an adapter: a safetensors file, a pickle (.pt, .bin: read, never executed), or a folder that
 * PEFT or diffusers wrote (adapter_model with adapter_config.json, pytorch_lora_weights or
 * pytorch_custom_diffusion_weights; each .safetensors or .bin).
 *
 * The keys decide dialect and family, module by module, never the file's name. Factors must agree
 * in rank, and be finite.
 *
 * alpha is looked for in the module's tensors, in the configuration, and in the file's metadata.
 * Where nothing says it, `options` may; else a module in PEFT's dialect is refused, and any other
 * gets scale 1 with a warning to `log`. A warning is also given of scales that no training gives
 * (beyond 1000, or under 0.0001).
 *
 * @return WEFT_E_IO, WEFT_E_FORMAT (broken, ranks that disagree, a value that is not finite),
 *         WEFT_E_UNSUPPORTED (a family or dialect this version does not apply, or nothing says
 *         alpha; the text names the key), WEFT_E_NOMEM, WEFT_E_ARG (also: `alpha` or `scale` is
 *         given and no module lacks it)
 * @since 0.1
 */
WEFT_API weft_status weft_adapter_open(const char *path, const weft_adapter_options *options,
                                       weft_adapter **out, weft_error *err);
/**
 * Make an adapter from named tensors, with the reader that files go through: names are those of any
 * dialect, and metadata is what the file's would be. The same tensors give the same bits as a file
 * that holds them.
 *
 * PEFT's names do not distinguish the two text encoders; without a folder's name they mean the
 * first.
 *
 * @param tensors  of weft_tensors_create() or weft_tensors_open(). The adapter keeps them: the
 *                 caller's handle may be freed. Memory that they borrow must stay as it is until
 *                 the adapter is freed
 * @param options  may be NULL; WEFT_OPEN_COPY does not apply
 * @return as weft_adapter_open()
 * @since 0.2
 */
WEFT_API weft_status weft_adapter_create(weft_tensors *tensors, const weft_adapter_options *options,
                                         weft_adapter **out, weft_error *err);
/** Let go of an adapter; plans that use it keep it alive. @since 0.1 */
WEFT_API void weft_adapter_free(weft_adapter *adapter);

typedef struct weft_adapter_info {
    uint32_t    struct_size;
    int32_t     base;            /* WEFT_BASE_* that the shapes point to */
    const char *name;
    const char *dialect;         /* "kohya", "diffusers", "peft", ...; joined by " + " if mixed */
    const char *family;          /* "lora", "loha", "dora", ...; joined by " + " if mixed */
    const char *kind;            /* what the whole file is, if known: "B-LoRA", "ZipLoRA",
                                    "ED-LoRA", "Custom Diffusion", ...; else "" */
    const char *base_name;       /* "SD1.x", "SDXL", ... or "unknown" */
    int32_t     modules;         /* modules with factors */
    int32_t     denoiser_modules; /* of those, in the denoiser */
    int32_t     text_modules;    /* of those, in a text encoder */
    int32_t     conv_modules;    /* of those, k x k convolutions */
    int32_t     rank_min;
    int32_t     rank_max;
    int64_t     parameters;
    int64_t     bytes;           /* of the file; 0 if it was made in memory */
    int32_t     norm_modules;    /* of the modules, normalisations */
    int32_t     tokens;          /* embeddings of tokens in the file: for a concept */
} weft_adapter_info;
#define WEFT_ADAPTER_INFO_INIT \
    { sizeof(weft_adapter_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_ADAPTER_INFO_INIT. @since 0.1 */
WEFT_API void weft_adapter_info_init(weft_adapter_info *info, size_t size);
/** Describe an adapter. @since 0.1 */
WEFT_API weft_status weft_adapter_info_get(const weft_adapter *adapter, weft_adapter_info *info,
                                           weft_error *err);

/** What says a module's alpha. @since 0.2 */
enum weft_alpha_source {
    WEFT_ALPHA_UNUSED   = 0, /* it has no part in what the module does */
    WEFT_ALPHA_TENSOR   = 1, /* a tensor of the file */
    WEFT_ALPHA_CONFIG   = 2, /* PEFT's configuration: adapter_config.json, or the one given */
    WEFT_ALPHA_METADATA = 3, /* the file's metadata */
    WEFT_ALPHA_OPTION   = 4, /* weft_adapter_options.alpha or .scale */
    WEFT_ALPHA_UNSAID   = 5  /* nothing: the scale is 1 */
};

/** One module of an adapter. */
typedef struct weft_module_info {
    uint32_t    struct_size;
    int32_t     rank;
    const char *name;     /* canonical layer name if the key shows it, else the file's own */
    const char *key;      /* the file's key, without the ending that names the factor */
    int64_t     out;      /* 0 if the file does not say ((IA)^3, OFT, a bias): ask the layer */
    int64_t     in;       /* 0 as out */
    int32_t     kernel;   /* k of a k x k convolution, 1 for others; 0 as out */
    float       alpha;    /* as stored; the rank if the file has none */
    float       scale;    /* the factor of the family's product: alpha / rank, alpha /
                             sqrt(rank) for rsLoRA; 1 for families without one */
    int32_t     has_alpha;
    const char *family;   /* "lora", "loha", ... */
    const char *alpha_key; /* what alpha is called there: a tensor's key, a setting, a pattern, a
                              key of the metadata, an option; or "". @since 0.2 */
    int32_t     alpha_source; /* WEFT_ALPHA_*. @since 0.2 */
    int32_t     zero_alpha;   /* the file says 0, which in kohya's files stands for the rank, and
                                 `alpha` is that. @since 0.2 */
} weft_module_info;
#define WEFT_MODULE_INFO_INIT { sizeof(weft_module_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_MODULE_INFO_INIT. @since 0.1 */
WEFT_API void weft_module_info_init(weft_module_info *info, size_t size);
/** Describe module `index`, 0 <= index < weft_adapter_info.modules. @since 0.1 */
WEFT_API weft_status weft_adapter_module(const weft_adapter *adapter, size_t index,
                                         weft_module_info *info, weft_error *err);

/** "tensor", "configuration", "metadata", "option", "not said", "unused"; "unknown" for other
 * values. @since 0.2 */
WEFT_API const char *weft_alpha_source_name(int32_t source);
/** Number of groups of modules: those of one family that have rank, alpha, scale and the place that
 * says alpha in common. @since 0.2 */
WEFT_API size_t weft_adapter_group_count(const weft_adapter *adapter);
/**
 * Describe group `index`, in the order of the file.
 *
 * @param first    filled with the first of its modules
 * @param modules  how many it has; may be NULL
 * @return WEFT_E_ARG
 * @since 0.2
 */
WEFT_API weft_status weft_adapter_group(const weft_adapter *adapter, size_t index,
                                        weft_module_info *first, size_t *modules, weft_error *err);

/** Dialects in which an adapter can be written. */
enum weft_dialect {
    WEFT_DIALECT_KOHYA     = 1, /* lora_unet_... .lora_down.weight with .alpha, and LyCORIS' keys.
                                   Refused: PEFT's own OFT, BOFT and (IA)^3, and whole weights in a
                                   layer's place                                               */
    WEFT_DIALECT_DIFFUSERS = 2, /* unet. ... .lora_A.weight, alpha in the metadata: LoRA and DoRA
                                   of rows                                                     */
    WEFT_DIALECT_PEFT      = 3  /* a folder, in it one for each component: adapter_model.safetensors
                                   with adapter_config.json; the families that PEFT has, one in
                                   each component                                              */
};
enum weft_save_flag {
    WEFT_SAVE_HALF = 1u << 0  /* factors as F16, and WEFT_E_UNSUPPORTED where one is beyond it;
                                 else they stay in the type that they have                  */
};
typedef struct weft_save_options {
    uint32_t struct_size;
    uint32_t flags;       /* WEFT_SAVE_*                                                   */
    int32_t  dialect;     /* WEFT_DIALECT_*; 0: KOHYA                                      */
    int32_t  reserved0;   /* zero                                                          */
} weft_save_options;
#define WEFT_SAVE_OPTIONS_INIT { sizeof(weft_save_options), 0, 0, 0 }
/** The function twin of WEFT_SAVE_OPTIONS_INIT. @since 0.1 */
WEFT_API void weft_save_options_init(weft_save_options *options, size_t size);
/**
 * Write an adapter for a model in another dialect. The factors stay what they are, and each file
 * appears whole or not at all. Every key must match the model.
 *
 * If a dialect has no name for a mixer (MoSLoRA), AdaLoRA's weights (all except PEFT) or a Tucker
 * core (all except kohya), these are multiplied into the inner factor. Metadata of the file is kept
 * in kohya's dialect; in diffusers' only what weft's trainer says, under "weft.".
 *
 * @param path  the file, or for WEFT_DIALECT_PEFT the folder, which is made
 * @return WEFT_E_MISMATCH, WEFT_E_UNSUPPORTED (the dialect has no form for a family; the text names
 *         both), WEFT_E_IO, WEFT_E_NOMEM, WEFT_E_ARG
 * @since 0.1
 */
WEFT_API weft_status weft_adapter_save(weft_adapter *adapter, weft_model *model, const char *path,
                                       const weft_save_options *options, weft_error *err);

/** Number of metadata pairs of the file. @since 0.1 */
WEFT_API size_t weft_adapter_metadata_count(const weft_adapter *adapter);
/** Key of metadata pair `index`, or NULL past the end. @since 0.1 */
WEFT_API const char *weft_adapter_metadata_key(const weft_adapter *adapter, size_t index);
/** Value of metadata pair `index`, or NULL past the end. @since 0.1 */
WEFT_API const char *weft_adapter_metadata_value(const weft_adapter *adapter, size_t index);
/** Value of a metadata key, or NULL. @since 0.1 */
WEFT_API const char *weft_adapter_metadata(const weft_adapter *adapter, const char *key);

/** What became of a key of the file. */
enum weft_key_state {
    WEFT_KEY_MATCHED        = 1, /* its factors apply to a layer                       */
    WEFT_KEY_UNMATCHED      = 2, /* the model has no such layer                        */
    WEFT_KEY_SHAPE_MISMATCH = 3, /* the model's layer has another shape                */
    WEFT_KEY_IGNORED        = 4  /* understood and without effect; the reason says why */
};

/** The binding of one adapter to one model: every key of the file with what became of it. */
typedef struct weft_report weft_report;

typedef struct weft_report_row {
    uint32_t    struct_size;
    int32_t     state;    /* WEFT_KEY_*                                          */
    const char *key;      /* as in the file                                      */
    const char *layer;    /* canonical name of the layer, or "" if there is none */
    const char *reason;   /* "" when matched                                     */
    int64_t     layer_id; /* of the model, or -1                                 */
} weft_report_row;
#define WEFT_REPORT_ROW_INIT { sizeof(weft_report_row), 0, 0, 0, 0, 0 }
/** The function twin of WEFT_REPORT_ROW_INIT. @since 0.1 */
WEFT_API void weft_report_row_init(weft_report_row *row, size_t size);

/**
 * Check an adapter against a model without making a plan. A report is made whatever the outcome,
 * and keeps both alive.
 *
 * @return WEFT_E_NOMEM, WEFT_E_ARG, or WEFT_OK, also if nothing matches
 * @since 0.1
 */
WEFT_API weft_status weft_report_create(weft_model *model, weft_adapter *adapter, weft_report **out,
                                        weft_error *err);
/** @since 0.1 */
WEFT_API void weft_report_free(weft_report *report);
/** Number of keys of the file. @since 0.1 */
WEFT_API size_t weft_report_count(const weft_report *report);
/** Row `index`, in the file's order of data. @since 0.1 */
WEFT_API weft_status weft_report_get(const weft_report *report, size_t index, weft_report_row *row,
                                     weft_error *err);
/** How many keys are in this state. @since 0.1 */
WEFT_API size_t weft_report_tally(const weft_report *report, int32_t state);
/** One line: "384 of 384 keys matched (192 modules)", or what is wrong first. @since 0.1 */
WEFT_API const char *weft_report_line(const weft_report *report);

#ifdef __cplusplus
}
#endif
#endif
