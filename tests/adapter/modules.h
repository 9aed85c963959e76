/* modules.h - for the tests of families: one module over tensors in memory, and a layer for it. */
#ifndef WF_TEST_MODULES_H
#define WF_TEST_MODULES_H

#include <math.h>

#include "adapter/rotation.h"
#include "files.h"

typedef struct sample {
    wf_tensor tensors[12];
    size_t    count;
    wf_module m;
    union {
        wf_start_rank start;
        wf_oft_peft   oft;
        wf_ia3_peft   ia3;
    } extra; /* what a configuration would have said */
    wf_layer  l;
} sample;

static inline const weft_allocator *heap(void)
{
    static weft_allocator h;
    h = wf_allocator(NULL);
    return &h;
}

/* Hang a tensor of these dimensions (0: no more) into the module. */
static inline void give(sample *s, int32_t role, const float *data, int64_t a, int64_t b, int64_t c, int64_t d)
{
    wf_tensor *t = &s->tensors[s->count++];

    *t = (wf_tensor){ .name = wf_tensor_role(role), .data = (const uint8_t *)data, .shape = { a, b, c, d }, .dtype = WF_F32 };
    t->count = 1;
    while (t->rank < 4 && t->shape[t->rank] > 0) t->count *= (size_t)t->shape[t->rank++];
    t->bytes = t->count * sizeof *data;
    s->m.tensor[role] = t;
}

static inline void give_alpha(sample *s, float alpha)
{
    s->m.alpha = alpha;
    s->m.has_alpha = true;
}

static inline weft_status try_settle(sample *s)
{
    s->m.key = s->m.name = "m";
    s->m.extra = &s->extra;
    s->m.family = wf_module_family(&s->m);
    ck_assert_msg(s->m.family != NULL, "no family has these tensors");
    WF_TRY(wf_module_check_tensors(&s->m, "test", &err));
    return s->m.family->shape(&s->m, "test", &err);
}

static inline void settle(sample *s)
{
    ck_assert_msg(try_settle(s) == WEFT_OK, "%s", err.text);
}

/* W (out, in, k, k), or NULL where the family does not read it. */
static inline void lay(sample *s, const float *W, int32_t out, int32_t in, int32_t kernel)
{
    s->l = (wf_layer){ .name = "layer", .weight = W, .dtype = WF_F32, .kind = kernel == 1 ? WEFT_LAYER_LINEAR : WEFT_LAYER_CONV,
                       .out = out, .in = in, .kernel = kernel, .stride = 1, .pad = kernel / 2 };
}

static inline size_t floats_of(const sample *s)
{
    return (size_t)s->l.out * (size_t)s->l.in * (size_t)s->l.kernel * (size_t)s->l.kernel;
}

/* dst (out, K) = c * (W' - W), in the order of the networks. */
static inline void add_module(const sample *s, double c, float *dst)
{
    memset(dst, 0, floats_of(s) * sizeof *dst);
    weft_status st = wf_module_add(&s->m, &s->l, (double)s->m.scale, 1, c, dst, heap(), &err);
    ck_assert_msg(st == WEFT_OK, "%s", err.text);
}

/* From (out, ky, kx, in) to (out, in, ky, kx), as files and references have it. */
static inline void as_stored(const sample *s, const float *from, float *to)
{
    size_t in = (size_t)s->l.in, kk = (size_t)s->l.kernel * (size_t)s->l.kernel;

    for (size_t o = 0; o < (size_t)s->l.out; o++)
        for (size_t i = 0; i < in; i++)
            for (size_t k = 0; k < kk; k++) to[(o * in + i) * kk + k] = from[(o * kk + k) * in + i];
}

/* The module's difference in the file's order. */
static inline void difference(const sample *s, double c, float *dst)
{
    float *sum = malloc(floats_of(s) * sizeof *sum);

    add_module(s, c, sum);
    as_stored(s, sum, dst);
    free(sum);
}

static inline void near(const float *got, const double *want, size_t n, double limit)
{
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(fabs((double)got[i] - want[i]) <= limit, "value %zu is %.9g, wanted %.9g", i, (double)got[i], want[i]);
}

#endif
