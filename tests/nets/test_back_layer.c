/* The way back of a layer against naive sums in double: the loss is the sum of y times given numbers, so its gradients
 * are those of a linear map. Everything runs in memory of exactly the size that a dry walk asked for, filled with
 * not-a-numbers; afterwards all gradients of the arena but those of the inputs are zero again; and one, two and three
 * threads give the same bits. */
#include "nets/tape.h"
#include "nets/turn.h"
#include "nets/workbench.h"
#include "weft/model.h"

static const wf_kernels *tables[2];
static size_t            table_count;

typedef struct shape { int32_t in, out, kernel, stride; bool asymmetric; int32_t n, h, w; } shape;

static const shape shapes[] = {
    { 1, 1, 1, 1, false, 1, 1, 1 },       { 5, 319, 1, 1, false, 1, 255, 1 },  { 97, 161, 1, 1, false, 2, 129, 1 },
    { 128, 321, 1, 1, false, 1, 257, 1 }, { 1153, 3, 1, 1, false, 3, 7, 1 },   { 127, 2, 3, 1, false, 1, 5, 3 },
    { 128, 130, 3, 1, false, 2, 5, 6 },   { 3, 5, 3, 1, false, 1, 16, 16 },    { 49, 17, 3, 1, false, 2, 13, 11 },
    { 3, 31, 3, 2, false, 2, 7, 8 },      { 4, 5, 3, 2, false, 1, 1, 1 },      { 5, 2, 3, 2, true, 1, 6, 6 },
    { 3, 4, 3, 2, true, 2, 7, 8 },        { 6, 7, 1, 2, false, 2, 5, 4 },      { 2, 3, 3, 2, true, 1, 1, 3 },
    { 130, 129, 3, 2, false, 1, 9, 8 },   { 2, 3, 5, 1, false, 1, 4, 7 },      { 3, 2, 5, 2, false, 2, 9, 6 },
};

static const wf_dtype types[] = { WF_F32, WF_F16, WF_BF16, WF_F64 };

/* What is in play besides the frozen weight. */
typedef struct way {
    bool pairs, up, down; /* pairs, and which of their gradients are asked for */
    bool merged, bias, each, add, turned, input;
} way;

static const way ways[] = {
    { .input = true },
    { .input = true, .turned = true, .add = true },
    { .pairs = true, .up = true, .down = true, .input = true },
    { .pairs = true, .up = true, .down = true, .turned = true, .each = true, .input = true },
    { .pairs = true, .up = true, .down = true, .add = true },
    { .pairs = true, .up = true, .input = true },
    { .pairs = true, .input = true, .turned = true, .add = true },
    { .merged = true, .bias = true, .input = true },
    { .merged = true, .turned = true, .each = true, .input = true },
    { .merged = true },
};

enum { PARTS = 3, RANK = 21, BRANCHES = 2 }; /* more ranks than are read where they lie */
static const int32_t part_rank[PARTS] = { 4, 16, 1 };
static const float   part_scale[PARTS] = { 0.5f, 1.0f, -2.0f };
static const wf_cell cells[BRANCHES * (PARTS + 1)] = {
    { 9, 0, 0 }, { 0.7f, 0, 0 }, { -1.5f, 0, 0 }, { 0.25f, 0, 0 },
    { 9, 0, 0 }, { 0, 0, 0 },    { 0.3f, 0, 0 },  { 0, 0, 0 },
};
static const int32_t branch[4] = { 1, 0, 1, 0 };

/* Numbers of one case, and the gradients: as computed, or as they should be. */
typedef struct numbers { float *weight, *merged, *x, *gy, *down, *up, *more, *bias; } numbers;
typedef struct grads { double *x, *down, *up, *weight, *bias, *more; } grads;
typedef struct sizes { size_t x, y, down, up, weight, bias, more; } sizes;

