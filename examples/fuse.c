/* fuse.c - two subjects in one adapter: fused by least squares, beside their sum.
 *
 * Summed, each adapter acts on the other's words too, and the stronger one wins. Fused, the new
 * weights do what each adapter does on what layers read while that subject is meant. A concept is a
 * sealed plan and a few prompts that speak of it: the rows that layers read come from these, so they
 * should look like those that the adapter will be used with.
 *
 *   cc fuse.c draw/font.c $(pkg-config --cflags --libs weft) -o fuse
 *   ./fuse examples/model fused.png */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/weft.h>

#include "draw/draw.h"

enum { STEPS = 20, SEED = 3, ZOOM = 3, GAP = 16, FOOT = 20, INK = 0x222222 };
static const float GUIDANCE = 5.0f;

/* What each is meant by. The last concept is the model itself: a plan without an adapter, which holds
 * the weights where its own prompts need them. */
static const char *const monsters[] = { "a zib monster on a red background", "a large zib monster on a green background",
                                        "a zib monster at night", "zib monster" };
static const char *const rockets[] = { "a vok rocket on a blue background", "a large vok rocket on a yellow background",
                                       "a vok rocket by the sea", "vok rocket" };
static const char *const shapes[] = { "a large yellow star on a purple background", "a red circle on a blue background",
                                      "a white heart at night", "a green square" };
static const struct subject {
    const char *file, *name, *const *prompts;
} subjects[] = {
    { "adapters/monster.safetensors", "zib monster", monsters },
    { "adapters/rocket", "vok rocket", rockets },
    { NULL, "shapes", shapes },
};
enum { SUBJECTS = 2, CONCEPTS = 3, PROMPTS = 4 };

static const char *const rows[] = { "a zib monster on a red background", "a vok rocket on a blue background",
                                    "a large yellow star on a purple background" };
static const char *const columns[] = { "its own adapter", "both, summed", "both, fused" };
enum { ROWS = 3, COLUMNS = 3, ALONE = 0, SUMMED = 1 };

typedef struct studio {
    weft_model     *model;
    weft_model_info info;
    weft_sampler   *sampler;
    weft_adapter   *adapter[SUBJECTS], *fused;
    int32_t         side; /* of an image, in pixels */
} studio;

static weft_error err;

static void must(weft_status st)
{
    if (st == WEFT_OK) return;
    fprintf(stderr, "fuse: %s: %s\n", weft_status_name(st), err.text);
    exit(1);
}

static void *zeroed(size_t count, size_t size)
{
    void *p = calloc(count, size);
    if (p == NULL) { fprintf(stderr, "fuse: out of memory\n"); exit(1); }
    return p;
}

/* ---- fusing ---------------------------------------------------------------------------------- */

static weft_plan *plan_of(const studio *s, int first, int count, int32_t calls)
{
    weft_plan *plan;
    must(weft_plan_create(s->model, NULL, &plan, &err));
    for (int i = first; i < first + count; i++) must(weft_plan_add(plan, s->adapter[i], 1.0f, NULL, &err));
    must(weft_plan_seal(plan, calls, &err));
    return plan;
}

static weft_adapter *fuse(const studio *s)
{
    weft_fuse_options o = WEFT_FUSE_OPTIONS_INIT; /* kind WEFT_FUSE_GRADIENT: all layers */
    weft_fuse        *f;
    weft_adapter     *fused;
    double            before = 0, after = 0;

    o.steps = 10;
    must(weft_fuse_create(s->model, &o, &f, &err));
    for (int i = 0; i < CONCEPTS; i++) {
        weft_fuse_concept c = WEFT_FUSE_CONCEPT_INIT;
        c.plan = plan_of(s, i, i < SUBJECTS ? 1 : 0, 1);
        c.name = subjects[i].name;
        c.prompts = subjects[i].prompts;
        c.prompts_count = PROMPTS;
        c.images = PROMPTS; /* one of each */
        c.seed = 100;       /* and not the noise that is drawn from below */
        must(weft_fuse_add_concept(f, &c, &err));
        weft_plan_free(c.plan);
    }
    must(weft_fuse_run(f, &fused, &err));
    for (size_t i = 0; i < weft_fuse_count(f); i++) {
        weft_fuse_row row = WEFT_FUSE_ROW_INIT;
        must(weft_fuse_get(f, i, &row, &err));
        before += row.before;
        after += row.after;
    }
    printf("%zu layers fused; %.1f %% of what the subjects change is left\n", weft_fuse_count(f), 100 * after / before);
    weft_fuse_free(f);
    return fused;
}

/* ---- drawing --------------------------------------------------------------------------------- */

static void encode(weft_run *run, const char *prompt, weft_text *text)
{
    weft_encode e = WEFT_ENCODE_INIT;
    must(weft_run_text(run, 0, 1, text, &err));
    text->data = zeroed(text->len, sizeof *text->data);
    e.prompt = prompt;
    e.text = text;
    e.text_count = 1; /* the bundled model reads one stream of text */
    must(weft_run_encode(run, &e, &err));
}

