/* regions.c - two subjects in one image, each in its half, under a prompt of its own.
 *
 * A mask says where an adapter acts; masks are arrays of any size, with soft edges. A region gives
 * that place a prompt, and isolated regions do not see each other in self-attention: all of it in
 * one pass. Blend takes the same masks to predictions: an evaluation for each adapter and one more,
 * and nothing of one subject reaches the other. The last picture is blended for the first third of
 * the calls, which settle the layout, and then goes on in one pass.
 *
 *   regions examples/model monster.safetensors "a zib monster ..." rocket "a large vok rocket ..." \
 *       "a blue background" out */
#include <stdio.h>
#include <stdlib.h>
#include <weft/weft.h>

#include "draw/draw.h"

enum { WIDE = 32, MASK = 64, SOFT = 8, SUBJECTS = 2 }; /* WIDE: latent pixels, an image of two squares */
static weft_error err;

static void must(weft_status st)
{
    if (st == WEFT_OK) return;
    fprintf(stderr, "regions: %s: %s\n", weft_status_name(st), err.text);
    exit(1);
}

/* The left or the right half of the image, with an edge SOFT columns wide. */
static void give_half(weft_plan *plan, int32_t adapter)
{
    static float values[MASK];               /* one row: a mask covers the image whatever its size */
    weft_mask mask = WEFT_MASK_INIT;
    weft_region region = WEFT_REGION_INIT;

    for (int x = 0; x < MASK; x++) {
        float left = ((float)MASK / 2 - (float)x - 0.5f) / SOFT + 0.5f;
        left = left < 0 ? 0 : left > 1 ? 1 : left;
        values[x] = adapter == 0 ? left : 1 - left;
    }
    mask.height = 1;
    mask.width = MASK;
    mask.values = values;
    mask.len = MASK;
    must(weft_plan_set_mask(plan, adapter, &mask, &err));
    region.flags = WEFT_REGION_ADAPTER | WEFT_REGION_ISOLATED;
    region.adapter = adapter;
    must(weft_plan_add_region(plan, &region, &err));
}

static void in_one_pass(weft_plan *p) { must(weft_plan_merge(p, &err)); }
static void blended(weft_plan *p)     { must(weft_plan_blend(p, NULL, &err)); }
static void both(weft_plan *p)
{
    weft_phase_options later = WEFT_PHASE_OPTIONS_INIT;
    blended(p);
    later.flags = WEFT_PHASE_AT;
    later.at = 1.0 / 3;
    must(weft_plan_begin_phase(p, &later, &err));
    in_one_pass(p);
}
static const struct { const char *name; void (*set)(weft_plan *); } ways[] = {
    { "one-pass", in_one_pass }, { "blend", blended }, { "blend-then-one-pass", both },
};

int main(int argc, char **argv)
{
    if (argc != 8) {
        fprintf(stderr, "usage: regions MODEL LEFT LEFT_PROMPT RIGHT RIGHT_PROMPT PROMPT FOLDER\n");
        return 2;
    }
    const char *files[SUBJECTS] = { argv[2], argv[4] }, *prompts[SUBJECTS] = { argv[3], argv[5] };
    weft_model *model;
    weft_adapter *subjects[SUBJECTS];
    weft_sampler *sampler;
    must(weft_model_open(argv[1], NULL, &model, &err));
    must(draw_sampler(model, &sampler, &err));
    for (int32_t i = 0; i < SUBJECTS; i++) must(weft_adapter_open(files[i], NULL, &subjects[i], &err));

    for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
        weft_plan *plan;
        char path[1024];
        int32_t evaluations = 0;

        must(weft_plan_create(model, NULL, &plan, &err));
        for (int32_t i = 0; i < SUBJECTS; i++) {
            must(weft_plan_add(plan, subjects[i], 1.0f, NULL, &err));
            give_half(plan, i);
        }
        ways[w].set(plan);
        must(weft_plan_seal(plan, weft_sampler_calls(sampler), &err));
        for (int32_t n = 0; n < weft_sampler_calls(sampler); n++) {
            weft_call_info call = WEFT_CALL_INFO_INIT;
            must(weft_plan_call(plan, n, &call, &err));
            evaluations += call.evaluations;
        }
        snprintf(path, sizeof path, "%s/%s.png", argv[7], ways[w].name);
        draw_job p = { .prompt = argv[6], .seed = 2, .width = WIDE, .regions = prompts, .region_count = SUBJECTS,
                      .path = path };
        must(draw_picture(model, plan, &p, &err));
        printf("%-20s %d evaluations  %s\n", ways[w].name, (int)evaluations, path);
        weft_plan_free(plan);
    }
    for (int32_t i = 0; i < SUBJECTS; i++) weft_adapter_free(subjects[i]);
    weft_sampler_free(sampler);
    weft_model_free(model);
    return 0;
}
