/* test_rules.c - the methods' pure functions, against the papers' tables. No model, no files. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "plan/method/method.h"

/* ---- K-LoRA ---------------------------------------------------------------------------------- */

/* "C17 S33" over the N calls of layer l. */
static const char *runs(char buf[128], double rho, int32_t N, int32_t l, int32_t L, const weft_klora_options *o)
{
    size_t used = 0;

    buf[0] = '\0';
    for (int32_t n = 0, end; n < N; n = end) {
        bool content = wf_klora_choose(rho, n, N, l, L, o);
        for (end = n + 1; end < N && wf_klora_choose(rho, end, N, l, L, o) == content; end++) {}
        used += (size_t)snprintf(buf + used, 128 - used, "%s%c%d", n > 0 ? " " : "", content ? 'C' : 'S', (int)(end - n));
    }
    return buf;
}

static weft_klora_options with(int32_t pattern, uint32_t flags)
{
    weft_klora_options o = WEFT_KLORA_OPTIONS_INIT;
    o.pattern = pattern;
    o.flags = flags;
    return o;
}

/* SDXL's 560 attention linears over 50 calls, the counter wrapping as in the authors' program. */
static const struct { double rho; const char *s_1, *s_560, *star_1, *star_280, *star_560; } published[] = {
    { 0.4,  "S50",     "S50",        "S8 C13 S29", "S7 C14 S29", "S7 C13 S30" },
    { 0.6,  "C4 S46",  "C3 S46 C1",  "S8 C20 S22", "S7 C20 S23", "S7 C20 S23" },
    { 1.0,  "C17 S33", "C16 S33 C1", "S8 C33 S9",  "S7 C34 S9",  "S7 C33 S10" },
    { 1.3,  "C27 S23", "C26 S23 C1", "C1 S7 C42",  "C1 S6 C43",  "S7 C43" },
    { 1.45, "C32 S18", "C31 S18 C1", "C6 S2 C42",  "C6 S1 C43",  "C5 S2 C43" },
    { 1.6,  "C37 S13", "C36 S13 C1", "C50",        "C50",        "C50" },
    { 2.1,  "C50",     "C50",        "C50",        "C50",        "C50" },
};

START_TEST(klora_chooses_as_the_published_table)
{
    weft_klora_options s = with(WEFT_KLORA_S, WEFT_KLORA_WRAP), star = with(WEFT_KLORA_S_STAR, WEFT_KLORA_WRAP);
    double             rho = published[_i].rho;
    char               buf[128];

    ck_assert_str_eq(runs(buf, rho, 50, 1, 560, &s), published[_i].s_1);
    ck_assert_str_eq(runs(buf, rho, 50, 560, 560, &s), published[_i].s_560);
    ck_assert_str_eq(runs(buf, rho, 50, 1, 560, &star), published[_i].star_1);
    ck_assert_str_eq(runs(buf, rho, 50, 280, 560, &star), published[_i].star_280);
    ck_assert_str_eq(runs(buf, rho, 50, 560, 560, &star), published[_i].star_560);
}
END_TEST

/* Without the wrap the C1 at the end of the last layer is gone, and nothing else changes. */
START_TEST(without_the_wrap_the_last_layer_ends_in_style)
{
    weft_klora_options s = with(WEFT_KLORA_S, 0), star = with(WEFT_KLORA_S_STAR, 0);
    char               buf[128], want[128];
    const char        *tail;

    snprintf(want, sizeof want, "%s", published[_i].s_560);
    tail = strstr(want, " S");
    if (tail != NULL && strstr(want, " C1") != NULL) {
        int content, style;
        ck_assert_int_eq(sscanf(want, "C%d S%d C1", &content, &style), 2);
        snprintf(want, sizeof want, "C%d S%d", content, style + 1);
    }
    ck_assert_str_eq(runs(buf, published[_i].rho, 50, 560, 560, &s), want);
    ck_assert_str_eq(runs(buf, published[_i].rho, 50, 1, 560, &s), published[_i].s_1);
    ck_assert_str_eq(runs(buf, published[_i].rho, 50, 1, 560, &star), published[_i].star_1);
    ck_assert_str_eq(runs(buf, published[_i].rho, 50, 280, 560, &star), published[_i].star_280);
    ck_assert_str_eq(runs(buf, published[_i].rho, 50, 560, 560, &star), published[_i].star_560);
}
END_TEST

