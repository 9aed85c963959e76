/* What must hold whatever the numbers are: equal bits where equal bits are promised, and nothing done behind
 * the caller's back. All on the tiny SD1 model; references to other programs are in the tests beside this. */
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/tiers.h"
#include "golden.h"
#include "model/networks.h"
#include "plain.h"

enum { H = 12, W = 16, N = 4 * H * W, TEXT = 77 * 24 };

static weft_model *model;
static weft_adapter *content, *style, *third;
static float latent[2 * N], cond[TEXT], uncond[TEXT];

static void setup_with(const weft_model_options *o)
{
    weft_noise *noise;
    must(weft_model_open(data_path("models/tiny-sd1"), o, &model, &golden_err));
    must(weft_adapter_open(data_path("adapters/content.safetensors"), NULL, &content, &golden_err));
    must(weft_adapter_open(data_path("adapters/style.safetensors"), NULL, &style, &golden_err));
    must(weft_adapter_open(data_path("adapters/third"), NULL, &third, &golden_err));
    must(weft_noise_create(5, NULL, &noise, &golden_err));
    must(weft_noise_normal(noise, latent, 2 * N, &golden_err));
    must(weft_noise_normal(noise, cond, TEXT, &golden_err));
    must(weft_noise_normal(noise, uncond, TEXT, &golden_err));
    weft_noise_free(noise);
}

static void setup(void) { setup_with(NULL); }

static const wf_products *tier;

static void setup_tier(void)
{
    setup_with(NULL);
    ((wf_networks *)(void *)(size_t)wf_model_networks(model))->products = tier; /* as no caller can */
}

static void setup_bf16(void)
{
    weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
    o.flags = WEFT_OPEN_EMULATE;
    o.arithmetic = WEFT_ARITHMETIC_BF16;
    setup_with(&o);
}

static void teardown(void)
{
    weft_model_free(model);
    weft_adapter_free(content);
    weft_adapter_free(style);
    weft_adapter_free(third);
}

/* Up to METHODS those that mean the same with any number of adapters and no mask. */
enum { MERGE, SWITCH, COMPOSITE, KLORA, METHODS, ZIP = METHODS, BLORA, BLEND, LORATORIO, SUBBANDS, EVERY };

static void use(weft_plan *plan, int method)
{
    if (method == SWITCH) must(weft_plan_switch(plan, NULL, &golden_err));
    if (method == COMPOSITE) must(weft_plan_composite(plan, NULL, &golden_err));
    if (method == KLORA) must(weft_plan_klora(plan, NULL, &golden_err));
    if (method == ZIP) must(weft_plan_zip(plan, NULL, &golden_err));
    if (method == BLORA) must(weft_plan_blora(plan, NULL, &golden_err));
    if (method == LORATORIO) must(weft_plan_loratorio(plan, NULL, &golden_err));
    if (method == SUBBANDS) must(weft_plan_subbands(plan, NULL, &golden_err));
    if (method != BLEND) return;
    static const float ramp[4] = { 0, 0.25f, 0.5f, 1 };
    weft_mask m = WEFT_MASK_INIT;
    m.height = 1, m.width = 4, m.values = ramp, m.len = 4;
    must(weft_plan_set_mask(plan, 0, &m, &golden_err));
    must(weft_plan_blend(plan, NULL, &golden_err));
}

static weft_plan *plan_of(int method, int32_t path, float w, weft_adapter *a, weft_adapter *b, weft_adapter *c)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan *plan;
    o.path = path;
    must(weft_plan_create(model, &o, &plan, &golden_err));
    if (a != NULL) must(weft_plan_add(plan, a, w, NULL, &golden_err));
    if (b != NULL) must(weft_plan_add(plan, b, w, NULL, &golden_err));
    if (c != NULL) must(weft_plan_add(plan, c, w, NULL, &golden_err));
    use(plan, method);
    must(weft_plan_seal(plan, 20, &golden_err));
    return plan;
}

static weft_run *run_of(weft_plan *plan, int32_t threads, int32_t batch)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_run *run;
    o.threads = threads;
    o.batch = batch;
    o.height = H;
    o.width = W;
    must(weft_run_create(plan, &o, &run, &golden_err));
    return run;
}

