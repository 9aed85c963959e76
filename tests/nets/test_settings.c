/* Every key of the networks' configurations, at values other than the usual: against what diffusers and transformers
 * make of them. tests/reference/make_settings.py takes the keys from the signatures of their classes, so none can be
 * forgotten, and says of each value whether weft follows it (the outputs are theirs), or need not (the outputs are those
 * without it), or refuses it (in a line that names the key). The other way round, every key of weft's own tables has to
 * be among those, and in docs/formats.md. */
#include "nets/formula.h"
#include "nets/keys.h"

typedef struct set {
    json_t       *index;
    const json_t *net;     /* {"class", "component", "config", "tensors", "keys"} */
    const char   *component;
    const wf_key *keys;
    weft_tensors *t;
} set;

static const wf_key *const tables[] = { wf_unet_keys, wf_vae_keys, wf_clip_keys };
enum { UNET, VAE, CLIP, NETS };

static set open_set(int i)
{
    set s = { .index = golden_json("settings.json"), .keys = tables[i], .t = golden_open("settings.safetensors") };
    s.net = json_array_get(json_object_get(s.index, "nets"), (size_t)i);
    s.component = json_string_value(json_object_get(s.net, "component"));
    ck_assert_ptr_nonnull(s.component);
    return s;
}

static void close_set(set *s)
{
    weft_tensors_free(s->t);
    json_decref(s->index);
}

/* ---- a net from a configuration -------------------------------------------------------------- */

typedef struct configs {
    wf_unet_config unet;
    wf_vae_config  vae;
    wf_clip_config clip;
} configs;

static weft_status read_config(const set *s, const json_t *json, configs *c, weft_error *err)
{
    if (s->keys == wf_unet_keys) return wf_config_unet(&c->unet, json, "config.json", err);
    if (s->keys == wf_vae_keys) return wf_config_vae(&c->vae, json, "config.json", err);
    return wf_config_clip(&c->clip, json, true, "config.json", err);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const weft_tensor_out *)a)->name, ((const weft_tensor_out *)b)->name);
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static float times_of(const char *name) /* as fill() of make_settings.py */
{
    return ends_with(name, "to_q.weight") || ends_with(name, "to_out.0.weight") || ends_with(name, "q_proj.weight") ? 8
                                                                                                                   : 1;
}

/* The base's tensors, but for those that differ: null for one that is gone. */
static weft_tensors *make_file(const set *s, const json_t *differ)
{
    static weft_tensor_out tensors[MOST];
    json_t *all = json_copy(json_object_get(s->net, "tensors"));
    const char *name;
    json_t *shape;
    size_t count = 0;

    if (differ != NULL) ck_assert_int_eq(json_object_update(all, (json_t *)(uintptr_t)differ), 0);
    json_object_foreach(all, name, shape) {
        weft_tensor_out *t = &tensors[count];
        if (json_is_null(shape)) continue;
        ck_assert_uint_lt(count++, MOST);
        *t = (weft_tensor_out){ .struct_size = sizeof *t, .name = strdup(name), .rank = json_array_size(shape) };
        for (size_t i = 0; i < t->rank; i++) t->shape[i] = json_integer_value(json_array_get(shape, i));
    }
    json_decref(all);
    qsort(tensors, count, sizeof *tensors, by_name);
    return formula_file(tensors, count, times_of);
}

static void near(const set *s, const char *golden_name, const char *output, const float *v, size_t n)
{
    golden want = golden_read(s->t, "%s/%s", golden_name, output);
    char what[160];
    snprintf(what, sizeof what, "%s/%s", golden_name, output);
    ck_assert_uint_eq(want.n, n);
    near_golden(what, v, want.v, n, 1e-5);
    free(want.v);
}