/* l = 280 of 560: at n = 7 tau is 0.15 and S* exactly 0, so even a tiny rho is content, and 0 is not;
 * at n = 27 tau is 0.55 and S* exactly 0.6. */
START_TEST(ties_of_the_modulo_fall_as_in_exact_arithmetic)
{
    weft_klora_options o = with(WEFT_KLORA_S_STAR, 0);

    ck_assert(wf_klora_choose(1e-300, 7, 50, 280, 560, &o));
    ck_assert(!wf_klora_choose(0, 7, 50, 280, 560, &o));
    ck_assert(!wf_klora_choose(0.6, 27, 50, 280, 560, &o));
    ck_assert(wf_klora_choose(0.6, 26, 50, 280, 560, &o));
    ck_assert(wf_klora_choose(INFINITY, 49, 50, 560, 560, &o));
}
END_TEST

/* At the last layer of the last call tau is 49 / 49 and S = 1.5 + 0.5: rho = 2 is a tie. (49 times
 * the double nearest to 1 / 49 is below 1.) */
START_TEST(tau_ends_at_one)
{
    weft_klora_options o = with(WEFT_KLORA_S, 0);

    ck_assert(!wf_klora_choose(2, 6, 7, 7, 7, &o));
    ck_assert(wf_klora_choose(nextafter(2, 3), 6, 7, 7, 7, &o));
}
END_TEST

/* S at tau = 0 is 1.275 in the program and 1.3 in the paper. */
START_TEST(paper_beta_is_the_printed_one)
{
    weft_klora_options code = with(WEFT_KLORA_S_STAR, 0), paper = with(WEFT_KLORA_S_STAR, WEFT_KLORA_PAPER_BETA);

    code.granularity = paper.granularity = WEFT_KLORA_BY_STEP;
    ck_assert(wf_klora_choose(1.29, 0, 50, 1, 560, &code));
    ck_assert(!wf_klora_choose(1.29, 0, 50, 1, 560, &paper));
}
END_TEST

START_TEST(custom_curves_are_the_options)
{
    weft_klora_options mine = with(WEFT_KLORA_CUSTOM, 0), s = with(WEFT_KLORA_S, 0), star = with(WEFT_KLORA_S_STAR, 0);
    char               a[128], b[128];

    for (double rho = 0; rho < 2.2; rho += 0.07) {
        mine.alpha = 1.5, mine.beta = 0.5, mine.modulus = 0;
        ck_assert_str_eq(runs(a, rho, 20, 3, 8, &mine), runs(b, rho, 20, 3, 8, &s));
        mine.beta = 1.275, mine.modulus = 1.5;
        ck_assert_str_eq(runs(a, rho, 20, 3, 8, &mine), runs(b, rho, 20, 3, 8, &star));
    }
}
END_TEST

/* By step every layer of a call sees the same tau = n / N. */
START_TEST(by_step_all_layers_of_a_call_agree)
{
    weft_klora_options o = with(WEFT_KLORA_S, 0);

    o.granularity = WEFT_KLORA_BY_STEP;
    for (int32_t n = 0; n < 30; n++)
        for (int32_t l = 1; l <= 16; l++)
            ck_assert(wf_klora_choose(1.0, n, 30, l, 16, &o) == (1.0 > 1.5 * (n / 30.0) + 0.5));
}
END_TEST

