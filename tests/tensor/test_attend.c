/* Attention of every tier against the softmax in double, for heads of many widths, and numbers of queries and keys that
 * leave something over in tiles, panels, blocks and pairs. What masks, groups and segments do is nets/test_layer.c's. */
#include <check.h>
#include <math.h>
#include <stdlib.h>

#include "tensor/gemm.h"
#include "tensor/product.h"

static const wf_products *tiers[4] = { &wf_products_openblas };
static int tier_count = 1;

static const struct { int32_t lq, lk, heads, d; } cases[] = {
    { 1, 1, 1, 1 },   { 5, 7, 2, 7 },     { 49, 77, 2, 40 }, { 193, 129, 1, 64 }, { 200, 257, 2, 80 },
    { 64, 64, 1, 160 }, { 23, 130, 1, 161 }, { 7, 300, 3, 33 }, { 50, 20, 1, 96 },  { 16, 40, 1, 512 },
};

static float *floats(size_t n, uint32_t seed)
{
    float *p = malloc(n * sizeof *p);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        p[i] = (float)(seed >> 8) / (float)(1 << 22) - 2.0f;
    }
    return p;
}

/* want (d) of one query. */
static void attend_row(double *want, const float *q, const float *k, const float *v, size_t keys, size_t width, size_t d)
{
    double sum = 0, top = -INFINITY, *s = malloc(keys * sizeof *s);
    for (size_t i = 0; i < keys; i++) {
        s[i] = 0;
        for (size_t c = 0; c < d; c++) s[i] += (double)q[c] * k[i * width + c] / sqrt((double)d);
        top = fmax(top, s[i]);
    }
    for (size_t c = 0; c < d; c++) want[c] = 0;
    for (size_t i = 0; i < keys; i++) {
        double e = exp(s[i] - top);
        sum += e;
        for (size_t c = 0; c < d; c++) want[c] += e * v[i * width + c];
    }
    for (size_t c = 0; c < d; c++) want[c] /= sum;
    free(s);
}

/* All tasks of an attention, the last one first: they depend on nothing but their number. */
static float *run(const wf_products *t, const wf_attention *a, size_t n)
{
    float *o = malloc((n + 1) * sizeof *o), *scratch = malloc(t->attend_scratch(a));
    size_t tasks = (size_t)a->n * (size_t)a->heads * (((size_t)a->lq + t->queries - 1) / t->queries);
    memset(o, 0xff, (n + 1) * sizeof *o);
    memset(scratch, 0xff, t->attend_scratch(a));
    wf_blas_begin();
    while (tasks-- > 0) t->attend(o, a, wf_kernels_pick(wf_cpu_detect()), tasks, scratch);
    wf_blas_end();
    ck_assert(o[n] != o[n]); /* nothing beyond it */
    free(scratch);
    return o;
}

START_TEST(attention_is_softmax)
{
    enum { N = 2 };
    const wf_products *t = tiers[_i / (int)WF_LEN(cases)];
    size_t i = (size_t)_i % WF_LEN(cases), lq = (size_t)cases[i].lq, lk = (size_t)cases[i].lk;
    size_t heads = (size_t)cases[i].heads, d = (size_t)cases[i].d, width = heads * d, n = N * lq * width;
    float *q = floats(n, 1), *k = floats(N * lk * width, 2), *v = floats(N * lk * width, 3);
    double *want = malloc(n * sizeof *want), worst = 0, top = 0;
    wf_attention a = { .n = N, .heads = cases[i].heads, .d = cases[i].d, .lq = cases[i].lq, .q = q,
                       .keys = &(wf_keys){ k, v, cases[i].lk }, .segments = 1 };
    for (size_t row = 0; row < N * lq * heads; row++) {
        size_t sample = row / heads / lq, from = row % heads * d;
        attend_row(want + row * d, q + row * d, k + sample * lk * width + from, v + sample * lk * width + from, lk, width,
                   d);
    }
    float *o = run(t, &a, n);
    for (size_t c = 0; c < n; c++) {
        double e = fabs(o[c] - want[c]);
        worst = e <= worst ? worst : e;
        top = fmax(top, fabs(want[c]));
    }
    /* A bfloat16 is known to one part in 256, and so is each of the many terms of a score. */
    ck_assert_msg(worst <= top * (strstr(t->name, "bf16") != NULL ? 0.02 : 3e-6), "%s, %zu x %zu of %zu: off by %g of %g",
                  t->name, lq, lk, d, worst, top);
    free(q), free(k), free(v), free(want), free(o);
}
END_TEST

/* A NaN among the scores reaches the query's result, and an infinite score does not hang or hide it. */
START_TEST(what_is_not_finite_shows)
{
    enum { L = 60, D = 8 };
    const wf_products *t = tiers[_i];
    float *q = floats(L * D, 1), *k = floats(L * D, 2), *v = floats(L * D, 3);
    wf_attention a = { .n = 1, .heads = 1, .d = D, .lq = L, .q = q, .keys = &(wf_keys){ k, v, L }, .segments = 1 };
    k[7 * D] = NAN;
    float *o = run(t, &a, L * D);
    for (int i = 0; i < L * D; i++) ck_assert(isnan(o[i]));
    free(o);
    k[7 * D] = INFINITY;
    o = run(t, &a, L * D);
    for (int r = 0; r < L; r++) ck_assert(q[r * D] < 0 || isnan(o[r * D]));
    free(o), free(q), free(k), free(v);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("attention");
    TCase *c = tcase_create("tiers");
#if defined(__x86_64__)
    wf_cpu cpu = wf_cpu_detect();
    if (cpu.avx2_fma_f16c) tiers[tier_count++] = &wf_products_avx2;
    if (cpu.avx512) tiers[tier_count++] = &wf_products_avx512;
    if (cpu.avx512_bf16) tiers[tier_count++] = &wf_products_avx512_bf16;
#endif
    tcase_set_timeout(c, 300);
    tcase_add_loop_test(c, attention_is_softmax, 0, tier_count * (int)WF_LEN(cases));
    tcase_add_loop_test(c, what_is_not_finite_shows, 0, tier_count);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
