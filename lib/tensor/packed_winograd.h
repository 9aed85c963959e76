/* packed_winograd.h - Winograd's transforms: what packed_kernels.h and, with PAIRS, a file of pairs
 * of bfloat16 include after packed_tiles.h.
 *
 * Y = A^T [(G g G^T) . (B^T d B)] A: F(4x4, 3x3) makes 16 pixels of y from 36 of x by 36
 * multiplications in place of 144 (Lavin and Gray, Fast algorithms for convolutional neural
 * networks, 2016). The polynomials are interpolated at 0, +-P, +-Q and infinity. Lavin's 1 and 2
 * lose a digit; 11/16 and 3/2 have a root mean square error of 1.6e-6 over 320 channels of noise,
 * where the direct sum in float32 has 1.0e-6, and all squares and products of them are exact.
 *
 * With PAIRS the transforms are computed in float32, and what they give is rounded to pairs of
 * neighbouring channels. Rounding there counts 4.8 times what rounding x and W does, each of the 36
 * parts about as much as any other: no points do better. So pairs go by F(2x4, 3x3), 24
 * multiplications in place of 72, with 0, +-1 and infinity down the column, where it is 2.8 times.
 *
 * Down is the transform along a column of pixels, across that along a line. */

enum { TALL = PAIRS ? 2 : 4, DOWN = TALL + 2, ACROSS = 6 }; /* pixels of y; of x, and parts */

#define P  0.6875f
#define Q  1.5f
#define P2 (P * P)
#define Q2 (Q * Q)

/* B^T d */
INLINE void input_across(vec *t, const vec *d)
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
INLINE void weight_across(vec *t, const vec *g)
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
INLINE void output_across(vec *t, const vec *m)
{
    vec sum_p = v_add(m[1], m[2]), odd_p = v_sub(m[1], m[2]);
    vec sum_q = v_add(m[3], m[4]), odd_q = v_sub(m[3], m[4]);
    t[0] = v_add(m[0], v_add(sum_p, sum_q));
    t[1] = v_fma1(P, odd_p, v_mul(v_set1(Q), odd_q));
    t[2] = v_fma1(P2, sum_p, v_mul(v_set1(Q2), sum_q));
    t[3] = v_fma1(P * P2, odd_p, v_fma1(Q * Q2, odd_q, m[5]));
}


#if PAIRS
INLINE void input_down(vec *t, const vec *d)
{
    t[0] = v_sub(d[0], d[2]);
    t[1] = v_add(d[1], d[2]);
    t[2] = v_sub(d[2], d[1]);
    t[3] = v_sub(d[1], d[3]);
}

INLINE void weight_down(vec *t, const vec *g)
{
    vec half = v_set1(0.5f), even = v_mul(half, v_add(g[0], g[2])), odd = v_mul(half, g[1]);
    t[0] = g[0];
    t[1] = v_add(even, odd);
    t[2] = v_sub(even, odd);
    t[3] = g[2];
}

INLINE void output_down(vec *t, const vec *m)
{
    t[0] = v_add(m[0], v_add(m[1], m[2]));
    t[1] = v_sub(v_sub(m[1], m[2]), m[3]);
}
#else
INLINE void input_down(vec *t, const vec *d) { input_across(t, d); }
INLINE void weight_down(vec *t, const vec *g) { weight_across(t, g); }
INLINE void output_down(vec *t, const vec *m) { output_across(t, m); }
#endif

/* One part of a pixel's channels, from channel c on. */
INLINE void store_part(float *to, size_t c, vec x, size_t some)
{
#if PAIRS
    (void)some; /* rows of pairs have room for whole vectors */
    v_store_narrow(to + c / 2, x);
#else
    if (some == LANES) v_store(to + c, x);
    else v_store_some(to + c, x, some);
#endif
}

