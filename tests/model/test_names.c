/* kohya's words for the layers of the published models, both numberings, against the complete tables. */
#include <stdio.h>
#include <stdlib.h>

#include "base/support.h"
#include "model/model.h"

typedef struct table {
    const char *file;
    wf_blocks   shape;
    size_t      rows;
} table;

static const table tables[] = {
    { "data/tables/kohya_sd15_unet.tsv", { 2, 4, { false, true, true, true } }, 391 },
    { "data/tables/kohya_sd21_unet.tsv", { 2, 4, { false, true, true, true } }, 391 },
    { "data/tables/kohya_sdxl_unet.tsv", { 2, 3, { true, true, false } }, 1050 },
};

/* Split a line into its columns, in place. */
static int split(char *line, char **column, int max)
{
    int n = 0;

    line[strcspn(line, "\n")] = '\0';
    for (char *s = line; n < max; n++) {
        column[n] = s;
        s += strcspn(s, "\t");
        if (*s == '\0') return n + 1;
        *s++ = '\0';
    }
    return n;
}

START_TEST(every_row_of_the_published_table)
{
    const table *t = &tables[_i];
    FILE        *f = fopen(test_path(t->file), "r");
    char         line[1024], *c[8], buf[256], word[256];
    size_t       rows = 0;

    ck_assert_ptr_nonnull(f);
    ck_assert_ptr_nonnull(fgets(line, sizeof line, f)); /* the titles */
    while (fgets(line, sizeof line, f) != NULL) {
        ck_assert_int_eq(split(line, c, 8), 8);
        rows++;
        ck_assert(wf_name_kohya_path("lora_unet_", c[2], buf, sizeof buf));
        ck_assert_str_eq(buf, c[0]);
        ck_assert_msg(wf_name_ldm(c[2], &t->shape, buf, sizeof buf), "no LDM name for %s", c[2]);
        ck_assert_str_eq(buf, c[3]);
        ck_assert(wf_name_kohya_path("lora_unet_", buf, word, sizeof word));
        ck_assert_str_eq(word, c[1]);
    }
    fclose(f);
    ck_assert_uint_eq(rows, t->rows);
}
END_TEST

START_TEST(every_row_of_the_text_encoders)
{
    FILE  *f = fopen(test_path("data/tables/kohya_text_encoders.tsv"), "r");
    char   line[1024], *c[6], buf[256];
    size_t rows = 0;

    ck_assert_ptr_nonnull(f);
    ck_assert_ptr_nonnull(fgets(line, sizeof line, f));
    while (fgets(line, sizeof line, f) != NULL) {
        ck_assert_int_ge(split(line, c, 6), 3);
        const char *prefix = strncmp(c[0], "lora_te_", 8) == 0    ? "lora_te_"
                             : strncmp(c[0], "lora_te1_", 9) == 0 ? "lora_te1_"
                                                                  : "lora_te2_";
        ck_assert(wf_name_kohya_path(prefix, c[2], buf, sizeof buf));
        ck_assert_str_eq(buf, c[0]);
        rows++;
    }
    fclose(f);
    ck_assert_uint_eq(rows, 645);
}
END_TEST

/* One layer per block: L = 2, so the numbers step by two. */
START_TEST(smaller_unets_count_in_their_own_steps)
{
    const wf_blocks shape = { 1, 3, { false, true, false } };
    char            buf[128];

    ck_assert(wf_name_ldm("down_blocks.1.resnets.0.conv1", &shape, buf, sizeof buf));
    ck_assert_str_eq(buf, "input_blocks.3.0.in_layers.2");
    ck_assert(wf_name_ldm("down_blocks.1.downsamplers.0.conv", &shape, buf, sizeof buf));
    ck_assert_str_eq(buf, "input_blocks.4.0.op");
    ck_assert(wf_name_ldm("up_blocks.1.upsamplers.0.conv", &shape, buf, sizeof buf));
    ck_assert_str_eq(buf, "output_blocks.3.2.conv");
    ck_assert(wf_name_ldm("up_blocks.0.upsamplers.0.conv", &shape, buf, sizeof buf));
    ck_assert_str_eq(buf, "output_blocks.1.1.conv");
}
END_TEST

