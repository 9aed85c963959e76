/* Keys and values of the text that a run keeps: the same bits as without, whatever changes from
 * call to call, and computed only when something changed. */
#include <stdbool.h>

#include "plain.h"
#include "run/run_internal.h"

enum { H = 6, W = 8, N = 4 * H * W, TEXT = 77 * 24 };

static weft_model *model;
static weft_adapter *content, *style;
static float latent[2 * N], texts[3][2 * TEXT];

static void setup(void)
{
    weft_noise *noise;
    must(weft_model_open(data_path("models/tiny-sd1"), NULL, &model, &golden_err));
    must(weft_adapter_open(data_path("adapters/content.safetensors"), NULL, &content, &golden_err));
    must(weft_adapter_open(data_path("adapters/style.safetensors"), NULL, &style, &golden_err));
    must(weft_noise_create(3, NULL, &noise, &golden_err));
    must(weft_noise_normal(noise, latent, 2 * N, &golden_err));
    for (int i = 0; i < 3; i++) must(weft_noise_normal(noise, texts[i], 2 * TEXT, &golden_err));
    weft_noise_free(noise);
}

static void teardown(void)
{
    weft_model_free(model);
    weft_adapter_free(content);
    weft_adapter_free(style);
}

enum { MERGE, SWITCH, COMPOSITE, KLORA, METHODS };

static weft_plan *plan_of(int method, float weight)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_switch_options turns = WEFT_SWITCH_OPTIONS_INIT;
    weft_plan *plan;

    turns.period = 2;
    o.path = WEFT_PATH_SIDE;
    must(weft_plan_create(model, &o, &plan, &golden_err));
    must(weft_plan_add(plan, content, weight, NULL, &golden_err));
    must(weft_plan_add(plan, style, 0.6f, NULL, &golden_err));
    if (method == SWITCH) must(weft_plan_switch(plan, &turns, &golden_err));
    if (method == COMPOSITE) must(weft_plan_composite(plan, NULL, &golden_err));
    if (method == KLORA) must(weft_plan_klora(plan, NULL, &golden_err));
    must(weft_plan_seal(plan, 8, &golden_err));
    return plan;
}

static bool stopping;
static int32_t maybe_stop(void *user, const char *what, int64_t done, int64_t total)
{
    (void)user, (void)what;
    return stopping && done > total / 2;
}

static weft_run *run_of(weft_plan *plan, uint32_t flags, int32_t batch)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_run *run;

    o.flags = flags;
    o.threads = 2;
    o.height = H;
    o.width = W;
    o.batch = batch;
    o.progress = maybe_stop;
    must(weft_run_create(plan, &o, &run, &golden_err));
    return run;
}

/* One call: its text, its negative text (-1: none), split or not, tokens. */
typedef struct ask { int32_t call; int text, negative; bool split; int32_t tokens; } ask;

static weft_status take(weft_run *run, float *out, const ask *a, int32_t batch)
{
    plain_step s = PLAIN_STEP_INIT;

    s.flags = a->split ? WEFT_STEP_SPLIT_GUIDANCE : 0;
    s.latent = latent;
    s.latent_len = s.out_len = (size_t)batch * N;
    s.out = out;
    s.tokens = a->tokens;
    s.text = texts[a->text];
    s.text_len = (size_t)a->tokens * 24;
    if (a->negative >= 0) {
        s.negative = texts[a->negative];
        s.negative_len = s.text_len;
    }
    s.timestep = 481;
    s.guidance = 5;
    s.call = a->call;
    return plain_run_step(run, &s, &golden_err);
}

/* Everything that may change between two calls, one after the other. */
static const ask asks[] = {
    { 0, 0, 1, false, 77 }, { 1, 0, 1, false, 77 }, { 1, 0, 1, true, 77 }, { 2, 0, 1, true, 77 },
    { 3, 2, 1, true, 77 },  { 3, 2, 1, false, 77 }, { 3, 2, 0, false, 77 }, { 4, 2, -1, false, 77 },
    { 5, 2, -1, false, 77 }, { 5, 2, 0, true, 77 }, { 5, 1, 0, true, 77 },  { 5, 1, 2, true, 77 },
    { 6, 1, 2, false, 40 }, { 6, 1, 2, false, 77 }, { 7, 1, 2, false, 77 }, { 0, 0, 1, false, 77 },
    { 7, 2, 0, true, 77 },  { 7, 1, -1, false, 154 }, { 7, 2, 0, true, 77 },
};

START_TEST(the_bits_are_the_same)
{
    for (int32_t batch = 1; batch <= 2; batch++)
        for (int m = 0; m < METHODS; m++) {
            weft_plan *plan = plan_of(m, 0.8f), *other = plan_of(m, 0.3f);
            weft_run *kept = run_of(plan, 0, batch),
                     *plain = run_of(plan, WEFT_RUN_FORGET_TEXT, batch);
            for (int twice = 0; twice < 2; twice++) {
                for (size_t i = 0; i < sizeof asks / sizeof *asks; i++) {
                    float got[2 * N], want[2 * N];
                    must(take(kept, got, &asks[i], batch));
                    must(take(plain, want, &asks[i], batch));
                    ck_assert_msg(memcmp(got, want, (size_t)batch * N * sizeof *got) == 0,
                                  "method %d, batch %d, ask %zu", m, batch, i);
                }
                must(
                    weft_run_set_plan(kept, other, &golden_err)); /* other weights: nothing holds */
                if (kept->memory.kept != NULL)
                    for (int i = 0; i < 2; i++) ck_assert_ptr_null(kept->memory.kept->of[i].row);
                must(weft_run_set_plan(plain, other, &golden_err));
            }
            weft_run_free(kept), weft_run_free(plain);
            weft_plan_free(plan), weft_plan_free(other);
        }
}
END_TEST

