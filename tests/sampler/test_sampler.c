/* test_sampler.c - schedules and solvers against diffusers, settings and the order of calls
 * against their limits. */
#include <math.h>

#include "sampler/sampler_internal.h"
#include "walk.h"

/* The kinds of all rows: for (size_t i = 0; (kind = weft_sampler_kind_at(i)) != 0; i++) */
#define EACH_KIND(kind)                                                                           \
    int32_t kind, i_ = 0;                                                                         \
    (kind = weft_sampler_kind_at((size_t)i_)) != 0;                                               \
    i_++

static const wf_solver *row_of(int32_t kind)
{
    const wf_solver *solver;

    ck_assert_msg(wf_solver_of(kind, &solver, &err) == WEFT_OK, "%s", err.text);
    return solver;
}

/* Options from a stored case: its diffusers config, read as a model's would be. */
static weft_sampler_options options_of_case(const json_t *c, int32_t kind, int32_t steps)
{
    weft_sampler_options o = options_of(kind, steps);
    json_t              *config = json_object_get(c, "config");

    ck_assert_msg(wf_sampler_options_from_json(config, &o, &err) == WEFT_OK, "%s", err.text);
    o.eta = (float)number_of(c, "eta");
    return o;
}

static void expect_schedule(const char *name, const weft_sampler *s, const json_t *c)
{
    const json_t *v;
    size_t        i;

    ck_assert_uint_eq(json_array_size(json_object_get(c, "timesteps")), (size_t)weft_sampler_calls(s));
    json_array_foreach(json_object_get(c, "timesteps"), i, v)
        close_to(name, "timestep", i, (double)weft_sampler_timestep(s, (int32_t)i), json_number_value(v), 2e-4);
    json_array_foreach(json_object_get(c, "sigmas"), i, v)
        close_to(name, "sigma", i, (double)weft_sampler_sigma(s, (int32_t)i), json_number_value(v),
                 2e-6 * json_number_value(v));
    close_to(name, "init scale", 0, (double)weft_sampler_init_scale(s), number_of(c, "init_noise_sigma"),
             2e-6 * number_of(c, "init_noise_sigma"));
}

/* ---- agreement ----------------------------------------------------------------------------- */

/* Cases are called after their solver, and what is special: the longest name that fits is it. */
static int32_t kind_of(const char *name)
{
    size_t  longest = 0;
    int32_t found = 0;

    for (EACH_KIND(kind)) {
        size_t n = strlen(weft_sampler_name(kind));

        if (n > longest && strncmp(name, weft_sampler_name(kind), n) == 0) {
            longest = n;
            found = kind;
        }
    }
    return found;
}

START_TEST(trajectories_are_those_of_scheduler_reference)
{
    json_t     *all = data_json("shared/scheduler_reference.json"), *c, *row;
    const char *name;
    int         seen = 0;

    json_object_foreach(json_object_get(all, "cases"), name, c) {
        float         x[4] = { 1, -0.5f, 0.25f, 2 };
        weft_sampler *s;
        weft_noise   *noise;
        size_t        step;

        if (kind_of(name) == 0) continue;
        s = made(options_of_case(c, kind_of(name), (int32_t)number_of(c, "num_inference_steps")));
        expect_schedule(name, s, c);
        ck_assert_int_eq(weft_noise_create(0, NULL, &noise, &err), WEFT_OK);
        for (int i = 0; i < 4; i++) x[i] *= weft_sampler_init_scale(s);
        begin(s, 0, 4);
        json_array_foreach(json_object_get(c, "trajectory"), step, row) {
            double largest = 0;

            walk(s, (int32_t)step, x, 4, noise);
            for (size_t i = 0; i < 4; i++) largest = fmax(largest, fabs(json_number_value(json_array_get(row, i))));
            for (size_t i = 0; i < 4; i++)
                close_to(name, "x after step", step, (double)x[i], json_number_value(json_array_get(row, i)),
                         2e-6 * largest);
        }
        weft_noise_free(noise);
        weft_sampler_free(s);
        seen++;
    }
    ck_assert_int_eq(seen, 19);
    json_decref(all);
}
END_TEST

START_TEST(training_schedule_is_that_of_scheduler_reference)
{
    json_t       *all = data_json("shared/scheduler_reference.json"), *v;
    weft_sampler *s = made(options_of(WEFT_SAMPLER_DDIM, 1));
    const char   *t;

    json_object_foreach(json_object_get(json_object_get(all, "cases"), "_alphas_cumprod"), t, v)
        ck_assert_double_eq_tol(wf_vp_alpha(s, atoi(t)), json_number_value(v),
                                6e-8); /* torch 1.13 differs in a last bit */
    for (int i = 0; i < 1000; i++) /* torch keeps them in float32 */
        ck_assert_double_eq(wf_vp_alpha(s, i), (double)(float)wf_vp_alpha(s, i));
    weft_sampler_free(s);
    json_decref(all);
}
END_TEST

/* Current diffusers, 24 numbers, noise of the long kind, 1 to 20 steps. It steps in float32 and
 * we in double, so a step down from sigma 4096 (zero terminal signal) leaves the rounding of
 * numbers of that size in its answer. */
START_TEST(trajectories_are_those_of_current_diffusers)
{
    json_t *all = data_json("golden/schedulers.json"), *c;
    size_t  at;

    ck_assert_msg(weft_tensors_open(data_path("golden/schedulers.safetensors"), NULL, &stored, &err) == WEFT_OK, "%s",
                  err.text);
    json_array_foreach(json_object_get(all, "cases"), at, c) {
        const char   *name = text_of(c, "name");
        int32_t       steps = (int32_t)number_of(c, "steps");
        weft_sampler *s;
        weft_noise   *noise;
        size_t        n, total;
        float        *x, *want;
        double        tolerance = strcmp(name, "euler_zero_snr_v") == 0 ? 5e-5 : 3e-6;

        s = made(options_of_case(c, kind_of(name), steps));
        expect_schedule(name, s, c);
        ck_assert_int_eq(weft_noise_create((uint64_t)number_of(all, "noise_seed"), NULL, &noise, &err), WEFT_OK);
        x = read_stored(name, "x0", &n);
        want = read_stored(name, "x", &total);
        ck_assert_uint_eq(total, n * (size_t)steps);
        begin(s, 0, n);
        for (int32_t call = 0; call < steps; call++) {
            double largest = 0;

            walk(s, call, x, n, noise);
            for (size_t i = 0; i < n; i++) largest = fmax(largest, fabs((double)want[(size_t)call * n + i]));
            for (size_t i = 0; i < n; i++)
                close_to(name, "x after step", (size_t)call, (double)x[i], (double)want[(size_t)call * n + i],
                         tolerance * largest);
        }
        free(x);
        free(want);
        weft_noise_free(noise);
        weft_sampler_free(s);
    }
    weft_tensors_free(stored);
    json_decref(all);
}
END_TEST

/* At whole timesteps a sigma is an entry of the table that training made: torch's linspace, its
 * products and its root. Four in five are torch's own bits, and the rest are next to them: its root
 * is the vectorised power 0.5. */
