/* switch.c - one adapter at a time, alternating over the calls.
 *
 * Adapters added to the same weights dilute each other. Alternating keeps each one whole, and a
 * call costs the same however many there are. The price: no single call sees the whole composition.
 * So the period must be short compared with the number of calls, but long enough for a turn to have
 * an effect; the authors settled on 5.
 *
 * The order of the turns is the caller's, or that of weft_plan_add(). It is never sorted, since
 * callers tune it by eye. W-Switch gives adapters unequal parts of the cycle: its calls are divided
 * in proportion to the shares, by largest remainder, so that they always add up. The last calls may
 * all be one adapter's, which is when details settle.
 *
 * An adapter that never gets a turn is named in the plan's warnings: an image that quietly leaves
 * it out is hard to debug. The prompt is encoded once, with the first adapter's text parts, unless
 * the plan says otherwise. */
#include "base/structs.h"
#include "plan/method/method.h"

/* The caller's options, and the order that they point to. */
typedef struct asked {
    weft_switch_options o;
    int32_t             order[];
} asked;

/* Whose turn it is at each call of the sheet; 0 without adapters. */
typedef struct state {
    int32_t cycle; /* calls until the turns begin anew */
    int32_t turn[];
} state;

static const asked *options_of(const wf_sheet *s)
{
    return s->options->data;
}

/* The paper prints equal turns as floor((n mod k period) / period). The authors' program changes
 * adapters in a callback after call n, when n > 0 and period divides n: it is one call late, and the
 * first turn is one call longer. */
int32_t wf_switch_turn(int32_t call, const int32_t *calls, int32_t turns, bool official_offset)
{
    int64_t cycle = 0, n;

    for (int32_t t = 0; t < turns; t++) cycle += calls[t];
    if (official_offset) call = WF_MAX(call - 1, 0);
    n = call % cycle;
    for (int32_t t = 0; t < turns; t++)
        if ((n -= calls[t]) < 0) return t;
    return turns - 1;
}

void wf_switch_divide(int32_t *calls, const double *share, int32_t turns, int64_t cycle)
{
    double  sum = 0;
    int64_t left = cycle;

    for (int32_t t = 0; t < turns; t++) sum += share[t];
    for (int32_t t = 0; t < turns; t++) {
        calls[t] = (int32_t)(share[t] * (double)cycle / sum);
        left -= calls[t];
    }
    for (; left > 0; left--) { /* at most one for each turn, to the largest remainder */
        int32_t most = 0;
        for (int32_t t = 1; t < turns; t++)
            if (share[t] * (double)cycle / sum - calls[t] >
                share[most] * (double)cycle / sum - calls[most]) most = t;
        calls[most]++;
    }
}

static int32_t turns_of(const weft_plan *p, const wf_sheet *s)
{
    const asked *x = options_of(s);
    return x->o.order_len > 0 ? (int32_t)x->o.order_len : p->adapters;
}

static int32_t adapter_of(const wf_sheet *s, int32_t turn)
{
    const asked *x = options_of(s);
    return x->o.order_len > 0 ? x->order[turn] : turn;
}

/* The adapter of the last calls, if there are any. */
static weft_status find_last(const weft_plan *p, const wf_sheet *s, int32_t *adapter,
                             weft_error *err)
{
    const weft_switch_options *o = &options_of(s)->o;

    *adapter = o->last_adapter;
    if (o->last_calls == 0 || o->last_role == WEFT_ROLE_NONE) return WEFT_OK;
    for (*adapter = 0; *adapter < p->adapters; ++*adapter)
        if (p->entry[*adapter].role == o->last_role) return WEFT_OK;
    return wf_fail(err, WEFT_E_UNSUPPORTED,
                   "switch: the last %d calls go to the %s adapter, and no adapter has that role",
                   (int)o->last_calls, o->last_role == WEFT_ROLE_CONTENT ? "content" : "style");
}