START_TEST(what_has_no_ldm_name_gets_none)
{
    static const char *const none[] = {
        "", "down_blocks", "down_blocks.", "down_blocks.x.resnets.0.conv1", "down_blocks.9.resnets.0.conv1",
        "down_blocks.0.resnets.0.conv9", "down_blocks.0.resnets.conv1", "mid_block.resnets.2.conv1",
        "mid_block.attentions.1.proj_in", "up_blocks.0.downsamplers.0.conv", "text_model.encoder",
        "down_blocks.99999999999999999999.resnets.0.conv1", "up_blocks.0.resnets.99999999999.conv1",
    };
    const wf_blocks shape = { 2, 4, { false, true, true, true } };
    char            buf[128];

    for (size_t i = 0; i < WF_LEN(none); i++)
        ck_assert_msg(!wf_name_ldm(none[i], &shape, buf, sizeof buf), "%s is called %s", none[i], buf);
}
END_TEST

START_TEST(a_buffer_that_is_too_small_gets_nothing_past_its_end)
{
    const wf_blocks shape = { 2, 4, { false, true, true, true } };
    const char     *name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q";
    char            buf[128], whole[128];

    ck_assert(wf_name_ldm(name, &shape, whole, sizeof whole));
    for (size_t cap = 0; cap <= strlen(whole) + 1; cap++) {
        memset(buf, 'x', sizeof buf);
        ck_assert(wf_name_ldm(name, &shape, buf, cap) == (cap > strlen(whole)));
        ck_assert_int_eq(buf[cap], 'x');
    }
    for (size_t cap = 0; cap <= strlen(name) + 3; cap++) {
        memset(buf, 'x', sizeof buf);
        ck_assert(wf_name_kohya_path("p_", name, buf, cap) == (cap > strlen(name) + 2));
        ck_assert_int_eq(buf[cap], 'x');
    }
}
END_TEST

/* ---- on opened models ------------------------------------------------------------------------ */

static const wf_layer *layer_called(const weft_model *m, const char *name)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(m, &count);

    for (size_t i = 0; i < count; i++)
        if (strcmp(layers[i].name, name) == 0) return &layers[i];
    ck_abort_msg("no layer %s", name);
    return NULL;
}

static void check_words(const char *model, const char *const (*rows)[3], size_t count)
{
    weft_model *m = NULL;
    weft_error  err;
    char        buf[256];

    ck_assert_msg(weft_model_open(test_path(model), NULL, &m, &err) == WEFT_OK, "%s", err.text);
    for (size_t i = 0; i < count; i++) {
        const wf_layer *l = layer_called(m, rows[i][0]);
        ck_assert(wf_name_kohya(m, l, buf, sizeof buf) == (rows[i][1] != NULL));
        if (rows[i][1] != NULL) ck_assert_str_eq(buf, rows[i][1]);
        ck_assert(wf_name_kohya_ldm(m, l, buf, sizeof buf) == (rows[i][2] != NULL));
        if (rows[i][2] != NULL) ck_assert_str_eq(buf, rows[i][2]);
    }
    weft_model_free(m);
}

START_TEST(one_text_encoder_is_te)
{
    static const char *const rows[][3] = {
        { "unet.conv_in", "lora_unet_conv_in", "lora_unet_input_blocks_0_0" },
        { "unet.up_blocks.0.upsamplers.0.conv", "lora_unet_up_blocks_0_upsamplers_0_conv",
          "lora_unet_output_blocks_2_1_conv" },
        { "unet.up_blocks.1.upsamplers.0.conv", "lora_unet_up_blocks_1_upsamplers_0_conv",
          "lora_unet_output_blocks_5_2_conv" },
        { "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
          "lora_te_text_model_encoder_layers_0_self_attn_q_proj", NULL },
    };
    check_words("data/models/tiny-sd1", rows, WF_LEN(rows));
}
END_TEST

