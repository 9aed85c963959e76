/* Results that are not finite are errors that say where it began: in which component, half and layer, and whether
 * the caller's buffers, a weight of the model, an adapter, a token, or the size of the numbers is at fault. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>

#include "golden.h"
#include "plain.h"
#include "run/run_internal.h"
#include "weights.h"

enum { H = 8, W = 8, N = 4 * H * W, TEXT = 77 * 24 };

static weft_model *model;
static float       latent[N], cond[TEXT], uncond[TEXT], out[N];

/* Read into memory, so that a weight can be changed there. */
static weft_model *open_copy(void)
{
    weft_model_options o = WEFT_MODEL_OPTIONS_INIT;
    weft_model *m;
    o.flags = WEFT_OPEN_COPY;
    must(weft_model_open(data_path("models/tiny-sd1"), &o, &m, &golden_err));
    return m;
}

static void setup(void)
{
    weft_noise *noise;
    model = open_copy();
    must(weft_noise_create(7, NULL, &noise, &golden_err));
    must(weft_noise_normal(noise, latent, N, &golden_err));
    must(weft_noise_normal(noise, cond, TEXT, &golden_err));
    must(weft_noise_normal(noise, uncond, TEXT, &golden_err));
    weft_noise_free(noise);
    for (int i = 0; i < N; i++) out[i] = -7;
}

static void teardown(void) { weft_model_free(model); }

static const wf_layer *layer_of(const char *name)
{
    size_t count;
    const wf_layer *layers = wf_model_layers(model, &count);
    for (size_t i = 0; i < count; i++)
        if (strcmp(layers[i].name, name) == 0) return &layers[i];
    ck_abort_msg("no layer %s", name);
    return NULL;
}

static void poison(const void *weight, wf_dtype type, float v)
{
    ck_assert(wf_narrow((void *)(uintptr_t)weight, type, &v, 1));
}

static weft_run *run_of(weft_plan *plan, uint32_t flags, int32_t tile)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_run *run;
    o.threads = 2;
    o.height = H;
    o.width = W;
    o.flags = flags;
    o.tile = tile;
    must(weft_run_create(plan, &o, &run, &golden_err));
    weft_plan_free(plan);
    return run;
}

static weft_plan *plan_of(int32_t path)
{
    weft_plan_options o = WEFT_PLAN_OPTIONS_INIT;
    weft_plan *plan;
    o.path = path;
    must(weft_plan_create(model, &o, &plan, &golden_err));
    return plan;
}

static weft_run *base_run(uint32_t flags)
{
    weft_plan *plan = plan_of(WEFT_PATH_AUTO);
    must(weft_plan_seal(plan, 4, &golden_err));
    return run_of(plan, flags, 0);
}

static plain_step step_of(float *to)
{
    plain_step s = PLAIN_STEP_INIT;
    s.latent = latent;
    s.latent_len = s.out_len = N;
    s.out = to;
    s.text = cond;
    s.negative = uncond;
    s.text_len = s.negative_len = TEXT;
    s.timestep = 500;
    s.guidance = 4;
    return s;
}

static void fails(weft_run *run, const plain_step *s, weft_status want, const char *text)
{
    float before[N];
    memcpy(before, s->out, sizeof before);
    ck_assert_int_eq(plain_run_step(run, s, &golden_err), want);
    ck_assert_str_eq(golden_err.text, text);
    ck_assert_mem_eq(s->out, before, sizeof before); /* nothing half made, the latents neither */
}

/* ---- the caller's own numbers ---- */

START_TEST(what_the_caller_gave_is_named_as_such)
{
    weft_run *run = base_run(0);
    plain_step s = step_of(out);

    latent[17] = NAN;
    fails(run, &s, WEFT_E_ARG, "step.latent: value 17 of 256 is not finite: nan");
    s.out = latent; /* the buffer may be the same */
    fails(run, &s, WEFT_E_ARG, "step.latent: value 17 of 256 is not finite: nan");
    s.out = out;
    latent[17] = 0;
    uncond[1000] = -INFINITY;
    fails(run, &s, WEFT_E_ARG, "step.negative[0]: value 1000 of 1848 is not finite: -inf");
    uncond[1000] = 0;
    cond[0] = INFINITY;
    fails(run, &s, WEFT_E_ARG, "step.text[0]: value 0 of 1848 is not finite: inf");
    cond[0] = 0;
    must(plain_run_step(run, &s, &golden_err)); /* the run goes on */
    for (int i = 0; i < TEXT; i++) uncond[i] += 3;
    for (int i = 0; i < 36; i++) { /* predictions that are large, and far apart */
        const wf_layer *l = layer_of("unet.conv_out");
        poison((const uint8_t *)l->weight + (size_t)(i * wf_dtype_bits(l->dtype) / 8), l->dtype, 1e4f);
    }
    must(plain_run_step(run, &s, &golden_err));
    s.guidance = 3e38f;
    fails(run, &s, WEFT_E_NOT_FINITE, "what guidance makes of finite predictions is not finite");
    weft_run_free(run);
}
END_TEST

