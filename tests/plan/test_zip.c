/* test_zip.c - ZipLoRA's columns: the closed form, coefficients of a file, what is folded, saved and refused. */
#include "fixture.h"

static weft_model   *model;
static weft_adapter *ink, *clay; /* content and style, everywhere with text */
static int64_t       attn;

static void setup(void)
{
    model = open_model("tiny-sd1");
    ink = adapter_on(model, "ink", ATTENTION | OTHERS | TEXT, 2, 0.3f, 1);
    clay = adapter_on(model, "clay", ATTENTION | OTHERS | TEXT, 3, 0.2f, 2);
    attn = nth_layer(model, ATTENTION, 0);
}

static void teardown(void)
{
    weft_adapter_free(ink);
    weft_adapter_free(clay);
    weft_model_free(model);
}

static const wf_layer *layer_of(int64_t id) { return &wf_model_layers(model, &(size_t){ 0 })[id]; }

/* ---- the rule -------------------------------------------------------------------------------- */

static double loss(double a, double b, double lambda, double m, double n)
{
    return a * (m - 1) * (m - 1) + b * (n - 1) * (n - 1) + 2 * lambda * sqrt(a * b) * m * n;
}

/* No point of a fine grid over the quadrant is better, for weak and strong columns and any lambda. */
START_TEST(the_closed_form_is_the_least)
{
    static const double share[] = { 0, 1e-9, 0.01, 0.09, 0.1, 0.5, 1 };
    static const double lambdas[] = { 0, 0.01, 0.3, 0.5, 0.99, 1, 1.5, 100 };

    for (size_t i = 0; i < WF_LEN(share); i++)
        for (size_t k = 0; k < WF_LEN(share); k++)
            for (size_t l = 0; l < WF_LEN(lambdas); l++) {
                double a = share[i], b = share[k], m, n;
                wf_zip_columns(a, b, lambdas[l], &m, &n);
                ck_assert(m >= 0 && m <= 1 && n >= 0 && n <= 1);
                double got = loss(a, b, lambdas[l], m, n);
                for (int x = 0; x <= 60; x++)
                    for (int y = 0; y <= 60; y++)
                        ck_assert_msg(got <= loss(a, b, lambdas[l], x / 40.0, y / 40.0) + 1e-12,
                                      "a %g b %g lambda %g: (%g, %g) is worse than (%g, %g)", a, b,
                                      lambdas[l], m, n, x / 40.0, y / 40.0);
            }
}
END_TEST

/* a = 0.04, b = 0.01, lambda = 0.5: r = 1/2 = lambda, so n = 0 and m = 1. lambda = 0.2: m = (1 - 0.1) / 0.96,
 * n = (1 - 0.4) / 0.96. Equal columns: m = n = 1 / (1 + lambda). From 1 on the stronger has it. */
START_TEST(columns_by_hand)
{
    static const struct { double a, b, lambda, m, n; } by_hand[] = {
        { 0.04, 0.01, 0,    1,       1 },
        { 0.04, 0.01, 0.2,  0.9375,  0.625 },
        { 0.04, 0.01, 0.5,  1,       0 },
        { 0.01, 0.04, 0.2,  0.625,   0.9375 },
        { 0.01, 0.04, 0.6,  0,       1 },
        { 0.2,  0.2,  0.25, 0.8,     0.8 },
        { 0.2,  0.1,  1,    1,       0 },
        { 0.1,  0.2,  7,    0,       1 },
        { 0.2,  0.2,  1,    1,       0 },
        { 0,    0.2,  1,    1,       1 },
        { 0.2,  0,    0.5,  1,       1 },
    };
    for (size_t i = 0; i < WF_LEN(by_hand); i++) {
        double m, n;
        wf_zip_columns(by_hand[i].a, by_hand[i].b, by_hand[i].lambda, &m, &n);
        ck_assert_msg(fabs(m - by_hand[i].m) <= 1e-12 && fabs(n - by_hand[i].n) <= 1e-12, "row %zu: %g, %g", i, m, n);
    }
}
END_TEST

/* ---- the fixture of the published formula ---------------------------------------------------- */

static const float B1[] = { 1, 0, 0.5f, -1, 2, 1 }, A1[] = { 1, 2, 0, -1, 0, 1, 3, 1 };
static const float B2[] = { 0, 1, 1, 1, -1, 0.5f }, A2[] = { 2, 0, 1, 0, -1, 1, 0, 2 };

