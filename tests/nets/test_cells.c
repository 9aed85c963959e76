/* What a cell may be beside a number: a vector over the layer's columns, a mask over the image's
 * rows, or both, for every form of part, against naive sums in double. Sizes stand around the
 * borders of tiles. */
#include "nets/workbench.h"
#include "weft/model.h"

typedef struct shape {
    int32_t o1, o2, i1, i2, kernel, stride, n, h, w;
} shape;

static const shape shapes[] = {
    { 2, 3, 3, 5, 1, 1, 3, 7, 1 },      { 4, 81, 8, 16, 1, 1, 2, 16, 17 },
    { 16, 21, 6, 193, 1, 1, 2, 3, 1 },  { 2, 3, 3, 2, 3, 1, 2, 5, 3 },
    { 3, 107, 2, 65, 3, 1, 2, 3, 3 },   { 4, 2, 2, 3, 3, 2, 3, 7, 8 },
};

enum { PAIR, PAIR_2, KRON, DENSE, BARE, PARTS, RANK = 5, SLOTS = PARTS + 1, BRANCHES = 4 };
static const int32_t part_rank[PARTS] = { 3, 2, 0, 0, 0 };
static const float   part_scale[PARTS] = { 0.5f, 2, -1.5f, 1, 1 };

/* [branch][1 + part]: vectors alone, masks alone, both beside numbers, nothing. */
static const wf_cell cells[BRANCHES * SLOTS] = {
    { 9, 0, 0 }, { 0.7f, 1, 0 }, { 0.2f, 2, 0 },  { -0.4f, 1, 0 }, { 0.3f, 2, 0 },  { 2, 1, 0 },
    { 9, 0, 0 }, { 0.7f, 0, 1 }, { -0.2f, 0, 2 }, { 0.4f, 0, 2 },  { -0.3f, 0, 1 }, { 2, 0, 2 },
    { 9, 0, 0 }, { 0.7f, 0, 0 }, { 0.5f, 2, 1 },  { 0.4f, 1, 2 },  { 0.3f, 1, 1 },  { 1, 0, 0 },
    { 9, 0, 0 }, { 0, 1, 1 },    { 0, 0, 2 },     { 0, 2, 0 },     { 0, 1, 1 },     { 0, 1, 2 },
};

/* Two vectors, and two masks over images of h x w rows. Each mask has levels of the same height and
 * of the same width too, which come first and are for other layers. */
enum { LEVELS = 3, OURS = 2 };
typedef struct tables {
    const float  *vectors[2];
    wf_mask_level level[2][LEVELS];
    wf_mask       masks[2];
    float        *memory[5];
} tables;

static void make_tables(tables *t, size_t columns, int32_t h, int32_t w)
{
    size_t rows = (size_t)h * (size_t)w;
    t->memory[4] = bench_floats(rows + (size_t)h + (size_t)w, 40);
    for (int i = 0; i < 2; i++) {
        t->memory[i] = bench_floats(columns, 20 + (uint32_t)i);
        t->memory[2 + i] = bench_floats(rows, 30 + (uint32_t)i);
        t->vectors[i] = t->memory[i];
        t->level[i][0] = (wf_mask_level){ h, w + 1, t->memory[4] };
        t->level[i][1] = (wf_mask_level){ h + 1, w, t->memory[4] };
        t->level[i][OURS] = (wf_mask_level){ h, w, t->memory[2 + i] };
        t->masks[i] = (wf_mask){ t->level[i], LEVELS, 0.25f + (float)i };
    }
}

static void free_tables(tables *t)
{
    for (int i = 0; i < 5; i++) free(t->memory[i]);
}

static void bench_tell(workbench *w, const wf_delta *delta, const tables *t, const int32_t *branch)
{
    w->e.deltas = delta;
    w->e.cells = cells;
    w->e.slots = SLOTS;
    w->e.vectors = t->vectors;
    w->e.masks = t->masks;
    w->e.branch = branch;
}

/* A cell's factor at a row. */
static double at_row(const wf_cell *c, const tables *t, wf_grid g, size_t row)
{
    if (c->mask == 0) return c->number;
    const wf_mask *m = &t->masks[c->mask - 1];
    return (double)c->number *
           (g.domain == WF_DOMAIN_IMAGE ? m->level[OURS].rows[row] : m->elsewhere);
}

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

