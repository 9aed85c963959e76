/* test_variants.c - solvers and their variants against diffusers, and what of them is refused. */
#include "sampler/sampler_internal.h"
#include "walk.h"

/* ---- agreement (tests/reference/make_solvers.py) ------------------------------------------- */

/* Options from a stored case: its diffusers config, read as a model's would be, and what diffusers is told by a call. */
static weft_sampler_options options_of_case(const json_t *all, const json_t *c)
{
    weft_sampler_options o = options_of(weft_sampler_find(text_of(c, "kind")), (int32_t)number_of(c, "steps"));
    weft_status          st = wf_sampler_options_from_json(json_object_get(c, "config"), &o, &err);

    ck_assert_msg(st == WEFT_OK, "%s: %s", text_of(c, "name"), err.text);
    o.eta = (float)number_of(c, "eta");
    o.images = (int32_t)number_of(all, "images");
    if (json_is_true(json_object_get(c, "clipped_noise"))) o.flags |= WEFT_SAMPLER_CLIPPED_NOISE;
    if (json_object_get(c, "order") != NULL) o.order = (int32_t)number_of(c, "order");
    return o;
}

static void expect_schedule(const char *name, const weft_sampler *s)
{
    int32_t calls = weft_sampler_calls(s);
    size_t  total;
    float  *want = read_stored(name, "timesteps", &total);

    ck_assert_msg(total == (size_t)calls, "%s: %d calls, diffusers has %zu", name, calls, total);
    for (int32_t i = 0; i < calls; i++)
        close_to(name, "timestep", (size_t)i, (double)weft_sampler_timestep(s, i), (double)want[i], 2e-4);
    free(want);
    if (!wf_free_levels(s->solver)) return;
    want = read_stored(name, "sigmas", &total);
    ck_assert_uint_eq(total, (size_t)calls + 1);
    for (int32_t i = 0; i <= calls; i++)
        close_to(name, "sigma", (size_t)i, (double)weft_sampler_sigma(s, i), (double)want[i], 2e-6 * (double)want[i]);
    free(want);
}

static void follow(weft_sampler *s, const char *name, const json_t *c, weft_noise *draws, const float *x0,
                   const float *noise, size_t n, double *worst)
{
    int32_t call = 0, calls = weft_sampler_calls(s);
    size_t  total;
    float  *want = read_stored(name, "x", &total), x[64];

    for (size_t i = 0; i < n; i++) x[i] = noise[i] * weft_sampler_init_scale(s);
    if (json_object_get(c, "strength") != NULL) {
        ck_assert_int_eq(weft_sampler_start(s, (float)number_of(c, "strength"), &call, &err), WEFT_OK);
        ck_assert_int_eq(weft_sampler_add_noise(s, call, x0, noise, x, n, &err), WEFT_OK);
    }
    ck_assert_int_eq(call, (int32_t)number_of(c, "begin"));
    ck_assert_uint_eq(total, n * (size_t)(calls - call + 1));
    begin(s, call, n);
    for (const float *at = want;; at += n) {
        double largest = 0;

        for (size_t i = 0; i < n; i++) largest = fmax(largest, fabs((double)at[i]));
        for (size_t i = 0; i < n; i++) {
            close_to(name, "x at call", (size_t)call, (double)x[i], (double)at[i], 2e-6 * largest);
            *worst = fmax(*worst, fabs((double)x[i] - (double)at[i]) / largest);
        }
        if (call == calls) break;
        walk(s, call++, x, n, draws);
    }
    free(want);
}

START_TEST(variants_are_those_of_diffusers)
{
    json_t *all = data_json("golden/variants.json"), *c;
    size_t  at, n, m;
    float  *x0, *noise;
    double  worst = 0;

    ck_assert_msg(weft_tensors_open(data_path("golden/variants.safetensors"), NULL, &stored, &err) == WEFT_OK, "%s",
                  err.text);
    x0 = read_stored("x0", NULL, &n);
    noise = read_stored("noise", NULL, &m);
    ck_assert(n == m && n <= 64);
    json_array_foreach(json_object_get(all, "cases"), at, c) {
        const char   *name = text_of(c, "name");
        weft_sampler *s = NULL;
        weft_noise   *draws;

        weft_sampler_options o = options_of_case(all, c);
        if (getenv("ALL")) {
            if (weft_sampler_create(&o, &s, &err) != WEFT_OK) { printf("%s: %s\n", name, err.text); continue; }
        } else
        s = made(o);
        expect_schedule(name, s);
        ck_assert_int_eq(weft_noise_create((uint64_t)number_of(all, "noise_seed"), NULL, &draws, &err), WEFT_OK);
        worst = 0;
        follow(s, name, c, draws, x0, noise, n, &worst);
        if (getenv("ALL") && worst > 5e-7) printf("%-40s %.2g (f64_rel %.2g)\n", name, worst, number_of(c, "f64_rel"));
        weft_noise_free(draws);
        weft_sampler_free(s);
    }
    free(x0);
    free(noise);
    weft_tensors_free(stored);
    json_decref(all);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("solver variants");
    TCase *agree = tcase_create("agreement");

    tcase_add_test(agree, variants_are_those_of_diffusers);
    suite_add_tcase(s, agree);
    return run_suite(s);
}
