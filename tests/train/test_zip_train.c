/* ZipLoRA trained: the form's numbers as worked out by hand, both losses and their gradients against
 * PyTorch's autograd (make_train_words.py), and the file, which a plan merges with as the trainer
 * did. */
#include <unistd.h>

#include "../base/support.h"
#include "by_hand.h"

#include "plain.h"
#include "plan/plan.h"
#include "train/zip.h"

static weft_model   *model;
static weft_adapter *adapter[2]; /* content, style */

static void open_all(void)
{
    model = open_tiny("tiny-sd1");
    must(weft_adapter_open(data_path("golden/train_zip_content.safetensors"), NULL, &adapter[0],
                           &golden_err));
    must(weft_adapter_open(data_path("golden/train_zip_style.safetensors"), NULL, &adapter[1],
                           &golden_err));
}

static void close_all(void)
{
    weft_adapter_free(adapter[0]), weft_adapter_free(adapter[1]);
    weft_model_free(model);
}

/* methods.md 0.2 and 6: m_c = [1 .5 0 2], m_s = [.25 1 1 0]; with the gradient G of the whole matrix
 * taken as 1 everywhere, that of m is the sum of each column of the adapter's own product:
 * D1's [3.5 7 0 -3.5], D2's [-2.5 2.5 0 5]. */
START_TEST(columns_as_worked_out)
{
    static float A1[] = { 1, 2, 0, -1, 0, 1, 3, 1 }, A2[] = { 2, 0, 1, 0, -1, 1, 0, 2 };
    static float up1[] = { 1, 0.5f, 2, 0, -1, 1 }, up2[] = { 0, 1, -1, 1, 1, 0.5f };
    static const float merged[] = { 0.75f, 2, 0, -2, 0.75f, 1, 1, -3, 1.375f, 3, -1, -2 };
    static const float sums[2][4] = { { 3.5f, 7, 0, -3.5f }, { -2.5f, 2.5f, 0, 5 } };
    const wf_zip_layer z = { { 2, 2 }, { A1, A2 }, { up1, up2 } };
    wf_layer           l = { .kind = WEFT_LAYER_LINEAR, .out = 3, .in = 4, .kernel = 1 };
    float              value[2][4] = { { 1, 0.5f, 0, 2 }, { 0.25f, 1, 1, 0 } }, grad[2][4] = { { 0 } };
    float              down[16], up[12], g_down[16] = { 0 };
    wf_site            s = { .layer = &l, .form = &wf_form_zip, .out = 3, .K = 4, .given = &z,
                             .down = down, .up = up, .g_down = g_down };

    ck_assert(wf_form_zip.shape(&s, NULL));
    ck_assert_int_eq(s.rank, 4);
    ck_assert_int_eq(s.tensors, 2);
    for (int i = 0; i < 2; i++) s.value[i] = value[i], s.grad[i] = grad[i];
    wf_form_zip.make(&s, NULL);
    for (size_t o = 0; o < 3; o++)
        for (size_t k = 0; k < 4; k++) {
            float sum = 0;
            for (size_t r = 0; r < 4; r++) sum += up[r * 3 + o] * down[r * 4 + k];
            ck_assert_float_eq_tol(sum, merged[o * 4 + k], 1e-6f);
        }
    for (size_t r = 0; r < 4; r++) /* G = 1: the gradient of down is the sum over outputs of up */
        for (size_t k = 0; k < 4; k++)
            for (size_t o = 0; o < 3; o++) g_down[r * 4 + k] += up[r * 3 + o];
    wf_form_zip.pull(&s, NULL);
    for (int i = 0; i < 2; i++)
        for (size_t k = 0; k < 4; k++) ck_assert_float_eq_tol(grad[i][k], sums[i][k], 1e-6f);
}
END_TEST

