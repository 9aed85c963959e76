/* Files: read whole or mapped, written whole or not at all. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1 /* O_TMPFILE */
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "../base/support.h"
#include "io/io.h"

static weft_allocator plain;
static weft_error     err;
static char           dir[256];
static char           path[512];

static void setup(void)
{
    plain = wf_allocator(NULL);
    snprintf(dir, sizeof dir, "%s", test_dir());
    snprintf(path, sizeof path, "%s/file", dir);
}

static void teardown(void)
{
    unlink(path);
    test_rmdir(dir);
}

START_TEST(what_is_written_is_read_either_way)
{
    for (int copy = 0; copy < 2; copy++) {
        wf_file f = WF_FILE_NONE;

        ck_assert_int_eq(wf_file_write(path, "hello", 5, &err), WEFT_OK);
        ck_assert_int_eq(wf_file_open(&f, path, copy != 0, &plain, &err), WEFT_OK);
        ck_assert_uint_eq(f.size, 5);
        ck_assert_int_eq(f.mapped, copy == 0);
        ck_assert_int_eq(memcmp(f.data, "hello", 5), 0);
        wf_file_close(&f, &plain);
        ck_assert_ptr_null(f.data);
        wf_file_close(&f, &plain);
    }
}
END_TEST

START_TEST(a_small_file_is_read_with_a_nul_behind_it)
{
    wf_file f = WF_FILE_NONE;

    ck_assert_int_eq(wf_file_write(path, "hello", 5, &err), WEFT_OK);
    ck_assert_int_eq(wf_file_read(&f, path, 5, &plain, &err), WEFT_OK);
    ck_assert_uint_eq(f.size, 5);
    ck_assert_str_eq((const char *)f.data, "hello");
    wf_file_close(&f, &plain);
    ck_assert_int_eq(wf_file_read(&f, path, 4, &plain, &err), WEFT_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(err.text, "5 bytes, expected at most 4"));
    ck_assert_ptr_null(f.data);
}
END_TEST

START_TEST(an_empty_file_is_a_file)
{
    wf_file f = WF_FILE_NONE;

    ck_assert_int_eq(wf_file_write(path, NULL, 0, &err), WEFT_OK);
    ck_assert_int_eq(wf_file_open(&f, path, false, &plain, &err), WEFT_OK);
    ck_assert_uint_eq(f.size, 0);
    wf_file_close(&f, &plain);
}
END_TEST

START_TEST(what_is_no_file_is_refused)
{
    wf_file f = WF_FILE_NONE;

    ck_assert_int_eq(wf_file_open(&f, path, false, &plain, &err), WEFT_E_IO);
    ck_assert_int_eq(err.sys, ENOENT);
    check_one_line(&err);
    ck_assert_int_eq(wf_file_open(&f, dir, false, &plain, &err), WEFT_E_IO);
    ck_assert_int_eq(err.sys, EISDIR);
    ck_assert_int_eq(wf_file_open(&f, NULL, false, &plain, &err), WEFT_E_ARG);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_assert_int_eq(wf_file_open(&f, path, false, &plain, &err), WEFT_E_IO);  /* and does not wait for a writer */
    check_one_line(&err);
}
END_TEST

START_TEST(out_of_memory_leaves_nothing_open)
{
    test_memory    m;
    weft_allocator a = test_allocator(&m);
    wf_file        f = WF_FILE_NONE;

    ck_assert_int_eq(wf_file_write(path, "hello", 5, &err), WEFT_OK);
    m.fail_at = 1;
    ck_assert_int_eq(wf_file_open(&f, path, true, &a, &err), WEFT_E_NOMEM);
    ck_assert_int_eq(wf_file_read(&f, path, 100, &a, &err), WEFT_E_NOMEM);
    ck_assert_ptr_null(f.data);
}
END_TEST

