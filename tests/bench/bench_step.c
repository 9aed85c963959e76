/* bench_step.c - one guided step of a real-sized model: seconds, GFLOP/s, peak memory, with and without adapters.
 *
 *     bench_step MODEL [--size PIXELS] [--threads N] [--steps N] [--cold] [--decode] [--tile N] [--adapted]
 *                [ADAPTER ...]
 *
 * --adapted leaves out the measurement without adapters; --cold counts the first step, as large models want it;
 * --tile decodes in tiles of so many latent pixels.
 * tests/bench/gen_sd15.py and gen_sdxl.py make models and adapters of the true shapes. Without a model there is
 * nothing to measure, and the program says so. Each figure is the median of the steps after one that is not
 * counted. The root mean square of what the step predicted stands beside it, so that peer_step.py can tell that
 * another program computed the same. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "weft/weft.h"

static weft_error err;

static void must(weft_status st)
{
    if (st == WEFT_OK) return;
    fprintf(stderr, "bench_step: %s: %s\n", weft_status_name(st), err.text);
    exit(1);
}

static double seconds_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double now(void)
{
    return seconds_of(CLOCK_MONOTONIC);
}

/* Of all threads together: what a step costs where other programs take their share of the machine. */
static double cpu(void)
{
    return seconds_of(CLOCK_PROCESS_CPUTIME_ID);
}

static double peak_gb(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_maxrss / 1048576.0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static float *noise_of(size_t n, uint64_t seed)
{
    weft_noise *noise;
    float *v = malloc(n * sizeof *v);
    must(weft_noise_create(seed, NULL, &noise, &err));
    must(weft_noise_normal(noise, v, n, &err));
    weft_noise_free(noise);
    return v;
}

typedef struct settings { int32_t size, threads, tile; int steps, decode, cold; } settings;

/* Median seconds of a step with the first `adapters` adapters, and of a decode where asked. */
static void measure(weft_model *model, weft_adapter **adapter, int adapters, const settings *set)
{
    int32_t size = set->size;
    int steps = set->steps;
    weft_model_info m = WEFT_MODEL_INFO_INIT;
    weft_run_info info = WEFT_RUN_INFO_INIT;
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_text_info sequence = WEFT_TEXT_INFO_INIT;
    weft_plan *plan;
    weft_run *run;
    double *seconds = malloc((size_t)steps * sizeof *seconds), *busy = malloc((size_t)steps * sizeof *busy), t;

    must(weft_model_info_get(model, &m, &err));
    must(weft_plan_create(model, NULL, &plan, &err));
    for (int i = 0; i < adapters; i++) must(weft_plan_add(plan, adapter[i], 0.8f, NULL, &err));
    must(weft_plan_seal(plan, 1, &err));
    o.threads = set->threads;
    o.tile = set->tile;
    o.height = o.width = size / m.image_factor;
    must(weft_model_text(model, 0, &sequence, &err));
    o.text_tokens = sequence.tokens;
    t = now();
    must(weft_run_create(plan, &o, &run, &err));
    double create = now() - t;
    must(weft_run_info_get(run, &info, &err));

    size_t n = (size_t)m.latent_channels * (size_t)o.height * (size_t)o.width;
    float *x = noise_of(n, 1), *out = malloc(n * sizeof *out);
    weft_text text[2][4];
    for (int32_t i = 0; i < 2 * m.text_streams; i++) {
        weft_text *one = &text[i % 2][i / 2];
        *one = (weft_text)WEFT_TEXT_INIT;
        must(weft_run_text(run, i / 2, 1, one, &err));
        one->data = noise_of(one->len, 2 + (uint64_t)(i < 2 ? i : 2));
    }
    weft_step step = WEFT_STEP_INIT;
    step.latent = x;
    step.text = text[0];
    step.negative = text[1];
    step.text_count = step.negative_count = (size_t)m.text_streams;
    step.out = out;
    step.latent_len = step.out_len = n;
    step.timestep = 500;
    step.guidance = 7.5f;
    for (int i = set->cold ? 0 : -1; i < steps; i++) {
        double used = cpu();
        t = now();
        must(weft_run_step(run, &step, &err));
        t = now() - t;
        if (i >= 0) seconds[i] = t, busy[i] = cpu() - used;
        fprintf(stderr, "  step: %.4f s%s\n", t, i < 0 ? ", not counted" : "");
    }
    qsort(seconds, (size_t)steps, sizeof *seconds, by_value);
    qsort(busy, (size_t)steps, sizeof *busy, by_value);
    double median = seconds[steps / 2], squares = 0;
    for (size_t i = 0; i < n; i++) squares += (double)out[i] * (double)out[i];
    printf("%d px, %d adapters, %d threads: %.4f s a step (%.4f to %.4f), %.4f s of processor time, %.0f GFLOP/s, side "
           "path %.2f %% of the arithmetic; run created in %.2f s, %.2f GB of its own; peak %.2f GB; prediction rms %.7g\n",
           size, adapters, info.threads, median, seconds[0], seconds[steps - 1], busy[steps / 2],
           (info.step_flops + info.side_flops) / median * 1e-9, 100 * info.side_flops / info.step_flops, create,
           (double)info.bytes / 1073741824.0, peak_gb(), sqrt(squares / (double)n));
    if (set->decode) {
        size_t pixels = (size_t)3 * (size_t)size * (size_t)size;
        float *image = malloc(pixels * sizeof *image);
        t = now();
        must(weft_run_decode(run, x, n, image, pixels, &err));
        t = now() - t;
        printf("decode in tiles of %d: %.2f s, %.0f GFLOP/s; peak %.2f GB\n", set->tile, t,
               info.decode_flops / t * 1e-9, peak_gb());
        free(image);
    }
    for (int32_t i = 0; i < 2 * m.text_streams; i++) free(text[i % 2][i / 2].data);
    free(x), free(out), free(seconds), free(busy);
    weft_run_free(run);
    weft_plan_free(plan);
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
    must(weft_model_open(argv[1], NULL, &model, &err));
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
            must(weft_adapter_open(argv[i], NULL, &adapter[adapters++], &err));
            printf("adapter opened in %.3f s\n", now() - t);
        }
    }
    if (set.steps < 1) set.steps = 1;
    if (bare || adapters == 0) measure(model, adapter, 0, &set);
    if (bare) set.decode = 0;
    if (adapters > 0) measure(model, adapter, adapters, &set);
    for (int i = 0; i < adapters; i++) weft_adapter_free(adapter[i]);
    weft_model_free(model);
    return 0;
}
