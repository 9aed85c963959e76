/* ops.c - what happens between the matrix products: activations, and moving rows about.
 *
 * All of it is memory traffic, so each is one pass over the rows, in tiles for the workers. The way
 * back of each stands below it. */
#include <math.h>

#include "nets/tape.h"

enum { TILE = 64, COPIED = 1 << 16 }; /* rows, and floats of a copy, in a task */
enum { CHUNK = 512 };                 /* floats that the way back has on the stack */

static const float zeros[CHUNK];

typedef struct op {
    wf_exec     *e;
    float       *y;
    const float *x;
    const float *z;
    wf_grid      g;
    wf_grid      from;
    size_t       rows; /* of all samples */
    size_t       c;
    size_t       c2;
    wf_act       act;
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
        { "quick_gelu", WF_ACT_QUICK_GELU }, { "relu", WF_ACT_RELU }, { "mish", WF_ACT_MISH },
    };
    for (size_t i = 0; i < WF_LEN(table); i++)
        if (strcmp(name, table[i].name) == 0) {
            *out = table[i].act;
            return true;
        }
    return false;
}

void wf_activate_floats(const wf_kernels *k, wf_act act, float *y, const float *x, size_t n)
{
    switch (act) {
    case WF_ACT_SILU: k->silu(y, x, n); break;
    case WF_ACT_GELU: k->gelu(y, x, n); break;
    case WF_ACT_QUICK_GELU: k->quick_gelu(y, x, n); break;
    case WF_ACT_RELU:
        for (size_t i = 0; i < n; i++) y[i] = x[i] > 0 ? x[i] : 0;
        break;
    case WF_ACT_MISH: /* no published model has it, so it has no kernel */
        for (size_t i = 0; i < n; i++) y[i] = x[i] * tanhf(log1pf(expf(x[i])));
        break;
    default:
        if (y != x) memcpy(y, x, n * sizeof *y);
        break;
    }
}

/* x tanh(softplus x): t + x (1 - t^2) s(x), with t the tangent and s the logistic function */
static float mish_slope(float x)
{
    float t = tanhf(log1pf(expf(x)));
    return t + x * (1 - t * t) / (1 + expf(-x));
}

void wf_slope_floats(const wf_kernels *k, wf_act act, float *y, const float *x, size_t n)
{
    switch (act) {
    case WF_ACT_SILU: k->silu_slope(y, x, n); break;
    case WF_ACT_GELU: k->gelu_slope(y, x, n); break;
    case WF_ACT_QUICK_GELU: k->quick_gelu_slope(y, x, n); break;
    case WF_ACT_RELU:
        for (size_t i = 0; i < n; i++) y[i] = x[i] > 0 ? 1.0f : 0.0f;
        break;
    case WF_ACT_MISH:
        for (size_t i = 0; i < n; i++) y[i] = mish_slope(x[i]);
        break;
    default:
        for (size_t i = 0; i < n; i++) y[i] = 1;
        break;
    }
}

void wf_act_back_floats(const wf_kernels *k, wf_act act, float *g, const float *x, size_t n)
{
    float t[CHUNK];

    for (size_t i = 0; i < n && act != WF_ACT_NONE; i += CHUNK) {
        size_t some = WF_MIN((size_t)CHUNK, n - i);
        wf_slope_floats(k, act, t, x + i, some);
        k->affine(g + i, g + i, t, zeros, some);
    }
}

static void act_task(void *user, size_t task, int32_t worker)
{
    op *o = user;
    size_t row = task * TILE, rows = WF_MIN((size_t)TILE, o->rows - row);
    (void)worker;
    wf_activate_floats(o->e->k, o->act, o->y + row * o->c, o->x + row * o->c, rows * o->c);
}

typedef struct act_entry {
    wf_exec     *e; /* of the task */
    wf_act       act;
    float       *gy, *gx; /* one buffer where y was x */
    const float *x;
    size_t       n;
} act_entry;

enum { ACT_PIECE = 16 * CHUNK };

static void back_act_task(void *user, size_t task, int32_t worker)
{
    const act_entry *t = user;
    const wf_kernels *k = t->e->k;
    size_t end = WF_MIN((task + 1) * ACT_PIECE, t->n);
    float slope[CHUNK];
    (void)worker;
    for (size_t i = task * ACT_PIECE; i < end; i += CHUNK) {
        size_t n = WF_MIN((size_t)CHUNK, end - i);
        wf_slope_floats(k, t->act, slope, t->x + i, n);
        k->affine(t->gx + i, t->gy + i, slope, t->gx == t->gy ? zeros : t->gx + i, n);
        if (t->gx != t->gy) memset(t->gy + i, 0, n * sizeof *t->gy);
    }
}

