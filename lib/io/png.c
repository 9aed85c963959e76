/* png.c - PNG files: written with text chunks inside, and read.
 *
 * libpng reports errors with longjmp, which must not cross a library that Python calls. Its
 * simplified interface keeps the jump inside, so we use only that. It cannot write text chunks, so
 * we add them: a PNG is a list of chunks, each with its own checksum, and ours go before the first
 * IDAT, where readers that stop at the pixels still see them. Text is iTXt, the only kind that
 * holds UTF-8.
 *
 * The same interface reads any PNG as bytes of RGB. Transparent pixels are laid over white here,
 * since libpng would do that in linear light, and browsers and painting programs do not. */
#include <errno.h>
#include <png.h>
#include <zlib.h>

#include "io/io.h"

#define SIGNATURE   8
#define MAX_KEYWORD 79
#define MAX_TEXT    ((size_t)0x7fffffff - 128)
#define MAX_PIXELS  ((size_t)1 << 30)  /* bytes of RGB: beyond any image that a model draws */
#define MAX_SIDE    1000000            /* libpng's own limit */

/* ---- checks ---------------------------------------------------------------------------------- */

weft_status wf_image_check(int32_t width, int32_t height, size_t len, const char *what,
                           weft_error *err)
{
    size_t need;

    if (width < 1 || height < 1)
        return wf_fail(err, WEFT_E_ARG, "an image of %d x %d pixels", width, height);
    if (width > MAX_SIDE || height > MAX_SIDE || !wf_mul((size_t)width, (size_t)height, &need) ||
        !wf_mul(need, 3, &need) || need > MAX_PIXELS)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "an image of %d x %d pixels is too large", width,
                       height);
    if (len == need) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG, "%s has %zu values, but %d x %d pixels of RGB need %zu", what,
                   len, width, height, need);
}

/* PNG's rule: 1 to 79 printable Latin-1 characters, no space first, last or twice. The UTF-8
 * keyword comes out as Latin-1. */
static bool read_keyword(const char *s, char out[MAX_KEYWORD + 1])
{
    size_t   n = strlen(s), used = 0;
    uint32_t last = ' ';

    while (n > 0) {
        uint32_t code   = 0;
        size_t   length = wf_utf8_next(s, n, &code);

        if (length == 0 || code < 32 || (code > 126 && code < 161) || code > 255) return false;
        if (used == MAX_KEYWORD || (code == ' ' && last == ' ')) return false;
        out[used++] = (char)(unsigned char)code;
        last = code;
        s += length;
        n -= length;
    }
    out[used] = '\0';
    return last != ' ';
}

/* ---- chunks ---------------------------------------------------------------------------------- */

static void store_u32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static uint32_t load_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* length, "iTXt", keyword NUL, not compressed (two zeros), no language NUL, no translation NUL,
 * text, crc */
static void add_chunk(wf_text *chunks, const char *keyword, const char *value)
{
    static const char plain[4] = { 0, 0, 0, 0 };
    size_t key_bytes = strlen(keyword) + 1, bytes = key_bytes + sizeof plain + strlen(value), start;
    uint8_t  word[4];

    store_u32(word, (uint32_t)bytes);
    wf_text_bytes(chunks, (const char *)word, 4);
    start = chunks->len;
    wf_text_bytes(chunks, "iTXt", 4);
    wf_text_bytes(chunks, keyword, key_bytes);
    wf_text_bytes(chunks, plain, sizeof plain);
    wf_text_bytes(chunks, value, strlen(value));
    if (chunks->failed) return;
    store_u32(word, (uint32_t)crc32(crc32(0, NULL, 0), (const Bytef *)chunks->s + start,
                                    (uInt)(bytes + 4)));
    wf_text_bytes(chunks, (const char *)word, 4);
}

static weft_status make_chunks(wf_text *chunks, const char *const *text, size_t pairs,
                               weft_error *err)
{
    char keyword[MAX_KEYWORD + 1];

    for (size_t i = 0; i < pairs; i++) {
        const char *key = text[2 * i], *value = text[2 * i + 1];

        if (key == NULL || value == NULL)
            return wf_fail(err, WEFT_E_ARG, "PNG text pair %zu has a NULL", i);
        if (!read_keyword(key, keyword))
            return wf_fail(
                err, WEFT_E_ARG,
                "PNG keyword \"%.160s\": 1 to 79 Latin-1 characters are expected, with no "
                "space first, last or twice",
                key);
        if (strlen(value) > MAX_TEXT || !wf_utf8_valid(value, strlen(value)))
            return wf_fail(err, WEFT_E_ARG, "PNG text of \"%.160s\" is not UTF-8, or over 2 GiB",
                           key);
        add_chunk(chunks, keyword, value);
    }
    return chunks->failed ? wf_nomem(err, chunks->len, "PNG text") : WEFT_OK;
}

