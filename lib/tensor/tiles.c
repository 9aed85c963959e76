/* tiles.c - a product over the workers, a tile at a time.
 *
 * Work is cut into tiles of WF_TILE_ROWS x COLS of y, and K into blocks that fit a cache. For each
 * block the weight's tile is widened from the file's type and put into the order (ky, kx, in), the
 * neighbourhoods are gathered, and the tier multiplies the two. Small images share a widened tile
 * among several samples, but each sample's product is a call of its own, so that its bits do not
 * depend on its neighbours. A plain product reads x as it lies, and an ordered weight of one tap
 * too. */
#include "tensor/product.h"

enum { ROWS = WF_TILE_ROWS, COLS = 320, BLOCK = 1152 };

typedef struct job {
    const wf_product  *p;
    const wf_products *tier;
    const wf_kernels  *k;
    uint8_t *const    *scratch;
    size_t             rows;      /* of y, in one sample */
    size_t             row_tiles; /* of one sample       */
    size_t             col_tiles;
    size_t             group;     /* samples in a task   */
} job;

/* Input channels in one block of K. */
static size_t block_channels(const wf_product *p)
{
    return WF_MIN(BLOCK / wf_window_taps(&p->window), p->in);
}

/* The left factor's rows are x's as they lie. */
static bool is_plain(const wf_product *p)
{
    return p->window.kernel == 1 && p->window.stride == 1 && p->amend_rows == NULL;
}

/* The right factor is the weight as it lies. */
static bool is_ready(const wf_product *p)
{
    return p->ordered && p->window.kernel == 1 && p->amend_weight == NULL;
}

void wf_gather(const wf_product *p, float *tile, size_t sample, size_t row, size_t rows, size_t c,
               size_t nc)
{
    const wf_window *v = &p->window;
    const float *x = p->x + sample * (size_t)v->h * (size_t)v->w * p->in + c;
    for (size_t r = 0; r < rows; r++) {
        int32_t oy = (int32_t)((row + r) / (size_t)v->out_w);
        int32_t ox = (int32_t)((row + r) % (size_t)v->out_w);
        float *to = tile + r * wf_window_taps(v) * nc;
        for (int32_t ky = 0; ky < v->kernel; ky++) {
            int32_t iy = oy * v->stride + ky - v->pad;
            for (int32_t kx = 0; kx < v->kernel; kx++, to += nc) {
                int32_t ix = ox * v->stride + kx - v->pad;
                if (iy < 0 || iy >= v->h || ix < 0 || ix >= v->w)
                    memset(to, 0, nc * sizeof *to);
                else
                    memcpy(to, x + ((size_t)iy * (size_t)v->w + (size_t)ix) * p->in,
                           nc * sizeof *to);
            }
        }
    }
}

static void widen(const wf_kernels *k, float *dst, const void *src, wf_dtype type, size_t first,
                  size_t n)
{
    const uint8_t *s = (const uint8_t *)src + first * (size_t)(wf_dtype_bits(type) / 8);
    if (type == WF_F16) k->widen_f16(dst, s, n);
    else if (type == WF_BF16) k->widen_bf16(dst, s, n);
    else if (type == WF_F32) memcpy(dst, s, n * sizeof *dst);
    else wf_widen_any(dst, s, type, n);
}

/* to (taps, nc) with `stride` floats from tap to tap = channels [c, c + nc) of row o of a weight
 * (out, in, taps). line holds taps * nc floats. */
static void load_row(const wf_kernels *k, float *to, size_t stride, float *line, const void *weight,
                     wf_dtype type, size_t in, size_t t, size_t o, size_t c, size_t nc)
{
    size_t first = (o * in + c) * t;
    if (t == 1) {
        widen(k, to, weight, type, first, nc);
        return;
    }
    widen(k, line, weight, type, first, t * nc);
    for (size_t i = 0; i < nc; i++)
        for (size_t q = 0; q < t; q++) to[q * stride + i] = line[i * t + q];
}

void wf_load_weight(const wf_product *p, const wf_kernels *k, float *tile, float *line,
                    size_t first, size_t count, size_t c, size_t nc)
{
    const float *ordered = p->weight;
    size_t t = wf_window_taps(&p->window);
    for (size_t o = 0; o < count; o++) {
        float *to = tile + o * t * nc;
        if (!p->ordered) {
            load_row(k, to, nc, line, p->weight, p->type, p->in, t, first + o, c, nc);
            continue;
        }
        for (size_t q = 0; q < t; q++)
            memcpy(to + q * nc, ordered + ((first + o) * t + q) * p->in + c, nc * sizeof *to);
    }
}

