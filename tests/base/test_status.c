/* Errors, log lines, and what is asked by name. */
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
    ck_assert_int_eq(weft_has("train"), 1);
    ck_assert_int_eq(weft_has("KLORA"), 0);
    ck_assert_int_eq(weft_has(""), 0);
    ck_assert_int_eq(weft_has(NULL), 0);
}
END_TEST

START_TEST(every_status_has_a_name)
{
    for (weft_status s = WEFT_OK; s >= WEFT_E_NOT_FINITE; s--)
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
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
