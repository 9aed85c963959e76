/* Nets whose weights are a formula, against outputs that diffusers 0.21.4 and OpenAI's CLIP code gave for them.
 *
 * Tensor number k of the sorted names holds sin(1 + 0.61803398875 i + k), scaled by its rank and name; inputs are
 * sines too. So weights need no file, and names, shapes and order are tested with the arithmetic. The names come
 * from tests/reference/make_formula.py, and with them two nets of odd proportions: what passes through the buffers at
 * the ends must be counted too, and the sanitizer and the workbench watch. */
#include "nets/formula.h"

/* The list tests/data/formula/<list>.tsv as a net. */
static net *open_list(const char *list, const char *component)
{
    static weft_tensor_out tensors[MOST];
    char line[512];
    size_t count = 0;
    FILE *f = fopen(data_path("formula/%s.tsv", list), "r");

    ck_assert_msg(f != NULL, "no formula/%s.tsv", list);
    for (; fgets(line, sizeof line, f) != NULL; count++) {
        weft_tensor_out *t = &tensors[count];
        ck_assert_uint_lt(count, MOST);
        *t = (weft_tensor_out){ .struct_size = sizeof *t, .name = strdup(strtok(line, "\t")) };
        for (char *size = strtok(NULL, ",\n"); size != NULL; size = strtok(NULL, ",\n"))
            t->shape[t->rank++] = strtol(size, NULL, 10);
    }
    fclose(f);
    return net_open(formula_file(tensors, count, NULL), list, component);
}

/* ---- what is stored of an output ------------------------------------------------------------- */

static double number(const json_t *j, const char *key) { return json_number_value(json_object_get(j, key)); }

static json_t *load(const char *name)
{
    json_error_t e;
    json_t *j = json_load_file(data_path("%s", name), 0, &e);
    ck_assert_msg(j != NULL, "%s: %s", name, e.text);
    return j;
}

/* First and last values against the largest value, mean against the mean size, and the l2 norm. */
static void check(const char *what, const float *v, size_t n, const json_t *want)
{
    const json_t *shape = json_object_get(want, "shape"), *first = json_object_get(want, "first");
    const json_t *last = json_object_get(want, "last");
    size_t count = 1, heads = json_array_size(first), tails = json_array_size(last);
    double top = 0, sum = 0, square = 0, size = 0, worst = 0;

    for (size_t i = 0; i < json_array_size(shape); i++) count *= (size_t)json_integer_value(json_array_get(shape, i));
    ck_assert_msg(count == n && heads >= 8 && tails >= 4, "%s: %zu values, wanted %zu", what, n, count);
    for (size_t i = 0; i < n; i++) {
        top = fmax(top, fabs(v[i]));
        size += fabs(v[i]);
        sum += v[i];
        square += (double)v[i] * v[i];
    }
    for (size_t i = 0; i < heads; i++) worst = fmax(worst, fabs(v[i] - json_number_value(json_array_get(first, i))));
    for (size_t i = 0; i < tails; i++)
        worst = fmax(worst, fabs(v[n - tails + i] - json_number_value(json_array_get(last, i))));
    worst /= top;
    double mean = fabs(sum / (double)n - number(want, "mean")) / (size / (double)n);
    double l2 = fabs(sqrt(square) - number(want, "l2")) / number(want, "l2");
    if (getenv("GOLDEN_SHOW") != NULL) printf("%-28s values %.1e  mean %.1e  l2 %.1e\n", what, worst, mean, l2);
    ck_assert_msg(worst < 1e-5 && mean < 1e-5 && l2 < 1e-5, "%s: values %g, mean %g, l2 %g", what, worst, mean, l2);
    if (json_object_get(want, "abs_mean") != NULL)
        ck_assert_double_eq_tol(size / (double)n, number(want, "abs_mean"), 1e-5 * number(want, "abs_mean"));
}

/* ---- the nets -------------------------------------------------------------------------------- */

static void numbers(float *v, const json_t *list) /* in nested lists, in order */
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        if (json_is_array(item)) numbers(v + i * json_array_size(item), item);
        else v[i] = (float)json_number_value(item);
    }
}

