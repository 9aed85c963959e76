/* concept.h - placeholder tokens with their embeddings, and perhaps the adapter that belongs to
 * them. */
#ifndef WEFT_CONCEPT_H
#define WEFT_CONCEPT_H

#include "adapter.h"
#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * A concept: one or several placeholder tokens with their embeddings (Textual Inversion, Gal et al.
 * 2022), and the adapter that was trained with them if the file has one (Custom Diffusion, ED-LoRA,
 * a LoRA bundle). Immutable; independent of any model.
 */
typedef struct weft_concept weft_concept;

typedef struct weft_concept_options {
    uint32_t              struct_size;
    uint32_t              flags;      /* WEFT_OPEN_COPY                                        */
    const weft_allocator *allocator;  /* NULL: malloc; copied                                  */
    weft_log_fn           log;        /* may be NULL                                           */
    void                 *log_user;
    const char           *tokens;     /* what prompts call the tokens, separated by commas, in the
                                         file's order; NULL: as the file says, else the file's name
                                         without its ending. A file with one token and no adapter
                                         gives it under both                                   */
    const char           *second;     /* the other file of a pair: the second text encoder's
                                         vectors of the same token, or the tokens of an adapter
                                         whose file has none; or NULL                          */
} weft_concept_options;
#define WEFT_CONCEPT_OPTIONS_INIT { sizeof(weft_concept_options), 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_CONCEPT_OPTIONS_INIT. @since 0.1 */
WEFT_API void weft_concept_options_init(weft_concept_options *options, size_t size);

/**
 * Open a concept: a textual inversion in any of its forms (diffusers, A1111, CompVis, kohya, SDXL's
 * pair), Custom Diffusion, ED-LoRA, cloneofsimo's embeddings, a bundle. Pickles are read and never
 * executed.
 *
 * @return WEFT_E_IO, WEFT_E_FORMAT, WEFT_E_UNSUPPORTED (no token in the file; the text says what it
 *         is instead), WEFT_E_NOMEM, WEFT_E_ARG
 * @since 0.1
 */
WEFT_API weft_status weft_concept_open(const char *path, const weft_concept_options *options,
                                       weft_concept **out, weft_error *err);
/** Let go of a concept; plans that use it keep it alive. @since 0.1 */
WEFT_API void weft_concept_free(weft_concept *handle);

typedef struct weft_concept_info {
    uint32_t    struct_size;
    int32_t     tokens;
    const char *name;     /* the file's name without its ending */
    const char *format;   /* "textual inversion (A1111)", "Custom Diffusion", "ED-LoRA", ... */
    int32_t     adapter;  /* 1 if it has one */
    int32_t     reserved0;
} weft_concept_info;
#define WEFT_CONCEPT_INFO_INIT { sizeof(weft_concept_info), 0, 0, 0, 0, 0 }
/** The function twin of WEFT_CONCEPT_INFO_INIT. @since 0.1 */
WEFT_API void weft_concept_info_init(weft_concept_info *info, size_t size);
/** Describe a concept. @since 0.1 */
WEFT_API weft_status weft_concept_info_get(const weft_concept *handle, weft_concept_info *info,
                                           weft_error *err);

typedef struct weft_token_info {
    uint32_t    struct_size;
    int32_t     vectors;  /* places that it takes in a prompt */
    const char *token;    /* as prompts write it */
    int32_t     width;    /* of the first text encoder's vectors; 0: none for it */
    int32_t     width_2;  /* of the second's vectors; 0 if the file has one width: then it may
                             belong to either                                                */
    int32_t     layers;   /* 0, or one vector for each of so many cross-attention layers
                             (ED-LoRA)                                                       */
    int32_t     reserved0;
    const char *also;     /* the file's name where it is another: prompts may write that too,
                             unless it is a word of the vocabulary (WEFT_ADD_REPLACE takes it
                             all the same) or another concept of the plan has it; NULL: none.
                             @since 0.2                                                      */
} weft_token_info;
#define WEFT_TOKEN_INFO_INIT { sizeof(weft_token_info), 0, 0, 0, 0, 0, 0, 0 }
/** The function twin of WEFT_TOKEN_INFO_INIT. @since 0.1 */
WEFT_API void weft_token_info_init(weft_token_info *info, size_t size);
/** Describe token `index`, 0 <= index < weft_concept_info.tokens. @since 0.1 */
WEFT_API weft_status weft_concept_token(const weft_concept *handle, size_t index,
                                        weft_token_info *info, weft_error *err);
/**
 * A new reference to the concept's adapter, which the caller frees with weft_adapter_free(); NULL
 * if it has none.
 * @since 0.2
 */
WEFT_API weft_adapter *weft_concept_adapter(const weft_concept *handle);

#ifdef __cplusplus
}
#endif
#endif
