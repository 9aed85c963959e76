/* test_scheduler_config.c - what a scheduler_config.json says, and what of it is refused. */
#include "help.h"
#include "sampler/sampler.h"
#include "weft/model.h"

static weft_error err;

static weft_status read_config(const char *text, weft_sampler_options *o)
{
    json_t     *config = json_loads(text, 0, NULL);
    weft_status st;

    ck_assert_ptr_nonnull(config);
    st = wf_sampler_options_from_json(config, o, &err);
    json_decref(config);
    return st;
}

START_TEST(keys_become_options)
{
    weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;

    o.kind = WEFT_SAMPLER_EULER;
    o.steps = 7;
    o.flags = WEFT_SAMPLER_KARRAS;
    ck_assert_int_eq(read_config("{\"beta_start\": 0.001, \"beta_end\": 0.015, \"beta_schedule\": \"linear\","
                                 "\"num_train_timesteps\": 500, \"prediction_type\": \"v_prediction\","
                                 "\"timestep_spacing\": \"trailing\", \"steps_offset\": 2, \"set_alpha_to_one\": false,"
                                 "\"rescale_betas_zero_snr\": true, \"trained_betas\": null}", &o), WEFT_OK);
    ck_assert_float_eq(o.beta_start, 0.001f);
    ck_assert_float_eq(o.beta_end, 0.015f);
    ck_assert_int_eq(o.betas, WEFT_BETAS_LINEAR);
    ck_assert_int_eq(o.train_steps, 500);
    ck_assert_int_eq(o.prediction, WEFT_PREDICT_V);
    ck_assert_int_eq(o.spacing, WEFT_SPACING_TRAILING);
    ck_assert_int_eq(o.steps_offset, 2);
    ck_assert_uint_eq(o.flags, WEFT_SAMPLER_KARRAS | WEFT_SAMPLER_ZERO_SNR);
    ck_assert_int_eq(o.kind, WEFT_SAMPLER_EULER);
    ck_assert_int_eq(o.steps, 7);
}
END_TEST

START_TEST(absent_keys_mean_what_diffusers_takes)
{
    weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;

    ck_assert_int_eq(read_config("{}", &o), WEFT_OK);
    ck_assert_int_eq(o.betas, WEFT_BETAS_LINEAR);
    ck_assert_float_eq(o.beta_start, 0.0001f);
    ck_assert_float_eq(o.beta_end, 0.02f);
    ck_assert_int_eq(o.spacing, WEFT_SPACING_DEFAULT);
    ck_assert_uint_eq(o.flags, WEFT_SAMPLER_ALPHA_TO_ONE);
}
END_TEST

START_TEST(no_config_changes_nothing)
{
    weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;

    ck_assert_int_eq(wf_sampler_options_from_json(NULL, &o, &err), WEFT_OK);
    ck_assert_int_eq(o.betas, WEFT_BETAS_SCALED_LINEAR);
    ck_assert_float_eq(o.beta_start, 0);
    ck_assert_uint_eq(o.flags, 0);
}
END_TEST

START_TEST(what_is_not_followed_is_named)
{
    static const struct { const char *config; weft_status st; const char *text; } wrong[] = {
        { "{\"beta_schedule\": \"squaredcos_cap_v2\"}", WEFT_E_UNSUPPORTED, "beta_schedule is \"squaredcos_cap_v2\"" },
        { "{\"prediction_type\": \"flow_prediction\"}", WEFT_E_UNSUPPORTED, "prediction_type is \"flow_prediction\"" },
        { "{\"timestep_spacing\": \"odd\"}", WEFT_E_UNSUPPORTED, "timestep_spacing is \"odd\"" },
        { "{\"trained_betas\": [0.1]}", WEFT_E_UNSUPPORTED, "trained_betas" },
        { "{\"thresholding\": true}", WEFT_E_UNSUPPORTED, "thresholding" },
        { "{\"clip_sample\": true}", WEFT_E_UNSUPPORTED, "clip_sample" },
        { "{\"beta_schedule\": 3}", WEFT_E_FORMAT, "beta_schedule is not a string" },
        { "{\"beta_start\": \"x\"}", WEFT_E_FORMAT, "beta_start is not a number" },
        { "{\"beta_end\": 1e300}", WEFT_E_FORMAT, "beta_end is not a number between 0 and 1" },
        { "{\"num_train_timesteps\": 1e3}", WEFT_E_FORMAT, "num_train_timesteps is not a whole number" },
        { "{\"num_train_timesteps\": 99999999999}", WEFT_E_FORMAT, "num_train_timesteps" },
        { "{\"steps_offset\": -1}", WEFT_E_FORMAT, "steps_offset" },
        { "{\"set_alpha_to_one\": 1}", WEFT_E_FORMAT, "set_alpha_to_one is not true or false" },
    };

    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;

        ck_assert_int_eq(read_config(wrong[i].config, &o), wrong[i].st);
        ck_assert_msg(strstr(err.text, wrong[i].text) != NULL, "%s", err.text);
        ck_assert_uint_eq(o.flags, 0);
        ck_assert_int_eq(o.train_steps, 0);
    }
}
END_TEST

/* tiny-sd2 carries a DDIM of the v kind, tiny-sdxl an Euler; kind, steps and the allocator stay the caller's. */
START_TEST(a_model_brings_its_config)
{
    weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;
    weft_model          *m;

    ck_assert_int_eq(weft_sampler_options_from_model(NULL, &o, &err), WEFT_E_ARG);
    ck_assert_msg(weft_model_open(data_path("models/tiny-sd2"), NULL, &m, &err) == WEFT_OK, "%s", err.text);
    ck_assert_int_eq(weft_sampler_options_from_model(m, NULL, &err), WEFT_E_ARG);
    o.steps = 5;
    ck_assert_msg(weft_sampler_options_from_model(m, &o, &err) == WEFT_OK, "%s", err.text);
    ck_assert_uint_eq(o.struct_size, sizeof o);
    ck_assert_int_eq(o.steps, 5);
    ck_assert_int_eq(o.prediction, WEFT_PREDICT_V);
    ck_assert_int_eq(o.betas, WEFT_BETAS_SCALED_LINEAR);
    ck_assert_float_eq(o.beta_start, 0.00085f);
    ck_assert_int_eq(o.steps_offset, 1);
    ck_assert_int_eq(o.spacing, WEFT_SPACING_LEADING);
    ck_assert_uint_eq(o.flags, 0);
    o.struct_size = 8; /* smaller than any version */
    ck_assert_int_eq(weft_sampler_options_from_model(m, &o, &err), WEFT_E_ARG);
    weft_model_free(m);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("scheduler config");
    TCase *c = tcase_create("config");

    tcase_add_test(c, keys_become_options);
    tcase_add_test(c, absent_keys_mean_what_diffusers_takes);
    tcase_add_test(c, no_config_changes_nothing);
    tcase_add_test(c, what_is_not_followed_is_named);
    tcase_add_test(c, a_model_brings_its_config);
    suite_add_tcase(s, c);
    return run_suite(s);
}