static void check_unet(const json_t *item)
{
    const char *name = json_string_value(json_object_get(item, "name"));
    const json_t *inputs = json_object_get(item, "inputs");
    net *n = open_list(name, "unet");
    wf_unet_config c;
    wf_denoiser *u;
    float timestep[2], ids[12], out[2 * 4 * 16 * 16];
    float *x = wave(sin, 0.1, sizeof out / sizeof *out), *text = wave(cos, 0.2, 2 * 7 * 24);
    float *pooled = wave(sin, 0.3, 2 * 20);
    const float *texts[] = { text, text + 7 * 24 }, *vectors[] = { pooled, pooled + 20 };
    wf_denoise_input in = { .grid = wf_image_grid(2, 16, 16), .latent = x,
                            .timestep = timestep,
                            .text = { { texts, 7, 0 }, { NULL, 1, 0 } } };

    numbers(timestep, json_object_get(inputs, "timesteps"));
    if (json_object_get(inputs, "time_ids") != NULL) {
        numbers(ids, json_object_get(inputs, "time_ids"));
        in.time_ids = ids;
        in.text[1].rows = vectors;
    }
    must(wf_config_unet(&c, json_object_get(item, "config"), name, &golden_err));
    must(wf_unet_build(&c, &n->binder, &u, &golden_err));
    ck_assert_int_eq(n->binder.parameters, json_integer_value(json_object_get(item, "params")));
    ck_assert_uint_eq(wf_tensors_count(n->file), (size_t)json_integer_value(json_object_get(item, "tensors")));
    wf_denoise(u, &n->w.e, NULL, &in);
    bench_real(&n->w);
    wf_denoise(u, &n->w.e, out, &in);
    check(name, out, sizeof out / sizeof *out, json_object_get(item, "output"));
    wf_denoiser_free(u, &n->alloc);
    net_close(n);
    free(x), free(text), free(pooled);
}

static void check_vae(const json_t *item, wf_grid small, wf_grid large)
{
    const char *name = json_string_value(json_object_get(item, "name"));
    net *n = open_list(name, "vae");
    wf_vae_config c;
    wf_vae *v;

    must(wf_config_vae(&c, json_object_get(item, "config"), name, &golden_err));
    must(wf_vae_build(&c, &n->binder, &v, &golden_err));
    ck_assert_int_eq(n->binder.parameters, json_integer_value(json_object_get(item, "params")));
    int32_t f = wf_vae_factor(v);
    wf_grid out = wf_image_grid(1, large.h / f, large.w / f);
    size_t pixels = 3 * (size_t)f * (size_t)f * wf_rows(small), half = (size_t)c.latent_channels * wf_rows(out);
    float *image = malloc(pixels * sizeof *image), *moments = malloc(2 * half * sizeof *moments);
    float *z = wave(sin, 0.1, (size_t)c.latent_channels * wf_rows(small)), *x = wave(cos, 0.05, 3 * wf_rows(large));

    wf_vae_decode(v, &n->w.e, NULL, NULL, small);
    wf_vae_encode(v, &n->w.e, NULL, NULL, large);
    bench_real(&n->w);
    wf_vae_decode(v, &n->w.e, image, z, small);
    check("decode", image, pixels, json_object_get(item, "decode"));
    wf_vae_encode(v, &n->w.e, moments, x, large);
    check("encode, mean", moments, half, json_object_get(item, "encode_mean"));
    check("encode, log variance", moments + half, half, json_object_get(item, "encode_logvar"));
    wf_vae_free(v, &n->alloc);
    net_close(n);
    free(z), free(x), free(image), free(moments);
}

static void check_clip(const char *list, const json_t *k, const json_t *item)
{
    const char *act = json_string_value(json_object_get(item, "act"));
    net *n = open_list(list, "text_encoder");
    wf_clip_config c = { .hidden = (int32_t)number(k, "hidden"), .layers = (int32_t)number(k, "layers"),
                         .heads = (int32_t)number(k, "heads"), .intermediate = (int32_t)number(k, "intermediate"),
                         .vocab = (int32_t)number(k, "vocab"), .positions = (int32_t)number(k, "positions"),
                         .projection = (int32_t)number(k, "projection"), .eps = 1e-5f, .eos = 99 };
    int32_t ids[77] = { 98, 3, 17, 42, 5 }, eos_at = 5;
    size_t d = (size_t)c.hidden, all = 77 * d;
    float *last = malloc(all * sizeof *last), *penultimate = malloc(all * sizeof *penultimate);
    float *pooled = malloc((size_t)c.projection * sizeof *pooled);
    wf_clip *m;

    for (int i = 5; i < 77; i++) ids[i] = 99;
    ck_assert(wf_act_from_name(act, &c.act));
    must(wf_clip_build(&c, &n->binder, &m, &golden_err));
    wf_clip_input in = { .n = 1, .length = 77, .norm = true, .eos_at = &eos_at };
    wf_clip_forward(m, &n->w.e, &in, NULL, NULL);
    bench_real(&n->w);
    in.ids = ids;
    wf_clip_forward(m, &n->w.e, &in, last, pooled);
    in.norm = false;
    in.skip = 1;
    wf_clip_forward(m, &n->w.e, &in, penultimate, NULL);
    check(act, last, all, json_object_get(item, "last_hidden_state"));
    check(act, penultimate, all, json_object_get(item, "penultimate_no_final_ln"));
    check(act, last + 5 * d, d, json_object_get(item, "pooled"));
    check(act, pooled, (size_t)c.projection, json_object_get(item, "text_embeds"));
    wf_clip_free(m, &n->alloc);
    net_close(n);
    free(last), free(penultimate), free(pooled);
}

