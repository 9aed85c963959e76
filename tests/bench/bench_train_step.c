/* bench_train_step.c - what a gradient costs: processor time of a step (the network under a tape, and the way back)
 * beside that of the network alone, and the memory it takes.
 *
 *     bench_train_step MODEL [--size PIXELS] [--batch N] [--threads N] [--steps N] [--rank R] [--all] [--segments]
 *                      [--plain]
 *
 * Pairs stand beside the attentions' layers, or with --all beside every layer of the denoiser. --segments computes blocks
 * twice instead of keeping them; --plain leaves the weights as they lie, to be turned in every step. Text comes from
 * outside and is not trained. tests/bench/gen_sd15.py makes a model of the true shapes. Each figure is the median of the
 * steps after one that is not counted. */
#include "bench/suite/suite.h"
#include "nets/learner.h"

static weft_error err;

static bool attention(const wf_layer *l) { return l->attention; }
static bool all(const wf_layer *l) { (void)l; return true; }

int main(int argc, char **argv)
{
    learner_options o = { .picks = attention, .rank = 4, .n = 1, .tokens = 77, .threads = 1, .turned = true };
    int size = 256, steps = 3;
    weft_model *model;
    samples whole[2] = { { 0 } }, wall[2] = { { 0 } };
    learner l;

    if (argc < 2) {
        printf("bench_train_step: no model given: bench_train_step MODEL [--size PIXELS] [--batch N] [--threads N] "
               "[--steps N] [--rank R] [--all] [--segments] [--plain]\n");
        return 0;
    }
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--all") == 0) o.picks = all;
        else if (strcmp(argv[i], "--segments") == 0) o.segments = true;
        else if (strcmp(argv[i], "--plain") == 0) o.turned = false;
        else if (i + 1 == argc) return printf("bench_train_step: %s?\n", argv[i]), 2;
        else if (strcmp(argv[i], "--size") == 0) size = atoi(argv[++i]);
        else if (strcmp(argv[i], "--batch") == 0) o.n = atoi(argv[++i]);
        else if (strcmp(argv[i], "--threads") == 0) o.threads = atoi(argv[++i]);
        else if (strcmp(argv[i], "--steps") == 0) steps = atoi(argv[++i]);
        else if (strcmp(argv[i], "--rank") == 0) o.rank = atoi(argv[++i]);
        else return printf("bench_train_step: %s?\n", argv[i]), 2;
    }
    must(weft_model_open(argv[1], NULL, &model, &err), &err);
    o.h = o.w = size / 8;
    learner_open(&l, model, &o);
    for (int i = -1; i < steps; i++)
        for (int taped = 0; taped < 2; taped++) {
            span from = span_now();
            if (taped) {
                if (!learner_step(&l)) return printf("bench_train_step: the step stopped\n"), 1;
            } else {
                float *none[8];
                wf_tape *tape = l.e.tape;
                l.e.arena.used = 0;
                l.e.arena.held = false;
                l.e.tape = NULL;
                learner_forward(&l, none);
                l.e.tape = tape;
            }
            span to = span_now();
            if (i < 0) continue;
            sample(&whole[taped], to.busy - from.busy);
            sample(&wall[taped], to.clock - from.clock);
        }
    double forward = median_of(&whole[0]), step = median_of(&whole[1]);
    printf("%d px, batch %d, %d threads, %zu trained numbers: forward %.4f s (%.4f s of processor time), step %.4f s (%.4f s), "
           "%.2f forwards; %.2f GFLOP forward; arena and gradients %.2f GB\n",
           size, o.n, o.threads, l.numbers, median_of(&wall[0]), forward, median_of(&wall[1]), step, step / forward,
           (l.e.flops + l.e.side_flops) * 1e-9, 2.0 * (double)l.bytes / 1073741824.0);
    learner_close(&l);
    weft_model_free(model);
    return 0;
}
