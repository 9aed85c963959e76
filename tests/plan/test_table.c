/* test_table.c - from adapters and a method to cells, on the tiny SD1 model. */
#include "fixture.h"

static weft_model   *model;
static weft_adapter *ink, *clay, *hat; /* ink and clay everywhere with text, hat on the attentions alone */
static int64_t       attn, other, text;

static void setup(void)
{
    model = open_model("tiny-sd1");
    ink = adapter_on(model, "ink", ATTENTION | OTHERS | TEXT, 2, 0.1f, 1);
    clay = adapter_on(model, "clay", ATTENTION | OTHERS | TEXT, 3, 0.2f, 2);
    hat = adapter_on(model, "hat", ATTENTION, 1, 0.3f, 3);
    attn = nth_layer(model, ATTENTION, 3);
    other = nth_layer(model, OTHERS, 4);
    text = nth_layer(model, TEXT, 2);
}

static void teardown(void)
{
    weft_adapter_free(ink);
    weft_adapter_free(clay);
    weft_adapter_free(hat);
    weft_model_free(model);
}

static weft_plan *three_on(int32_t path)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan        *p;
    o.path = path;
    OK(weft_plan_create(model, &o, &p, &err));
    OK(weft_plan_add(p, ink, 0.7f, NULL, &err));
    OK(weft_plan_add(p, clay, -0.5f, NULL, &err));
    OK(weft_plan_add(p, hat, 2, NULL, &err));
    return p;
}

static weft_plan *three(void)
{
    return three_on(WEFT_PATH_AUTO);
}

/* ---- merge ----------------------------------------------------------------------------------- */

START_TEST(merge_holds_every_weight_at_every_call)
{
    weft_plan     *p = three();
    weft_plan_info i;

    OK(weft_plan_merge(p, &err));
    OK(weft_plan_seal(p, 9, &err));
    for (int32_t n = 0; n < 9; n++) {
        ck_assert_float_eq(cell(p, n, 0, attn, 0), 0.7f);
        ck_assert_float_eq(cell(p, n, 0, attn, 1), -0.5f);
        ck_assert_float_eq(cell(p, n, 0, attn, 2), 2);
        ck_assert_float_eq(cell(p, n, 0, other, 1), -0.5f);
        ck_assert_float_eq(cell(p, n, 0, other, 2), 0); /* hat has nothing there */
        ck_assert_float_eq(cell(p, n, 0, text, 0), 0.7f);
        ck_assert_ptr_eq(row_of(p, n), row_of(p, 0)); /* one row for all */
    }
    i = info_of(p);
    ck_assert_str_eq(phase_of(p, 0).method, "merge");
    ck_assert_int_eq(i.sealed, 1);
    ck_assert_int_eq(i.adapters, 3);
    ck_assert_int_eq(i.calls, 9);
    ck_assert_int_eq(i.branches, 1);
    ck_assert_int_eq(i.touched_layers, count_layers(model, ATTENTION) + count_layers(model, OTHERS) +
                                           count_layers(model, TEXT));
    ck_assert_int_eq((int)all_slots(p), 2 * (int)i.touched_layers + count_layers(model, ATTENTION));
    weft_plan_free(p);
}
END_TEST

START_TEST(a_plan_without_adapters_touches_nothing)
{
    weft_plan *p = new_plan(model);

    OK(weft_plan_seal(p, 4, &err));
    ck_assert_int_eq(info_of(p).touched_layers, 0);
    ck_assert_uint_eq(all_slots(p), 0);
    ck_assert_int_eq(wf_plan_evaluations(p), 1);
    weft_plan_free(p);
}
END_TEST

START_TEST(weight_zero_is_not_there_at_all)
{
    weft_plan       *p = new_plan(model);
    weft_add_options o = WEFT_ADD_OPTIONS_INIT;

    OK(weft_plan_add(p, ink, 0, NULL, &err));
    OK(weft_plan_add(p, clay, -0.0f, NULL, &err));
    OK(weft_plan_seal(p, 4, &err));
    ck_assert_uint_eq(all_slots(p), 0);
    ck_assert_int_eq(info_of(p).side_bytes, 0);
    weft_plan_free(p);

    p = new_plan(model); /* a text weight of its own stays */
    o.text_weights = text_weight(0.25f);
    OK(weft_plan_add(p, ink, 0, &o, &err));
    OK(weft_plan_seal(p, 4, &err));
    ck_assert_int_eq(info_of(p).touched_layers, count_layers(model, TEXT));
    ck_assert_float_eq(cell(p, 0, 0, text, 0), 0.25f);
    ck_assert_float_eq(cell(p, 0, 0, attn, 0), 0);
    weft_plan_free(p);
}
END_TEST

/* ---- switch ---------------------------------------------------------------------------------- */

START_TEST(switch_has_a_row_for_each_turn)
{
    weft_switch_options o = WEFT_SWITCH_OPTIONS_INIT;
    const float         weight[] = { 0.7f, -0.5f, 2 };
    weft_plan          *p = three();

    o.period = 2;
    OK(weft_plan_switch(p, &o, &err));
    OK(weft_plan_seal(p, 8, &err));
    for (int32_t n = 0; n < 8; n++)
        for (int32_t a = 0; a < 3; a++)
            ck_assert_float_eq(cell(p, n, 0, attn, a), n / 2 % 3 == a ? weight[a] : 0);
    ck_assert_ptr_eq(row_of(p, 0), row_of(p, 7)); /* the first one's second turn */
    ck_assert_ptr_ne(row_of(p, 0), row_of(p, 2));
    ck_assert_float_eq(cell(p, 2, 0, text, 0), 0.7f); /* text: the first alone, whoever's turn it is */
    ck_assert_float_eq(cell(p, 2, 0, text, 1), 0);
    weft_plan_free(p);
}
END_TEST

/* The adapters' turns over the calls of a sealed plan, as digits; '-' where none acts. */
static const char *turns_text(const weft_plan *p, int32_t calls)
{
    static char text[64];

    for (int32_t n = 0; n < calls; n++) {
        text[n] = '-';
        for (int32_t a = 0; a < info_of(p).adapters; a++)
            if (cell(p, n, 0, attn, a) != 0) text[n] = (char)('0' + a);
    }
    text[calls] = 0;
    return text;
}

