/* PEFT's methods whose tensors belong to more than one module, or say nothing without the configuration: VeRA, FourierFT, HRA,
 * SHiRA, VB-LoRA, LN tuning. Worked numbers, what torch's generator gives, and what is refused. Against PEFT's own forward
 * they are held in run/test_families.c. */
#include "made.h"

static const double LIMIT = 1e-6;

#define M(path) "base_model.model.mid_block." path
#define Q "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"  /* (8, 8)  */
#define K2 "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k" /* (16, 24) */
static const float numbers[4096] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };

/* ---- VeRA ------------------------------------------------------------------------------------ */

/* A is wider, and B longer, than the layer:
 * diag(d) A = [2 4; 0 -1], B = [1 0; 2 1; 0 3]: [2 4; 4 7; 0 -3], rows times 1, 0.5, 2 */
static const float vera_A[] = { 1, 2, 0, 0, 1, 1 }, vera_B[] = { 1, 0, 2, 1, 0, 3, 9, 9 }, vera_d[] = { 2, -1 }, vera_b[] = { 1, 0.5f, 2 };
static const double vera_sum[] = { 2, 4, 2, 3.5, 0, -6 };

static made vera_file(const char *A, const char *B)
{
    made f = { .n = 0 };

    put(&f, A, vera_A, 2, 3, -1);
    put(&f, B, vera_B, 4, 2, -1);
    put(&f, M("x.vera_lambda_b"), vera_b, 3, -1, -1);
    put(&f, M("x.vera_lambda_d"), vera_d, 2, -1, -1);
    return f;
}

START_TEST(vera_is_scaled_projections)
{
    static const char *const keys[][2] = {
        { "base_model.vera_A", "base_model.vera_B" },
        { "base_model.vera_A.default", "base_model.vera_B.default" },
        { M("x.vera_A.default"), M("x.vera_B.default") },
        { "module.base_model.vera_A", "unet.base_model.vera_B" },
    };
    made          f = vera_file(keys[_i][0], keys[_i][1]);
    weft_adapter *a = opened(&f, NULL); /* the configuration has nothing to say */
    float         got[6];

    ck_assert_uint_eq(a->count, 1);
    ck_assert_str_eq(info_of(a).family, "vera");
    ck_assert_int_eq(module_of(a, 0).rank, 2);
    adds(a, 0, NULL, 3, 2, 1, 1, got);
    near(got, vera_sum, 6, LIMIT);
    adds(a, 0, NULL, 3, 2, 1, -0.5, got);
    ck_assert_float_eq_tol(got[3], -1.75f, 1e-6f);
    weft_adapter_free(a);
}
END_TEST

/* Two layers, (4, 3) and (2, 2), and torch's numbers for the seed 7: the largest of both, (2, 3) and (4, 2). */
static const double drawn_A[] = { 0.098775856, -0.851913214, 0.450318664, 0.443752706, -0.755864441, -0.211958349 },
                    drawn_B[] = { -1.014683723, 0.449419945, -0.466558516, 1.216829300,
                                  1.229559183,  0.176444739, -0.738411307, -1.017339468 };

static made seeded_file(void)
{
    made f = { .n = 0 };

    put(&f, M("x.vera_lambda_b"), numbers, 4, -1, -1);
    put(&f, M("x.vera_lambda_d"), numbers, 2, -1, -1);
    put(&f, M("y.vera_lambda_b"), numbers, 2, -1, -1);
    put(&f, M("y.vera_lambda_d"), numbers, 2, -1, -1);
    return f;
}

static const char seeded[] = "{\"peft_type\":\"VERA\",\"r\":2,\"projection_prng_key\":7,\"save_projection\":false}";
static const wf_layer  two_layers[] = {
    { .name = "x", .out = 4, .in = 3, .kernel = 1, .kind = WEFT_LAYER_LINEAR, .dtype = WF_F32 },
    { .name = "y", .out = 2, .in = 2, .kernel = 1, .kind = WEFT_LAYER_LINEAR, .dtype = WF_F32 },
};
static const wf_slice two_slices[] = { { .module = 0, .layer = 0, .rows = 4, .of = 4 }, { .module = 1, .layer = 1, .rows = 2, .of = 2 } };

START_TEST(vera_is_made_from_its_seed)
{
    made          f = seeded_file();
    weft_adapter *a = opened(&f, seeded), *whole = NULL;
    float         got[12];
    double        want[12] = { 0 };

    ck_assert_int_eq(wf_adapter_complete(a, two_layers, two_slices, 2, &whole, &err), WEFT_OK);
    ck_assert_ptr_ne(a, whole);
    ck_assert_ptr_null(wf_adapter_module(a, 0)->tensor[WF_TENSOR_VERA_A]); /* it never changes */
    weft_adapter_free(a);                                                  /* and may go first */
    for (int m = 0; m < 2; m++) {
        int out = m == 0 ? 4 : 2, in = m == 0 ? 3 : 2;
        for (int o = 0; o < out; o++)
            for (int i = 0; i < in; i++) {
                want[o * in + i] = 0;
                for (int p = 0; p < 2; p++) want[o * in + i] += (o + 1) * drawn_B[o * 2 + p] * (p + 1) * drawn_A[p * 3 + i];
            }
        adds(whole, (size_t)m, NULL, out, in, 1, 1, got);
        near(got, want, (size_t)(out * in), 2e-6);
    }
    ck_assert_str_eq(wf_adapter_name(whole), "made");
    weft_adapter_free(whole);
}
END_TEST

