/* Weights as curves over the calls, and masks over the image: what they are, what they leave alone,
 * and what is refused. What they compute is held against Python by test_compose.c. */
#include <math.h>

#include "base/base.h"
#include "golden.h"
#include "plain.h"
#include "plan/plan_internal.h"

enum { H = 6, W = 8, N = 4 * H * W, TEXT = 77 * 24 };

static weft_model   *model;
static weft_adapter *content, *style;
static float         latent[N], cond[TEXT], uncond[TEXT], values[H * W];

static void setup(void)
{
    weft_noise *noise;
    must(weft_model_open(data_path("models/tiny-sd1"), NULL, &model, &golden_err));
    must(weft_adapter_open(data_path("adapters/content.safetensors"), NULL, &content, &golden_err));
    must(weft_adapter_open(data_path("adapters/style.safetensors"), NULL, &style, &golden_err));
    must(weft_noise_create(12, NULL, &noise, &golden_err));
    must(weft_noise_normal(noise, latent, N, &golden_err));
    must(weft_noise_normal(noise, cond, TEXT, &golden_err));
    must(weft_noise_normal(noise, uncond, TEXT, &golden_err));
    weft_noise_free(noise);
}

static void teardown(void)
{
    weft_model_free(model);
    weft_adapter_free(content);
    weft_adapter_free(style);
}

static weft_plan *plan_of(weft_adapter *a, float weight, weft_adapter *b, float weight_b)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan *plan;
    o.path = WEFT_PATH_SIDE;
    must(weft_plan_create(model, &o, &plan, &golden_err));
    if (a != NULL) must(weft_plan_add(plan, a, weight, NULL, &golden_err));
    if (b != NULL) must(weft_plan_add(plan, b, weight_b, NULL, &golden_err));
    return plan;
}

/* The prediction at a call of a plan of 10; frees the plan. */
static void predict(weft_plan *plan, int32_t call, int32_t threads, float *out)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    plain_step s = PLAIN_STEP_INIT;
    weft_run *run;
    must(weft_plan_seal(plan, 10, &golden_err));
    o.threads = threads;
    o.height = H;
    o.width = W;
    must(weft_run_create(plan, &o, &run, &golden_err));
    s.latent = latent;
    s.latent_len = s.out_len = N;
    s.out = out;
    s.text = cond;
    s.negative = uncond;
    s.text_len = s.negative_len = TEXT;
    s.timestep = 481;
    s.guidance = 5;
    s.call = call;
    must(plain_run_step(run, &s, &golden_err));
    weft_run_free(run);
    weft_plan_free(plan);
}

static void same_bits(const char *what, const float *a, const float *b)
{
    ck_assert_msg(memcmp(a, b, N * sizeof *a) == 0, "%s: bits differ (relative %g)", what, relative(a, b, N, NULL));
}

static weft_curve_point point(double at, double value, int32_t shape)
{
    weft_curve_point p = WEFT_CURVE_POINT_INIT;
    p.at = at;
    p.value = value;
    p.shape = shape;
    return p;
}

static weft_mask mask_of(float fill)
{
    weft_mask m = WEFT_MASK_INIT;
    for (int i = 0; i < H * W; i++) values[i] = fill;
    m.values = values;
    m.len = H * W;
    m.height = H;
    m.width = W;
    return m;
}

static void refused(weft_status want, const char *word, weft_status got)
{
    ck_assert_msg(got == want, "%d, wanted %d: %s", got, want, golden_err.text);
    ck_assert_msg(strstr(golden_err.text, word) != NULL, "'%s' is not in: %s", word, golden_err.text);
    ck_assert_ptr_null(strchr(golden_err.text, '\n'));
}

static float cell(const weft_plan *plan, int32_t call, int64_t layer)
{
    weft_cell c = WEFT_CELL_INIT;
    must(weft_plan_cell(plan, call, 0, layer, 0, &c, &golden_err));
    return c.number;
}

/* The layer of the denoiser where content acts first. */
static int64_t some_layer(const weft_plan *plan)
{
    size_t count;
    const wf_layer *layers = wf_model_layers(model, &count);
    for (size_t l = 0; l < count; l++)
        if (layers[l].component == WEFT_COMPONENT_DENOISER && wf_plan_module(plan, 0, (int32_t)l) != NULL)
            return (int64_t)l;
    ck_abort_msg("no layer");
}

