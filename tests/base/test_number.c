/* Floats in texts. */
#include <math.h>

#include "support.h"

START_TEST(numbers_are_written_as_people_do)
{
    static const struct { double v; const char *text; } cases[] = {
        { 0, "0" }, { -0.0, "-0" }, { 1, "1" }, { -1, "-1" }, { 0.1, "0.1" }, { 0.7, "0.7" }, { 0.5, "0.5" },
        { 100, "100" }, { 7.5, "7.5" }, { 123.456, "123.456" }, { 16777216, "16777216" }, { 1e15, "1000000000000000" },
        { 0.00001, "0.00001" }, { 0.000001, "1e-6" }, { 1e17, "1e17" }, { 3.4028235e38, "3.4028235e38" },
        { 1e-45, "1e-45" }, { 1.1754944e-38, "1.1754944e-38" }, { 1.0 / 3, "0.33333334" },
        { INFINITY, "inf" }, { -INFINITY, "-inf" }, { NAN, "nan" }, { 1e300, "inf" },
    };
    wf_number_text buf;

    for (size_t i = 0; i < WF_LEN(cases); i++)
        ck_assert_str_eq(wf_number(&buf, cases[i].v), cases[i].text);
}
END_TEST

/* Digits without leading and trailing zeros. */
static int significant(const char *s)
{
    int n = 0, zeros = 0;

    for (; *s != '\0' && *s != 'e'; s++) {
        if (*s < '0' || *s > '9' || (n == 0 && *s == '0')) continue;
        n++;
        zeros = *s == '0' ? zeros + 1 : 0;
    }
    return n - zeros;
}

/* As many digits as the fewest with which libc's own rounding reads back. */
static int fewest_digits(float f)
{
    char text[48];

    for (int n = 1; n <= 9; n++) {
        snprintf(text, sizeof text, "%.*e", n - 1, (double)f);
        if (strtof(text, NULL) == f) return n;
    }
    return 9;
}

START_TEST(every_number_reads_back_with_fewest_digits)
{
    uint64_t       state = 88172645463325252u;
    wf_number_text buf;

    for (int i = 0; i < 300000; i++) {
        uint32_t bits;
        float    f;

        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bits = (uint32_t)(state >> 16);
        if (i < 2 * 255)
            bits = (uint32_t)(i / 2) << 23 | (i % 2 ? 0x7fffff : 0); /* where the gaps change */
        memcpy(&f, &bits, sizeof f);
        if (f != f || isinf(f)) continue;

        wf_number(&buf, (double)f);
        if (strtof(buf.text, NULL) != f || strlen(buf.text) >= sizeof buf.text)
            ck_abort_msg("%s does not read back as %a", buf.text, (double)f);
        if (i < 60000 && significant(buf.text) > fewest_digits(f))
            ck_abort_msg("%s has more digits than %a needs", buf.text, (double)f);
    }
}
END_TEST

START_TEST(every_double_reads_back_with_fewest_digits)
{
    static const struct { double v; const char *text; } cases[] = {
        { 0.1, "0.1" }, { -2.5e-7, "-2.5e-7" }, { 1.0 / 3, "0.3333333333333333" }, { 5e-324, "5e-324" },
        { 1.7976931348623157e308, "1.7976931348623157e308" }, { 2.2250738585072014e-308, "2.2250738585072014e-308" },
        { 9007199254740993.0, "9007199254740992" }, { 1e22, "1e22" }, { -0.0, "-0" }, { INFINITY, "inf" },
        { -INFINITY, "-inf" }, { NAN, "nan" },
    };
    uint64_t       state = 88172645463325252u;
    wf_number_text buf;

    for (size_t i = 0; i < WF_LEN(cases); i++)
        ck_assert_str_eq(wf_number_double(&buf, cases[i].v), cases[i].text);
    for (int i = 0; i < 20000; i++) {
        uint64_t bits;
        double   d;
        char     text[48];
        int      n = 1;

        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bits = i < 2 * 2047 ? (uint64_t)(i / 2) << 52 | (i % 2 ? UINT64_MAX >> 12 : 0) : state;
        memcpy(&d, &bits, sizeof d);
        if (!isfinite(d)) continue;
        wf_number_double(&buf, d);
        if (strtod(buf.text, NULL) != d || strlen(buf.text) >= sizeof buf.text)
            ck_abort_msg("%s does not read back as %a", buf.text, d);
        for (; n < 17; n++) {
            snprintf(text, sizeof text, "%.*e", n - 1, d);
            if (strtod(text, NULL) == d) break;
        }
        if (significant(buf.text) > n) ck_abort_msg("%s has more digits than %a needs", buf.text, d);
    }
}
END_TEST

/* What weights in texts look like, and what is none. */
START_TEST(decimals_are_read)
{
    static const struct { const char *text; double want; } good[] = {
        { "0", 0 }, { "1.25", 1.25 }, { ".5", 0.5 }, { "7.", 7 }, { "-2.5", -2.5 }, { "+3", 3 }, { "007", 7 },
    };
    static const char *const bad[] = { "", "-", "+", ".", "1.2.3", "1e3", "nan", "inf", " 1", "1 ", "0x1", "--1", "1,5" };
    char   huge[400];
    double v = 42;

    for (size_t i = 0; i < WF_LEN(good); i++) {
        ck_assert_msg(wf_number_read(good[i].text, strlen(good[i].text), &v), "%s", good[i].text);
        ck_assert_double_eq(v, good[i].want);
    }
    v = 42;
    for (size_t i = 0; i < WF_LEN(bad); i++) ck_assert_msg(!wf_number_read(bad[i], strlen(bad[i]), &v), "\"%s\"", bad[i]);
    memset(huge, '9', sizeof huge);
    ck_assert(!wf_number_read(huge, sizeof huge, &v)); /* past the doubles */
    ck_assert_double_eq(v, 42);
    ck_assert(wf_number_read("1.5,2", 3, &v)); /* no NUL is needed */
    ck_assert_double_eq(v, 1.5);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("number");
    TCase *c = tcase_create("all");

    tcase_add_test(c, numbers_are_written_as_people_do);
    tcase_add_test(c, decimals_are_read);
    tcase_add_test(c, every_number_reads_back_with_fewest_digits);
    tcase_add_test(c, every_double_reads_back_with_fewest_digits);
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
