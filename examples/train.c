/* train.c - learn a subject from a folder of pictures, and draw it.
 *
 * The library takes one step at a time; the loop is yours. Between two steps you may look at the
 * loss, write a checkpoint, draw with what was learned so far, or stop. This one begins where its
 * checkpoint ends, if there is one: kill it at any moment, run it again, and the file is the same.
 *
 *   cc train.c $(pkg-config --cflags --libs weft) -o train
 *   ./train examples/model examples/data/monster "a zib monster" 300 monster.safetensors monster.png */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <weft/weft.h>

#include "draw/draw.h"

enum { EVERY = 50 };                                /* steps between checkpoints */

static weft_error err;

static void must(weft_status st)
{
    if (st == WEFT_OK) return;
    fprintf(stderr, "train: %s: %s\n", weft_status_name(st), err.text);
    exit(1);
}

/* What was learned so far is an adapter like any other, in memory. */
static void draw(weft_model *model, weft_trainer *trainer, const char *prompt, const char *path)
{
    weft_adapter *adapter;
    weft_plan    *plan;
    weft_sampler *sampler;
    draw_job      job = { .prompt = prompt, .seed = 1, .path = path };

    must(weft_trainer_adapter(trainer, &adapter, &err));
    must(weft_plan_create(model, NULL, &plan, &err));
    must(weft_plan_add(plan, adapter, 1.0f, NULL, &err));
    must(draw_sampler(model, &sampler, &err));
    must(weft_plan_seal(plan, weft_sampler_calls(sampler), &err));
    must(draw_picture(model, plan, &job, &err));
    weft_sampler_free(sampler);
    weft_plan_free(plan);
    weft_adapter_free(adapter);
}

int main(int argc, char **argv)
{
    char checkpoint[1024];
    int  steps = argc == 7 ? atoi(argv[4]) : 0;

    if (steps < 1) {
        fprintf(stderr, "usage: train MODEL FOLDER PROMPT STEPS OUT.safetensors OUT.png\n");
        return 2;
    }
    snprintf(checkpoint, sizeof checkpoint, "%.1000s.checkpoint", argv[5]);

    weft_model *model;
    must(weft_model_open(argv[1], NULL, &model, &err));

    weft_trainer *trainer;                          /* a LoRA of the recipe's own rank and layers */
    weft_train_options options = WEFT_TRAIN_OPTIONS_INIT;
    options.recipe = WEFT_RECIPE_LORA;
    options.flags = WEFT_TRAIN_FEED | WEFT_TRAIN_TEXT;
    options.steps = steps;
    options.batch = 4;
    options.rate = 1e-3;
    options.rates = WEFT_RATES_COSINE;
    options.seed = 7;
    must(weft_trainer_create(model, &options, &trainer, &err));

    /* Captions come from .txt files beside the pictures; the prompt is for those that have none. */
    must(weft_trainer_add_folder(trainer, argv[2], argv[3], WEFT_PICTURE_INSTANCE, &err));
    must(weft_trainer_prepare(trainer, &err));
    if (access(checkpoint, R_OK) == 0) must(weft_trainer_resume(trainer, checkpoint, &err));

    weft_trainer_info info = WEFT_TRAINER_INFO_INIT;
    must(weft_trainer_get_info(trainer, &info, &err));
    printf("%lld numbers of %d layers, from %d pictures; a step takes %.0f MB\n", (long long)info.parameters,
           (int)info.layers, (int)info.pictures, 1e-6 * (double)info.step_bytes);

    weft_train_step step = WEFT_TRAIN_STEP_INIT;
    double sum = 0;
    for (step.step = info.step; step.step < steps;) {
        must(weft_trainer_step(trainer, &step, &err));
        sum += step.loss;
        if (step.step % EVERY != 0 && step.step != steps) continue;
        int n = step.step % EVERY != 0 ? (int)(step.step % EVERY) : EVERY;
        printf("step %lld: loss %.4f, rate %.2g\n", (long long)step.step, sum / n, step.rate);
        sum = 0;
        must(weft_trainer_checkpoint(trainer, checkpoint, &err));
    }

    must(weft_trainer_save(trainer, argv[5], 0, 0, &err));
    draw(model, trainer, argv[3], argv[6]);
    remove(checkpoint);
    printf("%s, %s\n", argv[5], argv[6]);

    weft_model_free(model);                         /* in any order: a trainer keeps its model */
    weft_trainer_free(trainer);
    return 0;
}