START_TEST(a_curve_has_the_values_of_its_formulas)
{
    weft_plan *plan = plan_of(content, 0.5f, NULL, 0), *copy;
    const weft_curve_point p[] = { point(1, 1, WEFT_CURVE_LINEAR), point(3, 0, WEFT_CURVE_COSINE),
                                   point(7, 2, WEFT_CURVE_HOLD), point(8, -1, WEFT_CURVE_LINEAR),
                                   point(8, 0.25, WEFT_CURVE_LINEAR) };
    const double want[] = { 1, 1, 0.5, 0, 1 - sqrt(0.5), 1, 1 + sqrt(0.5), 2, 0.25, 0.25 };

    must(weft_plan_set_curve(plan, 0, 0, p, WF_LEN(p), &golden_err));
    for (int32_t n = 0; n < 10; n++)
        ck_assert_double_eq_tol(wf_curve_at(plan->entry[0].curve, n, 10), want[n], 1e-12);
    must(weft_plan_seal(plan, 10, &golden_err));
    int64_t layer = some_layer(plan);
    for (int32_t n = 0; n < 10; n++) ck_assert_float_eq_tol(cell(plan, n, layer), (float)(0.5 * want[n]), 1e-7f);

    must(weft_plan_copy(plan, &copy, &golden_err)); /* keeps it, until another is put in its place */
    must(weft_plan_seal(copy, 10, &golden_err));
    ck_assert_float_eq_tol(cell(copy, 7, layer), 1, 1e-7f);
    weft_plan_free(copy);
    must(weft_plan_copy(plan, &copy, &golden_err));
    must(weft_plan_set_curve(copy, 0, 0, NULL, 0, &golden_err));
    must(weft_plan_seal(copy, 10, &golden_err));
    for (int32_t n = 0; n < 10; n++) ck_assert_float_eq(cell(copy, n, layer), 0.5f);
    weft_plan_free(copy);
    must(weft_plan_copy(plan, &copy, &golden_err));
    must(weft_plan_replace(copy, 0, content, 0.5f, NULL, &golden_err));
    must(weft_plan_seal(copy, 10, &golden_err));
    ck_assert_float_eq(cell(copy, 3, layer), 0.5f);
    weft_plan_free(copy);
    weft_plan_free(plan);
}
END_TEST

/* Shares follow the number of calls, and a phase counts the calls of the plan. */
START_TEST(a_curve_runs_over_the_whole_plan)
{
    weft_plan *plan = plan_of(content, 1, NULL, 0);
    const weft_curve_point p[] = { point(0, 0, WEFT_CURVE_LINEAR), point(1, 1, WEFT_CURVE_LINEAR) };
    weft_phase_options o = WEFT_PHASE_OPTIONS_INIT;

    must(weft_plan_set_curve(plan, 0, WEFT_CURVE_AT_SHARE, p, 2, &golden_err));
    o.first = 4;
    must(weft_plan_begin_phase(plan, &o, &golden_err));
    must(weft_plan_seal(plan, 16, &golden_err));
    int64_t layer = some_layer(plan);
    for (int32_t n = 0; n < 16; n++) ck_assert_float_eq(cell(plan, n, layer), (float)n / 16);
    weft_plan_free(plan);
}
END_TEST

START_TEST(a_wrong_curve_is_refused)
{
    weft_plan *plan = plan_of(content, 1, NULL, 0);
    weft_curve_point p[2] = { point(3, 1, WEFT_CURVE_HOLD), point(2, 1, WEFT_CURVE_HOLD) };

    refused(WEFT_E_ARG, "goes forwards", weft_plan_set_curve(plan, 0, 0, p, 2, &golden_err));
    refused(WEFT_E_ARG, "adapter 1 of 1", weft_plan_set_curve(plan, 1, 0, p, 1, &golden_err));
    refused(WEFT_E_UNSUPPORTED, "flags are 6", weft_plan_set_curve(plan, 0, 6, p, 1, &golden_err));
    refused(WEFT_E_ARG, "wanted 0 to 1", weft_plan_set_curve(plan, 0, WEFT_CURVE_AT_SHARE, p, 1, &golden_err));
    refused(WEFT_E_ARG, "points is NULL", weft_plan_set_curve(plan, 0, 0, NULL, 1, &golden_err));
    refused(WEFT_E_UNSUPPORTED, "at most", weft_plan_set_curve(plan, 0, 0, p, 5000, &golden_err));
    p[0].at = -1;
    refused(WEFT_E_ARG, "is at -1", weft_plan_set_curve(plan, 0, 0, p, 1, &golden_err));
    p[0].at = NAN;
    refused(WEFT_E_ARG, "is at nan", weft_plan_set_curve(plan, 0, 0, p, 1, &golden_err));
    p[0] = point(0, INFINITY, WEFT_CURVE_HOLD);
    refused(WEFT_E_ARG, "not a finite", weft_plan_set_curve(plan, 0, 0, p, 1, &golden_err));
    p[0] = point(0, 1e200, WEFT_CURVE_HOLD);
    refused(WEFT_E_ARG, "not a finite", weft_plan_set_curve(plan, 0, 0, p, 1, &golden_err));
    p[0] = point(0, 1, 3);
    refused(WEFT_E_ARG, "WEFT_CURVE_", weft_plan_set_curve(plan, 0, 0, p, 1, &golden_err));
    p[0] = point(0, 1, WEFT_CURVE_HOLD);
    p[0].reserved0 = 1;
    refused(WEFT_E_UNSUPPORTED, "reserved0 is 1", weft_plan_set_curve(plan, 0, 0, p, 1, &golden_err));
    p[0] = point(0, 1, WEFT_CURVE_HOLD);
    p[1].struct_size += 8;
    refused(WEFT_E_ARG, "the first has", weft_plan_set_curve(plan, 0, 0, p, 2, &golden_err));
    ck_assert_ptr_null(plan->entry[0].curve);
    must(weft_plan_seal(plan, 3, &golden_err));
    refused(WEFT_E_STATE, "sealed", weft_plan_set_curve(plan, 0, 0, p, 1, &golden_err));
    weft_plan_free(plan);
}
END_TEST

