/* Whole adapters merged into one: the new adapter acts as those that it was made of, whatever their families; it is saved and
 * opened like any other; what the report says; what is refused; what happens without memory. */
#include "model/layouts.h"
#include "merge/merge_internal.h"

static weft_model *model;

static void setup(void)
{
    make_scratch();
    model = opened(data_path("models/tiny-sd1"), NULL);
}

static void teardown(void)
{
    weft_model_free(model);
    remove_scratch();
}

/* ---- helpers --------------------------------------------------------------------------------- */

typedef struct use { const char *path; float weight; } use;
enum { MOST = 3 };
static const use three[] = { { "adapters/content.safetensors", 0.7f }, { "adapters/style.safetensors", 0.3f },
                             { "adapters/third", -0.5f } };
static const use convs[] = { { "adapters/sd1_kohya_conv.safetensors", 0.8f }, { "adapters/sd1_new_conv.safetensors", 0.6f } };

static weft_adapter *open_at(const char *path)
{
    weft_adapter *a;
    must(weft_adapter_open(data_path("%s", path), NULL, &a, &golden_err));
    return a;
}

static uint32_t allowed; /* flags of sources */

static void source_of(weft_merge_source *s, const use *u)
{
    weft_merge_source_init(s, sizeof *s);
    s->adapter = open_at(u->path);
    s->weight = u->weight;
    s->flags = allowed;
}

static weft_status try_merge(weft_model *m, const use *uses, size_t n, const weft_merge_options *o, weft_adapter **out,
                             weft_merge_report **report)
{
    weft_merge_source s[MOST] = { WEFT_MERGE_SOURCE_INIT };

    for (size_t i = 0; i < n; i++) source_of(&s[i], &uses[i]);
    weft_status st = weft_adapter_merge(m, s, n, o, out, report, &golden_err);
    for (size_t i = 0; i < n; i++) weft_adapter_free(s[i].adapter);
    return st;
}

static weft_adapter *merged_on(weft_model *m, const use *uses, size_t n, const weft_merge_options *o,
                               weft_merge_report **report)
{
    weft_adapter *a;
    must(try_merge(m, uses, n, o, &a, report));
    return a;
}

static weft_merge_options options(int32_t kind)
{
    weft_merge_options o = WEFT_MERGE_OPTIONS_INIT;
    o.kind = kind;
    return o;
}

/* The prediction of a plan with these adapters, on noise, under a policy. */
static float *predict_all(weft_model *m, int32_t mixed, weft_adapter *const *adapters, const float *weights, size_t n,
                          size_t *count)
{
    weft_plan_options po = WEFT_PLAN_OPTIONS_INIT;
    weft_add_options  ao = WEFT_ADD_OPTIONS_INIT;
    weft_plan        *plan;

    po.mixed = mixed;
    ao.flags = WEFT_ADD_PARTIAL;
    must(weft_plan_create(m, &po, &plan, &golden_err));
    for (size_t i = 0; i < n; i++) must(weft_plan_add(plan, adapters[i], weights[i], &ao, &golden_err));
    must(weft_plan_seal(plan, 1, &golden_err));
    float *out = predict_with(plan, count);
    weft_plan_free(plan);
    return out;
}

static float *predict_uses(weft_model *m, int32_t mixed, const use *uses, size_t n, size_t *count)
{
    weft_adapter *a[MOST] = { NULL };
    float         w[MOST] = { 0 };

    for (size_t i = 0; i < n; i++) a[i] = open_at(uses[i].path), w[i] = uses[i].weight;
    float *out = predict_all(m, mixed, a, w, n, count);
    for (size_t i = 0; i < n; i++) weft_adapter_free(a[i]);
    return out;
}

/* The merged adapter acts as those it was made of, in one plan. */
static void acts_as(const char *what, weft_model *m, weft_adapter *merged, int32_t mixed, const use *uses, size_t n)
{
    const float one = 1;
    size_t      count, same;
    float      *got = predict_all(m, WEFT_MIXED_DELTA, &merged, &one, 1, &count);
    float      *want = predict_uses(m, mixed, uses, n, &same);

    ck_assert_uint_eq(count, same);
    near_golden(what, got, want, count, 1e-5);
    free(got);
    free(want);
}

