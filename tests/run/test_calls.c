/* What a run answers between its steps: to callers from the future, from a forked child, with other plans, with
 * sizes at the edge, and on models that lack a part. */
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

#include "golden.h"
#include "plain.h"
#include "run/run_internal.h"

enum { H = 6, W = 8, N = 4 * H * W, TEXT = 77 * 24 };

static weft_model *model;
static weft_adapter *content, *style;
static float latent[N], cond[TEXT], uncond[TEXT];

static void setup(void)
{
    weft_noise *noise;
    must(weft_model_open(data_path("models/tiny-sd1"), NULL, &model, &golden_err));
    must(weft_adapter_open(data_path("adapters/content.safetensors"), NULL, &content, &golden_err));
    must(weft_adapter_open(data_path("adapters/style.safetensors"), NULL, &style, &golden_err));
    must(weft_noise_create(7, NULL, &noise, &golden_err));
    must(weft_noise_normal(noise, latent, N, &golden_err));
    must(weft_noise_normal(noise, cond, TEXT, &golden_err));
    must(weft_noise_normal(noise, uncond, TEXT, &golden_err));
    weft_noise_free(noise);
}

static void teardown(void)
{
    weft_model_free(model);
    weft_adapter_free(content);
    weft_adapter_free(style);
}

enum { BASE, MERGE, SWITCH, COMPOSITE, KLORA, METHODS };

static weft_plan *plan_of(weft_model *m, int method)
{
    weft_plan *plan;
    must(weft_plan_create(m, NULL, &plan, &golden_err));
    if (method != BASE) must(weft_plan_add(plan, content, 0.8f, NULL, &golden_err));
    if (method != BASE) must(weft_plan_add(plan, style, 0.6f, NULL, &golden_err));
    if (method == SWITCH) must(weft_plan_switch(plan, NULL, &golden_err));
    if (method == COMPOSITE) must(weft_plan_composite(plan, NULL, &golden_err));
    if (method == KLORA) must(weft_plan_klora(plan, NULL, &golden_err));
    must(weft_plan_seal(plan, 10, &golden_err));
    return plan;
}

static weft_run_options options_of(int32_t h, int32_t w)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    o.threads = 2;
    o.height = h;
    o.width = w;
    return o;
}

static weft_run *run_of(weft_plan *plan)
{
    weft_run_options o = options_of(H, W);
    weft_run *run;
    must(weft_run_create(plan, &o, &run, &golden_err));
    return run;
}

static plain_step step_of(float *out, int32_t call)
{
    plain_step s = PLAIN_STEP_INIT;
    s.latent = latent;
    s.latent_len = s.out_len = N;
    s.out = out;
    s.text = cond;
    s.negative = uncond;
    s.text_len = s.negative_len = TEXT;
    s.timestep = 500;
    s.guidance = 4;
    s.call = call;
    return s;
}

static void take_step(weft_run *run, float *out, int32_t call)
{
    plain_step s = step_of(out, call);
    must(plain_run_step(run, &s, &golden_err));
}

START_TEST(reserved_fields_are_zero)
{
    weft_plan *plan = plan_of(model, MERGE);
    weft_run *run = run_of(plan);
    weft_step s = WEFT_STEP_INIT;
    s.reserved0 = 1;
    ck_assert_int_eq(weft_run_step(run, &s, &golden_err), WEFT_E_UNSUPPORTED);
    ck_assert_str_eq(golden_err.text, "weft_step: reserved0 is 1, must be zero");
    weft_run_free(run);
    weft_plan_free(plan);
}
END_TEST

START_TEST(a_child_moves_no_run)
{
    weft_plan *plan = plan_of(model, MERGE), *other = plan_of(model, SWITCH);
    weft_run *run = run_of(plan);
    pid_t pid = fork();
    if (pid == 0) _exit(weft_run_set_plan(run, other, NULL) == WEFT_E_STATE ? 0 : 1);
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    weft_run_free(run);
    weft_plan_free(plan);
    weft_plan_free(other);
}
END_TEST

