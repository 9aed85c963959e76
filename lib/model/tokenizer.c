/* tokenizer.c - CLIP's tokenizer: from a prompt to ids.
 *
 *   the text         -> cut at the special tokens that it spells out
 *   each part        -> NFC, lower case
 *   each part        -> pieces: contractions, words, single digits, the rest
 *   each piece       -> bytes, merged pair by pair, to ids
 *
 * What this gives is what current transformers gives, odd corners included, since the ids decide
 * the image:
 * "<|endoftext|>" in a prompt is the token, "<|ENDOFTEXT|>" is spelled out. Nothing is cut off
 * here: a prompt longer than the text encoder takes is its caller's matter. */
#include "model/tokenizer.h"

#define MAX_TEXT ((size_t)1 << 20)
#define MAX_FILE ((size_t)64 << 20)

/* ---- open and free --------------------------------------------------------------------------- */

weft_status wf_tokenizer_make(const wf_tokenizer_source *source, const weft_allocator *allocator,
                              wf_tokenizer **out, weft_error *err)
{
    weft_allocator alloc = wf_allocator(allocator);
    wf_tokenizer  *t = wf_zalloc(&alloc, 1, sizeof *t);
    weft_status    st;

    *out = NULL;
    if (t == NULL) return wf_nomem(err, sizeof *t, "a tokenizer");
    t->alloc = alloc;
    if ((st = wf_tokenizer_read(t, source, err)) != WEFT_OK) {
        wf_tokenizer_free(t);
        return st;
    }
    *out = t;
    return WEFT_OK;
}

weft_status wf_tokenizer_parse(const char *vocab, size_t vocab_len, const char *merges,
                               size_t merges_len, const char *config, size_t config_len,
                               const char *special, size_t special_len, const weft_allocator *alloc,
                               wf_tokenizer **out, weft_error *err)
{
    wf_tokenizer_source s = { .where = "tokenizer",
                              .vocab = vocab,
                              .vocab_len = vocab_len,
                              .merges = merges,
                              .merges_len = merges_len,
                              .config = config,
                              .config_len = config_len,
                              .special = special,
                              .special_len = special_len };

    *out = NULL;
    if (merges == NULL) return wf_fail(err, WEFT_E_ARG, "tokenizer: merges is NULL");
    return wf_tokenizer_make(&s, alloc, out, err);
}

weft_status wf_tokenizer_parse_whole(const char *json, size_t len, const char *config,
                                     size_t config_len, const weft_allocator *alloc,
                                     wf_tokenizer **out, weft_error *err)
{
    wf_tokenizer_source s = { .where = "tokenizer",
                              .whole = json,
                              .whole_len = len,
                              .config = config,
                              .config_len = config_len };

    *out = NULL;
    if (json == NULL) return wf_fail(err, WEFT_E_ARG, "tokenizer: tokenizer.json is NULL");
    return wf_tokenizer_make(&s, alloc, out, err);
}

void wf_tokenizer_free(wf_tokenizer *t)
{
    if (t == NULL) return;
    weft_allocator alloc = t->alloc;
    for (size_t i = 0; i < t->special_count; i++) wf_free(&alloc, t->specials[i].text);
    wf_free(&alloc, t->specials);
    wf_free(&alloc, t->merges);
    wf_free(&alloc, t);
}

enum { VOCAB, MERGES, CONFIG, SPECIAL, ADDED, WHOLE, FILES };
static const char *const file_names[FILES] = { "vocab.json", "merges.txt", "tokenizer_config.json",
                                               "special_tokens_map.json", "added_tokens.json",
                                               "tokenizer.json" };

/* Which of the files are there. transformers 5 writes only tokenizer.json, older versions the first
 * two. */
static weft_status find_files(char *paths[FILES], const char *folder, const weft_allocator *alloc,
                              weft_error *err)
{
    bool there[FILES], classic;

    for (int32_t i = 0; i < FILES; i++) {
        if ((paths[i] = wf_path_join(alloc, folder, file_names[i])) == NULL)
            return wf_nomem(err, strlen(folder) + strlen(file_names[i]) + 2, "a path");
        there[i] = wf_path_exists(paths[i]);
    }
    if (!wf_path_is_dir(folder)) return wf_fail(err, WEFT_E_IO, "%s: no such folder", folder);
    classic = there[VOCAB] && there[MERGES];
    if (!classic && !there[WHOLE])
        return wf_fail(err, WEFT_E_IO,
                       "%s: no %s: a tokenizer is vocab.json and merges.txt, or tokenizer.json",
                       folder, !there[VOCAB] ? file_names[VOCAB] : file_names[MERGES]);
    for (int32_t i = 0; i < FILES; i++) {
        if (there[i] && (i == WHOLE ? !classic : i > MERGES || classic)) continue;
        wf_free(alloc, paths[i]);
        paths[i] = NULL;
    }
    return WEFT_OK;
}