/* The factors in the corner of a layer, as they are or, with `dense`, multiplied. */
static weft_adapter *corner(const float B[6], const float A[8], bool dense, const char *name)
{
    maker *m = make(model);
    float *down, *up;
    char   stem[512];
    size_t in = (size_t)layer_of(attn)->in;

    if (dense) {
        ck_assert(wf_name_kohya(model, layer_of(attn), stem, sizeof stem));
        float *d = put(m, stem, ".diff", layer_of(attn)->out, layer_of(attn)->in, 1, 2);
        for (size_t o = 0; o < 3; o++)
            for (size_t i = 0; i < 4; i++) d[o * in + i] = B[o * 2] * A[i] + B[o * 2 + 1] * A[4 + i];
        return finish(m, name);
    }
    module_of(m, attn, 2, 0, &down, &up);
    for (size_t r = 0; r < 2; r++)
        for (size_t i = 0; i < 4; i++) down[r * in + i] = A[r * 4 + i];
    memcpy(up, B, 6 * sizeof *up);
    return finish(m, name);
}

/* Coefficients of one layer; both (in). */
static weft_tensors *vectors_of(const wf_layer *l, const float *m_c, const float *m_s, size_t n)
{
    char            name[2][600];
    weft_tensor_out t[2] = { WEFT_TENSOR_OUT_INIT, WEFT_TENSOR_OUT_INIT };
    weft_tensors   *made;

    for (int i = 0; i < 2; i++) {
        snprintf(name[i], sizeof name[i], "%s.zip.m_%c", l->name, i == 0 ? 'c' : 's');
        t[i].name = name[i];
        t[i].data = i == 0 ? m_c : m_s;
        t[i].rank = 1;
        t[i].shape[0] = (int64_t)n;
    }
    OK(weft_tensors_create(t, 2, NULL, 0, NULL, &made, &err));
    return made;
}

static weft_plan *zip_of(weft_adapter *content, weft_adapter *style, const weft_zip_options *o)
{
    weft_plan *p = new_plan(model);
    OK(weft_plan_add(p, content, 1, NULL, &err));
    OK(weft_plan_add(p, style, 1, NULL, &err));
    OK(weft_plan_zip(p, o, &err));
    OK(weft_plan_seal(p, 4, &err));
    return p;
}

/* What the plan adds to a layer, (out, K). */
static float *added(const weft_plan *p, int64_t layer)
{
    size_t          n;
    const patched  *list = patches_of(p, &n);
    const wf_layer *l = layer_of(layer);
    float          *d = calloc((size_t)l->out * wf_layer_columns(l), sizeof *d);

    for (size_t i = 0; i < n; i++)
        if (list[i].layer == layer)
            OK(wf_patch_add(list[i].patch, l, cells_of(p, &list[i]),
                            l->component == WEFT_COMPONENT_DENOISER ? wf_plan_phase(p, 0)->vectors : NULL, d, NULL,
                            &p->alloc, &err));
    return d;
}

/* m_c = [1 .5 0 2], m_s = [.25 1 1 0]: the merged matrix as it is worked out by hand; mean |m_c m_s| of these four
 * columns is 0.1875. One of four families: pairs, and whole differences. */
START_TEST(columns_as_worked_out)
{
    static const float m_c[8] = { 1, 0.5f, 0, 2, 1, 1, 1, 1 }, m_s[8] = { 0.25f, 1, 1, 0, 1, 1, 1, 1 };
    static const float want[12] = { 0.75f, 2, 0, -2, 0.75f, 1, 1, -3, 1.375f, 3, -1, -2 };
    weft_adapter    *c = corner(B1, A1, _i & 1, "c"), *s = corner(B2, A2, _i & 2, "s"), *one;
    const wf_layer  *l = layer_of(attn);
    weft_zip_options o = WEFT_ZIP_OPTIONS_INIT;
    weft_plan       *p, *q;
    weft_cell        z = WEFT_CELL_INIT;

    ck_assert_int_eq(l->in, 8);
    o.coefficients = vectors_of(l, m_c, m_s, 8);
    ck_assert_double_eq_tol(wf_zip_similarity(m_c, m_s, 4), 0.1875, 1e-12);
    p = zip_of(c, s, &o);
    weft_tensors_free(o.coefficients); /* the plan keeps them */
    OK(weft_plan_cell(p, 2, 0, attn, 1, &z, &err));
    ck_assert_int_eq(z.kind, WEFT_CELL_VECTOR);
    ck_assert_float_eq(z.number, 1);

    OK(weft_plan_fold(p, NULL, &one, &err));
    q = new_plan(model);
    OK(weft_plan_add(q, one, 1, NULL, &err));
    OK(weft_plan_seal(q, 1, &err));
    weft_adapter_info info = WEFT_ADAPTER_INFO_INIT;
    OK(weft_adapter_info_get(one, &info, &err));
    ck_assert_int_eq(info.rank_max, _i == 0 ? 4 : 0); /* r_c + r_s */
    float *d[] = { added(p, attn), added(q, attn) };
    for (int k = 0; k < 2; k++) {
        for (size_t i = 0; i < 64; i++) {
            bool in = i / 8 < 3 && i % 8 < 4;
            ck_assert_float_eq_tol(d[k][i], in ? want[i / 8 * 4 + i % 8] : 0, 1e-6f);
        }
        free(d[k]);
    }
    weft_adapter_free(c), weft_adapter_free(s), weft_adapter_free(one);
    weft_plan_free(p), weft_plan_free(q);
}
END_TEST

