/* The recipes of layers: each learns, what it saves is what the network computed with, and it trains the layers that it
 * says. */
#include <stdbool.h>

#include "adapter/view.h"
#include "base/support.h"
#include "golden.h"
#include "plain.h"
#include "plan/plan.h"
#include "train/trainer_internal.h"

static const char *const recipes[] = { "lora", "dora", "loha", "lokr", "moslora", "full", "blora" };
static weft_error err;

static weft_model *open_model(const char *name)
{
    weft_model *m;
    must(weft_model_open(data_path("models/%s", name), NULL, &m, &golden_err));
    return m;
}

enum { SIDE = 160 };

/* Two pictures: a disc on another ground. */
static void add_pictures(weft_trainer *t)
{
    static uint8_t rgb[SIDE * SIDE * 3];

    for (int p = 0; p < 2; p++) {
        for (int i = 0; i < SIDE * SIDE; i++) {
            int x = i % SIDE - 80, y = i / SIDE - 70 - 10 * p;
            bool in = x * x + y * y < 2500;
            rgb[3 * i] = in ? 220 : 30;
            rgb[3 * i + 1] = in ? 40 : (uint8_t)(60 + 90 * p);
            rgb[3 * i + 2] = in ? 60 : 200;
        }
        must(weft_trainer_add_picture(t, rgb, sizeof rgb, SIDE, SIDE, "a photo of a cat", WEFT_PICTURE_INSTANCE,
                                      &golden_err));
    }
}

static weft_train_options options(const char *recipe)
{
    weft_train_options o = WEFT_TRAIN_OPTIONS_INIT;

    o.recipe = weft_recipe_from_name(recipe);
    ck_assert_int_ne(o.recipe, 0);
    o.seed = 4;
    o.threads = 2;
    o.batch = 2;
    o.rate = 2e-3;
    return o;
}

static weft_trainer *open_trainer(weft_model *m, const weft_train_options *o)
{
    weft_trainer *t;

    must(weft_trainer_create(m, o, &t, &golden_err));
    add_pictures(t);
    must(weft_trainer_prepare(t, &golden_err));
    return t;
}

static void take_steps(weft_trainer *t, int count)
{
    weft_train_step step = WEFT_TRAIN_STEP_INIT;

    for (int i = 0; i < count; i++) must(weft_trainer_step(t, &step, &golden_err));
}

/* What the network as trained so far makes of an evaluation that no step has seen. */
static float *predict(weft_trainer *t)
{
    float *out = malloc((size_t)t->o.batch * t->image * sizeof *out);

    wf_train_begin_call(t, "testing", 1);
    must(wf_train_fill_batch(t, 12345, &golden_err));
    wf_train_make(t);
    must(wf_trainer_predict(t, t->deltas, &t->batch, 0, t->batch.n, out, &golden_err));
    must(wf_train_end_call(t, WEFT_OK, &golden_err));
    return out;
}

static double loss_of(const weft_trainer *t, const float *out)
{
    double sum = 0;
    size_t n = (size_t)t->batch.n * t->image;
    for (size_t i = 0; i < n; i++) sum += pow((double)out[i] - (double)t->batch.target[i], 2);
    return sum / (double)n;
}

START_TEST(every_recipe_learns)
{
    weft_model *m = open_model("tiny-sd1");
    weft_train_options o = options(recipes[_i]);
    weft_trainer *t = open_trainer(m, &o);
    float *before = predict(t), *after;
    const char *form = strcmp(recipes[_i], "blora") == 0 ? "lora" : recipes[_i];

    for (size_t i = 0; i < t->sites; i++)
        ck_assert_str_eq(t->site[i].form->name, t->site[i].layer->kind == WEFT_LAYER_NORM ? "norm" : form);
    double first = loss_of(t, before);
    take_steps(t, 25);
    after = predict(t);
    ck_assert_msg(loss_of(t, after) < 0.995 * first, "%s: the loss went from %g to %g", recipes[_i], first,
                  loss_of(t, after));
    free(before), free(after);
    weft_trainer_free(t);
    weft_model_free(m);
}
END_TEST