static weft_merge_row row_at(const weft_merge_report *r, size_t i)
{
    weft_merge_row row = WEFT_MERGE_ROW_INIT;
    must(weft_merge_report_get(r, i, &row, &golden_err));
    return row;
}

/* ---- what it does ---------------------------------------------------------------------------- */

START_TEST(exact_merges_act_as_their_parts)
{
    static const struct { int32_t kind; uint32_t plain; int32_t rank; } kinds[] = {
        { WEFT_MERGE_SUM, 0, 0 }, { WEFT_MERGE_CONCAT, 0, 0 }, { WEFT_MERGE_SUM, 0, 64 }, { WEFT_MERGE_MIXER, 1, 0 },
    };
    static const float identity[] = { 1, 0, 0, 0, 1, 0, 0, 0, 1 }, pair[] = { 1, 0, 0, 1 };

    for (size_t i = 0; i < WF_LEN(kinds); i++) {
        weft_merge_options o = options(kinds[i].kind);
        o.rank = kinds[i].rank;
        if (kinds[i].plain) o.mixer = identity;
        weft_adapter *a = merged_on(model, three, 3, &o, NULL);
        acts_as("three", model, a, WEFT_MIXED_DELTA, three, 3);
        weft_adapter_free(a);
        if (kinds[i].plain) o.mixer = pair;
        a = merged_on(model, convs, 2, &o, NULL);
        acts_as("convolutions", model, a, WEFT_MIXED_DELTA, convs, 2);
        weft_adapter_free(a);
    }
}
END_TEST

/* Kinds that promise it do not see the order of their sources. */
START_TEST(order_does_not_show)
{
    static const int32_t kinds[] = { WEFT_MERGE_SUM, WEFT_MERGE_CONCAT, WEFT_MERGE_TIES, WEFT_MERGE_PRUNE,
                                     WEFT_MERGE_MIXER };
    static const int     orders[][3] = { { 1, 2, 0 }, { 2, 1, 0 }, { 0, 2, 1 } };
    weft_model          *m = opened(data_path("models/tiny-sd1"), NULL);

    for (size_t k = 0; k < WF_LEN(kinds); k++) {
        weft_merge_options o = options(kinds[k]);
        const float        one = 1;
        size_t             count, same;
        if (kinds[k] == WEFT_MERGE_TIES || kinds[k] == WEFT_MERGE_PRUNE) o.density = 0.5;
        weft_adapter *first = merged_on(m, three, 3, &o, NULL);
        float        *want = predict_all(m, WEFT_MIXED_DELTA, &first, &one, 1, &count);
        for (size_t i = 0; i < WF_LEN(orders); i++) {
            const use     uses[] = { three[orders[i][0]], three[orders[i][1]], three[orders[i][2]] };
            weft_adapter *a = merged_on(m, uses, 3, &o, NULL);
            float        *got = predict_all(m, WEFT_MIXED_DELTA, &a, &one, 1, &same);
            ck_assert_uint_eq(same, count);
            near_golden("another order", got, want, count, 1e-5);
            free(got);
            weft_adapter_free(a);
        }
        free(want);
        weft_adapter_free(first);
    }
    weft_model_free(m);
}
END_TEST

static const char *const indices[] = { "families.json", "families_peft.json", "families_peft2.json" };

/* The sum of each family's file with a plain LoRA, with biases, normalisations and text encoders. */
START_TEST(a_sum_takes_any_family)
{
    static const struct { const char *model, *lora; } bases[] = {
        { "tiny-sd1", "adapters/sd1_kohya.safetensors" }, { "tiny-sd2", "adapters/sd2_kohya.safetensors" },
        { "tiny-sdxl", "adapters/sdxl_kohya.safetensors" },
    };
    json_t *index = golden_json(indices[_i]), *files = json_object_get(index, "files");
    size_t  done = 0;

    allowed = WEFT_SOURCE_PARTIAL; /* a few files hold what no model has */
    for (size_t b = 0; b < WF_LEN(bases); b++) {
        char        folder[80];
        snprintf(folder, sizeof folder, "models/%s", bases[b].model);
        weft_model *m = opened(data_path("%s", folder), NULL);
        for (size_t i = 0; i < json_array_size(files); i++) {
            json_t             *f = json_array_get(files, i);
            const char         *path = json_string_value(json_object_get(f, "path"));
            use                 uses[] = { { path, 0.6f }, { bases[b].lora, 0.5f } };
            weft_merge_options  o = options(WEFT_MERGE_SUM);
            if (strcmp(json_string_value(json_object_get(f, "model")), bases[b].model) != 0) continue;
            if (_i == 0 && done % 3 == 1) o.kind = WEFT_MERGE_CONCAT; /* where a family has no factors it is the sum */
            weft_adapter *a = merged_on(m, uses, 2, &o, NULL);
            acts_as(path, m, a, WEFT_MIXED_DELTA, uses, 2);
            weft_adapter_free(a);
            done++;
        }
        weft_model_free(m);
    }
    allowed = 0;
    ck_assert_uint_eq(done, json_array_size(files));
    json_decref(index);
}
END_TEST

