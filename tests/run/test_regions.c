/* Blend and prompts for regions: predictions of single calls against a re-statement on top of diffusers
 * (tests/reference/regions.py), what must be equal, and what is refused. */
#include <math.h>

#include "base/base.h"
#include "golden.h"
#include "plain.h"
#include "plan/method/method.h"
#include "run/run_internal.h"

enum { ADAPTERS = 3 };

/* ---- against Python ---- */

typedef struct set {
    weft_tensors *t;
    json_t       *index, *entry; /* of all, and of one model */
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

static weft_mask read_mask(const set *s, const char *name)
{
    weft_mask m = WEFT_MASK_INIT;
    golden values = golden_read(s->t, "mask/%s", name);
    m.values = values.v;
    m.len = values.n;
    m.height = (int32_t)values.shape[0];
    m.width = (int32_t)values.shape[1];
    return m;
}

static void add_adapters(const set *s, json_t *c, weft_plan *plan)
{
    json_t *adapters = json_object_get(c, "adapters"), *paths = json_object_get(s->entry, "adapters");
    for (size_t i = 0; i < json_array_size(adapters); i++) {
        json_t *a = json_array_get(adapters, i);
        weft_adapter *adapter;
        must(weft_adapter_open(data_path("%s", word(paths, word(a, "name", ""), "")), NULL, &adapter, &golden_err));
        must(weft_plan_add(plan, adapter, (float)real(a, "weight", 1), NULL, &golden_err));
        weft_adapter_free(adapter);
        if (word(a, "mask", NULL) == NULL) continue;
        weft_mask m = read_mask(s, word(a, "mask", NULL));
        m.flags = WEFT_MASK_TEXT;
        m.text = (float)real(a, "text", 1);
        must(weft_plan_set_mask(plan, (int32_t)i, &m, &golden_err));
        free((float *)(uintptr_t)m.values);
    }
}

static void add_regions(const set *s, json_t *c, weft_plan *plan)
{
    json_t *regions = json_object_get(c, "regions");
    for (size_t i = 0; i < json_array_size(regions); i++) {
        json_t *r = json_array_get(regions, i);
        weft_region region = WEFT_REGION_INIT;
        weft_mask m = WEFT_MASK_INIT;
        if (json_object_get(r, "adapter") != NULL) {
            region.flags |= WEFT_REGION_ADAPTER;
            region.adapter = (int32_t)real(r, "adapter", 0);
        } else {
            m = read_mask(s, word(r, "mask", ""));
            region.mask = &m;
        }
        if (json_is_true(json_object_get(r, "isolated"))) region.flags |= WEFT_REGION_ISOLATED;
        must(weft_plan_add_region(plan, &region, &golden_err));
        free((float *)(uintptr_t)m.values);
    }
}

static weft_plan *build(const set *s, json_t *c)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan *plan;
    const char *method = word(c, "method", "merge");
    o.text = WEFT_TEXT_ALL;
    must(weft_plan_create(s->model, &o, &plan, &golden_err));
    add_adapters(s, c, plan);
    add_regions(s, c, plan);
    if (strcmp(method, "composite") == 0) must(weft_plan_composite(plan, NULL, &golden_err));
    if (strcmp(method, "blend") == 0) {
        weft_blend_options b = WEFT_BLEND_OPTIONS_INIT;
        b.start = (int32_t)real(c, "start", 0);
        must(weft_plan_blend(plan, &b, &golden_err));
    }
    must(weft_plan_seal(plan, (int32_t)real(s->index, "calls", 0), &golden_err));
    return plan;
}

/* Stream `k` of half `half` of every branch, one after the other. */
static golden contexts(const set *s, json_t *c, size_t half, size_t k)
{
    json_t *all = json_object_get(c, "contexts");
    golden g = { 0 };
    for (size_t b = 0; b < json_array_size(all); b++) {
        const char *name = json_string_value(json_array_get(json_array_get(all, b), 2 * half + k));
        if (name == NULL) return g;
        golden one = golden_read(s->t, "%s", name);
        g.v = realloc(g.v, (g.n + one.n) * sizeof *g.v);
        memcpy(g.v + g.n, one.v, one.n * sizeof *g.v);
        g.n += one.n;
        free(one.v);
    }
    return g;
}

