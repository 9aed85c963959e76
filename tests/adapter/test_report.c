/* Adapters meet models: every key's fate, the verdict's one line, and what happens on broken files and no memory. */
#include <jansson.h>
#include <sys/stat.h>

#include "files.h"

static weft_model *model_called(const char *name)
{
    weft_model *m = NULL;
    char        path[128];

    snprintf(path, sizeof path, "data/models/%s", name);
    ck_assert_msg(weft_model_open(test_path(path), NULL, &m, &err) == WEFT_OK, "%s", err.text);
    return m;
}

static const wf_layer *layer_of(const weft_model *m, const char *name)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(m, &count);

    for (size_t i = 0; i < count; i++)
        if (strcmp(layers[i].name, name) == 0) return &layers[i];
    ck_abort_msg("no layer %s", name);
    return NULL;
}

/* An adapter in kohya's endings whose modules have the shapes given, all values zero. */
typedef struct shape { const char *stem; int64_t out, in, kernel; } shape;

static weft_adapter *shaped(const shape *s, size_t count)
{
    static char            keys[64][256];
    static const float     zeros[65536];
    const char            *dir = test_dir(), *path = in_dir(dir, "made.safetensors");
    weft_tensor_out        t[64];
    weft_adapter_options   o = WEFT_ADAPTER_OPTIONS_INIT;
    weft_adapter          *a = NULL;
    size_t                 n = 0;

    for (size_t i = 0; i < count; i++) {
        bool dotted = strncmp(s[i].stem, "lora_", 5) != 0;
        snprintf(keys[n], 256, "%s.%s.weight", s[i].stem, dotted ? "lora_A" : "lora_down");
        t[n] = tensor(keys[n], zeros, s[i].kernel > 0 ? 4 : 2, 2, s[i].in);
        t[n].shape[2] = t[n].shape[3] = s[i].kernel;
        n++;
        snprintf(keys[n], 256, "%s.%s.weight", s[i].stem, dotted ? "lora_B" : "lora_up");
        t[n] = tensor(keys[n], zeros, 2, s[i].out, 2);
        n++;
    }
    for (size_t i = 0; i < count; i++)
        if (strncmp(s[i].stem, "base_model.", 11) == 0) o.alpha = 2; /* PEFT does not open without one */
    write_tensors(path, t, n, NULL);
    ck_assert_msg(weft_adapter_open(path, &o, &a, &err) == WEFT_OK, "%s", err.text);
    unlink(path);
    test_rmdir(dir);
    return a;
}

static weft_report *report_of(weft_model *m, weft_adapter *a)
{
    weft_report *r = NULL;
    ck_assert_msg(weft_report_create(m, a, &r, &err) == WEFT_OK, "%s", err.text);
    ck_assert_uint_gt(strlen(weft_report_line(r)), 0);
    ck_assert_uint_eq(weft_report_tally(r, WEFT_KEY_MATCHED) + weft_report_tally(r, WEFT_KEY_UNMATCHED) +
                          weft_report_tally(r, WEFT_KEY_SHAPE_MISMATCH) + weft_report_tally(r, WEFT_KEY_IGNORED),
                      weft_report_count(r));
    return r;
}

static weft_report_row row_of(const weft_report *r, const char *key)
{
    for (size_t i = 0; i < weft_report_count(r); i++) {
        weft_report_row row = WEFT_REPORT_ROW_INIT;
        ck_assert_int_eq(weft_report_get(r, i, &row, &err), WEFT_OK);
        if (strcmp(row.key, key) == 0) return row;
    }
    ck_abort_msg("no row %s", key);
    return (weft_report_row)WEFT_REPORT_ROW_INIT;
}

/* Binds the shapes to the model and checks verdict (strict), verdict (partial) and the line. */
static void check_line(const char *model, const shape *s, size_t n, weft_status strict, weft_status partial,
                       const char *line)
{
    weft_model   *m = model_called(model);
    weft_adapter *a = shaped(s, n);
    weft_report  *r = report_of(m, a);

    ck_assert_str_eq(weft_report_line(r), line);
    ck_assert_int_eq(wf_report_verdict(r, false, &err), strict);
    if (strict != WEFT_OK) {
        ck_assert_ptr_nonnull(strstr(err.text, line));
        ck_assert_int_eq(strncmp(err.text, "made: ", 6), 0);
        check_one_line(&err);
    }
    ck_assert_int_eq(wf_report_verdict(r, true, &err), partial);
    weft_report_free(r);
    weft_adapter_free(a);
    weft_model_free(m);
}

#define PEFT_KEYS "base_model.model.mid_block.a.lora_A.weight base_model.model.mid_block.a.lora_B.weight"
#define Q "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
#define LORA_Q "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
#define LDM_Q "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"
#define K2 "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"

