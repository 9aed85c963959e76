/* Adapters made in memory: what a file holds, given as named tensors, is the same adapter to the
 * last bit, and what is refused of a file is refused in the same words. */
#include "modules.h"

#include "../golden.h"

static json_t *files;

/* The tensors of an opened file as a caller would give them. */
typedef struct given {
    weft_tensor_out *tensors;
    const char     **metadata;
    size_t           count, pairs;
} given;

static given given_by(const weft_tensors *t)
{
    given g = { .count = wf_tensors_count(t), .pairs = wf_tensors_meta_count(t) };

    g.tensors = calloc(g.count + 1, sizeof *g.tensors);
    g.metadata = calloc(2 * g.pairs + 1, sizeof *g.metadata);
    for (size_t i = 0; i < g.count; i++) {
        const wf_tensor *one = wf_tensors_at(t, i);
        weft_tensor_out_init(&g.tensors[i], sizeof g.tensors[i]);
        g.tensors[i].name = one->name;
        g.tensors[i].data = one->data;
        g.tensors[i].dtype = wf_dtype_name(one->dtype);
        g.tensors[i].rank = (size_t)one->rank;
        memcpy(g.tensors[i].shape, one->shape, sizeof one->shape);
    }
    for (size_t i = 0; i < g.pairs; i++) {
        g.metadata[2 * i] = wf_tensors_meta_key(t, i);
        g.metadata[2 * i + 1] = wf_tensors_meta_value(t, i);
    }
    return g;
}

static void drop(given *g)
{
    free(g->tensors);
    free(g->metadata);
}

static char *text_of(const char *path)
{
    const weft_allocator heap = wf_allocator(NULL);
    wf_file              f = WF_FILE_NONE;
    char                *text;

    if (!wf_path_exists(path)) return NULL;
    ck_assert_int_eq(wf_file_read(&f, path, 1 << 20, &heap, &err), WEFT_OK);
    text = strdup((const char *)f.data);
    wf_file_close(&f, &heap);
    return text;
}

static void same_modules(const weft_adapter *a, const weft_adapter *b)
{
    ck_assert_uint_eq(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        const wf_module *x = &a->modules[i], *y = &b->modules[i];
        ck_assert_str_eq(x->name, y->name);
        ck_assert_str_eq(x->key, y->key);
        ck_assert_ptr_eq(x->family, y->family);
        ck_assert_mem_eq(&x->scale, &y->scale, sizeof x->scale);
        ck_assert_mem_eq(&x->alpha, &y->alpha, sizeof x->alpha);
        ck_assert_int_eq(x->rank, y->rank);
        if (x->family->extra_size > 0) ck_assert_mem_eq(x->extra, y->extra, x->family->extra_size);
        for (int32_t k = 0; k < WF_TENSORS; k++) {
            ck_assert((x->tensor[k] == NULL) == (y->tensor[k] == NULL));
            if (x->tensor[k] != NULL && x->tensor[k]->bytes > 0)
                ck_assert_mem_eq(x->tensor[k]->data, y->tensor[k]->data, x->tensor[k]->bytes);
        }
    }
}

/* What both add to every layer that they are bound to. */
static void same_sums(weft_model *model, weft_adapter *a, weft_adapter *b)
{
    size_t          count, bound, bound_b;
    const wf_layer *layers = wf_model_layers(model, &count);
    weft_report    *ra, *rb;

    ck_assert_int_eq(weft_report_create(model, a, &ra, &err), WEFT_OK);
    ck_assert_int_eq(weft_report_create(model, b, &rb, &err), WEFT_OK);
    const wf_slice *x = wf_report_slices(ra, &bound), *y = wf_report_slices(rb, &bound_b);
    ck_assert_uint_eq(bound, bound_b);
    ck_assert_uint_gt(bound, 0);
    for (size_t i = 0; i < bound; i++) {
        const wf_layer  *l = &layers[x[i].layer];
        const wf_module *m = &a->modules[x[i].module], *n = &b->modules[y[i].module];
        size_t floats = (size_t)l->out * (size_t)l->in * (size_t)l->kernel * (size_t)l->kernel;
        float           *one = calloc(2 * floats, sizeof *one), *other = one + floats;
        ck_assert_int_eq(x[i].layer, y[i].layer);
        ck_assert_int_eq(wf_module_add(m, l, (double)m->scale, 1, 0.7, one, heap(), &err), WEFT_OK);
        ck_assert_int_eq(wf_module_add(n, l, (double)n->scale, 1, 0.7, other, heap(), &err),
                         WEFT_OK);
        ck_assert_mem_eq(one, other, floats * sizeof *one);
        free(one);
    }
    weft_report_free(ra);
    weft_report_free(rb);
}

