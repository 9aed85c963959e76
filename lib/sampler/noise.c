/* noise.c - normal random numbers that equal those of torch's CPU generator for the same seed.
 *
 * An image is reproduced elsewhere only if its first noise is, so we follow torch.randn bit by
 * bit as far as that means anything: the engine (base/mersenne.c) and the uniforms are exact, and so
 * are draws of fewer than 16 numbers, which torch computes in double. Longer draws torch transforms
 * with vectorised float32 polynomials for log, sin and cos, whose last bit depends on the
 * processor. We round where it rounds and let the functions themselves be exact: five numbers in
 * six are torch's own bits, the rest one unit away (5e-7). Leaving the angle in double would be
 * nearer the truth and three times further from torch.
 *
 * Two of torch's habits are visible from outside and are kept. The short path makes numbers in
 * pairs and saves the second one in the generator for later, where only another short draw will
 * use it. A long draw that is no multiple of 16 replaces its last 16 numbers by a group of their
 * own. */
#include <math.h>

#include "base/structs.h"
#include "sampler/sampler_internal.h"

#define GROUP 16 /* torch's vector path starts here, and works in groups of this many */
#define TWO_PI 6.283185307179586476925286766559

struct weft_noise {
    weft_allocator alloc;
    wf_mersenne engine;
    bool        has_saved;
    double      saved; /* the second number of a pair */
};

static weft_status read_options(weft_noise_options *o, const weft_noise_options *options,
                                weft_error *err)
{
    WF_TRY(WF_OPTIONS(o, options, weft_noise_options, 0, err));
    if (o->reserved0 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "weft_noise_options: reserved0 is %d, must be zero", (int)o->reserved0);
    if (o->kind != 0 && o->kind != WEFT_NOISE_TORCH_CPU)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_noise_create: kind is %d, which is no WEFT_NOISE_* of this version",
                       o->kind);
    return wf_check_allocator(o->allocator, err);
}

weft_status weft_noise_create(uint64_t seed, const weft_noise_options *options, weft_noise **out,
                              weft_error *err)
{
    weft_noise_options o;
    weft_allocator     alloc;
    weft_noise        *g;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "weft_noise_create: out is NULL");
    *out = NULL;
    WF_TRY(read_options(&o, options, err));
    alloc = wf_allocator(o.allocator);
    g = wf_zalloc(&alloc, 1, sizeof *g);
    if (g == NULL) return wf_nomem(err, sizeof *g, "a noise generator");

    g->alloc = alloc;
    wf_mersenne_seed(&g->engine, seed);
    *out = g;
    return WEFT_OK;
}

void weft_noise_free(weft_noise *noise)
{
    if (noise == NULL) return;
    weft_allocator alloc = noise->alloc;
    wf_free(&alloc, noise);
}

/* 53 random bits, as a double in [0, 1). */
static double next_uniform_double(weft_noise *g)
{
    uint64_t high = wf_mersenne_next(&g->engine);
    uint64_t bits = (high << 32) | wf_mersenne_next(&g->engine);

    return (double)(bits & ((UINT64_C(1) << 53) - 1)) * 0x1p-53;
}

static double next_normal(weft_noise *g)
{
    double u1, u2, radius;

    if (g->has_saved) {
        g->has_saved = false;
        return g->saved;
    }
    u1 = next_uniform_double(g);
    u2 = next_uniform_double(g);
    radius = sqrt(-2.0 * log1p(-u2));
    g->saved = radius * sin(TWO_PI * u1);
    g->has_saved = true;
    return radius * cos(TWO_PI * u1);
}

/* Box and Muller (1958) on 16 uniforms: number j pairs with number j + 8. */
static void transform_group(float *d)
{
    for (int32_t j = 0; j < GROUP / 2; j++) {
        float logarithm = (float)log((double)(1 - d[j]));
        float radius    = sqrtf(-2 * logarithm);
        float angle     = (float)TWO_PI * d[j + GROUP / 2];

        d[j]             = radius * (float)cos((double)angle);
        d[j + GROUP / 2] = radius * (float)sin((double)angle);
    }
}

weft_status weft_noise_normal(weft_noise *noise, float *out, size_t n, weft_error *err)
{
    if (noise == NULL) return wf_fail(err, WEFT_E_ARG, "weft_noise_normal: noise is NULL");
    if (n == 0) return WEFT_OK;
    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "weft_noise_normal: out is NULL");

    if (n < GROUP) {
        for (size_t i = 0; i < n; i++) out[i] = (float)next_normal(noise);
        return WEFT_OK;
    }
    for (size_t i = 0; i < n; i++) out[i] = wf_mersenne_uniform(&noise->engine);
    for (size_t i = 0; i + GROUP <= n; i += GROUP) transform_group(out + i);
    if (n % GROUP != 0) {
        float *tail = out + n - GROUP;

        for (size_t i = 0; i < GROUP; i++) tail[i] = wf_mersenne_uniform(&noise->engine);
        transform_group(tail);
    }
    return WEFT_OK;
}
