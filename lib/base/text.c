/* text.c - strings: growing ones, ones cut to fit, patterns, UTF-8.
 *
 * wf_text remembers a failed allocation instead of reporting each: a writer of forty lines adds
 * forty times and looks at `failed` once. */
#include <stdio.h>

#include "base/base.h"

void wf_text_init(wf_text *t, const weft_allocator *alloc)
{
    memset(t, 0, sizeof *t);
    t->alloc = alloc;
}

/* Room for n more bytes and the NUL. */
static bool reserve(wf_text *t, size_t n)
{
    size_t need, cap;
    char  *bigger;

    if (t->failed) return false;
    if (!wf_add(t->len, n, &need) || !wf_add(need, 1, &need)) { t->failed = true; return false; }
    if (need <= t->cap) return true;

    cap = WF_MAX(need, t->cap <= SIZE_MAX / 2 ? t->cap * 2 : need);
    cap = WF_MAX(cap, 256);
    bigger = wf_alloc(t->alloc, cap);
    if (bigger == NULL) { t->failed = true; return false; }
    if (t->len > 0) memcpy(bigger, t->s, t->len);
    bigger[t->len] = '\0';
    wf_free(t->alloc, t->s);
    t->s   = bigger;
    t->cap = cap;
    return true;
}

void wf_text_add(wf_text *t, const char *format, ...)
{
    char    line[256];  /* most additions fit, and need no second pass */
    va_list args;
    int     n;

    va_start(args, format);
    n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n < 0) { t->failed = true; return; }
    if ((size_t)n < sizeof line) { wf_text_bytes(t, line, (size_t)n); return; }

    if (!reserve(t, (size_t)n)) return;
    va_start(args, format);
    vsnprintf(t->s + t->len, (size_t)n + 1, format, args);
    va_end(args);
    t->len += (size_t)n;
}

void wf_text_bytes(wf_text *t, const char *s, size_t n)
{
    if (!reserve(t, n)) return;
    if (n > 0) memcpy(t->s + t->len, s, n);
    t->len += n;
    t->s[t->len] = '\0';
}

void wf_text_free(wf_text *t)
{
    wf_free(t->alloc, t->s);
    wf_text_init(t, t->alloc);
}

/* n, or less if s[n] is inside a character. */
static size_t boundary(const char *s, size_t n)
{
    while (n > 0 && ((unsigned char)s[n] & 0xc0) == 0x80) n--;
    return n;
}

bool wf_format(char *buf, size_t cap, const char *format, ...)
{
    va_list  args;
    int      n;
    uint32_t code;
    size_t   last;

    va_start(args, format);
    n = vsnprintf(buf, cap, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < cap) return true;
    last = n < 0 || cap < 2 ? 0 : boundary(buf, cap - 2); /* the last character */
    if (n < 0 || wf_utf8_next(buf + last, cap - 1 - last, &code) == 0)
        buf[last] = '\0'; /* was cut itself */
    return false;
}

void wf_copy_out(const char *s, size_t len, char *buf, size_t cap, size_t *needed)
{
    size_t n = len;

    if (needed != NULL) *needed = len + 1;
    if (buf == NULL || cap == 0) return;
    if (n >= cap) n = boundary(s, cap - 1);
    if (n > 0) memcpy(buf, s, n);
    buf[n] = '\0';
}

size_t wf_utf8_next(const char *s, size_t n, uint32_t *code)
{
    static const uint32_t least[5] = { 0, 0, 0x80, 0x800,
                                       0x10000 }; /* shorter forms are forbidden */
    const unsigned char  *u = (const unsigned char *)s;
    size_t   len;
    uint32_t c;

    if (n == 0) return 0;
    if (u[0] < 0x80) { *code = u[0]; return 1; }
    if      ((u[0] & 0xe0) == 0xc0) { len = 2; c = u[0] & 0x1f; }
    else if ((u[0] & 0xf0) == 0xe0) { len = 3; c = u[0] & 0x0f; }
    else if ((u[0] & 0xf8) == 0xf0) { len = 4; c = u[0] & 0x07; }
    else return 0;

    if (n < len) return 0;
    for (size_t i = 1; i < len; i++) {
        if ((u[i] & 0xc0) != 0x80) return 0;
        c = c << 6 | (u[i] & 0x3f);
    }
    if (c < least[len] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return 0;
    *code = c;
    return len;
}

bool wf_utf8_valid(const char *s, size_t n)
{
    while (n > 0) {
        uint32_t code = 0;
        size_t   step = wf_utf8_next(s, n, &code);

        if (step == 0 || code == 0) return false;
        s += step;
        n -= step;
    }
    return true;
}

static const char *next_char(const char *s)
{
    do s++; while (((unsigned char)*s & 0xc0) == 0x80);
    return s;
}

/* One pattern, p up to end. A star first matches nothing; on a later mismatch the last star takes
 * one more character: enough, since an earlier star could only give what the later one takes. */
static bool glob(const char *p, const char *end, const char *name)
{
    const char *star = NULL, *retry = NULL;

    while (*name != '\0') {
        if (p < end && *p == '*') {
            star  = ++p;
            retry = name;
        } else if (p < end && *p == '?') {
            p++;
            name = next_char(name);
        } else if (p < end && *p == *name) {
            p++;
            name++;
        } else if (star != NULL) {
            p    = star;
            name = retry = next_char(retry);
        } else {
            return false;
        }
    }
    while (p < end && *p == '*') p++;
    return p == end;
}

bool wf_glob_any(const char *patterns, const char *name)
{
    const char *p = patterns;

    while (p != NULL && *p != '\0') {
        const char *end, *comma = strchr(p, ',');

        end = comma != NULL ? comma : p + strlen(p);
        while (p < end && *p == ' ') p++;                 /* "a, b" is how people write a list */
        const char *last = end;
        while (last > p && last[-1] == ' ') last--;
        if (last > p && glob(p, last, name)) return true;
        p = comma != NULL ? comma + 1 : end;
    }
    return false;
}

void wf_glob_tidy(char *patterns)
{
    char *to = patterns;

    for (const char *p = patterns; *p != '\0'; p++)
        if (*p != '*' || to == patterns || to[-1] != '*') *to++ = *p;
    *to = '\0';
}

/* Every pattern meets every layer: more than this is no list that somebody wants. All names of SDXL
 * are 80 kB. */
enum { PATTERNS = 1 << 18 };

weft_status wf_glob_copy(char **to, const char *patterns, const char *whose, const char *what,
                         const weft_allocator *alloc, weft_error *err)
{
    size_t n;

    *to = NULL;
    if (patterns == NULL) return WEFT_OK;
    if ((n = strlen(patterns)) > PATTERNS)
        return wf_fail(err, WEFT_E_ARG,
                       "adapter %s: the %s pattern has %zu characters, at most %d are taken", whose,
                       what, n, PATTERNS);
    if ((*to = wf_strdup(alloc, patterns)) == NULL) return wf_nomem(err, n + 1, "a selection");
    wf_glob_tidy(*to);
    return WEFT_OK;
}