/* ---- whole plans ----------------------------------------------------------------------------- */

/* Layer by layer both plans make the same weight and bias. */
static void same_weights(const weft_plan *p, const weft_plan *q, double limit)
{
    size_t         n, m, at = 0;
    const patched *a = patches_of(p, &n), *b = patches_of(q, &m);

    for (size_t i = 0; i < n; i++) {
        const wf_layer *l = &wf_model_layers(p->model, &(size_t){ 0 })[a[i].layer];
        size_t          floats = (size_t)l->out * wf_layer_columns(l), out = (size_t)l->out;
        float *w[2], *bias[2];
        const float *const *vectors = l->component == WEFT_COMPONENT_DENOISER ? wf_plan_phase(p, 0)->vectors : NULL;
        while (at < m && b[at].layer != a[i].layer) at++;
        ck_assert_msg(at < m, "%s is missing", l->name);
        for (int k = 0; k < 2; k++) w[k] = malloc(floats * sizeof *w[k]), bias[k] = malloc(out * sizeof *bias[k]);
        OK(wf_plan_patched_weight(p, a[i].patch, cells_of(p, &a[i]), vectors, w[0], bias[0], &p->alloc, &err));
        OK(wf_plan_patched_weight(q, b[at].patch, cells_of(q, &b[at]), NULL, w[1], bias[1], &q->alloc, &err));
        double most = 0, far = 0;
        for (size_t k = 0; k < floats + out; k++) {
            double x = k < floats ? w[0][k] : bias[0][k - floats], y = k < floats ? w[1][k] : bias[1][k - floats];
            most = fmax(most, fabs(x));
            far = fmax(far, fabs(x - y));
        }
        ck_assert_msg(far <= limit * most, "%s: %g", l->name, far / most);
        for (int k = 0; k < 2; k++) free(w[k]), free(bias[k]);
    }
}

static weft_plan *alone(weft_model *m, weft_adapter *a)
{
    weft_plan *p = new_plan(m);
    OK(weft_plan_add(p, a, 1, NULL, &err));
    OK(weft_plan_seal(p, 1, &err));
    return p;
}

/* Folded, written in a dialect, and read again: the weights that the plan makes, convolutions and text included. */
START_TEST(a_folded_plan_is_the_plan)
{
    static const int32_t dialects[] = { WEFT_DIALECT_KOHYA, WEFT_DIALECT_DIFFUSERS };
    weft_zip_options     o = WEFT_ZIP_OPTIONS_INIT;
    weft_save_options    save = WEFT_SAVE_OPTIONS_INIT;
    weft_adapter        *one, *again;
    const char          *path = temp_path("fold.safetensors");

    o.flags = WEFT_ZIP_LAMBDA | WEFT_ZIP_STYLE;
    o.lambda = 0.4;
    o.style = 0.75;
    weft_plan *p = zip_of(ink, clay, &o);
    OK(weft_plan_fold(p, NULL, &one, &err));
    save.dialect = dialects[_i];
    OK(weft_adapter_save(one, model, path, &save, &err));
    OK(weft_adapter_open(path, NULL, &again, &err));
    unlink(path);
    weft_plan *q = alone(model, again);
    same_weights(p, q, 2e-7);
    weft_plan_free(p), weft_plan_free(q);
    weft_adapter_free(one), weft_adapter_free(again);
}
END_TEST

/* A merge of any family with a LoRA, at weights of their own: pairs stay pairs, the rest are whole differences; with
 * biases and normalisations. */
static const char *const files[] = {
    "lyco_locon", "lyco_locon_tucker", "lyco_loha", "lyco_lokr", "lyco_dora", "lyco_ia3", "lyco_oft", "lyco_glora",
    "lyco_full", "lyco_norm", "lyco_mixed", "kohya_bias", "diffusers_bias",
};

START_TEST(a_merge_of_any_family_folds)
{
    char          where[256];
    weft_adapter *a, *one;
    weft_plan    *p = new_plan(model);

    snprintf(where, sizeof where, "data/families/%s.safetensors", files[_i]);
    OK(weft_adapter_open(test_path(where), NULL, &a, &err));
    OK(weft_plan_add(p, a, 0.7f, NULL, &err));
    OK(weft_plan_add(p, ink, -0.4f, NULL, &err));
    OK(weft_plan_set_blocks(p, 1, "IN04=0.5,MID=0", &err));
    OK(weft_plan_seal(p, 3, &err));
    OK(weft_plan_fold(p, NULL, &one, &err));
    weft_plan *q = alone(model, one);
    same_weights(p, q, 1e-6);
    weft_plan_free(p), weft_plan_free(q);
    weft_adapter_free(a), weft_adapter_free(one);
}
END_TEST

