/* The least squares behind fusion, on numbers small enough for paper: both ways of Custom Diffusion and
 * Mix-of-Show, where a system is singular, and that few rows and many give the same. */
#include <math.h>

#include "../base/support.h"
#include "fuse/fuse_internal.h"
#include "tensor/linalg.h"

static weft_error err;

static void must(weft_status st) { ck_assert_msg(st == WEFT_OK, "%s", err.text); }

static const weft_allocator *memory(void)
{
    static weft_allocator alloc;
    alloc = wf_allocator(NULL);
    return &alloc;
}

/* W (o, K) = W0 + R^T E, R (m, o) */
static void apply(double *W, const double *W0, const double *R, const double *E, size_t o, size_t m, size_t K)
{
    for (size_t i = 0; i < o; i++)
        for (size_t k = 0; k < K; k++) {
            W[i * K + k] = W0[i * K + k];
            for (size_t r = 0; r < m; r++) W[i * K + k] += R[r * o + i] * E[r * K + k];
        }
}

static void close_to(const double *got, const double *want, size_t n, double limit)
{
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(fabs(got[i] - want[i]) <= limit, "%zu: %.9g, wanted %.9g", i, got[i], want[i]);
}

static const double W0[] = { 1, 0, 2, 0, 1, -1 };

/* Custom Diffusion: captions' rows [1 0 0], [0 2 0], [0 0 1], [1 1 0], whose H is [2 1 0; 1 5 0; 0 0 1]. */
START_TEST(constraints_hold_and_captions_move_least)
{
    const double X[] = { 1, 1, 1, 0, 1, 2 }, V[] = { 4, 1, 3, 0 }; /* V: a row for each output */
    const double C[] = { 1, 0, 0, 0, 2, 0, 0, 0, 1, 1, 1, 0 };
    const double want[] = { 2.526316, -0.052632, 1.526316, 0.473684, 1.052632, -0.526316 };
    double H[] = { 2, 1, 0, 1, 5, 0, 0, 0, 1 }, R[4], E[6], W[6], jitter = 1, drift = 0;

    for (int r = 0; r < 2; r++)
        for (int o = 0; o < 2; o++) {
            R[r * 2 + o] = V[r * 2 + o];
            for (int k = 0; k < 3; k++) R[r * 2 + o] -= W0[o * 3 + k] * X[r * 3 + k];
        }
    must(wf_fuse_constrain(E, X, 2, 3, H, &jitter, "layer", memory(), &err));
    ck_assert_double_eq(jitter, 0);
    apply(W, W0, R, E, 2, 2, 3);
    close_to(W, want, 6, 1e-6);
    for (int o = 0; o < 2; o++)
        for (int r = 0; r < 4; r++) {
            double d = 0;
            for (int k = 0; k < 3; k++) d += (W[o * 3 + k] - W0[o * 3 + k]) * C[r * 3 + k];
            drift += d * d;
        }
    ck_assert_double_eq_tol(drift, 5.473684, 1e-6);
    for (int o = 0; o < 2; o++)
        for (int r = 0; r < 2; r++) {
            double y = 0;
            for (int k = 0; k < 3; k++) y += W[o * 3 + k] * X[r * 3 + k];
            ck_assert_double_eq_tol(y, V[r * 2 + o], 1e-12);
        }
}
END_TEST

/* Mix-of-Show: two concepts of two rows each; Wa = W0 + [.5 0 0; 0 0 .5], Wb = W0 + [0 -1 0; 0 .25 0]. */
static const double rows[] = { 1, 0, 1, 0, 1, 1, 1, 1, 0, 0, 0, 1 };
static const double wanted[] = { 0.5, 0.5, 0, 0.5, -1, 0.25, 0, 0 }; /* (4, 2) */
enum { M = 4, K = 3, O = 2 };

static double trace(void)
{
    double t = 0;
    for (int i = 0; i < M * K; i++) t += rows[i] * rows[i];
    return t;
}