/* What has all its tensors is itself; the largest layer must be among those that are there. */
START_TEST(an_adapter_is_completed_only_where_it_must)
{
    made          f = vera_file("base_model.vera_A", "base_model.vera_B"), s = seeded_file();
    weft_adapter *a = opened(&f, NULL), *whole = NULL;

    ck_assert_int_eq(wf_adapter_complete(a, two_layers, two_slices, 1, &whole, &err), WEFT_OK);
    ck_assert_ptr_eq(a, whole);
    weft_adapter_free(whole);
    weft_adapter_free(a);

    a = opened(&s, seeded);
    ck_assert_int_eq(wf_adapter_complete(a, two_layers, two_slices, 1, &whole, &err), WEFT_E_MISMATCH);
    ck_assert_ptr_null(whole);
    ck_assert_ptr_nonnull(strstr(err.text, M("y") " has no layer in the model"));
    ck_assert_ptr_nonnull(strstr(err.text, "save it with save_projection"));
    check_one_line(&err);
    weft_adapter_free(a);
}
END_TEST

START_TEST(projections_without_memory_are_none)
{
    test_memory    memory;
    weft_allocator alloc = test_allocator(&memory);
    made           f = seeded_file();
    weft_adapter  *a = open_with(&f, seeded, NULL, &alloc), *whole = NULL;
    size_t         before = memory.live_blocks;
    weft_status    st = WEFT_E_NOMEM;

    ck_assert_ptr_nonnull(a);
    for (size_t n = 1; st != WEFT_OK; n++) {
        memory.calls = 0;
        memory.fail_at = n;
        st = wf_adapter_complete(a, two_layers, two_slices, 2, &whole, &err);
        ck_assert_msg(st == WEFT_OK || st == WEFT_E_NOMEM, "%s", err.text);
        if (st != WEFT_OK) ck_assert_uint_eq(memory.live_blocks, before);
        ck_assert_uint_lt(n, 40);
    }
    weft_adapter_free(whole);
    ck_assert_uint_eq(memory.live_blocks, before);
    weft_adapter_free(a);
    ck_assert_uint_eq(memory.live_blocks, 0);
}
END_TEST

START_TEST(vera_is_refused_where_it_cannot_be_had)
{
    static const char no_seed[] = "{\"peft_type\":\"VERA\",\"projection_prng_key\":null}";
    made seed = seeded_file(), wide = { .n = 0 }, f;

    refused(&seed, NULL, WEFT_E_FORMAT, "neither vera_A and vera_B nor a configuration that gives their seed; save it with save_projection");
    refused(&seed, no_seed, WEFT_E_FORMAT, "a configuration that gives their seed");
    f = vera_file("base_model.vera_A", "base_model.vera_B");
    f.t[1] = f.t[--f.n];
    refused(&f, NULL, WEFT_E_FORMAT, "the file has vera_A without vera_B");
    f = vera_file("base_model.vera_A", "base_model.vera_B");
    f.t[0].shape[0] = 3, f.t[0].shape[1] = 2;
    refused(&f, NULL, WEFT_E_FORMAT, "base_model.vera_A is (3, 2), wanted (r, inputs) with the r of vera_lambda_d");
    f = vera_file("base_model.vera_A", "base_model.vera_B");
    f.t[1].shape[0] = 2;
    refused(&f, NULL, WEFT_E_FORMAT, "base_model.vera_B is (2, 2), wanted (outputs, r)");
    f = vera_file("base_model.vera_A", "base_model.vera_B");
    f.t[3].shape[0] = 1, f.t[3].shape[1] = 2, f.t[3].rank = 2;
    refused(&f, NULL, WEFT_E_FORMAT, "wanted (r)");
    f = vera_file("base_model.vera_A", "base_model.vera_B");
    f.t[2].dtype = "I32";
    refused(&f, NULL, WEFT_E_FORMAT, "holds I32, wanted floating-point numbers");

    /* a file of a few bytes for each rank asks for no gigabytes */
    float *many = calloc(20000, sizeof *many);
    put(&wide, M("x.vera_lambda_b"), numbers, 4, -1, -1);
    put(&wide, M("x.vera_lambda_d"), many, 20000, -1, -1);
    weft_adapter *a = opened(&wide, seeded), *whole = NULL;
    ck_assert_int_eq(wf_adapter_complete(a, two_layers, two_slices, 1, &whole, &err), WEFT_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(err.text, "projections of rank 20000 are not made from a seed, 16384 at most"));
    weft_adapter_free(a);
    free(many);
}
END_TEST