/* DoRA apart: one adapter at weight 1 is itself; several are what a plan makes of them under policy direction, which is held
 * against the formulas (run/test_mixed.c). Also with a rank that holds all of it. */
START_TEST(directions_are_merged_as_the_policy_says)
{
    static const use one[] = { { "families/peft_dora", 1 } }, columns[] = { { "families/lyco_dora_columns.safetensors", 1 },
                                                                            { "families/peft_lora", 0.6f } };
    static const use both[] = { { "families/peft_dora", 0.7f }, { "families/peft_lora", 0.6f },
                                { "mixed/peft_dora_second", -0.3f } };
    static const struct { const use *uses; size_t n; } cases[] = { { one, 1 }, { both, 3 }, { columns, 2 } };

    for (size_t i = 0; i < WF_LEN(cases); i++)
        for (int32_t rank = 0; rank <= 64; rank += 64) {
            weft_merge_options o = options(WEFT_MERGE_SUM);
            weft_adapter_info  info = WEFT_ADAPTER_INFO_INIT;
            o.flags = WEFT_MERGE_DIRECTION;
            o.rank = rank;
            weft_adapter *a = merged_on(model, cases[i].uses, cases[i].n, &o, NULL);
            acts_as("direction", model, a, WEFT_MIXED_DIRECTION, cases[i].uses, cases[i].n);
            must(weft_adapter_info_get(a, &info, &golden_err));
            ck_assert_ptr_nonnull(strstr(info.family, "dora"));
            ck_assert((info.rank_max > 0) == (rank > 0));
            weft_adapter_free(a);
        }
}
END_TEST

START_TEST(a_merged_adapter_is_saved_like_any_other)
{
    static const int32_t dialects[] = { WEFT_DIALECT_KOHYA, WEFT_DIALECT_DIFFUSERS, WEFT_DIALECT_PEFT };
    const float          one = 1;

    for (size_t d = 0; d < WF_LEN(dialects); d++)
        for (int whole = 0; whole < 2; whole++) {
            weft_merge_options o = options(WEFT_MERGE_TIES);
            weft_save_options  so = WEFT_SAVE_OPTIONS_INIT;
            char               name[40];
            weft_adapter      *back;
            size_t             count;
            if (whole && dialects[d] != WEFT_DIALECT_KOHYA) continue; /* the others have no word for a difference */
            o.density = 0.5;
            o.rank = whole ? 0 : 3;
            o.name = "both";
            weft_adapter *a = merged_on(model, convs, 2, &o, NULL);
            ck_assert_str_eq(wf_adapter_name(a), "both");
            snprintf(name, sizeof name, dialects[d] == WEFT_DIALECT_PEFT ? "m%zu%d" : "m%zu%d.safetensors", d, whole);
            so.dialect = dialects[d];
            must(weft_adapter_save(a, model, in_scratch(name), &so, &golden_err));
            const char *path = dialects[d] == WEFT_DIALECT_PEFT ? in_scratch("m20/unet") : in_scratch(name);
            must(weft_adapter_open(path, NULL, &back, &golden_err));
            float *x = predict_all(model, 0, &a, &one, 1, &count), *y = predict_all(model, 0, &back, &one, 1, &count);
            near_golden(name, y, x, count, 1e-6);
            if (dialects[d] == WEFT_DIALECT_KOHYA) {
                ck_assert_mem_eq(x, y, count * sizeof *x);
                ck_assert_str_eq(weft_adapter_metadata(back, "weft.merge"),
                                 "TIES of sd1_kohya_conv 0.8, sd1_new_conv 0.6");
            }
            free(x), free(y);
            weft_adapter_free(a);
            weft_adapter_free(back);
        }
}
END_TEST

