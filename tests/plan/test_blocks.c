/* test_blocks.c - weights by block: which layers a number is for, what presets come to, what is refused. The numbers
 * of the blocks are those of LDM, written down here by hand for tiny-sdxl, which has SDXL's 20, and tiny-sd1. */
#include "fixture.h"

static weft_model   *sdxl, *sd1;
static weft_adapter *wide, *ink;

static void setup(void)
{
    sdxl = open_model("tiny-sdxl");
    sd1 = open_model("tiny-sd1");
    wide = adapter_on(sdxl, "wide", ATTENTION | OTHERS | TEXT, 2, 0.1f, 1);
    ink = adapter_on(sd1, "ink", ATTENTION | OTHERS | TEXT, 2, 0.1f, 2);
}

static void teardown(void)
{
    weft_adapter_free(wide);
    weft_adapter_free(ink);
    weft_model_free(sdxl);
    weft_model_free(sd1);
}

/* SDXL: index into a vector of 20, by how a layer's name begins; the first that fits. */
static const struct { const char *begins; int slot; } table[] = {
    { "text_encoder", 0 },
    { "unet.conv_in", 1 },
    { "unet.down_blocks.0.resnets.0.", 2 }, { "unet.down_blocks.0.resnets.1.", 3 },
    { "unet.down_blocks.0.downsamplers.", 4 },
    { "unet.down_blocks.1.resnets.0.", 5 }, { "unet.down_blocks.1.attentions.0.", 5 },
    { "unet.down_blocks.1.resnets.1.", 6 }, { "unet.down_blocks.1.attentions.1.", 6 },
    { "unet.down_blocks.1.downsamplers.", 7 },
    { "unet.down_blocks.2.resnets.0.", 8 }, { "unet.down_blocks.2.attentions.0.", 8 },
    { "unet.down_blocks.2.resnets.1.", 9 }, { "unet.down_blocks.2.attentions.1.", 9 },
    { "unet.mid_block.", 10 },
    { "unet.up_blocks.0.resnets.0.", 11 }, { "unet.up_blocks.0.attentions.0.", 11 },
    { "unet.up_blocks.0.resnets.1.", 12 }, { "unet.up_blocks.0.attentions.1.", 12 },
    { "unet.up_blocks.0.", 13 },
    { "unet.up_blocks.1.resnets.0.", 14 }, { "unet.up_blocks.1.attentions.0.", 14 },
    { "unet.up_blocks.1.resnets.1.", 15 }, { "unet.up_blocks.1.attentions.1.", 15 },
    { "unet.up_blocks.1.", 16 },
    { "unet.up_blocks.2.resnets.0.", 17 }, { "unet.up_blocks.2.resnets.1.", 18 }, { "unet.up_blocks.2.resnets.2.", 19 },
};
static const int attention_slots[] = { 0, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16 };

static int slot_of(const char *name)
{
    for (size_t i = 0; i < WF_LEN(table); i++)
        if (strncmp(name, table[i].begins, strlen(table[i].begins)) == 0) return table[i].slot;
    return -1;
}

static weft_plan *plan_on(weft_model *m, weft_adapter *a, const char *text)
{
    weft_plan *p = new_plan(m);
    OK(weft_plan_add(p, a, 0.5f, NULL, &err));
    OK(weft_plan_set_blocks(p, 0, text, &err));
    OK(weft_plan_seal(p, 3, &err));
    return p;
}

/* Every cell of the plan is 0.5 of what its block has in the vector, and 0.5 outside of all blocks. */
static void check_sdxl(const char *text, const float want[20])
{
    size_t          count, seen[21] = { 0 };
    const wf_layer *layers = wf_model_layers(sdxl, &count);
    weft_plan      *p = plan_on(sdxl, wide, text);

    for (size_t l = 0; l < count; l++) {
        int slot = slot_of(layers[l].name);
        if (wf_plan_module(p, 0, (int32_t)l) == NULL) continue;
        ck_assert_msg(cell(p, 1, 0, (int64_t)l, 0) == 0.5f * (slot < 0 ? 1 : want[slot]), "%s: %s is %g", text,
                      layers[l].name, (double)cell(p, 1, 0, (int64_t)l, 0));
        seen[slot + 1]++;
    }
    for (int k = 0; k < 21; k++) ck_assert_msg(seen[k] > 0, "no layer in slot %d", k - 1);
    weft_plan_free(p);
}

