/* Layouts: the same model as a diffusers folder, in one file, as a pickle, in shards, gives the same bits.
 *
 * The files under data/layouts were named by other means than weft's map and turned back by diffusers' own converters
 * (tests/reference/make_layouts.py); the folder under data/models is the truth for all of them. */
#include "model/layouts.h"

static void setup(void) { make_scratch(); }
static void teardown(void) { remove_scratch(); }

static const char *folder_of(const char *model) { return data_path("models/%s", model); }

/* ---- each layout against its folder ---------------------------------------------------------- */

static const struct { const char *file, *model; } singles[] = {
    { "layouts/tiny-sdxl.safetensors", "tiny-sdxl" },       /* CLIP and OpenCLIP: fused q, k, v; a transposed projection */
    { "layouts/tiny-refiner.safetensors", "tiny-refiner" }, /* the first embedder is the second encoder                 */
    { "layouts/tiny-inpaint.ckpt", "tiny-inpaint" },        /* a pickle, nested, with EMA and noise schedules beside     */
};

START_TEST(a_single_file_is_its_folder)
{
    weft_model_options o = described_by(folder_of(singles[_i].model));
    weft_model *a = opened(folder_of(singles[_i].model), NULL), *b = opened(data_path("%s", singles[_i].file), &o);
    same_model(a, b);
    wf_sha256_text one, other; /* plans know the model by this */
    wf_model_fingerprint(a, &one);
    wf_model_fingerprint(b, &other);
    ck_assert_str_eq(one.text, other.text);
    ck_assert_str_eq(info_of(a).layout, "diffusers");
    ck_assert_str_eq(info_of(b).layout, "single file");
    weft_model_free(b);
    o.flags = WEFT_OPEN_COPY;
    b = opened(data_path("%s", singles[_i].file), &o);
    same_layers(a, b);
    weft_model_free(a);
    weft_model_free(b);
}
END_TEST

/* The folder with some of its weight files in another form laid over. */
static void laid_over(const char *overlay, const char *variant)
{
    weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
    weft_model *a = opened(folder_of("tiny-inpaint"), NULL);
    o.variant = variant;
    shell("cp -R '%s/.' '%s'", folder_of("tiny-inpaint"), scratch);
    shell("cp -R '%s/.' '%s'", data_path("layouts/%s", overlay), scratch);
    if (strstr(overlay, "shards") != NULL) unlink(in_scratch("unet/diffusion_pytorch_model.safetensors"));
    else unlink(in_scratch("vae/diffusion_pytorch_model.safetensors"));
    unlink(in_scratch("text_encoder/model.safetensors"));
    weft_model *b = opened(scratch, &o);
    same_model(a, b);
    weft_model_free(a);
    weft_model_free(b);
}

START_TEST(shards_are_one_file) { laid_over("tiny-inpaint-shards", NULL); }
END_TEST

START_TEST(pickled_weights_are_read_where_there_are_no_others) { laid_over("tiny-inpaint-pickled", NULL); }
END_TEST

START_TEST(an_index_that_lies_is_refused)
{
    static const struct { const char *from, *to, *word; } lies[] = {
        { "diffusion_pytorch_model.fp16-00001-of-00002.safetensors", "diffusion_pytorch_model.fp16-00002-of-00002.safetensors",
          "is not in" },
        { "\"diffusion_pytorch_model.fp16-00001", "\"../unet/diffusion_pytorch_model.fp16-00001", "not the name of a file" },
        { "\"diffusion_pytorch_model.fp16-00001", "\"/etc/diffusion_pytorch_model.fp16-00001", "not the name of a file" },
        { "\"weight_map\"", "\"other_map\"", "weight_map" },
    };
    static const char index[] = "unet/diffusion_pytorch_model.safetensors.index.fp16.json";
    for (size_t i = 0; i < WF_LEN(lies); i++) {
        char script[512];
        shell("cp -R '%s/.' '%s'", folder_of("tiny-inpaint"), scratch);
        shell("cp -R '%s/.' '%s'", data_path("layouts/tiny-inpaint-shards"), scratch);
        unlink(in_scratch("unet/diffusion_pytorch_model.safetensors"));
        snprintf(script, sizeof script, "s#%s#%s#g", lies[i].from, lies[i].to);
        shell("sed -i '%s' '%s'", script, in_scratch(index));
        refused(scratch, NULL, WEFT_E_FORMAT, index, lies[i].word);
        shell("rm -rf '%s'/*%s", scratch, "");
    }
    shell("cp -R '%s/.' '%s'", folder_of("tiny-inpaint"), scratch);
    shell("cp -R '%s/.' '%s'", data_path("layouts/tiny-inpaint-shards"), scratch);
    unlink(in_scratch("unet/diffusion_pytorch_model.safetensors"));
    unlink(in_scratch("unet/diffusion_pytorch_model.fp16-00002-of-00002.safetensors"));
    refused(scratch, NULL, WEFT_E_IO, "00002-of-00002", "No such file");
}
END_TEST

