/* adapters.c - what adapters add to a step: side path, methods, a changed strength, a merged copy, a composite.
 *
 * All plans share one run, which moves from one to the next; the time of the move is not the step's, but every step that
 * is measured here, the plain one too, is the first of its plan and makes the keys and values of the texts. Each ratio is to
 * the plain step of the same round. The peer's step has two of them through PEFT, unfused. What is added is a small
 * difference of two large times, so there are five rounds at least. */
#include "suite.h"

enum { CALLS = 20, ROUNDS_LEAST = 5 };
enum { PLAIN, ONE, TWO, FOUR, KLORA, SWITCH, COMPOSITE, PLANS };

static const struct { const char *id, *what; int adapters; double bar, stretch; } plans[PLANS] = {
    [PLAIN]     = { "plain", "plain step", 0, NAN, NAN },
    [ONE]       = { "adapters.1", "one LoRA of rank 16, side path: added", 1, 2.5, 1.38 },
    [TWO]       = { "adapters.2", "two LoRAs: added", 2, 4, 2.76 },
    [FOUR]      = { "adapters.4", "four LoRAs: added", 4, 7, 5.52 },
    [KLORA]     = { "adapters.klora", "K-LoRA of two: added", 2, 2.5, 1.38 },
    [SWITCH]    = { "adapters.switch", "switch of three: added", 3, 2.5, 1.38 },
    [COMPOSITE] = { "adapters.composite", "composite of two: plain steps", 2, 2, NAN },
};

static weft_error err;

static weft_plan *make(weft_model *model, weft_adapter *const *adapter, int which)
{
    weft_plan *plan = plan_of(model, adapter, plans[which].adapters, WEFT_PATH_SIDE, 0);
    if (which == KLORA) must(weft_plan_klora(plan, NULL, &err), &err);
    if (which == SWITCH) must(weft_plan_switch(plan, NULL, &err), &err);
    if (which == COMPOSITE) must(weft_plan_composite(plan, NULL, &err), &err);
    must(weft_plan_seal(plan, CALLS, &err), &err);
    return plan;
}

static span step_of(side *s, weft_plan *plan, int steps)
{
    must(weft_run_set_plan(s->run, plan, &err), &err);
    s->step.call = CALLS / 2 + 1;
    return side_steps(s, steps);
}

/* Until a plan with another strength is the run's. */
static span change(side *s, const weft_plan *plan, weft_plan **changed, float strength)
{
    span begin = span_now();
    must(weft_plan_copy(plan, changed, &err), &err);
    must(weft_plan_set_weight(*changed, 0, strength, NULL, &err), &err);
    must(weft_plan_seal(*changed, CALLS, &err), &err);
    must(weft_run_set_plan(s->run, *changed, &err), &err);
    return span_since(begin);
}

/* A change, the step after it, which makes the keys and values of the texts again, and a step after that. */
static void changes(suite *b, side *s, weft_plan *one)
{
    samples set = { 0 }, added = { 0 }, seconds = { 0 }, more = { 0 };

    step_of(s, one, 1);
    for (int i = 0; i < b->rounds; i++) {
        weft_plan *plan;
        double t = judged(b, change(s, one, &plan, 0.5f + 0.01f * (float)i));
        double next = judged(b, side_steps(s, 1)), steady = judged(b, side_steps(s, 1));
        must(weft_run_set_plan(s->run, one, &err), &err);
        weft_plan_free(plan);
        sample(&seconds, t);
        sample(&set, 100 * t / steady);
        sample(&more, next - steady);
        sample(&added, 100 * (next / steady - 1));
    }
    figure r = figure_of("adapters", "adapters.change", "%");
    snprintf(r.what, sizeof r.what, "a changed strength until it is set, of a step");
    set_figure(&r, &set);
    r.bar = 0.5; /* "nothing" */
    r.ours = median_of(&seconds);
    add_figure(b, &r);
    r = figure_of("adapters", "adapters.change.next", "%");
    snprintf(r.what, sizeof r.what, "the step after a changed strength: added");
    set_figure(&r, &added);
    r.bar = 0.5;
    r.ours = median_of(&more);
    add_figure(b, &r);
}

static void copies(suite *b, side *s, weft_model *model, weft_adapter *const *adapter, weft_plan *plain)
{
    weft_plan *merged = plan_of(model, adapter, 1, WEFT_PATH_MERGED, CALLS);
    samples    seconds = { 0 };

    for (int i = 0; i < b->rounds; i++) {
        must(weft_run_set_plan(s->run, plain, &err), &err);
        span begin = span_now();
        must(weft_run_set_plan(s->run, merged, &err), &err);
        sample(&seconds, judged(b, span_since(begin)) / (b->processor ? b->threads : 1));
    }
    figure r = figure_of("adapters", "adapters.copy", "s");
    snprintf(r.what, sizeof r.what, "a private merged copy");
    set_figure(&r, &seconds);
    r.bar = 0.3;
    r.stretch = 0.15;
    r.ours = r.measured;
    add_figure(b, &r);
    must(weft_run_set_plan(s->run, plain, &err), &err);
    weft_plan_free(merged);
}

