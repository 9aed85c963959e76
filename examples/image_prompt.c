/* image_prompt.c - a picture says what words cannot: an IP-Adapter beside a prompt.
 *
 * The encoder turns the picture into features, the IP-Adapter these into a few rows that stand beside
 * the text in every cross-attention. Both halves of guidance need some: those of the picture, and
 * those of no picture. Without BLOCKS the picture counts everywhere; for SDXL
 * "NONE,up_blocks.0.attentions.1*=1" takes its style alone.
 *
 *   cc image_prompt.c $(pkg-config --cflags --libs weft) -o image_prompt
 *   ./image_prompt sd15/ ip-adapter_sd15.safetensors image_encoder/ face.png "a person in the rain" out.png 0.6 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <weft/weft.h>

enum { STEPS = 20, SEED = 1, STREAMS = 4 };
static const float GUIDANCE = 5.0f;

static weft_error err;

static void must(weft_status st)
{
    if (st == WEFT_OK) return;
    fprintf(stderr, "image_prompt: %s: %s\n", weft_status_name(st), err.text);
    exit(1);
}

static void *zeroed(size_t count, size_t size)
{
    void *p = calloc(count, size);
    if (p == NULL) { fprintf(stderr, "image_prompt: out of memory\n"); exit(1); }
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

/* A PNG as (3, h, w) in 0..1. */
static float *read_picture(const char *path, int32_t *w, int32_t *h)
{
    must(weft_png_size(path, w, h, &err));
    size_t pixels = (size_t)*w * (size_t)*h;
    uint8_t *rgb = zeroed(pixels, 3);
    float *picture = zeroed(3 * pixels, sizeof *picture);
    must(weft_png_read(path, rgb, 3 * pixels, *w, *h, &err));
    for (size_t i = 0; i < 3 * pixels; i++) picture[i % 3 * pixels + i / 3] = rgb[i] / 255.0f;
    free(rgb);
    return picture;
}

/* The rows of the plan's only image prompt, of a picture or (NULL) of none. */
static weft_text encode_picture(weft_run *run, const weft_plan *plan, const weft_image_encoder *encoder,
                                const float *picture, int32_t w, int32_t h)
{
    weft_image_prompt_info about = WEFT_IMAGE_PROMPT_INFO_INIT;
    weft_image_encode e = WEFT_IMAGE_ENCODE_INIT;
    weft_text rows = WEFT_TEXT_INIT;

    must(weft_plan_image_prompt(plan, 0, &about, &err));
    e.encoder = encoder;
    e.image = picture;
    if (picture != NULL) e.width = w, e.height = h, e.image_len = 3 * (size_t)w * (size_t)h;
    e.len = (size_t)about.tokens * (size_t)about.width;
    e.data = rows.data = zeroed(e.len, sizeof(float));
    must(weft_run_encode_image_prompt(run, &e, &err));
    rows.tokens = e.tokens;
    rows.len = (size_t)e.tokens * (size_t)about.width;
    return rows;
}

