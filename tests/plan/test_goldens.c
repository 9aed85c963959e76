/* test_goldens.c - tables and scores against the Python re-statement of the methods (data/golden/compose.json). */
#include <jansson.h>

#include "fixture.h"

static weft_allocator malloc_of_c;
static json_t       *root;
static weft_tensors *tensors;
static json_t       *models;

static void setup(void)
{
    malloc_of_c = wf_allocator(NULL);
    OK(wf_json_load(&root, test_path("data/golden/compose.json"), &malloc_of_c, &err));
}

/* Tensor `prefix` + `name`, whatever its type: its data and count. */
static const wf_tensor *golden(const char *prefix, const char *name)
{
    char             full[300];
    const wf_tensor *t;

    snprintf(full, sizeof full, "%s%s", prefix, name);
    t = wf_tensors_find(tensors, full);
    ck_assert_msg(t != NULL, "no golden %s", full);
    return t;
}

static double f64_at(const wf_tensor *t, size_t i)
{
    double v;
    ck_assert_int_eq(t->dtype, WF_F64);
    ck_assert_uint_lt(i, t->count);
    memcpy(&v, t->data + i * sizeof v, sizeof v);
    return v;
}

static const char *str(const json_t *o, const char *key) { return json_string_value(json_object_get(o, key)); }
static bool        yes(const json_t *o, const char *key) { return json_is_true(json_object_get(o, key)); }

static double num(const json_t *o, const char *key, double otherwise)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : otherwise;
}

static int32_t one_of(const json_t *o, const char *key, const char *const *names, int32_t count)
{
    const char *s = str(o, key);
    for (int32_t i = 0; s != NULL && i < count; i++)
        if (strcmp(s, names[i]) == 0) return i;
    ck_assert_msg(s == NULL, "%s: unknown %s", key, s != NULL ? s : "");
    return 0;
}

static void use_method(weft_plan *p, const char *method, const json_t *o)
{
    static const char *const patterns[] = { "s_star", "s", "custom" }, *const gammas[] = { "code", "paper", "none" },
                      *const grains[] = { "call", "step" };
    weft_switch_options    so = WEFT_SWITCH_OPTIONS_INIT;
    weft_composite_options co = WEFT_COMPOSITE_OPTIONS_INIT;
    weft_klora_options     ko = WEFT_KLORA_OPTIONS_INIT;

    so.period = (int32_t)num(o, "period", 0);
    so.flags = yes(o, "official_offset") ? WEFT_SWITCH_OFFICIAL_OFFSET : 0;
    co.flags = (yes(o, "divide_by_count") ? WEFT_COMPOSITE_DIVIDE_BY_COUNT : 0) |
               (yes(o, "nocfg_last") ? WEFT_COMPOSITE_NOCFG_LAST : 0);
    ko.pattern = one_of(o, "pattern", patterns, 3);
    ko.gamma = one_of(o, "gamma", gammas, 3);
    ko.granularity = one_of(o, "granularity", grains, 2);
    ko.flags = (yes(o, "wrap") ? WEFT_KLORA_WRAP : 0) | (yes(o, "ignore_alpha") ? WEFT_KLORA_IGNORE_ALPHA : 0) |
               (yes(o, "attention_only") ? WEFT_KLORA_ATTENTION_ONLY : 0) |
               (yes(o, "paper_beta") ? WEFT_KLORA_PAPER_BETA : 0);
    ko.top_k = (int64_t)num(o, "top_k", 0);
    if (ko.pattern == WEFT_KLORA_CUSTOM) {
        ko.alpha = num(o, "alpha", 0);
        ko.beta = num(o, "beta", 0);
        ko.modulus = num(o, "modulus", 0);
    }
    if (strcmp(method, "merge") == 0) OK(weft_plan_merge(p, &err));
    else if (strcmp(method, "switch") == 0) OK(weft_plan_switch(p, &so, &err));
    else if (strcmp(method, "composite") == 0) OK(weft_plan_composite(p, &co, &err));
    else if (strcmp(method, "klora") == 0) OK(weft_plan_klora(p, &ko, &err));
    else ck_assert_str_eq(method, "base");
}

static weft_plan *plan_of(weft_model *model, const json_t *entry, const json_t *c)
{
    static const char *const policies[] = { "method", "all", "first", "none" };
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan        *p;
    size_t            i;
    json_t           *a;

    o.text = one_of(c, "text", policies, 4);
    OK(weft_plan_create(model, &o, &p, &err));
    json_array_foreach(json_object_get(c, "adapters"), i, a) {
        weft_add_options add = WEFT_ADD_OPTIONS_INIT;
        weft_adapter    *adapter;
        char             path[300];
        snprintf(path, sizeof path, "data/%s", str(json_object_get(entry, "adapters"), str(a, "name")));
        OK(weft_adapter_open(test_path(path), NULL, &adapter, &err));
        add.flags = WEFT_ADD_SHARE;
        add.text_weights = text_weight((float)num(a, "text_weight", num(a, "weight", 1)));
        add.share = (float)num(a, "share", 1);
        OK(weft_plan_add(p, adapter, (float)num(a, "weight", 1), &add, &err));
        weft_adapter_free(adapter);
    }
    use_method(p, str(c, "method"), json_object_get(c, "options"));
    OK(weft_plan_seal(p, (int32_t)num(c, "steps", 20), &err));
    return p;
}

/* Weight of adapter a of a case. */
static float weight_of(const json_t *c, int32_t a)
{
    return (float)num(json_array_get(json_object_get(c, "adapters"), (size_t)a), "weight", 1);
}

