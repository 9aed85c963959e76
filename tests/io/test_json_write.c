/* JSON that is written: what jansson reads of it, what it looks like, and the form that is hashed. */
#include <math.h>

#include "../base/support.h"
#include "io/io.h"

static test_memory    memory;
static weft_allocator alloc;

static void setup(void) { alloc = test_allocator(&memory); }
static void teardown(void) { ck_assert_uint_eq(memory.live_blocks, 0); }

/* One of everything. */
static void fill(wf_doc *d)
{
    wf_node *list, *object = wf_node_object(d, d->root, "zeta");

    wf_node_text(d, object, "text", "a \"cat\"\\\n\t\x01\x1f \xc3\xa9");
    wf_node_int(d, object, "int", INT64_MIN);
    wf_node_float(d, object, "float", 0.1f);
    wf_node_double(d, object, "double", 0.1);
    wf_node_bool(d, object, "yes", true);
    wf_node_bool(d, object, "no", false);
    list = wf_node_list(d, d->root, "alpha");
    wf_node_double(d, list, NULL, -0.0);
    wf_node_double(d, list, NULL, 1e300);
    wf_node_double(d, list, NULL, NAN);
    wf_node_list(d, list, NULL);
    wf_node_object(d, list, NULL);
}

static const char plain[] =
    "{\n"
    "  \"zeta\": {\n"
    "    \"text\": \"a \\\"cat\\\"\\\\\\n\\u0009\\u0001\\u001f \xc3\xa9\",\n"
    "    \"int\": -9223372036854775808,\n"
    "    \"float\": 0.1,\n"
    "    \"double\": 0.1,\n"
    "    \"yes\": true,\n"
    "    \"no\": false\n"
    "  },\n"
    "  \"alpha\": [-0.0, 1e300, null, [], {}]\n"
    "}\n";
static const char canonical[] =
    "{\"alpha\":[-0.0,1e300,null,[],{}],\"zeta\":{\"double\":0.1,\"float\":0.1,\"int\":-9223372036854775808,"
    "\"no\":false,\"text\":\"a \\\"cat\\\"\\\\\\n\\u0009\\u0001\\u001f \xc3\xa9\",\"yes\":true}}";

START_TEST(both_forms_are_as_they_should_be)
{
    wf_doc  d;
    wf_text a, b;
    json_t *x, *y;

    wf_doc_init(&d, &alloc);
    fill(&d);
    wf_text_init(&a, &alloc);
    wf_text_init(&b, &alloc);
    wf_doc_write(&d, &a);
    wf_doc_canonical(&d, &b);
    ck_assert(!a.failed && !b.failed && !d.not_utf8);
    ck_assert_str_eq(a.s, plain);
    ck_assert_str_eq(b.s, canonical);
    x = json_loads(a.s, JSON_REJECT_DUPLICATES, NULL);
    y = json_loads(b.s, JSON_REJECT_DUPLICATES, NULL);
    ck_assert(x != NULL && json_equal(x, y));
    ck_assert(signbit(json_real_value(json_array_get(json_object_get(x, "alpha"), 0))));
    json_decref(x);
    json_decref(y);
    wf_text_free(&a);
    wf_text_free(&b);
    wf_doc_free(&d);
}
END_TEST

/* Numbers fill lines of at most 96 characters and a comma, 15 of "1000, " behind the indent; what is no number has a
 * line of its own. */
START_TEST(long_lists_fill_their_lines)
{
    wf_doc  d;
    wf_text t;

    wf_doc_init(&d, &alloc);
    wf_node *list = wf_node_list(&d, d.root, "numbers"), *words = wf_node_list(&d, d.root, "words");
    for (int i = 0; i < 200; i++) wf_node_int(&d, list, NULL, 1000 + i);
    for (int i = 0; i < 20; i++) wf_node_text(&d, words, NULL, "weft");
    wf_text_init(&t, &alloc);
    wf_doc_write(&d, &t);
    size_t lines = 0, widest = 0, line = 0;
    for (const char *s = t.s; *s != '\0'; s++) {
        if (*s != '\n') {
            line++;
            continue;
        }
        widest = WF_MAX(widest, line);
        line = 0;
        lines++;
    }
    ck_assert_uint_le(widest, 98);
    ck_assert_uint_ge(widest, 85);
    ck_assert_uint_eq(lines, 2 + (2 + 14) + (2 + 20));
    json_t *x = json_loads(t.s, 0, NULL);
    ck_assert_uint_eq(json_array_size(json_object_get(x, "numbers")), 200);
    ck_assert_int_eq(json_integer_value(json_array_get(json_object_get(x, "numbers"), 199)), 1199);
    json_decref(x);
    wf_text_free(&t);
    wf_doc_free(&d);
}
END_TEST

START_TEST(what_is_no_utf8_is_noted)
{
    wf_doc d;

    wf_text place;

    wf_doc_init(&d, &alloc);
    wf_text_init(&place, &alloc);
    wf_node *list = wf_node_list(&d, wf_node_object(&d, d.root, "a"), "list");
    wf_node_text(&d, list, NULL, "\xc3\xa9");
    ck_assert_ptr_null(d.not_utf8);
    wf_node_text(&d, wf_node_object(&d, list, NULL), "bad", "\xc3");
    wf_node_text(&d, d.root, "worse", "\xff");
    ck_assert_ptr_nonnull(d.not_utf8); /* the first */
    wf_node_place(d.not_utf8, &place);
    ck_assert_str_eq(place.s, "a.list[1].bad");
    wf_text_free(&place);
    wf_doc_free(&d);
    wf_doc_init(&d, &alloc);
    wf_node_text(&d, d.root, "\xff", "good");
    ck_assert_ptr_nonnull(d.not_utf8);
    wf_doc_free(&d);
}
END_TEST

START_TEST(memory_may_run_out)
{
    for (size_t n = 1;; n++) {
        wf_doc  d;
        wf_text t;
        memory.calls = 0;
        memory.fail_at = n;
        wf_doc_init(&d, &alloc);
        if (!d.failed) fill(&d);
        for (int i = 0; i < 500; i++) wf_node_text(&d, d.root, "a key that is long enough to fill blocks", "and its text");
        wf_text_init(&t, &alloc);
        wf_doc_write(&d, &t);
        bool failed = t.failed;
        wf_text_free(&t);
        wf_doc_free(&d);
        ck_assert_uint_eq(memory.live_blocks, 0);
        ck_assert_uint_lt(n, 1000);
        if (!failed) break;
        ck_assert_uint_ge(memory.calls, n);
    }
    memory.fail_at = 0;
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("json_write");
    TCase *c = tcase_create("all");

    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, both_forms_are_as_they_should_be);
    tcase_add_test(c, long_lists_fill_their_lines);
    tcase_add_test(c, what_is_no_utf8_is_noted);
    tcase_add_test(c, memory_may_run_out);
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
