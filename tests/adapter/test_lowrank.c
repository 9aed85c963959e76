/* The low-rank family: worked numbers of methods.md 0.2, 1 and 5.6, orders of elements, refusals. */
#include <math.h>

#include "files.h"

/* A module over two tensors in memory. */
typedef struct sample {
    wf_tensor down, up;
    wf_module m;
} sample;

static wf_tensor f32(const float *data, int32_t rank, int64_t a, int64_t b, int64_t k)
{
    wf_tensor t = { .name = "t", .data = (const uint8_t *)data, .shape = { a, b, k, k }, .rank = rank };
    t.count = (size_t)(a * b * (rank == 4 ? k * k : 1));
    t.bytes = t.count * sizeof *data;
    t.dtype = WF_F32;
    return t;
}

static void make(sample *s, wf_tensor down, wf_tensor up)
{
    s->down = down;
    s->up = up;
    s->m = (wf_module){ .key = "m", .name = "m", .family = &wf_family_lora };
    s->m.tensor[WF_TENSOR_DOWN] = &s->down;
    s->m.tensor[WF_TENSOR_UP] = &s->up;
    ck_assert_msg(s->m.family->shape(&s->m, "test", &err) == WEFT_OK, "%s", err.text);
}

static void factors(const wf_module *m, float *down, float *up)
{
    const weft_allocator heap = wf_allocator(NULL);
    ck_assert_int_eq(wf_module_pair(m, NULL, down, up, &heap, &err), WEFT_OK);
}

static void score(const sample *s, double scale, int64_t k, double *all, double *top)
{
    const weft_allocator heap = wf_allocator(NULL);
    ck_assert_int_eq(wf_module_score(&s->m, NULL, scale, k, all, top, &heap, &err), WEFT_OK);
}

/* The product of the factors as the networks would form it: row o, column (ky, kx, in). */
static float product(const wf_module *m, const float *down, const float *up, int32_t o, size_t column, size_t K)
{
    float s = 0;
    for (int32_t p = 0; p < m->rank; p++) s += up[p * m->out + o] * down[(size_t)p * K + column];
    return s;
}

START_TEST(product_is_that_of_the_worked_example)
{
    sample s;
    float  down[8], up[6];

    make(&s, f32(A1, 2, 2, 4, 1), f32(B1, 2, 3, 2, 1));
    ck_assert_int_eq(s.m.rank, 2);
    ck_assert_int_eq(s.m.in, 4);
    ck_assert_int_eq(s.m.out, 3);
    ck_assert_int_eq(s.m.kernel, 1);
    factors(&s.m, down, up);
    for (int32_t o = 0; o < 3; o++)
        for (size_t c = 0; c < 4; c++) ck_assert_float_eq(product(&s.m, down, up, o, c, 4), D1[o * 4 + (int32_t)c]);
    factors(&s.m, NULL, up); /* either may be left out */
    factors(&s.m, down, NULL);
}
END_TEST

/* methods.md 5.6: |D1| top 4 is 5, 3, 3, 2; |D2| top 4 is 2.5, 2, 2, 1. */
START_TEST(scores_are_those_of_the_worked_example)
{
    sample one, two;
    double all, top;

    make(&one, f32(A1, 2, 2, 4, 1), f32(B1, 2, 3, 2, 1));
    make(&two, f32(A2, 2, 2, 4, 1), f32(B2, 2, 3, 2, 1));
    score(&one, 1, 4, &all, &top);
    ck_assert_double_eq(all, 20);
    ck_assert_double_eq(top, 13);
    score(&two, 1, 4, &all, &top);
    ck_assert_double_eq(all, 14);
    ck_assert_double_eq(top, 7.5);
    score(&one, -0.5, 4, &all, &top); /* a scale of any sign multiplies */
    ck_assert_double_eq(all, 10);
    ck_assert_double_eq(top, 6.5);
}
END_TEST

START_TEST(more_than_all_are_all)
{
    sample s;
    double all, top;

    make(&s, f32(A1, 2, 2, 4, 1), f32(B1, 2, 3, 2, 1));
    score(&s, 1, 12, &all, &top);
    ck_assert_double_eq(top, 20);
    score(&s, 1, INT64_MAX, &all, &top);
    ck_assert_double_eq(top, 20);
    score(&s, 1, 11, &all, &top);
    ck_assert_double_eq(top, 20); /* the one left out is a zero */
    score(&s, 1, 1, &all, &top);
    ck_assert_double_eq(top, 5);
    score(&s, 1, 0, &all, &top);
    ck_assert_double_eq(top, 0);
    ck_assert_double_eq(all, 20);
}
END_TEST

