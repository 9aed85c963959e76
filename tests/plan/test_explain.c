/* test_explain.c - why layers go their way, how much of each adapter acts, and what a plan shows of itself. */
#include "fixture.h"
#include "golden.h"

static weft_model   *model;
static weft_adapter *ink, *clay; /* rank 2 and 3, everywhere */
static const wf_layer *layers;
static size_t        count;

static void setup(void)
{
    model = open_model("tiny-sd1");
    layers = wf_model_layers(model, &count);
    ink = adapter_on(model, "ink", ATTENTION | OTHERS | TEXT, 2, 0.3f, 1);
    clay = adapter_on(model, "clay", ATTENTION | OTHERS | TEXT, 3, 0.2f, 2);
}

static void teardown(void)
{
    weft_adapter_free(ink);
    weft_adapter_free(clay);
    weft_model_free(model);
}

static weft_plan *both(int32_t path)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan        *p;
    o.path = path;
    OK(weft_plan_create(model, &o, &p, &err));
    OK(weft_plan_add(p, ink, 0.7f, NULL, &err));
    OK(weft_plan_add(p, clay, -0.5f, NULL, &err));
    return p;
}

static weft_layer_use use_of(const weft_plan *p, int32_t phase, int64_t layer)
{
    weft_layer_use u = WEFT_LAYER_USE_INIT;
    OK(weft_plan_layer(p, phase, layer, &u, &err));
    return u;
}

/* A layer whose side path at a rank is few products beside its own, or many. */
static int64_t layer_with(int rank, bool cheap)
{
    for (size_t l = 0; l < count; l++) {
        double K = (double)wf_layer_columns(&layers[l]), out = layers[l].out;
        if ((kind_of(&layers[l]) & (ATTENTION | OTHERS)) && (rank * (K + out) <= K * out / 8) == cheap)
            return (int64_t)l;
    }
    ck_abort_msg("no such layer");
    return -1;
}

/* ---- reasons --------------------------------------------------------------------------------- */

START_TEST(cheap_products_stay_beside_the_weight)
{
    weft_adapter *thin = adapter_on(model, "thin", ATTENTION | OTHERS, 1, 0.3f, 3);
    weft_plan    *p = new_plan(model);
    int64_t       cheap = layer_with(1, true), dear = layer_with(5, false), text = nth_layer(model, TEXT, 0);

    OK(weft_plan_add(p, thin, 1, NULL, &err));
    OK(weft_plan_seal(p, 4, &err));
    weft_layer_use u = use_of(p, 0, cheap);
    double K = (double)wf_layer_columns(&layers[cheap]), out = layers[cheap].out;
    ck_assert_int_eq(u.path, WEFT_PATH_SIDE);
    ck_assert_int_eq(u.reason, WEFT_REASON_CHEAP);
    ck_assert_int_eq(u.parts, 1);
    ck_assert_int_eq(u.rank, 1);
    ck_assert_double_eq_tol(u.work, (K + out) / (K * out), 1e-12);
    ck_assert_int_eq(u.bytes, (int64_t)(4 * (K + out)));
    ck_assert_str_eq(u.words, "the adapters' products are at most an eighth of the layer's");
    weft_plan_free(p);
    weft_adapter_free(thin);

    p = both(WEFT_PATH_AUTO);
    OK(weft_plan_seal(p, 4, &err));
    u = use_of(p, 0, dear);
    ck_assert_int_eq(u.parts, 2);
    ck_assert_int_eq(u.rank, 5);
    ck_assert_int_eq(u.path, WEFT_PATH_MERGED);
    ck_assert_int_eq(u.reason, WEFT_REASON_PRODUCTS);
    ck_assert_int_eq(u.bytes, (int64_t)(4 * wf_layer_columns(&layers[dear]) * (size_t)layers[dear].out));
    u = use_of(p, 0, text);
    ck_assert_int_eq(u.path, WEFT_PATH_SIDE);
    ck_assert_int_eq(u.reason, WEFT_REASON_TEXT);
    weft_plan_free(p);

    p = both(WEFT_PATH_SIDE);
    OK(weft_plan_seal(p, 4, &err));
    ck_assert_int_eq(use_of(p, 0, dear).reason, WEFT_REASON_ASKED);
    ck_assert_int_eq(use_of(p, 0, dear).path, WEFT_PATH_SIDE);
    weft_plan_free(p);
    p = both(WEFT_PATH_MERGED);
    OK(weft_plan_seal(p, 4, &err));
    ck_assert_int_eq(use_of(p, 0, cheap).reason, WEFT_REASON_ASKED);
    ck_assert_int_eq(use_of(p, 0, cheap).path, WEFT_PATH_MERGED);
    weft_plan_free(p);
}
END_TEST