static void check_turns(const weft_switch_options *o, const float *share, const char *wanted)
{
    weft_plan       *p = new_plan(model);
    weft_adapter    *all[] = { ink, clay, hat };
    weft_add_options add = WEFT_ADD_OPTIONS_INIT;

    add.flags = WEFT_ADD_SHARE;
    for (int32_t a = 0; a < 3; a++) {
        add.share = share != NULL ? share[a] : 1;
        add.role = a;
        OK(weft_plan_add(p, all[a], 1, &add, &err));
    }
    OK(weft_plan_switch(p, o, &err));
    OK(weft_plan_seal(p, (int32_t)strlen(wanted), &err));
    ck_assert_str_eq(turns_text(p, (int32_t)strlen(wanted)), wanted);
    weft_plan_free(p);
}

START_TEST(turns_come_in_any_order_and_length)
{
    weft_switch_options o = WEFT_SWITCH_OPTIONS_INIT;
    int32_t             order[] = { 2, 0, 2, 1 };

    o.period = 2;
    o.order = order;
    o.order_len = 4;
    check_turns(&o, NULL, "22002211220022112200");
    o.order_len = 2;
    check_turns(&o, NULL, "220022002");
    o.flags = WEFT_SWITCH_OFFICIAL_OFFSET;
    check_turns(&o, NULL, "222002200");
    o = (weft_switch_options)WEFT_SWITCH_OPTIONS_INIT;
    o.flags = WEFT_SWITCH_SHARES;
    check_turns(&o, (const float[]){ 1, 1, 1 }, "00000111112222200000");
    check_turns(&o, (const float[]){ 3, 1, 3 }, "0000000112222220000000");
    o.period = 2;
    check_turns(&o, (const float[]){ 0, 1, 2 }, "112222112222");
    o.flags = 0;
    o.last_calls = 3; /* the first adapter's */
    check_turns(&o, NULL, "001122001000");
    o.last_adapter = 2;
    check_turns(&o, NULL, "001122001222");
    o.last_adapter = 0;
    o.last_role = WEFT_ROLE_CONTENT;
    check_turns(&o, NULL, "001122001111");
    o.last_calls = 12;
    check_turns(&o, NULL, "111111111111");
}
END_TEST

/* The plan keeps its own copy of an order, and copies of the plan do too. */
START_TEST(an_order_is_copied)
{
    weft_switch_options o = WEFT_SWITCH_OPTIONS_INIT;
    int32_t             order[] = { 1, 0 };
    weft_plan          *p = three(), *q;

    o.period = 1;
    o.order = order;
    o.order_len = 2;
    OK(weft_plan_switch(p, &o, &err));
    order[0] = 2;
    OK(weft_plan_copy(p, &q, &err));
    weft_plan_free(p);
    OK(weft_plan_seal(q, 4, &err));
    ck_assert_str_eq(turns_text(q, 4), "1010");
    weft_plan_free(q);
}
END_TEST

static weft_plan *without(const weft_switch_options *o, int32_t adapter, weft_status status, const char *words)
{
    weft_plan *p = three();

    OK(weft_plan_switch(p, o, &err));
    if (status == WEFT_OK) {
        OK(weft_plan_remove(p, adapter, &err));
    } else {
        FAILS(status, words, weft_plan_remove(p, adapter, &err));
    }
    OK(weft_plan_seal(p, 8, &err));
    return p;
}

/* Turns follow their adapters when one is taken out, and its own go with it; what would leave nobody is refused,
 * and the plan is as it was. A copy's options are its own. */
START_TEST(turns_follow_who_is_left)
{
    weft_switch_options o = WEFT_SWITCH_OPTIONS_INIT;
    int32_t             order[] = { 2, 0, 2, 1 }, only[] = { 1, 1 };
    weft_plan          *p, *q;

    o.period = 1;
    o.order = order;
    o.order_len = 4;
    p = without(&o, 0, WEFT_OK, NULL); /* 2 2 1, and these are 1 1 0 now */
    ck_assert_str_eq(turns_text(p, 8), "11011011");
    weft_plan_free(p);
    p = without(&o, 1, WEFT_OK, NULL); /* 2 0 2 */
    ck_assert_str_eq(turns_text(p, 8), "10110110");
    weft_plan_free(p);
    p = without(&o, 2, WEFT_OK, NULL);
    ck_assert_str_eq(turns_text(p, 8), "01010101");
    weft_plan_free(p);
    o.last_calls = 3;
    o.last_adapter = 2;
    p = without(&o, 1, WEFT_OK, NULL);
    ck_assert_str_eq(turns_text(p, 8), "10110111");
    weft_plan_free(p);
    p = without(&o, 2, WEFT_E_UNSUPPORTED, "switch: the last 3 calls go to hat, which is to be removed");
    ck_assert_int_eq(info_of(p).adapters, 3);
    ck_assert_str_eq(turns_text(p, 8), "20212222");
    weft_plan_free(p);
    o = (weft_switch_options)WEFT_SWITCH_OPTIONS_INIT;
    o.order = only;
    o.order_len = 2;
    p = without(&o, 1, WEFT_E_UNSUPPORTED, "switch: all turns are those of clay, which is to be removed");
    ck_assert_str_eq(turns_text(p, 8), "11111111");
    OK(weft_plan_copy(p, &q, &err));
    OK(weft_plan_remove(q, 0, &err));
    OK(weft_plan_seal(q, 8, &err));
    ck_assert_str_eq(turns_text(q, 8), "00000000");
    ck_assert_str_eq(turns_text(p, 8), "11111111");
    weft_plan_free(p), weft_plan_free(q);
    /* what is left is what is kept, in a copy that outlives the plan */
    p = three();
    o.order = order;
    o.order_len = 4;
    OK(weft_plan_switch(p, &o, &err));
    OK(weft_plan_copy(p, &q, &err));
    weft_plan_free(p);
    OK(weft_plan_remove(q, 1, &err));
    const weft_switch_options *kept = q->phase[0].options->data;
    ck_assert_uint_eq(kept->order_len, 3);
    ck_assert(kept->order[0] == 1 && kept->order[1] == 0 && kept->order[2] == 1);
    weft_plan_free(q);
    p = three(); /* two phases, of which the second refuses: the first keeps its turns too */
    o.order = order;
    o.order_len = 4;
    o.period = 1;
    OK(weft_plan_switch(p, &o, &err));
    weft_phase_options at = WEFT_PHASE_OPTIONS_INIT;
    at.first = 4;
    OK(weft_plan_begin_phase(p, &at, &err));
    o.order = only;
    o.order_len = 2;
    OK(weft_plan_switch(p, &o, &err));
    FAILS(WEFT_E_UNSUPPORTED, "all turns are those of clay", weft_plan_remove(p, 1, &err));
    OK(weft_plan_seal(p, 8, &err));
    ck_assert_str_eq(turns_text(p, 8), "20211111");
    weft_plan_free(p);
}
END_TEST

