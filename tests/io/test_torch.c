/* torch.save's files: every fixture read as it was written. */
#include "../base/support.h"
#include "io/io.h"

static weft_allocator plain;
static weft_error     err;

static void setup(void)
{
    plain = wf_allocator(NULL);
    memset(&err, 0, sizeof err);
}

static weft_tensors *opened(const char *file)
{
    weft_tensors *t;
    char          path[512];

    snprintf(path, sizeof path, "data/%s", file);
    ck_assert_msg(weft_tensors_open(test_path(path), NULL, &t, &err) == WEFT_OK, "%s", err.text);
    return t;
}

/* The tensor has this type and shape, and its elements are first, first + step, ... */
static void holds(const weft_tensors *t, const char *name, const char *dtype, const char *shape, float first, float step)
{
    const wf_tensor *x = wf_tensors_find(t, name);
    wf_shape_text    text;
    float            v[64];

    ck_assert_msg(x != NULL, "no %s", name);
    ck_assert_str_eq(wf_dtype_name(x->dtype), dtype);
    ck_assert_str_eq(wf_shape(&text, x->shape, x->rank), shape);
    ck_assert_uint_le(x->count, WF_LEN(v));
    ck_assert_int_eq(weft_tensors_read(t, (size_t)weft_tensors_find(t, name), v, x->count, &err), WEFT_OK);
    for (size_t i = 0; i < x->count; i++)
        ck_assert_msg(v[i] == first + step * (float)i, "%s[%zu] is %f", name, i, (double)v[i]);
}

static void says(const weft_tensors *t, const char *key, const char *value)
{
    const char *found = weft_tensors_metadata(t, key);

    ck_assert_msg(found != NULL && strcmp(found, value) == 0, "%s is %s", key, found != NULL ? found : "absent");
}

static void has(weft_tensors *t, size_t tensors, size_t metas)
{
    ck_assert_uint_eq(wf_tensors_count(t), tensors);
    ck_assert_uint_eq(wf_tensors_meta_count(t), metas);
    weft_tensors_free(t);
}

START_TEST(a_dict_of_tensors)
{
    weft_tensors *t = opened("fixtures/ti_diffusers.bin");

    holds(t, "<cat-toy>", "F32", "(8,)", -1, 0.5f);
    has(t, 1, 0);
}
END_TEST

START_TEST(dicts_within_dicts_have_dotted_names)
{
    weft_tensors *t = opened("fixtures/ti_a1111.pt");

    holds(t, "string_to_param.*", "F32", "(2, 8)", -1, 0.5f);
    says(t, "name", "mystyle");
    says(t, "step", "1500");
    says(t, "string_to_token.*", "265");
    has(t, 1, 5);
}
END_TEST

START_TEST(a_parameter_dict_is_a_dict)
{
    weft_tensors *t = opened("fixtures/ti_compvis_parameterdict.pt");

    holds(t, "string_to_token.*", "I64", "()", 265, 0);
    holds(t, "string_to_param.*", "F32", "(2, 8)", -1, 0.5f);
    has(t, 2, 0);
}
END_TEST

START_TEST(a_list_numbers_its_tensors)
{
    weft_tensors *t = opened("fixtures/cloneofsimo_list.pt");

    says(t, "weft.root", "list");
    holds(t, "0", "F32", "(6, 2)", -1, 0.5f);
    holds(t, "1", "F32", "(2, 5)", 0, 0.5f);
    holds(t, "2", "F16", "(4, 2)", 1, 0.5f);
    holds(t, "3", "F16", "(2, 3)", 2, 0.5f);
    has(t, 4, 1);
}
END_TEST

/* t is the transpose of the 3x4 matrix 1, 1.5, ...: its first row is elements 0, 4 and 8. */
START_TEST(views_are_made_dense)
{
    weft_tensors *t = opened("fixtures/sd_ckpt_like.ckpt");
    float         v[12];

    holds(t, "state_dict.model.diffusion_model.a.weight", "F32", "(3, 4)", -1, 0.5f);
    holds(t, "state_dict.b", "BF16", "(3, 4)", 0, 0.5f);
    holds(t, "state_dict.view", "F32", "(4,)", 4, 0.5f);
    holds(t, "state_dict.n", "I64", "()", 7, 0);
    ck_assert_int_eq(weft_tensors_read(t, (size_t)weft_tensors_find(t, "state_dict.t"), v, 12, &err), WEFT_OK);
    for (int i = 0; i < 12; i++) ck_assert_float_eq(v[i], 1 + 0.5f * (float)(i % 3 * 4 + i / 3));
    says(t, "epoch", "6");
    says(t, "global_step", "470000");
    says(t, "pytorch-lightning_version", "1.4.2");
    has(t, 5, 3);
}
END_TEST

START_TEST(the_form_before_zip)
{
    weft_tensors *t = opened("fixtures/legacy_format.pt");

    holds(t, "w", "F32", "(2, 3)", -1, 0.5f);
    holds(t, "h", "F16", "(4,)", 0, 0.5f);
    has(t, 2, 0);
}
END_TEST

