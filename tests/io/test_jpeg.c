/* Reading JPEG: every kind as Pillow reads it, photographs the right way up, and files that are not what they say. */
#include <unistd.h>

#include "../base/support.h"
#include "golden.h"
#include "io/io.h"

static weft_error err;
static char       dir[256], path[512];

static void setup(void)
{
    snprintf(dir, sizeof dir, "%s", test_dir());
    snprintf(path, sizeof path, "%s/a.jpg", dir);
}

static void teardown(void)
{
    unlink(path);
    test_rmdir(dir);
}

typedef struct bytes { uint8_t data[2048]; size_t size; } bytes;

static bytes load(const char *name)
{
    bytes b;
    FILE *f = fopen(data_path("jpeg/%s.jpg", name), "rb");
    ck_assert_msg(f != NULL, "no %s", name);
    b.size = fread(b.data, 1, sizeof b.data, f);
    fclose(f);
    return b;
}

/* Where a marker's segment begins. */
static size_t find(const bytes *b, uint8_t marker)
{
    for (size_t i = 0; i + 1 < b->size; i++)
        if (b->data[i] == 0xff && b->data[i + 1] == marker) return i;
    ck_abort_msg("no marker %x", marker);
    return 0;
}

/* ---- pixels ---- */

static const char *const names[] = {
    "444", "422", "420", "progressive", "restarts", "grey", "cmyk", "one",
    "orientation1", "orientation2", "orientation3", "orientation4", "orientation5", "orientation6", "orientation7",
    "orientation8", "orientation9",
};

START_TEST(every_kind_is_read_as_by_pillow)
{
    const char   *name = names[_i];
    weft_tensors *t = golden_open("jpegs.safetensors");
    golden        want = golden_read(t, "%s", name);
    int32_t       w = 0, h = 0;
    uint8_t      *rgb = malloc(want.n);

    must(weft_image_file_size(data_path("jpeg/%s.jpg", name), &w, &h, &golden_err));
    ck_assert_int_eq(h, want.shape[0]);
    ck_assert_int_eq(w, want.shape[1]);
    must(weft_image_file_read(data_path("jpeg/%s.jpg", name), rgb, want.n, w, h, &golden_err));
    for (size_t i = 0; i < want.n; i++)
        ck_assert_msg(rgb[i] == (uint8_t)want.v[i], "%s: value %zu is %u, wanted %u", name, i, rgb[i], (unsigned)want.v[i]);
    free(rgb), free(want.v);
    weft_tensors_free(t);
}
END_TEST

/* The first bytes decide, not the name: a PNG called .jpg. */
START_TEST(a_png_is_read_too)
{
    const uint8_t rgb[] = { 1, 2, 3, 4, 5, 6 };
    uint8_t       back[6];
    int32_t       w, h;

    ck_assert_int_eq(weft_png_write(path, rgb, 6, 2, 1, NULL, 0, &err), WEFT_OK);
    ck_assert_int_eq(weft_image_file_size(path, &w, &h, &err), WEFT_OK);
    ck_assert(w == 2 && h == 1);
    ck_assert_int_eq(weft_image_file_read(path, back, 6, 2, 1, &err), WEFT_OK);
    ck_assert_int_eq(memcmp(rgb, back, 6), 0);
}
END_TEST

/* ---- refusals ---- */

static void refused(const uint8_t *data, size_t size, weft_status code, const char *word)
{
    static uint8_t rgb[37 * 23 * 3];
    ck_assert_int_eq(wf_file_write(path, data, size, &err), WEFT_OK);
    weft_status st = weft_image_file_read(path, rgb, sizeof rgb, 37, 23, &err);
    ck_assert_msg(st == code, "%zu bytes: %s: %s", size, weft_status_name(st), st == WEFT_OK ? "" : err.text);
    ck_assert_ptr_nonnull(strstr(err.text, "a.jpg"));
    ck_assert_msg(strstr(err.text, word) != NULL, "%s", err.text);
    check_one_line(&err);
}