static wf_layer make_layer(const shape *s, const void *weight, wf_dtype type, const float *bias)
{
    return (wf_layer){ .name = "unet.layer", .weight = weight, .bias = bias, .dtype = type,
                       .kind = s->kernel == 1 ? WEFT_LAYER_LINEAR : WEFT_LAYER_CONV, .out = s->out, .in = s->in,
                       .kernel = s->kernel, .stride = s->stride, .pad = s->asymmetric ? 0 : s->kernel / 2,
                       .asymmetric = s->asymmetric };
}

static sizes sizes_of(const shape *s, wf_grid g, wf_grid out)
{
    size_t K = (size_t)(s->kernel * s->kernel * s->in), outs = (size_t)s->out;
    return (sizes){ wf_rows(g) * (size_t)s->in, wf_rows(out) * outs, RANK * K, RANK * outs, K * outs, outs,
                    (size_t)s->n * outs };
}

/* ---- as it should be ------------------------------------------------------------------------- */

static double coefficient(int32_t sample, int32_t rank)
{
    int32_t p = 0, end = part_rank[0];
    while (rank >= end) end += part_rank[++p];
    return (double)cells[branch[sample] * (PARTS + 1) + 1 + p].number * part_scale[p];
}

static double *zeros(size_t n)
{
    double *p = calloc(n, sizeof *p);
    ck_assert_ptr_nonnull(p);
    return p;
}

/* One row of y with its neighbourhood of K numbers: index of each in x, or -1 outside of the image. */
static void row_grads(const shape *s, const way *v, const numbers *d, const grads *want, int32_t sample,
                      const float *gy, const int64_t *at, size_t K)
{
    for (size_t o = 0; o < (size_t)s->out; o++) {
        want->bias[o] += gy[o];
        want->more[(size_t)sample * (size_t)s->out + o] += gy[o];
        const float *w = (v->merged ? d->merged : d->weight) + o * K;
        for (size_t k = 0; k < K; k++) {
            if (at[k] < 0) continue;
            want->weight[o * K + k] += (double)gy[o] * d->x[at[k]];
            want->x[at[k]] += (double)gy[o] * w[k];
        }
    }
    for (size_t r = 0; r < RANK && v->pairs; r++) {
        double c = coefficient(sample, (int32_t)r), h = 0, gh = 0;
        for (size_t k = 0; k < K; k++) h += at[k] < 0 ? 0 : c * d->down[r * K + k] * d->x[at[k]];
        for (size_t o = 0; o < (size_t)s->out; o++) {
            want->up[r * (size_t)s->out + o] += h * gy[o];
            gh += c * d->up[r * (size_t)s->out + o] * gy[o];
        }
        for (size_t k = 0; k < K; k++) {
            if (at[k] < 0) continue;
            want->down[r * K + k] += gh * d->x[at[k]];
            want->x[at[k]] += gh * d->down[r * K + k];
        }
    }
}

static void naive(const shape *s, const way *v, const numbers *d, const grads *want, wf_grid out)
{
    int32_t pad = s->asymmetric ? 0 : s->kernel / 2;
    size_t K = (size_t)(s->kernel * s->kernel * s->in);
    int64_t *at = malloc(K * sizeof *at);
    const float *gy = d->gy;

    for (int32_t n = 0; n < s->n; n++)
        for (int32_t oy = 0; oy < out.h; oy++)
            for (int32_t ox = 0; ox < out.w; ox++, gy += s->out) {
                size_t k = 0;
                for (int32_t q = 0; q < s->kernel * s->kernel; q++) {
                    int32_t y = oy * s->stride + q / s->kernel - pad, x = ox * s->stride + q % s->kernel - pad;
                    bool in = y >= 0 && y < s->h && x >= 0 && x < s->w;
                    for (int32_t i = 0; i < s->in; i++)
                        at[k++] = in ? (((int64_t)n * s->h + y) * s->w + x) * s->in + i : -1;
                }
                row_grads(s, v, d, want, n, gy, at, K);
            }
    free(at);
}

/* ---- as it is -------------------------------------------------------------------------------- */

typedef struct result { float *x, *down, *up, *weight, *bias, *more; } result;