static void switch_each(weft_plan *p)
{
    weft_switch_options o = WEFT_SWITCH_OPTIONS_INIT;
    o.period = 1;
    OK(weft_plan_switch(p, &o, &err));
}

/* Each thing that keeps a dear layer from being merged. The phases of one plan differ. */
START_TEST(what_keeps_a_layer_from_being_merged)
{
    const float        half[2] = { 1, 0 };
    int64_t            dear = layer_with(5, false);
    weft_mask          mask = WEFT_MASK_INIT;
    weft_phase_options at = WEFT_PHASE_OPTIONS_INIT;
    weft_plan         *p = both(WEFT_PATH_AUTO);

    switch_each(p);
    at.first = 2;
    OK(weft_plan_begin_phase(p, &at, &err)); /* a merge: the same patch, merged */
    at.first = 4;
    OK(weft_plan_begin_phase(p, &at, &err));
    OK(weft_plan_composite(p, NULL, &err));
    at.first = 6;
    OK(weft_plan_begin_phase(p, &at, &err));
    OK(weft_plan_zip(p, NULL, &err));
    OK(weft_plan_seal(p, 8, &err));
    ck_assert_int_eq(use_of(p, 0, dear).reason, WEFT_REASON_CALLS);
    ck_assert_int_eq(use_of(p, 1, dear).reason, WEFT_REASON_PRODUCTS);
    ck_assert_int_eq(use_of(p, 2, dear).reason, WEFT_REASON_BRANCHES);
    ck_assert_int_eq(use_of(p, 3, dear).reason, WEFT_REASON_COLUMNS);
    for (int32_t i = 0; i < 4; i++)
        ck_assert_int_eq(use_of(p, i, dear).path, i == 1 ? WEFT_PATH_MERGED : WEFT_PATH_SIDE);
    weft_plan_free(p);

    p = both(WEFT_PATH_MERGED); /* not even if it is asked for */
    mask.height = 1;
    mask.width = 2;
    mask.values = half;
    mask.len = 2;
    OK(weft_plan_set_mask(p, 0, &mask, &err));
    OK(weft_plan_seal(p, 2, &err));
    ck_assert_int_eq(use_of(p, 0, dear).reason, WEFT_REASON_MASK);
    ck_assert_int_eq(use_of(p, 0, dear).path, WEFT_PATH_SIDE);
    weft_plan_free(p);
}
END_TEST

static weft_adapter *of_layer(int64_t layer, const char *ending, int64_t rows, int64_t columns, float first)
{
    char   stem[512];
    maker *m = make(model);
    ck_assert(wf_name_kohya(model, &layers[layer], stem, sizeof stem));
    float *d = put(m, stem, ending, rows, columns, 1, columns > 0 ? 2 : 1);
    d[0] = first;
    return finish(m, "one");
}

