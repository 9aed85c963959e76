/* test_balance.c - weights brought to the strength of one adapter: the factors, the cells, who reads what again. */
#include "fixture.h"

static weft_model *model;

static void setup(void) { model = open_model("tiny-sd1"); }
static void teardown(void) { weft_model_free(model); }

/* One entry in each of `count` attention layers. */
static weft_adapter *dots(const char *name, const float *value, int count)
{
    maker *m = make(model);
    for (int i = 0; i < count; i++) {
        float *down, *up;
        module_of(m, nth_layer(model, ATTENTION, i), 1, 0, &down, &up);
        down[0] = 1;
        up[0] = value[i];
    }
    return finish(m, name);
}

static void add_as(weft_plan *p, weft_adapter *a, int32_t role, float weight)
{
    weft_add_options add = WEFT_ADD_OPTIONS_INIT;
    add.role = role;
    OK(weft_plan_add(p, a, weight, &add, &err));
}

static double factor(const weft_plan *p, int32_t adapter)
{
    weft_plan_adapter_info i = WEFT_PLAN_ADAPTER_INFO_INIT;
    OK(weft_plan_adapter(p, adapter, &i, &err));
    return i.balance;
}

/* a / b in six layers: 20/14 .8 1.2 .9 1.1 30. The sixth is dropped: 1.085714 (docs/methods.md). */
static const float a_of[] = { 20.0f / 14, -0.8f, 1.2f, 0.9f, 1.1f, 30 }, ones[] = { 1, 1, 1, -1, 1, 1 };

START_TEST(weights_are_multiplied_with_gamma)
{
    static const double want[] = { 1.085714, (20.0 / 14 + 0.8 + 1.2 + 0.9 + 1.1 + 30) / 6, 1 };
    weft_adapter *a = dots("a", a_of, 6), *b = dots("b", ones, 6);
    int64_t       one = nth_layer(model, ATTENTION, 0);

    for (int32_t g = WEFT_KLORA_GAMMA_CODE; g <= WEFT_KLORA_GAMMA_NONE; g++)
        for (int32_t turned = 0; turned < 3; turned++) { /* b to a; a to b by index; a to b by role */
            weft_balance_options o = WEFT_BALANCE_OPTIONS_INIT;
            weft_plan           *p = new_plan(model);
            double               mine = want[g];
            o.gamma = g;
            o.reference = turned == 1;
            o.role = turned == 2 ? WEFT_ROLE_STYLE : WEFT_ROLE_NONE;
            if (turned > 0 && g == WEFT_KLORA_GAMMA_PAPER) mine = 1 / mine;
            if (turned > 0 && g == WEFT_KLORA_GAMMA_CODE) /* the ratios 1 / q, none far */
                mine = (14.0 / 20 + 1 / 0.8 + 1 / 1.2 + 1 / 0.9 + 1 / 1.1 + 1.0 / 30) / 6;
            add_as(p, a, WEFT_ROLE_CONTENT, 0.5f);
            add_as(p, b, WEFT_ROLE_STYLE, -3);
            OK(weft_plan_balance(p, &o, &err));
            OK(weft_plan_seal(p, 3, &err));
            ck_assert_double_eq(factor(p, turned ? 1 : 0), 1);
            ck_assert_double_eq_tol(factor(p, turned ? 0 : 1), mine, 1e-6);
            ck_assert_float_eq(cell(p, 1, 0, one, 0), turned ? (float)(0.5 * factor(p, 0)) : 0.5f);
            ck_assert_float_eq(cell(p, 1, 0, one, 1), turned ? -3 : (float)(-3 * factor(p, 1)));
            weft_plan_free(p);
        }
    weft_adapter_free(a);
    weft_adapter_free(b);
}
END_TEST

