/* rows.c - the rows that layers read: kept, or summed as x^T x; and what becomes of them.
 *
 * Tokens of a few prompts are few rows, and are kept. The pixels of images are too many: of them
 * only the sum of x^T x is kept, K x K, and of each layer the sum of D x^T x, which is D times the
 * first. That is all that least squares asks for. A concept's sum is apart until its images are
 * drawn, since D is the concept's.
 *
 * Sums are in double. A tile of rows is added by tasks that own rows of the sum, cut by K alone:
 * the bits do not depend on threads. */
#include <math.h>

#include "fuse/fuse_internal.h"
#include "tensor/gemm.h"
#include "tensor/linalg.h"

enum { BLOCK = 64 }; /* rows of a matrix in a task, or widened at once */

void wf_fuse_rows_free(wf_fuse_rows *r, const weft_allocator *alloc)
{
    wf_free(alloc, r->x);
    wf_free(alloc, r->first);
    wf_free(alloc, r->one);
    wf_free(alloc, r->all);
    *r = (wf_fuse_rows){ .K = r->K, .distinct = r->distinct };
}

/* ---- what targets have in common ------------------------------------------------------------- */

static void widen(double *to, const float *from, size_t n)
{
    for (size_t i = 0; i < n; i++) to[i] = from[i];
}

