/* What a run says that acted, against the plan's table where the method is a table, against predictions of the branches
 * by themselves where the weights come out while it runs, and against the layers' names where features are reused. */
#include <math.h>
#include <stdbool.h>

#include "plain.h"
#include "run/run_internal.h"

enum { H = 6, W = 8, N = 4 * H * W, TEXT = 77 * 24, CALLS = 6 };

static weft_model *model;
static weft_adapter *content, *style, *third;
static float latent[2 * N], yes[TEXT], no[TEXT], other[TEXT];

static void setup(void)
{
    weft_noise *noise;
    must(weft_model_open(data_path("models/tiny-sd1"), NULL, &model, &golden_err));
    must(weft_adapter_open(data_path("adapters/content.safetensors"), NULL, &content, &golden_err));
    must(weft_adapter_open(data_path("adapters/style.safetensors"), NULL, &style, &golden_err));
    must(weft_adapter_open(data_path("adapters/sd1_kohya_conv.safetensors"), NULL, &third, &golden_err));
    must(weft_noise_create(11, NULL, &noise, &golden_err));
    must(weft_noise_normal(noise, latent, 2 * N, &golden_err));
    must(weft_noise_normal(noise, yes, TEXT, &golden_err));
    must(weft_noise_normal(noise, no, TEXT, &golden_err));
    must(weft_noise_normal(noise, other, TEXT, &golden_err));
    weft_noise_free(noise);
}

static void teardown(void)
{
    weft_model_free(model);
    weft_adapter_free(content);
    weft_adapter_free(style);
    weft_adapter_free(third);
}

static weft_plan *plan_on(int32_t path)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan *p;
    o.path = path;
    must(weft_plan_create(model, &o, &p, &golden_err));
    must(weft_plan_add(p, content, 0.8f, NULL, &golden_err));
    must(weft_plan_add(p, style, -0.6f, NULL, &golden_err));
    return p;
}

static weft_run_options shape(uint32_t flags)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    o.flags = flags;
    o.height = H;
    o.width = W;
    o.threads = 2;
    o.text_tokens = 77;
    return o;
}

static weft_run *run_of(weft_plan *p, uint32_t flags, int32_t batch)
{
    weft_run_options o = shape(flags);
    weft_run *run;
    o.batch = batch;
    must(weft_run_create(p, &o, &run, &golden_err));
    return run;
}

static weft_step step_of(float *out, int32_t call, int32_t batch, bool guided, const weft_text text[2])
{
    weft_step s = WEFT_STEP_INIT;
    s.latent = latent;
    s.latent_len = s.out_len = (size_t)batch * N;
    s.text = &text[0];
    s.text_count = 1;
    if (guided) s.negative = &text[1], s.negative_count = 1;
    s.guidance = 4;
    s.timestep = 900.0f - 100 * (float)call;
    s.call = call;
    s.out = out;
    return s;
}

static void take_call(weft_run *run, float *out, int32_t call, int32_t batch, bool guided, uint32_t flags)
{
    const weft_text text[2] = { plain_text(yes, TEXT, 77, 0), plain_text(no, TEXT, 77, 0) };
    weft_step s = step_of(out, call, batch, guided, text);
    s.flags = flags;
    must(weft_run_step(run, &s, &golden_err));
}

static weft_trace trace_of(const weft_run *run, int32_t call, int32_t evaluation)
{
    weft_trace t = WEFT_TRACE_INIT;
    must(weft_run_trace(run, call, evaluation, &t, &golden_err));
    return t;
}

static weft_trace_cell cell_of(const weft_run *run, int32_t call, int32_t evaluation, int64_t layer, int32_t adapter)
{
    weft_trace_cell c = WEFT_TRACE_CELL_INIT;
    must(weft_run_trace_cell(run, call, evaluation, layer, adapter, &c, &golden_err));
    return c;
}

static const wf_layer *layers_of(int64_t *count)
{
    size_t n;
    const wf_layer *l = wf_model_layers(model, &n);
    *count = (int64_t)n;
    return l;
}

/* ---- methods that are tables ---- */

typedef struct tabled { const char *name; void (*method)(weft_plan *p); int32_t path; uint32_t flags; } tabled;

