/* config.c - what a model's scheduler_config.json says to a sampler.
 *
 * A published model names one scheduler, and people sample it with another. What carries over is
 * how the model was trained: betas, prediction, timesteps. A key that is absent means what
 * diffusers takes then, which is not always what Stable Diffusion uses (betas are linear from
 * 0.0001 to 0.02). A setting that would change the images of the caller's solver in diffusers,
 * and that we do not follow, is refused by name; each solver's row lists its own. Karras' and other
 * sigmas are switched on by a file, never off: every file says "use_karras_sigmas": false.
 *
 * A key that the class of the caller's solver does not have is not looked at, as in diffusers. Two
 * of its oddities are part of that: any class with Karras' sigmas obeys a sigma_min and a sigma_max
 * that only another class writes, and rescale_betas_zero_snr, which says how the model was trained,
 * is followed here by the kinds whose class lacks it too. */
#include <float.h>

#include "base/structs.h"
#include "model/model.h"
#include "sampler/sampler_internal.h"

typedef struct choice {
    const char *name;
    int32_t     value;
} choice;

static const choice beta_schedules[] = {
    { "linear", WEFT_BETAS_LINEAR }, { "scaled_linear", WEFT_BETAS_SCALED_LINEAR },
    { "squaredcos_cap_v2", WEFT_BETAS_SQUARED_COS }, { "sigmoid", WEFT_BETAS_SIGMOID },
    { "laplace", WEFT_BETAS_LAPLACE }, { "exp", WEFT_BETAS_EXP }, { NULL, 0 }
};
static const choice predictions[] = {
    { "epsilon", WEFT_PREDICT_EPSILON }, { "v_prediction", WEFT_PREDICT_V },
    { "sample", WEFT_PREDICT_SAMPLE }, { "original_sample", WEFT_PREDICT_SAMPLE }, { NULL, 0 }
};
static const choice spacings[] = {
    { "leading", WEFT_SPACING_LEADING }, { "linspace", WEFT_SPACING_LINSPACE },
    { "trailing", WEFT_SPACING_TRAILING }, { NULL, 0 }
};
static const choice finals[] = {
    { "zero", WEFT_FINAL_ZERO }, { "sigma_min", WEFT_FINAL_MIN }, { NULL, 0 }
};
static const choice interpolations[] = {
    { "linear", WEFT_INTERPOLATION_LINEAR }, { "log_linear", WEFT_INTERPOLATION_LOG_LINEAR },
    { NULL, 0 }
};
static const choice timestep_types[] = {
    { "discrete", 0 }, { "continuous", (int32_t)WEFT_SAMPLER_LOG_TIMESTEPS }, { NULL, 0 }
};

static const json_t *value_of(const json_t *config, const char *key)
{
    const json_t *v = json_object_get(config, key);

    return json_is_null(v) ? NULL : v;
}

static weft_status wrong_type(const char *key, const char *wanted, weft_error *err)
{
    return wf_fail(err, WEFT_E_FORMAT, "scheduler_config.json: %s is not %s", key, wanted);
}

static weft_status read_choice(const json_t *config, const char *key, const choice *choices,
                               int32_t *out, weft_error *err)
{
    const json_t *v = value_of(config, key);

    if (v == NULL) return WEFT_OK;
    if (!json_is_string(v)) return wrong_type(key, "a string", err);
    for (const choice *c = choices; c->name != NULL; c++)
        if (strcmp(c->name, json_string_value(v)) == 0) {
            *out = c->value;
            return WEFT_OK;
        }
    return wf_fail(err, WEFT_E_UNSUPPORTED,
                   "scheduler_config.json: %s is \"%s\", which this version does not have", key,
                   json_string_value(v));
}

static weft_status read_int(const json_t *config, const char *key, int32_t *out, weft_error *err)
{
    const json_t *v = value_of(config, key);

    if (v == NULL) return WEFT_OK;
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
        return wrong_type(key, "a whole number from 0 on", err);
    *out = (int32_t)json_integer_value(v);
    return WEFT_OK;
}