void wf_order_weight(float *dst, const wf_kernels *k, const void *weight, wf_dtype type, size_t out,
                     size_t in, size_t taps)
{
    float line[BLOCK];
    size_t channels = taps == 1 ? in : WF_MIN(BLOCK / taps, in);
    for (size_t o = 0; o < out; o++)
        for (size_t c = 0; c < in; c += channels)
            load_row(k, dst + o * taps * in + c, in, line, weight, type, in, taps, o, c,
                     WF_MIN(channels, in - c));
}

static size_t gathered_floats(const wf_product *p)
{
    return is_plain(p) ? 0 : ROWS * wf_window_taps(&p->window) * block_channels(p);
}

/* ---- thin: a task is one row tile of one sample ---- */

/* Does the sample read the weight as it lies? */
static bool lies_ready(const wf_product *p, size_t sample)
{
    return p->window.kernel == 1 && (p->amended == NULL || !p->amended[sample]);
}

static void thin_task(void *user, size_t task, int32_t worker)
{
    const job *j = user;
    const wf_product *p = j->p;
    size_t sample = task / j->row_tiles, row = task % j->row_tiles * ROWS;
    size_t rows = WF_MIN((size_t)ROWS, j->rows - row), t = wf_window_taps(&p->window);
    size_t lo = p->live[sample].lo, count = p->live[sample].hi - lo, channels = block_channels(p);
    float *y = p->y + (sample * j->rows + row) * p->out + lo;
    float *gathered = (float *)(void *)j->scratch[worker], *tile = gathered + gathered_floats(p);

    bool ready = lies_ready(p, sample);

    if (count == 0) return;
    if (is_plain(p) && ready) channels = p->in; /* in one piece */
    for (size_t c = 0; c < p->in; c += channels) {
        size_t nc = WF_MIN(channels, p->in - c), ldx = p->in, ldw = p->in;
        const float *x = p->x + (sample * j->rows + row) * p->in + c;
        const float *w = (const float *)p->weight + lo * p->in + c;
        if (!is_plain(p)) {
            wf_gather(p, gathered, sample, row, rows, c, nc);
            x = gathered;
            ldx = t * nc;
        }
        if (!ready) {
            wf_load_weight(p, j->k, tile, NULL, lo, count, c, nc);
            if (p->amended != NULL && p->amended[sample])
                p->amend_weight(p->user, sample, tile, lo, count, c, nc);
            w = tile;
            ldw = t * nc;
        }
        j->tier->nt(y, p->out, x, ldx, w, ldw, rows, count, t * nc, c == 0 ? 0.0f : 1.0f);
    }
    if (p->finish != NULL) p->finish(p->user, sample, row, rows, y);
}

size_t wf_tiles_thin_scratch(const wf_product *p)
{
    size_t tile = is_ready(p) ? 0 : p->out * wf_window_taps(&p->window) * block_channels(p);
    return (gathered_floats(p) + tile) * sizeof(float);
}

void wf_tiles_thin(const wf_products *tier, const wf_product *p, const wf_kernels *k, wf_pool *pool,
                   uint8_t *const *scratch)
{
    job j = { .p = p, .tier = tier, .k = k, .scratch = scratch,
              .rows = wf_window_rows(&p->window) };
    j.row_tiles = (j.rows + ROWS - 1) / ROWS;
    wf_pool_run(pool, p->samples * j.row_tiles, thin_task, &j);
}

/* ---- wide: a task is one tile of y, for a group of samples ---- */

/* A tile of y: rows [row, row + rows) of samples [first, last), columns [col, col + cols) of W. */
typedef struct tile {
    float *y; /* where its first row begins */
    size_t ldy;
    size_t first, last, row, rows, col, cols;
} tile;

static float *tile_rows(const job *j, const tile *t, size_t sample)
{
    return t->y + (sample - t->first) * j->rows * t->ldy;
}

/* What the products are added to: every block adds. */
static void start_tile(const job *j, const tile *t, size_t sample)
{
    const wf_product *p = j->p;
    const float *bias = p->own_bias != NULL ? p->own_bias[sample] : p->bias;
    float *y = tile_rows(j, t, sample);
    for (size_t r = 0; r < t->rows; r++, y += t->ldy) {
        if (p->add && bias != NULL) j->k->add(y, bias + t->col, t->cols);
        else if (!p->add && bias != NULL) memcpy(y, bias + t->col, t->cols * sizeof *y);
        else if (!p->add) memset(y, 0, t->cols * sizeof *y);
    }
}

