/* packed_kernels.h - the loops of packed.h, for whatever vector the including file has defined.
 *
 * It defines before it includes this: LANES, TILE_ROWS, TILE_VECTORS; the type vec and on it
 * v_zero, v_set1, v_load, v_store, v_load_some and v_store_some (the first n lanes, 0 < n <= LANES;
 * the others are read as zero), v_load_type (n elements of F32, F16 or BF16, widened), v_add,
 * v_sub, v_mul, v_max (its second where one is NaN), v_fma (a b + c), v_round, v_scale2 (x 2^n),
 * v_finite_or_zero (0 for -INFINITY), v_all_ones; and transpose (LANES vectors, in place).
 *
 * The tile of registers is as large as the instruction set has registers for: each step of k loads
 * TILE_VECTORS vectors of the panel and TILE_ROWS single values of x, and does TILE_ROWS x
 * TILE_VECTORS multiply-adds, so that loads stay below half of the multiply-adds. Smaller tiles for
 * what is left at the edges are the same function with smaller constants. */
#include "tensor/packed.h"

#define INLINE static inline __attribute__((always_inline))

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
            UNROLL for (int v = 0; v < V; v++) sum[r][v] = v_fma(a, b[v], sum[r][v]);
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

/* LANES rows or fewer into LANES columns of the panel. */
INLINE void pack_columns(float *panel, size_t width, const uint8_t *from, size_t bytes, size_t rows,
                         size_t k, size_t taps, const wf_dtype type)
{
    const size_t size = type == WF_F32 ? 4 : 2;
    size_t channels = k / taps, tap = 0, channel = 0, i = 0;
    vec t[LANES];
    for (; i + LANES <= k && rows == LANES; i += LANES) {
        const uint8_t *at = from + i * size;
        UNROLL for (int r = 0; r < LANES; r++, at += bytes) {
            t[r] = v_load_type(at, type, LANES);
            __builtin_prefetch(at + 256); /* as many rows are more than what a processor follows */
        }
        transpose(t);
        if (taps == 1) {
            UNROLL for (int r = 0; r < LANES; r++) v_store(panel + (i + (size_t)r) * width, t[r]);
            continue;
        }
        UNROLL for (int r = 0; r < LANES; r++) {
            v_store(panel + (tap * channels + channel) * width, t[r]);
            if (++tap == taps) tap = 0, channel++;
        }
    }
    if (taps == 1) channel = i;
    for (; i < k; i += LANES) { /* what is left at the edges */
        size_t some = WF_MIN((size_t)LANES, k - i);
        for (size_t r = 0; r < LANES; r++)
            t[r] = r < rows ? v_load_type(from + r * bytes + i * size, type, some) : v_zero();
        transpose(t);
        for (size_t r = 0; r < some; r++) {
            v_store(panel + (tap * channels + channel) * width, t[r]);
            if (++tap == taps) tap = 0, channel++;
        }
    }
}

static void pack(float *panel, size_t width, const void *from, wf_dtype type, size_t stride,
                 size_t n, size_t k, size_t taps)
{
    size_t bytes = stride * (type == WF_F32 ? 4 : 2);
    for (size_t col = 0; col < width; col += LANES) {
        size_t rows = col < n ? WF_MIN((size_t)LANES, n - col) : 0;
        const uint8_t *at = from;
        at += WF_MIN(col, n) * bytes;
        if (type == WF_F32) pack_columns(panel + col, width, at, bytes, rows, k, taps, WF_F32);
        else if (type == WF_F16) pack_columns(panel + col, width, at, bytes, rows, k, taps, WF_F16);
        else pack_columns(panel + col, width, at, bytes, rows, k, taps, WF_BF16);
    }
}

/* ---- Winograd's F(4x4, 3x3) -------------------------------------------------------------------
 *
 * Y = A^T [(G g G^T) . (B^T d B)] A: 16 pixels of y from 36 of x by 36 multiplications in place of
 * 144 (Lavin and Gray, Fast algorithms for convolutional neural networks, 2016). The polynomials are
 * interpolated at 0, +-P, +-Q and infinity. Lavin's 1 and 2 lose a digit; 11/16 and 3/2 have a
 * root mean square error of 1.6e-6 over 320 channels of noise, where the direct sum in float32 has
 * 1.0e-6, and all squares and products of them are exact. */

#define P  0.6875f
#define Q  1.5f
#define P2 (P * P)
#define Q2 (Q * Q)

INLINE vec v_fma1(float a, vec b, vec c) { return v_fma(v_set1(a), b, c); }

/* B^T d */
INLINE void input_line(vec *t, const vec *d)
{
    vec even_p = v_fma1(-Q2, d[2], d[4]), odd_p = v_fma1(-Q2, d[1], d[3]);
    vec even_q = v_fma1(-P2, d[2], d[4]), odd_q = v_fma1(-P2, d[1], d[3]);
    t[0] = v_fma1(P2 * Q2, d[0], v_fma1(-(P2 + Q2), d[2], d[4]));
    t[1] = v_fma1(P, odd_p, even_p);
    t[2] = v_fma1(-P, odd_p, even_p);
    t[3] = v_fma1(Q, odd_q, even_q);
    t[4] = v_fma1(-Q, odd_q, even_q);
    t[5] = v_fma1(P2 * Q2, d[1], v_fma1(-(P2 + Q2), d[3], d[5]));
}

