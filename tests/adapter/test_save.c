/* Adapters written in each spelling and read again: every layer gets the same difference, bit for bit, from every file of
 * the families' goldens. Where a spelling has no form for a family the refusal names both. */
#include <sys/stat.h>

#include "modules.h"

#include "../golden.h"

static json_t *files; /* of families.json and families_peft.json: name, path, model */

static const char *const dialects[] = { "", "kohya", "diffusers", "PEFT" };

static weft_model *model_of(const json_t *file)
{
    weft_model *m = NULL;
    weft_status st = weft_model_open(data_path("models/%s", json_string_value(json_object_get(file, "model"))), NULL, &m, &err);

    ck_assert_msg(st == WEFT_OK, "%s", err.text);
    return m;
}

static weft_adapter *opened(const char *path)
{
    weft_adapter *a = NULL;

    ck_assert_msg(weft_adapter_open(path, NULL, &a, &err) == WEFT_OK, "%s", err.text);
    return a;
}

static weft_report *bound(weft_model *m, weft_adapter *a)
{
    weft_report *r = NULL;

    ck_assert_msg(weft_report_create(m, a, &r, &err) == WEFT_OK, "%s", err.text);
    ck_assert_msg(wf_report_verdict(r, false, &err) == WEFT_OK, "%s", err.text);
    return r;
}

/* Norms of LyCORIS' and PEFT's DoRA differ by the smallest step of a float; a bias that is scaled when it is written is
 * rounded twice; and not every scale is an alpha of 24 bits over the rank, as AdaLoRA's outside its own spelling is not. */
static bool same_values(const float *a, const float *b, size_t n, bool near)
{
    if (!near) return memcmp(a, b, n * sizeof *a) == 0;
    return relative(a, b, n, NULL) < 1e-6;
}

