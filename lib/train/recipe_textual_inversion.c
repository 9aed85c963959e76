/* recipe_textual_inversion.c - the vectors of a new word, and nothing else.
 *
 * Gal et al., An Image is Worth One Word: Personalizing Text-to-Image Generation using Textual
 * Inversion (2022). Captions are sentences with the word in them; `{object}` and `{style}` are
 * templates, of which each sample gets one at random, as the authors do it. SDXL's words have
 * vectors for both text encoders, trained together. */
#include "train/words.h"

static weft_status words(weft_trainer *t, wf_words *out, weft_error *err)
{
    return wf_recipe_words(t, false, 1, out, err);
}

static weft_status concept(weft_trainer *t, weft_concept **out, weft_error *err)
{
    return wf_trainer_concept_of(t, NULL, out, err);
}

static weft_status save(weft_trainer *t, const char *path, int32_t dialect, bool half,
                        weft_error *err)
{
    if (dialect != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "textual-inversion has one form of file: dialect is %d, wanted 0",
                       (int)dialect);
    return wf_trainer_save_words(t, path, half, err);
}

const wf_recipe wf_recipe_textual_inversion = {
    .id = WEFT_RECIPE_TEXTUAL_INVERSION,
    .name = "textual-inversion",
    .uses = WF_USES_WORDS,
    .defaults = { .rate = 5e-4, .weight_decay = 1e-2, .steps = 3000, .vectors = 1 },
    .end = wf_recipe_words_end,
    .words = words,
    .caption = wf_recipe_words_caption,
    .concept = concept,
    .save = save,
};