enum { REGIONS = 3 };

/* The texts of all regions, of the conditional (0) or the unconditional half (1): the streams of
 * each, of which the first is read. One without a negative of its own takes the whole image's. */
static void read_regions(const set *s, json_t *c, size_t half, golden own[REGIONS], weft_text *text, golden whole)
{
    json_t *regions = json_object_get(c, "regions");
    ck_assert_uint_le(json_array_size(regions), REGIONS);
    for (size_t i = 0; i < json_array_size(regions); i++) {
        const char *name = json_string_value(json_array_get(json_object_get(json_array_get(regions, i), "contexts"), half));
        size_t streams = (size_t)s->info.text_streams;
        own[i] = (golden){ 0 };
        if (name != NULL) own[i] = golden_read(s->t, "%s", name);
        for (size_t k = 0; k < streams; k++) weft_text_init(&text[i * streams + k], sizeof *text);
        text[i * streams].data = name != NULL ? own[i].v : whole.v;
        text[i * streams].len = name != NULL ? own[i].n : whole.n;
    }
}

static void check_case(const set *s, json_t *c, uint32_t flags)
{
    const char *name = word(c, "name", ""), *prefix = word(s->entry, "prefix", "");
    weft_plan *plan = build(s, c);
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_run *run;
    golden x = golden_read(s->t, "%slatent", prefix), want = golden_read(s->t, "%s%s/preds", prefix, name);
    golden half[2][2];
    weft_text text[2][2];
    golden own[2][REGIONS] = { { { 0 } } };
    weft_text region[2][2 * REGIONS];
    float *out = malloc(x.n * sizeof *out);
    weft_step step = WEFT_STEP_INIT;
    json_t *points = json_object_get(s->index, "points");

    o.threads = 2;
    o.height = (int32_t)x.shape[2];
    o.width = (int32_t)x.shape[3];
    must(weft_run_create(plan, &o, &run, &golden_err));
    for (size_t h = 0; h < 2; h++)
        for (size_t k = 0; k < 2; k++) {
            half[h][k] = contexts(s, c, h, k);
            text[h][k] = plain_text(half[h][k].v, half[h][k].n, 0, 0);
        }
    step.flags = flags | (json_array_size(json_object_get(c, "contexts")) > 1 ? WEFT_STEP_TEXT_PER_BRANCH : 0);
    step.latent = x.v, step.latent_len = x.n;
    step.out = out, step.out_len = x.n;
    step.text = text[1], step.text_count = (size_t)s->info.text_streams;
    step.guidance = (float)real(c, "guidance", real(s->index, "guidance", 1));
    if (step.guidance > 1) step.negative = text[0], step.negative_count = step.text_count;
    for (size_t h = 0; h < 2; h++) read_regions(s, c, h, own[h], region[h], half[0][0]);
    step.region_text_count = json_array_size(json_object_get(c, "regions")) * step.text_count;
    if (step.region_text_count > 0) step.region_text = region[0];
    if (own[1][0].v != NULL || own[1][1].v != NULL)
        step.region_negative = region[1], step.region_negative_count = step.region_text_count;
    for (size_t n = 0; n < json_array_size(points); n++) {
        char what[128];
        json_t *at = json_array_get(points, n);
        step.call = (int32_t)json_number_value(json_array_get(at, 0));
        step.timestep = (float)json_number_value(json_array_get(at, 1));
        must(weft_run_step(run, &step, &golden_err));
        snprintf(what, sizeof what, "%s%s[%zu]", prefix, name, n);
        near_golden(what, out, want.v + n * x.n, x.n, 1e-5);
    }
    for (size_t h = 0; h < 2; h++) free(half[h][0].v), free(half[h][1].v);
    for (size_t i = 0; i < REGIONS; i++) free(own[0][i].v), free(own[1][i].v);
    free(x.v), free(want.v), free(out);
    weft_run_free(run);
    weft_plan_free(plan);
}