/* What module `m` adds to its layer, then what it adds to its bias. */
static float *sums_of(const wf_module *m, const wf_layer *l, size_t *n)
{
    size_t floats = (size_t)l->out * (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel;
    float *sum = calloc(floats + (size_t)l->out, sizeof *sum);
    bool   any;

    ck_assert_msg(wf_module_add(m, l, (double)m->scale, 1, 0.7, sum, heap(), &err) == WEFT_OK, "%s", err.text);
    ck_assert_int_eq(wf_module_add_bias(m, l, (double)m->scale, 0.7, sum + floats, &any, &err), WEFT_OK);
    *n = floats + (size_t)l->out;
    return sum;
}

/* The adapter with what its file leaves out for a model to tell. */
static weft_adapter *completed(weft_model *model, weft_adapter *a, const weft_report *r)
{
    size_t          layers, count;
    const wf_layer *layer = wf_model_layers(model, &layers);
    const wf_slice *slices = wf_report_slices(r, &count);
    weft_adapter   *whole = NULL;

    ck_assert_msg(wf_adapter_complete(a, layer, slices, count, &whole, &err) == WEFT_OK, "%s", err.text);
    return whole;
}

/* `b`, perhaps one of several that the folder holds, has modules that add what a's add. Counts them. */
static size_t compare(weft_model *model, weft_adapter *a, weft_adapter *b)
{
    weft_report    *ra = bound(model, a), *rb = bound(model, b);
    size_t          layers, n;
    const wf_layer *layer = wf_model_layers(model, &layers);

    a = completed(model, a, ra);
    b = completed(model, b, rb);
    for (size_t j = 0; j < b->count; j++) {
        size_t i = 0;
        int64_t id = layer_id_of(rb, j);
        while (i < a->count && layer_id_of(ra, i) != id) i++;
        ck_assert_msg(i < a->count, "%s was not there before", b->modules[j].key);
        const wf_module *x = &a->modules[i], *y = &b->modules[j];
        float           *one = sums_of(x, &layer[id], &n), *other = sums_of(y, &layer[id], &n);
        bool near = (x->tensor[WF_TENSOR_MAGNITUDE] != NULL && x->peft_magnitude != y->peft_magnitude) || x->tensor[WF_TENSOR_UP_BIAS] != NULL ||
                    (x->tensor[WF_TENSOR_LORA_E] != NULL && y->tensor[WF_TENSOR_LORA_E] == NULL);
        ck_assert_msg(same_values(one, other, n, near),
                      "%s, once %s, adds something else (%g)", y->key, x->key, relative(one, other, n, NULL));
        if (near) ck_assert_float_eq_tol(x->scale, y->scale, 1e-6f * fabsf(x->scale));
        else ck_assert_float_eq(x->scale, y->scale);
        free(one);
        free(other);
    }
    size_t count = b->count;
    weft_adapter_free(a);
    weft_adapter_free(b);
    weft_report_free(ra);
    weft_report_free(rb);
    return count;
}

static void remove_in(const char *dir, const char *name)
{
    char path[700];
    ck_assert_int_lt(snprintf(path, sizeof path, "%s/%s", dir, name), (int)sizeof path);
    remove(path);
}

/* Open what was written, compare, and take it away again. */
static size_t compare_written(weft_model *model, weft_adapter *a, const char *path, int32_t dialect)
{
    static const char *const components[] = { "unet", "text_encoder", "text_encoder_2" };
    size_t count = 0;

    if (dialect != WEFT_DIALECT_PEFT) {
        weft_adapter *b = opened(path);
        count = compare(model, a, b);
        weft_adapter_free(b);
        remove(path);
        return count;
    }
    for (size_t i = 0; i < WF_LEN(components); i++) {
        char folder[600];
        snprintf(folder, sizeof folder, "%s/%s", path, components[i]);
        if (access(folder, F_OK) != 0) continue;
        weft_adapter *b = opened(folder);
        count += compare(model, a, b);
        weft_adapter_free(b);
        remove_in(folder, "adapter_config.json");
        remove_in(folder, "adapter_model.safetensors");
        rmdir(folder);
    }
    rmdir(path);
    return count;
}

/* Write file `index` in one spelling, read it again and compare; false where the spelling has no form for it. */
static bool round_trip(size_t index, int32_t dialect)
{
    const json_t     *file = json_array_get(files, index);
    const char       *name = json_string_value(json_object_get(file, "name")), *dir = test_dir();
    weft_save_options o = WEFT_SAVE_OPTIONS_INIT;
    weft_model       *model = model_of(file);
    weft_adapter     *a;
    char              path[300];

    o.dialect = dialect;
    snprintf(path, sizeof path, "%s/saved.safetensors", dir);
    a = opened(data_path("%s", json_string_value(json_object_get(file, "path"))));
    weft_status st = weft_adapter_save(a, model, path, &o, &err);
    if (getenv("GOLDEN_SHOW") != NULL)
        printf("%-22s %-9s %s\n", name, dialects[dialect], st == WEFT_OK ? "written" : err.text);
    if (st == WEFT_OK) {
        ck_assert_uint_eq(compare_written(model, a, path, dialect), a->count);
    } else {
        ck_assert_msg(st == WEFT_E_UNSUPPORTED && strstr(err.text, dialects[dialect]) != NULL, "%s: %s", name, err.text);
        rmdir(path);
    }
    test_rmdir(dir); /* nothing of it is left */
    weft_adapter_free(a);
    weft_model_free(model);
    return st == WEFT_OK;
}

START_TEST(what_is_written_is_read_again)
{
    round_trip((size_t)_i / 3, _i % 3 + 1);
}
END_TEST

/* So that a spelling that refuses everything is not one that passes: of these three all have files. */
START_TEST(dialects_have_what_is_theirs)
{
    static const struct { const char *family, *dialects; } rows[] = {
        { "LoRA", "123" }, { "DoRA", "123" }, { "LoHa", "13" }, { "LoKr", "13" }, { "AdaLoRA", "123" }, { "OFT", "13" },
        { "BOFT", "13" }, { "(IA)^3", "13" }, { "GLoRA", "1" }, { "full", "1" }, { "MoSLoRA", "123" },
        { "VeRA", "3" }, { "FourierFT", "3" }, { "HRA", "3" }, { "SHiRA", "3" }, { "VB-LoRA", "3" },
    };

    for (size_t r = 0; r < WF_LEN(rows); r++)
        for (const char *n = rows[r].dialects; *n != '\0'; n++) {
            size_t written = 0;
            for (size_t i = 0; i < json_array_size(files) && written == 0; i++) {
                const char *family = json_string_value(json_object_get(json_array_get(files, i), "family"));
                if (strcmp(family, rows[r].family) == 0) written += round_trip(i, *n - '0');
            }
            ck_assert_msg(written > 0, "no file of %s is written in %s's dialect", rows[r].family, dialects[*n - '0']);
        }
}
END_TEST

/* ---- as the tools opened it ------------------------------------------------------------------ */

static json_t *saved; /* saved.json: what stood in files that diffusers, PEFT and LyCORIS opened (check_saved.py) */

static const json_t *file_called(const char *name)
{
    for (size_t i = 0; i < json_array_size(files); i++)
        if (strcmp(json_string_value(json_object_get(json_array_get(files, i), "name")), name) == 0)
            return json_array_get(files, i);
    ck_abort_msg("no file %s", name);
    return NULL;
}

static void compare_contents(const char *path, const json_t *want)
{
    const json_t *rows = json_object_get(want, "tensors"), *config = json_object_get(want, "config");
    weft_tensors *t = NULL;

    ck_assert_msg(weft_tensors_open(path, NULL, &t, &err) == WEFT_OK, "%s", err.text);
    ck_assert_uint_eq(weft_tensors_count(t), json_array_size(rows));
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t    *row = json_array_get(rows, i), *shape = json_array_get(row, 2);
        const char      *name = json_string_value(json_array_get(row, 0));
        const wf_tensor *got = wf_tensors_find(t, name);
        ck_assert_msg(got != NULL, "%s is not there", name);
        ck_assert_str_eq(wf_dtype_name(got->dtype), json_string_value(json_array_get(row, 1)));
        ck_assert_int_eq(got->rank, (int)json_array_size(shape));
        for (int32_t d = 0; d < got->rank; d++)
            ck_assert_int_eq(got->shape[d], json_integer_value(json_array_get(shape, (size_t)d)));
    }
    for (size_t i = 0; config != NULL && i < wf_tensors_meta_count(t); i++)
        if (strcmp(wf_tensors_meta_key(t, i), "lora_adapter_metadata") == 0)
            ck_assert_str_eq(wf_tensors_meta_value(t, i), json_string_value(config));
    weft_tensors_free(t);
}

