/* arena.c - scratch memory as a stack, sized by a dry walk of the network.
 *
 * A dry arena counts and hands out nothing; the real one is then exactly as large as its peak. So a
 * step allocates nothing, and weft_run_bytes() can tell the cost before it is paid. If more is
 * asked for than was counted, the dry walk and the real one differ, which is a defect of ours:
 * `overflow` is set for good, and the run reports WEFT_E_INTERNAL. */
#include "base/base.h"

#define ALIGN 64

void *wf_arena_take(wf_arena *a, size_t count, size_t size)
{
    size_t bytes, end;
    void  *ptr;

    if (!wf_mul(count, size, &bytes) || !wf_add(bytes, ALIGN - 1, &bytes) ||
        !wf_add(a->used, bytes / ALIGN * ALIGN, &end) || (!a->dry && end > a->size)) {
        a->overflow = true;
        return NULL;
    }
    ptr = a->dry ? NULL : a->base + a->used;
    a->used = end;
    a->peak = WF_MAX(a->peak, end);
    return ptr;
}

size_t wf_arena_mark(const wf_arena *a)
{
    return a->used;
}

void wf_arena_release(wf_arena *a, size_t mark)
{
    if (!a->held) a->used = mark;
}
