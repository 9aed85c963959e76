/* What a call would cost, against counts that hooks on diffusers made (tests/reference/make_costs.py). */
#include <stdbool.h>

#include "base/base.h"
#include "golden.h"

static json_t *root;

static void setup(void) { root = golden_json("costs.json"); }
static void teardown(void) { json_decref(root); }

static json_t *model_entry(size_t i) { return json_array_get(json_object_get(root, "models"), i); }
static double number(json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }

static weft_model *open_model(json_t *entry)
{
    weft_model *m;
    must(weft_model_open(data_path("%s", json_string_value(json_object_get(entry, "model"))), NULL, &m, &golden_err));
    return m;
}

static weft_run_options options_of(json_t *entry)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    o.height = (int32_t)number(entry, "height");
    o.width = (int32_t)number(entry, "width");
    o.text_tokens = (int32_t)number(entry, "tokens");
    o.flags = WEFT_RUN_FORGET_TEXT;
    return o;
}

static weft_adapter *open_adapter(const char *path)
{
    weft_adapter *a;
    must(weft_adapter_open(data_path("%s", path), NULL, &a, &golden_err));
    return a;
}

static void read_costs(const weft_plan *p, const weft_run_options *o, uint32_t flags, weft_call_cost *c, size_t n)
{
    for (size_t i = 0; i < n; i++) c[i] = (weft_call_cost)WEFT_CALL_COST_INIT;
    must(weft_run_costs(p, o, flags, c, n, &golden_err));
}

static weft_plan *plan_on(weft_model *m, int32_t path)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan *p;
    o.path = path;
    must(weft_plan_create(m, &o, &p, &golden_err));
    return p;
}

START_TEST(the_network_alone)
{
    json_t *entry = model_entry((size_t)_i), *all = json_object_get(entry, "all");
    weft_model *m = open_model(entry);
    weft_plan *p = plan_on(m, WEFT_PATH_AUTO);
    weft_run_options o = options_of(entry);
    weft_call_cost c[2];

    must(weft_plan_seal(p, 2, &golden_err));
    for (int32_t batch = 1; batch <= 3; batch += 2)
        for (uint32_t guided = 0; guided <= 1; guided++) {
            double n = batch * (1 + (double)guided);
            o.batch = batch;
            read_costs(p, &o, guided ? WEFT_COSTS_GUIDED : 0, c, 2);
            for (int i = 0; i < 2; i++) {
                ck_assert_int_eq(c[i].evaluations, 1);
                ck_assert_int_eq(c[i].reused, 0);
                ck_assert_int_eq(c[i].samples, (int32_t)n);
                ck_assert_double_eq(c[i].flops, n * number(all, "flops"));
                ck_assert_double_eq(c[i].side_flops, 0);
                ck_assert_double_eq(c[i].weight_bytes, number(all, "weight_bytes"));
                ck_assert_double_eq(c[i].activation_bytes, n * number(all, "activation_bytes"));
            }
        }
    weft_plan_free(p);
    weft_model_free(m);
}
END_TEST

/* Each adapter by itself, on the side path; a weight of 0 costs nothing. */
START_TEST(adapters_beside_it)
{
    json_t *entry = model_entry((size_t)_i), *all = json_object_get(entry, "all"), *a;
    const char *path;
    weft_model *m = open_model(entry);
    weft_run_options o = options_of(entry);
    weft_call_cost c;

    json_object_foreach(json_object_get(entry, "adapters"), path, a) {
        weft_adapter *adapter = open_adapter(path);
        for (int on = 0; on < 2; on++) {
            weft_plan *p = plan_on(m, WEFT_PATH_SIDE);
            must(weft_plan_add(p, adapter, on ? -0.5f : 0, NULL, &golden_err));
            must(weft_plan_seal(p, 1, &golden_err));
            read_costs(p, &o, WEFT_COSTS_GUIDED, &c, 1);
            ck_assert_double_eq(c.flops, 2 * number(all, "flops"));
            ck_assert_double_eq(c.side_flops, on ? 2 * number(a, "side_flops") : 0);
            ck_assert_double_eq(c.weight_bytes, number(all, "weight_bytes") + (on ? number(a, "factor_bytes") : 0));
            ck_assert_double_eq(c.activation_bytes, 2 * number(all, "activation_bytes"));
            weft_plan_free(p);
        }
        weft_adapter_free(adapter);
    }
    weft_model_free(m);
}
END_TEST

