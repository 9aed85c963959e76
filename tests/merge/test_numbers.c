/* One layer, merged: the worked numbers of docs/methods.md, which are for paper and pencil. W is (3, 4), and two adapters
 * with factors of rank 2 act on it. Expected values were worked out apart from this code. */
#include "../adapter/modules.h"
#include "merge/merge_internal.h"

static const float D2[] = { -1, 1, 0, 2 }; /* the first row of B2 A2 */
static const float W[] = { 1, 2, 2, 0, 0, 3, 4, 0, 2, -1, 0, 2 };

/* ---- adapters and a layer in memory ---------------------------------------------------------- */

static weft_adapter *adapter_from(const weft_tensor_out *t, size_t n)
{
    weft_tensors *tensors;
    weft_adapter *a = NULL;

    ck_assert_msg(weft_tensors_create(t, n, NULL, 0, NULL, &tensors, &err) == WEFT_OK, "%s", err.text);
    ck_assert_msg(weft_adapter_create(tensors, NULL, &a, &err) == WEFT_OK, "%s", err.text);
    weft_tensors_free(tensors);
    return a;
}

static weft_adapter *pair_adapter(const float *A, const float *B, float alpha)
{
    const weft_tensor_out t[] = { tensor("lora_unet_x.lora_down.weight", A, 2, 2, 4),
                                  tensor("lora_unet_x.lora_up.weight", B, 2, 3, 2),
                                  tensor("lora_unet_x.alpha", &alpha, 0, 0, 0) };
    return adapter_from(t, 3);
}

static weft_adapter *whole_adapter(const float *D, int64_t out, int64_t in)
{
    const weft_tensor_out t[] = { tensor("lora_unet_x.diff", D, 2, out, in) };
    return adapter_from(t, 1);
}

/* Adapters with their weights on one layer, and what came of it. */
typedef struct merge {
    wf_layer           l;
    weft_adapter      *adapter[3];
    wf_slice           slice[3];
    wf_merge_part      part[3];
    int32_t            parts;
    weft_merge_options o;
    wf_bag             bag;
    wf_merged_layer    r;
} merge;

static void begin(merge *m, const float *weight, int32_t out, int32_t in)
{
    *m = (merge){ .o = WEFT_MERGE_OPTIONS_INIT };
    m->l = (wf_layer){ .name = "x", .weight = weight, .dtype = WF_F32, .kind = WEFT_LAYER_LINEAR, .out = out,
                       .in = in, .kernel = 1, .stride = 1 };
    wf_bag_init(&m->bag, heap());
}

static void take(merge *m, weft_adapter *a, double weight)
{
    int32_t i = m->parts++;

    m->adapter[i] = a;
    m->slice[i] = (wf_slice){ .rows = m->l.out, .of = m->l.out };
    m->part[i] = (wf_merge_part){ a, &m->slice[i], 1, i, false, weight };
}

static weft_status try_run(merge *m, const wf_merge_method *method)
{
    return wf_merge_one_layer(method, &m->o, m->parts, &m->l, m->part, m->parts, &m->bag, &m->r, &err);
}

static void run(merge *m, const wf_merge_method *method)
{
    ck_assert_msg(try_run(m, method) == WEFT_OK, "%s", err.text);
}

static void end(merge *m)
{
    for (int32_t i = 0; i < m->parts; i++) weft_adapter_free(m->adapter[i]);
    wf_bag_free(&m->bag);
}

/* What is stored: the difference, or the product of the factors with its scale. */
static void stored(const merge *m, float *D)
{
    size_t out = (size_t)m->l.out, K = (size_t)m->l.in, r = (size_t)m->r.rank;

    for (size_t o = 0; o < out; o++)
        for (size_t i = 0; i < K; i++) {
            double s = m->r.full != NULL ? (double)m->r.full[o * K + i] : 0;
            for (size_t p = 0; p < r; p++)
                s += m->r.alpha / (double)r * m->r.up[o * r + p] * m->r.down[p * K + i];
            D[o * K + i] = (float)s;
        }
}

static void check(const merge *m, const double *want, size_t n, double limit)
{
    float D[64];

    stored(m, D);
    near(D, want, n, limit);
}

