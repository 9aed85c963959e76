/* norm.c - GroupNorm and LayerNorm, and what adapters change in their weight and bias.
 *
 * GroupNorm takes three passes: sums of each tile of rows, then a and b of each sample, then
 * y = act(a x + b). Sums are kept in double, per tile, and added up in the tiles' order. Weight and
 * bias are the layer's, or each sample's own in branches where adapters change them. If a mask
 * makes them differ from row to row, the rows are first normalised without a weight, and each then
 * gets its own. Under wf_align the sums are a sample's own and its reference's.
 *
 * The way back of y = act(w u + b), with u the normalised x and g the gradient of w u + b, is the
 * same three passes: sums of g and g x of each channel, then of each sample the numbers of
 *
 *     gx += (w g - mean(w g) - u mean(w g u)) / deviation = p g + q x + r
 *
 * with means over a group's rows and channels. LayerNorm has them row by row. What a weight and a
 * bias get is added up over tiles, in their order.
 *
 * The same sums bring a sample's channels to the mean and deviation of its reference's (AdaIN:
 * Huang and Belongie, Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization,
 * 2017). */
#include <math.h>

#include "nets/tape.h"

/* Rows of a task; of a large picture more, since the tiles' sums are added up by one thread. */
enum { TILE = 64, MOST_TILES = 128 };

typedef struct norm {
    wf_exec        *e;
    const wf_norm  *n;
    const wf_delta *delta;  /* NULL: no parts                                             */
    const float    *weight; /* of the first sample; `stride` further for the next         */
    const float    *bias;
    size_t          stride;
    float          *y;
    const float    *x;
    double         *sums;   /* (samples, tiles, 2, c): sums and sums of squares           */
    float          *a;      /* (samples, c): the norm as y = a x + b                      */
    float          *b;
    wf_grid         g;
    size_t          rows;   /* of one sample                                              */
    size_t          tiles;  /* likewise                                                   */
    size_t          tile;   /* rows of a tile                                             */
    size_t          c;
    wf_act          act;
    bool            masked; /* weights differ from row to row                             */
} norm;

static void run(norm *o, size_t tasks, wf_task task)
{
    if (!o->e->dry && !o->e->stopped) wf_pool_run(o->e->pool, tasks, task, o);
}

/* ---- weights ---- */

/* to += sum over parts of c_p d_p, with d the weight's differences or the bias's: those without a
 * mask (row SIZE_MAX), or those with one, at a row. */
static void add_parts(const norm *o, size_t sample, bool bias, size_t row, float *to)
{
    for (int32_t p = 0; p < o->delta->stack->parts; p++) {
        const wf_nonpair *x = &o->delta->stack->nonpair[p];
        const float *d = bias ? x->bias : x->dense;
        wf_coefficient k = wf_coefficient_of(o->e, o->delta, sample, p, o->g);
        if (d == NULL || k.number == 0.0f || (k.rows != NULL) != (row != SIZE_MAX)) continue;
        float c = k.rows != NULL ? k.number * k.rows[row] : k.number;
        const float *v = bias ? NULL : k.columns;
        for (size_t i = 0; i < o->c; i++) to[i] += v != NULL ? c * (v[i] * d[i]) : c * d[i];
    }
}

/* A dry run's counts: no products, but what is read and written. */
static void count(const norm *o)
{
    wf_exec *e = o->e;
    const wf_stack *s = o->delta != NULL ? o->delta->stack : NULL;

    if (!e->dry) return;
    e->weight_bytes += 8.0 * (double)o->c;
    e->moved_bytes += 8.0 * (double)(wf_rows(o->g) * o->c);
    for (int32_t p = 0; s != NULL && p < s->parts; p++) {
        const wf_nonpair *x = &s->nonpair[p];
        e->weight_bytes += 4.0 * (double)o->c * ((x->dense != NULL) + (x->bias != NULL));
    }
}