static void by_merge(weft_plan *p) { must(weft_plan_merge(p, &golden_err)); }
static void by_klora(weft_plan *p) { must(weft_plan_klora(p, NULL, &golden_err)); }
static void by_composite(weft_plan *p) { must(weft_plan_composite(p, NULL, &golden_err)); }
static void by_switch(weft_plan *p)
{
    weft_switch_options o = WEFT_SWITCH_OPTIONS_INIT;
    o.period = 2;
    must(weft_plan_switch(p, &o, &golden_err));
}
static void by_zip(weft_plan *p) { must(weft_plan_zip(p, NULL, &golden_err)); }
/* A curve from zero, then K-LoRA, then a sum that is the same in every call. */
static void by_phases(weft_plan *p)
{
    weft_curve_point points[2] = { WEFT_CURVE_POINT_INIT, WEFT_CURVE_POINT_INIT };
    weft_phase_options phase = WEFT_PHASE_OPTIONS_INIT;
    points[0].shape = WEFT_CURVE_LINEAR;
    points[1].at = 3;
    points[1].value = 1;
    must(weft_plan_set_curve(p, 1, 0, points, 2, &golden_err));
    phase.first = 2;
    must(weft_plan_begin_phase(p, &phase, &golden_err));
    by_klora(p);
    phase.first = 4;
    must(weft_plan_begin_phase(p, &phase, &golden_err));
}

static const tabled tables[] = {
    { "merge", by_merge, WEFT_PATH_SIDE, 0 },       { "merge", by_merge, WEFT_PATH_MERGED, 0 },
    { "merge", by_merge, WEFT_PATH_AUTO, 0 },       { "switch", by_switch, WEFT_PATH_AUTO, 0 },
    { "klora", by_klora, WEFT_PATH_AUTO, 0 },       { "composite", by_composite, WEFT_PATH_AUTO, 0 },
    { "zip", by_zip, WEFT_PATH_AUTO, 0 },           { "phases", by_phases, WEFT_PATH_AUTO, 0 },
    { "phases", by_phases, WEFT_PATH_MERGED, 0 },   { "phases", by_phases, WEFT_PATH_AUTO, WEFT_STEP_SPLIT_GUIDANCE },
};

/* Every layer of the denoiser was computed, by the way that the plan says, under the plan's cells. */
static void hold_to_table(const weft_run *run, const weft_plan *p, int32_t call, int32_t branch, const char *name)
{
    int64_t count;
    const wf_layer *layers = layers_of(&count);
    weft_call_info info = WEFT_CALL_INFO_INIT;
    weft_trace t = trace_of(run, call, branch);
    int32_t computed = 0, side = 0, merged = 0;

    must(weft_plan_call(p, call, &info, &golden_err));
    ck_assert_int_eq(t.done, 1);
    ck_assert_int_eq(t.base, 0);
    ck_assert_int_eq(t.reused, 0);
    ck_assert_int_eq(t.evaluations, info.evaluations);
    ck_assert_float_eq(t.timestep, 900.0f - 100 * (float)call);
    for (int64_t l = 0; l < count; l++) {
        weft_layer_use use = WEFT_LAYER_USE_INIT;
        int32_t way = WEFT_TRACE_BASE;
        must(weft_plan_layer(p, info.phase, l, &use, &golden_err));
        if (layers[l].component != WEFT_COMPONENT_DENOISER) {
            ck_assert_int_eq(cell_of(run, call, branch, l, 0).way, WEFT_TRACE_SKIPPED);
            continue;
        }
        for (int32_t a = 0; a < 2; a++) {
            weft_cell want = WEFT_CELL_INIT;
            weft_trace_cell got = cell_of(run, call, branch, l, a);
            must(weft_plan_cell(p, call, branch, l, a, &want, &golden_err));
            ck_assert_msg(got.number == want.number, "%s, call %d, branch %d, %s, adapter %d: %g, wanted %g", name,
                          (int)call, (int)branch, layers[l].name, (int)a, (double)got.number, (double)want.number);
            ck_assert_int_eq(got.kind, want.number != 0 ? want.kind : 0);
            if (want.number != 0)
                way = use.path == WEFT_PATH_MERGED ? WEFT_TRACE_MERGED : WEFT_TRACE_SIDE;
        }
        ck_assert_msg(cell_of(run, call, branch, l, 0).way == way, "%s: %s went way %d, wanted %d", name, layers[l].name,
                      (int)cell_of(run, call, branch, l, 0).way, (int)way);
        computed++;
        side += way == WEFT_TRACE_SIDE;
        merged += way == WEFT_TRACE_MERGED;
    }
    ck_assert_int_eq(t.layers, computed);
    ck_assert_int_eq(t.side, side);
    ck_assert_int_eq(t.merged, merged);
    ck_assert_int_eq(t.kept, 0);
}

