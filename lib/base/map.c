/* map.c - from strings to numbers: open addressing, linear probing, at most half full.
 *
 * Keys come from files, so a file could be made of names that all collide under a known hash, and
 * opening it would take time in the square of its size. The hash is SipHash-1-3 (Aumasson and
 * Bernstein 2012, with one round for each word and three at the end), keyed by the table's own
 * address, which the maker of a file cannot know. Nothing ever walks the table in its order, so the
 * key never shows in a result. */
#include "base/base.h"

static uint64_t rotl(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1]; v[1] = rotl(v[1], 13); v[1] ^= v[0]; v[0] = rotl(v[0], 32);
    v[2] += v[3]; v[3] = rotl(v[3], 16); v[3] ^= v[2];
    v[0] += v[3]; v[3] = rotl(v[3], 21); v[3] ^= v[0];
    v[2] += v[1]; v[1] = rotl(v[1], 17); v[1] ^= v[2]; v[2] = rotl(v[2], 32);
}

static uint64_t hash(const char *s, uint64_t key)
{
    uint64_t v[4] = { key ^ 0x736f6d6570736575u, ~key ^ 0x646f72616e646f6du,
                      key ^ 0x6c7967656e657261u, ~key ^ 0x7465646279746573u };
    size_t   len = strlen(s), n = len;

    for (;; s += 8, n -= 8) {
        uint64_t word = 0;

        memcpy(&word, s, WF_MIN(n, 8));
        if (n < 8) word |= (uint64_t)len << 56;  /* the last word carries the length */
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
        if (n < 8) break;
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++) sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* The slot of key, or the empty one where it would go. */
static size_t slot_of(const wf_map *m, const char *key)
{
    size_t i = (size_t)hash(key, (uint64_t)(uintptr_t)m->keys) & (m->cap - 1);

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
