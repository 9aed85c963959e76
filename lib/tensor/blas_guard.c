/* blas_guard.c - who is inside OpenBLAS, and the thread count that the host gets back.
 *
 * This is the library's exception to "no global state" (see the guide; base/pool.c counts workers
 * for the same reason). The first user saves OpenBLAS's thread count and sets 1, the last one puts
 * it back. A host that changes the count in between has its change undone at the end.
 *
 * fork() may come at any moment, from any thread. The child has the forking thread and no other,
 * but a copy of all that is here, so nothing of the parent's may stop it:
 *
 * - The lock is a word that holds the pid of its holder. A pid of another process is a lock that
 * nobody will ever open, and is taken over. A mutex would hang the child. It is held for a moment,
 * seldom wanted by two, and so waited for by short naps.
 * - The users of another process do not exist. `users` is above zero from before the count is
 * changed until after it is put back: at whatever point the parent's holder was, the child finds
 * the count as it was or knows that it must be put back. */
#include <cblas.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "tensor/blas_guard.h"

static atomic_int holder; /* pid; 0: nobody */
static atomic_int users;  /* changed under the lock; atomic for the order that a child sees */
static int        host_threads;
static pid_t      process; /* that the users belong to */

static void lock(pid_t me)
{
    const struct timespec nap = { 0, 20000 };
    int found = 0;

    while (!atomic_compare_exchange_strong_explicit(&holder, &found, me, memory_order_acquire,
                                                    memory_order_relaxed)) {
        if (found == me) {
            (void)nanosleep(&nap, NULL);
            found = 0;
        } /* else it is a parent's: take it from there */
    }
}

static void unlock(void)
{
    atomic_store_explicit(&holder, 0, memory_order_release);
}

void wf_blas_begin(void)
{
    pid_t me = getpid();

    lock(me);
    if (users > 0 && process != me) {
        if (host_threads != 1) openblas_set_num_threads(host_threads);
        users = 0;
    }
    process = me;
    if (users == 0) host_threads = openblas_get_num_threads();
    if (users++ == 0 && host_threads != 1) openblas_set_num_threads(1);
    unlock();
}

void wf_blas_end(void)
{
    pid_t me = getpid();

    lock(me);
    if (process != me) { /* we began before the fork, and are the only one that came along */
        process = me;
        users = 1;
    }
    if (users == 1 && host_threads != 1) openblas_set_num_threads(host_threads);
    users--;
    unlock();
}
