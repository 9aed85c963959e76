/* The allocator, checked sizes, reference counts, the arena. */
#include "support.h"

START_TEST(blocks_are_aligned_and_freed_with_their_size)
{
    test_memory    m;
    weft_allocator a = test_allocator(&m);

    for (size_t size = 0; size < 300; size++) {
        uint8_t *p = wf_alloc(&a, size);
        ck_assert_ptr_nonnull(p);
        ck_assert_uint_eq((uintptr_t)p % 64, 0);
        memset(p, 0xff, size);
        ck_assert_uint_ge(m.live_bytes, size);
        wf_free(&a, p);
        ck_assert_uint_eq(m.live_bytes, 0);
    }
    wf_free(&a, NULL);
    ck_assert_uint_eq(m.live_blocks, 0);
}
END_TEST

START_TEST(the_default_allocator_is_malloc)
{
    weft_allocator a = wf_allocator(NULL);
    uint8_t       *p = wf_zalloc(&a, 100, 3);

    ck_assert_uint_eq((uintptr_t)p % 64, 0);
    for (int i = 0; i < 300; i++) ck_assert_uint_eq(p[i], 0);
    wf_free(&a, p);
    ck_assert_ptr_null(wf_alloc(&a, SIZE_MAX));
    ck_assert_ptr_null(wf_alloc(&a, SIZE_MAX - 100));
    ck_assert_ptr_null(wf_zalloc(&a, SIZE_MAX / 2, 3));
}
END_TEST

START_TEST(half_an_allocator_is_refused)
{
    const weft_allocator whole = { test_alloc, test_free, NULL }, half = { test_alloc, NULL, NULL };
    weft_error err = { 0, 0, "" };

    ck_assert_int_eq(wf_check_allocator(NULL, &err), WEFT_OK);
    ck_assert_int_eq(wf_check_allocator(&whole, &err), WEFT_OK);
    ck_assert_int_eq(wf_check_allocator(&half, &err), WEFT_E_ARG);
    ck_assert_str_eq(err.text, "weft_allocator: free is NULL");
}
END_TEST

START_TEST(strings_are_copied)
{
    test_memory    m;
    weft_allocator a = test_allocator(&m);
    char *whole = wf_strdup(&a, "warp"), *part = wf_strndup(&a, "warp", 2), *none = wf_strndup(&a, "", 0);

    ck_assert_str_eq(whole, "warp");
    ck_assert_str_eq(part, "wa");
    ck_assert_str_eq(none, "");
    wf_free(&a, whole);
    wf_free(&a, part);
    wf_free(&a, none);
    ck_assert_uint_eq(m.live_blocks, 0);
    m.fail_at = 1;
    ck_assert_ptr_null(wf_strdup(&a, "x"));
}
END_TEST

START_TEST(sizes_notice_overflow)
{
    size_t out = 7;

    ck_assert(wf_mul(SIZE_MAX, 1, &out) && out == SIZE_MAX);
    ck_assert(wf_mul(SIZE_MAX, 0, &out) && out == 0);
    ck_assert(wf_mul(0, SIZE_MAX, &out) && out == 0);
    ck_assert(wf_add(SIZE_MAX - 1, 1, &out) && out == SIZE_MAX);
    out = 7;
    ck_assert(!wf_mul(SIZE_MAX / 2 + 1, 2, &out) && out == 7);
    ck_assert(!wf_add(SIZE_MAX, 1, &out) && out == 7);
}
END_TEST

START_TEST(out_of_memory_names_the_thing)
{
    weft_error err;

    ck_assert_int_eq(wf_nomem(&err, 1234, "scratch"), WEFT_E_NOMEM);
    ck_assert_str_eq(err.text, "out of memory: 1234 bytes for scratch");
}
END_TEST

START_TEST(the_last_holder_destroys)
{
    wf_refs refs;

    wf_ref_init(&refs);
    wf_ref_take(&refs);
    ck_assert(!wf_ref_drop(&refs));
    ck_assert(wf_ref_drop(&refs));
}
END_TEST

/* 3 floats take one block of 64 bytes, 17 floats two. */
START_TEST(a_dry_arena_tells_what_the_real_one_needs)
{
    wf_arena a = { .dry = true };
    size_t   mark;

    for (int real = 0; real < 2; real++) {
        float *first = wf_arena_take(&a, 3, sizeof *first), *second;
        mark   = wf_arena_mark(&a);
        second = wf_arena_take(&a, 17, sizeof *second);
        ck_assert_uint_eq(a.used, 64 + 128);
        if (real) {
            ck_assert_uint_eq((uintptr_t)first % 64, 0);
            ck_assert_ptr_eq(second, first + 16);
            memset(second, 0, 17 * sizeof *second);
        } else {
            ck_assert_ptr_null(first);
            ck_assert_ptr_null(second);
        }
        wf_arena_release(&a, mark);
        ck_assert_uint_eq(a.used, 64);
        wf_arena_take(&a, 1, 1);
        ck_assert_uint_eq(a.peak, 64 + 128);
        ck_assert(!a.overflow);
        if (!real) {
            wf_arena sized = { .base = aligned_alloc(64, a.peak), .size = a.peak };
            a = sized;
        }
    }
    ck_assert_ptr_null(wf_arena_take(&a, 2, 64));
    ck_assert(a.overflow);
    free(a.base);
}
END_TEST

START_TEST(an_absurd_request_overflows_the_arena)
{
    wf_arena a = { .dry = true }, b = a;

    ck_assert_ptr_null(wf_arena_take(&a, SIZE_MAX, 2));
    ck_assert(a.overflow);
    ck_assert_ptr_null(wf_arena_take(&b, SIZE_MAX, 1));
    ck_assert(b.overflow);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("memory");
    TCase *c = tcase_create("all");

    tcase_add_test(c, blocks_are_aligned_and_freed_with_their_size);
    tcase_add_test(c, the_default_allocator_is_malloc);
    tcase_add_test(c, half_an_allocator_is_refused);
    tcase_add_test(c, strings_are_copied);
    tcase_add_test(c, sizes_notice_overflow);
    tcase_add_test(c, out_of_memory_names_the_thing);
    tcase_add_test(c, the_last_holder_destroys);
    tcase_add_test(c, a_dry_arena_tells_what_the_real_one_needs);
    tcase_add_test(c, an_absurd_request_overflows_the_arena);
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