static weft_status read_number(const json_t *config, const char *key, float *out,
                               weft_error *err)
{
    const json_t *v = value_of(config, key);

    if (v == NULL) return WEFT_OK;
    if (!json_is_number(v) || !(json_number_value(v) > 0 && json_number_value(v) < 1))
        return wrong_type(key, "a number between 0 and 1", err);
    *out = (float)json_number_value(v);
    return WEFT_OK;
}

/* A sigma, which may also be absent. */
static weft_status read_sigma(const json_t *config, const char *key, float *out, weft_error *err)
{
    const json_t *v = value_of(config, key);
    double        sigma = json_number_value(v);

    if (v == NULL) return WEFT_OK;
    if (!json_is_number(v) || !(sigma >= 1e-6 && sigma <= 1e6))
        return wrong_type(key, "a number from 1e-6 to 1e6", err);
    *out = (float)sigma;
    return WEFT_OK;
}

static weft_status read_flag(const json_t *config, const char *key, uint32_t flag, uint32_t *flags,
                             weft_error *err)
{
    const json_t *v = value_of(config, key);

    if (v == NULL) return WEFT_OK;
    if (!json_is_boolean(v)) return wrong_type(key, "true or false", err);
    *flags = json_is_true(v) ? *flags | flag : *flags & ~flag;
    return WEFT_OK;
}

static bool is_one_of(const char *words, const char *s)
{
    for (size_t n; *words != '\0'; words += n + (words[n] == ' ')) {
        n = strcspn(words, " ");
        if (strlen(s) == n && memcmp(words, s, n) == 0) return true;
    }
    return false;
}

static bool is_followed(const json_t *v, const wf_setting *s)
{
    if (s->type == JSON_NULL) return false;
    if (s->type == JSON_STRING)
        return json_is_string(v) && is_one_of(s->text, json_string_value(v));
    if (s->type == JSON_TRUE) return json_is_boolean(v) && json_is_true(v) == (s->number != 0);
    return json_is_number(v) && json_number_value(v) == s->number;
}

/* Schedulers for models that were trained on other noise than sqrt(A) x0 + sqrt(1-A) noise, by how
 * their names begin. */
static const char *const other_noise[] = {
    "FlowMatch", "EDM", "CosineDPM", "CM", "ScoreSde", "VQDiffusion",
};

static weft_status refuse_class(const json_t *config, weft_error *err)
{
    const char *name = json_string_value(value_of(config, "_class_name"));

    for (size_t i = 0; name != NULL && i < WF_LEN(other_noise); i++)
        if (strncmp(name, other_noise[i], strlen(other_noise[i])) == 0)
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "scheduler_config.json: %s is for models trained on another kind of "
                           "noise, which no sampler here takes off", name);
    return WEFT_OK;
}

static const char *shown(const json_t *v, wf_number_text *number)
{
    if (json_is_string(v)) return json_string_value(v);
    if (json_is_boolean(v)) return json_is_true(v) ? "true" : "false";
    if (json_is_number(v)) return wf_number(number, json_number_value(v));
    return "no such value";
}

static weft_status refuse_setting(const json_t *config, const wf_setting *s, weft_error *err)
{
    const json_t  *v = value_of(config, s->key);
    wf_number_text number;

    if (v == NULL || is_followed(v, s)) return WEFT_OK;
    return wf_fail(err, WEFT_E_UNSUPPORTED, "scheduler_config.json: %s is %s, but %s", s->key,
                   shown(v, &number), s->why);
}

static weft_status refuse_settings(const json_t *config, const wf_solver *solver, weft_error *err)
{
    static const wf_setting flow = {
        "use_flow_sigmas", JSON_TRUE, NULL, 0,
        "that is for models trained on another kind of noise",
    };

    if (solver->keys & WF_KEY_FLOW) WF_TRY(refuse_setting(config, &flow, err));
    for (const wf_setting *s = solver->settings; s->key != NULL; s++)
        WF_TRY(refuse_setting(config, s, err));
    return WEFT_OK;
}