size_t wf_fuse_columns(const wf_layer *l)
{
    return (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel;
}

static weft_status take_delta(const weft_fuse *f, wf_fuse_target *t, weft_error *err)
{
    size_t floats = (size_t)t->layer->out * wf_fuse_columns(t->layer);

    if (t->delta == NULL) t->delta = wf_zalloc(&f->alloc, floats, sizeof *t->delta);
    return t->delta != NULL ? WEFT_OK
                            : wf_nomem(err, floats * sizeof *t->delta, "a layer's difference");
}

/* Errors are sums of squares over `rows` rows. */
static weft_status report(wf_fuse_target *t, int64_t rows, double before, double after,
                          double jitter, weft_error *err)
{
    double n = (double)rows * t->layer->out, norm = 0;
    size_t floats = (size_t)t->layer->out * wf_fuse_columns(t->layer);

    for (size_t i = 0; i < floats; i++) norm += (double)t->delta[i] * (double)t->delta[i];
    if (!isfinite(norm))
        return wf_fail(err, WEFT_E_NOT_FINITE, "%s: its fused difference exceeds float32",
                       t->layer->name);
    t->row.rows = rows;
    t->row.before = n > 0 ? before / n : 0;
    t->row.after = n > 0 ? after / n : 0;
    t->row.residual = before > 0 ? sqrt(after / before) : 0;
    t->row.jitter = jitter;
    t->row.norm = sqrt(norm);
    return WEFT_OK;
}

/* ---- kept ------------------------------------------------------------------------------------ */

static bool equal_to(const double *kept, const float *row, size_t K)
{
    for (size_t i = 0; i < K; i++)
        if (kept[i] != (double)row[i]) return false;
    return true;
}

bool wf_fuse_keep(wf_fuse_rows *r, const float *row, const weft_allocator *alloc)
{
    size_t bytes;

    for (size_t i = 0; r->distinct && i < r->count; i++)
        if (equal_to(r->x + i * r->K, row, r->K)) return true;
    if (r->count == r->cap) {
        size_t  cap = r->cap > 0 ? 2 * r->cap : 64;
        double *x = wf_mul(cap, r->K, &bytes) && wf_mul(bytes, sizeof *x, &bytes)
                        ? wf_alloc(alloc, bytes) : NULL;
        if (x == NULL) return false;
        if (r->count > 0) memcpy(x, r->x, r->count * r->K * sizeof *x);
        wf_free(alloc, r->x);
        r->x = x;
        r->cap = cap;
    }
    widen(r->x + r->count++ * r->K, row, r->K);
    return true;
}

/* Scratch for solving with rows that were kept. */
typedef struct kept {
    double *E;     /* (m, K)             */
    double *turned; /* (K, m) of X        */
    double *R;     /* (out, m)           */
    double *block; /* (BLOCK, max(K, m)) */
    float  *D;     /* (out, K)           */
} kept;

/* R (out, m) of a target: what each concept adds to its rows. */
static weft_status wanted(const weft_fuse *f, const wf_fuse_target *t, const wf_fuse_rows *r,
                          const kept *k, weft_error *err)
{
    size_t out = (size_t)t->layer->out, m = r->count, K = r->K;

    memset(k->R, 0, out * m * sizeof *k->R);
    for (size_t c = 0; c < f->concepts; c++) {
        size_t first = r->first[c], rows = r->first[c + 1] - first;
        bool   any;
        if (rows == 0) continue;
        WF_TRY(wf_fuse_difference(f, &f->concept[c], t->layer, k->D, &any, err));
        for (size_t o = 0; o < out && any; o += BLOCK) {
            size_t n = WF_MIN((size_t)BLOCK, out - o);
            widen(k->block, k->D + o * K, n * K);
            wf_gemm_double(k->R + o * m + first, m, k->block, K, k->turned + first, m, n, rows, K,
                           1, 0);
        }
    }
    return WEFT_OK;
}

/* The sum of |(W - W0) C^T|^2. */
static double drift_of(const wf_fuse_target *t, const double *H, size_t K)
{
    double drift = 0;

    for (size_t o = 0; o < (size_t)t->layer->out; o++) {
        const float *d = t->delta + o * K;
        for (size_t i = 0; i < K; i++) {
            double sum = 0;
            for (size_t k = 0; k < K; k++) sum += H[i * K + k] * (double)d[k];
            drift += (double)d[i] * sum;
        }
    }
    return WF_MAX(drift, 0.0);
}

static weft_status solve_target(weft_fuse *f, wf_fuse_target *t, const wf_fuse_rows *r,
                                const kept *k, const double *H, double jitter, weft_error *err)
{
    size_t out = (size_t)t->layer->out, m = r->count, K = r->K;
    double before = 0, after = 0;

    WF_TRY(wanted(f, t, r, k, err));
    WF_TRY(take_delta(f, t, err));
    for (size_t o = 0; o < out; o += BLOCK) {
        size_t n = WF_MIN((size_t)BLOCK, out - o);
        wf_gemm_double(k->block, K, k->R + o * m, m, k->E, K, n, K, m, 1, 0);
        for (size_t i = 0; i < n * K; i++) t->delta[o * K + i] = (float)k->block[i];
    }
    for (size_t i = 0; i < out * m; i++) before += k->R[i] * k->R[i];
    for (size_t o = 0; o < out; o += BLOCK) {
        size_t n = WF_MIN((size_t)BLOCK, out - o);
        widen(k->block, t->delta + o * K, n * K);
        wf_gemm_double(k->R + o * m, m, k->block, K, k->turned, m, n, m, K, -1, 1);
    }
    for (size_t i = 0; i < out * m; i++) after += k->R[i] * k->R[i];
    if (H != NULL) t->row.drift = drift_of(t, H, K);
    return report(t, (int64_t)m, before, after, jitter, err);
}

static weft_status take_kept(const weft_fuse *f, size_t leader, kept *k, weft_error *err)
{
    const wf_fuse_rows *r = &f->target[leader].rows;
    size_t m = r->count, K = r->K, out = 0;

    for (size_t i = leader; i < f->targets; i++)
        if (f->target[i].of == leader) out = WF_MAX(out, (size_t)f->target[i].layer->out);
    k->E = wf_zalloc(&f->alloc, m * K, sizeof *k->E);
    k->turned = wf_zalloc(&f->alloc, m * K, sizeof *k->turned);
    k->R = wf_zalloc(&f->alloc, m * out, sizeof *k->R);
    k->block = wf_zalloc(&f->alloc, BLOCK * WF_MAX(K, m), sizeof *k->block);
    k->D = wf_zalloc(&f->alloc, out * K, sizeof *k->D);
    return k->E != NULL && k->turned != NULL && k->R != NULL && k->block != NULL && k->D != NULL
               ? WEFT_OK
               : wf_nomem(err, (2 * m * K + m * out) * sizeof *k->E, "rows that a layer reads");
}

weft_status wf_fuse_solve_kept(weft_fuse *f, size_t leader, const double *H, weft_error *err)
{
    wf_fuse_rows *r = &f->target[leader].rows;
    const char   *what = f->target[leader].layer->name;
    size_t        K = r->K;
    double        jitter = 0, *copy = NULL;
    kept          k = { NULL, NULL, NULL, NULL, NULL };
    weft_status   st = take_kept(f, leader, &k, err);

    if (st == WEFT_OK && H != NULL) {
        copy = wf_alloc(&f->alloc, K * K * sizeof *copy);
        if (copy == NULL) st = wf_nomem(err, K * K * sizeof *copy, "sums over captions");
        else memcpy(copy, H, K * K * sizeof *copy);
    }
    if (st == WEFT_OK && r->count > 0)
        st = H != NULL
                 ? wf_fuse_constrain(k.E, r->x, r->count, K, copy, &jitter, what, &f->alloc, err)
                 : wf_fuse_ridge(k.E, r->x, r->count, K, f->o.ridge, &jitter, what, &f->alloc, err);
    for (size_t i = 0; st == WEFT_OK && i < r->count; i++)
        for (size_t j = 0; j < K; j++) k.turned[j * r->count + i] = r->x[i * K + j];
    for (size_t i = leader; i < f->targets && st == WEFT_OK; i++) {
        if (f->target[i].of != leader) continue;
        st = solve_target(f, &f->target[i], r, &k, H, jitter, err);
        if (st == WEFT_OK) st = wf_fuse_tick(f, 1, err);
    }
    wf_free(&f->alloc, copy);
    wf_free(&f->alloc, k.E);
    wf_free(&f->alloc, k.turned);
    wf_free(&f->alloc, k.R);
    wf_free(&f->alloc, k.block);
    wf_free(&f->alloc, k.D);
    wf_fuse_rows_free(r, &f->alloc);
    return st;
}

/* ---- summed ---------------------------------------------------------------------------------- */

uint64_t wf_fuse_sums_bytes(const weft_fuse *f, size_t leader)
{
    uint64_t K = wf_fuse_columns(f->target[leader].layer), doubles = 2 * K * K;

    for (size_t i = leader; i < f->targets; i++)
        if (f->target[i].of == leader) doubles += (uint64_t)f->target[i].layer->out * K;
    return doubles * sizeof(double);
}

weft_status wf_fuse_sums_take(weft_fuse *f, size_t leader, weft_error *err)
{
    wf_fuse_rows *r = &f->target[leader].rows;
    size_t        all = r->K * r->K, entries;

    r->one = wf_zalloc(&f->alloc, all, sizeof *r->one);
    r->all = wf_zalloc(&f->alloc, all, sizeof *r->all);
    if (r->one == NULL || r->all == NULL)
        return wf_nomem(err, 2 * all * sizeof *r->one, "sums over the rows that a layer reads");
    for (size_t i = leader; i < f->targets; i++) {
        wf_fuse_target *t = &f->target[i];
        if (t->of != leader) continue;
        t->open = true;
        t->before = 0;
        entries = (size_t)t->layer->out * r->K;
        t->B = wf_zalloc(&f->alloc, entries, sizeof *t->B);
        if (t->B == NULL) return wf_nomem(err, entries * sizeof *t->B, "sums of a layer's results");
    }
    return WEFT_OK;
}

typedef struct adding { wf_fuse_rows *r; const double *x; size_t n; } adding;

static void add_task(void *user, size_t task, int32_t worker)
{
    const adding *a = user;
    size_t first = task * BLOCK;

    (void)worker;
    wf_gram_rows_double(a->r->one, a->r->K, a->x, a->n, first,
                        WF_MIN((size_t)BLOCK, a->r->K - first));
}

void wf_fuse_sums_add(wf_fuse_rows *r, const double *x, size_t n, wf_pool *pool)
{
    adding a = { r, x, n };

    r->count += n;
    wf_pool_run(pool, (r->K + BLOCK - 1) / BLOCK, add_task, &a);
}

/* B += D S and the square sum of D x, for S the concept's sum; block (2, BLOCK, K). */
static void add_results(wf_fuse_target *t, const float *D, const double *S, size_t K, double *block)
{
    size_t  out = (size_t)t->layer->out;
    double *product = block + BLOCK * K;

    for (size_t o = 0; o < out; o += BLOCK) {
        size_t n = WF_MIN((size_t)BLOCK, out - o);
        widen(block, D + o * K, n * K);
        wf_gemm_double(product, K, block, K, S, K, n, K, K, 1, 0);
        for (size_t i = 0; i < n * K; i++) {
            t->before += product[i] * block[i];
            t->B[o * K + i] += product[i];
        }
    }
}

weft_status wf_fuse_sums_end(weft_fuse *f, size_t leader, const wf_fuse_concept *c, weft_error *err)
{
    wf_fuse_rows *r = &f->target[leader].rows;
    size_t        K = r->K, out = 0;
    weft_status   st = WEFT_OK;

    for (size_t i = leader; i < f->targets; i++)
        if (f->target[i].of == leader) out = WF_MAX(out, (size_t)f->target[i].layer->out);
    float  *D = wf_alloc(&f->alloc, out * K * sizeof *D);
    double *block = wf_alloc(&f->alloc, 2 * BLOCK * K * sizeof *block);
    if (D == NULL || block == NULL) st = wf_nomem(err, out * K * sizeof *D, "a layer's difference");
    for (size_t i = 0; i < K; i++)
        for (size_t k = 0; k < i; k++) r->one[k * K + i] = r->one[i * K + k];
    for (size_t i = leader; i < f->targets && st == WEFT_OK; i++) {
        bool any = false;
        if (f->target[i].of != leader) continue;
        st = wf_fuse_difference(f, c, f->target[i].layer, D, &any, err);
        if (st == WEFT_OK && any) add_results(&f->target[i], D, r->one, K, block);
    }
    for (size_t i = 0; i < K * K; i++) r->all[i] += r->one[i];
    memset(r->one, 0, K * K * sizeof *r->one);
    wf_free(&f->alloc, D);
    wf_free(&f->alloc, block);
    return st;
}

/* |D x|^2 over all rows, for the fused D: D A D^T - 2 D B^T + before. block (2, BLOCK, K). */
static double left_over(const wf_fuse_target *t, const double *A, size_t K, double *block)
{
    size_t  out = (size_t)t->layer->out;
    double *product = block + BLOCK * K, sum = t->before;

    for (size_t o = 0; o < out; o += BLOCK) {
        size_t n = WF_MIN((size_t)BLOCK, out - o);
        widen(block, t->delta + o * K, n * K);
        wf_gemm_double(product, K, block, K, A, K, n, K, K, 1, 0);
        for (size_t i = 0; i < n * K; i++) sum += block[i] * (product[i] - 2 * t->B[o * K + i]);
    }
    return WF_MAX(sum, 0.0); /* rounding may leave less than nothing */
}

static weft_status solve_sums(weft_fuse *f, wf_fuse_target *t, const wf_fuse_rows *r,
                              const double *factor, double jitter, double *block, weft_error *err)
{
    size_t out = (size_t)t->layer->out, K = r->K;

    WF_TRY(take_delta(f, t, err));
    for (size_t o = 0; o < out; o += BLOCK) { /* B is asked for again */
        size_t n = WF_MIN((size_t)BLOCK, out - o);
        memcpy(block, t->B + o * K, n * K * sizeof *block);
        wf_cholesky_solve(factor, K, block, n);
        for (size_t i = 0; i < n * K; i++) t->delta[o * K + i] = (float)block[i];
    }
    return report(t, (int64_t)r->count, t->before, left_over(t, r->all, K, block), jitter, err);
}

weft_status wf_fuse_solve_summed(weft_fuse *f, size_t leader, weft_error *err)
{
    wf_fuse_rows *r = &f->target[leader].rows;
    size_t        K = r->K;
    double        jitter = 0, *factor = r->one;
    double       *block = wf_alloc(&f->alloc, 2 * BLOCK * K * sizeof *block);
    weft_status   st = WEFT_OK;

    if (block == NULL) st = wf_nomem(err, 2 * BLOCK * K * sizeof *block, "a layer's rows");
    if (st == WEFT_OK) {
        memcpy(factor, r->all, K * K * sizeof *factor);
        for (size_t i = 0; i < K && r->count == 0; i++) factor[i * K + i] = 1; /* never read */
        st = wf_fuse_factor(factor, K, f->o.ridge, &jitter, f->target[leader].layer->name,
                            &f->alloc, err);
    }
    for (size_t i = leader; i < f->targets; i++) {
        wf_fuse_target *t = &f->target[i];
        if (t->of != leader) continue;
        if (st == WEFT_OK) st = solve_sums(f, t, r, factor, jitter, block, err);
        if (st == WEFT_OK) st = wf_fuse_tick(f, 1, err);
        t->open = false;
        wf_free(&f->alloc, t->B);
        t->B = NULL;
    }
    wf_free(&f->alloc, block);
    wf_fuse_rows_free(r, &f->alloc);
    return st;
}
