/* Layers and the operations between them against naive loops in double.
 *
 * A layer cuts its work into tiles of 256 rows and 320 columns and blocks of 1152 inputs (128 channels of a 3 x 3
 * kernel), so the sizes stand around those borders. Everything runs in memory of exactly the size that a dry walk
 * asked for, and gives the same bits with one, two and three threads. */
#include "io/io.h"
#include "nets/workbench.h"
#include "weft/model.h"

static const wf_kernels *tables[2];
static size_t            table_count;

/* ---- a layer to try -------------------------------------------------------------------------- */

typedef struct shape { int32_t in, out, kernel, stride; bool asymmetric; int32_t n, h, w; } shape;

static const shape shapes[] = {
    { 1, 1, 1, 1, false, 1, 1, 1 },       { 5, 319, 1, 1, false, 1, 255, 1 },  { 127, 320, 1, 1, false, 2, 256, 1 },
    { 128, 321, 1, 1, false, 1, 257, 1 }, { 1153, 3, 1, 1, false, 3, 7, 1 },   { 1152, 641, 1, 1, false, 1, 2, 3 },
    { 1, 1, 3, 1, false, 1, 1, 1 },       { 127, 2, 3, 1, false, 1, 5, 3 },    { 128, 3, 3, 1, false, 2, 2, 2 },
    { 129, 321, 3, 1, false, 2, 3, 3 },   { 3, 5, 3, 1, false, 1, 16, 16 },    { 2, 4, 3, 1, false, 2, 257, 1 },
    { 3, 319, 3, 2, false, 2, 7, 8 },     { 129, 4, 3, 2, false, 1, 5, 5 },    { 4, 5, 3, 2, false, 1, 1, 1 },
    { 3, 4, 3, 2, true, 2, 7, 8 },        { 5, 2, 3, 2, true, 1, 6, 6 },       { 6, 7, 1, 2, false, 2, 5, 4 },
    { 2, 3, 3, 2, false, 1, 33, 32 },     { 258, 1, 3, 1, false, 1, 2, 1 },
    { 130, 5, 3, 1, false, 2, 6, 9 },
};

static const wf_dtype types[] = { WF_F32, WF_F16, WF_BF16, WF_F64 };

/* The weight as a file would hold it, one byte off alignment, and the same as floats. */
typedef struct weight { uint8_t *bytes; float *v; size_t n; } weight;

static weight make_weight(size_t n, wf_dtype type, uint32_t seed)
{
    size_t size = (size_t)wf_dtype_bits(type) / 8;
    weight w = { malloc(n * size + 1), bench_floats(n, seed), n };
    for (size_t i = 0; i < n; i++) {
        uint8_t *to = w.bytes + 1 + i * size;
        uint16_t half = wf_f16_from_f32(w.v[i]);
        uint32_t bits;
        double wide = w.v[i];
        memcpy(&bits, &w.v[i], 4);
        uint16_t brain = (uint16_t)(bits >> 16);
        memcpy(to, type == WF_F32 ? (void *)&w.v[i] : type == WF_F16 ? (void *)&half : type == WF_BF16 ? (void *)&brain
               : (void *)&wide, size);
    }
    wf_widen_any(w.v, w.bytes + 1, type, n);
    return w;
}

static wf_layer make_layer(const shape *s, const weight *w, wf_dtype type, const float *bias)
{
    return (wf_layer){ .name = "unet.layer", .weight = w->bytes + 1, .bias = bias, .dtype = type,
                       .kind = s->kernel == 1 ? WEFT_LAYER_LINEAR : WEFT_LAYER_CONV, .out = s->out, .in = s->in,
                       .kernel = s->kernel, .stride = s->stride, .pad = s->asymmetric ? 0 : s->kernel / 2,
                       .asymmetric = s->asymmetric };
}

/* What a picture of height h becomes: padded by one at the top and left unless asymmetric, and at the bottom. */
static int32_t shrunk(const shape *s, int32_t h)
{
    if (s->kernel == 1) return (h - 1) / s->stride + 1;
    return (h + (s->asymmetric ? 1 : 2) - 3) / s->stride + 1;
}

/* One output of the convolution w (out, in, k, k) at (oy, ox). */
static double convolve(const shape *s, const float *w, const float *x, int32_t o, int32_t oy, int32_t ox)
{
    double sum = 0;
    int32_t pad = s->asymmetric ? 0 : s->kernel / 2;
    for (int32_t ky = 0; ky < s->kernel; ky++)
        for (int32_t kx = 0; kx < s->kernel; kx++) {
            int32_t y = oy * s->stride + ky - pad, at = ox * s->stride + kx - pad;
            if (y < 0 || y >= s->h || at < 0 || at >= s->w) continue;
            for (int32_t i = 0; i < s->in; i++)
                sum += (double)w[((o * s->in + i) * s->kernel + ky) * s->kernel + kx] * x[(y * s->w + at) * s->in + i];
        }
    return sum;
}

/* ---- what adapters add: rows of A in the order (ky, kx, in) ---------------------------------- */

enum { PARTS = 3, RANK = 6, BRANCHES = 2 };
static const int32_t part_rank[PARTS] = { 2, 3, 1 };
static const float   part_scale[PARTS] = { 0.5f, 1.0f, -2.0f };

/* [branch][1 + part]: the layer's slots do not begin at 0. Only the middle part lives in the second branch. */
static const wf_cell cells[BRANCHES * (PARTS + 1)] = {
    { 9, 0, 0 }, { 0.7f, 0, 0 }, { -1.5f, 0, 0 }, { 0.25f, 0, 0 },
    { 9, 0, 0 }, { 0, 0, 0 },    { 0.3f, 0, 0 },  { 0, 0, 0 },
};