/* ---- the variants of a solver -------------------------------------------------------------- */

/* Words of other solvers, which diffusers takes for its default, are 0. */
static const choice algorithms[] = {
    { "dpmsolver++", WEFT_ALGORITHM_DPMPP }, { "sde-dpmsolver++", WEFT_ALGORITHM_DPMPP_SDE },
    { "dpmsolver", WEFT_ALGORITHM_DPM }, { "sde-dpmsolver", WEFT_ALGORITHM_DPM_SDE },
    { "deis", WEFT_ALGORITHM_DEFAULT }, { NULL, 0 }
};
static const choice solver_types[] = {
    { "midpoint", WEFT_SOLVER_MIDPOINT }, { "heun", WEFT_SOLVER_HEUN }, { "bh1", WEFT_SOLVER_BH1 },
    { "bh2", WEFT_SOLVER_BH2 }, { "logrho", WEFT_SOLVER_DEFAULT }, { NULL, 0 }
};
/* fixed_small_log has the same deviations; fixed_large_log has none in diffusers, but NaN. */
static const choice variances[] = {
    { "fixed_small", WEFT_VARIANCE_SMALL }, { "fixed_small_log", WEFT_VARIANCE_SMALL },
    { "fixed_large", WEFT_VARIANCE_LARGE }, { NULL, 0 }
};

static weft_status read_positive(const json_t *config, const char *key, float *out, weft_error *err)
{
    const json_t *v = value_of(config, key);

    if (v == NULL) return WEFT_OK;
    if (!json_is_number(v) || !((float)json_number_value(v) > 0))
        return wrong_type(key, "a number above 0", err);
    *out = (float)json_number_value(v);
    return WEFT_OK;
}

/* The order, if this kind leaves it open, as it does the algorithm if it has several. */
static weft_status read_method(const json_t *config, const wf_solver *solver,
                               weft_sampler_options *o, weft_error *err)
{
    bool open = (solver->algorithms & (solver->algorithms - 1)) != 0;

    if (solver->max_order > 0 && solver->layout == WF_LAYOUT_DPM) /* LMS is told with each step */
        WF_TRY(read_int(config, "solver_order", &o->order, err));
    if (open) WF_TRY(read_choice(config, "algorithm_type", algorithms, &o->algorithm, err));
    if (o->algorithm != 0 && !(solver->algorithms & WF_WAY(o->algorithm)))
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "scheduler_config.json: algorithm_type is \"%s\", which %s does not have",
                       json_string_value(value_of(config, "algorithm_type")), solver->name);
    if (solver->solver_types != 0)
        WF_TRY(read_choice(config, "solver_type", solver_types, &o->solver_type, err));
    if (!(solver->solver_types & WF_WAY(o->solver_type))) o->solver_type = WEFT_SOLVER_DEFAULT;
    if (solver->takes & WF_TAKES_VARIANCE)
        WF_TRY(read_choice(config, "variance_type", variances, &o->variance, err));
    return WEFT_OK;
}

static weft_status read_clipping(const json_t *config, const wf_solver *solver,
                                 weft_sampler_options *o, weft_error *err)
{
    if (solver->takes & WF_TAKES_CLIP) {
        WF_TRY(read_flag(config, "clip_sample", WEFT_SAMPLER_CLIP, &o->flags, err));
        WF_TRY(read_positive(config, "clip_sample_range", &o->clip_range, err));
    }
    if (solver->takes & WF_TAKES_THRESHOLD) {
        WF_TRY(read_flag(config, "thresholding", WEFT_SAMPLER_THRESHOLD, &o->flags, err));
        WF_TRY(read_positive(config, "dynamic_thresholding_ratio", &o->threshold_ratio, err));
        WF_TRY(read_positive(config, "sample_max_value", &o->threshold_max, err));
    }
    return WEFT_OK;
}