/* The same evaluation by a run under a plan. */
static void check_run(weft_trainer *t, weft_model *m, weft_adapter *a, const float *wanted, const char *what, double limit)
{
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_plan *plan;
    weft_run *run;
    float *out = malloc(t->image * sizeof *out);

    must(weft_plan_create(m, NULL, &plan, &golden_err));
    if (a != NULL) must(weft_plan_add(plan, a, 1, NULL, &golden_err));
    must(weft_plan_seal(plan, 1, &golden_err));
    o.threads = 2;
    o.height = t->height;
    o.width = t->width;
    must(weft_run_create(plan, &o, &run, &golden_err));
    for (int32_t s = 0; s < t->batch.n; s++) {
        const wf_stream *text = &t->networks->stream[0];
        plain_step step = PLAIN_STEP_INIT;
        step.latent = t->batch.latent + (size_t)s * t->image;
        step.latent_len = t->image;
        step.out = out;
        step.out_len = t->image;
        step.text = t->rows[0][s];
        step.text_len = (size_t)text->tokens * (size_t)text->facts->width;
        step.tokens = text->tokens;
        step.timestep = t->batch.timestep[s];
        must(plain_run_step(run, &step, &golden_err));
        near_golden(what, out, wanted + (size_t)s * t->image, t->image, limit);
    }
    free(out);
    weft_run_free(run);
    weft_plan_free(plan);
}

START_TEST(the_adapter_is_what_was_trained)
{
    weft_model *m = open_model("tiny-sd1");
    weft_train_options o = options(recipes[_i]);
    weft_trainer *t;
    weft_adapter *a, *b;
    char dir[] = "/tmp/weft-recipe-XXXXXX", path[256];

    o.flags = strcmp(recipes[_i], "full") != 0 && strcmp(recipes[_i], "blora") != 0
        ? WEFT_TRAIN_CONV | WEFT_TRAIN_FEED : 0;
    t = open_trainer(m, &o);
    float *base = predict(t), *wanted;
    take_steps(t, 3);
    wanted = predict(t);
    ck_assert_double_gt(relative(wanted, base, t->image, NULL), 1e-3); /* it did learn something */
    must(weft_trainer_adapter(t, &a, &golden_err));
    check_run(t, m, a, wanted, recipes[_i], 1e-5);

    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/learnt.safetensors", dir);
    must(weft_trainer_save(t, path, 0, 0, &golden_err));
    must(weft_adapter_open(path, NULL, &b, &golden_err));
    check_run(t, m, b, wanted, "saved", 1e-5);
    unlink(path);
    rmdir(dir);
    free(wanted), free(base);
    weft_adapter_free(a);
    weft_adapter_free(b);
    weft_trainer_free(t);
    weft_model_free(m);
}
END_TEST

/* Cut by shapes alone: any number of threads gives the same numbers, and so does computing blocks twice. */
START_TEST(threads_change_no_bit)
{
    weft_model *m = open_model("tiny-sd1");
    weft_train_options o = options(recipes[_i]);
    float *wanted = NULL;

    for (o.threads = 1; o.threads <= 3; o.threads++) {
        o.flags = o.threads == 2 ? WEFT_TRAIN_RECOMPUTE : 0;
        weft_trainer *t = open_trainer(m, &o);
        take_steps(t, 2);
        if (wanted == NULL) {
            wanted = malloc(t->floats * sizeof *wanted);
            memcpy(wanted, t->values, t->floats * sizeof *wanted);
        }
        ck_assert(memcmp(wanted, t->values, t->floats * sizeof *wanted) == 0);
        weft_trainer_free(t);
    }
    free(wanted);
    weft_model_free(m);
}
END_TEST

