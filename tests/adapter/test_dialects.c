/* Every dialect's keys, what stands beside factors (alpha, configurations), and what is refused by name. */
#include <math.h>
#include <sys/stat.h>

#include "adapter/rotation.h"
#include "files.h"

/* ---- keys ------------------------------------------------------------------------------------ */

/* One module from these keys: dialect, module name, alpha (0: none in the file). */
static const struct {
    const char *keys, *dialect, *name;
} spellings[] = {
    { "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight lora_unet_mid_block_attentions_0_proj_in.lora_up.weight",
      "kohya", "lora_unet_mid_block_attentions_0_proj_in" },
    { "lora_unet_mid_block.proj_in.lora_down.weight lora_unet_mid_block.proj_in.lora_up.weight",
      "kohya", "lora_unet_mid_block_proj_in" },
    { "lora_te_x.lora_down.weight lora_te_x.lora_up.weight", "kohya", "lora_te_x" },
    { "lora_te1_x.lora_down.weight lora_te1_x.lora_up.weight", "kohya", "lora_te1_x" },
    { "lora_te2_x.lora_up.weight lora_te2_x.lora_down.weight", "kohya", "lora_te2_x" },
    { "lycoris_mid_block_x.lora_up.weight lycoris_mid_block_x.lora_down.weight", "lycoris", "lora_unet_mid_block_x" },
    { "unet.conv_in.lora_up.weight unet.conv_in.lora_down.weight", "kohya", "lora_unet_conv_in" },
    { "diffusion_model.input_blocks.4.1.proj_in.lora_up.weight diffusion_model.input_blocks.4.1.proj_in.lora_down.weight",
      "kohya", "lora_unet_input_blocks_4_1_proj_in" },
    { "text_encoders.clip_l.transformer.text_model.x.lora_up.weight "
      "text_encoders.clip_l.transformer.text_model.x.lora_down.weight", "kohya", "lora_te1_text_model_x" },

    { "lora_unet_mid_block_x.lora_A.weight lora_unet_mid_block_x.lora_B.weight", "kohya", "lora_unet_mid_block_x" },
    { "diffusion_model.input_blocks.4.1.proj_in.lora_A.weight diffusion_model.input_blocks.4.1.proj_in.lora_B.weight",
      "kohya", "lora_unet_input_blocks_4_1_proj_in" },
    { "text_encoders.clip_g.transformer.text_model.x.lora_A.weight "
      "text_encoders.clip_g.transformer.text_model.x.lora_B.weight", "kohya", "lora_te2_text_model_x" },
    { "lora_te1_encoder_layers_0_x.lora_up.weight lora_te1_encoder_layers_0_x.lora_down.weight", "kohya",
      "lora_te1_text_model_encoder_layers_0_x" },
    { "lycoris_encoder_layers_0_x.lora_up.weight lycoris_encoder_layers_0_x.lora_down.weight", "lycoris",
      "lora_te1_text_model_encoder_layers_0_x" },

    { "unet.conv_in.lora_A.weight unet.conv_in.lora_B.weight", "diffusers", "unet.conv_in" },
    { "unet.unet.x.to_q.lora_A.weight unet.unet.x.to_q.lora_B.weight", "diffusers", "unet.x.to_q" },
    { "unet.x.lora_A.default_0.weight unet.x.lora_B.default_0.weight", "diffusers", "unet.x" },
    { "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight "
      "text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_B.weight",
      "diffusers", "text_encoder.text_model.encoder.layers.0.mlp.fc1" },
    { "text_encoder_2.encoder.layers.0.mlp.fc1.lora_A.weight text_encoder_2.encoder.layers.0.mlp.fc1.lora_B.weight",
      "diffusers", "text_encoder_2.text_model.encoder.layers.0.mlp.fc1" },

    { "down_blocks.0.attn1.processor.to_q_lora.down.weight down_blocks.0.attn1.processor.to_q_lora.up.weight",
      "diffusers-old", "unet.down_blocks.0.attn1.to_q" },
    { "mid_block.attn1.processor.to_out_lora.down.weight mid_block.attn1.processor.to_out_lora.up.weight",
      "diffusers-old", "unet.mid_block.attn1.to_out.0" },
    { "unet.x.attn2.processor.to_k_lora.down.weight unet.x.attn2.processor.to_k_lora.up.weight",
      "diffusers-old", "unet.x.attn2.to_k" },
    { "unet.x.attn2.to_v.lora.down.weight unet.x.attn2.to_v.lora.up.weight", "diffusers-old", "unet.x.attn2.to_v" },
    { "unet.unet.x.attn2.to_out.0.lora.down.weight unet.unet.x.attn2.to_out.0.lora.up.weight",
      "diffusers-old", "unet.x.attn2.to_out.0" },
    { "unet.unet.unet.x.proj_in.lora.down.weight unet.unet.unet.x.proj_in.lora.up.weight",
      "diffusers-old", "unet.x.proj_in" },
    { "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.down.weight "
      "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.up.weight",
      "diffusers-old", "text_encoder.text_model.encoder.layers.0.self_attn.q_proj" },
    { "text_encoder_2.text_model.encoder.layers.0.self_attn.to_out_lora.down.weight "
      "text_encoder_2.text_model.encoder.layers.0.self_attn.to_out_lora.up.weight",
      "diffusers-old", "text_encoder_2.text_model.encoder.layers.0.self_attn.out_proj" },
    { "text_encoder.x.mlp.fc1.lora_linear_layer.down.weight text_encoder.x.mlp.fc1.lora_linear_layer.up.weight",
      "diffusers", "text_encoder.x.mlp.fc1" },

    { "base_model.model.down_blocks.0.x.lora_A.weight base_model.model.down_blocks.0.x.lora_B.weight",
      "peft", "unet.down_blocks.0.x" },
    { "base_model.model.conv_in.lora_A.weight base_model.model.conv_in.lora_B.weight", "peft", "unet.conv_in" },
    { "base_model.model.mid_block.x.lora_A.default.weight base_model.model.mid_block.x.lora_B.default.weight",
      "peft", "unet.mid_block.x" },
    { "base_model.model.text_model.encoder.layers.0.x.lora_A.weight "
      "base_model.model.text_model.encoder.layers.0.x.lora_B.weight",
      "peft", "text_encoder.text_model.encoder.layers.0.x" },
    { "base_model.model.encoder.layers.0.x.lora_A.weight base_model.model.encoder.layers.0.x.lora_B.weight",
      "peft", "text_encoder.text_model.encoder.layers.0.x" },
    { "up_blocks.0.x.lora_A.weight up_blocks.0.x.lora_B.weight", "peft", "unet.up_blocks.0.x" },

    /* what wraps a model when it is saved: a script's PEFT inside a pipeline, DDP, torch.compile, ... */
    { "unet.base_model.model.down_blocks.0.x.lora_A.weight unet.base_model.model.down_blocks.0.x.lora_B.weight",
      "diffusers", "unet.down_blocks.0.x" },
    { "module.unet._orig_mod.base_model.model.conv_in.lora_A.weight "
      "module.unet._orig_mod.base_model.model.conv_in.lora_B.weight", "diffusers", "unet.conv_in" },
    { "base_model.model.unet.conv_in.lora_A.weight base_model.model.unet.conv_in.lora_B.weight",
      "peft", "unet.conv_in" },
    { "_orig_mod.module.base_model.model.down_blocks.0._fsdp_wrapped_module.x.lora_A.default.weight "
      "_orig_mod.module.base_model.model.down_blocks.0._fsdp_wrapped_module.x.lora_B.default.weight",
      "peft", "unet.down_blocks.0.x" },
    { "state_dict.model.text_encoder.module.text_model.x.lora_A.weight "
      "state_dict.model.text_encoder.module.text_model.x.lora_B.weight", "diffusers", "text_encoder.text_model.x" },
    { "module.unet.unet.x.attn2.to_v.lora.down.weight module.unet.unet.x.attn2.to_v.lora.up.weight",
      "diffusers-old", "unet.x.attn2.to_v" },
    { "module.lora_unet_mid_block_x.lora_down.weight module.lora_unet_mid_block_x.lora_up.weight",
      "kohya", "lora_unet_mid_block_x" },
    { "model.diffusion_model.input_blocks.4.1.proj_in.lora_up.weight "
      "model.diffusion_model.input_blocks.4.1.proj_in.lora_down.weight", "kohya", "lora_unet_input_blocks_4_1_proj_in" },
    { "lycoris__orig_mod_mid_block_x.lora_up.weight lycoris__orig_mod_mid_block_x.lora_down.weight",
      "lycoris", "lora_unet_mid_block_x" },
    { "lycoris__orig_mod_text_model_x.lora_up.weight lycoris__orig_mod_text_model_x.lora_down.weight",
      "lycoris", "lora_te1_text_model_x" },
};