static void run_unet(const set *s, const wf_unet_config *c, net *n, const char *name)
{
    const float ids[] = { 64, 56, 8, 4, 32, 48 }, timestep = 321;
    float guidance = (float)json_number_value(json_object_get(s->index, "guidance"));
    size_t outs = (size_t)c->out_channels * 56;
    float *x = wave(sin, 0.1, (size_t)c->in_channels * 56), *text = wave(cos, 0.2, 5 * (size_t)c->cross_dim[0]);
    float *pooled = wave(sin, 0.3, (size_t)c->pooled_dim), *out = malloc(outs * sizeof *out);
    wf_denoise_input in = { .grid = wf_image_grid(1, 7, 8), .latent = x, .timestep = &timestep,
                            .text = { { (const float *[]){ text }, 5, 0 }, { (const float *[]){ pooled }, 1, 0 } },
                            .time_ids = ids, .guidance = &guidance };
    wf_denoiser *u;

    must(wf_unet_build(c, &n->binder, &u, &golden_err));
    wf_denoise(u, &n->w.e, NULL, &in);
    bench_real(&n->w);
    wf_denoise(u, &n->w.e, out, &in);
    near(s, name, "out", out, outs);
    wf_denoiser_free(u, &n->alloc);
    free(x), free(text), free(pooled), free(out);
}

static void run_vae(const set *s, const wf_vae_config *c, net *n, const char *name)
{
    wf_grid small = wf_image_grid(1, 3, 5), large = wf_image_grid(1, 6, 10);
    size_t zs = (size_t)c->latent_channels * 15, pixels = 3 * 60;
    float *z = wave(sin, 0.1, zs), *x = wave(cos, 0.05, pixels), *image = malloc(pixels * sizeof *image);
    float *moments = malloc(2 * zs * sizeof *moments);
    wf_vae *v;

    must(wf_vae_build(c, &n->binder, &v, &golden_err));
    wf_vae_decode(v, &n->w.e, NULL, NULL, small);
    wf_vae_encode(v, &n->w.e, NULL, NULL, large);
    bench_real(&n->w);
    for (size_t i = 0; i < zs; i++) z[i] = z[i] / c->scaling_factor + c->shift_factor; /* as run/decode.c */
    wf_vae_decode(v, &n->w.e, image, z, small);
    near(s, name, "decode", image, pixels);
    wf_vae_encode(v, &n->w.e, moments, x, large);
    for (size_t i = 0; i < zs; i++) moments[i] = (moments[i] - c->shift_factor) * c->scaling_factor;
    near(s, name, "mean", moments, zs);
    near(s, name, "logvar", moments + zs, zs);
    wf_vae_free(v, &n->alloc);
    free(z), free(x), free(image), free(moments);
}

