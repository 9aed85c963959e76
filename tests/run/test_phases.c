/* Plans in phases: each call is that of its phase's method, at that method's cost; what a method
 * may ask for when it combines; adapters taken out and replaced; and what a run keeps when it
 * changes plans. */
#include <stdbool.h>

#include "golden.h"
#include "plain.h"
#include "plan/method/method.h"
#include "run/run_internal.h"

enum { H = 6, W = 8, N = 4 * H * W, TEXT = 77 * 24 };

static weft_model *model;
static weft_adapter *content, *style, *third;
static float latent[N], cond[TEXT], uncond[TEXT];

static void setup(void)
{
    weft_noise *noise;
    must(weft_model_open(data_path("models/tiny-sd1"), NULL, &model, &golden_err));
    must(weft_adapter_open(data_path("adapters/content.safetensors"), NULL, &content, &golden_err));
    must(weft_adapter_open(data_path("adapters/style.safetensors"), NULL, &style, &golden_err));
    must(weft_adapter_open(data_path("adapters/third"), NULL, &third, &golden_err));
    must(weft_noise_create(11, NULL, &noise, &golden_err));
    must(weft_noise_normal(noise, latent, N, &golden_err));
    must(weft_noise_normal(noise, cond, TEXT, &golden_err));
    must(weft_noise_normal(noise, uncond, TEXT, &golden_err));
    weft_noise_free(noise);
}

static void teardown(void)
{
    weft_model_free(model);
    weft_adapter_free(content);
    weft_adapter_free(style);
    weft_adapter_free(third);
}

enum { MERGE, SWITCH, COMPOSITE, KLORA, METHODS };

static void use(weft_plan *plan, int method)
{
    weft_switch_options o = WEFT_SWITCH_OPTIONS_INIT;
    o.period = 2;
    if (method == MERGE) must(weft_plan_merge(plan, &golden_err));
    if (method == SWITCH) must(weft_plan_switch(plan, &o, &golden_err));
    if (method == COMPOSITE) must(weft_plan_composite(plan, NULL, &golden_err));
    if (method == KLORA) must(weft_plan_klora(plan, NULL, &golden_err));
}

static weft_plan *pair(int32_t path)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan *plan;
    o.path = path;
    must(weft_plan_create(model, &o, &plan, &golden_err));
    must(weft_plan_add(plan, content, 0.8f, NULL, &golden_err));
    must(weft_plan_add(plan, style, 0.6f, NULL, &golden_err));
    return plan;
}

static weft_plan *sealed(int32_t path, int method, int32_t calls)
{
    weft_plan *plan = pair(path);
    use(plan, method);
    must(weft_plan_seal(plan, calls, &golden_err));
    return plan;
}

static void begin_at(weft_plan *plan, int32_t first)
{
    weft_phase_options o = WEFT_PHASE_OPTIONS_INIT;
    o.first = first;
    must(weft_plan_begin_phase(plan, &o, &golden_err));
}

static weft_run *run_of(weft_plan *plan)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_run *run;
    o.threads = 2;
    o.height = H;
    o.width = W;
    must(weft_run_create(plan, &o, &run, &golden_err));
    return run;
}

/* At one noise level whatever the call, so that plans of other lengths can be compared. */
static void take_step(weft_run *run, float *out, int32_t call)
{
    plain_step s = PLAIN_STEP_INIT;
    s.latent = latent;
    s.latent_len = s.out_len = N;
    s.out = out;
    s.text = cond;
    s.negative = uncond;
    s.text_len = s.negative_len = TEXT;
    s.timestep = 481;
    s.guidance = 5;
    s.call = call;
    must(plain_run_step(run, &s, &golden_err));
}

static void predict(weft_plan *plan, float *out, int32_t call)
{
    weft_run *run = run_of(plan);
    take_step(run, out, call);
    weft_run_free(run);
}