/* Any allocation of a removal may fail, and then nothing is removed. */
START_TEST(a_removal_without_memory_changes_nothing)
{
    counter              c = { 0, 0, -1 };
    const weft_allocator counting = { counter_alloc, counter_free, &c };
    weft_plan_options    po = WEFT_PLAN_OPTIONS_INIT;
    weft_switch_options  o = WEFT_SWITCH_OPTIONS_INIT;
    weft_balance_options b = WEFT_BALANCE_OPTIONS_INIT;
    int32_t              order[] = { 2, 1 };
    weft_adapter        *who[] = { ink, clay, hat };
    weft_plan           *p;
    weft_status          st = WEFT_E_NOMEM;

    po.allocator = &counting;
    o.order = order;
    o.order_len = 2;
    o.period = 1;
    b.reference = 2;
    OK(weft_plan_create(model, &po, &p, &err));
    for (int i = 0; i < 3; i++) OK(weft_plan_add(p, who[i], 1, NULL, &err));
    OK(weft_plan_switch(p, &o, &err));
    OK(weft_plan_balance(p, &b, &err));
    for (long refuse = 0; st == WEFT_E_NOMEM; refuse++) {
        long live = c.live;
        ck_assert_int_lt(refuse, 20);
        c.asked = 0;
        c.refuse = refuse;
        st = weft_plan_remove(p, 0, &err);
        c.refuse = -1;
        if (st == WEFT_OK) break;
        ck_assert_int_eq(st, WEFT_E_NOMEM);
        ck_assert_int_eq(info_of(p).adapters, 3);
        ck_assert_int_eq(c.live, live);
    }
    OK(weft_plan_seal(p, 4, &err));
    ck_assert_str_eq(turns_text(p, 4), "1010");
    weft_plan_free(p);
    ck_assert_int_eq(c.live, 0);
}
END_TEST

START_TEST(turns_that_cannot_be_are_refused)
{
    static const struct {
        const char *line;
        int32_t     order[2], order_len, last_calls, last_adapter, last_role;
        uint32_t    flags;
        float       share;
        weft_status status;
    } all[] = {
        { "order[1] is -1", { 0, -1 }, 2, 0, 0, 0, 0, 1, WEFT_E_ARG },
        { "turn 1 is of adapter 3, the plan has 3", { 0, 3 }, 2, 0, 0, 0, 0, 1, WEFT_E_ARG },
        { "last_calls is -1", { 0 }, 0, -1, 0, 0, 0, 1, WEFT_E_ARG },
        { "last_adapter is -2", { 0 }, 0, 1, -2, 0, 0, 1, WEFT_E_ARG },
        { "last_role is 3", { 0 }, 0, 1, 0, 3, 0, 1, WEFT_E_ARG },
        { "one or the other", { 0 }, 0, 1, 1, 1, 0, 1, WEFT_E_ARG },
        { "last_calls is 0, but", { 0 }, 0, 0, 1, 0, 0, 1, WEFT_E_ARG },
        { "go to adapter 3, the plan has 3", { 0 }, 0, 1, 3, 0, 0, 1, WEFT_E_ARG },
        { "the last 11 calls go to one adapter, the phase has 10", { 0 }, 0, 11, 0, 0, 0, 1, WEFT_E_ARG },
        { "no adapter has that role", { 0 }, 0, 1, 0, 2, 0, 1, WEFT_E_UNSUPPORTED },
        { "time has no negative parts", { 0 }, 0, 0, 0, 0, WEFT_SWITCH_SHARES, -1, WEFT_E_UNSUPPORTED },
        { "nobody has a turn", { 0 }, 0, 0, 0, 0, WEFT_SWITCH_SHARES, 0, WEFT_E_UNSUPPORTED },
    };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        weft_switch_options o = WEFT_SWITCH_OPTIONS_INIT;
        weft_add_options    add = WEFT_ADD_OPTIONS_INIT;
        weft_plan          *p = new_plan(model);
        weft_status         st;
        add.flags = WEFT_ADD_SHARE;
        add.share = all[i].share;
        OK(weft_plan_add(p, ink, 1, &add, &err));
        OK(weft_plan_add(p, clay, 1, &add, &err));
        OK(weft_plan_add(p, hat, 1, &add, &err));
        o.flags = all[i].flags;
        o.order = all[i].order;
        o.order_len = (size_t)all[i].order_len;
        o.last_calls = all[i].last_calls;
        o.last_adapter = all[i].last_adapter;
        o.last_role = all[i].last_role;
        if ((st = weft_plan_switch(p, &o, &err)) == WEFT_OK) st = weft_plan_seal(p, 10, &err);
        FAILS(all[i].status, all[i].line, st);
        weft_plan_free(p);
    }
    {
        weft_switch_options o = WEFT_SWITCH_OPTIONS_INIT;
        weft_plan          *p = three();
        o.order_len = 1;
        FAILS(WEFT_E_ARG, "order is NULL", weft_plan_switch(p, &o, &err));
        weft_plan_free(p);
    }
}
END_TEST

static void remember(void *user, int32_t level, const char *line)
{
    ck_assert_int_eq(level, WEFT_LOG_WARN);
    strcat(user, line);
}

START_TEST(who_gets_no_turn_is_named)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    char              lines[1000] = "", report[4000];
    weft_plan        *p;

    o.log = remember;
    o.log_user = lines;
    OK(weft_plan_create(model, &o, &p, &err));
    OK(weft_plan_add(p, ink, 1, NULL, &err));
    OK(weft_plan_add(p, clay, 1, NULL, &err));
    OK(weft_plan_add(p, hat, 1, NULL, &err));
    OK(weft_plan_switch(p, NULL, &err));
    OK(weft_plan_seal(p, 10, &err)); /* turns of 5: hat's would begin at call 10 */
    ck_assert_ptr_ne(strstr(lines, "hat gets no turn"), NULL);
    ck_assert_ptr_eq(strstr(lines, "clay gets no turn"), NULL);
    OK(weft_plan_text(p, report, sizeof report, NULL, &err));
    ck_assert_ptr_ne(strstr(report, "hat gets no turn"), NULL);
    ck_assert_float_eq(cell(p, 9, 0, attn, 2), 0);
    /* and has no slot: only ink and clay, at each of their layers */
    ck_assert_uint_eq(wf_plan_phase(p, 0)->slots,
                      2 * (size_t)(count_layers(model, ATTENTION) + count_layers(model, OTHERS)));
    weft_plan_free(p);
}
END_TEST

/* ---- composite ------------------------------------------------------------------------------- */

