/* Image prompts: features, rows and predictions against diffusers (tests/reference/make_image_prompts.py), what must be
 * equal to the bit, and what is refused. */
#include "base/base.h"
#include "golden.h"
#include "image/image.h"
#include "run/run_internal.h"

enum { IMAGES = 2, REGIONS = 2, PICTURES = 2 };

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

static void refused(weft_status want, const char *text, weft_status got)
{
    ck_assert_msg(got == want, "%s, wanted %s: %s", weft_status_name(got), weft_status_name(want), golden_err.text);
    ck_assert_msg(strstr(golden_err.text, text) != NULL, "'%s' is not in: %s", text, golden_err.text);
    ck_assert_ptr_null(strchr(golden_err.text, '\n'));
}

/* ---- one model with its goldens ---- */

typedef struct set {
    weft_tensors       *t;
    json_t             *index, *entry;
    weft_model         *model;
    weft_image_encoder *encoder;
    const char         *prefix;
    size_t              streams;
} set;

static set open_set(size_t which)
{
    set s = { .t = golden_open("image_prompts.safetensors"), .index = golden_json("image_prompts.json") };
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    s.entry = json_array_get(json_object_get(s.index, "models"), which);
    s.prefix = word(s.entry, "prefix", "");
    must(weft_model_open(data_path("%s", word(s.entry, "model", "")), NULL, &s.model, &golden_err));
    must(weft_model_info_get(s.model, &info, &golden_err));
    must(weft_image_encoder_open(data_path("%s", word(s.index, "encoder", "")), NULL, &s.encoder, &golden_err));
    s.streams = (size_t)info.text_streams;
    return s;
}

static void close_set(set *s)
{
    weft_tensors_free(s->t);
    json_decref(s->index);
    weft_model_free(s->model);
    weft_image_encoder_free(s->encoder);
}

static weft_mask read_mask(const set *s, const char *name)
{
    weft_mask m = WEFT_MASK_INIT;
    golden g = golden_read(s->t, "mask/%s", name);
    m.values = g.v;
    m.len = g.n;
    m.height = (int32_t)g.shape[0];
    m.width = (int32_t)g.shape[1];
    return m;
}

static weft_image_adapter *open_kind(const set *s, const char *kind)
{
    weft_image_adapter *a;
    must(weft_image_adapter_open(data_path("%s", word(json_object_get(s->entry, "files"), kind, kind)), NULL, &a, &golden_err));
    return a;
}

static void add_prompt(const set *s, json_t *p, weft_plan *plan)
{
    weft_image_prompt_options o = WEFT_IMAGE_PROMPT_OPTIONS_INIT;
    weft_image_adapter *a = open_kind(s, word(p, "kind", ""));
    weft_mask m = WEFT_MASK_INIT;
    o.blocks = word(p, "blocks", NULL);
    o.images = (int32_t)json_array_size(json_object_get(p, "pictures"));
    if (word(p, "mask", NULL) != NULL) {
        m = read_mask(s, word(p, "mask", NULL));
        o.mask = &m;
    }
    must(weft_plan_add_image_prompt(plan, a, (float)real(p, "scale", 1), &o, &golden_err));
    weft_image_adapter_free(a); /* the plan keeps it */
    free((float *)(uintptr_t)m.values);
}

static void add_adapter(const set *s, json_t *a, weft_plan *plan, int32_t index)
{
    weft_adapter *adapter;
    must(weft_adapter_open(data_path("adapters/%s.safetensors", word(a, "name", "")), NULL, &adapter, &golden_err));
    must(weft_plan_add(plan, adapter, (float)real(a, "weight", 1), NULL, &golden_err));
    weft_adapter_free(adapter);
    if (word(a, "mask", NULL) == NULL) return;
    weft_mask m = read_mask(s, word(a, "mask", NULL));
    must(weft_plan_set_mask(plan, index, &m, &golden_err));
    free((float *)(uintptr_t)m.values);
}

static void add_region(const set *s, json_t *r, weft_plan *plan)
{
    weft_region region = WEFT_REGION_INIT;
    weft_mask m = WEFT_MASK_INIT;
    if (json_object_get(r, "adapter") != NULL) {
        region.flags = WEFT_REGION_ADAPTER;
        region.adapter = (int32_t)real(r, "adapter", 0);
    } else {
        m = read_mask(s, word(r, "mask", ""));
        region.mask = &m;
    }
    must(weft_plan_add_region(plan, &region, &golden_err));
    free((float *)(uintptr_t)m.values);
}

static weft_plan *build(const set *s, json_t *c)
{
    json_t *adapters = json_object_get(c, "adapters"), *regions = json_object_get(c, "regions"),
           *prompts = json_object_get(c, "prompts");
    const char *method = word(c, "method", "merge");
    weft_plan *plan;
    must(weft_plan_create(s->model, NULL, &plan, &golden_err));
    for (size_t i = 0; i < json_array_size(adapters); i++) add_adapter(s, json_array_get(adapters, i), plan, (int32_t)i);
    for (size_t i = 0; i < json_array_size(regions); i++) add_region(s, json_array_get(regions, i), plan);
    for (size_t i = 0; i < json_array_size(prompts); i++) add_prompt(s, json_array_get(prompts, i), plan);
    if (strcmp(method, "composite") == 0) must(weft_plan_composite(plan, NULL, &golden_err));
    if (strcmp(method, "blend") == 0) must(weft_plan_blend(plan, NULL, &golden_err));
    return plan;
}

/* A picture of the goldens, (3, h, w) in 0..1. */
static float *picture(const set *s, const char *name, int32_t *h, int32_t *w)
{
    golden rgb = golden_read(s->t, "picture/%s", name);
    size_t n = rgb.n / 3;
    float *v = malloc(rgb.n * sizeof *v);
    *h = (int32_t)rgb.shape[0];
    *w = (int32_t)rgb.shape[1];
    for (size_t i = 0; i < rgb.n; i++) v[i % 3 * n + i / 3] = rgb.v[i] / 255.0f;
    free(rgb.v);
    return v;
}

/* Rows of a picture, or of none where name is NULL. */
static int32_t encode(const set *s, weft_run *run, int32_t prompt, const char *name, float *rows, size_t room)
{
    weft_image_encode e = WEFT_IMAGE_ENCODE_INIT;
    float *image = NULL;
    e.encoder = s->encoder;
    e.prompt = prompt;
    if (name != NULL) {
        image = picture(s, name, &e.height, &e.width);
        e.image = image;
        e.image_len = 3 * (size_t)e.height * (size_t)e.width;
    }
    e.data = rows;
    e.len = room;
    must(weft_run_encode_image_prompt(run, &e, &golden_err));
    free(image);
    return e.tokens;
}

/* ---- against diffusers ---- */

