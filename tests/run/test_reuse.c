/* Deep features that branches reuse from call to call (WEFT_COMPOSITE_CACHED): when they do, that the
 * bits do not depend on how a call is computed, and that the measured error is the real one. The
 * numbers themselves are held to diffusers' by test_compose. */
#include <math.h>
#include <stdbool.h>

#include "plain.h"
#include "plan/method/method.h"
#include "run/run_internal.h"

enum { H = 6, W = 8, N = 4 * H * W, TEXT = 77 * 24, CALLS = 8 };

static weft_model *model;
static weft_adapter *adapters[3];
static float latents[CALLS][2 * N], texts[2][TEXT];

static void setup(void)
{
    static const char *const names[] = { "content.safetensors", "style.safetensors", "content.safetensors" };
    weft_noise *noise;
    must(weft_model_open(data_path("models/tiny-sd1"), NULL, &model, &golden_err));
    for (int i = 0; i < 3; i++)
        must(weft_adapter_open(data_path("adapters/%s", names[i]), NULL, &adapters[i], &golden_err));
    must(weft_noise_create(3, NULL, &noise, &golden_err));
    for (int i = 0; i < CALLS; i++) must(weft_noise_normal(noise, latents[i], 2 * N, &golden_err));
    for (int i = 0; i < 2; i++) must(weft_noise_normal(noise, texts[i], TEXT, &golden_err));
    weft_noise_free(noise);
}

static void teardown(void)
{
    weft_model_free(model);
    for (int i = 0; i < 3; i++) weft_adapter_free(adapters[i]);
}

static weft_plan *plan_of(uint32_t flags, int32_t c1, int32_t c2)
{
    weft_composite_options o = WEFT_COMPOSITE_OPTIONS_INIT;
    const float weights[] = { 0.8f, 0.6f, -0.5f };
    weft_plan *plan;

    must(weft_plan_create(model, NULL, &plan, &golden_err));
    for (int i = 0; i < 3; i++) must(weft_plan_add(plan, adapters[i], weights[i], NULL, &golden_err));
    o.flags = flags;
    o.c1 = c1;
    o.c2 = c2;
    must(weft_plan_composite(plan, &o, &golden_err));
    must(weft_plan_seal(plan, CALLS, &golden_err));
    return plan;
}

static int64_t furthest, all;
static int32_t remember(void *user, const char *what, int64_t done, int64_t total)
{
    (void)user, (void)what;
    furthest = done;
    all = total;
    return 0;
}

static weft_run *run_of(weft_plan *plan, uint32_t flags, int32_t batch, int32_t threads)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_run *run;

    o.flags = flags;
    o.threads = threads;
    o.height = H;
    o.width = W;
    o.batch = batch;
    o.progress = remember;
    must(weft_run_create(plan, &o, &run, &golden_err));
    return run;
}

static void take(weft_run *run, float *out, int32_t call, int32_t batch, bool split, bool guided)
{
    plain_step s = PLAIN_STEP_INIT;

    s.flags = split ? WEFT_STEP_SPLIT_GUIDANCE : 0;
    s.latent = latents[call];
    s.latent_len = s.out_len = (size_t)batch * N;
    s.out = out;
    s.tokens = 77;
    s.text = texts[0];
    s.text_len = TEXT;
    if (guided) {
        s.negative = texts[1];
        s.negative_len = TEXT;
    }
    s.timestep = 900 - 100 * (float)call;
    s.guidance = 5;
    s.call = call;
    must(plain_run_step(run, &s, &golden_err));
}

static double off(const float *a, const float *b, size_t n)
{
    double worst = 0, most = 0;
    for (size_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
        most = fmax(most, fabs((double)b[i]));
    }
    return worst / most;
}

