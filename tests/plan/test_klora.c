/* test_klora.c - K-LoRA on a model: scores, gamma, and who has which layer when. */
#include "fixture.h"

static weft_model *model;

static void setup(void) { model = open_model("tiny-sd1"); }
static void teardown(void) { weft_model_free(model); }

static weft_klora_score score_of(const weft_plan *p, int64_t layer)
{
    weft_klora_score s = WEFT_KLORA_SCORE_INIT;
    OK(weft_plan_klora_score(p, 0, layer, &s, &err));
    return s;
}

/* B A in the top left corner of a layer's delta, the rest zero. */
static void corner(maker *m, int64_t layer, float alpha, float scale, const float B[3][2], const float A[2][4])
{
    const wf_layer *l = &wf_model_layers(m->model, &(size_t){ 0 })[layer];
    float          *down, *up;

    module_of(m, layer, 2, alpha, &down, &up);
    for (int r = 0; r < 2; r++) {
        for (int i = 0; i < 4; i++) down[r * l->in + i] = A[r][i];
        for (int o = 0; o < 3; o++) up[o * 2 + r] = scale * B[o][r];
    }
}

/* One entry. */
static void dot(maker *m, int64_t layer, float value)
{
    float *down, *up;
    module_of(m, layer, 1, 0, &down, &up);
    down[0] = 1;
    up[0] = value;
}

static const float B1[3][2] = { { 1, 0 }, { 0.5f, -1 }, { 2, 1 } }, A1[2][4] = { { 1, 2, 0, -1 }, { 0, 1, 3, 1 } };
static const float B2[3][2] = { { 0, 1 }, { 1, 1 }, { -1, 0.5f } }, A2[2][4] = { { 2, 0, 1, 0 }, { -1, 1, 0, 2 } };

/* |D1|: 5 3 3 2 ..., sum 20; |D2|: 2.5 2 2 1 ..., sum 14; K = 2 * 2: S_c = 13, S_s = 7.5, q = 20/14. A second
 * layer has q = 0.8, so gamma = 1.114286 and rho = 13 / (7.5 gamma) = 1.555556. */
START_TEST(the_worked_example_comes_out)
{
    int64_t            one = nth_layer(model, ATTENTION, 0), two = nth_layer(model, ATTENTION, 5);
    weft_klora_options o = WEFT_KLORA_OPTIONS_INIT;
    weft_adapter      *content, *style;
    weft_klora_score   s;
    weft_plan         *p = new_plan(model);
    maker             *m = make(model);

    corner(m, one, 0, 1, B1, A1);
    dot(m, two, -0.8f);
    content = finish(m, "content");
    m = make(model);
    corner(m, one, 0, 1, B2, A2);
    dot(m, two, 1);
    style = finish(m, "style");
    OK(weft_plan_add(p, content, 0.6f, NULL, &err)); /* user weights do not enter the scores */
    OK(weft_plan_add(p, style, -3, NULL, &err));
    o.pattern = WEFT_KLORA_S;
    OK(weft_plan_klora(p, &o, &err));
    OK(weft_plan_seal(p, 50, &err));

    s = score_of(p, one);
    ck_assert_int_eq(s.position, 1);
    ck_assert_int_eq((int)s.top_k, 4);
    ck_assert_double_eq_tol(s.content, 13, 1e-6);
    ck_assert_double_eq_tol(s.style, 7.5, 1e-6);
    ck_assert_double_eq_tol(s.ratio, 20.0 / 14, 1e-6);
    ck_assert_double_eq_tol(s.gamma, 1.114286, 1e-6);
    ck_assert_double_eq_tol(s.rho, 1.555556, 1e-6);
    ck_assert_int_eq(score_of(p, two).position, 2);
    ck_assert_double_eq_tol(score_of(p, two).ratio, 0.8, 1e-6);
    ck_assert_int_eq(score_of(p, nth_layer(model, ATTENTION, 1)).position, 0);
    for (int32_t n = 0; n < 50; n++) { /* tau = (2n + 1) / 100, flips at 35.185 - 1/2 */
        ck_assert_float_eq(cell(p, n, 0, one, 0), n <= 34 ? 0.6f : 0);
        ck_assert_float_eq(cell(p, n, 0, one, 1), n <= 34 ? 0 : -3);
    }
    weft_plan_free(p);
    weft_adapter_free(content);
    weft_adapter_free(style);
}
END_TEST

/* Every cell is the rule's, L counts governed layers in order, and nothing acts on the prompt. */
static void check_cells(const weft_plan *p, const weft_klora_options *o, int32_t N)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(model, &count);
    int32_t         L = 0, seen = 0;

    for (size_t l = 0; l < count; l++) L = WF_MAX(L, score_of(p, (int64_t)l).position);
    for (size_t l = 0; l < count; l++) {
        weft_klora_score s = score_of(p, (int64_t)l);
        if (s.position > 0) ck_assert_int_eq(s.position, ++seen);
        for (int32_t n = 0; n < N; n++) {
            bool governed = s.position > 0 && (s.content > 0 || s.style > 0);
            bool content = governed && wf_klora_choose(s.rho, n, N, s.position, L, o);
            ck_assert_msg(cell(p, n, 0, (int64_t)l, 0) == (governed && content ? 1 : 0), "%s", layers[l].name);
            ck_assert_msg(cell(p, n, 0, (int64_t)l, 1) == (governed && !content ? 1 : 0), "%s", layers[l].name);
        }
    }
    ck_assert_int_eq(seen, L);
}