/* w += sum of c_p s_p B_p A_p, in the file's order and in double's range of a float */
static void add_parts(const shape *s, double *w, const float *down, const float *up, const wf_cell *c)
{
    size_t t = (size_t)(s->kernel * s->kernel), in = (size_t)s->in, out = (size_t)s->out;
    for (size_t p = 0, r = 0; p < PARTS; p++)
        for (int32_t k = 0; k < part_rank[p]; k++, r++)
            for (size_t o = 0; o < out; o++)
                for (size_t i = 0; i < in; i++)
                    for (size_t q = 0; q < t; q++)
                        w[(o * in + i) * t + q] += (double)c[p].number * part_scale[p] * up[r * out + o] *
                                                   down[(r * t + q) * in + i];
}

/* ---- one case: y of a workbench with so many threads ----------------------------------------- */

typedef struct trial {
    const wf_kernels *k;
    const wf_layer   *l;
    const wf_delta   *delta;
    const float      *x, *start;
    wf_grid           g;
    bool              add;
    const int32_t    *branch;
} trial;

static float *run_trial(const trial *t, int32_t threads)
{
    workbench w;
    bench_open(&w, t->k, threads);
    w.e.deltas = t->delta;
    w.e.cells = cells;
    w.e.slots = PARTS + 1;
    w.e.branch = t->branch;
    size_t n = wf_rows(wf_layer_grid(t->l, t->g)) * (size_t)t->l->out;
    float *y = malloc(n * sizeof *y);
    memcpy(y, t->start, n * sizeof *y);
    wf_layer_apply(&w.e, t->l, NULL, NULL, t->g, t->add);
    bench_real(&w);
    wf_layer_apply(&w.e, t->l, y, t->x, t->g, t->add);
    bench_close(&w);
    return y;
}

/* y against want, within a part of the largest value; results below 0.1 are held to that of 0.1. */
static void close_to(const char *what, const float *y, const double *want, size_t n, double limit)
{
    double top = 0.1, worst = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs(y[i] - want[i]);
        top = fmax(top, fabs(want[i]));
        worst = d <= worst ? worst : d;
    }
    ck_assert_msg(worst <= limit * top, "%s: off by %g of %g", what, worst, top);
}

static void try_layer(const shape *s, const wf_kernels *k, wf_dtype type, bool with_bias, bool add, bool adapted)
{
    size_t t = (size_t)(s->kernel * s->kernel), count = t * (size_t)(s->in * s->out);
    weight w = make_weight(count, type, 1);
    float *bias = with_bias ? bench_floats((size_t)s->out, 2) : NULL;
    wf_layer l = make_layer(s, &w, type, bias);
    wf_grid g = wf_image_grid(s->n, s->h, s->w), out = wf_image_grid(s->n, shrunk(s, s->h), shrunk(s, s->w)), told = wf_layer_grid(&l, g);
    ck_assert(told.n == out.n && told.h == out.h && told.w == out.w);

    size_t rows = wf_rows(out), n = rows * (size_t)s->out, each = (size_t)(out.h * out.w);
    float *x = bench_floats(wf_rows(g) * (size_t)s->in, 3), *start = bench_floats(n, 4);
    float *down = bench_floats(RANK * t * (size_t)s->in, 5), *up = bench_floats(RANK * (size_t)s->out, 6);
    wf_stack stack = { PARTS, RANK, part_rank, part_scale, down, up, NULL };
    wf_delta delta = { &stack, 1, NULL, NULL, 0, NULL, 0 };
    int32_t branch[4] = { 1, 0, 1, 0 };
    trial trial = { k, &l, adapted ? &delta : NULL, x, start, g, add, branch };

    double *want = malloc(n * sizeof *want);
    float *base = malloc(count * sizeof *base);
    double *whole = malloc(count * sizeof *whole);
    for (int32_t b = 0; b < BRANCHES; b++) {
        for (size_t i = 0; i < count; i++) whole[i] = w.v[i];
        if (adapted) add_parts(s, whole, down, up, cells + b * (PARTS + 1) + 1);
        for (size_t i = 0; i < count; i++) base[i] = (float)whole[i];
        for (size_t r = 0; r < rows; r++) {
            size_t sample = r / each;
            if (branch[sample] != b) continue;
            for (int32_t o = 0; o < s->out; o++)
                want[r * (size_t)s->out + (size_t)o] =
                    convolve(s, base, x + sample * (size_t)(s->h * s->w * s->in), o,
                             (int32_t)(r % each) / out.w, (int32_t)(r % each) % out.w) +
                    (bias != NULL ? bias[o] : 0) + (add ? start[r * (size_t)s->out + (size_t)o] : 0);
        }
    }
    char what[160];
    snprintf(what, sizeof what, "%s %s (%d -> %d, kernel %d, stride %d, %d x %d x %d)%s%s%s%s", k->name,
             wf_dtype_name(type), s->in, s->out, s->kernel, s->stride, s->n, s->h, s->w, with_bias ? " bias" : "",
             add ? " add" : "", s->asymmetric ? " asymmetric" : "", adapted ? " adapted" : "");
    float *y = run_trial(&trial, 1);
    close_to(what, y, want, n, 3e-6);
    for (int32_t threads = 2; threads <= 3; threads++) {
        float *again = run_trial(&trial, threads);
        ck_assert_msg(memcmp(y, again, n * sizeof *y) == 0, "%s: other bits with %d threads", what, threads);
        free(again);
    }
    free(y), free(want), free(base), free(whole), free(x), free(start), free(down), free(up), free(bias);
    free(w.bytes), free(w.v);
}

START_TEST(a_layer_is_its_sum)
{
    const shape *s = &shapes[_i];
    for (size_t k = 0; k < table_count; k++)
        for (size_t t = 0; t < WF_LEN(types); t++) try_layer(s, tables[k], types[t], t != 1, t == 2, false);
}
END_TEST

START_TEST(and_what_adapters_add_in_each_branch)
{
    const shape *s = &shapes[_i];
    try_layer(s, tables[table_count - 1], WF_F32, false, false, true);
    try_layer(s, tables[table_count - 1], WF_F16, true, true, true);
}
END_TEST

