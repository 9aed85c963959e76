/* bench_compose.c - what composing costs: a guided step under each method, as a ratio to the plain step.
 *
 *     bench_compose MODEL ADAPTER ADAPTER ADAPTER ADAPTER [--size PIXELS] [--threads N] [--rounds N] [--all]
 *
 * tests/bench/gen_sd15.py makes a model and adapters of the true shapes:
 *
 *     gen_sd15.py model sd15 --layout diffusers
 *     for i in 1 2 3 4; do gen_sd15.py lora $i.safetensors --rank 16 --targets attn,ff,proj --seed $i; done
 *     bench_compose sd15 1.safetensors 2.safetensors 3.safetensors 4.safetensors
 *
 * Without --all masks without prompts and cached composite are left out; a round of the rest is nine evaluations.
 * Rounds go through all plans one after the other, the plain one first, so that what else the machine does
 * meets all of them alike; a round before the first is not counted. Each figure is a median over the rounds,
 * and the ratio is the median of the rounds' ratios. The plans share one run, which moves from one to the next, but
 * the one with merged copies has a run of its own. Of it the time to make the copies is told, and their bytes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "weft/weft.h"

enum { ADAPTERS = 4, CALLS = 20, ROUNDS_MAX = 64 };

static weft_error err;

static void must(weft_status st)
{
    if (st == WEFT_OK) return;
    fprintf(stderr, "bench_compose: %s: %s\n", weft_status_name(st), err.text);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *v, int n)
{
    double sorted[ROUNDS_MAX];
    memcpy(sorted, v, (size_t)n * sizeof *v);
    qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    return sorted[n / 2];
}

/* ---- the plans ------------------------------------------------------------------------------- */

enum { PLAIN, KLORA, MERGE, COPIES, SWITCH, REGIONS, LORATORIO, USUAL, MASKS = USUAL, CACHED, PLANS };

static const struct { const char *what; int adapters; int32_t path; } plans[PLANS] = {
    [PLAIN] = { "plain step", 0, WEFT_PATH_AUTO },
    [KLORA] = { "K-LoRA of two", 2, WEFT_PATH_AUTO },
    [MERGE] = { "merge of four, side path", 4, WEFT_PATH_SIDE },
    [COPIES] = { "merge of four, copies", 4, WEFT_PATH_MERGED },
    [SWITCH] = { "switch of three", 3, WEFT_PATH_AUTO },
    [REGIONS] = { "regions of two, with prompts", 2, WEFT_PATH_AUTO },
    [LORATORIO] = { "LoRAtorio of two", 2, WEFT_PATH_AUTO },
    [MASKS] = { "masks of two", 2, WEFT_PATH_AUTO },
    [CACHED] = { "composite of two, cached", 2, WEFT_PATH_AUTO },
};

/* The left half of the image is the first adapter's, the right half the second's. */
static void give_halves(weft_plan *plan, int prompts)
{
    static const float half[2][2] = { { 1, 0 }, { 0, 1 } };

    for (int32_t i = 0; i < 2; i++) {
        weft_mask   m = WEFT_MASK_INIT;
        weft_region r = WEFT_REGION_INIT;
        m.height = 1, m.width = 2, m.values = half[i], m.len = 2;
        must(weft_plan_set_mask(plan, i, &m, &err));
        r.flags = WEFT_REGION_ADAPTER;
        r.adapter = i;
        if (prompts) must(weft_plan_add_region(plan, &r, &err));
    }
}

static weft_plan *make_plan(weft_model *model, weft_adapter *const *adapter, int which, double *sealed)
{
    weft_plan_options      o = WEFT_PLAN_OPTIONS_INIT;
    weft_composite_options cached = WEFT_COMPOSITE_OPTIONS_INIT;
    weft_plan             *plan;
    double                 t = now();

    o.path = plans[which].path;
    cached.flags = WEFT_COMPOSITE_CACHED;
    must(weft_plan_create(model, &o, &plan, &err));
    for (int i = 0; i < plans[which].adapters; i++) must(weft_plan_add(plan, adapter[i], 0.8f, NULL, &err));
    if (which == KLORA) must(weft_plan_klora(plan, NULL, &err));
    if (which == SWITCH) must(weft_plan_switch(plan, NULL, &err));
    if (which == MASKS || which == REGIONS) give_halves(plan, which == REGIONS);
    if (which == LORATORIO) must(weft_plan_loratorio(plan, NULL, &err));
    if (which == CACHED) must(weft_plan_composite(plan, &cached, &err));
    must(weft_plan_seal(plan, CALLS, &err));
    *sealed = now() - t;
    return plan;
}

/* ---- the steps ------------------------------------------------------------------------------- */

typedef struct inputs {
    weft_step step;
    weft_text text, negative, region[2];
    float    *memory;
} inputs;

static void give_inputs(inputs *in, const weft_run *run)
{
    weft_run_info info = WEFT_RUN_INFO_INIT;
    weft_noise   *noise;

    must(weft_run_info_get(run, &info, &err));
    if (info.text_streams != 1) {
        fprintf(stderr, "bench_compose: wanted a model that reads one text, as SD1.x does\n");
        exit(1);
    }
    in->text = (weft_text)WEFT_TEXT_INIT;
    must(weft_run_text(run, 0, 1, &in->text, &err));
    size_t n = info.latent_len, text = in->text.len, all = 2 * n + 4 * text;
    in->memory = malloc(all * sizeof *in->memory);
    if (in->memory == NULL) exit(1);
    must(weft_noise_create(1, NULL, &noise, &err));
    must(weft_noise_normal(noise, in->memory, all - n, &err));
    weft_noise_free(noise);
    in->negative = in->region[0] = in->region[1] = in->text;
    in->text.data = in->memory + n;
    in->negative.data = in->text.data + text;
    in->region[0].data = in->negative.data + text;
    in->region[1].data = in->region[0].data + text;
    in->step = (weft_step)WEFT_STEP_INIT;
    in->step.latent = in->memory;
    in->step.out = in->memory + all - n;
    in->step.latent_len = in->step.out_len = n;
    in->step.text = &in->text, in->step.negative = &in->negative;
    in->step.text_count = in->step.negative_count = 1;
    in->step.timestep = 500;
    in->step.guidance = 7.5f;
}