START_TEST(every_way_to_say_a_layer_matches)
{
    static const shape ways[] = {
        { LORA_Q, 8, 8, 0 },
        { LDM_Q, 8, 8, 0 },
        { "unet." Q, 8, 8, 0 },
        { "unet.unet." Q, 8, 8, 0 },
        { "base_model.model." Q, 8, 8, 0 },
        { "lora_te_text_model_encoder_layers_0_mlp_fc1", 64, 24, 0 },
        { "lora_te1_text_model_encoder_layers_0_mlp_fc1", 64, 24, 0 }, /* with one text encoder both are clear */
        { "text_encoder.text_model.encoder.layers.0.mlp.fc1", 64, 24, 0 },
        { "text_encoder.encoder.layers.0.mlp.fc1", 64, 24, 0 },
        { "base_model.model.encoder.layers.0.mlp.fc1", 64, 24, 0 },
        { "lora_unet_conv_in", 8, 4, 3 },
        { "lora_unet_input_blocks_0_0", 8, 4, 3 },
        { "unet.down_blocks.0.downsamplers.0.conv", 8, 8, 3 },
        { "lora_unet_input_blocks_3_0_op", 8, 8, 3 },
        { "lora_unet_time_embed_0", 32, 8, 0 },
        /* a linear layer as a 1x1 convolution, and the other way round: proj_in is 4-D in this model */
        { "unet." Q, 8, 8, 1 },
        { "unet.down_blocks.0.attentions.0.proj_in", 8, 8, 0 },
        { "unet.down_blocks.0.attentions.0.proj_in", 8, 8, 1 },
    };
    check_line("tiny-sd1", &ways[_i], 1, WEFT_OK, WEFT_OK, "2 of 2 keys matched (1 module)");
}
END_TEST

START_TEST(layer_that_is_not_there)
{
    static const shape s[] = { { LORA_Q, 8, 8, 0 }, { "lora_unet_down_blocks_7_x", 8, 8, 0 } };

    check_line("tiny-sd1", s + 1, 1, WEFT_E_MISMATCH, WEFT_E_MISMATCH,
               "0 of 2 keys matched; first mismatch lora_unet_down_blocks_7_x.lora_down.weight: the model has no such "
               "layer");
    check_line("tiny-sd1", s, 2, WEFT_E_MISMATCH, WEFT_OK,
               "2 of 4 keys matched; first mismatch lora_unet_down_blocks_7_x.lora_down.weight: the model has no such "
               "layer");
}
END_TEST

START_TEST(layer_of_another_shape)
{
    static const shape s[] = { { K2, 8, 40, 0 }, { "unet.conv_in", 8, 4, 1 }, { "unet." Q, 8, 8, 3 } };

    check_line("tiny-sd1", s, 1, WEFT_E_MISMATCH, WEFT_E_MISMATCH,
               "0 of 2 keys matched; first mismatch " K2 ".lora_down.weight: its product is (8, 40), the layer (8, 24)");
    check_line("tiny-sd1", s + 1, 1, WEFT_E_MISMATCH, WEFT_E_MISMATCH,
               "0 of 2 keys matched; first mismatch unet.conv_in.lora_A.weight: its product is (8, 4), the layer "
               "(8, 4, 3, 3)");
    check_line("tiny-sd1", s + 2, 1, WEFT_E_MISMATCH, WEFT_E_MISMATCH,
               "0 of 2 keys matched; first mismatch unet." Q ".lora_A.weight: its product is (8, 8, 3, 3), the layer "
               "(8, 8)");
}
END_TEST

START_TEST(adapter_for_another_family)
{
    static const shape sdxl[] = {
        { "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", 640, 2048, 0 },
        { "lora_te2_text_model_encoder_layers_0_mlp_fc1", 5120, 1280, 0 },
    };
    static const shape sd1[] = { { K2, 320, 768, 0 } };

    check_line("tiny-sd1", sdxl, 1, WEFT_E_MISMATCH, WEFT_E_MISMATCH,
               "adapter is for SDXL, model is SD1.x; first mismatch lora_unet_input_blocks_4_1_transformer_blocks_0_"
               "attn2_to_k.lora_down.weight: its product is (640, 2048), the layer (16, 24)");
    check_line("tiny-sd1", sdxl + 1, 1, WEFT_E_MISMATCH, WEFT_E_MISMATCH,
               "adapter is for SDXL, model is SD1.x; first mismatch lora_te2_text_model_encoder_layers_0_mlp_fc1."
               "lora_down.weight: the model has no second text encoder");
    check_line("tiny-sdxl", sd1, 1, WEFT_E_MISMATCH, WEFT_E_MISMATCH,
               "adapter is for SD1.x, model is SDXL; first mismatch " K2 ".lora_down.weight: the model has no such layer");
}
END_TEST

