/* tokenizer_split.c - Unicode: one form for each text, and where its words end.
 *
 * A text is brought to NFC and then to lower case, code point by code point. Then it is cut,
 * leftmost first, into contractions ('s 't 're 've 'm 'll 'd), runs of letters, single digits, and
 * runs of anything else that is not white space. Combining marks that NFC leaves alone count as
 * anything else, as CLIP's tokenizer has it.
 *
 * Categories, decomposition and case come from utf8proc. Its own function for a whole string sorts
 * combining marks by swapping neighbours, in the square of their number; a prompt may be nothing
 * but marks, so we decompose and sort ourselves and leave it the composition, which is linear. */
#include <utf8proc.h>

#include "model/tokenizer.h"

#define CAPITAL_I_WITH_DOT 0x130 /* the one letter whose lower case is two code points: i and U+0307 */
#define DOT_ABOVE          0x307

/* ---- normalising ----------------------------------------------------------------------------- */

static uint32_t decode(const char *s, size_t n, size_t *step)
{
    uint32_t code = 0;

    *step = wf_utf8_next(s, n, &code);
    return code;
}

/* The canonical decomposition of a text; `out` NULL only counts. */
static size_t decompose(const char *text, size_t n, utf8proc_int32_t *out)
{
    size_t count = 0, step;

    for (size_t i = 0; i < n; i += step) {
        utf8proc_int32_t parts[8];
        int              last_class = 0;
        uint32_t         code = decode(text + i, n - i, &step);
        utf8proc_ssize_t k =
            utf8proc_decompose_char((utf8proc_int32_t)code, parts, (utf8proc_ssize_t)WF_LEN(parts),
                                    UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &last_class);

        if (k < 1 || k > (utf8proc_ssize_t)WF_LEN(parts)) {
            parts[0] = (utf8proc_int32_t)code;
            k = 1;
        }
        if (out != NULL) memcpy(out + count, parts, (size_t)k * sizeof *parts);
        count += (size_t)k;
    }
    return count;
}

static uint8_t combining_class(utf8proc_int32_t code)
{
    return (uint8_t)utf8proc_get_property(code)->combining_class;
}

/* Sort a run of marks by class, equal ones in the order that they came. */
static void sort_marks(utf8proc_int32_t *marks, utf8proc_int32_t *spare, size_t n)
{
    size_t start[257] = { 0 };

    for (size_t i = 0; i < n; i++) start[combining_class(marks[i]) + 1]++;
    for (size_t c = 1; c < WF_LEN(start); c++) start[c] += start[c - 1];
    for (size_t i = 0; i < n; i++) spare[start[combining_class(marks[i])]++] = marks[i];
    memcpy(marks, spare, n * sizeof *marks);
}

static void order_marks(utf8proc_int32_t *codes, utf8proc_int32_t *spare, size_t n)
{
    for (size_t i = 0, run; i < n; i += run + 1) {
        for (run = 0; i + run < n && combining_class(codes[i + run]) != 0; run++) {}
        if (run > 1) sort_marks(codes + i, spare, run);
    }
}

static size_t put(utf8proc_int32_t code, char *out)
{
    return (size_t)utf8proc_encode_char(code, (utf8proc_uint8_t *)out);
}

static size_t put_lower(utf8proc_int32_t code, char *out)
{
    if (code != CAPITAL_I_WITH_DOT) return put(utf8proc_tolower(code), out);
    out[0] = 'i';
    return 1 + put(DOT_ABOVE, out + 1);
}

weft_status wf_token_normalise(const char *text, size_t n, const weft_allocator *alloc, char **out,
                               size_t *out_len, weft_error *err)
{
    size_t            count = decompose(text, n, NULL), len = 0;
    utf8proc_int32_t *codes =
        wf_zalloc(alloc, count, 2 * sizeof *codes); /* and as many to sort marks with */
    char             *lower = wf_zalloc(alloc, count + 1, 4);
    weft_status       st = WEFT_OK;
    utf8proc_ssize_t  composed;

    *out = NULL;
    *out_len = 0;
    if (codes == NULL || lower == NULL) {
        st = wf_nomem(err, count * (2 * sizeof *codes + 4), "a text to tokenize");
        goto done;
    }
    decompose(text, n, codes);
    order_marks(codes, codes + count, count);
    composed = utf8proc_normalize_utf32(codes, (utf8proc_ssize_t)count,
                                        UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    if (composed < 0) {
        st = wf_fail(err, WEFT_E_INTERNAL, "text cannot be normalised: %s",
                     utf8proc_errmsg(composed));
        goto done;
    }
    for (utf8proc_ssize_t i = 0; i < composed; i++) len += put_lower(codes[i], lower + len);
    lower[len] = '\0';
    *out = lower;
    *out_len = len;
    lower = NULL;
done:
    wf_free(alloc, codes);
    wf_free(alloc, lower);
    return st;
}

/* ---- cutting --------------------------------------------------------------------------------- */

enum { SPACE, LETTER, NUMBER, OTHER };

/* White_Space of Unicode: the separators, and these controls. */
static int kind_of(uint32_t code)
{
    if ((code >= 0x09 && code <= 0x0d) || code == 0x85) return SPACE;
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_ZS: case UTF8PROC_CATEGORY_ZL: case UTF8PROC_CATEGORY_ZP:
        return SPACE;
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return LETTER;
    case UTF8PROC_CATEGORY_ND: case UTF8PROC_CATEGORY_NL: case UTF8PROC_CATEGORY_NO:
        return NUMBER;
    default:
        return OTHER;
    }
}

/* Length of the run of this kind that the n bytes begin with. */
static size_t run_of(int kind, const char *s, size_t n)
{
    size_t len = 0, step;

    while (len < n && kind_of(decode(s + len, n - len, &step)) == kind) len += step;
    return len;
}

size_t wf_token_space(const char *s, size_t n)
{
    return run_of(SPACE, s, n);
}

bool wf_token_wordy(const char *s, size_t n, size_t at)
{
    size_t step;
    int    kind = at < n ? kind_of(decode(s + at, n - at, &step)) : SPACE;

    return kind == LETTER || kind == NUMBER;
}

bool wf_token_wordy_before(const char *s, size_t at)
{
    size_t begin = at;

    while (begin > 0 && at - begin < 4 && ((uint8_t)s[--begin] & 0xc0) == 0x80) {}
    return wf_token_wordy(s, at, begin);
}

static size_t contraction(const char *s, size_t n)
{
    static const char *const endings[] = { "'s", "'t", "'re", "'ve", "'m", "'ll", "'d" };

    for (size_t i = 0; i < WF_LEN(endings); i++) {
        size_t len = strlen(endings[i]);

        if (len <= n && memcmp(s, endings[i], len) == 0) return len;
    }
    return 0;
}

size_t wf_token_spelled(const char *s, size_t n)
{
    static const char *const names[] = { "<|startoftext|>", "<|endoftext|>" };

    for (size_t i = 0; i < WF_LEN(names); i++) {
        size_t len = strlen(names[i]);

        if (len <= n && memcmp(s, names[i], len) == 0) return len;
    }
    return 0;
}

size_t wf_token_piece(const char *s, size_t n)
{
    size_t step, len = contraction(s, n);
    int    kind;

    if (len > 0) return len;
    kind = kind_of(decode(s, n, &step));
    return kind == NUMBER ? step : run_of(kind, s, n);
}