static void same_bits(const char *what, const float *a, const float *b)
{
    ck_assert_msg(memcmp(a, b, N * sizeof *a) == 0, "%s: bits differ (relative %g)", what,
                  relative(a, b, N, NULL));
}

/* Any method after any other: call n of the plan is call n - first of a plan of that method only.
 */
START_TEST(a_phase_is_a_plan_of_its_method)
{
    enum { A = 5, B = 4 };
    for (int32_t path = WEFT_PATH_AUTO; path <= WEFT_PATH_MERGED; path++)
        for (int a = 0; a < METHODS; a++)
            for (int b = 0; b < METHODS; b++) {
                weft_plan *plan = pair(path), *first = sealed(path, a, A),
                          *second = sealed(path, b, B);
                use(plan, a);
                begin_at(plan, A);
                use(plan, b);
                must(weft_plan_seal(plan, A + B, &golden_err));
                weft_run *run = run_of(plan), *one = run_of(first), *two = run_of(second);
                for (int32_t n = A - 2; n < A + 3; n++) { /* on both sides of the border */
                    float got[N], want[N];
                    take_step(run, got, n);
                    take_step(n < A ? one : two, want, n < A ? n : n - A);
                    same_bits("a phase's call", got, want);
                }
                float back[N], want[N]; /* calls may be taken in any order */
                take_step(run, back, 0);
                take_step(one, want, 0);
                same_bits("the first call after the last", back, want);
                weft_run_free(run), weft_run_free(one), weft_run_free(two);
                weft_plan_free(plan), weft_plan_free(first), weft_plan_free(second);
            }
}
END_TEST

START_TEST(a_call_costs_what_its_phase_needs)
{
    weft_plan *plan = pair(WEFT_PATH_MERGED), *composite = sealed(WEFT_PATH_MERGED, COMPOSITE, 4);
    weft_phase_info phase = WEFT_PHASE_INFO_INIT;
    weft_plan_info info = WEFT_PLAN_INFO_INIT;
    weft_run_info both = WEFT_RUN_INFO_INIT, one = WEFT_RUN_INFO_INIT;

    use(plan, COMPOSITE);
    begin_at(plan, 4);
    use(plan, MERGE);
    must(weft_plan_seal(plan, 10, &golden_err));
    for (int32_t n = 0; n < 10; n++) {
        weft_call_info c = WEFT_CALL_INFO_INIT;
        must(weft_plan_call(plan, n, &c, &golden_err));
        ck_assert_int_eq(c.phase, n < 4 ? 0 : 1);
        ck_assert_int_eq(c.branches, n < 4 ? 2 : 1);
        ck_assert_int_eq(c.evaluations, c.branches);
    }
    must(weft_plan_info_get(plan, &info, &golden_err));
    ck_assert_int_eq(info.phases, 2);
    ck_assert_int_eq(info.branches, 2);
    must(weft_plan_phase(plan, 0, &phase, &golden_err));
    ck_assert_str_eq(phase.method, "composite");
    ck_assert_int_eq(phase.merged_layers, 0); /* branches share the weights */
    ck_assert_int_gt(phase.side_bytes, 0);
    must(weft_plan_phase(plan, 1, &phase, &golden_err));
    ck_assert_str_eq(phase.method, "merge");
    ck_assert_int_eq(phase.first, 4);
    ck_assert_int_eq(phase.calls, 6);
    ck_assert_int_gt(phase.merged_layers, 0); /* the same in every call of the phase */
    ck_assert_int_eq(phase.merged_bytes, info.merged_bytes);

    weft_run *run = run_of(plan), *only = run_of(composite);
    must(weft_run_info_get(run, &both, &golden_err));
    must(weft_run_info_get(only, &one, &golden_err));
    ck_assert_double_eq(both.step_flops, one.step_flops); /* of the call that costs most */
    ck_assert_uint_ge(both.bytes, one.bytes + (uint64_t)phase.merged_bytes);
    weft_run_free(run), weft_run_free(only);
    weft_plan_free(plan), weft_plan_free(composite);
}
END_TEST