static void compare_folder(const char *path, const json_t *want)
{
    const char *component;
    json_t     *inside;
    char        folder[600], file[700], text[16384];

    json_object_foreach((json_t *)want, component, inside) {
        snprintf(folder, sizeof folder, "%s/%s", path, component);
        snprintf(file, sizeof file, "%s/adapter_model.safetensors", folder);
        compare_contents(file, inside);
        snprintf(file, sizeof file, "%s/adapter_config.json", folder);
        FILE *f = fopen(file, "r");
        ck_assert_ptr_nonnull(f);
        text[fread(text, 1, sizeof text - 1, f)] = '\0';
        fclose(f);
        ck_assert_str_eq(text, json_string_value(json_object_get(inside, "config")));
        remove_in(folder, "adapter_config.json");
        remove_in(folder, "adapter_model.safetensors");
        rmdir(folder);
    }
    rmdir(path);
}

START_TEST(files_are_those_that_the_tools_opened)
{
    void       *it = json_object_iter(saved);
    const char *dialect;
    json_t     *want;

    for (int i = 0; i < _i; i++) it = json_object_iter_next(saved, it);
    const json_t *file = file_called(json_object_iter_key(it));
    weft_model   *model = model_of(file);
    weft_adapter *a = opened(data_path("%s", json_string_value(json_object_get(file, "path"))));
    const char   *dir = test_dir();
    char          path[300];

    snprintf(path, sizeof path, "%s/saved.safetensors", dir);
    json_object_foreach(json_object_iter_value(it), dialect, want) {
        weft_save_options o = WEFT_SAVE_OPTIONS_INIT;
        while (o.dialect <= WEFT_DIALECT_PEFT && strcmp(dialects[o.dialect], dialect) != 0) o.dialect++;
        ck_assert_msg(weft_adapter_save(a, model, path, &o, &err) == WEFT_OK, "%s", err.text);
        if (o.dialect == WEFT_DIALECT_PEFT) compare_folder(path, want);
        else compare_contents(path, want);
        remove(path);
    }
    test_rmdir(dir);
    weft_adapter_free(a);
    weft_model_free(model);
}
END_TEST

