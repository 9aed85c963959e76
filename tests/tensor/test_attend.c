/* Attention of every tier against the softmax in double, for heads of many widths, numbers of queries and keys that
 * leave something over in tiles, panels, blocks and pairs, and everything that hides keys or lends them. */
#include <check.h>
#include <math.h>
#include <stdlib.h>

#include "base/tiers.h"
#include "tensor/gemm.h"

static const wf_products *tiers[TEST_TIERS_MAX];
static int tier_count;

static const struct { int32_t lq, lk, heads, d; } cases[] = {
    { 1, 1, 1, 1 },   { 5, 7, 2, 7 },     { 49, 77, 2, 40 }, { 193, 129, 1, 64 }, { 200, 257, 2, 80 },
    { 64, 64, 1, 160 }, { 23, 130, 1, 161 }, { 7, 300, 3, 33 }, { 50, 20, 1, 96 },  { 16, 40, 1, 512 },
    { 400, 33, 1, 8 },
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

/* want (d) of a query of one head of a sample: each key that it sees, in its segment's order, by the words of
 * product.h. */
static void attend_row(const wf_attention *a, size_t sample, size_t head, size_t row, double *want)
{
    size_t d = (size_t)a->d, width = d * (size_t)a->heads, all = 0, at = 0;
    const float *q = a->q + (sample * (size_t)a->lq + row) * width + head * d;
    for (int32_t g = 0; g < a->segments; g++) all += (size_t)a->keys[g].length;
    double sum = 0, weight, *total = calloc(d, sizeof *total);
    for (int32_t g = 0; g < a->segments; g++) {
        const wf_keys *part = &a->keys[g];
        bool lent = a->shared > 0 && g == a->segments - 1;
        size_t whose = lent ? sample / (size_t)a->shared * (size_t)a->shared : sample;
        for (size_t i = 0; i < (size_t)part->length; i++, at++) {
            size_t from = (whose * (size_t)part->length + i) * width + head * d;
            double score = 0;
            for (size_t c = 0; c < d; c++) score += (double)q[c] * part->k[from + c] / sqrt((double)d);
            if (lent) score = score * a->factor + a->shift;
            if (a->bias != NULL) score += a->bias[sample * a->bias_sample + head * a->bias_head + row * all + at];
            weight = exp(score);
            if (lent && whose == sample) weight = 0;
            if (a->causal && at > row) weight = 0;
            if (a->group != NULL && a->group[row] > 0 && a->group[i] > 0 && a->group[i] != a->group[row]) weight = 0;
            sum += weight;
            for (size_t c = 0; c < d; c++) total[c] += weight * part->v[from + c];
        }
    }
    for (size_t c = 0; c < d; c++) want[c] = sum > 0 ? total[c] / sum : 0;
    free(total);
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

/* o (n) of the tier is the softmax. */
static void check(const wf_products *t, const wf_attention *a, const float *o)
{
    size_t d = (size_t)a->d, heads = (size_t)a->heads, lq = (size_t)a->lq, rows = (size_t)a->n * lq * heads;
    double *want = malloc(d * sizeof *want), worst = 0, top = 0;
    for (size_t row = 0; row < rows; row++) {
        attend_row(a, row / heads / lq, row % heads, row / heads % lq, want);
        for (size_t c = 0; c < d; c++) {
            double e = fabs(o[row * d + c] - want[c]);
            worst = e <= worst ? worst : e;
            top = fmax(top, fabs(want[c]));
        }
    }
    /* A bfloat16 is known to one part in 256, and so is each of the many terms of a score. */
    ck_assert_msg(worst <= top * (strstr(t->name, "bf16") != NULL ? 0.02 : 3e-6), "%s, %zu queries of %zu: off by %g of %g",
                  t->name, lq, d, worst, top);
    free(want);
}

START_TEST(attention_is_softmax)
{
    enum { N = 2 };
    const wf_products *t = tiers[_i / (int)WF_LEN(cases)];
    size_t i = (size_t)_i % WF_LEN(cases), lq = (size_t)cases[i].lq, lk = (size_t)cases[i].lk;
    size_t heads = (size_t)cases[i].heads, d = (size_t)cases[i].d, width = heads * d, n = N * lq * width;
    float *q = floats(n, 1), *k = floats(N * lk * width, 2), *v = floats(N * lk * width, 3);
    wf_attention a = { .n = N, .heads = cases[i].heads, .d = cases[i].d, .lq = cases[i].lq, .q = q,
                       .keys = &(wf_keys){ k, v, cases[i].lk }, .segments = 1 };
    float *o = run(t, &a, n);
    check(t, &a, o);
    free(q), free(k), free(v), free(o);
}
END_TEST

static const struct {
    int32_t lq, length[3], segments, d;
    bool    causal, biased, grouped;
    int32_t shared;
    float   factor, shift;
} sights[] = {
    { 37, { 37, 37 }, 2, 8, false, false, true, 3, 0.7f, 0.4f },
    { 200, { 200, 200 }, 2, 40, false, false, false, 3, 1, 0 },
    { 50, { 77, 130 }, 2, 33, false, true, false, 2, 1, 0.5f },
    { 50, { 130, 77 }, 2, 16, false, true, false, 3, 0.25f, 0 },
    { 330, { 100, 230 }, 2, 8, true, false, false, 3, 0.5f, -1.25f },
    { 140, { 140 }, 1, 24, true, true, false, 0, 0, 0 },
    { 150, { 150, 150 }, 2, 7, false, false, true, 0, 0, 0 },
    { 70, { 1, 0, 300 }, 3, 64, false, false, false, 6, -1, 2 },
    { 21, { 513, 128, 9 }, 3, 10, false, true, false, 2, 0, 0 },
    { 65, { 65, 65, 65 }, 3, 12, true, false, true, 2, 1.5f, 1 },
    { 400, { 70 }, 1, 9, false, true, false, 0, 0, 0 },
};

/* Bias, order, groups, and keys of another sample, together and in any number of segments. And the samples of a group
 * have the same bits without the groups before them. */
START_TEST(keys_are_hidden_and_lent)
{
    enum { N = 6, HEADS = 2, BLIND = 3 };
    const wf_products *t = tiers[_i / (int)WF_LEN(sights)];
    size_t i = (size_t)_i % WF_LEN(sights), lq = (size_t)sights[i].lq, d = (size_t)sights[i].d, width = HEADS * d;
    size_t n = N * lq * width, all = 0;
    int32_t *group = malloc(lq * sizeof *group);
    wf_keys keys[3], later[3];
    wf_attention a = { .n = N, .heads = HEADS, .d = sights[i].d, .lq = sights[i].lq, .keys = keys,
                       .segments = sights[i].segments, .causal = sights[i].causal, .shared = sights[i].shared,
                       .factor = sights[i].factor, .shift = sights[i].shift };
    float *q = floats(n, 1), *kv[3][2], *bias;

    for (int32_t g = 0; g < a.segments; g++) {
        size_t length = (size_t)sights[i].length[g];
        for (uint32_t p = 0; p < 2; p++) kv[g][p] = floats(N * length * width + 1, 2 + p + 2 * (uint32_t)g);
        keys[g] = (wf_keys){ kv[g][0], kv[g][1], sights[i].length[g] };
        all += length;
    }
    a.bias_head = lq * all, a.bias_sample = HEADS * lq * all;
    bias = floats(N * a.bias_sample, 9);
    for (size_t k = 0; k < N * a.bias_sample; k++)
        if (k % 5 == 0 || k / all % lq == BLIND) bias[k] = -INFINITY;
    for (size_t r = 0; r < lq; r++) group[r] = (int32_t)(r * 5 / lq % 3); /* 0 1 2 0 1 */
    a.q = q;
    if (sights[i].biased) a.bias = bias;
    if (sights[i].grouped) a.group = group;

    float *o = run(t, &a, n);
    check(t, &a, o);
    if (a.shared < N) {
        size_t skip = (size_t)WF_MAX(1, a.shared);
        wf_attention b = a;
        for (int32_t g = 0; g < a.segments; g++) {
            size_t from = skip * (size_t)keys[g].length * width;
            later[g] = (wf_keys){ keys[g].k + from, keys[g].v + from, keys[g].length };
        }
        b.n = N - (int32_t)skip;
        b.q += skip * lq * width;
        b.keys = later;
        if (b.bias != NULL) b.bias += skip * a.bias_sample;
        float *rest = run(t, &b, n - skip * lq * width);
        ck_assert(memcmp(rest, o + skip * lq * width, (n - skip * lq * width) * sizeof *o) == 0);
        free(rest);
    }
    for (int32_t g = 0; g < a.segments; g++) free(kv[g][0]), free(kv[g][1]);
    free(q), free(bias), free(group), free(o);
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
    tier_count = test_tiers(tiers, true);
    tcase_set_timeout(c, 300);
    tcase_add_loop_test(c, attention_is_softmax, 0, tier_count * (int)WF_LEN(cases));
    tcase_add_loop_test(c, keys_are_hidden_and_lent, 0, tier_count * (int)WF_LEN(sights));
    tcase_add_loop_test(c, what_is_not_finite_shows, 0, tier_count);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
