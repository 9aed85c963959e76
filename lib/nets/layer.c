/* layer.c - linear layers and convolutions, and the one place that looks at adapters.
 *
 *     y = x W^T + b + sum over parts p of  c_p (s_p B_p A_p x | s_p W1 X W2^T | D_p x)  +  c_p db_p
 *
 * A convolution is the same product over the pixels' neighbourhoods, K = 9 in. Work is cut into tiles of
 * ROWS x COLS of one layer's output, K into blocks that fit a cache: for each block the weight's tile is
 * widened from the file's dtype (and put into the order ky, kx, in), the neighbourhoods are gathered, and
 * OpenBLAS multiplies the two. Small pictures share a widened tile among several samples, but each sample's
 * product is a call of its own, so that its bits do not depend on its neighbours.
 *
 * The low-rank side path reads the stack of all adapters of the layer: one product down to h (rows, R), the
 * coefficients multiplied into h, one product up, added into the tile. Only the ranks between the first and
 * the last part with a coefficient take part. A dense part is added to the widened tile of the weight, with its
 * coefficient in the sample's branch: one product then does for both. A Kronecker product has its own way, two
 * small products for each of the i1 groups of channels. Where all coefficients are zero nothing at all is
 * computed, so an adapter at weight 0 leaves the base's bits. */
#include "nets/exec.h"
#include "tensor/gemm.h"

enum { ROWS = 256, COLS = 320, BLOCK = 1152, KRON_FLOATS = 1 << 18 };

typedef struct job {
    wf_exec        *e;
    const wf_layer *l;
    const wf_delta *delta;
    float          *y;
    float          *h; /* (all rows, R): the side path's middle */
    const float    *x;
    wf_grid         in;
    wf_grid         out;
    size_t          row_tiles; /* of one sample          */
    size_t          group;     /* samples in a task      */
    size_t          groups;
    size_t          col_tiles;
    bool            add;
    const wf_other *other; /* of the stack, or NULL        */
    bool            dense; /* some part is a matrix        */
} job;

static size_t taps(const wf_layer *l) { return (size_t)l->kernel * (size_t)l->kernel; }

/* Input channels in one block of K. */
static size_t block_channels(const wf_layer *l)
{
    size_t c = BLOCK / taps(l);
    return WF_MIN(c, (size_t)l->in);
}

static size_t sample_rows(wf_grid g) { return (size_t)g.h * (size_t)g.w; }

wf_grid wf_layer_grid(const wf_layer *l, wf_grid g)
{
    wf_grid o = g;
    if (l->stride == 1) return o;
    /* Both forms of downsampling: pad 1 all around, or 1 at the bottom and right, kernel 3, stride 2. */
    int32_t extra = l->asymmetric ? 1 : 2 * l->pad;
    o.h = (g.h + extra - l->kernel) / l->stride + 1;
    o.w = (g.w + extra - l->kernel) / l->stride + 1;
    return o;
}

/* A plain product needs no gathering: the input's rows are the left factor as they lie. */
static bool is_plain(const wf_layer *l) { return l->kernel == 1 && l->stride == 1; }

/* tile (rows, taps * nc) = neighbourhoods of output rows [row, row + rows), channels [c, c + nc). */
static void gather(const job *j, float *tile, size_t sample, size_t row, size_t rows, size_t c, size_t nc)
{
    const wf_layer *l = j->l;
    const float *x = j->x + sample * sample_rows(j->in) * (size_t)l->in + c;
    size_t width = taps(l) * nc;
    for (size_t r = 0; r < rows; r++) {
        int32_t oy = (int32_t)((row + r) / (size_t)j->out.w), ox = (int32_t)((row + r) % (size_t)j->out.w);
        float *to = tile + r * width;
        for (int32_t ky = 0; ky < l->kernel; ky++) {
            int32_t iy = oy * l->stride + ky - l->pad;
            for (int32_t kx = 0; kx < l->kernel; kx++, to += nc) {
                int32_t ix = ox * l->stride + kx - l->pad;
                if (iy < 0 || iy >= j->in.h || ix < 0 || ix >= j->in.w) memset(to, 0, nc * sizeof *to);
                else memcpy(to, x + ((size_t)iy * (size_t)j->in.w + (size_t)ix) * (size_t)l->in, nc * sizeof *to);
            }
        }
    }
}