START_TEST(key_is_read_as_its_dialect_means_it)
{
    bool          peft = strcmp(spellings[_i].dialect, "peft") == 0; /* which does not open without an alpha */
    weft_adapter *a = adapter_given(spellings[_i].keys, NULL, peft ? 2 : 0);

    ck_assert_msg(a != NULL, "%s", err.text);
    ck_assert_str_eq(info_of(a).dialect, spellings[_i].dialect);
    ck_assert_int_eq(info_of(a).modules, 1);
    weft_module_info m = module_of(a, 0);
    ck_assert_str_eq(m.name, spellings[_i].name);
    ck_assert(strncmp(m.key, spellings[_i].keys, strlen(m.key)) == 0); /* the file's own stem */
    ck_assert_int_eq(m.rank, 2);
    ck_assert_int_eq(m.in, 4);
    ck_assert_int_eq(m.out, 3);
    ck_assert_int_eq(m.kernel, 1);
    ck_assert_int_eq(m.has_alpha, peft);
    ck_assert_float_eq(m.alpha, 2);
    ck_assert_float_eq(m.scale, 1); /* no alpha: the rank, so 1 */
    ck_assert_int_eq(m.alpha_source, peft ? WEFT_ALPHA_OPTION : WEFT_ALPHA_UNSAID);
    weft_adapter_free(a);
}
END_TEST

START_TEST(dialects_mix_in_one_file)
{
    weft_adapter *a = adapter_given("lora_unet_a.lora_down.weight lora_unet_a.lora_up.weight unet.b.lora_A.weight "
                                    "unet.b.lora_B.weight unet.c.lora.down.weight unet.c.lora.up.weight "
                                    "base_model.model.mid_block.d.lora_A.weight "
                                    "base_model.model.mid_block.d.lora_B.weight", NULL, 2);
    ck_assert_msg(a != NULL, "%s", err.text);
    ck_assert_str_eq(info_of(a).dialect, "kohya + diffusers + diffusers-old + peft");
    ck_assert_int_eq(info_of(a).modules, 4);
    weft_adapter_free(a);
}
END_TEST

/* diffusers' own scripts wrote lora_linear_layer beside either form: it follows the rest of the file. */
START_TEST(a_shared_ending_does_not_tell_the_dialect)
{
    static const char te[] = "text_encoder.t.lora_linear_layer.down.weight text_encoder.t.lora_linear_layer.up.weight";
    char              keys[512];
    weft_adapter     *a;

    snprintf(keys, sizeof keys, "%s unet.c.lora.down.weight unet.c.lora.up.weight", te);
    ck_assert_ptr_nonnull(a = adapter_of(keys));
    ck_assert_str_eq(info_of(a).dialect, "diffusers-old");
    weft_adapter_free(a);
    snprintf(keys, sizeof keys, "%s unet.c.lora_A.weight unet.c.lora_B.weight", te);
    ck_assert_ptr_nonnull(a = adapter_of(keys));
    ck_assert_str_eq(info_of(a).dialect, "diffusers");
    ck_assert_int_eq(info_of(a).denoiser_modules, 1);
    ck_assert_int_eq(info_of(a).text_modules, 1);
    weft_adapter_free(a);
}
END_TEST

/* ---- alpha ----------------------------------------------------------------------------------- */

/* alpha 1 of rank 2: scale 0.5, in whichever spelling the key comes. */
static const char *const alphas[] = {
    "lora_unet_a.lora_down.weight lora_unet_a.lora_up.weight lora_unet_a.alpha",
    "lora_unet_a.alpha lora_unet_a.lora_down.weight lora_unet_a.lora_up.weight",
    "unet.a.lora_A.weight unet.a.lora_B.weight unet.a.alpha",
    "unet.a.lora.down.weight unet.a.lora.up.weight unet.a.alpha",
    "unet.a.lora.down.weight unet.a.lora.up.weight unet.a.lora.alpha",
    "unet.a.processor.to_q_lora.down.weight unet.a.processor.to_q_lora.up.weight unet.a.processor.to_q_lora.alpha",
    "unet.a.processor.to_out_lora.down.weight unet.a.processor.to_out_lora.up.weight unet.a.to_out.0.alpha",
    ("text_encoder.a.lora_linear_layer.down.weight text_encoder.a.lora_linear_layer.up.weight "
     "text_encoder.a.lora_linear_layer.alpha"),
    "text_encoder.a.lora_linear_layer.down.weight text_encoder.a.lora_linear_layer.up.weight text_encoder.a.alpha",
    "unet.a.lora_down.weight unet.a.lora_up.weight unet.a.alpha",
    "diffusion_model.a.lora_down.weight diffusion_model.a.lora_up.weight diffusion_model.a.alpha",
};

