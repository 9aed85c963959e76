/* The products by hand, and the guard over OpenBLAS's thread count: what the host had set is there again. */
#include <cblas.h>
#include <check.h>
#include <sys/wait.h>
#include <unistd.h>

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

START_TEST(the_hosts_thread_count_comes_back)
{
    openblas_set_num_threads(2);
    wf_blas_begin();
    wf_blas_begin(); /* two runs at once */
    ck_assert_int_eq(openblas_get_num_threads(), 1);
    wf_blas_end();
    ck_assert_int_eq(openblas_get_num_threads(), 1);
    wf_blas_end();
    ck_assert_int_eq(openblas_get_num_threads(), 2);
}
END_TEST

START_TEST(a_child_forked_inside_a_step_gets_it_back_too)
{
    int status;

    openblas_set_num_threads(2);
    wf_blas_begin();
    pid_t pid = fork();
    if (pid == 0) {
        wf_blas_begin(); /* a run of the child's own */
        int inside = openblas_get_num_threads();
        wf_blas_end();
        _exit(inside == 1 && openblas_get_num_threads() == 2 ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    wf_blas_end();
    ck_assert_int_eq(openblas_get_num_threads(), 2);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("gemm");
    TCase *c = tcase_create("all");
    tcase_add_test(c, products_are_those_on_paper);
    tcase_add_test(c, the_hosts_thread_count_comes_back);
    tcase_add_test(c, a_child_forked_inside_a_step_gets_it_back_too);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