/* ---- layers ---------------------------------------------------------------------------------- */

typedef struct parts {
    wf_layer l;
    float   *weight, *bias, *down, *up, *w1, *w2, *dense, *bias_pair, *bias_bare;
    wf_nonpair nonpair[PARTS];
    wf_stack stack;
    size_t   out, in, taps;
} parts;

static void make_parts(parts *p, const shape *s)
{
    size_t t = (size_t)(s->kernel * s->kernel), out = (size_t)(s->o1 * s->o2),
        in = (size_t)(s->i1 * s->i2);
    *p = (parts){ .out = out, .in = in, .taps = t };
    p->weight = bench_floats(out * in * t, 1), p->bias = bench_floats(out, 2);
    p->down = bench_floats(RANK * in * t, 3), p->up = bench_floats(RANK * out, 4);
    p->w1 = bench_floats((size_t)(s->o1 * s->i1), 5),
        p->w2 = bench_floats((size_t)(s->o2 * s->i2) * t, 6);
    p->dense = bench_floats(out * in * t, 7), p->bias_pair = bench_floats(out, 8),
        p->bias_bare = bench_floats(out, 9);
    p->l = (wf_layer){ .name = "unet.layer", .weight = p->weight, .bias = p->bias, .dtype = WF_F32,
                       .kind = s->kernel == 1 ? WEFT_LAYER_LINEAR : WEFT_LAYER_CONV,
                       .out = (int32_t)out, .in = (int32_t)in, .kernel = s->kernel,
                       .stride = s->stride, .pad = s->kernel / 2 };
    p->nonpair[PAIR].bias = p->bias_pair;
    p->nonpair[KRON] = (wf_nonpair){ p->w1, p->w2, s->o1, s->i1, s->o2, s->i2, NULL, NULL };
    p->nonpair[DENSE].dense = p->dense;
    p->nonpair[BARE].bias = p->bias_bare;
    p->stack = (wf_stack){ PARTS, RANK, part_rank, part_scale, p->down, p->up, p->nonpair };
}

static void free_parts(parts *p)
{
    free(p->weight), free(p->bias), free(p->down), free(p->up), free(p->w1), free(p->w2),
        free(p->dense);
    free(p->bias_pair), free(p->bias_bare);
}

/* Element (o, tap q, input i) of part k's difference. */
static double difference(const parts *p, int k, size_t o, size_t q, size_t i)
{
    size_t o2 = (size_t)p->nonpair[KRON].o2, i2 = (size_t)p->nonpair[KRON].i2,
        i1 = (size_t)p->nonpair[KRON].i1;
    double sum = 0;
    if (k == DENSE) return p->dense[(o * p->taps + q) * p->in + i];
    if (k == KRON)
        return (double)part_scale[k] * p->w1[o / o2 * i1 + i / i2] *
               p->w2[(o % o2 * p->taps + q) * i2 + i % i2];
    if (k == BARE) return 0;
    for (size_t r = k == PAIR ? 0 : 3; r < (k == PAIR ? 3u : 5u); r++)
        sum += (double)p->up[r * p->out + o] * p->down[(r * p->taps + q) * p->in + i];
    return sum * part_scale[k];
}

/* W_b,p (out, taps, in) of the parts in a branch with their vectors, numbers left out:
 * [part][o][q][i]. */
static double *differences(const parts *p, const tables *t, const wf_cell *c)
{
    size_t each = p->out * p->taps * p->in;
    double *d = malloc(PARTS * each * sizeof *d);
    for (int k = 0; k < PARTS; k++)
        for (size_t o = 0; o < p->out; o++)
            for (size_t q = 0; q < p->taps; q++)
                for (size_t i = 0; i < p->in; i++)
                    d[(size_t)k * each + (o * p->taps + q) * p->in + i] =
                        difference(p, k, o, q, i) *
                        (c[k].vector != 0 ? t->vectors[c[k].vector - 1][q * p->in + i] : 1);
    return d;
}

