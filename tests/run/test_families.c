/* Every adapter of tests/data/families on its model: against the library that made it (PEFT, LyCORIS, diffusers) and against
 * the family's formula in f64, relative error under 1e-5, by the side path and by merged copies; taking turns, two and two;
 * several families in one plan; K-LoRA and composite over them. tests/reference/make_families.py made files and references.
 *
 * With WEFT_TABLE=<path> what was measured is written there as the table of docs/adapters.md, and FAMILY=<part of a name>
 * runs those alone. */
#include <stdbool.h>

#include "inputs.h"

static const double limit = 1e-5;

/* ---- measuring ------------------------------------------------------------------------------- */

/* Worst relative errors of a file: [side, merged], against its library (-1: none) and against the formula. */
typedef struct errors { double library[2], formula[2]; } errors;

static void measure(const inputs *in, const char *what, const char *prefix, const char *out, const float *v, size_t n,
                    double *library, double *formula)
{
    char name[200];
    double l2;
    golden want = golden_read(in->t, "%s/%s", prefix, out);
    ck_assert_uint_eq(want.n, n);
    double e = relative(v, want.v, n, &l2);
    if (getenv("GOLDEN_SHOW") != NULL) printf("%-48s %-10s %s %.2e\n", prefix, out, what, e);
    ck_assert_msg(e <= limit, "%s/%s by %s: relative error %g of the formula", prefix, out, what, e);
    *formula = e > *formula ? e : *formula;
    free(want.v);
    snprintf(name, sizeof name, "%s/%s_lib", prefix, out);
    if (!golden_has(in->t, name)) return;
    want = golden_read(in->t, "%s", name);
    e = relative(v, want.v, n, &l2);
    ck_assert_msg(e <= limit, "%s/%s by %s: relative error %g of the library", prefix, out, what, e);
    *library = e > *library ? e : *library;
    free(want.v);
}

static float *predict(const inputs *in, weft_run *run, int32_t call)
{
    plain_step step = PLAIN_STEP_INIT;
    step.latent = in->x.v;
    step.text = in->text.v;
    step.text_len = in->text.n;
    step.out = malloc(in->x.n * sizeof *step.out);
    step.latent_len = step.out_len = in->x.n;
    step.timestep = in->ts.v[0];
    step.call = call;
    step.pooled = in->pooled.v;
    step.pooled_len = in->pooled.n;
    step.time_ids = in->time_ids.v;
    step.time_ids_len = in->time_ids.n;
    must(plain_run_step(run, &step, &golden_err));
    return step.out;
}

static void check_unet(const inputs *in, weft_run *run, int32_t call, const char *what, const char *prefix, double *library,
                       double *formula)
{
    float *out = predict(in, run, call);
    measure(in, what, prefix, "unet", out, in->x.n, library, formula);
    free(out);
}

/* The first rows, and of them the columns of one encoder. */
static void columns(const inputs *in, const float *text, size_t width, size_t from, size_t n, float *dst)
{
    for (size_t r = 0; r < in->rows; r++) memcpy(dst + r * n, text + r * width + from, n * sizeof *dst);
}

