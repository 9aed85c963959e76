/* Every tier of products against naive sums in double: what a network asks of it, in all
 * combinations of hooks. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/tiers.h"
#include "tensor/gemm.h"

static const wf_products *tiers[TEST_TIERS_MAX];
static int tier_count;

static float next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / (float)(1 << 23) - 1.0f;
}

static float *floats(size_t n, uint32_t seed)
{
    float *p = malloc((n + 1) * sizeof *p);
    for (size_t i = 0; i < n; i++) p[i] = next(&seed);
    return p;
}

static void close_to(const char *what, const float *y, const double *want, size_t n)
{
    double top = 0.1, worst = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs(y[i] - want[i]);
        top = fmax(top, fabs(want[i]));
        worst = d <= worst ? worst : d;
    }
    ck_assert_msg(worst <= 3e-6 * top, "%s: off by %g of %g", what, worst, top);
}

/* Factors that are rounded once they are transformed: no more than that, over all and at one place. */
static void near_to(const char *what, const float *y, const double *want, size_t n)
{
    double top = 0, worst = 0, apart = 0, all = 0;
    for (size_t i = 0; i < n; i++) {
        double d = y[i] - want[i];
        top = fmax(top, fabs(want[i]));
        worst = fabs(d) <= worst ? worst : fabs(d);
        apart += d * d;
        all += want[i] * want[i];
    }
    ck_assert_msg(apart <= 6e-4 * all, "%s: off by %g of %g", what, sqrt(apart), sqrt(all));
    ck_assert_msg(worst <= 0.06 * top, "%s: off by %g of %g", what, worst, top);
}

/* Small products with strides of their own; with beta 1 they add, and a transposed left factor sums
 * over its rows. */
START_TEST(small_products)
{
    enum { M = 33, N = 17, K = 29, LD = 40 };
    const wf_products *t = tiers[_i];
    float *x = floats(LD * LD, 1), *w = floats(LD * LD, 2);
    for (int form = 0; form < 3; form++)
        for (int add = 0; add < 2; add++) {
            float *y = floats(LD * LD, 3), *before = floats(LD * LD, 3);
            double want[M * N];
            float got[M * N];
            for (int m = 0; m < M; m++)
                for (int n = 0; n < N; n++) {
                    want[m * N + n] = add ? before[m * LD + n] : 0;
                    for (int k = 0; k < K; k++)
                        want[m * N + n] += (double)(form == 2 ? x[k * LD + m] : x[m * LD + k]) *
                                           (form == 0 ? w[n * LD + k] : w[k * LD + n]);
                }
            (form == 0 ? t->nt : form == 1 ? t->nn : t->tn)(y, LD, x, LD, w, LD, M, N, K,
                                                            (float)add);
            for (int i = 0; i < LD * LD; i++) {
                if (i / LD < M && i % LD < N) got[i / LD * N + i % LD] = y[i];
                else ck_assert(y[i] == before[i]); /* nothing beside */
            }
            close_to("a small product", got, want, M * N);
            free(y), free(before);
        }
    free(x), free(w);
}
END_TEST

typedef struct shape { size_t in, out; wf_window window; } shape;

static const shape shapes[] = {
    { 5, 3, { 7, 1, 7, 1, 1, 1, 0 } },   { 1160, 3, { 16, 17, 16, 17, 1, 1, 0 } },
    { 6, 325, { 9, 1, 9, 1, 1, 1, 0 } }, { 130, 3, { 3, 3, 3, 3, 3, 1, 1 } },
    { 4, 6, { 17, 16, 9, 8, 3, 2, 1 } }, { 170, 3, { 6, 9, 6, 9, 3, 1, 1 } },
    { 128, 51, { 4, 4, 4, 4, 3, 1, 1 } },
};

enum { SAMPLES = 3, RANK = 4, GUARD = 4096 };

