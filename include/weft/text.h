/* text.h - prompts: how many tokens, which ids, and the buffers that hold their embeddings.
 * Encoding is in run.h. */
#ifndef WEFT_TEXT_H
#define WEFT_TEXT_H

#include "base.h"
#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * The text of one stream: weft_run_encode() writes `data`, weft_run_step() only reads it. Both take
 * an array with one entry for each stream of the model, in the order of weft_model_text(); so what
 * was encoded is handed to the step as it is. All entries of an array have the struct_size of the
 * first.
 *
 *   sequence   (T, width), or (cross_layers, T, width) with rows of their own for each
 *              cross-attention layer
 *   pooled     (width)
 *
 * A step also takes one such block for each sample, and with WEFT_STEP_TEXT_PER_BRANCH for each
 * branch; see weft_step. weft_run_text() fills in `tokens` and `len`.
 */
typedef struct weft_text {
    uint32_t struct_size;
    uint32_t flags;        /* zero */
    float   *data;         /* the caller's; to encode: NULL if this stream is not wanted */
    size_t   len;          /* floats of data */
    int32_t  tokens;       /* T, rows of a sequence; 0: one chunk. To encode: a multiple of one
                              chunk */
    int32_t  cross_layers; /* 0: the same rows for every layer; else weft_text_info.cross_layers,
                              in order of execution */
} weft_text;
#define WEFT_TEXT_INIT { sizeof(weft_text), 0, 0, 0, 0, 0 }
/** The function twin of WEFT_TEXT_INIT. @since 0.2 */
WEFT_API void weft_text_init(weft_text *text, size_t size);

/** Token ids for one text encoder, with BOS, EOS and padding in place. */
typedef struct weft_ids {
    uint32_t       struct_size;
    uint32_t       flags;     /* zero                                */
    const int32_t *ids;       /* whole chunks, one after the other   */
    size_t         len;
    int32_t        component; /* WEFT_COMPONENT_TEXT_1, ..           */
    int32_t        reserved0; /* zero                                */
} weft_ids;
#define WEFT_IDS_INIT { sizeof(weft_ids), 0, 0, 0, 0, 0 }
/** The function twin of WEFT_IDS_INIT. @since 0.2 */
WEFT_API void weft_ids_init(weft_ids *ids, size_t size);

/**
 * Token ids of a text, without BOS, EOS and padding, however long it is.
 *
 * @param component  the text encoder whose tokenizer is used: WEFT_COMPONENT_TEXT_1, ..
 * @param ids        room for cap ids; may be NULL when cap is 0
 * @param needed     how many ids the text has; may be NULL
 * @return WEFT_OK, also when ids were cut at cap;
 *         WEFT_E_STATE  the model has no tokenizer; the text says what to give
 *         WEFT_E_ARG    a NULL, or the model has no such text encoder
 *         WEFT_E_NOMEM
 * @since 0.1
 */
WEFT_API weft_status weft_model_tokenize(const weft_model *model, int32_t component,
                                         const char *text, int32_t *ids, size_t cap, size_t *needed,
                                         weft_error *err);

/**
 * How many tokens a prompt has, without BOS and EOS, and how many chunks (at least 1) it takes to
 * encode all of them as they stand: CLIP's chunk holds 75. weft_plan_prompt_size() accounts for
 * prompt weights, placeholder tokens and flags. Either result may be NULL. With several text
 * encoders: the largest.
 * @since 0.1
 */
WEFT_API weft_status weft_model_prompt_size(const weft_model *model, const char *prompt,
                                            int32_t *tokens, int32_t *chunks, weft_error *err);

#ifdef __cplusplus
}
#endif
#endif