/* Two steps, a checkpoint, another trainer, two steps: as four steps. */
START_TEST(a_break_changes_no_bit)
{
    weft_model *m = open_model("tiny-sd1");
    weft_train_options o = options(recipes[_i]);
    char dir[] = "/tmp/weft-recipe-XXXXXX", path[256];
    weft_trainer *whole, *broken;

    if (o.recipe == WEFT_RECIPE_FULL) o.ema = 0.9;
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/checkpoint.safetensors", dir);
    whole = open_trainer(m, &o);
    take_steps(whole, 2);
    must(weft_trainer_checkpoint(whole, path, &golden_err));
    take_steps(whole, 2);
    broken = open_trainer(m, &o);
    must(weft_trainer_resume(broken, path, &golden_err));
    take_steps(broken, 2);
    ck_assert(memcmp(whole->values, broken->values, whole->floats * sizeof(float)) == 0);
    if (whole->mean != NULL) ck_assert(memcmp(whole->mean, broken->mean, whole->floats * sizeof(float)) == 0);
    unlink(path);
    rmdir(dir);
    weft_trainer_free(whole);
    weft_trainer_free(broken);
    weft_model_free(m);
}
END_TEST

/* Memory that ends anywhere between the first allocation and the last: an error, and nothing left. */
START_TEST(without_memory_nothing_is_left)
{
    weft_model *m = open_model("tiny-sd1");
    weft_train_options o = options(recipes[_i]);
    size_t calls = 0;

    for (size_t at = 0; at == 0 || at <= calls; at += 1 + calls / 40) {
        test_memory memory;
        weft_allocator alloc = test_allocator(&memory);
        weft_trainer *t = NULL;
        weft_adapter *a = NULL;
        memory.fail_at = at; /* 0: never, which counts them */
        o.allocator = &alloc;
        weft_status st = weft_trainer_create(m, &o, &t, &err);
        if (st == WEFT_OK) st = weft_trainer_adapter(t, &a, &err);
        ck_assert_msg(st == (at == 0 ? WEFT_OK : WEFT_E_NOMEM), "%s, allocation %zu: %s", recipes[_i], at, err.text);
        weft_adapter_free(a);
        weft_trainer_free(t);
        ck_assert_uint_eq(memory.live_blocks, 0);
        if (at == 0) calls = memory.calls;
    }
    ck_assert_uint_gt(calls, 20);
    weft_model_free(m);
}
END_TEST

/* ---- which layers ---------------------------------------------------------------------------- */

static size_t parameters_of(const weft_model *m)
{
    size_t count, sum = 0;
    const wf_layer *l = wf_model_layers(m, &count);

    for (size_t i = 0; i < count; i++)
        if (l[i].component == WEFT_COMPONENT_DENOISER)
            sum += (size_t)l[i].out * (size_t)(l[i].in * l[i].kernel * l[i].kernel) + (l[i].bias != NULL ? (size_t)l[i].out : 0);
    return sum;
}

START_TEST(full_trains_every_number_of_the_unet)
{
    static const char *const models[] = { "tiny-sd1", "tiny-sdxl" };
    static const int64_t unet[] = { 204804, 211620 }; /* sum(p.numel()) by diffusers */
    weft_model *m = open_model(models[_i]);
    weft_train_options o = options("full");
    weft_trainer_info info = WEFT_TRAINER_INFO_INIT;
    weft_trainer *t;

    must(weft_trainer_create(m, &o, &t, &golden_err));
    must(weft_trainer_get_info(t, &info, &golden_err));
    ck_assert_int_eq(info.parameters, (int64_t)parameters_of(m));
    ck_assert_int_eq(info.parameters, unet[_i]);
    weft_trainer_free(t);
    weft_model_free(m);
}
END_TEST

/* Under the plan that takes content and style apart the whole of it acts: it was trained where that looks. */
START_TEST(blora_trains_where_plans_cut)
{
    static const char *const models[] = { "tiny-sd1", "tiny-sdxl" };
    static const int64_t layers[] = { 88, 32 }; /* of SDXL two transformers of two blocks */
    weft_model *m = open_model(models[_i]);
    weft_train_options o = options("blora");
    weft_trainer_info info = WEFT_TRAINER_INFO_INIT;
    char content[WF_PLACES_MAX], style[WF_PLACES_MAX];
    weft_trainer *t;

    must(weft_trainer_create(m, &o, &t, &golden_err));
    must(weft_trainer_get_info(t, &info, &golden_err));
    ck_assert_int_eq(info.layers, layers[_i]);
    ck_assert(wf_blora_places(m, content, style));
    int both = 0;
    for (size_t i = 0; i < t->sites; i++) {
        const char *name = t->site[i].layer->name;
        both |= (wf_glob_any(content, name) ? 1 : 0) | (wf_glob_any(style, name) ? 2 : 0);
        ck_assert(wf_glob_any(content, name) != wf_glob_any(style, name));
        ck_assert(t->site[i].layer->attention);
    }
    ck_assert_int_eq(both, 3);
    ck_assert_int_eq(t->o.rank, 64);
    ck_assert_double_eq(t->o.weight_decay, 1e-4);
    ck_assert(t->choice.gaussian);
    weft_trainer_free(t);
    weft_model_free(m);
}
END_TEST

