/* picture.c - a picture in a file, PNG or JPEG by its first bytes; a name's ending says little. */
#include "io/io.h"

static bool begins(const uint8_t *data, size_t size, const char *bytes, size_t n)
{
    return size >= n && memcmp(data, bytes, n) == 0;
}

typedef enum kind { OTHER, PNG, JPEG } kind;

static kind kind_of(const uint8_t *data, size_t size)
{
    if (begins(data, size, "\x89PNG\r\n\x1a\n", 8)) return PNG;
    return begins(data, size, "\xff\xd8\xff", 3) ? JPEG : OTHER;
}

static weft_status neither(const uint8_t *data, size_t size, const char *what, weft_error *err)
{
    weft_status st = wf_fail(err, WEFT_E_FORMAT, "%s: neither a PNG nor a JPEG%s", what,
                             size == 0 ? ": the file is empty" : "");
    return wf_say_foreign(st, data, size, "a PNG or a JPEG", what, err);
}

weft_status wf_image_size(const uint8_t *data, size_t size, const char *what, int32_t *width,
                          int32_t *height, weft_error *err)
{
    switch (kind_of(data, size)) {
    case PNG:  return wf_png_size(data, size, what, width, height, err);
    case JPEG: return wf_jpeg_size(data, size, what, width, height, err);
    default:   return neither(data, size, what, err);
    }
}

weft_status wf_image_read(const uint8_t *data, size_t size, const char *what, uint8_t *rgb,
                          int32_t width, int32_t height, const weft_allocator *alloc,
                          weft_error *err)
{
    switch (kind_of(data, size)) {
    case PNG:  return wf_png_read(data, size, what, rgb, width, height, alloc, err);
    case JPEG: return wf_jpeg_read(data, size, what, rgb, width, height, alloc, err);
    default:   return neither(data, size, what, err);
    }
}

/* ---- files ----------------------------------------------------------------------------------- */

typedef weft_status (*size_fn)(const uint8_t *data, size_t size, const char *what, int32_t *width,
                               int32_t *height, weft_error *err);
typedef weft_status (*read_fn)(const uint8_t *data, size_t size, const char *what, uint8_t *rgb,
                               int32_t width, int32_t height, const weft_allocator *alloc,
                               weft_error *err);

static weft_status file_size(size_fn of, const char *path, int32_t *width, int32_t *height,
                             weft_error *err)
{
    const weft_allocator alloc = wf_allocator(NULL);
    wf_file     file = WF_FILE_NONE;
    weft_status st;

    if (path == NULL || width == NULL || height == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL",
                       path == NULL    ? "path"
                       : width == NULL ? "width"
                                       : "height");
    st = wf_file_open(&file, path, false, &alloc, err);
    if (st == WEFT_OK) st = of(file.data, file.size, path, width, height, err);
    wf_file_close(&file, &alloc);
    return st;
}

static weft_status file_read(read_fn of, const char *path, uint8_t *rgb, size_t rgb_len,
                             int32_t width, int32_t height, weft_error *err)
{
    const weft_allocator alloc = wf_allocator(NULL);
    wf_file     file = WF_FILE_NONE;
    weft_status st;

    if (path == NULL || rgb == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", path == NULL ? "path" : "rgb");
    WF_TRY(wf_image_check(width, height, rgb_len, "rgb", err));
    st = wf_file_open(&file, path, false, &alloc, err);
    if (st == WEFT_OK) st = of(file.data, file.size, path, rgb, width, height, &alloc, err);
    wf_file_close(&file, &alloc);
    return st;
}

weft_status weft_image_file_size(const char *path, int32_t *width, int32_t *height,
                                 weft_error *err)
{
    return file_size(wf_image_size, path, width, height, err);
}

weft_status weft_image_file_read(const char *path, uint8_t *rgb, size_t rgb_len, int32_t width,
                                 int32_t height, weft_error *err)
{
    return file_read(wf_image_read, path, rgb, rgb_len, width, height, err);
}

weft_status weft_png_size(const char *path, int32_t *width, int32_t *height, weft_error *err)
{
    return file_size(wf_png_size, path, width, height, err);
}

weft_status weft_png_read(const char *path, uint8_t *rgb, size_t rgb_len, int32_t width,
                          int32_t height, weft_error *err)
{
    return file_read(wf_png_read, path, rgb, rgb_len, width, height, err);
}
