/* Words of concepts in prompts, against diffusers' load_textual_inversion and the formulas of Custom Diffusion and
 * ED-LoRA: every case of words.json. And what a plan says of words that it cannot take. */
#include <stdbool.h>
#include <unistd.h>

#include "../base/support.h"
#include "golden.h"
#include "plain.h"

typedef struct bench {
    weft_model     *model;
    weft_plan      *plan;
    weft_run       *run;
    plain_shape     text;
} bench;

static weft_concept *concept_of(const char *file, const char *second, const char *words)
{
    weft_concept_options o = WEFT_CONCEPT_OPTIONS_INIT;
    weft_concept *c;
    o.second = second != NULL ? data_path("concepts/%s", second) : NULL;
    o.tokens = words;
    must(weft_concept_open(data_path("concepts/%s", file), &o, &c, &golden_err));
    return c;
}

static void open_model(bench *b, const char *name)
{
    *b = (bench){ .text = { 0 } };
    must(weft_model_open(data_path("models/%s", name), NULL, &b->model, &golden_err));
    b->text = plain_shape_of(b->model);
    must(weft_plan_create(b->model, NULL, &b->plan, &golden_err));
}

static void add(bench *b, const char *file, const char *second, const char *words, float weight)
{
    weft_concept *c = concept_of(file, second, words);
    must(weft_plan_add_concept(b->plan, c, weight, NULL, &golden_err));
    weft_concept_free(c); /* the plan keeps it */
}

static void start(bench *b)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    o.threads = 2;
    o.height = o.width = 8;
    must(weft_plan_seal(b->plan, 1, &golden_err));
    must(weft_run_create(b->plan, &o, &b->run, &golden_err));
}

static void bench_free(bench *b)
{
    weft_run_free(b->run);
    weft_plan_free(b->plan);
    weft_model_free(b->model);
}

static plain_encode encode_of(const bench *b, const char *prompt, int32_t chunks, int32_t layers)
{
    plain_encode e = PLAIN_ENCODE_INIT;
    e.prompt = prompt;
    e.chunks = chunks;
    e.layers = layers;
    e.text_len = (size_t)chunks * 77 * (size_t)b->text.dim * (size_t)(layers > 0 ? layers : 1);
    e.text = calloc(e.text_len, sizeof *e.text);
    e.pooled_len = (size_t)b->text.pooled;
    e.pooled = e.pooled_len > 0 ? calloc(e.pooled_len, sizeof *e.pooled) : NULL;
    return e;
}

static void encode_free(plain_encode *e)
{
    free(e->text);
    free(e->pooled);
}

static const char *string(json_t *c, const char *key) { return json_string_value(json_object_get(c, key)); }
static int32_t integer(json_t *c, const char *key) { return (int32_t)json_integer_value(json_object_get(c, key)); }

static bool has(json_t *flags, const char *name)
{
    for (size_t i = 0; i < json_array_size(flags); i++)
        if (strcmp(json_string_value(json_array_get(flags, i)), name) == 0) return true;
    return false;
}

/* One side of a case, "text" or "negative". */
static void check_side(bench *b, const weft_tensors *t, json_t *c, const char *side, const char *prompt)
{
    const char *name = string(c, "name");
    json_t *flags = json_object_get(c, "flags");
    golden want = golden_read(t, "%s/%s", name, side);
    int32_t layers = integer(c, "layers"), chunks = (int32_t)(want.n / 77 / (size_t)b->text.dim) / (layers > 0 ? layers : 1);
    int32_t needed, tokens;
    plain_encode e = encode_of(b, prompt, chunks, layers);
    char what[128], pooled[64];
    e.flags = (has(flags, "weights") ? WEFT_ENCODE_WEIGHTS : 0) | (has(flags, "comma") ? WEFT_ENCODE_COMMA : 0);
    must(plain_run_encode(b->run, &e, &golden_err));
    snprintf(what, sizeof what, "%s %s", name, side);
    ck_assert_uint_eq(want.n, e.text_len);
    near_golden(what, e.text, want.v, want.n, 1e-5);
    snprintf(pooled, sizeof pooled, "%s/%spooled", name, strcmp(side, "text") == 0 ? "" : "negative_");
    if (golden_has(t, pooled)) {
        golden p = golden_read(t, "%s", pooled);
        near_golden(pooled, e.pooled, p.v, p.n, 1e-5);
        free(p.v);
    }
    must(weft_plan_prompt_size(b->plan, prompt, e.flags, &tokens, &needed, &golden_err));
    ck_assert_int_eq(needed, chunks);
    ck_assert_int_eq(tokens, e.tokens);
    if (json_object_get(c, "tokens") != NULL) ck_assert_int_eq(tokens, integer(c, "tokens"));
    encode_free(&e);
    free(want.v);
}

START_TEST(prompts_with_words)
{
    json_t *index = golden_json("words.json"), *cases = json_object_get(index, "cases");
    weft_tensors *t = golden_open("words.safetensors");
    size_t seen = 0;
    for (size_t i = 0; i < json_array_size(cases); i++) {
        json_t *c = json_array_get(cases, i), *files = json_object_get(c, "files");
        bool pair = strncmp(string(c, "name"), "pair", 4) == 0, whole = strcmp(string(c, "name"), "custom") == 0 ||
                                                                        strcmp(string(c, "name"), "edlora") == 0;
        bench b;
        if (whole) continue;
        open_model(&b, string(c, "model"));
        if (pair) add(&b, json_string_value(json_array_get(files, 0)), json_string_value(json_array_get(files, 1)), NULL, 1);
        for (size_t k = 0; !pair && k < json_array_size(files); k++)
            add(&b, json_string_value(json_array_get(files, k)), NULL, NULL, 1);
        start(&b);
        check_side(&b, t, c, "text", string(c, "prompt"));
        if (string(c, "negative") != NULL) check_side(&b, t, c, "negative", string(c, "negative"));
        bench_free(&b);
        seen++;
    }
    ck_assert_uint_ge(seen, 10);
    weft_tensors_free(t);
    json_decref(index);
}
END_TEST