START_TEST(te_alone_is_not_clear_with_two_encoders)
{
    static const shape s[] = { { "lora_te_text_model_encoder_layers_0_mlp_fc1", 32, 16, 0 } };

    check_line("tiny-sdxl", s, 1, WEFT_E_MISMATCH, WEFT_E_MISMATCH,
               "0 of 2 keys matched; first mismatch lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight: the "
               "model has two text encoders, lora_te1_ and lora_te2_");
}
END_TEST

/* Both of kohya's namings in one file: the words differ, the layer is the same. Even a partial adapter is refused. */
START_TEST(two_words_for_one_layer_clash)
{
    static const shape s[] = { { LDM_Q, 8, 8, 0 }, { LORA_Q, 8, 8, 0 }, { K2, 8, 24, 0 } };

    check_line("tiny-sd1", s, 3, WEFT_E_MISMATCH, WEFT_E_MISMATCH,
               "two modules name one layer: " LDM_Q ".lora_down.weight: its layer is named by " LORA_Q " already");
}
END_TEST

/* SDXL's files may hold every module in both numberings: diffusers' is taken, as diffusers does. */
START_TEST(sdxl_files_may_name_layers_in_both_numberings)
{
    static const shape s[] = {
        { "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q", 16, 16, 0 },
        { "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q", 16, 16, 0 },
    };
    weft_model     *m = model_called("tiny-sdxl");
    weft_adapter   *a = shaped(s, 2);
    weft_report    *r = report_of(m, a);
    weft_report_row row = row_of(r, "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight");

    ck_assert_str_eq(weft_report_line(r), "4 of 4 keys matched (1 module)");
    ck_assert_int_eq(wf_report_verdict(r, false, &err), WEFT_OK);
    ck_assert_int_eq(row.state, WEFT_KEY_IGNORED);
    ck_assert_str_eq(row.layer, "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q");
    ck_assert_ptr_nonnull(strstr(row.reason, "in diffusers' numbering, and that one is taken"));
    ck_assert((layer_id_of(r, 0) < 0) != (layer_id_of(r, 1) < 0));
    weft_report_free(r);
    weft_adapter_free(a);
    weft_model_free(m);
}
END_TEST

/* Modules that know one side of their layer alone, and what is beside the product. Q is (8, 8), norm1 has 8 channels. */
START_TEST(reasons_name_what_does_not_fit)
{
#define UNDER_Q "unet." Q "."
    static const struct { const char *key[3]; int64_t shape[3][3]; const char *reason; } cases[] = {
        { { LORA_Q ".lora_down.weight", LORA_Q ".lora_up.weight", LORA_Q ".dora_scale" }, { { 2, 8 }, { 8, 2 }, { 7, 1 } },
          "its magnitude has 7 values, the layer is (8, 8)" },
        { { LORA_Q ".lora_down.weight", LORA_Q ".lora_up.weight", LORA_Q ".diff_b" }, { { 2, 8 }, { 8, 2 }, { 7 } },
          "its bias has 7 values, the layer 8 outputs" },
        { { LORA_Q ".diff_b" }, { { 7 } }, "its bias has 7 values, the layer 8 outputs" },
        { { LORA_Q ".oft_blocks" }, { { 3, 2, 2 } }, "it is for 6 outputs, the layer is (8, 8)" },
        { { UNDER_Q "ia3_l" }, { { 1, 6 } }, "it is for 6 inputs, the layer is (8, 8)" },
        { { UNDER_Q "oft_R.weight" }, { { 1, 10 } }, "its blocks do not divide the inputs of the layer, which is (8, 8)" },
        { { LORA_Q ".w_norm" }, { { 8 } }, "norm does not apply to a layer that is no normalisation" },
        { { LORA_Q ".diff" }, { { 8 } }, "full does not apply to a layer that is no normalisation" },
        { { "lora_unet_conv_norm_out.diff" }, { { 5 } }, "it has 5 channels, the layer 8" },
        { { "lora_unet_conv_norm_out.diff" }, { { 8, 8 } }, "full does not apply to a normalisation" },
    };
    weft_model  *m = model_called("tiny-sd1");
    const char  *dir = test_dir(), *path = in_dir(dir, "x.safetensors");
    static float zeros[512];

    for (size_t c = 0; c < WF_LEN(cases); c++) {
        weft_tensor_out t[3];
        weft_adapter   *a = NULL;
        size_t          n = 0;
        for (; n < 3 && cases[c].key[n] != NULL; n++) {
            const int64_t *s = cases[c].shape[n];
            t[n] = tensor(cases[c].key[n], zeros, s[2] != 0 ? 3 : s[1] != 0 ? 2 : 1, s[0], s[1]);
            t[n].shape[2] = s[2];
        }
        write_tensors(path, t, n, NULL);
        ck_assert_msg(weft_adapter_open(path, NULL, &a, &err) == WEFT_OK, "%zu: %s", c, err.text);
        weft_report *r = report_of(m, a);
        ck_assert_uint_eq(weft_report_tally(r, WEFT_KEY_SHAPE_MISMATCH), n);
        for (size_t i = 0; i < n; i++) ck_assert_str_eq(row_of(r, t[i].name).reason, cases[c].reason);
        weft_report_free(r);
        weft_adapter_free(a);
    }
    weft_model_free(m);
    remove(path);
    test_rmdir(dir);
}
END_TEST

