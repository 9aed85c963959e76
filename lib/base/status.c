/* status.c - the one line that says why, and the structs that cross the ABI.
 *
 * An error's text often carries bytes from a file that somebody else made: a tensor's name, a path,
 * a parser's quotation. So every line is washed on its way out: control characters become spaces,
 * bytes that are not UTF-8 become question marks, and the cut at the end never splits a character.
 * A binding may hand the text to a strict decoder or a log without looking at it.
 *
 * Numbers are printed by our own code. printf's %g asks the locale for the decimal point, and a
 * library cannot know what locale its host has set. */
#include <errno.h>
#include <stdio.h>

#include "base/base.h"

#define LINE_BYTES 2048  /* more than any text keeps: what is cut is cut after washing */

/* ---- lines ----------------------------------------------------------------------------------- */

static bool breaks_line(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x2028 || code == 0x2029;
}

void wf_wash(char *dst, size_t cap, const char *src)
{
    size_t n = strlen(src), used = 0;

    while (n > 0) {
        uint32_t code = 0;
        size_t   step = wf_utf8_next(src, n, &code);
        bool     bad  = step == 0;

        if (bad) step = 1;
        if (used + step >= cap) break;
        if (bad)                    dst[used++] = '?';
        else if (breaks_line(code)) dst[used++] = ' ';
        else                        { memcpy(dst + used, src, step); used += step; }
        src += step;
        n   -= step;
    }
    dst[used] = '\0';
}

static void fill_error(weft_error *err, weft_status code, int sys, const char *line)
{
    err->code = code;
    err->sys  = sys;
    wf_wash(err->text, sizeof err->text, line);
}

weft_status wf_fail(weft_error *err, weft_status code, const char *format, ...)
{
    char    line[LINE_BYTES];
    va_list args;

    if (err == NULL) return code;
    va_start(args, format);
    if (vsnprintf(line, sizeof line, format, args) < 0) line[0] = '\0';
    va_end(args);
    fill_error(err, code, 0, line);
    return code;
}

weft_status wf_fail_sys(weft_error *err, int sys, const char *format, ...)
{
    char    line[LINE_BYTES], reason[128];
    va_list args;
    size_t  n;

    if (err == NULL) return WEFT_E_IO;
    va_start(args, format);
    if (vsnprintf(line, sizeof line - sizeof reason - 2, format, args) < 0) line[0] = '\0';
    va_end(args);

    if (strerror_r(sys, reason, sizeof reason) != 0)
        if (!wf_format(reason, sizeof reason, "error %d", sys)) reason[0] = '\0';
    n = strlen(line);
    memcpy(line + n, ": ", 2);
    memcpy(line + n + 2, reason, strlen(reason) + 1);
    fill_error(err, WEFT_E_IO, sys, line);
    return WEFT_E_IO;
}

void wf_log(weft_log_fn log, void *user, int32_t level, const char *format, ...)
{
    char    line[LINE_BYTES], clean[LINE_BYTES];
    va_list args;

    if (log == NULL) return;
    va_start(args, format);
    if (vsnprintf(line, sizeof line, format, args) < 0) line[0] = '\0';
    va_end(args);
    wf_wash(clean, sizeof clean, line);
    log(user, level, clean);
}

const char *weft_status_name(weft_status status)
{
    switch (status) {
    case WEFT_OK:            return "WEFT_OK";
    case WEFT_E_ARG:         return "WEFT_E_ARG";
    case WEFT_E_NOMEM:       return "WEFT_E_NOMEM";
    case WEFT_E_IO:          return "WEFT_E_IO";
    case WEFT_E_FORMAT:      return "WEFT_E_FORMAT";
    case WEFT_E_MISMATCH:    return "WEFT_E_MISMATCH";
    case WEFT_E_UNSUPPORTED: return "WEFT_E_UNSUPPORTED";
    case WEFT_E_STATE:       return "WEFT_E_STATE";
    case WEFT_E_CANCELLED:   return "WEFT_E_CANCELLED";
    case WEFT_E_INTERNAL:    return "WEFT_E_INTERNAL";
    default:                 return "WEFT_E_UNKNOWN";
    }
}

