/* Pictures: rounding, PNG as libpng itself reads it back. */
#include <math.h>
#include <png.h>

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

/* Two pixels: planes in, pixels out. 0.5 is 127.5 and goes up. */
START_TEST(pictures_become_bytes)
{
    const float image[] = { 0, 1,   0.5f, NAN,   -3, INFINITY };
    uint8_t     rgb[6];

    ck_assert_int_eq(weft_image_bytes(image, 6, 2, 1, rgb, 6, &err), WEFT_OK);
    ck_assert_uint_eq(rgb[0], 0);
    ck_assert_uint_eq(rgb[1], 128);
    ck_assert_uint_eq(rgb[2], 0);
    ck_assert_uint_eq(rgb[3], 255);
    ck_assert_uint_eq(rgb[4], 0);
    ck_assert_uint_eq(rgb[5], 255);
}
END_TEST

START_TEST(every_byte_value_comes_back)
{
    float   image[256 * 3];
    uint8_t rgb[256 * 3];

    for (int i = 0; i < 256; i++) image[i] = image[256 + i] = image[512 + i] = (float)i / 255;
    ck_assert_int_eq(weft_image_bytes(image, 768, 256, 1, rgb, 768, &err), WEFT_OK);
    for (int i = 0; i < 768; i++) ck_assert_uint_eq(rgb[i], (unsigned)i / 3);
}
END_TEST

