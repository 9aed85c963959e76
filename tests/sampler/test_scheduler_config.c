/* test_scheduler_config.c - what a scheduler_config.json says, and what of it is refused. */
#include "help.h"
#include "sampler/sampler_internal.h"
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

    /* What the caller has there before does not count: a model says how it was trained. */
    o.betas = WEFT_BETAS_SCALED_LINEAR;
    o.beta_start = o.beta_end = 0.5f;
    o.train_steps = 500;
    o.prediction = WEFT_PREDICT_V;
    o.spacing = WEFT_SPACING_TRAILING;
    o.steps_offset = 3;
    o.origin_steps = 4;
    o.flags = WEFT_SAMPLER_ZERO_SNR;
    ck_assert_int_eq(read_config("{}", &o), WEFT_OK);
    ck_assert_int_eq(o.train_steps, 1000);
    ck_assert_int_eq(o.prediction, WEFT_PREDICT_EPSILON);
    ck_assert_int_eq(o.steps_offset, 0);
    ck_assert_int_eq(o.origin_steps, 0);
    ck_assert_int_eq(o.betas, WEFT_BETAS_LINEAR);
    ck_assert_float_eq(o.beta_start, 0.0001f);
    ck_assert_float_eq(o.beta_end, 0.02f);
    ck_assert_int_eq(o.spacing, WEFT_SPACING_DEFAULT);
    ck_assert_uint_eq(o.flags, WEFT_SAMPLER_ALPHA_TO_ONE);
}
END_TEST

/* As diffusers saves a DPM-Solver, with what is infinite as a file's reader gives it. */
START_TEST(a_dpm_solver_as_it_is_saved)
{
    weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;

    o.kind = WEFT_SAMPLER_DPMPP_2M;
    ck_assert_int_eq(read_config("{\"_class_name\": \"DPMSolverMultistepScheduler\", \"algorithm_type\": \"dpmsolver++\","
                                 "\"beta_end\": 0.012, \"beta_schedule\": \"scaled_linear\", \"beta_start\": 0.00085,"
                                 "\"dynamic_thresholding_ratio\": 0.995, \"euler_at_final\": false,"
                                 "\"final_sigmas_type\": \"zero\", \"flow_shift\": 1.0, \"lambda_min_clipped\": -1e308,"
                                 "\"lower_order_final\": true, \"num_train_timesteps\": 1000,"
                                 "\"prediction_type\": \"epsilon\", \"rescale_betas_zero_snr\": false, \"solver_order\": 2,"
                                 "\"solver_type\": \"midpoint\", \"steps_offset\": 0, \"thresholding\": false,"
                                 "\"timestep_spacing\": \"linspace\", \"trained_betas\": null,"
                                 "\"use_karras_sigmas\": false, \"variance_type\": null}", &o), WEFT_OK);
    ck_assert_int_eq(o.spacing, WEFT_SPACING_LINSPACE);
    ck_assert_int_eq(o.betas, WEFT_BETAS_SCALED_LINEAR);
}
END_TEST