/* The encoder's own results, with both activations that published encoders have. */
START_TEST(encoders_are_transformers)
{
    static const struct { const char *folder, *prefix; } all[] = { { "encoder", "gelu" }, { "encoder_quick", "quick" } };
    weft_tensors *t = golden_open("image_prompts.safetensors");
    weft_image_encoder *e;
    must(weft_image_encoder_open(data_path("image_prompts/%s", all[_i].folder), NULL, &e, &golden_err));
    const wf_clip_vision *net = wf_image_encoder_net(e);
    golden pixels = golden_read(t, "%s/pixels", all[_i].prefix), hidden = golden_read(t, "%s/hidden", all[_i].prefix),
           pooled = golden_read(t, "%s/pooled", all[_i].prefix);
    const weft_allocator heap = wf_allocator(NULL);
    wf_exec x = { .k = wf_kernels_pick(wf_cpu_detect()), .products = wf_products_pick(wf_cpu_detect()), .dry = true,
                  .arena = { .dry = true } };
    float *two[2], *got = malloc((hidden.n + pooled.n) * sizeof *got);
    wf_clip_vision_forward(net, &x, NULL, 1, NULL, NULL);
    must(wf_pool_create(&heap, 2, &x.pool, &golden_err));
    uint8_t *scratch[2] = { wf_alloc(&heap, x.scratch_need), wf_alloc(&heap, x.scratch_need) };
    x.arena = (wf_arena){ .base = wf_alloc(&heap, x.arena.peak), .size = x.arena.peak };
    x.scratch = scratch;
    x.dry = false;
    wf_blas_begin();
    wf_clip_vision_forward(net, &x, pixels.v, 1, got, got + hidden.n);
    near_golden("hidden states", got, hidden.v, hidden.n, 1e-5);
    near_golden("pooled", got + hidden.n, pooled.v, pooled.n, 1e-5);
    for (int i = 0; i < 2; i++) { /* one without the other */
        two[i] = malloc((hidden.n + pooled.n) * sizeof(float));
        wf_clip_vision_forward(net, &x, pixels.v, 1, i == 0 ? two[0] : NULL, i == 1 ? two[1] : NULL);
    }
    wf_blas_end();
    ck_assert(!x.stopped && !x.arena.overflow);
    ck_assert_mem_eq(two[0], got, hidden.n * sizeof *got);
    ck_assert_mem_eq(two[1], got + hidden.n, pooled.n * sizeof *got);
    wf_pool_free(x.pool);
    for (int i = 0; i < 2; i++) free(two[i]), wf_free(&heap, scratch[i]);
    wf_free(&heap, x.arena.base);
    free(got), free(pixels.v), free(hidden.v), free(pooled.v);
    weft_image_encoder_free(e);
    weft_tensors_free(t);
}
END_TEST

static weft_run *run_of(const set *s, weft_plan *plan, int32_t threads, int32_t batch, uint32_t flags)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_run *run;
    golden x = golden_read(s->t, "%slatent", s->prefix);
    o.threads = threads;
    o.batch = batch;
    o.flags = flags;
    o.height = (int32_t)x.shape[2];
    o.width = (int32_t)x.shape[3];
    must(weft_run_create(plan, &o, &run, &golden_err));
    free(x.v);
    return run;
}

START_TEST(rows_are_diffusers)
{
    set s = open_set((size_t)_i);
    static const char *const kinds[] = { "base", "plus", "full" }, *const names[] = { "tall", "odd", "wide", NULL };
    for (size_t k = 0; k < WF_LEN(kinds); k++) {
        weft_plan *plan;
        if (json_object_get(json_object_get(s.entry, "files"), kinds[k]) == NULL) continue;
        must(weft_plan_create(s.model, NULL, &plan, &golden_err));
        weft_image_adapter *a = open_kind(&s, kinds[k]);
        must(weft_plan_add_image_prompt(plan, a, 1, NULL, &golden_err));
        weft_image_adapter_free(a);
        must(weft_plan_seal(plan, 1, &golden_err));
        weft_run *run = run_of(&s, plan, 2, 1, 0);
        for (size_t n = 0; n < WF_LEN(names); n++) {
            golden want = golden_read(s.t, "%srows/%s/%s", s.prefix, kinds[k], names[n] != NULL ? names[n] : "none");
            float *got = malloc(want.n * sizeof *got);
            ck_assert_int_eq(encode(&s, run, 0, names[n], got, want.n), want.shape[1]);
            near_golden(kinds[k], got, want.v, want.n, 1e-5);
            free(got), free(want.v);
        }
        weft_run_free(run);
        weft_plan_free(plan);
    }
    close_set(&s);
}
END_TEST

/* What a call reads of a case: texts, regions, rows. */
typedef struct reading {
    golden    text[2][2], region[REGIONS], x;
    weft_text streams[2][2 * 3], regions[2 * REGIONS], image[2][IMAGES];
    size_t    images;
} reading;

static weft_text text_of(const golden *g)
{
    weft_text t = WEFT_TEXT_INIT;
    t.data = g->v;
    t.len = g->n;
    t.tokens = g->rank == 3 ? (int32_t)g->shape[1] : 0;
    return t;
}

/* Rows of prompt `i`: its pictures one after the other, or as many times none. */
static weft_text encode_all(const set *s, weft_run *run, json_t *p, int32_t i, bool none)
{
    json_t *pictures = json_object_get(p, "pictures");
    weft_text t = WEFT_TEXT_INIT;
    weft_image_prompt_info info = WEFT_IMAGE_PROMPT_INFO_INIT;
    must(weft_plan_image_prompt(run->memory.plan, i, &info, &golden_err));
    size_t room = (size_t)info.tokens * (size_t)info.width;
    t.data = malloc(room * sizeof *t.data);
    for (size_t k = 0; k < json_array_size(pictures); k++) {
        t.tokens += encode(s, run, i, none ? NULL : json_string_value(json_array_get(pictures, k)), t.data + t.len,
                           room - t.len);
        t.len = (size_t)t.tokens * (size_t)info.width;
    }
    return t;
}

static void read_case(reading *r, const set *s, json_t *c, weft_run *run)
{
    json_t *prompts = json_object_get(c, "prompts");
    *r = (reading){ .x = golden_read(s->t, "%slatent", s->prefix), .images = json_array_size(prompts) };
    for (size_t h = 0; h < 2; h++) {
        r->text[h][0] = golden_read(s->t, "%stext%zu", s->prefix, h);
        if (s->streams > 1) r->text[h][1] = golden_read(s->t, "%spooled%zu", s->prefix, h);
        for (size_t k = 0; k < s->streams; k++) r->streams[h][k] = text_of(&r->text[h][k]);
        if (s->streams > 1) r->streams[h][1].tokens = 0;
        for (size_t i = 0; i < r->images; i++)
            r->image[h][i] = encode_all(s, run, json_array_get(prompts, i), (int32_t)i, h == 0);
    }
    for (size_t i = 0; i < json_array_size(json_object_get(c, "regions")); i++) {
        r->region[i] = golden_read(s->t, "%sregion%zu", s->prefix, i);
        r->regions[i] = text_of(&r->region[i]);
    }
}

static void free_reading(reading *r)
{
    for (size_t h = 0; h < 2; h++) {
        free(r->text[h][0].v), free(r->text[h][1].v);
        for (size_t i = 0; i < r->images; i++) free(r->image[h][i].data);
    }
    for (size_t i = 0; i < REGIONS; i++) free(r->region[i].v);
    free(r->x.v);
}

static weft_step step_of(const set *s, json_t *c, const reading *r, float *out)
{
    weft_step step = WEFT_STEP_INIT;
    step.latent = r->x.v, step.latent_len = r->x.n;
    step.out = out, step.out_len = r->x.n;
    step.text = r->streams[1], step.text_count = s->streams;
    step.guidance = (float)real(c, "guidance", real(s->index, "guidance", 1));
    step.image = r->image[1], step.image_count = r->images;
    if (step.guidance > 1) {
        step.negative = r->streams[0], step.negative_count = s->streams;
        step.image_negative = r->image[0], step.image_negative_count = r->images;
    }
    step.region_text_count = json_array_size(json_object_get(c, "regions"));
    if (step.region_text_count > 0) step.region_text = r->regions;
    return step;
}

