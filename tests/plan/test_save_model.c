/* A plan saved as a checkpoint: opened again it is the plan without the plan, in each layout; and what no adapter
 * touches has kept its bits. */
#include <sys/stat.h>

#include "model/layouts.h"
#include "plan/patches.h"

static void setup(void) { make_scratch(); }
static void teardown(void) { remove_scratch(); }

static const char *folder_of(const char *model) { return data_path("models/%s", model); }

static weft_plan *plan_of(weft_model *m, const char *adapter, float weight, int32_t path)
{
    weft_plan_options po = WEFT_PLAN_OPTIONS_INIT;
    weft_adapter *a;
    weft_plan *plan;
    po.path = path;
    must(weft_adapter_open(adapter, NULL, &a, &golden_err));
    must(weft_plan_create(m, &po, &plan, &golden_err));
    must(weft_plan_add(plan, a, weight, NULL, &golden_err));
    must(weft_plan_seal(plan, 3, &golden_err));
    weft_adapter_free(a);
    return plan;
}

static double distance(weft_plan *plan, weft_model *m)
{
    size_t n, count;
    float *x = predict_with(plan, &n), *y = predict(m, &count);
    ck_assert_uint_eq(n, count);
    double d = relative(y, x, n, NULL);
    free(x);
    free(y);
    return d;
}

/* ---- an adapter of all that can be written --------------------------------------------------- */

static weft_tensor_out tensor(const char *name, float *v, size_t rank, int64_t a, int64_t b, int64_t k)
{
    weft_tensor_out t = { .struct_size = sizeof t };
    size_t n = (size_t)(a * (rank > 1 ? b : 1) * (rank > 2 ? k * k : 1));
    for (size_t i = 0; i < n; i++) v[i] = 0.05f * (float)((int)((i * 7 + strlen(name)) % 11) - 5);
    t.name = name;
    t.data = v;
    t.rank = rank;
    t.shape[0] = a, t.shape[1] = b, t.shape[2] = t.shape[3] = k;
    return t;
}

/* For tiny-sdxl: a 3x3 convolution with its bias, a norm, thirds of a fused q, k, v with a bias, a transposed
 * projection, a projection that is a 1x1 convolution in LDM's VAE. */
static const char *write_adapter(void)
{
    static float v[12][2048];
    weft_tensor_out t[] = {
        tensor("lora_unet_conv_in.diff", v[0], 4, 8, 4, 3),
        tensor("lora_unet_conv_in.diff_b", v[1], 1, 8, 1, 1),
        tensor("lora_unet_conv_norm_out.w_norm", v[2], 1, 8, 1, 1),
        tensor("lora_unet_conv_norm_out.b_norm", v[3], 1, 8, 1, 1),
        tensor("lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight", v[4], 4, 2, 8, 3),
        tensor("lora_unet_down_blocks_0_resnets_0_conv1.lora_up.weight", v[5], 4, 8, 2, 1),
        tensor("lora_te2_text_model_encoder_layers_0_self_attn_k_proj.lora_down.weight", v[6], 2, 3, 24, 1),
        tensor("lora_te2_text_model_encoder_layers_0_self_attn_k_proj.lora_up.weight", v[7], 2, 24, 3, 1),
        tensor("lora_te2_text_model_encoder_layers_0_self_attn_v_proj.diff_b", v[8], 1, 24, 1, 1),
        tensor("lora_te2_text_projection.diff", v[9], 2, 20, 24, 1),
        tensor("lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", v[10], 2, 2, 16, 1),
        tensor("lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", v[11], 2, 32, 2, 1),
    };
    must(weft_tensors_write(in_scratch("all.safetensors"), t, WF_LEN(t), NULL, 0, &golden_err));
    return in_scratch("all.safetensors");
}

/* ---- what a type cannot hold ------------------------------------------------------------------ */

