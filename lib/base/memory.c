/* memory.c - every byte of ours goes through the caller's allocator.
 *
 * The allocator's `free` wants the size back, and the callers of wf_free should not have to carry
 * it: each block starts with 64 bytes that keep its size. 64, not 8, so that what we hand out stays
 * aligned for the widest vector loads and never shares a cache line with a neighbour. */
#include <stdlib.h>

#include "base/base.h"

#define HEAD 64

static void *default_alloc(void *user, size_t size, size_t align)
{
    (void)user;
    if (size > SIZE_MAX - (align - 1)) return NULL;
    return aligned_alloc(align, (size + align - 1) / align * align);
}

static void default_free(void *user, void *ptr, size_t size)
{
    (void)user;
    (void)size;
    free(ptr);
}

weft_allocator wf_allocator(const weft_allocator *src)
{
    const weft_allocator plain = { default_alloc, default_free, NULL };

    return src != NULL ? *src : plain;
}

weft_status wf_check_allocator(const weft_allocator *src, weft_error *err)
{
    if (src != NULL && (src->alloc == NULL || src->free == NULL))
        return wf_fail(err, WEFT_E_ARG, "weft_allocator: %s is NULL",
                       src->alloc == NULL ? "alloc" : "free");
    return WEFT_OK;
}

void *wf_alloc(const weft_allocator *a, size_t size)
{
    size_t   total;
    uint8_t *block;

    if (!wf_add(size, HEAD, &total)) return NULL;
    block = a->alloc(a->user, total, HEAD);
    if (block == NULL) return NULL;
    memcpy(block, &total, sizeof total);
    return block + HEAD;
}

void *wf_zalloc(const weft_allocator *a, size_t count, size_t size)
{
    size_t bytes;
    void  *ptr;

    if (!wf_mul(count, size, &bytes)) return NULL;
    ptr = wf_alloc(a, bytes);
    if (ptr != NULL) memset(ptr, 0, bytes);
    return ptr;
}

void wf_free(const weft_allocator *a, void *ptr)
{
    uint8_t *block;
    size_t   total;

    if (ptr == NULL) return;
    block = (uint8_t *)ptr - HEAD;
    memcpy(&total, block, sizeof total);
    a->free(a->user, block, total);
}

char *wf_strdup(const weft_allocator *a, const char *s)
{
    return wf_strndup(a, s, strlen(s));
}

char *wf_strndup(const weft_allocator *a, const char *s, size_t n)
{
    char *copy;

    if (n == SIZE_MAX || (copy = wf_alloc(a, n + 1)) == NULL) return NULL;
    if (n > 0) memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}

weft_status wf_nomem(weft_error *err, size_t size, const char *what)
{
    return wf_fail(err, WEFT_E_NOMEM, "out of memory: %zu bytes for %s", size, what);
}

bool wf_mul(size_t a, size_t b, size_t *out)
{
    if (b != 0 && a > SIZE_MAX / b) return false;
    *out = a * b;
    return true;
}

bool wf_add(size_t a, size_t b, size_t *out)
{
    if (a > SIZE_MAX - b) return false;
    *out = a + b;
    return true;
}

void wf_ref_init(wf_refs *refs)
{
    atomic_init(refs, 1);
}

void wf_ref_take(wf_refs *refs)
{
    atomic_fetch_add_explicit(refs, 1, memory_order_relaxed);
}

bool wf_ref_drop(wf_refs *refs)
{
    /* release: what this holder did comes before; acquire: the last one sees what all others did */
    return atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel) == 1;
}
