/* test_schedules.c - which levels a sampler visits, every key of a scheduler_config.json, and the names that other
 * programs have for samplers and schedules. The truth is make_schedules.py's. */
#include "sampler/sampler_internal.h"
#include "walk.h"

#define LEN 24 /* of the stored latents */

/* Betas of a config, which are otherwise the model's to keep. */
static void take_betas(const json_t *config, weft_sampler_options *o)
{
    static float  betas[64];
    const json_t *list = json_object_get(config, "trained_betas"), *v;
    size_t        i;

    o->trained_betas_len = json_array_size(list);
    o->trained_betas = o->trained_betas_len > 0 ? betas : NULL;
    ck_assert_uint_le(o->trained_betas_len, COUNT_OF(betas));
    json_array_foreach(list, i, v) betas[i] = (float)json_number_value(v);
}

/* Noise scaled for the first call, after the first call, after the last: 3 LEN numbers. */
static void compare_run(weft_sampler *s, const char *name, const float *noise, const float *want, uint64_t seed,
                        double tolerance)
{
    weft_noise *draws;
    float       x[LEN];
    int32_t     calls = weft_sampler_calls(s);

    ck_assert_int_eq(weft_noise_create(seed, NULL, &draws, &err), WEFT_OK);
    for (size_t i = 0; i < LEN; i++) x[i] = noise[i] * weft_sampler_init_scale(s);
    begin(s, 0, LEN);
    for (int32_t call = 0; call <= calls; call++) {
        double largest = 0;

        if (call <= 1 || call == calls) {
            for (size_t i = 0; i < LEN; i++) largest = fmax(largest, fabs((double)want[i]));
            for (size_t i = 0; i < LEN; i++)
                close_to(name, call == calls ? "x at the end," : call == 0 ? "x at first," : "x after a call,", i,
                         (double)x[i], (double)want[i], tolerance * largest);
        }
        if (call <= 1 && calls > 1) want += LEN;
        if (call == 0 && calls == 1) want += 2 * LEN;
        if (call < calls) walk(s, call, x, LEN, draws);
    }
    weft_noise_free(draws);
}

/* ---- schedules ----------------------------------------------------------------------------- */

START_TEST(schedules_are_those_of_diffusers)
{
    json_t *all = data_json("golden/schedules.json"), *c;
    float  *noise;
    size_t  at, n;

    ck_assert_msg(weft_tensors_open(data_path("golden/schedules.safetensors"), NULL, &stored, &err) == WEFT_OK, "%s",
                  err.text);
    noise = read_stored("noise", NULL, &n);
    ck_assert_uint_eq(n, LEN);
    json_array_foreach(json_object_get(all, "cases"), at, c) {
        const char          *name = text_of(c, "name"), *schedule = text_of(c, "schedule");
        weft_sampler_options o = options_of(weft_sampler_find(text_of(c, "kind")), (int32_t)number_of(c, "steps"));
        const json_t        *config = json_object_get(c, "config");
        weft_sampler        *s;
        float               *want;
        /* Latents of 4096 are rounded to 2e-4, and the rest is made of differences of such. */
        double               tolerance = number_of(c, "f64_rel") > 5e-6 ? 5e-5 : 2e-6;

        take_betas(config, &o);
        if (schedule != NULL) ck_assert_int_eq(weft_sampler_options_named(schedule, &o, &err), WEFT_OK);
        ck_assert_msg(wf_sampler_options_from_json(config, &o, &err) == WEFT_OK, "%s: %s", name, err.text);
        o.eta = (float)number_of(c, "eta");
        s = made(o);
        want = read_stored(name, "timesteps", &n);
        ck_assert_uint_eq(n, (size_t)weft_sampler_calls(s));
        for (size_t i = 0; i < n; i++)
            close_to(name, "timestep", i, (double)weft_sampler_timestep(s, (int32_t)i), (double)want[i], 2e-4);
        free(want);
        if (wf_free_levels(s->solver)) {
            want = read_stored(name, "sigmas", &n);
            ck_assert_uint_eq(n, (size_t)weft_sampler_calls(s) + 1);
            for (size_t i = 0; i < n; i++)
                close_to(name, "sigma", i, (double)weft_sampler_sigma(s, (int32_t)i), (double)want[i],
                         2e-6 * (double)want[i]);
            free(want);
        }
        want = read_stored(name, "x", &n);
        ck_assert_uint_eq(n, 3 * LEN);
        compare_run(s, name, noise, want, (uint64_t)number_of(all, "noise_seed"), tolerance);
        free(want);
        weft_sampler_free(s);
    }
    ck_assert_uint_ge(at, 220);
    free(noise);
    weft_tensors_free(stored);
    json_decref(all);
}
END_TEST

