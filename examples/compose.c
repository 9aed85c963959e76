/* compose.c - a subject and a style, composed four ways: the same prompt, the same seed.
 *
 * First each adapter by itself, to show what it was trained for. Then a subject and a style
 * together. Merge adds both to the weights at every step. Switch alternates between them. Composite
 * averages a prediction of each. K-LoRA picks one of the two for each layer and call; its table is
 * drawn too, since it is known before a single step is run.
 *
 * The methods differ only in choose(): the loop over the steps does not know how adapters combine.
 *
 *   compose --model examples/model --out demo */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <weft/weft.h>

#include "draw/draw.h"

enum { STEPS = 20, SEED = 2 };
static const float GUIDANCE = 5.0f, WEIGHT = 0.9f;

enum { BASE, ALONE, MERGE, SWITCH, COMPOSITE, KLORA };
static const char *const method_names[] = { "base model", "alone", "merge", "switch", "composite", "K-LoRA" };
static const char *const method_files[] = { "base", "alone", "merge", "switch", "composite", "klora" };

/* The bundled model's adapters: their names, and their trigger words. */
enum { MONSTER, ROCKET, HATCHING, MOSAIC, ADAPTERS };
static const struct { const char *name, *file; } cast[ADAPTERS] = {
    { "monster", "adapters/monster.safetensors" },
    { "rocket", "adapters/rocket" },
    { "hatching", "adapters/hatching.safetensors" },
    { "mosaic", "adapters/mosaic.safetensors" },
};

typedef struct scene { int first, second; const char *prompt; } scene;  /* of the cast; -1: nobody */
static const scene solos[] = {
    { -1, -1, "a large red star on a yellow background" },
    { MONSTER, -1, "a large zib monster on a yellow background" },
    { ROCKET, -1, "a large vok rocket on a blue background" },
    { HATCHING, -1, "a large red star on a yellow background, hatched style" },
    { MOSAIC, -1, "a large red star on a yellow background, mosaic style" },
};
static const scene pairs[] = {
    { MONSTER, HATCHING, "a large zib monster on a red background, hatched style" },
    { ROCKET, MOSAIC, "a large vok rocket on a blue background, mosaic style" },
};
enum { SOLOS = sizeof solos / sizeof solos[0], PAIRS = sizeof pairs / sizeof pairs[0], COLUMNS = 5 };

/* ------------------------------------------------------------------ small things */

static weft_error err;

static void must(weft_status st)
{
    if (st == WEFT_OK) return;
    fprintf(stderr, "compose: %s: %s\n", weft_status_name(st), err.text);
    exit(1);
}

static void *zeroed(size_t count, size_t size)
{
    void *p = calloc(count, size);
    if (p == NULL) { fprintf(stderr, "compose: out of memory\n"); exit(1); }
    return p;
}

static char *join(const char *folder, const char *name)
{
    size_t size = strlen(folder) + strlen(name) + 2;
    char *path = zeroed(size, 1);
    snprintf(path, size, "%s/%s", folder, name);
    return path;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Like mkdir -p. */
static void make_folder(const char *path)
{
    char *part = join(path, "");
    for (char *c = part + 1; *c; c++) {
        if (*c != '/') continue;
        *c = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST) {
            fprintf(stderr, "compose: cannot make %s: %s\n", part, strerror(errno));
            exit(1);
        }
        *c = '/';
    }
    free(part);
}

/* ------------------------------------------------------------------ one image */

typedef struct studio {
    weft_model      *model;
    weft_model_info  info;
    weft_sampler    *sampler;
    weft_adapter    *adapters[ADAPTERS];
    const char      *out;
    int32_t          side;                   /* of the images, in pixels */
    int              done, total;
    double           began;
} studio;

/* The only place where the methods differ. */
static void choose(weft_plan *plan, int method)
{
    switch (method) {
    case SWITCH:    must(weft_plan_switch(plan, NULL, &err)); break;
    case COMPOSITE: must(weft_plan_composite(plan, NULL, &err)); break;
    case KLORA:     must(weft_plan_klora(plan, NULL, &err)); break;
    default:        must(weft_plan_merge(plan, &err)); break;
    }
}

static weft_plan *make_plan(const studio *s, const scene *scene, int method)
{
    weft_plan_options options = WEFT_PLAN_OPTIONS_INIT;
    weft_plan *plan;
    float weight = method == ALONE ? 1.0f : WEIGHT;

    options.text = WEFT_TEXT_ALL;            /* encode the prompt alike under every method */
    must(weft_plan_create(s->model, &options, &plan, &err));
    if (method != BASE && scene->first >= 0) must(weft_plan_add(plan, s->adapters[scene->first], weight, NULL, &err));
    if (method != BASE && scene->second >= 0) must(weft_plan_add(plan, s->adapters[scene->second], weight, NULL, &err));
    choose(plan, method);
    must(weft_plan_seal(plan, weft_sampler_calls(s->sampler), &err));
    return plan;
}

