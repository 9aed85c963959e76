/* outer.c - sums over rows, a^T window(x): the gradients of weights, of pairs as of whole layers.
 *
 * A task is a tile of the result and walks all rows, so that each number is summed by one worker,
 * in the rows' order: the bits do not depend on the number of threads, and no parts have to be
 * added up. Rows are taken ROWS at a time, so that what the tile reads of them stays in the cache.
 * Neighbourhoods are gathered for the tile's channels only. Where a has few columns, each number of
 * x is used about once, and is read where it lies. */
#include "tensor/product.h"

enum {
    ROWS = 128, COLS = 160, /* of a, in a tile                                          */
    PLAIN = 96, TAPPED = 48, /* channels of x, multiples of every tier's vectors         */
    FEW = 16                 /* columns of a for which copying x does not pay            */
};

typedef struct job {
    const wf_outer    *of;
    size_t             count;
    const wf_products *tier;
    uint8_t *const    *scratch;
} job;

static bool is_plain(const wf_outer *o) { return o->window.kernel == 1 && o->window.stride == 1; }

static bool lies_ready(const wf_outer *o) { return is_plain(o) && o->m <= FEW; }

static size_t channels_of(const wf_outer *o)
{
    size_t t = wf_window_taps(&o->window), tapped = WF_MAX(TAPPED * 9 / t, (size_t)1);
    size_t most = t == 1 ? PLAIN : tapped;
    return WF_MIN(most, o->in);
}

static size_t tiles_across(const wf_outer *o)
{
    return (o->in + channels_of(o) - 1) / channels_of(o);
}

static size_t tasks_of(const wf_outer *o) { return (o->m + COLS - 1) / COLS * tiles_across(o); }

/* Rows [row, row + n) of all samples, channels [c, c + nc): (n, taps, nc). */
static void gather(const wf_outer *o, float *to, size_t row, size_t n, size_t c, size_t nc)
{
    wf_product p = { .x = o->x, .in = o->in, .window = o->window };
    size_t each = wf_window_rows(&o->window), width = wf_window_taps(&o->window) * nc;

    for (size_t some; n > 0; n -= some, row += some, to += some * width) {
        some = WF_MIN(n, each - row % each);
        wf_gather(&p, to, row / each, row % each, some, c, nc);
    }
}

static void outer_tile(const job *j, const wf_outer *o, size_t task, float *gathered)
{
    size_t t = wf_window_taps(&o->window), all = o->samples * wf_window_rows(&o->window);
    size_t c = task % tiles_across(o) * channels_of(o), nc = WF_MIN(channels_of(o), o->in - c);
    size_t col = task / tiles_across(o) * COLS, cols = WF_MIN((size_t)COLS, o->m - col);
    float *y = o->y + col * t * o->in + c;

    for (size_t row = 0; row < all; row += ROWS) {
        size_t n = WF_MIN((size_t)ROWS, all - row), ldx = t * nc;
        const float *x = gathered, *a = o->a + row * o->m + col;
        if (lies_ready(o)) {
            x = o->x + row * o->in + c;
            ldx = o->in;
        } else {
            gather(o, gathered, row, n, c, nc);
        }
        for (size_t q = 0; q < t; q++)
            j->tier->tn(y + q * o->in, t * o->in, a, o->m, x + q * nc, ldx, cols, nc, n, 1.0f);
    }
}

static void outer_task(void *user, size_t task, int32_t worker)
{
    const job *j = user;
    const wf_outer *o = j->of;

    while (task >= tasks_of(o)) task -= tasks_of(o++);
    outer_tile(j, o, task, (float *)(void *)j->scratch[worker]);
}

void wf_outer_products(const wf_products *tier, const wf_outer *of, size_t count, wf_pool *pool,
                       uint8_t *const *scratch)
{
    job j = { of, count, tier, scratch };
    size_t tasks = 0;

    for (size_t i = 0; i < count; i++) tasks += tasks_of(&of[i]);
    wf_pool_run(pool, tasks, outer_task, &j);
}

size_t wf_outer_scratch(const wf_outer *o)
{
    size_t width = wf_window_taps(&o->window) * channels_of(o);
    return lies_ready(o) ? 0 : ROWS * width * sizeof(float);
}
