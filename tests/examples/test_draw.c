/* What the examples draw: labels against their drawings, a table against the one in the docs, and
 * tables of all sizes. */
#include "../../examples/draw/draw.h"
#include "base/support.h"
#include "golden.h"

/* ---- labels ---- */

#define W 40
#define H 12


static void picture_of(uint8_t *rgb, char out[H][W + 1])
{
    for (int y = 0; y < H; y++) {
        for (int x = 0; x < W; x++) out[y][x] = rgb[(y * W + x) * 3] == 0x12 ? '#' : '.';
        out[y][W] = '\0';
    }
}

/* "1" from the drawing, at (2, 1), then the gap and "-". */
START_TEST(text_is_drawn_where_it_should)
{
    static const char *const want[] = {
        "........................................", "....#...................................",
        "...##...................................", "....#...................................",
        "....#...#####...........................", "....#...................................",
        "....#...................................", "...###..................................",
        "........................................",
    };
    uint8_t rgb[W * H * 3] = { 0 };
    char    got[H][W + 1];

    ck_assert_int_eq(draw_text(rgb, sizeof rgb, W, H, 2, 1, 1, 0x123456, "1-"), 11);
    picture_of(rgb, got);
    for (size_t y = 0; y < WF_LEN(want); y++) ck_assert_str_eq(got[y], want[y]);
    ck_assert_uint_eq(rgb[(1 * W + 4) * 3 + 1], 0x34);
    ck_assert_uint_eq(rgb[(1 * W + 4) * 3 + 2], 0x56);
}
END_TEST

static int count_set(const uint8_t *rgb, size_t pixels)
{
    int n = 0;

    for (size_t i = 0; i < pixels; i++) n += rgb[3 * i] != 0;
    return n;
}

/* The box has 20 pixels; each magnified one becomes scale * scale. */
START_TEST(what_is_not_ascii_is_a_box)
{
    static const char *const texts[] = { "\xc3\xa9", "\xff", "\x01", "\xf0\x9f\x98\x80" };
    static uint8_t rgb[64 * 64 * 3];

    for (size_t i = 0; i < WF_LEN(texts); i++)
        for (int scale = 1; scale <= 3; scale++) {
            memset(rgb, 0, sizeof rgb);
            ck_assert_int_eq(draw_text(rgb, sizeof rgb, 64, 64, 0, 0, scale, 0xffffff, texts[i]),
                             5 * scale);
            ck_assert_int_eq(count_set(rgb, 64 * 64), 20 * scale * scale);
        }
}
END_TEST

/* The image lies in a block of exactly its size: the sanitizers see a pixel outside. */
START_TEST(what_falls_outside_is_cut)
{
    static const int32_t places[] = { INT32_MIN, -1000, -5, -3, 0, 3, 9, 10, 1000, INT32_MAX };
    static const int32_t scales[] = { INT32_MIN, 0, 1, 2, 7, 1000, INT32_MAX };

    for (size_t i = 0; i < WF_LEN(places); i++)
        for (size_t j = 0; j < WF_LEN(places); j++)
            for (size_t k = 0; k < WF_LEN(scales); k++) {
                uint8_t *rgb = malloc(10 * 9 * 3);
                ck_assert_int_gt(draw_text(rgb, 10 * 9 * 3, 10, 9, places[i], places[j], scales[k],
                                           0xffffff, "Wq#"),
                                 0);
                free(rgb);
            }
}
END_TEST

START_TEST(an_image_of_another_size_is_not_touched)
{
    static const struct { size_t len; int32_t w, h; } wrong[] = {
        { 269, 10, 9 }, { 271, 10, 9 }, { 0, 0, 9 }, { 0, 10, 0 }, { 270, -10, -9 }, { 4, INT32_MAX, INT32_MAX },
    };
    uint8_t rgb[10 * 9 * 3] = { 0 };

    for (size_t i = 0; i < WF_LEN(wrong); i++)
        ck_assert_int_eq(
            draw_text(rgb, wrong[i].len, wrong[i].w, wrong[i].h, 0, 0, 1, 0xffffff, "A"), -1);
    ck_assert_int_eq(count_set(rgb, 10 * 9), 0);
}
END_TEST

START_TEST(a_width_is_told_without_an_image)
{
    ck_assert_int_eq(draw_text(NULL, 0, 0, 0, 0, 0, 2, 0, "abc"), (3 * 6 - 1) * 2);
    ck_assert_int_eq(draw_text(NULL, 0, 0, 0, 0, 0, 2, 0, ""), 0);
    ck_assert_int_eq(draw_text(NULL, 0, 0, 0, 0, 0, 2, 0, NULL), 0);
}
END_TEST

