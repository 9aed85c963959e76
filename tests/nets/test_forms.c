/* What adapters add to a layer in each of its forms, in each branch: against a layer whose weight and bias are the sums,
 * which test_layer.c holds to naive loops. Sizes stand around the borders of tiles. */
#include "nets/workbench.h"
#include "weft/model.h"

typedef struct shape { int32_t o1, o2, i1, i2, kernel, stride, n, h, w; } shape;

static const shape shapes[] = {
    { 1, 1, 1, 1, 1, 1, 2, 1, 1 },     { 2, 3, 3, 5, 1, 1, 3, 7, 1 },    { 4, 81, 8, 16, 1, 1, 2, 257, 1 },
    { 16, 21, 6, 193, 1, 1, 2, 3, 1 }, { 1, 5, 4, 3, 1, 1, 2, 255, 1 },  { 2, 3, 3, 2, 3, 1, 2, 5, 3 },
    { 3, 107, 2, 65, 3, 1, 2, 3, 3 },  { 4, 2, 2, 3, 3, 2, 2, 7, 8 },    { 2, 2, 1, 4, 3, 1, 2, 17, 16 },
    { 3, 2, 64, 40, 1, 1, 2, 300, 1 }, { 64, 33, 64, 3, 1, 1, 2, 70, 1 },
};

enum { PAIR, KRON, DENSE, BARE, PARTS, RANK = 3, SLOTS = PARTS + 2, BRANCHES = 3 };
static const int32_t part_rank[PARTS] = { RANK, 0, 0, 0 };
static const float   part_scale[PARTS] = { 0.5f, -1.5f, 1, 1 };

/* [branch][2 + part]: everything, one form alone, nothing. */
static const wf_cell cells[BRANCHES * SLOTS] = {
    { 9, 0, 0 }, { 9, 0, 0 }, { 0.7f, 0, 0 }, { -0.4f, 0, 0 }, { 0.3f, 0, 0 }, { 2, 0, 0 },
    { 9, 0, 0 }, { 9, 0, 0 }, { 0, 0, 0 },    { 0.8f, 0, 0 },  { 0, 0, 0 },    { 0, 0, 0 },
    { 9, 0, 0 }, { 9, 0, 0 }, { 0, 0, 0 },    { 0, 0, 0 },     { 0, 0, 0 },    { 0, 0, 0 },
};

typedef struct parts {
    wf_layer l;
    float   *weight, *bias, *down, *up, *w1, *w2, *dense, *bias_pair, *bias_bare;
    wf_nonpair nonpair[PARTS];
    wf_stack stack;
    size_t   out, in, taps;
} parts;

static void make_parts(parts *p, const shape *s)
{
    size_t t = (size_t)(s->kernel * s->kernel), out = (size_t)(s->o1 * s->o2), in = (size_t)(s->i1 * s->i2);
    *p = (parts){ .out = out, .in = in, .taps = t };
    p->weight = bench_floats(out * in * t, 1), p->bias = bench_floats(out, 2);
    p->down = bench_floats(RANK * in * t, 3), p->up = bench_floats(RANK * out, 4);
    p->w1 = bench_floats((size_t)(s->o1 * s->i1), 5), p->w2 = bench_floats((size_t)(s->o2 * s->i2) * t, 6);
    p->dense = bench_floats(out * in * t, 7), p->bias_pair = bench_floats(out, 8), p->bias_bare = bench_floats(out, 9);
    p->l = (wf_layer){ .name = "unet.layer", .weight = p->weight, .bias = p->bias, .dtype = WF_F32,
                       .kind = s->kernel == 1 ? WEFT_LAYER_LINEAR : WEFT_LAYER_CONV, .out = (int32_t)out,
                       .in = (int32_t)in, .kernel = s->kernel, .stride = s->stride, .pad = s->kernel / 2 };
    p->nonpair[PAIR].bias = p->bias_pair;
    p->nonpair[KRON] = (wf_nonpair){ p->w1, p->w2, s->o1, s->i1, s->o2, s->i2, NULL, NULL };
    p->nonpair[DENSE].dense = p->dense;
    p->nonpair[BARE].bias = p->bias_bare;
    p->stack = (wf_stack){ PARTS, RANK, part_rank, part_scale, p->down, p->up, p->nonpair };
}

static void free_parts(parts *p)
{
    free(p->weight), free(p->bias), free(p->down), free(p->up), free(p->w1), free(p->w2), free(p->dense);
    free(p->bias_pair), free(p->bias_bare);
}

