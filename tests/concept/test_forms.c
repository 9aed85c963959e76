/* Every form of concept file: the tokens in it, their vectors, what else it holds; and files that are none. */
#include <stdbool.h>
#include <unistd.h>

#include "../base/support.h"
#include "golden.h"

#include "concept/concept.h"

typedef struct form {
    const char *file, *second, *tokens; /* as weft_concept_open() gets them */
    const char *format;
    const char *token[2];
    int32_t     vectors, width, width_2, layers, adapter;
} form;

static const form forms[] = {
    { "cat_toy.safetensors", NULL, NULL, "textual inversion (diffusers)", { "<cat-toy>" }, 1, 24, 0, 0, 0 },
    { "multi.bin", NULL, NULL, "textual inversion (diffusers)", { "<multi>" }, 3, 24, 0, 0, 0 },
    { "multi.bin", NULL, "ein Wort", "textual inversion (diffusers)", { "ein Wort" }, 3, 24, 0, 0, 0 },
    { "a1111.pt", NULL, NULL, "textual inversion (A1111)", { "bad-hands" }, 2, 24, 0, 0, 0 },
    { "compvis.pt", NULL, NULL, "textual inversion (CompVis)", { "compvis" }, 2, 24, 0, 0, 0 },
    { "kohya.safetensors", NULL, NULL, "textual inversion (kohya)", { "kohya" }, 2, 24, 0, 0, 0 },
    { "bare.pt", NULL, NULL, "textual inversion (diffusers)", { "bare" }, 2, 24, 0, 0, 0 },
    { "simo.safetensors", NULL, NULL, "textual inversion (diffusers)", { "<s1>", "<s2>" }, 1, 24, 0, 0, 0 },
    { "simo.safetensors", NULL, "a,b", "textual inversion (diffusers)", { "a", "b" }, 1, 24, 0, 0, 0 },
    { "pair.safetensors", NULL, NULL, "textual inversion (SDXL)", { "pair" }, 2, 16, 24, 0, 0 },
    { "pair_1.safetensors", "pair_2.bin", NULL, "textual inversion (diffusers)", { "<pair>" }, 2, 16, 24, 0, 0 },
    { "layers.safetensors", NULL, NULL, "ED-LoRA", { "<dog1>", "<dog2>" }, 1, 24, 0, 11, 0 },
    { "bundle.safetensors", NULL, NULL, "bundled textual inversion", { "ohwx" }, 2, 24, 0, 0, 1 },
    { "delta.bin", NULL, NULL, "Custom Diffusion", { "<new1>" }, 1, 24, 0, 0, 1 },
    { "delta_ldm.ckpt", NULL, NULL, "Custom Diffusion", { "<new1>", "<new2>" }, 1, 24, 0, 0, 1 },
    { "custom_diffusion.safetensors", "new1.bin", NULL, "Custom Diffusion", { "<new1>" }, 1, 24, 0, 0, 1 },
    { "edlora.pth", NULL, NULL, "ED-LoRA", { "<dog1>", "<dog2>" }, 1, 24, 0, 11, 1 },
    { "../fixtures/ti_a1111.pt", NULL, NULL, "textual inversion (A1111)", { "mystyle" }, 2, 8, 0, 0, 0 },
    { "../fixtures/ti_diffusers.bin", NULL, NULL, "textual inversion (diffusers)", { "<cat-toy>" }, 1, 8, 0, 0, 0 },
    { "../fixtures/ti_compvis_parameterdict.pt", NULL, NULL, "textual inversion (CompVis)", { "ti_compvis_parameterdict" },
      2, 8, 0, 0, 0 },
};

static weft_status open_as(const char *file, const char *second, const char *tokens, weft_concept **c)
{
    weft_concept_options o = WEFT_CONCEPT_OPTIONS_INIT;
    o.second = second != NULL ? data_path("concepts/%s", second) : NULL;
    o.tokens = tokens;
    return weft_concept_open(data_path("concepts/%s", file), &o, c, &golden_err);
}

