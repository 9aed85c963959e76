/* ops.c - what happens between the matrix products: norms, activations, moving rows about.
 *
 * All of it is memory traffic, so each is one pass over the rows, cut into tiles of rows for the workers.
 * Sums that a norm needs are kept in double, per tile, and added up in the tiles' order. */
#include <math.h>

#include "nets/exec.h"

enum { TILE = 64 }; /* rows of a task */

typedef struct op {
    wf_exec       *e;
    const wf_norm *norm;
    const float   *weight; /* of the norm, for the first sample; `stride` further for the next */
    const float   *bias;
    size_t         stride;
    float         *y;
    const float   *x;
    const float   *z;
    double        *sums; /* (tiles, 2, channels): sums and sums of squares     */
    float         *a;    /* (n, channels): the norm as y = a x + b             */
    float         *b;
    wf_grid        g;
    wf_grid        from;
    size_t         rows; /* of one sample for norms, of all for the others     */
    size_t         tiles;
    size_t         c;
    size_t         c2;
    wf_act         act;
} op;

static void run(op *o, size_t tasks, wf_task task)
{
    if (!o->e->dry && !o->e->stopped) wf_pool_run(o->e->pool, tasks, task, o);
}

static size_t tiles_of(size_t rows) { return (rows + TILE - 1) / TILE; }

bool wf_act_from_name(const char *name, wf_act *out)
{
    static const struct { const char *name; wf_act act; } table[] = {
        { "silu", WF_ACT_SILU }, { "swish", WF_ACT_SILU }, { "gelu", WF_ACT_GELU },
        { "quick_gelu", WF_ACT_QUICK_GELU }, { "relu", WF_ACT_RELU },
    };
    for (size_t i = 0; i < WF_LEN(table); i++)
        if (strcmp(name, table[i].name) == 0) {
            *out = table[i].act;
            return true;
        }
    return false;
}

static void activate(const wf_kernels *k, wf_act act, float *y, const float *x, size_t n)
{
    switch (act) {
    case WF_ACT_SILU: k->silu(y, x, n); break;
    case WF_ACT_GELU: k->gelu(y, x, n); break;
    case WF_ACT_QUICK_GELU: k->quick_gelu(y, x, n); break;
    case WF_ACT_RELU:
        for (size_t i = 0; i < n; i++) y[i] = x[i] > 0 ? x[i] : 0;
        break;
    default:
        if (y != x) memcpy(y, x, n * sizeof *y);
        break;
    }
}

/* ---- norms: their weight and bias are the layer's, or in branches where adapters change them each sample's own ---- */

/* to = base + sum over parts of c_p d_p, with d the weight's differences or the bias's. */
static void sum_parts(const wf_exec *e, const wf_delta *d, size_t branch, bool bias, float *to, const float *base, size_t c)
{
    memcpy(to, base, c * sizeof *to);
    for (int32_t p = 0; p < d->stack->parts; p++) {
        const wf_other *x = &d->stack->other[p];
        const float *add = bias ? x->bias : x->dense;
        float cell = wf_delta_cell(e, d, branch, p);
        for (size_t i = 0; i < c && add != NULL && cell != 0.0f; i++) to[i] += cell * add[i];
    }
}

static void take_weights(op *o, size_t n)
{
    wf_exec *e = o->e;
    const wf_layer *l = o->norm->layer;
    const wf_delta *d = e->deltas != NULL && l != NULL ? &e->deltas[l->id] : NULL;

    o->weight = o->norm->weight;
    o->bias = o->norm->bias;
    if (d == NULL || d->stack == NULL || d->stack->other == NULL) return;
    float *own = wf_take(e, n, 2 * o->c);
    if (e->dry || e->stopped) return;
    for (size_t s = 0; s < n; s++) {
        size_t branch = e->branch != NULL ? (size_t)e->branch[s] : 0;
        sum_parts(e, d, branch, false, own + s * 2 * o->c, o->weight, o->c);
        sum_parts(e, d, branch, true, own + s * 2 * o->c + o->c, o->bias, o->c);
    }
    o->weight = own;
    o->bias = own + o->c;
    o->stride = 2 * o->c;
}

/* ---- GroupNorm: sums of each tile, then a and b of each sample, then one pass y = act(a x + b) ---- */

static void sum_task(void *user, size_t task, int32_t worker)
{
    op *o = user;
    size_t row = task % o->tiles * TILE, last = WF_MIN(row + TILE, o->rows);
    double *sum = o->sums + task * 2 * o->c, *square = sum + o->c;
    (void)worker;
    memset(sum, 0, 2 * o->c * sizeof *sum);
    for (; row < last; row++) {
        const float *x = o->x + (task / o->tiles * o->rows + row) * o->c;
        for (size_t i = 0; i < o->c; i++) {
            double v = x[i];
            sum[i] += v;
            square[i] += v * v;
        }
    }
}