START_TEST(memory_is_as_good_as_a_file)
{
    const json_t        *file = json_array_get(files, (size_t)_i);
    const char          *name = json_string_value(json_object_get(file, "path"));
    char                *path = strdup(data_path("%s", name)), config[600];
    weft_adapter_options o = WEFT_ADAPTER_OPTIONS_INIT;
    weft_adapter        *a = NULL, *b = NULL;
    weft_tensors        *t, *made;
    weft_model          *model;
    bool                 folder = wf_path_is_dir(path);

    ck_assert_msg(weft_adapter_open(path, NULL, &a, &err) == WEFT_OK, "%s", err.text);
    snprintf(config, sizeof config, "%s/adapter_config.json", path);
    ck_assert_msg(weft_tensors_open(wf_tensors_what(a->tensors), NULL, &t, &err) == WEFT_OK, "%s",
                  err.text);
    given g = given_by(t);
    char *text = folder ? text_of(config) : NULL;
    ck_assert_int_eq(weft_tensors_create(g.tensors, g.count, g.metadata, g.pairs, NULL, &made,
                                         &err), WEFT_OK);
    weft_tensors_free(t);
    o.name = a->name;
    o.config_text = text;
    ck_assert_msg(weft_adapter_create(made, &o, &b, &err) == WEFT_OK, "%s", err.text);
    weft_tensors_free(made); /* the adapter keeps it */
    free(text);
    drop(&g);

    weft_adapter_info ia = info_of(a), ib = info_of(b);
    ck_assert_str_eq(ia.name, ib.name);
    ck_assert_str_eq(ia.dialect, ib.dialect);
    ck_assert_str_eq(ia.family, ib.family);
    ck_assert_str_eq(ia.kind, ib.kind);
    ck_assert_int_eq(ia.parameters, ib.parameters);
    ck_assert_int_eq(ia.tokens, ib.tokens);
    ck_assert_int_eq(ib.bytes, 0);
    ck_assert_uint_eq(weft_adapter_metadata_count(a), weft_adapter_metadata_count(b));
    same_modules(a, b);
    ck_assert_int_eq(weft_model_open(data_path("models/%s",
                                               json_string_value(json_object_get(file, "model"))),
                                               NULL, &model, &err), WEFT_OK);
    same_sums(model, a, b);
    weft_model_free(model);
    weft_adapter_free(a);
    weft_adapter_free(b);
    free(path);
}
END_TEST

/* ---- whose memory ---------------------------------------------------------------------------- */

static weft_adapter *two_factors(float *down, float *up, uint32_t flags)
{
    const weft_tensor_out t[] = { tensor("lora_unet_a.lora_down.weight", down, 2, 2, 4),
                                  tensor("lora_unet_a.lora_up.weight", up, 2, 3, 2) };
    weft_tensors_options  o = WEFT_TENSORS_OPTIONS_INIT;
    weft_tensors         *made;
    weft_adapter         *a;

    o.flags = flags;
    o.name = "two factors";
    ck_assert_int_eq(weft_tensors_create(t, 2, NULL, 0, &o, &made, &err), WEFT_OK);
    ck_assert_msg(weft_adapter_create(made, NULL, &a, &err) == WEFT_OK, "%s", err.text);
    ck_assert_str_eq(info_of(a).name, "two factors");
    weft_tensors_free(made);
    return a;
}

START_TEST(data_is_copied_unless_it_is_borrowed)
{
    float         down[8], up[6], v;
    weft_adapter *own, *borrowed;

    memcpy(down, A1, sizeof down);
    memcpy(up, B1, sizeof up);
    own = two_factors(down, up, 0);
    borrowed = two_factors(down, up, WEFT_TENSORS_BORROW);
    down[0] = 9;
    wf_tensor_read(own->modules[0].tensor[WF_TENSOR_DOWN], 0, 1, &v);
    ck_assert_float_eq(v, A1[0]);
    ck_assert_ptr_eq(borrowed->modules[0].tensor[WF_TENSOR_DOWN]->data, down);
    weft_adapter_free(own);
    weft_adapter_free(borrowed);
}
END_TEST

