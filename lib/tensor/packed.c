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

enum { COLS = 320, BLOCK = WF_PACKED_BLOCK, LEAST_ROWS = 64, MOST_ROWS = 1024, TASKS = 2 };

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
    size_t            col_tiles;
    size_t            channels;  /* in a block of k                    */
    size_t            width;     /* values of x in a block: taps times */
} job;

/* A worker's scratch. */
typedef struct place {
    float *panels;   /* (columns, width): a block of the weight, packed     */
    float *gathered; /* (m->rows, width)                                    */
    float *room;     /* (m->cols, width) and a line: a panel before packing */
} place;

static size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* Input channels in one block of k: as equal as whole lines allow. Pairs take half of the room. */
static size_t block_channels(const wf_product *p, bool pairs)
{
    size_t block = pairs ? 2 * BLOCK : BLOCK;
    size_t t = wf_window_taps(&p->window), most = WF_MAX(block / t, (size_t)1);
    if (p->in <= most) return p->in;
    if (t > 1) return most >= 16 ? most / 16 * 16 : most;
    size_t blocks = (p->in + block - 1) / block;
    return round_up((p->in + blocks - 1) / blocks, 16);
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
    j.channels = block_channels(p, j.pairs != NULL);
    j.width = j.channels * wf_window_taps(&p->window);
    return j;
}

static size_t panel_floats(const job *j)
{
    return round_up(WF_MIN(j->p->out, (size_t)COLS), j->m->cols) * j->width;
}

static size_t scratch_floats(const job *j)
{
    return panel_floats(j) + j->m->rows * j->width + (j->m->cols + 1) * j->width;
}

