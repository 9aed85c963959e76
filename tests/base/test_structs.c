/* Structs that cross the ABI, between callers and libraries of different age. */
#include "base/structs.h"
#include "support.h"

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
    Suite *suite = suite_create("structs");
    TCase *c = tcase_create("all");

    tcase_add_test(c, no_options_are_all_defaults);
    tcase_add_test(c, an_older_callers_missing_fields_are_defaults);
    tcase_add_test(c, a_newer_caller_is_taken_while_its_extra_is_zero);
    tcase_add_test(c, sizes_that_were_never_set_are_refused);
    tcase_add_test(c, unknown_flags_are_refused);
    tcase_add_test(c, results_fill_what_the_caller_has_room_for);
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