/* ---- numbers ----------------------------------------------------------------------------------
 *
 * The shortest digits that read back as the same float, found exactly: the float and the half-gaps
 * to its neighbours are integers over a common denominator (Steele and White, "How to print
 * floating-point numbers accurately", 1990). 256 bits hold the extremes: 2^-149 needs 10^45 on top
 * of it, 2^128 needs 10^39 below. It is slow (a microsecond) and texts are short. */

#define BIG_WORDS 8
typedef struct big { uint32_t w[BIG_WORDS]; } big;  /* little end first */

static big big_shifted(uint32_t v, int shift)
{
    big b = { { 0 } };
    uint64_t wide = (uint64_t)v << (shift % 32);

    b.w[shift / 32] = (uint32_t)wide;
    if (shift / 32 + 1 < BIG_WORDS) b.w[shift / 32 + 1] = (uint32_t)(wide >> 32);
    return b;
}

static void big_times10(big *b)
{
    uint64_t carry = 0;

    for (int i = 0; i < BIG_WORDS; i++) {
        carry += (uint64_t)b->w[i] * 10;
        b->w[i] = (uint32_t)carry;
        carry >>= 32;
    }
}

static big big_sum(const big *a, const big *b)
{
    big      s;
    uint64_t carry = 0;

    for (int i = 0; i < BIG_WORDS; i++) {
        carry += (uint64_t)a->w[i] + b->w[i];
        s.w[i] = (uint32_t)carry;
        carry >>= 32;
    }
    return s;
}

static void big_subtract(big *a, const big *b)
{
    int64_t borrow = 0;

    for (int i = 0; i < BIG_WORDS; i++) {
        borrow += (int64_t)a->w[i] - b->w[i];
        a->w[i] = (uint32_t)borrow;
        borrow >>= 32;  /* 0 or -1: arithmetic shift on every compiler that we build with */
    }
}

static int big_compare(const big *a, const big *b)
{
    for (int i = BIG_WORDS - 1; i >= 0; i--)
        if (a->w[i] != b->w[i]) return a->w[i] < b->w[i] ? -1 : 1;
    return 0;
}

/* Digits of the positive float m * 2^e into digits, their count as result; value = 0.d1d2.. * 10^*point. */
static int shortest_digits(uint32_t m, int e, char digits[16], int *point)
{
    bool even   = (m & 1) == 0;                   /* then a reader rounds the exact midpoints to us */
    int  narrow = m == 0x800000 && e > -149;      /* the gap below is half the gap above */
    int  up     = e > 0 ? e : 0, down = e < 0 ? -e : 0;
    big  r      = big_shifted(m, up + 1 + narrow);
    big  s      = big_shifted(1, down + 1 + narrow);
    big  high   = big_shifted(1, up + narrow);
    big  low    = big_shifted(1, up);
    int  count  = 0;

    *point = 0;
    for (;;) {
        big top = big_sum(&r, &high);
        int c   = big_compare(&top, &s);
        if (c < 0 || (c == 0 && !even)) break;
        big_times10(&s);
        ++*point;
    }
    for (;;) {
        big top = big_sum(&r, &high);
        big_times10(&top);
        int c = big_compare(&top, &s);
        if (c > 0 || (c == 0 && even)) break;
        big_times10(&r);
        big_times10(&high);
        big_times10(&low);
        --*point;
    }
    for (;;) {
        int digit = 0;

        big_times10(&r);
        big_times10(&high);
        big_times10(&low);
        while (big_compare(&r, &s) >= 0) {
            big_subtract(&r, &s);
            digit++;
        }
        big  top       = big_sum(&r, &high);
        int  c_low     = big_compare(&r, &low), c_high = big_compare(&top, &s);
        bool stop_low  = c_low < 0 || (c_low == 0 && even);    /* cutting here still reads back */
        bool stop_high = c_high > 0 || (c_high == 0 && even);  /* so does rounding up here      */

        if (stop_low || stop_high) {
            big twice = big_sum(&r, &r);
            bool up_is_nearer = big_compare(&twice, &s) >= 0;

            if (stop_high && (!stop_low || up_is_nearer)) digit++;
            digits[count++] = (char)('0' + digit);
            return count;
        }
        digits[count++] = (char)('0' + digit);
    }
}

