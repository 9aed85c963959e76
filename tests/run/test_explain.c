/* The explanation as JSON, field by field against what the plan and weft_run_costs() say; and that memory which runs out
 * on the way is an error that leaves nothing. */
#include <stdbool.h>
#include <unistd.h>

#include "base/base.h"
#include "golden.h"

enum { CALLS = 5 };

static weft_model *model;
static weft_adapter *content, *style;

static void setup(void)
{
    must(weft_model_open(data_path("models/tiny-sd1"), NULL, &model, &golden_err));
    must(weft_adapter_open(data_path("adapters/content.safetensors"), NULL, &content, &golden_err));
    must(weft_adapter_open(data_path("adapters/style.safetensors"), NULL, &style, &golden_err));
}

static void teardown(void)
{
    weft_model_free(model);
    weft_adapter_free(content);
    weft_adapter_free(style);
}

static json_t *get(json_t *o, const char *key)
{
    json_t *v = json_object_get(o, key);
    ck_assert_msg(v != NULL, "no %s", key);
    return v;
}
static double real(json_t *o, const char *key) { return json_number_value(get(o, key)); }
static int32_t whole(json_t *o, const char *key) { return (int32_t)json_integer_value(get(o, key)); }
static const char *word(json_t *o, const char *key) { return json_string_value(get(o, key)); }

static weft_run_options shape(void)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    o.height = 6;
    o.width = 8;
    o.text_tokens = 77;
    o.threads = 1;
    return o;
}

static json_t *explain(const weft_plan *p, const weft_run_options *o)
{
    size_t needed, again;
    json_error_t e;

    must(weft_explain_json(p, o, WEFT_COSTS_GUIDED, NULL, 0, &needed, &golden_err));
    char *text = malloc(needed), cut[21];
    must(weft_explain_json(p, o, WEFT_COSTS_GUIDED, text, needed, &again, &golden_err));
    ck_assert_uint_eq(needed, again);
    ck_assert_uint_eq(strlen(text) + 1, needed);
    must(weft_explain_json(p, o, WEFT_COSTS_GUIDED, cut, sizeof cut, NULL, &golden_err));
    ck_assert_int_eq(strncmp(cut, text, sizeof cut - 1), 0);
    ck_assert_uint_eq(strlen(cut), sizeof cut - 1);
    json_t *j = json_loads(text, JSON_REJECT_DUPLICATES, &e);
    ck_assert_msg(j != NULL, "%s", e.text);
    free(text);
    return j;
}

/* K-LoRA, then two branches of a cached composite: with a mask, a region, blocks, a curve. */
static weft_plan *rich(void)
{
    const float left[4] = { 1, 0.5f, 0, 0 };
    weft_mask mask = WEFT_MASK_INIT;
    weft_region region = WEFT_REGION_INIT;
    weft_add_options o = WEFT_ADD_OPTIONS_INIT;
    weft_curve_point point = WEFT_CURVE_POINT_INIT;
    weft_phase_options at = WEFT_PHASE_OPTIONS_INIT;
    weft_composite_options cached = WEFT_COMPOSITE_OPTIONS_INIT;
    weft_plan *p;

    must(weft_plan_create(model, NULL, &p, &golden_err));
    o.flags = WEFT_ADD_SHARE;
    o.share = 3;
    must(weft_plan_add(p, content, 0.8f, NULL, &golden_err));
    must(weft_plan_add(p, style, -0.5f, &o, &golden_err));
    mask.height = 1;
    mask.width = 4;
    mask.values = left;
    mask.len = 4;
    must(weft_plan_set_mask(p, 1, &mask, &golden_err));
    region.flags = WEFT_REGION_ADAPTER;
    region.adapter = 1;
    must(weft_plan_add_region(p, &region, &golden_err));
    must(weft_plan_set_blocks(p, 0, "OUTALL", &golden_err));
    point.value = 0.5;
    must(weft_plan_set_curve(p, 0, 0, &point, 1, &golden_err));
    must(weft_plan_klora(p, NULL, &golden_err));
    at.first = 2;
    must(weft_plan_begin_phase(p, &at, &golden_err));
    cached.flags = WEFT_COMPOSITE_CACHED;
    must(weft_plan_composite(p, &cached, &golden_err));
    must(weft_plan_seal(p, CALLS, &golden_err));
    return p;
}