/* Patterns and weights of sources: one adapter in the middle, one elsewhere, each alone where it is. */
START_TEST(sources_take_part_where_they_are_told)
{
    weft_merge_source s[2];
    weft_adapter     *a, *both[2];
    weft_add_options  ao = WEFT_ADD_OPTIONS_INIT;
    weft_text_weights text = WEFT_TEXT_WEIGHTS_INIT;
    weft_plan        *plan;
    weft_merge_report *report;
    const float       one = 1;
    size_t            count, same;

    source_of(&s[0], &three[0]);
    source_of(&s[1], &three[1]);
    s[0].select = "unet.mid_block.*,text_encoder.*";
    s[0].flags |= WEFT_SOURCE_TEXT_WEIGHT;
    s[0].text_weight = 0.2f;
    s[1].exclude = "unet.mid_block.*,text_encoder.*";
    must(weft_adapter_merge(model, s, 2, NULL, &a, &report, &golden_err));
    for (size_t i = 0; i < weft_merge_report_count(report); i++) ck_assert_int_eq(row_at(report, i).adapters, 1);
    ck_assert_uint_eq(weft_merge_report_count(report), 100);
    weft_merge_report_free(report);

    must(weft_plan_create(model, NULL, &plan, &golden_err));
    for (int i = 0; i < 2; i++) {
        both[i] = s[i].adapter;
        ao.select = s[i].select;
        ao.exclude = s[i].exclude;
        text.text_1 = 0.2f;
        ao.text_weights = i == 0 ? &text : NULL;
        must(weft_plan_add(plan, both[i], s[i].weight, &ao, &golden_err));
        weft_adapter_free(both[i]);
    }
    must(weft_plan_seal(plan, 1, &golden_err));
    float *want = predict_with(plan, &same), *got = predict_all(model, 0, &a, &one, 1, &count);
    near_golden("selected", got, want, count, 1e-5);
    free(got), free(want);
    weft_plan_free(plan);
    weft_adapter_free(a);
}
END_TEST

/* ---- the report ------------------------------------------------------------------------------ */

START_TEST(report_tells_rank_norm_and_error_of_each_layer)
{
    weft_merge_options o = options(WEFT_MERGE_SUM);
    weft_merge_report *low, *high;
    weft_merge_row     row = WEFT_MERGE_ROW_INIT;
    int32_t            shared = 0;

    o.rank = 2;
    o.conv_rank = 1;
    weft_adapter_free(merged_on(model, convs, 2, &o, &low));
    o.rank = 6;
    o.conv_rank = 0;
    weft_adapter_free(merged_on(model, convs, 2, &o, &high));
    ck_assert_uint_eq(weft_merge_report_count(low), weft_merge_report_count(high));
    ck_assert_uint_gt(weft_merge_report_count(low), 150);
    for (size_t i = 0; i < weft_merge_report_count(low); i++) {
        const weft_merge_row x = row_at(low, i), y = row_at(high, i);
        const wf_layer *l = &wf_model_layers(model, &(size_t){ 0 })[x.layer_id];
        ck_assert_str_eq(x.layer, l->name);
        if (i > 0) ck_assert_int_gt(x.layer_id, row_at(low, i - 1).layer_id);
        ck_assert_int_eq(x.rank, l->kernel > 1 ? 1 : 2);
        ck_assert(x.norm > 0 && x.norm <= y.norm * (1 + 1e-6));
        ck_assert(x.error > y.error || x.error < 1e-6);
        ck_assert(y.rank <= 6);
        ck_assert(x.adapters == 1 || x.adapters == 2);
        shared += x.adapters == 2;
    }
    ck_assert_int_gt(shared, 100);
    ck_assert_int_eq(weft_merge_report_get(low, weft_merge_report_count(low), &row, &golden_err), WEFT_E_ARG);
    weft_merge_report_free(low);
    weft_merge_report_free(high);
    weft_merge_report_free(NULL);
}
END_TEST