static double mean_square(const double *W)
{
    double sum = 0;
    for (int r = 0; r < M; r++)
        for (int o = 0; o < O; o++) {
            double d = -wanted[r * O + o];
            for (int k = 0; k < K; k++) d += (W[o * K + k] - W0[o * K + k]) * rows[r * K + k];
            sum += d * d;
        }
    return sum / (M * O);
}

START_TEST(least_squares_of_the_paper)
{
    const double want[] = { 0.857143, -0.642857, 2.428571, 0.178571, 1.178571, -0.785714 };
    double E[M * K], W[O * K], jitter;

    must(wf_fuse_ridge(E, rows, M, K, 1e-14, &jitter, "layer", memory(), &err));
    apply(W, W0, wanted, E, O, M, K);
    close_to(W, want, O * K, 1e-6);
    ck_assert_double_eq_tol(mean_square(W), 0.050223, 1e-6);
}
END_TEST

START_TEST(ridge_pulls_towards_the_model)
{
    const double want[] = { 0.856051, -0.598495, 2.400788, 0.174113, 1.174113, -0.789750 };
    double E[M * K], W[O * K], jitter, ridge = 0.1 * K / trace();

    must(wf_fuse_ridge(E, rows, M, K, ridge, &jitter, "layer", memory(), &err));
    apply(W, W0, wanted, E, O, M, K);
    close_to(W, want, O * K, 1e-6);

    /* The same from sums: B (M + l I)^-1. */
    double S[K * K] = { 0 }, B[O * K] = { 0 };
    for (int r = 0; r < M; r++) {
        for (int i = 0; i < K * K; i++) S[i] += rows[r * K + i / K] * rows[r * K + i % K];
        for (int i = 0; i < O * K; i++) B[i] += wanted[r * O + i / K] * rows[r * K + i % K];
    }
    must(wf_fuse_factor(S, K, ridge, &jitter, "layer", memory(), &err));
    wf_cholesky_solve(S, K, B, O);
    for (int i = 0; i < O * K; i++) B[i] += W0[i];
    close_to(B, want, O * K, 1e-6);
}
END_TEST

/* Fewer rows than columns go through another system, which is the same. */
START_TEST(few_rows_and_many_agree)
{
    enum { m = 5, k = 7 };
    double X[m * k], few[m * k], twice[2 * m * k], many[2 * m * k], jitter;

    for (int i = 0; i < m * k; i++) X[i] = sin(1.7 * i * i + i);
    for (int i = 0; i < 2 * m * k; i++) twice[i] = X[i % (m * k)];
    must(wf_fuse_ridge(few, X, m, k, 2e-3, &jitter, "layer", memory(), &err));
    must(wf_fuse_ridge(many, twice, 2 * m, k, 2e-3, &jitter, "layer", memory(), &err));
    for (int i = 0; i < m * k; i++) ck_assert_double_eq_tol(few[i], 2 * many[i], 1e-10);
}
END_TEST

/* Captions that leave a direction open: a little of the mean diagonal is added, and said. The constraint holds. */
START_TEST(captions_too_few_are_helped)
{
    const double X[] = { 1, 1, 1 };
    double H[] = { 1, 0, 0, 0, 1, 0, 0, 0, 0 }, E[3], jitter;

    must(wf_fuse_constrain(E, X, 1, 3, H, &jitter, "layer", memory(), &err));
    ck_assert_double_gt(jitter, 0);
    ck_assert_double_le(jitter, 1e-7);
    ck_assert_double_eq_tol(E[0] + E[1] + E[2], 1, 1e-9);
    ck_assert_double_eq_tol(E[2], 1, 1e-6); /* all in the direction that no caption has */
}
END_TEST

/* The third direction costs nothing. H = [2 1 0; 1 5 0; 0 0 0], x1 = [1 1 1], x2 = [1 2 0]: e1 = [0 0 1]; e2 = [a b -a-b]
 * with a + 2 b = 1 and 2 a^2 + 2 a b + 5 b^2 = 2 - 6 b + 9 b^2 the least: a = b = 1/3. */