static double take_step(weft_run *run, inputs *in, int which, int32_t call)
{
    double t;

    in->step.region_text = which == REGIONS ? in->region : NULL;
    in->step.region_text_count = which == REGIONS ? 2 : 0;
    in->step.call = call;
    t = now();
    must(weft_run_step(run, &in->step, &err));
    return now() - t;
}

/* Calls in the middle of an image. Cached, a call that reuses comes after the one that it reuses. */
static double measure(weft_run *run, weft_plan *plan, inputs *in, int which)
{
    int32_t call = CALLS / 2 + 1;

    must(weft_run_set_plan(run, plan, &err));
    if (which == CACHED) (void)take_step(run, in, which, call - 1);
    return take_step(run, in, which, call);
}

static void report(const weft_plan *plan, int which, const double *seconds, const double *plain, int rounds,
                   double sealed)
{
    weft_plan_info info = WEFT_PLAN_INFO_INIT;
    weft_call_info call = WEFT_CALL_INFO_INIT;
    double         ratio[ROUNDS_MAX];

    must(weft_plan_info_get(plan, &info, &err));
    must(weft_plan_call(plan, CALLS / 2 + 1, &call, &err));
    for (int i = 0; i < rounds; i++) ratio[i] = seconds[i] / plain[i];
    printf("%-30s %d %9.3f s %8.3f   sealed in %7.2f s, side path %7.1f MB, copies %7.1f MB\n", plans[which].what,
           (int)call.evaluations, median(seconds, rounds), median(ratio, rounds), sealed, 1e-6 * (double)info.side_bytes,
           1e-6 * (double)info.merged_bytes);
}

static void run_all(weft_model *model, weft_adapter *const *adapter, weft_run_options *o, int count, int rounds)
{
    static double    seconds[PLANS][ROUNDS_MAX];
    double           sealed[PLANS], t;
    weft_plan       *plan[PLANS];
    weft_run        *shared, *own;
    weft_model_info  m = WEFT_MODEL_INFO_INIT;
    weft_text_info   sequence = WEFT_TEXT_INFO_INIT;
    inputs           in;
    struct rusage    usage;

    must(weft_model_info_get(model, &m, &err));
    must(weft_model_text(model, 0, &sequence, &err));
    o->text_tokens = sequence.tokens;
    for (int k = 0; k < count; k++) plan[k] = make_plan(model, adapter, k, &sealed[k]);
    must(weft_run_create(plan[PLAIN], o, &shared, &err));
    must(weft_run_create(plan[PLAIN], o, &own, &err));
    t = now();
    must(weft_run_set_plan(own, plan[COPIES], &err));
    t = now() - t;
    give_inputs(&in, shared);
    for (int i = -1; i < rounds; i++)
        for (int k = 0; k < count; k++) {
            double s = k == COPIES ? take_step(own, &in, k, CALLS / 2 + 1) : measure(shared, plan[k], &in, k);
            if (i >= 0) seconds[k][i] = s;
        }
    printf("%-30s %s %11s %8s\n", "", "evaluations", "step", "ratio");
    for (int k = 0; k < count; k++) report(plan[k], k, seconds[k], seconds[PLAIN], rounds, sealed[k]);
    getrusage(RUSAGE_SELF, &usage);
    printf("copies of four made in %.2f s; peak %.2f GB\n", t, (double)usage.ru_maxrss / 1048576.0);
    free(in.memory);
    weft_run_free(shared);
    weft_run_free(own);
    for (int k = 0; k < count; k++) weft_plan_free(plan[k]);
}

int main(int argc, char **argv)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_adapter    *adapter[ADAPTERS];
    weft_model      *model;
    weft_model_info  m = WEFT_MODEL_INFO_INIT;
    int              rounds = 3, count = USUAL;
    int32_t          size = 512;

    if (argc < 2 + ADAPTERS) {
        printf("bench_compose: no model given: bench_compose MODEL ADAPTER ADAPTER ADAPTER ADAPTER [--size PIXELS] "
               "[--threads N] [--rounds N] [--all]\n");
        return 0;
    }
    for (int i = 2 + ADAPTERS; i < argc; i++) {
        if (strcmp(argv[i], "--all") == 0) count = PLANS;
        else if (i + 1 == argc) break;
        else if (strcmp(argv[i], "--size") == 0) size = atoi(argv[++i]);
        else if (strcmp(argv[i], "--threads") == 0) o.threads = atoi(argv[++i]);
        else if (strcmp(argv[i], "--rounds") == 0) rounds = atoi(argv[++i]);
    }
    rounds = rounds < 1 ? 1 : rounds > ROUNDS_MAX ? ROUNDS_MAX : rounds;
    must(weft_model_open(argv[1], NULL, &model, &err));
    must(weft_model_info_get(model, &m, &err));
    o.height = o.width = size / m.image_factor;
    for (int i = 0; i < ADAPTERS; i++) must(weft_adapter_open(argv[2 + i], NULL, &adapter[i], &err));
    run_all(model, adapter, &o, count, rounds);
    for (int i = 0; i < ADAPTERS; i++) weft_adapter_free(adapter[i]);
    weft_model_free(model);
    return 0;
}
