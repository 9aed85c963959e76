/* Pictures made ready for an encoder against CLIPImageProcessor, and what is opened or refused: image encoders, their
 * settings, IP-Adapters. */
#include <unistd.h>

#include "base/base.h"
#include "golden.h"
#include "image/image.h"
#include "nets/config.h"
#include "nets/keys.h"

static void refused(weft_status want, const char *text, weft_status got)
{
    ck_assert_msg(got == want, "%s, wanted %s: %s", weft_status_name(got), weft_status_name(want), golden_err.text);
    ck_assert_msg(strstr(golden_err.text, text) != NULL, "'%s' is not in: %s", text, golden_err.text);
    ck_assert_ptr_null(strchr(golden_err.text, '\n'));
}

/* ---- pictures ---- */

static const wf_picture_norm clip = { { 0.48145466f, 0.4578275f, 0.40821073f },
                                      { 0.26862954f, 0.26130258f, 0.27577711f } };

/* (h, w, 3) bytes as (3, h, w) in 0..1 */
static float *planes(const golden *rgb)
{
    size_t n = rgb->n / 3;
    float *v = malloc(rgb->n * sizeof *v);
    for (size_t i = 0; i < rgb->n; i++) v[i % 3 * n + i / 3] = rgb->v[i] / 255.0f;
    return v;
}

/* A level of a byte is 1/255 / 0.27 = 0.0146 here, so a limit of 1e-6 says that not one is off. */
START_TEST(pictures_are_prepared_as_by_pillow)
{
    static const char *const names[] = { "same", "tall", "wide", "small", "strip", "odd", "large" };
    weft_tensors *t = golden_open("image_prompts.safetensors");
    for (size_t i = 0; i < WF_LEN(names); i++) {
        golden rgb = golden_read(t, "picture/%s", names[i]), want = golden_read(t, "pixels/%s", names[i]);
        int32_t h = (int32_t)rgb.shape[0], w = (int32_t)rgb.shape[1], side = (int32_t)want.shape[1];
        float *image = planes(&rgb), *got = malloc(want.n * sizeof *got);
        size_t size = wf_picture_scratch(h, w, side);
        void *scratch = malloc(size);
        ck_assert_uint_gt(size, 0);
        wf_picture_prepare(got, side, image, h, w, &clip, scratch);
        near_golden(names[i], got, want.v, want.n, 1e-6);
        free(image), free(got), free(scratch), free(rgb.v), free(want.v);
    }
    weft_tensors_free(t);
}
END_TEST

/* Values beyond 0..1 are bytes 0 and 255, and a side of 0 or of 16385 has no scratch. */
START_TEST(pictures_are_bytes_and_bounded)
{
    const float image[3] = { -3, 0.5f, 7 };
    const wf_picture_norm plain = { { 0, 0, 0 }, { 1, 1, 1 } };
    float out[3];
    void *scratch = malloc(wf_picture_scratch(1, 1, 1));
    wf_picture_prepare(out, 1, image, 1, 1, &plain, scratch);
    ck_assert_float_eq(out[0], 0);
    ck_assert_float_eq_tol(out[1], 128 / 255.0f, 1e-7f);
    ck_assert_float_eq(out[2], 1);
    free(scratch);
    ck_assert_uint_eq(wf_picture_scratch(0, 5, 32), 0);
    ck_assert_uint_eq(wf_picture_scratch(5, 16385, 32), 0);
}
END_TEST

static weft_status settings(const char *text, wf_picture_norm *norm)
{
    json_t *json = NULL;
    must(wf_json_parse(&json, text, strlen(text), "p", &golden_err));
    weft_status st = wf_picture_config(norm, json, 32, "p", &golden_err);
    json_decref(json);
    return st;
}

