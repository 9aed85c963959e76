/* test_schedules.c - which levels a sampler visits, every key of a scheduler_config.json, and the names that other
 * programs have for samplers and schedules. The truth is make_schedules.py's. */
#include "sampler/sampler_internal.h"
#include "walk.h"

#define LEN 24 /* of the stored latents */
#define HONOURED 481
#define IDLE 1459
#define REFUSED 87
#define BEYOND 68
#define ALL_KEYS 259

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
        for (size_t i = 0; i < n; i++) /* those inside a step are of sigmas that diffusers has in float32 */
            close_to(name, "timestep", i, (double)weft_sampler_timestep(s, (int32_t)i), (double)want[i],
                     s->solver->between && i % 2 ? 1e-3 : 2e-4);
        free(want);
        if (wf_free_levels(s->solver)) {
            want = read_stored(name, "sigmas", &n);
            ck_assert_uint_eq(n, (size_t)weft_sampler_calls(s) + 1);
            for (size_t i = 0; i < n; i += s->solver->between ? 2 : 1)
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

/* What is not honoured: kinds and values as words; `when` is a key that stands in the context, or NULL for any context. All
 * else must run as in diffusers. */
static const struct { const char *kinds, *key, *values, *when, *text; } refusals[] = {
    { "ddim ddpm pndm euler euler_a dpmpp_2m heun lcm tcd dpmpp_2s dpmpp_sde unipc lms dpm2 dpm2_a deis", "beta_schedule",
      "cubic", NULL, "beta_schedule is \"cubic\"" },
    { "ddim ddpm pndm euler euler_a dpmpp_2m heun lcm tcd dpmpp_2s dpmpp_sde unipc lms dpm2 dpm2_a deis", "prediction_type",
      "flow_prediction", NULL, "prediction_type is \"flow_prediction\"" },
    { "ddpm dpmpp_2m dpmpp_2s", "variance_type", "learned learned_range", NULL, "variance_type is " },
    { "ddpm", "variance_type", "fixed_large_log", NULL, "variance_type is \"fixed_large_log\"" },
    { "pndm", "skip_prk_steps", "false", NULL, "skip_prk_steps is false" },
    { "lcm", "timestep_scaling", "5.0", NULL, "timestep_scaling is 5" },
    { "euler dpmpp_2m heun dpmpp_2s dpmpp_sde unipc lms dpm2 dpm2_a deis", "use_beta_sigmas", "true", "use_karras_sigmas",
      "use_karras_sigmas and use_beta_sigmas are both true" },
    { "dpmpp_2m", "lambda_min_clipped", "-2.0", "timestep_spacing", "lambda_min -2 leaves 877 of 1000" },
    { "dpmpp_2m dpmpp_2s unipc deis", "solver_order", "4", NULL, "order is 4" },
    { "dpmpp_2m dpmpp_2s", "algorithm_type", "dpmsolver", NULL, "final_sigma must be" },
    { "dpmpp_2m", "algorithm_type", "sde-dpmsolver", NULL, "final_sigma must be" },
    { "dpmpp_2s", "algorithm_type", "sde-dpmsolver", NULL, "algorithm_type is \"sde-dpmsolver\"" },
    { "dpmpp_2m dpmpp_2s", "algorithm_type", "odd", NULL, "algorithm_type is \"odd\"" },
    { "deis", "algorithm_type", "sde-dpmsolver++ sde-dpmsolver odd", NULL, "algorithm_type is " },
    { "dpmpp_2m dpmpp_2s unipc deis", "solver_type", "odd", NULL, "solver_type is " },
    { "unipc", "predict_x0", "false", NULL, "final_sigma must be" },
    { "dpmpp_2m dpmpp_2s unipc deis", "use_flow_sigmas", "true", NULL, "use_flow_sigmas is true" },
    { "unipc", "use_dynamic_shifting", "true", NULL, "use_dynamic_shifting is true" },
    { "unipc", "shift_terminal", "0.1", NULL, "shift_terminal is 0.1" },
    { "dpmpp_sde", "noise_sampler_seed", "5", NULL, "noise_sampler_seed is 5" },
};

static bool among(const char *words, const char *word, size_t n)
{
    for (size_t len; *words != '\0'; words += len + (words[len] == ' ')) {
        len = strcspn(words, " ");
        if (len == n && memcmp(words, word, n) == 0) return true;
    }
    return false;
}

/* Marks the row of `refusals` that says so; false: none does. */
static bool is_expected(const char *kind, const json_t *row, const char *text, bool *met)
{
    const json_t *value = json_object_get(row, "value");
    char          written[64];
    bool          found = false;

    if (json_is_string(value)) snprintf(written, sizeof written, "%s", json_string_value(value));
    else if (json_is_boolean(value)) snprintf(written, sizeof written, "%s", json_is_true(value) ? "true" : "false");
    else if (json_is_integer(value)) snprintf(written, sizeof written, "%lld", (long long)json_integer_value(value));
    else snprintf(written, sizeof written, "%.1f", json_number_value(value));
    for (size_t i = 0; i < COUNT_OF(refusals); i++) {
        if (strcmp(refusals[i].key, text_of(row, "key")) != 0 || !among(refusals[i].kinds, kind, strlen(kind)) ||
            !among(refusals[i].values, written, strlen(written)) || strstr(text, refusals[i].text) == NULL)
            continue;
        if (refusals[i].when != NULL && json_object_get(json_object_get(row, "context"), refusals[i].when) == NULL) continue;
        met[i] = found = true;
    }
    return found;
}

/* Where no step is stored: the scale of the first noise, the timesteps, and the sigmas of whole steps. */
static void compare_levels(const weft_sampler *s, const char *name, const float *want)
{
    int32_t calls = weft_sampler_calls(s);

    close_to(name, "init scale", 0, (double)weft_sampler_init_scale(s), (double)want[0], 2e-6 * (double)want[0]);
    for (int32_t i = 0; i < calls; i++)
        close_to(name, "timestep", (size_t)i, (double)weft_sampler_timestep(s, i), (double)want[1 + i], 2e-4);
    for (int32_t i = 0; i <= calls; i += 2)
        close_to(name, "sigma", (size_t)i, (double)weft_sampler_sigma(s, i), (double)want[1 + calls + i],
                 2e-6 * (double)want[1 + calls + i]);
}

static void expect_finite(weft_sampler *s, const char *name, const float *noise, uint64_t seed)
{
    weft_noise *draws;
    float       x[LEN];

    ck_assert_int_eq(weft_noise_create(seed, NULL, &draws, &err), WEFT_OK);
    for (size_t i = 0; i < LEN; i++) x[i] = noise[i] * weft_sampler_init_scale(s);
    begin(s, 0, LEN);
    for (int32_t call = 0; call < weft_sampler_calls(s); call++) walk(s, call, x, LEN, draws);
    for (size_t i = 0; i < LEN; i++) ck_assert_msg(isfinite(x[i]), "%s: x %zu is not finite", name, i);
    weft_noise_free(draws);
}

/* One kind with one key. 'h': as diffusers' run with the key, which is another than without; 'i': the same run, since the
 * class does not have the key or it is idle; 'r': refused as listed; 'b': runs where diffusers refuses or divides by 0. */
static char try_key(const json_t *all, const json_t *row, const char *name, const json_t *run, const float *noise,
                    const float *x, bool *met)
{
    char                 told[128], how = 'b';
    int32_t              kind = weft_sampler_find(name);
    json_t              *config = config_of(all, name, row, true);
    weft_sampler_options o;
    weft_sampler        *s = NULL;
    weft_status          st = read_options(config, kind, (int32_t)number_of(all, "steps"), &o);
    /* rescaled betas begin at sigma 4096: as in schedules_are_those_of_diffusers */
    double               tolerance = strcmp(text_of(row, "key"), "rescale_betas_zero_snr") == 0 ? 5e-5 : 2e-6;

    snprintf(told, sizeof told, "%s, row with %s", name, text_of(row, "key"));
    ck_assert_msg(kind != 0, "%s", name);
    if (st == WEFT_OK) st = weft_sampler_create(&o, &s, &err);
    if (st != WEFT_OK) {
        ck_assert_msg(is_expected(name, row, err.text, met), "%s: %s", told, err.text);
        how = 'r';
    } else if (json_is_integer(run)) {
        const float *want = x + (size_t)json_integer_value(run) * 3 * LEN;

        if (kind == WEFT_SAMPLER_DPMPP_SDE) compare_levels(s, told, want);
        else compare_run(s, told, noise, want, (uint64_t)number_of(all, "noise_seed"), tolerance);
        how = json_equal(run, json_object_get(json_object_get(row, "without"), name)) ? 'i' : 'h';
    } else {
        expect_finite(s, told, noise, (uint64_t)number_of(all, "noise_seed"));
    }
    weft_sampler_free(s);
    json_decref(config);
    return how;
}

START_TEST(every_key_is_honoured_or_refused)
{
    json_t *all = data_json("golden/scheduler_keys.json"), *row, *run;
    float  *noise, *x;
    int     seen[256] = { 0 };
    bool    met[COUNT_OF(refusals)] = { false };
    size_t  at, n, total;

    ck_assert_msg(weft_tensors_open(data_path("golden/scheduler_keys.safetensors"), NULL, &stored, &err) == WEFT_OK,
                  "%s", err.text);
    noise = read_stored("noise", NULL, &n);
    x = read_stored("x", NULL, &total);
    json_array_foreach(json_object_get(all, "rows"), at, row) {
        const char *name;

        json_object_foreach(json_object_get(row, "with"), name, run) {
            if (json_is_integer(run)) ck_assert_uint_le(((size_t)json_integer_value(run) + 1) * 3 * LEN, total);
            seen[(unsigned char)try_key(all, row, name, run, noise, x, met)]++;
        }
    }
    for (size_t i = 0; i < COUNT_OF(refusals); i++)
        ck_assert_msg(met[i], "%s of %s was not refused", refusals[i].key, refusals[i].kinds);
    ck_assert_int_eq(seen['h'], HONOURED);
    ck_assert_int_eq(seen['i'], IDLE);
    ck_assert_int_eq(seen['r'], REFUSED);
    ck_assert_int_eq(seen['b'], BEYOND);
    free(noise);
    free(x);
    weft_tensors_free(stored);
    json_decref(all);
}
END_TEST

/* The list of keys is that of diffusers' classes, and each was tried with each class that has it. */
START_TEST(no_key_of_a_class_is_left_out)
{
    json_t     *all = data_json("golden/scheduler_keys.json"), *class, *key, *row;
    const char *kind;
    size_t      i, at, keys = 0;

    json_object_foreach(json_object_get(all, "classes"), kind, class) {
        ck_assert_int_eq(weft_sampler_find(text_of(class, "class")), weft_sampler_find(kind));
        ck_assert_int_ne(weft_sampler_find(kind), 0);
        json_array_foreach(json_object_get(class, "keys"), i, key) {
            bool tried = false;

            json_array_foreach(json_object_get(all, "rows"), at, row)
                tried = tried || (strcmp(text_of(row, "key"), json_string_value(key)) == 0 &&
                                  json_object_get(json_object_get(row, "with"), kind) != NULL);
            ck_assert_msg(tried, "%s of %s was not tried", json_string_value(key), kind);
            keys++;
        }
    }
    ck_assert_uint_eq(json_object_size(json_object_get(all, "classes")), 16);
    ck_assert_uint_eq(keys, ALL_KEYS);
    json_decref(all);
}
END_TEST

/* ---- names --------------------------------------------------------------------------------- */

/* What A1111, Forge, ComfyUI, InvokeAI and diffusers call them. */
static const struct { const char *name; int32_t kind, schedule, solver_type; } names[] = {
    { "DPM++ 2M SDE Karras", WEFT_SAMPLER_DPMPP_2M_SDE, WEFT_SCHEDULE_KARRAS, 0 },
    { "DPM++ 2M SDE Heun Exponential", WEFT_SAMPLER_DPMPP_2M_SDE, WEFT_SCHEDULE_EXPONENTIAL, WEFT_SOLVER_HEUN },
    { "DPM++ 2M Karras", WEFT_SAMPLER_DPMPP_2M, WEFT_SCHEDULE_KARRAS, 0 },
    { "DPM++ 2M", WEFT_SAMPLER_DPMPP_2M, 0, 0 },
    { "DPM++ 3M SDE", WEFT_SAMPLER_DPMPP_3M_SDE, 0, 0 },
    { "DPM++ SDE", WEFT_SAMPLER_DPMPP_SDE, 0, 0 },
    { "DPM++ SDE Karras", WEFT_SAMPLER_DPMPP_SDE, WEFT_SCHEDULE_KARRAS, 0 },
    { "Euler a", WEFT_SAMPLER_EULER_A, 0, 0 },
    { "Euler", WEFT_SAMPLER_EULER, 0, 0 },
    { "EULER A", WEFT_SAMPLER_EULER_A, 0, 0 },
    { "LMS Karras", WEFT_SAMPLER_LMS, WEFT_SCHEDULE_KARRAS, 0 },
    { "DPM2", WEFT_SAMPLER_DPM2, 0, 0 },
    { "DPM2 a Karras", WEFT_SAMPLER_DPM2_A, WEFT_SCHEDULE_KARRAS, 0 },
    { "Heun", WEFT_SAMPLER_HEUN, 0, 0 },
    { "DDIM", WEFT_SAMPLER_DDIM, 0, 0 },
    { "PLMS", WEFT_SAMPLER_PNDM, 0, 0 },
    { "UniPC", WEFT_SAMPLER_UNIPC, 0, 0 },
    { "LCM", WEFT_SAMPLER_LCM, 0, 0 },
    { "euler_ancestral", WEFT_SAMPLER_EULER_A, 0, 0 },
    { "dpm_2", WEFT_SAMPLER_DPM2, 0, 0 },
    { "dpm_2_ancestral", WEFT_SAMPLER_DPM2_A, 0, 0 },
    { "dpmpp_2m", WEFT_SAMPLER_DPMPP_2M, 0, 0 },
    { "dpmpp_2m_sde_gpu", WEFT_SAMPLER_DPMPP_2M_SDE, 0, 0 },
    { "dpmpp_3m_sde_gpu", WEFT_SAMPLER_DPMPP_3M_SDE, 0, 0 },
    { "dpmpp_sde_gpu", WEFT_SAMPLER_DPMPP_SDE, 0, 0 },
    { "dpmpp_2m_sde karras", WEFT_SAMPLER_DPMPP_2M_SDE, WEFT_SCHEDULE_KARRAS, 0 },
    { "dpmpp_2m_sde + karras", WEFT_SAMPLER_DPMPP_2M_SDE, WEFT_SCHEDULE_KARRAS, 0 },
    { "euler/sgm_uniform", WEFT_SAMPLER_EULER, WEFT_SCHEDULE_SGM_UNIFORM, 0 },
    { "uni_pc_bh2", WEFT_SAMPLER_UNIPC, 0, WEFT_SOLVER_BH2 },
    { "uni_pc", WEFT_SAMPLER_UNIPC, 0, 0 },
    { "deis", WEFT_SAMPLER_DEIS, 0, 0 },
    { "dpmpp_2m_sde_k", WEFT_SAMPLER_DPMPP_2M_SDE, WEFT_SCHEDULE_KARRAS, 0 },
    { "dpmpp_2s_k", WEFT_SAMPLER_DPMPP_2S, WEFT_SCHEDULE_KARRAS, 0 },
    { "kdpm_2", WEFT_SAMPLER_DPM2, 0, 0 },
    { "kdpm_2_a_k", WEFT_SAMPLER_DPM2_A, WEFT_SCHEDULE_KARRAS, 0 },
    { "euler_k", WEFT_SAMPLER_EULER, WEFT_SCHEDULE_KARRAS, 0 },
    { "unipc_k", WEFT_SAMPLER_UNIPC, WEFT_SCHEDULE_KARRAS, 0 },
    { "KDPM2AncestralDiscreteScheduler", WEFT_SAMPLER_DPM2_A, 0, 0 },
    { "k_euler_a", WEFT_SAMPLER_EULER_A, 0, 0 },
    { "Euler Align Your Steps", WEFT_SAMPLER_EULER, WEFT_SCHEDULE_ALIGN, 0 },
    { "Euler SGM Uniform", WEFT_SAMPLER_EULER, WEFT_SCHEDULE_SGM_UNIFORM, 0 },
    { "Euler Beta", WEFT_SAMPLER_EULER, WEFT_SCHEDULE_BETA_STEPS, 0 },
    { "Euler Simple", WEFT_SAMPLER_EULER, WEFT_SCHEDULE_SIMPLE, 0 },
    { "Euler Uniform", WEFT_SAMPLER_EULER, WEFT_SCHEDULE_NORMAL, 0 },
    { "Euler KL Optimal", WEFT_SAMPLER_EULER, WEFT_SCHEDULE_KL_OPTIMAL, 0 },
    { "Euler Polyexponential", WEFT_SAMPLER_EULER, WEFT_SCHEDULE_EXPONENTIAL, 0 },
    { "Karras", 0, WEFT_SCHEDULE_KARRAS, 0 },
    { "ddim_uniform", 0, WEFT_SCHEDULE_DDIM_UNIFORM, 0 },
    { "beta_sigmas", 0, WEFT_SCHEDULE_BETA, 0 },
    { "lu_lambdas", 0, WEFT_SCHEDULE_LU, 0 },
    { "AYS SDXL", 0, WEFT_SCHEDULE_ALIGN_SDXL, 0 },
};

START_TEST(names_of_other_programs_are_understood)
{
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;
        bool                 alone = names[i].schedule == 0 && names[i].solver_type == 0;

        o.steps = 7;
        ck_assert_msg(weft_sampler_options_named(names[i].name, &o, &err) == WEFT_OK, "%s", err.text);
        ck_assert_msg(o.kind == names[i].kind && o.sigma_schedule == names[i].schedule &&
                          o.solver_type == names[i].solver_type,
                      "%s: kind %d, schedule %d, type %d", names[i].name, o.kind, o.sigma_schedule, o.solver_type);
        ck_assert_int_eq(o.steps, 7);
        ck_assert_int_eq(weft_sampler_find(names[i].name), alone ? names[i].kind : 0);
    }
    for (int32_t i = 0; weft_sampler_schedule_name(i) != NULL; i++) {
        weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;

        ck_assert_int_eq(weft_sampler_options_named(weft_sampler_schedule_name(i), &o, &err), WEFT_OK);
        ck_assert_int_eq(o.sigma_schedule, i);
    }
    ck_assert_ptr_null(weft_sampler_schedule_name(-1));
    ck_assert_ptr_null(weft_sampler_schedule_name(WEFT_SCHEDULE_KL_OPTIMAL + 1));
}
END_TEST

