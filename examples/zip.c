/* zip.c - two adapters in every layer, by columns and by blocks, and folded into one file.
 *
 * ZipLoRA gives each input of a layer to the adapter that needs it more. B-LoRA gives whole blocks.
 * Weights by block are numbers of your own. All three stay the same from call to call, so a plan of
 * them folds into one adapter, exactly: here the picture with the folded adapter is held against
 * the plan's own.
 *
 *   zip examples/model monster.safetensors hatching.safetensors "a large zib monster ..." out */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/weft.h>

#include "draw/draw.h"

enum { WAYS = 3 };
static weft_error err;

static void must(weft_status st)
{
    if (st == WEFT_OK) return;
    fprintf(stderr, "zip: %s: %s\n", weft_status_name(st), err.text);
    exit(1);
}

/* Subject 0, style 1. */
static void by_columns(weft_plan *p) { must(weft_plan_zip(p, NULL, &err)); }
static void by_blocks(weft_plan *p)  { must(weft_plan_blora(p, NULL, &err)); }
static void by_numbers(weft_plan *p)
{
    /* the style at 1.2 outside, at 0.3 in the middle, where the subject is made */
    must(weft_plan_set_blocks(p, 1, "ALL1.2,IN02-IN05=0.3,MID=0.3,OUT00-OUT03=0.3", &err));
    must(weft_plan_merge(p, &err));
}
static const struct { const char *name; void (*set)(weft_plan *); } ways[WAYS] = {
    { "zip", by_columns }, { "blora", by_blocks }, { "blocks", by_numbers },
};

/* The largest difference of two pictures, in steps of a byte. */
static int difference(const char *a, const char *b)
{
    int32_t w, h;
    int most = 0;
    must(weft_png_size(a, &w, &h, &err));
    size_t len = 3 * (size_t)w * (size_t)h;
    uint8_t *one = malloc(len), *two = malloc(len);
    if (one == NULL || two == NULL) { fprintf(stderr, "zip: out of memory\n"); exit(1); }
    must(weft_png_read(a, one, len, w, h, &err));
    must(weft_png_read(b, two, len, w, h, &err));
    for (size_t i = 0; i < len; i++) most = abs(one[i] - two[i]) > most ? abs(one[i] - two[i]) : most;
    free(one);
    free(two);
    return most;
}

int main(int argc, char **argv)
{
    if (argc != 6) { fprintf(stderr, "usage: zip MODEL SUBJECT STYLE PROMPT FOLDER\n"); return 2; }

    weft_model *model;
    weft_adapter *subject, *style;
    weft_sampler *sampler;
    must(weft_model_open(argv[1], NULL, &model, &err));
    must(weft_adapter_open(argv[2], NULL, &subject, &err));
    must(weft_adapter_open(argv[3], NULL, &style, &err));
    must(draw_sampler(model, &sampler, &err));

    for (int i = 0; i < WAYS; i++) {
        weft_plan *plan, *alone;
        weft_adapter *folded;
        weft_plan_options options = WEFT_PLAN_OPTIONS_INIT;
        char path[1024], again[1024], file[1024];
        snprintf(path, sizeof path, "%s/%s.png", argv[5], ways[i].name);
        snprintf(again, sizeof again, "%s/%s-folded.png", argv[5], ways[i].name);
        snprintf(file, sizeof file, "%s/%s.safetensors", argv[5], ways[i].name);

        options.text = WEFT_TEXT_ALL;
        must(weft_plan_create(model, &options, &plan, &err));
        must(weft_plan_add(plan, subject, 1.0f, NULL, &err));
        must(weft_plan_add(plan, style, 1.0f, NULL, &err));
        ways[i].set(plan);
        must(weft_plan_seal(plan, weft_sampler_calls(sampler), &err));
        draw_job p = { .prompt = argv[4], .seed = 2, .path = path };
        must(draw_picture(model, plan, &p, &err));

        must(weft_plan_fold(plan, NULL, &folded, &err));
        must(weft_adapter_save(folded, model, file, NULL, &err));
        must(weft_plan_create(model, NULL, &alone, &err));
        must(weft_plan_add(alone, folded, 1.0f, NULL, &err));
        must(weft_plan_seal(alone, weft_sampler_calls(sampler), &err));
        p.path = again;
        must(draw_picture(model, alone, &p, &err));
        printf("%-6s  %s, as one file %s: pictures differ by at most %d of 255\n", ways[i].name, path, file,
               difference(path, again));

        weft_adapter_free(folded);
        weft_plan_free(alone);
        weft_plan_free(plan);
    }
    weft_adapter_free(subject);
    weft_adapter_free(style);
    weft_sampler_free(sampler);
    weft_model_free(model);
    return 0;
}
