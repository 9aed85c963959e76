/* prompt.h - the language of prompts: which words weigh more, and which chunk each token falls into. */
#ifndef WF_PROMPT_H
#define WF_PROMPT_H

#include "model/model.h"

/* A stretch of a prompt whose words weigh the same, or a BREAK. */
typedef struct wf_piece {
    size_t begin, len; /* in wf_prompt.text */
    double weight;
    bool   ends_chunk; /* BREAK: no text */
} wf_piece;

typedef struct wf_prompt {
    const weft_allocator *alloc;
    char     *text;   /* what is to be tokenized, escapes and brackets gone */
    size_t    len;
    wf_piece *pieces;
    size_t    count;
    size_t    cap;
} wf_prompt;
/* `weights` reads the language of weights; otherwise the prompt is one piece, whatever it contains. */
weft_status wf_prompt_parse(wf_prompt *p, const char *prompt, bool weights, const weft_allocator *alloc,
                            weft_error *err);
void        wf_prompt_free(wf_prompt *p);

/* Length of ":number)" at s[at], or 0, and where the number is. */
size_t wf_prompt_weight_at(const char *s, size_t n, size_t at, size_t *number, size_t *number_len);

/* misread.c: what other programs act on, and is read as words here. */
typedef enum wf_misread_kind {
    WF_MISREAD_NETWORK,   /* <lora:name:0.8>                                      */
    WF_MISREAD_EMBEDDING, /* embedding:name                                       */
    WF_MISREAD_TOKEN,     /* <name>, unless it is a token: that the caller knows  */
    WF_MISREAD_WEIGHT,    /* (word:1.3) where weights are not read                */
    WF_MISREAD_BREAK,     /* BREAK there                                          */
    WF_MISREAD_CHANGE,    /* [cat:dog:0.5]                                        */
    WF_MISREAD_AND,       /* cat AND dog                                          */
    WF_MISREAD_CHOICE,    /* {cat|dog}                                            */
    WF_MISREAD_KINDS
} wf_misread_kind;
typedef struct wf_misread {
    wf_misread_kind kind;
    size_t          at, len; /* in the prompt                                   */
    size_t          from;    /* where to go on                                  */
    size_t          open;    /* behind the round bracket that is open; 0: none  */
} wf_misread;
/* The next one; all is zero before the first. False: there is no more. */
bool        wf_prompt_misread(const char *prompt, size_t n, bool weights, wf_misread *out);
const char *wf_misread_says(wf_misread_kind kind); /* what to do */

/* The tokens of a prompt for one text encoder, without BOS, EOS and padding. Chunk i is the tokens
 * [begin[i], begin[i + 1]); a prompt has at least one. */
typedef struct wf_chunks {
    const weft_allocator *alloc;
    int32_t *ids;     /* [tokens] below extras->base the vocabulary's, from there on a row of a plan's tokens */
    float   *weights; /* [tokens]                                                                            */
    size_t   tokens;
    size_t   tokens_cap;
    size_t  *begin;   /* [count + 1] */
    size_t   count;
    size_t   begin_cap;
} wf_chunks;
/* `fits` tokens in a chunk; `comma` lets a full one give what follows its last comma to the next. `extras` may be
 * NULL. */
weft_status wf_prompt_chunk(wf_chunks *c, const wf_prompt *p, const wf_tokenizer *t, const wf_extras *extras,
                            size_t fits, bool comma, weft_error *err);
void        wf_chunks_free(wf_chunks *c);

#endif
