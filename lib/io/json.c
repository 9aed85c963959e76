/* json.c - jansson, with bounds on what a file from a stranger may cost.
 *
 * jansson is strict in what matters (UTF-8, lone surrogates, control characters, trailing text) but
 * generous with memory: it nests 2048 deep, and a megabyte of "1,1,1," becomes forty. So a scan
 * that allocates nothing counts depth and values first, and the parser sees only what passed.
 *
 * It is too strict where JSON has more than C: whole numbers of more than 64 bits, numbers past the
 * largest double, the character U+0000 in a text. Other programs write them where nothing depends
 * on them, so on its way to the parser each is changed into the nearest that C has, of the same
 * length.
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

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

/* A number or a word; 0 where none begins. */
static size_t run_bytes(const char *text, size_t size)
{
    size_t n = 0;

    while (n < size && text[n] != '\0' && strchr("\"{}[],: \t\r\n", text[n]) == NULL) n++;
    return n;
}

/* Strings are skipped: brackets and commas in them mean nothing. */
static bounds measure(const char *text, size_t size)
{
    bounds seen  = { 0, 1, 0 };
    size_t depth = 0, step;

    for (size_t i = 0; i < size; i += step) {
        step = text[i] == '"' ? string_bytes(text + i, size - i) : run_bytes(text + i, size - i);
        seen.token = WF_MAX(seen.token, step);
        if (step > 0) continue;
        step = 1;
        seen.values += text[i] == '{' || text[i] == '[' || text[i] == ',';
        if (text[i] == '{' || text[i] == '[') depth++;
        if ((text[i] == '}' || text[i] == ']') && depth > 0) depth--;
        seen.depth = WF_MAX(seen.depth, depth);
    }
    return seen;
}

/* ---- what C has no room for ------------------------------------------------------------------ */

/* A stretch of the text and what is read in its place: [begin, keep) as it stands, then `text`,
 * then blanks up to the end. */
typedef struct change {
    size_t begin;
    size_t keep;
    size_t end;
    char   text[8];
} change;

typedef struct number {
    bool        negative;
    bool        whole;   /* neither a point nor an exponent                     */
    const char *digits;  /* from the first that is not 0; a point may stand in  */
    size_t      count;   /* bytes from there to the end of the digits; 0: it is zero */
    int64_t     top;     /* power of ten of the first of them                   */
} number;

static size_t digits_at(const char *s, size_t n, size_t at)
{
    size_t i = at;

    while (i < n && s[i] >= '0' && s[i] <= '9') i++;
    return i - at;
}

/* Do the n bytes spell a number of JSON, and which? */
static bool read_number(const char *s, size_t n, number *out)
{
    size_t  at = n > 0 && s[0] == '-', whole = digits_at(s, n, at), first = at, end, part = 0;
    int64_t power = 0;
    bool    down;

    *out = (number){ .negative = at > 0, .whole = at + whole == n };
    if (whole == 0 || (whole > 1 && s[at] == '0')) return false;
    end = at + whole;
    if (end < n && s[end] == '.') {
        if ((part = digits_at(s, n, end + 1)) == 0) return false;
        end += 1 + part;
    }
    while (first < end && (s[first] == '0' || s[first] == '.')) first++;
    out->digits = s + first;
    out->count = end - first;
    if (end < n) {
        if (s[end] != 'e' && s[end] != 'E') return false;
        down = end + 1 < n && s[end + 1] == '-';
        size_t i = end + 1 + (down || (end + 1 < n && s[end + 1] == '+'));
        if (i == n || digits_at(s, n, i) != n - i) return false;
        for (; i < n; i++) power = WF_MIN(10 * power + (s[i] - '0'), (int64_t)1 << 40);
        if (down) power = -power;
    }
    out->top = power + (first < at + whole ? (int64_t)(at + whole - first) - 1
                                           : (int64_t)(at + whole) - (int64_t)first);
    return true;
}

