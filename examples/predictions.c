/* predictions.c - the same adapters, added, in turns, and as predictions that are averaged.
 *
 * Merge and switch evaluate the network once at each call. Composite asks every adapter for a
 * prediction; LoRAtorio and sub-band weights ask the base model too, and weigh the predictions by
 * how they differ from its own: for each patch of the image, or for each band of frequencies. The
 * setters are all that changes; what a call costs is known before anything is run.
 *
 *   predictions examples/model monster.safetensors hatching.safetensors "a large zib monster ..." out */
#include <stdio.h>
#include <stdlib.h>
#include <weft/weft.h>

#include "draw/draw.h"

static weft_error err;

static void must(weft_status st)
{
    if (st == WEFT_OK) return;
    fprintf(stderr, "predictions: %s: %s\n", weft_status_name(st), err.text);
    exit(1);
}

static weft_status merge(weft_plan *p)     { return weft_plan_merge(p, &err); }
static weft_status composite(weft_plan *p) { return weft_plan_composite(p, NULL, &err); }
static weft_status loratorio(weft_plan *p) { return weft_plan_loratorio(p, NULL, &err); }
static weft_status subbands(weft_plan *p)  { return weft_plan_subbands(p, NULL, &err); }
static weft_status turns(weft_plan *p)
{
    weft_switch_options o = WEFT_SWITCH_OPTIONS_INIT;
    o.period = 2;                            /* calls of one turn */
    o.last_calls = 3;                        /* the details are the first adapter's */
    return weft_plan_switch(p, &o, &err);
}
static const struct { const char *name; weft_status (*set)(weft_plan *); } methods[] = {
    { "merge", merge }, { "switch", turns }, { "composite", composite }, { "loratorio", loratorio },
    { "subbands", subbands },
};

int main(int argc, char **argv)
{
    if (argc != 6) { fprintf(stderr, "usage: predictions MODEL ADAPTER ADAPTER PROMPT FOLDER\n"); return 2; }

    weft_model *model;
    weft_adapter *adapters[2];
    weft_sampler *sampler;
    weft_plan_options options = WEFT_PLAN_OPTIONS_INIT;
    options.text = WEFT_TEXT_ALL;            /* the prompt is encoded alike under every method */
    must(weft_model_open(argv[1], NULL, &model, &err));
    must(draw_sampler(model, &sampler, &err));
    for (int i = 0; i < 2; i++) must(weft_adapter_open(argv[2 + i], NULL, &adapters[i], &err));

    for (size_t m = 0; m < sizeof methods / sizeof methods[0]; m++) {
        weft_plan *plan;
        weft_plan_info info = WEFT_PLAN_INFO_INIT;
        char path[1024];

        must(weft_plan_create(model, &options, &plan, &err));
        for (int i = 0; i < 2; i++) must(weft_plan_add(plan, adapters[i], 0.9f, NULL, &err));
        must(methods[m].set(plan));
        must(weft_plan_seal(plan, weft_sampler_calls(sampler), &err));
        must(weft_plan_info_get(plan, &info, &err));
        snprintf(path, sizeof path, "%s/%s.png", argv[5], methods[m].name);
        draw_job p = { .prompt = argv[4], .seed = 2, .path = path };
        must(draw_picture(model, plan, &p, &err));
        printf("%-10s %d evaluation%s at each call  %s\n", methods[m].name, (int)info.evaluations,
               info.evaluations == 1 ? " " : "s", path);
        weft_plan_free(plan);
    }
    for (int i = 0; i < 2; i++) weft_adapter_free(adapters[i]);
    weft_sampler_free(sampler);
    weft_model_free(model);
    return 0;
}