START_TEST(sigmas_at_whole_timesteps_are_torchs)
{
    json_t *all = data_json("golden/schedulers.json"), *c, *v;
    size_t  at, i;
    int     seen = 0, equal = 0;

    json_array_foreach(json_object_get(all, "cases"), at, c) {
        const char   *name = text_of(c, "name");
        weft_sampler *s = made(options_of_case(c, kind_of(name), (int32_t)number_of(c, "steps")));

        json_array_foreach(json_object_get(c, "sigmas"), i, v) {
            double t = (double)weft_sampler_timestep(s, (int32_t)i);
            float  got = weft_sampler_sigma(s, (int32_t)i), want = (float)json_number_value(v);
            if (strstr(name, "karras") || strstr(name, "zero_snr") || t != floor(t)) continue;
            ck_assert_msg(got >= nextafterf(want, 0) && got <= nextafterf(want, 99),
                          "%s: sigma %zu is %.9g, wanted %.9g", name, i, (double)got, (double)want);
            equal += got == want;
            seen++;
        }
        weft_sampler_free(s);
    }
    ck_assert_int_eq(seen, 181);
    ck_assert_int_ge(equal, seen * 4 / 5);
    json_decref(all);
}
END_TEST

/* Where a sampler stands at `call` is where diffusers did: timesteps, sigmas, and the latents
 * after each call, from noise only or from an image with noise on it. */
static void follow(weft_sampler *s, const char *name, const json_t *c, weft_noise *draws, const float *x0,
                   const float *noise, size_t n)
{
    int32_t first = (int32_t)number_of(c, "begin"), calls = weft_sampler_calls(s), call = 0;
    bool    by_sigma = wf_free_levels(s->solver);
    size_t  total;
    float  *want = read_stored(name, "timesteps", &total), x[64];
    /* A latent of 4096 or of 80 is rounded to 2e-4 and 4e-6, and the rest is made of differences of such. */
    double  tolerance = number_of(c, "f64_rel") > 5e-6 ? 5e-5 : 2e-6;

    ck_assert_uint_eq(total, (size_t)calls);
    for (int32_t i = 0; i < calls; i++)
        close_to(name, "timestep", (size_t)i, (double)weft_sampler_timestep(s, i), (double)want[i], by_sigma ? 2e-4 : 0);
    free(want);
    if (by_sigma) {
        want = read_stored(name, "sigmas", &total);
        ck_assert_uint_eq(total, (size_t)calls + 1);
        for (int32_t i = 0; i <= calls; i++)
            close_to(name, "sigma", (size_t)i, (double)weft_sampler_sigma(s, i), (double)want[i], 2e-6 * (double)want[i]);
        free(want);
    }
    close_to(name, "init scale", 0, (double)weft_sampler_init_scale(s), number_of(c, "init_noise_sigma"),
             2e-6 * number_of(c, "init_noise_sigma"));

    want = read_stored(name, "x", &total);
    ck_assert_uint_eq(total, n * (size_t)(calls - first + 1));
    for (size_t i = 0; i < n; i++) x[i] = noise[i] * weft_sampler_init_scale(s);
    if (json_object_get(c, "strength") != NULL) {
        ck_assert_int_eq(weft_sampler_start(s, (float)number_of(c, "strength"), &call, &err), WEFT_OK);
        ck_assert_int_eq(weft_sampler_add_noise(s, call, x0, noise, x, n, &err), WEFT_OK);
    }
    ck_assert_int_eq(call, first);
    begin(s, call, n);
    for (const float *at = want;; at += n) {
        double largest = 0;

        for (size_t i = 0; i < n; i++) largest = fmax(largest, fabs((double)at[i]));
        for (size_t i = 0; i < n; i++)
            close_to(name, "x at call", (size_t)call, (double)x[i], (double)at[i], tolerance * largest);
        if (call == calls) break;
        walk(s, call++, x, n, draws);
    }
    free(want);
}

/* make_schedulers.py: every solver, 1 to 20 steps, strengths, own sigmas. _i 0 runs each case on
 * a fresh sampler. 1 runs it as the second image of a sampler that was left in the middle of
 * one: just before the call that the second begins with, where it could be taken for its
 * continuation, or half way. */
START_TEST(solvers_are_those_of_diffusers)
{
    json_t *all = data_json("golden/solvers.json"), *c, *v;
    size_t  at, i, n, m;
    float   own[16], *x0, *noise;

    ck_assert_msg(weft_tensors_open(data_path("golden/solvers.safetensors"), NULL, &stored, &err) == WEFT_OK, "%s",
                  err.text);
    ck_assert_uint_ge(json_array_size(json_object_get(all, "cases")), 174);
    x0 = read_stored("x0", NULL, &n);
    noise = read_stored("noise", NULL, &m);
    ck_assert(n == m && n <= 64);
    json_array_foreach(json_object_get(all, "cases"), at, c) {
        int32_t              kind = weft_sampler_find(text_of(c, "kind"));
        weft_sampler_options o = options_of_case(c, kind, (int32_t)number_of(c, "steps"));
        weft_sampler        *s;
        weft_noise          *draws;
        float                other[64] = { 1, 2, 3 };

        json_array_foreach(json_object_get(c, "sigmas"), i, v) own[i] = (float)json_number_value(v);
        o.sigmas_len = json_array_size(json_object_get(c, "sigmas"));
        o.sigmas = o.sigmas_len > 0 ? own : NULL;
        s = made(o);
        ck_assert_int_eq(weft_noise_create((uint64_t)number_of(all, "noise_seed"), NULL, &draws, &err), WEFT_OK);
        if (_i == 1) {
            int32_t first = (int32_t)number_of(c, "begin"), half = weft_sampler_calls(s) / 2;

            begin(s, 0, n);
            for (int32_t call = 0; call < (first > 0 ? first : half); call++)
                walk(s, call, other, n, draws);
            weft_noise_free(draws);
            ck_assert_int_eq(weft_noise_create((uint64_t)number_of(all, "noise_seed"), NULL, &draws, &err), WEFT_OK);
        }
        follow(s, text_of(c, "name"), c, draws, x0, noise, n);
        weft_noise_free(draws);
        weft_sampler_free(s);
    }
    free(x0);
    free(noise);
    weft_tensors_free(stored);
    json_decref(all);
}
END_TEST

/* Rescaled betas: A_0 stays, A_T is 0 (2^-24 where a first sigma must be finite), and v carries
 * over from A = 0. */
START_TEST(zero_terminal_signal)
{
    weft_sampler_options o = options_of(WEFT_SAMPLER_DDIM, 4);
    weft_sampler        *s;
    float                x[] = { 0.5f, -2 }, v[] = { 1, 3 };
    double               A;

    o.flags = WEFT_SAMPLER_ZERO_SNR | WEFT_SAMPLER_ALPHA_TO_ONE;
    o.spacing = WEFT_SPACING_TRAILING;
    o.prediction = WEFT_PREDICT_V;
    s = made(o);
    ck_assert_double_eq(wf_vp_alpha(s, 999), 0);
    ck_assert_double_eq_tol(wf_vp_alpha(s, 0), 0.999149978, 1e-7);
    begin(s, 0, 2);
    ck_assert_int_eq(weft_sampler_step(s, 0, v, x, 2, NULL, &err), WEFT_OK); /* x0 = -v, e = x */
    A = wf_vp_alpha(s, 749);
    ck_assert_float_eq_tol(x[0], (float)(-sqrt(A) + 0.5 * sqrt(1 - A)), 1e-6f);
    weft_sampler_free(s);

    o.steps = 1000; /* only the first level is infinite, also for the step beside it */
    s = made(o);
    ck_assert(isinf(weft_sampler_sigma(s, 0)));
    for (int32_t call = 1; call <= o.steps; call++) ck_assert(isfinite(weft_sampler_sigma(s, call)));
    weft_sampler_free(s);
    o.steps = 4;

    o.kind = WEFT_SAMPLER_PNDM; /* diffusers' cannot: its first step is DDIM's, by another formula that divides by A */
    s = made(o);
    x[0] = 0.5f;
    begin(s, 0, 2);
    ck_assert_int_eq(weft_sampler_step(s, 0, v, x, 2, NULL, &err), WEFT_OK);
    A = wf_vp_alpha(s, 749);
    ck_assert_float_eq_tol(x[0], (float)(-sqrt(A) + 0.5 * sqrt(1 - A)), 1e-6f);
    weft_sampler_free(s);

    o.prediction = WEFT_PREDICT_EPSILON;
    for (EACH_KIND(kind)) {
        o.kind = kind;
        if (wf_free_levels(row_of(kind))) continue;
        ck_assert_int_eq(weft_sampler_create(&o, &s, &err), WEFT_E_ARG);
        ck_assert_ptr_nonnull(strstr(err.text, "timestep 999"));
    }
    o.kind = WEFT_SAMPLER_EULER;
    s = made(o);
    ck_assert_float_eq_tol(weft_sampler_sigma(s, 0), 4096, 0.01f);
    weft_sampler_free(s);
    o.beta_start = o.beta_end = 0.03f; /* A at 998 is below the 2^-24 that stands for nothing at 999 */
    ck_assert_int_eq(weft_sampler_create(&o, &s, &err), WEFT_E_ARG);
    ck_assert_ptr_nonnull(strstr(err.text, "too large"));
}
END_TEST

