/* test_blora.c - B-LoRA: who acts in which block of tiny-sdxl, whose blocks are numbered as SDXL's, and of tiny-sd1. */
#include "fixture.h"

static weft_model   *sdxl, *sd1;
static weft_adapter *whole, *other, *pair, *small;

/* An adapter on the attentions of the two blocks alone, as B-LoRA's program writes it. */
static weft_adapter *two_blocks(const char *name)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(sdxl, &count);
    maker          *m = make(sdxl);

    for (size_t l = 0; l < count; l++)
        if (layers[l].attention && (strstr(layers[l].name, "up_blocks.0.attentions.0.") != NULL ||
                                    strstr(layers[l].name, "up_blocks.0.attentions.1.") != NULL))
            random_module(m, (int64_t)l, 2, 0, 0.2f, 9);
    return finish(m, name);
}

static void setup(void)
{
    sdxl = open_model("tiny-sdxl");
    sd1 = open_model("tiny-sd1");
    whole = adapter_on(sdxl, "whole", ATTENTION | OTHERS | TEXT, 2, 0.1f, 1);
    other = adapter_on(sdxl, "other", ATTENTION | OTHERS | TEXT, 3, 0.2f, 2);
    pair = two_blocks("pair");
    small = adapter_on(sd1, "small", ATTENTION, 2, 0.1f, 3);
}

static void teardown(void)
{
    weft_adapter_free(whole), weft_adapter_free(other), weft_adapter_free(pair), weft_adapter_free(small);
    weft_model_free(sdxl), weft_model_free(sd1);
}

static weft_plan *plan_on(weft_model *m, weft_adapter *a, weft_adapter *b, const weft_blora_options *o)
{
    weft_plan *p = new_plan(m);
    OK(weft_plan_add(p, a, 0.5f, NULL, &err));
    if (b != NULL) OK(weft_plan_add(p, b, 0.75f, NULL, &err));
    OK(weft_plan_blora(p, o, &err));
    OK(weft_plan_seal(p, 3, &err));
    return p;
}

/* Layers at which adapter a has `want`; elsewhere it has nothing. `in` stands in the names of these layers. */
static int acts_only(const weft_plan *p, int32_t a, const char *in, float want)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(p->model, &count);
    int             n = 0;

    for (size_t l = 0; l < count; l++) {
        bool here = strncmp(layers[l].name, in, strlen(in)) == 0 && wf_plan_module(p, a, (int32_t)l) != NULL;
        ck_assert_msg(cell(p, 1, 0, (int64_t)l, a) == (here ? want : 0), "%s: %g", layers[l].name,
                      (double)cell(p, 1, 0, (int64_t)l, a));
        n += here;
    }
    return n;
}

/* Content in attention 0, style in attention 1, and nothing of either anywhere else: the text encoders too. */
START_TEST(content_and_style_have_a_block_each)
{
    weft_plan *p = plan_on(sdxl, whole, other, NULL);
    int        n = acts_only(p, 0, "unet.up_blocks.0.attentions.0.", 0.5f);

    ck_assert_int_ge(n, 16); /* two transformer blocks of eight projections, and what else a whole LoRA has */
    ck_assert_int_eq(acts_only(p, 1, "unet.up_blocks.0.attentions.1.", 0.75f), n);
    ck_assert_int_eq((int)info_of(p).touched_layers, 2 * n);
    ck_assert_str_eq(phase_of(p, 0).method, "blora");
    ck_assert_int_eq(phase_of(p, 0).rows, 1);
    weft_plan_free(p);
}
END_TEST

