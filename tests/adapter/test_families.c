/* The families against the worked numbers of methods.md 1, 2 and 14, their invariants, and their refusals. Every family's
 * factors for the fast ways must be its sum again. */
#include "adapter/factor.h"
#include "modules.h"

/* methods.md 0.2 */
static const float W[] = { 1, 2, 2, 0, 0, 3, 4, 0, 2, -1, 0, 2 };
static const double LIMIT = 1e-6;

/* ---- low rank -------------------------------------------------------------------------------- */

static void lora(sample *s)
{
    give(s, WF_TENSOR_DOWN, A1, 2, 4, 0, 0);
    give(s, WF_TENSOR_UP, B1, 3, 2, 0, 0);
    lay(s, W, 3, 4, 1);
}

START_TEST(lora_is_scaled_by_alpha_over_rank)
{
    static const double want[] = { 0.5, 1, 0, -0.5, 0.25, 0, -1.5, -0.75, 1, 2.5, 1.5, -0.5 };
    sample              s = { .count = 0 };
    float               got[12];

    lora(&s);
    give_alpha(&s, 1);
    settle(&s);
    ck_assert_float_eq(s.m.scale, 0.5f);
    difference(&s, 1, got);
    near(got, want, 12, LIMIT);
}
END_TEST

START_TEST(rank_stabilised_lora_is_scaled_by_the_root)
{
    static const double want[] = { 0.707107, 1.414214, 0, -0.707107 };
    sample              s = { .count = 0 };
    float               got[12];

    lora(&s);
    give_alpha(&s, 1);
    s.m.rslora = true;
    settle(&s);
    difference(&s, 1, got);
    near(got, want, 4, LIMIT);
}
END_TEST

static const float EIGHTH[] = { 0, 0.1f, 0.2f, 0.3f, 0.4f, 0.5f, 0.6f, 0.7f };

START_TEST(convolution_by_a_small_kernel)
{
    static const float  up[] = { 1, -1, 2, 0.5f };
    static const double want[] = { -0.4, -0.4, -0.4, -0.4, 0.2, 0.45, 0.7, 0.95 };
    sample              s = { .count = 0 };
    float               got[8];

    give(&s, WF_TENSOR_DOWN, EIGHTH, 2, 1, 2, 2);
    give(&s, WF_TENSOR_UP, up, 2, 2, 1, 1);
    lay(&s, NULL, 2, 1, 2);
    settle(&s);
    difference(&s, 1, got);
    near(got, want, 8, LIMIT);
}
END_TEST

/* The kernel of the worked example is (1, 2), which no layer has: as the first row of a (2, 2) one with zeros below. */
START_TEST(tucker_core_is_folded)
{
    static const float  mid[] = { 0, 0.1f, 0, 0, 0.2f, 0.3f, 0, 0, 0.4f, 0.5f, 0, 0, 0.6f, 0.7f, 0, 0 };
    static const float  down[] = { 1, 2, 0, 1 }, up[] = { 1, -1, 2, 0.5f };
    static const double want[] = { -0.4, -0.4, 0, 0, -1.2, -1.2, 0, 0, 0.2, 0.45, 0, 0, 1.1, 1.85, 0, 0 };
    sample              s = { .count = 0 };
    float               got[16];

    give(&s, WF_TENSOR_DOWN, down, 2, 2, 1, 1);
    give(&s, WF_TENSOR_UP, up, 2, 2, 1, 1);
    give(&s, WF_TENSOR_MID, mid, 2, 2, 2, 2);
    lay(&s, NULL, 2, 2, 2);
    settle(&s);
    ck_assert_int_eq(s.m.kernel, 2);
    difference(&s, 1, got);
    near(got, want, 16, LIMIT);
}
END_TEST

START_TEST(adalora_weighs_its_triplets)
{
    static const double want[] = { 0.25, 0.5, 0, -0.25, 0.125, 0.375, 0.375, 0, 0.5, 0.875, -0.375, -0.625 };
    static const float  E[] = { 0.5f, -0.25f };
    sample              s = { .count = 0 };
    float               got[12];

    lora(&s);
    give(&s, WF_TENSOR_LORA_E, E, 2, 1, 0, 0);
    give_alpha(&s, 1);
    settle(&s);
    ck_assert_double_eq_tol((double)s.m.scale, 1 / 2.00001, 1e-7);
    s.m.scale = 0.5f; /* the example leaves the 1e-5 out */
    difference(&s, 1, got);
    near(got, want, 12, LIMIT);
}
END_TEST

/* alpha is divided by the rank of the start, whatever is left of it; an alpha of 0 or less is that rank. */
START_TEST(adalora_divides_by_the_rank_of_the_start)
{
    static const float E[] = { 0.5f, -0.25f };
    sample             s = { .count = 0 };

    lora(&s);
    give(&s, WF_TENSOR_LORA_E, E, 2, 1, 0, 0);
    give_alpha(&s, 6);
    s.extra.start.rank = 12;
    settle(&s);
    ck_assert_double_eq_tol((double)s.m.scale, 6 / 12.00001, 1e-7);
    s.m.alpha = 0;
    settle(&s);
    ck_assert_double_eq_tol((double)s.m.scale, 12 / 12.00001, 1e-7);
}
END_TEST

/* PEFT stores the number of triplets that training divided by, and that number goes before all. */
START_TEST(adalora_divides_by_the_stored_number_if_there_is_one)
{
    static const float E[] = { 0.5f, -0.25f }, number[] = { 3 };
    sample             s = { .count = 0 };

    lora(&s);
    give(&s, WF_TENSOR_LORA_E, E, 2, 1, 0, 0);
    give(&s, WF_TENSOR_RANKNUM, number, 1, 0, 0, 0);
    give_alpha(&s, 6);
    s.extra.start.rank = 12;
    settle(&s);
    ck_assert_double_eq_tol((double)s.m.scale, 6 / 3.00001, 1e-6);
}
END_TEST

START_TEST(adalora_may_have_pruned_a_module_away)
{
    sample s = { .count = 0 };
    float  got[12];

    give(&s, WF_TENSOR_DOWN, A1, 2, 4, 0, 0);
    give(&s, WF_TENSOR_UP, B1, 3, 2, 0, 0);
    give(&s, WF_TENSOR_LORA_E, A1, 2, 1, 0, 0);
    s.tensors[0].shape[0] = s.tensors[1].shape[1] = s.tensors[2].shape[0] = 0;
    s.tensors[0].count = s.tensors[1].count = s.tensors[2].count = 0;
    lay(&s, W, 3, 4, 1);
    s.extra.start.rank = 2;
    settle(&s);
    ck_assert(wf_module_fits(&s.m, &s.l));
    ck_assert_int_eq(wf_module_form(&s.m, &s.l), WF_FORM_DENSE);
    difference(&s, 1, got);
    near(got, (const double[12]){ 0 }, 12, 0);
    s.m.tensor[WF_TENSOR_LORA_E] = NULL; /* of others a rank of 0 is a broken file */
    ck_assert_int_eq(try_settle(&s), WEFT_E_FORMAT);
}
END_TEST

START_TEST(moslora_mixes)
{
    static const double want[] = { 0.5, 1.25, 0.75, -0.25, 0.5, 0.125, -2.625, -1.375, 0.75, 3, 4.5, 0.75 };
    static const float  M[] = { 1, 0.5f, -0.5f, 2 };
    sample              s = { .count = 0 };
    float               got[12];

    lora(&s);
    give(&s, WF_TENSOR_MIXER, M, 2, 2, 0, 0);
    give_alpha(&s, 1);
    settle(&s);
    difference(&s, 1, got);
    near(got, want, 12, LIMIT);
}
END_TEST

