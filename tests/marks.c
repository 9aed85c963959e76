/* marks.c - a check in a loop tells libcheck where it stands a few times, not each time.
 *
 * At every check that holds libcheck writes the place into a file, so that of a test that dies it
 * can say which check it had passed. Where each number of a network is checked, these writes took
 * more time than the network. Every place is told TIMES times in a process: "after this point" stays
 * true, though after that many rounds another check may have been passed since. Tests are linked
 * with --wrap=_mark_point. */
#include <stdatomic.h>
#include <stdint.h>

enum { TIMES = 8, PLACES = 4096 };

void __real__mark_point(const char *file, int line);
void __wrap__mark_point(const char *file, int line);

void __wrap__mark_point(const char *file, int line)
{
    static atomic_uchar told[PLACES]; /* places that meet share one */
    atomic_uchar *times = &told[((uintptr_t)file * 31 + (uintptr_t)line) % PLACES];
    if (atomic_load_explicit(times, memory_order_relaxed) >= TIMES) return;
    atomic_fetch_add_explicit(times, 1, memory_order_relaxed);
    __real__mark_point(file, line);
}
