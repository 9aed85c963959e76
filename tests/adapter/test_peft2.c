/* PEFT's methods that are matrices of blocks, or that begin at the base's own weight: C3A, MiSS, DeLoRA, GraLoRA, RandLoRA,
 * PiSSA, OLoRA. Worked numbers and refusals; and by name what PEFT has and this version has not. Against PEFT's own forward they
 * are held in run/test_families.c. */
#include "adapter/initial.h"
#include "made.h"

#define X(part) "base_model.model.mid_block.x." part
static const float ones[64] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 };

/* Module 0 adds this to a layer (out, in) of weight W, whole and by half; and its pair, if it is one, is the same. */
static void check_sum(weft_adapter *a, const float *W, int32_t out, int32_t in, const double *want)
{
    size_t n = (size_t)out * (size_t)in;
    float  got[64];
    double half[64];
    sample s = { .count = 0 };

    adds(a, 0, W, out, in, 1, 1, got);
    near(got, want, n, 2e-6);
    for (size_t i = 0; i < n; i++) half[i] = 0.5 * want[i];
    adds(a, 0, W, out, in, 1, 0.5, got);
    near(got, half, n, 2e-6);
    s.m = *wf_adapter_module(a, 0);
    lay(&s, W, out, in, 1);
    if (wf_module_form(&s.m, &s.l) != WF_FORM_PAIR) return;
    size_t r = (size_t)wf_module_pair_rank(&s.m);
    float *down = malloc(r * (size_t)in * sizeof *down), *up = malloc(r * (size_t)out * sizeof *up),
          *one = malloc(r * (size_t)WF_MAX(in, out) * sizeof *one);
    ck_assert_int_eq(wf_module_pair(&s.m, &s.l, down, up, heap(), &err), WEFT_OK);
    for (size_t o = 0; o < (size_t)out; o++)
        for (size_t i = 0; i < (size_t)in; i++) {
            double sum = 0;
            for (size_t p = 0; p < r; p++) sum += (double)up[p * (size_t)out + o] * down[p * (size_t)in + i];
            ck_assert_double_eq_tol((double)s.m.scale * sum, want[o * (size_t)in + i], 1e-5 * (1 + fabs(want[o * (size_t)in + i])));
        }
    ck_assert_int_eq(wf_module_pair(&s.m, &s.l, one, NULL, heap(), &err), WEFT_OK); /* either of them alone */
    ck_assert(memcmp(one, down, r * (size_t)in * sizeof *one) == 0);
    ck_assert_int_eq(wf_module_pair(&s.m, &s.l, NULL, one, heap(), &err), WEFT_OK);
    ck_assert(memcmp(one, up, r * (size_t)out * sizeof *one) == 0);
    free(down), free(up), free(one);
}

/* Open, check the sum, and free. */
static void check_file(const made *f, const char *config, const float *W, int32_t out, int32_t in, const double *want)
{
    weft_adapter *a = opened(f, config);
    check_sum(a, W, out, in, want);
    weft_adapter_free(a);
}

/* Does module 0 fit a layer of this size? */
static bool fits_layer(const weft_adapter *a, int32_t out, int32_t in, int32_t kernel)
{
    sample s = { .count = 0 };

    lay(&s, ones, out, in, kernel);
    return wf_module_fits(wf_adapter_module(a, 0), &s.l);
}

/* ---- C3A ------------------------------------------------------------------------------------- */

/* Each row is the one above, moved to the right; three inputs. */
START_TEST(c3a_is_blocks_of_circulants)
{
    static const float  kernel[] = { 1, 2, 4, 3, 6, 9 }, kernel_four[] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    static const double want[] = { 1. / 3, 2. / 3, 4. / 3, 4. / 3, 1. / 3, 2. / 3, 2. / 3, 4. / 3, 1. / 3,
                                   1, 2, 3, 3, 1, 2, 2, 3, 1 };
    made f = { .n = 0 }, wide = { .n = 0 };

    put(&f, X("c3a_kernel"), kernel, 2, 1, 3);
    check_file(&f, "{\"peft_type\":\"C3A\",\"block_size\":3}", NULL, 6, 3, want);
    put(&wide, X("c3a_kernel.default"), kernel, 1, 3, 2); /* [1 2 | 4 3 | 6 9] */
    weft_adapter *a = opened(&wide, NULL);
    check_sum(a, NULL, 2, 6, (const double[]){ 1. / 6, 2. / 6, 4. / 6, 3. / 6, 1, 9. / 6, 2. / 6, 1. / 6, 3. / 6, 4. / 6, 9. / 6, 1 });
    made four = { .n = 0 }; /* two by two blocks */
    put(&four, X("c3a_kernel"), kernel_four, 2, 2, 2);
    check_file(&four, NULL, NULL, 4, 4, (const double[]){ 0.25, 0.5, 0.75, 1, 0.5, 0.25, 1, 0.75, 1.25, 1.5, 1.75, 2, 1.5, 1.25, 2, 1.75 });
    ck_assert(!fits_layer(a, 6, 2, 1) && !fits_layer(a, 2, 6, 3));
    ck_assert_str_eq(info_of(a).family, "c3a");
    weft_adapter_free(a);
}
END_TEST

/* ---- MiSS ------------------------------------------------------------------------------------ */