/* want (rows, out) of one sample x (h, w, in). */
static void naive(const parts *p, const shape *s, const tables *t, const wf_cell *c, const float *x,
                  wf_grid out, double *want)
{
    size_t each = p->out * p->taps * p->in;
    double *d = differences(p, t, c);
    for (size_t row = 0; row < (size_t)(out.h * out.w); row++)
        for (size_t o = 0; o < p->out; o++) {
            double y = p->bias[o];
            for (int k = 0; k < PARTS; k++)
                if (p->nonpair[k].bias != NULL)
                    y += at_row(&c[k], t, out, row) * p->nonpair[k].bias[o];
            for (size_t q = 0; q < p->taps; q++) {
                int32_t iy =
                    (int32_t)row / out.w * s->stride + (int32_t)q / s->kernel - s->kernel / 2;
                int32_t ix =
                    (int32_t)row % out.w * s->stride + (int32_t)q % s->kernel - s->kernel / 2;
                if (iy < 0 || iy >= s->h || ix < 0 || ix >= s->w) continue;
                for (size_t i = 0; i < p->in; i++) {
                    double v = x[(size_t)(iy * s->w + ix) * p->in + i],
                        w = p->weight[(o * p->in + i) * p->taps + q];
                    for (int k = 0; k < BARE; k++)
                        w += at_row(&c[k], t, out, row) *
                             d[(size_t)k * each + (o * p->taps + q) * p->in + i];
                    y += w * v;
                }
            }
            want[row * p->out + o] = y;
        }
    free(d);
}

static float *apply(const parts *p, const wf_delta *delta, const tables *t, const float *x,
                    wf_grid g, const int32_t *branch, int32_t threads)
{
    const wf_kernels *kernels[2];
    workbench w;
    float *y = bench_floats(wf_rows(wf_layer_grid(&p->l, g)) * p->out, 77);
    bench_open(&w, kernels[bench_tables(kernels) - 1], threads);
    bench_tell(&w, delta, t, branch);
    wf_layer_apply(&w.e, &p->l, NULL, NULL, g, false);
    bench_real(&w);
    wf_layer_apply(&w.e, &p->l, y, x, g, false);
    bench_close(&w);
    return y;
}

START_TEST(a_layer_takes_vectors_and_masks)
{
    const shape *s = &shapes[_i];
    for (wf_domain domain = WF_DOMAIN_IMAGE; domain <= WF_DOMAIN_TEXT; domain++) {
        parts p;
        tables t;
        if (domain == WF_DOMAIN_TEXT && s->kernel > 1) continue;
        make_parts(&p, s);
        wf_grid g = { s->n, s->h, s->w, domain }, out = wf_layer_grid(&p.l, g);
        make_tables(&t, p.taps * p.in, out.h, out.w);
        wf_delta delta = { &p.stack, 1, NULL, NULL, 0, NULL, 0 };
        size_t each = (size_t)(s->h * s->w) * p.in, outs = (size_t)(out.h * out.w) * p.out;
        float *x = bench_floats((size_t)s->n * each, 10);
        double *want = malloc(outs * sizeof *want);
        for (int first = 0; first < BRANCHES; first++) {
            int32_t branch[3];
            for (int n = 0; n < s->n; n++) branch[n] = (first + n) % BRANCHES;
            float *y = apply(&p, &delta, &t, x, g, branch, 1);
            float *again = apply(&p, &delta, &t, x, g, branch, 3);
            ck_assert(memcmp(y, again, outs * (size_t)s->n * sizeof *y) == 0);
            for (int n = 0; n < s->n; n++) {
                naive(&p, s, &t, cells + branch[n] * SLOTS + 1, x + (size_t)n * each, out, want);
                close_to("a sample", y + (size_t)n * outs, want, outs, 5e-6);
                wf_grid one = g;
                one.n = 1;
                float *alone = apply(&p, &delta, &t, x + (size_t)n * each, one, branch + n, 2);
                ck_assert(memcmp(alone, y + (size_t)n * outs, outs * sizeof *y) == 0);
                if (branch[n] == 3) { /* numbers of 0, whatever stands beside them */
                    float *base = apply(&p, NULL, &t, x + (size_t)n * each, one, NULL, 1);
                    ck_assert(memcmp(alone, base, outs * sizeof *base) == 0);
                    free(base);
                }
                free(alone);
            }
            free(y), free(again);
        }
        free(x), free(want);
        free_parts(&p);
        free_tables(&t);
    }
}
END_TEST