static void denoise(const studio *s, weft_run *run, const char *prompt, float *x, size_t len)
{
    weft_step step = WEFT_STEP_INIT;
    weft_noise *noise;
    weft_text text = WEFT_TEXT_INIT, empty = WEFT_TEXT_INIT;
    float *scaled = zeroed(len, sizeof *scaled), *prediction = zeroed(len, sizeof *prediction);

    encode(run, prompt, &text);
    encode(run, "", &empty);
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

static void draw(const studio *s, weft_plan *plan, const char *prompt, uint8_t *rgb)
{
    weft_run *run;
    size_t latents = (size_t)s->info.latent_channels * (size_t)s->info.latent_size * (size_t)s->info.latent_size;
    size_t pixels = 3 * (size_t)s->side * (size_t)s->side;
    float *x = zeroed(latents, sizeof *x), *image = zeroed(pixels, sizeof *image);

    must(weft_run_create(plan, NULL, &run, &err));
    denoise(s, run, prompt, x, latents);
    must(weft_run_decode(run, x, latents, image, pixels, &err));
    must(weft_image_bytes(image, pixels, s->side, s->side, rgb, pixels, &err));
    weft_run_free(run);
    free(x), free(image);
}

/* The last row is of neither subject: its own adapter is none. */
static weft_plan *plan_for(const studio *s, int row, int column)
{
    int32_t calls = weft_sampler_calls(s->sampler);
    weft_plan *plan;

    if (column == ALONE) return plan_of(s, row, row < SUBJECTS ? 1 : 0, calls);
    if (column == SUMMED) return plan_of(s, 0, SUBJECTS, calls);
    must(weft_plan_create(s->model, NULL, &plan, &err));
    must(weft_plan_add(plan, s->fused, 1.0f, NULL, &err));
    must(weft_plan_seal(plan, calls, &err));
    return plan;
}

static void draw_sheet(const studio *s, const char *path)
{
    int32_t tile = s->side * ZOOM, width = COLUMNS * (tile + GAP) + GAP, height = ROWS * (tile + FOOT + GAP) + GAP + FOOT;
    size_t bytes = 3 * (size_t)width * (size_t)height;
    uint8_t *sheet = zeroed(bytes, 1), *rgb = zeroed((size_t)s->side * (size_t)s->side, 3);

    memset(sheet, 0xfa, bytes);
    for (int i = 0; i < COLUMNS; i++)
        draw_text(sheet, bytes, width, height, GAP + i * (tile + GAP), GAP, 2, INK, columns[i]);
    for (int r = 0; r < ROWS; r++) {
        int32_t top = GAP + FOOT + r * (tile + FOOT + GAP);
        for (int i = 0; i < COLUMNS; i++) {
            weft_plan *plan = plan_for(s, r, i);
            int32_t left = GAP + i * (tile + GAP);
            draw(s, plan, rows[r], rgb);
            for (int32_t y = 0; y < tile; y++)
                for (int32_t x = 0; x < tile; x++)
                    memcpy(sheet + 3 * ((size_t)(top + y) * (size_t)width + (size_t)(left + x)),
                           rgb + 3 * ((size_t)(y / ZOOM) * (size_t)s->side + (size_t)(x / ZOOM)), 3);
            weft_plan_free(plan);
        }
        draw_text(sheet, bytes, width, height, GAP, top + tile + 6, 1, INK, rows[r]);
    }
    must(weft_png_write(path, sheet, bytes, width, height, NULL, 0, &err));
    free(sheet), free(rgb);
}

int main(int argc, char **argv)
{
    if (argc != 3) { fprintf(stderr, "usage: fuse MODEL OUT.png\n"); return 2; }

    studio s = { .info = WEFT_MODEL_INFO_INIT };
    weft_sampler_options schedule = WEFT_SAMPLER_OPTIONS_INIT;
    must(weft_model_open(argv[1], NULL, &s.model, &err));
    must(weft_model_info_get(s.model, &s.info, &err));
    for (int i = 0; i < SUBJECTS; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", argv[1], subjects[i].file);
        must(weft_adapter_open(path, NULL, &s.adapter[i], &err));
    }
    schedule.kind = WEFT_SAMPLER_DPMPP_2M;
    schedule.steps = STEPS;
    must(weft_sampler_options_from_model(s.model, &schedule, &err));
    must(weft_sampler_create(&schedule, &s.sampler, &err));
    s.side = s.info.latent_size * s.info.image_factor;

    s.fused = fuse(&s);
    draw_sheet(&s, argv[2]);
    printf("two subjects alone, summed and fused:  %s\n", argv[2]);

    for (int i = 0; i < SUBJECTS; i++) weft_adapter_free(s.adapter[i]);
    weft_adapter_free(s.fused);
    weft_sampler_free(s.sampler);
    weft_model_free(s.model);
    return 0;
}
