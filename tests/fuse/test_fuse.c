/* Concepts fused by least squares: every case of fuse.json, which transformers, diffusers and torch made in double; what a
 * fusion promises (one concept comes back, order, threads and groups do not show); what is refused; what happens without
 * memory and when it is stopped. */
#include <stdbool.h>
#include <unistd.h>

#include "../base/support.h"
#include "golden.h"
#include "plain.h"

static weft_model *model;

static void setup(void) { must(weft_model_open(data_path("models/tiny-sd1"), NULL, &model, &golden_err)); }
static void teardown(void) { weft_model_free(model); }

/* ---- helpers --------------------------------------------------------------------------------- */

typedef struct source {
    const char *tokens;  /* a file of concepts, or NULL */
    const char *adapter; /* of adapters, or NULL        */
    const char *select;
    float       weight;
} source;

static const source custom = { "delta.bin", NULL, NULL, 1 };
static const source multi_style = { "multi.bin", "style.safetensors", "*attn2.to_k,*attn2.to_v", 1 };
static const source cat_content = { "cat_toy.safetensors", "content.safetensors", NULL, 0.75f };
static const source dog = { "edlora.pth", NULL, NULL, 1 };
static const source cat_conv = { "cat_toy.safetensors", "sd1_kohya_conv.safetensors", NULL, 1 };
static const source multi_conv = { "multi.bin", "sd1_new_conv.safetensors", NULL, 1 };

static weft_plan *plan_of(const source *s)
{
    weft_add_options o = WEFT_ADD_OPTIONS_INIT;
    weft_concept    *c;
    weft_adapter    *a;
    weft_plan       *p;

    o.select = s->select;
    must(weft_plan_create(model, NULL, &p, &golden_err));
    if (s->tokens != NULL) {
        must(weft_concept_open(data_path("concepts/%s", s->tokens), NULL, &c, &golden_err));
        must(weft_plan_add_concept(p, c, s->weight, NULL, &golden_err));
        weft_concept_free(c);
    }
    if (s->adapter != NULL) {
        must(weft_adapter_open(data_path("adapters/%s", s->adapter), NULL, &a, &golden_err));
        must(weft_plan_add(p, a, s->weight, &o, &golden_err));
        weft_adapter_free(a);
    }
    must(weft_plan_seal(p, 1, &golden_err));
    return p;
}

static weft_status try_draw(weft_fuse *f, const source *s, const char *name, const char *const *prompts, size_t count,
                            uint64_t seed, int32_t images)
{
    weft_fuse_concept c = WEFT_FUSE_CONCEPT_INIT;

    c.plan = plan_of(s);
    c.name = name;
    c.prompts = prompts;
    c.prompts_count = count;
    c.seed = seed;
    c.images = images;
    weft_status st = weft_fuse_add_concept(f, &c, &golden_err);
    weft_plan_free(c.plan); /* the fusion keeps it */
    return st;
}

static weft_status try_add(weft_fuse *f, const source *s, const char *name, const char *const *prompts, size_t count,
                           uint64_t seed)
{
    return try_draw(f, s, name, prompts, count, seed, 0);
}

static weft_fuse_options gradient(void)
{
    weft_fuse_options o = WEFT_FUSE_OPTIONS_INIT;
    o.kind = WEFT_FUSE_GRADIENT;
    o.threads = 2;
    o.height = o.width = 8;
    o.steps = 3;
    o.ridge = 1e-2;
    return o;
}

static weft_fuse_options constrained(void)
{
    weft_fuse_options o = WEFT_FUSE_OPTIONS_INIT;
    o.kind = WEFT_FUSE_CONSTRAINED;
    o.threads = 2;
    return o;
}

static weft_fuse *begun(const weft_fuse_options *o)
{
    weft_fuse *f;
    must(weft_fuse_create(model, o, &f, &golden_err));
    return f;
}

static const char *const captions[] = {
    "two people in the street", "a red car", "photo of a house near the sea", "the sun over green hills", "an old man reads",
    "dog and cat", "night", "children play with a ball in the garden", "what a big tree", "snow", "a cup of tea on the table",
    "boats at sunset, wide angle", "black and white portrait"
};
enum { CAPTIONS = sizeof captions / sizeof captions[0] };

/* The two concepts of a constrained fusion. */
static void add_pair(weft_fuse *f)
{
    static const char *const a[] = { "<new1> cat" }, *const b[] = { "a <multi>" };
    must(try_add(f, &custom, NULL, a, 1, 0));
    must(try_add(f, &multi_style, NULL, b, 1, 0));
    must(weft_fuse_add_captions(f, captions, CAPTIONS, &golden_err));
}

static weft_fuse_row row_of(const weft_fuse *f, const char *layer)
{
    weft_fuse_row row = WEFT_FUSE_ROW_INIT;

    for (size_t i = 0; i < weft_fuse_count(f); i++) {
        must(weft_fuse_get(f, i, &row, &golden_err));
        if (strcmp(row.layer, layer) == 0) return row;
    }
    ck_abort_msg("%s was not fused", layer);
    return row;
}

/* The adapter as a file has it. */
static weft_tensors *written(weft_adapter *a)
{
    const char   *dir = test_dir();
    char          path[300];
    weft_tensors *t;
    weft_tensors_options o = WEFT_TENSORS_OPTIONS_INIT;

    o.flags = WEFT_OPEN_COPY;
    snprintf(path, sizeof path, "%s/fused.safetensors", dir);
    must(weft_adapter_save(a, model, path, NULL, &golden_err));
    must(weft_tensors_open(path, &o, &t, &golden_err));
    ck_assert_int_eq(unlink(path), 0);
    test_rmdir(dir);
    return t;
}

/* "unet.a.b" is "lora_unet_a_b.diff". */
static golden difference(const weft_tensors *t, const char *layer)
{
    char        key[400];
    bool        text = strncmp(layer, "text_encoder.", 13) == 0;
    size_t      n = (size_t)snprintf(key, sizeof key, "lora_%s_%s.diff", text ? "te" : "unet", layer + (text ? 13 : 5));

    for (size_t i = 0; i + 5 < n; i++)
        if (key[i] == '.') key[i] = '_';
    return golden_read(t, "%s", key);
}

/* Both adapters have the same layers, and their differences are this near; 0: the same bits. */
static void same_adapters(weft_adapter *a, weft_adapter *b, double limit)
{
    weft_tensors    *x = written(a), *y = written(b);
    weft_tensor_info info = WEFT_TENSOR_INFO_INIT;

    ck_assert_uint_eq(weft_tensors_count(x), weft_tensors_count(y));
    for (size_t i = 0; i < weft_tensors_count(x); i++) {
        must(weft_tensors_info(x, i, &info, &golden_err));
        golden p = golden_read(x, "%s", info.name), q = golden_read(y, "%s", info.name);
        if (limit > 0) near_golden(info.name, p.v, q.v, p.n, limit);
        else ck_assert_mem_eq(p.v, q.v, p.n * sizeof *p.v);
        free(p.v), free(q.v);
    }
    weft_tensors_free(x), weft_tensors_free(y);
}

/* ---- against torch --------------------------------------------------------------------------- */

static double number(json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }

static void near(const char *what, double got, double want, double limit)
{
    ck_assert_msg(fabs(got - want) <= limit * fabs(want), "%s: %.9g, wanted %.9g", what, got, want);
}