START_TEST(alpha_joins_its_module)
{
    weft_adapter *a = adapter_of(alphas[_i]);

    ck_assert_msg(a != NULL, "%s", err.text);
    ck_assert_int_eq(info_of(a).modules, 1);
    ck_assert_int_eq(module_of(a, 0).has_alpha, 1);
    ck_assert_float_eq(module_of(a, 0).alpha, 1);
    ck_assert_float_eq(module_of(a, 0).scale, 0.5f);
    weft_adapter_free(a);
}
END_TEST

static weft_status open_with_alpha(const char *type, const char *shape, const void *data, size_t n, weft_adapter **out)
{
    bytes f = { .header_len = 0 };

    add_bytes(&f, "lora_unet_a.lora_down.weight", "F32", "[2,4]", A1, sizeof A1);
    add_bytes(&f, "lora_unet_a.lora_up.weight", "F32", "[3,2]", B1, sizeof B1);
    add_bytes(&f, "lora_unet_a.alpha", type, shape, data, n);
    return parse_bytes(&f, out);
}

START_TEST(alpha_comes_in_several_types)
{
    const float    f = 8;
    const uint16_t h = 0x4800, b = 0x4100;
    const int64_t  i = 8;
    const struct { const char *type; const void *data; size_t n; } forms[] = {
        { "F32", &f, 4 }, { "F16", &h, 2 }, { "BF16", &b, 2 }, { "I64", &i, 8 },
    };

    for (size_t k = 0; k < WF_LEN(forms); k++)
        for (int one = 0; one < 2; one++) {
            weft_adapter *a = NULL;
            weft_status   st = open_with_alpha(forms[k].type, one ? "[1]" : "[]", forms[k].data, forms[k].n, &a);
            ck_assert_msg(st == WEFT_OK, "%s", err.text);
            ck_assert_float_eq(module_of(a, 0).alpha, 8);
            ck_assert_float_eq(module_of(a, 0).scale, 4);
            weft_adapter_free(a);
        }
}
END_TEST

START_TEST(alpha_of_zero_is_the_rank)
{
    const float   zero = 0;
    weft_adapter *a = NULL;

    ck_assert_int_eq(open_with_alpha("F32", "[]", &zero, 4, &a), WEFT_OK);
    ck_assert_float_eq(module_of(a, 0).alpha, 2);
    ck_assert_float_eq(module_of(a, 0).scale, 1);
    ck_assert_int_eq(module_of(a, 0).has_alpha, 1);
    weft_adapter_free(a);
}
END_TEST

START_TEST(alpha_that_is_no_number_is_refused)
{
    const float   two[] = { 1, 2 }, nan = NAN;
    weft_adapter *a = NULL;

    ck_assert_int_eq(open_with_alpha("F32", "[2]", two, 8, &a), WEFT_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(err.text, "lora_unet_a.alpha holds 2 values of F32, wanted one number"));
    ck_assert_int_eq(open_with_alpha("F32", "[]", &nan, 4, &a), WEFT_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(err.text, "alpha of lora_unet_a is not a finite number"));
    ck_assert_int_eq(open_with_alpha("C64", "[]", two, 8, &a), WEFT_E_FORMAT);
    ck_assert_ptr_null(a);
}
END_TEST

/* ---- configurations -------------------------------------------------------------------------- */

static bool matches(const char *pattern, const char *module)
{
    bool known = false, yes = wf_config_matches(pattern, module, &known);
    ck_assert_msg(known, "%s is not read", pattern);
    return yes;
}

START_TEST(patterns_match_to_the_end_from_a_dot)
{
    static const char *const unread[] = {
        "*a", "a**", "a*+", "a\\", "a(b", "a)b", "[ab", "[b-a]", "[a-\\d]", "\\1", "(?=a)a", "(?P<x>a)", "(?i)a", "a{1001}",
        "((a{100}){100}){100}", "^*a", "a\\", "(?", "a{2}{3}", "[\xc3\xa9]",
    };
    bool known;

    ck_assert(matches("to_q", "to_q"));
    ck_assert(matches("to_q", "down_blocks.0.attn1.to_q"));
    ck_assert(matches("attn1.to_q", "down_blocks.0.attn1.to_q"));
    ck_assert(matches("^attn1.to_q$", "attn1.to_q"));
    ck_assert(matches(".*mid_block.*to_v", "mid_block.attentions.0.attn1.to_v"));
    ck_assert(matches("blocks\\.0\\..*", "down.blocks.0.to_k"));
    ck_assert(matches("to_.+", "x.to_q"));
    ck_assert(matches("to_outx?", "x.to_out"));
    ck_assert(matches("a.*b.*c", "aXbYbZc"));
    ck_assert(matches("", "") && matches(".*", "") && !matches(".+", ""));
    ck_assert(!matches("to_q", "down_blocks.0.attn1.into_q"));
    ck_assert(!matches("to_q", "to_q.x"));
    ck_assert(!matches("^attn1.to_q", "x.attn1.to_q"));
    ck_assert(!matches("to_.+", "x.to_"));
    ck_assert(!matches("block\\.x", "blocksx"));
    ck_assert(!matches("a^b", "ab") && !matches("a$b", "ab")); /* places that nothing is at */
    for (size_t i = 0; i < WF_LEN(unread); i++) {
        ck_assert(!wf_config_matches(unread[i], "abc", &known));
        ck_assert_msg(!known, "%s", unread[i]);
    }
}
END_TEST

/* Every pair of stars would be a loop in a matcher that tries one way after another; here it is a walk. */
START_TEST(no_pattern_takes_long)
{
    char pattern[400] = "", name[500];

    memset(name, 'a', sizeof name);
    name[sizeof name - 1] = '\0';
    for (int i = 0; i < 90; i++) strcat(pattern, "a*.*");
    strcat(pattern, "b?c+");
    ck_assert(!matches(pattern, name));
}
END_TEST