START_TEST(cells_are_the_rule)
{
    static const uint32_t flags[] = { 0, WEFT_KLORA_WRAP, WEFT_KLORA_ATTENTION_ONLY, WEFT_KLORA_PAPER_BETA };
    weft_adapter *a = adapter_on(model, "a", ATTENTION | OTHERS | TEXT, 2, 0.9f, 1);
    weft_adapter *b = adapter_on(model, "b", ATTENTION | OTHERS | TEXT, 3, 0.7f, 2);

    for (size_t f = 0; f < WF_LEN(flags); f++)
        for (int32_t k = 0; k < 4; k++) {
            weft_klora_options o = WEFT_KLORA_OPTIONS_INIT;
            weft_plan         *p = new_plan(model);
            o.flags = flags[f];
            o.pattern = k % 2;
            o.granularity = k / 2;
            OK(weft_plan_add(p, a, 1, NULL, &err));
            OK(weft_plan_add(p, b, 1, NULL, &err));
            OK(weft_plan_klora(p, &o, &err));
            OK(weft_plan_seal(p, 7, &err));
            check_cells(p, &o, 7);
            ck_assert_float_eq(cell(p, 0, 0, nth_layer(model, TEXT, 0), 0), 0);
            weft_plan_free(p);
        }
    weft_adapter_free(a);
    weft_adapter_free(b);
}
END_TEST

START_TEST(attention_only_acts_nowhere_else)
{
    weft_adapter      *a = adapter_on(model, "a", ATTENTION | OTHERS, 2, 0.9f, 1);
    weft_adapter      *b = adapter_on(model, "b", ATTENTION | OTHERS, 3, 0.7f, 2);
    weft_klora_options o = WEFT_KLORA_OPTIONS_INIT;
    weft_plan         *p = new_plan(model);
    size_t             count;
    const wf_layer    *layers = wf_model_layers(model, &count);
    const patched     *t;

    o.flags = WEFT_KLORA_ATTENTION_ONLY;
    OK(weft_plan_add(p, a, 1, NULL, &err));
    OK(weft_plan_add(p, b, 1, NULL, &err));
    OK(weft_plan_klora(p, &o, &err));
    OK(weft_plan_seal(p, 7, &err));
    t = patches_of(p, &count);
    ck_assert_uint_eq(count, (size_t)count_layers(model, ATTENTION));
    for (size_t i = 0; i < count; i++) ck_assert(layers[t[i].layer].attention);
    ck_assert_int_eq(score_of(p, nth_layer(model, OTHERS, 0)).position, 0);
    weft_plan_free(p);
    weft_adapter_free(a);
    weft_adapter_free(b);
}
END_TEST

/* Content alone at one layer, style alone at another, both at a third, zeros at a fourth. */
START_TEST(who_is_alone_wins_always)
{
    int64_t       c = nth_layer(model, ATTENTION, 0), s = nth_layer(model, ATTENTION, 1),
                  both = nth_layer(model, ATTENTION, 2), none = nth_layer(model, ATTENTION, 3);
    weft_adapter *content, *style;
    weft_plan    *p = new_plan(model);
    maker        *m = make(model);

    dot(m, c, 2);
    dot(m, both, 3);
    dot(m, none, 0);
    content = finish(m, "content");
    m = make(model);
    dot(m, s, 2);
    dot(m, both, 1.5f);
    dot(m, none, 0);
    style = finish(m, "style");
    OK(weft_plan_add(p, content, 1, NULL, &err));
    OK(weft_plan_add(p, style, 1, NULL, &err));
    OK(weft_plan_klora(p, NULL, &err));
    OK(weft_plan_seal(p, 20, &err));
    for (int32_t n = 0; n < 20; n++) {
        ck_assert_float_eq(cell(p, n, 0, c, 0), 1);
        ck_assert_float_eq(cell(p, n, 0, c, 1), 0);
        ck_assert_float_eq(cell(p, n, 0, s, 1), 1);
        ck_assert_float_eq(cell(p, n, 0, s, 0), 0);
        ck_assert_float_eq(cell(p, n, 0, none, 0) + cell(p, n, 0, none, 1), 0);
    }
    ck_assert(isinf(score_of(p, c).rho));
    ck_assert_double_eq(score_of(p, c).ratio, 0);
    ck_assert_double_eq(score_of(p, s).rho, 0);
    ck_assert_double_eq_tol(score_of(p, both).gamma, 2, 1e-6); /* the pair's own ratio, nothing else */
    ck_assert_double_eq_tol(score_of(p, both).rho, 1, 1e-6);
    ck_assert_int_eq(score_of(p, none).position, 4); /* counted all the same */
    weft_plan_free(p);
    weft_adapter_free(content);
    weft_adapter_free(style);
}
END_TEST

/* gamma: code drops 30 of six ratios (1.085714), the paper divides the sums, none is 1. */
START_TEST(gamma_is_of_the_code_of_the_paper_or_none)
{
    static const float  q[] = { 20.0f / 14, 0.8f, 1.2f, 0.9f, 1.1f, 30 };
    static const double want[] = { 1.085714, (20.0 / 14 + 0.8 + 1.2 + 0.9 + 1.1 + 30) / 6, 1 };
    weft_adapter       *content, *style;
    maker              *m = make(model);

    for (int i = 0; i < 6; i++) dot(m, nth_layer(model, ATTENTION, i), q[i]);
    content = finish(m, "content");
    m = make(model);
    for (int i = 0; i < 6; i++) dot(m, nth_layer(model, ATTENTION, i), 1);
    style = finish(m, "style");
    for (int32_t g = WEFT_KLORA_GAMMA_CODE; g <= WEFT_KLORA_GAMMA_NONE; g++) {
        weft_klora_options o = WEFT_KLORA_OPTIONS_INIT;
        weft_plan         *p = new_plan(model);
        o.gamma = g;
        OK(weft_plan_add(p, content, 1, NULL, &err));
        OK(weft_plan_add(p, style, 1, NULL, &err));
        OK(weft_plan_klora(p, &o, &err));
        OK(weft_plan_seal(p, 3, &err));
        ck_assert_double_eq_tol(score_of(p, 0).gamma, want[g], 1e-6);
        weft_plan_free(p);
    }
    weft_adapter_free(content);
    weft_adapter_free(style);
}
END_TEST

static void remember(void *user, int32_t level, const char *line)
{
    (void)level;
    strcat(user, line);
}

