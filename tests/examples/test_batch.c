/* Several pictures at once, texts that change, and references: what the tool draws is what a caller's
 * loop over the library gives, to the bit, as `weft generate --save` writes it. */
#include "base/support.h"
#include "golden.h"

enum { MOST = 4, STEPS = 4, TEXTS = 8 }; /* "-s 4" */

#define MODEL "examples/model"
#define ADAPTERS "-a " MODEL "/adapters/monster.safetensors:0.9 -a " MODEL "/adapters/hatching.safetensors:0.8 "

static weft_model      *model;
static weft_model_info  about;
static weft_adapter    *monster, *hatching;
static char             saved[1024], folder[1024];
static size_t           len, image_len;

static void setup(void)
{
    about = (weft_model_info)WEFT_MODEL_INFO_INIT;
    must(weft_model_open(MODEL, NULL, &model, &golden_err));
    must(weft_model_info_get(model, &about, &golden_err));
    must(weft_adapter_open(MODEL "/adapters/monster.safetensors", NULL, &monster, &golden_err));
    must(weft_adapter_open(MODEL "/adapters/hatching.safetensors", NULL, &hatching, &golden_err));
    snprintf(folder, sizeof folder, "%s", test_dir());
    snprintf(saved, sizeof saved, "%.1000s/saved.safetensors", folder);
    len = (size_t)about.latent_channels * (size_t)about.latent_size * (size_t)about.latent_size;
    image_len = 3 * (size_t)about.latent_size * (size_t)about.latent_size * (size_t)about.image_factor * (size_t)about.image_factor;
}

static void teardown(void)
{
    char line[1100];

    snprintf(line, sizeof line, "rm -f %.1000s/*", folder);
    ck_assert_int_eq(system(line), 0);
    test_rmdir(folder);
    weft_model_free(model);
    weft_adapter_free(monster);
    weft_adapter_free(hatching);
}

/* What sample `of` (-1: the negative half) reads from a call on; in order. */
typedef struct reading { int32_t of, from; const char *text; } reading;

typedef struct drawing {
    const char     *words;      /* of the tool; and the same for the library:                          */
    int32_t         n;          /* samples, the reference among them                                   */
    int32_t         seed[MOST]; /* of each                                                             */
    reading         texts[TEXTS];
    int32_t         kind;       /* of the sampler                                                      */
    bool            aligned, each;
    weft_align_options align;
    const char     *reference;  /* a PNG; noised if `noise`                                            */
    bool            noise;
} drawing;

static weft_plan *plan_of(const drawing *d, int32_t calls)
{
    weft_plan *plan;
    must(weft_plan_create(model, NULL, &plan, &golden_err));
    if (d->each) {
        must(weft_plan_add(plan, monster, 0.9f, NULL, &golden_err));
        must(weft_plan_add(plan, hatching, 0.8f, NULL, &golden_err));
        must(weft_plan_composite(plan, NULL, &golden_err));
    }
    if (d->aligned) must(weft_plan_align(plan, &d->align, &golden_err));
    must(weft_plan_seal(plan, calls, &golden_err));
    return plan;
}

/* The blocks of one sample: one, or with `each` one for each of the two adapters. */
static float *encoded(weft_run *run, const drawing *d, const char *prompt, size_t *n)
{
    weft_text t = WEFT_TEXT_INIT;
    weft_encode e = WEFT_ENCODE_INIT;
    must(weft_run_text(run, 0, 1, &t, &golden_err));
    float *data = malloc(2 * t.len * sizeof *data);
    e.prompt = prompt;
    e.text = &t;
    e.text_count = 1;
    if (d->each) e.flags = WEFT_ENCODE_ADAPTER;
    for (e.adapter = 0; e.adapter < (d->each ? 2 : 1); e.adapter++) {
        t.data = data + (size_t)e.adapter * t.len;
        must(weft_run_encode(run, &e, &golden_err));
    }
    *n = t.len;
    return data;
}