/* The first call n with n / calls >= at, also where at is no binary fraction. */
START_TEST(a_phase_may_begin_at_a_share)
{
    static const struct { double at; int32_t calls, first; } all[] = {
        { 0.4, 20, 8 }, { 0.4, 21, 9 }, { 0.1, 10, 1 }, { 0.7, 10, 7 }, { 1.0 / 3, 30, 10 }, { 0.99, 5, -1 },
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        weft_phase_options o = WEFT_PHASE_OPTIONS_INIT;
        weft_plan_info info = WEFT_PLAN_INFO_INIT;
        weft_phase_info phase = WEFT_PHASE_INFO_INIT;
        weft_plan *plan = pair(WEFT_PATH_AUTO);
        char text[20000];
        o.flags = WEFT_PHASE_AT;
        o.at = all[i].at;
        must(weft_plan_begin_phase(plan, &o, &golden_err));
        use(plan, SWITCH);
        must(weft_plan_seal(plan, all[i].calls, &golden_err));
        must(weft_plan_info_get(plan, &info, &golden_err));
        must(weft_plan_text(plan, text, sizeof text, NULL, &golden_err));
        if (all[i].first < 0) { /* beyond the last call: left out, and said */
            ck_assert_int_eq(info.phases, 1);
            ck_assert_ptr_nonnull(strstr(text, "phase 1 (LoRA Switch) has no call"));
        } else {
            ck_assert_int_eq(info.phases, 2);
            must(weft_plan_phase(plan, 1, &phase, &golden_err));
            ck_assert_int_eq(phase.first, all[i].first);
            ck_assert_ptr_nonnull(strstr(text, "phase 1    LoRA Switch, calls"));
        }
        weft_plan_free(plan);
    }
}
END_TEST

static void refused(weft_status want, const char *words, weft_status st)
{
    ck_assert_int_eq(st, want);
    ck_assert_msg(strstr(golden_err.text, words) != NULL, "\"%s\" lacks \"%s\"", golden_err.text,
                  words);
}

START_TEST(phases_that_cannot_be_are_refused)
{
    weft_plan *plan = pair(WEFT_PATH_AUTO);
    weft_phase_options o = WEFT_PHASE_OPTIONS_INIT;
    weft_phase_info phase = WEFT_PHASE_INFO_INIT;
    weft_call_info call = WEFT_CALL_INFO_INIT;

    refused(WEFT_E_ARG, "first is 0", weft_plan_begin_phase(plan, &o, &golden_err));
    o.first = 5;
    must(weft_plan_begin_phase(plan, &o, &golden_err));
    refused(WEFT_E_ARG, "first is 5", weft_plan_begin_phase(plan, &o, &golden_err));
    o.flags = WEFT_PHASE_AT;
    refused(WEFT_E_ARG, "first 0 beside it", weft_plan_begin_phase(plan, &o, &golden_err));
    o.first = 0;
    o.at = NAN;
    refused(WEFT_E_ARG, "at must be 0 to 1", weft_plan_begin_phase(plan, &o, &golden_err));
    o.at = 0.1; /* of 10 calls, before the phase that begins at call 5 */
    must(weft_plan_begin_phase(plan, &o, &golden_err));
    refused(WEFT_E_ARG, "before phase 1", weft_plan_seal(plan, 10, &golden_err));
    must(weft_plan_seal(plan, 60, &golden_err)); /* of 60 it is call 6 */
    refused(WEFT_E_STATE, "sealed", weft_plan_begin_phase(plan, &o, &golden_err));
    refused(WEFT_E_ARG, "phase 3 of 3", weft_plan_phase(plan, 3, &phase, &golden_err));
    refused(WEFT_E_ARG, "phase -1", weft_plan_phase(plan, -1, &phase, &golden_err));
    refused(WEFT_E_ARG, "call 60 of 60", weft_plan_call(plan, 60, &call, &golden_err));
    refused(WEFT_E_STATE, "sealed", weft_plan_remove(plan, 0, &golden_err));
    refused(WEFT_E_STATE, "sealed", weft_plan_replace(plan, 0, third, 1, NULL, &golden_err));
    weft_plan_free(plan);
}
END_TEST