/* down (2, 8) and up (8, 2) are ones, so that each weight gets 2 * alpha / 2 = alpha, times the adapter's weight. */
START_TEST(weights_that_overflow_their_type_are_refused)
{
    static const struct { float alpha, weight; const char *said; } cases[] = {
        { 70000, 1, ", which F16 does not hold: merge into a model whose weights are BF16 or F32" }, /* F16 ends at 65504 */
        { -1e10f, 1, ", which F16 does not hold: merge into a model whose weights are BF16 or F32" },
        { 3e38f, 4, "has the value infinity, which no type holds" },
    };
#define TO_Q "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    static float ones[16];
    weft_model *m = opened(folder_of("tiny-sd1"), NULL);

    for (size_t i = 0; i < WF_LEN(ones); i++) ones[i] = 1;
    for (size_t i = 0; i < WF_LEN(cases); i++) {
        const weft_tensor_out t[] = {
            { sizeof t[0], 0, "lora_unet_" TO_Q ".lora_down.weight", ones, { 2, 8 }, 2, NULL },
            { sizeof t[0], 0, "lora_unet_" TO_Q ".lora_up.weight", ones, { 8, 2 }, 2, NULL },
            { sizeof t[0], 0, "lora_unet_" TO_Q ".alpha", &cases[i].alpha, { 0 }, 0, NULL },
        };
        struct stat there;
        must(weft_tensors_write(in_scratch("wild.safetensors"), t, WF_LEN(t), NULL, 0, &golden_err));
        weft_plan *plan = plan_of(m, in_scratch("wild.safetensors"), cases[i].weight, WEFT_PATH_AUTO);
        ck_assert_int_eq(weft_plan_save_model(plan, in_scratch("wild"), &golden_err), WEFT_E_UNSUPPORTED);
        ck_assert_msg(strstr(golden_err.text, cases[i].said) != NULL, "%s", golden_err.text);
        ck_assert_ptr_nonnull(strstr(golden_err.text, "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q: "
                                                      "its merged weight has the value "));
        ck_assert_int_ne(stat(in_scratch("wild/unet/diffusion_pytorch_model.safetensors"), &there), 0);
        weft_plan_free(plan);
    }
    weft_model_free(m);
}
END_TEST

/* ---- round trips ----------------------------------------------------------------------------- */

static const struct trip {
    const char *model, *config; /* config: a single file's folder */
    const char *adapter;        /* NULL: the one above            */
    double      within;         /* by the dtype                   */
} trips[] = {
    { "models/tiny-sd1", NULL, "adapters/sd1_kohya_conv.safetensors", 2e-3 },
    { "models/tiny-sd1", NULL, "adapters/sd1_old_te.safetensors", 2e-3 },
    { "models/tiny-sd2", NULL, "adapters/sd2_kohya.safetensors", 2e-6 },
    { "models/tiny-sdxl", NULL, "adapters/sdxl_kohya.safetensors", 2e-2 },
    { "layouts/tiny-sdxl.safetensors", "models/tiny-sdxl", "adapters/sdxl_kohya_ldm.safetensors", 2e-2 },
    { "models/tiny-sdxl", NULL, NULL, 2e-2 },
    { "layouts/tiny-sdxl.safetensors", "models/tiny-sdxl", NULL, 2e-2 },
};

static weft_model *open_trip(const struct trip *t, const char *path, weft_model_options *o)
{
    *o = (weft_model_options)WEFT_MODEL_OPTIONS_INIT;
    if (t->config != NULL) o->config = data_path("%s", t->config);
    return opened(path, o);
}

/* Opened again, the checkpoint is what the plan was, to the rounding of its dtype. */
START_TEST(a_saved_model_is_the_plan)
{
    const struct trip *t = &trips[_i];
    weft_model_options o;
    const char *out = in_scratch(t->config != NULL ? "merged.safetensors" : "merged");
    weft_model *m = open_trip(t, data_path("%s", t->model), &o);
    weft_plan *plan = plan_of(m, t->adapter != NULL ? data_path("%s", t->adapter) : write_adapter(), 0.7f, WEFT_PATH_AUTO);
    must(weft_plan_save_model(plan, out, &golden_err));
    weft_model *again = open_trip(t, out, &o);
    double d = distance(plan, again), far = 0;
    weft_plan *none;
    must(weft_plan_create(m, NULL, &none, &golden_err));
    must(weft_plan_seal(none, 3, &golden_err));
    far = distance(none, again);
    if (getenv("GOLDEN_SHOW") != NULL) printf("%s: %.2e from the plan, %.2e from the base\n", t->model, d, far);
    ck_assert_msg(d <= t->within, "%s: %.2e", t->model, d);
    ck_assert_msg(far > 10 * d, "%s: %.2e from the plan, %.2e from the base", t->model, d, far);
    ck_assert_str_eq(info_of(again).layout, info_of(m).layout);
    ck_assert_int_eq(info_of(again).parameters, info_of(m).parameters);

    /* what is touched is narrowed, what is not is the same bits */
    size_t count, touched, changed = 0;
    const wf_layer *x = wf_model_layers(m, &count), *y = wf_model_layers(again, &count);
    const patched *list = patches_of(plan, &touched);
    for (size_t i = 0, k = 0; i < count; i++) {
        size_t n = (size_t)x[i].out * (size_t)x[i].in * (size_t)(x[i].kernel * x[i].kernel);
        bool is = k < touched && list[k].layer == (int32_t)i;
        k += is;
        ck_assert_int_eq(x[i].dtype, y[i].dtype);
        bool same = memcmp(x[i].weight, y[i].weight, n * (size_t)wf_dtype_bits(x[i].dtype) / 8) == 0 &&
                    (x[i].bias == NULL || memcmp(x[i].bias, y[i].bias, (size_t)x[i].out * sizeof(float)) == 0);
        ck_assert_msg(is || same, "%s changed", x[i].name);
        changed += !same;
    }
    ck_assert_uint_gt(changed, 0);
    ck_assert_uint_le(changed, touched);
    weft_plan_free(plan);
    weft_plan_free(none);
    weft_model_free(m);
    weft_model_free(again);
}
END_TEST

