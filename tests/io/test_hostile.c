/* Files that mean harm: refused in one line, or read without anything happening. */
#include "../base/support.h"
#include "io/io.h"

static weft_allocator plain;
static weft_error     err;

static void setup(void)
{
    plain = wf_allocator(NULL);
    memset(&err, 0, sizeof err);
}

/* What is alive now, and the most that ever was. */
typedef struct meter {
    test_memory m;
    size_t      peak;
} meter;

static void *meter_alloc(void *user, size_t size, size_t align)
{
    meter *r = user;
    void  *p = test_alloc(&r->m, size, align);

    r->peak = WF_MAX(r->peak, r->m.live_bytes);
    return p;
}

static weft_allocator metered(meter *r)
{
    weft_allocator a = { meter_alloc, test_free, r };

    memset(r, 0, sizeof *r);
    return a;
}

/* ---- the files of make_hostile.py ---- */

/* The names of all its tensors, in their order, with a space between. */
static void check_inert(const char *name, const weft_tensors *t, const char *tensors)
{
    char names[1000] = "";

    for (size_t i = 0; i < wf_tensors_count(t); i++) {
        if (i > 0) strcat(names, " ");
        strcat(names, wf_tensors_at(t, i)->name);
    }
    ck_assert_msg(strcmp(names, tensors) == 0, "%s: tensors \"%s\"", name, names);
}

START_TEST(each_hostile_file_gets_its_answer)
{
    json_t     *list, *entry;
    const char *name;
    size_t      count = 0;

    ck_assert_int_eq(wf_json_load(&list, test_path("data/hostile/expected.json"), &plain, &err), WEFT_OK);
    json_object_foreach(list, name, entry) {
        const char    *status = json_string_value(json_object_get(entry, "status"));
        const char    *text   = json_string_value(json_object_get(entry, "text"));
        char           path[256];
        meter          r;
        weft_allocator a = metered(&r);
        weft_tensors  *t;
        weft_status    st;

        snprintf(path, sizeof path, "data/hostile/%s", name);
        memset(&err, 0, sizeof err);
        st = wf_tensors_open(test_path(path), _i == 1, &a, &t, &err);
        ck_assert_msg(strcmp(weft_status_name(st), status) == 0, "%s: %s: %s", name, weft_status_name(st), err.text);
        if (st == WEFT_OK) {
            check_inert(name, t, text);
        } else {
            ck_assert_ptr_null(t);
            check_one_line(&err);
            ck_assert_msg(strstr(err.text, text) != NULL, "%s: \"%s\" does not say \"%s\"", name, err.text, text);
            ck_assert_msg(strstr(err.text, name) != NULL, "the file is not named: %s", err.text);
        }
        weft_tensors_free(t);
        ck_assert_msg(r.m.live_blocks == 0, "%s leaks", name);
        ck_assert_msg(r.peak < 200000000, "%s took %zu bytes", name, r.peak);
        count++;
    }
    ck_assert_uint_ge(count, 150);
    ck_assert_msg(!wf_path_exists("weft_was_here"), "something was executed");
    json_decref(list);
}
END_TEST

/* ---- bombs too large to be kept as files ---- */

typedef struct bomb {
    uint8_t *bytes;
    size_t   size;
} bomb;

static void add(bomb *b, const void *bytes, size_t n)
{
    memcpy(b->bytes + b->size, bytes, n);
    b->size += n;
}

/* A legacy file up to the pickle that matters. */
static bomb begin(size_t room)
{
    static const char head[] = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19." "\x80\x02M\xe9\x03."
                               "\x80\x02}X\x0d\0\0\0little_endian\x88s." "\x80\x02";
    bomb b = { malloc(room + 100), 0 };

    add(&b, head, sizeof head - 1);
    return b;
}

/* Refused in these words, and before it took more than this. */
static void explode(bomb *b, const char *text, size_t most)
{
    meter          r;
    weft_allocator a = metered(&r);
    weft_tensors  *t;
    weft_status    st;

    st = wf_tensors_parse(b->bytes, b->size, "bomb", &a, &t, &err);
    ck_assert_int_eq(st, WEFT_E_FORMAT);
    ck_assert_msg(strstr(err.text, text) != NULL, "\"%s\" does not say \"%s\"", err.text, text);
    ck_assert_uint_eq(r.m.live_blocks, 0);
    ck_assert_uint_lt(r.peak, most);
    free(b->bytes);
}

