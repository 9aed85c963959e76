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
#include <sys/resource.h>

#include "bench/suite/suite.h"

enum { ADAPTERS = 4, CALLS = 20 };

static weft_error err;

static double now(void)
{
    return span_now().clock;
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
        must(weft_plan_set_mask(plan, i, &m, &err), &err);
        r.flags = WEFT_REGION_ADAPTER;
        r.adapter = i;
        if (prompts) must(weft_plan_add_region(plan, &r, &err), &err);
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
    must(weft_plan_create(model, &o, &plan, &err), &err);
    for (int i = 0; i < plans[which].adapters; i++) must(weft_plan_add(plan, adapter[i], 0.8f, NULL, &err), &err);
    if (which == KLORA) must(weft_plan_klora(plan, NULL, &err), &err);
    if (which == SWITCH) must(weft_plan_switch(plan, NULL, &err), &err);
    if (which == MASKS || which == REGIONS) give_halves(plan, which == REGIONS);
    if (which == LORATORIO) must(weft_plan_loratorio(plan, NULL, &err), &err);
    if (which == CACHED) must(weft_plan_composite(plan, &cached, &err), &err);
    must(weft_plan_seal(plan, CALLS, &err), &err);
    *sealed = now() - t;
    return plan;
}

/* ---- the steps ------------------------------------------------------------------------------- */

/* Regions have texts of their own: the two that the side has, the other way round. */
static double take_step(side *s, int which, int32_t call)
{
    weft_text region[2] = { s->text[1][0], s->text[0][0] };

    s->step.region_text = which == REGIONS ? region : NULL;
    s->step.region_text_count = which == REGIONS ? 2 : 0;
    s->step.call = call;
    return side_steps(s, 1).clock;
}

/* Calls in the middle of an image. Cached, a call that reuses comes after the one that it reuses. */
static double measure(side *s, weft_plan *plan, int which)
{
    int32_t call = CALLS / 2 + 1;

    must(weft_run_set_plan(s->run, plan, &err), &err);
    if (which == CACHED) (void)take_step(s, which, call - 1);
    return take_step(s, which, call);
}

static void report(const weft_plan *plan, int which, const samples *seconds, const samples *plain, double sealed)
{
    weft_plan_info info = WEFT_PLAN_INFO_INIT;
    weft_call_info call = WEFT_CALL_INFO_INIT;
    samples        ratio = { 0 };

    must(weft_plan_info_get(plan, &info, &err), &err);
    must(weft_plan_call(plan, CALLS / 2 + 1, &call, &err), &err);
    for (int i = 0; i < seconds->n; i++) sample(&ratio, seconds->v[i] / plain->v[i]);
    printf("%-30s %d %9.3f s %8.3f   sealed in %7.2f s, side path %7.1f MB, copies %7.1f MB\n", plans[which].what,
           (int)call.evaluations, median_of(seconds), median_of(&ratio), sealed, 1e-6 * (double)info.side_bytes,
           1e-6 * (double)info.merged_bytes);
}

static void run_all(weft_model *model, weft_adapter *const *adapter, int32_t size, int32_t threads, int count, int rounds)
{
    static samples seconds[PLANS];
    double         sealed[PLANS], t;
    weft_plan     *plan[PLANS];
    side           shared, own;
    struct rusage  usage;

    for (int k = 0; k < count; k++) plan[k] = make_plan(model, adapter, k, &sealed[k]);
    side_open(&shared, model, plan[PLAIN], size, threads, 0);
    if (shared.info.text_streams != 1) die("wanted a model that reads one text, as SD1.x does");
    side_open(&own, model, plan_of(model, NULL, 0, WEFT_PATH_AUTO, CALLS), size, threads, 0);
    t = now();
    must(weft_run_set_plan(own.run, plan[COPIES], &err), &err);
    t = now() - t;
    for (int i = -1; i < rounds; i++)
        for (int k = 0; k < count; k++) {
            double s = k == COPIES ? take_step(&own, k, CALLS / 2 + 1) : measure(&shared, plan[k], k);
            if (i >= 0) sample(&seconds[k], s);
        }
    printf("%-30s %s %11s %8s\n", "", "evaluations", "step", "ratio");
    for (int k = 0; k < count; k++) report(plan[k], k, &seconds[k], &seconds[PLAIN], sealed[k]);
    getrusage(RUSAGE_SELF, &usage);
    printf("copies of four made in %.2f s; peak %.2f GB\n", t, (double)usage.ru_maxrss / 1048576.0);
    side_close(&own);
    must(weft_run_set_plan(shared.run, plan[PLAIN], &err), &err);
    for (int k = PLAIN + 1; k < count; k++) weft_plan_free(plan[k]);
    side_close(&shared);
}

int main(int argc, char **argv)
{
    weft_adapter    *adapter[ADAPTERS];
    weft_model      *model;
    int              rounds = 3, count = USUAL;
    int32_t          size = 512, threads = 0;

    if (argc < 2 + ADAPTERS) {
        printf("bench_compose: no model given: bench_compose MODEL ADAPTER ADAPTER ADAPTER ADAPTER [--size PIXELS] "
               "[--threads N] [--rounds N] [--all]\n");
        return 0;
    }
    for (int i = 2 + ADAPTERS; i < argc; i++) {
        if (strcmp(argv[i], "--all") == 0) count = PLANS;
        else if (i + 1 == argc) break;
        else if (strcmp(argv[i], "--size") == 0) size = atoi(argv[++i]);
        else if (strcmp(argv[i], "--threads") == 0) threads = atoi(argv[++i]);
        else if (strcmp(argv[i], "--rounds") == 0) rounds = atoi(argv[++i]);
    }
    rounds = rounds < 1 ? 1 : rounds > ROUNDS_MAX ? ROUNDS_MAX : rounds;
    must(weft_model_open(argv[1], NULL, &model, &err), &err);
    for (int i = 0; i < ADAPTERS; i++) must(weft_adapter_open(argv[2 + i], NULL, &adapter[i], &err), &err);
    run_all(model, adapter, size, threads, count, rounds);
    for (int i = 0; i < ADAPTERS; i++) weft_adapter_free(adapter[i]);
    weft_model_free(model);
    return 0;
}