/* A run that has been everywhere computes what a new one does. */
START_TEST(a_run_moves_between_any_plans)
{
    weft_plan *plans[METHODS];
    float fresh[METHODS][N], out[N];
    weft_model *twin;
    weft_plan *foreign, *open;
    for (int m = 0; m < METHODS; m++) {
        plans[m] = plan_of(model, m);
        weft_run *run = run_of(plans[m]);
        take_step(run, fresh[m], 6);
        weft_run_free(run);
    }
    weft_run *run = run_of(plans[BASE]);
    for (int from = 0; from < METHODS; from++)
        for (int to = 0; to < METHODS; to++) {
            must(weft_run_set_plan(run, plans[from], &golden_err));
            must(weft_run_set_plan(run, plans[to], &golden_err));
            take_step(run, out, 6);
            ck_assert_msg(memcmp(out, fresh[to], sizeof out) == 0, "from %d to %d", from, to);
        }
    must(weft_model_open(data_path("models/tiny-sd1"), NULL, &twin, &golden_err));
    foreign = plan_of(twin, BASE);
    ck_assert_int_eq(weft_run_set_plan(run, foreign, &golden_err), WEFT_E_MISMATCH);
    must(weft_plan_create(model, NULL, &open, &golden_err));
    ck_assert_int_eq(weft_run_set_plan(run, open, &golden_err), WEFT_E_STATE);
    ck_assert_int_eq(weft_run_set_plan(run, NULL, &golden_err), WEFT_E_ARG);
    take_step(run, out, 6); /* and is where it was */
    ck_assert(memcmp(out, fresh[METHODS - 1], sizeof out) == 0);
    weft_run_free(run);
    for (int m = 0; m < METHODS; m++) weft_plan_free(plans[m]);
    weft_plan_free(open);
    weft_plan_free(foreign);
    weft_model_free(twin);
}
END_TEST

typedef struct count { int64_t calls, last, total; } count;

static int32_t on_progress(void *user, const char *what, int64_t done, int64_t total)
{
    count *c = user;
    (void)what;
    ck_assert_int_eq(done, ++c->calls); /* one at a time, never the same twice */
    c->last = done;
    c->total = total;
    return 0;
}

static void reached_the_end(count *c)
{
    ck_assert_int_gt(c->calls, 0);
    ck_assert_int_eq(c->last, c->total);
    *c = (count){ 0, 0, 0 };
}

START_TEST(progress_ends_at_its_total)
{
    static const char *const models[] = { "models/tiny-sd1", "models/tiny-sd2", "models/tiny-sdxl" };
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        weft_model *m;
        weft_model_info info = WEFT_MODEL_INFO_INIT;
        weft_run_options o = options_of(H, W);
        plain_encode e = PLAIN_ENCODE_INIT;
        weft_run *run;
        count c = { 0, 0, 0 };
        must(weft_model_open(data_path(models[i]), NULL, &m, &golden_err));
        must(weft_model_info_get(m, &info, &golden_err));
        weft_plan *plan;
        must(weft_plan_create(m, NULL, &plan, &golden_err));
        must(weft_plan_seal(plan, 1, &golden_err));
        o.progress = on_progress;
        o.progress_user = &c;
        must(weft_run_create(plan, &o, &run, &golden_err));
        plain_shape shape = plain_shape_of(m);
        size_t text_len = (size_t)shape.tokens * (size_t)shape.dim;
        size_t image_len = 3 * H * W * (size_t)info.image_factor * (size_t)info.image_factor;
        float *text = calloc(text_len, sizeof *text), *pooled = calloc((size_t)shape.pooled + 1, sizeof *pooled);
        float *image = calloc(image_len, sizeof *image), out[N];
        e.prompt = "a cat";
        e.text = text;
        e.text_len = text_len;
        e.pooled = shape.pooled > 0 ? pooled : NULL;
        e.pooled_len = (size_t)shape.pooled;
        must(plain_run_encode(run, &e, &golden_err));
        reached_the_end(&c);
        plain_step s = step_of(out, 0);
        s.text = s.negative = text;
        s.text_len = s.negative_len = text_len;
        s.pooled = s.negative_pooled = e.pooled;
        s.pooled_len = s.negative_pooled_len = e.pooled_len;
        for (uint32_t flags = 0; flags <= WEFT_STEP_SPLIT_GUIDANCE; flags += WEFT_STEP_SPLIT_GUIDANCE) {
            s.flags = flags;
            must(plain_run_step(run, &s, &golden_err));
            reached_the_end(&c);
        }
        must(weft_run_decode(run, latent, N, image, image_len, &golden_err));
        reached_the_end(&c);
        free(text), free(pooled), free(image);
        weft_run_free(run);
        weft_plan_free(plan);
        weft_model_free(m);
    }
}
END_TEST

