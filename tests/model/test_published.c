/* The published models at full size: every tensor of the complete lists of names and shapes is bound, in LDM's layout
 * and in diffusers'; every row of kohya's tables names a layer of such a model.
 *
 * The files have the real headers and no data: their weights are holes, which take no disk and read as zeros, so
 * twelve gigabytes open in a moment. What opens was asked for tensor by tensor, and nothing was left over. */
#include <errno.h>
#include <sys/stat.h>

#include "model/layouts.h"
#include "model/model_internal.h"

/* Where holes are memory, reading one does not wait for a disk to read ahead. */
static void setup(void)
{
    if (access("/dev/shm", W_OK) == 0) setenv("TMPDIR", "/dev/shm", 0);
    make_scratch();
}
static void teardown(void) { remove_scratch(); }

/* ---- a table of tensors ---------------------------------------------------------------------- */

enum { DIFFUSERS, LDM };

typedef struct sparse {
    json_t *header;
    size_t  size; /* of the data */
} sparse;

static int split(char *line, char **column, int max)
{
    int n = 0;
    line[strcspn(line, "\n")] = '\0';
    for (char *s = line; n < max; n++) {
        column[n] = s;
        s += strcspn(s, "\t");
        if (*s == '\0') return n + 1;
        *s++ = '\0';
    }
    return n;
}

/* "320x4x3x3" */
static json_t *shape_of(const char *text, size_t *count)
{
    json_t *shape = json_array();
    *count = 1;
    for (const char *s = text; *s >= '0' && *s <= '9';) { /* a scalar has no sizes */
        char *end;
        long n = strtol(s, &end, 10);
        ck_assert(end != s && n > 0);
        *count *= (size_t)n;
        json_array_append_new(shape, json_integer(n));
        s = *end == 'x' ? end + 1 : end;
    }
    return shape;
}

static void add(sparse *f, const char *name, const char *shape_text)
{
    size_t count;
    if (json_object_get(f->header, name) != NULL) return; /* q, k and v have a row each */
    json_t *shape = shape_of(shape_text, &count);
    json_t *entry = json_pack("{s:s, s:o, s:[I,I]}", "dtype", "F16", "shape", shape, "data_offsets",
                              (json_int_t)f->size, (json_int_t)(f->size + 2 * count));
    ck_assert(entry != NULL && json_object_set_new(f->header, name, entry) == 0);
    f->size += 2 * count;
}

/* The tensors of a table under the names of one layout; `prefix` takes the place of the table's `cut`. */
static void add_table(sparse *f, const char *table, int names, const char *cut, const char *prefix)
{
    FILE *file = fopen(data_path("tables/%s.tsv", table), "r");
    char line[1024], *c[5], name[512];
    ck_assert_msg(file != NULL && fgets(line, sizeof line, file) != NULL, "%s", table);
    while (fgets(line, sizeof line, file) != NULL) {
        int n = split(line, c, 5);
        const char *ours = c[names], *shape = names == LDM && n > 3 ? c[3] : c[2];
        bool ignored = n == 5 && strncmp(c[4], "ignore", 6) == 0;
        if (names == DIFFUSERS && ignored) continue;
        if (cut != NULL) {
            ck_assert_msg(strncmp(ours, cut, strlen(cut)) == 0, "%s", ours);
            snprintf(name, sizeof name, "%s%s", prefix, ours + strlen(cut));
            ours = name;
        }
        add(f, ours, shape);
    }
    fclose(file);
}

/* A hole as large as the header says. */
static void write_sparse(sparse *f, const char *path)
{
    char *text = json_dumps(f->header, JSON_COMPACT);
    uint64_t n = strlen(text);
    FILE *file = fopen(path, "wb");
    ck_assert(file != NULL && fwrite(&n, 8, 1, file) == 1 && fwrite(text, n, 1, file) == 1);
    ck_assert(fflush(file) == 0 && ftruncate(fileno(file), (off_t)(8 + n + f->size)) == 0 && fclose(file) == 0);
    free(text);
    json_decref(f->header);
}

/* ---- the models ------------------------------------------------------------------------------ */

