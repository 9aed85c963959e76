/* Prompts in the language of weights, long ones, and layers left out, against tests/reference/make_prompts.py:
 * every prompt of prompts.json through plain_run_encode() on the tiny models. */
#include <stdbool.h>

#include "golden.h"
#include "plain.h"

static const struct { const char *name; uint32_t flag; } flag_names[] = {
    { "weights", WEFT_ENCODE_WEIGHTS }, { "no_mean", WEFT_ENCODE_NO_MEAN }, { "from_empty", WEFT_ENCODE_FROM_EMPTY },
    { "comma", WEFT_ENCODE_COMMA },
};

static uint32_t flags_of(json_t *c)
{
    json_t *list = json_object_get(c, "flags");
    uint32_t flags = 0;
    for (size_t i = 0; i < json_array_size(list); i++)
        for (size_t k = 0; k < 4; k++)
            if (strcmp(json_string_value(json_array_get(list, i)), flag_names[k].name) == 0) flags |= flag_names[k].flag;
    return flags;
}

static int32_t integer(json_t *c, const char *key) { return (int32_t)json_integer_value(json_object_get(c, key)); }

typedef struct bench {
    weft_model     *model;
    weft_plan      *plan;
    weft_run       *run;
    plain_shape     text;
} bench;

static bench bench_of(const char *name)
{
    bench b = { .text = { 0 } };
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    must(weft_model_open(data_path("models/%s", name), NULL, &b.model, &golden_err));
    b.text = plain_shape_of(b.model);
    must(weft_plan_create(b.model, NULL, &b.plan, &golden_err));
    must(weft_plan_seal(b.plan, 1, &golden_err));
    o.threads = 2;
    o.height = o.width = 8;
    must(weft_run_create(b.plan, &o, &b.run, &golden_err));
    return b;
}

static void bench_free(bench *b)
{
    weft_run_free(b->run);
    weft_plan_free(b->plan);
    weft_model_free(b->model);
}

static plain_encode encode_of(const bench *b, const char *prompt, int32_t chunks)
{
    plain_encode e = PLAIN_ENCODE_INIT;
    e.prompt = prompt;
    e.chunks = chunks;
    e.text_len = (size_t)chunks * 77 * (size_t)b->text.dim;
    e.text = calloc(e.text_len, sizeof *e.text);
    e.pooled_len = (size_t)b->text.pooled;
    e.pooled = e.pooled_len > 0 ? calloc(e.pooled_len, sizeof *e.pooled) : NULL;
    return e;
}

static void check_case(const bench *b, const weft_tensors *t, const char *model, json_t *c)
{
    const char *name = json_string_value(json_object_get(c, "name"));
    int32_t chunks = integer(c, "chunks"), tokens, needed;
    golden want = golden_read(t, "%s/%s/text", model, name);
    plain_encode e = encode_of(b, json_string_value(json_object_get(c, "prompt")), chunks);
    char what[128];
    snprintf(what, sizeof what, "%s %s", model, name);
    e.flags = flags_of(c);
    e.clip_skip = integer(c, "clip_skip");
    must(plain_run_encode(b->run, &e, &golden_err));
    ck_assert_uint_eq(want.n, e.text_len);
    near_golden(what, e.text, want.v, want.n, 1e-5);
    ck_assert_int_eq(e.tokens, integer(c, "tokens"));
    ck_assert_int_eq(e.dropped, 0);
    if (e.pooled != NULL) {
        golden pooled = golden_read(t, "%s/%s/pooled", model, name);
        near_golden(what, e.pooled, pooled.v, pooled.n, 1e-5);
        free(pooled.v);
    }
    must(weft_plan_prompt_size(b->plan, e.prompt, e.flags, &tokens, &needed, &golden_err));
    ck_assert_int_eq(tokens, e.tokens);
    ck_assert_int_eq(needed, chunks);
    if (chunks > 1) { /* with less room it fails, and says how much there has to be */
        e.chunks = chunks - 1;
        e.text_len = (size_t)e.chunks * 77 * (size_t)b->text.dim;
        ck_assert_int_eq(plain_run_encode(b->run, &e, &golden_err), WEFT_E_ARG);
        snprintf(what, sizeof what, "the prompt has %d tokens, which take %d chunks; there is room for %d", e.tokens, chunks,
                 chunks - 1);
        ck_assert_str_eq(golden_err.text, what);
    }
    free(e.text), free(e.pooled), free(want.v);
}