/* content, style and conv on tiny-sd1. */
typedef struct three {
    json_t       *entry, *all, *a[3];
    weft_model   *m;
    weft_adapter *adapter[3];
} three;

static three open_three(void)
{
    static const char *const names[] = { "content", "style", "sd1_kohya_conv" };
    three t = { .entry = model_entry(0) };
    t.all = json_object_get(t.entry, "all");
    t.m = open_model(t.entry);
    for (int i = 0; i < 3; i++) {
        char path[64];
        snprintf(path, sizeof path, "adapters/%s.safetensors", names[i]);
        t.adapter[i] = open_adapter(path);
        t.a[i] = json_object_get(json_object_get(t.entry, "adapters"), path);
        ck_assert_ptr_nonnull(t.a[i]);
    }
    return t;
}

static void close_three(three *t)
{
    for (int i = 0; i < 3; i++) weft_adapter_free(t->adapter[i]);
    weft_model_free(t->m);
}

static weft_plan *all_three(const three *t, int32_t path)
{
    weft_plan *p = plan_on(t->m, path);
    for (int i = 0; i < 3; i++) must(weft_plan_add(p, t->adapter[i], 0.5f, NULL, &golden_err));
    return p;
}

/* Who has no turn costs nothing in that call, though the stack holds all. Their ranks stand side by side, so of two
 * in the middle of three all between them are computed; here one at a time. */
START_TEST(switch_costs_whose_turn_it_is)
{
    three t = open_three();
    weft_plan *p = all_three(&t, WEFT_PATH_AUTO);
    weft_run_options o = options_of(t.entry);
    weft_switch_options turns = WEFT_SWITCH_OPTIONS_INIT;
    weft_call_cost c[7];

    turns.period = 2;
    must(weft_plan_switch(p, &turns, &golden_err));
    must(weft_plan_seal(p, 7, &golden_err));
    read_costs(p, &o, WEFT_COSTS_GUIDED, c, 7);
    for (int n = 0; n < 7; n++) {
        json_t *a = t.a[n / 2 % 3];
        ck_assert_double_eq(c[n].side_flops, 2 * number(a, "side_flops"));
        ck_assert_double_eq(c[n].weight_bytes, number(t.all, "weight_bytes") + number(a, "factor_bytes"));
    }
    weft_plan_free(p);
    close_three(&t);
}
END_TEST

START_TEST(composite_costs_an_evaluation_for_each)
{
    three t = open_three();
    weft_plan *p = all_three(&t, WEFT_PATH_AUTO);
    weft_run_options o = options_of(t.entry);
    double side = 0, bytes = 0;
    weft_call_cost c;

    for (int i = 0; i < 3; i++) side += number(t.a[i], "side_flops"), bytes += number(t.a[i], "factor_bytes");
    must(weft_plan_composite(p, NULL, &golden_err));
    must(weft_plan_seal(p, 1, &golden_err));
    read_costs(p, &o, WEFT_COSTS_GUIDED, &c, 1);
    ck_assert_int_eq(c.evaluations, 3);
    ck_assert_int_eq(c.samples, 6);
    ck_assert_double_eq(c.flops, 6 * number(t.all, "flops"));
    ck_assert_double_eq(c.side_flops, 2 * side);
    ck_assert_double_eq(c.weight_bytes, number(t.all, "weight_bytes") + bytes); /* read once for all */
    ck_assert_double_eq(c.activation_bytes, 6 * number(t.all, "activation_bytes"));
    weft_plan_free(p);

    p = all_three(&t, WEFT_PATH_AUTO); /* the base is one more */
    must(weft_plan_loratorio(p, NULL, &golden_err));
    must(weft_plan_seal(p, 1, &golden_err));
    read_costs(p, &o, 0, &c, 1);
    ck_assert_int_eq(c.evaluations, 4);
    ck_assert_double_eq(c.flops, 4 * number(t.all, "flops"));
    ck_assert_double_eq(c.side_flops, side);
    weft_plan_free(p);
    close_three(&t);
}
END_TEST

