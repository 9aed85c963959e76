/* difference.c - what adapters do to one layer, held beside each other.
 *
 * A difference of two factors is never multiplied out: <B1 A1, B2 A2> is the sum over the r1 r2
 * entries of (B1^T B2) * (A1 A2^T), so a norm or a cosine costs r1 r2 (in + out). Signs are only
 * known of the product itself; that is formed a row at a time. Other families are formed whole, one
 * layer at a time. Sums are in double. */
#include <math.h>

#include "adapter/adapter_internal.h"
#include "adapter/difference.h"

/* ---- loading --------------------------------------------------------------------------------- */

/* (r, out) and (r, K), or D. */
static weft_status load_pair(wf_difference *d, const wf_module *m, const wf_layer *l,
                             const weft_allocator *alloc, weft_error *err)
{
    size_t floats;

    d->r = (size_t)wf_module_pair_rank(m);
    if (!wf_mul(d->r, d->K + d->out, &floats))
        return wf_fail(err, WEFT_E_ARG, "%s: the factors are too large", m->key);
    d->A = wf_zalloc(alloc, floats, sizeof *d->A);
    if (d->A == NULL) return wf_nomem(err, floats * sizeof *d->A, "a layer's difference");
    d->B = d->A + d->r * d->K;
    return wf_module_pair(m, l, d->A, d->B, alloc, err);
}

weft_status wf_difference_load(wf_difference *d, const weft_adapter *a, const wf_slice *slice,
                               int32_t count, const wf_layer *l, bool ignore_alpha,
                               const weft_allocator *alloc, weft_error *err)
{
    const wf_module *m = wf_adapter_module(a, (size_t)slice->module);
    size_t           K = (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel, entries;
    weft_status      st = WEFT_OK;

    *d = (wf_difference){ .out = (size_t)l->out, .K = K, .scale = 1 };
    if (!wf_mul(d->out, K, &entries))
        return wf_fail(err, WEFT_E_ARG, "%s: the product is too large", m->key);
    if (count == 1 && wf_slice_whole(slice, l) && wf_module_form(m, l) == WF_FORM_PAIR) {
        d->scale = ignore_alpha ? 1 : (double)m->scale;
        st = load_pair(d, m, l, alloc, err);
    } else {
        d->D = wf_zalloc(alloc, entries, sizeof *d->D);
        if (d->D == NULL) return wf_nomem(err, entries * sizeof *d->D, "a layer's difference");
        for (int32_t i = 0; i < count && st == WEFT_OK; i++) {
            m = wf_adapter_module(a, (size_t)slice[i].module);
            st = wf_slice_add(&slice[i], m, l, ignore_alpha ? 1 : (double)m->scale, 1, 1, d->D,
                              alloc, err);
        }
    }
    if (st != WEFT_OK) wf_difference_free(d, alloc);
    return st;
}

void wf_difference_free(wf_difference *d, const weft_allocator *alloc)
{
    wf_free(alloc, d->A);
    wf_free(alloc, d->D);
    *d = (wf_difference){ 0 };
}

/* ---- products -------------------------------------------------------------------------------- */

/* Four partial sums, so that additions need not wait for each other. */
static double dot(const float *a, const float *b, size_t n)
{
    double s[4] = { 0 };
    size_t i = 0;

    for (; i + 4 <= n; i += 4)
        for (size_t j = 0; j < 4; j++) s[j] += (double)a[i + j] * (double)b[i + j];
    for (; i < n; i++) s[0] += (double)a[i] * (double)b[i];
    return s[0] + s[1] + (s[2] + s[3]);
}

/* Row o: D[o,:], formed in `row` if need be. */
static const float *row_of(const wf_difference *d, size_t o, float *row)
{
    if (d->D != NULL) return d->D + o * d->K;
    memset(row, 0, d->K * sizeof *row);
    for (size_t p = 0; p < d->r; p++) {
        float        b = (float)(d->scale * (double)d->B[p * d->out + o]);
        const float *A = d->A + p * d->K;
        for (size_t k = 0; k < d->K; k++) row[k] += b * A[k];
    }
    return row;
}

static double dot_of_factors(const wf_difference *x, const wf_difference *y)
{
    double sum = 0;

    for (size_t p = 0; p < x->r; p++)
        for (size_t q = 0; q < y->r; q++)
            sum += dot(x->B + p * x->out, y->B + q * y->out, x->out) *
                   dot(x->A + p * x->K, y->A + q * y->K, x->K);
    return sum * x->scale * y->scale;
}

weft_status wf_difference_dot(double *sum, const wf_difference *x, const wf_difference *y,
                              const weft_allocator *alloc, weft_error *err)
{
    float *rows;

    *sum = 0;
    if (x->D == NULL && y->D == NULL) {
        *sum = dot_of_factors(x, y);
        return WEFT_OK;
    }
    rows = wf_zalloc(alloc, 2 * x->K, sizeof *rows);
    if (rows == NULL) return wf_nomem(err, 2 * x->K * sizeof *rows, "rows of two differences");
    for (size_t o = 0; o < x->out; o++)
        *sum += dot(row_of(x, o, rows), row_of(y, o, rows + x->K), x->K);
    wf_free(alloc, rows);
    return WEFT_OK;
}

weft_status wf_slices_energy(const weft_adapter *a, const wf_slice *slice, int32_t count,
                             const wf_layer *l, bool ignore_alpha, double *energy,
                             const weft_allocator *alloc, weft_error *err)
{
    wf_difference d;
    weft_status   st;

    WF_TRY(wf_difference_load(&d, a, slice, count, l, ignore_alpha, alloc, err));
    st = wf_difference_dot(energy, &d, &d, alloc, err);
    *energy = *energy > 0 ? sqrt(*energy) : 0; /* rounding may leave less than nothing of nothing */
    wf_difference_free(&d, alloc);
    return st;
}
