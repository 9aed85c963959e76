/* bench_step.c - one guided step of a real-sized model: seconds, GFLOP/s, peak memory, with and without adapters.
 *
 *     bench_step MODEL [--size PIXELS] [--threads N] [--steps N] [--cold] [--decode] [--tile N] [--adapted]
 *                [ADAPTER ...]
 *
 * --adapted leaves out the measurement without adapters; --cold counts the first step, as large models want it;
 * --tile decodes in tiles of so many latent pixels.
 * tests/bench/gen_sd15.py and gen_sdxl.py make models and adapters of the true shapes. Without a model there is
 * nothing to measure, and the program says so. Each figure is the median of the steps after one that is not
 * counted. The root mean square of what the step predicted stands beside it, so that another build can be told to compute
 * the same. */
#include <sys/resource.h>

#include "bench/suite/suite.h"

static weft_error err;

static double now(void)
{
    return span_now().clock;
}

static double peak_gb(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_maxrss / 1048576.0;
}

typedef struct settings { int32_t size, threads, tile; int steps, decode, cold; } settings;

/* Median seconds of a step with the first `adapters` adapters, and of a decode where asked. */
static void measure(weft_model *model, weft_adapter **adapter, int adapters, const settings *set)
{
    samples seconds = { 0 }, busy = { 0 };
    double  begin = now(), squares = 0;
    side    s;

    side_open(&s, model, plan_of(model, adapter, adapters, WEFT_PATH_AUTO, 1), set->size, set->threads, set->tile);
    double create = now() - begin;
    for (int i = set->cold ? 0 : -1; i < set->steps; i++) {
        span t = side_steps(&s, 1);
        if (i >= 0) sample(&seconds, t.clock), sample(&busy, t.busy);
        note("step: %.4f s%s", t.clock, i < 0 ? ", not counted" : "");
    }
    for (size_t i = 0; i < s.info.latent_len; i++) squares += (double)s.out[i] * (double)s.out[i];
    printf("%d px, %d adapters, %d threads: %.4f s a step (%.4f to %.4f), %.4f s of processor time, %.0f GFLOP/s, side "
           "path %.2f %% of the arithmetic; prepared in %.2f s, %.2f GB of its own; peak %.2f GB; prediction rms %.7g\n",
           set->size, adapters, s.info.threads, median_of(&seconds), least_of(&seconds), most_of(&seconds), median_of(&busy),
           (s.info.step_flops + s.info.side_flops) / median_of(&seconds) * 1e-9, 100 * s.info.side_flops / s.info.step_flops,
           create, (double)s.info.bytes / 1073741824.0, peak_gb(), sqrt(squares / (double)s.info.latent_len));
    if (set->decode) {
        double t = side_decode(&s).clock;
        printf("decode in tiles of %d: %.2f s, %.0f GFLOP/s; peak %.2f GB\n", set->tile, t, s.info.decode_flops / t * 1e-9,
               peak_gb());
    }
    side_close(&s);
}

int main(int argc, char **argv)
{
    weft_model *model;
    weft_adapter *adapter[16];
    int adapters = 0, bare = 1;
    settings set = { .size = 512, .steps = 3 };
    double t = now();

    if (argc < 2) {
        printf("bench_step: no model given: bench_step MODEL [--size PIXELS] [--threads N] [--steps N] [--cold] "
               "[--decode] [--tile N] [--adapted] [ADAPTER ...]\n");
        return 0;
    }
    must(weft_model_open(argv[1], NULL, &model, &err), &err);
    printf("model opened in %.3f s\n", now() - t);
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--size") == 0 && i + 1 < argc) set.size = atoi(argv[++i]);
        else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) set.threads = atoi(argv[++i]);
        else if (strcmp(argv[i], "--steps") == 0 && i + 1 < argc) set.steps = atoi(argv[++i]);
        else if (strcmp(argv[i], "--tile") == 0 && i + 1 < argc) set.tile = atoi(argv[++i]);
        else if (strcmp(argv[i], "--cold") == 0) set.cold = 1;
        else if (strcmp(argv[i], "--decode") == 0) set.decode = 1;
        else if (strcmp(argv[i], "--adapted") == 0) bare = 0;
        else if (adapters < 16) {
            t = now();
            must(weft_adapter_open(argv[i], NULL, &adapter[adapters++], &err), &err);
            printf("adapter opened in %.3f s\n", now() - t);
        }
    }
    if (set.steps < 1) set.steps = 1;
    if (set.steps > ROUNDS_MAX) set.steps = ROUNDS_MAX;
    if (bare || adapters == 0) measure(model, adapter, 0, &set);
    if (bare) set.decode = 0;
    if (adapters > 0) measure(model, adapter, adapters, &set);
    for (int i = 0; i < adapters; i++) weft_adapter_free(adapter[i]);
    weft_model_free(model);
    return 0;
}