START_TEST(every_form)
{
    const form *f = &forms[_i];
    weft_concept_info info = WEFT_CONCEPT_INFO_INIT;
    weft_token_info w = WEFT_TOKEN_INFO_INIT;
    weft_concept *c;
    must(open_as(f->file, f->second, f->tokens, &c));
    must(weft_concept_info_get(c, &info, &golden_err));
    ck_assert_str_eq(info.format, f->format);
    ck_assert_ptr_nonnull(strstr(f->file, info.name));
    ck_assert_int_eq(info.tokens, f->token[1] != NULL ? 2 : 1);
    ck_assert_int_eq(info.adapter, f->adapter);
    weft_adapter *adapter = weft_concept_adapter(c), *again = weft_concept_adapter(c);
    ck_assert((adapter != NULL) == (f->adapter != 0));
    ck_assert_ptr_eq(adapter, again);
    weft_adapter_free(again); /* each call gives a reference, as a garbage collector's wrapper frees them */
    for (size_t i = 0; i < (size_t)info.tokens; i++) {
        must(weft_concept_token(c, i, &w, &golden_err));
        ck_assert_str_eq(w.token, f->token[i]);
        ck_assert_int_eq(w.vectors, f->vectors);
        ck_assert_int_eq(w.width, f->width);
        ck_assert_int_eq(w.width_2, f->width_2);
        ck_assert_int_eq(w.layers, f->layers);
    }
    ck_assert_int_eq(weft_concept_token(c, (size_t)info.tokens, &w, &golden_err), WEFT_E_ARG);
    weft_concept_free(c);
    weft_adapter_info held = WEFT_ADAPTER_INFO_INIT;
    if (adapter != NULL) ck_assert_int_eq(weft_adapter_info_get(adapter, &held, &golden_err), WEFT_OK);
    weft_adapter_free(adapter); /* which outlives the concept */
}
END_TEST

/* The same vectors, in whatever file: a1111.pt, compvis.pt and bare.pt hold the same two; LDM's rows are diffusers' tokens. */
START_TEST(the_same_vectors_everywhere)
{
    static const struct { const char *a; size_t word_a; const char *b; size_t word_b; } pairs[] = {
        { "a1111.pt", 0, "compvis.pt", 0 }, { "a1111.pt", 0, "bare.pt", 0 }, { "a1111.pt", 0, "bundle.safetensors", 0 },
        { "simo.safetensors", 0, "cat_toy.safetensors", 0 }, { "delta.bin", 0, "delta_ldm.ckpt", 0 },
        { "simo.safetensors", 1, "delta_ldm.ckpt", 1 }, { "edlora.pth", 1, "layers.safetensors", 1 },
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        weft_concept *a, *b;
        must(open_as(pairs[i].a, NULL, NULL, &a));
        must(open_as(pairs[i].b, NULL, NULL, &b));
        const wf_concept_token *v = wf_concept_token_at(a, pairs[i].word_a), *w = wf_concept_token_at(b, pairs[i].word_b);
        size_t n = (size_t)(v->layers > 0 ? v->layers : v->vectors) * (size_t)v->of[0].width;
        ck_assert_int_eq(v->vectors, w->vectors);
        ck_assert_msg(memcmp(v->of[0].v, w->of[0].v, n * sizeof(float)) == 0, "%s and %s", pairs[i].a, pairs[i].b);
        weft_concept_free(a);
        weft_concept_free(b);
    }
}
END_TEST

static void refused(const char *file, const char *second, const char *tokens, weft_status st, const char *end)
{
    weft_concept *c;
    ck_assert_int_eq(open_as(file, second, tokens, &c), st);
    ck_assert_ptr_null(c);
    size_t n = strlen(golden_err.text), m = strlen(end);
    ck_assert_msg(n >= m && strcmp(golden_err.text + n - m, end) == 0, "%s", golden_err.text);
}

