/* Errors, numbers in texts, and structs that cross the ABI. */
#include <math.h>

#include "support.h"

START_TEST(version_is_the_headers)
{
    ck_assert_uint_eq(weft_version(), WEFT_VERSION);
}
END_TEST

START_TEST(features_are_asked_for_by_name)
{
    ck_assert_int_eq(weft_has("klora"), 1);
    ck_assert_int_eq(weft_has("diffusers-old"), 1);
    ck_assert_int_eq(weft_has("KLORA"), 0);
    ck_assert_int_eq(weft_has(""), 0);
    ck_assert_int_eq(weft_has(NULL), 0);
}
END_TEST

START_TEST(every_status_has_a_name)
{
    for (weft_status s = WEFT_OK; s >= WEFT_E_INTERNAL; s--)
        ck_assert_str_ne(weft_status_name(s), "WEFT_E_UNKNOWN");
    ck_assert_str_eq(weft_status_name(WEFT_E_FORMAT), "WEFT_E_FORMAT");
    ck_assert_str_eq(weft_status_name(-1000), "WEFT_E_UNKNOWN");
    ck_assert_str_eq(weft_status_name(1), "WEFT_E_UNKNOWN");
}
END_TEST

START_TEST(failing_writes_code_and_text)
{
    weft_error err = { 0, 77, "old" };

    ck_assert_int_eq(wf_fail(&err, WEFT_E_FORMAT, "%s: %d and %d", "x", 4, 8), WEFT_E_FORMAT);
    ck_assert_int_eq(err.code, WEFT_E_FORMAT);
    ck_assert_int_eq(err.sys, 0);
    ck_assert_str_eq(err.text, "x: 4 and 8");
    ck_assert_int_eq(wf_fail(NULL, WEFT_E_ARG, "nobody listens"), WEFT_E_ARG);
}
END_TEST

START_TEST(a_text_may_be_made_of_the_text_before)
{
    weft_error err;

    wf_fail(&err, WEFT_E_FORMAT, "inner");
    wf_fail(&err, WEFT_E_FORMAT, "outer: %s", err.text);
    ck_assert_str_eq(err.text, "outer: inner");
}
END_TEST

START_TEST(system_errors_carry_errno_and_its_message)
{
    weft_error err;

    ck_assert_int_eq(wf_fail_sys(&err, 2, "a/b"), WEFT_E_IO);
    ck_assert_int_eq(err.code, WEFT_E_IO);
    ck_assert_int_eq(err.sys, 2);
    ck_assert_str_eq(err.text, "a/b: No such file or directory");
}
END_TEST

START_TEST(a_text_stays_one_valid_line)
{
    weft_error err;

    wf_fail(&err, WEFT_E_FORMAT, "name \"%s\"", "a\nb\r\tc\x1b[31m\x7f");
    ck_assert_str_eq(err.text, "name \"a b  c [31m \"");
    wf_fail(&err, WEFT_E_FORMAT, "%s|%s|%s|%s", "\xff\xfe", "\xc3", "\xed\xa0\x80", "\xc0\x80");
    ck_assert_str_eq(err.text, "?" "?|?|?" "?" "?|?" "?");
    wf_fail(&err, WEFT_E_FORMAT, "%s", "\xc2\x85 \xe2\x80\xa8 \xc3\xa9");  /* NEL, line separator, e acute */
    ck_assert_str_eq(err.text, "    \xc3\xa9");
}
END_TEST

/* 503 bytes are room for 251 e acutes of 2 bytes after an 'x', or 250 after "xx" with a byte to spare. */
START_TEST(a_long_text_is_cut_between_characters)
{
    weft_error err;
    char       long_text[4000] = "";

    for (size_t i = 0; i < sizeof long_text - 2; i += 2) memcpy(long_text + i, "\xc3\xa9", 3);
    wf_fail(&err, WEFT_E_FORMAT, "x%s", long_text);
    ck_assert_uint_eq(strlen(err.text), 503);
    check_one_line(&err);
    wf_fail(&err, WEFT_E_FORMAT, "xx%s", long_text);
    ck_assert_uint_eq(strlen(err.text), 502);
    check_one_line(&err);
    wf_fail_sys(&err, 2, "xxx%s", long_text);
    check_one_line(&err);
}
END_TEST

static char logged[256];

static void keep_log(void *user, int32_t level, const char *line)
{
    *(int *)user = level;
    snprintf(logged, sizeof logged, "%s", line);
}

START_TEST(a_log_line_is_clean_too)
{
    int level = 0;

    wf_log(keep_log, &level, WEFT_LOG_WARN, "%zu keys of %s", (size_t)3, "a\nb");
    ck_assert_int_eq(level, WEFT_LOG_WARN);
    ck_assert_str_eq(logged, "3 keys of a b");
    wf_log(NULL, NULL, WEFT_LOG_INFO, "nobody");
}
END_TEST

/* ---- numbers ---- */

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

    for (size_t i = 0; i < WF_LEN(cases); i++) ck_assert_str_eq(wf_number(&buf, cases[i].v), cases[i].text);
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
        if (i < 2 * 255) bits = (uint32_t)(i / 2) << 23 | (i % 2 ? 0x7fffff : 0);  /* where the gaps change */
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

/* ---- options ---- */