START_TEST(up_bias_is_scaled_like_the_product)
{
    static const float bias[] = { 1, -2, 4 };
    sample             s = { .count = 0 };
    float              got[3] = { 10, 10, 10 };
    bool               any;

    lora(&s);
    give_alpha(&s, 1);
    settle(&s);
    ck_assert_int_eq(wf_module_add_bias(&s.m, &s.l, 0.5, 1, NULL, &any, &err), WEFT_OK);
    ck_assert(!any);
    give(&s, WF_TENSOR_UP_BIAS, bias, 3, 0, 0, 0);
    settle(&s);
    ck_assert_int_eq(wf_module_add_bias(&s.m, &s.l, 0.5, 2, got, &any, &err), WEFT_OK);
    ck_assert(any);
    near(got, (const double[]){ 11, 8, 14 }, 3, LIMIT);
}
END_TEST

/* ---- Hadamard, Kronecker --------------------------------------------------------------------- */

START_TEST(loha_multiplies_element_by_element)
{
    static const float  w1a[] = { 1, 0, 2, 1 }, w1b[] = { 1, -1, 0, 0, 2, 1 };
    static const float  w2a[] = { 1, 1, 0, -1 }, w2b[] = { 2, 0, 1, 1, 1, 0 };
    static const double want[] = { 1.5, -0.5, 0, -1, 0, 0 };
    sample              s = { .count = 0 };
    float               got[6];

    give(&s, WF_TENSOR_HADA_W1A, w1a, 2, 2, 0, 0);
    give(&s, WF_TENSOR_HADA_W1B, w1b, 2, 3, 0, 0);
    give(&s, WF_TENSOR_HADA_W2A, w2a, 2, 2, 0, 0);
    give(&s, WF_TENSOR_HADA_W2B, w2b, 2, 3, 0, 0);
    give_alpha(&s, 1);
    lay(&s, NULL, 2, 3, 1);
    settle(&s);
    difference(&s, 1, got);
    near(got, want, 6, LIMIT);
    ck_assert_int_eq(wf_module_form(&s.m, &s.l), WF_FORM_DENSE); /* rank 4 is no pair for a layer of 2 x 3 */
}
END_TEST

static const float  K1[] = { 1, 2, 0, -1 }, K2[] = { 1, 0, 2, 3, -1, 1 };
static const double KRON[] = { 1, 0, 2, 2, 0, 4, 3, -1, 1, 6, -2, 2, 0, 0, 0, -1, 0, -2, 0, 0, 0, -3, 1, -1 };

START_TEST(lokr_is_the_kronecker_product)
{
    sample s = { .count = 0 };
    float  got[24];

    give(&s, WF_TENSOR_LOKR_W1, K1, 2, 2, 0, 0);
    give(&s, WF_TENSOR_LOKR_W2, K2, 2, 3, 0, 0);
    give_alpha(&s, 1e10f); /* means nothing where both factors are whole */
    lay(&s, NULL, 4, 6, 1);
    settle(&s);
    ck_assert_int_eq(s.m.out, 4);
    ck_assert_int_eq(s.m.in, 6);
    ck_assert_float_eq(s.m.scale, 1);
    difference(&s, 1, got);
    near(got, KRON, 24, LIMIT);
}
END_TEST

/* Both factors are products, of ranks 2 and 1, and the scale is by the first one's rank.
 * W1 = [[1, 2], [0, -1]] [[0, 1], [2, 3]] = [[4, 7], [-2, -3]], W2 = [[1], [-2]] [[1, 0, 3]]. */
START_TEST(lokr_of_two_products_has_the_rank_of_the_first)
{
    static const float  one[] = { 0, 1, 2, 3 }, column[] = { 1, -2 }, row[] = { 1, 0, 3 };
    static const double want[] = { 4, 0, 12, 7, 0, 21, -8, 0, -24, -14, 0, -42,
                                   -2, 0, -6, -3, 0, -9, 4, 0, 12, 6, 0, 18 };
    sample s = { .count = 0 };
    float  got[24];

    give(&s, WF_TENSOR_LOKR_W1A, K1, 2, 2, 0, 0);
    give(&s, WF_TENSOR_LOKR_W1B, one, 2, 2, 0, 0);
    give(&s, WF_TENSOR_LOKR_W2A, column, 2, 1, 0, 0);
    give(&s, WF_TENSOR_LOKR_W2B, row, 1, 3, 0, 0);
    give_alpha(&s, 2);
    lay(&s, NULL, 4, 6, 1);
    settle(&s);
    ck_assert_int_eq(s.m.rank, 2);
    ck_assert_float_eq(s.m.scale, 1);
    difference(&s, 1, got);
    near(got, want, 24, LIMIT);
}
END_TEST

/* The four largest of KRON's entries are 6, 4, 3 and 3. */
START_TEST(score_of_a_whole_product_is_scaled_once)
{
    sample s = { .count = 0 };
    double all, top, sum = 0;

    give(&s, WF_TENSOR_LOKR_W1, K1, 2, 2, 0, 0);
    give(&s, WF_TENSOR_LOKR_W2, K2, 2, 3, 0, 0);
    lay(&s, NULL, 4, 6, 1);
    settle(&s);
    for (int i = 0; i < 24; i++) sum += fabs(KRON[i]);
    ck_assert_int_eq(wf_module_score(&s.m, &s.l, -0.5, 4, &all, &top, heap(), &err), WEFT_OK);
    ck_assert_double_eq_tol(all, 0.5 * sum, 1e-6);
    ck_assert_double_eq_tol(top, 0.5 * (6 + 4 + 3 + 3), 1e-6);
}
END_TEST

/* PEFT keeps alpha / r, and only its configuration knows r. */
START_TEST(lokr_of_peft_keeps_its_scale)
{
    sample s = { .count = 0 };

    give(&s, WF_TENSOR_LOKR_W1, K1, 2, 2, 0, 0);
    give(&s, WF_TENSOR_LOKR_W2, K2, 2, 3, 0, 0);
    give_alpha(&s, 6);
    s.m.peft = s.m.peft_magnitude = true;
    s.extra.start.rank = 4;
    settle(&s);
    ck_assert_float_eq(s.m.scale, 1.5f);
}
END_TEST

/* ---- DoRA ------------------------------------------------------------------------------------ */

START_TEST(dora_by_rows)
{
    static const float  g[] = { 3.3f, 4.5f, 3.0f };
    static const double turned[] = { 1.257301, 2.514603, 1.676402, -0.419100, 0.282355, 3.388261, 2.823551, -0.847065,
                                     2.267787, 1.133893, 1.133893, 1.133893 };
    double              want[12];
    sample              s = { .count = 0 };
    float               got[12];

    lora(&s);
    give_alpha(&s, 1);
    give(&s, WF_TENSOR_MAGNITUDE, g, 3, 0, 0, 0);
    settle(&s);
    ck_assert(wf_module_fits(&s.m, &s.l));
    ck_assert_int_eq(wf_module_form(&s.m, &s.l), WF_FORM_DENSE);
    difference(&s, 1, got);
    for (int i = 0; i < 12; i++) want[i] = turned[i] - (double)W[i];
    near(got, want, 12, 1.5e-6); /* of six printed digits, and V's norm has LyCORIS' 1.2e-7 added */
    difference(&s, 0.25, got);   /* strength goes along the line from W */
    for (int i = 0; i < 12; i++) want[i] *= 0.25;
    near(got, want, 12, LIMIT);
    difference(&s, 0, got);
    near(got, (const double[12]){ 0 }, 12, 0);
}
END_TEST

