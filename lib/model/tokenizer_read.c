/* tokenizer_read.c - from vocab.json, merges.txt and what lies beside them to tables of ids.
 *
 * The merges are the tokenizer; the vocabulary numbers what they make. Published vocabularies
 * number in a fixed order (256 bytes, the same at the end of a word, the merges, BOS, EOS), so
 * without a vocab.json the ids follow from merges.txt. With one, its numbers hold.
 *
 * A damaged vocabulary draws another picture and says nothing, so the files must agree: one token
 * for each id, and every merge makes a token out of two. In a vocabulary of bytes, as all published
 * ones are, there is no gap between the ids, and every token is a byte, the work of a merge, or has
 * a name of its own: what is left over belongs to merges that are missing. Toys for tests have a
 * few words and no bytes; nothing is asked of them.
 *
 * Which tokens begin, end and pad a prompt is said in up to three places. tokenizer_config.json
 * comes first where it has added_tokens_decoder, since whoever wrote that wrote the whole truth
 * there; else special_tokens_map.json does. Tokens with a name of their own (those three, unk_token
 * and all of added_tokens_decoder, or in older folders of added_tokens.json) are found in the text
 * as they are written. That includes "!" where a model pads with it: so does transformers, and ids
 * must be the same. */
#include "model/tokenizer.h"

#define MAX_BYTES   ((size_t)64 << 20)
#define MAX_TOKENS  ((size_t)1 << 20)
#define MAX_SYMBOL  1024 /* bytes of what one merge makes; the longest in CLIP's own list has 33 */
#define MAX_ADDED   4096
#define CLIP_BOS    "<|startoftext|>"
#define CLIP_EOS    "<|endoftext|>"
#define WORD_END    "</w>"

/* A token of vocab.json, or one that was added to it. */
typedef struct word {
    const char *text;
    int32_t     id;
    bool        made; /* by a merge; or it is a byte, or has a name of its own */
} word;

typedef struct reading {
    wf_tokenizer *t;
    const char   *where;
    const char   *pad;        /* instead of what the files say, or NULL             */
    json_t       *vocab_file; /* owned */
    json_t       *config;
    json_t       *special;
    json_t       *added;
    json_t       *whole;
    const json_t *vocab;      /* of a file, or inside `whole`; NULL: from the merges */
    const json_t *merge_list; /* inside `whole`, or NULL                             */
    const char   *merges;
    size_t        merges_len;
    wf_map        ids;        /* of tokens by text                                   */
    char         *derived;    /* texts of tokens where there is no vocab.json        */
    word         *words;      /* of the vocabulary by id, then the added ones        */
    size_t        listed;     /* words of the vocabulary                             */
    size_t        count;      /* all words                                           */
    weft_error   *err;
} reading;

/* ---- byte symbols ---------------------------------------------------------------------------- */

/* Bytes that print stand for themselves; the others take code points from 256 on. */
static bool prints(int32_t byte)
{
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

static uint32_t symbol_of(int32_t byte)
{
    uint32_t code = 256;

    if (prints(byte)) return (uint32_t)byte;
    for (int32_t b = 0; b < byte; b++) code += !prints(b);
    return code;
}

/* The symbol as text, with the mark of a word's end if it is the last. */
static size_t write_symbol(char *out, int32_t byte, bool last)
{
    uint32_t code = symbol_of(byte);
    size_t   len = 0;

    if (code >= 0x80) out[len++] = (char)(0xc0 | code >> 6); /* all are below U+0800 */
    out[len] = (char)(code >= 0x80 ? 0x80 | (code & 0x3f) : code);
    len++;
    if (last) memcpy(out + len, WORD_END, sizeof WORD_END);
    else out[len] = '\0';
    return len + (last ? strlen(WORD_END) : 0);
}

/* ---- the vocabulary -------------------------------------------------------------------------- */

static weft_status number_token(reading *r, const char *text, int64_t id, bool *added)
{
    if (id < 0 || id >= WF_TOKEN_MAX_ID)
        return wf_fail(r->err, WEFT_E_FORMAT, "%s: token \"%s\" has id %lld, expected 0 to %d",
                       r->where, text, (long long)id, WF_TOKEN_MAX_ID - 1);
    r->t->size = WF_MAX(r->t->size, (int32_t)id + 1);
    return wf_map_put(&r->ids, text, id, added, r->err);
}

static int compare_ids(const void *a, const void *b)
{
    const word *x = a, *y = b;

    return (x->id > y->id) - (x->id < y->id);
}

static weft_status same_id(const reading *r, const char *text, const char *other, int64_t id)
{
    return wf_fail(r->err, WEFT_E_FORMAT,
                   "%s: the tokens \"%.80s\" and \"%.80s\" have one id, %lld", r->where, other, text, (long long)id);
}

/* The word with this id, or NULL. */
static word *word_of(const reading *r, int64_t id)
{
    size_t low = 0, high = r->listed;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (r->words[middle].id < id) low = middle + 1;
        else high = middle;
    }
    if (low < r->listed && r->words[low].id == id) return &r->words[low];
    for (size_t i = r->listed; i < r->count; i++)
        if (r->words[i].id == id) return &r->words[i];
    return NULL;
}

