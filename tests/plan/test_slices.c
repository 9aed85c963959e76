/* Plans over bindings that are slices of layers: queries, keys and values in one module of a file,
 * and the other way round, several modules at one layer. No dialect that is read makes such
 * bindings yet, so they are made here, and held to adapters that have a module for each layer. */
#include "fixture.h"

static weft_model *model;

static void setup(void) { model = open_model("tiny-sd1"); }
static void teardown(void) { weft_model_free(model); }

enum { RANK = 3 };

/* The first self-attention of the UNet: its queries, keys and values have one shape. */
static void find_qkv(int64_t qkv[3])
{
    static const char *const names[] = { "attn1.to_q", "attn1.to_k", "attn1.to_v" };
    size_t          count;
    const wf_layer *layers = wf_model_layers(model, &count);

    for (int i = 0; i < 3; i++) {
        qkv[i] = -1;
        for (size_t l = 0; l < count && qkv[i] < 0; l++)
            if (strncmp(layers[l].name, "unet.", 5) == 0 &&
                strstr(layers[l].name, names[i]) != NULL)
                qkv[i] = (int64_t)l;
        ck_assert_int_ge(qkv[i], 0);
        ck_assert_int_eq(layers[qkv[i]].out, layers[qkv[0]].out);
        ck_assert_int_eq(layers[qkv[i]].in, layers[qkv[0]].in);
    }
}

static float number(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return (float)(*state >> 8) / 8388608.0f - 1;
}

/* One down factor, and 3 * out rows of the up factor: in one module, or in three. */
static weft_adapter *make_adapter(const int64_t qkv[3], bool fused, const char *name)
{
    const wf_layer *l = &wf_model_layers(model, &(size_t){ 0 })[qkv[0]];
    size_t          in = (size_t)l->in, out = (size_t)l->out;
    maker          *m = make(model);
    float          *down[3], *up[3];
    uint32_t        a = 7, b = 11;

    if (fused) {
        down[0] = put(m, "lora_unet_fused_to_qkv", ".lora_down.weight", RANK, l->in, 1, 2);
        up[0] = put(m, "lora_unet_fused_to_qkv", ".lora_up.weight", 3 * l->out, RANK, 1, 2);
        *put(m, "lora_unet_fused_to_qkv", ".alpha", 1, 1, 1, 0) = 1.5f;
    } else {
        for (int i = 0; i < 3; i++) module_of(m, qkv[i], RANK, 1.5f, &down[i], &up[i]);
    }
    for (size_t i = 0; i < RANK * in; i++) {
        float v = number(&a);
        for (int k = 0; k < (fused ? 1 : 3); k++) down[k][i] = v;
    }
    for (size_t i = 0; i < 3 * out * RANK; i++) {
        float v = number(&b);
        if (fused) up[0][i] = v;
        else up[i / (out * RANK)][i % (out * RANK)] = v;
    }
    return finish(m, name);
}

/* A plan with this adapter and these slices, and beside it whatever `partner` adds. */
static weft_plan *plan_of(weft_adapter *a, const wf_slice *slices, size_t n, weft_adapter *partner,
                          int32_t path)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_add_options  add = WEFT_ADD_OPTIONS_INIT;
    weft_adapter     *first = partner;
    weft_plan        *p;

    o.path = path;
    OK(weft_plan_create(model, &o, &p, &err));
    OK(weft_plan_add(p, first, 0.5f, NULL, &err)); /* its binding is replaced by ours */
    wf_binding_drop(p->entry[0].bound);
    p->entry[0].bound = NULL;
    OK(wf_binding_make(&p->entry[0].bound, model, a, slices, n, &add, &p->alloc, &err));
    OK(weft_plan_add(p, partner, 0.25f, NULL, &err));
    return p;
}

static weft_plan *plain(weft_adapter *a, weft_adapter *partner, int32_t path)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan        *p;

    o.path = path;
    OK(weft_plan_create(model, &o, &p, &err));
    OK(weft_plan_add(p, a, 0.5f, NULL, &err));
    OK(weft_plan_add(p, partner, 0.25f, NULL, &err));
    return p;
}

/* Layer by layer: the same merged weight. */
static void same_weights(const weft_plan *p, const weft_plan *q, double limit)
{
    size_t         n, m;
    const patched *a = patches_of(p, &n), *b = patches_of(q, &m);

    ck_assert_uint_eq(n, m);
    for (size_t i = 0; i < n; i++) {
        const wf_layer *l = &wf_model_layers(model, &(size_t){ 0 })[a[i].layer];
        size_t          floats = (size_t)l->out * wf_layer_columns(l);
        float          *x = malloc(floats * sizeof *x), *y = malloc(floats * sizeof *y);
        ck_assert_int_eq(a[i].layer, b[i].layer);
        OK(wf_plan_patched_weight(p, a[i].patch, cells_of(p, &a[i]), NULL, x, NULL, &p->alloc, &err));
        OK(wf_plan_patched_weight(q, b[i].patch, cells_of(q, &b[i]), NULL, y, NULL, &q->alloc, &err));
        double most = 0, far = 0;
        for (size_t k = 0; k < floats; k++) {
            most = fmax(most, fabs((double)y[k]));
            far = fmax(far, fabs((double)x[k] - (double)y[k]));
        }
        ck_assert_msg(far <= limit * most, "%s: %g", l->name, far / most);
        free(x);
        free(y);
    }
}

