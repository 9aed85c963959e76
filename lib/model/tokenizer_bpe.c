/* tokenizer_bpe.c - byte pair encoding of one piece.
 *
 * A piece starts as its bytes, each a symbol, the last one marked as the end of a word. Then the
 * pair of neighbours that was learned first is merged, everywhere from left to right, until no
 * neighbours have a merge.
 *
 * Looking for the best pair again after each merge takes time in the square of the piece, and a
 * prompt may be one word of a megabyte. So the symbols are a linked list and the pairs wait in a
 * heap, ordered by rank, then by place. A merge may leave pairs in the heap that are no longer
 * there: they are recognised when they come up, since their place then holds other symbols. At most
 * three pairs enter for each byte. */
#include "model/tokenizer.h"

typedef struct wf_symbol {
    int32_t id;       /* -1: merged into the one before */
    int32_t previous; /* index, or -1                   */
    int32_t next;
} wf_symbol;

typedef struct wf_candidate {
    int32_t rank;
    int32_t at; /* index of the left symbol */
    int32_t left;
    int32_t right;
    int32_t result;
} wf_candidate;

/* ---- the merge table ------------------------------------------------------------------------- */

/* Merges come from a file: mixing in the table's address keeps its maker from choosing pairs that
 * collide. */
static size_t slot_of(const wf_tokenizer *t, int32_t left, int32_t right)
{
    uint64_t h =
        ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) ^ (uint64_t)(uintptr_t)t->merges;
    size_t   i;

    h = (h ^ h >> 32) * 0x9e3779b97f4a7c15u;
    h = (h ^ h >> 29) * 0xd6e8feb86659fd93u;
    for (i = (size_t)(h ^ h >> 32) & (t->merge_cap - 1); t->merges[i].rank >= 0;
         i = (i + 1) & (t->merge_cap - 1))
        if (t->merges[i].left == left && t->merges[i].right == right) break;
    return i;
}

weft_status wf_merges_init(wf_tokenizer *t, size_t count, weft_error *err)
{
    size_t cap = 16, bytes;

    while (cap < 2 * count) cap *= 2;
    bytes = cap * sizeof *t->merges;
    if ((t->merges = wf_alloc(&t->alloc, bytes)) == NULL)
        return wf_nomem(err, bytes, "a tokenizer's merges");
    for (size_t i = 0; i < cap; i++) t->merges[i].rank = -1;
    t->merge_cap = cap;
    return WEFT_OK;
}

bool wf_merges_add(wf_tokenizer *t, wf_merge m)
{
    size_t i = slot_of(t, m.left, m.right);

    if (t->merges[i].rank >= 0) return false;
    t->merges[i] = m;
    return true;
}

const wf_merge *wf_merges_find(const wf_tokenizer *t, int32_t left, int32_t right)
{
    const wf_merge *m = &t->merges[slot_of(t, left, right)];

    return m->rank >= 0 ? m : NULL;
}

/* ---- the heap -------------------------------------------------------------------------------- */

static bool before(const wf_candidate *a, const wf_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(wf_word *w, wf_candidate c)
{
    size_t i = w->count++;

    for (; i > 0 && before(&c, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = c;
}

static wf_candidate heap_pop(wf_word *w)
{
    wf_candidate top = w->heap[0], moved = w->heap[--w->count];
    size_t       i = 0, child;

    for (; (child = 2 * i + 1) < w->count; i = child) {
        if (child + 1 < w->count && before(&w->heap[child + 1], &w->heap[child])) child++;
        if (!before(&w->heap[child], &moved)) break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = moved;
    return top;
}

/* ---- a piece --------------------------------------------------------------------------------- */

static weft_status make_room(wf_word *w, size_t n, weft_error *err)
{
    size_t cap = WF_MAX(n, 64);

    if (n <= w->cap) return WEFT_OK;
    wf_word_free(w);
    w->symbols = wf_zalloc(w->alloc, cap, sizeof *w->symbols);
    w->heap    = wf_zalloc(w->alloc, cap, 3 * sizeof *w->heap);
    if (w->symbols == NULL || w->heap == NULL)
        return wf_nomem(err, cap * (sizeof *w->symbols + 3 * sizeof *w->heap),
                        "the tokens of a text");
    w->cap = cap;
    return WEFT_OK;
}

void wf_word_free(wf_word *w)
{
    wf_free(w->alloc, w->symbols);
    wf_free(w->alloc, w->heap);
    w->symbols = NULL;
    w->heap    = NULL;
    w->cap     = 0;
}

/* Does the symbol at `at`, with the one after it, have a merge? */
static void consider(const wf_tokenizer *t, wf_word *w, int32_t at)
{
    const wf_merge *m;
    int32_t         next;

    if (at < 0 || (next = w->symbols[at].next) < 0) return;
    if ((m = wf_merges_find(t, w->symbols[at].id, w->symbols[next].id)) == NULL) return;
    heap_push(w, (wf_candidate){ m->rank, at, m->left, m->right, m->result });
}

static void merge_all(const wf_tokenizer *t, wf_word *w)
{
    while (w->count > 0) {
        wf_candidate c = heap_pop(w);
        wf_symbol   *left = &w->symbols[c.at], *right;

        if (left->id != c.left || left->next < 0) continue;
        right = &w->symbols[left->next];
        if (right->id != c.right) continue;

        left->id = c.result;
        right->id = -1;
        left->next = right->next;
        if (left->next >= 0) w->symbols[left->next].previous = c.at;
        consider(t, w, left->previous);
        consider(t, w, c.at);
    }
}

void wf_ids_add(wf_ids *out, int32_t id)
{
    if (out->count < out->cap) out->ids[out->count] = id;
    out->count++;
}

weft_status wf_word_encode(const wf_tokenizer *t, wf_word *w, const char *piece, size_t n,
                           wf_ids *out, weft_error *err)
{
    weft_status st = make_room(w, n, err);

    if (st != WEFT_OK) return st;
    for (size_t i = 0; i < n; i++) {
        uint8_t byte = (uint8_t)piece[i];
        int32_t id   = i + 1 < n ? t->inner[byte] : t->last[byte];

        w->symbols[i] = (wf_symbol){ id >= 0 ? id : t->unknown, (int32_t)i - 1,
                                     i + 1 < n ? (int32_t)i + 1 : -1 };
    }
    w->count = 0;
    for (size_t i = 0; i + 1 < n; i++) consider(t, w, (int32_t)i);
    merge_all(t, w);
    for (int32_t i = 0; i >= 0; i = w->symbols[i].next) wf_ids_add(out, w->symbols[i].id);
    return WEFT_OK;
}