/* tau stays within 0 .. 1 and is 1 at the very last layer alone: pattern s there is exactly 2. */
START_TEST(any_number_of_calls_has_a_schedule)
{
    static const int32_t calls[] = { 1, 2, 30 };
    weft_klora_options   o = with(WEFT_KLORA_S, 0);
    int32_t              N = calls[_i], L = 7;
    double               below = nextafter(2, 0);

    for (int32_t n = 0; n < N; n++)
        for (int32_t l = 1; l <= L; l++) {
            bool last = n == N - 1 && l == L;
            ck_assert(wf_klora_choose(below, n, N, l, L, &o) == !last);
            ck_assert(wf_klora_choose(nextafter(2, 3), n, N, l, L, &o));
            ck_assert(!wf_klora_choose(0.5, n, N, l, L, &o));
        }
    o.flags = WEFT_KLORA_WRAP; /* there the last layer is the first again */
    ck_assert(wf_klora_choose(below, N - 1, N, L, L, &o));
    ck_assert(!wf_klora_choose(0.5, N - 1, N, L, L, &o));
}
END_TEST

START_TEST(more_content_never_turns_content_into_style)
{
    for (int32_t pattern = WEFT_KLORA_S_STAR; pattern <= WEFT_KLORA_S; pattern++) {
        weft_klora_options o = with(pattern, 0);
        for (int32_t n = 0; n < 50; n++)
            for (int32_t l = 1; l <= 128; l += 9) {
                bool before = false;
                for (double rho = 0; rho < 2.5; rho += 0.013) {
                    bool now = wf_klora_choose(rho, n, 50, l, 128, &o);
                    ck_assert(now || !before);
                    before = now;
                }
            }
    }
}
END_TEST

/* Two layers, q = 20/14 and 0.8: gamma = 1.114286, and the first layer's rho = 13 / (7.5 gamma) = 1.555556
 * leaves content at n = 50 (rho - 0.5) / 1.5 = 35.185. */
START_TEST(the_worked_example_flips_at_35)
{
    const double       q[] = { 20.0 / 14, 0.8 };
    int32_t            dropped;
    double             gamma = wf_klora_gamma(q, 2, &dropped), rho = 13 / (7.5 * gamma);
    weft_klora_options o = with(WEFT_KLORA_S, 0);

    ck_assert_double_eq_tol(gamma, 1.114286, 1e-6);
    ck_assert_int_eq(dropped, 0);
    ck_assert_double_eq_tol(rho, 1.555556, 1e-6);
    o.granularity = WEFT_KLORA_BY_STEP;
    ck_assert(wf_klora_choose(rho, 35, 50, 1, 1, &o));
    ck_assert(!wf_klora_choose(rho, 36, 50, 1, 1, &o));
}
END_TEST

/* Mean 5.904762, limit 17.714286: 30 goes. With four layers no single one can be three times the mean. */
START_TEST(far_ratios_are_left_out_of_gamma)
{
    const double six[] = { 20.0 / 14, 0.8, 1.2, 0.9, 1.1, 30 }, four[] = { 1.43, 0.8, 1.2, 9 };
    int32_t      dropped;

    ck_assert_double_eq_tol(wf_klora_gamma(six, 6, &dropped), 1.085714, 1e-6);
    ck_assert_int_eq(dropped, 1);
    ck_assert_double_eq_tol(wf_klora_gamma(four, 4, &dropped), (1.43 + 0.8 + 1.2 + 9) / 4, 1e-12);
    ck_assert_int_eq(dropped, 0);
    ck_assert_double_eq(wf_klora_gamma(NULL, 0, &dropped), 1);
}
END_TEST

/* ---- Switch ---------------------------------------------------------------------------------- */

/* Three adapters, turns of 5, 20 calls. */
START_TEST(switch_takes_turns_as_the_paper_and_as_the_program)
{
    static const char   *paper = "00000111112222200000", *program = "00000011111222220000";
    static const int32_t five[] = { 5, 5, 5 }, one[] = { 1, 1, 1 };

    for (int32_t n = 0; n < 20; n++) {
        ck_assert_int_eq(wf_switch_turn(n, five, 3, false), paper[n] - '0');
        ck_assert_int_eq(wf_switch_turn(n, five, 3, true), program[n] - '0');
        ck_assert_int_eq(wf_switch_turn(n, five, 1, n % 2), 0);
        ck_assert_int_eq(wf_switch_turn(n, one, 3, false), n % 3);
    }
}
END_TEST