static void mark_made(const reading *r, int64_t id)
{
    word *w = word_of(r, id);

    if (w != NULL) w->made = true;
}

/* Room for so many tokens, and for those that are added. */
static weft_status make_words(reading *r, size_t count)
{
    size_t all = count + MAX_ADDED;

    r->words = wf_zalloc(&r->t->alloc, all, sizeof *r->words);
    return r->words != NULL ? WEFT_OK : wf_nomem(r->err, all * sizeof *r->words, "a vocabulary");
}

static weft_status read_vocabulary(reading *r)
{
    size_t      count = json_object_size(r->vocab);
    const char *text;
    json_t     *id;
    bool        added;
    weft_status st;

    if (count == 0 || count > MAX_TOKENS)
        return wf_fail(r->err, WEFT_E_FORMAT,
                       "%s: the vocabulary has %zu tokens, expected 1 to %zu", r->where, count,
                       MAX_TOKENS);
    if ((st = wf_map_init(&r->ids, &r->t->alloc, count, r->err)) != WEFT_OK) return st;
    if ((st = make_words(r, count)) != WEFT_OK) return st;
    json_object_foreach((json_t *)(uintptr_t)r->vocab, text, id) {
        if (!json_is_integer(id))
            return wf_fail(r->err, WEFT_E_FORMAT,
                           "%s: the id of token \"%s\" is not a whole number", r->where, text);
        if ((st = number_token(r, text, json_integer_value(id), &added)) != WEFT_OK) return st;
        r->words[r->count++] = (word){ text, (int32_t)json_integer_value(id), false };
    }
    wf_sort(r->words, count, sizeof *r->words, compare_ids);
    r->listed = count;
    for (size_t i = 1; i < count; i++)
        if (r->words[i].id == r->words[i - 1].id)
            return same_id(r, r->words[i].text, r->words[i - 1].text, r->words[i].id);
    return WEFT_OK;
}

/* ---- merges ---------------------------------------------------------------------------------- */

/* One merge as the file has it: both parts joined in `text`, the first one `left` bytes long. */
typedef struct pair {
    char   text[MAX_SYMBOL + 1];
    size_t left;
    size_t len;
} pair;

/* Where the next merge is: a line of merges.txt or an entry of a list. */
typedef struct cursor {
    size_t offset;
    size_t line;  /* from 1; for a list, of the entry */
    size_t count; /* merges before this one           */
} cursor;

static weft_status bad_merge(const reading *r, const cursor *at, const char *what)
{
    return wf_fail(r->err, WEFT_E_FORMAT, "%s: merges line %zu: %s", r->where, at->line, what);
}

static weft_status make_pair(const reading *r, const cursor *at, const char *left, size_t left_len,
                             const char *right, size_t right_len, pair *out)
{
    if (left_len == 0 || right_len == 0 || memchr(right, ' ', right_len) != NULL)
        return bad_merge(r, at, "expected two symbols with one space between them");
    if (left_len > MAX_SYMBOL || right_len > MAX_SYMBOL - left_len)
        return bad_merge(r, at, "the symbols are too long");
    if (!wf_utf8_valid(left, left_len) || !wf_utf8_valid(right, right_len))
        return bad_merge(r, at, "not valid UTF-8");
    memcpy(out->text, left, left_len);
    memcpy(out->text + left_len, right, right_len);
    out->left = left_len;
    out->len = left_len + right_len;
    out->text[out->len] = '\0';
    return WEFT_OK;
}