/* One adapter whose prediction counts twice: no weight does that. */
START_TEST(a_prediction_times_a_number_is_no_weight)
{
    weft_composite_options o = WEFT_COMPOSITE_OPTIONS_INIT;
    weft_add_options       add = WEFT_ADD_OPTIONS_INIT;
    weft_adapter          *one;

    add.flags = WEFT_ADD_SHARE;
    for (int twice = 0; twice < 2; twice++) {
        weft_plan *p = new_plan(model);
        add.share = twice ? 2 : 1;
        o.flags = WEFT_COMPOSITE_DIVIDE_BY_COUNT;
        OK(weft_plan_add(p, ink, 0.7f, &add, &err));
        OK(weft_plan_composite(p, &o, &err));
        OK(weft_plan_seal(p, 2, &err));
        if (twice) {
            FAILS(WEFT_E_UNSUPPORTED, "LoRA Composite multiplies the prediction, and weights cannot",
                  weft_plan_fold(p, NULL, &one, &err));
            ck_assert_ptr_null(one);
            FAILS(WEFT_E_UNSUPPORTED, "multiplies the prediction",
                  weft_plan_save_model(p, temp_path("never"), &err));
        } else {
            OK(weft_plan_fold(p, NULL, &one, &err));
            weft_plan *q = alone(model, one), *plain = new_plan(model);
            OK(weft_plan_add(plain, ink, 0.7f, NULL, &err));
            OK(weft_plan_seal(plain, 3, &err));
            same_weights(plain, q, 1e-6);
            weft_plan_free(q), weft_plan_free(plain);
            weft_adapter_free(one);
        }
        weft_plan_free(p);
    }
}
END_TEST

/* Written and read again the coefficients are the same bits. */
START_TEST(coefficients_survive_a_file)
{
    weft_zip_options o = WEFT_ZIP_OPTIONS_INIT, from_file = WEFT_ZIP_OPTIONS_INIT;
    const char      *path = temp_path("zip.safetensors");

    o.flags = WEFT_ZIP_LAMBDA;
    o.lambda = 0.3;
    weft_plan *p = zip_of(ink, clay, &o), *q;
    OK(weft_plan_zip_save(p, path, &err));
    OK(weft_tensors_open(path, NULL, &from_file.coefficients, &err));
    ck_assert_str_eq(weft_tensors_metadata(from_file.coefficients, "weft.zip.style"), "clay");
    ck_assert_uint_eq(weft_tensors_count(from_file.coefficients),
                      2 * (size_t)(count_layers(model, ATTENTION) + count_layers(model, OTHERS)));
    q = zip_of(ink, clay, &from_file);
    weft_tensors_free(from_file.coefficients);
    unlink(path);
    for (int n = 0, kinds[] = { ATTENTION, OTHERS }; n < 30; n++)
        for (int k = 0; k < 2; k++) {
            int64_t id = nth_layer(model, kinds[k], n);
            if (id < 0) continue;
            const wf_sheet *s[] = { wf_plan_phase(p, 0), wf_plan_phase(q, 0) };
            for (int32_t a = 0; a < 2; a++) {
                wf_cell x = wf_sheet_cell(s[0], &s[0]->row[0], 0, id, a), y = wf_sheet_cell(s[1], &s[1]->row[0], 0, id, a);
                ck_assert(x.vector != 0 && y.vector != 0);
                ck_assert_mem_eq(s[0]->vectors[x.vector - 1], s[1]->vectors[y.vector - 1],
                                 wf_layer_columns(layer_of(id)) * sizeof(float));
            }
        }
    weft_plan_free(p), weft_plan_free(q);
}
END_TEST

/* A file names the adapters that it was made for; under other names they are used, with a warning for each. */
START_TEST(coefficients_of_others_are_warned_of)
{
    weft_zip_options o = WEFT_ZIP_OPTIONS_INIT;
    weft_adapter    *wood = adapter_on(model, "wood", ATTENTION | OTHERS | TEXT, 3, 0.2f, 2);
    const char      *path = temp_path("zip.safetensors");
    size_t           needed;
    weft_plan       *p = zip_of(ink, clay, NULL);
    char            *text;

    OK(weft_plan_zip_save(p, path, &err));
    weft_plan_free(p);
    OK(weft_tensors_open(path, NULL, &o.coefficients, &err));
    for (int other = 0; other < 2; other++) {
        p = zip_of(ink, other ? wood : clay, &o);
        OK(weft_plan_text(p, NULL, 0, &needed, &err));
        text = malloc(needed);
        OK(weft_plan_text(p, text, needed, NULL, &err));
        ck_assert_int_eq(strstr(text, "was made for the style clay, not for wood") != NULL, other);
        ck_assert_ptr_null(strstr(text, "was made for the content"));
        free(text);
        weft_plan_free(p);
    }
    weft_tensors_free(o.coefficients);
    unlink(path);
    weft_adapter_free(wood);
}
END_TEST