/* A whole difference is merged; two adapters that depend on the weight always are; a norm never is. */
START_TEST(other_families)
{
    int64_t            at = nth_layer(model, ATTENTION, 0);
    weft_adapter      *whole = of_layer(at, ".diff", layers[at].out, layers[at].in, 0.5f);
    weft_plan         *p;
    weft_plan_options  o = WEFT_PLAN_OPTIONS_INIT;

    OK(weft_plan_create(model, NULL, &p, &err));
    OK(weft_plan_add(p, whole, 1, NULL, &err));
    OK(weft_plan_seal(p, 1, &err));
    ck_assert_int_eq(use_of(p, 0, at).reason, WEFT_REASON_WHOLE);
    ck_assert_int_eq(use_of(p, 0, at).path, WEFT_PATH_MERGED);
    ck_assert_int_eq(use_of(p, 0, at).rank, 0);
    ck_assert_int_eq(use_of(p, 0, at + 1).reason, WEFT_REASON_NONE);
    ck_assert_int_eq(use_of(p, 0, at + 1).path, WEFT_PATH_AUTO);
    ck_assert_str_eq(use_of(p, 0, at + 1).words, "no adapter acts");
    weft_plan_free(p);
    weft_adapter_free(whole);

    weft_adapter *dora, *tune;
    OK(weft_adapter_open(test_path("data/families/lyco_dora.safetensors"), NULL, &dora, &err));
    o.mixed = WEFT_MIXED_INSIDE;
    OK(weft_plan_create(model, &o, &p, &err));
    OK(weft_plan_add(p, dora, 1, NULL, &err));
    OK(weft_plan_add(p, ink, 1, NULL, &err));
    OK(weft_plan_seal(p, 1, &err));
    int depends = 0;
    for (size_t l = 0; l < count; l++) depends += use_of(p, 0, (int64_t)l).reason == WEFT_REASON_DEPENDS;
    ck_assert_int_gt(depends, 0);
    weft_plan_free(p);
    weft_adapter_free(dora);

    OK(weft_adapter_open(test_path("data/families/lyco_norm.safetensors"), NULL, &tune, &err));
    OK(weft_plan_create(model, NULL, &p, &err));
    OK(weft_plan_add(p, tune, 1, NULL, &err));
    OK(weft_plan_seal(p, 1, &err));
    int norms = 0;
    for (size_t l = 0; l < count; l++) norms += use_of(p, 0, (int64_t)l).reason == WEFT_REASON_NORM;
    ck_assert_int_gt(norms, 0);
    weft_plan_free(p);
    weft_adapter_free(tune);
}
END_TEST

/* ---- strengths ------------------------------------------------------------------------------- */

static double strength_at(const weft_plan *p, int32_t call, int32_t adapter, double norm[2])
{
    weft_plan_info i = info_of(p);
    size_t         n = (size_t)i.adapters, all = (size_t)i.calls * n;
    double        *s = malloc(all * sizeof *s), found;

    OK(weft_plan_strengths(p, s, all, norm, norm != NULL ? n : 0, &err));
    found = s[(size_t)call * n + (size_t)adapter];
    free(s);
    return found;
}

/* |s B A diag(v)|_F^2 of a layer, entry by entry from the file's tensors. */
static double inside = 1; /* of DoRA's norm */
static double square(weft_adapter *a, size_t layer, const float *v)
{
    int32_t       n;
    weft_plan    *p = new_plan(model);
    double        sum = 0;
    size_t        K = wf_layer_columns(&layers[layer]), out = (size_t)layers[layer].out;

    OK(weft_plan_add(p, a, 1, NULL, &err));
    const wf_slice *slice = wf_plan_slices(p, 0, (int32_t)layer, &n);
    if (n > 0) {
        const wf_module *m = wf_adapter_module(a, (size_t)slice->module);
        float *D = calloc(out * K, sizeof *D);
        OK(wf_slice_add(slice, m, &layers[layer], (double)m->scale, inside, 1, D, &p->alloc, &err));
        for (size_t i = 0; i < out * K; i++) {
            double x = (double)D[i] * (v != NULL ? (double)v[i % K] : 1);
            sum += x * x;
        }
        free(D);
    }
    weft_plan_free(p);
    return sum;
}

static bool denoises(size_t l) { return layers[l].component == WEFT_COMPONENT_DENOISER; }

/* Weight by weight: the norms are those that torch found (make_costs.py). */
START_TEST(a_merge_has_its_weights)
{
    json_t       *root = golden_json("costs.json"), *entry = json_array_get(json_object_get(root, "models"), 0), *a;
    const char   *path;
    double        norm[2];

    json_object_foreach(json_object_get(entry, "adapters"), path, a) {
        weft_adapter *adapter;
        weft_plan    *p = new_plan(model);
        OK(weft_adapter_open(data_path("%s", path), NULL, &adapter, &err));
        OK(weft_plan_add(p, adapter, -0.5f, NULL, &err));
        OK(weft_plan_seal(p, 3, &err));
        ck_assert_double_eq_tol(strength_at(p, 2, 0, norm), 0.5, 1e-6);
        ck_assert_double_eq_tol(norm[0] / json_number_value(json_object_get(a, "norm")), 1, 1e-6);
        weft_plan_free(p);
        weft_adapter_free(adapter);
    }
    json_decref(root);
}
END_TEST

