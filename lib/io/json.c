/* json.c - jansson, with bounds on what a file from a stranger may cost.
 *
 * jansson is strict in what matters (UTF-8, lone surrogates, control characters, NUL, trailing
 * text) but generous with memory: it nests 2048 deep, and a megabyte of "1,1,1," becomes forty. So
 * a scan that allocates nothing counts depth and values first, and the parser sees only what
 * passed.
 *
 * Memory that runs out needs care twice. jansson often reports it as a syntax error; errno tells
 * the two apart, since malloc sets ENOMEM and the parser stops at once. But if the buffer of its
 * lexer cannot grow, jansson 2.14 does not stop: it drops the character, and a string with a hole
 * in it, or one read past its end, comes out. So that buffer is made to grow before anything
 * depends on it. We parse not the text but "[0.000..., text ]", with a number as long as the
 * longest token needs. The callback that feeds it sees ENOMEM before the number ends and ends the
 * file there, where nothing worse than a short number is lost; after that the buffer never grows
 * again. */
#include <errno.h>

#include "io/io.h"

#define MAX_DEPTH  64
#define MAX_VALUES ((size_t)4 << 20)   /* the vocabulary of a tokenizer has some 100,000 */
#define MAX_BYTES  ((size_t)64 << 20)

/* ---- before parsing -------------------------------------------------------------------------- */

typedef struct bounds {
    size_t depth;
    size_t values;  /* one for each bracket and comma: never less than there are */
    size_t token;   /* bytes of the longest string, with its quotes, number or word */
} bounds;

static size_t string_bytes(const char *text, size_t size)
{
    size_t i = 1;

    while (i < size && text[i] != '"') i += text[i] == '\\' ? 2 : 1;
    return WF_MIN(i + 1, size);
}

/* Strings are skipped: brackets and commas in them mean nothing. */
static bounds measure(const char *text, size_t size)
{
    bounds seen  = { 0, 1, 0 };
    size_t depth = 0, run = 0, step;

    for (size_t i = 0; i < size; i += step) {
        step = 1;
        switch (text[i]) {
        case '"':
            step = string_bytes(text + i, size - i);
            seen.token = WF_MAX(seen.token, step);
            run = 0;
            break;
        case '{': case '[':
            seen.values++;
            depth++;
            seen.depth = WF_MAX(seen.depth, depth);
            run = 0;
            break;
        case '}': case ']':
            if (depth > 0) depth--;
            run = 0;
            break;
        case ',':
            seen.values++;
            run = 0;
            break;
        case ':': case ' ': case '\t': case '\r': case '\n':
            run = 0;
            break;
        default:
            run++;
            seen.token = WF_MAX(seen.token, run);
        }
    }
    return seen;
}

/* ---- feeding --------------------------------------------------------------------------------- */

typedef struct feed {
    const char *text;
    size_t      size;
    size_t      zeros;   /* of the number in front: 2 + zeros is a power of two above every token */
    size_t      at;      /* of everything, wrapping and text */
    bool        failed;  /* memory ran out under the number  */
} feed;

#define OPENING 3  /* "[0." */
#define BETWEEN 2  /* ",\n": so the text keeps its columns and is one line down */

static size_t text_start(const feed *f)
{
    return OPENING + f->zeros + BETWEEN;
}

static char fed_byte(const feed *f, size_t at)
{
    if (at < OPENING)               return "[0."[at];
    if (at < OPENING + f->zeros)    return '0';
    if (at < text_start(f))         return ",\n"[at - OPENING - f->zeros];
    return f->text[at - text_start(f)];
}

/* jansson asks for at most 1 KiB at a time. The number's end is the end of an answer, so that the
 * parser cannot see what follows before we have looked at errno. */
static size_t feed_parser(void *buffer, size_t cap, void *data)
{
    feed  *f     = data;
    char  *out   = buffer;
    size_t first = text_start(f), last = first + f->size, n = 0;
    size_t stop  = f->at < OPENING + f->zeros ? OPENING + f->zeros : last;

    if (f->at <= OPENING + f->zeros && errno == ENOMEM) f->failed = true;
    if (f->failed || f->at > last) return 0;
    if (f->at == last) {
        f->at++;
        out[0] = ']';
        return 1;
    }
    while (n < cap && f->at < stop) out[n++] = fed_byte(f, f->at++);
    return n;
}

/* jansson's buffer holds 2^k - 1 bytes and doubles when the next one comes. The number has 2^k, so
 * it has made the buffer double, and the comma behind it does not. */
static feed make_feed(const char *text, size_t size, size_t token)
{
    feed   f = { text, size, 0, 0, false };
    size_t length = 32;

    while (length < token + 2) length *= 2;
    f.zeros = length - 2;
    return f;
}

/* ---- what went wrong ------------------------------------------------------------------------- */

/* jansson quotes only short tokens, so the key that stands twice is cut out of the text: it ends
 * right before `end`. */