/* 8 calls of 3 adapters, c1 = 2, c2 = 3: dominant 0 0 0 1 1 1 2 2; all anew at calls 0, 2 and 6. */
START_TEST(who_reuses_when)
{
    static const char *const fresh[CALLS] = { "***", "*..", "***", ".*.", ".*.", ".*.", "***", "..*" };
    weft_plan *plan = plan_of(WEFT_COMPOSITE_CACHED, 0, 0), *plain = plan_of(0, 0, 0);

    for (int32_t n = 0; n < CALLS; n++)
        for (int32_t b = 0; b < 3; b++) {
            ck_assert_msg(wf_plan_reuses(plan, n, b) == (fresh[n][b] == '.'), "call %d, branch %d", n, b);
            ck_assert(!wf_plan_reuses(plain, n, b));
        }
    ck_assert(wf_plan_ever_reuses(plan) && !wf_plan_ever_reuses(plain));
    weft_plan_free(plan), weft_plan_free(plain);
}
END_TEST

START_TEST(a_refresh_in_every_call_is_composite)
{
    weft_plan *plan = plan_of(WEFT_COMPOSITE_CACHED, 1, 1), *plain = plan_of(0, 0, 0);
    weft_run *a = run_of(plan, 0, 1, 2), *b = run_of(plain, 0, 1, 2);
    float got[N], want[N];

    for (int32_t n = 0; n < CALLS; n++) {
        take(a, got, n, 1, false, true);
        take(b, want, n, 1, false, true);
        ck_assert_mem_eq(got, want, sizeof got);
    }
    weft_run_free(a), weft_run_free(b);
    weft_plan_free(plan), weft_plan_free(plain);
}
END_TEST

/* One thread or three, split guidance or not, one sample or the first of two: the same bits; and not
 * those of the full composite where features are reused. Progress ends where it said. */
START_TEST(the_bits_are_the_same)
{
    weft_plan *plan = plan_of(WEFT_COMPOSITE_CACHED, 0, 0), *plain = plan_of(0, 0, 0);
    weft_run *one = run_of(plan, 0, 1, 1), *three = run_of(plan, WEFT_RUN_FORGET_TEXT, 1, 3),
             *split = run_of(plan, 0, 1, 2), *two = run_of(plan, WEFT_RUN_MEASURE, 2, 2),
             *full = run_of(plain, 0, 1, 2);
    float want[N], got[2 * N], whole[N];

    for (int32_t n = 0; n < CALLS; n++) {
        bool every = n == 0 || n == 2 || n == 6;
        take(one, want, n, 1, false, true);
        ck_assert_int_eq(furthest, all);
        take(three, got, n, 1, false, true);
        ck_assert_mem_eq(got, want, sizeof want);
        take(split, got, n, 1, true, true);
        ck_assert_int_eq(furthest, all);
        ck_assert_mem_eq(got, want, sizeof want);
        take(two, got, n, 2, n % 2 == 0, true);
        ck_assert_int_eq(furthest, all);
        ck_assert_mem_eq(got, want, sizeof want);
        take(full, whole, n, 1, false, true);
        if (every) ck_assert_mem_eq(whole, want, sizeof want);
        else ck_assert_double_gt(off(want, whole, N), 1e-3);
    }
    weft_run_free(one), weft_run_free(three), weft_run_free(split), weft_run_free(two), weft_run_free(full);
    weft_plan_free(plan), weft_plan_free(plain);
}
END_TEST

/* Not from the call before: another image, a start in the middle, a change of guidance, a new plan. */
START_TEST(only_the_next_call_reuses)
{
    weft_plan *plan = plan_of(WEFT_COMPOSITE_CACHED, 0, 0), *plain = plan_of(0, 0, 0);
    weft_run *run = run_of(plan, 0, 1, 2), *full = run_of(plain, 0, 1, 2);
    static const struct { int32_t call; bool guided, reuses; } all_calls[] = {
        { 5, true, false }, { 4, true, false }, { 5, true, true }, { 7, true, false }, { 3, true, false },
        { 4, false, false }, { 5, false, true }, { 5, false, false }, { 4, true, false },
    };
    float got[N], want[N];

    for (size_t i = 0; i < WF_LEN(all_calls); i++) {
        take(run, got, all_calls[i].call, 1, false, all_calls[i].guided);
        take(full, want, all_calls[i].call, 1, false, all_calls[i].guided);
        ck_assert_msg((memcmp(got, want, sizeof got) != 0) == all_calls[i].reuses, "ask %zu", i);
    }
    must(weft_run_set_plan(run, plan, &golden_err));
    take(run, got, 5, 1, false, true);
    take(full, want, 5, 1, false, true);
    ck_assert_mem_eq(got, want, sizeof got);
    weft_run_free(run), weft_run_free(full);
    weft_plan_free(plan), weft_plan_free(plain);
}
END_TEST