static void repeat(bomb *b, const char *code, size_t n, size_t times)
{
    for (size_t i = 0; i < times; i++) add(b, code, n);
}

START_TEST(a_stack_has_a_limit)
{
    bomb b = begin(2000000);

    repeat(&b, "N", 1, 1500000);
    explode(&b, "more than 1000000 values on the stack", 64000000);
}
END_TEST

START_TEST(steps_have_a_limit)
{
    bomb b = begin(9000000);

    add(&b, "]", 1);
    repeat(&b, "Na", 2, 4000000);
    explode(&b, "more than 2000000 steps", 64000000);
}
END_TEST

START_TEST(a_memo_has_a_limit)
{
    bomb b = begin(9000000);

    add(&b, "]", 1);
    repeat(&b, "\x94", 1, 1500000);
    explode(&b, "more than 1000000 values in the memo", 64000000);
}
END_TEST

/* A legacy file behind its pickle: the list of storages is empty. */
static void finish(bomb *b)
{
    add(b, "." "\x80\x02].", 5);
}

/* Half a million items in a dict, none of which has a name, and a hundred thousand mentions of that dict. */
START_TEST(what_has_no_name_is_counted_too)
{
    bomb b = begin(2000000);

    add(&b, "](}q\0(", 6);
    repeat(&b, "N", 1, 999990);
    add(&b, "u", 1);
    repeat(&b, "h\0", 2, 100000);
    add(&b, "e", 1);
    finish(&b);
    explode(&b, "more than 400000 values", 200000000);
}
END_TEST

/* The same dict behind each of as many tensors, which are asked whether their sign is the other one. */
START_TEST(metadata_of_tensors_is_counted)
{
    bomb b = begin(3000000);
    static const char parts[] = "(}q\0(", args[] = "ctorch._utils\n_rebuild_tensor_v2\nq\x01(" "(X\7\0\0\0storage"
                                "ctorch\nFloatStorage\nX\1\0\0\0" "0X\3\0\0\0cpuK\0tQ" "K\0))\x89Nh\0tq\2](";

    add(&b, parts, sizeof parts - 1);
    repeat(&b, "N", 1, 999980);
    add(&b, "u", 1);
    add(&b, args, sizeof args - 1);
    repeat(&b, "h\1h\2R", 5, 100000);
    add(&b, "et", 2);
    finish(&b);
    explode(&b, "more than 2000000 steps", 200000000);
}
END_TEST

/* A thousand characters of name for each of a hundred thousand mentions. */
START_TEST(names_of_tensors_are_counted)
{
    static const char dict[] = "}X\xe8\3\0\0", list[] = "](ctorch._utils\n_rebuild_tensor_v2\n("
                               "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" "0X\3\0\0\0cpuK\0tQ"
                               "K\0K\0\x85K\1\x85\x89NtRq\0";
    bomb b = begin(500000);

    add(&b, dict, sizeof dict - 1);
    repeat(&b, "n", 1, 1000);
    add(&b, list, sizeof list - 1);
    repeat(&b, "h\0", 2, 90000);
    add(&b, "es", 2);
    add(&b, "." "\x80\x02]X\1\0\0\0" "0a." "\0\0\0\0\0\0\0\0", 20);
    explode(&b, "more than 64 MiB of strings and their names", 150000000);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hostile");
    TCase *c = tcase_create("all");

    tcase_set_timeout(c, 60);
    tcase_add_checked_fixture(c, setup, NULL);
    tcase_add_loop_test(c, each_hostile_file_gets_its_answer, 0, 2);
    tcase_add_test(c, a_stack_has_a_limit);
    tcase_add_test(c, steps_have_a_limit);
    tcase_add_test(c, a_memo_has_a_limit);
    tcase_add_test(c, what_has_no_name_is_counted_too);
    tcase_add_test(c, metadata_of_tensors_is_counted);
    tcase_add_test(c, names_of_tensors_are_counted);
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