START_TEST(a_trace_is_the_table)
{
    const tabled *c = &tables[_i];
    weft_plan *p = plan_on(c->path);
    float out[2 * N], plain[2 * N];

    c->method(p);
    must(weft_plan_seal(p, CALLS, &golden_err));
    weft_run *run = run_of(p, WEFT_RUN_TRACE, 2), *silent = run_of(p, 0, 2);
    for (int32_t n = 0; n < CALLS; n++) {
        weft_call_info info = WEFT_CALL_INFO_INIT;
        ck_assert_int_eq(trace_of(run, n, 0).done, 0);
        ck_assert_int_eq(trace_of(run, n, 0).layers, 0);
        take_call(run, out, n, 2, n % 2 == 0, c->flags);
        take_call(silent, plain, n, 2, n % 2 == 0, c->flags);
        ck_assert_mem_eq(out, plain, sizeof out);
        must(weft_plan_call(p, n, &info, &golden_err));
        double sum = 0;
        for (int32_t b = 0; b < info.branches; b++) {
            float weight, divisor;
            hold_to_table(run, p, n, b, c->name);
            must(weft_plan_branch_weight(p, n, b, &weight, &divisor, &golden_err));
            ck_assert_double_eq_tol(trace_of(run, n, b).share, (double)weight / (double)divisor, 1e-7);
            ck_assert_double_eq_tol(trace_of(run, n, b).negative_share,
                                    n % 2 == 0 ? (double)weight / (double)divisor : 0, 1e-7);
            ck_assert_int_eq(trace_of(run, n, b).guided, n % 2 == 0);
            sum += trace_of(run, n, b).share;
        }
        ck_assert_double_eq_tol(sum, 1, 1e-12);
    }
    weft_run_free(run);
    weft_run_free(silent);
    weft_plan_free(p);
}
END_TEST

/* ---- weights that come out while it runs ---- */

/* The prediction of a plan with one adapter, or without any, at call 0, unguided under this text. */
static void predict(float *out, weft_adapter *a, float weight, const float *text)
{
    const weft_text t[2] = { plain_text(text, TEXT, 77, 0), plain_text(no, TEXT, 77, 0) };
    weft_plan *p;
    must(weft_plan_create(model, NULL, &p, &golden_err));
    if (a != NULL) must(weft_plan_add(p, a, weight, NULL, &golden_err));
    must(weft_plan_seal(p, 1, &golden_err));
    weft_run *run = run_of(p, 0, 2);
    weft_step s = step_of(out, 0, 2, false, t);
    must(weft_run_step(run, &s, &golden_err));
    weft_run_free(run);
    weft_plan_free(p);
}

/* What the adapters' weights are in patches of `side`, over both samples, by the paper's formula: the mean. */
static void mean_weights(double mean[2], const float *base, float *const preds[2], int side, double T)
{
    double patches = 0;

    mean[0] = mean[1] = 0;
    for (int n = 0; n < 2; n++)
        for (int top = 0; top < H; top += side)
            for (int left = 0; left < W; left += side) {
                double w[2], pixels = 0;
                for (int i = 0; i < 2; i++) {
                    double ab = 0, aa = 0, bb = 0;
                    pixels = 0;
                    for (int y = top; y < top + side && y < H; y++)
                        for (int x = left; x < left + side && x < W; x++, pixels++)
                            for (int c = 0; c < 4; c++) {
                                size_t at = (size_t)(((n * 4 + c) * H + y) * W + x);
                                ab += (double)preds[i][at] * (double)base[at];
                                aa += (double)preds[i][at] * (double)preds[i][at];
                                bb += (double)base[at] * (double)base[at];
                            }
                    w[i] = exp(-ab / sqrt(aa * bb) / T);
                }
                for (int i = 0; i < 2; i++) mean[i] += pixels * w[i] / (w[0] + w[1]);
                patches += pixels;
            }
    for (int i = 0; i < 2; i++) mean[i] /= patches;
}