static void check_calls(const weft_plan *p, const weft_run_options *o, json_t *calls)
{
    weft_call_cost cost[CALLS];
    double strength[CALLS * 2];

    for (int n = 0; n < CALLS; n++) cost[n] = (weft_call_cost)WEFT_CALL_COST_INIT;
    must(weft_run_costs(p, o, WEFT_COSTS_GUIDED, cost, CALLS, &golden_err));
    must(weft_plan_strengths(p, strength, CALLS * 2, NULL, 0, &golden_err));
    ck_assert_uint_eq(json_array_size(calls), CALLS);
    for (int32_t n = 0; n < CALLS; n++) {
        json_t *call = json_array_get(calls, (size_t)n), *branches = get(call, "branches");
        weft_call_info info = WEFT_CALL_INFO_INIT;
        must(weft_plan_call(p, n, &info, &golden_err));
        ck_assert_int_eq(whole(call, "call"), n);
        ck_assert_int_eq(whole(call, "phase"), info.phase);
        ck_assert_int_eq(whole(call, "row"), info.row);
        ck_assert_int_eq(whole(call, "evaluations"), info.evaluations);
        ck_assert_int_eq(whole(call, "reused"), info.reused);
        ck_assert_int_eq(whole(call, "samples"), cost[n].samples);
        ck_assert_double_eq(real(call, "flops"), cost[n].flops);
        ck_assert_double_eq(real(call, "side_flops"), cost[n].side_flops);
        ck_assert_double_eq(real(call, "weight_bytes"), cost[n].weight_bytes);
        ck_assert_double_eq(real(call, "activation_bytes"), cost[n].activation_bytes);
        ck_assert_uint_eq(json_array_size(branches), (size_t)info.branches);
        for (int32_t b = 0; b < info.branches; b++) {
            float weight, divisor;
            int32_t reuses;
            json_t *branch = json_array_get(branches, (size_t)b);
            must(weft_plan_branch_weight(p, n, b, &weight, &divisor, &golden_err));
            must(weft_plan_branch_reuses(p, n, b, &reuses, &golden_err));
            ck_assert_double_eq(real(branch, "share"), (double)weight / (double)divisor);
            ck_assert_int_eq(json_is_true(get(branch, "reuses")), reuses);
        }
        for (int a = 0; a < 2; a++)
            ck_assert_double_eq(json_number_value(json_array_get(get(call, "strength"), (size_t)a)),
                                strength[n * 2 + a]);
    }
}

/* layers[i] by name; table[phase][row][branch].A[i] is the cell. */
static void check_table(const weft_plan *p, json_t *j)
{
    static const char *const reasons[] = { "none", "asked", "text", "norm", "cheap", "calls", "branches", "columns",
                                           "mask", "whole", "products", "depends" };
    static const char *const paths[] = { "base", "side", "merged" };
    json_t *listed = get(j, "layers");
    weft_plan_info info = WEFT_PLAN_INFO_INIT;
    size_t i = 0, denoiser = 0;

    must(weft_plan_info_get(p, &info, &golden_err));
    for (int64_t l = 0; l < info.layers; l++) {
        weft_layer_info layer = WEFT_LAYER_INFO_INIT;
        weft_layer_use use[2] = { WEFT_LAYER_USE_INIT, WEFT_LAYER_USE_INIT };
        must(weft_model_layer(model, l, &layer, &golden_err));
        for (int32_t k = 0; k < 2; k++) must(weft_plan_layer(p, k, l, &use[k], &golden_err));
        if (use[0].path == 0 && use[1].path == 0) continue;
        json_t *o = json_array_get(listed, i++), *ways = get(o, "ways");
        bool unet = layer.component == WEFT_COMPONENT_DENOISER;
        ck_assert_str_eq(word(o, "name"), layer.name);
        ck_assert_uint_eq(json_array_size(ways), unet ? 2 : 1);
        for (size_t k = 0; k < json_array_size(ways); k++) {
            json_t *way = json_array_get(ways, k);
            ck_assert_str_eq(word(way, "path"), paths[use[k].path]);
            ck_assert_str_eq(word(way, "reason"), reasons[use[k].reason]);
            ck_assert_str_eq(word(way, "why"), use[k].words);
            ck_assert_int_eq(whole(way, "rank"), use[k].rank);
            ck_assert_int_eq(json_integer_value(get(way, "bytes")), use[k].bytes);
            ck_assert_double_eq(real(way, "work"), use[k].work);
        }
        for (int32_t n = 0; n < CALLS && unet; n++) {
            weft_call_info call = WEFT_CALL_INFO_INIT;
            must(weft_plan_call(p, n, &call, &golden_err));
            json_t *row = json_array_get(json_array_get(get(j, "table"), (size_t)call.phase), (size_t)call.row);
            ck_assert_uint_eq(json_array_size(row), (size_t)call.branches);
            for (int32_t b = 0; b < call.branches; b++)
                for (int32_t a = 0; a < 2; a++) {
                    weft_cell cell = WEFT_CELL_INIT;
                    json_t *cells = json_object_get(json_array_get(row, (size_t)b), a ? "B" : "A");
                    must(weft_plan_cell(p, n, b, l, a, &cell, &golden_err));
                    float got = cells == NULL ? 0 : (float)json_number_value(json_array_get(cells, denoiser));
                    ck_assert_float_eq(got, cell.number);
                }
        }
        denoiser += unet;
    }
    ck_assert_uint_eq(i, json_array_size(listed));
    ck_assert_uint_gt(denoiser, 40);
}