/* Where the file is float32 nothing is rounded: what a run merges is the same bits. */
START_TEST(a_float32_model_is_merged_to_the_bit)
{
    weft_model *m = opened(folder_of("tiny-sd2"), NULL);
    weft_plan *plan = plan_of(m, data_path("adapters/sd2_kohya.safetensors"), 0.7f, WEFT_PATH_MERGED);
    must(weft_plan_save_model(plan, in_scratch("merged"), &golden_err));
    weft_model *again = opened(in_scratch("merged"), NULL);
    size_t touched, count;
    const patched *list = patches_of(plan, &touched);
    const wf_layer *x = wf_model_layers(m, &count), *y = wf_model_layers(again, &count);
    weft_allocator alloc = wf_allocator(NULL);
    for (size_t i = 0; i < touched; i++) {
        const wf_layer *l = &x[list[i].layer];
        size_t n = (size_t)l->out * (size_t)l->in * (size_t)(l->kernel * l->kernel);
        float *want = calloc(n + (size_t)l->out, sizeof *want), *found = calloc(n, sizeof *found);
        wf_layer_load(want, wf_model_networks(m)->kernels, l);
        must(wf_patch_add(list[i].patch, l, cells_of(plan, &list[i]), NULL, want, NULL, &alloc, &golden_err));
        wf_layer_load(found, wf_model_networks(m)->kernels, &y[list[i].layer]);
        ck_assert_mem_eq(want, found, n * sizeof *want);
        free(want);
        free(found);
    }
    weft_plan_free(plan);
    weft_model_free(m);
    weft_model_free(again);
}
END_TEST

/* Columns with coefficients of their own are merged too: ZipLoRA on a float32 model. */
START_TEST(columns_are_merged)
{
    weft_model *m = opened(folder_of("tiny-sd2"), NULL);
    weft_zip_options o = WEFT_ZIP_OPTIONS_INIT;
    weft_add_options content = WEFT_ADD_OPTIONS_INIT;
    weft_adapter *a;
    weft_plan *plan, *sum;
    o.flags = WEFT_ZIP_STYLE;
    o.style = 0.5;
    content.select = "unet.*";
    must(weft_adapter_open(data_path("adapters/sd2_kohya.safetensors"), NULL, &a, &golden_err));
    for (int merge = 0; merge < 2; merge++) {
        weft_plan **p = merge ? &sum : &plan;
        must(weft_plan_create(m, NULL, p, &golden_err));
        must(weft_plan_add(*p, a, 1, &content, &golden_err));
        must(weft_plan_add(*p, a, merge ? 0.5f : 1, NULL, &golden_err));
        if (!merge) must(weft_plan_zip(*p, &o, &golden_err));
        must(weft_plan_seal(*p, 3, &golden_err));
    }
    must(weft_plan_save_model(plan, in_scratch("merged"), &golden_err));
    weft_model *again = opened(in_scratch("merged"), NULL);
    double d = distance(plan, again), far = distance(sum, again);
    ck_assert_msg(d <= 2e-6, "%.2e", d);
    ck_assert_msg(far > 100 * d, "%.2e from the plan, %.2e from the plain sum", d, far);
    weft_plan_free(plan);
    weft_plan_free(sum);
    weft_adapter_free(a);
    weft_model_free(m);
    weft_model_free(again);
}
END_TEST

