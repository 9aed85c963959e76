/* exec.c - memory of an exec, and the watch over its numbers.
 *
 * What is not there ends the network: `stopped` is set, and every operation after it only returns. */
#include "nets/exec.h"

void wf_need_scratch(wf_exec *e, size_t bytes)
{
    if (e->dry) e->scratch_need = WF_MAX(e->scratch_need, bytes);
    else if (bytes > e->scratch_need) e->stopped = e->arena.overflow = true;
}

float *wf_take(wf_exec *e, size_t rows, size_t columns)
{
    void *floats = wf_arena_take(&e->arena, rows, columns * sizeof(float));
    e->stopped = e->stopped || e->arena.overflow; /* who has no memory must not compute */
    return floats;
}

float *wf_take_kept(wf_exec *e, size_t rows, size_t columns)
{
    size_t n, end;
    float *at;

    if (!wf_mul(rows, columns, &n) || !wf_add(e->kept->used, n, &end) ||
        (!e->dry && end > e->kept->size)) {
        e->stopped = e->arena.overflow = true;
        return NULL;
    }
    at = e->dry ? NULL : e->kept->floats + e->kept->used;
    e->kept->used = end;
    return at;
}

bool wf_watch_result(wf_exec *e, const float *y, size_t n)
{
    if (e->watch == NULL || e->dry || e->stopped || wf_not_finite(y, n) == n) return true;
    e->watch->found = e->stopped = true;
    return false;
}

void wf_watch_layer(wf_exec *e, const wf_layer *l, const float *x, size_t nx, const float *y,
                    size_t ny)
{
    if (e->watch == NULL || !e->watch->layers || e->dry || e->stopped) return;
    e->watch->before = !wf_watch_result(e, x, nx);
    if (e->watch->before || !wf_watch_result(e, y, ny)) e->watch->layer = l;
}
