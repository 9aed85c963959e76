/* Texts that change on the way of an image, against diffusers' loop. And StyleAligned: predictions of batches against a re-statement on top of diffusers
 * (tests/reference/aligned.py), which samples depend on which, and what is refused. */
#include <math.h>

#include "base/support.h"
#include "base/tiers.h"
#include "golden.h"
#include "model/networks.h"
#include "plain.h"
#include "plan/plan.h"

/* Every test runs under each tier in float32. */
static const wf_products *tier;

static weft_model *open_model(const char *path)
{
    weft_model *m;
    must(weft_model_open(data_path("%s", path), NULL, &m, &golden_err));
    ((wf_networks *)(void *)(size_t)wf_model_networks(m))->products = tier; /* as no caller can */
    return m;
}

/* ---- against Python ---- */

typedef struct set {
    weft_tensors *t;
    json_t       *index, *entry; /* of all, and of one model */
    const char   *prefix;
    weft_model   *model;
    weft_model_info info;
} set;

static const char *word(json_t *o, const char *key, const char *preset)
{
    json_t *v = json_object_get(o, key);
    return json_is_string(v) ? json_string_value(v) : preset;
}

static double real(json_t *o, const char *key, double preset)
{
    json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : preset;
}

static bool truth(json_t *o, const char *key, bool preset)
{
    json_t *v = json_object_get(o, key);
    return json_is_boolean(v) ? json_is_true(v) : preset;
}

static weft_align_options read_options(json_t *c)
{
    weft_align_options o = WEFT_ALIGN_OPTIONS_INIT;
    if (!truth(c, "share_group_norm", true)) o.flags |= WEFT_ALIGN_NO_GROUP_NORM;
    if (!truth(c, "share_attention", true)) o.flags |= WEFT_ALIGN_NO_ATTENTION;
    if (!truth(c, "adain_queries", true)) o.flags |= WEFT_ALIGN_NO_QUERIES;
    if (!truth(c, "adain_keys", true)) o.flags |= WEFT_ALIGN_NO_KEYS;
    if (truth(c, "adain_values", false)) o.flags |= WEFT_ALIGN_VALUES;
    if (truth(c, "full_attention_share", false)) o.flags |= WEFT_ALIGN_FULL;
    if (json_object_get(c, "shared_score_scale") != NULL) o.flags |= WEFT_ALIGN_SCALE;
    o.shared_score_scale = (float)real(c, "shared_score_scale", 0);
    o.shared_score_shift = (float)real(c, "shared_score_shift", 0);
    o.only_self_level = real(c, "only_self_level", 0);
    return o;
}

static weft_mask read_mask(const set *s, const char *name, golden *values)
{
    weft_mask m = WEFT_MASK_INIT;
    *values = golden_read(s->t, "mask/%s", name);
    m.values = values->v;
    m.len = values->n;
    m.height = (int32_t)values->shape[0];
    m.width = (int32_t)values->shape[1];
    return m;
}

static void add_adapters(const set *s, json_t *c, weft_plan *plan)
{
    json_t *adapters = json_object_get(c, "adapters"), *paths = json_object_get(s->entry, "adapters");
    for (size_t i = 0; i < json_array_size(adapters); i++) {
        json_t *a = json_array_get(adapters, i);
        weft_adapter *adapter;
        golden values;
        must(weft_adapter_open(data_path("%s", word(paths, word(a, "name", ""), "")), NULL, &adapter, &golden_err));
        must(weft_plan_add(plan, adapter, (float)real(a, "weight", 1), NULL, &golden_err));
        weft_adapter_free(adapter);
        if (word(a, "mask", NULL) == NULL) continue;
        weft_mask m = read_mask(s, word(a, "mask", NULL), &values);
        must(weft_plan_set_mask(plan, (int32_t)i, &m, &golden_err));
        free(values.v);
    }
}

