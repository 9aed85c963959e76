/* Opening models: what they say of themselves, and how each wrong input is refused.
 *
 * A case takes a tiny model's folder, changes one thing in a copy, and tells the status and the words that the one
 * line must hold. After each refusal `out` is NULL, no memory of ours is alive, no file is open or mapped. */
#include <dirent.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/support.h"
#include "golden.h"
#include "plain.h"
#include "io/io.h"

/* ---- a copy of a model that may be spoilt ---------------------------------------------------- */

static char copy[256];

static void shell(const char *format, const char *a, const char *b)
{
    char line[2048];
    snprintf(line, sizeof line, format, a, b);
    ck_assert_msg(system(line) == 0, "%s", line);
}

static const char *in_copy(const char *file)
{
    static char path[4][512];
    static int next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", copy, file);
    return p;
}

static void make_copy(const char *model)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(copy, sizeof copy, "%s/weft-open-XXXXXX", tmp != NULL ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(copy));
    shell("cp -R '%s/.' '%s'", data_path("models/%s", model), copy);
}

static void remove_copy(void) { shell("rm -rf '%s'%s", copy, ""); }

typedef struct bytes { uint8_t *v; size_t n; } bytes;

static bytes slurp(const char *path)
{
    FILE *f = fopen(path, "rb");
    struct stat info;
    ck_assert_msg(f != NULL && fstat(fileno(f), &info) == 0, "%s", path);
    bytes b = { malloc((size_t)info.st_size + 1), (size_t)info.st_size };
    ck_assert_uint_eq(fread(b.v, 1, b.n, f), b.n);
    fclose(f);
    b.v[b.n] = 0;
    return b;
}

static void spill(const char *path, const void *v, size_t n)
{
    FILE *f = fopen(path, "wb");
    ck_assert(f != NULL && fwrite(v, 1, n, f) == n && fclose(f) == 0);
}

/* ---- changes --------------------------------------------------------------------------------- */

typedef void (*change)(const char *file, const char *a, const char *b);

static void keep(const char *file, const char *a, const char *b) { (void)file, (void)a, (void)b; }
static void write_text(const char *file, const char *a, const char *b) { (void)b, spill(in_copy(file), a, strlen(a)); }

static void drop(const char *file, const char *a, const char *b)
{
    (void)a, (void)b;
    shell("rm -r '%s'%s", in_copy(file), "");
}

static void move(const char *file, const char *a, const char *b)
{
    (void)b;
    shell("mv '%s' '%s'", in_copy(file), in_copy(a));
}

/* Key a of a JSON file becomes the JSON value b. */
static void set(const char *file, const char *a, const char *b)
{
    json_t *j = json_load_file(in_copy(file), 0, NULL), *v = json_loads(b, JSON_DECODE_ANY, NULL);
    ck_assert(j != NULL && v != NULL && json_object_set_new(j, a, v) == 0 && json_dump_file(j, in_copy(file), 0) == 0);
    json_decref(j);
}

/* A safetensors file with its header changed by f, and `more` bytes of zeros behind its data. */
typedef void (*edit)(json_t *header, size_t data, const char *a, const char *b);

static void edit_header(const char *file, edit f, const char *a, const char *b, size_t more)
{
    bytes old = slurp(in_copy(file));
    uint64_t n;
    memcpy(&n, old.v, 8);
    size_t data = old.n - 8 - (size_t)n;
    json_t *header = json_loadb((char *)old.v + 8, (size_t)n, 0, NULL);
    ck_assert_ptr_nonnull(header);
    f(header, data, a, b);
    char *text = json_dumps(header, JSON_COMPACT);
    uint64_t size = strlen(text);
    bytes now = { calloc(8 + size + data + more, 1), 8 + size + data + more };
    memcpy(now.v, &size, 8);
    memcpy(now.v + 8, text, size);
    memcpy(now.v + 8 + size, old.v + 8 + n, data);
    spill(in_copy(file), now.v, now.n);
    json_decref(header);
    free(text), free(old.v), free(now.v);
}

static json_t *entry_of(json_t *header, const char *name)
{
    json_t *e = json_object_get(header, name);
    ck_assert_msg(e != NULL, "no tensor %s", name);
    return e;
}

static void do_rename(json_t *h, size_t data, const char *a, const char *b)
{
    (void)data;
    ck_assert(json_object_set(h, b, entry_of(h, a)) == 0 && json_object_del(h, a) == 0);
}

static void do_dtype(json_t *h, size_t data, const char *a, const char *b)
{
    (void)data;
    json_object_set_new(entry_of(h, a), "dtype", json_string(b));
}

static void do_shape(json_t *h, size_t data, const char *a, const char *b)
{
    (void)data;
    json_object_set_new(entry_of(h, a), "shape", json_loads(b, 0, NULL));
}

/* 77 integers behind the rest, as old text encoders keep their positions. */
static void do_add(json_t *h, size_t data, const char *a, const char *b)
{
    (void)b;
    json_object_set_new(h, a, json_pack("{s:s, s:[i,i], s:[I,I]}", "dtype", "I64", "shape", 1, 77, "data_offsets",
                                        (json_int_t)data, (json_int_t)(data + 616)));
}

static const char *weights_of(const char *folder)
{
    static char path[128];
    bool text = strncmp(folder, "text", 4) == 0;
    snprintf(path, sizeof path, "%s/%s.safetensors", folder, text ? "model" : "diffusion_pytorch_model");
    return path;
}

static void rename_tensor(const char *file, const char *a, const char *b)
{
    edit_header(weights_of(file), do_rename, a, b, 0);
}

static void retype(const char *file, const char *a, const char *b) { edit_header(weights_of(file), do_dtype, a, b, 0); }

static void reshape(const char *file, const char *a, const char *b)
{
    edit_header(weights_of(file), do_shape, a, b, 0);
}

