/* score.c - how much an adapter does at a layer: sums over the entries of |Delta W|, whatever the
 * family.
 *
 * The sum of all entries, and of the k largest (docs/methods.md, K-LoRA). For a large model the
 * products would be gigabytes; those of two factors are formed in tiles that stay in the cache,
 * counted, and forgotten. Those of other families are formed whole, one layer at a time. */
#include <math.h>

#include "adapter/adapter_internal.h"

/* ---- the k largest --------------------------------------------------------------------------- */

/* A heap with its smallest on top. Once it is full, a value enters by replacing the top. */
typedef struct largest {
    float *heap;
    size_t cap;
    size_t count;
    float  least; /* values up to this one do not enter; below zero until the heap is full */
} largest;

static void sift_down(float *heap, size_t count, size_t i)
{
    float v = heap[i];

    for (size_t c; (c = 2 * i + 1) < count; i = c) {
        if (c + 1 < count && heap[c + 1] < heap[c]) c++;
        if (heap[c] >= v) break;
        heap[i] = heap[c];
    }
    heap[i] = v;
}

static void offer(largest *l, float v)
{
    if (l->count == l->cap) {
        l->heap[0] = v;
        sift_down(l->heap, l->cap, 0);
        l->least = l->heap[0];
        return;
    }
    l->heap[l->count++] = v;
    if (l->count < l->cap) return;
    for (size_t i = l->cap / 2; i-- > 0;) sift_down(l->heap, l->cap, i);
    l->least = l->heap[0];
}

/* ---- the score ------------------------------------------------------------------------------- */

/* Columns of one tile: as many floats as stay in registers while r runs. */
enum { LANES = 16 };

/* c = sum over p of b[p] * A[p,:], for one row of B and one strip of A, (r, LANES). */
static void row_of_tile(float *restrict c, const float *restrict b, const float *restrict A,
                        size_t r)
{
    float acc[LANES] = { 0 };

    for (size_t p = 0; p < r; p++)
        for (size_t j = 0; j < LANES; j++) acc[j] += b[p] * A[p * LANES + j];
    for (size_t j = 0; j < LANES; j++) c[j] = acc[j];
}

/* |c| into the sum and the heap. Four partial sums, so that additions need not wait for each
 * other. */
static double count_row(const float *c, size_t n, largest *l)
{
    float  v[LANES];
    float  most = 0;
    double s[4] = { 0 };

    for (size_t j = 0; j < n; j++) {
        v[j] = fabsf(c[j]);
        s[j & 3] += v[j];
        most = v[j] > most ? v[j] : most;
    }
    if (most > l->least)
        for (size_t j = 0; j < n; j++)
            if (v[j] > l->least) offer(l, v[j]);
    return s[0] + s[1] + (s[2] + s[3]);
}

/* A strip of `n` columns of A from column `from`, (r, LANES); what lies past n is zero. */
static void take_strip(float *strip, const float *A, size_t r, size_t K, size_t from, size_t n)
{
    memset(strip, 0, r * LANES * sizeof *strip);
    for (size_t p = 0; p < r; p++) memcpy(strip + p * LANES, A + p * K + from, n * sizeof *strip);
}

/* Sums while they are made. */
typedef struct sums {
    largest l;
    double  all;
    bool    every; /* the k largest are all of them */
} sums;

/* Delta of two factors, a strip of columns at a time. */
static weft_status score_pair(sums *s, const wf_module *m, const wf_layer *l, size_t K, size_t out,
                              const weft_allocator *alloc, weft_error *err)
{
    size_t      r = (size_t)wf_module_pair_rank(m), floats;
    float      *A, *up, *B, *strip, c[LANES];
    weft_status st;

    if (!wf_mul(r, K + 2 * out + LANES, &floats))
        return wf_fail(err, WEFT_E_ARG, "%s: the factors are too large", m->key);
    if ((A = wf_zalloc(alloc, floats, sizeof *A)) == NULL)
        return wf_nomem(err, floats * sizeof *A, "the score of a layer");
    up = A + r * K;
    B = up + r * out;
    strip = B + r * out;
    if ((st = wf_module_pair(m, l, A, up, alloc, err)) != WEFT_OK) goto done;
    for (size_t p = 0; p < r; p++)
        for (size_t o = 0; o < out; o++) B[o * r + p] = up[p * out + o];

    for (size_t from = 0; from < K; from += LANES) {
        size_t n = WF_MIN((size_t)LANES, K - from);
        take_strip(strip, A, r, K, from, n);
        for (size_t o = 0; o < out; o++) {
            row_of_tile(c, B + o * r, strip, r);
            s->all += count_row(c, n, &s->l);
        }
    }
done:
    wf_free(alloc, A);
    return st;
}