START_TEST(options_change_what_is_trained)
{
    weft_model *m = open_model("tiny-sd1");
    weft_train_options o = options("lokr");
    weft_trainer_info info = WEFT_TRAINER_INFO_INIT;
    weft_trainer *t;
    int64_t wide;

    o.rank = 1;
    must(weft_trainer_create(m, &o, &t, &golden_err));
    must(weft_trainer_get_info(t, &info, &golden_err));
    wide = info.parameters;
    weft_trainer_free(t);
    o.flags = WEFT_TRAIN_BOTH;
    must(weft_trainer_create(m, &o, &t, &golden_err));
    must(weft_trainer_get_info(t, &info, &golden_err));
    ck_assert_int_lt(info.parameters, wide);
    weft_trainer_free(t);
    o.recipe = WEFT_RECIPE_LOHA; /* which has no such factors */
    ck_assert_int_eq(weft_trainer_create(m, &o, &t, &err), WEFT_E_ARG);
    ck_assert_ptr_nonnull(strstr(err.text, "BOTH"));
    o.flags = WEFT_TRAIN_EXACT_NORM;
    ck_assert_int_eq(weft_trainer_create(m, &o, &t, &err), WEFT_E_ARG);
    o.recipe = WEFT_RECIPE_DORA;
    must(weft_trainer_create(m, &o, &t, &golden_err));
    weft_trainer_free(t);
    o.recipe = WEFT_RECIPE_BLORA; /* the text encoders stay frozen */
    o.flags = WEFT_TRAIN_TEXT;
    ck_assert_int_eq(weft_trainer_create(m, &o, &t, &err), WEFT_E_ARG);
    o.flags = 0;
    o.modules = "text_encoder.*"; /* by name neither */
    ck_assert_int_eq(weft_trainer_create(m, &o, &t, &err), WEFT_E_ARG);
    ck_assert_ptr_nonnull(strstr(err.text, "text_encoder.*"));
    weft_model_free(m);
}
END_TEST

/* ---- full training, saved as a model --------------------------------------------------------- */