START_TEST(predictions_are_their_restatement)
{
    set s = { .t = golden_open("regions.safetensors"), .index = golden_json("regions.json"),
              .info = WEFT_MODEL_INFO_INIT };
    s.entry = json_array_get(json_object_get(s.index, "models"), (size_t)_i);
    must(weft_model_open(data_path("%s", word(s.entry, "model", "")), NULL, &s.model, &golden_err));
    must(weft_model_info_get(s.model, &s.info, &golden_err));
    json_t *cases = json_object_get(s.entry, "cases");
    ck_assert_uint_gt(json_array_size(cases), 0);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        check_case(&s, json_array_get(cases, i), 0);
        check_case(&s, json_array_get(cases, i), WEFT_STEP_SPLIT_GUIDANCE);
    }
    weft_model_free(s.model);
    weft_tensors_free(s.t);
    json_decref(s.index);
}
END_TEST

/* ---- what must be equal ---- */

enum { H = 6, W = 8, PLANE = H * W, N = 4 * PLANE, TEXT = 77 * 24 };

static weft_model   *model;
static weft_adapter *content, *style;
static float         latent[2 * N], cond[TEXT], uncond[TEXT], other[TEXT], values[2][PLANE];

static void setup(void)
{
    weft_noise *noise;
    must(weft_model_open(data_path("models/tiny-sd1"), NULL, &model, &golden_err));
    must(weft_adapter_open(data_path("adapters/content.safetensors"), NULL, &content, &golden_err));
    must(weft_adapter_open(data_path("adapters/style.safetensors"), NULL, &style, &golden_err));
    must(weft_noise_create(12, NULL, &noise, &golden_err));
    must(weft_noise_normal(noise, latent, 2 * N, &golden_err));
    must(weft_noise_normal(noise, cond, TEXT, &golden_err));
    must(weft_noise_normal(noise, uncond, TEXT, &golden_err));
    must(weft_noise_normal(noise, other, TEXT, &golden_err));
    weft_noise_free(noise);
}

static void teardown(void)
{
    weft_model_free(model);
    weft_adapter_free(content);
    weft_adapter_free(style);
}

static weft_plan *plan_of(weft_adapter *a, weft_adapter *b)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan *plan;
    o.path = WEFT_PATH_SIDE;
    must(weft_plan_create(model, &o, &plan, &golden_err));
    if (a != NULL) must(weft_plan_add(plan, a, 0.8f, NULL, &golden_err));
    if (b != NULL) must(weft_plan_add(plan, b, 0.8f, NULL, &golden_err));
    return plan;
}

/* Mask k: from `low` on the left to `high` on the right. */
static weft_mask ramp(int k, float low, float high)
{
    weft_mask m = WEFT_MASK_INIT;
    for (int i = 0; i < PLANE; i++) values[k][i] = low + (high - low) * (float)(i % W) / (W - 1);
    m.values = values[k];
    m.len = PLANE;
    m.height = H;
    m.width = W;
    return m;
}

static void set_mask(weft_plan *plan, int32_t index, float low, float high)
{
    weft_mask m = ramp(index, low, high);
    must(weft_plan_set_mask(plan, index, &m, &golden_err));
}

static void blend(weft_plan *plan, int32_t start)
{
    weft_blend_options o = WEFT_BLEND_OPTIONS_INIT;
    o.start = start;
    must(weft_plan_blend(plan, &o, &golden_err));
}

/* The prediction at a call of a plan of 10; frees the plan. */
static void predict(weft_plan *plan, int32_t call, int32_t threads, float *out)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    plain_step s = PLAIN_STEP_INIT;
    weft_run *run;
    must(weft_plan_seal(plan, 10, &golden_err));
    o.threads = threads;
    o.height = H;
    o.width = W;
    must(weft_run_create(plan, &o, &run, &golden_err));
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
    weft_run_free(run);
    weft_plan_free(plan);
}

