/* Plans over adapters of every form: what is merged, what is kept and counted, where a weight stands, what K-LoRA leaves. */
#include "fixture.h"
#include "model/networks.h"

static weft_model *model;

static weft_adapter *family(const char *file)
{
    weft_adapter *a;
    char          path[256];

    snprintf(path, sizeof path, "data/families/%s", file);
    OK(weft_adapter_open(test_path(path), NULL, &a, &err));
    return a;
}

static void setup(void) { model = open_model("tiny-sd1"); }
static void teardown(void) { weft_model_free(model); }

static weft_plan *plan_of(const char *file, float weight, uint32_t flags, int32_t path)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_add_options  add = WEFT_ADD_OPTIONS_INIT;
    weft_adapter     *a = family(file);
    weft_plan        *p;

    o.path = path;
    add.flags = flags;
    OK(weft_plan_create(model, &o, &p, &err));
    OK(weft_plan_add(p, a, weight, &add, &err));
    weft_adapter_free(a);
    return p;
}

/* Bytes of what a stack of one part must hold in this form. */
static size_t bytes_of(const wf_layer *l, const patched *t)
{
    const wf_module *m = t->part[0].module;
    size_t           K = wf_layer_columns(l), out = (size_t)l->out, n = 0;
    int32_t          size[4];
    bool             bias;

    OK(wf_module_add_bias(m, l, 1, 1, NULL, &bias, &err));
    switch (wf_module_form(m, l)) {
    case WF_FORM_PAIR: n = (size_t)wf_module_pair_rank(m) * (K + out); break;
    case WF_FORM_KRON:
        m->family->kron_size(m, l, size);
        n = (size_t)(size[0] * size[1]) + (size_t)(size[2] * size[3]) * (K / (size_t)l->in);
        break;
    default: n = out * K; break;
    }
    return (n + (bias ? out : 0)) * sizeof(float);
}

/* A matrix is merged wherever its coefficient stays the same, and then nobody holds it beside the copy; the rest is
 * counted to the byte. */
START_TEST(matrices_are_merged_and_every_byte_is_counted)
{
    static const char *const files[] = { "lyco_full.safetensors", "lyco_dora.safetensors", "lyco_lokr.safetensors",
                                         "lyco_oft.safetensors", "lyco_norm.safetensors", "lyco_mixed.safetensors",
                                         "peft_ia3", "kohya_bias.safetensors" };
    for (size_t f = 0; f < WF_LEN(files); f++)
        for (int32_t path = WEFT_PATH_AUTO; path <= WEFT_PATH_MERGED; path++) {
            weft_plan        *p = plan_of(files[f], 0.8f, 0, path);
            size_t            count, side = 0, merged = 0;
            const wf_layer   *layers = wf_model_layers(model, &count);
            const patched *t;

            OK(weft_plan_seal(p, 3, &err));
            t = patches_of(p, &count);
            ck_assert_uint_gt(count, 0);
            for (size_t i = 0; i < count; i++) {
                const wf_layer *l = &layers[t[i].layer];
                int32_t         form = wf_module_form(t[i].part[0].module, l);
                bool            may = l->component == WEFT_COMPONENT_DENOISER && form != WF_FORM_NORM && path != WEFT_PATH_SIDE;
                if (!may) ck_assert(!t[i].merged);
                if (may && (path == WEFT_PATH_MERGED || form == WF_FORM_DENSE)) ck_assert(t[i].merged);
                if (t[i].merged) {
                    ck_assert_int_eq(t[i].stack.rank, 0);
                    ck_assert_ptr_null(t[i].stack.nonpair);
                    merged += wf_patch_merged_floats(t[i].patch, l) * sizeof(float);
                } else {
                    side += bytes_of(l, &t[i]);
                }
            }
            ck_assert_int_eq(info_of(p).side_bytes, (int64_t)side);
            ck_assert_int_eq(info_of(p).merged_bytes, (int64_t)merged);
            weft_plan_free(p);
        }
}
END_TEST