static weft_train_options zip_options(bool code)
{
    weft_train_options o = small_options(model, WEFT_RECIPE_ZIPLORA);
    o.content = adapter[0];
    o.style = adapter[1];
    if (code) o.flags = WEFT_TRAIN_ZIP_CODE;
    return o;
}

static const char *const captions[] = { "a photo of a cat", "a house in the rain" };

static weft_trainer *zip_trainer(const weft_train_options *o)
{
    weft_trainer *t = new_trainer(model, o);
    add_picture(t, captions[0], WEFT_PICTURE_INSTANCE, 1);
    add_picture(t, captions[1], WEFT_PICTURE_CLASS, 2);
    return t;
}

/* from (in, taps) as files have it, to (taps, in). */
static void from_file(const wf_site *s, const float *v, float *to)
{
    size_t taps = wf_site_taps(s), in = s->K / taps;
    for (size_t k = 0; k < s->K; k++) to[k] = v[k % in * taps + k / in];
}

START_TEST(coefficients_against_autograd)
{
    static const char *const parts[] = { "content", "style" };
    weft_tensors            *g = golden_open("train_words.safetensors");
    weft_train_options       o = zip_options(_i % 2 == 1);
    weft_trainer            *t;
    char                     key[16];
    size_t                   all = 0, at = 0;
    float                   *got, *want;

    snprintf(key, sizeof key, "zip%d/", _i % 2);
    if (_i >= 2) o.flags |= WEFT_TRAIN_RECOMPUTE;
    t = zip_trainer(&o);
    fill_by_hand(t, g, key, captions);
    for (size_t i = 0; i < t->sites; i++)
        for (int p = 0; p < 2; p++) {
            wf_site *s = &t->site[i];
            int32_t  k = wf_zip_tensor(s, p);
            if (k < 0) continue;
            golden m = golden_read(g, "%sm/%s/%s", key, parts[p], s->layer->name);
            ck_assert_uint_eq(m.n, s->K);
            from_file(s, m.v, s->value[k]);
            all += s->K;
            free(m.v);
        }
    wf_losses l = evaluate_by_hand(t);
    golden    loss = golden_read(g, "%sloss", key), third = golden_read(g, "%sthird", key);
    ck_assert_double_eq_tol(l.loss / loss.v[0], 1, 1e-5);
    ck_assert_double_eq_tol(l.other / third.v[0], 1, 1e-5);

    got = malloc(all * sizeof *got), want = malloc(all * sizeof *want);
    for (size_t i = 0; i < t->sites; i++)
        for (int p = 0; p < 2; p++) {
            const wf_site *s = &t->site[i];
            int32_t        k = wf_zip_tensor(s, p);
            if (k < 0) continue;
            golden m = golden_read(g, "%sg/%s/%s", key, parts[p], s->layer->name);
            from_file(s, m.v, want + at);
            memcpy(got + at, s->grad[k], s->K * sizeof *got);
            near_golden(s->layer->name, got + at, want + at, s->K, 3e-3); /* some are near 0 */
            at += s->K;
            free(m.v);
        }
    near_golden("all", got, want, all, 1e-4);
    free(got), free(want), free(loss.v), free(third.v);
    weft_trainer_free(t);
    weft_tensors_free(g);
}
END_TEST