static void same_bits(const char *what, const float *a, const float *b)
{
    ck_assert_msg(memcmp(a, b, N * sizeof *a) == 0, "%s: bits differ (relative %g)", what, relative(a, b, N, NULL));
}

static void close_to(const char *what, const float *a, const float *b)
{
    ck_assert_msg(relative(a, b, N, NULL) < 3e-6, "%s: relative %g", what, relative(a, b, N, NULL));
}

static void refused(weft_status want, const char *text, weft_status got)
{
    ck_assert_msg(got == want, "%d, wanted %d: %s", got, want, golden_err.text);
    ck_assert_msg(strstr(golden_err.text, text) != NULL, "'%s' is not in: %s", text, golden_err.text);
    ck_assert_ptr_null(strchr(golden_err.text, '\n'));
}

/* Four pixels of one channel; where both masks are 1 the two predictions share: (20 + 6) / 2 = 13. */
START_TEST(blend_has_worked_numbers)
{
    const float base[] = { 1, 2, 3, 4 }, first[] = { 10, 20, 30, 40 }, second[] = { 5, 6, 7, 8 };
    const float a[] = { 1, 1, 0, 0 }, b[] = { 0, 1, 1, 0 };
    const float want[] = { 10, 13, 7, 4 };
    for (int p = 0; p < 4; p++) {
        const float *preds[] = { base + p, first + p, second + p };
        float out = 0, m[] = { a[p], b[p] };
        wf_blend_pixel(&out, preds, m, 2, 1, 4);
        ck_assert_float_eq(out, want[p]);
    }
    /* a soft edge, 0.25 * 1 + 0.75 * 10 = 7.75, and a second channel, a plane of 2 further */
    const float *preds[] = { base, first };
    float out[4] = { 0 }, m[] = { 0.75f };
    wf_blend_pixel(out, preds, m, 1, 2, 2);
    ck_assert_float_eq(out[0], 7.75f);
    ck_assert_float_eq(out[2], 23.25f);
}
END_TEST

START_TEST(a_full_mask_is_the_adapter_and_an_empty_one_the_base)
{
    float plain[N], base[N], got[N];
    weft_plan *plan = plan_of(content, NULL);

    predict(plan_of(content, NULL), 0, 2, plain);
    predict(plan_of(NULL, NULL), 0, 2, base);
    set_mask(plan, 0, 1, 1);
    blend(plan, 0);
    predict(plan, 0, 2, got);
    same_bits("a full mask", got, plain);
    plan = plan_of(content, NULL);
    set_mask(plan, 0, 0, 0);
    blend(plan, 0);
    predict(plan, 0, 2, got);
    same_bits("an empty mask", got, base);
    plan = plan_of(content, NULL);
    set_mask(plan, 0, 1, 1);
    blend(plan, 4);
    weft_plan *later;
    must(weft_plan_copy(plan, &later, &golden_err));
    predict(plan, 3, 2, got);
    same_bits("before the start", got, base);
    predict(later, 4, 2, got);
    same_bits("at the start", got, plain);
    ck_assert_msg(relative(plain, base, N, NULL) > 1e-3, "the adapter does nothing");
}
END_TEST

START_TEST(blended_parts_make_the_whole_in_any_order)
{
    float plain[N], got[N], turned[N];
    weft_plan *plan = plan_of(content, content);

    predict(plan_of(content, NULL), 0, 2, plain);
    set_mask(plan, 0, 0, 1);
    set_mask(plan, 1, 1, 0);
    blend(plan, 0);
    predict(plan, 0, 2, got);
    close_to("two halves of one adapter", got, plain);

    plan = plan_of(content, style); /* masks that overlap */
    set_mask(plan, 0, 0.2f, 1);
    set_mask(plan, 1, 0.9f, 0.3f);
    blend(plan, 0);
    predict(plan, 0, 2, got);
    plan = plan_of(style, content);
    set_mask(plan, 0, 0.9f, 0.3f);
    set_mask(plan, 1, 0.2f, 1);
    blend(plan, 0);
    predict(plan, 0, 1, turned);
    same_bits("the other order, and one thread", turned, got);
}
END_TEST