START_TEST(every_character_has_a_drawing_of_its_own)
{
    static uint8_t drawn[96][6 * 8 * 3];

    for (int c = 32; c < 127; c++) {
        const char text[2] = { (char)c, '\0' };

        draw_text(drawn[c - 32], sizeof drawn[0], 6, 8, 0, 0, 1, 0xffffff, text);
        if (c > 32) ck_assert_int_gt(count_set(drawn[c - 32], 6 * 8), 0);
        for (int y = 0; y < 8; y++)
            ck_assert_uint_eq(drawn[c - 32][(y * 6 + 5) * 3], 0); /* the gap */
        for (int other = 32; other < c; other++)
            ck_assert_msg(memcmp(drawn[c - 32], drawn[other - 32], sizeof drawn[0]) != 0,
                          "%c and %c", c, other);
    }
}
END_TEST

/* ---- tables ---- */

static weft_model   *model;
static weft_adapter *adapters[2];

static void open_bundled(void)
{
    static const char *const files[] = { "monster", "hatching" };
    char path[256];

    must(weft_model_open("examples/model", NULL, &model, &golden_err));
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "examples/model/adapters/%s.safetensors", files[i]);
        must(weft_adapter_open(path, NULL, &adapters[i], &golden_err));
    }
}

static void close_bundled(void)
{
    for (int i = 0; i < 2; i++) weft_adapter_free(adapters[i]);
    weft_model_free(model);
}

typedef struct image { uint8_t *rgb; size_t bytes; int32_t width, height; } image;

static image read_image(const char *path)
{
    image i;

    must(weft_png_size(path, &i.width, &i.height, &golden_err));
    i.bytes = 3 * (size_t)i.width * (size_t)i.height;
    i.rgb = malloc(i.bytes);
    must(weft_png_read(path, i.rgb, i.bytes, i.width, i.height, &golden_err));
    return i;
}

static image drawn(const weft_plan *plan)
{
    const char *dir = test_dir();
    char        path[300];

    snprintf(path, sizeof path, "%s/table.png", dir);
    must(draw_table(plan, model, path, &golden_err));
    image i = read_image(path);
    unlink(path);
    test_rmdir(dir);
    return i;
}

/* The first pair of examples/compose.c under K-LoRA. */
START_TEST(the_table_in_the_docs_is_what_is_drawn)
{
    weft_plan *p;

    must(weft_plan_create(model, NULL, &p, &golden_err));
    for (int i = 0; i < 2; i++) must(weft_plan_add(p, adapters[i], 0.9f, NULL, &golden_err));
    must(weft_plan_klora(p, NULL, &golden_err));
    must(weft_plan_seal(p, 20, &golden_err));
    image got = drawn(p), want = read_image("docs/images/klora-table.png");
    ck_assert_int_eq(got.width, want.width);
    ck_assert_int_eq(got.height, want.height);
    ck_assert_mem_eq(got.rgb, want.rgb, want.bytes);
    weft_plan_free(p);
    free(got.rgb);
    free(want.rgb);
}
END_TEST

static void check_size(const weft_plan *p)
{
    image i = drawn(p);

    ck_assert_int_ge(i.width, 500);
    ck_assert_int_le(i.width, 1600);
    ck_assert_int_ge(i.height, 100);
    ck_assert_int_le(i.height, 1600);
    free(i.rgb);
}

typedef weft_status (*method)(weft_plan *plan);

static weft_status by_merge(weft_plan *p) { return weft_plan_merge(p, &golden_err); }
static weft_status by_switch(weft_plan *p) { return weft_plan_switch(p, NULL, &golden_err); }
static weft_status by_composite(weft_plan *p) { return weft_plan_composite(p, NULL, &golden_err); }
static weft_status by_klora(weft_plan *p) { return weft_plan_klora(p, NULL, &golden_err); }
static const method methods[] = { by_merge, by_switch, by_composite, by_klora };

START_TEST(every_table_can_be_drawn)
{
    static const int32_t calls[] = { 1, 3, 20, 1000 };

    for (size_t c = 0; c < WF_LEN(calls); c++) {
        weft_plan *p;
        must(weft_plan_create(model, NULL, &p, &golden_err));
        for (int i = 0; i < 2; i++) must(weft_plan_add(p, adapters[i], 1, NULL, &golden_err));
        must(methods[_i](p));
        must(weft_plan_seal(p, calls[c], &golden_err));
        check_size(p);
        weft_plan_free(p);
    }
}
END_TEST