static void check_rows(const weft_fuse *f, json_t *layers, bool holds, double tight)
{
    const char *layer;
    json_t     *want;

    json_object_foreach(layers, layer, want) {
        weft_fuse_row row = row_of(f, layer);
        double limit = strstr(layer, "time_emb") != NULL ? 1e-4 : tight; /* torch has its angles in float32 */
        ck_assert_int_eq(row.rows, json_integer_value(json_object_get(want, "rows")));
        near(layer, row.before, number(want, "before"), 1e-4);
        near(layer, row.norm, number(want, "norm"), limit);
        ck_assert_double_eq(row.jitter, 0);
        if (holds) {
            ck_assert_msg(row.residual < 1e-4, "%s: residual %g", layer, row.residual);
            near(layer, row.drift, number(want, "drift"), 10 * limit);
        } else {
            near(layer, row.after, number(want, "after"), 10 * limit);
            near(layer, row.residual, row.before > 0 ? sqrt(row.after / row.before) : 0, 1e-12);
        }
    }
}

static json_t *case_named(json_t *index, const char *name)
{
    json_t *cases = json_object_get(index, "cases");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        json_t *c = json_array_get(cases, i);
        if (strcmp(json_string_value(json_object_get(c, "name")), name) == 0) return c;
    }
    ck_abort_msg("no case %s", name);
    return NULL;
}

/* What a difference D (out, K) makes of rows (n, K). */
static float *effect(const golden *d, const golden *rows, size_t k, size_t *n)
{
    size_t out = d->n / k, m = rows->n / k;
    float *y = malloc((*n = out * m) * sizeof *y);

    for (size_t i = 0; i < m; i++)
        for (size_t o = 0; o < out; o++) {
            double sum = 0;
            for (size_t j = 0; j < k; j++) sum += (double)rows->v[i * k + j] * d->v[o * k + j];
            y[i * out + o] = (float)sum;
        }
    return y;
}

/* With `rows` the differences are compared by what they make of the rows that they were found from. */
static void check_case_on(const char *name, weft_fuse *f, double limit, const golden *rows, size_t k, double on_rows)
{
    json_t       *index = golden_json("fuse.json"), *c = case_named(index, name);
    weft_tensors *want = golden_open("fuse.safetensors"), *got;
    weft_tensor_info info = WEFT_TENSOR_INFO_INIT;
    weft_adapter *a;
    size_t        n = strlen(name), seen = 0;

    must(weft_fuse_run(f, &a, &golden_err));
    check_rows(f, json_object_get(c, "layers"), json_object_get(c, "captions") != NULL, limit);
    got = written(a);
    for (size_t i = 0; i < weft_tensors_count(want); i++) {
        must(weft_tensors_info(want, i, &info, &golden_err));
        if (strncmp(info.name, name, n) != 0 || info.name[n] != '/') continue;
        golden p = difference(got, info.name + n + 1), q = golden_read(want, "%s", info.name);
        ck_assert_uint_eq(p.n, q.n);
        if (rows != NULL) {
            size_t n;
            float *a_rows = effect(&p, rows, k, &n), *b_rows = effect(&q, rows, k, &n);
            near_golden(info.name, a_rows, b_rows, n, on_rows);
            free(a_rows), free(b_rows);
        } else {
            near_golden(info.name, p.v, q.v, p.n, limit);
        }
        free(p.v), free(q.v);
        seen++;
    }
    ck_assert_uint_ge(seen, 2);
    weft_tensors_free(got), weft_tensors_free(want);
    weft_adapter_free(a);
    json_decref(index);
}

static void check_case(const char *name, weft_fuse *f, double limit)
{
    check_case_on(name, f, limit, NULL, 0, 0);
}

START_TEST(constraints_as_a_lagrange_system)
{
    weft_fuse_options o = constrained();
    weft_fuse        *f = begun(&o);

    add_pair(f);
    check_case("constrained", f, 3e-4); /* rows in float32, nearly collinear: the difference is 200 times the wish */
    weft_fuse_free(f);
}
END_TEST

/* In the authors' way the tokens of "photo of" do not count. */
START_TEST(photos_words_may_be_skipped)
{
    static const char *const a[] = { "photo of a <new1>" }, *const b[] = { "<multi>", "photo of a <multi>" };
    weft_fuse_options o = constrained();

    o.flags = WEFT_FUSE_SKIP_PHOTO;
    weft_fuse *f = begun(&o);
    must(try_add(f, &custom, NULL, a, 1, 0));
    must(try_add(f, &multi_style, NULL, b, 2, 0));
    must(weft_fuse_add_captions(f, captions, 5, &golden_err));
    must(weft_fuse_add_captions(f, captions + 5, CAPTIONS - 5, &golden_err));
    /* Along one direction, that of the last norm's bias, no row has more than 1e-3 of its length. What a difference does there
     * is rounding, so two are compared by what they make of the rows. */
    weft_tensors *t = golden_open("fuse.safetensors");
    golden rows = golden_read(t, "skip_photo rows");
    check_case_on("skip_photo", f, 3e-4, &rows, (size_t)rows.shape[1], 1e-4);
    free(rows.v);
    weft_tensors_free(t);
    weft_fuse_free(f);
}
END_TEST

/* ED-LoRA, whose words have a vector for each cross-attention, with a LoRA on both networks: names and prompts are made
 * from the tokens. */
START_TEST(text_then_keys_then_images)
{
    weft_fuse_options o = gradient();
    weft_fuse        *f = begun(&o);

    must(try_add(f, &dog, NULL, NULL, 0, 5));
    must(try_add(f, &cat_content, NULL, NULL, 0, 6));
    check_case("gradient", f, 1e-5);
    weft_fuse_free(f);
}
END_TEST

START_TEST(convolutions_are_fused_too)
{
    static const char *const a[] = { "a <cat-toy>", "<cat-toy>" }, *const b[] = { "a <multi>" };
    weft_fuse_options o = gradient();
    weft_fuse        *f = begun(&o);

    must(try_draw(f, &cat_conv, NULL, a, 2, 7, 3)); /* the third from the first prompt again */
    must(try_add(f, &multi_conv, NULL, b, 1, 8));
    check_case("conv", f, 1e-5);
    weft_fuse_free(f);
}
END_TEST

/* ---- adapters that are routed ---------------------------------------------------------------- */

static const source multi_all = { "multi.bin", "style.safetensors", NULL, 1 };
static const source boat = { NULL, "sd1_kohya_conv.safetensors", NULL, -0.5f };
static const source tree = { NULL, "sd1_new_conv.safetensors", NULL, 1 };

static weft_fuse_options routed(void)
{
    weft_fuse_options o = WEFT_FUSE_OPTIONS_INIT;
    o.kind = WEFT_FUSE_ROUTED;
    o.threads = 2;
    o.height = o.width = 8;
    return o;
}

/* The concepts of make_fuse.py. */
static weft_fuse *routed_concepts(const weft_fuse_options *o, int32_t images)
{
    static const char *const a[] = { "photo of a <cat-toy>", "<cat-toy>" }, *const b[] = { "a house <multi>" },
                      *const c[] = { "a boat at night" }, *const d[] = { "a tree" };
    weft_fuse *f = begun(o);

    must(try_draw(f, &cat_content, NULL, a, 2, 5, images));
    must(try_draw(f, &multi_all, NULL, b, 1, 6, images));
    must(try_draw(f, &boat, "boat", c, 1, 7, 1));
    if (images > 1) must(try_draw(f, &tree, "tree", d, 1, 8, 1));
    return f;
}