static const struct published {
    int32_t     family;
    const char *tables[4]; /* unet, text_encoder, text_encoder_2, vae: as WEFT_COMPONENT_DENOISER ... */
    const char *cut, *prefix; /* the refiner's text encoder is embedder 0, the table has 1 */
    int64_t     parameters;
    const char *kohya;
    size_t      rows;
    const char *words; /* how kohya's table of text encoders calls the model */
    int32_t     text_dim, pooled_dim, time_ids, latent_size, text_layers, prediction;
    bool        zeros;
} all[] = {
    { WEFT_BASE_SD1, { "sd15_unet", "sd15_clip_l", NULL, "vae_kl" }, NULL, NULL,
      859520964LL + 123060480 + 83653863, "kohya_sd15_unet", 391, "sd1 ", 768, 0, 0, 64, 16, WEFT_PREDICT_EPSILON, false },
    { WEFT_BASE_SD2, { "sd21_unet", "sd21_te_openclip_h", NULL, "vae_kl" }, NULL, NULL,
      865910724LL + 340387840 + 83653863, "kohya_sd21_unet", 391, "sd2 ", 1024, 0, 0, 96, 16, WEFT_PREDICT_V, false },
    { WEFT_BASE_SDXL, { "sdxl_unet", "sdxl_te1_clip_l", "sdxl_te2_openclip_bigg", "vae_kl" }, NULL, NULL,
      2567463684LL + 123060480 + 694659840 + 83653863, "kohya_sdxl_unet", 1050, "sdxl ", 2048, 1280, 6, 128, 70,
      WEFT_PREDICT_EPSILON, true },
    { WEFT_BASE_SDXL_REFINER, { "sdxl_refiner_unet", NULL, "sdxl_te2_openclip_bigg", "vae_kl" },
      "conditioner.embedders.1.", "conditioner.embedders.0.", 2259526660LL + 694659840 + 83653863,
      "kohya_sdxl_refiner_unet", 742, NULL, 1280, 1280, 5, 128, 44, WEFT_PREDICT_EPSILON, false },
};

static void add_single(sparse *f, const struct published *p)
{
    for (int i = 0; i < 4; i++)
        if (p->tables[i] != NULL)
            add_table(f, p->tables[i], LDM, i == WEFT_COMPONENT_TEXT_2 ? p->cut : NULL, p->prefix);
}

static const char *single_file_of(const struct published *p)
{
    sparse f = { json_object(), 0 };
    add_single(&f, p);
    write_sparse(&f, in_scratch("model.safetensors"));
    return in_scratch("model.safetensors");
}

static void check_info(const weft_model *m, const struct published *p)
{
    weft_model_info info = info_of(m);
    ck_assert_int_eq(info.base, p->family);
    ck_assert_int_eq(info.parameters, p->parameters);
    ck_assert_int_eq(plain_shape_of(m).dim, p->text_dim);
    ck_assert_int_eq(plain_shape_of(m).pooled, p->pooled_dim);
    ck_assert_int_eq(info.time_ids, p->time_ids);
    ck_assert_int_eq(info.latent_size, p->latent_size);
    ck_assert_int_eq(plain_shape_of(m).layers, p->text_layers);
    ck_assert_int_eq(info.prediction, p->prediction);
    ck_assert_int_eq(info.zero_negative, p->zeros);
    ck_assert(info.input_channels == 4 && info.image_factor == 8 && info.has_vae == 1 && plain_shape_of(m).tokens == 77);
    ck_assert(fabsf(info.vae_scale - (p->pooled_dim > 0 ? 0.13025f : 0.18215f)) < 1e-7f);
}

typedef struct messages { int count; char last[512]; } messages;

static void log_to(void *user, int32_t level, const char *text)
{
    messages *m = user;
    if (level != WEFT_LOG_WARN || strstr(text, "tokenizer") != NULL) return;
    m->count++;
    snprintf(m->last, sizeof m->last, "%s", text);
}