/* A vector of ones and a mask of ones are the number, within rounding. */
START_TEST(ones_change_nothing)
{
    static const wf_cell plain[SLOTS] = {
        { 9, 0, 0 }, { 0.7f, 0, 0 }, { 0.2f, 0, 0 }, { -0.4f, 0, 0 }, { 0.3f, 0, 0 }, { 2, 0, 0 },
    };
    const shape *s = &shapes[3];
    parts p;
    tables t;
    make_parts(&p, s);
    wf_grid g = wf_image_grid(s->n, s->h, s->w);
    make_tables(&t, p.taps * p.in, s->h, s->w);
    for (size_t i = 0; i < p.taps * p.in; i++) t.memory[0][i] = 1;
    for (int32_t i = 0; i < s->h * s->w; i++) t.memory[2][i] = 1;
    wf_delta delta = { &p.stack, 1, NULL, NULL, 0, NULL, 0 };
    float *x = bench_floats(wf_rows(g) * p.in, 10), *y[2];
    size_t n = wf_rows(g) * p.out;
    double *want = malloc(n * sizeof *want);
    for (int dressed = 0; dressed < 2; dressed++) {
        const wf_kernels *kernels[2];
        wf_cell row[SLOTS];
        workbench w;
        memcpy(row, plain, sizeof row);
        for (int i = 1; i < SLOTS && dressed; i++) row[i].vector = row[i].mask = 1;
        y[dressed] = bench_floats(n, 1);
        bench_open(&w, kernels[bench_tables(kernels) - 1], 2);
        bench_tell(&w, &delta, &t, NULL);
        w.e.cells = row;
        wf_layer_apply(&w.e, &p.l, NULL, NULL, g, false);
        bench_real(&w);
        wf_layer_apply(&w.e, &p.l, y[dressed], x, g, false);
        bench_close(&w);
    }
    for (size_t i = 0; i < n; i++) want[i] = y[0][i];
    close_to("ones", y[1], want, n, 2e-6);
    free(x), free(want), free(y[0]), free(y[1]);
    free_parts(&p);
    free_tables(&t);
}
END_TEST

/* A mask that lacks the layer's size stops the network, with nothing computed. */
START_TEST(a_mask_of_another_size_stops)
{
    const shape *s = &shapes[0];
    static const int32_t masked[3] = { 1, 1, 1 };
    const wf_kernels *kernels[2];
    parts p;
    tables t;
    workbench w;
    make_parts(&p, s);
    make_tables(&t, p.in, s->h + 1, s->w);
    wf_delta delta = { &p.stack, 1, NULL, NULL, 0, NULL, 0 };
    wf_grid g = wf_image_grid(s->n, s->h, s->w);
    float *x = bench_floats(wf_rows(g) * p.in, 1), *y = bench_floats(wf_rows(g) * p.out, 2);
    float *before = bench_floats(wf_rows(g) * p.out, 2);
    bench_open(&w, kernels[bench_tables(kernels) - 1], 1);
    bench_tell(&w, &delta, &t, masked);
    wf_layer_apply(&w.e, &p.l, NULL, NULL, g, false);
    bench_real(&w);
    wf_layer_apply(&w.e, &p.l, y, x, g, false);
    ck_assert(w.e.stopped && w.e.arena.overflow);
    ck_assert(memcmp(y, before, wf_rows(g) * p.out * sizeof *y) == 0);
    w.e.arena.overflow = false;
    w.e.arena.peak = w.peak;
    bench_close(&w);
    free(x), free(y), free(before);
    free_parts(&p);
    free_tables(&t);
}
END_TEST

/* ---- norms ----------------------------------------------------------------------------------- */