/* Each layer gets the least rank that does, so one less would not. */
START_TEST(an_error_target_holds_in_every_layer)
{
    weft_merge_options o = options(WEFT_MERGE_SUM);
    weft_merge_report *report, *less;
    int32_t            ranks[40] = { 0 }, kinds = 0;

    o.error = 0.3;
    weft_adapter_free(merged_on(model, three, 3, &o, &report));
    for (int32_t rank = 1; rank < 5; rank++) {
        o.error = 0;
        o.rank = rank;
        weft_adapter_free(merged_on(model, three, 3, &o, &less));
        for (size_t i = 0; i < weft_merge_report_count(report); i++) {
            const weft_merge_row x = row_at(report, i), y = row_at(less, i);
            ck_assert_msg(x.error <= 0.3 + 1e-6, "%s: %g", x.layer, x.error);
            if (x.rank == rank + 1) ck_assert_msg(y.error > 0.3, "%s: rank %d would do", x.layer, rank);
            ranks[x.rank]++;
        }
        weft_merge_report_free(less);
    }
    for (int i = 0; i < 40; i++) kinds += ranks[i] > 0;
    ck_assert_int_gt(kinds, 1);
    weft_merge_report_free(report);
}
END_TEST

START_TEST(dare_is_the_same_every_time)
{
    weft_merge_options o = options(WEFT_MERGE_DARE);
    const float        one = 1;
    size_t             n;
    float             *out[3];

    o.density = 0.5;
    for (int i = 0; i < 3; i++) {
        o.seed = i == 2;
        weft_adapter *a = merged_on(model, three, 3, &o, NULL);
        out[i] = predict_all(model, 0, &a, &one, 1, &n);
        weft_adapter_free(a);
    }
    ck_assert_mem_eq(out[0], out[1], n * sizeof *out[0]);
    ck_assert(relative(out[0], out[2], n, NULL) > 1e-3);
    for (int i = 0; i < 3; i++) free(out[i]);
}
END_TEST

/* ---- what is refused ------------------------------------------------------------------------- */

static void refuses(const weft_merge_options *o, const use *uses, size_t n, weft_status code, const char *words)
{
    weft_adapter      *a = (weft_adapter *)model;
    weft_merge_report *report = (weft_merge_report *)model;

    ck_assert_msg(try_merge(model, uses, n, o, &a, &report) == code, "%s (%s)", golden_err.text, words);
    ck_assert_ptr_null(a);
    ck_assert_ptr_null(report);
    check_one_line(&golden_err);
    ck_assert_msg(strstr(golden_err.text, words) != NULL, "'%s' is not in: %s", words, golden_err.text);
}

/* Which one stays is said once, where one gives way. */
START_TEST(one_source_is_fixed)
{
    weft_merge_source  s[2] = { WEFT_MERGE_SOURCE_INIT, WEFT_MERGE_SOURCE_INIT };
    weft_merge_options o = options(WEFT_MERGE_SUM);
    weft_adapter      *a = NULL;

    for (int i = 0; i < 2; i++) {
        must(weft_adapter_open(data_path("adapters/%s.safetensors", i == 0 ? "content" : "style"), NULL, &s[i].adapter,
                               &golden_err));
        s[i].weight = 1;
    }
    s[1].flags = WEFT_SOURCE_FIXED;
    ck_assert_int_eq(weft_adapter_merge(model, s, 2, &o, &a, NULL, &golden_err), WEFT_E_ARG);
    ck_assert_msg(strstr(golden_err.text, "the sum: no adapter gives way to") != NULL, "%s", golden_err.text);
    o.kind = WEFT_MERGE_NULL_SPACE;
    s[0].flags = WEFT_SOURCE_FIXED;
    ck_assert_int_eq(weft_adapter_merge(model, s, 2, &o, &a, NULL, &golden_err), WEFT_E_ARG);
    ck_assert_msg(strstr(golden_err.text, "are fixed, wanted one") != NULL, "%s", golden_err.text);
    ck_assert_int_eq(weft_adapter_merge(model, s, 1, &o, &a, NULL, &golden_err), WEFT_E_ARG);
    ck_assert_msg(strstr(golden_err.text, "one adapter, wanted one that stays") != NULL, "%s", golden_err.text);
    for (int i = 0; i < 2; i++) weft_adapter_free(s[i].adapter);
}
END_TEST