/* Opens DIR/adapter_model.safetensors with this configuration beside it; name of the folder as given. */
static weft_adapter *peft_folder(const char *folder, const char *config, const char *keys)
{
    char          dir[512], file[600], json[600];
    const char   *root = test_dir();
    weft_adapter *a = NULL;

    snprintf(dir, sizeof dir, "%s/%s", root, folder);
    snprintf(file, sizeof file, "%s/adapter_model.safetensors", dir);
    snprintf(json, sizeof json, "%s/adapter_config.json", dir);
    ck_assert_int_eq(mkdir(dir, 0700), 0);
    write_keys(file, keys);
    write_text(json, config);
    memset(&err, 0, sizeof err);
    weft_status st = weft_adapter_open(dir, NULL, &a, &err);
    ck_assert_int_eq(st, err.code);
    if (st != WEFT_OK) check_one_line(&err);
    unlink(file);
    unlink(json);
    rmdir(dir);
    test_rmdir(root);
    return a;
}

#define PEFT_TWO                                                                                          \
    "base_model.model.mid_block.a.to_q.lora_A.weight base_model.model.mid_block.a.to_q.lora_B.weight "    \
    "base_model.model.down_blocks.0.to_k.lora_A.weight base_model.model.down_blocks.0.to_k.lora_B.weight"

START_TEST(peft_configuration_gives_alpha)
{
    weft_adapter *a = peft_folder("ink", "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":3,\"alpha_pattern\":"
                                         "{\".*mid_block.*to_q\":8,\"to_q\":5},\"use_dora\":false,\"modules_to_save\":null}",
                                  PEFT_TWO);
    ck_assert_msg(a != NULL, "%s", err.text);
    ck_assert_str_eq(info_of(a).name, "ink");
    for (size_t i = 0; i < 2; i++) {
        bool mid = strcmp(module_of(a, i).name, "unet.mid_block.a.to_q") == 0;
        ck_assert_float_eq(module_of(a, i).alpha, mid ? 8 : 3); /* the first pattern that matches */
        ck_assert_float_eq(module_of(a, i).scale, mid ? 4 : 1.5f);
        ck_assert_int_eq(module_of(a, i).has_alpha, 1);
    }
    weft_adapter_free(a);
}
END_TEST

/* methods.md 1: D1 / sqrt(2). */
START_TEST(rslora_divides_by_the_root)
{
    weft_adapter *a = peft_folder("ink", "{\"r\":2,\"lora_alpha\":1,\"use_rslora\":true}", PEFT_TWO);

    ck_assert_msg(a != NULL, "%s", err.text);
    ck_assert_float_eq_tol(module_of(a, 0).scale, 0.707107f, 1e-6f);
    ck_assert_float_eq_tol(module_of(a, 0).scale * D1[1], 1.414214f, 1e-6f);
    weft_adapter_free(a);
}
END_TEST

/* PEFT and diffusers divide a 0 by the rank like any other number; to kohya it means the rank (above). */
START_TEST(alpha_of_zero_is_zero_to_peft)
{
    weft_adapter *a = peft_folder("ink", "{\"r\":2,\"lora_alpha\":4,\"alpha_pattern\":{\"to_q\":0}}", PEFT_TWO);

    ck_assert_msg(a != NULL, "%s", err.text);
    for (size_t i = 0; i < 2; i++)
        ck_assert_float_eq(module_of(a, i).scale, strcmp(module_of(a, i).name, "unet.mid_block.a.to_q") == 0 ? 0 : 2);
    weft_adapter_free(a);
    a = peft_folder("ink", "{\"r\":2,\"lora_alpha\":0,\"use_rslora\":true}", PEFT_TWO);
    ck_assert_float_eq(module_of(a, 0).scale, 0);
    weft_adapter_free(a);
}
END_TEST

/* A path that a pattern holds on to begins with text_model. or does not, as transformers' version had it. */
START_TEST(anchored_patterns_are_of_either_path)
{
    static const char *const patterns[] = { "^encoder.layers.0.x", "^text_model.encoder.layers.0.x" };
    static const char *const paths[] = { "", "text_model." };

    for (size_t k = 0; k < 4; k++) {
        char config[128], keys[256];
        snprintf(config, sizeof config, "{\"r\":5,\"lora_alpha\":2,\"rank_pattern\":{\"%s\":2}}", patterns[k / 2]);
        snprintf(keys, sizeof keys, "base_model.model.%sencoder.layers.0.x.lora_A.weight "
                 "base_model.model.%sencoder.layers.0.x.lora_B.weight", paths[k % 2], paths[k % 2]);
        weft_adapter *a = peft_folder("text_encoder", config, keys);
        ck_assert_msg(a != NULL, "%s", err.text);
        weft_adapter_free(a);
    }
    ck_assert_ptr_null(peft_folder("text_encoder", "{\"r\":5,\"rank_pattern\":{\"^layers.0.x\":2}}",
                                   "base_model.model.encoder.layers.0.x.lora_A.weight "
                                   "base_model.model.encoder.layers.0.x.lora_B.weight"));
}
END_TEST

START_TEST(folder_tells_the_second_text_encoder)
{
    static const char keys[] = "base_model.model.text_model.encoder.layers.0.x.lora_A.weight "
                               "base_model.model.text_model.encoder.layers.0.x.lora_B.weight";
    weft_adapter *a = peft_folder("text_encoder_2", "{\"lora_alpha\":2}", keys);

    ck_assert_msg(a != NULL, "%s", err.text);
    ck_assert_str_eq(module_of(a, 0).name, "text_encoder_2.text_model.encoder.layers.0.x");
    ck_assert_int_eq(info_of(a).base, WEFT_BASE_SDXL);
    weft_adapter_free(a);
}
END_TEST

