/* What says a module's alpha, and what is done where nothing does. Scales are alpha / 2: all modules have rank 2. That PEFT computes
 * the same is for tests/run/test_scales.c to show; here its regular expressions are held against its own answers. */
#include "modules.h"

#include "../golden.h"

#define UNET "unet.mid_block.a.lora_A.weight unet.mid_block.a.lora_B.weight"
#define TEXT "text_encoder.text_model.x.lora_A.weight text_encoder.text_model.x.lora_B.weight"
#define KOHYA "lora_unet_a.lora_down.weight lora_unet_a.lora_up.weight"
#define PEFT "base_model.model.mid_block.a.lora_A.weight base_model.model.mid_block.a.lora_B.weight"

/* ---- files with metadata --------------------------------------------------------------------- */

static char  warnings[1024];
static size_t warned;

static void keep_warning(void *user, int32_t level, const char *line)
{
    (void)user;
    if (level < WEFT_LOG_WARN) return;
    warned++;
    snprintf(warnings, sizeof warnings, "%s", line);
}

/* Metadata as "key=value|key=value". */
static weft_adapter *made(const char *keys, const char *metadata, weft_adapter_options o)
{
    char            k[1024], m[1024];
    const char     *pairs[16];
    weft_tensor_out t[8];
    size_t          n = 0, p = 0;
    weft_tensors   *tensors;
    weft_adapter   *a = NULL;

    snprintf(k, sizeof k, "%s", keys);
    snprintf(m, sizeof m, "%s", metadata);
    for (char *x = strtok(k, " "); x != NULL; x = strtok(NULL, " ")) t[n++] = tensor_for(x);
    for (char *x = strtok(m, "|"); x != NULL; x = strtok(NULL, "|")) {
        char *equals = strchr(x, '=');
        *equals = '\0';
        pairs[p++] = x;
        pairs[p++] = equals + 1;
    }
    ck_assert_msg(weft_tensors_create(t, n, pairs, p / 2, NULL, &tensors, &err) == WEFT_OK, "%s", err.text);
    o.log = keep_warning;
    warned = 0;
    memset(&err, 0, sizeof err);
    weft_status st = weft_adapter_create(tensors, &o, &a, &err);
    ck_assert_int_eq(st, err.code);
    weft_tensors_free(tensors);
    return a;
}

static const weft_adapter_options plain = WEFT_ADAPTER_OPTIONS_INIT;

static const struct said {
    const char *keys, *metadata;
    float       scale[2]; /* of the first and the last module */
    int32_t     source;   /* of the last one                  */
    const char *key;
} said[] = {
    { UNET, "lora_alpha=6", { 3, 3 }, WEFT_ALPHA_METADATA, "lora_alpha" },
    { UNET, "alpha=6.0", { 3, 3 }, WEFT_ALPHA_METADATA, "alpha" },
    { KOHYA, "network_alpha=1e1", { 5, 5 }, WEFT_ALPHA_METADATA, "network_alpha" },
    { KOHYA, "ss_network_alpha=8", { 4, 4 }, WEFT_ALPHA_METADATA, "ss_network_alpha" },
    { KOHYA, "ss_network_alpha=8|ss_network_dim=2", { 4, 4 }, WEFT_ALPHA_METADATA, "ss_network_alpha" },
    { KOHYA, "ss_network_alpha=8|ss_network_dim=4", { 1, 1 }, WEFT_ALPHA_UNSAID, "" }, /* of modules of another rank */
    { KOHYA, "ss_network_alpha=Dynamic|ss_network_dim=Dynamic", { 1, 1 }, WEFT_ALPHA_UNSAID, "" },
    { KOHYA, "ss_network_alpha=None", { 1, 1 }, WEFT_ALPHA_UNSAID, "" },
    { KOHYA, "ss_network_alpha=4|ss_network_args={\"rs_lora\": \"True\"}", { 2.828427f, 2.828427f }, WEFT_ALPHA_METADATA,
      "ss_network_alpha" },
    { KOHYA, "ss_network_alpha=8|ss_network_args={\"conv_dim\": \"1\", \"conv_alpha\": \"1\"}", { 4, 4 }, WEFT_ALPHA_METADATA,
      "ss_network_alpha" }, /* no convolution */
    { PEFT, "lora_alpha=6", { 3, 3 }, WEFT_ALPHA_METADATA, "lora_alpha" },
    { PEFT, "unet.lora_alpha=6|lora_alpha=2", { 3, 3 }, WEFT_ALPHA_METADATA, "unet.lora_alpha" },
    { PEFT, "r=2|alpha=6|use_rslora=true", { 4.242641f, 4.242641f }, WEFT_ALPHA_METADATA, "alpha" },
    { UNET " " TEXT, "unet.lora_alpha=6|text_encoder.lora_alpha=4", { 3, 2 }, WEFT_ALPHA_METADATA, "text_encoder.lora_alpha" },
    { UNET " " TEXT, "unet_lora_alpha=6|alpha=4", { 3, 2 }, WEFT_ALPHA_METADATA, "alpha" },
    { UNET " " TEXT, "lora_adapter_metadata={\"unet.lora_alpha\":6,\"unet.r\":2}|text_encoder.alpha=8", { 3, 4 }, WEFT_ALPHA_METADATA,
      "text_encoder.alpha" },
    { UNET, "lora_adapter_metadata={\"unet.lora_alpha\":6}|lora_alpha=2", { 3, 3 }, WEFT_ALPHA_METADATA, "lora_alpha" },
    { UNET, "lora_adapter_metadata={\"unet.lora_alpha\":6,\"unet.alpha_pattern\":{\"([ab])\":5}}", { 2.5f, 2.5f }, WEFT_ALPHA_METADATA,
      "([ab])" },
    { PEFT, "lora_adapter_metadata={\"lora_alpha\":6,\"r\":2}", { 3, 3 }, WEFT_ALPHA_METADATA, "lora_alpha" }, /* one component alone */
    { UNET, "lora_adapter_metadata={\"lora_alpha\":6,\"r\":2}", { 3, 3 }, WEFT_ALPHA_METADATA, "lora_alpha" },
    { KOHYA " lora_unet_a.alpha", "ss_network_alpha=8", { 0.5f, 0.5f }, WEFT_ALPHA_TENSOR, "lora_unet_a.alpha" },
    { "lora_unet_a.diff", "ss_network_alpha=8", { 1, 1 }, WEFT_ALPHA_UNUSED, "" },
    { "params.unet.a.lora_down.weight params.unet.a.lora_up.weight", "alpha=8", { 1, 1 }, WEFT_ALPHA_UNUSED, "" },
};

