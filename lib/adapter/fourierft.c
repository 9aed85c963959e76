/* fourierft.c - FourierFT: the difference of a weight by a few of its frequencies.
 *
 *   fourierft_spectrum (n)
 *   Delta W = scaling * Re ifft2(S), S (out, in) zero but for the n values at random places
 *
 * The file has no places. They are the first n of a random order of all out * in, by torch.randperm
 * with the seed random_loc_seed; that and the scaling are in PEFT's configuration, without which
 * nothing can be said. The real part of the inverse transform is, with frequencies u of rows and v
 * of columns,
 *
 *   Delta W[p,q] = scaling / (out in) sum over u of cos(2 pi u p / out) C_u[q] - sin(..) D_u[q]
 *   C_u[q] + i D_u[q] = sum over v of S[u,v] exp(2 pi i v q / in)
 *
 * that is, a product of two real matrices with as many columns as there are rows u in use. Row
 * out - p has the same two sums as row p with the other sign between them, so half the rows do. A
 * fast transform would take fewer operations, but BLAS is faster for the widths that layers have.
 *
 * PEFT has it for linear layers. Gao et al., FourierFT, 2024. */
#include <math.h>

#include "adapter/factor.h"
#include "adapter/save.h"
#include "tensor/gemm.h"

#define TWO_PI 6.283185307179586476925286766559

/* From here on torch draws its order another way. No layer of a UNet comes near. */
enum { MOST_PLACES = UINT32_MAX / 20 };

/* What a module keeps of the configuration. */
typedef struct fourier {
    int64_t seed;
    double  scaling;
    bool    told;
} fourier;

static const fourier *fourier_of(const wf_module *m)
{
    return m->extra;
}

static weft_status settle(wf_module *m, const wf_settings *s, const wf_config *config,
                          const char *path, weft_error *err)
{
    fourier *extra = m->extra;

    (void)s, (void)path, (void)err;
    if (config == NULL) return WEFT_OK;
    extra->scaling = wf_config_number(config, "scaling", 150);
    extra->told = wf_config_integer(config, "random_loc_seed", 777, &extra->seed);
    return WEFT_OK;
}

static weft_status shape(wf_module *m, const char *source, weft_error *err)
{
    const wf_tensor *t = m->tensor[WF_TENSOR_SPECTRUM];

    if (t->rank != 1) return wf_module_wrong_shape(t, source, "(n)", err);
    if (!fourier_of(m)->told)
        return wf_module_fail(m, source, err,
                              "no configuration says its scaling and random_loc_seed: keep "
                              "adapter_config.json beside the file");
    m->rank = m->out = m->in = 0;
    m->kernel = 1;
    m->scale = (float)fourier_of(m)->scaling;
    if (!isfinite(m->scale))
        return wf_module_fail(m, source, err,
                              "the configuration has a scaling that is no finite number");
    return WEFT_OK;
}

static bool fits(const wf_module *m, const wf_layer *l)
{
    size_t places = (size_t)l->out * (size_t)l->in;

    return l->kind != WEFT_LAYER_NORM && l->kernel == 1 && places < MOST_PLACES &&
           m->tensor[WF_TENSOR_SPECTRUM]->count <= places;
}

/* The first n of torch's random order of 0 .. places - 1. `order` has room for all. */
static void draw_places(uint32_t *order, size_t places, size_t n, int64_t seed)
{
    wf_mersenne g;

    wf_mersenne_seed(&g, (uint64_t)seed);
    for (size_t i = 0; i < places; i++) order[i] = (uint32_t)i;
    for (size_t i = 0; i < n && i + 1 < places; i++) {
        size_t   other = i + wf_mersenne_next(&g) % (places - i);
        uint32_t place = order[other];
        order[other] = order[i];
        order[i] = place;
    }
}

/* cos and sin of 2 pi j / n for all j < n. */
static void circle(double *c, double *s, size_t n)
{
    for (size_t j = 0; j < n; j++) {
        c[j] = cos(TWO_PI * (double)j / (double)n);
        s[j] = sin(TWO_PI * (double)j / (double)n);
    }
}

/* What the difference of one layer is made of. */
typedef struct waves {
    size_t    out, in, n;
    uint32_t *order; /* [out * in] places, the first n in use                     */
    uint32_t *slot;  /* [out] row u's number among those in use, from 1; 0: none  */
    size_t    used;  /* rows in use                                               */
    double   *c, *s; /* [most of out and in] a circle                             */
    double   *sum;   /* (2 used, in) C_u and D_u, one after the other             */
    float    *CD;    /* (2, used, in) C and D                                     */
    float    *row;   /* (2, WF_STRIP, used) cosines and sines                     */
    float    *EO;    /* (2, WF_STRIP, in) the two sums of a strip of rows         */
} waves;

static void free_waves(waves *w, const weft_allocator *alloc)
{
    wf_free(alloc, w->order);
    wf_free(alloc, w->slot);
    wf_free(alloc, w->c);
    wf_free(alloc, w->sum);
    wf_free(alloc, w->CD);
}