/* methods.md 1: down = 0, 0.1, .. 0.7 and up = [[1, -1], [2, 0.5]] give -0.4 four times and 0.2 0.45 0.7 0.95. */
START_TEST(convolution_is_that_of_the_worked_example)
{
    const float A[] = { 0, 0.1f, 0.2f, 0.3f, 0.4f, 0.5f, 0.6f, 0.7f }, B[] = { 1, -1, 2, 0.5f };
    const float want[] = { -0.4f, -0.4f, -0.4f, -0.4f, 0.2f, 0.45f, 0.7f, 0.95f };
    sample      s;
    float       down[8], up[4];
    double      all, top;

    make(&s, f32(A, 4, 2, 1, 2), f32(B, 4, 2, 2, 1));
    ck_assert_int_eq(s.m.kernel, 2);
    factors(&s.m, down, up);
    for (int32_t o = 0; o < 2; o++)
        for (size_t c = 0; c < 4; c++)
            ck_assert_float_eq_tol(product(&s.m, down, up, o, c, 4), want[o * 4 + (int32_t)c], 1e-6f);
    score(&s, 1, 2, &all, &top);
    ck_assert_double_eq_tol(all, 3.9, 1e-6);
    ck_assert_double_eq_tol(top, 1.65, 1e-6);
}
END_TEST

/* (r, in, ky, kx) in the file, (r, ky, kx, in) in the networks. */
START_TEST(convolution_factors_are_channels_last)
{
    enum { r = 2, in = 3, k = 3, out = 5 };
    float  A[r * in * k * k], B[out * r], down[r * in * k * k], up[r * out];
    sample s;

    for (int i = 0; i < r * in * k * k; i++) A[i] = (float)i;
    for (int i = 0; i < out * r; i++) B[i] = (float)(100 + i);
    make(&s, f32(A, 4, r, in, k), f32(B, 2, out, r, 1));
    factors(&s.m, down, up);
    for (int p = 0; p < r; p++)
        for (int c = 0; c < in; c++)
            for (int y = 0; y < k; y++)
                for (int x = 0; x < k; x++)
                    ck_assert_float_eq(down[((p * k + y) * k + x) * in + c], A[((p * in + c) * k + y) * k + x]);
    for (int p = 0; p < r; p++)
        for (int o = 0; o < out; o++) ck_assert_float_eq(up[p * out + o], B[o * r + p]);
}
END_TEST

static int descending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Sizes that leave tails everywhere, longer than the buffers that widen; the sums against sorting. */
START_TEST(score_agrees_with_sorting_the_whole_product)
{
    static const int sizes[][3] = { { 37, 53, 5 }, { 1, 1, 1 }, { 3, 2100, 2 }, { 70, 16, 9 }, { 5, 17, 33 } };
    int       out = sizes[_i][0], in = sizes[_i][1], r = sizes[_i][2];
    float    *A = malloc(sizeof *A * (size_t)(r * in)), *B = malloc(sizeof *B * (size_t)(out * r));
    double   *v = malloc(sizeof *v * (size_t)(out * in)), all, top;
    uint32_t  x = 1;
    sample    s;

    for (int i = 0; i < r * in; i++) A[i] = (float)((x = x * 1664525 + 1013904223) >> 8) / 8388608.0f - 1;
    for (int i = 0; i < out * r; i++) B[i] = (float)((x = x * 1664525 + 1013904223) >> 8) / 8388608.0f - 1;
    for (int o = 0; o < out; o++)
        for (int c = 0; c < in; c++) {
            double d = 0;
            for (int p = 0; p < r; p++) d += (double)B[o * r + p] * A[p * in + c];
            v[o * in + c] = fabs(d);
        }
    qsort(v, (size_t)(out * in), sizeof *v, descending);
    make(&s, f32(A, 2, r, in, 1), f32(B, 2, out, r, 1));
    for (int k = 1; k <= out * in; k = k * 3 + 1) {
        double want_all = 0, want_top = 0;
        for (int i = 0; i < out * in; i++) want_all += v[i], want_top += i < k ? v[i] : 0;
        score(&s, 1, k, &all, &top);
        ck_assert_double_eq_tol(all / want_all, 1, 1e-6);
        ck_assert_double_eq_tol(top / want_top, 1, 1e-6);
    }
    free(A);
    free(B);
    free(v);
}
END_TEST

