/* Every table of kernels against the formulas in double, on rows that leave tails of every length.
 *
 * "Tail independence": an element gives the same bits wherever in a row it stands, since the nets cut rows by shape
 * and promise bits. */
#include <check.h>
#include <math.h>
#include <stdlib.h>

#include "io/io.h"
#include "tensor/kernels.h"

static const wf_kernels *tables[2] = { &wf_kernels_ref };
static size_t            table_count = 1;

static const size_t lengths[] = { 1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
                                  22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 1000 };
enum { MOST = 1000, GUARD = 8 };

static float next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / (float)(1 << 23) - 1.0f;
}

static void fill(float *v, size_t n, float scale, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) v[i] = scale * next(&seed);
}

static double silu(double x, double slope) { return x / (1 + exp(-slope * x)); }
static double gelu(double x) { return x * (1 + erf(x / sqrt(2))) / 2; }

static double silu_slope(double x, double slope)
{
    double s = 1 / (1 + exp(-slope * x));
    return s + slope * x * s * (1 - s);
}

static double gelu_slope(double x)
{
    return (1 + erf(x / sqrt(2))) / 2 + x * exp(-x * x / 2) / sqrt(2 * acos(-1.0));
}

/* Ends of rows are guarded: nothing is written beyond them. */
static float *guarded(float *buf, size_t n)
{
    for (size_t i = 0; i < GUARD; i++) buf[i] = buf[GUARD + n + i] = 777.0f;
    return buf + GUARD;
}

static void check_guards(const float *row, size_t n)
{
    for (size_t i = 0; i < GUARD; i++) ck_assert(row[-1 - (int)i] == 777.0f && row[n + i] == 777.0f);
}

/* ---- widening: exact ------------------------------------------------------------------------- */

/* All 65536 halves are exact in float32; the formula is IEEE 754's. */
static double half(uint16_t h, int exponent_bits)
{
    int fraction_bits = 15 - exponent_bits, e = h >> fraction_bits & ((1 << exponent_bits) - 1);
    int bias = (1 << (exponent_bits - 1)) - 1, f = h & ((1 << fraction_bits) - 1);
    double sign = h & 0x8000 ? -1 : 1;
    if (e == (1 << exponent_bits) - 1) return f == 0 ? sign * (double)INFINITY : (double)NAN;
    if (e == 0) return sign * ldexp(f, 1 - bias - fraction_bits);
    return sign * ldexp((1 << fraction_bits) + f, e - bias - fraction_bits);
}

START_TEST(every_half_and_bfloat)
{
    const wf_kernels *k = tables[_i];
    static uint8_t src[2 * 65536 + 3];
    static float buf[65536 + 2 * GUARD];
    for (size_t shift = 0; shift < 3; shift++) {
        for (size_t i = 0; i < 65536; i++) memcpy(src + shift + 2 * i, &(uint16_t){ (uint16_t)i }, 2);
        for (int brain = 0; brain < 2; brain++) {
            float *y = guarded(buf, 65536);
            (brain ? k->widen_bf16 : k->widen_f16)(y, src + shift, 65536);
            check_guards(y, 65536);
            for (size_t i = 0; i < 65536; i++) {
                double want = half((uint16_t)i, brain ? 8 : 5);
                ck_assert_msg(isnan(want) ? isnan(y[i]) : y[i] == want && !signbit(y[i]) == !signbit(want),
                              "%s: %zu gives %g, wanted %g", k->name, i, y[i], want);
            }
        }
    }
}
END_TEST

static uint16_t finite(size_t i) { return (uint16_t)((i * 37 + 0x3400) & 0x7bff); }

