/* test_variants.c - solvers and their variants against diffusers, and what of them is refused. */
#include "sampler/sampler_internal.h"
#include "walk.h"

/* ---- agreement (tests/reference/make_solvers.py) ------------------------------------------- */

/* Options from a stored case: its diffusers config, read as a model's would be, and what diffusers is told by a call. */
static weft_sampler_options options_of_case(const json_t *all, const json_t *c)
{
    weft_sampler_options o = options_of(weft_sampler_find(text_of(c, "kind")), (int32_t)number_of(c, "steps"));
    weft_status          st = wf_sampler_options_from_json(json_object_get(c, "config"), &o, &err);

    ck_assert_msg(st == WEFT_OK, "%s: %s", text_of(c, "name"), err.text);
    o.eta = (float)number_of(c, "eta");
    o.images = (int32_t)number_of(all, "images");
    if (json_is_true(json_object_get(c, "clipped_noise"))) o.flags |= WEFT_SAMPLER_CLIPPED_NOISE;
    if (json_object_get(c, "order") != NULL) o.order = (int32_t)number_of(c, "order");
    return o;
}

static bool is_stored(const char *name, const char *part)
{
    char full[128];

    snprintf(full, sizeof full, "%s/%s", name, part);
    return weft_tensors_find(stored, full) >= 0;
}

static void expect_schedule(const char *name, const weft_sampler *s)
{
    int32_t calls = weft_sampler_calls(s);
    size_t  total;
    float  *want = read_stored(name, "timesteps", &total);

    ck_assert_msg(total == (size_t)calls, "%s: %d calls, diffusers has %zu", name, calls, total);
    for (int32_t i = 0; i < calls; i++)
        close_to(name, "timestep", (size_t)i, (double)weft_sampler_timestep(s, i), (double)want[i], 2e-4);
    free(want);
    if (!wf_free_levels(s->solver)) return;
    want = read_stored(name, "sigmas", &total);
    ck_assert_uint_eq(total, (size_t)calls + 1);
    for (int32_t i = 0; i <= calls; i++)
        close_to(name, "sigma", (size_t)i, (double)weft_sampler_sigma(s, i), (double)want[i], 2e-6 * (double)want[i]);
    free(want);
}

static void follow(weft_sampler *s, const json_t *c, weft_noise *draws, const float *x0, const float *noise, size_t n)
{
    const char *name = text_of(c, "name");
    int32_t     call = 0, calls = weft_sampler_calls(s);
    size_t      total;
    float      *want = read_stored(name, "x", &total), x[64];

    for (size_t i = 0; i < n; i++) x[i] = noise[i] * weft_sampler_init_scale(s);
    if (json_object_get(c, "strength") != NULL) {
        ck_assert_int_eq(weft_sampler_start(s, (float)number_of(c, "strength"), &call, &err), WEFT_OK);
        ck_assert_int_eq(weft_sampler_add_noise(s, call, x0, noise, x, n, &err), WEFT_OK);
    }
    ck_assert_int_eq(call, (int32_t)number_of(c, "begin"));
    ck_assert_uint_eq(total, n * (size_t)(calls - call + 1));
    begin(s, call, n);
    for (const float *at = want;; at += n) {
        double largest = 0;

        for (size_t i = 0; i < n; i++) largest = fmax(largest, fabs((double)at[i]));
        for (size_t i = 0; i < n; i++)
            close_to(name, "x at call", (size_t)call, (double)x[i], (double)at[i], 2e-6 * largest);
        if (call == calls) break;
        walk(s, call++, x, n, draws);
    }
    free(want);
}

START_TEST(variants_are_those_of_diffusers)
{
    json_t *all = data_json("golden/variants.json"), *c;
    size_t  at, n, m;
    float  *x0, *noise;

    ck_assert_msg(weft_tensors_open(data_path("golden/variants.safetensors"), NULL, &stored, &err) == WEFT_OK, "%s",
                  err.text);
    x0 = read_stored("x0", NULL, &n);
    noise = read_stored("noise", NULL, &m);
    ck_assert(n == m && n <= 64);
    ck_assert_uint_ge(json_array_size(json_object_get(all, "cases")), 454);
    json_array_foreach(json_object_get(all, "cases"), at, c) {
        weft_sampler *s = made(options_of_case(all, c));
        weft_noise   *draws;

        if (is_stored(text_of(c, "name"), "timesteps")) expect_schedule(text_of(c, "name"), s);
        ck_assert_int_eq(weft_noise_create((uint64_t)number_of(all, "noise_seed"), NULL, &draws, &err), WEFT_OK);
        follow(s, c, draws, x0, noise, n);
        weft_noise_free(draws);
        weft_sampler_free(s);
    }
    free(x0);
    free(noise);
    weft_tensors_free(stored);
    json_decref(all);
}
END_TEST