/* By role, not by order; and with the content alone the other block is the base's. */
START_TEST(roles_decide)
{
    weft_add_options o = WEFT_ADD_OPTIONS_INIT;
    weft_plan       *p = new_plan(sdxl);

    o.role = WEFT_ROLE_STYLE;
    OK(weft_plan_add(p, whole, 0.5f, &o, &err));
    OK(weft_plan_add(p, other, 0.75f, NULL, &err)); /* what is left */
    OK(weft_plan_blora(p, NULL, &err));
    OK(weft_plan_seal(p, 2, &err));
    ck_assert_int_gt(acts_only(p, 0, "unet.up_blocks.0.attentions.1.", 0.5f), 0);
    ck_assert_int_gt(acts_only(p, 1, "unet.up_blocks.0.attentions.0.", 0.75f), 0);
    weft_plan_free(p);

    p = new_plan(sdxl);
    o.role = WEFT_ROLE_CONTENT;
    OK(weft_plan_add(p, pair, 1, &o, &err));
    OK(weft_plan_blora(p, NULL, &err));
    OK(weft_plan_seal(p, 2, &err));
    ck_assert_int_eq(acts_only(p, 0, "unet.up_blocks.0.attentions.0.", 1), 16);
    weft_plan_free(p);
}
END_TEST

/* One file in both roles, and one file without a role: all that a B-LoRA file has, 16 + 16 projections here and 80 + 80
 * in SDXL. */
START_TEST(both_parts_of_one_file_are_the_file)
{
    weft_plan *p = new_plan(sdxl), *q, *r;
    size_t     count;

    (void)wf_model_layers(sdxl, &count);
    OK(weft_plan_add(p, pair, 0.5f, NULL, &err)); /* merge: the file as it is */
    OK(weft_plan_seal(p, 3, &err));
    q = plan_on(sdxl, pair, NULL, NULL);
    r = plan_on(sdxl, pair, pair, NULL);
    ck_assert_int_eq((int)info_of(p).touched_layers, 32);
    ck_assert_int_eq((int)info_of(q).touched_layers, 32);
    ck_assert_int_eq((int)info_of(r).touched_layers, 32);
    for (size_t l = 0; l < count; l++) {
        bool style = cell(r, 0, 0, (int64_t)l, 1) != 0;
        ck_assert_float_eq(cell(p, 0, 0, (int64_t)l, 0), cell(q, 0, 0, (int64_t)l, 0));
        ck_assert_float_eq(cell(p, 0, 0, (int64_t)l, 0),
                           cell(r, 0, 0, (int64_t)l, 0) + (style ? 0.5f : 0));
    }
    weft_plan_free(p), weft_plan_free(q), weft_plan_free(r);
}
END_TEST

/* The default blocks hold 80 projections of attention each in SDXL itself, of 560. */
START_TEST(sdxl_has_eighty_projections_in_each_block)
{
    static const char *const last[] = { ".to_q.weight", ".to_k.weight", ".to_v.weight", ".to_out.0.weight" };
    FILE *f = fopen(test_path("data/tables/sdxl_unet.tsv"), "r");
    char  line[1024];
    int   n[2] = { 0, 0 }, all = 0;

    ck_assert_ptr_nonnull(f);
    while (fgets(line, sizeof line, f) != NULL) {
        char *name = strtok(line, "\t");
        bool  projection = false;
        for (int k = 0; k < 4; k++) {
            size_t e = strlen(last[k]), len = strlen(name);
            projection = projection || (len > e && strcmp(name + len - e, last[k]) == 0);
        }
        if (!projection) continue;
        all++;
        n[0] += strncmp(name, "up_blocks.0.attentions.0.", 25) == 0;
        n[1] += strncmp(name, "up_blocks.0.attentions.1.", 25) == 0;
    }
    fclose(f);
    ck_assert_int_eq(n[0], 80);
    ck_assert_int_eq(n[1], 80);
    ck_assert_int_eq(all, 560);
}
END_TEST

START_TEST(the_authors_alpha_is_squared)
{
    weft_blora_options o = WEFT_BLORA_OPTIONS_INIT;
    weft_plan         *p;

    o.flags = WEFT_BLORA_SQUARED;
    p = plan_on(sdxl, whole, other, &o);
    ck_assert_int_gt(acts_only(p, 0, "unet.up_blocks.0.attentions.0.", 0.25f), 0);
    ck_assert_int_gt(acts_only(p, 1, "unet.up_blocks.0.attentions.1.", 0.5625f), 0);
    weft_plan_free(p);
}
END_TEST

/* tiny-sd1 has attention on two of three levels: the finer is style, the other one and the middle content. Other layers
 * may be named. */
