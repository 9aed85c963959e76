/* JSON as files of strangers have it: what is refused, in what words, and what memory does. */
#include <errno.h>

#include <unistd.h>

#include "../base/support.h"
#include "io/io.h"

static weft_error err;

static weft_status parse(const char *text)
{
    json_t     *root;
    char       *exact = malloc(strlen(text) + 1);  /* no NUL behind it: the sanitizer sees a step too far */
    weft_status st;

    memcpy(exact, text, strlen(text));
    memset(&err, 0, sizeof err);
    st = wf_json_parse(&root, exact, strlen(text), "f.json", &err);
    free(exact);
    ck_assert_int_eq(st == WEFT_OK, root != NULL);
    if (st != WEFT_OK) check_one_line(&err);
    json_decref(root);
    return st;
}

START_TEST(plain_json_is_taken)
{
    ck_assert_int_eq(parse("{}"), WEFT_OK);
    ck_assert_int_eq(parse(" {\"a\": [1, -2.5e3, null, true, {\"b\": \"\\ud83d\\ude00\"}]} \n"), WEFT_OK);
    ck_assert_int_eq(parse("{\"[[[[{{{{\": \"\\\"[[,\\\\\"}"), WEFT_OK);
}
END_TEST

START_TEST(broken_json_is_refused)
{
    static const char *const bad[] = {
        "", " ", "{", "}", "[", "{]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{'a':1}", "{\"a\":01}",
        "{\"a\":+1}", "{\"a\":.5}", "{\"a\":NaN}", "{\"a\":Infinity}", "{} x", "{}{}", "{\"a\":\"\t\"}",
        "{\"a\":\"\n\"}", "{\"a\":\"\\x\"}", "{\"a\":\"\\ud800\"}", "{\"a\":\"\\udc00\"}", "{\"a\":\"\\ud800\\ud800\"}",
        "{\"a\\u0000b\":1}", "{\"\xff\":1}", "{\"\xc0\x80\":1}", "{\"a\":\"\xed\xa0\x80\"}",
        "{\"a\":099999999999999999999}", "{\"a\":1e999.}", "{\"a\":1e9999-}", "{\"a\":-}", "{\"a\":1e}",
        "{\"a\":1/*c*/}", "{}\xef\xbb\xbf", "\xef\xbb\xbf\xef\xbb\xbf{}", "\xef\xbb{}", "{\"a\":\"", "{\"a\":\"\\",
    };

    for (size_t i = 0; i < WF_LEN(bad); i++) ck_assert_msg(parse(bad[i]) == WEFT_E_FORMAT, "accepted: %s", bad[i]);
}
END_TEST

START_TEST(the_place_is_told)
{
    ck_assert_int_eq(parse("{\"a\": 1,\n \"b\" 2}"), WEFT_E_FORMAT);
    ck_assert_str_eq(err.text, "f.json: not valid JSON, line 2 column 6: ':' expected near '2'");
    ck_assert_int_eq(parse("{x}"), WEFT_E_FORMAT);
    ck_assert_str_eq(err.text, "f.json: not valid JSON, line 1 column 2: string or '}' expected near 'x'");
    ck_assert_int_eq(parse("{\"a\": [1, 2"), WEFT_E_FORMAT);
    ck_assert_str_eq(err.text, "f.json: not valid JSON: it ends too early");
    ck_assert_int_eq(parse("{\"a\": \"b"), WEFT_E_FORMAT);
    ck_assert_str_eq(err.text, "f.json: not valid JSON: it ends too early");
}
END_TEST