static weft_status split_pair(const reading *r, const cursor *at, const char *s, size_t n,
                              pair *out)
{
    const char *space = memchr(s, ' ', n);

    if (space == NULL) return bad_merge(r, at, "expected two symbols with one space between them");
    return make_pair(r, at, s, (size_t)(space - s), space + 1, n - (size_t)(space - s) - 1, out);
}

/* An entry of a list is ["a", "b"], or "a b" in older files. */
static weft_status listed_pair(const reading *r, const cursor *at, const json_t *entry, pair *out)
{
    const json_t *left = json_array_get(entry, 0), *right = json_array_get(entry, 1);

    if (json_is_string(entry))
        return split_pair(r, at, json_string_value(entry), json_string_length(entry), out);
    if (json_array_size(entry) != 2 || !json_is_string(left) || !json_is_string(right))
        return bad_merge(r, at, "expected two symbols");
    return make_pair(r, at, json_string_value(left), json_string_length(left),
                     json_string_value(right), json_string_length(right), out);
}

/* The next line that holds something: its bytes without the end of line, or NULL at the end. */
static const char *next_line(const reading *r, cursor *at, size_t *len)
{
    static const char version[] = "#version";

    while (at->offset < r->merges_len) {
        const char *line = r->merges + at->offset,
                   *end = memchr(line, '\n', r->merges_len - at->offset);

        *len = end != NULL ? (size_t)(end - line) : r->merges_len - at->offset;
        at->offset += *len + (end != NULL);
        at->line++;
        if (at->line == 1 && *len >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0)
            line += 3, *len -= 3; /* a byte order mark */
        if (*len > 0 && line[*len - 1] == '\r') (*len)--;
        if (*len == 0) continue;
        if (at->line == 1 && *len >= strlen(version) && memcmp(line, version, strlen(version)) == 0)
            continue;
        return line;
    }
    return NULL;
}

/* Step to the next merge; *more is false at the end. */
static weft_status next_pair(const reading *r, cursor *at, pair *out, bool *more)
{
    const char *line;
    size_t      len;
    weft_status st;

    *more = false;
    if (r->merge_list != NULL) {
        if (at->offset == json_array_size(r->merge_list)) return WEFT_OK;
        at->line = at->offset + 1;
        st = listed_pair(r, at, json_array_get(r->merge_list, at->offset++), out);
    } else {
        if ((line = next_line(r, at, &len)) == NULL) return WEFT_OK;
        st = split_pair(r, at, line, len, out);
    }
    if (st != WEFT_OK) return st;
    if (++at->count > MAX_TOKENS) return bad_merge(r, at, "too many merges");
    *more = true;
    return WEFT_OK;
}

static weft_status count_merges(const reading *r, size_t *count, size_t *bytes)
{
    cursor      at = { 0, 0, 0 };
    pair        p;
    bool        more;
    weft_status st;

    *bytes = 0;
    while ((st = next_pair(r, &at, &p, &more)) == WEFT_OK && more) *bytes += p.len + 1;
    *count = at.count;
    return st;
}

/* The id of the n bytes at s, or -1. They stand inside a longer text, which is cut off for the
 * moment. */
static int64_t id_within(const reading *r, char *s, size_t n)
{
    char    next = s[n];
    int64_t id;

    s[n] = '\0';
    id = wf_map_get(&r->ids, s);
    s[n] = next;
    return id;
}

static weft_status unknown_symbol(const reading *r, const cursor *at, const char *s, size_t n,
                                  const char *role)
{
    return wf_fail(r->err, WEFT_E_FORMAT,
                   "%s: merges line %zu: %s \"%.*s\" is not in the vocabulary", r->where, at->line,
                   role, (int)WF_MIN(n, 100), s);
}