static void moments_task(void *user, size_t sample, int32_t worker)
{
    op *o = user;
    size_t width = o->c / (size_t)o->norm->groups;
    const float *weight = o->weight + sample * o->stride, *bias = o->bias + sample * o->stride;
    (void)worker;
    for (size_t first = 0; first < o->c; first += width) {
        double sum = 0, square = 0, n = (double)o->rows * (double)width;
        for (size_t t = 0; t < o->tiles; t++) {
            const double *s = o->sums + (sample * o->tiles + t) * 2 * o->c;
            for (size_t i = first; i < first + width; i++) {
                sum += s[i];
                square += s[o->c + i];
            }
        }
        double mean = sum / n, variance = square / n - mean * mean;
        double inverse = 1.0 / sqrt(WF_MAX(variance, 0.0) + o->norm->eps);
        for (size_t i = first; i < first + width; i++) {
            o->a[sample * o->c + i] = (float)(inverse * weight[i]);
            o->b[sample * o->c + i] = (float)(bias[i] - mean * inverse * weight[i]);
        }
    }
}

static void affine_task(void *user, size_t task, int32_t worker)
{
    op *o = user;
    size_t sample = task / o->tiles, row = task % o->tiles * TILE, last = WF_MIN(row + TILE, o->rows);
    (void)worker;
    for (; row < last; row++) {
        size_t at = (sample * o->rows + row) * o->c;
        o->e->k->affine(o->y + at, o->x + at, o->a + sample * o->c, o->b + sample * o->c, o->c);
        if (o->act != WF_ACT_NONE) activate(o->e->k, o->act, o->y + at, o->y + at, o->c);
    }
}

void wf_group_norm(wf_exec *e, const wf_norm *norm, float *y, const float *x, wf_grid g, wf_act act)
{
    op o = { .e = e, .norm = norm, .y = y, .x = x, .g = g, .act = act, .c = (size_t)norm->channels };
    size_t n = (size_t)g.n, mark = wf_arena_mark(&e->arena);
    o.rows = (size_t)g.h * (size_t)g.w;
    o.tiles = tiles_of(o.rows);
    o.sums = wf_arena_take(&e->arena, n * o.tiles, 2 * o.c * sizeof *o.sums);
    o.a = wf_take(e, n, o.c);
    o.b = wf_take(e, n, o.c);
    take_weights(&o, n);
    run(&o, n * o.tiles, sum_task);
    run(&o, n, moments_task);
    run(&o, n * o.tiles, affine_task);
    wf_arena_release(&e->arena, mark);
}

/* ---- the rest: each a pass over tiles of rows ----------------------------------------------------- */

static void layer_norm_task(void *user, size_t task, int32_t worker)
{
    op *o = user;
    (void)worker;
    for (size_t row = task * TILE; row < WF_MIN((task + 1) * TILE, o->rows); row++) {
        size_t at = row / o->c2 * o->stride; /* of the row's sample */
        o->e->k->layer_norm(o->y + row * o->c, o->x + row * o->c, o->weight + at, o->bias + at, o->norm->eps, o->c);
    }
}

void wf_layer_norm(wf_exec *e, const wf_norm *norm, float *y, const float *x, wf_grid g)
{
    op o = { .e = e, .norm = norm, .y = y, .x = x, .rows = wf_rows(g), .c = (size_t)norm->channels };
    size_t mark = wf_arena_mark(&e->arena);
    o.c2 = (size_t)g.h * (size_t)g.w;
    take_weights(&o, (size_t)g.n);
    run(&o, tiles_of(o.rows), layer_norm_task);
    wf_arena_release(&e->arena, mark);
}

static void act_task(void *user, size_t task, int32_t worker)
{
    op *o = user;
    size_t row = task * TILE, rows = WF_MIN((size_t)TILE, o->rows - row);
    (void)worker;
    activate(o->e->k, o->act, o->y + row * o->c, o->x + row * o->c, rows * o->c);
}

void wf_activate(wf_exec *e, wf_act act, float *y, const float *x, size_t rows, size_t columns)
{
    op o = { .e = e, .y = y, .x = x, .rows = rows, .c = columns, .act = act };
    run(&o, tiles_of(rows), act_task);
}

