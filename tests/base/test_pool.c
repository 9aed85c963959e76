/* The thread pool: every task once, on a worker that runs nothing else meanwhile. */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "support.h"

#define MAX_COUNT 5000

typedef struct job {
    atomic_int hits[MAX_COUNT];
    atomic_int busy[8];       /* by worker */
    atomic_int clashes;
    int64_t    sums[8];       /* plain, each worker's own: the sanitizers watch */
} job;

static void count_task(void *user, size_t task, int32_t worker)
{
    job *j = user;

    if (worker < 0 || worker >= 8 || atomic_exchange(&j->busy[worker], 1) != 0) {
        atomic_fetch_add(&j->clashes, 1);
        return;
    }
    atomic_fetch_add(&j->hits[task], 1);
    j->sums[worker] += (int64_t)task;
    atomic_store(&j->busy[worker], 0);
}

START_TEST(each_task_runs_exactly_once)
{
    static job           j;
    const weft_allocator a = wf_allocator(NULL);
    const int32_t        threads = _i;
    wf_pool             *pool;

    ck_assert_int_eq(wf_pool_create(&a, threads, &pool, NULL), WEFT_OK);
    ck_assert_int_eq(wf_pool_threads(pool), threads);
    ck_assert(wf_pool_own_process(pool));
    for (size_t count = 0; count <= MAX_COUNT; count += 1 + count / 5)
        for (int round = 0; round < 20; round++) {
            int64_t sum = 0;

            memset((void *)&j, 0, sizeof j);
            wf_pool_run(pool, count, count_task, &j);
            for (size_t i = 0; i < count; i++)
                if (atomic_load(&j.hits[i]) != 1) ck_abort_msg("task %zu of %zu, %d threads", i, count, threads);
            for (int w = 0; w < 8; w++) {
                sum += j.sums[w];
                if (w >= threads && j.sums[w] != 0) ck_abort_msg("worker %d of %d", w, threads);
            }
            ck_assert_int_eq(atomic_load(&j.clashes), 0);
            ck_assert_int_eq(sum, (int64_t)count * ((int64_t)count - 1) / 2);
        }
    wf_pool_free(pool);
}
END_TEST

static void slow_task(void *user, size_t task, int32_t worker)
{
    (void)task;
    (void)worker;
    struct timespec nap = { 0, 300000 };
    nanosleep(&nap, NULL);
    atomic_fetch_add((atomic_int *)user, 1);
}

/* Long enough for both sides to give up spinning and sleep, and to be woken. */
START_TEST(sleepers_are_woken)
{
    const weft_allocator a = wf_allocator(NULL);
    atomic_int           done;
    wf_pool             *pool;

    atomic_init(&done, 0);
    ck_assert_int_eq(wf_pool_create(&a, 4, &pool, NULL), WEFT_OK);
    for (int i = 0; i < 100; i++) {
        struct timespec nap = { 0, 500000 };

        wf_pool_run(pool, 7, slow_task, &done);
        ck_assert_int_eq(atomic_load(&done), 7 * (i + 1));
        if (i % 10 == 0) nanosleep(&nap, NULL);
    }
    wf_pool_free(pool);
}
END_TEST

START_TEST(zero_threads_means_one_for_each_core)
{
    const weft_allocator a = wf_allocator(NULL);
    wf_pool             *pool;

    ck_assert_int_ge(wf_cores(), 1);
    ck_assert_int_eq(wf_pool_create(&a, 0, &pool, NULL), WEFT_OK);
    ck_assert_int_eq(wf_pool_threads(pool), wf_cores());
    wf_pool_free(pool);
    wf_pool_free(NULL);
}
END_TEST