static plain_step step_of(float *out, int32_t call)
{
    plain_step s = PLAIN_STEP_INIT;
    s.latent = latent;
    s.latent_len = s.out_len = N;
    s.out = out;
    s.text = cond;
    s.negative = uncond;
    s.text_len = s.negative_len = TEXT;
    s.timestep = 801.0f - 40.0f * (float)call;
    s.guidance = 5;
    s.call = call;
    return s;
}

static void take_step(weft_run *run, float *out, int32_t call, uint32_t flags)
{
    plain_step s = step_of(out, call);
    s.flags = flags;
    must(plain_run_step(run, &s, &golden_err));
}

/* A plan's prediction at one call, with everything made and let go for it alone. */
static void predict(weft_plan *plan, float *out, int32_t call, int32_t threads, uint32_t flags)
{
    weft_run *run = run_of(plan, threads, 1);
    take_step(run, out, call, flags);
    weft_run_free(run);
}

static void same_bits(const char *what, const float *a, const float *b, size_t n)
{
    ck_assert_msg(memcmp(a, b, n * sizeof *a) == 0, "%s: bits differ (relative %g)", what, relative(a, b, n, NULL));
}

/* Only says that a case is not empty; what the difference is, other tests say. */
static void differ(const char *what, const float *a, const float *b, size_t n)
{
    ck_assert_msg(relative(a, b, n, NULL) > 1e-3, "%s: should differ, and does not", what);
}

START_TEST(weight_zero_is_the_base_bit_for_bit)
{
    float base[N], out[N];
    weft_plan *plan = plan_of(MERGE, 0, 0, NULL, NULL, NULL);
    predict(plan, base, 3, 2, 0);
    weft_plan_free(plan);
    for (int m = 0; m < EVERY; m++)
        for (int32_t path = 0; path <= WEFT_PATH_MERGED; path++) {
            plan = plan_of(m, path, 0.0f, content, style, NULL);
            predict(plan, out, 3, 2, 0);
            same_bits("weight 0", out, base, N);
            weft_plan_free(plan);
            plan = plan_of(m, path, 1.0f, content, style, NULL);
            predict(plan, out, 3, 2, 0);
            differ("weight 1", out, base, N);
            weft_plan_free(plan);
        }
}
END_TEST

START_TEST(threads_do_not_change_a_bit)
{
    static const int32_t threads[] = { 2, 3, 5, 8 };
    float one[N], out[N];
    for (int m = 0; m < EVERY; m++) {
        weft_plan *plan = plan_of(m, 0, 0.8f, content, style, NULL);
        predict(plan, one, 7, 1, 0);
        for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) {
            predict(plan, out, 7, threads[i], 0);
            same_bits("threads", out, one, N);
        }
        weft_plan_free(plan);
    }
}
END_TEST

START_TEST(split_guidance_is_batched_guidance)
{
    float batched[N], split[N];
    for (int m = 0; m < EVERY; m++) {
        weft_plan *plan = plan_of(m, 0, 0.8f, content, style, NULL);
        for (int32_t call = 0; call < 20; call += 6) {
            predict(plan, batched, call, 2, 0);
            predict(plan, split, call, 2, WEFT_STEP_SPLIT_GUIDANCE);
            same_bits("split", split, batched, N);
        }
        weft_plan_free(plan);
    }
}
END_TEST

START_TEST(a_batch_is_its_samples)
{
    float two[2 * N], one[N];
    for (int m = 0; m < EVERY; m++) {
        weft_plan *plan = plan_of(m, 0, 0.8f, content, style, NULL);
        weft_run *run = run_of(plan, 2, 2);
        plain_step s = step_of(two, 4);
        s.latent_len = s.out_len = 2 * N;
        s.guidance_rescale = m % 2 == 0 ? 0.7f : 0; /* by the spread of each sample */
        must(plain_run_step(run, &s, &golden_err));
        weft_run_free(run);
        run = run_of(plan, 2, 1);
        for (int i = 0; i < 2; i++) {
            s = step_of(one, 4);
            s.latent = latent + i * N;
            s.guidance_rescale = m % 2 == 0 ? 0.7f : 0;
            must(plain_run_step(run, &s, &golden_err));
            same_bits("batch", one, two + i * N, N);
        }
        weft_run_free(run);
        weft_plan_free(plan);
    }
}
END_TEST