/* The same names as a diffusers folder, with the published configurations written out. */
START_TEST(every_name_of_the_folders)
{
    const struct published *p = &all[_i];
    const wf_published *config = wf_published_model(p->family);
    char path[64];
    for (int32_t i = 0; i < 4; i++) {
        sparse f = { json_object(), 0 };
        json_t *json;
        if (p->tables[i] == NULL) {
            json_decref(f.header);
            continue;
        }
        add_table(&f, p->tables[i], DIFFUSERS, NULL, NULL);
        ck_assert_int_eq(mkdir(in_scratch(weft_component_name(i)), 0755), 0);
        snprintf(path, sizeof path, "%s/%s.safetensors", weft_component_name(i),
                 i == WEFT_COMPONENT_DENOISER || i == WEFT_COMPONENT_VAE ? "diffusion_pytorch_model" : "model");
        write_sparse(&f, in_scratch(path));
        must(wf_published_config(&json, config, i, &golden_err));
        snprintf(path, sizeof path, "%s/config.json", weft_component_name(i));
        ck_assert_int_eq(json_dump_file(json, in_scratch(path), 0), 0);
        json_decref(json);
    }
    ck_assert_int_eq(mkdir(in_scratch("scheduler"), 0755), 0);
    FILE *s = fopen(in_scratch("scheduler/scheduler_config.json"), "w");
    ck_assert(s != NULL && fputs(config->scheduler, s) >= 0 && fclose(s) == 0);
    weft_model *m = opened(scratch, NULL);
    struct published folder = *p;
    folder.zeros = false; /* that is in model_index.json, which is not here */
    check_info(m, &folder);
    weft_model_free(m);
}
END_TEST

/* ---- kohya's words on opened models ---------------------------------------------------------- */

static const wf_layer *layer_called(const wf_layer *layers, size_t count, const char *component, const char *module)
{
    char name[512];
    snprintf(name, sizeof name, "%s.%s", component, module);
    for (size_t i = 0; i < count; i++)
        if (strcmp(layers[i].name, name) == 0) return &layers[i];
    ck_abort_msg("no layer %s", name);
    return NULL;
}

static void check_layer(const wf_layer *l, const char *kind, const char *shape)
{
    char text[64];
    if (strcmp(kind, "norm") == 0) snprintf(text, sizeof text, "%d", l->out);
    else if (l->kind == WEFT_LAYER_CONV) snprintf(text, sizeof text, "%dx%dx%dx%d", l->out, l->in, l->kernel, l->kernel);
    else snprintf(text, sizeof text, "%dx%d", l->out, l->in);
    ck_assert_msg(strcmp(text, shape) == 0, "%s is %s, the table has %s", l->name, text, shape);
    ck_assert_int_eq(l->kind, strcmp(kind, "norm") == 0     ? WEFT_LAYER_NORM
                              : strncmp(kind, "conv", 4) == 0 ? WEFT_LAYER_CONV
                                                              : WEFT_LAYER_LINEAR);
}

/* Every row of the UNet's table is a layer, and there are no others. */
static void check_unet_rows(const weft_model *m, const struct published *p)
{
    size_t count, rows = 0;
    const wf_layer *layers = wf_model_layers(m, &count);
    FILE *f = fopen(data_path("tables/%s.tsv", p->kohya), "r");
    char line[1024], *c[8], buf[256];
    ck_assert(f != NULL && fgets(line, sizeof line, f) != NULL);
    while (fgets(line, sizeof line, f) != NULL) {
        ck_assert_int_eq(split(line, c, 8), 8);
        const wf_layer *l = layer_called(layers, count, "unet", c[2]);
        check_layer(l, c[4], c[5]);
        if (l->kind != WEFT_LAYER_NORM) ck_assert_int_eq(l->bias != NULL, c[6][0] == '1');
        ck_assert(wf_name_kohya(m, l, buf, sizeof buf));
        ck_assert_str_eq(buf, c[0]);
        ck_assert(wf_name_kohya_ldm(m, l, buf, sizeof buf));
        ck_assert_str_eq(buf, c[1]);
        rows++;
    }
    fclose(f);
    ck_assert_uint_eq(rows, p->rows);
    size_t unet = 0;
    for (size_t i = 0; i < count; i++) unet += layers[i].component == WEFT_COMPONENT_DENOISER;
    ck_assert_uint_eq(unet, rows);
}