/* The end is looked for as run/encode.c does without a tokenizer; tests/model/test_open.c asks that itself. */
static void run_clip(const set *s, const wf_clip_config *c, net *n, const char *name)
{
    enum { LENGTH = 12 };
    const json_t *list = json_object_get(s->index, "ids");
    int32_t ids[LENGTH], eos_at = -1, highest = 0;
    float *last = malloc(LENGTH * (size_t)c->hidden * sizeof *last);
    float *pooled = malloc((size_t)c->projection * sizeof *pooled);
    wf_clip *m;

    for (int32_t i = 0; i < LENGTH; i++) {
        ids[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
        if (eos_at < 0 && ids[i] == c->eos) eos_at = i;
        if (ids[i] > ids[highest]) highest = i;
    }
    if (c->eos == 2) eos_at = highest;
    wf_clip_input in = { .ids = ids, .n = 1, .length = LENGTH, .norm = true, .eos_at = &eos_at };
    must(wf_clip_build(c, &n->binder, &m, &golden_err));
    wf_clip_forward(m, &n->w.e, &in, NULL, NULL);
    bench_real(&n->w);
    wf_clip_forward(m, &n->w.e, &in, last, pooled);
    near(s, name, "last", last, LENGTH * (size_t)c->hidden);
    near(s, name, "pooled", pooled, (size_t)c->projection);
    wf_clip_free(m, &n->alloc);
    free(last), free(pooled);
}

/* The net of a configuration over these tensors gives the outputs called `name`. */
static void gives(const set *s, const json_t *config, const json_t *differ, const char *name)
{
    configs c;
    must(read_config(s, config, &c, &golden_err));
    net *n = net_open(make_file(s, differ), name, s->component);
    if (s->keys == wf_unet_keys) run_unet(s, &c.unet, n, name);
    else if (s->keys == wf_vae_keys) run_vae(s, &c.vae, n, name);
    else run_clip(s, &c.clip, n, name);
    net_close(n);
}

static const char *base_name(const set *s)
{
    static char name[64];
    snprintf(name, sizeof name, "%s/base", s->component);
    return name;
}

/* ---- values ---------------------------------------------------------------------------------- */

static json_t *config_with(const set *s, const char *key, json_t *value, const json_t *more)
{
    json_t *config = json_copy(json_object_get(s->net, "config"));
    ck_assert_int_eq(json_object_set(config, key, value), 0);
    if (more != NULL) ck_assert_int_eq(json_object_update(config, (json_t *)(uintptr_t)more), 0);
    return config;
}

static void refuses(const set *s, const char *key, const json_t *config, const char *shown)
{
    configs c;
    weft_error err = { 0, 0, "" };
    weft_status st = read_config(s, config, &c, &err);
    ck_assert_msg(st == WEFT_E_UNSUPPORTED || st == WEFT_E_FORMAT, "%s = %s is not refused", key, shown);
    ck_assert_msg(strstr(err.text, key) != NULL, "%s = %s: %s", key, shown, err.text);
    ck_assert_ptr_nonnull(strstr(err.text, "config.json: "));
}

/* A value of the index; returns what is said of it. */
static const char *try_value(const set *s, const char *key, const json_t *v)
{
    json_t *value = json_object_get(v, "value");
    json_t *config = config_with(s, key, value, json_object_get(v, "with"));
    const char *says = json_string_value(json_object_get(v, "says"));
    char *shown = json_dumps(value, JSON_ENCODE_ANY);

    if (getenv("GOLDEN_SHOW") != NULL) printf("%s %s = %s: %s\n", s->component, key, shown, says);
    if (strcmp(says, "refuse") == 0) refuses(s, key, config, shown);
    else if (strcmp(says, "follow") == 0)
        gives(s, config, json_object_get(v, "tensors"), json_string_value(json_object_get(v, "golden")));
    else gives(s, config, NULL, base_name(s));
    if (strcmp(says, "size") == 0) {
        configs c;
        must(read_config(s, config, &c, &golden_err));
        ck_assert_int_eq(c.unet.sample_size, json_integer_value(json_is_array(value) ? json_array_get(value, 0) : value));
    }
    free(shown);
    json_decref(config);
    return says;
}

START_TEST(each_value_is_followed_or_refused)
{
    static const size_t least[NETS][3] = { { 45, 12, 52 }, { 13, 7, 10 }, { 15, 18, 10 } }; /* followed, idle, refused */
    set s = open_set(_i);
    const json_t *rows = json_object_get(s.net, "keys");
    size_t followed = 0, idle = 0, refused = 0;

    gives(&s, json_object_get(s.net, "config"), NULL, base_name(&s));
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i), *values = json_object_get(row, "values");
        const char *key = json_string_value(json_object_get(row, "key"));
        ck_assert_uint_ge(json_array_size(values), 1);
        for (size_t k = 0; k < json_array_size(values); k++) {
            const char *says = try_value(&s, key, json_array_get(values, k));
            followed += strcmp(says, "follow") == 0 || strcmp(says, "size") == 0;
            idle += strcmp(says, "idle") == 0;
            refused += strcmp(says, "refuse") == 0;
        }
    }
    if (getenv("GOLDEN_SHOW") != NULL) printf("%s: %zu %zu %zu\n", s.component, followed, idle, refused);
    ck_assert_uint_ge(followed, least[_i][0]);
    ck_assert_uint_ge(idle, least[_i][1]);
    ck_assert_uint_ge(refused, least[_i][2]);
    close_set(&s);
}
END_TEST

/* Where the base says what the class takes by itself, the key may be left out. */
START_TEST(absent_keys_are_the_classs_own)
{
    set s = open_set(_i);
    const json_t *rows = json_object_get(s.net, "keys"), *base = json_object_get(s.net, "config");
    size_t count = 0;

    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        const char *key = json_string_value(json_object_get(row, "key"));
        if (!json_is_true(json_object_get(row, "of_class")) ||
            !json_equal(json_object_get(base, key), json_object_get(row, "preset")))
            continue;
        json_t *config = json_copy((json_t *)(uintptr_t)base);
        ck_assert_int_eq(json_object_del(config, key), 0);
        gives(&s, config, NULL, base_name(&s));
        json_decref(config);
        count++;
    }
    ck_assert_uint_ge(count, 10);
    close_set(&s);
}
END_TEST