START_TEST(interleaved_runs_do_not_see_each_other)
{
    float alone[6][N], out[N];
    for (int m = 0; m < EVERY; m++) {
        weft_plan *plan = plan_of(m, 0, 0.8f, content, style, NULL);
        weft_run *a = run_of(plan, 2, 1), *b = run_of(plan, 1, 1);
        for (int32_t n = 0; n < 6; n++) take_step(a, alone[n], 3 * n, 0);
        for (int32_t n = 0; n < 6; n++) { /* forwards in a, backwards in b, call by call */
            take_step(a, out, 3 * n, 0);
            same_bits("run a", out, alone[n], N);
            take_step(b, out, 3 * (5 - n), 0);
            same_bits("run b", out, alone[5 - n], N);
        }
        weft_run_free(a);
        weft_run_free(b);
        weft_plan_free(plan);
    }
}
END_TEST

START_TEST(composite_does_not_depend_on_the_order)
{
    weft_adapter *order[][3] = { { content, style, third }, { third, content, style }, { style, third, content },
                                 { third, style, content } };
    float first[N], out[N];
    for (size_t i = 0; i < 4; i++) {
        weft_plan *plan = plan_of(COMPOSITE, 0, 0.8f, order[i][0], order[i][1], order[i][2]);
        predict(plan, i == 0 ? first : out, 2, 2, 0);
        if (i > 0) same_bits("order", out, first, N);
        weft_plan_free(plan);
    }
}
END_TEST

/* One adapter is one adapter, whatever the method: by the side path to the bit. K-LoRA gets it in both roles, so this
 * says nothing about what it chooses: plan/test_klora.c and run/test_compose.c do. */
START_TEST(one_adapter_is_the_same_under_every_method)
{
    float plain[N], out[N];
    weft_plan *plan = plan_of(MERGE, WEFT_PATH_SIDE, 0.8f, content, NULL, NULL);
    predict(plan, plain, 4, 2, 0);
    weft_plan_free(plan);
    for (int m = 0; m < METHODS; m++) {
        weft_adapter *again = m == KLORA ? content : NULL; /* both roles */
        plan = plan_of(m, WEFT_PATH_SIDE, 0.8f, content, again, NULL);
        predict(plan, out, 4, 2, 0);
        same_bits("side path", out, plain, N);
        weft_plan_free(plan);
        plan = plan_of(m, WEFT_PATH_MERGED, 0.8f, content, again, NULL);
        predict(plan, out, 4, 2, 0);
        ck_assert_double_le(relative(out, plain, N, NULL), 1e-5);
        weft_plan_free(plan);
    }
    plan = plan_of(COMPOSITE, WEFT_PATH_SIDE, 0.8f, content, content, content);
    predict(plan, out, 4, 2, 0);
    ck_assert_double_le(relative(out, plain, N, NULL), 1e-6); /* (x + x + x) / 3 rounds */
    weft_plan_free(plan);
}
END_TEST

/* Under methods that weigh predictions one adapter is all there is to weigh; LoRAtorio's base has a part of the
 * unconditional half unless that is 0. A full mask is blend's whole image. */
START_TEST(one_prediction_is_the_same_however_it_is_weighed)
{
    float plain[N], out[N];
    const float full[2] = { 1, 1 };
    weft_plan *plan = plan_of(MERGE, WEFT_PATH_SIDE, 0.8f, content, NULL, NULL);
    predict(plan, plain, 4, 2, 0);
    weft_plan_free(plan);
    for (int m = BLEND; m < EVERY; m++) {
        weft_loratorio_options o = WEFT_LORATORIO_OPTIONS_INIT;
        weft_mask mask = WEFT_MASK_INIT;
        mask.height = 1, mask.width = 2, mask.values = full, mask.len = 2;
        o.flags = WEFT_LORATORIO_BASE;
        must(weft_plan_create(model, NULL, &plan, &golden_err));
        must(weft_plan_add(plan, content, 0.8f, NULL, &golden_err));
        use(plan, m);
        if (m == BLEND) must(weft_plan_set_mask(plan, 0, &mask, &golden_err));
        if (m == LORATORIO) must(weft_plan_loratorio(plan, &o, &golden_err));
        must(weft_plan_seal(plan, 20, &golden_err));
        predict(plan, out, 4, 2, 0);
        same_bits("weighed", out, plain, N);
        weft_plan_free(plan);
    }
}
END_TEST

