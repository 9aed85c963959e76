/* bfloat16, by the processor and emulated: how numbers are rounded, and that both compute the same bits. That what they
 * compute is right, test_product.c and test_attend.c tell. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/support.h"
#include "tensor/packed.h"

static const wf_pairs *tables[2];
static int table_count;

/* Ties go to the even neighbour, what is too large becomes infinite, what is no number stays none. */
START_TEST(pairs_round_to_nearest_even)
{
    enum { N = 11 };
    static const float x[N] = { 1, 1 + 0x1p-8f, 1 + 0x3p-8f, -1 - 0x1p-8f, 1 + 0x1.8p-8f, 1 + 0x1p-8f + 0x1p-23f,
                                3.4028235e38f, -INFINITY, 0, -0.0f, 0x1p-126f };
    static const uint32_t no_numbers[4] = { 0x7fc00000, 0x7f800001, 0xffffffff, 0xff80ffff };
    const wf_pairs *b = tables[_i];
    uint16_t got[N + 1], want[N];
    float pairs[(N + 1) / 2], odd[4];
    b->narrow(pairs, (N + 1) / 2, x, N, 1, N);
    memcpy(got, pairs, sizeof got);
    wf_narrow(want, WF_BF16, x, N);
    for (int i = 0; i < N; i++)
        ck_assert_msg(got[i] == want[i], "%g: %04x, wanted %04x", (double)x[i], (unsigned)got[i], (unsigned)want[i]);
    ck_assert_uint_eq(got[N], 0); /* filled up */
    memcpy(odd, no_numbers, sizeof odd);
    b->narrow(pairs, 2, odd, 4, 1, 4);
    memcpy(got, pairs, 4 * sizeof *got);
    for (int i = 0; i < 4; i++) ck_assert_msg((got[i] & 0x7f80) == 0x7f80 && (got[i] & 0x7f) != 0, "%04x", (unsigned)got[i]);
}
END_TEST

/* Of a pair the first lies in the lower half: of neighbours in a row, of rows, and of a panel's k. */
START_TEST(pairs_lie_in_order)
{
    static const float x[4] = { 1, 2, 3, 4 };
    static const uint16_t in_row[4] = { 0x3f80, 0x4000, 0x4040, 0x4080 }, in_column[4] = { 0x3f80, 0x4040, 0x4000, 0x4080 };
    const wf_pairs *b = tables[_i];
    float to[2], panel[2 * 64];
    b->narrow(to, 1, x, 2, 2, 2);
    ck_assert_mem_eq(to, in_row, sizeof to);
    b->weave(to, 2, x, 2, 2, 2);
    ck_assert_mem_eq(to, in_column, sizeof to);
    b->pack(panel, 64, x, WF_F32, 2, 2, 2); /* two columns of one pair */
    ck_assert_mem_eq(panel, in_row, sizeof to);
}
END_TEST

/* A factor's type does not show, at any length: bfloat16 lies as it is, float16 is narrowed from what it says. */
START_TEST(factors_of_every_type_pack_alike)
{
    static const wf_dtype types[] = { WF_F16, WF_BF16 };
    enum { ROWS = 5, MOST = 37, WIDTH = 16 };
    const wf_pairs *b = tables[_i];
    float x[ROWS * MOST], want[(MOST + 1) / 2 * WIDTH], got[(MOST + 1) / 2 * WIDTH];
    uint8_t bytes[2 * ROWS * MOST];
    for (size_t k = 1; k <= MOST; k++)
        for (size_t t = 0; t < WF_LEN(types); t++) {
            for (size_t i = 0; i < ROWS * k; i++) x[i] = (float)((int)(i * 37 % 101) - 50) / 16 * (i % 7 == 0 ? 0x1p-14f : 1);
            wf_narrow(bytes, types[t], x, ROWS * k);
            wf_widen_any(x, bytes, types[t], ROWS * k);
            b->pack(want, WIDTH, x, WF_F32, k, ROWS, k);
            b->pack(got, WIDTH, bytes, types[t], k, ROWS, k);
            ck_assert_msg(memcmp(got, want, (k + 1) / 2 * WIDTH * sizeof *got) == 0, "%s, %zu", wf_dtype_name(types[t]), k);
        }
}
END_TEST

