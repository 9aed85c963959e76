/* packed.h - the inner loops of weft's own products, one table for each instruction set.
 *
 * A product keeps a tile of y in registers, of `rows` rows by `cols` columns, and walks k: a vector
 * of W's panel times one value of x. A panel is W's rows, transposed and widened: (k, width), width
 * the panel's columns rounded up to whole vectors. An element of y sums its k in order, whatever
 * tile it stands in, so tiles may be cut by the number of threads without changing a bit.
 *
 * A table is made by a file that defines its vector and includes packed_kernels.h: the loops are
 * written there once, for every instruction set. packed.c cuts a product into these tiles. */
#ifndef WF_PACKED_H
#define WF_PACKED_H

#include "tensor/product.h"

/* Winograd's transforms, for tiles of `tall` x 4 pixels of y, n channels or columns each; the parts,
 * (tall + 2) 6 of them, are `plane` floats apart. */
typedef struct wf_winograd {
    size_t tall;
    /* x: the pixels, as many as parts, each (n) */
    void (*input)(float *to, size_t plane, const float *const *x, size_t n);
    /* to (channels, width) from panel (9, channels, width), whole vectors */
    void (*weight)(float *to, size_t plane, const float *panel, size_t channels, size_t width);
    /* y: h x w pixels at most of n columns, in place or added, with bias (n) or NULL; m is read in
     * whole vectors */
    void (*output)(float *y, size_t line, size_t pixel, size_t h, size_t w, const float *m,
                   size_t plane, size_t n, const float *bias, bool add);
} wf_winograd;

typedef struct wf_packed {
    const char *name;
    size_t      lanes; /* floats of a vector                     */
    size_t      rows;  /* of the largest tile held in registers  */
    size_t      cols;  /* of it; a multiple of lanes             */

    /* y (rows, cols) = x (rows, k) w (k, cols) + bias, or y += that where `add`. Any rows; at most
     * `cols` columns. bias (cols), or NULL. w is read in no column beyond `cols`. */
    void (*multiply)(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw,
                     size_t k, size_t rows, size_t cols, const float *bias, bool add);
    /* The same with x (k, rows) and no bias. */
    void (*multiply_turned)(float *y, size_t ldy, const float *x, size_t ldx, const float *w,
                            size_t ldw, size_t k, size_t rows, size_t cols, bool add);
    /* panel (k, width) = the n rows of k elements at `from`, `stride` elements apart, transposed
     * and widened, with zeros to `width`. With taps > 1 a row holds (k / taps, taps) and the panel
     * gets (taps, k / taps). F32, F16, BF16. */
    void (*pack)(float *panel, size_t width, const void *from, wf_dtype type, size_t stride,
                 size_t n, size_t k, size_t taps);

    wf_winograd winograd;

    /* One more block of keys in the softmax of `width` queries, whole vectors of them.
     * s (keys, width) = 2^(s - top) with `top` the largest score, or up to 8 below it so as not to
     * change; sum = sum shrink + what s sums to; shrink is what the new top makes of the sums so
     * far. Is any of it not 1? Each (width); top begins as -INFINITY, and a score of -INFINITY
     * counts for nothing. */
    bool (*softmax)(float *s, size_t width, size_t keys, float *top, float *sum, float *shrink);
} wf_packed;

/* The same of pairs: two bfloat16 of neighbouring k stand where a float would, the first in the
 * lower half, rounded to nearest even; an odd k is filled up with 0. Sums are floats. Tiles have
 * the sizes of the wf_packed beside it. */
typedef struct wf_pairs {
    void (*multiply)(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw,
                     size_t k, size_t rows, size_t cols, const float *bias, bool add);
    void (*multiply_turned)(float *y, size_t ldy, const float *x, size_t ldx, const float *w,
                            size_t ldw, size_t k, size_t rows, size_t cols, bool add);
    /* panel (k / 2, width) of pairs */
    void (*pack)(float *panel, size_t width, const void *from, wf_dtype type, size_t stride,
                 size_t n, size_t k);
    /* to (rows, k / 2) = x (rows, k); and to (rows / 2, n): pairs of rows */
    void (*narrow)(float *to, size_t ld, const float *x, size_t ldx, size_t rows, size_t k);
    void (*weave)(float *to, size_t ld, const float *x, size_t ldx, size_t rows, size_t n);
    /* s becomes (keys / 2, width) */
    bool (*softmax)(float *s, size_t width, size_t keys, float *top, float *sum, float *shrink);
    wf_winograd winograd; /* x and weights become pairs of neighbouring channels */
} wf_pairs;

extern const wf_packed wf_packed_plain;
extern const wf_pairs  wf_pairs_plain;       /* beside it: emulated         */
#if defined(__x86_64__)
extern const wf_packed wf_packed_avx2;
extern const wf_packed wf_packed_avx512;
extern const wf_pairs  wf_pairs_avx512_bf16; /* beside wf_packed_avx512     */
#elif defined(__aarch64__)
extern const wf_packed wf_packed_neon;
#endif