static const float *text_at(const drawing *d, float *const *texts, int32_t of, int32_t call)
{
    const float *found = NULL;
    for (int i = 0; i < TEXTS && d->texts[i].text != NULL; i++)
        if (d->texts[i].of == of && d->texts[i].from <= call) found = texts[i];
    return found;
}

static void same(const char *words, const weft_tensors *t, const char *name, const float *wanted, size_t n)
{
    golden got = golden_read(t, "%s", name);
    ck_assert_msg(got.n == n, "%s: %s has %zu numbers, wanted %zu", words, name, got.n, n);
    ck_assert_msg(memcmp(got.v, wanted, n * sizeof *wanted) == 0, "%s: %s has other bits (relative %g)", words, name,
                  relative(got.v, wanted, n, NULL));
    free(got.v);
}

static void by_the_tool(const drawing *d)
{
    char line[4096];
    const char *b = getenv("B");
    snprintf(line, sizeof line, "%s/examples/weft generate " MODEL " -q -t 2 -s 4 -g 3 -o %.500s/out.png --save %s %s",
             b != NULL ? b : "build", folder, saved, d->words);
    ck_assert_msg(system(line) == 0, "%s", line);
}

/* The reference as each call begins. */
static void levels_of(const drawing *d, weft_plan *plan, const weft_sampler *sampler, float *const *texts, size_t text_len,
                      float levels[STEPS][4 * 64 * 64])
{
    float *image = malloc(image_len * sizeof *image), *x = malloc(len * sizeof *x), *other = malloc(len * sizeof *other);
    int32_t side = about.latent_size * about.image_factor;
    size_t plane = image_len / 3;
    uint8_t *rgb = malloc(image_len);
    weft_step step = WEFT_STEP_INIT;
    weft_text text = WEFT_TEXT_INIT;
    weft_noise *noise;
    weft_run *run;

    must(weft_png_read(d->reference, rgb, image_len, side, side, &golden_err));
    for (size_t i = 0; i < image_len; i++) image[i % 3 * plane + i / 3] = (float)rgb[i] / 255.0f;
    must(weft_run_create(plan, NULL, &run, &golden_err));
    must(weft_run_encode_image(run, image, image_len, NULL, 0, x, len, &golden_err));
    must(weft_noise_create((uint64_t)d->seed[0], NULL, &noise, &golden_err));
    if (d->noise) must(weft_noise_normal(noise, other, len, &golden_err));
    step.latent = step.out = other;
    step.latent_len = step.out_len = len;
    step.text = &text, step.text_count = 1;
    text.len = text_len;
    for (int32_t n = STEPS - 1; n >= 0; n--) {
        if (d->noise) {
            must(weft_sampler_add_noise(sampler, n, x, other, levels[n], len, &golden_err));
            continue;
        }
        memcpy(other, x, len * sizeof *x);
        if (n + 1 < STEPS) must(weft_sampler_scale(sampler, n + 1, x, other, len, &golden_err));
        text.data = (float *)(uintptr_t)text_at(d, texts, 0, n);
        step.call = n;
        step.timestep = weft_sampler_timestep(sampler, n);
        must(weft_run_step(run, &step, &golden_err));
        must(weft_sampler_invert(sampler, n, other, x, len, &golden_err));
        memcpy(levels[n], x, len * sizeof *x);
    }
    weft_noise_free(noise);
    weft_run_free(run);
    free(image), free(x), free(other), free(rgb);
}