/* K-LoRA and a curve: from the cells and the whole differences. */
START_TEST(strengths_follow_the_cells)
{
    weft_curve_point points[2] = { WEFT_CURVE_POINT_INIT, WEFT_CURVE_POINT_INIT };
    weft_plan       *p = both(WEFT_PATH_AUTO);
    weft_adapter    *of[2] = { ink, clay };
    double           norm[2], whole[2] = { 0, 0 };

    points[0].shape = WEFT_CURVE_LINEAR;
    points[0].value = 0.25;
    points[1].at = 4;
    points[1].value = 1;
    OK(weft_plan_set_curve(p, 1, 0, points, 2, &err));
    OK(weft_plan_klora(p, NULL, &err));
    OK(weft_plan_seal(p, 6, &err));
    for (int32_t a = 0; a < 2; a++)
        for (size_t l = 0; l < count; l++) whole[a] += denoises(l) ? square(of[a], l, NULL) : 0;
    for (int32_t n = 0; n < 6; n++)
        for (int32_t a = 0; a < 2; a++) {
            double sum = 0;
            for (size_t l = 0; l < count; l++) {
                double c = denoises(l) ? (double)cell(p, n, 0, (int64_t)l, a) : 0;
                if (c != 0) sum += c * c * square(of[a], l, NULL);
            }
            ck_assert_double_eq_tol(strength_at(p, n, a, norm), sqrt(sum / whole[a]), 1e-6);
            ck_assert_double_eq_tol(norm[a] / sqrt(whole[a]), 1, 1e-6);
        }
    weft_plan_free(p);
}
END_TEST

/* A weight inside DoRA's norm is no factor: what acts is the difference that it makes. */
START_TEST(weights_inside_a_norm)
{
    weft_add_options o = WEFT_ADD_OPTIONS_INIT;
    weft_adapter    *dora;
    weft_plan       *p = new_plan(model);
    double           half = 0, whole = 0;

    OK(weft_adapter_open(test_path("data/families/lyco_dora.safetensors"), NULL, &dora, &err));
    o.flags = WEFT_ADD_PEFT_DORA;
    OK(weft_plan_add(p, dora, 0.5f, &o, &err));
    OK(weft_plan_seal(p, 1, &err));
    for (size_t l = 0; l < count; l++) {
        if (!denoises(l)) continue;
        inside = 0.5;
        half += square(dora, l, NULL);
        inside = 1;
        whole += square(dora, l, NULL);
    }
    ck_assert_double_eq_tol(strength_at(p, 0, 0, NULL), sqrt(half / whole), 1e-5);
    ck_assert_double_gt(fabs(sqrt(half / whole) - 0.5), 1e-3);
    weft_plan_free(p);
    weft_adapter_free(dora);
}
END_TEST

/* Each prediction counts by its share; adapters in turn are all or nothing. */
START_TEST(branches_count_by_their_shares)
{
    weft_add_options o = WEFT_ADD_OPTIONS_INIT;
    weft_plan       *p = new_plan(model);

    o.flags = WEFT_ADD_SHARE;
    o.share = 3;
    OK(weft_plan_add(p, ink, 0.8f, &o, &err));
    OK(weft_plan_add(p, clay, 0.6f, NULL, &err));
    OK(weft_plan_composite(p, NULL, &err));
    OK(weft_plan_seal(p, 1, &err));
    ck_assert_double_eq_tol(strength_at(p, 0, 0, NULL), 0.8 * 3 / 4, 1e-6);
    ck_assert_double_eq_tol(strength_at(p, 0, 1, NULL), 0.6 / 4, 1e-6);
    weft_plan_free(p);
    p = new_plan(model); /* the base's evaluation is not in the mean */
    OK(weft_plan_add(p, ink, 0.8f, &o, &err));
    OK(weft_plan_add(p, clay, 0.6f, NULL, &err));
    OK(weft_plan_loratorio(p, NULL, &err));
    OK(weft_plan_seal(p, 1, &err));
    ck_assert_double_eq_tol(strength_at(p, 0, 0, NULL), 0.8 * 3 / 4, 1e-6);
    weft_plan_free(p);
    p = both(WEFT_PATH_AUTO);
    switch_each(p);
    OK(weft_plan_seal(p, 3, &err));
    for (int32_t n = 0; n < 3; n++)
        for (int32_t a = 0; a < 2; a++)
            ck_assert_double_eq_tol(strength_at(p, n, a, NULL), n % 2 != a ? 0 : a == 0 ? 0.7 : 0.5, 1e-6);
    weft_plan_free(p);
}
END_TEST