static weft_status read_merges(reading *r, size_t count)
{
    cursor      at = { 0, 0, 0 };
    pair        p;
    bool        more;
    weft_status st = wf_merges_init(r->t, count, r->err);

    if (st != WEFT_OK) return st;
    while ((st = next_pair(r, &at, &p, &more)) == WEFT_OK && more) {
        int64_t left = id_within(r, p.text, p.left), right = wf_map_get(&r->ids, p.text + p.left);
        int64_t result = wf_map_get(&r->ids, p.text);

        if (left < 0) return unknown_symbol(r, &at, p.text, p.left, "symbol");
        if (right < 0) return unknown_symbol(r, &at, p.text + p.left, p.len - p.left, "symbol");
        if (result < 0) return unknown_symbol(r, &at, p.text, p.len, "the merged symbol");
        mark_made(r, result);
        if (!wf_merges_add(r->t, (wf_merge){ (int32_t)left, (int32_t)right, (int32_t)at.count - 1,
                                             (int32_t)result }))
            return bad_merge(r, &at, "this pair has been merged before");
    }
    return st;
}

/* ---- a vocabulary from only merges ----------------------------------------------------------- */

static weft_status derive_token(reading *r, const char *text)
{
    bool        added;
    weft_status st = number_token(r, text, (int64_t)r->ids.count, &added);

    if (st != WEFT_OK) return st;
    if (!added)
        return wf_fail(r->err, WEFT_E_FORMAT,
                       "%s: two merges make \"%s\": its id needs a vocab.json", r->where, text);
    r->words[r->listed] = (word){ text, (int32_t)r->listed, false };
    r->count = ++r->listed;
    return WEFT_OK;
}

static weft_status derive_vocabulary(reading *r, size_t merges, size_t bytes, const char *bos,
                                     const char *eos)
{
    size_t      size = bytes + 512 * (2 + sizeof WORD_END);
    char       *text;
    cursor      at = { 0, 0, 0 };
    pair        p;
    bool        more;
    weft_status st;

    if ((st = wf_map_init(&r->ids, &r->t->alloc, merges + 514, r->err)) != WEFT_OK) return st;
    if ((st = make_words(r, merges + 514)) != WEFT_OK) return st;
    if ((text = r->derived = wf_alloc(&r->t->alloc, size)) == NULL)
        return wf_nomem(r->err, size, "a vocabulary");
    for (int32_t pass = 0; pass < 4; pass++)
        for (int32_t byte = 0; byte < 256; byte++) {
            if (prints(byte) != (pass % 2 == 0)) continue; /* those that print come first */
            size_t len = write_symbol(text, byte, pass >= 2);

            if ((st = derive_token(r, text)) != WEFT_OK) return st;
            text += len + 1;
        }
    while ((st = next_pair(r, &at, &p, &more)) == WEFT_OK && more) {
        memcpy(text, p.text, p.len + 1);
        if ((st = derive_token(r, text)) != WEFT_OK) return st;
        text += p.len + 1;
    }
    if (st == WEFT_OK) st = derive_token(r, bos);
    if (st == WEFT_OK && strcmp(bos, eos) != 0) st = derive_token(r, eos);
    return st;
}

/* ---- named tokens ---------------------------------------------------------------------------- */

/* A token is written as a string or as an object with its content. */
static const char *content_of(const json_t *token)
{
    const json_t *text = json_is_object(token) ? json_object_get(token, "content") : token;

    return json_is_string(text) && json_string_length(text) > 0 ? json_string_value(text) : NULL;
}

static const json_t *named_token(const reading *r, const char *key)
{
    bool          config_first = json_object_get(r->config, "added_tokens_decoder") != NULL;
    const json_t *first  = json_object_get(config_first ? r->config : r->special, key);
    const json_t *second = json_object_get(config_first ? r->special : r->config, key);

    if (first != NULL && !json_is_null(first)) return first;
    return json_is_null(second) ? NULL : second;
}

/* The text of bos_token and its like: as a file says, else CLIP's own. */
static weft_status token_text(const reading *r, const char *key, const char *standard,
                              const char **out)
{
    const json_t *token = named_token(r, key);

    *out = token == NULL ? standard : content_of(token);
    if (*out == NULL)
        return wf_fail(r->err, WEFT_E_FORMAT,
                       "%s: %s is neither a string nor an object with a content", r->where, key);
    return WEFT_OK;
}