/* Turns of any length, one of none. */
START_TEST(switch_takes_turns_of_unequal_length)
{
    static const char   *turns = "00022100022100022100";
    static const int32_t calls[] = { 3, 0, 2, 1 }, to[] = { 0, 9, 2, 1 };

    for (int32_t n = 0; n < 20; n++) {
        ck_assert_int_eq(to[wf_switch_turn(n, calls, 4, false)], turns[n] - '0');
        ck_assert_int_eq(to[wf_switch_turn(n + 1, calls, 4, true)], turns[n] - '0');
    }
}
END_TEST

/* Quotas of the first: 7.5 and 2.5 (a tie: the earlier); 6.43, 2.14, 6.43; 0, 15; a third of 10 each. */
START_TEST(shares_divide_a_cycle)
{
    static const struct { double share[3]; int32_t turns, cycle, calls[3]; } all[] = {
        { { 3, 1 }, 2, 10, { 8, 2 } },      { { 3, 1, 3 }, 3, 15, { 7, 2, 6 } },
        { { 0, 0.5 }, 2, 15, { 0, 15 } },   { { 1, 1, 1 }, 3, 10, { 4, 3, 3 } },
        { { 0.1, 0.7, 0.2 }, 3, 6, { 1, 4, 1 } }, { { 0.1, 0.1, 0.1 }, 3, 15, { 5, 5, 5 } },
    };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        int32_t calls[3] = { -1, -1, -1 };
        wf_switch_divide(calls, all[i].share, all[i].turns, all[i].cycle);
        for (int32_t t = 0; t < all[i].turns; t++) ck_assert_int_eq(calls[t], all[i].calls[t]);
    }
}
END_TEST

/* ---- Composite ------------------------------------------------------------------------------- */

/* e_u = (.1, .2), (.3, 0), e_c = (.5, -.2), (.1, .4), w = 7: means first, then guidance gives 0.9 and 0.1. */
START_TEST(composite_averages_then_guides)
{
    const float  u0[] = { .1f, .2f }, u1[] = { .3f, 0 }, c0[] = { .5f, -.2f }, c1[] = { .1f, .4f };
    const float *u[] = { u0, u1 }, *c[] = { c0, c1 }, share[] = { 1, 1 };
    float        mean_u[2], mean_c[2];

    wf_composite_sum(mean_u, u, share, 2, 2, 2);
    wf_composite_sum(mean_c, c, share, 2, 2, 2);
    ck_assert_float_eq_tol(mean_u[0] + 7 * (mean_c[0] - mean_u[0]), 0.9f, 1e-6f);
    ck_assert_float_eq_tol(mean_u[1] + 7 * (mean_c[1] - mean_u[1]), 0.1f, 1e-6f);
}
END_TEST

/* ---- LoRAtorio ------------------------------------------------------------------------------- */

/* Two patches of two pixels. The first adapter is the base in the one and at right angles in the
 * other; the second the other way round. exp(-1) : 1 is 0.2689414 : 0.7310586. */