START_TEST(an_empty_table_and_a_crowded_one_can_be_drawn)
{
    weft_plan *p;

    must(weft_plan_create(model, NULL, &p, &golden_err));
    ck_assert_int_eq(draw_table(p, model, "/nowhere/at/all.png", &golden_err),
                     WEFT_E_STATE); /* not sealed */
    must(weft_plan_seal(p, 5, &golden_err));
    check_size(p);
    ck_assert_int_eq(draw_table(p, model, "/nowhere/at/all.png", &golden_err), WEFT_E_IO);
    weft_plan_free(p);
    must(weft_plan_create(model, NULL, &p, &golden_err));
    for (int i = 0; i < 12; i++)
        must(weft_plan_add(p, adapters[i % 2], 0.1f * (float)i, NULL, &golden_err));
    must(weft_plan_composite(p, NULL, &golden_err));
    must(weft_plan_seal(p, 50, &golden_err));
    check_size(p);
    weft_plan_free(p);
}
END_TEST

/* ---- conflicts ---- */

static int pixels_of(const image *i, uint32_t colour)
{
    int n = 0;
    for (size_t k = 0; k < i->bytes; k += 3)
        n += ((uint32_t)i->rgb[k] << 16 | (uint32_t)i->rgb[k + 1] << 8 | i->rgb[k + 2]) == colour;
    return n;
}

static image drawn_conflicts(weft_adapter *a, float weight, weft_adapter *b)
{
    weft_plan       *plan;
    weft_conflicts  *c;
    const char      *dir = test_dir();
    char             path[300];

    must(weft_plan_create(model, NULL, &plan, &golden_err));
    must(weft_plan_add(plan, a, weight, NULL, &golden_err));
    must(weft_plan_add(plan, b, 1, NULL, &golden_err));
    must(weft_plan_seal(plan, 1, &golden_err));
    must(weft_conflicts_create(plan, &c, &golden_err));
    snprintf(path, sizeof path, "%s/conflicts.png", dir);
    must(draw_conflicts(c, plan, model, path, &golden_err));
    image i = read_image(path);
    weft_conflicts_free(c);
    weft_plan_free(plan);
    unlink(path);
    test_rmdir(dir);
    return i;
}

/* 84 layers, cells of 7 pixels with a hair between, columns of 88: at 100 times the other the first one's hue fills the
 * column of the norms, and is in no other beside its 28 x 16 in the legend. The same adapter twice fills three columns with
 * orange, which is also the second's hue, and the fourth with green. */
START_TEST(conflicts_show_who_drowns_and_who_is_the_same)
{
    image i = drawn_conflicts(adapters[0], 100, adapters[1]);
    ck_assert_int_eq(pixels_of(&i, 0x0072b2), 84 * 6 * 88 + 28 * 16);
    free(i.rgb);
    i = drawn_conflicts(adapters[1], 1, adapters[1]);
    ck_assert_int_ge(pixels_of(&i, 0xd55e00), 2 * 84 * 6 * 88);
    ck_assert_int_ge(pixels_of(&i, 0x009e73), 84 * 6 * 88 * 9 / 10);
    free(i.rgb);
    i = drawn_conflicts(adapters[0], 0, adapters[1]); /* nothing in common */
    ck_assert_int_eq(pixels_of(&i, 0x0072b2), 28 * 16);
    free(i.rgb);
}
END_TEST

/* ---- the loss of a training ---- */

static image drawn_loss(const double *loss, size_t count, int64_t first)
{
    const char *dir = test_dir();
    char        path[300];

    snprintf(path, sizeof path, "%s/loss.png", dir);
    must(draw_loss(loss, count, first, "loss", path, &golden_err));
    image i = read_image(path);
    unlink(path);
    test_rmdir(dir);
    return i;
}

/* A loss of 1 at every step: the axis goes to 1.2 in ticks of 0.2 over 352 rows below row 64, so the line of three pixels
 * is around row 64 + 352 - 1 - round(351 / 1.2) = 122, all the 840 columns wide. One step
 * alone is drawn as that too. */