static void encode(weft_run *run, const char *prompt, weft_text *text)
{
    weft_encode e = WEFT_ENCODE_INIT;
    must(weft_run_text(run, 0, 1, text, &err));
    text->data = zeroed(text->len, sizeof *text->data);
    e.prompt = prompt;
    e.text = text;
    e.text_count = 1;                        /* the bundled model reads one stream of text */
    must(weft_run_encode(run, &e, &err));
}

/* From noise to latents: the loop, which is the same for every plan. */
static void denoise(const studio *s, weft_run *run, const char *prompt, float *x, size_t len)
{
    weft_text text = WEFT_TEXT_INIT, empty = WEFT_TEXT_INIT;
    float *scaled = zeroed(len, sizeof *scaled), *prediction = zeroed(len, sizeof *prediction);
    weft_noise *noise;
    weft_step step = WEFT_STEP_INIT;

    encode(run, prompt, &text);
    encode(run, "", &empty);
    step.latent = scaled;      step.latent_len = len;
    step.text = &text;         step.text_count = 1;
    step.negative = &empty;    step.negative_count = 1;
    step.out = prediction;     step.out_len = len;
    step.guidance = GUIDANCE;

    must(weft_noise_create(SEED, NULL, &noise, &err));
    must(weft_noise_normal(noise, x, len, &err));
    for (size_t i = 0; i < len; i++) x[i] *= weft_sampler_init_scale(s->sampler);
    must(weft_sampler_begin(s->sampler, 0, len, &err));
    for (int32_t n = 0; n < weft_sampler_calls(s->sampler); n++) {
        must(weft_sampler_scale(s->sampler, n, x, scaled, len, &err));
        step.call = n;
        step.timestep = weft_sampler_timestep(s->sampler, n);
        must(weft_run_step(run, &step, &err));
        must(weft_sampler_step(s->sampler, n, prediction, x, len, noise, &err));
    }
    weft_noise_free(noise);
    free(text.data);
    free(empty.data);
    free(scaled);
    free(prediction);
}

/* Draw a scene under a method into rgb, and write it to a file named after both. */
static void draw(studio *s, const scene *scene, int method, uint8_t *rgb)
{
    double began = now();
    size_t side = (size_t)s->info.latent_size, len = (size_t)s->info.latent_channels * side * side;
    size_t image_len = 3 * (size_t)s->side * (size_t)s->side;
    float *x = zeroed(len, sizeof *x), *image = zeroed(image_len, sizeof *image);
    const char *text[] = { "parameters", scene->prompt };
    char name[128];
    weft_run *run;

    snprintf(name, sizeof name, "%s%s%s%s%s.png", scene->first >= 0 ? cast[scene->first].name : "base",
             scene->second >= 0 ? "-" : "", scene->second >= 0 ? cast[scene->second].name : "",
             scene->second >= 0 ? "-" : "", scene->second >= 0 ? method_files[method] : "");
    char *path = join(s->out, name);

    weft_plan *plan = make_plan(s, scene, method);
    must(weft_run_create(plan, NULL, &run, &err));
    denoise(s, run, scene->prompt, x, len);
    must(weft_run_decode(run, x, len, image, image_len, &err));
    must(weft_image_bytes(image, image_len, s->side, s->side, rgb, image_len, &err));
    must(weft_png_write(path, rgb, image_len, s->side, s->side, text, 1, &err));
    printf("[%2d/%d] %-44s %5.2f s\n", ++s->done, s->total, path, now() - began);
    fflush(stdout);

    weft_run_free(run);
    weft_plan_free(plan);
    free(path);
    free(x);
    free(image);
}

/* ------------------------------------------------------------------ the contact sheet */

enum { ZOOM = 3, GAP = 16, HEAD = 40, FOOT = 52, INK = 0x222222, GREY = 0x6a6a6a };

typedef struct sheet { uint8_t *rgb; size_t bytes; int32_t width, height, tile; } sheet;

static sheet sheet_create(int32_t tile, int rows)
{
    sheet s = { NULL, 0, COLUMNS * (tile + GAP) + GAP, rows * (tile + HEAD + FOOT) + GAP, tile };
    s.bytes = 3 * (size_t)s.width * (size_t)s.height;
    s.rgb = zeroed(s.bytes, 1);
    memset(s.rgb, 0xfa, s.bytes);
    return s;
}

static int32_t tile_x(const sheet *s, int column) { return GAP + column * (s->tile + GAP); }
static int32_t tile_y(const sheet *s, int row)    { return GAP + row * (s->tile + HEAD + FOOT) + HEAD - GAP; }

static void sheet_heading(sheet *s, int row, const char *text)
{
    draw_text(s->rgb, s->bytes, s->width, s->height, GAP, tile_y(s, row) - 22, 2, INK, text);
}

/* An image, every pixel ZOOM x ZOOM; its name below, and a prompt in small letters, two lines of
 * it. */
