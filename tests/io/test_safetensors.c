/* safetensors: what opens, what is refused and in which words, and what is written. */
#include <errno.h>
#include <time.h>

#include "../base/support.h"
#include "io/io.h"

static weft_allocator plain;
static weft_error     err;

static void setup(void)
{
    plain = wf_allocator(NULL);
    memset(&err, 0, sizeof err);
}

/* ---- making files in memory ---- */

typedef struct image {
    uint8_t *bytes;
    size_t   size;
} image;

/* In a block of exactly its size, at an odd offset: the sanitizers see a byte too far and an aligned load. */
static image make(const char *header, size_t header_size, size_t data_size)
{
    image    m = { NULL, 8 + header_size + data_size };
    uint64_t n = header_size;

    m.bytes = (uint8_t *)malloc(m.size + 1) + 1;
    memcpy(m.bytes, &n, 8);
    memcpy(m.bytes + 8, header, header_size);
    for (size_t i = 0; i < data_size; i++) m.bytes[8 + header_size + i] = (uint8_t)i;
    return m;
}

static void drop(image m)
{
    free(m.bytes - 1);
}

static weft_status parse(const char *header, size_t data_size, weft_tensors **out)
{
    image       m = make(header, strlen(header), data_size);
    weft_status st = wf_tensors_parse(m.bytes, m.size, "f", &plain, out, &err);

    if (st == WEFT_OK) ck_assert_ptr_nonnull(*out);
    else               { ck_assert_ptr_null(*out); check_one_line(&err); }
    drop(m);  /* only names and shapes are looked at afterwards */
    return st;
}

static void accepts(const char *header, size_t data_size)
{
    weft_tensors *t;

    ck_assert_msg(parse(header, data_size, &t) == WEFT_OK, "%s: %s", header, err.text);
    weft_tensors_free(t);
}

static void refuses(const char *header, size_t data_size, const char *text)
{
    weft_tensors *t;

    ck_assert_msg(parse(header, data_size, &t) == WEFT_E_FORMAT, "accepted: %s", header);
    ck_assert_msg(strstr(err.text, text) != NULL, "\"%s\" does not say \"%s\"", err.text, text);
}

/* ---- the fixtures ---- */

static json_t *fixtures(void)
{
    json_t *list;

    ck_assert_int_eq(wf_json_load(&list, test_path("data/fixtures/README_safetensors.json"), &plain, &err), WEFT_OK);
    return list;
}

START_TEST(every_fixture_opens_or_is_refused_as_it_should)
{
    json_t     *list = fixtures(), *entry;
    const char *name;
    int         good = 0, bad = 0;

    json_object_foreach(list, name, entry) {
        char          file[256];
        weft_tensors *t;
        weft_status   st;

        snprintf(file, sizeof file, "data/fixtures/%s", name);
        for (int copy = 0; copy < 2; copy++) {
            st = wf_tensors_open(test_path(file), copy != 0, &plain, &t, &err);
            if (json_is_true(json_object_get(entry, "valid"))) {
                ck_assert_msg(st == WEFT_OK, "%s: %s", name, err.text);
                good++;
            } else {
                ck_assert_msg(st == WEFT_E_FORMAT, "%s opened", name);
                ck_assert_ptr_null(t);
                check_one_line(&err);
                ck_assert_msg(strstr(err.text, name) != NULL, "the file is not named: %s", err.text);
                bad++;
            }
            weft_tensors_free(t);
        }
    }
    ck_assert_int_ge(good, 12);
    ck_assert_int_ge(bad, 34);
    json_decref(list);
}
END_TEST