/* UniPC: the steps that are not corrected. */
static weft_status read_corrector(const json_t *config, weft_sampler_options *o, weft_error *err)
{
    const json_t *list = value_of(config, "disable_corrector"), *step;
    size_t        i;

    if (list != NULL && !json_is_array(list)) return wrong_type("disable_corrector", "a list", err);
    json_array_foreach(list, i, step) {
        json_int_t n = json_integer_value(step);

        if (!json_is_integer(step) || n < 0 || n > 63)
            return wrong_type("disable_corrector", "a list of whole numbers from 0 to 63", err);
        o->uncorrected |= (uint64_t)1 << n;
    }
    return WEFT_OK;
}

/* The last steps: a file's true or false is a choice of its own, and absent is the kind's. */
static weft_status read_last_steps(const json_t *config, const wf_solver *solver,
                                   weft_sampler_options *o, weft_error *err)
{
    uint32_t lower = 0, of_image = 1;

    if (solver->takes & WF_TAKES_LAST) {
        WF_TRY(read_flag(config, "lower_order_final", 1, &lower, err));
        if (value_of(config, "lower_order_final") != NULL)
            o->last_steps = lower ? WEFT_LAST_LOWER : WEFT_LAST_FULL;
    }
    if (solver->takes & WF_TAKES_EULER_LAST)
        WF_TRY(read_flag(config, "euler_at_final", WEFT_SAMPLER_EULER_LAST, &o->flags, err));
    if (solver->takes & WF_TAKES_OF_NOISE) {
        WF_TRY(read_flag(config, "predict_x0", 1, &of_image, err));
        if (!of_image) o->flags |= WEFT_SAMPLER_OF_NOISE;
    }
    return WEFT_OK;
}

/* The caller's choice stays; what the caller left open is the file's. */
static weft_status read_variants(const json_t *config, const wf_solver *solver,
                                 weft_sampler_options *o, weft_error *err)
{
    weft_sampler_options file = WEFT_SAMPLER_OPTIONS_INIT;

    WF_TRY(read_method(config, solver, &file, err));
    WF_TRY(read_clipping(config, solver, &file, err));
    WF_TRY(read_last_steps(config, solver, &file, err));
    if (solver->takes & WF_TAKES_UNCORRECTED) WF_TRY(read_corrector(config, &file, err));

    if (o->order == 0) o->order = file.order;
    if (o->algorithm == 0) o->algorithm = file.algorithm;
    if (o->solver_type == 0) o->solver_type = file.solver_type;
    if (o->last_steps == 0) o->last_steps = file.last_steps;
    if (o->variance == 0) o->variance = file.variance;
    if (o->clip_range == 0) o->clip_range = file.clip_range;
    if (o->threshold_ratio == 0) o->threshold_ratio = file.threshold_ratio;
    if (o->threshold_max == 0) o->threshold_max = file.threshold_max;
    if (o->uncorrected == 0) o->uncorrected = file.uncorrected;
    o->flags |= file.flags;
    return WEFT_OK;
}

/* What diffusers takes for absent keys when it makes the scheduler of this kind. The default
 * spacing is resolved at creation. */
static void take_defaults(weft_sampler_options *o, const wf_solver *solver)
{
    o->betas = solver->absent.betas;
    o->beta_start = solver->absent.beta_start;
    o->beta_end = solver->absent.beta_end;
    o->train_steps = 1000;
    o->prediction = WEFT_PREDICT_EPSILON;
    o->spacing = WEFT_SPACING_DEFAULT;
    o->steps_offset = 0;
    o->origin_steps = 0;
    o->flags &= ~(uint32_t)(WEFT_SAMPLER_ZERO_SNR | WEFT_SAMPLER_ALPHA_TO_ONE);
    o->flags |= solver->absent.flags;
}

/* ---- betas of training's own --------------------------------------------------------------- */