/* Key, layer, state, reason and id, key by key; an alpha shares its module's fate. */
START_TEST(rows_say_what_became_of_each_key)
{
    weft_model   *m = model_called("tiny-sd1");
    const char   *dir = test_dir(), *path = in_dir(dir, "x.safetensors");
    static float  zeros[512];
    weft_adapter *a = NULL;
    const weft_tensor_out t[] = {
        tensor(LORA_Q ".lora_down.weight", zeros, 2, 2, 8), tensor(LORA_Q ".lora_up.weight", zeros, 2, 8, 2),
        tensor(LORA_Q ".alpha", zeros, 0, 0, 0),            tensor(K2 ".lora_down.weight", zeros, 2, 2, 40),
        tensor(K2 ".lora_up.weight", zeros, 2, 8, 2),       tensor("lora_unet_no.lora_down.weight", zeros, 2, 2, 8),
        tensor("lora_unet_no.lora_up.weight", zeros, 2, 8, 2), tensor("stray", zeros, 1, 3, 0),
    };

    write_tensors(path, t, WF_LEN(t), NULL);
    ck_assert_msg(weft_adapter_open(path, NULL, &a, &err) == WEFT_OK, "%s", err.text);
    weft_report *r = report_of(m, a);
    ck_assert_uint_eq(weft_report_count(r), 8);
    ck_assert_uint_eq(weft_report_tally(r, WEFT_KEY_MATCHED), 3);
    ck_assert_uint_eq(weft_report_tally(r, WEFT_KEY_SHAPE_MISMATCH), 2);
    ck_assert_uint_eq(weft_report_tally(r, WEFT_KEY_UNMATCHED), 3);
    ck_assert_uint_eq(weft_report_tally(r, WEFT_KEY_IGNORED), 0);
    ck_assert_uint_eq(weft_report_tally(r, 0), 0);
    ck_assert_uint_eq(weft_report_tally(r, 99), 0);

    const wf_layer *q = layer_of(m, "unet." Q);
    for (size_t i = 0; i < 3; i++) {
        weft_report_row row = row_of(r, t[i].name);
        ck_assert_int_eq(row.state, WEFT_KEY_MATCHED);
        ck_assert_str_eq(row.layer, q->name);
        ck_assert_int_eq(row.layer_id, q->id);
        ck_assert_str_eq(row.reason, "");
    }
    weft_report_row row = row_of(r, K2 ".lora_up.weight");
    ck_assert_int_eq(row.state, WEFT_KEY_SHAPE_MISMATCH);
    ck_assert_str_eq(row.layer, "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k");
    ck_assert_str_eq(row.reason, "its product is (8, 40), the layer (8, 24)");
    row = row_of(r, "lora_unet_no.lora_down.weight");
    ck_assert_int_eq(row.state, WEFT_KEY_UNMATCHED);
    ck_assert_str_eq(row.layer, "");
    ck_assert_int_eq(row.layer_id, -1);
    ck_assert_str_eq(row.reason, "the model has no such layer");
    row = row_of(r, "stray");
    ck_assert_int_eq(row.state, WEFT_KEY_UNMATCHED);
    ck_assert_str_eq(row.reason, "not a key of a dialect that this version reads");
    ck_assert_int_eq(weft_report_get(r, 8, &row, &err), WEFT_E_ARG);

    /* the handles may go in any order: the report keeps what it names */
    weft_adapter_free(a);
    weft_model_free(m);
    ck_assert_str_eq(row_of(r, LORA_Q ".alpha").layer, "unet." Q);
    weft_report_free(r);
    unlink(path);
    test_rmdir(dir);
}
END_TEST