static void add_regions(const set *s, json_t *c, weft_plan *plan)
{
    json_t *regions = json_object_get(c, "regions");
    for (size_t i = 0; i < json_array_size(regions); i++) {
        json_t *r = json_array_get(regions, i);
        weft_region region = WEFT_REGION_INIT;
        golden values = { 0 };
        weft_mask m = WEFT_MASK_INIT;
        if (word(r, "mask", NULL) != NULL) {
            m = read_mask(s, word(r, "mask", NULL), &values);
            region.mask = &m;
        } else {
            region.flags |= WEFT_REGION_ADAPTER;
            region.adapter = (int32_t)real(r, "adapter", 0);
        }
        if (truth(r, "isolated", false)) region.flags |= WEFT_REGION_ISOLATED;
        must(weft_plan_add_region(plan, &region, &golden_err));
        free(values.v);
    }
}

static weft_plan *build(const set *s, json_t *c)
{
    weft_align_options o = read_options(json_object_get(c, "options"));
    weft_plan *plan;
    must(weft_plan_create(s->model, NULL, &plan, &golden_err));
    add_adapters(s, c, plan);
    add_regions(s, c, plan);
    if (strcmp(word(c, "method", "merge"), "composite") == 0) must(weft_plan_composite(plan, NULL, &golden_err));
    must(weft_plan_align(plan, &o, &golden_err));
    must(weft_plan_seal(plan, 4, &golden_err));
    return plan;
}

/* A text for all samples, or one for each. */
static weft_text text_of(const set *s, const char *name, golden *g)
{
    *g = golden_read(s->t, "%s%s", s->prefix, name);
    return plain_text(g->v, g->n, 0, 0);
}

static void check_case(const set *s, json_t *c, uint32_t flags)
{
    const char *name = word(c, "name", "");
    weft_plan *plan = build(s, c);
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_run *run;
    golden x = golden_read(s->t, "%slatent", s->prefix), want = golden_read(s->t, "%s%s/pred", s->prefix, name), kept[6] = { { 0 } };
    weft_text text[2], negative[2], regions[2];
    size_t streams = (size_t)s->info.text_streams, count = json_array_size(json_object_get(c, "regions"));
    float *out = malloc(x.n * sizeof *out);
    weft_step step = WEFT_STEP_INIT;
    char what[128];

    text[0] = text_of(s, "text", &kept[0]);
    negative[0] = text_of(s, "negative", &kept[1]);
    if (streams > 1) text[1] = text_of(s, "pooled", &kept[2]), negative[1] = text_of(s, "negative_pooled", &kept[3]);
    if (count > 0) regions[0] = text_of(s, "region0", &kept[4]), regions[1] = text_of(s, "region1", &kept[5]);
    o.threads = 2;
    o.batch = (int32_t)x.shape[0];
    o.height = (int32_t)x.shape[2];
    o.width = (int32_t)x.shape[3];
    must(weft_run_create(plan, &o, &run, &golden_err));
    step.flags = flags;
    step.latent = x.v, step.latent_len = step.out_len = x.n;
    step.out = out;
    step.text = text, step.text_count = streams;
    step.guidance = (float)real(c, "guidance", real(s->index, "guidance", 1));
    if (step.guidance > 1) step.negative = negative, step.negative_count = streams;
    if (count > 0) step.region_text = regions, step.region_text_count = count * streams;
    step.call = (int32_t)real(s->index, "call", 0);
    step.timestep = (float)real(s->index, "timestep", 0);
    must(weft_run_step(run, &step, &golden_err));
    snprintf(what, sizeof what, "%s%s", s->prefix, name);
    near_golden(what, out, want.v, x.n, 1e-5);
    for (size_t i = 0; i < 6; i++) free(kept[i].v);
    free(x.v), free(want.v), free(out);
    weft_run_free(run);
    weft_plan_free(plan);
}

START_TEST(predictions_are_their_restatement)
{
    set s = { .t = golden_open("aligned.safetensors"), .index = golden_json("aligned.json"), .info = WEFT_MODEL_INFO_INIT };
    s.entry = json_array_get(json_object_get(s.index, "models"), (size_t)_i);
    s.prefix = word(s.entry, "prefix", "");
    s.model = open_model(word(s.entry, "model", ""));
    must(weft_model_info_get(s.model, &s.info, &golden_err));
    json_t *cases = json_object_get(s.entry, "cases");
    ck_assert_uint_gt(json_array_size(cases), 4);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        check_case(&s, json_array_get(cases, i), 0);
        check_case(&s, json_array_get(cases, i), WEFT_STEP_SPLIT_GUIDANCE);
    }
    weft_model_free(s.model);
    weft_tensors_free(s.t);
    json_decref(s.index);
}
END_TEST