START_TEST(the_curve_is_where_the_loss_is)
{
    double loss[200], weight = 0;

    for (int i = 0; i < 200; i++) loss[i] = 1;
    image i = drawn_loss(loss, 200, 1);
    ck_assert_int_eq(pixels_of(&i, 0xd55e00), 3 * 840);
    for (int32_t y = 121; y <= 123; y++)
        ck_assert_mem_eq(i.rgb + ((size_t)y * (size_t)i.width + 500) * 3, "\xd5\x5e\x00", 3);
    free(i.rgb);
    i = drawn_loss(loss, 1, 41);
    ck_assert_int_eq(pixels_of(&i, 0xd55e00), 3 * 840);
    free(i.rgb);
    /* the mean of 2 and 4 is 2, then (0.98 * 2 + 4) / 1.98 */
    ck_assert_double_eq_tol(draw_smooth(0, &weight, 2), 2, 1e-15);
    ck_assert_double_eq_tol(draw_smooth(2, &weight, 4), 5.96 / 1.98, 1e-12);
    ck_assert_double_eq_tol(weight, 0.0396, 1e-15);
    ck_assert_int_eq(draw_loss(loss, 0, 1, "", "x.png", &golden_err), WEFT_E_ARG);
    loss[3] = NAN;
    ck_assert_int_eq(draw_loss(loss, 200, 1, "", "x.png", &golden_err), WEFT_E_ARG);
}
END_TEST

/* ---- explanations and traces ---- */

typedef weft_status drawer(const weft_plan *p, const weft_run *run, const char *path);

static weft_status as_explain(const weft_plan *p, const weft_run *run, const char *path)
{
    (void)run;
    return draw_explain(p, model, NULL, WEFT_COSTS_GUIDED, path, &golden_err);
}
static weft_status as_trace(const weft_plan *p, const weft_run *run, const char *path)
{
    return draw_trace(run, p, model, path, &golden_err);
}

static image drawn_as(drawer *draw, const weft_plan *p, const weft_run *run)
{
    const char *dir = test_dir();
    char        path[300];

    snprintf(path, sizeof path, "%s/it.png", dir);
    must(draw(p, run, path));
    image i = read_image(path);
    unlink(path);
    test_rmdir(dir);
    return i;
}

/* Pixels of a colour below a row, and the first row that has one. */
static int below(const image *i, int32_t from, uint32_t colour, int32_t *first)
{
    int n = 0;

    *first = -1;
    for (int32_t y = from; y < i->height; y++)
        for (int32_t x = 0; x < i->width; x++) {
            const uint8_t *px = i->rgb + 3 * ((size_t)y * (size_t)i->width + (size_t)x);
            if (((uint32_t)px[0] << 16 | (uint32_t)px[1] << 8 | px[2]) != colour) continue;
            if (*first < 0) *first = y;
            n++;
        }
    return n;
}

/* Both images have the same pixels from row `from` to the end of the lower, as far as the narrower goes. */
static void same_rows(const image *a, const image *b, int32_t from)
{
    int32_t rows = a->height < b->height ? a->height : b->height, w = a->width < b->width ? a->width : b->width;

    for (int32_t y = from; y < rows; y++)
        ck_assert_mem_eq(a->rgb + 3 * (size_t)y * (size_t)a->width, b->rgb + 3 * (size_t)y * (size_t)b->width,
                         3 * (size_t)w);
}

/* 20 calls of 40 pixels. A curve is three pixels thick; 1 on an axis of 1 is the top of 130 pixels, 0.25 is 95 below. The
 * table stands above, as it is drawn by itself. */
START_TEST(strengths_are_curves_under_the_table)
{
    weft_plan *p;
    int32_t    high, low;

    must(weft_plan_create(model, NULL, &p, &golden_err));
    must(weft_plan_add(p, adapters[0], 1, NULL, &golden_err));
    must(weft_plan_add(p, adapters[1], 0.25f, NULL, &golden_err));
    must(weft_plan_seal(p, 20, &golden_err));
    image table = drawn(p), all = drawn_as(as_explain, p, NULL);
    same_rows(&table, &all, 0);
    ck_assert_int_gt(all.height, table.height + 300);
    ck_assert_int_eq(below(&all, table.height, 0x0072b2, &high), 3 * 800);
    ck_assert_int_eq(below(&all, table.height, 0xd55e00, &low), 3 * 800);
    ck_assert_int_ge(low - high, 94);
    ck_assert_int_le(low - high, 97);
    ck_assert_int_eq(draw_explain(p, model, NULL, 0, "/nowhere/at/all.png", &golden_err), WEFT_E_IO);
    weft_plan_free(p);
    free(table.rgb);
    free(all.rgb);
}
END_TEST