/* Factors of a layer in a file, and the file's scale. */
typedef struct pair { golden down, up; double scale; size_t rank, out, K; } pair;

static pair pair_of(const weft_tensors *t, const char *layer)
{
    char        stem[400];
    bool        text = strncmp(layer, "text_encoder.", 13) == 0;
    size_t      n = (size_t)snprintf(stem, sizeof stem, "lora_%s_%s", text ? "te" : "unet", layer + (text ? 13 : 5));
    pair        p;

    for (size_t i = 0; i < n; i++)
        if (stem[i] == '.') stem[i] = '_';
    golden alpha = golden_read(t, "%s.alpha", stem);
    p.down = golden_read(t, "%s.lora_down.weight", stem);
    p.up = golden_read(t, "%s.lora_up.weight", stem);
    p.rank = (size_t)p.down.shape[0];
    p.out = p.up.n / p.rank;
    p.K = p.down.n / p.rank;
    p.scale = (double)alpha.v[0] / (double)p.rank;
    free(alpha.v);
    return p;
}

/* scale B A, for free(). */
static float *product_of(const pair *p)
{
    float *D = calloc(p->out * p->K, sizeof *D);

    for (size_t o = 0; o < p->out; o++)
        for (size_t k = 0; k < p->K; k++) {
            double sum = 0;
            for (size_t r = 0; r < p->rank; r++)
                sum += (double)p->up.v[o * p->rank + r] * (double)p->down.v[r * p->K + k];
            D[o * p->K + k] = (float)(p->scale * sum);
        }
    return D;
}

/* A file of adapters under kohya's names. */
static weft_tensors *as_written(const char *file)
{
    weft_adapter *a;

    must(weft_adapter_open(data_path("adapters/%s", file), NULL, &a, &golden_err));
    weft_tensors *t = written(a);
    weft_adapter_free(a);
    return t;
}

static void free_pair(pair *p) { free(p->down.v), free(p->up.v); }

/* A ridge of 1e-4 lets float32's rounding of what layers read grow where a layer has 12 rows: 1.4e-5 there. */
START_TEST(routes_as_the_least_squares_of_torch)
{
    const char       *name = _i == 0 ? "routed" : "routed_more";
    weft_fuse_options o = routed();
    weft_tensor_info  info = WEFT_TENSOR_INFO_INIT;
    weft_adapter     *a;
    size_t            n = strlen(name), seen = 0;

    if (_i == 1) o.ridge = 1e-2, o.steps = 2;
    weft_fuse    *f = routed_concepts(&o, _i == 0 ? 1 : 2);
    json_t       *index = golden_json("fuse.json");
    weft_tensors *want = golden_open("fuse.safetensors");
    must(weft_fuse_run(f, &a, &golden_err));
    check_rows(f, json_object_get(case_named(index, name), "layers"), false, 1e-5);
    weft_tensors *got = written(a);
    for (size_t i = 0; i < weft_tensors_count(want); i++) {
        must(weft_tensors_info(want, i, &info, &golden_err));
        if (strncmp(info.name, name, n) != 0 || info.name[n] != '/') continue;
        pair   p = pair_of(got, info.name + n + 1);
        golden q = golden_read(want, "%s", info.name);
        float *D = product_of(&p);
        ck_assert_uint_eq(p.out * p.K, q.n);
        near_golden(info.name, D, q.v, q.n, _i == 0 ? 4e-5 : 1e-5);
        free(D), free(q.v);
        free_pair(&p);
        seen++;
    }
    ck_assert_uint_ge(seen, 9);
    weft_tensors_free(got), weft_tensors_free(want);
    weft_adapter_free(a);
    weft_fuse_free(f);
    json_decref(index);
}
END_TEST

/* One adapter alone, and each where it is alone: its own factors, with scale and weight. */
START_TEST(what_is_alone_is_passed_through)
{
    weft_fuse_options o = routed();
    weft_fuse_info    info = WEFT_FUSE_INFO_INIT;
    weft_fuse        *f = begun(&o);
    weft_adapter     *a;
    const char       *layers[] = { "unet.down_blocks.0.resnets.0.conv1", "unet.mid_block.attentions.0.proj_in" };

    must(try_add(f, &boat, "boat", NULL, 0, 0));
    must(weft_fuse_info_get(f, &info, &golden_err));
    ck_assert_int_eq(info.calls + info.prompts + info.passes, 0);
    must(weft_fuse_run(f, &a, &golden_err));
    weft_tensors *got = written(a), *given = as_written("sd1_kohya_conv.safetensors");
    for (int i = 0; i < 2; i++) {
        pair p = pair_of(got, layers[i]), q = pair_of(given, layers[i]);
        ck_assert_uint_eq(p.rank, q.rank);
        ck_assert_mem_eq(p.down.v, q.down.v, p.down.n * sizeof(float));
        q.scale *= -0.5;
        float *x = product_of(&p), *y = product_of(&q);
        near_golden(layers[i], x, y, p.out * p.K, 1e-6);
        weft_fuse_row row = row_of(f, layers[i]);
        ck_assert_int_eq(row.rows, 0);
        ck_assert_int_eq(row.concepts, 1);
        free(x), free(y);
        free_pair(&p), free_pair(&q);
    }
    weft_tensors_free(got), weft_tensors_free(given);
    weft_adapter_free(a);
    weft_fuse_free(f);
}
END_TEST

/* The same adapter under two prompts is one adapter, where a sum counts it twice: with z = [y; y], M [y; y] = [y; 0] or
 * [0; y], whichever it is for, and B [y; y] M A is B A. */
START_TEST(one_adapter_twice_counts_once)
{
    const source      only = { NULL, "content.safetensors", NULL, 1 };
    const char       *layer = "unet.down_blocks.1.attentions.1.transformer_blocks.0.attn1.to_v";
    weft_fuse_options o = routed();
    weft_adapter     *a;

    o.ridge = 1e-9;
    weft_fuse *f = begun(&o);
    must(try_add(f, &only, "a cat", NULL, 0, 1));
    must(try_add(f, &only, "a house", NULL, 0, 2));
    must(weft_fuse_run(f, &a, &golden_err));
    weft_tensors *got = written(a), *given = as_written("content.safetensors");
    pair   p = pair_of(got, layer), q = pair_of(given, layer);
    float *x = product_of(&p), *y = product_of(&q);
    ck_assert_uint_eq(p.rank, 2 * q.rank);
    near_golden(layer, x, y, p.out * p.K, 1e-4);
    free(x), free(y);
    free_pair(&p), free_pair(&q);
    weft_tensors_free(got), weft_tensors_free(given);
    weft_adapter_free(a);
    weft_fuse_free(f);
}
END_TEST