/* Base weights are never written: after any plan, the base is what it was. */
START_TEST(detaching_leaves_the_base)
{
    float before[N], between[N], after[N];
    weft_plan *base = plan_of(MERGE, 0, 0, NULL, NULL, NULL), *plan = plan_of(MERGE, WEFT_PATH_MERGED, 1, content, style, NULL);
    weft_run *run = run_of(base, 2, 1);
    take_step(run, before, 0, 0);
    must(weft_run_set_plan(run, plan, &golden_err));
    take_step(run, between, 0, 0);
    differ("with adapters", between, before, N);
    must(weft_run_set_plan(run, base, &golden_err));
    take_step(run, after, 0, 0);
    same_bits("detached", after, before, N);
    weft_plan_free(base);
    weft_plan_free(plan);
    weft_run_free(run);
}
END_TEST

/* A slider: copy, change a weight, seal, go on. The same bits as a plan made so from the start. */
START_TEST(a_copy_with_another_weight_is_that_plan)
{
    for (int m = 0; m < EVERY; m++) {
        float before[N], changed[N], wanted[N];
        weft_plan *plan = plan_of(m, 0, 0.8f, content, style, NULL), *copy, *made = plan_of(m, 0, 0.3f, content, style, NULL);
        weft_run *run = run_of(plan, 2, 1);
        take_step(run, before, 3, 0);
        ck_assert_int_eq(weft_plan_set_weight(plan, 0, 0.3f, NULL, &golden_err), WEFT_E_STATE);
        must(weft_plan_copy(plan, &copy, &golden_err));
        ck_assert_int_eq(weft_plan_set_weight(copy, 2, 1, NULL, &golden_err), WEFT_E_ARG);
        ck_assert_int_eq(weft_plan_set_weight(copy, 0, NAN, text_weight(1), &golden_err), WEFT_E_ARG);
        must(weft_plan_set_weight(copy, 0, 0.3f, NULL, &golden_err));
        must(weft_plan_set_weight(copy, 1, 0.3f, NULL, &golden_err));
        must(weft_plan_seal(copy, 20, &golden_err));
        must(weft_run_set_plan(run, copy, &golden_err));
        take_step(run, changed, 3, 0);
        predict(made, wanted, 3, 2, 0);
        same_bits("changed copy", changed, wanted, N);
        differ("changed copy", changed, before, N);
        weft_run_free(run);
        weft_plan_free(plan);
        weft_plan_free(copy);
        weft_plan_free(made);
    }
}
END_TEST

START_TEST(handles_go_in_any_order)
{
    for (int order = 0; order < 24; order++) {
        weft_model *m;
        weft_adapter *a;
        weft_plan *p;
        float out[N];
        must(weft_model_open(data_path("models/tiny-sd1"), NULL, &m, &golden_err));
        must(weft_adapter_open(data_path("adapters/content.safetensors"), NULL, &a, &golden_err));
        must(weft_plan_create(m, NULL, &p, &golden_err));
        must(weft_plan_add(p, a, 1, NULL, &golden_err));
        must(weft_plan_seal(p, 1, &golden_err));
        weft_run *r = run_of(p, 1, 1);
        int left[4] = { 0, 1, 2, 3 }, count = 4, code = order;
        for (int i = 4; i > 0; i--) {
            int k = code % i, which = left[k];
            code /= i;
            for (int j = k; j + 1 < count; j++) left[j] = left[j + 1];
            count--;
            if (which == 0) weft_model_free(m);
            if (which == 1) weft_adapter_free(a);
            if (which == 2) weft_plan_free(p);
            if (which == 3) weft_run_free(r), r = NULL;
            if (r != NULL) take_step(r, out, 0, 0);
        }
    }
}
END_TEST

