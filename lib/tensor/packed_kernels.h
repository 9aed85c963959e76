/* packed_kernels.h - the loops of packed.h in float32, for whatever vector the including file has
 * defined: those of packed_tiles.h, packing, and Winograd's transforms. */
#include "tensor/packed_tiles.h"

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
 * 144 (Lavin and Gray, Fast algorithms for convolutional neural networks, 2016). The polynomials
 * are interpolated at 0, +-P, +-Q and infinity. Lavin's 1 and 2 lose a digit; 11/16 and 3/2 have a
 * root mean square error of 1.6e-6 over 320 channels of noise, where the direct sum in float32 has
 * 1.0e-6, and all squares and products of them are exact. */

#define P  0.6875f
#define Q  1.5f
#define P2 (P * P)
#define Q2 (Q * Q)

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
                d[k] = some == LANES ? v_load(x[6 * k + i] + c)
                                     : v_load_some(x[6 * k + i] + c, some);
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