START_TEST(every_prompt)
{
    json_t *index = golden_json("prompts.json"), *entry = json_array_get(json_object_get(index, "models"), (size_t)_i);
    const char *model = json_string_value(json_object_get(entry, "name"));
    json_t *cases = json_object_get(entry, "cases");
    weft_tensors *t = golden_open("prompts.safetensors");
    bench b = bench_of(model);
    ck_assert_uint_ge(json_array_size(cases), 14);
    for (size_t i = 0; i < json_array_size(cases); i++) check_case(&b, t, model, json_array_get(cases, i));
    bench_free(&b);
    weft_tensors_free(t);
    json_decref(index);
}
END_TEST

/* Reading weights changes nothing where nothing is weighed, bit for bit. */
START_TEST(no_weights_no_change)
{
    static const uint32_t modes[] = { 0, WEFT_ENCODE_NO_MEAN, WEFT_ENCODE_FROM_EMPTY, WEFT_ENCODE_COMMA };
    bench b = bench_of("tiny-sdxl");
    plain_encode plain = encode_of(&b, "a red cat, on the mat", 1), e = encode_of(&b, "a red cat, on the mat", 1);
    must(plain_run_encode(b.run, &plain, &golden_err));
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        e.flags = WEFT_ENCODE_WEIGHTS | modes[i];
        must(plain_run_encode(b.run, &e, &golden_err));
        ck_assert(memcmp(e.text, plain.text, e.text_len * sizeof *e.text) == 0);
        ck_assert(memcmp(e.pooled, plain.pooled, e.pooled_len * sizeof *e.pooled) == 0);
    }
    free(e.text), free(e.pooled), free(plain.text), free(plain.pooled);
    bench_free(&b);
}
END_TEST

/* Rooms that are not used hold the empty prompt; what does not fit into one chunk may be dropped. */
START_TEST(room_to_spare_and_too_little)
{
    bench b = bench_of("tiny-sd1");
    plain_encode two = encode_of(&b, "a cat", 2), empty = encode_of(&b, "", 1), one = encode_of(&b, "a BREAK cat dog", 1);
    must(plain_run_encode(b.run, &two, &golden_err));
    must(plain_run_encode(b.run, &empty, &golden_err));
    ck_assert(memcmp(two.text + two.text_len / 2, empty.text, empty.text_len * sizeof *empty.text) == 0);
    ck_assert_int_eq(empty.tokens, 0);
    one.flags = WEFT_ENCODE_WEIGHTS | WEFT_ENCODE_TRUNCATE;
    must(plain_run_encode(b.run, &one, &golden_err));
    empty.prompt = "a";
    must(plain_run_encode(b.run, &empty, &golden_err));
    ck_assert(memcmp(one.text, empty.text, one.text_len * sizeof *one.text) == 0);
    ck_assert_int_gt(one.dropped, 1);
    ck_assert_int_eq(one.tokens, one.dropped + empty.tokens);
    free(two.text), free(empty.text), free(one.text);
    bench_free(&b);
}
END_TEST

static void refused(bench *b, plain_encode e, const char *text)
{
    ck_assert_int_eq(plain_run_encode(b->run, &e, &golden_err), WEFT_E_ARG);
    ck_assert_str_eq(golden_err.text, text);
}

START_TEST(settings_out_of_range)
{
    bench b = bench_of("tiny-sd1");
    plain_encode e = encode_of(&b, "a cat", 1);
    e.clip_skip = 4;
    refused(&b, e, "encode.clip_skip is 4, wanted 0 to 3, which is what the text encoder can leave out");
    e.clip_skip = -1;
    refused(&b, e, "encode.clip_skip is -1, wanted 0 to 3, which is what the text encoder can leave out");
    e.clip_skip = 3;
    must(plain_run_encode(b.run, &e, &golden_err));
    e.layers = b.text.layers + 1;
    ck_assert_int_eq(plain_run_encode(b.run, &e, &golden_err), WEFT_E_ARG);
    e.layers = b.text.layers;
    ck_assert_int_eq(plain_run_encode(b.run, &e, &golden_err), WEFT_E_ARG); /* too few floats */
    e.layers = 0;
    e.flags = WEFT_ENCODE_WEIGHTS;
    e.prompt = "(a:1..1)";
    refused(&b, e, "the prompt's weight \"1..1\" is not a number: wanted one like 1.3, or \\) for a bracket that is meant "
            "as text");
    e.flags = WEFT_ENCODE_FROM_EMPTY;
    refused(&b, e, "encode.flags: NO_MEAN and FROM_EMPTY say how WEIGHTS are applied, and WEIGHTS is not set");
    free(e.text);
    bench_free(&b);
}
END_TEST

