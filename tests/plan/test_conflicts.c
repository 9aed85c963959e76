/* test_conflicts.c - adapters held beside each other: numbers worked by hand, those of whole deltas in f64 (reference/make_conflicts.py),
 * the verdicts, and what is refused. */
#include "fixture.h"
#include "golden.h"

static weft_model *model;

static void setup(void) { model = open_model("tiny-sd1"); }
static void teardown(void) { weft_model_free(model); }

static const float B1[3][2] = { { 1, 0 }, { 0.5f, -1 }, { 2, 1 } }, A1[2][4] = { { 1, 2, 0, -1 }, { 0, 1, 3, 1 } };
static const float B2[3][2] = { { 0, 1 }, { 1, 1 }, { -1, 0.5f } }, A2[2][4] = { { 2, 0, 1, 0 }, { -1, 1, 0, 2 } };

/* B A in the top left corner of a layer's delta, behind spare rows of A, or columns of B, that are zero. */
static void corner(maker *m, int64_t layer, int spare, const float B[3][2], const float A[2][4])
{
    const wf_layer *l = &wf_model_layers(m->model, &(size_t){ 0 })[layer];
    int             rank = 2 + spare;
    float          *down, *up;

    module_of(m, layer, rank, 0, &down, &up);
    for (int r = 0; r < rank; r++) { /* the spare ones first */
        int at = r - spare;
        for (int i = 0; i < 4; i++) down[r * l->in + i] = at >= 0 ? A[at][i] : r == 0 ? 0 : A[0][i] - A[1][i];
        for (int o = 0; o < 3; o++) up[o * rank + r] = at >= 0 ? B[o][at] : r == 0 ? (float)(o * o + 5) : 0;
    }
}

static void whole(maker *m, int64_t layer, const float B[3][2], const float A[2][4])
{
    const wf_layer *l = &wf_model_layers(m->model, &(size_t){ 0 })[layer];
    char            stem[512];

    ck_assert(wf_name_kohya(m->model, l, stem, sizeof stem));
    float *D = put(m, stem, ".diff", l->out, l->in, 1, 2);
    for (int i = 0; i < 12; i++)
        for (int r = 0; r < 2; r++) D[i / 4 * l->in + i % 4] += B[i / 4][r] * A[r][i % 4];
}

static weft_plan *plan_of(weft_adapter *a, float wa, weft_adapter *b, float wb)
{
    weft_plan *p = new_plan(model);
    OK(weft_plan_add(p, a, wa, NULL, &err));
    OK(weft_plan_add(p, b, wb, NULL, &err));
    return p;
}

static weft_conflicts *conflicts_of(weft_plan *p)
{
    weft_conflicts *c;
    OK(weft_plan_seal(p, 2, &err));
    OK(weft_conflicts_create(p, &c, &err));
    weft_plan_free(p);
    return c;
}

static weft_conflict row(const weft_conflicts *c, size_t i)
{
    weft_conflict r = WEFT_CONFLICT_INIT;
    OK(weft_conflicts_get(c, i, &r, &err));
    return r;
}

static weft_conflict_block block(const weft_conflicts *c, size_t i)
{
    weft_conflict_block r = WEFT_CONFLICT_BLOCK_INIT;
    OK(weft_conflicts_block(c, i, &r, &err));
    return r;
}

/* |D1|^2 = 56.5, |D2|^2 = 21.5, <D1, D2> = -1 - 5.5 - 6.5 = -13. Ten entries are in both, seven of them with other signs.
 * Both write into planes of R^3, which share a line: with the normals (2.5 -1 -1) and (1.5 -1 -1) the other angle has
 * cos^2 = 5.75^2 / (8.25 * 4.25), and the overlap is (1 + that) / 2 = 0.971480. Factors may be longer than their rank. */