/* ---- clipping, by hand --------------------------------------------------------------------- */

/* Five numbers of an image and their quantile at 0.7: between the third and the fourth, 0.8 of the way. */
START_TEST(a_quantile_is_between_two_magnitudes)
{
    static const float   image[] = { -4, 0.5f, 1, -2, 3 }; /* by magnitude: 0.5 1 2 3 4 */
    weft_sampler_options o = options_of(WEFT_SAMPLER_DDIM, 1);
    weft_sampler        *s;
    float                x[5] = { 0 };

    o.prediction = WEFT_PREDICT_SAMPLE;
    o.flags = WEFT_SAMPLER_ALPHA_TO_ONE | WEFT_SAMPLER_THRESHOLD;
    o.threshold_ratio = 0.7f;
    o.threshold_max = 100;
    s = made(o);
    begin(s, 0, 5);
    ck_assert_int_eq(weft_sampler_step(s, 0, image, x, 5, NULL, &err), WEFT_OK);
    for (int i = 0; i < 5; i++)
        ck_assert_float_eq_tol(x[i], fmaxf(fminf(image[i], 2.8f), -2.8f) / 2.8f, 1e-6f);
    weft_sampler_free(s);

    o.threshold_max = 2; /* the quantile is 2 at most */
    s = made(o);
    begin(s, 0, 5);
    ck_assert_int_eq(weft_sampler_step(s, 0, image, x, 5, NULL, &err), WEFT_OK);
    ck_assert_float_eq_tol(x[1], 0.25f, 1e-6f);
    ck_assert_float_eq_tol(x[0], -1, 1e-6f);
    weft_sampler_free(s);

    o.flags = WEFT_SAMPLER_ALPHA_TO_ONE | WEFT_SAMPLER_CLIP;
    s = made(o);
    begin(s, 0, 5);
    ck_assert_int_eq(weft_sampler_step(s, 0, image, x, 5, NULL, &err), WEFT_OK);
    for (int i = 0; i < 5; i++) ck_assert_float_eq_tol(x[i], fmaxf(fminf(image[i], 1), -1), 1e-6f);
    weft_sampler_free(s);
}
END_TEST

/* Two images in one buffer are each what they are alone, and a number that is none stays so. */
START_TEST(images_are_thresholded_one_by_one)
{
    static const float   both[] = { -4, 0.5f, 1, -2, 30, 0.25f, NAN, 1 };
    weft_sampler_options o = options_of(WEFT_SAMPLER_DDIM, 1);
    weft_sampler        *s;
    float                x[8] = { 0 }, one[4] = { 0 };

    o.prediction = WEFT_PREDICT_SAMPLE;
    o.flags = WEFT_SAMPLER_ALPHA_TO_ONE | WEFT_SAMPLER_THRESHOLD;
    o.threshold_max = 100;
    o.images = 2;
    s = made(o);
    ck_assert_int_eq(weft_sampler_begin(s, 0, 7, &err), WEFT_E_ARG);
    ck_assert_str_eq(err.text, "weft_sampler_begin: len is 7, which 2 images of one size cannot have");
    begin(s, 0, 8);
    ck_assert_int_eq(weft_sampler_step(s, 0, both, x, 8, NULL, &err), WEFT_OK);
    ck_assert(isnan(x[6]) && isfinite(x[7]));
    weft_sampler_free(s);

    o.images = 0;
    s = made(o);
    begin(s, 0, 4);
    ck_assert_int_eq(weft_sampler_step(s, 0, both, one, 4, NULL, &err), WEFT_OK);
    ck_assert(memcmp(one, x, sizeof one) == 0);
    weft_sampler_free(s);
}
END_TEST

/* A range that nothing reaches changes nothing: the answer is turned into an image and back. */
START_TEST(clipping_to_what_nothing_reaches_is_none)
{
    static const int32_t kinds[] = { WEFT_SAMPLER_DDIM, WEFT_SAMPLER_DDPM, WEFT_SAMPLER_HEUN, WEFT_SAMPLER_LCM };

    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        for (int32_t prediction = WEFT_PREDICT_EPSILON; prediction <= WEFT_PREDICT_SAMPLE; prediction++) {
            weft_sampler_options o = options_of(kinds[i], 6);
            weft_sampler        *plain, *clipped;
            weft_noise          *a, *b;
            float                x[3] = { 1, -0.5f, 2 }, y[3] = { 1, -0.5f, 2 };

            o.prediction = prediction;
            plain = made(o);
            o.flags = WEFT_SAMPLER_CLIP;
            o.clip_range = 1e5f;
            clipped = made(o);
            ck_assert_int_eq(weft_noise_create(4, NULL, &a, &err), WEFT_OK);
            ck_assert_int_eq(weft_noise_create(4, NULL, &b, &err), WEFT_OK);
            begin(plain, 0, 3);
            begin(clipped, 0, 3);
            for (int32_t call = 0; call < weft_sampler_calls(plain); call++) {
                walk(plain, call, x, 3, a);
                walk(clipped, call, y, 3, b);
                for (int k = 0; k < 3; k++) ck_assert_float_eq_tol(y[k], x[k], 1e-5f * (1 + fabsf(x[k])));
            }
            weft_noise_free(a);
            weft_noise_free(b);
            weft_sampler_free(plain);
            weft_sampler_free(clipped);
        }
}
END_TEST