static void check_case(const set *s, json_t *c)
{
    json_t *points = json_object_get(s->index, "points");
    const char *name = word(c, "name", "");
    weft_plan *plan = build(s, c);
    must(weft_plan_seal(plan, (int32_t)real(s->index, "calls", 0), &golden_err));
    weft_run *run = run_of(s, plan, 2, 1, 0);
    golden want = golden_read(s->t, "%s%s", s->prefix, name);
    reading r;
    read_case(&r, s, c, run);
    float *out = malloc(r.x.n * sizeof *out), *split = malloc(r.x.n * sizeof *split);
    weft_step step = step_of(s, c, &r, out);
    for (size_t n = 0; n < json_array_size(points); n++) {
        char what[128];
        json_t *at = json_array_get(points, n);
        step.call = (int32_t)json_number_value(json_array_get(at, 0));
        step.timestep = (float)json_number_value(json_array_get(at, 1));
        step.flags = 0;
        step.out = out;
        must(weft_run_step(run, &step, &golden_err));
        snprintf(what, sizeof what, "%s%s[%zu]", s->prefix, name, n);
        near_golden(what, out, want.v + n * r.x.n, r.x.n, 1e-5);
        step.flags = WEFT_STEP_SPLIT_GUIDANCE;
        step.out = split;
        must(weft_run_step(run, &step, &golden_err));
        ck_assert_msg(memcmp(out, split, r.x.n * sizeof *out) == 0, "%s: split guidance has other bits", what);
    }
    reading again; /* what a call leaves behind is nothing to the next picture */
    read_case(&again, s, c, run);
    for (size_t h = 0; h < 2; h++)
        for (size_t i = 0; i < r.images; i++) {
            ck_assert_uint_eq(r.image[h][i].len, again.image[h][i].len);
            ck_assert_mem_eq(r.image[h][i].data, again.image[h][i].data, r.image[h][i].len * sizeof(float));
        }
    free_reading(&again);
    free(out), free(split), free(want.v);
    free_reading(&r);
    weft_run_free(run);
    weft_plan_free(plan);
}

START_TEST(predictions_are_diffusers)
{
    set s = open_set((size_t)_i);
    json_t *cases = json_object_get(s.entry, "cases");
    ck_assert_uint_ge(json_array_size(cases), 5);
    for (size_t i = 0; i < json_array_size(cases); i++) check_case(&s, json_array_get(cases, i));
    close_set(&s);
}
END_TEST

/* ---- what must be equal ---- */

static json_t *named_case(const set *s, const char *name)
{
    json_t *cases = json_object_get(s->entry, "cases");
    for (size_t i = 0; i < json_array_size(cases); i++)
        if (strcmp(word(json_array_get(cases, i), "name", ""), name) == 0) return json_array_get(cases, i);
    ck_abort_msg("no case %s", name);
    return NULL;
}

/* The prediction of a case at a call, on a plan that is sealed and freed here. */
static float *predict(const set *s, json_t *c, weft_plan *plan, int32_t call, int32_t threads)
{
    must(weft_plan_seal(plan, 10, &golden_err));
    weft_run *run = run_of(s, plan, threads, 1, 0);
    reading r;
    read_case(&r, s, c, run);
    float *out = malloc(r.x.n * sizeof *out);
    weft_step step = step_of(s, c, &r, out);
    r.images = (size_t)weft_plan_image_prompts(plan);
    step.image_count = step.image_negative_count = r.images;
    if (r.images == 0) step.image = step.image_negative = NULL;
    step.call = call;
    step.timestep = 481;
    must(weft_run_step(run, &step, &golden_err));
    r.images = json_array_size(json_object_get(c, "prompts"));
    free_reading(&r);
    weft_run_free(run);
    weft_plan_free(plan);
    return out;
}

static size_t latents(const set *s)
{
    golden x = golden_read(s->t, "%slatent", s->prefix);
    free(x.v);
    return x.n;
}

static bool same(const set *s, float *a, float *b)
{
    bool equal = memcmp(a, b, latents(s) * sizeof *a) == 0;
    free(a), free(b);
    return equal;
}

START_TEST(weight_nought_is_the_base)
{
    set s = open_set(0);
    json_t *c = named_case(&s, "two");
    weft_plan *none = build(&s, c), *bare, *empty, *masked;
    weft_image_prompt_options o = WEFT_IMAGE_PROMPT_OPTIONS_INIT;
    weft_image_adapter *a = open_kind(&s, "base");
    float zeros[12] = { 0 };
    weft_mask m = WEFT_MASK_INIT;

    must(weft_plan_copy(none, &bare, &golden_err));
    must(weft_plan_remove_image_prompt(bare, 1, &golden_err));
    must(weft_plan_remove_image_prompt(bare, 0, &golden_err));
    ck_assert_int_eq(weft_plan_image_prompts(bare), 0);
    ck_assert_int_eq(weft_plan_image_prompts(none), 2);
    must(weft_plan_copy(bare, &empty, &golden_err));
    o.blocks = "NONE";
    must(weft_plan_add_image_prompt(empty, a, 1, &o, &golden_err));
    must(weft_plan_add_image_prompt(empty, a, 0, NULL, &golden_err));
    must(weft_plan_copy(bare, &masked, &golden_err));
    o.blocks = NULL;
    m.values = zeros, m.len = 12, m.height = 3, m.width = 4;
    o.mask = &m;
    must(weft_plan_add_image_prompt(masked, a, 1, &o, &golden_err));
    must(weft_plan_add_image_prompt(masked, a, 1, &o, &golden_err));
    must(weft_plan_set_image_weight(none, 0, 0, &golden_err));
    must(weft_plan_set_image_weight(none, 1, 0, &golden_err));
    json_t *base = json_pack("{s:[o,o]}", "prompts", json_pack("{s:s,s:[s]}", "kind", "base", "pictures", "tall"),
                             json_pack("{s:s,s:[s]}", "kind", "base", "pictures", "tall"));

    weft_plan *again, *third;
    must(weft_plan_copy(bare, &again, &golden_err));
    must(weft_plan_copy(bare, &third, &golden_err));
    json_t *nothing = json_pack("{s:[]}", "prompts");
    float *want = predict(&s, nothing, bare, 0, 1);
    ck_assert(same(&s, predict(&s, nothing, again, 0, 1), predict(&s, c, none, 0, 1)));
    ck_assert(same(&s, predict(&s, nothing, third, 0, 1), predict(&s, base, empty, 0, 1)));
    float *of_mask = predict(&s, base, masked, 0, 1);
    ck_assert(same(&s, want, of_mask));
    json_decref(base), json_decref(nothing);
    weft_image_adapter_free(a);
    close_set(&s);
}
END_TEST

/* An image prompt changes what is predicted, and the more the larger its weight. */
START_TEST(weights_and_curves_act)
{
    set s = open_set(0);
    json_t *c = named_case(&s, "base");
    const weft_curve_point ramp[] = { { sizeof(weft_curve_point), 0, WEFT_CURVE_LINEAR, 0, 0, 0 },
                                      { sizeof(weft_curve_point), 0, WEFT_CURVE_HOLD, 0, 4, 2 } };
    weft_plan *plan[6];
    const float weights[6] = { 0, 0.5f, 1, 1, 1, 1 };
    float *out[6];
    size_t n = latents(&s);
    for (int i = 0; i < 6; i++) {
        plan[i] = build(&s, c);
        must(weft_plan_set_image_weight(plan[i], 0, weights[i], &golden_err));
        if (i >= 3) must(weft_plan_set_image_curve(plan[i], 0, 0, ramp, 2, &golden_err));
        if (i == 5) must(weft_plan_set_image_curve(plan[i], 0, 0, NULL, 0, &golden_err));
        out[i] = predict(&s, c, plan[i], i == 3 ? 0 : i == 4 ? 2 : 1, 1); /* the curve is 0 at call 0, 1 at 2 */
    }
    double half = relative(out[1], out[0], n, NULL), whole = relative(out[2], out[0], n, NULL);
    ck_assert_msg(half > 0.01 && whole > 1.5 * half, "half %g, whole %g", half, whole);
    ck_assert_mem_eq(out[3], out[0], n * sizeof *out[0]);
    ck_assert_mem_eq(out[4], out[2], n * sizeof *out[0]);
    ck_assert_mem_eq(out[5], out[2], n * sizeof *out[0]);
    for (int i = 0; i < 6; i++) free(out[i]);
    close_set(&s);
}
END_TEST

