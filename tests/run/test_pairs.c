/* Every method with every adapter family.
 *
 * Of each family that the files of tests/data/families have, one acts under each method beside a LoRA
 * that is everywhere: by the side path and by merged copies, with the table that follows from the
 * options, and with the predictions of naive.h's network where the family's differences are matrices
 * on the weights. test_families.c holds those matrices to the libraries that made the files. What a
 * method cannot do with a file is refused in a line. */
#include "naive_plans.h"

enum { FILES = 64 };

/* One file of each family. */
typedef struct chosen_file { char family[32], path[160]; } chosen_file;

static chosen_file   files[FILES];
static int           file_count;
static naive_adapter everywhere;

static const char *word(json_t *o, const char *key)
{
    const char *v = json_string_value(json_object_get(o, key));
    return v != NULL ? v : "";
}

static bool known(const char *family)
{
    for (int i = 0; i < file_count; i++)
        if (strcmp(files[i].family, family) == 0) return true;
    return false;
}

/* Before any test runs, so without assertions. */
static void list_files(void)
{
    static const char *const indices[] = { "families.json", "families_peft.json", "families_peft2.json" };
    for (int k = 0; k < 3; k++) {
        json_t *index = json_load_file(data_path("golden/%s", indices[k]), 0, NULL), *entry;
        size_t  i;
        json_array_foreach(json_object_get(index, "files"), i, entry) {
            const char *family = word(entry, "family");
            bool        unet = json_integer_value(json_object_get(entry, "unet")) > 0;
            if (strcmp(word(entry, "model"), "tiny-sd1") != 0 || !unet || known(family) || file_count == FILES) continue;
            chosen_file *f = &files[file_count++];
            snprintf(f->family, sizeof f->family, "%s", family);
            snprintf(f->path, sizeof f->path, "%s", word(entry, "path"));
        }
        json_decref(index);
    }
}

/* From (out, ky, kx, in) to (out, in, ky, kx), and wider. */
static double *as_stored(const float *v, const wf_layer *l)
{
    size_t  in = (size_t)l->in, taps = (size_t)(l->kernel * l->kernel), out = (size_t)l->out;
    double *d = naive_zeros(out * in * taps);
    for (size_t o = 0; o < out; o++)
        for (size_t i = 0; i < in; i++)
            for (size_t k = 0; k < taps; k++) d[(o * in + i) * taps + k] = (double)v[(o * taps + k) * in + i];
    return d;
}

static void read_layer(naive_adapter *a, const weft_plan *plan, size_t id)
{
    const weft_allocator heap = wf_allocator(NULL);
    const wf_layer      *l = &net.layers[id];
    int32_t              count;
    const wf_slice      *slice = wf_plan_slices(plan, 0, (int32_t)id, &count);
    float               *d = calloc((size_t)l->out * naive_columns(l), sizeof *d), *b = calloc((size_t)l->out, sizeof *b);

    a->family[id] = count > 0 ? 0 : -1;
    for (int32_t i = 0; i < count; i++) {
        const wf_module *m = wf_adapter_module(plan->entry[0].bound->adapter, (size_t)slice[i].module);
        bool             any;
        must(wf_slice_add(&slice[i], m, l, (double)m->scale, 1, 1, d, &heap, &golden_err));
        must(wf_slice_add_bias(&slice[i], m, l, (double)m->scale, 1, b, &any, &heap, &golden_err));
        a->rank[id] += m->rank;
    }
    if (count > 0) {
        a->w[id] = as_stored(d, l);
        a->b[id] = naive_widen(b, (size_t)l->out);
    }
    free(d), free(b);
}

static naive_adapter read_file(const char *path)
{
    naive_adapter a = { 0 };
    weft_plan    *plan;

    a.family = calloc(net.count, sizeof *a.family);
    a.rank = calloc(net.count, sizeof *a.rank);
    a.w = calloc(net.count, sizeof *a.w);
    a.b = calloc(net.count, sizeof *a.b);
    must(weft_adapter_open(data_path("%s", path), NULL, &a.handle, &golden_err));
    must(weft_plan_create(model, NULL, &plan, &golden_err));
    must(weft_plan_add(plan, a.handle, 1, NULL, &golden_err));
    for (size_t l = 0; l < net.count; l++) read_layer(&a, plan, l);
    weft_plan_free(plan);
    return a;
}

static void set_part(part *p, naive_adapter *of, float weight, int role)
{
    *p = (part){ .of = of, .weight = weight, .text = weight, .share = 1, .role = role, .mh = 2, .mw = 3 };
    for (int i = 0; i < 6; i++) p->mask[i] = (float)i / 5;
    p->mask_text = 0.5;
}