/* A matrix of n entries. */
static void score_matrix(sums *s, const float *D, size_t n)
{
    for (size_t i = 0; i < n; i += LANES)
        s->all += count_row(D + i, WF_MIN((size_t)LANES, n - i), &s->l);
}

/* Any other: formed whole, with its scale. */
static weft_status score_whole(sums *s, const wf_module *m, const wf_layer *l, double scale,
                               size_t entries, const weft_allocator *alloc, weft_error *err)
{
    float      *D = wf_zalloc(alloc, entries, sizeof *D);
    weft_status st;

    if (D == NULL) return wf_nomem(err, entries * sizeof *D, "the score of a layer");
    if ((st = wf_module_add(m, l, scale, 1, 1, D, alloc, err)) == WEFT_OK)
        score_matrix(s, D, entries);
    wf_free(alloc, D);
    return st;
}

/* Sums that keep the k largest of so many entries. */
static weft_status begin_sums(sums *s, int64_t k, size_t entries, const weft_allocator *alloc,
                              weft_error *err)
{
    *s = (sums){ .l = { NULL, 0, 0, -1 } };
    s->l.cap = k < 1 ? 0 : (uint64_t)k < entries ? (size_t)k : entries;
    s->every = s->l.cap == entries;
    if (s->every || s->l.cap == 0) { /* nothing to choose */
        s->l.cap = 0;
        s->l.least = INFINITY;
    }
    s->l.heap = wf_zalloc(alloc, s->l.cap, sizeof *s->l.heap);
    return s->l.heap != NULL ? WEFT_OK
                             : wf_nomem(err, s->l.cap * sizeof *s->l.heap, "the score of a layer");
}

static double best_of(const sums *s)
{
    double best = 0;
    for (size_t i = 0; i < s->l.count; i++) best += s->l.heap[i];
    return s->every ? s->all : best;
}

weft_status wf_module_score(const wf_module *m, const wf_layer *l, double scale, int64_t k,
                            double *all, double *top, const weft_allocator *alloc, weft_error *err)
{
    bool        pair = wf_module_form(m, l) == WF_FORM_PAIR;
    size_t      out = (size_t)(l != NULL ? l->out : m->out),
                in = (size_t)(l != NULL ? l->in : m->in);
    size_t      side = (size_t)(l != NULL ? l->kernel : m->kernel), K, entries;
    sums        s;
    weft_status st;

    if (!wf_mul(in, side * side, &K) || !wf_mul(out, K, &entries))
        return wf_fail(err, WEFT_E_ARG, "%s: the product is too large", m->key);
    WF_TRY(begin_sums(&s, k, entries, alloc, err));
    if (pair) st = score_pair(&s, m, l, K, out, alloc, err);
    else st = score_whole(&s, m, l, scale, entries, alloc, err);
    if (st == WEFT_OK) {
        scale = pair ? fabs(scale) : 1; /* what is formed whole has its scale inside */
        *all = scale * s.all;
        *top = scale * best_of(&s);
    }
    wf_free(alloc, s.l.heap);
    return st;
}

weft_status wf_slices_score(const weft_adapter *a, const wf_slice *slice, int32_t count,
                            const wf_layer *l, bool ignore_alpha, int64_t k, double *all,
                            double *top, const weft_allocator *alloc, weft_error *err)
{
    const wf_module *m = wf_adapter_module(a, (size_t)slice->module);
    size_t entries = (size_t)l->out * (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel;
    sums             s;
    weft_status      st;

    if (count == 1 && wf_slice_whole(slice, l))
        return wf_module_score(m, l, ignore_alpha ? 1 : m->scale, k, all, top, alloc, err);
    float *D = wf_zalloc(alloc, entries, sizeof *D);
    if (D == NULL) return wf_nomem(err, entries * sizeof *D, "the score of a layer");
    if ((st = begin_sums(&s, k, entries, alloc, err)) == WEFT_OK) {
        for (int32_t i = 0; i < count && st == WEFT_OK; i++) {
            m = wf_adapter_module(a, (size_t)slice[i].module);
            st = wf_slice_add(&slice[i], m, l, ignore_alpha ? 1 : m->scale, 1, 1, D, alloc, err);
        }
        if (st == WEFT_OK) score_matrix(&s, D, entries);
        *all = s.all;
        *top = best_of(&s);
        wf_free(alloc, s.l.heap);
    }
    wf_free(alloc, D);
    return st;
}