/* The weights of each sample, and whether rows have their own. */
static void take_weights(norm *o)
{
    wf_exec *e = o->e;
    const wf_layer *l = o->n->layer;
    const wf_delta *d = e->deltas != NULL && l != NULL ? &e->deltas[l->id] : NULL;

    o->weight = o->n->weight;
    o->bias = o->n->bias;
    if (d != NULL && d->merged != NULL) {
        o->weight = d->merged;
        if (d->merged_bias != NULL) o->bias = d->merged_bias;
        return;
    }
    if (d == NULL || d->stack == NULL || d->stack->nonpair == NULL) return;
    o->delta = d;
    float *own = wf_take(e, (size_t)o->g.n, 2 * o->c);
    if (e->masks != NULL) wf_need_scratch(e, 2 * o->c * sizeof *own);
    if (e->dry || e->stopped) return;
    if (e->masks != NULL && !wf_masks_fit(e, d, o->g)) return;
    for (size_t s = 0; s < (size_t)o->g.n; s++) {
        float *weight = own + s * 2 * o->c, *bias = weight + o->c;
        memcpy(weight, o->weight, o->c * sizeof *weight);
        memcpy(bias, o->bias, o->c * sizeof *bias);
        add_parts(o, s, false, SIZE_MAX, weight);
        add_parts(o, s, true, SIZE_MAX, bias);
    }
    o->weight = own;
    o->bias = own + o->c;
    o->stride = 2 * o->c;
    for (int32_t p = 0; p < d->stack->parts; p++)
        o->masked = o->masked || wf_part_masked(e, d, p, o->g);
}

/* y (c) = y w + b with the weights of a row; `scratch` holds 2 c floats. */
static void finish_row(const norm *o, size_t sample, size_t row, float *y, float *scratch)
{
    float *w = scratch, *b = scratch + o->c;
    memcpy(w, o->weight + sample * o->stride, o->c * sizeof *w);
    memcpy(b, o->bias + sample * o->stride, o->c * sizeof *b);
    add_parts(o, sample, false, row, w);
    add_parts(o, sample, true, row, b);
    o->e->k->affine(y, y, w, b, o->c);
}

/* ---- GroupNorm ---- */

static void cut(norm *o)
{
    o->rows = (size_t)o->g.h * (size_t)o->g.w;
    o->tile = TILE * ((o->rows + TILE * MOST_TILES - 1) / (TILE * MOST_TILES));
    o->tiles = (o->rows + o->tile - 1) / o->tile;
}

static void sum_task(void *user, size_t task, int32_t worker)
{
    norm *o = user;
    size_t row = task % o->tiles * o->tile, last = WF_MIN(row + o->tile, o->rows);
    double *sum = o->sums + task * 2 * o->c, *square = sum + o->c;
    (void)worker;
    memset(sum, 0, 2 * o->c * sizeof *sum);
    for (; row < last; row++)
        o->e->k->sums(sum, square, o->x + (task / o->tiles * o->rows + row) * o->c, o->c);
}

/* The reference of a sample; NULL align: the sample itself. */
static size_t reference_of(const wf_exec *e, size_t sample)
{
    return e->align != NULL ? sample - sample % (size_t)e->align->group : sample;
}

/* sum, square += those of channels [first, end) of a sample. */
static void add_sums(const norm *o, size_t sample, size_t first, size_t end, double *sum,
                     double *square)
{
    for (size_t t = 0; t < o->tiles; t++) {
        const double *s = o->sums + (sample * o->tiles + t) * 2 * o->c;
        for (size_t i = first; i < end; i++) {
            *sum += s[i];
            *square += s[o->c + i];
        }
    }
}

/* Of n numbers with this sum and this sum of squares. */
static double one_over_deviation(const norm *o, double sum, double square, double n, double *mean)
{
    *mean = sum / n;
    double variance = square / n - *mean * *mean;
    return 1.0 / sqrt(WF_MAX(variance, 0.0) + o->n->eps);
}