/* The numbers themselves are the model's, see wf_model_trained_betas(). */
static weft_status read_trained_betas(const json_t *config, weft_sampler_options *o,
                                      weft_error *err)
{
    const json_t *v = value_of(config, "trained_betas");

    if (v == NULL) {
        o->trained_betas = NULL;
        o->trained_betas_len = 0;
        return WEFT_OK;
    }
    if (!json_is_array(v) || o->trained_betas == NULL || json_array_size(v) != o->trained_betas_len)
        return wrong_type("trained_betas", "a list of numbers", err);
    o->betas = WEFT_BETAS_TRAINED;
    return WEFT_OK;
}

/* ---- sigmas -------------------------------------------------------------------------------- */

/* Which keys switch to other sigmas than those of the timesteps. Where two are true, diffusers
 * takes the first. */
static const struct {
    const char *key;
    int32_t     schedule;
    bool        alone; /* diffusers refuses two of these */
} switches[] = {
    { "use_karras_sigmas", WEFT_SCHEDULE_KARRAS, true },
    { "use_lu_lambdas", WEFT_SCHEDULE_LU, false },
    { "use_exponential_sigmas", WEFT_SCHEDULE_EXPONENTIAL, true },
    { "use_beta_sigmas", WEFT_SCHEDULE_BETA, true },
};

static weft_status read_schedule(const json_t *config, const wf_solver *solver, int32_t *out,
                                 weft_error *err)
{
    const char *before = NULL;

    *out = WEFT_SCHEDULE_DEFAULT;
    for (size_t i = 0; i < WF_LEN(switches); i++) {
        uint32_t on = 0;

        if (switches[i].schedule == WEFT_SCHEDULE_LU && !(solver->keys & WF_KEY_LU)) continue;
        WF_TRY(read_flag(config, switches[i].key, 1, &on, err));
        if (on == 0) continue;
        if (before != NULL && switches[i].alone)
            return wf_fail(err, WEFT_E_FORMAT,
                           "scheduler_config.json: %s and %s are both true, it must be one of them",
                           before, switches[i].key);
        if (switches[i].alone) before = switches[i].key;
        if (*out == WEFT_SCHEDULE_DEFAULT) *out = switches[i].schedule;
    }
    return WEFT_OK;
}

static bool is_karras(const weft_sampler_options *o)
{
    return (o->flags & WEFT_SAMPLER_KARRAS) || o->sigma_schedule == WEFT_SCHEDULE_KARRAS;
}

/* A sigma below which nothing is: diffusers' default is -infinity, and a file's reader gives
 * -1e308 for it. */
static weft_status read_lambda_min(const json_t *config, float *out, weft_error *err)
{
    const json_t *v = value_of(config, "lambda_min_clipped");
    double        lambda = json_number_value(v);

    if (v == NULL || (json_is_number(v) && lambda < (double)-FLT_MAX)) return WEFT_OK;
    if (json_is_number(v) && lambda < 0) {
        *out = (float)lambda;
        return WEFT_OK;
    }
    return wrong_type("lambda_min_clipped", "below 0", err);
}