static float *none(size_t n) { return calloc(n + 1, sizeof(float)); }

/* Both walks: takes what a network would have taken, and applies. */
static void walk(wf_exec *e, const wf_layer *l, const way *v, wf_grid g, const sizes *z, float **x, float **more,
                 float **y, const numbers *d)
{
    wf_tape_begin(e);
    *x = wf_take(e, z->x, 1);
    *more = v->each ? wf_take(e, z->more, 1) : NULL;
    *y = wf_take(e, z->y, 1);
    if (d != NULL) {
        memcpy(*x, d->x, z->x * sizeof **x);
        memset(*y, 0, z->y * sizeof **y);
        wf_track(e, *x, false, v->input);
        wf_track(e, *y, false, v->add && v->turned);
        if (v->each) memcpy(*more, d->more, z->more * sizeof **more);
        if (v->each) wf_track(e, *more, false, true);
    }
    if (v->each) wf_layer_apply_to_each(e, l, *y, *x, g, *more);
    else wf_layer_apply(e, l, *y, *x, g, v->add);
}

static bool all_zero(const float *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != 0.0f) return false;
    return true;
}

static result run_case(const wf_kernels *k, const wf_layer *l, const way *v, wf_grid g, const sizes *z,
                       const numbers *d, int32_t threads)
{
    workbench w;
    wf_tape tape;
    wf_exec *e = &w.e;
    float *x, *more, *y;
    wf_stack stack = { PARTS, RANK, part_rank, part_scale, d->down, d->up, NULL };
    wf_delta delta = { v->pairs ? &stack : NULL, 1, v->merged ? d->merged : NULL, v->merged ? d->bias : NULL, 0, NULL,
                       0 };
    result r = { none(z->x), none(z->down), none(z->up), none(z->weight), none(z->bias), none(z->more) };
    wf_layer_grads trained = { v->down ? r.down : NULL, v->up ? r.up : NULL, v->merged ? r.weight : NULL,
                               v->bias ? r.bias : NULL };

    bench_open(&w, k, threads);
    wf_tape_init(&tape, &w.alloc);
    e->tape = &tape;
    e->deltas = &delta;
    e->cells = cells;
    e->slots = PARTS + 1;
    e->branch = branch;
    tape.layers = &trained;
    uint8_t *turned = malloc(wf_turned_bytes(l) + 1);
    wf_turn_weight(turned + 1, l, e->pool);
    const void *at = v->turned ? turned + 1 : NULL;
    tape.turned = &at;

    walk(e, l, v, g, z, &x, &more, &y, NULL);
    size_t bytes = wf_tape_bytes(e);
    e->arena.held = false, e->arena.used = 0, e->arena.peak = bytes;
    bench_real(&w);
    tape.grads = wf_zalloc(&w.alloc, bytes, 1);
    walk(e, l, v, g, z, &x, &more, &y, d);
    size_t used = e->arena.used / sizeof(float);
    ck_assert(!e->stopped);
    float *gx = wf_grad(e, x), *gy = wf_grad(e, y), *gmore = wf_grad(e, more);
    ck_assert((gx != NULL) == v->input && (gmore != NULL) == v->each);
    if (gy != NULL) memcpy(gy, d->gy, z->y * sizeof *y);
    else ck_assert(!v->input && !v->each && trained.down == NULL && trained.up == NULL && trained.weight == NULL);
    wf_tape_back(e);
    ck_assert(!e->stopped && !tape.failed && !tape.unsupported && tape.count == 0);
    if (v->input) {
        memcpy(r.x, gx, z->x * sizeof *x);
        memset(gx, 0, z->x * sizeof *x);
    }
    if (v->each) {
        memcpy(r.more, gmore, z->more * sizeof *x);
        memset(gmore, 0, z->more * sizeof *x);
    }
    if (v->add && v->turned) { /* what was there before has the same gradient, if it is wanted */
        ck_assert(memcmp(gy, d->gy, z->y * sizeof *y) == 0);
        memset(gy, 0, z->y * sizeof *y);
    }
    ck_assert_msg(all_zero(tape.grads, used), "gradients are left");
    ck_assert_uint_le(e->arena.peak, bytes);
    e->arena.used = 0, e->arena.peak = w.peak; /* an upper bound; what is too little overflows */
    bench_close(&w);
    wf_free(&w.alloc, tape.grads);
    wf_tape_free(&tape);
    free(turned);
    return r;
}