/* The prediction of a plan with both adapters under a file of coefficients, or with one adapter. */
static void predict_by_plan(const wf_batch *b, size_t image, weft_adapter *merged,
                            weft_tensors *coefficients, float *out)
{
    weft_zip_options z = WEFT_ZIP_OPTIONS_INIT;
    weft_run_options ro = WEFT_RUN_OPTIONS_INIT;
    weft_plan       *p;
    weft_run        *r;
    plain_encode     e = PLAIN_ENCODE_INIT;
    plain_step       step = PLAIN_STEP_INIT;
    float            text[77 * 24];

    must(weft_plan_create(model, NULL, &p, &golden_err));
    z.coefficients = coefficients;
    if (merged != NULL) must(weft_plan_add(p, merged, 1, NULL, &golden_err));
    for (int i = 0; i < 2 && merged == NULL; i++)
        must(weft_plan_add(p, adapter[i], 1, NULL, &golden_err));
    if (merged == NULL) must(weft_plan_zip(p, &z, &golden_err));
    must(weft_plan_seal(p, 1, &golden_err));
    ro.width = ro.height = 8;
    must(weft_run_create(p, &ro, &r, &golden_err));
    e.prompt = captions[0], e.chunks = 1;
    e.text = text, e.text_len = sizeof text / sizeof *text;
    must(plain_run_encode(r, &e, &golden_err));
    step.latent = b->latent, step.latent_len = image;
    step.text = text, step.text_len = e.text_len;
    step.timestep = b->timestep[0];
    step.out = out, step.out_len = image;
    must(plain_run_step(r, &step, &golden_err));
    weft_run_free(r);
    weft_plan_free(p);
}

/* What the trainer predicts of the batch's first picture with the coefficients as they are. */
static void predict_by_trainer(weft_trainer *t, float *out)
{
    weft_status st;

    wf_train_begin_call(t, "a test", 1000000);
    wf_train_make(t);
    st = wf_trainer_predict(t, t->deltas, &t->batch, 0, 1, out, &golden_err);
    must(wf_train_end_call(t, st, &golden_err));
}

/* Trained for some steps: both terms fall towards what each adapter does alone, the file brings a
 * plan to what the trainer predicts, and so does the merged adapter. */
START_TEST(the_file_merges_as_the_trainer_did)
{
    weft_train_options o = zip_options(false);
    weft_train_step    done = WEFT_TRAIN_STEP_INIT;
    weft_trainer      *t;
    weft_tensors      *file, *g = golden_open("train_words.safetensors");
    weft_adapter      *merged, *reread;
    char               path[64], pairs[64];
    double             first = 0, last = 0;

    snprintf(path, sizeof path, "zip-%d.safetensors", (int)getpid());
    snprintf(pairs, sizeof pairs, "zip-merged-%d.safetensors", (int)getpid());
    o.rate = 0.02;
    t = zip_trainer(&o);
    for (int i = 0; i < 12; i++) {
        must(weft_trainer_step(t, &done, &golden_err));
        if (i < 3) first += done.other_loss;
        if (i >= 9) last += done.other_loss;
    }
    ck_assert_double_lt(last, first);
    must(weft_trainer_save(t, path, 0, 0, &golden_err));
    must(weft_trainer_save(t, pairs, WEFT_DIALECT_KOHYA, 0, &golden_err));
    must(weft_trainer_adapter(t, &merged, &golden_err));
    must(weft_tensors_open(path, NULL, &file, &golden_err));
    ck_assert_str_eq(weft_tensors_metadata(file, "weft.zip.content"), "train_zip_content");
    ck_assert_str_eq(weft_tensors_metadata(file, "weft.zip.style"), "train_zip_style");
    must(weft_adapter_open(pairs, NULL, &reread, &golden_err));

    fill_by_hand(t, g, "zip0/", captions);
    float *own = malloc(t->image * sizeof *own), *plan = malloc(t->image * sizeof *plan);
    predict_by_trainer(t, own);
    predict_by_plan(&t->batch, t->image, NULL, file, plan);
    near_golden("coefficients", plan, own, t->image, 1e-5);
    predict_by_plan(&t->batch, t->image, merged, NULL, plan);
    near_golden("merged", plan, own, t->image, 1e-5);
    predict_by_plan(&t->batch, t->image, reread, NULL, plan);
    near_golden("merged, from its file", plan, own, t->image, 1e-5);
    free(own), free(plan);
    unlink(path), unlink(pairs);
    weft_adapter_free(merged), weft_adapter_free(reread);
    weft_tensors_free(file), weft_tensors_free(g);
    weft_trainer_free(t);
}
END_TEST