/* Two prompts that share the weight are one, and pictures side by side of the same rows are one of them. */
START_TEST(prompts_add_up_and_pictures_share)
{
    set s = open_set(0);
    json_t *one = json_pack("{s:[{s:s,s:[s],s:f}]}", "prompts", "kind", "plus", "pictures", "tall", "scale", 0.8);
    json_t *two = json_pack("{s:[{s:s,s:[s],s:f},{s:s,s:[s],s:f}]}", "prompts", "kind", "plus", "pictures", "tall",
                            "scale", 0.5, "kind", "plus", "pictures", "tall", "scale", 0.3);
    json_t *twice = json_pack("{s:[{s:s,s:[s,s],s:f}]}", "prompts", "kind", "plus", "pictures", "tall", "tall", "scale", 0.8);
    float *a = predict(&s, one, build(&s, one), 0, 1), *b = predict(&s, two, build(&s, two), 0, 1),
          *c = predict(&s, twice, build(&s, twice), 0, 1);
    near_golden("two that share", b, a, latents(&s), 1e-5);
    near_golden("the same twice", c, a, latents(&s), 1e-5);
    free(a), free(b), free(c);
    json_decref(one), json_decref(two), json_decref(twice);
    close_set(&s);
}
END_TEST

START_TEST(threads_do_not_show)
{
    static const char *const names[] = { "two", "composite", "regions" };
    set s = open_set(0);
    json_t *c = named_case(&s, names[_i]);
    ck_assert(same(&s, predict(&s, c, build(&s, c), 3, 1), predict(&s, c, build(&s, c), 3, 3)));
    close_set(&s);
}
END_TEST

/* Two samples with pictures of their own: each as if alone; and one block of rows serves both. */
START_TEST(batches_do_not_show)
{
    set s = open_set(0);
    json_t *c = json_pack("{s:[{s:s,s:[s]}]}", "prompts", "kind", "base", "pictures", "tall");
    json_t *d = json_pack("{s:[{s:s,s:[s]}]}", "prompts", "kind", "base", "pictures", "odd");
    float *one = predict(&s, c, build(&s, c), 0, 1), *other = predict(&s, d, build(&s, d), 0, 1);
    weft_plan *plan = build(&s, c);
    size_t n = latents(&s);
    must(weft_plan_seal(plan, 10, &golden_err));
    weft_run *run = run_of(&s, plan, 2, 2, 0);
    reading r, q;
    read_case(&r, &s, c, run);
    read_case(&q, &s, d, run);
    size_t rows = r.image[1][0].len;
    float *x = malloc(2 * n * sizeof *x), *out = malloc(2 * n * sizeof *out), *both = malloc(2 * rows * sizeof *both);
    memcpy(x, r.x.v, n * sizeof *x), memcpy(x + n, r.x.v, n * sizeof *x);
    memcpy(both, r.image[1][0].data, rows * sizeof *both), memcpy(both + rows, q.image[1][0].data, rows * sizeof *both);
    weft_step step = step_of(&s, c, &r, out);
    step.latent = x, step.latent_len = step.out_len = 2 * n;
    step.timestep = 481;
    must(weft_run_step(run, &step, &golden_err));
    ck_assert_mem_eq(out, one, n * sizeof *out);
    ck_assert_mem_eq(out + n, one, n * sizeof *out);
    weft_text own = r.image[1][0];
    own.data = both, own.len = 2 * rows;
    step.image = &own;
    must(weft_run_step(run, &step, &golden_err));
    ck_assert_mem_eq(out, one, n * sizeof *out);
    ck_assert_mem_eq(out + n, other, n * sizeof *out);
    free(x), free(out), free(both), free(one), free(other);
    free_reading(&r), free_reading(&q);
    weft_run_free(run);
    weft_plan_free(plan);
    json_decref(c), json_decref(d);
    close_set(&s);
}
END_TEST

/* Kept keys and values are those of these rows, also when rows change, or a curve begins or ends. */
START_TEST(keeping_does_not_show)
{
    set s = open_set(0);
    json_t *c = named_case(&s, "two");
    const weft_curve_point late[] = { { sizeof(weft_curve_point), 0, WEFT_CURVE_HOLD, 0, 0, 0 },
                                      { sizeof(weft_curve_point), 0, WEFT_CURVE_HOLD, 0, 3, 1 } };
    weft_plan *plan = build(&s, c);
    size_t n = latents(&s);
    float *out[2] = { malloc(n * sizeof(float)), malloc(n * sizeof(float)) };
    must(weft_plan_set_image_curve(plan, 0, 0, late, 2, &golden_err));
    must(weft_plan_seal(plan, 10, &golden_err));
    weft_run *run[2] = { run_of(&s, plan, 1, 1, WEFT_RUN_FORGET_TEXT), run_of(&s, plan, 1, 1, 0) };
    reading r;
    read_case(&r, &s, c, run[0]);
    for (int32_t call = 0; call < 8; call++) {
        if (call == 5) r.image[1][1].data[3] += 0.5f;
        if (call == 6) r.image[0][0].data[0] -= 0.5f;
        if (call == 7) r.image[1][1].tokens -= 6, r.image[0][1].tokens -= 6, r.image[1][1].len /= 2, r.image[0][1].len /= 2;
        for (int i = 0; i < 2; i++) {
            weft_step step = step_of(&s, c, &r, out[i]);
            step.flags = call == 4 ? WEFT_STEP_SPLIT_GUIDANCE : 0;
            step.call = call;
            step.timestep = 900.0f - (float)call;
            must(weft_run_step(run[i], &step, &golden_err));
        }
        ck_assert_msg(memcmp(out[0], out[1], n * sizeof(float)) == 0, "call %d: %g", (int)call,
                      relative(out[1], out[0], n, NULL));
    }
    free(out[0]), free(out[1]);
    free_reading(&r);
    weft_run_free(run[0]), weft_run_free(run[1]);
    weft_plan_free(plan);
    close_set(&s);
}
END_TEST

/* Under cached composite the first call computes in full; a call that reuses passes over the deep layers alone. */
static int32_t last_done, last_total;

static int32_t count_progress(void *user, const char *what, int64_t done, int64_t total)
{
    (void)user, (void)what;
    last_done = (int32_t)done;
    last_total = (int32_t)total;
    return 0;
}

START_TEST(cached_composite_takes_images)
{
    set s = open_set(0);
    json_t *c = named_case(&s, "composite");
    weft_composite_options o = WEFT_COMPOSITE_OPTIONS_INIT;
    weft_run_options ro = WEFT_RUN_OPTIONS_INIT;
    size_t n = latents(&s);
    float *out[2] = { malloc(n * sizeof(float)), malloc(n * sizeof(float)) };
    weft_plan *plan[2];
    weft_run *run[2];
    reading r;
    for (int i = 0; i < 2; i++) {
        plan[i] = build(&s, c);
        o.flags = i == 1 ? WEFT_COMPOSITE_CACHED : 0;
        must(weft_plan_composite(plan[i], &o, &golden_err));
        must(weft_plan_seal(plan[i], 10, &golden_err));
        ro.threads = 1, ro.height = 8, ro.width = 10;
        ro.progress = count_progress;
        must(weft_run_create(plan[i], &ro, &run[i], &golden_err));
    }
    read_case(&r, &s, c, run[0]);
    for (int32_t call = 0; call < 3; call++)
        for (int i = 0; i < 2; i++) {
            weft_step step = step_of(&s, c, &r, out[i]);
            step.call = call;
            step.timestep = 500.0f - 10 * (float)call;
            must(weft_run_step(run[i], &step, &golden_err));
            ck_assert_int_eq(last_done, last_total);
            if (i == 0) continue;
            double off = relative(out[1], out[0], n, NULL);
            if (call == 0) ck_assert_mem_eq(out[0], out[1], n * sizeof(float));
            else ck_assert_msg(off < 0.3 && (call != 1 || off > 0), "call %d: %g", (int)call, off);
        }
    for (int i = 0; i < 2; i++) free(out[i]), weft_run_free(run[i]), weft_plan_free(plan[i]);
    free_reading(&r);
    close_set(&s);
}
END_TEST