static void widen(const wf_kernels *k, float *dst, const uint8_t *src, wf_dtype type, size_t first, size_t n)
{
    const uint8_t *s = src + first * (size_t)(wf_dtype_bits(type) / 8);
    if (type == WF_F16) k->widen_f16(dst, s, n);
    else if (type == WF_BF16) k->widen_bf16(dst, s, n);
    else if (type == WF_F32) memcpy(dst, s, n * sizeof *dst);
    else wf_widen_any(dst, s, type, n);
}

/* tile (cols, taps * nc) = weight rows [col, col + cols), channels [c, c + nc), from the file's order
 * (out, in, ky, kx) into (out, ky, kx, in). line holds taps * nc floats. */
static void load_weight(const wf_kernels *k, const wf_layer *l, float *tile, float *line, size_t col, size_t cols,
                        size_t c, size_t nc)
{
    size_t t = taps(l), ins = (size_t)l->in;
    for (size_t o = 0; o < cols; o++) {
        float *to = tile + o * t * nc;
        size_t first = ((col + o) * ins + c) * t;
        if (t == 1) {
            widen(k, to, l->weight, l->dtype, first, nc);
            continue;
        }
        widen(k, line, l->weight, l->dtype, first, t * nc);
        for (size_t i = 0; i < nc; i++)
            for (size_t q = 0; q < t; q++) to[q * nc + i] = line[i * t + q];
    }
}

/* The same from a float32 matrix (rows, K) that is in the order (ky, kx, in) already. */
static void load_ordered(const wf_layer *l, float *tile, const float *m, size_t row, size_t rows, size_t c, size_t nc)
{
    size_t t = taps(l), ins = (size_t)l->in;
    for (size_t o = 0; o < rows; o++)
        for (size_t q = 0; q < t; q++)
            memcpy(tile + (o * t + q) * nc, m + ((row + o) * t + q) * ins + c, nc * sizeof *tile);
}

float wf_delta_cell(const wf_exec *e, const wf_delta *d, size_t branch, int32_t p)
{
    return e->cells[branch * e->slots + d->slot + (size_t)p];
}

/* Ranks [*lo, *hi) of the stack that have a coefficient in this branch. */
static void live_ranks(const job *j, size_t branch, size_t *lo, size_t *hi)
{
    const wf_stack *s = j->delta->stack;
    const float *c = j->e->cells + branch * j->e->slots + j->delta->slot;
    size_t at = 0;
    *lo = *hi = 0;
    for (int32_t p = 0; p < s->parts; p++) {
        size_t next = at + (size_t)s->part_rank[p];
        if (c[p] != 0.0f && next > at) {
            if (*hi == 0) *lo = at;
            *hi = next;
        }
        at = next;
    }
}

static size_t branch_of(const wf_exec *e, size_t sample) { return e->branch != NULL ? (size_t)e->branch[sample] : 0; }

/* Rows of a Kronecker product at a time: its middle, and for a convolution the neighbourhoods, fit a cache. */
static size_t kron_rows(const wf_layer *l, const wf_other *x)
{
    size_t row = (size_t)x->i1 * (size_t)x->o2 + (is_plain(l) ? 0 : taps(l) * (size_t)x->i2);
    return WF_MAX((size_t)1, WF_MIN((size_t)ROWS, KRON_FLOATS / row));
}

/* Floats of a worker's scratch: gathered rows, a weight tile, one line, a tile of the bias; or what a Kronecker product
 * needs instead. */
static size_t scratch_floats(const wf_layer *l, size_t rank, const wf_stack *stack)
{
    size_t width = taps(l) * block_channels(l);
    size_t gathered = is_plain(l) ? 0 : (size_t)ROWS * width;
    size_t cols = WF_MAX((size_t)WF_MIN(l->out, COLS), is_plain(l) ? 0 : rank); /* a plain one reads A as it lies */
    size_t most = gathered + cols * width + width + (stack != NULL && stack->other != NULL ? (size_t)COLS : 0);
    for (int32_t p = 0; stack != NULL && stack->other != NULL && p < stack->parts; p++) {
        const wf_other *x = &stack->other[p];
        if (x->w1 == NULL) continue;
        size_t row = (size_t)x->i1 * (size_t)x->o2 + (is_plain(l) ? 0 : taps(l) * (size_t)x->i2);
        most = WF_MAX(most, kron_rows(l, x) * row);
    }
    return most;
}