/* ---- texts that change ---- */

/* The number of the text that a call reads. */
static size_t text_at(json_t *list, int32_t call)
{
    size_t found = 0;
    for (size_t i = 0; i < json_array_size(list); i++)
        if (json_integer_value(json_array_get(json_array_get(list, i), 0)) <= call) found = i;
    return found;
}

/* Every call reads the text of its time, also if a run keeps keys and values. */
START_TEST(calls_read_the_text_of_their_time)
{
    weft_tensors *t = golden_open("aligned.safetensors");
    json_t *index = golden_json("aligned.json"), *c = json_object_get(index, "delayed");
    golden x = golden_read(t, "delayed/latents"), want = golden_read(t, "delayed/preds"), texts[2][2];
    int32_t calls = (int32_t)real(c, "calls", 0);
    size_t n = x.n / (size_t)calls;
    float *out = malloc(n * sizeof *out);
    weft_model *on = open_model("models/tiny-sd1");
    weft_plan *plan;

    for (int h = 0; h < 2; h++)
        for (int i = 0; i < 2; i++) texts[h][i] = golden_read(t, "delayed/%s%d", h ? "negative" : "text", i);
    must(weft_plan_create(on, NULL, &plan, &golden_err));
    must(weft_plan_seal(plan, calls, &golden_err));
    for (uint32_t flags = 0; flags <= WEFT_RUN_FORGET_TEXT; flags += WEFT_RUN_FORGET_TEXT) {
        weft_run_options o = WEFT_RUN_OPTIONS_INIT;
        weft_run *run;
        o.flags = flags;
        o.height = 12;
        o.width = 16;
        must(weft_run_create(plan, &o, &run, &golden_err));
        for (int32_t call = 0; call < calls; call++) {
            golden *text = &texts[0][text_at(json_object_get(c, "text"), call)];
            golden *negative = &texts[1][text_at(json_object_get(c, "negative"), call)];
            plain_step s = PLAIN_STEP_INIT;
            char what[64];
            s.latent = x.v + (size_t)call * n, s.out = out;
            s.latent_len = s.out_len = n;
            s.text = text->v, s.text_len = text->n;
            s.negative = negative->v, s.negative_len = negative->n;
            s.guidance = (float)real(c, "guidance", 0);
            s.call = call;
            s.timestep = (float)json_number_value(json_array_get(json_object_get(c, "timesteps"), (size_t)call));
            must(plain_run_step(run, &s, &golden_err));
            snprintf(what, sizeof what, "delayed[%d], flags %u", (int)call, (unsigned)flags);
            near_golden(what, out, want.v + (size_t)call * n, n, 1e-5);
        }
        weft_run_free(run);
    }
    for (int h = 0; h < 2; h++) free(texts[h][0].v), free(texts[h][1].v);
    free(x.v), free(want.v), free(out);
    weft_plan_free(plan);
    weft_model_free(on);
    weft_tensors_free(t);
    json_decref(index);
}
END_TEST

/* ---- who depends on whom ---- */

enum { MOST = 3, H = 6, W = 8, N = 4 * H * W, TEXT = 77 * 24, CALLS = 8 };

static weft_model   *model;
static weft_adapter *content, *style;
static float         latent[MOST * N], cond[MOST * TEXT], uncond[TEXT];

static void setup(void)
{
    weft_noise *noise;
    model = open_model("models/tiny-sd1");
    must(weft_adapter_open(data_path("adapters/content.safetensors"), NULL, &content, &golden_err));
    must(weft_adapter_open(data_path("adapters/style.safetensors"), NULL, &style, &golden_err));
    must(weft_noise_create(21, NULL, &noise, &golden_err));
    must(weft_noise_normal(noise, latent, MOST * N, &golden_err));
    must(weft_noise_normal(noise, cond, MOST * TEXT, &golden_err));
    must(weft_noise_normal(noise, uncond, TEXT, &golden_err));
    weft_noise_free(noise);
}

