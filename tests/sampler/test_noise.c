/* test_noise.c - noise equals torch's CPU generator. */
#include <math.h>

#include "help.h"
#include "weft/sampler.h"
#include "weft/tensors.h"

#define SHORT 16 /* draws below this are exact, others within ROUNDING */
#define ROUNDING 5e-7

static weft_error err;

static weft_noise *seeded(uint64_t seed)
{
    weft_noise *g = NULL;

    ck_assert_int_eq(weft_noise_create(seed, NULL, &g, &err), WEFT_OK);
    return g;
}

static void expect(const char *what, const float *got, const json_t *want, size_t n)
{
    size_t        i;
    const json_t *v;

    json_array_foreach(want, i, v)
        ck_assert_msg(fabs((double)got[i] - (double)(float)json_number_value(v)) <= (n < SHORT ? 0 : ROUNDING),
                      "%s: number %zu of %zu is %.9g, torch has %.9g", what, i, n, (double)got[i], json_number_value(v));
}

/* The first eight and the last four of each draw, and mean and deviation where torch wrote them down. */
START_TEST(randn_is_torchs)
{
    json_t *all = data_json("shared/torch_cpu_rng.json"), *c;
    size_t  at;

    json_array_foreach(json_object_get(all, "randn"), at, c) {
        size_t      n = (size_t)number_of(c, "n");
        weft_noise *g = seeded((uint64_t)json_integer_value(json_object_get(c, "seed")));
        float      *v = malloc(n * sizeof *v);
        double      sum = 0, squares = 0;

        ck_assert_int_eq(weft_noise_normal(g, v, n, &err), WEFT_OK);
        expect("first", v, json_object_get(c, "first8"), n);
        expect("last", v + n - 4, json_object_get(c, "last4"), n);
        for (size_t i = 0; i < n; i++) sum += (double)v[i];
        for (size_t i = 0; i < n; i++) squares += ((double)v[i] - sum / (double)n) * ((double)v[i] - sum / (double)n);
        if (json_object_get(c, "mean") != NULL) {
            ck_assert_double_eq_tol(sum / (double)n, number_of(c, "mean"), 1e-7);
            ck_assert_double_eq_tol(sqrt(squares / (double)(n - 1)), number_of(c, "std"), 1e-7);
        }
        free(v);
        weft_noise_free(g);
    }
    json_decref(all);
}
END_TEST

/* Sizes 3 and 16 and 2 and so on from one generator: the third draw starts with the number that the first saved. */
START_TEST(consecutive_draws_share_the_saved_number)
{
    json_t     *all = data_json("shared/torch_cpu_rng.json"), *c;
    weft_noise *g = seeded(0);
    float       v[4096];
    size_t      at;

    json_array_foreach(json_object_get(all, "consecutive_seed0"), at, c) {
        size_t n = (size_t)number_of(c, "n");

        ck_assert_uint_le(n, COUNT_OF(v));
        ck_assert_int_eq(weft_noise_normal(g, v, n, &err), WEFT_OK);
        expect("consecutive", v, json_object_get(c, "values"), n);
    }
    weft_noise_free(g);
    json_decref(all);
}
END_TEST

static weft_tensors *stored;

/* Draw as many numbers as the stored tensor has and compare. */
static void draw_and_compare(weft_noise *g, const char *name)
{
    weft_tensor_info info = WEFT_TENSOR_INFO_INIT;
    int64_t          index = weft_tensors_find(stored, name);
    float           *want, *got;

    ck_assert_msg(index >= 0, "%s is not there", name);
    ck_assert_int_eq(weft_tensors_info(stored, (size_t)index, &info, &err), WEFT_OK);
    want = malloc(info.count * sizeof *want);
    got = malloc(info.count * sizeof *got);
    ck_assert_int_eq(weft_tensors_read(stored, (size_t)index, want, info.count, &err), WEFT_OK);
    ck_assert_int_eq(weft_noise_normal(g, got, info.count, &err), WEFT_OK);
    for (size_t i = 0; i < info.count; i++)
        ck_assert_msg(fabs((double)got[i] - (double)want[i]) <= (info.count < SHORT ? 0 : ROUNDING),
                      "%s[%zu] is %.9g, torch has %.9g", name, i, (double)got[i], (double)want[i]);
    free(want);
    free(got);
}