/* The lists that a class takes by itself are long or short, so they are looked at and not run. */
START_TEST(absent_lists_are_the_classs_own)
{
    json_t *none = json_object();
    configs c;
    must(wf_config_unet(&c.unet, none, "config.json", &golden_err));
    ck_assert(c.unet.levels == 4 && c.unet.channels[0] == 320 && c.unet.channels[1] == 640);
    ck_assert(c.unet.channels[2] == 1280 && c.unet.channels[3] == 1280 && c.unet.cross_dim[3] == 1280);
    for (int i = 0; i < 4; i++) ck_assert(c.unet.down_attention[i] == (i < 3) && c.unet.up_attention[i] == (i > 0));
    ck_assert(c.unet.time_dim == 1280 && c.unet.heads[0] == 8 && c.unet.mid_attention && !c.unet.text_time);
    must(wf_config_vae(&c.vae, none, "config.json", &golden_err));
    ck_assert(c.vae.levels == 1 && c.vae.channels[0] == 64 && c.vae.groups == 32 && c.vae.layers == 1);
    json_decref(none);
}
END_TEST

/* ---- the tables themselves ------------------------------------------------------------------- */

static const json_t *row_of(const set *s, const char *key)
{
    const json_t *rows = json_object_get(s->net, "keys");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        if (strcmp(json_string_value(json_object_get(row, "key")), key) == 0) return row;
    }
    return NULL;
}

static bool has_value(const json_t *row, const char *says)
{
    const json_t *values = json_object_get(row, "values");
    for (size_t i = 0; i < json_array_size(values); i++) {
        const char *word = json_string_value(json_object_get(json_array_get(values, i), "says"));
        if (strcmp(word, says) == 0 || (strcmp(says, "follow") == 0 && strcmp(word, "size") == 0)) return true;
    }
    return false;
}

/* Each key of the classes is in the table, and each key of the table has a value that shows its fate. A key without
 * effect that no class of today has may hold anything. */
START_TEST(tables_and_classes_have_the_same_keys)
{
    set s = open_set(_i);
    const json_t *rows = json_object_get(s.net, "keys");
    size_t known = 0, listed = json_array_size(rows);

    for (const wf_key *k = s.keys; k->name != NULL; k++) {
        const json_t *row = row_of(&s, k->name);
        known += row != NULL;
        if (k->fate == WF_KEY_IDLE && row == NULL) {
            json_t *any = json_pack("{s:[i,{s:n}]}", "x", 1, "y");
            json_t *config = config_with(&s, k->name, any, NULL);
            gives(&s, config, NULL, base_name(&s));
            json_decref(config);
            json_decref(any);
            continue;
        }
        ck_assert_msg(row != NULL, "%s %s is tried at no value", s.component, k->name);
        bool follows = k->fate == WF_KEY_READ || k->fate == WF_KEY_OPTION;
        bool three = _i == VAE && (strcmp(k->name, "in_channels") == 0 || strcmp(k->name, "out_channels") == 0);
        bool types = _i == VAE && strstr(k->name, "block_types") != NULL; /* one class, by two names */
        ck_assert_msg(has_value(row, k->fate == WF_KEY_IDLE       ? "idle"
                                     : follows && !three && !types ? "follow"
                                                                   : "refuse"),
                      "%s %s is not shown to be so", s.component, k->name);
        ck_assert_msg(follows || !has_value(row, "follow"), "%s %s is followed", s.component, k->name);
    }
    ck_assert_msg(known == listed, "%s: %zu of %zu keys are in the table", s.component, known, listed);
    close_set(&s);
}
END_TEST

static char *read_text(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, 1 << 20);
    ck_assert_msg(f != NULL, "%s", path);
    ck_assert_uint_gt(fread(text, 1, (1 << 20) - 1, f), 1000);
    fclose(f);
    return text;
}

