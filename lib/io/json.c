/* json.c - jansson, held to what a file from a stranger may cost.
 *
 * jansson is strict where it matters (UTF-8, lone surrogates, control characters, NUL, trailing
 * text) and generous where it hurts: it nests 2048 deep, and a megabyte of "1,1,1," becomes forty.
 * So a scan that allocates nothing counts depth and values first, and the parser sees only what
 * passed.
 *
 * jansson allocates with malloc and often reports a failure of it as a syntax error. errno tells the
 * two apart: malloc sets it to ENOMEM, and the parser stops at the first failure. */
#include <errno.h>

#include "io/io.h"

#define MAX_DEPTH  64
#define MAX_VALUES ((size_t)4 << 20)   /* the vocabulary of a tokenizer has some 100,000 */
#define MAX_BYTES  ((size_t)64 << 20)

typedef struct bounds {
    size_t depth;
    size_t values;  /* counted by commas: one less than the values of each array or object */
} bounds;

/* Strings are skipped: brackets and commas in them mean nothing. */
static bounds measure(const char *text, size_t size)
{
    bounds seen = { 0, 1 };
    size_t depth = 0;
    bool   quoted = false;

    for (size_t i = 0; i < size; i++) {
        char c = text[i];

        if (quoted) {
            if (c == '\\') i++;
            else if (c == '"') quoted = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == ',') {
            seen.values++;
        } else if (c == '{' || c == '[') {
            seen.values++;
            depth++;
            seen.depth = WF_MAX(seen.depth, depth);
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return seen;
}

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
    return wf_fail(err, WEFT_E_FORMAT, "%s: duplicate key %.*s", what, (int)WF_MIN(end - start, 200), text + start);
}

static weft_status fail_parse(const json_error_t *e, const char *text, size_t size, const char *what,
                              weft_error *err)
{
    enum json_error_code code = json_error_code(e);

    if (errno == ENOMEM || code == json_error_out_of_memory || e->text[0] == '\0')
        return wf_fail(err, WEFT_E_NOMEM, "out of memory: parsing %zu bytes of JSON of %s", size, what);
    if (code == json_error_duplicate_key && e->position >= 0 && (size_t)e->position <= size)
        return fail_duplicate(text, (size_t)e->position, what, err);
    return wf_fail(err, WEFT_E_FORMAT, "%s: not valid JSON, line %d column %d: %s", what, e->line, e->column, e->text);
}

weft_status wf_json_parse_bounded(json_t **out, const char *text, size_t size, size_t depth, size_t values,
                                  const char *what, weft_error *err)
{
    json_error_t e;
    json_t      *root;
    bounds       seen = measure(text, size);

    *out = NULL;
    if (seen.depth > depth)
        return wf_fail(err, WEFT_E_FORMAT, "%s: JSON nests %zu deep, expected at most %zu", what, seen.depth, depth);
    if (seen.values > values)
        return wf_fail(err, WEFT_E_FORMAT, "%s: JSON has %zu values, expected at most %zu", what, seen.values, values);

    errno = 0;
    root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &e);
    if (root == NULL) return fail_parse(&e, text, size, what, err);
    if (!json_is_object(root)) {
        json_decref(root);
        return wf_fail(err, WEFT_E_FORMAT, "%s: JSON is an array, expected an object", what);
    }
    *out = root;
    return WEFT_OK;
}

weft_status wf_json_parse(json_t **out, const char *text, size_t size, const char *what, weft_error *err)
{
    return wf_json_parse_bounded(out, text, size, MAX_DEPTH, MAX_VALUES, what, err);
}

weft_status wf_json_load(json_t **out, const char *path, const weft_allocator *alloc, weft_error *err)
{
    wf_file     file = WF_FILE_NONE;
    weft_status st;

    *out = NULL;
    if ((st = wf_file_read(&file, path, MAX_BYTES, alloc, err)) == WEFT_OK)
        st = wf_json_parse(out, (const char *)file.data, file.size, path, err);
    wf_file_close(&file, alloc);
    return st;
}