START_TEST(absurd_thread_counts_are_refused)
{
    const weft_allocator a = wf_allocator(NULL);
    weft_error           err;
    wf_pool             *pool;

    ck_assert_int_eq(wf_pool_create(&a, -1, &pool, &err), WEFT_E_ARG);
    ck_assert_str_eq(err.text, "threads is -1, expected 0 (one for each core) to 128");
    ck_assert_ptr_null(pool);
    ck_assert_int_eq(wf_pool_create(&a, 2000000000, &pool, &err), WEFT_E_ARG);
    ck_assert_int_eq(wf_pool_create(&a, WF_MAX_THREADS + 1, &pool, &err), WEFT_E_ARG);
    ck_assert_int_le(wf_cores(), WF_MAX_THREADS);
}
END_TEST

/* 384 workers in all: three pools of 129 would be it, but a pool has 128 threads, so 127 workers. */
START_TEST(workers_are_counted_over_the_process)
{
    const weft_allocator a = wf_allocator(NULL);
    weft_error           err;
    wf_pool             *pool[3], *more;

    for (int i = 0; i < 3; i++) ck_assert_int_eq(wf_pool_create(&a, 128, &pool[i], &err), WEFT_OK);
    ck_assert_int_eq(wf_pool_create(&a, 5, &more, &err), WEFT_E_STATE);
    ck_assert_str_eq(err.text, "5 threads beside the 381 workers of other runs are too many: all runs of a "
                               "process have at most 384 workers; free one, or ask for fewer threads");
    ck_assert_ptr_null(more);
    ck_assert_int_eq(wf_pool_create(&a, 1, &more, &err), WEFT_OK); /* the caller's own thread is no worker */
    wf_pool_free(more);
    ck_assert_int_eq(wf_pool_create(&a, 4, &more, &err), WEFT_OK);
    wf_pool_free(more);

/* The thread sanitizer takes a child's threads for the parent's. Under the address sanitizer a child that makes threads may wait
 * for ever, for a lock of the sanitizer's own that one of the parent's new threads held at the fork. */
#if !defined __SANITIZE_THREAD__ && !defined __SANITIZE_ADDRESS__
    pid_t child = fork();   /* has none of these threads, and gives none of them back */
    if (child == 0) {
        bool fine = wf_pool_create(&a, 128, &more, &err) == WEFT_OK;
        for (int i = 0; i < 3; i++) wf_pool_free(pool[i]);
        if (fine) wf_pool_free(more);
        for (int i = 0; i < 3; i++) fine = fine && wf_pool_create(&a, 128, &pool[i], &err) == WEFT_OK;
        _exit(fine && wf_pool_create(&a, 5, &more, &err) == WEFT_E_STATE ? 0 : 1);
    }
    int status = -1;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
#endif

    wf_pool_free(pool[0]);
    ck_assert_int_eq(wf_pool_create(&a, 5, &more, &err), WEFT_OK);
    wf_pool_free(more);
    for (int i = 1; i < 3; i++) wf_pool_free(pool[i]);
}
END_TEST

/* A pool that fails to be made gives its workers back. */
START_TEST(failed_pools_count_nothing)
{
    test_memory    m;
    weft_allocator a = test_allocator(&m);
    weft_error     err;
    wf_pool       *pool;

    m.fail_at = 1;
    for (int i = 0; i < 5; i++) ck_assert_int_eq(wf_pool_create(&a, 128, &pool, &err), WEFT_E_NOMEM);
}
END_TEST

START_TEST(a_pool_takes_one_block_and_gives_it_back)
{
    test_memory    m;
    weft_allocator a = test_allocator(&m);
    weft_error     err;
    wf_pool       *pool;

    m.fail_at = 1;
    ck_assert_int_eq(wf_pool_create(&a, 3, &pool, &err), WEFT_E_NOMEM);
    ck_assert_ptr_null(pool);
    a = test_allocator(&m);
    ck_assert_int_eq(wf_pool_create(&a, 3, &pool, &err), WEFT_OK);
    wf_pool_free(pool);
    ck_assert_uint_eq(m.calls, 1);
    ck_assert_uint_eq(m.live_blocks, 0);
}
END_TEST