/* float16 as a plain vector widens it: all of its numbers, and what is none. */
START_TEST(every_float16_is_widened)
{
    enum { N = 1 << 16 };
    uint16_t *half = malloc(N * sizeof *half);
    float *panel = malloc(12 * N * sizeof *panel), *want = malloc(N * sizeof *want);
    for (size_t i = 0; i < N; i++) half[i] = (uint16_t)i;
    wf_widen_any(want, half, WF_F16, N);
    wf_packed_plain.pack(panel, 12, half, WF_F16, N, 1, N, 1);
    for (size_t i = 0; i < N; i++) {
        float got = panel[12 * i];
        bool none = (i & 0x7c00) == 0x7c00 && (i & 0x3ff) != 0;
        ck_assert_msg(none ? isnan(got) : memcmp(&got, &want[i], sizeof got) == 0, "%04zx", i);
    }
    free(half), free(panel), free(want);
}
END_TEST

/* One layer by a tier, without a window: y (rows, out) += x (rows, in) w^T. */
static float *layer(const wf_products *t, const float *x, const float *w, size_t rows, size_t in, size_t out)
{
    weft_allocator alloc = wf_allocator(NULL);
    wf_pool *pool;
    float *y = malloc(rows * out * sizeof *y);
    for (size_t i = 0; i < rows * out; i++) y[i] = (float)i / 64;
    wf_product p = { .y = y, .x = x, .samples = 1, .in = in, .out = out, .weight = w, .type = WF_F32, .add = true,
                     .window = { (int32_t)rows, 1, (int32_t)rows, 1, 1, 1, 0 } };
    uint8_t *scratch = malloc(t->wide_scratch(&p));
    ck_assert_int_eq(wf_pool_create(&alloc, 1, &pool, NULL), WEFT_OK);
    t->wide(&p, &wf_kernels_ref, pool, &scratch);
    wf_pool_free(pool);
    free(scratch);
    return y;
}

/* The emulated tier rounds where the processor's does and sums in its order. Numbers below 2^-126, which the instruction
 * takes as 0, are not among these. */
START_TEST(emulated_layers_have_the_bits_of_the_dot_product)
{
    static const size_t shapes[][3] = { { 7, 5, 3 }, { 9, 6, 325 }, { 70, 1160, 51 }, { 1, 33, 17 } };
    const wf_products *dot = wf_products_pick_bf16(wf_cpu_detect());
    uint32_t state = 7;
    for (size_t i = 0; dot != NULL && i < WF_LEN(shapes); i++) {
        size_t rows = shapes[i][0], in = shapes[i][1], out = shapes[i][2], n = (rows + out) * in;
        float *x = malloc(n * sizeof *x);
        for (size_t k = 0; k < n; k++) {
            state = state * 1664525u + 1013904223u;
            x[k] = (float)(int32_t)(state >> 8) / (float)(1 << 23) - 1;
        }
        float *want = layer(dot, x, x + rows * in, rows, in, out);
        float *got = layer(&wf_products_bf16_emulated, x, x + rows * in, rows, in, out);
        ck_assert_msg(memcmp(got, want, rows * out * sizeof *got) == 0, "shape %zu", i);
        free(x), free(want), free(got);
    }
}
END_TEST

START_TEST(a_processor_has_it_or_not)
{
    const wf_products *own = NULL;
#if defined(__x86_64__)
    if (wf_cpu_detect().avx512_bf16) own = &wf_products_avx512_bf16;
#endif
    ck_assert_ptr_eq(wf_products_pick_bf16(wf_cpu_detect()), own);
    ck_assert_ptr_null(wf_products_pick_bf16((wf_cpu){ 0 }));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("bfloat16");
    TCase *c = tcase_create("bfloat16");
    tables[table_count++] = &wf_pairs_plain;
#if defined(__x86_64__)
    if (wf_cpu_detect().avx512_bf16) tables[table_count++] = &wf_pairs_avx512_bf16;
#endif
    tcase_add_loop_test(c, pairs_round_to_nearest_even, 0, table_count);
    tcase_add_loop_test(c, pairs_lie_in_order, 0, table_count);
    tcase_add_loop_test(c, factors_of_every_type_pack_alike, 0, table_count);
    tcase_add_test(c, every_float16_is_widened);
    tcase_add_test(c, emulated_layers_have_the_bits_of_the_dot_product);
    tcase_add_test(c, a_processor_has_it_or_not);
    suite_add_tcase(s, c);
    return run_suite(s);
}
