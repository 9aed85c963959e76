/* Many threads of the caller's at once: what they share (a model, adapters, a sealed plan) is
 * shared without a race, and every prediction has the bits that it has alone. `make tsan` watches
 * this program. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "golden.h"
#include "plain.h"

enum { H = 8, W = 8, N = 4 * H * W, TEXT = 77 * 24, CALLS = 6 };

static weft_model *model;
static weft_adapter *content, *style;
static float latent[N], cond[TEXT], uncond[TEXT];

static void setup(void)
{
    weft_noise *noise;
    must(weft_model_open(data_path("models/tiny-sd1"), NULL, &model, &golden_err));
    must(weft_adapter_open(data_path("adapters/content.safetensors"), NULL, &content, &golden_err));
    must(weft_adapter_open(data_path("adapters/style.safetensors"), NULL, &style, &golden_err));
    must(weft_noise_create(23, NULL, &noise, &golden_err));
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
}

enum { MERGE, SWITCH, COMPOSITE, KLORA, METHODS };

/* What follows may run on any thread, so that it returns what went wrong and asserts nothing. */
static weft_status make_plan(int method, int32_t path, weft_plan **plan, weft_error *err)
{
    weft_plan_options   o = WEFT_PLAN_OPTIONS_INIT;
    weft_switch_options turns = WEFT_SWITCH_OPTIONS_INIT;
    weft_status         st;

    o.path = path;
    turns.period = 1;
    if ((st = weft_plan_create(model, &o, plan, err)) != WEFT_OK) return st;
    if ((st = weft_plan_add(*plan, content, 0.8f, NULL, err)) != WEFT_OK) return st;
    if ((st = weft_plan_add(*plan, style, 0.6f, NULL, err)) != WEFT_OK) return st;
    if (method == SWITCH) return weft_plan_switch(*plan, &turns, err);
    if (method == COMPOSITE) return weft_plan_composite(*plan, NULL, err);
    if (method == KLORA) return weft_plan_klora(*plan, NULL, err);
    return weft_plan_merge(*plan, err);
}

static weft_status make_run(weft_plan *plan, int32_t threads, weft_run **run, weft_error *err)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    o.threads = threads;
    o.height = H;
    o.width = W;
    return weft_run_create(plan, &o, run, err);
}

static weft_status take_step(weft_run *run, float *out, int32_t call, weft_error *err)
{
    plain_step s = PLAIN_STEP_INIT;
    s.latent = latent;
    s.latent_len = s.out_len = N;
    s.out = out;
    s.text = cond;
    s.negative = uncond;
    s.text_len = s.negative_len = TEXT;
    s.timestep = 801.0f - 40.0f * (float)call;
    s.guidance = 4;
    s.call = call;
    return plain_run_step(run, &s, err);
}

static weft_plan *sealed(int method, int32_t path)
{
    weft_plan *plan;
    must(make_plan(method, path, &plan, &golden_err));
    must(weft_plan_seal(plan, CALLS, &golden_err));
    return plan;
}

/* What each call of a plan predicts, by one run with one thread. */
static void predict(weft_plan *plan, float (*out)[N])
{
    weft_run *run;
    must(make_run(plan, 1, &run, &golden_err));
    for (int32_t n = 0; n < CALLS; n++) must(take_step(run, out[n], n, &golden_err));
    weft_run_free(run);
}

/* A thread of the caller's, and what it found. */
typedef struct caller {
    pthread_t          id;
    pthread_barrier_t *start;
    weft_plan         *plan;
    weft_run          *run;
    float            (*wanted)[N];
    int32_t            threads;
    int                rounds, cancelled;
    weft_status        st;
    weft_error         err;
    bool               wrong;
    atomic_bool       *stop;
    float              out[N];
} caller;

static void start(caller *c, size_t count, pthread_barrier_t *together, void *(*work)(void *))
{
    ck_assert_int_eq(pthread_barrier_init(together, NULL, (unsigned)count), 0);
    for (size_t i = 0; i < count; i++) {
        c[i].start = together;
        ck_assert_int_eq(pthread_create(&c[i].id, NULL, work, &c[i]), 0);
    }
}

static void check(const caller *c, size_t i)
{
    ck_assert_msg(c->st == WEFT_OK, "thread %zu: %s: %s", i, weft_status_name(c->st), c->err.text);
    ck_assert_msg(!c->wrong, "thread %zu: other bits than alone", i);
}

static void finish(caller *c, size_t count, pthread_barrier_t *together)
{
    for (size_t i = 0; i < count; i++) ck_assert_int_eq(pthread_join(c[i].id, NULL), 0);
    pthread_barrier_destroy(together);
    for (size_t i = 0; i < count; i++) check(&c[i], i);
}