/* Statistics over all rows; weight + c v d and bias + c db of each row. */
START_TEST(a_norm_takes_vectors_and_masks)
{
    enum { C = 12, N = 4, H = 9, W = 8 };
    static const int32_t branch[N] = { 1, 0, 3, 2 }, none[PARTS] = { 0 };
    float *weight = bench_floats(C, 1), *bias = bench_floats(C, 2);
    float *x = bench_floats(N * H * W * C, 3);
    float *d0 = bench_floats(C, 4), *d3 = bench_floats(C, 5), *b3 = bench_floats(C, 6),
        *b4 = bench_floats(C, 7);
    wf_nonpair nonpair[PARTS] = { { .dense = d0 }, { 0 }, { 0 }, { .dense = d3, .bias = b3 },
                              { .bias = b4 } };
    wf_stack stack = { PARTS, 0, none, part_scale, NULL, NULL, nonpair };
    wf_delta delta = { &stack, 1, NULL, NULL, 0, NULL, 0 };
    wf_layer row = { .name = "unet.norm", .kind = WEFT_LAYER_NORM, .out = C, .in = 1, .kernel = 1,
                     .stride = 1 };
    double *want = malloc(N * H * W * C * sizeof *want);
    tables t;
    make_tables(&t, C, H, W);
    for (int group = 0; group < 2; group++)
        for (wf_domain domain = WF_DOMAIN_IMAGE; domain <= WF_DOMAIN_TEXT; domain++) {
            wf_grid g = { N, H, W, domain };
            wf_norm norm = { weight, bias, C, group ? 4 : 0, 1e-5f, &row };
            const wf_kernels *kernels[2];
            size_t width = group ? C / 4 : C, span = group ? H * W : 1;
            float *y[2];
            for (size_t n = 0; n < N; n++)
                for (size_t r = 0; r < H * W; r++)
                    for (size_t i = 0; i < C; i++) {
                        double sum = 0, square = 0, m = (double)(span * width), w = weight[i],
                            b = bias[i];
                        size_t from = group ? 0 : r;
                        for (size_t k = from; k < from + span; k++)
                            for (size_t c = i / width * width; c < (i / width + 1) * width; c++) {
                                double v = x[(n * H * W + k) * C + c];
                                sum += v;
                                square += v * v;
                            }
                        for (int p = 0; p < PARTS; p++) {
                            const wf_cell *cell = cells + branch[n] * SLOTS + 1 + p;
                            double f = at_row(cell, &t, g, r);
                            double v = cell->vector != 0 ? t.vectors[cell->vector - 1][i] : 1;
                            if (nonpair[p].dense != NULL) w += f * v * nonpair[p].dense[i];
                            if (nonpair[p].bias != NULL) b += f * nonpair[p].bias[i];
                        }
                        double mean = sum / m, at = x[(n * H * W + r) * C + i];
                        double z = (at - mean) / sqrt(square / m - mean * mean + 1e-5f) * w + b;
                        want[(n * H * W + r) * C + i] = group ? z / (1 + exp(-z)) : z;
                    }
            for (int32_t threads = 1; threads <= 3; threads += 2) {
                workbench w;
                float *out = y[threads / 2] = bench_floats(N * H * W * C, 0);
                bench_open(&w, kernels[bench_tables(kernels) - 1], threads);
                bench_tell(&w, &delta, &t, branch);
                for (int dry = 1; dry >= 0; dry--) {
                    if (!dry) bench_real(&w);
                    if (group) wf_group_norm(&w.e, &norm, dry ? NULL : out, dry ? NULL : x, g,
                                             WF_ACT_SILU);
                    else wf_layer_norm(&w.e, &norm, dry ? NULL : out, dry ? NULL : x, g);
                }
                bench_close(&w);
            }
            close_to(group ? "group norm" : "layer norm", y[0], want, N * H * W * C, 4e-6);
            ck_assert(memcmp(y[0], y[1], N * H * W * C * sizeof **y) == 0);
            free(y[0]), free(y[1]);
        }
    free_tables(&t);
    free(weight), free(bias), free(x), free(d0), free(d3), free(b3), free(b4), free(want);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("cells");
    TCase *c = tcase_create("nets");
    tcase_set_timeout(c, 300);
    tcase_add_loop_test(c, a_layer_takes_vectors_and_masks, 0, (int)WF_LEN(shapes));
    tcase_add_test(c, ones_change_nothing);
    tcase_add_test(c, a_mask_of_another_size_stops);
    tcase_add_test(c, a_norm_takes_vectors_and_masks);
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    return bench_every_tier(suite) != 0;
}