static void moments_task(void *user, size_t sample, int32_t worker)
{
    norm *o = user;
    size_t width = o->c / (size_t)o->n->groups, reference = reference_of(o->e, sample);
    const float *weight = o->weight + sample * o->stride, *bias = o->bias + sample * o->stride;
    bool both = reference != sample && o->e->align->norm;
    (void)worker;
    for (size_t first = 0; first < o->c; first += width) {
        double sum = 0, square = 0, n = (double)o->rows * (double)width;
        add_sums(o, sample, first, first + width, &sum, &square);
        if (both) {
            add_sums(o, reference, first, first + width, &sum, &square);
            n *= 2;
        }
        double mean, inverse = one_over_deviation(o, sum, square, n, &mean);
        for (size_t i = first; i < first + width; i++) {
            double w = o->masked ? 1.0 : weight[i], b = o->masked ? 0.0 : bias[i];
            o->a[sample * o->c + i] = (float)(inverse * w);
            o->b[sample * o->c + i] = (float)(b - mean * inverse * w);
        }
    }
}

static void affine_task(void *user, size_t task, int32_t worker)
{
    norm *o = user;
    size_t sample = task / o->tiles, row = task % o->tiles * o->tile;
    size_t last = WF_MIN(row + o->tile, o->rows);
    for (; row < last; row++) {
        float *y = o->y + (sample * o->rows + row) * o->c;
        const float *x = o->x + (sample * o->rows + row) * o->c;
        o->e->k->affine(y, x, o->a + sample * o->c, o->b + sample * o->c, o->c);
        if (o->masked) finish_row(o, sample, row, y, (float *)(void *)o->e->scratch[worker]);
        if (o->act != WF_ACT_NONE) wf_activate_floats(o->e->k, o->act, y, y, o->c);
    }
}

/* ---- the way back ---- */

typedef struct norm_back {
    norm    o;       /* with its x kept                                                           */
    float  *gy, *gx; /* gx NULL: not wanted                                                       */
    float  *gweight, *gbias; /* NULL: frozen                                                      */
    double *sums;    /* (samples, tiles, 2, c): of g and g x, then what bias and weight get;
                      * of a LayerNorm (tiles, 2, c)                                              */
    size_t  parts;   /* of `sums` for one channel that bias and weight get, `step` apart          */
    size_t  step;
    float  *p, *q, *r;       /* (samples, c)                                                      */
    float  *ones, *zeros;    /* (c) of a LayerNorm                                                */
} norm_back;

/* The entry of y = norm(x), or NULL. */
static norm_back *record(norm *o, wf_back back)
{
    wf_exec *e = o->e;
    const wf_layer_grads *own = wf_trained(e, o->n->layer);
    bool wanted = wf_wanted(e, o->x) || (own != NULL && (own->weight != NULL || own->bias != NULL));

    if (!wf_track(e, o->y, false, wanted)) return NULL;
    if (o->masked || e->align != NULL) wf_no_way_back(e);
    const float *kept = wf_keep(e, o->x, wf_rows(o->g) * o->c);
    norm_back *t = wf_record(e, back, sizeof *t);
    if (t == NULL) return NULL;
    t->gy = wf_grad(e, o->y);
    t->gx = wf_grad(e, o->x);
    t->gweight = own != NULL ? own->weight : NULL;
    t->gbias = own != NULL ? own->bias : NULL;
    o->x = kept;
    t->o = *o;
    return t;
}

enum { CHANNELS = 64 }; /* of a task that adds up */

/* What weight and bias get of each channel, over samples or tiles in their order. */
static void add_up_task(void *user, size_t task, int32_t worker)
{
    const norm_back *t = user;
    size_t c = t->o.c, end = WF_MIN((task + 1) * CHANNELS, c);
    (void)worker;
    for (size_t i = task * CHANNELS; i < end; i++) {
        double bias = 0, weight = 0;
        for (size_t s = 0; s < t->parts; s++) {
            bias += t->sums[s * t->step + i];
            weight += t->sums[s * t->step + c + i];
        }
        if (t->gbias != NULL) t->gbias[i] += (float)bias;
        if (t->gweight != NULL) t->gweight[i] += (float)weight;
    }
}