START_TEST(routing_has_the_same_bits_on_any_threads)
{
    weft_fuse_options o = routed();
    weft_fuse_info    info = WEFT_FUSE_INFO_INIT;
    weft_adapter     *a[3];

    for (int i = 0; i < 2; i++) {
        o.threads = i == 0 ? 1 : 3;
        weft_fuse *f = routed_concepts(&o, 1);
        must(weft_fuse_info_get(f, &info, &golden_err));
        must(weft_fuse_run(f, &a[i], &golden_err));
        if (i == 1) {
            must(weft_fuse_run(f, &a[2], &golden_err)); /* and again */
            same_adapters(a[1], a[2], 0);
            weft_adapter_free(a[2]);
        }
        weft_fuse_free(f);
    }
    ck_assert_int_eq(info.passes, 1);
    ck_assert_int_eq(info.calls, 3);
    ck_assert_int_eq(info.prompts, 3);
    same_adapters(a[0], a[1], 0);
    weft_adapter_free(a[0]), weft_adapter_free(a[1]);
}
END_TEST

/* Two subjects: on what each one reads, the routed adapter is nearer to it than the sum is. */
START_TEST(routing_is_no_worse_than_the_sum_on_its_rows)
{
    weft_fuse_options o = routed();
    weft_fuse        *f = routed_concepts(&o, 1);
    weft_adapter     *a;
    weft_fuse_row     row = WEFT_FUSE_ROW_INIT;
    size_t            shared = 0;

    must(weft_fuse_run(f, &a, &golden_err));
    for (size_t i = 0; i < weft_fuse_count(f); i++) {
        must(weft_fuse_get(f, i, &row, &golden_err));
        ck_assert_double_eq(row.jitter, 0);
        if (row.concepts == 1) continue;
        shared++;
        ck_assert_int_gt(row.rows, 0);
        ck_assert_double_lt(row.residual, 1); /* M = 0 has 1 */
    }
    ck_assert_uint_gt(shared, 20);
    weft_adapter_free(a);
    weft_fuse_free(f);
}
END_TEST

static void suite_routed(Suite *s)
{
    TCase *t = tcase_create("routed");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, routes_as_the_least_squares_of_torch, 0, 2);
    tcase_add_test(t, what_is_alone_is_passed_through);
    tcase_add_test(t, one_adapter_twice_counts_once);
    tcase_add_test(t, routing_has_the_same_bits_on_any_threads);
    tcase_add_test(t, routing_is_no_worse_than_the_sum_on_its_rows);
    suite_add_tcase(s, t);
}

static void suite_goldens(Suite *s)
{
    TCase *t = tcase_create("against torch");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, constraints_as_a_lagrange_system);
    tcase_add_test(t, photos_words_may_be_skipped);
    tcase_add_test(t, text_then_keys_then_images);
    tcase_add_test(t, convolutions_are_fused_too);
    suite_add_tcase(s, t);
}

/* ---- what a fusion promises ------------------------------------------------------------------ */

/* One concept alone: on its own rows the fused weight is its weight. */
START_TEST(one_concept_comes_back)
{
    const source     *one[] = { &custom, &dog, &cat_content, &cat_conv };
    weft_fuse_row     row = WEFT_FUSE_ROW_INIT;
    weft_fuse_options o = _i == 0 ? constrained() : gradient();
    weft_adapter     *a;

    if (_i > 0) o.ridge = 1e-6;
    weft_fuse *f = begun(&o);
    must(try_add(f, one[_i], NULL, NULL, 0, 1));
    if (_i == 0) must(weft_fuse_add_captions(f, captions, CAPTIONS, &golden_err));
    must(weft_fuse_run(f, &a, &golden_err));
    ck_assert_uint_gt(weft_fuse_count(f), 0);
    for (size_t i = 0; i < weft_fuse_count(f); i++) {
        must(weft_fuse_get(f, i, &row, &golden_err));
        ck_assert_int_eq(row.concepts, 1);
        ck_assert_double_gt(row.norm, 0);
        ck_assert_msg(row.residual < (_i == 0 ? 1e-4 : 2e-3), "%s: residual %g", row.layer, row.residual);
    }
    weft_adapter_free(a);
    weft_fuse_free(f);
}
END_TEST

/* Two text encoders, of which the first leaves out its last layer, whose weights then nobody reads; text side by side in
 * one row. */
START_TEST(one_concept_comes_back_in_sdxl)
{
    weft_fuse_options    o = gradient();
    weft_fuse_concept    given = WEFT_FUSE_CONCEPT_INIT;
    weft_concept_options pair = WEFT_CONCEPT_OPTIONS_INIT;
    weft_fuse_row        row = WEFT_FUSE_ROW_INIT;
    weft_model          *xl;
    weft_concept        *c;
    weft_adapter        *a, *fused;
    weft_fuse           *f;
    size_t               stages[3] = { 0 }, unread = 0;

    o.ridge = 1e-6;
    must(weft_model_open(data_path("models/tiny-sdxl"), NULL, &xl, &golden_err));
    pair.second = data_path("concepts/pair_2.bin");
    must(weft_concept_open(data_path("concepts/pair_1.safetensors"), &pair, &c, &golden_err));
    must(weft_adapter_open(data_path("adapters/sdxl_kohya.safetensors"), NULL, &a, &golden_err));
    must(weft_plan_create(xl, NULL, &given.plan, &golden_err));
    must(weft_plan_add_concept(given.plan, c, 1, NULL, &golden_err));
    must(weft_plan_add(given.plan, a, 1, NULL, &golden_err));
    must(weft_plan_seal(given.plan, 1, &golden_err));
    must(weft_fuse_create(xl, &o, &f, &golden_err));
    must(weft_fuse_add_concept(f, &given, &golden_err));
    must(weft_fuse_run(f, &fused, &golden_err));
    for (size_t i = 0; i < weft_fuse_count(f); i++) {
        must(weft_fuse_get(f, i, &row, &golden_err));
        ck_assert_msg(row.residual < 2e-3, "%s: residual %g", row.layer, row.residual);
        if (row.rows == 0) {
            ck_assert_msg(strstr(row.layer, "text_encoder.") == row.layer, "%s has no rows", row.layer);
            unread++;
        }
        stages[strncmp(row.layer, "text_encoder_2", 14) == 0 ? 1 : strncmp(row.layer, "text", 4) == 0 ? 0 : 2]++;
    }
    for (int i = 0; i < 3; i++) ck_assert_uint_gt(stages[i], 0);
    ck_assert_uint_lt(unread, stages[0]);
    weft_adapter_free(a), weft_adapter_free(fused);
    weft_concept_free(c);
    weft_plan_free(given.plan);
    weft_fuse_free(f);
    weft_model_free(xl);
}
END_TEST

/* A concept's prediction with its own adapter, and with the fused one: tokens by the concept at weight 0. */
static float *predict(const source *tokens, weft_adapter *fused, const char *prompt, bool own, size_t *n)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_step        step = WEFT_STEP_INIT;
    weft_encode      e = WEFT_ENCODE_INIT;
    weft_text        text = WEFT_TEXT_INIT;
    weft_noise      *noise;
    weft_plan       *p;
    weft_run        *r;
    source           s = *tokens;

    o.threads = 2, o.height = o.width = 8, o.text_tokens = 77;
    if (own) {
        p = plan_of(&s);
    } else {
        weft_concept *c;
        must(weft_concept_open(data_path("concepts/%s", s.tokens), NULL, &c, &golden_err));
        must(weft_plan_create(model, NULL, &p, &golden_err));
        must(weft_plan_add_concept(p, c, 0, NULL, &golden_err));
        if (fused != NULL) must(weft_plan_add(p, fused, 1, NULL, &golden_err));
        must(weft_plan_seal(p, 1, &golden_err));
        weft_concept_free(c);
    }
    must(weft_run_create(p, &o, &r, &golden_err));
    must(weft_run_text(r, 0, 1, &text, &golden_err));
    text.data = calloc(text.len, sizeof *text.data);
    e.prompt = prompt, e.text = &text, e.text_count = 1;
    must(weft_run_encode(r, &e, &golden_err));
    *n = 4 * 8 * 8;
    float *x = calloc(2 * *n, sizeof *x), *out = x + *n;
    must(weft_noise_create(3, NULL, &noise, &golden_err));
    must(weft_noise_normal(noise, x, *n, &golden_err));
    step.latent = x, step.out = out, step.latent_len = step.out_len = *n;
    step.text = &text, step.text_count = 1, step.timestep = 600;
    must(weft_run_step(r, &step, &golden_err));
    memcpy(x, out, *n * sizeof *x);
    weft_noise_free(noise);
    free(text.data);
    weft_run_free(r);
    weft_plan_free(p);
    return x;
}

