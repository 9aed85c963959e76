/* bag.c - memory for many small things that all end together. It grows, unlike base's arena. */
#include "io/io.h"

#define FIRST ((size_t)4096)
#define MOST  ((size_t)1 << 20)
#define HEAD  64

struct wf_bag_block {
    wf_bag_block *next;
    size_t    size;
    size_t    used;
};

void wf_bag_init(wf_bag *b, const weft_allocator *alloc)
{
    b->alloc  = alloc;
    b->newest = NULL;
}

static wf_bag_block *add(wf_bag *b, size_t size)
{
    wf_bag_block *block;
    size_t    all;

    if (!wf_add(size, HEAD, &all)) return NULL;
    block = wf_alloc(b->alloc, all);
    if (block == NULL) return NULL;
    block->next = b->newest;
    block->size = size;
    block->used = 0;
    b->newest = block;
    return block;
}

static void *take(wf_bag *b, size_t size, size_t align)
{
    wf_bag_block *block = b->newest;
    size_t    at    = block != NULL ? (block->used + align - 1) / align * align : 0;

    if (block == NULL || at > block->size || block->size - at < size) {
        size_t grown = block == NULL ? FIRST : WF_MIN(2 * block->size, MOST);

        if ((block = add(b, WF_MAX(size, grown))) == NULL) return NULL;
        at = 0;
    }
    block->used = at + size;
    return (uint8_t *)block + HEAD + at;
}

void *wf_bag_take(wf_bag *b, size_t count, size_t size)
{
    size_t all;
    void  *p = wf_mul(count, size, &all) ? take(b, all, 16) : NULL;

    if (p != NULL) memset(p, 0, all);
    return p;
}

char *wf_bag_string(wf_bag *b, const char *s, size_t n)
{
    char *copy = take(b, n + 1, 1);

    if (copy == NULL) return NULL;
    if (n > 0) memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}

void wf_bag_free(wf_bag *b)
{
    while (b->newest != NULL) {
        wf_bag_block *next = b->newest->next;

        wf_free(b->alloc, b->newest);
        b->newest = next;
    }
}
