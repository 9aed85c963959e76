/* Every adapter file of tests/data/adapters on its model, against PEFT and diffusers: relative error of the
 * prediction (and of the text encoders' output) under 1e-5, by the side path and by merged copies.
 * tests/reference/make_adapters.py made files and references. */
#include <stdbool.h>

#include "inputs.h"

static void check_unet(const inputs *in, weft_run *run, const char *prefix)
{
    golden want = golden_read(in->t, "%s/unet", prefix);
    size_t n = (size_t)in->x.shape[0], one = in->x.n / n;
    float *out = malloc(in->x.n * sizeof *out);
    char what[160];
    for (size_t s = 0; s < n; s++) {
        plain_step step = PLAIN_STEP_INIT;
        step.latent = in->x.v + s * one;
        step.text = in->text.v + s * in->text.n / n;
        step.text_len = in->text.n / n;
        step.out = out + s * one;
        step.latent_len = step.out_len = one;
        step.timestep = in->ts.v[s];
        if (in->xl) {
            step.pooled = in->pooled.v + s * in->pooled.n / n;
            step.pooled_len = in->pooled.n / n;
            step.time_ids = in->time_ids.v + s * in->time_ids.n / n;
            step.time_ids_len = in->time_ids.n / n;
        }
        must(plain_run_step(run, &step, &golden_err));
    }
    snprintf(what, sizeof what, "%s/unet", prefix);
    near_golden(what, out, want.v, want.n, 1e-5);
    free(out), free(want.v);
}

/* SDXL's conditioning stands in two goldens, one for each encoder. */
static void check_text(const inputs *in, weft_run *run, const char *prefix)
{
    char name[160];
    golden te = golden_read(in->t, "%s/te", prefix), te2 = { 0 }, pooled = { 0 };
    size_t w1 = te.n / 77, w2 = 0;
    int32_t a[77], b[77];
    if (in->xl) {
        te2 = golden_read(in->t, "%s/te2", prefix);
        pooled = golden_read(in->t, "%s/te2_embeds", prefix);
        w2 = te2.n / 77;
    }
    for (int i = 0; i < 77; i++) {
        a[i] = (int32_t)in->ids.v[i];
        b[i] = in->xl ? (int32_t)in->ids2.v[i] : 0;
    }
    plain_encode e = PLAIN_ENCODE_INIT;
    e.text_len = 77 * (w1 + w2);
    e.text = malloc(e.text_len * sizeof *e.text);
    e.pooled_len = pooled.n;
    e.pooled = in->xl ? malloc(pooled.n * sizeof *e.pooled) : NULL;
    must(plain_run_encode_ids(run, a, in->xl ? b : NULL, 77, &e, &golden_err));
    float *half = malloc(e.text_len * sizeof *half);
    for (size_t r = 0; r < 77; r++) memcpy(half + r * w1, e.text + r * (w1 + w2), w1 * sizeof *half);
    snprintf(name, sizeof name, "%s/te", prefix);
    near_golden(name, half, te.v, te.n, 1e-5);
    for (size_t r = 0; r < 77 && in->xl; r++)
        memcpy(half + r * w2, e.text + r * (w1 + w2) + w1, w2 * sizeof *half);
    if (in->xl) near_golden("te2", half, te2.v, te2.n, 1e-5);
    if (in->xl) near_golden("te2_embeds", e.pooled, pooled.v, pooled.n, 1e-5);
    free(half), free(e.text), free(e.pooled), free(te.v), free(te2.v), free(pooled.v);
}

