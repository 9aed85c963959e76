/* words.c - a model learns a token: a textual inversion in prompts, by itself, weighted, with a
 * LoRA.
 *
 * A concept is a file with a placeholder token and its vectors, and perhaps an adapter. A plan that
 * has it knows the token: in every prompt that is encoded under the plan, the vectors take its
 * place. Nothing else of the model changes, so a token goes with any adapters and any method. All
 * images of the sheet have the same prompt and seed.
 *
 *   cc words.c draw/font.c $(pkg-config --cflags --libs weft) -o words
 *   ./words examples/model words.png */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/weft.h>

#include "draw/draw.h"

enum { STEPS = 20, SEED = 2, ZOOM = 3, GAP = 16, FOOT = 48, INK = 0x222222, GREY = 0x6a6a6a };
static const float GUIDANCE = 5.0f;

static const struct tile {
    const char *label, *prompt;
    int         word, style; /* has the plan the concept, and the hatching? */
} tiles[] = {
    { "without the word", "a <teal> star on a white background", 0, 0 },
    { "with it", "a <teal> star on a white background", 1, 0 },
    { "another shape", "a large <teal> heart on a white background", 1, 0 },
    { "weighted", "a (<teal>:1.6) star on a (white:0.5) background", 1, 0 },
    { "and a style", "a <teal> star on a white background, hatched style", 1, 1 },
};
enum { TILES = sizeof tiles / sizeof tiles[0] };

typedef struct studio {
    weft_model     *model;
    weft_model_info info;
    weft_sampler   *sampler;
    weft_concept   *teal;
    weft_adapter   *hatching;
    int32_t         side; /* of an image, in pixels */
} studio;

static weft_error err;

static void must(weft_status st)
{
    if (st == WEFT_OK) return;
    fprintf(stderr, "words: %s: %s\n", weft_status_name(st), err.text);
    exit(1);
}

static void *zeroed(size_t count, size_t size)
{
    void *p = calloc(count, size);
    if (p == NULL) { fprintf(stderr, "words: out of memory\n"); exit(1); }
    return p;
}

static char *in_model(const char *model, const char *name)
{
    size_t size = strlen(model) + strlen(name) + 2;
    char *path = zeroed(size, 1);
    snprintf(path, size, "%s/%s", model, name);
    return path;
}

static void encode(weft_run *run, const char *prompt, weft_text *text, weft_step *step)
{
    weft_encode e = WEFT_ENCODE_INIT;
    must(weft_run_text(run, 0, 1, text, &err));
    text->data = zeroed(text->len, sizeof *text->data);
    e.flags = WEFT_ENCODE_WEIGHTS;
    e.prompt = prompt;
    e.text = text;
    e.text_count = 1;      /* the bundled model reads one stream of text */
    must(weft_run_encode(run, &e, &err));
    step->stamp = e.stamp; /* a step under another plan's words would be refused */
}

static void denoise(const studio *s, weft_run *run, const char *prompt, float *x, size_t len)
{
    weft_step step = WEFT_STEP_INIT;
    weft_noise *noise;
    weft_text text = WEFT_TEXT_INIT, empty = WEFT_TEXT_INIT;
    float *scaled = zeroed(len, sizeof *scaled), *prediction = zeroed(len, sizeof *prediction);

    encode(run, prompt, &text, &step);
    encode(run, "", &empty, &step);
    must(weft_noise_create(SEED, NULL, &noise, &err));
    must(weft_noise_normal(noise, x, len, &err));
    for (size_t i = 0; i < len; i++) x[i] *= weft_sampler_init_scale(s->sampler);
    step.latent = scaled;    step.latent_len = len;
    step.text = &text;       step.text_count = 1;
    step.negative = &empty;  step.negative_count = 1;
    step.out = prediction;   step.out_len = len;
    step.guidance = GUIDANCE;
    must(weft_sampler_begin(s->sampler, 0, len, &err));
    for (step.call = 0; step.call < weft_sampler_calls(s->sampler); step.call++) {
        must(weft_sampler_scale(s->sampler, step.call, x, scaled, len, &err));
        step.timestep = weft_sampler_timestep(s->sampler, step.call);
        must(weft_run_step(run, &step, &err));
        must(weft_sampler_step(s->sampler, step.call, prediction, x, len, noise, &err));
    }
    weft_noise_free(noise);
    free(text.data), free(empty.data), free(scaled), free(prediction);
}