/* A quarter of the image, under a sum and under blend, where the other adapter acts in each branch. */
START_TEST(masks_count_by_their_mean)
{
    const float quarter[4] = { 0.75f, 0, 0.25f, 0 };
    weft_mask   mask = WEFT_MASK_INIT, got = WEFT_MASK_INIT;

    mask.flags = WEFT_MASK_TEXT | WEFT_MASK_ADD;
    mask.height = 1;
    mask.width = 4;
    mask.values = quarter;
    mask.len = 4;
    mask.text = 0.125f;
    for (int blend = 0; blend < 2; blend++) {
        weft_plan *p = both(WEFT_PATH_AUTO);
        if (blend) mask.flags = 0;
        OK(weft_plan_set_mask(p, 0, &mask, &err));
        if (blend) OK(weft_plan_blend(p, NULL, &err));
        OK(weft_plan_seal(p, 2, &err));
        ck_assert_double_eq_tol(strength_at(p, 1, 0, NULL), 0.7 / 4, 1e-6);
        ck_assert_double_eq_tol(strength_at(p, 1, 1, NULL), 0.5, 1e-6);
        OK(weft_plan_mask(p, 0, &got, &err));
        ck_assert_int_eq(got.height, 1);
        ck_assert_int_eq(got.width, 4);
        ck_assert_uint_eq(got.len, 4);
        ck_assert_mem_eq(got.values, quarter, sizeof quarter);
        ck_assert_float_eq(got.text, blend ? 1 : 0.125f);
        ck_assert_uint_eq(got.flags, WEFT_MASK_TEXT | (blend ? 0 : (unsigned)WEFT_MASK_ADD));
        OK(weft_plan_mask(p, 1, &got, &err));
        ck_assert_int_eq(got.height, 0);
        ck_assert_ptr_null(got.values);
        FAILS(WEFT_E_ARG, "adapter 2 of 2", weft_plan_mask(p, 2, &got, &err));
        FAILS(WEFT_E_ARG, "NULL", weft_plan_mask(p, 0, NULL, &err));
        weft_plan_free(p);
    }
}
END_TEST

/* Column by column, from the coefficients that the plan itself writes. */
START_TEST(columns_count_each_by_itself)
{
    weft_plan    *p = both(WEFT_PATH_AUTO);
    weft_adapter *of[2] = { ink, clay };
    const char   *path = temp_path("strength.safetensors");
    weft_tensors *t;
    char          name[600];

    OK(weft_plan_zip(p, NULL, &err));
    OK(weft_plan_seal(p, 1, &err));
    OK(weft_plan_zip_save(p, path, &err));
    OK(weft_tensors_open(path, NULL, &t, &err));
    for (int a = 0; a < 2; a++) {
        double sum = 0, whole = 0;
        for (size_t l = 0; l < count; l++) {
            if (!denoises(l)) continue;
            size_t K = wf_layer_columns(&layers[l]), taps = (size_t)layers[l].kernel * (size_t)layers[l].kernel;
            size_t in = (size_t)layers[l].in;
            float *stored = calloc(K, sizeof *stored), *v = calloc(K, sizeof *v);
            snprintf(name, sizeof name, "%s.zip.m_%c", layers[l].name, a == 0 ? 'c' : 's');
            int64_t at = weft_tensors_find(t, name);
            weft_tensor_info info = WEFT_TENSOR_INFO_INIT;
            if (at >= 0) OK(weft_tensors_info(t, (size_t)at, &info, &err));
            for (size_t k = 0; k < K; k++) v[k] = 1;
            if (at >= 0) OK(weft_tensors_read(t, (size_t)at, stored, info.count, &err));
            if (at >= 0 && info.count == K)                 /* (in, taps) as stored, (taps, in) here */
                for (size_t i = 0; i < in; i++)
                    for (size_t q = 0; q < taps; q++) v[q * in + i] = stored[i * taps + q];
            else if (at >= 0)
                for (size_t k = 0; k < K; k++) v[k] = stored[k % in];
            double c = a == 0 ? 0.7 : -0.5;
            sum += c * c * square(of[a], l, v);
            whole += square(of[a], l, NULL);
            free(stored);
            free(v);
        }
        ck_assert_double_eq_tol(strength_at(p, 0, a, NULL), sqrt(sum / whole), 1e-5);
        ck_assert_double_lt(sqrt(sum / whole), a == 0 ? 0.69 : 0.49); /* something was taken away */
    }
    weft_tensors_free(t);
    unlink(path);
    weft_plan_free(p);
}
END_TEST