/* The two adapters of the fixture, with scales 0.5 and 1 at weights 0.7 and 0.3. */
static void fixture(merge *m)
{
    begin(m, W, 3, 4);
    take(m, pair_adapter(A1, B1, 1), 0.7);
    take(m, pair_adapter(A2, B2, 2), 0.3);
}

static const double exact[] = { 0.05, 1, 0, 0.25, 0.475, 0.3, -0.75, 0.075, -0.05, 1.9, 0.75, -0.05 };

/* ---- sums ------------------------------------------------------------------------------------ */

START_TEST(sum_and_concatenation_are_exact)
{
    merge m;

    fixture(&m);
    run(&m, &wf_merge_sum);
    ck_assert_ptr_nonnull(m.r.full);
    check(&m, exact, 12, 1e-6);
    end(&m);
    fixture(&m);
    run(&m, &wf_merge_concat);
    ck_assert_ptr_null(m.r.full);
    ck_assert_int_eq(m.r.rank, 4);
    check(&m, exact, 12, 1e-6);
    ck_assert_double_eq(m.r.error, 0);
    end(&m);
}
END_TEST

/* PEFT's "linear": B1 A2 and B2 A1 are in it. Its error against the exact sum is told. */
START_TEST(factors_apart_have_cross_terms)
{
    const double want[] = { 0.698074, 1.324037, 1.296148, 0.574037, 1.447111, 0.948074, 0.384130, -0.573074,
                            0.598074, 1.737981, 1.884130, 1.084130 };
    double       off = 0, full = 0;
    merge        m;

    fixture(&m);
    m.o.flags = WEFT_MERGE_FACTORS;
    run(&m, &wf_merge_sum);
    check(&m, want, 12, 1e-6);
    ck_assert_int_eq(m.r.rank, 2);
    for (int i = 0; i < 12; i++) off += (want[i] - exact[i]) * (want[i] - exact[i]), full += exact[i] * exact[i];
    ck_assert_double_eq_tol(m.r.error, sqrt(off / full), 1e-5);
    end(&m);
}
END_TEST

/* A negative weight's sign goes into A alone: w B A, not w^2. */
START_TEST(a_negative_weight_of_one_adapter_alone)
{
    merge  m;
    double want[12];

    for (int i = 0; i < 12; i++) want[i] = -0.7 * 0.5 * D1[i];
    begin(&m, W, 3, 4);
    take(&m, pair_adapter(A1, B1, 1), -0.7);
    m.o.flags = WEFT_MERGE_FACTORS;
    run(&m, &wf_merge_sum);
    check(&m, want, 12, 1e-6);
    end(&m);
}
END_TEST

START_TEST(kohya_squares_the_ratio)
{
    const double linear[] = { 0.41, 0.64, 0.42, -0.05 }, concat[] = { 0.1, 0.2675, 0, -0.0775 };
    const double plain[] = { 0.2, 0.85, 0, -0.05 };
    const struct { const wf_merge_method *method; uint32_t flags; const double *want; int32_t rank; } ways[] = {
        { &wf_merge_sum, WEFT_MERGE_KOHYA, linear, 2 },
        { &wf_merge_concat, WEFT_MERGE_KOHYA, concat, 4 },
        { &wf_merge_concat, 0, plain, 4 },
    };

    for (size_t i = 0; i < WF_LEN(ways); i++) {
        merge m;
        begin(&m, W, 3, 4);
        take(&m, pair_adapter(A1, B1, 1), 0.7);
        take(&m, pair_adapter(A2, B2, 1), 0.3);
        m.o.flags = ways[i].flags;
        run(&m, ways[i].method);
        check(&m, ways[i].want, 4, 1e-6);
        ck_assert_int_eq(m.r.rank, ways[i].rank);
        end(&m);
    }
    const double uneven[] = { 0.0325, 0.335, 0, 0.0575 }; /* alphas 1 and 4: (0.49 D1 + 4 * 0.09 D2) / 4 at 0.7 and 0.3 */
    merge        m;
    begin(&m, W, 3, 4);
    take(&m, pair_adapter(A1, B1, 1), 0.7);
    take(&m, pair_adapter(A2, B2, 4), -0.3); /* kohya's sign of a negative ratio stays */
    m.o.flags = WEFT_MERGE_KOHYA;
    run(&m, &wf_merge_concat);
    double minus[4];
    for (int i = 0; i < 4; i++) minus[i] = uneven[i] - 2 * 0.09 * (double)D2[i];
    check(&m, minus, 4, 1e-6);
    end(&m);
}
END_TEST