/* From lambda 1 on no column is in both; with lambda 0 no coefficient is anything but 1. */
START_TEST(lambda_drives_the_overlap_to_zero)
{
    static const double lambdas[] = { 0, 0.5, 1, 3 };
    double              before = 2;

    for (size_t i = 0; i < WF_LEN(lambdas); i++) {
        weft_zip_options o = WEFT_ZIP_OPTIONS_INIT;
        o.flags = WEFT_ZIP_LAMBDA;
        o.lambda = lambdas[i];
        weft_plan      *p = zip_of(ink, clay, &o);
        const wf_sheet *s = wf_plan_phase(p, 0);
        double          overlap = 0;
        size_t          columns = 0;
        for (size_t k = 0; k + 1 < s->slots; k++) {
            size_t K = wf_layer_columns(layer_of(s->slot[k].layer));
            if (s->slot[k].adapter != 0 || s->slot[k + 1].layer != s->slot[k].layer) continue;
            const float *m = s->vectors[s->cells[k].vector - 1], *n = s->vectors[s->cells[k + 1].vector - 1];
            for (size_t j = 0; j < K; j++) overlap += (double)m[j] * n[j];
            columns += K;
        }
        ck_assert_uint_gt(columns, 1000);
        overlap /= (double)columns;
        ck_assert(overlap < before || (overlap == 0 && before == 0));
        if (i == 0) ck_assert_double_eq(overlap, 1);
        if (lambdas[i] >= 1) ck_assert_double_eq(overlap, 0);
        before = overlap;
        weft_plan_free(p);
    }
}
END_TEST

/* The same file in both roles is that file, whatever lambda: every column is a tie. */
START_TEST(a_file_with_itself_is_that_file)
{
    weft_plan *p = zip_of(ink, ink, NULL), *q = alone(model, ink);
    float     *x = added(p, attn), *y = added(q, attn);

    for (size_t i = 0; i < 64; i++) ck_assert_float_eq_tol(x[i], y[i], 1e-6f);
    free(x), free(y);
    weft_plan_free(p), weft_plan_free(q);
}
END_TEST

static int32_t count_tellings(void *user, const char *what, int64_t done, int64_t total)
{
    (void)done, (void)total;
    ck_assert_str_eq(what, "measuring columns");
    ++*(int *)user;
    return 0;
}

/* A copy with another weight, and one with another lambda, read no weights again. */
START_TEST(copies_measure_nothing)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_zip_options  z = WEFT_ZIP_OPTIONS_INIT;
    weft_plan        *p, *q;
    int               told = 0;

    o.progress = count_tellings;
    o.progress_user = &told;
    OK(weft_plan_create(model, &o, &p, &err));
    OK(weft_plan_add(p, ink, 1, NULL, &err));
    OK(weft_plan_add(p, clay, 1, NULL, &err));
    OK(weft_plan_zip(p, NULL, &err));
    OK(weft_plan_seal(p, 4, &err));
    ck_assert_int_eq(told, count_layers(model, ATTENTION) + count_layers(model, OTHERS) + 1);
    told = 0;
    OK(weft_plan_copy(p, &q, &err));
    OK(weft_plan_set_weight(q, 0, 0.5f, NULL, &err));
    z.flags = WEFT_ZIP_LAMBDA;
    z.lambda = 0.25;
    OK(weft_plan_zip(q, &z, &err));
    OK(weft_plan_seal(q, 4, &err));
    ck_assert_int_eq(told, 0);
    weft_plan_free(q);
    OK(weft_plan_copy(p, &q, &err)); /* the roles swapped: others */
    weft_adapter *first = ink;
    OK(weft_plan_replace(q, 0, clay, 1, NULL, &err));
    OK(weft_plan_replace(q, 1, first, 1, NULL, &err));
    OK(weft_plan_seal(q, 4, &err));
    ck_assert_int_gt(told, 0);
    weft_plan_free(p), weft_plan_free(q);
}
END_TEST

