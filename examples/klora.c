/* klora.c - what K-LoRA will choose, read from the plan before a step is run.
 *
 * For each layer and call K-LoRA takes the subject or the style. The choice depends on the weights
 * and a curve over the calls, and on nothing that is drawn: so it can be counted block by block,
 * and compared. Here beside it the same with scores by energy, and the plain baseline that gives
 * all layers to the subject first. At the end the two adapters draw a picture under K-LoRA.
 *
 *   klora examples/model monster.safetensors hatching.safetensors "a large zib monster ..." klora.png */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/weft.h>

#include "draw/draw.h"

enum { RULES = 3, SUBJECT = 0 };
static weft_error err;

static void must(weft_status st)
{
    if (st == WEFT_OK) return;
    fprintf(stderr, "klora: %s: %s\n", weft_status_name(st), err.text);
    exit(1);
}

/* The share of a layer's calls that are the subject's, where both could act; -1 where one could. */
static double subject_share(const weft_plan *plan, const weft_plan *scored, int64_t layer, int32_t calls)
{
    weft_klora_score score = WEFT_KLORA_SCORE_INIT;
    int32_t of_subject = 0;

    must(weft_plan_klora_score(scored, 0, layer, &score, &err));
    if (score.position == 0 || score.content == 0 || score.style == 0) return -1;
    for (int32_t n = 0; n < calls; n++) {
        weft_cell cell = WEFT_CELL_INIT;
        must(weft_plan_cell(plan, n, 0, layer, SUBJECT, &cell, &err));
        of_subject += cell.number != 0;
    }
    return (double)of_subject / calls;
}

/* "unet.down_blocks.0.attentions..." is in "unet.down_blocks.0". */
static size_t block_length(const char *name)
{
    const char *dot = strchr(name, '.');
    dot = dot ? strchr(dot + 1, '.') : NULL;
    if (dot != NULL && dot[1] >= '0' && dot[1] <= '9') dot += 1 + strcspn(dot + 1, ".");
    return dot ? (size_t)(dot - name) : strlen(name);
}

static void count_choices(const weft_model *model, weft_plan *const plans[RULES], int32_t calls, int64_t layers)
{
    char block[128] = "";
    double sum[RULES] = { 0 };
    int counted = 0;

    printf("share of the subject        topk    energy     fixed\n");
    for (int64_t id = 0; id <= layers; id++) {
        weft_layer_info layer = WEFT_LAYER_INFO_INIT;
        size_t length = 0;
        if (id < layers) {
            must(weft_model_layer(model, id, &layer, &err));
            if (layer.component != WEFT_COMPONENT_DENOISER) continue;
            length = block_length(layer.name);
        }
        if (counted > 0 && (id == layers || strlen(block) != length || strncmp(block, layer.name, length) != 0)) {
            printf("  %-22s", block);
            for (int r = 0; r < RULES; r++) printf("  %6.0f %%", 100 * sum[r] / counted);
            printf("  of %d layers\n", counted);
            memset(sum, 0, sizeof sum);
            counted = 0;
        }
        if (id == layers || subject_share(plans[0], plans[0], id, calls) < 0) continue;
        snprintf(block, sizeof block, "%.*s", (int)length, layer.name);
        for (int r = 0; r < RULES; r++) sum[r] += subject_share(plans[r], plans[0], id, calls);
        counted++;
    }
}

int main(int argc, char **argv)
{
    if (argc != 6) { fprintf(stderr, "usage: klora MODEL SUBJECT STYLE PROMPT OUT.png\n"); return 2; }

    weft_model *model;
    weft_adapter *subject, *style;
    weft_sampler *sampler;
    must(weft_model_open(argv[1], NULL, &model, &err));
    must(weft_adapter_open(argv[2], NULL, &subject, &err));
    must(weft_adapter_open(argv[3], NULL, &style, &err));
    must(draw_sampler(model, &sampler, &err));

    weft_plan *plans[RULES];
    weft_plan_options options = WEFT_PLAN_OPTIONS_INIT;
    options.text = WEFT_TEXT_ALL;            /* or a subject with a trigger word of its own is not understood */
    for (int r = 0; r < RULES; r++) {
        weft_klora_options o = WEFT_KLORA_OPTIONS_INIT;
        if (r == 1) o.score = WEFT_KLORA_ENERGY;
        if (r == 2) o.pattern = WEFT_KLORA_FIXED;
        must(weft_plan_create(model, &options, &plans[r], &err));
        must(weft_plan_add(plans[r], subject, 0.9f, NULL, &err));
        must(weft_plan_add(plans[r], style, 1.3f, NULL, &err)); /* the choice does not see weights */
        must(weft_plan_klora(plans[r], &o, &err));
        must(weft_plan_seal(plans[r], weft_sampler_calls(sampler), &err));
    }
    weft_plan_info info = WEFT_PLAN_INFO_INIT;
    must(weft_plan_info_get(plans[0], &info, &err));
    count_choices(model, plans, info.calls, info.layers);

    draw_job p = { .prompt = argv[4], .seed = 2, .path = argv[5] };
    must(draw_picture(model, plans[0], &p, &err));
    printf("%s\n", argv[5]);

    for (int r = 0; r < RULES; r++) weft_plan_free(plans[r]);
    weft_adapter_free(subject);
    weft_adapter_free(style);
    weft_sampler_free(sampler);
    weft_model_free(model);
    return 0;
}
