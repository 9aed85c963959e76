/* Pictures that begin from pictures, and models that are told more, against diffusers' pipelines: img2img, inpainting
 * with nine channels and with four, editing, base and refiner, guidance that is told, crops, zero terminal signal. Here
 * stand the loops that a caller writes for each. All noise comes from the seed, in the order in which diffusers draws.
 * tests/reference/make_pipelines.py made the references; tolerances as in test_pictures.c. */
#include "pictures.h"

/* A case and what its loop works with. */
typedef struct work {
    json_t             *c;
    const weft_tensors *t;
    const char         *name;
    weft_model         *model;
    weft_model_info     m;
    weft_run           *run;
    weft_sampler       *sampler;
    weft_noise         *noise;
    size_t              n;           /* floats of a latent          */
    plain_shape         text_shape;
    float              *text[2], *pooled[2]; /* with the prompt, without  */
    float              *x, *drawn, *out;
} work;

static bool mode_is(const work *w, const char *mode) { return strcmp(word(w->c, "mode", ""), mode) == 0; }

static void open_model(work *w, const char *name)
{
    must(weft_model_open(data_path("models/%s", name), NULL, &w->model, &golden_err));
    weft_model_info_init(&w->m, sizeof w->m);
    w->run = open_run(w->model, w->c, &w->m, 1);
    w->text_shape = plain_shape_of(w->model);
    bool xl = w->m.base == WEFT_BASE_SDXL;
    w->text[0] = encode(w->run, w->text_shape, word(w->c, "prompt", ""), &w->pooled[0]);
    w->text[1] = encode(w->run, w->text_shape, word(w->c, "negative", xl ? NULL : ""), &w->pooled[1]);
}

static void close_model(work *w)
{
    for (int i = 0; i < 2; i++) free(w->text[i]), free(w->pooled[i]);
    weft_run_free(w->run);
    weft_model_free(w->model);
}

static float *draw(work *w)
{
    float *v = malloc(w->n * sizeof *v);
    must(weft_noise_normal(w->noise, v, w->n, &golden_err));
    return v;
}

static int floats_of(json_t *c, const char *key, float out[6])
{
    json_t *list = json_object_get(c, key);
    for (size_t i = 0; i < json_array_size(list); i++) out[i] = (float)json_number_value(json_array_get(list, i));
    return (int)json_array_size(list);
}

/* A step as far as all cases share it; `scaled` holds the latents as the network takes them. */
static plain_step step_of(const work *w, float *scaled, float ids[2][6])
{
    plain_step s = PLAIN_STEP_INIT;
    s.latent = scaled;
    s.out = w->out;
    s.latent_len = s.out_len = w->n;
    s.text = w->text[0];
    s.negative = w->text[1];
    s.text_len = s.negative_len = 77 * (size_t)w->text_shape.dim;
    s.pooled = w->pooled[0];
    s.negative_pooled = w->pooled[1];
    s.pooled_len = s.negative_pooled_len = (size_t)w->text_shape.pooled;
    s.guidance = (float)real(w->c, "guidance", 1);
    s.guidance_rescale = (float)real(w->c, "guidance_rescale", 0);
    s.time_ids_len = (size_t)floats_of(w->c, "time_ids", ids[0]);
    s.negative_time_ids_len = (size_t)floats_of(w->c, "negative_time_ids", ids[1]);
    s.time_ids = s.time_ids_len > 0 ? ids[0] : NULL;
    s.negative_time_ids = s.negative_time_ids_len > 0 ? ids[1] : NULL;
    if (w->m.guidance_embed) {
        s.guidance_embed = s.guidance;
        s.negative = NULL;
    }
    return s;
}

static void denoise(work *w, int32_t call, const float *extra, size_t extra_len)
{
    float *scaled = malloc(w->n * sizeof *scaled), ids[2][6];
    plain_step s = step_of(w, scaled, ids);
    must(weft_sampler_scale(w->sampler, call, w->x, scaled, w->n, &golden_err));
    s.timestep = weft_sampler_timestep(w->sampler, call);
    s.extra = extra;
    s.extra_len = extra_len;
    must(plain_run_step(w->run, &s, &golden_err));
    must(weft_sampler_step(w->sampler, call, w->out, w->x, w->n, w->noise, &golden_err));
    free(scaled);
}