/* Whatever the method chooses is multiplied; what it chooses stays. The prompt's layers stay too. */
START_TEST(every_method_takes_it_and_the_prompt_does_not)
{
    weft_adapter *a = adapter_on(model, "a", ATTENTION | OTHERS | TEXT, 2, 0.9f, 1);
    weft_adapter *b = adapter_on(model, "b", ATTENTION | OTHERS | TEXT, 3, 0.1f, 2);
    size_t        count;
    const wf_layer *layers = wf_model_layers(model, &count);

    for (int method = 0; method < 4; method++) {
        weft_plan *p[2];
        double     g;
        for (int i = 0; i < 2; i++) {
            p[i] = new_plan(model);
            add_as(p[i], a, WEFT_ROLE_NONE, 1);
            add_as(p[i], b, WEFT_ROLE_NONE, 0.7f);
            if (method == 1) OK(weft_plan_switch(p[i], NULL, &err));
            if (method == 2) OK(weft_plan_composite(p[i], NULL, &err));
            if (method == 3) OK(weft_plan_klora(p[i], NULL, &err));
            if (i == 1) OK(weft_plan_balance(p[i], NULL, &err));
            OK(weft_plan_seal(p[i], 12, &err));
        }
        g = factor(p[1], 1);
        ck_assert_double_eq(factor(p[0], 1), 1);
        ck_assert_double_gt(g, 3);
        for (int64_t l = 0; l < (int64_t)count; l++)
            for (int32_t n = 0; n < 12; n++)
                for (int32_t branch = 0; branch < (method == 2 ? 2 : 1); branch++) {
                    float was = cell(p[0], n, branch, l, 1);
                    bool  unet = layers[l].component == WEFT_COMPONENT_DENOISER;
                    ck_assert_float_eq(cell(p[1], n, branch, l, 0), cell(p[0], n, branch, l, 0));
                    ck_assert_float_eq(cell(p[1], n, branch, l, 1), unet ? (float)((double)was * g) : was);
                }
        weft_plan_free(p[0]);
        weft_plan_free(p[1]);
    }
    weft_adapter_free(a);
    weft_adapter_free(b);
}
END_TEST

/* Strengths no longer show: an adapter at seven times its numbers gives the cells 1/7. */
START_TEST(strength_does_not_show)
{
    weft_adapter *a = adapter_on(model, "a", ATTENTION, 2, 0.9f, 1);
    double        g[2];

    for (int i = 0; i < 2; i++) {
        weft_adapter *b = adapter_on(model, "b", ATTENTION, 3, i == 0 ? 0.5f : 3.5f, 2);
        weft_plan    *p = new_plan(model);
        add_as(p, a, WEFT_ROLE_NONE, 1);
        add_as(p, b, WEFT_ROLE_NONE, 1);
        OK(weft_plan_balance(p, NULL, &err));
        OK(weft_plan_seal(p, 1, &err));
        g[i] = factor(p, 1);
        weft_plan_free(p);
        weft_adapter_free(b);
    }
    ck_assert_double_eq_tol(g[0] / g[1], 7, 1e-5);
    weft_adapter_free(a);
}
END_TEST

typedef struct listener { int told, stop_at; } listener;

static int32_t listen(void *user, const char *what, int64_t done, int64_t total)
{
    listener *l = user;
    (void)done, (void)total;
    ck_assert_str_eq(what, "balancing layers");
    return ++l->told == l->stop_at;
}

START_TEST(a_copy_reads_no_weight_again_unless_an_adapter_changed)
{
    weft_adapter        *a = dots("a", a_of, 6), *b = dots("b", ones, 6), *c = dots("c", a_of, 6);
    weft_plan_options    o = WEFT_PLAN_OPTIONS_INIT;
    weft_balance_options paper = WEFT_BALANCE_OPTIONS_INIT;
    listener             l = { 0, 3 };
    weft_plan           *p, *q, *r;

    o.progress = listen;
    o.progress_user = &l;
    OK(weft_plan_create(model, &o, &p, &err));
    add_as(p, a, WEFT_ROLE_NONE, 1);
    add_as(p, b, WEFT_ROLE_NONE, 1);
    OK(weft_plan_balance(p, NULL, &err));
    FAILS(WEFT_E_CANCELLED, "were balanced", weft_plan_seal(p, 4, &err));
    OK(weft_plan_seal(p, 4, &err));
    l = (listener){ 0, 0 };
    OK(weft_plan_copy(p, &q, &err));
    OK(weft_plan_set_weight(q, 1, 2, NULL, &err));
    OK(weft_plan_copy(q, &r, &err)); /* of one that was never sealed */
    weft_plan_free(p);
    weft_plan_free(q);
    OK(weft_plan_seal(r, 9, &err));
    ck_assert_int_eq(l.told, 0);
    ck_assert_float_eq(cell(r, 0, 0, nth_layer(model, ATTENTION, 0), 1), (float)(2 * factor(r, 1)));

    OK(weft_plan_copy(r, &q, &err)); /* another adapter */
    OK(weft_plan_replace(q, 1, c, 1, NULL, &err));
    OK(weft_plan_seal(q, 9, &err));
    ck_assert_int_gt(l.told, 0);
    ck_assert_double_eq_tol(factor(q, 1), 1, 1e-9);
    weft_plan_free(q);

    l.told = 0; /* another formula; and none */
    OK(weft_plan_copy(r, &q, &err));
    paper.gamma = WEFT_KLORA_GAMMA_PAPER;
    OK(weft_plan_balance(q, &paper, &err));
    OK(weft_plan_seal(q, 9, &err));
    ck_assert_int_gt(l.told, 0);
    ck_assert_double_gt(factor(q, 1), 5);
    weft_plan_free(q);
    OK(weft_plan_copy(r, &q, &err));
    paper.gamma = WEFT_KLORA_GAMMA_NONE;
    OK(weft_plan_balance(q, &paper, &err));
    OK(weft_plan_seal(q, 9, &err));
    ck_assert_double_eq(factor(q, 1), 1);
    weft_plan_free(q);
    weft_plan_free(r);
    weft_adapter_free(a);
    weft_adapter_free(b);
    weft_adapter_free(c);
}
END_TEST