static const char *text_of(const wf_file *f)
{
    return (const char *)f->data;
}

weft_status wf_tokenizer_open(const char *folder, const weft_allocator *allocator,
                              wf_tokenizer **out, weft_error *err)
{
    return wf_tokenizer_open_padded(folder, NULL, allocator, out, err);
}

weft_status wf_tokenizer_open_padded(const char *folder, const char *pad,
                                     const weft_allocator *allocator, wf_tokenizer **out,
                                     weft_error *err)
{
    weft_allocator      alloc = wf_allocator(allocator);
    char               *paths[FILES] = { NULL };
    wf_file             f[FILES] = { WF_FILE_NONE };
    wf_tokenizer_source s = { .where = folder, .pad = pad };
    weft_status         st;

    *out = NULL;
    if ((st = find_files(paths, folder, &alloc, err)) != WEFT_OK) goto done;
    for (int32_t i = 0; i < FILES; i++)
        if (paths[i] != NULL &&
            (st = wf_file_read(&f[i], paths[i], MAX_FILE, &alloc, err)) != WEFT_OK)
            goto done;

    s.vocab   = text_of(&f[VOCAB]),   s.vocab_len   = f[VOCAB].size;
    s.merges  = text_of(&f[MERGES]),  s.merges_len  = f[MERGES].size;
    s.config  = text_of(&f[CONFIG]),  s.config_len  = f[CONFIG].size;
    s.special = text_of(&f[SPECIAL]), s.special_len = f[SPECIAL].size;
    s.added   = text_of(&f[ADDED]),   s.added_len   = f[ADDED].size;
    s.whole   = text_of(&f[WHOLE]),   s.whole_len   = f[WHOLE].size;
    st = wf_tokenizer_make(&s, &alloc, out, err);
done:
    for (int32_t i = 0; i < FILES; i++) {
        wf_free(&alloc, paths[i]);
        wf_file_close(&f[i], &alloc);
    }
    return st;
}

int32_t wf_tokenizer_bos(const wf_tokenizer *t)
{
    return t->bos;
}

int32_t wf_tokenizer_eos(const wf_tokenizer *t)
{
    return t->eos;
}

int32_t wf_tokenizer_pad(const wf_tokenizer *t)
{
    return t->pad;
}

int32_t wf_tokenizer_size(const wf_tokenizer *t)
{
    return t->size;
}

/* ---- encode ---------------------------------------------------------------------------------- */

typedef struct encoding {
    const wf_tokenizer *t;
    const wf_extras    *extras; /* or NULL */
    wf_word             word;
    wf_ids              out;
    weft_error         *err;
} encoding;

typedef weft_status (*part_fn)(encoding *e, const char *s, size_t n);

static weft_status add_piece(encoding *e, const char *s, size_t n)
{
    return wf_word_encode(e->t, &e->word, s, n, &e->out, e->err);
}

/* Pieces of a normalised part in which no special token is left. */
static weft_status add_pieces(encoding *e, const char *s, size_t n)
{
    weft_status st = WEFT_OK;

    for (size_t i = wf_token_space(s, n), len; st == WEFT_OK && i < n;
         i += len, i += wf_token_space(s + i, n - i)) {
        if ((len = wf_token_spelled(s + i, n - i)) > 0) {
            if ((st = add_piece(e, s + i, 2)) == WEFT_OK) st = add_piece(e, s + i + 2, len - 4);
            if (st == WEFT_OK) st = add_piece(e, s + i + len - 2, 2);
        } else {
            len = wf_token_piece(s + i, n - i);
            st = add_piece(e, s + i, len);
        }
    }
    return st;
}

/* The longest special token that the n bytes begin with. */
static const wf_special *special_at(const wf_tokenizer *t, const char *s, size_t n, bool normalized)
{
    const wf_special *best = NULL;

    if (!t->special_starts[(uint8_t)s[0]]) return NULL;
    for (size_t i = 0; i < t->special_count; i++) {
        const wf_special *p = &t->specials[i];

        if (p->normalized != normalized || p->len > n || (best != NULL && p->len <= best->len))
            continue;
        if (memcmp(p->text, s, p->len) == 0) best = p;
    }
    return best;
}

/* Length of the token if it stands at s[at], or 0. */
static size_t extra_here(const wf_extra *w, const char *s, size_t n, size_t at)
{
    size_t end = at;

    if (s[at] != w->text[0]) return 0;
    for (size_t k = 0; k < w->len; k++) {
        if (w->text[k] == ' ') {
            size_t space = wf_token_space(s + end, n - end);
            if (space == 0) return 0;
            end += space;
        } else if (end == n || s[end++] != w->text[k]) {
            return 0;
        }
    }
    if (wf_token_wordy(w->text, w->len, 0) && wf_token_wordy_before(s, at)) return 0;
    if (wf_token_wordy_before(w->text, w->len) && wf_token_wordy(s, n, end)) return 0;
    return end - at;
}