/* The case's picture in 0..1, with nothing left where the mask is set. */
static float *read_image(const work *w, const golden *mask, size_t *len)
{
    golden g = golden_read(w->t, "%s/image", w->name);
    size_t plane = g.n / 3;
    for (size_t i = 0; i < g.n; i++) g.v[i] = mask != NULL && mask->v[i % plane] > 0 ? 0.5f : g.v[i] / 255;
    *len = g.n;
    return g.v;
}

static float *latents_of(work *w, const golden *mask, const float *noise)
{
    size_t len;
    float *image = read_image(w, mask, &len), *z = malloc(w->n * sizeof *z);
    must(weft_run_encode_image(w->run, image, len, noise, noise != NULL ? w->n : 0, z, w->n, &golden_err));
    free(image);
    return z;
}

/* Noise alone, or the picture with as much noise as `strength` asks for; returns the first call. */
static int32_t begin(work *w, const float *x0)
{
    float strength = (float)real(w->c, "strength", 1);
    int32_t call = 0;
    w->drawn = draw(w);
    must(weft_sampler_start(w->sampler, strength, &call, &golden_err));
    if (x0 == NULL || strength == 1.0f) {
        ck_assert_int_eq(call, 0);
        for (size_t i = 0; i < w->n; i++) w->x[i] = w->drawn[i] * weft_sampler_init_scale(w->sampler);
    } else {
        must(weft_sampler_add_noise(w->sampler, call, x0, w->drawn, w->x, w->n, &golden_err));
    }
    must(weft_sampler_begin(w->sampler, call, w->n, &golden_err));
    return call;
}

static void text_to_image(work *w)
{
    for (int32_t n = begin(w, NULL); n < weft_sampler_calls(w->sampler); n++) denoise(w, n, NULL, 0);
}

static void image_to_image(work *w)
{
    float *draws = draw(w), *x0 = latents_of(w, NULL, draws);
    for (int32_t n = begin(w, x0); n < weft_sampler_calls(w->sampler); n++) denoise(w, n, NULL, 0);
    free(draws), free(x0);
}

/* The mask, 1 where to paint, at each latent pixel's first pixel. */
static float *shrink(const work *w, const golden *mask)
{
    size_t f = (size_t)w->m.image_factor, h = (size_t)mask->shape[0] / f, wide = (size_t)mask->shape[1] / f;
    float *m = malloc(h * wide * sizeof *m);
    for (size_t y = 0; y < h; y++)
        for (size_t x = 0; x < wide; x++) m[y * wide + x] = mask->v[y * f * (size_t)mask->shape[1] + x * f];
    return m;
}

/* A UNet made for it is shown the mask and what the mask leaves of the picture. */
static void inpaint_nine(work *w)
{
    golden mask = golden_read(w->t, "%s/mask", w->name);
    float *m = shrink(w, &mask), *draws = NULL, *x0 = NULL, *extra = malloc(w->n / 4 * 5 * sizeof *extra);
    if (real(w->c, "strength", 1) < 1) {
        draws = draw(w);
        x0 = latents_of(w, NULL, draws);
    }
    int32_t first = begin(w, x0);
    free(draws);
    draws = draw(w);
    float *kept = latents_of(w, &mask, draws);
    memcpy(extra, m, w->n / 4 * sizeof *m);
    memcpy(extra + w->n / 4, kept, w->n * sizeof *kept);
    for (int32_t n = first; n < weft_sampler_calls(w->sampler); n++) denoise(w, n, extra, w->n / 4 * 5);
    free(m), free(draws), free(x0), free(extra), free(kept), free(mask.v);
}