/* A network that always answers the same image: the last step of every solver lands on it, except
 * TCD's, which goes to timestep 0 and not below, and DEIS's, which ends at training's smallest sigma. */
START_TEST(predicted_sample_is_where_the_steps_end)
{
    for (EACH_KIND(kind)) {
        weft_sampler_options o = options_of(kind, 5);
        weft_sampler        *s;
        weft_noise          *noise;
        float                x[] = { 3, -1, 0.5f }, image[] = { 0.25f, 7, -2 };

        if (kind == WEFT_SAMPLER_TCD || kind == WEFT_SAMPLER_DEIS) continue;
        o.prediction = WEFT_PREDICT_SAMPLE;
        o.flags = WEFT_SAMPLER_ALPHA_TO_ONE;
        s = made(o);
        ck_assert_int_eq(weft_noise_create(1, NULL, &noise, &err), WEFT_OK);
        begin(s, 0, 3);
        for (int32_t call = 0; call < weft_sampler_calls(s); call++)
            ck_assert_int_eq(weft_sampler_step(s, call, image, x, 3, noise, &err), WEFT_OK);
        for (int i = 0; i < 3; i++) ck_assert_float_eq_tol(x[i], image[i], 1e-5f);
        weft_noise_free(noise);
        weft_sampler_free(s);
    }
}
END_TEST

/* ddim with eta 1, one step from A to A': sd by hand, and the noise that torch draws. */
START_TEST(eta_adds_noise)
{
    weft_sampler_options o = options_of(WEFT_SAMPLER_DDIM, 10);
    weft_sampler        *s;
    weft_noise          *a, *b;
    float                x[] = { 0.5f }, e[] = { 0.25f }, z[1];

    o.eta = 1;
    s = made(o);
    ck_assert_int_eq(weft_noise_create(7, NULL, &a, &err), WEFT_OK);
    ck_assert_int_eq(weft_noise_create(7, NULL, &b, &err), WEFT_OK);
    ck_assert_int_eq(weft_noise_normal(b, z, 1, &err), WEFT_OK);
    begin(s, 0, 1);
    ck_assert_int_eq(weft_sampler_step(s, 0, e, x, 1, NULL, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_sampler_step(s, 0, e, x, 1, a, &err), WEFT_OK);

    double A = wf_vp_alpha(s, 900), B = wf_vp_alpha(s, 800);
    double sd = sqrt((1 - B) / (1 - A) * (1 - A / B));
    double x0 = (0.5 - sqrt(1 - A) * 0.25) / sqrt(A);
    ck_assert_float_eq_tol(x[0], (float)(sqrt(B) * x0 + sqrt(1 - B - sd * sd) * 0.25 + sd * (double)z[0]), 1e-6f);
    weft_noise_free(a);
    weft_noise_free(b);
    weft_sampler_free(s);
}
END_TEST

/* Every solver, spacing and prediction, from one step to as many as there are: finite numbers,
 * timesteps that fall, sigmas that fall to 0. */
START_TEST(any_number_of_steps_is_finite)
{
    static const int32_t counts[] = { 1, 2, 3, 30, 999, 1000 };

    for (EACH_KIND(kind))
        for (int32_t spacing = 1; spacing <= 3; spacing++)
            for (int32_t karras = 0; karras <= wf_free_levels(row_of(kind)); karras++) {
                weft_sampler_options o = options_of(kind, counts[_i]);
                weft_sampler        *s = NULL;
                weft_noise          *noise;
                float                x[3] = { 1, -0.5f, 0.25f };

                o.spacing = spacing;
                o.prediction = spacing - 1;
                o.origin_steps = 1000;
                o.flags = karras ? WEFT_SAMPLER_KARRAS : 0;
                if (row_of(kind)->layout == WF_LAYOUT_DPM && spacing == WEFT_SPACING_LEADING && !karras && o.steps == 1000) {
                    char text[128];

                    snprintf(text, sizeof text, "sampler: 1000 steps with leading spacing, but %s reaches at most "
                                                "999 of 1000", weft_sampler_name(kind));
                    ck_assert_int_eq(weft_sampler_create(&o, &s, &err), WEFT_E_ARG);
                    ck_assert_str_eq(err.text, text);
                    continue;
                }
                s = made(o);
                ck_assert_int_eq(weft_noise_create(1, NULL, &noise, &err), WEFT_OK);
                for (int i = 0; i < 3; i++) x[i] *= weft_sampler_init_scale(s);
                begin(s, 0, 3);
                for (int32_t call = 0; call < weft_sampler_calls(s); call++) {
                    walk(s, call, x, 3, noise);
                    for (int i = 0; i < 3; i++) ck_assert_msg(isfinite(x[i]), "kind %d spacing %d call %d", kind, spacing, call);
                    ck_assert_float_ge(weft_sampler_sigma(s, call), weft_sampler_sigma(s, call + 1));
                    if (call > 0) /* Karras' timesteps may be rounded, and those between them are not */
                        ck_assert_float_le(weft_sampler_timestep(s, call),
                                           weft_sampler_timestep(s, call - 1) + (row_of(kind)->between ? 0.51f : 0));
                }
                if (row_of(kind)->final_sigma != WEFT_FINAL_MIN)
                    ck_assert_float_eq(weft_sampler_sigma(s, weft_sampler_calls(s)), 0);
                weft_noise_free(noise);
                weft_sampler_free(s);
            }
}
END_TEST

START_TEST(a_float_setting_stands_for_its_decimal)
{
    ck_assert_double_eq(wf_decimal(0.00085f), 0.00085);
    ck_assert_double_eq(wf_decimal(0.012f), 0.012);
    ck_assert_double_eq(wf_decimal(0.5f), 0.5);
    ck_assert_double_eq(wf_decimal(1.0f / 3), 0.33333334);
}
END_TEST

/* ---- settings ------------------------------------------------------------------------------ */

START_TEST(settings_out_of_range_are_refused)
{
    static const struct { size_t field; int32_t value; const char *text; } wrong[] = {
        { offsetof(weft_sampler_options, kind), 99, "kind is 99" },
        { offsetof(weft_sampler_options, kind), -1, "kind is -1" },
        { offsetof(weft_sampler_options, steps), -1, "steps is -1, it must be 1 to 1000" },
        { offsetof(weft_sampler_options, steps), 1001, "steps is 1001, it must be 1 to 1000" },
        { offsetof(weft_sampler_options, spacing), 4, "spacing is 4, it must be 1 to 3" },
        { offsetof(weft_sampler_options, prediction), 3, "prediction is 3" },
        { offsetof(weft_sampler_options, betas), 7, "betas is 7" },
        { offsetof(weft_sampler_options, sigma_schedule), 13, "sigma_schedule is 13, it must be 0 to 12" },
        { offsetof(weft_sampler_options, sigma_schedule), -1, "sigma_schedule is -1" },
        { offsetof(weft_sampler_options, final_sigma), 3, "final_sigma is 3" },
        { offsetof(weft_sampler_options, interpolation), 2, "interpolation is 2" },
        { offsetof(weft_sampler_options, train_steps), 1, "train_steps is 1" },
        { offsetof(weft_sampler_options, train_steps), 2000000, "train_steps is 2000000" },
        { offsetof(weft_sampler_options, steps_offset), -1, "steps_offset is -1" },
        { offsetof(weft_sampler_options, steps_offset), 51, "20 steps with steps_offset 51 start at timestep 1001" },
    };

    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;
        weft_sampler        *s = (weft_sampler *)&o;

        memcpy((char *)&o + wrong[i].field, &wrong[i].value, sizeof wrong[i].value);
        ck_assert_int_eq(weft_sampler_create(&o, &s, &err), WEFT_E_ARG);
        ck_assert_ptr_null(s);
        ck_assert_msg(strstr(err.text, wrong[i].text) != NULL, "%s", err.text);
    }
}
END_TEST