/* UniPC's and DEIS's own words, which a DPM-Solver made from their configs takes for its own defaults. */
START_TEST(a_dpm_solver_from_other_solvers)
{
    static const char *const configs[] = { "{\"_class_name\": \"UniPCMultistepScheduler\", \"solver_type\": \"bh2\"}",
                                           "{\"solver_type\": \"bh1\"}",
                                           "{\"algorithm_type\": \"deis\", \"solver_type\": \"logrho\"}" };

    for (size_t i = 0; i < COUNT_OF(configs); i++) {
        weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;

        o.kind = WEFT_SAMPLER_DPMPP_2M;
        ck_assert_int_eq(read_config(configs[i], &o), WEFT_OK);
        ck_assert_int_eq(read_config("{\"solver_type\": \"bh\"}", &o), WEFT_E_UNSUPPORTED);
        ck_assert_int_eq(read_config("{\"solver_type\": \"\"}", &o), WEFT_E_UNSUPPORTED);
        ck_assert_int_eq(read_config("{\"solver_type\": \"midpoint logrho\"}", &o), WEFT_E_UNSUPPORTED);
    }
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
        { "{\"beta_schedule\": \"cubic\"}", WEFT_E_UNSUPPORTED, "beta_schedule is \"cubic\"" },
        { "{\"prediction_type\": \"flow_prediction\"}", WEFT_E_UNSUPPORTED, "prediction_type is \"flow_prediction\"" },
        { "{\"timestep_spacing\": \"odd\"}", WEFT_E_UNSUPPORTED, "timestep_spacing is \"odd\"" },
        { "{\"trained_betas\": [0.1]}", WEFT_E_FORMAT, "trained_betas is not a list of numbers" },
        { "{\"thresholding\": 1}", WEFT_E_FORMAT, "thresholding is not true or false" },
        { "{\"dynamic_thresholding_ratio\": \"x\"}", WEFT_E_FORMAT, "dynamic_thresholding_ratio is not a number above 0" },
        { "{\"sample_max_value\": -1}", WEFT_E_FORMAT, "sample_max_value is not a number above 0" },
        { "{\"clip_sample\": 1}", WEFT_E_FORMAT, "clip_sample is not true or false" },
        { "{\"clip_sample_range\": 0}", WEFT_E_FORMAT, "clip_sample_range is not a number above 0" },
        { "{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\"}", WEFT_E_UNSUPPORTED, "FlowMatchEuler" },
        { "{\"original_inference_steps\": 2.5}", WEFT_E_FORMAT, "original_inference_steps is not a whole number" },
        { "{\"beta_schedule\": 3}", WEFT_E_FORMAT, "beta_schedule is not a string" },
        { "{\"beta_start\": \"x\"}", WEFT_E_FORMAT, "beta_start is not a number" },
        { "{\"beta_end\": 1e300}", WEFT_E_FORMAT, "beta_end is not a number between 0 and 1" },
        { "{\"num_train_timesteps\": 1e3}", WEFT_E_FORMAT, "num_train_timesteps is not a whole number" },
        { "{\"num_train_timesteps\": 99999999999}", WEFT_E_FORMAT, "num_train_timesteps" },
        { "{\"steps_offset\": -1}", WEFT_E_FORMAT, "steps_offset" },
        { "{\"trained_betas\": 3}", WEFT_E_FORMAT, "trained_betas is not a list of numbers" },
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

/* A setting matters to the kinds that have it in diffusers, and to no other. */
START_TEST(what_a_kind_does_not_follow_is_named)
{
    static const struct { int32_t kind; const char *config, *text; } wrong[] = {
        { WEFT_SAMPLER_PNDM, "{\"skip_prk_steps\": false}", "skip_prk_steps is false" },
        { WEFT_SAMPLER_DDPM, "{\"variance_type\": \"learned\"}", "variance_type is \"learned\"" },
        { WEFT_SAMPLER_DDPM, "{\"variance_type\": \"fixed_large_log\"}", "variance_type is \"fixed_large_log\"" },
        { WEFT_SAMPLER_DPMPP_2M, "{\"variance_type\": \"learned_range\"}", "variance_type is learned_range" },
        { WEFT_SAMPLER_DPMPP_2M, "{\"use_flow_sigmas\": true}", "use_flow_sigmas is true" },
        { WEFT_SAMPLER_LCM, "{\"timestep_scaling\": 12.5}", "timestep_scaling is 12.5, but it is 10 here" },
        { WEFT_SAMPLER_DPMPP_2M, "{\"algorithm_type\": \"dpm\"}", "algorithm_type is \"dpm\"" },
        { WEFT_SAMPLER_DPMPP_2S, "{\"algorithm_type\": \"sde-dpmsolver\"}",
          "algorithm_type is \"sde-dpmsolver\", which dpmpp_2s does not have" },
        { WEFT_SAMPLER_DEIS, "{\"algorithm_type\": \"sde-dpmsolver++\"}", "algorithm_type is sde-dpmsolver++" },
        { WEFT_SAMPLER_UNIPC, "{\"solver_type\": \"bh3\"}", "solver_type is \"bh3\"" },
        { WEFT_SAMPLER_UNIPC, "{\"solver_p\": {}}", "solver_p is no such value, but it is its own predictor" },
        { WEFT_SAMPLER_UNIPC, "{\"shift_terminal\": 0.1}", "shift_terminal is 0.1" },
    };

    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;

        o.kind = wrong[i].kind;
        ck_assert_int_eq(read_config(wrong[i].config, &o), WEFT_E_UNSUPPORTED);
        ck_assert_msg(strstr(err.text, wrong[i].text) != NULL, "%s", err.text);
        o.kind = WEFT_SAMPLER_EULER_A;
        ck_assert_msg(read_config(wrong[i].config, &o) == WEFT_OK, "%s", err.text);
    }
}
END_TEST