/* Let `text` be found in prompts. */
static weft_status add_special(reading *r, const char *text, int32_t id, bool normalized)
{
    wf_tokenizer *t = r->t;
    wf_special    s = { NULL, strlen(text), id, normalized };
    weft_status   st = WEFT_OK;

    for (size_t i = 0; i < t->special_count; i++)
        if (strcmp(t->specials[i].text, text) == 0) return WEFT_OK;
    if (normalized) st = wf_token_normalise(text, s.len, &t->alloc, &s.text, &s.len, r->err);
    else if ((s.text = wf_strdup(&t->alloc, text)) == NULL)
        st = wf_nomem(r->err, s.len + 1, "a token");
    if (st != WEFT_OK) return st;
    t->special_starts[(uint8_t)s.text[0]] = true;
    t->specials[t->special_count++] = s;
    return WEFT_OK;
}

/* The id is this token's alone. */
static weft_status add_word(reading *r, const char *text, int32_t id)
{
    word *w = word_of(r, id);

    if (w == NULL) {
        w = &r->words[r->count++];
        *w = (word){ text, id, true };
    }
    w->made = true;
    return strcmp(w->text, text) == 0 ? WEFT_OK : same_id(r, text, w->text, id);
}

/* added_tokens_decoder has ids as keys, tokenizer.json a list with the ids inside, and
 * added_tokens.json texts as keys. */
static weft_status read_added_token(reading *r, int64_t id, const char *text, bool normalized)
{
    bool        added;
    int64_t     known;
    weft_status st;

    if (text == NULL)
        return wf_fail(r->err, WEFT_E_FORMAT, "%s: added token %lld has no content", r->where,
                       (long long)id);
    known = wf_map_get(&r->ids, text);
    if (known >= 0 && known != id)
        return wf_fail(r->err, WEFT_E_FORMAT,
                       "%s: token \"%s\" is %lld in the vocabulary and %lld among the added tokens",
                       r->where, text, (long long)known, (long long)id);
    if ((st = number_token(r, text, id, &added)) != WEFT_OK) return st;
    if ((st = add_word(r, text, (int32_t)id)) != WEFT_OK) return st;
    return add_special(r, text, (int32_t)id, normalized);
}

/* "49407" -> 49407, or -1 for anything else. */
static int64_t parse_id(const char *digits)
{
    int64_t id = 0;

    for (; *digits >= '0' && *digits <= '9' && id < WF_TOKEN_MAX_ID; digits++)
        id = 10 * id + (*digits - '0');
    return *digits == '\0' ? id : -1;
}

static int64_t whole_number(const json_t *id)
{
    return json_is_integer(id) ? json_integer_value(id) : -1;
}

static bool is_normalized(const json_t *token)
{
    return json_is_true(json_object_get(token, "normalized"));
}

/* One of additional_special_tokens, which have no ids there. */
static weft_status find_in_text(reading *r, const char *text, bool normalized)
{
    int64_t id = text != NULL ? wf_map_get(&r->ids, text) : -1;

    mark_made(r, id);
    return id < 0 ? WEFT_OK : add_special(r, text, (int32_t)id, normalized);
}

static weft_status read_added_tokens(reading *r)
{
    json_t     *decoder = json_object_get(r->config, "added_tokens_decoder"), *token;
    json_t     *list = json_object_get(r->whole, "added_tokens");
    json_t     *old = decoder == NULL ? r->added : NULL;
    size_t      count = json_object_size(decoder) + json_array_size(list) + json_object_size(old);
    json_t     *more[] = { json_object_get(r->config, "additional_special_tokens"),
                           json_object_get(r->special, "additional_special_tokens") };
    size_t      named = 4, i;
    const char *key;
    weft_status st;

    for (i = 0; i < WF_LEN(more); i++) count += json_array_size(more[i]);

    if (count > MAX_ADDED)
        return wf_fail(r->err, WEFT_E_FORMAT, "%s: %zu added tokens, expected at most %d", r->where,
                       count, MAX_ADDED);
    r->t->specials = wf_zalloc(&r->t->alloc, count + named, sizeof *r->t->specials);
    if (r->t->specials == NULL)
        return wf_nomem(r->err, (count + named) * sizeof *r->t->specials,
                        "a tokenizer's added tokens");
    json_object_foreach(decoder, key, token)
        if ((st = read_added_token(r, parse_id(key), content_of(token), is_normalized(token))) !=
            WEFT_OK)
            return st;
    json_array_foreach(list, i, token) {
        st = read_added_token(r, whole_number(json_object_get(token, "id")), content_of(token),
                              is_normalized(token));
        if (st != WEFT_OK) return st;
    }
    json_object_foreach(old, key, token)
        if ((st = read_added_token(r, whole_number(token), key, true)) != WEFT_OK) return st;
    for (size_t k = 0; k < WF_LEN(more); k++)
        json_array_foreach(more[k], i, token)
            if ((st = find_in_text(r, content_of(token), is_normalized(token))) != WEFT_OK)
                return st;
    return WEFT_OK;
}