START_TEST(other_models_are_cut_by_resolution)
{
    weft_blora_options o = WEFT_BLORA_OPTIONS_INIT;
    weft_plan         *p = plan_on(sd1, small, small, NULL);
    char               text[8192];

    for (int n = 0; nth_layer(sd1, ATTENTION, n) >= 0; n++) {
        int64_t     l = nth_layer(sd1, ATTENTION, n);
        const char *name = wf_model_layers(sd1, &(size_t){ 0 })[l].name;
        bool        style = strstr(name, "unet.down_blocks.0.") == name || strstr(name, "unet.up_blocks.2.") == name;
        ck_assert_float_eq(cell(p, 0, 0, l, 0), style ? 0 : 0.5f);
        ck_assert_float_eq(cell(p, 0, 0, l, 1), style ? 0.75f : 0);
    }
    OK(weft_plan_text(p, text, sizeof text, NULL, &err));
    ck_assert_ptr_nonnull(strstr(text, "  content    from unet.down_blocks.1.*,unet.up_blocks.1.*,unet.mid_block.*\n"
                                       "  style      from unet.down_blocks.0.*,unet.up_blocks.2.*\n"));
    ck_assert_ptr_nonnull(strstr(text, "  A  0.5 at every call, content, at 48 layers of the UNet\n"));
    weft_plan_free(p);
    char content[] = "unet.down_blocks.1.*";
    o.content = content;
    o.style = "unet.up_blocks.2.*";
    p = new_plan(sd1);
    OK(weft_plan_add(p, small, 0.5f, NULL, &err));
    OK(weft_plan_add(p, small, 0.75f, NULL, &err));
    OK(weft_plan_blora(p, &o, &err));
    content[0] = 'x'; /* it was copied */
    OK(weft_plan_seal(p, 2, &err));
    ck_assert_int_eq(acts_only(p, 0, "unet.down_blocks.1.", 0.5f), 16);
    ck_assert_int_eq(acts_only(p, 1, "unet.up_blocks.2.", 0.75f), 24);
    weft_plan_free(p);
}
END_TEST

START_TEST(what_is_no_pair_of_blocks_is_refused)
{
    weft_blora_options o = WEFT_BLORA_OPTIONS_INIT;
    weft_add_options   add = WEFT_ADD_OPTIONS_INIT;
    weft_plan         *p = new_plan(sdxl);
    char               long_one[2000];

    memset(long_one, '*', sizeof long_one);
    long_one[sizeof long_one - 1] = '\0';
    o.style = "";
    FAILS(WEFT_E_ARG, "style is empty", weft_plan_blora(p, &o, &err));
    o.style = long_one;
    FAILS(WEFT_E_ARG, "style is 1999 bytes long", weft_plan_blora(p, &o, &err));
    o.style = NULL;
    o.flags = 8;
    FAILS(WEFT_E_UNSUPPORTED, "flags", weft_plan_blora(p, &o, &err));
    OK(weft_plan_blora(p, NULL, &err));
    FAILS(WEFT_E_UNSUPPORTED, "needs an adapter of content, of style, or one of each", weft_plan_seal(p, 2, &err));
    add.exclude = "unet.up_blocks.0.attentions.1.*";
    OK(weft_plan_add(p, whole, 1, NULL, &err));
    OK(weft_plan_add(p, other, 1, &add, &err));
    FAILS(WEFT_E_MISMATCH, "adapter other has nothing in unet.up_blocks.0.attentions.1.*", weft_plan_seal(p, 2, &err));
    OK(weft_plan_add(p, pair, 1, NULL, &err));
    FAILS(WEFT_E_UNSUPPORTED, "adapter whole of 3 has no role: content or style", weft_plan_seal(p, 2, &err));
    weft_plan_free(p);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("B-LoRA");
    TCase *t = tcase_create("blora");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, content_and_style_have_a_block_each);
    tcase_add_test(t, roles_decide);
    tcase_add_test(t, both_parts_of_one_file_are_the_file);
    tcase_add_test(t, sdxl_has_eighty_projections_in_each_block);
    tcase_add_test(t, the_authors_alpha_is_squared);
    tcase_add_test(t, other_models_are_cut_by_resolution);
    tcase_add_test(t, what_is_no_pair_of_blocks_is_refused);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