static const struct { const char *config; weft_status code; const char *word; } bad_configs[] = {
    { "{\"peft_type\":\"LOHA\"}", WEFT_E_UNSUPPORTED, "peft_type is LOHA" },
    { "{\"peft_type\":\"VERA\"}", WEFT_E_UNSUPPORTED, "peft_type is VERA, but down_blocks.0.to_k has no tensor of that" },
    { "{\"peft_type\":7}", WEFT_E_UNSUPPORTED, "peft_type is not a string" },
    { "{\"use_dora\":true}", WEFT_E_FORMAT, "use_dora is set, but down_blocks.0.to_k has no magnitude" },
    { "{\"peft_type\":\"POLY\"}", WEFT_E_UNSUPPORTED, "peft_type is POLY; this version applies LORA" },
    { "{\"fan_in_fan_out\":true}", WEFT_E_UNSUPPORTED, "fan_in_fan_out is set" },
    { "{\"layer_replication\":[[0,1]]}", WEFT_E_UNSUPPORTED, "layer_replication is set" },
    { "{\"init_lora_weights\":\"pissa_niter_4\"}", WEFT_E_UNSUPPORTED, "pissa_niter_4, which takes a random approximation" },
    { "{\"r\":4,\"lora_alpha\":4}", WEFT_E_FORMAT, "says rank 4 for down_blocks.0.to_k, whose factors have rank 2" },
    { "{\"r\":2,\"lora_alpha\":2,\"rank_pattern\":{\"to_k\":3}}", WEFT_E_FORMAT, "says rank 3 for down_blocks.0.to_k" },
    { "{\"lora_alpha\":\"8\"}", WEFT_E_FORMAT, "lora_alpha for down_blocks.0.to_k is not a number" },
    { "{\"alpha_pattern\":[1]}", WEFT_E_FORMAT, "alpha_pattern is not an object" },
    { "{\"alpha_pattern\":{\"(?!x)to_k\":1}}", WEFT_E_UNSUPPORTED, "'(?!x)to_k' is a regular expression" },
    { "{\"lora_alpha\":1e300}", WEFT_E_FORMAT, "not a finite number" },
    { "{\"r\":2}", WEFT_E_UNSUPPORTED, "nothing says its alpha, without which the scale is not known; PEFT keeps it in "
      "adapter_config.json, which leaves it out here" },
    { "{\"r\":2,\"r\":3}", WEFT_E_FORMAT, "adapter_config.json" },
    { "[1]", WEFT_E_FORMAT, "adapter_config.json" },
    { "{", WEFT_E_FORMAT, "adapter_config.json" },
    { "", WEFT_E_FORMAT, "adapter_config.json" },
};

START_TEST(configuration_that_is_not_plain_lora_is_refused)
{
    weft_adapter *a = peft_folder("ink", bad_configs[_i].config, PEFT_TWO);

    ck_assert_msg(a == NULL, "opened with %s", bad_configs[_i].config);
    ck_assert_msg(err.code == bad_configs[_i].code, "%s: %s", weft_status_name(err.code), err.text);
    ck_assert_msg(strstr(err.text, bad_configs[_i].word) != NULL, "'%s' is not in: %s", bad_configs[_i].word, err.text);
}
END_TEST

#define TWO_NETS                                                                               \
    "unet.a.to_q.lora_A.weight unet.a.to_q.lora_B.weight text_encoder.text_model.x.lora_A.weight " \
    "text_encoder.text_model.x.lora_B.weight"

START_TEST(metadata_gives_alpha_for_each_component)
{
    weft_adapter *a = adapter_with(TWO_NETS, "{\"unet.r\":2,\"unet.lora_alpha\":6,\"unet.use_rslora\":false,"
                                             "\"text_encoder.lora_alpha\":4,\"text_encoder.use_rslora\":true}");
    ck_assert_msg(a != NULL, "%s", err.text);
    for (size_t i = 0; i < 2; i++) {
        bool unet = module_of(a, i).name[0] == 'u';
        ck_assert_float_eq(module_of(a, i).alpha, unet ? 6 : 4);
        ck_assert_float_eq_tol(module_of(a, i).scale, unet ? 3 : 2.828427f, 1e-6f);
    }
    weft_adapter_free(a);
    a = adapter_with(TWO_NETS, "{\"unet.alpha_pattern\":{\"to_q\":1}}");
    ck_assert_msg(a != NULL, "%s", err.text);
    for (size_t i = 0; i < 2; i++)
        ck_assert_float_eq(module_of(a, i).scale, module_of(a, i).name[0] == 'u' ? 0.5f : 1);
    weft_adapter_free(a);
}
END_TEST

START_TEST(metadata_that_is_not_plain_lora_is_refused)
{
    ck_assert_ptr_null(adapter_with(TWO_NETS, "{\"text_encoder.use_dora\":true}"));
    ck_assert_int_eq(err.code, WEFT_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(err.text, "text_encoder.use_dora is set"));
    ck_assert_ptr_null(adapter_with(TWO_NETS, "{\"unet.r\":9}"));
    ck_assert_int_eq(err.code, WEFT_E_FORMAT);
    ck_assert_ptr_null(adapter_with(TWO_NETS, "not json"));
    ck_assert_int_eq(err.code, WEFT_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(err.text, "lora_adapter_metadata"));
}
END_TEST

/* Patterns times modules is what a file may cost: a header has room for millions of either. */
START_TEST(endless_patterns_are_refused)
{
    size_t n = 0, cap = 10001 * 12 + 64;
    char  *json = malloc(cap);

    n += (size_t)snprintf(json, cap, "{\"unet.alpha_pattern\":{");
    for (int i = 0; i <= 10000; i++) n += (size_t)snprintf(json + n, cap - n, "%s\"x%d\":1", i > 0 ? "," : "", i);
    snprintf(json + n, cap - n, "}}");
    ck_assert_ptr_null(adapter_with(TWO_NETS, json));
    ck_assert_int_eq(err.code, WEFT_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(err.text, "unet.alpha_pattern has 10001 entries, wanted at most 10000"));
    free(json);
}
END_TEST

/* ---- settings of PEFT's other types ---------------------------------------------------------- */

/* DIR/adapter_model.safetensors with this one tensor set and configuration; the only module, or NULL. */
static weft_adapter *peft_module(const char *config, const weft_tensor_out *t, size_t n)
{
    char          file[600], json[600];
    const char   *dir = test_dir();
    weft_adapter *a = NULL;

    snprintf(file, sizeof file, "%s/adapter_model.safetensors", dir);
    snprintf(json, sizeof json, "%s/adapter_config.json", dir);
    write_tensors(file, t, n, NULL);
    write_text(json, config);
    memset(&err, 0, sizeof err);
    (void)weft_adapter_open(dir, NULL, &a, &err);
    unlink(file);
    unlink(json);
    test_rmdir(dir);
    return a;
}

static const float zeros[64];