/* ---- spellings of single files that are found in the wild ------------------------------------ */

static const char *cut(const char *name, const char *word, const char *with, char *buf, size_t cap)
{
    const char *at = strstr(name, word);
    if (at == NULL) return name;
    snprintf(buf, cap, "%.*s%s%s", (int)(at - name), name, with, at + strlen(word));
    return buf;
}

static const char *without_nest(const char *name, char *buf, size_t cap)
{
    return strncmp(name, "state_dict.", 11) == 0 ? cut(name, "state_dict.", "", buf, cap) : NULL;
}

static const char *kept(const char *name, char *buf, size_t cap)
{
    if (name != buf) snprintf(buf, cap, "%s", name);
    return buf;
}

static const char *without_text_model(const char *name, char *buf, size_t cap)
{
    char once[256];
    name = without_nest(name, once, sizeof once);
    return name == NULL ? NULL : kept(cut(name, "text_model.", "", buf, cap), buf, cap);
}

static const char *unet_alone(const char *name, char *buf, size_t cap)
{
    return strstr(name, "model.diffusion_model.") == NULL ? NULL
           : cut(name, "state_dict.model.diffusion_model.", "", buf, cap);
}

static const char *unet_with_short_prefix(const char *name, char *buf, size_t cap)
{
    return strstr(name, "model.diffusion_model.") == NULL ? NULL
           : cut(name, "state_dict.model.diffusion_model.", "diffusion_model.", buf, cap);
}

/* The upsampler behind a block without attention is slot 1; some merges have it at slot 2. */
static const char *upsampler_at_2(const char *name, char *buf, size_t cap)
{
    char once[256];
    name = without_nest(name, once, sizeof once);
    return name == NULL ? NULL : kept(cut(name, "output_blocks.1.1.conv", "output_blocks.1.2.conv", buf, cap), buf, cap);
}

START_TEST(text_model_may_be_missing)
{
    weft_model_options o = described_by(folder_of("tiny-inpaint"));
    weft_model *a = opened(folder_of("tiny-inpaint"), NULL);
    rewrite(data_path("layouts/tiny-inpaint.ckpt"), in_scratch("x.safetensors"), without_text_model, NULL);
    weft_model *b = opened(in_scratch("x.safetensors"), &o);
    same_model(a, b);
    weft_model_free(a);
    weft_model_free(b);
}
END_TEST

START_TEST(an_upsampler_may_be_in_either_slot)
{
    weft_model_options o = described_by(folder_of("tiny-inpaint"));
    weft_model *a = opened(folder_of("tiny-inpaint"), NULL);
    rewrite(data_path("layouts/tiny-inpaint.ckpt"), in_scratch("x.safetensors"), upsampler_at_2, NULL);
    weft_model *b = opened(in_scratch("x.safetensors"), &o);
    same_model(a, b);
    weft_model_free(a);
    weft_model_free(b);
}
END_TEST

START_TEST(a_unet_alone_opens)
{
    static const naming names[] = { unet_alone, unet_with_short_prefix };
    weft_model_options o = described_by(folder_of("tiny-inpaint"));
    weft_model *a = opened(folder_of("tiny-inpaint"), NULL);
    rewrite(data_path("layouts/tiny-inpaint.ckpt"), in_scratch("x.safetensors"), names[_i], NULL);
    weft_model *b = opened(in_scratch("x.safetensors"), &o);
    weft_model_info info = info_of(b);
    ck_assert(info.text_encoders == 0 && info.has_vae == 0 && info.has_tokenizer == 0 && info.input_channels == 9);
    size_t n, count;
    const wf_layer *x = wf_model_layers(a, &count), *y = wf_model_layers(b, &n);
    ck_assert_uint_gt(n, 100);
    for (size_t i = 0; i < n; i++) {
        ck_assert_str_eq(x[i].name, y[i].name);
        if (x[i].kind == WEFT_LAYER_NORM) continue; /* the model keeps those widened */
        ck_assert_mem_eq(x[i].weight, y[i].weight, (size_t)(x[i].out * x[i].in * x[i].kernel * x[i].kernel) * 2);
    }
    ck_assert(n == count || x[n].component != WEFT_COMPONENT_DENOISER);
    weft_model_free(a);
    weft_model_free(b);
}
END_TEST