START_TEST(miss_adds_one_block_along_the_inputs)
{
    static const float  block[] = { 1, 2, 3, 4, 5, 6 };
    static const double want[] = { 1, 4, 1, 4, 1, 2, 5, 2, 5, 2, 3, 6, 3, 6, 3 };
    static const char *const configs[] = { NULL, "{\"peft_type\":\"MISS\",\"r\":2,\"init_weights\":true,\"mini_r\":1}",
                                           "{\"peft_type\":\"BONE\",\"r\":2,\"init_weights\":true}" };
    made f = { .n = 0 };

    put(&f, _i == 2 ? X("bone_block") : X("miss_block"), block, 2, 3, -1);
    check_file(&f, configs[_i], NULL, 3, 5, want);
    weft_adapter *a = opened(&f, configs[_i]);
    ck_assert(!fits_layer(a, 6, 5, 1)); /* not a smaller one repeated, which only mini is */
    ck_assert(!fits_layer(a, 3, 1, 1)); /* fewer inputs than ranks */
    ck_assert(!wf_module_of_weight(wf_adapter_module(a, 0)));
    weft_adapter_free(a);
}
END_TEST

START_TEST(miss_mini_is_repeated_along_the_outputs)
{
    static const float  block[] = { 1, 2, 3, 4 };
    static const double want[] = { 1, 3, 1, 2, 4, 2, 1, 3, 1, 2, 4, 2 };
    static const char   mini[] = "{\"peft_type\":\"MISS\",\"r\":2,\"init_weights\":\"mini\",\"mini_r\":2}";
    made f = { .n = 0 };

    put(&f, X("miss_block"), block, 2, 2, -1);
    check_file(&f, mini, NULL, 4, 3, want);
    weft_adapter *a = opened(&f, mini);
    ck_assert(!fits_layer(a, 3, 3, 1)); /* out is no multiple of 2 */
    weft_adapter_free(a);
}
END_TEST

/* B = [1 2; 3 4]: [1 2; 0 1] B + B = [8 12; 6 8], [0 1; 1 1] B + B = [4 6; 7 10]. */
START_TEST(miss_bat_turns_blocks_of_the_weight)
{
    static const float  block[] = { 1, 2, 3, 4 }, W[] = { 1, 2, 0, 1, 0, 1, 1, 1 };
    static const double want[] = { 8, 12, 4, 6, 6, 8, 7, 10 };
    made f = { .n = 0 };

    put(&f, X("miss_block"), block, 1, 2, 2);
    check_file(&f, NULL, W, 2, 4, want);
    check_file(&f, "{\"peft_type\":\"MISS\",\"init_weights\":\"bat\"}", W, 2, 4, want);
    static const float two[] = { 1, 2, 3, 4, 1, 0, 0, 1 }, tall[] = { 1, 2, 0, 1, 5, 6, 7, 8 };
    made g = { .n = 0 }; /* rows of two blocks: the second doubles and adds I */
    put(&g, X("miss_block"), two, 2, 2, 2);
    check_file(&g, NULL, tall, 4, 2, (const double[]){ 8, 12, 6, 8, 6, 6, 7, 9 });
    weft_adapter *a = opened(&f, NULL);
    ck_assert(wf_module_of_weight(wf_adapter_module(a, 0)));
    ck_assert(!fits_layer(a, 2, 3, 1));
    weft_adapter_free(a);
    refused(&f, "{\"peft_type\":\"MISS\",\"init_weights\":true}", WEFT_E_FORMAT,
            "miss_block is (1, 2, 2), wanted (r, out), as the configuration does not say bat");
    made flat = { .n = 0 };
    put(&flat, X("miss_block"), block, 2, 2, -1);
    refused(&flat, "{\"peft_type\":\"MISS\",\"init_weights\":\"bat\"}", WEFT_E_FORMAT, "wanted (out / r, r, r), as the configuration says bat");
    refused(&flat, "{\"peft_type\":\"BONE\"}", WEFT_E_UNSUPPORTED, "peft_type is BONE, but mid_block.x has no tensor of that");
}
END_TEST

/* ---- DeLoRA ---------------------------------------------------------------------------------- */

/* |A| = 5, |B| = 2: 10 / 1 * [0; 2] [3 4] / 10 * n. */
static made delora_file(const float *B, bool norms)
{
    static const float A[] = { 3, 4 }, lambda[] = { 10 }, n[] = { 1, 2 };
    made               f = { .n = 0 };

    put(&f, X("delora_A"), A, 1, 2, -1);
    put(&f, X("delora_B"), B, 2, 1, -1);
    put(&f, X("delora_lambda"), lambda, 1, -1, -1);
    if (norms) put(&f, X("delora_w_norm"), n, 2, -1, -1);
    return f;
}

START_TEST(delora_is_directions_times_a_strength)
{
    static const float B[] = { 0, 2 }, small[] = { 0, 1e-5f }, W[] = { 3, 0, 4, 0 };
    made f = delora_file(B, true), weak = delora_file(small, true), without = delora_file(B, false);

    check_file(&f, "{\"peft_type\":\"DELORA\",\"r\":1,\"delora_lambda\":15}", W, 2, 2, (const double[]){ 0, 0, 6, 16 });
    check_file(&weak, NULL, W, 2, 2, (const double[]){ 0, 0, 0.6, 1.6 });   /* as if |B| were 1e-4 */
    check_file(&without, NULL, W, 2, 2, (const double[]){ 0, 0, 30, 0 });   /* W's columns are 5 and 0 long */
    made two = { .n = 0 }; /* both ranks alike: half of the strength each */
    static const float A2[] = { 3, 4, 3, 4 }, B2[] = { 0, 0, 2, 2 };
    put(&two, X("delora_A"), A2, 2, 2, -1);
    put(&two, X("delora_B"), B2, 2, 2, -1);
    two.t[two.n++] = f.t[2], two.t[two.n++] = f.t[3];
    check_file(&two, NULL, W, 2, 2, (const double[]){ 0, 0, 6, 16 });
    weft_adapter *a = opened(&f, NULL), *b = opened(&without, NULL);
    ck_assert_float_eq(module_of(a, 0).scale, 10);
    ck_assert(!wf_module_of_weight(wf_adapter_module(a, 0)));
    ck_assert(wf_module_of_weight(wf_adapter_module(b, 0)));
    weft_adapter_free(a), weft_adapter_free(b);
    f.n = 2;
    refused(&f, NULL, WEFT_E_FORMAT, "the delora_lambda factor of its module is missing");
    f = delora_file(B, true);
    f.t[3].shape[0] = 1;
    refused(&f, NULL, WEFT_E_FORMAT, "delora_w_norm is (1,), wanted (in) as delora_A has it");
    f = delora_file(B, true);
    f.t[1].shape[1] = 2, f.t[1].shape[0] = 1;
    refused(&f, NULL, WEFT_E_FORMAT, "delora_B is (1, 2), wanted (out, r) with the rank of delora_A");
}
END_TEST