START_TEST(a_wrong_blend_is_refused)
{
    weft_plan *plan = plan_of(content, style);
    weft_blend_options o = WEFT_BLEND_OPTIONS_INIT;
    weft_mask m = ramp(0, 0, 1);

    o.start = -1;
    refused(WEFT_E_ARG, "start is -1", weft_plan_blend(plan, &o, &golden_err));
    o.start = 0;
    o.reserved0 = 1;
    refused(WEFT_E_UNSUPPORTED, "reserved0", weft_plan_blend(plan, &o, &golden_err));
    must(weft_plan_blend(plan, NULL, &golden_err));
    refused(WEFT_E_UNSUPPORTED, "none of 2 adapters has a mask", weft_plan_seal(plan, 10, &golden_err));
    m.flags = WEFT_MASK_ADD;
    must(weft_plan_set_mask(plan, 1, &m, &golden_err));
    refused(WEFT_E_UNSUPPORTED, "adds up", weft_plan_seal(plan, 10, &golden_err));
    must(weft_plan_set_mask(plan, 1, NULL, &golden_err));
    set_mask(plan, 0, 0, 1);
    must(weft_plan_seal(plan, 10, &golden_err));
    weft_call_info info = WEFT_CALL_INFO_INIT;
    must(weft_plan_call(plan, 0, &info, &golden_err));
    ck_assert_int_eq(info.evaluations, 2); /* the base's, and of one mask */
    weft_plan_free(plan);
}
END_TEST

/* ---- prompts for regions ---- */

/* Region of mask k, or of adapter k. */
static void add_region(weft_plan *plan, int k, float low, float high)
{
    weft_region region = WEFT_REGION_INIT;
    weft_mask m = ramp(k, low, high);
    region.mask = &m;
    must(weft_plan_add_region(plan, &region, &golden_err));
}

static void add_region_of(weft_plan *plan, int32_t adapter)
{
    weft_region region = WEFT_REGION_INIT;
    region.flags = WEFT_REGION_ADAPTER;
    region.adapter = adapter;
    must(weft_plan_add_region(plan, &region, &golden_err));
}

/* Seals the plan. */
static weft_run *run_of(weft_plan *plan, int32_t batch, uint32_t flags, int32_t threads)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_run *run;
    must(weft_plan_seal(plan, 10, &golden_err));
    o.threads = threads;
    o.height = H;
    o.width = W;
    o.batch = batch;
    o.flags = flags;
    must(weft_run_create(plan, &o, &run, &golden_err));
    return run;
}

static weft_status step(weft_run *run, const weft_text *texts, size_t count, const weft_text *negatives, int32_t batch,
                        float *out)
{
    const weft_text yes = plain_text(cond, TEXT, 0, 0), no = plain_text(uncond, TEXT, 0, 0);
    weft_step s = WEFT_STEP_INIT;
    s.latent = latent;
    s.out = out;
    s.latent_len = s.out_len = (size_t)batch * N;
    s.text = &yes;
    s.negative = &no;
    s.text_count = s.negative_count = 1;
    s.region_text = texts;
    s.region_text_count = count;
    s.region_negative = negatives;
    s.region_negative_count = negatives != NULL ? count : 0;
    s.timestep = 481;
    s.guidance = 5;
    return weft_run_step(run, &s, &golden_err);
}

/* Frees the plan. */
static void predict_regions(weft_plan *plan, const weft_text *texts, size_t count, int32_t threads, float *out)
{
    weft_run *run = run_of(plan, 1, 0, threads);
    must(step(run, texts, count, NULL, 1, out));
    weft_run_free(run);
    weft_plan_free(plan);
}