/* Alignment is a line between the table and the charts, which move down and are the same. */
START_TEST(alignment_is_a_line_under_the_table)
{
    weft_plan *p, *q;
    int32_t    before, after;

    must(weft_plan_create(model, NULL, &p, &golden_err));
    must(weft_plan_add(p, adapters[0], 1, NULL, &golden_err));
    must(weft_plan_copy(p, &q, &golden_err));
    must(weft_plan_align(q, NULL, &golden_err));
    must(weft_plan_seal(p, 20, &golden_err));
    must(weft_plan_seal(q, 20, &golden_err));
    image table = drawn(p), plain = drawn_as(as_explain, p, NULL), aligned = drawn_as(as_explain, q, NULL);
    same_rows(&table, &aligned, 0);
    ck_assert_int_eq(below(&plain, table.height, 0x0072b2, &before), 3 * 800);
    ck_assert_int_eq(below(&aligned, table.height, 0x0072b2, &after), 3 * 800);
    ck_assert_int_eq(after - before, aligned.height - plain.height);
    ck_assert_int_ge(after - before, 14 + 6); /* a line of text at scale 2, and air */
    weft_plan_free(p);
    weft_plan_free(q);
    free(table.rgb);
    free(plain.rgb);
    free(aligned.rgb);
}
END_TEST

/* Half of the image is 60 x 120 pixels of a map; blocks of factor 1 have the adapter's hue. */
START_TEST(masks_and_blocks_are_drawn)
{
    const float left[2] = { 1, 0 };
    weft_mask   mask = WEFT_MASK_INIT;
    weft_plan  *p;
    int32_t     first;

    mask.height = 1;
    mask.width = 2;
    mask.values = left;
    mask.len = 2;
    for (int i = 0; i < 2; i++) { /* a mask of one row is drawn 60 high */
        must(weft_plan_create(model, NULL, &p, &golden_err));
        must(weft_plan_add(p, adapters[0], 1, NULL, &golden_err));
        must(weft_plan_set_mask(p, 0, &mask, &golden_err));
        if (i == 1) must(weft_plan_set_blocks(p, 0, "OUTALL", &golden_err));
        must(weft_plan_seal(p, 20, &golden_err));
        image table = drawn(p), all = drawn_as(as_explain, p, NULL);
        int n = below(&all, table.height, 0x0072b2, &first) - 3 * 800 - 60 * 60;
        if (i == 0) ck_assert_int_eq(n, 0);
        else ck_assert_int_ge(n, 3 * 12 * 30); /* up.0, up.1, up.2 */
        weft_plan_free(p);
        free(table.rgb);
        free(all.rgb);
    }
}
END_TEST

static weft_run *run_of(weft_plan *p, int32_t calls)
{
    static float latent[4 * 16 * 16], out[4 * 16 * 16], text[77 * 768];
    weft_run_options o = WEFT_RUN_OPTIONS_INIT;
    weft_text        t = WEFT_TEXT_INIT;
    weft_step        s = WEFT_STEP_INIT;
    weft_text_info   about = WEFT_TEXT_INFO_INIT;
    weft_run        *run;

    must(weft_model_text(model, 0, &about, &golden_err));
    ck_assert_int_le(about.width, 768);
    for (size_t i = 0; i < 4 * 16 * 16; i++) latent[i] = (float)(i % 7) - 3;
    for (size_t i = 0; i < 77 * (size_t)about.width; i++) text[i] = (float)(i % 5) - 2;
    o.flags = WEFT_RUN_TRACE;
    must(weft_run_create(p, &o, &run, &golden_err));
    t.data = text;
    t.len = 77 * (size_t)about.width;
    t.tokens = 77;
    s.latent = latent;
    s.out = out;
    s.latent_len = s.out_len = 4 * 16 * 16;
    s.text = &t;
    s.text_count = 1;
    s.timestep = 500;
    for (s.call = 0; s.call < calls; s.call++) must(weft_run_step(run, &s, &golden_err));
    return run;
}

/* Of a table that was followed, the trace shows the same panels; and below, shares of two halves. Calls that were not taken
 * are left white: then no other pixel below the title differs but theirs. */