START_TEST(short_rows_of_halves_at_odd_addresses)
{
    const wf_kernels *k = tables[_i];
    float buf[MOST + 2 * GUARD];
    for (size_t l = 0; l < WF_LEN(lengths); l++)
        for (size_t shift = 0; shift < 4; shift++) {
            size_t n = lengths[l];
            uint8_t *src = malloc(2 * n + shift); /* exactly, so that a sanitizer sees one byte too far */
            for (size_t i = 0; i < n; i++) memcpy(src + shift + 2 * i, &(uint16_t){ finite(i) }, 2);
            for (int brain = 0; brain < 2; brain++) {
                float *y = guarded(buf, n);
                (brain ? k->widen_bf16 : k->widen_f16)(y, src + shift, n);
                check_guards(y, n);
                for (size_t i = 0; i < n; i++) ck_assert(y[i] == half(finite(i), brain ? 8 : 5));
            }
            free(src);
        }
}
END_TEST

/* ---- activations ----------------------------------------------------------------------------- */

typedef void (*activation)(float *y, const float *x, size_t n);
enum { SILU, GELU, QUICK_GELU, ACTIVATIONS };

static activation pick(const wf_kernels *k, int which)
{
    return which == SILU ? k->silu : which == GELU ? k->gelu : k->quick_gelu;
}

static double formula(int which, double x)
{
    return which == SILU ? silu(x, 1) : which == GELU ? gelu(x) : silu(x, 1.702);
}

START_TEST(activations_are_their_formulas)
{
    const wf_kernels *k = tables[_i];
    static const float scales[] = { 0.01f, 1, 4, 12, 100 };
    float x[MOST], buf[MOST + 2 * GUARD];
    for (int which = 0; which < ACTIVATIONS; which++)
        for (size_t s = 0; s < WF_LEN(scales); s++)
            for (size_t l = 0; l < WF_LEN(lengths); l++) {
                size_t n = lengths[l];
                float *y = guarded(buf, n);
                fill(x, n, scales[s], (uint32_t)n);
                pick(k, which)(y, x, n);
                check_guards(y, n);
                for (size_t i = 0; i < n; i++) {
                    double want = formula(which, x[i]);
                    ck_assert_msg(fabs(y[i] - want) <= 2.5e-7 * fmax(fabs(x[i]), 0.01),
                                  "%s %d: f(%g) is %g, wanted %g", k->name, which, x[i], y[i], want);
                }
                float last = y[n - 1];
                memcpy(y, x, n * sizeof *x); /* and in place */
                pick(k, which)(y, y, n);
                ck_assert(y[n - 1] == last);
            }
}
END_TEST

/* x for large x; 0, within what float32 can say of a sum with x, for large -x. */
START_TEST(activations_of_extremes)
{
    const wf_kernels *k = tables[_i];
    static const float xs[] = { 0, -0.0f, 1e-30f, -1e-30f, 100, -100, 1e4f, -1e4f, 1e30f, -1e30f, 3e38f };
    for (int which = 0; which < ACTIVATIONS; which++) {
        float y[WF_LEN(xs)];
        pick(k, which)(y, xs, WF_LEN(xs));
        for (size_t i = 0; i < WF_LEN(xs); i++) {
            double want = formula(which, xs[i]);
            ck_assert_msg(fabs(y[i] - want) <= 2e-7 * fabs(want) + 2e-8, "%s %d: f(%g) is %g, wanted %g", k->name,
                          which, xs[i], y[i], want);
        }
        float bad[9] = { NAN, 1, 2, 3, 4, 5, 6, 7, NAN };
        pick(k, which)(bad, bad, 9);
        ck_assert(isnan(bad[0]) && isnan(bad[8]) && !isnan(bad[4]));
    }
}
END_TEST