START_TEST(bad_options_are_refused)
{
    static const float nan_mixer[] = { 1, NAN, 0, 0, 1, 0, 0, 0, 1 };
    weft_merge_options o[26];
    static const char *const words[WF_LEN(o)] = {
        [0] = "a merge of kind 99, wanted a WEFT_MERGE_*",
        [1] = "TIES keeps a density above 0, at most 1; it is 0",
        [2] = "DARE keeps a density above 0, at most 1; it is 0",
        [3] = "pruning keeps a density above 0, at most 1; it is 1.5",
        [4] = "DARE with TIES keeps a density above 0, at most 1; it is -0.5",
        [5] = "a merge to rank -1, wanted 1 or more",
        [6] = "a relative error of 1 is asked, wanted above 0, below 1",
        [7] = "a relative error of -0.1 is asked",
        [8] = "clamped to quantile 2, wanted above 0, at most 1",
        [9] = "majority is 2, wanted a WEFT_MAJORITY_*",
        [10] = "entry 1 of the mixer is not a finite number",
        [11] = "the sum: it keeps all entries, and has no density",
        [12] = "pruning: it elects no sign, and has no majority",
        [13] = "TIES: it draws nothing, and has no seed",
        [14] = "the sum: it has no mixer",
        [15] = "concatenation: it does not take factors apart",
        [16] = "TIES: kohya's merge has a sum and a concatenation, and not this",
        [17] = "the sum: factors go PEFT's way or kohya's, not both",
        [18] = "the sum: the directions of DoRA are not for factors apart",
        [19] = "the sum: factors that are merged apart keep their rank",
        [20] = "concatenation: the ranks add up; the sum can have a rank",
        [21] = "the sum: PEFT's doubled scale is of what is factored by SVD",
        [22] = "the sum: a rank of convolutions is beside a rank",
        [23] = "the sum: what is clamped is factored by SVD, to a rank or an error",
        [24] = "others give way with a strength of -1, wanted 0 or more",
        [25] = "TIES: no adapter gives way to another, and there is no strength",
    };

    for (size_t i = 0; i < WF_LEN(o); i++) o[i] = options(WEFT_MERGE_SUM);
    o[0].kind = 99;
    o[1].kind = WEFT_MERGE_TIES;
    o[2].kind = WEFT_MERGE_DARE;
    o[3].kind = WEFT_MERGE_PRUNE, o[3].density = 1.5;
    o[4].kind = WEFT_MERGE_DARE_TIES, o[4].density = -0.5;
    o[5].rank = -1;
    o[6].error = 1;
    o[7].error = -0.1;
    o[8].rank = 4, o[8].clamp = 2;
    o[9].kind = WEFT_MERGE_TIES, o[9].density = 0.5, o[9].majority = 2;
    o[10].kind = WEFT_MERGE_MIXER, o[10].mixer = nan_mixer;
    o[11].density = 0.5;
    o[12].kind = WEFT_MERGE_PRUNE, o[12].density = 0.5, o[12].majority = 1;
    o[13].kind = WEFT_MERGE_TIES, o[13].density = 0.5, o[13].seed = 1;
    o[14].mixer = nan_mixer + 2;
    o[15].kind = WEFT_MERGE_CONCAT, o[15].flags = WEFT_MERGE_FACTORS;
    o[16].kind = WEFT_MERGE_TIES, o[16].density = 0.5, o[16].flags = WEFT_MERGE_KOHYA;
    o[17].flags = WEFT_MERGE_FACTORS | WEFT_MERGE_KOHYA;
    o[18].flags = WEFT_MERGE_FACTORS | WEFT_MERGE_DIRECTION;
    o[19].flags = WEFT_MERGE_FACTORS, o[19].rank = 4;
    o[20].kind = WEFT_MERGE_CONCAT, o[20].rank = 4;
    o[21].flags = WEFT_MERGE_DOUBLE_SCALE;
    o[22].conv_rank = 4;
    o[23].clamp = 0.99;
    o[24].kind = WEFT_MERGE_NULL_SPACE, o[24].strength = -1;
    o[25].kind = WEFT_MERGE_TIES, o[25].density = 0.5, o[25].strength = 0.5;
    for (size_t i = 0; i < WF_LEN(o); i++) refuses(&o[i], three, i == 14 ? 2 : 3, WEFT_E_ARG, words[i]);
    o[0].kind = 0;
    o[0].flags = 1u << 20;
    refuses(&o[0], three, 3, WEFT_E_UNSUPPORTED, "weft_merge_options: flags");
}
END_TEST