START_TEST(loratorio_weighs_what_differs)
{
    static const float base[] = { 1, 0, 0, 2 }, c0[] = { 3, 0, 1, 0 }, c1[] = { 0, 1, 0, 5 };
    static const float u_base[] = { 1, 2, 3, 4 }, u0[] = { 10, 20, 30, 40 }, u1[] = { -1, -2, -3, -4 };
    const float *c[] = { c0, c1 }, *u[] = { u0, u1 }, share[] = { 1, 1 };
    const double far = 0.7310585786300049, near = 1 - far;
    float out[4];
    weft_loratorio_options o = { .patch = 2, .temperature = 1, .base = 0.25f };
    wf_combine x = { .n = 1, .c = 1, .h = 1, .w = 4, .half = WF_CONDITIONAL, .guided = true, .branches = 2,
                     .preds = c, .base = base, .cond = c, .cond_base = base, .out = out };

    wf_loratorio_combine(&x, share, &o);
    ck_assert_double_eq_tol(out[0], 3 * near, 1e-7);
    ck_assert_double_eq_tol(out[1], far, 1e-7);
    ck_assert_double_eq_tol(out[2], far, 1e-7);
    ck_assert_double_eq_tol(out[3], 5 * near, 1e-6);
    x.half = WF_UNCONDITIONAL;
    x.preds = u;
    x.base = u_base;
    wf_loratorio_combine(&x, share, &o);
    for (int i = 0; i < 4; i++) {
        double w = i < 2 ? near : far;
        ck_assert_double_eq_tol(out[i], 0.25 * u_base[i] + 0.75 * (w * u0[i] + (1 - w) * u1[i]), 1e-5);
    }
    o.keep = 1; /* in each patch the one that differs */
    o.base = 0;
    wf_loratorio_combine(&x, share, &o);
    for (int i = 0; i < 4; i++) ck_assert_float_eq(out[i], i < 2 ? u1[i] : u0[i]);
    o.keep = 0;
    o.patch = 3; /* cosines 2 / (sqrt 5 sqrt 10) .. of no importance: the fourth is a patch by itself */
    wf_loratorio_combine(&x, (const float[]){ 0, 2 }, &o); /* a share of 0 is out */
    for (int i = 0; i < 4; i++) ck_assert_float_eq(out[i], u1[i]);
    wf_loratorio_combine(&x, (const float[]){ 1, 3 }, &o); /* there cosines of 0 and 1: e : 3 */
    double e = exp(1.0), w = e / (e + 3);
    ck_assert_double_eq_tol(out[3], w * 40 - (1 - w) * 4, 1e-5);
}
END_TEST

/* ---- sub-bands ------------------------------------------------------------------------------- */

/* A flat field is all in the sums, stripes all in the differences: both survive whole. */
START_TEST(subbands_keep_what_is_in_different_bands)
{
    static const float base[8] = { 0 }, flat[] = { 1, 1, 1, 1, 1, 1, 1, 1 },
                       stripes[] = { 3, -3, 3, -3, 3, -3, 3, -3 };
    const float *c[] = { flat, stripes };
    float out[8], scratch[5 * 8];
    weft_subbands_options o = { .levels = 1, .sharpness = 1 };
    wf_combine x = { .n = 1, .c = 1, .h = 2, .w = 4, .half = WF_CONDITIONAL, .branches = 2, .preds = c,
                     .base = base, .cond = c, .cond_base = base, .scratch = scratch, .out = out };

    wf_subbands_combine(&x, (const float[]){ 1, 1 }, &o);
    for (int i = 0; i < 8; i++) ck_assert_float_eq_tol(out[i], i % 2 == 0 ? 4 : -2, 1e-6f);
    o.sharpness = 0; /* the mean */
    wf_subbands_combine(&x, (const float[]){ 1, 3 }, &o);
    for (int i = 0; i < 8; i++) ck_assert_float_eq_tol(out[i], i % 2 == 0 ? 2.5f : -2, 1e-6f);
}
END_TEST

/* One band with sizes 1 and 3: 1 : 3 in proportion, 1 : 9 squared, the larger alone, or 3 : 3 with shares. */
START_TEST(subbands_weigh_by_size)
{
    static const float base[4] = { 1, 1, 1, 1 }, a[] = { 2, 2, 2, 2 }, b[] = { -2, -2, -2, -2 };
    const float *c[] = { a, b };
    float out[4], scratch[20];
    static const struct { float sharpness; int32_t keep; float share[2]; double weight; } all[] = {
        { 1, 0, { 1, 1 }, 0.25 }, { 2, 0, { 1, 1 }, 0.1 }, { 1, 1, { 1, 1 }, 0 }, { 1, 0, { 3, 1 }, 0.5 },
        { 1, 1, { 1, 0 }, 1 },
    };

    for (size_t i = 0; i < WF_LEN(all); i++) {
        weft_subbands_options o = { .levels = 2, .sharpness = all[i].sharpness, .keep = all[i].keep };
        wf_combine x = { .n = 1, .c = 1, .h = 2, .w = 2, .half = WF_CONDITIONAL, .branches = 2, .preds = c,
                         .base = base, .cond = c, .cond_base = base, .scratch = scratch, .out = out };
        wf_subbands_combine(&x, all[i].share, &o);
        for (int k = 0; k < 4; k++)
            ck_assert_double_eq_tol(out[k], all[i].weight * 2 - (1 - all[i].weight) * 2, 1e-6);
    }
}
END_TEST