static void teardown(void)
{
    weft_model_free(model);
    weft_adapter_free(content);
    weft_adapter_free(style);
}

/* The authors' defaults, or what `flags` says instead; `aligned` false: none. */
static weft_plan *plan_of(bool aligned, uint32_t flags, bool cached)
{
    weft_align_options o = WEFT_ALIGN_OPTIONS_INIT;
    weft_composite_options c = WEFT_COMPOSITE_OPTIONS_INIT;
    weft_plan *plan;
    must(weft_plan_create(model, NULL, &plan, &golden_err));
    must(weft_plan_add(plan, content, 0.8f, NULL, &golden_err));
    must(weft_plan_add(plan, style, 0.8f, NULL, &golden_err));
    c.flags = WEFT_COMPOSITE_CACHED;
    if (cached) must(weft_plan_composite(plan, &c, &golden_err));
    o.flags = flags;
    if (aligned) must(weft_plan_align(plan, &o, &golden_err));
    return plan;
}

static weft_run *run_of(weft_plan *plan, int32_t batch, int32_t threads, uint32_t flags)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_run *run;
    o.flags = flags;
    o.threads = threads;
    o.batch = batch;
    o.height = H;
    o.width = W;
    must(weft_run_create(plan, &o, &run, &golden_err));
    return run;
}

/* Samples `which` of ours at calls 0 to 4, each call's result read by the next: all in `out`. Frees
 * the plan. */
static void predict(weft_plan *plan, const int *which, int32_t batch, int32_t threads, uint32_t flags, float *out)
{
    float x[MOST * N], text[MOST * TEXT];
    plain_step s = PLAIN_STEP_INIT;

    must(weft_plan_seal(plan, CALLS, &golden_err));
    weft_run *run = run_of(plan, batch, threads, flags);
    for (int i = 0; i < batch; i++) {
        memcpy(x + i * N, latent + which[i] * N, N * sizeof *x);
        memcpy(text + i * TEXT, cond + which[i] * TEXT, TEXT * sizeof *text);
    }
    s.latent = x, s.out = x;
    s.latent_len = s.out_len = (size_t)(batch * N);
    s.text = text, s.text_len = (size_t)(batch * TEXT);
    s.negative = uncond, s.negative_len = TEXT;
    s.guidance = 4;
    for (int32_t n = 0; n < 5; n++) {
        s.call = n;
        s.timestep = 901.0f - 100.0f * (float)n;
        must(plain_run_step(run, &s, &golden_err));
    }
    memcpy(out, x, (size_t)(batch * N) * sizeof *out);
    weft_run_free(run);
    weft_plan_free(plan);
}

static void same_bits(const char *what, const float *a, const float *b, size_t n)
{
    ck_assert_msg(memcmp(a, b, n * sizeof *a) == 0, "%s: bits differ (relative %g)", what, relative(a, b, n, NULL));
}

static void differ(const char *what, const float *a, const float *b)
{
    ck_assert_msg(relative(a, b, N, NULL) > 1e-3, "%s: should differ, and does not", what);
}

static const int all[] = { 0, 1, 2 }, without_1[] = { 0, 2 }, only_2[] = { 2 }, other[] = { 1, 2 };

/* Merge and cached composite, which reuses deep features at calls 1 and 3. */
START_TEST(the_reference_is_as_alone_and_others_see_only_it)
{
    bool cached = _i == 1;
    float plain[MOST * N], got[MOST * N], pair[MOST * N];

    predict(plan_of(false, 0, cached), all, 3, 2, 0, plain);
    predict(plan_of(true, 0, cached), all, 3, 2, 0, got);
    same_bits("the reference", got, plain, N);
    differ("sample 1", got + N, plain + N);
    differ("sample 2", got + 2 * N, plain + 2 * N);
    predict(plan_of(true, 0, cached), without_1, 2, 2, 0, pair);
    same_bits("sample 2 with and without 1", pair + N, got + 2 * N, N);
    predict(plan_of(true, 0, cached), other, 2, 2, 0, pair);
    differ("another reference", pair + N, got + 2 * N);
    predict(plan_of(true, 0, cached), only_2, 1, 2, 0, pair);
    same_bits("a batch of one", pair, plain + 2 * N, N);
    predict(plan_of(true, WEFT_ALIGN_FULL, cached), only_2, 1, 2, 0, pair);
    same_bits("a batch of one, all shared", pair, plain + 2 * N, N);
}
END_TEST