/* ---- what a kind does not have ------------------------------------------------------------- */

START_TEST(variants_that_a_kind_lacks_are_named)
{
    static const struct { weft_sampler_options o; const char *text; } wrong[] = {
        { { .kind = WEFT_SAMPLER_EULER, .order = 2 }, "sampler: order is 2, but euler has none" },
        { { .kind = WEFT_SAMPLER_DPMPP_2M, .order = 4 }, "sampler: order is 4, it must be 1 to 3 for dpmpp_2m" },
        { { .kind = WEFT_SAMPLER_DPMPP_2M, .order = -1 }, "sampler: order is -1" },
        { { .kind = WEFT_SAMPLER_DPMPP_3M, .order = 2 }, "sampler: order is 2, but that of dpmpp_3m is 3" },
        { { .kind = WEFT_SAMPLER_UNIPC, .order = 4 }, "sampler: order is 4, it must be 1 to 3 for unipc" },
        { { .kind = WEFT_SAMPLER_LMS, .order = 5 }, "sampler: order is 5, it must be 1 to 4 for lms" },
        { { .kind = WEFT_SAMPLER_DPMPP_2M_SDE, .algorithm = WEFT_ALGORITHM_DPM }, "algorithm is 3, which dpmpp_2m_sde" },
        { { .kind = WEFT_SAMPLER_DPMPP_2S, .algorithm = WEFT_ALGORITHM_DPM_SDE }, "algorithm is 4, which dpmpp_2s" },
        { { .kind = WEFT_SAMPLER_DPMPP_2M, .algorithm = 99 }, "algorithm is 99" },
        { { .kind = WEFT_SAMPLER_DDIM, .algorithm = WEFT_ALGORITHM_DPMPP }, "algorithm is 1, which ddim" },
        { { .kind = WEFT_SAMPLER_UNIPC, .solver_type = WEFT_SOLVER_HEUN }, "solver_type is 2, which unipc" },
        { { .kind = WEFT_SAMPLER_DPMPP_2M, .solver_type = WEFT_SOLVER_BH1 }, "solver_type is 3, which dpmpp_2m" },
        { { .kind = WEFT_SAMPLER_DPMPP_2M, .solver_type = -5 }, "solver_type is -5" },
        { { .kind = WEFT_SAMPLER_LMS, .last_steps = WEFT_LAST_FULL }, "last_steps is 2, which lms" },
        { { .kind = WEFT_SAMPLER_DEIS, .last_steps = 3 }, "last_steps is 3, which deis" },
        { { .kind = WEFT_SAMPLER_DDIM, .variance = WEFT_VARIANCE_LARGE }, "variance is 1, which ddim" },
        { { .kind = WEFT_SAMPLER_DDPM, .variance = 2 }, "variance is 2, which ddpm" },
        { { .kind = WEFT_SAMPLER_DEIS, .uncorrected = 1 }, "a step without correction is asked for, which deis" },
        { { .kind = WEFT_SAMPLER_DEIS, .flags = WEFT_SAMPLER_OF_NOISE }, "the integral over the noise is asked for" },
        { { .kind = WEFT_SAMPLER_EULER, .flags = WEFT_SAMPLER_CLIP }, "clipping is asked for, which euler" },
        { { .kind = WEFT_SAMPLER_HEUN, .flags = WEFT_SAMPLER_THRESHOLD }, "thresholding is asked for, which heun" },
        { { .kind = WEFT_SAMPLER_DDPM, .flags = WEFT_SAMPLER_CLIPPED_NOISE }, "the noise of the clipped image" },
        { { .kind = WEFT_SAMPLER_DPMPP_2S, .flags = WEFT_SAMPLER_EULER_LAST }, "a last step of order 1 is asked for" },
        { { .kind = WEFT_SAMPLER_DDIM, .clip_range = -1 }, "clip_range is -1, it must be" },
        { { .kind = WEFT_SAMPLER_DDIM, .clip_range = NAN }, "clip_range is nan" },
        { { .kind = WEFT_SAMPLER_DDIM, .threshold_ratio = 1.5f }, "threshold_ratio is 1.5" },
        { { .kind = WEFT_SAMPLER_DDIM, .threshold_max = 0.5f }, "threshold_max is 0.5, it must be 1 to" },
        { { .kind = WEFT_SAMPLER_DDIM, .threshold_max = INFINITY }, "threshold_max is inf" },
        { { .kind = WEFT_SAMPLER_DDIM, .images = -2 }, "images is -2, it must be 1 or more" },
        { { .kind = WEFT_SAMPLER_DPMPP_2M, .algorithm = WEFT_ALGORITHM_DPM }, "which has no step to sigma 0" },
        { { .kind = WEFT_SAMPLER_UNIPC, .flags = WEFT_SAMPLER_OF_NOISE }, "which has no step to sigma 0" },
        { { .kind = WEFT_SAMPLER_DEIS, .final_sigma = WEFT_FINAL_ZERO }, "which has no step to sigma 0" },
        { { .kind = WEFT_SAMPLER_DPMPP_2M, .algorithm = WEFT_ALGORITHM_DPM_SDE, .order = 3, .final_sigma = WEFT_FINAL_MIN },
          "order is 3, but the predicted noise with noise has 1 and 2 alone" },
    };

    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        weft_sampler_options o = wrong[i].o;
        weft_sampler        *s = (weft_sampler *)&o;

        o.struct_size = sizeof o;
        ck_assert_msg(weft_sampler_create(&o, &s, &err) == WEFT_E_ARG, "%s", wrong[i].text);
        ck_assert_ptr_null(s);
        ck_assert_msg(strstr(err.text, wrong[i].text) != NULL, "%s", err.text);
    }
}
END_TEST