START_TEST(fractions_out_of_range_are_refused)
{
    static const struct { int32_t kind; float start, end, eta; const char *text; } wrong[] = {
        { 1, 0, 0, -0.5f, "eta is -0.5" },
        { 1, 0, 0, 1.5f, "eta is 1.5" },
        { 1, 0, 0, NAN, "eta is" },
        { 2, 0, 0, 0.5f, "euler has no eta" },
        { 1, 0.5f, 0.1f, 0, "betas go from 0.5 to 0.1" },
        { 1, -1, 0.1f, 0, "betas go from -1" },
        { 1, 0.1f, 1, 0, "betas go from 0.1 to 1" },
        { 1, NAN, 0, 0, "betas go from" },
        { 1, 0, INFINITY, 0, "betas go from" },
        { 1, 0.5f, 0.9f, 0, "too large" },
        { 2, 0.0921f, 0.0921f, 0, "too large" }, /* A_T is 1e-42, and its sigma would be infinite */
        { 1, 1e-12f, 0, 0, "too small" },
    };

    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        weft_sampler_options o = options_of(wrong[i].kind, 20);
        weft_sampler        *s;

        o.beta_start = wrong[i].start;
        o.beta_end = wrong[i].end;
        o.eta = wrong[i].eta;
        ck_assert_int_eq(weft_sampler_create(&o, &s, &err), WEFT_E_ARG);
        ck_assert_msg(strstr(err.text, wrong[i].text) != NULL, "%s", err.text);
    }
}
END_TEST

/* What a solver has no use for is refused under its name, by what its row says: Karras' sigmas, own
 * sigmas, eta, noise that is not given. */
START_TEST(each_row_refuses_what_it_does_not_take)
{
    static const float own[] = { 9, 3, 1 };

    for (EACH_KIND(kind)) {
        const wf_solver     *row = row_of(kind);
        weft_status          sigmas = wf_free_levels(row) ? WEFT_OK : WEFT_E_UNSUPPORTED;
        weft_sampler_options o = options_of(kind, 3);
        weft_sampler        *s;
        float                p[2] = { 0 }, x[2] = { 1, 2 };

        o.flags = WEFT_SAMPLER_KARRAS;
        ck_assert_int_eq(weft_sampler_create(&o, &s, &err), sigmas);
        if (sigmas != WEFT_OK) ck_assert_ptr_nonnull(strstr(err.text, row->name));
        weft_sampler_free(s);
        o.flags = 0;
        o.sigmas = own;
        o.sigmas_len = 3;
        ck_assert_int_eq(weft_sampler_create(&o, &s, &err), sigmas);
        if (sigmas != WEFT_OK) ck_assert_ptr_nonnull(strstr(err.text, row->name));
        weft_sampler_free(s);

        o = options_of(kind, 3);
        o.eta = 0.5f;
        ck_assert_int_eq(weft_sampler_create(&o, &s, &err), row->eta ? WEFT_OK : WEFT_E_ARG);
        if (!row->eta) ck_assert_ptr_nonnull(strstr(err.text, row->name));
        weft_sampler_free(s);

        if (row->draws == NULL) continue;
        o.eta = row->eta ? 0.5f : 0;
        if (row->algorithms & WF_WAY(WEFT_ALGORITHM_DPMPP_SDE)) o.algorithm = WEFT_ALGORITHM_DPMPP_SDE;
        s = made(o);
        begin(s, 0, 2);
        if (!row->draws(s, 0)) ck_assert_int_eq(weft_sampler_step(s, 0, p, x, 2, NULL, &err), WEFT_OK);
        x[0] = 1, x[1] = 2;
        ck_assert_int_eq(weft_sampler_step(s, s->next, p, x, 2, NULL, &err), WEFT_E_ARG);
        ck_assert_ptr_nonnull(strstr(err.text, row->name));
        ck_assert(x[0] == 1 && x[1] == 2);
        weft_sampler_free(s);
    }
}
END_TEST

START_TEST(unknown_flags_and_no_out_are_refused)
{
    weft_sampler_options o = options_of(WEFT_SAMPLER_DDIM, 20);
    weft_sampler        *s;

    o.flags = 1u << 30;
    ck_assert_int_eq(weft_sampler_create(&o, &s, &err), WEFT_E_UNSUPPORTED);
    ck_assert_int_eq(weft_sampler_create(&o, NULL, &err), WEFT_E_ARG);
}
END_TEST

START_TEST(sigmas_of_the_callers_own_are_checked)
{
    static const float rising[] = { 3, 1, 1 }, endless[] = { INFINITY, 1 }, zero[] = { 3, 0 }, odd[] = { 3, NAN };
    static const struct {
        int32_t      kind, steps;
        const float *sigmas;
        size_t       len;
        uint32_t     flags;
        weft_status  st;
        const char  *text;
    } wrong[] = {
        { WEFT_SAMPLER_EULER, 0, rising, 3, 0, WEFT_E_ARG, "sigma 2 is 1 after 1, they must fall" },
        { WEFT_SAMPLER_EULER, 0, endless, 2, 0, WEFT_E_ARG, "sigma 0 is inf" },
        { WEFT_SAMPLER_HEUN, 0, zero, 2, 0, WEFT_E_ARG, "sigma 1 is 0, it must be above 0 and finite" },
        { WEFT_SAMPLER_EULER_A, 0, odd, 2, 0, WEFT_E_ARG, "sigma 1 is nan" },
        { WEFT_SAMPLER_EULER, 3, rising, 2, 0, WEFT_E_ARG, "2 sigmas are given for 3 steps" },
        { WEFT_SAMPLER_EULER, -1, rising, 2, 0, WEFT_E_ARG, "2 sigmas are given for -1 steps" },
        { WEFT_SAMPLER_EULER, 0, rising, SIZE_MAX, 0, WEFT_E_ARG, "at most 1000" },
        { WEFT_SAMPLER_EULER, 0, NULL, 2, 0, WEFT_E_ARG, "sigmas is NULL, but sigmas_len is 2" },
        { WEFT_SAMPLER_EULER, 0, rising, 0, 0, WEFT_E_ARG, "sigmas is given, but sigmas_len is 0" },
        { WEFT_SAMPLER_DPMPP_2M, 0, rising, 2, WEFT_SAMPLER_KARRAS, WEFT_E_ARG, "one of them" },
        { WEFT_SAMPLER_DDIM, 0, rising, 2, 0, WEFT_E_UNSUPPORTED, "ddim steps between training" },
        { WEFT_SAMPLER_LCM, 0, rising, 2, 0, WEFT_E_UNSUPPORTED, "lcm steps between training" },
    };

    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        weft_sampler_options o = options_of(wrong[i].kind, wrong[i].steps);
        weft_sampler        *s;

        o.sigmas = wrong[i].sigmas;
        o.sigmas_len = wrong[i].len;
        o.flags = wrong[i].flags;
        ck_assert_int_eq(weft_sampler_create(&o, &s, &err), wrong[i].st);
        ck_assert_msg(strstr(err.text, wrong[i].text) != NULL, "%s", err.text);
    }
}
END_TEST