/* Length of what stands for an id of its own at s[at], or 0: a special token, or a placeholder
 * token of the plan; the longer of both, or the placeholder if they are equally long. */
static size_t token_at(const encoding *e, const char *s, size_t n, size_t at, bool normalized,
                       int32_t *id)
{
    const wf_special *special = special_at(e->t, s + at, n - at, normalized);
    size_t            best = special != NULL ? special->len : 0;
    bool              extra = false;

    if (special != NULL) *id = special->id;
    for (size_t k = 0; normalized && e->extras != NULL && k < e->extras->count; k++) {
        size_t len = extra_here(&e->extras->token[k], s, n, at);
        if (len == 0 || len < best || (extra && len == best)) continue;
        best = len;
        extra = true;
        *id = e->extras->base + (int32_t)k;
    }
    return best;
}

/* Such tokens become ids; what stands between them goes to `part`. */
static weft_status cut_at_tokens(encoding *e, const char *s, size_t n, bool normalized,
                                 part_fn part)
{
    size_t      begin = 0, at = 0;
    weft_status st = WEFT_OK;

    while (st == WEFT_OK && at < n) {
        int32_t id = 0;
        size_t  len = token_at(e, s, n, at, normalized, &id);

        if (len == 0) {
            at++;
            continue;
        }
        if (at > begin) st = part(e, s + begin, at - begin);
        wf_ids_add(&e->out, id);
        begin = at += len;
    }
    return st == WEFT_OK && n > begin ? part(e, s + begin, n - begin) : st;
}

static weft_status add_part(encoding *e, const char *s, size_t n)
{
    char       *text;
    size_t      len;
    weft_status st = wf_token_normalise(s, n, e->word.alloc, &text, &len, e->err);

    if (st == WEFT_OK) st = cut_at_tokens(e, text, len, true, add_pieces);
    wf_free(e->word.alloc, text);
    return st;
}

weft_status wf_tokenizer_check(const char *text, size_t *len, weft_error *err)
{
    size_t   n, good = 0, step;
    uint32_t code;

    if (text == NULL) return wf_fail(err, WEFT_E_ARG, "the text to tokenize is NULL");
    if ((n = strlen(text)) > MAX_TEXT)
        return wf_fail(err, WEFT_E_ARG, "the text to tokenize has %zu bytes, expected at most %zu",
                       n, MAX_TEXT);
    while (good < n && (step = wf_utf8_next(text + good, n - good, &code)) > 0) good += step;
    if (good < n)
        return wf_fail(err, WEFT_E_ARG, "the text to tokenize is not valid UTF-8 at byte %zu",
                       good);
    *len = n;
    return WEFT_OK;
}

weft_status wf_tokenizer_encode_with(const wf_tokenizer *t, const wf_extras *extras,
                                     const char *text, size_t n, int32_t *ids, size_t cap,
                                     size_t *needed, weft_error *err)
{
    encoding    e = { t, extras, { .alloc = &t->alloc }, { ids, ids != NULL ? cap : 0, 0 }, err };
    weft_status st = cut_at_tokens(&e, text, n, false, add_part);

    wf_word_free(&e.word);
    if (needed != NULL) *needed = st == WEFT_OK ? e.out.count : 0;
    return st;
}

weft_status wf_tokenizer_encode(const wf_tokenizer *t, const char *text, int32_t *ids, size_t cap,
                                size_t *needed, weft_error *err)
{
    size_t      len;
    weft_status st;

    if (needed != NULL) *needed = 0;
    if ((st = wf_tokenizer_check(text, &len, err)) != WEFT_OK) return st;
    return wf_tokenizer_encode_with(t, NULL, text, len, ids, cap, needed, err);
}

weft_status wf_tokenizer_fold(const char *word, const weft_allocator *alloc, char **out,
                              size_t *out_len, weft_error *err)
{
    size_t      len, n = 0;
    char       *s;
    weft_status st;

    *out = NULL;
    *out_len = 0;
    if ((st = wf_tokenizer_check(word, &len, err)) != WEFT_OK) return st;
    if ((st = wf_token_normalise(word, len, alloc, &s, &len, err)) != WEFT_OK) return st;
    for (size_t at = 0, space; at < len; s[n++] = s[at++]) {
        if ((space = wf_token_space(s + at, len - at)) == 0) continue;
        if ((at += space) == len) break;
        if (n > 0) s[n++] = ' ';
    }
    s[n] = '\0';
    *out = s;
    *out_len = n;
    return WEFT_OK;
}
