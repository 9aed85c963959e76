/* text.h - prompts: how many tokens, which ids. Encoding needs a run and is in run.h. */
#ifndef WEFT_TEXT_H
#define WEFT_TEXT_H

#include "base.h"
#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Token ids of a text, without BOS, EOS and padding, however long it is.
 *
 * @param encoder  0 for the first text encoder's tokenizer, 1 for the second's
 * @param ids      may be NULL when cap is 0
 * @param needed   how many ids the text has; may be NULL
 * @return WEFT_E_STATE  the model has no tokenizer; the text says what to give
 *         WEFT_E_ARG, WEFT_E_NOMEM, or WEFT_OK, also when ids were cut at cap
 * @since 0.1
 */
WEFT_API weft_status weft_model_tokenize(const weft_model *model, int32_t encoder, const char *text, int32_t *ids,
                                         size_t cap, size_t *needed, weft_error *err);

/**
 * How many tokens a prompt has, and how many chunks of 75 (at least 1) it takes to encode all of them as they stand.
 * weft_plan_prompt_size() reckons with weights, words and flags. Either result may be NULL. With two text encoders:
 * the larger of both.
 * @since 0.1
 */
WEFT_API weft_status weft_model_prompt_size(const weft_model *model, const char *prompt, int32_t *tokens,
                                            int32_t *chunks, weft_error *err);

#ifdef __cplusplus
}
#endif
#endif
