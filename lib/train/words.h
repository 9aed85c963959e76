/* words.h - words that are learnt: their places behind the vocabulary, and captions that have them.
 *
 * A new word is one or several vectors that follow the vocabulary of each text encoder, as a
 * concept's tokens do in a plan (plan/tokens.c). Here the vectors are numbers of the trainer's flat
 * vector, laid out as wf_words in trainer_internal.h says. This is what recipes with words
 * share. */
#ifndef WF_TRAIN_WORDS_H
#define WF_TRAIN_WORDS_H

#include "concept/concept.h"
#include "model/networks.h"
#include "train/put.h"

enum { WF_NEW_WORDS = 32 };

typedef struct wf_new_word {
    char   *name;       /* as prompts write it and files have it     */
    char   *folded;     /* as captions are searched for it           */
    size_t  folded_len;
    int32_t row;        /* of its first vector behind the vocabulary */
} wf_new_word;

typedef struct wf_new_words {
    weft_allocator alloc;
    int32_t        count;
    wf_new_word    word[WF_NEW_WORDS];
    int32_t        vectors;  /* of each word                                            */
    int32_t        rows;     /* count times vectors                                     */
    int32_t        layers;   /* 1, or the model's cross-attentions                      */
    int32_t        encoders;
    int32_t        width[WF_ENCODERS_MAX];
    size_t         at[WF_ENCODERS_MAX]; /* in a layer, where an encoder's vectors begin */
    size_t         each;     /* floats of a layer                                       */
    size_t         floats;   /* of all                                                  */
    float         *initial;  /* [floats]                                                */
    wf_extra       extra[WF_NEW_WORDS];
    wf_extras      list[WF_ENCODERS_MAX]; /* for wf_prompt_chunk()                      */
} wf_new_words;

typedef struct wf_words_choice {
    const char *tokens;   /* separated by commas                                        */
    const char *initial;  /* likewise: words that they begin as; NULL, or an empty one: random
                             numbers as large as the vocabulary's                       */
    bool        rare;     /* without `initial`: begin as rare words of CLIP's vocabulary */
    int32_t     vectors;
    int32_t     layers;   /* 1, or the model's cross-attentions                         */
} wf_words_choice;

/* WEFT_E_ARG: a word that is empty, twice there, in the vocabulary already, or has more vectors
 * than a prompt takes; an initial word of several tokens that are not as many as the vectors. */
weft_status wf_new_words_create(wf_new_words **out, const weft_model *model,
                                const wf_words_choice *choice, uint64_t seed,
                                const weft_allocator *alloc, weft_error *err);
void        wf_new_words_free(wf_new_words *w);

/* A caption as it is encoded, added to `out`. `{}` stands for the words; `{object}` and `{style}`
 * for a sentence about an object or in a style that has them, which `seed` picks (Textual
 * Inversion's templates). */
void        wf_new_words_fill(const wf_new_words *w, const char *caption, uint64_t seed,
                              wf_text *out);

/* ---- what recipes with words have in common: hooks of wf_recipe ------------------------------ */

/* Make the words that the options name, and say so in `out`; wf_recipe_words_end() lets them go. */
weft_status wf_recipe_words(weft_trainer *t, bool rare, int32_t layers, wf_words *out,
                            weft_error *err);
void        wf_recipe_words_end(weft_trainer *t);
const wf_new_words *wf_trainer_new_words(const weft_trainer *t);
/* The caption with its words filled in. WEFT_E_FORMAT if a picture to learn from has none. */
weft_status wf_recipe_words_caption(const weft_trainer *t, bool class_picture, const char *what,
                                    const char *caption, uint64_t seed, wf_text *out,
                                    weft_error *err);

/* ---- words_file.c: the words in the forms that files have ------------------------------------ */

/* Add their vectors to tensors that are being built, under keys that lib/concept reads, and the
 * metadata that names them. `half`: in float16; WEFT_E_UNSUPPORTED if one is too large for it. */
weft_status wf_new_words_put(const wf_new_words *w, const float *values, bool half,
                             weft_tensors *to, weft_error *err);
/* The words as a concept, with the adapter that was trained with them (NULL: none), which it
 * keeps. */
weft_status wf_new_words_concept(const wf_new_words *w, const float *values, const char *name,
                                 weft_adapter *adapter, weft_concept **out, weft_error *err);

/* For recipes: the concept of the words and an adapter (NULL: none), or what weft_trainer_adapter()
 * gives; and a file of the words alone, with the trainer's metadata. */
weft_status wf_trainer_concept_of(const weft_trainer *t, weft_adapter *adapter,
                                  weft_concept **out, weft_error *err);
weft_status wf_trainer_concept_with_adapter(weft_trainer *t, weft_concept **out, weft_error *err);
weft_status wf_trainer_save_words(weft_trainer *t, const char *path, bool half, weft_error *err);

#endif