static void back_act(wf_exec *e, const void *entry)
{
    act_entry t = *(const act_entry *)entry;
    t.e = e;
    wf_pool_run(e->pool, (t.n + ACT_PIECE - 1) / ACT_PIECE, back_act_task, &t);
}

void wf_activate(wf_exec *e, wf_act act, float *y, const float *x, size_t rows, size_t columns)
{
    op o = { .e = e, .y = y, .x = x, .rows = rows, .c = columns, .act = act };
    if (y == x && act == WF_ACT_NONE) return;
    if (y == x && wf_recording(e) && wf_wanted(e, x)) o.x = wf_keep(e, x, rows * columns);
    run(&o, tiles_of(rows), act_task);
    if (!wf_track(e, y, false, wf_wanted(e, x))) return;
    act_entry *t = wf_record(e, back_act, sizeof *t);
    if (t != NULL)
        *t = (act_entry){ .act = act, .gy = wf_grad(e, y), .gx = wf_grad(e, x), .x = o.x,
                          .n = rows * columns };
}

static void geglu_task(void *user, size_t task, int32_t worker)
{
    op *o = user;
    (void)worker;
    for (size_t row = task * TILE; row < WF_MIN((task + 1) * TILE, o->rows); row++)
        o->e->k->geglu(o->y + row * o->c, o->x + row * 2 * o->c, o->x + row * 2 * o->c + o->c,
                       o->c);
}

/* What moves rows about goes back over these. */
typedef struct rows_entry {
    wf_exec     *e; /* of the task                                */
    float       *gy, *gx, *gz;
    const float *x;
    wf_grid      g, from;
    size_t       rows, c, c2;
} rows_entry;

static void run_back(wf_exec *e, const void *entry, size_t tasks, wf_task task)
{
    rows_entry t = *(const rows_entry *)entry;
    t.e = e;
    wf_pool_run(e->pool, tasks, task, &t);
}

/* gvalue += gy gelu(gate), ggate += gy value gelu'(gate) */
static void back_geglu_task(void *user, size_t task, int32_t worker)
{
    const rows_entry *t = user;
    const wf_kernels *k = t->e->k;
    float f[CHUNK];
    (void)worker;
    for (size_t row = task * TILE; row < WF_MIN((task + 1) * TILE, t->rows); row++)
        for (size_t i = 0; i < t->c; i += CHUNK) {
            size_t n = WF_MIN((size_t)CHUNK, t->c - i), at = row * 2 * t->c + i;
            float *gy = t->gy + row * t->c + i, *gvalue = t->gx + at, *ggate = gvalue + t->c;
            const float *value = t->x + at, *gate = value + t->c;
            k->gelu(f, gate, n);
            k->affine(gvalue, gy, f, gvalue, n);
            k->gelu_slope(f, gate, n);
            k->affine(f, f, value, zeros, n);
            k->affine(ggate, gy, f, ggate, n);
            memset(gy, 0, n * sizeof *gy);
        }
}

static void back_geglu(wf_exec *e, const void *entry)
{
    run_back(e, entry, tiles_of(((const rows_entry *)entry)->rows), back_geglu_task);
}

void wf_geglu(wf_exec *e, float *y, const float *x, size_t rows, size_t c)
{
    op o = { .e = e, .y = y, .x = x, .rows = rows, .c = c };
    run(&o, tiles_of(rows), geglu_task);
    if (!wf_track(e, y, false, wf_wanted(e, x))) return;
    rows_entry *t = wf_record(e, back_geglu, sizeof *t);
    if (t != NULL)
        *t = (rows_entry){ .gy = wf_grad(e, y), .gx = wf_grad(e, x), .x = x, .rows = rows, .c = c };
}

static void weigh_task(void *user, size_t task, int32_t worker)
{
    op *o = user;
    (void)worker;
    for (size_t row = task * TILE; row < WF_MIN((task + 1) * TILE, o->rows); row++) {
        float w = o->z[row % o->c2], *y = o->y + row * o->c;
        const float *x = o->x != NULL ? o->x + row * o->c : NULL;
        if (x == NULL && w == 0) memset(y, 0, o->c * sizeof *y);
        else if (x == NULL && w != 1) o->e->k->scale(y, w, o->c);
        for (size_t i = 0; i < o->c && x != NULL && w != 0; i++) y[i] += w * x[i];
    }
}