START_TEST(composite_has_a_branch_for_each)
{
    const float weight[] = { 0.7f, -0.5f, 2 };
    float       w, d;
    weft_plan  *p = three();

    OK(weft_plan_composite(p, NULL, &err));
    OK(weft_plan_seal(p, 5, &err));
    ck_assert_int_eq(info_of(p).branches, 3);
    for (int32_t b = 0; b < 3; b++)
        for (int32_t a = 0; a < 3; a++) {
            ck_assert_float_eq(cell(p, 4, b, attn, a), a == b ? weight[a] : 0);
            ck_assert_float_eq(cell(p, 4, b, text, a), a < 2 ? weight[a] : 0); /* the prompt: all, in any branch */
        }
    ck_assert_int_eq(info_of(p).merged_layers, 0);
    OK(weft_plan_branch_weight(p, 0, 2, &w, &d, &err));
    ck_assert_float_eq(w, 1);
    ck_assert_float_eq(d, 3);
    weft_plan_free(p);
}
END_TEST

static weft_plan *shared(uint32_t flags, const float *share, const int *order)
{
    weft_adapter          *who[] = { ink, clay, hat };
    weft_composite_options o = WEFT_COMPOSITE_OPTIONS_INIT;
    weft_add_options       add = WEFT_ADD_OPTIONS_INIT;
    weft_plan             *p = new_plan(model);

    add.flags = WEFT_ADD_SHARE;
    for (int i = 0; i < 3; i++) {
        add.share = share[order[i]];
        OK(weft_plan_add(p, who[order[i]], 1, &add, &err));
    }
    o.flags = flags;
    OK(weft_plan_composite(p, &o, &err));
    OK(weft_plan_seal(p, 2, &err));
    return p;
}

START_TEST(composite_weighs_by_share_in_any_order)
{
    const float  share[] = { 1, 0.1f, 2.3f }, e0[] = { 1, 2, 0.1f }, e1[] = { -1e8f, 4, 0.2f }, e2[] = { 1e8f, 8, 0.7f };
    const float *preds[] = { e0, e1, e2 };
    const int    orders[][3] = { { 0, 1, 2 }, { 2, 1, 0 }, { 1, 2, 0 }, { 1, 0, 2 } };
    float        first[3], out[3], w, d;
    weft_plan   *p;

    for (int o = 0; o < 4; o++) {
        const float *moved[] = { preds[orders[o][0]], preds[orders[o][1]], preds[orders[o][2]] };
        p = shared(0, share, orders[o]);
        combine(p, o == 0 ? first : out, moved, 3, true);
        if (o > 0) ck_assert_mem_eq(first, out, sizeof first);
        weft_plan_free(p);
    }
    ck_assert_float_eq_tol(first[1], (2 + 0.1f * 4 + 2.3f * 8) / 3.4f, 1e-6f);

    p = shared(WEFT_COMPOSITE_DIVIDE_BY_COUNT | WEFT_COMPOSITE_NOCFG_LAST, share, orders[0]);
    combine(p, out, preds, 3, true);
    ck_assert_float_eq_tol(out[1], (2 + 0.1f * 4 + 2.3f * 8) / 3, 1e-6f);
    combine(p, out, preds, 3, false); /* unguided: the last one's alone */
    ck_assert_mem_eq(out, e2, sizeof e2);
    OK(weft_plan_branch_weight(p, 0, 1, &w, &d, &err));
    ck_assert_float_eq(w, 0.1f);
    ck_assert_float_eq(d, 3);
    weft_plan_free(p);
}
END_TEST

START_TEST(composite_needs_something_to_divide_by)
{
    weft_add_options add = WEFT_ADD_OPTIONS_INIT;
    weft_plan       *p = new_plan(model);

    add.flags = WEFT_ADD_SHARE;
    add.share = 1;
    OK(weft_plan_add(p, ink, 1, &add, &err));
    add.share = -1;
    OK(weft_plan_add(p, clay, 1, &add, &err));
    OK(weft_plan_composite(p, NULL, &err));
    FAILS(WEFT_E_UNSUPPORTED, "sum to 0", weft_plan_seal(p, 5, &err));
    OK(weft_plan_merge(p, &err)); /* the plan is as it was */
    OK(weft_plan_seal(p, 5, &err));
    weft_plan_free(p);
}
END_TEST

START_TEST(one_or_no_adapter_is_one_branch)
{
    const float  e[] = { 1, -0.0f, 3e-41f }, *preds[] = { e };
    float        out[3];

    for (int k = 0; k < 2; k++) {
        weft_plan *p = new_plan(model);
        if (k == 1) OK(weft_plan_add(p, ink, 0.3f, NULL, &err));
        OK(weft_plan_composite(p, NULL, &err));
        OK(weft_plan_seal(p, 5, &err));
        ck_assert_int_eq(wf_plan_evaluations(p), 1);
        combine(p, out, preds, 3, true);
        ck_assert_mem_eq(out, e, sizeof e);
        weft_plan_free(p);
    }
}
END_TEST

/* ---- text encoders --------------------------------------------------------------------------- */

START_TEST(text_policy_is_the_callers)
{
    /* who acts: [policy][adapter] under switch */
    static const int acts[][2] = { { 1, 0 }, { 1, 1 }, { 1, 0 }, { 0, 0 } };

    for (int32_t policy = WEFT_TEXT_METHOD; policy <= WEFT_TEXT_NONE; policy++) {
        weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
        weft_add_options  add = WEFT_ADD_OPTIONS_INIT;
        weft_plan        *p;
        wf_cell          *row;

        o.text = policy;
        OK(weft_plan_create(model, &o, &p, &err));
        add.text_weights = text_weight(0.25f);
        OK(weft_plan_add(p, ink, 1, &add, &err));
        OK(weft_plan_add(p, clay, 0.5f, NULL, &err));
        OK(weft_plan_switch(p, NULL, &err));
        OK(weft_plan_seal(p, 10, &err));
        ck_assert_float_eq(cell(p, 9, 0, text, 0), acts[policy][0] ? 0.25f : 0);
        ck_assert_float_eq(cell(p, 9, 0, text, 1), acts[policy][1] ? 0.5f : 0);

        size_t slots = wf_plan_text_sheet(p)->slots;
        row = malloc(slots * sizeof *row); /* one alone, whatever the policy */
        for (int32_t a = 0; a < 2; a++) {
            size_t seen = 0;
            wf_plan_text_cells(p, a, row);
            for (size_t s = 0; s < slots; s++) {
                if (row[s].number == 0) continue;
                seen++;
                ck_assert_float_eq(row[s].number, a == 0 ? 0.25f : 0.5f);
            }
            ck_assert_uint_eq(seen, (size_t)count_layers(model, TEXT));
        }
        free(row);
        weft_plan_free(p);
    }
}
END_TEST