START_TEST(oft_is_told_how_it_inverts)
{
    static const struct { const char *config; int32_t terms; float coft; } cases[] = {
        { "{\"peft_type\":\"OFT\",\"r\":0,\"oft_block_size\":4}", 5, 0 },
        { "{\"peft_type\":\"OFT\",\"use_cayley_neumann\":true,\"num_cayley_neumann_terms\":7}", 7, 0 },
        { "{\"peft_type\":\"OFT\",\"use_cayley_neumann\":false,\"coft\":true,\"eps\":0.5}", 0, 0.5f },
        { "{\"peft_type\":\"OFT\",\"coft\":false,\"eps\":0.5}", 5, 0 },
    };
    const weft_tensor_out t = tensor("base_model.model.mid_block.a.oft_R.weight", zeros, 2, 2, 6);

    for (size_t i = 0; i < WF_LEN(cases); i++) {
        weft_adapter *a = peft_module(cases[i].config, &t, 1);
        ck_assert_msg(a != NULL, "%s", err.text);
        ck_assert_int_eq(((const wf_oft_peft *)wf_adapter_module(a, 0)->extra)->terms, cases[i].terms);
        ck_assert_float_eq(((const wf_oft_peft *)wf_adapter_module(a, 0)->extra)->limit, cases[i].coft);
        ck_assert(wf_adapter_module(a, 0)->peft);
        weft_adapter_free(a);
    }
}
END_TEST

/* A list names ends of paths, a string is a pattern for the whole of one. */
START_TEST(ia3_is_told_what_it_scales)
{
    static const struct { const char *modules; bool input; } cases[] = {
        { "[\"a.to_k\",\"ff.net.2\"]", true }, { "[\"to_q\"]", false }, { "[]", false }, { "null", false },
        { "\".*to_k\"", true }, { "\"to_k\"", false },
    };
    const weft_tensor_out t = tensor("base_model.model.mid_block.a.to_k.ia3_l", zeros, 2, 8, 1);

    for (size_t i = 0; i < WF_LEN(cases); i++) {
        char config[200];
        snprintf(config, sizeof config, "{\"peft_type\":\"IA3\",\"feedforward_modules\":%s}", cases[i].modules);
        weft_adapter *a = peft_module(config, &t, 1);
        ck_assert_msg(a != NULL, "%s", err.text);
        ck_assert_int_eq(((const wf_ia3_peft *)wf_adapter_module(a, 0)->extra)->on_input, cases[i].input);
        ck_assert_str_eq(info_of(a).family, module_of(a, 0).family);
        weft_adapter_free(a);
    }
}
END_TEST

/* alpha is divided by the rank before pruning; what was pruned stands in rank_pattern as a list. */
START_TEST(adalora_remembers_its_first_rank)
{
    const weft_tensor_out t[] = {
        tensor("base_model.model.mid_block.a.lora_A", A1, 2, 2, 4), tensor("base_model.model.mid_block.a.lora_B", B1, 2, 3, 2),
        tensor("base_model.model.mid_block.a.lora_E", A1, 2, 2, 1),
    };
    weft_adapter *a = peft_module("{\"peft_type\":\"ADALORA\",\"init_r\":6,\"target_r\":2,\"lora_alpha\":3,"
                                  "\"rank_pattern\":{\"a\":[true,true,false]}}", t, 3);

    ck_assert_msg(a != NULL, "%s", err.text);
    ck_assert_int_eq(wf_start_rank_of(wf_adapter_module(a, 0)), 6);
    ck_assert_float_eq_tol(module_of(a, 0).scale, 3 / 6.00001f, 1e-6f);
    ck_assert_str_eq(info_of(a).kind, "AdaLoRA");
    weft_adapter_free(a);
}
END_TEST

/* Numbers beside factors are as finite as the factors: an endless rank would make the scale none. */
START_TEST(adalora_of_an_endless_rank_is_refused)
{
    static const float ends[] = { INFINITY, NAN };

    for (size_t i = 0; i < WF_LEN(ends); i++) {
        const weft_tensor_out t[] = {
            tensor("base_model.model.mid_block.a.lora_A", A1, 2, 2, 4), tensor("base_model.model.mid_block.a.lora_B", B1, 2, 3, 2),
            tensor("base_model.model.mid_block.a.lora_E", A1, 2, 2, 1), tensor("base_model.model.mid_block.a.ranknum", &ends[i], 0, 0, 0),
        };
        ck_assert_ptr_null(peft_module("{\"peft_type\":\"ADALORA\",\"init_r\":2,\"lora_alpha\":4}", t, 4));
        ck_assert_int_eq(err.code, WEFT_E_FORMAT);
        ck_assert_ptr_nonnull(strstr(err.text, i == 0 ? "ranknum holds infinity" : "ranknum holds NaN"));
    }
}
END_TEST

START_TEST(a_type_and_its_tensors_agree)
{
    const weft_tensor_out t = tensor("base_model.model.mid_block.a.to_k.ia3_l", zeros, 2, 8, 1);

    ck_assert_ptr_null(peft_module("{\"peft_type\":\"LOHA\"}", &t, 1));
    ck_assert_ptr_nonnull(strstr(err.text, "peft_type is LOHA, but mid_block.a.to_k has no tensor of that"));
}
END_TEST

/* ---- kinds, and keys that mean something beside others alone --------------------------------- */

START_TEST(kinds_are_told)
{
    static const struct { const char *keys, *kind; } files[] = {
        { "lora_unet_a.lora_down.weight lora_unet_a.lora_up.weight", "" },
        { "unet.unet.up_blocks.0.attentions.0.x.lora.down.weight unet.unet.up_blocks.0.attentions.0.x.lora.up.weight "
          "unet.unet.up_blocks.0.attentions.1.x.lora.down.weight unet.unet.up_blocks.0.attentions.1.x.lora.up.weight",
          "B-LoRA" },
        { "unet.up_blocks.0.attentions.0.x.lora_A.weight unet.up_blocks.0.attentions.0.x.lora_B.weight "
          "unet.up_blocks.0.attentions.2.x.lora_A.weight unet.up_blocks.0.attentions.2.x.lora_B.weight", "" },
        { "params.unet.a.lora_down.weight params.unet.a.lora_up.weight params.new_concept_embedding.<c1>", "ED-LoRA" },
    };
    for (size_t i = 0; i < WF_LEN(files); i++) {
        weft_adapter *a = adapter_of(files[i].keys);
        ck_assert_msg(a != NULL, "%s", err.text);
        ck_assert_str_eq(info_of(a).kind, files[i].kind);
        weft_adapter_free(a);
    }
}
END_TEST

