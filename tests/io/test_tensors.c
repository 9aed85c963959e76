/* tensors: views built over other files and over memory of their own. */
#include "../base/support.h"
#include "io/io.h"

static weft_allocator plain;
static weft_error     err;

static void setup(void)
{
    plain = wf_allocator(NULL);
    memset(&err, 0, sizeof err);
}

static weft_tensors *fresh(const weft_allocator *a)
{
    weft_tensors *t;

    ck_assert_int_eq(wf_tensors_new(a, "view", &t, &err), WEFT_OK);
    return t;
}

static const int64_t two[1] = { 2 };

/* The fixture holds a = [1] and b = [2]; the view shows b as x, beside a tensor of its own, after the file is let go. */
START_TEST(a_view_keeps_what_it_shows)
{
    test_memory          m;
    weft_allocator       a = test_allocator(&m);
    weft_tensors_options o = WEFT_TENSORS_OPTIONS_INIT;
    weft_tensors        *file, *t = fresh(&a);
    float               *own, v[2], b;

    o.allocator = &a;
    ck_assert_int_eq(weft_tensors_open(test_path("data/fixtures/st_ok_unsorted.safetensors"), &o, &file, &err), WEFT_OK);
    ck_assert_int_eq(weft_tensors_read(file, (size_t)weft_tensors_find(file, "b"), &b, 1, &err), WEFT_OK);
    ck_assert_int_eq(wf_tensors_keep(t, file, &err), WEFT_OK);
    ck_assert_int_eq(wf_tensors_add_as(t, "x", wf_tensors_find(file, "b"), &err), WEFT_OK);
    own = wf_tensors_own(t, sizeof v, &err);
    ck_assert_uint_eq((uintptr_t)own % 64, 0);
    own[0] = 3;
    own[1] = 4;
    ck_assert_int_eq(wf_tensors_add(t, "c", WF_F32, 1, two, own, &err), WEFT_OK);
    ck_assert_int_eq(wf_tensors_add_meta(t, "z", "last", &err), WEFT_OK);
    ck_assert_int_eq(wf_tensors_add_meta(t, "m", "first", &err), WEFT_OK);
    ck_assert_ptr_null(wf_tensors_find(t, "x"));
    ck_assert_int_eq(wf_tensors_seal(t, &err), WEFT_OK);
    weft_tensors_free(file);

    ck_assert_int_eq(weft_tensors_find(t, "x"), 0);
    ck_assert_int_eq(weft_tensors_find(t, "c"), 1);
    ck_assert_int_eq(weft_tensors_read(t, 0, v, 1, &err), WEFT_OK);
    ck_assert_float_eq(b, 2);
    ck_assert_float_eq(v[0], 2);
    ck_assert_int_eq(weft_tensors_read(t, 1, v, 2, &err), WEFT_OK);
    ck_assert_float_eq(v[1], 4);
    ck_assert_str_eq(weft_tensors_metadata(t, "m"), "first");
    ck_assert_str_eq(wf_tensors_meta_key(t, 1), "z");
    ck_assert_str_eq(wf_tensors_what(t), "view");
    ck_assert_uint_gt(wf_tensors_file_size(t), 0);
    weft_tensors_free(t);
    ck_assert_uint_eq(m.live_blocks, 0);
}
END_TEST

START_TEST(names_never_move)
{
    weft_tensors *t = fresh(&plain);
    char          name[32];
    const char   *first;

    for (int i = 0; i < 5000; i++) {
        snprintf(name, sizeof name, "tensor.%d", i);
        ck_assert_int_eq(wf_tensors_add(t, name, WF_F16, 1, two, "abcd", &err), WEFT_OK);
        if (i == 0) first = wf_tensors_at(t, 0)->name;
    }
    ck_assert_int_eq(wf_tensors_seal(t, &err), WEFT_OK);
    ck_assert_ptr_eq(first, wf_tensors_at(t, 0)->name);
    ck_assert_int_eq(weft_tensors_find(t, "tensor.4321"), 4321);
    weft_tensors_free(t);
}
END_TEST

START_TEST(twice_the_same_name_is_refused)
{
    weft_tensors *t = fresh(&plain);

    ck_assert_int_eq(wf_tensors_add(t, "a", WF_F32, 1, two, "12345678", &err), WEFT_OK);
    ck_assert_int_eq(wf_tensors_add(t, "a", WF_F32, 0, NULL, "1234", &err), WEFT_OK);
    ck_assert_int_eq(wf_tensors_seal(t, &err), WEFT_E_FORMAT);
    ck_assert_str_eq(err.text, "view: two tensors are named \"a\"");
    weft_tensors_free(t);

    t = fresh(&plain);
    ck_assert_int_eq(wf_tensors_add_meta(t, "k", "1", &err), WEFT_OK);
    ck_assert_int_eq(wf_tensors_add_meta(t, "k", "2", &err), WEFT_OK);
    ck_assert_int_eq(wf_tensors_seal(t, &err), WEFT_E_FORMAT);
    ck_assert_str_eq(err.text, "view: two metadata values are named \"k\"");
    weft_tensors_free(t);
}
END_TEST

START_TEST(a_shape_is_checked)
{
    const int64_t negative[2] = { 2, -1 }, huge[2] = { INT64_MAX, 4 }, bits[1] = { INT64_MAX }, odd[1] = { 3 };
    weft_tensors *t = fresh(&plain);

    ck_assert_int_eq(wf_tensors_add(t, "n", WF_F32, 2, negative, "", &err), WEFT_E_FORMAT);
    ck_assert_str_eq(err.text, "view: tensor \"n\": its shape has a negative value");
    ck_assert_int_eq(wf_tensors_add(t, "h", WF_F32, 2, huge, "", &err), WEFT_E_FORMAT);
    ck_assert_str_eq(err.text, "view: tensor \"h\": the product of its shape does not fit 64 bits");
    ck_assert_int_eq(wf_tensors_add(t, "b", WF_F32, 1, bits, "", &err), WEFT_E_FORMAT);
    ck_assert_str_eq(err.text, "view: tensor \"b\": its size in bits does not fit 64 bits");
    ck_assert_int_eq(wf_tensors_add(t, "o", WF_F4, 1, odd, "", &err), WEFT_E_FORMAT);
    ck_assert_str_eq(err.text, "view: tensor \"o\": its size is not whole bytes");
    ck_assert_int_eq(wf_tensors_add(t, "r", WF_F32, 9, huge, "", &err), WEFT_E_FORMAT);
    ck_assert_str_eq(err.text, "view: tensor \"r\": rank 9, expected at most 8");
    ck_assert_int_eq(wf_tensors_seal(t, &err), WEFT_OK);
    ck_assert_int_eq(wf_tensors_add(t, "late", WF_F32, 0, NULL, "1234", &err), WEFT_E_INTERNAL);
    weft_tensors_free(t);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tensors");
    TCase *c = tcase_create("all");

    tcase_add_checked_fixture(c, setup, NULL);
    tcase_add_test(c, a_view_keeps_what_it_shows);
    tcase_add_test(c, names_never_move);
    tcase_add_test(c, twice_the_same_name_is_refused);
    tcase_add_test(c, a_shape_is_checked);
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