START_TEST(gamma_without_a_pair_is_1_and_says_so)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    char              lines[1000] = "";
    weft_adapter     *content, *style;
    weft_plan        *p;
    maker            *m = make(model);

    dot(m, nth_layer(model, ATTENTION, 0), 2);
    content = finish(m, "content");
    m = make(model);
    dot(m, nth_layer(model, ATTENTION, 1), 2);
    style = finish(m, "style");
    o.log = remember;
    o.log_user = lines;
    OK(weft_plan_create(model, &o, &p, &err));
    OK(weft_plan_add(p, content, 1, NULL, &err));
    OK(weft_plan_add(p, style, 1, NULL, &err));
    OK(weft_plan_klora(p, NULL, &err));
    OK(weft_plan_seal(p, 3, &err));
    ck_assert_double_eq(score_of(p, 0).gamma, 1);
    ck_assert_ptr_ne(strstr(lines, "gamma is 1"), NULL);
    weft_plan_free(p);
    weft_adapter_free(content);
    weft_adapter_free(style);
}
END_TEST

/* Seven times the content changes gamma by seven and no cell. */
START_TEST(the_table_does_not_see_an_adapters_strength)
{
    weft_adapter *style = adapter_on(model, "style", ATTENTION | OTHERS, 3, 0.7f, 2);
    weft_plan    *p[2];

    for (int i = 0; i < 2; i++) {
        weft_adapter *content = adapter_on(model, "content", ATTENTION | OTHERS, 2, i == 0 ? 0.9f : 6.3f, 1);
        p[i] = new_plan(model);
        OK(weft_plan_add(p[i], content, 1, NULL, &err));
        OK(weft_plan_add(p[i], style, 1, NULL, &err));
        OK(weft_plan_klora(p[i], NULL, &err));
        OK(weft_plan_seal(p[i], 20, &err));
        weft_adapter_free(content);
    }
    ck_assert_double_eq_tol(score_of(p[1], 0).gamma / score_of(p[0], 0).gamma, 7, 1e-5);
    ck_assert_uint_eq(all_slots(p[0]), all_slots(p[1]));
    for (int32_t n = 0; n < 20; n++)
        ck_assert_mem_eq(row_of(p[0], n), row_of(p[1], n), all_slots(p[0]) * sizeof(wf_cell));
    weft_plan_free(p[0]);
    weft_plan_free(p[1]);
    weft_adapter_free(style);
}
END_TEST

/* Block factors, weights, curves and masks multiply what is chosen and do not choose: scores and winners are the
 * same with them, and a layer won by an adapter whose factor there is 0 is nobody's. */
START_TEST(what_multiplies_does_not_choose)
{
    weft_adapter    *content = adapter_on(model, "content", ATTENTION | OTHERS, 2, 0.9f, 1);
    weft_adapter    *style = adapter_on(model, "style", ATTENTION | OTHERS, 3, 0.7f, 2);
    weft_curve_point half = WEFT_CURVE_POINT_INIT;
    const float      left[2] = { 1, 0 };
    weft_mask        mask = WEFT_MASK_INIT;
    weft_plan       *p[2];
    int              won[2] = { 0, 0 }, silent = 0;

    half.value = 0.5;
    mask.height = 1, mask.width = 2, mask.values = left, mask.len = 2;
    for (int i = 0; i < 2; i++) {
        p[i] = new_plan(model);
        OK(weft_plan_add(p[i], content, i == 0 ? 1 : 0.25f, NULL, &err));
        OK(weft_plan_add(p[i], style, 1, NULL, &err));
        OK(weft_plan_klora(p[i], NULL, &err));
        if (i == 1) {
            OK(weft_plan_set_blocks(p[i], 0, "*attn1*=0,*attn2*=2", &err));
            OK(weft_plan_set_curve(p[i], 0, 0, &half, 1, &err));
            OK(weft_plan_set_mask(p[i], 1, &mask, &err));
        }
        OK(weft_plan_seal(p[i], 10, &err));
    }
    for (int n = 0; nth_layer(model, ATTENTION, n) >= 0; n++) {
        int64_t          l = nth_layer(model, ATTENTION, n);
        weft_klora_score a = score_of(p[0], l), b = score_of(p[1], l);
        double           factor = strstr(wf_model_layers(model, &(size_t){ 0 })[l].name, "attn1") != NULL ? 0 : 2;
        ck_assert_double_eq(a.rho, b.rho);
        ck_assert_int_eq(a.position, b.position);
        for (int32_t call = 0; call < 10; call++) {
            bool      won_by_content = cell(p[0], call, 0, l, 0) != 0;
            weft_cell c = WEFT_CELL_INIT, s = WEFT_CELL_INIT;
            OK(weft_plan_cell(p[1], call, 0, l, 0, &c, &err));
            OK(weft_plan_cell(p[1], call, 0, l, 1, &s, &err));
            ck_assert_double_eq((double)c.number, won_by_content ? 0.25 * factor * 0.5 : 0);
            ck_assert_double_eq((double)s.number, won_by_content ? 0 : 1);
            won[won_by_content]++;
            silent += won_by_content && factor == 0;
        }
    }
    ck_assert_int_gt(won[0], 0);
    ck_assert_int_gt(won[1], 0);
    ck_assert_int_gt(silent, 0);
    weft_plan_free(p[0]), weft_plan_free(p[1]);
    weft_adapter_free(content), weft_adapter_free(style);
}
END_TEST

/* alpha 4 at rank 2 doubles content's first layer, and with IGNORE_ALPHA does not. The prompt's layers keep it. */
START_TEST(alpha_counts_unless_ignored)
{
    int64_t            one = nth_layer(model, ATTENTION, 0);
    weft_klora_options o = WEFT_KLORA_OPTIONS_INIT;
    weft_adapter      *content, *style;
    maker             *m = make(model);

    corner(m, one, 4, 1, B1, A1);
    random_module(m, nth_layer(model, TEXT, 0), 2, 4, 1, 1);
    content = finish(m, "content");
    m = make(model);
    corner(m, one, 0, 1, B2, A2);
    style = finish(m, "style");
    for (int ignore = 0; ignore < 2; ignore++) {
        weft_plan *p = new_plan(model);
        size_t     count;
        o.flags = ignore ? WEFT_KLORA_IGNORE_ALPHA : 0;
        OK(weft_plan_add(p, content, 1, NULL, &err));
        OK(weft_plan_add(p, style, 1, NULL, &err));
        OK(weft_plan_klora(p, &o, &err));
        OK(weft_plan_seal(p, 20, &err));
        ck_assert_double_eq_tol(score_of(p, one).content, ignore ? 13 : 26, 1e-5);
        const patched *t = patches_of(p, &count);
        ck_assert_uint_eq(count, 2);
        for (size_t i = 0; i < count; i++)
            ck_assert_float_eq(t[i].stack.part_scale[0], ignore && t[i].layer == one ? 1 : 2);
        weft_plan_free(p);
    }
    weft_adapter_free(content);
    weft_adapter_free(style);
}
END_TEST