/* ---- the null space -------------------------------------------------------------------------- */

/* What is left of D (3, 4) in the rows' span of A2. */
static double seen_by_second(const merge *m)
{
    const double u[] = { 2, 0, 1, 0 }, v[] = { -1, 1, 0, 2 }; /* A2; v less its part along u: */
    double       w[4], norm_u = 5, norm_w = 0, sum = 0;
    float        D[12];

    for (int i = 0; i < 4; i++) w[i] = v[i] + 2.0 / 5 * u[i], norm_w += w[i] * w[i];
    stored(m, D);
    for (int o = 0; o < 3; o++) {
        double a = 0, b = 0;
        for (int i = 0; i < 4; i++) a += D[o * 4 + i] * u[i], b += D[o * 4 + i] * w[i];
        sum += a * a / norm_u + b * b / norm_w;
    }
    return sqrt(sum);
}

/* The first alone, as far as it gives way to the second: c of it goes where the second reads. */
START_TEST(others_give_way_to_the_fixed_one)
{
    const struct { double strength, left; } cases[] = { { 0, 2.0 / 3 }, { 0.5, 2.0 / 3 }, { 3, 0.25 }, { INFINITY, 0 } };
    merge  m;
    double whole;

    begin(&m, W, 3, 4);
    take(&m, pair_adapter(A1, B1, 1), 0.7);
    run(&m, &wf_merge_concat);
    whole = seen_by_second(&m);
    ck_assert_double_gt(whole, 0.1);
    end(&m);
    for (size_t i = 0; i < WF_LEN(cases); i++) {
        fixture(&m);
        m.part[1].fixed = true;
        m.part[1].weight = 1e-6; /* its own part is next to nothing, and its directions are the same */
        m.o.strength = cases[i].strength;
        run(&m, &wf_merge_null_space);
        ck_assert_int_eq(m.r.rank, 4);
        ck_assert_double_eq_tol(seen_by_second(&m), cases[i].left * whole, 1e-5);
        end(&m);
    }
    fixture(&m); /* an adapter of weight 0 reads nothing */
    m.part[1].fixed = true;
    m.part[1].weight = 0;
    m.o.strength = INFINITY;
    run(&m, &wf_merge_null_space);
    ck_assert_double_eq_tol(seen_by_second(&m), whole, 1e-6);
    end(&m);
}
END_TEST

/* A row of A that B does not use is no direction that the adapter reads. */
START_TEST(only_what_is_read_counts)
{
    const float  B[] = { 1, 0, 1, 0, -1, 0 }; /* A2's second row is not used */
    const double unused[] = { -1, 1, 0, 2 };
    float        D[12];
    double       sum = 0, was = 0;
    merge        m;

    begin(&m, W, 3, 4);
    take(&m, pair_adapter(A1, B1, 2), 1);
    take(&m, pair_adapter(A2, B, 2), 1e-6);
    m.part[1].fixed = true;
    m.o.strength = INFINITY;
    run(&m, &wf_merge_null_space);
    stored(&m, D);
    for (int o = 0; o < 3; o++) {
        double now = 0, before = 0, along = 0;
        for (int i = 0; i < 4; i++) now += D[o * 4 + i] * unused[i], before += D1[o * 4 + i] * unused[i];
        for (int i = 0; i < 4; i += 2) along += D1[o * 4 + i] * (i == 0 ? 2 : 1) / 5.0; /* along (2, 0, 1, 0) */
        sum += now, was += before + 2 * along;
    }
    ck_assert_double_eq_tol(sum, was, 1e-4);
    end(&m);
}
END_TEST

/* ---- SVD ------------------------------------------------------------------------------------- */