START_TEST(full_saves_the_model_itself)
{
    weft_model *m = open_model("tiny-sd1"), *saved;
    weft_train_options o = options("full");
    weft_trainer *t = open_trainer(m, &o);
    char dir[] = "/tmp/weft-recipe-XXXXXX", path[256], command[300];

    take_steps(t, 2);
    float *wanted = predict(t);
    ck_assert_ptr_nonnull(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/model", dir);
    must(weft_trainer_save(t, path, 0, 0, &golden_err));
    must(weft_model_open(path, NULL, &saved, &golden_err));
    check_run(t, saved, NULL, wanted, "model", 4e-3); /* its weights are stored in half precision */
    weft_model_free(saved);

    ck_assert_int_eq(weft_trainer_save(t, path, 0, 0, &err), WEFT_E_IO); /* it is there already */
    snprintf(path, sizeof path, "%s/other", dir);
    ck_assert_int_eq(weft_trainer_save(t, path, WEFT_DIALECT_KOHYA, 0, &err), WEFT_E_ARG);
    ck_assert_ptr_nonnull(strstr(err.text, "dialect"));
    ck_assert_int_eq(weft_trainer_save(t, path, 0, 1, &err), WEFT_E_ARG);
    ck_assert_ptr_nonnull(strstr(err.text, "half"));
    snprintf(path, sizeof path, "%s/a.safetensors", dir);
    ck_assert_int_eq(weft_trainer_save(t, path, WEFT_DIALECT_DIFFUSERS, 0, &err), WEFT_E_UNSUPPORTED);
    ck_assert_int_ne(access(path, F_OK), 0);
    snprintf(command, sizeof command, "rm -r %s", dir);
    ck_assert_int_eq(system(command), 0);
    free(wanted);
    weft_trainer_free(t);
    weft_model_free(m);
}
END_TEST

/* After the first step the mean is the value, after the second it keeps 2 / 11 of itself (it follows closely at first,
 * as diffusers' does); what is saved is the mean. */
START_TEST(full_saves_the_mean_where_one_is_kept)
{
    weft_model *m = open_model("tiny-sd1");
    weft_train_options o = options("full");
    weft_trainer *t;
    weft_tensors *written;

    o.ema = 0.75;
    t = open_trainer(m, &o);
    const wf_site *s = &t->site[0];
    ck_assert_str_eq(s->layer->name, "unet.time_embedding.linear_1");
    float base = s->value[0][5];
    take_steps(t, 1);
    float first = s->value[0][5];
    ck_assert(first != base);
    take_steps(t, 1);
    float mean = first + 9.0f / 11 * (s->value[0][5] - first);
    ck_assert(fabsf(mean - s->value[0][5]) > 1e-4f);
    must(wf_trainer_tensors(t, WEFT_DIALECT_KOHYA, &written, &golden_err));
    golden diff = golden_read(written, "lora_unet_time_embedding_linear_1.diff");
    ck_assert_float_eq_tol(base + diff.v[5], mean, 1e-6f);
    free(diff.v);
    weft_tensors_free(written);
    weft_trainer_free(t);
    weft_model_free(m);
}
END_TEST

/* With TEXT the text encoder's layers and norms too: each of them moves, and is in the adapter. */
START_TEST(full_trains_text_encoders_if_told)
{
    weft_model *m = open_model("tiny-sd1");
    weft_train_options o = options("full");
    weft_adapter *a;
    weft_adapter_info info = WEFT_ADAPTER_INFO_INIT;
    size_t text = 0, still = 0;

    o.flags = WEFT_TRAIN_TEXT;
    weft_trainer *t = open_trainer(m, &o);
    take_steps(t, 2);
    for (size_t i = 0; i < t->sites; i++) {
        const wf_site *s = &t->site[i];
        float *base = calloc(s->out * s->K, sizeof *base);
        if (!wf_is_text(s->layer->component)) {
            free(base);
            continue;
        }
        text++;
        wf_layer_rows(s->layer, 0, s->out, base);
        still += memcmp(base, s->value[0], s->out * s->K * sizeof *base) == 0;
        free(base);
    }
    ck_assert_uint_gt(text, 10);
    ck_assert_uint_eq(still, 0);
    must(weft_trainer_adapter(t, &a, &golden_err));
    must(weft_adapter_info_get(a, &info, &golden_err));
    ck_assert_int_eq(info.modules, (int64_t)t->sites);
    weft_adapter_free(a);
    weft_trainer_free(t);
    weft_model_free(m);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("train: recipes of layers");
    TCase *t = tcase_create("learning");

    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, every_recipe_learns, 0, (int)WF_LEN(recipes));
    tcase_add_loop_test(t, the_adapter_is_what_was_trained, 0, (int)WF_LEN(recipes));
    tcase_add_loop_test(t, threads_change_no_bit, 0, (int)WF_LEN(recipes));
    tcase_add_loop_test(t, a_break_changes_no_bit, 0, (int)WF_LEN(recipes));
    tcase_add_loop_test(t, without_memory_nothing_is_left, 0, (int)WF_LEN(recipes));
    suite_add_tcase(s, t);
    t = tcase_create("layers");
    tcase_add_loop_test(t, full_trains_every_number_of_the_unet, 0, 2);
    tcase_add_loop_test(t, blora_trains_where_plans_cut, 0, 2);
    tcase_add_test(t, options_change_what_is_trained);
    suite_add_tcase(s, t);
    t = tcase_create("full");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, full_saves_the_model_itself);
    tcase_add_test(t, full_trains_text_encoders_if_told);
    tcase_add_test(t, full_saves_the_mean_where_one_is_kept);
    suite_add_tcase(s, t);
    return run_suite(s);
}