START_TEST(loratorio_tells_its_weights)
{
    float out[2 * N], base[2 * N], one[2 * N], two[2 * N];
    float *const preds[2] = { one, two };
    weft_loratorio_options o = WEFT_LORATORIO_OPTIONS_INIT;
    weft_plan *p = plan_on(WEFT_PATH_AUTO);
    double want[2];

    o.patch = 4; /* the lowest patches are two rows high */
    o.flags = WEFT_LORATORIO_BASE;
    o.base = 0.25f;
    o.temperature = 0.02f;
    must(weft_plan_loratorio(p, &o, &golden_err));
    must(weft_plan_seal(p, 1, &golden_err));
    predict(base, NULL, 0, yes);
    predict(one, content, 0.8f, yes);
    predict(two, style, -0.6f, yes);
    mean_weights(want, base, preds, 4, 0.02);
    ck_assert_double_gt(fabs(want[0] - 0.5), 0.01); /* it says something */

    weft_run *run = run_of(p, WEFT_RUN_TRACE, 2);
    for (int guided = 0; guided < 2; guided++) {
        take_call(run, out, 0, 2, guided, guided ? WEFT_STEP_SPLIT_GUIDANCE : 0);
        for (int i = 0; i < 2; i++) {
            ck_assert_double_eq_tol(trace_of(run, 0, i).share, want[i], 1e-4);
            ck_assert_double_eq_tol(trace_of(run, 0, i).negative_share, guided ? 0.75 * want[i] : 0, 1e-4);
            ck_assert_int_eq(trace_of(run, 0, i).base, 0);
        }
        weft_trace t = trace_of(run, 0, 2);
        ck_assert_int_eq(t.base, 1);
        ck_assert_int_eq(t.evaluations, 3);
        ck_assert_int_eq(t.side + t.merged, 0);
        ck_assert_double_eq(t.share, 0);
        ck_assert_double_eq_tol(t.negative_share, guided ? 0.25 : 0, 1e-12);
    }
    weft_run_free(run);
    weft_plan_free(p);
}
END_TEST

/* Sub-bands whose weights are all equal: one band of one level more than the image has sides counts by its size. The
 * weights of a single level are taken from the Haar bands of the differences. */
START_TEST(subbands_tell_their_weights)
{
    float out[2 * N], base[2 * N], pred[2][2 * N];
    weft_subbands_options o = WEFT_SUBBANDS_OPTIONS_INIT;
    weft_plan *p = plan_on(WEFT_PATH_AUTO);
    double want[2] = { 0, 0 };

    o.levels = 1;
    must(weft_plan_subbands(p, &o, &golden_err));
    must(weft_plan_seal(p, 1, &golden_err));
    predict(base, NULL, 0, yes);
    predict(pred[0], content, 0.8f, yes);
    predict(pred[1], style, -0.6f, yes);
    for (int n = 0; n < 2; n++)
        for (int band = 0; band < 4; band++) { /* each of a quarter of the values */
            double size[2] = { 0, 0 };
            for (int i = 0; i < 2; i++) {
                for (int c = 0; c < 4; c++)
                    for (int y = 0; y < H; y += 2)
                        for (int x = 0; x < W; x += 2) {
                            size_t at = (size_t)(((n * 4 + c) * H + y) * W + x);
                            double d[4], s[4] = { 1, band & 1 ? -1 : 1, band & 2 ? -1 : 1, band == 1 || band == 2 ? -1 : 1 };
                            const size_t of[4] = { at, at + 1, at + W, at + W + 1 };
                            double sum = 0;
                            for (int k = 0; k < 4; k++) {
                                d[k] = (double)pred[i][of[k]] - (double)base[of[k]];
                                sum += s[k] * d[k];
                            }
                            size[i] += sum * sum / 4;
                        }
                size[i] = sqrt(size[i]);
            }
            for (int i = 0; i < 2; i++) want[i] += size[i] / (size[0] + size[1]) / 8;
        }
    ck_assert_double_gt(fabs(want[0] - 0.5), 0.01);
    weft_run *run = run_of(p, WEFT_RUN_TRACE, 2);
    take_call(run, out, 0, 2, true, 0);
    for (int i = 0; i < 2; i++) {
        ck_assert_double_eq_tol(trace_of(run, 0, i).share, want[i], 1e-4);
        ck_assert_double_eq_tol(trace_of(run, 0, i).negative_share, want[i], 1e-4);
    }
    ck_assert_double_eq(trace_of(run, 0, 2).share, 0);
    weft_run_free(run);
    weft_plan_free(p);
}
END_TEST

static weft_mask mask_of(const float *values, int32_t h, int32_t w)
{
    weft_mask m = WEFT_MASK_INIT;
    m.height = h;
    m.width = w;
    m.values = values;
    m.len = (size_t)h * (size_t)w;
    return m;
}