START_TEST(threads_and_kept_text_change_no_bit)
{
    static const uint32_t flags[] = { 0, WEFT_ALIGN_VALUES, WEFT_ALIGN_FULL };
    float one[MOST * N], got[MOST * N];

    for (int f = 0; f < 3; f++) {
        predict(plan_of(true, flags[f], false), all, 3, 1, 0, one);
        for (int32_t threads = 2; threads <= 5; threads++) {
            predict(plan_of(true, flags[f], false), all, 3, threads, 0, got);
            same_bits("threads", got, one, MOST * N);
        }
        predict(plan_of(true, flags[f], false), all, 3, 2, WEFT_RUN_FORGET_TEXT, got);
        same_bits("forgotten text", got, one, MOST * N);
    }
}
END_TEST

/* Mean and deviation are the reference's already, and its keys beside their like change no mean of
 * values, whatever is added to their scores. */
START_TEST(samples_like_the_reference_are_not_changed)
{
    static const int same[] = { 1, 1, 1 };
    weft_align_options o = WEFT_ALIGN_OPTIONS_INIT;
    weft_plan *plan = plan_of(false, 0, false);
    float plain[MOST * N], got[MOST * N];

    predict(plan_of(false, 0, false), same, 3, 2, 0, plain);
    predict(plan_of(true, WEFT_ALIGN_VALUES, false), same, 3, 2, 0, got);
    ck_assert_float_lt((float)relative(got, plain, MOST * N, NULL), 1e-4f);
    o.shared_score_shift = 1.5f;
    must(weft_plan_align(plan, &o, &golden_err));
    predict(plan, same, 3, 2, 0, got);
    ck_assert_float_lt((float)relative(got, plain, MOST * N, NULL), 1e-4f);
}
END_TEST

static void refused(weft_status want, const char *text, weft_status got)
{
    ck_assert_msg(got == want, "%d, wanted %d: %s", got, want, golden_err.text);
    ck_assert_msg(strstr(golden_err.text, text) != NULL, "'%s' is not in: %s", text, golden_err.text);
    ck_assert_ptr_null(strchr(golden_err.text, '\n'));
}

START_TEST(copies_keep_it_and_off_ends_it)
{
    weft_align_options off = WEFT_ALIGN_OPTIONS_INIT;
    weft_plan *plan = plan_of(true, 0, false), *copy, *plain;
    float want[MOST * N], got[MOST * N];

    must(weft_plan_seal(plan, CALLS, &golden_err));
    must(weft_plan_copy(plan, &copy, &golden_err));
    must(weft_plan_copy(plan, &plain, &golden_err));
    weft_plan_free(plan);
    predict(plan_of(true, 0, false), all, 3, 2, 0, want);
    must(weft_plan_merge(copy, &golden_err)); /* a method leaves it as it is */
    predict(copy, all, 3, 2, 0, got);
    same_bits("a copy", got, want, MOST * N);
    weft_align_options told = WEFT_ALIGN_OPTIONS_INIT;
    must(weft_plan_alignment(plain, &told, &golden_err));
    ck_assert_uint_eq(told.flags, 0);
    ck_assert_float_eq(told.shared_score_scale, 0);
    must(weft_plan_align(plain, &told, &golden_err)); /* as it was given, so it is taken again */
    told.flags = WEFT_ALIGN_SCALE | WEFT_ALIGN_VALUES;
    told.shared_score_scale = 1.25f;
    told.shared_score_shift = -0.5f;
    told.only_self_level = 0.75;
    must(weft_plan_align(plain, &told, &golden_err));
    told = (weft_align_options)WEFT_ALIGN_OPTIONS_INIT;
    must(weft_plan_alignment(plain, &told, &golden_err));
    ck_assert_uint_eq(told.flags, WEFT_ALIGN_SCALE | WEFT_ALIGN_VALUES);
    ck_assert(told.shared_score_scale == 1.25f && told.shared_score_shift == -0.5f && told.only_self_level == 0.75);
    refused(WEFT_E_ARG, "options is NULL", weft_plan_alignment(plain, NULL, &golden_err));
    refused(WEFT_E_ARG, "plan is NULL", weft_plan_alignment(NULL, &told, &golden_err));
    off.flags = WEFT_ALIGN_OFF;
    must(weft_plan_align(plain, &off, &golden_err));
    must(weft_plan_alignment(plain, &told, &golden_err));
    ck_assert_uint_eq(told.flags, WEFT_ALIGN_OFF);
    ck_assert_float_eq(told.shared_score_shift, 0);
    predict(plain, all, 3, 2, 0, got);
    predict(plan_of(false, 0, false), all, 3, 2, 0, want);
    same_bits("off", got, want, MOST * N);
}
END_TEST