/* The child has a copy of the pool, no workers, and maybe a lock that nobody will ever open. */
START_TEST(a_forked_child_frees_without_hanging)
{
    const weft_allocator a = wf_allocator(NULL);
    atomic_int           done;
    wf_pool             *pool;

    atomic_init(&done, 0);
    ck_assert_int_eq(wf_pool_create(&a, 4, &pool, NULL), WEFT_OK);
    for (int i = 0; i < 10; i++) {
        int   status = -1;
        pid_t child;

        wf_pool_run(pool, 5, slow_task, &done);
        child = fork();
        if (child == 0) {
            bool own = wf_pool_own_process(pool);
            alarm(20);
            wf_pool_free(pool);
            _exit(own ? 1 : 0);
        }
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    wf_pool_run(pool, 5, slow_task, &done);  /* the parent's pool works on */
    wf_pool_free(pool);
}
END_TEST

static void look_at_mask(void *user, size_t task, int32_t worker)
{
    struct timespec nap = { 0, 2000000 };  /* long enough that workers get some */
    sigset_t        mask;

    (void)task;
    nanosleep(&nap, NULL);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    if (worker == 0 ? sigismember(&mask, SIGUSR1) : !sigismember(&mask, SIGUSR1)) atomic_fetch_add((atomic_int *)user, 1);
}

START_TEST(workers_take_no_signals_and_the_caller_still_does)
{
    const weft_allocator a = wf_allocator(NULL);
    atomic_int           wrong;
    wf_pool             *pool;

    atomic_init(&wrong, 0);
    ck_assert_int_eq(wf_pool_create(&a, 3, &pool, NULL), WEFT_OK);
    wf_pool_run(pool, 12, look_at_mask, &wrong);
    ck_assert_int_eq(atomic_load(&wrong), 0);
    wf_pool_free(pool);
}
END_TEST

/* As the system lists it: /proc/cpuinfo has one line of flags for each processor. */
static bool cpuinfo_has(const char *line, const char *flag)
{
    size_t n = strlen(flag);

    for (const char *at = strstr(line, flag); at != NULL; at = strstr(at + 1, flag))
        if (at[-1] == ' ' && (at[n] == ' ' || at[n] == '\n')) return true;
    return false;
}

START_TEST(the_processor_is_what_the_system_says)
{
    static char line[1 << 14];
    wf_cpu      cpu = wf_cpu_detect();
    bool        found = false;
    FILE       *f = fopen("/proc/cpuinfo", "r");

    if (f == NULL) return;
    while (!found && fgets(line, sizeof line, f) != NULL) found = strncmp(line, "flags", 5) == 0;
    fclose(f);
    if (!found) { /* not x86, which has none of these */
        ck_assert(!cpu.avx2_fma_f16c && !cpu.avx512 && !cpu.avx512_bf16);
        return;
    }
    bool avx512 = cpuinfo_has(line, "avx512f") && cpuinfo_has(line, "avx512bw") &&
                  cpuinfo_has(line, "avx512dq") && cpuinfo_has(line, "avx512vl");
    ck_assert_int_eq(cpu.avx2_fma_f16c, cpuinfo_has(line, "avx2") && cpuinfo_has(line, "fma") &&
                                            cpuinfo_has(line, "f16c"));
    ck_assert_int_eq(cpu.avx512, avx512);
    ck_assert_int_eq(cpu.avx512_bf16, avx512 && cpuinfo_has(line, "avx512_bf16"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pool");
    TCase *c = tcase_create("all");

    tcase_add_loop_test(c, each_task_runs_exactly_once, 1, 9);
    tcase_add_test(c, sleepers_are_woken);
    tcase_add_test(c, zero_threads_means_one_for_each_core);
    tcase_add_test(c, absurd_thread_counts_are_refused);
    tcase_add_test(c, workers_are_counted_over_the_process);
    tcase_add_test(c, failed_pools_count_nothing);
    tcase_add_test(c, a_pool_takes_one_block_and_gives_it_back);
    tcase_add_test(c, a_forked_child_frees_without_hanging);
    tcase_add_test(c, workers_take_no_signals_and_the_caller_still_does);
    tcase_add_test(c, the_processor_is_what_the_system_says);
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