/* Concepts with their adapters: words, text and prediction, by every spelling of the same weights. */
static void check_whole(const weft_tensors *t, const char *file, const char *second, const char *name, const char *out_name,
                        const char *prompt, float weight)
{
    enum { N = 4 * 8 * 8 };
    float x[N], out[N];
    golden text = golden_read(t, "%s/text", name), want = golden_read(t, "%s/%s", name, out_name);
    weft_noise *noise;
    plain_step s = PLAIN_STEP_INIT;
    char what[128];
    bench b;
    open_model(&b, "tiny-sd1");
    add(&b, file, second, NULL, weight);
    start(&b);
    s.text_layers = text.rank == 3 ? (int32_t)text.shape[0] : 0;
    plain_encode e = encode_of(&b, prompt, 1, s.text_layers);
    must(plain_run_encode(b.run, &e, &golden_err));
    snprintf(what, sizeof what, "%s, %g, text", file, (double)weight);
    near_golden(what, e.text, text.v, text.n, 1e-5);
    must(weft_noise_create(900, NULL, &noise, &golden_err));
    must(weft_noise_normal(noise, x, N, &golden_err));
    weft_noise_free(noise);
    s.latent = x;
    s.out = out;
    s.latent_len = s.out_len = N;
    s.text = e.text;
    s.text_len = e.text_len;
    s.stamp = e.stamp;
    s.timestep = 501;
    must(plain_run_step(b.run, &s, &golden_err));
    snprintf(what, sizeof what, "%s, %g", file, (double)weight);
    near_golden(what, out, want.v, N, 1e-5);
    encode_free(&e);
    bench_free(&b);
    free(text.v), free(want.v);
}

START_TEST(whole_files)
{
    weft_tensors *t = golden_open("words.safetensors");
    const char *prompt = "a photo of a <new1> cat";
    static const char *const files[][2] = { { "delta.bin", NULL }, { "delta_ldm.ckpt", NULL },
                                            { "custom_diffusion.safetensors", "new1.bin" } };
    for (size_t i = 0; i < 3; i++) {
        check_whole(t, files[i][0], files[i][1], "custom", "out", prompt, 1);
        check_whole(t, files[i][0], files[i][1], "custom", "half", prompt, 0.5f);
    }
    check_whole(t, "edlora.pth", NULL, "edlora", "out", "a <dog1> <dog2> in the sun", 1);
    weft_tensors_free(t);
}
END_TEST

/* The adapter's part in the text encoders has a weight of its own: without it the words stand alone. */
START_TEST(text_parts_have_their_own_weight)
{
    weft_add_options o = WEFT_ADD_OPTIONS_INIT;
    weft_concept *c = concept_of("edlora.pth", NULL, NULL);
    weft_tensors *t = golden_open("words.safetensors");
    golden want = golden_read(t, "layers/text");
    bench b;
    open_model(&b, "tiny-sd1");
    o.text_weights = text_weight(0);
    must(weft_plan_add_concept(b.plan, c, 1, &o, &golden_err));
    start(&b);
    plain_encode e = encode_of(&b, "a <dog1> <dog2> in the sun", 1, 11);
    must(plain_run_encode(b.run, &e, &golden_err));
    near_golden("words alone", e.text, want.v, want.n, 1e-5);
    encode_free(&e);
    bench_free(&b);
    weft_concept_free(c);
    weft_tensors_free(t);
    free(want.v);
}
END_TEST

/* Under every method a concept's adapter is one like any other. Alone it is the same picture under each; of two, switch
 * shows the first, composite the mean of both, and K-LoRA chooses. One text for all, so that adapters alone differ. */
START_TEST(concepts_under_every_method)
{
    enum { N = 4 * 8 * 8, MERGE, SWITCH, COMPOSITE, KLORA, FIRST, SECOND };
    float x[N], mean[N], out[2][SECOND + 1][N];
    weft_noise *noise;
    must(weft_noise_create(900, NULL, &noise, &golden_err));
    must(weft_noise_normal(noise, x, N, &golden_err));
    weft_noise_free(noise);
    for (int both = 0; both < 2; both++) {
        plain_encode e = PLAIN_ENCODE_INIT;
        for (int m = MERGE; m <= (both ? SECOND : COMPOSITE); m++) {
            weft_plan_info info = WEFT_PLAN_INFO_INIT;
            plain_step s = PLAIN_STEP_INIT;
            bench b;
            open_model(&b, "tiny-sd1");
            add(&b, "delta.bin", NULL, NULL, m == SECOND ? 0 : 1);
            if (both) add(&b, "bundle.safetensors", NULL, NULL, m == FIRST ? 0 : 1);
            if (m == SWITCH) must(weft_plan_switch(b.plan, NULL, &golden_err));
            if (m == COMPOSITE) must(weft_plan_composite(b.plan, NULL, &golden_err));
            if (m == KLORA) must(weft_plan_klora(b.plan, NULL, &golden_err));
            start(&b);
            must(weft_plan_info_get(b.plan, &info, &golden_err));
            ck_assert_int_eq(info.adapters, 1 + both);
            if (m == MERGE) {
                e = encode_of(&b, both ? "a <new1> ohwx" : "a <new1> cat", 1, 0);
                must(plain_run_encode(b.run, &e, &golden_err));
            }
            s.latent = x;
            s.out = out[both][m];
            s.latent_len = s.out_len = N;
            s.text = e.text;
            s.text_len = e.text_len;
            s.timestep = 501;
            must(plain_run_step(b.run, &s, &golden_err));
            bench_free(&b);
        }
        encode_free(&e);
    }
    near_golden("alone, switch", out[0][SWITCH], out[0][MERGE], N, 1e-5);
    near_golden("alone, composite", out[0][COMPOSITE], out[0][MERGE], N, 1e-5);
    for (int i = 0; i < N; i++) mean[i] = (out[1][FIRST][i] + out[1][SECOND][i]) / 2;
    near_golden("two, switch", out[1][SWITCH], out[1][FIRST], N, 1e-5);
    near_golden("two, composite", out[1][COMPOSITE], mean, N, 1e-5);
    ck_assert(relative(out[1][FIRST], out[1][SECOND], N, NULL) > 1e-3);
    ck_assert(relative(out[1][MERGE], out[1][FIRST], N, NULL) > 1e-3);
    ck_assert(relative(out[1][MERGE], out[1][KLORA], N, NULL) > 1e-3);
}
END_TEST

