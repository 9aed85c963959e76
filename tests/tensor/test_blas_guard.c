/* The guard over OpenBLAS's thread count: what the host had set is there again, in a forked child
 * too. */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <cblas.h>
#include <check.h>
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tensor/blas_guard.h"

/* Stands before OpenBLAS's function: a thread that wants to can be kept inside it, and so inside
 * the guard. */
static void (*set_num_threads)(int);
static _Thread_local bool before, after;
static sem_t inside, go_on;

static void wait_here(void)
{
    sem_post(&inside);
    while (sem_wait(&go_on) != 0) { }
}

void openblas_set_num_threads(int n)
{
    if (set_num_threads == NULL)
        *(void **)&set_num_threads = dlsym(RTLD_NEXT, "openblas_set_num_threads");
    if (before) wait_here();
    set_num_threads(n);
    if (after) wait_here();
}

START_TEST(the_hosts_thread_count_comes_back)
{
    openblas_set_num_threads(2);
    wf_blas_begin();
    wf_blas_begin(); /* two runs at once */
    ck_assert_int_eq(openblas_get_num_threads(), 1);
    wf_blas_end();
    ck_assert_int_eq(openblas_get_num_threads(), 1);
    wf_blas_end();
    ck_assert_int_eq(openblas_get_num_threads(), 2);
}
END_TEST

START_TEST(a_child_forked_inside_a_step_gets_it_back_too)
{
    int status;

    openblas_set_num_threads(2);
    wf_blas_begin();
    pid_t pid = fork();
    if (pid == 0) {
        wf_blas_begin(); /* a run of the child's own */
        int inside = openblas_get_num_threads();
        wf_blas_end();
        _exit(inside == 1 && openblas_get_num_threads() == 2 ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    wf_blas_end();
    ck_assert_int_eq(openblas_get_num_threads(), 2);
}
END_TEST

/* The thread that is kept inside: before or after its change of the count, in begin or in end. */
typedef struct where { bool end, after; } where;
static const where places[] = {
    { false, false }, { false, true }, { true, false }, { true, true }
};

static void *stay_inside(void *user)
{
    const where *w = user;

    if (w->end) wf_blas_begin();
    *(w->after ? &after : &before) = true;
    w->end ? wf_blas_end() : wf_blas_begin();
    before = after = false;
    if (!w->end) wf_blas_end();
    return NULL;
}

START_TEST(a_child_forked_while_another_thread_is_inside_does_not_hang)
{
    const where *w = &places[_i];
    pthread_t    other;
    int          status = -1;

    sem_init(&inside, 0, 0);
    sem_init(&go_on, 0, 0);
    openblas_set_num_threads(2);
    ck_assert_int_eq(pthread_create(&other, NULL, stay_inside, (void *)w), 0);
    while (sem_wait(&inside) != 0) { }
    pid_t pid = fork();
    if (pid == 0) {
        alarm(30);
        wf_blas_begin();
        int within = openblas_get_num_threads();
        wf_blas_end();
        _exit(within == 1 && openblas_get_num_threads() == 2 ? 0 : 1);
    }
    sem_post(&go_on);
    ck_assert_int_eq(pthread_join(other, NULL), 0);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
    ck_assert_int_eq(openblas_get_num_threads(), 2);
    wf_blas_begin(); /* the parent's guard works on */
    ck_assert_int_eq(openblas_get_num_threads(), 1);
    wf_blas_end();
    ck_assert_int_eq(openblas_get_num_threads(), 2);
}
END_TEST

/* A callback inside a step may fork: the child's end is that of the only user that came along. */
START_TEST(a_child_that_began_before_the_fork_ends)
{
    int status = -1;

    openblas_set_num_threads(2);
    wf_blas_begin();
    wf_blas_begin();
    pid_t pid = fork();
    if (pid == 0) {
        wf_blas_end();
        _exit(openblas_get_num_threads() == 2 ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    wf_blas_end();
    wf_blas_end();
    ck_assert_int_eq(openblas_get_num_threads(), 2);
}
END_TEST

enum { ROUNDS = 2000 };

static void *come_and_go(void *user)
{
    for (int i = 0; i < ROUNDS; i++) {
        wf_blas_begin();
        if (openblas_get_num_threads() != 1) *(bool *)user = true;
        wf_blas_end();
    }
    return NULL;
}

START_TEST(threads_that_come_and_go_leave_the_hosts_count)
{
    pthread_t t[4];
    bool      wrong[4] = { false };

    openblas_set_num_threads(2);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&t[i], NULL, come_and_go, &wrong[i]), 0);
    for (int i = 0; i < 4; i++) ck_assert_int_eq(pthread_join(t[i], NULL), 0);
    for (int i = 0; i < 4; i++) ck_assert(!wrong[i]);
    ck_assert_int_eq(openblas_get_num_threads(), 2);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("blas guard");
    TCase *c = tcase_create("all");
    tcase_add_test(c, the_hosts_thread_count_comes_back);
    tcase_add_test(c, a_child_forked_inside_a_step_gets_it_back_too);
    tcase_add_loop_test(c, a_child_forked_while_another_thread_is_inside_does_not_hang, 0, 4);
    tcase_add_test(c, a_child_that_began_before_the_fork_ends);
    tcase_add_test(c, threads_that_come_and_go_leave_the_hosts_count);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