/* Masks of half and a quarter of the image that overlap in an eighth: there each has half. */
START_TEST(blend_tells_its_shares)
{
    const float left[8] = { 1, 1, 0, 0, 1, 1, 0, 0 }, some[8] = { 0, 1, 1, 0, 0, 0, 0, 0 };
    const double want[3] = { 1 - 5.0 / 8, 4.0 / 8 - 0.5 / 8, 2.0 / 8 - 0.5 / 8 };
    weft_mask a = mask_of(left, 2, 4), b = mask_of(some, 2, 4);
    weft_blend_options o = WEFT_BLEND_OPTIONS_INIT;
    weft_plan *p = plan_on(WEFT_PATH_AUTO);
    float out[N];

    must(weft_plan_set_mask(p, 0, &a, &golden_err));
    must(weft_plan_set_mask(p, 1, &b, &golden_err));
    o.start = 1;
    must(weft_plan_blend(p, &o, &golden_err));
    must(weft_plan_seal(p, 2, &golden_err));
    weft_run *run = run_of(p, WEFT_RUN_TRACE, 1);
    for (int32_t n = 0; n < 2; n++) take_call(run, out, n, 1, true, 0);
    ck_assert_int_eq(trace_of(run, 0, 0).evaluations, 1);
    ck_assert_double_eq(trace_of(run, 0, 0).share, 1);
    for (int32_t k = 0; k < 3; k++) {
        ck_assert_double_eq_tol(trace_of(run, 1, k).share, want[k], 1e-6);
        ck_assert_double_eq_tol(trace_of(run, 1, k).negative_share, want[k], 1e-6);
    }
    weft_run_free(run);
    weft_plan_free(p);
}
END_TEST

START_TEST(without_guidance_the_last_may_count_alone)
{
    weft_composite_options o = WEFT_COMPOSITE_OPTIONS_INIT;
    weft_plan *p = plan_on(WEFT_PATH_AUTO);
    float out[N];

    o.flags = WEFT_COMPOSITE_NOCFG_LAST;
    must(weft_plan_composite(p, &o, &golden_err));
    must(weft_plan_seal(p, 1, &golden_err));
    weft_run *run = run_of(p, WEFT_RUN_TRACE, 1);
    take_call(run, out, 0, 1, false, 0);
    ck_assert_double_eq(trace_of(run, 0, 0).share, 0);
    ck_assert_double_eq(trace_of(run, 0, 1).share, 1);
    take_call(run, out, 0, 1, true, 0); /* the last time that it was taken counts */
    ck_assert_double_eq(trace_of(run, 0, 0).share, 0.5);
    weft_run_free(run);
    weft_plan_free(p);
}
END_TEST

/* ---- layers that are not computed ---- */

static bool is_outermost(const char *name)
{
    const char *s = name + strlen("unet.");
    return (strncmp(s, "down_blocks.0.", 14) == 0 && strstr(s, "downsamplers") == NULL) ||
           strncmp(s, "up_blocks.2.", 12) == 0 || strncmp(s, "conv_", 5) == 0 || strncmp(s, "time_embedding", 14) == 0;
}

/* Of two branches at call n of 6: the other than floor(n / 3) reuses at calls 1, 4, 5. Call 4 is taken after call 2 and so
 * computed in full. While a call is measured, nothing is taken down. */
START_TEST(reused_features_leave_layers_out)
{
    static const int32_t order[] = { 0, 1, 2, 4, 5 };
    static const bool reuses[] = { false, true, false, false, true };
    weft_composite_options o = WEFT_COMPOSITE_OPTIONS_INIT;
    weft_plan *p = plan_on(WEFT_PATH_AUTO);
    int64_t count;
    const wf_layer *layers = layers_of(&count);
    float out[N];

    o.flags = WEFT_COMPOSITE_CACHED;
    must(weft_plan_composite(p, &o, &golden_err));
    must(weft_plan_seal(p, CALLS, &golden_err));
    weft_run *run = run_of(p, WEFT_RUN_TRACE | WEFT_RUN_MEASURE, 1);
    for (size_t i = 0; i < WF_LEN(order); i++) {
        int32_t n = order[i], other_one = n < 3 ? 1 : 0;
        take_call(run, out, n, 1, true, 0);
        for (int32_t b = 0; b < 2; b++) {
            bool reused = reuses[i] && b == other_one;
            ck_assert_int_eq(trace_of(run, n, b).reused, reused);
            ck_assert_double_eq(trace_of(run, n, b).share, 0.5);
            for (int64_t l = 0; l < count; l++) {
                weft_trace_cell own = cell_of(run, n, b, l, b);
                bool there = layers[l].component == WEFT_COMPONENT_DENOISER && (!reused || is_outermost(layers[l].name));
                ck_assert_msg((own.way != 0) == there, "call %d, branch %d: %s", (int)n, (int)b, layers[l].name);
                if (!there) ck_assert_float_eq(own.number, 0);
            }
        }
    }
    ck_assert_int_eq(trace_of(run, 3, 0).done, 0);
    weft_run_free(run);
    weft_plan_free(p);
}
END_TEST