START_TEST(alpha_is_taken_from_where_the_file_says_it)
{
    const struct said *s = &said[_i];
    weft_adapter      *a = made(s->keys, s->metadata, plain);

    ck_assert_msg(a != NULL, "%s: %s", s->metadata, err.text);
    for (size_t i = 0; i < 2; i++) {
        weft_module_info m = module_of(a, i == 0 ? 0 : a->count - 1);
        ck_assert_msg(fabsf(m.scale - s->scale[i]) < 1e-6f, "%s: scale %g", s->metadata, (double)m.scale);
        if (i == 0) continue;
        ck_assert_int_eq(m.alpha_source, s->source);
        ck_assert_str_eq(m.alpha_key, s->key);
    }
    ck_assert_uint_eq(warned, s->source == WEFT_ALPHA_UNSAID);
    weft_adapter_free(a);
}
END_TEST

/* A 3x3 convolution has the alpha of ss_network_args where that has one, and none that is not its own. */
START_TEST(convolutions_of_kohya_have_their_own_alpha)
{
    static const struct { const char *args; float scale; } cases[] = {
        { "{\"conv_dim\": \"2\", \"conv_alpha\": \"3\"}", 1.5f }, { "{\"conv_dim\": 2, \"conv_alpha\": 3}", 1.5f },
        { "{\"conv_dim\": \"2\"}", 1 }, { "{\"conv_dim\": \"4\", \"conv_alpha\": \"3\"}", 1 }, { "{\"algo\": \"locon\"}", 4 },
    };
    static const float  zeros[18];
    weft_tensor_out     t[2] = { tensor("lora_unet_a.lora_down.weight", zeros, 4, 2, 1), tensor("lora_unet_a.lora_up.weight", B1, 2, 3, 2) };
    weft_tensors       *tensors;
    weft_adapter       *a;

    t[0].shape[2] = t[0].shape[3] = 3;
    for (size_t i = 0; i < WF_LEN(cases); i++) {
        const char *pairs[] = { "ss_network_alpha", "8", "ss_network_dim", "2", "ss_network_args", cases[i].args };
        ck_assert_int_eq(weft_tensors_create(t, 2, pairs, 3, NULL, &tensors, &err), WEFT_OK);
        ck_assert_msg(weft_adapter_create(tensors, NULL, &a, &err) == WEFT_OK, "%s", err.text);
        ck_assert_msg(module_of(a, 0).scale == cases[i].scale, "%s: %g", cases[i].args, (double)module_of(a, 0).scale);
        weft_adapter_free(a);
        weft_tensors_free(tensors);
    }
}
END_TEST

