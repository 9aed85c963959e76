/* packed_tiles.h - tiles of a product in registers, and the softmax between two products, for
 * whatever vector the including file has defined.
 *
 * It defines before it includes this: LANES, TILE_ROWS, TILE_VECTORS, UNROLL; the type vec and on
 * it v_zero, v_set1, v_load, v_store, v_load_some and v_store_some (the first n lanes, 0 < n <=
 * LANES; the others are read as zero), v_load_type (n elements of F32, F16 or BF16, widened),
 * v_add, v_sub, v_mul, v_max (a NaN where its second is one), v_fma (a b + c), v_round, v_scale2 (x
 * 2^n), v_finite_or_zero (0 for -INFINITY), v_all_ones; and transpose (LANES vectors, in place).
 *
 * V_DOT is what a step of k does: v_fma, or a dot product of pairs of bfloat16 that lie where a
 * float would. With PAIRS the softmax writes such pairs (v_pair) of its keys, and Winograd's
 * transform LANES channels as bfloat16 one after another (v_store_narrow).
 *
 * The tile of registers is as large as the instruction set has registers for: each step of k loads
 * TILE_VECTORS vectors of the panel and TILE_ROWS single values of x, and does TILE_ROWS x
 * TILE_VECTORS multiply-adds, so that loads stay below half of the multiply-adds. Smaller tiles for
 * what is left at the edges are the same function with smaller constants. */
#include "tensor/packed.h"

#define INLINE static inline __attribute__((always_inline))

_Static_assert(TILE_ROWS == 4 || TILE_ROWS == 8, "tiles are halved down to a row");
_Static_assert(TILE_VECTORS == 3, "tiles of one, two and three vectors");
_Static_assert(TILE_VECTORS * LANES <= WF_PACKED_MOST_COLS, "panels have room for a tile");
_Static_assert(WF_PACKED_QUERIES % (TILE_VECTORS * LANES) == 0, "queries fill whole tiles");

/* ---- products -------------------------------------------------------------------------------- */

/* A tile of R rows and V vectors; `some`: of the last vector only `last` columns are there;
 * `turned`: x lies as (k, rows). */
INLINE void tile(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw,
                 size_t k, const float *bias, bool add, const int R, const int V, const bool some,
                 size_t last, const bool turned)
{
    /* three rows share a pointer: x, x + ldx, x + 2 ldx need no others */
    const float *x0 = x, *x3 = x + (R > 3 ? 3 * ldx : 0), *x6 = x + (R > 6 ? 6 * ldx : 0);
    vec sum[TILE_ROWS][TILE_VECTORS];

    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int v = 0; v < V; v++) {
            sum[r][v] = v_zero();
            __builtin_prefetch(y + (size_t)r * ldy + v * LANES, 1); /* there when k is done */
        }
    for (size_t i = 0; i < k; i++, w += ldw) {
        vec b[TILE_VECTORS];
        UNROLL for (int v = 0; v < V; v++) __builtin_prefetch(w + 12 * ldw + v * LANES);
        UNROLL for (int v = 0; v < V; v++)
            b[v] = some && v == V - 1 ? v_load_some(w + v * LANES, last) : v_load(w + v * LANES);
        UNROLL for (int r = 0; r < R; r++) {
            const float *row = r < 3 ? x0 : r < 6 ? x3 : x6;
            vec a = v_set1(turned ? x[i * ldx + (size_t)r] : row[(size_t)(r % 3) * ldx + i]);
            UNROLL for (int v = 0; v < V; v++) sum[r][v] = V_DOT(a, b[v], sum[r][v]);
        }
    }
    UNROLL for (int r = 0; r < R; r++)
        UNROLL for (int v = 0; v < V; v++) {
            float *to = y + (size_t)r * ldy + v * LANES;
            bool tail = some && v == V - 1;
            vec t = sum[r][v];
            if (add && bias != NULL) {
                vec old = tail ? v_load_some(to, last) : v_load(to);
                vec b = tail ? v_load_some(bias + v * LANES, last) : v_load(bias + v * LANES);
                t = v_add(v_add(old, b), t);
            } else if (add) {
                t = v_add(tail ? v_load_some(to, last) : v_load(to), t);
            } else if (bias != NULL) {
                t = v_add(tail ? v_load_some(bias + v * LANES, last) : v_load(bias + v * LANES), t);
            }
            if (tail) v_store_some(to, t, last);
            else v_store(to, t);
        }
}

#define TILE_NAME(R, V, S, T) tile_##R##_##V##_##S##T
#define TILE(R, V, S, T)                                                                         \
    static void TILE_NAME(R, V, S, T)(float *y, size_t ldy, const float *x, size_t ldx,          \
                                      const float *w, size_t ldw, size_t k, const float *bias,   \
                                      bool add, size_t last)                                     \
    {                                                                                            \
        tile(y, ldy, x, ldx, w, ldw, k, bias, add, R, V, S, last, T);                            \
    }