START_TEST(a_full_region_is_its_prompt_and_an_empty_one_nothing)
{
    float plain[N], whole[N], got[N];
    const weft_text theirs = plain_text(other, TEXT, 0, 0), same = plain_text(cond, TEXT, 0, 0);
    weft_plan *plan = plan_of(content, NULL);

    predict(plan_of(content, NULL), 0, 2, whole);
    set_mask(plan, 0, 1, 1); /* an adapter everywhere, and on its prompt: as without a region */
    add_region_of(plan, 0);
    predict_regions(plan, &same, 1, 2, got);
    same_bits("everywhere, with the prompt of the whole", got, whole);

    plan = plan_of(content, NULL);
    add_region(plan, 0, 0, 0);
    predict_regions(plan, &theirs, 1, 2, got);
    same_bits("nowhere", got, whole);

    float kept[TEXT];
    memcpy(kept, cond, sizeof kept); /* the region's text as that of the whole */
    memcpy(cond, other, sizeof cond);
    predict(plan_of(content, NULL), 0, 2, plain);
    memcpy(cond, kept, sizeof cond);
    plan = plan_of(content, NULL);
    add_region(plan, 0, 1, 1);
    predict_regions(plan, &theirs, 1, 2, got);
    same_bits("everywhere, with its own prompt", got, plain);
    ck_assert_msg(relative(plain, whole, N, NULL) > 1e-3, "the prompts do nothing");
}
END_TEST

/* Soft parts that fill the image, overlap, and have one prompt; then two prompts in both orders. */
START_TEST(regions_make_the_whole_in_any_order)
{
    float plain[N], got[N], turned[N], one[N];
    weft_text texts[2] = { plain_text(cond, TEXT, 0, 0), plain_text(cond, TEXT, 0, 0) };
    weft_plan *plan = plan_of(content, NULL), *copy;

    predict(plan_of(content, NULL), 0, 2, plain);
    add_region(plan, 0, 0.4f, 1);
    add_region(plan, 1, 1, 0.1f);
    predict_regions(plan, texts, 2, 2, got);
    close_to("one prompt in two regions", got, plain);

    texts[1].data = other;
    plan = plan_of(content, style);
    set_mask(plan, 0, 0.4f, 1);
    set_mask(plan, 1, 1, 0.1f);
    add_region_of(plan, 0);
    add_region_of(plan, 1);
    must(weft_plan_copy(plan, &copy, &golden_err));
    predict_regions(plan, texts, 2, 2, got);
    predict_regions(copy, texts, 2, 1, one);
    same_bits("a copy, and one thread", one, got);

    texts[0].data = other;
    texts[1].data = cond;
    plan = plan_of(style, content);
    set_mask(plan, 0, 1, 0.1f);
    set_mask(plan, 1, 0.4f, 1);
    add_region_of(plan, 0);
    add_region_of(plan, 1);
    predict_regions(plan, texts, 2, 2, turned);
    close_to("the other order", turned, got);
    ck_assert_msg(relative(got, plain, N, NULL) > 1e-3, "the regions do nothing");
}
END_TEST

/* A batch with texts for each sample is each sample alone; keeping keys of the text changes nothing. */
START_TEST(samples_of_a_batch_have_their_own_texts)
{
    float both[2 * N], got[N], keep[N], texts[2 * TEXT];
    weft_text text = plain_text(texts, 2 * TEXT, 0, 0);
    memcpy(texts, other, sizeof other);
    memcpy(texts + TEXT, uncond, sizeof uncond);

    weft_plan *plan = plan_of(content, NULL);
    set_mask(plan, 0, 0, 1);
    add_region_of(plan, 0);
    weft_run *run = run_of(plan, 2, 0, 2);
    must(step(run, &text, 1, &text, 2, both));
    weft_run_free(run);

    weft_plan *copy;
    must(weft_plan_copy(plan, &copy, &golden_err));
    run = run_of(copy, 1, WEFT_RUN_FORGET_TEXT, 2);
    text.len = TEXT;
    must(step(run, &text, 1, &text, 1, got));
    must(step(run, &text, 1, &text, 1, keep));
    same_bits("the first sample", both, got);
    same_bits("again", keep, got);
    memcpy(latent, latent + N, N * sizeof *latent);
    text.data = texts + TEXT;
    must(step(run, &text, 1, &text, 1, got));
    same_bits("the second sample", both + N, got);
    weft_run_free(run);
    weft_plan_free(plan);
    weft_plan_free(copy);
}
END_TEST