START_TEST(explained_in_words)
{
    weft_plan *p = zip_of(ink, clay, NULL);
    char       text[8192];

    OK(weft_plan_text(p, text, sizeof text, NULL, &err));
    ck_assert_ptr_nonnull(strstr(text, "ZipLoRA: 2 adapters"));
    ck_assert_ptr_nonnull(strstr(text, "  content    A, style B\n"));
    ck_assert_ptr_nonnull(strstr(text, "in closed form, lambda 1, in "));
    ck_assert_ptr_nonnull(strstr(text, "  overlap    0.0000 of the plain sum's 0."));
    weft_plan_free(p);
}
END_TEST

/* ---- refusals -------------------------------------------------------------------------------- */

START_TEST(what_is_no_coefficient_is_refused)
{
    static const float v[16] = { 1, 1, 1 };
    float              bad[8] = { 0, 0, 0, 0, 0, NAN };
    const wf_layer    *l = layer_of(attn), none = { .name = "unet.nowhere" };
    weft_zip_options   o = WEFT_ZIP_OPTIONS_INIT;
    weft_plan         *p = new_plan(model);
    weft_tensor_out    ints = WEFT_TENSOR_OUT_INIT;
    char               name[600];

    OK(weft_plan_add(p, ink, 1, NULL, &err));
    OK(weft_plan_add(p, clay, 1, NULL, &err));
    o.coefficients = vectors_of(&none, v, v, 8);
    FAILS(WEFT_E_MISMATCH, "unet.nowhere.zip.m_c: wanted a layer of the UNet with .zip.m_c or .zip.m_s",
          weft_plan_zip(p, &o, &err));
    weft_tensors_free(o.coefficients);
    o.coefficients = vectors_of(l, v, v, 7);
    FAILS(WEFT_E_MISMATCH, "has 7 values, the layer has 8 columns", weft_plan_zip(p, &o, &err));
    weft_tensors_free(o.coefficients);
    o.coefficients = vectors_of(l, v, bad, 8);
    FAILS(WEFT_E_FORMAT, "value 5 is not finite", weft_plan_zip(p, &o, &err));
    o.flags = WEFT_ZIP_LAMBDA;
    FAILS(WEFT_E_ARG, "lambda is for the closed form", weft_plan_zip(p, &o, &err));
    weft_tensors_free(o.coefficients);
    snprintf(name, sizeof name, "%s.zip.m_s", l->name);
    ints.name = name, ints.data = v, ints.rank = 1, ints.shape[0] = 8, ints.dtype = "I32";
    o.flags = 0;
    OK(weft_tensors_create(&ints, 1, NULL, 0, NULL, &o.coefficients, &err));
    FAILS(WEFT_E_UNSUPPORTED, "is I32, wanted floats", weft_plan_zip(p, &o, &err));
    weft_tensors_free(o.coefficients);

    o = (weft_zip_options)WEFT_ZIP_OPTIONS_INIT;
    o.flags = WEFT_ZIP_LAMBDA;
    o.lambda = -0.5;
    FAILS(WEFT_E_ARG, "not negative", weft_plan_zip(p, &o, &err));
    o.lambda = INFINITY;
    FAILS(WEFT_E_ARG, "finite", weft_plan_zip(p, &o, &err));
    o.flags = WEFT_ZIP_STYLE;
    o.style = 1e300;
    FAILS(WEFT_E_ARG, "style is not a finite number", weft_plan_zip(p, &o, &err));
    ck_assert_str_eq(p->phase[0].method->name, "merge"); /* nothing half set */
    OK(weft_plan_seal(p, 2, &err));
    FAILS(WEFT_E_STATE, "sealed", weft_plan_zip(p, NULL, &err));
    FAILS(WEFT_E_STATE, "no phase of the plan is under ZipLoRA", weft_plan_zip_save(p, "x", &err));
    weft_plan_free(p);
}
END_TEST

/* A network of LoRA.rar in miniature: (2, 2 out) in, with one hidden unit that sees the content's first row. */
static weft_tensors *network_of(int64_t hidden, int64_t columns, const float *in, const float *bias, int64_t outs)
{
    static const float out[64] = { 2, -1 }, base[8] = { 0.5f, 0.25f };
    weft_tensor_out    t[4] = { WEFT_TENSOR_OUT_INIT, WEFT_TENSOR_OUT_INIT, WEFT_TENSOR_OUT_INIT, WEFT_TENSOR_OUT_INIT };
    weft_tensors      *made;

    t[0].name = "input_1.weight", t[0].data = in, t[0].rank = 2, t[0].shape[0] = hidden, t[0].shape[1] = columns;
    t[1].name = "input_1.bias", t[1].data = bias, t[1].rank = 1, t[1].shape[0] = hidden;
    t[2].name = "output.1.weight", t[2].data = out, t[2].rank = 2, t[2].shape[0] = outs, t[2].shape[1] = hidden;
    t[3].name = "output.1.bias", t[3].data = base, t[3].rank = 1, t[3].shape[0] = outs;
    OK(weft_tensors_create(t, 4, NULL, 0, NULL, &made, &err));
    return made;
}

