/* support.h - for the tests of base and io: an allocator that fails when told, data, one-line errors. */
#ifndef WF_TEST_SUPPORT_H
#define WF_TEST_SUPPORT_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/base.h"

/* Counts what is alive, and fails from allocation number `fail_at` on (1 is the first; 0 never). */
typedef struct test_memory {
    size_t calls;
    size_t fail_at;
    size_t live_blocks;
    size_t live_bytes;
    size_t peak_bytes; /* most that were alive at a time */
} test_memory;

static inline void *test_alloc(void *user, size_t size, size_t align)
{
    test_memory *m = user;
    void        *p;

    m->calls++;
    if (m->fail_at != 0 && m->calls >= m->fail_at) return NULL;
    p = aligned_alloc(align, (size + align - 1) / align * align);
    if (p == NULL) return NULL;
    m->live_blocks++;
    m->live_bytes += size;
    if (m->live_bytes > m->peak_bytes) m->peak_bytes = m->live_bytes;
    return p;
}

static inline void test_free(void *user, void *p, size_t size)
{
    test_memory *m = user;

    m->live_blocks--;
    m->live_bytes -= size;
    free(p);
}

static inline weft_allocator test_allocator(test_memory *m)
{
    weft_allocator a = { test_alloc, test_free, m };

    memset(m, 0, sizeof *m);
    return a;
}

/* A path below tests/, in one of a few static buffers. */
static inline const char *test_path(const char *name)
{
    static char buffers[4][1024];
    static int  next;
    const char *root = getenv("WEFT_TESTS");
    char       *path = buffers[next++ % 4];

    snprintf(path, sizeof buffers[0], "%s/%s", root != NULL ? root : "tests", name);
    return path;
}

/* A fresh folder; remove it with test_rmdir once it is empty. */
static inline const char *test_dir(void)
{
    static char path[256];
    const char *tmp = getenv("TMPDIR");

    snprintf(path, sizeof path, "%s/weft-test-XXXXXX", tmp != NULL ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(path));
    return path;
}

/* Fails while anything is left inside: that is how the tests notice a forgotten temporary file. */
static inline void test_rmdir(const char *dir)
{
    ck_assert_int_eq(rmdir(dir), 0);
}

/* What every error text promises: something, on one line, in valid UTF-8. */
static inline void check_one_line(const weft_error *err)
{
    size_t n = strlen(err->text);

    ck_assert_uint_gt(n, 0);
    ck_assert_msg(wf_utf8_valid(err->text, n), "not UTF-8: %s", err->text);
    for (size_t i = 0; i < n; i++)
        ck_assert_msg((unsigned char)err->text[i] >= 0x20 && err->text[i] != 0x7f, "control character: %s", err->text);
}

static inline int run_suite(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    int      failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