/* h[rows of a tile] = x A^T, then times the coefficients: a task is one row tile of one sample. */
static void down_task(void *user, size_t task, int32_t worker)
{
    const job *j = user;
    const wf_layer *l = j->l;
    const wf_stack *s = j->delta->stack;
    size_t sample = task / j->row_tiles, row = (task % j->row_tiles) * ROWS;
    size_t all = sample_rows(j->out), rows = WF_MIN((size_t)ROWS, all - row), R = (size_t)s->rank;
    size_t lo, hi, t = taps(l), ins = (size_t)l->in;

    live_ranks(j, branch_of(j->e, sample), &lo, &hi);
    if (lo == hi) return;
    float *h = j->h + (sample * all + row) * R + lo;
    if (is_plain(l)) {
        wf_gemm_nt(h, R, j->x + (sample * all + row) * ins, ins, s->down + lo * ins, ins, rows, hi - lo, ins, 0.0f);
    } else {
        float *tile = (float *)(void *)j->e->scratch[worker];
        float *a = tile + (size_t)ROWS * t * block_channels(l);
        for (size_t c = 0; c < ins; c += block_channels(l)) {
            size_t nc = WF_MIN(block_channels(l), ins - c);
            gather(j, tile, sample, row, rows, c, nc);
            load_ordered(l, a, s->down, lo, hi - lo, c, nc);
            wf_gemm_nt(h, R, tile, t * nc, a, t * nc, rows, hi - lo, t * nc, c == 0 ? 0.0f : 1.0f);
        }
    }
    const float *coefficient = j->e->cells + branch_of(j->e, sample) * j->e->slots + j->delta->slot;
    for (size_t r = 0; r < rows; r++) {
        size_t at = 0;
        for (int32_t p = 0; p < s->parts; p++) {
            float c = coefficient[p] * s->part_scale[p];
            for (size_t k = 0; k < (size_t)s->part_rank[p]; k++, at++)
                if (at >= lo && at < hi) h[r * R + at - lo] *= c;
        }
    }
}

/* The bias of columns [col, col + cols) for a sample, in place or in `line`; NULL: none. */
static const float *bias_tile(const job *j, size_t sample, size_t col, size_t cols, float *line)
{
    const wf_delta *d = j->delta;
    const float *base = d != NULL && d->merged_bias != NULL ? d->merged_bias : j->l->bias;
    bool sum = false;
    for (int32_t p = 0; j->other != NULL && p < d->stack->parts; p++) {
        float c = wf_delta_cell(j->e, d, branch_of(j->e, sample), p);
        if (j->other[p].bias == NULL || c == 0.0f) continue;
        if (!sum && base != NULL) memcpy(line, base + col, cols * sizeof *line);
        else if (!sum) memset(line, 0, cols * sizeof *line);
        for (size_t i = 0; i < cols; i++) line[i] += c * j->other[p].bias[col + i];
        sum = true;
    }
    return sum ? line : base != NULL ? base + col : NULL;
}

/* tile += c_p D_p for the matrices among the parts, in this branch. */
static void add_dense(const job *j, size_t branch, float *tile, size_t col, size_t cols, size_t c, size_t nc)
{
    size_t t = taps(j->l), ins = (size_t)j->l->in;
    for (int32_t p = 0; p < j->delta->stack->parts; p++) {
        const float *D = j->other[p].dense;
        float cell = wf_delta_cell(j->e, j->delta, branch, p);
        if (D == NULL || cell == 0.0f) continue;
        for (size_t o = 0; o < cols; o++)
            for (size_t q = 0; q < t; q++) {
                const float *d = D + ((col + o) * t + q) * ins + c;
                float *to = tile + (o * t + q) * nc;
                for (size_t i = 0; i < nc; i++) to[i] += cell * d[i];
            }
    }
}