START_TEST(writing_replaces_the_whole_file)
{
    const wf_part parts[] = { { "ab", 2 }, { NULL, 0 }, { "c", 1 } };
    wf_file       f = WF_FILE_NONE;

    ck_assert_int_eq(wf_file_write(path, "something longer", 16, &err), WEFT_OK);
    ck_assert_int_eq(wf_file_write_parts(path, parts, 3, &err), WEFT_OK);
    ck_assert_int_eq(wf_file_read(&f, path, 100, &plain, &err), WEFT_OK);
    ck_assert_str_eq((const char *)f.data, "abc");
    wf_file_close(&f, &plain);
}
END_TEST

START_TEST(a_new_file_has_the_mode_that_the_umask_gives)
{
    mode_t      before = umask(027);
    struct stat info;

    ck_assert_int_eq(wf_file_write(path, "x", 1, &err), WEFT_OK);
    umask(before);
    ck_assert_int_eq(stat(path, &info), 0);
    ck_assert_uint_eq(info.st_mode & 0777, 0640);
}
END_TEST

/* teardown removes the folder, which fails if a temporary file was left in it. */
START_TEST(a_write_that_fails_leaves_nothing)
{
    char inside[600], long_name[5000];

    snprintf(inside, sizeof inside, "%s/absent/file", dir);
    ck_assert_int_eq(wf_file_write(inside, "x", 1, &err), WEFT_E_IO);
    ck_assert_int_eq(err.sys, ENOENT);
    ck_assert_int_eq(wf_file_write(dir, "x", 1, &err), WEFT_E_IO);
    ck_assert_int_eq(err.sys, EISDIR);
    ck_assert_int_eq(wf_file_write(NULL, "x", 1, &err), WEFT_E_ARG);
    memset(long_name, 'a', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    ck_assert_int_eq(wf_file_write(long_name, "x", 1, &err), WEFT_E_IO);
    snprintf(long_name, sizeof long_name, "%s/%0300d", dir, 1);  /* the temporary can be made, the name not */
    ck_assert_int_eq(wf_file_write(long_name, "x", 1, &err), WEFT_E_IO);
    ck_assert_int_eq(err.sys, ENAMETOOLONG);
    check_one_line(&err);
}
END_TEST

START_TEST(a_name_as_long_as_the_system_allows_can_be_written)
{
    char longest[600];

    snprintf(longest, sizeof longest, "%s/%0255d", dir, 1);
    ck_assert_int_eq(wf_file_write(longest, "x", 1, &err), WEFT_OK);
    unlink(longest);
}
END_TEST

START_TEST(a_link_stays_a_link)
{
    char        link[600], far[600];
    struct stat info;
    wf_file     f = WF_FILE_NONE;

    ck_assert_int_eq(wf_file_write(path, "old", 3, &err), WEFT_OK);
    snprintf(link, sizeof link, "%s/link", dir);
    snprintf(far, sizeof far, "%s/far", dir);
    ck_assert_int_eq(symlink(strrchr(path, '/') + 1, link), 0);
    ck_assert_int_eq(symlink(link, far), 0);
    ck_assert_int_eq(wf_file_write(far, "new", 3, &err), WEFT_OK);
    ck_assert(lstat(far, &info) == 0 && S_ISLNK(info.st_mode));
    ck_assert(lstat(link, &info) == 0 && S_ISLNK(info.st_mode));
    ck_assert_int_eq(wf_file_read(&f, path, 100, &plain, &err), WEFT_OK);
    ck_assert_str_eq((const char *)f.data, "new");
    wf_file_close(&f, &plain);

    unlink(path);                                /* a link to a file that is not there yet */
    ck_assert_int_eq(wf_file_write(far, "again", 5, &err), WEFT_OK);
    ck_assert(lstat(path, &info) == 0 && S_ISREG(info.st_mode));
    unlink(link);
    ck_assert_int_eq(symlink("far", link), 0);   /* and two that point to each other */
    ck_assert_int_eq(wf_file_write(far, "x", 1, &err), WEFT_E_IO);
    ck_assert_int_eq(err.sys, ELOOP);
    unlink(link);
    unlink(far);
}
END_TEST

START_TEST(the_mode_of_a_replaced_file_stays)
{
    struct stat info;

    ck_assert_int_eq(wf_file_write(path, "old", 3, &err), WEFT_OK);
    ck_assert_int_eq(chmod(path, 0604), 0);
    ck_assert_int_eq(wf_file_write(path, "new", 3, &err), WEFT_OK);
    ck_assert_int_eq(stat(path, &info), 0);
    ck_assert_uint_eq(info.st_mode & 0777, 0604);
}
END_TEST

/* The second part says no: by then the first is written, and its process may just as well die. */
static weft_status die_at_the_second(void *user, size_t i, wf_part *out, weft_error *e)
{
    static const char first[100000];

    (void)user, (void)e;
    if (i == 1) raise(SIGKILL);
    *out = (wf_part){ first, sizeof first };
    return WEFT_OK;
}

/* teardown removes the folder, which fails if anything was left in it. Where files without a name
 * cannot be made, nothing can be promised. */
START_TEST(a_process_killed_in_a_write_leaves_nothing)
{
    int   status, fd = open(dir, O_WRONLY | O_TMPFILE, 0600);
    pid_t child;

    if (fd < 0) { printf("SKIP this file system has no files without a name\n"); return; }
    close(fd);
    child = fork();
    if (child == 0) {
        wf_file_write_from(path, 2, die_at_the_second, NULL, &err);
        _exit(0);
    }
    ck_assert(child > 0 && waitpid(child, &status, 0) == child);
    ck_assert(WIFSIGNALED(status));
    ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

START_TEST(a_pipe_is_not_replaced_by_a_file)
{
    struct stat info;

    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_assert_int_eq(wf_file_write(path, "x", 1, &err), WEFT_E_IO);
    check_one_line(&err);
    ck_assert_int_eq(stat(path, &info), 0);
    ck_assert(S_ISFIFO(info.st_mode));
}
END_TEST

START_TEST(paths_join_with_one_slash)
{
    static const struct { const char *dir, *name, *path; } cases[] = {
        { "a", "b", "a/b" }, { "a/", "b", "a/b" }, { "", "b", "b" }, { "/", "b", "/b" },
    };

    for (size_t i = 0; i < WF_LEN(cases); i++) {
        char *joined = wf_path_join(&plain, cases[i].dir, cases[i].name);
        ck_assert_str_eq(joined, cases[i].path);
        wf_free(&plain, joined);
    }
    ck_assert(wf_path_is_dir(dir));
    ck_assert(wf_path_exists(dir));
    ck_assert(!wf_path_exists(path));
    ck_assert(!wf_path_is_dir(path));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("file");
    TCase *c = tcase_create("all");

    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, what_is_written_is_read_either_way);
    tcase_add_test(c, a_small_file_is_read_with_a_nul_behind_it);
    tcase_add_test(c, an_empty_file_is_a_file);
    tcase_add_test(c, what_is_no_file_is_refused);
    tcase_add_test(c, out_of_memory_leaves_nothing_open);
    tcase_add_test(c, writing_replaces_the_whole_file);
    tcase_add_test(c, a_new_file_has_the_mode_that_the_umask_gives);
    tcase_add_test(c, a_write_that_fails_leaves_nothing);
    tcase_add_test(c, a_name_as_long_as_the_system_allows_can_be_written);
    tcase_add_test(c, a_link_stays_a_link);
    tcase_add_test(c, the_mode_of_a_replaced_file_stays);
    tcase_add_test(c, a_process_killed_in_a_write_leaves_nothing);
    tcase_add_test(c, a_pipe_is_not_replaced_by_a_file);
    tcase_add_test(c, paths_join_with_one_slash);
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