static void close_to(const char *what, const char *which, const float *got, const double *want, size_t n, bool asked)
{
    double top = 0.1, worst = 0;
    if (!asked) {
        ck_assert_msg(all_zero(got, n), "%s: %s was not asked for", what, which);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        double d = fabs(got[i] - want[i]);
        top = fmax(top, fabs(want[i]));
        if (!(d <= worst)) worst = d;
    }
    ck_assert_msg(worst <= 5e-6 * top, "%s: %s is off by %g of %g", what, which, worst, top);
}

static void try_way(const shape *s, const wf_kernels *k, wf_dtype type, const way *v)
{
    size_t K = (size_t)(s->kernel * s->kernel * s->in), taps = (size_t)(s->kernel * s->kernel), ins = (size_t)s->in;
    wf_grid g = wf_image_grid(s->n, s->h, s->w);
    wf_layer l = make_layer(s, NULL, type, NULL);
    wf_grid out = wf_layer_grid(&l, g);
    sizes z = sizes_of(s, g, out);
    numbers d = { malloc(z.weight * 4), bench_floats(z.weight, 2), bench_floats(z.x, 3), bench_floats(z.y, 4),
                  bench_floats(z.down, 5), bench_floats(z.up, 6), bench_floats(z.more, 7), bench_floats(z.bias, 8) };
    grads want = { zeros(z.x), zeros(z.down), zeros(z.up), zeros(z.weight), zeros(z.bias), zeros(z.more) };

    /* the weight as a file has it, one byte off alignment, and in the order of the naive sums */
    float *file = bench_floats(z.weight, 1);
    uint8_t *bytes = malloc(z.weight * 8 + 1);
    if (type == WF_F64)
        for (size_t i = 0; i < z.weight; i++) memcpy(bytes + 1 + 8 * i, &(double){ file[i] }, 8);
    else ck_assert(wf_narrow(bytes + 1, type, file, z.weight));
    wf_widen_any(file, bytes + 1, type, z.weight);
    for (size_t o = 0; o < (size_t)s->out; o++)
        for (size_t i = 0; i < ins; i++)
            for (size_t q = 0; q < taps; q++) d.weight[o * K + q * ins + i] = file[(o * ins + i) * taps + q];
    l.weight = bytes + 1;

    char what[160];
    snprintf(what, sizeof what, "%s %s (%d -> %d, kernel %d, stride %d, %d x %d x %d)%s way %d", k->name,
             wf_dtype_name(type), s->in, s->out, s->kernel, s->stride, s->n, s->h, s->w,
             s->asymmetric ? " asymmetric" : "", (int)(v - ways));
    naive(s, v, &d, &want, out);
    result r = run_case(k, &l, v, g, &z, &d, 1);
    close_to(what, "x", r.x, want.x, z.x, v->input);
    close_to(what, "down", r.down, want.down, z.down, v->down);
    close_to(what, "up", r.up, want.up, z.up, v->up);
    close_to(what, "weight", r.weight, want.weight, z.weight, v->merged);
    close_to(what, "bias", r.bias, want.bias, z.bias, v->bias);
    close_to(what, "more", r.more, want.more, z.more, v->each);
    for (int32_t threads = 2; threads <= 3; threads++) {
        result again = run_case(k, &l, v, g, &z, &d, threads);
        float *one[] = { r.x, r.down, r.up, r.weight, r.bias, r.more };
        float *two[] = { again.x, again.down, again.up, again.weight, again.bias, again.more };
        size_t n[] = { z.x, z.down, z.up, z.weight, z.bias, z.more };
        for (size_t i = 0; i < WF_LEN(one); i++) {
            ck_assert_msg(memcmp(one[i], two[i], n[i] * 4) == 0, "%s: other bits with %d threads", what, threads);
            free(two[i]);
        }
    }
    free(r.x), free(r.down), free(r.up), free(r.weight), free(r.bias), free(r.more);
    free(want.x), free(want.down), free(want.up), free(want.weight), free(want.bias), free(want.more);
    free(d.weight), free(d.merged), free(d.x), free(d.gy), free(d.down), free(d.up), free(d.more), free(d.bias);
    free(file), free(bytes);
}