/* Of three branches at call n of 6 adapter floor(n / 2) computes in full, all do at calls 0, 2 and 3. */
START_TEST(reused_features_cost_the_outermost_level)
{
    static const int32_t reused[] = { 0, 2, 0, 0, 2, 2 };
    three t = open_three();
    weft_plan *p = all_three(&t, WEFT_PATH_AUTO);
    json_t *outer = json_object_get(t.entry, "outermost");
    weft_run_options o = options_of(t.entry);
    weft_composite_options how = WEFT_COMPOSITE_OPTIONS_INIT;
    weft_call_cost c[6];

    how.flags = WEFT_COMPOSITE_CACHED;
    must(weft_plan_composite(p, &how, &golden_err));
    must(weft_plan_seal(p, 6, &golden_err));
    read_costs(p, &o, WEFT_COSTS_GUIDED, c, 6);
    for (int n = 0; n < 6; n++) {
        weft_call_info info = WEFT_CALL_INFO_INIT;
        ck_assert_int_eq(c[n].reused, reused[n]);
        must(weft_plan_call(p, n, &info, &golden_err));
        ck_assert_int_eq(info.reused, reused[n]);
        ck_assert_double_eq(c[n].flops, 2 * ((3 - reused[n]) * number(t.all, "flops") + reused[n] * number(outer, "flops")));
        ck_assert_double_eq(c[n].activation_bytes, 2 * ((3 - reused[n]) * number(t.all, "activation_bytes") +
                                                        reused[n] * number(outer, "activation_bytes")));
    }
    weft_plan_free(p);
    close_three(&t);
}
END_TEST

/* In f32, and nothing beside it. */
START_TEST(copies_are_read_in_the_weights_place)
{
    three t = open_three();
    weft_plan *p = all_three(&t, WEFT_PATH_MERGED);
    weft_run_options o = options_of(t.entry);
    weft_plan_info info = WEFT_PLAN_INFO_INIT;
    double want = number(t.all, "weight_bytes");
    weft_call_cost c;
    int merged = 0;

    must(weft_plan_seal(p, 1, &golden_err));
    must(weft_plan_info_get(p, &info, &golden_err));
    for (int64_t l = 0; l < info.layers; l++) {
        weft_layer_use use = WEFT_LAYER_USE_INIT;
        weft_layer_info layer = WEFT_LAYER_INFO_INIT;
        must(weft_plan_layer(p, 0, l, &use, &golden_err));
        must(weft_model_layer(t.m, l, &layer, &golden_err));
        if (use.path != WEFT_PATH_MERGED) continue;
        int64_t weight = (int64_t)layer.out * layer.in * layer.kernel * layer.kernel;
        ck_assert_int_eq(use.bytes, 4 * weight);
        want += (double)(use.bytes - 2 * weight); /* the file has f16 */
        merged++;
    }
    ck_assert_int_gt(merged, 20);
    read_costs(p, &o, WEFT_COSTS_GUIDED, &c, 1);
    ck_assert_double_eq(c.side_flops, 0);
    ck_assert_double_eq(c.weight_bytes, want);
    weft_plan_free(p);
    close_three(&t);
}
END_TEST

/* A mask that text tokens do not see: the keys and values of the text are computed without the adapter. */
START_TEST(what_a_mask_hides_costs_nothing)
{
    const float values[4] = { 1, 0, 1, 0 };
    three t = open_three();
    weft_plan *p = plan_on(t.m, WEFT_PATH_AUTO);
    weft_run_options o = options_of(t.entry);
    weft_mask mask = WEFT_MASK_INIT;
    weft_plan_info info = WEFT_PLAN_INFO_INIT;
    double want = number(t.a[0], "side_flops");
    weft_call_cost c;
    int hidden = 0;

    mask.flags = WEFT_MASK_TEXT;
    mask.height = mask.width = 2;
    mask.values = values;
    mask.len = 4;
    must(weft_plan_add(p, t.adapter[0], 1, NULL, &golden_err));
    must(weft_plan_set_mask(p, 0, &mask, &golden_err));
    must(weft_plan_seal(p, 1, &golden_err));
    must(weft_plan_info_get(p, &info, &golden_err));
    for (int64_t l = 0; l < info.layers; l++) {
        weft_layer_use use = WEFT_LAYER_USE_INIT;
        weft_layer_info layer = WEFT_LAYER_INFO_INIT;
        must(weft_plan_layer(p, 0, l, &use, &golden_err));
        must(weft_model_layer(t.m, l, &layer, &golden_err));
        if (strncmp(layer.name, "unet.", 5) != 0 || use.path == WEFT_PATH_AUTO) continue;
        ck_assert_int_eq(use.reason == WEFT_REASON_CHEAP || use.reason == WEFT_REASON_MASK, 1);
        if (strstr(layer.name, "attn2.to_k") == NULL && strstr(layer.name, "attn2.to_v") == NULL) continue;
        want -= 2.0 * 77 * use.rank * (layer.in + layer.out);
        hidden++;
    }
    ck_assert_int_gt(hidden, 0);
    read_costs(p, &o, 0, &c, 1);
    ck_assert_double_eq(c.side_flops, want);
    weft_plan_free(p);
    close_three(&t);
}
END_TEST