/* ---- what a method may ask for --------------------------------------------------------------- */

static wf_cell ask_number(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch,
                          int32_t layer, int32_t adapter)
{
    (void)p, (void)s, (void)call, (void)layer;
    return branch == adapter ? WF_ALL : WF_NOTHING;
}

static int32_t asking_branches(const weft_plan *p, const wf_sheet *s, int32_t call)
{
    (void)p, (void)s;
    return call == 1 ? 2 : 1; /* a row owns its branches */
}

static size_t ask_scratch(const weft_plan *p, const wf_sheet *s, size_t values)
{
    (void)p, (void)s;
    return 2 * values;
}

static int asked[2];
static float promised[N]; /* the conditional prediction, as the unconditional half sees it */

/* Everything that is promised, looked at; then the base's prediction, by way of the scratch. */
static void ask_everything(const weft_plan *p, const wf_sheet *s, const wf_combine *x)
{
    ck_assert_int_eq(x->call - s->first, asked[0]);
    ck_assert_int_eq(x->branches, asking_branches(p, s, asked[0]));
    ck_assert_float_eq(x->timestep, 481);
    ck_assert_int_eq(x->half, x->guided ? asked[1]++ % 2 : WF_CONDITIONAL);
    ck_assert_int_eq(x->n * x->c * x->h * x->w, N);
    ck_assert_mem_eq(x->latent, latent, sizeof latent);
    if (x->half == WF_UNCONDITIONAL) memcpy(promised, x->cond[0], sizeof promised);
    else if (x->guided) ck_assert_mem_eq(promised, x->preds[0], sizeof promised);
    if (x->half == WF_CONDITIONAL) {
        ck_assert_ptr_eq(x->cond_base, x->base);
        for (int32_t b = 0; b < x->branches; b++) ck_assert_ptr_eq(x->cond[b], x->preds[b]);
    } else {
        ck_assert_mem_ne(x->cond[0], x->preds[0], N * sizeof(float));
        ck_assert_mem_ne(x->cond_base, x->base, N * sizeof(float));
    }
    for (size_t i = 0; i < 2 * N; i++) x->scratch[i] = i < N ? x->base[i] : 0;
    memcpy(x->out, x->scratch, N * sizeof *x->out);
}

static const wf_method asking = {
    .name = "asking",
    .title = "Asking",
    .text = WEFT_TEXT_NONE,
    .choose = ask_number,
    .branches = asking_branches,
    .combine = ask_everything,
    .needs_base = true,
    .scratch = ask_scratch,
};

