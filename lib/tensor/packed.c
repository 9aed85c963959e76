/* packed.c - whole products from the inner loops of packed.h, over the workers.
 *
 * A task is a tile of y: some hundred rows by at most COLS columns. For each block of k it packs
 * the weight's columns from the file's type once, and walks its rows `m->rows` at a time: those of
 * x as they lie, or their neighbourhoods gathered next to each other. So a weight is widened and
 * put into order once for each task, and a gathered row is used by all columns of the tile while it
 * is in the nearest cache. OpenBLAS packs both factors of every call, and would pack again what was
 * widened.
 *
 * Blocks of k depend on the layer alone. How rows are shared out among tasks does not touch the
 * bits (packed.h), so it may depend on the number of threads: TASKS for each, but never fewer rows
 * than make packing a small part of the work.
 *
 * What changes rows of x on the way (amend_rows) goes through tiles.c, as do kernels too large for
 * a block. */
#include "tensor/packed.h"

enum {
    COLS = 320, GATED_COLS = 192, BLOCK = WF_PACKED_BLOCK,
    LEAST_ROWS = 64, MOST_ROWS = 1024, TASKS = 2
};

typedef struct job {
    const wf_packed  *m;
    const wf_pairs   *pairs;     /* NULL: float32                      */
    const wf_product *p;
    const wf_kernels *k;
    uint8_t *const   *scratch;
    size_t            rows;      /* of y, in one sample                */
    size_t            all;       /* of all samples                     */
    size_t            tile_rows; /* of a task                          */
    size_t            row_tiles;
    size_t            parts;     /* of a row of y: 2 where it is gated */
    size_t            out;       /* columns of a part                  */
    size_t            cols;      /* of a tile                          */
    size_t            col_tiles;
    size_t            group;     /* column tiles of a task             */
    size_t            channels;  /* in a block of k                    */
    size_t            width;     /* values of x in a block: taps times */
    bool              up;        /* wide(): h up follows, while y is at hand; thin() has an h that
                                  * is not its own                     */
} job;

/* A worker's scratch. */
typedef struct place {
    float *panels;   /* (columns, width): a block of the weight, packed     */
    float *gathered; /* (m->rows, width); of pairs the task's rows          */
    float *room;     /* (m->cols, width) and a line: a panel before packing */
    float *sums;     /* gated: (rows, values and gates) of a task's rows, or of a step's where there
                      * is one block of k */
} place;

/* Input channels in one block of k: as equal as whole lines allow. Pairs take half of the room. */
static size_t block_channels(const wf_product *p, bool pairs)
{
    size_t block = pairs ? 2 * BLOCK : BLOCK;
    size_t t = wf_window_taps(&p->window), most = WF_MAX(block / t, (size_t)1);
    if (p->in <= most) return p->in;
    if (t > 1) return most >= 16 ? most / 16 * 16 : most;
    size_t blocks = (p->in + block - 1) / block;
    return wf_round_up((p->in + blocks - 1) / blocks, 16);
}

static bool is_plain(const wf_product *p) { return p->window.kernel == 1 && p->window.stride == 1; }

static bool fits(const wf_product *p)
{
    return p->amend_rows == NULL && wf_window_taps(&p->window) <= BLOCK;
}

static job begin(const wf_packed *m, const wf_pairs *pairs, const wf_product *p,
                 const wf_kernels *k)
{
    job j = { .m = m, .pairs = is_plain(p) ? pairs : NULL, .p = p, .k = k,
              .rows = wf_window_rows(&p->window) };
    j.all = p->samples * j.rows;
    j.parts = p->gated ? 2 : 1;
    j.out = p->out / j.parts;
    j.cols = p->gated ? GATED_COLS : COLS;
    j.channels = block_channels(p, j.pairs != NULL);
    j.width = j.channels * wf_window_taps(&p->window);
    return j;
}

static size_t panel_floats(const job *j)
{
    return j->parts * wf_round_up(WF_MIN(j->out, j->cols), j->m->cols) * j->width;
}

/* Rows of a task at most, of which only multiples of the tile are there. */
static size_t most_rows(const job *j)
{
    return wf_round_up(WF_MAX(WF_MIN(j->all, (size_t)MOST_ROWS), (size_t)LEAST_ROWS), j->m->rows);
}

/* Floats of a row that is narrowed once for a task: of a block, or of all its blocks where the
 * task's column tiles follow each other. */
static size_t narrow_width(const job *j)
{
    return ((j->p->gated ? j->p->in : j->channels) + 1) / 2;
}