/* What multiplies a weight may take it past a float, and is refused before it meets a layer. */
START_TEST(a_weight_beyond_floats_is_refused)
{
    weft_plan *plan = plan_of(content, 3e38f, NULL, 0);
    const weft_curve_point p = point(0, 10, WEFT_CURVE_HOLD);

    must(weft_plan_set_curve(plan, 0, 0, &p, 1, &golden_err));
    refused(WEFT_E_UNSUPPORTED, "more than a float", weft_plan_seal(plan, 2, &golden_err));
    weft_plan_free(plan);
}
END_TEST

/* What an image was made with is said. */
START_TEST(the_report_has_curves_and_masks)
{
    weft_plan *plan = plan_of(content, 1, NULL, 0);
    const weft_curve_point p[] = { point(0, 0.5, WEFT_CURVE_LINEAR), point(6, 2, WEFT_CURVE_HOLD) };
    weft_mask m = mask_of(1);
    char text[8192];
    size_t needed;

    must(weft_plan_set_curve(plan, 0, 0, p, 2, &golden_err));
    must(weft_plan_set_mask(plan, 0, &m, &golden_err));
    must(weft_plan_seal(plan, 8, &golden_err));
    must(weft_plan_text(plan, text, sizeof text, &needed, &golden_err));
    ck_assert_ptr_nonnull(strstr(text, "curve 0: 0.5, 6: 2 at calls"));
    ck_assert_ptr_nonnull(strstr(text, "in a mask of 8 x 6"));
    weft_plan_free(plan);
}
END_TEST

START_TEST(a_full_mask_is_none_and_an_empty_one_is_the_base)
{
    float plain[N], base[N], got[N];
    weft_plan *plan = plan_of(content, 0.8f, NULL, 0);
    weft_mask m = mask_of(1);

    predict(plan_of(content, 0.8f, NULL, 0), 0, 2, plain);
    predict(plan_of(NULL, 0, NULL, 0), 0, 2, base);
    must(weft_plan_set_mask(plan, 0, &m, &golden_err));
    predict(plan, 0, 2, got);
    same_bits("a full mask", got, plain);

    plan = plan_of(content, 0.8f, NULL, 0);
    m = mask_of(0);
    m.flags = WEFT_MASK_TEXT;
    must(weft_plan_set_mask(plan, 0, &m, &golden_err));
    predict(plan, 0, 2, got);
    same_bits("an empty mask", got, base);

    plan = plan_of(content, 0.8f, NULL, 0); /* and one that is taken away */
    must(weft_plan_set_mask(plan, 0, &m, &golden_err));
    must(weft_plan_set_mask(plan, 0, NULL, &golden_err));
    predict(plan, 0, 2, got);
    same_bits("no mask", got, plain);
    ck_assert_msg(relative(plain, base, N, NULL) > 1e-3, "the adapter does nothing");
}
END_TEST

/* The same adapter in two masks that fill the image is the adapter. */
START_TEST(parts_make_the_whole)
{
    float plain[N], got[N], one[N], text;
    weft_plan *plan = plan_of(content, 0.8f, content, 0.8f);
    weft_mask m = mask_of(0);

    predict(plan_of(content, 0.8f, NULL, 0), 0, 2, plain);
    m.flags = WEFT_MASK_TEXT;
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < H * W; i++) {
            float left = (float)(i % W) / (W - 1);
            values[i] = k == 0 ? left : 1 - left;
        }
        text = k == 0 ? 0.25f : 0.75f;
        m.text = text;
        must(weft_plan_set_mask(plan, k, &m, &golden_err));
    }
    weft_plan *again;
    must(weft_plan_copy(plan, &again, &golden_err));
    predict(plan, 0, 2, got);
    predict(again, 0, 1, one);
    ck_assert_msg(relative(got, plain, N, NULL) < 1e-5, "relative %g", relative(got, plain, N, NULL));
    same_bits("one thread", one, got);
}
END_TEST