/* Left to the method: under merge and composite all adapters act on the prompt, under switch the
 * first, under K-LoRA none. */
START_TEST(each_method_has_its_text_policy)
{
    static const int acts[][2] = { { 1, 1 }, { 1, 0 }, { 1, 1 }, { 0, 0 } };

    for (int method = 0; method < 4; method++) {
        weft_plan *p = new_plan(model);

        OK(weft_plan_add(p, ink, 0.75f, NULL, &err));
        OK(weft_plan_add(p, clay, 0.5f, NULL, &err));
        OK(method == 0 ? weft_plan_merge(p, &err) : method == 1 ? weft_plan_switch(p, NULL, &err)
           : method == 2 ? weft_plan_composite(p, NULL, &err) : weft_plan_klora(p, NULL, &err));
        OK(weft_plan_seal(p, 10, &err));
        ck_assert_float_eq(cell(p, 0, 0, text, 0), acts[method][0] ? 0.75f : 0);
        ck_assert_float_eq(cell(p, 0, 0, text, 1), acts[method][1] ? 0.5f : 0);
        weft_plan_free(p);
    }
}
END_TEST

START_TEST(both_text_encoders_of_sdxl_take_part)
{
    weft_model     *xl = open_model("tiny-sdxl");
    weft_adapter   *a = adapter_on(xl, "xl", ATTENTION | TEXT, 2, 0.1f, 5);
    weft_plan      *p = new_plan(xl);
    size_t          count;
    const wf_layer *layers = wf_model_layers(xl, &count);
    int             seen[4] = { 0 };

    OK(weft_plan_add(p, a, 1, NULL, &err));
    OK(weft_plan_seal(p, 1, &err));
    for (size_t l = 0; l < count; l++) seen[layers[l].component] += cell(p, 0, 0, (int64_t)l, 0) != 0;
    ck_assert_int_gt(seen[1], 0);
    ck_assert_int_gt(seen[2], 0);
    ck_assert_int_eq(seen[0], count_layers(xl, ATTENTION));
    weft_plan_free(p);
    weft_adapter_free(a);
    weft_model_free(xl);
}
END_TEST

/* ---- selections ------------------------------------------------------------------------------ */

START_TEST(selections_bound_an_adapter)
{
    weft_add_options add = WEFT_ADD_OPTIONS_INIT;
    weft_plan       *p = new_plan(model);
    size_t           count;
    const wf_layer  *layers = wf_model_layers(model, &count);

    add.select = "unet.up_blocks.*,*.mid_block.*";
    add.exclude = "*.to_k";
    OK(weft_plan_add(p, ink, 0.5f, &add, &err));
    OK(weft_plan_seal(p, 3, &err));
    for (size_t l = 0; l < count; l++) {
        const char *name = layers[l].name;
        size_t      n = strlen(name);
        bool        in = strncmp(name, "unet.up_blocks.", 15) == 0 || strstr(name, ".mid_block.") != NULL;
        if (layers[l].component == 3) continue;
        if (n > 5 && strcmp(name + n - 5, ".to_k") == 0) in = false;
        if (in && wf_plan_module(p, 0, (int32_t)l) == NULL) in = false; /* no adapter can name it */
        ck_assert_msg(cell(p, 1, 0, (int64_t)l, 0) == (in ? 0.5f : 0), "%s", name);
    }
    weft_plan_free(p);
}
END_TEST

/* Every pattern meets every layer. Runs of stars are kept as one; a list without end is refused. */
START_TEST(patterns_are_bounded)
{
    enum { MOST = 262144 };
    weft_add_options add = WEFT_ADD_OPTIONS_INIT;
    weft_plan *p = new_plan(model);
    char *stars = malloc(1000001);

    ck_assert_ptr_nonnull(stars);
    memset(stars, '*', 1000000);
    stars[1000000] = '\0';
    add.select = stars;
    FAILS(WEFT_E_ARG, "the select pattern has 1000000 characters, at most 262144 are taken", weft_plan_add(p, hat, 1, &add, &err));
    add.select = NULL;
    add.exclude = stars;
    FAILS(WEFT_E_ARG, "the exclude pattern has 1000000 characters", weft_plan_add(p, hat, 1, &add, &err));
    add.exclude = NULL;
    add.select = stars;
    stars[MOST + 1] = '\0';
    FAILS(WEFT_E_ARG, "has 262145 characters", weft_plan_add(p, hat, 1, &add, &err));
    stars[MOST] = '\0';
    memcpy(stars + MOST - 7, ",unet.*", 7);
    OK(weft_plan_add(p, hat, 1, &add, &err));
    ck_assert_str_eq(p->entry[0].bound->select, "*,unet.*");
    OK(weft_plan_seal(p, 2, &err));
    free(stars);
    weft_plan_free(p);
}
END_TEST

START_TEST(patterns_that_select_nothing_are_refused)
{
    weft_add_options add = WEFT_ADD_OPTIONS_INIT;
    weft_plan       *p = new_plan(model);

    add.select = "unet.*,unet.upblocks.*";
    FAILS(WEFT_E_MISMATCH, "\"unet.upblocks.*\"", weft_plan_add(p, ink, 1, &add, &err));
    add.select = "text_encoder.*"; /* hat has no text parts */
    FAILS(WEFT_E_MISMATCH, "hat", weft_plan_add(p, hat, 1, &add, &err));
    add.select = NULL;
    add.exclude = "*";
    FAILS(WEFT_E_MISMATCH, "\"*\"", weft_plan_add(p, ink, 1, &add, &err));
    ck_assert_int_eq(info_of(p).adapters, 0);
    weft_plan_free(p);
}
END_TEST

/* ---- stacks and paths ------------------------------------------------------------------------ */

static const patched *touched_at(const weft_plan *p, int64_t layer)
{
    size_t            count;
    const patched *t = patches_of(p, &count);

    for (size_t i = 0; i < count; i++)
        if (t[i].layer == layer) return &t[i];
    return NULL;
}

/* What went into a file, kept to be compared with: the maker's tensors are freed when the file is written. */
static maker *keep(const maker *m)
{
    maker *kept = make(m->model);

    for (size_t i = 0; i < m->count; i++) {
        weft_tensor_out t = m->tensor[i];
        size_t          n = 1;
        for (size_t d = 0; d < t.rank; d++) n *= (size_t)t.shape[d];
        char  *name = malloc(strlen(t.name) + 1);
        float *data = malloc(n * sizeof *data);
        t.name = strcpy(name, t.name);
        t.data = memcpy(data, t.data, n * sizeof *data);
        kept->tensor[kept->count++] = t;
    }
    return kept;
}