static void remember(void *user, int32_t level, const char *line)
{
    (void)level;
    strcat(user, line);
}

START_TEST(without_a_common_layer_it_is_1_and_says_so)
{
    static const float   first[] = { 1 }, second[] = { 0, 1 };
    weft_adapter        *a = dots("a", first, 1), *b = dots("b", second, 2);
    char                 lines[1000] = "", text[8000];
    weft_plan_options    o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan           *p;

    o.log = remember;
    o.log_user = lines;
    OK(weft_plan_create(model, &o, &p, &err));
    add_as(p, a, WEFT_ROLE_NONE, 1);
    add_as(p, b, WEFT_ROLE_NONE, 1);
    OK(weft_plan_balance(p, NULL, &err));
    OK(weft_plan_seal(p, 3, &err));
    ck_assert_double_eq(factor(p, 1), 1);
    ck_assert_ptr_ne(strstr(lines, "balance: no layer has something of both a and b; its factor is 1"), NULL);
    OK(weft_plan_text(p, text, sizeof text, NULL, &err));
    ck_assert_ptr_ne(strstr(text, "balance    weights in the UNet, to A:\n             B times 1.000000"), NULL);
    weft_plan_free(p);
    weft_adapter_free(a);
    weft_adapter_free(b);
}
END_TEST

/* The measure follows its adapter when another is taken out, and is not taken out itself. */
START_TEST(the_measure_follows_its_adapter)
{
    weft_balance_options   o = WEFT_BALANCE_OPTIONS_INIT;
    weft_plan_adapter_info info = WEFT_PLAN_ADAPTER_INFO_INIT;
    static const float     two[] = { 2 }, four[] = { 4 };
    weft_adapter          *a = dots("a", ones, 1), *b = dots("b", two, 1), *c = dots("c", four, 1);
    weft_plan             *p = new_plan(model), *q;

    add_as(p, a, WEFT_ROLE_NONE, 1);
    add_as(p, b, WEFT_ROLE_NONE, 1);
    add_as(p, c, WEFT_ROLE_NONE, 1);
    o.reference = 1;
    OK(weft_plan_balance(p, &o, &err));
    OK(weft_plan_copy(p, &q, &err));
    FAILS(WEFT_E_UNSUPPORTED, "balance: the others are brought to b, which is to be removed",
          weft_plan_remove(q, 1, &err));
    OK(weft_plan_remove(q, 0, &err)); /* b is the first now, and c has twice its strength */
    OK(weft_plan_seal(q, 1, &err));
    OK(weft_plan_adapter(q, 0, &info, &err));
    ck_assert_double_eq(info.balance, 1);
    OK(weft_plan_adapter(q, 1, &info, &err));
    ck_assert_double_eq_tol(info.balance, 0.5, 1e-12);
    OK(weft_plan_remove(p, 2, &err)); /* the copy's options are its own */
    OK(weft_plan_seal(p, 1, &err));
    OK(weft_plan_adapter(p, 0, &info, &err));
    ck_assert_double_eq_tol(info.balance, 2, 1e-12);
    weft_plan_free(p), weft_plan_free(q);
    weft_adapter_free(a), weft_adapter_free(b), weft_adapter_free(c);
}
END_TEST

