/* number.c - floats in texts. printf's %g asks the locale for the decimal point, and a library
 * cannot know which locale its host has set, so we have code of our own.
 *
 * The shortest digits that read back as the same float, found exactly: the float and the half-gaps
 * to its neighbours are integers over a common denominator (Steele and White, "How to print
 * floating-point numbers accurately", 1990). 256 bits hold the extremes of float32: 2^-149 needs
 * 10^45 on top of it, 2^128 needs 10^39 below; those of doubles take 1152. It is slow (a
 * microsecond, for doubles some more) and texts are short. */
#include <math.h>

#include "base/base.h"

enum { DIGITS_MAX = 20 };
enum { FLOAT_WORDS = 8, DOUBLE_WORDS = 36 };
typedef struct big { uint32_t w[DOUBLE_WORDS]; } big; /* little end first; n words of it count */

static big big_shifted(uint64_t v, int shift, int n)
{
    big b = { { 0 } };
    int from = shift / 32, by = shift % 32;

    b.w[from] = (uint32_t)(v << by);
    if (from + 1 < n) b.w[from + 1] = (uint32_t)(v >> (32 - by));
    if (from + 2 < n && by > 0) b.w[from + 2] = (uint32_t)(v >> (64 - by));
    return b;
}

static void big_times10(big *b, int n)
{
    uint64_t carry = 0;

    for (int i = 0; i < n; i++) {
        carry += (uint64_t)b->w[i] * 10;
        b->w[i] = (uint32_t)carry;
        carry >>= 32;
    }
}

static big big_sum(const big *a, const big *b, int n)
{
    big      s = { { 0 } };
    uint64_t carry = 0;

    for (int i = 0; i < n; i++) {
        carry += (uint64_t)a->w[i] + b->w[i];
        s.w[i] = (uint32_t)carry;
        carry >>= 32;
    }
    return s;
}

static void big_subtract(big *a, const big *b, int n)
{
    int64_t borrow = 0;

    for (int i = 0; i < n; i++) {
        borrow += (int64_t)a->w[i] - b->w[i];
        a->w[i] = (uint32_t)borrow;
        borrow >>= 32;  /* 0 or -1: arithmetic shift on every compiler that we build with */
    }
}

static int big_compare(const big *a, const big *b, int n)
{
    for (int i = n - 1; i >= 0; i--)
        if (a->w[i] != b->w[i]) return a->w[i] < b->w[i] ? -1 : 1;
    return 0;
}

/* A kind of float: bits of its fraction, its lowest exponent, and words that hold its extremes. */
typedef struct kind { int bits, lowest, words; } kind;

/* Digits of the positive float m * 2^e into digits, their count as result; value = 0.d1d2.. *
 * 10^*point. */
static int shortest_digits(uint64_t m, int e, const kind *k, char digits[DIGITS_MAX], int *point)
{
    bool even = (m & 1) == 0; /* then a reader rounds the exact midpoints to us */
    int  narrow = m == UINT64_C(1) << k->bits && e > k->lowest; /* the gap below is half that above */
    int  up     = e > 0 ? e : 0, down = e < 0 ? -e : 0, n = k->words;
    big  r      = big_shifted(m, up + 1 + narrow, n);
    big  s      = big_shifted(1, down + 1 + narrow, n);
    big  high   = big_shifted(1, up + narrow, n);
    big  low    = big_shifted(1, up, n);
    int  count  = 0;

    *point = 0;
    for (;;) {
        big top = big_sum(&r, &high, n);
        int c   = big_compare(&top, &s, n);
        if (c < 0 || (c == 0 && !even)) break;
        big_times10(&s, n);
        ++*point;
    }
    for (;;) {
        big top = big_sum(&r, &high, n);
        big_times10(&top, n);
        int c = big_compare(&top, &s, n);
        if (c > 0 || (c == 0 && even)) break;
        big_times10(&r, n);
        big_times10(&high, n);
        big_times10(&low, n);
        --*point;
    }
    for (;;) {
        int digit = 0;

        big_times10(&r, n);
        big_times10(&high, n);
        big_times10(&low, n);
        while (big_compare(&r, &s, n) >= 0) {
            big_subtract(&r, &s, n);
            digit++;
        }
        big  top       = big_sum(&r, &high, n);
        int  c_low     = big_compare(&r, &low, n), c_high = big_compare(&top, &s, n);
        bool stop_low  = c_low < 0 || (c_low == 0 && even);    /* cutting here still reads back */
        bool stop_high = c_high > 0 || (c_high == 0 && even);  /* so does rounding up here      */

        if (stop_low || stop_high) {
            big twice = big_sum(&r, &r, n);
            bool up_is_nearer = big_compare(&twice, &s, n) >= 0;

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
    if (e >= 100) *p++ = (char)('0' + e / 100);
    if (e >= 10) *p++ = (char)('0' + e / 10 % 10);
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

/* The number with this sign, exponent bits less their bias, and fraction, which is neither
 * infinite nor none. */
static const char *write_number(wf_number_text *buf, bool negative, int exponent, uint64_t fraction,
                                const kind *k)
{
    char digits[DIGITS_MAX], *p = buf->text;
    int  point, count;

    if (negative) *p++ = '-';
    if (exponent == 0 && fraction == 0) {
        memcpy(p, "0", 2);
        return buf->text;
    }
    count = exponent == 0 ? shortest_digits(fraction, k->lowest, k, digits, &point)
                          : shortest_digits(fraction | UINT64_C(1) << k->bits,
                                            exponent - 1 + k->lowest, k, digits, &point);
    p = write_digits(p, digits, count, point);
    *p = '\0';
    return buf->text;
}

static const char *write_strange(wf_number_text *buf, double v)
{
    memcpy(buf->text, isnan(v) ? "nan" : v < 0 ? "-inf" : "inf", isnan(v) || v > 0 ? 4 : 5);
    return buf->text;
}

const char *wf_number(wf_number_text *buf, double v)
{
    static const kind single = { 23, -149, FLOAT_WORDS };
    float    f = (float)v;
    uint32_t bits;

    if (!isfinite(f)) return write_strange(buf, (double)f);
    memcpy(&bits, &f, sizeof bits);
    return write_number(buf, bits >> 31 != 0, (int)(bits >> 23 & 0xff), bits & 0x7fffff, &single);
}

const char *wf_number_double(wf_number_text *buf, double v)
{
    static const kind twice = { 52, -1074, DOUBLE_WORDS };
    uint64_t bits;

    if (!isfinite(v)) return write_strange(buf, v);
    memcpy(&bits, &v, sizeof bits);
    return write_number(buf, bits >> 63 != 0, (int)(bits >> 52 & 0x7ff),
                        bits & ((UINT64_C(1) << 52) - 1), &twice);
}

bool wf_number_read(const char *s, size_t n, double *out)
{
    size_t i = n > 0 && (s[0] == '+' || s[0] == '-'), points = 0, digits = 0;
    double value = 0, unit = 1;

    for (; i < n; i++) {
        if (s[i] == '.') {
            points++;
            continue;
        }
        if (s[i] < '0' || s[i] > '9') return false;
        digits++;
        value = 10 * value + (s[i] - '0');
        if (points > 0) unit *= 10;
    }
    value /= unit;
    if (points > 1 || digits == 0 || !isfinite(value)) return false;
    *out = s[0] == '-' ? -value : value;
    return true;
}