/* Past the largest double, 1.7976931348623157e308? */
static bool past_double(const number *v)
{
    static const char largest[] = "17976931348623157";
    size_t k = 0;

    if (v->count == 0 || v->top != 308) return v->count > 0 && v->top > 308;
    for (size_t i = 0; i < v->count && k < sizeof largest - 1; i++) {
        if (v->digits[i] == '.') continue;
        if (v->digits[i] != largest[k]) return v->digits[i] > largest[k];
        k++;
    }
    return false;
}

static bool past_int64(const number *v)
{
    const char *limit = v->negative ? "9223372036854775808" : "9223372036854775807";

    return v->whole && (v->count > 19 || (v->count == 19 && memcmp(v->digits, limit, 19) > 0));
}

/* Python's json writes and reads -Infinity, which JSON does not have; diffusers does so in every
 * config of its DPM-Solvers ("lambda_min_clipped"). */
static bool is_infinity(const char *s, size_t n)
{
    static const char word[] = "Infinity";
    size_t minus = n > 0 && s[0] == '-';

    return n - minus == sizeof word - 1 && memcmp(s + minus, word, sizeof word - 1) == 0;
}

/* A number past the double is the nearest that is one, as near as it matters: 1e308. One past 64
 * bits is real: its last two digits are zeros. */
static bool change_run(change *c, const char *text, size_t at, size_t n, bool infinity)
{
    number v;
    bool   huge = infinity && is_infinity(text + at, n);

    if (!huge) {
        if (!read_number(text + at, n, &v)) return false;
        huge = past_double(&v);
        if (!huge && !past_int64(&v)) return false;
    }
    *c = (change){ at, huge ? at + (text[at] == '-') : at + n - 2, at + n, "" };
    memcpy(c->text, huge ? "1e308" : "e2", huge ? 6 : 3);
    return true;
}

/* The next \u0000 in the text of a string that ends at `end`, as U+FFFD, which stands for
 * characters that cannot be had. */
static bool change_string(change *c, const char *text, size_t at, size_t end)
{
    static const char nul[] = "\\u0000", instead[] = "\\ufffd";
    size_t n = sizeof nul - 1;

    for (; at + n <= end; at += text[at] == '\\' ? 2 : 1) {
        if (memcmp(text + at, nul, n) != 0) continue;
        *c = (change){ at, at, at + n, "" };
        memcpy(c->text, instead, sizeof instead);
        return true;
    }
    return false;
}

/* Is the string that ends before `at` a key? Keys stay as they are, and one with U+0000 is refused:
 * it would be another key. */
static bool is_key(const char *text, size_t size, size_t at)
{
    while (at < size && is_space(text[at])) at++;
    return at < size && text[at] == ':';
}

/* ---- feeding --------------------------------------------------------------------------------- */

typedef struct feed {
    const char *text;
    size_t      size;
    size_t      zeros;   /* of the number in front: 2 + zeros is a power of two above every token */
    size_t      at;      /* of everything, wrapping and text */
    bool        failed;   /* memory ran out under the number     */
    bool        infinity; /* may stand in the text               */
    change      next;     /* at or after what was fed last       */
    size_t      string;   /* end of the string that was met last */
    bool        key;      /* what that string is                 */
} feed;

#define OPENING 3  /* "[0." */
#define BETWEEN 2  /* ",\n": so the text keeps its columns and is one line down */

static size_t text_start(const feed *f)
{
    return OPENING + f->zeros + BETWEEN;
}

static void find_change(feed *f, size_t at)
{
    const char *text = f->text;
    size_t      n;

    for (; at < f->size; at += WF_MAX(n, (size_t)1)) {
        if (at >= f->string && text[at] == '"') {
            f->string = at + string_bytes(text + at, f->size - at);
            f->key = is_key(text, f->size, f->string);
        }
        if (at < f->string) {
            n = f->string - at;
            if (!f->key && change_string(&f->next, text, at, f->string)) return;
        } else {
            n = run_bytes(text + at, f->size - at);
            if (n > 0 && change_run(&f->next, text, at, n, f->infinity)) return;
        }
    }
    f->next = (change){ f->size, f->size, SIZE_MAX, "" };
}