static float wild(uint32_t *state);

/* Any size, odd ones too: the inverse gives back what was there; of even sizes the energy stays. */
START_TEST(the_transform_has_an_inverse)
{
    enum { MOST = 17 * 12 };
    float    v[MOST], was[MOST], temp[17];
    uint32_t state = 3;

    for (int32_t h = 1; h <= 17; h += 2)
        for (int32_t w = 1; w <= 12; w++)
            for (int32_t levels = 1; levels <= 8; levels += 3) {
                double before = 0, after = 0, worst = 0, most = 0;
                for (int32_t i = 0; i < h * w; i++) v[i] = was[i] = wild(&state);
                wf_subbands_split(v, h, w, levels, temp);
                for (int32_t i = 0; i < h * w; i++) {
                    before += (double)was[i] * was[i];
                    after += (double)v[i] * v[i];
                    most = fmax(most, fabs(was[i]));
                }
                if (levels == 1 && h == 1 && w % 2 == 0) ck_assert_double_eq_tol(after / before, 2, 1e-5);
                wf_subbands_join(v, h, w, levels, temp);
                for (int32_t i = 0; i < h * w; i++) worst = fmax(worst, fabs((double)v[i] - was[i]));
                ck_assert_double_le(worst, 2e-6 * most);
            }
}
END_TEST

/* Of one adapter, and of one twice, both make its prediction: LoRAtorio its bits. */
START_TEST(equal_adapters_are_one)
{
    enum { N = 3 * 9 * 10 };
    static float e[N], base[N], out[N], scratch[5 * N];
    const float *preds[] = { e, e };
    uint32_t state = 5;

    for (int i = 0; i < N; i++) base[i] = wild(&state), e[i] = wild(&state);
    for (int32_t k = 1; k <= 2; k++) {
        weft_loratorio_options lo = { .patch = 4, .temperature = 0.1f };
        weft_subbands_options so = { .levels = 3, .sharpness = 1 };
        wf_combine x = { .n = 1, .c = 3, .h = 9, .w = 10, .half = WF_CONDITIONAL, .guided = true, .branches = k,
                         .preds = preds, .base = base, .cond = preds, .cond_base = base, .scratch = scratch,
                         .out = out };
        wf_loratorio_combine(&x, (const float[]){ 1, 1 }, &lo);
        ck_assert_mem_eq(out, e, sizeof out);
        wf_subbands_combine(&x, (const float[]){ 1, 1 }, &so);
        double worst = 0, most = 0;
        for (int i = 0; i < N; i++) {
            worst = fmax(worst, fabs((double)out[i] - e[i]));
            most = fmax(most, fabs(e[i]));
        }
        ck_assert_double_le(worst, 1e-6 * most);
    }
}
END_TEST

/* Neither sees the order of the adapters, not in a bit. */
START_TEST(weights_do_not_see_the_order)
{
    enum { N = 2 * 3 * 7 * 5, K = 4 };
    static float e[K][N], base[N], first[2][N], out[N], scratch[(2 * K + 1) * N];
    static const int order[][K] = { { 0, 1, 2, 3 }, { 3, 2, 1, 0 }, { 1, 3, 0, 2 }, { 2, 0, 3, 1 } };
    const float share[K] = { 1, 0.7f, 2.5f, 1 };
    uint32_t state = 11;

    for (int i = 0; i < N; i++) base[i] = wild(&state);
    for (int k = 0; k < K; k++)
        for (int i = 0; i < N; i++) e[k][i] = base[i] + 0.3f * wild(&state);
    for (size_t o = 0; o < WF_LEN(order); o++)
        for (int method = 0; method < 2; method++) {
            const float *preds[K];
            float s[K];
            weft_loratorio_options lo = { .patch = 2, .temperature = 0.1f, .keep = 3, .base = 0.5f };
            weft_subbands_options so = { .levels = 2, .sharpness = 1, .keep = 3 };
            for (int k = 0; k < K; k++) {
                preds[k] = e[order[o][k]];
                s[k] = share[order[o][k]];
            }
            wf_combine x = { .n = 2, .c = 3, .h = 7, .w = 5, .half = WF_UNCONDITIONAL, .guided = true,
                             .branches = K, .preds = preds, .base = base, .cond = preds, .cond_base = base,
                             .scratch = scratch, .out = out };
            if (method == 0) wf_loratorio_combine(&x, s, &lo);
            else wf_subbands_combine(&x, s, &so);
            if (o == 0) memcpy(first[method], out, sizeof out);
            ck_assert_mem_eq(first[method], out, sizeof out);
        }
}
END_TEST