/* Every variant of every kind, from one step to as many as there are, ends in finite numbers. */
START_TEST(variants_are_finite_for_any_number_of_steps)
{
    static const int32_t counts[] = { 1, 2, 3, 14, 15, 1000 }; /* at 1000, levels are equal: the highest order alone */
    bool                 all = counts[_i] < 1000;

    for (size_t i = 0; wf_solver_at(i) != NULL; i++) {
        const wf_solver *row = wf_solver_at(i);
        int32_t          variant = 0;

        for (int32_t top = WF_MAX(row->max_order, row->order), order = row->max_order > 0 && all ? 1 : top; order <= top; order++)
            for (int32_t algorithm = 0; algorithm <= WEFT_ALGORITHM_DPM_SDE; algorithm++)
                for (int32_t type = 0; type <= WEFT_SOLVER_BH2; type++)
                    for (int32_t last = 0; last <= (all ? WEFT_LAST_FULL : 0); last++) {
                        weft_sampler_options o = options_of(row->kind, counts[_i]);
                        weft_sampler        *s;
                        float                x[3] = { 1, -0.5f, 0.25f };
                        weft_noise          *noise;

                        o.order = order, o.algorithm = algorithm, o.solver_type = type, o.last_steps = last;
                        if (variant++ % 2 == 1 && all) o.sigma_schedule = WEFT_SCHEDULE_KARRAS;
                        if (algorithm >= WEFT_ALGORITHM_DPM) o.final_sigma = WEFT_FINAL_MIN;
                        if (weft_sampler_create(&o, &s, &err) != WEFT_OK) continue;
                        ck_assert_int_eq(weft_noise_create(1, NULL, &noise, &err), WEFT_OK);
                        for (int k = 0; k < 3; k++) x[k] *= weft_sampler_init_scale(s);
                        begin(s, 0, 3);
                        for (int32_t call = 0; call < weft_sampler_calls(s); call++) {
                            walk(s, call, x, 3, noise);
                            for (int k = 0; k < 3; k++)
                                ck_assert_msg(isfinite(x[k]), "%s order %d algorithm %d type %d last %d: call %d", row->name,
                                              order, algorithm, type, last, call);
                        }
                        weft_noise_free(noise);
                        weft_sampler_free(s);
                    }
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("solver variants");
    TCase *agree = tcase_create("agreement"), *clip = tcase_create("clipping"), *asked = tcase_create("asked for");

    tcase_add_test(agree, variants_are_those_of_diffusers);
    tcase_add_test(clip, a_quantile_is_between_two_magnitudes);
    tcase_add_test(clip, images_are_thresholded_one_by_one);
    tcase_add_test(clip, clipping_to_what_nothing_reaches_is_none);
    tcase_add_test(asked, variants_that_a_kind_lacks_are_named);
    tcase_add_loop_test(asked, variants_are_finite_for_any_number_of_steps, 0, 6);
    suite_add_tcase(s, agree);
    suite_add_tcase(s, clip);
    suite_add_tcase(s, asked);
    return run_suite(s);
}