/* Any other UNet: after each step the picture is put back outside the mask, with the noise of the next level. */
static void inpaint_four(work *w)
{
    golden mask = golden_read(w->t, "%s/mask", w->name);
    float *m = shrink(w, &mask), *draws = draw(w), *x0 = latents_of(w, NULL, draws);
    float *back = malloc(w->n * sizeof *back);
    int32_t calls = weft_sampler_calls(w->sampler);
    for (int32_t n = begin(w, x0); n < calls; n++) {
        denoise(w, n, NULL, 0);
        memcpy(back, x0, w->n * sizeof *back);
        if (n + 1 < calls) must(weft_sampler_add_noise(w->sampler, n + 1, x0, w->drawn, back, w->n, &golden_err));
        for (size_t i = 0; i < w->n; i++) {
            float part = m[i % (w->n / 4)];
            w->x[i] = (1 - part) * back[i] + part * w->x[i];
        }
    }
    free(m), free(draws), free(x0), free(back), free(mask.v);
}

/* Three predictions, with picture and prompt, with the picture, with neither; the picture's latents as the VAE has
 * them. */
static void edit(work *w)
{
    float *z = latents_of(w, NULL, NULL), *none = calloc(w->n, sizeof *none), *scaled = malloc(w->n * sizeof *scaled);
    float *predicted[3], ids[2][6], g = (float)real(w->c, "guidance", 1), gi = (float)real(w->c, "image_guidance", 1);
    for (size_t i = 0; i < w->n; i++) z[i] /= w->m.vae_scale;
    for (int k = 0; k < 3; k++) predicted[k] = malloc(w->n * sizeof **predicted);
    for (int32_t n = begin(w, NULL); n < weft_sampler_calls(w->sampler); n++) {
        must(weft_sampler_scale(w->sampler, n, w->x, scaled, w->n, &golden_err));
        for (int k = 0; k < 3; k++) {
            plain_step s = step_of(w, scaled, ids);
            s.text = w->text[k == 0 ? 0 : 1];
            s.negative = NULL;
            s.extra = k < 2 ? z : none;
            s.extra_len = w->n;
            s.out = predicted[k];
            s.timestep = weft_sampler_timestep(w->sampler, n);
            must(plain_run_step(w->run, &s, &golden_err));
        }
        for (size_t i = 0; i < w->n; i++)
            w->out[i] = predicted[2][i] + g * (predicted[0][i] - predicted[1][i]) +
                        gi * (predicted[1][i] - predicted[2][i]);
        must(weft_sampler_step(w->sampler, n, w->out, w->x, w->n, NULL, &golden_err));
    }
    for (int k = 0; k < 3; k++) free(predicted[k]);
    free(z), free(none), free(scaled);
}

/* The base takes the steps above the split, the refiner the others. */
static void base_and_refiner(work *w)
{
    float split = 1000 - 1000 * (float)real(w->c, "split", 1);
    int32_t n = begin(w, NULL), calls = weft_sampler_calls(w->sampler);
    for (; n < calls && weft_sampler_timestep(w->sampler, n) >= split; n++) denoise(w, n, NULL, 0);
    ck_assert(n > 0 && n < calls);
    close_model(w);
    open_model(w, word(w->c, "refiner", ""));
    ck_assert_int_eq(w->m.base, WEFT_BASE_SDXL_REFINER);
    for (; n < calls; n++) denoise(w, n, NULL, 0);
}

static void check_picture(const weft_tensors *t, json_t *c)
{
    static const struct { const char *name; void (*f)(work *); } modes[] = {
        { "text", text_to_image }, { "told", text_to_image }, { "img2img", image_to_image },
        { "inpaint9", inpaint_nine }, { "inpaint4", inpaint_four }, { "edit", edit }, { "refiner", base_and_refiner },
    };
    work w = { .c = c, .t = t, .name = word(c, "name", "") };
    golden want = golden_read(t, "%s/latents", w.name), u8 = golden_read(t, "%s/u8", w.name);
    char what[256];
    int known = 0;
    w.n = want.n;
    w.x = malloc(w.n * sizeof *w.x);
    w.out = malloc(w.n * sizeof *w.out);
    w.sampler = make_sampler(c);
    must(weft_noise_create((uint64_t)real(c, "seed", 0), NULL, &w.noise, &golden_err));
    open_model(&w, word(c, "model", ""));
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (mode_is(&w, modes[i].name)) {
            modes[i].f(&w);
            known++;
        }
    ck_assert_msg(known == 1, "%s: unknown mode", w.name);
    snprintf(what, sizeof what, "%s latents", w.name);
    near_golden(what, w.x, want.v, want.n, 1e-3);
    check_pixels(w.name, w.run, w.x, w.n, &u8);
    close_model(&w);
    weft_sampler_free(w.sampler);
    weft_noise_free(w.noise);
    free(w.x), free(w.out), free(w.drawn), free(want.v), free(u8.v);
}