/* Each sample but the first sees as many keys again: from a batch of 1 to 3, twice what comes with
 * 2. Nothing more is counted, and nothing is left of it for the VAE. */
START_TEST(what_it_costs)
{
    double flops[2][MOST + 1];
    float out[MOST * N];
    weft_run_info info = WEFT_RUN_INFO_INIT;

    for (int aligned = 0; aligned < 2; aligned++)
        for (int32_t batch = 1; batch <= MOST; batch++) {
            weft_plan *plan = plan_of(aligned, 0, false);
            must(weft_plan_seal(plan, CALLS, &golden_err));
            weft_run *run = run_of(plan, batch, 1, 0);
            must(weft_run_info_get(run, &info, &golden_err));
            flops[aligned][batch] = info.step_flops;
            weft_run_free(run);
            weft_plan_free(plan);
        }
    ck_assert_double_eq(flops[1][1], flops[0][1]);
    ck_assert_double_gt(flops[1][2], flops[0][2]);
    ck_assert_double_eq(flops[1][3] - flops[0][3], 2 * (flops[1][2] - flops[0][2]));

    weft_plan *plan = plan_of(true, 0, false);
    must(weft_plan_seal(plan, CALLS, &golden_err));
    weft_run *run = run_of(plan, 2, 2, 0);
    plain_step s = PLAIN_STEP_INIT;
    must(weft_run_info_get(run, &info, &golden_err));
    float *before = malloc(info.image_len * sizeof *before), *after = malloc(info.image_len * sizeof *after);
    must(weft_run_decode(run, latent, 2 * N, before, info.image_len, &golden_err));
    s.latent = latent, s.out = out;
    s.latent_len = s.out_len = 2 * N;
    s.text = cond, s.text_len = TEXT;
    s.timestep = 801;
    must(plain_run_step(run, &s, &golden_err));
    must(weft_run_decode(run, latent, 2 * N, after, info.image_len, &golden_err));
    same_bits("decoding", before, after, info.image_len);
    free(before), free(after);
    weft_run_free(run);
    weft_plan_free(plan);
}
END_TEST

/* ---- refused, and said ---- */