/* ---- GraLoRA --------------------------------------------------------------------------------- */

/* Blocks of 1 x 2 of rank 1: delta[j, 2 n + i] = A[n, i, j] B[j, n]. */
static made gralora_file(bool hybrid)
{
    static const float A[] = { 1, 2, 3, 4, 5, 6, 7, 8 }, B[] = { 1, 10, 100, 1000 }, up[] = { 1, 2 };
    made               f = { .n = 0 };

    put(&f, X("gralora_A"), A, 2, 2, 2);
    put(&f, X("gralora_B"), B, 2, 2, 1);
    if (!hybrid) return f;
    put(&f, X("gralora_A_general.weight"), ones, 1, 4, -1);
    put(&f, X("gralora_B_general.weight"), up, 2, 1, -1);
    return f;
}

START_TEST(gralora_has_a_rank_for_each_block)
{
    static const double plain[] = { 2, 6, 100, 140, 400, 800, 12000, 16000 },
                        hybrid[] = { 2, 4, 51, 71, 202, 402, 6002, 8002 };
    made f = gralora_file(false), h = gralora_file(true);

    check_file(&f, "{\"peft_type\":\"GRALORA\",\"r\":2,\"gralora_k\":2,\"hybrid_r\":0,\"alpha\":4}", NULL, 2, 4, plain);
    check_file(&h, "{\"peft_type\":\"GRALORA\",\"r\":2,\"gralora_k\":2,\"hybrid_r\":1,\"alpha\":3}", NULL, 2, 4, hybrid);
    refused(&f, "{\"peft_type\":\"GRALORA\",\"hybrid_r\":1,\"alpha\":3}", WEFT_E_FORMAT,
            "the configuration says hybrid_r 1, and beside gralora_A is a plain pair of rank 0");
    h.n = 3;
    refused(&h, NULL, WEFT_E_FORMAT, "come together, the second is missing");
    f.t[1].shape[1] = 1, f.t[1].shape[2] = 2;
    refused(&f, NULL, WEFT_E_FORMAT, "gralora_B is (2, 1, 2), wanted (N, r, out / N)");
    f.t[0].shape[2] = 1, f.t[0].shape[1] = 4;
    refused(&f, NULL, WEFT_E_FORMAT, "gralora_A is (2, 4, 1), wanted (N, in / N, r) with r a multiple of N");
}
END_TEST

/* Few enough ranks for a pair: N r + h = 5 of 6 x 6. What the factors give is the matrix again (check_sum). */
START_TEST(gralora_is_a_pair_where_that_is_less)
{
    float  A[2 * 3 * 2], B[2 * 2 * 3], down[6], up[6];
    double want[36];
    made   f = { .n = 0 };

    for (int i = 0; i < 12; i++) A[i] = (float)(i % 5) - 2, B[i] = (float)(i % 7) - 3;
    for (int i = 0; i < 6; i++) down[i] = (float)(i % 4) - 1, up[i] = (float)(i % 3);
    put(&f, X("gralora_A"), A, 2, 3, 2);
    put(&f, X("gralora_B"), B, 2, 2, 3);
    put(&f, X("gralora_A_general.default.weight"), down, 1, 6, -1);
    put(&f, X("gralora_B_general.default.weight"), up, 6, 1, -1);
    for (int o = 0; o < 6; o++)
        for (int i = 0; i < 6; i++) {
            int j = o / 3, n = i / 3;
            want[o * 6 + i] = (double)A[(n * 3 + i % 3) * 2 + j] * (double)B[(j * 2 + n) * 3 + o % 3] + (double)up[o] * (double)down[i];
        }
    weft_adapter *a = open_scaled(&f, NULL, NULL, NULL, 1);
    ck_assert_msg(a != NULL, "%s", err.text);
    sample        s = { .count = 0 };
    lay(&s, NULL, 6, 6, 1);
    ck_assert_int_eq(wf_module_form(wf_adapter_module(a, 0), &s.l), WF_FORM_PAIR);
    ck_assert_int_eq(wf_module_pair_rank(wf_adapter_module(a, 0)), 5);
    ck_assert_int_eq(module_of(a, 0).rank, 3);
    check_sum(a, NULL, 6, 6, want);
    weft_adapter_free(a);
}
END_TEST

/* ---- RandLoRA -------------------------------------------------------------------------------- */

/* G is the identity, so that the rows of F come out: lambda A gamma, by rank and then by base. */
static made randlora_file(const char *A, const char *B)
{
    static const float lambda[] = { 1, 2, 3, 4 }, gamma[] = { 1, 1, 1, 1, 2, 0 }, a[] = { 1, 0, 1, 7, 0, 1, 1, 7 },
                       b[] = { 1, 0, 0, 0, 9, 9, 0, 1, 0, 0, 9, 9, 0, 0, 1, 0, 9, 9, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9 };
    made f = { .n = 0 };

    put(&f, X("randlora_lambda"), lambda, 2, 2, -1);
    put(&f, X("randlora_gamma"), gamma, 2, 3, -1);
    put(&f, A, a, 2, 1, 4); /* a column, a row and a base more than the layer needs */
    put(&f, B, b, 5, 3, 2);
    return f;
}