/* The id of bos_token and its like; an unknown one is -1 where that is `optional`. */
static weft_status read_named_token(reading *r, const char *key, const char *text, bool optional,
                                    int32_t *out)
{
    int64_t id = wf_map_get(&r->ids, text);

    *out = (int32_t)id;
    if (id < 0 && optional) return WEFT_OK;
    if (id < 0)
        return wf_fail(r->err, WEFT_E_FORMAT, "%s: %s \"%s\" is not in the vocabulary", r->where,
                       key, text);
    mark_made(r, id);
    return add_special(r, text, *out, is_normalized(named_token(r, key)));
}

static weft_status read_bytes(reading *r)
{
    wf_tokenizer *t = r->t;

    for (int32_t byte = 0; byte < 256; byte++) {
        char text[2 + sizeof WORD_END];

        write_symbol(text, byte, false);
        t->inner[byte] = (int32_t)wf_map_get(&r->ids, text);
        write_symbol(text, byte, true);
        t->last[byte] = (int32_t)wf_map_get(&r->ids, text);
        mark_made(r, t->inner[byte]);
        mark_made(r, t->last[byte]);
        if (t->unknown < 0 && (t->inner[byte] < 0 || t->last[byte] < 0))
            return wf_fail(
                r->err, WEFT_E_FORMAT,
                "%s: the vocabulary has no unk_token, and no symbol \"%.*s\" for byte %d", r->where,
                (int)(strlen(text) - (t->inner[byte] < 0 ? strlen(WORD_END) : 0)), text, byte);
    }
    return WEFT_OK;
}