/* What a file says of a solver's variants becomes options; what it does not say is the kind's own. */
START_TEST(variants_come_with_the_file)
{
    static const struct { int32_t kind; const char *config; weft_sampler_options wanted; } table[] = {
        { WEFT_SAMPLER_DPMPP_2M, "{\"solver_order\": 3, \"algorithm_type\": \"sde-dpmsolver++\", \"solver_type\": \"heun\","
                                 "\"lower_order_final\": false, \"euler_at_final\": true}",
          { .order = 3, .algorithm = WEFT_ALGORITHM_DPMPP_SDE, .solver_type = WEFT_SOLVER_HEUN,
            .last_steps = WEFT_LAST_FULL, .flags = WEFT_SAMPLER_EULER_LAST } },
        { WEFT_SAMPLER_DPMPP_2M, "{\"algorithm_type\": \"deis\", \"solver_type\": \"bh1\", \"lower_order_final\": true}",
          { .last_steps = WEFT_LAST_LOWER } },
        { WEFT_SAMPLER_DPMPP_2M, "{}", { .order = 0 } },
        /* the kind says which algorithm and order */
        { WEFT_SAMPLER_DPMPP_3M_SDE, "{\"solver_order\": 2, \"algorithm_type\": \"dpmsolver++\", \"solver_type\": \"heun\"}",
          { .solver_type = WEFT_SOLVER_HEUN } },
        { WEFT_SAMPLER_UNIPC, "{\"solver_order\": 3, \"solver_type\": \"bh1\", \"predict_x0\": false,"
                              "\"disable_corrector\": [0, 5, 63]}",
          { .order = 3, .solver_type = WEFT_SOLVER_BH1, .flags = WEFT_SAMPLER_OF_NOISE,
            .uncorrected = 0x8000000000000021u } },
        { WEFT_SAMPLER_UNIPC, "{\"solver_type\": \"midpoint\", \"predict_x0\": true, \"algorithm_type\": \"dpmsolver\"}",
          { .flags = 0 } },
        { WEFT_SAMPLER_DDIM, "{\"clip_sample\": true, \"clip_sample_range\": 2.5}",
          { .flags = WEFT_SAMPLER_CLIP, .clip_range = 2.5f } },
        { WEFT_SAMPLER_DDPM, "{\"thresholding\": true, \"dynamic_thresholding_ratio\": 0.9, \"sample_max_value\": 4,"
                             "\"variance_type\": \"fixed_large\"}",
          { .flags = WEFT_SAMPLER_THRESHOLD, .threshold_ratio = 0.9f, .threshold_max = 4, .variance = WEFT_VARIANCE_LARGE } },
        { WEFT_SAMPLER_EULER, "{\"thresholding\": true, \"clip_sample\": true, \"solver_order\": 7, \"predict_x0\": 1}",
          { .flags = 0 } },
    };

    for (size_t i = 0; i < COUNT_OF(table); i++) {
        const weft_sampler_options *want = &table[i].wanted;
        weft_sampler_options        o = WEFT_SAMPLER_OPTIONS_INIT;

        o.kind = table[i].kind;
        ck_assert_msg(read_config(table[i].config, &o) == WEFT_OK, "%zu: %s", i, err.text);
        ck_assert_int_eq(o.order, want->order);
        ck_assert_int_eq(o.algorithm, want->algorithm);
        ck_assert_int_eq(o.solver_type, want->solver_type);
        ck_assert_int_eq(o.last_steps, want->last_steps);
        ck_assert_int_eq(o.variance, want->variance);
        ck_assert(o.uncorrected == want->uncorrected);
        ck_assert_float_eq(o.clip_range, want->clip_range);
        ck_assert_float_eq(o.threshold_ratio, want->threshold_ratio);
        ck_assert_float_eq(o.threshold_max, want->threshold_max);
        ck_assert_uint_eq(o.flags & ~(uint32_t)WEFT_SAMPLER_ALPHA_TO_ONE, want->flags);
    }
}
END_TEST

