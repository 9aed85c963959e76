/* bench_tiers.c - a guided step and a decode of one model under every tier of products: time, and how far apart.
 *
 *     bench_tiers MODEL [--size PIXELS] [--threads N] [--steps N] [--decode] [--tier NAME]
 *
 * The first tier is OpenBLAS, which sums every product directly in float32: the difference from it, relative to its
 * largest value, is what Winograd's transform and other orders of summing cost in accuracy over a whole network. Times
 * are the least of the steps, by the clock and of the processor. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "model/networks.h"
#include "weft/weft.h"

static weft_error err;

static void must(weft_status st)
{
    if (st == WEFT_OK) return;
    fprintf(stderr, "bench_tiers: %s: %s\n", weft_status_name(st), err.text);
    exit(1);
}

static double seconds_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
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

static double apart(const float *a, const float *b, size_t n)
{
    double most = 0, top = 0;
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, fabs((double)a[i] - b[i]));
        top = fmax(top, fabs((double)b[i]));
    }
    return most / top;
}

typedef struct settings { int32_t size, threads; int steps, decode; } settings;

/* What was predicted or decoded first, in *first. */
static void compare(const char *what, const char *tier, double clock, double busy, double flops, const float *got,
                    float **first, size_t n)
{
    if (*first == NULL) {
        *first = malloc(n * sizeof **first);
        memcpy(*first, got, n * sizeof **first);
    }
    printf("%-7s %-12s %8.5f s, %8.5f s of processor time, %6.1f GFLOP/s of it, %.3g from the first\n", what, tier,
           clock, busy, flops / busy * 1e-9, apart(got, *first, n));
    fflush(stdout);
}

static void measure(weft_model *model, const char *tier, const settings *set, float **first, float **image_first)
{
    weft_model_info m = WEFT_MODEL_INFO_INIT;
    weft_run_info info = WEFT_RUN_INFO_INIT;
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_text_info sequence = WEFT_TEXT_INFO_INIT;
    weft_text text[2][4];
    weft_plan *plan;
    weft_run *run;
    double clock = 1e9, busy = 1e9;

    must(weft_model_info_get(model, &m, &err));
    must(weft_plan_create(model, NULL, &plan, &err));
    must(weft_plan_seal(plan, 1, &err));
    o.threads = set->threads;
    o.height = o.width = set->size / m.image_factor;
    must(weft_model_text(model, 0, &sequence, &err));
    o.text_tokens = sequence.tokens;
    must(weft_run_create(plan, &o, &run, &err));
    must(weft_run_info_get(run, &info, &err));
    size_t n = (size_t)m.latent_channels * (size_t)o.height * (size_t)o.width;
    float *x = noise_of(n, 1), *out = malloc(n * sizeof *out);
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
    for (int i = 0; i < set->steps; i++) {
        double t = seconds_of(CLOCK_MONOTONIC), used = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
        must(weft_run_step(run, &step, &err));
        clock = fmin(clock, seconds_of(CLOCK_MONOTONIC) - t);
        busy = fmin(busy, seconds_of(CLOCK_PROCESS_CPUTIME_ID) - used);
    }
    compare("step", tier, clock, busy, info.step_flops, out, first, n);
    if (set->decode) {
        size_t pixels = (size_t)3 * (size_t)set->size * (size_t)set->size;
        float *image = malloc(pixels * sizeof *image);
        double t = seconds_of(CLOCK_MONOTONIC), used = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
        must(weft_run_decode(run, x, n, image, pixels, &err));
        compare("decode", tier, seconds_of(CLOCK_MONOTONIC) - t, seconds_of(CLOCK_PROCESS_CPUTIME_ID) - used,
                info.decode_flops, image, image_first, pixels);
        free(image);
    }
    for (int32_t i = 0; i < 2 * m.text_streams; i++) free(text[i % 2][i / 2].data);
    free(x), free(out);
    weft_run_free(run);
    weft_plan_free(plan);
}

int main(int argc, char **argv)
{
    weft_model *model;
    settings set = { .size = 512, .steps = 1 };
    float *first = NULL, *image = NULL;
    const wf_products *tiers[8] = { &wf_products_openblas };
    const char *only = NULL;
    int count = 1;

    if (argc < 2) {
        printf("bench_tiers: no model given: bench_tiers MODEL [--size PIXELS] [--threads N] [--steps N] [--decode] "
               "[--tier NAME]\n");
        return 0;
    }
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--size") == 0 && i + 1 < argc) set.size = atoi(argv[++i]);
        else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) set.threads = atoi(argv[++i]);
        else if (strcmp(argv[i], "--steps") == 0 && i + 1 < argc) set.steps = atoi(argv[++i]);
        else if (strcmp(argv[i], "--tier") == 0 && i + 1 < argc) only = argv[++i];
        else if (strcmp(argv[i], "--decode") == 0) set.decode = 1;
    }
    if (set.steps < 1) set.steps = 1;
#if defined(__x86_64__)
    wf_cpu cpu = wf_cpu_detect();
    if (cpu.avx2_fma_f16c) tiers[count++] = &wf_products_avx2;
    if (cpu.avx512) tiers[count++] = &wf_products_avx512;
    if (cpu.avx512_bf16) tiers[count++] = &wf_products_avx512_bf16;
#endif
    if (only != NULL) tiers[count++] = &wf_products_bf16_emulated; /* slow: where it is asked for */
    must(weft_model_open(argv[1], NULL, &model, &err));
    for (int i = 0; i < count; i++) {
        if (only != NULL && strcmp(only, tiers[i]->name) != 0) continue;
        ((wf_networks *)(void *)(size_t)wf_model_networks(model))->products = tiers[i]; /* as no caller can */
        measure(model, tiers[i]->name, &set, &first, &image);
    }
    free(first), free(image);
    weft_model_free(model);
    return 0;
}