/* ---- refusals -------------------------------------------------------------------------------- */

/* Keys of one file each, and what opening it says. */
static const char *const broken[] = {
    "lora_unet_a.lora_down.weight",
    "lora_unet_a.alpha",
    "lora_unet_a.lora_down.weight lora_unet_a.lora_up.weight unet.a.lora_A.weight",
    "lora_unet_a.hada_w1_a",
    "something.else",
    "emb_params",
    "model.diffusion_model.input_blocks.0.0.weight",
    "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight",
    "image_proj.a",
};

START_TEST(refusals_have_the_same_texts)
{
    weft_adapter_options o = WEFT_ADAPTER_OPTIONS_INIT;
    weft_tensor_out      t[8];
    weft_tensors        *made;
    weft_adapter        *a = adapter_of(broken[_i]);
    weft_error           of_file = err;
    char                 copy[400];
    size_t               n = 0;

    ck_assert_ptr_null(a);
    strcpy(copy, broken[_i]);
    for (char *k = strtok(copy, " "); k != NULL; k = strtok(NULL, " ")) t[n++] = tensor_for(k);
    ck_assert_int_eq(weft_tensors_create(t, n, NULL, 0, NULL, &made, &err), WEFT_OK);
    o.name = "a"; /* as the file was called */
    ck_assert_int_eq(weft_adapter_create(made, &o, &a, &err), of_file.code);
    ck_assert_ptr_null(a);
    ck_assert_str_eq(err.text, of_file.text);
    weft_tensors_free(made);
}
END_TEST

