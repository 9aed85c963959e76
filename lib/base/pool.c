/* pool.c - a parallel loop, many thousand times a second.
 *
 * A denoising step is some hundred loops of a few milliseconds or less, so what matters is the time
 * from "go" to the first worker and from the last worker to "done". Two decisions serve that:
 *
 * - Threads that have not yet taken a task are not waited for. The open job is one 64-bit word,
 *   (number of the job, tasks left); a task is taken by counting the word down with
 *   compare-and-swap. A worker that wakes late finds nothing left and the caller never notices, so
 *   a loop costs no more than its tasks even if the machine has fewer free cores than we have
 *   threads.
 * - Waiting spins for some microseconds before it sleeps: the next loop usually comes that soon.
 *   With more threads than cores, spinning would keep a core from a thread that works, so then we
 *   sleep at once.
 *
 * Why the plain fields of a job need no lock: they are written only while no task is left and none
 * is being worked on, and read only by a thread that holds a task. The number of the job, in the
 * upper half of the word, makes a compare-and-swap from an earlier job fail.
 *
 * Workers are counted over the whole process. OpenBLAS has a fixed number of work areas for the
 * process, one for each call in progress: twice the threads it was built for, but at least 50, and
 * 512 in reserve. When they run out it writes to stderr or ends the process, which no library of
 * ours may do. So all pools together start at most 384 workers, and the rest is left to the host's
 * own threads. The counter is global state, for the same reason as the guard in
 * tensor/blas_guard.c: what it protects is global.
 *
 * After fork() only the calling thread exists in the child. The pool can then be freed, which
 * releases the memory and touches neither the threads nor their locks. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1  /* sched_getaffinity */
#endif
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "base/base.h"

#define SPINS       2000     /* of one pause each: 20 to 80 microseconds on x86 */
#define MAX_TASKS   0xffffffffu

typedef struct worker {
    wf_pool  *pool;
    pthread_t thread;
    int32_t   id;
} worker;

/* Workers of all pools, below the pid that started them: a forked child has none of them. */
static _Atomic uint64_t workers_alive;

struct wf_pool {
    weft_allocator alloc;
    pid_t   process;
    int32_t threads;  /* with the caller's */
    int32_t started;  /* workers to join   */
    int32_t spins;

    /* the job; see above for who may touch these */
    wf_task task;
    void   *user;
    size_t  first;    /* number of the job's first task, for loops longer than 32 bits */
    uint32_t count;

    _Alignas(64) _Atomic uint64_t word;      /* job << 32 | tasks left             */
    _Alignas(64) _Atomic uint32_t finished;  /* tasks of the job that are done     */
    _Alignas(64) atomic_int sleepers;        /* workers waiting for `wake`         */
    atomic_int  caller_sleeps;               /* the caller waits for `done`        */
    atomic_bool quit;

    pthread_mutex_t lock;  /* held only around going to sleep and waking up */
    pthread_cond_t  wake;
    pthread_cond_t  done;

    worker workers[];
};

static void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Take one task of the open job and run it; false if none is left. */
static bool run_one(wf_pool *p, int32_t id)
{
    uint64_t word = atomic_load_explicit(&p->word, memory_order_acquire);
    uint32_t left, count;

    do {
        left = (uint32_t)word;
        if (left == 0) return false;
    } while (!atomic_compare_exchange_weak_explicit(&p->word, &word, word - 1, memory_order_acq_rel,
                                                    memory_order_acquire));
    count = p->count;
    p->task(p->user, p->first + (count - left), id);

    /* The sum order of `finished` and `caller_sleeps` is what makes this safe: either we see that
     * the caller sleeps, or it sees that we are the last. After the addition the job may be
     * gone. */
    if (atomic_fetch_add(&p->finished, 1) + 1 == count && atomic_load(&p->caller_sleeps)) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->done);
        pthread_mutex_unlock(&p->lock);
    }
    return true;
}

static bool work_waits(wf_pool *p)
{
    return (uint32_t)atomic_load(&p->word) != 0 || atomic_load(&p->quit);
}

static void sleep_until_work(wf_pool *p)
{
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleepers, 1);
    while (!work_waits(p)) pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->lock);
}

static void *worker_main(void *arg)
{
    worker  *w = arg;
    wf_pool *p = w->pool;
    int32_t  idle = 0;

    while (!atomic_load(&p->quit)) {
        if (run_one(p, w->id)) {
            idle = 0;
        } else if (idle++ < p->spins) {
            pause_briefly();
        } else {
            sleep_until_work(p);
            idle = 0;
        }
    }
    return NULL;
}

static void wake_workers(wf_pool *p)
{
    if (atomic_load(&p->sleepers) == 0) return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

static void wait_for_rest(wf_pool *p)
{
    for (int32_t i = 0; i < p->spins; i++) {
        if (atomic_load_explicit(&p->finished, memory_order_acquire) == p->count) return;
        pause_briefly();
    }
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->caller_sleeps, 1);
    while (atomic_load(&p->finished) != p->count) pthread_cond_wait(&p->done, &p->lock);
    atomic_store(&p->caller_sleeps, 0);
    pthread_mutex_unlock(&p->lock);
}