/* A sampler's name alone leaves the schedule, a schedule's leaves the kind; a schedule's takes Karras' flag away. */
START_TEST(a_name_sets_what_it_says)
{
    weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;

    o.kind = WEFT_SAMPLER_HEUN;
    o.flags = WEFT_SAMPLER_KARRAS | WEFT_SAMPLER_ZERO_SNR;
    ck_assert_int_eq(weft_sampler_options_named("simple", &o, &err), WEFT_OK);
    ck_assert_int_eq(o.kind, WEFT_SAMPLER_HEUN);
    ck_assert_uint_eq(o.flags, WEFT_SAMPLER_ZERO_SNR);
    ck_assert_int_eq(weft_sampler_options_named("LMS", &o, &err), WEFT_OK);
    ck_assert_int_eq(o.kind, WEFT_SAMPLER_LMS);
    ck_assert_int_eq(o.sigma_schedule, WEFT_SCHEDULE_SIMPLE);
}
END_TEST

START_TEST(unknown_names_are_refused_with_the_nearest)
{
    static const struct { const char *name, *text; } wrong[] = {
        { "Restart", "there is no sampler \"Restart\"; the nearest names are " },
        { "DPM++ 2S a", "the nearest names are dpmpp_2s, " },
        { "DPM++ 2S a Karras", "the nearest names are dpmpp_2s, " },
        { "DPM fast", "there is no sampler \"DPM fast\"" },
        { "Euler Turbo", "the nearest names are euler, " },
        { "unipcc", "the nearest names are unipc, " },
        { "heunpp2", "the nearest names are heun, " },
        { "Karras Euler", "there is no sampler \"Karras Euler\"" },
        { "", "there is no sampler \"\"" },
        { "++ / _", "there is no sampler" },
        { "euler euler euler euler euler euler euler euler euler euler euler euler euler euler euler euler euler euler",
          "there is no sampler \"euler euler" },
    };
    weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT, before = o;

    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        ck_assert_int_eq(weft_sampler_options_named(wrong[i].name, &o, &err), WEFT_E_ARG);
        ck_assert_msg(strstr(err.text, wrong[i].text) != NULL, "%s", err.text);
        ck_assert_int_eq(weft_sampler_find(wrong[i].name), 0);
    }
    ck_assert_int_eq(weft_sampler_options_named(NULL, &o, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_sampler_options_named("euler", NULL, &err), WEFT_E_ARG);
    ck_assert_mem_eq(&o, &before, sizeof o);
}
END_TEST

