/* Adapters that depend on the weight, together on the same layers: each policy against PEFT's merges one after another and
 * against the formulas in f64 (tests/reference/make_mixed.py), relative error under 1e-5; the laws that hold without
 * a reference; and what is refused. */
#include "model/layouts.h"

static const double limit = 1e-5;
static const char *const names[] = { "delta", "inside", "stack", "direction" };
static const char *const dora = "families/peft_dora", *const second = "mixed/peft_dora_second", *const lora = "families/peft_lora",
                  *const oft = "families/peft_oft", *const columns = "families/lyco_dora_columns.safetensors",
                  *const with_text = "families/lyco_dora.safetensors", *const glora = "families/lyco_glora.safetensors";

static weft_model *model;

static void setup(void)
{
    make_scratch();
    model = opened(data_path("models/tiny-sd1"), NULL);
}

static void teardown(void)
{
    weft_model_free(model);
    remove_scratch();
}

/* ---- plans and predictions ------------------------------------------------------------------- */

static weft_plan *plan_on(int32_t mixed, int32_t path)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan *plan;
    o.path = path;
    o.mixed = mixed;
    must(weft_plan_create(model, &o, &plan, &golden_err));
    return plan;
}

static void add_file(weft_plan *plan, const char *path, double weight, uint32_t flags)
{
    weft_add_options o = WEFT_ADD_OPTIONS_INIT;
    weft_adapter *a;
    o.flags = flags;
    must(weft_adapter_open(data_path("%s", path), NULL, &a, &golden_err));
    must(weft_plan_add(plan, a, (float)weight, &o, &golden_err));
    weft_adapter_free(a);
}

typedef struct use { const char *path; double weight; } use;

static weft_plan *plan_of(int32_t mixed, const use *uses, size_t n)
{
    weft_plan *plan = plan_on(mixed, WEFT_PATH_AUTO);
    for (size_t i = 0; i < n; i++) add_file(plan, uses[i].path, uses[i].weight, 0);
    return plan;
}

/* The prediction of a plan, on noise. */
static float *predict_uses(int32_t mixed, const use *uses, size_t n, size_t *count)
{
    weft_plan *plan = plan_of(mixed, uses, n);
    must(weft_plan_seal(plan, 3, &golden_err));
    float *out = predict_with(plan, count);
    weft_plan_free(plan);
    return out;
}

static double apart(int32_t mixed, const use *uses, size_t n, int32_t other, const use *others, size_t m)
{
    size_t count, same;
    float *a = predict_uses(mixed, uses, n, &count), *b = predict_uses(other, others, m, &same);
    ck_assert_uint_eq(count, same);
    double d = relative(a, b, count, NULL);
    free(a);
    free(b);
    return d;
}

/* ---- against PEFT and the formulas ----------------------------------------------------------- */

static const char *word(json_t *o, const char *key)
{
    const char *v = json_string_value(json_object_get(o, key));
    return v != NULL ? v : "";
}

static weft_plan *plan_of_case(json_t *item, int32_t path)
{
    json_t *files = json_object_get(item, "files");
    int32_t mixed = 0;
    while (strcmp(names[mixed], word(item, "policy")) != 0) mixed++;
    weft_plan *plan = plan_on(mixed, path);
    for (size_t i = 0; i < json_array_size(files); i++) {
        json_t *f = json_array_get(files, i);
        add_file(plan, word(f, "path"), json_number_value(json_object_get(f, "weight")),
                 strcmp(word(f, "rule"), "peft") == 0 ? WEFT_ADD_PEFT_DORA : 0);
    }
    must(weft_plan_seal(plan, 2, &golden_err));
    return plan;
}

static void check_case(weft_tensors *in, weft_tensors *t, json_t *item, weft_plan *plan, const char *what)
{
    golden x = golden_read(in, "in/sample"), ts = golden_read(in, "in/timestep"), text = golden_read(in, "in/context");
    weft_run_options ro = WEFT_RUN_OPTIONS_INIT;
    plain_step step = PLAIN_STEP_INIT;
    weft_run *run;
    char name[120];
    ro.threads = 2;
    ro.height = (int32_t)x.shape[2], ro.width = (int32_t)x.shape[3];
    must(weft_run_create(plan, &ro, &run, &golden_err));
    step.latent = x.v, step.text = text.v, step.text_len = text.n;
    step.latent_len = step.out_len = x.n;
    step.timestep = ts.v[0];
    step.call = 1;
    step.out = malloc(x.n * sizeof *step.out);
    must(plain_run_step(run, &step, &golden_err));
    static const char *const kinds[] = { "unet", "unet_lib" };
    for (size_t k = 0; k < 2; k++) {
        snprintf(name, sizeof name, "%s/%s", word(item, "prefix"), kinds[k]);
        if (k > 0 && !golden_has(t, name)) continue;
        golden want = golden_read(t, "%s", name);
        snprintf(name, sizeof name, "%s %s %s, %s", word(item, "policy"), word(item, "prefix"), kinds[k], what);
        near_golden(name, step.out, want.v, want.n, limit);
        free(want.v);
    }
    free(step.out), free(x.v), free(ts.v), free(text.v);
    weft_run_free(run);
}

