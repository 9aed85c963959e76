/* img2img.c - an image becomes another image; with a mask, only where the mask is white.
 *
 * Denoising need not begin with pure noise. Here an image is encoded to latents, gets as much noise
 * as some step in the middle begins with, and is denoised from there: the later the step, the more
 * of the image stays. With a mask, the image is put back outside it after each step, with the noise
 * of the next: the network sees what surrounds the hole, and what it paints has to fit. (A model
 * made for inpainting takes mask and image as inputs instead, as weft_step.extra.)
 *
 *   cc img2img.c $(pkg-config --cflags --libs weft) -o img2img
 *   ./img2img examples/model "a yellow star on a blue background" circle.png star.png 0.8
 *   ./img2img examples/model "a red heart" circle.png heart.png 1 mask.png */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/weft.h>

enum { STEPS = 30, SEED = 1, STREAMS = 4 };
static const float GUIDANCE = 5.0f;

static weft_error err;

static void must(weft_status st)
{
    if (st == WEFT_OK) return;
    fprintf(stderr, "img2img: %s: %s\n", weft_status_name(st), err.text);
    exit(1);
}

static void *zeroed(size_t count, size_t size)
{
    void *p = calloc(count, size);
    if (p == NULL) { fprintf(stderr, "img2img: out of memory\n"); exit(1); }
    return p;
}

/* A PNG of the wanted size as planes of floats in 0..1; a size of 0 becomes the file's. */
static float *load(const char *path, int32_t *width, int32_t *height)
{
    int32_t w, h;
    must(weft_png_size(path, &w, &h, &err));
    if (*width == 0) { *width = w; *height = h; }
    if (*width != w || *height != h) {
        fprintf(stderr, "img2img: %s is %dx%d, wanted %dx%d\n", path, (int)w, (int)h, (int)*width, (int)*height);
        exit(1);
    }
    size_t plane = (size_t)w * (size_t)h;
    uint8_t *rgb = zeroed(3 * plane, 1);
    float *image = zeroed(3 * plane, sizeof *image);
    must(weft_png_read(path, rgb, 3 * plane, w, h, &err));
    for (size_t i = 0; i < 3 * plane; i++) image[i % 3 * plane + i / 3] = (float)rgb[i] / 255.0f;
    free(rgb);
    return image;
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

int main(int argc, char **argv)
{
    if (argc < 5 || argc > 7) {
        fprintf(stderr, "usage: img2img MODEL PROMPT IN.png OUT.png [STRENGTH [MASK.png]]\n");
        return 2;
    }
    float strength = argc > 5 ? strtof(argv[5], NULL) : 0.7f;
    int32_t width = 0, height = 0;
    float *image = load(argv[3], &width, &height), *mask = argc > 6 ? load(argv[6], &width, &height) : NULL;

    weft_model *model;
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    must(weft_model_open(argv[1], NULL, &model, &err));
    must(weft_model_info_get(model, &info, &err));
    if (width % info.image_factor != 0 || height % info.image_factor != 0) {
        fprintf(stderr, "img2img: %dx%d pixels are not multiples of %d\n", (int)width, (int)height,
                (int)info.image_factor);
        return 1;
    }

    weft_sampler *sampler;
    weft_sampler_options schedule = WEFT_SAMPLER_OPTIONS_INIT;
    schedule.kind = WEFT_SAMPLER_DDIM;
    schedule.steps = STEPS;
    must(weft_sampler_options_from_model(model, &schedule, &err));
    must(weft_sampler_create(&schedule, &sampler, &err));
    int32_t calls = weft_sampler_calls(sampler), first;
    must(weft_sampler_start(sampler, strength, &first, &err));

    weft_plan *plan;
    weft_run *run;
    weft_run_options options = WEFT_RUN_OPTIONS_INIT;
    options.width = width / info.image_factor;
    options.height = height / info.image_factor;
    options.tile = 64;                              /* of a large image, encode and decode a part at a time */
    must(weft_plan_create(model, NULL, &plan, &err));
    must(weft_plan_seal(plan, calls, &err));
    must(weft_run_create(plan, &options, &run, &err));

    /* The image as latents, and with the noise of the first step. */
    weft_noise *noise;
    size_t plane = (size_t)options.width * (size_t)options.height, len = (size_t)info.latent_channels * plane;
    size_t pixels = (size_t)width * (size_t)height;
    float *x0 = zeroed(len, sizeof *x0), *drawn = zeroed(len, sizeof *drawn), *x = zeroed(len, sizeof *x);
    must(weft_noise_create(SEED, NULL, &noise, &err));
    must(weft_noise_normal(noise, drawn, len, &err));
    must(weft_run_encode_image(run, image, 3 * pixels, NULL, 0, x0, len, &err));
    must(weft_sampler_add_noise(sampler, first, x0, drawn, x, len, &err));

    weft_step step = WEFT_STEP_INIT;
    float *scaled = zeroed(len, sizeof *scaled), *prediction = zeroed(len, sizeof *prediction);
    float *back = zeroed(len, sizeof *back);
    weft_text text[STREAMS], empty[STREAMS];        /* SD1 reads one stream of text, SDXL two */
    int32_t streams = info.text_streams;
    if (streams > STREAMS) { fprintf(stderr, "img2img: the model reads %d text streams\n", (int)streams); return 1; }
    encode(run, argv[2], 1, text, streams);
    encode(run, "", 1, empty, streams);
    step.latent = scaled;               step.latent_len = len;
    step.out = prediction;              step.out_len = len;
    step.text = text;                   step.text_count = (size_t)streams;
    step.negative = empty;              step.negative_count = (size_t)streams;
    step.guidance = GUIDANCE;

    must(weft_sampler_begin(sampler, first, len, &err));
    for (int32_t n = first; n < calls; n++) {
        must(weft_sampler_scale(sampler, n, x, scaled, len, &err));
        step.call = n;
        step.timestep = weft_sampler_timestep(sampler, n);
        must(weft_run_step(run, &step, &err));
        must(weft_sampler_step(sampler, n, prediction, x, len, noise, &err));
        if (mask == NULL) continue;
        memcpy(back, x0, len * sizeof *back);       /* after the last step without noise */
        if (n + 1 < calls) must(weft_sampler_add_noise(sampler, n + 1, x0, drawn, back, len, &err));
        for (size_t i = 0; i < len; i++) {
            size_t row = i % plane / (size_t)options.width, col = i % (size_t)options.width;
            float white = mask[(row * (size_t)width + col) * (size_t)info.image_factor];
            x[i] = white * x[i] + (1.0f - white) * back[i];
        }
    }

    uint8_t *rgb = zeroed(3 * pixels, 1);
    must(weft_run_decode(run, x, len, image, 3 * pixels, &err));
    must(weft_image_bytes(image, 3 * pixels, width, height, rgb, 3 * pixels, &err));
    must(weft_png_write(argv[4], rgb, 3 * pixels, width, height, NULL, 0, &err));
    printf("%s: %dx%d, %d of %d steps\n", argv[4], (int)width, (int)height, (int)(calls - first), (int)calls);

    weft_model_free(model);
    weft_plan_free(plan);
    weft_run_free(run);
    weft_sampler_free(sampler);
    weft_noise_free(noise);
    for (int32_t i = 0; i < streams; i++) free(text[i].data), free(empty[i].data);
    free(image), free(mask);
    free(x0), free(drawn), free(x), free(back), free(scaled), free(prediction), free(rgb);
    return 0;
}