/* What weft_run_bytes() says is what a run takes, and encoding leaves it as it was. */
START_TEST(bytes_are_told)
{
    set s = open_set(0);
    weft_plan *plan = build(&s, named_case(&s, "mask"));
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_run_info info = WEFT_RUN_INFO_INIT;
    uint64_t bytes;
    float rows[1024], again[1024];
    must(weft_plan_seal(plan, 10, &golden_err));
    o.threads = 1, o.height = 8, o.width = 10;
    must(weft_run_bytes(plan, &o, &bytes, &golden_err));
    weft_run *run = run_of(&s, plan, 1, 1, 0);
    must(weft_run_info_get(run, &info, &golden_err));
    ck_assert_uint_eq(info.bytes, bytes);
    (void)encode(&s, run, 1, "odd", rows, 1024);
    (void)encode(&s, run, 1, "odd", again, 1024);
    ck_assert_mem_eq(rows, again, 6 * 24 * sizeof *rows);
    weft_run *more = run_of(&s, plan, 3, 1, 0);
    (void)encode(&s, more, 1, "odd", again, 1024);
    ck_assert_mem_eq(rows, again, 6 * 24 * sizeof *rows);
    weft_run_free(more);
    weft_run_free(run);
    weft_plan_free(plan);
    close_set(&s);
}
END_TEST

/* ---- memory that is not there ---- */

static int allowed;
static size_t held;

static void *take(void *user, size_t size, size_t align)
{
    (void)user;
    if (allowed-- <= 0) return NULL;
    void *p = aligned_alloc(align, (size + align - 1) / align * align);
    if (p != NULL) held++;
    return p;
}

static void give(void *user, void *p, size_t size)
{
    (void)user, (void)size;
    held--;
    free(p);
}

/* Every allocation of adding, copying and encoding fails in turn: nothing is left, and the handle works on. */
START_TEST(nothing_is_left_without_memory)
{
    static const weft_allocator counting = { take, give, NULL };
    set s = open_set(0);
    weft_plan_options po = WEFT_PLAN_OPTIONS_INIT;
    weft_run_options ro = WEFT_RUN_OPTIONS_INIT;
    weft_image_prompt_options o = WEFT_IMAGE_PROMPT_OPTIONS_INIT;
    weft_image_adapter *a = open_kind(&s, "plus");
    weft_mask m = read_mask(&s, "disc");
    weft_plan *plan, *copy = NULL;
    weft_run *run;
    weft_status st = WEFT_E_NOMEM;
    po.allocator = ro.allocator = &counting;
    ro.threads = 2, ro.height = 8, ro.width = 10;
    o.blocks = "MID=1", o.mask = &m;
    allowed = 1 << 20;
    must(weft_plan_create(s.model, &po, &plan, &golden_err));
    int n = 0;
    for (size_t before = held; st != WEFT_OK && n < 50; n++) {
        allowed = n;
        st = weft_plan_add_image_prompt(plan, a, 1, &o, &golden_err);
        ck_assert(st == WEFT_OK || st == WEFT_E_NOMEM);
        if (st != WEFT_OK) ck_assert_uint_le(held, before + 1); /* the list itself may stay */
        ck_assert_int_eq(weft_plan_image_prompts(plan), st == WEFT_OK);
    }
    must(st);
    ck_assert_int_gt(n, 3);
    size_t before = held;
    for (st = WEFT_E_NOMEM, n = 0; st != WEFT_OK && n < 50; n++) {
        allowed = n;
        st = weft_plan_copy(plan, &copy, &golden_err);
        if (st != WEFT_OK) ck_assert(st == WEFT_E_NOMEM && held == before && copy == NULL);
    }
    must(st);
    allowed = 1 << 20;
    weft_plan_free(copy);
    must(weft_plan_seal(plan, 10, &golden_err));
    must(weft_run_create(plan, &ro, &run, &golden_err));
    before = held;
    float *image, rows[2][6 * 24];
    weft_image_encode e = WEFT_IMAGE_ENCODE_INIT;
    image = picture(&s, "odd", &e.height, &e.width);
    e.encoder = s.encoder, e.image = image, e.image_len = 3 * 101 * 67, e.data = rows[0], e.len = 6 * 24;
    must(weft_run_encode_image_prompt(run, &e, &golden_err));
    e.data = rows[1];
    for (st = WEFT_E_NOMEM, n = 0; st != WEFT_OK && n < 50; n++) {
        allowed = n;
        st = weft_run_encode_image_prompt(run, &e, &golden_err);
        ck_assert(st == WEFT_OK || st == WEFT_E_NOMEM);
        ck_assert_uint_eq(held, before);
    }
    must(st);
    ck_assert_int_gt(n, 4);
    ck_assert_mem_eq(rows[0], rows[1], sizeof rows[0]);
    weft_run_free(run);
    weft_plan_free(plan);
    ck_assert_uint_eq(held, 0);
    free(image), free((float *)(uintptr_t)m.values);
    weft_image_adapter_free(a);
    close_set(&s);
}
END_TEST

/* ---- plans in files ---- */

static char *json_of(const weft_plan *plan)
{
    size_t needed;
    must(weft_plan_to_json(plan, NULL, NULL, 0, &needed, &golden_err));
    char *text = calloc(needed + 1, 1);
    must(weft_plan_to_json(plan, NULL, text, needed, NULL, &golden_err));
    return text;
}

/* With weights, blocks, curve, mask and room for pictures: the same bits, the same hash, the same text. */
START_TEST(plans_come_back_from_files)
{
    set s = open_set(0);
    json_t *c = named_case(&s, "regions"), *two = named_case(&s, "two");
    const weft_curve_point ramp[] = { { sizeof(weft_curve_point), 0, WEFT_CURVE_COSINE, 0, 0, 0.25 },
                                      { sizeof(weft_curve_point), 0, WEFT_CURVE_HOLD, 0, 0.75, 2 } };
    weft_plan *plan[2] = { build(&s, c), build(&s, two) }, *back;
    char hash[2][65];
    must(weft_plan_set_image_curve(plan[0], 0, WEFT_CURVE_AT_SHARE, ramp, 2, &golden_err));
    for (int i = 0; i < 2; i++) {
        char *text = json_of(plan[i]), *again;
        must(weft_plan_from_json(s.model, text, strlen(text), NULL, &back, &golden_err));
        ck_assert_int_eq(weft_plan_image_prompts(back), i + 1);
        again = json_of(back);
        ck_assert_str_eq(text, again);
        must(weft_plan_hash(plan[i], hash[0], sizeof hash[0], &golden_err));
        must(weft_plan_hash(back, hash[1], sizeof hash[1], &golden_err));
        ck_assert_str_eq(hash[0], hash[1]);
        must(weft_plan_set_image_weight(back, i, 0.5f, &golden_err));
        must(weft_plan_hash(back, hash[1], sizeof hash[1], &golden_err));
        ck_assert_str_ne(hash[0], hash[1]);
        weft_plan_free(back);
        must(weft_plan_from_json(s.model, text, strlen(text), NULL, &back, &golden_err));
        ck_assert(same(&s, predict(&s, i == 0 ? c : two, plan[i], 4, 1), predict(&s, i == 0 ? c : two, back, 4, 1)));
        free(text), free(again);
    }
    close_set(&s);
}
END_TEST