/* SDXL's conditioning stands in two goldens, one for each encoder. */
static void check_text(const inputs *in, weft_run *run, const char *what, const char *prefix, double *library, double *formula)
{
    golden te = golden_read(in->t, "base/te"), te2 = { 0 }, pooled = { 0 };
    size_t w1 = te.n / in->rows, w2 = 0;
    int32_t a[77], b[77];
    if (in->xl) {
        te2 = golden_read(in->t, "base/te2");
        pooled = golden_read(in->t, "base/te2_embeds");
        w2 = te2.n / in->rows;
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
    float *part = malloc(e.text_len * sizeof *part);
    columns(in, e.text, w1 + w2, 0, w1, part);
    measure(in, what, prefix, "te", part, te.n, library, formula);
    if (in->xl) {
        columns(in, e.text, w1 + w2, w1, w2, part);
        measure(in, what, prefix, "te2", part, te2.n, library, formula);
        measure(in, what, prefix, "te2_embeds", e.pooled, pooled.n, library, formula);
    }
    free(part), free(e.text), free(e.pooled), free(te.v), free(te2.v), free(pooled.v);
}

static void check_outputs(const inputs *in, weft_run *run, const char *what, const char *prefix, double *library, double *formula)
{
    char name[200];
    snprintf(name, sizeof name, "%s/unet", prefix);
    if (golden_has(in->t, name)) check_unet(in, run, 0, what, prefix, library, formula);
    snprintf(name, sizeof name, "%s/te", prefix);
    if (golden_has(in->t, name)) check_text(in, run, what, prefix, library, formula);
}

/* ---- files ----------------------------------------------------------------------------------- */

static const char *word(json_t *o, const char *key)
{
    const char *v = json_string_value(json_object_get(o, key));
    return v != NULL ? v : "";
}

static int number(json_t *o, const char *key) { return (int)json_integer_value(json_object_get(o, key)); }

/* What the goldens of an index are called. */
static const char *stem_of(json_t *index)
{
    const char *stem = word(index, "stem");
    return *stem != '\0' ? stem : "families";
}

static inputs inputs_for(const char *model, json_t *index)
{
    char folder[80], file[80];
    snprintf(folder, sizeof folder, "models/%s", model);
    snprintf(file, sizeof file, "%s_%s.safetensors", stem_of(index), model);
    inputs in = read_inputs(folder, file);
    in.rows = (size_t)number(index, "rows");
    return in;
}

static inputs inputs_of(json_t *entry, json_t *index) { return inputs_for(word(entry, "model"), index); }

static weft_adapter *open_file(json_t *entry)
{
    weft_adapter *a;
    weft_status st = weft_adapter_open(data_path("%s", word(entry, "path")), NULL, &a, &golden_err);
    ck_assert_msg(st == WEFT_OK, "%s: %s", word(entry, "name"), golden_err.text);
    return a;
}

static weft_plan *plan_of(const inputs *in, int32_t path)
{
    weft_plan_options po = WEFT_PLAN_OPTIONS_INIT;
    weft_plan *plan;
    po.path = path;
    must(weft_plan_create(in->model, &po, &plan, &golden_err));
    return plan;
}

static void add(weft_plan *plan, weft_adapter *a, double weight, uint32_t flags)
{
    weft_add_options ao = WEFT_ADD_OPTIONS_INIT;
    ao.flags = flags;
    must(weft_plan_add(plan, a, (float)weight, &ao, &golden_err));
}

static weft_run *run_of(const inputs *in, weft_plan *plan, int32_t calls)
{
    weft_run_options ro = WEFT_RUN_OPTIONS_INIT;
    weft_run *run;
    must(weft_plan_seal(plan, calls, &golden_err));
    ro.threads = 2;
    ro.height = (int32_t)in->x.shape[2];
    ro.width = (int32_t)in->x.shape[3];
    must(weft_run_create(plan, &ro, &run, &golden_err));
    weft_plan_free(plan);
    return run;
}

/* Every key is matched, or left out for a reason that is said. */
static void check_report(const inputs *in, weft_adapter *a, json_t *entry)
{
    weft_report *report;
    weft_adapter_info info = WEFT_ADAPTER_INFO_INIT;
    const char *name = word(entry, "name");
    must(weft_adapter_info_get(a, &info, &golden_err));
    ck_assert_msg(info.modules == number(entry, "modules"), "%s: %d modules", name, info.modules);
    ck_assert_msg(info.denoiser_modules == number(entry, "unet"), "%s: %d in the UNet", name, info.denoiser_modules);
    ck_assert_msg(info.text_modules == number(entry, "text"), "%s: %d in text encoders", name, info.text_modules);
    ck_assert_msg(info.tokens == number(entry, "words"), "%s: %d words", name, info.tokens);
    ck_assert_msg(strcmp(info.kind, word(entry, "kind")) == 0, "%s: is called %s", name, info.kind);
    must(weft_report_create(in->model, a, &report, &golden_err));
    for (size_t i = 0; i < weft_report_count(report); i++) {
        weft_report_row row = WEFT_REPORT_ROW_INIT;
        must(weft_report_get(report, i, &row, &golden_err));
        ck_assert_msg(row.state == WEFT_KEY_MATCHED || (row.state == WEFT_KEY_IGNORED && row.reason[0] != '\0'),
                      "%s: %s: %s", name, row.key, row.reason);
    }
    weft_report_free(report);
}

static errors check_file(const inputs *in, json_t *entry)
{
    static const char *const ways[] = { "side", "merged" };
    errors e = { { -1, -1 }, { 0, 0 } };
    json_t *cases = json_object_get(entry, "cases");
    weft_adapter *a = open_file(entry);
    check_report(in, a, entry);
    for (size_t c = 0; c < json_array_size(cases); c++)
        for (int32_t way = 0; way < 2; way++) {
            json_t *item = json_array_get(cases, c);
            weft_plan *plan = plan_of(in, way == 0 ? WEFT_PATH_SIDE : WEFT_PATH_MERGED);
            add(plan, a, json_number_value(json_object_get(item, "weight")),
                strcmp(word(item, "rule"), "peft") == 0 ? WEFT_ADD_PEFT_DORA : 0);
            weft_run *run = run_of(in, plan, 1);
            check_outputs(in, run, ways[way], word(item, "prefix"), &e.library[way], &e.formula[way]);
            weft_run_free(run);
        }
    weft_adapter_free(a);
    return e;
}

/* Two files take turns, a call each: each is there alone in its own, whatever families they are. */
static void check_turns(const inputs *in, json_t *first, json_t *second)
{
    json_t *entries[2] = { first, second };
    weft_adapter *a[2];
    weft_plan *plan = plan_of(in, WEFT_PATH_AUTO);
    weft_switch_options so = WEFT_SWITCH_OPTIONS_INIT;
    double library = -1, formula = 0;
    for (int i = 0; i < 2; i++) {
        a[i] = open_file(entries[i]);
        add(plan, a[i], 1, 0);
    }
    so.period = 1;
    must(weft_plan_switch(plan, &so, &golden_err));
    weft_run *run = run_of(in, plan, 4);
    for (int call = 0; call < 4; call++) {
        json_t *entry = entries[call % 2];
        const char *prefix = word(json_array_get(json_object_get(entry, "cases"), 0), "prefix");
        check_unet(in, run, call, "turns", number(entry, "unet") > 0 ? prefix : "base", &library, &formula);
    }
    weft_run_free(run);
    weft_adapter_free(a[0]), weft_adapter_free(a[1]);
}

/* ---- the table ------------------------------------------------------------------------------- */

enum { ROW_CAP = 400 };

static int append(char *row, int n, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    n += vsnprintf(row + n, (size_t)(ROW_CAP - n), format, args);
    va_end(args);
    ck_assert_int_lt(n, ROW_CAP);
    return n;
}

static void write_row(char *row, json_t *entry, const errors *e)
{
    const double cells[] = { e->library[0], e->library[1], e->formula[0], e->formula[1] };
    int n = append(row, 0, "| %s | %s | %s | %d | %s |", word(entry, "family"), word(entry, "dialect"),
                   word(entry, "model"), number(entry, "modules"), word(entry, "by"));
    for (int i = 0; i < 4; i++) n = cells[i] < 0 ? append(row, n, " – |") : append(row, n, " %.0e |", cells[i]);
    append(row, n, " %s |\n", word(entry, "note"));
}

static int by_text(const void *a, const void *b) { return strcmp(a, b); }

/* Sorted, so that a family's rows stand together. */
static void write_table(const char *path, char (*rows)[ROW_CAP], size_t n)
{
    FILE *f = fopen(path, "w");
    ck_assert_msg(f != NULL, "%s cannot be written", path);
    qsort(rows, n, sizeof *rows, by_text);
    fprintf(f, "| family | dialect | model | modules | made by | side | merged | side, f64 | merged, f64 | note |\n"
               "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for (size_t i = 0; i < n; i++) fputs(rows[i], f);
    ck_assert_int_eq(fclose(f), 0);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static const char *const models[] = { "tiny-sd1", "tiny-sd2", "tiny-sdxl" };
enum { MODELS = 3 };

/* Each with the files, sums and methods that one script made. */
static const char *const indices[] = { "families.json", "families_peft.json", "families_peft2.json" };
enum { INDICES = 3 };

static size_t listed(json_t *index, const char *what) { return json_array_size(json_object_get(index, what)); }

/* The index that has entry number i of all `what`, whose number in it *at becomes. */
static json_t *index_with(const char *what, size_t i, size_t *at)
{
    for (int k = 0; k < INDICES; k++) {
        json_t *index = golden_json(indices[k]);
        if (i < listed(index, what)) {
            *at = i;
            return index;
        }
        i -= listed(index, what);
        json_decref(index);
    }
    ck_abort_msg("there are no more %s", what);
    return NULL;
}

static bool wanted(json_t *entry)
{
    const char *only = getenv("FAMILY");
    return only == NULL || strstr(word(entry, "name"), only) != NULL;
}

static errors check_entry(json_t *index, json_t *entry)
{
    inputs in = inputs_of(entry, index);
    errors e = check_file(&in, entry);
    free_inputs(&in);
    return e;
}

START_TEST(a_family_is_what_its_library_computes)
{
    size_t at;
    json_t *index = index_with("files", (size_t)_i, &at), *entry = json_array_get(json_object_get(index, "files"), at);
    if (wanted(entry)) check_entry(index, entry);
    json_decref(index);
}
END_TEST

START_TEST(the_table_is_written)
{
    json_t *index[INDICES], *entry;
    char (*rows)[ROW_CAP];
    size_t i, n = 0, all = 0;
    for (int k = 0; k < INDICES; k++) {
        index[k] = golden_json(indices[k]);
        all += listed(index[k], "files");
    }
    rows = calloc(all, sizeof *rows);
    for (int k = 0; k < INDICES; k++) {
        json_array_foreach(json_object_get(index[k], "files"), i, entry) {
            errors e = check_entry(index[k], entry);
            write_row(rows[n++], entry, &e);
        }
        json_decref(index[k]);
    }
    write_table(getenv("WEFT_TABLE"), rows, n);
    free(rows);
}
END_TEST

START_TEST(neighbours_take_turns)
{
    json_t *index = golden_json(indices[_i / MODELS]), *files = json_object_get(index, "files"), *entry, *last = NULL;
    const char *model = models[_i % MODELS];
    inputs in = inputs_for(model, index);
    size_t i;
    json_array_foreach(files, i, entry) {
        if (strcmp(model, word(entry, "model")) != 0 || !wanted(entry)) continue;
        if (last != NULL) check_turns(&in, last, entry);
        last = entry;
    }
    free_inputs(&in);
    json_decref(index);
}
END_TEST

static json_t *named(json_t *files, const char *name)
{
    json_t *entry;
    size_t i;
    json_array_foreach(files, i, entry)
        if (strcmp(word(entry, "name"), name) == 0) return entry;
    ck_abort_msg("no file %s", name);
    return NULL;
}

static void add_files(weft_plan *plan, json_t *index, json_t *parts)
{
    json_t *part;
    size_t k;
    json_array_foreach(parts, k, part) {
        weft_adapter *a = open_file(named(json_object_get(index, "files"), word(part, "name")));
        add(plan, a, json_number_value(json_object_get(part, "weight")), 0);
        weft_adapter_free(a);
    }
}

/* The differences add up, each taken of the base weight. */
START_TEST(families_add_up_in_one_plan)
{
    json_t *index = golden_json(indices[_i]), *item;
    size_t i;
    ck_assert_uint_ge(listed(index, "mixed"), 4);
    json_array_foreach(json_object_get(index, "mixed"), i, item)
        for (int32_t way = WEFT_PATH_SIDE; way <= WEFT_PATH_MERGED; way++) {
            inputs in = inputs_of(item, index);
            weft_plan *plan = plan_of(&in, way);
            double library = -1, formula = 0;
            add_files(plan, index, json_object_get(item, "files"));
            weft_run *run = run_of(&in, plan, 1);
            check_outputs(&in, run, "sum", word(item, "prefix"), &library, &formula);
            weft_run_free(run);
            free_inputs(&in);
        }
    json_decref(index);
}
END_TEST

static void choose_method(weft_plan *plan, json_t *item)
{
    json_t *options = json_object_get(item, "options");
    weft_klora_options ko = WEFT_KLORA_OPTIONS_INIT;
    if (strcmp(word(item, "method"), "composite") == 0) {
        must(weft_plan_composite(plan, NULL, &golden_err));
        return;
    }
    ko.top_k = number(options, "top_k");
    ko.pattern = strcmp(word(options, "pattern"), "s") == 0 ? WEFT_KLORA_S : WEFT_KLORA_S_STAR;
    must(weft_plan_klora(plan, &ko, &golden_err));
}

/* K-LoRA scores and composite averages whatever the families are. */
START_TEST(methods_know_no_families)
{
    json_t *index = golden_json(indices[_i]), *item;
    size_t i;
    ck_assert_uint_ge(listed(index, "methods"), 2);
    json_array_foreach(json_object_get(index, "methods"), i, item) {
        inputs in = inputs_of(item, index);
        weft_plan *plan = plan_of(&in, WEFT_PATH_AUTO);
        add_files(plan, index, json_object_get(item, "files"));
        choose_method(plan, item);
        weft_run *run = run_of(&in, plan, number(item, "calls"));
        for (int call = 0; call < number(item, "calls"); call++) {
            char name[160];
            snprintf(name, sizeof name, "%s/%d", word(item, "prefix"), call);
            golden want = golden_read(in.t, "%s", name);
            float *out = predict(&in, run, call);
            near_golden(name, out, want.v, want.n, limit);
            free(out), free(want.v);
        }
        weft_run_free(run);
        free_inputs(&in);
    }
    json_decref(index);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("adapter families against goldens");
    TCase *c = tcase_create("goldens");
    int files = 0;
    for (int k = 0; k < INDICES; k++) {
        json_t *index = json_load_file(data_path("golden/%s", indices[k]), 0, NULL); /* no test runs yet: no asserts */
        files += (int)listed(index, "files");
        json_decref(index);
    }
    tcase_set_timeout(c, 300);
    tcase_add_loop_test(c, a_family_is_what_its_library_computes, 0, files > 0 ? files : 1);
    tcase_add_loop_test(c, neighbours_take_turns, 0, INDICES * MODELS);
    tcase_add_loop_test(c, families_add_up_in_one_plan, 0, INDICES);
    tcase_add_loop_test(c, methods_know_no_families, 0, INDICES);
    if (getenv("WEFT_TABLE") != NULL) tcase_add_test(c, the_table_is_written);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
