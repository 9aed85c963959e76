/* test_init.c - each *_INIT macro and its function give the same struct: its size, then zeros. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <weft/weft.h>

/* A struct without padding can be compared byte for byte; the function must write every byte of it. */
#define SAME(type, INIT)                                                  \
    do {                                                                  \
        type by_macro = INIT, by_function;                                \
        memset(&by_function, 0xA5, sizeof by_function);                   \
        type##_init(&by_function);                                        \
        ck_assert_uint_eq(by_function.struct_size, sizeof(type));         \
        ck_assert_msg(memcmp(&by_macro, &by_function, sizeof(type)) == 0, \
                      #type "_init() and " #INIT " differ");              \
        type##_init(NULL);                                                \
    } while (0)

START_TEST(macros_and_functions_agree)
{
    SAME(weft_tensor_info, WEFT_TENSOR_INFO_INIT);
    SAME(weft_model_options, WEFT_MODEL_OPTIONS_INIT);
    SAME(weft_model_info, WEFT_MODEL_INFO_INIT);
    SAME(weft_layer_info, WEFT_LAYER_INFO_INIT);
    SAME(weft_adapter_options, WEFT_ADAPTER_OPTIONS_INIT);
    SAME(weft_adapter_info, WEFT_ADAPTER_INFO_INIT);
    SAME(weft_module_info, WEFT_MODULE_INFO_INIT);
    SAME(weft_save_options, WEFT_SAVE_OPTIONS_INIT);
    SAME(weft_report_row, WEFT_REPORT_ROW_INIT);
    SAME(weft_concept_options, WEFT_CONCEPT_OPTIONS_INIT);
    SAME(weft_concept_info, WEFT_CONCEPT_INFO_INIT);
    SAME(weft_word_info, WEFT_WORD_INFO_INIT);
    SAME(weft_plan_options, WEFT_PLAN_OPTIONS_INIT);
    SAME(weft_add_options, WEFT_ADD_OPTIONS_INIT);
    SAME(weft_switch_options, WEFT_SWITCH_OPTIONS_INIT);
    SAME(weft_composite_options, WEFT_COMPOSITE_OPTIONS_INIT);
    SAME(weft_klora_options, WEFT_KLORA_OPTIONS_INIT);
    SAME(weft_klora_score, WEFT_KLORA_SCORE_INIT);
    SAME(weft_plan_info, WEFT_PLAN_INFO_INIT);
    SAME(weft_run_options, WEFT_RUN_OPTIONS_INIT);
    SAME(weft_run_info, WEFT_RUN_INFO_INIT);
    SAME(weft_encode, WEFT_ENCODE_INIT);
    SAME(weft_step, WEFT_STEP_INIT);
}
END_TEST

START_TEST(the_version_loaded_is_the_header_s)
{
    ck_assert_uint_eq(weft_version(), WEFT_VERSION);
    ck_assert_uint_eq(weft_version(), WEFT_VERSION_MAJOR << 16 | WEFT_VERSION_MINOR << 8 | WEFT_VERSION_PATCH);
}
END_TEST

START_TEST(every_status_has_its_name)
{
    ck_assert_str_eq(weft_status_name(WEFT_OK), "WEFT_OK");
    ck_assert_str_eq(weft_status_name(WEFT_E_ARG), "WEFT_E_ARG");
    ck_assert_str_eq(weft_status_name(WEFT_E_NOMEM), "WEFT_E_NOMEM");
    ck_assert_str_eq(weft_status_name(WEFT_E_IO), "WEFT_E_IO");
    ck_assert_str_eq(weft_status_name(WEFT_E_FORMAT), "WEFT_E_FORMAT");
    ck_assert_str_eq(weft_status_name(WEFT_E_MISMATCH), "WEFT_E_MISMATCH");
    ck_assert_str_eq(weft_status_name(WEFT_E_UNSUPPORTED), "WEFT_E_UNSUPPORTED");
    ck_assert_str_eq(weft_status_name(WEFT_E_STATE), "WEFT_E_STATE");
    ck_assert_str_eq(weft_status_name(WEFT_E_CANCELLED), "WEFT_E_CANCELLED");
    ck_assert_str_eq(weft_status_name(WEFT_E_INTERNAL), "WEFT_E_INTERNAL");
    ck_assert_str_eq(weft_status_name(-12345), "WEFT_E_UNKNOWN");
    ck_assert_str_eq(weft_status_name(7), "WEFT_E_UNKNOWN");
}
END_TEST

START_TEST(features_are_asked_by_name)
{
    static const char *const has[] = {"merge",   "switch", "composite", "klora",     "ddim",          "euler", "euler_a",
                                      "dpmpp_2m", "lora",   "kohya",     "diffusers", "diffusers-old", "peft"};
    for (size_t i = 0; i < sizeof has / sizeof *has; i++) ck_assert_msg(weft_has(has[i]) == 1, "%s", has[i]);
    ck_assert_int_eq(weft_has("telepathy"), 0);
    ck_assert_int_eq(weft_has(""), 0);
    ck_assert_int_eq(weft_has(NULL), 0);
}
END_TEST

/* Garbage collectors free in any order, and free nothing too. */
START_TEST(freeing_nothing_is_fine)
{
    weft_model_free(NULL);
    weft_adapter_free(NULL);
    weft_report_free(NULL);
    weft_plan_free(NULL);
    weft_run_free(NULL);
    weft_run_cancel(NULL);
    weft_sampler_free(NULL);
    weft_noise_free(NULL);
    weft_tensors_free(NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("abi/init");
    TCase *tc = tcase_create("all");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_test(tc, macros_and_functions_agree);
    tcase_add_test(tc, the_version_loaded_is_the_header_s);
    tcase_add_test(tc, every_status_has_its_name);
    tcase_add_test(tc, features_are_asked_by_name);
    tcase_add_test(tc, freeing_nothing_is_fine);
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