/* Each key of the classes stands in the manual, as `key`, in its class's part. */
START_TEST(the_manual_has_every_key)
{
    static const char *const parts[] = { "#### UNet2DConditionModel", "#### AutoencoderKL", "#### CLIPTextModel", "\n##" };
    set s = open_set(_i);
    char path[1100];
    snprintf(path, sizeof path, "%s/../docs/formats.md", getenv("WEFT_TESTS") != NULL ? getenv("WEFT_TESTS") : "tests");
    char *text = read_text(path), *begin = strstr(text, parts[_i]), *end;
    ck_assert_msg(begin != NULL, "no part %s", parts[_i]);
    end = strstr(begin + 5, parts[_i + 1]);
    ck_assert_ptr_nonnull(end);
    *end = '\0';
    for (size_t i = 0; i < json_array_size(json_object_get(s.net, "keys")); i++) {
        char word[80];
        const json_t *row = json_array_get(json_object_get(s.net, "keys"), i);
        snprintf(word, sizeof word, "`%s`", json_string_value(json_object_get(row, "key")));
        ck_assert_msg(strstr(begin, word) != NULL, "docs/formats.md does not have %s", word);
    }
    free(text);
    close_set(&s);
}
END_TEST

/* ---- refusals say what was found and what is wanted ------------------------------------------ */

START_TEST(a_refusal_names_key_value_and_wish)
{
    static const struct { int net; const char *key, *value, *line; } all[] = {
        { UNET, "dual_cross_attention", "true", "config.json: dual_cross_attention is true, which is not supported: wanted false" },
        { UNET, "num_class_embeds", "1000", "config.json: num_class_embeds is 1000, which is not supported: wanted null" },
        { UNET, "only_cross_attention", "[true, true]",
          "config.json: only_cross_attention is [true], which is not supported: wanted false" },
        { UNET, "only_cross_attention", "[true, false]",
          "config.json: only_cross_attention is a list, which is not supported: wanted false" },
        { UNET, "attention_type", "\"gated\"",
          "config.json: attention_type is \"gated\", which is not supported: wanted \"default\"" },
        { UNET, "quantization_config", "{}", "config.json: quantization_config is an object, which is not supported: wanted null" },
        { UNET, "act_fn", "null", "config.json: act_fn is null, wanted a value" },
        { UNET, "conv_in_kernel", "5", "config.json: conv_in_kernel is 5, wanted 1 or 3" },
        { UNET, "sample_size", "[64, 96]", "config.json: sample_size is a list of different sizes, wanted one number" },
        { UNET, "reverse_transformer_layers_per_block", "[[1], [1, 1]]",
          "config.json: a list in reverse_transformer_layers_per_block has 1 entries, wanted 2" },
        { UNET, "reverse_transformer_layers_per_block", "[1]",
          "config.json: reverse_transformer_layers_per_block has 1 entries, wanted 2" },
        { UNET, "reverse_transformer_layers_per_block", "true",
          "config.json: reverse_transformer_layers_per_block is not a list" },
        { UNET, "transformer_layers_per_block", "[[1], [1]]",
          "config.json: transformer_layers_per_block has lists in its list, which wants a "
          "reverse_transformer_layers_per_block beside it" },
        { UNET, "addition_time_embed_dim", "null",
          "config.json: no addition_time_embed_dim, which addition_embed_type \"text_time\" wants" },
        { VAE, "latents_std", "[1, 2]", "config.json: latents_std is a list, which is not supported: wanted null" },
        { CLIP, "model_type", "\"t5\"",
          "config.json: model_type is \"t5\", which is not supported: wanted \"clip_text_model\"" },
        { CLIP, "projection_dim", "null", "config.json: projection_dim is null, wanted a value" },
    };
    for (size_t i = 0; i < WF_LEN(all); i++) {
        set s = open_set(all[i].net);
        json_t *value = json_loads(all[i].value, JSON_DECODE_ANY, NULL), *config = config_with(&s, all[i].key, value, NULL);
        configs c;
        weft_error err = { 0, 0, "" };
        ck_assert_int_ne(read_config(&s, config, &c, &err), WEFT_OK);
        ck_assert_str_eq(err.text, all[i].line);
        json_decref(value);
        json_decref(config);
        close_set(&s);
    }
}
END_TEST