/* All coefficients zero: the base's bits, and a merged copy of nothing is the weight in another order. */
START_TEST(zero_leaves_the_bits)
{
    static const wf_cell none[BRANCHES * (PARTS + 1)] = { { 0, 0, 0 } };
    for (size_t i = 0; i < WF_LEN(shapes); i++) {
        const shape *s = &shapes[i];
        size_t t = (size_t)(s->kernel * s->kernel), count = t * (size_t)(s->in * s->out);
        weight w = make_weight(count, WF_F16, 7);
        wf_layer l = make_layer(s, &w, WF_F16, NULL);
        wf_grid g = wf_image_grid(s->n, s->h, s->w);
        size_t n = wf_rows(wf_layer_grid(&l, g)) * (size_t)s->out;
        float *x = bench_floats(wf_rows(g) * (size_t)s->in, 8), *y[2] = { malloc(n * 4), malloc(n * 4) };
        float *down = bench_floats(RANK * t * (size_t)s->in, 5), *up = bench_floats(RANK * (size_t)s->out, 6);
        wf_stack stack = { PARTS, RANK, part_rank, part_scale, down, up, NULL };
        wf_delta delta = { &stack, 1, NULL, NULL, 0, NULL, 0 };
        for (int side = 0; side < 2; side++) {
            workbench b;
            bench_open(&b, tables[table_count - 1], 2);
            b.e.deltas = side ? &delta : NULL;
            b.e.cells = none;
            b.e.slots = PARTS + 1;
            wf_layer_apply(&b.e, &l, NULL, NULL, g, false);
            ck_assert((b.e.side_flops > 0) == side);
            bench_real(&b);
            wf_layer_apply(&b.e, &l, y[side], x, g, false);
            bench_close(&b);
        }
        ck_assert(memcmp(y[0], y[1], n * sizeof **y) == 0);
        free(y[0]), free(y[1]), free(x), free(down), free(up), free(w.bytes), free(w.v);
    }
}
END_TEST

/* load gives W in the order (ky, kx, in); with the sum added a layer computes with it what it computes beside it. */
START_TEST(a_merged_copy_is_the_sum)
{
    const shape *s = &shapes[_i];
    const wf_kernels *k = tables[table_count - 1];
    size_t t = (size_t)(s->kernel * s->kernel), in = (size_t)s->in, count = t * (size_t)(s->in * s->out);
    for (size_t type = 0; type < WF_LEN(types); type++) {
        weight w = make_weight(count, types[type], 9);
        wf_layer l = make_layer(s, &w, types[type], NULL);
        float *down = bench_floats(RANK * t * in, 5), *up = bench_floats(RANK * (size_t)s->out, 6);
        float *merged = malloc(count * sizeof *merged);
        double *whole = malloc(count * sizeof *whole), *want = malloc(count * sizeof *want);
        wf_stack stack = { PARTS, RANK, part_rank, part_scale, down, up, NULL };
        for (size_t i = 0; i < count; i++) whole[i] = w.v[i];
        add_parts(s, whole, down, up, cells + 1);
        for (size_t o = 0; o < (size_t)s->out; o++)
            for (size_t i = 0; i < in; i++)
                for (size_t q = 0; q < t; q++) want[(o * t + q) * in + i] = whole[(o * in + i) * t + q];
        wf_layer_load(merged, k, &l);
        for (size_t o = 0; o < (size_t)s->out; o++)
            for (size_t i = 0; i < in; i++)
                for (size_t q = 0; q < t; q++)
                    ck_assert_float_eq(merged[(o * t + q) * in + i], w.v[(o * in + i) * t + q]);
        for (size_t i = 0; i < count; i++) merged[i] = (float)want[i];

        wf_grid g = wf_image_grid(s->n, s->h, s->w);
        size_t n = wf_rows(wf_layer_grid(&l, g)) * (size_t)s->out;
        float *x = bench_floats(wf_rows(g) * in, 3), *start = bench_floats(n, 4);
        wf_delta side = { &stack, 1, NULL, NULL, 0, NULL, 0 }, copy = { NULL, 0, merged, NULL, 0, NULL, 0 };
        trial beside = { k, &l, &side, x, start, g, false, NULL }, inside = { k, &l, &copy, x, start, g, false, NULL };
        float *a = run_trial(&beside, 2), *b = run_trial(&inside, 1), *c = run_trial(&inside, 3);
        double *wide = malloc(n * sizeof *wide);
        for (size_t i = 0; i < n; i++) wide[i] = a[i];
        close_to("a merged layer", b, wide, n, 5e-6);
        ck_assert(memcmp(b, c, n * sizeof *b) == 0);
        free(wide), free(a), free(b), free(c), free(x), free(start), free(down), free(up), free(merged);
        free(whole), free(want), free(w.bytes), free(w.v);
    }
}
END_TEST

/* A sample's bits do not depend on who is computed beside it. */
START_TEST(a_batch_is_its_samples)
{
    for (size_t i = 0; i < WF_LEN(shapes); i++) {
        shape s = shapes[i];
        size_t t = (size_t)(s.kernel * s.kernel), in = (size_t)s.in;
        weight w = make_weight(t * in * (size_t)s.out, WF_F16, 7);
        wf_layer l = make_layer(&s, &w, WF_F16, NULL);
        wf_grid g = wf_image_grid(3, s.h, s.w), one = wf_image_grid(1, s.h, s.w);
        size_t n = wf_rows(wf_layer_grid(&l, one)) * (size_t)s.out, rows = (size_t)(s.h * s.w);
        float *x = bench_floats(3 * rows * in, 8), *start = bench_floats(3 * n, 1);
        float *down = bench_floats(RANK * t * in, 5), *up = bench_floats(RANK * (size_t)s.out, 6);
        wf_stack stack = { PARTS, RANK, part_rank, part_scale, down, up, NULL };
        wf_delta delta = { &stack, 1, NULL, NULL, 0, NULL, 0 };
        trial all = { tables[table_count - 1], &l, &delta, x, start, g, true, NULL };
        float *y = run_trial(&all, 2);
        for (size_t k = 0; k < 3; k++) {
            trial single = all;
            single.g = one;
            single.x = x + k * rows * in;
            single.start = start + k * n;
            float *z = run_trial(&single, 1);
            ck_assert(memcmp(z, y + k * n, n * sizeof *z) == 0);
            free(z);
        }
        free(y), free(x), free(start), free(down), free(up), free(w.bytes), free(w.v);
    }
}
END_TEST

