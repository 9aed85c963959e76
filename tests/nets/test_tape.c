/* A whole UNet under a tape: pairs beside many of its layers, or few.
 *
 * Segments, threads and turned weights change nothing: the first two no bit, the third nothing but the order of sums.
 * The gradient is that of the loss: along a direction it is the difference quotient, as far as floats tell. (Against
 * autograd it is compared element by element in test_autograd.c.) Afterwards every gradient of the arena is zero. */
#include <check.h>
#include <math.h>

#include "nets/learner.h"
#include "plain.h"

static const char *const models[] = { "tiny-sd1", "tiny-sd2", "tiny-sdxl", "tiny-refiner" };

static bool all(const wf_layer *l) { (void)l; return true; }
static bool attention(const wf_layer *l) { return l->attention; }
static bool convolutions(const wf_layer *l) { return l->kernel == 3 || strstr(l->name, "time") != NULL; }
static bool last(const wf_layer *l) { return strstr(l->name, "up_blocks.") != NULL && l->attention; }
static bool (*const choices[])(const wf_layer *) = { all, attention, convolutions, last };

static weft_error err;

static weft_model *open_model(int i)
{
    weft_model *model;
    ck_assert_msg(weft_model_open(data_path("models/%s", models[i]), NULL, &model, &err) == WEFT_OK, "%s", err.text);
    return model;
}

static bool all_zero(const float *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != 0.0f) return false;
    return true;
}

static void step(learner *l)
{
    ck_assert(learner_step(l));
    ck_assert(!l->tape.failed && !l->tape.unsupported && !l->e.arena.overflow);
    ck_assert_uint_le(l->e.arena.peak, l->bytes);
    ck_assert_msg(all_zero(l->tape.grads, l->bytes / sizeof(float)), "gradients of the arena are left");
}

static learner_options options(int choice)
{
    return (learner_options){ .picks = choices[choice], .rank = 3, .n = 2, .h = 8, .w = 6, .tokens = 5, .threads = 1,
                              .turned = true, .text = choice % 2 == 0, .per_layer = choice < 2 };
}

/* 4 models x 4 choices */
START_TEST(segments_and_threads_change_no_bit)
{
    weft_model *model = open_model(_i / 4);
    learner_options o = options(_i % 4);
    learner a, b;
    size_t whole = 0;

    learner_open(&a, model, &o);
    step(&a);
    whole = a.bytes;
    ck_assert(!all_zero(a.gradient, a.numbers) && all_zero(a.text_gradient, a.texts) == !o.text);
    for (int way = 1; way < 4; way++) {
        o.threads = 1 + way % 3;
        o.segments = way % 2 == 1;
        learner_open(&b, model, &o);
        step(&b);
        ck_assert(memcmp(a.out, b.out, a.outs * sizeof(float)) == 0);
        ck_assert(memcmp(a.gradient, b.gradient, a.numbers * sizeof(float)) == 0);
        ck_assert(memcmp(a.text_gradient, b.text_gradient, a.texts * sizeof(float)) == 0);
        ck_assert(o.segments ? b.bytes < whole : b.bytes == whole);
        ck_assert(b.e.flops == a.e.flops && b.e.side_flops == a.e.side_flops);
        step(&b); /* nothing is left of the first: the gradients double */
        for (size_t i = 0; i < a.numbers; i++) ck_assert(b.gradient[i] == 2 * a.gradient[i]);
        learner_close(&b);
    }
    learner_close(&a);
    weft_model_free(model);
}
END_TEST

/* Out of the network without a tape comes the same, but for GEGLU's rounding, which is a layer's own there. */
START_TEST(a_tape_changes_nothing_of_the_result)
{
    weft_model *model = open_model(_i / 4);
    learner_options o = options(_i % 4);
    learner l;
    float *none[8];
    double top = 0, worst = 0;

    learner_open(&l, model, &o);
    step(&l);
    l.e.arena.used = 0;
    l.e.tape = NULL;
    float *out = learner_forward(&l, none);
    ck_assert(!l.e.stopped);
    for (size_t i = 0; i < l.outs; i++) {
        top = fmax(top, fabs(out[i]));
        worst = fmax(worst, fabs(out[i] - l.out[i]));
    }
    ck_assert_msg(top > 0 && worst <= 2e-6 * top, "off by %g of %g", worst, top);
    learner_close(&l);
    weft_model_free(model);
}
END_TEST

START_TEST(without_turned_weights_sums_agree)
{
    weft_model *model = open_model(_i);
    learner_options o = options(0);
    learner a, b;
    double top = 0, worst = 0;

    learner_open(&a, model, &o);
    step(&a);
    o.turned = false;
    learner_open(&b, model, &o);
    step(&b);
    for (size_t i = 0; i < a.numbers; i++) {
        top = fmax(top, fabs(a.gradient[i]));
        worst = fmax(worst, fabs(a.gradient[i] - b.gradient[i]));
    }
    ck_assert_msg(worst <= 1e-5 * top, "off by %g of %g", worst, top);
    learner_close(&a), learner_close(&b);
    weft_model_free(model);
}
END_TEST