/* The second call reads keys and values that the first one made. */
START_TEST(kept_keys_are_told)
{
    weft_plan *p = plan_on(WEFT_PATH_SIDE);
    int64_t count;
    const wf_layer *layers = layers_of(&count);
    float out[N];
    int kept = 0;

    must(weft_plan_seal(p, 2, &golden_err));
    weft_run *run = run_of(p, WEFT_RUN_TRACE, 1);
    for (int32_t n = 0; n < 2; n++) take_call(run, out, n, 1, true, 0);
    for (int64_t l = 0; l < count; l++) {
        bool key = strstr(layers[l].name, "attn2.to_k") != NULL || strstr(layers[l].name, "attn2.to_v") != NULL;
        weft_trace_cell first = cell_of(run, 0, 0, l, 0), second = cell_of(run, 1, 0, l, 0);
        ck_assert_int_eq(second.way, first.way | (key ? WEFT_TRACE_KEPT : 0));
        ck_assert_float_eq(second.number, first.number);
        kept += key;
    }
    ck_assert_int_gt(kept, 0);
    ck_assert_int_eq(trace_of(run, 1, 0).kept, kept);
    weft_run_free(run);
    weft_plan_free(p);
}
END_TEST

/* ---- masks and regions ---- */

/* A region's adapter acts on its own text's keys and values alone, but they
 * count as acted on; layers over text take the mask's number for text. */
START_TEST(masks_and_regions_are_told)
{
    const float left[2] = { 1, 0 }, right[2] = { 0, 1 };
    weft_mask a = mask_of(left, 1, 2), b = mask_of(right, 1, 2), plain = b;
    weft_region region = WEFT_REGION_INIT;
    weft_plan *p = plan_on(WEFT_PATH_AUTO);
    int64_t count;
    const wf_layer *layers = layers_of(&count);
    float out[N];

    a.flags = WEFT_MASK_TEXT;
    a.text = 0.5f;
    must(weft_plan_set_mask(p, 0, &a, &golden_err));
    must(weft_plan_set_mask(p, 1, &b, &golden_err));
    region.flags = WEFT_REGION_ADAPTER;
    must(weft_plan_add_region(p, &region, &golden_err));
    region.flags = 0; /* a text where the adapter does not act, read last */
    region.mask = &plain;
    must(weft_plan_add_region(p, &region, &golden_err));
    must(weft_plan_seal(p, 1, &golden_err));
    const weft_text text[2] = { plain_text(yes, TEXT, 77, 0), plain_text(no, TEXT, 77, 0) },
                    own[2] = { plain_text(other, TEXT, 77, 0), plain_text(yes, TEXT, 77, 0) };
    weft_run *run = run_of(p, WEFT_RUN_TRACE, 1);
    weft_step s = step_of(out, 0, 1, true, text);
    s.region_text = own;
    s.region_text_count = 2;
    must(weft_run_step(run, &s, &golden_err));
    int keys = 0, others = 0;
    for (int64_t l = 0; l < count; l++) {
        weft_cell cell = WEFT_CELL_INIT;
        weft_trace_cell got = cell_of(run, 0, 0, l, 0);
        must(weft_plan_cell(p, 0, 0, l, 0, &cell, &golden_err));
        if (layers[l].component != WEFT_COMPONENT_DENOISER || cell.number == 0) continue;
        bool key = strstr(layers[l].name, "attn2.to_k") != NULL || strstr(layers[l].name, "attn2.to_v") != NULL;
        ck_assert_float_eq_tol(got.number, key ? 0.4f : 0.8f, 1e-7f);
        ck_assert_int_eq(got.kind, WEFT_CELL_MASK);
        ck_assert_int_eq((got.way & WEFT_TRACE_SIDE) != 0, 1);
        keys += key;
        others += !key;
    }
    ck_assert_int_gt(keys, 0);
    ck_assert_int_gt(others, 0);
    weft_run_free(run);
    weft_plan_free(p);
}
END_TEST

/* ---- what a trace is ---- */

static int32_t stop_at_once(void *user, const char *what, int64_t done, int64_t total)
{
    (void)what, (void)total;
    return *(bool *)user && done > 3;
}