START_TEST(score_without_memory_says_so)
{
    test_memory    m;
    weft_allocator a = test_allocator(&m);
    sample         s;
    double         all, top;
    weft_status    st = WEFT_E_NOMEM;

    make(&s, f32(A1, 2, 2, 4, 1), f32(B1, 2, 3, 2, 1));
    for (size_t n = 1; st == WEFT_E_NOMEM; n++) {
        m = (test_memory){ .fail_at = n };
        st = wf_module_score(&s.m, NULL, 1, 4, &all, &top, &a, &err);
        ck_assert_uint_eq(m.live_blocks, 0);
        ck_assert_uint_lt(n, 10);
    }
    ck_assert_int_eq(st, WEFT_OK);
}
END_TEST

/* The same numbers in f16, bf16 and f64; all of A1 and B1 are exact in each. */
START_TEST(factors_of_every_float_type_widen)
{
    uint16_t  h[14], b[14];
    double    d[14];
    bytes     f = { .header_len = 0 };
    weft_adapter *a = NULL;

    for (int i = 0; i < 14; i++) {
        float    v = i < 8 ? A1[i] : B1[i - 8];
        uint32_t bits;
        memcpy(&bits, &v, 4);
        h[i] = wf_f16_from_f32(v);
        b[i] = (uint16_t)(bits >> 16);
        d[i] = v;
    }
    add_bytes(&f, "lora_unet_a.lora_down.weight", "F16", "[2,4]", h, 16);
    add_bytes(&f, "lora_unet_a.lora_up.weight", "F16", "[3,2]", h + 8, 12);
    add_bytes(&f, "lora_unet_b.lora_down.weight", "BF16", "[2,4]", b, 16);
    add_bytes(&f, "lora_unet_b.lora_up.weight", "BF16", "[3,2]", b + 8, 12);
    add_bytes(&f, "lora_unet_c.lora_down.weight", "F64", "[2,4]", d, 64);
    add_bytes(&f, "lora_unet_c.lora_up.weight", "F64", "[3,2]", d + 8, 48);
    ck_assert_msg(parse_bytes(&f, &a) == WEFT_OK, "%s", err.text);
    ck_assert_uint_eq(wf_adapter_modules(a), 3);
    for (size_t i = 0; i < 3; i++) {
        const weft_allocator heap = wf_allocator(NULL);
        double               all, top;
        ck_assert_int_eq(wf_module_score(wf_adapter_module(a, i), NULL, 1, 4, &all, &top, &heap, &err), WEFT_OK);
        ck_assert_double_eq(all, 20);
        ck_assert_double_eq(top, 13);
    }
    weft_adapter_free(a);
}
END_TEST

/* ---- refusals -------------------------------------------------------------------------------- */

static void check_shapes_refused(const char *down, const char *up, size_t down_n, size_t up_n, const char *type,
                                 const char *word)
{
    static const float zeros[512];
    bytes              f = { .header_len = 0 };
    weft_adapter      *a = NULL;
    size_t             size = strcmp(type, "F32") == 0 ? 4 : 1;

    add_bytes(&f, "lora_unet_x.lora_down.weight", type, down, zeros, down_n * size);
    add_bytes(&f, "lora_unet_x.lora_up.weight", type, up, zeros, up_n * size);
    ck_assert_int_eq(parse_bytes(&f, &a), WEFT_E_FORMAT);
    ck_assert_ptr_null(a);
    ck_assert_msg(strstr(err.text, word) != NULL, "'%s' is not in: %s", word, err.text);
    ck_assert_ptr_nonnull(strstr(err.text, "lora_unet_x"));
    check_one_line(&err);
}