/* Two concepts in one adapter: each draws like itself, and less like the model without it. */
START_TEST(the_fused_adapter_stands_for_both)
{
    const source      cat = { "cat_toy.safetensors", "content.safetensors", NULL, 1 },
                      many = { "multi.bin", "style.safetensors", NULL, 1 }, *pair[] = { &cat, &many };
    const char       *prompts[] = { "photo of a <cat-toy>", "photo of a <multi>" };
    weft_fuse_options o = gradient();
    weft_adapter     *fused;

    o.ridge = 0;
    weft_fuse *f = begun(&o);
    for (int i = 0; i < 2; i++) must(try_add(f, pair[i], NULL, NULL, 0, (uint64_t)i));
    must(weft_fuse_run(f, &fused, &golden_err));
    for (int i = 0; i < 2; i++) {
        size_t n;
        float *want = predict(pair[i], NULL, prompts[i], true, &n), *got = predict(pair[i], fused, prompts[i], false, &n);
        float *base = predict(pair[i], NULL, prompts[i], false, &n);
        double by_fusion = 0, by_model = 0;
        (void)relative(got, want, n, &by_fusion);
        (void)relative(base, want, n, &by_model);
        if (getenv("GOLDEN_SHOW") != NULL) printf("%s: fused %g, model %g\n", prompts[i], by_fusion, by_model);
        ck_assert_msg(by_fusion < 0.9 * by_model, "%s: fused %g, model %g", prompts[i], by_fusion, by_model);
        free(want), free(got), free(base);
    }
    weft_adapter_free(fused);
    weft_fuse_free(f);
}
END_TEST

static weft_adapter *fuse_two(const source *a, const source *b, const weft_fuse_options *o, weft_fuse_info *info)
{
    weft_fuse    *f = begun(o);
    weft_adapter *out;

    must(try_add(f, a, NULL, NULL, 0, strcmp(a->tokens, "edlora.pth") == 0 ? 5 : 6));
    must(try_add(f, b, NULL, NULL, 0, strcmp(b->tokens, "edlora.pth") == 0 ? 5 : 6));
    if (o->kind == WEFT_FUSE_CONSTRAINED) must(weft_fuse_add_captions(f, captions, CAPTIONS, &golden_err));
    if (info != NULL) must(weft_fuse_info_get(f, info, &golden_err));
    must(weft_fuse_run(f, &out, &golden_err));
    weft_fuse_free(f);
    return out;
}

START_TEST(order_shows_in_rounding_only)
{
    weft_fuse_options o = gradient();
    weft_adapter     *a = fuse_two(&dog, &cat_content, &o, NULL), *b = fuse_two(&cat_content, &dog, &o, NULL);

    same_adapters(a, b, 1e-5);
    weft_adapter_free(a), weft_adapter_free(b);
}
END_TEST

/* Threads, and groups of layers that each draw the images anew, change no bit. */
START_TEST(threads_and_groups_do_not_show)
{
    weft_fuse_options o = gradient();
    weft_fuse_info    whole = WEFT_FUSE_INFO_INIT, parts = WEFT_FUSE_INFO_INIT;

    o.threads = 1;
    weft_adapter *a = fuse_two(&dog, &cat_content, &o, &whole);
    o.threads = 3;
    o.budget = 100000;
    weft_adapter *b = fuse_two(&dog, &cat_content, &o, &parts);
    same_adapters(a, b, 0);
    ck_assert_int_eq(whole.passes, 1);
    ck_assert_int_ge(parts.passes, 3);
    ck_assert_int_eq(whole.calls, 6);
    ck_assert_int_eq(parts.calls, 6 * parts.passes);
    ck_assert_int_eq(whole.prompts, 2 * 2 + 2 * 2 + 2);
    ck_assert_int_eq(whole.layers, 100);
    ck_assert_int_eq(whole.concepts, 2);
    ck_assert_uint_le(parts.bytes, whole.bytes);
    weft_adapter_free(a), weft_adapter_free(b);
}
END_TEST

/* No group's sums are past the budget: beside them there are the weights, twice. */
START_TEST(groups_keep_to_the_budget)
{
    const source      only = { "cat_toy.safetensors", "content.safetensors", "*attn1*", 1 };
    weft_fuse_options o = gradient();
    weft_fuse_info    info[2] = { WEFT_FUSE_INFO_INIT, WEFT_FUSE_INFO_INIT };
    weft_layer_info   l = WEFT_LAYER_INFO_INIT;
    weft_model_info   m = WEFT_MODEL_INFO_INIT;
    uint64_t          weights = 0, largest = 0;

    must(weft_model_info_get(model, &m, &golden_err));
    for (int64_t i = 0; i < m.layers; i++) {
        must(weft_model_layer(model, i, &l, &golden_err));
        if (strstr(l.name, ".attn1.") == NULL) continue;
        uint64_t in = (uint64_t)l.in, out = (uint64_t)l.out, sums = 8 * (2 * in * in + 3 * out * in);
        weights += 2 * 4 * in * out;
        largest = sums > largest ? sums : largest;
    }
    for (int i = 0; i < 2; i++) {
        o.budget = i == 0 ? 0 : largest;
        weft_fuse *f = begun(&o);
        must(try_add(f, &only, NULL, NULL, 0, 0));
        must(weft_fuse_info_get(f, &info[i], &golden_err));
        weft_fuse_free(f);
    }
    ck_assert_int_eq(info[0].passes, 1);
    ck_assert_int_gt(info[1].passes, 4);
    ck_assert_uint_gt(info[0].bytes, weights + 4 * largest);
    ck_assert_uint_le(info[1].bytes, weights + largest);
    ck_assert_uint_ge(info[1].bytes, weights + largest / 2);
}
END_TEST