START_TEST(k_is_the_callers_and_never_more_than_there_is)
{
    int64_t            one = nth_layer(model, ATTENTION, 0);
    const wf_layer    *l = &wf_model_layers(model, &(size_t){ 0 })[one];
    weft_klora_options o = WEFT_KLORA_OPTIONS_INIT;
    weft_adapter      *content, *style;
    maker             *m = make(model);

    corner(m, one, 0, 1, B1, A1);
    content = finish(m, "content");
    m = make(model);
    corner(m, one, 0, 1, B2, A2);
    style = finish(m, "style");
    for (int64_t k = 1; k <= 1000000000; k += 999999999) {
        weft_plan *p = new_plan(model);
        o.top_k = k;
        OK(weft_plan_add(p, content, 1, NULL, &err));
        OK(weft_plan_add(p, style, 1, NULL, &err));
        OK(weft_plan_klora(p, &o, &err));
        OK(weft_plan_seal(p, 20, &err));
        ck_assert_double_eq_tol(score_of(p, one).content, k == 1 ? 5 : 20, 1e-5);
        ck_assert_int_eq((int)score_of(p, one).top_k, k == 1 ? 1 : l->out * l->in);
        weft_plan_free(p);
    }
    weft_adapter_free(content);
    weft_adapter_free(style);
}
END_TEST

/* A whole difference has no rank of its own: it stands for the greatest that its layer can have. */
START_TEST(a_matrix_counts_with_the_rank_it_may_have)
{
    int64_t         one = nth_layer(model, ATTENTION, 0);
    const wf_layer *l = &wf_model_layers(model, &(size_t){ 0 })[one];
    weft_adapter   *content, *style;
    char            stem[512];
    maker          *m = make(model);
    weft_plan      *p = new_plan(model);

    ck_assert(wf_name_kohya(model, l, stem, sizeof stem));
    put(m, stem, ".diff", l->out, l->in, 1, 2)[0] = 1;
    content = finish(m, "whole");
    m = make(model);
    corner(m, one, 0, 1, B2, A2);
    style = finish(m, "style");
    OK(weft_plan_add(p, content, 1, NULL, &err));
    OK(weft_plan_add(p, style, 1, NULL, &err));
    OK(weft_plan_klora(p, NULL, &err));
    OK(weft_plan_seal(p, 20, &err));
    ck_assert_int_eq((int)score_of(p, one).top_k, 2 * WF_MIN(l->out, l->in));
    weft_plan_free(p);
    weft_adapter_free(content);
    weft_adapter_free(style);
}
END_TEST

/* One phase leaves alpha out and the next one does not: they must not share what they have of a
 * layer. */
START_TEST(phases_with_and_without_alpha_have_patches_of_their_own)
{
    int64_t            one = nth_layer(model, ATTENTION, 0);
    weft_klora_options o = WEFT_KLORA_OPTIONS_INIT;
    weft_phase_options next = WEFT_PHASE_OPTIONS_INIT;
    weft_plan_options  side = WEFT_PLAN_OPTIONS_INIT;
    weft_plan         *p;
    weft_adapter      *a[2];

    side.path = WEFT_PATH_SIDE; /* or one phase would have a merged copy, and the other not */
    OK(weft_plan_create(model, &side, &p, &err));
    for (int i = 0; i < 2; i++) {
        maker *m = make(model);
        corner(m, one, 4, 1, i == 0 ? B1 : B2, i == 0 ? A1 : A2); /* alpha / rank = 2 */
        a[i] = finish(m, i == 0 ? "content" : "style");
        OK(weft_plan_add(p, a[i], 1, NULL, &err));
    }
    o.flags = WEFT_KLORA_IGNORE_ALPHA;
    o.pattern = WEFT_KLORA_S;
    OK(weft_plan_klora(p, &o, &err));
    next.first = 20;
    OK(weft_plan_begin_phase(p, &next, &err));
    OK(weft_plan_merge(p, &err));
    OK(weft_plan_seal(p, 24, &err));
    for (int32_t call = 0; call < 24; call += 20) {
        const wf_sheet *s = wf_plan_phase(p, call);
        ck_assert_uint_eq(s->patched_count, 1);
        ck_assert_int_eq(s->patched[0].patch->parts, 2);
        for (int i = 0; i < 2; i++)
            ck_assert_double_eq(s->patched[0].patch->part[i].scale, call == 0 ? 1 : 2);
    }
    weft_plan_free(p);
    for (int i = 0; i < 2; i++) weft_adapter_free(a[i]);
}
END_TEST

static weft_status seal_with_roles(int32_t first, int32_t second, int adapters, weft_plan **out)
{
    weft_add_options add = WEFT_ADD_OPTIONS_INIT;
    weft_adapter    *a;
    maker           *m = make(model);
    int32_t          roles[] = { first, second, WEFT_ROLE_NONE };

    *out = new_plan(model);
    dot(m, nth_layer(model, ATTENTION, 0), 1);
    a = finish(m, "a");
    for (int i = 0; i < adapters; i++) {
        add.role = roles[i];
        OK(weft_plan_add(*out, a, (float)(i + 1), &add, &err));
    }
    weft_adapter_free(a);
    OK(weft_plan_klora(*out, NULL, &err));
    return weft_plan_seal(*out, 1, &err);
}