/* ---- tensors that all modules share ---------------------------------------------------------- */

static weft_model *tiny(void)
{
    weft_model *m = NULL;

    ck_assert_msg(weft_model_open(test_path("data/models/tiny-sd1"), NULL, &m, &err) == WEFT_OK, "%s", err.text);
    return m;
}

static void check_row(const weft_report *r, size_t i, int32_t state, const char *layer, const char *reason)
{
    weft_report_row row = WEFT_REPORT_ROW_INIT;

    ck_assert_int_eq(weft_report_get(r, i, &row, &err), WEFT_OK);
    ck_assert_msg(row.state == state, "%s: %d: %s", row.key, row.state, row.reason);
    ck_assert_str_eq(row.layer, layer);
    ck_assert_msg(strstr(row.reason, reason) != NULL, "'%s' is not in: %s", reason, row.reason);
}

/* A shared key has the fate of a module that matched, if any did; it is counted once. */
START_TEST(a_shared_tensor_has_its_modules_fate)
{
    weft_model   *m = tiny();
    weft_report  *r = NULL;
    made          f = { .n = 0 };
    weft_adapter *a;

    put(&f, "base_model.vera_A", numbers, 2, 8, -1);
    put(&f, "base_model.model." K2 ".vera_lambda_b", numbers, 16, -1, -1); /* 24 inputs: A has too few */
    put(&f, "base_model.model." K2 ".vera_lambda_d", numbers, 2, -1, -1);
    put(&f, "base_model.model." Q ".vera_lambda_b", numbers, 8, -1, -1);
    put(&f, "base_model.model." Q ".vera_lambda_d", numbers, 2, -1, -1);
    put(&f, "base_model.vera_B", numbers, 16, 2, -1);
    put(&f, "base_model.vblora_vector_bank", numbers, 4, 2, -1); /* of no module here */
    a = opened(&f, NULL);
    ck_assert_int_eq(info_of(a).parameters, 16 + 16 + 2 + 8 + 2 + 32);
    ck_assert_int_eq(weft_report_create(m, a, &r, &err), WEFT_OK);
    check_row(r, 0, WEFT_KEY_MATCHED, "unet." Q, "");
    check_row(r, 1, WEFT_KEY_SHAPE_MISMATCH, "unet." K2, "its projections have fewer inputs than the layer, or it is a convolution: (16, 24)");
    check_row(r, 5, WEFT_KEY_MATCHED, "unet." Q, "");
    check_row(r, 6, WEFT_KEY_UNMATCHED, "", "not a key of a dialect");
    weft_report_free(r);
    weft_adapter_free(a);
    weft_model_free(m);
}
END_TEST

/* Behind a component's name it is that component's, and so is the configuration. */
START_TEST(components_share_their_own)
{
    made          f = { .n = 0 };
    weft_adapter *a;

    put(&f, "unet.base_model.vera_A", vera_A, 2, 3, -1);
    put(&f, "unet.base_model.vera_B", vera_B, 4, 2, -1);
    put(&f, "text_encoder.vera_A", numbers, 2, 3, -1);
    put(&f, "text_encoder.vera_B", numbers, 4, 2, -1);
    put(&f, "unet.mid_block.x.vera_lambda_b", vera_b, 3, -1, -1);
    put(&f, "unet.mid_block.x.vera_lambda_d", vera_d, 2, -1, -1);
    put(&f, "text_encoder.text_model.x.vera_lambda_b", vera_b, 3, -1, -1);
    put(&f, "text_encoder.text_model.x.vera_lambda_d", vera_d, 2, -1, -1);
    a = opened(&f, NULL);
    ck_assert_uint_eq(a->count, 2);
    ck_assert_str_eq(wf_adapter_module(a, 0)->tensor[WF_TENSOR_VERA_A]->name, "unet.base_model.vera_A");
    ck_assert_str_eq(wf_adapter_module(a, 1)->tensor[WF_TENSOR_VERA_A]->name, "text_encoder.vera_A");
    weft_adapter_free(a);

    a = open_with(&f, NULL, "{\"unet.peft_type\":\"VERA\",\"text_encoder.peft_type\":\"VERA\"}", NULL);
    ck_assert_msg(a != NULL, "%s", err.text);
    weft_adapter_free(a);
}
END_TEST

START_TEST(a_shared_tensor_stands_once)
{
    made f = vera_file("base_model.vera_A", "base_model.vera_B");

    put(&f, "base_model.vera_A.other", vera_A, 2, 3, -1);
    refused(&f, NULL, WEFT_E_FORMAT, "base_model.vera_A and base_model.vera_A.other give the same tensor of all modules");
    f = vera_file("base_model.vera_A", "base_model.vera_B");
    static const float endless[] = { 1, 2, 0, 0, INFINITY, 1 };
    f.t[0].data = endless;
    refused(&f, NULL, WEFT_E_FORMAT, "base_model.vera_A holds infinity at index 4 of 6");
}
END_TEST