/* Hooks: variant v adds v to every weight; sample 1 sees its rows times (1 + row), sample 2 takes
 * no part. */
static const int32_t variant[SAMPLES] = { 0, 0, 2 };

static void add_variant(void *user, size_t sample, float *tile, size_t first, size_t count,
                        size_t c, size_t nc)
{
    const wf_product *p = user;
    (void)first, (void)c;
    for (size_t i = 0; i < count * wf_window_taps(&p->window) * nc; i++)
        tile[i] += (float)variant[sample];
}

static bool weigh_rows(void *user, size_t sample, float *tile, size_t row, size_t rows, size_t c,
                       size_t nc)
{
    const wf_product *p = user;
    size_t width = wf_window_taps(&p->window) * nc;
    (void)c;
    for (size_t i = 0; i < rows * width && sample == 1; i++)
        tile[i] *= 0.01f * (float)(1 + row + i / width);
    return sample != 2;
}

static void negate(void *user, size_t sample, size_t row, size_t rows, float *y)
{
    const wf_product *p = user;
    (void)row;
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < p->live[sample].hi - p->live[sample].lo; i++)
            y[r * p->out + i] *= -1;
}

/* x as row `row` of y sees it, at tap q and channel i. */
static double seen(const wf_product *p, size_t sample, size_t row, size_t q, size_t i)
{
    const wf_window *v = &p->window;
    int32_t y = (int32_t)row / v->out_w * v->stride + (int32_t)q / v->kernel - v->pad;
    int32_t x = (int32_t)row % v->out_w * v->stride + (int32_t)q % v->kernel - v->pad;
    if (y < 0 || y >= v->h || x < 0 || x >= v->w) return 0;
    return p->x[((sample * (size_t)v->h + (size_t)y) * (size_t)v->w + (size_t)x) * p->in + i];
}

static double weight_at(const wf_product *p, size_t o, size_t q, size_t i)
{
    const float *w = p->weight;
    size_t t = wf_window_taps(&p->window);
    return p->ordered ? w[(o * t + q) * p->in + i] : w[(o * p->in + i) * t + q];
}

/* Is it a 3x3 convolution of a tier of bfloat16 that goes by Winograd's transforms? */
static bool transforms(const wf_products *t, const wf_product *p)
{
    const wf_window *w = &p->window;
    return strstr(t->name, "bf16") != NULL && p->amend_rows == NULL && w->kernel == 3 && w->stride == 1 &&
           p->in >= 128 && WF_MIN(w->h, w->w) >= 4 && w->h * w->w <= 256;
}

/* A factor as the tier takes it, NULL: as it is; rounded to bfloat16 where a tier of that has a product without a window. */
static double taken(const wf_products *t, const wf_product *p, double v)
{
    float f = (float)v;
    uint8_t narrow[2];
    if (t == NULL || strstr(t->name, "bf16") == NULL || p->amend_rows != NULL || p->window.kernel * p->window.stride > 1) return v;
    wf_narrow(narrow, WF_BF16, &f, 1);
    wf_widen_any(&f, narrow, WF_BF16, 1);
    return f;
}

/* sum (samples rows, out) = window(x) W^T in double, element by element, with the weight's hook. */
static void multiply(double *sum, const wf_products *t, const wf_product *p)
{
    size_t rows = wf_window_rows(&p->window), K = wf_window_taps(&p->window) * p->in;
    double *x = malloc(K * sizeof *x), *w = malloc(p->out * K * sizeof *w);
    for (size_t sample = 0; sample < p->samples; sample++) {
        double more = p->amend_weight != NULL ? variant[sample] : 0;
        for (size_t i = 0; i < p->out * K; i++)
            w[i] = taken(t, p, weight_at(p, i / K, i % K / p->in, i % K % p->in) + more);
        for (size_t row = 0; row < rows; row++) {
            for (size_t k = 0; k < K; k++) x[k] = taken(t, p, seen(p, sample, row, k / p->in, k % p->in));
            for (size_t o = 0; o < p->out; o++, sum++) {
                *sum = 0;
                for (size_t k = 0; k < K; k++) *sum += x[k] * w[o * K + k];
            }
        }
    }
    free(x), free(w);
}