/* The folder and the single file of one model are merged alike: fused q, k, v, the transposed projection, and all. */
START_TEST(both_layouts_get_the_same_weights)
{
    weft_model_options o = described_by(folder_of("tiny-sdxl"));
    weft_model *a = opened(folder_of("tiny-sdxl"), NULL), *b = opened(data_path("layouts/tiny-sdxl.safetensors"), &o);
    const char *adapter = write_adapter();
    weft_plan *p = plan_of(a, adapter, 0.9f, WEFT_PATH_SIDE), *q = plan_of(b, adapter, 0.9f, WEFT_PATH_MERGED);
    must(weft_plan_save_model(p, in_scratch("folder"), &golden_err));
    must(weft_plan_save_model(q, in_scratch("file"), &golden_err));
    weft_model *c = opened(in_scratch("folder"), NULL), *d = opened(in_scratch("file"), &o);
    same_model(c, d);
    weft_plan_free(p), weft_plan_free(q);
    weft_model_free(a), weft_model_free(b), weft_model_free(c), weft_model_free(d);
}
END_TEST

/* A pickled checkpoint comes back as safetensors, its tensors out of their nest, EMA's shadows left behind. */
START_TEST(a_checkpoint_of_lightning_comes_back_plain)
{
    weft_model_options o = described_by(folder_of("tiny-inpaint"));
    weft_model *a = opened(folder_of("tiny-inpaint"), NULL), *b = opened(data_path("layouts/tiny-inpaint.ckpt"), &o);
    weft_plan *plan;
    weft_tensors *file;
    must(weft_plan_create(b, NULL, &plan, &golden_err));
    must(weft_plan_seal(plan, 1, &golden_err));
    must(weft_plan_save_model(plan, in_scratch("plain.ckpt"), &golden_err));
    weft_model *c = opened(in_scratch("plain.ckpt"), &o);
    same_model(a, c);
    must(weft_tensors_open(in_scratch("plain.ckpt"), NULL, &file, &golden_err));
    ck_assert_int_ge(weft_tensors_find(file, "model.diffusion_model.out.2.bias"), 0);
    ck_assert_int_ge(weft_tensors_find(file, "alphas_cumprod"), 0);
    ck_assert_int_lt(weft_tensors_find(file, "model_ema.decay"), 0);
    ck_assert_int_lt(weft_tensors_find(file, "optimizer_states.0.state.0.exp_avg"), 0);
    weft_tensors_free(file);
    weft_plan_free(plan);
    weft_model_free(a), weft_model_free(b), weft_model_free(c);
}
END_TEST

/* A folder keeps its configurations, tokenizers and scheduler, and nothing that is not the model's; shards become one
 * file; a VAE from elsewhere stays there. */
START_TEST(a_folder_comes_back_whole)
{
    static const char *const kept[] = { "model_index.json", "unet/config.json", "scheduler/scheduler_config.json",
                                        "tokenizer/merges.txt", "unet/diffusion_pytorch_model.safetensors",
                                        "text_encoder/model.safetensors", "vae/diffusion_pytorch_model.safetensors" };
    weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
    const char *from = in_scratch("from");
    shell("cp -R '%s' '%s'", folder_of("tiny-inpaint"), from);
    shell("cp -R '%s/.' '%s'", data_path("layouts/tiny-inpaint-shards"), from);
    shell("rm '%s' '%s'", in_scratch("from/unet/diffusion_pytorch_model.safetensors"),
          in_scratch("from/text_encoder/model.safetensors"));
    shell("touch '%s' '%s'", in_scratch("from/v1-5-pruned.ckpt"), in_scratch("from/.gitattributes"));
    o.vae = data_path("layouts/tiny-inpaint.vae.pt");
    weft_model *a = opened(folder_of("tiny-inpaint"), NULL), *b = opened(from, &o);
    weft_plan *plan;
    must(weft_plan_create(b, NULL, &plan, &golden_err));
    must(weft_plan_seal(plan, 1, &golden_err));
    must(weft_plan_save_model(plan, in_scratch("to"), &golden_err));
    for (size_t i = 0; i < WF_LEN(kept); i++) {
        char path[600];
        snprintf(path, sizeof path, "%s/%s", in_scratch("to"), kept[i]);
        ck_assert_msg(access(path, R_OK) == 0, "no %s", path);
    }
    ck_assert_int_ne(access(in_scratch("to/v1-5-pruned.ckpt"), F_OK), 0);
    ck_assert_int_ne(access(in_scratch("to/unet/diffusion_pytorch_model.safetensors.index.fp16.json"), F_OK), 0);
    weft_model *c = opened(in_scratch("to"), NULL);
    same_model(a, c);
    weft_plan_free(plan);
    weft_model_free(a), weft_model_free(b), weft_model_free(c);
}
END_TEST