START_TEST(variants_of_the_callers_own_stay)
{
    weft_sampler_options o = { .struct_size = sizeof o, .kind = WEFT_SAMPLER_UNIPC, .order = 1,
                               .solver_type = WEFT_SOLVER_BH1, .last_steps = WEFT_LAST_FULL,
                               .flags = WEFT_SAMPLER_THRESHOLD, .threshold_max = 3, .uncorrected = 1 };

    ck_assert_msg(read_config("{\"solver_order\": 3, \"solver_type\": \"bh2\", \"lower_order_final\": true,"
                              "\"thresholding\": false, \"sample_max_value\": 5, \"dynamic_thresholding_ratio\": 0.5,"
                              "\"disable_corrector\": [7]}", &o) == WEFT_OK, "%s", err.text);
    ck_assert_int_eq(o.order, 1);
    ck_assert_int_eq(o.solver_type, WEFT_SOLVER_BH1);
    ck_assert_int_eq(o.last_steps, WEFT_LAST_FULL);
    ck_assert_uint_eq(o.flags & WEFT_SAMPLER_THRESHOLD, WEFT_SAMPLER_THRESHOLD);
    ck_assert_float_eq(o.threshold_max, 3);
    ck_assert_float_eq(o.threshold_ratio, 0.5f);
    ck_assert(o.uncorrected == 1);
}
END_TEST

START_TEST(the_list_of_uncorrected_steps_is_checked)
{
    static const char *const wrong[] = { "3", "[64]", "[-1]", "[0.5]", "[\"0\"]", "{}" };

    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;
        char                 text[64];

        o.kind = WEFT_SAMPLER_UNIPC;
        snprintf(text, sizeof text, "{\"disable_corrector\": %s}", wrong[i]);
        ck_assert_int_eq(read_config(text, &o), WEFT_E_FORMAT);
        ck_assert_msg(strstr(err.text, "disable_corrector is not a list") != NULL, "%s", err.text);
    }
}
END_TEST

/* No kind takes over another's rules: one that is unknown is refused, with and without a file. */
START_TEST(an_unknown_kind_has_no_rules)
{
    static const int32_t kinds[] = { -1, 31, 32, 33, 99, INT32_MAX, INT32_MIN };

    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;

        o.kind = kinds[i];
        ck_assert_int_eq(read_config("{}", &o), WEFT_E_ARG);
        ck_assert_ptr_nonnull(strstr(err.text, "which is no WEFT_SAMPLER_* of this version"));
        ck_assert_int_eq(wf_sampler_options_from_json(NULL, &o, &err), WEFT_E_ARG);
        ck_assert_int_eq(o.train_steps, 0);
    }
}
END_TEST

/* Every setting of every row: the value that we follow is taken, another is refused by its name. */
START_TEST(each_setting_of_a_row_is_checked)
{
    int seen = 0;

    for (size_t i = 0; wf_solver_at(i) != NULL; i++)
        for (const wf_setting *s = wf_solver_at(i)->settings; s->key != NULL; s++, seen++) {
            char                 words[128] = "", ours[256], other[256];
            weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;

            o.kind = wf_solver_at(i)->kind;
            if (s->type == JSON_STRING)
                snprintf(words, sizeof words, "\"%.*s\"", (int)strcspn(s->text, " "), s->text);
            else if (s->type == JSON_NULL)
                snprintf(words, sizeof words, "null");
            else if (s->type == JSON_TRUE)
                snprintf(words, sizeof words, "%s", s->number != 0 ? "true" : "false");
            else
                snprintf(words, sizeof words, "%g", s->number);
            snprintf(ours, sizeof ours, "{\"%s\": %s}", s->key, words);
            snprintf(other, sizeof other, "{\"%s\": %s}", s->key,
                     s->type == JSON_STRING ? "\"other\"" : s->type == JSON_REAL || s->type == JSON_NULL ? "7.5"
                     : s->number != 0 ? "false" : "true");
            ck_assert_msg(read_config(ours, &o) == WEFT_OK, "%s: %s", ours, err.text);
            ck_assert_msg(read_config(other, &o) == WEFT_E_UNSUPPORTED, "%s is taken", other);
            ck_assert_ptr_nonnull(strstr(err.text, s->key));
            ck_assert_ptr_nonnull(strstr(err.text, s->why));
        }
    ck_assert_int_ge(seen, 10);
}
END_TEST

