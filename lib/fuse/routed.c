/* routed.c - factors that stay, and a small matrix between them that says which of them answers.
 *
 * K adapters that are summed answer everywhere: B_1 A_1 x speaks up where adapter 2 is meant, too.
 * Their inputs tell them apart. With z = A x, all that any of them sees of a row, the best M z for
 * "what adapter i sees on its own rows, and nothing of the others" has a closed form:
 *
 *     z = [A_1; A_2; ..] x     M = Q (G + l I)^-1     W = W0 + [B_1 B_2 ..] M [A_1; A_2; ..]
 *
 * G is the sum of z z^T over all rows, Q its rows of block i over the rows of concept i alone. The
 * B do not matter to M, so R x R sums are all that is kept: R is a few dozen, and the rows, of
 * which there are thousands, are multiplied by A before they are summed. M = I is the plain sum.
 *
 * Where fewer rows than R are read (a text has 77) the ridge decides: what no row shows is muted.
 * Where one concept acts, where nothing was read, or where A sees nothing, the factors are passed
 * through. Rows of q, k and v are the same, but not what their A make of them: they share none. */
#include <math.h>

#include "fuse/fuse_internal.h"
#include "tensor/gemm.h"

enum { BLOCK = 64 };

void wf_fuse_route_free(wf_fuse_route *r, const weft_allocator *alloc)
{
    wf_free(alloc, r->first);
    wf_free(alloc, r->A);
    wf_free(alloc, r->B);
    wf_free(alloc, r->Q);
    *r = (wf_fuse_route){ .R = 0 };
}

static size_t summed_rank(const weft_fuse *f, const wf_layer *l)
{
    size_t R = 0;

    for (size_t c = 0; c < f->concepts; c++) R += wf_fuse_pair_rank(&f->concept[c], l);
    return R;
}

uint64_t wf_fuse_route_bytes(const weft_fuse *f, const wf_fuse_target *t)
{
    uint64_t R = summed_rank(f, t->layer), K = wf_fuse_columns(t->layer);
    uint64_t floats = 2 * R * (K + (uint64_t)t->layer->out); /* an adapter has a copy */

    return floats * sizeof(float) + (t->row.concepts > 1 ? 3 * R * R * sizeof(double) : 0);
}

/* ---- factors --------------------------------------------------------------------------------- */

/* Concept c's rows of A and columns of B. turned (r, out) is scratch. */
static weft_status take_pair(const weft_fuse *f, wf_fuse_target *t, size_t c, float *turned,
                             weft_error *err)
{
    wf_fuse_route *r = &t->route;
    size_t out = (size_t)t->layer->out, first = r->first[c], n = r->first[c + 1] - first;

    if (n == 0) return WEFT_OK;
    WF_TRY(wf_fuse_pair(f, &f->concept[c], t->layer, r->A + first * wf_fuse_columns(t->layer),
                        turned, err));
    for (size_t o = 0; o < out; o++)
        for (size_t i = 0; i < n; i++) r->B[o * r->R + first + i] = turned[i * out + o];
    return WEFT_OK;
}

