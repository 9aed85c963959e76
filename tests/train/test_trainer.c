/* The trainer: options, what a step is made of, and that nothing but seeds and pictures has a part in it.
 *
 * Steps are torch's (make_train_steps.py), and have the same bits for any number of threads, with blocks that run
 * twice, and with a break. What goes wrong leaves everything as it was. */
#include "base/support.h"
#include "golden.h"
#include "train/dataset.h"
#include "train/trainer_internal.h"

enum { H = 10, W = 6 }; /* of latents */

/* ---- a school -------------------------------------------------------------------------------- */

static weft_model *open_model(const char *name)
{
    weft_model *m;
    must(weft_model_open(data_path("models/%s", name), NULL, &m, &golden_err));
    return m;
}

static int32_t factor_of(const weft_model *m) { return wf_vae_factor(wf_model_networks(m)->vae); }

/* Small pictures, two instances and two of the class, unless `o` says larger. */
static weft_train_options usual(const weft_model *m)
{
    weft_train_options o = WEFT_TRAIN_OPTIONS_INIT;
    o.recipe = WEFT_RECIPE_LORA;
    o.width = W * factor_of(m);
    o.height = H * factor_of(m);
    o.threads = 1;
    o.rate = 0.01;
    o.seed = 7;
    return o;
}

static void add(weft_trainer *t, int32_t kind, const char *caption, unsigned look)
{
    size_t w = (size_t)t->o.width, h = (size_t)t->o.height;
    uint8_t *rgb = malloc(3 * w * h);
    for (size_t i = 0; i < 3 * w * h; i++) rgb[i] = (uint8_t)((i * (look + 3) + i / w * look) % 251);
    must(weft_trainer_add_picture(t, rgb, 3 * w * h, (int32_t)w, (int32_t)h, caption, kind, &golden_err));
    free(rgb);
}

static weft_trainer *bare(weft_model *m, const weft_train_options *o)
{
    weft_trainer *t;
    must(weft_trainer_create(m, o, &t, &golden_err));
    return t;
}

static void add_all(weft_trainer *t)
{
    add(t, WEFT_PICTURE_INSTANCE, "a photo of a zib cat", 1);
    add(t, WEFT_PICTURE_INSTANCE, "a zib cat in the snow", 2);
    add(t, WEFT_PICTURE_CLASS, "a cat", 3);
    add(t, WEFT_PICTURE_CLASS, "a photo of a cat", 4);
}

static weft_trainer *begin(weft_model *m, const weft_train_options *o)
{
    weft_trainer *t = bare(m, o);
    add_all(t);
    return t;
}

static weft_train_step step(weft_trainer *t)
{
    weft_train_step s = WEFT_TRAIN_STEP_INIT;
    must(weft_trainer_step(t, &s, &golden_err));
    ck_assert_int_eq(s.step, t->step);
    return s;
}

static float *copy(const weft_trainer *t)
{
    float *v = malloc(t->floats * sizeof *v);
    memcpy(v, t->values, t->floats * sizeof *v);
    return v;
}

static void check_same(const weft_trainer *t, const float *v, const char *what)
{
    for (size_t i = 0; i < t->floats; i++)
        ck_assert_msg(memcmp(&t->values[i], &v[i], sizeof *v) == 0, "%s: value %zu is %g, was %g", what, i,
                      (double)t->values[i], (double)v[i]);
}

static float *run(weft_model *m, const weft_train_options *o, int steps)
{
    weft_trainer *t = begin(m, o);
    for (int i = 0; i < steps; i++) step(t);
    float *v = copy(t);
    weft_trainer_free(t);
    return v;
}

/* All that draws at random. */
static weft_train_options everything(const weft_model *m)
{
    weft_train_options o = usual(m);
    o.flags = WEFT_TRAIN_TEXT | WEFT_TRAIN_CONV | WEFT_TRAIN_FEED | WEFT_TRAIN_FLIP;
    o.batch = 2;
    o.accumulate = 2;
    o.noise_offset = 0.1;
    o.min_snr = 5;
    o.dropout = 0.3;
    o.prior_weight = 0.5;
    o.rates = WEFT_RATES_LINEAR;
    o.warmup = 1;
    o.steps = 10;
    return o;
}

/* ---- options --------------------------------------------------------------------------------- */

static void refuse(weft_model *m, const weft_train_options *o, weft_status want, const char *text)
{
    weft_trainer *t = (weft_trainer *)(uintptr_t)1;
    weft_error    err = { 0 };
    weft_status   st = weft_trainer_create(m, o, &t, &err);
    ck_assert_msg(st == want, "%s, wanted %s: %s", weft_status_name(st), weft_status_name(want), err.text);
    ck_assert_ptr_null(t);
    check_one_line(&err);
    ck_assert_msg(strstr(err.text, text) != NULL, "\"%s\" does not say \"%s\"", err.text, text);
}

START_TEST(options_are_refused_plainly)
{
    weft_model *m = open_model("tiny-sd1");
    weft_train_options o;

#define REFUSE(field, value, text) \
    do { o = usual(m); o.field = value; refuse(m, &o, WEFT_E_ARG, text); } while (0)
    REFUSE(recipe, 0, "recipe is 0");
    REFUSE(recipe, 99, "recipe is 99");
    REFUSE(rate, -1, "rate is -1, wanted 0 to 1000");
    REFUSE(rate, NAN, "rate is");
    REFUSE(beta1, 1, "beta1 is 1, wanted 0 to below 1, or below 0 for none");
    REFUSE(dropout, 1.5, "dropout is 1.5, wanted 0 to 1");
    REFUSE(batch, -1, "batch is -1, wanted 1 to 512");
    REFUSE(accumulate, 70000, "accumulate is 70000");
    REFUSE(rank, -4, "rank is -4");
    REFUSE(optimiser, 7, "optimiser is 7");
    REFUSE(rates, 9, "rates is 9");
    REFUSE(threads, -1, "threads is -1");
    REFUSE(width, 7, "width is 7, wanted a multiple of");
    REFUSE(height, -8, "height is -8, wanted a multiple of");
    REFUSE(tokens, "<new1>", "tokens is given, which lora does not take");
    REFUSE(vectors, 2, "vectors is set, which lora does not take");
    REFUSE(ema, 0.9, "ema is set, which lora does not take");
    REFUSE(flags, WEFT_TRAIN_ZIP_CODE, "WEFT_TRAIN_ZIP_CODE is set, which lora does not take");
    REFUSE(modules, "*.to_q,*.nowhere", "no layer that lora can train is named by \"*.nowhere\"");
    REFUSE(modules, "*.to_q,", "no layer that lora can train is named by \"\"");
    REFUSE(modules, "*.nowhere", "no layer that lora can train is named by \"*.nowhere\"");
    REFUSE(text_rate, 0.1, "no layer of the text encoders is trained: set WEFT_TRAIN_TEXT");
    o = usual(m), o.modules = "*.to_q", o.flags = WEFT_TRAIN_FEED;
    refuse(m, &o, WEFT_E_ARG, "which names all layers: WEFT_TRAIN_FEED adds none");
    o = usual(m), o.optimiser = WEFT_OPTIMISER_SGD, o.beta2 = 0.9;
    refuse(m, &o, WEFT_E_ARG, "beta2 is set, which sgd does not take");
    o = usual(m), o.optimiser = WEFT_OPTIMISER_SGD, o.epsilon = 1e-6;
    refuse(m, &o, WEFT_E_ARG, "epsilon is set, which sgd does not take");
#undef REFUSE
    /* what would have no effect */
    o = usual(m), o.modules = "unet.*.to_q", o.text_rate = 0.1;
    refuse(m, &o, WEFT_E_ARG, "no layer of the text encoders is trained: modules names none");
    o = usual(m);
    o.flags = 1u << 31;
    refuse(m, &o, WEFT_E_UNSUPPORTED, "flags");
    ck_assert_int_eq(weft_trainer_create(m, NULL, &(weft_trainer *){ NULL }, NULL), WEFT_E_ARG);
    ck_assert_int_eq(weft_trainer_create(NULL, &o, &(weft_trainer *){ NULL }, NULL), WEFT_E_ARG);
    ck_assert_int_eq(weft_trainer_create(m, &o, NULL, NULL), WEFT_E_ARG);
    weft_model_free(m);
    const char *others[] = { "tiny-inpaint", "tiny-edit", "tiny-refiner" };
    for (size_t i = 0; i < WF_LEN(others); i++) {
        m = open_model(others[i]);
        o = usual(m);
        refuse(m, &o, WEFT_E_UNSUPPORTED, "cannot train this");
        weft_model_free(m);
    }
}
END_TEST