/* ".weight" is (IA)^3's beside on_input, and elsewhere nobody's. */
START_TEST(weight_means_something_beside_on_input_alone)
{
    const weft_tensor_out t[] = {
        tensor("lora_unet_a.weight", zeros, 1, 3, 0), tensor("lora_unet_a.on_input", zeros, 0, 0, 0),
        tensor("lora_unet_b.lora_down.weight", A1, 2, 2, 4), tensor("lora_unet_b.lora_up.weight", B1, 2, 3, 2),
        tensor("lora_unet_b.weight", zeros, 1, 3, 0),
    };
    const char   *dir = test_dir(), *path = in_dir(dir, "a.safetensors");
    weft_adapter *a = NULL;

    write_tensors(path, t, WF_LEN(t), NULL);
    ck_assert_msg(weft_adapter_open(path, NULL, &a, &err) == WEFT_OK, "%s", err.text);
    for (size_t i = 0; i < WF_LEN(t); i++) {
        const char *key = wf_tensors_at(a->tensors, i)->name;
        ck_assert_msg((a->key_module[i] >= 0) == (strcmp(key, "lora_unet_b.weight") != 0), "%s", key);
    }
    ck_assert_str_eq(info_of(a).family, "lora + ia3");
    weft_adapter_free(a);
    unlink(path);
    test_rmdir(dir);
}
END_TEST

/* Fewer patterns are too many as well where each takes long and is held against many modules. */
START_TEST(costly_patterns_are_refused)
{
    const char      *dir = test_dir(), *path = in_dir(dir, "x.safetensors");
    weft_tensor_out *t = calloc(8000, sizeof *t);
    char           (*keys)[64] = calloc(8000, sizeof *keys);
    size_t           n = 0, cap = 90 * 320 + 64;
    char            *json = malloc(cap);
    weft_adapter    *a;

    n += (size_t)snprintf(json, cap, "{\"unet.alpha_pattern\":{");
    for (int i = 0; i < 90; i++) {
        n += (size_t)snprintf(json + n, cap - n, "%s\"", i > 0 ? "," : "");
        for (int k = 0; k < 99; k++) n += (size_t)snprintf(json + n, cap - n, "a.*");
        n += (size_t)snprintf(json + n, cap - n, "%d\":1", i);
    }
    snprintf(json + n, cap - n, "}}");
    for (int i = 0; i < 8000; i++) {
        snprintf(keys[i], sizeof keys[i], "unet.a%d.lora_%c.weight", i / 2, i % 2 == 0 ? 'A' : 'B');
        t[i] = tensor_for(keys[i]);
    }
    write_tensors(path, t, 8000, json);
    ck_assert_int_eq(weft_adapter_open(path, NULL, &a, &err), WEFT_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(err.text, "too long to be tried on 4000 modules"));
    free(json);
    free(keys);
    free(t);
    remove(path);
    test_rmdir(dir);
}
END_TEST

/* ---- what is refused by name ----------------------------------------------------------------- */