START_TEST(a_full_vector_has_a_number_for_each_block)
{
    char  text[400] = "";
    float want[20];

    for (int k = 0; k < 20; k++) {
        want[k] = k == 7 ? -0.25f : k == 12 ? 0 : (float)(k + 1) / 4;
        snprintf(text + strlen(text), 20, "%s%g", k > 0 ? "," : "", (double)want[k]);
    }
    check_sdxl(text, want);
}
END_TEST

START_TEST(a_short_vector_leaves_blocks_without_attention_out)
{
    char  text[400] = "";
    float want[20] = { 0 };

    for (int k = 0; k < 12; k++) {
        want[attention_slots[k]] = (float)(k + 1) / 8;
        snprintf(text + strlen(text), 20, "%s %g", k > 0 ? "," : "", (double)(k + 1) / 8);
    }
    check_sdxl(text, want);
}
END_TEST

/* Blocks from IN07 to OUT02 are the deep ones: halves of the four IN and the six OUT with attention. */
static const struct { const char *name; const char *want; } presets[] = {
    { "NONE",   "0 0000000 00 0 000 000000" },
    { "ALL",    "1 1111111 11 1 111 111111" },
    { "INS",    "1 1111111 00 0 000 000000" },
    { "IND",    "1 0000000 11 0 000 000000" },
    { "INALL",  "1 1111111 11 0 000 000000" },
    { "MIDD",   "1 0000000 11 1 111 000000" },
    { "OUTD",   "1 0000000 00 0 111 000000" },
    { "OUTS",   "1 0000000 00 0 000 111111" },
    { "OUTALL", "1 0000000 00 0 111 111111" },
    { "ALL0.5", "h hhhhhhh hh h hhh hhhhhh" },
    { "BASE",   "1 0000000 00 0 000 000000" },
    { "IN04",   "0 0000100 00 0 000 000000" },
    { "M00",    "0 0000000 00 1 000 000000" },
    { "OUT0",   "0 0000000 00 0 100 000000" },
    { "IN08-OUT01", "0 0000000 01 1 110 000000" },
    { "OUTD, IN08=0.5, MID-OUT0=0.5", "1 0000000 0h h h11 000000" },
    { "0,0,0,0,0,0,0,0,0,0,0,0,OUT05=1", "0 0000000 00 0 000 001000" },
    { "down_blocks.1*=0,*up_blocks.2.resnets.?.*=0.5,text*=0", "0 1111000 11 1 111 111hhh" },
};

START_TEST(presets_and_settings_come_to_these_numbers)
{
    float want[20];
    int   n = 0;

    for (const char *c = presets[_i].want; *c != '\0'; c++)
        if (*c != ' ') want[n++] = *c == 'h' ? 0.5f : (float)(*c - '0');
    ck_assert_int_eq(n, 20);
    check_sdxl(presets[_i].name, want);
}
END_TEST

/* tiny-sd1 has attention at IN01 02 04 05 and OUT03 to OUT08, as SD1.x but for its last level. */
START_TEST(lengths_are_the_models_own)
{
    static const struct { const char *begins; const char *alone; } at[] = {
        { "unet.down_blocks.0.attentions.1.", "0,0,1,0,0,0,0,0,0,0,0,0" },
        { "unet.down_blocks.1.attentions.0.", "0,0,0,1,0,0,0,0,0,0,0,0" },
        { "unet.up_blocks.1.attentions.0.", "0,0,0,0,0,0,1,0,0,0,0,0" },
        { "unet.up_blocks.2.attentions.2.", "0,0,0,0,0,0,0,0,0,0,0,1" },
    };
    size_t          count, hits = 0;
    const wf_layer *layers = wf_model_layers(sd1, &count);

    for (size_t i = 0; i < WF_LEN(at); i++) {
        weft_plan *p = plan_on(sd1, ink, at[i].alone);
        for (size_t l = 0; l < count; l++)
            if (layers[l].attention) {
                bool here = strncmp(layers[l].name, at[i].begins, strlen(at[i].begins)) == 0;
                ck_assert_float_eq(cell(p, 0, 0, (int64_t)l, 0), here ? 0.5f : 0);
                hits += here;
            }
        weft_plan_free(p);
    }
    ck_assert_uint_eq(hits, 4 * 8);
}
END_TEST