/* ---- attention ------------------------------------------------------------------------------- */

typedef struct attention { int32_t n, heads, d, lq, lk; bool causal; float big; } attention;

static const attention attentions[] = {
    { 1, 1, 1, 1, 1, false, 1 },     { 2, 2, 8, 5, 7, false, 1 },      { 1, 1, 16, 63, 511, false, 1 },
    { 1, 2, 4, 64, 512, false, 1 },  { 1, 1, 8, 65, 513, false, 1 },   { 1, 1, 3, 129, 1025, false, 3 },
    { 2, 3, 8, 77, 77, true, 1 },    { 1, 1, 5, 63, 63, true, 1 },     { 1, 2, 8, 65, 65, true, 1 },
    { 1, 1, 8, 513, 513, true, 1 },  { 1, 1, 4, 600, 600, true, 3 },   { 1, 1, 8, 10, 20, false, 100 },
    { 1, 1, 8, 70, 530, false, 30 }, { 1, 1, 8, 530, 530, true, 1e4f }, { 1, 1, 40, 6, 1030, false, 1e7f },
    { 1, 1, 8, 9, 33, false, 1e15f },
};

/* One row of the result. */
static void attend_row(const attention *a, double *o, const float *q, const float *k, const float *v, int32_t row)
{
    size_t width = (size_t)(a->heads * a->d);
    int32_t keys = a->causal ? row + 1 : a->lk;
    double *s = malloc((size_t)keys * sizeof *s), top = -INFINITY, sum = 0;
    for (int32_t i = 0; i < keys; i++) {
        s[i] = 0;
        for (int32_t c = 0; c < a->d; c++) s[i] += (double)q[c] * k[(size_t)i * width + (size_t)c];
        s[i] /= sqrt(a->d);
        top = fmax(top, s[i]);
    }
    for (int32_t c = 0; c < a->d; c++) o[c] = 0;
    for (int32_t i = 0; i < keys; i++) {
        double e = exp(s[i] - top);
        sum += e;
        for (int32_t c = 0; c < a->d; c++) o[c] += e * v[(size_t)i * width + (size_t)c];
    }
    for (int32_t c = 0; c < a->d; c++) o[c] /= sum;
    free(s);
}

START_TEST(attention_is_softmax)
{
    const attention *a = &attentions[_i];
    size_t width = (size_t)(a->heads * a->d), n = (size_t)(a->n * a->lq) * width;
    float *q = bench_floats(n, 1), *k = bench_floats((size_t)(a->n * a->lk) * width, 2);
    float *v = bench_floats((size_t)(a->n * a->lk) * width, 3), *first = NULL;
    double *want = malloc(n * sizeof *want);

    for (size_t i = 0; i < n; i++) q[i] *= a->big;
    for (int32_t s = 0; s < a->n; s++)
        for (int32_t h = 0; h < a->heads; h++)
            for (int32_t row = 0; row < a->lq; row++) {
                size_t at = (size_t)(s * a->lq + row) * width + (size_t)(h * a->d);
                size_t key = (size_t)(s * a->lk) * width + (size_t)(h * a->d);
                attend_row(a, want + at, q + at, k + key, v + key, row);
            }
    for (size_t t = 0; t < table_count; t++)
        for (int32_t threads = 1; threads <= 3; threads++) {
            workbench w;
            float *o = bench_floats(n, 9);
            bench_open(&w, tables[t], threads);
            wf_attention all = { .n = a->n, .heads = a->heads, .d = a->d, .lq = a->lq, .q = q,
                                 .keys = &(wf_keys){ k, v, a->lk }, .segments = 1,
                                 .causal = a->causal };
            wf_attend(&w.e, NULL, &all);
            bench_real(&w);
            wf_attend(&w.e, o, &all);
            bench_close(&w);
            /* A score of 1e4 is known to half of 1e-3, and so is its exponential; far above, one key wins. */
            close_to("attention", o, want, n, a->big > 1e4f ? 1e-6 : fmax(3e-6, 1e-6 * a->big));
            if (first == NULL) first = o;
            else if (threads == 1) free(first), first = o;
            else {
                ck_assert(memcmp(first, o, n * sizeof *o) == 0);
                free(o);
            }
        }
    free(first), free(q), free(k), free(v), free(want);
}
END_TEST

/* o of an attention on a workbench. */
static float *run_attention(const wf_attention *a, const wf_kernels *k, int32_t threads)
{
    workbench w;
    float *o = bench_floats((size_t)(a->n * a->lq * a->heads * a->d), 9);
    bench_open(&w, k, threads);
    wf_attend(&w.e, NULL, a);
    bench_real(&w);
    wf_attend(&w.e, o, a);
    bench_close(&w);
    return o;
}

/* Pixels of group 1, of group 2, and of none, so that a whole tile of keys is hidden from group 2: each
 * query attends to those that it may see, put together by hand. */