static weft_status fail_duplicate(const char *text, size_t end, const char *what, weft_error *err)
{
    size_t start = end > 0 ? end - 1 : 0;  /* the closing quote */
    bool   open  = false;

    while (start > 0 && !open) {
        size_t slashes = 0;

        start--;
        if (text[start] != '"') continue;
        while (slashes < start && text[start - 1 - slashes] == '\\') slashes++;
        open = slashes % 2 == 0;
    }
    return wf_fail(err, WEFT_E_FORMAT, "%s: duplicate key %.*s", what,
                   (int)WF_MIN(end - start, 200), text + start);
}

static weft_status fail_parse(const json_error_t *e, const feed *f, const char *what,
                              weft_error *err)
{
    enum json_error_code code = json_error_code(e);
    size_t               at   = e->position > 0 ? (size_t)e->position : 0;

    if (f->failed || errno == ENOMEM || code == json_error_out_of_memory || e->text[0] == '\0')
        return wf_fail(err, WEFT_E_NOMEM, "out of memory: parsing %zu bytes of JSON of %s", f->size,
                       what);
    if (at > text_start(f) + f->size)
        return wf_fail(err, WEFT_E_FORMAT, "%s: not valid JSON: it ends too early", what);
    if (code == json_error_duplicate_key && at > text_start(f))
        return fail_duplicate(f->text, at - text_start(f), what, err);
    return wf_fail(err, WEFT_E_FORMAT, "%s: not valid JSON, line %d column %d: %s", what,
                   e->line - 1, e->column, e->text);
}

/* ---- parsing --------------------------------------------------------------------------------- */

weft_status wf_json_parse_bounded(json_t **out, const char *text, size_t size, size_t depth,
                                  size_t values, const char *what, weft_error *err)
{
    json_error_t e;
    json_t      *wrapped, *root;
    bounds       seen = measure(text, size);
    feed         f;

    *out = NULL;
    if (seen.depth > depth)
        return wf_fail(err, WEFT_E_FORMAT, "%s: JSON nests %zu deep, expected at most %zu", what,
                       seen.depth, depth);
    if (seen.values > values)
        return wf_fail(err, WEFT_E_FORMAT, "%s: JSON has %zu values, expected at most %zu", what,
                       seen.values, values);

    f = make_feed(text, size, seen.token);
    errno   = 0;
    wrapped = json_load_callback(feed_parser, &f, JSON_REJECT_DUPLICATES, &e);
    if (wrapped == NULL) return fail_parse(&e, &f, what, err);
    root = json_array_get(wrapped, 1);
    if (json_array_size(wrapped) == 2 && json_is_object(root))
        *out = json_incref(root);
    json_decref(wrapped);
    if (*out != NULL) return WEFT_OK;
    return wf_fail(err, WEFT_E_FORMAT, "%s: JSON is not one object", what);
}

weft_status wf_json_parse(json_t **out, const char *text, size_t size, const char *what,
                          weft_error *err)
{
    weft_status st = wf_json_parse_bounded(out, text, size, MAX_DEPTH, MAX_VALUES, what, err);

    if (size == 0 || text[0] == '{') return st;
    return wf_say_foreign(st, (const uint8_t *)text, size, "JSON", what, err);
}

/* Python writes -Infinity, which JSON does not have; diffusers does so in every config of its
 * DPM-Solvers ("lambda_min_clipped"). We read it as -1e308, which takes no more room. */
static void write_out_infinity(char *text, size_t size)
{
    static const char word[] = "Infinity", number[] = "1e308   ";

    for (size_t i = 0, step; i + sizeof word - 1 <= size; i += step) {
        step = text[i] == '"' ? string_bytes(text + i, size - i) : 1;
        if (i == 0 || memcmp(text + i, word, sizeof word - 1) != 0 ||
            strchr("-:,[ \t\r\n", text[i - 1]) == NULL)
            continue;
        memcpy(text + i, number, sizeof number - 1);
    }
}

weft_status wf_json_load(json_t **out, const char *path, const weft_allocator *alloc,
                         weft_error *err)
{
    wf_file     file = WF_FILE_NONE;
    weft_status st;

    *out = NULL;
    if ((st = wf_file_read(&file, path, MAX_BYTES, alloc, err)) == WEFT_OK) {
        write_out_infinity((char *)(uintptr_t)file.data, file.size); /* in memory of our own */
        st = wf_json_parse(out, (const char *)file.data, file.size, path, err);
    }
    wf_file_close(&file, alloc);
    return st;
}

weft_status wf_json_load_text(json_t **out, const char *text, const char *what,
                              const weft_allocator *alloc, weft_error *err)
{
    size_t      n = strlen(text);
    char       *copy;
    weft_status st;

    *out = NULL;
    if (n > MAX_BYTES)
        return wf_fail(err, WEFT_E_FORMAT, "%s: %zu bytes, expected at most %zu", what, n,
                       (size_t)MAX_BYTES);
    if ((copy = wf_strndup(alloc, text, n)) == NULL) return wf_nomem(err, n, "a configuration");
    write_out_infinity(copy, n);
    st = wf_json_parse(out, copy, n, what, err);
    wf_free(alloc, copy);
    return st;
}