weft_status wf_fuse_route_take(weft_fuse *f, size_t target, weft_error *err)
{
    wf_fuse_target *t = &f->target[target];
    wf_fuse_route  *r = &t->route;
    size_t          K = wf_fuse_columns(t->layer), out = (size_t)t->layer->out;

    r->R = summed_rank(f, t->layer);
    if (r->R > INT32_MAX / WF_MAX(K, WF_MAX(out, r->R)))
        return wf_fail(err, WEFT_E_ARG, "%s: the ranks of its adapters add up to %zu, too many",
                       t->layer->name, r->R);
    r->first = wf_zalloc(&f->alloc, f->concepts + 1, sizeof *r->first);
    r->A = wf_zalloc(&f->alloc, r->R * K, sizeof *r->A);
    r->B = wf_zalloc(&f->alloc, r->R * out, sizeof *r->B);
    float      *turned = wf_alloc(&f->alloc, r->R * out * sizeof *turned);
    weft_status st = r->first != NULL && r->A != NULL && r->B != NULL && turned != NULL
                         ? WEFT_OK
                         : wf_nomem(err, r->R * (K + 2 * out) * sizeof *turned, "factors");
    for (size_t c = 0; c < f->concepts && st == WEFT_OK; c++) {
        r->first[c + 1] = r->first[c] + wf_fuse_pair_rank(&f->concept[c], t->layer);
        st = take_pair(f, t, c, turned, err);
    }
    wf_free(&f->alloc, turned);
    if (st != WEFT_OK || t->row.concepts == 1) return st;
    t->rows.K = r->R;
    t->rows.one = wf_zalloc(&f->alloc, r->R * r->R, sizeof(double));
    t->rows.all = wf_zalloc(&f->alloc, r->R * r->R, sizeof(double));
    r->Q = wf_zalloc(&f->alloc, r->R * r->R, sizeof(double));
    t->open = true;
    return t->rows.one != NULL && t->rows.all != NULL && r->Q != NULL
               ? WEFT_OK
               : wf_nomem(err, 3 * r->R * r->R * sizeof(double), "sums over what adapters read");
}

/* ---- rows ------------------------------------------------------------------------------------ */

bool wf_fuse_route_reads(const wf_fuse_target *t, size_t concept)
{
    return t->route.first[concept] < t->route.first[concept + 1];
}

void wf_fuse_route_turned(const wf_fuse_target *t, double *to)
{
    size_t R = t->route.R, K = wf_fuse_columns(t->layer);

    for (size_t i = 0; i < R; i++)
        for (size_t k = 0; k < K; k++) to[k * R + i] = t->route.A[i * K + k];
}

void wf_fuse_route_end(wf_fuse_target *t, size_t concept)
{
    size_t  R = t->route.R, first = t->route.first[concept];
    size_t  n = t->route.first[concept + 1] - first;
    double *one = t->rows.one;

    for (size_t i = 0; i < R; i++)
        for (size_t k = 0; k < i; k++) one[k * R + i] = one[i * R + k];
    memcpy(t->route.Q + first * R, one + first * R, n * R * sizeof *one);
    for (size_t i = 0; i < R * R; i++) t->rows.all[i] += one[i];
    memset(one, 0, R * R * sizeof *one);
}

/* ---- the layer ------------------------------------------------------------------------------- */

/* Square sums of a layer. */
typedef struct errors { double before, after, norm; } errors;

/* Rows [o, o + n) of B become b M, and their square sums are added. P (R, R) is Q with nothing but
 * each concept's own columns, G that of all rows, before a ridge. Over all rows

 *     |b z_i|^2 = b P b^T    |b M z - b z_i|^2 = b M G (b M)^T - 2 b M Q^T b^T + b P b^T
 *
 * scratch (3, BLOCK, max(R, K)). */
typedef struct mixing {
    size_t        R, K;
    const double *M, *G, *Qt, *P, *A;
    double       *scratch;
} mixing;