static void add_low_rank(const job *j, const tile *t, size_t sample)
{
    const wf_product *p = j->p;
    size_t lo = p->live[sample].lo, hi = p->live[sample].hi, at = sample * j->rows + t->row;
    if (lo == hi) return;
    j->tier->nn(tile_rows(j, t, sample), t->ldy, p->h + at * p->rank + lo, p->rank,
                p->up + lo * p->out + t->col, p->out, t->rows, t->cols, hi - lo, 1.0f);
}

static void wide_tile(const job *j, const tile *to, float *gathered)
{
    const wf_product *p = j->p;
    size_t t = wf_window_taps(&p->window), channels = block_channels(p), cols = to->cols;
    float *weight = gathered + gathered_floats(p), *line = weight + cols * t * channels;

    for (size_t n = to->first; n < to->last; n++) start_tile(j, to, n);
    for (size_t c = 0; c < p->in; c += channels) {
        size_t nc = WF_MIN(channels, p->in - c), ldw = is_ready(p) ? p->in : t * nc;
        const float *w = is_ready(p) ? (const float *)p->weight + to->col * p->in + c : weight;
        for (size_t n = to->first; n < to->last; n++) {
            const float *x = p->x + (n * j->rows + to->row) * p->in + c;
            size_t ldx = p->in;
            bool other = p->variant != NULL && p->amend_weight != NULL && n > to->first &&
                         p->variant[n] != p->variant[n - 1];
            if (!is_ready(p) && (n == to->first || other)) {
                wf_load_weight(p, j->k, weight, line, to->col, cols, c, nc);
                if (p->amend_weight != NULL)
                    p->amend_weight(p->user, n, weight, to->col, cols, c, nc);
            }
            if (!is_plain(p)) {
                wf_gather(p, gathered, n, to->row, to->rows, c, nc);
                x = gathered;
                ldx = t * nc;
            }
            if (p->amend_rows != NULL &&
                !p->amend_rows(p->user, n, gathered, to->row, to->rows, c, nc))
                continue;
            j->tier->nt(tile_rows(j, to, n), to->ldy, x, ldx, w, ldw, to->rows, cols, t * nc, 1.0f);
        }
    }
    for (size_t n = to->first; n < to->last && p->h != NULL; n++) add_low_rank(j, to, n);
}

static void wide_task(void *user, size_t task, int32_t worker)
{
    const job *j = user;
    const wf_product *p = j->p;
    size_t out = p->gated ? p->out / 2 : p->out;
    tile t = { .col = task % j->col_tiles * COLS, .row = task / j->col_tiles % j->row_tiles * ROWS,
               .first = task / j->col_tiles / j->row_tiles * j->group };
    float *scratch = (float *)(void *)j->scratch[worker];
    t.cols = WF_MIN((size_t)COLS, out - t.col);
    t.rows = WF_MIN((size_t)ROWS, j->rows - t.row);
    t.last = WF_MIN(t.first + j->group, p->samples);
    float *y = p->y + (t.first * j->rows + t.row) * out + t.col;
    if (!p->gated) {
        t.y = y;
        t.ldy = p->out;
        wide_tile(j, &t, scratch);
        return;
    }
    tile gates = t; /* the values' sums, the gates' beside them, and behind them the rest */
    t.y = scratch;
    gates.y = scratch + t.cols;
    t.ldy = gates.ldy = 2 * t.cols;
    gates.col += out;
    wide_tile(j, &t, scratch + ROWS * 2 * COLS);
    wide_tile(j, &gates, scratch + ROWS * 2 * COLS);
    size_t rows = (t.last - t.first - 1) * j->rows + t.rows;
    for (size_t r = 0; r < rows; r++, y += out, scratch += t.ldy)
        j->k->geglu(y, scratch, scratch + t.cols, t.cols);
}

size_t wf_tiles_wide_scratch(const wf_product *p)
{
    size_t width = wf_window_taps(&p->window) * block_channels(p);
    size_t tile = is_ready(p) ? 0 : (WF_MIN(p->out, (size_t)COLS) + 1) * width;
    return (gathered_floats(p) + tile + (p->gated ? ROWS * 2 * COLS : 0)) * sizeof(float);
}

void wf_tiles_wide(const wf_products *tier, const wf_product *p, const wf_kernels *k, wf_pool *pool,
                   uint8_t *const *scratch)
{
    job j = { .p = p, .tier = tier, .k = k, .scratch = scratch,
              .rows = wf_window_rows(&p->window) };
    j.row_tiles = (j.rows + ROWS - 1) / ROWS;
    j.col_tiles = ((p->gated ? p->out / 2 : p->out) + COLS - 1) / COLS;
    j.group = j.rows >= ROWS ? 1 : ROWS / j.rows; /* small images share the widened weights */
    wf_pool_run(pool, (p->samples + j.group - 1) / j.group * j.row_tiles * j.col_tiles, wide_task,
                &j);
}
