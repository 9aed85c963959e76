/* Modules at slices of layers: one matrix of a file that the model has as several layers adds to
 * each what its rows are, and nothing elsewhere. The files that are read today have no such
 * modules, so they are made by hand here. */
#include "modules.h"

/* Queries, keys and values of two outputs each, in one module: up (6, 2), down A1 (2, 4). */
static const float UP[] = { 1, 0, 0, 1, 1, 1, 2, 0, 0, 2, -1, 1 };
static const double PRODUCT[] = {
    1, 2, 0, -1,  0, 1, 3, 1,  1, 3, 3, 0,  2, 4, 0, -2,  0, 2, 6, 2,  -1, -1, 3, 2,
};

enum { ROWS = 2, OF = 6 };

static wf_slice third(int32_t i)
{
    return (wf_slice){ .rows = ROWS, .from = ROWS * i, .of = OF };
}

static void fused_lora(sample *s)
{
    give(s, WF_TENSOR_DOWN, A1, 2, 4, 0, 0);
    give(s, WF_TENSOR_UP, UP, OF, 2, 0, 0);
    lay(s, NULL, ROWS, 4, 1);
    settle(s);
}

START_TEST(each_layer_gets_its_rows_of_the_product)
{
    sample s = { .count = 0 };

    fused_lora(&s);
    ck_assert(!wf_module_fits(&s.m, &s.l));
    for (int32_t i = 0; i < 3; i++) {
        wf_slice b = third(i);
        float      got[ROWS * 4] = { 0 };
        ck_assert(wf_slice_fits(&b, &s.m, &s.l) && !wf_slice_whole(&b, &s.l));
        ck_assert_int_eq(wf_slice_add(&b, &s.m, &s.l, 1, 1, 0.5, got, heap(), &err), WEFT_OK);
        for (int k = 0; k < ROWS * 4; k++)
            ck_assert_double_eq((double)got[k], 0.5 * PRODUCT[ROWS * 4 * i + k]);
    }
}
END_TEST

/* The down factor is the same for all three, the up factor has the layer's rows alone. */
START_TEST(pairs_share_the_inner_factor)
{
    sample s = { .count = 0 };

    fused_lora(&s);
    for (int32_t i = 0; i < 3; i++) {
        wf_slice b = third(i);
        float      down[8], up[2 * ROWS];
        ck_assert_int_eq(wf_slice_form(&b, &s.m, &s.l), WF_FORM_PAIR);
        ck_assert_int_eq(wf_slice_pair(&b, &s.m, &s.l, down, up, heap(), &err), WEFT_OK);
        ck_assert_mem_eq(down, A1, sizeof down);
        for (int p = 0; p < 2; p++)
            for (int o = 0; o < ROWS; o++)
                ck_assert_float_eq(up[p * ROWS + o], UP[(ROWS * i + o) * 2 + p]);
    }
}
END_TEST

/* A module of two rows at the middle of a layer of four: the other rows stay. */
START_TEST(rows_outside_stay)
{
    static const float up[] = { 1, 0, 0, 1 };
    sample             s = { .count = 0 };
    wf_slice         b = { .row = 1, .rows = 2, .of = 2 };
    float              got[16], down[8], u[8];

    give(&s, WF_TENSOR_DOWN, A1, 2, 4, 0, 0);
    give(&s, WF_TENSOR_UP, up, 2, 2, 0, 0);
    lay(&s, NULL, 4, 4, 1);
    settle(&s);
    ck_assert(wf_slice_fits(&b, &s.m, &s.l));
    for (int i = 0; i < 16; i++) got[i] = 7;
    ck_assert_int_eq(wf_slice_add(&b, &s.m, &s.l, 1, 1, 1, got, heap(), &err), WEFT_OK);
    for (int i = 0; i < 16; i++) ck_assert_float_eq(got[i], 7 + (i >= 4 && i < 12 ? A1[i - 4] : 0));
    ck_assert_int_eq(wf_slice_pair(&b, &s.m, &s.l, down, u, heap(), &err), WEFT_OK);
    ck_assert_mem_eq(u, ((const float[]){ 0, 1, 0, 0, 0, 0, 1, 0 }), sizeof u);
}
END_TEST

