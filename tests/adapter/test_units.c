/* One module of each family against LyCORIS' and PEFT's own difference of the same layer. The cases are the golden file's
 * (tests/reference/make_families_unit.py); each is a loop of this one test. */
#include "modules.h"

#include "../golden.h"

static json_t       *cases;
static weft_tensors *units;

static const char *case_name(int index)
{
    void *it = json_object_iter(cases);

    while (index-- > 0) it = json_object_iter_next(cases, it);
    return json_object_iter_key(it);
}

static int32_t role_of(const char *name)
{
    for (int32_t p = 1; p < WF_TENSORS; p++)
        if (strcmp(wf_tensor_role(p), name) == 0) return p;
    ck_abort_msg("no tensor is called %s", name);
    return 0;
}

/* "<case>/<tensor>" of the file, without what is no tensor of the module. */
static void give_tensors(sample *s, const char *name)
{
    size_t n = strlen(name);

    for (size_t i = 0; i < wf_tensors_count(units); i++) {
        const wf_tensor *t = wf_tensors_at(units, i);
        if (strncmp(t->name, name, n) != 0 || t->name[n] != '/' || strncmp(t->name + n + 1, "delta", 5) == 0) continue;
        s->m.tensor[role_of(t->name + n + 1)] = t;
    }
}

static void configure(sample *s, const json_t *c)
{
    wf_module    *m = &s->m;
    const json_t *alpha = json_object_get(c, "alpha");

    m->has_alpha = alpha != NULL;
    m->alpha = alpha != NULL ? (float)json_number_value(alpha) : 0;
    m->peft = m->peft_magnitude = json_is_true(json_object_get(c, "peft"));
    m->rslora = json_is_true(json_object_get(c, "rslora"));
    if (m->tensor[WF_TENSOR_OFT_R] != NULL) {
        s->extra.oft.terms = (int32_t)json_integer_value(json_object_get(c, "neumann"));
        s->extra.oft.limit = (float)json_number_value(json_object_get(c, "coft"));
    } else if (m->tensor[WF_TENSOR_IA3_L] != NULL) {
        s->extra.ia3.on_input = json_is_true(json_object_get(c, "feedforward"));
    } else {
        s->extra.start.rank = (int32_t)json_integer_value(json_object_get(c, "rank"));
    }
}

START_TEST(module_is_its_librarys)
{
    const char   *name = case_name(_i);
    const json_t *c = json_object_get(cases, name);
    const char   *kind = json_string_value(json_object_get(c, "layer"));
    golden        W = golden_read(units, "%s/W", kind), bias = golden_read(units, "%s/bias", kind);
    golden        want = golden_read(units, "%s/delta", name);
    sample        s = { .count = 0 };
    char          key[128];
    bool          any;

    lay(&s, W.v, (int32_t)W.shape[0], W.rank > 1 ? (int32_t)W.shape[1] : 1, W.rank == 4 ? (int32_t)W.shape[2] : 1);
    if (W.rank == 1) s.l.kind = WEFT_LAYER_NORM;
    s.l.bias = bias.v;
    give_tensors(&s, name);
    configure(&s, c);
    settle(&s);
    ck_assert_msg(wf_module_fits(&s.m, &s.l), "%s does not fit its layer", name);

    float *got = malloc(want.n * sizeof *got);
    ck_assert_uint_eq(want.n, floats_of(&s));
    difference(&s, 1, got);
    near_golden(name, got, want.v, want.n, 2e-6);

    snprintf(key, sizeof key, "%s/delta_bias", name);
    float *got_b = calloc((size_t)s.l.out, sizeof *got_b);
    ck_assert_int_eq(wf_module_add_bias(&s.m, &s.l, (double)s.m.scale, 1, got_b, &any, &err), WEFT_OK);
    ck_assert_int_eq(any, golden_has(units, key));
    if (any) {
        golden want_b = golden_read(units, "%s", key);
        near_golden(key, got_b, want_b.v, want_b.n, 2e-6);
        free(want_b.v);
    }
    free(got_b);
    free(got);
    free(W.v);
    free(bias.v);
    free(want.v);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("adapter: units");
    TCase *t = tcase_create("against LyCORIS and PEFT");

    /* Read before there is a test: their number is that of the loop. */
    cases = json_load_file(data_path("golden/families_unit.json"), 0, NULL);
    if (cases == NULL) return EXIT_FAILURE;
    if (weft_tensors_open(data_path("golden/families_unit.safetensors"), NULL, &units, NULL) != WEFT_OK) return EXIT_FAILURE;
    tcase_add_loop_test(t, module_is_its_librarys, 0, (int)json_object_size(cases));
    suite_add_tcase(s, t);
    int failed = run_suite(s);
    weft_tensors_free(units);
    json_decref(cases);
    return failed;
}