/* Numbers that JSON has and C has not, as Python reads them: float(10**30 + ...) is 1e30; inf is kept finite. */
START_TEST(any_number_is_read)
{
    static const struct { const char *text; double value; bool whole; } all[] = {
        { "1000000000000000019884624838656", 1e30, false }, /* model_max_length, as transformers writes it */
        { "9223372036854775807", 9223372036854775807.0, true },
        { "9223372036854775808", 9223372036854775808.0, false },
        { "-9223372036854775808", -9223372036854775808.0, true },
        { "-9223372036854775809", -9223372036854775808.0, false },
        { "99999999999999999999", 1e20, false },
        { "1e999", 1e308, false },
        { "-1e999", -1e308, false },
        { "1e99999999999999999999", 1e308, false },
        { "1.7976931348623157e308", 1.7976931348623157e308, false },
        { "17976931348623159e292", 1e308, false },
        { "0.0000017976931348623159e314", 1e308, false },
        { "0.00000179e314", 1.79e308, false },
        { "0e999", 0, false },
        { "0.000e999", 0, false },
        { "1e-999", 0, false },
        { "-0", 0, true },
    };
    char text[600], digits[401];

    for (size_t i = 0; i < WF_LEN(all); i++) {
        json_t *root;
        snprintf(text, sizeof text, "{\"before\":\"1e999\",\"a\":%s,\"b\":[%s,7 ]}", all[i].text, all[i].text);
        ck_assert_msg(wf_json_parse(&root, text, strlen(text), "f", &err) == WEFT_OK, "%s", err.text);
        const json_t *a = json_object_get(root, "a"), *b = json_object_get(root, "b");
        ck_assert_msg(json_number_value(a) == all[i].value, "%s: %.17g", all[i].text, json_number_value(a));
        ck_assert_int_eq(json_is_integer(a), all[i].whole);
        ck_assert(json_number_value(json_array_get(b, 0)) == all[i].value);
        ck_assert_int_eq(json_integer_value(json_array_get(b, 1)), 7);
        ck_assert_str_eq(json_string_value(json_object_get(root, "before")), "1e999");
        json_decref(root);
    }
    for (int n = 300; n < 320; n++) { /* 99...9: past the doubles from 309 digits on */
        json_t *root;
        memset(digits, '9', (size_t)n);
        digits[n] = '\0';
        snprintf(text, sizeof text, "{\"a\":%s}", digits);
        ck_assert_int_eq(wf_json_parse(&root, text, strlen(text), "f", &err), WEFT_OK);
        ck_assert(json_number_value(json_object_get(root, "a")) == (n < 309 ? strtod(digits, NULL) : 1e308));
        json_decref(root);
    }
}
END_TEST

/* U+0000 in a text is U+FFFD, wherever it stands and however often; in a key it is refused. */
START_TEST(nul_is_read_in_a_text_and_refused_in_a_key)
{
    static const char text[] = "{\"a\":\"x\\u0000y\\u0000\\u0000\",\"b\\\\u0000\" : \"\\\\u0000\\\"\\u0000\",\"c\":[\"\\u0000\"]}";
    json_t *root;

    ck_assert_msg(wf_json_parse(&root, text, sizeof text - 1, "f", &err) == WEFT_OK, "%s", err.text);
    ck_assert_str_eq(json_string_value(json_object_get(root, "a")), "x\xef\xbf\xbdy\xef\xbf\xbd\xef\xbf\xbd");
    ck_assert_str_eq(json_string_value(json_object_get(root, "b\\u0000")), "\\u0000\"\xef\xbf\xbd");
    ck_assert_str_eq(json_string_value(json_array_get(json_object_get(root, "c"), 0)), "\xef\xbf\xbd");
    json_decref(root);
    ck_assert_int_eq(parse("{\"a\": 1,\n \"b\\u0000c\" :2}"), WEFT_E_FORMAT);
    ck_assert_str_eq(err.text, "f.json: line 2: a key has the character U+0000 in it");
}
END_TEST

START_TEST(a_byte_order_mark_is_skipped)
{
    ck_assert_int_eq(parse("\xef\xbb\xbf{\"a\": 1}"), WEFT_OK);
    ck_assert_int_eq(parse("\xef\xbb\xbf{x}"), WEFT_E_FORMAT);
    ck_assert_str_eq(err.text, "f.json: not valid JSON, line 1 column 2: string or '}' expected near 'x'");
    ck_assert_int_eq(parse("\xef\xbb\xbf"), WEFT_E_FORMAT);
}
END_TEST

/* A string full of U+0000 and a long way from it to the next sign: each is looked at once. */
START_TEST(many_changes_take_no_time)
{
    size_t  size = (size_t)12 << 20, n = 0;
    char   *text = malloc(size);
    json_t *root;

    n += (size_t)sprintf(text, "{\"a\":\"");
    while (n < size / 2) n += (size_t)sprintf(text + n, "\\u0000");
    text[n++] = '"';
    memset(text + n, ' ', size - 1 - n);
    text[size - 1] = '}';
    ck_assert_int_eq(wf_json_parse(&root, text, size, "f", &err), WEFT_OK);
    ck_assert_uint_eq(json_string_length(json_object_get(root, "a")), (n - 7) / 2);
    json_decref(root);
    free(text);
}
END_TEST

START_TEST(the_root_is_an_object)
{
    ck_assert_int_eq(parse("[1]"), WEFT_E_FORMAT);
    ck_assert_str_eq(err.text, "f.json: JSON is not one object");
    ck_assert_int_eq(parse("1"), WEFT_E_FORMAT);
    ck_assert_int_eq(parse("\"x\""), WEFT_E_FORMAT);
    ck_assert_int_eq(parse("{},{}"), WEFT_E_FORMAT);
    ck_assert_int_eq(parse("{}],[{}"), WEFT_E_FORMAT);
    ck_assert_int_eq(parse("{}]"), WEFT_E_FORMAT);
}
END_TEST