static void compare(caller *c, int32_t call)
{
    c->st = take_step(c->run, c->out, call, &c->err);
    if (c->st == WEFT_OK && memcmp(c->out, c->wanted[call], sizeof c->out) != 0) c->wrong = true;
}

/* ---- many runs, many threads ---- */

/* Together more than OpenBLAS has work areas for. */
static const int32_t threads_of[] = { 64, 64, 64, 1, 9 };
enum { RUNS = sizeof threads_of / sizeof *threads_of };

static void *run_all_calls(void *user)
{
    caller *c = user;

    c->st = make_run(c->plan, c->threads, &c->run, &c->err);
    pthread_barrier_wait(c->start); /* all have their threads now */
    for (int32_t n = 0; n < CALLS && c->st == WEFT_OK; n++)
        compare(c, (n * 5 + c->threads) % CALLS);
    pthread_barrier_wait(c->start);
    weft_run_free(c->run);
    return NULL;
}

START_TEST(many_runs_with_many_threads_agree)
{
    static float wanted[CALLS][N];
    static caller c[RUNS];
    pthread_barrier_t together;
    weft_plan *plan = sealed(_i, WEFT_PATH_AUTO);

    predict(plan, wanted);
    memset(c, 0, sizeof c);
    for (int i = 0; i < RUNS; i++) {
        c[i].plan = plan;
        c[i].wanted = wanted;
        c[i].threads = threads_of[i];
    }
    start(c, RUNS, &together, run_all_calls);
    finish(c, RUNS, &together);
    weft_plan_free(plan);
}
END_TEST

/* Refused before OpenBLAS would run out; and what is let go may be taken again. */
START_TEST(more_threads_than_a_process_may_have_are_refused)
{
    weft_plan *plan = sealed(MERGE, WEFT_PATH_SIDE);
    weft_run *run[3], *none = (weft_run *)&plan;
    float out[N];

    for (int i = 0; i < 3; i++) must(make_run(plan, 128, &run[i], &golden_err)); /* 381 of 384 */
    ck_assert_int_eq(make_run(plan, 5, &none, &golden_err), WEFT_E_STATE);
    ck_assert_ptr_eq(none, NULL);
    must(make_run(plan, 4, &none, &golden_err));
    must(take_step(none, out, 0, &golden_err));
    weft_run_free(none);
    weft_run_free(run[1]);
    must(make_run(plan, 100, &run[1], &golden_err));
    for (int i = 0; i < 3; i++) must(take_step(run[i], out, 0, &golden_err));
    for (int i = 0; i < 3; i++) weft_run_free(run[i]);
    weft_plan_free(plan);
}
END_TEST

/* ---- one plan, two runs, and a third thread that cancels ---- */

static void *step_until_told(void *user)
{
    caller *c = user;

    pthread_barrier_wait(c->start);
    for (int32_t n = 0; c->rounds < 24 || (c->stop != NULL && !atomic_load(c->stop));
         n = (n + 1) % CALLS) {
        compare(c, n);
        if (c->stop != NULL && c->st == WEFT_E_CANCELLED) {
            c->cancelled++;
            c->st = WEFT_OK;
        }
        if (c->st != WEFT_OK) break;
        c->rounds++;
    }
    return NULL;
}

START_TEST(a_cancel_from_elsewhere_stops_one_run_and_no_other)
{
    static float wanted[CALLS][N];
    static caller c[2];
    atomic_bool stop = false;
    pthread_barrier_t together;
    weft_plan *plan = sealed(_i, WEFT_PATH_AUTO);

    predict(plan, wanted);
    memset(c, 0, sizeof c);
    for (int i = 0; i < 2; i++) {
        must(make_run(plan, 2, &c[i].run, &golden_err));
        c[i].plan = plan;
        c[i].wanted = wanted;
    }
    c[0].stop = &stop;
    start(c, 2, &together, step_until_told);
    for (int n = 0; n < 200; n++) {
        struct timespec pause = { 0, 300000 };
        weft_run_cancel(c[0].run);
        nanosleep(&pause, NULL);
    }
    atomic_store(&stop, true);
    finish(c, 2, &together);
    ck_assert_int_gt(c[0].cancelled, 0);
    ck_assert_int_eq(c[1].cancelled, 0);
    (void)take_step(c[0].run, c[0].out, 0, NULL); /* takes a cancel that came after the last one */
    for (int32_t n = 0; n < CALLS; n++) {
        compare(&c[0], n);
        check(&c[0], 0);
    }
    for (int i = 0; i < 2; i++) weft_run_free(c[i].run);
    weft_plan_free(plan);
}
END_TEST

