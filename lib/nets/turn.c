/* turn.c - a weight transposed, and its kernel turned around.
 *
 * All of it moves numbers, in tiles of which both sides fit a cache. */
#include "nets/turn.h"

enum { SIDE = 16, CHANNELS = 64 }; /* of a tile */

/* ---- as files have it ---- */

typedef struct turning {
    uint8_t       *to;
    const uint8_t *from;
    size_t         out, in, taps, size;
} turning;

/* Elements of a known size are moved one by one without a call. */
static inline void turn_run(uint8_t *to, const uint8_t *from, size_t taps, const size_t size)
{
    for (size_t q = 0; q < taps; q++)
        memcpy(to + (taps - 1 - q) * size, from + q * size, size);
}

static void turn_task(void *user, size_t task, int32_t worker)
{
    const turning *t = user;
    size_t first = task * SIDE, last = WF_MIN(first + SIDE, t->in), run = t->taps * t->size;
    (void)worker;
    for (size_t o = 0; o < t->out; o += SIDE)
        for (size_t i = first; i < last; i++)
            for (size_t k = o; k < WF_MIN(o + SIDE, t->out); k++) {
                uint8_t *to = t->to + (i * t->out + k) * run;
                const uint8_t *from = t->from + (k * t->in + i) * run;
                if (t->size == 2) turn_run(to, from, t->taps, 2);
                else if (t->size == 4) turn_run(to, from, t->taps, 4);
                else turn_run(to, from, t->taps, t->size);
            }
}

static size_t taps_of(const wf_layer *l) { return (size_t)l->kernel * (size_t)l->kernel; }

size_t wf_turned_bytes(const wf_layer *l)
{
    return (size_t)l->out * (size_t)l->in * taps_of(l) * (size_t)(wf_dtype_bits(l->dtype) / 8);
}

void wf_turn_weight(void *dst, const wf_layer *l, wf_pool *pool)
{
    turning t = { dst, l->weight, (size_t)l->out, (size_t)l->in, taps_of(l),
                  (size_t)(wf_dtype_bits(l->dtype) / 8) };
    wf_pool_run(pool, (t.in + SIDE - 1) / SIDE, turn_task, &t);
}

/* ---- widened ---- */

typedef struct widening {
    wf_exec          *e;
    float            *to;
    const wf_product *p;
} widening;

static size_t tile_channels(const wf_product *p) { return WF_MIN((size_t)CHANNELS, p->in); }

static void widen_task(void *user, size_t task, int32_t worker)
{
    const widening *w = user;
    const wf_product *p = w->p;
    size_t taps = wf_window_taps(&p->window), c = task * tile_channels(p);
    size_t nc = WF_MIN(tile_channels(p), p->in - c);
    float *tile = (float *)(void *)w->e->scratch[worker], *line = tile + SIDE * taps * nc;

    for (size_t o = 0; o < p->out; o += SIDE) {
        size_t count = WF_MIN((size_t)SIDE, p->out - o);
        wf_load_weight(p, w->e->k, tile, line, o, count, c, nc);
        for (size_t i = 0; i < nc; i++)
            for (size_t q = 0; q < taps; q++) {
                float *to = w->to + ((c + i) * taps + taps - 1 - q) * p->out + o;
                for (size_t k = 0; k < count; k++) to[k] = tile[(k * taps + q) * nc + i];
            }
    }
}

void wf_turn_product(wf_exec *e, float *dst, const wf_product *p)
{
    widening w = { e, dst, p };
    size_t width = wf_window_taps(&p->window) * tile_channels(p);

    wf_need_scratch(e, (SIDE + 1) * width * sizeof(float));
    if (!e->dry && !e->stopped)
        wf_pool_run(e->pool, (p->in + tile_channels(p) - 1) / tile_channels(p), widen_task, &w);
}

/* ---- what a stride left out ---- */

typedef struct spreading {
    float       *y;
    const float *x;
    wf_grid      to, from;
    int32_t      stride, first;
    size_t       c;
} spreading;

/* A task is a line of pixels of y. */
static void spread_task(void *user, size_t task, int32_t worker)
{
    const spreading *s = user;
    size_t n = task / (size_t)s->to.h, line = (size_t)s->to.w * s->c;
    int32_t at = (int32_t)(task % (size_t)s->to.h) - s->first;
    float *y = s->y + task * line;
    (void)worker;
    memset(y, 0, line * sizeof *y);
    if (at < 0 || at % s->stride != 0 || at / s->stride >= s->from.h) return;
    const float *x = s->x + (n * (size_t)s->from.h + (size_t)(at / s->stride)) *
                                (size_t)s->from.w * s->c;
    for (int32_t i = 0; i < s->from.w; i++)
        memcpy(y + (size_t)(i * s->stride + s->first) * s->c, x + (size_t)i * s->c,
               s->c * sizeof *y);
}

void wf_spread(wf_exec *e, float *y, wf_grid to, const float *x, wf_grid from, int32_t stride,
               int32_t first, size_t c)
{
    spreading s = { y, x, to, from, stride, first, c };
    if (!e->dry && !e->stopped)
        wf_pool_run(e->pool, (size_t)to.n * (size_t)to.h, spread_task, &s);
}