static weft_status check(const weft_plan *p, const wf_sheet *s, int32_t last, weft_error *err)
{
    const asked *x = options_of(s);

    for (size_t t = 0; t < x->o.order_len; t++)
        if (x->order[t] >= p->adapters)
            return wf_fail(err, WEFT_E_ARG,
                           "switch: turn %zu is of adapter %d, the plan has %d, counted from 0", t,
                           (int)x->order[t], (int)p->adapters);
    if (x->o.last_calls > 0 && last >= p->adapters)
        return wf_fail(err, WEFT_E_ARG,
                       "switch: the last calls go to adapter %d, the plan has %d, counted from 0",
                       (int)last, (int)p->adapters);
    if (x->o.last_calls > s->calls)
        return wf_fail(err, WEFT_E_ARG,
                       "switch: the last %d calls go to one adapter, the phase has %d calls",
                       (int)x->o.last_calls, (int)s->calls);
    return WEFT_OK;
}

/* calls [turns] of one cycle. */
static weft_status divide(const weft_plan *p, const wf_sheet *s, int32_t *calls, weft_error *err)
{
    const asked *x = options_of(s);
    int32_t      turns = turns_of(p, s);
    double       share[WF_ADAPTERS_MAX], sum = 0;

    for (int32_t t = 0; t < turns; t++) calls[t] = x->o.period;
    if ((x->o.flags & WEFT_SWITCH_SHARES) == 0) return WEFT_OK;
    for (int32_t t = 0; t < turns; t++) {
        int32_t        a = adapter_of(s, t);
        wf_number_text v;
        share[t] = p->entry[a].share;
        sum += share[t];
        if (share[t] < 0)
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "switch: the share of %s is %s, and time has no negative parts",
                           wf_adapter_name(p->entry[a].bound->adapter), wf_number(&v, share[t]));
    }
    if (!(sum > 0))
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "switch: the shares of all turns are 0, so nobody has a turn");
    wf_switch_divide(calls, share, turns, (int64_t)turns * x->o.period);
    return WEFT_OK;
}

static void warn_of_idle(const weft_plan *p, wf_table *t, const wf_sheet *s, const state *f)
{
    for (int32_t a = 0; a < p->adapters; a++) {
        bool has = false;
        for (int32_t n = 0; n < s->calls && !has; n++) has = f->turn[n] == a;
        if (!has)
            wf_table_warn(p, t, "adapter %s gets no turn in %d calls: a cycle of turns takes %d",
                          wf_adapter_name(p->entry[a].bound->adapter), (int)s->calls,
                          (int)f->cycle);
    }
}

static weft_status begin(const weft_plan *p, wf_table *t, wf_sheet *s, weft_error *err)
{
    const asked *x = options_of(s);
    int32_t      calls[WF_ADAPTERS_MAX], last, turns = turns_of(p, s);
    size_t       size = sizeof(state) + (size_t)s->calls * sizeof(int32_t);
    state       *f;

    s->state = wf_blob_create(&p->alloc, size);
    if (s->state == NULL) return wf_nomem(err, size, "a plan's turns");
    f = s->state->data;
    if (p->adapters == 0) return WEFT_OK;
    WF_TRY(find_last(p, s, &last, err));
    WF_TRY(check(p, s, last, err));
    WF_TRY(divide(p, s, calls, err));
    for (int32_t i = 0; i < turns; i++) f->cycle += calls[i];
    for (int32_t n = 0; n < s->calls; n++) {
        int32_t turn = wf_switch_turn(n, calls, turns,
                                      (x->o.flags & WEFT_SWITCH_OFFICIAL_OFFSET) != 0);
        f->turn[n] = n >= s->calls - x->o.last_calls ? last : adapter_of(s, turn);
    }
    warn_of_idle(p, t, s, f);
    return WEFT_OK;
}

static int32_t turn_at(const wf_sheet *s, int32_t call)
{
    return ((const state *)s->state->data)->turn[call];
}

/* Its turns go with it. A cycle without any turn, and last calls without their adapter, would be
 * another plan. */