START_TEST(the_smallest_run_works)
{
    float x[4] = { 1, -1, 0.5f, 0 }, out[4], halves[2][4], image[3 * 64], text[TEXT];
    weft_plan *plan = plan_of(model, COMPOSITE);
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    weft_run_options o = options_of(1, 1);
    weft_run *run;
    must(weft_model_info_get(model, &info, &golden_err));
    ck_assert_int_le(info.image_factor, 8);
    o.text_tokens = 1;
    must(weft_run_create(plan, &o, &run, &golden_err));
    plain_step s = step_of(out, 0);
    s.latent = x;
    s.latent_len = s.out_len = 4;
    ck_assert_int_eq(plain_run_step(run, &s, &golden_err), WEFT_E_ARG); /* 77 tokens do not fit */
    s.tokens = 1;
    s.text_len = s.negative_len = 24;
    must(plain_run_step(run, &s, &golden_err));
    for (int h = 0; h < 2; h++) { /* each half of guidance by itself */
        plain_step one = s;
        one.text = h == 0 ? uncond : cond;
        one.negative = NULL;
        one.out = halves[h];
        must(plain_run_step(run, &one, &golden_err));
    }
    for (int i = 0; i < 4; i++) {
        float u = halves[0][i], c = halves[1][i];
        ck_assert(isfinite(out[i]) && u != c && out[i] == u + 4 * (c - u));
    }
    size_t pixels = 3 * (size_t)(info.image_factor * info.image_factor);
    must(weft_run_decode(run, x, 4, image, pixels, &golden_err));
    for (size_t i = 0; i < pixels; i++) ck_assert(image[i] >= 0 && image[i] <= 1);

    plain_encode e = PLAIN_ENCODE_INIT;
    e.prompt = "";
    e.text = text;
    e.text_len = TEXT;
    ck_assert_int_eq(plain_run_encode(run, &e, &golden_err), WEFT_E_ARG); /* nor does a chunk */
    ck_assert_ptr_nonnull(strstr(golden_err.text, "text_tokens"));
    e.chunks = -1;
    ck_assert_int_eq(plain_run_encode(run, &e, &golden_err), WEFT_E_ARG);
    ck_assert_str_eq(golden_err.text, "encode.text[0].tokens is -77, the run has room for 1: set "
                                      "weft_run_options.text_tokens");
    weft_run_free(run);
    weft_plan_free(plan);
}
END_TEST

/* A defect of ours must not become one of the caller's memory: the two walks are made to differ by hand. */
START_TEST(too_little_memory_is_an_error)
{
    float out[N];
    weft_plan *plan = plan_of(model, MERGE);
    for (int i = 0; i < 2; i++) {
        weft_run *run = run_of(plan);
        plain_step s = step_of(out, 0);
        if (i == 0) run->exec.arena.size = 4096;
        else run->exec.scratch_need = 1024;
        ck_assert_int_eq(plain_run_step(run, &s, &golden_err), WEFT_E_INTERNAL);
        ck_assert_str_eq(golden_err.text, "step needed more memory than was counted");
        weft_run_free(run);
    }
    weft_plan_free(plan);
}
END_TEST

static wf_exec dry_exec(const weft_run *run)
{
    return (wf_exec){ .k = run->exec.k, .products = run->exec.products, .dry = true, .arena = { .dry = true }, .deltas = run->memory.phase[0].deltas,
                      .branch = run->memory.branch, .slots = wf_plan_phase(run->memory.plan, 0)->slots };
}

/* Memory is counted by walking without any: each of the three walks must take, to the byte, what the real one takes.
 * Pictures of few pixels and of more, shorter and longer than their texts. */
START_TEST(a_dry_walk_takes_what_a_real_one_takes)
{
    static const int32_t sizes[][3] = { { 1, 1, 77 }, { 5, 3, 154 }, { 9, 17, 77 } };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int method = BASE; method <= COMPOSITE; method += COMPOSITE) {
            int32_t h = sizes[i][0], w = sizes[i][1], tokens = sizes[i][2];
            size_t n = 4 * (size_t)h * (size_t)w, text_len = 24 * (size_t)tokens;
            weft_plan *plan = plan_of(model, method);
            weft_run_options o = options_of(h, w);
            weft_run *run;
            o.text_tokens = tokens;
            o.flags = WEFT_RUN_FORGET_TEXT; /* the scratch serves texts that are not kept */
            must(weft_run_create(plan, &o, &run, &golden_err));
            size_t factor = (size_t)wf_vae_factor(wf_run_networks(&run->memory)->vae), image_len = n / 4 * 3 * factor * factor;
            float *x = calloc(2 * n, sizeof *x), *text = calloc(text_len, sizeof *text);
            float *image = calloc(image_len, sizeof *image);

            plain_step s = step_of(x + n, 0);
            s.latent = x;
            s.latent_len = s.out_len = n;
            s.text = s.negative = text;
            s.text_len = s.negative_len = text_len;
            s.tokens = tokens;
            wf_exec dry = dry_exec(run);
            wf_step_forward(run, &dry, &run->memory,
                            &(wf_call){ .step = &(weft_step)WEFT_STEP_INIT, .guided = true,
                                        .evaluations = wf_plan_evaluations(plan),
                                        .text = { { .tokens = tokens } } });
            run->exec.arena.peak = 0;
            must(plain_run_step(run, &s, &golden_err));
            ck_assert_uint_eq(run->exec.arena.peak, dry.arena.peak);

            plain_encode e = PLAIN_ENCODE_INIT;
            e.prompt = "a cat";
            e.text = text;
            e.text_len = text_len;
            e.chunks = tokens / 77;
            dry = dry_exec(run);
            dry.deltas = run->memory.text.deltas;
            dry.slots = wf_plan_text_sheet(plan)->slots;
            wf_encode_forward(run, &dry, &(wf_encoding){ .encoder = { { .chunks = e.chunks } } });
            run->exec.arena.peak = 0;
            must(plain_run_encode(run, &e, &golden_err));
            ck_assert_uint_eq(run->exec.arena.peak, dry.arena.peak);

            dry = dry_exec(run);
            wf_decode_forward(run, &dry, NULL, NULL);
            run->exec.arena.peak = 0;
            must(weft_run_decode(run, x, n, image, image_len, &golden_err));
            ck_assert_uint_eq(run->exec.arena.peak, dry.arena.peak);
            free(x), free(text), free(image);
            weft_run_free(run);
            weft_plan_free(plan);
        }
}
END_TEST