/* The prediction of one adapter alone, without guidance. */
static void predict_alone(weft_adapter *a, const float *text, const float *x, float *out, int32_t call)
{
    weft_plan *plan = plan_of(MERGE, WEFT_PATH_SIDE, 1, a, NULL, NULL);
    weft_run *run = run_of(plan, 2, 1);
    plain_step s = step_of(out, call);
    s.latent = x;
    s.text = text;
    s.negative = NULL;
    must(plain_run_step(run, &s, &golden_err));
    weft_run_free(run);
    weft_plan_free(plan);
}

/* Two branches and two latents, each with texts of its own in both halves of guidance: composite is the mean of what each
 * adapter predicts alone with its text for that latent. */
START_TEST(conditioning_for_each_branch_and_latent)
{
    enum { BRANCHES = 2, BATCH = 2, BLOCKS = BRANCHES * BATCH };
    float *text[2], x[BATCH * N], out[BATCH * N], split[BATCH * N], one[2][N], want[N];
    weft_adapter *const adapter[BRANCHES] = { content, style };
    weft_noise *noise;
    must(weft_noise_create(11, NULL, &noise, &golden_err));
    must(weft_noise_normal(noise, x, BATCH * N, &golden_err));
    for (int h = 0; h < 2; h++) {
        text[h] = malloc(BLOCKS * TEXT * sizeof *text[h]);
        must(weft_noise_normal(noise, text[h], BLOCKS * TEXT, &golden_err));
    }
    weft_noise_free(noise);
    weft_plan *plan = plan_of(COMPOSITE, 0, 1, content, style, NULL);
    weft_run *run = run_of(plan, 2, BATCH);
    plain_step s = step_of(out, 0);
    s.flags = WEFT_STEP_TEXT_PER_BRANCH;
    s.latent = x;
    s.latent_len = s.out_len = BATCH * N;
    s.negative = text[0];
    s.text = text[1];
    s.text_len = s.negative_len = BLOCKS * TEXT;
    must(plain_run_step(run, &s, &golden_err));
    s.flags |= WEFT_STEP_SPLIT_GUIDANCE;
    s.out = split;
    must(plain_run_step(run, &s, &golden_err));
    same_bits("split", split, out, BATCH * N);
    for (int i = 0; i < BATCH; i++) {
        float half[2][N];
        for (int h = 0; h < 2; h++) {
            for (int b = 0; b < BRANCHES; b++)
                predict_alone(adapter[b], text[h] + (b * BATCH + i) * TEXT, x + i * N, one[b], 0);
            for (int k = 0; k < N; k++) half[h][k] = (one[0][k] + one[1][k]) / 2;
        }
        for (int k = 0; k < N; k++) want[k] = half[0][k] + 5 * (half[1][k] - half[0][k]);
        near_golden("composite of both", out + i * N, want, N, 1e-6);
    }
    s.text_len = BRANCHES * TEXT; /* one for each branch, for both latents */
    must(plain_run_step(run, &s, &golden_err));
    s.text_len = TEXT;
    ck_assert_int_eq(plain_run_step(run, &s, &golden_err), WEFT_E_ARG);
    weft_run_free(run);
    weft_plan_free(plan);
    free(text[0]), free(text[1]);
}
END_TEST

/* What the methods do with two adapters, from what each predicts alone: switch takes one of them, composite their mean. */
START_TEST(methods_are_made_of_adapters_alone)
{
    float alone[2][N], out[N], mean[N];
    weft_plan *turns = plan_of(SWITCH, WEFT_PATH_SIDE, 1, content, style, NULL);
    weft_plan *both = plan_of(COMPOSITE, WEFT_PATH_SIDE, 1, content, style, NULL);
    weft_run *run = run_of(turns, 2, 1);
    int seen[2] = { 0, 0 };
    for (int32_t call = 0; call < 20; call += 3) {
        plain_step s = step_of(out, call);
        s.negative = NULL;
        predict_alone(content, cond, latent, alone[0], call);
        predict_alone(style, cond, latent, alone[1], call);
        must(weft_run_set_plan(run, turns, &golden_err));
        must(plain_run_step(run, &s, &golden_err));
        int turn = call / 5 % 2; /* of 5 calls by default */
        same_bits("switch", out, alone[turn], N);
        seen[turn]++;
        must(weft_run_set_plan(run, both, &golden_err));
        must(plain_run_step(run, &s, &golden_err));
        for (int k = 0; k < N; k++) mean[k] = (alone[0][k] + alone[1][k]) / 2;
        near_golden("composite", out, mean, N, 1e-6);
    }
    ck_assert(seen[0] > 0 && seen[1] > 0);
    weft_run_free(run);
    weft_plan_free(turns);
    weft_plan_free(both);
}
END_TEST