/* ---- what torch wrote, against what torch had in memory ---- */

static const char *const written[] = {
    "zip_types.pt", "zip_views.pt", "zip_checkpoint.ckpt", "zip_protocol4.pt", "zip_protocol5.pt", "zip_tuple.pt",
    "zip_tensor.pt", "legacy_types.pt", "legacy_views.pt", "legacy_checkpoint.ckpt",
};

static void check_tensor(const wf_tensor *x, const weft_tensors *expected, const char *file)
{
    char             name[256];
    const wf_tensor *want;

    snprintf(name, sizeof name, "%s:%s", file, x->name);
    want = wf_tensors_find(expected, name);
    ck_assert_msg(want != NULL, "%s should not be there", name);
    ck_assert_msg(x->dtype == want->dtype && x->rank == want->rank, "%s: type or rank", name);
    ck_assert_msg(memcmp(x->shape, want->shape, sizeof x->shape) == 0, "%s: shape", name);
    ck_assert_msg(x->bytes == want->bytes && (x->bytes == 0 || memcmp(x->data, want->data, x->bytes) == 0), "%s: data",
                  name);
}

START_TEST(what_torch_wrote_is_what_torch_had)
{
    const char   *file = written[_i], *key;
    char          path[256];
    json_t       *list, *entry, *value;
    weft_tensors *expected = opened("torch/expected.safetensors"), *t;

    ck_assert_int_eq(wf_json_load(&list, test_path("data/torch/expected.json"), &plain, &err), WEFT_OK);
    entry = json_object_get(list, file);
    for (int copy = 0; copy < 2; copy++) {
        snprintf(path, sizeof path, "data/torch/%s", file);
        ck_assert_msg(wf_tensors_open(test_path(path), copy == 1, &plain, &t, &err) == WEFT_OK, "%s", err.text);
        ck_assert_int_eq((json_int_t)wf_tensors_count(t), json_integer_value(json_object_get(entry, "tensors")));
        for (size_t i = 0; i < wf_tensors_count(t); i++) check_tensor(wf_tensors_at(t, i), expected, file);
        json_object_foreach(json_object_get(entry, "metadata"), key, value) says(t, key, json_string_value(value));
        ck_assert_uint_eq(wf_tensors_meta_count(t), json_object_size(json_object_get(entry, "metadata")));
        weft_tensors_free(t);
    }
    weft_tensors_free(expected);
    json_decref(list);
}
END_TEST

/* The matrix that lies as it should points into the file; its transpose cannot. */
START_TEST(only_what_must_be_copied_is)
{
    wf_file       f = WF_FILE_NONE;
    weft_tensors *t;
    const uint8_t *base, *transposed, *row;

    ck_assert_int_eq(wf_file_open(&f, test_path("data/torch/zip_views.pt"), false, &plain, &err), WEFT_OK);
    ck_assert_int_eq(wf_tensors_parse(f.data, f.size, "f", &plain, &t, &err), WEFT_OK);
    base       = wf_tensors_find(t, "base")->data;
    row        = wf_tensors_find(t, "row")->data;
    transposed = wf_tensors_find(t, "transposed")->data;
    ck_assert(base > f.data && base < f.data + f.size);
    ck_assert_ptr_eq(row, base + 2 * 6 * 4);
    ck_assert_ptr_eq(wf_tensors_find(t, "twice")->data, base);
    ck_assert(transposed < f.data || transposed >= f.data + f.size);
    weft_tensors_free(t);
    wf_file_close(&f, &plain);
}
END_TEST

START_TEST(what_holds_no_tensors_is_refused)
{
    static const struct { const char *file, *text; } cases[] = {
        { "whole_module.pt", "an object of class torch.nn.modules.linear.Linear, saved whole; a dict of tensors" },
        { "string.pt",       "no tensors; a dict of them is expected" },
        { "torchscript.pt",  "is compressed, as only TorchScript programs are" },
    };

    for (size_t i = 0; i < WF_LEN(cases); i++) {
        char          path[256];
        weft_tensors *t;

        snprintf(path, sizeof path, "data/torch/%s", cases[i].file);
        ck_assert_int_eq(weft_tensors_open(test_path(path), NULL, &t, &err), WEFT_E_UNSUPPORTED);
        check_one_line(&err);
        ck_assert_msg(strstr(err.text, cases[i].text) != NULL, "%s", err.text);
    }
}
END_TEST