#define TILES_OF(R, V) TILE(R, V, 0, 0) TILE(R, V, 0, 1) TILE(R, V, 1, 0) TILE(R, V, 1, 1)
#define TILES(R)       TILES_OF(R, 1) TILES_OF(R, 2) TILES_OF(R, 3)
#define PAIR(R, V, T)  { TILE_NAME(R, V, 0, T), TILE_NAME(R, V, 1, T) }
#define TRIPLE(R, T)   { PAIR(R, 1, T), PAIR(R, 2, T), PAIR(R, 3, T) }

typedef void (*tile_function)(float *y, size_t ldy, const float *x, size_t ldx, const float *w,
                              size_t ldw, size_t k, const float *bias, bool add, size_t last);

#if TILE_ROWS == 8
TILES(8)
#endif
TILES(4)
TILES(2)
TILES(1)

/* Of 1, 2, 4 .. rows. */
static const tile_function tiles[2][TILE_ROWS == 8 ? 4 : 3][TILE_VECTORS][2] = {
#if TILE_ROWS == 8
    { TRIPLE(1, 0), TRIPLE(2, 0), TRIPLE(4, 0), TRIPLE(8, 0) },
    { TRIPLE(1, 1), TRIPLE(2, 1), TRIPLE(4, 1), TRIPLE(8, 1) },
#else
    { TRIPLE(1, 0), TRIPLE(2, 0), TRIPLE(4, 0) },
    { TRIPLE(1, 1), TRIPLE(2, 1), TRIPLE(4, 1) },
#endif
};

INLINE void multiply_rows(float *y, size_t ldy, const float *x, size_t ldx, const float *w,
                          size_t ldw, size_t k, size_t rows, size_t cols, const float *bias,
                          bool add, const bool turned)
{
    size_t vectors = (cols + LANES - 1) / LANES, last = cols - (vectors - 1) * LANES;
    for (int size = (int)WF_LEN(tiles[0]) - 1; size >= 0; size--) {
        tile_function f = tiles[turned][size][vectors - 1][last < LANES];
        size_t R = (size_t)1 << size;
        for (; rows >= R; rows -= R, y += R * ldy, x += R * (turned ? 1 : ldx))
            f(y, ldy, x, ldx, w, ldw, k, bias, add, last);
    }
}

static void multiply(float *y, size_t ldy, const float *x, size_t ldx, const float *w, size_t ldw,
                     size_t k, size_t rows, size_t cols, const float *bias, bool add)
{
    multiply_rows(y, ldy, x, ldx, w, ldw, k, rows, cols, bias, add, false);
}

static void multiply_turned(float *y, size_t ldy, const float *x, size_t ldx, const float *w,
                            size_t ldw, size_t k, size_t rows, size_t cols, bool add)
{
    multiply_rows(y, ldy, x, ldx, w, ldw, k, rows, cols, NULL, add, true);
}

/* ---- softmax --------------------------------------------------------------------------------- */

INLINE vec v_fma1(float a, vec b, vec c) { return v_fma(v_set1(a), b, c); }

/* 2^x: the nearest whole number into the exponent, 2^r for |r| <= 1/2 by a polynomial fitted to it
 * (relative error 9e-8, and 2^0 is 1). Below -150 it is 0; a NaN stays one. */
INLINE vec exp2_of(vec x)
{
    x = v_max(v_set1(-200.0f), x); /* v_max keeps a NaN in its second */
    vec n = v_round(x), r = v_sub(x, n);
    vec p = v_fma1(0.001326472707f, r, v_set1(0.009671512649f));
    p = v_fma(p, r, v_set1(0.05550733744f));
    p = v_fma(p, r, v_set1(0.2402224209f));
    p = v_fma(p, r, v_set1(0.6931469776f));
    return v_scale2(v_fma(p, r, v_set1(1.0f)), n);
}

static bool softmax(float *s, size_t width, size_t keys, float *top, float *sum, float *shrink)
{
    bool any = false;
    for (size_t c = 0; c < width; c += LANES) {
        vec old = v_load(top + c), high = old, total = v_zero();
        for (size_t i = 0; i < keys; i++) high = v_max(high, v_load(s + i * width + c));
        /* What was summed is scaled down only where a score lies 8 above: 2^8 is far from what a
         * float cannot hold. */
        vec above = v_max(v_sub(v_sub(high, old), v_set1(7.0f)), v_set1(1.0f));
        bool keeps = v_all_ones(above);
        if (keeps) high = old;
        /* A query that sees no key yet has no largest score. */
        vec base = v_finite_or_zero(high), less = v_set1(1.0f);
        if (!keeps) less = exp2_of(v_sub(old, base));
#if PAIRS
        for (size_t i = 0; i < keys; i += 2) {
            vec e = exp2_of(v_sub(v_load(s + i * width + c), base)), f = v_zero();
            if (i + 1 < keys) f = exp2_of(v_sub(v_load(s + (i + 1) * width + c), base));
            v_store(s + i / 2 * width + c, v_pair(e, f));
            total = v_add(total, v_add(e, f));
        }
#else
        for (size_t i = 0; i < keys; i++) {
            vec e = exp2_of(v_sub(v_load(s + i * width + c), base));
            v_store(s + i * width + c, e);
            total = v_add(total, e);
        }
#endif
        v_store(sum + c, v_fma(v_load(sum + c), less, total));
        v_store(top + c, high);
        v_store(shrink + c, less);
        any = any || !keeps;
    }
    return any;
}