static void forget(maker *m)
{
    for (size_t i = 0; i < m->count; i++) {
        free((void *)(uintptr_t)m->tensor[i].name);
        free((void *)(uintptr_t)m->tensor[i].data);
    }
    free(m);
}

static const float *in_file(const maker *m, const wf_layer *l, const char *ending)
{
    char name[512];

    ck_assert(wf_name_kohya(m->model, l, name, sizeof name - 32));
    strcat(name, ending);
    for (size_t i = 0; i < m->count; i++)
        if (strcmp(m->tensor[i].name, name) == 0) return m->tensor[i].data;
    return NULL;
}

/* The factors of a file as they belong into a stack: down (rank, in, k, k) with the channels last, up (out, rank)
 * transposed. */
static void check_factors(const wf_layer *l, int64_t rank, const float *down, const float *up, const float *file_down,
                          const float *file_up)
{
    int64_t taps = (int64_t)l->kernel * l->kernel;

    for (int64_t r = 0; r < rank; r++)
        for (int64_t i = 0; i < l->in; i++)
            for (int64_t t = 0; t < taps; t++)
                ck_assert_float_eq(down[(r * taps + t) * l->in + i], file_down[(r * l->in + i) * taps + t]);
    for (int64_t r = 0; r < rank; r++)
        for (int64_t o = 0; o < l->out; o++) ck_assert_float_eq(up[r * l->out + o], file_up[o * rank + r]);
}

START_TEST(stacks_hold_the_files_factors_part_by_part)
{
    /* rank, alpha and the scale that they give; the third has no alpha and is on the attentions alone */
    static const struct { int32_t what, rank; float alpha, scale; } parts[] = {
        { ATTENTION | OTHERS | TEXT, 2, 1, 0.5f }, { ATTENTION | OTHERS | TEXT, 4, 6, 1.5f }, { ATTENTION, 3, 0, 1 },
    };
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan        *p;
    size_t            count;
    const wf_layer   *layers = wf_model_layers(model, &count);
    weft_adapter     *adapter[3];
    maker            *file[3];
    size_t            convolutions = 0, slot = 0;

    o.path = WEFT_PATH_SIDE;
    OK(weft_plan_create(model, &o, &p, &err));
    for (int a = 0; a < 3; a++) {
        maker *m = make(model);
        char   stem[512], name[16];
        for (size_t l = 0; l < count; l++)
            if ((kind_of(&layers[l]) & parts[a].what) && wf_name_kohya(model, &layers[l], stem, sizeof stem))
                random_module(m, (int64_t)l, parts[a].rank, parts[a].alpha, 0.1f, 40 + (uint32_t)a);
        file[a] = keep(m);
        snprintf(name, sizeof name, "part%d", a);
        adapter[a] = finish(m, name);
        OK(weft_plan_add(p, adapter[a], 0.7f, NULL, &err));
    }
    OK(weft_plan_seal(p, 2, &err));

    const patched *t = patches_of(p, &count);
    for (size_t i = 0; i < count; i++) {
        const wf_layer *l = &layers[t[i].layer];
        const float    *down = t[i].stack.down, *up = t[i].stack.up;
        if (i > 0) ck_assert_int_gt(t[i].layer, t[i - 1].layer);
        ck_assert_uint_eq((size_t)t[i].slot, slot);
        slot += (size_t)t[i].stack.parts;
        ck_assert_int_eq(t[i].stack.parts, kind_of(l) == ATTENTION ? 3 : 2);
        for (int32_t a = 0; a < t[i].stack.parts; a++) {
            const float *file_down = in_file(file[a], l, ".lora_down.weight");
            const float *file_up = in_file(file[a], l, ".lora_up.weight");
            ck_assert_msg(file_down != NULL && file_up != NULL, "%s is in no file", l->name);
            ck_assert_int_eq(t[i].stack.part_rank[a], parts[a].rank);
            ck_assert_float_eq(t[i].stack.part_scale[a], parts[a].scale);
            check_factors(l, parts[a].rank, down, up, file_down, file_up);
            down += parts[a].rank * l->in * l->kernel * l->kernel;
            up += parts[a].rank * l->out;
        }
        convolutions += l->kernel > 1;
    }
    ck_assert_uint_gt(convolutions, 10);
    ck_assert_int_eq((int)count, count_layers(model, ATTENTION) + count_layers(model, OTHERS) + count_layers(model, TEXT));
    for (int a = 0; a < 3; a++) {
        forget(file[a]);
        weft_adapter_free(adapter[a]);
    }
    weft_plan_free(p);
}
END_TEST

/* Merged where no coefficient moves, and, when we choose, where R (K + out) is over an eighth of K out. */
START_TEST(paths_are_forced_or_chosen)
{
    for (int32_t path = WEFT_PATH_AUTO; path <= WEFT_PATH_MERGED; path++)
        for (int method = 0; method < 3; method++) {
            weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
            size_t            count;
            const wf_layer   *layers = wf_model_layers(model, &count);
            const patched *t;
            weft_plan        *p;
            int64_t           merged = 0, bytes = 0, side = 0;

            o.path = path;
            OK(weft_plan_create(model, &o, &p, &err));
            OK(weft_plan_add(p, ink, 1, NULL, &err));
            OK(weft_plan_add(p, hat, 1, NULL, &err));
            if (method == 1) OK(weft_plan_switch(p, NULL, &err));
            if (method == 2) OK(weft_plan_composite(p, NULL, &err));
            OK(weft_plan_seal(p, 10, &err));
            t = patches_of(p, &count);
            for (size_t i = 0; i < count; i++) {
                const wf_layer *l = &layers[t[i].layer];
                int64_t         K = (int64_t)wf_layer_columns(l), R = 0;
                for (int32_t k = 0; k < t[i].parts; k++) R += t[i].part[k].module->rank;
                bool            want = l->component == WEFT_COMPONENT_DENOISER && method == 0 &&
                            (path == WEFT_PATH_MERGED || (path == WEFT_PATH_AUTO && R * (K + l->out) > K * l->out / 8));
                ck_assert_msg(t[i].merged == want, "%s", l->name);
                merged += want;
                bytes += want ? K * l->out * 4 : 0;
                side += want ? 0 : R * (K + l->out) * 4; /* a merged layer needs no factors */
                ck_assert_int_eq(t[i].stack.rank, want ? 0 : R);
            }
            ck_assert_int_eq(info_of(p).merged_layers, merged);
            ck_assert_int_eq(info_of(p).merged_bytes, bytes);
            ck_assert_int_eq(info_of(p).side_bytes, side);
            weft_plan_free(p);
        }
}
END_TEST

/* ---- copies ---------------------------------------------------------------------------------- */