static size_t gathered_floats(const job *j)
{
    return j->pairs != NULL ? most_rows(j) * narrow_width(j) : j->m->rows * j->width;
}

static size_t sum_floats(const job *j)
{
    if (!j->p->gated) return 0;
    return (j->channels < j->p->in ? most_rows(j) : j->m->rows) * 2 * WF_MIN(j->out, j->cols);
}

static size_t scratch_floats(const job *j)
{
    return panel_floats(j) + gathered_floats(j) + (j->m->cols + 1) * j->width + sum_floats(j);
}

static place place_of(const job *j, int32_t worker)
{
    float *s = (float *)(void *)j->scratch[worker];
    float *gathered = s + panel_floats(j);
    float *room = gathered + gathered_floats(j);
    return (place){ s, gathered, room, room + (j->m->cols + 1) * j->width };
}

size_t wf_packed_task_cols(const wf_packed *m, size_t out, size_t most, size_t row_tiles,
                           size_t threads)
{
    size_t tiles = (out + most - 1) / most, wanted = (threads + row_tiles - 1) / row_tiles;
    if (tiles >= wanted) return most;
    return WF_MAX(wf_round_up((out + wanted - 1) / wanted, m->lanes), m->cols);
}

/* ---- a block of the weight ------------------------------------------------------------------- */

/* Is the weight packed straight from where it lies? */
static bool packs_directly(const wf_product *p)
{
    return p->type == WF_F32 || p->type == WF_F16 || p->type == WF_BF16;
}

void wf_packed_panel(const wf_packed *m, const wf_product *p, const wf_kernels *k, float *panel,
                     size_t width, float *room, size_t sample, bool amend, size_t first, size_t n,
                     size_t c, size_t nc)
{
    size_t t = wf_window_taps(&p->window);
    const uint8_t *w = p->weight;
    if (amend || !packs_directly(p)) {
        wf_load_weight(p, k, room, room + m->cols * t * nc, first, n, c, nc);
        if (amend) p->amend_weight(p->user, sample, room, first, n, c, nc);
        m->pack(panel, width, room, WF_F32, t * nc, n, t * nc, 1);
        return;
    }
    size_t size = (size_t)(wf_dtype_bits(p->type) / 8);
    if (!p->ordered || t == 1) {
        m->pack(panel, width, w + (first * p->in + c) * t * size, p->type, t * p->in, n, t * nc, t);
        return;
    }
    for (size_t q = 0; q < t; q++)
        m->pack(panel + q * nc * width, width, w + ((first * t + q) * p->in + c) * size, p->type,
                t * p->in, n, nc, 1);
}

/* The same as pairs of bfloat16, of a layer without a window. */
static void pack_pairs(const job *j, const place *at, float *panel, size_t width, size_t sample,
                       bool amend, size_t first, size_t n, size_t c, size_t nc)
{
    const wf_product *p = j->p;
    if (amend || !packs_directly(p)) {
        wf_load_weight(p, j->k, at->room, at->room + j->m->cols * nc, first, n, c, nc);
        if (amend) p->amend_weight(p->user, sample, at->room, first, n, c, nc);
        j->pairs->pack(panel, width, at->room, WF_F32, nc, n, nc);
        return;
    }
    const uint8_t *w = p->weight;
    w += (first * p->in + c) * (size_t)(wf_dtype_bits(p->type) / 8);
    j->pairs->pack(panel, width, w, p->type, p->in, n, nc);
}

/* Columns [first, first + n) of a block of one part, panel by panel, each m->cols wide but the
 * last; the parts lie one behind the other. */
static void pack_block(const job *j, const place *at, size_t part, size_t sample, bool amend,
                       size_t first, size_t n, size_t c, size_t nc)
{
    size_t depth = wf_window_taps(&j->p->window) * nc;
    if (j->pairs != NULL) depth = (depth + 1) / 2;
    float *panel = at->panels + part * wf_round_up(n, j->m->lanes) * depth;
    first += part * j->out;
    for (size_t col = 0; col < n; col += j->m->cols) {
        size_t some = WF_MIN(j->m->cols, n - col), width = wf_round_up(some, j->m->lanes);
        if (j->pairs != NULL)
            pack_pairs(j, at, panel + col * depth, width, sample, amend, first + col, some, c, nc);
        else
            wf_packed_panel(j->m, j->p, j->k, panel + col * depth, width, at->room, sample, amend,
                            first + col, some, c, nc);
    }
}