START_TEST(groups_do_not_see_each_other)
{
    enum { N = 2, HEADS = 2, D = 8, WIDTH = HEADS * D, L = 1100 };
    static int32_t group[L];
    float *q = bench_floats(N * L * WIDTH, 1), *k = bench_floats(N * L * WIDTH, 2), *v = bench_floats(N * L * WIDTH, 3);
    float *some[2] = { malloc(sizeof(float) * L * WIDTH), malloc(sizeof(float) * L * WIDTH) };
    double *want = malloc(sizeof(double) * N * L * WIDTH);

    for (int i = 0; i < L; i++) group[i] = i < 600 ? 1 : i < 1000 ? 2 : 0;
    for (int own = 0; own <= 2; own++)
        for (int s = 0; s < N; s++) {
            attention seen = { .n = 1, .heads = HEADS, .d = D, .lq = 1 };
            for (int i = 0; i < L; i++) {
                if (own > 0 && group[i] > 0 && group[i] != own) continue;
                memcpy(some[0] + seen.lk * WIDTH, k + (s * L + i) * WIDTH, WIDTH * sizeof(float));
                memcpy(some[1] + seen.lk++ * WIDTH, v + (s * L + i) * WIDTH, WIDTH * sizeof(float));
            }
            for (int i = 0; i < L; i++)
                for (int h = 0; h < HEADS && group[i] == own; h++) {
                    int at = (s * L + i) * WIDTH + h * D;
                    attend_row(&seen, want + at, q + at, some[0] + h * D, some[1] + h * D, 0);
                }
        }
    for (size_t t = 0; t < table_count; t++) {
        wf_attention a = { .n = N, .heads = HEADS, .d = D, .lq = L, .q = q, .keys = &(wf_keys){ k, v, L },
                           .segments = 1, .group = group };
        float *o = run_attention(&a, tables[t], 2);
        close_to("groups", o, want, N * L * WIDTH, 3e-6);
        free(o);
    }
    free(q), free(k), free(v), free(some[0]), free(some[1]), free(want);
}
END_TEST

/* Keys cut into segments are the keys: bit for bit if every cut is at a tile's border. */
START_TEST(segments_of_keys_are_their_sum)
{
    static const struct { int32_t lk, cut[3]; bool causal, bits; } cases[] = {
        { 77, { 30, 77, 77 }, false, false },     { 1100, { 512, 1100, 1100 }, false, true },
        { 1600, { 512, 1536, 1600 }, true, true }, { 700, { 1, 0, 699 }, true, false },
        { 530, { 0, 0, 530 }, false, true },
    };
    enum { N = 2, HEADS = 3, D = 8, WIDTH = HEADS * D };
    for (size_t i = 0; i < WF_LEN(cases); i++) {
        int32_t lk = cases[i].lk, lq = cases[i].causal ? lk : 70, from = 0;
        float *q = bench_floats((size_t)(N * lq * WIDTH), 1), *kv[2], *cut[3][2];
        for (int p = 0; p < 2; p++) kv[p] = bench_floats((size_t)(N * lk * WIDTH), 2 + (uint32_t)p);
        wf_keys whole = { kv[0], kv[1], lk }, some[3];
        for (int g = 0; g < 3; g++) {
            int32_t to = g == 2 ? lk : WF_MAX(from, cases[i].cut[g]);
            size_t each = (size_t)((to - from) * WIDTH);
            for (int p = 0; p < 2; p++) {
                cut[g][p] = malloc(N * each * sizeof(float) + 1);
                for (int n = 0; n < N; n++)
                    memcpy(cut[g][p] + (size_t)n * each, kv[p] + (n * lk + from) * WIDTH, each * sizeof(float));
            }
            some[g] = (wf_keys){ cut[g][0], cut[g][1], to - from };
            from = to;
        }
        wf_attention a = { .n = N, .heads = HEADS, .d = D, .lq = lq, .q = q, .keys = &whole, .segments = 1,
                           .causal = cases[i].causal }, b = a;
        b.keys = some;
        b.segments = 3;
        const wf_kernels *k = tables[table_count - 1];
        float *one = run_attention(&a, k, 2), *three = run_attention(&b, k, 1), *again = run_attention(&b, k, 3);
        size_t n = (size_t)(N * lq * WIDTH);
        double *want = malloc(n * sizeof *want);
        for (size_t c = 0; c < n; c++) want[c] = one[c];
        close_to("segments", three, want, n, 2e-6);
        ck_assert(memcmp(three, again, n * sizeof *three) == 0);
        ck_assert(!cases[i].bits || memcmp(one, three, n * sizeof *one) == 0);
        for (int g = 0; g < 3; g++) free(cut[g][0]), free(cut[g][1]);
        free(want), free(one), free(three), free(again), free(q), free(kv[0]), free(kv[1]);
    }
}
END_TEST

/* Samples in groups of three see their own keys and those of their group's first, with scores of another
 * scale; in two groups of pixels or in none. Put together by hand; the first sees its own alone. */
START_TEST(samples_see_the_keys_of_their_first)
{
    enum { N = 6, OF = 3, HEADS = 2, D = 8, WIDTH = HEADS * D, L = 540 };
    const float factor = 0.7f, shift = 0.4f;
    int32_t group[L];
    float *q = bench_floats(N * L * WIDTH, 1), *k = bench_floats(N * L * WIDTH, 2), *v = bench_floats(N * L * WIDTH, 3);
    double *want = malloc(sizeof(double) * N * L * WIDTH), *weight = malloc(sizeof(double) * 2 * L);

    for (int i = 0; i < L; i++) group[i] = i < 200 ? 1 : i < 500 ? 2 : 0;
    for (int grouped = 0; grouped < 2; grouped++) {
        for (int s = 0; s < N; s++)
            for (int i = 0; i < L; i++)
                for (int h = 0; h < HEADS; h++) {
                    int first = s - s % OF, at = (s * L + i) * WIDTH + h * D;
                    double sum = 0;
                    for (int key = 0; key < 2 * L; key++) {
                        int from = (key < L ? s : first) * L + key % L, theirs = group[key % L];
                        double dot = 0;
                        for (int c = 0; c < D; c++) dot += (double)q[at + c] * k[from * WIDTH + h * D + c];
                        dot /= sqrt(D);
                        weight[key] = exp(key < L ? dot : dot * factor + shift);
                        if ((key >= L && s == first) || (grouped && group[i] > 0 && theirs > 0 && theirs != group[i])) weight[key] = 0;
                        sum += weight[key];
                    }
                    for (int c = 0; c < D; c++) {
                        want[at + c] = 0;
                        for (int key = 0; key < 2 * L; key++)
                            want[at + c] += weight[key] / sum * v[((key < L ? s : first) * L + key % L) * WIDTH + h * D + c];
                    }
                }
        for (size_t t = 0; t < table_count; t++) {
            const wf_keys keys[] = { { k, v, L }, { k, v, L } };
            wf_attention a = { .n = N, .heads = HEADS, .d = D, .lq = L, .q = q, .keys = keys, .segments = 2,
                               .shared = OF, .factor = factor, .shift = shift, .group = grouped ? group : NULL };
            workbench w;
            bench_open(&w, tables[t], 1);
            wf_attend(&w.e, NULL, &a);
            ck_assert_double_eq(w.e.flops, 4.0 * WIDTH * L * (N + 4) * L);
            ck_assert_double_eq(w.e.moved_bytes, sizeof(float) * 2.0 * WIDTH * (N * L + (N + 4) * L));
            wf_pool_free(w.e.pool);
            float *o = run_attention(&a, tables[t], 2);
            close_to("the first's keys", o, want, N * L * WIDTH, 3e-6);
            free(o);
        }
    }
    free(q), free(k), free(v), free(want), free(weight);
}
END_TEST