START_TEST(json_is_what_the_plan_says)
{
    weft_plan *p = rich();
    weft_run_options o = shape();
    json_t *j = explain(p, &o), *a, *phase;
    uint64_t bytes;
    double norm[2], strength[CALLS * 2];

    must(weft_run_bytes(p, &o, &bytes, &golden_err));
    must(weft_plan_strengths(p, strength, CALLS * 2, norm, 2, &golden_err));
    ck_assert_int_eq(whole(j, "explain"), 1);
    ck_assert_str_eq(word(j, "base"), "SD1.x");
    ck_assert_int_eq(whole(get(j, "image"), "width"), 8);
    ck_assert_int_eq(whole(get(j, "image"), "height"), 6);
    ck_assert(json_is_true(get(get(j, "image"), "guided")));
    ck_assert_uint_eq((uint64_t)json_integer_value(get(get(j, "memory"), "run")), bytes);
    ck_assert_uint_eq(json_array_size(get(j, "adapters")), 2);
    a = json_array_get(get(j, "adapters"), 0);
    ck_assert_str_eq(word(a, "letter"), "A");
    ck_assert_str_eq(word(a, "name"), "content");
    ck_assert_str_eq(word(a, "part"), "content"); /* of two the first, under K-LoRA */
    ck_assert_str_eq(word(a, "blocks"), "OUTALL");
    ck_assert(json_is_true(get(a, "curve")));
    ck_assert_double_eq(real(a, "norm"), norm[0]);
    ck_assert_ptr_null(json_object_get(a, "mask"));
    a = json_array_get(get(j, "adapters"), 1);
    ck_assert_double_eq_tol(real(a, "weight"), -0.5, 1e-12);
    ck_assert_double_eq(real(a, "share"), 3);
    ck_assert_int_eq(whole(get(a, "mask"), "width"), 4);
    ck_assert_double_eq(real(get(a, "mask"), "mean"), 0.375);
    a = json_array_get(get(j, "regions"), 0);
    ck_assert_str_eq(word(a, "adapter"), "B");
    ck_assert(json_is_false(get(a, "isolated")));
    phase = json_array_get(get(j, "phases"), 0);
    ck_assert_str_eq(word(phase, "method"), "klora");
    ck_assert_str_eq(word(get(phase, "options"), "pattern"), "s_star");
    phase = json_array_get(get(j, "phases"), 1);
    ck_assert_int_eq(whole(phase, "first"), 2);
    ck_assert_int_eq(whole(phase, "calls"), 3);
    ck_assert(json_is_true(get(get(phase, "options"), "cached")));
    check_calls(p, &o, get(j, "calls"));
    check_table(p, j);
    json_decref(j);
    weft_plan_free(p);
}
END_TEST

/* A plan without adapters has calls and costs all the same; a name that is no UTF-8 and has quotes is made clean. */
START_TEST(what_is_odd_is_json_too)
{
    weft_run_options o = shape();
    weft_adapter_options how = WEFT_ADAPTER_OPTIONS_INIT;
    weft_adapter *odd;
    weft_plan *p;
    json_t *j;

    weft_align_options align = WEFT_ALIGN_OPTIONS_INIT;
    align.flags = WEFT_ALIGN_VALUES;
    must(weft_plan_create(model, NULL, &p, &golden_err));
    must(weft_plan_align(p, &align, &golden_err));
    must(weft_plan_seal(p, 2, &golden_err));
    j = explain(p, &o);
    ck_assert_uint_ge(json_object_size(get(j, "align")), 5);
    ck_assert_uint_eq(json_array_size(get(j, "adapters")), 0);
    ck_assert_uint_eq(json_array_size(get(j, "layers")), 0);
    ck_assert_double_gt(real(json_array_get(get(j, "calls"), 1), "flops"), 0);
    json_decref(j);
    weft_plan_free(p);

    how.name = "a \"b\\\xff\n";
    must(weft_adapter_open(data_path("adapters/style.safetensors"), &how, &odd, &golden_err));
    must(weft_plan_create(model, NULL, &p, &golden_err));
    must(weft_plan_add(p, odd, 1, NULL, &golden_err));
    must(weft_plan_seal(p, 2, &golden_err));
    j = explain(p, &o);
    ck_assert_str_eq(word(json_array_get(get(j, "adapters"), 0), "name"), "a \"b\\? ");
    json_decref(j);
    weft_plan_free(p);
    weft_adapter_free(odd);
}
END_TEST