START_TEST(a_method_is_given_what_it_asks_for)
{
    weft_plan *plan = pair(WEFT_PATH_AUTO), *none;
    float base[N], got[N];

    must(weft_plan_create(model, NULL, &none, &golden_err));
    must(weft_plan_seal(none, 1, &golden_err));
    predict(none, base, 0);
    must(wf_plan_use(plan, &asking, NULL, 0, &golden_err));
    must(weft_plan_seal(plan, 3, &golden_err));
    weft_plan_info all = WEFT_PLAN_INFO_INIT;
    must(weft_plan_info_get(plan, &all, &golden_err));
    ck_assert_int_eq(all.branches, 2); /* of the call that has most */
    weft_run *run = run_of(plan);
    for (int32_t n = 0; n < 3; n++) {
        weft_call_info c = WEFT_CALL_INFO_INIT;
        must(weft_plan_call(plan, n, &c, &golden_err));
        ck_assert_int_eq(c.branches, n == 1 ? 2 : 1);
        ck_assert_int_eq(c.evaluations, c.branches + 1);
        asked[0] = n;
        take_step(run, got, n);
        same_bits("the base's prediction", got, base);
    }
    ck_assert_int_eq(asked[1], 6);

    /* Where branches have texts of their own, the base's evaluation reads that of the first. */
    float texts[2][2 * TEXT];
    plain_step s = PLAIN_STEP_INIT;
    for (int i = 0; i < TEXT; i++) {
        texts[0][i] = cond[i], texts[0][TEXT + i] = -cond[i];
        texts[1][i] = uncond[i], texts[1][TEXT + i] = -uncond[i];
    }
    s.flags = WEFT_STEP_TEXT_PER_BRANCH;
    s.latent = latent, s.out = got, s.latent_len = s.out_len = N;
    s.text = texts[0], s.negative = texts[1], s.text_len = s.negative_len = 2 * TEXT;
    s.timestep = 481, s.guidance = 5, s.call = asked[0] = 1;
    must(plain_run_step(run, &s, &golden_err));
    same_bits("the base's prediction, of the first branch's text", got, base);
    weft_run_free(run);
    weft_plan_free(plan);
    weft_plan_free(none);
}
END_TEST

/* A method whose cells are vectors: what it gives in its state reaches every layer. */
enum { COLUMNS = 4096 };
typedef struct kinds {
    float        half[COLUMNS];
    const float *vector[1];
} kinds;

static weft_status begin_kinds(const weft_plan *p, wf_table *t, wf_sheet *s, weft_error *err)
{
    (void)t;
    s->state = wf_blob_create(&p->alloc, sizeof(kinds));
    if (s->state == NULL) return wf_nomem(err, sizeof(kinds), "kinds");
    kinds *k = s->state->data;
    for (int i = 0; i < COLUMNS; i++) k->half[i] = 0.5f;
    k->vector[0] = k->half;
    s->vectors = k->vector;
    return WEFT_OK;
}

/* Call 0: a vector of halves. Call 1: the number. */
static wf_cell choose_kinds(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch,
                            int32_t layer, int32_t adapter)
{
    (void)p, (void)s, (void)branch, (void)layer, (void)adapter;
    return call == 0 ? (wf_cell){ 1, 1, 0 } : WF_ALL;
}

static const wf_method kinds_of_cells = { .name = "kinds", .title = "Kinds", .text = WEFT_TEXT_NONE,
                                          .choose = choose_kinds, .begin = begin_kinds };

START_TEST(a_cell_may_be_a_vector)
{
    static const float weight[] = { 0.4f, 0.8f };
    weft_plan *plan;
    must(weft_plan_create(model, NULL, &plan, &golden_err));
    must(weft_plan_add(plan, content, 0.8f, NULL, &golden_err));
    must(wf_plan_use(plan, &kinds_of_cells, NULL, 0, &golden_err));
    must(weft_plan_seal(plan, 2, &golden_err));
    weft_run *run = run_of(plan);
    for (int32_t n = 0; n < 2; n++) {
        weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
        weft_plan *want;
        float got[N], wanted[N];
        o.path = WEFT_PATH_SIDE;
        must(weft_plan_create(model, &o, &want, &golden_err));
        must(weft_plan_add(want, content, weight[n], NULL, &golden_err));
        must(weft_plan_seal(want, 1, &golden_err));
        predict(want, wanted, 0);
        take_step(run, got, n);
        ck_assert_msg(relative(got, wanted, N, NULL) < 2e-6, "call %d: %g", n,
                      relative(got, wanted, N, NULL));
        weft_plan_free(want);
    }
    weft_run_free(run);
    weft_plan_free(plan);
}
END_TEST

/* ---- adapters taken out and replaced --------------------------------------------------------- */