/* Keys and values of the text are made by the calls in which an adapter's turn begins, and found by the others: these cost
 * less by those layers alone. */
START_TEST(what_is_kept_of_the_text_is_counted_once)
{
    three t = open_three();
    weft_plan *p = all_three(&t, WEFT_PATH_AUTO);
    weft_run_options o = options_of(t.entry);
    weft_switch_options turns = WEFT_SWITCH_OPTIONS_INIT;
    weft_plan_info info = WEFT_PLAN_INFO_INIT;
    weft_call_cost every[6], c[6];
    double keys = 0, bytes = 0;

    turns.period = 3;
    must(weft_plan_switch(p, &turns, &golden_err));
    must(weft_plan_seal(p, 6, &golden_err));
    must(weft_plan_info_get(p, &info, &golden_err));
    for (int64_t l = 0; l < info.layers; l++) {
        weft_layer_info layer = WEFT_LAYER_INFO_INIT;
        must(weft_model_layer(t.m, l, &layer, &golden_err));
        if (strstr(layer.name, "attn2.to_k") == NULL && strstr(layer.name, "attn2.to_v") == NULL) continue;
        keys += 2.0 * o.text_tokens * layer.in * layer.out;
        bytes += 4.0 * o.text_tokens * (layer.in + layer.out);
    }
    ck_assert_double_gt(keys, 0);
    read_costs(p, &o, WEFT_COSTS_GUIDED, every, 6);
    o.flags = 0;
    read_costs(p, &o, WEFT_COSTS_GUIDED, c, 6);
    for (int n = 0; n < 6; n++) {
        bool found = n % 3 != 0;
        ck_assert_double_eq(c[n].flops, every[n].flops - (found ? 2 * keys : 0));
        ck_assert_double_eq(c[n].activation_bytes, every[n].activation_bytes - (found ? 2 * bytes : 0));
        ck_assert_int_eq(c[n].side_flops < every[n].side_flops, found);
        ck_assert_int_eq(c[n].weight_bytes < every[n].weight_bytes, found);
    }
    weft_plan_free(p);
    close_three(&t);
}
END_TEST

START_TEST(what_is_refused)
{
    three t = open_three();
    weft_plan *p = all_three(&t, WEFT_PATH_AUTO);
    weft_run_options o = options_of(t.entry);
    weft_call_cost c[2] = { WEFT_CALL_COST_INIT, WEFT_CALL_COST_INIT };

    ck_assert_int_eq(weft_run_costs(NULL, &o, 0, c, 2, &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_run_costs(p, &o, 0, c, 2, &golden_err), WEFT_E_STATE);
    must(weft_plan_seal(p, 2, &golden_err));
    ck_assert_int_eq(weft_run_costs(p, &o, 0, NULL, 2, &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_run_costs(p, &o, 0, c, 3, &golden_err), WEFT_E_ARG);
    ck_assert_ptr_nonnull(strstr(golden_err.text, "count is 3, the plan has 2"));
    ck_assert_int_eq(weft_run_costs(p, &o, 2, c, 2, &golden_err), WEFT_E_UNSUPPORTED);
    c[0].struct_size = 8;
    ck_assert_int_eq(weft_run_costs(p, &o, 0, c, 2, &golden_err), WEFT_E_ARG);
    c[0].struct_size = sizeof c[0];
    o.height = -1;
    ck_assert_int_eq(weft_run_costs(p, &o, 0, c, 2, &golden_err), WEFT_E_ARG);
    weft_plan_free(p);
    close_three(&t);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("run");
    TCase *c = tcase_create("costs");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, the_network_alone, 0, 2);
    tcase_add_loop_test(c, adapters_beside_it, 0, 2);
    tcase_add_test(c, switch_costs_whose_turn_it_is);
    tcase_add_test(c, composite_costs_an_evaluation_for_each);
    tcase_add_test(c, reused_features_cost_the_outermost_level);
    tcase_add_test(c, copies_are_read_in_the_weights_place);
    tcase_add_test(c, what_a_mask_hides_costs_nothing);
    tcase_add_test(c, what_is_kept_of_the_text_is_counted_once);
    tcase_add_test(c, what_is_refused);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
