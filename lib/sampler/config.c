/* config.c - what a model's scheduler_config.json says to a sampler.
 *
 * A published model names one scheduler, and people sample it with another; what carries over is how the model
 * was trained: betas, prediction, timesteps. A key that is absent means what diffusers takes when it is, which
 * is not always what Stable Diffusion uses (betas are linear from 0.0001 to 0.02). A setting that we do not
 * follow and that would change the picture is refused by name, if the caller's kind of sampler heeds it. Karras'
 * sigmas are taken up and never taken back: "use_karras_sigmas": false is what everybody's file says. */
#include "base/structs.h"
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

#define KIND(k)      (1u << WEFT_SAMPLER_##k)
#define EVERY        0xffffffffu
#define CLIPPING     (KIND(DDIM) | KIND(DDPM) | KIND(HEUN) | KIND(LCM))
#define BY_SIGMA     (KIND(EULER) | KIND(HEUN) | KIND(DPMPP_2M))

/* Settings that change the picture of some kind, and the one value that we follow: of words the first, for which
 * diffusers takes the others, since they are of solvers that this kind is not. */
static const struct setting {
    const char *key;
    uint32_t    kinds;
    int32_t     type;   /* of JSON: a string, a number, or true for either truth value */
    const char *text;
    double      number;
    const char *why;
} settings[] = {
    { "thresholding", EVERY, JSON_TRUE, NULL, 0, "latents are not clipped" },
    { "clip_sample", CLIPPING, JSON_TRUE, NULL, 0, "latents are not clipped" },
    { "skip_prk_steps", KIND(PNDM), JSON_TRUE, NULL, 1, "there are no Runge-Kutta steps" },
    { "variance_type", KIND(DDPM), JSON_STRING, "fixed_small", 0, "the variance is fixed_small" },
    { "timestep_scaling", KIND(LCM), JSON_REAL, NULL, 10, "it is 10 here" },
    { "interpolation_type", KIND(EULER), JSON_STRING, "linear", 0, "sigmas are interpolated linearly" },
    { "timestep_type", KIND(EULER), JSON_STRING, "discrete", 0, "timesteps are discrete" },
    { "final_sigmas_type", KIND(EULER) | KIND(DPMPP_2M), JSON_STRING, "zero", 0, "the last sigma is 0" },
    { "use_exponential_sigmas", BY_SIGMA, JSON_TRUE, NULL, 0, "sigmas can be given instead" },
    { "use_beta_sigmas", BY_SIGMA, JSON_TRUE, NULL, 0, "sigmas can be given instead" },
    { "use_lu_lambdas", KIND(DPMPP_2M), JSON_TRUE, NULL, 0, "sigmas can be given instead" },
    { "use_flow_sigmas", KIND(DPMPP_2M), JSON_TRUE, NULL, 0, "sigmas can be given instead" },
    { "algorithm_type", KIND(DPMPP_2M), JSON_STRING, "dpmsolver++ deis", 0, "it is dpmsolver++ here" },
    { "solver_type", KIND(DPMPP_2M), JSON_STRING, "midpoint logrho bh1 bh2", 0, "it is midpoint here" },
    { "solver_order", KIND(DPMPP_2M), JSON_REAL, NULL, 2, "it is 2 here" },
    { "lambda_min_clipped", KIND(DPMPP_2M), JSON_REAL, NULL, -1e308, "nothing is clipped" }, /* -Infinity: io/json.c */
};

static bool is_one_of(const char *words, const char *s)
{
    for (size_t n; *words != '\0'; words += n + (words[n] == ' ')) {
        n = strcspn(words, " ");
        if (strlen(s) == n && memcmp(words, s, n) == 0) return true;
    }
    return false;
}

static bool is_followed(const json_t *v, const struct setting *s)
{
    if (s->type == JSON_STRING) return json_is_string(v) && is_one_of(s->text, json_string_value(v));
    if (s->type == JSON_TRUE) return json_is_boolean(v) && json_is_true(v) == (s->number != 0);
    return json_is_number(v) && json_number_value(v) == s->number;
}

/* Schedulers for models that were trained on other noise than sqrt(A) x0 + sqrt(1-A) noise, by how their names begin. */
static const char *const other_noise[] = { "FlowMatch", "EDM", "CosineDPM", "CM", "ScoreSde", "VQDiffusion" };

static weft_status refuse_class(const json_t *config, weft_error *err)
{
    const char *name = json_string_value(value_of(config, "_class_name"));

    for (size_t i = 0; name != NULL && i < WF_LEN(other_noise); i++)
        if (strncmp(name, other_noise[i], strlen(other_noise[i])) == 0)
            return wf_fail(err, WEFT_E_UNSUPPORTED, "scheduler_config.json: %s is for models trained on another kind of "
                           "noise, which no sampler here takes off", name);
    return WEFT_OK;
}