/* One tile of the output for a group of samples. */
static void tile_task(void *user, size_t task, int32_t worker)
{
    const job *j = user;
    const wf_layer *l = j->l;
    size_t t = taps(l), ins = (size_t)l->in, outs = (size_t)l->out, all = sample_rows(j->out);
    size_t col = (task % j->col_tiles) * COLS, cols = WF_MIN((size_t)COLS, outs - col);
    size_t row = (task / j->col_tiles % j->row_tiles) * ROWS, rows = WF_MIN((size_t)ROWS, all - row);
    size_t first = task / j->col_tiles / j->row_tiles * j->group;
    size_t last = WF_MIN(first + j->group, (size_t)j->in.n), channels = block_channels(l);
    const float *merged = j->delta != NULL ? j->delta->merged : NULL;
    float *gathered = (float *)(void *)j->e->scratch[worker];
    float *tile = gathered + (is_plain(l) ? 0 : (size_t)ROWS * t * channels);
    float *line = tile + cols * t * channels;

    for (size_t n = first; n < last; n++) { /* bias first: every block then adds */
        const float *bias = bias_tile(j, n, col, cols, line + t * channels);
        for (size_t r = 0; r < rows; r++) {
            float *y = j->y + (n * all + row + r) * outs + col;
            if (!j->add) {
                if (bias != NULL) memcpy(y, bias, cols * sizeof *y);
                else memset(y, 0, cols * sizeof *y);
            } else if (bias != NULL) {
                j->e->k->add(y, bias, cols);
            }
        }
    }
    for (size_t c = 0; c < ins; c += channels) {
        size_t nc = WF_MIN(channels, ins - c), K = t * nc, loaded = SIZE_MAX;
        const float *w = tile;
        size_t ldw = K;
        if (merged != NULL && t == 1) { /* a matrix (out, K) that can be multiplied as it lies */
            w = merged + col * ins + c;
            ldw = ins;
        } else if (merged != NULL) {
            load_ordered(l, tile, merged, col, cols, c, nc);
        } else if (!j->dense) {
            load_weight(j->e->k, l, tile, line, col, cols, c, nc);
        }
        for (size_t n = first; n < last; n++) {
            const float *x = j->x + (n * all + row) * ins + c;
            size_t ldx = ins, branch = branch_of(j->e, n);
            if (j->dense && loaded != branch) {
                load_weight(j->e->k, l, tile, line, col, cols, c, nc);
                add_dense(j, branch, tile, col, cols, c, nc);
                loaded = branch;
            }
            if (!is_plain(l)) {
                gather(j, gathered, n, row, rows, c, nc);
                x = gathered;
                ldx = K;
            }
            wf_gemm_nt(j->y + (n * all + row) * outs + col, outs, x, ldx, w, ldw, rows, cols, K, 1.0f);
        }
    }
    if (j->h == NULL) return;
    for (size_t n = first; n < last; n++) {
        size_t lo, hi, R = (size_t)j->delta->stack->rank;
        live_ranks(j, branch_of(j->e, n), &lo, &hi);
        if (lo == hi) continue;
        wf_gemm_nn(j->y + (n * all + row) * outs + col, outs, j->h + (n * all + row) * R + lo, R,
                   j->delta->stack->up + lo * outs + col, outs, rows, cols, hi - lo, 1.0f);
    }
}

/* y += c s W1 X W2^T for some rows: Z (rows, i1, o2) = X W2^T group by group, then W1 mixes each row's groups. */
static void add_kron(const job *j, const wf_other *x, float cs, size_t sample, size_t row, size_t rows, float *scratch)
{
    const wf_layer *l = j->l;
    size_t i1 = (size_t)x->i1, o1 = (size_t)x->o1, i2 = (size_t)x->i2, o2 = (size_t)x->o2, k2 = taps(l) * i2;
    size_t all = sample_rows(j->out), first = sample * all + row;
    float *z = scratch, *tile = scratch + rows * i1 * o2;
    if (is_plain(l)) {
        wf_gemm_nt(z, o2, j->x + first * (size_t)l->in, i2, x->w2, k2, rows * i1, o2, i2, 0.0f);
    } else {
        for (size_t g = 0; g < i1; g++) {
            gather(j, tile, sample, row, rows, g * i2, i2);
            wf_gemm_nt(z + g * o2, i1 * o2, tile, k2, x->w2, k2, rows, o2, k2, 0.0f);
        }
    }
    for (size_t i = 0; i < rows * i1 * o2; i++) z[i] *= cs;
    for (size_t r = 0; r < rows; r++)
        wf_gemm_nn(j->y + (first + r) * (size_t)l->out, o2, x->w1, i1, z + r * i1 * o2, o2, o1, o2, i1, 1.0f);
}

/* The Kronecker products of one row tile of one sample. */
static void kron_task(void *user, size_t task, int32_t worker)
{
    const job *j = user;
    const wf_stack *s = j->delta->stack;
    size_t sample = task / j->row_tiles, row = (task % j->row_tiles) * ROWS;
    size_t end = WF_MIN(row + ROWS, sample_rows(j->out));
    for (int32_t p = 0; p < s->parts; p++) {
        const wf_other *x = &s->other[p];
        float c = wf_delta_cell(j->e, j->delta, branch_of(j->e, sample), p);
        if (x->w1 == NULL || c == 0.0f) continue;
        size_t step = kron_rows(j->l, x);
        for (size_t r = row; r < end; r += step)
            add_kron(j, x, c * s->part_scale[p], sample, r, WF_MIN(step, end - r),
                     (float *)(void *)j->e->scratch[worker]);
    }
}