static bool same_parts(const weft_plan *p, const weft_plan *q)
{
    size_t            n, m, count;
    const patched *a = patches_of(p, &n), *b = patches_of(q, &m);
    const wf_layer   *layers = wf_model_layers(model, &count);

    ck_assert_uint_eq(n, m);
    for (size_t i = 0; i < n; i++) {
        const wf_layer *l = &layers[a[i].layer];
        size_t          floats = (size_t)l->out * wf_layer_columns(l);
        ck_assert_ptr_nonnull(a[i].stack.nonpair);
        if (memcmp(a[i].stack.nonpair[0].dense, b[i].stack.nonpair[0].dense, floats * sizeof(float)) != 0) return false;
    }
    return true;
}

/* PEFT's rule: the cell is 1, the weight stands inside the norm, and a copy with another weight makes its matrices anew;
 * one with the same weight shares them. */
START_TEST(peft_dora_weighs_inside)
{
    weft_plan *p = plan_of("peft_dora", 0.6f, WEFT_ADD_PEFT_DORA, WEFT_PATH_SIDE), *q, *r;
    weft_plan *fresh = plan_of("peft_dora", 0.3f, WEFT_ADD_PEFT_DORA, WEFT_PATH_SIDE);
    size_t     n;

    OK(weft_plan_seal(p, 2, &err));
    OK(weft_plan_seal(fresh, 2, &err));
    for (size_t i = 0; i < (patches_of(p, &n), n); i++) {
        const patched *t = &patches_of(p, &n)[i];
        ck_assert_double_eq(t->part[0].inside, (double)0.6f);
        ck_assert_float_eq(cell(p, 0, 0, t->layer, 0), 1);
    }
    ck_assert(!same_parts(p, fresh));

    OK(weft_plan_copy(p, &q, &err));
    OK(weft_plan_set_weight(q, 0, 0.3f, NULL, &err));
    OK(weft_plan_seal(q, 2, &err));
    ck_assert(same_parts(q, fresh));
    OK(weft_plan_copy(q, &r, &err));
    OK(weft_plan_seal(r, 5, &err));
    ck_assert_ptr_eq(patches_of(r, &n)[0].stack.nonpair, patches_of(q, &n)[0].stack.nonpair);
    weft_plan_free(r);

    OK(weft_plan_copy(p, &r, &err)); /* weight 0 is not there at all, under this rule as well */
    OK(weft_plan_set_weight(r, 0, 0, NULL, &err));
    OK(weft_plan_seal(r, 2, &err));
    ck_assert_uint_eq(all_slots(r), 0);
    weft_plan_free(r), weft_plan_free(q), weft_plan_free(p), weft_plan_free(fresh);
}
END_TEST

/* Without the flag the weight is the cell's, whatever it is, and the matrices do not depend on it. */
START_TEST(dora_is_a_straight_line_otherwise)
{
    weft_plan *p = plan_of("peft_dora", 0.6f, 0, WEFT_PATH_SIDE), *q = plan_of("peft_dora", -2, 0, WEFT_PATH_SIDE);
    size_t     n;

    OK(weft_plan_seal(p, 2, &err));
    OK(weft_plan_seal(q, 2, &err));
    ck_assert_double_eq(patches_of(p, &n)[0].part[0].inside, 1);
    ck_assert_float_eq(cell(q, 0, 0, patches_of(q, &n)[0].layer, 0), -2);
    ck_assert(same_parts(p, q));
    weft_plan_free(p), weft_plan_free(q);
}
END_TEST

