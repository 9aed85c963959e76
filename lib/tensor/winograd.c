/* winograd.c - 3x3 convolutions of stride 1 by Winograd's transforms, both on the fly.
 *
 * A task has some tiles of 4 x 4 pixels of y and at most COLS of its channels. For each block of
 * input channels it transforms the tiles' pixels of x, once for all its columns; then, panel by
 * panel, the weights, and multiplies: 36 products of (tiles, channels) by (channels, panel). What
 * they sum up is transformed back at the end. All of SD1.5's weights transformed would be 8.7 GB;
 * here a panel of them is at hand for as long as the task's tiles need it, so a task should have
 * many tiles: transforming a weight costs about as much as multiplying it with four of them.
 *
 * A tile's sums do not depend on what other tiles the task has, so tasks may be cut by the number
 * of threads. Weights that adapters change are changed before they are transformed. */
#include "tensor/packed.h"

enum {
    COLS = 320,
    CHANNELS = 160,   /* of a block: x's tiles and a panel of weights stay in the cache;
                       * of pairs twice as many                                         */
    MOST_TILES = 128, /* of a task                                                      */
    LEAST_TILES = 32,
    TASKS = 2,        /* for each thread, where there are tiles enough                  */
    LEAST_IN = 128,   /* with fewer channels the direct sum rounds much less            */
    MOST_PAIRED = 256, /* pixels of a sample: rounding to bfloat16 after the transforms
                        * loses 2.8 times what rounding before them does. It pays where
                        * weights are most of the work: with few pixels                 */
    SIDE = 4,         /* of a tile of y, the longer                                     */
    MOST_PARTS = 36,
    TAPS = 9,
    LINE = WF_CACHE_LINE, /* parts lie an odd number of lines apart, or all 36 would fall
                           * onto the same places of the cache                          */
    STRIP = 32        /* channels whose weights are packed at a time                    */
};

static const float nothing[2 * CHANNELS]; /* pixels outside of the image */

typedef struct job {
    const wf_packed  *m;
    const wf_pairs   *pairs; /* NULL: float32 */
    const wf_winograd *w;
    const wf_product *p;
    const wf_kernels *k;
    uint8_t *const   *scratch;
    size_t            parts;        /* of a tile         */
    size_t            across, down; /* tiles of a sample */
    size_t            all;          /* of all samples    */
    size_t            tiles;        /* of a task         */
    size_t            cols;         /* of a task         */
    size_t            col_tiles;
    size_t            channels;     /* of a block        */
    /* floats from one part to the next: of x's tiles, of a panel of weights, of sums */
    size_t            x_plane, w_plane, sum_plane;
    size_t            ldx;
} job;

typedef struct place { float *x, *w, *sums, *packed, *room; } place;

/* Values of x or rows of a panel that n channels are. */
static size_t depth(const job *j, size_t n) { return j->pairs != NULL ? (n + 1) / 2 : n; }

bool wf_winograd_fits(const wf_product *p)
{
    const wf_window *w = &p->window;
    return w->kernel == 3 && w->stride == 1 && w->pad == 1 && w->out_h == w->h &&
           w->out_w == w->w && w->h >= SIDE && w->w >= SIDE && p->in >= LEAST_IN &&
           p->amend_rows == NULL && !p->gated;
}

static job begin(const wf_packed *m, const wf_pairs *pairs, const wf_product *p,
                 const wf_kernels *k)
{
    if (wf_window_rows(&p->window) > MOST_PAIRED) pairs = NULL;
    size_t most = pairs != NULL ? 2 * CHANNELS : CHANNELS, blocks = (p->in + most - 1) / most;
    job j = { .m = m, .pairs = pairs, .p = p, .k = k, .cols = COLS,
              .across = ((size_t)p->window.w + SIDE - 1) / SIDE,
              .col_tiles = (p->out + COLS - 1) / COLS,
              .channels = wf_round_up((p->in + blocks - 1) / blocks, LINE) };
    j.w = pairs != NULL ? &pairs->winograd : &m->winograd;
    j.parts = (j.w->tall + 2) * 6;
    j.down = ((size_t)p->window.h + j.w->tall - 1) / j.w->tall;
    j.all = p->samples * j.across * j.down;
    j.ldx = wf_odd_lines(depth(&j, j.channels));
    return j;
}

/* A task gets `share` tiles or about as many, never more than there are, and what follows. */
static void share_out(job *j, size_t share)
{
    size_t tiles = WF_MIN(WF_MIN(share, j->all), (size_t)MOST_TILES);
    tiles = wf_packed_even(j->all, WF_MAX(tiles, (size_t)LEAST_TILES), j->m->rows);
    j->tiles = tiles;
    j->x_plane = wf_odd_lines(tiles * j->ldx);
    j->w_plane = wf_odd_lines(depth(j, j->channels) * j->m->cols);
    j->sum_plane = wf_odd_lines(tiles * j->m->cols);
}

static size_t sum_floats(const job *j)
{
    size_t cols = WF_MIN(j->p->out, (size_t)COLS);
    return (cols + j->m->cols - 1) / j->m->cols * j->parts * j->sum_plane;
}

static place place_of(const job *j, uint8_t *scratch)
{
    place at;
    at.x = (float *)(void *)scratch;
    at.w = at.x + j->parts * j->x_plane;
    at.sums = at.w + j->parts * j->w_plane;
    at.packed = at.sums + sum_floats(j);
    at.room = at.packed + TAPS * STRIP * j->m->cols;
    return at;
}

/* The pixel at the top left of tile t, of all samples. */
static void find_tile(const job *j, size_t t, size_t *sample, size_t *y, size_t *x)
{
    *sample = t / (j->across * j->down);
    *y = t / j->across % j->down * j->w->tall;
    *x = t % j->across * SIDE;
}