/* The text encoders' rows belong to SD1, SD2 and SDXL in turn. Embeddings are no layers. */
static void check_text_rows(const weft_model *m, const char *which)
{
    size_t count, rows = 0;
    const wf_layer *layers = wf_model_layers(m, &count);
    FILE *f = fopen(data_path("tables/kohya_text_encoders.tsv"), "r");
    char line[1024], *c[6], buf[256];
    ck_assert(f != NULL && fgets(line, sizeof line, f) != NULL);
    while (fgets(line, sizeof line, f) != NULL) {
        ck_assert_int_eq(split(line, c, 6), 6);
        if (strncmp(c[1], which, strlen(which)) != 0 || strcmp(c[3], "embedding") == 0) continue;
        const wf_layer *l = layer_called(layers, count, strstr(c[1], "text_encoder_2") ? "text_encoder_2" : "text_encoder",
                                         c[2]);
        check_layer(l, c[3], c[4]);
        ck_assert(wf_name_kohya(m, l, buf, sizeof buf));
        ck_assert_str_eq(buf, c[0]);
        rows++;
    }
    fclose(f);
    size_t text = 0;
    for (size_t i = 0; i < count; i++) text += layers[i].component == 1 || layers[i].component == 2;
    ck_assert_uint_eq(rows, text);
}

START_TEST(every_name_of_the_single_file)
{
    const struct published *p = &all[_i];
    weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
    messages said = { 0, "" };
    o.log = log_to;
    o.log_user = &said;
    weft_model *m = opened(single_file_of(p), &o);
    check_info(m, p);
    ck_assert_str_eq(info_of(m).layout, "single file");
    ck_assert_int_eq(said.count, p->family == WEFT_BASE_SD2); /* which does not say what it predicts */
    check_unet_rows(m, p);
    if (p->words != NULL) check_text_rows(m, p->words);
    if (said.count > 0) ck_assert_msg(strstr(said.last, "WEFT_OPEN_EPSILON") != NULL, "%s", said.last);
    weft_model_free(m);
}
END_TEST

/* ---- what files of one family differ in ------------------------------------------------------ */

static weft_model *with_channels(const struct published *p, const char *shape)
{
    sparse f = { json_object(), 0 };
    add(&f, "model.diffusion_model.input_blocks.0.0.weight", shape);
    add_single(&f, p);
    write_sparse(&f, in_scratch("model.safetensors"));
    return opened(in_scratch("model.safetensors"), NULL);
}

/* 9 channels to inpaint, 8 to edit. SD2's inpainting was trained from its base, which predicts noise. */
START_TEST(further_channels_are_told_by_the_shape)
{
    static const struct { int model; const char *shape; int32_t channels; } some[] = {
        { 0, "320x9x3x3", 9 }, { 0, "320x8x3x3", 8 }, { 1, "320x9x3x3", 9 },
    };
    for (size_t i = 0; i < WF_LEN(some); i++) {
        weft_model *m = with_channels(&all[some[i].model], some[i].shape);
        weft_model_info info = info_of(m);
        ck_assert_int_eq(info.input_channels, some[i].channels);
        ck_assert_int_eq(info.latent_channels, 4);
        ck_assert_int_eq(info.prediction, WEFT_PREDICT_EPSILON);
        ck_assert_int_eq(info.latent_size, 64);
        weft_model_free(m);
    }
}
END_TEST

/* SDXL models that predict v mark it with tensors that hold nothing else. */
START_TEST(marks_among_the_tensors)
{
    weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;
    sparse f = { json_object(), 0 };
    add(&f, "v_pred", "");
    add(&f, "ztsnr", "");
    add_single(&f, &all[2]);
    write_sparse(&f, in_scratch("model.safetensors"));
    weft_model *m = opened(in_scratch("model.safetensors"), NULL);
    must(weft_sampler_options_from_model(m, &o, &golden_err));
    ck_assert(info_of(m).prediction == WEFT_PREDICT_V && o.prediction == WEFT_PREDICT_V);
    ck_assert((o.flags & WEFT_SAMPLER_ZERO_SNR) != 0);
    weft_model_free(m);
}
END_TEST