/* A stray key beside good ones is an error too, unless the caller allows it. */
START_TEST(unknown_keys_are_never_skipped)
{
    weft_model   *m = model_called("tiny-sd1");
    static float  zeros[64];
    const char   *dir = test_dir(), *path = in_dir(dir, "x.safetensors");
    weft_adapter *a = NULL;
    const weft_tensor_out t[] = {
        tensor("unet." Q ".lora_A.weight", zeros, 2, 2, 8), tensor("unet." Q ".lora_B.weight", zeros, 2, 8, 2),
        tensor("unet." Q ".weight", zeros, 2, 2, 2),
    };

    write_tensors(path, t, WF_LEN(t), NULL);
    ck_assert_int_eq(weft_adapter_open(path, NULL, &a, &err), WEFT_OK);
    weft_report *r = report_of(m, a);
    ck_assert_int_eq(wf_report_verdict(r, false, &err), WEFT_E_MISMATCH);
    ck_assert_ptr_nonnull(strstr(err.text, "x: 2 of 3 keys matched; first mismatch unet." Q ".weight: not a key"));
    ck_assert_int_eq(wf_report_verdict(r, true, &err), WEFT_OK);
    weft_report_free(r);
    weft_adapter_free(a);
    weft_model_free(m);
    unlink(path);
    test_rmdir(dir);
}
END_TEST

/* ---- the adapters of the goldens ------------------------------------------------------------- */

static int number(const json_t *o, const char *key)
{
    return (int)json_integer_value(json_object_get(o, key));
}

START_TEST(every_stored_adapter_binds_to_its_model)
{
    json_t *root = json_load_file(test_path("data/golden/adapters.json"), 0, NULL), *list, *one;
    size_t  i;

    ck_assert_ptr_nonnull(root);
    list = json_object_get(root, "adapters");
    ck_assert_uint_gt(json_array_size(list), 20);
    json_array_foreach(list, i, one) {
        char          path[256];
        const char   *name = json_string_value(json_object_get(one, "name"));
        weft_adapter *a = NULL;
        snprintf(path, sizeof path, "data/%s", json_string_value(json_object_get(one, "path")));
        ck_assert_msg(weft_adapter_open(test_path(path), NULL, &a, &err) == WEFT_OK, "%s", err.text);
        weft_adapter_info info = info_of(a);
        json_t           *ranks = json_object_get(one, "ranks");
        ck_assert_str_eq(info.name, name);
        ck_assert_msg(strcmp(info.dialect, json_string_value(json_object_get(one, "dialect"))) == 0, "%s: %s", name,
                      info.dialect);
        ck_assert_str_eq(info.family, "lora");
        ck_assert_int_eq(info.modules, number(one, "modules"));
        ck_assert_int_eq(info.denoiser_modules, number(one, "unet"));
        ck_assert_int_eq(info.text_modules, number(one, "text_encoder") + number(one, "text_encoder_2"));
        ck_assert_int_eq(info.rank_min, (int)json_integer_value(json_array_get(ranks, 0)));
        ck_assert_int_eq(info.rank_max, (int)json_integer_value(json_array_get(ranks, json_array_size(ranks) - 1)));

        weft_model  *m = model_called(json_string_value(json_object_get(one, "model")));
        weft_report *r = report_of(m, a);
        ck_assert_uint_eq(weft_report_count(r), (size_t)number(one, "keys"));
        ck_assert_msg(weft_report_tally(r, WEFT_KEY_MATCHED) == weft_report_count(r), "%s: %s", name,
                      weft_report_line(r));
        ck_assert_int_eq(wf_report_verdict(r, false, &err), WEFT_OK);
        for (int32_t k = 0; k < info.modules; k++) ck_assert_int_ge(layer_id_of(r, (size_t)k), 0);
        weft_report_free(r);
        weft_model_free(m);
        weft_adapter_free(a);
    }
    json_decref(root);
}
END_TEST

START_TEST(adapter_is_read_without_a_model)
{
    weft_adapter *a = NULL;
    bool          seen = false;

    ck_assert_int_eq(weft_adapter_open(test_path("data/adapters/style.safetensors"), NULL, &a, &err), WEFT_OK);
    ck_assert_str_eq(weft_adapter_metadata(a, "modelspec.title"), "style");
    ck_assert_ptr_null(weft_adapter_metadata(a, "absent"));
    ck_assert_uint_eq(weft_adapter_metadata_count(a), 6);
    for (size_t i = 0; i < 6; i++)
        if (strcmp(weft_adapter_metadata_key(a, i), "ss_network_dim") == 0)
            seen = strcmp(weft_adapter_metadata_value(a, i), "3") == 0;
    ck_assert(seen);
    ck_assert_ptr_null(weft_adapter_metadata_key(a, 6));
    ck_assert_ptr_null(weft_adapter_metadata_value(a, 6));

    weft_adapter_info info = info_of(a);
    struct stat       file;
    ck_assert_int_eq(stat(test_path("data/adapters/style.safetensors"), &file), 0);
    ck_assert_int_eq(info.bytes, file.st_size);
    ck_assert_int_eq(info.base, WEFT_BASE_UNKNOWN); /* its widths are no published model's */
    ck_assert_str_eq(info.base_name, "unknown");
    int64_t parameters = 0;
    for (int32_t i = 0; i < info.modules; i++) {
        weft_module_info m = module_of(a, (size_t)i);
        parameters += m.rank * (m.in + m.out);
        ck_assert_float_eq_tol(m.scale, 2.0f / 3, 1e-6f);
    }
    ck_assert_int_eq(info.parameters, parameters);
    weft_module_info past = WEFT_MODULE_INFO_INIT;
    ck_assert_int_eq(weft_adapter_module(a, (size_t)info.modules, &past, &err), WEFT_E_ARG);
    weft_adapter_free(a);
}
END_TEST

