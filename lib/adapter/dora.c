/* dora.c - a magnitude beside a family's own difference: weight-decomposed adaptation.
 *
 *   V = W + scale * Delta      W' = g V / |V|      what is added: c (W' - W)
 *
 * The norm is taken of each output row, where g is (out) or (out, 1, ..), or of each input column
 * over outputs and kernel, where g is (1, in, ..): the first is how PEFT, diffusers and LyCORIS now
 * train, the second how older LyCORIS files are. PEFT writes (1, out, 1, 1) for convolutions and
 * means rows, so its key decides before the shape does. Delta is any family's.
 *
 * A user's strength c moves along the line from W to W': nothing at 0, the trained weight at 1.
 * PEFT puts the strength into V instead (`inside`), and LyCORIS starts its line at V; both leave
 * something behind at 0. LyCORIS adds the smallest step of a float to the norm, PEFT nothing; a row
 * that is zero stays zero with either.
 *
 * Keys dora_scale (kohya, LyCORIS), lora_magnitude_vector (PEFT, diffusers). Liu et al., DoRA,
 * 2024. */
#include <float.h>
#include <math.h>

#include "adapter/factor.h"

/* Is the magnitude one value for each output row? Where both are possible, rows. */
bool wf_dora_rows(const wf_module *m, const wf_layer *l)
{
    const wf_tensor *g = m->tensor[WF_TENSOR_MAGNITUDE];

    return m->peft_magnitude || g->rank == 1 || g->shape[0] != 1 || g->shape[1] != l->in;
}

bool wf_dora_fits(const wf_module *m, const wf_layer *l)
{
    const wf_tensor *g = m->tensor[WF_TENSOR_MAGNITUDE];
    int64_t          n = wf_dora_rows(m, l) ? l->out : l->in;

    return l->kind != WEFT_LAYER_NORM && g->count == (size_t)n &&
           (g->shape[0] == n || (g->rank > 1 && g->shape[0] == 1 && g->shape[1] == n));
}

void wf_dora_norms(double *norm, const float *V, const wf_layer *l, bool rows)
{
    size_t out = (size_t)l->out, in = (size_t)l->in, taps = (size_t)l->kernel * (size_t)l->kernel,
           n = rows ? out : in;

    for (size_t i = 0; i < n; i++) norm[i] = 0;
    for (size_t j = 0; j < out * taps; j++) {
        const float *v = V + j * in;
        double       s = 0;
        for (size_t i = 0; i < in && rows; i++) s += (double)v[i] * v[i];
        for (size_t i = 0; i < in && !rows; i++) norm[i] += (double)v[i] * v[i];
        if (rows) norm[j / taps] += s;
    }
    for (size_t i = 0; i < n; i++) norm[i] = sqrt(norm[i]);
}

/* Norms become factors g / |V|. */
static void take_magnitude(const wf_module *m, double *norm, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float  g;
        double least = m->peft_magnitude ? 0 : (double)FLT_EPSILON;
        wf_tensor_read(m->tensor[WF_TENSOR_MAGNITUDE], i, 1, &g);
        norm[i] = norm[i] + least > 0 ? (double)g / (norm[i] + least) : 0;
    }
}

weft_status wf_dora_add(const wf_module *m, const wf_layer *l, wf_add_fn inner, double scale,
                        double inside, double c, float *dst, const weft_allocator *alloc,
                        weft_error *err)
{
    size_t      out = (size_t)l->out, in = (size_t)l->in,
                K = in * (size_t)l->kernel * (size_t)l->kernel, floats;
    bool        rows = wf_dora_rows(m, l);
    size_t      n = rows ? out : in;
    double     *f = wf_zalloc(alloc, n, sizeof *f);
    float      *V = NULL, *W;
    weft_status st;

    if (!wf_mul(out + WF_STRIP, K, &floats)) floats = SIZE_MAX;
    if (f == NULL || (V = wf_zalloc(alloc, floats, sizeof *V)) == NULL) {
        st = wf_nomem(err, n * sizeof *f + floats * sizeof *V, "a layer's weight");
        goto done;
    }
    W = V + out * K;
    wf_layer_rows(l, 0, out, V);
    if ((st = inner(m, l, scale, inside, V, alloc, err)) != WEFT_OK) goto done;
    wf_dora_norms(f, V, l, rows);
    take_magnitude(m, f, n);
    for (size_t o = 0; o < out; o += WF_STRIP) {
        size_t strip = WF_MIN((size_t)WF_STRIP, out - o);
        wf_layer_rows(l, o, strip, W);
        for (size_t j = 0; j < strip; j++)
            for (size_t i = 0; i < K; i++) {
                size_t at = (o + j) * K + i;
                dst[at] += (float)(c * (f[rows ? o + j : i % in] * V[at] - W[j * K + i]));
            }
    }
done:
    wf_free(alloc, V);
    wf_free(alloc, f);
    return st;
}