START_TEST(a_policy_is_its_formula_and_pefts_merge)
{
    static const char *const paths[] = { "auto", "side", "merged" };
    json_t *index = golden_json("mixed.json"), *item = json_array_get(json_object_get(index, "cases"), (size_t)_i);
    weft_tensors *in = golden_open("families_tiny-sd1.safetensors"), *t = golden_open("mixed.safetensors");
    for (int32_t path = WEFT_PATH_AUTO; path <= WEFT_PATH_MERGED; path++) {
        weft_plan *plan = plan_of_case(item, path);
        check_case(in, t, item, plan, paths[path]);
        weft_plan_free(plan);
    }
    weft_tensors_free(in);
    weft_tensors_free(t);
    json_decref(index);
}
END_TEST

/* The file has what a run computes with, to the rounding of f16. */
START_TEST(a_saved_model_has_the_same_weights)
{
    json_t *index = golden_json("mixed.json"), *item = json_array_get(json_object_get(index, "cases"), (size_t)_i);
    weft_plan *plan = plan_of_case(item, WEFT_PATH_AUTO);
    size_t n, count;
    must(weft_plan_save_model(plan, in_scratch("merged"), &golden_err));
    weft_model *again = opened(in_scratch("merged"), NULL);
    float *a = predict_with(plan, &n), *b = predict(again, &count);
    near_golden(word(item, "policy"), b, a, n, 2e-3);
    free(a);
    free(b);
    weft_model_free(again);
    weft_plan_free(plan);
    json_decref(index);
}
END_TEST

/* ---- laws ------------------------------------------------------------------------------------ */

START_TEST(an_adapter_alone_is_itself)
{
    const char *const files[] = { dora, second, columns, lora, oft, glora, "families/lyco_dora_lokr.safetensors" };
    for (size_t f = 0; f < WF_LEN(files); f++)
        for (int k = 0; k < 2; k++) {
            if (_i == WEFT_MIXED_DIRECTION && k == 1) break; /* its line is another one */
            use u = { files[f], k == 0 ? 1 : 0.6 };
            double d = apart(_i, &u, 1, WEFT_MIXED_DELTA, &u, 1);
            ck_assert_msg(d <= (_i == WEFT_MIXED_DIRECTION ? 2e-6 : 0), "%s under %s: %.2e", u.path, names[_i], d);
        }
}
END_TEST

START_TEST(weights_of_zero_are_the_base_bit_for_bit)
{
    use none[] = { { dora, 0 }, { lora, 0 }, { second, 0 } };
    ck_assert(apart(_i, none, 3, WEFT_MIXED_DELTA, NULL, 0) == 0);
    use one[] = { { lora, 0 }, { dora, 1 }, { oft, 0 } }; /* beside it nothing is there */
    ck_assert(apart(_i, one, 3, _i, &one[1], 1) == 0);
}
END_TEST

START_TEST(order_shows_in_a_stack_alone)
{
    use a[] = { { dora, 0.7 }, { lora, 0.6 }, { second, -0.4 } }, b[] = { a[2], a[0], a[1] };
    use c[] = { { lora, 0.8 }, { dora, 1 } }, d[] = { c[1], c[0] };
    ck_assert(apart(WEFT_MIXED_DIRECTION, a, 3, WEFT_MIXED_DIRECTION, b, 3) <= 2e-6);
    ck_assert(apart(WEFT_MIXED_INSIDE, c, 2, WEFT_MIXED_INSIDE, d, 2) <= 2e-6);
    ck_assert(apart(WEFT_MIXED_STACK, c, 2, WEFT_MIXED_STACK, d, 2) > 1e-2);
    /* the one that depends last: what `inside` says */
    ck_assert(apart(WEFT_MIXED_STACK, c, 2, WEFT_MIXED_INSIDE, d, 2) <= 2e-6);
    ck_assert(apart(WEFT_MIXED_STACK, d, 2, WEFT_MIXED_DELTA, d, 2) <= 2e-6);
}
END_TEST