/* ---- rows times a block ---------------------------------------------------------------------- */

/* Neighbourhoods of rows [row, row + n) of all samples. */
static void gather(const job *j, float *to, size_t row, size_t n, size_t c, size_t nc)
{
    size_t depth = wf_window_taps(&j->p->window) * nc;
    while (n > 0) {
        size_t sample = row / j->rows, first = row % j->rows, some = WF_MIN(n, j->rows - first);
        wf_gather(j->p, to, sample, first, some, c, nc);
        to += some * depth;
        row += some;
        n -= some;
    }
}

/* Rows [row, row + n) as the tiles read them, `first` the task's first. Those that have to be
 * fetched are asked for one step ahead. */
static const float *take_rows(const job *j, const place *at, size_t first, size_t row, size_t n,
                              size_t end, size_t c, size_t nc, size_t *ldx)
{
    const wf_product *p = j->p;
    const float *x = p->x + row * p->in + c;
    *ldx = p->in;
    if (j->pairs != NULL && j->group > 1) {
        *ldx = narrow_width(j);
        return at->gathered + (row - first) * *ldx + (p->gated ? c / 2 : 0);
    }
    if (!is_plain(p)) {
        gather(j, at->gathered, row, n, c, nc);
        *ldx = wf_window_taps(&p->window) * nc;
        return at->gathered;
    }
    for (size_t r = n; r < 2 * n && row + r < end; r++)
        for (size_t i = 0; i < nc; i += 16) __builtin_prefetch(x + r * p->in + i, 0, 2);
    if (j->pairs == NULL) return x;
    *ldx = (nc + 1) / 2;
    j->pairs->narrow(at->gathered, *ldx, x, p->in, n, nc);
    return at->gathered;
}

/* Rows [row, row + rows) of y from their sums. */
static void gate(const job *j, float *sums, size_t row, size_t rows, size_t col, size_t n)
{
    const wf_product *p = j->p;
    for (size_t part = 0; part < 2 && p->h != NULL; part++)
        wf_packed_low_rank(j->m, p, sums + part * n, 2 * n, row, row + rows, part * j->out + col,
                           n);
    for (size_t r = 0; r < rows; r++, sums += 2 * n)
        j->k->geglu(p->y + (row + r) * j->out + col, sums, sums + n, n);
}

/* Rows [row, end) of all samples, columns [col, col + n) of y, which of a task begins at row
 * `first`. */
static void multiply_rows(const job *j, const place *at, size_t first, size_t row, size_t end,
                          size_t col, size_t n, size_t c, size_t nc, const float *bias, bool add)
{
    const wf_product *p = j->p;
    size_t depth = wf_window_taps(&p->window) * nc, step, ldx, ldy = p->gated ? 2 * n : p->out;
    if (j->pairs != NULL) depth = (depth + 1) / 2;
    for (; row < end; row += step) {
        step = WF_MIN(j->m->rows, end - row);
        const float *x = take_rows(j, at, first, row, step, end, c, nc, &ldx);
        float *y = p->y + row * p->out + col, *sums = at->sums;
        if (p->gated) y = sums += j->channels < p->in ? (row - first) * ldy : 0;
        for (size_t i = 0; i < j->parts * n; i += WF_MIN(j->m->cols, n - i % n)) {
            size_t some = WF_MIN(j->m->cols, n - i % n), width = wf_round_up(some, j->m->lanes);
            const float *panel = at->panels + i / n * wf_round_up(n, j->m->lanes) * depth;
            (j->pairs != NULL ? j->pairs->multiply : j->m->multiply)(
                y + i, ldy, x, ldx, panel + i % n * depth, width, depth, step, some,
                bias != NULL ? bias + i / n * j->out + i % n : NULL, add);
        }
        if (c + nc < p->in) continue;
        if (p->gated) gate(j, sums, row, step, col, n);
        else if (j->up) wf_packed_low_rank(j->m, p, y, p->out, row, row + step, col, n);
    }
}

size_t wf_packed_same_weight(const wf_product *p, size_t row, size_t each, size_t end)
{
    size_t n = row / each;
    if (p->amend_weight == NULL || p->variant == NULL) return end;
    while (n < p->samples && p->variant[n] == p->variant[row / each]) n++;
    return WF_MIN(end, n * each);
}

/* End of the rows from `row` on that have the same bias. */
static size_t same_bias(const job *j, size_t row, size_t end)
{
    return j->p->own_bias == NULL ? end : WF_MIN(end, (row / j->rows + 1) * j->rows);
}