/* ---- where nothing says it ------------------------------------------------------------------- */

START_TEST(peft_without_alpha_is_refused_unless_it_is_given)
{
    weft_adapter_options o = plain;
    weft_adapter        *a;

    ck_assert_ptr_null(made(PEFT, "format=pt", plain));
    ck_assert_int_eq(err.code, WEFT_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(err.text, "base_model.model.mid_block.a: nothing says its alpha"));
    ck_assert_ptr_nonnull(strstr(err.text, "adapter_config.json, which is not beside this file"));
    check_one_line(&err);
    o.config_text = "{\"peft_type\":\"LORA\",\"r\":2}";
    ck_assert_ptr_null(made(PEFT, "format=pt", o));
    ck_assert_ptr_nonnull(strstr(err.text, "which leaves it out here"));
    o.alpha = 8;
    ck_assert_ptr_nonnull(a = made(PEFT, "format=pt", o));
    ck_assert_float_eq(module_of(a, 0).scale, 4);
    ck_assert_int_eq(module_of(a, 0).alpha_source, WEFT_ALPHA_OPTION);
    ck_assert_str_eq(module_of(a, 0).alpha_key, "alpha");
    ck_assert_uint_eq(warned, 0);
    weft_adapter_free(a);
    o.alpha = 0;
    o.scale = -0.25f;
    ck_assert_ptr_nonnull(a = made(PEFT, "format=pt", o));
    ck_assert_float_eq(module_of(a, 0).scale, -0.25f);
    ck_assert_float_eq(module_of(a, 0).alpha, -0.5f);
    ck_assert_str_eq(module_of(a, 0).alpha_key, "scale");
    weft_adapter_free(a);
}
END_TEST

/* Both factors whole, in PEFT's spelling: alpha / r, and r stands nowhere in the shapes. */
START_TEST(lokr_of_two_whole_factors_needs_a_rank)
{
    const weft_tensor_out t[] = { tensor("base_model.model.mid_block.a.lokr_w1", A1, 2, 2, 2),
                                  tensor("base_model.model.mid_block.a.lokr_w2", A1, 2, 2, 2) };
    static const struct { const char *alpha, *r; float given, scale; } cases[] = {
        { "8", "64", 0, 0.125f }, { "8", NULL, 0, 0 }, { NULL, "64", 0, 0 }, { NULL, "64", 4, 0.0625f }, { NULL, NULL, 4, 0 },
    };

    for (size_t i = 0; i < WF_LEN(cases); i++) {
        const char          *pairs[4];
        size_t               n = 0;
        weft_adapter_options o = plain;
        weft_tensors        *tensors;
        weft_adapter        *a = NULL;
        if (cases[i].alpha != NULL) pairs[2 * n] = "alpha", pairs[2 * n++ + 1] = cases[i].alpha;
        if (cases[i].r != NULL) pairs[2 * n] = "r", pairs[2 * n++ + 1] = cases[i].r;
        o.alpha = cases[i].given;
        ck_assert_int_eq(weft_tensors_create(t, 2, pairs, n, NULL, &tensors, &err), WEFT_OK);
        weft_status st = weft_adapter_create(tensors, &o, &a, &err);
        ck_assert_msg(st == (cases[i].scale != 0 ? WEFT_OK : WEFT_E_UNSUPPORTED), "case %zu: %d %s", i, (int)st, err.text);
        if (a != NULL) ck_assert_float_eq(module_of(a, 0).scale, cases[i].scale);
        else ck_assert_ptr_nonnull(strstr(err.text, i == 2 ? "nothing says its alpha" : "nothing says its rank"));
        weft_adapter_free(a);
        o.alpha = 0;
        o.scale = 0.5f;
        st = weft_adapter_create(tensors, &o, &a, &err);
        ck_assert_msg(st == (cases[i].scale == 0.125f ? WEFT_E_ARG : WEFT_OK), "case %zu: %s", i, err.text);
        if (a != NULL) ck_assert_float_eq(module_of(a, 0).scale, 0.5f);
        weft_adapter_free(a);
        weft_tensors_free(tensors);
    }
}
END_TEST

START_TEST(others_without_alpha_are_warned_of_by_name)
{
    weft_adapter_options o = plain;
    weft_adapter        *a = made(UNET " " TEXT, "unet.alpha=4", plain);

    ck_assert_ptr_nonnull(a);
    ck_assert_uint_eq(warned, 1);
    ck_assert_ptr_nonnull(strstr(warnings, "nothing says the alpha of 1 of its 2 modules (text_encoder.text_model.x the first)"));
    weft_adapter_free(a);
    o.alpha = 1;
    ck_assert_ptr_nonnull(a = made(UNET " " TEXT, "unet.alpha=4", o));
    ck_assert_uint_eq(warned, 0);
    ck_assert_float_eq(module_of(a, a->count - 1).scale, 0.5f);
    ck_assert_float_eq(module_of(a, 0).scale, 2); /* what is said is not overruled */
    weft_adapter_free(a);
}
END_TEST