/* ---- memory ---- */

typedef struct counter { long live, asked, refuse; } counter;

static void *counted(void *user, size_t size, size_t align)
{
    counter *c = user;
    void *p = NULL;
    if (c->asked++ == c->refuse) return NULL;
    if (posix_memalign(&p, align < sizeof(void *) ? sizeof(void *) : align, size > 0 ? size : 1) != 0) return NULL;
    c->live++;
    return p;
}

static void uncounted(void *user, void *p, size_t size)
{
    (void)size;
    if (p != NULL) ((counter *)user)->live--;
    free(p);
}

typedef weft_status work(weft_plan *p, const weft_run_options *o);

static weft_status cost(weft_plan *p, const weft_run_options *o)
{
    weft_call_cost c[CALLS];
    for (int n = 0; n < CALLS; n++) c[n] = (weft_call_cost)WEFT_CALL_COST_INIT;
    return weft_run_costs(p, o, 0, c, CALLS, &golden_err);
}

static weft_status as_json(weft_plan *p, const weft_run_options *o)
{
    size_t needed;
    return weft_explain_json(p, o, 0, NULL, 0, &needed, &golden_err);
}

static weft_status trace(weft_plan *p, const weft_run_options *o)
{
    weft_run_options traced = *o;
    weft_run *run;
    size_t needed;
    traced.flags = WEFT_RUN_TRACE;
    weft_status st = weft_run_create(p, &traced, &run, &golden_err);
    if (st != WEFT_OK) return st;
    st = weft_run_trace_json(run, NULL, 0, &needed, &golden_err);
    weft_run_free(run);
    return st;
}

/* Every tenth allocation past the first eighty, all before: each in turn fails. */
START_TEST(memory_that_runs_out)
{
    static work *const all[] = { cost, as_json, trace };
    counter c = { 0, 0, -1 };
    const weft_allocator alloc = { counted, uncounted, &c };
    weft_run_options o = shape();
    weft_plan *p = rich();

    o.allocator = &alloc;
    for (long n = 0;; n += n < 80 ? 1 : 10) {
        c.asked = 0;
        c.refuse = n;
        weft_status st = all[_i](p, &o);
        ck_assert_int_eq(c.live, 0);
        if (st == WEFT_OK) break;
        ck_assert_int_eq(st, WEFT_E_NOMEM);
    }
    ck_assert_int_gt(c.asked, 5);
    weft_plan_free(p);
}
END_TEST

START_TEST(what_is_refused)
{
    weft_run_options o = shape();
    weft_plan *p;
    size_t needed;

    must(weft_plan_create(model, NULL, &p, &golden_err));
    ck_assert_int_eq(weft_explain_json(p, &o, 0, NULL, 0, &needed, &golden_err), WEFT_E_STATE);
    must(weft_plan_seal(p, 1, &golden_err));
    ck_assert_int_eq(weft_explain_json(NULL, &o, 0, NULL, 0, &needed, &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_explain_json(p, &o, 0, NULL, 5, &needed, &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_explain_json(p, &o, 8, NULL, 0, &needed, &golden_err), WEFT_E_UNSUPPORTED);
    o.flags = 1u << 30;
    ck_assert_int_eq(weft_explain_json(p, &o, 0, NULL, 0, &needed, &golden_err), WEFT_E_UNSUPPORTED);
    weft_plan_free(p);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("run");
    TCase *c = tcase_create("explain");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 300);
    tcase_add_test(c, json_is_what_the_plan_says);
    tcase_add_test(c, what_is_odd_is_json_too);
    tcase_add_loop_test(c, memory_that_runs_out, 0, 3);
    tcase_add_test(c, what_is_refused);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