/* Words that were learnt into the vocabulary make the embedding longer. */
START_TEST(more_words_are_told_by_the_shape)
{
    sparse f = { json_object(), 0 };
    add(&f, "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", "49411x768");
    add_single(&f, &all[0]);
    write_sparse(&f, in_scratch("model.safetensors"));
    weft_model *m = opened(in_scratch("model.safetensors"), NULL);
    ck_assert_int_eq(wf_clip_get_config(wf_model_networks(m)->encoder[0].net)->vocab, 49411);
    weft_model_free(m);
}
END_TEST

/* ---- the whole vocabulary -------------------------------------------------------------------- */

/* tests/data/shared/clip_bpe_merges.txt, as it is and as OpenAI packs it: behind a title, before more merges than
 * CLIP has. Ids as OpenAI's own tokenizer gives them. */
static const char *merges_file(int form)
{
    FILE *in = fopen(data_path("shared/clip_bpe_merges.txt"), "r"), *out = fopen(in_scratch("merges.txt"), "w");
    char line[512];
    ck_assert(in != NULL && out != NULL);
    if (form > 0) fputs(form == 1 ? "#version: 0.2\n" : "\"bpe_simple_vocab_16e6.txt#version: 0.2\n", out);
    while (fgets(line, sizeof line, in) != NULL) fputs(line, out);
    for (int i = 0; i < 1000 && form == 2; i++) fprintf(out, "zq%d xk%d</w>\n", i, i);
    fclose(in);
    ck_assert_int_eq(fclose(out), 0);
    if (form < 2) return in_scratch("merges.txt");
    shell("gzip -c '%s' > '%s'", in_scratch("merges.txt"), in_scratch("bpe_simple_vocab_16e6.txt.gz"));
    return in_scratch("bpe_simple_vocab_16e6.txt.gz");
}

START_TEST(openais_vocabulary)
{
    weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
    o.tokenizer = merges_file(_i);
    const struct published *p = &all[_i == 0 ? 2 : 0];
    const char *path = single_file_of(p);
    weft_model *m = opened(path, &o);
    json_t *vectors = json_load_file(data_path("shared/clip_tokenizer_vectors.json"), 0, NULL), *entry;
    size_t k, tried = 0;
    ck_assert_int_eq(info_of(m).has_tokenizer, 1);
    json_array_foreach(json_object_get(vectors, "cases"), k, entry) {
        const json_t *want = json_object_get(entry, "ids");
        const char *text = json_string_value(json_object_get(entry, "text"));
        int32_t ids[256];
        size_t n;
        must(weft_model_tokenize(m, WEFT_COMPONENT_TEXT_1, text, ids, 256, &n, &golden_err));
        ck_assert_uint_eq(n, json_array_size(want));
        for (size_t i = 0; i < n; i++) ck_assert_int_eq(ids[i], json_integer_value(json_array_get(want, i)));
        tried++;
    }
    ck_assert_uint_gt(tried, 5);
    ck_assert_int_eq(wf_tokenizer_size(wf_model_networks(m)->encoder[0].tokenizer), 49408);
    ck_assert_int_eq(wf_tokenizer_pad(wf_model_networks(m)->encoder[0].tokenizer), 49407);
    if (p->family == WEFT_BASE_SDXL) ck_assert_int_eq(wf_tokenizer_pad(wf_model_networks(m)->encoder[1].tokenizer), 0);
    json_decref(vectors);
    weft_model_free(m);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("the published models");
    TCase *c = tcase_create("names and shapes");
    tcase_set_timeout(c, 300);
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_loop_test(c, every_name_of_the_single_file, 0, (int)WF_LEN(all));
    tcase_add_loop_test(c, every_name_of_the_folders, 0, (int)WF_LEN(all));
    tcase_add_test(c, further_channels_are_told_by_the_shape);
    tcase_add_test(c, marks_among_the_tensors);
    tcase_add_test(c, more_words_are_told_by_the_shape);
    tcase_add_loop_test(c, openais_vocabulary, 0, 3);
    suite_add_tcase(s, c);
    return run_suite(s);
}
