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