START_TEST(the_measured_error_is_the_error)
{
    weft_plan *plan = plan_of(WEFT_COMPOSITE_CACHED, 0, 0), *plain = plan_of(0, 0, 0);
    weft_run *run = run_of(plan, WEFT_RUN_MEASURE, 1, 2), *full = run_of(plain, 0, 1, 2);
    weft_run_info info = WEFT_RUN_INFO_INIT;
    float got[N], want[N];
    double worst = 0;

    for (int32_t n = 0; n < CALLS; n++) {
        take(run, got, n, 1, false, true);
        take(full, want, n, 1, false, true);
        worst = fmax(worst, off(got, want, N));
        must(weft_run_info_get(run, &info, &golden_err));
        ck_assert_double_eq(info.reuse_error, worst);
    }
    ck_assert_double_gt(worst, 1e-3);
    must(weft_run_info_get(full, &info, &golden_err));
    ck_assert_double_eq(info.reuse_error, 0);
    weft_run_free(run), weft_run_free(full);
    weft_plan_free(plan), weft_plan_free(plain);
}
END_TEST

START_TEST(the_memory_is_counted)
{
    weft_plan *plan = plan_of(WEFT_COMPOSITE_CACHED, 0, 0), *plain = plan_of(0, 0, 0);
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_run_info info = WEFT_RUN_INFO_INIT;
    uint64_t cached, without;
    o.height = H;
    o.width = W;
    o.threads = 1;
    o.flags = WEFT_RUN_FORGET_TEXT; /* beside reused features nothing is kept of it in any case */

    must(weft_run_bytes(plan, &o, &cached, &golden_err));
    must(weft_run_bytes(plain, &o, &without, &golden_err));
    weft_run *run = run_of(plan, 0, 1, 1);
    size_t floats = 3 * 2 * run->memory.deep.each;
    ck_assert_uint_ge(run->memory.deep.each, H * W);
    ck_assert_uint_eq(cached - without, floats * sizeof(float));
    must(weft_run_info_get(run, &info, &golden_err));
    ck_assert_uint_eq(info.bytes, cached);
    weft_run_free(run);
    weft_plan_free(plan), weft_plan_free(plain);
}
END_TEST

START_TEST(wrong_intervals_are_refused)
{
    weft_composite_options o = WEFT_COMPOSITE_OPTIONS_INIT;
    weft_plan *plan;

    must(weft_plan_create(model, NULL, &plan, &golden_err));
    o.c2 = 3;
    ck_assert_int_eq(weft_plan_composite(plan, &o, &golden_err), WEFT_E_ARG);
    ck_assert_ptr_nonnull(strstr(golden_err.text, "c2 is set, but not WEFT_COMPOSITE_CACHED"));
    o.flags = WEFT_COMPOSITE_CACHED;
    o.c1 = -1;
    ck_assert_int_eq(weft_plan_composite(plan, &o, &golden_err), WEFT_E_ARG);
    ck_assert_ptr_nonnull(strstr(golden_err.text, "c1 is -1"));
    weft_plan_free(plan);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("reuse");
    TCase *t = tcase_create("all");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, who_reuses_when);
    tcase_add_test(t, a_refresh_in_every_call_is_composite);
    tcase_add_test(t, the_bits_are_the_same);
    tcase_add_test(t, only_the_next_call_reuses);
    tcase_add_test(t, the_measured_error_is_the_error);
    tcase_add_test(t, the_memory_is_counted);
    tcase_add_test(t, wrong_intervals_are_refused);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