/* scipy.stats.beta.ppf(p, 0.6, 0.6). */
START_TEST(quantiles_are_those_of_scipy)
{
    json_t *all = data_json("golden/schedules.json"), *table = json_object_get(all, "quantiles"), *p;
    size_t  i;

    json_array_foreach(json_array_get(table, 0), i, p) {
        double want = json_number_value(json_array_get(json_array_get(table, 1), i));

        ck_assert_double_eq_tol(wf_beta_quantile(json_number_value(p)), want, 1e-12 * want);
    }
    ck_assert_uint_eq(i, 18);
    ck_assert_double_eq(wf_beta_quantile(0), 0);
    ck_assert_double_eq(wf_beta_quantile(1), 1);
    json_decref(all);
}
END_TEST

/* ---- keys ---------------------------------------------------------------------------------- */

static json_t *config_of(const json_t *all, const char *kind, const json_t *row, bool with)
{
    json_t     *config = json_deep_copy(json_object_get(all, "base"));
    const char *key = text_of(row, "key");
    json_t     *value = json_object_get(row, "value");

    json_object_update(config, json_object_get(json_object_get(all, "bases"), kind));
    json_object_update(config, json_object_get(row, "context"));
    if (with && json_is_null(value)) json_object_del(config, key);
    else if (with) json_object_set(config, key, value);
    return config;
}

static weft_status read_options(const json_t *config, int32_t kind, int32_t steps, weft_sampler_options *o)
{
    *o = options_of(kind, steps);
    take_betas(config, o);
    WF_TRY(wf_sampler_options_from_json(config, o, &err));
    o->eta = kind == WEFT_SAMPLER_TCD ? 0.3f : 0;
    return WEFT_OK;
}

START_TEST(every_key_is_honoured_or_refused)
{
    json_t *all = data_json("golden/scheduler_keys.json"), *row, *run;
    float  *noise, *x;
    int     honoured = 0, idle = 0, refused = 0;
    size_t  at, n, total;

    ck_assert_msg(weft_tensors_open(data_path("golden/scheduler_keys.safetensors"), NULL, &stored, &err) == WEFT_OK,
                  "%s", err.text);
    noise = read_stored("noise", NULL, &n);
    x = read_stored("x", NULL, &total);
    json_array_foreach(json_object_get(all, "rows"), at, row) {
        const char *name;

        json_object_foreach(json_object_get(row, "with"), name, run) {
            char                 told[256], *value = json_dumps(json_object_get(row, "value"), JSON_ENCODE_ANY);
            int32_t              kind = weft_sampler_find(name);
            json_t              *config = config_of(all, name, row, true);
            weft_sampler_options o;
            weft_sampler        *s = NULL;
            weft_status          st = read_options(config, kind, (int32_t)number_of(all, "steps"), &o);

            snprintf(told, sizeof told, "%s %s %.40s", name, text_of(row, "key"), value);
            if (st == WEFT_OK) st = weft_sampler_create(&o, &s, &err);
            if (st != WEFT_OK) {
                printf("%s [%s]: %s\n", told, json_dumps(json_object_get(row, "context"), 0), err.text);
                refused++;
            } else if (json_is_integer(run)) {
                size_t one = (size_t)json_integer_value(run);

                ck_assert_uint_le((one + 1) * 3 * LEN, total);
                compare_run(s, told, noise, x + one * 3 * LEN, (uint64_t)number_of(all, "noise_seed"), 2e-6);
                if (json_equal(run, json_object_get(json_object_get(row, "without"), name))) idle++;
                else honoured++;
            }
            weft_sampler_free(s);
            json_decref(config);
            free(value);
        }
    }
    printf("%d honoured, %d idle, %d refused\n", honoured, idle, refused);
    free(noise);
    free(x);
    weft_tensors_free(stored);
    json_decref(all);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("schedules");
    TCase *c = tcase_create("levels");

    tcase_add_test(c, schedules_are_those_of_diffusers);
    tcase_add_test(c, quantiles_are_those_of_scipy);
    suite_add_tcase(s, c);
    c = tcase_create("keys");
    tcase_add_test(c, every_key_is_honoured_or_refused);
    suite_add_tcase(s, c);
    return run_suite(s);
}