/* Channels take on mean and deviation of the reference, by the formula, and a single row its mean. */
START_TEST(channels_take_on_the_moments_of_the_reference)
{
    enum { N = 4, OF = 2, C = 5 };
    static const int32_t sizes[] = { 1, 3, 150 };
    for (size_t z = 0; z < WF_LEN(sizes); z++)
        for (size_t t = 0; t < table_count; t++) {
            int32_t rows = sizes[z];
            size_t n = (size_t)(N * rows * C);
            float *x = bench_floats(n, 4), *y = malloc(n * sizeof *y);
            double *want = malloc(n * sizeof *want), m[N][2];
            wf_align align = { .group = OF };
            for (int c = 0; c < C; c++) {
                for (int s = 0; s < N; s++) {
                    double sum = 0, square = 0;
                    for (int i = 0; i < rows; i++) sum += x[(s * rows + i) * C + c];
                    m[s][0] = sum / rows;
                    for (int i = 0; i < rows; i++) square += pow(x[(s * rows + i) * C + c] - m[s][0], 2);
                    m[s][1] = sqrt((rows > 1 ? square / (rows - 1) : 0) + 1e-5);
                }
                for (int s = 0; s < N; s++)
                    for (int i = 0; i < rows; i++) {
                        int at = (s * rows + i) * C + c, to = s - s % OF;
                        want[at] = (x[at] - m[s][0]) / m[s][1] * m[to][1] + m[to][0];
                    }
            }
            workbench w;
            bench_open(&w, tables[t], 2);
            w.e.align = &align;
            memcpy(y, x, n * sizeof *y);
            wf_adapt_to_reference(&w.e, y, wf_image_grid(N, rows, 1), C);
            bench_real(&w);
            wf_adapt_to_reference(&w.e, y, wf_image_grid(N, rows, 1), C);
            bench_close(&w);
            close_to("moments", y, want, n, 3e-6);
            for (int s = 0; s < N; s += OF) ck_assert(memcmp(y + s * rows * C, x + s * rows * C, (size_t)(rows * C) * sizeof *x) == 0);
            free(x), free(y), free(want);
        }
}
END_TEST

/* A bias for each query and key, for all samples and heads or for each; -INFINITY hides, also a whole tile of keys, and
 * a query that sees nothing gets zeros. */
START_TEST(attention_takes_a_bias)
{
    static const struct { int32_t lq, lk; bool causal, samples, heads; } cases[] = {
        { 5, 7, false, false, false }, { 70, 1100, false, true, false }, { 65, 600, false, false, true },
        { 130, 130, true, true, true }, { 66, 1025, false, true, true },
    };
    enum { N = 2, HEADS = 2, D = 8, WIDTH = HEADS * D };
    for (size_t i = 0; i < WF_LEN(cases); i++)
        for (size_t t = 0; t < table_count; t++) {
            int32_t lq = cases[i].lq, lk = cases[i].lk;
            size_t pairs = (size_t)(lq * lk), n = (size_t)(N * lq * WIDTH);
            float *q = bench_floats(n, 1), *k = bench_floats((size_t)(N * lk * WIDTH), 2);
            float *v = bench_floats((size_t)(N * lk * WIDTH), 3), *bias = bench_floats(N * HEADS * pairs, 4);
            double *want = calloc(n, sizeof *want);
            for (size_t b = 0; b < N * HEADS * pairs; b++) {
                int32_t row = (int32_t)(b % pairs) / lk, key = (int32_t)(b % pairs) % lk;
                if (row == 3 || (row % 3 == 1 && key < 520) || bias[b] > 0.8f) bias[b] = -INFINITY;
                else bias[b] *= 4;
            }
            wf_attention a = { .n = N, .heads = HEADS, .d = D, .lq = lq, .q = q, .keys = &(wf_keys){ k, v, lk },
                               .segments = 1, .causal = cases[i].causal, .bias = bias,
                               .bias_sample = cases[i].samples ? HEADS * pairs : 0,
                               .bias_head = cases[i].heads ? pairs : 0 };
            for (int32_t s = 0; s < N; s++)
                for (int32_t h = 0; h < HEADS; h++)
                    for (int32_t row = 0; row < lq; row++) {
                        const float *own = bias + (size_t)s * a.bias_sample + (size_t)h * a.bias_head + row * lk;
                        double *o = want + (s * lq + row) * WIDTH + h * D, sum = 0;
                        for (int32_t key = 0; key < (a.causal ? row + 1 : lk); key++) {
                            double dot = 0, e;
                            for (int c = 0; c < D; c++)
                                dot += (double)q[(s * lq + row) * WIDTH + h * D + c] *
                                       k[(s * lk + key) * WIDTH + h * D + c];
                            e = exp(dot / sqrt(D) + own[key]);
                            sum += e;
                            for (int c = 0; c < D; c++) o[c] += e * v[(s * lk + key) * WIDTH + h * D + c];
                        }
                        for (int c = 0; c < D && sum > 0; c++) o[c] /= sum;
                    }
            float *y = run_attention(&a, tables[t], 1), *again = run_attention(&a, tables[t], 3);
            close_to("a bias", y, want, n, 4e-6);
            for (int c = 0; c < WIDTH; c++) ck_assert(y[3 * WIDTH + c] == 0);
            ck_assert(memcmp(y, again, n * sizeof *y) == 0);
            free(q), free(k), free(v), free(bias), free(want), free(y), free(again);
        }
}
END_TEST