static void check_plain(const weft_plan *p, const json_t *c, const wf_tensor *active)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(wf_plan_model(p), &count);
    weft_plan_info  i = info_of(p);
    bool            composite = strcmp(str(c, "method"), "composite") == 0;

    ck_assert_int_eq(i.branches, composite ? i.adapters : 1);
    for (size_t l = 0; l < count; l++)
        for (int32_t n = 0; n < i.calls; n++)
            for (int32_t b = 0; b < i.branches; b++)
                for (int32_t a = 0; a < i.adapters; a++) {
                    int32_t turn = -1;
                    bool    acts = layers[l].component == WEFT_COMPONENT_DENOISER && wf_plan_module(p, a, (int32_t)l) != NULL;
                    if (active != NULL) memcpy(&turn, active->data + (size_t)n * 4, 4);
                    if (active != NULL && turn != a) acts = false;
                    if (composite && a != b) acts = false;
                    if (layers[l].component == WEFT_COMPONENT_DENOISER)
                        ck_assert_float_eq(cell(p, n, b, (int64_t)l, a), acts ? weight_of(c, a) : 0);
                }
}

/* Model layer of a canonical name. */
static int64_t find_layer(const weft_model *model, const char *name)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(model, &count);

    for (size_t l = 0; l < count; l++)
        if (strcmp(layers[l].name, name) == 0) return (int64_t)l;
    ck_abort_msg("the model has no layer %s", name);
}

static void close_to(double got, double want, const char *what, const char *layer)
{
    if (isinf(want) || isinf(got)) ck_assert_msg(isinf(want) && isinf(got), "%s of %s: %g, not %g", what, layer, got, want);
    else ck_assert_msg(fabs(got - want) <= 2e-6 * fabs(want), "%s of %s: %.12g, not %.12g", what, layer, got, want);
}

static void check_klora(const weft_plan *p, const json_t *entry, const json_t *c)
{
    const char       *prefix = str(entry, "prefix"), *scores = str(c, "scores");
    const weft_model *model = wf_plan_model(p);
    const json_t     *s, *names = NULL;
    const wf_tensor  *choice, *rho;
    char              name[200];
    size_t            i, L;

    json_array_foreach(json_object_get(entry, "scores"), i, s)
        if (strcmp(str(s, "name"), scores) == 0) names = json_object_get(s, "layers");
    ck_assert_ptr_ne(names, NULL);
    L = json_array_size(names);
    snprintf(name, sizeof name, "%s/choice", str(c, "name"));
    choice = golden(prefix, name);
    snprintf(name, sizeof name, "%s/rho", str(c, "name"));
    rho = golden(prefix, name);
    ck_assert_uint_eq(choice->count, L * (size_t)num(c, "steps", 0));

    for (i = 0; i < L; i++) {
        const char      *layer = json_string_value(json_array_get(names, i));
        int64_t          id = find_layer(model, layer);
        weft_klora_score got = WEFT_KLORA_SCORE_INIT;
        OK(weft_plan_klora_score(p, 0, id, &got, &err));
        ck_assert_msg(got.position == (int32_t)i + 1, "%s is at %d, not %zu", layer, got.position, i + 1);
        snprintf(name, sizeof name, "%s/S_c", scores);
        close_to(got.content, f64_at(golden("", name), i), "S_c", layer);
        snprintf(name, sizeof name, "%s/S_s", scores);
        close_to(got.style, f64_at(golden("", name), i), "S_s", layer);
        snprintf(name, sizeof name, "%s/q", scores);
        close_to(got.ratio, f64_at(golden("", name), i), "q", layer);
        if (!isnan(f64_at(rho, i))) close_to(got.rho, f64_at(rho, i), "rho", layer);
        close_to(got.gamma, num(c, "gamma", 1), "gamma", layer);
        for (size_t n = 0; n < choice->count / L; n++) {
            uint8_t want = choice->data[n * L + i];
            for (int32_t a = 0; a < 2; a++)
                ck_assert_msg(cell(p, (int32_t)n, 0, id, a) == (want == a ? weight_of(c, a) : 0), "%s: %s at call %zu",
                              str(c, "name"), layer, n);
        }
    }
}

START_TEST(every_case_has_the_table_of_the_restatement)
{
    const json_t *entry, *c;
    size_t        m, i;
    int           klora = 0;

    models = json_object_get(root, "models");
    OK(wf_tensors_open(test_path("data/golden/compose.safetensors"), false, &malloc_of_c, &tensors, &err));
    json_array_foreach(models, m, entry) {
        const char *name = str(entry, "model");
        weft_model *model = open_model(strrchr(name, '/') != NULL ? strrchr(name, '/') + 1 : name);
        json_array_foreach(json_object_get(entry, "cases"), i, c) {
            weft_plan *p = plan_of(model, entry, c);
            char       active[200];
            snprintf(active, sizeof active, "%s/active", str(c, "name"));
            if (strcmp(str(c, "method"), "klora") == 0) {
                check_klora(p, entry, c);
                klora++;
            } else {
                check_plain(p, c, strcmp(str(c, "method"), "switch") == 0 ? golden(str(entry, "prefix"), active) : NULL);
            }
            weft_plan_free(p);
        }
        weft_model_free(model);
    }
    ck_assert_int_gt(klora, 3);
    weft_tensors_free(tensors);
    json_decref(root);
}
END_TEST

int main(void)
{
    Suite   *s = suite_create("plan goldens");
    TCase   *t = tcase_create("goldens");
    SRunner *sr = srunner_create(s);
    int      failed;

    suite_add_tcase(s, t);
    tcase_add_checked_fixture(t, setup, NULL);
    tcase_set_timeout(t, 240);
    tcase_add_test(t, every_case_has_the_table_of_the_restatement);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