/* Is every id below the vocabulary's last some token's, and every token within reach? */
static weft_status check_words(const reading *r)
{
    size_t  bytes = 0, orphans = 0;
    int64_t next = 0;
    const char *first = NULL;

    for (size_t i = 0; i < 256; i++) bytes += (r->t->inner[i] >= 0) + (size_t)(r->t->last[i] >= 0);
    if (bytes < 256) return WEFT_OK;
    for (size_t i = 0; i < r->listed; i++, next++) {
        const word *w = &r->words[i];

        while (next < w->id && word_of(r, next) != NULL) next++; /* an added one */
        if (next < w->id)
            return wf_fail(r->err, WEFT_E_FORMAT,
                           "%s: no token has the id %lld, the next is \"%.80s\" with %d: the "
                           "vocabulary is damaged",
                           r->where, (long long)next, w->text, w->id);
        if (!w->made && orphans++ == 0) first = w->text;
    }
    if (orphans == 0) return WEFT_OK;
    return wf_fail(r->err, WEFT_E_FORMAT,
                   "%s: no merge makes %zu of the vocabulary's %zu tokens, the first of them "
                   "\"%.80s\": merges are missing",
                   r->where, orphans, r->listed, first);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static weft_status parse_json(const reading *r, json_t **out, const char *text, size_t len,
                              const char *name)
{
    char what[256];

    if (text == NULL) return WEFT_OK;
    if (len > MAX_BYTES)
        return wf_fail(r->err, WEFT_E_FORMAT, "%s: %s has %zu bytes, expected at most %zu",
                       r->where, name, len, MAX_BYTES);
    wf_format(what, sizeof what, "%s: %s", r->where, name);
    return wf_json_parse(out, text, len, what, r->err);
}

static weft_status parse_sources(reading *r, const wf_tokenizer_source *s)
{
    const json_t *model, *end;
    weft_status   st;

    if ((st = parse_json(r, &r->config, s->config, s->config_len, "tokenizer_config.json")) !=
        WEFT_OK)
        return st;
    if ((st = parse_json(r, &r->special, s->special, s->special_len, "special_tokens_map.json")) !=
        WEFT_OK)
        return st;
    if ((st = parse_json(r, &r->added, s->added, s->added_len, "added_tokens.json")) != WEFT_OK)
        return st;
    if ((st = parse_json(r, &r->vocab_file, s->vocab, s->vocab_len, "vocab.json")) != WEFT_OK)
        return st;
    if ((st = parse_json(r, &r->whole, s->whole, s->whole_len, "tokenizer.json")) != WEFT_OK)
        return st;
    r->vocab = r->vocab_file;
    r->merges = s->merges;
    r->merges_len = s->merges_len;
    if (s->merges_len > MAX_BYTES)
        return wf_fail(r->err, WEFT_E_FORMAT, "%s: merges.txt has %zu bytes, expected at most %zu",
                       r->where, s->merges_len, MAX_BYTES);
    if (r->whole == NULL) return WEFT_OK;

    model = json_object_get(r->whole, "model");
    end   = json_object_get(model, "end_of_word_suffix");
    r->vocab      = json_object_get(model, "vocab");
    r->merge_list = json_object_get(model, "merges");
    if (!json_is_object(r->vocab) || !json_is_array(r->merge_list))
        return wf_fail(r->err, WEFT_E_FORMAT,
                       "%s: tokenizer.json has no model with a vocab and merges", r->where);
    if (!json_is_string(end) || strcmp(json_string_value(end), WORD_END) != 0)
        return wf_fail(r->err, WEFT_E_UNSUPPORTED,
                       "%s: tokenizer.json does not end words with \"%s\": it is not CLIP's",
                       r->where, WORD_END);
    return WEFT_OK;
}

static weft_status read_all(reading *r)
{
    wf_tokenizer *t = r->t;
    const char   *bos, *eos, *pad, *unknown;
    size_t        count, bytes;
    weft_status   st;

    if ((st = token_text(r, "bos_token", CLIP_BOS, &bos)) != WEFT_OK) return st;
    if ((st = token_text(r, "eos_token", CLIP_EOS, &eos)) != WEFT_OK) return st;
    if ((st = token_text(r, "pad_token", eos, &pad)) != WEFT_OK) return st;
    if (r->pad != NULL) pad = r->pad;
    if ((st = token_text(r, "unk_token", eos, &unknown)) != WEFT_OK) return st;

    if (r->merges_len > 8 && (r->merges[0] == '<' || memcmp(r->merges, "version ", 8) == 0))
        return wf_say_foreign(wf_fail(r->err, WEFT_E_FORMAT, "%s: not merges.txt", r->where),
                              (const uint8_t *)r->merges, r->merges_len, "merges.txt", r->where,
                              r->err);
    if ((st = count_merges(r, &count, &bytes)) != WEFT_OK) return st;
    st = r->vocab != NULL ? read_vocabulary(r) : derive_vocabulary(r, count, bytes, bos, eos);
    if (st != WEFT_OK) return st;
    if ((st = read_merges(r, count)) != WEFT_OK) return st;

    if ((st = read_added_tokens(r)) != WEFT_OK) return st;
    if ((st = read_named_token(r, "bos_token", bos, false, &t->bos)) != WEFT_OK) return st;
    if ((st = read_named_token(r, "eos_token", eos, false, &t->eos)) != WEFT_OK) return st;
    if ((st = read_named_token(r, "pad_token", pad, false, &t->pad)) != WEFT_OK) return st;
    if ((st = read_named_token(r, "unk_token", unknown, true, &t->unknown)) != WEFT_OK) return st;
    if ((st = read_bytes(r)) != WEFT_OK) return st;
    return check_words(r);
}

weft_status wf_tokenizer_read(wf_tokenizer *t, const wf_tokenizer_source *source, weft_error *err)
{
    reading     r = { .t = t, .where = source->where, .pad = source->pad, .err = err };
    weft_status st;

    t->unknown = -1;
    if ((st = parse_sources(&r, source)) == WEFT_OK) st = read_all(&r);
    wf_map_free(&r.ids);
    wf_free(&t->alloc, r.derived);
    wf_free(&t->alloc, r.words);
    json_decref(r.vocab_file);
    json_decref(r.config);
    json_decref(r.special);
    json_decref(r.added);
    json_decref(r.whole);
    return st;
}