START_TEST(preprocessors_are_followed_or_refused)
{
    static const struct { const char *text, *says; } bad[] = {
        { "{\"do_resize\": false}", "do_resize is false" },
        { "{\"do_center_crop\": false}", "do_center_crop is false" },
        { "{\"do_rescale\": false}", "do_rescale is false" },
        { "{\"do_normalize\": false}", "do_normalize is false" },
        { "{\"resample\": 2}", "resample is 2" },
        { "{\"rescale_factor\": 1.0}", "rescale_factor is not 1/255" },
        { "{\"rescale_factor\": \"a\"}", "rescale_factor is not 1/255" },
        { "{\"size\": 64}", "size is not a shortest_edge of 32" },
        { "{\"size\": {\"height\": 32, \"width\": 32}}", "size is not a shortest_edge of 32" },
        { "{\"size\": {\"shortest_edge\": 224}}", "size is not" },
        { "{\"crop_size\": {\"height\": 32, \"width\": 31}}", "crop_size is not 32" },
        { "{\"crop_size\": []}", "crop_size is not 32" },
    };
    static const struct { const char *text, *says; } broken[] = {
        { "{\"image_mean\": [0, 0]}", "image_mean is not a list of 3 numbers" },
        { "{\"image_std\": [1, 0, 1]}", "image_std is not a list of 3 numbers above 0" },
        { "{\"image_std\": \"x\"}", "image_std is not a list" },
    };
    wf_picture_norm n;
    must(settings("{}", &n));
    ck_assert_mem_eq(&n, &clip, sizeof n);
    must(settings("{\"image_mean\": [0.5, 0.25, 0], \"image_std\": [1, 2, 4], \"size\": {\"shortest_edge\": 32}, "
                  "\"crop_size\": 32, \"do_convert_rgb\": true, \"rescale_factor\": 0.00392156862745098}", &n));
    ck_assert_float_eq(n.mean[1], 0.25f);
    ck_assert_float_eq(n.deviation[2], 4);
    for (size_t i = 0; i < WF_LEN(bad); i++) refused(WEFT_E_UNSUPPORTED, bad[i].says, settings(bad[i].text, &n));
    for (size_t i = 0; i < WF_LEN(broken); i++) refused(WEFT_E_FORMAT, broken[i].says, settings(broken[i].text, &n));
}
END_TEST

/* ---- image encoders ---- */

START_TEST(encoders_open)
{
    weft_image_encoder_info i = WEFT_IMAGE_ENCODER_INFO_INIT;
    weft_image_encoder *e;
    must(weft_image_encoder_open(data_path("image_prompts/encoder"), NULL, &e, &golden_err));
    must(weft_image_encoder_info_get(e, &i, &golden_err));
    ck_assert_int_eq(i.image_size, 32);
    ck_assert_int_eq(i.patch_size, 8);
    ck_assert_int_eq(i.tokens, 17);
    ck_assert_int_eq(i.width, 32);
    ck_assert_int_eq(i.pooled, 24);
    ck_assert_int_eq(i.layers, 3);
    /* windows 32*192, class 32, positions 17*32, 3 layers of 4 * (32*32+32) + (48*32+48) + (32*48+32) + 4*32, norms 4*32,
       projection 24*32 */
    ck_assert_int_eq(i.parameters, 32 * 192 + 32 + 17 * 32 + 3 * (4 * 1056 + 1584 + 1568 + 128) + 128 + 768);
    weft_image_encoder_free(e);
    refused(WEFT_E_ARG, "encoder is NULL", weft_image_encoder_info_get(NULL, &i, &golden_err));
}
END_TEST

/* A folder of its own with another config.json and the same weights. */
static weft_status with_config(const char *from, const char *to, weft_image_encoder **e)
{
    char folder[] = "/tmp/weft_image_XXXXXX", path[128], text[4096], weights[1200], *cut;
    char here[1024];
    weft_status st;
    ck_assert_ptr_nonnull(mkdtemp(folder));
    FILE *f = fopen(data_path("image_prompts/encoder/config.json"), "rb");
    ck_assert_ptr_nonnull(f);
    text[fread(text, 1, sizeof text - 256, f)] = '\0';
    fclose(f);
    cut = strstr(text, from);
    ck_assert_ptr_nonnull(cut);
    memmove(cut + strlen(to), cut + strlen(from), strlen(cut + strlen(from)) + 1);
    memcpy(cut, to, strlen(to));
    snprintf(path, sizeof path, "%s/config.json", folder);
    f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    fclose(f);
    const char *there = data_path("image_prompts/encoder/model.safetensors");
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    snprintf(weights, sizeof weights, "%s%s%s", there[0] == '/' ? "" : here, there[0] == '/' ? "" : "/", there);
    char link[128];
    snprintf(link, sizeof link, "%s/model.safetensors", folder);
    ck_assert_int_eq(symlink(weights, link), 0);
    st = weft_image_encoder_open(folder, NULL, e, &golden_err);
    unlink(path), unlink(link), rmdir(folder);
    return st;
}