/* A vector that equals a row of the vocabulary is that row, bit for bit; and a word that takes over another's place. */
START_TEST(a_row_of_the_vocabulary)
{
    weft_add_options o = WEFT_ADD_OPTIONS_INIT;
    weft_concept *c = concept_of("cat_toy.safetensors", NULL, "the");
    bench b, r;
    open_model(&b, "tiny-sd1");
    add(&b, "same.safetensors", NULL, NULL, 1);
    start(&b);
    plain_encode word = encode_of(&b, "a cat on <same> mat", 1, 0), plain = encode_of(&b, "a cat on the mat", 1, 0);
    must(plain_run_encode(b.run, &word, &golden_err));
    must(plain_run_encode(b.run, &plain, &golden_err));
    ck_assert(memcmp(word.text, plain.text, plain.text_len * sizeof *plain.text) == 0);

    open_model(&r, "tiny-sd1");
    ck_assert_int_eq(weft_plan_add_concept(r.plan, c, 1, NULL, &golden_err), WEFT_E_MISMATCH);
    ck_assert_str_eq(golden_err.text, "concept cat_toy: the token the is in the model's vocabulary already: name it otherwise "
                     "with weft_concept_options.tokens, or add it with WEFT_ADD_REPLACE");
    o.flags = WEFT_ADD_REPLACE;
    must(weft_plan_add_concept(r.plan, c, 1, &o, &golden_err));
    add(&r, "cat_toy.safetensors", NULL, NULL, 1);
    start(&r);
    word.prompt = "a cat on THE mat";
    plain.prompt = "a cat on <cat-toy> mat";
    must(plain_run_encode(r.run, &word, &golden_err));
    must(plain_run_encode(r.run, &plain, &golden_err));
    ck_assert(memcmp(word.text, plain.text, plain.text_len * sizeof *plain.text) == 0);
    weft_concept_free(c);
    encode_free(&word), encode_free(&plain);
    bench_free(&b), bench_free(&r);
}
END_TEST

/* ---- a file's name ---- */

static void remove_folder(const char *dir)
{
    char line[300];
    snprintf(line, sizeof line, "rm -r '%s'", dir);
    ck_assert_int_eq(system(line), 0);
}

/* A file of data/concepts under another name in `dir`. */
static weft_concept *renamed(const char *file, const char *dir, const char *name, const char *tokens)
{
    weft_concept_options o = WEFT_CONCEPT_OPTIONS_INIT;
    char line[1024], path[512];
    weft_concept *c;
    o.tokens = tokens;
    snprintf(path, sizeof path, "%s/%s.safetensors", dir, name);
    snprintf(line, sizeof line, "mkdir -p '%s' && cp '%s' '%s'", dir, data_path("concepts/%s", file), path);
    ck_assert_int_eq(system(line), 0);
    must(weft_concept_open(path, &o, &c, &golden_err));
    return c;
}

static int32_t times(const weft_plan *p, const weft_concept *c, const char *prompt)
{
    int32_t n = -1;
    must(weft_plan_token_count(p, c, 0, prompt, 0, &n, &golden_err));
    return n;
}

static const char *second_name(const weft_concept *c)
{
    weft_token_info w = WEFT_TOKEN_INFO_INIT;
    must(weft_concept_token(c, 0, &w, &golden_err));
    return w.also;
}

/* What a token is called by its file's name it is by the name inside, which words.json holds to diffusers; and the
 * plan's text and stamp know. */
START_TEST(the_name_of_the_file_is_the_token_too)
{
    char dir[256], text[4096];
    bench b;
    snprintf(dir, sizeof dir, "%s", test_dir());
    weft_concept *c = renamed("cat_toy.safetensors", dir, "My Thing-2", NULL);
    ck_assert_str_eq(second_name(c), "My Thing-2");
    open_model(&b, "tiny-sd1");
    must(weft_plan_add_concept(b.plan, c, 1, NULL, &golden_err));
    start(&b);
    plain_encode inside = encode_of(&b, "a <cat-toy>, <cat-toy>", 1, 0), file = encode_of(&b, "a my  thing-2, MY THING-2", 1, 0);
    must(plain_run_encode(b.run, &inside, &golden_err));
    must(plain_run_encode(b.run, &file, &golden_err));
    ck_assert(memcmp(inside.text, file.text, file.text_len * sizeof *file.text) == 0);
    ck_assert_int_eq(times(b.plan, c, "a my thing-2, <CAT-TOY> and my thing-2s"), 2);
    ck_assert_int_eq(times(b.plan, c, "my thing"), 0);
    must(weft_plan_text(b.plan, text, sizeof text, NULL, &golden_err));
    ck_assert_msg(strstr(text, "1  <cat-toy>                My Thing-2, also written my thing-2\n") != NULL, "%s", text);
    encode_free(&inside), encode_free(&file);
    bench_free(&b);
    weft_concept_free(c);
    remove_folder(dir);
}
END_TEST

/* It hides nothing: neither a word of the vocabulary, nor a token of another concept, in whatever order they come; and
 * there is none where the caller names the token, where it is the same name, or where it is no text. */
