/* Adapters written in each spelling and read again: every layer gets the same difference, bit for bit, from every file of
 * the families' goldens. Where a spelling has no form for a family the refusal names both. */
#include <sys/stat.h>

#include "modules.h"

#include "../golden.h"

static json_t *files; /* of families.json: name, path, model */

static const char *const namings[] = { "", "kohya", "diffusers", "PEFT" };

static weft_model *model_of(const json_t *file)
{
    weft_model *m = NULL;
    weft_status st = weft_model_open(data_path("models/%s", json_string_value(json_object_get(file, "model"))), NULL, &m, &err);

    ck_assert_msg(st == WEFT_OK, "%s", err.text);
    return m;
}

static weft_adapter *opened(const char *path)
{
    weft_adapter *a = NULL;

    ck_assert_msg(weft_adapter_open(path, NULL, &a, &err) == WEFT_OK, "%s", err.text);
    return a;
}

static weft_report *bound(weft_model *m, weft_adapter *a)
{
    weft_report *r = NULL;

    ck_assert_msg(weft_report_create(m, a, &r, &err) == WEFT_OK, "%s", err.text);
    ck_assert_msg(wf_report_verdict(r, false, &err) == WEFT_OK, "%s", err.text);
    return r;
}

/* Norms of LyCORIS' and PEFT's DoRA differ by the smallest step of a float. */
static bool same_values(const float *a, const float *b, size_t n, bool near)
{
    if (!near) return memcmp(a, b, n * sizeof *a) == 0;
    return relative(a, b, n, NULL) < 1e-6;
}