static void check(const drawing *d)
{
    static float levels[STEPS][4 * 64 * 64];
    size_t all = (size_t)d->n * len, block = 0, branches = d->each ? 2 : 1;
    float *x = malloc(all * sizeof *x), *in = malloc(all * sizeof *x), *out = malloc(all * sizeof *x), *texts[TEXTS] = { NULL };
    weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;
    weft_run_options how = WEFT_RUN_OPTIONS_INIT;
    weft_sampler *sampler[MOST];
    weft_noise *noise[MOST];
    weft_tensors *t;
    weft_run *run;

    by_the_tool(d);
    must(weft_tensors_open(saved, NULL, &t, &golden_err));
    o.kind = d->kind;
    o.steps = STEPS;
    must(weft_sampler_options_from_model(model, &o, &golden_err));
    for (int32_t i = 0; i < d->n; i++) {
        must(weft_sampler_create(&o, &sampler[i], &golden_err));
        must(weft_sampler_begin(sampler[i], 0, len, &golden_err));
        must(weft_noise_create((uint64_t)d->seed[i], NULL, &noise[i], &golden_err));
        must(weft_noise_normal(noise[i], x + (size_t)i * len, len, &golden_err));
    }
    same(d->words, t, "start", x, all);
    for (size_t i = 0; i < all; i++) x[i] *= weft_sampler_init_scale(sampler[0]);
    weft_plan *plan = plan_of(d, STEPS);
    how.batch = d->n;
    must(weft_run_create(plan, &how, &run, &golden_err));
    for (int i = 0; i < TEXTS && d->texts[i].text != NULL; i++) texts[i] = encoded(run, d, d->texts[i].text, &block);
    if (d->reference != NULL) levels_of(d, plan, sampler[0], texts, block, levels);

    weft_text text = WEFT_TEXT_INIT, negative = WEFT_TEXT_INIT;
    weft_step step = WEFT_STEP_INIT;
    text.len = branches * (size_t)d->n * block;
    text.data = malloc(text.len * sizeof *text.data);
    negative.len = branches * block;
    step.latent = in, step.out = out;
    step.latent_len = step.out_len = all;
    step.text = &text, step.text_count = 1;
    step.negative = &negative, step.negative_count = 1;
    step.guidance = 3;
    step.flags = d->each ? WEFT_STEP_TEXT_PER_BRANCH : 0;
    for (int32_t n = 0; n < STEPS; n++) {
        char name[32];
        if (d->reference != NULL) memcpy(x, levels[n], len * sizeof *x);
        must(weft_sampler_scale(sampler[0], n, x, in, all, &golden_err));
        for (size_t b = 0; b < branches; b++)
            for (int32_t i = 0; i < d->n; i++)
                memcpy(text.data + (b * (size_t)d->n + (size_t)i) * block, text_at(d, texts, i, n) + b * block,
                       block * sizeof *text.data);
        negative.data = (float *)(uintptr_t)text_at(d, texts, -1, n);
        step.call = n;
        step.timestep = weft_sampler_timestep(sampler[0], n);
        must(weft_run_step(run, &step, &golden_err));
        snprintf(name, sizeof name, "prediction_%03d", (int)n);
        same(d->words, t, name, out, all);
        for (int32_t i = 0; i < d->n; i++)
            must(weft_sampler_step(sampler[i], n, out + (size_t)i * len, x + (size_t)i * len, len, noise[i], &golden_err));
    }
    same(d->words, t, "latents", x, all);
    for (int32_t i = 0; i < d->n; i++) weft_sampler_free(sampler[i]), weft_noise_free(noise[i]);
    for (int i = 0; i < TEXTS; i++) free(texts[i]);
    free(x), free(in), free(out), free(text.data);
    weft_tensors_free(t);
    weft_run_free(run);
    weft_plan_free(plan);
}

START_TEST(pictures_and_texts_are_the_librarys)
{
    check(&(drawing){ .words = "-p 'a red star' -p 'a blue star' --prompt-from 2:'a green: star' -p 'a heart' -n 'a square' "
                               "--negative-from 0.7:'a ring' --seed 5",
                      .n = 3, .seed = { 5, 6, 7 },
                      .texts = { { 0, 0, "a red star" }, { 1, 0, "a blue star" }, { 1, 2, "a green: star" }, { 2, 0, "a heart" },
                                 { -1, 0, "a square" }, { -1, 3, "a ring" } } });
    check(&(drawing){ .words = "-p 'a red star' --prompt-from 0.25:'a ring' --prompt-from 3:'a heart'", .n = 1,
                      .texts = { { 0, 0, "a red star" }, { 0, 1, "a ring" }, { 0, 3, "a heart" }, { -1, 0, "" } } });
    check(&(drawing){ .words = "-p 'a red star' --batch 2 --sampler euler_a --seed 9", .n = 2, .seed = { 9, 10 },
                      .kind = WEFT_SAMPLER_EULER_A,
                      .texts = { { 0, 0, "a red star" }, { 1, 0, "a red star" }, { -1, 0, "" } } });
    check(&(drawing){ .words = ADAPTERS "--compose composite --text-plan each -p 'a monster' -p 'a star, hatched style' "
                                        "--prompt-from 2:'a zib monster'",
                      .n = 2, .seed = { 0, 1 }, .each = true,
                      .texts = { { 0, 0, "a monster" }, { 1, 0, "a star, hatched style" }, { 1, 2, "a zib monster" }, { -1, 0, "" } } });
}
END_TEST