/* libjpeg fills the rest of a file that ends early with grey, and only warns. */
START_TEST(a_file_that_ends_early_is_refused)
{
    static const char *const cut[] = { "420", "progressive", "grey", "cmyk", "restarts" };
    for (size_t i = 0; i < WF_LEN(cut); i++) {
        bytes b = load(cut[i]);
        for (size_t n = 0; n < b.size - 2; n++) refused(b.data, n, WEFT_E_FORMAT, "a.jpg: n"); /* not, neither */
    }
}
END_TEST

START_TEST(what_is_not_a_picture_is_refused)
{
    bytes b = load("420"), c;

    refused(b.data, 0, WEFT_E_FORMAT, "neither a PNG nor a JPEG: the file is empty");
    refused((const uint8_t *)"GIF89a........", 14, WEFT_E_FORMAT, "not a PNG or a JPEG: it is a GIF image");
    refused((const uint8_t *)"\1\2\3\4\5\6\7", 7, WEFT_E_FORMAT, "neither a PNG nor a JPEG");
    c = b;
    c.data[find(&c, 0xc0) + 4] = 12; /* bits of a sample */
    refused(c.data, c.size, WEFT_E_FORMAT, "not a JPEG that can be read: ");
    c = b;
    c.data[find(&c, 0xc4) + 5] = 0xff; /* a Huffman table with too many codes */
    refused(c.data, c.size, WEFT_E_FORMAT, "not a JPEG that can be read: ");
    c = b;
    memcpy(c.data + find(&c, 0xc0) + 5, "\xff\xdc\xff\xdc", 4); /* in 995 bytes */
    refused(c.data, c.size, WEFT_E_UNSUPPORTED, "65500 x 65500 pixels is too large");
    c = b;
    c.size = find(&c, 0xc0);
    memcpy(c.data + c.size, "\xff\xd9", 2); /* ends before the picture begins */
    refused(c.data, c.size + 2, WEFT_E_FORMAT, "tables, and no picture");
    c = b;
    memset(c.data + find(&c, 0xc0) + 5, 0, 2); /* no rows */
    refused(c.data, c.size, WEFT_E_FORMAT, "not a JPEG that can be read: ");
}
END_TEST

/* Whatever one byte becomes, the picture is read or the refusal is one line; a sanitizer sees what goes beyond. */
START_TEST(any_wrong_byte_is_survived)
{
    const weft_allocator heap = wf_allocator(NULL);
    static const char *const of[] = { "420", "progressive", "cmyk", "orientation6" };
    bytes   b = load(of[_i]);
    int32_t w, h, read = 0, refused_ = 0;

    for (size_t i = 0; i < b.size; i++)
        for (int k = 0; k < 3; k++) {
            bytes c = b;
            c.data[i] = (uint8_t)(k == 0 ? 0 : k == 1 ? 0xff : c.data[i] ^ 0x10);
            weft_status st = wf_jpeg_size(c.data, c.size, "b", &w, &h, &err);
            if (st == WEFT_OK && w * h <= 1 << 16) {
                uint8_t *rgb = malloc(3 * (size_t)w * (size_t)h);
                st = wf_jpeg_read(c.data, c.size, "b", rgb, w, h, &heap, &err);
                free(rgb);
            }
            if (st == WEFT_OK) read++;
            else check_one_line(&err), refused_++;
        }
    ck_assert(read > 100 && refused_ > 100);
}
END_TEST