static void with_peer(suite *b, const samples *ours, const samples *theirs)
{
    samples ratio = { 0 };

    for (int i = 0; i < theirs->n && i < ours->n; i++) sample(&ratio, theirs->v[i] / ours->v[i]);
    figure r = figure_of("adapters", "adapters.peer", "x");
    snprintf(r.what, sizeof r.what, "step with two LoRAs, f32");
    set_figure(&r, &ratio);
    r.more = true;
    r.ours = median_of(ours);
    r.theirs = median_of(theirs);
    snprintf(r.versus, sizeof r.versus, "PyTorch f32, PEFT");
    add_figure(b, &r);
}

void group_adapters(suite *b)
{
    weft_model   *model = open_model(b->model, false);
    weft_adapter *adapter[LORAS];
    weft_plan    *plan[PLANS];
    samples       seconds[PLANS] = { 0 }, ratio[PLANS] = { 0 }, theirs = { 0 };
    char          words[1200], answer[256];
    side          s;
    span          other;
    int           rounds = b->rounds;

    if (!b->quick && b->rounds < ROUNDS_LEAST) b->rounds = ROUNDS_LEAST;
    for (int i = 0; i < LORAS; i++) must(weft_adapter_open(b->lora[i], NULL, &adapter[i], &err), &err);
    for (int k = 0; k < PLANS; k++) plan[k] = make(model, adapter, k);
    side_open(&s, model, plan[PLAIN], b->size, b->threads, 0);
    peer_inputs(b, &s, words, sizeof words);
    float *two = malloc(s.info.latent_len * sizeof *two);
    if (two == NULL) die("out of memory");
    bool peft = b->worker != NULL && peer_time(b->worker, &other, "load\tpeft\t%s\tf32\tunet", b->model)
                && peer_ask(b->worker, answer, sizeof answer, "lora\tpeft\t%s\t%s", b->lora[0], b->lora[1])
                && peer_ask(b->worker, answer, sizeof answer, "use\tpeft\t2");
    for (int i = -1; i < b->rounds; i++) {
        for (int k = 0; k < PLANS; k++) {
            double t = judged(b, step_of(&s, plan[k], b->steps));
            if (k == TWO) memcpy(two, s.out, s.info.latent_len * sizeof *two);
            if (i < 0) continue;
            sample(&seconds[k], t);
            sample(&ratio[k], k == COMPOSITE ? t / seconds[PLAIN].v[i] : 100 * (t / seconds[PLAIN].v[i] - 1));
        }
        if (i >= 0 && peft && peer_time(b->worker, &other, "step\tpeft\t%d\t%s\t%s/peer.f32", b->steps, words, b->dir))
            sample(&theirs, judged(b, other));
        note("adapters: round %d", i + 1);
    }
    for (int k = ONE; k < PLANS; k++) {
        figure r = figure_of("adapters", plans[k].id, k == COMPOSITE ? "x" : "%");
        snprintf(r.what, sizeof r.what, "%s", plans[k].what);
        set_figure(&r, &ratio[k]);
        r.bar = plans[k].bar;
        r.stretch = plans[k].stretch;
        r.ours = median_of(&seconds[k]);
        r.theirs = median_of(&seconds[PLAIN]);
        snprintf(r.versus, sizeof r.versus, "plain step");
        add_figure(b, &r);
    }
    if (theirs.n > 0) with_peer(b, &seconds[TWO], &theirs);
    snprintf(words, sizeof words, "%s/peer.f32", b->dir);
    float *other_two = theirs.n > 0 ? peer_result(words, s.info.latent_len) : NULL;
    if (other_two != NULL)
        one_error(b, "adapters", "error.adapters", "step with two LoRAs, f32: apart from PyTorch",
                  apart(two, other_two, s.info.latent_len), 5e-5);
    free(two), free(other_two);
    changes(b, &s, plan[ONE]);
    copies(b, &s, model, adapter, plan[PLAIN]);
    b->rounds = rounds;
    if (peft) peer_ask(b->worker, answer, sizeof answer, "drop\tpeft");
    for (int k = PLAIN + 1; k < PLANS; k++) weft_plan_free(plan[k]);
    side_close(&s);
    for (int i = 0; i < LORAS; i++) weft_adapter_free(adapter[i]);
    weft_model_free(model);
}