static float *run(const wf_products *t, wf_product *p, bool thin, int32_t threads,
                  const float *start)
{
    weft_allocator alloc = wf_allocator(NULL);
    wf_pool *pool;
    uint8_t *scratch[3];
    size_t n = p->samples * wf_window_rows(&p->window) * (p->gated ? p->out / 2 : p->out);
    float *y = malloc(n * sizeof *y);
    memcpy(y, start, n * sizeof *y);
    ck_assert_int_eq(wf_pool_create(&alloc, threads, &pool, NULL), WEFT_OK);
    size_t need = (thin ? t->thin_scratch : t->wide_scratch)(p);
    for (int i = 0; i < threads; i++) {
        scratch[i] = malloc(need + GUARD);
        memset(scratch[i], 0xa5, need + GUARD);
    }
    p->y = y;
    p->user = p;
    wf_blas_begin();
    (thin ? t->thin : t->wide)(p, wf_kernels_pick(wf_cpu_detect()), pool, scratch);
    wf_blas_end();
    for (int i = 0; i < threads; i++) {
        for (size_t g = 0; g < GUARD; g++) ck_assert(scratch[i][need + g] == 0xa5);
        free(scratch[i]);
    }
    wf_pool_free(pool);
    return y;
}

/* As the file has the weight or ordered, with either hook or none, added or not, with h or
 * without. */
START_TEST(wide_products)
{
    const wf_products *tier = tiers[_i / (int)WF_LEN(shapes)];
    const shape *s = &shapes[_i % (int)WF_LEN(shapes)];
    size_t t = wf_window_taps(&s->window), rows = wf_window_rows(&s->window),
        n = SAMPLES * rows * s->out;
    float *x = floats(SAMPLES * (size_t)(s->window.h * s->window.w) * s->in, 1),
        *w = floats(s->out * t * s->in, 2);
    float *bias = floats(s->out, 3), *start = floats(n, 4), *h = floats(SAMPLES * rows * RANK, 5);
    float *up = floats(RANK * s->out, 6);
    static const wf_span live[SAMPLES] = { { 1, 3 }, { 0, 0 }, { 0, RANK } };
    double *want = malloc(n * sizeof *want), *sums[16] = { NULL };
    for (int bits = 0; bits < 32; bits++) {
        wf_product p = { .x = x, .samples = SAMPLES, .in = s->in, .out = s->out,
                         .window = s->window, .weight = w, .type = WF_F32, .ordered = bits & 1,
                         .add = bits & 2, .live = live, .rank = RANK };
        if (bits & 4) p.amend_weight = add_variant, p.variant = variant;
        if (bits & 8) p.amend_rows = weigh_rows, p.h = h, p.up = up;
        const float *own[SAMPLES] = { bias, NULL, w };
        if (bits & 16) p.own_bias = own;
        else p.bias = bias;
        int factors = bits & (1 | 4 | 8); /* what changes the factors */
        if (sums[factors] == NULL) multiply(sums[factors] = malloc(n * sizeof *want), tier, &p);
        for (size_t i = 0; i < n; i++) {
            size_t sample = i / s->out / rows, row = i / s->out % rows, o = i % s->out;
            double m = sample == 1 ? 0.01 * (double)(1 + row) : sample == 0;
            if ((bits & 8) == 0) m = 1;
            const float *b = bits & 16 ? own[sample] : bias;
            want[i] = (p.add ? start[i] : 0) + (b != NULL ? b[o] : 0) + m * sums[factors][i];
            for (size_t k = live[sample].lo; p.h != NULL && k < live[sample].hi; k++)
                want[i] += (double)h[i / s->out * RANK + k] * up[k * s->out + o];
        }
        float *y = run(tier, &p, false, 1, start), *again = run(tier, &p, false, 3, start);
        if (transforms(tier, &p)) near_to(tier->name, y, want, n);
        else close_to(tier->name, y, want, n);
        ck_assert(memcmp(y, again, n * sizeof *y) == 0);
        free(y), free(again);
    }
    for (size_t i = 0; i < WF_LEN(sums); i++) free(sums[i]);
    free(x), free(w), free(bias), free(start), free(h), free(up), free(want);
}
END_TEST