/* The same delta twice: rho is 1, and the one call has S* = fmod(1.5 + 1.275, 1.5) = 1.275: style. */
START_TEST(roles_tell_content_from_style)
{
    static const struct { int32_t first, second, style; } cases[] = {
        { WEFT_ROLE_NONE, WEFT_ROLE_NONE, 1 }, { WEFT_ROLE_STYLE, WEFT_ROLE_NONE, 0 },
        { WEFT_ROLE_NONE, WEFT_ROLE_CONTENT, 0 }, { WEFT_ROLE_CONTENT, WEFT_ROLE_STYLE, 1 },
        { WEFT_ROLE_STYLE, WEFT_ROLE_CONTENT, 0 },
    };
    int64_t    one = nth_layer(model, ATTENTION, 0);
    weft_plan *p;

    for (size_t i = 0; i < WF_LEN(cases); i++) {
        OK(seal_with_roles(cases[i].first, cases[i].second, 2, &p));
        ck_assert_float_eq(cell(p, 0, 0, one, 0), cases[i].style == 0 ? 1 : 0);
        ck_assert_float_eq(cell(p, 0, 0, one, 1), cases[i].style == 1 ? 2 : 0);
        weft_plan_free(p);
    }
    FAILS(WEFT_E_UNSUPPORTED, "both adapters have the role style", seal_with_roles(2, 2, 2, &p));
    weft_plan_free(p);
    for (int n = 0; n < 4; n += n == 1 ? 2 : 1) {
        FAILS(WEFT_E_UNSUPPORTED, n < 2 ? "at least two adapters" : "each needs a role", seal_with_roles(0, 0, n, &p));
        weft_plan_free(p);
    }
}
END_TEST

/* ---- more than two --------------------------------------------------------------------------- */

static void add_as(weft_plan *p, weft_adapter *a, int32_t role, float weight)
{
    weft_add_options add = WEFT_ADD_OPTIONS_INIT;
    add.role = role;
    OK(weft_plan_add(p, a, weight, &add, &err));
}

/* An adapter with one entry in each of `count` attention layers. */
static weft_adapter *dots(const char *name, const float *value, int count)
{
    maker *m = make(model);
    for (int i = 0; i < count; i++) dot(m, nth_layer(model, ATTENTION, i), value[i]);
    return finish(m, name);
}

/* One entry in a layer is score and sum at once. Layers 0 to 3 have
 *
 *     A content   4  2  1  0        g = 1, the first content
 *     B style     2  4  .  1        q = 2, 1/2:       g = 5/4
 *     C content   2  1  8  0        q = 2, 2, 1/8:    g = 11/8
 *     D style     1  .  4  0        q = 4, 1/4:       g = 17/8
 *
 * contents g S: 4 2.75 . .  -> A 4, C 2.75 | layer 1: A 2, C 1.375 | 2: A 1, C 11 | 3: none
 * styles g S:   B 2.5, D 2.125            | B 5                   | D 8.5        | B 1.25 */
START_TEST(a_layer_is_that_of_its_best_content_or_of_its_best_style)
{
    static const float a[] = { 4, 2, 1 }, b[] = { 2, 4, 0, 1 }, c[] = { 2, 1, 8 }, d[] = { 1, 0, 4 };
    static const struct { int32_t content, style; double rho; } want[] = {
        { 0, 1, 4 / 2.5 }, { 0, 1, 2.0 / 5 }, { 2, 3, 11 / 8.5 }, { -1, 1, 0 },
    };
    weft_adapter      *of[] = { dots("a", a, 3), dots("b", b, 4), dots("c", c, 3), dots("d", d, 3) };
    weft_klora_options o = WEFT_KLORA_OPTIONS_INIT;
    weft_plan         *p = new_plan(model);

    for (int i = 0; i < 4; i++) add_as(p, of[i], i % 2 == 0 ? WEFT_ROLE_CONTENT : WEFT_ROLE_STYLE, (float)(i + 1));
    o.pattern = WEFT_KLORA_S;
    o.granularity = WEFT_KLORA_BY_STEP;
    OK(weft_plan_klora(p, &o, &err));
    OK(weft_plan_seal(p, 31, &err));
    for (int l = 0; l < 4; l++) {
        int64_t          layer = nth_layer(model, ATTENTION, l);
        weft_klora_score s = score_of(p, layer);
        ck_assert_int_eq(s.content_index, want[l].content);
        ck_assert_int_eq(s.style_index, want[l].style);
        ck_assert_double_eq_tol(s.rho, want[l].rho, 1e-6);
        for (int32_t n = 0; n < 31; n++) {
            bool    content = s.rho > 1.5 * n / 31 + 0.5 && want[l].content >= 0;
            int32_t who = content ? want[l].content : want[l].style;
            for (int32_t i = 0; i < 4; i++)
                ck_assert_float_eq(cell(p, n, 0, layer, i), i == who ? (float)(i + 1) : 0);
        }
    }
    ck_assert_double_eq_tol(score_of(p, nth_layer(model, ATTENTION, 0)).gamma, 5.0 / 4, 1e-6);
    ck_assert_double_eq_tol(score_of(p, nth_layer(model, ATTENTION, 2)).gamma, 17.0 / 11, 1e-6);
    weft_plan_free(p);
    for (int i = 0; i < 4; i++) weft_adapter_free(of[i]);
}
END_TEST

/* argmax of g_i S_i p_i(tau), cell by cell, is K-LoRA for two: with another adapter that can never
 * win (the content again, three times as strong, which g takes back) the table of the two is the same to the bit. */