/* Singular values of the exact sum: 2.251574 1.001238 0.232777. */
START_TEST(svd_keeps_the_largest_values)
{
    const double one[] = { -0.003935, 0.921290, 0.280011, 0.027421 }, two[] = { 0.142341, 0.999774, 0.019025, 0.076575 };
    const double s[] = { 2.251574, 1.001238, 0.232777 };
    const double all = sqrt(s[0] * s[0] + s[1] * s[1] + s[2] * s[2]);

    for (int rank = 1; rank <= 3; rank++) {
        merge m;
        fixture(&m);
        m.o.rank = rank;
        run(&m, &wf_merge_sum);
        ck_assert_int_eq(m.r.rank, rank);
        check(&m, rank == 1 ? one : rank == 2 ? two : exact, rank == 3 ? 12 : 4, 1e-6);
        double lost = 0;
        for (int i = rank; i < 3; i++) lost += s[i] * s[i];
        ck_assert_double_eq_tol(m.r.error, sqrt(lost) / all, 1e-6);
        for (int k = 0; k < rank; k++) { /* up = U S, and rows of down are of length 1 */
            double length = 0, unit = 0;
            for (int o = 0; o < 3; o++) length += pow((double)m.r.up[o * rank + k], 2);
            for (int i = 0; i < 4; i++) unit += pow((double)m.r.down[k * 4 + i], 2);
            ck_assert_double_eq_tol(sqrt(length), s[k], 1e-5);
            ck_assert_double_eq_tol(unit, 1, 1e-5);
        }
        end(&m);
    }
}
END_TEST

/* 0.1 of the norm may be lost: the last value, 0.094 of it, goes, and 0.09 keeps it. */
START_TEST(svd_goes_as_far_as_the_error_asks)
{
    const struct { double error; int32_t bound, rank; } cases[] = {
        { 0.1, 0, 2 }, { 0.09, 0, 3 }, { 0.5, 0, 1 }, { 0.09, 2, 2 }, { 0.4, 3, 2 },
    };

    for (size_t i = 0; i < WF_LEN(cases); i++) {
        merge m;
        fixture(&m);
        m.o.error = cases[i].error;
        m.o.rank = cases[i].bound;
        run(&m, &wf_merge_sum);
        ck_assert_int_eq(m.r.rank, cases[i].rank);
        ck_assert(m.r.error <= cases[i].error || m.r.rank == cases[i].bound);
        end(&m);
    }
}
END_TEST

START_TEST(doubled_scale_is_the_square_of_the_files)
{
    const double want[] = { -0.125, 0.65, 0, 0.425, 0.3875, 0.3, -0.225, 0.3375, -0.4, 1.025, 0.225, 0.125 };
    merge        m;

    fixture(&m);
    m.o.flags = WEFT_MERGE_DOUBLE_SCALE;
    m.o.rank = 3;
    run(&m, &wf_merge_sum);
    check(&m, want, 12, 1e-6);
    end(&m);
}
END_TEST

/* Factors of rank 1 of the exact sum, clamped: entries beyond the median of all seven are brought to it. */
START_TEST(clamp_is_a_quantile_of_both_factors)
{
    merge m;
    float sorted[7];
    int   at_most = 0;

    fixture(&m);
    m.o.rank = 1;
    run(&m, &wf_merge_sum);
    memcpy(sorted, m.r.up, 3 * sizeof *sorted);
    memcpy(sorted + 3, m.r.down, 4 * sizeof *sorted);
    for (int i = 0; i < 7; i++)
        for (int j = i + 1; j < 7; j++)
            if (sorted[j] < sorted[i]) { float t = sorted[i]; sorted[i] = sorted[j]; sorted[j] = t; }
    end(&m);
    fixture(&m);
    m.o.rank = 1;
    m.o.clamp = 0.75; /* 0.75 of 6 is 4.5: between the fifth and the sixth */
    run(&m, &wf_merge_sum);
    double most = fabs(((double)sorted[4] + sorted[5]) / 2), worst = 0;
    for (int i = 0; i < 7; i++) {
        double v = fabs((double)(i < 3 ? m.r.up[i] : m.r.down[i - 3]));
        worst = v > worst ? v : worst;
        at_most += fabs(v - most) < 1e-6;
    }
    ck_assert_double_eq_tol(worst, most, 1e-6);
    ck_assert_int_ge(at_most, 2);
    ck_assert_double_gt(m.r.error, 0.2);
    end(&m);
}
END_TEST