/* Values and gates of one product, with all that may be added to it: y has half of W's rows. */
START_TEST(gated_products)
{
    static const shape gated[] = {
        { 5, 6, { 7, 1, 7, 1, 1, 1, 0 } }, { 700, 34, { 300, 1, 300, 1, 1, 1, 0 } },
        { 40, 806, { 19, 2, 19, 2, 1, 1, 0 } }, { 330, 1300, { 70, 1, 70, 1, 1, 1, 0 } },
        { 650, 1560, { 1, 1, 1, 1, 1, 1, 0 } },
    };
    const wf_products *tier = tiers[_i / (int)WF_LEN(gated)];
    const shape *s = &gated[_i % (int)WF_LEN(gated)];
    size_t rows = wf_window_rows(&s->window), half = s->out / 2, n = SAMPLES * rows * half;
    float *x = floats(SAMPLES * rows * s->in, 1), *w = floats(s->out * s->in, 2), *bias = floats(s->out, 3);
    float *start = floats(n, 4), *h = floats(SAMPLES * rows * RANK, 5), *up = floats(RANK * s->out, 6);
    static const wf_span live[SAMPLES] = { { 1, 3 }, { 0, 0 }, { 0, RANK } };
    const float *own[SAMPLES] = { bias, NULL, w };
    double *want = malloc(n * sizeof *want), *sums[2] = { NULL };
    for (int bits = 0; bits < 8; bits++) {
        wf_product p = { .x = x, .samples = SAMPLES, .in = s->in, .out = s->out, .window = s->window, .weight = w,
                         .type = WF_F32, .live = live, .rank = RANK, .gated = true };
        if (bits & 1) p.amend_weight = add_variant, p.variant = variant;
        if (bits & 2) p.h = h, p.up = up;
        if (bits & 4) p.own_bias = own;
        else p.bias = bias;
        double **sum = &sums[bits & 1]; /* what changes the factors */
        if (*sum == NULL) multiply(*sum = malloc(2 * n * sizeof **sum), tier, &p);
        for (size_t i = 0; i < n; i++) {
            size_t sample = i / half / rows;
            double part[2];
            for (size_t g = 0; g < 2; g++) {
                size_t o = g * half + i % half;
                const float *b = bits & 4 ? own[sample] : bias;
                part[g] = (*sum)[i / half * s->out + o] + (b != NULL ? b[o] : 0);
                for (size_t k = live[sample].lo; p.h != NULL && k < live[sample].hi; k++)
                    part[g] += (double)h[i / half * RANK + k] * up[k * s->out + o];
            }
            want[i] = part[0] * part[1] * (1 + erf(part[1] / sqrt(2))) / 2;
        }
        float *y = run(tier, &p, false, 1, start), *again = run(tier, &p, false, 3, start);
        close_to(tier->name, y, want, n);
        ck_assert(memcmp(y, again, n * sizeof *y) == 0);
        free(y), free(again);
        p.x = x + rows * s->in; /* the second sample alone */
        p.samples = 1;
        p.live = live + 1;
        p.h = p.h != NULL ? h + rows * RANK : NULL;
        p.own_bias = bits & 4 ? own + 1 : NULL;
        p.amend_weight = NULL; /* its variant is 0 */
        y = run(tier, &p, false, 2, start);
        close_to(tier->name, y, want + rows * half, rows * half);
        free(y);
    }
    free(sums[0]), free(sums[1]);
    free(x), free(w), free(bias), free(start), free(h), free(up), free(want);
}
END_TEST