START_TEST(wrong_options_are_refused)
{
    weft_plan *plan = plan_of(false, 0, false);
    const struct { weft_align_options o; const char *says; } wrong[] = {
        { { sizeof(weft_align_options), WEFT_ALIGN_SCALE, -0.5f, 0, 0 }, "shared_score_scale is -0.5" },
        { { sizeof(weft_align_options), WEFT_ALIGN_SCALE, NAN, 0, 0 }, "wanted a number from 0 on" },
        { { sizeof(weft_align_options), 0, 2, 0, 0 }, "flags has no WEFT_ALIGN_SCALE" },
        { { sizeof(weft_align_options), 0, 0, INFINITY, 0 }, "shared_score_shift is not a finite number" },
        { { sizeof(weft_align_options), 0, 0, 0, 1.5 }, "only_self_level is 1.5, wanted 0 to 1" },
        { { sizeof(weft_align_options), 0, 0, 0, -0.1 }, "only_self_level is -0.1" },
        { { sizeof(weft_align_options), 0, 0, 0, NAN }, "only_self_level" },
        { { sizeof(weft_align_options), WEFT_ALIGN_FULL | WEFT_ALIGN_VALUES, 0, 0, 0 }, "under WEFT_ALIGN_FULL there is no reference" },
        { { sizeof(weft_align_options), WEFT_ALIGN_FULL, 0, 1, 0 }, "under WEFT_ALIGN_FULL" },
        { { sizeof(weft_align_options), WEFT_ALIGN_NO_ATTENTION | WEFT_ALIGN_SCALE, 1, 0, 0 }, "nothing is scored on the reference" },
        { { sizeof(weft_align_options), WEFT_ALIGN_OFF | WEFT_ALIGN_VALUES, 0, 0, 0 }, "WEFT_ALIGN_OFF takes no other" },
        { { sizeof(weft_align_options), WEFT_ALIGN_OFF, 0, 0, 0.5 }, "WEFT_ALIGN_OFF takes no other" },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        refused(WEFT_E_ARG, wrong[i].says, weft_plan_align(plan, &wrong[i].o, &golden_err));
    weft_align_options unknown = { sizeof unknown, 1u << 20, 0, 0, 0 };
    ck_assert_int_eq(weft_plan_align(plan, &unknown, &golden_err), WEFT_E_UNSUPPORTED);
    ck_assert_ptr_null(wf_plan_align(plan)); /* none of them left anything */
    must(weft_plan_seal(plan, CALLS, &golden_err));
    refused(WEFT_E_STATE, "sealed", weft_plan_align(plan, NULL, &golden_err));
    weft_plan_free(plan);
    refused(WEFT_E_ARG, "plan is NULL", weft_plan_align(NULL, NULL, &golden_err));
}
END_TEST

START_TEST(what_does_not_go_together_is_refused)
{
    float half[H * W] = { 0 };
    weft_mask m = WEFT_MASK_INIT;
    weft_region region = WEFT_REGION_INIT;
    weft_adapter *folded = NULL;
    weft_plan *plan = plan_of(true, WEFT_ALIGN_FULL, false);

    for (int i = 0; i < H * W / 2; i++) half[i] = 1;
    m.values = half;
    m.len = H * W;
    m.height = H;
    m.width = W;
    region.mask = &m;
    must(weft_plan_add_region(plan, &region, &golden_err));
    region.flags = WEFT_REGION_ISOLATED;
    must(weft_plan_add_region(plan, &region, &golden_err));
    refused(WEFT_E_UNSUPPORTED, "region 1 is isolated", weft_plan_seal(plan, CALLS, &golden_err));
    must(weft_plan_align(plan, NULL, &golden_err));
    must(weft_plan_seal(plan, CALLS, &golden_err));
    weft_plan_free(plan);

    plan = plan_of(true, 0, false);
    must(weft_plan_seal(plan, CALLS, &golden_err));
    refused(WEFT_E_UNSUPPORTED, "aligns the samples of a batch", weft_plan_save_model(plan, "/nowhere/at/all", &golden_err));
    refused(WEFT_E_UNSUPPORTED, "aligns the samples of a batch", weft_plan_fold(plan, NULL, &folded, &golden_err));
    weft_plan_free(plan);
}
END_TEST

START_TEST(without_memory_it_stays_as_it_was)
{
    test_memory m;
    weft_allocator a = test_allocator(&m);
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_align_options values = WEFT_ALIGN_OPTIONS_INIT;
    weft_plan *plan, *copy;

    o.allocator = &a;
    values.flags = WEFT_ALIGN_VALUES;
    must(weft_plan_create(model, &o, &plan, &golden_err));
    m.fail_at = 1;
    refused(WEFT_E_NOMEM, "the options of an alignment", weft_plan_align(plan, NULL, &golden_err));
    ck_assert_ptr_null(wf_plan_align(plan));
    m.fail_at = 0;
    must(weft_plan_align(plan, &values, &golden_err));
    m.fail_at = 1;
    refused(WEFT_E_NOMEM, "the options of an alignment", weft_plan_align(plan, NULL, &golden_err));
    ck_assert_uint_eq(wf_plan_align(plan)->flags, WEFT_ALIGN_VALUES);
    ck_assert_float_eq(wf_plan_align(plan)->shared_score_scale, 1);
    m.fail_at = 0;
    must(weft_plan_copy(plan, &copy, &golden_err));
    weft_plan_free(plan);
    ck_assert_uint_eq(wf_plan_align(copy)->flags, WEFT_ALIGN_VALUES);
    weft_plan_free(copy);
    ck_assert_uint_eq(m.live_blocks, 0);
}
END_TEST

static void explains(const weft_align_options *o, const char *line)
{
    char text[4096];
    weft_plan *plan;

    must(weft_plan_create(model, NULL, &plan, &golden_err));
    must(weft_plan_align(plan, o, &golden_err));
    must(weft_plan_seal(plan, CALLS, &golden_err));
    must(weft_plan_text(plan, text, sizeof text, NULL, &golden_err));
    ck_assert_msg(strstr(text, line) != NULL, "'%s' is not in: %s", line, text);
    ck_assert_ptr_null(strstr(text, "bit for bit"));
    weft_plan_free(plan);
}

START_TEST(it_is_explained)
{
    weft_align_options o = WEFT_ALIGN_OPTIONS_INIT;
    explains(NULL, "  aligned    samples of a batch take the first for reference; they see its keys and values; AdaIN of "
                   "queries and keys; GroupNorms shared\n");
    o.flags = WEFT_ALIGN_VALUES | WEFT_ALIGN_NO_GROUP_NORM | WEFT_ALIGN_SCALE;
    o.shared_score_scale = 1.25f;
    o.shared_score_shift = 0.5f;
    o.only_self_level = 0.25;
    explains(&o, "see its keys and values, scores times 1.25, scores plus 0.5; AdaIN of queries, keys and values; 0.25 of the "
                 "self-attentions stay as they are\n");
    o = (weft_align_options)WEFT_ALIGN_OPTIONS_INIT;
    o.flags = WEFT_ALIGN_NO_ATTENTION | WEFT_ALIGN_NO_QUERIES | WEFT_ALIGN_NO_KEYS;
    explains(&o, "take the first for reference; GroupNorms shared\n");
    o.flags = WEFT_ALIGN_FULL;
    explains(&o, "  aligned    in self-attention every sample of a batch sees all; GroupNorms shared\n");
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("aligned");
    TCase *g = tcase_create("goldens"), *c = tcase_create("laws");
    tcase_set_timeout(g, 300);
    tcase_add_loop_test(g, predictions_are_their_restatement, 0, 2);
    tcase_add_test(g, calls_read_the_text_of_their_time);
    suite_add_tcase(s, g);
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 300);
    tcase_add_loop_test(c, the_reference_is_as_alone_and_others_see_only_it, 0, 2);
    tcase_add_test(c, threads_and_kept_text_change_no_bit);
    tcase_add_test(c, samples_like_the_reference_are_not_changed);
    tcase_add_test(c, copies_keep_it_and_off_ends_it);
    tcase_add_test(c, what_it_costs);
    tcase_add_test(c, wrong_options_are_refused);
    tcase_add_test(c, what_does_not_go_together_is_refused);
    tcase_add_test(c, without_memory_it_stays_as_it_was);
    tcase_add_test(c, it_is_explained);
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    const wf_products *tiers[TEST_TIERS_MAX];
    int count = test_tiers(tiers, false), failed = 0;
    for (int i = 0; i < count; i++) {
        tier = tiers[i];
        SRunner *r = srunner_create(suite());
        srunner_run_all(r, CK_ENV);
        if (srunner_ntests_failed(r) > 0) printf("failed with the products of %s\n", tier->name);
        failed += srunner_ntests_failed(r);
        srunner_free(r);
    }
    return failed != 0;
}