START_TEST(every_pipeline_draws_diffusers_picture)
{
    json_t *index = golden_json("pipelines.json"), *cases = json_object_get(index, "cases");
    weft_tensors *t = golden_open("pipelines.safetensors");
    int pictures = 0;
    for (size_t i = 0; i < json_array_size(cases); i++) {
        json_t *c = json_array_get(cases, i);
        if (strcmp(word(c, "mode", ""), "layers") == 0) continue;
        check_picture(t, c);
        pictures++;
    }
    ck_assert_int_ge(pictures, 19);
    weft_tensors_free(t);
    json_decref(index);
}
END_TEST

/* ---- single passes: a text for each cross-attention layer, and guidance that is told ---- */

static weft_run *run_for(weft_model *model, const golden *x, int32_t tokens, int32_t batch, int branches)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_plan *plan;
    weft_run *run;
    weft_adapter *a;
    must(weft_plan_create(model, NULL, &plan, &golden_err));
    for (int i = 0; i < branches; i++) {
        const char *file = i == 0 ? "adapters/content.safetensors" : "adapters/style.safetensors";
        must(weft_adapter_open(data_path("%s", file), NULL, &a, &golden_err));
        must(weft_plan_add(plan, a, 0, NULL, &golden_err)); /* at weight 0: the base's bits */
        weft_adapter_free(a);
    }
    if (branches > 0) must(weft_plan_composite(plan, NULL, &golden_err));
    must(weft_plan_seal(plan, 1, &golden_err));
    o.threads = 2;
    o.batch = batch;
    o.height = (int32_t)x->shape[2];
    o.width = (int32_t)x->shape[3];
    o.text_tokens = tokens;
    must(weft_run_create(plan, &o, &run, &golden_err));
    weft_plan_free(plan);
    return run;
}

static void check_pass(const weft_tensors *t, json_t *c)
{
    const char *name = word(c, "name", "");
    golden x = golden_read(t, "%s/sample", name), text = golden_read(t, "%s/text", name);
    golden want = golden_read(t, "%s/out", name), pooled = { 0 }, ids = { 0 };
    weft_model_info m = WEFT_MODEL_INFO_INIT;
    weft_model *model;
    plain_step s = PLAIN_STEP_INIT;
    float *out = malloc(want.n * sizeof *out);
    bool told = json_object_get(c, "guidance_embed") != NULL;
    must(weft_model_open(data_path("models/%s", word(c, "model", "")), NULL, &model, &golden_err));
    must(weft_model_info_get(model, &m, &golden_err));
    if (plain_shape_of(model).pooled > 0) {
        pooled = golden_read(t, "%s/pooled", name);
        ids = golden_read(t, "%s/time_ids", name);
    }
    s.latent = x.v;
    s.latent_len = s.out_len = x.n;
    s.out = out;
    s.text = text.v;
    s.text_len = text.n;
    s.tokens = (int32_t)text.shape[1];
    s.text_layers = told ? 0 : (int32_t)text.shape[0];
    s.pooled = pooled.v;
    s.pooled_len = pooled.n;
    s.time_ids = ids.v;
    s.time_ids_len = ids.n;
    s.timestep = (float)real(c, "timestep", 0);
    s.guidance_embed = (float)real(c, "guidance_embed", 0);
    if (!told) ck_assert_int_eq(plain_shape_of(model).layers, s.text_layers);
    weft_run *run = run_for(model, &x, s.tokens, 1, 0);
    must(plain_run_step(run, &s, &golden_err));
    near_golden(name, out, want.v, want.n, 1e-5);

    s.text_layers = plain_shape_of(model).layers + 1;
    ck_assert_int_eq(plain_run_step(run, &s, &golden_err), WEFT_E_ARG);
    ck_assert_ptr_nonnull(strstr(golden_err.text, "cross-attention layers"));
    s.text_layers = told ? 0 : plain_shape_of(model).layers;
    s.guidance_embed = told ? 0 : 7.5f;
    ck_assert_int_eq(plain_run_step(run, &s, &golden_err), WEFT_E_ARG);
    ck_assert_ptr_nonnull(strstr(golden_err.text, "guidance"));
    weft_run_free(run);
    weft_model_free(model);
    free(x.v), free(text.v), free(want.v), free(pooled.v), free(ids.v), free(out);
}