/* `text` with a piece of it in another form. */
static weft_status changed(const set *s, const char *text, const char *from, const char *to)
{
    weft_plan *plan = NULL;
    const char *cut = strstr(text, from);
    ck_assert_msg(cut != NULL, "no %s in %s", from, text);
    char *other = calloc(strlen(text) + strlen(to) + 1, 1);
    memcpy(other, text, (size_t)(cut - text));
    strcat(other, to);
    strcat(other, cut + strlen(from));
    weft_status st = weft_plan_from_json(s->model, other, strlen(other), NULL, &plan, &golden_err);
    ck_assert_int_eq(plan != NULL, st == WEFT_OK);
    weft_plan_free(plan);
    free(other);
    return st;
}

START_TEST(wrong_plans_in_files_are_refused)
{
    static const struct { const char *from, *to; weft_status st; const char *says; } bad[] = {
        { "base_sd1.safetensors", "plus_sd1.safetensors", WEFT_E_MISMATCH, "image_prompts[0]: " },
        { "base_sd1.safetensors", "nothing.safetensors", WEFT_E_IO, "image_prompts[0]" },
        { "\"file\"", "\"fill\"", WEFT_E_FORMAT, "image_prompts[0] has no \"file\"" },
        { "\"sha256\"", "\"sha\"", WEFT_E_FORMAT, "sha" },
        { "\"weight\": 0.75", "\"weight\": \"x\"", WEFT_E_FORMAT, "image_prompts[0].weight" },
        { "\"MID=1\"", "\"MIDDLE=1\"", WEFT_E_MISMATCH, "MIDDLE" },
        { "\"MID=1\"", "\"MID=1\", \"images\": 65", WEFT_E_ARG, "images is 65" },
        { "\"MID=1\"", "\"MID=1\", \"role\": \"style\"", WEFT_E_FORMAT, "role" },
    };
    set s = open_set(0);
    json_t *c = json_pack("{s:[{s:s,s:[s],s:f,s:s}]}", "prompts", "kind", "base", "pictures", "tall", "scale", 0.75, "blocks",
                          "MID=1");
    weft_plan *plan = build(&s, c);
    char *text = json_of(plan);
    must(changed(&s, text, "0.75", "0.5"));
    for (size_t i = 0; i < WF_LEN(bad); i++) refused(bad[i].st, bad[i].says, changed(&s, text, bad[i].from, bad[i].to));
    weft_plan_free(plan);
    free(text);
    json_decref(c);
    close_set(&s);
}
END_TEST

/* ---- what explains ---- */

/* What a call costs more with a picture: keys and values of its rows, and attention to them, in the blocks that it reaches;
 * and nothing in the calls where its curve is 0. */
START_TEST(costs_count_the_pictures)
{
    set                s = open_set(1);
    weft_plan         *plain, *plan = build(&s, named_case(&s, "style_layout"));
    weft_run_options   ro = WEFT_RUN_OPTIONS_INIT;
    weft_curve_point   late[2] = { WEFT_CURVE_POINT_INIT, WEFT_CURVE_POINT_INIT };
    weft_call_cost     with[2] = { WEFT_CALL_COST_INIT, WEFT_CALL_COST_INIT }, without[2] = { WEFT_CALL_COST_INIT, WEFT_CALL_COST_INIT };
    size_t             count, reached = 0;
    double             more = 0;
    char              *json = malloc(1 << 20);

    late[1].at = 1, late[1].value = 1; /* nothing in call 0 */
    must(weft_plan_set_image_curve(plan, 0, 0, late, 2, &golden_err));
    must(weft_plan_copy(plan, &plain, &golden_err));
    must(weft_plan_remove_image_prompt(plain, 0, &golden_err));
    must(weft_plan_seal(plan, 2, &golden_err));
    must(weft_plan_seal(plain, 2, &golden_err));
    ro.height = 12, ro.width = 16, ro.flags = WEFT_RUN_FORGET_TEXT;
    must(weft_run_costs(plan, &ro, WEFT_COSTS_GUIDED, with, 2, &golden_err));
    must(weft_run_costs(plain, &ro, WEFT_COSTS_GUIDED, without, 2, &golden_err));
    const wf_layer *l = wf_model_layers(s.model, &count);
    for (size_t i = 0; i < count; i++) {
        bool here = strstr(l[i].name, "up_blocks.0.attentions.1.") != NULL || strstr(l[i].name, "down_blocks.2.attentions.1.") != NULL;
        if (!here || strstr(l[i].name, "attn2.to_q") == NULL) continue;
        reached++;
        more += 2 * (4.0 * 6 * 40 * l[i].out + 4.0 * 6 * (3 * 4) * l[i].out); /* two halves; 6 rows of 40 floats; 3 x 4 pixels */
    }
    ck_assert_uint_eq(reached, 4);
    ck_assert_double_eq(with[1].flops - without[1].flops, more);
    ck_assert_double_eq(with[0].flops, without[0].flops);
    ck_assert_double_gt(with[1].weight_bytes, without[1].weight_bytes);
    must(weft_explain_json(plan, &ro, WEFT_COSTS_GUIDED, json, 1 << 20, NULL, &golden_err));
    json_t *o = json_loads(json, 0, NULL), *p = json_array_get(json_object_get(o, "image_prompts"), 0);
    ck_assert_ptr_nonnull(o);
    ck_assert_str_eq(json_string_value(json_object_get(p, "name")), "plus_sdxl");
    ck_assert_int_eq(json_integer_value(json_object_get(p, "layers")), 4);
    ck_assert_double_eq(json_number_value(json_array_get(json_object_get(p, "calls"), 0)), 0);
    ck_assert_double_eq(json_number_value(json_array_get(json_object_get(p, "calls"), 1)), 1);
    json_decref(o);
    free(json);
    weft_plan_free(plan), weft_plan_free(plain);
    close_set(&s);
}
END_TEST

/* ---- plans ---- */

START_TEST(plans_say_what_they_have)
{
    set s = open_set(1);
    weft_plan *plan = build(&s, named_case(&s, "style_layout"));
    weft_image_prompt_info i = WEFT_IMAGE_PROMPT_INFO_INIT;
    char text[4096];
    must(weft_plan_image_prompt(plan, 0, &i, &golden_err));
    ck_assert_int_eq(i.kind, WEFT_IMAGE_PLUS);
    ck_assert_str_eq(i.name, "plus_sdxl");
    ck_assert_str_eq(i.blocks, "NONE,up_blocks.0.attentions.1*=1,down_blocks.2.attentions.1*=1");
    ck_assert_int_eq(i.tokens, 6);
    ck_assert_int_eq(i.width, 40);
    ck_assert_int_eq(i.images, 1);
    ck_assert_int_eq(i.layers, 4); /* 2 transformer blocks each */
    ck_assert_int_eq(i.masked, 0);
    weft_plan *copy;
    weft_curve_point high = WEFT_CURVE_POINT_INIT;
    high.value = 10;
    must(weft_plan_copy(plan, &copy, &golden_err));
    must(weft_plan_set_image_weight(copy, 0, 3e38f, &golden_err));
    must(weft_plan_set_image_curve(copy, 0, 0, &high, 1, &golden_err));
    refused(WEFT_E_UNSUPPORTED, "its weight and what multiplies it are more than a float holds", weft_plan_seal(copy, 10, &golden_err));
    weft_plan_free(copy);
    refused(WEFT_E_ARG, "image prompt 1 of 1", weft_plan_image_prompt(plan, 1, &i, &golden_err));
    refused(WEFT_E_ARG, "image prompt -1 of 1", weft_plan_image_prompt(plan, -1, &i, &golden_err));
    must(weft_plan_seal(plan, 10, &golden_err));
    must(weft_plan_text(plan, text, sizeof text, NULL, &golden_err));
    ck_assert_msg(strstr(text, "plus_sdxl (plus)  weight 1, 1 picture, 6 rows, at 4 of 17 cross-attentions") != NULL, "%s", text);
    refused(WEFT_E_STATE, "sealed", weft_plan_set_image_weight(plan, 0, 1, &golden_err));
    refused(WEFT_E_STATE, "sealed", weft_plan_remove_image_prompt(plan, 0, &golden_err));
    refused(WEFT_E_UNSUPPORTED, "image prompts", weft_plan_save_model(plan, "/tmp/weft_never", &golden_err));
    weft_adapter *folded;
    refused(WEFT_E_UNSUPPORTED, "image prompts", weft_plan_fold(plan, NULL, &folded, &golden_err));
    ck_assert_int_eq(weft_plan_image_prompts(NULL), 0);
    const weft_curve_point ramp[] = { { sizeof(weft_curve_point), 0, WEFT_CURVE_LINEAR, 0, 0, 0 },
                                      { sizeof(weft_curve_point), 0, WEFT_CURVE_HOLD, 0, 4, 2 } };
    float weights[10];
    must(weft_plan_copy(plan, &copy, &golden_err));
    must(weft_plan_set_image_weight(copy, 0, 3, &golden_err));
    must(weft_plan_set_image_curve(copy, 0, 0, ramp, 2, &golden_err));
    refused(WEFT_E_STATE, "not sealed", weft_plan_image_weights(copy, weights, 10, &golden_err));
    must(weft_plan_seal(copy, 10, &golden_err));
    must(weft_plan_image_weights(copy, weights, 10, &golden_err));
    for (int n = 0; n < 10; n++) ck_assert_float_eq(weights[n], n < 4 ? 1.5f * (float)n : 6);
    refused(WEFT_E_ARG, "len is 9, wanted 10", weft_plan_image_weights(copy, weights, 9, &golden_err));
    refused(WEFT_E_ARG, "weights is NULL", weft_plan_image_weights(copy, NULL, 10, &golden_err));
    weft_plan_free(copy);
    weft_plan_free(plan);
    close_set(&s);
}
END_TEST

