/* image.h - pictures as bytes: rounding, writing PNG, labels. Pixels are RGB, rows top down, no padding. */
#ifndef WEFT_IMAGE_H
#define WEFT_IMAGE_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Turn a decoded picture into bytes, round(255 * v) with v clamped to 0..1 and NaN as 0.
 *
 * @param image  (3, height, width), read
 * @param rgb    (height, width, 3), written
 * @since 0.1
 */
WEFT_API weft_status weft_image_bytes(const float *image, size_t image_len, int32_t width, int32_t height,
                                      uint8_t *rgb, size_t rgb_len, weft_error *err);

/**
 * Write an RGB picture as PNG; the file appears whole or not at all.
 *
 * @param text   2 * pairs strings: keyword (1..79 Latin-1 characters), UTF-8 value, ...; each pair becomes
 *               an iTXt chunk before the image data. "parameters" is where other tools look.
 * @since 0.1
 */
WEFT_API weft_status weft_png_write(const char *path, const uint8_t *rgb, size_t rgb_len, int32_t width,
                                    int32_t height, const char *const *text, size_t pairs, weft_error *err);

/** Width and height of a PNG. @return WEFT_E_IO, WEFT_E_FORMAT @since 0.1 */
WEFT_API weft_status weft_png_size(const char *path, int32_t *width, int32_t *height, weft_error *err);
/**
 * Read a PNG as RGB; grey, palette and 16-bit pictures are converted, transparency is laid over white.
 *
 * @param rgb  (height, width, 3), written; width and height must be those of weft_png_size()
 * @return WEFT_E_IO, WEFT_E_FORMAT, WEFT_E_ARG, WEFT_E_NOMEM
 * @since 0.1
 */
WEFT_API weft_status weft_png_read(const char *path, uint8_t *rgb, size_t rgb_len, int32_t width, int32_t height,
                                   weft_error *err);
/**
 * Write a line of text into a picture with a built-in 5 x 7 font, magnified `scale` times; what falls
 * outside is cut, characters outside ASCII show as a box.
 *
 * @param rgb      (height, width, 3), written; NULL to learn the width alone, sizes are not looked at then
 * @param x        left edge of the text, as y is its top
 * @param colour   0xRRGGBB
 * @return width of the text in pixels; -1, with nothing written, where rgb_len is not 3 * width * height
 * @since 0.1
 */
WEFT_API int32_t weft_image_text(uint8_t *rgb, size_t rgb_len, int32_t width, int32_t height, int32_t x, int32_t y,
                                 int32_t scale, uint32_t colour, const char *text);

#ifdef __cplusplus
}
#endif
#endif