/* A frequency of 0 / 0. */
START_TEST(time_ids_need_two_frequencies_where_they_are_shifted)
{
    set s = open_set(UNET);
    json_t *value = json_integer(2);
    json_t *config = config_with(&s, "addition_time_embed_dim", value, NULL);
    configs c;
    weft_error err = { 0, 0, "" };
    must(read_config(&s, config, &c, &err));
    json_object_set_new(config, "freq_shift", json_integer(1));
    ck_assert_int_eq(read_config(&s, config, &c, &err), WEFT_E_FORMAT);
    ck_assert_str_eq(err.text, "config.json: addition_time_embed_dim is 2, too small for a freq_shift of 1");
    json_decref(value);
    json_decref(config);
    close_set(&s);
}
END_TEST

/* ---- keys that nobody knows ------------------------------------------------------------------ */

typedef struct heard { int lines, level; char text[512]; } heard;

static void hear(void *user, int32_t level, const char *line)
{
    heard *h = user;
    h->lines++;
    h->level = level;
    snprintf(h->text, sizeof h->text, "%s", line);
}

START_TEST(unknown_keys_are_warned_about_once)
{
    static const struct { const char *config, *line; } all[] = {
        { "{\"act_fn\": \"silu\", \"_class_name\": \"X\", \"_new\": 1, \"later\": null}", "" },
        { "{\"later\": 0}", "u: 1 setting that this version does not know, without effect: later" },
        { "{\"b\": [], \"a\": {}}", "u: 2 settings that this version does not know, without effect: b, a" },
        { "{\"a\": 1, \"b\": 2, \"c\": 3}", "u: 3 settings that this version does not know, without effect: a, b, c" },
        { "{\"a\": 1, \"b\": 2, \"c\": 3, \"d\\n\": 4}",
          "u: 4 settings that this version does not know, without effect: a, b, c, ..." },
        { "{\"a\\nb\": 1}", "u: 1 setting that this version does not know, without effect: a b" },
    };
    for (size_t i = 0; i < WF_LEN(all); i++) {
        heard h = { 0, -1, "" };
        json_t *config = json_loads(all[i].config, 0, NULL);
        wf_keys_warn(wf_unet_keys, config, "u", hear, &h);
        ck_assert_str_eq(h.text, all[i].line);
        ck_assert_int_eq(h.lines, all[i].line[0] != '\0');
        ck_assert(h.lines == 0 || h.level == WEFT_LOG_WARN);
        wf_keys_warn(wf_unet_keys, config, "u", NULL, NULL);
        json_decref(config);
    }
}
END_TEST

/* The models of the tests, which diffusers wrote, say nothing that is unknown. */
START_TEST(written_models_have_no_unknown_keys)
{
    static const char *const models[] = { "tiny-sd1", "tiny-sd2", "tiny-sdxl", "tiny-refiner", "tiny-inpaint", "tiny-lcm" };
    for (size_t i = 0; i < WF_LEN(models); i++) {
        heard h = { 0, -1, "" };
        weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
        weft_model *m;
        o.log = hear;
        o.log_user = &h;
        must(weft_model_open(data_path("models/%s", models[i]), &o, &m, &golden_err));
        ck_assert_msg(strstr(h.text, "setting") == NULL, "%s", h.text);
        weft_model_free(m);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("settings of the networks");
    TCase *c = tcase_create("settings");
    tcase_set_timeout(c, 300);
    tcase_add_loop_test(c, each_value_is_followed_or_refused, 0, NETS);
    tcase_add_loop_test(c, absent_keys_are_the_classs_own, 0, NETS);
    tcase_add_test(c, absent_lists_are_the_classs_own);
    tcase_add_loop_test(c, tables_and_classes_have_the_same_keys, 0, NETS);
    tcase_add_loop_test(c, the_manual_has_every_key, 0, NETS);
    tcase_add_test(c, a_refusal_names_key_value_and_wish);
    tcase_add_test(c, time_ids_need_two_frequencies_where_they_are_shifted);
    tcase_add_test(c, unknown_keys_are_warned_about_once);
    tcase_add_test(c, written_models_have_no_unknown_keys);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