static weft_status refuse_others(const json_t *config, int32_t kind, weft_error *err)
{
    uint32_t mine = 1u << (kind > 0 && kind < 32 ? kind : WEFT_SAMPLER_DDIM);

    if (value_of(config, "trained_betas") != NULL)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "scheduler_config.json: trained_betas is a list, betas are made from "
                       "beta_start and beta_end alone");
    for (const struct setting *s = settings; s < settings + WF_LEN(settings); s++) {
        const json_t  *v = value_of(config, s->key);
        wf_number_text number;

        if (v == NULL || !(s->kinds & mine) || is_followed(v, s)) continue;
        return wf_fail(err, WEFT_E_UNSUPPORTED, "scheduler_config.json: %s is %s, but %s", s->key,
                       json_is_string(v) ? json_string_value(v) : json_is_true(v) ? "true" : json_is_false(v) ? "false" :
                       json_is_number(v) ? wf_number(&number, json_number_value(v)) : "no such value", s->why);
    }
    return WEFT_OK;
}

/* What diffusers takes for absent keys when it makes the scheduler of this kind. Spacing: settled at creation. */
static void take_defaults(weft_sampler_options *o)
{
    bool distilled = o->kind == WEFT_SAMPLER_LCM || o->kind == WEFT_SAMPLER_TCD;
    bool narrow = distilled || o->kind == WEFT_SAMPLER_HEUN;

    o->betas = distilled ? WEFT_BETAS_SCALED_LINEAR : WEFT_BETAS_LINEAR;
    o->beta_start = narrow ? 0.00085f : 0.0001f;
    o->beta_end = narrow ? 0.012f : 0.02f;
    o->train_steps = 1000;
    o->prediction = WEFT_PREDICT_EPSILON;
    o->spacing = WEFT_SPACING_DEFAULT;
    o->steps_offset = 0;
    o->origin_steps = 0;
    o->flags &= ~(uint32_t)(WEFT_SAMPLER_ZERO_SNR | WEFT_SAMPLER_ALPHA_TO_ONE);
    if (o->kind != WEFT_SAMPLER_PNDM) o->flags |= WEFT_SAMPLER_ALPHA_TO_ONE;
}

weft_status wf_sampler_options_from_json(const json_t *config, weft_sampler_options *options, weft_error *err)
{
    weft_sampler_options o = *options;
    weft_status          st;
    uint32_t             karras = 0;

    if (config == NULL) return WEFT_OK;
    take_defaults(&o);
    if ((st = refuse_class(config, err)) != WEFT_OK) return st;
    if ((st = refuse_others(config, o.kind, err)) != WEFT_OK) return st;
    if ((st = read_choice(config, "beta_schedule", beta_schedules, &o.betas, err)) != WEFT_OK) return st;
    if ((st = read_number(config, "beta_start", &o.beta_start, err)) != WEFT_OK) return st;
    if ((st = read_number(config, "beta_end", &o.beta_end, err)) != WEFT_OK) return st;
    if ((st = read_int(config, "num_train_timesteps", &o.train_steps, err)) != WEFT_OK) return st;
    if ((st = read_choice(config, "prediction_type", predictions, &o.prediction, err)) != WEFT_OK) return st;
    if ((st = read_choice(config, "timestep_spacing", spacings, &o.spacing, err)) != WEFT_OK) return st;
    if ((st = read_int(config, "steps_offset", &o.steps_offset, err)) != WEFT_OK) return st;
    if ((st = read_int(config, "original_inference_steps", &o.origin_steps, err)) != WEFT_OK) return st;
    if ((st = read_flag(config, "set_alpha_to_one", WEFT_SAMPLER_ALPHA_TO_ONE, &o.flags, err)) != WEFT_OK) return st;
    if ((st = read_flag(config, "rescale_betas_zero_snr", WEFT_SAMPLER_ZERO_SNR, &o.flags, err)) != WEFT_OK) return st;
    if ((st = read_flag(config, "use_karras_sigmas", WEFT_SAMPLER_KARRAS, &karras, err)) != WEFT_OK) return st;
    if (o.sigmas == NULL && o.kind > 0 && o.kind < 32 && (BY_SIGMA & 1u << o.kind)) o.flags |= karras;
    *options = o;
    return WEFT_OK;
}

weft_status weft_sampler_options_from_model(const weft_model *model, weft_sampler_options *options, weft_error *err)
{
    weft_sampler_options o;
    weft_status          st;

    if (model == NULL || options == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_sampler_options_from_model: %s is NULL", model == NULL ? "model" : "options");
    if ((st = WF_OPTIONS(&o, options, weft_sampler_options, ALL_FLAGS, err)) != WEFT_OK) return st;
    if ((st = wf_sampler_options_from_json(wf_model_scheduler(model), &o, err)) != WEFT_OK) return st;
    return WF_RESULT(options, &o, weft_sampler_options, err);
}