static float wild(uint32_t *state) /* of many sizes and both signs */
{
    *state = *state * 1664525 + 1013904223;
    return ((float)(*state >> 8) / 8388608.0f - 1) * powf(10, (float)(*state >> 5 & 7) - 4);
}

START_TEST(composite_does_not_see_the_order)
{
    enum { N = 500, K = 4 };
    static float e[K][N], first[N], other[N];
    const float  share[K] = { 1, 0.7f, 2.5f, 1 };
    uint32_t     state = 1;
    static const int order[][K] = { { 0, 1, 2, 3 }, { 3, 2, 1, 0 }, { 1, 3, 0, 2 }, { 2, 0, 3, 1 }, { 1, 0, 2, 3 } };

    for (int k = 0; k < K; k++)
        for (int i = 0; i < N; i++) e[k][i] = i % 7 == 0 && k > 0 ? -e[0][i] : wild(&state);
    for (size_t o = 0; o < WF_LEN(order); o++) {
        const float *preds[K];
        float        s[K];
        for (int k = 0; k < K; k++) {
            preds[k] = e[order[o][k]];
            s[k] = share[order[o][k]];
        }
        wf_composite_sum(o == 0 ? first : other, preds, s, K, 5.2, N);
        if (o > 0) ck_assert_mem_eq(first, other, sizeof first);
    }
}
END_TEST

/* 1e30 - 1e30 + 1 is 1 or 0, by the order of the sum; here it is the same in each of the six. */
START_TEST(composite_does_not_see_the_order_where_terms_vanish)
{
    static const float v[] = { 1e30f, -1e30f, 1 }, ones[] = { 1, 1, 1 };
    static const int   order[][3] = { { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 },
                                      { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 } };
    float              first = 0;

    for (size_t o = 0; o < WF_LEN(order); o++) {
        const float *preds[] = { &v[order[o][0]], &v[order[o][1]], &v[order[o][2]] };
        float        sum;
        wf_composite_sum(&sum, preds, ones, 3, 1, 1);
        if (o == 0) first = sum;
        ck_assert_float_eq(sum, first);
    }
}
END_TEST

START_TEST(equal_predictions_average_to_themselves)
{
    enum { N = 300 };
    static float e[N], out[N];
    const float *preds[7], ones[7] = { 1, 1, 1, 1, 1, 1, 1 }, third[1] = { 0.3f };
    uint32_t     state = 7;

    for (int i = 0; i < N; i++) e[i] = wild(&state);
    e[0] = -0.0f;
    for (int k = 0; k < 7; k++) preds[k] = e;
    for (int32_t k = 1; k <= 7; k++) {
        wf_composite_sum(out, preds, ones, k, k, N);
        ck_assert_mem_eq(out, e, sizeof e);
    }
    wf_composite_sum(out, preds, third, 1, 0.3f, N); /* one branch, whatever its share */
    ck_assert_mem_eq(out, e, sizeof e);
}
END_TEST

/* ---- names and numbers ----------------------------------------------------------------------- */

