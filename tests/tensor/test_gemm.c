/* The products by hand. */
#include <check.h>

#include "tensor/gemm.h"

/* x = [1 2; 3 4], w = [5 6; 7 8]: x w^T = [17 23; 39 53], x w = [19 22; 43 50]. */
START_TEST(products_are_those_on_paper)
{
    const float x[] = { 1, 2, 3, 4 }, w[] = { 5, 6, 7, 8 };
    float y[] = { 100, 200, 300, 400 };

    wf_gemm_nt(y, 2, x, 2, w, 2, 2, 2, 2, 0.0f);
    ck_assert(y[0] == 17 && y[1] == 23 && y[2] == 39 && y[3] == 53);
    wf_gemm_nn(y, 2, x, 2, w, 2, 2, 2, 2, 1.0f);
    ck_assert(y[0] == 36 && y[1] == 45 && y[2] == 82 && y[3] == 103);
    wf_gemm_tn(y, 2, x, 2, w, 2, 2, 2, 2, 0.0f); /* x^T w = [26 30; 38 44] */
    ck_assert(y[0] == 26 && y[1] == 30 && y[2] == 38 && y[3] == 44);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("gemm");
    TCase *c = tcase_create("all");
    tcase_add_test(c, products_are_those_on_paper);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
