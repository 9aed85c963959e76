/* walk.h - for the tests of samplers: making one, the loop around it with a network that is a formula, and stored
 * tensors. */
#ifndef TESTS_SAMPLER_WALK_H
#define TESTS_SAMPLER_WALK_H

#include <math.h>

#include "help.h"
#include "weft/sampler.h"
#include "weft/tensors.h"

static weft_error err;

static inline weft_sampler *made(weft_sampler_options o)
{
    weft_sampler *s = NULL;

    ck_assert_msg(weft_sampler_create(&o, &s, &err) == WEFT_OK, "%s", err.text);
    return s;
}

static inline weft_sampler_options options_of(int32_t kind, int32_t steps)
{
    weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;

    o.kind = kind;
    o.steps = steps;
    return o;
}

/* The network of the stored trajectories: any function of x and t would do. */
static inline void toy(const float *x, float t, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (float)(0.3 * sin(1.7 * (double)x[i]) + 0.05 * (double)x[i] + 0.1 * (double)t / 1000);
}

static inline void close_to(const char *name, const char *what, size_t i, double got, double want, double tolerance)
{
    ck_assert_msg(fabs(got - want) <= tolerance, "%s: %s %zu is %.9g, diffusers has %.9g", name, what, i, got, want);
}

/* One call of the loop: scale, predict, step. */
static inline void walk(weft_sampler *s, int32_t call, float *x, size_t n, weft_noise *noise)
{
    float *in = malloc(n * sizeof *in), *p = malloc(n * sizeof *p);

    ck_assert_int_eq(weft_sampler_scale(s, call, x, in, n, &err), WEFT_OK);
    toy(in, weft_sampler_timestep(s, call), p, n);
    ck_assert_msg(weft_sampler_step(s, call, p, x, n, noise, &err) == WEFT_OK, "%s", err.text);
    free(in);
    free(p);
}

static inline void begin(weft_sampler *s, int32_t call, size_t n)
{
    ck_assert_msg(weft_sampler_begin(s, call, n, &err) == WEFT_OK, "%s", err.text);
}

static weft_tensors *stored;

static inline float *read_stored(const char *name, const char *part, size_t *count)
{
    weft_tensor_info info = WEFT_TENSOR_INFO_INIT;
    char             full[128];
    int64_t          index;
    float           *v;

    snprintf(full, sizeof full, "%s%s%s", name, part ? "/" : "", part ? part : "");
    index = weft_tensors_find(stored, full);
    ck_assert_msg(index >= 0, "%s is not there", full);
    ck_assert_int_eq(weft_tensors_info(stored, (size_t)index, &info, &err), WEFT_OK);
    v = malloc(info.count * sizeof *v);
    ck_assert_int_eq(weft_tensors_read(stored, (size_t)index, v, info.count, &err), WEFT_OK);
    *count = info.count;
    return v;
}

#endif