START_TEST(plans_refuse)
{
    set s = open_set(0), xl = open_set(1);
    weft_image_adapter *a = open_kind(&s, "base"), *other = open_kind(&xl, "base");
    weft_image_prompt_options o = WEFT_IMAGE_PROMPT_OPTIONS_INIT;
    weft_mask m = WEFT_MASK_INIT;
    weft_plan *plan;
    float v[4] = { 0, 0, 0, 2 };
    must(weft_plan_create(s.model, NULL, &plan, &golden_err));
    refused(WEFT_E_MISMATCH, "IP-Adapter base_sdxl is for a model with 17 cross-attentions over rows of 40; this one (SD1.x) has "
            "11 over rows of 24", weft_plan_add_image_prompt(plan, other, 1, NULL, &golden_err));
    refused(WEFT_E_ARG, "the weight is not a finite number", weft_plan_add_image_prompt(plan, a, NAN, NULL, &golden_err));
    refused(WEFT_E_ARG, "adapter is NULL", weft_plan_add_image_prompt(plan, NULL, 1, NULL, &golden_err));
    o.images = 65;
    refused(WEFT_E_ARG, "images is 65", weft_plan_add_image_prompt(plan, a, 1, &o, &golden_err));
    o.images = 0, o.reserved0 = 1;
    refused(WEFT_E_UNSUPPORTED, "reserved0", weft_plan_add_image_prompt(plan, a, 1, &o, &golden_err));
    o.reserved0 = 0, o.blocks = "1,2,3";
    refused(WEFT_E_ARG, "block weights: 3 numbers", weft_plan_add_image_prompt(plan, a, 1, &o, &golden_err));
    o.blocks = "nothing.here*=1";
    refused(WEFT_E_MISMATCH, "nothing.here*", weft_plan_add_image_prompt(plan, a, 1, &o, &golden_err));
    o.blocks = NULL, o.mask = &m;
    m.values = v, m.len = 4, m.height = 2, m.width = 2;
    refused(WEFT_E_ARG, "not between 0 and 1", weft_plan_add_image_prompt(plan, a, 1, &o, &golden_err));
    m.len = 3;
    refused(WEFT_E_ARG, "a mask of 2 x 2 has 3 values", weft_plan_add_image_prompt(plan, a, 1, &o, &golden_err));
    ck_assert_int_eq(weft_plan_image_prompts(plan), 0);
    for (int i = 0; i < 16; i++) must(weft_plan_add_image_prompt(plan, a, 1, NULL, &golden_err));
    refused(WEFT_E_UNSUPPORTED, "at most 16", weft_plan_add_image_prompt(plan, a, 1, NULL, &golden_err));
    refused(WEFT_E_ARG, "image prompt 16 of 16", weft_plan_set_image_weight(plan, 16, 1, &golden_err));
    refused(WEFT_E_ARG, "not a finite number", weft_plan_set_image_weight(plan, 0, INFINITY, &golden_err));
    refused(WEFT_E_ARG, "image prompt -1 of 16", weft_plan_remove_image_prompt(plan, -1, &golden_err));
    const weft_curve_point back[] = { { sizeof(weft_curve_point), 0, 0, 0, 3, 1 }, { sizeof(weft_curve_point), 0, 0, 0, 1, 1 } };
    refused(WEFT_E_ARG, "a curve goes forwards", weft_plan_set_image_curve(plan, 0, 0, back, 2, &golden_err));
    weft_plan_free(plan);
    weft_image_adapter_free(a), weft_image_adapter_free(other);
    close_set(&s), close_set(&xl);
}
END_TEST

/* ---- calls ---- */

START_TEST(steps_refuse)
{
    set s = open_set(0);
    json_t *c = named_case(&s, "two");
    weft_plan *plan = build(&s, c), *bare;
    weft_run *run;
    reading r;
    size_t n = latents(&s);
    float *out = malloc(n * sizeof *out);
    must(weft_plan_copy(plan, &bare, &golden_err));
    must(weft_plan_remove_image_prompt(bare, 0, &golden_err));
    must(weft_plan_remove_image_prompt(bare, 0, &golden_err));
    must(weft_plan_seal(plan, 10, &golden_err));
    must(weft_plan_seal(bare, 10, &golden_err));
    run = run_of(&s, plan, 1, 1, 0);
    read_case(&r, &s, c, run);
    weft_step good = step_of(&s, c, &r, out), step;
    weft_text two[2];
#define REFUSED(status, says) refused(status, says, weft_run_step(run, &step, &golden_err))
    step = good, step.image = NULL;
    REFUSED(WEFT_E_ARG, "step.image has 0 entries, wanted 2");
    step = good, step.image_count = 1;
    REFUSED(WEFT_E_ARG, "step.image has 1 entries, wanted 2");
    step = good, step.image_negative = NULL;
    REFUSED(WEFT_E_ARG, "step.image_negative has 0 entries, wanted 2");
    step = good, step.negative = NULL, step.negative_count = 0;
    REFUSED(WEFT_E_ARG, "step.image_negative is given, but step.negative is NULL");
    step = good, step.image = two;
    memcpy(two, r.image[1], sizeof two), two[1].tokens = 13;
    REFUSED(WEFT_E_ARG, "step.image[1].tokens is 13, the plan has room for 12");
    memcpy(two, r.image[1], sizeof two), two[1].tokens = 6, two[1].len /= 2;
    REFUSED(WEFT_E_ARG, "step.image_negative[1] has 12 tokens, step.image[1] has 6");
    memcpy(two, r.image[1], sizeof two), two[1].tokens = 0; /* as many as there is room for */
    must(weft_run_step(run, &step, &golden_err));
    memcpy(two, r.image[1], sizeof two), two[0].cross_layers = 11;
    REFUSED(WEFT_E_ARG, "step.image[0].cross_layers is 11, wanted 0");
    memcpy(two, r.image[1], sizeof two), two[0].len -= 1;
    REFUSED(WEFT_E_ARG, "step.image[0].len is 95, wanted 96");
    memcpy(two, r.image[1], sizeof two), two[0].data = NULL;
    REFUSED(WEFT_E_ARG, "step.image[0].data is NULL");
    memcpy(two, r.image[1], sizeof two), two[1].struct_size += 8;
    REFUSED(WEFT_E_ARG, "step.image[1].struct_size");
    step = good;
    r.image[1][1].data[5] = NAN;
    REFUSED(WEFT_E_ARG, "step.image[1]: value 5 of 288 is not finite: nan");
    r.image[1][1].data[5] = 0;
    r.image[0][0].data[1] = INFINITY;
    REFUSED(WEFT_E_ARG, "step.image_negative[0]: value 1 of 96 is not finite: inf");
    r.image[0][0].data[1] = 0;
    must(weft_run_step(run, &good, &golden_err));
    must(weft_run_set_plan(run, bare, &golden_err));
    step = good;
    REFUSED(WEFT_E_ARG, "step.image has 2 entries, wanted 0");
    step.image = step.image_negative = NULL, step.image_count = step.image_negative_count = 0;
    must(weft_run_step(run, &step, &golden_err));
    must(weft_run_set_plan(run, plan, &golden_err));
    must(weft_run_step(run, &good, &golden_err));
    free(out);
    free_reading(&r);
    weft_run_free(run);
    weft_plan_free(plan), weft_plan_free(bare);
    close_set(&s);
}
END_TEST