START_TEST(each_refusal_says_what_was_found)
{
    static const struct { const char *file, *text; } cases[] = {
        { "st_bad_hole",          "tensor \"b\" begins at byte 8 of the data, expected 4 (a hole)" },
        { "st_bad_overlap",       "tensor \"b\" begins at byte 4 of the data, expected 8 (an overlap)" },
        { "st_bad_trailing",      "the tensors end at byte 8 of the data, but the file has 12" },
        { "st_bad_truncated",     "tensor \"a\": data_offsets [0, 8] lie outside the 4 bytes of data" },
        { "st_bad_size",          "tensor \"a\": data_offsets span 8 bytes, but F32 (3,) needs 12" },
        { "st_bad_overflow",      "tensor \"a\": the product of \"shape\" does not fit 64 bits" },
        { "st_bad_dup",           "duplicate key \"a\"" },
        { "st_bad_header_len",    "header of 1099511627776 bytes, expected at most 100000000" },
        { "st_bad_header_100mb",  "header of 100000001 bytes, expected at most 100000000" },
        { "st_bad_not_object",    "the header does not begin with '{'" },
        { "st_bad_leading_space", "the header does not begin with '{'" },
        { "st_bad_utf8",          "unable to decode byte 0xff" },
        { "st_bad_meta_type",     "__metadata__: the value of \"k\" is not a string" },
        { "st_bad_negative",      "tensor \"a\": a \"data_offsets\" value is not a non-negative integer" },
        { "st_bad_float_offset",  "tensor \"a\": a \"shape\" value is not a non-negative integer" },
        { "st_bad_dtype",         "tensor \"a\": unknown dtype \"Q4_0\"" },
        { "st_bad_short",         "3 bytes, expected at least the 8 of a safetensors length" },
    };

    for (size_t i = 0; i < WF_LEN(cases); i++) {
        char          file[256];
        weft_tensors *t;

        snprintf(file, sizeof file, "data/fixtures/%s.safetensors", cases[i].file);
        ck_assert_int_eq(weft_tensors_open(test_path(file), NULL, &t, &err), WEFT_E_FORMAT);
        ck_assert_msg(strstr(err.text, cases[i].text) != NULL, "%s: %s", cases[i].file, err.text);
    }
}
END_TEST

/* A file is whole or it is refused: no prefix of a valid one opens. (A broken one may become valid: the one
 * with bytes after the last tensor.) */
START_TEST(no_truncated_file_opens)
{
    json_t     *list = fixtures(), *entry;
    const char *name;

    json_object_foreach(list, name, entry) {
        char    file[256];
        wf_file f = WF_FILE_NONE;

        snprintf(file, sizeof file, "data/fixtures/%s", name);
        ck_assert_int_eq(wf_file_open(&f, test_path(file), false, &plain, &err), WEFT_OK);
        for (size_t n = 0; n < f.size; n++) {
            uint8_t      *exact = malloc(n + 1);
            weft_tensors *t;

            memcpy(exact + 1, f.data, n);
            if (wf_tensors_parse(exact + 1, n, name, &plain, &t, &err) == WEFT_E_FORMAT)
                check_one_line(&err);
            else if (json_is_true(json_object_get(entry, "valid")))
                ck_abort_msg("%s opens when cut at %zu", name, n);
            weft_tensors_free(t);
            free(exact);
        }
        wf_file_close(&f, &plain);
    }
    json_decref(list);
}
END_TEST

START_TEST(a_truncated_file_on_disk_is_refused)
{
    const char   *dir = test_dir();
    char          path[512];
    wf_file       f = WF_FILE_NONE;
    weft_tensors *t;

    snprintf(path, sizeof path, "%s/cut.safetensors", dir);
    ck_assert_int_eq(wf_file_open(&f, test_path("data/fixtures/st_ok_min.safetensors"), true, &plain, &err), WEFT_OK);
    for (size_t n = 0; n < f.size; n++) {
        ck_assert_int_eq(wf_file_write(path, f.data, n, &err), WEFT_OK);
        ck_assert_int_eq(weft_tensors_open(path, NULL, &t, &err), WEFT_E_FORMAT);
    }
    wf_file_close(&f, &plain);
    unlink(path);
    test_rmdir(dir);
}
END_TEST