/* The bias has no norm: it stays under the user's weight, side by side and merged. */
START_TEST(peft_dora_weighs_the_bias_too)
{
    const wf_layer *l = wf_model_layers(model, &(size_t){ 0 });
    char            stem[512];
    float          *down, *up;

    while (l->bias == NULL || l->component != WEFT_COMPONENT_DENOISER || l->kind != WEFT_LAYER_LINEAR) l++;
    maker *m = make(model);
    module_of(m, l->id, 2, 0, &down, &up);
    ck_assert(wf_name_kohya(model, l, stem, sizeof stem));
    float *g = put(m, stem, ".dora_scale", l->out, 1, 1, 2), *db = put(m, stem, ".diff_b", l->out, 1, 1, 1);
    for (int32_t o = 0; o < l->out; o++) g[o] = 1, db[o] = (float)(o + 1);
    weft_adapter *a = finish(m, "bias");
    for (int32_t path = WEFT_PATH_SIDE; path <= WEFT_PATH_MERGED; path++) {
        weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
        weft_add_options  add = WEFT_ADD_OPTIONS_INIT;
        weft_plan        *p;
        size_t            count, floats = (size_t)l->out * wf_layer_columns(l);
        float            *sum = calloc(floats, sizeof *sum), *bias = calloc((size_t)l->out, sizeof *bias);
        o.path = path;
        add.flags = WEFT_ADD_PEFT_DORA;
        OK(weft_plan_create(model, &o, &p, &err));
        OK(weft_plan_add(p, a, 0.5f, &add, &err));
        OK(weft_plan_seal(p, 1, &err));
        const patched *t = patches_of(p, &count);
        ck_assert_uint_eq(count, 1);
        const wf_cell *row = row_of(p, 0);
        if (t->merged) OK(wf_patch_add(t->patch, l, row, NULL, sum, bias, &p->alloc, &err));
        for (int32_t i = 0; i < l->out; i++) {
            float got = t->merged ? bias[i] : row[0].number * t->stack.nonpair[0].bias[i];
            ck_assert_float_eq(got, 0.5f * (float)(i + 1));
        }
        free(sum);
        free(bias);
        weft_plan_free(p);
    }
    weft_adapter_free(a);
}
END_TEST

/* One adapter puts a weight of 4 and a bias of 6 in the place of a layer's, another 8 and 10, each
 * at half strength. One after another a bias b becomes (b + 6) / 2 and then
 * ((b + 6) / 2 + 10) / 2 = b / 4 + 6.5; each on the base's, b + (6 - b) / 2 + (10 - b) / 2 = 8.
 * The weights in the same way: w / 4 + 5, or 6. */
START_TEST(what_is_replaced_in_a_stack_is_what_there_is_by_then)
{
    const wf_layer *l = wf_model_layers(model, &(size_t){ 0 });
    weft_adapter   *a[2];

    while (strstr(l->name, "attn2.to_out.0") == NULL) l++;
    size_t floats = (size_t)l->out * wf_layer_columns(l);
    for (int i = 0; i < 2; i++) {
        maker *m = make(model);
        float *w = put(m, l->name, ".weight", l->out, l->in, 1, 2);
        float *b = put(m, l->name, ".bias", l->out, 1, 1, 1);
        for (size_t k = 0; k < floats; k++) w[k] = i == 0 ? 4 : 8;
        for (int32_t o = 0; o < l->out; o++) b[o] = i == 0 ? 6 : 10;
        a[i] = finish(m, i == 0 ? "first" : "then");
    }
    float *base = malloc(floats * sizeof *base), *w = malloc(floats * sizeof *w);
    float *b = malloc((size_t)l->out * sizeof *b);
    wf_layer_load(base, wf_model_networks(model)->kernels, l);
    for (int stack = 0; stack < 2; stack++) {
        weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
        weft_plan        *p;
        size_t            count;

        o.mixed = stack ? WEFT_MIXED_STACK : WEFT_MIXED_DELTA;
        OK(weft_plan_create(model, &o, &p, &err));
        for (int i = 0; i < 2; i++) OK(weft_plan_add(p, a[i], 0.5f, NULL, &err));
        OK(weft_plan_seal(p, 1, &err));
        const patched *t = patches_of(p, &count);
        ck_assert_uint_eq(count, 1);
        OK(wf_plan_patched_weight(p, t->patch, row_of(p, 0), NULL, w, b, &p->alloc, &err));
        for (size_t k = 0; k < floats; k++)
            ck_assert_float_eq_tol(w[k], stack ? base[k] / 4 + 5 : 6, 1e-5f);
        for (int32_t k = 0; k < l->out; k++)
            ck_assert_float_eq_tol(b[k], stack ? l->bias[k] / 4 + 6.5f : 8, 1e-5f);
        weft_plan_free(p);
    }
    free(base), free(w), free(b);
    for (int i = 0; i < 2; i++) weft_adapter_free(a[i]);
}
END_TEST