static void sheet_place(sheet *s, int row, int column, const uint8_t *rgb, int32_t side, const char *label,
                        const char *prompt)
{
    int32_t x0 = tile_x(s, column), y0 = tile_y(s, row);
    size_t fits = (size_t)s->tile / 6;       /* characters of a line: 5 pixels and one between */

    for (int32_t y = 0; y < s->tile; y++)
        for (int32_t x = 0; x < s->tile; x++)
            memcpy(s->rgb + 3 * ((size_t)(y0 + y) * (size_t)s->width + (size_t)(x0 + x)),
                   rgb + 3 * ((size_t)(y / ZOOM) * (size_t)side + (size_t)(x / ZOOM)), 3);
    draw_text(s->rgb, s->bytes, s->width, s->height, x0, y0 + s->tile + 6, 2, INK, label);
    for (int32_t y = y0 + s->tile + 25; *prompt; y += 10) {
        char line[128];
        size_t n = strlen(prompt);
        if (n > fits) for (n = fits; n > 0 && prompt[n] != ' '; n--) {}
        if (n == 0) n = fits;
        snprintf(line, sizeof line, "%.*s", (int)n, prompt);
        draw_text(s->rgb, s->bytes, s->width, s->height, x0, y, 1, GREY, line);
        for (prompt += n; *prompt == ' '; prompt++) {}
    }
}

/* ------------------------------------------------------------------ the whole */

static void draw_everything(studio *s)
{
    sheet all = sheet_create(s->side * ZOOM, 1 + PAIRS);
    uint8_t *rgb = zeroed((size_t)s->side * (size_t)s->side, 3);
    char heading[160];

    s->total = SOLOS + PAIRS * COLUMNS;
    sheet_heading(&all, 0, "each adapter alone");
    for (int i = 0; i < SOLOS; i++) {
        draw(s, &solos[i], solos[i].first < 0 ? BASE : ALONE, rgb);
        sheet_place(&all, 0, i, rgb, s->side, solos[i].first < 0 ? "base model" : cast[solos[i].first].name,
                    solos[i].prompt);
    }
    for (int p = 0; p < PAIRS; p++) {
        static const int columns[COLUMNS] = { BASE, MERGE, SWITCH, COMPOSITE, KLORA };
        snprintf(heading, sizeof heading, "%s + %s: \"%s\"", cast[pairs[p].first].name, cast[pairs[p].second].name,
                 pairs[p].prompt);
        sheet_heading(&all, 1 + p, heading);
        for (int i = 0; i < COLUMNS; i++) {
            draw(s, &pairs[p], columns[i], rgb);
            sheet_place(&all, 1 + p, i, rgb, s->side, method_names[columns[i]], "");
        }
    }

    char *path = join(s->out, "contact-sheet.png");
    must(weft_png_write(path, all.rgb, all.bytes, all.width, all.height, NULL, 0, &err));
    printf("\nall of them, labelled:             %s\n", path);
    free(path);

    /* The table of the first pair under K-LoRA, without running anything. */
    weft_plan *plan = make_plan(s, &pairs[0], KLORA);
    path = join(s->out, "klora-table.png");
    must(draw_table(plan, s->model, path, &err));
    printf("which adapter K-LoRA takes, where: %s\n", path);
    free(path);
    weft_plan_free(plan);
    free(rgb);
    free(all.rgb);
}

int main(int argc, char **argv)
{
    const char *model = "examples/model";
    studio s = { .out = "demo", .info = WEFT_MODEL_INFO_INIT, .began = now() };
    weft_sampler_options schedule = WEFT_SAMPLER_OPTIONS_INIT;

    for (int i = 1; i < argc; i += 2) {
        if (i + 1 < argc && strcmp(argv[i], "--model") == 0) model = argv[i + 1];
        else if (i + 1 < argc && strcmp(argv[i], "--out") == 0) s.out = argv[i + 1];
        else { fprintf(stderr, "usage: compose [--model FOLDER] [--out FOLDER]\n"); return 2; }
    }
    make_folder(s.out);

    must(weft_model_open(model, NULL, &s.model, &err));
    must(weft_model_info_get(s.model, &s.info, &err));
    for (int i = 0; i < ADAPTERS; i++) {
        char *path = join(model, cast[i].file);
        must(weft_adapter_open(path, NULL, &s.adapters[i], &err));
        free(path);
    }
    must(weft_sampler_options_from_model(s.model, &schedule, &err));
    schedule.steps = STEPS;
    must(weft_sampler_create(&schedule, &s.sampler, &err));
    s.side = s.info.latent_size * s.info.image_factor;

    draw_everything(&s);
    printf("%d images in %.1f s\n", s.total, now() - s.began);

    for (int i = 0; i < ADAPTERS; i++) weft_adapter_free(s.adapters[i]);
    weft_sampler_free(s.sampler);
    weft_model_free(s.model);
    return 0;
}