/* A layer that one adapter has alone is that adapter's, also under a curve that never favours it. */
START_TEST(klora_leaves_no_layer_to_an_absent_adapter)
{
    weft_adapter *whole, *part;
    weft_klora_options o = WEFT_KLORA_OPTIONS_INIT;
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    weft_plan *plan;
    int alone = 0;
    must(weft_adapter_open(data_path("adapters/sd1_kohya_conv.safetensors"), NULL, &whole, &golden_err));
    must(weft_adapter_open(data_path("adapters/sd1_partial.safetensors"), NULL, &part, &golden_err));
    must(weft_plan_create(model, NULL, &plan, &golden_err));
    must(weft_plan_add(plan, part, 1, NULL, &golden_err)); /* content, in one block */
    must(weft_plan_add(plan, whole, 1, NULL, &golden_err));
    o.pattern = WEFT_KLORA_CUSTOM;
    o.beta = -1; /* S below every rho: content, wherever there is any */
    must(weft_plan_klora(plan, &o, &golden_err));
    must(weft_plan_seal(plan, 4, &golden_err));
    must(weft_model_info_get(model, &info, &golden_err));
    for (int64_t layer = 0; layer < info.layers; layer++) {
        weft_klora_score k = WEFT_KLORA_SCORE_INIT;
        weft_cell content_cell = WEFT_CELL_INIT, style_cell = WEFT_CELL_INIT;
        must(weft_plan_klora_score(plan, 0, layer, &k, &golden_err));
        must(weft_plan_cell(plan, 1, 0, layer, 0, &content_cell, &golden_err));
        must(weft_plan_cell(plan, 1, 0, layer, 1, &style_cell, &golden_err));
        if (k.position == 0) continue;
        ck_assert(content_cell.number == (k.content > 0 ? 1.0f : 0.0f));
        ck_assert(style_cell.number == (k.content > 0 ? 0.0f : 1.0f));
        alone += k.content == 0;
    }
    ck_assert_int_gt(alone, 10);
    weft_plan_free(plan);
    weft_adapter_free(whole);
    weft_adapter_free(part);
}
END_TEST

/* ---- stopping ---- */

typedef struct told { weft_run *run; int64_t stop_at, calls, last; bool cancel; } told;

static int32_t on_progress(void *user, const char *what, int64_t done, int64_t total)
{
    told *t = user;
    ck_assert_ptr_nonnull(what);
    ck_assert_int_le(done, total);
    ck_assert_int_gt(done, 0);
    t->calls++;
    t->last = done;
    if (t->stop_at > 0 && done >= t->stop_at) {
        if (!t->cancel) return 1;
        weft_run_cancel(t->run);
    }
    return 0;
}

