/* lowrank.c - the low-rank family: Delta W = scale * B A.
 *
 *   A "down" (r, in) or (r, in, k, k)     B "up" (out, r) or (out, r, 1, 1)     Delta W (out, in, k, k)
 *
 * Factors stay in the file's dtype, where they are mapped; whoever computes asks for them widened, in the order
 * that the networks use: channels last, so K = k * k * in runs over (ky, kx, in). A 1x1 convolution and a linear
 * layer are the same thing here, whichever of the two forms the file chose.
 *
 * The score (methods.md 5) wants sums over all entries of |Delta W|, which for a large model would be gigabytes.
 * They are formed in tiles that stay in the cache, counted, and forgotten. */
#include <math.h>

#include "adapter/room.h"

/* ---- what the shapes say ------------------------------------------------------------------------- */

static bool is_float(wf_dtype t)
{
    return t == WF_F32 || t == WF_F16 || t == WF_BF16 || t == WF_F64 || t == WF_F8_E4M3 || t == WF_F8_E5M2 ||
           t == WF_F8_E4M3FNUZ || t == WF_F8_E5M2FNUZ;
}

static weft_status misshapen(const wf_tensor *t, const char *source, const char *wanted, weft_error *err)
{
    wf_key_text   k;
    wf_shape_text s;
    return wf_fail(err, WEFT_E_FORMAT, "%s: %s is %s, wanted %s", source, wf_key_show(&k, t->name),
                   wf_shape(&s, t->shape, t->rank), wanted);
}

weft_status wf_lowrank_shape(wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *A = m->down, *B = m->up, *both[] = { m->down, m->up };
    wf_key_text      k;
    wf_shape_text    a, b;

    for (size_t i = 0; i < WF_LEN(both); i++) {
        if (!is_float(both[i]->dtype))
            return wf_fail(err, WEFT_E_FORMAT, "%s: %s holds %s, wanted floating-point numbers", source,
                           wf_key_show(&k, both[i]->name), wf_dtype_name(both[i]->dtype));
        for (int32_t d = 0; d < both[i]->rank; d++)
            if (both[i]->shape[d] < 1 || both[i]->shape[d] > INT32_MAX)
                return misshapen(both[i], source, "no dimension of zero and none over 2^31", err);
    }
    if (A->rank != 2 && A->rank != 4) return misshapen(A, source, "(r, in) or (r, in, k, k)", err);
    if (B->rank != 2 && B->rank != 4) return misshapen(B, source, "(out, r) or (out, r, 1, 1)", err);
    if (A->rank == 4 && A->shape[2] != A->shape[3]) return misshapen(A, source, "a square kernel", err);
    if (B->rank == 4 && (B->shape[2] != 1 || B->shape[3] != 1))
        return misshapen(B, source, "(out, r, 1, 1)", err);
    if (A->shape[0] != B->shape[1])
        return wf_fail(err, WEFT_E_FORMAT, "%s: %s: up is %s but down is %s: ranks %d and %d differ", source,
                       wf_key_show(&k, m->key), wf_shape(&b, B->shape, B->rank), wf_shape(&a, A->shape, A->rank),
                       (int32_t)B->shape[1], (int32_t)A->shape[0]);

    m->rank = (int32_t)A->shape[0];
    m->in = (int32_t)A->shape[1];
    m->out = (int32_t)B->shape[0];
    m->kernel = A->rank == 4 ? (int32_t)A->shape[2] : 1;
    return WEFT_OK;
}

/* ---- widening, a stack buffer at a time ---------------------------------------------------------- */

enum { CHUNK = 1024 };

static void widen(float *dst, const wf_tensor *t, size_t from, size_t n)
{
    (void)wf_widen_any(dst, t->data + from * (size_t)(wf_dtype_bits(t->dtype) / 8), t->dtype, n);
}

weft_status wf_lowrank_finite(const wf_tensor *t, const char *source, weft_error *err)
{
    float       buf[CHUNK];
    wf_key_text k;

    for (size_t i = 0; i < t->count; i += CHUNK) {
        size_t n = WF_MIN((size_t)CHUNK, t->count - i);
        widen(buf, t, i, n);
        for (size_t j = 0; j < n; j++)
            if (!isfinite(buf[j]))
                return wf_fail(err, WEFT_E_FORMAT, "%s: %s holds %s at index %zu of %zu", source,
                               wf_key_show(&k, t->name), isnan(buf[j]) ? "NaN" : "infinity", i + j, t->count);
    }
    return WEFT_OK;
}