/* ---- refusals -------------------------------------------------------------------------------- */

static void not_saved(const weft_plan *plan, const char *path, weft_status status, const char *word)
{
    weft_error err = { 0, 0, "" };
    struct stat before, after;
    bool was = path != NULL && stat(path, &before) == 0;
    weft_status st = weft_plan_save_model(plan, path, &err);
    ck_assert_msg(st == status, "%s, wanted %s: %s", weft_status_name(st), weft_status_name(status), err.text);
    check_one_line(&err);
    ck_assert_msg(strstr(err.text, word) != NULL, "\"%s\" is not in: %s", word, err.text);
    ck_assert(path == NULL || (stat(path, &after) == 0) == was); /* nothing half-made stays */
}

/* The key of the storage that the tensor of this name is in: a pickled string of two digits behind the name. */
static char *storage_key(char *bytes, size_t size, const char *name)
{
    char *at = bytes;
    while (memcmp(at, name, strlen(name)) != 0) ck_assert(++at < bytes + size - 100);
    for (at += strlen(name); memcmp(at, "X\2\0\0\0", 5) != 0 || at[5] < '0' || at[5] > '9'; at++)
        ck_assert(at < bytes + size - 8);
    return at + 5;
}

/* A checkpoint of torch's in which two matrices are one and the same; an adapter acts on one of them. */
START_TEST(tensors_that_share_their_memory)
{
    static float down[16], up[16];
    static char bytes[400000];
    FILE *f = fopen(data_path("layouts/tiny-inpaint.ckpt"), "rb");
    size_t size = f != NULL ? fread(bytes, 1, sizeof bytes, f) : 0;
    ck_assert(f != NULL && fclose(f) == 0 && size > 0 && size < sizeof bytes);
    memcpy(storage_key(bytes, size, "input_blocks.1.1.transformer_blocks.0.attn1.to_k.weight"),
           storage_key(bytes, size, "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"), 2);
    ck_assert((f = fopen(in_scratch("tied.ckpt"), "wb")) != NULL && fwrite(bytes, 1, size, f) == size && fclose(f) == 0);

    weft_model_options o = described_by(folder_of("tiny-inpaint"));
    weft_model *m = opened(in_scratch("tied.ckpt"), &o);
    weft_tensor_out t[] = {
        tensor("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight", down, 2, 1, 8, 1),
        tensor("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight", up, 2, 8, 1, 1),
    };
    must(weft_tensors_write(in_scratch("q.safetensors"), t, WF_LEN(t), NULL, 0, &golden_err));
    weft_plan *plan = plan_of(m, in_scratch("q.safetensors"), 1, WEFT_PATH_AUTO);
    not_saved(plan, in_scratch("out.ckpt"), WEFT_E_UNSUPPORTED, "attn1.to_q.weight of the file are the same memory");
    weft_plan_free(plan);
    weft_model_free(m);
}
END_TEST

static int32_t stop_at_9(void *user, const char *what, int64_t done, int64_t total)
{
    (void)user;
    return strcmp(what, "saving model") == 0 && done == 9 && total > 9;
}