START_TEST(adapters_are_replaced_and_removed)
{
    for (int m = 0; m < METHODS; m++) {
        weft_plan *plan = sealed(WEFT_PATH_AUTO, m, 6), *copy, *want;
        float got[N], wanted[N];

        must(weft_plan_copy(plan, &copy, &golden_err)); /* style, third */
        must(weft_plan_replace(copy, 0, third, 0.5f, NULL, &golden_err));
        refused(WEFT_E_ARG, "adapter 2 of 2",
                weft_plan_replace(copy, 2, third, 1, NULL, &golden_err));
        refused(WEFT_E_ARG, "not a finite",
                weft_plan_replace(copy, 0, style, NAN, NULL, &golden_err));
        must(weft_plan_seal(copy, 6, &golden_err));
        must(weft_plan_create(model, NULL, &want, &golden_err));
        must(weft_plan_add(want, third, 0.5f, NULL, &golden_err));
        must(weft_plan_add(want, style, 0.6f, NULL, &golden_err));
        use(want, m);
        must(weft_plan_seal(want, 6, &golden_err));
        predict(copy, got, 1);
        predict(want, wanted, 1);
        same_bits("replaced", got, wanted);
        weft_plan_free(copy);
        weft_plan_free(want);

        if (m != KLORA) { /* which needs two */
            must(weft_plan_copy(plan, &copy, &golden_err));
            must(weft_plan_remove(copy, 0, &golden_err));
            must(weft_plan_seal(copy, 6, &golden_err));
            must(weft_plan_create(model, NULL, &want, &golden_err));
            must(weft_plan_add(want, style, 0.6f, NULL, &golden_err));
            use(want, m);
            must(weft_plan_seal(want, 6, &golden_err));
            predict(copy, got, 1);
            predict(want, wanted, 1);
            same_bits("removed", got, wanted);
            weft_plan_free(copy);
            weft_plan_free(want);
        }
        weft_plan_free(plan);
    }
}
END_TEST

/* A binding that is let go may be followed by another one at its address: nothing made from the
 * first may pass for the second's. */
START_TEST(an_address_used_again_is_another_adapter)
{
    for (int m = 0; m < METHODS; m++)
        for (int times = 0; times < 4; times++) {
            weft_plan *plan = sealed(WEFT_PATH_AUTO, m, 6), *copy, *want;
            float got[N], wanted[N];

            must(weft_plan_copy(plan, &copy, &golden_err));
            weft_plan_free(plan);
            must(weft_plan_remove(copy, 0, &golden_err));
            must(weft_plan_remove(copy, 0, &golden_err));
            must(weft_plan_add(copy, third, 0.8f, NULL, &golden_err));
            must(weft_plan_add(copy, content, 0.6f, NULL, &golden_err));
            must(weft_plan_seal(copy, 6, &golden_err));
            must(weft_plan_create(model, NULL, &want, &golden_err));
            must(weft_plan_add(want, third, 0.8f, NULL, &golden_err));
            must(weft_plan_add(want, content, 0.6f, NULL, &golden_err));
            use(want, m);
            must(weft_plan_seal(want, 6, &golden_err));
            predict(copy, got, 0);
            predict(want, wanted, 0);
            same_bits("after removal", got, wanted);
            weft_plan_free(copy);
            weft_plan_free(want);
        }
}
END_TEST

/* ---- a run that changes plans ---------------------------------------------------------------- */

/* What the plans have in common stays where it is: the scratch, and merged copies of equal
 * coefficients. */