START_TEST(the_worked_pair_comes_out)
{
    int64_t         one = nth_layer(model, ATTENTION, 2);
    const wf_layer *l = &wf_model_layers(model, &(size_t){ 0 })[one];

    for (int kind = 0; kind < 3; kind++) { /* two pairs; pairs with idle rows; a pair and a matrix */
        maker *m = make(model);
        corner(m, one, kind == 1 ? 2 : 0, B1, A1);
        weft_adapter *a = finish(m, "a");
        m = make(model);
        if (kind == 2) whole(m, one, B2, A2);
        else corner(m, one, kind == 1 ? 1 : 0, B2, A2);
        weft_adapter   *b = finish(m, "b");
        weft_conflicts *c = conflicts_of(plan_of(a, 1, b, 1));
        ck_assert_uint_eq(weft_conflicts_count(c), 1);
        weft_conflict r = row(c, 0);
        ck_assert_int_eq(r.first, 0);
        ck_assert_int_eq(r.second, 1);
        ck_assert_int_eq((int)r.layer, (int)one);
        ck_assert_double_eq_tol(r.first_norm, 7.516648, 1e-6);
        ck_assert_double_eq_tol(r.second_norm, sqrt(21.5), 1e-6);
        ck_assert_double_eq_tol(r.cosine, -13 / sqrt(56.5 * 21.5), 1e-6);
        ck_assert_double_eq_tol(r.clash, 0.7, 1e-9);
        ck_assert_double_eq_tol(r.overlap, kind == 2 ? -1 : (1 + 5.75 * 5.75 / (8.25 * 4.25)) / 2, 1e-6);
        ck_assert_double_eq_tol(r.chance, kind == 2 ? 0 : 2.0 / l->out, 1e-9);
        weft_conflicts_free(c);
        weft_adapter_free(a);
        weft_adapter_free(b);
    }
}
END_TEST

/* Weights count: -0.5 turns signs and cosine, and halves the norm; weight 0 is not there. */
START_TEST(weights_count)
{
    int64_t one = nth_layer(model, ATTENTION, 2);
    maker  *m = make(model);
    corner(m, one, 0, B1, A1);
    weft_adapter *a = finish(m, "a");
    m = make(model);
    corner(m, one, 0, B2, A2);
    weft_adapter   *b = finish(m, "b");
    weft_conflicts *c = conflicts_of(plan_of(a, 2, b, -0.5f));
    weft_conflict   r = row(c, 0);

    ck_assert_double_eq_tol(r.first_norm, 2 * 7.516648, 2e-6);
    ck_assert_double_eq_tol(r.second_norm, 0.5 * sqrt(21.5), 1e-6);
    ck_assert_double_eq_tol(r.cosine, 13 / sqrt(56.5 * 21.5), 1e-6);
    ck_assert_double_eq_tol(r.clash, 0.3, 1e-9);
    weft_conflicts_free(c);
    c = conflicts_of(plan_of(a, 1, b, 0));
    ck_assert_uint_eq(weft_conflicts_count(c), 0);
    ck_assert_int_eq(block(c, 0).first_alone, 1);
    ck_assert_ptr_ne(strstr(block(c, 0).words, "have no layer in common"), NULL);
    weft_conflicts_free(c);

    weft_plan *p = plan_of(a, 1, b, 1); /* balanced: sums 20 and 14 */
    OK(weft_plan_balance(p, NULL, &err));
    c = conflicts_of(p);
    ck_assert_double_eq_tol(row(c, 0).second_norm, sqrt(21.5) * 20 / 14, 1e-5);
    weft_conflicts_free(c);
    weft_adapter_free(a);
    weft_adapter_free(b);
}
END_TEST