/* ---- FourierFT ------------------------------------------------------------------------------- */

/* torch.randperm(n, generator=manual_seed(seed))[:3] */
static const struct { const char *config; int32_t out, in; size_t at[3]; double scaling; } orders[] = {
    { "{\"peft_type\":\"FOURIERFT\"}", 1280, 768, { 981095, 378424, 18575 }, 150 },
    { "{\"peft_type\":\"FOURIERFT\",\"scaling\":2.5,\"random_loc_seed\":-3}", 1280, 768, { 653091, 457053, 727653 }, 2.5 },
    { "{\"peft_type\":\"FOURIERFT\",\"scaling\":1e3,\"random_loc_seed\":1099511627781}", 10240, 1280, { 9735011, 1067233, 4215339 }, 1e3 },
};

START_TEST(frequencies_stand_where_torch_puts_them)
{
    static const float spectrum[] = { 1, -2, 0.5f };
    const int32_t      out = orders[_i].out, in = orders[_i].in;
    made               f = { .n = 0 };
    weft_adapter      *a;
    float             *got = malloc((size_t)out * (size_t)in * sizeof *got);
    double             worst = 0, most = 0;

    put(&f, M("x.fourierft_spectrum"), spectrum, 3, -1, -1);
    a = opened(&f, orders[_i].config);
    adds(a, 0, NULL, out, in, 1, 1, got);
    for (int32_t p = 0; p < out; p += 37)
        for (int32_t q = 0; q < in; q += 41) {
            double want = 0;
            for (int k = 0; k < 3; k++) {
                size_t u = orders[_i].at[k] / (size_t)in, v = orders[_i].at[k] % (size_t)in;
                want += (double)spectrum[k] *
                        cos(2 * 3.14159265358979323846 * ((double)u * p / out + (double)v * q / in));
            }
            want *= orders[_i].scaling / ((double)out * in);
            most = fmax(most, fabs(want));
            worst = fmax(worst, fabs(want - (double)got[(size_t)p * (size_t)in + (size_t)q]));
        }
    ck_assert_msg(worst < 1e-6 * most, "relative error %g", worst / most);
    ck_assert_float_eq((float)orders[_i].scaling, module_of(a, 0).scale);
    weft_adapter_free(a);
    free(got);
}
END_TEST

/* All of a layer's frequencies: rows of odd and even number, the first row, one row alone. */
START_TEST(all_frequencies_of_small_layers)
{
    static const int32_t sizes[][2] = { { 1, 1 }, { 1, 5 }, { 5, 1 }, { 2, 3 }, { 3, 2 }, { 4, 4 }, { 70, 2 }, { 131, 3 } };
    const int32_t        out = sizes[_i][0], in = sizes[_i][1], n = out * in;
    made                 f = { .n = 0 };
    float               *spectrum = malloc((size_t)n * sizeof *spectrum), *got = malloc((size_t)n * sizeof *got);
    weft_adapter        *a;
    wf_mersenne          g;
    double               sum = 0;

    wf_mersenne_seed(&g, 5);
    for (int32_t i = 0; i < n; i++) spectrum[i] = wf_mersenne_uniform(&g) - 0.5f;
    put(&f, M("x.fourierft_spectrum"), spectrum, n, -1, -1);
    a = opened(&f, "{\"peft_type\":\"FOURIERFT\",\"scaling\":1}");
    adds(a, 0, NULL, out, in, 1, 1, got);
    for (int32_t i = 0; i < n; i++) sum += (double)spectrum[i];
    ck_assert_double_eq_tol((double)got[0] * n, sum, 1e-5); /* every wave is 1 at the origin */
    double energy = 0, even = 0;
    for (int32_t i = 0; i < n; i++) energy += (double)got[i] * (double)got[i];
    for (int32_t p = 0; p < out; p++) /* real parts alone: the matrix is its own mirror image */
        for (int32_t q = 0; q < in; q++)
            even = fmax(even, fabs((double)got[p * in + q] - (double)got[(out - p) % out * in + (in - q) % in]));
    ck_assert_double_lt(even, 1e-6);
    ck_assert_double_gt(energy, 0);
    weft_adapter_free(a);
    free(spectrum);
    free(got);
}
END_TEST