START_TEST(defaults_are_told_and_mean_the_same_again)
{
    weft_model *m = open_model("tiny-sd1");
    weft_train_options o = usual(m), again = WEFT_TRAIN_OPTIONS_INIT;
    weft_trainer_info info = WEFT_TRAINER_INFO_INIT;
    o.clip = -1;
    o.weight_decay = -1;
    weft_trainer *t = begin(m, &o), *u;

    must(weft_trainer_get_options(t, &again, &golden_err));
    ck_assert_int_eq(again.rank, 4);
    ck_assert_double_eq(again.alpha, 4);
    ck_assert_double_eq(again.beta1, 0.9);
    ck_assert_double_eq(again.beta2, 0.999);
    ck_assert_double_eq(again.clip, -1);
    ck_assert_int_eq(again.optimiser, WEFT_OPTIMISER_ADAMW);
    step(t);
    must(weft_trainer_get_info(t, &info, &golden_err));
    ck_assert_int_eq(info.step, 1);
    ck_assert_int_eq(info.pictures, 2);
    ck_assert_int_eq(info.class_pictures, 2);
    ck_assert_int_gt(info.layers, 0);
    int64_t numbers = 0;
    for (size_t i = 0; i < t->sites; i++)
        numbers += (int64_t)t->site[i].rank * (int64_t)(t->site[i].K + t->site[i].out);
    ck_assert_int_eq(info.parameters, numbers);
    ck_assert_uint_gt(info.step_bytes, 0);
    ck_assert_uint_gt(info.weight_bytes, 0);
    ck_assert_uint_gt(info.cache_bytes, 0);
    ck_assert_uint_ge(info.state_bytes, 4 * 4 * (uint64_t)numbers);
    u = begin(m, &again);
    step(u);
    check_same(u, t->values, "options given again");
    weft_trainer_free(u);
    weft_trainer_free(t);
    weft_model_free(m);
}
END_TEST

START_TEST(recipes_have_names)
{
    ck_assert_int_eq(weft_recipe_from_name("lora"), WEFT_RECIPE_LORA);
    ck_assert_str_eq(weft_recipe_name(WEFT_RECIPE_LORA), "lora");
    ck_assert_int_eq(weft_recipe_from_name("LoRA!"), 0);
    ck_assert_int_eq(weft_recipe_from_name(NULL), 0);
    ck_assert_ptr_null(weft_recipe_name(0));
}
END_TEST