static spec spec_of(naive_adapter *a, int method, int32_t path)
{
    spec   s = { .seed = (uint64_t)method + 1, .adapters = 2, .phases = 1, .calls = 4, .path = path };
    phase *p = &s.phase[0];

    set_part(&s.part[0], a, 0.8f, WEFT_ROLE_CONTENT);
    set_part(&s.part[1], &everywhere, 0.6f, WEFT_ROLE_STYLE);
    s.part[0].masked = method == BLEND;
    s.balanced = method == MERGE;
    s.balance = (weft_balance_options)WEFT_BALANCE_OPTIONS_INIT;
    *p = (phase){ .method = method, .end = s.calls };
    p->sw = (weft_switch_options)WEFT_SWITCH_OPTIONS_INIT;
    p->sw.period = 1;
    p->composite = (weft_composite_options)WEFT_COMPOSITE_OPTIONS_INIT;
    p->klora = (weft_klora_options)WEFT_KLORA_OPTIONS_INIT;
    p->zip = (weft_zip_options)WEFT_ZIP_OPTIONS_INIT;
    p->blora = (weft_blora_options)WEFT_BLORA_OPTIONS_INIT;
    p->blend = (weft_blend_options)WEFT_BLEND_OPTIONS_INIT;
    p->loratorio = (weft_loratorio_options)WEFT_LORATORIO_OPTIONS_INIT;
    p->loratorio.patch = 2;
    p->subbands = (weft_subbands_options)WEFT_SUBBANDS_OPTIONS_INIT;
    return s;
}

/* Has the file something where B-LoRA has content in this model: all but the finest level? */
static bool has_content(const naive_adapter *a)
{
    for (size_t l = 0; l < net.count; l++)
        if (of_unet(l) && a->family[l] >= 0 && !glob("unet.down_blocks.0.*", net.layers[l].name) &&
            !glob("unet.up_blocks.2.*", net.layers[l].name) && glob("unet.*_block*.*", net.layers[l].name) &&
            !glob("unet.down_blocks.2.*", net.layers[l].name) && !glob("unet.up_blocks.0.*", net.layers[l].name))
            return true;
    return false;
}

static void check_refused(spec *s)
{
    weft_plan *plan = build(s);
    ck_assert_int_eq(weft_plan_seal(plan, s->calls, &golden_err), WEFT_E_MISMATCH);
    ck_assert_ptr_nonnull(strstr(golden_err.text, "has nothing in"));
    ck_assert_ptr_null(strchr(golden_err.text, '\n'));
    weft_plan_free(plan);
}

START_TEST(every_method_takes_every_family)
{
    naive_adapter a = read_file(files[_i].path);

    for (int method = 0; method < METHODS; method++)
        for (int32_t path = WEFT_PATH_SIDE; path <= WEFT_PATH_MERGED; path++) {
            spec s = spec_of(&a, method, path);
            if (method == BLORA && !has_content(&a)) {
                check_refused(&s);
                continue;
            }
            check_plan(&s, 2); /* switch: the file's own turn */
            s = spec_of(&a, method, path);
            check_plan(&s, 3);
        }
    naive_adapter_free(&a, net.count);
}
END_TEST

/* By itself, from a copy of every weight that it changes. */
START_TEST(every_family_is_merged)
{
    naive_adapter a = read_file(files[_i].path);
    spec          s = spec_of(&a, MERGE, WEFT_PATH_MERGED);
    int           matrices = 0;

    s.adapters = 1;
    s.balanced = false;
    check_plan(&s, 0);
    weft_plan     *plan = build(&s);
    weft_plan_info info = WEFT_PLAN_INFO_INIT;
    must(weft_plan_seal(plan, 1, &golden_err));
    must(weft_plan_info_get(plan, &info, &golden_err));
    for (size_t l = 0; l < net.count; l++) matrices += is_matrix(l) && a.family[l] >= 0;
    ck_assert_int_eq(info.merged_layers, matrices);
    weft_plan_free(plan);
    naive_adapter_free(&a, net.count);
}
END_TEST

static void setup(void)
{
    open_all();
    everywhere = naive_make(&net, model, "everywhere", F_LORA, 1, 4711);
}

static void teardown(void)
{
    naive_adapter_free(&everywhere, net.count);
    close_all();
}

START_TEST(the_families_are_all_there)
{
    ck_assert_int_ge(file_count, 25);
    ck_assert(known("LoRA") && known("DoRA") && known("norm") && known("RandLoRA") && known("replacement"));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("methods and families");
    TCase *c = tcase_create("pairs");
    list_files();
    tcase_set_timeout(c, 300);
    tcase_add_unchecked_fixture(c, setup, teardown);
    tcase_add_test(c, the_families_are_all_there);
    tcase_add_loop_test(c, every_method_takes_every_family, 0, file_count);
    tcase_add_loop_test(c, every_family_is_merged, 0, file_count);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
