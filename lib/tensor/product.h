/* product.h - the products that a network is made of, as data, and the tiers that compute them.
 *
 * A tier is a table of functions. wf_products_pick() chooses one, the model keeps the answer, and a
 * test may ask for any. There are weft's own packed products, for each instruction set (packed.h,
 * packed.c, winograd.c, attend_packed.c), and for other processors tiles multiplied by OpenBLAS
 * (tiles.c, attend.c, product_openblas.c). To add an instruction set is a file that defines its
 * vector (packed_avx2.c), a TIER line in packed.c, and a line in pick.c.
 *
 * What every tier promises: within one tier, on one processor, a result has the same bits for any
 * number of threads, for any other samples in the batch, and for guidance in one evaluation or two.
 * So a tier cuts its work by shapes alone and computes each sample by itself. Between tiers, and
 * between processors (OpenBLAS has other kernels for each), results agree within rounding, no more.
 *
 * What is made of weights before a network runs (merged copies, adapters' matrices) is not a
 * tier's business: it goes through gemm.h, in float32 or double on every tier. */
#ifndef WF_PRODUCT_H
#define WF_PRODUCT_H

#include "tensor/dtype.h"
#include "tensor/kernels.h"

/* Which rows of x a row of y sees: one pixel's neighbourhood, or the same row where kernel and
 * stride are 1. Pixels outside of the image are zero. */
typedef struct wf_window {
    int32_t h, w;           /* of a sample of x; h * w rows, row by row  */
    int32_t out_h, out_w;   /* of a sample of y                          */
    int32_t kernel, stride; /* kernel^2 is at most 1152, a block of K    */
    int32_t pad;            /* on the top and the left                   */
} wf_window;

typedef struct wf_span { size_t lo, hi; } wf_span; /* lo <= i < hi; empty where lo == hi */

/* y = window(x) W^T + bias, with W (out, K), K = kernel^2 in. The hooks run on the workers; they
 * see tiles, whose columns are channels [c, c + nc) of each tap: (rows, taps, nc). */
typedef struct wf_product {
    float         *y;       /* (samples, out_h out_w, out)                                        */
    const float   *x;       /* (samples, h w, in)                                                 */
    size_t         samples, in, out;
    wf_window      window;
    const void    *weight;  /* unaligned                                                          */
    wf_dtype       type;
    bool           ordered; /* W is float32 and lies as (out, ky, kx, in); else as files have it:
                             * (out, in, ky, kx)                                                  */
    void          *user;    /* the hooks'                                                         */
    /* Changes a widened tile of W, rows [first, first + count), for one sample. Samples of the same
     * `variant` share it; NULL: all do. */
    void         (*amend_weight)(void *user, size_t sample, float *tile, size_t first, size_t count,
                                 size_t c, size_t nc);
    const int32_t *variant; /* [samples]                                                          */
    /* Changes a tile of window(x), rows [row, row + rows) of y; false: the sample takes no part. */
    bool         (*amend_rows)(void *user, size_t sample, float *tile, size_t row, size_t rows,
                               size_t c, size_t nc);

    /* wide() only */
    bool           add;     /* y += the product                                                   */
    const float   *bias;    /* (out), or NULL                                                     */
    const float *const *own_bias; /* [samples] in place of bias, each (out) or NULL               */
    const float   *h;       /* (samples, out_h out_w, rank): y += h up, or NULL                   */
    const float   *up;      /* (rank, out)                                                        */
    size_t         rank;
    bool           gated;   /* W's rows are values, then as many gates: y (samples, out_h out_w,
                             * out / 2) = value * gelu(gate) of all that; no `add`, no window     */

    /* Of h's columns for wide(), of y's for thin(): those that a sample has. [samples]           */
    const wf_span *live;
    /* thin() only: samples whose weight amend_weight changes; the others' bits do not depend on
     * them */
    const bool    *amended; /* [samples]; NULL: none                                              */
    /* thin() only: changes rows [row, row + rows) of the finished y, which begins at column live.lo
     * and has the stride `out`. */
    void         (*finish)(void *user, size_t sample, size_t row, size_t rows, float *y);
} wf_product;

/* A run of keys and values: k, v (n length, heads d). */
typedef struct wf_keys {
    const float *k, *v;
    int32_t      length;
} wf_keys;

/* o = softmax(q k^T / sqrt(d) + bias) v for n samples; q, o (n lq, heads d), o not q. The keys are
 * those of all segments, one after another. Rotary positions turn q and k before the product: their
 * table belongs here once a network has them. */
typedef struct wf_attention {
    int32_t        n, heads, d, lq;
    const float   *q;
    const wf_keys *keys;     /* [segments]                                                        */
    int32_t        segments;
    bool           causal;   /* query i sees keys 0..i                                            */
    const float   *bias;     /* (lq, all keys) added to the scaled scores, -INFINITY hides a key;
                              * NULL: none. A query that sees no key gets zeros.                  */
    const int32_t *group;    /* (lq) where queries and the keys of each segment are the same pixels,
                              * and no bias: those of different groups above 0 do not see each
                              * other; NULL: none                                                */
    int32_t        shared;   /* above 0: samples come in groups of so many, and the last segment is
                              * not their own: each sees that of its group's first, that none   */
    float          factor, shift; /* there a score q k^T / sqrt(d) becomes factor * score + shift */
    size_t         bias_sample, bias_head; /* floats from one sample's or head's bias to the next's;
                                            * 0: they share it                                    */
} wf_attention;