START_TEST(randlora_scales_random_bases)
{
    static const double tall[] = { 1, 0, 1, 2, 0, 0, 0, 3, 3, 0, 8, 0 }, wide[] = { 1, 2, 0, 0, 0, 0, 3, 8, 1, 0, 3, 0 };
    static const char   config[] = "{\"peft_type\":\"RANDLORA\",\"r\":2,\"randlora_alpha\":2}";
    made                f = randlora_file("base_model.randlora_A", "base_model.randlora_B");

    check_file(&f, config, NULL, 4, 3, tall);
    check_file(&f, config, NULL, 3, 4, wide);
    weft_adapter *a = opened(&f, config);
    ck_assert(!fits_layer(a, 4, 4, 1) && !fits_layer(a, 6, 3, 1)); /* another smaller side; too long for B */
    weft_adapter_free(a);
    f = randlora_file(X("randlora_A"), X("randlora_B"));
    check_file(&f, config, NULL, 4, 3, tall);
}
END_TEST

/* PEFT repeats the bases for every module. */
START_TEST(bases_of_all_modules_may_be_repeated)
{
    static const float other[8] = { 1 };
    made               f = randlora_file("base_model.randlora_A", "base_model.randlora_B");

    put(&f, X("randlora_A"), f.t[2].data, 2, 1, 4);
    put(&f, X("randlora_B"), f.t[3].data, 5, 3, 2);
    weft_adapter *a = open_scaled(&f, NULL, NULL, NULL, 1);
    ck_assert_msg(a != NULL, "%s", err.text);
    for (size_t i = 0; i < wf_tensors_count(a->tensors); i++) ck_assert_int_ne(a->key_module[i], WF_KEY_UNREAD);
    weft_adapter_free(a);
    f.t[4].data = other;
    refused(&f, NULL, WEFT_E_FORMAT, "are one tensor of all modules, and differ");
    f.t[4].data = f.t[2].data;
    f.t[4].shape[1] = 2, f.t[4].shape[2] = 2;
    refused(&f, NULL, WEFT_E_FORMAT, "are one tensor of all modules, and differ");
}
END_TEST

START_TEST(bases_that_do_not_suffice_are_refused)
{
    static const struct { size_t t; int64_t shape[3]; const char *says; } cases[] = {
        { 0, { 4, 1, -1 }, "randlora_gamma is (2, 3), wanted (n, short) with the n of randlora_lambda" },
        { 1, { 2, 2, -1 }, "randlora_gamma is (2, 2), wanted (n, short), n = short / r rounded up" },
        { 2, { 1, 1, 8 }, "randlora_A is (1, 1, 8), wanted (r, 1, shorts)" },
        { 2, { 2, 2, 2 }, "randlora_A is (2, 2, 2), wanted (r, 1, shorts)" },
        { 2, { 2, 1, 2 }, "randlora_A is (2, 1, 2), wanted (r, 1, shorts)" },
        { 3, { 15, 1, 2 }, "randlora_B is (15, 1, 2), wanted (longs, bases, r)" },
        { 3, { 10, 3, 1 }, "randlora_B is (10, 3, 1), wanted (longs, bases, r)" },
        { 3, { 2, 3, 2 }, "randlora_B is (2, 3, 2), wanted (longs, bases, r)" },
    };
    made f = randlora_file("base_model.randlora_A", "base_model.randlora_B");

    memcpy(f.t[cases[_i].t].shape, cases[_i].shape, sizeof cases[_i].shape);
    f.t[cases[_i].t].rank = cases[_i].shape[2] < 0 ? 2 : 3;
    refused(&f, NULL, WEFT_E_FORMAT, cases[_i].says);
}
END_TEST

START_TEST(bases_come_from_the_file_or_a_seed)
{
    made f = randlora_file("base_model.randlora_A", "base_model.randlora_B");

    f.n = 3;
    refused(&f, NULL, WEFT_E_FORMAT, "the file has randlora_A without randlora_B");
    f.n = 2;
    refused(&f, NULL, WEFT_E_FORMAT, "save it with save_projection");
    weft_adapter_free(opened(&f, "{\"peft_type\":\"RANDLORA\",\"r\":2,\"randlora_alpha\":1,\"save_projection\":false,\"projection_prng_key\":5}"));
    refused(&f, "{\"peft_type\":\"RANDLORA\",\"r\":2,\"randlora_alpha\":1,\"projection_prng_key\":\"x\"}", WEFT_E_FORMAT, "save it with save_projection");
}
END_TEST

/* torch's bases for a seed, r 2 and a layer (4, 3): what PEFT's model has of them. Seeds beyond what a float counts
 * are others, and of those beyond 32 bits torch takes the lower 32. The last seed draws the upper end. */