START_TEST(encoding_refuses)
{
    set s = open_set(0);
    weft_plan *plan = build(&s, named_case(&s, "two"));
    weft_image_encode good = WEFT_IMAGE_ENCODE_INIT, e;
    float rows[512];
    must(weft_plan_seal(plan, 10, &golden_err));
    weft_run *run = run_of(&s, plan, 1, 1, 0);
    float *image = picture(&s, "odd", &good.height, &good.width);
    good.encoder = s.encoder, good.image = image, good.image_len = 3 * 101 * 67, good.data = rows, good.len = 512;
#undef REFUSED
#define REFUSED(status, says) refused(status, says, weft_run_encode_image_prompt(run, &e, &golden_err))
    e = good, e.prompt = 2;
    REFUSED(WEFT_E_ARG, "prompt is 2, the plan has 2 image prompts");
    e = good, e.prompt = -1;
    REFUSED(WEFT_E_ARG, "prompt is -1");
    e = good, e.encoder = NULL;
    REFUSED(WEFT_E_ARG, "encoder is NULL");
    e = good, e.image_len--;
    REFUSED(WEFT_E_ARG, "a picture of 67 x 101 has 20300 floats, wanted 20301");
    e = good, e.height = 0;
    REFUSED(WEFT_E_ARG, "a picture of 67 x 0");
    e = good, e.width = 16385;
    REFUSED(WEFT_E_ARG, "a picture of 16385 x 101");
    e = good, e.len = 95;
    REFUSED(WEFT_E_ARG, "room for 95 floats, wanted 96");
    e = good, e.data = NULL;
    REFUSED(WEFT_E_ARG, "data is NULL");
    e = good, e.flags = 1;
    REFUSED(WEFT_E_UNSUPPORTED, "flag");
    image[7] = NAN;
    e = good;
    REFUSED(WEFT_E_ARG, "image: value 7 of 20301 is not finite: nan");
    image[7] = 0;
    weft_run_cancel(run);
    e = good;
    REFUSED(WEFT_E_CANCELLED, "cancelled");
    must(weft_run_encode_image_prompt(run, &e, &golden_err));
    ck_assert_int_eq(e.tokens, 4);
    e = good, e.encoder = NULL, e.image = NULL; /* base: none needs no encoder */
    must(weft_run_encode_image_prompt(run, &e, &golden_err));
    e.prompt = 1; /* plus does */
    REFUSED(WEFT_E_ARG, "encoder is NULL");
    refused(WEFT_E_ARG, "run is NULL", weft_run_encode_image_prompt(NULL, &e, &golden_err));
    refused(WEFT_E_ARG, "encode is NULL", weft_run_encode_image_prompt(run, NULL, &golden_err));
    free(image);
    weft_run_free(run);
    weft_plan_free(plan);
    close_set(&s);
}
END_TEST

/* An IP-Adapter whose features are those of another encoder: plus reads 32, base 24. */
START_TEST(encoders_must_fit)
{
    set s = open_set(0);
    const weft_allocator heap = wf_allocator(NULL);
    weft_tensors *t, *other;
    weft_tensor_out out[64];
    float *data[64];
    size_t n;
    must(weft_tensors_open(data_path("image_prompts/base_sd1.safetensors"), NULL, &t, &golden_err));
    n = weft_tensors_count(t);
    ck_assert_uint_le(n, 64);
    for (size_t i = 0; i < n; i++) {
        weft_tensor_info info = WEFT_TENSOR_INFO_INIT;
        must(weft_tensors_info(t, i, &info, &golden_err));
        weft_tensor_out_init(&out[i], sizeof out[i]);
        out[i].data = data[i] = calloc(1 << 13, sizeof(float));
        out[i].name = info.name;
        out[i].rank = info.rank;
        memcpy(out[i].shape, info.shape, sizeof info.shape);
        if (strcmp(info.name, "image_proj.proj.weight") == 0) out[i].shape[1] = 32;
    }
    must(weft_tensors_create(out, n, NULL, 0, NULL, &other, &golden_err));
    weft_image_adapter *a;
    must(wf_image_adapter_make(&a, other, "wide.safetensors", &heap, &golden_err));
    weft_plan *plan;
    must(weft_plan_create(s.model, NULL, &plan, &golden_err));
    must(weft_plan_add_image_prompt(plan, a, 1, NULL, &golden_err));
    must(weft_plan_seal(plan, 1, &golden_err));
    weft_run *run = run_of(&s, plan, 1, 1, 0);
    weft_image_encode e = WEFT_IMAGE_ENCODE_INIT;
    float rows[96];
    e.encoder = s.encoder, e.data = rows, e.len = 96;
    refused(WEFT_E_MISMATCH, "IP-Adapter wide reads a pooled vector of 32, the image encoder gives 24",
            weft_run_encode_image_prompt(run, &e, &golden_err));
    weft_run_free(run);
    weft_plan_free(plan);
    weft_image_adapter_free(a);
    for (size_t i = 0; i < n; i++) free(data[i]);
    weft_tensors_free(other), weft_tensors_free(t);
    close_set(&s);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("image prompts");
    TCase *goldens = tcase_create("goldens"), *equal = tcase_create("equal"), *refusals = tcase_create("refusals");
    tcase_add_loop_test(goldens, encoders_are_transformers, 0, 2);
    tcase_add_loop_test(goldens, rows_are_diffusers, 0, 2);
    tcase_add_loop_test(goldens, predictions_are_diffusers, 0, 2);
    tcase_add_test(equal, weight_nought_is_the_base);
    tcase_add_test(equal, weights_and_curves_act);
    tcase_add_test(equal, prompts_add_up_and_pictures_share);
    tcase_add_loop_test(equal, threads_do_not_show, 0, 3);
    tcase_add_test(equal, batches_do_not_show);
    tcase_add_test(equal, keeping_does_not_show);
    tcase_add_test(equal, cached_composite_takes_images);
    tcase_add_test(equal, bytes_are_told);
    tcase_add_test(refusals, nothing_is_left_without_memory);
    tcase_add_test(equal, plans_come_back_from_files);
    tcase_add_test(refusals, wrong_plans_in_files_are_refused);
    tcase_add_test(refusals, costs_count_the_pictures);
    tcase_add_test(refusals, plans_say_what_they_have);
    tcase_add_test(refusals, plans_refuse);
    tcase_add_test(refusals, steps_refuse);
    tcase_add_test(refusals, encoding_refuses);
    tcase_add_test(refusals, encoders_must_fit);
    suite_add_tcase(s, goldens);
    suite_add_tcase(s, equal);
    suite_add_tcase(s, refusals);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