/* ---- what is out of place ------------------------------------------------------------------ */

static void refused(weft_sampler_options o, weft_status st, const char *text)
{
    weft_sampler *s;

    ck_assert_msg(weft_sampler_create(&o, &s, &err) == st, "%s: %s", text, err.text);
    ck_assert_msg(strstr(err.text, text) != NULL, "%s", err.text);
}

START_TEST(schedules_out_of_place_are_refused)
{
    static const float   sigmas[] = { 3, 1 }, betas[] = { 0.1f, 0.2f, 1.0f };
    weft_sampler_options o = options_of(WEFT_SAMPLER_EULER, 4), ddim = options_of(WEFT_SAMPLER_DDIM, 4);

    ddim.sigma_schedule = WEFT_SCHEDULE_SIMPLE;
    refused(ddim, WEFT_E_UNSUPPORTED, "ddim steps between training timesteps: it takes no simple schedule");
    o.sigma_schedule = WEFT_SCHEDULE_BETA;
    o.flags = WEFT_SAMPLER_KARRAS;
    refused(o, WEFT_E_ARG, "Karras' sigmas and those of beta_sigmas");
    o.flags = 0;
    o.sigmas = sigmas;
    o.sigmas_len = 2;
    refused(o, WEFT_E_ARG, "own sigmas and a schedule's (beta_sigmas)");
    o.sigmas = NULL;
    o.sigmas_len = 0;
    o.sigma_min = 20;
    refused(o, WEFT_E_ARG, "sigmas go from 14.614647 down to 20, the first must be larger");
    o.sigma_min = -1;
    refused(o, WEFT_E_ARG, "sigma_min is -1");
    o.sigma_min = 0;
    o.sigma_max = INFINITY;
    refused(o, WEFT_E_ARG, "sigma_max is inf");
    o.sigma_max = 0;
    o.rho = NAN;
    refused(o, WEFT_E_ARG, "rho is ");
    o = options_of(WEFT_SAMPLER_HEUN, 4);
    o.interpolation = WEFT_INTERPOLATION_LOG_LINEAR;
    refused(o, WEFT_E_UNSUPPORTED, "heun takes no log_linear interpolation");
    o = options_of(WEFT_SAMPLER_HEUN, 4);
    o.flags = WEFT_SAMPLER_LOG_TIMESTEPS;
    refused(o, WEFT_E_UNSUPPORTED, "heun takes no logarithms for timesteps");
    o.flags = 0;
    o.final_sigma = WEFT_FINAL_MIN;
    refused(o, WEFT_E_UNSUPPORTED, "heun takes no last sigma but 0");
    o.final_sigma = 0;
    o.lambda_min = -3;
    refused(o, WEFT_E_UNSUPPORTED, "heun takes no lambda_min");
    o = options_of(WEFT_SAMPLER_DPMPP_2M, 4);
    o.lambda_min = NAN;
    refused(o, WEFT_E_ARG, "lambda_min is not a finite number");
    o.lambda_min = 100;
    refused(o, WEFT_E_ARG, "lambda_min 100 leaves 0 of 1000 timesteps");
    o = options_of(WEFT_SAMPLER_EULER, 4);
    o.interpolation = WEFT_INTERPOLATION_LOG_LINEAR;
    o.flags = WEFT_SAMPLER_LOG_TIMESTEPS;
    o.prediction = WEFT_PREDICT_V;
    refused(o, WEFT_E_UNSUPPORTED, "a step more than is asked for");
    o = options_of(WEFT_SAMPLER_EULER, 2);
    o.betas = WEFT_BETAS_TRAINED;
    refused(o, WEFT_E_ARG, "0 trained_betas for 1000 train_steps");
    o.trained_betas = betas;
    o.trained_betas_len = o.train_steps = 3;
    refused(o, WEFT_E_ARG, "trained beta 2 is 1, it must be between 0 and 1");
}
END_TEST

