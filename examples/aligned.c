/* aligned.c - pictures in the style of a picture: StyleAligned with a reference of one's own.
 *
 * The samples of a batch share their self-attention with the first (weft_plan_align), so they take
 * on its colours, ground and stroke. The first is a picture here, and not one that is drawn: it is
 * turned back into noise call by call (weft_sampler_invert), and what it is as each call begins is
 * put into the batch at that call. Three prompts, a seed each.
 *
 *   cc aligned.c $(pkg-config --cflags --libs weft) -o aligned
 *   ./aligned examples/model meadow.png "a red star in a meadow" out \
 *       "a large blue circle" "a large purple heart" "a green triangle" */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/weft.h>

enum { STEPS = 30, SEED = 7, STREAMS = 4, MOST = 8 };
static const float GUIDANCE = 5.0f;

static weft_error err;

static void must(weft_status st)
{
    if (st == WEFT_OK) return;
    fprintf(stderr, "aligned: %s: %s\n", weft_status_name(st), err.text);
    exit(1);
}

static void *zeroed(size_t count, size_t size)
{
    void *p = calloc(count, size);
    if (p == NULL) { fprintf(stderr, "aligned: out of memory\n"); exit(1); }
    return p;
}

/* Room for every text stream that the model reads, and the prompt in it. */
static void encode(weft_run *run, const char *prompt, int32_t chunks, weft_text *text, int32_t streams)
{
    weft_encode e = WEFT_ENCODE_INIT;
    for (int32_t i = 0; i < streams; i++) {
        text[i] = (weft_text)WEFT_TEXT_INIT;
        must(weft_run_text(run, i, chunks, &text[i], &err));
        text[i].data = zeroed(text[i].len, sizeof(float));
    }
    e.prompt = prompt;
    e.text = text;
    e.text_count = (size_t)streams;
    must(weft_run_encode(run, &e, &err));
}

/* A PNG of the wanted size as planes of floats in 0..1. */
static float *load(const char *path, int32_t side)
{
    int32_t w, h;
    size_t plane = (size_t)side * (size_t)side;
    must(weft_png_size(path, &w, &h, &err));
    if (w != side || h != side) {
        fprintf(stderr, "aligned: %s is %dx%d, wanted %dx%d\n", path, (int)w, (int)h, (int)side, (int)side);
        exit(1);
    }
    uint8_t *rgb = zeroed(3 * plane, 1);
    float *image = zeroed(3 * plane, sizeof *image);
    must(weft_png_read(path, rgb, 3 * plane, w, h, &err));
    for (size_t i = 0; i < 3 * plane; i++) image[i % 3 * plane + i / 3] = (float)rgb[i] / 255.0f;
    free(rgb);
    return image;
}

/* What the picture is as each call begins, [calls][len]: from the finished picture back to noise. */
static float *invert(weft_plan *plan, const weft_sampler *sampler, const float *image, size_t image_len, const weft_text *text,
                     int32_t streams, size_t len)
{
    int32_t calls = weft_sampler_calls(sampler);
    float *levels = zeroed((size_t)calls * len, sizeof *levels), *x = zeroed(len, sizeof *x), *other = zeroed(len, sizeof *other);
    weft_step step = WEFT_STEP_INIT;
    weft_run *run;                                  /* of the one picture: the other has a batch */

    must(weft_run_create(plan, NULL, &run, &err));
    must(weft_run_encode_image(run, image, image_len, NULL, 0, x, len, &err));
    step.latent = step.out = other;         step.latent_len = step.out_len = len;
    step.text = text;                       step.text_count = (size_t)streams;
    for (int32_t n = calls - 1; n >= 0; n--) {
        memcpy(other, x, len * sizeof *x);
        if (n + 1 < calls) must(weft_sampler_scale(sampler, n + 1, x, other, len, &err));
        step.call = n;
        step.timestep = weft_sampler_timestep(sampler, n);
        must(weft_run_step(run, &step, &err));
        must(weft_sampler_invert(sampler, n, other, x, len, &err));
        memcpy(levels + (size_t)n * len, x, len * sizeof *x);
    }
    weft_run_free(run);
    free(x), free(other);
    return levels;
}

