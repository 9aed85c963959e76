/* schedule.c - an adapter that comes in over the calls, and a plan that changes its method midway.
 *
 * A curve multiplies an adapter's weight over the calls, under any method: here a style that begins
 * at nothing and is whole from some share of the calls on. A phase begins another method. Plans are
 * changed by copying: the copy shares what was read and bound, so sealing it makes nothing but the
 * table, and no file is opened. The time that this takes is printed.
 *
 *   schedule examples/model monster.safetensors hatching.safetensors "a large zib monster ..." out */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <weft/weft.h>

#include "draw/draw.h"

static weft_error err;

static void must(weft_status st)
{
    if (st == WEFT_OK) return;
    fprintf(stderr, "schedule: %s: %s\n", weft_status_name(st), err.text);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

/* From 0 at the first call to the whole weight where `share` of the calls are over. */
static void come_in(weft_plan *plan, int32_t adapter, double share)
{
    weft_curve_point points[2] = { WEFT_CURVE_POINT_INIT, WEFT_CURVE_POINT_INIT };
    points[0].shape = WEFT_CURVE_COSINE;     /* to the next point: half a cosine */
    points[1].at = share;
    points[1].value = 1;
    must(weft_plan_set_curve(plan, adapter, WEFT_CURVE_AT_SHARE, points, 2, &err));
}

static void composite_then_merge(weft_plan *plan, double share)
{
    weft_phase_options later = WEFT_PHASE_OPTIONS_INIT;
    must(weft_plan_composite(plan, NULL, &err));
    later.flags = WEFT_PHASE_AT;
    later.at = share;
    must(weft_plan_begin_phase(plan, &later, &err));
    must(weft_plan_merge(plan, &err));
}

int main(int argc, char **argv)
{
    static const struct { const char *name; double curve, phase; } ways[] = {
        { "whole", 0, 0 }, { "from-a-quarter", 0.25, 0 }, { "from-three-quarters", 0.75, 0 }, { "two-methods", 0, 0.4 },
    };
    if (argc != 6) { fprintf(stderr, "usage: schedule MODEL SUBJECT STYLE PROMPT FOLDER\n"); return 2; }

    weft_model *model;
    weft_adapter *subject, *style;
    weft_sampler *sampler;
    weft_plan *plan;
    must(weft_model_open(argv[1], NULL, &model, &err));
    must(weft_adapter_open(argv[2], NULL, &subject, &err));
    must(weft_adapter_open(argv[3], NULL, &style, &err));
    must(draw_sampler(model, &sampler, &err));

    double began = now();
    must(weft_plan_create(model, NULL, &plan, &err));
    must(weft_plan_add(plan, subject, 0.9f, NULL, &err));
    must(weft_plan_add(plan, style, 1.1f, NULL, &err));
    must(weft_plan_seal(plan, weft_sampler_calls(sampler), &err));
    printf("bound and sealed in %.2f ms\n", now() - began);

    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        weft_plan *copy;
        char path[1024];

        began = now();
        must(weft_plan_copy(plan, &copy, &err));
        if (ways[i].curve > 0) come_in(copy, 1, ways[i].curve);
        if (ways[i].phase > 0) composite_then_merge(copy, ways[i].phase);
        must(weft_plan_seal(copy, weft_sampler_calls(sampler), &err));
        double took = now() - began;

        snprintf(path, sizeof path, "%s/%s.png", argv[5], ways[i].name);
        draw_job p = { .prompt = argv[4], .seed = 2, .path = path };
        must(draw_picture(model, copy, &p, &err));
        printf("%-20s changed in %.2f ms  %s\n", ways[i].name, took, path);
        weft_plan_free(copy);
    }
    weft_plan_free(plan);
    weft_adapter_free(subject);
    weft_adapter_free(style);
    weft_sampler_free(sampler);
    weft_model_free(model);
    return 0;
}