/* ---- options and failures -------------------------------------------------------------------- */

START_TEST(factors_can_be_halved)
{
    const json_t     *file = file_called("peft_lora");
    weft_save_options o = { sizeof o, WEFT_SAVE_HALF, WEFT_DIALECT_KOHYA, 0 };
    weft_model       *model = model_of(file);
    weft_adapter     *a = opened(data_path("families/peft_lora")), *b;
    const char       *dir = test_dir();
    char              path[300];
    size_t            halved = 0;

    snprintf(path, sizeof path, "%s/half.safetensors", dir);
    ck_assert_msg(weft_adapter_save(a, model, path, &o, &err) == WEFT_OK, "%s", err.text);
    b = opened(path);
    for (size_t i = 0; i < b->count; i++)
        for (int32_t p = 1; p < WF_TENSORS; p++) {
            const wf_tensor *x = a->modules[i].tensor[p], *y = b->modules[i].tensor[p];
            if (y == NULL) continue;
            ck_assert_int_eq(y->dtype, p == WF_TENSOR_ALPHA ? WF_F32 : WF_F16);
            for (size_t j = 0; x != NULL && p != WF_TENSOR_ALPHA && j < y->count; j++) {
                float u, v;
                uint16_t h;
                wf_tensor_read(x, j, 1, &u);
                h = wf_f16_from_f32(u);
                ck_assert(wf_widen_any(&u, &h, WF_F16, 1));
                wf_tensor_read(y, j, 1, &v);
                ck_assert_float_eq(u, v);
                halved++;
            }
        }
    ck_assert_uint_gt(halved, 100);
    remove(path);
    test_rmdir(dir);
    weft_adapter_free(a);
    weft_adapter_free(b);
    weft_model_free(model);
}
END_TEST

/* What F16 has not would come back as infinity; what no type has is written as nothing at all. */
START_TEST(factors_that_overflow_are_refused)
{
    static const struct { float factor, alpha; uint32_t flags; int32_t dialect; const char *said; } cases[] = {
        { 70000, 2, WEFT_SAVE_HALF, WEFT_DIALECT_KOHYA,
          "lora_down.weight holds 70000, which F16 does not: as BF16 or F32 it can be written, without WEFT_SAVE_HALF" },
        { -1e30f, 1e30f, 0, WEFT_DIALECT_KOHYA, "would hold infinity: its scale is beyond reason" }, /* the bias is scaled */
    };
    static const char stem[] = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
    static float down[8], up[8], bias[8];
    weft_model  *model = model_of(file_called("peft_lora"));
    char         keys[3][120];

    snprintf(keys[0], sizeof keys[0], "%s.lora_A.weight", stem);
    snprintf(keys[1], sizeof keys[1], "%s.lora_B.weight", stem);
    snprintf(keys[2], sizeof keys[2], "%s.lora_B.bias", stem);
    for (size_t i = 0; i < WF_LEN(cases); i++) {
        const char          *dir = test_dir();
        char                 path[300];
        weft_save_options    o = { sizeof o, cases[i].flags, cases[i].dialect, 0 };
        weft_adapter_options with = WEFT_ADAPTER_OPTIONS_INIT;
        weft_adapter        *a;
        weft_tensors        *made;
        down[3] = bias[1] = cases[i].factor;
        weft_tensor_out t[] = { tensor(keys[0], down, 2, 1, 8), tensor(keys[1], up, 2, 8, 1), tensor(keys[2], bias, 1, 8, 0) };
        with.alpha = cases[i].alpha;
        ck_assert_int_eq(weft_tensors_create(t, i == 0 ? 2 : 3, NULL, 0, NULL, &made, &err), WEFT_OK);
        ck_assert_msg(weft_adapter_create(made, &with, &a, &err) == WEFT_OK, "%s", err.text);
        snprintf(path, sizeof path, "%s/wild.safetensors", dir);
        ck_assert_int_eq(weft_adapter_save(a, model, path, &o, &err), WEFT_E_UNSUPPORTED);
        ck_assert_msg(strstr(err.text, cases[i].said) != NULL, "%s", err.text);
        check_one_line(&err);
        test_rmdir(dir); /* nothing is left in it */
        weft_adapter_free(a);
        weft_tensors_free(made);
    }
    weft_model_free(model);
}
END_TEST