/* A weight in the file's type gives the bits of the same numbers in float32, at odd addresses too. */
START_TEST(weights_of_every_type)
{
    static const wf_dtype types[] = { WF_F32, WF_F16, WF_BF16, WF_F8_E4M3 };
    const wf_products *tier = tiers[_i / (int)WF_LEN(shapes)];
    const shape *s = &shapes[_i % (int)WF_LEN(shapes)];
    size_t t = wf_window_taps(&s->window), n = SAMPLES * wf_window_rows(&s->window) * s->out, K = t * s->in;
    float *x = floats(SAMPLES * (size_t)(s->window.h * s->window.w) * s->in, 1), *w = floats(s->out * K, 2);
    float *start = floats(n, 4);
    uint8_t *bytes = malloc(4 * s->out * K + 1);
    for (size_t i = 0; i < WF_LEN(types); i++) {
        wf_narrow(bytes + 1, types[i], w, s->out * K);
        wf_widen_any(w, bytes + 1, types[i], s->out * K);
        wf_product p = { .x = x, .samples = SAMPLES, .in = s->in, .out = s->out, .window = s->window, .weight = w,
                         .type = WF_F32 }, q = p;
        q.weight = bytes + 1;
        q.type = types[i];
        float *want = run(tier, &p, false, 1, start), *y = run(tier, &q, false, 2, start);
        ck_assert_msg(memcmp(y, want, n * sizeof *y) == 0, "%s: %s", tier->name, wf_dtype_name(types[i]));
        free(want), free(y);
    }
    free(x), free(w), free(start), free(bytes);
}
END_TEST

/* Each sample's bits are its own, whatever else is in the batch, and whatever tasks the threads make of it. */
START_TEST(a_batch_is_its_samples)
{
    static const shape large[] = {
        { 128, 9, { 20, 27, 20, 27, 3, 1, 1 } }, { 40, 330, { 20, 27, 20, 27, 3, 1, 1 } },
        { 645, 9, { 700, 1, 700, 1, 1, 1, 0 } }, { 700, 1290, { 2, 1, 2, 1, 1, 1, 0 } },
        { 128, 965, { 16, 32, 16, 32, 3, 1, 1 } },
        { 645, 330, { 16, 16, 16, 16, 3, 1, 1 } },
    };
    const wf_products *tier = tiers[_i];
    for (size_t i = 0; i < WF_LEN(large); i++) {
        const shape *s = &large[i];
        size_t each = wf_window_rows(&s->window) * s->out, pixels = (size_t)(s->window.h * s->window.w) * s->in;
        float *x = floats(SAMPLES * pixels, 1), *w = floats(s->out * wf_window_taps(&s->window) * s->in, 2);
        float *start = floats(SAMPLES * each, 4);
        wf_product p = { .x = x, .samples = SAMPLES, .in = s->in, .out = s->out, .window = s->window, .weight = w,
                         .type = WF_F32 };
        float *all = run(tier, &p, false, 1, start), *threads = run(tier, &p, false, 3, start);
        ck_assert_msg(memcmp(all, threads, SAMPLES * each * sizeof *all) == 0, "%s, shape %zu: threads", tier->name, i);
        for (size_t n = 0; n < SAMPLES; n++) {
            wf_product one = p;
            one.x = x + n * pixels;
            one.samples = 1;
            float *y = run(tier, &one, false, 2, start);
            ck_assert_msg(memcmp(y, all + n * each, each * sizeof *y) == 0, "%s, shape %zu: sample %zu", tier->name, i,
                          n);
            free(y);
        }
        free(x), free(w), free(start), free(all), free(threads);
    }
}
END_TEST