START_TEST(a_run_keeps_what_still_fits)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan *plan, *copy;
    float got[N], wanted[N];

    o.path = WEFT_PATH_MERGED;
    must(weft_plan_create(model, &o, &plan, &golden_err));
    weft_add_options up = WEFT_ADD_OPTIONS_INIT, down = WEFT_ADD_OPTIONS_INIT;
    up.select = "unet.up_blocks.*";
    down.select = "unet.down_blocks.*";
    must(weft_plan_add(plan, content, 0.8f, &up, &golden_err));
    must(weft_plan_add(plan, style, 0.6f, &down, &golden_err));
    must(weft_plan_seal(plan, 6, &golden_err));
    weft_run *run = run_of(plan);
    const uint8_t *arena = run->memory.arena;
    size_t count = run->memory.phase[0].count, kept = 0, made = 0;
    float **before = calloc(count, sizeof *before);
    for (size_t i = 0; i < count; i++) before[i] = run->memory.phase[0].merged[i]->weight;

    must(weft_plan_copy(plan, &copy, &golden_err));
    must(
        weft_plan_set_weight(copy, 1, 0.1f, NULL, &golden_err)); /* the slider of the down blocks */
    must(weft_plan_seal(copy, 6, &golden_err));
    must(weft_run_set_plan(run, copy, &golden_err));
    ck_assert_ptr_eq(run->memory.arena, arena);
    ck_assert_uint_eq(run->memory.phase[0].count, count);
    const wf_layer *layers = wf_model_layers(model, &(size_t){ 0 });
    for (size_t i = 0; i < count; i++) {
        const wf_merged *m = run->memory.phase[0].merged[i];
        bool moved = strncmp(layers[m->patch->layer].name, "unet.down", 9) == 0;
        ck_assert_msg((m->weight == before[i]) != moved, "%s", layers[m->patch->layer].name);
        kept += !moved;
        made += moved;
    }
    ck_assert_uint_gt(kept, 0);
    ck_assert_uint_gt(made, 0);
    take_step(run, got, 0);
    predict(copy, wanted, 0);
    same_bits("after the slider", got, wanted);
    must(weft_run_set_plan(run, plan, &golden_err));
    take_step(run, got, 0);
    predict(plan, wanted, 0);
    same_bits("and back", got, wanted);
    free(before);
    weft_run_free(run);
    weft_plan_free(plan);
    weft_plan_free(copy);
}
END_TEST

/* Two phases with the same coefficients share their copies, and their bytes are counted once. */
START_TEST(phases_share_merged_copies)
{
    weft_plan *plan = pair(WEFT_PATH_MERGED), *one = sealed(WEFT_PATH_MERGED, MERGE, 6);

    begin_at(plan, 3);
    use(plan, MERGE);
    must(weft_plan_seal(plan, 6, &golden_err));
    weft_run *run = run_of(plan), *only = run_of(one);
    ck_assert_uint_gt(run->memory.phase[0].count, 0);
    for (size_t i = 0; i < run->memory.phase[0].count; i++)
        ck_assert_ptr_eq(run->memory.phase[0].merged[i], run->memory.phase[1].merged[i]);
    weft_run_info a = WEFT_RUN_INFO_INIT, b = WEFT_RUN_INFO_INIT;
    must(weft_run_info_get(run, &a, &golden_err));
    must(weft_run_info_get(only, &b, &golden_err));
    ck_assert_uint_lt(a.bytes - b.bytes, 1 << 18); /* the phase's list of layers */
    weft_run_free(run), weft_run_free(only);
    weft_plan_free(plan), weft_plan_free(one);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("phases");
    TCase *t = tcase_create("all");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_phase_is_a_plan_of_its_method);
    tcase_add_test(t, a_call_costs_what_its_phase_needs);
    tcase_add_test(t, a_phase_may_begin_at_a_share);
    tcase_add_test(t, phases_that_cannot_be_are_refused);
    tcase_add_test(t, a_method_is_given_what_it_asks_for);
    tcase_add_test(t, a_cell_may_be_a_vector);
    tcase_add_test(t, adapters_are_replaced_and_removed);
    tcase_add_test(t, an_address_used_again_is_another_adapter);
    tcase_add_test(t, a_run_keeps_what_still_fits);
    tcase_add_test(t, phases_share_merged_copies);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
