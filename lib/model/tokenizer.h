/* tokenizer.h (internal to the tokenizer's files) - the tables of a tokenizer and the steps of encoding.
 *
 *   tokenizer.c        open, free, and the walk from a text to its ids
 *   tokenizer_read.c   vocab.json, merges.txt and the rest become tables
 *   tokenizer_split.c  Unicode: normalise, and cut into pieces
 *   tokenizer_bpe.c    one piece: bytes to symbols, symbols merged, ids */
#ifndef WF_TOKENIZER_H
#define WF_TOKENIZER_H

#include "model/model.h"

#define WF_TOKEN_MAX_ID (1 << 24)

/* One merge: two symbols side by side become one. Slots of an open hash table; rank -1 is empty. */
typedef struct wf_merge {
    int32_t left;
    int32_t right;
    int32_t rank;
    int32_t result;
} wf_merge;

/* A token that is found in the text itself, before (or after) it is normalised. */
typedef struct wf_special {
    char   *text;
    size_t  len;
    int32_t id;
    bool    normalized;
} wf_special;

struct wf_tokenizer {
    weft_allocator alloc;
    int32_t     inner[256]; /* id of a byte's symbol; -1 where the vocabulary has none   */
    int32_t     last[256];  /* the same at the end of a word, "x</w>"                    */
    wf_merge   *merges;
    size_t      merge_cap;  /* a power of two, at least twice the merges                 */
    wf_special *specials;
    size_t      special_count;
    bool        special_starts[256]; /* by first byte                                    */
    int32_t     bos;
    int32_t     eos;
    int32_t     pad;
    int32_t     unknown;    /* -1 where there is none, and then no byte needs it          */
    int32_t     size;       /* highest id + 1                                            */
};

/* ---- tokenizer_read.c -------------------------------------------------------------------------- */

/* What a tokenizer is made of; any text may be NULL but `merges` or `whole`. `where` stands before messages. */
typedef struct wf_tokenizer_source {
    const char *where;
    const char *vocab;
    size_t      vocab_len;
    const char *merges;
    size_t      merges_len;
    const char *config;
    size_t      config_len;
    const char *special;
    size_t      special_len;
    const char *added; /* added_tokens.json */
    size_t      added_len;
    const char *whole; /* a tokenizer.json, in place of vocab and merges */
    size_t      whole_len;
    const char *pad;   /* the token to pad with, whatever the others say; or NULL */
} wf_tokenizer_source;
/* Fill an empty tokenizer, whose alloc is set. On failure it holds what it had got so far. */
weft_status wf_tokenizer_read(wf_tokenizer *t, const wf_tokenizer_source *source, weft_error *err);

weft_status wf_tokenizer_make(const wf_tokenizer_source *source, const weft_allocator *alloc, wf_tokenizer **out,
                              weft_error *err);
/* A folder whose vocabulary is for an encoder that pads with another token. */
weft_status wf_tokenizer_open_padded(const char *folder, const char *pad, const weft_allocator *alloc,
                                     wf_tokenizer **out, weft_error *err);

/* The same from only a tokenizer.json, with or without a tokenizer_config.json (tokenizer.c; for tests). */
weft_status wf_tokenizer_parse_whole(const char *json, size_t len, const char *config, size_t config_len,
                                     const weft_allocator *alloc, wf_tokenizer **out, weft_error *err);

/* ---- tokenizer_split.c ------------------------------------------------------------------------- */

/* NFC and lower case of n bytes of valid UTF-8, in new memory: *out has *out_len bytes and a NUL. */
weft_status wf_token_normalise(const char *text, size_t n, const weft_allocator *alloc, char **out, size_t *out_len,
                               weft_error *err);
/* Length of the white space that the n bytes begin with. */
size_t wf_token_space(const char *s, size_t n);
/* Is the character at `at`, or the one before it, a letter or a digit? No at the ends of the n bytes. */
bool wf_token_wordy(const char *s, size_t n, size_t at);
bool wf_token_wordy_before(const char *s, size_t at);
/* Length of the name of one of CLIP's own tokens, or 0. Such a name was written with capitals, or the text would
 * have been taken for the token: it is no token, but it ends pieces, and is itself three: "<|", the word, "|>". */
size_t wf_token_spelled(const char *s, size_t n);
/* Length of the piece that they begin with; n > 0, and no white space in front. */
size_t wf_token_piece(const char *s, size_t n);

/* ---- tokenizer_bpe.c --------------------------------------------------------------------------- */

/* Make the merge table for up to `count` merges; add one (false where the pair is there already); look one up. */
weft_status     wf_merges_init(wf_tokenizer *t, size_t count, weft_error *err);
bool            wf_merges_add(wf_tokenizer *t, wf_merge m);
const wf_merge *wf_merges_find(const wf_tokenizer *t, int32_t left, int32_t right);

/* Scratch of merging, which grows with the longest piece. */
typedef struct wf_word {
    const weft_allocator *alloc;
    struct wf_symbol     *symbols;
    struct wf_candidate  *heap;
    size_t                cap;   /* bytes of a piece that there is room for */
    size_t                count; /* of heap                                 */
} wf_word;
void wf_word_free(wf_word *w);

/* Ids on their way out: counts all, writes what fits. */
typedef struct wf_ids {
    int32_t *ids;
    size_t   cap;
    size_t   count;
} wf_ids;
void wf_ids_add(wf_ids *out, int32_t id);
/* Ids of one piece of n bytes. */
weft_status wf_word_encode(const wf_tokenizer *t, wf_word *w, const char *piece, size_t n, wf_ids *out, weft_error *err);

#endif