/* G g */
INLINE void weight_line(vec *t, const vec *g)
{
    const float p = 1 / (2 * P2 * (P2 - Q2)), q = 1 / (2 * Q2 * (Q2 - P2));
    vec even_p = v_fma1(p * P2, g[2], v_mul(v_set1(p), g[0]));
    vec even_q = v_fma1(q * Q2, g[2], v_mul(v_set1(q), g[0]));
    t[0] = v_mul(v_set1(1 / (P2 * Q2)), g[0]);
    t[1] = v_fma1(p * P, g[1], even_p);
    t[2] = v_fma1(-p * P, g[1], even_p);
    t[3] = v_fma1(q * Q, g[1], even_q);
    t[4] = v_fma1(-q * Q, g[1], even_q);
    t[5] = g[2];
}

/* A^T m */
INLINE void output_line(vec *t, const vec *m)
{
    vec sum_p = v_add(m[1], m[2]), odd_p = v_sub(m[1], m[2]);
    vec sum_q = v_add(m[3], m[4]), odd_q = v_sub(m[3], m[4]);
    t[0] = v_add(m[0], v_add(sum_p, sum_q));
    t[1] = v_fma1(P, odd_p, v_mul(v_set1(Q), odd_q));
    t[2] = v_fma1(P2, sum_p, v_mul(v_set1(Q2), sum_q));
    t[3] = v_fma1(P * P2, odd_p, v_fma1(Q * Q2, odd_q, m[5]));
}

static void winograd_input(float *to, size_t plane, const float *const *x, size_t n)
{
    for (size_t c = 0; c < n; c += LANES) {
        size_t some = WF_MIN((size_t)LANES, n - c);
        vec t[6][6], d[6], u[6];
        for (int i = 0; i < 6; i++) { /* columns of the 6 x 6 pixels */
            UNROLL for (int k = 0; k < 6; k++)
                d[k] = some == LANES ? v_load(x[6 * k + i] + c) : v_load_some(x[6 * k + i] + c, some);
            input_line(u, d);
            UNROLL for (int k = 0; k < 6; k++) t[k][i] = u[k];
        }
        for (int k = 0; k < 6; k++) {
            input_line(u, t[k]);
            UNROLL for (int i = 0; i < 6; i++) {
                float *at = to + (size_t)(6 * k + i) * plane + c;
                if (some == LANES) v_store(at, u[i]);
                else v_store_some(at, u[i], some);
            }
        }
    }
}

static void winograd_weight(float *to, size_t plane, const float *panel, size_t n)
{
    for (size_t c = 0; c < n; c += LANES) {
        vec t[6][3], g[3], u[6];
        for (int i = 0; i < 3; i++) {
            UNROLL for (int k = 0; k < 3; k++) g[k] = v_load(panel + (size_t)(3 * k + i) * n + c);
            weight_line(u, g);
            UNROLL for (int k = 0; k < 6; k++) t[k][i] = u[k];
        }
        for (int k = 0; k < 6; k++) {
            weight_line(u, t[k]);
            UNROLL for (int i = 0; i < 6; i++) v_store(to + (size_t)(6 * k + i) * plane + c, u[i]);
        }
    }
}

static void winograd_output(float *y, size_t line, size_t pixel, size_t h, size_t w,
                            const float *m, size_t plane, size_t n, const float *bias, bool add)
{
    for (size_t c = 0; c < n; c += LANES) {
        size_t some = WF_MIN((size_t)LANES, n - c);
        vec t[4][6], u[4], b = v_zero();
        if (bias != NULL) b = v_load_some(bias + c, some);
        for (int i = 0; i < 6; i++) {
            vec d[6];
            UNROLL for (int k = 0; k < 6; k++) d[k] = v_load(m + (size_t)(6 * k + i) * plane + c);
            output_line(u, d);
            UNROLL for (int k = 0; k < 4; k++) t[k][i] = u[k];
        }
        for (size_t k = 0; k < 4 && k < h; k++) {
            output_line(u, t[k]);
            for (size_t i = 0; i < 4 && i < w; i++) {
                float *at = y + k * line + i * pixel + c;
                vec v = b;
                if (add) v = v_add(some == LANES ? v_load(at) : v_load_some(at, some), b);
                v = v_add(v, u[i]);
                if (some == LANES) v_store(at, v);
                else v_store_some(at, v, some);
            }
        }
    }
}

/* ---- softmax ---------------------------------------------------------------------------------- */

/* 2^x: the nearest whole number into the exponent, 2^r for |r| <= 1/2 by a polynomial fitted to it
 * (relative error 9e-8, and 2^0 is 1). Below -150 it is 0; a NaN stays one. */
INLINE vec exp2_of(vec x)
{
    x = v_max(v_set1(-200.0f), x); /* of a NaN and a number, v_max takes its second */
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
        /* A query that sees no key yet has no largest score. */
        vec base = v_finite_or_zero(high), less = exp2_of(v_sub(old, base));
        for (size_t i = 0; i < keys; i++) {
            vec e = exp2_of(v_sub(v_load(s + i * width + c), base));
            v_store(s + i * width + c, e);
            total = v_add(total, e);
        }
        v_store(sum + c, v_fma(v_load(sum + c), less, total));
        v_store(top + c, high);
        v_store(shrink + c, less);
        any = any || !v_all_ones(less);
    }
    return any;
}