static void run_job(wf_pool *p, size_t first, uint32_t count, wf_task task, void *user)
{
    uint64_t job = (atomic_load_explicit(&p->word, memory_order_relaxed) >> 32) + 1;

    p->task  = task;
    p->user  = user;
    p->first = first;
    p->count = count;
    atomic_store_explicit(&p->finished, 0, memory_order_relaxed);
    atomic_store(&p->word, job << 32 | count);
    wake_workers(p);
    while (run_one(p, 0)) { }
    wait_for_rest(p);
}

void wf_pool_run(wf_pool *pool, size_t count, wf_task task, void *user)
{
    if (pool->threads == 1 || count <= 1) {
        for (size_t i = 0; i < count; i++) task(user, i, 0);
        return;
    }
    for (size_t first = 0; first < count; first += MAX_TASKS)
        run_job(pool, first, (uint32_t)WF_MIN(count - first, MAX_TASKS), task, user);
}

/* ---- creation -------------------------------------------------------------------------------- */

/* Count n more workers; false, with how many there are, if that would be too many. */
static bool reserve_workers(int32_t n, int32_t *alive)
{
    uint64_t process = (uint64_t)(uint32_t)getpid() << 32, word = atomic_load(&workers_alive), next;

    do {
        *alive = word >> 32 == process >> 32 ? (int32_t)(uint32_t)word : 0;
        if (n > WF_MAX_WORKERS - *alive) return false;
        next = process | (uint32_t)(*alive + n);
    } while (!atomic_compare_exchange_weak(&workers_alive, &word, next));
    return true;
}

/* Only in the process that counted them. */
static void release_workers(int32_t n)
{
    atomic_fetch_sub(&workers_alive, (uint64_t)n);
}

/* Workers take no signals: a host's handlers run on threads that the host knows. */
static int start_workers(wf_pool *p)
{
    sigset_t all, before;
    int      rc = 0;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (rc == 0 && p->started < p->threads - 1) {
        worker *w = &p->workers[p->started];
        w->pool = p;
        w->id   = p->started + 1;
        rc = pthread_create(&w->thread, NULL, worker_main, w);
        if (rc == 0) p->started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

weft_status wf_pool_create(const weft_allocator *alloc, int32_t threads, wf_pool **out,
                           weft_error *err)
{
    int32_t  cores = wf_cores(), n = threads == 0 ? cores : threads, alive;
    wf_pool *p;
    size_t   bytes;
    int      rc;

    *out = NULL;
    if (n < 1 || n > WF_MAX_THREADS)
        return wf_fail(err, WEFT_E_ARG, "threads is %d, expected 0 (one for each core) to %d",
                       threads, WF_MAX_THREADS);
    if (!reserve_workers(n - 1, &alive))
        return wf_fail(
            err, WEFT_E_STATE,
            "%d threads beside the %d workers of other runs are too many: all runs of a process "
            "have at most %d workers; free one, or ask for fewer threads",
            n, alive, WF_MAX_WORKERS);
    bytes = sizeof *p + (size_t)(n - 1) * sizeof *p->workers;
    p = wf_zalloc(alloc, 1, bytes);
    if (p == NULL) {
        release_workers(n - 1);
        return wf_nomem(err, bytes, "a thread pool");
    }

    p->alloc   = *alloc;
    p->process = getpid();
    p->threads = n;
    p->spins   = n <= cores ? SPINS : 0;
    atomic_init(&p->word, 0);
    atomic_init(&p->finished, 0);
    atomic_init(&p->sleepers, 0);
    atomic_init(&p->caller_sleeps, 0);
    atomic_init(&p->quit, false);
    if ((rc = pthread_mutex_init(&p->lock, NULL)) != 0) goto no_lock;
    if ((rc = pthread_cond_init(&p->wake, NULL)) != 0) goto no_wake;
    if ((rc = pthread_cond_init(&p->done, NULL)) != 0) goto no_done;
    if ((rc = start_workers(p)) != 0) {
        wf_fail_sys(err, rc, "thread %d of %d does not start", p->started + 2, n);
        wf_pool_free(p);
        return WEFT_E_IO;
    }
    *out = p;
    return WEFT_OK;

no_done:
    pthread_cond_destroy(&p->wake);
no_wake:
    pthread_mutex_destroy(&p->lock);
no_lock:
    release_workers(n - 1);
    wf_free(alloc, p);
    return wf_fail_sys(err, rc, "a thread pool's lock cannot be made");
}

void wf_pool_free(wf_pool *pool)
{
    weft_allocator alloc;

    if (pool == NULL) return;
    alloc = pool->alloc;
    if (wf_pool_own_process(pool)) {
        pthread_mutex_lock(&pool->lock);
        atomic_store(&pool->quit, true);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->lock);
        for (int32_t i = 0; i < pool->started; i++) pthread_join(pool->workers[i].thread, NULL);
        pthread_cond_destroy(&pool->done);
        pthread_cond_destroy(&pool->wake);
        pthread_mutex_destroy(&pool->lock);
        release_workers(pool->threads - 1);
    }
    wf_free(&alloc, pool);
}

int32_t wf_pool_threads(const wf_pool *pool)
{
    return pool->threads;
}

bool wf_pool_own_process(const wf_pool *pool)
{
    return pool->process == getpid();
}

int32_t wf_cores(void)
{
    long online;

#if defined(__linux__)
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return WF_MIN(CPU_COUNT(&set), WF_MAX_THREADS);
#endif
    online = sysconf(_SC_NPROCESSORS_ONLN);
    return online < 1 ? 1 : (int32_t)WF_MIN(online, WF_MAX_THREADS);
}