/* What adapters have in the text encoder acts while captions are encoded, as it does in a plan. */
START_TEST(text_encoders_parts_act_as_they_stand)
{
    weft_train_options o = zip_options(false);
    weft_train_step    done = WEFT_TRAIN_STEP_INIT;
    weft_adapter      *text, *content = adapter[0];
    weft_tensors      *file, *g = golden_open("train_words.safetensors");
    char               path[64];

    snprintf(path, sizeof path, "zip-text-%d.safetensors", (int)getpid());
    must(weft_adapter_open(data_path("adapters/sd1_kohya.safetensors"), NULL, &text, &golden_err));
    o.content = adapter[0] = text;
    weft_trainer *t = zip_trainer(&o);
    must(weft_trainer_step(t, &done, &golden_err));
    must(weft_trainer_save(t, path, 0, 0, &golden_err));
    must(weft_tensors_open(path, NULL, &file, &golden_err));
    fill_by_hand(t, g, "zip0/", captions);
    float *own = malloc(t->image * sizeof *own), *plan = malloc(t->image * sizeof *plan);
    predict_by_trainer(t, own);
    predict_by_plan(&t->batch, t->image, NULL, file, plan);
    near_golden("with text", plan, own, t->image, 1e-5);
    free(own), free(plan);
    unlink(path);
    weft_trainer_free(t);
    weft_tensors_free(file), weft_tensors_free(g);
    weft_adapter_free(text);
    adapter[0] = content;
}
END_TEST

static float *trained_on(int32_t threads, size_t *n)
{
    weft_train_options o = zip_options(false);
    weft_train_step    done = WEFT_TRAIN_STEP_INIT;

    o.threads = threads;
    weft_trainer *t = zip_trainer(&o);
    for (int i = 0; i < 2; i++) must(weft_trainer_step(t, &done, &golden_err));
    float *v = malloc(t->floats * sizeof *v);
    memcpy(v, t->values, t->floats * sizeof *v);
    *n = t->floats;
    weft_trainer_free(t);
    return v;
}

START_TEST(any_number_of_threads_gives_the_same_bits)
{
    size_t n, m;
    float *one = trained_on(1, &n), *three = trained_on(3, &m);

    ck_assert_uint_eq(n, m);
    ck_assert_mem_eq(one, three, n * sizeof *one);
    free(one), free(three);
}
END_TEST

START_TEST(a_break_changes_nothing)
{
    weft_train_options o = zip_options(true);
    weft_train_step    done = WEFT_TRAIN_STEP_INIT;
    weft_trainer      *t[2];
    char               path[64];

    snprintf(path, sizeof path, "zip-break-%d.safetensors", (int)getpid());
    for (int k = 0; k < 2; k++) {
        t[k] = zip_trainer(&o);
        if (k == 1) must(weft_trainer_resume(t[1], path, &golden_err));
        for (int i = k; i < 2; i++) {
            if (k == 0 && i == 1) must(weft_trainer_checkpoint(t[0], path, &golden_err));
            must(weft_trainer_step(t[k], &done, &golden_err));
        }
    }
    ck_assert_mem_eq(t[0]->values, t[1]->values, t[0]->floats * sizeof(float));
    weft_trainer_free(t[0]), weft_trainer_free(t[1]);
    unlink(path);
}
END_TEST

START_TEST(memory_may_run_out)
{
    test_memory        m;
    weft_allocator     alloc = test_allocator(&m);
    weft_train_options o = zip_options(false);
    weft_status        st = WEFT_E_NOMEM;
    size_t             n = 1;

    o.allocator = &alloc;
    o.threads = 1;
    for (; st == WEFT_E_NOMEM; n++) {
        weft_trainer *t;
        m.calls = 0;
        m.fail_at = n;
        st = weft_trainer_create(model, &o, &t, &golden_err);
        ck_assert_msg(st == WEFT_OK || st == WEFT_E_NOMEM, "%s", golden_err.text);
        weft_trainer_free(t);
        ck_assert_uint_eq(m.live_blocks, 0);
        ck_assert_uint_lt(n, 10000);
    }
    must(st);
    ck_assert_uint_gt(n, 20);
}
END_TEST