static weft_status take_waves(waves *w, int64_t seed, const weft_allocator *alloc, weft_error *err)
{
    size_t most = WF_MAX(w->out, w->in), floats;

    w->order = wf_zalloc(alloc, w->out * w->in, sizeof *w->order);
    w->slot = wf_zalloc(alloc, w->out, sizeof *w->slot);
    w->c = wf_zalloc(alloc, 2 * most, sizeof *w->c);
    if (w->order == NULL || w->slot == NULL || w->c == NULL)
        return wf_nomem(err, w->out * w->in * sizeof *w->order, "a layer's frequencies");
    w->s = w->c + most;
    draw_places(w->order, w->out * w->in, w->n, seed);
    for (size_t k = 0; k < w->n; k++) {
        uint32_t *slot = &w->slot[w->order[k] / w->in];
        if (*slot == 0) *slot = (uint32_t)++w->used;
    }
    floats = 2 * w->used * w->in + 2 * WF_STRIP * (w->used + w->in);
    w->sum = wf_zalloc(alloc, 2 * w->used * w->in, sizeof *w->sum);
    w->CD = wf_zalloc(alloc, floats, sizeof *w->CD);
    if (w->sum == NULL || w->CD == NULL)
        return wf_nomem(err, floats * sizeof *w->CD, "a layer's frequencies");
    w->row = w->CD + 2 * w->used * w->in;
    w->EO = w->row + 2 * WF_STRIP * w->used;
    return WEFT_OK;
}

/* C and D of all rows in use, times `scale`. */
static void transform_rows(const waves *w, const wf_tensor *spectrum, double scale)
{
    size_t all = w->used * w->in;

    circle(w->c, w->s, w->in);
    for (size_t k = 0; k < w->n; k++) {
        size_t  v = w->order[k] % w->in, at = 0;
        double *C = w->sum + (w->slot[w->order[k] / w->in] - 1) * w->in, *D = C + all;
        float   value;
        wf_tensor_read(spectrum, k, 1, &value);
        for (size_t q = 0; q < w->in; q++) {
            C[q] += (double)value * w->c[at];
            D[q] += (double)value * w->s[at];
            at += v;
            if (at >= w->in) at -= w->in;
        }
    }
    for (size_t i = 0; i < 2 * all; i++) w->CD[i] = (float)(scale * w->sum[i]);
}

/* dst += the rows p in [from, from + n) and their mirror images out - p. */
static void add_rows(const waves *w, size_t from, size_t n, float *dst)
{
    size_t used = w->used, in = w->in, out = w->out;
    float *C = w->row, *S = C + WF_STRIP * used, *E = w->EO, *O = E + WF_STRIP * in;

    for (size_t p = from; p < from + n; p++)
        for (size_t u = 0; u < out; u++) {
            size_t at = u * p % out;
            if (w->slot[u] == 0) continue;
            C[(p - from) * used + w->slot[u] - 1] = (float)w->c[at];
            S[(p - from) * used + w->slot[u] - 1] = (float)w->s[at];
        }
    wf_gemm_nn(E, in, C, used, w->CD, in, n, in, used, 0);
    wf_gemm_nn(O, in, S, used, w->CD + used * in, in, n, in, used, 0);
    for (size_t p = from; p < from + n; p++) {
        const float *E_p = E + (p - from) * in, *O_p = O + (p - from) * in;
        size_t       mirror = out - p;
        for (size_t q = 0; q < in; q++) dst[p * in + q] += E_p[q] - O_p[q];
        for (size_t q = 0; p > 0 && mirror > p && q < in; q++)
            dst[mirror * in + q] += E_p[q] + O_p[q];
    }
}

static weft_status add(const wf_module *m, const wf_layer *l, double scale, double c, float *dst,
                       const weft_allocator *alloc, weft_error *err)
{
    const wf_tensor *t = m->tensor[WF_TENSOR_SPECTRUM];
    waves            w = { .out = (size_t)l->out, .in = (size_t)l->in, .n = t->count };
    weft_status      st = take_waves(&w, fourier_of(m)->seed, alloc, err);

    if (st == WEFT_OK) {
        transform_rows(&w, t, scale * c / (double)(w.out * w.in));
        circle(w.c, w.s, w.out);
        for (size_t p = 0; p <= w.out / 2; p += WF_STRIP)
            add_rows(&w, p, WF_MIN((size_t)WF_STRIP, w.out / 2 + 1 - p), dst);
    }
    free_waves(&w, alloc);
    return st;
}

/* ---- PEFT's configuration -------------------------------------------------------------------- */

static const wf_peft_type peft_types[] = {
    { .name = "FOURIERFT", .known_by = WF_BIT(WF_TENSOR_SPECTRUM) },
    { .name = NULL },
};

static double frequencies(const wf_peft_writer *w, size_t i)
{
    return (double)wf_peft_module(w, i)->tensor[WF_TENSOR_SPECTRUM]->count;
}

static weft_status write_peft(const wf_peft_writer *w)
{
    const fourier *one = fourier_of(wf_peft_first(w));

    for WF_EACH(w, i) {
        const fourier *f = fourier_of(wf_peft_module(w, i));
        if (f->seed != one->seed || f->scaling != one->scaling)
            return wf_peft_refuse(w, i, "has another seed or scaling than the others");
    }
    wf_peft_common(w, "init_weights");
    wf_peft_numbers(w, "n_frequency", "n_frequency_pattern", frequencies);
    wf_peft_value(w, "scaling", one->scaling);
    wf_peft_integer(w, "random_loc_seed", one->seed);
    wf_peft_text(w, "bias", "none");
    return WEFT_OK;
}

const wf_family wf_family_fourierft = {
    .name = "fourierft",
    .title = "FourierFT",
    .needs = WF_BIT(WF_TENSOR_SPECTRUM),
    .extra_size = sizeof(fourier),
    .settle = settle,
    .shape = shape,
    .fits = fits,
    .misfit = "it has more frequencies than the layer has weights, or the layer is a convolution:",
    .form = wf_form_dense,
    .add = add,
    .dialects = 1 << WEFT_DIALECT_PEFT,
    .peft_types = peft_types,
    .write_peft = write_peft,
};