/* What module `m` adds to its layer, then what it adds to its bias. */
static float *sums_of(const wf_module *m, const wf_layer *l, size_t *n)
{
    size_t floats = (size_t)l->out * (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel;
    float *sum = calloc(floats + (size_t)l->out, sizeof *sum);
    bool   any;

    ck_assert_msg(wf_module_add(m, l, (double)m->scale, 1, 0.7, sum, heap(), &err) == WEFT_OK, "%s", err.text);
    ck_assert_int_eq(wf_module_add_bias(m, l, (double)m->scale, 0.7, sum + floats, &any, &err), WEFT_OK);
    *n = floats + (size_t)l->out;
    return sum;
}

/* `b`, perhaps one of several that the folder holds, has modules that add what a's add. Counts them. */
static size_t compare(weft_model *model, weft_adapter *a, weft_adapter *b)
{
    weft_report    *ra = bound(model, a), *rb = bound(model, b);
    const int64_t  *la = wf_report_layers(ra), *lb = wf_report_layers(rb);
    size_t          layers, n;
    const wf_layer *layer = wf_model_layers(model, &layers);

    for (size_t j = 0; j < b->count; j++) {
        size_t i = 0;
        while (i < a->count && la[i] != lb[j]) i++;
        ck_assert_msg(i < a->count, "%s was not there before", b->modules[j].key);
        const wf_module *x = &a->modules[i], *y = &b->modules[j];
        float           *one = sums_of(x, &layer[la[i]], &n), *other = sums_of(y, &layer[la[i]], &n);
        ck_assert_msg(same_values(one, other, n, x->part[WF_PART_MAGNITUDE] != NULL && x->peft != y->peft),
                      "%s, once %s, adds something else (%g)", y->key, x->key, relative(one, other, n, NULL));
        ck_assert_float_eq(x->scale, y->scale);
        free(one);
        free(other);
    }
    size_t count = b->count;
    weft_report_free(ra);
    weft_report_free(rb);
    return count;
}

static void remove_in(const char *dir, const char *name)
{
    char path[700];
    ck_assert_int_lt(snprintf(path, sizeof path, "%s/%s", dir, name), (int)sizeof path);
    remove(path);
}

/* Open what was written, compare, and take it away again. */
static size_t compare_written(weft_model *model, weft_adapter *a, const char *path, int32_t naming)
{
    static const char *const components[] = { "unet", "text_encoder", "text_encoder_2" };
    size_t count = 0;

    if (naming != WEFT_NAMING_PEFT) {
        weft_adapter *b = opened(path);
        count = compare(model, a, b);
        weft_adapter_free(b);
        remove(path);
        return count;
    }
    for (size_t i = 0; i < WF_LEN(components); i++) {
        char folder[600];
        snprintf(folder, sizeof folder, "%s/%s", path, components[i]);
        if (access(folder, F_OK) != 0) continue;
        weft_adapter *b = opened(folder);
        count += compare(model, a, b);
        weft_adapter_free(b);
        remove_in(folder, "adapter_config.json");
        remove_in(folder, "adapter_model.safetensors");
        rmdir(folder);
    }
    rmdir(path);
    return count;
}

/* Write file `index` in one spelling, read it again and compare; false where the spelling has no form for it. */
static bool round_trip(size_t index, int32_t naming)
{
    const json_t     *file = json_array_get(files, index);
    const char       *name = json_string_value(json_object_get(file, "name")), *dir = test_dir();
    weft_save_options o = WEFT_SAVE_OPTIONS_INIT;
    weft_model       *model = model_of(file);
    weft_adapter     *a = NULL;
    char              path[300];

    o.naming = naming;
    snprintf(path, sizeof path, "%s/saved.safetensors", dir);
    weft_status st = weft_adapter_open(data_path("%s", json_string_value(json_object_get(file, "path"))), NULL, &a, &err);
    if (st == WEFT_OK) st = weft_adapter_save(a, model, path, &o, &err);
    if (getenv("GOLDEN_SHOW") != NULL)
        printf("%-22s %-9s %s\n", name, namings[naming], st == WEFT_OK ? "written" : err.text);
    if (st == WEFT_OK) ck_assert_uint_eq(compare_written(model, a, path, naming), a->count);
    else if (st == WEFT_E_UNSUPPORTED && a != NULL)
        ck_assert_msg(strstr(err.text, namings[naming]) != NULL, "%s", err.text);
    if (st != WEFT_OK) rmdir(path);
    test_rmdir(dir); /* nothing of it is left */
    weft_adapter_free(a);
    weft_model_free(model);
    return st == WEFT_OK;
}

START_TEST(what_is_written_is_read_again)
{
    round_trip((size_t)_i / 3, _i % 3 + 1);
}
END_TEST

/* So that a spelling that refuses everything is not one that passes: of these three all have files. */
START_TEST(spellings_have_what_is_theirs)
{
    static const struct { const char *family, *namings; } rows[] = {
        { "LoRA", "123" }, { "DoRA", "123" }, { "LoHa", "13" }, { "LoKr", "13" }, { "AdaLoRA", "123" }, { "OFT", "13" },
        { "BOFT", "13" }, { "(IA)^3", "13" }, { "GLoRA", "1" }, { "full", "1" }, { "MoSLoRA", "123" },
    };

    for (size_t r = 0; r < WF_LEN(rows); r++)
        for (const char *n = rows[r].namings; *n != '\0'; n++) {
            size_t written = 0;
            for (size_t i = 0; i < json_array_size(files) && written == 0; i++) {
                const char *family = json_string_value(json_object_get(json_array_get(files, i), "family"));
                if (strcmp(family, rows[r].family) == 0) written += round_trip(i, *n - '0');
            }
            ck_assert_msg(written > 0, "no file of %s is written in %s naming", rows[r].family, namings[*n - '0']);
        }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("adapter: saving");
    TCase *t = tcase_create("every family in every spelling");

    json_t *index = json_load_file(data_path("golden/families.json"), 0, NULL);
    if (index == NULL) return EXIT_FAILURE;
    files = json_object_get(index, "files");
    tcase_add_loop_test(t, what_is_written_is_read_again, 0, 3 * (int)json_array_size(files));
    tcase_add_test(t, spellings_have_what_is_theirs);
    tcase_set_timeout(t, 60);
    suite_add_tcase(s, t);
    int failed = run_suite(s);
    json_decref(index);
    return failed;
}