/* weight (out, in, ky, kx) and bias with everything added that branch b takes. */
static void sum_parts(const parts *p, int b, float *weight, float *bias)
{
    const wf_cell *c = cells + b * SLOTS + 2;
    size_t o2 = (size_t)p->nonpair[KRON].o2, i2 = (size_t)p->nonpair[KRON].i2, i1 = (size_t)p->nonpair[KRON].i1;
    for (size_t o = 0; o < p->out; o++) {
        bias[o] = (float)(p->bias[o] + (double)c[PAIR].number * p->bias_pair[o] + (double)c[BARE].number * p->bias_bare[o]);
        for (size_t i = 0; i < p->in; i++)
            for (size_t q = 0; q < p->taps; q++) {
                double v = p->weight[(o * p->in + i) * p->taps + q];
                for (size_t r = 0; r < RANK; r++)
                    v += (double)c[PAIR].number * part_scale[PAIR] * p->up[r * p->out + o] *
                         p->down[(r * p->taps + q) * p->in + i];
                v += (double)c[KRON].number * part_scale[KRON] * p->w1[o / o2 * i1 + i / i2] *
                     p->w2[(o % o2 * p->taps + q) * i2 + i % i2];
                v += (double)c[DENSE].number * p->dense[(o * p->taps + q) * p->in + i];
                weight[(o * p->in + i) * p->taps + q] = (float)v;
            }
    }
}

/* y of the layer over x; delta NULL: the layer alone; more NULL: no sample has a bias of its own. */
static float *apply_with(const wf_layer *l, const wf_delta *delta, const float *x, wf_grid g, const int32_t *branch,
                         const wf_cell *table, bool add, const float *more, int32_t threads)
{
    const wf_kernels *tables[2];
    workbench w;
    size_t n = wf_rows(wf_layer_grid(l, g)) * (size_t)l->out;
    float *y = bench_floats(n, 77);
    bench_open(&w, tables[bench_tables(tables) - 1], threads);
    w.e.deltas = delta;
    w.e.cells = table;
    w.e.slots = SLOTS;
    w.e.branch = branch;
    if (more != NULL) wf_layer_apply_to_each(&w.e, l, NULL, NULL, g, NULL);
    else wf_layer_apply(&w.e, l, NULL, NULL, g, add);
    bench_real(&w);
    if (more != NULL) wf_layer_apply_to_each(&w.e, l, y, x, g, more);
    else wf_layer_apply(&w.e, l, y, x, g, add);
    ck_assert(!w.e.stopped);
    bench_close(&w);
    return y;
}

static float *apply(const wf_layer *l, const wf_delta *delta, const float *x, wf_grid g, const int32_t *branch,
                    const wf_cell *table, bool add, int32_t threads)
{
    return apply_with(l, delta, x, g, branch, table, add, NULL, threads);
}

static void close_to(const float *y, const float *want, size_t n, double limit, const char *what)
{
    double top = 0.1, worst = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)y[i] - want[i]);
        top = fmax(top, fabs(want[i]));
        worst = d <= worst ? worst : d;
    }
    ck_assert_msg(worst <= limit * top, "%s: off by %g of %g", what, worst, top);
}

START_TEST(every_form_adds_its_part_in_each_branch)
{
    const shape *s = &shapes[_i];
    parts p;
    make_parts(&p, s);
    wf_grid g = wf_image_grid(s->n, s->h, s->w), one = wf_image_grid(1, s->h, s->w);
    wf_delta delta = { .stack = &p.stack, .slot = 2 };
    size_t each = wf_rows(one) * p.in, outs = wf_rows(wf_layer_grid(&p.l, one)) * p.out;
    float *x = bench_floats(wf_rows(g) * p.in, 10), *weight = bench_floats(p.out * p.in * p.taps, 0);
    float *bias = bench_floats(p.out, 0);
    for (int first = 0; first < BRANCHES; first++)
        for (int add = 0; add < 2; add++) {
            int32_t branch[3];
            for (int n = 0; n < s->n; n++) branch[n] = (first + n) % BRANCHES;
            float *y = apply(&p.l, &delta, x, g, branch, cells, add, 1);
            float *again = apply(&p.l, &delta, x, g, branch, cells, add, 3);
            ck_assert_msg(memcmp(y, again, outs * (size_t)s->n * sizeof *y) == 0, "other bits with 3 threads");
            for (int n = 0; n < s->n; n++) {
                wf_layer whole = p.l;
                sum_parts(&p, branch[n], weight, bias);
                whole.weight = weight;
                whole.bias = bias;
                float *start = bench_floats(outs * (size_t)(n + 1), 77); /* what y was filled with */
                float *want = apply(&whole, NULL, x + (size_t)n * each, one, NULL, NULL, false, 1);
                for (size_t i = 0; add && i < outs; i++) want[i] += start[outs * (size_t)n + i];
                close_to(y + (size_t)n * outs, want, outs, 5e-6, "a sample");
                free(want), free(start);
            }
            free(y), free(again);
        }
    free(x), free(weight), free(bias);
    free_parts(&p);
}
END_TEST