START_TEST(few_steps_are_of_the_trainings)
{
    for (int32_t kind = WEFT_SAMPLER_LCM; kind <= WEFT_SAMPLER_TCD; kind++) {
        weft_sampler_options o = options_of(kind, 51);
        weft_sampler        *s;

        ck_assert_int_eq(weft_sampler_create(&o, &s, &err), WEFT_E_ARG);
        ck_assert_msg(strstr(err.text, "51 steps, but") && strstr(err.text, "the 50 of its training"), "%s", err.text);
        o.origin_steps = 1001;
        ck_assert_int_eq(weft_sampler_create(&o, &s, &err), WEFT_E_ARG);
        ck_assert_msg(strstr(err.text, "origin_steps is 1001, it must be 1 to 1000") != NULL, "%s", err.text);
        o.origin_steps = 0;
        o.steps = 1;
        o.train_steps = 20; /* fewer than the 50 that are the default */
        s = made(o);
        ck_assert_float_eq(weft_sampler_timestep(s, 0), 19);
        weft_sampler_free(s);
    }
}
END_TEST

START_TEST(defaults_are_twenty_steps_of_ddim)
{
    weft_sampler *s;

    ck_assert_int_eq(weft_sampler_create(NULL, &s, &err), WEFT_OK);
    ck_assert_int_eq(weft_sampler_calls(s), 20);
    ck_assert_float_eq(weft_sampler_timestep(s, 0), 950);
    ck_assert_float_eq(weft_sampler_timestep(s, 19), 0);
    ck_assert_float_nan(weft_sampler_timestep(s, 20));
    ck_assert_float_nan(weft_sampler_timestep(s, -1));
    ck_assert_float_nan(weft_sampler_sigma(s, 21));
    ck_assert_float_eq(weft_sampler_init_scale(s), 1);
    weft_sampler_free(s);
    weft_sampler_free(NULL);
    ck_assert_int_eq(weft_sampler_calls(NULL), 0);
    ck_assert_float_nan(weft_sampler_init_scale(NULL));
}
END_TEST

/* A row has every part that the rest of the library takes for granted, and no name twice. */
START_TEST(every_row_is_whole)
{
    for (size_t i = 0; wf_solver_at(i) != NULL; i++) {
        const wf_solver *row = wf_solver_at(i);

        ck_assert_msg(row->kind > 0 && row->layout > 0 && row->step != NULL, "%s", row->name);
        ck_assert_msg(row->spacing != WEFT_SPACING_DEFAULT, "%s", row->name);
        ck_assert_msg(row->aliases != NULL && row->settings != NULL, "%s", row->name);
        ck_assert_msg(row->absent.beta_end > row->absent.beta_start, "%s", row->name);
        ck_assert_msg((row->calls == NULL) == (row->step_of == NULL), "%s", row->name);
        ck_assert_msg(!row->karras || wf_free_levels(row), "%s", row->name);
        for (size_t k = 0; k < i; k++) {
            ck_assert_int_ne(wf_solver_at(k)->kind, row->kind);
            ck_assert_str_ne(wf_solver_at(k)->name, row->name);
        }
    }
}
END_TEST

/* What the library tells about its solvers, weft_has() included, is what the rows say. */
START_TEST(rows_are_told)
{
    static const char *const names[] = { "ddim", "euler", "euler_a", "dpmpp_2m", "pndm",
                                         "ddpm", "heun",  "lcm",     "tcd" };
    size_t count = 0;

    for (; wf_solver_at(count) != NULL; count++) {
        const wf_solver *row = wf_solver_at(count);
        uint32_t         traits = weft_sampler_traits(row->kind);

        ck_assert_int_eq(weft_sampler_kind_at(count), row->kind);
        ck_assert_str_eq(weft_sampler_name(row->kind), row->name);
        ck_assert_int_eq(weft_has(row->name), 1);
        ck_assert_int_eq(weft_sampler_find(row->name), row->kind);
        for (const char *const *alias = row->aliases; *alias != NULL; alias++)
            ck_assert_msg(weft_sampler_find(*alias) == row->kind, "%s", *alias);
        ck_assert_int_eq((traits & WEFT_TRAIT_SIGMAS) != 0, wf_free_levels(row));
        ck_assert_int_eq((traits & WEFT_TRAIT_ETA) != 0, row->eta);
        ck_assert_int_eq((traits & WEFT_TRAIT_DRAWS) != 0, row->draws != NULL);
    }
    ck_assert_int_eq(weft_sampler_kind_at(count), 0);
    ck_assert_int_eq(weft_sampler_kind_at(SIZE_MAX), 0);
    for (size_t i = 0; i < COUNT_OF(names); i++) /* the numbers and names of 0.1 stay */
        ck_assert_str_eq(weft_sampler_name((int32_t)i + 1), names[i]);
    ck_assert_int_eq(weft_sampler_find("EulerDiscreteScheduler"), WEFT_SAMPLER_EULER);
    ck_assert_int_eq(weft_sampler_find("plms"), WEFT_SAMPLER_PNDM);
    ck_assert_int_eq(weft_sampler_find("Eulers"), 0);
    ck_assert_int_eq(weft_sampler_find(""), 0);
    ck_assert_int_eq(weft_sampler_find(NULL), 0);
    ck_assert_ptr_null(weft_sampler_name(0));
    ck_assert_ptr_null(weft_sampler_name(-1));
    ck_assert_uint_eq(weft_sampler_traits(0), 0);
}
END_TEST

/* ---- calls --------------------------------------------------------------------------------- */