static const struct { const char *kind; double A[6], B[8]; } drawn[] = {
    { "5", { 0.84765625, -0.9609375, 1.046875, 0.8203125, 1.078125, -0.98828125 }, { -1.03125, 0.73046875, 0.66015625, 0.243164062, -1.4296875, 1.515625, 1.4765625, 0.458984375 } },
    { "5,\"sparse\":true", { 0, -1.11803401, 1.11803401, 0, 1.11803401, -1.11803401 }, { -1.4704293, 0, -1.4704293, 1.4704293, 0, 0, -1.4704293, 0 } },
    { "5,\"very_sparse\":true", { 0.968245864, -0.968245864, 0.968245864, 0.968245864, 0.968245864, -0.968245864 }, { -1.2247448, 1.2247448, -1.2247448, 1.2247448, 0, 0, -1.2247448, 0 } },
    { "16777217", { 1.375, 1.171875, 0.43359375, -0.84765625, -0.8515625, -0.4765625 }, { -1.359375, -0.29296875, 1.3203125, -1.34375, -0.462890625, 0.69140625, -1.2734375, -1 } },
    { "3000000001", { 1.3515625, 1.703125, 1.046875, -0.65234375, -0.3203125, 1.453125 }, { -0.341796875, 1.203125, 1.4453125, 0.83203125, -0.23828125, 1.203125, 0.249023438, -0.6875 } },
    { "8589934597", { 0.84765625, -0.9609375, 1.046875, 0.8203125, 1.078125, -0.98828125 }, { -1.03125, 0.73046875, 0.66015625, 0.243164062, -1.4296875, 1.515625, 1.4765625, 0.458984375 } },
    { "68", { -0.375, 0.193359375, -1.484375, -0.80078125, -1.859375, 0.7734375 }, { 1.0390625, -1.0078125, -0.7578125, -1.25, -0.484375, 1.203125, -0.94140625, 1.5625 } },
};

START_TEST(bases_are_torchs)
{
    static const wf_layer layer = { .name = "x", .out = 4, .in = 3, .kernel = 1, .kind = WEFT_LAYER_LINEAR, .dtype = WF_F32 };
    const wf_slice        slice = { .rows = 4, .of = 4 };
    made                  f = randlora_file("base_model.randlora_A", "base_model.randlora_B");
    char                  config[160];
    weft_adapter         *whole = NULL;

    f.n = 2;
    snprintf(config, sizeof config, "{\"peft_type\":\"RANDLORA\",\"randlora_alpha\":1,\"projection_prng_key\":%s}", drawn[_i].kind);
    weft_adapter *a = opened(&f, config);
    ck_assert_msg(wf_adapter_complete(a, &layer, &slice, 1, &whole, &err) == WEFT_OK, "%s", err.text);
    const wf_module *m = wf_adapter_module(whole, 0);
    const float     *A = (const float *)(const void *)m->tensor[WF_TENSOR_RANDLORA_A]->data,
                    *B = (const float *)(const void *)m->tensor[WF_TENSOR_RANDLORA_B]->data;
    ck_assert_uint_eq(m->tensor[WF_TENSOR_RANDLORA_A]->count, 6);
    ck_assert_uint_eq(m->tensor[WF_TENSOR_RANDLORA_B]->count, 16);
    near(A, drawn[_i].A, 6, 1e-6);
    near(B, drawn[_i].B, 8, 1e-6);
    weft_adapter_free(whole);
    weft_adapter_free(a);
}
END_TEST

/* ---- PiSSA, OLoRA ---------------------------------------------------------------------------- */

static made lora_file(int64_t r, int64_t out, int64_t in)
{
    made f = { .n = 0 };

    put(&f, X("lora_A.weight"), ones, r, in, -1);
    put(&f, X("lora_B.weight"), ones, out, r, -1);
    return f;
}

/* The base lacks [3 0 0; 0 0 0] of [3 0 0; 0 2 0], and 1.5 everywhere of [1 2; 2 1], whose values are 3 and 1; the factors add 2. */
START_TEST(pissa_takes_out_the_best_of_the_weight)
{
    static const float wide[] = { 3, 0, 0, 0, 2, 0 }, tall[] = { 3, 0, 0, 2, 0, 0 }, square[] = { 1, 2, 2, 1 }, zero[] = { 0, 0, 0, 0 };
    static const char  config[] = "{\"r\":1,\"lora_alpha\":2,\"init_lora_weights\":\"pissa\"}";
    made               f = lora_file(1, 2, 3), t = lora_file(1, 3, 2), s = lora_file(1, 2, 2);

    check_file(&f, config, wide, 2, 3, (const double[]){ -1, 2, 2, 2, 2, 2 });
    check_file(&t, config, tall, 3, 2, (const double[]){ -1, 2, 2, 2, 2, 2 });
    check_file(&s, config, square, 2, 2, (const double[]){ 0.5, 0.5, 0.5, 0.5 });
    check_file(&s, config, zero, 2, 2, (const double[]){ 2, 2, 2, 2 });
    made whole = lora_file(2, 2, 3); /* all of the weight: 4 everywhere instead */
    check_file(&whole, "{\"r\":2,\"lora_alpha\":4,\"init_lora_weights\":\"pissa\"}", wide, 2, 3, (const double[]){ 1, 4, 4, 4, 2, 4 });
    weft_adapter *a = opened(&f, config);
    ck_assert_str_eq(info_of(a).kind, "PiSSA");
    ck_assert_int_eq(wf_module_pair_rank(wf_adapter_module(a, 0)), 2);
    ck_assert(wf_module_of_weight(wf_adapter_module(a, 0)));
    weft_adapter_free(a);
    a = opened(&f, "{\"r\":1,\"lora_alpha\":2,\"init_lora_weights\":\"eva\"}"); /* others leave the base as it is */
    ck_assert_int_eq(wf_module_pair_rank(wf_adapter_module(a, 0)), 1);
    ck_assert(!wf_module_of_weight(wf_adapter_module(a, 0)));
    weft_adapter_free(a);
}
END_TEST