/* A slice of a Kronecker product is none: it is a dense matrix. The whole stays what it is. */
START_TEST(slice_of_a_kronecker_product_is_dense)
{
    static const float w1[] = { 1, 2, 3, 4 }, w2[] = { 1, 0, 0, 1, 1, 1 };
    sample             s = { .count = 0 };
    wf_slice         b = { .rows = 2, .from = 2, .of = 6 }, all = { .rows = 6, .of = 6 };
    float              got[8] = { 0 }, whole[24];
    wf_layer           l;

    give(&s, WF_TENSOR_LOKR_W1, w1, 2, 2, 0, 0);
    give(&s, WF_TENSOR_LOKR_W2, w2, 3, 2, 0, 0);
    lay(&s, NULL, 6, 4, 1);
    settle(&s);
    difference(&s, 1, whole);
    ck_assert(wf_slice_whole(&all, &s.l));
    ck_assert_int_eq(wf_slice_form(&all, &s.m, &s.l), WF_FORM_KRON);
    l = s.l;
    l.out = 2;
    ck_assert(wf_slice_fits(&b, &s.m, &l));
    ck_assert_int_eq(wf_slice_form(&b, &s.m, &l), WF_FORM_DENSE);
    ck_assert_int_eq(wf_slice_add(&b, &s.m, &l, 1, 1, 1, got, heap(), &err), WEFT_OK);
    ck_assert_mem_eq(got, whole + 8, sizeof got);
}
END_TEST

START_TEST(bias_is_sliced_with_the_rows)
{
    static const float diff[] = { 1, 2, 3, 4, 5, 6 };
    sample             s = { .count = 0 };
    wf_slice         b = third(1);
    float              got[ROWS] = { 10, 20 };
    bool               any = false;

    give(&s, WF_TENSOR_DIFF_B, diff, OF, 0, 0, 0);
    fused_lora(&s);
    ck_assert_int_eq(wf_slice_add_bias(&b, &s.m, &s.l, 1, 2, NULL, &any, heap(), &err), WEFT_OK);
    ck_assert(any);
    ck_assert_int_eq(wf_slice_add_bias(&b, &s.m, &s.l, 1, 2, got, &any, heap(), &err), WEFT_OK);
    ck_assert_float_eq(got[0], 10 + 2 * 3);
    ck_assert_float_eq(got[1], 20 + 2 * 4);
}
END_TEST

/* Rows that are not there, and families that would need the weight of all layers in one piece. */
START_TEST(what_has_no_slice_does_not_fit)
{
    static const float blocks[3 * 4] = { 0 }, g[OF] = { 1, 1, 1, 1, 1, 1 };
    sample             s = { .count = 0 }, dora = { .count = 0 }, oft = { .count = 0 };
    wf_slice         b = third(1), past = third(3), wide = { .row = 1, .rows = ROWS, .of = OF };

    fused_lora(&s);
    ck_assert(!wf_slice_fits(&past, &s.m, &s.l));
    ck_assert(!wf_slice_fits(&wide, &s.m, &s.l));
    give(&dora, WF_TENSOR_MAGNITUDE, g, OF, 0, 0, 0);
    fused_lora(&dora);
    ck_assert(!wf_slice_fits(&b, &dora.m, &dora.l));
    give(&oft, WF_TENSOR_OFT_BLOCKS, blocks, 3, 2, 2, 0);
    lay(&oft, NULL, ROWS, 4, 1);
    settle(&oft);
    ck_assert(!wf_slice_fits(&b, &oft.m, &oft.l));
}
END_TEST

START_TEST(slices_without_memory_say_so)
{
    sample         s = { .count = 0 };
    wf_slice     b = third(2);
    float          down[8], up[2 * ROWS], sum[ROWS * 4];
    test_memory    memory;
    weft_allocator alloc = test_allocator(&memory);

    fused_lora(&s);
    memory.fail_at = 1;
    ck_assert_int_eq(wf_slice_pair(&b, &s.m, &s.l, down, up, &alloc, &err), WEFT_E_NOMEM);
    ck_assert_int_eq(wf_slice_add(&b, &s.m, &s.l, 1, 1, 1, sum, &alloc, &err), WEFT_E_NOMEM);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("adapter: slices of layers");
    TCase *t = tcase_create("slices");

    tcase_add_test(t, each_layer_gets_its_rows_of_the_product);
    tcase_add_test(t, pairs_share_the_inner_factor);
    tcase_add_test(t, rows_outside_stay);
    tcase_add_test(t, slice_of_a_kronecker_product_is_dense);
    tcase_add_test(t, bias_is_sliced_with_the_rows);
    tcase_add_test(t, what_has_no_slice_does_not_fit);
    tcase_add_test(t, slices_without_memory_say_so);
    suite_add_tcase(s, t);
    return run_suite(s);
}