START_TEST(geglu_and_affine)
{
    const wf_kernels *k = tables[_i];
    float a[MOST], b[MOST], c[MOST], buf[MOST + 2 * GUARD];
    for (size_t l = 0; l < WF_LEN(lengths); l++) {
        size_t n = lengths[l];
        float *y = guarded(buf, n);
        fill(a, n, 3, 1), fill(b, n, 5, 2), fill(c, n, 2, 3);
        k->geglu(y, a, b, n);
        check_guards(y, n);
        for (size_t i = 0; i < n; i++)
            ck_assert_double_eq_tol(y[i], a[i] * gelu(b[i]), 3e-7 * fmax(fabs(a[i] * b[i]), 0.1));
        k->affine(y, a, b, c, n);
        check_guards(y, n);
        for (size_t i = 0; i < n; i++) ck_assert_double_eq_tol(y[i], (double)a[i] * b[i] + c[i], 2e-6);
        memcpy(y, a, n * sizeof *a);
        k->scale(y, -0.3f, n);
        for (size_t i = 0; i < n; i++) ck_assert(y[i] == -0.3f * a[i]);
        memcpy(y, a, n * sizeof *a);
        k->add(y, b, n);
        check_guards(y, n);
        for (size_t i = 0; i < n; i++) ck_assert(y[i] == a[i] + b[i]);
    }
}
END_TEST

/* ---- rows ------------------------------------------------------------------------------------ */

/* Every table has the bits of the plain loop. */
START_TEST(sums_are_those_of_doubles)
{
    const wf_kernels *k = tables[_i];
    float x[MOST];
    double sum[MOST + 1], square[MOST + 1];
    for (size_t l = 0; l < WF_LEN(lengths); l++) {
        size_t n = lengths[l];
        for (size_t i = 0; i <= n; i++) sum[i] = 0.1 * (double)i, square[i] = 1e-3 * (double)i;
        fill(x, n, 100, 5);
        k->sums(sum, square, x, n);
        for (size_t i = 0; i <= n; i++) {
            double v = i < n ? x[i] : 0, s = 0.1 * (double)i, q = 1e-3 * (double)i, vv = v * v;
            ck_assert(sum[i] == s + v && square[i] == q + vv);
        }
    }
}
END_TEST

START_TEST(layer_norm_is_its_formula)
{
    const wf_kernels *k = tables[_i];
    float x[MOST], w[MOST], b[MOST], buf[MOST + 2 * GUARD];
    static const float shifts[] = { 0, 10, -1000 };
    for (size_t s = 0; s < WF_LEN(shifts); s++)
        for (size_t l = 0; l < WF_LEN(lengths); l++) {
            size_t n = lengths[l];
            float *y = guarded(buf, n);
            double sum = 0, square = 0;
            fill(x, n, 2, 1), fill(w, n, 1, 2), fill(b, n, 1, 3);
            for (size_t i = 0; i < n; i++) sum += x[i] += shifts[s];
            for (size_t i = 0; i < n; i++) square += pow(x[i] - sum / (double)n, 2);
            k->layer_norm(y, x, w, b, 1e-5f, n);
            check_guards(y, n);
            for (size_t i = 0; i < n; i++) {
                double inverse = 1 / sqrt(square / (double)n + 1e-5f);
                double want = (x[i] - sum / (double)n) * inverse * w[i] + b[i];
                /* the mean is rounded to a float: 3e-5 at 1000, times what the norm stretches it by */
                ck_assert_double_eq_tol(y[i], want, 2e-6 + 1e-7 * fabs(shifts[s]) * inverse);
            }
        }
}
END_TEST

/* A row of one value is all mean: its norm is the bias, whatever the value. */
START_TEST(layer_norm_of_a_constant_is_the_bias)
{
    const wf_kernels *k = tables[_i];
    float x[24], y[24], w[24], b[24];
    for (size_t i = 0; i < 24; i++) x[i] = 123.25f, w[i] = 2, b[i] = (float)i;
    k->layer_norm(y, x, w, b, 1e-5f, 24);
    for (size_t i = 0; i < 24; i++) ck_assert(y[i] == (float)i);
}
END_TEST

/* ---- the way back ---------------------------------------------------------------------------- */

