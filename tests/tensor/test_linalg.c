/* Inverses, eigenvectors and bases by hand, and of sizes around LAPACK's blocks against what they must give. */
#include <math.h>
#include <stdlib.h>

#include "base/support.h"
#include "tensor/linalg.h"

static bool inverse(double *M, size_t n)
{
    double *work = calloc(wf_inverse_work(n) + 1, sizeof *work);
    work[wf_inverse_work(n)] = 1234; /* not to be touched */
    bool ok = wf_inverse(M, n, work);
    ck_assert(work[wf_inverse_work(n)] == 1234);
    free(work);
    return ok;
}

/* [2 1; 5 3] has the determinant 1; rows and columns are not confused, or the 1 and the 5 would
 * change places. */
START_TEST(inverses_are_those_on_paper)
{
    double one[] = { 4 }, two[] = { 2, 1, 5, 3 }, turned[] = { 0, 2, 1, 0 };

    ck_assert(inverse(one, 1));
    ck_assert(one[0] == 0.25);
    ck_assert(inverse(two, 2));
    const double want[] = { 3, -1, -5, 2 };
    for (int i = 0; i < 4; i++) ck_assert_double_eq_tol(two[i], want[i], 1e-14);
    ck_assert(inverse(turned, 2)); /* needs its rows exchanged */
    const double back[] = { 0, 1, 0.5, 0 };
    for (int i = 0; i < 4; i++) ck_assert(turned[i] == back[i]);
    ck_assert(inverse(NULL, 0));
}
END_TEST

START_TEST(singular_matrices_have_none)
{
    double zero[] = { 0 }, twice[] = { 1, 2, 2, 4 };

    ck_assert(!inverse(zero, 1));
    ck_assert(!inverse(twice, 2));
}
END_TEST

static const size_t sizes[] = { 3, 31, 64, 65, 130, 257 };

/* Every entry differs, and the diagonal is heavy enough for a condition number near 1. */
START_TEST(a_matrix_times_its_inverse_is_one)
{
    size_t  n = sizes[_i];
    double *M = malloc(n * n * sizeof *M), *inv = malloc(n * n * sizeof *inv);

    for (size_t i = 0; i < n * n; i++) M[i] = sin(1.0 + (double)(i * 37 % 1009)) / (double)n;
    for (size_t i = 0; i < n; i++) M[i * n + i] += 2;
    memcpy(inv, M, n * n * sizeof *M);
    ck_assert(inverse(inv, n));
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            double sum = 0;
            for (size_t k = 0; k < n; k++) sum += M[i * n + k] * inv[k * n + j];
            ck_assert_double_eq_tol(sum, i == j ? 1 : 0, 1e-12);
        }
    free(M);
    free(inv);
}
END_TEST

/* E of the r largest, with room that must not be touched. */
static bool top_vectors(double *E, double *M, size_t n, size_t r)
{
    double *work = calloc(wf_top_vectors_work(n) + 1, sizeof *work);
    work[wf_top_vectors_work(n)] = 1234;
    bool ok = wf_top_vectors(E, M, n, r, work);
    ck_assert(work[wf_top_vectors_work(n)] == 1234);
    free(work);
    return ok;
}

/* [2 1; 1 2] has (1, 1) for 3 and (1, -1) for 1; only what is on and under the diagonal is read. */
START_TEST(eigenvectors_are_those_on_paper)
{
    double M[] = { 2, 99, 1, 2 }, both[] = { 2, 99, 1, 2 }, one[] = { 7 }, zero[9] = { 0 }, E[9];

    ck_assert(top_vectors(E, M, 2, 1));
    ck_assert_double_eq_tol(E[0] * E[0], 0.5, 1e-14);
    ck_assert_double_eq_tol(E[0] * E[1], 0.5, 1e-14);
    ck_assert(top_vectors(E, both, 2, 2));
    ck_assert_double_eq_tol(E[0] * E[2] + E[1] * E[3], 0, 1e-14);
    ck_assert(top_vectors(E, one, 1, 1));
    ck_assert(fabs(E[0]) == 1);
    ck_assert(top_vectors(E, zero, 3, 2)); /* any two that are orthogonal */
    ck_assert_double_eq_tol(E[0] * E[3] + E[1] * E[4] + E[2] * E[5], 0, 1e-14);
}
END_TEST

/* M = H diag(1 .. n) H of the reflection H = I - 2 u u^T: its eigenvectors are H's columns, and the r largest are the last. What they
 * project on does not depend on their signs or order. */