/* (L(v + d) - L(v - d)) / 2 against the gradient times d, d along the gradient's signs; the same for the text. */
START_TEST(the_gradient_is_that_of_the_loss)
{
    weft_model *model = open_model(_i / 4);
    learner_options o = options(_i % 4);
    learner l;
    const float size = 2e-4f;

    learner_open(&l, model, &o);
    step(&l);
    float *g = malloc(l.numbers * sizeof *g), *gt = malloc(l.texts * sizeof *gt);
    double want = 0, want_text = 0, plus, minus;
    memcpy(g, l.gradient, l.numbers * sizeof *g);
    memcpy(gt, l.text_gradient, l.texts * sizeof *gt);
    for (size_t i = 0; i < l.numbers; i++) want += (double)size * fabs(g[i]);
    for (size_t i = 0; i < l.texts; i++) want_text += (double)size * fabs(gt[i]);

    for (size_t i = 0; i < l.numbers; i++) l.values[i] += g[i] > 0 ? size : -size;
    step(&l), plus = learner_loss(&l);
    for (size_t i = 0; i < l.numbers; i++) l.values[i] -= 2 * (g[i] > 0 ? size : -size);
    step(&l), minus = learner_loss(&l);
    ck_assert_msg(fabs((plus - minus) / 2 - want) < 0.01 * want, "%s %d: %g is not %g", models[_i / 4], _i % 4,
                  (plus - minus) / 2, want);
    for (size_t i = 0; i < l.texts && o.text; i++) l.text[i] += gt[i] > 0 ? size : -size;
    step(&l), plus = learner_loss(&l);
    for (size_t i = 0; i < l.texts && o.text; i++) l.text[i] -= 2 * (gt[i] > 0 ? size : -size);
    step(&l), minus = learner_loss(&l);
    ck_assert_msg(fabs((plus - minus) / 2 - want_text) <= 0.02 * want_text, "%s %d, text: %g is not %g", models[_i / 4],
                  _i % 4, (plus - minus) / 2, want_text);
    free(g), free(gt);
    learner_close(&l);
    weft_model_free(model);
}
END_TEST

static bool stop_at(void *user) { return --*(int *)user == 0; }

/* Wherever it is stopped, on the way there or back, it stops; and the next step is as if nothing had been. */
START_TEST(it_can_be_stopped_at_every_layer)
{
    weft_model *model = open_model(0);
    learner_options o = options(1);
    learner l;
    int layers = 1 << 30, left = layers;

    o.segments = _i;
    learner_open(&l, model, &o);
    l.e.stop = stop_at;
    l.e.stop_user = &left;
    step(&l);
    layers -= left;
    size_t count, of = 0;
    const wf_layer *layer = wf_model_layers(model, &count);
    for (size_t i = 0; i < count; i++)
        of += layer[i].component == WEFT_COMPONENT_DENOISER && layer[i].kind != WEFT_LAYER_NORM;
    ck_assert_uint_gt(2 * (size_t)layers, (_i ? 5 : 3) * of); /* there, again, and most of them back */
    float *g = malloc(l.numbers * sizeof *g);
    memcpy(g, l.gradient, l.numbers * sizeof *g);
    for (int at = 1; at <= layers; at += 1 + layers / 23) {
        left = at;
        ck_assert(!learner_step(&l));
        ck_assert_int_eq(left, 0);
        memset(l.tape.grads, 0, l.bytes);
        memset(l.gradient, 0, l.numbers * sizeof *g);
        left = 1 << 30;
        step(&l);
        ck_assert(memcmp(g, l.gradient, l.numbers * sizeof *g) == 0);
    }
    free(g);
    learner_close(&l);
    weft_model_free(model);
}
END_TEST

/* What a run may hang beside a network and has no way back. */
START_TEST(what_has_no_way_back_is_refused)
{
    weft_model *model = open_model(0);
    learner_options o = options(1);
    wf_kept kept = { .size = 0 };
    wf_align align = { .group = 1 };
    wf_deep deep = { .each = 0 };
    wf_locate locate = { .count = 0 };
    learner l;

    learner_open(&l, model, &o);
    if (_i == 0) l.e.kept = &kept;
    if (_i == 1) l.e.align = &align;
    if (_i == 2) l.e.deep = &deep;
    if (_i == 3) l.e.locate = &locate;
    ck_assert(!learner_step(&l));
    ck_assert(l.tape.unsupported);
    learner_close(&l);
    weft_model_free(model);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("a network under a tape");
    TCase *c = tcase_create("unet");
    tcase_set_timeout(c, 240);
    tcase_add_loop_test(c, segments_and_threads_change_no_bit, 0, 16);
    tcase_add_loop_test(c, a_tape_changes_nothing_of_the_result, 0, 16);
    tcase_add_loop_test(c, without_turned_weights_sums_agree, 0, 4);
    tcase_add_loop_test(c, the_gradient_is_that_of_the_loss, 0, 16);
    tcase_add_loop_test(c, it_can_be_stopped_at_every_layer, 0, 2);
    tcase_add_loop_test(c, what_has_no_way_back_is_refused, 0, 4);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
