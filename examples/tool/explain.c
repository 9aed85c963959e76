/* explain.c - what a plan will do, without running the network. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../draw/draw.h"
#include "tool.h"

int explain(settings *s)
{
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    meter m = { .shown = !(s->flags & QUIET) && isatty(STDERR_FILENO) };
    uint64_t bytes;
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
    must(weft_run_bytes(plan, &s->run, &bytes, &err));

    fputs(text, stdout);
    int halves = is_guided(s, &info) ? 2 : 1;
    printf("\n%d steps of ", (int)s->steps);
    print_sampler(stdout, s);
    printf(": %d calls, %d evaluations of the network%s\n", (int)calls, (int)evaluations * halves,
           halves == 2 ? " with guidance" : "");
    printf("a run at %dx%d takes ", (int)s->width, (int)s->height);
    print_bytes((double)bytes);
    printf(" besides the model's ");
    print_bytes((double)info.bytes);
    putchar('\n');
    if (s->output) {
        must(draw_table(plan, model, s->output, &err));
        if (!(s->flags & QUIET)) fprintf(stderr, "weft: wrote %s\n", s->output);
    }
    free(text);
    weft_plan_free(plan);
    weft_sampler_free(sampler);
    weft_model_free(model);
    return 0;
}
