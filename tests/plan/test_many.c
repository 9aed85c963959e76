/* Many adapters: sealing asks a method for each slot of each call once, takes memory by the number of slots, and gives
 * the table that asking for every cell gives. Counted, not timed. */
#include <stdbool.h>

#include "plan/fixture.h"

enum { CALLS = 6, BIG = 256, SMALL = 16 };

static weft_model   *model;
static weft_adapter *wide, *some;

static void setup(void)
{
    model = open_model("tiny-sd1");
    wide = adapter_on(model, "wide", ATTENTION | OTHERS, 1, 1, 1);
    some = adapter_on(model, "some", ATTENTION | TEXT, 2, 1, 2);
}

static void teardown(void)
{
    weft_model_free(model);
    weft_adapter_free(wide);
    weft_adapter_free(some);
}

/* ---- methods that count, and that cannot say who acts alone ---- */

static long asked;

static int32_t as_many(const weft_plan *p, const wf_sheet *s, int32_t call)
{
    (void)s, (void)call;
    return WF_MAX(p->adapters, 1);
}

static int32_t own(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch)
{
    (void)p, (void)s, (void)call;
    return branch;
}

static wf_cell choose_own(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch, int32_t layer,
                          int32_t adapter)
{
    (void)p, (void)s, (void)call, (void)layer;
    asked++;
    return branch == adapter ? WF_ALL : WF_NOTHING;
}

/* In odd calls the other way around, and nothing at every third layer. */
static wf_cell choose_odd(const weft_plan *p, const wf_sheet *s, int32_t call, int32_t branch, int32_t layer,
                          int32_t adapter)
{
    int32_t whose = call % 2 ? p->adapters - 1 - branch : branch;
    (void)s;
    if (layer % 3 == 0 || whose != adapter) return WF_NOTHING;
    return (wf_cell){ (float)(1 + call % 2) * 0.5f, 0, 0 };
}

static const wf_method told = { .name = "told", .title = "Told", .text = WEFT_TEXT_ALL, .choose = choose_own,
                                .alone = own, .branches = as_many };
static const wf_method untold = { .name = "untold", .title = "Untold", .text = WEFT_TEXT_ALL, .choose = choose_own,
                                  .branches = as_many };
static const wf_method odd = { .name = "odd", .title = "Odd", .text = WEFT_TEXT_ALL, .choose = choose_odd,
                               .branches = as_many, .needs_base = true };

/* Adapters of different reach, weight and selection, in turn. */
static weft_plan *plan_of(const wf_method *method, int32_t n, const weft_allocator *alloc)
{
    static const char *const select[] = { NULL, "unet.*", "unet.up_blocks.*", NULL };
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan        *p;

    o.path = WEFT_PATH_SIDE;
    o.allocator = alloc;
    OK(weft_plan_create(model, &o, &p, &err));
    if (method == NULL) OK(weft_plan_composite(p, NULL, &err));
    else OK(wf_plan_use(p, method, NULL, 0, &err));
    for (int32_t a = 0; a < n; a++) {
        weft_add_options add = WEFT_ADD_OPTIONS_INIT;
        add.select = select[a % 4];
        OK(weft_plan_add(p, a % 3 == 1 ? some : wide, a % 5 == 4 ? 0 : 0.25f * (float)(1 + a % 3), &add, &err));
    }
    return p;
}

/* ---- the same table ---- */

/* Every cell that the public call tells. */
static void check_table(const weft_plan *p, int32_t n, const wf_method *method)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(model, &count);

    for (int32_t call = 0; call < CALLS; call++)
        for (int32_t b = 0; b < n; b++)
            for (size_t l = 0; l < count; l++)
                for (int32_t a = 0; a < n && layers[l].component == WEFT_COMPONENT_DENOISER; a++) {
                    float want = 0;
                    int32_t slices;
                    (void)wf_plan_slices(p, a, (int32_t)l, &slices);
                    if (slices > 0)
                        want = method->choose(p, NULL, call, b, (int32_t)l, a).number *
                               wf_plan_cell_weight(p, a, (int32_t)l);
                    ck_assert_float_eq(cell(p, call, b, (int64_t)l, a), want);
                }
}

