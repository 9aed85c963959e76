/* explain.c - what a plan will do, without running the network. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../draw/draw.h"
#include "tool.h"

/* Costs and strengths of the calls, with equal ones in one line. */
static void print_calls(const weft_plan *plan, const weft_run_options *o, uint32_t flags, int32_t calls)
{
    weft_plan_info info = WEFT_PLAN_INFO_INIT;
    must(weft_plan_info_get(plan, &info, &err));
    size_t n = (size_t)info.adapters;
    weft_call_cost *cost = zeroed((size_t)calls, sizeof *cost);
    double *strength = zeroed((size_t)calls * n + 1, sizeof *strength), *norm = zeroed(n + 1, sizeof *norm);

    for (int32_t k = 0; k < calls; k++) cost[k] = (weft_call_cost)WEFT_CALL_COST_INIT;
    must(weft_run_costs(plan, o, flags, cost, (size_t)calls, &err));
    must(weft_plan_strengths(plan, strength, (size_t)calls * n, norm, n, &err));
    clear_progress();
    printf("\ncalls      evaluations  GFLOP  and adapters  weights read  %s\n",
           n > 0 ? "strength of each adapter" : "");
    for (int32_t k = 0, end; k < calls; k = end) {
        char which[32];
        for (end = k + 1; end < calls; end++)
            if (memcmp(&cost[k], &cost[end], sizeof *cost) != 0 ||
                memcmp(strength + (size_t)k * n, strength + (size_t)end * n, n * sizeof *strength) != 0)
                break;
        if (end == k + 1) snprintf(which, sizeof which, "%d", (int)k);
        else snprintf(which, sizeof which, "%d-%d", (int)k, (int)end - 1);
        printf("  %-9s ", which);
        if (cost[k].reused) printf("%2d, %2d reuse ", (int)cost[k].evaluations, (int)cost[k].reused);
        else printf("%11d ", (int)cost[k].evaluations);
        printf("%6.4g %12.3g  %10.4g MB ", cost[k].flops / 1e9, cost[k].side_flops / 1e9, cost[k].weight_bytes / 1e6);
        for (size_t a = 0; a < n && a < 26; a++) printf(" %c %.3f", 'A' + (int)a, strength[(size_t)k * n + a]);
        printf("%s\n", n > 26 ? " .." : "");
    }
    free(cost);
    free(strength);
    free(norm);
}

static void print_json(const weft_plan *plan, const weft_run_options *o, uint32_t flags)
{
    size_t needed;

    must(weft_explain_json(plan, o, flags, NULL, 0, &needed, &err));
    char *text = zeroed(needed, 1);
    must(weft_explain_json(plan, o, flags, text, needed, NULL, &err));
    clear_progress();
    fputs(text, stdout);
    free(text);
}

int explain(settings *s)
{
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    weft_text_info sequence = WEFT_TEXT_INFO_INIT;
    meter m = { .shown = !(s->flags & QUIET) && isatty(STDERR_FILENO) };
    weft_run_info run = WEFT_RUN_INFO_INIT;
    size_t needed;
    int32_t evaluations = 0;

    check_writable(s->output, ".png");
    check_writable(s->save_plan, ".json");
    weft_model *model = open_model(s->target, s, &info);
    load_plan(model, s, &m);
    weft_sampler *sampler = make_sampler(model, s);
    int32_t calls = weft_sampler_calls(sampler);
    set_size(s, &info);
    weft_plan *plan = make_plan(model, s, calls, &m);
    for (int32_t n = 0; n < calls; n++) {
        weft_call_info call = WEFT_CALL_INFO_INIT;
        must(weft_plan_call(plan, n, &call, &err));
        evaluations += call.evaluations;
    }
    must(weft_plan_text(plan, NULL, 0, &needed, &err));
    char *text = zeroed(needed, 1);
    must(weft_plan_text(plan, text, needed, NULL, &err));
    must(weft_run_measure(plan, &s->run, &run, &err));

    int halves = is_guided(s, &info) ? 2 : 1;
    uint32_t flags = halves == 2 ? WEFT_COSTS_GUIDED : 0;
    weft_run_options one = s->run; /* most prompts are one chunk */
    must(weft_model_text(model, 0, &sequence, &err));
    one.text_tokens = sequence.tokens;
    if (s->flags & JSON) {
        print_json(plan, &one, flags);
    } else {
        fputs(text, stdout);
        print_calls(plan, &one, flags, calls);
        printf("\n%d steps of ", (int)s->steps);
        print_sampler(stdout, s);
        printf(": %d calls, %d evaluations of the network%s\n", (int)calls, (int)evaluations * halves,
               halves == 2 ? " with guidance" : "");
        printf("a run at %dx%d takes ", (int)s->width, (int)s->height);
        print_bytes((double)run.bytes);
        printf(" besides the model's ");
        print_bytes((double)info.bytes);
        printf(":\n  scratch ");
        print_bytes((double)run.scratch_bytes);
        printf(" (a step ");
        print_bytes((double)run.step_bytes);
        printf(", prompts ");
        print_bytes((double)run.encode_bytes);
        printf(", decoding ");
        print_bytes((double)run.decode_bytes);
        printf("), copies ");
        print_bytes((double)run.copy_bytes);
        printf(", kept of the text ");
        print_bytes((double)run.kept_bytes);
        putchar('\n');
        printf("arithmetic: %s%s, by %s\n", weft_arithmetic_name(info.arithmetic),
               info.emulated ? ", emulated" : "", info.tier);
    }
    if (s->output) {
        must(draw_explain(plan, model, &one, flags, s->output, &err));
        clear_progress();
        if (!(s->flags & QUIET)) fprintf(stderr, "weft: wrote %s\n", s->output);
    }
    free(text);
    weft_plan_free(plan);
    weft_sampler_free(sampler);
    weft_model_free(model);
    return 0;
}