/* ---- wide ------------------------------------------------------------------------------------ */

void wf_packed_low_rank(const wf_packed *m, const wf_product *p, float *y, size_t ldy, size_t row,
                        size_t end, size_t col, size_t n)
{
    size_t rows = wf_window_rows(&p->window);
    while (row < end) {
        size_t sample = row / rows, stop = WF_MIN(end, (sample + 1) * rows);
        size_t lo = p->live[sample].lo, hi = p->live[sample].hi;
        if (lo != hi)
            wf_packed_nn(m, y, ldy, p->h + row * p->rank + lo, p->rank, p->up + lo * p->out + col,
                         p->out, stop - row, n, hi - lo, 1.0f);
        y += (stop - row) * ldy;
        row = stop;
    }
}

/* Columns [col, col + n) of rows [first, last), channels [c, c + nc). */
static void wide_block(const job *j, const place *at, size_t first, size_t last, size_t col,
                       size_t n, size_t c, size_t nc)
{
    const wf_product *p = j->p;
    for (size_t row = first, end; row < last; row = end) {
        end = wf_packed_same_weight(p, row, j->rows, last);
        for (size_t part = 0; part < j->parts; part++)
            pack_block(j, at, part, row / j->rows, p->amend_weight != NULL, col, n, c, nc);
        for (size_t part = row, stop; part < end; part = stop) {
            const float *bias = p->own_bias != NULL ? p->own_bias[part / j->rows] : p->bias;
            stop = same_bias(j, part, end);
            multiply_rows(j, at, first, part, stop, col, n, c, nc,
                          c == 0 && bias != NULL ? bias + col : NULL, c > 0 || p->add);
        }
    }
}

static void narrow_rows(const job *j, const place *at, size_t first, size_t last, size_t c,
                        size_t nc)
{
    const wf_product *p = j->p;
    j->pairs->narrow(at->gathered, narrow_width(j), p->x + first * p->in + c, p->in, last - first,
                     nc);
}

static void wide_task(void *user, size_t task, int32_t worker)
{
    const job *j = user;
    const wf_product *p = j->p;
    place at = place_of(j, worker);
    size_t groups = (j->col_tiles + j->group - 1) / j->group;
    size_t cols = j->group * j->cols, left = task % groups * cols;
    size_t right = WF_MIN(left + cols, j->out);
    size_t first = task / groups * j->tile_rows, last = WF_MIN(first + j->tile_rows, j->all);

    if (p->gated) { /* sums are kept for a tile's columns only */
        if (j->group > 1) narrow_rows(j, &at, first, last, 0, p->in);
        for (size_t col = left; col < right; col += j->cols)
            for (size_t c = 0; c < p->in; c += j->channels)
                wide_block(j, &at, first, last, col, WF_MIN(j->cols, right - col), c,
                           WF_MIN(j->channels, p->in - c));
        return;
    }
    for (size_t c = 0; c < p->in; c += j->channels) {
        size_t nc = WF_MIN(j->channels, p->in - c);
        if (j->group > 1) narrow_rows(j, &at, first, last, c, nc);
        for (size_t col = left; col < right; col += j->cols)
            wide_block(j, &at, first, last, col, WF_MIN(j->cols, right - col), c, nc);
    }
}

void wf_packed_wide(const wf_packed *m, const wf_pairs *pairs, const wf_products *tier,
                    const wf_product *p, const wf_kernels *k, wf_pool *pool,
                    uint8_t *const *scratch)
{
    job j = begin(m, pairs, p, k);
    if (!fits(p)) {
        wf_tiles_wide(tier, p, k, pool, scratch);
        return;
    }
    if (wf_winograd_fits(p)) {
        wf_winograd_wide(m, pairs, p, k, pool, scratch);
        return;
    }
    j.scratch = scratch;
    j.up = p->h != NULL;
    j.col_tiles = (j.out + j.cols - 1) / j.cols;
    size_t threads = (size_t)wf_pool_threads(pool);
    size_t share = wf_packed_share(j.all, j.col_tiles, threads == 1 ? 1 : TASKS * threads);
    share = WF_MAX(WF_MIN(share, (size_t)MOST_ROWS), (size_t)LEAST_ROWS);
    j.tile_rows = wf_packed_even(j.all, share, m->rows);
    j.row_tiles = (j.all + j.tile_rows - 1) / j.tile_rows;
    j.cols = wf_packed_task_cols(m, j.out, j.cols, j.row_tiles, threads);
    j.col_tiles = (j.out + j.cols - 1) / j.cols;
    /* Rows are narrowed once for all columns of a task: as many as leave tasks enough. */
    size_t groups = (TASKS * threads + j.row_tiles - 1) / j.row_tiles;
    j.group = j.pairs == NULL ? 1 : WF_MAX(j.col_tiles / WF_MIN(groups, j.col_tiles), (size_t)1);
    wf_pool_run(pool, j.row_tiles * ((j.col_tiles + j.group - 1) / j.group), wide_task, &j);
}