/* |W + 0.5 D1| of rows and of columns; and what the module gives and adds for x = [1 -1 2 0.5], W x = [3 5 4]. */
START_TEST(dora_divides_by_the_norm_of_the_sum)
{
    static const float  g[] = { 3.3f, 4.5f, 3.0f }, x[] = { 1, -1, 2, 0.5f };
    static const double rows[] = { 3.937004, 3.984344, 3.968627 }, columns[] = { 3.363406, 4.5, 3.535534, 1.75 };
    static const double y[] = { 1.885952, 2.117663, 3.968627 }, added[] = { -1.114048, -2.882337, -0.031373 };
    sample              s = { .count = 0 }, plain = { .count = 0 };
    float               D[12], V[12], got[3];
    double              norm[4];

    lora(&s);
    give_alpha(&s, 1);
    give(&s, WF_TENSOR_MAGNITUDE, g, 3, 0, 0, 0);
    settle(&s);
    lora(&plain);
    give_alpha(&plain, 1);
    settle(&plain);
    difference(&plain, 1, D);
    for (int i = 0; i < 12; i++) V[i] = W[i] + D[i];
    wf_dora_norms(norm, V, &s.l, true);
    for (int i = 0; i < 3; i++) ck_assert_double_eq_tol(norm[i], rows[i], 1e-6);
    wf_dora_norms(norm, V, &s.l, false);
    for (int i = 0; i < 4; i++) ck_assert_double_eq_tol(norm[i], columns[i], 1e-6);
    difference(&s, 1, D);
    for (int o = 0; o < 3; o++) {
        double sum = 0, of = 0;
        for (int i = 0; i < 4; i++) {
            sum += (double)D[4 * o + i] * (double)x[i];
            of += ((double)W[4 * o + i] + (double)D[4 * o + i]) * (double)x[i];
        }
        got[o] = (float)sum;
        ck_assert_double_eq_tol(of, y[o], 4e-6);
    }
    near(got, added, 3, 4e-6);
}
END_TEST

START_TEST(dora_by_columns)
{
    static const float  g[] = { 2, 4, 5, 1 };
    static const double turned[] = { 0.891953, 2.666667, 2.828427, -0.285714 };
    double              want[4];
    sample              s = { .count = 0 };
    float               got[12];

    lora(&s);
    give_alpha(&s, 1);
    give(&s, WF_TENSOR_MAGNITUDE, g, 1, 4, 0, 0);
    settle(&s);
    ck_assert(wf_module_fits(&s.m, &s.l));
    difference(&s, 1, got);
    for (int i = 0; i < 4; i++) want[i] = turned[i] - (double)W[i];
    near(got, want, 4, LIMIT);
}
END_TEST

/* PEFT puts the strength into V: at strength 0 what is left is g W / |W|. */
START_TEST(dora_as_peft_has_it)
{
    static const float g[] = { 6, 5, 6 };
    sample             s = { .count = 0 };
    float              got[12] = { 0 };

    lora(&s);
    give(&s, WF_TENSOR_MAGNITUDE, g, 3, 0, 0, 0);
    s.m.peft = s.m.peft_magnitude = true;
    settle(&s);
    ck_assert_int_eq(wf_module_add(&s.m, &s.l, 1, 0, 1, got, heap(), &err), WEFT_OK);
    near(got, (const double[]){ 1, 2, 2, 0, 0, 0, 0, 0, 2, -1, 0, 2 }, 12, LIMIT); /* |W| is 3, 5, 3 */
}
END_TEST

/* A magnitude fits rows or columns by its shape; a square layer's (1, n) is columns, but rows where PEFT writes it. */
START_TEST(magnitudes_find_their_axis)
{
    static const float g[] = { 3, 4 }, square[] = { 3, 0, 4, 0 }, a[] = { 0, 0 }, b[] = { 0, 0 };
    sample             s = { .count = 0 };
    float              got[4];

    give(&s, WF_TENSOR_DOWN, a, 1, 2, 0, 0);
    give(&s, WF_TENSOR_UP, b, 2, 1, 0, 0);
    give(&s, WF_TENSOR_MAGNITUDE, g, 1, 2, 0, 0);
    lay(&s, square, 2, 2, 1);
    settle(&s);
    difference(&s, 1, got); /* columns: norms 5 and 0 */
    near(got, (const double[]){ -1.2, 0, -1.6, 0 }, 4, LIMIT);
    s.m.peft = s.m.peft_magnitude = true;
    difference(&s, 1, got); /* rows: norms 3 and 4 */
    near(got, (const double[]){ 0, 0, 0, 0 }, 4, LIMIT);
    s.l.out = 3;
    ck_assert(!wf_dora_fits(&s.m, &s.l));
}
END_TEST

/* ---- (IA)^3 ---------------------------------------------------------------------------------- */

START_TEST(ia3_of_lycoris_is_an_offset)
{
    static const float  rows[] = { 0.1f, -0.1f, 1 }, columns[] = { 0.1f, -0.1f, 1, -0.5f }, yes[] = { 1 }, no[] = { 0 };
    static const double of_rows[] = { 1.1, 2.2, 2.2, 0, 0, 2.7, 3.6, 0, 4, -2, 0, 4 }, of_columns[] = { 1.1, 1.8, 4, 0 };
    double              want[12];
    sample              one = { .count = 0 }, two = { .count = 0 };
    float               got[12];

    give(&one, WF_TENSOR_IA3_WEIGHT, rows, 3, 0, 0, 0);
    give(&one, WF_TENSOR_ON_INPUT, no, 1, 0, 0, 0);
    lay(&one, W, 3, 4, 1);
    settle(&one);
    difference(&one, 1, got);
    for (int i = 0; i < 12; i++) want[i] = of_rows[i] - (double)W[i];
    near(got, want, 12, LIMIT);

    give(&two, WF_TENSOR_IA3_WEIGHT, columns, 4, 0, 0, 0);
    give(&two, WF_TENSOR_ON_INPUT, yes, 1, 0, 0, 0);
    lay(&two, W, 3, 4, 1);
    settle(&two);
    difference(&two, 1, got);
    for (int i = 0; i < 4; i++) want[i] = of_columns[i] - (double)W[i];
    near(got, want, 4, LIMIT);
    ck_assert(wf_module_fits(&two.m, &two.l));
    two.l.in = 3;
    ck_assert(!wf_module_fits(&two.m, &two.l));
}
END_TEST

START_TEST(ia3_of_peft_is_the_factor_and_scales_the_bias)
{
    static const float  rows[] = { 1.1f, 0.9f, 2 }, columns[] = { 1.1f, 0.9f, 2, 0.5f }, bias[] = { 1, 2, 3 };
    static const double of_rows[] = { 1.1, 2.2, 2.2, 0, 0, 2.7, 3.6, 0, 4, -2, 0, 4 }, of_columns[] = { 1.1, 1.8, 4, 0 };
    double              want[12];
    sample              one = { .count = 0 }, two = { .count = 0 };
    float               got[12], got_b[3] = { 0 };
    bool                any;

    give(&one, WF_TENSOR_IA3_L, rows, 3, 1, 0, 0);
    lay(&one, W, 3, 4, 1);
    one.l.bias = bias;
    settle(&one);
    difference(&one, 1, got);
    for (int i = 0; i < 12; i++) want[i] = of_rows[i] - (double)W[i];
    near(got, want, 12, LIMIT);
    ck_assert_int_eq(wf_module_add_bias(&one.m, &one.l, 1, 1, got_b, &any, &err), WEFT_OK);
    ck_assert(any);
    near(got_b, (const double[]){ 0.1, -0.2, 3 }, 3, LIMIT);

    give(&two, WF_TENSOR_IA3_L, columns, 1, 4, 0, 0);
    lay(&two, W, 3, 4, 1);
    two.l.bias = bias;
    settle(&two);
    difference(&two, 1, got);
    for (int i = 0; i < 4; i++) want[i] = of_columns[i] - (double)W[i];
    near(got, want, 4, LIMIT);
    ck_assert_int_eq(wf_module_add_bias(&two.m, &two.l, 1, 1, got_b, &any, &err), WEFT_OK);
    ck_assert(!any);
}
END_TEST

/* The shape of one number for a layer of one input and one output does not tell which of the two it
 * multiplies; the configuration does. */