START_TEST(every_allocation_may_fail)
{
    static const char *const files[] = { "zip_checkpoint.ckpt", "legacy_checkpoint.ckpt", "zip_views.pt" };
    char        path[256];
    weft_status st;
    size_t      n = 0;

    snprintf(path, sizeof path, "data/torch/%s", files[_i]);
    do {
        test_memory    m;
        weft_allocator a = test_allocator(&m);
        weft_tensors  *t;

        m.fail_at = ++n;
        st = wf_tensors_open(test_path(path), false, &a, &t, &err);
        if (st != WEFT_OK) { ck_assert_int_eq(st, WEFT_E_NOMEM); ck_assert_ptr_null(t); check_one_line(&err); }
        weft_tensors_free(t);
        ck_assert_uint_eq(m.live_blocks, 0);
    } while (st != WEFT_OK);
    ck_assert_uint_ge(n, 10);
}
END_TEST

/* From a pickle into a safetensors file in the types that it has, and back: nothing is changed. */
START_TEST(what_is_read_can_be_written_as_it_is)
{
    weft_tensors *t = opened("torch/zip_types.pt"), *back;
    wf_tensor     list[20], wrong;
    char          path[512];
    const char   *dir = test_dir();
    const char   *meta[] = { "from", "torch" };

    snprintf(path, sizeof path, "%s/a.safetensors", dir);
    ck_assert_uint_le(wf_tensors_count(t), WF_LEN(list));
    for (size_t i = 0; i < wf_tensors_count(t); i++) list[i] = *wf_tensors_at(t, i);
    ck_assert_int_eq(wf_tensors_write_as_stored(path, list, wf_tensors_count(t), meta, 1, &plain, &err), WEFT_OK);
    ck_assert_int_eq(wf_tensors_open(path, false, &plain, &back, &err), WEFT_OK);
    says(back, "from", "torch");
    ck_assert_uint_eq(wf_tensors_count(back), wf_tensors_count(t));
    for (size_t i = 0; i < wf_tensors_count(t); i++) {
        const wf_tensor *b = wf_tensors_find(back, list[i].name);

        ck_assert_ptr_nonnull(b);
        ck_assert_int_eq(b->dtype, list[i].dtype);
        ck_assert_uint_eq(b->bytes, list[i].bytes);
        ck_assert_int_eq(memcmp(b->shape, list[i].shape, sizeof b->shape), 0);
        ck_assert_int_eq(memcmp(b->data, list[i].data, b->bytes), 0);
    }
    weft_tensors_free(back);
    unlink(path);

    wrong = list[0];
    wrong.bytes--;
    ck_assert_int_eq(wf_tensors_write_as_stored(path, &wrong, 1, NULL, 0, &plain, &err), WEFT_E_ARG);
    ck_assert_ptr_nonnull(strstr(err.text, "are not what its shape and type need"));
    wrong = list[0];
    wrong.name = "__metadata__";
    ck_assert_int_eq(wf_tensors_write_as_stored(path, &wrong, 1, NULL, 0, &plain, &err), WEFT_E_ARG);
    ck_assert_ptr_nonnull(strstr(err.text, "cannot be a name"));
    test_rmdir(dir);
    weft_tensors_free(t);
}
END_TEST

/* No prefix of a valid file opens, and none of them makes anybody read past its end. */
START_TEST(no_truncated_file_opens)
{
    char    path[256];
    wf_file f = WF_FILE_NONE;

    snprintf(path, sizeof path, "data/torch/%s", written[_i]);
    ck_assert_int_eq(wf_file_open(&f, test_path(path), false, &plain, &err), WEFT_OK);
    for (size_t n = 0; n < f.size; n += f.size > 8192 ? 11 : 1) {
        uint8_t      *exact = malloc(n + 1);
        weft_tensors *t;

        memcpy(exact + 1, f.data, n);
        ck_assert_msg(wf_tensors_parse(exact + 1, n, "cut", &plain, &t, &err) != WEFT_OK, "opens when cut at %zu", n);
        check_one_line(&err);
        free(exact);
    }
    wf_file_close(&f, &plain);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("torch");
    TCase *c = tcase_create("fixtures"), *w = tcase_create("written");

    tcase_add_checked_fixture(c, setup, NULL);
    tcase_add_test(c, a_dict_of_tensors);
    tcase_add_test(c, dicts_within_dicts_have_dotted_names);
    tcase_add_test(c, a_parameter_dict_is_a_dict);
    tcase_add_test(c, a_list_numbers_its_tensors);
    tcase_add_test(c, views_are_made_dense);
    tcase_add_test(c, the_form_before_zip);
    suite_add_tcase(suite, c);

    tcase_set_timeout(w, 60);
    tcase_add_checked_fixture(w, setup, NULL);
    tcase_add_loop_test(w, what_torch_wrote_is_what_torch_had, 0, WF_LEN(written));
    tcase_add_test(w, only_what_must_be_copied_is);
    tcase_add_test(w, what_holds_no_tensors_is_refused);
    tcase_add_test(w, what_is_read_can_be_written_as_it_is);
    tcase_add_loop_test(w, every_allocation_may_fail, 0, 3);
    tcase_add_loop_test(w, no_truncated_file_opens, 0, WF_LEN(written));
    suite_add_tcase(suite, w);
    return run_suite(suite);
}