/* Scales of the same and of other deltas, and what is said of them: the loudest fault first. */
START_TEST(verdicts_say_what_to_do)
{
    static const struct { float a, b; bool same; int32_t verdict; const char *words; } cases[] = {
        { 6, 1, false, WEFT_VERDICT_FIRST_DROWNS, "the content A (a) drowns the style B (b) in down.0: 9.7 times its norm; lower its weight" },
        { 1, 6, false, WEFT_VERDICT_SECOND_DROWNS, "the style B (b) drowns the content A (a) in down.0: 3.7 times its norm; lower its weight" },
        { 1, 1, false, WEFT_VERDICT_AGAINST, "work against each other in down.0: cosine -0.37" },
        { 1, 1, true, WEFT_VERDICT_SAME, "do much the same in down.0: cosine 1.00" },
        { 1, -1, false, WEFT_VERDICT_SHARED, "write into the same directions in down.0: 0.97 of their columns" },
        { 1, 3.1f, true, WEFT_VERDICT_SECOND_DROWNS, "3.1 times" },
        { 1, 2.9f, true, WEFT_VERDICT_SAME, "cosine 1.00" },
    };
    int64_t          one = nth_layer(model, ATTENTION, 2);
    weft_add_options content = WEFT_ADD_OPTIONS_INIT, style = WEFT_ADD_OPTIONS_INIT;

    content.role = WEFT_ROLE_CONTENT;
    style.role = WEFT_ROLE_STYLE;
    for (size_t i = 0; i < WF_LEN(cases); i++) {
        weft_plan *p = new_plan(model);
        maker     *m = make(model);
        char       text[4000];
        corner(m, one, 0, B1, A1);
        weft_adapter *a = finish(m, "a");
        m = make(model);
        corner(m, one, 0, cases[i].same ? B1 : B2, cases[i].same ? A1 : A2);
        weft_adapter *b = finish(m, "b");
        OK(weft_plan_add(p, a, cases[i].a, &content, &err));
        OK(weft_plan_add(p, b, cases[i].b, &style, &err));
        weft_conflicts *c = conflicts_of(p);
        ck_assert_uint_eq(weft_conflicts_blocks(c), 2);
        ck_assert_str_eq(block(c, 0).name, "");
        weft_conflict_block r = block(c, 1);
        ck_assert_str_eq(r.name, "down.0");
        ck_assert_int_eq(r.verdict, cases[i].verdict);
        ck_assert_int_eq(block(c, 0).verdict, cases[i].verdict);
        ck_assert_msg(strstr(r.words, cases[i].words) != NULL, "\"%s\" lacks \"%s\"", r.words, cases[i].words);
        OK(weft_conflicts_text(c, text, sizeof text, NULL, &err));
        ck_assert_ptr_ne(strstr(text, r.words), NULL);
        weft_conflicts_free(c);
        weft_adapter_free(a);
        weft_adapter_free(b);
    }
}
END_TEST

/* Loud by its file: balance is what helps, and then nothing is wrong. Loud by its file in one layer of many: balance, which
 * is one number for all, does not reach it. */
START_TEST(the_remedy_is_one_that_helps)
{
    weft_adapter   *a = adapter_on(model, "a", ATTENTION, 2, 0.9f, 1), *b = adapter_on(model, "b", ATTENTION, 2, 0.2f, 2);
    maker          *m = make(model);
    weft_conflicts *c;

    for (int n = 0; nth_layer(model, ATTENTION, n) >= 0; n++)
        random_module(m, nth_layer(model, ATTENTION, n), 2, 0, n < 4 ? 9 : 0.9f, 3);
    weft_adapter *uneven = finish(m, "uneven");
    c = conflicts_of(plan_of(a, 1, b, 1));
    ck_assert_int_eq(block(c, 0).verdict, WEFT_VERDICT_FIRST_DROWNS);
    ck_assert_ptr_ne(strstr(block(c, 0).words, " times its norm; balance them with weft_plan_balance()"), NULL);
    weft_conflicts_free(c);
    weft_plan *p = plan_of(a, 1, b, 1);
    OK(weft_plan_balance(p, NULL, &err));
    c = conflicts_of(p);
    for (size_t i = 0; i < weft_conflicts_blocks(c); i++) ck_assert_int_eq(block(c, i).verdict, WEFT_VERDICT_NONE);
    weft_conflicts_free(c);
    p = plan_of(a, 1, uneven, 1);
    OK(weft_plan_balance(p, NULL, &err));
    c = conflicts_of(p);
    ck_assert_str_eq(block(c, 1).name, "down.0");
    ck_assert_int_eq(block(c, 1).verdict, WEFT_VERDICT_SECOND_DROWNS);
    ck_assert_ptr_ne(strstr(block(c, 1).words, "its norm; give each layer to one"), NULL);
    weft_conflicts_free(c);
    weft_adapter_free(a);
    weft_adapter_free(b);
    weft_adapter_free(uneven);
}
END_TEST

static int64_t layer_named(const char *name)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(model, &count);

    for (size_t l = 0; l < count; l++)
        if (strcmp(layers[l].name, name) == 0) return (int64_t)l;
    ck_abort_msg("no layer %s", name);
    return -1;
}

static void near(const char *what, double got, double want)
{
    ck_assert_msg(fabs(got - want) <= 1e-6 * fmax(1, fabs(want)), "%s: %.9g, wanted %.9g", what, got, want);
}