START_TEST(slopes_are_their_formulas)
{
    const wf_kernels *k = tables[_i];
    static const float scales[] = { 0.01f, 1, 4, 12, 100 };
    float x[MOST], buf[MOST + 2 * GUARD];
    for (int which = 0; which < ACTIVATIONS; which++) {
        activation slope = which == SILU ? k->silu_slope : which == GELU ? k->gelu_slope : k->quick_gelu_slope;
        for (size_t s = 0; s < WF_LEN(scales); s++)
            for (size_t l = 0; l < WF_LEN(lengths); l++) {
                size_t n = lengths[l];
                float *y = guarded(buf, n);
                fill(x, n, scales[s], (uint32_t)n);
                slope(y, x, n);
                check_guards(y, n);
                for (size_t i = 0; i < n; i++) {
                    double want = which == SILU ? silu_slope(x[i], 1) : which == GELU ? gelu_slope(x[i])
                                                                                      : silu_slope(x[i], 1.702);
                    /* 1 - s has the rounding of s, and is multiplied with x */
                    ck_assert_msg(fabs(y[i] - want) <= 4e-7 + 6e-8 * fmin(fabs(x[i]), 20), "%s %d: the slope at %g is %g, wanted %g", k->name, which,
                                  x[i], y[i], want);
                }
                float last = y[n - 1];
                memcpy(y, x, n * sizeof *x); /* and in place */
                slope(y, y, n);
                ck_assert(y[n - 1] == last);
            }
    }
}
END_TEST

START_TEST(products_are_summed_in_double)
{
    const wf_kernels *k = tables[_i];
    float x[MOST], z[MOST];
    double sum[MOST + 1], product[MOST + 1];
    for (size_t l = 0; l < WF_LEN(lengths); l++) {
        size_t n = lengths[l];
        for (size_t i = 0; i <= n; i++) sum[i] = 0.1 * (double)i, product[i] = 1e-3 * (double)i;
        fill(x, n, 100, 5), fill(z, n, 3, 6);
        k->sum_products(sum, product, x, z, n);
        for (size_t i = 0; i <= n; i++) {
            double v = i < n ? x[i] : 0, s = 0.1 * (double)i, q = 1e-3 * (double)i, vz = v * (i < n ? z[i] : 0);
            ck_assert(sum[i] == s + v && product[i] == q + vz);
        }
    }
}
END_TEST

/* p = [0.25 0.75], gradients [2 -1] of it: their mean is -0.25, so 0.5 p (t - mean) is [0.28125 -0.28125]. */
START_TEST(softmax_goes_back)
{
    const wf_kernels *k = tables[_i];
    float s[2] = { 0.25f, 0.75f }, t[2] = { 2, -1 }, x[MOST], z[MOST], buf[MOST + 2 * GUARD];
    k->softmax_back(s, t, -0.25f, 0.5f, 2);
    ck_assert(s[0] == 0.28125f && s[1] == -0.28125f);
    for (size_t l = 0; l < WF_LEN(lengths); l++) {
        size_t n = lengths[l];
        float *y = guarded(buf, n);
        fill(x, n, 1, 7), fill(z, n, 2, 8);
        memcpy(y, x, n * sizeof *x);
        k->softmax_back(y, z, 0.3f, 0.7f, n);
        check_guards(y, n);
        for (size_t i = 0; i < n; i++) ck_assert_double_eq_tol(y[i], x[i] * 0.7 * (z[i] - 0.3), 1e-6);
    }
}
END_TEST