static void geglu_task(void *user, size_t task, int32_t worker)
{
    op *o = user;
    (void)worker;
    for (size_t row = task * TILE; row < WF_MIN((task + 1) * TILE, o->rows); row++)
        o->e->k->geglu(o->y + row * o->c, o->x + row * 2 * o->c, o->x + row * 2 * o->c + o->c, o->c);
}

void wf_geglu(wf_exec *e, float *y, const float *x, size_t rows, size_t c)
{
    op o = { .e = e, .y = y, .x = x, .rows = rows, .c = c };
    run(&o, tiles_of(rows), geglu_task);
}

static void per_sample_task(void *user, size_t task, int32_t worker)
{
    op *o = user;
    (void)worker;
    for (size_t row = task * TILE; row < WF_MIN((task + 1) * TILE, o->rows); row++)
        o->e->k->add(o->y + row * o->c, o->x + row / o->c2 * o->c, o->c);
}

void wf_add_per_sample(wf_exec *e, float *x, const float *v, wf_grid g, size_t c)
{
    op o = { .e = e, .y = x, .x = v, .rows = wf_rows(g), .c = c, .c2 = (size_t)g.h * (size_t)g.w };
    run(&o, tiles_of(o.rows), per_sample_task);
}

static void concat_task(void *user, size_t task, int32_t worker)
{
    op *o = user;
    (void)worker;
    for (size_t row = task * TILE; row < WF_MIN((task + 1) * TILE, o->rows); row++) {
        float *y = o->y + row * (o->c + o->c2);
        memcpy(y, o->x + row * o->c, o->c * sizeof *y);
        memcpy(y + o->c, o->z + row * o->c2, o->c2 * sizeof *y);
    }
}

void wf_concat(wf_exec *e, float *y, const float *p, size_t a, const float *q, size_t b, size_t rows)
{
    op o = { .e = e, .y = y, .x = p, .z = q, .rows = rows, .c = a, .c2 = b };
    run(&o, tiles_of(rows), concat_task);
}

static void upsample_task(void *user, size_t task, int32_t worker)
{
    op *o = user;
    size_t h = (size_t)o->g.h, w = (size_t)o->g.w;
    (void)worker;
    for (size_t row = task * TILE; row < WF_MIN((task + 1) * TILE, o->rows); row++) {
        size_t n = row / (h * w), y = row / w % h, x = row % w;
        size_t sy = y * (size_t)o->from.h / h, sx = x * (size_t)o->from.w / w;
        memcpy(o->y + row * o->c, o->x + ((n * (size_t)o->from.h + sy) * (size_t)o->from.w + sx) * o->c,
               o->c * sizeof(float));
    }
}

void wf_upsample(wf_exec *e, float *y, wf_grid to, const float *x, wf_grid from, size_t c)
{
    op o = { .e = e, .y = y, .x = x, .g = to, .from = from, .rows = wf_rows(to), .c = c };
    run(&o, tiles_of(o.rows), upsample_task);
}

void wf_copy(wf_exec *e, float *y, const float *x, size_t n)
{
    if (!e->dry && !e->stopped && y != x) memcpy(y, x, n * sizeof *y);
}

void wf_to_rows(wf_exec *e, float *y, const float *x, wf_grid g, size_t c)
{
    size_t plane = (size_t)g.h * (size_t)g.w;
    if (e->dry || e->stopped) return;
    for (size_t n = 0; n < (size_t)g.n; n++)
        for (size_t p = 0; p < plane; p++)
            for (size_t i = 0; i < c; i++) y[(n * plane + p) * c + i] = x[(n * c + i) * plane + p];
}

void wf_from_rows(wf_exec *e, float *y, const float *x, wf_grid g, size_t c)
{
    size_t plane = (size_t)g.h * (size_t)g.w;
    if (e->dry || e->stopped) return;
    for (size_t n = 0; n < (size_t)g.n; n++)
        for (size_t i = 0; i < c; i++)
            for (size_t p = 0; p < plane; p++) y[(n * c + i) * plane + p] = x[(n * plane + p) * c + i];
}

void wf_sinusoid(wf_exec *e, float *y, const float *t, size_t count, int32_t dim, bool flip, double shift)
{
    int32_t half = dim / 2;
    if (e->dry || e->stopped) return;
    for (size_t n = 0; n < count; n++) {
        float *row = y + n * (size_t)dim;
        for (int32_t i = 0; i < half; i++) {
            /* the frequency and the angle are rounded to float32, as in the reference */
            float f = (float)exp(-log(10000.0) * i / (half - shift));
            float a = t[n] * f;
            row[flip ? half + i : i] = (float)sin((double)a);
            row[flip ? i : half + i] = (float)cos((double)a);
        }
        if (dim % 2 != 0) row[dim - 1] = 0;
    }
}