static void add_up(norm_back *t, size_t parts, size_t step)
{
    t->parts = parts;
    t->step = step;
    if (t->gweight != NULL || t->gbias != NULL)
        wf_pool_run(t->o.e->pool, (t->o.c + CHANNELS - 1) / CHANNELS, add_up_task, t);
}

/* gy becomes g, and is summed. */
static void back_sum_task(void *user, size_t task, int32_t worker)
{
    enum { CHUNK = 512 };
    const norm_back *t = user;
    const norm *o = &t->o;
    const wf_kernels *k = o->e->k;
    size_t sample = task / o->tiles, row = task % o->tiles * o->tile;
    size_t last = WF_MIN(row + o->tile, o->rows);
    double *sum = t->sums + task * 2 * o->c;
    float z[CHUNK];
    (void)worker;
    memset(sum, 0, 2 * o->c * sizeof *sum);
    for (; row < last; row++) {
        const float *x = o->x + (sample * o->rows + row) * o->c;
        float *g = t->gy + (sample * o->rows + row) * o->c;
        for (size_t i = 0; i < o->c && o->act != WF_ACT_NONE; i += CHUNK) {
            size_t n = WF_MIN((size_t)CHUNK, o->c - i), at = sample * o->c + i;
            k->affine(z, x + i, o->a + at, o->b + at, n);
            wf_act_back_floats(k, o->act, g + i, z, n);
        }
        k->sum_products(sum, sum + o->c, g, x, o->c);
    }
}

static void back_moments_task(void *user, size_t sample, int32_t worker)
{
    const norm_back *t = user;
    const norm *o = &t->o;
    size_t c = o->c, width = c / (size_t)o->n->groups;
    const float *weight = o->weight + sample * o->stride;
    double *bias_of = t->sums + sample * o->tiles * 2 * c, *weight_of = bias_of + c;
    (void)worker;
    for (size_t i = 2 * c; i < o->tiles * 2 * c; i++) bias_of[i % (2 * c)] += bias_of[i];
    for (size_t first = 0; first < c; first += width) {
        double all = 0, squares = 0, n = (double)o->rows * (double)width, mean_g = 0, mean_gu = 0;
        add_sums(o, sample, first, first + width, &all, &squares);
        double mean, inverse = one_over_deviation(o, all, squares, n, &mean);
        for (size_t i = first; i < first + width; i++) {
            weight_of[i] = inverse * (weight_of[i] - mean * bias_of[i]);
            mean_g += weight[i] * bias_of[i] / n;
            mean_gu += weight[i] * weight_of[i] / n;
        }
        double q = -inverse * inverse * mean_gu, r = -inverse * mean_g - q * mean;
        for (size_t i = first; i < first + width; i++) {
            t->p[sample * c + i] = (float)(inverse * weight[i]);
            t->q[sample * c + i] = (float)q;
            t->r[sample * c + i] = (float)r;
        }
    }
}

static void back_affine_task(void *user, size_t task, int32_t worker)
{
    const norm_back *t = user;
    const norm *o = &t->o;
    const wf_kernels *k = o->e->k;
    size_t sample = task / o->tiles, row = task % o->tiles * o->tile, at = sample * o->c;
    size_t last = WF_MIN(row + o->tile, o->rows);
    (void)worker;
    for (; row < last; row++) {
        size_t first = (sample * o->rows + row) * o->c;
        float *g = t->gy + first, *gx = t->gx != NULL ? t->gx + first : NULL;
        if (gx != NULL) {
            k->affine(gx, g, t->p + at, gx, o->c);
            k->affine(g, o->x + first, t->q + at, t->r + at, o->c);
            k->add(gx, g, o->c);
        }
        memset(g, 0, o->c * sizeof *g);
    }
}