/* On top of a method: what switch chooses, times the block. K-LoRA's choice is not changed by it. */
START_TEST(any_method_may_be_weighed_by_block)
{
    weft_plan       *p = new_plan(sd1), *q;
    weft_adapter    *clay = adapter_on(sd1, "clay", ATTENTION, 3, 0.2f, 3);
    int64_t          layer = nth_layer(sd1, ATTENTION, 0);
    char             text[4096];

    OK(weft_plan_add(p, ink, 1, NULL, &err));
    OK(weft_plan_add(p, clay, 2, NULL, &err));
    OK(weft_plan_switch(p, NULL, &err));
    OK(weft_plan_set_blocks(p, 1, "IN01=0.25", &err));
    OK(weft_plan_copy(p, &q, &err));
    OK(weft_plan_seal(q, 10, &err));
    ck_assert_float_eq(cell(q, 0, 0, layer, 0), 1);
    ck_assert_float_eq(cell(q, 5, 0, layer, 1), 0.5f);
    OK(weft_plan_text(q, text, sizeof text, NULL, &err));
    ck_assert_ptr_nonnull(strstr(text, "blocks BASE=1 IN00=1 IN01=0.25 IN02-IN08=1 MID=1 OUT00-OUT08=1\n"));
    weft_plan_adapter_info info = WEFT_PLAN_ADAPTER_INFO_INIT;
    OK(weft_plan_adapter(q, 1, &info, &err));
    ck_assert_str_eq(info.blocks, "IN01=0.25");
    OK(weft_plan_adapter(q, 0, &info, &err));
    ck_assert_str_eq(info.blocks, "");
    weft_plan_free(q);
    OK(weft_plan_set_blocks(p, 1, NULL, &err)); /* away again */
    OK(weft_plan_seal(p, 10, &err));
    ck_assert_float_eq(cell(p, 5, 0, layer, 1), 2);
    weft_plan_free(p);
    weft_adapter_free(clay);
}
END_TEST

/* A prompt that was encoded under other text weights is stale; the denoiser's blocks do not matter to it. */
START_TEST(base_is_part_of_the_texts_stamp)
{
    weft_plan *p = plan_on(sd1, ink, NULL), *q = plan_on(sd1, ink, "BASE=0.5"), *r = plan_on(sd1, ink, "MID=0.5");

    ck_assert_uint_ne(wf_plan_text_stamp(p), wf_plan_text_stamp(q));
    ck_assert_uint_eq(wf_plan_text_stamp(p), wf_plan_text_stamp(r)); /* no text is encoded another way */
    ck_assert_float_eq(cell(q, 0, 0, nth_layer(sd1, TEXT, 1), 0), 0.25f);
    ck_assert_float_eq(cell(r, 0, 0, nth_layer(sd1, TEXT, 1), 0), 0.5f);
    weft_plan_free(p);
    weft_plan_free(q);
    weft_plan_free(r);
}
END_TEST

