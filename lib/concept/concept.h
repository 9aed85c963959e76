/* concept.h (internal) - words with their vectors, for the plan that gives them to prompts. */
#ifndef WF_CONCEPT_H
#define WF_CONCEPT_H

#include "adapter/adapter.h"
#include "weft/concept.h"

/* Vectors of one text encoder: (n, width), n the word's vectors, or its layers where it has one for each. */
typedef struct wf_vectors {
    float  *v;     /* NULL: none */
    int32_t width;
} wf_vectors;

typedef struct wf_concept_word {
    char      *word;       /* as the file or the caller writes it */
    char      *folded;     /* as prompts are searched for it      */
    size_t     folded_len;
    int32_t    vectors;
    int32_t    layers;
    wf_vectors of[2];      /* of the first and the second encoder where the file tells them apart; else of[0] */
} wf_concept_word;

enum { WF_CONCEPT_WORDS = 256 }; /* most of one concept */

void                   wf_concept_ref(weft_concept *c);
const char            *wf_concept_name(const weft_concept *c);
size_t                 wf_concept_words(const weft_concept *c);
const wf_concept_word *wf_concept_word_at(const weft_concept *c, size_t i);

/* ---- read.c: the words in a file's tensors ------------------------------------------------------- */

typedef struct wf_word_list {
    const weft_allocator *alloc;
    wf_concept_word      *words;  /* [WF_CONCEPT_WORDS] */
    size_t                count;
    const char           *format; /* NULL: no word found                         */
    char                  other[128]; /* the first of the file's other tensors, an adapter's; "": none */
} wf_word_list;
/* `stem` is the file's name without its ending: what a word is called that the file does not name. */
weft_status wf_words_read(wf_word_list *list, const weft_tensors *t, const char *stem, const weft_allocator *alloc,
                          weft_error *err);
void        wf_word_list_free(wf_word_list *list);

/* ---- forms.c: what keys mean --------------------------------------------------------------------- */

/* How a key's tensor is a word. */
typedef enum wf_word_shape {
    WF_WORD_WHOLE,  /* (d) or (n, d): one word               */
    WF_WORD_ROWS,   /* (n, d): n words, <new1>, <new2>, ...  */
    WF_WORD_LAYERS, /* (l, d): one word, a vector for each cross-attention layer */
    WF_WORD_NONE    /* beside words in their files, and of no use */
} wf_word_shape;

typedef struct wf_word_form {
    const char   *key;      /* pattern: @ is the word's name, * any run of characters, the rest itself */
    wf_word_shape shape;
    int32_t       encoder;  /* 0 or 1; -1: the file does not say                                       */
    const char   *format;   /* what files with such a key are; NULL: as their other keys say           */
} wf_word_form;
/* The form of a key, and the part of it that is the word's name (*len 0 where the key has none); NULL: no word's. */
const wf_word_form *wf_word_form_of(const char *key, const char **name, size_t *len);

#endif