/* ---- the denoiser ---- */

START_TEST(a_weight_that_is_infinite_is_found_where_it_is)
{
    static const struct { const char *layer; bool bias; } places[] = {
        { "unet.conv_in", false }, { "unet.conv_out", true }, { "unet.mid_block.resnets.1.conv2", false },
        { "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k", false },
        { "unet.time_embedding.linear_2", false }, { "unet.conv_norm_out", true },
    };
    const wf_layer *l = layer_of(places[_i / 2].layer);
    plain_step s = step_of(out);
    char want[300];

    if (places[_i / 2].bias) poison(l->bias, WF_F32, INFINITY);
    else poison(l->weight, l->dtype, NAN);
    s.flags = _i % 2 != 0 ? WEFT_STEP_SPLIT_GUIDANCE : 0;
    weft_run *run = base_run(_i % 2 != 0 ? WEFT_RUN_FORGET_TEXT : 0);
    snprintf(want, sizeof want,
             "the prediction, unconditional half is not finite: it began in %s: a %s of the model "
             "is not finite there", l->name, places[_i / 2].bias ? "bias" : "weight");
    fails(run, &s, WEFT_E_NOT_FINITE, want);
    fails(run, &s, WEFT_E_NOT_FINITE, want); /* with what is kept from before */
    weft_run_free(run);
}
END_TEST

START_TEST(a_flag_lets_it_pass)
{
    const wf_layer *l = layer_of("unet.conv_in");
    plain_step s = step_of(out);

    poison(l->weight, l->dtype, INFINITY);
    weft_run *run = base_run(WEFT_RUN_UNCHECKED);
    must(plain_run_step(run, &s, &golden_err));
    ck_assert(!isfinite(out[0]));
    weft_run_free(run);
}
END_TEST

static weft_adapter *adapter_of(const char *file)
{
    weft_adapter *a;
    must(weft_adapter_open(data_path("adapters/%s.safetensors", file), NULL, &a, &golden_err));
    return a;
}

/* A sum that no float holds, beside the weight or inside of it; alone, beside another, or in a branch of its own. */
START_TEST(an_adapters_weight_is_at_fault)
{
    static const int32_t paths[] = { WEFT_PATH_SIDE, WEFT_PATH_MERGED };
    int kind = _i / 2; /* alone, merged with another, composite */
    plain_step s = step_of(out);
    weft_adapter *content = adapter_of("content"), *style = adapter_of("style");
    weft_plan *plan = plan_of(paths[_i % 2]);

    if (kind == 2) must(weft_plan_composite(plan, NULL, &golden_err));
    if (kind > 0) must(weft_plan_add(plan, content, 0.5f, NULL, &golden_err));
    must(weft_plan_add(plan, style, 3e38f, NULL, &golden_err));
    must(weft_plan_seal(plan, 4, &golden_err));
    weft_run *run = run_of(plan, 0, 0);
    ck_assert_int_eq(plain_run_step(run, &s, &golden_err), WEFT_E_NOT_FINITE);
    const char *where = kind == 2 ? "the prediction of branch 1, unconditional half is not finite: it began in "
                                  : "the prediction, unconditional half is not finite: it began in ";
    ck_assert_msg(strncmp(golden_err.text, where, strlen(where)) == 0, "%s", golden_err.text);
    ck_assert_msg(strstr(golden_err.text, " unet.") != NULL, "%s", golden_err.text);
    const char *what = strstr(golden_err.text, ": the numbers exceed float32: lower the weight");
    ck_assert_msg(what != NULL, "%s", golden_err.text);
    if (kind == 0 && strstr(golden_err.text, "reads") == NULL) ck_assert_ptr_nonnull(strstr(what, "adapter style"));
    weft_run_free(run);
    weft_adapter_free(content);
    weft_adapter_free(style);
}
END_TEST

/* ---- text encoders ---- */

static plain_encode prompt_of(const char *prompt, float *to, uint32_t flags)
{
    plain_encode e = PLAIN_ENCODE_INIT;
    e.prompt = prompt;
    e.text = to;
    e.text_len = TEXT;
    e.chunks = 1;
    e.flags = flags;
    return e;
}

START_TEST(a_text_encoder_is_named)
{
    static float text[TEXT];
    const wf_layer *l = layer_of("text_encoder.text_model.encoder.layers.0.mlp.fc1");
    weft_run *run = base_run(0);
    plain_encode e = prompt_of("a (red:300000000000000000000000000000000000000) circle", text,
                               WEFT_ENCODE_WEIGHTS | WEFT_ENCODE_NO_MEAN);

    ck_assert_int_eq(plain_run_encode(run, &e, &golden_err), WEFT_E_NOT_FINITE);
    ck_assert_str_eq(golden_err.text, "what the prompt's weights make of it is not finite");
    e = prompt_of("a red circle", text, 0);
    must(plain_run_encode(run, &e, &golden_err));
    poison(l->weight, l->dtype, INFINITY);
    for (int i = 0; i < 2; i++) {
        e = prompt_of("a red circle", text, i ? WEFT_ENCODE_WEIGHTS | WEFT_ENCODE_FROM_EMPTY : 0);
        ck_assert_int_eq(plain_run_encode(run, &e, &golden_err), WEFT_E_NOT_FINITE);
        ck_assert_str_eq(golden_err.text,
                         "the encoded prompt is not finite: it began in text_encoder.text_model.encoder.layers.0.mlp."
                         "fc1: a weight of the model is not finite there");
    }
    weft_run_free(run);
    run = base_run(WEFT_RUN_UNCHECKED);
    must(plain_run_encode(run, &e, &golden_err));
    weft_run_free(run);
}
END_TEST