START_TEST(for_two_the_rule_is_klora_cell_by_cell)
{
    weft_adapter *content = adapter_on(model, "content", ATTENTION | OTHERS, 2, 0.9f, 1);
    weft_adapter *again = adapter_on(model, "again", ATTENTION | OTHERS, 2, 3 * 0.9f, 1);
    weft_adapter *style = adapter_on(model, "style", ATTENTION | OTHERS, 3, 0.7f, 2);
    size_t        count;

    wf_model_layers(model, &count);
    for (int32_t pattern = WEFT_KLORA_S_STAR; pattern <= WEFT_KLORA_S; pattern++) {
        weft_klora_options o = WEFT_KLORA_OPTIONS_INIT;
        weft_plan         *two = new_plan(model), *three = new_plan(model);
        int                both = 0;
        o.pattern = pattern;
        add_as(two, content, WEFT_ROLE_NONE, 1);
        add_as(two, style, WEFT_ROLE_NONE, 1);
        add_as(three, content, WEFT_ROLE_CONTENT, 1);
        add_as(three, style, WEFT_ROLE_STYLE, 1);
        add_as(three, again, WEFT_ROLE_CONTENT, 1);
        OK(weft_plan_klora(two, &o, &err));
        OK(weft_plan_klora(three, &o, &err));
        OK(weft_plan_seal(two, 11, &err));
        OK(weft_plan_seal(three, 11, &err));
        for (int64_t l = 0; l < (int64_t)count; l++) {
            weft_klora_score s = score_of(two, l), t = score_of(three, l);
            if (s.position == 0) continue;
            ck_assert_double_eq_tol(s.rho, t.rho, 1e-6 * s.rho);
            for (int32_t n = 0; n < 11; n++) {
                double tau = (double)((int64_t)n * count_layers(model, ATTENTION | OTHERS) + s.position) /
                             (double)((int64_t)11 * count_layers(model, ATTENTION | OTHERS));
                double S = pattern == WEFT_KLORA_S ? 1.5 * tau + 0.5 : fmod(1.5 * tau + 1.275, 1.5);
                bool   wins = s.content * 1 > s.gamma * s.style * S;
                both |= wins ? 1 : 2;
                ck_assert_float_eq(cell(two, n, 0, l, 0), wins ? 1 : 0);
                ck_assert_float_eq(cell(two, n, 0, l, 1), wins ? 0 : 1);
                ck_assert_float_eq(cell(three, n, 0, l, 1), wins ? 0 : 1);
                ck_assert_float_eq(cell(three, n, 0, l, 0) + cell(three, n, 0, l, 2), wins ? 1 : 0);
            }
        }
        ck_assert_int_eq(both, 3);
        weft_plan_free(two);
        weft_plan_free(three);
    }
    weft_adapter_free(content);
    weft_adapter_free(again);
    weft_adapter_free(style);
}
END_TEST

START_TEST(roles_of_many_are_told_and_both_there)
{
    static const float one[] = { 1 };
    weft_adapter      *a = dots("a", one, 1);
    weft_klora_options o = WEFT_KLORA_OPTIONS_INIT;
    weft_plan         *p = new_plan(model);

    for (int i = 0; i < 3; i++) add_as(p, a, WEFT_ROLE_CONTENT, 1);
    OK(weft_plan_klora(p, NULL, &err));
    FAILS(WEFT_E_UNSUPPORTED, "all adapters have the role content", weft_plan_seal(p, 2, &err));
    add_as(p, a, WEFT_ROLE_STYLE, 1);
    add_as(p, a, WEFT_ROLE_NONE, 1);
    FAILS(WEFT_E_UNSUPPORTED, "each needs a role, content or style; a has none", weft_plan_seal(p, 2, &err));
    OK(weft_plan_remove(p, 4, &err));
    o.pattern = WEFT_KLORA_FIXED;
    OK(weft_plan_klora(p, &o, &err));
    FAILS(WEFT_E_UNSUPPORTED, "one content and one style; the plan has 4", weft_plan_seal(p, 2, &err));
    OK(weft_plan_klora(p, NULL, &err));
    OK(weft_plan_seal(p, 2, &err));
    weft_plan_free(p);
    weft_adapter_free(a);
}
END_TEST

/* |D1|_F = sqrt(56.5) = 7.516648 and |D2|_F = sqrt(21.5), of factors and of the product alike; with alpha 4 at rank 2
 * twice that. gamma is their ratio, so one layer has rho 1. */
START_TEST(energy_is_the_frobenius_norm_of_any_family)
{
    int64_t            one = nth_layer(model, ATTENTION, 0);
    const wf_layer    *l = &wf_model_layers(model, &(size_t){ 0 })[one];
    weft_klora_options o = WEFT_KLORA_OPTIONS_INIT;
    weft_adapter      *content, *whole, *style;
    char               stem[512];
    maker             *m = make(model);

    corner(m, one, 0, 1, B1, A1);
    content = finish(m, "content");
    m = make(model);
    ck_assert(wf_name_kohya(model, l, stem, sizeof stem));
    float *D = put(m, stem, ".diff", l->out, l->in, 1, 2);
    for (int i = 0; i < 12; i++)
        for (int r = 0; r < 2; r++) D[i / 4 * l->in + i % 4] += B1[i / 4][r] * A1[r][i % 4];
    whole = finish(m, "whole");
    m = make(model);
    corner(m, one, 4, 1, B2, A2);
    style = finish(m, "style");
    o.score = WEFT_KLORA_ENERGY;
    o.pattern = WEFT_KLORA_S;
    o.granularity = WEFT_KLORA_BY_STEP;
    for (int i = 0; i < 2; i++) {
        weft_plan *p = new_plan(model);
        OK(weft_plan_add(p, i == 0 ? content : whole, 1, NULL, &err));
        OK(weft_plan_add(p, style, 1, NULL, &err));
        OK(weft_plan_klora(p, &o, &err));
        OK(weft_plan_seal(p, 3, &err));
        weft_klora_score s = score_of(p, one);
        ck_assert_double_eq_tol(s.content, 7.516648, 1e-6);
        ck_assert_double_eq_tol(s.style, 2 * sqrt(21.5), 1e-6);
        ck_assert_double_eq_tol(s.gamma, sqrt(56.5 / 21.5) / 2, 1e-6);
        ck_assert_double_eq_tol(s.rho, 1, 1e-6);
        ck_assert_int_eq((int)s.top_k, 0);
        ck_assert_float_eq(cell(p, 0, 0, one, 0), 1);
        ck_assert_float_eq(cell(p, 2, 0, one, 1), 1); /* S = 1.5 */
        weft_plan_free(p);
    }
    weft_adapter_free(content);
    weft_adapter_free(whole);
    weft_adapter_free(style);
}
END_TEST