START_TEST(a_copy_shares_stacks_and_is_free_to_change)
{
    weft_plan  *p = three_on(WEFT_PATH_SIDE), *q, *r;
    const float *down, *bare;

    OK(weft_plan_seal(p, 4, &err));
    down = touched_at(p, attn)->stack.down;
    bare = touched_at(p, other)->stack.down;

    OK(weft_plan_copy(p, &q, &err));
    ck_assert_int_eq(info_of(q).sealed, 0);
    OK(weft_plan_switch(q, NULL, &err));
    OK(weft_plan_copy(q, &r, &err)); /* a copy of a copy that was never sealed */
    OK(weft_plan_seal(q, 20, &err));
    ck_assert_ptr_eq(touched_at(q, attn)->stack.down, down);
    ck_assert_int_eq(info_of(p).calls, 4);
    ck_assert_str_eq(phase_of(p, 0).method, "merge");

    weft_plan_free(p); /* stacks outlive the plan that made them */
    OK(weft_plan_add(r, hat, 1, NULL, &err)); /* one more part at the attentions, none elsewhere */
    OK(weft_plan_seal(r, 20, &err));
    ck_assert_ptr_ne(touched_at(r, attn)->stack.down, down);
    ck_assert_int_eq(touched_at(r, attn)->stack.parts, 4);
    ck_assert_ptr_eq(touched_at(r, other)->stack.down, bare);
    weft_plan_free(q);
    ck_assert_float_eq(cell(r, 0, 0, other, 0), 0.7f);
    weft_plan_free(r);
}
END_TEST

START_TEST(handles_may_go_in_any_order)
{
    weft_model   *m = open_model("tiny-sd1");
    weft_adapter *a = adapter_on(m, "a", ATTENTION, 2, 1, 1);
    weft_plan    *p = new_plan(m), *q;

    OK(weft_plan_add(p, a, 1, NULL, &err));
    weft_adapter_free(a);
    weft_model_free(m);
    OK(weft_plan_seal(p, 3, &err));
    OK(weft_plan_copy(p, &q, &err));
    weft_plan_free(p);
    OK(weft_plan_seal(q, 3, &err));
    ck_assert_int_gt((int)info_of(q).touched_layers, 0);
    weft_plan_free(q);
    weft_plan_free(NULL);
}
END_TEST

/* ---- refusals -------------------------------------------------------------------------------- */

START_TEST(cells_outside_of_the_table_are_refused)
{
    weft_plan *p = three();
    int64_t    layers = info_of(p).layers;
    float      w, d;
    weft_cell  c = WEFT_CELL_INIT;

    FAILS(WEFT_E_STATE, "not sealed", weft_plan_cell(p, 0, 0, 0, 0, &c, &err));
    FAILS(WEFT_E_STATE, "not sealed", weft_plan_branch_weight(p, 0, 0, &w, &d, &err));
    OK(weft_plan_seal(p, 6, &err));
    FAILS(WEFT_E_ARG, "call 6 of 6", weft_plan_cell(p, 6, 0, 0, 0, &c, &err));
    FAILS(WEFT_E_ARG, "call -1", weft_plan_cell(p, -1, 0, 0, 0, &c, &err));
    FAILS(WEFT_E_ARG, "branch 1 of 1", weft_plan_cell(p, 0, 1, 0, 0, &c, &err));
    FAILS(WEFT_E_ARG, "layer -1", weft_plan_cell(p, 0, 0, -1, 0, &c, &err));
    FAILS(WEFT_E_ARG, "layer", weft_plan_cell(p, 0, 0, layers, 0, &c, &err));
    FAILS(WEFT_E_ARG, "adapter 3 of 3", weft_plan_cell(p, 0, 0, 0, 3, &c, &err));
    FAILS(WEFT_E_ARG, "out is NULL", weft_plan_cell(p, 0, 0, 0, 0, NULL, &err));
    FAILS(WEFT_E_ARG, "plan is NULL", weft_plan_cell(NULL, 0, 0, 0, 0, &c, &err));
    FAILS(WEFT_E_ARG, "branch 1 of 1", weft_plan_branch_weight(p, 0, 1, &w, &d, &err));
    OK(weft_plan_branch_weight(p, 0, 0, NULL, NULL, NULL));
    weft_plan_free(p);
}
END_TEST

START_TEST(a_sealed_plan_does_not_change)
{
    weft_plan *p = three();

    FAILS(WEFT_E_ARG, "0 calls", weft_plan_seal(p, 0, &err));
    FAILS(WEFT_E_ARG, "1000000 calls", weft_plan_seal(p, 1000000, &err));
    OK(weft_plan_seal(p, 6, &err));
    FAILS(WEFT_E_STATE, "weft_plan_copy()", weft_plan_seal(p, 6, &err));
    FAILS(WEFT_E_STATE, "sealed", weft_plan_add(p, ink, 1, NULL, &err));
    FAILS(WEFT_E_STATE, "sealed", weft_plan_merge(p, &err));
    FAILS(WEFT_E_STATE, "sealed", weft_plan_switch(p, NULL, &err));
    FAILS(WEFT_E_STATE, "sealed", weft_plan_composite(p, NULL, &err));
    FAILS(WEFT_E_STATE, "sealed", weft_plan_klora(p, NULL, &err));
    weft_plan_free(p);
}
END_TEST

START_TEST(wrong_numbers_are_refused)
{
    weft_plan           *p = new_plan(model), *none = (weft_plan *)&err;
    weft_plan_options    po = WEFT_PLAN_OPTIONS_INIT;
    weft_add_options     add = WEFT_ADD_OPTIONS_INIT;
    weft_switch_options  so = WEFT_SWITCH_OPTIONS_INIT;

    FAILS(WEFT_E_ARG, "ink: the weight", weft_plan_add(p, ink, NAN, NULL, &err));
    FAILS(WEFT_E_ARG, "ink: the weight", weft_plan_add(p, ink, -INFINITY, NULL, &err));
    FAILS(WEFT_E_ARG, "adapter is NULL", weft_plan_add(p, NULL, 1, NULL, &err));
    FAILS(WEFT_E_ARG, "plan is NULL", weft_plan_add(NULL, ink, 1, NULL, &err));
    add.text_weights = text_weight(NAN);
    FAILS(WEFT_E_ARG, "text weight", weft_plan_add(p, ink, 1, &add, &err));
    add.text_weights = NULL;
    add.flags = WEFT_ADD_SHARE;
    add.share = INFINITY;
    FAILS(WEFT_E_ARG, "share", weft_plan_add(p, ink, 1, &add, &err));
    add.share = 1;
    add.role = 3;
    FAILS(WEFT_E_ARG, "role is 3", weft_plan_add(p, ink, 1, &add, &err));
    add.role = 0;
    add.flags = 1u << 30;
    FAILS(WEFT_E_UNSUPPORTED, "weft_add_options", weft_plan_add(p, ink, 1, &add, &err));
    add.flags = WEFT_ADD_REPLACE;
    FAILS(WEFT_E_ARG, "tokens of a concept", weft_plan_add(p, ink, 1, &add, &err));
    so.period = -1;
    FAILS(WEFT_E_ARG, "period is -1", weft_plan_switch(p, &so, &err));
    po.path = 7;
    FAILS(WEFT_E_ARG, "path is 7", weft_plan_create(model, &po, &none, &err));
    ck_assert_ptr_eq(none, NULL);
    po.path = 0;
    po.text = -1;
    FAILS(WEFT_E_ARG, "text is -1", weft_plan_create(model, &po, &none, &err));
    FAILS(WEFT_E_ARG, "model is NULL", weft_plan_create(NULL, NULL, &none, &err));
    FAILS(WEFT_E_ARG, "plan is NULL", weft_plan_copy(NULL, &none, &err));
    FAILS(WEFT_E_ARG, "plan is NULL", weft_plan_seal(NULL, 1, &err));
    ck_assert_int_eq(info_of(p).adapters, 0);
    weft_plan_free(p);
}
END_TEST