/* Additive adapters are summed whatever the policy, with the same bits, and may take turns. */
START_TEST(additive_adapters_know_no_policy)
{
    use u[] = { { lora, 0.7 }, { "families/peft_loha", 0.5 } };
    ck_assert(apart(_i, u, 2, WEFT_MIXED_DELTA, u, 2) == 0);
    weft_plan *plan = plan_of(_i, u, 2);
    must(weft_plan_switch(plan, NULL, &golden_err));
    must(weft_plan_seal(plan, 20, &golden_err));
    weft_plan_free(plan);
}
END_TEST

/* A copy keeps the policy, and other weights make another table. */
START_TEST(a_copy_keeps_the_policy)
{
    use u[] = { { lora, 0.5 }, { dora, 1 } }, v[] = { { lora, 0 }, { dora, 1 } };
    weft_plan *plan = plan_of(WEFT_MIXED_STACK, v, 2), *copy;
    size_t n, count;
    must(weft_plan_seal(plan, 1, &golden_err));
    must(weft_plan_copy(plan, &copy, &golden_err));
    must(weft_plan_set_weight(copy, 0, 0.5f, NULL, &golden_err));
    must(weft_plan_seal(copy, 1, &golden_err));
    float *a = predict_with(copy, &n), *b = predict_uses(WEFT_MIXED_STACK, u, 2, &count);
    ck_assert_mem_eq(a, b, n * sizeof *a);
    free(a);
    free(b);
    weft_plan_free(copy);
    weft_plan_free(plan);
}
END_TEST

/* ---- what is refused, and what is said ------------------------------------------------------- */

static void refuse_seal(weft_plan *plan, const char *const words[3])
{
    weft_error err = { 0, 0, "" };
    ck_assert_int_eq(weft_plan_seal(plan, 20, &err), WEFT_E_UNSUPPORTED);
    check_one_line(&err);
    ck_assert_msg(strncmp(err.text, "unet.", 5) == 0, "%s", err.text);
    for (int i = 0; i < 3; i++) ck_assert_msg(strstr(err.text, words[i]) != NULL, "\"%s\" is not in: %s", words[i], err.text);
    weft_plan_free(plan);
}

START_TEST(coefficients_that_change_are_refused)
{
    use u[] = { { dora, 1 }, { lora, 1 } };
    for (int method = 0; method < 3; method++)
        for (int32_t mixed = WEFT_MIXED_DELTA; mixed <= WEFT_MIXED_DIRECTION; mixed++) {
            static const char *const titles[] = { "Switch", "Composite", "K-LoRA" };
            weft_plan *plan = plan_of(mixed, u, 2);
            if (method == 0) must(weft_plan_switch(plan, NULL, &golden_err));
            if (method == 1) must(weft_plan_composite(plan, NULL, &golden_err));
            if (method == 2) must(weft_plan_klora(plan, NULL, &golden_err));
            if (mixed != WEFT_MIXED_DELTA) {
                refuse_seal(plan, (const char *const[3]){ titles[method], names[mixed], "coefficients" });
                continue;
            }
            must(weft_plan_seal(plan, 20, &golden_err));
            weft_plan_free(plan);
        }
}
END_TEST

START_TEST(what_a_policy_cannot_mix_is_refused)
{
    use two[] = { { dora, 1 }, { lora, 1 }, { second, 1 } }, turned[] = { { dora, 1 }, { oft, 1 } };
    use sides[] = { { columns, 1 }, { dora, 1 } };
    refuse_seal(plan_of(WEFT_MIXED_INSIDE, two, 3), (const char *const[3]){ "peft_dora", "peft_dora_second", "inside" });
    refuse_seal(plan_of(WEFT_MIXED_DIRECTION, turned, 2), (const char *const[3]){ "peft_oft", "OFT", "direction" });
    refuse_seal(plan_of(WEFT_MIXED_DIRECTION, sides, 2), (const char *const[3]){ "rows", "columns", "direction" });
    weft_plan *plan = plan_of(WEFT_MIXED_STACK, sides, 2);
    must(weft_plan_seal(plan, 20, &golden_err));
    weft_plan_free(plan);
}
END_TEST

START_TEST(options_are_checked)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan *plan;
    for (int32_t bad = -1; bad <= 4; bad += 5) {
        o.mixed = bad;
        ck_assert_int_eq(weft_plan_create(model, &o, &plan, &golden_err), WEFT_E_ARG);
        ck_assert_ptr_nonnull(strstr(golden_err.text, "mixed"));
    }
    o.mixed = WEFT_MIXED_STACK;
    o.reserved0 = 1;
    ck_assert_int_eq(weft_plan_create(model, &o, &plan, &golden_err), WEFT_E_UNSUPPORTED);
}
END_TEST

