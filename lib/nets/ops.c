/* ops.c - what happens between the matrix products: activations, and moving rows about.
 *
 * All of it is memory traffic, so each is one pass over the rows, in tiles for the workers. */
#include <math.h>

#include "nets/tape.h"

enum { TILE = 64, COPIED = 1 << 16 }; /* rows, and floats of a copy, in a task */

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

static void act_task(void *user, size_t task, int32_t worker)
{
    op *o = user;
    size_t row = task * TILE, rows = WF_MIN((size_t)TILE, o->rows - row);
    (void)worker;
    wf_activate_floats(o->e->k, o->act, o->y + row * o->c, o->x + row * o->c, rows * o->c);
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
        o->e->k->geglu(o->y + row * o->c, o->x + row * 2 * o->c, o->x + row * 2 * o->c + o->c,
                       o->c);
}

void wf_geglu(wf_exec *e, float *y, const float *x, size_t rows, size_t c)
{
    op o = { .e = e, .y = y, .x = x, .rows = rows, .c = c };
    run(&o, tiles_of(rows), geglu_task);
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

void wf_concat(wf_exec *e, float *y, const float *p, size_t a, const float *q, size_t b,
               size_t rows)
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
        memcpy(o->y + row * o->c,
               o->x + ((n * (size_t)o->from.h + sy) * (size_t)o->from.w + sx) * o->c,
               o->c * sizeof(float));
    }
}

void wf_upsample(wf_exec *e, float *y, wf_grid to, const float *x, wf_grid from, size_t c)
{
    op o = { .e = e, .y = y, .x = x, .g = to, .from = from, .rows = wf_rows(to), .c = c };
    run(&o, tiles_of(o.rows), upsample_task);
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

void wf_rescale(wf_exec *e, float *x, float a, float b, size_t n)
{
    for (size_t i = 0; i < n && !e->dry && !e->stopped; i++) x[i] = a * x[i] + b;
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
            for (size_t p = 0; p < plane; p++)
                y[(n * c + i) * plane + p] = x[(n * plane + p) * c + i];
}

void wf_sinusoid(wf_exec *e, float *y, const float *t, size_t count, int32_t dim, bool flip,
                 double shift)
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