static void winograd_input(float *to, size_t plane, const float *const *x, size_t n)
{
    for (size_t c = 0; c < n; c += LANES) {
        size_t some = WF_MIN((size_t)LANES, n - c);
        vec t[DOWN][ACROSS];
        for (int i = 0; i < ACROSS; i++) {
            vec d[DOWN], u[DOWN];
            UNROLL for (int k = 0; k < DOWN; k++)
                d[k] = some == LANES ? v_load(x[ACROSS * k + i] + c)
                                     : v_load_some(x[ACROSS * k + i] + c, some);
            input_down(u, d);
            UNROLL for (int k = 0; k < DOWN; k++) t[k][i] = u[k];
        }
        for (int k = 0; k < DOWN; k++, to += ACROSS * plane) {
            vec u[ACROSS];
            input_across(u, t[k]);
            UNROLL for (int i = 0; i < ACROSS; i++)
                store_part(to + (size_t)i * plane, c, u[i], some);
        }
        to -= DOWN * ACROSS * plane;
    }
}

/* Columns of one channel's 3 x 3 weights, `tap` floats from one to the next. */
INLINE void weight_columns(vec t[DOWN][3], const float *panel, size_t tap)
{
    for (int i = 0; i < 3; i++) {
        vec g[3], u[DOWN];
        UNROLL for (int k = 0; k < 3; k++) g[k] = v_load(panel + (size_t)(3 * k + i) * tap);
        weight_down(u, g);
        UNROLL for (int k = 0; k < DOWN; k++) t[k][i] = u[k];
    }
}

static void winograd_weight(float *to, size_t plane, const float *panel, size_t channels,
                            size_t width)
{
    size_t tap = channels * width;
#if PAIRS
    for (size_t i = 0; i < channels; i += 2, panel += 2 * width, to += width)
        for (size_t c = 0; c < width; c += LANES) {
            vec t[DOWN][3], s[DOWN][3];
            weight_columns(t, panel + c, tap);
            if (i + 1 < channels) weight_columns(s, panel + width + c, tap);
            else memset(s, 0, sizeof s);
            for (int k = 0; k < DOWN; k++) {
                vec u[ACROSS], v[ACROSS];
                float *at = to + (size_t)(ACROSS * k) * plane + c;
                weight_across(u, t[k]);
                weight_across(v, s[k]);
                UNROLL for (int j = 0; j < ACROSS; j++)
                    v_store(at + (size_t)j * plane, v_pair(u[j], v[j]));
            }
        }
#else
    for (size_t c = 0; c < tap; c += LANES) {
        vec t[DOWN][3];
        weight_columns(t, panel + c, tap);
        for (int k = 0; k < DOWN; k++) {
            vec u[ACROSS];
            float *at = to + (size_t)(ACROSS * k) * plane + c;
            weight_across(u, t[k]);
            UNROLL for (int j = 0; j < ACROSS; j++) v_store(at + (size_t)j * plane, u[j]);
        }
    }
#endif
}

static void winograd_output(float *y, size_t line, size_t pixel, size_t h, size_t w,
                            const float *m, size_t plane, size_t n, const float *bias, bool add)
{
    for (size_t c = 0; c < n; c += LANES) {
        size_t some = WF_MIN((size_t)LANES, n - c);
        vec t[TALL][ACROSS], u[ACROSS], b = v_zero();
        if (bias != NULL) b = v_load_some(bias + c, some);
        for (int i = 0; i < ACROSS; i++) {
            vec d[DOWN];
            UNROLL for (int k = 0; k < DOWN; k++)
                d[k] = v_load(m + (size_t)(ACROSS * k + i) * plane + c);
            output_down(u, d);
            UNROLL for (int k = 0; k < TALL; k++) t[k][i] = u[k];
        }
        for (size_t k = 0; k < TALL && k < h; k++) {
            output_across(u, t[k]);
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

#define WINOGRAD { TALL, winograd_input, winograd_weight, winograd_output }