static int32_t stop(void *user, const char *what, int64_t done, int64_t total)
{
    (void)total;
    return *(bool *)user && strcmp(what, "weighing layers") == 0 && done > 4;
}

START_TEST(strengths_are_refused)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    bool       stopping = true;
    double     s[8], norm[2];
    weft_plan *p;

    o.progress = stop;
    o.progress_user = &stopping;
    OK(weft_plan_create(model, &o, &p, &err));
    OK(weft_plan_add(p, ink, 1, NULL, &err));
    FAILS(WEFT_E_STATE, "not sealed", weft_plan_strengths(p, s, 2, norm, 1, &err));
    OK(weft_plan_seal(p, 2, &err));
    FAILS(WEFT_E_ARG, "strength is NULL", weft_plan_strengths(p, NULL, 2, norm, 1, &err));
    FAILS(WEFT_E_ARG, "strength_len is 3, wanted 2", weft_plan_strengths(p, s, 3, norm, 1, &err));
    FAILS(WEFT_E_ARG, "norm_len is 2, wanted 1", weft_plan_strengths(p, s, 2, norm, 2, &err));
    FAILS(WEFT_E_CANCELLED, "stopped after", weft_plan_strengths(p, s, 2, norm, 1, &err));
    stopping = false;
    OK(weft_plan_strengths(p, s, 2, NULL, 0, &err));
    weft_plan_free(p);
}
END_TEST

/* Every allocation may fail. */
START_TEST(strengths_need_memory)
{
    counter           c = { 0, 0, -1 };
    weft_allocator    alloc = { counter_alloc, counter_free, &c };
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan        *p;
    double            s[2];

    o.allocator = &alloc;
    OK(weft_plan_create(model, &o, &p, &err));
    OK(weft_plan_add(p, ink, 1, NULL, &err));
    OK(weft_plan_add(p, clay, 1, NULL, &err));
    OK(weft_plan_seal(p, 1, &err));
    long live = c.live;
    for (long n = 0; ; n++) {
        c.asked = 0;
        c.refuse = n;
        weft_status st = weft_plan_strengths(p, s, 2, NULL, 0, &err);
        ck_assert_int_eq(c.live, live);
        if (st == WEFT_OK) break;
        ck_assert_int_eq(st, WEFT_E_NOMEM);
        if (n > 20) n += 40;
    }
    ck_assert_int_gt(c.asked, 40);
    c.refuse = -1;
    weft_plan_free(p);
}
END_TEST

/* ---- what a plan shows ----------------------------------------------------------------------- */