START_TEST(a_file_s_name_hides_nothing)
{
    char dir[256], sub[300], text[4096];
    weft_add_options replace = WEFT_ADD_OPTIONS_INIT;
    replace.flags = WEFT_ADD_REPLACE;
    snprintf(dir, sizeof dir, "%s", test_dir());
    snprintf(sub, sizeof sub, "%s/sub", dir);
    for (int order = 0; order < 2; order++) {
        bench b;
        weft_concept *cat = renamed("cat_toy.safetensors", dir, "x-1", NULL), *named, *same, *the;
        named = concept_of("same.safetensors", NULL, "X-1");    /* by the caller: it is this one's */
        same = renamed("same.safetensors", sub, "X-1", NULL);   /* by its file too: it is nobody's */
        the = renamed("cat_toy.safetensors", dir, "the", NULL); /* a word of the vocabulary        */
        ck_assert_str_eq(second_name(same), "X-1");

        open_model(&b, "tiny-sd1");
        must(weft_plan_add_concept(b.plan, order ? named : cat, 1, NULL, &golden_err));
        must(weft_plan_add_concept(b.plan, order ? cat : named, 1, NULL, &golden_err));
        ck_assert_int_eq(times(b.plan, cat, "x-1 <cat-toy>"), 1);
        ck_assert_int_eq(times(b.plan, named, "x-1 <cat-toy>"), 1);
        must(weft_plan_seal(b.plan, 1, &golden_err));
        must(weft_plan_text(b.plan, text, sizeof text, NULL, &golden_err));
        ck_assert_ptr_null(strstr(text, "also written"));
        bench_free(&b);

        open_model(&b, "tiny-sd1");
        must(weft_plan_add_concept(b.plan, order ? same : cat, 1, NULL, &golden_err));
        ck_assert_int_eq(times(b.plan, order ? same : cat, "x-1 <cat-toy> <same>"), 2);
        must(weft_plan_add_concept(b.plan, order ? cat : same, 1, NULL, &golden_err));
        ck_assert_int_eq(times(b.plan, cat, "x-1 <cat-toy> <same>"), 1);
        ck_assert_int_eq(times(b.plan, same, "x-1 <cat-toy> <same>"), 1);
        bench_free(&b);

        open_model(&b, "tiny-sd1");
        must(weft_plan_add_concept(b.plan, the, 1, order ? &replace : NULL, &golden_err));
        ck_assert_int_eq(times(b.plan, the, "the <cat-toy>"), 1 + order);
        bench_free(&b);
        weft_concept_free(cat), weft_concept_free(named), weft_concept_free(same), weft_concept_free(the);
    }
    weft_concept *c = renamed("cat_toy.safetensors", dir, "x-1", "<a>");
    ck_assert_ptr_null(second_name(c));
    weft_concept_free(c);
    static const char *const without[] = { "<CAT-toy>", "a\xff", "a\x01" };
    for (size_t i = 0; i < 3; i++) {
        c = renamed("cat_toy.safetensors", dir, without[i], NULL);
        ck_assert_ptr_null(second_name(c));
        weft_concept_free(c);
    }
    static const char *const files[] = { "bundle.safetensors", "simo.safetensors", "kohya.safetensors", "edlora.pth" };
    for (size_t i = 0; i < 4; i++) {
        c = concept_of(files[i], NULL, NULL);
        ck_assert_ptr_null(second_name(c));
        weft_concept_free(c);
    }
    c = concept_of("pair_1.safetensors", "pair_2.bin", NULL);
    ck_assert_ptr_null(second_name(c));
    weft_concept_free(c);
    remove_folder(dir);
}
END_TEST