/* PEFT's alpha of 0 adds nothing, and kohya's is the rank: what adds nothing must not come back at full strength. */
START_TEST(alpha_of_zero_stays_without_effect)
{
    weft_adapter_options  with = WEFT_ADAPTER_OPTIONS_INIT;
    weft_model           *model = model_of(file_called("peft_lora"));
    weft_adapter         *a, *b;
    const char           *dir = test_dir();
    char                  config[300], path[300];
    FILE                 *f;

    snprintf(config, sizeof config, "%s/zero.json", dir);
    snprintf(path, sizeof path, "%s/zero.safetensors", dir);
    ck_assert_ptr_nonnull(f = fopen(config, "w"));
    fputs("{\"lora_alpha\": 0}", f);
    fclose(f);
    with.config = config;
    ck_assert_msg(weft_adapter_open(data_path("families/peft_lora"), &with, &a, &err) == WEFT_OK, "%s", err.text);
    for (size_t i = 0; i < a->count; i++) ck_assert_float_eq(a->modules[i].scale, 0);
    ck_assert_msg(weft_adapter_save(a, model, path, NULL, &err) == WEFT_OK, "%s", err.text);
    b = opened(path);
    for (size_t i = 0; i < b->count; i++) ck_assert_float_lt(b->modules[i].scale, 1e-29f);
    remove(config);
    remove(path);
    test_rmdir(dir);
    weft_adapter_free(a);
    weft_adapter_free(b);
    weft_model_free(model);
}
END_TEST

/* A stored alpha that does not give the scale by kohya's rule is not written there. */
START_TEST(a_stored_alpha_that_says_otherwise_is_replaced)
{
    weft_model   *model = model_of(file_called("peft_lora"));
    weft_adapter *a = opened(data_path("families/peft_lora")), *b;
    const char   *dir = test_dir();
    char          path[300];

    snprintf(path, sizeof path, "%s/stored.safetensors", dir);
    ck_assert_msg(weft_adapter_save(a, model, path, NULL, &err) == WEFT_OK, "%s", err.text);
    weft_adapter_free(a);
    a = opened(path);
    for (size_t i = 0; i < a->count; i++) { /* as a configuration with use_rslora would have it */
        wf_module *m = &a->modules[i];
        ck_assert_ptr_nonnull(m->tensor[WF_TENSOR_ALPHA]);
        m->rslora = true;
        m->scale = (float)(m->alpha / sqrt(m->rank));
    }
    char again[310];
    snprintf(again, sizeof again, "%s.2", path);
    ck_assert_msg(weft_adapter_save(a, model, again, NULL, &err) == WEFT_OK, "%s", err.text);
    b = opened(again);
    ck_assert_uint_eq(compare(model, a, b), a->count);
    weft_adapter_free(a);
    weft_adapter_free(b);
    remove(path);
    remove(again);
    test_rmdir(dir);
    weft_model_free(model);
}
END_TEST