static weft_status forget(wf_blob **out, const weft_plan *p, const wf_blob *options,
                          int32_t adapter, weft_error *err)
{
    const asked *old = options->data;
    const char  *name = wf_plan_adapter_name(p, adapter);
    size_t       n = old->o.order_len, bytes = sizeof *old + n * sizeof *old->order;
    asked       *x;

    if (old->o.last_calls > 0 && old->o.last_role == WEFT_ROLE_NONE &&
        old->o.last_adapter == adapter)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "switch: the last %d calls go to %s, which is to be removed",
                       (int)old->o.last_calls, name);
    if ((*out = wf_blob_create(&p->alloc, bytes)) == NULL)
        return wf_nomem(err, bytes, "a method's options");
    x = (*out)->data;
    x->o = old->o;
    x->o.order_len = 0;
    for (size_t t = 0; t < n; t++)
        if (old->order[t] != adapter)
            x->order[x->o.order_len++] = old->order[t] - (old->order[t] > adapter);
    x->o.order = x->o.order_len > 0 ? x->order : NULL; /* not the old block's */
    x->o.last_adapter -= x->o.last_adapter > adapter;
    if (n == 0 || x->o.order_len > 0) return WEFT_OK;
    wf_blob_drop(*out);
    *out = NULL;
    return wf_fail(err, WEFT_E_UNSUPPORTED,
                   "switch: all turns are those of %s, which is to be removed", name);
}

static wf_cell choose(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch,
                      int32_t layer, int32_t adapter)
{
    (void)p, (void)branch, (void)layer;
    return turn_at(s, call) == adapter ? WF_ALL : WF_NOTHING;
}

static int32_t alone(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch)
{
    (void)p, (void)branch;
    return turn_at(s, call);
}

static void describe(const weft_plan *p, const wf_sheet *s, wf_text *out)
{
    const weft_switch_options *o = &options_of(s)->o;

    (void)p;
    wf_text_add(out, "  turns      of %d calls%s%s\n", (int)o->period,
                o->flags & WEFT_SWITCH_SHARES ? " on average, in proportion to the shares" : "",
                o->flags & WEFT_SWITCH_OFFICIAL_OFFSET ? ", one call late (the authors' program)"
                                                       : "");
    if (o->last_calls > 0)
        wf_text_add(out, "  last       %d calls to one adapter\n", (int)o->last_calls);
}

/* "A5 B5 A2": whose turn, for how many calls; a long cycle is folded at eight turns to a line. */
static void explain(const weft_plan *p, const wf_sheet *s, wf_text *out)
{
    int32_t column = 0;

    if (p->adapters == 0) return;
    for (int32_t n = 0, end; n < s->calls; n = end, column++) {
        wf_letter_text letter;
        int32_t        a = turn_at(s, n);
        for (end = n + 1; end < s->calls && turn_at(s, end) == a; end++) {}
        if (column % 16 == 0) wf_text_add(out, column == 0 ? "  turns " : "\n        ");
        wf_text_add(out, " %s%d", wf_letter(&letter, a), (int)(end - n));
    }
    wf_text_add(out, "\n");
    for (int32_t a = 0; a < p->adapters; a++) {
        wf_letter_text letter;
        wf_number_text c;
        int32_t        calls = 0;
        for (int32_t n = 0; n < s->calls; n++) calls += turn_at(s, n) == a;
        wf_text_add(out, "  %s  %s in %d calls, at %d layers of the UNet\n", wf_letter(&letter, a),
                    wf_number(&c, p->entry[a].weight), (int)calls, (int)wf_sheet_reach(s, a));
    }
}