START_TEST(gradients_are_naive_sums)
{
    const shape *s = &shapes[_i / (int)WF_LEN(ways)];
    const way *v = &ways[_i % (int)WF_LEN(ways)];
    try_way(s, tables[table_count - 1], types[_i % 4], v);
}
END_TEST

/* ---- refused --------------------------------------------------------------------------------- */

/* y = 3 x with a part beside it, which has no way back: a matrix, or a pair with a vector. */
static bool refused(bool matrix, wf_cell cell, bool wanted)
{
    static const float weight[] = { 3 }, one[] = { 1 };
    static const int32_t rank[] = { 0, 1 };
    static const float scale[] = { 1 };
    const float *vectors[] = { one };
    wf_layer l = { .name = "l", .weight = weight, .dtype = WF_F32, .out = 1, .in = 1, .kernel = 1, .stride = 1 };
    wf_nonpair dense = { .dense = one };
    wf_stack stack = { 1, !matrix, rank + !matrix, scale, one, one, matrix ? &dense : NULL };
    wf_delta delta = { &stack, 0, NULL, NULL, 0, NULL, 0 };
    wf_tape tape;
    workbench w;
    float *x, *y;

    bench_open(&w, tables[0], 1);
    wf_tape_init(&tape, &w.alloc);
    w.e.tape = &tape;
    w.e.deltas = &delta;
    w.e.cells = &cell;
    w.e.slots = 1;
    w.e.vectors = vectors;
    for (int real = 0; real < 2; real++) {
        if (real) {
            size_t bytes = wf_tape_bytes(&w.e);
            w.e.arena.held = false, w.e.arena.used = 0, w.e.arena.peak = bytes;
            bench_real(&w);
            tape.grads = wf_zalloc(&w.alloc, bytes, 1);
        }
        wf_tape_begin(&w.e);
        x = wf_take(&w.e, 1, 1);
        y = wf_take(&w.e, 1, 1);
        if (real) x[0] = 2, wf_track(&w.e, x, false, wanted);
        wf_layer_apply(&w.e, &l, y, x, wf_vector_grid(1), false);
    }
    bool refused = tape.unsupported;
    ck_assert(refused == w.e.stopped);
    w.e.arena.used = 0, w.e.arena.peak = w.peak;
    bench_close(&w);
    wf_free(&w.alloc, tape.grads);
    wf_tape_free(&tape);
    return refused;
}

START_TEST(what_has_no_way_back_stops)
{
    ck_assert(refused(true, (wf_cell){ 1, 0, 0 }, true));
    ck_assert(refused(false, (wf_cell){ 1, 1, 0 }, true));
    ck_assert(!refused(false, (wf_cell){ 1, 0, 0 }, true));
    /* without a coefficient it is not there, and where nothing is wanted nothing goes back */
    ck_assert(!refused(true, (wf_cell){ 0, 0, 0 }, true));
    ck_assert(!refused(true, (wf_cell){ 1, 0, 0 }, false));
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("the way back of layers");
    TCase *c = tcase_create("layer");
    tcase_set_timeout(c, 240);
    tcase_add_loop_test(c, gradients_are_naive_sums, 0, (int)(WF_LEN(shapes) * WF_LEN(ways)));
    tcase_add_test(c, what_has_no_way_back_stops);
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    table_count = bench_tables(tables);
    return bench_every_tier(suite) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