/* Where the first IDAT begins, or 0. */
static size_t find_pixels(const uint8_t *png, size_t size)
{
    size_t at = SIGNATURE;

    while (size >= 12 && at <= size - 12) {
        if (memcmp(png + at + 4, "IDAT", 4) == 0) return at;
        if (load_u32(png + at) > size - 12 - at) break;
        at += 12 + (size_t)load_u32(png + at);
    }
    return 0;
}

/* ---- the image ------------------------------------------------------------------------------- */

/* Compress into memory of the largest size that can come out, so that it is done once. */
static weft_status compress_image(const weft_allocator *alloc, const uint8_t *rgb, int32_t width,
                                  int32_t height, uint8_t **out, size_t *size, weft_error *err)
{
    png_image        image;
    png_alloc_size_t bytes;

    memset(&image, 0, sizeof image);
    image.version = PNG_IMAGE_VERSION;
    image.width   = (png_uint_32)width;
    image.height  = (png_uint_32)height;
    image.format  = PNG_FORMAT_RGB;
    bytes = PNG_IMAGE_PNG_SIZE_MAX(image);
    *out  = wf_alloc(alloc, bytes);
    if (*out == NULL) return wf_nomem(err, bytes, "a PNG");

    errno = 0;
    if (png_image_write_to_memory(&image, *out, &bytes, 0, rgb, 0, NULL)) {
        *size = bytes;
        return WEFT_OK;
    }
    wf_free(alloc, *out);
    *out = NULL;
    if (errno == ENOMEM) return wf_nomem(err, bytes, "libpng");
    return wf_fail(err, WEFT_E_INTERNAL, "libpng: %s", image.message);
}

/* A PNG in three parts: what libpng wrote before the pixels, our text, and the pixels. */
typedef struct encoded {
    weft_allocator alloc;
    wf_text        chunks;
    uint8_t       *png;
    wf_part        part[3];
    size_t         size;
} encoded;

static void encoded_free(encoded *e)
{
    wf_free(&e->alloc, e->png);
    wf_text_free(&e->chunks);
}

/* To be freed after a failure too. */
static weft_status encode(encoded *e, const uint8_t *rgb, size_t rgb_len, int32_t width,
                          int32_t height, const char *const *text, size_t pairs, weft_error *err)
{
    size_t size = 0, split;

    *e = (encoded){ .alloc = wf_allocator(NULL) };
    wf_text_init(&e->chunks, &e->alloc);
    if (rgb == NULL) return wf_fail(err, WEFT_E_ARG, "rgb is NULL");
    if (text == NULL && pairs > 0) return wf_fail(err, WEFT_E_ARG, "text is NULL");
    WF_TRY(wf_image_check(width, height, rgb_len, "rgb", err));
    WF_TRY(make_chunks(&e->chunks, text, pairs, err));
    WF_TRY(compress_image(&e->alloc, rgb, width, height, &e->png, &size, err));
    split = find_pixels(e->png, size);
    if (split == 0) return wf_fail(err, WEFT_E_INTERNAL, "libpng made an image without pixels");
    if (!wf_add(size, e->chunks.len, &e->size)) return wf_nomem(err, SIZE_MAX, "a PNG");
    e->part[0] = (wf_part){ e->png, split };
    e->part[1] = (wf_part){ e->chunks.s, e->chunks.len };
    e->part[2] = (wf_part){ e->png + split, size - split };
    return WEFT_OK;
}

weft_status weft_png_write(const char *path, const uint8_t *rgb, size_t rgb_len, int32_t width,
                           int32_t height, const char *const *text, size_t pairs, weft_error *err)
{
    encoded     e;
    weft_status st;

    if (path == NULL) return wf_fail(err, WEFT_E_ARG, "path is NULL");
    st = encode(&e, rgb, rgb_len, width, height, text, pairs, err);
    if (st == WEFT_OK) st = wf_file_write_parts(path, e.part, WF_LEN(e.part), err);
    encoded_free(&e);
    return st;
}

weft_status weft_png_encode(const uint8_t *rgb, size_t rgb_len, int32_t width, int32_t height,
                            const char *const *text, size_t pairs, uint8_t *buf, size_t cap,
                            size_t *needed, weft_error *err)
{
    encoded     e;
    weft_status st;

    if (buf == NULL && cap > 0) return wf_fail(err, WEFT_E_ARG, "buf is NULL");
    st = encode(&e, rgb, rgb_len, width, height, text, pairs, err);
    if (st == WEFT_OK && needed != NULL) *needed = e.size;
    if (st == WEFT_OK && cap > 0 && cap < e.size)
        st = wf_fail(err, WEFT_E_ARG, "buf has %zu bytes, and the PNG needs %zu", cap, e.size);
    for (size_t i = 0; st == WEFT_OK && cap > 0 && i < WF_LEN(e.part); i++) {
        if (e.part[i].size > 0) memcpy(buf, e.part[i].data, e.part[i].size);
        buf += e.part[i].size;
    }
    encoded_free(&e);
    return st;
}