/* Write the exponent e as "e-12" and return the end. */
static char *write_exponent(char *p, int e)
{
    *p++ = 'e';
    if (e < 0) { *p++ = '-'; e = -e; }
    if (e >= 10) *p++ = (char)('0' + e / 10);
    *p++ = (char)('0' + e % 10);
    return p;
}

static char *write_digits(char *p, const char *digits, int count, int point)
{
    if (point < -4 || point > 16) {
        *p++ = digits[0];
        if (count > 1) *p++ = '.';
        for (int i = 1; i < count; i++) *p++ = digits[i];
        return write_exponent(p, point - 1);
    }
    if (point <= 0) {
        *p++ = '0';
        *p++ = '.';
        for (int i = point; i < 0; i++) *p++ = '0';
    }
    for (int i = 0; i < WF_MAX(count, point); i++) {
        if (i == point && i > 0) *p++ = '.';
        *p++ = i < count ? digits[i] : '0';
    }
    return p;
}

const char *wf_number(wf_number_text *buf, double v)
{
    float    f = (float)v;
    uint32_t bits;
    char     digits[16], *p = buf->text;

    memcpy(&bits, &f, sizeof bits);
    uint32_t exponent = bits >> 23 & 0xff, fraction = bits & 0x7fffff;
    if (exponent == 0xff && fraction != 0) {
        memcpy(buf->text, "nan", 4);
        return buf->text;
    }
    if (bits >> 31) *p++ = '-';
    if (exponent == 0xff) {
        memcpy(p, "inf", 4);
    } else if (exponent == 0 && fraction == 0) {
        memcpy(p, "0", 2);
    } else {
        int point;
        int count = exponent == 0 ? shortest_digits(fraction, -149, digits, &point)
                                  : shortest_digits(fraction | 0x800000, (int)exponent - 150, digits, &point);
        p  = write_digits(p, digits, count, point);
        *p = '\0';
    }
    return buf->text;
}

/* ---- structs of the caller ---------------------------------------------------------------------
 *
 * A caller may have been compiled against an older or a newer header than ours. struct_size, the
 * first field of each of these structs, tells; flags is the second. */

#define STRUCT_LIMIT 4096  /* no struct of ours comes near: a size above it was never set */

static weft_status check_size(const void *theirs, size_t first, uint32_t *size, const char *what, weft_error *err)
{
    memcpy(size, theirs, sizeof *size);
    if (*size >= first && *size <= STRUCT_LIMIT) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG, "%s: struct_size is %u, expected at least %zu; start from its INIT value", what,
                   *size, first);
}

weft_status wf_options(void *dst, size_t size, size_t first, const void *src, uint32_t flags, const char *what,
                       weft_error *err)
{
    const uint8_t *theirs = src;
    uint32_t       their_size = (uint32_t)size, head[2];
    weft_status    st;

    memset(dst, 0, size);
    if (src != NULL) {
        if ((st = check_size(src, first, &their_size, what, err)) != WEFT_OK) return st;
        for (size_t i = size; i < their_size; i++)
            if (theirs[i] != 0)
                return wf_fail(err, WEFT_E_UNSUPPORTED,
                               "%s: byte %zu is set, but this library (version %d.%d.%d) knows only %zu", what, i,
                               WEFT_VERSION_MAJOR, WEFT_VERSION_MINOR, WEFT_VERSION_PATCH, size);
        memcpy(dst, src, WF_MIN(size, their_size));
    }
    memcpy(head, dst, sizeof head);
    if ((head[1] & ~flags) != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: flags %u has bits that this library does not know (%u)", what,
                       head[1], head[1] & ~flags);
    head[0] = (uint32_t)size;
    memcpy(dst, head, sizeof head);
    return WEFT_OK;
}

weft_status wf_result(void *dst, const void *src, size_t size, size_t first, const char *what, weft_error *err)
{
    uint32_t    their_size;
    weft_status st;

    if (dst == NULL) return wf_fail(err, WEFT_E_ARG, "%s is NULL", what);
    if ((st = check_size(dst, first, &their_size, what, err)) != WEFT_OK) return st;
    memcpy(dst, src, WF_MIN(size, their_size));
    memcpy(dst, &their_size, sizeof their_size);
    return WEFT_OK;
}