START_TEST(the_table_is_what_the_method_says)
{
    static const wf_method *const methods[] = { &told, &untold, &odd };
    weft_plan *p = plan_of(methods[_i], 9, NULL);

    OK(weft_plan_seal(p, CALLS, &err));
    check_table(p, 9, methods[_i]);
    ck_assert_uint_eq(wf_plan_phase(p, 0)->rows, methods[_i] == &odd ? 2 : 1);
    for (int32_t call = 0; call < CALLS && methods[_i] == &odd; call++) { /* the base's branch is empty */
        const wf_sheet *s = wf_plan_phase(p, call);
        ck_assert_int_eq(wf_sheet_row(s, call)->branches, 10);
        for (size_t i = 0; i < s->patched_count; i++)
            for (int32_t k = 0; k < s->patched[i].patch->parts; k++)
                ck_assert_float_eq(wf_sheet_line(s, wf_sheet_row(s, call), 9, i)[k].number, 0);
    }
    weft_plan_free(p);
}
END_TEST

START_TEST(who_says_who_acts_alone_gets_the_same_bits)
{
    weft_plan *a = plan_of(&told, 9, NULL), *b = plan_of(&untold, 9, NULL);

    OK(weft_plan_seal(a, CALLS, &err));
    OK(weft_plan_seal(b, CALLS, &err));
    const wf_sheet *x = wf_plan_phase(a, 0), *y = wf_plan_phase(b, 0);
    ck_assert_uint_eq(x->slots, y->slots);
    ck_assert_mem_eq(x->slot, y->slot, x->slots * sizeof *x->slot);
    ck_assert_uint_eq(x->patched_count, y->patched_count);
    for (int32_t branch = 0; branch < 9; branch++)
        for (size_t i = 0; i < x->patched_count; i++)
            ck_assert_mem_eq(wf_sheet_line(x, &x->row[0], branch, i), wf_sheet_line(y, &y->row[0], branch, i),
                             (size_t)x->patched[i].patch->parts * sizeof(wf_cell));
    weft_plan_free(a);
    weft_plan_free(b);
}
END_TEST

/* ---- the work ---- */

START_TEST(a_method_is_asked_for_each_slot_once_a_call)
{
    weft_plan *p = plan_of(&told, SMALL, NULL);

    asked = 0;
    OK(weft_plan_seal(p, CALLS, &err));
    ck_assert_int_eq(asked, (long)wf_plan_phase(p, 0)->slots * CALLS); /* all of its slots live */
    weft_plan_free(p);
}
END_TEST

static size_t taken;

static void *taking_alloc(void *user, size_t size, size_t align)
{
    (void)user;
    taken += size;
    void *p = NULL;
    return posix_memalign(&p, align < sizeof p ? sizeof p : align, size > 0 ? size : 1) == 0 ? p : NULL;
}

static void taking_free(void *user, void *ptr, size_t size)
{
    (void)user, (void)size;
    free(ptr);
}

/* Without the factors, which are large: all that sealing asks for besides, in sum. */
static size_t bytes_to_seal(int32_t n)
{
    const weft_allocator alloc = { taking_alloc, taking_free, NULL };
    weft_plan *p = plan_of(NULL, n, &alloc);
    size_t before, factors = 0;

    before = taken;
    OK(weft_plan_seal(p, CALLS, &err));
    const wf_sheet *s = wf_plan_phase(p, 0);
    for (size_t i = 0; i < s->patched_count; i++)
        factors += sizeof(float) * wf_stack_floats(&wf_model_layers(model, &(size_t){ 0 })[s->patched[i].layer],
                                                   &s->patched[i].patch->stack);
    size_t bytes = taken - before;
    weft_plan_free(p);
    ck_assert_uint_gt(bytes, factors);
    return bytes - factors;
}

/* 16 times the adapters take about 16 times the memory; cells in all branches would take 256 times. */
START_TEST(memory_grows_with_the_slots)
{
    size_t few = bytes_to_seal(SMALL), many = bytes_to_seal(BIG);

    ck_assert_msg(many / few < 2 * BIG / SMALL, "%zu bytes for %d adapters, %zu for %d", few, SMALL, many, BIG);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("many adapters");
    TCase *c = tcase_create("all");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 300);
    tcase_add_loop_test(c, the_table_is_what_the_method_says, 0, 3);
    tcase_add_test(c, who_says_who_acts_alone_gets_the_same_bits);
    tcase_add_test(c, a_method_is_asked_for_each_slot_once_a_call);
    tcase_add_test(c, memory_grows_with_the_slots);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