static void check_blocks(const weft_conflicts *c, json_t *pair)
{
    json_t *blocks = json_object_get(pair, "blocks");
    size_t  found = 0;

    for (size_t i = 0; i < weft_conflicts_blocks(c); i++) {
        weft_conflict_block r = block(c, i);
        if (r.first != json_integer_value(json_object_get(pair, "first")) ||
            r.second != json_integer_value(json_object_get(pair, "second")) || r.layers == 0)
            continue;
        for (size_t k = 0; k < json_array_size(blocks); k++) {
            json_t *b = json_array_get(blocks, k), *v = json_object_get(b, "values");
            const double got[] = { r.first_norm, r.second_norm, r.cosine, r.clash, r.overlap, r.chance };
            if (strcmp(json_string_value(json_object_get(b, "name")), r.name) != 0) continue;
            found++;
            ck_assert_int_eq(r.layers, (int)json_integer_value(json_object_get(b, "layers")));
            for (size_t n = 0; n < 6; n++) near(r.name, got[n], json_number_value(json_array_get(v, n)));
        }
        if (r.name[0] != '\0') continue;
        ck_assert_int_eq(r.first_alone, (int)json_integer_value(json_array_get(json_object_get(pair, "alone"), 0)));
        ck_assert_int_eq(r.second_alone, (int)json_integer_value(json_array_get(json_object_get(pair, "alone"), 1)));
    }
    ck_assert_uint_eq(found, json_array_size(blocks));
}

START_TEST(four_adapters_are_their_restatement)
{
    json_t       *g = golden_json("conflicts.json"), *list = json_object_get(g, "adapters"), *pairs = json_object_get(g, "pairs");
    weft_tensors *t = golden_open("conflicts.safetensors");
    weft_plan    *p = new_plan(model);
    size_t        rows = 0;

    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t       *one = json_array_get(list, i);
        weft_adapter *a;
        OK(weft_adapter_open(data_path("%s", json_string_value(json_object_get(one, "path"))), NULL, &a, &err));
        OK(weft_plan_add(p, a, (float)json_number_value(json_object_get(one, "weight")), NULL, &err));
        weft_adapter_free(a);
    }
    weft_conflicts *c = conflicts_of(p);
    for (size_t i = 0; i < json_array_size(pairs); i++) {
        json_t *pair = json_array_get(pairs, i), *layers = json_object_get(pair, "layers");
        int     first = (int)json_integer_value(json_object_get(pair, "first")),
                second = (int)json_integer_value(json_object_get(pair, "second"));
        golden  want = golden_read(t, "%d_%d", first, second);
        for (size_t k = 0; k < json_array_size(layers); k++) {
            int64_t id = layer_named(json_string_value(json_array_get(layers, k)));
            bool    found = false;
            for (size_t n = 0; n < weft_conflicts_count(c); n++) {
                weft_conflict r = row(c, n);
                if (r.layer != id || r.first != first || r.second != second) continue;
                const double got[] = { r.first_norm, r.second_norm, r.cosine, r.clash, r.overlap, r.chance };
                for (size_t j = 0; j < 6; j++) near(json_string_value(json_array_get(layers, k)), got[j], (double)want.v[6 * k + j]);
                found = true;
                rows++;
            }
            ck_assert(found);
        }
        check_blocks(c, pair);
        free(want.v);
    }
    ck_assert_uint_eq(rows, weft_conflicts_count(c));
    weft_conflicts_free(c);
    weft_tensors_free(t);
    json_decref(g);
}
END_TEST

static int32_t stop(void *user, const char *what, int64_t done, int64_t total)
{
    (void)user, (void)total;
    ck_assert_str_eq(what, "comparing layers");
    return done == 5;
}