static const struct { const char *text; weft_status status; const char *words; } bad[] = {
    { "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1", WEFT_E_ARG,
      "17 numbers; this model takes 20 (all blocks) or 12 (BASE and those with attention)" },
    { "1", WEFT_E_ARG, "1 numbers; this model takes 20" },
    { "0,1,R,1,1,1,1,1,1,1,1,1", WEFT_E_ARG, "\"R\", wanted a number" },
    { "", WEFT_E_ARG, "\"\", wanted numbers, a preset, or" },
    { "OUTSIDE", WEFT_E_ARG, "\"OUTSIDE\", wanted numbers, a preset" },
    { "IN09", WEFT_E_ARG, "\"IN09\", wanted" },
    { "OUT02-IN01", WEFT_E_ARG, "\"OUT02-IN01\", wanted" },
    { "MID=0,ALL", WEFT_E_ARG, "\"ALL\", wanted a block or a pattern = a number" },
    { "MID=", WEFT_E_ARG, "\"MID=\", wanted a block or a pattern = a number" },
    { "=1", WEFT_E_ARG, "\"=1\", wanted" },
    { "MID=nan", WEFT_E_ARG, "\"MID=nan\"" },
    { "MID=1e9", WEFT_E_ARG, "\"MID=1e9\"" },
    { "MID=1234567", WEFT_E_ARG, "\"MID=1234567\"" },
    { "IN09=1", WEFT_E_MISMATCH, "IN09 is no block of this model, and fits none of its layers" },
    { "up_blocks.7.*=1", WEFT_E_MISMATCH, "up_blocks.7.* is no block of this model" },
};

START_TEST(what_is_no_weight_by_block_is_refused)
{
    weft_plan *p = new_plan(sdxl);

    OK(weft_plan_add(p, wide, 1, NULL, &err));
    OK(weft_plan_set_blocks(p, 0, "MID=0.5", &err));
    FAILS(bad[_i].status, bad[_i].words, weft_plan_set_blocks(p, 0, bad[_i].text, &err));
    ck_assert_ptr_null(strchr(err.text, '\n'));
    OK(weft_plan_seal(p, 2, &err)); /* what was set before stays */
    FAILS(WEFT_E_STATE, "sealed", weft_plan_set_blocks(p, 0, "ALL", &err));
    weft_plan_adapter_info info = WEFT_PLAN_ADAPTER_INFO_INIT;
    OK(weft_plan_adapter(p, 0, &info, &err));
    ck_assert_str_eq(info.blocks, "MID=0.5");
    weft_plan_free(p);
}
END_TEST

/* Texts of pieces put together at random: taken or refused in one line, and a plan either way. */
START_TEST(any_text_is_taken_or_refused)
{
    static const char *const pieces[] = { "IN", "OUT", "MID", "BASE", "ALL", "INS", "0", "1", "07", "99", ".5", "-", "=", ",",
                                          ",,", "*", "?", " ", "up_blocks.1", "unet.", "R", "\xff", "\n", "1,1,1,1,1,1,1,1,1,1,1,1" };
    weft_plan *p = new_plan(sdxl);
    uint32_t   state = 1;
    int        taken = 0;

    OK(weft_plan_add(p, wide, 1, NULL, &err));
    for (int i = 0; i < 3000; i++) {
        char text[512] = "";
        int  n = (int)((state = state * 1664525 + 1013904223) >> 24) % 9;
        for (int k = 0; k < n; k++) {
            state = state * 1664525 + 1013904223;
            strcat(text, pieces[(state >> 16) % WF_LEN(pieces)]);
        }
        weft_status st = weft_plan_set_blocks(p, 0, text, &err);
        ck_assert(st == WEFT_OK || st == WEFT_E_ARG || st == WEFT_E_MISMATCH);
        ck_assert(st == WEFT_OK || strchr(err.text, '\n') == NULL);
        taken += st == WEFT_OK;
    }
    ck_assert_int_gt(taken, 20);
    ck_assert_int_lt(taken, 1500);
    OK(weft_plan_seal(p, 2, &err));
    weft_plan_free(p);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("weights by block");
    TCase *t = tcase_create("blocks");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 300);
    tcase_add_test(t, a_full_vector_has_a_number_for_each_block);
    tcase_add_test(t, a_short_vector_leaves_blocks_without_attention_out);
    tcase_add_loop_test(t, presets_and_settings_come_to_these_numbers, 0, (int)WF_LEN(presets));
    tcase_add_test(t, lengths_are_the_models_own);
    tcase_add_test(t, any_method_may_be_weighed_by_block);
    tcase_add_test(t, any_text_is_taken_or_refused);
    tcase_add_test(t, base_is_part_of_the_texts_stamp);
    tcase_add_loop_test(t, what_is_no_weight_by_block_is_refused, 0, (int)WF_LEN(bad));
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
