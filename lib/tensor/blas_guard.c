/* blas_guard.c - who is inside OpenBLAS, the thread count that the host gets back, and work areas.
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
 * the count as it was or knows that it must be put back.
 *
 * A product works in an area that OpenBLAS maps when it has none left, and keeps. Where the system
 * refuses the mapping OpenBLAS asks again, for ever. So areas are made before they are needed: we
 * try the mapping ourselves, and only if we get it OpenBLAS is asked for an area, by the function
 * that its products call. An area that was made stays, so what is held can be had. The function is
 * not in its header, but has been the same in all its releases; a build that hides it leaves us
 * with the trial. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <cblas.h>
#include <stdatomic.h>
#include <sys/mman.h>
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

/* ---- work areas ------------------------------------------------------------------------------ */

void *blas_memory_alloc(int unused) __attribute__((weak));
void  blas_memory_free(void *area) __attribute__((weak));

/* OpenBLAS's BUFFER_SIZE on x86-64 and arm64, its largest; a quarter where addresses are short. */
#define AREA ((size_t)(UINTPTR_MAX > UINT32_MAX ? 128 : 32) << 20)

enum { AREAS = 128 }; /* of OpenBLAS's that we make; of those beyond, the mapping is only tried */

static int   held;    /* areas that somebody may want to work in now; under the lock, as all this */
static int   tried;   /* that were made, or else mapped once and given back                       */
static void *made[AREAS];
static int   made_count;

static bool can_map(size_t areas)
{
    size_t size;
    void  *trial;

    if (!wf_mul(areas, AREA, &size)) return false;
    trial = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return trial != MAP_FAILED && munmap(trial, size) == 0;
}

static bool is_made(const void *area)
{
    for (int i = 0; i < made_count; i++)
        if (made[i] == area) return true;
    return false;
}

/* Take areas of OpenBLAS until there were n different ones, old and new, and give all back. Those
 * that others work in are passed over. */
static bool make_areas(int n)
{
    void *mine[AREAS];
    int   count = 0;
    bool  fits = true;

    while (made_count < n && count < AREAS && (fits = can_map(1))) {
        void *area = mine[count++] = blas_memory_alloc(0);
        if (!is_made(area)) made[made_count++] = area;
    }
    while (count > 0) blas_memory_free(mine[--count]);
    return fits;
}

static bool have_areas(int n)
{
    int  most = n < AREAS ? n : AREAS;
    bool known = blas_memory_alloc != NULL && blas_memory_free != NULL;

    if (n <= tried) return true;
    if (known && !make_areas(most)) return false;
    if ((!known || n > most) && !can_map((size_t)(n - (known && most > tried ? most : tried))))
        return false;
    tried = n;
    return true;
}

weft_status wf_blas_hold(int32_t areas, weft_error *err)
{
    bool fits;

    lock(getpid());
    fits = have_areas(held + (int)areas);
    if (fits) held += (int)areas;
    unlock();
    return fits ? WEFT_OK : wf_nomem(err, (size_t)areas * AREA, "OpenBLAS's work areas");
}

void wf_blas_let_go(int32_t areas)
{
    lock(getpid());
    held -= (int)areas;
    unlock();
}