/* ---- reading --------------------------------------------------------------------------------- */

/* libpng's word on what is wrong with a file. It lets go of the image itself. */
static weft_status refuse(const png_image *image, const char *what, weft_error *err)
{
    if (errno == ENOMEM) return wf_nomem(err, 0, what);
    return wf_fail(err, WEFT_E_FORMAT, "%s: not a PNG that can be read: %s", what, image->message);
}

static bool is_png(const uint8_t *data, size_t size)
{
    return size >= 8 && memcmp(data, "\x89PNG\r\n\x1a\n", 8) == 0;
}

/* Everything up to the pixels; on success the image is to be finished or freed. */
static weft_status begin(png_image *image, const uint8_t *data, size_t size, const char *what,
                         weft_error *err)
{
    memset(image, 0, sizeof *image);
    image->version = PNG_IMAGE_VERSION;
    errno = 0;
    if (size == 0) return wf_fail(err, WEFT_E_FORMAT, "%s: not a PNG: the file is empty", what);
    if (!png_image_begin_read_from_memory(image, data, size)) {
        weft_status st = refuse(image, what, err);
        return is_png(data, size) ? st : wf_say_foreign(st, data, size, "a PNG", what, err);
    }
    if (image->width <= MAX_SIDE && image->height <= MAX_SIDE &&
        (size_t)image->width * image->height <= MAX_PIXELS / 3)
        return WEFT_OK;
    png_image_free(image);
    return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: an image of %u x %u pixels is too large", what,
                   (unsigned)image->width, (unsigned)image->height);
}

weft_status wf_png_size(const uint8_t *data, size_t size, const char *what, int32_t *width,
                        int32_t *height, weft_error *err)
{
    png_image image;
    WF_TRY(begin(&image, data, size, what, err));
    *width = (int32_t)image.width;
    *height = (int32_t)image.height;
    png_image_free(&image);
    return WEFT_OK;
}

static weft_status finish(png_image *image, uint8_t *pixels, const char *what, weft_error *err)
{
    image->flags |=
        PNG_IMAGE_FLAG_16BIT_sRGB; /* 16 bits that do not say what they are: as 8 bits */
    errno = 0;
    return png_image_finish_read(image, NULL, pixels, 0, NULL) ? WEFT_OK : refuse(image, what, err);
}

weft_status wf_png_read(const uint8_t *data, size_t size, const char *what, uint8_t *rgb,
                        int32_t width, int32_t height, const weft_allocator *alloc, weft_error *err)
{
    size_t      pixels = (size_t)width * (size_t)height;
    uint8_t    *rgba;
    png_image   image;
    weft_status st;

    WF_TRY(begin(&image, data, size, what, err));
    if ((int32_t)image.width != width || (int32_t)image.height != height) {
        png_image_free(&image);
        return wf_fail(err, WEFT_E_ARG, "%s has %u x %u pixels, not %d x %d", what,
                       (unsigned)image.width, (unsigned)image.height, width, height);
    }
    if ((image.format & PNG_FORMAT_FLAG_ALPHA) == 0) {
        image.format = PNG_FORMAT_RGB;
        return finish(&image, rgb, what, err);
    }
    rgba = wf_alloc(alloc, 4 * pixels);
    if (rgba == NULL) {
        png_image_free(&image);
        return wf_nomem(err, 4 * pixels, what);
    }
    image.format = PNG_FORMAT_RGBA;
    st = finish(&image, rgba, what, err);
    for (size_t i = 0; i < pixels && st == WEFT_OK; i++) {
        uint32_t a = rgba[4 * i + 3];

        for (size_t c = 0; c < 3; c++)
            rgb[3 * i + c] = (uint8_t)((rgba[4 * i + c] * a + 255 * (255 - a) + 127) / 255);
    }
    wf_free(alloc, rgba);
    return st;
}

/* ---- planes to bytes ------------------------------------------------------------------------- */

weft_status weft_image_bytes(const float *image, size_t image_len, int32_t width, int32_t height,
                             uint8_t *rgb, size_t rgb_len, weft_error *err)
{
    size_t      plane;
    weft_status st;

    if (image == NULL) return wf_fail(err, WEFT_E_ARG, "image is NULL");
    if (rgb == NULL) return wf_fail(err, WEFT_E_ARG, "rgb is NULL");
    if ((st = wf_image_check(width, height, image_len, "image", err)) != WEFT_OK) return st;
    if ((st = wf_image_check(width, height, rgb_len, "rgb", err)) != WEFT_OK) return st;

    plane = image_len / 3;
    for (size_t i = 0; i < plane; i++)
        for (size_t c = 0; c < 3; c++) {
            float v = image[c * plane + i];

            v = v > 0.0f ? WF_MIN(v, 1.0f) : 0.0f;  /* NaN is not above 0 */
            rgb[i * 3 + c] = (uint8_t)((double)v * 255.0 + 0.5);
        }
    return WEFT_OK;
}