/* LyCORIS reads an alpha beside every rotation, and 0 is no constraint. */
START_TEST(a_rotation_without_a_constraint_says_so)
{
    const json_t *file = file_called("lyco_oft");
    weft_model   *model = model_of(file);
    weft_adapter *a = opened(data_path("%s", json_string_value(json_object_get(file, "path")))), *b;
    const char   *dir = test_dir();
    char          path[300];

    snprintf(path, sizeof path, "%s/free.safetensors", dir);
    for (size_t i = 0; i < a->count; i++) { /* as a file without alpha is read */
        a->modules[i].tensor[WF_TENSOR_ALPHA] = NULL;
        a->modules[i].has_alpha = false;
        a->modules[i].alpha = 0;
    }
    ck_assert_msg(weft_adapter_save(a, model, path, NULL, &err) == WEFT_OK, "%s", err.text);
    b = opened(path);
    for (size_t i = 0; i < b->count; i++) {
        ck_assert_ptr_nonnull(b->modules[i].tensor[WF_TENSOR_ALPHA]);
        ck_assert_float_eq(wf_tensor_scalar(b->modules[i].tensor[WF_TENSOR_ALPHA]), 0);
    }
    ck_assert_uint_eq(compare(model, a, b), a->count);
    weft_adapter_free(a);
    weft_adapter_free(b);
    remove(path);
    test_rmdir(dir);
    weft_model_free(model);
}
END_TEST

/* What described the dialect of a file is not copied into another's. */
START_TEST(metadata_of_one_dialect_stays_there)
{
    weft_save_options o = WEFT_SAVE_OPTIONS_INIT;
    weft_model       *model = model_of(file_called("peft_lora"));
    weft_adapter     *a = opened(data_path("families/peft_lora"));
    const char       *dir = test_dir();
    char              one[300], other[300];
    weft_tensors     *t = NULL;
    bool              there = false;

    snprintf(one, sizeof one, "%s/one.safetensors", dir);
    snprintf(other, sizeof other, "%s/other.safetensors", dir);
    o.dialect = WEFT_DIALECT_DIFFUSERS;
    ck_assert_msg(weft_adapter_save(a, model, one, &o, &err) == WEFT_OK, "%s", err.text);
    weft_adapter_free(a);
    a = opened(one);
    for (size_t i = 0; i < wf_tensors_meta_count(a->tensors); i++)
        there = there || strcmp(wf_tensors_meta_key(a->tensors, i), "lora_adapter_metadata") == 0;
    ck_assert(there);
    ck_assert_msg(weft_adapter_save(a, model, other, NULL, &err) == WEFT_OK, "%s", err.text);
    ck_assert_msg(weft_tensors_open(other, NULL, &t, &err) == WEFT_OK, "%s", err.text);
    ck_assert_uint_eq(wf_tensors_meta_count(t), 0);
    weft_tensors_free(t);
    weft_adapter_free(a);
    remove(one);
    remove(other);
    test_rmdir(dir);
    weft_model_free(model);
}
END_TEST