/* ---- sealing, and making runs, at the same time ---- */

static void *seal_and_run(void *user)
{
    caller *c = user;

    pthread_barrier_wait(c->start);
    c->st = weft_plan_seal(c->plan, CALLS, &c->err);
    if (c->st == WEFT_OK) c->st = make_run(c->plan, 2, &c->run, &c->err);
    for (int32_t n = 0; n < CALLS && c->st == WEFT_OK; n += 2) compare(c, n);
    weft_run_free(c->run);
    weft_plan_free(c->plan);
    return NULL;
}

/* Copies share bindings, patches and scores; here each is sealed by a thread of its own: first
 * together with the plan that they are copies of, then while a run of that plan is at work. */
START_TEST(copies_are_sealed_at_the_same_time)
{
    static float wanted[CALLS][N];
    static caller c[3], busy;
    pthread_barrier_t together, alone;
    int method = _i / 2;
    int32_t path = _i % 2 ? WEFT_PATH_MERGED : WEFT_PATH_SIDE;
    weft_plan *plan, *first = sealed(method, path);

    predict(first, wanted);
    weft_plan_free(first);
    must(make_plan(method, path, &plan, &golden_err));
    for (int round = 0; round < 2; round++) {
        memset(c, 0, sizeof c);
        memset(&busy, 0, sizeof busy);
        for (int i = 0; i < 3; i++) {
            must(weft_plan_copy(plan, &c[i].plan, &golden_err));
            c[i].wanted = wanted;
        }
        if (round == 0) {
            start(c, 3, &together, seal_and_run);
            must(weft_plan_seal(plan, CALLS, &golden_err)); /* the fourth, on this thread */
        } else {
            must(make_run(plan, 2, &busy.run, &golden_err));
            busy.wanted = wanted;
            start(&busy, 1, &alone, step_until_told);
            start(c, 3, &together, seal_and_run);
        }
        finish(c, 3, &together);
        if (round == 1) finish(&busy, 1, &alone);
        weft_run_free(busy.run);
    }
    weft_plan_free(plan);
}
END_TEST

static void *run_from_nothing(void *user)
{
    caller *c = user;
    float   text[TEXT];
    plain_encode e = PLAIN_ENCODE_INIT;

    pthread_barrier_wait(c->start);
    c->st = make_plan(MERGE, c->threads % 2 ? WEFT_PATH_MERGED : WEFT_PATH_SIDE, &c->plan, &c->err);
    if (c->st == WEFT_OK) c->st = weft_plan_seal(c->plan, CALLS, &c->err);
    if (c->st == WEFT_OK) c->st = make_run(c->plan, c->threads, &c->run, &c->err);
    e.prompt = "a red cat";
    e.text = text;
    e.text_len = TEXT;
    if (c->st == WEFT_OK) c->st = plain_run_encode(c->run, &e, &c->err);
    if (c->st == WEFT_OK) compare(c, 0);
    weft_run_free(c->run);
    weft_plan_free(c->plan);
    return NULL;
}

/* A model that nobody used yet makes what it derives from its weights for whoever comes first. */
START_TEST(a_fresh_model_is_used_by_all_at_once)
{
    static float side[CALLS][N], merged[CALLS][N];
    static caller c[4];
    pthread_barrier_t together;
    weft_plan *plan = sealed(MERGE, WEFT_PATH_SIDE);

    predict(plan, side);
    weft_plan_free(plan);
    plan = sealed(MERGE, WEFT_PATH_MERGED);
    predict(plan, merged);
    weft_plan_free(plan);
    teardown();
    setup();
    memset(c, 0, sizeof c);
    for (int i = 0; i < 4; i++) {
        c[i].threads = 1 + i;
        c[i].wanted = c[i].threads % 2 ? merged : side;
    }
    start(c, 4, &together, run_from_nothing);
    finish(c, 4, &together);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("threads of the caller's");
    TCase *t = tcase_create("all");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 600);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, many_runs_with_many_threads_agree, 0, METHODS);
    tcase_add_test(t, more_threads_than_a_process_may_have_are_refused);
    tcase_add_loop_test(t, a_cancel_from_elsewhere_stops_one_run_and_no_other, 0, METHODS);
    tcase_add_loop_test(t, copies_are_sealed_at_the_same_time, 0, 2 * METHODS);
    tcase_add_test(t, a_fresh_model_is_used_by_all_at_once);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
