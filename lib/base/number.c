/* number.c - floats in texts. printf's %g asks the locale for the decimal point, and a library
 * cannot know which locale its host has set, so we have code of our own.
 *
 * The shortest digits that read back as the same float, found exactly: the float and the half-gaps
 * to its neighbours are integers over a common denominator (Steele and White, "How to print
 * floating-point numbers accurately", 1990). 256 bits hold the extremes: 2^-149 needs 10^45 on top
 * of it, 2^128 needs 10^39 below. It is slow (a microsecond) and texts are short. */
#include <math.h>

#include "base/base.h"

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

/* Digits of the positive float m * 2^e into digits, their count as result; value = 0.d1d2.. *
 * 10^*point. */
static int shortest_digits(uint32_t m, int e, char digits[16], int *point)
{
    bool even = (m & 1) == 0; /* then a reader rounds the exact midpoints to us */
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
        int count = exponent == 0
                        ? shortest_digits(fraction, -149, digits, &point)
                        : shortest_digits(fraction | 0x800000, (int)exponent - 150, digits, &point);
        p  = write_digits(p, digits, count, point);
        *p = '\0';
    }
    return buf->text;
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