START_TEST(a_trace_looks_like_its_table)
{
    weft_plan *p;
    int32_t    first;

    must(weft_plan_create(model, NULL, &p, &golden_err));
    for (int i = 0; i < 2; i++) must(weft_plan_add(p, adapters[i], 1, NULL, &golden_err));
    must(weft_plan_composite(p, NULL, &golden_err));
    must(weft_plan_seal(p, 4, &golden_err));
    weft_run *run = run_of(p, 4), *half = run_of(p, 2);
    image table = drawn(p), whole = drawn_as(as_trace, p, run), part = drawn_as(as_trace, p, half);
    same_rows(&table, &whole, 60);
    int a = below(&whole, table.height, 0x0072b2, &first), b = below(&whole, table.height, 0xd55e00, &first);
    ck_assert_int_eq(a, b); /* half of it each */
    ck_assert_int_gt(a, 130 / 2 * 500);
    ck_assert_int_eq(2 * below(&part, table.height, 0x0072b2, &first), a);
    ck_assert_int_eq(2 * (below(&part, 60, 0x0072b2, &first) - 28 * 16), below(&whole, 60, 0x0072b2, &first) - 28 * 16);
    weft_run_free(run);
    weft_run_free(half);
    weft_plan_free(p);
    free(table.rgb);
    free(whole.rgb);
    free(part.rgb);
}
END_TEST

/* At call 1 the second branch computes the outermost level alone: what else acts there is grey. */
START_TEST(reused_features_are_grey)
{
    weft_composite_options o = WEFT_COMPOSITE_OPTIONS_INIT;
    weft_plan             *p;

    must(weft_plan_create(model, NULL, &p, &golden_err));
    for (int i = 0; i < 2; i++) must(weft_plan_add(p, adapters[i], 1, NULL, &golden_err));
    o.flags = WEFT_COMPOSITE_CACHED;
    must(weft_plan_composite(p, &o, &golden_err));
    must(weft_plan_seal(p, 4, &golden_err));
    weft_run *full = run_of(p, 1), *reused = run_of(p, 2);
    image before = drawn_as(as_trace, p, full), after = drawn_as(as_trace, p, reused);
    ck_assert_int_eq(pixels_of(&before, 0xbcbcb6), 0);
    ck_assert_int_gt(pixels_of(&after, 0xbcbcb6), 28 * 16 + 50 * 39 * 4);
    weft_run_free(full);
    weft_run_free(reused);
    weft_plan_free(p);
    free(before.rgb);
    free(after.rgb);
}
END_TEST

/* Nothing to act, one call, many calls, many branches: any plan can be drawn. */
START_TEST(any_explanation_can_be_drawn)
{
    static const int32_t calls[] = { 1, 3, 300 };

    for (size_t c = 0; c < WF_LEN(calls); c++)
        for (int n = 0; n <= 4; n += 2) {
            weft_plan *p;
            must(weft_plan_create(model, NULL, &p, &golden_err));
            for (int i = 0; i < n; i++) must(weft_plan_add(p, adapters[i % 2], (float)i, NULL, &golden_err));
            if (n == 4) must(weft_plan_composite(p, NULL, &golden_err));
            must(weft_plan_seal(p, calls[c], &golden_err));
            image i = drawn_as(as_explain, p, NULL);
            ck_assert_int_le(i.width, 1600);
            ck_assert_int_le(i.height, 2000);
            free(i.rgb);
            weft_plan_free(p);
        }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("draw");
    TCase *c = tcase_create("labels"), *t = tcase_create("tables");

    tcase_add_test(c, text_is_drawn_where_it_should);
    tcase_add_test(c, what_is_not_ascii_is_a_box);
    tcase_add_test(c, what_falls_outside_is_cut);
    tcase_add_test(c, an_image_of_another_size_is_not_touched);
    tcase_add_test(c, a_width_is_told_without_an_image);
    tcase_add_test(c, every_character_has_a_drawing_of_its_own);
    tcase_add_test(c, the_curve_is_where_the_loss_is);
    suite_add_tcase(suite, c);
    tcase_add_checked_fixture(t, open_bundled, close_bundled);
    tcase_add_test(t, the_table_in_the_docs_is_what_is_drawn);
    tcase_add_loop_test(t, every_table_can_be_drawn, 0, (int)WF_LEN(methods));
    tcase_add_test(t, an_empty_table_and_a_crowded_one_can_be_drawn);
    tcase_add_test(t, conflicts_show_who_drowns_and_who_is_the_same);
    tcase_add_test(t, strengths_are_curves_under_the_table);
    tcase_add_test(t, alignment_is_a_line_under_the_table);
    tcase_add_test(t, masks_and_blocks_are_drawn);
    tcase_add_test(t, a_trace_looks_like_its_table);
    tcase_add_test(t, reused_features_are_grey);
    tcase_add_test(t, any_explanation_can_be_drawn);
    suite_add_tcase(suite, t);
    return run_suite(suite);
}
