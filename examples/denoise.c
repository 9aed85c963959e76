/* denoise.c - a prompt becomes an image: the whole loop, and nothing else.
 *
 * The library predicts the noise of one call. The loop over the calls is yours: between two of them
 * you may look at the latents, change them, move the run to another plan, or stop.
 *
 *   cc denoise.c $(pkg-config --cflags --libs weft) -o denoise
 *   ./denoise examples/model "a red circle on a blue background" circle.png */
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
    fprintf(stderr, "denoise: %s: %s\n", weft_status_name(st), err.text);
    exit(1);
}

static void *zeroed(size_t count, size_t size)
{
    void *p = calloc(count, size);
    if (p == NULL) { fprintf(stderr, "denoise: out of memory\n"); exit(1); }
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

int main(int argc, char **argv)
{
    if (argc != 4) { fprintf(stderr, "usage: denoise MODEL PROMPT OUT.png\n"); return 2; }

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

    weft_plan *plan;                                /* what the adapters do: here there are none */
    weft_run *run;
    must(weft_plan_create(model, NULL, &plan, &err));
    must(weft_plan_seal(plan, calls, &err));
    must(weft_run_create(plan, NULL, &run, &err));

    /* The prompt, and the empty prompt that guidance pushes away from. */
    int32_t chunks;
    must(weft_model_prompt_size(model, argv[2], NULL, &chunks, &err));
    weft_text text[STREAMS], empty[STREAMS];        /* SD1 reads one stream of text, SDXL two */
    int32_t streams = info.text_streams;
    if (streams > STREAMS) { fprintf(stderr, "denoise: the model reads %d text streams\n", (int)streams); return 1; }
    encode(run, argv[2], chunks, text, streams);
    encode(run, "", chunks, empty, streams);

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
    must(weft_png_write(argv[3], rgb, image_len, pixels, pixels, NULL, 0, &err));
    printf("%s: %dx%d, %d steps\n", argv[3], (int)pixels, (int)pixels, (int)calls);

    weft_model_free(model);                         /* in any order: a run keeps what it uses */
    weft_plan_free(plan);
    weft_run_free(run);
    weft_sampler_free(sampler);
    weft_noise_free(noise);
    for (int32_t i = 0; i < streams; i++) free(text[i].data), free(empty[i].data);
    free(x), free(scaled), free(prediction), free(image), free(rgb);
    return 0;
}
