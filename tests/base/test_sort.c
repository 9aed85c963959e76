/* Sorting against the C library's, and the hash. */
#include <stdlib.h>

#include "support.h"

/* ---- sorting ---- */

static int compare_bytes(const void *a, const void *b)
{
    return memcmp(a, b, 2);
}

enum { MOST = 300, WIDEST = 130 };

/* What is sorted: in order, backwards, all equal, few values, and as it comes. */
static uint8_t key_of(int pattern, size_t i, size_t count)
{
    switch (pattern) {
    case 0:  return (uint8_t)(i * 256 / count);
    case 1:  return (uint8_t)((count - 1 - i) * 256 / count);
    case 2:  return 7;
    case 3:  return (uint8_t)(i * 7 % 3);
    default: return (uint8_t)(i * 2654435761u >> 13);
    }
}

START_TEST(sorted_as_the_c_library_sorts)
{
    static const size_t sizes[] = { 2, 3, 8, 40, 64, 65, WIDEST };

    for (size_t s = 0; s < WF_LEN(sizes); s++)
        for (size_t count = 0; count <= MOST; count += 1 + count / 4)
            for (int pattern = 0; pattern < 5; pattern++) {
                uint8_t got[MOST * WIDEST], want[MOST * WIDEST];
                size_t  size = sizes[s];

                for (size_t i = 0; i < count;
                     i++) { /* equal keys have equal elements, so any order of them is one */
                    uint8_t key = key_of(pattern, i, count);
                    for (size_t b = 0; b < size; b++) got[i * size + b] = (uint8_t)(key + 31 * b);
                }
                memcpy(want, got, count * size);
                wf_sort(got, count, size, compare_bytes);
                if (count > 0) qsort(want, count, size, compare_bytes);
                ck_assert_msg(count == 0 || memcmp(got, want, count * size) == 0,
                              "%zu of %zu bytes, pattern %d", count, size, pattern);
            }
}
END_TEST

/* ---- the hash ---- */

START_TEST(every_bit_the_length_and_the_key_matter)
{
    uint8_t  data[40] = { 0 };
    uint64_t seen[8 * sizeof data + sizeof data + 65];
    size_t   n = 0;

    for (size_t i = 0; i < 8 * sizeof data; i++) {
        data[i / 8] = (uint8_t)(1u << i % 8);
        seen[n++] = wf_hash(5, data, sizeof data);
        data[i / 8] = 0;
    }
    for (size_t len = 0; len <= sizeof data; len++) seen[n++] = wf_hash(5, data, len);
    for (int i = 0; i < 64; i++) seen[n++] = wf_hash(5 ^ (uint64_t)1 << i, data, sizeof data);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++) ck_assert_msg(seen[i] != seen[j], "%zu and %zu", i, j);
    ck_assert_uint_eq(wf_hash(5, data, 9), wf_hash(5, data, 9));
    ck_assert_uint_eq(wf_hash(1, NULL, 0), wf_hash(1, data, 0));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sort and hash");
    TCase *c = tcase_create("all");

    tcase_add_test(c, sorted_as_the_c_library_sorts);
    tcase_add_test(c, every_bit_the_length_and_the_key_matter);
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