START_TEST(what_cannot_be_is_refused)
{
    weft_adapter       *a = adapter_on(model, "a", ATTENTION, 2, 0.9f, 1);
    weft_plan_options   o = WEFT_PLAN_OPTIONS_INIT;
    weft_conflict       r = WEFT_CONFLICT_INIT;
    weft_conflict_block b = WEFT_CONFLICT_BLOCK_INIT;
    weft_plan          *p = plan_of(a, 1, a, 1);
    weft_conflicts     *c;
    size_t              needed;
    char                cut[5];

    FAILS(WEFT_E_STATE, "not sealed", weft_conflicts_create(p, &c, &err));
    ck_assert_ptr_null(c);
    FAILS(WEFT_E_ARG, "out is NULL", weft_conflicts_create(p, NULL, &err));
    FAILS(WEFT_E_ARG, "plan is NULL", weft_conflicts_create(NULL, &c, &err));
    c = conflicts_of(p);
    FAILS(WEFT_E_ARG, "row 999 of", weft_conflicts_get(c, 999, &r, &err));
    FAILS(WEFT_E_ARG, "block 99 of", weft_conflicts_block(c, 99, &b, &err));
    FAILS(WEFT_E_ARG, "out is NULL", weft_conflicts_get(c, 0, NULL, &err));
    FAILS(WEFT_E_ARG, "conflicts is NULL", weft_conflicts_block(NULL, 0, &b, &err));
    FAILS(WEFT_E_ARG, "buf is NULL", weft_conflicts_text(c, NULL, 3, &needed, &err));
    OK(weft_conflicts_text(c, cut, sizeof cut, &needed, &err));
    ck_assert_uint_eq(strlen(cut), 4);
    ck_assert_uint_gt(needed, 300);
    weft_conflicts_free(c);
    weft_conflicts_free(NULL);
    ck_assert_uint_eq(weft_conflicts_count(NULL) + weft_conflicts_blocks(NULL), 0);

    p = new_plan(model);
    for (int i = 0; i < 33; i++) OK(weft_plan_add(p, a, i == 0 ? 1 : 0, NULL, &err));
    OK(weft_plan_seal(p, 1, &err));
    FAILS(WEFT_E_UNSUPPORTED, "at most 32 adapters, the plan has 33", weft_conflicts_create(p, &c, &err));
    weft_plan_free(p);
    p = new_plan(model);
    OK(weft_plan_add(p, a, 1, NULL, &err));
    OK(weft_plan_seal(p, 1, &err));
    FAILS(WEFT_E_UNSUPPORTED, "need two adapters, the plan has 1", weft_conflicts_create(p, &c, &err));
    weft_plan_free(p);
    o.progress = stop;
    OK(weft_plan_create(model, &o, &p, &err));
    for (int i = 0; i < 2; i++) OK(weft_plan_add(p, a, 1, NULL, &err));
    OK(weft_plan_seal(p, 1, &err));
    FAILS(WEFT_E_CANCELLED, "stopped after 5 of", weft_conflicts_create(p, &c, &err));
    weft_plan_free(p);
    weft_adapter_free(a);
}
END_TEST

START_TEST(any_failed_allocation_leaves_nothing)
{
    int64_t one = nth_layer(model, ATTENTION, 2);
    maker  *m = make(model);
    corner(m, one, 0, B1, A1);
    weft_adapter *a = finish(m, "a");
    m = make(model);
    whole(m, one, B2, A2);
    corner(m, nth_layer(model, ATTENTION, 3), 0, B2, A2);
    weft_adapter     *b = finish(m, "b");
    counter           count = { 0, 0, -1 };
    weft_allocator    alloc = { counter_alloc, counter_free, &count };
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_conflicts   *c;
    weft_plan        *p;
    weft_status       st = WEFT_E_NOMEM;

    o.allocator = &alloc;
    OK(weft_plan_create(model, &o, &p, &err));
    OK(weft_plan_add(p, a, 1, NULL, &err));
    OK(weft_plan_add(p, b, 1, NULL, &err));
    OK(weft_plan_seal(p, 1, &err));
    for (long n = 0, live = count.live; st != WEFT_OK; n++) {
        ck_assert_int_lt((int)n, 500);
        count.asked = 0;
        count.refuse = n;
        st = weft_conflicts_create(p, &c, &err);
        if (st == WEFT_OK) break;
        ck_assert_int_eq(st, WEFT_E_NOMEM);
        ck_assert_int_eq((int)count.live, (int)live);
    }
    count.refuse = -1;
    weft_plan_free(p);
    weft_conflicts_free(c); /* after its plan */
    ck_assert_int_eq((int)count.live, 0);
    weft_adapter_free(a);
    weft_adapter_free(b);
}
END_TEST

int main(void)
{
    Suite   *s = suite_create("plan conflicts");
    TCase   *t = tcase_create("conflicts");
    SRunner *sr = srunner_create(s);
    int      failed;

    suite_add_tcase(s, t);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, the_worked_pair_comes_out);
    tcase_add_test(t, weights_count);
    tcase_add_test(t, verdicts_say_what_to_do);
    tcase_add_test(t, the_remedy_is_one_that_helps);
    tcase_add_test(t, four_adapters_are_their_restatement);
    tcase_add_test(t, what_cannot_be_is_refused);
    tcase_add_test(t, any_failed_allocation_leaves_nothing);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
