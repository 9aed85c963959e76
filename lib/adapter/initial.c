/* initial.c - the part of a layer's weight that PiSSA and OLoRA take out of it before training.
 *
 * Their factors do not begin at zero, but at a part P of the weight itself, which the base then
 * lacks: y = (W - P) x + s B A x. A file has the factors as trained and not P, so whoever applies
 * it finds P again in W.
 *
 *   PiSSA   P = the best rank r of W: the r largest singular values with their vectors
 *   OLoRA   P = s Q_r R_r of W = Q R: what the first r columns of W span
 *
 * Singular vectors are eigenvectors of W W^T or W^T W, whichever is smaller: in double, so that
 * squares cost no accuracy that a float would show, and for r of them only. That is 5 to 15 times
 * as fast as taking W apart whole: 0.3 s for 1280 x 1280, 1 s for 10240 x 1280. P needs one
 * side's vectors alone, P = (W V) V^T, so their signs do not matter, nor how they are turned among
 * equal singular values; only where the r-th and the next are equal P is not defined, for PEFT
 * neither. It is found when a patch or a merged copy is made, and never in a step. */
#include "adapter/initial.h"

#include <math.h>

#include "tensor/gemm.h"
#include "tensor/linalg.h"

/* Rows, or columns, of a weight that are widened to doubles together. */
enum { CHUNK = 256 };

/* A weight seen as `length` vectors of its smaller side's size. */
typedef struct vectors {
    const wf_layer *l;
    float          *whole;  /* if they are its columns; else NULL: they are its rows */
    float          *row;
    size_t          n;      /* size of one */
    size_t          length;
} vectors;

/* x (count, n) = vectors from `from`. */
static void read_chunk(const vectors *v, size_t from, size_t count, double *x)
{
    for (size_t c = 0; c < count; c++) {
        if (v->whole == NULL) wf_layer_rows(v->l, from + c, 1, v->row);
        for (size_t i = 0; i < v->n; i++)
            x[c * v->n + i] = v->whole != NULL ? v->whole[i * v->length + from + c] : v->row[i];
    }
}

static weft_status not_finite(const wf_layer *l, weft_error *err)
{
    return wf_fail(err, WEFT_E_UNSUPPORTED,
                   "%s: its weight holds NaN or infinity, and the adapter takes a part out of it",
                   l->name);
}

/* short_side (r, n) = eigenvectors; long_side (r, length) = what W has along each. */
static weft_status take_top(const vectors *v, size_t r, float *short_side, float *long_side,
                            double *scratch, weft_error *err)
{
    size_t  n = v->n;
    double *G = scratch, *E = G + n * n, *x = E + r * n, *turned = x + CHUNK * n,
           *y = turned + r * n, *work = y + CHUNK * r;

    for (size_t at = 0; at < v->length; at += CHUNK) {
        size_t count = WF_MIN((size_t)CHUNK, v->length - at);
        read_chunk(v, at, count, x);
        wf_gram_double(G, n, x, count);
    }
    for (size_t i = 0; i < n; i++)
        if (!isfinite(G[i * n + i])) return not_finite(v->l, err);
    if (!wf_top_vectors(E, G, n, r, work))
        return wf_fail(err, WEFT_E_INTERNAL, "%s: its singular vectors are not found", v->l->name);
    for (size_t i = 0; i < r * n; i++) {
        short_side[i] = (float)E[i];
        turned[i % n * r + i / n] = E[i];
    }
    for (size_t at = 0; at < v->length; at += CHUNK) {
        size_t count = WF_MIN((size_t)CHUNK, v->length - at);
        read_chunk(v, at, count, x);
        wf_gemm_double(y, r, x, n, turned, r, count, r, n, 1, 0);
        for (size_t i = 0; i < count * r; i++)
            long_side[i % r * v->length + at + i / r] = (float)y[i];
    }
    return WEFT_OK;
}

static weft_status top_pair(const wf_layer *l, size_t r, float *down, float *up,
                            const weft_allocator *alloc, weft_error *err)
{
    size_t  out = (size_t)l->out, in = (size_t)l->in, n = WF_MIN(out, in); /* r <= n: no overflow */
    bool    columns = out < in;
    size_t  floats = columns ? out * in : in;
    size_t  doubles = n * n + 2 * r * n + CHUNK * (n + r) + wf_top_vectors_work(n);
    float  *W = wf_zalloc(alloc, floats, sizeof *W);
    double *scratch = wf_zalloc(alloc, doubles, sizeof *scratch);
    weft_status st;

    if (W == NULL || scratch == NULL) {
        st = wf_nomem(err, floats * sizeof *W + doubles * sizeof *scratch,
                      "a layer's singular vectors");
        goto done;
    }
    if (columns) wf_layer_rows(l, 0, out, W);
    vectors v = { l, columns ? W : NULL, W, n, columns ? in : out };
    st = take_top(&v, r, columns ? up : down, columns ? down : up, scratch, err);
done:
    wf_free(alloc, scratch);
    wf_free(alloc, W);
    return st;
}

static weft_status qr_pair(const wf_layer *l, size_t r, float *down, float *up,
                           const weft_allocator *alloc, weft_error *err)
{
    size_t  out = (size_t)l->out, in = (size_t)l->in,
            doubles = r * (out + in) + CHUNK * in + wf_orthonormal_work(r);
    float  *row = wf_zalloc(alloc, in, sizeof *row);
    double *Q = wf_zalloc(alloc, doubles, sizeof *Q), sum = 0;
    weft_status st = WEFT_OK;

    if (row == NULL || Q == NULL) {
        st = wf_nomem(err, in * sizeof *row + doubles * sizeof *Q, "a layer's first columns");
        goto done;
    }
    double *R = Q + r * out, *x = R + r * in, *work = x + CHUNK * in;
    for (size_t o = 0; o < out; o++) {
        wf_layer_rows(l, o, 1, row);
        for (size_t i = 0; i < in; i++) sum += (double)row[i] * row[i];
        for (size_t p = 0; p < r; p++) Q[p * out + o] = row[p];
    }
    if (!isfinite(sum)) {
        st = not_finite(l, err);
        goto done;
    }
    if (!wf_orthonormal(Q, r, out, work)) {
        st = wf_fail(err, WEFT_E_INTERNAL, "%s: its columns have no basis", l->name);
        goto done;
    }
    for (size_t at = 0; at < out; at += CHUNK) {
        size_t count = WF_MIN((size_t)CHUNK, out - at);
        for (size_t c = 0; c < count; c++) {
            wf_layer_rows(l, at + c, 1, row);
            for (size_t i = 0; i < in; i++) x[c * in + i] = row[i];
        }
        wf_gemm_double(R, in, Q + at, out, x, in, r, in, count, 1, 1);
    }
    for (size_t i = 0; i < r * out; i++) up[i] = (float)Q[i];
    for (size_t i = 0; i < r * in; i++) down[i] = (float)R[i];
done:
    wf_free(alloc, Q);
    wf_free(alloc, row);
    return st;
}

weft_status wf_initial_pair(int32_t initial, const wf_layer *l, size_t r, float *down, float *up,
                            const weft_allocator *alloc, weft_error *err)
{
    return initial == WF_INITIAL_TOP ? top_pair(l, r, down, up, alloc, err)
                                     : qr_pair(l, r, down, up, alloc, err);
}