START_TEST(frequencies_need_their_configuration)
{
    made          f = { .n = 0 };
    weft_adapter *a;
    wf_layer      l = { .name = "x", .out = 2, .in = 4, .kernel = 1, .kind = WEFT_LAYER_LINEAR };

    put(&f, M("x.fourierft_spectrum"), numbers, 9, -1, -1);
    refused(&f, NULL, WEFT_E_FORMAT, "no configuration says its scaling and random_loc_seed: keep adapter_config.json beside the file");
    refused(&f, "{\"peft_type\":\"FOURIERFT\",\"scaling\":1e300}", WEFT_E_FORMAT, "a scaling that is no finite number");
    refused(&f, "{\"peft_type\":\"FOURIERFT\",\"random_loc_seed\":1.5}", WEFT_E_FORMAT, "no configuration says its scaling");
    a = opened(&f, "{\"peft_type\":\"FOURIERFT\"}");
    ck_assert(!wf_module_fits(wf_adapter_module(a, 0), &l)); /* nine of eight */
    l.in = 5;
    ck_assert(wf_module_fits(wf_adapter_module(a, 0), &l));
    l.kernel = 3, l.kind = WEFT_LAYER_CONV;
    ck_assert(!wf_module_fits(wf_adapter_module(a, 0), &l));
    l = (wf_layer){ .name = "x", .out = 20000, .in = 20000, .kernel = 1, .kind = WEFT_LAYER_LINEAR };
    ck_assert(!wf_module_fits(wf_adapter_module(a, 0), &l)); /* torch's other way to draw */
    weft_adapter_free(a);
    f.t[0].shape[1] = 1, f.t[0].rank = 2;
    refused(&f, "{\"peft_type\":\"FOURIERFT\"}", WEFT_E_FORMAT, "wanted (n)");
}
END_TEST

/* ---- HRA ------------------------------------------------------------------------------------- */

/* u1 = (3, 4) / 5, u2 = (1, 0).  H1 = I - 2 u1 u1^T = [7 -24; -24 -7] / 25, H2 = diag(-1, 1).
 * W = [1 0; 0 1; 1 1]:  W H1 H2 = [-7 -24; 24 -7; 17 -31] / 25.   Made orthogonal first they span the plane: W' = -W. */
static const float  hra_u[] = { 3, 1, 4, 0 }, hra_W[] = { 1, 0, 0, 1, 1, 1 };
static const double hra_turned[] = { -32 / 25., -24 / 25., 24 / 25., -32 / 25., -8 / 25., -56 / 25. },
                    hra_mirrored[] = { -2, 0, 0, -2, -2, -2 };

START_TEST(hra_reflects_in_turn)
{
    static const char *const configs[] = { "{\"peft_type\":\"HRA\",\"apply_GS\":false}", "{\"peft_type\":\"HRA\",\"apply_GS\":true}" };
    made          f = { .n = 0 };
    weft_adapter *a;
    float         got[6];

    put(&f, M("x.hra_u"), hra_u, 2, 2, -1);
    a = opened(&f, configs[_i]);
    adds(a, 0, hra_W, 3, 2, 1, 1, got);
    near(got, _i == 0 ? hra_turned : hra_mirrored, 6, LIMIT);
    adds(a, 0, hra_W, 3, 2, 1, 0.25, got);
    ck_assert_double_eq_tol((double)got[0], 0.25 * (_i == 0 ? hra_turned : hra_mirrored)[0], LIMIT);
    ck_assert(wf_module_of_weight(wf_adapter_module(a, 0)));
    weft_adapter_free(a);
}
END_TEST

/* Columns of a convolution run over (in, ky, kx): with u on the second of two channels at (0, 0) that entry changes its sign. */
START_TEST(hra_turns_a_convolution_in_the_files_order)
{
    float         u[8] = { 0 }, W[8] = { 1, 2, 3, 4, 5, 6, 7, 8 }, got[8];
    made          f = { .n = 0 };
    weft_adapter *a;

    u[4] = -3;
    put(&f, M("x.hra_u"), u, 8, 1, -1);
    a = opened(&f, "{\"peft_type\":\"HRA\"}");
    adds(a, 0, W, 1, 2, 2, 1, got);
    for (int i = 0; i < 8; i++) ck_assert_float_eq_tol(got[i], i == 4 ? -10.f : 0.f, 1e-6f);
    weft_adapter_free(a);
}
END_TEST

START_TEST(hra_needs_directions)
{
    static const float zero[] = { 1, 0, 2, 0 }, same[] = { 1, 2, 0, 0 };
    static const char  gs[] = "{\"peft_type\":\"HRA\",\"apply_GS\":true}";
    made               f = { .n = 0 };
    weft_adapter      *a;
    sample             s = { .count = 0 };
    float              sum[6] = { 0 };

    put(&f, M("x.hra_u"), zero, 2, 2, -1);
    refused(&f, gs, WEFT_E_FORMAT, "column 1 of hra_u is zero: it has no direction");
    f.t[0].data = hra_u;
    refused(&f, NULL, WEFT_E_FORMAT, "no configuration says whether apply_GS is set: keep adapter_config.json");
    static const float many[5000] = { 1 };
    f.t[0].data = many, f.t[0].shape[0] = 1, f.t[0].shape[1] = 5000;
    refused(&f, gs, WEFT_E_FORMAT, "(1, 5000), wanted no more reflections than columns");
    f.t[0].shape[0] = f.t[0].shape[1] = 2;
    f.t[0].data = same; /* PEFT makes NaN of it */
    a = opened(&f, gs);
    s.m = *wf_adapter_module(a, 0);
    lay(&s, hra_W, 3, 2, 1);
    ck_assert_int_eq(wf_module_add(&s.m, &s.l, 1, 1, 1, sum, heap(), &err), WEFT_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(err.text, "a column of hra_u lies within those before it"));
    weft_adapter_free(a);
}
END_TEST

