/* test_init.c - structs that cross the ABI begin as their INIT value, and in no byte more than the
 * caller's struct has. */
#include <check.h>
#include <stdalign.h>
#include <stdlib.h>

#include "adapter/dialect.h"
#include "adapter/family.h"
#include "base/structs.h"
#include "plan/method/method.h"

/* What macro and function give can be compared byte for byte: no struct has padding. */
#define SAME(type, INIT, last)                                            \
    do {                                                                  \
        type by_macro = INIT, by_function;                                \
        memset(&by_function, 0xA5, sizeof by_function);                   \
        type##_init(&by_function, sizeof by_function);                    \
        ck_assert_uint_eq(by_function.struct_size, sizeof(type));         \
        ck_assert_msg(memcmp(&by_macro, &by_function, sizeof(type)) == 0, \
                      #type "_init() and " #INIT " differ");              \
        type##_init(NULL, sizeof(type));                                  \
    } while (0);

START_TEST(macros_and_functions_agree)
{
    WF_STRUCTS(SAME)
}
END_TEST

/* A caller whose struct is smaller or larger than ours: its size is written, its bytes are zeroed,
 * and the bytes behind it stay. */
#define WITHIN(type, INIT, last)                                                        \
    for (size_t size = 8; size <= sizeof(type) + 24; size += 8) {                       \
        alignas(8) unsigned char bytes[sizeof(type) + 32];                                         \
        uint32_t      head;                                                             \
        memset(bytes, 0xA5, sizeof bytes);                                              \
        type##_init((type *)(void *)bytes, size);                                       \
        memcpy(&head, bytes, sizeof head);                                              \
        ck_assert_uint_eq(head, size);                                                  \
        for (size_t i = 4; i < sizeof bytes; i++)                                       \
            ck_assert_msg(bytes[i] == (i < size ? 0 : 0xA5),                            \
                          #type "_init() of %zu bytes: byte %zu is %d", size, i, bytes[i]); \
    }

START_TEST(a_caller_s_struct_is_never_overrun)
{
    WF_STRUCTS(WITHIN)
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
    ck_assert_str_eq(weft_status_name(WEFT_E_NOT_FINITE), "WEFT_E_NOT_FINITE");
    ck_assert_str_eq(weft_status_name(-12345), "WEFT_E_UNKNOWN");
    ck_assert_str_eq(weft_status_name(7), "WEFT_E_UNKNOWN");
}
END_TEST

/* What the library has is what its registries hold: a new family, dialect or method is also asked for by name. */
START_TEST(features_are_those_of_the_registries)
{
#define METHOD(name) &wf_method_##name,
    const wf_method *const   methods[] = { WF_METHODS(METHOD) };
#undef METHOD
    size_t                   count;
    const wf_family *const  *family = wf_families(&count);

    ck_assert_uint_gt(count, 0);
    for (size_t i = 0; i < count; i++) ck_assert_msg(weft_has(family[i]->name) == 1, "%s", family[i]->name);
    const wf_dialect *const *dialect = wf_dialects(&count);
    ck_assert_uint_gt(count, 0);
    for (size_t i = 0; i < count; i++) ck_assert_msg(weft_has(dialect[i]->name) == 1, "%s", dialect[i]->name);
    for (size_t i = 0; i < WF_LEN(methods); i++)
        ck_assert_msg(weft_has(methods[i]->name) == 1, "%s", methods[i]->name);
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
    tcase_add_test(tc, a_caller_s_struct_is_never_overrun);
    tcase_add_test(tc, the_version_loaded_is_the_header_s);
    tcase_add_test(tc, every_status_has_its_name);
    tcase_add_test(tc, features_are_those_of_the_registries);
    tcase_add_test(tc, freeing_nothing_is_fine);
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