/* dst[c * columns + r] = src[r * columns' + c]: rows become columns. t is (rows, columns). */
static void widen_transposed(float *dst, const wf_tensor *t, size_t rows, size_t columns)
{
    float buf[CHUNK];

    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < columns; c += CHUNK) {
            size_t n = WF_MIN((size_t)CHUNK, columns - c);
            widen(buf, t, r * columns + c, n);
            for (size_t j = 0; j < n; j++) dst[(c + j) * rows + r] = buf[j];
        }
}

/* (r, in, k, k) to (r, k * k, in). */
static void widen_channels_last(float *dst, const wf_tensor *t, size_t r, size_t in, size_t kk)
{
    float  buf[CHUNK];
    size_t K = in * kk;

    for (size_t p = 0; p < r; p++) {
        float *dst_p = dst + p * K;
        for (size_t i = 0; i < K; i += CHUNK) {
            size_t n = WF_MIN((size_t)CHUNK, K - i);
            widen(buf, t, p * K + i, n);
            for (size_t j = 0; j < n; j++) dst_p[(i + j) % kk * in + (i + j) / kk] = buf[j];
        }
    }
}

void wf_module_factors(const wf_module *m, float *down, float *up)
{
    size_t kk = (size_t)m->kernel * (size_t)m->kernel;

    if (down != NULL && kk == 1) widen(down, m->down, 0, m->down->count);
    if (down != NULL && kk > 1) widen_channels_last(down, m->down, (size_t)m->rank, (size_t)m->in, kk);
    if (up != NULL) widen_transposed(up, m->up, (size_t)m->out, (size_t)m->rank);
}

/* ---- the k largest ------------------------------------------------------------------------------- */

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

/* ---- the score ----------------------------------------------------------------------------------- */

/* Columns of one tile: as many floats as stay in registers while r runs. */
enum { LANES = 16 };

/* c = sum over p of b[p] * A[p,:], for one row of B and one strip of A, (r, LANES). */
static void row_of_tile(float *restrict c, const float *restrict b, const float *restrict A, size_t r)
{
    float acc[LANES] = { 0 };

    for (size_t p = 0; p < r; p++)
        for (size_t j = 0; j < LANES; j++) acc[j] += b[p] * A[p * LANES + j];
    for (size_t j = 0; j < LANES; j++) c[j] = acc[j];
}

/* |c| into the sum and the heap. Four partial sums, so that additions need not wait for each other. */
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

weft_status wf_module_score(const wf_module *m, double scale, int64_t k, double *all, double *top,
                            const weft_allocator *alloc, weft_error *err)
{
    size_t      r = (size_t)m->rank, out = (size_t)m->out, K = m->down->count / r, entries;
    size_t      floats = m->down->count + m->up->count + r * LANES;
    largest     l = { NULL, 0, 0, -1 };
    double      sum = 0, best = 0;
    weft_status st = WEFT_OK;

    if (!wf_mul(out, K, &entries)) return wf_fail(err, WEFT_E_ARG, "%s: the product is too large", m->key);
    l.cap = k < 1 ? 0 : (uint64_t)k < entries ? (size_t)k : entries;
    bool every = l.cap == entries;
    if (every || l.cap == 0) { /* nothing to choose */
        l.cap = 0;
        l.least = INFINITY;
    }
    float *A = wf_zalloc(alloc, floats, sizeof *A);
    l.heap = wf_zalloc(alloc, l.cap, sizeof *l.heap);
    if (A == NULL || l.heap == NULL) {
        st = wf_nomem(err, (floats + l.cap) * sizeof *A, "the score of a layer");
        goto done;
    }
    float *B = A + m->down->count, *strip = B + m->up->count, c[LANES];
    widen(A, m->down, 0, m->down->count); /* the order of columns does not matter to sums */
    widen(B, m->up, 0, m->up->count);

    for (size_t from = 0; from < K; from += LANES) {
        size_t n = WF_MIN((size_t)LANES, K - from);
        take_strip(strip, A, r, K, from, n);
        for (size_t o = 0; o < out; o++) {
            row_of_tile(c, B + o * r, strip, r);
            sum += count_row(c, n, &l);
        }
    }
    for (size_t i = 0; i < l.count; i++) best += l.heap[i];
    if (every) best = sum;
    *all = fabs(scale) * sum;
    *top = fabs(scale) * best;
done:
    wf_free(alloc, l.heap);
    wf_free(alloc, A);
    return st;
}