void wf_weigh_rows(wf_exec *e, float *y, const float *x, const float *weight, wf_grid g, size_t c)
{
    op o = { .e = e, .y = y, .x = x, .z = weight, .rows = wf_rows(g), .c = c,
             .c2 = (size_t)g.h * (size_t)g.w };
    wf_no_way_back(e);
    run(&o, tiles_of(o.rows), weigh_task);
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

static void back_concat_task(void *user, size_t task, int32_t worker)
{
    const rows_entry *t = user;
    size_t width = t->c + t->c2;
    (void)worker;
    for (size_t row = task * TILE; row < WF_MIN((task + 1) * TILE, t->rows); row++) {
        float *gy = t->gy + row * width;
        if (t->gx != NULL) t->e->k->add(t->gx + row * t->c, gy, t->c);
        if (t->gz != NULL) t->e->k->add(t->gz + row * t->c2, gy + t->c, t->c2);
        memset(gy, 0, width * sizeof *gy);
    }
}

static void back_concat(wf_exec *e, const void *entry)
{
    run_back(e, entry, tiles_of(((const rows_entry *)entry)->rows), back_concat_task);
}

void wf_concat(wf_exec *e, float *y, const float *p, size_t a, const float *q, size_t b,
               size_t rows)
{
    op o = { .e = e, .y = y, .x = p, .z = q, .rows = rows, .c = a, .c2 = b };
    run(&o, tiles_of(rows), concat_task);
    if (!wf_track(e, y, false, wf_wanted(e, p) || wf_wanted(e, q))) return;
    rows_entry *t = wf_record(e, back_concat, sizeof *t);
    if (t != NULL)
        *t = (rows_entry){ .gy = wf_grad(e, y), .gx = wf_grad(e, p), .gz = wf_grad(e, q),
                           .rows = rows, .c = a, .c2 = b };
}

static void upsample_task(void *user, size_t task, int32_t worker)
{
    op *o = user;
    size_t h = (size_t)o->g.h, w = (size_t)o->g.w;
    (void)worker;
    for (size_t row = task * TILE; row < WF_MIN((task + 1) * TILE, o->rows); row++) {
        size_t n = row / (h * w), y = row / w % h, x = row % w;
        size_t sy = y * (size_t)o->from.h / h, sx = x * (size_t)o->from.w / w;
        memcpy(o->y + row * o->c,
               o->x + ((n * (size_t)o->from.h + sy) * (size_t)o->from.w + sx) * o->c,
               o->c * sizeof(float));
    }
}

/* Line i of `from` became lines [first, end) of `to`. */
static size_t first_copy(size_t i, size_t to, size_t from) { return (i * to + from - 1) / from; }

static void back_upsample_task(void *user, size_t task, int32_t worker)
{
    const rows_entry *t = user;
    size_t h = (size_t)t->g.h, w = (size_t)t->g.w, fh = (size_t)t->from.h, fw = (size_t)t->from.w;
    (void)worker;
    for (size_t row = task * TILE; row < WF_MIN((task + 1) * TILE, t->rows); row++) {
        size_t n = row / (fh * fw), sy = row / fw % fh, sx = row % fw;
        for (size_t y = first_copy(sy, h, fh); y < first_copy(sy + 1, h, fh); y++)
            for (size_t x = first_copy(sx, w, fw); x < first_copy(sx + 1, w, fw); x++)
                t->e->k->add(t->gx + row * t->c, t->gy + ((n * h + y) * w + x) * t->c, t->c);
    }
}

static void back_upsample(wf_exec *e, const void *entry)
{
    const rows_entry *t = entry;
    run_back(e, entry, tiles_of(t->rows), back_upsample_task);
    wf_grad_done(e, t->gy, wf_rows(t->g) * t->c);
}

void wf_upsample(wf_exec *e, float *y, wf_grid to, const float *x, wf_grid from, size_t c)
{
    op o = { .e = e, .y = y, .x = x, .g = to, .from = from, .rows = wf_rows(to), .c = c };
    run(&o, tiles_of(o.rows), upsample_task);
    if (!wf_track(e, y, false, wf_wanted(e, x))) return;
    rows_entry *t = wf_record(e, back_upsample, sizeof *t);
    if (t != NULL)
        *t = (rows_entry){ .gy = wf_grad(e, y), .gx = wf_grad(e, x), .g = to, .from = from,
                           .rows = wf_rows(from), .c = c };
}

static void copy_task(void *user, size_t task, int32_t worker)
{
    op *o = user;
    size_t first = task * COPIED, n = WF_MIN((size_t)COPIED, o->rows - first);
    (void)worker;
    memcpy(o->y + first, o->x + first, n * sizeof *o->y);
}

void wf_copy_floats(wf_exec *e, float *y, const float *x, size_t n)
{
    op o = { .e = e, .y = y, .x = x, .rows = n, .c = 1 };
    if (y != x) run(&o, (n + COPIED - 1) / COPIED, copy_task);
}

typedef struct copy_entry { float *gy, *gx; size_t n; } copy_entry;

static void back_copy(wf_exec *e, const void *entry)
{
    const copy_entry *t = entry;
    wf_grad_add(e, t->gx, t->gy, t->n);
    wf_grad_done(e, t->gy, t->n);
}

void wf_copy(wf_exec *e, float *y, const float *x, size_t n)
{
    wf_copy_floats(e, y, x, n);
    if (y == x || !wf_track(e, y, false, wf_wanted(e, x))) return;
    copy_entry *t = wf_record(e, back_copy, sizeof *t);
    if (t != NULL) *t = (copy_entry){ .gy = wf_grad(e, y), .gx = wf_grad(e, x), .n = n };
}

typedef struct rescale_entry { float *g, a; size_t n; } rescale_entry;

static void back_rescale(wf_exec *e, const void *entry)
{
    const rescale_entry *t = entry;
    e->k->scale(t->g, t->a, t->n);
}

void wf_rescale(wf_exec *e, float *x, float a, float b, size_t n)
{
    for (size_t i = 0; i < n && !e->dry && !e->stopped; i++) x[i] = a * x[i] + b;
    if (!wf_track(e, x, true, wf_wanted(e, x))) return;
    rescale_entry *t = wf_record(e, back_rescale, sizeof *t);
    if (t != NULL) *t = (rescale_entry){ .g = wf_grad(e, x), .a = a, .n = n };
}

/* (n, c, h w) from (n, h w, c), and back: each adds to the gradients what the other one moves. */
static void back_to_rows(wf_exec *e, const void *entry)
{
    const rows_entry *t = entry;
    size_t plane = (size_t)t->g.h * (size_t)t->g.w;
    for (size_t n = 0; n < (size_t)t->g.n; n++)
        for (size_t i = 0; i < t->c; i++)
            for (size_t p = 0; p < plane; p++)
                t->gx[(n * t->c + i) * plane + p] += t->gy[(n * plane + p) * t->c + i];
    wf_grad_done(e, t->gy, t->rows * t->c);
}

static void back_from_rows(wf_exec *e, const void *entry)
{
    const rows_entry *t = entry;
    size_t plane = (size_t)t->g.h * (size_t)t->g.w;
    for (size_t n = 0; n < (size_t)t->g.n; n++)
        for (size_t p = 0; p < plane; p++)
            for (size_t i = 0; i < t->c; i++)
                t->gx[(n * plane + p) * t->c + i] += t->gy[(n * t->c + i) * plane + p];
    wf_grad_done(e, t->gy, t->rows * t->c);
}

static void record_turn(wf_exec *e, wf_back back, float *y, const float *x, wf_grid g, size_t c)
{
    if (!wf_track(e, y, false, wf_wanted(e, x))) return;
    rows_entry *t = wf_record(e, back, sizeof *t);
    if (t != NULL)
        *t = (rows_entry){ .gy = wf_grad(e, y), .gx = wf_grad(e, x), .g = g, .rows = wf_rows(g),
                           .c = c };
}

void wf_to_rows(wf_exec *e, float *y, const float *x, wf_grid g, size_t c)
{
    size_t plane = (size_t)g.h * (size_t)g.w;
    for (size_t n = 0; n < (size_t)g.n && !e->dry && !e->stopped; n++)
        for (size_t p = 0; p < plane; p++)
            for (size_t i = 0; i < c; i++) y[(n * plane + p) * c + i] = x[(n * c + i) * plane + p];
    record_turn(e, back_to_rows, y, x, g, c);
}

void wf_from_rows(wf_exec *e, float *y, const float *x, wf_grid g, size_t c)
{
    size_t plane = (size_t)g.h * (size_t)g.w;
    for (size_t n = 0; n < (size_t)g.n && !e->dry && !e->stopped; n++)
        for (size_t i = 0; i < c; i++)
            for (size_t p = 0; p < plane; p++)
                y[(n * c + i) * plane + p] = x[(n * plane + p) * c + i];
    record_turn(e, back_from_rows, y, x, g, c);
}

void wf_sinusoid(wf_exec *e, float *y, const float *t, size_t count, int32_t dim, bool flip,
                 double shift)
{
    int32_t half = dim / 2;
    (void)wf_track(e, y, false, false); /* nobody trains t */
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