/* More channels than a block of Winograd's has, of floats or of pairs. */
START_TEST(transforms_of_several_blocks)
{
    static const shape s = { 330, 51, { 5, 7, 5, 7, 3, 1, 1 } };
    const wf_products *tier = tiers[_i];
    size_t n = SAMPLES * wf_window_rows(&s.window) * s.out;
    float *x = floats(SAMPLES * 35 * s.in, 1), *w = floats(s.out * 9 * s.in, 2), *start = floats(n, 4);
    double *want = malloc(n * sizeof *want);
    wf_product p = { .x = x, .samples = SAMPLES, .in = s.in, .out = s.out, .window = s.window, .weight = w,
                     .type = WF_F32 };
    multiply(want, tier, &p);
    float *y = run(tier, &p, false, 2, start);
    (transforms(tier, &p) ? near_to : close_to)(tier->name, y, want, n);
    free(x), free(w), free(start), free(want), free(y);
}
END_TEST

/* Live columns alone are written, and finished. */
START_TEST(thin_products)
{
    const wf_products *tier = tiers[_i / (int)WF_LEN(shapes)];
    const shape *s = &shapes[_i % (int)WF_LEN(shapes)];
    size_t t = wf_window_taps(&s->window), rows = wf_window_rows(&s->window),
        n = SAMPLES * rows * RANK;
    float *x = floats(SAMPLES * (size_t)(s->window.h * s->window.w) * s->in, 1),
        *w = floats(RANK * t * s->in, 2);
    float *start = floats(n, 4);
    static const wf_span live[SAMPLES] = { { 1, 3 }, { 0, 0 }, { 0, RANK } };
    static const bool amended[SAMPLES] = { false, false, true };
    double *want = malloc(n * sizeof *want);
    for (int bits = 0; bits < 4; bits++) {
        wf_product p = { .x = x, .samples = SAMPLES, .in = s->in, .out = RANK, .window = s->window,
                         .weight = w, .type = WF_F32, .ordered = true, .live = live };
        if (bits & 1) p.amend_weight = add_variant, p.amended = amended;
        if (bits & 2) p.finish = negate;
        multiply(want, NULL, &p);
        for (size_t i = 0; i < n; i++) {
            size_t sample = i / RANK / rows, o = i % RANK;
            if (o < live[sample].lo || o >= live[sample].hi) want[i] = start[i];
            else if (bits & 2) want[i] *= -1;
        }
        float *y = run(tier, &p, true, 1, start), *again = run(tier, &p, true, 3, start);
        close_to(tier->name, y, want, n);
        ck_assert(memcmp(y, again, n * sizeof *y) == 0);
        free(y), free(again);
    }
    free(x), free(w), free(start), free(want);
}
END_TEST

START_TEST(a_processor_gets_a_tier)
{
    const wf_products *all[TEST_TIERS_MAX];
    wf_cpu cpu = wf_cpu_detect();
    ck_assert_ptr_eq(wf_products_pick(cpu), all[test_all_tiers(all, false) - 1]); /* the last in float32 */
    ck_assert_ptr_eq(wf_products_pick((wf_cpu){ 0 }), &wf_products_openblas);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("products");
    TCase *c = tcase_create("tiers");
    tier_count = test_tiers(tiers, true);
    int cases = tier_count * (int)WF_LEN(shapes);
    tcase_set_timeout(c, 300);
    tcase_add_loop_test(c, small_products, 0, tier_count);
    tcase_add_loop_test(c, wide_products, 0, cases);
    tcase_add_loop_test(c, gated_products, 0, 5 * tier_count);
    tcase_add_loop_test(c, weights_of_every_type, 0, cases);
    tcase_add_loop_test(c, transforms_of_several_blocks, 0, tier_count);
    tcase_add_loop_test(c, a_batch_is_its_samples, 0, tier_count);
    tcase_add_loop_test(c, thin_products, 0, cases);
    tcase_add_test(c, a_processor_gets_a_tier);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
