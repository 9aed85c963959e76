/* test_report.c - a plan in words and as a picture. */
#include "fixture.h"

static weft_model   *model;
static weft_adapter *ink, *clay;

static void setup(void)
{
    model = open_model("tiny-sd1");
    ink = adapter_on(model, "ink", ATTENTION | OTHERS | TEXT, 2, 0.1f, 1);
    clay = adapter_on(model, "clay", ATTENTION | OTHERS, 3, 0.2f, 2);
}

static void teardown(void)
{
    weft_adapter_free(ink);
    weft_adapter_free(clay);
    weft_model_free(model);
}

static weft_plan *sealed(int method, int32_t calls)
{
    weft_plan *p = new_plan(model);

    OK(weft_plan_add(p, ink, 0.7f, NULL, &err));
    OK(weft_plan_add(p, clay, 0.5f, NULL, &err));
    if (method == 1) OK(weft_plan_switch(p, NULL, &err));
    if (method == 2) OK(weft_plan_composite(p, NULL, &err));
    if (method == 3) OK(weft_plan_klora(p, NULL, &err));
    OK(weft_plan_seal(p, calls, &err));
    return p;
}

static char *text_of(const weft_plan *p)
{
    size_t needed;
    char  *text;

    OK(weft_plan_text(p, NULL, 0, &needed, &err));
    text = malloc(needed);
    OK(weft_plan_text(p, text, needed, NULL, &err));
    ck_assert_uint_eq(strlen(text) + 1, needed);
    return text;
}

static void says(const char *text, const char *words)
{
    ck_assert_msg(strstr(text, words) != NULL, "no \"%s\" in:\n%s", words, text);
}

static void fits(const char *text, size_t columns)
{
    for (const char *s = text; *s != '\0'; s += strcspn(s, "\n") + (s[strcspn(s, "\n")] == '\n'))
        ck_assert_msg(strcspn(s, "\n") <= columns, "too wide: %.*s", (int)strcspn(s, "\n"), s);
}

START_TEST(the_text_tells_method_adapters_cost_and_table)
{
    static const char *const titles[] = { "Merge: ", "LoRA Switch: ", "LoRA Composite: ", "K-LoRA: " };
    static const char *const tables[] = { "A  0.7 at every call", "A5 B5 A5 B5", "branch 1  B  0.5", "rho from" };
    weft_plan *p = sealed(_i, 20);
    char      *text = text_of(p);

    says(text, titles[_i]);
    says(text, "2 adapters, 20 calls");
    says(text, _i == 2 ? "2 evaluations of the network in each" : "1 evaluation of the network in each");
    says(text, "ink\n");
    says(text, "clay\n");
    says(text, "kohya");
    says(text, "stacked factors");
    says(text, "merged copies");
    says(text, "down.0");
    says(text, "mid");
    says(text, tables[_i]);
    says(text, _i == 3 ? "encoded with the base model's text encoder" : "encoded with the text parts of A\n");
    if (_i == 3) {
        says(text, "(1.5 tau + 1.275) mod 1.5");
        says(text, "gamma");
        says(text, "L = ");
    }
    fits(text, 100);
    free(text);
    weft_plan_free(p);
}
END_TEST

START_TEST(selections_and_flags_are_told)
{
    weft_add_options    add = WEFT_ADD_OPTIONS_INIT;
    weft_switch_options o = WEFT_SWITCH_OPTIONS_INIT;
    weft_plan          *p = new_plan(model);
    char               *text;

    add.select = "unet.*";
    add.exclude = "*.to_k";
    OK(weft_plan_add(p, ink, 0.7f, &add, &err));
    OK(weft_plan_add(p, clay, 0, NULL, &err));
    o.flags = WEFT_SWITCH_OFFICIAL_OFFSET;
    OK(weft_plan_switch(p, &o, &err));
    OK(weft_plan_seal(p, 12, &err));
    text = text_of(p);
    says(text, "only on unet.*");
    says(text, "not on *.to_k");
    says(text, "of weight 0");
    says(text, "one call late");
    says(text, "A6 B5 A1");
    free(text);
    weft_plan_free(p);
}
END_TEST