static weft_run *bind(const inputs *in, weft_adapter *adapter, float weight, int32_t path)
{
    weft_plan_options po = WEFT_PLAN_OPTIONS_INIT;
    weft_run_options ro = WEFT_RUN_OPTIONS_INIT;
    weft_plan *plan;
    weft_run *run;
    po.path = path;
    must(weft_plan_create(in->model, &po, &plan, &golden_err));
    must(weft_plan_add(plan, adapter, weight, NULL, &golden_err));
    must(weft_plan_seal(plan, 1, &golden_err));
    ro.threads = 2;
    ro.height = (int32_t)in->x.shape[2];
    ro.width = (int32_t)in->x.shape[3];
    must(weft_run_create(plan, &ro, &run, &golden_err));
    weft_plan_free(plan);
    return run;
}

static void check_adapter(const inputs *in, json_t *entry)
{
    weft_adapter *adapter;
    json_t *cases = json_object_get(entry, "cases");
    const char *path = json_string_value(json_object_get(entry, "path"));
    must(weft_adapter_open(data_path("%s", path), NULL, &adapter, &golden_err));
    weft_adapter_info info = WEFT_ADAPTER_INFO_INIT;
    must(weft_adapter_info_get(adapter, &info, &golden_err));
    ck_assert_int_eq(info.modules, json_integer_value(json_object_get(entry, "modules")));
    ck_assert_int_eq(info.denoiser_modules, json_integer_value(json_object_get(entry, "unet")));
    ck_assert_int_eq(info.text_modules, json_integer_value(json_object_get(entry, "text_encoder")) +
                                            json_integer_value(json_object_get(entry, "text_encoder_2")));
    weft_report *report;
    must(weft_report_create(in->model, adapter, &report, &golden_err));
    ck_assert_uint_eq(weft_report_count(report), (size_t)json_integer_value(json_object_get(entry, "keys")));
    ck_assert_uint_eq(weft_report_tally(report, WEFT_KEY_UNMATCHED), 0);
    weft_report_free(report);
    for (size_t c = 0; c < json_array_size(cases); c++)
        for (int32_t way = WEFT_PATH_SIDE; way <= WEFT_PATH_MERGED; way++) {
            json_t *item = json_array_get(cases, c);
            const char *prefix = json_string_value(json_object_get(item, "prefix"));
            char te[160];
            weft_run *run = bind(in, adapter, (float)json_number_value(json_object_get(item, "weight")), way);
            check_unet(in, run, prefix);
            snprintf(te, sizeof te, "%s/te", prefix);
            if (golden_has(in->t, te)) check_text(in, run, prefix);
            weft_run_free(run);
        }
    weft_adapter_free(adapter);
}

static const char *word(json_t *o, const char *key)
{
    const char *v = json_string_value(json_object_get(o, key));
    return v != NULL ? v : "";
}

/* 0 to 2: the tiny models; 3: the bundled one. */
START_TEST(every_dialect_is_peft)
{
    static const char *const models[] = { "models/tiny-sd1", "models/tiny-sd2", "models/tiny-sdxl", NULL };
    static const char *const files[] = { "adapters_tiny-sd1.safetensors", "adapters_tiny-sd2.safetensors",
                                         "adapters_tiny-sdxl.safetensors", NULL };
    bool bundled = models[_i] == NULL;
    json_t *index = golden_json(bundled ? "bundled.json" : "adapters.json");
    json_t *group = bundled ? json_object_get(index, "adapters") : index, *list = json_object_get(group, "adapters");
    const char *model = bundled ? word(index, "model") : models[_i];
    inputs in = read_inputs(model, bundled ? word(group, "file") : files[_i]);
    int seen = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *entry = json_array_get(list, i);
        const char *of = word(entry, "model"), *end = strstr(model, of);
        if (end == NULL || strcmp(end, of) != 0) continue; /* another model's */
        check_adapter(&in, entry);
        seen++;
    }
    ck_assert_int_ge(seen, bundled ? 4 : 1);
    free_inputs(&in);
    json_decref(index);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("adapters against goldens");
    TCase *c = tcase_create("goldens");
    tcase_set_timeout(c, 300);
    tcase_add_loop_test(c, every_dialect_is_peft, 0, 4);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