/* The first column (3, 4) has the direction q = (0.6, 0.8): q q^T W = [3 1.32; 4 1.76], and twice that is missing. */
START_TEST(olora_takes_out_what_the_first_columns_span)
{
    static const float W[] = { 3, 1, 4, 2 };
    made               f = lora_file(1, 2, 2);

    check_file(&f, "{\"r\":1,\"lora_alpha\":2,\"init_lora_weights\":\"olora\"}", W, 2, 2, (const double[]){ -4, -0.64, -6, -1.52 });
    weft_adapter *a = opened(&f, "{\"r\":1,\"lora_alpha\":0,\"init_lora_weights\":\"olora\"}");
    check_sum(a, W, 2, 2, (const double[]){ 0, 0, 0, 0 });
    ck_assert_str_eq(info_of(a).kind, "OLoRA");
    weft_adapter_free(a);
}
END_TEST

/* diffusers keeps the same words in the metadata, and DoRA stands on what is left: g V / |V| of V = [0.5 0.5; ..] + W, 3 and 4. */
START_TEST(pissa_is_the_components_own)
{
    static const float g[] = { 5, 5 }, W[] = { 1, 2, 2, 1 };
    made               f = { .n = 0 };

    put(&f, "unet.mid_block.x.lora_A.weight", ones, 1, 2, -1);
    put(&f, "unet.mid_block.x.lora_B.weight", ones, 2, 1, -1);
    put(&f, "unet.mid_block.x.lora_magnitude_vector", g, 2, -1, -1);
    put(&f, "text_encoder.text_model.y.lora_A.weight", ones, 1, 2, -1);
    put(&f, "text_encoder.text_model.y.lora_B.weight", ones, 2, 1, -1);
    weft_adapter *a = open_with(&f, NULL, "{\"unet.lora_alpha\":2,\"unet.use_dora\":true,\"unet.init_lora_weights\":\"pissa\","
                                          "\"text_encoder.lora_alpha\":2,\"text_encoder.init_lora_weights\":true}", NULL);
    ck_assert_msg(a != NULL, "%s", err.text);
    double n = sqrt(1.5 * 1.5 + 2.5 * 2.5);
    for (size_t i = 0; i < 2; i++) {
        float got[4];
        bool  unet = module_of(a, i).name[0] == 'u';
        adds(a, i, W, 2, 2, 1, 1, got);
        const double dora[] = { 5 * 1.5 / n - 1, 5 * 2.5 / n - 2, 5 * 2.5 / n - 2, 5 * 1.5 / n - 1 }, plain[] = { 2, 2, 2, 2 };
        near(got, unet ? dora : plain, 4, 2e-6);
    }
    weft_adapter_free(a);
}
END_TEST

START_TEST(parts_of_the_weight_that_cannot_be_had)
{
    static const char pissa[] = "{\"r\":1,\"lora_alpha\":2,\"init_lora_weights\":\"pissa\"}";
    made              f = lora_file(1, 2, 3), large = lora_file(3, 2, 3), conv = { .n = 0 };
    static const float W[] = { 1, NAN, 0, 0, 1, 0 };
    float             dst[6] = { 0 };

    refused(&f, "{\"r\":1,\"lora_alpha\":0,\"init_lora_weights\":\"pissa\"}", WEFT_E_FORMAT, "PiSSA with a scale that is not above zero");
    refused(&f, "{\"r\":1,\"lora_alpha\":-1,\"init_lora_weights\":\"pissa\"}", WEFT_E_FORMAT, "PiSSA with a scale that is not above zero");
    refused(&large, "{\"r\":3,\"lora_alpha\":2,\"init_lora_weights\":\"olora\"}", WEFT_E_FORMAT, "takes a part of rank 3 out of a weight of 2 x 3");
    put(&conv, X("lora_A.weight"), ones, 1, 2, 1), conv.t[0].rank = 4, conv.t[0].shape[3] = 1;
    put(&conv, X("lora_B.weight"), ones, 2, 1, 1), conv.t[1].rank = 4, conv.t[1].shape[3] = 1;
    refused(&conv, pissa, WEFT_E_FORMAT, "which is for plain pairs of linear layers");
    put(&f, X("lora_AB.weight"), ones, 1, 1, -1);
    refused(&f, pissa, WEFT_E_FORMAT, "which is for plain pairs of linear layers");
    f.n = 2;
    for (int olora = 0; olora < 2; olora++) {
        weft_adapter *a = opened(&f, olora ? "{\"r\":1,\"lora_alpha\":1,\"init_lora_weights\":\"olora\"}" : pissa);
        sample        s = { .count = 0 };
        s.m = *wf_adapter_module(a, 0);
        lay(&s, W, 2, 3, 1);
        ck_assert_int_eq(wf_module_add(&s.m, &s.l, 1, 1, 1, dst, heap(), &err), WEFT_E_UNSUPPORTED);
        ck_assert_ptr_nonnull(strstr(err.text, "layer: its weight holds NaN or infinity"));
        weft_adapter_free(a);
    }
}
END_TEST

/* ---- all of them ----------------------------------------------------------------------------- */

/* Shapes of few values whose products no int holds. Nothing is read of them. */
START_TEST(blocks_that_overflow_are_refused)
{
    static const struct { struct { int32_t role; int64_t shape[4]; } t[4]; } cases[] = {
        { { { WF_TENSOR_C3A_KERNEL, { INT32_MAX, 1, 2 } } } },
        { { { WF_TENSOR_C3A_KERNEL, { 1, INT32_MAX, 2 } } } },
        { { { WF_TENSOR_MISS_BLOCK, { INT32_MAX, 2, 2 } } } },
        { { { WF_TENSOR_GRALORA_A, { 2, INT32_MAX, 2 } }, { WF_TENSOR_GRALORA_B, { 2, 2, 1 } } } },
        { { { WF_TENSOR_GRALORA_A, { 2, 1, 2 } }, { WF_TENSOR_GRALORA_B, { 2, 2, INT32_MAX } } } },
        { { { WF_TENSOR_GRALORA_A, { 1, 1, INT32_MAX } }, { WF_TENSOR_GRALORA_B, { 1, INT32_MAX, 1 } },
            { WF_TENSOR_GRALORA_DOWN, { INT32_MAX, 1 } }, { WF_TENSOR_GRALORA_UP, { 1, INT32_MAX } } } },
    };
    sample s = { .count = 0 };

    for (size_t i = 0; i < 4 && cases[_i].t[i].role != 0; i++) {
        const int64_t *d = cases[_i].t[i].shape;
        give(&s, cases[_i].t[i].role, ones, d[0], d[1], d[2], d[3]);
    }
    ck_assert_int_eq(try_settle(&s), WEFT_E_FORMAT);
    check_one_line(&err);
}
END_TEST

