/* Whole pictures from prompt and seed, against diffusers' pipelines: every sampler on the three tiny models, and
 * on the bundled model where its goldens are. Final latents within 1e-3 (they are far closer), pixels within
 * 1/255 for 99.9 % of them. tests/reference/make_pictures.py and make_bundled.py made the references. */
#include "pictures.h"

static void check_picture(const weft_tensors *t, weft_run *run, plain_shape shape, json_t *c)
{
    const char *name = word(c, "name", "");
    weft_sampler *sampler = make_sampler(c);
    weft_noise *noise;
    char what[256];
    golden first = golden_read(t, "%s/noise", name), want = golden_read(t, "%s/latents", name);
    golden u8 = golden_read(t, "%s/u8", name);
    float *x = malloc(want.n * sizeof *x), *scaled = malloc(want.n * sizeof *x), *out = malloc(want.n * sizeof *x);
    float *pooled[2];

    must(weft_noise_create((uint64_t)real(c, "seed", 0), NULL, &noise, &golden_err));
    must(weft_noise_normal(noise, x, want.n, &golden_err));
    near_golden("noise", x, first.v, want.n, 1e-6);
    for (size_t i = 0; i < want.n; i++) x[i] *= weft_sampler_init_scale(sampler);
    float *cond = encode(run, shape, word(c, "prompt", ""), &pooled[0]);
    float *uncond = encode(run, shape, word(c, "negative", shape.pooled > 0 ? NULL : ""), &pooled[1]);
    must(weft_sampler_begin(sampler, 0, want.n, &golden_err));
    for (int32_t n = 0; n < weft_sampler_calls(sampler); n++) {
        plain_step step = PLAIN_STEP_INIT;
        must(weft_sampler_scale(sampler, n, x, scaled, want.n, &golden_err));
        step.latent = scaled;
        step.out = out;
        step.latent_len = step.out_len = want.n;
        step.text = cond;
        step.negative = uncond;
        step.text_len = step.negative_len = 77 * (size_t)shape.dim;
        step.pooled = pooled[0];
        step.negative_pooled = pooled[1];
        step.pooled_len = step.negative_pooled_len = (size_t)shape.pooled;
        step.timestep = weft_sampler_timestep(sampler, n);
        step.guidance = (float)real(c, "guidance", 1);
        step.guidance_rescale = (float)real(c, "guidance_rescale", 0);
        must(plain_run_step(run, &step, &golden_err));
        must(weft_sampler_step(sampler, n, out, x, want.n, noise, &golden_err));
    }
    snprintf(what, sizeof what, "%s latents", name);
    near_golden(what, x, want.v, want.n, 1e-3);

    check_pixels(name, run, x, want.n, &u8);
    weft_sampler_free(sampler);
    weft_noise_free(noise);
    free(x), free(scaled), free(out), free(cond), free(uncond), free(pooled[0]);
    free(pooled[1]), free(first.v), free(want.v), free(u8.v);
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
        check_picture(t, run, plain_shape_of(model), c);
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