/* ---- SHiRA ----------------------------------------------------------------------------------- */

static const float   shira_v[] = { 1, -2, 0.5f };
static const int32_t shira_at[] = { 0, 1, 1, 2, 0, 0 }; /* (0, 2) (1, 0) (1, 0) */
static const float   shira_float[] = { 0, 1, 1, 2, 0, 0 };
static const int64_t shira_long[] = { 0, 1, 1, 2, 0, 0 };

START_TEST(shira_is_a_few_values)
{
    static const struct { const char *dtype; const void *data; } ways[] = {
        { "I32", shira_at }, { "F32", shira_float }, { "I64", shira_long },
    };
    static const double want[] = { 0, 0, 1, -1.5, 0, 0 };
    made                f = { .n = 0 };
    weft_adapter       *a;
    float               got[6];
    wf_layer            l = { .name = "x", .out = 1, .in = 3, .kernel = 1, .kind = WEFT_LAYER_LINEAR };

    put(&f, M("x.shira_weight"), shira_v, 3, -1, -1);
    put_as(&f, M("x.shira_indices"), ways[_i].dtype, ways[_i].data, 2, 3, -1);
    a = opened(&f, NULL);
    adds(a, 0, NULL, 2, 3, 1, 1, got);
    near(got, want, 6, LIMIT);
    ck_assert(!wf_module_fits(wf_adapter_module(a, 0), &l)); /* a row too few */
    l.out = 2, l.in = 2;
    ck_assert(!wf_module_fits(wf_adapter_module(a, 0), &l)); /* a column too few */
    weft_adapter_free(a);
}
END_TEST

START_TEST(shira_indices_are_whole_numbers)
{
    static const float   bad[][6] = { { 0, 1, 1, 2, 0, -1 }, { 0, 1, 1, 2, 0.5f, 0 }, { 0, 1, 1, 2, 0, 16777216 }, { 0, NAN, 1, 2, 0, 0 } };
    static const char   *words[] = { "holds -1 at index 5, wanted whole numbers below 16777216", "holds 0.5 at index 4",
                                     "holds 16777216 at index 5", "at index 1" };
    static const int32_t low[] = { 0, 1, 1, 2, -7, 0 };
    made                 f = { .n = 0 };

    put(&f, M("x.shira_weight"), shira_v, 3, -1, -1);
    put(&f, M("x.shira_indices"), bad[_i], 2, 3, -1);
    refused(&f, NULL, WEFT_E_FORMAT, words[_i]);
    f.t[1].dtype = "I32", f.t[1].data = low;
    refused(&f, NULL, WEFT_E_FORMAT, "holds -7 at index 4");
    f.t[1].dtype = "F16";
    refused(&f, NULL, WEFT_E_FORMAT, "holds F16, wanted whole numbers");
    f.t[1] = (weft_tensor_out){ .struct_size = sizeof f.t[1], .name = M("x.shira_indices"), .dtype = "I32", .data = shira_at,
                                .shape = { 3, 2 }, .rank = 2 };
    refused(&f, NULL, WEFT_E_FORMAT, "is (3, 2), wanted (2, n) with the n of shira_weight");
}
END_TEST

/* ---- VB-LoRA --------------------------------------------------------------------------------- */

/* Three vectors (1 2), (10 20), (100 200). A (1, 2 pieces): logits (0 ln3 -9) take the first two by 1/4 and 3/4: (7.75 15.5);
 * (5 -9 5) the first and last by halves: (50.5 101). B (1 piece, 1): (-9 0 0): (55 110). */
static const float bank[] = { 1, 2, 10, 20, 100, 200 }, logits_A[] = { 0, 1.0986123f, -9, 5, -9, 5 }, logits_B[] = { -9, 0, 0 };
static const double bank_sum[] = { 55 * 7.75, 55 * 15.5, 55 * 50.5, 55 * 101., 110 * 7.75, 110 * 15.5, 110 * 50.5, 110 * 101. };
static const uint8_t best_A[] = { 1, 0, 0, 2 }, best_B[] = { 2, 1 };
static const float   weights_A[] = { 0.75f, 0.5f }, weights_B[] = { 0.5f };
static const char    top2[] = "{\"peft_type\":\"VBLORA\",\"topk\":2}";

static made logits_file(void)
{
    made f = { .n = 0 };

    put(&f, "base_model.vblora_vector_bank", bank, 3, 2, -1);
    put(&f, M("x.vblora_logits_A"), logits_A, 1, 2, 3);
    put(&f, M("x.vblora_logits_B"), logits_B, 1, 1, 3);
    return f;
}