/* The fixture's first row of D1 is 1 2 0 -1: relu gives m_c = 0.5 + 2 relu(d), m_s = 0.25 - relu(d). */
START_TEST(a_network_chooses_the_columns)
{
    static const float bias[2] = { 0 };
    float             *in = calloc((size_t)(4 * layer_of(attn)->out), sizeof *in); /* enough for all that follow */
    const double       row[] = { 1, 2, 0, -1 };
    weft_adapter      *one = corner(B1, A1, false, "one"), *two = corner(B2, A2, true, "two");
    weft_plan         *p = new_plan(model);
    weft_tensors      *net, *got;
    int64_t            out = layer_of(attn)->out;
    char               name[600];

    OK(weft_plan_add(p, one, 1, NULL, &err));
    in[0] = 1;
    net = network_of(1, 2 * out, in, bias, 2);
    FAILS(WEFT_E_UNSUPPORTED, "needs exactly two adapters", weft_plan_zip_predict(p, net, &got, &err));
    ck_assert_ptr_null(got);
    OK(weft_plan_add(p, two, 1, NULL, &err));
    OK(weft_plan_zip_predict(p, net, &got, &err));
    ck_assert_uint_eq(weft_tensors_count(got), 2);
    for (int which = 0; which < 2; which++) {
        snprintf(name, sizeof name, "%s.zip.m_%c", layer_of(attn)->name, which == 0 ? 'c' : 's');
        const wf_tensor *t = wf_tensors_find(got, name);
        ck_assert_ptr_nonnull(t);
        ck_assert_uint_eq(t->count, (size_t)layer_of(attn)->in);
        for (size_t i = 0; i < t->count; i++) {
            double d = i < 4 && row[i] > 0 ? row[i] : 0;
            float  v;
            wf_tensor_read(t, i, 1, &v);
            ck_assert_double_eq_tol(v, which == 0 ? 0.5 + 2 * d : 0.25 - d, 1e-6);
        }
    }
    weft_tensors_free(got), weft_tensors_free(net);
    net = network_of(1, 2 * out + 2, in, bias, 2); /* for other layers */
    FAILS(WEFT_E_MISMATCH, "the adapters share no to_q or to_out.0 of that height", weft_plan_zip_predict(p, net, &got, &err));
    weft_tensors_free(net);
    net = network_of(1, 2 * out, in, bias, 3);
    FAILS(WEFT_E_MISMATCH, "no network for ZipLoRA's coefficients", weft_plan_zip_predict(p, net, &got, &err));
    weft_tensors_free(net);
    net = network_of(1, 2 * out - 1, in, bias, 2);
    FAILS(WEFT_E_MISMATCH, "no network for ZipLoRA's coefficients", weft_plan_zip_predict(p, net, &got, &err));
    weft_tensors_free(net);
    in[3] = NAN;
    net = network_of(1, 2 * out, in, bias, 2);
    FAILS(WEFT_E_FORMAT, "input_1.weight: value 3 is not finite", weft_plan_zip_predict(p, net, &got, &err));
    weft_tensors_free(net);
    in[3] = 0, in[0] = 3e38f;
    net = network_of(1, 2 * out, in, bias, 2);
    FAILS(WEFT_E_NOT_FINITE, "the network's coefficient of column 0", weft_plan_zip_predict(p, net, &got, &err));
    ck_assert_ptr_null(got);
    weft_tensors_free(net);
    free(in);
    weft_plan_free(p);
    weft_adapter_free(one), weft_adapter_free(two);
}
END_TEST