START_TEST(a_key_that_stands_twice_is_named)
{
    ck_assert_int_eq(parse("{\"a\": 1, \"b\": 2, \"a\": 3}"), WEFT_E_FORMAT);
    ck_assert_str_eq(err.text, "f.json: duplicate key \"a\"");
    ck_assert_int_eq(parse("{\"unet.down_blocks.0.attentions.0.weight\":1,\"unet.down_blocks.0.attentions.0.weight\" :2}"),
                     WEFT_E_FORMAT);
    ck_assert_str_eq(err.text, "f.json: duplicate key \"unet.down_blocks.0.attentions.0.weight\"");
    ck_assert_int_eq(parse("{\"a\\\"b\\\\\":1,\"a\\\"b\\\\\":1}"), WEFT_E_FORMAT);
    ck_assert_str_eq(err.text, "f.json: duplicate key \"a\\\"b\\\\\"");
    ck_assert_int_eq(parse("{\"x\":{\"\xc3\xa9\":1,\"\\u00e9\":1}}"), WEFT_E_FORMAT);
    ck_assert_str_eq(err.text, "f.json: duplicate key \"\\u00e9\"");
}
END_TEST

static char *nested(int depth)
{
    char *text = malloc((size_t)depth * 6 + 3), *p = text;

    for (int i = 0; i < depth; i++) { memcpy(p, "{\"a\":", 5); p += 5; }
    *p++ = '1';
    for (int i = 0; i < depth; i++) *p++ = '}';
    *p = '\0';
    return text;
}

START_TEST(depth_is_bounded)
{
    char *fine = nested(64), *deep = nested(65), *abyss = nested(100000);

    ck_assert_msg(parse(fine) == WEFT_OK, "%s", err.text);
    ck_assert_int_eq(parse(deep), WEFT_E_FORMAT);
    ck_assert_str_eq(err.text, "f.json: JSON nests 65 deep, expected at most 64");
    ck_assert_int_eq(parse(abyss), WEFT_E_FORMAT);
    free(fine);
    free(deep);
    free(abyss);
}
END_TEST

START_TEST(values_are_bounded)
{
    json_t *root;

    ck_assert_int_eq(wf_json_parse_bounded(&root, "{\"a\":[1,2,3]}", 13, 4, 5, "f", &err), WEFT_OK);
    json_decref(root);
    ck_assert_int_eq(wf_json_parse_bounded(&root, "{\"a\":[1,2,3]}", 13, 4, 4, "f", &err), WEFT_E_FORMAT);
    ck_assert_str_eq(err.text, "f: JSON has 5 values, expected at most 4");
    ck_assert_ptr_null(root);
}
END_TEST

/* jansson's hooks are process-wide, which is why the library never touches them; a test may. */
static size_t json_calls, json_fail_at, json_live;
static bool   json_fail_on;

static void *json_alloc(size_t size)
{
    void *p;

    json_calls++;
    if (json_calls == json_fail_at || (json_fail_on && json_fail_at != 0 && json_calls > json_fail_at)) {
        errno = ENOMEM;
        return NULL;
    }
    p = malloc(size);
    if (p != NULL) json_live++;
    return p;
}

static void json_release(void *p)
{
    if (p != NULL) json_live--;
    free(p);
}

/* Both kinds of running out: one allocation fails, and all from one on. What comes out, when something
 * does, is the whole text: jansson alone would drop characters of the long strings. */
START_TEST(memory_that_runs_out_inside_jansson_is_told_apart)
{
    static const char text[] = "{\"a\":[1,-2.5,\"long enough to need more than a first small buffer\"],"
                               "\"b\":{\"c\":null,\"d\":{},\"e\":1000000000000000000,\"f\":2,\"g\":3,\"h\":4,\"i\":5,"
                               "\"long enough to need more than a second, somewhat larger, small buffer\":6}}";
    bool        all = _i == 1;
    weft_status st  = WEFT_E_NOMEM;
    size_t      n   = 0;

    json_set_alloc_funcs(json_alloc, json_release);
    do {
        json_t *root;
        char   *again;

        json_calls   = 0;
        json_fail_at = ++n;
        json_fail_on = all;
        st = wf_json_parse(&root, text, sizeof text - 1, "f.json", &err);
        json_fail_at = 0;
        if (st == WEFT_OK) {
            again = json_dumps(root, JSON_COMPACT);
            ck_assert_str_eq(again, text);
            json_release(again);
        } else {
            ck_assert_msg(st == WEFT_E_NOMEM, "allocation %zu: %s", n, err.text);
        }
        json_decref(root);
        ck_assert_uint_eq(json_live, 0);
    } while (json_calls >= n);
    ck_assert_uint_gt(n, 40);
    ck_assert_int_eq(st, WEFT_OK);
    json_set_alloc_funcs(malloc, free);
}
END_TEST