START_TEST(a_call_that_fails_leaves_nothing)
{
    const weft_text text[2] = { plain_text(yes, TEXT, 77, 0), plain_text(no, TEXT, 77, 0) };
    bool stopping = false;
    weft_run_options o = shape(WEFT_RUN_TRACE);
    weft_plan *p = plan_on(WEFT_PATH_AUTO), *copy;
    weft_run *run;
    float out[N];

    must(weft_plan_seal(p, 1, &golden_err));
    o.progress = stop_at_once;
    o.progress_user = &stopping;
    must(weft_run_create(p, &o, &run, &golden_err));
    take_call(run, out, 0, 1, true, 0);
    ck_assert_int_eq(trace_of(run, 0, 0).done, 1);
    stopping = true;
    weft_step s = step_of(out, 0, 1, true, text);
    ck_assert_int_eq(weft_run_step(run, &s, &golden_err), WEFT_E_CANCELLED);
    ck_assert_int_eq(trace_of(run, 0, 0).done, 0);
    ck_assert_int_eq(trace_of(run, 0, 0).layers, 0);
    ck_assert_double_eq(trace_of(run, 0, 0).share, 0);
    stopping = false;
    take_call(run, out, 0, 1, true, 0);
    must(weft_plan_copy(p, &copy, &golden_err));
    must(weft_plan_set_weight(copy, 0, 0.25f, NULL, &golden_err));
    must(weft_plan_seal(copy, 3, &golden_err));
    must(weft_run_set_plan(run, copy, &golden_err));
    for (int32_t n = 0; n < 3; n++) ck_assert_int_eq(trace_of(run, n, 0).done, 0);
    take_call(run, out, 2, 1, true, 0);
    hold_to_table(run, copy, 2, 0, "moved");
    weft_run_free(run);
    weft_plan_free(copy);
    weft_plan_free(p);
}
END_TEST