/* A rank that is no number of 31 bits is never that of a pair, and the sum says that it is too large, without taking memory. */
START_TEST(ranks_that_overflow_are_no_pairs)
{
    sample s = { .count = 0 };
    float  dst[1];

    give(&s, WF_TENSOR_GRALORA_A, ones, 1 << 15, 1, 1 << 30, 0);
    give(&s, WF_TENSOR_GRALORA_B, ones, 1 << 15, 1 << 30, 1, 0);
    lay(&s, NULL, 1 << 15, 1 << 15, 1);
    settle(&s);
    ck_assert_int_eq(wf_module_pair_rank(&s.m), INT32_MAX);
    ck_assert_int_eq(wf_module_form(&s.m, &s.l), WF_FORM_DENSE);
    test_memory    memory;
    weft_allocator alloc = test_allocator(&memory);
    memory.fail_at = 1;
    ck_assert_int_ne(wf_module_add(&s.m, &s.l, 1, 1, 1, dst, &alloc, &err), WEFT_OK);
}
END_TEST

/* Whichever allocation fails, the family says so and leaks nothing. */
START_TEST(sums_without_memory_say_so)
{
    static const float   W[] = { 3, 1, 4, 2, 5, 6, 7, 1, 2, 8, 3, 1 };
    static const char *const configs[] = { NULL, NULL, NULL, NULL, NULL, "{\"r\":1,\"lora_alpha\":1,\"init_lora_weights\":\"pissa\"}",
                                           "{\"r\":1,\"lora_alpha\":1,\"init_lora_weights\":\"olora\"}" };
    made                 f = { .n = 0 };
    int32_t              out = 2, in = 4;
    float                dst[16], down[64], up[64];
    test_memory          memory;
    weft_allocator       alloc = test_allocator(&memory);
    weft_status          st = WEFT_E_NOMEM;

    if (_i == 0) put(&f, X("c3a_kernel"), ones, 1, 2, 2);
    if (_i == 1) put(&f, X("miss_block"), ones, 1, 2, 2);
    if (_i == 2) put(&f, X("miss_block"), ones, 2, 2, -1);
    if (_i == 3) f = gralora_file(true);
    if (_i == 4) f = randlora_file(X("randlora_A"), X("randlora_B")), out = 4, in = 3;
    if (_i >= 5) f = lora_file(1, 2, 4);
    if (_i == 7) f = delora_file(ones, false), in = 2;
    const char   *config = _i < (int)WF_LEN(configs) ? configs[_i] : NULL;
    weft_adapter *a = open_scaled(&f, config, NULL, NULL, _i == 3 || _i == 4 ? 1 : 0); /* those have an alpha */
    sample        s = { .count = 0 };
    ck_assert_msg(a != NULL, "%s", err.text);
    s.m = *wf_adapter_module(a, 0);
    lay(&s, W, out, in, 1);
    ck_assert(wf_module_fits(&s.m, &s.l));
    for (memory.fail_at = 1; st != WEFT_OK; memory.fail_at++) {
        memory.calls = 0;
        st = wf_module_add(&s.m, &s.l, 1, 1, 1, dst, &alloc, &err);
        ck_assert_msg(st == (memory.calls >= memory.fail_at ? WEFT_E_NOMEM : WEFT_OK), "%s", err.text);
        ck_assert_uint_eq(memory.live_blocks, 0);
    }
    st = wf_module_form(&s.m, &s.l) == WF_FORM_PAIR ? WEFT_E_NOMEM : WEFT_OK;
    for (memory.fail_at = 1; st != WEFT_OK; memory.fail_at++) {
        memory.calls = 0;
        st = wf_module_pair(&s.m, &s.l, down, up, &alloc, &err);
        ck_assert_msg(st == (memory.calls >= memory.fail_at ? WEFT_E_NOMEM : WEFT_OK), "%s", err.text);
        ck_assert_uint_eq(memory.live_blocks, 0);
    }
    weft_adapter_free(a);
}
END_TEST

/* ---- what PEFT has and this version has not -------------------------------------------------- */

