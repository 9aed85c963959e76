/* delayed.c - one text for the layout, another for the subject: delayed conditioning.
 *
 * The first calls of an image decide where things are, the later ones what they look like. So the
 * subject may be left to the later ones: until then the prompt has a plain word in its place, for
 * which the model knows better how it stands in a scene. The library takes a text at every call, and
 * which one is the caller's affair: here a share of all calls reads the first (Xiao et al.,
 * FastComposer, 2023).
 *
 *   cc delayed.c $(pkg-config --cflags --libs weft) -o delayed
 *   ./delayed examples/model examples/model/adapters/monster.safetensors \
 *       "a circle on a red background" 0.3 "a zib monster on a red background" monster.png */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <weft/weft.h>

enum { STEPS = 20, SEED = 4, STREAMS = 4 };
static const float GUIDANCE = 5.0f;

static weft_error err;

static void must(weft_status st)
{
    if (st == WEFT_OK) return;
    fprintf(stderr, "delayed: %s: %s\n", weft_status_name(st), err.text);
    exit(1);
}

static void *zeroed(size_t count, size_t size)
{
    void *p = calloc(count, size);
    if (p == NULL) { fprintf(stderr, "delayed: out of memory\n"); exit(1); }
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

/* Both texts get the same room, that of the longer. */
static int32_t chunks_of(const weft_model *model, const char *early, const char *late)
{
    int32_t a, b;
    must(weft_model_prompt_size(model, early, NULL, &a, &err));
    must(weft_model_prompt_size(model, late, NULL, &b, &err));
    return a > b ? a : b;
}

int main(int argc, char **argv)
{
    if (argc != 7) { fprintf(stderr, "usage: delayed MODEL ADAPTER EARLY SHARE LATE OUT.png\n"); return 2; }
    double share = strtod(argv[4], NULL);
    if (!(share >= 0 && share <= 1)) { fprintf(stderr, "delayed: '%s' is not a share from 0 to 1\n", argv[4]); return 2; }

    weft_model *model;
    weft_adapter *subject;
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    must(weft_model_open(argv[1], NULL, &model, &err));
    must(weft_adapter_open(argv[2], NULL, &subject, &err));
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
    must(weft_plan_create(model, NULL, &plan, &err));
    must(weft_plan_add(plan, subject, 1.0f, NULL, &err));
    must(weft_plan_seal(plan, calls, &err));
    must(weft_run_create(plan, NULL, &run, &err));

    weft_text early[STREAMS], late[STREAMS], empty[STREAMS];
    int32_t streams = info.text_streams, chunks = chunks_of(model, argv[3], argv[5]);
    if (streams > STREAMS) { fprintf(stderr, "delayed: the model reads %d text streams\n", (int)streams); return 1; }
    encode(run, argv[3], chunks, early, streams);
    encode(run, argv[5], chunks, late, streams);
    encode(run, "", chunks, empty, streams);

    weft_noise *noise;
    size_t side = (size_t)info.latent_size, len = (size_t)info.latent_channels * side * side;
    float *x = zeroed(len, sizeof *x), *scaled = zeroed(len, sizeof *scaled), *prediction = zeroed(len, sizeof *prediction);
    must(weft_noise_create(SEED, NULL, &noise, &err));
    must(weft_noise_normal(noise, x, len, &err));
    for (size_t i = 0; i < len; i++) x[i] *= weft_sampler_init_scale(sampler);

    weft_step step = WEFT_STEP_INIT;
    step.latent = scaled;                   step.latent_len = len;
    step.text_count = step.negative_count = (size_t)streams;
    step.negative = empty;
    step.out = prediction;                  step.out_len = len;
    step.guidance = GUIDANCE;

    int32_t changed = calls;
    must(weft_sampler_begin(sampler, 0, len, &err));
    for (int32_t n = 0; n < calls; n++) {
        must(weft_sampler_scale(sampler, n, x, scaled, len, &err));
        step.text = (double)n / calls < share ? early : late;       /* this is all of it */
        if (step.text == late && changed == calls) changed = n;
        step.call = n;
        step.timestep = weft_sampler_timestep(sampler, n);
        must(weft_run_step(run, &step, &err));
        must(weft_sampler_step(sampler, n, prediction, x, len, noise, &err));
    }

    int32_t pixels = info.latent_size * info.image_factor;
    size_t image_len = 3 * (size_t)pixels * (size_t)pixels;
    float *image = zeroed(image_len, sizeof *image);
    uint8_t *rgb = zeroed(image_len, 1);
    must(weft_run_decode(run, x, len, image, image_len, &err));
    must(weft_image_bytes(image, image_len, pixels, pixels, rgb, image_len, &err));
    must(weft_png_write(argv[6], rgb, image_len, pixels, pixels, NULL, 0, &err));
    printf("%s: %dx%d, %d of %d calls read the second text\n", argv[6], (int)pixels, (int)pixels, (int)(calls - changed), (int)calls);

    weft_model_free(model);
    weft_adapter_free(subject);
    weft_plan_free(plan);
    weft_run_free(run);
    weft_sampler_free(sampler);
    weft_noise_free(noise);
    for (int32_t i = 0; i < streams; i++) free(early[i].data), free(late[i].data), free(empty[i].data);
    free(x), free(scaled), free(prediction), free(image), free(rgb);
    return 0;
}