/* ---- the VAE ---- */

/* Pixels are clamped to 0..1, so an infinity must be seen before. */
START_TEST(the_vae_is_named)
{
    weft_plan *plan = plan_of(WEFT_PATH_AUTO);
    must(weft_plan_seal(plan, 4, &golden_err));
    weft_run *run = run_of(plan, _i % 2 ? WEFT_RUN_UNCHECKED : 0, 0);
    weft_run_info info = WEFT_RUN_INFO_INIT;
    must(weft_run_info_get(run, &info, &golden_err));
    float *image = calloc(info.image_len, sizeof *image), noise[N] = { 0 };
    weft_status want = _i % 2 ? WEFT_OK : WEFT_E_NOT_FINITE, arg = _i % 2 ? WEFT_OK : WEFT_E_ARG;
    ck_assert_ptr_nonnull(image);

    latent[5] = INFINITY;
    ck_assert_int_eq(weft_run_decode(run, latent, N, image, info.image_len, &golden_err), arg);
    if (arg) ck_assert_str_eq(golden_err.text, "latent: value 5 of 256 is not finite: inf");
    latent[5] = 0;
    memset(image, 0, info.image_len * sizeof *image);
    noise[9] = NAN;
    ck_assert_int_eq(weft_run_encode_image(run, image, info.image_len, noise, N, out, N, &golden_err), arg);
    if (arg) ck_assert_str_eq(golden_err.text, "noise: value 9 of 256 is not finite: nan");
    noise[9] = 0;
    image[1] = NAN;
    ck_assert_int_eq(weft_run_encode_image(run, image, info.image_len, noise, N, out, N, &golden_err), arg);
    if (arg) ck_assert_str_eq(strchr(golden_err.text, ':'), strstr(golden_err.text, ": value 1 of"));
    image[1] = 0;
    must(weft_run_encode_image(run, image, info.image_len, noise, N, out, N, &golden_err));

    const wf_layer *l = layer_of("vae.decoder.conv_out"), *in = layer_of("vae.encoder.conv_in");
    poison(l->bias, WF_F32, INFINITY);
    poison(in->weight, in->dtype, INFINITY);
    ck_assert_int_eq(weft_run_decode(run, latent, N, image, info.image_len, &golden_err), want);
    if (want)
        ck_assert_str_eq(golden_err.text, "the decoded image is not finite: it began in vae.decoder.conv_out: a bias "
                                          "of the model is not finite there");
    for (size_t i = 0; i < info.image_len; i++) image[i] = 0.5f;
    image[0] = 1;
    ck_assert_int_eq(weft_run_encode_image(run, image, info.image_len, NULL, 0, out, N, &golden_err), want);
    if (want)
        ck_assert_str_eq(golden_err.text, "the encoded image is not finite: it began in vae.encoder.conv_in: a weight "
                                          "of the model is not finite there");
    free(image);
    weft_run_free(run);
}
END_TEST

/* Cancelling works in the second look as well. */
static int32_t stop_late(void *user, const char *what, int64_t done, int64_t total)
{
    (void)what;
    return done == total && ++*(int *)user > 3;
}

START_TEST(the_second_look_can_be_cancelled)
{
    const wf_layer *l = layer_of("unet.conv_out");
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    plain_step s = step_of(out);
    weft_plan *plan = plan_of(WEFT_PATH_AUTO);
    weft_run *run;
    int at_end = 0;

    poison(l->weight, l->dtype, INFINITY);
    must(weft_plan_seal(plan, 4, &golden_err));
    o.height = H, o.width = W;
    o.progress = stop_late;
    o.progress_user = &at_end;
    must(weft_run_create(plan, &o, &run, &golden_err));
    ck_assert_int_eq(plain_run_step(run, &s, &golden_err), WEFT_E_CANCELLED);
    weft_run_free(run);
    weft_plan_free(plan);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("finite");
    TCase *c = tcase_create("all");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 300);
    tcase_add_test(c, what_the_caller_gave_is_named_as_such);
    tcase_add_loop_test(c, a_weight_that_is_infinite_is_found_where_it_is, 0, 12);
    tcase_add_test(c, a_flag_lets_it_pass);
    tcase_add_loop_test(c, an_adapters_weight_is_at_fault, 0, 6);
    tcase_add_test(c, a_text_encoder_is_named);
    tcase_add_loop_test(c, the_vae_is_named, 0, 2);
    tcase_add_test(c, the_second_look_can_be_cancelled);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