START_TEST(every_layer_may_have_a_text)
{
    json_t *index = golden_json("pipelines.json"), *cases = json_object_get(index, "cases");
    weft_tensors *t = golden_open("pipelines.safetensors");
    int passes = 0;
    for (size_t i = 0; i < json_array_size(cases); i++) {
        json_t *c = json_array_get(cases, i);
        if (strcmp(word(c, "mode", ""), "layers") != 0) continue;
        check_pass(t, c);
        passes++;
    }
    ck_assert_int_ge(passes, 5);
    weft_tensors_free(t);
    json_decref(index);
}
END_TEST

/* Two latents, two branches, guidance in one evaluation or two: each sample takes its own block of L texts, and the
 * same text in every layer is one text for all, to the bit. */
START_TEST(texts_of_layers_come_for_latents_and_branches)
{
    enum { TOKENS = 3, D = 24, LATENT = 4 * 6 * 5 };
    weft_model_info m = WEFT_MODEL_INFO_INIT;
    weft_model *model;
    golden shape = { .shape = { 1, 4, 6, 5 } };
    must(weft_model_open(data_path("models/tiny-sd1"), NULL, &model, &golden_err));
    must(weft_model_info_get(model, &m, &golden_err));
    size_t one = TOKENS * D, layers = (size_t)plain_shape_of(model).layers, many = layers * one;
    float *plain = malloc(8 * one * sizeof *plain), *each = malloc(8 * many * sizeof *each), x[2 * LATENT];
    float out[3][2 * LATENT];
    weft_noise *noise;
    must(weft_noise_create(3, NULL, &noise, &golden_err));
    must(weft_noise_normal(noise, plain, 8 * one, &golden_err));
    must(weft_noise_normal(noise, x, 2 * LATENT, &golden_err));
    weft_noise_free(noise);
    for (size_t i = 0; i < 8 * layers; i++) memcpy(each + i * one, plain + i / layers * one, one * sizeof *each);
    weft_run *run = run_for(model, &shape, TOKENS, 2, 2);
    for (int blocks = 1; blocks <= 4; blocks *= 2) { /* for all; each branch; each branch and latent */
        plain_step s = PLAIN_STEP_INIT;
        s.latent = x;
        s.latent_len = s.out_len = 2 * LATENT;
        s.tokens = TOKENS;
        s.guidance = 3;
        s.timestep = 400;
        s.flags = blocks > 1 ? WEFT_STEP_TEXT_PER_BRANCH : 0;
        s.text = plain;
        s.negative = plain + 4 * one;
        s.text_len = s.negative_len = (size_t)blocks * one;
        s.out = out[0];
        must(plain_run_step(run, &s, &golden_err));
        s.text = each;
        s.negative = each + 4 * many;
        s.text_len = s.negative_len = (size_t)blocks * many;
        s.text_layers = plain_shape_of(model).layers;
        s.out = out[1];
        must(plain_run_step(run, &s, &golden_err));
        s.flags |= WEFT_STEP_SPLIT_GUIDANCE;
        s.out = out[2];
        must(plain_run_step(run, &s, &golden_err));
        ck_assert(memcmp(out[0], out[1], sizeof out[0]) == 0 && memcmp(out[0], out[2], sizeof out[0]) == 0);
        s.text_len--;
        ck_assert_int_eq(plain_run_step(run, &s, &golden_err), WEFT_E_ARG);
    }
    weft_run_free(run);
    weft_model_free(model);
    free(plain), free(each);
}
END_TEST