/* What each sample has of its own beside the layer's bias and the parts', with and without them. */
START_TEST(each_sample_has_its_own_bias)
{
    const shape *s = &shapes[_i];
    static const int32_t branch[3] = { 1, 0, 2 };
    parts p;
    make_parts(&p, s);
    wf_grid g = wf_image_grid(s->n, s->h, s->w), one = wf_image_grid(1, s->h, s->w);
    size_t rows = wf_rows(wf_layer_grid(&p.l, one)), out = p.out, n = (size_t)s->n * rows * out;
    float *x = bench_floats(wf_rows(g) * p.in, 10), *more = bench_floats((size_t)s->n * out, 11);
    for (int with = 0; with < 4; with++) { /* parts, the layer's bias */
        wf_delta delta = { .stack = &p.stack, .slot = 2 };
        wf_layer l = p.l;
        if (with & 2) l.bias = NULL;
        const wf_delta *d = with & 1 ? &delta : NULL;
        float *y = apply_with(&l, d, x, g, branch, cells, false, more, 2);
        float *want = apply(&l, d, x, g, branch, cells, false, 2);
        for (size_t i = 0; i < n; i++) want[i] += more[i / (rows * out) * out + i % out];
        close_to(y, want, n, 1e-6, "own biases");
        free(y), free(want);
    }
    free(x), free(more);
    free_parts(&p);
}
END_TEST

/* The branch where nothing has a coefficient is the base, bit for bit, whatever its neighbours do. */
START_TEST(zero_leaves_the_bits_of_every_form)
{
    for (size_t i = 0; i < WF_LEN(shapes); i++) {
        static const int32_t branch[3] = { 2, 0, 1 };
        const shape *s = &shapes[i];
        parts p;
        make_parts(&p, s);
        wf_grid g = wf_image_grid(s->n, s->h, s->w), one = wf_image_grid(1, s->h, s->w);
        wf_delta delta = { .stack = &p.stack, .slot = 2 };
        size_t outs = wf_rows(wf_layer_grid(&p.l, one)) * p.out;
        float *x = bench_floats(wf_rows(g) * p.in, 10);
        float *y = apply(&p.l, &delta, x, g, branch, cells, false, 2), *base = apply(&p.l, NULL, x, g, NULL, NULL, false, 2);
        ck_assert(memcmp(y, base, outs * sizeof *y) == 0);
        free(y), free(base), free(x);
        free_parts(&p);
    }
}
END_TEST

/* A merged copy has a bias of its own where parts change it. */
START_TEST(a_merged_copy_brings_its_bias)
{
    const shape *s = &shapes[5];
    parts p;
    make_parts(&p, s);
    wf_grid g = wf_image_grid(s->n, s->h, s->w);
    float *x = bench_floats(wf_rows(g) * p.in, 10), *weight = bench_floats(p.out * p.in * p.taps, 0);
    float *bias = bench_floats(p.out, 0), *merged = bench_floats(p.out * p.in * p.taps, 0);
    size_t n = wf_rows(wf_layer_grid(&p.l, g)) * p.out;
    wf_delta side = { .stack = &p.stack, .slot = 2 }, copy = { .merged = merged, .merged_bias = bias };
    sum_parts(&p, 0, weight, bias);
    wf_layer whole = p.l;
    whole.weight = weight;
    wf_layer_load(merged, &wf_kernels_ref, &whole);
    float *y = apply(&p.l, &side, x, g, NULL, cells, false, 1), *z = apply(&p.l, &copy, x, g, NULL, NULL, false, 1);
    close_to(y, z, n, 5e-6, "merged");
    free(x), free(weight), free(bias), free(merged), free(y), free(z);
    free_parts(&p);
}
END_TEST

static float *normed(const wf_norm *norm, const wf_delta *delta, const float *x, wf_grid g, const int32_t *branch, bool group)
{
    const wf_kernels *tables[2];
    workbench w;
    float *y = bench_floats(wf_rows(g) * (size_t)norm->channels, 0);
    bench_open(&w, tables[bench_tables(tables) - 1], 2);
    w.e.deltas = delta;
    w.e.cells = cells;
    w.e.slots = SLOTS;
    w.e.branch = branch;
    for (int dry = 1; dry >= 0; dry--) {
        if (!dry) bench_real(&w);
        if (group) wf_group_norm(&w.e, norm, dry ? NULL : y, dry ? NULL : x, g, WF_ACT_SILU);
        else wf_layer_norm(&w.e, norm, dry ? NULL : y, dry ? NULL : x, g);
    }
    bench_close(&w);
    return y;
}