START_TEST(wrong_arguments_are_refused)
{
    weft_model       *model = model_of(file_called("peft_lora")), *other = model_of(file_called("lyco_sd2_lokr"));
    weft_adapter     *a = opened(data_path("families/peft_lora"));
    weft_save_options o = WEFT_SAVE_OPTIONS_INIT;

    ck_assert_int_eq(weft_adapter_save(NULL, model, "x", NULL, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_adapter_save(a, NULL, "x", NULL, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_adapter_save(a, model, NULL, NULL, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_adapter_save(a, model, "", NULL, &err), WEFT_E_ARG);
    o.dialect = 4;
    ck_assert_int_eq(weft_adapter_save(a, model, "x", &o, &err), WEFT_E_ARG);
    o.dialect = WEFT_DIALECT_DIFFUSERS;
    o.reserved0 = 1;
    ck_assert_int_eq(weft_adapter_save(a, model, "x", &o, &err), WEFT_E_ARG);
    o.reserved0 = 0;
    o.flags = WEFT_SAVE_HALF << 1;
    ck_assert_int_ne(weft_adapter_save(a, model, "x", &o, &err), WEFT_OK);
    o.flags = 0;
    ck_assert_int_eq(weft_adapter_save(a, other, "x", &o, &err), WEFT_E_MISMATCH);
    ck_assert_int_eq(weft_adapter_save(a, model, "/nowhere/at/all", &o, &err), WEFT_E_IO);
    o.dialect = WEFT_DIALECT_PEFT;
    ck_assert_int_eq(weft_adapter_save(a, model, "/nowhere/at/all", &o, &err), WEFT_E_IO);
    check_one_line(&err);
    weft_adapter_free(a);
    weft_model_free(other);
    weft_model_free(model);
}
END_TEST

/* Whichever allocation fails: the status, no leak, nothing half-written. */
START_TEST(saving_without_memory_leaves_nothing)
{
    const json_t        *file = file_called(_i == WEFT_DIALECT_PEFT ? "peft_lokr" : "moslora_peft");
    weft_model          *model = model_of(file);
    test_memory          memory;
    weft_allocator       alloc = test_allocator(&memory);
    weft_adapter_options open = WEFT_ADAPTER_OPTIONS_INIT;
    weft_save_options    o = { sizeof o, WEFT_SAVE_HALF, _i, 0 };
    weft_adapter        *a = NULL;
    const char          *dir = test_dir();
    char                 path[300];
    weft_status          st = WEFT_E_NOMEM;

    open.allocator = &alloc;
    ck_assert_int_eq(weft_adapter_open(data_path("%s", json_string_value(json_object_get(file, "path"))), &open, &a, &err),
                     WEFT_OK);
    size_t before = memory.live_blocks;
    snprintf(path, sizeof path, "%s/saved", dir);
    for (size_t n = 1; st != WEFT_OK; n += n < 40 ? 1 : 7) {
        memory.calls = 0;
        memory.fail_at = n;
        st = weft_adapter_save(a, model, path, &o, &err);
        ck_assert_msg(st == WEFT_OK || st == WEFT_E_NOMEM, "%s", err.text);
        ck_assert_uint_eq(memory.live_blocks, before);
        if (_i != WEFT_DIALECT_PEFT) ck_assert_int_eq(access(path, F_OK) == 0, st == WEFT_OK);
    }
    memory.fail_at = 0;
    o.flags = 0; /* over what is there */
    ck_assert_int_eq(weft_adapter_save(a, model, path, &o, &err), WEFT_OK);
    compare_written(model, a, path, _i);
    test_rmdir(dir);
    weft_adapter_free(a);
    ck_assert_uint_eq(memory.live_blocks, 0);
    weft_model_free(model);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("adapter: saving");
    TCase *t = tcase_create("every family in every dialect");

    json_t *index = json_load_file(data_path("golden/families.json"), 0, NULL);
    json_t *more = json_load_file(data_path("golden/families_peft.json"), 0, NULL);
    json_t *most = json_load_file(data_path("golden/families_peft2.json"), 0, NULL);
    saved = json_load_file(data_path("golden/saved.json"), 0, NULL);
    if (index == NULL || more == NULL || most == NULL || saved == NULL) return EXIT_FAILURE;
    files = json_object_get(index, "files");
    if (json_array_extend(files, json_object_get(more, "files")) != 0) return EXIT_FAILURE;
    if (json_array_extend(files, json_object_get(most, "files")) != 0) return EXIT_FAILURE;
    tcase_add_loop_test(t, what_is_written_is_read_again, 0, 3 * (int)json_array_size(files));
    tcase_add_test(t, dialects_have_what_is_theirs);
    tcase_set_timeout(t, 60);
    suite_add_tcase(s, t);
    t = tcase_create("as the tools opened it");
    tcase_add_loop_test(t, files_are_those_that_the_tools_opened, 0, (int)json_object_size(saved));
    suite_add_tcase(s, t);
    t = tcase_create("options and failures");
    tcase_add_test(t, factors_can_be_halved);
    tcase_add_test(t, factors_that_overflow_are_refused);
    tcase_add_test(t, alpha_of_zero_stays_without_effect);
    tcase_add_test(t, a_stored_alpha_that_says_otherwise_is_replaced);
    tcase_add_test(t, a_rotation_without_a_constraint_says_so);
    tcase_add_test(t, metadata_of_one_dialect_stays_there);
    tcase_add_test(t, wrong_arguments_are_refused);
    tcase_add_loop_test(t, saving_without_memory_leaves_nothing, WEFT_DIALECT_KOHYA, WEFT_DIALECT_PEFT + 1);
    suite_add_tcase(s, t);
    int failed = run_suite(s);
    json_decref(index);
    json_decref(more);
    json_decref(most);
    json_decref(saved);
    return failed;
}