START_TEST(widths_tell_the_base_model)
{
    static const struct { shape s; int32_t family; const char *name; } bases[] = {
        { { K2, 320, 768, 0 }, WEFT_BASE_SD1, "SD1.x" },
        { { "unet.x.attn2.to_v", 320, 1024, 0 }, WEFT_BASE_SD2, "SD2.x" },
        { { K2, 640, 2048, 0 }, WEFT_BASE_SDXL, "SDXL" },
        { { K2, 768, 1280, 0 }, WEFT_BASE_SDXL_REFINER, "SDXL refiner" },
        { { "text_encoder_2.text_model.x", 1280, 1280, 0 }, WEFT_BASE_SDXL, "SDXL" },
        { { "unet.x.attn1.to_k", 768, 768, 0 }, WEFT_BASE_UNKNOWN, "unknown" },
        { { K2, 8, 24, 0 }, WEFT_BASE_UNKNOWN, "unknown" },
    };

    for (size_t i = 0; i < WF_LEN(bases); i++) {
        weft_adapter *a = shaped(&bases[i].s, 1);
        ck_assert_int_eq(info_of(a).base, bases[i].family);
        ck_assert_str_eq(info_of(a).base_name, bases[i].name);
        weft_adapter_free(a);
    }
}
END_TEST

/* ---- paths and arguments --------------------------------------------------------------------- */