START_TEST(calls_come_in_order)
{
    weft_sampler *s = made(options_of(WEFT_SAMPLER_DPMPP_2M, 3));
    float         p[4] = { 0.5f, 0.25f, 1, 2 }, x[4] = { 1, 2, 3, 4 };

    ck_assert_int_eq(weft_sampler_step(s, 0, p, x, 4, NULL, &err), WEFT_E_STATE);
    ck_assert_str_eq(err.text,
                     "weft_sampler_step: call 0 without weft_sampler_begin(): no image was begun");
    begin(s, 0, 4);
    ck_assert_int_eq(weft_sampler_step(s, 1, p, x, 4, NULL, &err), WEFT_E_STATE);
    ck_assert_str_eq(err.text, "weft_sampler_step: call is 1, but call 0 comes next; another image "
                               "starts with weft_sampler_begin()");
    ck_assert_int_eq(weft_sampler_step(s, 0, p, x, 4, NULL, &err), WEFT_OK);
    ck_assert_int_eq(weft_sampler_step(s, 0, p, x, 4, NULL, &err), WEFT_E_STATE);
    ck_assert_int_eq(weft_sampler_step(s, 1, p, x, 3, NULL, &err), WEFT_E_ARG);
    ck_assert_str_eq(err.text, "weft_sampler_step: len is 3, but the image was begun with 4");
    ck_assert_int_eq(weft_sampler_step(s, 1, p, x, 4, NULL, &err), WEFT_OK);
    ck_assert_int_eq(weft_sampler_step(s, 2, p, x, 4, NULL, &err), WEFT_OK);
    ck_assert_int_eq(weft_sampler_step(s, 2, p, x, 4, NULL, &err), WEFT_E_STATE);
    ck_assert_str_eq(err.text, "weft_sampler_step: call 2 without weft_sampler_begin(): the last "
                               "image is finished");
    ck_assert_int_eq(weft_sampler_step(s, 3, p, x, 4, NULL, &err), WEFT_E_ARG);
    ck_assert_str_eq(err.text, "weft_sampler_step: call is 3, the sampler has calls 0 to 2");
    begin(s, 0, 4);
    ck_assert_int_eq(weft_sampler_step(s, -1, p, x, 4, NULL, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_sampler_step(s, 0, NULL, x, 4, NULL, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_sampler_step(s, 0, p, NULL, 4, NULL, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_sampler_step(s, 0, p, x, 0, NULL, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_sampler_step(NULL, 0, p, x, 4, NULL, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_sampler_scale(s, 3, x, x, 4, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_sampler_scale(s, 0, x, NULL, 4, &err), WEFT_E_ARG);
    /* none of it counted */
    ck_assert_int_eq(weft_sampler_step(s, 0, p, x, 4, NULL, &err), WEFT_OK);
    weft_sampler_free(s);
}
END_TEST

/* A begin that is refused leaves the image under way as it was. */
START_TEST(a_refused_begin_changes_nothing)
{
    counting             c = { -1, 0, 0 };
    weft_allocator       alloc = counting_allocator(&c);
    weft_sampler_options o = options_of(WEFT_SAMPLER_DPMPP_2M, 3);
    weft_sampler        *s;
    float                p[2] = { 0.5f, 0.25f }, x[2] = { 1, 2 };

    o.allocator = &alloc;
    s = made(o);
    begin(s, 0, 2);
    c.fail_at = 0;
    ck_assert_int_eq(weft_sampler_step(s, 0, p, x, 2, NULL, &err), WEFT_OK);
    ck_assert_int_eq(weft_sampler_begin(NULL, 0, 2, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_sampler_begin(s, -1, 2, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_sampler_begin(s, 3, 2, &err), WEFT_E_ARG);
    ck_assert_str_eq(err.text, "weft_sampler_begin: call is 3, the sampler has calls 0 to 2");
    ck_assert_int_eq(weft_sampler_begin(s, 0, 0, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_sampler_begin(s, 0, SIZE_MAX / 2, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_sampler_begin(s, 0, 3, &err), WEFT_E_NOMEM);
    ck_assert_int_eq(weft_sampler_step(s, 1, p, x, 2, NULL, &err), WEFT_OK);
    weft_sampler_free(s);
}
END_TEST

/* Calls 0 and 1 of Heun's are one step, and 2 and 3: an image begins at 0, 2 or 4. */
START_TEST(half_a_step_is_no_start)
{
    weft_sampler *s = made(options_of(WEFT_SAMPLER_HEUN, 3));
    float         p[] = { 0.5f }, x[] = { 1 };
    int32_t       call;

    ck_assert_int_eq(weft_sampler_calls(s), 5);
    ck_assert_int_eq(weft_sampler_start(s, 0.4f, &call, &err), WEFT_OK);
    ck_assert_int_eq(call, 4);
    ck_assert_int_eq(weft_sampler_begin(s, 1, 1, &err), WEFT_E_ARG);
    ck_assert_str_eq(err.text, "weft_sampler_begin: call is 1, in the middle of a step of heun");
    ck_assert_int_eq(weft_sampler_begin(s, 3, 1, &err), WEFT_E_ARG);
    begin(s, 2, 1);
    for (call = 2; call < 5; call++)
        ck_assert_int_eq(weft_sampler_step(s, call, p, x, 1, NULL, &err), WEFT_OK);
    weft_sampler_free(s);
}
END_TEST

/* Noise is only asked for at calls that draw it: not by LCM's last call, nor by DDPM's at t = 0,
 * nor by TCD's without eta, nor by those of DPM2 a that go to the middle. */
START_TEST(noise_is_drawn_where_diffusers_draws)
{
    static const struct { int32_t kind; float eta; int32_t draws; } table[] = {
        { WEFT_SAMPLER_LCM, 0, 3 }, { WEFT_SAMPLER_TCD, 0, 0 }, { WEFT_SAMPLER_TCD, 0.3f, 3 }, { WEFT_SAMPLER_DDPM, 0, 3 },
        { WEFT_SAMPLER_PNDM, 0, 0 }, { WEFT_SAMPLER_HEUN, 0, 0 }, { WEFT_SAMPLER_EULER_A, 0, 4 },
        { WEFT_SAMPLER_DDIM, 1, 4 }, { WEFT_SAMPLER_DPMPP_2M, 0, 0 }, { WEFT_SAMPLER_DPMPP_2M_SDE, 0, 4 },
        { WEFT_SAMPLER_DPMPP_3M_SDE, 0, 4 }, { WEFT_SAMPLER_DPMPP_SDE, 0, 6 }, { WEFT_SAMPLER_DPMPP_2S, 0, 0 },
        { WEFT_SAMPLER_DPM2, 0, 0 }, { WEFT_SAMPLER_DPM2_A, 0, 3 }, { WEFT_SAMPLER_UNIPC, 0, 0 },
    };

    for (size_t i = 0; i < COUNT_OF(table); i++) {
        weft_sampler_options o = options_of(table[i].kind, 4);
        weft_sampler        *s;
        weft_noise          *noise;
        float                p[] = { 0.5f }, x[] = { 1 };
        int32_t              draws = 0;

        o.eta = table[i].eta;
        s = made(o);
        ck_assert_int_eq(weft_noise_create(1, NULL, &noise, &err), WEFT_OK);
        begin(s, 0, 1);
        for (int32_t call = 0; call < weft_sampler_calls(s); call++)
            if (weft_sampler_step(s, call, p, x, 1, NULL, &err) != WEFT_OK) {
                draws++;
                ck_assert_msg(strstr(err.text, "draws noise at call") != NULL, "%s", err.text);
                ck_assert_int_eq(weft_sampler_step(s, call, p, x, 1, noise, &err), WEFT_OK);
            }
        ck_assert_int_eq(draws, table[i].draws);
        weft_noise_free(noise);
        weft_sampler_free(s);
    }
}
END_TEST

START_TEST(strength_says_where_an_image_starts)
{
    static const struct { float strength; int32_t steps, call; } table[] = {
        { 1, 20, 0 }, { 0.5f, 20, 10 }, { 0.3f, 10, 7 }, { 0.7f, 10, 3 }, { 0.55f, 20, 9 }, { 0.29f, 100, 72 },
        { 0.1f, 10, 9 },
    }; /* 100 * 0.29 is 28.999999999999996 to Python, and so to diffusers */
    weft_sampler *s;
    int32_t       call;

    for (size_t i = 0; i < COUNT_OF(table); i++) {
        s = made(options_of(WEFT_SAMPLER_EULER, table[i].steps));
        ck_assert_int_eq(weft_sampler_start(s, table[i].strength, &call, &err), WEFT_OK);
        ck_assert_int_eq(call, table[i].call);
        weft_sampler_free(s);
    }
    s = made(options_of(WEFT_SAMPLER_EULER, 10));
    ck_assert_int_eq(weft_sampler_start(s, 0.09f, &call, &err), WEFT_E_ARG);
    ck_assert_str_eq(err.text, "weft_sampler_start: strength 0.09 of 10 steps leaves none to take");
    ck_assert_int_eq(weft_sampler_start(s, 0, &call, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_sampler_start(s, -0.5f, &call, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_sampler_start(s, 1.5f, &call, &err), WEFT_E_ARG);
    ck_assert_str_eq(err.text, "weft_sampler_start: strength is 1.5, it must be 0 to 1");
    ck_assert_int_eq(weft_sampler_start(s, NAN, &call, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_sampler_start(s, 1, NULL, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_sampler_start(NULL, 1, &call, &err), WEFT_E_ARG);
    weft_sampler_free(s);
}
END_TEST

/* An image of 3 and noise of -1: sqrt(A) 3 - sqrt(1-A), or 3 - sigma. */
START_TEST(noise_is_added_as_much_as_a_call_begins_with)
{
    for (EACH_KIND(kind)) {
        weft_sampler *s = made(options_of(kind, 5));
        float         x[] = { 3 }, z[] = { -1 };
        double        sigma = (double)weft_sampler_sigma(s, 2), A = 1 / (1 + sigma * sigma);

        ck_assert_int_eq(weft_sampler_add_noise(s, 2, x, z, x, 1, &err), WEFT_OK);
        ck_assert_float_eq_tol(
            x[0], (float)(s->solver->straight ? 3 - sigma : sqrt(A) * 3 - sqrt(1 - A)), 1e-6f);
        ck_assert_int_eq(weft_sampler_add_noise(s, weft_sampler_calls(s), x, z, x, 1, &err), WEFT_E_ARG);
        ck_assert_int_eq(weft_sampler_add_noise(s, 0, x, z, NULL, 1, &err), WEFT_E_ARG);
        ck_assert_int_eq(weft_sampler_add_noise(s, 0, x, NULL, x, 1, &err), WEFT_E_ARG);
        ck_assert_int_eq(weft_sampler_add_noise(s, 0, x, z, x, 0, &err), WEFT_E_ARG);
        weft_sampler_free(s);
    }
}
END_TEST

/* From call `first` to the last. */
static void walk_from(weft_sampler *s, int32_t first, float *x, size_t n)
{
    weft_noise *noise;

    ck_assert_int_eq(weft_noise_create(3, NULL, &noise, &err), WEFT_OK);
    begin(s, first, n);
    for (int32_t call = first; call < weft_sampler_calls(s); call++) walk(s, call, x, n, noise);
    weft_noise_free(noise);
}

/* Abandon an image before call `left` and begin another at every call where one may begin, `left`
 * itself among them, with as many floats, fewer and more: the same bits as from a fresh sampler. */
static void abandon_and_begin(weft_sampler_options o, int32_t left, size_t n)
{
    weft_sampler *fresh = made(o), *used = made(o);
    int32_t       pair = WF_MAX(fresh->solver->calls_per_step, 1);

    for (int32_t first = 0; first < weft_sampler_calls(fresh); first += pair) {
        weft_noise *noise;
        float       x[40], y[40], other[40];

        for (int i = 0; i < 40; i++) {
            x[i] = y[i] = (float)(i - 20) / 8;
            other[i] = 100 - (float)i;
        }
        ck_assert_int_eq(weft_noise_create(8, NULL, &noise, &err), WEFT_OK);
        begin(used, 0, 20);
        for (int32_t call = 0; call < left; call++) walk(used, call, other, 20, noise);
        weft_noise_free(noise);
        walk_from(used, first, y, n);

        weft_sampler_free(fresh);
        fresh = made(o);
        walk_from(fresh, first, x, n);
        ck_assert_msg(memcmp(x, y, sizeof x) == 0, "%s: left before call %d, begun at %d of %zu",
                      fresh->solver->name, left, first, n);
    }
    weft_sampler_free(fresh);
    weft_sampler_free(used);
}

/* With the same answers at the same calls, the steps of a solver of order one undo the inversion. */
START_TEST(steps_lead_back_from_an_inversion)
{
    static const struct { int32_t kind; uint32_t flags; } kinds[] = {
        { WEFT_SAMPLER_DDIM, WEFT_SAMPLER_ALPHA_TO_ONE }, { WEFT_SAMPLER_EULER, WEFT_SAMPLER_KARRAS },
        { WEFT_SAMPLER_DDIM, WEFT_SAMPLER_ALPHA_TO_ONE | WEFT_SAMPLER_CLIP },
    };
    enum { N = 4, STEPS = 7 };
    const float image[N] = { 0.5f, -1.25f, 2.0f, 0.0f };
    weft_error err;

    for (size_t k = 0; k < COUNT_OF(kinds); k++) {
        weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;
        weft_sampler *s;
        float x[N], answer[STEPS][N];
        bool clips = (kinds[k].flags & WEFT_SAMPLER_CLIP) != 0;

        o.kind = kinds[k].kind;
        o.flags = kinds[k].flags;
        o.steps = STEPS;
        ck_assert_int_eq(weft_sampler_create(&o, &s, &err), WEFT_OK);
        memcpy(x, image, sizeof x);
        for (int32_t n = STEPS - 1; n >= 0; n--) {
            for (int i = 0; i < N; i++) answer[n][i] = 0.4f * (float)((7 * n + 3 * i) % 5) - 0.7f;
            ck_assert_int_eq(weft_sampler_invert(s, n, answer[n], x, N, &err), WEFT_OK);
        }
        ck_assert_float_gt(fabsf(x[0] - image[0]), 0.1f);
        ck_assert_int_eq(weft_sampler_begin(s, 0, N, &err), WEFT_OK);
        for (int32_t n = 0; n < STEPS && !clips; n++)
            ck_assert_int_eq(weft_sampler_step(s, n, answer[n], x, N, NULL, &err), WEFT_OK);
        for (int i = 0; i < N && !clips; i++) ck_assert_float_eq_tol(x[i], image[i], 2e-5f);
        if (clips) { /* the network's own answer counts: as without clipping */
            weft_sampler *plain;
            float y[N];
            o.flags &= ~(uint32_t)WEFT_SAMPLER_CLIP;
            ck_assert_int_eq(weft_sampler_create(&o, &plain, &err), WEFT_OK);
            memcpy(y, image, sizeof y);
            for (int32_t n = STEPS - 1; n >= 0; n--)
                ck_assert_int_eq(weft_sampler_invert(plain, n, answer[n], y, N, &err), WEFT_OK);
            ck_assert_mem_eq(x, y, sizeof x);
            weft_sampler_free(plain);
        }
        weft_sampler_free(s);
    }
}
END_TEST

/* x = s x0 + n e and v = s e - n x0 with s^2 + n^2 = 1: the two are solved for x0 and e, and mixed for
 * the level before. Straight latents are the same divided by s. */
START_TEST(an_inversion_reads_what_the_network_predicts)
{
    static const int32_t kinds[] = { WEFT_SAMPLER_DDIM, WEFT_SAMPLER_EULER, WEFT_SAMPLER_DPMPP_2M };
    enum { STEPS = 6 };
    weft_error err;

    for (size_t k = 0; k < COUNT_OF(kinds); k++)
        for (int v = 0; v < 2; v++) {
            weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;
            weft_sampler *sampler;

            o.kind = kinds[k];
            o.steps = STEPS;
            o.prediction = v ? WEFT_PREDICT_V : WEFT_PREDICT_EPSILON;
            ck_assert_int_eq(weft_sampler_create(&o, &sampler, &err), WEFT_OK);
            for (int32_t n = 0; n < STEPS; n++) {
                double sigma[2] = { weft_sampler_sigma(sampler, n), weft_sampler_sigma(sampler, n + 1) };
                double s = 1 / sqrt(1 + sigma[1] * sigma[1]), noise = sigma[1] * s, s0 = 1 / sqrt(1 + sigma[0] * sigma[0]);
                bool   straight = kinds[k] == WEFT_SAMPLER_EULER;
                float  x = 0.75f, answer = -0.5f;
                double z = straight ? x * s : x;
                double e = v ? noise * z + s * answer : answer, x0 = (z - noise * e) / s;
                double want = s0 * (x0 + sigma[0] * e) / (straight ? s0 : 1);

                ck_assert_int_eq(weft_sampler_invert(sampler, n, &answer, &x, 1, &err), WEFT_OK);
                ck_assert_double_eq_tol(x, want, 1e-5 * fmax(1, fabs(want)));
            }
            weft_sampler_free(sampler);
        }
}
END_TEST

START_TEST(a_wrong_inversion_is_refused)
{
    weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;
    weft_sampler *s;
    float x = 1, answer = 1;
    weft_error err;

    ck_assert_int_eq(weft_sampler_create(&o, &s, &err), WEFT_OK);
    ck_assert_int_eq(weft_sampler_invert(s, 20, &answer, &x, 1, &err), WEFT_E_ARG);
    ck_assert_ptr_nonnull(strstr(err.text, "weft_sampler_invert: call is 20, the sampler has calls 0 to 19"));
    ck_assert_int_eq(weft_sampler_invert(s, 0, NULL, &x, 1, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_sampler_invert(s, 0, &answer, &x, 0, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_sampler_invert(NULL, 0, &answer, &x, 1, &err), WEFT_E_ARG);
    weft_sampler_free(s);
    o.prediction = WEFT_PREDICT_SAMPLE;
    ck_assert_int_eq(weft_sampler_create(&o, &s, &err), WEFT_OK);
    ck_assert_int_eq(weft_sampler_invert(s, 0, &answer, &x, 1, &err), WEFT_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(err.text, "predicts the sample"));
    ck_assert_float_eq(x, 1);
    weft_sampler_free(s);
}
END_TEST

START_TEST(an_abandoned_image_never_reaches_the_next)
{
    static const size_t lengths[] = { 20, 7, 40 };

    for (EACH_KIND(kind))
        for (int eta = 0; eta <= row_of(kind)->eta; eta++) {
            weft_sampler_options o = options_of(kind, 6);
            weft_sampler        *s;
            int32_t              calls;

            o.eta = eta ? 0.5f : 0;
            s = made(o);
            calls = weft_sampler_calls(s);
            weft_sampler_free(s);
            for (int32_t left = 0; left <= calls; left++)
                for (size_t i = 0; i < COUNT_OF(lengths); i++)
                    abandon_and_begin(o, left, lengths[i]);
        }
}
END_TEST

/* Fail from the nth allocation on, for every n: NOMEM, nothing out. No step allocates. */
START_TEST(every_allocation_may_fail)
{
    for (EACH_KIND(kind)) {
        weft_status st = WEFT_E_NOMEM;

        for (long n = 0; st != WEFT_OK; n++) {
            counting             c = { n, 0, 0 };
            weft_allocator       alloc = counting_allocator(&c);
            weft_sampler_options o = options_of(kind, 4);
            weft_sampler        *s = NULL;
            weft_noise          *noise;
            float                x[2] = { 1, 2 }, p[2] = { 0.5f, 0.5f };

            ck_assert_int_lt(n, 20);
            ck_assert_int_eq(weft_noise_create(3, NULL, &noise, &err), WEFT_OK);
            o.allocator = &alloc;
            o.eta = row_of(kind)->eta ? 0.5f : 0;
            st = weft_sampler_create(&o, &s, &err);
            if (st == WEFT_OK) st = weft_sampler_begin(s, 0, 2, &err);
            if (st != WEFT_OK) {
                ck_assert_int_eq(st, WEFT_E_NOMEM);
            } else {
                long made_before = c.made;

                for (int32_t call = 0; call < weft_sampler_calls(s); call++)
                    ck_assert_int_eq(weft_sampler_step(s, call, p, x, 2, noise, &err), WEFT_OK);
                ck_assert_int_eq(c.made, made_before);
            }
            weft_sampler_free(s);
            weft_noise_free(noise);
            ck_assert_int_eq(c.out, 0);
        }
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("sampler");
    TCase *agree = tcase_create("agreement"), *settings = tcase_create("settings"), *calls = tcase_create("calls");

    tcase_add_test(agree, trajectories_are_those_of_scheduler_reference);
    tcase_add_test(agree, training_schedule_is_that_of_scheduler_reference);
    tcase_add_test(agree, sigmas_at_whole_timesteps_are_torchs);
    tcase_add_test(agree, trajectories_are_those_of_current_diffusers);
    tcase_add_loop_test(agree, solvers_are_those_of_diffusers, 0, 2);
    tcase_add_test(agree, zero_terminal_signal);
    tcase_add_test(agree, predicted_sample_is_where_the_steps_end);
    tcase_add_test(agree, eta_adds_noise);
    tcase_add_loop_test(agree, any_number_of_steps_is_finite, 0, 6);
    tcase_add_test(agree, a_float_setting_stands_for_its_decimal);
    tcase_add_test(settings, settings_out_of_range_are_refused);
    tcase_add_test(settings, fractions_out_of_range_are_refused);
    tcase_add_test(settings, each_row_refuses_what_it_does_not_take);
    tcase_add_test(settings, unknown_flags_and_no_out_are_refused);
    tcase_add_test(settings, sigmas_of_the_callers_own_are_checked);
    tcase_add_test(settings, few_steps_are_of_the_trainings);
    tcase_add_test(settings, defaults_are_twenty_steps_of_ddim);
    tcase_add_test(settings, every_row_is_whole);
    tcase_add_test(settings, rows_are_told);
    tcase_add_test(calls, calls_come_in_order);
    tcase_add_test(calls, half_a_step_is_no_start);
    tcase_add_test(calls, noise_is_drawn_where_diffusers_draws);
    tcase_add_test(calls, a_refused_begin_changes_nothing);
    tcase_add_test(calls, strength_says_where_an_image_starts);
    tcase_add_test(calls, noise_is_added_as_much_as_a_call_begins_with);
    tcase_add_test(calls, steps_lead_back_from_an_inversion);
    tcase_add_test(calls, an_inversion_reads_what_the_network_predicts);
    tcase_add_test(calls, a_wrong_inversion_is_refused);
    tcase_add_test(calls, an_abandoned_image_never_reaches_the_next);
    tcase_add_test(calls, every_allocation_may_fail);
    suite_add_tcase(s, agree);
    suite_add_tcase(s, settings);
    suite_add_tcase(s, calls);
    return run_suite(s);
}