/* The same on whole tensors from current torch. */
START_TEST(whole_tensors_are_current_torchs)
{
    json_t     *all = data_json("golden/rng.json"), *c;
    weft_noise *g = seeded((uint64_t)number_of(all, "consecutive_seed"));
    size_t      at, seen = 0;
    char        name[64];

    ck_assert_msg(weft_tensors_open(data_path("golden/rng.safetensors"), NULL, &stored, &err) == WEFT_OK, "%s", err.text);
    json_array_foreach(json_object_get(all, "consecutive_sizes"), at, c) {
        snprintf(name, sizeof name, "consecutive/%zu", at);
        draw_and_compare(g, name);
    }
    weft_noise_free(g);
    json_array_foreach(json_object_get(all, "cases"), at, c) {
        if (strncmp(text_of(c, "tensor"), "randn/", 6) != 0) continue;
        g = seeded((uint64_t)json_integer_value(json_object_get(c, "seed")));
        draw_and_compare(g, text_of(c, "tensor"));
        weft_noise_free(g);
        seen++;
    }
    ck_assert_uint_gt(seen, 30);
    weft_tensors_free(stored);
    json_decref(all);
}
END_TEST

START_TEST(only_the_low_half_of_a_seed_matters)
{
    uint64_t seeds[] = { 0xffffffffu, 0xffffffffffffffffu, 0x7ffffffffu };
    float    first[40], other[40];

    for (size_t i = 0; i < COUNT_OF(seeds); i++) {
        weft_noise *g = seeded(seeds[i]);

        ck_assert_int_eq(weft_noise_normal(g, i ? other : first, 40, &err), WEFT_OK);
        if (i) ck_assert_mem_eq(first, other, sizeof first);
        weft_noise_free(g);
    }
}
END_TEST

/* The generator that 0 stands for, by its name; and what is no generator of this version. */
START_TEST(the_kind_is_checked)
{
    weft_noise_options o = WEFT_NOISE_OPTIONS_INIT;
    weft_noise        *plain = seeded(5), *named, *none = plain;
    float              a[20], b[20];

    o.kind = WEFT_NOISE_TORCH_CPU;
    ck_assert_int_eq(weft_noise_create(5, &o, &named, &err), WEFT_OK);
    ck_assert_int_eq(weft_noise_normal(plain, a, 20, &err), WEFT_OK);
    ck_assert_int_eq(weft_noise_normal(named, b, 20, &err), WEFT_OK);
    ck_assert_mem_eq(a, b, sizeof a);
    weft_noise_free(named);
    weft_noise_free(plain);

    o.kind = 2;
    ck_assert_int_eq(weft_noise_create(5, &o, &none, &err), WEFT_E_ARG);
    ck_assert_str_eq(err.text,
                     "weft_noise_create: kind is 2, which is no WEFT_NOISE_* of this version");
    ck_assert_ptr_null(none);
    o.kind = -1;
    ck_assert_int_eq(weft_noise_create(5, &o, &none, &err), WEFT_E_ARG);
    o.kind = 0;
    o.reserved0 = 1;
    ck_assert_int_eq(weft_noise_create(5, &o, &none, &err), WEFT_E_UNSUPPORTED);
    o.reserved0 = 0;
    o.flags = 1;
    ck_assert_int_eq(weft_noise_create(5, &o, &none, &err), WEFT_E_UNSUPPORTED);
}
END_TEST

START_TEST(what_is_missing_is_an_error)
{
    weft_noise *g = seeded(1);
    counting    none = { 0, 0, 0 };
    weft_allocator broke = counting_allocator(&none);
    weft_noise_options o = WEFT_NOISE_OPTIONS_INIT;

    ck_assert_int_eq(weft_noise_create(1, NULL, NULL, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_noise_normal(NULL, (float[1]){ 0 }, 1, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_noise_normal(g, NULL, 1, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_noise_normal(g, NULL, 0, &err), WEFT_OK);
    weft_noise_free(g);
    weft_noise_free(NULL);
    o.allocator = &broke;
    ck_assert_int_eq(weft_noise_create(1, &o, &g, &err), WEFT_E_NOMEM);
    ck_assert_ptr_null(g);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("noise");
    TCase *c = tcase_create("noise");

    tcase_add_test(c, randn_is_torchs);
    tcase_add_test(c, consecutive_draws_share_the_saved_number);
    tcase_add_test(c, whole_tensors_are_current_torchs);
    tcase_add_test(c, only_the_low_half_of_a_seed_matters);
    tcase_add_test(c, the_kind_is_checked);
    tcase_add_test(c, what_is_missing_is_an_error);
    suite_add_tcase(s, c);
    return run_suite(s);
}