START_TEST(regions_blocks_and_reuse_are_shown)
{
    const float            left[2] = { 1, 0 }, right[2] = { 0, 0.5f };
    weft_mask              mask = WEFT_MASK_INIT, got = WEFT_MASK_INIT;
    weft_region            region = WEFT_REGION_INIT, shown = WEFT_REGION_INIT;
    weft_composite_options cached = WEFT_COMPOSITE_OPTIONS_INIT;
    weft_plan             *p = both(WEFT_PATH_AUTO);
    float                 *factors = calloc(count, sizeof *factors);
    int32_t                reuses;
    int                    half = 0;

    mask.height = 1;
    mask.width = 2;
    mask.len = 2;
    mask.values = left;
    OK(weft_plan_set_mask(p, 1, &mask, &err));
    region.flags = WEFT_REGION_ADAPTER | WEFT_REGION_ISOLATED;
    region.adapter = 1;
    OK(weft_plan_add_region(p, &region, &err));
    mask.values = right;
    region = (weft_region)WEFT_REGION_INIT;
    region.mask = &mask;
    OK(weft_plan_add_region(p, &region, &err));
    OK(weft_plan_set_blocks(p, 0, "ALL0.5,*attn1*=2", &err));
    cached.flags = WEFT_COMPOSITE_CACHED;
    OK(weft_plan_composite(p, &cached, &err));
    OK(weft_plan_seal(p, 4, &err));
    ck_assert_int_eq(info_of(p).regions, 2);
    OK(weft_plan_region(p, 0, &shown, &got, &err));
    ck_assert_uint_eq(shown.flags, WEFT_REGION_ADAPTER | WEFT_REGION_ISOLATED);
    ck_assert_int_eq(shown.adapter, 1);
    ck_assert_ptr_eq(shown.mask, &got);
    ck_assert_mem_eq(got.values, left, sizeof left);
    OK(weft_plan_region(p, 1, &shown, &got, &err));
    ck_assert_uint_eq(shown.flags, 0);
    ck_assert_mem_eq(got.values, right, sizeof right);
    FAILS(WEFT_E_ARG, "region 2 of 2", weft_plan_region(p, 2, &shown, &got, &err));
    FAILS(WEFT_E_ARG, "mask is NULL", weft_plan_region(p, 0, &shown, NULL, &err));

    OK(weft_plan_blocks(p, 0, factors, count, &err));
    for (size_t l = 0; l < count; l++) {
        if (strstr(layers[l].name, "attn1") != NULL) ck_assert_float_eq(factors[l], 2);
        half += factors[l] == 0.5f;
    }
    ck_assert_int_gt(half, 20);
    OK(weft_plan_blocks(p, 1, factors, count, &err));
    for (size_t l = 0; l < count; l++) ck_assert_float_eq(factors[l], 1);
    FAILS(WEFT_E_ARG, "factors_len", weft_plan_blocks(p, 0, factors, count - 1, &err));
    FAILS(WEFT_E_ARG, "adapter -1 of 2", weft_plan_blocks(p, -1, factors, count, &err));

    for (int32_t n = 0; n < 4; n++) /* c1 2 in the first half, c2 3 in the second; floor(n / 2) is dominant */
        for (int32_t b = 0; b < 2; b++) {
            OK(weft_plan_branch_reuses(p, n, b, &reuses, &err));
            ck_assert_int_eq(reuses, (n == 1 && b == 1) || (n == 2 && b == 0));
        }
    FAILS(WEFT_E_ARG, "branch 2 of 2", weft_plan_branch_reuses(p, 0, 2, &reuses, &err));
    FAILS(WEFT_E_ARG, "call 4 of 4", weft_plan_branch_reuses(p, 4, 0, &reuses, &err));
    weft_layer_use u = WEFT_LAYER_USE_INIT;
    FAILS(WEFT_E_ARG, "phase 1 of 1", weft_plan_layer(p, 1, 0, &u, &err));
    FAILS(WEFT_E_ARG, "layer -1", weft_plan_layer(p, 0, -1, &u, &err));
    FAILS(WEFT_E_ARG, "use is NULL", weft_plan_layer(p, 0, 0, NULL, &err));
    free(factors);
    weft_plan_free(p);
}
END_TEST

