/* Reading pictures: each kind of PNG, put together here chunk by chunk so that its pixels are known, and files that
 * are not what they say. */
#include <errno.h>
#include <zlib.h>

#include "../base/support.h"
#include "io/io.h"

static weft_error err;
static char       dir[256], path[512];

static void setup(void)
{
    snprintf(dir, sizeof dir, "%s", test_dir());
    snprintf(path, sizeof path, "%s/a.png", dir);
}

static void teardown(void)
{
    unlink(path);
    test_rmdir(dir);
}

/* ---- a PNG by hand ---- */

typedef struct png { uint8_t bytes[4096]; size_t size; } png;

static void put_u32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void chunk(png *p, const char *type, const void *data, size_t size)
{
    uint8_t *at = p->bytes + p->size;
    put_u32(at, (uint32_t)size);
    memcpy(at + 4, type, 4);
    if (size > 0) memcpy(at + 8, data, size);
    put_u32(at + 8 + size, (uint32_t)crc32(0, at + 4, (uInt)size + 4));
    p->size += size + 12;
}

enum { GREY = 0, RGB = 2, PALETTE = 3, GREY_ALPHA = 4, RGBA = 6 };

static png begin(uint32_t width, uint32_t height, int depth, int colour)
{
    png p = { { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' }, 8 };
    uint8_t head[13] = { 0 };
    put_u32(head, width);
    put_u32(head + 4, height);
    head[8] = (uint8_t)depth;
    head[9] = (uint8_t)colour;
    chunk(&p, "IHDR", head, sizeof head);
    return p;
}

/* `rows` as PNG has them: each begins with its filter, 0 here. */
static void finish(png *p, const uint8_t *rows, size_t size)
{
    uint8_t packed[1024];
    uLongf  length = sizeof packed;
    ck_assert_int_eq(compress(packed, &length, rows, (uLong)size), Z_OK);
    chunk(p, "IDAT", packed, length);
    chunk(p, "IEND", NULL, 0);
}

static void save(const png *p) { ck_assert_int_eq(wf_file_write(path, p->bytes, p->size, &err), WEFT_OK); }

static void check(const png *p, int32_t width, int32_t height, const uint8_t *want)
{
    uint8_t rgb[256];
    int32_t w = 0, h = 0;
    size_t  n = (size_t)(3 * width * height);
    save(p);
    ck_assert_msg(weft_png_size(path, &w, &h, &err) == WEFT_OK, "%s", err.text);
    ck_assert_int_eq(w, width);
    ck_assert_int_eq(h, height);
    ck_assert_msg(weft_png_read(path, rgb, n, w, h, &err) == WEFT_OK, "%s", err.text);
    for (size_t i = 0; i < n; i++) ck_assert_msg(rgb[i] == want[i], "value %zu is %u, wanted %u", i, rgb[i], want[i]);
}

START_TEST(colours_are_as_they_lie)
{
    const uint8_t rows[] = { 0, 1, 2, 3, 4, 5, 6,   0, 255, 254, 253, 0, 128, 127 };
    const uint8_t want[] = { 1, 2, 3, 4, 5, 6, 255, 254, 253, 0, 128, 127 };
    const uint8_t usual[4] = { 0, 0, 0xb1, 0x8f }; /* 1 / 2.2, as most programs say that write a gamma at all */
    png p = begin(2, 2, 8, RGB);
    finish(&p, rows, sizeof rows);
    check(&p, 2, 2, want);
    p = begin(2, 2, 8, RGB);
    chunk(&p, "gAMA", usual, sizeof usual);
    finish(&p, rows, sizeof rows);
    check(&p, 2, 2, want);
}
END_TEST

/* Grey of 1, 2, 4, 8 bits spans black to white: 2 bits are 0, 85, 170, 255. */
START_TEST(grey_of_any_depth_becomes_three_equal_values)
{
    const struct { int depth; uint8_t rows[5]; size_t size; uint8_t want[4]; } cases[] = {
        { 1, { 0, 0x50 }, 2, { 0, 255, 0, 255 } },         { 2, { 0, 0x1b }, 2, { 0, 85, 170, 255 } },
        { 4, { 0, 0x0f, 0x1e }, 3, { 0, 255, 17, 238 } },  { 8, { 0, 7, 8, 9, 250 }, 5, { 7, 8, 9, 250 } },
    };
    for (size_t i = 0; i < WF_LEN(cases); i++) {
        uint8_t want[12];
        png p = begin(4, 1, cases[i].depth, GREY);
        finish(&p, cases[i].rows, cases[i].size);
        for (int k = 0; k < 12; k++) want[k] = cases[i].want[k / 3];
        check(&p, 4, 1, want);
    }
}
END_TEST

/* 16 bits are scaled, not cut: 0x80ff is 128.499 of 255, 0x8180 is 129.0. */
START_TEST(sixteen_bits_become_eight)
{
    const uint8_t rows[] = { 0, 0x80, 0xff, 0x81, 0x80, 0xff, 0xff,   0, 0, 0, 0, 0x80, 0x01, 0x01 };
    const uint8_t want[] = { 128, 129, 255, 0, 0, 1 };
    png p = begin(1, 2, 16, RGB);
    finish(&p, rows, sizeof rows);
    check(&p, 1, 2, want);
}
END_TEST

START_TEST(a_palette_is_looked_up)
{
    const uint8_t colours[] = { 10, 20, 30, 40, 50, 60, 70, 80, 90 }, rows[] = { 0, 0x24 }; /* 0 2 1 */
    const uint8_t want[] = { 10, 20, 30, 70, 80, 90, 40, 50, 60 };
    png p = begin(3, 1, 2, PALETTE);
    chunk(&p, "PLTE", colours, sizeof colours);
    finish(&p, rows, sizeof rows);
    check(&p, 3, 1, want);
}
END_TEST

/* 100 at alpha 51, a fifth, over white: 20 + 204 = 224. */
START_TEST(transparency_is_laid_over_white)
{
    const uint8_t rgba[] = { 0, 100, 0, 255, 51,   9, 9, 9, 0,   1, 2, 3, 255 };
    const uint8_t want[] = { 224, 204, 255, 255, 255, 255, 1, 2, 3 };
    png p = begin(3, 1, 8, RGBA);
    finish(&p, rgba, sizeof rgba);
    check(&p, 3, 1, want);

    const uint8_t grey[] = { 0, 100, 51, 7, 255 }, want_grey[] = { 224, 224, 224, 7, 7, 7 };
    p = begin(2, 1, 8, GREY_ALPHA);
    finish(&p, grey, sizeof grey);
    check(&p, 2, 1, want_grey);

    /* the same by a tRNS chunk: an alpha for each colour of a palette, or one colour that is not there */
    const uint8_t colours[] = { 100, 0, 255, 1, 2, 3 }, alphas[] = { 51 }, rows[] = { 0, 0x40 }; /* 0 1 */
    const uint8_t want_palette[] = { 224, 204, 255, 1, 2, 3 };
    p = begin(2, 1, 1, PALETTE);
    chunk(&p, "PLTE", colours, sizeof colours);
    chunk(&p, "tRNS", alphas, sizeof alphas);
    finish(&p, rows, sizeof rows);
    check(&p, 2, 1, want_palette);

    const uint8_t absent[] = { 0, 5, 0, 6, 0, 7 }, plain[] = { 0, 5, 6, 7, 5, 6, 8 };
    const uint8_t want_plain[] = { 255, 255, 255, 5, 6, 8 };
    p = begin(2, 1, 8, RGB);
    chunk(&p, "tRNS", absent, sizeof absent);
    finish(&p, plain, sizeof plain);
    check(&p, 2, 1, want_plain);
}
END_TEST

START_TEST(what_was_written_is_read)
{
    uint8_t rgb[7 * 5 * 3], back[7 * 5 * 3];
    const char *const text[] = { "parameters", "a cat" };
    for (size_t i = 0; i < sizeof rgb; i++) rgb[i] = (uint8_t)(i * 37);
    ck_assert_int_eq(weft_png_write(path, rgb, sizeof rgb, 7, 5, text, 1, &err), WEFT_OK);
    ck_assert_int_eq(weft_png_read(path, back, sizeof back, 7, 5, &err), WEFT_OK);
    ck_assert_int_eq(memcmp(rgb, back, sizeof rgb), 0);
}
END_TEST

/* ---- refusals ---- */

static void refused(const png *p, size_t size, weft_status code, const char *word)
{
    uint8_t rgb[12];
    ck_assert_int_eq(wf_file_write(path, p->bytes, size, &err), WEFT_OK);
    ck_assert_msg(weft_png_read(path, rgb, 12, 2, 2, &err) == code, "%s", err.text);
    ck_assert_ptr_nonnull(strstr(err.text, "a.png"));
    ck_assert_msg(strstr(err.text, word) != NULL, "%s", err.text);
    check_one_line(&err);
}

START_TEST(what_is_not_a_png_is_refused)
{
    const uint8_t rows[14] = { 0 };
    int32_t w, h;
    png good = begin(2, 2, 8, RGB), p;
    finish(&good, rows, sizeof rows);
    refused(&good, 0, WEFT_E_FORMAT, "empty");
    for (size_t cut = 1; cut < good.size - 12; cut++) refused(&good, cut, WEFT_E_FORMAT, "not a PNG");

    p = good;
    p.bytes[20] ^= 1; /* the size no longer matches its checksum */
    refused(&p, p.size, WEFT_E_FORMAT, "CRC");
    p = good;
    p.bytes[50] ^= 1; /* nor do the pixels */
    refused(&p, p.size, WEFT_E_FORMAT, "");
    p = begin(2, 2, 8, PALETTE);
    finish(&p, rows, 6);
    refused(&p, p.size, WEFT_E_FORMAT, "PLTE");
    p = begin(2, 2, 5, RGB);
    finish(&p, rows, 14);
    refused(&p, p.size, WEFT_E_FORMAT, "IHDR");
    p = begin(2, 2, 8, RGB);
    finish(&p, rows, 7); /* a row too few */
    refused(&p, p.size, WEFT_E_FORMAT, "");

    p = begin(1000000, 1000000, 8, RGB); /* of a few bytes */
    finish(&p, rows, 14);
    refused(&p, p.size, WEFT_E_UNSUPPORTED, "1000000 x 1000000 pixels is too large");
    p = begin(0x7fffffff, 1, 8, GREY);
    finish(&p, rows, 14);
    refused(&p, p.size, WEFT_E_FORMAT, "");
    ck_assert_int_ne(weft_png_size(path, &w, &h, &err), WEFT_OK);
}
END_TEST

START_TEST(arguments_are_checked)
{
    const uint8_t rows[14] = { 0 };
    uint8_t rgb[12];
    int32_t w, h;
    png p = begin(2, 2, 8, RGB);
    finish(&p, rows, sizeof rows);
    save(&p);
    ck_assert_int_eq(weft_png_read(path, rgb, 11, 2, 2, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_png_read(path, rgb, 12, 1, 4, &err), WEFT_E_ARG);
    ck_assert_ptr_nonnull(strstr(err.text, "has 2 x 2 pixels, not 1 x 4"));
    ck_assert_int_eq(weft_png_read(path, rgb, 12, -2, -2, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_png_read(path, NULL, 12, 2, 2, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_png_read(NULL, rgb, 12, 2, 2, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_png_size(NULL, &w, &h, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_png_size(path, NULL, &h, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_png_size("absent.png", &w, &h, &err), WEFT_E_IO);
    ck_assert_int_eq(weft_png_size(dir, &w, &h, &err), WEFT_E_IO);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("reading png");
    TCase *c = tcase_create("all");

    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, colours_are_as_they_lie);
    tcase_add_test(c, grey_of_any_depth_becomes_three_equal_values);
    tcase_add_test(c, sixteen_bits_become_eight);
    tcase_add_test(c, a_palette_is_looked_up);
    tcase_add_test(c, transparency_is_laid_over_white);
    tcase_add_test(c, what_was_written_is_read);
    tcase_add_test(c, what_is_not_a_png_is_refused);
    tcase_add_test(c, arguments_are_checked);
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