/* Tokens of every length around the sizes at which the lexer's buffer doubles. */
START_TEST(tokens_of_any_length_come_out_whole)
{
    static char text[5000];

    for (size_t length = 0; length < 2100; length += length < 140 ? 1 : 13) {
        json_t *root;

        snprintf(text, sizeof text, "{\"k\":\"");
        memset(text + 6, 'x', length);
        memcpy(text + 6 + length, "\"}", 3);
        ck_assert_int_eq(wf_json_parse(&root, text, length + 8, "f", &err), WEFT_OK);
        ck_assert_uint_eq(json_string_length(json_object_get(root, "k")), length);
        json_decref(root);
    }
}
END_TEST

START_TEST(a_file_is_loaded)
{
    const weft_allocator a = wf_allocator(NULL);
    json_t              *root;

    ck_assert_int_eq(wf_json_load(&root, test_path("data/fixtures/README_safetensors.json"), &a, &err), WEFT_OK);
    ck_assert_uint_gt(json_object_size(root), 20);
    json_decref(root);
    ck_assert_int_eq(wf_json_load(&root, test_path("data/fixtures/absent.json"), &a, &err), WEFT_E_IO);
    ck_assert_ptr_null(root);
    ck_assert_int_eq(wf_json_load(&root, test_path("data/fixtures/ti_diffusers.bin"), &a, &err), WEFT_E_FORMAT);
    check_one_line(&err);
}
END_TEST

/* Python's json writes and reads them, outside of strings; nothing else that begins so becomes a number. */
START_TEST(infinity_is_read_from_a_file)
{
    static const struct { const char *text; bool good; } all[] = {
        { "{\"a\": -Infinity, \"b\":Infinity,\n\"c\": [Infinity], \"Infinity\": \" -Infinity\"}", true },
        { "{\"a\": 1Infinity}", false },
        { "{\"a\": --Infinity}", false },
        { "{\"a\": Infinity1}", false },
        { "{\"a\": Infinit}", false },
        { "{\"a\": \"x\\\" -Infinity", false },
        { "Infinity", false },
        { "{\"a\": Infinity", false },
    };
    const weft_allocator a = wf_allocator(NULL);
    char                 dir[256], path[300];
    json_t              *root;

    snprintf(dir, sizeof dir, "%s", test_dir());
    snprintf(path, sizeof path, "%s/file", dir);
    for (size_t i = 0; i < WF_LEN(all); i++) {
        ck_assert_int_eq(wf_file_write(path, all[i].text, strlen(all[i].text), &err), WEFT_OK);
        ck_assert_int_eq(wf_json_load(&root, path, &a, &err), all[i].good ? WEFT_OK : WEFT_E_FORMAT);
        if (!all[i].good) continue;
        ck_assert(json_real_value(json_object_get(root, "a")) == -1e308 && json_real_value(json_object_get(root, "b")) == 1e308);
        ck_assert(json_real_value(json_array_get(json_object_get(root, "c"), 0)) == 1e308);
        ck_assert_str_eq(json_string_value(json_object_get(root, "Infinity")), " -Infinity");
        json_decref(root);
    }
    ck_assert_int_eq(wf_json_parse(&root, all[0].text, strlen(all[0].text), "f", &err), WEFT_E_FORMAT);
    unlink(path);
    test_rmdir(dir);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("json");
    TCase *c = tcase_create("all");

    tcase_add_test(c, plain_json_is_taken);
    tcase_add_test(c, broken_json_is_refused);
    tcase_add_test(c, the_place_is_told);
    tcase_add_test(c, any_number_is_read);
    tcase_add_test(c, nul_is_read_in_a_text_and_refused_in_a_key);
    tcase_add_test(c, a_byte_order_mark_is_skipped);
    tcase_add_test(c, many_changes_take_no_time);
    tcase_add_test(c, the_root_is_an_object);
    tcase_add_test(c, a_key_that_stands_twice_is_named);
    tcase_add_test(c, depth_is_bounded);
    tcase_add_test(c, values_are_bounded);
    tcase_add_loop_test(c, memory_that_runs_out_inside_jansson_is_told_apart, 0, 2);
    tcase_add_test(c, tokens_of_any_length_come_out_whole);
    tcase_add_test(c, a_file_is_loaded);
    tcase_add_test(c, infinity_is_read_from_a_file);
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