START_TEST(bad_sources_are_refused)
{
    static const use   wrong = { "adapters/sdxl_kohya.safetensors", 1 };
    weft_merge_options ties = options(WEFT_MERGE_TIES), factors = options(WEFT_MERGE_SUM), sum = options(0);
    weft_merge_source  s[2];
    weft_adapter      *a;
    use                zero[] = { three[0], three[0] };

    ties.density = 0.5;
    factors.flags = WEFT_MERGE_FACTORS;
    refuses(&factors, three, 3, WEFT_E_MISMATCH, "adapter content has rank 4 and style has 3: factors of one rank");
    refuses(&sum, &wrong, 1, WEFT_E_MISMATCH, "sdxl_kohya: 60 of 312 keys matched");
    zero[1].weight = -zero[0].weight;
    refuses(&sum, zero, 2, WEFT_E_MISMATCH, "the sum of these adapters is zero in every layer");
    ck_assert_int_eq(weft_adapter_merge(model, NULL, 0, NULL, &a, NULL, &golden_err), WEFT_E_ARG);
    ck_assert_str_eq(golden_err.text, "there is no adapter to merge");

    source_of(&s[0], &three[0]);
    source_of(&s[1], &three[1]);
    s[0].select = "unet.mid_block.*";
    s[1].exclude = "unet.mid_block.*";
    ck_assert_int_eq(weft_adapter_merge(model, s, 2, &ties, &a, NULL, &golden_err), WEFT_E_MISMATCH);
    ck_assert_str_eq(golden_err.text, "TIES compares adapters where they meet, and these share no layer: content and style");
    s[0].select = "unet.nowhere.*";
    ck_assert_int_eq(weft_adapter_merge(model, s, 2, NULL, &a, NULL, &golden_err), WEFT_E_MISMATCH);
    ck_assert_str_eq(golden_err.text, "adapter content: its patterns leave none of its layers");
    s[0].select = NULL;
    s[1].weight = INFINITY;
    ck_assert_int_eq(weft_adapter_merge(model, s, 2, NULL, &a, NULL, &golden_err), WEFT_E_ARG);
    ck_assert_str_eq(golden_err.text, "adapter style: its weight is not a finite number");
    s[1].struct_size = 4;
    ck_assert_int_eq(weft_adapter_merge(model, s, 2, NULL, &a, NULL, &golden_err), WEFT_E_ARG);
    weft_adapter_free(s[0].adapter);
    s[0].adapter = NULL;
    ck_assert_int_eq(weft_adapter_merge(model, s, 1, NULL, &a, NULL, &golden_err), WEFT_E_ARG);
    ck_assert_str_eq(golden_err.text, "source 0 has no adapter");
    weft_adapter_free(s[1].adapter);
}
END_TEST

/* Magnitudes of rows and of columns; a family that is not DoRA and depends on the weight. */
START_TEST(directions_that_do_not_go_together_are_refused)
{
    static const use kinds[] = { { "families/peft_dora", 1 }, { "families/lyco_dora_columns.safetensors", 1 } };
    static const use oft[] = { { "families/peft_dora", 1 }, { "families/peft_oft", 1 } };
    weft_merge_options o = options(WEFT_MERGE_SUM);

    o.flags = WEFT_MERGE_DIRECTION;
    refuses(&o, kinds, 2, WEFT_E_UNSUPPORTED, "has magnitudes of rows and one of columns");
    refuses(&o, oft, 2, WEFT_E_UNSUPPORTED, "depends on its weight without being DoRA");
}
END_TEST

static int32_t stop_at_ten(void *user, const char *what, int64_t done, int64_t total)
{
    ck_assert_str_eq(what, "merging adapters");
    ck_assert_int_lt(done, total);
    *(int64_t *)user = done;
    return done == 10;
}