START_TEST(options_that_say_nothing_are_refused)
{
    weft_adapter_options o = plain;

    o.alpha = 4;
    ck_assert_ptr_null(made(UNET, "lora_alpha=6", o));
    ck_assert_int_eq(err.code, WEFT_E_ARG);
    ck_assert_ptr_nonnull(strstr(err.text, "weft_adapter_options.alpha is given, but nothing is unsaid"));
    o.scale = 2;
    ck_assert_ptr_null(made(UNET, "format=pt", o));
    ck_assert_int_eq(err.code, WEFT_E_ARG);
    ck_assert_str_eq(err.text, "weft_adapter_options: alpha and scale are both given");
    o.alpha = 0;
    o.scale = INFINITY;
    ck_assert_ptr_null(made(UNET, "format=pt", o));
    ck_assert_str_eq(err.text, "weft_adapter_options: scale is not a finite number");
}
END_TEST

START_TEST(scales_beyond_reason_are_warned_of)
{
    static const struct { const char *metadata; size_t warned; const char *said; } cases[] = {
        { "lora_alpha=10000000000", 1, "1 of its 1 modules have a scale that no training gives, unet.mid_block.a the first: 5000000000 "
                                       "(alpha 10000000000, rank 2), not between 0.0001 and 1000" },
        { "lora_alpha=2000", 0, "" }, { "lora_alpha=-2002", 1, "-1001" }, { "lora_alpha=0", 1, " 0 (alpha 0" },
        { "lora_alpha=0.0002", 0, "" }, { "lora_alpha=0.00019", 1, "0.000095" },
    };

    for (size_t i = 0; i < WF_LEN(cases); i++) {
        weft_adapter *a = made(UNET, cases[i].metadata, plain);
        ck_assert_msg(a != NULL, "%s", err.text);
        ck_assert_msg(warned == cases[i].warned, "%s: %zu warnings", cases[i].metadata, warned);
        if (warned > 0) ck_assert_msg(strstr(warnings, cases[i].said) != NULL, "%s", warnings);
        weft_adapter_free(a);
    }
    ck_assert_ptr_null(made(UNET, "lora_alpha=1e300", plain));
    ck_assert_ptr_nonnull(strstr(err.text, "its alpha is not a finite number"));
}
END_TEST

/* ---- groups ---------------------------------------------------------------------------------- */