static void transform_tiles(const job *j, const place *at, size_t first, size_t last, size_t c,
                            size_t nc)
{
    const wf_product *p = j->p;
    size_t h = (size_t)p->window.h, w = (size_t)p->window.w;
    for (size_t t = first; t < last; t++) {
        const float *pixel[MOST_PARTS];
        size_t sample, top, left;
        find_tile(j, t, &sample, &top, &left);
        for (size_t i = 0; i < j->parts; i++) {
            size_t y = top + i / 6, x = left + i % 6; /* one pixel further down and right */
            bool inside = y >= 1 && y <= h && x >= 1 && x <= w;
            pixel[i] = inside ? p->x + ((sample * h + y - 1) * w + x - 1) * p->in + c : nothing;
        }
        j->w->input(at->x + (t - first) * j->ldx, j->x_plane, pixel, nc);
    }
}

/* A panel of the weights: (nc, width) in each part. */
static void transform_weights(const job *j, const place *at, size_t width, size_t sample,
                              size_t col, size_t n, size_t c, size_t nc)
{
    for (size_t i = 0; i < nc; i += STRIP) {
        size_t some = WF_MIN((size_t)STRIP, nc - i);
        wf_packed_panel(j->m, j->p, j->k, at->packed, width, at->room, sample,
                        j->p->amend_weight != NULL, col, n, c + i, some);
        j->w->weight(at->w + depth(j, i) * width, j->w_plane, at->packed, some, width);
    }
}

static void multiply_block(const job *j, const place *at, size_t first, size_t last, size_t col,
                           size_t n, size_t c, size_t nc)
{
    float *sums = at->sums;
    for (size_t i = 0; i < n; i += j->m->cols, sums += j->parts * j->sum_plane) {
        size_t some = WF_MIN(j->m->cols, n - i), width = wf_round_up(some, j->m->lanes);
        for (size_t t = first, end; t < last; t = end) {
            end = wf_packed_same_weight(j->p, t, j->across * j->down, last);
            transform_weights(j, at, width, t / (j->across * j->down), col + i, some, c, nc);
            for (size_t part = 0; part < j->parts; part++)
                (j->pairs != NULL ? j->pairs->multiply : j->m->multiply)(
                    sums + part * j->sum_plane + (t - first) * j->m->cols, j->m->cols,
                    at->x + part * j->x_plane + (t - first) * j->ldx, j->ldx,
                    at->w + part * j->w_plane, width, depth(j, nc), end - t, width, NULL, c > 0);
        }
    }
}

static void finish(const job *j, const place *at, size_t first, size_t last, size_t col, size_t n)
{
    const wf_product *p = j->p;
    size_t h = (size_t)p->window.h, w = (size_t)p->window.w;
    for (size_t t = first; t < last; t++) {
        size_t sample, y, x;
        find_tile(j, t, &sample, &y, &x);
        size_t rows = WF_MIN(j->w->tall, h - y), cols = WF_MIN((size_t)SIDE, w - x);
        const float *bias = p->own_bias != NULL ? p->own_bias[sample] : p->bias;
        float *to = p->y + ((sample * h + y) * w + x) * p->out + col;
        for (size_t i = 0; i < n; i += j->m->cols)
            j->w->output(to + i, w * p->out, p->out, rows, cols,
                                  at->sums + i / j->m->cols * j->parts * j->sum_plane +
                                      (t - first) * j->m->cols,
                                  j->sum_plane, WF_MIN(j->m->cols, n - i),
                                  bias != NULL ? bias + col + i : NULL, p->add);
        for (size_t r = 0; r < rows && p->h != NULL; r++) {
            size_t row = (sample * h + y + r) * w + x;
            wf_packed_low_rank(j->m, p, p->y + row * p->out + col, p->out, row, row + cols, col, n);
        }
    }
}

static void task(void *user, size_t task, int32_t worker)
{
    const job *j = user;
    place at = place_of(j, j->scratch[worker]);
    size_t col = task % j->col_tiles * j->cols, n = WF_MIN(j->cols, j->p->out - col);
    size_t first = task / j->col_tiles * j->tiles, last = WF_MIN(first + j->tiles, j->all);
    for (size_t c = 0; c < j->p->in; c += j->channels) {
        size_t nc = WF_MIN(j->channels, j->p->in - c);
        transform_tiles(j, &at, first, last, c, nc);
        multiply_block(j, &at, first, last, col, n, c, nc);
    }
    finish(j, &at, first, last, col, n);
}

void wf_winograd_wide(const wf_packed *m, const wf_pairs *pairs, const wf_product *p,
                      const wf_kernels *k, wf_pool *pool, uint8_t *const *scratch)
{
    job j = begin(m, pairs, p, k);
    size_t threads = (size_t)wf_pool_threads(pool);
    size_t share = wf_packed_share(j.all, j.col_tiles, threads == 1 ? 1 : TASKS * threads);
    j.scratch = scratch;
    share_out(&j, share);
    size_t row_tiles = (j.all + j.tiles - 1) / j.tiles;
    j.cols = wf_packed_task_cols(m, p->out, COLS, row_tiles, threads);
    j.col_tiles = (p->out + j.cols - 1) / j.cols;
    wf_pool_run(pool, row_tiles * j.col_tiles, task, &j);
}

size_t wf_winograd_scratch(const wf_packed *m, const wf_pairs *pairs, const wf_product *p)
{
    job j = begin(m, pairs, p, NULL);
    share_out(&j, j.all); /* more than any number of threads makes of it */
    size_t floats = j.parts * (j.x_plane + j.w_plane) + sum_floats(&j);
    return (floats + TAPS * STRIP * (2 * m->cols + 1)) * sizeof(float);
}