START_TEST(tokens_are_counted)
{
    bench b;
    weft_concept *c = concept_of("multi.bin", NULL, NULL), *other = concept_of("simo.safetensors", NULL, NULL);
    int32_t n;
    open_model(&b, "tiny-sd1");
    must(weft_plan_add_concept(b.plan, c, 1, NULL, &golden_err));
    must(weft_plan_add_concept(b.plan, other, 1, NULL, &golden_err));
    ck_assert_int_eq(times(b.plan, c, ""), 0);
    ck_assert_int_eq(times(b.plan, c, "<multi> <s2> <multi>"), 2); /* of 3 vectors each */
    must(weft_plan_token_count(b.plan, other, 1, "<multi> <s2> <multi>", 0, &n, &golden_err));
    ck_assert_int_eq(n, 1);
    must(weft_plan_token_count(b.plan, c, 0, "(<multi>:1.2) [<multi>] BREAK <mul(ti>)", WEFT_ENCODE_WEIGHTS, &n, &golden_err));
    ck_assert_int_eq(n, 2);
    ck_assert_int_eq(weft_plan_token_count(NULL, c, 0, "", 0, &n, &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_plan_token_count(b.plan, NULL, 0, "", 0, &n, &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_plan_token_count(b.plan, c, 0, NULL, 0, &n, &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_plan_token_count(b.plan, c, 0, "", 0, NULL, &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_plan_token_count(b.plan, c, 0, "", 1u << 30, &n, &golden_err), WEFT_E_UNSUPPORTED);
    ck_assert_int_eq(weft_plan_token_count(b.plan, c, 1, "", 0, &n, &golden_err), WEFT_E_ARG);
    ck_assert_str_eq(golden_err.text, "weft_plan_token_count: token 1 is not one of the concept's 1");
    weft_concept *stranger = concept_of("kohya.safetensors", NULL, NULL);
    ck_assert_int_eq(weft_plan_token_count(b.plan, stranger, 0, "", 0, &n, &golden_err), WEFT_E_ARG);
    ck_assert_str_eq(golden_err.text, "weft_plan_token_count: concept kohya is not of the plan");
    ck_assert_int_eq(weft_plan_token_count(b.plan, c, 0, "\xff", 0, &n, &golden_err), WEFT_E_ARG);
    weft_concept_free(stranger), weft_concept_free(c), weft_concept_free(other);
    bench_free(&b);
}
END_TEST

/* ---- what is read as words ---- */

static void gather(void *user, int32_t level, const char *line)
{
    if (level == WEFT_LOG_WARN) snprintf((char *)user + strlen(user), 4096 - strlen(user), "%s\n", line);
}

/* Warnings of a prompt, each in a line, without what to do. */
static const char *warned(const char *prompt, uint32_t flags)
{
    static char lines[4096], kept[4096];
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    bench b;
    lines[0] = kept[0] = '\0';
    open_model(&b, "tiny-sd1");
    add(&b, "cat_toy.safetensors", NULL, NULL, 1);
    o.threads = 1;
    o.height = o.width = 8;
    o.log = gather;
    o.log_user = lines;
    must(weft_plan_seal(b.plan, 1, &golden_err));
    must(weft_run_create(b.plan, &o, &b.run, &golden_err));
    int32_t chunks;
    must(weft_plan_prompt_size(b.plan, prompt, flags, NULL, &chunks, &golden_err));
    plain_encode e = encode_of(&b, prompt, chunks, 0);
    e.flags = flags;
    must(plain_run_encode(b.run, &e, &golden_err));
    encode_free(&e);
    bench_free(&b);
    for (char *line = strtok(lines, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        char *end = strstr(line, ", which is read as words: ");
        ck_assert_msg(strncmp(line, "the prompt has ", 15) == 0 && end != NULL && end[26] != '\0', "%s", line);
        *end = '\0';
        strcat(strcat(kept, line + 15), "\n");
    }
    return kept;
}

START_TEST(what_other_programs_act_on_is_warned_of)
{
    static const struct { const char *prompt, *plain, *weights; } cases[] = {
        { "a photo of a cat, 3:4 (really) [so], a<b, c>d <3 <1> x:1.3) e=mc", "", "" },
        { "a <cat-toy> cat_toy <CAT-TOY> <|endoftext|>", "", "" },
        { "a <lora:x y:0.8> <lora:z:1>", "<lora:x y:0.8>\n", "<lora:x y:0.8>\n" },
        { "<lyco:x><hypernet:x>", "<lyco:x>\n", "<lyco:x>\n" },
        { "<lora:> <lora:x <b-2>", "<b-2>\n", "<b-2>\n" },
        { "<k\xc3\xa4tzchen>", "<k\xc3\xa4tzchen>\n", "<k\xc3\xa4tzchen>\n" },
        { "(embedding:bad_hands-5:1.2), embedding:x", "embedding:bad_hands-5\n(embedding:bad_hands-5:1.2)\n", "embedding:bad_hands-5\n" },
        { "embedding: x, my_embedding:y, preembedding:y", "", "" },
        { "(red:1.3) (blue:1.3)", "(red:1.3)\n", "" },
        { "a (red : -.5 ) \\(x:2)", "(red : -.5 )\n", "" },
        { "a \\(x:2\\) \\[a|b] \\<lora:a>", "", "" },
        { "a BREAK b, BREAKS, BREAK_, aBREAK", "BREAK\n", "" },
        { "a AND b, BRAND ANDY AND_, AND", "AND\n", "AND\n" },
        { "{a|b} {c} d|e}", "{a|b}\n", "{a|b}\n" },
        { "{a} b|c}", "", "" },
        { "ANDY AND_ BRAND and", "", "" },
        { "{a {b|c}", "{b|c}\n", "{b|c}\n" },
        { "[cat:dog:0.5] [a|b]", "[cat:dog:0.5]\n", "[cat:dog:0.5]\n" },
        { "[a|b] [cat]", "[a|b]\n", "[a|b]\n" },
        { "[dog:10]", "[dog:10]\n", "[dog:10]\n" },
        { "[dog: x] [a [b|c] [10] [:10]", "[b|c]\n", "[b|c]\n" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ck_assert_str_eq(warned(cases[i].prompt, 0), cases[i].plain);
        ck_assert_str_eq(warned(cases[i].prompt, WEFT_ENCODE_WEIGHTS), cases[i].weights);
    }
}
END_TEST

/* A file with tokens beside its factors, added as an adapter: sealing says so, and not where a concept gives them. */
START_TEST(tokens_beside_an_adapter_are_warned_of)
{
    for (int way = 0; way < 3; way++) {
        weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
        weft_concept *c = concept_of("bundle.safetensors", NULL, NULL);
        weft_adapter *a = weft_concept_adapter(c);
        char said[4096] = "";
        bench b;
        open_model(&b, "tiny-sd1");
        weft_plan_free(b.plan);
        o.log = gather;
        o.log_user = said;
        must(weft_plan_create(b.model, &o, &b.plan, &golden_err));
        if (way != 1) must(weft_plan_add(b.plan, a, 1, NULL, &golden_err));
        if (way != 0) must(weft_plan_add_concept(b.plan, c, way == 1, NULL, &golden_err));
        must(weft_plan_seal(b.plan, 1, &golden_err));
        ck_assert_str_eq(said, way == 0 ? "adapter bundle: its file has 1 embedding of tokens too, which prompts do not know "
                                          "unless it is added with weft_plan_add_concept()\n" : "");
        weft_adapter_free(a);
        weft_concept_free(c);
        bench_free(&b);
    }
}
END_TEST

/* Without the word in it a prompt is what it was; the vocabulary knows nothing of words; copies share them. */
START_TEST(words_belong_to_a_plan)
{
    bench b, none;
    weft_plan *copy;
    int32_t with, without;
    size_t n;
    open_model(&b, "tiny-sd1");
    open_model(&none, "tiny-sd1");
    add(&b, "kohya.safetensors", NULL, "<new>", 1);
    must(weft_plan_copy(b.plan, &copy, &golden_err));
    start(&b), start(&none);
    plain_encode e = encode_of(&b, "a new cat", 1, 0), p = encode_of(&none, "a new cat", 1, 0);
    must(plain_run_encode(b.run, &e, &golden_err));
    must(plain_run_encode(none.run, &p, &golden_err));
    ck_assert(memcmp(e.text, p.text, p.text_len * sizeof *p.text) == 0);

    must(weft_model_tokenize(b.model, WEFT_COMPONENT_TEXT_1, "<new>", NULL, 0, &n, &golden_err));
    must(weft_plan_prompt_size(none.plan, "<new>", 0, &without, NULL, &golden_err));
    must(weft_plan_prompt_size(copy, "<new>", 0, &with, NULL, &golden_err));
    ck_assert_int_eq(without, (int32_t)n);
    ck_assert_int_eq(with, 2);
    ck_assert_int_gt(without, 2);
    encode_free(&e), encode_free(&p);
    weft_plan_free(copy);
    bench_free(&b), bench_free(&none);
}
END_TEST

START_TEST(the_plan_s_text_names_them)
{
    char text[4096];
    bench b;
    open_model(&b, "tiny-sd1");
    add(&b, "kohya.safetensors", NULL, NULL, 1);
    add(&b, "layers.safetensors", NULL, NULL, 1);
    must(weft_plan_seal(b.plan, 1, &golden_err));
    must(weft_plan_text(b.plan, text, sizeof text, NULL, &golden_err));
    ck_assert_ptr_nonnull(strstr(text, "\ntokens\n"
                                       "      places  token                    concept\n"
                                       "           2  kohya                    kohya\n"
                                       "           1  <dog1>                   layers, a vector for each of 11 layers\n"
                                       "           1  <dog2>                   layers, a vector for each of 11 layers\n"));
    bench_free(&b);
}
END_TEST

static void not_added(bench *b, const char *file, const char *second, const char *words, const char *text)
{
    weft_concept *c = concept_of(file, second, words);
    ck_assert_int_eq(weft_plan_add_concept(b->plan, c, 1, NULL, &golden_err), WEFT_E_MISMATCH);
    ck_assert_str_eq(golden_err.text, text);
    weft_concept_free(c);
}

/* SDXL's pair with the refiner's width, which has the second encoder alone: the first half goes unused. */
static weft_concept *pair_file(bench *refiner)
{
    static const float v[2 * 20] = { 0.5f };
    char folder[] = "/tmp/weft-words-XXXXXX", path[64];
    weft_tensor_out out[2] = { { sizeof *out, 0, "clip_l", v, { 2, 16 }, 2, NULL }, { sizeof *out, 0, "clip_g", v, { 2, 20 }, 2, NULL } };
    weft_concept *c;
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/sks.safetensors", folder);
    must(weft_tensors_write(path, out, 2, NULL, 0, &golden_err));
    must(weft_concept_open(path, NULL, &c, &golden_err));
    remove(path);
    rmdir(folder);
    must(weft_plan_add_concept(refiner->plan, c, 1, NULL, &golden_err));
    return c;
}

START_TEST(what_does_not_fit)
{
    bench sd1, xl, unet;
    open_model(&sd1, "tiny-sd1");
    open_model(&xl, "tiny-sdxl");
    open_model(&unet, "tiny-sd2");
    not_added(&sd1, "pair.safetensors", NULL, NULL,
              "concept pair: the token pair has vectors 16 and 24 wide, the model's text encoder takes 24");
    not_added(&xl, "pair_1.safetensors", NULL, NULL,
              "concept pair_1: the token <pair> has vectors 16 wide, the model's text encoders take 16 and 24: give the other "
              "half in weft_concept_options.second");
    not_added(&unet, "cat_toy.safetensors", NULL, NULL,
              "concept cat_toy: the token <cat-toy> has vectors 24 wide, the model's text encoder takes 20");
    not_added(&sd1, "cat_toy.safetensors", NULL, "a<|endoftext|>b",
              "concept cat_toy: the token a<|endoftext|>b contains a token that the model's tokenizer sets apart: name it "
              "otherwise with weft_concept_options.tokens");
    add(&sd1, "cat_toy.safetensors", NULL, NULL, 1);
    not_added(&sd1, "kohya.safetensors", NULL, "<Cat-Toy>",
              "concept kohya: the token <Cat-Toy> is a token of concept cat_toy already: name one of them otherwise with "
              "weft_concept_options.tokens");
    add(&xl, "pair_1.safetensors", "pair_2.bin", "<one>", 1);
    add(&xl, "pair_2.bin", "pair_1.safetensors", "<two>", 1); /* widths tell which is which */
    start(&xl);
    plain_encode a = encode_of(&xl, "<one> cat", 1, 0), b = encode_of(&xl, "<two> cat", 1, 0);
    must(plain_run_encode(xl.run, &a, &golden_err));
    must(plain_run_encode(xl.run, &b, &golden_err));
    ck_assert(memcmp(a.text, b.text, a.text_len * sizeof *a.text) == 0);
    bench refiner; /* has SDXL's second text encoder alone */
    open_model(&refiner, "tiny-refiner");
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    must(weft_model_info_get(refiner.model, &info, &golden_err));
    ck_assert_int_eq(info.text_encoders, 1);
    weft_concept_free(pair_file(&refiner));
    weft_concept *late = concept_of("pair_1.safetensors", "pair_2.bin", NULL);
    ck_assert_int_eq(weft_plan_add_concept(xl.plan, late, 1, NULL, &golden_err), WEFT_E_STATE);
    weft_concept_free(late);
    encode_free(&a), encode_free(&b);
    bench_free(&sd1), bench_free(&xl), bench_free(&unet), bench_free(&refiner);
}
END_TEST

/* A word with a vector for each layer wants an encoding for each. */
START_TEST(a_vector_for_each_layer)
{
    bench b;
    open_model(&b, "tiny-sd1");
    add(&b, "layers.safetensors", NULL, NULL, 1);
    start(&b);
    plain_encode one = encode_of(&b, "a <dog1>", 1, 0), all = encode_of(&b, "a cat", 1, b.text.layers);
    ck_assert_int_eq(plain_run_encode(b.run, &one, &golden_err), WEFT_E_ARG);
    ck_assert_str_eq(golden_err.text, "the token <dog1> has a vector for each of 11 cross-attention layers: set "
                     "weft_text.cross_layers of the sequence to 11");
    one.prompt = "a cat";
    must(plain_run_encode(b.run, &one, &golden_err));
    must(plain_run_encode(b.run, &all, &golden_err));
    ck_assert(memcmp(all.text + 10 * one.text_len, one.text, one.text_len * sizeof *one.text) == 0);
    encode_free(&one), encode_free(&all);
    bench_free(&b);
}
END_TEST

typedef struct steps { int64_t done, total; bool stop; } steps;

static int32_t on_progress(void *user, const char *what, int64_t done, int64_t total)
{
    steps *s = user;
    (void)what;
    ck_assert_int_eq(done, ++s->done);
    s->total = total;
    return s->stop && done == 20;
}

/* Every pass counts: the empty prompt, and a text for each layer. A call that was stopped leaves a run that works. */
START_TEST(progress_through_all_passes)
{
    static const struct { const char *prompt; uint32_t flags; int64_t passes; } cases[] = {
        { "a cat", 0, 1 }, { "a (cat)", WEFT_ENCODE_WEIGHTS, 1 }, { "a (cat)", WEFT_ENCODE_WEIGHTS | WEFT_ENCODE_FROM_EMPTY, 2 },
        { "a (<dog1>)", WEFT_ENCODE_WEIGHTS | WEFT_ENCODE_FROM_EMPTY, 12 },
    };
    steps s = { 0, 0, false };
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    int64_t once = 0;
    bench b;
    open_model(&b, "tiny-sd1");
    add(&b, "layers.safetensors", NULL, NULL, 1);
    must(weft_plan_seal(b.plan, 1, &golden_err));
    o.progress = on_progress;
    o.progress_user = &s;
    o.threads = 1;
    o.height = o.width = 8;
    must(weft_run_create(b.plan, &o, &b.run, &golden_err));
    plain_encode e = encode_of(&b, "", 1, b.text.layers);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        s = (steps){ 0, 0, false };
        e.prompt = cases[i].prompt;
        e.flags = cases[i].flags;
        must(plain_run_encode(b.run, &e, &golden_err));
        if (i == 0) once = s.total;
        ck_assert_int_gt(once, 0);
        ck_assert_int_eq(s.done, s.total);
        ck_assert_int_eq(s.total, cases[i].passes * once);
    }
    s = (steps){ 0, 0, true };
    ck_assert_int_eq(plain_run_encode(b.run, &e, &golden_err), WEFT_E_CANCELLED);
    s = (steps){ 0, 0, false };
    must(plain_run_encode(b.run, &e, &golden_err));
    encode_free(&e);
    bench_free(&b);
}
END_TEST

/* ---- memory ---- */

/* Two concepts and a prompt with both, in a plan and a run whose nth allocation fails. */
static weft_status use_words(weft_model *model, weft_concept *a, weft_concept *b, const weft_allocator *alloc, float *text)
{
    weft_plan_options po = WEFT_PLAN_OPTIONS_INIT;
    weft_run_options ro = WEFT_RUN_OPTIONS_INIT;
    plain_encode e = PLAIN_ENCODE_INIT;
    weft_concept_options co = WEFT_CONCEPT_OPTIONS_INIT;
    weft_plan *plan = NULL;
    weft_run *run = NULL;
    weft_concept *cat = NULL; /* which has two names */
    char said[4096] = "";
    int32_t n = 0;
    po.allocator = ro.allocator = co.allocator = alloc;
    ro.log = gather;
    ro.log_user = said;
    ro.threads = 1;
    ro.height = ro.width = 8;
    e.prompt = "(<w>:1.3), [<dog1>] BREAK cat_toy <x>";
    e.flags = WEFT_ENCODE_WEIGHTS | WEFT_ENCODE_FROM_EMPTY | WEFT_ENCODE_COMMA;
    e.text = text;
    e.chunks = 2;
    e.layers = 11;
    e.text_len = 11 * 2 * 77 * 24;
    weft_status st = weft_concept_open(data_path("concepts/cat_toy.safetensors"), &co, &cat, &golden_err);
    if (st == WEFT_OK) st = weft_plan_create(model, &po, &plan, &golden_err);
    if (st == WEFT_OK) st = weft_plan_add_concept(plan, cat, 1, NULL, &golden_err);
    if (st == WEFT_OK) st = weft_plan_token_count(plan, cat, 0, e.prompt, e.flags, &n, &golden_err);
    if (st == WEFT_OK) ck_assert_int_eq(n, 1);
    if (st == WEFT_OK) st = weft_plan_add_concept(plan, a, 1, NULL, &golden_err);
    if (st == WEFT_OK) st = weft_plan_add_concept(plan, b, 1, NULL, &golden_err);
    if (st == WEFT_OK) st = weft_plan_seal(plan, 1, &golden_err);
    if (st == WEFT_OK) st = weft_run_create(plan, &ro, &run, &golden_err);
    if (st == WEFT_OK) st = plain_run_encode(run, &e, &golden_err);
    weft_run_free(run);
    weft_plan_free(plan);
    weft_concept_free(cat);
    return st;
}

START_TEST(memory_may_run_out)
{
    weft_concept *a = concept_of("kohya.safetensors", NULL, "<w>"), *b = concept_of("layers.safetensors", NULL, NULL);
    weft_model *model;
    test_memory m;
    weft_allocator alloc = test_allocator(&m);
    weft_status st = WEFT_E_NOMEM;
    float *text = calloc(11 * 2 * 77 * 24, sizeof *text);
    must(weft_model_open(data_path("models/tiny-sd1"), NULL, &model, &golden_err));
    size_t n = 1;
    for (; st == WEFT_E_NOMEM; n++) {
        m.calls = 0;
        m.fail_at = n;
        st = use_words(model, a, b, &alloc, text);
        ck_assert_msg(st == WEFT_OK || st == WEFT_E_NOMEM, "allocation %zu: %s", n, golden_err.text);
        ck_assert_uint_eq(m.live_blocks, 0);
        ck_assert_uint_lt(n, 10000);
    }
    must(st);
    ck_assert_uint_gt(n, 20);
    weft_model_free(model);
    weft_concept_free(a);
    weft_concept_free(b);
    free(text);
}
END_TEST

/* ---- stamps ---- */

/* Stamp of an encoding under the bench's plan as it is now; the run moves to a sealed copy. */
static uint64_t stamp_of(bench *b, const weft_plan *plan)
{
    plain_encode e = encode_of(b, "a cat", 1, 0);
    weft_plan *copy;
    must(weft_plan_copy(plan, &copy, &golden_err));
    must(weft_plan_seal(copy, 2, &golden_err));
    must(weft_run_set_plan(b->run, copy, &golden_err));
    must(plain_run_encode(b->run, &e, &golden_err));
    weft_plan_free(copy);
    encode_free(&e);
    ck_assert(e.stamp != 0);
    return e.stamp;
}

static weft_plan *plan_of(weft_model *m, weft_adapter *a, int32_t text, float weight, float in_text, weft_concept *c)
{
    weft_plan_options po = WEFT_PLAN_OPTIONS_INIT;
    weft_add_options ao = WEFT_ADD_OPTIONS_INIT;
    weft_plan *p;
    po.text = text;
    ao.text_weights = text_weight(in_text);
    must(weft_plan_create(m, &po, &p, &golden_err));
    if (a != NULL) must(weft_plan_add(p, a, weight, &ao, &golden_err));
    if (c != NULL) must(weft_plan_add_concept(p, c, 1, NULL, &golden_err));
    return p;
}

START_TEST(stamps_tell_what_matters)
{
    enum { BASE, TWIN, UNET, UNET_2, TEXT, TEXT_2, SILENT, WORD, WORD_2, BOTH, BOTH_2, MODEL, PLANS };
    weft_model *twin;
    weft_adapter *content, *text;
    weft_plan *p[PLANS];
    uint64_t s[PLANS];
    bench b, t;
    weft_concept *one = concept_of("kohya.safetensors", NULL, "sks1"), *two = concept_of("same.safetensors", NULL, "sks1");
    weft_concept *more = concept_of("cat_toy.safetensors", NULL, NULL);
    open_model(&b, "tiny-sd1");
    open_model(&t, "tiny-sd1");
    twin = t.model;
    start(&b), start(&t);
    must(weft_adapter_open(data_path("adapters/sd1_kohya_noalpha.safetensors"), NULL, &content, &golden_err)); /* the UNet alone */
    must(weft_adapter_open(data_path("adapters/sd1_kohya.safetensors"), NULL, &text, &golden_err));
    p[BASE] = plan_of(b.model, NULL, 0, 0, 0, NULL);
    p[TWIN] = plan_of(twin, NULL, 0, 0, 0, NULL);
    p[UNET] = plan_of(b.model, content, 0, 0.5f, 0.5f, NULL);
    p[UNET_2] = plan_of(b.model, text, 0, 1, 0, NULL);
    p[TEXT] = plan_of(b.model, text, 0, 1, 1, NULL);
    p[TEXT_2] = plan_of(b.model, text, 0, 0.3f, 1, NULL);
    p[SILENT] = plan_of(b.model, text, WEFT_TEXT_NONE, 1, 1, NULL);
    p[WORD] = plan_of(b.model, NULL, 0, 0, 0, one);
    p[WORD_2] = plan_of(b.model, NULL, 0, 0, 0, two);
    p[BOTH] = plan_of(b.model, NULL, 0, 0, 0, one);
    must(weft_plan_add_concept(p[BOTH], more, 1, NULL, &golden_err));
    p[BOTH_2] = plan_of(b.model, NULL, 0, 0, 0, more);
    must(weft_plan_add_concept(p[BOTH_2], one, 1, NULL, &golden_err));
    p[MODEL] = plan_of(b.model, text, 0, 1, 0.99f, NULL);
    for (int i = 0; i < PLANS; i++) s[i] = stamp_of(i == TWIN ? &t : &b, p[i]);
    for (int i = 0; i < PLANS; i++) { /* equal where the text side is, and nowhere else */
        static const int same[PLANS] = { BASE, BASE, BASE, BASE, TEXT, TEXT, SILENT, WORD, WORD_2, BOTH, BOTH, MODEL };
        for (int k = 0; k < PLANS; k++)
            ck_assert_msg((s[i] == s[k]) == (same[i] == same[k]), "plans %d and %d", i, k);
    }
    for (int i = 0; i < PLANS; i++) weft_plan_free(p[i]);
    weft_concept_free(one), weft_concept_free(two), weft_concept_free(more);
    weft_adapter_free(content), weft_adapter_free(text);
    bench_free(&b), bench_free(&t);
}
END_TEST

START_TEST(a_stale_text_is_refused)
{
    enum { N = 4 * 8 * 8 };
    float x[N] = { 0 }, out[N];
    weft_adapter *text;
    weft_plan *copy;
    plain_step s = PLAIN_STEP_INIT;
    bench b;
    open_model(&b, "tiny-sd1");
    must(weft_adapter_open(data_path("adapters/sd1_kohya.safetensors"), NULL, &text, &golden_err));
    must(weft_plan_add(b.plan, text, 1, NULL, &golden_err));
    start(&b);
    plain_encode e = encode_of(&b, "a cat", 1, 0);
    must(plain_run_encode(b.run, &e, &golden_err));
    s.latent = x;
    s.out = out;
    s.latent_len = s.out_len = N;
    s.text = e.text;
    s.text_len = e.text_len;
    s.timestep = 500;
    s.stamp = e.stamp;
    must(plain_run_step(b.run, &s, &golden_err));

    must(weft_plan_copy(b.plan, &copy, &golden_err)); /* the UNet's weight moves: the text is as good as it was */
    must(weft_plan_set_weight(copy, 0, 0.2f, text_weight(1), &golden_err));
    must(weft_plan_seal(copy, 1, &golden_err));
    must(weft_run_set_plan(b.run, copy, &golden_err));
    must(plain_run_step(b.run, &s, &golden_err));
    weft_plan_free(copy);

    must(weft_plan_copy(b.plan, &copy, &golden_err));
    must(weft_plan_set_weight(copy, 0, 1, text_weight(0.2f), &golden_err));
    must(weft_plan_seal(copy, 1, &golden_err));
    must(weft_run_set_plan(b.run, copy, &golden_err));
    ck_assert_int_eq(plain_run_step(b.run, &s, &golden_err), WEFT_E_STATE);
    ck_assert_str_eq(golden_err.text, "step.stamp: the text was encoded with other text encoders, text weights of adapters, "
                     "or tokens than the run's plan has now: encode the prompts again");
    s.stamp = 0;
    must(plain_run_step(b.run, &s, &golden_err)); /* not checked */
    weft_plan_free(copy);
    weft_adapter_free(text);
    encode_free(&e);
    bench_free(&b);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("words in prompts");
    TCase *c = tcase_create("words");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, prompts_with_words);
    tcase_add_test(c, whole_files);
    tcase_add_test(c, text_parts_have_their_own_weight);
    tcase_add_test(c, concepts_under_every_method);
    tcase_add_test(c, a_row_of_the_vocabulary);
    tcase_add_test(c, words_belong_to_a_plan);
    tcase_add_test(c, the_name_of_the_file_is_the_token_too);
    tcase_add_test(c, a_file_s_name_hides_nothing);
    tcase_add_test(c, tokens_are_counted);
    tcase_add_test(c, what_other_programs_act_on_is_warned_of);
    tcase_add_test(c, tokens_beside_an_adapter_are_warned_of);
    tcase_add_test(c, the_plan_s_text_names_them);
    tcase_add_test(c, what_does_not_fit);
    tcase_add_test(c, a_vector_for_each_layer);
    tcase_add_test(c, progress_through_all_passes);
    tcase_add_test(c, memory_may_run_out);
    tcase_add_test(c, stamps_tell_what_matters);
    tcase_add_test(c, a_stale_text_is_refused);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