static char text_byte(feed *f, size_t at)
{
    if (at >= f->next.end) find_change(f, at);
    if (at < f->next.keep) return f->text[at];
    size_t i = at - f->next.keep;
    return i < strlen(f->next.text) ? f->next.text[i] : ' ';
}

static char fed_byte(feed *f, size_t at)
{
    if (at < OPENING)               return "[0."[at];
    if (at < OPENING + f->zeros)    return '0';
    if (at < text_start(f))         return ",\n"[at - OPENING - f->zeros];
    return text_byte(f, at - text_start(f));
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
static feed make_feed(const char *text, size_t size, size_t token, bool infinity)
{
    feed   f = { .text = text, .size = size, .infinity = infinity };
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
    if (code == json_error_null_byte_in_key)
        return wf_fail(err, WEFT_E_FORMAT, "%s: line %d: a key has the character U+0000 in it",
                       what, e->line - 1);
    return wf_fail(err, WEFT_E_FORMAT, "%s: not valid JSON, line %d column %d: %s", what,
                   e->line - 1, e->column, e->text);
}

/* ---- parsing --------------------------------------------------------------------------------- */

static weft_status parse(json_t **out, const char *text, size_t size, size_t depth, size_t values,
                         bool infinity, const char *what, weft_error *err)
{
    static const char mark[] = "\xef\xbb\xbf"; /* which Windows' editors put in front */
    size_t       skip = size >= 3 && memcmp(text, mark, 3) == 0 ? 3 : 0;
    json_error_t e;
    json_t      *wrapped, *root;
    bounds       seen = measure(text + skip, size - skip);
    feed         f;

    *out = NULL;
    if (seen.depth > depth)
        return wf_fail(err, WEFT_E_FORMAT, "%s: JSON nests %zu deep, expected at most %zu", what,
                       seen.depth, depth);
    if (seen.values > values)
        return wf_fail(err, WEFT_E_FORMAT, "%s: JSON has %zu values, expected at most %zu", what,
                       seen.values, values);

    f = make_feed(text + skip, size - skip, seen.token, infinity);
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

weft_status wf_json_parse_bounded(json_t **out, const char *text, size_t size, size_t depth,
                                  size_t values, const char *what, weft_error *err)
{
    return parse(out, text, size, depth, values, false, what, err);
}

/* A whole file, which may be something else. */
static weft_status parse_file(json_t **out, const char *text, size_t size, bool infinity,
                              const char *what, weft_error *err)
{
    weft_status st = parse(out, text, size, MAX_DEPTH, MAX_VALUES, infinity, what, err);

    if (size == 0 || text[0] == '{') return st;
    return wf_say_foreign(st, (const uint8_t *)text, size, "JSON", what, err);
}

weft_status wf_json_parse(json_t **out, const char *text, size_t size, const char *what,
                          weft_error *err)
{
    return parse_file(out, text, size, false, what, err);
}

weft_status wf_json_load(json_t **out, const char *path, const weft_allocator *alloc,
                         weft_error *err)
{
    wf_file     file = WF_FILE_NONE;
    weft_status st;

    *out = NULL;
    if ((st = wf_file_read(&file, path, MAX_BYTES, alloc, err)) == WEFT_OK)
        st = parse_file(out, (const char *)file.data, file.size, true, path, err);
    wf_file_close(&file, alloc);
    return st;
}

weft_status wf_json_load_text(json_t **out, const char *text, const char *what, weft_error *err)
{
    size_t n = strlen(text);

    *out = NULL;
    if (n > MAX_BYTES)
        return wf_fail(err, WEFT_E_FORMAT, "%s: %zu bytes, expected at most %zu", what, n,
                       (size_t)MAX_BYTES);
    return parse_file(out, text, n, true, what, err);
}
