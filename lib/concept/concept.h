/* concept.h (internal) - tokens with their vectors, for plans. */
#ifndef WF_CONCEPT_H
#define WF_CONCEPT_H

#include "adapter/adapter.h"
#include "weft/concept.h"

/* Vectors of one text encoder: (n, width), n the token's vectors, or its layers if it has one for
 * each. */
typedef struct wf_vectors {
    float  *v;     /* NULL: none */
    int32_t width;
} wf_vectors;

typedef struct wf_concept_token {
    char      *name;       /* as the file or the caller writes it */
    char      *folded;     /* as prompts are searched for it      */
    size_t     folded_len;
    char      *also;       /* another name, the file's, and as it is looked for; NULL: none */
    char      *also_folded;
    size_t     also_len;
    int32_t    vectors;
    int32_t    layers;
    wf_vectors of[2];      /* of the first and the second encoder if the file tells them apart; else of[0] */
} wf_concept_token;

enum { WF_CONCEPT_TOKENS = 256 }; /* most of one concept */

/* A concept of what a file's tensors would be, and an adapter (NULL: none), which it keeps. */
weft_status             wf_concept_create(const weft_tensors *t, const char *name,
                                          weft_adapter *adapter, const weft_allocator *allocator,
                                          weft_concept **out, weft_error *err);
/* Why a folded token cannot be looked for in prompts, as in "token 1 is empty"; or NULL. */
const char             *wf_token_unfit(const char *folded, size_t len);
void                    wf_concept_ref(weft_concept *c);
const char             *wf_concept_name(const weft_concept *c);
weft_adapter           *wf_concept_adapter(const weft_concept *c); /* borrowed; NULL: none */
size_t                  wf_concept_tokens(const weft_concept *c);
/* What weft_concept_open() was given; a second file without a path: none; tokens NULL: none. */
const wf_origin        *wf_concept_file(const weft_concept *c);
const wf_origin        *wf_concept_second(const weft_concept *c);
const char             *wf_concept_names(const weft_concept *c);
const wf_concept_token *wf_concept_token_at(const weft_concept *c, size_t i);

/* ---- read.c: the tokens in a file's tensors -------------------------------------------------- */

typedef struct wf_token_list {
    const weft_allocator *alloc;
    wf_concept_token     *tokens; /* [WF_CONCEPT_TOKENS]                          */
    size_t                count;
    const char           *format; /* NULL: no token found                        */
    char                  other[128]; /* the first of the file's other tensors, an adapter's; "": none */
} wf_token_list;
/* `stem` is the file's name without its ending: what a token is called that the file does not
 * name. */
weft_status wf_tokens_read(wf_token_list *list, const weft_tensors *t, const char *stem,
                           const weft_allocator *alloc, weft_error *err);
void        wf_token_list_free(wf_token_list *list);

/* ---- forms.c: what keys mean ----------------------------------------------------------------- */

/* How a key's tensor is a token. */
typedef enum wf_token_shape {
    WF_TOKEN_WHOLE,  /* (d) or (n, d): one token                                   */
    WF_TOKEN_ROWS,   /* (n, d): n tokens, <new1>, <new2>, ...                      */
    WF_TOKEN_LAYERS, /* (l, d): one token, a vector for each cross-attention layer */
    WF_TOKEN_NONE    /* stands beside tokens in their files, and is of no use      */
} wf_token_shape;

typedef struct wf_token_form {
    const char   *key;      /* pattern: @ is the token's name, * any run of characters, the rest itself */
    wf_token_shape shape;
    int32_t       encoder;  /* 0 or 1; -1: the file does not say                                       */
    const char   *format;   /* what files with such a key are; NULL: as their other keys say           */
} wf_token_form;
/* The form of a key, and the part of it that is the token's name (*len 0 if the key has none);
 * NULL: no token's. */
const wf_token_form *wf_token_form_of(const char *key, const char **name, size_t *len);

#endif