START_TEST(a_step_stops_inside_and_goes_on_after)
{
    told t = { 0 };
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    float before[N], out[N];
    weft_plan *plan = plan_of(MERGE, 0, 1, content, NULL, NULL);
    o.height = H;
    o.width = W;
    o.threads = 2;
    o.progress = on_progress;
    o.progress_user = &t;
    must(weft_run_create(plan, &o, &t.run, &golden_err));
    take_step(t.run, before, 0, 0);
    ck_assert_int_gt(t.calls, 100);
    int64_t whole = t.calls;
    for (int way = 0; way < 2; way++) {
        plain_step s = step_of(out, 0);
        t.calls = 0;
        t.stop_at = 20;
        t.cancel = way == 1;
        ck_assert_int_eq(plain_run_step(t.run, &s, &golden_err), WEFT_E_CANCELLED);
        ck_assert_int_le(t.calls, 21);
        t.stop_at = 0;
        take_step(t.run, out, 0, 0); /* sticky once, not twice */
        same_bits("after a stop", out, before, N);
    }
    weft_run_cancel(t.run); /* between steps: the next one answers, once */
    plain_step s = step_of(out, 0);
    t.calls = 0;
    ck_assert_int_eq(plain_run_step(t.run, &s, &golden_err), WEFT_E_CANCELLED);
    ck_assert_int_eq(t.calls, 0);
    must(plain_run_step(t.run, &s, &golden_err));
    ck_assert_int_eq(t.calls, whole);
    weft_run_free(t.run);
    weft_plan_free(plan);
}
END_TEST