START_TEST(one_module_serves_three_layers)
{
    int64_t qkv[3];
    find_qkv(qkv);
    const wf_layer *l = &wf_model_layers(model, &(size_t){ 0 })[qkv[0]];
    weft_adapter *fused = make_adapter(qkv, true, "fused"),
                 *split = make_adapter(qkv, false, "split");
    weft_adapter   *partner = adapter_on(model, "partner", ATTENTION, 2, 0.3f, 5);
    wf_slice        slices[3];

    for (int i = 0; i < 3; i++)
        slices[i] = (wf_slice){ .module = 0,
                                .layer = (int32_t)qkv[i],
                                .row = 0,
                                .rows = l->out,
                                .from = i * l->out,
                                .of = 3 * l->out };
    for (int i = 0; i < 2; i++) /* in the order of the layers */
        for (int k = 0; k < 2; k++)
            if (slices[k].layer > slices[k + 1].layer) {
                wf_slice keep = slices[k];
                slices[k] = slices[k + 1];
                slices[k + 1] = keep;
            }
    for (int32_t path = WEFT_PATH_SIDE; path <= WEFT_PATH_MERGED; path++)
        for (int klora = 0; klora < 2; klora++) {
            weft_plan *p = plan_of(fused, slices, 3, partner, path),
                      *q = plain(split, partner, path);
            if (klora) OK(weft_plan_klora(p, NULL, &err));
            if (klora) OK(weft_plan_klora(q, NULL, &err));
            OK(weft_plan_seal(p, 3, &err));
            OK(weft_plan_seal(q, 3, &err));
            same_weights(p, q, 0);
            for (int i = 0; i < 3; i++)
                for (int32_t n = 0; n < 3; n++)
                    ck_assert_float_eq(cell(p, n, 0, qkv[i], 0), cell(q, n, 0, qkv[i], 0));
            if (path == WEFT_PATH_SIDE) { /* factor by factor */
                size_t         n, m;
                const patched *a = patches_of(p, &n), *b = patches_of(q, &m);
                for (size_t i = 0; i < n; i++) {
                    size_t r = (size_t)a[i].stack.rank, K = wf_layer_columns(l);
                    ck_assert_int_eq(a[i].stack.rank, b[i].stack.rank);
                    if (a[i].layer != qkv[0] && a[i].layer != qkv[1] && a[i].layer != qkv[2])
                        continue;
                    ck_assert_mem_eq(a[i].stack.down, b[i].stack.down, r * K * sizeof(float));
                    ck_assert_mem_eq(a[i].stack.up, b[i].stack.up,
                                     r * (size_t)l->out * sizeof(float));
                }
            }
            if (klora)
                for (int i = 0; i < 3; i++) {
                    weft_klora_score x = WEFT_KLORA_SCORE_INIT, y = WEFT_KLORA_SCORE_INIT;
                    OK(weft_plan_klora_score(p, 0, qkv[i], &x, &err));
                    OK(weft_plan_klora_score(q, 0, qkv[i], &y, &err));
                    ck_assert_int_eq(x.top_k, y.top_k);
                    ck_assert_double_eq_tol(x.content, y.content, 1e-5 * y.content);
                    ck_assert_double_eq_tol(x.style, y.style, 1e-5 * y.style);
                }
            weft_plan_free(p);
            weft_plan_free(q);
        }
    weft_adapter_free(fused);
    weft_adapter_free(split);
    weft_adapter_free(partner);
}
END_TEST

/* Rows 0 .. h of a layer from one module and the rest from another: together the module that has
 * all. */
START_TEST(a_layer_takes_several_modules)
{
    int64_t qkv[3];
    find_qkv(qkv);
    const wf_layer *l = &wf_model_layers(model, &(size_t){ 0 })[qkv[0]];
    weft_adapter   *whole = make_adapter(qkv, false, "whole");
    weft_adapter   *partner = adapter_on(model, "partner", ATTENTION, 2, 0.3f, 5);
    int32_t         half = l->out / 2;
    wf_slice        slices[] = {
        { .module = 0, .layer = (int32_t)qkv[0], .row = 0, .rows = half, .from = 0, .of = l->out },
        { .module = 0, .layer = (int32_t)qkv[0], .row = half, .rows = l->out - half, .from = half, .of = l->out },
    };
    weft_add_options only = WEFT_ADD_OPTIONS_INIT;

    for (size_t i = 0; i < wf_adapter_modules(whole); i++)
        if (strstr(wf_adapter_module(whole, i)->key, "to_q") != NULL)
            slices[0].module = slices[1].module = (int32_t)i;
    only.select = l->name;
    for (int32_t path = WEFT_PATH_SIDE; path <= WEFT_PATH_MERGED; path++) {
        weft_plan *p = plan_of(whole, slices, 2, partner, path), *q;
        weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
        o.path = path;
        OK(weft_plan_create(model, &o, &q, &err));
        OK(weft_plan_add(q, whole, 0.5f, &only, &err));
        OK(weft_plan_add(q, partner, 0.25f, NULL, &err));
        OK(weft_plan_seal(p, 2, &err));
        OK(weft_plan_seal(q, 2, &err));
        ck_assert_uint_eq(all_slots(p), all_slots(q) + 1); /* a slot for each module */
        ck_assert_float_eq(cell(p, 0, 0, qkv[0], 0), 0.5f);
        ck_assert_int_eq(info_of(p).touched_layers, info_of(q).touched_layers);
        same_weights(p, q, 1e-6);
        weft_plan_free(p);
        weft_plan_free(q);
    }
    weft_adapter_free(whole);
    weft_adapter_free(partner);
}
END_TEST

int main(void)
{
    Suite   *s = suite_create("slices");
    TCase   *t = tcase_create("slices");
    SRunner *r;
    int      failed;

    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, one_module_serves_three_layers);
    tcase_add_test(t, a_layer_takes_several_modules);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
