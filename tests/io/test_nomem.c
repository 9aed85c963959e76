/* Writing when memory runs out: at the nth allocation of ours, and of libpng and zlib below us.
 *
 * Writers have no handle and so no allocator of the caller's: aligned_alloc, which the default one calls,
 * and malloc are defined here instead and fail when told. The sanitizers bring a malloc of their own, so
 * with them only ours is tried. */
#include <errno.h>

#include "../base/support.h"
#include "io/io.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define SANITIZED 1
#endif

static size_t calls, fail_at;
static bool   in_malloc;  /* which of the two is counted */

static bool fails(bool here)
{
    if (in_malloc != here || fail_at == 0 || ++calls != fail_at) return false;
    errno = ENOMEM;
    return true;
}

void *aligned_alloc(size_t align, size_t size)
{
    void *p = NULL;

    if (fails(false)) return NULL;
    return posix_memalign(&p, align, size) == 0 ? p : NULL;
}

#ifndef SANITIZED
void *__libc_malloc(size_t size);

void *malloc(size_t size)
{
    return fails(true) ? NULL : __libc_malloc(size);
}
#endif

static weft_error err;
static char       dir[256], path[512];

static void setup(void)
{
    snprintf(dir, sizeof dir, "%s", test_dir());
    snprintf(path, sizeof path, "%s/file", dir);
}

/* Removing the folder fails where a temporary file was left in it. */
static void teardown(void)
{
    unlink(path);
    test_rmdir(dir);
}

static weft_status write_png(void)
{
    static const char *const text[] = { "parameters", "a cat", "Comment", "none" };
    static uint8_t rgb[64 * 64 * 3];

    return weft_png_write(path, rgb, sizeof rgb, 64, 64, text, 2, &err);
}

static weft_status write_tensors(void)
{
    static const char *const meta[] = { "a", "1", "b", "2" };
    static const float one = 1;
    weft_tensor_out    tensors[40];
    static char        names[40][40];

    memset(tensors, 0, sizeof tensors);
    for (int i = 0; i < 40; i++) {
        sprintf(names[i], "unet.down_blocks.%d.weight", i);
        tensors[i].struct_size = sizeof tensors[i];
        tensors[i].name = names[i];
        tensors[i].data = &one;
    }
    return weft_tensors_write(path, tensors, 40, meta, 2, &err);
}

/* Returns how many allocations there were to fail. */
static size_t fail_each(weft_status (*write_file)(void), bool below)
{
    size_t      n = 0;
    weft_status st;

    in_malloc = below;
    do {
        calls   = 0;
        fail_at = ++n;
        st = write_file();
        fail_at = 0;
        if (calls >= n) {
            ck_assert_msg(st == WEFT_E_NOMEM, "allocation %zu: %s, %s", n, weft_status_name(st), err.text);
            check_one_line(&err);
            ck_assert(!wf_path_exists(path));
        }
    } while (calls >= n);
    ck_assert_int_eq(st, WEFT_OK);
    return n - 1;
}

START_TEST(tensors_are_written_whole_or_not_at_all)
{
    ck_assert_uint_ge(fail_each(write_tensors, false), 5);
}
END_TEST

START_TEST(pictures_are_written_whole_or_not_at_all)
{
    ck_assert_uint_ge(fail_each(write_png, false), 2);
}
END_TEST

#ifndef SANITIZED
START_TEST(libpng_may_run_out_too)
{
    ck_assert_uint_ge(fail_each(write_png, true), 5);
}
END_TEST
#endif

int main(void)
{
    Suite *suite = suite_create("nomem");
    TCase *c = tcase_create("all");

    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, tensors_are_written_whole_or_not_at_all);
    tcase_add_test(c, pictures_are_written_whole_or_not_at_all);
#ifndef SANITIZED
    tcase_add_test(c, libpng_may_run_out_too);
#endif
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
