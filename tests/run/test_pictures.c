/* Whole pictures from prompt and seed, against diffusers' pipelines: every sampler on the three tiny models, and
 * on the bundled model where its goldens are. Final latents within 1e-3 (they are far closer), pixels within
 * 1/255 for 99.9 % of them. tests/reference/make_pictures.py and make_bundled.py made the references. */
#include <stdbool.h>

#include "golden.h"

static const char *word(json_t *o, const char *key, const char *preset)
{
    json_t *v = json_object_get(o, key);
    return json_is_string(v) ? json_string_value(v) : preset;
}

static double real(json_t *o, const char *key, double preset)
{
    json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : preset;
}

static bool is(json_t *o, const char *key) { return json_is_true(json_object_get(o, key)); }

static weft_sampler *make_sampler(json_t *c)
{
    static const struct { const char *name; int32_t kind; } kinds[] = {
        { "ddim", WEFT_SAMPLER_DDIM }, { "euler", WEFT_SAMPLER_EULER }, { "euler_a", WEFT_SAMPLER_EULER_A },
        { "dpmpp_2m", WEFT_SAMPLER_DPMPP_2M },
    };
    weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;
    weft_sampler *s;
    json_t *config = json_object_get(c, "scheduler");
    const char *spacing = word(config, "timestep_spacing", ""), *predict = word(config, "prediction_type", "epsilon");
    for (size_t i = 0; i < 4; i++)
        if (strcmp(word(c, "kind", ""), kinds[i].name) == 0) o.kind = kinds[i].kind;
    ck_assert_int_ne(o.kind, 0);
    o.steps = (int32_t)real(c, "steps", 20);
    o.eta = (float)real(c, "eta", 0);
    o.steps_offset = (int32_t)real(config, "steps_offset", 0);
    o.spacing = strcmp(spacing, "leading") == 0    ? WEFT_SPACING_LEADING
                : strcmp(spacing, "trailing") == 0 ? WEFT_SPACING_TRAILING
                : strcmp(spacing, "linspace") == 0 ? WEFT_SPACING_LINSPACE : WEFT_SPACING_DEFAULT;
    o.prediction = strcmp(predict, "v_prediction") == 0 ? WEFT_PREDICT_V : WEFT_PREDICT_EPSILON;
    if (is(c, "karras")) o.flags |= WEFT_SAMPLER_KARRAS;
    if (is(config, "set_alpha_to_one")) o.flags |= WEFT_SAMPLER_ALPHA_TO_ONE;
    if (is(config, "rescale_betas_zero_snr")) o.flags |= WEFT_SAMPLER_ZERO_SNR;
    must(weft_sampler_create(&o, &s, &golden_err));
    return s;
}

static float *encode(weft_run *run, const weft_model_info *m, const char *prompt, float **pooled)
{
    weft_encode e = WEFT_ENCODE_INIT;
    e.text_len = 77 * (size_t)m->text_dim;
    e.pooled_len = (size_t)m->pooled_dim;
    e.text = calloc(e.text_len, sizeof *e.text);
    e.pooled = e.pooled_len > 0 ? calloc(e.pooled_len, sizeof *e.pooled) : NULL;
    e.prompt = prompt;
    *pooled = e.pooled;
    if (prompt != NULL) must(weft_run_encode(run, &e, &golden_err)); /* none given: SDXL takes zeros */
    return e.text;
}