/* What a UNet reads beside the latents is asked for, and refused where it reads nothing. */
START_TEST(further_channels_are_checked)
{
    static const struct { const char *model; size_t others; } all[] = {
        { "tiny-inpaint", 5 }, { "tiny-edit", 4 }, { "tiny-sd1", 0 },
    };
    golden shape = { .shape = { 1, 4, 4, 4 } };
    for (size_t i = 0; i < 3; i++) {
        weft_model_info m = WEFT_MODEL_INFO_INIT;
        weft_model *model;
        plain_step s = PLAIN_STEP_INIT;
        float x[64] = { 1 }, out[2][64], extra[80] = { 0 };
        must(weft_model_open(data_path("models/%s", all[i].model), NULL, &model, &golden_err));
        must(weft_model_info_get(model, &m, &golden_err));
        ck_assert_int_eq(m.input_channels, 4 + (int)all[i].others);
        float *text = calloc(77 * (size_t)plain_shape_of(model).dim, sizeof *text);
        weft_run *run = run_for(model, &shape, 77, 1, 0);
        s.latent = x;
        s.latent_len = s.out_len = 64;
        s.out = out[0];
        s.text = text;
        s.text_len = 77 * (size_t)plain_shape_of(model).dim;
        s.timestep = 100;
        ck_assert_int_eq(plain_run_step(run, &s, &golden_err), all[i].others > 0 ? WEFT_E_ARG : WEFT_OK);
        if (all[i].others > 0) ck_assert_ptr_nonnull(strstr(golden_err.text, "step.extra is NULL"));
        s.extra = extra;
        s.extra_len = 16 * all[i].others + 1;
        ck_assert_int_eq(plain_run_step(run, &s, &golden_err), WEFT_E_ARG);
        ck_assert_ptr_nonnull(strstr(golden_err.text, all[i].others > 0 ? "step.extra has" : "step.extra is given"));
        s.extra_len--;
        if (all[i].others > 0) { /* and it is read */
            must(plain_run_step(run, &s, &golden_err));
            for (size_t k = 0; k < s.extra_len; k++) extra[k] = 1;
            s.out = out[1];
            must(plain_run_step(run, &s, &golden_err));
            ck_assert(memcmp(out[0], out[1], sizeof out[0]) != 0);
        }
        free(text);
        weft_run_free(run);
        weft_model_free(model);
    }
}
END_TEST

/* Two samples at once, each with channels of its own after its latents, are each alone, bit for bit. */
START_TEST(further_channels_are_of_each_sample)
{
    enum { X = 4 * 16, EXTRA = 5 * 16 };
    golden shape = { .shape = { 2, 4, 4, 4 } };
    plain_step s = PLAIN_STEP_INIT;
    float x[2 * X], extra[2 * EXTRA], both[2 * X], one[X];
    weft_model *model;
    must(weft_model_open(data_path("models/tiny-inpaint"), NULL, &model, &golden_err));
    for (int i = 0; i < 2 * X; i++) x[i] = (float)(i % 7) / 7 - 0.5f;
    for (int i = 0; i < 2 * EXTRA; i++) extra[i] = (float)(i % 11) / 11 - 0.5f;
    float *text = calloc(77 * (size_t)plain_shape_of(model).dim, sizeof *text);
    s.text = text;
    s.text_len = 77 * (size_t)plain_shape_of(model).dim;
    s.timestep = 100;
    for (int i = -1; i < 2; i++) {
        bool all = i < 0;
        weft_run *run = run_for(model, &shape, 77, all ? 2 : 1, 0);
        s.latent = x + (all ? 0 : i * X);
        s.extra = extra + (all ? 0 : i * EXTRA);
        s.out = all ? both : one;
        s.latent_len = s.out_len = all ? 2 * X : X;
        s.extra_len = all ? 2 * EXTRA : EXTRA;
        must(plain_run_step(run, &s, &golden_err));
        if (!all) ck_assert_mem_eq(one, both + i * X, sizeof one);
        weft_run_free(run);
    }
    free(text);
    weft_model_free(model);
}
END_TEST

