/* image.h - images as bytes: rounding, PNG, JPEG. Pixels are RGB, rows top down, no padding. */
#ifndef WEFT_IMAGE_H
#define WEFT_IMAGE_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Turn a decoded image into bytes: round(255 * v) with v clamped to 0..1, and NaN as 0.
 *
 * @param image  (3, height, width), read
 * @param rgb    (height, width, 3), written
 * @since 0.1
 */
WEFT_API weft_status weft_image_bytes(const float *image, size_t image_len, int32_t width,
                                      int32_t height, uint8_t *rgb, size_t rgb_len,
                                      weft_error *err);

/**
 * Write an RGB image as PNG; the file appears whole or not at all.
 *
 * @param text   2 * pairs strings: keyword (1..79 Latin-1 characters), UTF-8 value, ...; each pair
 *               becomes an iTXt chunk before the image data. Other tools read "parameters".
 * @since 0.1
 */
WEFT_API weft_status weft_png_write(const char *path, const uint8_t *rgb, size_t rgb_len,
                                    int32_t width, int32_t height, const char *const *text,
                                    size_t pairs, weft_error *err);

/**
 * The same PNG in memory.
 *
 * @param buf     receives the file's bytes; may be NULL when cap is 0, to learn how many they are
 * @param needed  bytes of the whole file; may be NULL
 * @return WEFT_E_ARG also if cap is not 0 and less than needed: half a PNG is of no use
 * @since 0.2
 */
WEFT_API weft_status weft_png_encode(const uint8_t *rgb, size_t rgb_len, int32_t width,
                                     int32_t height, const char *const *text, size_t pairs,
                                     uint8_t *buf, size_t cap, size_t *needed, weft_error *err);

/** Width and height of a PNG. @return WEFT_E_IO, WEFT_E_FORMAT @since 0.1 */
WEFT_API weft_status weft_png_size(const char *path, int32_t *width, int32_t *height,
                                   weft_error *err);
/**
 * Read a PNG as RGB. Grey, palette and 16-bit images are converted; transparent pixels are laid
 * over white.
 *
 * @param rgb  (height, width, 3), written; width and height must be those of weft_png_size()
 * @return WEFT_E_IO, WEFT_E_FORMAT, WEFT_E_ARG, WEFT_E_NOMEM
 * @since 0.1
 */
WEFT_API weft_status weft_png_read(const char *path, uint8_t *rgb, size_t rgb_len, int32_t width,
                                   int32_t height, weft_error *err);

/**
 * Width and height of a picture in a PNG or a JPEG; the first bytes say which. Of a JPEG these are
 * what is seen: EXIF's orientation is followed.
 *
 * @return WEFT_E_IO, WEFT_E_FORMAT, WEFT_E_UNSUPPORTED
 * @since 0.2
 */
WEFT_API weft_status weft_image_file_size(const char *path, int32_t *width, int32_t *height,
                                          weft_error *err);
/**
 * Read it as RGB: a PNG as weft_png_read() does; a JPEG's grey is three equal values, its CMYK
 * is taken without a colour profile. A file that ends early is refused.
 *
 * @param rgb  (height, width, 3), written; width and height must be those of
 *             weft_image_file_size(). On failure it may be written in part
 * @return WEFT_E_IO, WEFT_E_FORMAT, WEFT_E_UNSUPPORTED, WEFT_E_ARG, WEFT_E_NOMEM
 * @since 0.2
 */
WEFT_API weft_status weft_image_file_read(const char *path, uint8_t *rgb, size_t rgb_len,
                                          int32_t width, int32_t height, weft_error *err);
#ifdef __cplusplus
}
#endif
#endif