START_TEST(what_cannot_be_saved)
{
    weft_model *m = opened(folder_of("tiny-sdxl"), NULL);
    const char *content = data_path("adapters/sdxl_kohya.safetensors"), *out = in_scratch("out");
    weft_plan_options po = WEFT_PLAN_OPTIONS_INIT;
    weft_adapter *a;
    weft_plan *plan;
    must(weft_adapter_open(content, NULL, &a, &golden_err));
    must(weft_plan_create(m, NULL, &plan, &golden_err));
    not_saved(plan, out, WEFT_E_STATE, "not sealed");
    not_saved(NULL, out, WEFT_E_ARG, "plan is NULL");
    not_saved(plan, NULL, WEFT_E_ARG, "path is NULL");
    must(weft_plan_add(plan, a, 1, NULL, &golden_err));
    must(weft_plan_add(plan, a, 1, NULL, &golden_err));
    must(weft_plan_switch(plan, NULL, &golden_err));
    must(weft_plan_seal(plan, 10, &golden_err));
    not_saved(plan, out, WEFT_E_UNSUPPORTED, "change at call 5");
    weft_plan_free(plan);
    must(weft_plan_create(m, NULL, &plan, &golden_err));
    must(weft_plan_add(plan, a, 1, NULL, &golden_err));
    must(weft_plan_add(plan, a, 1, NULL, &golden_err));
    must(weft_plan_composite(plan, NULL, &golden_err));
    must(weft_plan_seal(plan, 10, &golden_err));
    not_saved(plan, out, WEFT_E_UNSUPPORTED, "branches");
    weft_plan_free(plan);

    po.progress = stop_at_9;
    must(weft_plan_create(m, &po, &plan, &golden_err));
    must(weft_plan_add(plan, a, 1, NULL, &golden_err));
    must(weft_plan_seal(plan, 1, &golden_err));
    not_saved(plan, out, WEFT_E_CANCELLED, "cancelled");
    not_saved(plan, in_scratch("no/such/place"), WEFT_E_IO, "no/such/place");
    not_saved(plan, scratch, WEFT_E_IO, scratch); /* is there */
    weft_plan_free(plan);
    weft_adapter_free(a);
    weft_model_free(m);
}
END_TEST

/* Every allocation fails once: nothing stays, on disk or in memory. */
START_TEST(without_memory_nothing_is_left)
{
    weft_model_options mo = described_by(folder_of("tiny-sdxl"));
    test_memory memory;
    weft_allocator alloc = test_allocator(&memory);
    weft_model *m;
    weft_plan *plan;
    weft_adapter *a;
    weft_plan_options po = WEFT_PLAN_OPTIONS_INIT;
    weft_error err;
    const char *out = in_scratch("out");
    mo.allocator = po.allocator = &alloc;
    if (_i == 0) mo.config = NULL;
    must(weft_model_open(_i == 0 ? folder_of("tiny-sdxl") : data_path("layouts/tiny-sdxl.safetensors"), &mo, &m, &golden_err));
    must(weft_adapter_open(write_adapter(), NULL, &a, &golden_err));
    must(weft_plan_create(m, &po, &plan, &golden_err));
    must(weft_plan_add(plan, a, 1, NULL, &golden_err));
    must(weft_plan_seal(plan, 1, &golden_err));
    size_t blocks = memory.live_blocks, at = 1;
    for (;; at++) {
        memory.calls = 0;
        memory.fail_at = at;
        weft_status st = weft_plan_save_model(plan, out, &err);
        memory.fail_at = 0;
        ck_assert_uint_eq(memory.live_blocks, blocks);
        if (st == WEFT_OK) break;
        ck_assert_msg(st == WEFT_E_NOMEM, "allocation %zu: %s: %s", at, weft_status_name(st), err.text);
        ck_assert_int_ne(access(out, F_OK), 0);
    }
    ck_assert_uint_gt(at, 5);
    weft_plan_free(plan);
    weft_adapter_free(a);
    weft_model_free(m);
    ck_assert_uint_eq(memory.live_blocks, 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("plans saved as models");
    TCase *c = tcase_create("save");
    tcase_set_timeout(c, 300);
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_loop_test(c, a_saved_model_is_the_plan, 0, (int)WF_LEN(trips));
    tcase_add_test(c, a_float32_model_is_merged_to_the_bit);
    tcase_add_test(c, columns_are_merged);
    tcase_add_test(c, both_layouts_get_the_same_weights);
    tcase_add_test(c, a_checkpoint_of_lightning_comes_back_plain);
    tcase_add_test(c, a_folder_comes_back_whole);
    tcase_add_test(c, what_cannot_be_saved);
    tcase_add_test(c, weights_that_overflow_their_type_are_refused);
    tcase_add_test(c, tensors_that_share_their_memory);
    tcase_add_loop_test(c, without_memory_nothing_is_left, 0, 2);
    suite_add_tcase(s, c);
    return run_suite(s);
}