START_TEST(ia3_of_peft_asks_the_configuration_where_shapes_are_silent)
{
    static const float factor[] = { 3 }, weight[] = { 2 }, bias[] = { 5 };

    for (int input = 0; input < 2; input++) {
        sample s = { .count = 0 };
        float  got, got_b = 0;
        bool   any;

        give(&s, WF_TENSOR_IA3_L, factor, 1, 1, 0, 0);
        s.extra.ia3.on_input = input != 0;
        lay(&s, weight, 1, 1, 1);
        s.l.bias = bias;
        settle(&s);
        difference(&s, 1, &got);
        ck_assert_float_eq(got, 4); /* (3 - 1) 2 on either side */
        ck_assert_int_eq(wf_module_add_bias(&s.m, &s.l, 1, 1, &got_b, &any, &err), WEFT_OK);
        ck_assert_int_eq(any, !input); /* an output's factor takes its bias along: (3 - 1) 5 */
        ck_assert_float_eq(got_b, input ? 0 : 10);
    }
}
END_TEST

/* ---- rotations ------------------------------------------------------------------------------- */

static const float SIX[] = { 1, 2, 3, 4, 5, 6 };

START_TEST(oft_turns_rows)
{
    static const float  S[] = { 0, 0.2f, 0, 0 }; /* Q = [[0, .2], [-.2, 0]] */
    static const double turned[] = { -0.615385, -0.076923, 0.461538, 4.076923, 5.384615, 6.692308 };
    double              want[6];
    sample              s = { .count = 0 };
    float               got[6];

    give(&s, WF_TENSOR_OFT_BLOCKS, S, 1, 2, 2, 0);
    lay(&s, SIX, 2, 3, 1);
    give_alpha(&s, 0);
    settle(&s);
    ck_assert_str_eq(s.m.family->name, "oft");
    difference(&s, 1, got);
    for (int i = 0; i < 6; i++) want[i] = turned[i] - (double)SIX[i];
    near(got, want, 6, LIMIT);
}
END_TEST

/* |Q| = .2 sqrt 2 = .2828 and alpha * out = .1414: half of Q is left, R of [[0, .1], [-.1, 0]], cos = .99 / 1.01. */
START_TEST(oft_is_held_by_its_constraint)
{
    static const float S[] = { 0, 0.2f, 0, 0 }, I[] = { 1, 0, 0, 1 };
    const double       cos = 0.99 / 1.01, sin = 0.2 / 1.01;
    sample             s = { .count = 0 };
    float              got[4];

    give(&s, WF_TENSOR_OFT_BLOCKS, S, 1, 2, 2, 0);
    lay(&s, I, 2, 2, 1);
    give_alpha(&s, 0.0707106781f);
    settle(&s);
    difference(&s, 1, got);
    near(got, (const double[]){ cos - 1, -sin, sin, cos - 1 }, 4, LIMIT);
}
END_TEST

START_TEST(oft_rescales_what_it_turned)
{
    static const float  S[] = { 0, 0.2f, 0, 0 }, r[] = { 2, -1 };
    static const double turned[] = { -0.615385, -0.076923, 0.461538, 4.076923, 5.384615, 6.692308 };
    double              want[6];
    sample              s = { .count = 0 };
    float               got[6];

    give(&s, WF_TENSOR_OFT_BLOCKS, S, 1, 2, 2, 0);
    give(&s, WF_TENSOR_RESCALE, r, 2, 1, 0, 0);
    lay(&s, SIX, 2, 3, 1);
    settle(&s);
    difference(&s, 1, got);
    for (int i = 0; i < 6; i++) want[i] = (double)r[i / 3] * turned[i] - (double)SIX[i];
    near(got, want, 6, 2e-6);
}
END_TEST

/* PEFT turns columns: W = I shows R^T. Its exact way has the opposite sign of its series. */
START_TEST(oft_of_peft_turns_columns)
{
    static const float q[] = { 0.2f }, I[] = { 1, 0, 0, 1 };
    const double       c = 0.923077, s = 0.384615;
    sample             m = { .count = 0 };
    float              got[4];

    give(&m, WF_TENSOR_OFT_R, q, 1, 1, 0, 0);
    lay(&m, I, 2, 2, 1);
    m.extra.oft.terms = 5;
    settle(&m);
    difference(&m, 1, got);
    near(got, (const double[]){ -0.0784, -0.384, 0.384, -0.0784 }, 4, LIMIT);
    m.extra.oft.terms = 0;
    difference(&m, 1, got);
    near(got, (const double[]){ c - 1, s, -s, c - 1 }, 4, LIMIT);
}
END_TEST

