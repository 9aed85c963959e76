/* prepare.c - a picture as CLIP's image encoder reads it.
 *
 * Shorter side to the encoder's size by Pillow's bicubic filter (resize.c), the middle cut out,
 * 0..1, then (v - mean) / deviation: transformers 5, CLIPImageProcessor. */
#include "image/image.h"

/* Shorter sides become `side`, longer ones keep the shape, rounded down as transformers does. */
static wf_axis axis_of(int32_t length, int32_t other, int32_t side)
{
    int32_t to = length <= other ? side : (int32_t)((int64_t)side * length / other);
    return (wf_axis){ length, to, (to - side) / 2, side };
}

static bool resize_of(wf_resize *r, int32_t height, int32_t width, int32_t side)
{
    if (height < 1 || width < 1) return false;
    return wf_resize_make(r, axis_of(height, width, side), axis_of(width, height, side));
}

size_t wf_picture_scratch(int32_t height, int32_t width, int32_t side)
{
    wf_resize r;
    return resize_of(&r, height, width, side) ? r.total : 0;
}

static uint8_t to_byte(float v)
{
    return (uint8_t)(v > 0 ? v < 1 ? 255 * v + 0.5f : 255 : 0);
}

void wf_picture_prepare(float *out, int32_t side, const float *image, int32_t height,
                        int32_t width, const wf_picture_norm *norm, void *scratch)
{
    wf_resize r;
    size_t    n = (size_t)side, count = 3 * (size_t)height * (size_t)width;

    if (!resize_of(&r, height, width, side)) return;
    uint8_t *bytes = wf_resize_planes(&r, scratch);
    for (size_t i = 0; i < count; i++) bytes[i] = to_byte(image[i]);
    wf_resize_rows(&r, scratch);
    for (size_t c = 0; c < 3; c++)
        for (size_t j = 0; j < n; j++)
            for (size_t i = 0; i < n; i++) {
                float unit = (float)wf_resize_pixel(&r, scratch, c, j, i) / 255.0f;
                out[(c * n + j) * n + i] = (unit - norm->mean[c]) / norm->deviation[c];
            }
}