/* Two steps of one schedule at one timestep would be a step of no length. */
START_TEST(too_many_steps_of_beta_are_refused)
{
    weft_sampler_options o = options_of(WEFT_SAMPLER_EULER, 50);

    o.sigma_schedule = WEFT_SCHEDULE_BETA_STEPS;
    weft_sampler_free(made(o));
    o.steps = 400;
    refused(o, WEFT_E_ARG, "visits timestep 999 twice");
}
END_TEST

/* Karras et al. with rho 1 are evenly spaced: 10, 7.75, 5.5, 3.25, 1. */
START_TEST(rho_bends_the_line)
{
    weft_sampler_options o = options_of(WEFT_SAMPLER_EULER, 5);
    weft_sampler        *s;

    o.sigma_schedule = WEFT_SCHEDULE_KARRAS;
    o.sigma_max = 10;
    o.sigma_min = 1;
    o.rho = 1;
    s = made(o);
    for (int32_t i = 0; i < 5; i++) ck_assert_float_eq_tol(weft_sampler_sigma(s, i), 10 - 2.25f * (float)i, 1e-6f);
    weft_sampler_free(s);
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
    tcase_add_test(c, no_key_of_a_class_is_left_out);
    suite_add_tcase(s, c);
    c = tcase_create("names");
    tcase_add_test(c, names_of_other_programs_are_understood);
    tcase_add_test(c, a_name_sets_what_it_says);
    tcase_add_test(c, unknown_names_are_refused_with_the_nearest);
    suite_add_tcase(s, c);
    c = tcase_create("out of place");
    tcase_add_test(c, schedules_out_of_place_are_refused);
    tcase_add_test(c, too_many_steps_of_beta_are_refused);
    tcase_add_test(c, rho_bends_the_line);
    suite_add_tcase(s, c);
    return run_suite(s);
}