static void draw(const studio *s, const struct tile *t, uint8_t *rgb)
{
    weft_plan *plan;
    weft_run *run;
    size_t latents = (size_t)s->info.latent_channels * (size_t)s->info.latent_size * (size_t)s->info.latent_size;
    size_t pixels = 3 * (size_t)s->side * (size_t)s->side;
    float *x = zeroed(latents, sizeof *x), *image = zeroed(pixels, sizeof *image);

    must(weft_plan_create(s->model, NULL, &plan, &err));
    if (t->word) must(weft_plan_add_concept(plan, s->teal, 1.0f, NULL, &err));
    if (t->style) must(weft_plan_add(plan, s->hatching, 1.0f, NULL, &err));
    must(weft_plan_seal(plan, weft_sampler_calls(s->sampler), &err));
    must(weft_run_create(plan, NULL, &run, &err));
    denoise(s, run, t->prompt, x, latents);
    must(weft_run_decode(run, x, latents, image, pixels, &err));
    must(weft_image_bytes(image, pixels, s->side, s->side, rgb, pixels, &err));
    weft_run_free(run);
    weft_plan_free(plan);
    free(x), free(image);
}

int main(int argc, char **argv)
{
    if (argc != 3) { fprintf(stderr, "usage: words MODEL OUT.png\n"); return 2; }

    studio s = { .info = WEFT_MODEL_INFO_INIT };
    weft_sampler_options schedule = WEFT_SAMPLER_OPTIONS_INIT;
    char *word = in_model(argv[1], "words/teal.safetensors"), *style = in_model(argv[1], "adapters/hatching.safetensors");
    must(weft_model_open(argv[1], NULL, &s.model, &err));
    must(weft_model_info_get(s.model, &s.info, &err));
    must(weft_concept_open(word, NULL, &s.teal, &err));
    must(weft_adapter_open(style, NULL, &s.hatching, &err));
    schedule.kind = WEFT_SAMPLER_DPMPP_2M;
    schedule.steps = STEPS;
    must(weft_sampler_options_from_model(s.model, &schedule, &err));
    must(weft_sampler_create(&schedule, &s.sampler, &err));
    s.side = s.info.latent_size * s.info.image_factor;

    int32_t tile = s.side * ZOOM, width = TILES * (tile + GAP) + GAP, height = tile + FOOT + GAP;
    size_t bytes = 3 * (size_t)width * (size_t)height;
    uint8_t *sheet = zeroed(bytes, 1), *rgb = zeroed((size_t)s.side * (size_t)s.side, 3);
    memset(sheet, 0xfa, bytes);
    for (int32_t i = 0; i < TILES; i++) {
        int32_t left = GAP + i * (tile + GAP);
        size_t half = strlen(tiles[i].prompt), cut = half < (size_t)tile / 6 ? half : (size_t)tile / 6;
        char line[128];
        draw(&s, &tiles[i], rgb);
        for (int32_t y = 0; y < tile; y++)
            for (int32_t x = 0; x < tile; x++)
                memcpy(sheet + 3 * ((size_t)(GAP + y) * (size_t)width + (size_t)(left + x)),
                       rgb + 3 * ((size_t)(y / ZOOM) * (size_t)s.side + (size_t)(x / ZOOM)), 3);
        draw_text(sheet, bytes, width, height, left, GAP + tile + 6, 2, INK, tiles[i].label);
        while (cut < half && cut > 0 && tiles[i].prompt[cut] != ' ') cut--;
        snprintf(line, sizeof line, "%.*s", (int)cut, tiles[i].prompt);
        draw_text(sheet, bytes, width, height, left, GAP + tile + 25, 1, GREY, line);
        draw_text(sheet, bytes, width, height, left, GAP + tile + 35, 1, GREY, tiles[i].prompt + cut + (cut < half));
        printf("[%d/%d] %s: %s\n", (int)i + 1, TILES, tiles[i].label, tiles[i].prompt);
        fflush(stdout);
    }
    must(weft_png_write(argv[2], sheet, bytes, width, height, NULL, 0, &err));
    printf("a word, alone and in company:      %s\n", argv[2]);

    weft_model_free(s.model);
    weft_concept_free(s.teal);
    weft_adapter_free(s.hatching);
    weft_sampler_free(s.sampler);
    free(sheet), free(rgb), free(word), free(style);
    return 0;
}