static void check_picture(const weft_tensors *t, weft_run *run, const weft_model_info *m, json_t *c)
{
    const char *name = word(c, "name", "");
    weft_sampler *sampler = make_sampler(c);
    weft_noise *noise;
    char what[256];
    golden first = golden_read(t, "%s/noise", name), want = golden_read(t, "%s/latents", name);
    golden u8 = golden_read(t, "%s/u8", name);
    float *x = malloc(want.n * sizeof *x), *scaled = malloc(want.n * sizeof *x), *out = malloc(want.n * sizeof *x);
    float *pooled[2], *image = malloc(u8.n * sizeof *image);
    uint8_t *rgb = malloc(u8.n);

    must(weft_noise_create((uint64_t)real(c, "seed", 0), NULL, &noise, &golden_err));
    must(weft_noise_normal(noise, x, want.n, &golden_err));
    near_golden("noise", x, first.v, want.n, 1e-6);
    for (size_t i = 0; i < want.n; i++) x[i] *= weft_sampler_init_scale(sampler);
    float *cond = encode(run, m, word(c, "prompt", ""), &pooled[0]);
    float *uncond = encode(run, m, word(c, "negative", m->pooled_dim > 0 ? NULL : ""), &pooled[1]);
    for (int32_t n = 0; n < weft_sampler_calls(sampler); n++) {
        weft_step step = WEFT_STEP_INIT;
        must(weft_sampler_scale(sampler, n, x, scaled, want.n, &golden_err));
        step.latent = scaled;
        step.out = out;
        step.latent_len = step.out_len = want.n;
        step.text = cond;
        step.negative = uncond;
        step.text_len = step.negative_len = 77 * (size_t)m->text_dim;
        step.pooled = pooled[0];
        step.negative_pooled = pooled[1];
        step.pooled_len = step.negative_pooled_len = (size_t)m->pooled_dim;
        step.timestep = weft_sampler_timestep(sampler, n);
        step.guidance = (float)real(c, "guidance", 1);
        step.guidance_rescale = (float)real(c, "guidance_rescale", 0);
        must(weft_run_step(run, &step, &golden_err));
        must(weft_sampler_step(sampler, n, out, x, want.n, noise, &golden_err));
    }
    snprintf(what, sizeof what, "%s latents", name);
    near_golden(what, x, want.v, want.n, 1e-3);

    int32_t h = (int32_t)u8.shape[0], w = (int32_t)u8.shape[1];
    size_t off = 0;
    must(weft_run_decode(run, x, want.n, image, u8.n, &golden_err));
    must(weft_image_bytes(image, u8.n, w, h, rgb, u8.n, &golden_err));
    for (size_t i = 0; i < u8.n; i++) off += fabs((double)rgb[i] - u8.v[i]) > 1.0;
    ck_assert_msg(off * 1000 <= u8.n, "%s: %zu of %zu values differ by more than 1", name, off, u8.n);
    weft_sampler_free(sampler);
    weft_noise_free(noise);
    free(x), free(scaled), free(out), free(image), free(rgb), free(cond), free(uncond), free(pooled[0]);
    free(pooled[1]), free(first.v), free(want.v), free(u8.v);
}

static weft_run *open_run(weft_model *model, json_t *c, weft_model_info *m, int32_t calls)
{
    weft_run_options ro = WEFT_RUN_OPTIONS_INIT;
    weft_plan *plan;
    weft_run *run;
    must(weft_model_info_get(model, m, &golden_err));
    must(weft_plan_create(model, NULL, &plan, &golden_err));
    must(weft_plan_seal(plan, calls, &golden_err));
    ro.threads = 2;
    ro.height = (int32_t)real(c, "height", 0) / m->image_factor;
    ro.width = (int32_t)real(c, "width", 0) / m->image_factor;
    must(weft_run_create(plan, &ro, &run, &golden_err));
    weft_plan_free(plan);
    return run;
}

START_TEST(every_sampler_draws_diffusers_picture)
{
    bool bundled = _i == 3;
    json_t *index = golden_json(bundled ? "bundled.json" : "pictures.json");
    json_t *entry = bundled ? json_object_get(index, "pictures")
                            : json_array_get(json_object_get(index, "models"), (size_t)_i);
    json_t *cases = json_object_get(entry, "cases");
    weft_tensors *t = golden_open(bundled ? word(entry, "file", "") : "pictures.safetensors");
    weft_model *model;
    const char *path = word(bundled ? index : entry, "model", "");
    must(weft_model_open(data_path("%s%s", strchr(path, '/') != NULL ? "" : "models/", path), NULL, &model, &golden_err));
    ck_assert_uint_ge(json_array_size(cases), 6);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        json_t *c = json_array_get(cases, i);
        weft_model_info m = WEFT_MODEL_INFO_INIT;
        weft_run *run = open_run(model, c, &m, 1);
        check_picture(t, run, &m, c);
        weft_run_free(run);
    }
    weft_model_free(model);
    weft_tensors_free(t);
    json_decref(index);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("pictures against goldens");
    TCase *c = tcase_create("goldens");
    tcase_set_timeout(c, 600);
    tcase_add_loop_test(c, every_sampler_draws_diffusers_picture, 0, 4);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