/* A folder with the UNet alone is a model: it steps, and says what it lacks. */
START_TEST(a_model_may_be_a_unet_alone)
{
    char folder[] = "/tmp/weft-unet-XXXXXX", link[64], here[2048] = "", unet[4096];
    const char *data = data_path("models/tiny-sd1/unet");
    float out[N], text[TEXT], image[3 * N];
    int32_t ids[77] = { 0 }, tokens;
    weft_model *m;
    weft_model_info info = WEFT_MODEL_INFO_INIT;
    plain_encode e = PLAIN_ENCODE_INIT;
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(link, sizeof link, "%s/unet", folder);
    if (data[0] != '/') ck_assert_ptr_nonnull(getcwd(here, sizeof here - 1));
    snprintf(unet, sizeof unet, "%s%s%s", here, data[0] != '/' ? "/" : "", data);
    ck_assert_int_eq(symlink(unet, link), 0);
    weft_status st = weft_model_open(folder, NULL, &m, &golden_err);
    unlink(link);
    rmdir(folder);
    must(st);
    must(weft_model_info_get(m, &info, &golden_err));
    ck_assert_int_eq(info.text_encoders, 0);
    ck_assert_int_eq(info.has_vae, 0);
    ck_assert_int_eq(info.has_tokenizer, 0);
    ck_assert_int_eq(plain_shape_of(m).tokens, 77);
    ck_assert_int_eq(weft_model_tokenize(m, WEFT_COMPONENT_TEXT_1, "a", ids, 77, NULL, &golden_err), WEFT_E_ARG);
    ck_assert_int_eq(weft_model_prompt_size(m, "a", &tokens, NULL, &golden_err), WEFT_E_STATE);

    weft_plan *plan;
    must(weft_plan_create(m, NULL, &plan, &golden_err));
    must(weft_plan_seal(plan, 1, &golden_err));
    weft_run *run = run_of(plan);
    take_step(run, out, 0);
    weft_run_free(run);

    /* Nothing but a step asks for memory here, and the prompt is larger than the picture. */
    weft_run_options o = options_of(1, 1);
    weft_run_info few = WEFT_RUN_INFO_INIT, many = WEFT_RUN_INFO_INIT;
    plain_step s = step_of(out, 0);
    s.latent_len = s.out_len = 4;
    o.text_tokens = 154;
    must(weft_run_create(plan, &o, &run, &golden_err));
    must(weft_run_info_get(run, &many, &golden_err));
    weft_run_free(run);
    o.text_tokens = 77;
    must(weft_run_create(plan, &o, &run, &golden_err));
    must(weft_run_info_get(run, &few, &golden_err));
    must(plain_run_step(run, &s, &golden_err));
    ck_assert_double_gt(many.step_flops, few.step_flops); /* tokens are attended to */

    e.prompt = "a cat";
    e.text = text;
    e.text_len = TEXT;
    ck_assert_int_eq(plain_run_encode(run, &e, &golden_err), WEFT_E_STATE);
    ck_assert_int_eq(plain_run_encode_ids(run, ids, NULL, 77, &e, &golden_err), WEFT_E_STATE);
    ck_assert_int_eq(weft_run_decode(run, latent, 4, image, 3 * N, &golden_err), WEFT_E_STATE);
    weft_run_free(run);
    weft_plan_free(plan);
    weft_model_free(m);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("run");
    TCase *c = tcase_create("calls");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 300);
    tcase_add_test(c, reserved_fields_are_zero);
    tcase_add_test(c, a_child_moves_no_run);
    tcase_add_test(c, a_run_moves_between_any_plans);
    tcase_add_test(c, progress_ends_at_its_total);
    tcase_add_test(c, the_smallest_run_works);
    tcase_add_test(c, too_little_memory_is_an_error);
    tcase_add_test(c, a_dry_walk_takes_what_a_real_one_takes);
    tcase_add_test(c, a_model_may_be_a_unet_alone);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