size_t wf_packed_wide_scratch(const wf_packed *m, const wf_pairs *pairs, const wf_product *p)
{
    job j = begin(m, pairs, p, NULL);
    if (wf_winograd_fits(p)) return wf_winograd_scratch(m, pairs, p);
    return fits(p) ? scratch_floats(&j) * sizeof(float) : wf_tiles_wide_scratch(p);
}

/* ---- thin: a task is some rows of one sample ------------------------------------------------- */

static void thin_task(void *user, size_t task, int32_t worker)
{
    const job *j = user;
    const wf_product *p = j->p;
    place at = place_of(j, worker);
    size_t sample = task / j->row_tiles, first = task % j->row_tiles * j->tile_rows;
    size_t rows = WF_MIN(j->tile_rows, j->rows - first), row = sample * j->rows + first;
    wf_span live = p->live[sample];
    bool amend = p->amended != NULL && p->amended[sample];

    if (live.lo == live.hi) return;
    for (size_t col = live.lo; col < live.hi; col += COLS)
        for (size_t c = 0; c < p->in; c += j->channels) {
            size_t n = WF_MIN((size_t)COLS, live.hi - col), nc = WF_MIN(j->channels, p->in - c);
            pack_block(j, &at, 0, sample, amend, col, n, c, nc);
            multiply_rows(j, &at, row, row, row + rows, col, n, c, nc, NULL, c > 0);
        }
    if (p->finish != NULL)
        p->finish(p->user, sample, first, rows, p->y + row * p->out + live.lo);
}

void wf_packed_thin(const wf_packed *m, const wf_products *tier, const wf_product *p,
                    const wf_kernels *k, wf_pool *pool, uint8_t *const *scratch)
{
    job j = begin(m, NULL, p, k);
    if (!fits(p)) {
        wf_tiles_thin(tier, p, k, pool, scratch);
        return;
    }
    j.scratch = scratch;
    j.tile_rows = WF_TILE_ROWS;
    j.row_tiles = (j.rows + j.tile_rows - 1) / j.tile_rows;
    wf_pool_run(pool, p->samples * j.row_tiles, thin_task, &j);
}

size_t wf_packed_thin_scratch(const wf_packed *m, const wf_product *p)
{
    job j = begin(m, NULL, p, NULL);
    return fits(p) ? scratch_floats(&j) * sizeof(float) : wf_tiles_thin_scratch(p);
}

/* ---- products of a tile's size --------------------------------------------------------------- */

static bool adds(float *y, size_t ldy, size_t rows, size_t n, float beta)
{
    for (size_t r = 0; r < rows && beta != 0.0f && beta != 1.0f; r++)
        for (size_t i = 0; i < n; i++) y[r * ldy + i] *= beta;
    return beta != 0.0f;
}

void wf_packed_nt(const wf_packed *m, float *y, size_t ldy, const float *x, size_t ldx,
                  const float *w, size_t ldw, size_t rows, size_t n, size_t k, float beta)
{
    enum { DEPTH = 128 };
    float panel[DEPTH * WF_PACKED_MOST_COLS];
    bool add = adds(y, ldy, rows, n, beta);
    for (size_t col = 0; col < n; col += m->cols) {
        size_t some = WF_MIN(m->cols, n - col), width = wf_round_up(some, m->lanes);
        for (size_t i = 0; i < k; i += DEPTH) {
            size_t depth = WF_MIN((size_t)DEPTH, k - i);
            m->pack(panel, width, w + col * ldw + i, WF_F32, ldw, some, depth, 1);
            m->multiply(y + col, ldy, x + i, ldx, panel, width, depth, rows, some, NULL,
                        add || i > 0);
        }
    }
}