static made best_file(void)
{
    made f = { .n = 0 };

    put(&f, "base_model.vblora_vector_bank.default", bank, 3, 2, -1);
    put_as(&f, M("x.vblora_logits_A_topk_indices"), "U8", best_A, 1, 2, 2);
    put(&f, M("x.vblora_logits_A_topk_weights"), weights_A, 1, 2, 1);
    put_as(&f, M("x.vblora_logits_B_topk_indices"), "U8", best_B, 1, 1, 2);
    put(&f, M("x.vblora_logits_B_topk_weights"), weights_B, 1, 1, 1);
    return f;
}

START_TEST(vblora_takes_the_best_of_its_bank)
{
    made          f = _i == 0 ? logits_file() : best_file();
    weft_adapter *a = opened(&f, _i == 0 ? top2 : NULL); /* what is kept of logits says its topk */
    float         got[8];

    adds(a, 0, NULL, 2, 4, 1, 1, got);
    near(got, bank_sum, 8, 2e-3); /* of numbers up to 11110 */
    ck_assert_int_eq(module_of(a, 0).in, 4);
    ck_assert_int_eq(module_of(a, 0).out, 2);
    weft_adapter_free(a);
}
END_TEST

/* The columns of B are the middle dimension: piece o of column p. */
START_TEST(vblora_has_columns_of_pieces)
{
    static const float   one_bank[] = { 1, 10 }; /* vectors of one number */
    static const uint8_t A[] = { 0, 1 }, B[] = { 0, 1, 1, 0, 1, 1 };
    static const double  want[] = { 1 + 100, 10 + 10, 10 + 100 };
    made                 f = { .n = 0 };
    weft_adapter        *a;
    float                got[3];

    put(&f, "base_model.vblora_vector_bank", one_bank, 2, 1, -1);
    put_as(&f, M("x.vblora_logits_A_topk_indices"), "U8", A, 2, 1, 1);
    put(&f, M("x.vblora_logits_A_topk_weights"), numbers, 2, 1, 0); /* of one vector no weight is kept */
    put_as(&f, M("x.vblora_logits_B_topk_indices"), "U8", B, 3, 2, 1);
    put(&f, M("x.vblora_logits_B_topk_weights"), numbers, 3, 2, 0);
    a = opened(&f, top2);
    adds(a, 0, NULL, 3, 1, 1, 1, got);
    near(got, want, 3, LIMIT);
    weft_adapter_free(a);
}
END_TEST

START_TEST(vblora_is_refused_where_it_is_incomplete)
{
    made f = logits_file();

    refused(&f, NULL, WEFT_E_FORMAT, "no configuration says a topk from 1 to the bank's 3 vectors");
    refused(&f, "{\"peft_type\":\"VBLORA\",\"topk\":4}", WEFT_E_FORMAT, "a topk from 1 to the bank's 3 vectors");
    refused(&f, "{\"peft_type\":\"VBLORA\",\"topk\":0}", WEFT_E_FORMAT, "a topk from 1");
    f.t[0].shape[0] = 2;
    refused(&f, top2, WEFT_E_FORMAT, "vblora_logits_A is (1, 2, 3), wanted (r, pieces, vectors of the bank)");
    f = logits_file();
    f.t[2].shape[1] = 2, f.t[2].data = numbers;
    refused(&f, top2, WEFT_E_FORMAT, "vblora_logits_B is (1, 2, 3), wanted (pieces, r, as many as vblora_logits_A)");
    f = logits_file();
    f.n = 2;
    refused(&f, top2, WEFT_E_FORMAT, "wanted vblora_logits_A and _B, or topk_indices and topk_weights of both");
    f = logits_file();
    f.t[1] = f.t[--f.n];
    refused(&f, top2, WEFT_E_FORMAT, "wanted vblora_logits_A and _B");
    f = best_file();
    f.t[1] = f.t[--f.n];
    refused(&f, top2, WEFT_E_FORMAT, "topk_weights of both");
    f = best_file();
    f.t[0].shape[0] = 2;
    refused(&f, top2, WEFT_E_FORMAT, "vblora_logits_A_topk_indices holds 2 at index 3, wanted whole numbers below 2");
    f = best_file();
    f.t[2].shape[2] = 2, f.t[2].data = numbers;
    refused(&f, top2, WEFT_E_FORMAT, "wanted one weight less than there are indices");
    f = logits_file();
    f.t[0].name = M("y.other");
    refused(&f, top2, WEFT_E_FORMAT, "the file has no vblora_vector_bank");
}
END_TEST

/* ---- LN tuning ------------------------------------------------------------------------------- */