static void add_tensor(const char *file, const char *a, const char *b)
{
    edit_header(weights_of(file), do_add, a, b, 616);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static size_t open_files(void)
{
    size_t n = 0;
    DIR *d = opendir("/proc/self/fd");
    if (d == NULL) return 0;
    while (readdir(d) != NULL) n++;
    closedir(d);
    return n;
}

static bool is_mapped(const char *folder)
{
    char line[1024];
    bool found = false;
    FILE *f = fopen("/proc/self/maps", "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) found = found || strstr(line, folder) != NULL;
    if (f != NULL) fclose(f);
    return found;
}

/* Open and expect a refusal: everything that a caller may rely on then. */
static void refused(const char *path, const weft_model_options *given, weft_status status, const char *word,
                    const char *word2)
{
    weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
    test_memory memory;
    weft_allocator alloc = test_allocator(&memory);
    weft_model *m = (weft_model *)&memory;
    weft_error err = { 0, 0, "" };
    size_t files = open_files();

    if (given != NULL) o = *given;
    o.allocator = &alloc;
    weft_status st = weft_model_open(path, &o, &m, &err);
    ck_assert_msg(st == status, "%s, wanted %s: %s", weft_status_name(st), weft_status_name(status), err.text);
    ck_assert_ptr_null(m);
    ck_assert_int_eq(err.code, st);
    check_one_line(&err);
    ck_assert_msg(strstr(err.text, word) != NULL && (word2 == NULL || strstr(err.text, word2) != NULL),
                  "\"%s\" and \"%s\" are not in: %s", word, word2 != NULL ? word2 : "", err.text);
    ck_assert_uint_eq(memory.live_blocks, 0);
    ck_assert_uint_eq(open_files(), files);
    ck_assert(*path != '/' || !is_mapped(path));
    if (getenv("GOLDEN_SHOW") != NULL) printf("%s\n", err.text);
}

static weft_model *opened(const char *path, const weft_model_options *o)
{
    weft_model *m;
    must(weft_model_open(path, o, &m, &golden_err));
    return m;
}

#define UNET "unet/config.json"
#define TEXT "text_encoder/config.json"
#define VAE "vae/config.json"
#define INDEX "model_index.json"

static const struct {
    const char *model;
    change      f;
    const char *file, *a, *b;
    weft_status status; /* WEFT_OK: it opens */
    const char *word, *word2;
} cases[] = {
    { "sd1", keep, "", "", "", WEFT_OK, "", NULL },

    /* files */
    { "sd1", write_text, INDEX, "{ \"_class_name\": ", "", WEFT_E_FORMAT, INDEX, "ends too early" },
    { "sd1", write_text, INDEX, "{ \"a\": 1, \"a\": 2 }", "", WEFT_E_FORMAT, INDEX, "duplicate key \"a\"" },
    { "sd1", write_text, INDEX, "[]", "", WEFT_E_FORMAT, INDEX, "object" },
    { "sd1", write_text, INDEX, "{}", "", WEFT_E_UNSUPPORTED, INDEX, "pipeline class" },
    { "sd1", write_text, INDEX, "{ \"_class_name\": \"StableDiffusionPipeline\", \"unet\": 0.5 }", "", WEFT_E_FORMAT,
      INDEX, "unet is not a pair" },
    { "sd1", write_text, UNET, "", "", WEFT_E_FORMAT, UNET, NULL },
    { "sd1", write_text, UNET, "{ \"x\": \"\xff\" }", "", WEFT_E_FORMAT, UNET, "0xff" },
    { "sd1", write_text, "scheduler/scheduler_config.json", "{", "", WEFT_E_FORMAT, "scheduler_config.json", NULL },
    { "sd1", drop, UNET, "", "", WEFT_E_IO, UNET, NULL },
    { "sd1", drop, TEXT, "", "", WEFT_E_IO, TEXT, NULL },
    { "sd1", drop, "vae", "", "", WEFT_E_IO, "/vae", "diffusion_pytorch_model.safetensors" },
    { "sd1", drop, "unet/diffusion_pytorch_model.safetensors", "", "", WEFT_E_IO, "/unet", "no weights" },
    { "sd1", drop, "scheduler", "", "", WEFT_OK, "", NULL },
    { "sd1", drop, INDEX, "", "", WEFT_OK, "", NULL }, /* the folders alone say what it is */
    /* what a file is its content tells */
    { "sd1", move, "text_encoder/model.safetensors", "text_encoder/pytorch_model.bin", "", WEFT_OK, "", NULL },
    { "sd1", move, "vae/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.bin", "", WEFT_OK, "", NULL },
    { "sd1", move, "vae/diffusion_pytorch_model.safetensors", "vae/pytorch_model.bin", "", WEFT_E_IO, "/vae",
      "diffusion_pytorch_model.safetensors" },
    { "sd1", move, "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.safetensors.index.json",
      "", WEFT_E_FORMAT, "safetensors.index.json", "JSON" },
    { "sd1", move, "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors", "",
      WEFT_OK, "", NULL },

    /* classes and settings */
    { "sd1", set, INDEX, "_class_name", "\"FluxPipeline\"", WEFT_E_UNSUPPORTED, INDEX, "FluxPipeline" },
    { "sd1", set, INDEX, "_class_name", "7", WEFT_E_UNSUPPORTED, INDEX, "pipeline class" },
    { "sd1", set, INDEX, "_class_name", "\"a\\nb\"", WEFT_E_UNSUPPORTED, INDEX, "a b" },
    { "sd1", set, INDEX, "unet", "[\"diffusers\", \"UNet3DConditionModel\"]", WEFT_E_UNSUPPORTED, INDEX,
      "unet of class \"UNet3DConditionModel\"" },
    { "sd1", set, INDEX, "vae", "[\"diffusers\", \"AutoencoderTiny\"]", WEFT_E_UNSUPPORTED, INDEX, "AutoencoderTiny" },
    { "sd1", set, INDEX, "text_encoder", "[\"transformers\", \"T5EncoderModel\"]", WEFT_E_UNSUPPORTED, INDEX,
      "T5EncoderModel" },
    { "sdxl", set, INDEX, "text_encoder_2", "[\"transformers\", \"CLIPTextModel\"]", WEFT_E_UNSUPPORTED, INDEX,
      "text_encoder_2" },
    { "sd1", set, INDEX, "unet", "[null, null]", WEFT_E_FORMAT, INDEX, "no unet" },
    { "sd1", set, INDEX, "vae", "[null, null]", WEFT_OK, "", NULL },
    { "sd1", set, UNET, "_class_name", "\"UNet2DModel\"", WEFT_E_UNSUPPORTED, UNET, "UNet2DModel" },
    { "sd1", set, VAE, "_class_name", "\"VQModel\"", WEFT_E_UNSUPPORTED, VAE, "VQModel" },
    { "sd1", set, UNET, "down_block_types", "[\"DownBlock2D\", \"SkipDownBlock2D\", \"DownBlock2D\"]",
      WEFT_E_UNSUPPORTED, UNET, "SkipDownBlock2D" },
    { "sd1", set, UNET, "up_block_types", "[\"UpBlock2D\", \"UpBlock2D\", \"AttnUpBlock2D\"]", WEFT_E_UNSUPPORTED, UNET,
      "AttnUpBlock2D" },
    { "sd1", set, UNET, "mid_block_type", "\"UNetMidBlock2DSimpleCrossAttn\"", WEFT_E_UNSUPPORTED, UNET,
      "UNetMidBlock2DSimpleCrossAttn" },
    { "sd1", set, UNET, "down_block_types", "[\"DownBlock2D\"]", WEFT_E_FORMAT, UNET, "down_block_types" },
    { "sd1", set, UNET, "down_block_types", "[1, 2, 3]", WEFT_E_FORMAT, UNET, "down_block_types" },
    { "sd1", set, UNET, "down_block_types", "null", WEFT_E_FORMAT, UNET, "down_block_types" },
    { "sd1", set, UNET, "act_fn", "\"quick_gelu\"", WEFT_E_UNSUPPORTED, UNET, "quick_gelu" },
    { "sd1", set, UNET, "act_fn", "3", WEFT_E_FORMAT, UNET, "act_fn" },
    { "sd1", set, TEXT, "hidden_act", "\"gelu_new\"", WEFT_E_UNSUPPORTED, TEXT, "gelu_new" },
    { "sd1", set, VAE, "act_fn", "\"elu\"", WEFT_E_UNSUPPORTED, VAE, "elu" },
    { "sd1", set, UNET, "addition_embed_type", "\"text_image\"", WEFT_E_UNSUPPORTED, UNET, "text_image" },
    { "sd1", set, UNET, "addition_embed_type", "[]", WEFT_E_UNSUPPORTED, UNET, "addition_embed_type" },
    { "sd1", set, UNET, "class_embed_type", "\"timestep\"", WEFT_E_UNSUPPORTED, UNET, "class_embed_type" },
    { "sd1", set, UNET, "encoder_hid_dim_type", "\"text_proj\"", WEFT_E_UNSUPPORTED, UNET, "encoder_hid_dim_type" },
    { "sd1", set, UNET, "resnet_time_scale_shift", "\"scale_shift\"", WEFT_E_UNSUPPORTED, UNET, "scale_shift" },
    { "sd1", set, UNET, "only_cross_attention", "[false, true, false]", WEFT_E_UNSUPPORTED, UNET,
      "only_cross_attention" },
    { "sd1", set, UNET, "time_cond_proj_dim", "256", WEFT_E_FORMAT, "time_embedding.cond_proj.weight is missing",
      "(8, 256)" },
    { "sd1", set, UNET, "time_cond_proj_dim", "2", WEFT_E_FORMAT, UNET, "time_cond_proj_dim" },
    { "sd1", set, VAE, "latents_mean", "[0.1, 0.2]", WEFT_E_UNSUPPORTED, VAE, "latents_mean" },
    { "sd1", set, UNET, "in_channels", "9", WEFT_E_FORMAT, "conv_in.weight", "wanted (8, 9, 3, 3)" },
    { "sd1", set, UNET, "in_channels", "3", WEFT_E_UNSUPPORTED, UNET, "takes 3 channels and gives 4" },
    { "sd1", set, UNET, "unknown_setting", "{ \"of\": [\"tomorrow\"] }", WEFT_OK, "", NULL },

    /* sizes */
    { "sd1", set, UNET, "block_out_channels", "[1000000000, 16, 24]", WEFT_E_FORMAT, UNET, "1000000000" },
    { "sd1", set, UNET, "block_out_channels", "[-8, 16, 24]", WEFT_E_FORMAT, UNET, "-8" },
    { "sd1", set, UNET, "block_out_channels", "[8.5, 16, 24]", WEFT_E_FORMAT, UNET, "whole number" },
    { "sd1", set, UNET, "block_out_channels", "[]", WEFT_E_FORMAT, UNET, "block_out_channels" },
    { "sd1", set, UNET, "block_out_channels", "[8,8,8,8,8,8,8,8,8]", WEFT_E_FORMAT, UNET, "block_out_channels" },
    { "sd1", set, UNET, "block_out_channels", "9223372036854775807", WEFT_E_FORMAT, UNET, "block_out_channels" },
    { "sd1", set, UNET, "layers_per_block", "100000", WEFT_E_FORMAT, UNET, "100000" },
    { "sd1", set, UNET, "layers_per_block", "0", WEFT_E_FORMAT, UNET, "layers_per_block" },
    { "sd1", set, UNET, "layers_per_block", "[2, 2]", WEFT_E_FORMAT, UNET, "2 entries, wanted 3" },
    { "sd1", set, UNET, "layers_per_block", "3", WEFT_E_FORMAT, "unet/diffusion_pytorch_model.safetensors", "missing" },
    { "sd1", set, UNET, "layers_per_block", "1", WEFT_E_FORMAT, "unet/diffusion_pytorch_model.safetensors", NULL },
    { "sd1", set, UNET, "transformer_layers_per_block", "100000", WEFT_E_FORMAT, UNET, "100000" },
    { "sd1", set, UNET, "cross_attention_dim", "[24, 24, 32]", WEFT_E_UNSUPPORTED, UNET, "cross_attention_dim" },
    { "sd1", set, UNET, "attention_head_dim", "3", WEFT_E_FORMAT, "unet/", "3 heads do not divide" },
    { "sd1", set, UNET, "norm_num_groups", "7", WEFT_E_FORMAT, "unet/", "7 groups" },
    { "sd1", set, UNET, "norm_num_groups", "0", WEFT_E_FORMAT, UNET, "norm_num_groups" },
    { "sd1", set, UNET, "norm_eps", "-1", WEFT_E_FORMAT, UNET, "norm_eps" },
    { "sd1", set, UNET, "norm_eps", "\"small\"", WEFT_E_FORMAT, UNET, "not a number" },
    { "sd1", set, UNET, "use_linear_projection", "1", WEFT_E_FORMAT, UNET, "true or false" },
    { "sdxl", set, UNET, "projection_class_embeddings_input_dim", "47", WEFT_E_UNSUPPORTED, UNET, "time ids" },
    { "sdxl", set, UNET, "addition_time_embed_dim", "9", WEFT_E_UNSUPPORTED, "6 time ids of 9",
      "pooled vector of 20" },
    { "sd1", set, TEXT, "num_hidden_layers", "1000", WEFT_E_FORMAT, TEXT, "1000" },
    { "sd1", set, TEXT, "vocab_size", "10000000000", WEFT_E_FORMAT, TEXT, "vocab_size" },
    { "sd1", set, TEXT, "num_attention_heads", "5", WEFT_E_FORMAT, TEXT, "5 heads" },
    { "sd1", set, TEXT, "max_position_embeddings", "2", WEFT_E_FORMAT, TEXT, "max_position_embeddings" },
    { "sd1", set, VAE, "in_channels", "4", WEFT_E_FORMAT, VAE, "in_channels" },
    { "sd1", set, VAE, "scaling_factor", "0", WEFT_E_FORMAT, VAE, "scaling_factor" },

    /* tensors */
    { "sd1", set, UNET, "block_out_channels", "[8, 32, 24]", WEFT_E_FORMAT, "unet/diffusion_pytorch_model.safetensors",
      "wanted (32, 8, 3, 3)" },
    { "sd1", set, UNET, "cross_attention_dim", "32", WEFT_E_FORMAT, "attn2.to_k.weight", "wanted (8, 32)" },
    { "sd1", set, TEXT, "vocab_size", "771", WEFT_E_FORMAT, "token_embedding.weight", "(770, 24), wanted (771, 24)" },
    { "sd1", set, VAE, "latent_channels", "5", WEFT_E_FORMAT, "vae/", "encoder.conv_out.weight" },
    { "sd1", rename_tensor, "unet", "conv_in.bias", "conv_in.offset", WEFT_E_FORMAT, "tensor conv_in.bias is missing",
      "wanted with shape (8,)" },
    { "sd1", rename_tensor, "vae", "quant_conv.weight", "x", WEFT_E_FORMAT, "quant_conv.weight is missing", "vae/" },
    { "sd1", reshape, "text_encoder", "embeddings.position_embedding.weight", "[24, 77]", WEFT_E_FORMAT,
      "position_embedding.weight is (24, 77)", "wanted (77, 24)" },
    { "sd1", retype, "text_encoder", "embeddings.position_embedding.weight", "I16", WEFT_E_FORMAT,
      "position_embedding.weight is I16", "floating point" },
    { "sd1", add_tensor, "text_encoder", "text_model.embeddings.position_ids", "", WEFT_OK, "", NULL },
    { "sd2", add_tensor, "text_encoder", "text_model.embeddings.position_ids", "", WEFT_OK, "", NULL },
    { "sd1", add_tensor, "text_encoder", "text_model.extra", "", WEFT_E_FORMAT, "text_model.extra (1, 77)", "unknown" },
    { "sd1", add_tensor, "unet", "label_emb.weight", "", WEFT_E_FORMAT, "label_emb.weight", "unet/" },
    { "sd1", add_tensor, "unet", "down_blocks.0.position_ids", "", WEFT_E_FORMAT, "down_blocks.0.position_ids",
      "unknown" },
    { "sd1", add_tensor, "text_encoder", "my_position_ids", "", WEFT_E_FORMAT, "my_position_ids", "unknown" },
    { "sd2", rename_tensor, "vae", "decoder.mid_block.attentions.0.query.weight",
      "decoder.mid_block.attentions.0.to_q.weight", WEFT_OK, "", NULL }, /* old and new names in one file */
    { "sd1", rename_tensor, "text_encoder", "embeddings.token_embedding.weight",
      "text_model.embeddings.token_embedding.weight", WEFT_OK, "", NULL },

    /* parts that do not fit each other */
    { "sdxl", set, INDEX, "text_encoder", "[null, null]", WEFT_E_FORMAT, "text encoders give 24 channels",
      "takes 40" },
    { "sdxl", set, INDEX, "text_encoder_2", "[null, null]", WEFT_E_FORMAT, "16 channels", NULL },
    { "sdxl", set, "text_encoder_2/config.json", "eos_token_id", "7", WEFT_E_FORMAT, "text_encoder_2/config.json",
      "eos_token_id is 7, but the vocabulary ends prompts with" },
    { "sdxl", set, "text_encoder_2/config.json", "eos_token_id", "2", WEFT_OK, "", NULL },
    { "sd1", set, TEXT, "eos_token_id", "7", WEFT_OK, "", NULL }, /* it has no pooled vector */
};

START_TEST(one_change)
{
    char name[32];
    snprintf(name, sizeof name, "tiny-%s", cases[_i].model);
    make_copy(name);
    cases[_i].f(cases[_i].file, cases[_i].a, cases[_i].b);
    if (cases[_i].status != WEFT_OK) refused(copy, NULL, cases[_i].status, cases[_i].word, cases[_i].word2);
    else weft_model_free(opened(copy, NULL));
    remove_copy();
}
END_TEST

START_TEST(not_a_model)
{
    weft_model *m = (weft_model *)copy;
    weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
    const char *file = data_path("models/tiny-sd1/unet/diffusion_pytorch_model.safetensors");
    char long_path[3000];
    refused(data_path("models/no-such-model"), NULL, WEFT_E_IO, "no-such-model", "No such file");
    refused(file, NULL, WEFT_E_UNSUPPORTED, file, "one part of a model");
    refused("", NULL, WEFT_E_IO, "No such file", NULL);
    memset(long_path, 'x', sizeof long_path - 1);
    long_path[sizeof long_path - 1] = 0;
    refused(long_path, NULL, WEFT_E_IO, "xxx", NULL);
    make_copy("tiny-sd1");
    shell("rm -r '%s'/*%s", copy, "");
    refused(copy, NULL, WEFT_E_FORMAT, copy, "model_index.json");
    spill(in_copy("model_index.json"), "", 0);
    refused(copy, NULL, WEFT_E_FORMAT, "model_index.json", NULL);
    remove_copy();

    ck_assert_int_eq(weft_model_open(NULL, NULL, &m, &golden_err), WEFT_E_ARG);
    ck_assert_ptr_null(m);
    ck_assert_int_eq(weft_model_open("x", NULL, NULL, &golden_err), WEFT_E_ARG);
    o.flags = 1u << 9;
    refused("x", &o, WEFT_E_UNSUPPORTED, "weft_model_options", NULL);
    o.flags = 0;
    o.struct_size = 8;
    refused("x", &o, WEFT_E_ARG, "weft_model_options", NULL);
}
END_TEST

/* ---- cut files ------------------------------------------------------------------------------- */

/* A small file at every length up to its header's end, then at places in its data, and one byte longer. It stands in
 * the UNet's place, which is read first. */
START_TEST(a_cut_file_is_refused)
{
    const char *name = "unet/diffusion_pytorch_model.safetensors";
    uint64_t header;
    make_copy("tiny-sdxl");
    bytes all = slurp(in_copy("text_encoder/model.safetensors"));
    memcpy(&header, all.v, 8);
    size_t data = 8 + (size_t)header, lengths = 0;
    for (size_t n = 0; n < all.n; n += n < data ? 1 : 1 + (all.n - data) / 23, lengths++) {
        weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
        spill(in_copy(name), all.v, n);
        o.flags = n % 2 ? WEFT_OPEN_COPY : 0;
        refused(copy, &o, WEFT_E_FORMAT, name, NULL);
    }
    ck_assert_uint_gt(lengths, data + 20);
    spill(in_copy(name), all.v, all.n + 1); /* slurp put a NUL behind */
    refused(copy, NULL, WEFT_E_FORMAT, name, "the file has");
    spill(in_copy(name), all.v, all.n);
    refused(copy, NULL, WEFT_E_FORMAT, name, "time_embedding.linear_1.weight is missing");
    free(all.v);
    remove_copy();
}
END_TEST

/* ---- variants -------------------------------------------------------------------------------- */

START_TEST(variants)
{
    static const char *const folders[] = { "unet", "text_encoder", "vae" };
    weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    char from[128], to[128];
    make_copy("tiny-sd1");
    o.variant = "fp16";
    refused(copy, &o, WEFT_E_IO, "unet", "diffusion_pytorch_model.fp16.safetensors");
    for (size_t i = 0; i < WF_LEN(folders); i++) { /* beside the plain file, half as precise */
        snprintf(from, sizeof from, "%s", weights_of(folders[i]));
        snprintf(to, sizeof to, "%.*s.fp16.safetensors", (int)(strlen(from) - strlen(".safetensors")), from);
        shell("cp '%s' '%s'", in_copy(from), in_copy(to));
        if (i + 1 < WF_LEN(folders)) refused(copy, &o, WEFT_E_IO, folders[i + 1], ".fp16.safetensors");
    }
    weft_model_free(opened(copy, &o));
    spill(in_copy("unet/diffusion_pytorch_model.safetensors"), "broken", 6); /* so it is not this one that opens */
    weft_model_free(opened(copy, &o));
    refused(copy, NULL, WEFT_E_FORMAT, "unet/diffusion_pytorch_model.safetensors", NULL);
    unlink(in_copy("unet/diffusion_pytorch_model.safetensors"));
    weft_model *m = opened(copy, NULL);
    must(weft_model_info_get(m, &info, &golden_err));
    ck_assert_int_eq(info.text_encoders, 1);
    weft_model_free(m);
    o.variant = "bf16";
    refused(copy, &o, WEFT_E_IO, "diffusion_pytorch_model.bf16.safetensors", "variant");
    remove_copy();
}
END_TEST

/* ---- tokenizers ------------------------------------------------------------------------------ */

static size_t tokens_of(const weft_model *m, int32_t *ids, size_t cap)
{
    size_t n = 0;
    must(weft_model_tokenize(m, WEFT_COMPONENT_TEXT_1, "a red cat on the mat, 12 o'clock", ids, cap, &n, &golden_err));
    return n;
}

static void keep_warning(void *user, int32_t level, const char *line)
{
    if (level == WEFT_LOG_WARN) snprintf(user, 512, "%s", line);
}

START_TEST(tokenizers)
{
    char warned[512] = "";
    weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    weft_error err = { 0, 0, "" };
    int32_t want[64], ids[64], tokens, chunks;
    weft_model *m = opened(data_path("models/tiny-sd1"), NULL);
    size_t count = tokens_of(m, want, 64);
    weft_model_free(m);
    ck_assert_uint_gt(count, 5);

    make_copy("tiny-sd1"); /* tokenizer.json alone, as transformers 5 writes it */
    unlink(in_copy("tokenizer/vocab.json")), unlink(in_copy("tokenizer/merges.txt"));
    m = opened(copy, NULL);
    ck_assert_uint_eq(tokens_of(m, ids, 64), count);
    ck_assert_mem_eq(ids, want, count * sizeof *ids);
    weft_model_free(m);

    drop("tokenizer", "", ""); /* none: it opens, and the first prompt says what to give */
    m = opened(copy, NULL);
    must(weft_model_info_get(m, &info, &golden_err));
    ck_assert_int_eq(info.has_tokenizer, 0);
    ck_assert_int_eq(weft_model_prompt_size(m, "x", &tokens, &chunks, &err), WEFT_E_STATE);
    check_one_line(&err);
    ck_assert_msg(strstr(err.text, copy) != NULL && strstr(err.text, "weft_model_options.tokenizer") != NULL, "%s",
                  err.text);
    ck_assert_int_eq(weft_model_tokenize(m, WEFT_COMPONENT_TEXT_1, "x", ids, 64, NULL, &err), WEFT_E_STATE);
    ck_assert_int_eq(weft_model_tokenize(m, WEFT_COMPONENT_TEXT_2, "x", ids, 64, NULL, &err), WEFT_E_ARG);
    weft_model_free(m);

    o.tokenizer = data_path("models/tiny-sd1/tokenizer"); /* from elsewhere */
    m = opened(copy, &o);
    ck_assert_uint_eq(tokens_of(m, ids, 64), count);
    ck_assert_mem_eq(ids, want, count * sizeof *ids);
    must(weft_model_info_get(m, &info, &golden_err));
    ck_assert_int_eq(info.has_tokenizer, 1);
    weft_model_free(m);

    o.tokenizer = in_copy("no-such-folder");
    refused(copy, &o, WEFT_E_IO, "no-such-folder", NULL);
    o.tokenizer = in_copy("unet");
    refused(copy, &o, WEFT_E_IO, "/unet", "merges.txt");
    remove_copy();

    make_copy("tiny-sd1"); /* a byte order mark in front of every text, as some editors leave it */
    shell("find '%s' -name '*.json' -o -name merges.txt | xargs sed -i '1s/^/\xef\xbb\xbf/'%s", copy, "");
    bytes marked = slurp(in_copy("tokenizer/merges.txt"));
    ck_assert_mem_eq(marked.v, "\xef\xbb\xbf#version", 11);
    free(marked.v);
    m = opened(copy, NULL);
    ck_assert_uint_eq(tokens_of(m, ids, 64), count);
    ck_assert_mem_eq(ids, want, count * sizeof *ids);
    weft_model_free(m);
    remove_copy();

    make_copy("tiny-sd1"); /* a length of 1e30, as transformers writes it where it knows none */
    shell("sed -i 's/\"model_max_length\": 77/\"model_max_length\": %s/' '%s'", "1000000000000000019884624838656",
          in_copy("tokenizer/tokenizer_config.json"));
    shell("grep -q %s '%s'", "19884624838656", in_copy("tokenizer/tokenizer_config.json"));
    weft_model_free(opened(copy, NULL));
    set("text_encoder/config.json", "vocab_size", "771"); /* rows are as many as the configuration says */
    refused(copy, NULL, WEFT_E_FORMAT, "is (770, 24), wanted (771, 24)", NULL);
    remove_copy();

    make_copy("tiny-sd1"); /* an id that the text encoder has no row for */
    o.tokenizer = NULL;
    write_text("tokenizer/added_tokens.json", "{\"zebra\": 770}", "");
    refused(copy, &o, WEFT_E_MISMATCH, "/tokenizer", "770 rows");
    drop("tokenizer/added_tokens.json", "", "");
    set("tokenizer/vocab.json", "zebra</w>", "769"); /* the id of another */
    refused(copy, &o, WEFT_E_FORMAT, "/tokenizer", "have one id, 769");
    remove_copy();

    make_copy("tiny-sd1"); /* a list that ends early */
    shell("sed -i 101,\\$d '%s'%s", in_copy("tokenizer/merges.txt"), "");
    refused(copy, &o, WEFT_E_FORMAT, "/tokenizer: no merge makes 157 of the vocabulary's 770 tokens", "merges are missing");
    write_text("tokenizer/merges.txt", "#version\nbroken", "");
    refused(copy, &o, WEFT_E_FORMAT, "tokenizer", NULL);
    remove_copy();

    o.tokenizer = data_path("models/tiny-inpaint/tokenizer"); /* of another model, which has fewer tokens */
    o.log = keep_warning;
    o.log_user = warned;
    m = opened(data_path("models/tiny-sd1"), &o);
    ck_assert_msg(strstr(warned, "tiny-inpaint/tokenizer: the tokenizer has 634 tokens, the text encoder 770 rows") != NULL,
                  "%s", warned);
    weft_model_free(m);
    o = (weft_model_options)WEFT_MODEL_OPTIONS_INIT;

    make_copy("tiny-sdxl"); /* each of two */
    drop("tokenizer_2", "", "");
    m = opened(copy, NULL);
    ck_assert_int_eq(weft_model_prompt_size(m, "x", &tokens, &chunks, &err), WEFT_E_STATE);
    ck_assert_msg(strstr(err.text, "weft_model_options.tokenizer_2") != NULL, "%s", err.text);
    weft_model_free(m);
    o.tokenizer_2 = data_path("models/tiny-sdxl/tokenizer_2");
    m = opened(copy, &o);
    must(weft_model_prompt_size(m, "x", &tokens, &chunks, &golden_err));
    ck_assert(tokens == 1 && chunks == 1);
    weft_model_free(m);
    remove_copy();
}
END_TEST

/* ---- progress, copies ------------------------------------------------------------------------ */

typedef struct teller { int64_t stop_at, calls, last, total; } teller;

static int32_t tell(void *user, const char *what, int64_t done, int64_t total)
{
    teller *t = user;
    ck_assert(what != NULL && done >= t->last && done <= total);
    t->calls++;
    t->last = done;
    t->total = total;
    return t->calls == t->stop_at;
}

START_TEST(progress_may_stop_it)
{
    weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
    teller t = { 0, 0, 0, 0 };
    o.progress = tell;
    o.progress_user = &t;
    weft_model_free(opened(data_path("models/tiny-sdxl"), &o));
    ck_assert(t.calls >= 2 && t.last == t.total);
    for (int64_t at = 1, calls = t.calls; at <= calls; at++) {
        t = (teller){ at, 0, 0, 0 };
        refused(data_path("models/tiny-sdxl"), &o, WEFT_E_CANCELLED, "cancelled", NULL);
        ck_assert_int_eq(t.calls, at);
    }
}
END_TEST

static void predict(const char *path, uint32_t flags, float *out, const char *cut)
{
    weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
    weft_run_options ro = WEFT_RUN_OPTIONS_INIT;
    plain_step s = PLAIN_STEP_INIT;
    weft_plan *plan;
    weft_run *run;
    float x[256], text[77 * 24];
    o.flags = flags;
    weft_model *m = opened(path, &o);
    if (cut != NULL) ck_assert_int_eq(truncate(cut, 0), 0);
    must(weft_plan_create(m, NULL, &plan, &golden_err));
    must(weft_plan_seal(plan, 1, &golden_err));
    ro.threads = 1;
    ro.height = ro.width = 8;
    must(weft_run_create(plan, &ro, &run, &golden_err));
    for (int i = 0; i < 256; i++) x[i] = sinf((float)i);
    for (int i = 0; i < 77 * 24; i++) text[i] = cosf((float)i);
    s.latent = x, s.latent_len = 256;
    s.text = text, s.text_len = 77 * 24;
    s.out = out, s.out_len = 256;
    s.timestep = 500;
    must(plain_run_step(run, &s, &golden_err));
    weft_run_free(run);
    weft_plan_free(plan);
    weft_model_free(m);
}

START_TEST(a_copy_gives_the_same_bits)
{
    float mapped[256], copied[256];
    make_copy("tiny-sd1");
    predict(copy, 0, mapped, NULL);
    predict(copy, WEFT_OPEN_COPY, copied, in_copy("unet/diffusion_pytorch_model.safetensors"));
    ck_assert_mem_eq(mapped, copied, sizeof mapped);
    remove_copy();
}
END_TEST

/* Where the first of two encoders projects as well, and wider than the pooled vector, its projection is nobody's: the
 * vector is the second's, and nothing is written beyond it. */
static void do_project(json_t *h, size_t data, const char *a, const char *b)
{
    (void)b;
    json_object_set_new(h, a, json_pack("{s:s, s:[i,i], s:[I,I]}", "dtype", "F32", "shape", 100, 16, "data_offsets",
                                        (json_int_t)data, (json_int_t)(data + 6400)));
}

static void encode(const char *path, float *text, float *pooled)
{
    weft_plan *plan;
    weft_run *run;
    weft_run_options ro = WEFT_RUN_OPTIONS_INIT;
    plain_encode e = PLAIN_ENCODE_INIT;
    weft_model *m = opened(path, NULL);
    must(weft_plan_create(m, NULL, &plan, &golden_err));
    must(weft_plan_seal(plan, 1, &golden_err));
    ro.threads = 1;
    ro.height = ro.width = 8;
    must(weft_run_create(plan, &ro, &run, &golden_err));
    e.prompt = "a red cat";
    e.text = text, e.text_len = 77 * 40;
    e.pooled = pooled, e.pooled_len = 20;
    must(plain_run_encode(run, &e, &golden_err));
    weft_run_free(run);
    weft_plan_free(plan);
    weft_model_free(m);
}

START_TEST(the_pooled_vector_is_the_second_encoders)
{
    static float text[2][77 * 40], pooled[2][200];
    for (int i = 0; i < 200; i++) pooled[0][i] = pooled[1][i] = 777;
    make_copy("tiny-sdxl");
    encode(copy, text[0], pooled[0]);
    set(INDEX, "text_encoder", "[\"transformers\", \"CLIPTextModelWithProjection\"]");
    set(TEXT, "projection_dim", "100");
    edit_header(weights_of("text_encoder"), do_project, "text_projection.weight", "", 6400);
    encode(copy, text[1], pooled[1]);
    ck_assert_mem_eq(text[0], text[1], sizeof text[0]);
    ck_assert_mem_eq(pooled[0], pooled[1], sizeof pooled[0]);
    ck_assert(pooled[0][19] != 777 && pooled[0][20] == 777);
    remove_copy();
}
END_TEST

/* Without a tokenizer the configuration alone says where a prompt ends: at the first of its end token, at the highest id
 * if it says 2, at the beginning if there is none. transformers' pooled vectors for each. */
START_TEST(the_configuration_says_where_a_prompt_ends)
{
    json_t *index = golden_json("settings.json"), *ends = json_object_get(index, "ends");
    json_t *list = json_object_get(ends, "ids"), *tokens = json_object_get(ends, "eos_token_id");
    weft_tensors *t = golden_open("settings.safetensors");
    int32_t ids[2][77];
    static float text[77 * 40];
    ck_assert_uint_eq(json_array_size(tokens), 4);
    for (size_t k = 0; k < 77; k++) {
        ids[1][k] = (int32_t)json_integer_value(json_array_get(list, k));
        ids[0][k] = 3;
    }
    for (size_t i = 0; i < 4; i++) {
        char token[16], what[32];
        float pooled[20];
        plain_encode e = PLAIN_ENCODE_INIT;
        weft_run_options o = WEFT_RUN_OPTIONS_INIT;
        weft_plan *plan;
        weft_run *run;
        snprintf(token, sizeof token, "%d", (int)json_integer_value(json_array_get(tokens, i)));
        make_copy("tiny-sdxl");
        drop("tokenizer", "", "");
        drop("tokenizer_2", "", "");
        set("text_encoder_2/config.json", "eos_token_id", token);
        weft_model *m = opened(copy, NULL);
        must(weft_plan_create(m, NULL, &plan, &golden_err));
        must(weft_plan_seal(plan, 1, &golden_err));
        o.threads = 1;
        must(weft_run_create(plan, &o, &run, &golden_err));
        e.text = text, e.text_len = 77 * 40;
        e.pooled = pooled, e.pooled_len = 20;
        must(plain_run_encode_ids(run, ids[0], ids[1], 77, &e, &golden_err));
        golden want = golden_read(t, "ends/%s", token);
        snprintf(what, sizeof what, "an end of %s", token);
        near_golden(what, pooled, want.v, want.n, 1e-5);
        free(want.v);
        weft_run_free(run);
        weft_plan_free(plan);
        weft_model_free(m);
        remove_copy();
    }
    weft_tensors_free(t);
    json_decref(index);
}
END_TEST

typedef struct heard { int lines; char text[512]; } heard;

static void hear(void *user, int32_t level, const char *line)
{
    heard *h = user;
    if (level != WEFT_LOG_WARN) return;
    h->lines++;
    snprintf(h->text, sizeof h->text, "%s", line);
}

/* A key of a version to come, in each network's configuration. */
START_TEST(unknown_settings_are_warned_about)
{
    static const char *const files[] = { UNET, VAE, TEXT };
    for (size_t i = 0; i < WF_LEN(files); i++) {
        heard h = { 0, "" };
        weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
        o.log = hear;
        o.log_user = &h;
        make_copy("tiny-sd1");
        set(files[i], "later_setting", "1.5");
        weft_model_free(opened(copy, &o));
        ck_assert_int_eq(h.lines, 1);
        ck_assert_ptr_nonnull(strstr(h.text, in_copy(files[i])));
        ck_assert_ptr_nonnull(strstr(h.text, "1 setting that this version does not know, without effect: later_setting"));
        remove_copy();
    }
}
END_TEST

/* ---- what a model says of itself ------------------------------------------------------------- */

START_TEST(models_say_what_they_are)
{
    static const struct {
        const char *name, *family_name;
        int32_t family, encoders, dim, pooled, time_ids, prediction, factor, channels, text_layers, zeros, told;
    } all[] = {
        { "tiny-sd1", "SD1.x", WEFT_BASE_SD1, 1, 24, 0, 0, WEFT_PREDICT_EPSILON, 2, 4, 11, 0, 0 },
        { "tiny-sd2", "SD2.x", WEFT_BASE_SD2, 1, 20, 0, 0, WEFT_PREDICT_V, 4, 4, 4, 0, 0 },
        { "tiny-sdxl", "SDXL", WEFT_BASE_SDXL, 2, 40, 20, 6, WEFT_PREDICT_EPSILON, 2, 4, 17, 1, 0 },
        { "tiny-refiner", "SDXL refiner", WEFT_BASE_SDXL_REFINER, 1, 20, 12, 5, WEFT_PREDICT_EPSILON, 2, 4, 14, 0, 0 },
        { "tiny-inpaint", "SD1.x", WEFT_BASE_SD1, 1, 16, 0, 0, WEFT_PREDICT_EPSILON, 2, 9, 4, 0, 0 },
        { "tiny-lcm", "SD1.x", WEFT_BASE_SD1, 1, 16, 0, 0, WEFT_PREDICT_EPSILON, 2, 4, 4, 0, 1 },
    };
    for (size_t i = 0; i < WF_LEN(all); i++) {
        weft_model *m = opened(data_path("models/%s", all[i].name), NULL);
        weft_model_info info = WEFT_MODEL_INFO_INIT;
        must(weft_model_info_get(m, &info, &golden_err));
        ck_assert_int_eq(info.base, all[i].family);
        ck_assert_str_eq(info.base_name, all[i].family_name);
        ck_assert_int_eq(info.text_encoders, all[i].encoders);
        ck_assert_int_eq(plain_shape_of(m).dim, all[i].dim);
        ck_assert_int_eq(plain_shape_of(m).pooled, all[i].pooled);
        ck_assert_int_eq(info.time_ids, all[i].time_ids);
        ck_assert_int_eq(info.prediction, all[i].prediction);
        ck_assert_int_eq(info.image_factor, all[i].factor);
        ck_assert(info.latent_channels == 4 && info.latent_size == 16 && plain_shape_of(m).tokens == 77);
        ck_assert(info.has_tokenizer == 1 && info.has_vae == 1 && info.vae_scale > 0);
        ck_assert_int_eq(info.input_channels, all[i].channels);
        ck_assert_int_eq(plain_shape_of(m).layers, all[i].text_layers);
        ck_assert_int_eq(info.zero_negative, all[i].zeros);
        ck_assert_int_eq(info.guidance_embed, all[i].told);
        ck_assert_str_eq(info.layout, "diffusers");
        ck_assert(info.parameters > 50000 && info.bytes > 2 * info.parameters && info.layers > 100);
        weft_model_free(m);
    }
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    ck_assert_int_eq(weft_model_info_get(NULL, &info, &golden_err), WEFT_E_ARG);
    weft_model_free(NULL);
}
END_TEST

/* What the caller says stands above the scheduler's configuration, for the model and for samplers made from it. */
START_TEST(the_caller_may_say_what_a_model_predicts)
{
    static const struct { const char *name; uint32_t flags; int32_t prediction; } all[] = {
        { "tiny-sd1", 0, WEFT_PREDICT_EPSILON },          { "tiny-sd1", WEFT_OPEN_V, WEFT_PREDICT_V },
        { "tiny-sd2", WEFT_OPEN_EPSILON, WEFT_PREDICT_EPSILON }, { "tiny-sd2", WEFT_OPEN_V, WEFT_PREDICT_V },
    };
    weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
    weft_model *m;
    for (size_t i = 0; i < WF_LEN(all); i++) {
        weft_sampler_options s = WEFT_SAMPLER_OPTIONS_INIT;
        weft_model_info info = WEFT_MODEL_INFO_INIT;
        o.flags = all[i].flags;
        m = opened(data_path("models/%s", all[i].name), &o);
        must(weft_model_info_get(m, &info, &golden_err));
        must(weft_sampler_options_from_model(m, &s, &golden_err));
        ck_assert_int_eq(info.prediction, all[i].prediction);
        ck_assert_int_eq(s.prediction, all[i].prediction);
        weft_model_free(m);
    }
    o.flags = WEFT_OPEN_V | WEFT_OPEN_EPSILON;
    ck_assert_int_eq(weft_model_open(data_path("models/tiny-sd1"), &o, &m, &golden_err), WEFT_E_ARG);
}
END_TEST

/* Dense ids, components one after the other, unique names that are the file's, shapes that are the file's. */
START_TEST(the_layer_table)
{
    static const char *const models[] = { "tiny-sd1", "tiny-sd2", "tiny-sdxl" };
    static const char *const folders[] = { "unet", "text_encoder", "text_encoder_2", "vae" };
    for (size_t k = 0; k < WF_LEN(models); k++) {
        weft_model *m = opened(data_path("models/%s", models[k]), NULL);
        weft_model_info info = WEFT_MODEL_INFO_INIT;
        weft_layer_info l = WEFT_LAYER_INFO_INIT, before = WEFT_LAYER_INFO_INIT;
        weft_tensors *unet;
        int64_t attention = 0, to_q = 0, convs = 0, parameters = 0;
        must(weft_model_info_get(m, &info, &golden_err));
        must(weft_tensors_open(data_path("models/%s/%s", models[k], weights_of("unet")), NULL, &unet, &golden_err));
        for (int64_t id = 0; id < info.layers; id++) {
            must(weft_model_layer(m, id, &l, &golden_err));
            size_t n = strlen(folders[l.component]);
            ck_assert(strncmp(l.name, folders[l.component], n) == 0 && l.name[n] == '.');
            ck_assert(id == 0 || l.component >= before.component);
            ck_assert(l.kind >= WEFT_LAYER_LINEAR && l.kind <= WEFT_LAYER_NORM);
            ck_assert(l.kernel == 1 || (l.kernel == 3 && l.kind == WEFT_LAYER_CONV));
            ck_assert(l.stride == 1 || (l.stride == 2 && strstr(l.name, "downsamplers") != NULL));
            ck_assert(!l.attention || l.component == WEFT_COMPONENT_DENOISER);
            for (int64_t other = 0; other < id; other++) {
                must(weft_model_layer(m, other, &before, &golden_err));
                ck_assert_str_ne(before.name, l.name);
            }
            parameters += (int64_t)l.out * l.in * l.kernel * l.kernel;
            ck_assert(l.kind != WEFT_LAYER_NORM || (l.in == 1 && strstr(l.name, "norm") != NULL));
            attention += l.attention;
            convs += l.kind == WEFT_LAYER_CONV;
            if (l.component != WEFT_COMPONENT_DENOISER) continue;
            to_q += strstr(l.name, "to_q") != NULL;
            char name[256];
            weft_tensor_info t = WEFT_TENSOR_INFO_INIT;
            snprintf(name, sizeof name, "%s.weight", l.name + 5);
            must(weft_tensors_info(unet, (size_t)weft_tensors_find(unet, name), &t, &golden_err));
            ck_assert(t.shape[0] == l.out && (t.rank == 1) == (l.kind == WEFT_LAYER_NORM));
            if (t.rank == 1) continue;
            ck_assert(t.shape[1] == l.in && (t.rank == 2) == (l.kind == WEFT_LAYER_LINEAR));
            ck_assert(t.rank == 2 || (t.shape[2] == l.kernel && t.shape[3] == l.kernel));
        }
        ck_assert(attention == 4 * to_q && to_q > 0 && convs > 50 && parameters < info.parameters);
        int64_t vectors = 0; /* biases and norms, which the model keeps as floats */
        for (size_t f = 0; f < WF_LEN(folders); f++) {
            weft_tensors *file;
            const char *path = data_path("models/%s/%s", models[k], weights_of(folders[f]));
            if (weft_tensors_open(path, NULL, &file, NULL) != WEFT_OK) continue; /* one encoder */
            for (size_t i = 0; i < weft_tensors_count(file); i++) {
                weft_tensor_info t = WEFT_TENSOR_INFO_INIT;
                must(weft_tensors_info(file, i, &t, &golden_err));
                if (t.rank == 1) vectors += t.shape[0];
            }
            weft_tensors_free(file);
        }
        ck_assert_int_eq(info.derived_bytes, 4 * vectors);
        must(weft_model_layer(m, 0, &l, &golden_err));
        ck_assert_str_eq(l.name, "unet.time_embedding.linear_1");
        ck_assert_int_eq(weft_model_layer(m, info.layers, &l, &golden_err), WEFT_E_ARG);
        ck_assert_int_eq(weft_model_layer(m, -1, &l, &golden_err), WEFT_E_ARG);
        ck_assert_int_eq(weft_model_layer(m, 0, NULL, &golden_err), WEFT_E_ARG);
        weft_tensors_free(unet);
        weft_model_free(m);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("opening models");
    TCase *c = tcase_create("open");
    tcase_set_timeout(c, 300);
    tcase_add_test(c, models_say_what_they_are);
    tcase_add_test(c, the_caller_may_say_what_a_model_predicts);
    tcase_add_test(c, the_layer_table);
    tcase_add_loop_test(c, one_change, 0, (int)WF_LEN(cases));
    tcase_add_test(c, not_a_model);
    tcase_add_test(c, a_cut_file_is_refused);
    tcase_add_test(c, variants);
    tcase_add_test(c, tokenizers);
    tcase_add_test(c, progress_may_stop_it);
    tcase_add_test(c, the_pooled_vector_is_the_second_encoders);
    tcase_add_test(c, the_configuration_says_where_a_prompt_ends);
    tcase_add_test(c, unknown_settings_are_warned_about);
    tcase_add_test(c, a_copy_gives_the_same_bits);
    suite_add_tcase(s, c);
    return run_suite(s);
}