START_TEST(layer_norm_goes_back)
{
    const wf_kernels *k = tables[_i];
    float x[MOST], g[MOST], w[MOST], start[MOST], buf[MOST + 2 * GUARD], other[MOST];
    static const float shifts[] = { 0, 10, -1000 };
    for (size_t s = 0; s < WF_LEN(shifts); s++)
        for (size_t l = 0; l < WF_LEN(lengths); l++) {
            size_t n = lengths[l];
            float *y = guarded(buf, n);
            double sum = 0, square = 0, a = 0, b = 0, of = (double)n;
            fill(x, n, 2, 1), fill(w, n, 1, 2), fill(g, n, 1, 3), fill(start, n, 1, 4);
            for (size_t i = 0; i < n; i++) sum += x[i] += shifts[s];
            for (size_t i = 0; i < n; i++) square += pow(x[i] - sum / of, 2);
            double inverse = 1 / sqrt(square / of + 1e-5f);
            for (size_t i = 0; i < n; i++) {
                a += (double)g[i] * w[i] / of;
                b += (double)g[i] * w[i] * (x[i] - sum / of) * inverse / of;
            }
            memcpy(y, start, n * sizeof *y), memcpy(other, start, n * sizeof *y);
            k->layer_norm_back(y, g, x, w, 1e-5f, n);
            check_guards(y, n);
            for (size_t i = 0; i < n; i++) {
                double u = (x[i] - sum / of) * inverse, want = start[i] + inverse * ((double)g[i] * w[i] - a - u * b);
                ck_assert_double_eq_tol(y[i], want, (2e-6 + 1e-7 * fabs(shifts[s]) * inverse) * fmax(inverse, 1));
            }
            wf_kernels_ref.layer_norm_back(other, g, x, w, 1e-5f, n);
            ck_assert(memcmp(y, other, n * sizeof *y) == 0);
        }
}
END_TEST

START_TEST(exp_sum_and_max)
{
    const wf_kernels *k = tables[_i];
    static const float scales[] = { 0.1f, 1, 0.125f };
    float x[MOST], buf[MOST + 2 * GUARD];
    for (size_t s = 0; s < WF_LEN(scales); s++)
        for (size_t l = 0; l < WF_LEN(lengths); l++) {
            size_t n = lengths[l];
            float *y = guarded(buf, n);
            double sum = 0, high = -INFINITY;
            fill(x, n, 40, (uint32_t)n);
            for (size_t i = 0; i < n; i++) high = fmax(high, x[i]);
            ck_assert(k->max(x, n) == (float)high);
            float top = (float)high * scales[s];
            memcpy(y, x, n * sizeof *x);
            float got = k->exp_sum(y, scales[s], top, n);
            check_guards(y, n);
            for (size_t i = 0; i < n; i++) {
                float d = x[i] * scales[s] - top; /* as float32 has it */
                double want = exp(d);
                ck_assert_double_eq_tol(y[i], want, 1e-6 * want + 2e-38);
                sum += want;
            }
            ck_assert_double_eq_tol(got, sum, 1e-6 * sum);
        }
}
END_TEST

/* The largest score has exp(0) = 1 exactly, however large it is; a single score gives a sum of 1. */
START_TEST(the_largest_score_counts_one)
{
    const wf_kernels *k = tables[_i];
    static const float sizes[] = { 0, 1, -1, 100, -100, 12345.678f, 1e9f, -3.3e7f, 1e30f, -1e30f };
    for (size_t i = 0; i < WF_LEN(sizes); i++)
        for (size_t n = 1; n <= 17; n++) {
            float s[17], a = 0.35355339f;
            for (size_t j = 0; j < n; j++) s[j] = sizes[i] - fabsf(sizes[i]) * 0.5f * (float)j;
            float top = k->max(s, n) * a, sum = k->exp_sum(s, a, top, n);
            ck_assert_msg(s[0] == 1.0f, "%s: %g gives %g", k->name, sizes[i], s[0]);
            ck_assert(n > 1 || sum == 1.0f);
            ck_assert(sum >= 1.0f && sum <= (float)n + 1e-3f);
        }
}
END_TEST

/* A score that is no number is not taken for a small one: who looks at the weights sees it. */
START_TEST(scores_that_are_no_numbers_are_seen)
{
    const wf_kernels *k = tables[_i];

    for (size_t n = 1; n <= 17; n++)
        for (size_t bad = 0; bad < n; bad++) {
            float s[17] = { 0 };
            s[bad] = NAN;
            ck_assert(isnan(k->exp_sum(s, 1, 0, n)));
            ck_assert(isnan(s[bad]));
        }
}
END_TEST