START_TEST(the_text_can_be_cut)
{
    weft_plan *p = sealed(0, 3);
    char       buf[10] = "xxxxxxxxx", *whole = text_of(p);
    size_t     needed;

    OK(weft_plan_text(p, buf, 6, &needed, &err));
    ck_assert_str_eq(buf, "Merge");
    ck_assert_uint_eq(needed, strlen(whole) + 1);
    FAILS(WEFT_E_ARG, "buf is NULL", weft_plan_text(p, NULL, 6, &needed, &err));
    FAILS(WEFT_E_ARG, "plan is NULL", weft_plan_text(NULL, buf, 6, &needed, &err));
    free(whole);
    weft_plan_free(p);
    p = new_plan(model);
    FAILS(WEFT_E_STATE, "not sealed", weft_plan_text(p, buf, 6, &needed, &err));
    OK(weft_plan_seal(p, 1, &err));
    whole = text_of(p);
    says(whole, "the base model");
    free(whole);
    weft_plan_free(p);
}
END_TEST

START_TEST(adapters_are_told_as_they_were_added)
{
    weft_plan_adapter_info a = WEFT_PLAN_ADAPTER_INFO_INIT;
    weft_add_options       o = WEFT_ADD_OPTIONS_INIT;
    weft_plan             *p = new_plan(model);

    weft_text_weights text = WEFT_TEXT_WEIGHTS_INIT;
    text.text_1 = 0.25f;
    text.text_2 = 0.5f;
    text.text_3 = 2;
    o.flags = WEFT_ADD_SHARE;
    o.text_weights = &text;
    o.share = 3;
    o.role = WEFT_ROLE_STYLE;
    OK(weft_plan_add(p, ink, 0.5f, &o, &err));
    OK(weft_plan_add(p, clay, -2, NULL, &err));
    FAILS(WEFT_E_STATE, "not sealed", weft_plan_adapter(p, 0, &a, &err));
    OK(weft_plan_klora(p, NULL, &err));
    OK(weft_plan_seal(p, 5, &err));
    OK(weft_plan_adapter(p, 0, &a, &err));
    weft_adapter_info named = WEFT_ADAPTER_INFO_INIT;
    OK(weft_adapter_info_get(ink, &named, &err));
    ck_assert_str_eq(a.name, named.name);
    ck_assert_str_eq(a.part, "style");
    ck_assert_int_eq(a.role, WEFT_ROLE_STYLE);
    ck_assert(a.weight == 0.5f && a.text_1 == 0.25f && a.text_2 == 0.5f && a.text_3 == 2 && a.share == 3);
    OK(weft_plan_adapter(p, 1, &a, &err));
    ck_assert_str_eq(a.part, "content"); /* what is left */
    ck_assert_int_eq(a.role, WEFT_ROLE_NONE);
    ck_assert(a.weight == -2 && a.text_1 == -2 && a.text_2 == -2 && a.text_3 == -2 && a.share == 1);
    FAILS(WEFT_E_ARG, "adapter is 2, the plan has 2", weft_plan_adapter(p, 2, &a, &err));
    FAILS(WEFT_E_ARG, "adapter is -1", weft_plan_adapter(p, -1, &a, &err));
    FAILS(WEFT_E_ARG, "info is NULL", weft_plan_adapter(p, 0, NULL, &err));
    weft_plan_free(p);
}
END_TEST

int main(void)
{
    Suite   *s = suite_create("plan report");
    TCase   *t = tcase_create("report");
    SRunner *sr = srunner_create(s);
    int      failed;

    suite_add_tcase(s, t);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, the_text_tells_method_adapters_cost_and_table, 0, 4);
    tcase_add_test(t, selections_and_flags_are_told);
    tcase_add_test(t, the_text_can_be_cut);
    tcase_add_test(t, adapters_are_told_as_they_were_added);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