START_TEST(two_text_encoders_are_te1_and_te2)
{
    static const char *const rows[][3] = {
        { "text_encoder.text_model.encoder.layers.0.mlp.fc1", "lora_te1_text_model_encoder_layers_0_mlp_fc1", NULL },
        { "text_encoder_2.text_model.encoder.layers.1.mlp.fc2", "lora_te2_text_model_encoder_layers_1_mlp_fc2", NULL },
    };
    check_words("data/models/tiny-sdxl", rows, WF_LEN(rows));
}
END_TEST

/* cloneofsimo's numbers against the published index. Its layers stand here as the models' tables have them: in order of
 * execution, the middle before the way up, self-attention, cross-attention, feed-forward. */
START_TEST(every_number_of_cloneofsimos_index)
{
    enum { MOST = 400 };
    static char     names[MOST][256];
    static wf_layer layers[MOST];
    static int32_t  want[MOST], number[MOST];
    static const char *const begins[] = { "unet.down_blocks", "unet.mid_block", "unet.up_blocks", "text_encoder." };
    size_t           count = 0, rows = 0;

    for (size_t b = 0; b < WF_LEN(begins); b++) {
        FILE *f = fopen(test_path("data/tables/cloneofsimo_sd15_index.tsv"), "r");
        char  line[1024], *c[5];
        ck_assert_ptr_nonnull(f);
        ck_assert_ptr_nonnull(fgets(line, sizeof line, f)); /* the titles */
        while (fgets(line, sizeof line, f) != NULL) {
            ck_assert_int_eq(split(line, c, 5), 5);
            snprintf(names[count], sizeof names[count], "%s.%s", c[0], c[2]);
            if (strncmp(names[count], begins[b], strlen(begins[b])) != 0) continue;
            want[count] = atoi(c[1]);
            layers[count] = (wf_layer){ .name = names[count], .component = b == 3 };
            rows++;
            count++;
            ck_assert_uint_lt(count, MOST - 1);
        }
        fclose(f);
    }
    ck_assert_uint_eq(rows, 144 + 48);
    for (size_t i = 0; i + 4 < 144; i++) /* ff.net.0.proj runs after the cross-attention */
        if (strstr(names[i], "ff.net.0.proj") != NULL && strstr(names[i + 4], "attn2.to_out") != NULL) {
            char    moved[256];
            int32_t n = want[i];
            memcpy(moved, names[i], sizeof moved);
            for (size_t k = i; k < i + 4; k++) {
                memcpy(names[k], names[k + 1], sizeof names[k]);
                want[k] = want[k + 1];
            }
            memcpy(names[i + 4], moved, sizeof moved);
            want[i + 4] = n;
            i += 4;
        }
    snprintf(names[count], sizeof names[count], "unet.conv_out"); /* and what has no number */
    layers[count] = (wf_layer){ .name = names[count] };
    want[count++] = -1;
    wf_name_numbers(layers, count, number);
    for (size_t i = 0; i < count; i++) ck_assert_msg(number[i] == want[i], "%s: %d, not %d", names[i], number[i], want[i]);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("model: names");
    TCase *t = tcase_create("names");

    tcase_add_loop_test(t, every_row_of_the_published_table, 0, 3);
    tcase_add_test(t, every_row_of_the_text_encoders);
    tcase_add_test(t, every_number_of_cloneofsimos_index);
    tcase_add_test(t, smaller_unets_count_in_their_own_steps);
    tcase_add_test(t, what_has_no_ldm_name_gets_none);
    tcase_add_test(t, a_buffer_that_is_too_small_gets_nothing_past_its_end);
    tcase_add_test(t, one_text_encoder_is_te);
    tcase_add_test(t, two_text_encoders_are_te1_and_te2);
    suite_add_tcase(s, t);
    return run_suite(s);
}