/* Nothing given is the run's own size, and a refiner's scores of 6 and 2.5; the unconditional side follows. */
START_TEST(time_ids_have_defaults)
{
    golden shape = { .shape = { 1, 4, 4, 6 } };
    for (int refiner = 0; refiner < 2; refiner++) {
        weft_model_info m = WEFT_MODEL_INFO_INIT;
        weft_model *model;
        plain_step s = PLAIN_STEP_INIT;
        float x[96] = { 1, -1 }, out[6][96], pooled[64] = { 0.5f };
        const char *name = refiner ? "tiny-refiner" : "tiny-sdxl";
        must(weft_model_open(data_path("models/%s", name), NULL, &model, &golden_err));
        must(weft_model_info_get(model, &m, &golden_err));
        ck_assert_int_eq(m.time_ids, refiner ? 5 : 6);
        float h = 4 * (float)m.image_factor, w = 6 * (float)m.image_factor;
        float *text = calloc(2 * (size_t)plain_shape_of(model).dim, sizeof *text);
        float ids[] = { h, w, 0, 0, refiner ? 6 : h, w }, negative[] = { h, w, 0, 0, refiner ? 2.5f : h, w };
        float other[] = { h + 8, w, 1, 2, refiner ? 9 : h, w }, follows[] = { h + 8, w, 1, 2, refiner ? 2.5f : h, w };
        const float *given[6][2] = {
            { NULL, NULL }, { ids, NULL }, { ids, negative }, { other, NULL }, { other, follows }, { NULL, other },
        };
        weft_run *run = run_for(model, &shape, 2, 1, 0);
        s.latent = x;
        s.latent_len = s.out_len = 96;
        s.text = s.negative = text;
        s.tokens = 2;
        s.text_len = s.negative_len = 2 * (size_t)plain_shape_of(model).dim;
        s.pooled = s.negative_pooled = pooled;
        s.pooled_len = s.negative_pooled_len = (size_t)plain_shape_of(model).pooled;
        s.timestep = 300;
        s.guidance = 2;
        s.time_ids_len = s.negative_time_ids_len = (size_t)m.time_ids;
        for (int i = 0; i < 6; i++) {
            s.time_ids = given[i][0];
            s.negative_time_ids = given[i][1];
            s.flags = i % 2 == 0 ? WEFT_STEP_SPLIT_GUIDANCE : 0; /* the same bits */
            s.out = out[i];
            must(plain_run_step(run, &s, &golden_err));
        }
        ck_assert(memcmp(out[0], out[1], sizeof *out) == 0 && memcmp(out[0], out[2], sizeof *out) == 0);
        ck_assert(memcmp(out[3], out[4], sizeof *out) == 0 && memcmp(out[0], out[3], sizeof *out) != 0);
        ck_assert(memcmp(out[0], out[5], sizeof *out) != 0 && memcmp(out[3], out[5], sizeof *out) != 0);
        s.negative_time_ids_len++;
        ck_assert_int_eq(plain_run_step(run, &s, &golden_err), WEFT_E_ARG);
        ck_assert_ptr_nonnull(strstr(golden_err.text, "step.negative_time_ids has"));
        s.time_ids = ids;
        s.time_ids_len = 4;
        ck_assert_int_eq(plain_run_step(run, &s, &golden_err), WEFT_E_ARG);
        ck_assert_ptr_nonnull(strstr(golden_err.text, "step.time_ids has 4 floats, wanted"));
        free(text);
        weft_run_free(run);
        weft_model_free(model);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("pipelines against goldens");
    TCase *c = tcase_create("goldens");
    tcase_set_timeout(c, 600);
    tcase_add_test(c, every_pipeline_draws_diffusers_picture);
    tcase_add_test(c, every_layer_may_have_a_text);
    tcase_add_test(c, texts_of_layers_come_for_latents_and_branches);
    tcase_add_test(c, further_channels_are_checked);
    tcase_add_test(c, further_channels_are_of_each_sample);
    tcase_add_test(c, time_ids_have_defaults);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