START_TEST(what_is_no_concept)
{
    refused("../adapters/sd1_kohya.safetensors", NULL, NULL, WEFT_E_UNSUPPORTED,
            "sd1_kohya.safetensors: no token in it: it is an adapter (kohya, lora), to be opened as one, or with its tokens in "
            "weft_concept_options.second");
    refused("../models/tiny-sd1/unet/diffusion_pytorch_model.safetensors", NULL, NULL, WEFT_E_UNSUPPORTED,
            ": no token in it, and no adapter: its first tensor is conv_in.bias");
    refused("../fixtures/st_ok_no_tensors.safetensors", NULL, NULL, WEFT_E_UNSUPPORTED, ": no token in it: it holds no tensors");
    refused("cat_toy.safetensors", NULL, "a,b", WEFT_E_ARG, "concept options: tokens names 2, cat_toy has 1");
    refused("simo.safetensors", NULL, "a,A", WEFT_E_FORMAT, "simo: two of its tokens are A");
    refused("cat_toy.safetensors", NULL, "a\001b", WEFT_E_FORMAT, "cat_toy: token 1 has a control character");
    refused("cat_toy.safetensors", NULL, " ", WEFT_E_FORMAT, "cat_toy: token 1 is empty");
    refused("pair_1.safetensors", "simo.safetensors", NULL, WEFT_E_MISMATCH,
            "simo.safetensors has 2 tokens, the file that it is the other half of has 1");
    refused("pair.safetensors", "pair_1.safetensors", NULL, WEFT_E_MISMATCH,
            ": the token pair has vectors for both text encoders without it");
    refused("pair_1.safetensors", "cat_toy.safetensors", NULL, WEFT_E_MISMATCH,
            "cat_toy.safetensors has 1 vectors for the token <pair>, its other half has 2");
    refused("cat_toy.safetensors", "bundle.safetensors", NULL, WEFT_E_UNSUPPORTED, ".alpha");
    refused("custom_diffusion.safetensors", "../adapters/sd1_kohya.safetensors", NULL, WEFT_E_UNSUPPORTED,
            "sd1_kohya.safetensors: no token in it");
    refused("nowhere.safetensors", NULL, NULL, WEFT_E_IO, "No such file or directory");
}
END_TEST

/* ---- small files made here ---- */

typedef struct tensor { const char *name; int64_t rank, shape[3]; } tensor;

static const char *write_file(const tensor *t, size_t count, float value)
{
    static char folder[] = "/tmp/weft-concept-XXXXXX", path[64];
    static float data[4096];
    weft_tensor_out out[4] = { { 0 } };
    for (size_t i = 0; i < 4096; i++) data[i] = value;
    for (size_t i = 0; i < count; i++) {
        out[i] = (weft_tensor_out){ .struct_size = sizeof *out, .name = t[i].name, .data = data, .rank = (size_t)t[i].rank };
        for (int64_t k = 0; k < t[i].rank; k++) out[i].shape[k] = t[i].shape[k];
    }
    if (path[0] == '\0') ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/made.safetensors", folder);
    must(weft_tensors_write(path, out, count, NULL, 0, &golden_err));
    return path;
}

static void made_is_refused(const tensor *t, size_t count, float value, const char *text)
{
    weft_concept *c;
    const char *path = write_file(t, count, value);
    ck_assert_int_eq(weft_concept_open(path, NULL, &c, &golden_err), WEFT_E_FORMAT);
    ck_assert_msg(strncmp(golden_err.text, path, strlen(path)) == 0 && strcmp(golden_err.text + strlen(path), text) == 0,
                  "%s", golden_err.text);
    remove(path);
}

static void remove_folder(const char *path)
{
    char folder[64];
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    ck_assert_int_eq(rmdir(folder), 0);
}

START_TEST(broken_tokens)
{
    const tensor cube[] = { { "<a>", 3, { 2, 3, 4 } } };
    const tensor wide[] = { { "emb_params", 1, { 4 } } };
    const tensor uneven[] = { { "clip_l", 2, { 2, 4 } }, { "clip_g", 2, { 3, 8 } } };
    const tensor twice[] = { { "clip_l", 2, { 2, 4 } }, { "text_encoders_0", 2, { 2, 4 } } };
    const tensor beside[] = { { "emb_params", 2, { 2, 4 } }, { "exp_avg", 2, { 2, 4 } } };
    made_is_refused(cube, 1, 1, ": <a> is (2, 3, 4): the vectors of a token are (d) or (n, d)");
    made_is_refused(wide, 1, NAN, ": emb_params: value 0 is not a finite number");
    made_is_refused(uneven, 2, 1, ": clip_l has 2 vectors for the token made, its other text encoder has 3");
    made_is_refused(twice, 2, 1, ": text_encoders_0: the token made has vectors already");
    weft_concept *c;
    const char *path = write_file(beside, 2, 1);
    ck_assert_int_eq(weft_concept_open(path, NULL, &c, &golden_err), WEFT_E_UNSUPPORTED);
    ck_assert_msg(strstr(golden_err.text, "made.safetensors: beside its tokens it holds exp_avg, which is not of an adapter that "
                                          "can be opened: made: ") != NULL, "%s", golden_err.text);
    remove(path);
    remove_folder(path);
}
END_TEST