/* The text tells how many layers take which way, and why. */
START_TEST(the_text_tells_why)
{
    weft_adapter *thin = adapter_on(model, "thin", ATTENTION | OTHERS, 1, 0.3f, 3);
    weft_plan    *p = new_plan(model);
    size_t        needed;
    int           ways[2] = { 0, 0 };
    char          line[200];

    OK(weft_plan_add(p, thin, 1, NULL, &err));
    OK(weft_plan_seal(p, 4, &err));
    OK(weft_plan_text(p, NULL, 0, &needed, &err));
    char *text = malloc(needed);
    OK(weft_plan_text(p, text, needed, NULL, &err));
    for (size_t l = 0; l < count; l++) {
        weft_layer_use u = use_of(p, 0, (int64_t)l);
        ways[0] += u.reason == WEFT_REASON_CHEAP;
        ways[1] += u.reason == WEFT_REASON_PRODUCTS;
    }
    snprintf(line, sizeof line, "\n  %d side: the adapters' products are at most an eighth of the layer's\n", ways[0]);
    ck_assert_ptr_nonnull(strstr(text, line));
    snprintf(line, sizeof line, "\n  %d merged: the adapters' products are over an eighth of the layer's\n", ways[1]);
    ck_assert_ptr_nonnull(strstr(text, line));
    ck_assert_int_gt(ways[0], 0);
    ck_assert_int_gt(ways[1], 0);
    free(text);
    weft_plan_free(p);
    weft_adapter_free(thin);
}
END_TEST

/* The scale of every adapter is told: where alpha is 0, which kohya's programs take for the rank, and where there is none. */
START_TEST(every_scale_is_told)
{
    static const struct { float alpha; const char *words; } cases[] = {
        { 0, "1 module of lora, rank 2, alpha 0 (tensor), which is the rank, scale 1\n" },
        { 1, "1 module of lora, rank 2, alpha 1 (tensor), scale 0.5\n" },
        { 2, "1 module of lora, rank 2, alpha 2 (tensor), scale 1\n" },
    };
    int64_t at = nth_layer(model, ATTENTION, 0);
    size_t  needed;
    char    stem[512];

    ck_assert(wf_name_kohya(model, &layers[at], stem, sizeof stem));
    for (size_t i = 0; i <= WF_LEN(cases); i++) {
        bool  whole = i == WF_LEN(cases);
        maker *m = make(model);
        float *down, *up;
        if (whole) {
            put(m, stem, ".diff", layers[at].out, layers[at].in, 1, 2)[0] = 1;
        } else {
            module_of(m, at, 2, 0, &down, &up);
            down[0] = up[0] = 1;
            *put(m, stem, ".alpha", 1, 1, 1, 0) = cases[i].alpha;
        }
        weft_adapter    *a = finish(m, "one");
        weft_module_info info = WEFT_MODULE_INFO_INIT;
        weft_plan       *p = new_plan(model);
        OK(weft_adapter_module(a, 0, &info, &err));
        ck_assert_int_eq(info.zero_alpha, i == 0);
        if (i == 0) ck_assert_float_eq(info.alpha, 2);
        OK(weft_plan_add(p, a, 1, NULL, &err));
        OK(weft_plan_seal(p, 1, &err));
        OK(weft_plan_text(p, NULL, 0, &needed, &err));
        char *text = malloc(needed);
        OK(weft_plan_text(p, text, needed, NULL, &err));
        const char *want = whole ? "1 module of full, scale 1 (the file has no alpha)\n" : cases[i].words;
        ck_assert_msg(strstr(text, want) != NULL, "no \"%s\" in:\n%s", want, text);
        free(text);
        weft_plan_free(p);
        weft_adapter_free(a);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("plan");
    TCase *c = tcase_create("explain");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 300);
    tcase_add_test(c, cheap_products_stay_beside_the_weight);
    tcase_add_test(c, what_keeps_a_layer_from_being_merged);
    tcase_add_test(c, other_families);
    tcase_add_test(c, a_merge_has_its_weights);
    tcase_add_test(c, strengths_follow_the_cells);
    tcase_add_test(c, weights_inside_a_norm);
    tcase_add_test(c, branches_count_by_their_shares);
    tcase_add_test(c, masks_count_by_their_mean);
    tcase_add_test(c, columns_count_each_by_itself);
    tcase_add_test(c, strengths_are_refused);
    tcase_add_test(c, strengths_need_memory);
    tcase_add_test(c, regions_blocks_and_reuse_are_shown);
    tcase_add_test(c, the_text_tells_why);
    tcase_add_test(c, every_scale_is_told);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