START_TEST(the_largest_eigenvectors_are_found)
{
    size_t  n = sizes[_i], r = n / 3;
    double *H = malloc(n * n * sizeof *H), *M = malloc(n * n * sizeof *M), *E = malloc(r * n * sizeof *E), *u = malloc(n * sizeof *u);
    double  squares = 0;

    for (size_t i = 0; i < n; i++) u[i] = sin(1.0 + (double)i), squares += u[i] * u[i];
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) H[i * n + j] = (i == j) - 2 * u[i] * u[j] / squares;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            M[i * n + j] = 0;
            for (size_t k = 0; k < n; k++) M[i * n + j] += H[i * n + k] * (double)(k + 1) * H[j * n + k];
        }
    ck_assert(top_vectors(E, M, n, r));
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            double got = 0, want = 0;
            for (size_t p = 0; p < r; p++) got += E[p * n + i] * E[p * n + j];
            for (size_t k = n - r; k < n; k++) want += H[i * n + k] * H[j * n + k];
            ck_assert_double_eq_tol(got, want, 1e-11);
        }
    free(H), free(M), free(E), free(u);
}
END_TEST

static bool orthonormal(double *A, size_t r, size_t n)
{
    double *work = calloc(wf_orthonormal_work(r) + 1, sizeof *work);
    work[wf_orthonormal_work(r)] = 1234;
    bool ok = wf_orthonormal(A, r, n, work);
    ck_assert(work[wf_orthonormal_work(r)] == 1234);
    free(work);
    return ok;
}

/* (3, 4, 0) has the direction (0.6, 0.8, 0); what (3, 4, 2) has besides is (0, 0, 1). */
START_TEST(bases_are_those_on_paper)
{
    double A[] = { 3, 4, 0, 3, 4, 2 };

    ck_assert(orthonormal(A, 2, 3));
    const double want[] = { 0.6, 0.8, 0, 0, 0, 1 };
    for (int i = 0; i < 6; i++) ck_assert_double_eq_tol(fabs(A[i]), want[i], 1e-14);
    ck_assert_double_gt(A[0] * A[1], 0);
    ck_assert(orthonormal(NULL, 0, 3));
}
END_TEST

/* Rows are orthonormal, and a row of A is what the first of them say of it. */
START_TEST(a_basis_spans_what_it_was_made_of)
{
    size_t  n = sizes[_i], r = (n + 1) / 2;
    double *A = malloc(r * n * sizeof *A), *Q = malloc(r * n * sizeof *Q);

    for (size_t i = 0; i < r * n; i++) A[i] = sin(1.0 + (double)(i * 37 % 1009)) + (i % n == i / n ? 2 : 0);
    memcpy(Q, A, r * n * sizeof *A);
    ck_assert(orthonormal(Q, r, n));
    for (size_t p = 0; p < r; p++)
        for (size_t q = 0; q <= p; q++) {
            double sum = 0;
            for (size_t i = 0; i < n; i++) sum += Q[p * n + i] * Q[q * n + i];
            ck_assert_double_eq_tol(sum, p == q, 1e-12);
        }
    for (size_t p = 0; p < r; p++) {
        double squares = 0, said = 0;
        for (size_t i = 0; i < n; i++) squares += A[p * n + i] * A[p * n + i];
        for (size_t q = 0; q <= p; q++) {
            double sum = 0;
            for (size_t i = 0; i < n; i++) sum += A[p * n + i] * Q[q * n + i];
            said += sum * sum;
        }
        ck_assert_double_eq_tol(said / squares, 1, 1e-12);
    }
    free(A), free(Q);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("linalg");
    TCase *c = tcase_create("all");
    tcase_add_test(c, inverses_are_those_on_paper);
    tcase_add_test(c, singular_matrices_have_none);
    tcase_add_loop_test(c, a_matrix_times_its_inverse_is_one, 0, (int)WF_LEN(sizes));
    tcase_add_test(c, eigenvectors_are_those_on_paper);
    tcase_add_loop_test(c, the_largest_eigenvectors_are_found, 0, (int)WF_LEN(sizes));
    tcase_add_test(c, bases_are_those_on_paper);
    tcase_add_loop_test(c, a_basis_spans_what_it_was_made_of, 0, (int)WF_LEN(sizes));
    suite_add_tcase(s, c);
    return run_suite(s);
}