static void back_group_norm(wf_exec *e, const void *entry)
{
    norm_back t = *(const norm_back *)entry;
    const norm *o = &t.o;
    size_t samples = (size_t)o->g.n, mark = wf_arena_mark(&e->arena);

    t.sums = wf_arena_take(&e->arena, samples * o->tiles, 2 * o->c * sizeof *t.sums);
    t.p = wf_take(e, samples, o->c);
    t.q = wf_take(e, samples, o->c);
    t.r = wf_take(e, samples, o->c);
    if (!e->stopped) {
        wf_pool_run(e->pool, samples * o->tiles, back_sum_task, &t);
        wf_pool_run(e->pool, samples, back_moments_task, &t);
        wf_pool_run(e->pool, samples * o->tiles, back_affine_task, &t);
        add_up(&t, samples, o->tiles * 2 * o->c);
    }
    wf_arena_release(&e->arena, mark);
}

static size_t lines(size_t floats) { return (floats + 15) / 16 * 16; } /* as an arena takes them */

void wf_group_norm(wf_exec *e, const wf_norm *n, float *y, const float *x, wf_grid g, wf_act act)
{
    norm o = { .e = e, .n = n, .y = y, .x = x, .g = g, .act = act, .c = (size_t)n->channels };
    size_t samples = (size_t)g.n, mark = wf_arena_mark(&e->arena);
    cut(&o);
    o.sums = wf_arena_take(&e->arena, samples * o.tiles, 2 * o.c * sizeof *o.sums);
    o.a = wf_take(e, samples, o.c);
    o.b = wf_take(e, samples, o.c);
    take_weights(&o);
    count(&o);
    run(&o, samples * o.tiles, sum_task);
    run(&o, samples, moments_task);
    run(&o, samples * o.tiles, affine_task);
    wf_watch_layer(e, n->layer, x, wf_rows(g) * o.c, y, wf_rows(g) * o.c);
    wf_note_layer(e, n->layer, g);
    wf_need_back(e, lines(samples * o.tiles * 4 * o.c) + 3 * lines(samples * o.c));
    (void)record(&o, back_group_norm);
    wf_arena_release(&e->arena, mark);
}

/* ---- mean and deviation of a reference ---- */

typedef struct moments { double mean, deviation; } moments;

/* Over the rows, with the authors' estimate of the variance and their epsilon. */
static moments channel_of(const norm *o, size_t sample, size_t i)
{
    double sum = 0, square = 0, n = (double)o->rows;

    add_sums(o, sample, i, i + 1, &sum, &square);
    double variance = n > 1 ? WF_MAX(square - sum * sum / n, 0.0) / (n - 1) : 0;
    return (moments){ sum / n, sqrt(variance + 1e-5) };
}

static void adapt_moments_task(void *user, size_t sample, int32_t worker)
{
    norm *o = user;
    (void)worker;
    for (size_t i = 0; i < o->c; i++) {
        moments own = channel_of(o, sample, i), to = channel_of(o, reference_of(o->e, sample), i);
        double a = to.deviation / own.deviation;
        o->a[sample * o->c + i] = (float)a;
        o->b[sample * o->c + i] = (float)(to.mean - a * own.mean);
    }
}

static void adapt_task(void *user, size_t task, int32_t worker)
{
    const norm *o = user;
    if (reference_of(o->e, task / o->tiles) != task / o->tiles) affine_task(user, task, worker);
}

void wf_adapt_to_reference(wf_exec *e, float *x, wf_grid g, size_t c)
{
    norm o = { .e = e, .y = x, .x = x, .g = g, .act = WF_ACT_NONE, .c = c };
    size_t samples = (size_t)g.n, mark = wf_arena_mark(&e->arena);
    cut(&o);
    o.sums = wf_arena_take(&e->arena, samples * o.tiles, 2 * o.c * sizeof *o.sums);
    o.a = wf_take(e, samples, o.c);
    o.b = wf_take(e, samples, o.c);
    run(&o, samples * o.tiles, sum_task);
    run(&o, samples, adapt_moments_task);
    run(&o, samples * o.tiles, adapt_task);
    wf_arena_release(&e->arena, mark);
}

/* ---- LayerNorm: tiles run over the rows of all samples ---- */