START_TEST(layers_have_short_names)
{
    wf_short_text b;

    ck_assert_str_eq(wf_short_name(&b, "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"),
                     "down.1.att.0.tf.0.attn1.to_q");
    ck_assert_str_eq(wf_block_name(&b, "unet.down_blocks.1.attentions.0.proj_in"), "down.1");
    ck_assert_str_eq(wf_block_name(&b, "unet.mid_block.resnets.0.conv1"), "mid");
    ck_assert_str_eq(wf_block_name(&b, "unet.up_blocks.12.resnets.0.conv1"), "up.12");
    ck_assert_str_eq(wf_block_name(&b, "unet.conv_in"), "conv_in");
    ck_assert_str_eq(wf_block_name(&b, "text_encoder_2.text_model.encoder.layers.0.mlp.fc1"), "text_encoder_2");
    ck_assert(strlen(wf_short_name(&b, "a name that is much longer than any layer of any model that anyone ever made, "
                                       "and then some more")) < sizeof b.text);
}
END_TEST

START_TEST(numbers_have_the_decimals_asked_for)
{
    wf_number_text b;

    ck_assert_str_eq(wf_fixed(&b, 1.5555555, 3), "1.556");
    ck_assert_str_eq(wf_fixed(&b, 0.0004, 3), "0.000");
    ck_assert_str_eq(wf_fixed(&b, -2.05, 1), "-2.1");
    ck_assert_str_eq(wf_fixed(&b, 12, 0), "12");
    ck_assert_str_eq(wf_fixed(&b, INFINITY, 3), "inf");
    ck_assert_str_eq(wf_fixed(&b, 0.9999, 2), "1.00");
}
END_TEST

START_TEST(letters_go_on_after_z)
{
    wf_letter_text b;

    ck_assert_str_eq(wf_letter(&b, 0), "A");
    ck_assert_str_eq(wf_letter(&b, 25), "Z");
    ck_assert_str_eq(wf_letter(&b, 26), "A1");
    ck_assert_str_eq(wf_letter(&b, 255), "V9");
}
END_TEST

int main(void)
{
    Suite   *s = suite_create("plan rules");
    TCase   *t = tcase_create("rules");
    SRunner *sr = srunner_create(s);
    int      failed;

    suite_add_tcase(s, t);
    tcase_add_loop_test(t, klora_chooses_as_the_published_table, 0, (int)WF_LEN(published));
    tcase_add_loop_test(t, without_the_wrap_the_last_layer_ends_in_style, 0, (int)WF_LEN(published));
    tcase_add_test(t, ties_of_the_modulo_fall_as_in_exact_arithmetic);
    tcase_add_test(t, tau_ends_at_one);
    tcase_add_test(t, paper_beta_is_the_printed_one);
    tcase_add_test(t, custom_curves_are_the_options);
    tcase_add_test(t, by_step_all_layers_of_a_call_agree);
    tcase_add_loop_test(t, any_number_of_calls_has_a_schedule, 0, 3);
    tcase_add_test(t, more_content_never_turns_content_into_style);
    tcase_add_test(t, the_worked_example_flips_at_35);
    tcase_add_test(t, far_ratios_are_left_out_of_gamma);
    tcase_add_test(t, switch_takes_turns_as_the_paper_and_as_the_program);
    tcase_add_test(t, switch_takes_turns_of_unequal_length);
    tcase_add_test(t, shares_divide_a_cycle);
    tcase_add_test(t, loratorio_weighs_what_differs);
    tcase_add_test(t, subbands_keep_what_is_in_different_bands);
    tcase_add_test(t, subbands_weigh_by_size);
    tcase_add_test(t, the_transform_has_an_inverse);
    tcase_add_test(t, equal_adapters_are_one);
    tcase_add_test(t, weights_do_not_see_the_order);
    tcase_add_test(t, composite_averages_then_guides);
    tcase_add_test(t, composite_does_not_see_the_order);
    tcase_add_test(t, composite_does_not_see_the_order_where_terms_vanish);
    tcase_add_test(t, equal_predictions_average_to_themselves);
    tcase_add_test(t, layers_have_short_names);
    tcase_add_test(t, numbers_have_the_decimals_asked_for);
    tcase_add_test(t, letters_go_on_after_z);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