int main(int argc, char **argv)
{
    if (argc < 6 || argc > 5 + MOST) {
        fprintf(stderr, "usage: aligned MODEL REFERENCE.png ITS-PROMPT OUT PROMPT... (at most %d)\n", MOST);
        return 2;
    }
    int32_t n = argc - 4;                           /* samples: the reference, then a picture for each prompt */

    weft_model *model;
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    must(weft_model_open(argv[1], NULL, &model, &err));
    must(weft_model_info_get(model, &info, &err));

    weft_sampler *sampler;
    weft_sampler_options schedule = WEFT_SAMPLER_OPTIONS_INIT;
    schedule.kind = WEFT_SAMPLER_DDIM;
    schedule.steps = STEPS;
    must(weft_sampler_options_from_model(model, &schedule, &err));
    must(weft_sampler_create(&schedule, &sampler, &err));
    int32_t calls = weft_sampler_calls(sampler);

    weft_plan *plan;
    weft_run *run;
    weft_run_options options = WEFT_RUN_OPTIONS_INIT;
    options.batch = n;
    must(weft_plan_create(model, NULL, &plan, &err));
    must(weft_plan_align(plan, NULL, &err));
    must(weft_plan_seal(plan, calls, &err));
    must(weft_run_create(plan, &options, &run, &err));

    /* A text for each sample, one behind the other; the empty one serves all. */
    int32_t streams = info.text_streams, chunks = 1;
    weft_text text[STREAMS], one[STREAMS], empty[STREAMS], its[STREAMS];
    if (streams > STREAMS) { fprintf(stderr, "aligned: the model reads %d text streams\n", (int)streams); return 1; }
    encode(run, "", chunks, empty, streams);
    encode(run, argv[3], chunks, its, streams);
    for (int32_t i = 0; i < streams; i++) {
        text[i] = empty[i];
        text[i].len = (size_t)n * empty[i].len;
        text[i].data = zeroed(text[i].len, sizeof(float));
    }
    for (int32_t k = 0; k < n; k++) {
        encode(run, k == 0 ? argv[3] : argv[4 + k], chunks, one, streams);
        for (int32_t i = 0; i < streams; i++) {
            memcpy(text[i].data + (size_t)k * one[i].len, one[i].data, one[i].len * sizeof(float));
            free(one[i].data);
        }
    }

    size_t side = (size_t)info.latent_size, len = (size_t)info.latent_channels * side * side;
    int32_t pixels = info.latent_size * info.image_factor;
    size_t image_len = 3 * (size_t)pixels * (size_t)pixels;
    float *picture = load(argv[2], pixels);
    float *levels = invert(plan, sampler, picture, image_len, its, streams, len);

    weft_noise *noise;
    size_t all = (size_t)n * len;
    float *x = zeroed(all, sizeof *x), *scaled = zeroed(all, sizeof *scaled), *prediction = zeroed(all, sizeof *prediction);
    must(weft_noise_create(SEED, NULL, &noise, &err));
    must(weft_noise_normal(noise, x, all, &err));
    for (size_t i = 0; i < all; i++) x[i] *= weft_sampler_init_scale(sampler);

    weft_step step = WEFT_STEP_INIT;
    step.latent = scaled;                   step.latent_len = all;
    step.text = text;                       step.text_count = (size_t)streams;
    step.negative = empty;                  step.negative_count = (size_t)streams;
    step.out = prediction;                  step.out_len = all;
    step.guidance = GUIDANCE;

    must(weft_sampler_begin(sampler, 0, all, &err));
    for (int32_t c = 0; c < calls; c++) {
        memcpy(x, levels + (size_t)c * len, len * sizeof *x);
        must(weft_sampler_scale(sampler, c, x, scaled, all, &err));
        step.call = c;
        step.timestep = weft_sampler_timestep(sampler, c);
        must(weft_run_step(run, &step, &err));
        must(weft_sampler_step(sampler, c, prediction, x, all, noise, &err));
    }

    float *images = zeroed((size_t)n * image_len, sizeof *images);
    uint8_t *rgb = zeroed(image_len, 1);
    must(weft_run_decode(run, x, all, images, (size_t)n * image_len, &err));
    for (int32_t k = 1; k < n; k++) {
        char path[1024];
        snprintf(path, sizeof path, "%s-%d.png", argv[4], (int)k);
        must(weft_image_bytes(images + (size_t)k * image_len, image_len, pixels, pixels, rgb, image_len, &err));
        must(weft_png_write(path, rgb, image_len, pixels, pixels, NULL, 0, &err));
        printf("%s: %s\n", path, argv[4 + k]);
    }

    weft_model_free(model);
    weft_plan_free(plan);
    weft_run_free(run);
    weft_sampler_free(sampler);
    weft_noise_free(noise);
    for (int32_t i = 0; i < streams; i++) free(text[i].data), free(empty[i].data), free(its[i].data);
    free(picture), free(levels), free(x), free(scaled), free(prediction), free(images), free(rgb);
    return 0;
}