/* K-LoRA governs layers with a product: normalisations stay the model's, and the plan says so. */
START_TEST(klora_leaves_normalisations_alone)
{
    weft_adapter   *full = family("lyco_mixed.safetensors"), *lora = family("lyco_locon.safetensors");
    weft_plan      *p = new_plan(model);
    size_t          count;
    const wf_layer *layers = wf_model_layers(model, &count);
    char            text[20000];
    int             norms = 0, others = 0;

    OK(weft_plan_add(p, full, 1, NULL, &err));
    OK(weft_plan_add(p, lora, 1, NULL, &err));
    OK(weft_plan_klora(p, NULL, &err));
    OK(weft_plan_seal(p, 4, &err));
    for (size_t l = 0; l < count; l++) {
        weft_klora_score s = WEFT_KLORA_SCORE_INIT;
        bool             here = wf_plan_module(p, 0, (int32_t)l) != NULL && layers[l].component == WEFT_COMPONENT_DENOISER;
        OK(weft_plan_klora_score(p, 0, (int64_t)l, &s, &err));
        if (layers[l].kind == WEFT_LAYER_NORM) {
            ck_assert_int_eq(s.position, 0);
            for (int32_t n = 0; n < 4; n++) ck_assert_float_eq(cell(p, n, 0, (int64_t)l, 0), 0);
            norms += here;
        } else if (here) {
            ck_assert_int_gt(s.position, 0);
            ck_assert_int_gt((int)s.top_k, 0);
            ck_assert_double_gt(s.content, 0);
            others++;
        }
    }
    ck_assert_int_gt(norms, 0);
    ck_assert_int_gt(others, 0);
    OK(weft_plan_text(p, text, sizeof text, NULL, &err));
    ck_assert_ptr_nonnull(strstr(text, "normalisations of lyco_mixed do not act"));
    weft_plan_free(p);
    weft_adapter_free(full);
    weft_adapter_free(lora);
}
END_TEST

/* Allocations that fail leave an error and nothing else. */
START_TEST(no_memory_leaves_nothing)
{
    static const char *const files[] = { "lyco_mixed.safetensors", "peft_dora", "lyco_oft_rescale.safetensors" };
    for (size_t f = 0; f < WF_LEN(files); f++) {
        weft_adapter *a = family(files[f]);
        weft_status   st = WEFT_E_NOMEM;
        long          n = 0;
        for (; st == WEFT_E_NOMEM; n++) {
            counter              c = { 0, 0, n };
            const weft_allocator alloc = { counter_alloc, counter_free, &c };
            weft_plan_options    o = WEFT_PLAN_OPTIONS_INIT;
            weft_plan           *p = NULL;
            o.allocator = &alloc;
            o.path = WEFT_PATH_SIDE;
            st = weft_plan_create(model, &o, &p, &err);
            if (st == WEFT_OK) st = weft_plan_add(p, a, 1, NULL, &err);
            if (st == WEFT_OK) st = weft_plan_seal(p, 2, &err);
            weft_plan_free(p);
            ck_assert_int_eq((int)c.live, 0);
            ck_assert_msg(n < 5000, "%s: never enough", files[f]);
        }
        ck_assert_msg(st == WEFT_OK, "%s", err.text);
        ck_assert_int_gt(n, 20);
        weft_adapter_free(a);
    }
}
END_TEST

int main(void)
{
    Suite   *s = suite_create("plans of every form");
    TCase   *t = tcase_create("forms");
    SRunner *r;
    int      failed;

    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, matrices_are_merged_and_every_byte_is_counted);
    tcase_add_test(t, peft_dora_weighs_inside);
    tcase_add_test(t, peft_dora_weighs_the_bias_too);
    tcase_add_test(t, dora_is_a_straight_line_otherwise);
    tcase_add_test(t, what_is_replaced_in_a_stack_is_what_there_is_by_then);
    tcase_add_test(t, klora_leaves_normalisations_alone);
    tcase_add_test(t, no_memory_leaves_nothing);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