START_TEST(paths_and_arguments_are_checked)
{
    weft_adapter_options o = WEFT_ADAPTER_OPTIONS_INIT;
    const char          *dir = test_dir(), *file = in_dir(dir, "my.ink.safetensors"), *bin = in_dir(dir, "adapter_model.bin");
    weft_adapter        *a = (weft_adapter *)dir;

    ck_assert_int_eq(weft_adapter_open(NULL, NULL, &a, &err), WEFT_E_ARG);
    ck_assert_ptr_null(a);
    ck_assert_int_eq(weft_adapter_open("", NULL, &a, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_adapter_open("x", NULL, NULL, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_adapter_open(in_dir(dir, "absent.safetensors"), NULL, &a, &err), WEFT_E_IO);
    ck_assert_ptr_nonnull(strstr(err.text, "absent.safetensors"));
    ck_assert_int_eq(weft_adapter_open(dir, NULL, &a, &err), WEFT_E_IO); /* an empty folder */
    ck_assert_ptr_nonnull(strstr(err.text, "neither adapter_model.safetensors nor pytorch_lora_weights.safetensors"));
    write_text(bin, "PK");
    ck_assert_int_eq(weft_adapter_open(dir, NULL, &a, &err), WEFT_E_FORMAT); /* found, and broken */
    ck_assert_ptr_nonnull(strstr(err.text, "adapter_model.bin"));
    unlink(bin);
    ck_assert_int_eq(weft_adapter_open(test_path("data/models/tiny-sd1"), NULL, &a, &err), WEFT_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(err.text, "a model's folder"));
    ck_assert_int_eq(weft_adapter_open(test_path("data/models/tiny-sd1/unet/diffusion_pytorch_model.safetensors"), NULL,
                                       &a, &err), WEFT_E_UNSUPPORTED);

    write_keys(file, "unet.a.lora_A.weight unet.a.lora_B.weight");
    o.flags = WEFT_OPEN_COPY;
    ck_assert_int_eq(weft_adapter_open(file, &o, &a, &err), WEFT_OK);
    ck_assert_str_eq(info_of(a).name, "my.ink"); /* the file's name without its ending */
    weft_adapter_free(a);
    o.name = "ink";
    ck_assert_int_eq(weft_adapter_open(file, &o, &a, &err), WEFT_OK);
    ck_assert_str_eq(info_of(a).name, "ink");
    weft_adapter_free(a);
    o.name = "\xffink\nblot"; /* as a file may be called: it stands in texts of one line and UTF-8 */
    ck_assert_int_eq(weft_adapter_open(file, &o, &a, &err), WEFT_OK);
    ck_assert_str_eq(info_of(a).name, "?ink blot");
    weft_adapter_free(a);
    o.config = file; /* no key is PEFT's: the caller means something else */
    ck_assert_int_eq(weft_adapter_open(file, &o, &a, &err), WEFT_E_ARG);
    ck_assert_ptr_nonnull(strstr(err.text, "no key is PEFT's"));
    o.config = NULL;
    o.flags = 1u << 20;
    ck_assert_int_eq(weft_adapter_open(file, &o, &a, &err), WEFT_E_UNSUPPORTED);
    unlink(file);

    weft_report *r = (weft_report *)dir;
    ck_assert_int_eq(weft_report_create(NULL, NULL, &r, &err), WEFT_E_ARG);
    ck_assert_ptr_null(r);
    ck_assert_int_eq(weft_adapter_info_get(NULL, NULL, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_adapter_module(NULL, 0, NULL, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_report_get(NULL, 0, NULL, &err), WEFT_E_ARG);
    ck_assert_uint_eq(weft_adapter_metadata_count(NULL), 0);
    ck_assert_ptr_null(weft_adapter_metadata(NULL, "x"));
    ck_assert_uint_eq(weft_report_count(NULL), 0);
    weft_adapter_free(NULL);
    weft_report_free(NULL);
    test_rmdir(dir);
}
END_TEST

/* A kohya file beside somebody's adapter_config.json does not read it. */
START_TEST(configuration_is_read_for_peft_alone)
{
    const char   *dir = test_dir(), *file = in_dir(dir, "k.safetensors"), *json = in_dir(dir, "adapter_config.json");
    weft_adapter *a = NULL;
    weft_adapter_options o = WEFT_ADAPTER_OPTIONS_INIT;

    write_keys(file, "lora_unet_a.lora_down.weight lora_unet_a.lora_up.weight");
    write_text(json, "{\"peft_type\":\"LOHA\"}");
    ck_assert_msg(weft_adapter_open(file, NULL, &a, &err) == WEFT_OK, "%s", err.text);
    weft_adapter_free(a);
    write_keys(file, PEFT_KEYS);
    ck_assert_int_eq(weft_adapter_open(file, NULL, &a, &err), WEFT_E_UNSUPPORTED);
    unlink(json);
    json = in_dir(dir, "mine.json");
    write_text(json, "{\"lora_alpha\":4}");
    o.config = json;
    ck_assert_msg(weft_adapter_open(file, &o, &a, &err) == WEFT_OK, "%s", err.text);
    ck_assert_float_eq(module_of(a, 0).scale, 2);
    weft_adapter_free(a);
    unlink(json);
    ck_assert_int_eq(weft_adapter_open(file, &o, &a, &err), WEFT_E_IO); /* the one that was asked for is gone */
    unlink(file);
    test_rmdir(dir);
}
END_TEST

/* ---- broken files ---------------------------------------------------------------------------- */

static size_t small_file(uint8_t *out)
{
    bytes f = { .header_len = 0 };

    add_bytes(&f, "lora_unet_a.lora_down.weight", "F32", "[2,4]", A1, sizeof A1);
    add_bytes(&f, "lora_unet_a.lora_up.weight", "F32", "[3,2]", B1, sizeof B1);
    add_bytes(&f, "lora_unet_a.alpha", "F32", "[]", A1, 4);
    return file_bytes(&f, out);
}

START_TEST(every_truncation_is_refused_in_one_line)
{
    uint8_t       file[4096];
    size_t        n = small_file(file);
    const char   *dir = test_dir(), *path = in_dir(dir, "cut.safetensors");
    weft_adapter *a = NULL;

    for (size_t len = 0; len < n; len++) {
        ck_assert_int_eq(wf_file_write(path, file, len, &err), WEFT_OK);
        weft_status st = weft_adapter_open(path, NULL, &a, &err);
        ck_assert_msg(st == WEFT_E_FORMAT, "%zu of %zu bytes: %s %s", len, n, weft_status_name(st), err.text);
        ck_assert_ptr_null(a);
        ck_assert_ptr_nonnull(strstr(err.text, "cut.safetensors"));
        check_one_line(&err);
    }
    ck_assert_int_eq(wf_file_write(path, file, n, &err), WEFT_OK);
    ck_assert_int_eq(weft_adapter_open(path, NULL, &a, &err), WEFT_OK);
    weft_adapter_free(a);
    unlink(path);
    test_rmdir(dir);
}
END_TEST

/* Any byte of the header turned into any of a few others: a clean answer, whatever it is. */
START_TEST(every_wrong_byte_is_survived)
{
    static const uint8_t with[] = { 0, '"', '9', ']', '.', 'A', 0xff };
    const wf_source      source = { .name = "memory" };
    const weft_allocator heap = wf_allocator(NULL);
    uint8_t              file[4096];
    size_t               n = small_file(file);

    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < sizeof with; k++) {
            uint8_t       old = file[i];
            weft_tensors *t = NULL;
            weft_adapter *a = NULL;
            file[i] = with[k];
            weft_status st = wf_tensors_parse(file, n, "memory", &heap, &t, &err);
            if (st == WEFT_OK) st = wf_adapter_parse(t, &source, &heap, &a, &err);
            ck_assert((st == WEFT_OK) == (a != NULL));
            if (st != WEFT_OK) check_one_line(&err);
            weft_adapter_free(a);
            weft_tensors_free(t);
            file[i] = old;
        }
}
END_TEST

/* ---- no memory ------------------------------------------------------------------------------- */

START_TEST(open_without_memory_says_so)
{
    static const char *const paths[] = { "data/adapters/sd1_peft_te", "data/adapters/third",
                                         "data/adapters/content.safetensors" };
    weft_adapter_options o = WEFT_ADAPTER_OPTIONS_INIT;
    test_memory          m;
    weft_allocator       alloc = test_allocator(&m);
    weft_adapter        *a = NULL;
    weft_status          st = WEFT_E_NOMEM;

    o.allocator = &alloc;
    o.flags = _i == 2 ? WEFT_OPEN_COPY : 0;
    for (size_t n = 1; st == WEFT_E_NOMEM; n++) {
        m = (test_memory){ .fail_at = n };
        memset(&err, 0, sizeof err);
        st = weft_adapter_open(test_path(paths[_i]), &o, &a, &err);
        ck_assert_msg(st == WEFT_E_NOMEM || st == WEFT_OK, "allocation %zu: %s: %s", n, weft_status_name(st), err.text);
        if (st == WEFT_OK) break;
        ck_assert_ptr_null(a);
        ck_assert_uint_eq(m.live_blocks, 0);
        check_one_line(&err);
    }
    weft_adapter_free(a);
    ck_assert_uint_eq(m.live_blocks, 0);
}
END_TEST

START_TEST(bind_without_memory_says_so)
{
    static const char *const models[] = { "tiny-sd1", "tiny-sdxl" }; /* all matches; nothing does: reasons */
    weft_adapter_options o = WEFT_ADAPTER_OPTIONS_INIT;
    test_memory          m;
    weft_allocator       alloc = test_allocator(&m);
    weft_adapter        *a = NULL;
    weft_report         *r = NULL;
    weft_status          st = WEFT_E_NOMEM;

    o.allocator = &alloc;
    ck_assert_int_eq(weft_adapter_open(test_path("data/adapters/sd1_peft_te"), &o, &a, &err), WEFT_OK);
    weft_model *model = model_called(models[_i]);
    size_t      before = m.live_blocks;
    for (size_t n = 1; st == WEFT_E_NOMEM; n++) {
        m.calls = 0;
        m.fail_at = n;
        st = weft_report_create(model, a, &r, &err);
        if (st == WEFT_OK) break;
        ck_assert_int_eq(st, WEFT_E_NOMEM);
        ck_assert_ptr_null(r);
        ck_assert_uint_eq(m.live_blocks, before);
    }
    ck_assert_int_eq(st, WEFT_OK);
    weft_report_free(r);
    weft_adapter_free(a);
    weft_model_free(model);
    ck_assert_uint_eq(m.live_blocks, 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("adapter: reports");
    TCase *t = tcase_create("rows and lines");

    tcase_add_loop_test(t, every_way_to_say_a_layer_matches, 0, 18);
    tcase_add_test(t, layer_that_is_not_there);
    tcase_add_test(t, layer_of_another_shape);
    tcase_add_test(t, adapter_for_another_family);
    tcase_add_test(t, te_alone_is_not_clear_with_two_encoders);
    tcase_add_test(t, two_words_for_one_layer_clash);
    tcase_add_test(t, sdxl_files_may_name_layers_in_both_numberings);
    tcase_add_test(t, reasons_name_what_does_not_fit);
    tcase_add_test(t, rows_say_what_became_of_each_key);
    tcase_add_test(t, unknown_keys_are_never_skipped);
    tcase_add_test(t, every_stored_adapter_binds_to_its_model);
    suite_add_tcase(s, t);
    t = tcase_create("what an adapter says of itself");
    tcase_add_test(t, adapter_is_read_without_a_model);
    tcase_add_test(t, widths_tell_the_base_model);
    suite_add_tcase(s, t);
    t = tcase_create("wrong input");
    tcase_add_test(t, paths_and_arguments_are_checked);
    tcase_add_test(t, configuration_is_read_for_peft_alone);
    tcase_add_test(t, every_truncation_is_refused_in_one_line);
    tcase_add_test(t, every_wrong_byte_is_survived);
    tcase_add_loop_test(t, open_without_memory_says_so, 0, 3);
    tcase_add_loop_test(t, bind_without_memory_says_so, 0, 2);
    suite_add_tcase(s, t);
    return run_suite(s);
}