static char *explained(const weft_plan *plan)
{
    static char text[20000];
    must(weft_plan_text(plan, text, sizeof text, NULL, &golden_err));
    return text;
}

static float *encoded(weft_plan *plan, size_t *n)
{
    plain_shape shape = plain_shape_of(model);
    plain_encode e = PLAIN_ENCODE_INIT;
    weft_run *run;
    *n = e.text_len = (size_t)shape.tokens * (size_t)shape.dim;
    e.text = malloc(*n * sizeof *e.text);
    e.prompt = "a photo of a cat";
    must(weft_run_create(plan, NULL, &run, &golden_err));
    must(plain_run_encode(run, &e, &golden_err));
    weft_run_free(run);
    return e.text;
}

/* Text encoders keep the sum of differences, and the report says so, as it says the policy. */
START_TEST(text_encoders_keep_the_sum_and_the_report_says_so)
{
    use u[] = { { with_text, 1 }, { glora, 1 } }, none[] = { { dora, 1 }, { lora, 1 } };
    weft_plan *stack = plan_of(WEFT_MIXED_STACK, u, 2), *delta = plan_of(WEFT_MIXED_DELTA, u, 2);
    weft_plan *quiet = plan_of(WEFT_MIXED_STACK, none, 2);
    size_t n;
    must(weft_plan_seal(stack, 1, &golden_err));
    must(weft_plan_seal(delta, 1, &golden_err));
    must(weft_plan_seal(quiet, 1, &golden_err));
    float *a = encoded(stack, &n), *b = encoded(delta, &n);
    ck_assert_mem_eq(a, b, n * sizeof *a);
    char *said = explained(stack);
    ck_assert_msg(strstr(said, "mixed      stack, where adapters depend on the weights: 12 layers of the UNet\n") != NULL, "%s", said);
    ck_assert_msg(strstr(said, "\nwarnings\n3 layers of the text encoders") != NULL, "%s", said);
    ck_assert_ptr_null(strstr(explained(delta), "mixed"));
    ck_assert_ptr_null(strstr(explained(quiet), "warnings"));
    free(a);
    free(b);
    weft_plan_free(stack);
    weft_plan_free(delta);
    weft_plan_free(quiet);
}
END_TEST

/* Whatever allocation of a run fails, nothing is left. */
START_TEST(allocations_may_fail)
{
    use u[] = { { lora, 0.7 }, { dora, 1 } };
    weft_plan *plan = plan_of(_i, u, 2);
    test_memory memory;
    weft_allocator counted = test_allocator(&memory);
    must(weft_plan_seal(plan, 1, &golden_err));
    size_t at = 1;
    for (;; at++) {
        weft_run_options o = WEFT_RUN_OPTIONS_INIT;
        weft_run *run = NULL;
        memory.calls = 0;
        memory.fail_at = at;
        o.allocator = &counted;
        o.threads = 2;
        weft_status st = weft_run_create(plan, &o, &run, &golden_err);
        ck_assert(st == WEFT_OK || (st == WEFT_E_NOMEM && run == NULL));
        weft_run_free(run);
        ck_assert_uint_eq(memory.live_blocks, 0);
        if (st == WEFT_OK) break;
    }
    ck_assert_uint_gt(at, 5);
    weft_plan_free(plan);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("adapters that depend on the weight, together");
    TCase *c = tcase_create("mixed");
    json_t *index = json_load_file(data_path("golden/mixed.json"), 0, NULL); /* no test runs yet: no asserts */
    int cases = (int)json_array_size(json_object_get(index, "cases"));
    json_decref(index);
    tcase_set_timeout(c, 120);
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_loop_test(c, a_policy_is_its_formula_and_pefts_merge, 0, cases > 0 ? cases : 1);
    tcase_add_loop_test(c, a_saved_model_has_the_same_weights, 0, cases > 0 ? cases : 1);
    tcase_add_loop_test(c, an_adapter_alone_is_itself, 1, 4);
    tcase_add_loop_test(c, weights_of_zero_are_the_base_bit_for_bit, 0, 4);
    tcase_add_test(c, order_shows_in_a_stack_alone);
    tcase_add_loop_test(c, additive_adapters_know_no_policy, 1, 4);
    tcase_add_test(c, a_copy_keeps_the_policy);
    tcase_add_test(c, coefficients_that_change_are_refused);
    tcase_add_test(c, what_a_policy_cannot_mix_is_refused);
    tcase_add_test(c, options_are_checked);
    tcase_add_test(c, text_encoders_keep_the_sum_and_the_report_says_so);
    tcase_add_loop_test(c, allocations_may_fail, 0, 4);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
