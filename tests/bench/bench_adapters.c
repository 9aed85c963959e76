/* bench_adapters.c - what an adapter costs before a step, and what many cost in one.
 *
 *     bench_adapters MODEL ADAPTER [--registered N] [--active N] [--size PIXELS] [--threads N] [--steps N]
 *
 * First the time to open the adapter's file from the page cache and to bind it to the model: medians of twenty. Then
 * the file is opened N times (500), as a service would hold its users' adapters, and all are added to one plan, all
 * but a few (3) with weight 0. A step of that plan is measured in turns with a step of a plan that has the few alone:
 * the two should take the same time, and must predict the same bits. */
#include <sys/resource.h>

#include "bench/suite/suite.h"

enum { OPENS = 20 };

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

static void open_and_bind(weft_model *model, const char *path)
{
    samples opened = { 0 }, bound = { 0 };

    for (int i = 0; i < OPENS; i++) {
        weft_adapter *a;
        weft_plan *plan;
        double t = now();

        must(weft_adapter_open(path, NULL, &a, &err), &err);
        sample(&opened, now() - t);
        must(weft_plan_create(model, NULL, &plan, &err), &err);
        t = now();
        must(weft_plan_add(plan, a, 0.8f, NULL, &err), &err);
        sample(&bound, now() - t);
        weft_plan_free(plan);
        weft_adapter_free(a);
    }
    printf("open %.1f ms, bind %.1f ms\n", 1e3 * median_of(&opened), 1e3 * median_of(&bound));
}

/* `registered` adapters of which every (registered / active)th has a weight; those alone where `only`. */
static void prepare(side *s, weft_model *model, weft_adapter **adapter, int registered, int active, bool only,
                    int32_t size, int32_t threads)
{
    weft_plan *plan;
    double     t = now(), sealed;

    must(weft_plan_create(model, NULL, &plan, &err), &err);
    for (int i = 0, given = 0; i < registered; i++) {
        bool gets = given < active && i == given * (registered / active);

        if (gets || !only) must(weft_plan_add(plan, adapter[i], gets ? 0.8f : 0, NULL, &err), &err);
        given += gets;
    }
    must(weft_plan_seal(plan, 1, &err), &err);
    sealed = now() - t;
    t = now();
    side_open(s, model, plan, size, threads, 0);
    printf("%d adapters, %d of them with a weight: bound and sealed in %.2f s, run prepared in %.2f s, %.3f GB of its own, "
           "side path %.2f %% of the arithmetic; peak %.2f GB\n", only ? active : registered, active, sealed, now() - t,
           (double)s->info.bytes / 1073741824.0, 100 * s->info.side_flops / s->info.step_flops, peak_gb());
}

static void measure(weft_model *model, weft_adapter **adapter, int registered, int active, int32_t size, int32_t threads,
                    int steps)
{
    samples few = { 0 }, many = { 0 };
    side    s[2];

    prepare(&s[0], model, adapter, registered, active, true, size, threads);
    prepare(&s[1], model, adapter, registered, active, false, size, threads);
    for (int i = -1; i < steps; i++)
        for (int k = 0; k < 2; k++) {
            double t = side_steps(&s[k], 1).clock;
            if (i >= 0) sample(k == 0 ? &few : &many, t);
        }
    bool same = memcmp(s[0].out, s[1].out, s[0].info.latent_len * sizeof(float)) == 0;
    printf("a step at %d px: %.4f s with %d adapters, %.4f s with %d; fastest %.4f s and %.4f s; the bits %s\n", size,
           median_of(&few), active, median_of(&many), registered, least_of(&few), least_of(&many), same ? "are the same" : "DIFFER");
    for (int k = 0; k < 2; k++) side_close(&s[k]);
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
    if (steps > ROUNDS_MAX) steps = ROUNDS_MAX;

    must(weft_model_open(argv[1], NULL, &model, &err), &err);
    open_and_bind(model, argv[2]);
    adapter = malloc((size_t)registered * sizeof(weft_adapter *));
    t = now();
    for (int i = 0; i < registered; i++) must(weft_adapter_open(argv[2], NULL, &adapter[i], &err), &err);
    printf("%d opened in %.2f s\n", registered, now() - t);
    measure(model, adapter, registered, active, size, threads, steps);
    for (int i = 0; i < registered; i++) weft_adapter_free(adapter[i]);
    free(adapter);
    weft_model_free(model);
    return 0;
}