START_TEST(what_was_added_is_all_that_changes)
{
    const double X[] = { 1, 1, 1, 1, 2, 0 }, want[] = { 0, 0, 1, 1.0 / 3, 1.0 / 3, -2.0 / 3 };
    double H[] = { 2, 1, 0, 1, 5, 0, 0, 0, 0 }, E[6], jitter;

    must(wf_fuse_constrain(E, X, 2, 3, H, &jitter, "layer", memory(), &err));
    ck_assert_double_gt(jitter, 0);
    close_to(E, want, 6, 1e-6);
}
END_TEST

START_TEST(nothing_to_solve_is_refused)
{
    const double X[] = { 1, 0 };
    double H[] = { 0, 0, 0, 0 }, E[2], jitter;

    ck_assert_int_eq(wf_fuse_constrain(E, X, 1, 2, H, &jitter, "unet.x", memory(), &err), WEFT_E_UNSUPPORTED);
    ck_assert_str_eq(err.text, "unet.x: the rows that it reads leave no solution in double precision");
}
END_TEST

/* Two adapters of rank 1 that read A = [1 0; 1 1]; concept 1 reads [1 0], concept 2 [0 1]. Then z = A x is [1 1] and
 * [0 1], G = [1 1; 1 2], Q = [1 1; 0 1], and M = Q G^-1 = [1 0; -1 1]: M [1 1] = [1 0], M [0 1] = [0 1]. */
START_TEST(routes_are_told_apart)
{
    const double z1[] = { 1, 1 }, z2[] = { 0, 1 }, want[] = { 1, 0, -1, 1 };
    double G[4] = { 0 }, Q[4], jitter = 1;

    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 2; k++) {
            G[i * 2 + k] = z1[i] * z1[k] + z2[i] * z2[k];
            Q[i * 2 + k] = i == 0 ? z1[i] * z1[k] : z2[i] * z2[k];
        }
    double H[4], P[4];
    memcpy(H, G, sizeof H), memcpy(P, Q, sizeof P);
    must(wf_fuse_mix(Q, G, 2, 1e-12, &jitter, "layer", memory(), &err));
    ck_assert_double_eq(jitter, 0);
    close_to(Q, want, 4, 1e-10);
    /* With l = 2/3 * 3 / 2 = 1: G + I = [2 1; 1 3], M = [1 1; 0 1] [3 -1; -1 2] / 5. */
    const double held[] = { 0.4, 0.2, -0.2, 0.4 };
    must(wf_fuse_mix(P, H, 2, 2.0 / 3, &jitter, "layer", memory(), &err));
    close_to(P, held, 4, 1e-12);
}
END_TEST

/* Adapters that see nothing on each other's rows: Q = G, in blocks, and nothing is changed. */
START_TEST(apart_already_stay_as_they_are)
{
    const double block[] = { 3, 1, 0, 0, 1, 2, 0, 0, 0, 0, 5, -2, 0, 0, -2, 4 };
    const double one[] = { 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1 };
    double G[16], Q[16], jitter;

    memcpy(G, block, sizeof G), memcpy(Q, block, sizeof Q);
    must(wf_fuse_mix(Q, G, 4, 1e-12, &jitter, "layer", memory(), &err));
    close_to(Q, one, 16, 1e-10);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("least squares");
    TCase *c = tcase_create("fuse");

    tcase_add_test(c, constraints_hold_and_captions_move_least);
    tcase_add_test(c, least_squares_of_the_paper);
    tcase_add_test(c, ridge_pulls_towards_the_model);
    tcase_add_test(c, few_rows_and_many_agree);
    tcase_add_test(c, captions_too_few_are_helped);
    tcase_add_test(c, what_was_added_is_all_that_changes);
    tcase_add_test(c, nothing_to_solve_is_refused);
    tcase_add_test(c, routes_are_told_apart);
    tcase_add_test(c, apart_already_stay_as_they_are);
    suite_add_tcase(s, c);
    return run_suite(s);
}