/* ---- keys ---- */

START_TEST(keys)
{
    static const struct { const char *key, *name; int shape; } cases[] = {
        { "string_to_param.*", "", WF_TOKEN_WHOLE }, { "string_to_param.sks", "", WF_TOKEN_WHOLE },
        { "string_to_token.*", "", WF_TOKEN_NONE }, { "bundle_emb.a.b.string_to_param.*", "a.b", WF_TOKEN_WHOLE },
        { "bundle_emb.x.clip_g", "x", WF_TOKEN_WHOLE }, { "modifier_token.<new1>", "<new1>", WF_TOKEN_WHOLE },
        { "params.new_concept_embedding.<a.b>", "<a.b>", WF_TOKEN_LAYERS }, { "embed", "", WF_TOKEN_ROWS },
        { "<s1>", "<s1>", WF_TOKEN_WHOLE }, { "<>", NULL, 0 }, { "bundle_emb..clip_l", NULL, 0 }, { "clip_l.x", NULL, 0 },
        { "modifier_token.", NULL, 0 }, { "", NULL, 0 }, { "lora_unet_x.lora_up.weight", NULL, 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *name;
        size_t len;
        const wf_token_form *f = wf_token_form_of(cases[i].key, &name, &len);
        ck_assert_msg((f != NULL) == (cases[i].name != NULL), "%s", cases[i].key);
        if (f == NULL) continue;
        ck_assert_int_eq(f->shape, cases[i].shape);
        ck_assert_msg(len == strlen(cases[i].name) && memcmp(name, cases[i].name, len) == 0, "%s", cases[i].key);
    }
}
END_TEST

/* Every allocation of an opening may fail: a clean NOMEM, and nothing left behind. */
START_TEST(memory_may_run_out)
{
    static const char *const files[][2] = { { "simo.safetensors", NULL }, { "pair_1.safetensors", "pair_2.bin" },
                                            { "bundle.safetensors", NULL } };
    for (size_t k = 0; k < sizeof files / sizeof *files; k++) {
        test_memory m;
        weft_allocator alloc = test_allocator(&m);
        weft_concept_options o = WEFT_CONCEPT_OPTIONS_INIT;
        weft_status st = WEFT_E_NOMEM;
        o.allocator = &alloc;
        o.second = files[k][1] != NULL ? data_path("concepts/%s", files[k][1]) : NULL;
        size_t n = 1;
        for (; st == WEFT_E_NOMEM; n++) {
            weft_concept *c;
            m.calls = 0;
            m.fail_at = n;
            st = weft_concept_open(data_path("concepts/%s", files[k][0]), &o, &c, &golden_err);
            ck_assert_msg(st == WEFT_OK || st == WEFT_E_NOMEM, "%s", golden_err.text);
            weft_concept_free(c);
            ck_assert_uint_eq(m.live_blocks, 0);
            ck_assert_uint_lt(n, 10000);
        }
        must(st);
        ck_assert_uint_gt(n, 5);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("concepts");
    TCase *c = tcase_create("concepts");
    tcase_add_loop_test(c, every_form, 0, sizeof forms / sizeof *forms);
    tcase_add_test(c, the_same_vectors_everywhere);
    tcase_add_test(c, what_is_no_concept);
    tcase_add_test(c, broken_tokens);
    tcase_add_test(c, keys);
    tcase_add_test(c, memory_may_run_out);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
