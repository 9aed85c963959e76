/* config.c - what a model's scheduler_config.json says to a sampler.
 *
 * A published model names one scheduler, and people sample it with another; what carries over is how the model
 * was trained: betas, prediction, timesteps. A key that is absent means what diffusers takes when it is, which
 * is not always what Stable Diffusion uses (betas are linear from 0.0001 to 0.02). A setting that we do not
 * follow and that would change the picture is refused by name. */
#include "model/model.h"
#include "sampler/sampler.h"

#define ALL_FLAGS (WEFT_SAMPLER_KARRAS | WEFT_SAMPLER_ALPHA_TO_ONE | WEFT_SAMPLER_ZERO_SNR)

typedef struct choice {
    const char *name;
    int32_t     value;
} choice;

static const choice beta_schedules[] = {
    { "linear", WEFT_BETAS_LINEAR }, { "scaled_linear", WEFT_BETAS_SCALED_LINEAR }, { NULL, 0 }
};
static const choice predictions[] = {
    { "epsilon", WEFT_PREDICT_EPSILON }, { "v_prediction", WEFT_PREDICT_V }, { "sample", WEFT_PREDICT_SAMPLE }, { NULL, 0 }
};
static const choice spacings[] = {
    { "leading", WEFT_SPACING_LEADING }, { "linspace", WEFT_SPACING_LINSPACE }, { "trailing", WEFT_SPACING_TRAILING },
    { NULL, 0 }
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

static weft_status read_choice(const json_t *config, const char *key, const choice *choices, int32_t *out,
                               weft_error *err)
{
    const json_t *v = value_of(config, key);

    if (v == NULL) return WEFT_OK;
    if (!json_is_string(v)) return wrong_type(key, "a string", err);
    for (const choice *c = choices; c->name != NULL; c++)
        if (strcmp(c->name, json_string_value(v)) == 0) {
            *out = c->value;
            return WEFT_OK;
        }
    return wf_fail(err, WEFT_E_UNSUPPORTED, "scheduler_config.json: %s is \"%s\", which this version does not have", key,
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

static weft_status read_number(const json_t *config, const char *key, float *out, weft_error *err)
{
    const json_t *v = value_of(config, key);

    if (v == NULL) return WEFT_OK;
    if (!json_is_number(v) || !(json_number_value(v) > 0 && json_number_value(v) < 1))
        return wrong_type(key, "a number between 0 and 1", err);
    *out = (float)json_number_value(v);
    return WEFT_OK;
}

static weft_status read_flag(const json_t *config, const char *key, uint32_t flag, uint32_t *flags, weft_error *err)
{
    const json_t *v = value_of(config, key);

    if (v == NULL) return WEFT_OK;
    if (!json_is_boolean(v)) return wrong_type(key, "true or false", err);
    *flags = json_is_true(v) ? *flags | flag : *flags & ~flag;
    return WEFT_OK;
}

/* Settings that change the picture and that we would have to ignore. */
static weft_status refuse_others(const json_t *config, int32_t kind, weft_error *err)
{
    bool ddim = kind == 0 || kind == WEFT_SAMPLER_DDIM;

    if (value_of(config, "trained_betas") != NULL)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "scheduler_config.json: trained_betas is a list, betas are made from "
                       "beta_start and beta_end alone");
    if (json_is_true(value_of(config, "thresholding")))
        return wf_fail(err, WEFT_E_UNSUPPORTED, "scheduler_config.json: thresholding is true, latents are not clipped");
    if (ddim && json_is_true(value_of(config, "clip_sample")))
        return wf_fail(err, WEFT_E_UNSUPPORTED, "scheduler_config.json: clip_sample is true, latents are not clipped");
    return WEFT_OK;
}

weft_status wf_sampler_options_from_json(const json_t *config, weft_sampler_options *options, weft_error *err)
{
    weft_sampler_options o = *options;
    weft_status          st;

    if (config == NULL) return WEFT_OK;
    o.betas = WEFT_BETAS_LINEAR;
    o.beta_start = 0.0001f;
    o.beta_end = 0.02f;
    o.train_steps = 1000;
    o.prediction = WEFT_PREDICT_EPSILON;
    o.spacing = WEFT_SPACING_DEFAULT;
    o.steps_offset = 0;
    o.flags = (o.flags & ~(uint32_t)WEFT_SAMPLER_ZERO_SNR) | WEFT_SAMPLER_ALPHA_TO_ONE;

    if ((st = refuse_others(config, o.kind, err)) != WEFT_OK) return st;
    if ((st = read_choice(config, "beta_schedule", beta_schedules, &o.betas, err)) != WEFT_OK) return st;
    if ((st = read_number(config, "beta_start", &o.beta_start, err)) != WEFT_OK) return st;
    if ((st = read_number(config, "beta_end", &o.beta_end, err)) != WEFT_OK) return st;
    if ((st = read_int(config, "num_train_timesteps", &o.train_steps, err)) != WEFT_OK) return st;
    if ((st = read_choice(config, "prediction_type", predictions, &o.prediction, err)) != WEFT_OK) return st;
    if ((st = read_choice(config, "timestep_spacing", spacings, &o.spacing, err)) != WEFT_OK) return st;
    if ((st = read_int(config, "steps_offset", &o.steps_offset, err)) != WEFT_OK) return st;
    if ((st = read_flag(config, "set_alpha_to_one", WEFT_SAMPLER_ALPHA_TO_ONE, &o.flags, err)) != WEFT_OK) return st;
    if ((st = read_flag(config, "rescale_betas_zero_snr", WEFT_SAMPLER_ZERO_SNR, &o.flags, err)) != WEFT_OK) return st;
    *options = o;
    return WEFT_OK;
}

weft_status weft_sampler_options_from_model(const weft_model *model, weft_sampler_options *options, weft_error *err)
{
    weft_sampler_options o;
    weft_status          st;

    if (model == NULL || options == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_sampler_options_from_model: %s is NULL", model == NULL ? "model" : "options");
    if ((st = wf_options(&o, sizeof o, sizeof o, options, ALL_FLAGS, "weft_sampler_options", err)) != WEFT_OK) return st;
    if ((st = wf_sampler_options_from_json(wf_model_scheduler(model), &o, err)) != WEFT_OK) return st;
    return wf_result(options, &o, sizeof o, sizeof o, "weft_sampler_options", err);
}