START_TEST(a_wrong_mask_is_refused)
{
    weft_plan *plan = plan_of(content, 1, NULL, 0);
    weft_mask m = mask_of(1);

    m.len = 7;
    refused(WEFT_E_ARG, "has 7 values, wanted 48", weft_plan_set_mask(plan, 0, &m, &golden_err));
    m = mask_of(1);
    m.height = 0;
    refused(WEFT_E_ARG, "8 x 0", weft_plan_set_mask(plan, 0, &m, &golden_err));
    m = mask_of(1);
    m.values = NULL;
    refused(WEFT_E_ARG, "values is NULL", weft_plan_set_mask(plan, 0, &m, &golden_err));
    m = mask_of(1);
    values[17] = 1.5f;
    refused(WEFT_E_ARG, "row 2, column 1", weft_plan_set_mask(plan, 0, &m, &golden_err));
    values[17] = NAN;
    refused(WEFT_E_ARG, "row 2, column 1", weft_plan_set_mask(plan, 0, &m, &golden_err));
    m = mask_of(1);
    m.flags = WEFT_MASK_TEXT;
    m.text = -1;
    refused(WEFT_E_ARG, "text is not between", weft_plan_set_mask(plan, 0, &m, &golden_err));
    m = mask_of(1);
    m.reserved0 = 1;
    refused(WEFT_E_UNSUPPORTED, "reserved0", weft_plan_set_mask(plan, 0, &m, &golden_err));
    m = mask_of(1);
    refused(WEFT_E_ARG, "adapter 2 of 1", weft_plan_set_mask(plan, 2, &m, &golden_err));
    ck_assert_ptr_null(plan->entry[0].mask);

    must(weft_plan_set_mask(plan, 0, &m, &golden_err));
    must(weft_plan_seal(plan, 1, &golden_err));
    refused(WEFT_E_STATE, "sealed", weft_plan_set_mask(plan, 0, &m, &golden_err));
    refused(WEFT_E_UNSUPPORTED, "no place in the image",
            weft_plan_save_model(plan, "/nowhere/at/all", &golden_err));
    weft_cell c = WEFT_CELL_INIT;
    must(weft_plan_cell(plan, 0, 0, some_layer(plan), 0, &c, &golden_err));
    ck_assert_int_eq(c.kind, WEFT_CELL_MASK);
    weft_plan_free(plan);
}
END_TEST

/* A run that moves from a plan with masks to one without, and back, computes what each computes. */
START_TEST(a_run_moves_between_plans)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_run_info info = WEFT_RUN_INFO_INIT;
    weft_plan *masked = plan_of(content, 0.8f, NULL, 0), *plain = plan_of(content, 0.8f, NULL, 0);
    weft_mask m = mask_of(0.5f);
    weft_run *run;

    must(weft_plan_set_mask(masked, 0, &m, &golden_err));
    must(weft_plan_seal(masked, 10, &golden_err));
    must(weft_plan_seal(plain, 10, &golden_err));
    o.height = H;
    o.width = W;
    must(weft_run_create(plain, &o, &run, &golden_err));
    must(weft_run_info_get(run, &info, &golden_err));
    uint64_t before = info.bytes;
    must(weft_run_set_plan(run, masked, &golden_err));
    must(weft_run_info_get(run, &info, &golden_err));
    ck_assert_uint_gt(info.bytes, before);
    must(weft_run_set_plan(run, plain, &golden_err));
    weft_run_free(run);
    weft_plan_free(masked);
    weft_plan_free(plain);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("weights over calls and image");
    TCase *c = tcase_create("weights");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 120);
    tcase_add_test(c, a_curve_has_the_values_of_its_formulas);
    tcase_add_test(c, a_curve_runs_over_the_whole_plan);
    tcase_add_test(c, a_wrong_curve_is_refused);
    tcase_add_test(c, a_weight_beyond_floats_is_refused);
    tcase_add_test(c, the_report_has_curves_and_masks);
    tcase_add_test(c, a_full_mask_is_none_and_an_empty_one_is_the_base);
    tcase_add_test(c, parts_make_the_whole);
    tcase_add_test(c, a_wrong_mask_is_refused);
    tcase_add_test(c, a_run_moves_between_plans);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