START_TEST(defaults_are_those_of_the_kind)
{
    static const struct { int32_t kind, betas; float start; uint32_t flags; } wanted[] = {
        { WEFT_SAMPLER_DDIM, WEFT_BETAS_LINEAR, 0.0001f, WEFT_SAMPLER_ALPHA_TO_ONE },
        { WEFT_SAMPLER_PNDM, WEFT_BETAS_LINEAR, 0.0001f, 0 },
        { WEFT_SAMPLER_HEUN, WEFT_BETAS_LINEAR, 0.00085f, WEFT_SAMPLER_ALPHA_TO_ONE },
        { WEFT_SAMPLER_LCM, WEFT_BETAS_SCALED_LINEAR, 0.00085f, WEFT_SAMPLER_ALPHA_TO_ONE },
        { WEFT_SAMPLER_TCD, WEFT_BETAS_SCALED_LINEAR, 0.00085f, WEFT_SAMPLER_ALPHA_TO_ONE },
    };

    for (size_t i = 0; i < COUNT_OF(wanted); i++) {
        weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;

        o.kind = wanted[i].kind;
        ck_assert_int_eq(read_config("{\"original_inference_steps\": 100}", &o), WEFT_OK);
        ck_assert_int_eq(o.betas, wanted[i].betas);
        ck_assert_float_eq(o.beta_start, wanted[i].start);
        ck_assert_uint_eq(o.flags, wanted[i].flags);
        ck_assert_int_eq(o.origin_steps, 100);
    }
}
END_TEST

/* What the caller chose stays; what was left open is the file's, where the kind has the key. */
START_TEST(sigmas_come_with_the_file)
{
    static const char *const config = "{\"use_exponential_sigmas\": true, \"sigma_min\": 0.125, \"sigma_max\": 8,"
                                      "\"final_sigmas_type\": \"sigma_min\", \"lambda_min_clipped\": -5.5,"
                                      "\"interpolation_type\": \"log_linear\", \"timestep_type\": \"continuous\"}";
    weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;

    o.kind = WEFT_SAMPLER_EULER;
    ck_assert_msg(read_config(config, &o) == WEFT_OK, "%s", err.text);
    ck_assert_int_eq(o.sigma_schedule, WEFT_SCHEDULE_EXPONENTIAL);
    ck_assert(o.sigma_min == 0.125f && o.sigma_max == 8 && o.lambda_min == 0);
    ck_assert_int_eq(o.final_sigma, WEFT_FINAL_MIN);
    ck_assert_int_eq(o.interpolation, WEFT_INTERPOLATION_LOG_LINEAR);
    ck_assert_uint_eq(o.flags, WEFT_SAMPLER_LOG_TIMESTEPS | WEFT_SAMPLER_ALPHA_TO_ONE);

    o = (weft_sampler_options)WEFT_SAMPLER_OPTIONS_INIT;
    o.kind = WEFT_SAMPLER_DPMPP_2M;
    o.flags = WEFT_SAMPLER_KARRAS;
    o.sigma_max = 4;
    o.final_sigma = WEFT_FINAL_ZERO;
    ck_assert_int_eq(read_config(config, &o), WEFT_OK);
    ck_assert_int_eq(o.sigma_schedule, WEFT_SCHEDULE_DEFAULT);
    ck_assert(o.sigma_min == 0.125f && o.sigma_max == 4 && o.lambda_min == -5.5f);
    ck_assert_int_eq(o.final_sigma, WEFT_FINAL_ZERO);
    ck_assert_int_eq(o.interpolation, WEFT_INTERPOLATION_LINEAR);
    ck_assert_uint_eq(o.flags, WEFT_SAMPLER_KARRAS | WEFT_SAMPLER_ALPHA_TO_ONE);

    o = (weft_sampler_options)WEFT_SAMPLER_OPTIONS_INIT;
    o.kind = WEFT_SAMPLER_HEUN;
    o.sigma_schedule = WEFT_SCHEDULE_SIMPLE;
    ck_assert_int_eq(read_config(config, &o), WEFT_OK);
    ck_assert_int_eq(o.sigma_schedule, WEFT_SCHEDULE_SIMPLE);

    o = (weft_sampler_options)WEFT_SAMPLER_OPTIONS_INIT; /* DDIM has none of these keys */
    ck_assert_int_eq(read_config(config, &o), WEFT_OK);
    ck_assert(o.sigma_schedule == 0 && o.sigma_min == 0 && o.sigma_max == 0 && o.final_sigma == 0);
}
END_TEST