START_TEST(what_cannot_be_is_refused)
{
    weft_balance_options o = WEFT_BALANCE_OPTIONS_INIT;
    weft_adapter        *a = dots("a", ones, 1);
    weft_plan           *p = new_plan(model);

    o.gamma = 3;
    FAILS(WEFT_E_ARG, "gamma is 3", weft_plan_balance(p, &o, &err));
    o.gamma = 0;
    o.role = -1;
    FAILS(WEFT_E_ARG, "role is -1", weft_plan_balance(p, &o, &err));
    o.role = WEFT_ROLE_STYLE;
    o.reference = 1;
    FAILS(WEFT_E_ARG, "or 0 beside a role", weft_plan_balance(p, &o, &err));
    o.reference = -1;
    o.role = 0;
    FAILS(WEFT_E_ARG, "reference is -1", weft_plan_balance(p, &o, &err));
    o.reference = 0;
    o.reserved0 = 1;
    FAILS(WEFT_E_UNSUPPORTED, "reserved0 is 1", weft_plan_balance(p, &o, &err));
    o.reserved0 = 0;
    FAILS(WEFT_E_ARG, "plan is NULL", weft_plan_balance(NULL, &o, &err));
    o.reference = 1;
    OK(weft_plan_balance(p, &o, &err));
    add_as(p, a, WEFT_ROLE_CONTENT, 1);
    FAILS(WEFT_E_UNSUPPORTED, "to adapter 1, and the plan has 1", weft_plan_seal(p, 1, &err));
    o.reference = 0;
    o.role = WEFT_ROLE_STYLE;
    OK(weft_plan_balance(p, &o, &err));
    FAILS(WEFT_E_UNSUPPORTED, "no adapter has the role style", weft_plan_seal(p, 1, &err));
    OK(weft_plan_balance(p, NULL, &err));
    OK(weft_plan_seal(p, 1, &err));
    FAILS(WEFT_E_STATE, "sealed", weft_plan_balance(p, NULL, &err));
    weft_plan_free(p);
    weft_adapter_free(a);
}
END_TEST

/* Any allocation may fail, of K-LoRA with three adapters by energy and a balance: nothing is lost, and the plan can be
 * sealed after all. */
START_TEST(sealing_survives_any_failed_allocation)
{
    weft_adapter      *a = dots("a", a_of, 3), *b = dots("b", ones, 3), *c = dots("c", a_of, 2);
    weft_klora_options k = WEFT_KLORA_OPTIONS_INIT;
    counter            count = { 0, 0, -1 };
    weft_allocator     alloc = { counter_alloc, counter_free, &count };
    weft_plan_options  o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan         *p;
    weft_status        st = WEFT_E_NOMEM;

    o.allocator = &alloc;
    k.score = WEFT_KLORA_ENERGY;
    OK(weft_plan_create(model, &o, &p, &err));
    add_as(p, a, WEFT_ROLE_CONTENT, 1);
    add_as(p, b, WEFT_ROLE_STYLE, 1);
    add_as(p, c, WEFT_ROLE_CONTENT, 1);
    OK(weft_plan_klora(p, &k, &err));
    OK(weft_plan_balance(p, NULL, &err));
    for (long n = 0, live = count.live; st != WEFT_OK; n++) {
        ck_assert_int_lt((int)n, 2000);
        count.asked = 0;
        count.refuse = n;
        st = weft_plan_seal(p, 3, &err);
        if (st == WEFT_OK) break;
        ck_assert_int_eq(st, WEFT_E_NOMEM);
        ck_assert_int_eq((int)count.live, (int)live);
    }
    count.refuse = -1;
    weft_plan_free(p);
    ck_assert_int_eq((int)count.live, 0);
    weft_adapter_free(a);
    weft_adapter_free(b);
    weft_adapter_free(c);
}
END_TEST

int main(void)
{
    Suite   *s = suite_create("plan balance");
    TCase   *t = tcase_create("balance");
    SRunner *sr = srunner_create(s);
    int      failed;

    suite_add_tcase(s, t);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, weights_are_multiplied_with_gamma);
    tcase_add_test(t, every_method_takes_it_and_the_prompt_does_not);
    tcase_add_test(t, strength_does_not_show);
    tcase_add_test(t, a_copy_reads_no_weight_again_unless_an_adapter_changed);
    tcase_add_test(t, without_a_common_layer_it_is_1_and_says_so);
    tcase_add_test(t, the_measure_follows_its_adapter);
    tcase_add_test(t, what_cannot_be_is_refused);
    tcase_add_test(t, sealing_survives_any_failed_allocation);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