START_TEST(other_encoders_are_refused)
{
    static const struct { const char *from, *to; weft_status st; const char *says; } bad[] = {
        { "\"model_type\": \"clip_vision_model\"", "\"model_type\": \"siglip_vision_model\"", WEFT_E_UNSUPPORTED,
          "model_type is \"siglip_vision_model\"" },
        { "\"num_channels\": 3", "\"num_channels\": 1", WEFT_E_UNSUPPORTED, "num_channels is 1" },
        { "\"hidden_act\": \"gelu\"", "\"hidden_act\": \"tanh\"", WEFT_E_UNSUPPORTED, "hidden_act \"tanh\"" },
        { "\"num_attention_heads\": 4", "\"num_attention_heads\": 5", WEFT_E_FORMAT, "5 heads do not divide" },
        { "\"patch_size\": 8", "\"patch_size\": 33", WEFT_E_FORMAT, "image_size 32 and patch_size 33" },
        { "\"image_size\": 32", "\"image_size\": \"32\"", WEFT_E_FORMAT, "image_size is not a whole number" },
        { "\"patch_size\": 8", "\"patch_size\": 4", WEFT_E_FORMAT, "patch_embedding.weight is (32, 3, 8, 8), wanted (32, 3, 4, 4)" },
        { "\"image_size\": 32", "\"image_size\": 40", WEFT_E_FORMAT, "position_embedding.weight is (17, 32), wanted (26, 32)" },
        { "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2", WEFT_E_FORMAT, "is unknown to this configuration" },
        { "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4", WEFT_E_FORMAT, "encoder.layers.3.layer_norm1.weight is missing" },
        { "\"projection_dim\": 24", "\"projection_dim\": 25", WEFT_E_FORMAT, "visual_projection.weight is (24, 32), wanted (25, 32)" },
    };
    weft_image_encoder *e = NULL;
    for (size_t i = 0; i < WF_LEN(bad); i++) {
        refused(bad[i].st, bad[i].says, with_config(bad[i].from, bad[i].to, &e));
        ck_assert_ptr_null(e);
    }
    must(with_config("\"patch_size\": 8", "\"patch_size\": 8, \"later\": 1", &e)); /* warned about */
    weft_image_encoder_free(e);
    refused(WEFT_E_IO, "nowhere", weft_image_encoder_open("nowhere", NULL, &e, &golden_err));
    refused(WEFT_E_UNSUPPORTED, "is a file", weft_image_encoder_open(data_path("image_prompts/base_sd1.safetensors"), NULL, &e, &golden_err));
    refused(WEFT_E_IO, "config.json", weft_image_encoder_open(data_path("image_prompts"), NULL, &e, &golden_err));
    refused(WEFT_E_UNSUPPORTED, "model_type is \"clip_text_model\"",
            weft_image_encoder_open(data_path("models/tiny-sd1/text_encoder"), NULL, &e, &golden_err));
    refused(WEFT_E_ARG, "folder is NULL", weft_image_encoder_open(NULL, NULL, &e, &golden_err));
    refused(WEFT_E_ARG, "out is NULL", weft_image_encoder_open("x", NULL, NULL, &golden_err));
}
END_TEST

static int lines;

static void count_line(void *user, int32_t level, const char *line)
{
    (void)user, (void)level, (void)line;
    lines++;
}