START_TEST(what_did_not_change_is_not_computed_again)
{
    static const struct { ask a; bool valid;
    } all[] = {
        { { 0, 0, 1, false, 77 }, false },
        { { 1, 0, 1, false, 77 }, true }, /* the same turn        */
        { { 2, 0, 1, false, 77 }, false },
        { { 3, 0, 1, false, 77 }, true }, /* the other adapter's  */
        { { 3, 2, 1, false, 77 }, false },
        { { 3, 2, 1, false, 77 }, true }, /* another text         */
        { { 3, 2, 1, true, 77 }, false },
        { { 2, 2, 1, true, 77 }, true }, /* another order        */
        { { 2, 2, 1, false, 40 }, false },
        { { 2, 2, 1, false, 40 }, true }, /* fewer tokens         */
    };
    weft_plan *plan = plan_of(SWITCH, 0.8f);
    weft_run *run = run_of(plan, 0, 1);
    float out[N];

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        must(take(run, out, &all[i].a, 1));
        ck_assert_msg(run->memory.kept->at[0].valid == all[i].valid, "ask %zu", i);
        if (all[i].a.split) ck_assert_int_eq(run->memory.kept->at[1].valid, all[i].valid);
    }
    weft_run_free(run);
    weft_plan_free(plan);
}
END_TEST

/* A call that was stopped leaves nothing that could be taken for whole. */
START_TEST(a_stopped_call_keeps_nothing)
{
    weft_plan *plan = plan_of(MERGE, 0.8f);
    weft_run *kept = run_of(plan, 0, 1), *plain = run_of(plan, WEFT_RUN_FORGET_TEXT, 1);
    float got[N], want[N];

    for (int split = 0; split < 2; split++) {
        ask a = { 0, split, 2, split, 77 };
        stopping = true;
        ck_assert_int_eq(take(kept, got, &a, 1), WEFT_E_CANCELLED);
        stopping = false;
        must(take(kept, got, &a, 1));
        must(take(plain, want, &a, 1));
        ck_assert_mem_eq(got, want, sizeof got);
    }
    weft_run_free(kept), weft_run_free(plain);
    weft_plan_free(plan);
}
END_TEST

START_TEST(the_memory_is_counted)
{
    weft_plan *plan = plan_of(COMPOSITE, 0.8f);
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    uint64_t without, with;

    o.height = H;
    o.width = W;
    must(weft_run_bytes(plan, &o, &with, &golden_err));
    o.flags = WEFT_RUN_FORGET_TEXT;
    must(weft_run_bytes(plan, &o, &without, &golden_err));
    weft_run *run = run_of(plan, 0, 1);
    weft_run_info info = WEFT_RUN_INFO_INIT;
    must(weft_run_info_get(run, &info, &golden_err));
    size_t floats = run->memory.kept->at[0].size + (size_t)run->memory.samples * 4 * TEXT;
    ck_assert_uint_ge(with, without + floats * sizeof(float) / 2); /* keys leave the scratch */
    ck_assert_uint_le(with, without + floats * sizeof(float) + sizeof(wf_run_kept));
    ck_assert_uint_gt(info.bytes, floats * sizeof(float));
    float out[N];
    must(take(run, out, &(ask){ 0, 0, 1, false, 77 }, 1));
    ck_assert_uint_eq(run->memory.kept->at[0].used * 4,
                      run->memory.kept->at[0].size); /* 77 tokens of 4 * 77 */
    weft_run_free(run);
    weft_plan_free(plan);
}
END_TEST

/* Under a plan that reuses deep features no call keeps anything, so no memory is taken for it. */
START_TEST(beside_reused_features_nothing_is_kept)
{
    weft_composite_options cached = WEFT_COMPOSITE_OPTIONS_INIT;
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_plan *plan, *copy = plan_of(COMPOSITE, 0.8f);
    uint64_t without, with;

    cached.flags = WEFT_COMPOSITE_CACHED;
    must(weft_plan_copy(copy, &plan, &golden_err));
    must(weft_plan_composite(plan, &cached, &golden_err));
    must(weft_plan_seal(plan, 8, &golden_err));
    o.height = H;
    o.width = W;
    must(weft_run_bytes(plan, &o, &with, &golden_err));
    o.flags = WEFT_RUN_FORGET_TEXT;
    must(weft_run_bytes(plan, &o, &without, &golden_err));
    ck_assert_uint_eq(with, without);
    weft_run *kept = run_of(plan, 0, 1), *plain = run_of(plan, WEFT_RUN_FORGET_TEXT, 1);
    ck_assert_ptr_null(kept->memory.kept);
    for (int32_t n = 0; n < 8; n++) {
        float got[N], want[N];
        must(take(kept, got, &(ask){ n, 0, 1, false, 77 }, 1));
        must(take(plain, want, &(ask){ n, 0, 1, false, 77 }, 1));
        ck_assert_mem_eq(got, want, sizeof got);
    }
    weft_run_free(kept), weft_run_free(plain);
    weft_plan_free(plan), weft_plan_free(copy);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("kept");
    TCase *t = tcase_create("all");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, the_bits_are_the_same);
    tcase_add_test(t, what_did_not_change_is_not_computed_again);
    tcase_add_test(t, a_stopped_call_keeps_nothing);
    tcase_add_test(t, the_memory_is_counted);
    tcase_add_test(t, beside_reused_features_nothing_is_kept);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