/* What is said beforehand is what is taken, besides a run and the concepts themselves. */
START_TEST(memory_is_said_before_it_is_taken)
{
    test_memory       m;
    weft_allocator    alloc = test_allocator(&m);
    weft_fuse_options o = gradient();
    weft_fuse_info    info = WEFT_FUSE_INFO_INIT;
    weft_run_options  ro = WEFT_RUN_OPTIONS_INIT;
    uint64_t          run;
    weft_adapter     *a;

    o.allocator = &alloc;
    o.height = o.width = 4;
    weft_fuse *f = begun(&o);
    must(try_add(f, &cat_conv, NULL, NULL, 0, 0));
    must(weft_fuse_info_get(f, &info, &golden_err));
    size_t before = m.live_bytes;
    weft_plan *p = plan_of(&cat_conv);
    ro.threads = 2, ro.height = ro.width = 4, ro.text_tokens = 77;
    must(weft_run_bytes(p, &ro, &run, &golden_err));
    must(weft_fuse_run(f, &a, &golden_err));
    double taken = (double)(m.peak_bytes - before), said = (double)info.bytes;
    ck_assert_msg(taken < said + 2 * (double)run, "%g taken, %g said, a run has %g", taken, said, (double)run);
    ck_assert_msg(said < taken, "%g taken, %g said", taken, said);
    weft_plan_free(p);
    weft_adapter_free(a);
    weft_fuse_free(f);
    ck_assert_uint_eq(m.live_blocks, 0);
}
END_TEST

/* Saved, opened, and factored to a rank. */
START_TEST(the_result_is_an_adapter)
{
    weft_fuse_options  o = constrained();
    weft_merge_source  s = WEFT_MERGE_SOURCE_INIT;
    weft_merge_options to = WEFT_MERGE_OPTIONS_INIT;
    weft_adapter_info  info = WEFT_ADAPTER_INFO_INIT;
    weft_adapter      *low;
    weft_merge_report *report;

    o.name = "both";
    s.adapter = fuse_two(&custom, &multi_style, &o, NULL);
    must(weft_adapter_info_get(s.adapter, &info, &golden_err));
    ck_assert_str_eq(info.name, "both");
    ck_assert_int_eq(info.modules, 22);
    s.weight = 1;
    to.rank = 12;
    must(weft_adapter_merge(model, &s, 1, &to, &low, &report, &golden_err));
    ck_assert_uint_eq(weft_merge_report_count(report), 22);
    for (size_t i = 0; i < 22; i++) {
        weft_merge_row row = WEFT_MERGE_ROW_INIT;
        must(weft_merge_report_get(report, i, &row, &golden_err));
        ck_assert_int_le(row.rank, 12);
        ck_assert_double_lt(row.error, 0.1);
    }
    weft_merge_report_free(report);
    weft_adapter_free(low);
    weft_adapter_free(s.adapter);
}
END_TEST

/* Tokens alone hold the weights where they stand. */
START_TEST(tokens_alone_pull_towards_the_model)
{
    const source      only = { "cat_toy.safetensors", NULL, NULL, 1 };
    weft_fuse_options o = gradient();
    double            norm[2];

    for (int i = 0; i < 2; i++) {
        weft_adapter *a;
        weft_fuse    *f = begun(&o);
        must(try_add(f, &dog, NULL, NULL, 0, 5));
        if (i == 1) must(try_add(f, &only, NULL, NULL, 0, 6));
        must(weft_fuse_run(f, &a, &golden_err));
        weft_fuse_row row = row_of(f, "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k");
        norm[i] = row.norm;
        ck_assert_int_eq(row.concepts, 1);
        ck_assert_int_eq(row.rows, i == 0 ? 6 : 10);
        weft_adapter_free(a);
        weft_fuse_free(f);
    }
    ck_assert_double_ne(norm[0], norm[1]);
}
END_TEST

/* A fusion goes on: another concept, another run; its rows are those of the last. */
START_TEST(a_fusion_may_run_again)
{
    weft_fuse_options o = constrained();
    weft_fuse        *f = begun(&o);
    weft_adapter     *a, *b;

    add_pair(f);
    ck_assert_uint_eq(weft_fuse_count(f), 0);
    must(weft_fuse_run(f, &a, &golden_err));
    must(weft_fuse_run(f, &b, &golden_err));
    same_adapters(a, b, 0);
    ck_assert_uint_eq(weft_fuse_count(f), 22);
    must(weft_fuse_add_captions(f, captions, 1, &golden_err));
    ck_assert_uint_eq(weft_fuse_count(f), 0);
    weft_adapter_free(a), weft_adapter_free(b);
    weft_fuse_free(f);
}
END_TEST

/* ---- bad input ------------------------------------------------------------------------------- */

static void refused(weft_status got, weft_status want, const char *part)
{
    ck_assert_msg(got == want, "%s: %s", weft_status_name(got), golden_err.text);
    ck_assert_msg(strstr(golden_err.text, part) != NULL, "'%s' is not in: %s", part, golden_err.text);
    check_one_line(&golden_err);
}

static weft_status try_create(const weft_fuse_options *o)
{
    weft_fuse  *f = (weft_fuse *)(uintptr_t)1;
    weft_status st = weft_fuse_create(model, o, &f, &golden_err);
    ck_assert_msg(st == WEFT_OK || f == NULL, "a failed call left something behind");
    if (st == WEFT_OK) weft_fuse_free(f);
    return st;
}