static place place_of(const job *j, int32_t worker)
{
    float *s = (float *)(void *)j->scratch[worker];
    float *gathered = s + panel_floats(j);
    return (place){ s, gathered, gathered + j->m->rows * j->width };
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

/* Columns [first, first + n) of a block, panel by panel, each m->cols wide but the last. */
static void pack_block(const job *j, const place *at, size_t sample, bool amend, size_t first,
                       size_t n, size_t c, size_t nc)
{
    size_t depth = wf_window_taps(&j->p->window) * nc;
    for (size_t col = 0; col < n; col += j->m->cols) {
        size_t some = WF_MIN(j->m->cols, n - col);
        if (j->pairs != NULL) {
            pack_pairs(j, at, at->panels + col * ((depth + 1) / 2), round_up(some, j->m->lanes),
                       sample, amend, first + col, some, c, nc);
            continue;
        }
        wf_packed_panel(j->m, j->p, j->k, at->panels + col * depth, round_up(some, j->m->lanes),
                        at->room, sample, amend, first + col, some, c, nc);
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

/* Rows [row, row + n) as the tiles read them. The next ones are asked for. */
static const float *take_rows(const job *j, const place *at, size_t row, size_t n, size_t end,
                              size_t c, size_t nc, size_t *ldx)
{
    const wf_product *p = j->p;
    const float *x = p->x + row * p->in + c;
    *ldx = p->in;
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

/* Rows [row, end) of all samples, columns [col, col + n) of y. */
static void multiply_rows(const job *j, const place *at, size_t row, size_t end, size_t col,
                          size_t n, size_t c, size_t nc, const float *bias, bool add)
{
    const wf_product *p = j->p;
    size_t depth = wf_window_taps(&p->window) * nc, step, ldx;
    if (j->pairs != NULL) depth = (depth + 1) / 2;
    for (; row < end; row += step) {
        step = WF_MIN(j->m->rows, end - row);
        const float *x = take_rows(j, at, row, step, end, c, nc, &ldx);
        for (size_t i = 0; i < n; i += j->m->cols) {
            size_t some = WF_MIN(j->m->cols, n - i), width = round_up(some, j->m->lanes);
            (j->pairs != NULL ? j->pairs->multiply : j->m->multiply)(
                p->y + row * p->out + col + i, p->out, x, ldx, at->panels + i * depth, width, depth,
                step, some, bias != NULL ? bias + i : NULL, add);
        }
    }
}

/* End of the rows from `row` on that have the same weight. */
static size_t same_weight(const job *j, size_t row, size_t end)
{
    const wf_product *p = j->p;
    if (p->amend_weight == NULL || p->variant == NULL) return end;
    size_t n = row / j->rows;
    while (n < p->samples && p->variant[n] == p->variant[row / j->rows]) n++;
    return WF_MIN(end, n * j->rows);
}

/* End of the rows from `row` on that have the same bias. */
static size_t same_bias(const job *j, size_t row, size_t end)
{
    return j->p->own_bias == NULL ? end : WF_MIN(end, (row / j->rows + 1) * j->rows);
}

/* ---- wide ------------------------------------------------------------------------------------ */

/* y += h up, for rows [row, end) of all samples and columns [col, col + n). */
void wf_packed_low_rank(const wf_packed *m, const wf_product *p, size_t row, size_t end,
                        size_t col, size_t n)
{
    size_t rows = wf_window_rows(&p->window);
    while (row < end) {
        size_t sample = row / rows, stop = WF_MIN(end, (sample + 1) * rows);
        size_t lo = p->live[sample].lo, hi = p->live[sample].hi;
        if (lo != hi)
            wf_packed_nn(m, p->y + row * p->out + col, p->out, p->h + row * p->rank + lo, p->rank,
                         p->up + lo * p->out + col, p->out, stop - row, n, hi - lo, 1.0f);
        row = stop;
    }
}

static void wide_task(void *user, size_t task, int32_t worker)
{
    const job *j = user;
    const wf_product *p = j->p;
    place at = place_of(j, worker);
    size_t col = task % j->col_tiles * COLS, n = WF_MIN((size_t)COLS, p->out - col);
    size_t first = task / j->col_tiles * j->tile_rows, last = WF_MIN(first + j->tile_rows, j->all);

    for (size_t c = 0; c < p->in; c += j->channels) {
        size_t nc = WF_MIN(j->channels, p->in - c);
        for (size_t row = first, end; row < last; row = end) {
            end = same_weight(j, row, last);
            pack_block(j, &at, row / j->rows, p->amend_weight != NULL, col, n, c, nc);
            for (size_t part = row, stop; part < end; part = stop) {
                const float *bias = p->own_bias != NULL ? p->own_bias[part / j->rows] : p->bias;
                stop = same_bias(j, part, end);
                multiply_rows(j, &at, part, stop, col, n, c, nc,
                              c == 0 && bias != NULL ? bias + col : NULL, c > 0 || p->add);
            }
        }
    }
    if (p->h != NULL) wf_packed_low_rank(j->m, p, first, last, col, n);
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
        wf_winograd_wide(m, p, k, pool, scratch);
        return;
    }
    j.scratch = scratch;
    j.col_tiles = (p->out + COLS - 1) / COLS;
    size_t threads = (size_t)wf_pool_threads(pool);
    size_t share = threads == 1 ? j.all : j.all * j.col_tiles / (TASKS * threads) + 1;
    j.tile_rows = round_up(WF_MAX(WF_MIN(share, (size_t)MOST_ROWS), (size_t)LEAST_ROWS), m->rows);
    j.row_tiles = (j.all + j.tile_rows - 1) / j.tile_rows;
    wf_pool_run(pool, j.row_tiles * j.col_tiles, wide_task, &j);
}

size_t wf_packed_wide_scratch(const wf_packed *m, const wf_pairs *pairs, const wf_product *p)
{
    job j = begin(m, pairs, p, NULL);
    if (wf_winograd_fits(p)) return wf_winograd_scratch(m, p);
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
            pack_block(j, &at, sample, amend, col, n, c, nc);
            multiply_rows(j, &at, row, row + rows, col, n, c, nc, NULL, c > 0);
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
    enum { DEPTH = 128, MOST_COLS = 48 };
    float panel[DEPTH * MOST_COLS];
    bool add = adds(y, ldy, rows, n, beta);
    for (size_t col = 0; col < n; col += m->cols) {
        size_t some = WF_MIN(m->cols, n - col), width = round_up(some, m->lanes);
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

#if defined(__x86_64__)
TIER(avx2, avx2, NULL)
TIER(avx512, avx512, NULL)
TIER(avx512, avx512_bf16, &wf_pairs_avx512_bf16)
#elif defined(__aarch64__)
TIER(neon, neon, NULL)
#endif