START_TEST(shapes_that_are_no_factors_are_refused)
{
    check_shapes_refused("[2,4]", "[3,8]", 8, 24, "F32", "up is (3, 8) but down is (2, 4): ranks 8 and 2 differ");
    check_shapes_refused("[2]", "[3,2]", 2, 6, "F32", "is (2,), wanted (r, in)");
    check_shapes_refused("[2,4,3]", "[3,2]", 24, 6, "F32", "wanted (r, in)");
    check_shapes_refused("[2,4,3,1]", "[3,2]", 24, 6, "F32", "a square kernel");
    check_shapes_refused("[2,4]", "[3,2,3,3]", 8, 54, "F32", "(out, r, 1, 1)");
    check_shapes_refused("[2,4]", "[3,2,1]", 8, 6, "F32", "(out, r, 1, 1)");
    check_shapes_refused("[0,4]", "[3,0]", 0, 0, "F32", "no dimension of zero");
    check_shapes_refused("[2,0]", "[3,2]", 0, 6, "F32", "no dimension of zero");
    check_shapes_refused("[2,4]", "[3,2]", 8, 6, "I8", "holds I8, wanted floating-point numbers");
    check_shapes_refused("[2,4]", "[3,2]", 8, 6, "BOOL", "holds BOOL");
}
END_TEST

START_TEST(values_that_are_not_finite_are_refused)
{
    static const float bad[] = { NAN, INFINITY, -INFINITY };

    for (size_t v = 0; v < WF_LEN(bad); v++)
        for (size_t at = 0; at < 14; at++) {
            float         A[8], B[6];
            bytes         f = { .header_len = 0 };
            char          want[40];
            weft_adapter *a = NULL;
            memcpy(A, A1, sizeof A);
            memcpy(B, B1, sizeof B);
            *(at < 8 ? &A[at] : &B[at - 8]) = bad[v];
            add_bytes(&f, "unet.x.lora_A.weight", "F32", "[2,4]", A, sizeof A);
            add_bytes(&f, "unet.x.lora_B.weight", "F32", "[3,2]", B, sizeof B);
            ck_assert_int_eq(parse_bytes(&f, &a), WEFT_E_FORMAT);
            snprintf(want, sizeof want, "%s at index %zu of %d", v == 0 ? "NaN" : "infinity", at < 8 ? at : at - 8,
                     at < 8 ? 8 : 6);
            ck_assert_msg(strstr(err.text, want) != NULL, "'%s' is not in: %s", want, err.text);
            ck_assert_ptr_nonnull(strstr(err.text, at < 8 ? "unet.x.lora_A.weight" : "unet.x.lora_B.weight"));
        }
}
END_TEST

/* An f64 that is no f32, and an f16 infinity. */
START_TEST(values_that_become_infinite_are_refused)
{
    const double   d[8] = { 0, 0, 1e300 };
    const uint16_t h[6] = { 0, 0x7c00 };
    bytes          f = { .header_len = 0 }, g = { .header_len = 0 };
    weft_adapter  *a = NULL;

    add_bytes(&f, "unet.x.lora_A.weight", "F64", "[2,4]", d, sizeof d);
    add_bytes(&f, "unet.x.lora_B.weight", "F32", "[3,2]", B1, sizeof B1);
    ck_assert_int_eq(parse_bytes(&f, &a), WEFT_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(err.text, "infinity at index 2"));
    add_bytes(&g, "unet.x.lora_A.weight", "F32", "[2,4]", A1, sizeof A1);
    add_bytes(&g, "unet.x.lora_B.weight", "F16", "[3,2]", h, sizeof h);
    ck_assert_int_eq(parse_bytes(&g, &a), WEFT_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(err.text, "lora_B.weight holds infinity at index 1"));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("adapter: low-rank factors");
    TCase *t = tcase_create("numbers");

    tcase_add_test(t, product_is_that_of_the_worked_example);
    tcase_add_test(t, scores_are_those_of_the_worked_example);
    tcase_add_test(t, more_than_all_are_all);
    tcase_add_test(t, convolution_is_that_of_the_worked_example);
    tcase_add_test(t, convolution_factors_are_channels_last);
    tcase_add_loop_test(t, score_agrees_with_sorting_the_whole_product, 0, 5);
    tcase_add_test(t, score_without_memory_says_so);
    tcase_add_test(t, factors_of_every_float_type_widen);
    suite_add_tcase(s, t);
    t = tcase_create("refusals");
    tcase_add_test(t, shapes_that_are_no_factors_are_refused);
    tcase_add_test(t, values_that_are_not_finite_are_refused);
    tcase_add_test(t, values_that_become_infinite_are_refused);
    suite_add_tcase(s, t);
    return run_suite(s);
}