enum { WF_PACKED_MOST_COLS = 48 }; /* of any table's tile */
enum { WF_PACKED_QUERIES = 384 }; /* of a task of an attention, a multiple of every `cols` */
enum { WF_PACKED_BLOCK = 320 };   /* of k that is summed before it is added to y */

enum { WF_CACHE_LINE = 16 }; /* floats */

static inline size_t wf_round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* Floats of an odd number of cache lines, at least n. */
static inline size_t wf_odd_lines(size_t n)
{
    return (wf_round_up(n, WF_CACHE_LINE) / WF_CACHE_LINE | 1) * WF_CACHE_LINE;
}

/* Whole products, over a pool: what a tier's table has (product.h). With `pairs` layers without a
 * window, attention, and what winograd.c takes of 3x3 windows are computed in bfloat16; NULL: all
 * in float32. */
void   wf_packed_wide(const wf_packed *m, const wf_pairs *pairs, const wf_products *tier,
                      const wf_product *p, const wf_kernels *k, wf_pool *pool,
                      uint8_t *const *scratch);
void   wf_packed_thin(const wf_packed *m, const wf_products *tier, const wf_product *p,
                      const wf_kernels *k, wf_pool *pool, uint8_t *const *scratch);
size_t wf_packed_wide_scratch(const wf_packed *m, const wf_pairs *pairs, const wf_product *p);
size_t wf_packed_thin_scratch(const wf_packed *m, const wf_product *p);
/* winograd.c: wide() for the layers that wf_winograd_fits(). */
bool   wf_winograd_fits(const wf_product *p);
void   wf_winograd_wide(const wf_packed *m, const wf_pairs *pairs, const wf_product *p,
                        const wf_kernels *k, wf_pool *pool, uint8_t *const *scratch);
size_t wf_winograd_scratch(const wf_packed *m, const wf_pairs *pairs, const wf_product *p);

/* ---- how both cut a layer into tasks ---- */

/* Rows or tiles of a task: of `all` in each of `columns` columns, for about `tasks` tasks. */
static inline size_t wf_packed_share(size_t all, size_t columns, size_t tasks)
{
    return (all * columns + tasks - 1) / tasks;
}

/* At most about `share` of `all`, in multiples of `unit`, and all tasks alike: the thread whose
 * tasks are the larger ones is waited for. */
static inline size_t wf_packed_even(size_t all, size_t share, size_t unit)
{
    size_t groups = WF_MAX((all + share - 1) / share, (size_t)1);
    return WF_MAX(wf_round_up((all + groups - 1) / groups, unit), unit);
}

/* Columns of a task: `most`, or fewer where there were not
 * tasks enough for all threads otherwise. */
size_t wf_packed_task_cols(const wf_packed *m, size_t out, size_t most, size_t row_tiles,
                           size_t threads);

/* ---- what both do to a block ---- */

/* End of the rows or tiles from `row` on, `each` of a sample, that have the same weight. */
size_t wf_packed_same_weight(const wf_product *p, size_t row, size_t each, size_t end);

/* Panel (taps nc, width) = rows [first, first + n) of W, channels [c, c + nc), n <= m->cols. `room` holds (m->cols + 1) taps nc floats. */
void   wf_packed_panel(const wf_packed *m, const wf_product *p, const wf_kernels *k, float *panel,
                       size_t width, float *room, size_t sample, bool amend, size_t first,
                       size_t n, size_t c, size_t nc);
/* y += h up, for rows [row, end) of all samples and columns [col, col + n); y begins there. */
void   wf_packed_low_rank(const wf_packed *m, const wf_product *p, float *y, size_t ldy, size_t row,
                          size_t end, size_t col, size_t n);
/* attend_packed.c */
void   wf_packed_attend(const wf_packed *m, const wf_pairs *pairs, float *o,
                        const wf_attention *a, size_t task, float *scratch);
size_t wf_packed_attend_scratch(const wf_packed *m, const wf_attention *a);
/* Products of a tile's size on the calling thread (product.h). */
void   wf_packed_nt(const wf_packed *m, float *y, size_t ldy, const float *x, size_t ldx,
                    const float *w, size_t ldw, size_t rows, size_t n, size_t k, float beta);
void   wf_packed_nn(const wf_packed *m, float *y, size_t ldy, const float *x, size_t ldx,
                    const float *w, size_t ldw, size_t rows, size_t n, size_t k, float beta);
void   wf_packed_tn(const wf_packed *m, float *y, size_t ldy, const float *x, size_t ldx,
                    const float *w, size_t ldw, size_t rows, size_t n, size_t k, float beta);

#endif