typedef struct options1 { uint32_t struct_size, flags; int64_t a; } options1;
typedef struct options2 { uint32_t struct_size, flags; int64_t a; int64_t b; } options2;
typedef struct options3 { uint32_t struct_size, flags; int64_t a; int64_t b; int64_t c; } options3;

static weft_status take_options(options2 *dst, const void *src, weft_error *err)
{
    memset(dst, 0xee, sizeof *dst);
    return wf_options(dst, sizeof *dst, sizeof(options1), src, 1 | 4, "options", err);
}

START_TEST(no_options_are_all_defaults)
{
    weft_error err;
    options2   o;

    ck_assert_int_eq(take_options(&o, NULL, &err), WEFT_OK);
    ck_assert_uint_eq(o.struct_size, sizeof o);
    ck_assert_int_eq(o.a, 0);
    ck_assert_int_eq(o.b, 0);
}
END_TEST

START_TEST(an_older_callers_missing_fields_are_defaults)
{
    const options1 old = { sizeof old, 4, 11 };
    weft_error     err;
    options2       o;

    ck_assert_int_eq(take_options(&o, &old, &err), WEFT_OK);
    ck_assert_uint_eq(o.flags, 4);
    ck_assert_int_eq(o.a, 11);
    ck_assert_int_eq(o.b, 0);
}
END_TEST

START_TEST(a_newer_caller_is_taken_while_its_extra_is_zero)
{
    options3   newer = { sizeof newer, 0, 11, 12, 0 };
    weft_error err;
    options2   o;

    ck_assert_int_eq(take_options(&o, &newer, &err), WEFT_OK);
    ck_assert_int_eq(o.b, 12);
    ck_assert_uint_eq(o.struct_size, sizeof o);

    newer.c = 1;
    ck_assert_int_eq(take_options(&o, &newer, &err), WEFT_E_UNSUPPORTED);
    char want[128];
    snprintf(want, sizeof want,
             "options: byte 24 is set, but this library (version %d.%d.%d) knows only 24",
             WEFT_VERSION_MAJOR, WEFT_VERSION_MINOR, WEFT_VERSION_PATCH);
    ck_assert_str_eq(err.text, want);
}
END_TEST

START_TEST(sizes_that_were_never_set_are_refused)
{
    static const uint32_t sizes[] = { 0, 1, 8, sizeof(options1) - 1, 4097, 0xffffffff };
    weft_error err;
    options2   o;

    for (size_t i = 0; i < WF_LEN(sizes); i++) {
        const options1 bad = { sizes[i], 0, 0 };
        ck_assert_int_eq(take_options(&o, &bad, &err), WEFT_E_ARG);
        check_one_line(&err);
    }
}
END_TEST

START_TEST(unknown_flags_are_refused)
{
    const options1 bad = { sizeof bad, 2 | 4, 0 };
    weft_error     err;
    options2       o;

    ck_assert_int_eq(take_options(&o, &bad, &err), WEFT_E_UNSUPPORTED);
    ck_assert_str_eq(err.text, "options: flags 6 has bits that this library does not know (2)");
}
END_TEST

START_TEST(results_fill_what_the_caller_has_room_for)
{
    const options2 src   = { sizeof src, 5, 11, 12 };
    options1       small = { sizeof small, 0, 0 };
    options3       large = { sizeof large, 0, 0, 0, 13 };
    options1       bad   = { 4, 0, 0 };
    weft_error     err;

    ck_assert_int_eq(wf_result(&small, &src, sizeof src, sizeof small, "result", &err), WEFT_OK);
    ck_assert_uint_eq(small.struct_size, sizeof small);
    ck_assert_int_eq(small.a, 11);
    ck_assert_int_eq(wf_result(&large, &src, sizeof src, sizeof small, "result", &err), WEFT_OK);
    ck_assert_uint_eq(large.struct_size, sizeof large);
    ck_assert_int_eq(large.b, 12);
    ck_assert_int_eq(large.c, 13);
    ck_assert_int_eq(wf_result(&bad, &src, sizeof src, sizeof small, "result", &err), WEFT_E_ARG);
    ck_assert_int_eq(wf_result(NULL, &src, sizeof src, sizeof small, "result", &err), WEFT_E_ARG);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("status");
    TCase *c = tcase_create("all");

    tcase_add_test(c, version_is_the_headers);
    tcase_add_test(c, features_are_asked_for_by_name);
    tcase_add_test(c, every_status_has_a_name);
    tcase_add_test(c, failing_writes_code_and_text);
    tcase_add_test(c, a_text_may_be_made_of_the_text_before);
    tcase_add_test(c, system_errors_carry_errno_and_its_message);
    tcase_add_test(c, a_text_stays_one_valid_line);
    tcase_add_test(c, a_long_text_is_cut_between_characters);
    tcase_add_test(c, a_log_line_is_clean_too);
    tcase_add_test(c, numbers_are_written_as_people_do);
    tcase_add_test(c, every_number_reads_back_with_fewest_digits);
    tcase_add_test(c, no_options_are_all_defaults);
    tcase_add_test(c, an_older_callers_missing_fields_are_defaults);
    tcase_add_test(c, a_newer_caller_is_taken_while_its_extra_is_zero);
    tcase_add_test(c, sizes_that_were_never_set_are_refused);
    tcase_add_test(c, unknown_flags_are_refused);
    tcase_add_test(c, results_fill_what_the_caller_has_room_for);
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