START_TEST(modules_that_are_scaled_alike_are_a_group)
{
    weft_adapter    *a = made(UNET " " TEXT " unet.mid_block.b.lora_A.weight unet.mid_block.b.lora_B.weight", "unet.alpha=4", plain);
    weft_module_info m = WEFT_MODULE_INFO_INIT;
    size_t           modules;

    ck_assert_uint_eq(weft_adapter_group_count(a), 2);
    ck_assert_int_eq(weft_adapter_group(a, 0, &m, &modules, &err), WEFT_OK);
    ck_assert_str_eq(m.name, "unet.mid_block.a");
    ck_assert_uint_eq(modules, 2);
    ck_assert_float_eq(m.scale, 2);
    ck_assert_str_eq(weft_alpha_source_name(m.alpha_source), "metadata");
    ck_assert_int_eq(weft_adapter_group(a, 1, &m, &modules, &err), WEFT_OK);
    ck_assert_uint_eq(modules, 1);
    ck_assert_str_eq(weft_alpha_source_name(m.alpha_source), "not said");
    ck_assert_int_eq(weft_adapter_group(a, 2, &m, NULL, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_adapter_group(a, 0, NULL, NULL, &err), WEFT_E_ARG);
    ck_assert_uint_eq(weft_adapter_group_count(NULL), 0);
    ck_assert_str_eq(weft_alpha_source_name(77), "unknown");
    weft_adapter_free(a);
}
END_TEST

START_TEST(scales_without_memory_say_so)
{
    const weft_tensor_out t[] = { tensor("unet.a.lora_A.weight", A1, 2, 2, 4), tensor("unet.a.lora_B.weight", B1, 2, 3, 2) };
    const char *const     meta[] = { "lora_adapter_metadata", "{\"unet.r\": 2, \"unet.lora_alpha\": 4}" };
    weft_adapter_options  o = plain;
    test_memory           m;
    weft_allocator        alloc = test_allocator(&m);
    weft_status           st = WEFT_E_NOMEM;
    weft_tensors         *tensors;

    o.allocator = &alloc;
    ck_assert_int_eq(weft_tensors_create(t, 2, meta, 1, NULL, &tensors, &err), WEFT_OK);
    for (size_t n = 1; st == WEFT_E_NOMEM; n++) {
        weft_adapter *a = NULL;
        m = (test_memory){ .fail_at = n };
        st = weft_adapter_create(tensors, &o, &a, &err);
        ck_assert_msg(st == WEFT_OK || st == WEFT_E_NOMEM, "allocation %zu: %s", n, err.text);
        if (st == WEFT_OK) ck_assert_str_eq(module_of(a, 0).alpha_key, "lora_alpha");
        weft_adapter_free(a);
        ck_assert_uint_eq(m.live_blocks, 0);
    }
    weft_tensors_free(tensors);
}
END_TEST

/* ---- regular expressions --------------------------------------------------------------------- */

/* 400 patterns on 14 paths, as PEFT itself takes them. */
START_TEST(patterns_match_what_peft_matches)
{
    json_t *file = json_load_file(data_path("golden/patterns.json"), 0, NULL), *entry;
    json_t *paths = json_object_get(file, "paths"), *patterns = json_object_get(file, "patterns");
    size_t  i, compared = 0;

    ck_assert_uint_gt(json_array_size(patterns), 300);
    json_array_foreach(patterns, i, entry) {
        const char *pattern = json_string_value(json_object_get(entry, "pattern"));
        const char *matched = json_string_value(json_object_get(entry, "matched"));
        for (size_t p = 0; p < json_array_size(paths); p++, compared++) {
            const char *path = json_string_value(json_array_get(paths, p));
            bool        known, hit = wf_pattern_matches(pattern, path, true, &known);
            ck_assert_msg(known, "'%s' is not read", pattern);
            ck_assert_msg(hit == (matched[p] == '1'), "'%s' on %s: %d", pattern, path, hit);
        }
    }
    ck_assert_uint_eq(compared, json_array_size(patterns) * json_array_size(paths));
    json_decref(file);
}
END_TEST

/* Patterns that take Python longer than anybody has: stars in stars, counts in counts, thousands of brackets. */
START_TEST(hostile_patterns_end)
{
    static char many[200001];
    char        path[500];
    bool        known;

    memset(path, 'a', sizeof path);
    path[sizeof path - 1] = '\0';
    ck_assert(!wf_pattern_matches("(((a*)*)*)*b", path, true, &known) && known);
    ck_assert(!wf_pattern_matches("((a{1,20}){1,20})+b", path, true, &known) && known);
    ck_assert(!wf_pattern_matches("((((a{99}){99}){99}){99}){99}", path, true, &known) && !known);
    ck_assert(!wf_pattern_matches("a{99999999999999999999}", path, true, &known) && !known);
    ck_assert(!wf_pattern_matches("(){1000}b", path, true, &known) && known);
    memset(many, '(', sizeof many - 1);
    ck_assert(!wf_pattern_matches(many, path, true, &known) && !known);
    memset(many, '|', sizeof many - 1);
    ck_assert(!wf_pattern_matches(many, path, true, &known) && !known);
    for (size_t i = 0; i < sizeof many - 1; i++) many[i] = "[a]"[i % 3];
    ck_assert(!wf_pattern_matches(many, path, true, &known) && !known);
    memset(many, '*', sizeof many - 1);
    ck_assert(!wf_pattern_matches(many, path, true, &known) && !known);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("adapter: scales");
    TCase *t = tcase_create("alpha");

    tcase_add_loop_test(t, alpha_is_taken_from_where_the_file_says_it, 0, (int)WF_LEN(said));
    tcase_add_test(t, convolutions_of_kohya_have_their_own_alpha);
    tcase_add_test(t, peft_without_alpha_is_refused_unless_it_is_given);
    tcase_add_test(t, lokr_of_two_whole_factors_needs_a_rank);
    tcase_add_test(t, others_without_alpha_are_warned_of_by_name);
    tcase_add_test(t, options_that_say_nothing_are_refused);
    tcase_add_test(t, scales_beyond_reason_are_warned_of);
    tcase_add_test(t, modules_that_are_scaled_alike_are_a_group);
    tcase_add_test(t, scales_without_memory_say_so);
    suite_add_tcase(s, t);
    t = tcase_create("patterns");
    tcase_add_test(t, patterns_match_what_peft_matches);
    tcase_add_test(t, hostile_patterns_end);
    suite_add_tcase(s, t);
    return run_suite(s);
}