/* Content while n / N < share, in all layers at once, also in those that one of them alone has. */
START_TEST(fixed_is_one_switch_for_all_layers)
{
    static const struct { double share; int32_t calls, content; } cases[] = {
        { 0, 30, 10 }, { 0, 50, 17 }, { 0, 1, 1 }, { 0.6, 10, 6 }, { 1, 7, 7 },
    };
    weft_adapter *content = adapter_on(model, "content", ATTENTION | OTHERS, 2, 0.9f, 1);
    weft_adapter *style = adapter_on(model, "style", ATTENTION, 3, 0.7f, 2);
    size_t        count;
    const wf_layer *layers = wf_model_layers(model, &count);

    for (size_t i = 0; i < WF_LEN(cases); i++) {
        weft_klora_options o = WEFT_KLORA_OPTIONS_INIT;
        weft_plan         *p = new_plan(model);
        OK(weft_plan_add(p, content, 0.5f, NULL, &err));
        OK(weft_plan_add(p, style, 2, NULL, &err));
        o.pattern = WEFT_KLORA_FIXED;
        o.share = cases[i].share;
        OK(weft_plan_klora(p, &o, &err));
        OK(weft_plan_seal(p, cases[i].calls, &err));
        for (size_t l = 0; l < count; l++)
            for (int32_t n = 0; n < cases[i].calls; n++) {
                int kind = kind_of(&layers[l]);
                bool first = n < cases[i].content;
                ck_assert_float_eq(cell(p, n, 0, (int64_t)l, 0), first && (kind & (ATTENTION | OTHERS)) ? 0.5f : 0);
                ck_assert_float_eq(cell(p, n, 0, (int64_t)l, 1), !first && kind == ATTENTION ? 2 : 0);
            }
        ck_assert_double_eq(score_of(p, nth_layer(model, ATTENTION, 0)).content, 0); /* nothing was read */
        weft_plan_free(p);
    }
    weft_adapter_free(content);
    weft_adapter_free(style);
}
END_TEST

/* ---- scores are read once -------------------------------------------------------------------- */

typedef struct listener { int64_t last, total; int32_t told, stop_at; } listener;

static int32_t listen(void *user, const char *what, int64_t done, int64_t total)
{
    listener *l = user;
    ck_assert_str_eq(what, "scoring layers");
    l->last = done;
    l->total = total;
    return ++l->told == l->stop_at;
}

START_TEST(copies_do_not_score_again)
{
    weft_adapter      *a = adapter_on(model, "a", ATTENTION | OTHERS, 2, 0.9f, 1);
    weft_adapter      *b = adapter_on(model, "b", ATTENTION | OTHERS, 3, 0.7f, 2);
    int                all = count_layers(model, ATTENTION | OTHERS), attention = count_layers(model, ATTENTION);
    int64_t            some = nth_layer(model, ATTENTION, 3);
    weft_plan_options  o = WEFT_PLAN_OPTIONS_INIT;
    weft_klora_options k = WEFT_KLORA_OPTIONS_INIT;
    listener           l = { 0, 0, 0, 0 };
    weft_plan         *p, *q;

    o.progress = listen;
    o.progress_user = &l;
    k.flags = WEFT_KLORA_ATTENTION_ONLY;
    OK(weft_plan_create(model, &o, &p, &err));
    OK(weft_plan_add(p, a, 1, NULL, &err));
    OK(weft_plan_add(p, b, 1, NULL, &err));
    OK(weft_plan_klora(p, &k, &err));
    OK(weft_plan_seal(p, 5, &err));
    ck_assert_int_eq((int)l.last, attention);
    ck_assert_int_eq((int)l.total, attention);
    ck_assert_double_gt(score_of(p, some).content, 0);

    l.told = 0; /* other curve, other calls: nothing is read */
    k.pattern = WEFT_KLORA_S;
    OK(weft_plan_copy(p, &q, &err));
    OK(weft_plan_klora(q, &k, &err));
    OK(weft_plan_seal(q, 9, &err));
    ck_assert_int_eq(l.told, 0);
    ck_assert_double_eq(score_of(p, some).content, score_of(q, some).content);
    weft_plan_free(p);

    k.flags = 0; /* more layers: those alone */
    OK(weft_plan_copy(q, &p, &err));
    weft_plan_free(q);
    OK(weft_plan_klora(p, &k, &err));
    OK(weft_plan_seal(p, 5, &err));
    ck_assert_int_gt(l.told, 0);
    ck_assert_int_lt((int)l.total, all - attention + 1);

    l = (listener){ 0, 0, 0, 0 }; /* another K: everything */
    k.top_k = 3;
    OK(weft_plan_copy(p, &q, &err));
    weft_plan_free(p);
    OK(weft_plan_klora(q, &k, &err));
    OK(weft_plan_seal(q, 5, &err));
    ck_assert_int_eq((int)l.total, all);
    ck_assert_int_eq((int)score_of(q, some).top_k, 3);

    l = (listener){ 0, 0, 0, 0 }; /* and again without alpha */
    k.flags = WEFT_KLORA_IGNORE_ALPHA;
    OK(weft_plan_copy(q, &p, &err));
    weft_plan_free(q);
    q = p;
    OK(weft_plan_klora(q, &k, &err));
    OK(weft_plan_seal(q, 5, &err));
    ck_assert_int_eq((int)l.total, all);
    weft_plan_free(q);
    weft_adapter_free(a);
    weft_adapter_free(b);
}
END_TEST

START_TEST(sealing_can_be_stopped_and_taken_up_again)
{
    weft_adapter     *a = adapter_on(model, "a", ATTENTION, 2, 0.9f, 1);
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    listener          l = { 0, 0, 0, 7 };
    weft_plan        *p;

    o.progress = listen;
    o.progress_user = &l;
    OK(weft_plan_create(model, &o, &p, &err));
    OK(weft_plan_add(p, a, 1, NULL, &err));
    OK(weft_plan_add(p, a, 1, NULL, &err));
    OK(weft_plan_klora(p, NULL, &err));
    FAILS(WEFT_E_CANCELLED, "stopped", weft_plan_seal(p, 5, &err));
    ck_assert_int_eq(info_of(p).sealed, 0);
    OK(weft_plan_seal(p, 5, &err));
    weft_plan_free(p);
    weft_adapter_free(a);
}
END_TEST