START_TEST(an_adapter_of_another_model_is_refused)
{
    weft_model   *sd2 = open_model("tiny-sd2");
    weft_adapter *a = adapter_on(sd2, "stranger", ATTENTION, 2, 1, 1);
    weft_plan    *p = new_plan(model);

    FAILS(WEFT_E_MISMATCH, "stranger", weft_plan_add(p, a, 1, NULL, &err));
    weft_plan_free(p);
    weft_adapter_free(a);
    weft_model_free(sd2);
}
END_TEST

/* ---- memory ---------------------------------------------------------------------------------- */

/* Everything a plan does, with the n-th allocation refused; true when all of it came through. */
static bool whole_life(const weft_allocator *alloc, int method)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_add_options  add = WEFT_ADD_OPTIONS_INIT;
    weft_plan        *p = NULL, *q = NULL;
    weft_status       st;
    const int32_t     order[] = { 1, 0, 1 };
    weft_switch_options turns = WEFT_SWITCH_OPTIONS_INIT;

    turns.period = 1;
    turns.order = order;
    turns.order_len = 3;
    o.allocator = alloc;
    add.select = "unet.up_blocks.*";
    add.exclude = "*.to_k";
    if ((st = weft_plan_create(model, &o, &p, &err)) != WEFT_OK) goto done;
    if ((st = weft_plan_add(p, ink, 1, NULL, &err)) != WEFT_OK) goto done;
    if ((st = weft_plan_add(p, clay, 1, &add, &err)) != WEFT_OK) goto done;
    if (method == 1) st = weft_plan_switch(p, &turns, &err);
    if (method == 2) st = weft_plan_composite(p, NULL, &err);
    if (method == 3) st = weft_plan_klora(p, NULL, &err);
    if (st != WEFT_OK) goto done;
    if ((st = weft_plan_seal(p, 3, &err)) != WEFT_OK) {
        ck_assert_int_eq(info_of(p).sealed, 0); /* nothing half made */
        goto done;
    }
    if ((st = weft_plan_text(p, NULL, 0, NULL, &err)) != WEFT_OK) goto done;
    if ((st = weft_plan_copy(p, &q, &err)) != WEFT_OK) goto done;
    st = weft_plan_seal(q, 4, &err);
done:
    if (st != WEFT_OK) {
        ck_assert_int_eq(st, WEFT_E_NOMEM);
        ck_assert_ptr_ne(strstr(err.text, "out of memory"), NULL);
    }
    weft_plan_free(p);
    weft_plan_free(q);
    return st == WEFT_OK;
}

START_TEST(any_allocation_may_fail)
{
    long n = 0, step = 1;

    for (bool through = false; !through; n += step) {
        counter        c = { 0, 0, n };
        weft_allocator alloc = { counter_alloc, counter_free, &c };
        through = whole_life(&alloc, _i);
        ck_assert_msg(c.live == 0, "%ld blocks leaked when allocation %ld failed", c.live, n);
        ck_assert_int_lt((int)n, 20000);
        if (n > 100) step = 13; /* a stack for each layer: the same place over and over */
    }
    ck_assert_int_gt((int)n, 20);
}
END_TEST

int main(void)
{
    Suite   *s = suite_create("plan table");
    TCase   *t = tcase_create("table");
    SRunner *sr = srunner_create(s);
    int      failed;

    suite_add_tcase(s, t);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, merge_holds_every_weight_at_every_call);
    tcase_add_test(t, a_plan_without_adapters_touches_nothing);
    tcase_add_test(t, weight_zero_is_not_there_at_all);
    tcase_add_test(t, switch_has_a_row_for_each_turn);
    tcase_add_test(t, turns_come_in_any_order_and_length);
    tcase_add_test(t, an_order_is_copied);
    tcase_add_test(t, turns_follow_who_is_left);
    tcase_add_test(t, a_removal_without_memory_changes_nothing);
    tcase_add_test(t, turns_that_cannot_be_are_refused);
    tcase_add_test(t, who_gets_no_turn_is_named);
    tcase_add_test(t, composite_has_a_branch_for_each);
    tcase_add_test(t, composite_weighs_by_share_in_any_order);
    tcase_add_test(t, composite_needs_something_to_divide_by);
    tcase_add_test(t, one_or_no_adapter_is_one_branch);
    tcase_add_test(t, text_policy_is_the_callers);
    tcase_add_test(t, each_method_has_its_text_policy);
    tcase_add_test(t, both_text_encoders_of_sdxl_take_part);
    tcase_add_test(t, selections_bound_an_adapter);
    tcase_add_test(t, patterns_are_bounded);
    tcase_add_test(t, patterns_that_select_nothing_are_refused);
    tcase_add_test(t, stacks_hold_the_files_factors_part_by_part);
    tcase_add_test(t, paths_are_forced_or_chosen);
    tcase_add_test(t, a_copy_shares_stacks_and_is_free_to_change);
    tcase_add_test(t, handles_may_go_in_any_order);
    tcase_add_test(t, cells_outside_of_the_table_are_refused);
    tcase_add_test(t, a_sealed_plan_does_not_change);
    tcase_add_test(t, wrong_numbers_are_refused);
    tcase_add_test(t, an_adapter_of_another_model_is_refused);
    tcase_add_loop_test(t, any_allocation_may_fail, 0, 4);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