int main(int argc, char **argv)
{
    if (argc < 7 || argc > 9) {
        fprintf(stderr, "usage: image_prompt MODEL IP_ADAPTER IMAGE_ENCODER PICTURE.png PROMPT OUT.png [WEIGHT [BLOCKS]]\n");
        return 2;
    }

    weft_model *model;
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    must(weft_model_open(argv[1], NULL, &model, &err));
    must(weft_model_info_get(model, &info, &err));

    weft_sampler *sampler;                          /* which noise levels, and how to get from one to the next */
    weft_sampler_options schedule = WEFT_SAMPLER_OPTIONS_INIT;
    schedule.kind = WEFT_SAMPLER_DPMPP_2M;
    schedule.steps = STEPS;
    must(weft_sampler_options_from_model(model, &schedule, &err));
    must(weft_sampler_create(&schedule, &sampler, &err));
    int32_t calls = weft_sampler_calls(sampler);

    weft_image_encoder *encoder;
    weft_image_adapter *adapter;
    weft_image_prompt_options how = WEFT_IMAGE_PROMPT_OPTIONS_INIT;
    weft_plan *plan;
    weft_run *run;
    must(weft_image_encoder_open(argv[3], NULL, &encoder, &err));
    must(weft_image_adapter_open(argv[2], NULL, &adapter, &err));
    must(weft_plan_create(model, NULL, &plan, &err));
    how.blocks = argc > 8 ? argv[8] : NULL;
    must(weft_plan_add_image_prompt(plan, adapter, argc > 7 ? (float)atof(argv[7]) : 1.0f, &how, &err));
    must(weft_plan_seal(plan, calls, &err));
    must(weft_run_create(plan, NULL, &run, &err));

    /* The prompt, and the empty prompt that guidance pushes away from. */
    int32_t chunks;
    must(weft_model_prompt_size(model, argv[5], NULL, &chunks, &err));
    weft_text text[STREAMS], empty[STREAMS];        /* SD1 reads one stream of text, SDXL two */
    int32_t streams = info.text_streams;
    if (streams > STREAMS) { fprintf(stderr, "image_prompt: the model reads %d text streams\n", (int)streams); return 1; }
    encode(run, argv[5], chunks, text, streams);
    encode(run, "", chunks, empty, streams);

    int32_t w, h;
    float *picture = read_picture(argv[4], &w, &h);
    weft_text seen = encode_picture(run, plan, encoder, picture, w, h), unseen = encode_picture(run, plan, encoder, NULL, 0, 0);

    /* Noise to begin with: the same numbers that torch's generator gives for this seed. */
    weft_noise *noise;
    size_t side = (size_t)info.latent_size, len = (size_t)info.latent_channels * side * side;
    float *x = zeroed(len, sizeof *x), *scaled = zeroed(len, sizeof *scaled), *prediction = zeroed(len, sizeof *prediction);
    must(weft_noise_create(SEED, NULL, &noise, &err));
    must(weft_noise_normal(noise, x, len, &err));
    for (size_t i = 0; i < len; i++) x[i] *= weft_sampler_init_scale(sampler);

    weft_step step = WEFT_STEP_INIT;
    step.latent = scaled;                   step.latent_len = len;
    step.text = text;                       step.text_count = (size_t)streams;
    step.negative = empty;                  step.negative_count = (size_t)streams;
    step.image = &seen;                     step.image_count = 1;
    step.image_negative = &unseen;          step.image_negative_count = 1;
    step.out = prediction;                  step.out_len = len;
    step.guidance = GUIDANCE;

    must(weft_sampler_begin(sampler, 0, len, &err));
    for (int32_t n = 0; n < calls; n++) {
        must(weft_sampler_scale(sampler, n, x, scaled, len, &err));
        step.call = n;
        step.timestep = weft_sampler_timestep(sampler, n);
        must(weft_run_step(run, &step, &err));
        must(weft_sampler_step(sampler, n, prediction, x, len, noise, &err));
    }

    /* Latents to pixels, pixels to a file. */
    int32_t pixels = info.latent_size * info.image_factor;
    size_t image_len = 3 * (size_t)pixels * (size_t)pixels;
    float *image = zeroed(image_len, sizeof *image);
    uint8_t *rgb = zeroed(image_len, 1);
    must(weft_run_decode(run, x, len, image, image_len, &err));
    must(weft_image_bytes(image, image_len, pixels, pixels, rgb, image_len, &err));
    must(weft_png_write(argv[6], rgb, image_len, pixels, pixels, NULL, 0, &err));
    printf("%s: %dx%d, %d steps\n", argv[6], (int)pixels, (int)pixels, (int)calls);

    weft_image_encoder_free(encoder);
    weft_image_adapter_free(adapter);
    weft_model_free(model);                         /* in any order: a run keeps what it uses */
    weft_plan_free(plan);
    weft_run_free(run);
    weft_sampler_free(sampler);
    weft_noise_free(noise);
    for (int32_t i = 0; i < streams; i++) free(text[i].data), free(empty[i].data);
    free(picture), free(seen.data), free(unseen.data);
    free(x), free(scaled), free(prediction), free(image), free(rgb);
    return 0;
}
