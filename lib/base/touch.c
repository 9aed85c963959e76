/* touch.c - pages of memory that is about to be written whole.
 *
 * The first write to each page of new memory stops for the system to find and clear one. Asking for
 * many at once saves the stops, which are a part of what they cost. */
#if defined(__linux__) && !defined(_DEFAULT_SOURCE)
#define _DEFAULT_SOURCE 1 /* madvise */
#endif
#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "base/base.h"

#if defined(__linux__)
enum { POPULATE_WRITE = 23 }; /* MADV_POPULATE_WRITE, since Linux 5.14; EINVAL before */
#endif

void wf_touch(void *ptr, size_t bytes)
{
#if defined(__linux__)
    size_t page = (size_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)ptr & (page - 1);
    size_t skip = at > 0 ? page - at : 0;

    if (bytes < skip + page) return;
    (void)madvise((uint8_t *)ptr + skip, (bytes - skip) / page * page, POPULATE_WRITE);
#else
    (void)ptr, (void)bytes;
#endif
}
