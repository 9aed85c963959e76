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

int main(void)
{
    Suite *suite = suite_create("torch");
    TCase *c = tcase_create("fixtures");

    tcase_add_checked_fixture(c, setup, NULL);
    tcase_add_test(c, a_dict_of_tensors);
    tcase_add_test(c, dicts_within_dicts_have_dotted_names);
    tcase_add_test(c, a_parameter_dict_is_a_dict);
    tcase_add_test(c, a_list_numbers_its_tensors);
    tcase_add_test(c, views_are_made_dense);
    tcase_add_test(c, the_form_before_zip);
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