/* ---- bits ------------------------------------------------------------------------------------ */

START_TEST(an_element_does_not_feel_its_place)
{
    const wf_kernels *k = tables[_i];
    enum { N = 41 };
    float x[N], a[N], b[N], whole[N], part[N];
    uint16_t h[N];
    fill(x, N, 6, 1), fill(a, N, 2, 2), fill(b, N, 2, 3);
    for (size_t i = 0; i < N; i++) h[i] = (uint16_t)(i * 771 + 5);
    for (size_t from = 0; from < N; from++)
        for (size_t n = 1; from + n <= N; n++) {
            for (int which = 0; which < ACTIVATIONS; which++) {
                pick(k, which)(whole, x, N);
                pick(k, which)(part, x + from, n);
                ck_assert(memcmp(part, whole + from, n * sizeof *part) == 0);
            }
            k->geglu(whole, a, x, N), k->geglu(part, a + from, x + from, n);
            ck_assert(memcmp(part, whole + from, n * sizeof *part) == 0);
            k->affine(whole, x, a, b, N), k->affine(part, x + from, a + from, b + from, n);
            ck_assert(memcmp(part, whole + from, n * sizeof *part) == 0);
            k->widen_f16(whole, h, N), k->widen_f16(part, h + from, n);
            ck_assert(memcmp(part, whole + from, n * sizeof *part) == 0);
            k->widen_bf16(whole, h, N), k->widen_bf16(part, h + from, n);
            ck_assert(memcmp(part, whole + from, n * sizeof *part) == 0);
            memcpy(whole, x, sizeof whole), memcpy(part, x + from, n * sizeof *part);
            (void)k->exp_sum(whole, 1, 6, N), (void)k->exp_sum(part, 1, 6, n);
            ck_assert(memcmp(part, whole + from, n * sizeof *part) == 0);
        }
}
END_TEST

START_TEST(the_processor_gets_its_table)
{
    wf_cpu none = { 0 };
    ck_assert_ptr_eq(wf_kernels_pick(none), &wf_kernels_ref);
    ck_assert_ptr_eq(wf_kernels_pick(wf_cpu_detect()), tables[table_count - 1]);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("kernels");
    TCase *c = tcase_create("kernels");
#if defined(__x86_64__)
    if (wf_cpu_detect().avx2_fma_f16c) tables[table_count++] = &wf_kernels_avx2;
#elif defined(__aarch64__)
    if (wf_cpu_detect().neon) tables[table_count++] = &wf_kernels_neon;
#endif
    int n = (int)table_count;
    tcase_add_loop_test(c, every_half_and_bfloat, 0, n);
    tcase_add_loop_test(c, short_rows_of_halves_at_odd_addresses, 0, n);
    tcase_add_loop_test(c, activations_are_their_formulas, 0, n);
    tcase_add_loop_test(c, activations_of_extremes, 0, n);
    tcase_add_loop_test(c, geglu_and_affine, 0, n);
    tcase_add_loop_test(c, sums_are_those_of_doubles, 0, n);
    tcase_add_loop_test(c, layer_norm_is_its_formula, 0, n);
    tcase_add_loop_test(c, layer_norm_of_a_constant_is_the_bias, 0, n);
    tcase_add_loop_test(c, slopes_are_their_formulas, 0, n);
    tcase_add_loop_test(c, products_are_summed_in_double, 0, n);
    tcase_add_loop_test(c, softmax_goes_back, 0, n);
    tcase_add_loop_test(c, layer_norm_goes_back, 0, n);
    tcase_add_loop_test(c, exp_sum_and_max, 0, n);
    tcase_add_loop_test(c, the_largest_score_counts_one, 0, n);
    tcase_add_loop_test(c, scores_that_are_no_numbers_are_seen, 0, n);
    tcase_add_loop_test(c, an_element_does_not_feel_its_place, 0, n);
    tcase_add_test(c, the_processor_gets_its_table);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
