/* A scheduler_config.json of any bytes is refused in one line, or gives options from which a sampler of each kind is
 * made or refused in one line; one that is made has timesteps of its training, levels that fall to 0, and takes a step. */
#include "fuzz.h"
#include "io/io.h"
#include "sampler/sampler_internal.h"

static void take_step(weft_sampler *s, weft_error *err)
{
    weft_noise *noise;
    float x[2] = { 1, -0.5f }, p[2] = { 0.25f, 0 };
    int32_t first;

    must(weft_noise_create(1, NULL, &noise, err) == WEFT_OK);
    must(weft_sampler_start(s, 1, &first, err) == WEFT_OK && first == 0);
    must(weft_sampler_begin(s, first, 2, err) == WEFT_OK);
    must(weft_sampler_step(s, 0, p, x, 2, noise, err) == WEFT_OK);
    weft_noise_free(noise);
}

static void check(const weft_sampler *s)
{
    int32_t calls = weft_sampler_calls(s);

    must(calls >= 1 && weft_sampler_sigma(s, calls) >= 0);
    for (int32_t i = 0; i < calls; i++) {
        must(s->timesteps[i] <= s->o.train_steps - 1);
        must(s->timesteps[i] >= 0 || (s->o.flags & WEFT_SAMPLER_LOG_TIMESTEPS));
        must(s->sigmas[i] >= s->sigmas[i + 1] && s->sigmas[i] > 0);
    }
}

/* As a model does that the configuration came with. */
static void take_betas(const json_t *json, weft_sampler_options *o)
{
    static float betas[64];
    const json_t *list = json_object_get(json, "trained_betas"), *v;
    size_t i;

    if (json_array_size(list) == 0 || json_array_size(list) > 64) return;
    json_array_foreach(list, i, v) betas[i] = (float)json_number_value(v);
    o->trained_betas = betas;
    o->trained_betas_len = json_array_size(list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    weft_error err = { 0, 0, "" };
    json_t *json;

    if (wf_json_parse(&json, (const char *)data, size, "fuzz", &err) != WEFT_OK) return 0;
    for (size_t i = 0; wf_solver_at(i) != NULL; i++) {
        weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;
        weft_sampler *s = NULL;
        weft_status st;

        o.kind = wf_solver_at(i)->kind;
        o.steps = 1 + (int32_t)(size % 7);
        take_betas(json, &o);
        st = wf_sampler_options_from_json(json, &o, &err);
        if (st == WEFT_OK) st = weft_sampler_create(&o, &s, &err);
        if (st != WEFT_OK) {
            must(st == WEFT_E_FORMAT || st == WEFT_E_UNSUPPORTED || st == WEFT_E_ARG);
            must(s == NULL && err.code == st && one_line(err.text));
            continue;
        }
        check(s);
        take_step(s, &err);
        weft_sampler_free(s);
    }
    json_decref(json);
    return 0;
}