START_TEST(unets_and_vae)
{
    json_t *all = load("shared/golden_tiny_models.json"), *cases = json_object_get(all, "cases");
    const json_t *item = json_array_get(cases, (size_t)_i);
    ck_assert_uint_eq(json_array_size(cases), 4);
    if (json_object_get(item, "decode") != NULL) check_vae(item, wf_image_grid(1, 6, 5), wf_image_grid(1, 20, 24));
    else check_unet(item);
    json_decref(all);
}
END_TEST

START_TEST(clip_of_both_kinds)
{
    json_t *all = load("shared/golden_tiny_clip.json");
    check_clip("tiny_clip", json_object_get(all, "config"), json_array_get(json_object_get(all, "cases"), (size_t)_i));
    json_decref(all);
}
END_TEST

START_TEST(ends_wider_than_the_middle)
{
    json_t *all = load("formula/narrow.json"), *clip = json_object_get(all, "clip");
    check_vae(json_object_get(all, "vae"), wf_image_grid(1, 9, 7), wf_image_grid(1, 9, 7));
    check_clip("narrow_clip", json_object_get(clip, "config"), json_array_get(json_object_get(clip, "cases"), 0));
    json_decref(all);
}
END_TEST

/* The angle 999 f is known to float32's half unit, 3e-5, and so are its sine and cosine. */
START_TEST(timesteps)
{
    json_t *all = load("shared/golden_tiny_models.json"), *e = json_object_get(all, "timestep_embedding");
    json_t *columns = json_object_get(e, "columns"), *rows = json_object_get(e, "values");
    wf_exec exec = { 0 };
    float t[3], y[3 * 320];
    numbers(t, json_object_get(e, "t"));
    wf_sinusoid(&exec, y, t, 3, 320, true, 0);
    for (size_t r = 0; r < 3; r++)
        for (size_t i = 0; i < json_array_size(columns); i++) {
            size_t at = (size_t)json_integer_value(json_array_get(columns, i));
            double want = json_number_value(json_array_get(json_array_get(rows, r), i));
            ck_assert_double_eq_tol(y[r * 320 + at], want, 6e-5);
        }
    json_decref(all);
}
END_TEST

/* Four columns at t = 2. With a shift of 1 the last frequency is 1 / 10000, without one 1 / 100. */
START_TEST(frequencies_end_where_the_shift_says)
{
    static const double shifted[] = { 0.909297427, 0.000199999999, -0.416146837, 0.99999998 };
    static const double plain[] = { 0.909297427, 0.0199986667, -0.416146837, 0.999800007 };
    wf_exec exec = { 0 };
    float t = 2, y[5];

    wf_sinusoid(&exec, y, &t, 1, 4, false, 1);
    for (int i = 0; i < 4; i++) ck_assert_double_eq_tol(y[i], shifted[i], 1e-7);
    wf_sinusoid(&exec, y, &t, 1, 4, true, 0);
    for (int i = 0; i < 4; i++) ck_assert_double_eq_tol(y[i], plain[(i + 2) % 4], 1e-7);
    y[4] = 7;
    wf_sinusoid(&exec, y, &t, 1, 5, false, 1); /* an odd column is 0 */
    for (int i = 0; i < 4; i++) ck_assert_double_eq_tol(y[i], shifted[i], 1e-7);
    ck_assert_float_eq(y[4], 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("nets made by a formula");
    TCase *c = tcase_create("formula");
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, unets_and_vae, 0, 4);
    tcase_add_loop_test(c, clip_of_both_kinds, 0, 2);
    tcase_add_test(c, ends_wider_than_the_middle);
    tcase_add_test(c, timesteps);
    tcase_add_test(c, frequencies_end_where_the_shift_says);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