/* ---- norms and the rest ---------------------------------------------------------------------- */

static double activated(double x, wf_act act)
{
    switch (act) {
    case WF_ACT_SILU: return x / (1 + exp(-x));
    case WF_ACT_GELU: return x * (1 + erf(x / sqrt(2))) / 2;
    case WF_ACT_QUICK_GELU: return x / (1 + exp(-1.702 * x));
    case WF_ACT_RELU: return x > 0 ? x : 0;
    default: return x;
    }
}

START_TEST(norms)
{
    static const struct { int32_t c, groups, n, h, w; float shift; } cases[] = {
        { 1, 1, 1, 1, 2, 0 },    { 8, 2, 2, 3, 5, 0 },  { 9, 3, 1, 63, 1, 5 },     { 33, 11, 3, 8, 8, -2 },
        { 16, 16, 1, 65, 2, 0 }, { 40, 8, 2, 1, 1, 1 }, { 4, 1, 1, 1, 129, 1000 },
        { 4, 2, 2, 131, 127, 0 }, /* tiles of more rows */
    };
    for (size_t i = 0; i < WF_LEN(cases); i++)
        for (size_t t = 0; t < table_count; t++)
            for (wf_act act = WF_ACT_NONE; act <= WF_ACT_RELU; act++) {
                wf_grid g = wf_image_grid(cases[i].n, cases[i].h, cases[i].w);
                size_t c = (size_t)cases[i].c, rows = (size_t)(g.h * g.w), n = wf_rows(g) * c;
                float *x = bench_floats(n, 1), *kept = NULL;
                float *weight = bench_floats(c, 2), *bias = bench_floats(c, 3);
                double *want = malloc(n * sizeof *want), *wide = malloc(n * sizeof *wide);
                wf_norm group = { weight, bias, cases[i].c, cases[i].groups, 1e-5f, NULL }, layer = group;
                size_t width = c / (size_t)cases[i].groups;
                layer.groups = 0;
                for (size_t k = 0; k < n; k++) x[k] += cases[i].shift;
                for (size_t s = 0; s < (size_t)g.n; s++)
                    for (size_t first = 0; first < c; first += width) {
                        double sum = 0, square = 0, m = (double)(rows * width);
                        for (size_t r = 0; r < rows; r++)
                            for (size_t k = first; k < first + width; k++) sum += x[(s * rows + r) * c + k];
                        for (size_t r = 0; r < rows; r++)
                            for (size_t k = first; k < first + width; k++)
                                square += pow(x[(s * rows + r) * c + k] - sum / m, 2);
                        for (size_t r = 0; r < rows; r++)
                            for (size_t k = first; k < first + width; k++) {
                                size_t at = (s * rows + r) * c + k;
                                double z = (x[at] - sum / m) / sqrt(square / m + 1e-5f);
                                want[at] = activated(z * weight[k] + bias[k], act);
                            }
                    }
                for (size_t r = 0; r < wf_rows(g); r++) {
                    double sum = 0, square = 0;
                    for (size_t k = 0; k < c; k++) sum += x[r * c + k];
                    for (size_t k = 0; k < c; k++) square += pow(x[r * c + k] - sum / (double)c, 2);
                    double inverse = 1 / sqrt(square / (double)c + 1e-5f);
                    for (size_t k = 0; k < c; k++)
                        wide[r * c + k] = (x[r * c + k] - sum / (double)c) * inverse * weight[k] + bias[k];
                }
                for (int32_t threads = 1; threads <= 3; threads++) {
                    workbench w;
                    float *y = bench_floats(n, 4), *z = bench_floats(n, 4);
                    bench_open(&w, tables[t], threads);
                    wf_group_norm(&w.e, &group, NULL, NULL, g, act);
                    wf_layer_norm(&w.e, &layer, NULL, NULL, g);
                    bench_real(&w);
                    wf_group_norm(&w.e, &group, y, x, g, act);
                    wf_layer_norm(&w.e, &layer, z, x, g);
                    bench_close(&w);
                    /* around 1000 an input is known to 6e-5, of which the norm makes 1e-4 */
                    close_to("group norm", y, want, n, cases[i].shift > 100 ? 3e-4 : 2e-6);
                    close_to("layer norm", z, wide, n, cases[i].shift > 100 ? 3e-4 : 4e-6);
                    if (kept == NULL) kept = y;
                    else {
                        ck_assert(memcmp(kept, y, n * sizeof *y) == 0);
                        free(y);
                    }
                    free(z);
                }
                free(kept), free(x), free(weight), free(bias), free(want), free(wide);
            }
}
END_TEST

/* The rest only moves numbers or does one thing to each: exact, or nearly. */
START_TEST(moving_rows)
{
    wf_grid from = wf_image_grid(2, 3, 5), to[] = {
        wf_image_grid(2, 6, 10), wf_image_grid(2, 5, 9), wf_image_grid(2, 3, 5), wf_image_grid(2, 6, 9),
    };
    enum { C = 7, D = 3 };
    size_t rows = wf_rows(from);
    float *x = bench_floats(rows * C, 1), *p = bench_floats(rows * D, 2), *y = malloc(2 * 6 * 10 * (C + D) * sizeof *y);
    for (size_t t = 0; t < table_count; t++) {
        workbench w;
        bench_open(&w, tables[t], 2);
        bench_real(&w);
        for (size_t i = 0; i < WF_LEN(to); i++) { /* an odd size gives one row less than twice */
            wf_upsample(&w.e, y, to[i], x, from, C);
            for (int32_t n = 0, at = 0; n < 2; n++)
                for (int32_t r = 0; r < to[i].h; r++)
                    for (int32_t c = 0; c < to[i].w; c++, at++) {
                        int32_t sy = r * from.h / to[i].h, sx = c * from.w / to[i].w;
                        const float *src = x + ((n * from.h + sy) * from.w + sx) * C;
                        if (to[i].h == 6) ck_assert_int_eq(sy, r / 2);
                        ck_assert(memcmp(y + at * C, src, C * sizeof *y) == 0);
                    }
        }
        wf_concat(&w.e, y, x, C, p, D, rows);
        for (size_t r = 0; r < rows; r++)
            ck_assert(memcmp(y + r * (C + D), x + r * C, C * sizeof *y) == 0 &&
                      memcmp(y + r * (C + D) + C, p + r * D, D * sizeof *y) == 0);
        wf_from_rows(&w.e, y, x, from, C);
        ck_assert(y[(1 * C + 4) * 15 + 11] == x[(15 + 11) * C + 4]);
        float *z = malloc(rows * C * sizeof *z);
        wf_to_rows(&w.e, z, y, from, C);
        ck_assert(memcmp(z, x, rows * C * sizeof *z) == 0);
        wf_geglu(&w.e, z, x, rows / 2, C);
        for (size_t i = 0; i < rows / 2 * C; i++) {
            double value = x[i / C * 2 * C + i % C], gate = x[i / C * 2 * C + C + i % C];
            ck_assert_double_eq_tol(z[i], value * activated(gate, WF_ACT_GELU), 2e-7);
        }
        free(z);
        bench_close(&w);
    }
    free(x), free(p), free(y);
}
END_TEST