static bool any_live(const job *j)
{
    size_t lo = 0, hi = 0;
    for (size_t n = 0; n < (size_t)j->in.n && lo == hi; n++) live_ranks(j, branch_of(j->e, n), &lo, &hi);
    return lo != hi;
}

/* Products of a stack for each row, besides the base's. */
static double side_products(const wf_layer *l, const wf_stack *s)
{
    double K = (double)(taps(l) * (size_t)l->in), n = (double)s->rank * (K + l->out);
    for (int32_t p = 0; s->other != NULL && p < s->parts; p++) {
        const wf_other *x = &s->other[p];
        if (x->w1 != NULL) n += (double)x->i1 * x->o2 * ((double)taps(l) * x->i2 + x->o1);
    }
    return n;
}

void wf_layer_apply(wf_exec *e, const wf_layer *l, float *y, const float *x, wf_grid g, bool add)
{
    job j = { .e = e, .l = l, .y = y, .x = x, .in = g, .out = wf_layer_grid(l, g), .add = add };
    size_t rows = sample_rows(j.out), K = taps(l) * (size_t)l->in, mark = wf_arena_mark(&e->arena);
    const wf_stack *stack = NULL;
    bool kron = false;

    if (e->deltas != NULL && (e->deltas[l->id].stack != NULL || e->deltas[l->id].merged != NULL))
        j.delta = &e->deltas[l->id];
    if (j.delta != NULL && j.delta->merged == NULL) stack = j.delta->stack;
    if (stack != NULL) j.other = stack->other;
    for (int32_t p = 0; j.other != NULL && p < stack->parts; p++) {
        j.dense |= j.other[p].dense != NULL;
        kron |= j.other[p].w1 != NULL;
    }
    size_t rank = stack != NULL ? (size_t)stack->rank : 0;
    if (rank > 0) j.h = wf_take(e, (size_t)g.n * rows, rank);

    wf_need_scratch(e, scratch_floats(l, rank, stack) * sizeof(float));
    if (e->dry) {
        double all = (double)g.n * (double)rows;
        if (e->stop != NULL) (void)e->stop(e->stop_user); /* so that a dry run counts the layers too */
        e->flops += 2.0 * all * (double)K * l->out;
        if (stack != NULL) e->side_flops += 2.0 * all * side_products(l, stack);
    } else if (!e->stopped) {
        e->stopped = e->stop != NULL && e->stop(e->stop_user);
        j.row_tiles = (rows + ROWS - 1) / ROWS;
        j.group = rows >= ROWS ? 1 : ROWS / rows; /* small pictures share the widened weights */
        j.groups = ((size_t)g.n + j.group - 1) / j.group;
        j.col_tiles = ((size_t)l->out + COLS - 1) / COLS;
        if (rank > 0 && !any_live(&j)) j.h = NULL;
        if (j.h != NULL) wf_pool_run(e->pool, (size_t)g.n * j.row_tiles, down_task, &j);
        wf_pool_run(e->pool, j.groups * j.row_tiles * j.col_tiles, tile_task, &j);
        if (kron) wf_pool_run(e->pool, (size_t)g.n * j.row_tiles, kron_task, &j);
    }
    wf_arena_release(&e->arena, mark);
}

void wf_layer_load(float *dst, const wf_kernels *k, const wf_layer *l)
{
    size_t t = taps(l), ins = (size_t)l->in, outs = (size_t)l->out, K = t * ins;

    if (t == 1) widen(k, dst, l->weight, l->dtype, 0, outs * K);
    for (size_t o = 0; o < outs && t > 1; o++)
        for (size_t c = 0; c < ins; c++) {
            float patch[9]; /* one channel's kernel, from (in, ky, kx) to (ky, kx, in) */
            widen(k, patch, l->weight, l->dtype, o * K + c * t, t);
            for (size_t q = 0; q < t; q++) dst[o * K + q * ins + c] = patch[q];
        }
}

void wf_need_scratch(wf_exec *e, size_t bytes)
{
    if (e->dry) e->scratch_need = WF_MAX(e->scratch_need, bytes);
    else if (bytes > e->scratch_need) e->stopped = e->arena.overflow = true;
}

float *wf_take(wf_exec *e, size_t rows, size_t columns)
{
    void *floats = wf_arena_take(&e->arena, rows, columns * sizeof(float));
    e->stopped = e->stopped || e->arena.overflow; /* who has no memory must not compute */
    return floats;
}
