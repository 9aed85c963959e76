/* gzip: what is unpacked, and how much of it at most. */
#include <zlib.h>

#include "../base/support.h"
#include "io/io.h"

static weft_allocator plain;
static weft_error     err;
static uint8_t        packed[1 << 16];

static void setup(void)
{
    plain = wf_allocator(NULL);
}

static size_t pack(uint8_t *out, size_t cap, const void *data, size_t n)
{
    z_stream z;
    size_t   made;

    memset(&z, 0, sizeof z);
    ck_assert_int_eq(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in   = (Bytef *)(uintptr_t)data;
    z.avail_in  = (unsigned)n;
    z.next_out  = out;
    z.avail_out = (unsigned)cap;
    ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
    made = cap - z.avail_out;
    deflateEnd(&z);
    return made;
}

static void refuses(const void *data, size_t n, size_t limit, const char *text)
{
    wf_file f;

    ck_assert_int_eq(wf_gzip_unpack(&f, data, n, "f.gz", limit, &plain, &err), WEFT_E_FORMAT);
    check_one_line(&err);
    ck_assert_msg(strstr(err.text, text) != NULL, "\"%s\" does not say \"%s\"", err.text, text);
    ck_assert_ptr_null(f.data);
}

START_TEST(a_nul_stands_behind_what_is_unpacked)
{
    size_t  n = pack(packed, sizeof packed, "low er</w>\n", 11);
    wf_file f;

    ck_assert_int_eq(wf_gzip_unpack(&f, packed, n, "f", 1000, &plain, &err), WEFT_OK);
    ck_assert_uint_eq(f.size, 11);
    ck_assert_str_eq((const char *)f.data, "low er</w>\n");
    wf_file_close(&f, &plain);
    ck_assert_int_eq(wf_gzip_unpack(&f, packed, n, "f", 5, &plain, &err), WEFT_E_FORMAT);
}
END_TEST

START_TEST(streams_follow_one_another)
{
    size_t  n = pack(packed, sizeof packed, "one", 3);
    wf_file f;

    n += pack(packed + n, sizeof packed - n, NULL, 0);
    n += pack(packed + n, sizeof packed - n, "two", 3);
    ck_assert_int_eq(wf_gzip_unpack(&f, packed, n, "f", 6, &plain, &err), WEFT_OK);
    ck_assert_str_eq((const char *)f.data, "onetwo");
    wf_file_close(&f, &plain);
}
END_TEST

/* Ten million zeros in ten thousand bytes; the limit is reached and not one byte more is kept. */
START_TEST(a_bomb_is_bounded)
{
    const size_t   big = 10000000;
    uint8_t       *zeros = calloc(big, 1);
    size_t         n = pack(packed, sizeof packed, zeros, big);
    test_memory    m;
    weft_allocator a = test_allocator(&m);
    wf_file        f;

    refuses(packed, n, 100000, "f.gz: more than 100000 bytes when unpacked");
    refuses(packed, n, big - 1, "more than 9999999 bytes");
    ck_assert_int_eq(wf_gzip_unpack(&f, packed, n, "f", big, &a, &err), WEFT_OK);
    ck_assert_uint_eq(f.size, big);
    ck_assert_uint_le(m.live_bytes, big + 200);
    wf_file_close(&f, &a);
    ck_assert_uint_eq(m.live_blocks, 0);
    free(zeros);
}
END_TEST

START_TEST(what_is_broken_is_refused)
{
    size_t n = pack(packed, sizeof packed, "hello, hello, hello", 19);

    for (size_t cut = 2; cut < n; cut++) refuses(packed, cut, 100, "gzip: cut short");
    refuses(packed, 1, 100, "not a gzip file");
    refuses("PK\3\4", 4, 100, "not a gzip file");
    packed[n - 5] ^= 1;
    refuses(packed, n, 100, "gzip: incorrect data check");
    packed[n - 5] ^= 1;
    packed[n] = 'x';
    refuses(packed, n + 1, 100, "gzip: ");
}
END_TEST

START_TEST(every_allocation_may_fail)
{
    size_t      n = pack(packed, sizeof packed, "hello", 5), at = 0;
    weft_status st;

    do {
        test_memory    m;
        weft_allocator a = test_allocator(&m);
        wf_file        f;

        m.fail_at = ++at;
        st = wf_gzip_unpack(&f, packed, n, "f", 100, &a, &err);
        if (st != WEFT_OK) ck_assert_int_eq(st, WEFT_E_NOMEM);
        wf_file_close(&f, &a);
        ck_assert_uint_eq(m.live_blocks, 0);
    } while (st != WEFT_OK);
    ck_assert_uint_ge(at, 3);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gzip");
    TCase *c = tcase_create("all");

    tcase_add_checked_fixture(c, setup, NULL);
    tcase_add_test(c, a_nul_stands_behind_what_is_unpacked);
    tcase_add_test(c, streams_follow_one_another);
    tcase_add_test(c, a_bomb_is_bounded);
    tcase_add_test(c, what_is_broken_is_refused);
    tcase_add_test(c, every_allocation_may_fail);
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
