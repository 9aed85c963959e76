/* Adapters merged into one, against PEFT's add_weighted_adapter on the same files, and a null-space projection restated with
 * it (tests/reference/make_merge.py): what the
 * new adapter adds to single layers, and the UNet's prediction with it, under 1e-5. */
#include "../adapter/modules.h"
#include "../run/inputs.h"

static json_t *cases;

static double real(json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }

static const char *word(json_t *o, const char *key)
{
    const char *v = json_string_value(json_object_get(o, key));
    return v != NULL ? v : "";
}

/* PEFT's name of a combination as ours: with _svd on dense differences and factored, else on factors apart. */
static void choose(weft_merge_options *o, const char *kind, json_t *options)
{
    static const struct { const char *name; int32_t kind; } kinds[] = {
        { "cat", WEFT_MERGE_CONCAT }, { "linear", WEFT_MERGE_SUM }, { "svd", WEFT_MERGE_SUM }, { "ties", WEFT_MERGE_TIES },
        { "dare_linear", WEFT_MERGE_DARE }, { "dare_ties", WEFT_MERGE_DARE_TIES }, { "magnitude_prune", WEFT_MERGE_PRUNE },
        { "null_space", WEFT_MERGE_NULL_SPACE },
    };
    size_t n = strlen(kind), svd = n > 4 && strcmp(kind + n - 4, "_svd") == 0 ? 4 : 0;

    for (size_t i = 0; i < WF_LEN(kinds); i++)
        if (strlen(kinds[i].name) == n - svd && strncmp(kinds[i].name, kind, n - svd) == 0) o->kind = kinds[i].kind;
    ck_assert_msg(o->kind != 0, "%s", kind);
    o->rank = (int32_t)real(options, "rank");
    if (o->rank == 0 && o->kind != WEFT_MERGE_CONCAT && o->kind != WEFT_MERGE_NULL_SPACE) o->flags |= WEFT_MERGE_FACTORS;
    o->strength = strcmp(word(options, "strength"), "hard") == 0 ? INFINITY : real(options, "strength");
    o->density = real(options, "density");
    o->seed = strtoull(word(options, "seed"), NULL, 10);
    if (strcmp(word(options, "majority"), "frequency") == 0) o->majority = WEFT_MAJORITY_FREQUENCY;
}

static weft_adapter *merge_case(const inputs *in, json_t *c, weft_merge_report **report)
{
    weft_merge_options o = WEFT_MERGE_OPTIONS_INIT;
    weft_merge_source  s[4];
    weft_adapter      *merged;
    json_t            *adapters = json_object_get(c, "adapters");
    size_t             n = json_array_size(adapters);

    for (size_t i = 0; i < n; i++) {
        json_t *a = json_array_get(adapters, i);
        weft_merge_source_init(&s[i], sizeof s[i]);
        must(weft_adapter_open(data_path("%s", word(a, "path")), NULL, &s[i].adapter, &golden_err));
        s[i].weight = (float)real(a, "weight");
        s[i].exclude = "text_encoder*"; /* PEFT was asked about the UNet */
    }
    json_t *fixed = json_object_get(json_object_get(c, "options"), "fixed");
    if (fixed != NULL) s[json_integer_value(fixed)].flags |= WEFT_SOURCE_FIXED;
    choose(&o, word(c, "kind"), json_object_get(c, "options"));
    must(weft_adapter_merge(in->model, s, n, &o, &merged, report, &golden_err));
    for (size_t i = 0; i < n; i++) weft_adapter_free(s[i].adapter);
    return merged;
}

/* What the adapter adds to a layer, in the file's order. */
static float *difference_at(const inputs *in, weft_adapter *a, const char *layer, size_t n)
{
    size_t          count, bound;
    const wf_layer *layers = wf_model_layers(in->model, &count);
    weft_report    *report;
    float          *D = NULL;

    must(weft_report_create(in->model, a, &report, &golden_err));
    const wf_slice *s = wf_report_slices(report, &bound);
    for (size_t i = 0; i < bound; i++) {
        const wf_layer  *l = &layers[s[i].layer];
        const wf_module *m = wf_adapter_module(a, (size_t)s[i].module);
        if (strcmp(l->name, layer) != 0) continue;
        float *sum = calloc(n, sizeof *sum);
        D = malloc(n * sizeof *D);
        must(wf_module_add(m, l, (double)m->scale, 1, 1, sum, heap(), &golden_err));
        wf_rows_as_stored(l, sum, (size_t)l->out, D);
        free(sum);
    }
    ck_assert_msg(D != NULL, "%s is not in the merged adapter", layer);
    weft_report_free(report);
    return D;
}

static void check_layers(const inputs *in, json_t *c, weft_adapter *a)
{
    json_t *layers = json_object_get(c, "layers");
    char    name[200];

    for (size_t i = 0; i < json_array_size(layers); i++) {
        const char *layer = json_string_value(json_array_get(layers, i));
        snprintf(name, sizeof name, "%s/%s", word(c, "name"), layer);
        if (!golden_has(in->t, name)) ck_abort_msg("no golden %s", name);
        golden want = golden_read(in->t, "%s", name);
        float *got = difference_at(in, a, layer, want.n);
        near_golden(name, got, want.v, want.n, 1e-5);
        free(got), free(want.v);
    }
}

static void check_prediction(const inputs *in, json_t *c, weft_adapter *a)
{
    weft_run_options ro = WEFT_RUN_OPTIONS_INIT;
    plain_step       step = PLAIN_STEP_INIT;
    weft_plan       *plan;
    weft_run        *run;
    golden           want = golden_read(in->t, "%s/unet", word(c, "name"));

    must(weft_plan_create(in->model, NULL, &plan, &golden_err));
    must(weft_plan_add(plan, a, 1, NULL, &golden_err));
    must(weft_plan_seal(plan, 1, &golden_err));
    ro.threads = 2;
    ro.height = (int32_t)in->x.shape[2];
    ro.width = (int32_t)in->x.shape[3];
    must(weft_run_create(plan, &ro, &run, &golden_err));
    step.latent = in->x.v;
    step.text = in->text.v;
    step.text_len = in->text.n;
    step.out = malloc(in->x.n * sizeof *step.out);
    step.latent_len = step.out_len = in->x.n;
    step.timestep = in->ts.v[0];
    must(plain_run_step(run, &step, &golden_err));
    near_golden(word(c, "name"), step.out, want.v, want.n, 1e-5);
    free(step.out), free(want.v);
    weft_run_free(run);
    weft_plan_free(plan);
}

START_TEST(merges_are_pefts)
{
    json_t            *c = json_array_get(cases, (size_t)_i);
    inputs             in = read_inputs("models/tiny-sd1", "merge.safetensors");
    weft_merge_report *report;
    weft_adapter      *a = merge_case(&in, c, &report);

    ck_assert_uint_gt(weft_merge_report_count(report), 50);
    check_layers(&in, c, a);
    check_prediction(&in, c, a);
    weft_merge_report_free(report);
    weft_adapter_free(a);
    free_inputs(&in);
}
END_TEST

int main(void)
{
    Suite  *s = suite_create("merge: PEFT");
    TCase  *t = tcase_create("add_weighted_adapter");
    json_t *index = json_load_file(data_path("golden/merge.json"), 0, NULL);

    if (index == NULL) return EXIT_FAILURE;
    cases = json_object_get(index, "cases");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, merges_are_pefts, 0, (int)json_array_size(cases));
    suite_add_tcase(s, t);
    int failed = run_suite(s);
    json_decref(index);
    return failed;
}