START_TEST(keys_about_sigmas_of_another_type_are_refused)
{
    static const struct { const char *config, *text; } wrong[] = {
        { "{\"sigma_min\": \"x\"}", "sigma_min is not a number from 1e-6 to 1e6" },
        { "{\"sigma_max\": 0}", "sigma_max is not a number" },
        { "{\"sigma_max\": 1e308}", "sigma_max is not a number" },
        { "{\"final_sigmas_type\": 3}", "final_sigmas_type is not a string" },
        { "{\"use_beta_sigmas\": 1}", "use_beta_sigmas is not true or false" },
        { "{\"lambda_min_clipped\": 0.5}", "lambda_min_clipped is not below 0" },
        { "{\"lambda_min_clipped\": []}", "lambda_min_clipped is not below 0" },
        { "{\"use_karras_sigmas\": true, \"use_exponential_sigmas\": true}",
          "use_karras_sigmas and use_exponential_sigmas are both true" },
    };

    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;

        o.kind = WEFT_SAMPLER_DPMPP_2M;
        ck_assert_int_eq(read_config(wrong[i].config, &o), WEFT_E_FORMAT);
        ck_assert_msg(strstr(err.text, wrong[i].text) != NULL, "%s", err.text);
        o.kind = WEFT_SAMPLER_DDIM; /* which has none of these keys */
        ck_assert_msg(read_config(wrong[i].config, &o) == WEFT_OK, "%s", err.text);
    }
}
END_TEST

