/* sort.c - heap sort (Williams 1964): in place, and never slower than n log n, whatever the
 * input. */
#include "base/base.h"

static void swap(uint8_t *a, uint8_t *b, size_t size)
{
    uint8_t hold[64];

    for (size_t n; size > 0; size -= n, a += n, b += n) {
        n = WF_MIN(size, sizeof hold);
        memcpy(hold, a, n);
        memcpy(a, b, n);
        memcpy(b, hold, n);
    }
}

/* Let element i sink below all that are larger, among the first `count`. */
static void sink(uint8_t *base, size_t i, size_t count, size_t size,
                 int (*compare)(const void *, const void *))
{
    for (size_t child; (child = 2 * i + 1) < count; i = child) {
        if (child + 1 < count && compare(base + child * size, base + (child + 1) * size) < 0)
            child++;
        if (compare(base + i * size, base + child * size) >= 0) return;
        swap(base + i * size, base + child * size, size);
    }
}

void wf_sort(void *base, size_t count, size_t size, int (*compare)(const void *, const void *))
{
    uint8_t *p = base;

    for (size_t i = count / 2; i-- > 0;) sink(p, i, count, size, compare);
    for (size_t end = count; end-- > 1;) {
        swap(p, p + end * size, size);
        sink(p, 0, end, size, compare);
    }
}
