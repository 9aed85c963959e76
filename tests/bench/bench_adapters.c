/* bench_adapters.c - what an adapter costs before a step, and what many cost in one.
 *
 *     bench_adapters MODEL ADAPTER [--registered N] [--active N] [--size PIXELS] [--threads N] [--steps N]
 *
 * First the time to open the adapter's file from the page cache and to bind it to the model: medians of twenty. Then
 * the file is opened N times (500), as a service would hold its users' adapters, and all are added to one plan, all
 * but a few (3) with weight 0. A step of that plan is measured in turns with a step of a plan that has the few alone:
 * the two should take the same time, and must predict the same bits. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "weft/weft.h"

#define OPENS 20

static weft_error err;

static void must(weft_status st)
{
    if (st == WEFT_OK) return;
    fprintf(stderr, "bench_adapters: %s: %s\n", weft_status_name(st), err.text);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
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

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return v[n / 2];
}

static void open_and_bind(weft_model *model, const char *path)
{
    double opened[OPENS], bound[OPENS];

    for (int i = 0; i < OPENS; i++) {
        weft_adapter *a;
        weft_plan *plan;
        double t = now();

        must(weft_adapter_open(path, NULL, &a, &err));
        opened[i] = now() - t;
        must(weft_plan_create(model, NULL, &plan, &err));
        t = now();
        must(weft_plan_add(plan, a, 0.8f, NULL, &err));
        bound[i] = now() - t;
        weft_plan_free(plan);
        weft_adapter_free(a);
    }
    printf("open %.1f ms, bind %.1f ms\n", 1e3 * median(opened, OPENS), 1e3 * median(bound, OPENS));
}

typedef struct side {
    weft_plan *plan;
    weft_run *run;
    weft_step step;
    weft_text text, negative;
    double *seconds;
} side;

/* `registered` adapters of which every (registered / active)th has a weight; those alone where `only`. */
static void prepare(side *s, weft_model *model, weft_adapter **adapter, int registered, int active, bool only,
                    weft_run_options *o, int steps)
{
    weft_run_info info = WEFT_RUN_INFO_INIT;
    double t = now(), sealed;

    must(weft_plan_create(model, NULL, &s->plan, &err));
    for (int i = 0, given = 0; i < registered; i++) {
        bool gets = given < active && i == given * (registered / active);

        if (gets || !only) must(weft_plan_add(s->plan, adapter[i], gets ? 0.8f : 0, NULL, &err));
        given += gets;
    }
    must(weft_plan_seal(s->plan, 1, &err));
    sealed = now() - t;
    t = now();
    must(weft_run_create(s->plan, o, &s->run, &err));
    must(weft_run_info_get(s->run, &info, &err));
    printf("%d adapters, %d of them with a weight: bound and sealed in %.2f s, run created in %.2f s, %.3f GB of its own, "
           "side path %.2f %% of the arithmetic; peak %.2f GB\n", only ? active : registered, active, sealed, now() - t,
           (double)info.bytes / 1073741824.0, 100 * info.side_flops / info.step_flops, peak_gb());
    s->seconds = malloc((size_t)steps * sizeof *s->seconds);
}

static void give_inputs(side *s, const weft_model_info *m, const weft_run_options *o)
{
    size_t n = (size_t)m->latent_channels * (size_t)o->height * (size_t)o->width;
    s->text = s->negative = (weft_text)WEFT_TEXT_INIT;
    must(weft_run_text(s->run, 0, 1, &s->text, &err));
    s->negative = s->text;
    size_t text = s->text.len;
    float *x = malloc((2 * n + 2 * text) * sizeof *x);
    weft_noise *noise;

    must(weft_noise_create(1, NULL, &noise, &err));
    must(weft_noise_normal(noise, x, n + 2 * text, &err));
    weft_noise_free(noise);
    s->step = (weft_step)WEFT_STEP_INIT;
    s->step.latent = x;
    s->text.data = x + n;
    s->negative.data = x + n + text;
    s->step.text = &s->text;
    s->step.negative = &s->negative;
    s->step.text_count = s->step.negative_count = 1;
    s->step.out = x + n + 2 * text;
    s->step.latent_len = s->step.out_len = n;
    s->step.timestep = 500;
    s->step.guidance = 7.5f;
}

static void measure(weft_model *model, weft_adapter **adapter, int registered, int active, int32_t size, int32_t threads,
                    int steps)
{
    weft_model_info m = WEFT_MODEL_INFO_INIT;
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_text_info sequence = WEFT_TEXT_INFO_INIT;
    side few, many, *sides[] = { &few, &many };

    must(weft_model_info_get(model, &m, &err));
    o.threads = threads;
    o.height = o.width = size / m.image_factor;
    must(weft_model_text(model, 0, &sequence, &err));
    o.text_tokens = sequence.tokens;
    prepare(&few, model, adapter, registered, active, true, &o, steps);
    prepare(&many, model, adapter, registered, active, false, &o, steps);
    give_inputs(&few, &m, &o);
    give_inputs(&many, &m, &o);
    for (int i = -1; i < steps; i++)
        for (int k = 0; k < 2; k++) {
            double t = now();

            must(weft_run_step(sides[k]->run, &sides[k]->step, &err));
            if (i >= 0) sides[k]->seconds[i] = now() - t;
        }
    double a = median(few.seconds, steps), b = median(many.seconds, steps); /* sorted from here on */
    bool same = memcmp(few.step.out, many.step.out, few.step.out_len * sizeof(float)) == 0;
    printf("a step at %d px: %.4f s with %d adapters, %.4f s with %d; fastest %.4f s and %.4f s; the bits %s\n", size,
           a, active, b, registered, few.seconds[0], many.seconds[0], same ? "are the same" : "DIFFER");
    for (int k = 0; k < 2; k++) {
        free((void *)sides[k]->step.latent);
        free(sides[k]->seconds);
        weft_run_free(sides[k]->run);
        weft_plan_free(sides[k]->plan);
    }
}

int main(int argc, char **argv)
{
    weft_model *model;
    weft_adapter **adapter;
    int registered = 500, active = 3, steps = 5;
    int32_t size = 512, threads = 0;
    double t;

    if (argc < 3) {
        printf("bench_adapters: no model given: bench_adapters MODEL ADAPTER [--registered N] [--active N] "
               "[--size PIXELS] [--threads N] [--steps N]\n");
        return 0;
    }
    for (int i = 3; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--registered") == 0) registered = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--active") == 0) active = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--size") == 0) size = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--threads") == 0) threads = atoi(argv[i + 1]);
        else if (strcmp(argv[i], "--steps") == 0) steps = atoi(argv[i + 1]);
    }
    if (active < 1) active = 1;
    if (registered < active) registered = active;
    if (steps < 1) steps = 1;

    must(weft_model_open(argv[1], NULL, &model, &err));
    open_and_bind(model, argv[2]);
    adapter = malloc((size_t)registered * sizeof(weft_adapter *));
    t = now();
    for (int i = 0; i < registered; i++) must(weft_adapter_open(argv[2], NULL, &adapter[i], &err));
    printf("%d opened in %.2f s\n", registered, now() - t);
    measure(model, adapter, registered, active, size, threads, steps);
    for (int i = 0; i < registered; i++) weft_adapter_free(adapter[i]);
    free(adapter);
    weft_model_free(model);
    return 0;
}