START_TEST(arguments_are_checked)
{
    static uint8_t rgb[37 * 23 * 3];
    bytes   b = load("orientation6");
    int32_t w, h;

    ck_assert_int_eq(wf_file_write(path, b.data, b.size, &err), WEFT_OK);
    ck_assert_int_eq(weft_image_file_read(path, rgb, sizeof rgb - 1, 23, 37, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_image_file_read(path, rgb, sizeof rgb, 37, 23, &err), WEFT_E_ARG);
    ck_assert_ptr_nonnull(strstr(err.text, "has 23 x 37 pixels, not 37 x 23"));
    ck_assert_int_eq(weft_image_file_read(path, rgb, sizeof rgb, -37, -23, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_image_file_read(path, NULL, sizeof rgb, 23, 37, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_image_file_read(NULL, rgb, sizeof rgb, 23, 37, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_image_file_size(NULL, &w, &h, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_image_file_size(path, NULL, &h, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_image_file_size(path, &w, NULL, &err), WEFT_E_ARG);
    ck_assert_int_eq(weft_image_file_size("absent.jpg", &w, &h, &err), WEFT_E_IO);
}
END_TEST

START_TEST(without_memory_it_says_so)
{
    bytes          b = load("orientation6");
    test_memory    m;
    weft_allocator a = test_allocator(&m);
    static uint8_t rgb[37 * 23 * 3];

    m.fail_at = 1;
    ck_assert_int_eq(wf_jpeg_read(b.data, b.size, "b", rgb, 23, 37, &a, &err), WEFT_E_NOMEM);
    m.fail_at = 0;
    ck_assert_int_eq(wf_jpeg_read(b.data, b.size, "b", rgb, 23, 37, &a, &err), WEFT_OK);
    ck_assert_uint_eq(m.live_blocks, 0);
}
END_TEST

/* ---- EXIF ---- */

/* FF D8, FF E1, length 38 = 2 + 6 + 30: "Exif", a TIFF of 8 bytes, one entry at 8: 2 + 12 + 4, and 4 to spare. */
static const uint8_t block[] = {
    0xff, 0xd8, 0xff, 0xe1, 0, 38, 'E', 'x', 'i', 'f', 0, 0,
    'M', 'M', 0, 42, 0, 0, 0, 8, /* directory: */ 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
};

static int32_t with(size_t at, uint8_t value)
{
    uint8_t b[sizeof block];
    memcpy(b, block, sizeof b);
    b[at] = value;
    return wf_exif_orientation(b, sizeof b);
}

START_TEST(an_exif_block_that_cannot_be_followed_says_nothing)
{
    ck_assert_int_eq(wf_exif_orientation(block, sizeof block), 6);
    for (size_t n = 0; n < sizeof block; n++) { /* cut anywhere: the segment says 38 bytes */
        uint8_t *b = malloc(n + 1);
        memcpy(b, block, n);
        ck_assert_int_eq(wf_exif_orientation(b, n), n < 42 ? 1 : 6);
        free(b);
    }
    ck_assert_int_eq(with(5, 39), 1);    /* a segment past the file                  */
    ck_assert_int_eq(with(5, 1), 1);     /* and one shorter than its own length      */
    ck_assert_int_eq(with(6, 'e'), 1);   /* not EXIF                                 */
    ck_assert_int_eq(with(13, 'I'), 1);  /* neither II nor MM                        */
    ck_assert_int_eq(with(15, 43), 1);
    ck_assert_int_eq(with(16, 0xff), 1); /* a directory past the block               */
    ck_assert_int_eq(with(19, 29), 1);
    ck_assert_int_eq(with(20, 0xff), 6); /* more entries than there are, ours first  */
    ck_assert_int_eq(with(21, 0), 1);    /* none                                     */
    ck_assert_int_eq(with(23, 0x13), 1); /* another tag                              */
    ck_assert_int_eq(with(25, 4), 1);    /* not a short                              */
    ck_assert_int_eq(with(29, 2), 1);    /* two of them                              */
    ck_assert_int_eq(with(31, 0), 1);
    ck_assert_int_eq(with(31, 9), 1);
    ck_assert_int_eq(with(30, 1), 1);    /* 262                                      */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("reading jpeg");
    TCase *c = tcase_create("all");

    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_loop_test(c, every_kind_is_read_as_by_pillow, 0, WF_LEN(names));
    tcase_add_test(c, a_png_is_read_too);
    tcase_add_test(c, a_file_that_ends_early_is_refused);
    tcase_add_test(c, what_is_not_a_picture_is_refused);
    tcase_add_loop_test(c, any_wrong_byte_is_survived, 0, 4);
    tcase_add_test(c, arguments_are_checked);
    tcase_add_test(c, without_memory_it_says_so);
    tcase_add_test(c, an_exif_block_that_cannot_be_followed_says_nothing);
    tcase_set_timeout(c, 60);
    suite_add_tcase(suite, c);
    return run_suite(suite);
}
