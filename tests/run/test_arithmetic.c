/* The arithmetic of a model: asked for and told again, refused where a processor does not have it, and in bfloat16 nearer
 * to the true numbers than PyTorch's bfloat16. tests/reference/make_arithmetic.py made the references, in double, and
 * measured PyTorch. That bits do not depend on threads or neighbours in any arithmetic: test_invariants.c. */
#include "base/support.h"
#include "base/tiers.h"
#include "golden.h"
#include "model/model_internal.h"
#include "plain.h"
#include "run/run_internal.h"

/* By the processor where it can, and emulated. */
static const wf_products *tiers[2];
static int tier_count;

static weft_model *open_model(const char *path, const wf_products *tier)
{
    weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
    weft_model *m;
    o.flags = WEFT_OPEN_EMULATE;
    o.arithmetic = WEFT_ARITHMETIC_BF16;
    must(weft_model_open(path, &o, &m, &golden_err));
    m->networks.products = tier; /* a processor that has it does not emulate */
    return m;
}

static weft_run *run_of(weft_model *model, int32_t batch)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_plan *plan;
    weft_run *run;
    must(weft_plan_create(model, NULL, &plan, &golden_err));
    must(weft_plan_seal(plan, 1, &golden_err));
    o.batch = batch;
    o.threads = 2;
    must(weft_run_create(plan, &o, &run, &golden_err));
    weft_plan_free(plan);
    return run;
}

/* Below PyTorch's error in both measures, and above what float32 has: it was rounded. */
static void nearer_than_torch(const char *what, const json_t *case_of, const char *net, const float *got, const golden *exact)
{
    const json_t *measured = json_object_get(case_of, net), *torch = json_object_get(measured, "bf16");
    double l2, max = relative(got, exact->v, exact->n, &l2);
    double torch_l2 = json_number_value(json_object_get(torch, "l2")), torch_max = json_number_value(json_object_get(torch, "max"));
    if (getenv("GOLDEN_SHOW") != NULL)
        printf("%-14s %-9s %-9s l2 %.3g of PyTorch's %.3g, max %.3g of %.3g\n", what, json_string_value(json_object_get(case_of, "name")),
               net, l2, torch_l2, max, torch_max);
    ck_assert_msg(l2 < torch_l2 && max < torch_max, "%s, %s: off by %.3g (PyTorch %.3g), at most %.3g (%.3g)", what, net, l2, torch_l2,
                  max, torch_max);
    ck_assert_msg(l2 > 1e-4, "%s, %s: off by %.3g only, which is no bfloat16", what, net, l2);
}

enum { MODELS = 4 };

START_TEST(bf16_is_nearer_than_pytorch_s)
{
    const wf_products *tier = tiers[_i / MODELS];
    json_t *index = golden_json("arithmetic.json"), *c = json_array_get(json_object_get(index, "models"), (size_t)(_i % MODELS));
    const char *name = json_string_value(json_object_get(c, "name")), *folder = json_string_value(json_object_get(c, "folder"));
    weft_tensors *t = golden_open("arithmetic.safetensors");
    weft_model *model = open_model(data_path("%s", folder), tier);
    plain_shape shape = plain_shape_of(model);
    golden x = golden_read(t, "%s/sample", name), ts = golden_read(t, "%s/timestep", name);
    golden text = golden_read(t, "%s/context", name), z = golden_read(t, "%s/latent", name);
    golden noise = golden_read(t, "%s/denoiser", name), image = golden_read(t, "%s/vae", name), pooled = { 0 }, ids = { 0 };
    if (shape.pooled > 0) pooled = golden_read(t, "%s/text_embeds", name), ids = golden_read(t, "%s/time_ids", name);
    float *out = malloc((noise.n + image.n) * sizeof *out);

    weft_run *run = run_of(model, 1);
    for (size_t i = 0; i < ts.n; i++) {
        plain_step s = PLAIN_STEP_INIT;
        s.latent_len = s.out_len = x.n / ts.n;
        s.latent = x.v + i * s.latent_len;
        s.out = out + i * s.out_len;
        s.text_len = text.n / 2;
        s.text = text.v + i % 2 * s.text_len;
        s.pooled_len = pooled.n / 2;
        s.pooled = pooled.n > 0 ? pooled.v + i % 2 * s.pooled_len : NULL;
        s.time_ids_len = ids.n / 2;
        s.time_ids = ids.n > 0 ? ids.v : NULL;
        s.timestep = ts.v[i];
        must(plain_run_step(run, &s, &golden_err));
    }
    nearer_than_torch(tier->name, c, "denoiser", out, &noise);
    weft_run_free(run);

    run = run_of(model, 2);
    must(weft_run_decode(run, z.v, z.n, out, image.n, &golden_err));
    nearer_than_torch(tier->name, c, "vae", out, &image);
    weft_run_free(run);
    weft_model_free(model);
    weft_tensors_free(t);
    json_decref(index);
    free(x.v), free(ts.v), free(text.v), free(z.v), free(noise.v), free(image.v), free(pooled.v), free(ids.v), free(out);
}
END_TEST

/* What a prompt says is computed in float32 in either arithmetic. */
START_TEST(text_encoders_stay_in_float32)
{
    enum { TEXT = 77 * 24 };
    float text[2][TEXT];
    for (int i = 0; i < 2; i++) {
        weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
        plain_encode e = PLAIN_ENCODE_INIT;
        weft_model *model;
        o.flags = WEFT_OPEN_EMULATE;
        o.arithmetic = i;
        must(weft_model_open(data_path("models/tiny-sd1"), &o, &model, &golden_err));
        weft_run *run = run_of(model, 1);
        e.prompt = "a photo of a red cat on the mat";
        e.text = text[i];
        e.text_len = TEXT;
        must(plain_run_encode(run, &e, &golden_err));
        weft_run_free(run);
        weft_model_free(model);
    }
    ck_assert_mem_eq(text[0], text[1], sizeof text[0]);
}
END_TEST