START_TEST(ln_tuning_replaces_normalisations)
{
    static const char norm[] = "base_model.model.down_blocks.1.attentions.0.transformer_blocks.0.norm1";
    static const char *const ends[][2] = { { ".ln_tuning_layers.weight", ".ln_tuning_layers.bias" },
                                           { ".ln_tuning_layers.default.weight", ".ln_tuning_layers.default.bias" } };
    char          keys[2][200];
    made          f = { .n = 0 };
    weft_model   *m = tiny();
    weft_report  *r = NULL;
    weft_adapter *a;

    for (int i = 0; i < 2; i++) snprintf(keys[i], sizeof keys[i], "%s%s", norm, ends[_i][i]);
    put(&f, keys[0], numbers, 16, -1, -1);
    put(&f, keys[1], numbers, 16, -1, -1);
    a = opened(&f, "{\"peft_type\":\"LN_TUNING\"}");
    ck_assert_uint_eq(a->count, 1);
    ck_assert_int_eq(weft_report_create(m, a, &r, &err), WEFT_OK);
    ck_assert_uint_eq(weft_report_tally(r, WEFT_KEY_MATCHED), 2);
    weft_report_free(r);
    weft_adapter_free(a);
    weft_model_free(m);
}
END_TEST

/* ---- writing --------------------------------------------------------------------------------- */

/* Halved factors are F16; indices stay what they are. */
START_TEST(indices_are_not_halved)
{
    made              f = { .n = 0 };
    weft_model       *m = tiny();
    weft_save_options o = WEFT_SAVE_OPTIONS_INIT;
    const char       *dir = test_dir();
    char              file[600];
    static int32_t    at[2 * 16];
    weft_adapter     *a;
    weft_tensors     *t = NULL;

    for (int i = 0; i < 16; i++) at[i] = i / 2, at[16 + i] = i % 8;
    put(&f, "base_model.model." Q ".shira_weight", numbers, 16, -1, -1);
    put_as(&f, "base_model.model." Q ".shira_indices", "I32", at, 2, 16, -1);
    a = opened(&f, NULL);
    o.dialect = WEFT_DIALECT_PEFT;
    o.flags = WEFT_SAVE_HALF;
    ck_assert_msg(weft_adapter_save(a, m, dir, &o, &err) == WEFT_OK, "%s", err.text);
    snprintf(file, sizeof file, "%s/unet/adapter_model.safetensors", dir);
    ck_assert_msg(weft_tensors_open(file, NULL, &t, &err) == WEFT_OK, "%s", err.text);
    for (size_t i = 0; i < wf_tensors_count(t); i++) {
        const wf_tensor *one = wf_tensors_at(t, i);
        ck_assert_int_eq(one->dtype, strstr(one->name, "indices") != NULL ? WF_I32 : WF_F16);
    }
    weft_tensors_free(t);
    unlink(file);
    snprintf(file, sizeof file, "%s/unet/adapter_config.json", dir);
    unlink(file);
    snprintf(file, sizeof file, "%s/unet", dir);
    rmdir(file);
    test_rmdir(dir);
    weft_adapter_free(a);
    weft_model_free(m);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("adapter: PEFT's other methods");
    TCase *t = tcase_create("VeRA");

    tcase_add_loop_test(t, vera_is_scaled_projections, 0, 4);
    tcase_add_test(t, vera_is_made_from_its_seed);
    tcase_add_test(t, an_adapter_is_completed_only_where_it_must);
    tcase_add_test(t, projections_without_memory_are_none);
    tcase_add_test(t, vera_is_refused_where_it_cannot_be_had);
    suite_add_tcase(s, t);
    t = tcase_create("shared tensors");
    tcase_add_test(t, a_shared_tensor_has_its_modules_fate);
    tcase_add_test(t, components_share_their_own);
    tcase_add_test(t, a_shared_tensor_stands_once);
    suite_add_tcase(s, t);
    t = tcase_create("FourierFT");
    tcase_add_loop_test(t, frequencies_stand_where_torch_puts_them, 0, (int)WF_LEN(orders));
    tcase_add_loop_test(t, all_frequencies_of_small_layers, 0, 8);
    tcase_add_test(t, frequencies_need_their_configuration);
    tcase_set_timeout(t, 60);
    suite_add_tcase(s, t);
    t = tcase_create("HRA, SHiRA");
    tcase_add_loop_test(t, hra_reflects_in_turn, 0, 2);
    tcase_add_test(t, hra_turns_a_convolution_in_the_files_order);
    tcase_add_test(t, hra_needs_directions);
    tcase_add_loop_test(t, shira_is_a_few_values, 0, 3);
    tcase_add_loop_test(t, shira_indices_are_whole_numbers, 0, 4);
    suite_add_tcase(s, t);
    t = tcase_create("VB-LoRA, LN tuning, writing");
    tcase_add_loop_test(t, vblora_takes_the_best_of_its_bank, 0, 2);
    tcase_add_test(t, vblora_has_columns_of_pieces);
    tcase_add_test(t, vblora_is_refused_where_it_is_incomplete);
    tcase_add_loop_test(t, ln_tuning_replaces_normalisations, 0, 2);
    tcase_add_test(t, indices_are_not_halved);
    suite_add_tcase(s, t);
    return run_suite(s);
}
