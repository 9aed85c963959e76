/* switch.c - one adapter at a time, alternating over the calls.
 *
 * Adapters added to the same weights dilute each other. Alternating keeps each one whole, and a
 * call costs the same however many there are. The price: no single call sees the whole composition.
 * So the period must be short compared with the number of calls, but long enough for a turn to have
 * an effect; the authors settled on 5.
 *
 * An adapter that never gets a turn is named in the plan's warnings: an image that quietly leaves
 * it out is hard to debug. The order is that of weft_plan_add() and is never sorted, since callers
 * tune it by eye. The prompt is encoded once, with the first adapter's text parts, unless the plan
 * says otherwise. */
#include "base/structs.h"
#include "plan/method/method.h"

static const weft_switch_options *options_of(const wf_sheet *s)
{
    return s->options->data;
}

/* As the paper prints it, floor((n mod k period) / period). The authors' program changes adapters
 * in a callback after call n, when n > 0 and period divides n: it is one call late, and the first
 * turn is one call longer. */
int32_t wf_switch_turn(int32_t call, int32_t period, int32_t adapters, bool official_offset)
{
    if (official_offset) call = WF_MAX(call - 1, 0);
    return call / period % adapters;
}

static int32_t turn(const weft_plan *p, const wf_sheet *s, int32_t call)
{
    const weft_switch_options *o = options_of(s);
    return wf_switch_turn(call, o->period, p->adapters,
                          (o->flags & WEFT_SWITCH_OFFICIAL_OFFSET) != 0);
}

static weft_status begin(const weft_plan *p, wf_table *t, wf_sheet *s, weft_error *err)
{
    int32_t last = -1;

    (void)err;
    /* Turns come in order, so those that had one are the first few. */
    for (int32_t n = 0; n < s->calls && last < p->adapters - 1 && p->adapters > 0; n++)
        last = WF_MAX(last, turn(p, s, n));
    for (int32_t a = last + 1; a < p->adapters; a++)
        wf_table_warn(p, t,
                      "adapter %s gets no turn: %d calls in turns of %d reach %d of %d adapters",
                      wf_adapter_name(p->entry[a].bound->adapter), (int)s->calls,
                      (int)options_of(s)->period, (int)(last + 1), (int)p->adapters);
    return WEFT_OK;
}

static wf_cell choose(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch,
                      int32_t layer, int32_t adapter)
{
    (void)branch, (void)layer;
    return turn(p, s, call) == adapter ? WF_ALL : WF_NOTHING;
}

static int32_t alone(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch)
{
    (void)branch;
    return turn(p, s, call);
}

static void describe(const weft_plan *p, const wf_sheet *s, wf_text *out)
{
    const weft_switch_options *o = options_of(s);

    (void)p;
    wf_text_add(out, "  turns      of %d calls%s\n", (int)o->period,
                o->flags & WEFT_SWITCH_OFFICIAL_OFFSET ? ", one call late (the authors' program)"
                                                       : "");
}

/* "A5 B5 A2": whose turn, for how many calls; a long cycle is folded at eight turns to a line. */
static void explain(const weft_plan *p, const wf_sheet *s, wf_text *out)
{
    int32_t column = 0;

    if (p->adapters == 0) return;
    for (int32_t n = 0, end; n < s->calls; n = end, column++) {
        wf_letter_text letter;
        int32_t        a = turn(p, s, n);
        for (end = n + 1; end < s->calls && turn(p, s, end) == a; end++) {}
        if (column % 16 == 0) wf_text_add(out, column == 0 ? "  turns " : "\n        ");
        wf_text_add(out, " %s%d", wf_letter(&letter, a), (int)(end - n));
    }
    wf_text_add(out, "\n");
    for (int32_t a = 0; a < p->adapters; a++) {
        wf_letter_text letter;
        wf_number_text c;
        int32_t        calls = 0;
        for (int32_t n = 0; n < s->calls; n++) calls += turn(p, s, n) == a;
        wf_text_add(out, "  %s  %s in %d calls, at %d layers of the UNet\n", wf_letter(&letter, a),
                    wf_number(&c, p->entry[a].weight), (int)calls, (int)wf_sheet_reach(s, a));
    }
}

weft_status weft_plan_switch(weft_plan *plan, const weft_switch_options *options, weft_error *err)
{
    weft_switch_options o;
    weft_status st = WF_OPTIONS(&o, options, weft_switch_options, WEFT_SWITCH_OFFICIAL_OFFSET, err);

    if (st != WEFT_OK) return st;
    if (o.period < 0)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_switch_options: period is %d, need at least 1, or 0 for 5",
                       (int)o.period);
    if (o.reserved0 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "weft_switch_options: reserved0 is %d, must be zero", (int)o.reserved0);
    if (o.period == 0) o.period = 5;
    return wf_plan_use(plan, &wf_method_switch, &o, sizeof o, err);
}

const wf_method wf_method_switch = {
    .name = "switch",
    .title = "LoRA Switch",
    .text = WEFT_TEXT_FIRST,
    .begin = begin,
    .alone = alone,
    .choose = choose,
    .describe = describe,
    .explain = explain,
};