START_TEST(what_does_not_fit_is_refused_when_sealed)
{
    weft_plan       *p = new_plan(model);
    weft_adapter    *text = adapter_on(model, "text", TEXT, 1, 0.1f, 3), *one;
    weft_add_options style = WEFT_ADD_OPTIONS_INIT;
    weft_zip_options o = WEFT_ZIP_OPTIONS_INIT;
    static const float v[8] = { 1 };

    OK(weft_plan_zip(p, NULL, &err));
    OK(weft_plan_add(p, ink, 1, NULL, &err));
    FAILS(WEFT_E_UNSUPPORTED, "zip: needs exactly two adapters, content and style; the plan has 1",
          weft_plan_seal(p, 2, &err));
    style.role = WEFT_ROLE_STYLE;
    OK(weft_plan_replace(p, 0, ink, 1, &style, &err));
    OK(weft_plan_add(p, clay, 1, &style, &err));
    FAILS(WEFT_E_UNSUPPORTED, "both adapters have the role style", weft_plan_seal(p, 2, &err));
    OK(weft_plan_replace(p, 1, text, 1, NULL, &err));
    o.coefficients = vectors_of(layer_of(attn), v, v, 8);
    OK(weft_plan_replace(p, 0, text, 1, NULL, &err));
    OK(weft_plan_zip(p, &o, &err));
    weft_tensors_free(o.coefficients);
    FAILS(WEFT_E_MISMATCH, "has no coefficients for a layer of these adapters", weft_plan_seal(p, 2, &err));
    OK(weft_plan_zip(p, NULL, &err)); /* the text encoders' parts are summed; no column to choose */
    OK(weft_plan_seal(p, 2, &err));
    FAILS(WEFT_E_UNSUPPORTED, "share no layer", weft_plan_zip_save(p, temp_path("none"), &err));
    weft_plan_free(p);

    p = new_plan(model);
    OK(weft_plan_add(p, ink, 1, NULL, &err));
    OK(weft_plan_switch(p, NULL, &err));
    OK(weft_plan_add(p, clay, 1, NULL, &err));
    FAILS(WEFT_E_STATE, "not sealed", weft_plan_fold(p, NULL, &one, &err));
    OK(weft_plan_seal(p, 20, &err));
    FAILS(WEFT_E_UNSUPPORTED, "weft_plan_fold: the coefficients of LoRA Switch change at call 5",
          weft_plan_fold(p, NULL, &one, &err));
    ck_assert_ptr_null(one);
    weft_plan_free(p);
    p = new_plan(model);
    OK(weft_plan_add(p, ink, 0, NULL, &err));
    OK(weft_plan_seal(p, 2, &err));
    FAILS(WEFT_E_UNSUPPORTED, "adds nothing to any layer", weft_plan_fold(p, NULL, &one, &err));
    weft_plan_free(p);
    weft_adapter_free(text);
}
END_TEST

/* Whatever allocation fails while a plan is sealed or folded, all memory comes back. */
START_TEST(memory_may_run_out)
{
    counter        c = { 0, 0, -1 };
    weft_allocator alloc = { counter_alloc, counter_free, &c };
    weft_plan_options    o = WEFT_PLAN_OPTIONS_INIT;
    weft_adapter_options ao = WEFT_ADAPTER_OPTIONS_INIT;
    long           failed = 0;

    o.allocator = &alloc;
    ao.allocator = &alloc;
    for (long n = 0;; n += n < 40 ? 1 : 97) {
        weft_plan    *p = NULL;
        weft_adapter *one = NULL;
        c.asked = 0, c.refuse = n;
        weft_status st = weft_plan_create(model, &o, &p, &err);
        if (st == WEFT_OK) st = weft_plan_add(p, ink, 1, NULL, &err);
        if (st == WEFT_OK) st = weft_plan_add(p, clay, 1, NULL, &err);
        if (st == WEFT_OK) st = weft_plan_set_blocks(p, 0, "OUTALL,IN04=0.5", &err);
        if (st == WEFT_OK) st = weft_plan_zip(p, NULL, &err);
        if (st == WEFT_OK) st = weft_plan_seal(p, 2, &err);
        if (st == WEFT_OK) st = weft_plan_fold(p, &ao, &one, &err);
        ck_assert(st == WEFT_OK || st == WEFT_E_NOMEM);
        failed += st != WEFT_OK;
        weft_adapter_free(one);
        weft_plan_free(p);
        ck_assert_int_eq(c.live, 0);
        if (st == WEFT_OK && c.asked <= n) break;
    }
    ck_assert_int_gt(failed, 20);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("ZipLoRA and folded plans");
    TCase *t = tcase_create("zip");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, the_closed_form_is_the_least);
    tcase_add_test(t, columns_by_hand);
    tcase_add_loop_test(t, columns_as_worked_out, 0, 4);
    tcase_add_loop_test(t, a_folded_plan_is_the_plan, 0, 2);
    tcase_add_loop_test(t, a_merge_of_any_family_folds, 0, (int)WF_LEN(files));
    tcase_add_test(t, coefficients_survive_a_file);
    tcase_add_test(t, coefficients_of_others_are_warned_of);
    tcase_add_test(t, a_prediction_times_a_number_is_no_weight);
    tcase_add_test(t, lambda_drives_the_overlap_to_zero);
    tcase_add_test(t, a_file_with_itself_is_that_file);
    tcase_add_test(t, copies_measure_nothing);
    tcase_add_test(t, explained_in_words);
    tcase_add_test(t, what_is_no_coefficient_is_refused);
    tcase_add_test(t, a_network_chooses_the_columns);
    tcase_add_test(t, what_does_not_fit_is_refused_when_sealed);
    tcase_add_test(t, memory_may_run_out);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