START_TEST(sizes_that_disagree_are_refused)
{
    const float image[6] = { 0 };
    uint8_t     rgb[6] = { 0 };

    ck_assert_int_eq(weft_image_bytes(image, 5, 2, 1, rgb, 6, &err), WEFT_E_ARG);
    ck_assert_str_eq(err.text, "image has 5 values, but 2 x 1 pixels of RGB need 6");
    ck_assert_int_eq(weft_image_bytes(image, 6, 2, 1, rgb, 5, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_image_bytes(NULL, 6, 2, 1, rgb, 6, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_image_bytes(image, 6, 2, 1, NULL, 6, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_png_write(path, rgb, 6, 2, 2, NULL, 0, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_png_write(path, rgb, 6, 0, 1, NULL, 0, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_png_write(path, rgb, 6, -2, -1, NULL, 0, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_png_write(path, rgb, 6, INT32_MAX, INT32_MAX, NULL, 0, &err), WEFT_E_UNSUPPORTED);
    ck_assert_int_eq(weft_png_write(path, rgb, 3000003, 1000001, 1, NULL, 0, &err), WEFT_E_UNSUPPORTED);
    ck_assert_int_eq(weft_png_write(path, NULL, 6, 2, 1, NULL, 0, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_png_write(NULL, rgb, 6, 2, 1, NULL, 0, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_png_write(path, rgb, 6, 2, 1, NULL, 1, &err), WEFT_E_ARG);
    ck_assert(!wf_path_exists(path));
}
END_TEST

/* ---- PNG, read with libpng (whose errors, without setjmp, abort the test) ---- */

static void fill_noise(uint8_t *p, size_t n)
{
    uint32_t state = 1;

    for (size_t i = 0; i < n; i++) {
        state = state * 1664525 + 1013904223;
        p[i]  = (uint8_t)(state >> 24);
    }
}

static void check_png(const uint8_t *rgb, uint32_t width, uint32_t height, const char *const *text, int pairs)
{
    FILE       *file = fopen(path, "rb");
    png_structp png  = png_create_read_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop   info = png_create_info_struct(png);
    png_bytep   row  = malloc((size_t)width * 3);
    png_textp   found;
    int         count = 0;

    ck_assert_ptr_nonnull(file);
    png_init_io(png, file);
    png_read_info(png, info);
    ck_assert_uint_eq(png_get_image_width(png, info), width);
    ck_assert_uint_eq(png_get_image_height(png, info), height);
    ck_assert_uint_eq(png_get_bit_depth(png, info), 8);
    ck_assert_uint_eq(png_get_color_type(png, info), PNG_COLOR_TYPE_RGB);

    png_get_text(png, info, &found, &count);  /* what stands before the pixels */
    ck_assert_int_eq(count, pairs);
    for (int i = 0; i < pairs; i++) {
        ck_assert_str_eq(found[i].key, text[2 * i]);
        ck_assert_str_eq(found[i].text, text[2 * i + 1]);
        ck_assert_int_eq(found[i].compression, PNG_ITXT_COMPRESSION_NONE);
    }
    for (uint32_t y = 0; y < height; y++) {
        png_read_row(png, row, NULL);
        ck_assert_int_eq(memcmp(row, rgb + (size_t)y * width * 3, (size_t)width * 3), 0);
    }
    png_read_end(png, NULL);
    ck_assert_int_eq(fgetc(file), EOF);
    png_destroy_read_struct(&png, &info, NULL);
    free(row);
    fclose(file);
}

START_TEST(a_png_is_read_back_with_its_text)
{
    static const char *const text[] = {
        "parameters", "a cat \xc3\xa9 \xf0\x9f\x98\x80\nSteps: 20, Seed: 1", "Comment", "",
        "Software of weft", "weft",
    };
    static const struct { uint32_t width, height; } sizes[] = { { 1, 1 }, { 7, 3 }, { 300, 200 } };

    for (size_t i = 0; i < WF_LEN(sizes); i++)
        for (int pairs = 0; pairs <= 3; pairs++) {
            size_t   n   = (size_t)sizes[i].width * sizes[i].height * 3;
            uint8_t *rgb = malloc(n);

            fill_noise(rgb, n);
            ck_assert_int_eq(weft_png_write(path, rgb, n, (int32_t)sizes[i].width, (int32_t)sizes[i].height, text,
                                            (size_t)pairs, &err), WEFT_OK);
            check_png(rgb, sizes[i].width, sizes[i].height, text, pairs);
            free(rgb);
        }
}
END_TEST

START_TEST(a_latin1_keyword_is_stored_in_latin1)
{
    const char *const text[] = { "caf\xc3\xa9", "x" };
    const uint8_t     rgb[3] = { 1, 2, 3 };
    const char *const stored[] = { "caf\xe9", "x" };

    ck_assert_int_eq(weft_png_write(path, rgb, 3, 1, 1, text, 1, &err), WEFT_OK);
    check_png(rgb, 1, 1, stored, 1);
}
END_TEST

START_TEST(keywords_that_png_forbids_are_refused)
{
    static char       long_keyword[81];
    const char *const bad[] = { "", " a", "a ", "a  b", "a\nb", "\xff", "\xc2\x80", "\xc2\xa0", "\xe2\x82\xac", long_keyword, NULL };
    const uint8_t     rgb[3] = { 1, 2, 3 };

    memset(long_keyword, 'a', 80);
    for (size_t i = 0; i < WF_LEN(bad); i++) {
        const char *const text[] = { bad[i], "x" };
        ck_assert_msg(weft_png_write(path, rgb, 3, 1, 1, text, 1, &err) == WEFT_E_ARG, "accepted: %s", bad[i]);
        check_one_line(&err);
    }
    const char *const bad_value[] = { "k", "\xff" };
    ck_assert_int_eq(weft_png_write(path, rgb, 3, 1, 1, bad_value, 1, &err), WEFT_E_ARG);
    ck_assert_str_eq(err.text, "PNG text of \"k\" is not UTF-8, or over 2 GiB");

    long_keyword[79] = '\0';
    const char *const longest[] = { long_keyword, "x" };
    ck_assert_int_eq(weft_png_write(path, rgb, 3, 1, 1, longest, 1, &err), WEFT_OK);
    check_png(rgb, 1, 1, longest, 1);
}
END_TEST

START_TEST(a_png_into_nowhere_is_an_io_error)
{
    const uint8_t rgb[3] = { 1, 2, 3 };

    ck_assert_int_eq(weft_png_write("absent/folder/a.png", rgb, 3, 1, 1, NULL, 0, &err), WEFT_E_IO);
    ck_assert_int_ne(err.sys, 0);
    check_one_line(&err);
}
END_TEST

/* Byte for byte the file, in a buffer of just its size; a cut one is refused, and asking alone is fine. */
START_TEST(a_png_in_memory_is_the_file)
{
    static const char *const text[] = { "parameters", "a cat" };
    uint8_t rgb[7 * 3 * 3], want[4096];
    size_t  needed = 0;
    FILE   *file;

    fill_noise(rgb, sizeof rgb);
    ck_assert_int_eq(weft_png_write(path, rgb, sizeof rgb, 7, 3, text, 1, &err), WEFT_OK);
    file = fopen(path, "rb");
    size_t size = fread(want, 1, sizeof want, file);
    fclose(file);

    ck_assert_int_eq(weft_png_encode(rgb, sizeof rgb, 7, 3, text, 1, NULL, 0, &needed, &err), WEFT_OK);
    ck_assert_uint_eq(needed, size);
    uint8_t *buf = malloc(size);
    ck_assert_int_eq(weft_png_encode(rgb, sizeof rgb, 7, 3, text, 1, buf, size, NULL, &err), WEFT_OK);
    ck_assert_mem_eq(buf, want, size);
    memset(buf, 0xa5, size);
    needed = 0;
    ck_assert_int_eq(weft_png_encode(rgb, sizeof rgb, 7, 3, text, 1, buf, size - 1, &needed, &err), WEFT_E_ARG);
    ck_assert_msg(strncmp(err.text, "buf has ", 8) == 0, "%s", err.text);
    ck_assert_uint_eq(needed, size);
    for (size_t i = 0; i < size; i++) ck_assert_uint_eq(buf[i], 0xa5);
    ck_assert_int_eq(weft_png_encode(rgb, sizeof rgb, 7, 3, text, 1, NULL, 1, &needed, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_png_encode(rgb, sizeof rgb, 7, 2, text, 1, buf, size, &needed, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_png_encode(NULL, sizeof rgb, 7, 3, text, 1, buf, size, &needed, &err), WEFT_E_ARG);
    free(buf);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("png");
    TCase *c = tcase_create("all");

    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, pictures_become_bytes);
    tcase_add_test(c, every_byte_value_comes_back);
    tcase_add_test(c, sizes_that_disagree_are_refused);
    tcase_add_test(c, a_png_is_read_back_with_its_text);
    tcase_add_test(c, a_latin1_keyword_is_stored_in_latin1);
    tcase_add_test(c, keywords_that_png_forbids_are_refused);
    tcase_add_test(c, a_png_into_nowhere_is_an_io_error);
    tcase_add_test(c, a_png_in_memory_is_the_file);
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
