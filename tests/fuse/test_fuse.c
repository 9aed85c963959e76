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

static weft_status try_add(weft_fuse *f, const source *s, const char *name, const char *const *prompts, size_t count,
                           uint64_t seed)
{
    weft_fuse_concept c = WEFT_FUSE_CONCEPT_INIT;

    c.plan = plan_of(s);
    c.name = name;
    c.prompts = prompts;
    c.prompts_count = count;
    c.seed = seed;
    weft_status st = weft_fuse_add_concept(f, &c, &golden_err);
    weft_plan_free(c.plan); /* the fusion keeps it */
    return st;
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

static void check_rows(const weft_fuse *f, json_t *layers, bool holds, double limit)
{
    const char *layer;
    json_t     *want;

    json_object_foreach(layers, layer, want) {
        weft_fuse_row row = row_of(f, layer);
        ck_assert_int_eq(row.rows, json_integer_value(json_object_get(want, "rows")));
        near(layer, row.before, number(want, "before"), 1e-4);
        near(layer, row.norm, number(want, "norm"), limit);
        ck_assert_double_eq(row.jitter, 0);
        if (holds) {
            ck_assert_msg(row.residual < 1e-4, "%s: residual %g", layer, row.residual);
            near(layer, row.drift, number(want, "drift"), 10 * limit);
        } else {
            near(layer, row.after, number(want, "after"), 10 * limit);
            near(layer, row.residual, sqrt(row.after / row.before), 1e-12);
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

static void check_case(const char *name, weft_fuse *f, double limit)
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
        near_golden(info.name, p.v, q.v, p.n, limit);
        free(p.v), free(q.v);
        seen++;
    }
    ck_assert_uint_ge(seen, 2);
    weft_tensors_free(got), weft_tensors_free(want);
    weft_adapter_free(a);
    json_decref(index);
}

START_TEST(constraints_as_a_lagrange_system)
{
    weft_fuse_options o = constrained();
    weft_fuse        *f = begun(&o);

    add_pair(f);
    check_case("constrained", f, 1e-3);
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
    check_case("skip_photo", f, 1e-3);
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
    check_case("gradient", f, 1e-3);
    weft_fuse_free(f);
}
END_TEST

START_TEST(convolutions_are_fused_too)
{
    static const char *const a[] = { "a <cat-toy>" }, *const b[] = { "a <multi>" };
    weft_fuse_options o = gradient();
    weft_fuse        *f = begun(&o);

    must(try_add(f, &cat_conv, NULL, a, 1, 7));
    must(try_add(f, &multi_conv, NULL, b, 1, 8));
    check_case("conv", f, 1e-3);
    weft_fuse_free(f);
}
END_TEST

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

int main(void)
{
    Suite *s = suite_create("fusion");
    suite_goldens(s);
    return run_suite(s);
}