START_TEST(options_are_checked)
{
    weft_fuse_options o = gradient();

    o.kind = 7;
    refused(try_create(&o), WEFT_E_ARG, "kind is 7");
    o = gradient(), o.ridge = -1;
    refused(try_create(&o), WEFT_E_ARG, "ridge is -1, wanted above 0");
    o = gradient(), o.steps = 1001;
    refused(try_create(&o), WEFT_E_ARG, "steps is 1001");
    o = gradient(), o.sampler = 999;
    refused(try_create(&o), WEFT_E_ARG, "999");
    o = gradient(), o.flags = WEFT_FUSE_SKIP_PHOTO;
    refused(try_create(&o), WEFT_E_ARG, "SKIP_PHOTO is of CONSTRAINED");
    o = constrained(), o.budget = 1;
    refused(try_create(&o), WEFT_E_ARG, "budget is of GRADIENT");
    o = constrained(), o.steps = 5;
    refused(try_create(&o), WEFT_E_ARG, "steps is of GRADIENT");
    o = routed(), o.budget = 1;
    refused(try_create(&o), WEFT_E_ARG, "budget is of GRADIENT");
    o = routed(), o.flags = WEFT_FUSE_SKIP_PHOTO;
    refused(try_create(&o), WEFT_E_ARG, "SKIP_PHOTO is of CONSTRAINED");
    o = routed(), o.ridge = -1;
    refused(try_create(&o), WEFT_E_ARG, "ridge is -1, wanted above 0");
    o = gradient(), o.flags = 1u << 30;
    refused(try_create(&o), WEFT_E_UNSUPPORTED, "weft_fuse_options");
    ck_assert_int_eq(weft_fuse_create(NULL, NULL, NULL, &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(try_create(NULL), WEFT_OK);
}
END_TEST

static weft_status add_to(const weft_fuse_options *o, const source *s, const char *name, const char *prompt)
{
    const char *const prompts[] = { prompt };
    weft_fuse  *f = begun(o);
    weft_status st = try_add(f, s, name, prompt != NULL ? prompts : NULL, prompt != NULL, 0);
    weft_fuse_free(f);
    return st;
}

START_TEST(concepts_are_checked)
{
    const source nameless = { NULL, "content.safetensors", NULL, 1 };
    const source elsewhere = { "cat_toy.safetensors", "content.safetensors", "unet.*", 1 };
    weft_fuse_options o = gradient(), c = constrained();
    weft_fuse_concept given = WEFT_FUSE_CONCEPT_INIT;
    weft_fuse        *f = begun(&o);
    char              words[400] = "";

    refused(add_to(&o, &nameless, NULL, NULL), WEFT_E_ARG, "its plan has no token, so it needs a name");
    refused(add_to(&o, &nameless, "", NULL), WEFT_E_ARG, "a name of 0 characters");
    ck_assert_int_eq(add_to(&o, &nameless, "a cat", NULL), WEFT_OK);
    refused(add_to(&c, &elsewhere, NULL, NULL), WEFT_E_UNSUPPORTED, "constraints are for keys and values of cross-attentions");
    for (int i = 0; i < 90; i++) strcat(words, "cat ");
    refused(add_to(&o, &nameless, "a cat", words), WEFT_E_ARG, "fusion reads one chunk");

    weft_fuse_options r = routed();
    const source word = { "cat_toy.safetensors", NULL, NULL, 1 };
    refused(add_to(&r, &custom, NULL, NULL), WEFT_E_UNSUPPORTED, "is no LoRA pair, and ROUTED chooses between pairs");
    refused(add_to(&r, &word, NULL, NULL), WEFT_E_UNSUPPORTED, "changes no layer, and ROUTED chooses between adapters");
    weft_fuse *routing = begun(&r);
    refused(weft_fuse_add_captions(routing, captions, 1, &golden_err), WEFT_E_ARG, "this fusion is ROUTED");
    weft_fuse_free(routing);

    must(try_add(f, &cat_content, NULL, NULL, 0, 0));
    refused(try_add(f, &cat_conv, "another", NULL, 0, 0), WEFT_E_MISMATCH, "concepts <cat-toy> and another both have the token <cat-toy>");
    refused(weft_fuse_add_concept(f, &given, &golden_err), WEFT_E_ARG, "plan is NULL");
    must(weft_plan_create(model, NULL, &given.plan, &golden_err));
    refused(weft_fuse_add_concept(f, &given, &golden_err), WEFT_E_STATE, "its plan is not sealed");
    weft_plan_free(given.plan);
    refused(weft_fuse_add_captions(f, captions, 1, &golden_err), WEFT_E_ARG, "captions are of CONSTRAINED");
    ck_assert_int_eq(weft_fuse_add_concept(NULL, &given, &golden_err), WEFT_E_ARG);
    weft_fuse_free(f);

    weft_model *other;
    must(weft_model_open(data_path("models/tiny-sd2"), NULL, &other, &golden_err));
    must(weft_plan_create(other, NULL, &given.plan, &golden_err));
    must(weft_plan_seal(given.plan, 1, &golden_err));
    f = begun(&o);
    refused(weft_fuse_add_concept(f, &given, &golden_err), WEFT_E_ARG, "its plan is for another model");
    weft_fuse_free(f);
    weft_plan_free(given.plan);
    weft_model_free(other);
}
END_TEST

static weft_layer_info layer_named(const weft_model *m, const char *name)
{
    weft_layer_info l = WEFT_LAYER_INFO_INIT;
    for (int64_t i = 0; l.name == NULL || strcmp(l.name, name) != 0; i++) must(weft_model_layer(m, i, &l, &golden_err));
    return l;
}

/* What is no matrix, and a plan that is no fixed weight. */
START_TEST(only_matrices_are_fused)
{
    const float       ones[64] = { 1 };
    weft_fuse_options o = gradient();
    const char       *names[] = { "lora_unet_conv_in.diff_b", "lora_unet_conv_norm_out.w_norm" };
    const char       *parts[] = { "its bias changes", "a normalisation" };

    for (int i = 0; i < 2; i++) {
        weft_tensor_out   t = WEFT_TENSOR_OUT_INIT;
        weft_fuse_concept c = WEFT_FUSE_CONCEPT_INIT;
        weft_tensors     *tensors;
        weft_adapter     *a;
        weft_fuse        *f = begun(&o);
        t.name = names[i], t.data = ones, t.rank = 1;
        t.shape[0] = layer_named(model, i == 0 ? "unet.conv_in" : "unet.conv_norm_out").out;
        must(weft_tensors_create(&t, 1, NULL, 0, NULL, &tensors, &golden_err));
        must(weft_adapter_create(tensors, NULL, &a, &golden_err));
        must(weft_plan_create(model, NULL, &c.plan, &golden_err));
        must(weft_plan_add(c.plan, a, 1, NULL, &golden_err));
        must(weft_plan_seal(c.plan, 1, &golden_err));
        c.name = "thing";
        refused(weft_fuse_add_concept(f, &c, &golden_err), WEFT_E_UNSUPPORTED, parts[i]);
        weft_plan_free(c.plan);
        weft_adapter_free(a);
        weft_tensors_free(tensors);
        weft_fuse_free(f);
    }

    weft_fuse_concept two = WEFT_FUSE_CONCEPT_INIT;
    weft_fuse        *f = begun(&o);
    weft_adapter     *a, *b;
    must(weft_adapter_open(data_path("adapters/content.safetensors"), NULL, &a, &golden_err));
    must(weft_adapter_open(data_path("adapters/style.safetensors"), NULL, &b, &golden_err));
    must(weft_plan_create(model, NULL, &two.plan, &golden_err));
    must(weft_plan_add(two.plan, a, 1, NULL, &golden_err));
    must(weft_plan_add(two.plan, b, 1, NULL, &golden_err));
    must(weft_plan_switch(two.plan, NULL, &golden_err));
    must(weft_plan_seal(two.plan, 20, &golden_err));
    two.name = "thing";
    refused(weft_fuse_add_concept(f, &two, &golden_err), WEFT_E_UNSUPPORTED, "change at call");
    weft_plan_free(two.plan);
    weft_adapter_free(a), weft_adapter_free(b);
    weft_fuse_free(f);
}
END_TEST

START_TEST(runs_are_checked)
{
    const source      only = { "cat_toy.safetensors", NULL, NULL, 1 };
    weft_fuse_options o = gradient(), c = constrained();
    weft_fuse        *f = begun(&o);
    weft_adapter     *a;
    weft_fuse_row     row = WEFT_FUSE_ROW_INIT;

    refused(weft_fuse_run(f, &a, &golden_err), WEFT_E_ARG, "there is no concept to fuse");
    must(try_add(f, &only, NULL, NULL, 0, 0));
    refused(weft_fuse_run(f, &a, &golden_err), WEFT_E_MISMATCH, "no concept changes any layer");
    refused(weft_fuse_get(f, 0, &row, &golden_err), WEFT_E_ARG, "row 0 of 0");
    ck_assert_ptr_null(a);
    weft_fuse_free(f);

    f = begun(&c);
    must(try_add(f, &custom, NULL, NULL, 0, 0));
    refused(try_draw(f, &multi_style, NULL, NULL, 0, 0, 1), WEFT_E_ARG, "1 images, wanted 0: CONSTRAINED draws none");
    refused(weft_fuse_run(f, &a, &golden_err), WEFT_E_ARG, "there are no captions");
    weft_fuse_free(f);

    o.budget = 1000;
    f = begun(&o);
    must(try_add(f, &cat_content, NULL, NULL, 0, 0));
    refused(weft_fuse_run(f, &a, &golden_err), WEFT_E_ARG, "and the budget is 1000");
    refused(try_draw(f, &custom, NULL, NULL, 0, 0, -1), WEFT_E_ARG, "-1 images, wanted 1 or more");
    weft_fuse_info info = WEFT_FUSE_INFO_INIT;
    refused(weft_fuse_info_get(f, &info, &golden_err), WEFT_E_ARG, "and the budget is 1000");
    weft_fuse_free(f);
}
END_TEST

/* Images of such a model begin with another image. */
START_TEST(inpainting_models_draw_nothing_from_a_prompt)
{
    weft_fuse_options o = gradient();
    weft_fuse_concept c = WEFT_FUSE_CONCEPT_INIT;
    weft_tensor_out   t = WEFT_TENSOR_OUT_INIT;
    weft_model       *paint;
    weft_fuse        *f;
    weft_tensors     *tensors;
    weft_adapter     *a, *fused;
    static float      ones[1 << 16];

    must(weft_model_open(data_path("models/tiny-inpaint"), NULL, &paint, &golden_err));
    weft_layer_info l = layer_named(paint, "unet.conv_in");
    t.name = "lora_unet_conv_in.diff", t.data = ones, t.rank = 4;
    ones[0] = 1;
    t.shape[0] = l.out, t.shape[1] = l.in, t.shape[2] = t.shape[3] = 3;
    must(weft_tensors_create(&t, 1, NULL, 0, NULL, &tensors, &golden_err));
    must(weft_adapter_create(tensors, NULL, &a, &golden_err));
    must(weft_plan_create(paint, NULL, &c.plan, &golden_err));
    must(weft_plan_add(c.plan, a, 1, NULL, &golden_err));
    must(weft_plan_seal(c.plan, 1, &golden_err));
    must(weft_fuse_create(paint, &o, &f, &golden_err));
    c.name = "a cat";
    must(weft_fuse_add_concept(f, &c, &golden_err));
    refused(weft_fuse_run(f, &fused, &golden_err), WEFT_E_UNSUPPORTED, "beside its latents");
    weft_fuse_free(f);
    weft_plan_free(c.plan);
    weft_adapter_free(a);
    weft_tensors_free(tensors);
    weft_model_free(paint);
}
END_TEST

/* ---- stopping, and no memory ----------------------------------------------------------------- */

typedef struct counter { int64_t calls, stop_at, last, total; const char *doing[8]; size_t stages; } counter;

static int32_t count(void *user, const char *doing, int64_t done, int64_t total)
{
    counter *c = user;

    ck_assert_int_ge(done, c->last);
    ck_assert_int_le(done, total);
    if (c->total != 0) ck_assert_int_eq(total, c->total);
    if (c->stages == 0 || strcmp(c->doing[c->stages - 1], doing) != 0) c->doing[c->stages++] = doing;
    c->last = done;
    c->total = total;
    return ++c->calls == c->stop_at;
}

START_TEST(progress_runs_to_its_end_and_stops_anywhere)
{
    counter           c = { .calls = 0 };
    weft_fuse_options o = gradient();
    weft_adapter     *a;

    o.steps = 2;
    o.progress = count;
    o.progress_user = &c;
    weft_fuse *f = begun(&o);
    must(try_add(f, &dog, NULL, NULL, 0, 5));
    must(try_add(f, &cat_content, NULL, NULL, 0, 6));
    must(weft_fuse_run(f, &a, &golden_err));
    weft_adapter_free(a);
    ck_assert_int_eq(c.last, c.total);
    ck_assert_uint_eq(c.stages, 3);
    ck_assert_str_eq(c.doing[0], "fusing text encoders");
    ck_assert_str_eq(c.doing[1], "fusing keys and values");
    ck_assert_str_eq(c.doing[2], "fusing layers over images");
    int64_t all = c.calls;
    for (int64_t at = 1; at <= all; at += 1 + all / 23) {
        c = (counter){ .stop_at = at };
        refused(weft_fuse_run(f, &a, &golden_err), WEFT_E_CANCELLED, "cancelled");
        ck_assert_ptr_null(a);
        ck_assert_uint_eq(weft_fuse_count(f), 0);
    }
    weft_fuse_free(f);
}
END_TEST

/* The n-th allocation fails: an error, nothing left behind. */
static bool fails_at(size_t n, int kind)
{
    bool constrain = kind == 0;
    test_memory       m;
    weft_allocator    alloc = test_allocator(&m);
    weft_fuse_options o = constrain ? constrained() : kind == 1 ? gradient() : routed();
    weft_fuse        *f = NULL;
    weft_adapter     *a = NULL;

    o.threads = 1;
    o.allocator = &alloc;
    if (!constrain) o.steps = 1, o.height = o.width = 4;
    m.fail_at = n;
    weft_status st = weft_fuse_create(model, &o, &f, &golden_err);
    if (st == WEFT_OK) st = try_add(f, constrain ? &custom : &cat_content, NULL, NULL, 0, 0);
    if (st == WEFT_OK && constrain) st = weft_fuse_add_captions(f, captions, 2, &golden_err);
    if (st == WEFT_OK && kind == 2) st = try_add(f, &multi_style, NULL, NULL, 0, 0);
    if (st == WEFT_OK) st = weft_fuse_run(f, &a, &golden_err);
    ck_assert_msg(st == WEFT_OK || st == WEFT_E_NOMEM, "%zu: %s: %s", n, weft_status_name(st), golden_err.text);
    if (st != WEFT_OK) check_one_line(&golden_err);
    weft_adapter_free(a);
    weft_fuse_free(f);
    ck_assert_msg(m.live_blocks == 0, "%zu: %zu blocks are left", n, m.live_blocks);
    return st != WEFT_OK;
}

START_TEST(without_memory_nothing_is_left)
{
    size_t n = 1;
    while (fails_at(n, _i)) n += _i == 0 ? 1 + n / 100 : 1 + n / 25;
    ck_assert_uint_gt(n, 100);
}
END_TEST

static void suite_promises(Suite *s)
{
    TCase *t = tcase_create("promises");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 180);
    tcase_add_loop_test(t, one_concept_comes_back, 0, 4);
    tcase_add_test(t, one_concept_comes_back_in_sdxl);
    tcase_add_test(t, the_fused_adapter_stands_for_both);
    tcase_add_test(t, order_shows_in_rounding_only);
    tcase_add_test(t, threads_and_groups_do_not_show);
    tcase_add_test(t, groups_keep_to_the_budget);
    tcase_add_test(t, memory_is_said_before_it_is_taken);
    tcase_add_test(t, the_result_is_an_adapter);
    tcase_add_test(t, tokens_alone_pull_towards_the_model);
    tcase_add_test(t, a_fusion_may_run_again);
    suite_add_tcase(s, t);
}

static void suite_refusals(Suite *s)
{
    TCase *t = tcase_create("bad input");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 180);
    tcase_add_test(t, options_are_checked);
    tcase_add_test(t, concepts_are_checked);
    tcase_add_test(t, only_matrices_are_fused);
    tcase_add_test(t, runs_are_checked);
    tcase_add_test(t, inpainting_models_draw_nothing_from_a_prompt);
    tcase_add_test(t, progress_runs_to_its_end_and_stops_anywhere);
    tcase_add_loop_test(t, without_memory_nothing_is_left, 0, 3);
    suite_add_tcase(s, t);
}

int main(void)
{
    Suite *s = suite_create("fusion");
    suite_goldens(s);
    suite_routed(s);
    suite_promises(s);
    suite_refusals(s);
    return run_suite(s);
}