START_TEST(files_of_other_kinds_are_refused)
{
    static const char *const files[] = {
        "data/fixtures/README.json", "data/fixtures/README_safetensors.json",
    };
    weft_tensors *t;

    for (size_t i = 0; i < WF_LEN(files); i++) {
        ck_assert_int_eq(weft_tensors_open(test_path(files[i]), NULL, &t, &err), WEFT_E_FORMAT);
        check_one_line(&err);
    }
    ck_assert_int_eq(weft_tensors_open(test_path("data/fixtures"), NULL, &t, &err), WEFT_E_IO);
    ck_assert_int_eq(err.sys, EISDIR);
    ck_assert_int_eq(weft_tensors_open(test_path("data/fixtures/absent"), NULL, &t, &err), WEFT_E_IO);
    ck_assert_int_eq(err.sys, ENOENT);
    ck_assert_int_eq(weft_tensors_open(NULL, NULL, &t, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_tensors_open("x", NULL, NULL, &err), WEFT_E_ARG);
}
END_TEST

/* ---- rules of the header ---- */

START_TEST(plain_headers_are_taken)
{
    accepts("{}", 0);
    accepts("{}   ", 0);
    accepts("{\"__metadata__\":{}}", 0);
    accepts("{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4);
    accepts("{\"a\":{\"dtype\":\"I64\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0);
    accepts("{\"a\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[0,2]}}", 2);
    accepts("{\"a\":{\"dtype\":\"F6_E3M2\",\"shape\":[4],\"data_offsets\":[0,3]}}", 3);
    accepts("{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1);
    accepts("{\"\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1);
    accepts("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
            "\"e\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[1,1]},"
            "\"d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 1);
}
END_TEST

START_TEST(broken_headers_are_refused)
{
    refuses("", 0, "does not begin with '{'");
    refuses("[]", 0, "does not begin with '{'");
    refuses("{} x", 0, "not valid JSON");
    refuses("{}{}", 0, "not valid JSON");
    refuses("{},{}", 0, "not one object");
    refuses("{\"a\":1}", 0, "tensor \"a\": is not described by an object");
    refuses("{\"a\":{}}", 0, "no \"dtype\"");
    refuses("{\"a\":{\"dtype\":3}}", 0, "no \"dtype\"");
    refuses("{\"a\":{\"dtype\":\"f32\"}}", 0, "unknown dtype \"f32\"");
    refuses("{\"a\":{\"dtype\":\"F32\"}}", 0, "no \"shape\"");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":4}}", 0, "no \"shape\"");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[\"1\"]}}", 4, "non-negative integer");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1e0]}}", 4, "non-negative integer");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1]}}", 4, "non-negative integer");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "no \"data_offsets\"");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "no \"data_offsets\"");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}", 4, "no \"data_offsets\"");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4.0]}}", 4, "non-negative integer");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "lie outside");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,9223372036854775807]}}", 4, "lie outside");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,9223372036854775808]}}", 4, "non-negative integer");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[9223372036854775807,2],\"data_offsets\":[0,4]}}", 4, "bits does not fit");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[9223372036854775807,4],\"data_offsets\":[0,4]}}", 4, "does not fit");
    refuses("{\"a\":{\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]}}", 0, "does not fit");
    refuses("{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2, "F4 (3,) needs 2");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1, "rank 9");
    refuses("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2, "expected 0 (a hole)");
    refuses("{\"__metadata__\":[]}", 0, "__metadata__ is not an object");
    refuses("{\"__metadata__\":{\"k\":null}}", 0, "\"k\" is not a string");
    refuses("{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "f: line 1: a key has the character U+0000");
    refuses("{\"__metadata__\":{\"a\\u0000b\":\"\"}}", 0, "f: line 1: a key has the character U+0000");
    refuses("\xef\xbb\xbf{}", 0, "does not begin with '{'");
    refuses("{\"a\nb\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "not valid JSON");
    refuses("{\"\\ud800\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "not valid JSON");
    refuses("{\"__metadata__\":{\"k\":{\"l\":{\"m\":{}}}}}", 0, "nests 5 deep, expected at most 4");
    refuses("{\"a\\n\\u001b[31mb\":{\"dtype\":\"?\\n\"}}", 0, "tensor \"a  [31mb\": unknown dtype \"? \"");
}
END_TEST

static char *repeat_entries(size_t count)
{
    char *text = malloc(count * 80 + 16), *p = text;

    *p++ = '{';
    for (size_t i = 0; i < count; i++)
        p += sprintf(p, "%s\"t%zu\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%zu,%zu]}", i > 0 ? "," : "", i, i,
                     i + 1);
    memcpy(p, "}", 2);
    return text;
}

START_TEST(a_hundred_thousand_tensors_and_no_more)
{
    char          *most = repeat_entries(100000), *more = repeat_entries(100001);
    clock_t        start = clock();
    weft_tensors  *t;

    ck_assert_int_eq(parse(most, 100000, &t), WEFT_OK);
    ck_assert_int_eq(weft_tensors_find(t, "t77777"), 77777);
    weft_tensors_free(t);
    ck_assert_int_lt((clock() - start) / CLOCKS_PER_SEC, 20);  /* the square of it would take minutes */
    refuses(more, 100001, "100001 tensors, expected at most 100000");
    free(most);
    free(more);
}
END_TEST

START_TEST(names_have_at_most_1024_bytes)
{
    char header[3000];

    for (int n = 1024; n <= 1025; n++) {
        snprintf(header, sizeof header, "{\"%0*d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", n, 0);
        if (n == 1024) accepts(header, 1);
        else           refuses(header, 1, "name of 1025 bytes, expected at most 1024");
    }
}
END_TEST

START_TEST(a_header_of_commas_is_not_parsed)
{
    size_t n = 2100000;
    char  *header = malloc(2 * n + 16), *p = header;

    p += sprintf(p, "{\"a\":[1");
    for (size_t i = 0; i < n; i++) { *p++ = ','; *p++ = '1'; }
    memcpy(p, "]}", 3);
    refuses(header, 0, "expected at most 2000000");
    free(header);
}
END_TEST

/* ---- reading ---- */

/* Metadata is for people: U+0000 in a value, and a number that nothing uses, keep no weights from being read. */
START_TEST(nul_in_metadata_is_a_sign_that_cannot_be_had)
{
    static const char header[] = "{\"__metadata__\":{\"comment\":\"a\\u0000b\"},"
                                 "\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":99999999999999999999}}";
    weft_tensors *t;

    ck_assert_msg(parse(header, 1, &t) == WEFT_OK, "%s", err.text);
    ck_assert_str_eq(weft_tensors_metadata(t, "comment"), "a\xef\xbf\xbd" "b");
    ck_assert_uint_eq(weft_tensors_count(t), 1);
    weft_tensors_free(t);
}
END_TEST

START_TEST(tensors_stand_in_the_order_of_the_data)
{
    weft_tensors    *t;
    weft_tensor_info info = WEFT_TENSOR_INFO_INIT;

    ck_assert_int_eq(weft_tensors_open(test_path("data/fixtures/st_ok_unsorted.safetensors"), NULL, &t, &err), WEFT_OK);
    ck_assert_uint_eq(weft_tensors_count(t), 2);
    ck_assert(wf_tensors_at(t, 0)->data < wf_tensors_at(t, 1)->data);
    for (size_t i = 0; i < 2; i++) {
        float v[2];
        ck_assert_int_eq(weft_tensors_info(t, i, &info, &err), WEFT_OK);
        ck_assert_int_eq(weft_tensors_find(t, info.name), (int64_t)i);
        ck_assert_int_eq(weft_tensors_read(t, i, v, info.count, &err), WEFT_OK);
    }
    ck_assert_int_eq(weft_tensors_find(t, "absent"), -1);
    ck_assert_int_eq(weft_tensors_find(t, NULL), -1);
    ck_assert_int_eq(weft_tensors_info(t, 2, &info, &err), WEFT_E_ARG);
    ck_assert_str_eq(err.text, "tensor 2 asked for, but the file has 2");
    weft_tensors_free(t);
}
END_TEST

/* BF16 1.0 = 0x3f80 and 2.0 = 0x4000 at an odd offset. */
START_TEST(reading_widens_unaligned_data)
{
    static const char header[] = "{\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]}} ";
    image         m = make(header, sizeof header - 1, 4);
    weft_tensors *t;
    float         v[2];

    memcpy(m.bytes + m.size - 4, "\x80\x3f\x00\x40", 4);
    ck_assert_int_eq(wf_tensors_parse(m.bytes, m.size, "f", &plain, &t, &err), WEFT_OK);
    ck_assert_int_eq(weft_tensors_read(t, 0, v, 2, &err), WEFT_OK);
    ck_assert_float_eq(v[0], 1);
    ck_assert_float_eq(v[1], 2);
    ck_assert_int_eq(weft_tensors_read(t, 0, v, 1, &err), WEFT_E_ARG);
    ck_assert_str_eq(err.text, "tensor \"a\" has 2 elements, but the buffer has 1");
    ck_assert_int_eq(weft_tensors_read(t, 0, NULL, 2, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_tensors_read(NULL, 0, v, 2, &err), WEFT_E_ARG);
    weft_tensors_free(t);
    drop(m);
}
END_TEST

START_TEST(complex_numbers_are_described_and_not_read)
{
    weft_tensors *t;
    float         v;

    ck_assert_int_eq(parse("{\"c\":{\"dtype\":\"C64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8, &t), WEFT_OK);
    ck_assert_int_eq(weft_tensors_read(t, 0, &v, 1, &err), WEFT_E_UNSUPPORTED);
    ck_assert_str_eq(err.text, "tensor \"c\" is C64, which is not read as numbers");
    weft_tensors_free(t);
}
END_TEST

START_TEST(the_last_reference_closes)
{
    test_memory          m;
    weft_allocator       a = test_allocator(&m);
    weft_tensors_options o = WEFT_TENSORS_OPTIONS_INIT;
    weft_tensors        *t;

    o.allocator = &a;
    ck_assert_int_eq(weft_tensors_open(test_path("data/fixtures/st_ok_min.safetensors"), &o, &t, &err), WEFT_OK);
    wf_tensors_ref(t);
    weft_tensors_free(t);
    ck_assert_uint_gt(m.live_blocks, 0);
    ck_assert_uint_eq(wf_tensors_count(t), 1);
    ck_assert_uint_eq(wf_tensors_file_size(t), 70);
    weft_tensors_free(t);
    ck_assert_uint_eq(m.live_blocks, 0);
    weft_tensors_free(NULL);
}
END_TEST

/* ---- memory that runs out ---- */

START_TEST(every_allocation_of_ours_may_fail)
{
    static const char *const files[] = { "st_ok_unsorted", "st_ok_no_tensors", "st_bad_hole" };

    for (size_t i = 0; i < WF_LEN(files); i++) {
        char        file[256];
        weft_status st = WEFT_E_NOMEM;
        size_t      n  = 0;

        snprintf(file, sizeof file, "data/fixtures/%s.safetensors", files[i]);
        while (st == WEFT_E_NOMEM) {
            test_memory    m;
            weft_allocator a = test_allocator(&m);
            weft_tensors  *t;

            m.fail_at = ++n;
            st = wf_tensors_open(test_path(file), _i == 1, &a, &t, &err);
            if (st == WEFT_E_NOMEM) { ck_assert_ptr_null(t); check_one_line(&err); }
            weft_tensors_free(t);
            ck_assert_uint_eq(m.live_blocks, 0);
            ck_assert_uint_lt(n, 100);
        }
        ck_assert_int_eq(st, i < 2 ? WEFT_OK : WEFT_E_FORMAT);
        ck_assert_uint_ge(n, 4);
    }
}
END_TEST

static size_t json_calls, json_fail_at;

static void *json_alloc(size_t size)
{
    if (++json_calls == json_fail_at) { errno = ENOMEM; return NULL; }
    return malloc(size);
}

START_TEST(every_allocation_of_jansson_may_fail)
{
    size_t n = 0;

    json_set_alloc_funcs(json_alloc, free);
    do {
        weft_tensors *t;
        weft_status   st;

        json_calls   = 0;
        json_fail_at = ++n;
        st = weft_tensors_open(test_path("data/fixtures/st_ok_unsorted.safetensors"), NULL, &t, &err);
        json_fail_at = 0;
        if (st != WEFT_OK) ck_assert_msg(st == WEFT_E_NOMEM, "allocation %zu: %s", n, err.text);
        else               ck_assert_int_ge(weft_tensors_find(t, "a"), 0);
        weft_tensors_free(t);
    } while (json_calls >= n);
    ck_assert_uint_gt(n, 20);
    json_set_alloc_funcs(malloc, free);
}
END_TEST

/* ---- writing ---- */

static char dir[256], path[512], path2[512];

static void setup_dir(void)
{
    setup();
    snprintf(dir, sizeof dir, "%s", test_dir());
    snprintf(path, sizeof path, "%s/a.safetensors", dir);
    snprintf(path2, sizeof path2, "%s/b.safetensors", dir);
}

static void teardown_dir(void)
{
    unlink(path);
    unlink(path2);
    test_rmdir(dir);
}

static weft_tensor_out out_tensor(const char *name, const float *data, size_t rank, int64_t a, int64_t b)
{
    weft_tensor_out t;

    memset(&t, 0, sizeof t);
    t.struct_size = sizeof t;
    t.name     = name;
    t.data     = data;
    t.rank     = rank;
    t.shape[0] = a;
    t.shape[1] = b;
    return t;
}

static const float six[] = { 0, -0.0f, 1.5f, -2, 3e38f, 1e-45f };

START_TEST(what_is_written_is_read_back)
{
    const char *const meta[] = { "prompt", "a \"cat\"\n\ton a \\mat\x01\x7f \xc3\xa9 \xf0\x9f\x98\x80", "", "empty key" };
    const weft_tensor_out tensors[] = {
        out_tensor("z/\"quoted\"\\", six, 2, 2, 3), out_tensor("scalar", six + 2, 0, 0, 0),
        out_tensor("a.\xc3\xa9", NULL, 2, 4, 0),    out_tensor("b", six, 1, 6, 0),
    };
    weft_tensor_info info = WEFT_TENSOR_INFO_INIT;
    weft_tensors    *t;
    float            v[6];

    ck_assert_int_eq(weft_tensors_write(path, tensors, 4, meta, 2, &err), WEFT_OK);
    ck_assert_int_eq(weft_tensors_open(path, NULL, &t, &err), WEFT_OK);
    ck_assert_uint_eq(weft_tensors_count(t), 4);
    for (size_t i = 0; i < 4; i++) {
        int64_t at = weft_tensors_find(t, tensors[i].name);

        ck_assert_int_ge(at, 0);
        ck_assert_int_eq(weft_tensors_info(t, (size_t)at, &info, &err), WEFT_OK);
        ck_assert_str_eq(info.name, tensors[i].name);
        ck_assert_str_eq(info.dtype, "F32");
        ck_assert_uint_eq(info.rank, tensors[i].rank);
        for (size_t d = 0; d < info.rank; d++) ck_assert_int_eq(info.shape[d], tensors[i].shape[d]);
        ck_assert_int_eq(weft_tensors_read(t, (size_t)at, v, info.count, &err), WEFT_OK);
        if (info.count > 0) ck_assert_int_eq(memcmp(v, tensors[i].data, info.count * sizeof *v), 0);
        ck_assert_uint_eq((uintptr_t)wf_tensors_at(t, (size_t)at)->data % 4, 0);  /* a padded header */
    }
    ck_assert_str_eq(weft_tensors_metadata(t, "prompt"), meta[1]);
    ck_assert_str_eq(weft_tensors_metadata(t, ""), meta[3]);
    ck_assert_ptr_null(weft_tensors_metadata(t, "absent"));
    ck_assert_uint_eq(wf_tensors_meta_count(t), 2);
    ck_assert_str_eq(wf_tensors_meta_key(t, 1), "prompt");
    ck_assert_ptr_null(wf_tensors_meta_key(t, 2));
    ck_assert_ptr_null(wf_tensors_meta_value(t, 2));
    weft_tensors_free(t);
}
END_TEST

START_TEST(the_same_tensors_give_the_same_bytes)
{
    const char *const meta[]  = { "a", "1", "b", "2" }, *const swapped[] = { "b", "2", "a", "1" };
    const weft_tensor_out x = out_tensor("x", six, 1, 6, 0), y = out_tensor("y", six, 2, 1, 1);
    const weft_tensor_out xy[] = { x, y }, yx[] = { y, x };
    wf_file f = WF_FILE_NONE, g = WF_FILE_NONE;

    ck_assert_int_eq(weft_tensors_write(path, xy, 2, meta, 2, &err), WEFT_OK);
    ck_assert_int_eq(weft_tensors_write(path2, yx, 2, swapped, 2, &err), WEFT_OK);
    ck_assert_int_eq(wf_file_open(&f, path, false, &plain, &err), WEFT_OK);
    ck_assert_int_eq(wf_file_open(&g, path2, false, &plain, &err), WEFT_OK);
    ck_assert_uint_eq(f.size, g.size);
    ck_assert_int_eq(memcmp(f.data, g.data, f.size), 0);
    wf_file_close(&f, &plain);
    wf_file_close(&g, &plain);
}
END_TEST

/* A copy does not notice that its file is written over, and is as large as the file. */
START_TEST(a_copy_is_of_its_own)
{
    const weft_tensor_out x = out_tensor("x", six, 1, 6, 0);
    test_memory           m;
    weft_allocator        a = test_allocator(&m);
    weft_tensors_options  o = WEFT_TENSORS_OPTIONS_INIT;
    weft_tensors         *t;
    size_t                mapped;
    float                 v[6];

    ck_assert_int_eq(weft_tensors_write(path, &x, 1, NULL, 0, &err), WEFT_OK);
    o.allocator = &a;
    ck_assert_int_eq(weft_tensors_open(path, &o, &t, &err), WEFT_OK);
    mapped = m.live_bytes;
    weft_tensors_free(t);
    o.flags = WEFT_OPEN_COPY;
    ck_assert_int_eq(weft_tensors_open(path, &o, &t, &err), WEFT_OK);
    ck_assert_uint_ge(m.live_bytes, mapped + wf_tensors_file_size(t));
    ck_assert_int_eq(truncate(path, 0), 0);
    ck_assert_int_eq(weft_tensors_read(t, 0, v, 6, &err), WEFT_OK);
    ck_assert_mem_eq(v, six, sizeof v);
    weft_tensors_free(t);
    ck_assert_uint_eq(m.live_blocks, 0);
    o.name = "x";
    ck_assert_int_eq(weft_tensors_open(path, &o, &t, &err), WEFT_E_ARG); /* a file has its path */
    o.name = NULL;
    o.flags = WEFT_TENSORS_BORROW;
    ck_assert_int_ne(weft_tensors_open(path, &o, &t, &err), WEFT_OK);
}
END_TEST

/* Values go out in the type that they are given in. */
START_TEST(types_are_written_as_they_are)
{
    static const uint16_t halves[] = { 0x3c00, 0xc000 }; /* 1, -2 */
    weft_tensor_out       t = WEFT_TENSOR_OUT_INIT;
    weft_tensor_info      info = WEFT_TENSOR_INFO_INIT;
    weft_tensors         *file;
    float                 v[2];

    t.name = "h";
    t.data = halves;
    t.rank = 1;
    t.shape[0] = 2;
    t.dtype = "F16";
    ck_assert_int_eq(weft_tensors_write(path, &t, 1, NULL, 0, &err), WEFT_OK);
    ck_assert_int_eq(weft_tensors_open(path, NULL, &file, &err), WEFT_OK);
    ck_assert_int_eq(weft_tensors_info(file, 0, &info, &err), WEFT_OK);
    ck_assert_str_eq(info.dtype, "F16");
    ck_assert_int_eq(weft_tensors_read(file, 0, v, 2, &err), WEFT_OK);
    ck_assert_float_eq(v[0], 1);
    ck_assert_float_eq(v[1], -2);
    weft_tensors_free(file);
    t.dtype = "half";
    ck_assert_int_eq(weft_tensors_write(path, &t, 1, NULL, 0, &err), WEFT_E_ARG);
    t.dtype = "F4";
    t.shape[0] = 3;
    ck_assert_int_eq(weft_tensors_write(path, &t, 1, NULL, 0, &err), WEFT_E_ARG); /* a byte and a half */
}
END_TEST

START_TEST(nothing_is_a_file_too)
{
    weft_tensors *t;

    ck_assert_int_eq(weft_tensors_write(path, NULL, 0, NULL, 0, &err), WEFT_OK);
    ck_assert_int_eq(weft_tensors_open(path, NULL, &t, &err), WEFT_OK);
    ck_assert_uint_eq(weft_tensors_count(t), 0);
    weft_tensors_free(t);
}
END_TEST

static void refuses_to_write(weft_tensor_out a, weft_tensor_out b, const char *text)
{
    const weft_tensor_out tensors[] = { a, b };

    ck_assert_int_eq(weft_tensors_write(path, tensors, 2, NULL, 0, &err), WEFT_E_ARG);
    check_one_line(&err);
    ck_assert_msg(strstr(err.text, text) != NULL, "\"%s\" does not say \"%s\"", err.text, text);
    ck_assert(!wf_path_exists(path));
}

START_TEST(what_cannot_be_written_is_refused)
{
    const char *const bad_value[] = { "k", "\xff" }, *const twice[] = { "k", "1", "k", "2" }, *const hole[] = { "k", NULL };
    const weft_tensor_out good = out_tensor("good", six, 1, 6, 0);
    weft_tensor_out       bad  = good;

    refuses_to_write(good, out_tensor(NULL, six, 1, 6, 0), "tensor 1 has no name");
    refuses_to_write(good, good, "two tensors are named \"good\"");
    refuses_to_write(good, out_tensor("\xff", six, 1, 6, 0), "cannot be a name");
    refuses_to_write(good, out_tensor("__metadata__", six, 1, 6, 0), "cannot be a name");
    refuses_to_write(good, out_tensor("x", NULL, 1, 6, 0), "data is NULL");
    refuses_to_write(good, out_tensor("x", six, 1, -1, 0), "negative");
    refuses_to_write(good, out_tensor("x", six, 2, INT64_MAX, INT64_MAX), "overflows");
    refuses_to_write(good, out_tensor("x", six, 9, 1, 1), "rank 9, expected at most 8");
    bad.struct_size = 8;
    refuses_to_write(good, bad, "struct_size is 8, but the first has");
    refuses_to_write(bad, bad, "struct_size is 8");

    ck_assert_int_eq(weft_tensors_write(path, &good, 1, bad_value, 1, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_tensors_write(path, &good, 1, twice, 2, &err), WEFT_E_ARG);
    ck_assert_str_eq(err.text, "metadata key \"k\" is given twice");
    ck_assert_int_eq(weft_tensors_write(path, &good, 1, hole, 1, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_tensors_write(path, &good, 1, NULL, 1, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_tensors_write(path, NULL, 1, NULL, 0, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_tensors_write(NULL, &good, 1, NULL, 0, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_tensors_write(dir, &good, 1, NULL, 0, &err), WEFT_E_IO);
    ck_assert(!wf_path_exists(path));
}
END_TEST

/* A caller compiled against a later header, whose struct is larger: its array strides by its own size. */
START_TEST(a_newer_callers_array_is_walked_with_its_stride)
{
    struct { weft_tensor_out t; uint64_t later; } newer[2];
    weft_tensors *t;

    memset(newer, 0, sizeof newer);
    newer[0].t = out_tensor("x", six, 1, 6, 0);
    newer[1].t = out_tensor("y", six, 1, 2, 0);
    newer[0].t.struct_size = newer[1].t.struct_size = sizeof newer[0];
    ck_assert_int_eq(weft_tensors_write(path, &newer[0].t, 2, NULL, 0, &err), WEFT_OK);
    ck_assert_int_eq(weft_tensors_open(path, NULL, &t, &err), WEFT_OK);
    ck_assert_int_ge(weft_tensors_find(t, "y"), 0);
    weft_tensors_free(t);
    newer[1].later = 1;
    ck_assert_int_eq(weft_tensors_write(path, &newer[0].t, 2, NULL, 0, &err), WEFT_E_UNSUPPORTED);
}
END_TEST

START_TEST(shapes_are_written_as_python_does)
{
    const int64_t shape[8] = { 320, 8, INT64_MAX, INT64_MIN, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX };
    wf_shape_text buf;

    ck_assert_str_eq(wf_shape(&buf, shape, 0), "()");
    ck_assert_str_eq(wf_shape(&buf, shape, 1), "(320,)");
    ck_assert_str_eq(wf_shape(&buf, shape, 2), "(320, 8)");
    ck_assert_str_eq(wf_shape(&buf, shape, 4), "(320, 8, 9223372036854775807, -9223372036854775808)");
    ck_assert_uint_lt(strlen(wf_shape(&buf, shape, 8)), sizeof buf.text);
    ck_assert_ptr_nonnull(strstr(buf.text, "...)"));
}
END_TEST

START_TEST(init_is_the_macro)
{
    const weft_tensor_info want = WEFT_TENSOR_INFO_INIT;
    weft_tensor_info       info;

    memset(&info, 0xff, sizeof info);
    weft_tensor_info_init(&info, sizeof info);
    ck_assert_int_eq(memcmp(&info, &want, sizeof info), 0);
    weft_tensor_info_init(NULL, sizeof info);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("safetensors");
    TCase *r = tcase_create("read"), *w = tcase_create("write");

    tcase_set_timeout(r, 60);
    tcase_add_checked_fixture(r, setup, NULL);
    tcase_add_test(r, every_fixture_opens_or_is_refused_as_it_should);
    tcase_add_test(r, each_refusal_says_what_was_found);
    tcase_add_test(r, no_truncated_file_opens);
    tcase_add_test(r, a_truncated_file_on_disk_is_refused);
    tcase_add_test(r, files_of_other_kinds_are_refused);
    tcase_add_test(r, plain_headers_are_taken);
    tcase_add_test(r, broken_headers_are_refused);
    tcase_add_test(r, a_hundred_thousand_tensors_and_no_more);
    tcase_add_test(r, names_have_at_most_1024_bytes);
    tcase_add_test(r, a_header_of_commas_is_not_parsed);
    tcase_add_test(r, nul_in_metadata_is_a_sign_that_cannot_be_had);
    tcase_add_test(r, tensors_stand_in_the_order_of_the_data);
    tcase_add_test(r, reading_widens_unaligned_data);
    tcase_add_test(r, complex_numbers_are_described_and_not_read);
    tcase_add_test(r, the_last_reference_closes);
    tcase_add_loop_test(r, every_allocation_of_ours_may_fail, 0, 2);
    tcase_add_test(r, every_allocation_of_jansson_may_fail);
    tcase_add_test(r, shapes_are_written_as_python_does);
    tcase_add_test(r, init_is_the_macro);
    suite_add_tcase(suite, r);

    tcase_add_checked_fixture(w, setup_dir, teardown_dir);
    tcase_add_test(w, what_is_written_is_read_back);
    tcase_add_test(w, the_same_tensors_give_the_same_bytes);
    tcase_add_test(w, a_copy_is_of_its_own);
    tcase_add_test(w, types_are_written_as_they_are);
    tcase_add_test(w, nothing_is_a_file_too);
    tcase_add_test(w, what_cannot_be_written_is_refused);
    tcase_add_test(w, a_newer_callers_array_is_walked_with_its_stride);
    suite_add_tcase(suite, w);
    return run_suite(suite);
}