/* Every key of transformers' class is known, and stands in the manual. */
START_TEST(every_setting_is_known)
{
    json_t *index = golden_json("image_prompts.json"), *config = json_object_get(index, "config"), *v;
    wf_clip_vision_config c;
    const char *name;
    char path[1100], *text = calloc(1 << 20, 1), word[80];
    ck_assert_uint_gt(json_object_size(config), 20);
    must(wf_config_clip_vision(&c, config, "config.json", &golden_err));
    ck_assert(c.hidden == 16 && c.layers == 2 && c.heads == 2 && c.intermediate == 40 && c.image == 40 && c.patch == 16);
    ck_assert(c.projection == 12 && c.eps == 1e-3f && c.act == WF_ACT_QUICK_GELU);
    lines = 0;
    wf_keys_warn(wf_clip_vision_keys, config, "config.json", count_line, NULL);
    ck_assert_int_eq(lines, 0);
    json_object_set_new(config, "later", json_integer(1));
    wf_keys_warn(wf_clip_vision_keys, config, "config.json", count_line, NULL);
    ck_assert_int_eq(lines, 1);
    json_object_del(config, "later");
    snprintf(path, sizeof path, "%s/../docs/formats.md", getenv("WEFT_TESTS") != NULL ? getenv("WEFT_TESTS") : "tests");
    FILE *f = fopen(path, "rb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_gt(fread(text, 1, (1 << 20) - 1, f), 1000);
    fclose(f);
    char *begin = strstr(text, "#### CLIPVisionModelWithProjection");
    ck_assert_ptr_nonnull(begin);
    json_object_foreach(config, name, v) {
        snprintf(word, sizeof word, "`%s`", name);
        ck_assert_msg(strstr(begin, word) != NULL, "docs/formats.md does not have %s", word);
    }
    must(wf_config_clip_vision(&c, v = json_object(), "config.json", &golden_err)); /* transformers' defaults */
    ck_assert(c.hidden == 768 && c.layers == 12 && c.heads == 12 && c.intermediate == 3072 && c.image == 224 && c.patch == 32);
    ck_assert(c.projection == 512 && c.eps == 1e-5f && c.act == WF_ACT_QUICK_GELU);
    json_decref(v), json_decref(index), free(text);
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

START_TEST(nothing_is_left_without_memory)
{
    static const weft_allocator counting = { take, give, NULL };
    weft_image_options o = WEFT_IMAGE_OPTIONS_INIT;
    weft_image_encoder *e = NULL;
    weft_image_adapter *a = NULL;
    weft_status st = WEFT_E_NOMEM;
    int n = 0;
    o.allocator = &counting;
    for (; st != WEFT_OK && n < 2000; n++) {
        allowed = n;
        st = _i == 0 ? weft_image_encoder_open(data_path("image_prompts/encoder"), &o, &e, &golden_err)
                     : weft_image_adapter_open(data_path("image_prompts/plus_sd1.safetensors"), &o, &a, &golden_err);
        if (st == WEFT_OK) break;
        ck_assert_msg(st == WEFT_E_NOMEM, "%d: %s", n, golden_err.text);
        ck_assert_uint_eq(held, 0);
        ck_assert(e == NULL && a == NULL);
    }
    must(st);
    ck_assert_int_gt(n, 10);
    weft_image_encoder_free(e);
    weft_image_adapter_free(a);
    ck_assert_uint_eq(held, 0);
}
END_TEST

/* ---- IP-Adapters ---- */

static weft_image_adapter_info info_of(const char *name)
{
    weft_image_adapter_info i = WEFT_IMAGE_ADAPTER_INFO_INIT;
    weft_image_adapter *a;
    must(weft_image_adapter_open(data_path("image_prompts/%s", name), NULL, &a, &golden_err));
    must(weft_image_adapter_info_get(a, &i, &golden_err));
    char stem[32];
    snprintf(stem, sizeof stem, "%.*s", (int)strcspn(name, "."), name);
    ck_assert_str_eq(i.name, stem);
    weft_image_adapter_free(a);
    return i;
}

START_TEST(adapters_say_what_they_are)
{
    weft_image_adapter_info base = info_of("base_sd1.safetensors"), plus = info_of("plus_sdxl.safetensors"),
                            full = info_of("full_sd1.safetensors"), bin = info_of("base_sd1.bin");
    ck_assert_int_eq(base.kind, WEFT_IMAGE_BASE);
    ck_assert_int_eq(base.features, 24);
    ck_assert_int_eq(base.tokens, 4);
    ck_assert_int_eq(base.width, 24);
    ck_assert_int_eq(base.cross_layers, 11); /* 2 + 2 down, 3 + 3 up, 1 in the middle */
    ck_assert_int_eq(plus.kind, WEFT_IMAGE_PLUS);
    ck_assert_int_eq(plus.features, 32);
    ck_assert_int_eq(plus.tokens, 6);
    ck_assert_int_eq(plus.width, 40);
    ck_assert_int_eq(plus.cross_layers, 2 + 4 + 6 + 3 + 2);
    ck_assert_int_eq(full.kind, WEFT_IMAGE_FULL);
    ck_assert_int_eq(full.tokens, 257);
    ck_assert_int_eq(bin.kind, WEFT_IMAGE_BASE);
    ck_assert_int_eq(bin.parameters, base.parameters);
}
END_TEST

/* The tensors of a file with one changed: renamed to `to`, or left out where that is "", or with other sides. */
static weft_status changed(const char *file, const char *name, const char *to, const int64_t *shape)
{
    weft_tensors *t, *other;
    weft_tensor_out out[256];
    float *data[256];
    size_t n = 0;
    const weft_allocator heap = wf_allocator(NULL);
    weft_image_adapter *a = NULL;
    bool found = false;
    must(weft_tensors_open(data_path("image_prompts/%s", file), NULL, &t, &golden_err));
    for (size_t i = 0; i < weft_tensors_count(t); i++) {
        weft_tensor_info info = WEFT_TENSOR_INFO_INIT;
        must(weft_tensors_info(t, i, &info, &golden_err));
        bool this = strcmp(info.name, name) == 0;
        found = found || this;
        if (this && shape == NULL && *to == '\0') continue;
        weft_tensor_out_init(&out[n], sizeof out[n]);
        data[n] = calloc(1 << 16, sizeof *data[n]);
        must(weft_tensors_read(t, i, data[n], info.count, &golden_err));
        out[n].name = this && shape == NULL ? to : info.name;
        out[n].data = data[n];
        out[n].rank = info.rank;
        memcpy(out[n].shape, info.shape, sizeof info.shape);
        if (this && shape != NULL)
            for (out[n].rank = 0; shape[out[n].rank] != 0; out[n].rank++) out[n].shape[out[n].rank] = shape[out[n].rank];
        n++;
    }
    ck_assert_msg(found, "no %s in %s", name, file);
    must(weft_tensors_create(out, n, NULL, 0, NULL, &other, &golden_err));
    weft_status st = wf_image_adapter_make(&a, other, "here/ip.safetensors", &heap, &golden_err);
    ck_assert_int_eq(a != NULL, st == WEFT_OK);
    weft_image_adapter_free(a);
    for (size_t i = 0; i < n; i++) free(data[i]);
    weft_tensors_free(other);
    weft_tensors_free(t);
    return st;
}

START_TEST(other_adapters_are_refused)
{
    static const char base[] = "base_sd1.safetensors", plus[] = "plus_sd1.safetensors", full[] = "full_sd1.safetensors";
    static const struct { const char *file, *name, *to; int64_t shape[4]; weft_status st; const char *says; } bad[] = {
        { base, "ip_adapter.7.to_k_ip.weight", "", { 0 }, WEFT_E_FORMAT, "ip_adapter.7.to_k_ip.weight is missing" },
        { base, "ip_adapter.7.to_v_ip.weight", "", { 0 }, WEFT_E_FORMAT, "ip_adapter.7.to_v_ip.weight is missing" },
        { base, "ip_adapter.1.to_k_ip.weight", "", { 0 }, WEFT_E_FORMAT, "ip_adapter.1.to_k_ip.weight is missing" },
        { base, "ip_adapter.5.to_v_ip.weight", "", { 16, 25 }, WEFT_E_FORMAT, "ip_adapter.5.to_v_ip.weight is (16, 25), wanted (16, 24)" },
        { base, "ip_adapter.5.to_k_ip.weight", "", { 384 }, WEFT_E_FORMAT, "ip_adapter.5.to_k_ip.weight is (384,), wanted (channels, 24)" },
        { base, "ip_adapter.5.to_v_ip.weight", "ip_adapter.99999999999.to_v_ip.weight", { 0 }, WEFT_E_FORMAT, "ip_adapter.5.to_v_ip.weight is missing" },
        { base, "ip_adapter.21.to_v_ip.weight", "ip_adapter.22.to_v_ip.weight", { 0 }, WEFT_E_FORMAT, "ip_adapter.21.to_v_ip.weight is missing" },
        { base, "image_proj.proj.bias", "", { 0 }, WEFT_E_FORMAT, "image_proj.proj.bias is missing" },
        { base, "image_proj.norm.weight", "image_proj.norm.wait", { 0 }, WEFT_E_FORMAT, "image_proj.norm.weight is missing" },
        { base, "image_proj.proj.weight", "", { 95, 24 }, WEFT_E_FORMAT, "has 95 rows, wanted a multiple of 4" },
        { base, "image_proj.proj.weight", "", { 96, 12, 2 }, WEFT_E_FORMAT, "image_proj.proj.weight is (96, 12, 2), wanted 2 sides" },
        { base, "image_proj.proj.weight", "image_proj.perceiver_resampler.proj_in.weight", { 0 }, WEFT_E_UNSUPPORTED, "FaceID Plus" },
        { base, "image_proj.proj.weight", "image_proj.proj.2.weight", { 0 }, WEFT_E_UNSUPPORTED, "FaceID" },
        { base, "ip_adapter.1.to_k_ip.weight", "ip_adapter.0.to_q_lora.down.weight", { 0 }, WEFT_E_UNSUPPORTED, "with LoRAs" },
        { base, "image_proj.proj.weight", "image_proj.other.weight", { 0 }, WEFT_E_FORMAT, "image_proj.latents is missing" },
        { plus, "image_proj.latents", "", { 6, 32 }, WEFT_E_FORMAT, "image_proj.latents is (6, 32), wanted 3 sides" },
        { plus, "image_proj.latents", "", { 1, 1025, 32 }, WEFT_E_FORMAT, "image_proj.latents has 1025 rows" },
        { plus, "image_proj.layers.0.0.to_q.weight", "", { 100, 32 }, WEFT_E_FORMAT, "100 rows, wanted a multiple of 64" },
        { plus, "image_proj.layers.2.0.to_kv.weight", "", { 0 }, WEFT_E_FORMAT, "image_proj.layers.2.0.to_kv.weight is missing" },
        { plus, "image_proj.layers.3.1.3.weight", "image_proj.layers.4.1.3.weight", { 0 }, WEFT_E_FORMAT, "image_proj.layers.3.1.3.weight is missing" },
        { full, "image_proj.proj.3.bias", "", { 0 }, WEFT_E_FORMAT, "image_proj.proj.3.bias is missing" },
        { full, "image_proj.proj.2.weight", "", { 24, 31 }, WEFT_E_FORMAT, "image_proj.proj.2.weight is (24, 31), wanted (24, 32)" },
    };
    weft_image_adapter *a = NULL;
    for (size_t i = 0; i < WF_LEN(bad); i++)
        refused(bad[i].st, bad[i].says, changed(bad[i].file, bad[i].name, bad[i].to, bad[i].shape[0] != 0 ? bad[i].shape : NULL));
    refused(WEFT_E_UNSUPPORTED, "is not an IP-Adapter: it has no tensor image_proj.*",
            weft_image_adapter_open(data_path("adapters/content.safetensors"), NULL, &a, &golden_err));
    ck_assert_ptr_null(a);
    weft_tensor_out one = WEFT_TENSOR_OUT_INIT;
    weft_tensors *half;
    const weft_allocator heap = wf_allocator(NULL);
    one.name = "image_proj.latents", one.data = (float[]){ 1 }, one.rank = 1, one.shape[0] = 1;
    must(weft_tensors_create(&one, 1, NULL, 0, NULL, &half, &golden_err));
    refused(WEFT_E_UNSUPPORTED, "half is not an IP-Adapter: it has no tensor ip_adapter.*",
            wf_image_adapter_make(&a, half, "half", &heap, &golden_err));
    weft_tensors_free(half);
    refused(WEFT_E_IO, "nowhere", weft_image_adapter_open("nowhere", NULL, &a, &golden_err));
    refused(WEFT_E_ARG, "path is NULL", weft_image_adapter_open(NULL, NULL, &a, &golden_err));
    refused(WEFT_E_ARG, "out is NULL", weft_image_adapter_open("x", NULL, NULL, &golden_err));
}
END_TEST

/* An IP-Adapter that is given as an adapter or as a model is told where it belongs. */
START_TEST(given_elsewhere_it_is_named)
{
    weft_adapter *a = NULL;
    weft_model *m = NULL;
    refused(WEFT_E_UNSUPPORTED, "IP-Adapter",
            weft_adapter_open(data_path("image_prompts/base_sd1.safetensors"), NULL, &a, &golden_err));
    ck_assert_msg(strstr(golden_err.text, "image prompt") != NULL, "%s", golden_err.text);
    refused(WEFT_E_UNSUPPORTED, "IP-Adapter",
            weft_model_open(data_path("image_prompts/plus_sd1.safetensors"), NULL, &m, &golden_err));
    ck_assert_msg(strstr(golden_err.text, "image prompt") != NULL, "%s", golden_err.text);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("images");
    TCase *pictures = tcase_create("pictures"), *files = tcase_create("files");
    tcase_add_test(pictures, pictures_are_prepared_as_by_pillow);
    tcase_add_test(pictures, pictures_are_bytes_and_bounded);
    tcase_add_test(pictures, preprocessors_are_followed_or_refused);
    tcase_add_test(files, encoders_open);
    tcase_add_test(files, every_setting_is_known);
    tcase_add_loop_test(files, nothing_is_left_without_memory, 0, 2);
    tcase_add_test(files, other_encoders_are_refused);
    tcase_add_test(files, adapters_say_what_they_are);
    tcase_add_test(files, other_adapters_are_refused);
    tcase_add_test(files, given_elsewhere_it_is_named);
    suite_add_tcase(s, pictures);
    suite_add_tcase(s, files);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