/* By several workers: to the last float, and no further. */
START_TEST(a_long_copy_is_whole)
{
    enum { N = 200003 };
    float *x = bench_floats(N + 1, 1), *y = calloc(N + 1, sizeof *y);
    for (int32_t threads = 1; threads <= 3; threads++) {
        workbench w;
        bench_open(&w, tables[0], threads);
        bench_real(&w);
        memset(y, 0, (N + 1) * sizeof *y);
        wf_copy(&w.e, y, x, N);
        ck_assert(memcmp(y, x, N * sizeof *y) == 0 && y[N] == 0);
        bench_close(&w);
    }
    free(x), free(y);
}
END_TEST

/* Asked at every layer; after a yes nothing is computed, and the memory is given back all the same. */
static bool say_stop(void *user) { return ++*(int *)user >= 2; }

START_TEST(a_stop_ends_it)
{
    const shape s = { 8, 8, 3, 1, false, 1, 4, 4 };
    weight w = make_weight(9 * 64, WF_F32, 1);
    wf_layer l = make_layer(&s, &w, WF_F32, NULL);
    float *x = bench_floats(128, 1), *y = bench_floats(128, 2), *before = bench_floats(128, 2);
    workbench b;
    int asked = -100;
    bench_open(&b, tables[0], 2);
    b.e.stop = say_stop;
    b.e.stop_user = &asked;
    wf_layer_apply(&b.e, &l, NULL, NULL, wf_image_grid(1, 4, 4), false);
    ck_assert(!b.e.stopped && asked == -99);
    bench_real(&b);
    asked = 0;
    for (int i = 0; i < 2; i++) wf_layer_apply(&b.e, &l, y, x, wf_image_grid(1, 4, 4), false);
    ck_assert(b.e.stopped);
    memcpy(y, before, 128 * sizeof *y);
    wf_layer_apply(&b.e, &l, y, x, wf_image_grid(1, 4, 4), false);
    wf_activate(&b.e, WF_ACT_SILU, y, x, 16, 8);
    wf_copy(&b.e, y, x, 128);
    ck_assert(memcmp(y, before, 128 * sizeof *y) == 0 && asked == 2);
    bench_close(&b);
    free(x), free(y), free(before), free(w.bytes), free(w.v);
}
END_TEST

/* Refused before the file is asked: a layer's loader has room for 3 x 3. */
START_TEST(kernels_that_no_layer_has_are_refused)
{
    static const struct { int32_t kernel, stride; } bad[] = { { 2, 1 }, { 4, 2 }, { 16, 2 }, { 0, 1 }, { -1, 1 },
                                                              { 3, 3 }, { 3, 0 } };
    wf_binder       b = { .path = "model.safetensors" };
    const wf_layer *l = NULL;
    weft_error      err;

    for (size_t i = 0; i < WF_LEN(bad); i++) {
        weft_status st = wf_bind_conv(&b, &l, "patch", "proj", 8, 4, bad[i].kernel, bad[i].stride, &err);
        ck_assert_int_eq(st, WEFT_E_UNSUPPORTED);
        ck_assert_ptr_null(l);
    }
    (void)wf_bind_conv(&b, &l, "patch", "proj", 8, 4, 16, 2, &err);
    ck_assert_str_eq(err.text, "model.safetensors: convolution patch.proj has a kernel of 16 and a stride of 2, "
                               "wanted a kernel of 1 or 3 and a stride of 1 or 2");
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("layers and operations");
    TCase *c = tcase_create("nets");
    table_count = bench_tables(tables);
    tcase_set_timeout(c, 300);
    tcase_add_loop_test(c, a_layer_is_its_sum, 0, (int)WF_LEN(shapes));
    tcase_add_loop_test(c, and_what_adapters_add_in_each_branch, 0, (int)WF_LEN(shapes));
    tcase_add_test(c, zero_leaves_the_bits);
    tcase_add_loop_test(c, a_merged_copy_is_the_sum, 0, (int)WF_LEN(shapes));
    tcase_add_test(c, a_batch_is_its_samples);
    tcase_add_loop_test(c, attention_is_softmax, 0, (int)WF_LEN(attentions));
    tcase_add_test(c, segments_of_keys_are_their_sum);
    tcase_add_test(c, samples_see_the_keys_of_their_first);
    tcase_add_test(c, channels_take_on_the_moments_of_the_reference);
    tcase_add_test(c, attention_takes_a_bias);
    tcase_add_test(c, groups_do_not_see_each_other);
    tcase_add_test(c, norms);
    tcase_add_test(c, moving_rows);
    tcase_add_test(c, a_long_copy_is_whole);
    tcase_add_test(c, a_stop_ends_it);
    tcase_add_test(c, kernels_that_no_layer_has_are_refused);
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    return bench_every_tier(suite) != 0;
}