START_TEST(what_is_refused)
{
    weft_plan *p = plan_on(WEFT_PATH_AUTO), *none;
    weft_trace t = WEFT_TRACE_INIT;
    weft_trace_cell c = WEFT_TRACE_CELL_INIT;
    size_t needed;

    must(weft_plan_seal(p, 2, &golden_err));
    weft_run *run = run_of(p, WEFT_RUN_TRACE, 1), *silent = run_of(p, 0, 1);
    ck_assert_int_eq(weft_run_trace(silent, 0, 0, &t, &golden_err), WEFT_E_STATE);
    ck_assert_ptr_nonnull(strstr(golden_err.text, "WEFT_RUN_TRACE"));
    ck_assert_int_eq(weft_run_trace_cell(silent, 0, 0, 0, 0, &c, &golden_err), WEFT_E_STATE);
    ck_assert_int_eq(weft_run_trace_json(silent, NULL, 0, &needed, &golden_err), WEFT_E_STATE);
    ck_assert_int_eq(weft_run_trace(NULL, 0, 0, &t, &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_run_trace_json(NULL, NULL, 0, &needed, &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_run_trace_json(run, NULL, 1, &needed, &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_run_trace(run, 0, 0, NULL, &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_run_trace(run, 2, 0, &t, &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_run_trace(run, -1, 0, &t, &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_run_trace(run, 0, 1, &t, &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_run_trace_cell(run, 0, 0, 0, 0, NULL, &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_run_trace_cell(run, 0, 0, 1 << 20, 0, &c, &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_run_trace_cell(run, 0, 0, -1, 0, &c, &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_run_trace_cell(run, 0, 0, 0, 2, &c, &golden_err), WEFT_E_ARG);
    weft_run_free(run);
    weft_run_free(silent);
    weft_plan_free(p);

    must(weft_plan_create(model, NULL, &none, &golden_err)); /* without adapters, adapter 0 tells the way */
    must(weft_plan_seal(none, 1, &golden_err));
    run = run_of(none, WEFT_RUN_TRACE, 1);
    float out[N];
    take_call(run, out, 0, 1, false, 0);
    ck_assert_int_eq(trace_of(run, 0, 0).done, 1);
    ck_assert_int_gt(trace_of(run, 0, 0).layers, 50);
    ck_assert_int_eq(weft_run_trace_cell(run, 0, 0, 0, 1, &c, &golden_err), WEFT_E_ARG);
    weft_run_free(run);
    weft_plan_free(none);
}
END_TEST

/* An evaluation has a byte for each layer of the model and five for each slot. */
START_TEST(its_memory_is_counted)
{
    weft_plan *p = plan_on(WEFT_PATH_AUTO);
    weft_plan_info info = WEFT_PLAN_INFO_INIT;
    weft_run_options with = shape(WEFT_RUN_TRACE), without = shape(0);
    uint64_t more, less;

    must(weft_plan_composite(p, NULL, &golden_err));
    must(weft_plan_seal(p, 10, &golden_err));
    must(weft_plan_info_get(p, &info, &golden_err));
    must(weft_run_bytes(p, &with, &more, &golden_err));
    must(weft_run_bytes(p, &without, &less, &golden_err));
    uint64_t slots = wf_plan_phases(p, &(size_t){ 0 })->slots;
    ck_assert_uint_gt(slots, 50);
    ck_assert_uint_ge(more - less, 20 * ((uint64_t)info.layers + 5 * slots));
    ck_assert_uint_le(more - less, 20 * ((uint64_t)info.layers + 5 * slots) + 10 * 64 + 20 * 32 + 256);
    weft_run *run = run_of(p, WEFT_RUN_TRACE, 1);
    weft_run_info about = WEFT_RUN_INFO_INIT;
    must(weft_run_info_get(run, &about, &golden_err));
    ck_assert_uint_eq(about.bytes, more);
    weft_run_free(run);
    weft_plan_free(p);
}
END_TEST

/* ---- as JSON ---- */

static json_t *json_of(const weft_run *run)
{
    size_t needed, again;
    json_error_t e;

    must(weft_run_trace_json(run, NULL, 0, &needed, &golden_err));
    char *text = malloc(needed);
    must(weft_run_trace_json(run, text, needed, &again, &golden_err));
    ck_assert_uint_eq(needed, again);
    ck_assert_uint_eq(strlen(text) + 1, needed);
    json_t *j = json_loads(text, JSON_REJECT_DUPLICATES, &e);
    ck_assert_msg(j != NULL, "%s", e.text);
    free(text);
    return j;
}

static json_t *get(json_t *o, const char *key)
{
    json_t *v = json_object_get(o, key);
    ck_assert_msg(v != NULL, "no %s", key);
    return v;
}

START_TEST(json_says_the_same)
{
    weft_composite_options o = WEFT_COMPOSITE_OPTIONS_INIT;
    weft_plan *p = plan_on(WEFT_PATH_AUTO);
    int64_t count;
    const wf_layer *layers = layers_of(&count);
    float out[N];

    o.flags = WEFT_COMPOSITE_CACHED;
    must(weft_plan_composite(p, &o, &golden_err));
    must(weft_plan_seal(p, CALLS, &golden_err));
    weft_run *run = run_of(p, WEFT_RUN_TRACE, 1);
    for (int32_t n = 0; n < 3; n++) take_call(run, out, n, 1, true, 0);
    json_t *j = json_of(run), *listed = get(j, "layers"), *calls = get(j, "calls");
    ck_assert_int_eq(json_integer_value(get(j, "trace")), 1);
    ck_assert_str_eq(json_string_value(get(json_array_get(get(j, "adapters"), 1), "name")), "style");
    ck_assert_uint_eq(json_array_size(calls), 3); /* those that were taken */
    for (int32_t n = 0; n < 3; n++) {
        json_t *call = json_array_get(calls, (size_t)n);
        ck_assert_int_eq(json_integer_value(get(call, "call")), n);
        for (int32_t b = 0; b < 2; b++) {
            json_t *e = json_array_get(get(call, "evaluations"), (size_t)b);
            json_t *cells = get(get(e, "cells"), b ? "B" : "A"), *ways = get(e, "ways");
            weft_trace t = trace_of(run, n, b);
            size_t i = 0;
            ck_assert_int_eq(json_is_true(get(e, "reused")), t.reused);
            ck_assert_int_eq(json_integer_value(get(e, "layers")), t.layers);
            ck_assert_int_eq(json_integer_value(get(e, "side")), t.side);
            ck_assert_double_eq(json_number_value(get(e, "share")), t.share);
            ck_assert_uint_eq(json_array_size(cells), json_array_size(listed));
            ck_assert_ptr_null(json_object_get(get(e, "cells"), b ? "A" : "B"));
            for (int64_t l = 0; l < count; l++) {
                if (i == json_array_size(listed) ||
                    strcmp(json_string_value(json_array_get(listed, i)), layers[l].name) != 0)
                    continue;
                weft_trace_cell own = cell_of(run, n, b, l, b);
                ck_assert_float_eq((float)json_number_value(json_array_get(cells, i)), own.number);
                ck_assert_int_eq(json_integer_value(json_array_get(ways, i)), own.way);
                i++;
            }
            ck_assert_uint_eq(i, json_array_size(listed));
            ck_assert_uint_gt(i, 50);
        }
    }
    json_decref(j);
    weft_run_free(run);
    weft_plan_free(p);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("run");
    TCase *c = tcase_create("trace");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 300);
    tcase_add_loop_test(c, a_trace_is_the_table, 0, (int)WF_LEN(tables));
    tcase_add_test(c, loratorio_tells_its_weights);
    tcase_add_test(c, subbands_tell_their_weights);
    tcase_add_test(c, blend_tells_its_shares);
    tcase_add_test(c, without_guidance_the_last_may_count_alone);
    tcase_add_test(c, reused_features_leave_layers_out);
    tcase_add_test(c, kept_keys_are_told);
    tcase_add_test(c, masks_and_regions_are_told);
    tcase_add_test(c, a_call_that_fails_leaves_nothing);
    tcase_add_test(c, what_is_refused);
    tcase_add_test(c, its_memory_is_counted);
    tcase_add_test(c, json_says_the_same);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