/* Below 0 the third term has no weight: it is told, and neither minimised nor, with the sign of the
 * number, maximised. At the beginning nothing else of the loss depends on it. */
START_TEST(without_a_third_term)
{
    weft_train_options o = zip_options(false);
    weft_train_step    with = WEFT_TRAIN_STEP_INIT, without = WEFT_TRAIN_STEP_INIT;

    for (int i = 0; i < 2; i++) {
        o.similarity = i == 0 ? 0.01 : -1;
        weft_trainer *t = new_trainer(model, &o);
        add_picture(t, captions[0], WEFT_PICTURE_INSTANCE, 1);
        add_picture(t, captions[0], WEFT_PICTURE_CLASS, 2);
        must(weft_trainer_step(t, i == 0 ? &with : &without, &golden_err));
        weft_trainer_free(t);
    }
    ck_assert_double_gt(with.other_loss, 0);
    ck_assert_double_eq(with.other_loss, without.other_loss);
    ck_assert_double_eq_tol(with.loss - without.loss, 0.01 * with.other_loss, 1e-9 * with.loss);
}
END_TEST

START_TEST(what_ziplora_refuses)
{
    weft_train_options o = zip_options(false);
    weft_trainer      *t;
    weft_adapter      *loha;

    o.style = NULL;
    ck_assert_int_eq(weft_trainer_create(model, &o, &t, &golden_err), WEFT_E_ARG);
    ck_assert_str_eq(golden_err.text, "train: style is NULL: ziplora takes two adapters");
    must(weft_adapter_open(data_path("families/lyco_loha.safetensors"), NULL, &loha, &golden_err));
    o.style = loha;
    ck_assert_int_eq(weft_trainer_create(model, &o, &t, &golden_err), WEFT_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(golden_err.text,
                                 "ziplora takes pairs of factors, and this is none"));
    weft_adapter_free(loha);
    o = zip_options(false);
    o.min_snr = 5;
    ck_assert_int_eq(weft_trainer_create(model, &o, &t, &golden_err), WEFT_E_ARG);
    ck_assert_ptr_nonnull(strstr(golden_err.text, "train: min_snr weighs"));
    o.min_snr = -1; /* none */
    o.prior_weight = 0.5;
    ck_assert_int_eq(weft_trainer_create(model, &o, &t, &golden_err), WEFT_E_ARG);
    ck_assert_ptr_nonnull(strstr(golden_err.text, "train: prior_weight weighs"));
    o.prior_weight = 0;
    t = new_trainer(model, &o);
    add_picture(t, captions[0], WEFT_PICTURE_INSTANCE, 1);
    ck_assert_int_eq(weft_trainer_prepare(t, &golden_err), WEFT_E_STATE);
    weft_trainer_free(t);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("zip_train");
    TCase *c = tcase_create("zip_train");
    tcase_add_checked_fixture(c, open_all, close_all);
    tcase_set_timeout(c, 60);
    tcase_add_test(c, columns_as_worked_out);
    tcase_add_test(c, without_a_third_term);
    tcase_add_loop_test(c, coefficients_against_autograd, 0, 4);
    tcase_add_test(c, the_file_merges_as_the_trainer_did);
    tcase_add_test(c, text_encoders_parts_act_as_they_stand);
    tcase_add_test(c, any_number_of_threads_gives_the_same_bits);
    tcase_add_test(c, a_break_changes_nothing);
    tcase_add_test(c, memory_may_run_out);
    tcase_add_test(c, what_ziplora_refuses);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