/* The arithmetic is the model's: a plan in one is the plan in the other, and its file fits both. */
START_TEST(a_plan_does_not_say_it)
{
    char hash[2][65];
    for (int i = 0; i < 2; i++) {
        weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
        weft_model *model;
        weft_adapter *a;
        weft_plan *plan;
        o.flags = WEFT_OPEN_EMULATE;
        o.arithmetic = i;
        must(weft_model_open(data_path("models/tiny-sd1"), &o, &model, &golden_err));
        must(weft_adapter_open(data_path("adapters/content.safetensors"), NULL, &a, &golden_err));
        must(weft_plan_create(model, NULL, &plan, &golden_err));
        must(weft_plan_add(plan, a, 0.5f, NULL, &golden_err));
        must(weft_plan_hash(plan, hash[i], sizeof hash[i], &golden_err));
        weft_plan_free(plan);
        weft_adapter_free(a);
        weft_model_free(model);
    }
    ck_assert_str_eq(hash[0], hash[1]);
}
END_TEST

static weft_model_info info_of(const weft_model *m)
{
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    must(weft_model_info_get(m, &info, &golden_err));
    return info;
}

START_TEST(a_model_says_its_arithmetic)
{
    const wf_products *own = wf_products_pick_bf16(wf_cpu_detect());
    weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
    weft_model *m;
    must(weft_model_open(data_path("models/tiny-sd1"), NULL, &m, &golden_err));
    weft_model_info info = info_of(m);
    ck_assert_int_eq(info.arithmetic, WEFT_ARITHMETIC_F32);
    ck_assert_int_eq(info.emulated, 0);
    ck_assert_str_eq(info.tier, wf_products_pick(wf_cpu_detect())->name);
    weft_model_free(m);

    o.arithmetic = WEFT_ARITHMETIC_BF16;
    o.flags = WEFT_OPEN_EMULATE;
    must(weft_model_open(data_path("models/tiny-sd1"), &o, &m, &golden_err));
    info = info_of(m);
    ck_assert_int_eq(info.arithmetic, WEFT_ARITHMETIC_BF16);
    ck_assert_int_eq(info.emulated, own == NULL);
    ck_assert_str_eq(info.tier, own != NULL ? own->name : "bf16_emulated");
    weft_model_free(m);

    o.flags = 0;
    weft_status st = weft_model_open(data_path("models/tiny-sd1"), &o, &m, &golden_err);
    ck_assert_int_eq(st, own != NULL ? WEFT_OK : WEFT_E_UNSUPPORTED);
    weft_model_free(m);

    ck_assert_str_eq(weft_arithmetic_name(WEFT_ARITHMETIC_F32), "f32");
    ck_assert_str_eq(weft_arithmetic_name(WEFT_ARITHMETIC_BF16), "bf16");
    ck_assert_ptr_null(weft_arithmetic_name(-1));
    ck_assert_ptr_null(weft_arithmetic_name(2));
    ck_assert_int_eq(weft_has("bf16"), 1);
}
END_TEST

START_TEST(what_a_processor_does_not_have_is_refused)
{
    const wf_cpu none = { 0 };
    weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
    weft_model *m;
    for (o.arithmetic = -1; o.arithmetic < 3; o.arithmetic += 3) {
        ck_assert_int_eq(weft_model_open(data_path("models/tiny-sd1"), &o, &m, &golden_err), WEFT_E_ARG);
        ck_assert_ptr_null(m);
        check_one_line(&golden_err);
        ck_assert_ptr_nonnull(strstr(golden_err.text, "arithmetic"));
    }
    must(weft_model_open(data_path("models/tiny-sd1"), NULL, &m, &golden_err));
    ck_assert_int_eq(wf_model_set_arithmetic(m, WEFT_ARITHMETIC_BF16, false, none, &golden_err), WEFT_E_UNSUPPORTED);
    check_one_line(&golden_err);
    ck_assert_ptr_nonnull(strstr(golden_err.text, "tiny-sd1: this processor has no bfloat16"));
    ck_assert_ptr_nonnull(strstr(golden_err.text, "WEFT_OPEN_EMULATE"));
    must(wf_model_set_arithmetic(m, WEFT_ARITHMETIC_BF16, true, none, &golden_err));
    ck_assert_str_eq(info_of(m).tier, "bf16_emulated");
    ck_assert_int_eq(info_of(m).emulated, 1);
    must(wf_model_set_arithmetic(m, WEFT_ARITHMETIC_F32, true, none, &golden_err));
    ck_assert_str_eq(info_of(m).tier, "openblas");
    ck_assert_int_eq(info_of(m).emulated, 0);
    weft_model_free(m);
}
END_TEST

int main(void)
{
    const wf_products *own = wf_products_pick_bf16(wf_cpu_detect());
    Suite *s = suite_create("arithmetic");
    TCase *c = tcase_create("arithmetic");
    if (own != NULL) tiers[tier_count++] = own;
    tiers[tier_count++] = &wf_products_bf16_emulated;
    tcase_set_timeout(c, 300);
    tcase_add_loop_test(c, bf16_is_nearer_than_pytorch_s, 0, tier_count * MODELS);
    tcase_add_test(c, text_encoders_stay_in_float32);
    tcase_add_test(c, a_plan_does_not_say_it);
    tcase_add_test(c, a_model_says_its_arithmetic);
    tcase_add_test(c, what_a_processor_does_not_have_is_refused);
    suite_add_tcase(s, c);
    return run_suite(s);
}