static void layer_norm_task(void *user, size_t task, int32_t worker)
{
    norm *o = user;
    size_t all = wf_rows(o->g), c = o->c;
    for (size_t row = task * TILE; row < WF_MIN((task + 1) * TILE, all); row++) {
        size_t sample = row / o->rows, at = sample * o->stride;
        float *y = o->y + row * c;
        const float *weight = o->masked ? o->a : o->weight + at;
        const float *bias = o->masked ? o->b : o->bias + at;
        o->e->k->layer_norm(y, o->x + row * c, weight, bias, o->n->eps, c);
        if (o->masked)
            finish_row(o, sample, row % o->rows, y, (float *)(void *)o->e->scratch[worker]);
    }
}

static void back_layer_norm_task(void *user, size_t task, int32_t worker)
{
    const norm_back *t = user;
    const norm *o = &t->o;
    const wf_kernels *k = o->e->k;
    size_t c = o->c, last = WF_MIN((task + 1) * TILE, wf_rows(o->g));
    float *u = (float *)(void *)o->e->scratch[worker];
    double *sum = t->sums != NULL ? t->sums + task * 2 * c : NULL;

    if (sum != NULL) memset(sum, 0, 2 * c * sizeof *sum);
    for (size_t row = task * TILE; row < last; row++) {
        const float *x = o->x + row * c, *weight = o->weight + row / o->rows * o->stride;
        float *g = t->gy + row * c;
        if (t->gx != NULL) k->layer_norm_back(t->gx + row * c, g, x, weight, o->n->eps, c);
        if (sum != NULL) {
            k->layer_norm(u, x, t->ones, t->zeros, o->n->eps, c);
            k->sum_products(sum, sum + c, g, u, c);
        }
        memset(g, 0, c * sizeof *g);
    }
}

static void back_layer_norm(wf_exec *e, const void *entry)
{
    norm_back t = *(const norm_back *)entry;
    size_t c = t.o.c, tiles = (wf_rows(t.o.g) + TILE - 1) / TILE, mark = wf_arena_mark(&e->arena);

    if (t.gweight != NULL || t.gbias != NULL) {
        t.sums = wf_arena_take(&e->arena, tiles, 2 * c * sizeof *t.sums);
        t.ones = wf_take(e, 1, c);
        t.zeros = wf_take(e, 1, c);
        for (size_t i = 0; i < c && !e->stopped; i++) t.ones[i] = 1, t.zeros[i] = 0;
    }
    if (!e->stopped) {
        wf_pool_run(e->pool, tiles, back_layer_norm_task, &t);
        add_up(&t, tiles, 2 * c);
    }
    wf_arena_release(&e->arena, mark);
}

void wf_layer_norm(wf_exec *e, const wf_norm *n, float *y, const float *x, wf_grid g)
{
    norm o = { .e = e, .n = n, .y = y, .x = x, .g = g, .c = (size_t)n->channels };
    size_t mark = wf_arena_mark(&e->arena);
    o.rows = (size_t)g.h * (size_t)g.w;
    take_weights(&o);
    count(&o);
    if (e->masks != NULL) { /* a weight of ones and a bias of zeros */
        o.a = wf_take(e, 1, o.c);
        o.b = wf_take(e, 1, o.c);
        for (size_t i = 0; i < o.c && !e->dry && !e->stopped; i++) {
            o.a[i] = 1;
            o.b[i] = 0;
        }
    }
    run(&o, (wf_rows(g) + TILE - 1) / TILE, layer_norm_task);
    wf_watch_layer(e, n->layer, x, wf_rows(g) * o.c, y, wf_rows(g) * o.c);
    wf_note_layer(e, n->layer, g);
    if (wf_recording(e)) wf_need_scratch(e, o.c * sizeof(float));
    wf_need_back(e, lines((wf_rows(g) + TILE - 1) / TILE * 4 * o.c) + 2 * lines(o.c));
    (void)record(&o, back_layer_norm);
    wf_arena_release(&e->arena, mark);
}
