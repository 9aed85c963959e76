/* map.c - from strings to numbers: open addressing, linear probing, at most half full.
 *
 * The hash's key is the table's own address, which the maker of a file with many names cannot know.
 * Nothing ever walks the table in its order, so the key never shows in a result. */
#include "base/base.h"

/* The slot of key, or the empty slot that it would take. */
static size_t slot_of(const wf_map *m, const char *key)
{
    size_t i = (size_t)wf_hash((uint64_t)(uintptr_t)m->keys, key, strlen(key)) & (m->cap - 1);

    while (m->keys[i] != NULL && strcmp(m->keys[i], key) != 0)
        i = (i + 1) & (m->cap - 1);
    return i;
}

static weft_status make_table(wf_map *m, size_t cap, weft_error *err)
{
    m->cap    = cap;
    m->keys   = wf_zalloc(m->alloc, cap, sizeof *m->keys);
    m->values = wf_zalloc(m->alloc, cap, sizeof *m->values);
    if (m->keys != NULL && m->values != NULL) return WEFT_OK;
    wf_map_free(m);
    return wf_nomem(err, cap, "a table of names");
}

weft_status wf_map_init(wf_map *m, const weft_allocator *alloc, size_t expected, weft_error *err)
{
    size_t cap = 16;

    memset(m, 0, sizeof *m);
    m->alloc = alloc;
    while (cap / 2 < expected && cap <= SIZE_MAX / 4) cap *= 2;
    return make_table(m, cap, err);
}

static weft_status grow(wf_map *m, weft_error *err)
{
    wf_map      bigger = { m->alloc, NULL, NULL, 0, m->count };
    weft_status st;

    if ((st = make_table(&bigger, m->cap * 2, err)) != WEFT_OK) return st;
    for (size_t i = 0; i < m->cap; i++) {
        if (m->keys[i] == NULL) continue;
        size_t to = slot_of(&bigger, m->keys[i]);
        bigger.keys[to]   = m->keys[i];
        bigger.values[to] = m->values[i];
    }
    wf_map_free(m);
    *m = bigger;
    return WEFT_OK;
}

weft_status wf_map_put(wf_map *m, const char *key, int64_t value, bool *added, weft_error *err)
{
    size_t      i = slot_of(m, key);
    weft_status st;

    if (added != NULL) *added = false;
    if (m->keys[i] != NULL) return WEFT_OK;
    if (m->count + 1 > m->cap / 2) {
        if ((st = grow(m, err)) != WEFT_OK) return st;
        i = slot_of(m, key);
    }
    m->keys[i]   = key;
    m->values[i] = value;
    m->count++;
    if (added != NULL) *added = true;
    return WEFT_OK;
}

int64_t wf_map_get(const wf_map *m, const char *key)
{
    size_t i;

    if (m->cap == 0) return -1;
    i = slot_of(m, key);
    return m->keys[i] != NULL ? m->values[i] : -1;
}

void wf_map_free(wf_map *m)
{
    if (m->keys != NULL) wf_free(m->alloc, m->keys);
    if (m->values != NULL) wf_free(m->alloc, m->values);
    m->keys   = NULL;
    m->values = NULL;
    m->cap    = 0;
    m->count  = 0;
}