/* A taller, a wider and a larger matrix than the fixture's: products, through pairs and through the whole matrix. */
START_TEST(both_ways_of_svd_agree)
{
    enum { OUT = 40, IN = 23, R = 5 };
    float    A[R * IN], B[OUT * R], D[OUT * IN], T[OUT * IN];
    uint32_t x = 1;

    for (int i = 0; i < R * IN; i++) A[i] = (float)((x = x * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1;
    for (int i = 0; i < OUT * R; i++) B[i] = (float)((x = x * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1;
    for (int o = 0; o < OUT; o++)
        for (int i = 0; i < IN; i++) {
            double s = 0;
            for (int p = 0; p < R; p++) s += (double)B[o * R + p] * A[p * IN + i];
            D[o * IN + i] = T[i * OUT + o] = (float)s;
        }
    for (size_t rank = 1; rank <= 8; rank++) {
        const wf_merge_bound bound = { rank, 0, 0 };
        wf_merge_factors     f[3];
        wf_bag               bag;
        float                P[3][OUT * IN];
        wf_bag_init(&bag, heap());
        ck_assert_int_eq(wf_merge_factor(D, OUT, IN, bound, &bag, &f[0], &err), WEFT_OK);
        ck_assert_int_eq(wf_merge_factor_pair(B, A, OUT, IN, R, bound, &bag, &f[1], &err), WEFT_OK);
        ck_assert_int_eq(wf_merge_factor(T, IN, OUT, bound, &bag, &f[2], &err), WEFT_OK);
        for (int k = 0; k < 3; k++) {
            size_t m = k == 2 ? IN : OUT, n = k == 2 ? OUT : IN, r = f[k].rank;
            ck_assert_uint_eq(r, rank < R ? rank : R); /* what is rounding is no rank */
            for (size_t o = 0; o < m; o++)
                for (size_t i = 0; i < n; i++) {
                    double s = 0;
                    for (size_t p = 0; p < r; p++) s += (double)f[k].up[o * r + p] * f[k].down[p * n + i];
                    P[k][k == 2 ? i * IN + o : o * IN + i] = (float)s;
                }
        }
        for (int i = 0; i < OUT * IN; i++) {
            ck_assert_float_eq_tol(P[0][i], P[1][i], 2e-6f);
            ck_assert_float_eq_tol(P[0][i], P[2][i], 2e-6f);
            if (rank >= R) ck_assert_float_eq_tol(P[0][i], D[i], 2e-6f);
        }
        wf_bag_free(&bag);
    }
}
END_TEST

/* ---- operators on entries -------------------------------------------------------------------- */

static const float X1[] = { 1, -2, 0.3f, 0.1f, 0.5f, -0.4f, 3, -0.2f };
static const float X2[] = { -1.5f, -1, 0.2f, 2, 0.6f, 0.7f, -2.5f, 0.05f };

static void operands(merge *m, double a, double b)
{
    begin(m, W, 2, 4);
    take(m, whole_adapter(X1, 2, 4), a);
    take(m, whole_adapter(X2, 2, 4), b);
    m->o.density = 0.5;
}

START_TEST(ties_elects_and_averages)
{
    const double even[] = { -1.5, -1.5, 0, 2, 0.5, 0, 3, 0 }, total[] = { -0.45, -0.85, 0, 0.6, 0.35, 0, 2.1, 0 };
    const double frequency[] = { 0.7, -0.85, 0, 0.6, 0.35, 0, 2.1, 0 };
    const struct { double a, b; int32_t majority; const double *want; } cases[] = {
        { 1, 1, WEFT_MAJORITY_TOTAL, even },
        { 0.7, 0.3, WEFT_MAJORITY_TOTAL, total },
        { 0.7, 0.3, WEFT_MAJORITY_FREQUENCY, frequency },
    };

    for (size_t i = 0; i < WF_LEN(cases); i++) {
        merge m;
        operands(&m, cases[i].a, cases[i].b);
        m.o.majority = cases[i].majority;
        run(&m, &wf_merge_ties);
        check(&m, cases[i].want, 8, 1e-6);
        end(&m);
    }
}
END_TEST

START_TEST(pruning_keeps_the_largest)
{
    const double want[] = { 0.25, -1.7, 0, 0.6, 0.35, 0, 1.35, 0 };
    merge        m;

    operands(&m, 0.7, 0.3);
    run(&m, &wf_merge_prune);
    check(&m, want, 8, 1e-6);
    end(&m);
}
END_TEST

/* floor(density n) entries stay, the first ones of those that are equal, whatever their signs. */
START_TEST(of_equal_entries_the_first_stay)
{
    float        t[] = { 1, -1, 2, 1, -1, 0 }, *list[] = { t };
    const float  want[] = { 1, -1, 2, 0, 0, 0 }, none[6] = { 0 };
    const double weight = 1;
    const int32_t source = 0;
    weft_merge_options o = WEFT_MERGE_OPTIONS_INIT;
    wf_merge_list in = { 1, 6, list, &weight, &source, "x", &o };

    o.density = 0.62; /* 3.72 of 6 */
    wf_merge_keep_largest(&in);
    ck_assert_mem_eq(t, want, sizeof t);
    o.density = 0.1;
    wf_merge_keep_largest(&in);
    ck_assert_mem_eq(t, none, sizeof t);
}
END_TEST

/* With masks M1 and M2 given, as the worked example has them: survivors divided by the density, then summed, or elected. */
START_TEST(dare_sums_and_elects_what_is_drawn)
{
    const int    mask1[] = { 1, 0, 1, 1, 0, 1, 1, 0 }, mask2[] = { 0, 1, 1, 1, 1, 0, 0, 1 };
    const double sum[] = { 1.4, -0.6, 0.54, 1.34, 0.36, -0.56, 4.2, 0.03 };
    const double ties[] = { 1.4, -0.6, 0.27, 0.67, 0.36, -0.56, 4.2, 0.03 };
    const double weight[] = { 0.7, 0.3 };
    float        x1[8], x2[8], *list[] = { x1, x2 }, dst[8];
    weft_merge_options o = WEFT_MERGE_OPTIONS_INIT;
    wf_merge_list in = { 2, 8, list, weight, NULL, "x", &o };

    for (int i = 0; i < 8; i++) x1[i] = mask1[i] ? X1[i] / 0.5f : 0, x2[i] = mask2[i] ? X2[i] / 0.5f : 0;
    wf_merge_add_up(&in, dst);
    near(dst, sum, 8, 1e-6);
    wf_merge_elect(&in, dst);
    near(dst, ties, 8, 1e-6);
}
END_TEST

/* What the draws are, and that nothing but seed, source, place and entry moves them. */
START_TEST(dare_draws_by_seed_source_and_place)
{
    enum { N = 4000 };
    static float   t[6][N];
    const double   weight[] = { 1, 1 };
    const int32_t  one[] = { 0, 1 }, other[] = { 1, 0 };
    const struct { uint64_t seed; const char *what; const int32_t *source; float *a, *b; } runs[] = {
        { 7, "x.weight", one, t[0], t[1] },
        { 7, "x.weight", other, t[2], t[3] }, /* the same sources in the other order */
        { 8, "x.weight", one, t[4], t[5] },
    };
    int kept = 0, both = 0, again = 0;

    for (size_t r = 0; r < WF_LEN(runs); r++) {
        float        *list[] = { runs[r].a, runs[r].b };
        weft_merge_options o = WEFT_MERGE_OPTIONS_INIT;
        wf_merge_list in = { 2, N, list, weight, runs[r].source, runs[r].what, &o };
        for (int i = 0; i < N; i++) runs[r].a[i] = runs[r].b[i] = 3;
        o.density = 0.25;
        o.seed = runs[r].seed;
        wf_merge_keep_drawn(&in);
    }
    ck_assert_mem_eq(t[0], t[3], sizeof t[0]);
    ck_assert_mem_eq(t[1], t[2], sizeof t[0]);
    for (int i = 0; i < N; i++) {
        ck_assert(t[0][i] == 0 || t[0][i] == 12);
        kept += t[0][i] != 0;
        both += t[0][i] != 0 && t[1][i] != 0;
        again += t[0][i] != 0 && t[4][i] != 0;
    }
    ck_assert_int_le(abs(kept - N / 4), 110); /* four standard deviations */
    ck_assert_int_le(abs(both - N / 16), 62);
    ck_assert_int_le(abs(again - N / 16), 62);
}
END_TEST

/* ---- a mixer --------------------------------------------------------------------------------- */

START_TEST(mixer_is_between_the_sum_and_the_product_of_sums)
{
    const float  plain[] = { 1, 0, 0, 1 };
    const double linear[] = { 0.698074, 1.324037, 1.296148, 0.574037, 1.447111, 0.948074, 0.384130, -0.573074,
                              0.598074, 1.737981, 1.884130, 1.084130 };
    merge        m;

    fixture(&m);
    m.o.mixer = plain;
    run(&m, &wf_merge_mixer);
    check(&m, exact, 12, 1e-6);
    end(&m);
    fixture(&m); /* ones: (B1 + B2)(A1 + A2), PEFT's linear */
    run(&m, &wf_merge_mixer);
    check(&m, linear, 12, 1e-6);
    ck_assert_int_eq(m.r.rank, 4);
    end(&m);
    fixture(&m);
    m.o.rank = 2; /* which is all that it has */
    run(&m, &wf_merge_mixer);
    check(&m, linear, 12, 1e-6);
    end(&m);
}
END_TEST

/* [B1 B2] [[1, 0.5], [-2, 1]] [A1; A2] at weights 1 and scales 1. */
START_TEST(mixer_blocks_have_their_places)
{
    const float M[] = { 1, 0.5f, -2, 1 };
    double      want[12];
    merge       m;

    for (int o = 0; o < 3; o++)
        for (int i = 0; i < 4; i++) {
            want[o * 4 + i] = 0;
            for (int p = 0; p < 2; p++)
                want[o * 4 + i] += (double)B1[o * 2 + p] * (A1[p * 4 + i] + 0.5 * A2[p * 4 + i]) +
                                   (double)B2[o * 2 + p] * (A2[p * 4 + i] - 2.0 * A1[p * 4 + i]);
        }
    begin(&m, W, 3, 4);
    take(&m, pair_adapter(A1, B1, 2), 1);
    take(&m, pair_adapter(A2, B2, 2), 1);
    m.o.mixer = M;
    run(&m, &wf_merge_mixer);
    check(&m, want, 12, 1e-5);
    end(&m);
}
END_TEST

/* ---- DoRA ------------------------------------------------------------------------------------ */

static weft_adapter *dora_adapter(const float *A, const float *B, float alpha, const float *g)
{
    const weft_tensor_out t[] = { tensor("lora_unet_x.lora_down.weight", A, 2, 2, 4),
                                  tensor("lora_unet_x.lora_up.weight", B, 2, 3, 2),
                                  tensor("lora_unet_x.alpha", &alpha, 0, 0, 0),
                                  tensor("lora_unet_x.dora_scale", g, 2, 3, 1) };
    return adapter_from(t, 4);
}

static const float G1[] = { 3.3f, 4.5f, 3.0f }, G2[] = { 2.5f, 5.2f, 3.4f };

/* W' = g V / |V|, V = W + sum w s B A, g = |W| + sum w (g_i - |W|): magnitudes (3, 5, 3) of W moved by both. */
START_TEST(magnitudes_are_merged_apart)
{
    const double norm[] = { 3, 5, 3 };
    double       want_g[3];
    merge        m;

    for (int o = 0; o < 3; o++) want_g[o] = norm[o] + 0.7 * (G1[o] - norm[o]) + 0.3 * (G2[o] - norm[o]);
    for (int factored = 0; factored < 2; factored++) {
        begin(&m, W, 3, 4);
        take(&m, dora_adapter(A1, B1, 1, G1), 0.7);
        take(&m, dora_adapter(A2, B2, 2, G2), 0.3);
        m.o.flags = WEFT_MERGE_DIRECTION;
        m.o.rank = factored ? 3 : 0;
        run(&m, &wf_merge_sum);
        check(&m, exact, 12, 2e-6); /* the differences below the magnitudes */
        ck_assert_ptr_nonnull(m.r.magnitude);
        near(m.r.magnitude, want_g, 3, 1e-6);
        end(&m);
    }
}
END_TEST

/* Without the flag it is W' - W that is merged; W' of the worked example. */
START_TEST(doras_difference_is_from_the_base)
{
    const double w[] = { 1.257301, 2.514603, 1.676402, -0.419100, 0.282355, 3.388261, 2.823551, -0.847065,
                         2.267787, 1.133893, 1.133893, 1.133893 };
    double       want[12];
    merge        m;

    for (int i = 0; i < 12; i++) want[i] = 0.4 * (w[i] - W[i]) + 0.3 * exact[i] * 0;
    begin(&m, W, 3, 4);
    take(&m, dora_adapter(A1, B1, 1, G1), 0.4);
    run(&m, &wf_merge_sum);
    check(&m, want, 12, 1e-6);
    ck_assert_ptr_null(m.r.magnitude);
    end(&m);
}
END_TEST

/* ---- what is refused at a layer -------------------------------------------------------------- */

static void refused(merge *m, const wf_merge_method *method, weft_status code, const char *words)
{
    ck_assert_int_eq(try_run(m, method), code);
    check_one_line(&err);
    ck_assert_msg(strstr(err.text, words) != NULL, "%s", err.text);
    end(m);
}

START_TEST(what_has_no_factors_is_refused)
{
    merge m;
    float three[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 }, up[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 }, big[12];
    const weft_tensor_out t[] = { tensor("lora_unet_x.lora_down.weight", three, 2, 3, 4),
                                  tensor("lora_unet_x.lora_up.weight", up, 2, 3, 3) };

    begin(&m, W, 3, 4);
    take(&m, pair_adapter(A1, B1, 1), 1);
    take(&m, whole_adapter(D1, 3, 4), 1);
    m.o.flags = WEFT_MERGE_FACTORS;
    refused(&m, &wf_merge_sum, WEFT_E_UNSUPPORTED, "x: adapter tensors (full) has no factors there");
    begin(&m, W, 3, 4);
    take(&m, whole_adapter(D1, 3, 4), 1);
    refused(&m, &wf_merge_mixer, WEFT_E_UNSUPPORTED, "has no factors there, and the mixer");
    begin(&m, W, 3, 4);
    take(&m, pair_adapter(A1, B1, 1), 1);
    take(&m, adapter_from(t, 2), 1);
    m.o.flags = WEFT_MERGE_FACTORS;
    refused(&m, &wf_merge_sum, WEFT_E_MISMATCH, "has rank 2 and tensors has 3");
    for (int i = 0; i < 12; i++) big[i] = 3e38f;
    begin(&m, W, 3, 4);
    take(&m, whole_adapter(big, 3, 4), 2);
    refused(&m, &wf_merge_sum, WEFT_E_ARG, "x: merged, its values are not finite");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("merge: numbers");
    TCase *t = tcase_create("one layer");

    tcase_add_test(t, sum_and_concatenation_are_exact);
    tcase_add_test(t, factors_apart_have_cross_terms);
    tcase_add_test(t, a_negative_weight_of_one_adapter_alone);
    tcase_add_test(t, kohya_squares_the_ratio);
    tcase_add_test(t, others_give_way_to_the_fixed_one);
    tcase_add_test(t, only_what_is_read_counts);
    tcase_add_test(t, svd_keeps_the_largest_values);
    tcase_add_test(t, svd_goes_as_far_as_the_error_asks);
    tcase_add_test(t, doubled_scale_is_the_square_of_the_files);
    tcase_add_test(t, clamp_is_a_quantile_of_both_factors);
    tcase_add_test(t, both_ways_of_svd_agree);
    tcase_add_test(t, ties_elects_and_averages);
    tcase_add_test(t, pruning_keeps_the_largest);
    tcase_add_test(t, of_equal_entries_the_first_stay);
    tcase_add_test(t, dare_sums_and_elects_what_is_drawn);
    tcase_add_test(t, dare_draws_by_seed_source_and_place);
    tcase_add_test(t, mixer_is_between_the_sum_and_the_product_of_sums);
    tcase_add_test(t, mixer_blocks_have_their_places);
    tcase_add_test(t, magnitudes_are_merged_apart);
    tcase_add_test(t, doras_difference_is_from_the_base);
    tcase_add_test(t, what_has_no_factors_is_refused);
    suite_add_tcase(s, t);
    return run_suite(s);
}