/* A selection is part of what an adapter is here: where content is not selected, style is alone. */
START_TEST(a_layer_outside_the_selection_is_the_others)
{
    weft_adapter    *a = adapter_on(model, "a", ATTENTION, 2, 5, 1), *b = adapter_on(model, "b", ATTENTION, 2, 1, 2);
    weft_add_options add = WEFT_ADD_OPTIONS_INIT;
    weft_plan       *p = new_plan(model);
    size_t           count;
    const wf_layer  *layers = wf_model_layers(model, &count);

    add.exclude = "unet.up_blocks.*";
    OK(weft_plan_add(p, a, 1, &add, &err));
    OK(weft_plan_add(p, b, 1, NULL, &err));
    OK(weft_plan_klora(p, NULL, &err));
    OK(weft_plan_seal(p, 5, &err));
    for (size_t l = 0; l < count; l++) {
        if (!layers[l].attention || strncmp(layers[l].name, "unet.up_blocks.", 15) != 0) continue;
        for (int32_t n = 0; n < 5; n++) ck_assert_float_eq(cell(p, n, 0, (int64_t)l, 1), 1);
    }
    weft_plan_free(p);
    weft_adapter_free(a);
    weft_adapter_free(b);
}
END_TEST

START_TEST(wrong_options_are_refused)
{
    weft_plan         *p = new_plan(model);
    weft_klora_score   s = WEFT_KLORA_SCORE_INIT;
    weft_klora_options o = WEFT_KLORA_OPTIONS_INIT;

    o.pattern = 4;
    FAILS(WEFT_E_ARG, "pattern is 4", weft_plan_klora(p, &o, &err));
    o.pattern = 0;
    o.score = 2;
    FAILS(WEFT_E_ARG, "score is 2", weft_plan_klora(p, &o, &err));
    o.score = WEFT_KLORA_ENERGY;
    o.top_k = 5;
    FAILS(WEFT_E_ARG, "top_k is of WEFT_KLORA_TOP_K", weft_plan_klora(p, &o, &err));
    o.top_k = 0;
    o.score = 0;
    o.share = 0.5;
    FAILS(WEFT_E_ARG, "share is read only with WEFT_KLORA_FIXED", weft_plan_klora(p, &o, &err));
    o.pattern = WEFT_KLORA_FIXED;
    o.gamma = 1;
    FAILS(WEFT_E_ARG, "scores nothing", weft_plan_klora(p, &o, &err));
    o.gamma = 0;
    o.share = 1.5;
    FAILS(WEFT_E_ARG, "share must be 0 to 1", weft_plan_klora(p, &o, &err));
    o.share = NAN;
    FAILS(WEFT_E_ARG, "share must be 0 to 1", weft_plan_klora(p, &o, &err));
    o.share = 0;
    o.pattern = 0;
    o.reserved1 = 7;
    FAILS(WEFT_E_UNSUPPORTED, "reserved0 is 7", weft_plan_klora(p, &o, &err));
    o.reserved1 = 0;
    o.gamma = -1;
    FAILS(WEFT_E_ARG, "gamma is -1", weft_plan_klora(p, &o, &err));
    o.gamma = 0;
    o.granularity = 2;
    FAILS(WEFT_E_ARG, "granularity is 2", weft_plan_klora(p, &o, &err));
    o.granularity = 0;
    o.top_k = -4;
    FAILS(WEFT_E_ARG, "top_k is -4", weft_plan_klora(p, &o, &err));
    o.top_k = 0;
    o.alpha = 2;
    FAILS(WEFT_E_ARG, "WEFT_KLORA_CUSTOM", weft_plan_klora(p, &o, &err));
    o.pattern = WEFT_KLORA_CUSTOM;
    o.modulus = -1;
    FAILS(WEFT_E_ARG, "modulus", weft_plan_klora(p, &o, &err));
    o.modulus = NAN;
    FAILS(WEFT_E_ARG, "finite", weft_plan_klora(p, &o, &err));
    FAILS(WEFT_E_STATE, "not sealed", weft_plan_klora_score(p, 0, 0, &s, &err));
    OK(weft_plan_seal(p, 2, &err));
    FAILS(WEFT_E_STATE, "under Merge, not K-LoRA", weft_plan_klora_score(p, 0, 0, &s, &err));
    FAILS(WEFT_E_ARG, "score is NULL", weft_plan_klora_score(p, 0, 0, NULL, &err));
    weft_plan_free(p);
}
END_TEST

int main(void)
{
    Suite   *s = suite_create("plan klora");
    TCase   *t = tcase_create("klora");
    SRunner *sr = srunner_create(s);
    int      failed;

    suite_add_tcase(s, t);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, the_worked_example_comes_out);
    tcase_add_test(t, cells_are_the_rule);
    tcase_add_test(t, attention_only_acts_nowhere_else);
    tcase_add_test(t, who_is_alone_wins_always);
    tcase_add_test(t, gamma_is_of_the_code_of_the_paper_or_none);
    tcase_add_test(t, gamma_without_a_pair_is_1_and_says_so);
    tcase_add_test(t, the_table_does_not_see_an_adapters_strength);
    tcase_add_test(t, alpha_counts_unless_ignored);
    tcase_add_test(t, what_multiplies_does_not_choose);
    tcase_add_test(t, k_is_the_callers_and_never_more_than_there_is);
    tcase_add_test(t, a_matrix_counts_with_the_rank_it_may_have);
    tcase_add_test(t, phases_with_and_without_alpha_have_patches_of_their_own);
    tcase_add_test(t, roles_tell_content_from_style);
    tcase_add_test(t, copies_do_not_score_again);
    tcase_add_test(t, sealing_can_be_stopped_and_taken_up_again);
    tcase_add_test(t, a_layer_outside_the_selection_is_the_others);
    tcase_add_test(t, wrong_options_are_refused);
    tcase_add_test(t, a_layer_is_that_of_its_best_content_or_of_its_best_style);
    tcase_add_test(t, for_two_the_rule_is_klora_cell_by_cell);
    tcase_add_test(t, roles_of_many_are_told_and_both_there);
    tcase_add_test(t, energy_is_the_frobenius_norm_of_any_family);
    tcase_add_test(t, fixed_is_one_switch_for_all_layers);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