/* R^T R = I in all four: the rows' or columns' norms are W's, blocks mixed in every way. */
START_TEST(rotations_keep_the_norm)
{
    enum { n = 16, in = 16 };
    static float w[n * in], blocks[4 * 4 * 4 * 4], packed[4 * 6], ones[n];
    float        got[n * in];
    uint32_t     seed = 7;

    for (size_t i = 0; i < n * in; i++) w[i] = (float)((seed = seed * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1;
    for (size_t i = 0; i < 256; i++) blocks[i] = (float)((seed = seed * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1;
    for (size_t i = 0; i < 24; i++) packed[i] = blocks[i];
    for (size_t i = 0; i < n; i++) ones[i] = 1;
    for (int kind = 0; kind < 4; kind++) {
        sample s = { .count = 0 };
        double before = 0, after = 0;
        if (kind == 0) give(&s, WF_TENSOR_OFT_BLOCKS, blocks, 4, 4, 4, 0);
        if (kind == 1) give(&s, WF_TENSOR_OFT_BLOCKS, blocks, 3, 4, 4, 4);
        if (kind == 2) give(&s, WF_TENSOR_OFT_R, packed, 4, 6, 0, 0);
        if (kind == 3) give(&s, WF_TENSOR_BOFT_R, blocks, 3, 4, 4, 4);
        if (kind == 3) give(&s, WF_TENSOR_BOFT_S, ones, n, 1, 0, 0);
        lay(&s, w, n, in, 1);
        settle(&s);
        ck_assert(wf_module_fits(&s.m, &s.l));
        difference(&s, 1, got);
        for (size_t i = 0; i < n * in; i++) {
            before += (double)w[i] * w[i];
            after += ((double)w[i] + got[i]) * ((double)w[i] + got[i]);
        }
        ck_assert_double_eq_tol(after / before, 1, 1e-6);
        ck_assert_msg(fabs((double)got[0]) + fabs((double)got[17]) > 0.01, "%d: nothing was turned", kind);
        difference(&s, 0, got);
        near(got, (const double[n * in]){ 0 }, n * in, 0);
    }
}
END_TEST

/* A block wider than is inverted row by row: W = I shows R^T, and R^T R = I to the last digits of a float. */
START_TEST(wide_blocks_are_rotations)
{
    enum { n = 203 };
    static float S[n * n], I[n * n], got[n * n];
    uint32_t     seed = 11;
    sample       s = { .count = 0 };

    for (size_t i = 0; i < n * n; i++) S[i] = (float)((seed = seed * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1;
    for (size_t i = 0; i < n; i++) I[i * n + i] = 1;
    give(&s, WF_TENSOR_OFT_BLOCKS, S, 1, n, n, 0);
    lay(&s, I, n, n, 1);
    settle(&s);
    difference(&s, 1, got);
    for (size_t i = 0; i < n * n; i++) got[i] += I[i];
    for (size_t a = 0; a < n; a += 7)
        for (size_t b = 0; b < n; b++) {
            double sum = 0;
            for (size_t i = 0; i < n; i++) sum += (double)got[a * n + i] * got[b * n + i];
            ck_assert_double_eq_tol(sum, a == b ? 1 : 0, 1e-6);
        }
}
END_TEST

/* ---- GLoRA, full, norm ----------------------------------------------------------------------- */

/* a1 = [1 0 1 0]^T, a2 = [1 -1 0 2]: W a1 = [3 4 2], times a2; b1 b2 = [1 2 3]^T [0 1 0 0]; alpha / r = 1/2. */
static const float  GA1[] = { 1, 0, 1, 0 }, GA2[] = { 1, -1, 0, 2 }, GB1[] = { 1, 2, 3 }, GB2[] = { 0, 1, 0, 0 };
static const double GLORA[] = { 1.5, -1, 0, 3, 2, -1, 0, 4, 1, 0.5, 0, 2 };

/* A rank above the channels of a square convolution: the kernel tells which factor is the inner one. */
START_TEST(glora_of_a_high_rank_is_told_by_its_kernel)
{
    static const float zeros[3 * 2 * 9];
    sample             newer = { .count = 0 }, older = { .count = 0 };

    give(&newer, WF_TENSOR_GLORA_A1, zeros, 2, 3, 1, 1);
    give(&newer, WF_TENSOR_GLORA_A2, zeros, 3, 2, 1, 1);
    give(&newer, WF_TENSOR_GLORA_B1, zeros, 2, 3, 1, 1);
    give(&newer, WF_TENSOR_GLORA_B2, zeros, 3, 2, 3, 3);
    give(&older, WF_TENSOR_GLORA_A1, zeros, 3, 2, 1, 1);
    give(&older, WF_TENSOR_GLORA_A2, zeros, 2, 3, 1, 1);
    give(&older, WF_TENSOR_GLORA_B1, zeros, 3, 2, 3, 3);
    give(&older, WF_TENSOR_GLORA_B2, zeros, 2, 3, 1, 1);
    for (int i = 0; i < 2; i++) {
        sample *s = i == 0 ? &newer : &older;
        settle(s);
        ck_assert_int_eq(s->m.rank, 3);
        ck_assert_int_eq(s->m.out, 2);
        ck_assert_int_eq(s->m.kernel, 3);
        ck_assert((wf_family_glora.written_as(&s->m, WF_TENSOR_GLORA_A1) == WF_TENSOR_GLORA_A2) == (i == 1));
    }
}
END_TEST

START_TEST(glora_in_both_orders_of_its_factors)
{
    sample newer = { .count = 0 }, older = { .count = 0 };
    float  got[12];

    give(&newer, WF_TENSOR_GLORA_A1, GA1, 4, 1, 0, 0);
    give(&newer, WF_TENSOR_GLORA_A2, GA2, 1, 4, 0, 0);
    give(&newer, WF_TENSOR_GLORA_B1, GB1, 3, 1, 0, 0);
    give(&newer, WF_TENSOR_GLORA_B2, GB2, 1, 4, 0, 0);
    give_alpha(&newer, 0.5f);
    lay(&newer, W, 3, 4, 1);
    settle(&newer);
    difference(&newer, 1, got);
    near(got, GLORA, 12, LIMIT);

    give(&older, WF_TENSOR_GLORA_A2, GA1, 4, 1, 0, 0);
    give(&older, WF_TENSOR_GLORA_A1, GA2, 1, 4, 0, 0);
    give(&older, WF_TENSOR_GLORA_B2, GB1, 3, 1, 0, 0);
    give(&older, WF_TENSOR_GLORA_B1, GB2, 1, 4, 0, 0);
    give_alpha(&older, 0.5f);
    lay(&older, W, 3, 4, 1);
    settle(&older);
    difference(&older, 1, got);
    near(got, GLORA, 12, LIMIT);
}
END_TEST

START_TEST(full_adds_replaces_and_expands)
{
    static const float bias[] = { 1, 1, 1 }, other[] = { 2, 0, -1 };
    double             want[12];
    float              got[12], got_b[3] = { 0 };
    bool               any;
    sample             diff = { .count = 0 }, replace = { .count = 0 }, uv = { .count = 0 };

    give(&diff, WF_TENSOR_DIFF, D1, 3, 4, 0, 0);
    lay(&diff, W, 3, 4, 1);
    settle(&diff);
    difference(&diff, 0.5, got);
    for (int i = 0; i < 12; i++) want[i] = 0.5 * (double)D1[i];
    near(got, want, 12, LIMIT);

    give(&replace, WF_TENSOR_REPLACE, D1, 3, 4, 0, 0);
    give(&replace, WF_TENSOR_REPLACE_B, other, 3, 0, 0, 0);
    lay(&replace, W, 3, 4, 1);
    replace.l.bias = bias;
    settle(&replace);
    difference(&replace, 0.5, got); /* W + m (R - W) */
    for (int i = 0; i < 12; i++) want[i] = 0.5 * ((double)D1[i] - (double)W[i]);
    near(got, want, 12, LIMIT);
    ck_assert_int_eq(wf_module_add_bias(&replace.m, &replace.l, 1, 0.5, got_b, &any, &err), WEFT_OK);
    ck_assert(any);
    near(got_b, (const double[]){ 0.5, -0.5, -1 }, 3, LIMIT);

    give(&uv, WF_TENSOR_DELTA_U, B1, 3, 2, 0, 0);
    give(&uv, WF_TENSOR_DELTA_V, A1, 2, 4, 0, 0);
    lay(&uv, W, 3, 4, 1);
    settle(&uv);
    ck_assert_int_eq(wf_module_form(&uv.m, &uv.l), WF_FORM_PAIR);
    difference(&uv, 1, got);
    for (int i = 0; i < 12; i++) want[i] = (double)D1[i];
    near(got, want, 12, LIMIT);
}
END_TEST

START_TEST(norm_adds_to_weight_and_bias)
{
    static const float w[] = { 1, -1, 2 }, b[] = { 3, 0, 0.5f };
    sample             s = { .count = 0 };
    float              got[3], got_b[3] = { 0 };
    bool               any;

    give(&s, WF_TENSOR_W_NORM, w, 3, 0, 0, 0);
    give(&s, WF_TENSOR_B_NORM, b, 3, 0, 0, 0);
    lay(&s, w, 3, 1, 1);
    s.l.kind = WEFT_LAYER_NORM;
    settle(&s);
    ck_assert_int_eq(wf_module_form(&s.m, &s.l), WF_FORM_NORM);
    ck_assert(wf_module_fits(&s.m, &s.l));
    difference(&s, 2, got);
    near(got, (const double[]){ 2, -2, 4 }, 3, LIMIT);
    ck_assert_int_eq(wf_module_add_bias(&s.m, &s.l, 1, 2, got_b, &any, &err), WEFT_OK);
    ck_assert(any);
    near(got_b, (const double[]){ 6, 0, 1 }, 3, LIMIT);
    s.l.kind = WEFT_LAYER_LINEAR;
    ck_assert(!wf_module_fits(&s.m, &s.l));
}
END_TEST

/* A difference of the bias belongs to any family, also to none. */
START_TEST(difference_of_the_bias_stands_alone)
{
    static const float b[] = { 1, -2, 4 };
    sample             s = { .count = 0 };
    float              got[12], got_b[3] = { 0 };
    bool               any;

    give(&s, WF_TENSOR_DIFF_B, b, 3, 0, 0, 0);
    lay(&s, W, 3, 4, 1);
    settle(&s);
    ck_assert_str_eq(s.m.family->name, "full");
    ck_assert(wf_module_fits(&s.m, &s.l));
    difference(&s, 1, got);
    near(got, (const double[12]){ 0 }, 12, 0);
    ck_assert_int_eq(wf_module_add_bias(&s.m, &s.l, 1, -1, got_b, &any, &err), WEFT_OK);
    near(got_b, (const double[]){ -1, 2, -4 }, 3, LIMIT);
}
END_TEST

/* ---- the fast ways --------------------------------------------------------------------------- */

/* scale * up^T down, or W1 (x) W2, against the sum that the family forms itself. */
static void check_fast(const sample *s)
{
    size_t out = (size_t)s->l.out, K = floats_of(s) / out;
    float *sum = malloc(out * K * sizeof *sum), *fast = calloc(out * K, sizeof *fast);
    int32_t form = wf_module_form(&s->m, &s->l);

    add_module(s, 1, sum);
    if (form == WF_FORM_PAIR) {
        size_t r = (size_t)wf_module_pair_rank(&s->m);
        float *down = malloc(r * K * sizeof *down), *up = malloc(r * out * sizeof *up);
        ck_assert_int_eq(wf_module_pair(&s->m, &s->l, down, up, heap(), &err), WEFT_OK);
        for (size_t o = 0; o < out; o++)
            for (size_t p = 0; p < r; p++)
                for (size_t i = 0; i < K; i++) fast[o * K + i] += s->m.scale * up[p * out + o] * down[p * K + i];
        free(down);
        free(up);
    } else {
        int32_t z[4];
        size_t  kk = (size_t)s->l.kernel * (size_t)s->l.kernel;
        ck_assert_int_eq(form, WF_FORM_KRON);
        s->m.family->kron_size(&s->m, &s->l, z);
        ck_assert_int_eq(z[0] * z[2], s->l.out);
        ck_assert_int_eq(z[1] * z[3], s->l.in);
        size_t o2 = (size_t)z[2], i1 = (size_t)z[1], i2 = (size_t)z[3], in = i1 * i2;
        float *w1 = malloc((size_t)z[0] * i1 * sizeof *w1), *w2 = malloc(o2 * i2 * kk * sizeof *w2);
        ck_assert_int_eq(wf_module_kron(&s->m, &s->l, w1, w2, heap(), &err), WEFT_OK);
        for (size_t o = 0; o < out; o++)
            for (size_t k = 0; k < kk; k++)
                for (size_t i = 0; i < in; i++)
                    fast[o * K + k * in + i] =
                        s->m.scale * w1[o / o2 * i1 + i / i2] * w2[(o % o2 * kk + k) * i2 + i % i2];
        free(w1);
        free(w2);
    }
    for (size_t i = 0; i < out * K; i++) ck_assert_float_eq_tol(fast[i], sum[i], 1e-5f);
    free(sum);
    free(fast);
}

static float *noise(size_t n, uint32_t seed)
{
    float *v = malloc(n * sizeof *v);

    for (size_t i = 0; i < n; i++) v[i] = (float)((seed = seed * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1;
    return v;
}

START_TEST(factors_are_the_sum_again)
{
    float *v[5];
    for (uint32_t i = 0; i < 5; i++) v[i] = noise(70 * 40 * 9, i + 1);

    sample lora_conv = { .count = 0 };
    give(&lora_conv, WF_TENSOR_DOWN, v[0], 5, 6, 3, 3);
    give(&lora_conv, WF_TENSOR_UP, v[1], 70, 5, 1, 1);
    give(&lora_conv, WF_TENSOR_MIXER, v[2], 5, 5, 0, 0);
    lay(&lora_conv, NULL, 70, 6, 3);
    settle(&lora_conv);
    check_fast(&lora_conv);

    sample tucker = { .count = 0 };
    give(&tucker, WF_TENSOR_DOWN, v[0], 5, 6, 1, 1);
    give(&tucker, WF_TENSOR_UP, v[1], 70, 5, 1, 1);
    give(&tucker, WF_TENSOR_MID, v[2], 5, 5, 3, 3);
    lay(&tucker, NULL, 70, 6, 3);
    settle(&tucker);
    check_fast(&tucker);

    sample flat = { .count = 0 }; /* AdaLoRA's factors of a convolution have two dimensions */
    give(&flat, WF_TENSOR_DOWN, v[0], 5, 54, 0, 0);
    give(&flat, WF_TENSOR_UP, v[1], 70, 5, 0, 0);
    give(&flat, WF_TENSOR_LORA_E, v[2], 5, 1, 0, 0);
    lay(&flat, NULL, 70, 6, 3);
    settle(&flat);
    ck_assert(wf_module_fits(&flat.m, &flat.l));
    check_fast(&flat);

    sample loha = { .count = 0 };
    give(&loha, WF_TENSOR_HADA_W1A, v[0], 70, 3, 0, 0);
    give(&loha, WF_TENSOR_HADA_W1B, v[1], 3, 6 * 9, 0, 0);
    give(&loha, WF_TENSOR_HADA_W2A, v[2], 70, 3, 0, 0);
    give(&loha, WF_TENSOR_HADA_W2B, v[3], 3, 6 * 9, 0, 0);
    lay(&loha, NULL, 70, 6, 3);
    settle(&loha);
    ck_assert(wf_module_fits(&loha.m, &loha.l));
    check_fast(&loha);

    sample kron = { .count = 0 };
    give(&kron, WF_TENSOR_LOKR_W1A, v[0], 7, 2, 0, 0);
    give(&kron, WF_TENSOR_LOKR_W1B, v[1], 2, 3, 0, 0);
    give(&kron, WF_TENSOR_LOKR_W2A, v[2], 10, 2, 0, 0);
    give(&kron, WF_TENSOR_LOKR_W2B, v[3], 2, 2 * 9, 0, 0);
    lay(&kron, NULL, 70, 6, 3);
    settle(&kron);
    ck_assert(wf_module_fits(&kron.m, &kron.l));
    check_fast(&kron);

    sample glora = { .count = 0 };
    give(&glora, WF_TENSOR_GLORA_A1, v[0], 40, 4, 0, 0);
    give(&glora, WF_TENSOR_GLORA_A2, v[1], 4, 40, 0, 0);
    give(&glora, WF_TENSOR_GLORA_B1, v[2], 70, 4, 0, 0);
    give(&glora, WF_TENSOR_GLORA_B2, v[3], 4, 40, 0, 0);
    give_alpha(&glora, 1);
    lay(&glora, v[4], 70, 40, 1);
    settle(&glora);
    ck_assert_int_eq(wf_module_pair_rank(&glora.m), 8);
    for (size_t i = 0; i < 160; i++) v[0][i] *= 0.05f; /* W A1 of 40 terms */
    check_fast(&glora);
    for (uint32_t i = 0; i < 5; i++) free(v[i]);
}
END_TEST

/* ---- refusals -------------------------------------------------------------------------------- */

/* Parts, each with its shape; what the line must say. */
static const struct refusal {
    struct { int32_t part; int64_t shape[4]; } parts[5];
    const char *says;
} refusals[] = {
    { { { WF_TENSOR_DOWN, { 2, 4 } }, { WF_TENSOR_UP, { 3, 3 } } }, "ranks 3 and 2 differ" },
    { { { WF_TENSOR_DOWN, { 2, 4, 3 } }, { WF_TENSOR_UP, { 3, 2 } } }, "lora_down is (2, 4, 3), wanted (r, in) or (r, in, k, k)" },
    { { { WF_TENSOR_DOWN, { 2, 4, 3, 1 } }, { WF_TENSOR_UP, { 3, 2 } } }, "wanted a square kernel" },
    { { { WF_TENSOR_DOWN, { 2, 4 } }, { WF_TENSOR_UP, { 3, 2, 3, 3 } } }, "lora_up is (3, 2, 3, 3), wanted (out, r, 1, 1)" },
    { { { WF_TENSOR_DOWN, { 2, 4 } }, { WF_TENSOR_UP, { 3, 2 } }, { WF_TENSOR_MIXER, { 3, 2 } } }, "lora_AB is (3, 2), wanted (r, r)" },
    { { { WF_TENSOR_DOWN, { 2, 4 } }, { WF_TENSOR_UP, { 3, 2 } }, { WF_TENSOR_LORA_E, { 3, 1 } } }, "lora_E is (3, 1), wanted (r, 1)" },
    { { { WF_TENSOR_DOWN, { 2, 4 } }, { WF_TENSOR_UP, { 3, 2 } }, { WF_TENSOR_MID, { 2, 3, 3, 3 } } }, "lora_mid is (2, 3, 3, 3)" },
    { { { WF_TENSOR_DOWN, { 2, 4, 3, 3 } }, { WF_TENSOR_UP, { 3, 2 } }, { WF_TENSOR_MID, { 2, 2, 3, 3 } } },
      "lora_down is (2, 4, 3, 3), wanted (r, in, 1, 1) beside lora_mid" },
    { { { WF_TENSOR_DOWN, { 2, 4 } }, { WF_TENSOR_UP, { 3, 2 } }, { WF_TENSOR_MIXER, { 2, 2 } }, { WF_TENSOR_LORA_E, { 2, 1 } } },
      "a module has one, not several" },
    { { { WF_TENSOR_DOWN, { 2, 4 } }, { WF_TENSOR_UP, { 3, 2 } }, { WF_TENSOR_UP_BIAS, { 2 } } }, "lora_up.bias is (2,), wanted (out)" },
    { { { WF_TENSOR_HADA_W1A, { 4, 2 } }, { WF_TENSOR_HADA_W1B, { 2, 5 } }, { WF_TENSOR_HADA_W2A, { 4, 2 } },
        { WF_TENSOR_HADA_W2B, { 2, 6 } } }, "one is (4, 5) of rank 2 and kernel 1, the other (4, 6) of rank 2" },
    { { { WF_TENSOR_HADA_W1A, { 4, 2 } }, { WF_TENSOR_HADA_W1B, { 3, 5 } }, { WF_TENSOR_HADA_W2A, { 4, 2 } },
        { WF_TENSOR_HADA_W2B, { 2, 5 } } }, "hada_w1_b is (3, 5), wanted (r, in * k * k) with the rank of its partner" },
    { { { WF_TENSOR_HADA_W1A, { 2, 4 } }, { WF_TENSOR_HADA_W1B, { 2, 5 } }, { WF_TENSOR_HADA_W2A, { 2, 4 } },
        { WF_TENSOR_HADA_W2B, { 2, 5 } }, { WF_TENSOR_HADA_T1, { 2, 2, 3, 3 } } }, "hada_t2 is missing" },
    { { { WF_TENSOR_LOKR_W1, { 2, 3 } } }, "lokr_w2 is missing: neither whole nor both of lokr_w2_a and lokr_w2_b" },
    { { { WF_TENSOR_LOKR_W1, { 2, 3 } }, { WF_TENSOR_LOKR_W2A, { 4, 2 } } }, "lokr_w2 is missing" },
    { { { WF_TENSOR_LOKR_W1, { 2, 3 } }, { WF_TENSOR_LOKR_W1A, { 2, 3 } }, { WF_TENSOR_LOKR_W2, { 2, 3 } } },
      "lokr_w1 stands there whole and as a product" },
    { { { WF_TENSOR_LOKR_W1, { 2, 3 } }, { WF_TENSOR_LOKR_W2A, { 4, 2 } }, { WF_TENSOR_LOKR_W2B, { 3, 2 } } },
      "lokr_w2_b is (3, 2)" },
    { { { WF_TENSOR_LOKR_W1, { 2, 3 } }, { WF_TENSOR_LOKR_W2, { 4, 2 } }, { WF_TENSOR_LOKR_T2, { 2, 2, 3, 3 } } },
      "lokr_t2 beside a whole lokr_w2" },
    { { { WF_TENSOR_OFT_BLOCKS, { 4, 2 } } }, "oft_blocks is (4, 2), wanted (blocks, b, b)" },
    { { { WF_TENSOR_OFT_BLOCKS, { 4, 2, 3 } } }, "oft_blocks is (4, 2, 3), wanted (blocks, b, b)" },
    { { { WF_TENSOR_OFT_BLOCKS, { 4, 2, 2 } }, { WF_TENSOR_RESCALE, { 7, 1 } } }, "rescale is (7, 1)" },
    { { { WF_TENSOR_OFT_BLOCKS, { 3, 2, 4, 4 } } }, "wanted no more stages than the blocks can be paired" },
    { { { WF_TENSOR_OFT_BLOCKS, { 1, 2, 3, 3 } } }, "wanted blocks of an even size" },
    { { { WF_TENSOR_OFT_R, { 4, 5 } } }, "oft_R is (4, 5), wanted (blocks, b (b - 1) / 2)" },
    { { { WF_TENSOR_BOFT_R, { 1, 2, 3, 4 } }, { WF_TENSOR_BOFT_S, { 5, 1 } } }, "boft_R is (1, 2, 3, 4)" },
    { { { WF_TENSOR_BOFT_R, { 1, 2, 4, 4 } }, { WF_TENSOR_BOFT_S, { 5, 2 } } }, "boft_s is (5, 2), wanted (out, 1) or (1, out)" },
    { { { WF_TENSOR_IA3_WEIGHT, { 2, 3 } }, { WF_TENSOR_ON_INPUT, { 1 } } }, "weight is (2, 3), wanted (n) or (1, n, 1, 1)" },
    { { { WF_TENSOR_IA3_L, { 2, 3 } } }, "ia3_l is (2, 3), wanted (out, 1), (1, in) or (1, n, 1, 1)" },
    { { { WF_TENSOR_GLORA_A1, { 4, 2 } }, { WF_TENSOR_GLORA_A2, { 2, 4 } }, { WF_TENSOR_GLORA_B1, { 3, 2 } },
        { WF_TENSOR_GLORA_B2, { 2, 5 } } }, "a1 is (4, 2), wanted (in, r) as b1 and b2 have them" },
    { { { WF_TENSOR_DELTA_U, { 4, 2 } } }, "u and v come together, v is missing" },
    { { { WF_TENSOR_DELTA_U, { 4, 2 } }, { WF_TENSOR_DELTA_V, { 3, 4 } } }, "v is (3, 4), wanted (n, in) with the n of u" },
    { { { WF_TENSOR_DIFF, { 4, 2 } }, { WF_TENSOR_REPLACE, { 4, 2 } } }, "a difference and a replacement of one weight" },
    { { { WF_TENSOR_DIFF, { 4, 2, 3 } } }, "diff is (4, 2, 3)" },
    { { { WF_TENSOR_W_NORM, { 4 } }, { WF_TENSOR_B_NORM, { 5 } } }, "b_norm is (5,), wanted (channels), as many as w_norm has" },
    { { { WF_TENSOR_W_NORM, { 4, 1 } } }, "w_norm is (4, 1), wanted (channels)" },
    { { { WF_TENSOR_DIFF, { 4, 0 } } }, NULL }, /* one dimension: a normalisation, and fine */
};

START_TEST(shapes_that_disagree_are_refused)
{
    static const float    values[512] = { 1 };
    const struct refusal *r = &refusals[_i];
    sample                s = { .count = 0 };

    for (size_t i = 0; i < 5 && r->parts[i].part != 0; i++)
        give(&s, r->parts[i].part, values, r->parts[i].shape[0], r->parts[i].shape[1], r->parts[i].shape[2],
             r->parts[i].shape[3]);
    err.text[0] = '\0';
    weft_status st = try_settle(&s);
    if (r->says == NULL) {
        ck_assert_int_eq(st, WEFT_OK);
        return;
    }
    ck_assert_int_eq(st, WEFT_E_FORMAT);
    ck_assert_msg(strstr(err.text, r->says) != NULL, "\"%s\" does not say \"%s\"", err.text, r->says);
    ck_assert_msg(strncmp(err.text, "test: ", 6) == 0, "%s", err.text);
}
END_TEST

/* Products of dimensions that no int holds: the tensors themselves are small, and nothing is read of them. */
START_TEST(dimensions_that_overflow_are_refused)
{
    static const float v[4] = { 0 };
    sample             kron = { .count = 0 }, tucker = { .count = 0 }, oft = { .count = 0 };

    give(&kron, WF_TENSOR_LOKR_W1, v, INT32_MAX, 1, 0, 0);
    give(&kron, WF_TENSOR_LOKR_W2, v, INT32_MAX, 1, 0, 0);
    ck_assert_int_eq(try_settle(&kron), WEFT_E_FORMAT);
    give(&tucker, WF_TENSOR_DOWN, v, 1, INT32_MAX, 1, 1);
    give(&tucker, WF_TENSOR_UP, v, 1, 1, 1, 1);
    give(&tucker, WF_TENSOR_MID, v, 1, 1, INT32_MAX, INT32_MAX);
    ck_assert_int_eq(try_settle(&tucker), WEFT_E_FORMAT);
    give(&oft, WF_TENSOR_OFT_BLOCKS, v, INT32_MAX, 2, 2, 0);
    ck_assert_int_eq(try_settle(&oft), WEFT_E_FORMAT);
}
END_TEST

/* Whichever allocation fails, every family says so and leaks nothing. */
START_TEST(sums_without_memory_say_so)
{
    static const int32_t parts[][5] = {
        { WF_TENSOR_DOWN, WF_TENSOR_UP, WF_TENSOR_MID, 0 }, { WF_TENSOR_DOWN, WF_TENSOR_UP, WF_TENSOR_MIXER, 0 },
        { WF_TENSOR_DOWN, WF_TENSOR_UP, WF_TENSOR_MAGNITUDE, 0 },
        { WF_TENSOR_HADA_W1A, WF_TENSOR_HADA_W1B, WF_TENSOR_HADA_W2A, WF_TENSOR_HADA_W2B, 0 },
        { WF_TENSOR_LOKR_W1A, WF_TENSOR_LOKR_W1B, WF_TENSOR_LOKR_W2A, WF_TENSOR_LOKR_W2B, 0 },
        { WF_TENSOR_OFT_BLOCKS, 0 }, { WF_TENSOR_OFT_R, 0 }, { WF_TENSOR_BOFT_R, WF_TENSOR_BOFT_S, 0 },
        { WF_TENSOR_IA3_L, 0 }, { WF_TENSOR_GLORA_A1, WF_TENSOR_GLORA_A2, WF_TENSOR_GLORA_B1, WF_TENSOR_GLORA_B2, 0 },
        { WF_TENSOR_REPLACE, 0 }, { WF_TENSOR_DELTA_U, WF_TENSOR_DELTA_V, 0 }, { WF_TENSOR_RESCALE, WF_TENSOR_OFT_BLOCKS, 0 },
    };
    static const int64_t shapes[WF_TENSORS][4] = {
        [WF_TENSOR_DOWN] = { 2, 4 }, [WF_TENSOR_UP] = { 4, 2 }, [WF_TENSOR_MID] = { 2, 2, 1, 1 }, [WF_TENSOR_MIXER] = { 2, 2 },
        [WF_TENSOR_MAGNITUDE] = { 4 }, [WF_TENSOR_HADA_W1A] = { 4, 2 }, [WF_TENSOR_HADA_W1B] = { 2, 4 },
        [WF_TENSOR_HADA_W2A] = { 4, 2 }, [WF_TENSOR_HADA_W2B] = { 2, 4 }, [WF_TENSOR_LOKR_W1A] = { 2, 1 },
        [WF_TENSOR_LOKR_W1B] = { 1, 2 }, [WF_TENSOR_LOKR_W2A] = { 2, 1 }, [WF_TENSOR_LOKR_W2B] = { 1, 2 },
        [WF_TENSOR_OFT_BLOCKS] = { 2, 2, 2 }, [WF_TENSOR_OFT_R] = { 2, 1 }, [WF_TENSOR_BOFT_R] = { 2, 2, 2, 2 },
        [WF_TENSOR_BOFT_S] = { 4, 1 }, [WF_TENSOR_IA3_L] = { 4, 1 }, [WF_TENSOR_GLORA_A1] = { 4, 2 },
        [WF_TENSOR_GLORA_A2] = { 2, 4 }, [WF_TENSOR_GLORA_B1] = { 4, 2 }, [WF_TENSOR_GLORA_B2] = { 2, 4 },
        [WF_TENSOR_REPLACE] = { 4, 4 }, [WF_TENSOR_DELTA_U] = { 4, 2 }, [WF_TENSOR_DELTA_V] = { 2, 4 },
        [WF_TENSOR_RESCALE] = { 4, 1 },
    };
    static const float   values[64] = { 0.5f, 1 };
    sample               s = { .count = 0 };
    float                sum[16] = { 0 }, down[64], up[64];
    test_memory          memory;
    weft_allocator       alloc = test_allocator(&memory);
    weft_status          st = WEFT_E_NOMEM;

    for (int i = 0; i < 5 && parts[_i][i] != 0; i++) {
        const int64_t *z = shapes[parts[_i][i]];
        give(&s, parts[_i][i], values, z[0], z[1], z[2], z[3]);
    }
    lay(&s, values, 4, 4, 1);
    settle(&s);
    for (memory.fail_at = 1; st != WEFT_OK; memory.fail_at++) {
        memory.calls = 0;
        st = wf_module_add(&s.m, &s.l, 1, 1, 1, sum, &alloc, &err);
        ck_assert_msg(st == (memory.calls >= memory.fail_at ? WEFT_E_NOMEM : WEFT_OK), "%s", err.text);
        ck_assert_uint_eq(memory.live_blocks, 0);
    }
    st = wf_module_form(&s.m, &s.l) == WF_FORM_DENSE ? WEFT_OK : WEFT_E_NOMEM;
    for (memory.fail_at = 1; st != WEFT_OK; memory.fail_at++) { /* and the factors */
        memory.calls = 0;
        st = wf_module_form(&s.m, &s.l) == WF_FORM_PAIR ? wf_module_pair(&s.m, &s.l, down, up, &alloc, &err)
                                                        : wf_module_kron(&s.m, &s.l, down, up, &alloc, &err);
        ck_assert_msg(st == (memory.calls >= memory.fail_at ? WEFT_E_NOMEM : WEFT_OK), "%s", err.text);
        ck_assert_uint_eq(memory.live_blocks, 0);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("adapter: families");
    TCase *t = tcase_create("worked numbers");
    tcase_add_test(t, lora_is_scaled_by_alpha_over_rank);
    tcase_add_test(t, rank_stabilised_lora_is_scaled_by_the_root);
    tcase_add_test(t, convolution_by_a_small_kernel);
    tcase_add_test(t, tucker_core_is_folded);
    tcase_add_test(t, adalora_weighs_its_triplets);
    tcase_add_test(t, adalora_divides_by_the_rank_of_the_start);
    tcase_add_test(t, adalora_divides_by_the_stored_number_if_there_is_one);
    tcase_add_test(t, adalora_may_have_pruned_a_module_away);
    tcase_add_test(t, moslora_mixes);
    tcase_add_test(t, up_bias_is_scaled_like_the_product);
    tcase_add_test(t, loha_multiplies_element_by_element);
    tcase_add_test(t, lokr_is_the_kronecker_product);
    tcase_add_test(t, lokr_of_two_products_has_the_rank_of_the_first);
    tcase_add_test(t, score_of_a_whole_product_is_scaled_once);
    tcase_add_test(t, lokr_of_peft_keeps_its_scale);
    tcase_add_test(t, dora_by_rows);
    tcase_add_test(t, dora_divides_by_the_norm_of_the_sum);
    tcase_add_test(t, dora_by_columns);
    tcase_add_test(t, dora_as_peft_has_it);
    tcase_add_test(t, magnitudes_find_their_axis);
    tcase_add_test(t, ia3_of_lycoris_is_an_offset);
    tcase_add_test(t, ia3_of_peft_is_the_factor_and_scales_the_bias);
    tcase_add_test(t, ia3_of_peft_asks_the_configuration_where_shapes_are_silent);
    tcase_add_test(t, oft_turns_rows);
    tcase_add_test(t, oft_is_held_by_its_constraint);
    tcase_add_test(t, oft_rescales_what_it_turned);
    tcase_add_test(t, oft_of_peft_turns_columns);
    tcase_add_test(t, rotations_keep_the_norm);
    tcase_add_test(t, wide_blocks_are_rotations);
    tcase_add_test(t, glora_in_both_orders_of_its_factors);
    tcase_add_test(t, glora_of_a_high_rank_is_told_by_its_kernel);
    tcase_add_test(t, full_adds_replaces_and_expands);
    tcase_add_test(t, norm_adds_to_weight_and_bias);
    tcase_add_test(t, difference_of_the_bias_stands_alone);
    tcase_add_test(t, factors_are_the_sum_again);
    suite_add_tcase(s, t);
    t = tcase_create("refusals");
    tcase_add_loop_test(t, shapes_that_disagree_are_refused, 0, WF_LEN(refusals));
    tcase_add_test(t, dimensions_that_overflow_are_refused);
    tcase_add_loop_test(t, sums_without_memory_say_so, 0, 13);
    suite_add_tcase(s, t);
    return run_suite(s);
}
