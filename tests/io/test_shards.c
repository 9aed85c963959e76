/* Sharded checkpoints: two files and an index, and what an index may not say. */
#include "../base/support.h"
#include "io/io.h"

static weft_allocator plain;
static weft_error     err;
static char           dir[256], path[512], one[512], two[512];

static void write_shard(const char *file, const char *name, float value, const char *other)
{
    static const char *const meta[] = { "format", "pt" };
    const float              values[] = { value, 99 };
    weft_tensor_out          t[2];

    memset(t, 0, sizeof t);
    for (int i = 0; i < 2; i++) {
        t[i].struct_size = sizeof t[i];
        t[i].name = i == 0 ? name : other;
        t[i].data = &values[i];
    }
    ck_assert_int_eq(weft_tensors_write(file, t, other != NULL ? 2 : 1, meta, 1, &err), WEFT_OK);
}

/* a is in the first, b in the second, which has c besides; each time at 1, 2, 99. */
static void setup(void)
{
    plain = wf_allocator(NULL);
    snprintf(dir, sizeof dir, "%s", test_dir());
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
    snprintf(one, sizeof one, "%s/model-1.safetensors", dir);
    snprintf(two, sizeof two, "%s/model-2.safetensors", dir);
    write_shard(one, "a", 1, NULL);
    write_shard(two, "b", 2, "c");
}

static void teardown(void)
{
    unlink(path);
    unlink(one);
    unlink(two);
    test_rmdir(dir);
}

static weft_status open_with(const char *weight_map, weft_tensors **t)
{
    char text[2000];

    snprintf(text, sizeof text, "{\"metadata\": {\"total_size\": 12}, \"weight_map\": %s}", weight_map);
    ck_assert_int_eq(wf_file_write(path, text, strlen(text), &err), WEFT_OK);
    return wf_tensors_open_index(path, false, &plain, t, &err);
}

static void refuses(const char *weight_map, weft_status code, const char *text)
{
    weft_tensors *t;

    ck_assert_int_eq(open_with(weight_map, &t), code);
    ck_assert_ptr_null(t);
    check_one_line(&err);
    ck_assert_msg(strstr(err.text, text) != NULL, "\"%s\" does not say \"%s\"", err.text, text);
}

static void holds(const weft_tensors *t, const char *name, float value)
{
    float v;

    ck_assert_int_ge(weft_tensors_find(t, name), 0);
    ck_assert_int_eq(weft_tensors_read(t, (size_t)weft_tensors_find(t, name), &v, 1, &err), WEFT_OK);
    ck_assert_float_eq(v, value);
}

START_TEST(two_files_are_one)
{
    weft_tensors *t;

    ck_assert_msg(open_with("{\"b\": \"model-2.safetensors\", \"a\": \"model-1.safetensors\"}", &t) == WEFT_OK, "%s",
                  err.text);
    ck_assert_uint_eq(wf_tensors_count(t), 3);
    holds(t, "a", 1);
    holds(t, "b", 2);
    holds(t, "c", 99);  /* not listed, and there all the same */
    ck_assert_str_eq(weft_tensors_metadata(t, "format"), "pt");
    ck_assert_uint_gt(wf_tensors_file_size(t), 100);
    weft_tensors_free(t);
}
END_TEST

/* Both files have an a; the index says which counts. */
START_TEST(the_index_chooses)
{
    weft_tensors *t;

    write_shard(two, "b", 2, "a");
    ck_assert_int_eq(open_with("{\"b\": \"model-2.safetensors\", \"a\": \"model-1.safetensors\"}", &t), WEFT_OK);
    ck_assert_uint_eq(wf_tensors_count(t), 2);
    holds(t, "a", 1);
    weft_tensors_free(t);
}
END_TEST

START_TEST(what_is_not_there_is_named)
{
    refuses("{\"a\": \"model-1.safetensors\", \"x\": \"model-2.safetensors\"}", WEFT_E_FORMAT,
            "index.json: tensor \"x\" is not in model-2.safetensors");
    refuses("{\"b\": \"model-1.safetensors\", \"a\": \"model-2.safetensors\"}", WEFT_E_FORMAT, " is not in model-");
    refuses("{\"a\": \"model-3.safetensors\"}", WEFT_E_IO, "model-3.safetensors");
}
END_TEST

START_TEST(files_lie_beside_the_index)
{
    refuses("{\"a\": \"../model-1.safetensors\"}", WEFT_E_FORMAT, "is not the name of a file beside the index");
    refuses("{\"a\": \"/etc/passwd\"}", WEFT_E_FORMAT, "is not the name of a file beside the index");
    refuses("{\"a\": \"sub/model-1.safetensors\"}", WEFT_E_FORMAT, "is not the name of a file");
    refuses("{\"a\": \"sub\\\\model-1.safetensors\"}", WEFT_E_FORMAT, "is not the name of a file");
    refuses("{\"a\": \"..\"}", WEFT_E_FORMAT, "is not the name of a file");
    refuses("{\"a\": \"\"}", WEFT_E_FORMAT, "is not the name of a file");
    refuses("{\"a\": 3}", WEFT_E_FORMAT, "tensor \"a\": its file is not a string");
}
END_TEST

START_TEST(an_index_names_tensors)
{
    refuses("{}", WEFT_E_FORMAT, "no \"weight_map\" object that names tensors");
    refuses("[]", WEFT_E_FORMAT, "no \"weight_map\" object that names tensors");
    refuses("{\"a\": \"model-1.safetensors\", \"a\": \"model-1.safetensors\"}", WEFT_E_FORMAT, "duplicate");
}
END_TEST

START_TEST(every_allocation_may_fail)
{
    weft_tensors *t;
    weft_status   st;
    size_t        n = 0;

    ck_assert_int_eq(open_with("{\"b\": \"model-2.safetensors\", \"a\": \"model-1.safetensors\"}", &t), WEFT_OK);
    weft_tensors_free(t);
    do {
        test_memory    m;
        weft_allocator a = test_allocator(&m);

        m.fail_at = ++n;
        st = wf_tensors_open_index(path, n % 2 == 0, &a, &t, &err);
        if (st != WEFT_OK) { ck_assert_int_eq(st, WEFT_E_NOMEM); ck_assert_ptr_null(t); }
        weft_tensors_free(t);
        ck_assert_uint_eq(m.live_blocks, 0);
    } while (st != WEFT_OK);
    ck_assert_uint_ge(n, 15);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shards");
    TCase *c = tcase_create("all");

    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, two_files_are_one);
    tcase_add_test(c, the_index_chooses);
    tcase_add_test(c, what_is_not_there_is_named);
    tcase_add_test(c, files_lie_beside_the_index);
    tcase_add_test(c, an_index_names_tensors);
    tcase_add_test(c, every_allocation_may_fail);
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