START_TEST(arguments_are_checked)
{
    const weft_tensor_out t = tensor("lora_unet_a.lora_down.weight", A1, 2, 2, 4);
    weft_tensor_out       wrong = t;
    weft_adapter_options  o = WEFT_ADAPTER_OPTIONS_INIT;
    weft_tensors_options  to = WEFT_TENSORS_OPTIONS_INIT;
    const char *const     hole[] = { "k", NULL };
    const weft_tensor_out twice[] = { t, t };
    weft_tensors         *made = NULL;
    weft_adapter         *a = NULL;

    ck_assert_int_eq(weft_tensors_create(NULL, 1, NULL, 0, NULL, &made, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_tensors_create(&t, 1, NULL, 1, NULL, &made, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_tensors_create(&t, 1, hole, 1, NULL, &made, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_tensors_create(&t, 1, NULL, 0, NULL, NULL, &err), WEFT_E_ARG);
    wrong.dtype = "F33";
    ck_assert_int_eq(weft_tensors_create(&wrong, 1, NULL, 0, NULL, &made, &err), WEFT_E_ARG);
    ck_assert_str_eq(err.text, "tensor \"lora_unet_a.lora_down.weight\": \"F33\" is no type");
    wrong = t;
    wrong.data = NULL;
    ck_assert_int_eq(weft_tensors_create(&wrong, 1, NULL, 0, NULL, &made, &err), WEFT_E_ARG);
    to.flags = WEFT_OPEN_COPY;
    ck_assert_int_ne(weft_tensors_create(&t, 1, NULL, 0, &to, &made, &err), WEFT_OK);
    ck_assert_int_eq(weft_tensors_create(twice, 2, NULL, 0, NULL, &made, &err), WEFT_E_FORMAT);
    ck_assert_ptr_null(made);

    ck_assert_int_eq(weft_tensors_create(&t, 1, NULL, 0, NULL, &made, &err), WEFT_OK);
    ck_assert_int_eq(weft_adapter_create(NULL, NULL, &a, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_adapter_create(made, NULL, NULL, &err), WEFT_E_ARG);
    o.flags = WEFT_OPEN_COPY;
    ck_assert_int_eq(weft_adapter_create(made, &o, &a, &err), WEFT_E_ARG);
    o.flags = 0;
    o.config = "c.json";
    o.config_text = "{}";
    ck_assert_int_eq(weft_adapter_create(made, &o, &a, &err), WEFT_E_ARG);
    o.config = NULL;
    ck_assert_int_eq(weft_adapter_create(made, &o, &a, &err), WEFT_E_ARG); /* no key is PEFT's */
    ck_assert_ptr_nonnull(strstr(err.text, "no key is PEFT's"));
    weft_tensors_free(made);
}
END_TEST

START_TEST(configuration_is_given_as_text)
{
    const weft_tensor_out t[] = { tensor("base_model.model.mid_block.a.lora_A.weight", A1, 2, 2, 4),
                                  tensor("base_model.model.mid_block.a.lora_B.weight", B1, 2, 3,
                                         2) };
    weft_adapter_options  o = WEFT_ADAPTER_OPTIONS_INIT;
    weft_tensors         *made;
    weft_adapter         *a;

    ck_assert_int_eq(weft_tensors_create(t, 2, NULL, 0, NULL, &made, &err), WEFT_OK);
    o.config_text = "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 5}";
    ck_assert_msg(weft_adapter_create(made, &o, &a, &err) == WEFT_OK, "%s", err.text);
    ck_assert_float_eq(module_of(a, 0).scale, 2.5f);
    weft_adapter_free(a);
    o.config_text = "{\"peft_type\": ";
    ck_assert_int_eq(weft_adapter_create(made, &o, &a, &err), WEFT_E_FORMAT);
    check_one_line(&err);
    o.config_text = "{\"peft_type\": \"LORA\", \"lora_alpha\": Infinity}"; /* as Python writes what
                                                                              has no bound */
    ck_assert_int_eq(weft_adapter_create(made, &o, &a, &err), WEFT_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(err.text, "is not a finite number"));
    weft_tensors_free(made);
}
END_TEST

START_TEST(making_without_memory_says_so)
{
    const weft_tensor_out t[] = { tensor("unet.a.lora_A.weight", A1, 2, 2, 4),
                                  tensor("unet.a.lora_B.weight", B1, 2, 3, 2) };
    const char *const     meta[] = { "lora_adapter_metadata",
                                     "{\"unet.r\": 2, \"unet.lora_alpha\": 4}" };
    weft_tensors_options  to = WEFT_TENSORS_OPTIONS_INIT;
    weft_adapter_options  o = WEFT_ADAPTER_OPTIONS_INIT;
    test_memory           m;
    weft_allocator        alloc = test_allocator(&m);
    weft_status           st = WEFT_E_NOMEM;

    to.allocator = o.allocator = &alloc;
    for (size_t n = 1; st == WEFT_E_NOMEM; n++) {
        weft_tensors *made = NULL;
        weft_adapter *a = NULL;
        m = (test_memory){ .fail_at = n };
        st = weft_tensors_create(t, 2, meta, 1, &to, &made, &err);
        if (st == WEFT_OK) st = weft_adapter_create(made, &o, &a, &err);
        ck_assert_msg(st == WEFT_OK || st == WEFT_E_NOMEM, "allocation %zu: %s", n, err.text);
        if (st == WEFT_OK) ck_assert_float_eq(module_of(a, 0).scale, 2);
        weft_tensors_free(made);
        weft_adapter_free(a);
        ck_assert_uint_eq(m.live_blocks, 0);
    }
}
END_TEST

int main(void)
{
    Suite  *s = suite_create("adapter: made in memory");
    TCase  *t = tcase_create("equal to files");
    json_t *index = json_load_file(data_path("golden/families.json"), 0, NULL);

    if (index == NULL) return EXIT_FAILURE;
    files = json_object_get(index, "files");
    tcase_add_loop_test(t, memory_is_as_good_as_a_file, 0, (int)json_array_size(files));
    tcase_add_test(t, data_is_copied_unless_it_is_borrowed);
    tcase_add_test(t, configuration_is_given_as_text);
    suite_add_tcase(s, t);
    t = tcase_create("refusals");
    tcase_add_loop_test(t, refusals_have_the_same_texts, 0, (int)WF_LEN(broken));
    tcase_add_test(t, arguments_are_checked);
    tcase_add_test(t, making_without_memory_says_so);
    suite_add_tcase(s, t);
    int failed = run_suite(s);
    json_decref(index);
    return failed;
}