static const struct { const char *keys, *words; } families[] = {
    { "lora_unet_a.lora_A.0 lora_unet_a.lora_B.0", "DyLoRA" },
    { "base_model.model.text_model.x.lora_embedding_A base_model.model.text_model.x.lora_embedding_B", "embedding LoRA" },
    { "lora_unet_a.oft_diag", "an older form of OFT (oft_diag)" },
    { "lora_unet_a.q_layer.weight lora_unet_a.p_layer.weight lora_unet_a.lambda_layer lora_unet_a.alpha", "T-LoRA" },
    { "lora_unet_a.oft_R.weight lora_unet_a.oft_R.scaled_oft", "OneTrainer's OFT" },
    { "lora_unet_a.set_weight", "of ComfyUI only (set_weight)" },
    { "lora_unet_a.lora_down.weight lora_unet_a.lora_up.weight lora_unet_a.reshape_weight", "(reshape_weight)" },
    { "lllite_unet_input_blocks_4_1_attn1_to_q.down.0.weight", "a ControlNet-LLLite" },
    { "image_proj.proj.weight ip_adapter.1.to_k_ip.weight", "an IP-Adapter" },
    { "emb_params", "emb_params is a textual inversion: open it as a concept" },
    { "clip_l clip_g", "a textual inversion" },
    { "<my-cat>", "<my-cat> is a textual inversion: open it as a concept" },
    { "lora_controlnet input_blocks.1.0.in_layers.2.up", "ControlNet-LoRA" },
    { "input_blocks.1.0.in_layers.2.up input_blocks.1.0.in_layers.2.down", "ControlNet-LoRA" },
    { "transformer.transformer_blocks.0.attn.to_q.lora_A.weight", "diffusion transformer (FLUX, SD3)" },
    { "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "FLUX" },
    { "lora_te3_x.lora_down.weight", "FLUX" },
    { "lora_prior_unet_x.lora_down.weight", "Stable Cascade" },
    { "first_stage_model.a model.diffusion_model.a", "of a checkpoint|open it as a model" },
    { "lora_unet_a.lora_down.weight lora_unet_a.lora_up.weight lora_unet_a.hada_w1_a",
      "lora_unet_a has lora_down, lora_up, hada_w1_a: no family has these together" },
    { "down_blocks.0.x.weight up_blocks.0.y.weight", "they begin as|do and end otherwise; the first is|the last" },
};

START_TEST(family_is_refused_by_name)
{
    check_refused(families[_i].keys, WEFT_E_UNSUPPORTED, families[_i].words);
}
END_TEST

START_TEST(strangers_are_refused)
{
    float         width[768] = { 0 };
    bytes         none = { .header_len = 0 }, one = { .header_len = 0 };
    weft_adapter *a = NULL;

    check_refused("thing.x.weight other", WEFT_E_UNSUPPORTED, "no key is of a LoRA dialect|first is");
    check_refused("model.diffusion_model.x.weight other", WEFT_E_UNSUPPORTED, "of a checkpoint|open it as a model");
    check_refused(".lora_A.weight .lora_B.weight", WEFT_E_UNSUPPORTED, "no key is of a LoRA dialect");
    check_refused("unet.lora_A.weight unet.lora_B.weight", WEFT_E_UNSUPPORTED, "no key is of a LoRA dialect");
    memcpy(none.header, "{", 2);
    none.header_len = 1;
    ck_assert_int_eq(parse_bytes(&none, &a), WEFT_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(err.text, "holds no tensors"));
    add_bytes(&one, "cat", "F32", "[1,768]", width, sizeof width);
    ck_assert_int_eq(parse_bytes(&one, &a), WEFT_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(err.text, "cat, one tensor of width 768, is a textual inversion: open it as a concept"));
}
END_TEST

/* Embeddings of words may stand beside modules: they are counted, and left to whoever opens a concept. */
START_TEST(words_beside_modules_are_left_to_concepts)
{
    static const char *const words[] = { "bundle_emb.cat.string_to_param.*", "<s1>", "modifier_token.<new1>",
                                         "params.new_concept_embedding.<c1>" };
    for (size_t i = 0; i < WF_LEN(words); i++) {
        char          keys[200];
        weft_adapter *a;
        snprintf(keys, sizeof keys, "lora_unet_a.lora_down.weight lora_unet_a.lora_up.weight %s", words[i]);
        ck_assert_msg((a = adapter_of(keys)) != NULL, "%s", err.text);
        ck_assert_int_eq(info_of(a).tokens, 1);
        ck_assert_int_eq(info_of(a).modules, 1);
        weft_adapter_free(a);
    }
}
END_TEST

START_TEST(missing_partners_are_refused)
{
    check_refused("lora_unet_a.lora_down.weight", WEFT_E_FORMAT,
                  "lora_unet_a.lora_down.weight has no partner|the up factor of its module is missing");
    check_refused("unet.a.lora_B.weight unet.b.lora_A.weight unet.b.lora_B.weight", WEFT_E_FORMAT,
                  "unet.a.lora_B.weight has no partner|the down factor");
    check_refused("lora_unet_a.lora_down.weight lora_unet_a.lora_up.weight lora_unet_b.alpha", WEFT_E_FORMAT,
                  "lora_unet_b.alpha has no factors beside it");
}
END_TEST

/* One module, two spellings: adding both would double it. */
START_TEST(one_module_named_twice_is_refused)
{
    check_refused("unet.a.to_q.lora_A.weight unet.a.to_q.lora_B.weight unet.unet.a.to_q.lora_A.weight "
                  "unet.unet.a.to_q.lora_B.weight", WEFT_E_FORMAT, "unet.unet.a.to_q.lora_A.weight|of one module");
    check_refused("unet.a.to_q.lora_A.weight unet.a.to_q.lora_B.weight lora_unet_a_to_q.lora_down.weight "
                  "lora_unet_a_to_q.lora_up.weight", WEFT_E_FORMAT, "lora_unet_a_to_q.lora_down.weight|of one module");
    check_refused("unet.a.to_q.lora_A.weight unet.a.to_q.lora_B.weight unet.a.to_q.lora.down.weight "
                  "unet.a.to_q.lora.up.weight", WEFT_E_FORMAT, "of one module");
    check_refused("unet.a.lora_A.one.weight unet.a.lora_B.one.weight unet.a.lora_A.two.weight "
                  "unet.a.lora_B.two.weight", WEFT_E_FORMAT, "unet.a.lora_A.two.weight|of one module");
    check_refused("lora_te_a.lora_down.weight lora_te_a.lora_up.weight lora_te1_a.lora_down.weight "
                  "lora_te1_a.lora_up.weight", WEFT_E_FORMAT, "of one module");
    check_refused("unet.a.to_q.lora_A.weight unet.a.to_q.lora.up.weight", WEFT_E_FORMAT, "name one module in two ways");
    check_refused("unet.a.to_q.lora.down.weight unet.a.to_q.lora.up.weight unet.a.to_q.alpha unet.a.to_q.lora.alpha",
                  WEFT_E_FORMAT, "give the alpha of one module");
}
END_TEST

/* A key too long for any dialect is a key that nobody knows; it is shown cut. */
START_TEST(endless_keys_are_strangers)
{
    char key[900];

    memset(key, 'x', sizeof key);
    memcpy(key, "lora_unet_", 10);
    strcpy(key + sizeof key - 20, ".lora_down.weight");
    check_refused(key, WEFT_E_UNSUPPORTED, "no key is of a LoRA dialect|xxx...");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("adapter: dialects");
    TCase *t = tcase_create("keys");

    tcase_add_loop_test(t, key_is_read_as_its_dialect_means_it, 0, (int)WF_LEN(spellings));
    tcase_add_test(t, dialects_mix_in_one_file);
    tcase_add_test(t, a_shared_ending_does_not_tell_the_dialect);
    suite_add_tcase(s, t);
    t = tcase_create("scale");
    tcase_add_loop_test(t, alpha_joins_its_module, 0, (int)WF_LEN(alphas));
    tcase_add_test(t, alpha_comes_in_several_types);
    tcase_add_test(t, alpha_of_zero_is_the_rank);
    tcase_add_test(t, alpha_that_is_no_number_is_refused);
    tcase_add_test(t, patterns_match_to_the_end_from_a_dot);
    tcase_add_test(t, no_pattern_takes_long);
    tcase_add_test(t, peft_configuration_gives_alpha);
    tcase_add_test(t, rslora_divides_by_the_root);
    tcase_add_test(t, alpha_of_zero_is_zero_to_peft);
    tcase_add_test(t, anchored_patterns_are_of_either_path);
    tcase_add_test(t, folder_tells_the_second_text_encoder);
    tcase_add_loop_test(t, configuration_that_is_not_plain_lora_is_refused, 0, (int)WF_LEN(bad_configs));
    tcase_add_test(t, metadata_gives_alpha_for_each_component);
    tcase_add_test(t, metadata_that_is_not_plain_lora_is_refused);
    tcase_add_test(t, endless_patterns_are_refused);
    tcase_add_test(t, costly_patterns_are_refused);
    tcase_add_test(t, oft_is_told_how_it_inverts);
    tcase_add_test(t, ia3_is_told_what_it_scales);
    tcase_add_test(t, adalora_remembers_its_first_rank);
    tcase_add_test(t, adalora_of_an_endless_rank_is_refused);
    tcase_add_test(t, a_type_and_its_tensors_agree);
    suite_add_tcase(s, t);
    t = tcase_create("kinds");
    tcase_add_test(t, kinds_are_told);
    tcase_add_test(t, weight_means_something_beside_on_input_alone);
    suite_add_tcase(s, t);
    t = tcase_create("refusals");
    tcase_add_loop_test(t, family_is_refused_by_name, 0, (int)WF_LEN(families));
    tcase_add_test(t, strangers_are_refused);
    tcase_add_test(t, words_beside_modules_are_left_to_concepts);
    tcase_add_test(t, missing_partners_are_refused);
    tcase_add_test(t, one_module_named_twice_is_refused);
    tcase_add_test(t, endless_keys_are_strangers);
    suite_add_tcase(s, t);
    return run_suite(s);
}