/* Keys and values of the regions' texts are kept beside those of the whole image's, while all of them stay as they are. */
START_TEST(texts_of_regions_are_kept)
{
    float got[N], want[N], second[TEXT], longer[2 * TEXT];
    weft_plan *plan = plan_of(content, style), *copy;
    memcpy(second, other, sizeof second);
    for (size_t i = 0; i < 2 * TEXT; i++) longer[i] = other[i % TEXT] * (i < TEXT ? 1 : 0.5f);
    set_mask(plan, 0, 0, 1);
    add_region_of(plan, 0);
    add_region(plan, 1, 0.2f, 0.6f);
    must(weft_plan_copy(plan, &copy, &golden_err));
    weft_run *kept = run_of(plan, 1, 0, 2), *plain = run_of(copy, 1, WEFT_RUN_FORGET_TEXT, 2);
    ck_assert_ptr_null(plain->memory.kept);
    for (int n = 0; n < 10; n++) {
        weft_text texts[] = { plain_text(other, TEXT, 0, 0), plain_text(second, TEXT, 0, 0) };
        if (n == 2) second[TEXT - 1] += 1;                                   /* the last region's text */
        if (n == 4) cond[3] -= 1;                                            /* the whole image's      */
        if (n >= 6 && n < 8) texts[1] = plain_text(longer, 2 * TEXT, 154, 0); /* one of more tokens     */
        weft_text negatives[] = { texts[1], texts[0] };
        if (n >= 6 && n < 8) negatives[0] = texts[0], negatives[1] = texts[1];
        must(step(kept, texts, 2, negatives, 1, got));
        must(step(plain, texts, 2, negatives, 1, want));
        ck_assert_msg(memcmp(got, want, sizeof got) == 0, "call %d", n);
        ck_assert_msg(kept->memory.kept->at[0].valid == (n % 2 != 0), "call %d: %d", n, kept->memory.kept->at[0].valid);
    }
    weft_run_free(kept), weft_run_free(plain);
    weft_plan_free(plan), weft_plan_free(copy);
}
END_TEST

START_TEST(a_wrong_region_is_refused)
{
    weft_plan *plan = plan_of(content, style);
    weft_region r = WEFT_REGION_INIT;
    weft_mask m = ramp(0, 0, 1);

    refused(WEFT_E_ARG, "neither an adapter nor a mask", weft_plan_add_region(plan, &r, &golden_err));
    r.mask = &m;
    m.len = 7;
    refused(WEFT_E_ARG, "has 7 values, wanted 48", weft_plan_add_region(plan, &r, &golden_err));
    m = ramp(0, 0, 1);
    m.flags = WEFT_MASK_ADD;
    refused(WEFT_E_UNSUPPORTED, "flags", weft_plan_add_region(plan, &r, &golden_err));
    m.flags = 0;
    r.adapter = 1; /* and the flag is forgotten */
    refused(WEFT_E_ARG, "adapter is 1, but flags has no WEFT_REGION_ADAPTER", weft_plan_add_region(plan, &r, &golden_err));
    r.adapter = 0;
    r.flags = WEFT_REGION_ADAPTER;
    refused(WEFT_E_ARG, "an adapter and a mask", weft_plan_add_region(plan, &r, &golden_err));
    r.mask = NULL;
    r.adapter = 2;
    refused(WEFT_E_ARG, "adapter 2 of 2", weft_plan_add_region(plan, &r, &golden_err));
    r.adapter = 1;
    r.reserved0 = 3;
    refused(WEFT_E_UNSUPPORTED, "reserved0", weft_plan_add_region(plan, &r, &golden_err));
    r.reserved0 = 0;
    must(weft_plan_add_region(plan, &r, &golden_err));
    refused(WEFT_E_ARG, "adapter 1 has a region already", weft_plan_add_region(plan, &r, &golden_err));
    refused(WEFT_E_ARG, "that has no mask", weft_plan_seal(plan, 10, &golden_err));
    refused(WEFT_E_ARG, "region 1 of 1", weft_plan_remove_region(plan, 1, &golden_err));
    refused(WEFT_E_ARG, "region is NULL", weft_plan_add_region(plan, NULL, &golden_err));
    set_mask(plan, 1, 0, 1);
    must(weft_plan_remove(plan, 0, &golden_err)); /* the region follows its adapter */
    ck_assert_int_eq(plan->region[0].adapter, 0);
    add_region(plan, 0, 1, 0);
    must(weft_plan_remove(plan, 0, &golden_err)); /* .. also out of the plan */
    ck_assert_int_eq(wf_plan_regions(plan), 1);
    must(weft_plan_remove_region(plan, 0, &golden_err));
    for (int i = 0; i < 64; i++) add_region(plan, 0, 1, 0);
    r = (weft_region)WEFT_REGION_INIT;
    r.mask = &m;
    refused(WEFT_E_UNSUPPORTED, "at most 64", weft_plan_add_region(plan, &r, &golden_err));
    must(weft_plan_seal(plan, 10, &golden_err));
    refused(WEFT_E_STATE, "sealed", weft_plan_add_region(plan, &r, &golden_err));
    refused(WEFT_E_STATE, "sealed", weft_plan_remove_region(plan, 0, &golden_err));
    refused(WEFT_E_UNSUPPORTED, "64 regions, and weights have no place", weft_plan_save_model(plan, "/nowhere/at/all", &golden_err));
    weft_plan_free(plan);
}
END_TEST