/* The caller's choice stays; what the caller left open is the file's. */
static weft_status read_sigmas(const json_t *config, const wf_solver *solver,
                               weft_sampler_options *o, weft_error *err)
{
    weft_sampler_options file = WEFT_SAMPLER_OPTIONS_INIT;
    int32_t              timesteps = 0;

    if (solver->karras) {
        WF_TRY(read_schedule(config, solver, &file.sigma_schedule, err));
        WF_TRY(read_sigma(config, "sigma_min", &file.sigma_min, err));
        WF_TRY(read_sigma(config, "sigma_max", &file.sigma_max, err));
    }
    if (solver->keys & WF_KEY_FINAL)
        WF_TRY(read_choice(config, "final_sigmas_type", finals, &file.final_sigma, err));
    if (solver->keys & WF_KEY_INTERPOLATION)
        WF_TRY(read_choice(config, "interpolation_type", interpolations, &file.interpolation, err));
    if (solver->keys & WF_KEY_TIMESTEP_TYPE)
        WF_TRY(read_choice(config, "timestep_type", timestep_types, &timesteps, err));
    if (solver->keys & WF_KEY_LAMBDA) WF_TRY(read_lambda_min(config, &file.lambda_min, err));

    if (o->sigmas == NULL && o->sigma_schedule == WEFT_SCHEDULE_DEFAULT && !is_karras(o)) {
        if (file.sigma_schedule == WEFT_SCHEDULE_KARRAS) o->flags |= WEFT_SAMPLER_KARRAS;
        else o->sigma_schedule = file.sigma_schedule;
    }
    if (!(solver->karras_range && is_karras(o))) {
        if (o->sigma_min == 0) o->sigma_min = file.sigma_min;
        if (o->sigma_max == 0) o->sigma_max = file.sigma_max;
    }
    if (o->final_sigma == WEFT_FINAL_DEFAULT) o->final_sigma = file.final_sigma;
    if (o->interpolation == 0) o->interpolation = file.interpolation;
    if (o->lambda_min == 0) o->lambda_min = file.lambda_min;
    o->flags |= (uint32_t)timesteps;
    return WEFT_OK;
}

/* ---- all of it ----------------------------------------------------------------------------- */

weft_status wf_sampler_options_from_json(const json_t *config, weft_sampler_options *options,
                                         weft_error *err)
{
    weft_sampler_options o = *options;
    const wf_solver     *solver;

    WF_TRY(wf_solver_of(o.kind, &solver, err));
    if (config == NULL) return WEFT_OK;
    take_defaults(&o, solver);
    WF_TRY(refuse_class(config, err));
    WF_TRY(refuse_settings(config, solver, err));
    WF_TRY(read_choice(config, "beta_schedule", beta_schedules, &o.betas, err));
    WF_TRY(read_number(config, "beta_start", &o.beta_start, err));
    WF_TRY(read_number(config, "beta_end", &o.beta_end, err));
    WF_TRY(read_int(config, "num_train_timesteps", &o.train_steps, err));
    WF_TRY(read_choice(config, "prediction_type", predictions, &o.prediction, err));
    WF_TRY(read_trained_betas(config, &o, err));
    if (!solver->no_spacing) {
        WF_TRY(read_choice(config, "timestep_spacing", spacings, &o.spacing, err));
        WF_TRY(read_int(config, "steps_offset", &o.steps_offset, err));
    }
    WF_TRY(read_int(config, "original_inference_steps", &o.origin_steps, err));
    WF_TRY(read_flag(config, "set_alpha_to_one", WEFT_SAMPLER_ALPHA_TO_ONE, &o.flags, err));
    WF_TRY(read_flag(config, "rescale_betas_zero_snr", WEFT_SAMPLER_ZERO_SNR, &o.flags, err));
    WF_TRY(read_variants(config, solver, &o, err));
    WF_TRY(read_sigmas(config, solver, &o, err));
    *options = o;
    return WEFT_OK;
}

weft_status weft_sampler_options_from_model(const weft_model *model, weft_sampler_options *options,
                                            weft_error *err)
{
    weft_sampler_options o;

    if (model == NULL || options == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_sampler_options_from_model: %s is NULL",
                       model == NULL ? "model" : "options");
    WF_TRY(WF_OPTIONS(&o, options, weft_sampler_options, WF_SAMPLER_FLAGS, err));
    if (wf_model_base(model) >= WEFT_BASE_SDXL && o.sigma_schedule == WEFT_SCHEDULE_ALIGN)
        o.sigma_schedule = WEFT_SCHEDULE_ALIGN_SDXL;
    if (wf_model_scheduler(model) != NULL)
        o.trained_betas = wf_model_trained_betas(model, &o.trained_betas_len);
    WF_TRY(wf_sampler_options_from_json(wf_model_scheduler(model), &o, err));
    return WF_RESULT(options, &o, weft_sampler_options, err);
}