static weft_status check_options(const weft_switch_options *o, weft_error *err)
{
    if (o->period < 0 || o->period > WF_CALLS_MAX)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_switch_options: period is %d, need at least 1, or 0 for 5",
                       (int)o->period);
    if (o->reserved0 != 0 || o->reserved1 != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "weft_switch_options: reserved%d is set, must be zero", o->reserved0 == 0);
    if (o->order_len > 0 && o->order == NULL)
        return wf_fail(err, WEFT_E_ARG, "weft_switch_options: order is NULL");
    if (o->order_len > WF_ADAPTERS_MAX)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "weft_switch_options: an order of %zu turns, at most %d are taken",
                       o->order_len, WF_ADAPTERS_MAX);
    for (size_t t = 0; t < o->order_len; t++)
        if (o->order[t] < 0)
            return wf_fail(err, WEFT_E_ARG, "weft_switch_options: order[%zu] is %d", t,
                           (int)o->order[t]);
    if (o->last_calls < 0 || o->last_adapter < 0)
        return wf_fail(err, WEFT_E_ARG, "weft_switch_options: last_%s is %d",
                       o->last_calls < 0 ? "calls" : "adapter",
                       (int)(o->last_calls < 0 ? o->last_calls : o->last_adapter));
    if (o->last_role < WEFT_ROLE_NONE || o->last_role > WEFT_ROLE_STYLE)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_switch_options: last_role is %d, not one of WEFT_ROLE_*",
                       (int)o->last_role);
    if (o->last_role != WEFT_ROLE_NONE && o->last_adapter != 0)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_switch_options: last_role and last_adapter are set: one or the other");
    if (o->last_calls == 0 && (o->last_role != WEFT_ROLE_NONE || o->last_adapter != 0))
        return wf_fail(err, WEFT_E_ARG,
                       "weft_switch_options: last_calls is 0, but who has them is set");
    return WEFT_OK;
}

weft_status weft_plan_switch(weft_plan *plan, const weft_switch_options *options, weft_error *err)
{
    weft_switch_options o;
    size_t              size;
    asked              *x;
    weft_status         st;

    WF_TRY(WF_OPTIONS(&o, options, weft_switch_options,
                      WEFT_SWITCH_OFFICIAL_OFFSET | WEFT_SWITCH_SHARES, err));
    WF_TRY(check_options(&o, err));
    WF_TRY(wf_plan_still_open(plan, "switch", err));
    if (o.period == 0) o.period = 5;
    size = sizeof *x + o.order_len * sizeof *x->order;
    if ((x = wf_zalloc(&plan->alloc, 1, size)) == NULL)
        return wf_nomem(err, size, "a method's options");
    x->o = o;
    if (o.order_len > 0) memcpy(x->order, o.order, o.order_len * sizeof *x->order);
    st = wf_plan_use(plan, &wf_method_switch, x, size, err);
    wf_free(&plan->alloc, x);
    if (st != WEFT_OK) return st;
    x = wf_plan_kept_options(plan);
    x->o.order = o.order_len > 0 ? x->order : NULL;
    return WEFT_OK;
}

static const wf_field field_list[] = {
    { WF_VALUE("period", INT32, weft_switch_options, period), .otherwise = 5 },
    { WF_VALUE("order", LIST, weft_switch_options, order),
      .count = offsetof(weft_switch_options, order_len) },
    { WF_VALUE("last_calls", INT32, weft_switch_options, last_calls) },
    { WF_VALUE("last_adapter", INT32, weft_switch_options, last_adapter) },
    { WF_VALUE("last_role", WORD, weft_switch_options, last_role), .words = wf_role_words },
    { WF_FLAG("by_share", WEFT_SWITCH_SHARES) },
    { WF_FLAG("official_offset", WEFT_SWITCH_OFFICIAL_OFFSET) },
};
static const wf_fields fields = WF_FIELDS(field_list, weft_switch_options);
WF_METHOD_USE(weft_plan_switch, weft_switch_options)

const wf_method wf_method_switch = {
    .name = "switch",
    .title = "LoRA Switch",
    .text = WEFT_TEXT_FIRST,
    .use = use,
    .fields = &fields,
    .begin = begin,
    .alone = alone,
    .choose = choose,
    .forget = forget,
    .describe = describe,
    .explain = explain,
};