typedef struct wf_products {
    const char *name;

    /* One product on the calling thread, of a tile's size; ld* are row strides in floats.
     *     nt: y (m, n) = x (m, k) w (n, k)^T + beta y
     *     nn: y (m, n) = x (m, k) w (k, n)   + beta y
     *     tn: y (m, n) = x (k, m)^T w (k, n) + beta y */
    void (*nt)(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw,
               size_t m, size_t n, size_t k, float beta);
    void (*nn)(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw,
               size_t m, size_t n, size_t k, float beta);
    void (*tn)(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw,
               size_t m, size_t n, size_t k, float beta);

    /* A whole product over the workers. wide(): many columns, with all that may follow. thin(): few
     * columns, W ordered, only the live ones of each sample, no bias, never added. */
    void (*wide)(const wf_product *p, const wf_kernels *k, wf_pool *pool, uint8_t *const *scratch);
    void (*thin)(const wf_product *p, const wf_kernels *k, wf_pool *pool, uint8_t *const *scratch);
    /* Bytes of scratch that either needs of each worker, by shape, `ordered` and hooks. */
    size_t (*wide_scratch)(const wf_product *p);
    size_t (*thin_scratch)(const wf_product *p);

    /* One task of an attention: some queries of one head of one sample, the task'th of
     * n heads ceil(lq / queries). */
    void (*attend)(float *o, const wf_attention *a, const wf_kernels *k, size_t task,
                   float *scratch);
    size_t (*attend_scratch)(const wf_attention *a); /* bytes */
    size_t queries;
} wf_products;

extern const wf_products wf_products_openblas; /* float32 through OpenBLAS  */
extern const wf_products wf_products_bf16_emulated; /* what the next does, by float32 */
#if defined(__x86_64__)
extern const wf_products wf_products_avx2;     /* float32, weft's own loops */
extern const wf_products wf_products_avx512;
extern const wf_products wf_products_avx512_bf16; /* bfloat16 but for most windows */
#elif defined(__aarch64__)
extern const wf_products wf_products_neon;
#endif

const wf_products *wf_products_pick(wf_cpu cpu);
/* The tier of bfloat16 by the processor's own dot product; NULL: it has none. */
const wf_products *wf_products_pick_bf16(wf_cpu cpu);

/* ---- tiles.c: what tiers on a CPU are built from --------------------------------------------- */

void   wf_tiles_wide(const wf_products *tier, const wf_product *p, const wf_kernels *k,
                     wf_pool *pool, uint8_t *const *scratch);
void   wf_tiles_thin(const wf_products *tier, const wf_product *p, const wf_kernels *k,
                     wf_pool *pool, uint8_t *const *scratch);
size_t wf_tiles_wide_scratch(const wf_product *p);
size_t wf_tiles_thin_scratch(const wf_product *p);

enum { WF_TILE_ROWS = 256 }; /* rows of y in a tile */

/* Output rows of one sample. */
static inline size_t wf_window_rows(const wf_window *w)
{
    return (size_t)w->out_h * (size_t)w->out_w;
}

static inline size_t wf_window_taps(const wf_window *w)
{
    return (size_t)w->kernel * (size_t)w->kernel;
}

/* ---- outer.c: sums over rows ---- */

/* y (m, taps in) += a^T window(x), over the rows of all samples; W's gradient where a is that of
 * y. */
typedef struct wf_outer {
    float       *y;      /* ordered (m, ky, kx, in)         */
    const float *a;      /* (samples, out_h out_w, m)       */
    const float *x;      /* (samples, h w, in)              */
    size_t       samples, m, in;
    wf_window    window;
} wf_outer;

/* Several at once. Bits depend on shapes and the batch, not on the number of threads. */
void   wf_outer_products(const wf_products *tier, const wf_outer *of, size_t count, wf_pool *pool,
                         uint8_t *const *scratch);
size_t wf_outer_scratch(const wf_outer *o); /* bytes for each worker */

/* attend.c: the sample whose keys sample n sees in segment g, or SIZE_MAX: it sees none there. */
size_t wf_keys_sample(const wf_attention *a, int32_t g, size_t n);
/* Do factor and shift make something of the scores of segment g? */
bool   wf_keys_weighed(const wf_attention *a, int32_t g);
/* Attention by a tier's nt and nn. */
void   wf_attend_by_products(const wf_products *tier, float *o, const wf_attention *a,
                             const wf_kernels *k, size_t task, float *scratch);
size_t wf_attend_by_products_scratch(const wf_attention *a);

enum { WF_ATTEND_QUERIES = 64 }; /* of a task of it */

/* tile (rows, taps, nc) = window(x) of rows [row, row + rows) of a sample, channels [c, c + nc). */
void wf_gather(const wf_product *p, float *tile, size_t sample, size_t row, size_t rows, size_t c,
               size_t nc);
/* tile (count, taps, nc) = rows [first, first + count) of W, channels [c, c + nc). `line` holds
 * taps * nc floats, and is not needed where W is ordered. */
void wf_load_weight(const wf_product *p, const wf_kernels *k, float *tile, float *line,
                    size_t first, size_t count, size_t c, size_t nc);
/* dst (out, taps * in), ordered (ky, kx, in), from a weight (out, in, taps) as files have it. */
void wf_order_weight(float *dst, const wf_kernels *k, const void *weight, wf_dtype type, size_t out,
                     size_t in, size_t taps);

#endif