START_TEST(pictures_are_needed_and_come_first)
{
    weft_model *m = open_model("tiny-sd1");
    weft_train_options o = usual(m);
    weft_trainer *t = bare(m, &o);
    weft_train_step s = WEFT_TRAIN_STEP_INIT;
    weft_error err = { 0 };
    uint8_t rgb[12] = { 0 };

    ck_assert_int_eq(weft_trainer_step(t, &s, &err), WEFT_E_STATE);
    ck_assert_ptr_nonnull(strstr(err.text, "no pictures"));
    ck_assert_int_eq(weft_trainer_add_picture(t, rgb, 12, 2, 2, "a", WEFT_PICTURE_INSTANCE, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_trainer_add_picture(t, rgb, 12, 2, 2, "a", 3, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_trainer_add_picture(t, NULL, 12, 2, 2, "a", 1, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_trainer_add_folder(t, data_path("golden/none"), NULL, 1, &err), WEFT_E_IO);
    add(t, WEFT_PICTURE_INSTANCE, "a cat", 1);
    step(t);
    ck_assert_int_eq(weft_trainer_add_folder(t, data_path("golden"), NULL, 1, &err), WEFT_E_STATE);
    weft_trainer_free(t);
    weft_trainer_free(NULL);
    weft_model_free(m);
}
END_TEST

/* ---- rates, weights, draws ------------------------------------------------------------------- */

START_TEST(rates_rise_and_fall)
{
    weft_train_options o = { .rates = WEFT_RATES_CONSTANT, .steps = 10, .warmup = 4 };
    ck_assert_double_eq(wf_train_rate(&o, 0), 0);
    ck_assert_double_eq(wf_train_rate(&o, 1), 0.25);
    ck_assert_double_eq(wf_train_rate(&o, 4), 1);
    ck_assert_double_eq(wf_train_rate(&o, 400), 1);
    o.rates = WEFT_RATES_LINEAR;
    ck_assert_double_eq(wf_train_rate(&o, 7), 0.5);
    ck_assert_double_eq(wf_train_rate(&o, 40), 0);
    o.rates = WEFT_RATES_COSINE;
    ck_assert_double_eq_tol(wf_train_rate(&o, 7), 0.5, 1e-12);
    ck_assert_double_eq_tol(wf_train_rate(&o, 6), 0.75, 1e-12);
    ck_assert_double_eq_tol(wf_train_rate(&o, 40), 0, 1e-12);
    o.warmup = -1;
    ck_assert_double_eq(wf_train_rate(&o, 0), 1);
}
END_TEST

/* x = sqrt(A) x0 + sqrt(1 - A) e with torch's noise of the sample's seed, e or v as target. */
static void check_batch(const char *name, double gamma)
{
    weft_model *m = open_model(name);
    weft_train_options o = usual(m);
    weft_sampler_options so = WEFT_SAMPLER_OPTIONS_INIT;
    o.batch = 3;
    o.min_snr = gamma;
    weft_trainer *t = begin(m, &o);
    must(weft_trainer_prepare(t, &golden_err));
    must(weft_sampler_options_from_model(m, &so, &golden_err));
    bool v = so.prediction == WEFT_PREDICT_V;
    ck_assert_int_eq(t->batch.n, 6);
    ck_assert_int_eq(t->batch.instances, 3);
    size_t n = t->image;
    float *x0 = malloc(n * sizeof *x0), *e = malloc(n * sizeof *e);
    bool times[2] = { false, false };
    for (int64_t k = 0; k < 4; k++) {
        must(wf_train_fill_batch(t, k, &golden_err));
        for (int32_t s = 0; s < 6; s++) {
            wf_sample sample;
            weft_noise *g;
            wf_data_list list = s < 3 ? WF_DATA_INSTANCE : WF_DATA_CLASS;
            must(wf_dataset_draw(t->data, list, 7, (uint64_t)k * 3 + (uint64_t)(s % 3), &sample, &golden_err));
            must(wf_dataset_latent(t->data, &sample, NULL, x0, &golden_err));
            must(weft_noise_create(sample.spare_seed, NULL, &g, &golden_err));
            must(weft_noise_normal(g, e, n, &golden_err));
            weft_noise_free(g);
            int32_t time = (int32_t)t->batch.timestep[s];
            ck_assert(time >= 0 && time < t->train_steps);
            times[time >= t->train_steps / 2] = true;
            double A = t->alpha[time], snr = A / (1 - A), want = 1;
            for (size_t i = 0; i < n; i++) {
                double x = sqrt(A) * (double)x0[i] + sqrt(1 - A) * (double)e[i];
                double y = v ? sqrt(A) * (double)e[i] - sqrt(1 - A) * (double)x0[i] : (double)e[i];
                ck_assert_double_eq_tol(t->batch.latent[(size_t)s * n + i], x, 1e-5);
                ck_assert_double_eq_tol(t->batch.target[(size_t)s * n + i], y, 1e-5);
            }
            if (gamma > 0 && s < 3) want = (snr < gamma ? snr : gamma) / (v ? snr + 1 : snr);
            ck_assert_double_eq_tol(t->batch.weight[s], want, 1e-9);
            ck_assert_str_eq(t->batch.caption[s]->text, wf_dataset_caption(t->data, list, sample.picture));
            if (wf_facts(t->networks)->time_ids == 0) continue;
            const float *ids = t->batch.time_ids + 6 * s; /* of the file, the cut, the training: height first */
            const int32_t want_ids[6] = { sample.original_h, sample.original_w, sample.top, sample.left, o.height, o.width };
            for (int i = 0; i < 6; i++) ck_assert_float_eq(ids[i], (float)want_ids[i]);
        }
    }
    ck_assert(times[0] && times[1]);
    free(x0);
    free(e);
    weft_trainer_free(t);
    weft_model_free(m);
}

START_TEST(a_batch_is_pictures_with_noise)
{
    check_batch("tiny-sd1", 0);
    check_batch("tiny-sd1", 5);
    check_batch("tiny-sd2", 5);
    check_batch("tiny-sdxl", 0);
}
END_TEST

/* A network that says the image itself is weighted by min(SNR, gamma) alone. */
START_TEST(an_image_predicted_is_weighted_by_the_signal)
{
    weft_model *m = open_model("tiny-sd1");
    weft_train_options o = usual(m);
    o.min_snr = 5;
    o.batch = 2;
    weft_trainer *t = begin(m, &o);
    must(weft_trainer_prepare(t, &golden_err));
    t->prediction = WEFT_PREDICT_SAMPLE;
    for (int64_t k = 0; k < 8; k++) {
        must(wf_train_fill_batch(t, k, &golden_err));
        for (int32_t s = 0; s < 2; s++) {
            double A = t->alpha[(int32_t)t->batch.timestep[s]], snr = A / (1 - A);
            ck_assert_double_eq_tol(t->batch.weight[s], snr < 5 ? snr : 5, 1e-9);
        }
    }
    weft_trainer_free(t);
    weft_model_free(m);
}
END_TEST

START_TEST(captions_are_left_out_and_noise_has_an_offset)
{
    weft_model *m = open_model("tiny-sd1");
    weft_train_options o = usual(m);
    weft_trainer *t = begin(m, &o), *u;
    int empty = 0, kept = 0;

    o.dropout = 0.5;
    o.noise_offset = 0.25;
    u = begin(m, &o);
    must(weft_trainer_prepare(t, &golden_err));
    must(weft_trainer_prepare(u, &golden_err));
    size_t plane = H * W;
    for (int64_t k = 0; k < 40; k++) {
        must(wf_train_fill_batch(t, k, &golden_err));
        must(wf_train_fill_batch(u, k, &golden_err));
        bool none = u->batch.caption[0]->text[0] == '\0';
        empty += none;
        kept += !none;
        ck_assert_str_ne(u->batch.caption[1]->text, ""); /* a class picture's stays */
        for (size_t i = 0; i < u->image; i++) { /* one number for each channel */
            float off = u->batch.target[i] - t->batch.target[i];
            float first = u->batch.target[i / plane * plane] - t->batch.target[i / plane * plane];
            ck_assert_float_eq_tol(off, first, 1e-5f);
            ck_assert(off != 0);
        }
    }
    ck_assert(empty > 8 && kept > 8);
    weft_trainer_free(t);
    weft_trainer_free(u);
    weft_model_free(m);
}
END_TEST

START_TEST(a_mask_leaves_out_pixels)
{
    /* two channels of 2 pixels, the second masked: ((1 - 0)^2 + (5 - 2)^2) / 2 = 5 */
    weft_trainer t = { .height = 1, .width = 2, .image = 4 };
    float out[] = { 1, 9, 5, 9 }, target[] = { 0, 0, 2, 0 }, mask[] = { 1, 0 }, grad[4];
    wf_batch b = { .mask = mask };
    ck_assert_double_eq(wf_loss_square(&t, &b, 0, out, target, 3, grad), 5);
    ck_assert_float_eq(grad[0], 3.0f); /* 3 * 2 * 1 / 2 */
    ck_assert_float_eq(grad[1], 0.0f);
    ck_assert_float_eq(grad[2], 9.0f);
    b.mask = NULL; /* (1 + 81 + 9 + 81) / 4 */
    ck_assert_double_eq(wf_loss_square(&t, &b, 0, out, target, 1, grad), 43);
    ck_assert_float_eq(grad[1], 4.5f);
    mask[0] = 0;
    b.mask = mask;
    ck_assert_double_eq(wf_loss_square(&t, &b, 0, out, target, 1, grad), 0);
}
END_TEST

/* ---- steps against torch --------------------------------------------------------------------- */

/* size sin(1 + 0.61803398875 i + k) with k by the name, as make_train.py has it */
static void wave(float *v, const char *name, size_t n, double size)
{
    unsigned k = 0;
    for (const char *s = name; *s != '\0'; s++) k += (unsigned char)*s;
    for (size_t i = 0; i < n; i++) v[i] = (float)(size * sin(1 + 0.61803398875 * (double)i + k % 97));
}

static void noise(float *v, uint64_t seed, size_t n)
{
    weft_noise *g;
    must(weft_noise_create(seed, NULL, &g, &golden_err));
    must(weft_noise_normal(g, v, n, &golden_err));
    weft_noise_free(g);
}

/* A step on given numbers, as take_step() takes one on drawn ones. */
static void given_step(weft_trainer *t, uint64_t k, double *loss, double *norm)
{
    static const float times[3][2] = { { 741, 37 }, { 5, 990 }, { 300, 610 } };
    static const float ids[2][6] = { { 32, 24, 0, 0, 32, 24 }, { 64, 48, 8, 4, 32, 32 } };
    wf_losses l = { 0 };

    wf_train_begin_call(t, "step", 0);
    memset(t->grads, 0, t->floats * sizeof *t->grads);
    wf_train_make(t);
    noise(t->batch.latent, 810 + k, 2 * t->image);
    noise(t->batch.target, 820 + k, 2 * t->image);
    memcpy(t->batch.timestep, times[k], sizeof times[k]);
    t->batch.weight[0] = 0.4;
    if (wf_facts(t->networks)->time_ids == 6) memcpy(t->batch.time_ids, ids, sizeof ids);
    must(wf_train_caption(t, "a photo of a zib cat", &t->batch.caption[0], &golden_err));
    must(wf_train_caption(t, "a cat", &t->batch.caption[1], &golden_err));
    must(wf_trainer_evaluate(t, &t->batch, &l, &golden_err));
    wf_train_pull(t);
    *loss = l.loss;
    *norm = wf_train_norm(t);
    wf_train_update(t, *norm);
    t->step++;
    must(wf_train_end_call(t, WEFT_OK, &golden_err));
}

static void check_digest(const weft_tensors *want, const char *name, const float *v, const float *first, size_t n)
{
    golden g = golden_read(want, "%s", name);
    size_t entries = n < 12 ? n : 12;
    double square = 0, top = 0, sine = 0;
    for (size_t i = 0; i < n; i++) {
        square += (double)v[i] * (double)v[i];
        sine += (double)v[i] * sin(0.7 * (double)i + 0.3);
        top = fmax(top, fabs((double)v[i] - (double)first[i]));
    }
    /* against the way that the values have gone */
    for (size_t k = 0; k < entries; k++)
        ck_assert_msg(fabs((double)v[k * n / entries] - (double)g.v[k]) < 2e-3 * top, "%s: entry %zu is %.9g, torch %.9g, moved %g",
                      name, k, (double)v[k * n / entries], (double)g.v[k], top);
    ck_assert_double_eq_tol(sqrt(square), g.v[entries], 1e-4 * g.v[entries]);
    ck_assert_double_eq_tol(sine, g.v[entries + 1], 1e-4 * g.v[entries] * sqrt((double)n) + 1e-6);
    free(g.v);
}

START_TEST(steps_are_torchs)
{
    static const char *const models[] = { "tiny-sd1", "tiny-sd2", "tiny-sdxl" };
    const char *name = models[_i];
    char file[64], key[512];
    weft_model *m = open_model(name);
    weft_train_options o = usual(m);
    o.flags = WEFT_TRAIN_TEXT;
    o.rank = 3;
    o.alpha = 1.5;
    o.rate = 0.02;
    o.text_rate = 0.005;
    o.beta2 = 0.99;
    o.weight_decay = 0.03;
    o.clip = 0.05;
    o.prior_weight = 0.7;
    o.rates = WEFT_RATES_COSINE;
    o.warmup = 1;
    o.steps = 5;
    weft_trainer *t = begin(m, &o);
    snprintf(file, sizeof file, "train_steps_%s.safetensors", name);
    weft_tensors *want = golden_open(file);
    golden loss = golden_read(want, "loss"), norm = golden_read(want, "norm");
    must(weft_trainer_prepare(t, &golden_err));
    size_t seen = 0;
    for (size_t i = 0; i < t->sites; i++)
        for (int32_t k = 0; k < 2; k++) {
            wf_site *s = &t->site[i];
            snprintf(key, sizeof key, "%s/%s", s->layer->name, s->tensor[k].name);
            wave(s->value[k], key, s->tensor[k].rows * s->tensor[k].columns, k == 0 ? 1 / sqrt((double)s->K) : 0.1);
            seen++;
        }
    ck_assert_uint_eq(seen + 2, weft_tensors_count(want)); /* the same layers */
    float *first = copy(t);
    for (uint64_t k = 0; k < 3; k++) {
        double l, n;
        given_step(t, k, &l, &n);
        ck_assert_msg(fabs(l - (double)loss.v[k]) < 2e-5 * l, "step %d: loss %.9g, torch's %.9g", (int)k, l, (double)loss.v[k]);
        ck_assert_msg(fabs(n - (double)norm.v[k]) < 1e-4 * n, "step %d: norm %.9g, torch's %.9g", (int)k, n, (double)norm.v[k]);
    }
    for (size_t i = 0; i < t->sites; i++)
        for (int32_t k = 0; k < 2; k++) {
            const wf_site *s = &t->site[i];
            snprintf(key, sizeof key, "%s/%s", s->layer->name, s->tensor[k].name);
            check_digest(want, key, s->value[k], first + (s->value[k] - t->values), s->tensor[k].rows * s->tensor[k].columns);
        }
    free(first);
    free(loss.v);
    free(norm.v);
    weft_tensors_free(want);
    weft_trainer_free(t);
    weft_model_free(m);
}
END_TEST

/* ---- the same bits --------------------------------------------------------------------------- */

START_TEST(threads_and_recomputing_change_no_bit)
{
    static const char *const models[] = { "tiny-sd1", "tiny-sdxl" };
    weft_model *m = open_model(models[_i]);
    weft_train_options o = everything(m);
    float *want = run(m, &o, 3);

    for (int k = 0; k < 3; k++) {
        o.threads = k < 2 ? 2 + k : 1;
        o.flags = k < 2 ? o.flags : o.flags | WEFT_TRAIN_RECOMPUTE;
        weft_trainer *t = begin(m, &o);
        for (int i = 0; i < 3; i++) step(t);
        check_same(t, want, k < 2 ? "threads" : "recomputing");
        weft_trainer_free(t);
    }
    free(want);
    weft_model_free(m);
}
END_TEST

START_TEST(accumulating_is_a_larger_batch)
{
    weft_model *m = open_model("tiny-sd1");
    weft_train_options o = usual(m);
    o.optimiser = WEFT_OPTIMISER_SGD;
    o.batch = 4;
    weft_trainer *t = begin(m, &o);
    weft_train_step a = step(t), b;
    o.batch = 2;
    o.accumulate = 2;
    weft_trainer *u = begin(m, &o);
    b = step(u);
    ck_assert_double_eq_tol(a.loss, b.loss, 1e-6 * a.loss);
    ck_assert_double_eq_tol(a.prior_loss, b.prior_loss, 1e-6 * a.loss);
    ck_assert_double_eq_tol(a.gradient_norm, b.gradient_norm, 1e-5 * a.gradient_norm);
    double top = 0, off = 0;
    for (size_t i = 0; i < t->floats; i++) {
        top = fmax(top, fabs((double)t->first[i]));
        off = fmax(off, fabs((double)t->first[i] - (double)u->first[i]));
    }
    ck_assert_double_gt(top, 0);
    ck_assert_double_lt(off, 1e-5 * top);
    weft_trainer_free(t);
    weft_trainer_free(u);
    weft_model_free(m);
}
END_TEST

START_TEST(gradients_are_clipped)
{
    weft_model *m = open_model("tiny-sd1");
    weft_train_options o = usual(m);
    o.optimiser = WEFT_OPTIMISER_SGD;
    o.weight_decay = -1;
    o.clip = 1e-3;
    o.rate = 0.5;
    weft_trainer *t = begin(m, &o);
    must(weft_trainer_prepare(t, &golden_err));
    float *first = copy(t);
    weft_train_step s = step(t);
    double moved = 0;
    for (size_t i = 0; i < t->floats; i++)
        moved += ((double)t->values[i] - (double)first[i]) * ((double)t->values[i] - (double)first[i]);
    ck_assert_double_gt(s.gradient_norm, 2e-3);
    ck_assert_double_eq_tol(sqrt(moved), 0.5e-3, 1e-3 * 0.5e-3 + 1e-6); /* rate * clip */
    free(first);
    weft_trainer_free(t);
    weft_model_free(m);
}
END_TEST

/* The first step's mean is its values; then (1 + n) / (10 + n) of the old mean stays, at most `ema`. */
START_TEST(the_mean_follows_and_is_what_is_saved)
{
    static const double stays[] = { 0, 2.0 / 11, 0.2, 0.2 };
    weft_model *m = open_model("tiny-sd1");
    weft_train_options o = usual(m);
    o.recipe = WEFT_RECIPE_FULL;
    o.ema = 0.2;
    weft_trainer *t = begin(m, &o);
    double *mean = calloc(t->floats, sizeof *mean);
    weft_adapter *a, *b;
    for (int k = 0; k < 4; k++) {
        step(t);
        for (size_t i = 0; i < t->floats; i++) {
            mean[i] = stays[k] * mean[i] + (1 - stays[k]) * (double)t->values[i];
            ck_assert_double_eq_tol(t->mean[i], mean[i], 1e-6 * (1 + fabs(mean[i])));
        }
    }
    float *before = copy(t);
    const float *read = t->site[0].weight;
    must(weft_trainer_adapter(t, &a, &golden_err));
    check_same(t, before, "an adapter was made");
    ck_assert_ptr_eq(t->site[0].weight, read);
    memcpy(t->values, t->mean, t->floats * sizeof(float)); /* of these as values it is the same adapter */
    must(weft_trainer_adapter(t, &b, &golden_err));
    weft_module_info ma = WEFT_MODULE_INFO_INIT, mb = WEFT_MODULE_INFO_INIT;
    must(weft_adapter_module(a, 0, &ma, &golden_err));
    must(weft_adapter_module(b, 0, &mb, &golden_err));
    ck_assert_str_eq(ma.name, mb.name);
    weft_tensors *x, *y;
    must(wf_trainer_tensors(t, WEFT_DIALECT_KOHYA, &x, &golden_err));
    float *kept = t->mean;
    t->mean = NULL;
    must(wf_trainer_tensors(t, WEFT_DIALECT_KOHYA, &y, &golden_err));
    t->mean = kept;
    ck_assert_uint_eq(wf_tensors_count(x), wf_tensors_count(y));
    for (size_t i = 0; i < wf_tensors_count(x); i++)
        ck_assert_mem_eq(wf_tensors_at(x, i)->data, wf_tensors_at(y, i)->data, wf_tensors_at(x, i)->bytes);
    weft_tensors_free(x);
    weft_tensors_free(y);
    weft_adapter_free(a);
    weft_adapter_free(b);
    free(mean);
    free(before);
    weft_trainer_free(t);
    weft_model_free(m);
}
END_TEST

START_TEST(modules_are_those_that_are_named)
{
    weft_model *m = open_model("tiny-sdxl");
    weft_train_options o = usual(m);
    size_t layers, want = 0;
    const wf_layer *l = wf_model_layers(m, &layers);
    o.modules = "unet.*.attn2.to_k,text_encoder_2.*.fc1";
    for (size_t i = 0; i < layers; i++) want += wf_glob_any(o.modules, l[i].name);
    weft_trainer *t = begin(m, &o);
    ck_assert_uint_gt(want, 2);
    ck_assert_uint_eq(t->sites, want);
    for (size_t i = 0; i < t->sites; i++) ck_assert(wf_glob_any(o.modules, t->site[i].layer->name));
    ck_assert(t->text_taped);
    float *first = copy(t);
    step(t);
    step(t); /* every pair moves: B in the first step, then A */
    for (size_t i = 0; i < t->sites; i++)
        for (int32_t k = 0; k < 2; k++) {
            const wf_site *s = &t->site[i];
            size_t n = s->tensor[k].rows * s->tensor[k].columns;
            ck_assert_msg(memcmp(s->value[k], first + (s->value[k] - t->values), n * sizeof(float)) != 0, "%s stayed", s->layer->name);
        }
    free(first);
    weft_trainer_free(t);
    weft_model_free(m);
}
END_TEST

/* ---- checkpoints ----------------------------------------------------------------------------- */

static const char *file_in(const char *dir, const char *name)
{
    static char paths[4][512];
    static int  next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

START_TEST(a_break_changes_no_bit)
{
    weft_model *m = open_model("tiny-sd1");
    weft_train_options o = everything(m);
    const char *dir = test_dir(), *path = file_in(dir, "c.safetensors");
    float *want = run(m, &o, 5);

    weft_trainer *t = begin(m, &o);
    for (int i = 0; i < 2; i++) step(t);
    must(weft_trainer_checkpoint(t, path, &golden_err));
    step(t); /* which the checkpoint does not have */
    must(weft_trainer_resume(t, path, &golden_err));
    ck_assert_int_eq(t->step, 2);
    weft_trainer_free(t);
    for (int later = 0; later < 2; later++) { /* the pictures come after, or before */
        o.threads = 2;
        t = bare(m, &o);
        if (!later) add_all(t);
        must(weft_trainer_resume(t, path, &golden_err));
        if (later) add_all(t);
        for (int i = 2; i < 5; i++) ck_assert_int_eq(step(t).step, i + 1);
        check_same(t, want, "a break");
        weft_trainer_free(t);
    }
    free(want);
    unlink(path);
    test_rmdir(dir);
    weft_model_free(m);
}
END_TEST

static void refuse_resume(weft_model *m, const weft_train_options *o, bool pictures, const char *path,
                          weft_status want, const char *text)
{
    weft_trainer *t = bare(m, o);
    weft_error err = { 0 };
    if (pictures) add_all(t);
    else add(t, WEFT_PICTURE_INSTANCE, "another", 9);
    float *before = copy(t);
    weft_status st = weft_trainer_resume(t, path, &err);
    ck_assert_msg(st == want, "%s, wanted %s: %s", weft_status_name(st), weft_status_name(want), err.text);
    check_one_line(&err);
    ck_assert_msg(strstr(err.text, text) != NULL, "\"%s\" does not say \"%s\"", err.text, text);
    ck_assert_int_eq(t->step, 0);
    check_same(t, before, "a refused checkpoint");
    free(before);
    weft_trainer_free(t);
}

START_TEST(another_training_is_told_apart)
{
    weft_model *m = open_model("tiny-sd1"), *other = open_model("tiny-sd2");
    weft_train_options o = usual(m), p;
    const char *dir = test_dir(), *path = file_in(dir, "c.safetensors");
    weft_error err = { 0 };
    weft_trainer *t = begin(m, &o);
    step(t);
    must(weft_trainer_checkpoint(t, path, &golden_err));
    p = o, p.rate = 0.02;
    refuse_resume(m, &p, true, path, WEFT_E_MISMATCH, "rate is \"0.01\", this training's is \"0.02\"");
    p = o, p.seed = 8;
    refuse_resume(m, &p, true, path, WEFT_E_MISMATCH, "seed is \"7\"");
    p = o, p.flags = WEFT_TRAIN_CONV;
    refuse_resume(m, &p, true, path, WEFT_E_MISMATCH,
                  "WEFT_TRAIN_CONV is \"no\", this training's is \"yes\"");
    p = o, p.rates = WEFT_RATES_COSINE;
    refuse_resume(m, &p, true, path, WEFT_E_MISMATCH, "rates is \"1\", this training's is \"2\"");
    p = o, p.optimiser = WEFT_OPTIMISER_SGD;
    refuse_resume(m, &p, true, path, WEFT_E_MISMATCH, "optimiser is");
    p = o, p.modules = "*.to_q";
    refuse_resume(m, &p, true, path, WEFT_E_MISMATCH, "modules is \"\", this training's is \"*.to_q\"");
    refuse_resume(m, &o, false, path, WEFT_E_MISMATCH, "other pictures or captions");
    p = usual(other);
    refuse_resume(other, &p, true, path, WEFT_E_MISMATCH, "another model");
    refuse_resume(m, &o, true, data_path("golden/train_steps_tiny-sd1.safetensors"), WEFT_E_FORMAT, "is no checkpoint");
    refuse_resume(m, &o, true, file_in(dir, "none"), WEFT_E_IO, "none");
    p = o, p.steps = 4000; /* without an end that the rates fall to, it may move */
    weft_trainer *u = begin(m, &p);
    must(weft_trainer_resume(u, path, &golden_err));
    weft_trainer_free(u);
    u = bare(m, &o); /* pictures that come later are looked at before the first step */
    must(weft_trainer_resume(u, path, &golden_err));
    add(u, WEFT_PICTURE_INSTANCE, "another", 9);
    ck_assert_int_eq(weft_trainer_step(u, &(weft_train_step)WEFT_TRAIN_STEP_INIT, &err), WEFT_E_MISMATCH);
    weft_trainer_free(u);
    u = begin(m, &o); /* and so are those that are added to the right ones */
    must(weft_trainer_resume(u, path, &golden_err));
    add(u, WEFT_PICTURE_INSTANCE, "another", 9);
    ck_assert_int_eq(weft_trainer_step(u, &(weft_train_step)WEFT_TRAIN_STEP_INIT, &err), WEFT_E_MISMATCH);
    weft_trainer_free(u);
    u = bare(m, &o); /* written before they come, it is still the checkpoint of those pictures */
    must(weft_trainer_resume(u, path, &golden_err));
    must(weft_trainer_checkpoint(u, path, &golden_err));
    weft_trainer_free(u);
    u = begin(m, &o);
    must(weft_trainer_resume(u, path, &golden_err));
    u->alpha[3] += 1e-9; /* a scheduler's configuration that was edited */
    ck_assert_int_eq(weft_trainer_resume(u, path, &err), WEFT_E_MISMATCH);
    ck_assert_ptr_nonnull(strstr(err.text, "other noise levels"));
    weft_trainer_free(u);
    ck_assert_int_eq(weft_trainer_checkpoint(t, file_in(dir, "no/such/folder"), &err), WEFT_E_IO);
    weft_trainer_free(t);
    unlink(path);
    test_rmdir(dir);
    weft_model_free(other);
    weft_model_free(m);
}
END_TEST

START_TEST(a_cut_checkpoint_is_refused)
{
    weft_model *m = open_model("tiny-sd1");
    weft_train_options o = usual(m);
    const char *dir = test_dir(), *path = file_in(dir, "c.safetensors"), *cut = file_in(dir, "cut");
    weft_error err;
    weft_trainer *t = begin(m, &o);
    step(t);
    must(weft_trainer_checkpoint(t, path, &golden_err));
    FILE *f = fopen(path, "rb");
    static uint8_t bytes[1 << 22];
    size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    ck_assert_uint_lt(n, sizeof bytes);
    float *before = copy(t);
    for (size_t k = 0; k < n; k += k < 3000 ? 101 : n / 23) {
        f = fopen(cut, "wb");
        ck_assert_uint_eq(fwrite(bytes, 1, k, f), k);
        fclose(f);
        ck_assert_int_eq(weft_trainer_resume(t, cut, &err), WEFT_E_FORMAT);
        check_one_line(&err);
        check_same(t, before, "a cut checkpoint");
        ck_assert_int_eq(t->step, 1);
    }
    memset(bytes + n - 4, 0xff, 4); /* a number that is not finite */
    f = fopen(cut, "wb");
    fwrite(bytes, 1, n, f);
    fclose(f);
    ck_assert_int_eq(weft_trainer_resume(t, cut, &err), WEFT_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(err.text, "not finite"));
    *t->second = -1; /* a mean of squares that is none */
    must(weft_trainer_checkpoint(t, cut, &golden_err));
    ck_assert_int_eq(weft_trainer_resume(t, cut, &err), WEFT_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(err.text, "second has a value below 0, at 0"));
    *t->second = 0;
    t->step = (int64_t)1 << 41; /* more than evaluations can be counted for */
    must(weft_trainer_checkpoint(t, cut, &golden_err));
    t->step = 1;
    ck_assert_int_eq(weft_trainer_resume(t, cut, &err), WEFT_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(err.text, "its step is no whole number"));
    check_same(t, before, "a hostile checkpoint");
    must(weft_trainer_checkpoint(t, path, &golden_err)); /* what nothing can go on from is not written */
    *t->first = NAN;
    ck_assert_int_eq(weft_trainer_checkpoint(t, path, &err), WEFT_E_NOT_FINITE);
    must(weft_trainer_resume(t, path, &golden_err));
    ck_assert(isfinite(*t->first));
    free(before);
    weft_trainer_free(t);
    unlink(cut);
    unlink(path);
    test_rmdir(dir);
    weft_model_free(m);
}
END_TEST

/* ---- what goes wrong ------------------------------------------------------------------------- */

typedef struct stopper { int64_t asked, at; } stopper;

static int32_t stop_at(void *user, const char *what, int64_t done, int64_t total)
{
    stopper *s = user;
    ck_assert_ptr_nonnull(what);
    ck_assert(done >= 0 && done <= total);
    return s->asked++ == s->at;
}

START_TEST(a_cancelled_step_can_be_taken_again)
{
    weft_model *m = open_model("tiny-sd1");
    weft_train_options o = everything(m);
    stopper s = { 0, -1 };
    float *want = run(m, &o, 2);
    weft_error err;
    o.progress = stop_at;
    o.progress_user = &s;
    weft_trainer *t = begin(m, &o);
    step(t);
    s.asked = 0;
    weft_trainer *count = begin(m, &o);
    step(count);
    int64_t all = s.asked;
    step(count);
    all = s.asked - all; /* of the second step */
    weft_trainer_free(count);
    float *before = copy(t);
    for (int64_t k = 0; k < all; k += all / 12 + 1) {
        s = (stopper){ 0, k };
        ck_assert_int_eq(weft_trainer_step(t, &(weft_train_step)WEFT_TRAIN_STEP_INIT, &err), WEFT_E_CANCELLED);
        check_one_line(&err);
        check_same(t, before, "a cancelled step");
        ck_assert_int_eq(t->step, 1);
        for (size_t i = 0; i < t->exec.arena.size / sizeof(float); i++) ck_assert(t->tape.grads[i] == 0);
    }
    s = (stopper){ 0, -1 };
    step(t);
    check_same(t, want, "a step that was cancelled before");
    weft_trainer_free(t);
    t = begin(m, &o); /* preparing is left as if it had not begun */
    for (int64_t k = 0; k < 60; k += 7) {
        s = (stopper){ 0, k };
        ck_assert_int_eq(weft_trainer_prepare(t, &err), WEFT_E_CANCELLED);
    }
    s = (stopper){ 0, -1 };
    step(t);
    step(t);
    check_same(t, want, "after preparing was cancelled");
    free(before);
    free(want);
    weft_trainer_free(t);
    weft_model_free(m);
}
END_TEST

START_TEST(what_is_not_finite_is_not_taken)
{
    weft_model *m = open_model("tiny-sd1");
    weft_train_options o = usual(m);
    weft_error err;
    weft_trainer *t = begin(m, &o);
    step(t);
    float *before = copy(t), *good = t->site[3].value[1], kept = *good;
    *good = INFINITY;
    before[good - t->values] = INFINITY;
    ck_assert_int_eq(weft_trainer_step(t, &(weft_train_step)WEFT_TRAIN_STEP_INIT, &err), WEFT_E_NOT_FINITE);
    ck_assert_ptr_nonnull(strstr(err.text, "step 2"));
    check_same(t, before, "a step that is not finite");
    *good = kept;
    step(t);
    float *want = run(m, &o, 2);
    check_same(t, want, "after a step that was not finite");
    free(want);
    free(before);
    weft_trainer_free(t);
    weft_model_free(m);
}
END_TEST

static weft_status small_training(weft_model *m, const weft_allocator *a)
{
    weft_train_options o = usual(m);
    weft_trainer *t;
    weft_adapter *adapter = NULL;
    weft_error err;
    uint8_t *rgb = calloc(3, (size_t)(o.width * o.height));
    o.allocator = a;
    o.modules = "*.attn2.to_k";
    weft_status st = weft_trainer_create(m, &o, &t, &err);
    if (st == WEFT_OK)
        st = weft_trainer_add_picture(t, rgb, 3 * (size_t)(o.width * o.height), o.width, o.height, "a cat", 1, &err);
    if (st == WEFT_OK) st = weft_trainer_step(t, &(weft_train_step)WEFT_TRAIN_STEP_INIT, &err);
    if (st == WEFT_OK) st = weft_trainer_adapter(t, &adapter, &err);
    if (st != WEFT_OK) check_one_line(&err);
    weft_adapter_free(adapter);
    weft_trainer_free(t);
    free(rgb);
    return st;
}

START_TEST(without_memory_nothing_is_left)
{
    weft_model *m = open_model("tiny-sd1");
    test_memory memory;
    weft_allocator a = test_allocator(&memory);

    ck_assert_int_eq(small_training(m, &a), WEFT_OK);
    ck_assert_uint_eq(memory.live_blocks, 0);
    size_t calls = memory.calls;
    for (size_t k = 1; k <= calls; k++) {
        a = test_allocator(&memory);
        memory.fail_at = k;
        weft_status st = small_training(m, &a);
        ck_assert_msg(st == WEFT_E_NOMEM, "allocation %zu of %zu: %s", k, calls, weft_status_name(st));
        ck_assert_uint_eq(memory.live_blocks, 0);
    }
    weft_model_free(m);
}
END_TEST

/* ---- results --------------------------------------------------------------------------------- */

/* One call of a run with the adapter is the trainer's own prediction. */
START_TEST(the_adapter_is_what_was_trained)
{
    static const char *const models[] = { "tiny-sd1", "tiny-sdxl" };
    weft_model *m = open_model(models[_i]);
    weft_train_options o = everything(m);
    o.batch = 1;
    weft_trainer *t = begin(m, &o);
    for (int i = 0; i < 4; i++) step(t);
    must(wf_train_fill_batch(t, 99, &golden_err));
    float *want = malloc(2 * t->image * sizeof *want), *got = malloc(t->image * sizeof *got);
    wf_train_begin_call(t, "test", 0);
    must(wf_trainer_predict(t, t->deltas, &t->batch, 0, 1, want, &golden_err));
    must(wf_train_end_call(t, WEFT_OK, &golden_err));

    weft_adapter *a;
    weft_plan *plan;
    weft_run *r;
    weft_run_options ro = WEFT_RUN_OPTIONS_INIT;
    weft_step s = WEFT_STEP_INIT;
    weft_encode e = WEFT_ENCODE_INIT;
    weft_text text[WF_STREAMS_MAX];
    must(weft_trainer_adapter(t, &a, &golden_err));
    must(weft_plan_create(m, NULL, &plan, &golden_err));
    must(weft_plan_add(plan, a, 1, NULL, &golden_err));
    must(weft_plan_seal(plan, 1, &golden_err));
    ro.width = W;
    ro.height = H;
    must(weft_run_create(plan, &ro, &r, &golden_err));
    const wf_networks *n = wf_model_networks(m);
    for (int32_t i = 0; i < n->streams; i++) {
        text[i] = (weft_text)WEFT_TEXT_INIT;
        text[i].tokens = n->stream[i].tokens;
        text[i].len = (size_t)n->stream[i].tokens * (size_t)n->stream[i].facts->width;
        text[i].data = calloc(text[i].len, sizeof(float));
    }
    e.prompt = t->batch.caption[0]->text;
    e.text = text;
    e.text_count = (size_t)n->streams;
    must(weft_run_encode(r, &e, &golden_err));
    s.latent = t->batch.latent;
    s.latent_len = s.out_len = t->image;
    s.out = got;
    s.text = text;
    s.text_count = (size_t)n->streams;
    s.timestep = t->batch.timestep[0];
    s.time_ids = t->batch.time_ids;
    s.time_ids_len = (size_t)wf_facts(n)->time_ids;
    must(weft_run_step(r, &s, &golden_err));
    double l2, off = relative(got, want, t->image, &l2);
    ck_assert_msg(off < 2e-5, "%s: the adapter is off by %g", models[_i], off);

    for (int32_t i = 0; i < n->streams; i++) free(text[i].data);
    free(want);
    free(got);
    weft_run_free(r);
    weft_plan_free(plan);
    weft_adapter_free(a);
    weft_trainer_free(t);
    weft_model_free(m);
}
END_TEST

START_TEST(files_of_every_dialect_are_read_again)
{
    static const struct { int32_t dialect; const char *file, *name; } rows[] = {
        { WEFT_DIALECT_KOHYA, "k.safetensors", "kohya" }, { WEFT_DIALECT_DIFFUSERS, "d.safetensors", "diffusers" },
        { 0, "u.safetensors", "diffusers" },
    };
    weft_model *m = open_model("tiny-sd1");
    weft_train_options o = usual(m);
    const char *dir = test_dir();
    o.alpha = 2;
    o.flags = WEFT_TRAIN_TEXT;
    weft_trainer *t = begin(m, &o);
    step(t);
    for (size_t i = 0; i < WF_LEN(rows); i++)
        for (int32_t half = 0; half < 2; half++) {
            const char *path = file_in(dir, rows[i].file);
            weft_adapter *a;
            weft_adapter_info info = WEFT_ADAPTER_INFO_INIT;
            weft_module_info module = WEFT_MODULE_INFO_INIT;
            must(weft_trainer_save(t, path, rows[i].dialect, half, &golden_err));
            must(weft_adapter_open(path, NULL, &a, &golden_err));
            must(weft_adapter_info_get(a, &info, &golden_err));
            ck_assert_str_eq(info.dialect, rows[i].name);
            ck_assert_str_eq(info.family, "lora");
            ck_assert_int_eq(info.modules, (int32_t)t->sites);
            must(weft_adapter_module(a, 0, &module, &golden_err));
            ck_assert_float_eq(module.scale, 0.5f); /* alpha 2, rank 4 */
            ck_assert_str_eq(weft_adapter_metadata(a, "weft.recipe"), "lora");
            ck_assert_str_eq(weft_adapter_metadata(a, "weft.seed"), "7");
            ck_assert_str_eq(weft_adapter_metadata(a, "weft.steps"), "1");
            ck_assert_str_eq(weft_adapter_metadata(a, "weft.rank"), "4");
            ck_assert_str_eq(weft_adapter_metadata(a, "weft.base"), "SD1.x");
            ck_assert_ptr_null(weft_adapter_metadata(a, "weft.trigger")); /* captions differ */
            weft_adapter_free(a);
            unlink(path);
        }
    weft_error err;
    ck_assert_int_eq(weft_trainer_save(t, file_in(dir, "x"), 9, 0, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_trainer_save(t, file_in(dir, "x"), 0, 2, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_trainer_concept(t, &(weft_concept *){ NULL }, &err), WEFT_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(err.text, "lora learns no words"));
    weft_trainer_free(t);
    test_rmdir(dir);
    weft_model_free(m);
}
END_TEST

START_TEST(it_learns)
{
    weft_model *m;
    weft_train_options o = WEFT_TRAIN_OPTIONS_INIT;
    double first = 0, last = 0;
    const char *root = getenv("WEFT_TESTS");
    char path[1024];
    snprintf(path, sizeof path, "%s/../examples/model", root != NULL ? root : "tests");
    must(weft_model_open(path, NULL, &m, &golden_err));
    o.recipe = WEFT_RECIPE_LORA;
    o.rate = 2e-3;
    o.batch = 4;
    o.seed = 3;
    o.width = o.height = 32;
    weft_trainer *t = bare(m, &o);
    add(t, WEFT_PICTURE_INSTANCE, "a large red zib", 1); /* no picture of its world */
    for (int i = 0; i < 40; i++) {
        double loss = step(t).loss;
        if (i < 10) first += loss;
        if (i >= 30) last += loss;
    }
    ck_assert_msg(last < 0.8 * first, "the loss went from %g to %g", first / 10, last / 10);
    weft_trainer_free(t);
    weft_model_free(m);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("trainer");
    TCase *options = tcase_create("options"), *draws = tcase_create("draws"), *steps = tcase_create("steps");
    TCase *bits = tcase_create("bits"), *checkpoints = tcase_create("checkpoints"), *wrong = tcase_create("wrong");
    TCase *results = tcase_create("results");

    tcase_add_test(options, options_are_refused_plainly);
    tcase_add_test(options, defaults_are_told_and_mean_the_same_again);
    tcase_add_test(options, recipes_have_names);
    tcase_add_test(options, pictures_are_needed_and_come_first);
    tcase_add_test(draws, rates_rise_and_fall);
    tcase_add_test(draws, a_batch_is_pictures_with_noise);
    tcase_add_test(draws, an_image_predicted_is_weighted_by_the_signal);
    tcase_add_test(draws, captions_are_left_out_and_noise_has_an_offset);
    tcase_add_test(draws, a_mask_leaves_out_pixels);
    tcase_add_loop_test(steps, steps_are_torchs, 0, 3);
    tcase_add_loop_test(bits, threads_and_recomputing_change_no_bit, 0, 2);
    tcase_add_test(bits, accumulating_is_a_larger_batch);
    tcase_add_test(bits, gradients_are_clipped);
    tcase_add_test(bits, the_mean_follows_and_is_what_is_saved);
    tcase_add_test(bits, modules_are_those_that_are_named);
    tcase_add_test(checkpoints, a_break_changes_no_bit);
    tcase_add_test(checkpoints, another_training_is_told_apart);
    tcase_add_test(checkpoints, a_cut_checkpoint_is_refused);
    tcase_add_test(wrong, a_cancelled_step_can_be_taken_again);
    tcase_add_test(wrong, what_is_not_finite_is_not_taken);
    tcase_add_test(wrong, without_memory_nothing_is_left);
    tcase_add_loop_test(results, the_adapter_is_what_was_trained, 0, 2);
    tcase_add_test(results, files_of_every_dialect_are_read_again);
    tcase_add_test(results, it_learns);
    TCase *all[] = { options, draws, steps, bits, checkpoints, wrong, results };
    for (size_t i = 0; i < WF_LEN(all); i++) {
        tcase_set_timeout(all[i], 120);
        suite_add_tcase(s, all[i]);
    }
    return run_suite(s);
}