/* A prompt for one adapter of a plan is what a plan of that adapter makes of it, bit for bit, whatever
 * the method says of text; and the plan's own prompt is neither. */
START_TEST(one_adapter_of_several_may_have_the_prompt)
{
    static const char *const files[] = { "sd1_kohya.safetensors", "sd1_old_te.safetensors" };
    bench b = bench_of("tiny-sd1");
    weft_adapter *a[2];
    plain_encode own = encode_of(&b, "a red cat", 1), alone = encode_of(&b, "a red cat", 1),
                 both = encode_of(&b, "a red cat", 1);
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    o.height = o.width = 8;
    weft_plan_free(b.plan);
    weft_run_free(b.run);
    must(weft_plan_create(b.model, NULL, &b.plan, &golden_err));
    for (int i = 0; i < 2; i++) {
        must(weft_adapter_open(data_path("adapters/%s", files[i]), NULL, &a[i], &golden_err));
        must(weft_plan_add(b.plan, a[i], 0.8f, NULL, &golden_err));
    }
    must(weft_plan_merge(b.plan, &golden_err));
    must(weft_plan_seal(b.plan, 1, &golden_err));
    must(weft_run_create(b.plan, &o, &b.run, &golden_err));
    must(plain_run_encode(b.run, &both, &golden_err));
    own.flags = WEFT_ENCODE_ADAPTER;
    for (int i = 0; i < 2; i++) {
        weft_plan *plan;
        weft_run *run;
        must(weft_plan_create(b.model, NULL, &plan, &golden_err));
        must(weft_plan_add(plan, a[i], 0.8f, NULL, &golden_err));
        must(weft_plan_seal(plan, 1, &golden_err));
        must(weft_run_create(plan, &o, &run, &golden_err));
        must(plain_run_encode(run, &alone, &golden_err));
        own.adapter = i;
        must(plain_run_encode(b.run, &own, &golden_err));
        ck_assert_mem_eq(own.text, alone.text, own.text_len * sizeof *own.text);
        ck_assert_mem_ne(own.text, both.text, own.text_len * sizeof *own.text);
        weft_run_free(run);
        weft_plan_free(plan);
    }
    for (int i = 0; i < 2; i++) weft_adapter_free(a[i]);
    free(own.text), free(alone.text), free(both.text);
    bench_free(&b);
}
END_TEST

/* Without words of their own all layers are the one encoding. */
START_TEST(a_layer_each)
{
    bench b = bench_of("tiny-sd1");
    plain_encode one = encode_of(&b, "a red cat", 1), all = encode_of(&b, "a red cat", b.text.layers);
    all.chunks = 1;
    all.layers = b.text.layers;
    ck_assert_int_gt(all.layers, 1);
    must(plain_run_encode(b.run, &one, &golden_err));
    must(plain_run_encode(b.run, &all, &golden_err));
    for (int32_t j = 0; j < all.layers; j++)
        ck_assert(memcmp(all.text + (size_t)j * one.text_len, one.text, one.text_len * sizeof *one.text) == 0);
    free(one.text), free(all.text);
    bench_free(&b);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("prompts, encoded");
    TCase *c = tcase_create("prompts");
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, every_prompt, 0, 3);
    tcase_add_test(c, no_weights_no_change);
    tcase_add_test(c, room_to_spare_and_too_little);
    tcase_add_test(c, settings_out_of_range);
    tcase_add_test(c, one_adapter_of_several_may_have_the_prompt);
    tcase_add_test(c, a_layer_each);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