/* Euler takes Karras' sigmas from the file; what has none leaves them, and a file's false takes nothing back. */
START_TEST(karras_comes_with_the_file)
{
    static const struct { int32_t kind; const char *config; uint32_t before, after; } table[] = {
        { WEFT_SAMPLER_EULER, "{\"use_karras_sigmas\": true}", 0, WEFT_SAMPLER_KARRAS },
        { WEFT_SAMPLER_HEUN, "{\"use_karras_sigmas\": true}", 0, WEFT_SAMPLER_KARRAS },
        { WEFT_SAMPLER_DDIM, "{\"use_karras_sigmas\": true}", 0, 0 },
        { WEFT_SAMPLER_EULER_A, "{\"use_karras_sigmas\": true}", 0, 0 },
        { WEFT_SAMPLER_EULER, "{\"use_karras_sigmas\": false}", WEFT_SAMPLER_KARRAS, WEFT_SAMPLER_KARRAS },
    };

    for (size_t i = 0; i < COUNT_OF(table); i++) {
        weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;

        o.kind = table[i].kind;
        o.flags = table[i].before;
        ck_assert_int_eq(read_config(table[i].config, &o), WEFT_OK);
        ck_assert_uint_eq(o.flags & WEFT_SAMPLER_KARRAS, table[i].after);
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

/* A copy of tiny-sd2 whose scheduler says something else. */
static weft_model *open_with(const char *scheduler, weft_status *st)
{
    char        folder[] = "/tmp/weft-scheduler-XXXXXX", line[2048], path[256];
    weft_model *m;
    FILE       *f;

    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(line, sizeof line, "cp -R '%s/.' %s", data_path("models/tiny-sd2"), folder);
    ck_assert_int_eq(system(line), 0);
    snprintf(path, sizeof path, "%s/scheduler/scheduler_config.json", folder);
    ck_assert_ptr_nonnull(f = fopen(path, "w"));
    fputs(scheduler, f);
    fclose(f);
    *st = weft_model_open(folder, NULL, &m, &err);
    snprintf(line, sizeof line, "rm -rf %s", folder);
    ck_assert_int_eq(system(line), 0);
    return m;
}

/* The betas are the model's, and a sampler copies what it needs of them: alpha 0 is 1 - 0.125, alpha 1 is 0.875 * 0.75. */
START_TEST(a_model_keeps_its_trained_betas)
{
    weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;
    weft_sampler        *s;
    weft_status          st;
    weft_model          *m = open_with("{\"_class_name\": \"DDIMScheduler\", \"trained_betas\": [0.125, 0.25, 0.5], \"num_train_timesteps\": 3}", &st);

    ck_assert_msg(st == WEFT_OK, "%s", err.text);
    o.steps = 2;
    ck_assert_msg(weft_sampler_options_from_model(m, &o, &err) == WEFT_OK, "%s", err.text);
    ck_assert_uint_eq(o.trained_betas_len, 3);
    ck_assert_int_eq(o.betas, WEFT_BETAS_TRAINED);
    ck_assert_msg(weft_sampler_create(&o, &s, &err) == WEFT_OK, "%s", err.text);
    weft_model_free(m);
    ck_assert_double_eq(wf_vp_alpha(s, 0), 0.875);
    ck_assert_double_eq(wf_vp_alpha(s, 1), 0.65625);
    ck_assert_double_eq(wf_vp_alpha(s, 2), 0.328125);
    weft_sampler_free(s);

    m = open_with("{\"_class_name\": \"DDIMScheduler\", \"trained_betas\": [0.125, \"x\"]}", &st);
    ck_assert_msg(st == WEFT_OK, "%s", err.text);
    ck_assert_int_eq(weft_sampler_options_from_model(m, &o, &err), WEFT_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(err.text, "trained_betas is not a list of numbers"));
    weft_model_free(m);
}
END_TEST

/* Align your steps has a table for SDXL, and tiny-sdxl is one. */
START_TEST(a_model_picks_its_table)
{
    weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;
    weft_model          *m;

    o.kind = WEFT_SAMPLER_EULER;
    o.sigma_schedule = WEFT_SCHEDULE_ALIGN;
    ck_assert_msg(weft_model_open(data_path("models/tiny-sd2"), NULL, &m, &err) == WEFT_OK, "%s", err.text);
    ck_assert_msg(weft_sampler_options_from_model(m, &o, &err) == WEFT_OK, "%s", err.text);
    ck_assert_int_eq(o.sigma_schedule, WEFT_SCHEDULE_ALIGN);
    weft_model_free(m);
    ck_assert_msg(weft_model_open(data_path("models/tiny-sdxl"), NULL, &m, &err) == WEFT_OK, "%s", err.text);
    ck_assert_msg(weft_sampler_options_from_model(m, &o, &err) == WEFT_OK, "%s", err.text);
    ck_assert_int_eq(o.sigma_schedule, WEFT_SCHEDULE_ALIGN_SDXL);
    weft_model_free(m);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("scheduler config");
    TCase *c = tcase_create("config");

    tcase_add_test(c, keys_become_options);
    tcase_add_test(c, absent_keys_mean_what_diffusers_takes);
    tcase_add_test(c, a_dpm_solver_as_it_is_saved);
    tcase_add_test(c, a_dpm_solver_from_other_solvers);
    tcase_add_test(c, no_config_changes_nothing);
    tcase_add_test(c, what_is_not_followed_is_named);
    tcase_add_test(c, what_a_kind_does_not_follow_is_named);
    tcase_add_test(c, variants_come_with_the_file);
    tcase_add_test(c, variants_of_the_callers_own_stay);
    tcase_add_test(c, the_list_of_uncorrected_steps_is_checked);
    tcase_add_test(c, an_unknown_kind_has_no_rules);
    tcase_add_test(c, each_setting_of_a_row_is_checked);
    tcase_add_test(c, defaults_are_those_of_the_kind);
    tcase_add_test(c, sigmas_come_with_the_file);
    tcase_add_test(c, keys_about_sigmas_of_another_type_are_refused);
    tcase_add_test(c, karras_comes_with_the_file);
    tcase_add_test(c, a_model_brings_its_config);
    tcase_add_test(c, a_model_keeps_its_trained_betas);
    tcase_add_test(c, a_model_picks_its_table);
    suite_add_tcase(s, c);
    return run_suite(s);
}