START_TEST(a_merge_can_be_stopped)
{
    weft_merge_options o = options(WEFT_MERGE_SUM);
    int64_t            seen = 0;

    o.progress = stop_at_ten;
    o.progress_user = &seen;
    refuses(&o, three, 3, WEFT_E_CANCELLED, "was cancelled");
    ck_assert_int_eq(seen, 10);
}
END_TEST

/* ---- without memory -------------------------------------------------------------------------- */

/* Two layers, one of them a convolution, by each way: every allocation fails once. */
START_TEST(without_memory_nothing_is_left)
{
    static const struct { int32_t kind; uint32_t flags; int32_t rank; double density; } ways[] = {
        { WEFT_MERGE_SUM, 0, 0, 0 }, { WEFT_MERGE_SUM, 0, 3, 0 }, { WEFT_MERGE_TIES, 0, 3, 0.5 },
        { WEFT_MERGE_CONCAT, 0, 0, 0 }, { WEFT_MERGE_CONCAT, WEFT_MERGE_KOHYA, 0, 0 },
        { WEFT_MERGE_SUM, WEFT_MERGE_DIRECTION, 0, 0 },
    };

    for (size_t w = 0; w < WF_LEN(ways); w++) {
        bool               dora = ways[w].flags == WEFT_MERGE_DIRECTION, again = true;
        const use          dora_uses[] = { { "families/peft_dora", 1 }, { "mixed/peft_dora_second", 1 } };
        weft_merge_source  s[2];
        test_memory        memory;
        weft_allocator     alloc = test_allocator(&memory);
        weft_merge_options o = options(ways[w].kind);
        o.allocator = &alloc;
        o.flags = ways[w].flags;
        o.rank = ways[w].rank;
        o.density = ways[w].density;
        for (int i = 0; i < 2; i++) {
            source_of(&s[i], dora ? &dora_uses[i] : &convs[i]);
            if (!dora) s[i].select = "unet.down_blocks.0.resnets.0.conv1,unet.mid_block.attentions.0.proj_in";
        }
        for (size_t fail = 1; again; fail++) {
            weft_adapter      *a;
            weft_merge_report *report;
            memory.calls = 0;
            memory.fail_at = fail;
            weft_status st = weft_adapter_merge(model, s, 2, &o, &a, &report, &golden_err);
            again = st != WEFT_OK;
            if (again) {
                ck_assert_int_eq(st, WEFT_E_NOMEM);
                ck_assert_ptr_null(a);
                ck_assert_ptr_null(report);
                ck_assert_uint_eq(memory.live_blocks, 0);
            } else {
                ck_assert_uint_gt(fail, 20);
                weft_adapter_free(a);
                weft_merge_report_free(report);
            }
            ck_assert_uint_lt(fail, 5000);
        }
        ck_assert_uint_eq(memory.live_blocks, 0);
        for (int i = 0; i < 2; i++) weft_adapter_free(s[i].adapter);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("merge: adapters");
    TCase *t = tcase_create("merged");

    tcase_set_timeout(t, 300);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, exact_merges_act_as_their_parts);
    tcase_add_test(t, order_does_not_show);
    tcase_add_loop_test(t, a_sum_takes_any_family, 0, (int)WF_LEN(indices));
    tcase_add_test(t, directions_are_merged_as_the_policy_says);
    tcase_add_test(t, a_merged_adapter_is_saved_like_any_other);
    tcase_add_test(t, sources_take_part_where_they_are_told);
    tcase_add_test(t, report_tells_rank_norm_and_error_of_each_layer);
    tcase_add_test(t, an_error_target_holds_in_every_layer);
    tcase_add_test(t, dare_is_the_same_every_time);
    tcase_add_test(t, one_source_is_fixed);
    tcase_add_test(t, bad_options_are_refused);
    tcase_add_test(t, bad_sources_are_refused);
    tcase_add_test(t, directions_that_do_not_go_together_are_refused);
    tcase_add_test(t, a_merge_can_be_stopped);
    tcase_add_test(t, without_memory_nothing_is_left);
    suite_add_tcase(s, t);
    return run_suite(s);
}