/* ---- refusals -------------------------------------------------------------------------------- */

static const char *one_renamed(const char *name, char *buf, size_t cap)
{
    name = without_nest(name, buf, cap);
    return name == NULL ? NULL : strstr(name, "middle_block.0.in_layers.2.bias") ? "model.diffusion_model.middle_block.9.x" : name;
}

static const char *one_missing(const char *name, char *buf, size_t cap)
{
    name = without_nest(name, buf, cap);
    return name == NULL || strstr(name, "resblocks") || strstr(name, "decoder.conv_in.bias") ? NULL : name;
}

static const char *one_more(const char *name, char *buf, size_t cap)
{
    return strcmp(name, "optimizer_states.0.state.0.exp_avg") == 0 ? "control_model.zero_convs.0.0.weight"
                                                                    : without_nest(name, buf, cap);
}

static const char *vae_alone(const char *name, char *buf, size_t cap)
{
    name = without_nest(name, buf, cap);
    return name != NULL && strncmp(name, "first_stage_model.", 18) == 0 ? name : NULL;
}

static const char *as_flux(const char *name, char *buf, size_t cap)
{
    (void)buf, (void)cap;
    return strstr(name, "conv_in.bias") && strstr(name, "decoder") ? "double_blocks.0.img_attn.norm.key_norm.scale" : NULL;
}

/* ComfyUI's own CLIP has two parameters of which nothing depends, and wrote them into its checkpoints. */
static const char *as_comfyui(const char *name, char *buf, size_t cap)
{
    static const char *const more[][2] = {
        { "state_dict.betas", "cond_stage_model.logit_scale" },
        { "state_dict.alphas_cumprod", "cond_stage_model.text_projection" },
        { "state_dict.alphas_cumprod_prev", "conditioner.embedders.0.logit_scale" },
        { "state_dict.sqrt_alphas_cumprod", "conditioner.embedders.0.text_projection" },
        { "state_dict.logvar", "conditioner.embedders.1.logit_scale" },
        { "state_dict.posterior_variance", "global_step" },
    };
    for (size_t i = 0; i < WF_LEN(more); i++)
        if (strcmp(name, more[i][0]) == 0) return more[i][1];
    return without_nest(name, buf, cap);
}

START_TEST(what_comfyui_adds_is_left_aside)
{
    weft_model_options o = described_by(folder_of("tiny-inpaint"));
    rewrite(data_path("layouts/tiny-inpaint.ckpt"), in_scratch("x.safetensors"), as_comfyui, NULL);
    weft_model *a = opened(folder_of("tiny-inpaint"), NULL), *b = opened(in_scratch("x.safetensors"), &o);
    same_layers(a, b);
    weft_model_free(a);
    weft_model_free(b);
}
END_TEST

START_TEST(what_does_not_belong_is_refused_by_name)
{
    static const struct { naming name; weft_status status; const char *word, *word2; } all[] = {
        { one_renamed, WEFT_E_FORMAT, "model.diffusion_model.middle_block.9.x", "unknown" },
        { one_missing, WEFT_E_FORMAT, "(vae)", "decoder.conv_in.bias is missing" },
        { one_more, WEFT_E_UNSUPPORTED, "control_model.zero_convs.0.0.weight", "of a ControlNet" },
        { vae_alone, WEFT_E_UNSUPPORTED, "of a VAE", "weft_model_options.vae" },
        { as_flux, WEFT_E_UNSUPPORTED, "FLUX", NULL },
    };
    weft_model_options o = described_by(folder_of("tiny-inpaint"));
    for (size_t i = 0; i < WF_LEN(all); i++) {
        rewrite(data_path("layouts/tiny-inpaint.ckpt"), in_scratch("x.safetensors"), all[i].name, NULL);
        refused(in_scratch("x.safetensors"), &o, all[i].status, all[i].word, all[i].word2);
    }
}
END_TEST

/* A tiny model is none of the published ones, and says what would help; a folder that describes another is held
 * against the shapes. */