static double product_sum(const double *a, const double *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static void mix_rows(const mixing *m, float *B, size_t n, errors *e)
{
    size_t  R = m->R;
    double *b = m->scratch, *mixed = b + BLOCK * WF_MAX(R, m->K);
    double *t = mixed + BLOCK * WF_MAX(R, m->K);

    for (size_t i = 0; i < n * R; i++) b[i] = B[i];
    if (m->M != NULL) {
        wf_gemm_double(t, R, b, R, m->P, R, n, R, R, 1, 0);
        double before = product_sum(t, b, n * R);
        wf_gemm_double(mixed, R, b, R, m->M, R, n, R, R, 1, 0);
        wf_gemm_double(t, R, mixed, R, m->Qt, R, n, R, R, 1, 0);
        double crossed = product_sum(t, b, n * R);
        wf_gemm_double(t, R, mixed, R, m->G, R, n, R, R, 1, 0);
        e->before += before;
        e->after += product_sum(t, mixed, n * R) - 2 * crossed + before;
        for (size_t i = 0; i < n * R; i++) B[i] = (float)mixed[i];
        for (size_t i = 0; i < n * R; i++) b[i] = B[i];
    }
    wf_gemm_double(t, m->K, b, R, m->A, m->K, n, m->K, R, 1, 0);
    e->norm += product_sum(t, t, n * m->K);
}

static double trace_of(const double *M, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += M[i * n + i];
    return sum;
}

/* M, Q^T and P (R, R) each, from Q and G, which stay. */
static weft_status solve(const weft_fuse *f, const wf_fuse_target *t, double *M, double *Qt,
                         double *P, double *jitter, weft_error *err)
{
    const wf_fuse_route *r = &t->route;
    size_t               R = r->R;
    double              *G = t->rows.one; /* what is no longer needed */

    memset(P, 0, R * R * sizeof *P);
    for (size_t c = 0; c < f->concepts; c++)
        for (size_t i = r->first[c]; i < r->first[c + 1]; i++)
            for (size_t k = r->first[c]; k < r->first[c + 1]; k++) P[i * R + k] = r->Q[i * R + k];
    for (size_t i = 0; i < R; i++)
        for (size_t k = 0; k < R; k++) Qt[k * R + i] = r->Q[i * R + k];
    memcpy(M, r->Q, R * R * sizeof *M);
    memcpy(G, t->rows.all, R * R * sizeof *G);
    return wf_fuse_mix(M, G, R, f->o.ridge, jitter, t->layer->name, &f->alloc, err);
}

weft_status wf_fuse_route_solve(weft_fuse *f, size_t target, weft_error *err)
{
    wf_fuse_target *t = &f->target[target];
    wf_fuse_route  *r = &t->route;
    size_t  R = r->R, K = wf_fuse_columns(t->layer), out = (size_t)t->layer->out;
    size_t  doubles = 3 * R * R + 3 * BLOCK * WF_MAX(R, K) + R * K;
    double *M = wf_zalloc(&f->alloc, doubles, sizeof *M), jitter = 0;
    errors  e = { 0, 0, 0 };
    bool    mixed = r->Q != NULL && t->rows.count > 0;

    if (M == NULL) return wf_nomem(err, doubles * sizeof *M, "a layer's factors");
    double     *A = M + 3 * R * R;
    weft_status st = WEFT_OK;
    for (size_t i = 0; i < R * K; i++) A[i] = r->A[i];
    mixed = mixed && trace_of(t->rows.all, R) > 0;
    if (mixed) st = solve(f, t, M, M + R * R, M + 2 * R * R, &jitter, err);
    const mixing m = { R, K, mixed ? M : NULL, t->rows.all, M + R * R, M + 2 * R * R, A,
                       A + R * K };
    for (size_t o = 0; o < out && st == WEFT_OK; o += BLOCK)
        mix_rows(&m, r->B + o * R, WF_MIN((size_t)BLOCK, out - o), &e);
    if (st == WEFT_OK && !isfinite(e.norm))
        st = wf_fail(err, WEFT_E_NOT_FINITE, "%s: its fused factors exceed float32",
                     t->layer->name);
    double n = (double)t->rows.count * (double)out;
    t->row.rows = (int64_t)t->rows.count;
    t->row.before = n > 0 ? e.before / n : 0;
    t->row.after = n > 0 ? WF_MAX(e.after, 0.0) / n : 0; /* rounding may leave less than nothing */
    t->row.residual = e.before > 0 ? sqrt(WF_MAX(e.after, 0.0) / e.before) : 0;
    t->row.jitter = jitter;
    t->row.norm = sqrt(e.norm);
    t->open = false;
    wf_free(&f->alloc, M);
    wf_fuse_rows_free(&t->rows, &f->alloc);
    return st;
}