START_TEST(aligned_pictures_are_the_librarys)
{
    char words[1024], png[1100];
    drawing d = { .words = "-p 'a red star' -p 'a heart' --align", .n = 2, .seed = { 0, 1 }, .aligned = true,
                  .align = WEFT_ALIGN_OPTIONS_INIT,
                  .texts = { { 0, 0, "a red star" }, { 1, 0, "a heart" }, { -1, 0, "" } } };

    check(&d);
    d.words = "-p 'a red star' -p 'a heart' --align --shared-score-scale 0.8 --shared-score-shift 0.3 --only-self-level 0.5 "
              "--adain-values --align-without group-norm,keys";
    d.align.flags = WEFT_ALIGN_SCALE | WEFT_ALIGN_VALUES | WEFT_ALIGN_NO_GROUP_NORM | WEFT_ALIGN_NO_KEYS;
    d.align.shared_score_scale = 0.8f;
    d.align.shared_score_shift = 0.3f;
    d.align.only_self_level = 0.5;
    check(&d);
    d.words = "-p 'a red star' -p 'a heart' --align --full-attention-share";
    d.align = (weft_align_options)WEFT_ALIGN_OPTIONS_INIT;
    d.align.flags = WEFT_ALIGN_FULL;
    check(&d);
    d.words = "-p 'a red star' -p 'a heart' --align --align-without attention,queries";
    d.align.flags = WEFT_ALIGN_NO_ATTENTION | WEFT_ALIGN_NO_QUERIES;
    check(&d);

    /* a picture of the run's own size, drawn first */
    snprintf(png, sizeof png, "%.1000s/ref.png", folder);
    snprintf(words, sizeof words, "%s/examples/weft generate " MODEL " -q -s 3 -p 'a ring in a meadow' -o %.900s",
             getenv("B") != NULL ? getenv("B") : "build", png);
    ck_assert_int_eq(system(words), 0);
    d = (drawing){ .n = 3, .seed = { 5, 3, 4 }, .aligned = true, .align = WEFT_ALIGN_OPTIONS_INIT, .reference = png, .words = words,
                   .texts = { { 0, 0, "a ring: of meadows" }, { 1, 0, "a red star" }, { 2, 0, "a heart" }, { 2, 2, "a cross" }, { -1, 0, "" } } };
    for (int i = 0; i < 4; i++) {
        static const int32_t kinds[] = { 0, WEFT_SAMPLER_EULER, WEFT_SAMPLER_DPMPP_2M, 0 };
        d.kind = kinds[i];
        d.noise = i == 3;
        snprintf(words, sizeof words, "--reference '%.500s:a ring: of meadows' -p 'a red star' -p 'a heart' --prompt-from 0.5:'a cross' "
                 "--seed 3 --sampler %s %s", png, weft_sampler_name(d.kind ? d.kind : WEFT_SAMPLER_DDIM),
                 d.noise ? "--reference-by noise" : "");
        check(&d);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("batch");
    TCase *t = tcase_create("tool");

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 300);
    tcase_add_test(t, pictures_and_texts_are_the_librarys);
    tcase_add_test(t, aligned_pictures_are_the_librarys);
    suite_add_tcase(s, t);
    return run_suite(s);
}