START_TEST(without_a_description_it_must_be_a_published_model)
{
    weft_model_options o = described_by(folder_of("tiny-lcm"));
    refused(data_path("layouts/tiny-inpaint.ckpt"), NULL, WEFT_E_UNSUPPORTED, "weft_model_options.config", NULL);
    refused(data_path("layouts/tiny-inpaint.ckpt"), &o, WEFT_E_FORMAT, "tiny-inpaint.ckpt (unet)", NULL);
    o.config = data_path("layouts");
    refused(data_path("layouts/tiny-inpaint.ckpt"), &o, WEFT_E_FORMAT, "not a model's folder", NULL);
    o.config = data_path("models/tiny-refiner");
    refused(data_path("layouts/tiny-sdxl.safetensors"), &o, WEFT_E_IO, "text_encoder/config.json", NULL);
}
END_TEST

/* ---- what it predicts ------------------------------------------------------------------------ */

static const char *marked_v(const char *name, char *buf, size_t cap)
{
    return strcmp(name, "state_dict.betas") == 0 ? "v_pred" : strcmp(name, "state_dict.logvar") == 0 ? "ztsnr"
                                                                                                   : without_nest(name, buf, cap);
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    ck_assert(f != NULL && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void predicts(const weft_model_options *o, int32_t prediction, bool zero_snr)
{
    weft_sampler_options s = WEFT_SAMPLER_OPTIONS_INIT;
    weft_model *m = opened(in_scratch("x.safetensors"), o);
    must(weft_sampler_options_from_model(m, &s, &golden_err));
    ck_assert_int_eq(info_of(m).prediction, prediction);
    ck_assert_int_eq(s.prediction, prediction);
    ck_assert_int_eq((s.flags & WEFT_SAMPLER_ZERO_SNR) != 0, zero_snr);
    weft_model_free(m);
}

/* A .yaml beside the file stands above scheduler_config.json, that above marks in the file; the caller above all. */
START_TEST(what_says_what_a_file_predicts)
{
    weft_model_options o;
    shell("mkdir '%s'%s", in_scratch("d"), "");
    shell("cp -R '%s/.' '%s'", folder_of("tiny-inpaint"), in_scratch("d"));
    char described[512];
    snprintf(described, sizeof described, "%s", in_scratch("d"));
    o = described_by(described);
    rewrite(data_path("layouts/tiny-inpaint.ckpt"), in_scratch("x.safetensors"), marked_v, NULL);

    predicts(&o, WEFT_PREDICT_EPSILON, false); /* scheduler_config.json says epsilon */
    unlink(in_scratch("d/scheduler/scheduler_config.json"));
    predicts(&o, WEFT_PREDICT_V, true);        /* the marks */
    write_text(in_scratch("x.yaml"), "model:\n  params:\n    # parameterization: \"v\"\n    parameterization: \"eps\"\n");
    predicts(&o, WEFT_PREDICT_EPSILON, true);
    write_text(in_scratch("x.yaml"), "model:\n  params:\n    parameterization: 'v' # as trained\n");
    shell("cp -R '%s/.' '%s'", folder_of("tiny-inpaint"), described);
    predicts(&o, WEFT_PREDICT_V, false);
    o.flags = WEFT_OPEN_EPSILON;
    predicts(&o, WEFT_PREDICT_EPSILON, false);
}
END_TEST

/* ---- DreamBooth ------------------------------------------------------------------------------ */

/* Fine-tuning moves every weight a little: here by its last bit. */
static void nudge(const wf_tensor *t, uint8_t *data)
{
    size_t size = (size_t)wf_dtype_bits(t->dtype) / 8;
    if (t->dtype != WF_F16 && t->dtype != WF_BF16 && t->dtype != WF_F32) return;
    for (size_t i = 0; i < t->bytes; i += size) data[i] ^= 1; /* little-endian: the last of the mantissa */
}

/* The same inside a pickled file, where the tensors lie in it: its reader does not ask for the archive's sums. */
static void nudge_pickle(const char *from, const char *to)
{
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    static uint8_t all[1 << 20];
    size_t n = in != NULL ? fread(all, 1, sizeof all, in) : 0;
    weft_allocator alloc = wf_allocator(NULL);
    weft_tensors *file;
    ck_assert(out != NULL && n > 0 && n < sizeof all);
    must(wf_torch_parse(all, n, from, &alloc, &file, &golden_err));
    for (size_t i = 0; i < wf_tensors_count(file); i++) {
        const wf_tensor *t = wf_tensors_at(file, i);
        if (t->data < all || t->data >= all + n) ck_assert_msg(t->bytes <= 8, "%s was copied", t->name);
        else nudge(t, all + (t->data - all));
    }
    weft_tensors_free(file);
    ck_assert(fwrite(all, 1, n, out) == n && fclose(out) == 0);
    fclose(in);
}

static void nudge_file(const char *model, const char *file)
{
    rewrite(data_path("models/%s/%s", model, file), in_scratch(file), NULL, nudge);
}

/* A DreamBooth checkpoint is an ordinary checkpoint: a fine-tuned model opens in each layout, as what it is. The folder
 * is the truth for the rest. */
static void check_tuned(weft_model *folder, const char *path, const weft_model_options *o)
{
    weft_model *m = opened(path, o);
    same_model(folder, m);
    weft_model_free(m);
}

START_TEST(a_dreambooth_checkpoint_of_sdxl)
{
    static const char *const files[] = { "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors",
                                         "text_encoder_2/model.safetensors", "vae/diffusion_pytorch_model.safetensors" };
    shell("cp -R '%s/.' '%s'", folder_of("tiny-sdxl"), scratch);
    for (size_t i = 0; i < WF_LEN(files); i++) nudge_file("tiny-sdxl", files[i]);
    rewrite(data_path("layouts/tiny-sdxl.safetensors"), in_scratch("tuned.safetensors"), NULL, nudge);
    weft_model_options o = described_by(scratch);
    weft_model *base = opened(folder_of("tiny-sdxl"), NULL), *folder = opened(scratch, NULL);
    check_tuned(folder, in_scratch("tuned.safetensors"), &o);
    size_t n, count;
    float *x = predict(base, &n), *y = predict(folder, &count);
    ck_assert_mem_ne(x, y, n * sizeof *x);
    free(x);
    free(y);
    weft_model_free(base);
    weft_model_free(folder);
}
END_TEST

START_TEST(a_dreambooth_checkpoint_in_each_layout)
{
    static const char *const files[] = { "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors",
                                         "vae/diffusion_pytorch_model.safetensors" };
    static const char *const shards[] = {
        "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors", "text_encoder/model.fp16-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model.fp16-00002-of-00002.safetensors", "text_encoder/model.fp16-00002-of-00002.safetensors",
    };
    shell("cp -R '%s/.' '%s'", folder_of("tiny-inpaint"), scratch);
    for (size_t i = 0; i < WF_LEN(files); i++) nudge_file("tiny-inpaint", files[i]);
    weft_model_options o = described_by(scratch);
    weft_model *folder = opened(scratch, NULL);
    nudge_pickle(data_path("layouts/tiny-inpaint.ckpt"), in_scratch("tuned.ckpt"));
    check_tuned(folder, in_scratch("tuned.ckpt"), &o);

    unlink(in_scratch(files[1])); /* the text encoder and the VAE pickled */
    unlink(in_scratch(files[2]));
    nudge_pickle(data_path("layouts/tiny-inpaint-pickled/text_encoder/pytorch_model.bin"),
                 in_scratch("text_encoder/pytorch_model.bin"));
    nudge_pickle(data_path("layouts/tiny-inpaint-pickled/vae/diffusion_pytorch_model.bin"),
                 in_scratch("vae/diffusion_pytorch_model.bin"));
    check_tuned(folder, scratch, NULL);

    unlink(in_scratch(files[0])); /* the UNet and the text encoder in shards */
    unlink(in_scratch("text_encoder/pytorch_model.bin"));
    shell("cp -R '%s/.' '%s'", data_path("layouts/tiny-inpaint-shards"), scratch);
    for (size_t i = 0; i < WF_LEN(shards); i++)
        rewrite(data_path("layouts/tiny-inpaint-shards/%s", shards[i]), in_scratch(shards[i]), NULL, nudge);
    check_tuned(folder, scratch, NULL);
    weft_model_free(folder);
}
END_TEST

/* ---- a VAE from elsewhere -------------------------------------------------------------------- */

/* The model's own VAE is spoilt, and another given in its place. */
START_TEST(a_vae_from_elsewhere)
{
    static const struct { const char *model, *vae; } all[] = {
        { "tiny-inpaint", "layouts/tiny-inpaint.vae.pt" },           /* LDM's names, nested in a pickle   */
        { "tiny-sdxl", "layouts/tiny-sdxl.vae.safetensors" },        /* behind first_stage_model.         */
        { "tiny-sdxl", "models/tiny-sdxl/vae" },                     /* a folder                          */
        { "tiny-sdxl", "models/tiny-sdxl" },                         /* a model's folder                  */
        { "tiny-sd2", "models/tiny-sd2/vae/diffusion_pytorch_model.safetensors" }, /* diffusers' old names */
        { "tiny-inpaint", "layouts/tiny-inpaint-pickled/vae/diffusion_pytorch_model.bin" },
    };
    weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
    weft_model *a = opened(folder_of(all[_i].model), NULL);
    shell("cp -R '%s/.' '%s'", folder_of(all[_i].model), scratch);
    rewrite(in_scratch("vae/diffusion_pytorch_model.safetensors"), in_scratch("vae/x.safetensors"), NULL, nudge);
    shell("mv '%s' '%s'", in_scratch("vae/x.safetensors"), in_scratch("vae/diffusion_pytorch_model.safetensors"));
    o.vae = data_path("%s", all[_i].vae);
    weft_model *b = opened(scratch, &o);
    same_model(a, b);
    weft_model_free(b);
    unlink(in_scratch("vae/diffusion_pytorch_model.safetensors")); /* or has none at all */
    weft_model_free(opened(scratch, &o));
    weft_model_free(a);
}
END_TEST

START_TEST(a_vae_that_is_none_is_refused)
{
    weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
    o.vae = data_path("models/tiny-sd1/unet/diffusion_pytorch_model.safetensors");
    refused(folder_of("tiny-sd1"), &o, WEFT_E_FORMAT, o.vae, "not a VAE");
    o.vae = in_scratch("nowhere");
    refused(folder_of("tiny-sd1"), &o, WEFT_E_IO, "nowhere", NULL);
    o.vae = data_path("models/tiny-sd1/unet");
    refused(folder_of("tiny-sd1"), &o, WEFT_E_UNSUPPORTED, "AutoencoderKL", NULL);
    o.vae = data_path("layouts/tiny-inpaint.vae.pt"); /* another shape than the model's own */
    refused(folder_of("tiny-sd1"), &o, WEFT_E_FORMAT, "tiny-inpaint.vae.pt", NULL);
    o.vae = scratch;
    refused(folder_of("tiny-sd1"), &o, WEFT_E_IO, "config.json", NULL);
}
END_TEST

/* ---- vocabularies ---------------------------------------------------------------------------- */

static size_t ids_of(const weft_model *m, int32_t encoder, const char *text, int32_t *ids, size_t cap)
{
    size_t n;
    must(weft_model_tokenize(m, encoder == 0 ? WEFT_COMPONENT_TEXT_1 : WEFT_COMPONENT_TEXT_2, text, ids, cap, &n, &golden_err));
    return n;
}

/* One merges.txt serves both encoders of a single file; the second pads with id 0, as its own tokenizer does, and so
 * its conditioning is the folder's. */
START_TEST(one_list_of_merges_serves_both_encoders)
{
    weft_model_options o = described_by(scratch);
    shell("cp -R '%s/.' '%s'", folder_of("tiny-sdxl"), scratch);
    shell("rm -r '%s' '%s'", in_scratch("tokenizer"), in_scratch("tokenizer_2"));
    weft_model *a = opened(folder_of("tiny-sdxl"), NULL), *b = opened(data_path("layouts/tiny-sdxl.safetensors"), &o);
    weft_error err;
    int32_t tokens, chunks, x[64], y[64];
    ck_assert_int_eq(weft_model_prompt_size(b, "x", &tokens, &chunks, &err), WEFT_E_STATE);
    static const char *const words[] = { "weft_model_options.tokenizer:", "merges.txt", "bpe_simple_vocab_16e6.txt.gz" };
    for (size_t i = 0; i < WF_LEN(words); i++) ck_assert_msg(strstr(err.text, words[i]) != NULL, "%s", err.text);
    weft_model_free(b);

    o.tokenizer = data_path("models/tiny-sdxl/tokenizer/merges.txt");
    b = opened(data_path("layouts/tiny-sdxl.safetensors"), &o);
    for (int32_t e = 0; e < 2; e++) {
        size_t n = ids_of(a, e, "A photo of the cat's hat, 3 dogs!", x, 64);
        ck_assert_uint_eq(ids_of(b, e, "A photo of the cat's hat, 3 dogs!", y, 64), n);
        ck_assert_mem_eq(x, y, n * sizeof *x);
        ck_assert_int_eq(wf_tokenizer_pad(wf_model_networks(a)->encoder[e].tokenizer), wf_tokenizer_pad(wf_model_networks(b)->encoder[e].tokenizer));
    }
    ck_assert_int_eq(wf_tokenizer_pad(wf_model_networks(b)->encoder[1].tokenizer), 0);
    same_model(a, b);
    weft_model_free(b);

    o.tokenizer = data_path("models/tiny-sdxl/tokenizer"); /* likewise from the first one's folder */
    b = opened(data_path("layouts/tiny-sdxl.safetensors"), &o);
    same_model(a, b);
    weft_model_free(b);
    weft_model_free(a);
    shell("head -n 101 '%s' > '%s'", data_path("models/tiny-sdxl/tokenizer/merges.txt"), in_scratch("cut.txt"));
    o.tokenizer = in_scratch("cut.txt"); /* nothing but the encoder's rows tells */
    refused(data_path("layouts/tiny-sdxl.safetensors"), &o, WEFT_E_MISMATCH,
            "cut.txt: these merges make 614 tokens, the text encoder has 714 rows", "cut short");
    o.tokenizer = data_path("models/tiny-sdxl/model_index.json");
    refused(data_path("layouts/tiny-sdxl.safetensors"), &o, WEFT_E_FORMAT, "model_index.json", NULL);
}
END_TEST

/* ---- memory ---------------------------------------------------------------------------------- */

/* Allocations fail one after the other: the first hundred, then some. Nothing stays alive. */
START_TEST(without_memory_nothing_is_left)
{
    weft_model_options o = described_by(folder_of("tiny-inpaint"));
    test_memory memory;
    weft_allocator alloc = test_allocator(&memory);
    weft_model *m;
    weft_error err;
    const char *path = data_path("layouts/tiny-inpaint.ckpt");
    size_t failed = 0;
    o.allocator = &alloc;
    o.vae = data_path("layouts/tiny-inpaint.vae.pt");
    o.tokenizer = data_path("models/tiny-inpaint/tokenizer/merges.txt");
    for (size_t at = 1;; at += at < 100 ? 1 : 17) {
        memory.calls = 0;
        memory.fail_at = at;
        weft_status st = weft_model_open(path, &o, &m, &err);
        if (st == WEFT_OK) break;
        failed++;
        ck_assert_msg(st == WEFT_E_NOMEM, "allocation %zu: %s: %s", at, weft_status_name(st), err.text);
        ck_assert_uint_eq(memory.live_blocks, 0);
    }
    memory.fail_at = 0;
    weft_model_free(m);
    ck_assert_uint_eq(memory.live_blocks, 0);
    ck_assert_uint_gt(failed, 100);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("layouts of models");
    TCase *c = tcase_create("layouts");
    tcase_set_timeout(c, 120);
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_loop_test(c, a_single_file_is_its_folder, 0, (int)WF_LEN(singles));
    tcase_add_test(c, shards_are_one_file);
    tcase_add_test(c, pickled_weights_are_read_where_there_are_no_others);
    tcase_add_test(c, an_index_that_lies_is_refused);
    tcase_add_test(c, text_model_may_be_missing);
    tcase_add_test(c, an_upsampler_may_be_in_either_slot);
    tcase_add_loop_test(c, a_unet_alone_opens, 0, 2);
    tcase_add_test(c, what_comfyui_adds_is_left_aside);
    tcase_add_test(c, what_does_not_belong_is_refused_by_name);
    tcase_add_test(c, without_a_description_it_must_be_a_published_model);
    tcase_add_test(c, what_says_what_a_file_predicts);
    tcase_add_test(c, a_dreambooth_checkpoint_of_sdxl);
    tcase_add_test(c, a_dreambooth_checkpoint_in_each_layout);
    tcase_add_loop_test(c, a_vae_from_elsewhere, 0, 6);
    tcase_add_test(c, a_vae_that_is_none_is_refused);
    tcase_add_test(c, one_list_of_merges_serves_both_encoders);
    tcase_add_test(c, without_memory_nothing_is_left);
    suite_add_tcase(s, c);
    return run_suite(s);
}