/* Keys as PEFT 0.21.2 writes them; without a configuration, since a file may come alone. */
static const struct { const char *key, *says; } strangers[] = {
    { X("adamss_A.0"), "is AdaMSS" }, { X("beft_bias"), "is BEFT (beft_bias)" }, { X("deft_P"), "is DEFT" },
    { "base_model.frod_V.x", "is FRoD" }, { X("frod_lambda_l"), "is FRoD" }, { X("glora_A.Xd"), "is PEFT's GLoRA" },
    { X("hira_A"), "is HiRA (hira_A); this version applies other methods of PEFT, and the LoRA that its save_as_lora makes" },
    { X("lily_A.weight"), "is Lily" }, { X("lily_router.weight"), "is Lily" }, { X("osf_svd_params.U_low"), "is OSF" },
    { X("peanut_A.weight"), "is PEANuT" }, { X("peanut_encoders.0.weight"), "is PEANuT" }, { X("poly_lora_A"), "is Poly" },
    { X("psoft_R.weight"), "is PSOFT" }, { X("psoft_R.vector_a"), "is PSOFT" }, { X("pvera_lambda_b"), "is PVeRA" },
    { "base_model.pvera_A", "is PVeRA" }, { X("road_theta"), "is RoAd" }, { "base_model.shadow_backbone.a.weight", "is Shadow" },
    { X("supertuning_values"), "is supertuning" }, { X("supertuning_lora_A"), "is supertuning" }, { X("tinylora_A"), "is TinyLoRA" },
    { "base_model.tinylora_v.0", "is TinyLoRA" }, { "base_model.unilora_theta_d", "is Uni-LoRA" }, { X("waveft_spectrum"), "is WaveFT" },
    { "base_model.internal_xlora_classifier.0.weight", "is X-LoRA" }, { X("token_adapter.trainable_tokens_delta"), "is PEFT's trainable tokens" },
    { "prompt_embeddings", "is a learned prompt of PEFT" }, { X("adaption_prompt"), "is an adaption prompt" },
    { X("lora_diag"), "is KaSA" }, { X("lora_velora_embed"), "is VeLoRA" }, { X("lora_monteclora_sampler.std_prior"), "is MonteCLoRA" },
    { X("lora_arrow.prototypes"), "is an Arrow router" },
};

/* Alone, and beside a plain LoRA that would be half of the file. */
START_TEST(strangers_are_refused_by_name)
{
    made alone = { .n = 0 }, beside = lora_file(1, 2, 3);

    put(&alone, strangers[_i].key, ones, 2, 2, -1);
    refused(&alone, NULL, WEFT_E_UNSUPPORTED, strangers[_i].says);
    put(&beside, strangers[_i].key, ones, 2, 2, -1);
    refused(&beside, NULL, WEFT_E_UNSUPPORTED, strangers[_i].says);
}
END_TEST

static const struct { const char *init, *says; } beginnings[] = {
    { "pissa_niter_16", "is pissa_niter_16, which takes a random approximation of the weight's top out of the base" },
    { "corda", "is corda, which takes out of the base what the data of its training told" },
    { "loftq", "is loftq, which puts a quantised weight in the base's place" },
    { "lora_ga", "is lora_ga, which takes out of the base what gradients of its training told: no file says what; convert it to plain "
                 "LoRA with PEFT (save_pretrained with path_initial_model_for_weight_conversion)" },
    { "pissa2", "is pissa2, and what that leaves of the base is not known to this version" },
};

START_TEST(beginnings_that_no_file_tells_are_refused)
{
    char config[120];
    made f = lora_file(1, 2, 3);

    snprintf(config, sizeof config, "{\"r\":1,\"lora_alpha\":1,\"init_lora_weights\":\"%s\"}", beginnings[_i].init);
    refused(&f, config, WEFT_E_UNSUPPORTED, beginnings[_i].says);
}
END_TEST

START_TEST(beginnings_that_leave_the_base_are_plain)
{
    static const char *const words[] = { "true", "false", "null", "\"gaussian\"", "\"eva\"", "\"orthogonal\"", "\"mica\"" };
    made                     f = lora_file(1, 2, 3);

    for (size_t i = 0; i < WF_LEN(words); i++) {
        char config[120];
        snprintf(config, sizeof config, "{\"r\":1,\"lora_alpha\":1,\"init_lora_weights\":%s}", words[i]);
        check_file(&f, config, NULL, 2, 3, (const double[]){ 1, 1, 1, 1, 1, 1 });
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("adapter: PEFT's blocks, and parts of the base");
    TCase *t = tcase_create("blocks");

    tcase_add_test(t, c3a_is_blocks_of_circulants);
    tcase_add_loop_test(t, miss_adds_one_block_along_the_inputs, 0, 3);
    tcase_add_test(t, miss_mini_is_repeated_along_the_outputs);
    tcase_add_test(t, miss_bat_turns_blocks_of_the_weight);
    tcase_add_test(t, delora_is_directions_times_a_strength);
    tcase_add_test(t, gralora_has_a_rank_for_each_block);
    tcase_add_test(t, gralora_is_a_pair_where_that_is_less);
    tcase_add_test(t, randlora_scales_random_bases);
    tcase_add_test(t, bases_of_all_modules_may_be_repeated);
    tcase_add_loop_test(t, bases_that_do_not_suffice_are_refused, 0, 8);
    tcase_add_test(t, bases_come_from_the_file_or_a_seed);
    tcase_add_loop_test(t, bases_are_torchs, 0, (int)WF_LEN(drawn));
    suite_add_tcase(s, t);
    t = tcase_create("parts of the base");
    tcase_add_test(t, pissa_takes_out_the_best_of_the_weight);
    tcase_add_test(t, olora_takes_out_what_the_first_columns_span);
    tcase_add_test(t, pissa_is_the_components_own);
    tcase_add_test(t, parts_of_the_weight_that_cannot_be_had);
    suite_add_tcase(s, t);
    t = tcase_create("refusals");
    tcase_add_loop_test(t, blocks_that_overflow_are_refused, 0, 6);
    tcase_add_test(t, ranks_that_overflow_are_no_pairs);
    tcase_add_loop_test(t, sums_without_memory_say_so, 0, 8);
    tcase_add_loop_test(t, strangers_are_refused_by_name, 0, (int)WF_LEN(strangers));
    tcase_add_loop_test(t, beginnings_that_no_file_tells_are_refused, 0, (int)WF_LEN(beginnings));
    tcase_add_test(t, beginnings_that_leave_the_base_are_plain);
    suite_add_tcase(s, t);
    return run_suite(s);
}