/* weight + c_0 d_0 + c_2 d_2, bias + c_3 d_3 of each sample's branch. */
START_TEST(a_norm_has_its_branchs_weight_and_bias)
{
    enum { C = 12, N = 3 };
    static const int32_t branch[N] = { 1, 0, 2 };
    float *weight = bench_floats(C, 1), *bias = bench_floats(C, 2), *x = bench_floats(N * 70 * C, 3);
    float *d0 = bench_floats(C, 4), *d2 = bench_floats(C, 5), *b3 = bench_floats(C, 6);
    wf_nonpair nonpair[PARTS] = { { .dense = d0 }, { 0 }, { .dense = d2 }, { .bias = b3 } };
    static const int32_t none[PARTS] = { 0 };
    wf_stack stack = { PARTS, 0, none, part_scale, NULL, NULL, nonpair };
    wf_delta delta = { .stack = &stack, .slot = 2 };
    wf_layer row = { .name = "unet.norm", .kind = WEFT_LAYER_NORM, .out = C, .in = 1, .kernel = 1, .stride = 1 };
    wf_grid g = wf_image_grid(N, 14, 5), one = wf_image_grid(1, 14, 5);
    for (int group = 0; group < 2; group++) {
        wf_norm norm = { weight, bias, C, group ? 4 : 0, 1e-5f, &row };
        float *y = normed(&norm, &delta, x, g, branch, group);
        for (int n = 0; n < N; n++) {
            float sum_w[C], sum_b[C];
            const wf_cell *c = cells + branch[n] * SLOTS + 2;
            for (int i = 0; i < C; i++) {
                sum_w[i] = (weight[i] + c[0].number * d0[i]) + c[2].number * d2[i];
                sum_b[i] = bias[i] + c[3].number * b3[i];
            }
            wf_norm own = { sum_w, sum_b, C, norm.groups, 1e-5f, NULL };
            float *want = normed(&own, NULL, x + n * 70 * C, one, NULL, group);
            ck_assert(memcmp(y + n * 70 * C, want, 70 * C * sizeof *y) == 0);
            free(want);
        }
        free(y);
    }
    free(weight), free(bias), free(x), free(d0), free(d2), free(b3);
}
END_TEST

/* Gates are those of the whole layer, whatever adapters add and however it is computed. */
START_TEST(gates_come_after_every_part)
{
    for (size_t k = 0; k < WF_LEN(shapes); k++) {
        const wf_kernels *tables[2];
        parts p;
        make_parts(&p, &shapes[k]);
        wf_grid g = wf_image_grid(shapes[k].n, shapes[k].h, shapes[k].w);
        wf_stack pairs = p.stack;
        pairs.nonpair = NULL;
        wf_delta deltas[] = { { 0 }, { .stack = &pairs, .slot = 2 }, { .stack = &p.stack, .slot = 2 } };
        size_t half = p.out / 2, rows = wf_rows(g);
        float *x = bench_floats(rows * p.in, 10);
        for (size_t d = 0; d < WF_LEN(deltas) && p.taps == 1 && p.out % 2 == 0; d++) {
            float *wide = apply(&p.l, &deltas[d], x, g, NULL, cells, false, 2), *want = bench_floats(rows * half, 0);
            float *y = bench_floats(rows * half, 0);
            workbench w;
            bench_open(&w, tables[bench_tables(tables) - 1], 2);
            w.e.deltas = &deltas[d];
            w.e.cells = cells;
            w.e.slots = SLOTS;
            wf_layer_apply_gated(&w.e, &p.l, NULL, NULL, g);
            bench_real(&w);
            wf_layer_apply_gated(&w.e, &p.l, y, x, g);
            wf_geglu(&w.e, want, wide, rows, half);
            close_to(y, want, rows * half, 2e-6, "gates");
            bench_close(&w);
            free(wide), free(want), free(y);
        }
        free(x);
        free_parts(&p);
    }
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("forms of adapters");
    TCase *c = tcase_create("nets");
    tcase_set_timeout(c, 300);
    tcase_add_loop_test(c, every_form_adds_its_part_in_each_branch, 0, (int)WF_LEN(shapes));
    tcase_add_loop_test(c, each_sample_has_its_own_bias, 0, (int)WF_LEN(shapes));
    tcase_add_test(c, zero_leaves_the_bits_of_every_form);
    tcase_add_test(c, a_merged_copy_brings_its_bias);
    tcase_add_test(c, gates_come_after_every_part);
    tcase_add_test(c, a_norm_has_its_branchs_weight_and_bias);
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    return bench_every_tier(suite) != 0;
}