START_TEST(a_child_may_only_free)
{
    float out[N];
    weft_plan *plan = plan_of(MERGE, 0, 1, content, NULL, NULL);
    weft_run *run = run_of(plan, 2, 1);
    take_step(run, out, 0, 0);
    pid_t pid = fork();
    if (pid == 0) {
        plain_step s = step_of(out, 0);
        weft_status st = plain_run_step(run, &s, NULL);
        weft_run_free(run);
        _exit(st == WEFT_E_STATE ? 0 : 1);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    take_step(run, out, 0, 0);
    weft_run_free(run);
    weft_plan_free(plan);
}
END_TEST

/* ---- refusals ---- */

START_TEST(wrong_calls_are_told_what_was_wanted)
{
    float out[N];
    weft_plan *plan = plan_of(MERGE, 0, 1, content, NULL, NULL), *open;
    weft_run *run = run_of(plan, 1, 1), *none = (weft_run *)&out;
    struct { size_t field; const char *wanted; } cases[] = {
        { 0, "wanted 768" }, { 1, "wanted 768" }, { 2, "wanted 1848" }, { 3, "wanted 1848" }, { 4, "sealed for 20" },
        { 5, "not finite" }, { 6, "text_tokens" }, { 7, "latent is NULL" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        plain_step s = step_of(out, 0);
        if (cases[i].field == 0) s.latent_len--;
        if (cases[i].field == 1) s.out_len++;
        if (cases[i].field == 2) s.text_len = 5;
        if (cases[i].field == 3) s.negative_len = 5;
        if (cases[i].field == 4) s.call = 20;
        if (cases[i].field == 5) s.timestep = NAN;
        if (cases[i].field == 6) s.tokens = 1000;
        if (cases[i].field == 7) s.latent = NULL;
        ck_assert_int_eq(plain_run_step(run, &s, &golden_err), WEFT_E_ARG);
        ck_assert_msg(strstr(golden_err.text, cases[i].wanted) != NULL, "case %zu says: %s", i, golden_err.text);
        ck_assert_ptr_null(strchr(golden_err.text, '\n'));
    }
    must(weft_plan_create(model, NULL, &open, &golden_err));
    ck_assert_int_eq(weft_run_create(open, NULL, &none, &golden_err), WEFT_E_STATE);
    ck_assert_ptr_null(none);
    ck_assert_int_eq(weft_run_create(NULL, NULL, &none, &golden_err), WEFT_E_ARG);
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    o.width = -1;
    ck_assert_int_eq(weft_run_create(plan, &o, &none, &golden_err), WEFT_E_ARG);
    o.width = o.height = 8192;
    o.batch = 1024;
    ck_assert_int_eq(weft_run_create(plan, &o, &none, &golden_err), WEFT_E_ARG);
    weft_plan_free(open);
    weft_run_free(run);
    weft_plan_free(plan);
}
END_TEST

START_TEST(prompts_longer_than_a_chunk)
{
    char prompt[4000] = "";
    int32_t tokens, chunks;
    for (int i = 0; i < 100; i++) strcat(prompt, "cat ");
    must(weft_model_prompt_size(model, prompt, &tokens, &chunks, &golden_err));
    ck_assert_int_ge(tokens, 100);
    ck_assert_int_ge(chunks, 2);
    weft_plan *plan = plan_of(MERGE, 0, 1, content, NULL, NULL);
    weft_run *run = run_of(plan, 1, 1);
    float *text = malloc((size_t)chunks * sizeof cond), one[TEXT];
    plain_encode e = PLAIN_ENCODE_INIT;
    e.prompt = prompt;
    e.text = one;
    e.text_len = TEXT;
    ck_assert_int_eq(plain_run_encode(run, &e, &golden_err), WEFT_E_ARG); /* no silent cut */
    ck_assert_ptr_nonnull(strstr(golden_err.text, "chunks"));
    e.flags = WEFT_ENCODE_TRUNCATE; /* a cut that was asked for is counted */
    must(plain_run_encode(run, &e, &golden_err));
    ck_assert_int_eq(e.dropped, tokens - 75);
    ck_assert_int_eq(e.tokens, tokens);
    e.flags = 0;
    e.chunks = chunks;
    e.text = text;
    e.text_len = (size_t)chunks * TEXT;
    must(plain_run_encode(run, &e, &golden_err));
    ck_assert_int_eq(e.dropped, 0);
    same_bits("the first chunk", text, one, TEXT);
    float out[N], *negative = malloc((size_t)chunks * sizeof cond);
    e.prompt = "";
    e.text = negative;
    must(plain_run_encode(run, &e, &golden_err));
    same_bits("empty chunks", negative, negative + TEXT, TEXT);
    plain_step s = step_of(out, 0);
    s.tokens = 77 * chunks;
    s.text = text;
    s.negative = negative;
    s.text_len = s.negative_len = (size_t)chunks * TEXT;
    must(plain_run_step(run, &s, &golden_err));
    free(text), free(negative);
    weft_run_free(run);
    weft_plan_free(plan);
}
END_TEST

/* Whose bits are promised is promised of every arithmetic. */
static TCase *bits(const char *name, void (*begin)(void))
{
    TCase *c = tcase_create(name);
    tcase_add_checked_fixture(c, begin, teardown);
    tcase_set_timeout(c, 300);
    tcase_add_test(c, weight_zero_is_the_base_bit_for_bit);
    tcase_add_test(c, threads_do_not_change_a_bit);
    tcase_add_test(c, split_guidance_is_batched_guidance);
    tcase_add_test(c, a_batch_is_its_samples);
    tcase_add_test(c, interleaved_runs_do_not_see_each_other);
    tcase_add_test(c, composite_does_not_depend_on_the_order);
    tcase_add_test(c, detaching_leaves_the_base);
    tcase_add_test(c, a_copy_with_another_weight_is_that_plan);
    tcase_add_test(c, conditioning_for_each_branch_and_latent);
    return c;
}

int main(void)
{
    Suite *s = suite_create("run");
    TCase *c = bits("invariants", setup);
    tcase_add_test(c, one_adapter_is_the_same_under_every_method);
    tcase_add_test(c, one_prediction_is_the_same_however_it_is_weighed);
    tcase_add_test(c, handles_go_in_any_order);
    tcase_add_test(c, methods_are_made_of_adapters_alone);
    tcase_add_test(c, klora_leaves_no_layer_to_an_absent_adapter);
    tcase_add_test(c, a_step_stops_inside_and_goes_on_after);
    tcase_add_test(c, a_child_may_only_free);
    tcase_add_test(c, wrong_calls_are_told_what_was_wanted);
    tcase_add_test(c, prompts_longer_than_a_chunk);
    suite_add_tcase(s, c);
    suite_add_tcase(s, bits("bfloat16", setup_bf16));
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    const wf_products *tiers[TEST_TIERS_MAX];
    int count = test_tiers(tiers, false);
    for (int i = 0; i < count; i++) {
        tier = tiers[i];
        if (tier == wf_products_pick(wf_cpu_detect())) continue; /* it was the first's */
        s = suite_create("run");
        suite_add_tcase(s, bits(tier->name, setup_tier));
        r = srunner_create(s);
        srunner_run_all(r, CK_ENV);
        if (srunner_ntests_failed(r) > 0) printf("failed with the products of %s\n", tier->name);
        failed += srunner_ntests_failed(r);
        srunner_free(r);
    }
    return failed != 0;
}
