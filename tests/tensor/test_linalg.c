/* Inverses by hand, and of sizes around LAPACK's blocks against the product that must be I. */
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

int main(void)
{
    Suite *s = suite_create("linalg");
    TCase *c = tcase_create("all");
    tcase_add_test(c, inverses_are_those_on_paper);
    tcase_add_test(c, singular_matrices_have_none);
    tcase_add_loop_test(c, a_matrix_times_its_inverse_is_one, 0, (int)WF_LEN(sizes));
    suite_add_tcase(s, c);
    return run_suite(s);
}