void wf_packed_nn(const wf_packed *m, float *y, size_t ldy, const float *x, size_t ldx,
                  const float *w, size_t ldw, size_t rows, size_t n, size_t k, float beta)
{
    bool add = adds(y, ldy, rows, n, beta);
    for (size_t col = 0; col < n; col += m->cols)
        for (size_t i = 0; i < k; i += BLOCK)
            m->multiply(y + col, ldy, x + i, ldx, w + i * ldw + col, ldw,
                        WF_MIN((size_t)BLOCK, k - i), rows, WF_MIN(m->cols, n - col), NULL,
                        add || i > 0);
}

void wf_packed_tn(const wf_packed *m, float *y, size_t ldy, const float *x, size_t ldx,
                  const float *w, size_t ldw, size_t rows, size_t n, size_t k, float beta)
{
    bool add = adds(y, ldy, rows, n, beta);
    for (size_t col = 0; col < n; col += m->cols)
        for (size_t i = 0; i < k; i += BLOCK)
            m->multiply_turned(y + col, ldy, x + i * ldx, ldx, w + i * ldw + col, ldw,
                               WF_MIN((size_t)BLOCK, k - i), rows, WF_MIN(m->cols, n - col),
                               add || i > 0);
}

/* ---- tiers ----------------------------------------------------------------------------------- */

/* A tier by the tiles of `set`, with PAIRS of bfloat16 or NULL. */
#define TIER(set, tier, PAIRS)                                                                   \
    static void tier##_wide(const wf_product *p, const wf_kernels *k, wf_pool *pool,             \
                           uint8_t *const *scratch)                                              \
    {                                                                                            \
        wf_packed_wide(&wf_packed_##set, PAIRS, &wf_products_##tier, p, k, pool, scratch);       \
    }                                                                                            \
    static void tier##_thin(const wf_product *p, const wf_kernels *k, wf_pool *pool,             \
                           uint8_t *const *scratch)                                              \
    {                                                                                            \
        wf_packed_thin(&wf_packed_##set, &wf_products_##tier, p, k, pool, scratch);              \
    }                                                                                            \
    static size_t tier##_wide_scratch(const wf_product *p)                                       \
    {                                                                                            \
        return wf_packed_wide_scratch(&wf_packed_##set, PAIRS, p);                               \
    }                                                                                            \
    static size_t tier##_thin_scratch(const wf_product *p)                                       \
    {                                                                                            \
        return wf_packed_thin_scratch(&wf_packed_##set, p);                                      \
    }                                                                                            \
    static void tier##_nt(float *y, size_t ldy, const float *x, size_t ldx, const float *w,      \
                         size_t ldw, size_t m, size_t n, size_t k, float beta)                   \
    {                                                                                            \
        wf_packed_nt(&wf_packed_##set, y, ldy, x, ldx, w, ldw, m, n, k, beta);                   \
    }                                                                                            \
    static void tier##_nn(float *y, size_t ldy, const float *x, size_t ldx, const float *w,      \
                         size_t ldw, size_t m, size_t n, size_t k, float beta)                   \
    {                                                                                            \
        wf_packed_nn(&wf_packed_##set, y, ldy, x, ldx, w, ldw, m, n, k, beta);                   \
    }                                                                                            \
    static void tier##_tn(float *y, size_t ldy, const float *x, size_t ldx, const float *w,      \
                         size_t ldw, size_t m, size_t n, size_t k, float beta)                   \
    {                                                                                            \
        wf_packed_tn(&wf_packed_##set, y, ldy, x, ldx, w, ldw, m, n, k, beta);                   \
    }                                                                                            \
    static void tier##_attend(float *o, const wf_attention *a, const wf_kernels *k, size_t task, \
                             float *scratch)                                                     \
    {                                                                                            \
        (void)k;                                                                                 \
        wf_packed_attend(&wf_packed_##set, PAIRS, o, a, task, scratch);                          \
    }                                                                                            \
    static size_t tier##_attend_scratch(const wf_attention *a)                                   \
    {                                                                                            \
        return wf_packed_attend_scratch(&wf_packed_##set, a);                                    \
    }                                                                                            \
    const wf_products wf_products_##tier = {                                                     \
        #tier, tier##_nt, tier##_nn, tier##_tn, tier##_wide, tier##_thin, tier##_wide_scratch,   \
        tier##_thin_scratch, tier##_attend, tier##_attend_scratch, WF_PACKED_QUERIES,            \
    };

TIER(plain, bf16_emulated, &wf_pairs_plain)
#if defined(__x86_64__)
TIER(avx2, avx2, NULL)
TIER(avx512, avx512, NULL)
TIER(avx512, avx512_bf16, &wf_pairs_avx512_bf16)
#elif defined(__aarch64__)
TIER(neon, neon, NULL)
#endif