START_TEST(a_step_without_the_texts_of_regions_is_refused)
{
    float out[N];
    weft_text texts[2] = { plain_text(cond, TEXT, 0, 0), plain_text(other, TEXT, 0, 0) };
    weft_plan *plan = plan_of(NULL, NULL);

    add_region(plan, 0, 0, 1);
    add_region(plan, 1, 1, 0);
    weft_run *run = run_of(plan, 1, 0, 2);
    refused(WEFT_E_ARG, "region_text has 0 texts, wanted 2", step(run, NULL, 0, NULL, 1, out));
    refused(WEFT_E_ARG, "region_text has 1 texts, wanted 2", step(run, texts, 1, NULL, 1, out));
    texts[1].len = 5;
    refused(WEFT_E_ARG, "region_text of region 1[0].len is 5", step(run, texts, 2, NULL, 1, out));
    texts[1].len = 2 * TEXT;
    texts[1].tokens = 2 * 77;
    refused(WEFT_E_ARG, "region 1 has 154 tokens and cross_layers 0, but step.negative 77", step(run, texts, 2, NULL, 1, out));
    texts[1] = plain_text(other, TEXT, 0, 0);
    must(step(run, texts, 2, texts, 1, out));
    weft_run_free(run);
    weft_plan_free(plan);

    plan = plan_of(NULL, NULL);
    run = run_of(plan, 1, 0, 2);
    refused(WEFT_E_ARG, "region_text has 2 texts, wanted 0", step(run, texts, 2, NULL, 1, out));
    weft_run_free(run);
    weft_plan_free(plan);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("regions");
    TCase *g = tcase_create("goldens"), *c = tcase_create("laws");
    tcase_set_timeout(g, 300);
    tcase_add_loop_test(g, predictions_are_their_restatement, 0, 2);
    suite_add_tcase(s, g);
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 300);
    tcase_add_test(c, blend_has_worked_numbers);
    tcase_add_test(c, a_full_mask_is_the_adapter_and_an_empty_one_the_base);
    tcase_add_test(c, blended_parts_make_the_whole_in_any_order);
    tcase_add_test(c, a_wrong_blend_is_refused);
    tcase_add_test(c, a_full_region_is_its_prompt_and_an_empty_one_nothing);
    tcase_add_test(c, regions_make_the_whole_in_any_order);
    tcase_add_test(c, samples_of_a_batch_have_their_own_texts);
    tcase_add_test(c, texts_of_regions_are_kept);
    tcase_add_test(c, a_wrong_region_is_refused);
    tcase_add_test(c, a_step_without_the_texts_of_regions_is_refused);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
