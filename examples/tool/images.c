/* images.c - tensors and images that come from files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

/* Read tensor `name` as floats; its shape must end in the last `rank` of `shape`, where 0 takes any
 * number and stores it. NULL if the file has no such tensor. */
float *read_tensor(const weft_tensors *file, const char *path, const char *name, int64_t *shape, size_t rank)
{
    weft_tensor_info info = WEFT_TENSOR_INFO_INIT;
    int64_t index = weft_tensors_find(file, name);
    int fits = 1;

    if (index < 0) return NULL;
    must(weft_tensors_info(file, (size_t)index, &info, &err));
    fits = info.rank >= rank && info.rank <= 8;
    for (size_t i = 0; fits && i < info.rank; i++) {
        int64_t found = info.shape[i];
        if (i < info.rank - rank) { fits = found == 1; continue; }
        int64_t *wanted = &shape[i - (info.rank - rank)];
        if (*wanted == 0 && found > 0) *wanted = found;
        fits = found == *wanted;
    }
    if (!fits) {
        char found[192] = "", wanted[192] = "";
        for (size_t i = 0; i < info.rank && i < 8; i++)
            snprintf(found + strlen(found), sizeof found - strlen(found), "%s%" PRId64, i ? ", " : "", info.shape[i]);
        for (size_t i = 0; i < rank; i++)
            if (shape[i] == 0) strcat(wanted, ", any");
            else snprintf(wanted + strlen(wanted), sizeof wanted - strlen(wanted), ", %" PRId64, shape[i]);
        fail("%s: %s is (%s), wanted (1%s)", path, name, found, wanted);
    }
    float *data = floats(info.count);
    must(weft_tensors_read(file, (size_t)index, data, info.count, &err));
    return data;
}

void image_size(const char *path, int32_t *width, int32_t *height)
{
    must(weft_image_file_size(path, width, height, &err));
}

static uint8_t *read_rgb(const char *path, int32_t *width, int32_t *height)
{
    must(weft_image_file_size(path, width, height, &err));
    size_t len = 3 * (size_t)*width * (size_t)*height;
    uint8_t *rgb = zeroed(len, 1);
    must(weft_image_file_read(path, rgb, len, *width, *height, &err));
    return rgb;
}

/* One output pixel is the mean of the input pixels that it covers: exact if the sizes agree. */
static double covered(const uint8_t *rgb, int32_t width, int32_t height, int32_t channel, double x0, double x1, double y0, double y1)
{
    double sum = 0, area = 0;
    x1 = x1 < width ? x1 : width;
    y1 = y1 < height ? y1 : height;
    for (int32_t y = (int32_t)y0; y < y1; y++)
        for (int32_t x = (int32_t)x0; x < x1; x++) {
            double w = (x + 1 < x1 ? x + 1 : x1) - (x > x0 ? x : x0), h = (y + 1 < y1 ? y + 1 : y1) - (y > y0 ? y : y0);
            sum += w * h * rgb[3 * ((size_t)y * (size_t)width + (size_t)x) + (size_t)channel];
            area += w * h;
        }
    return sum / area / 255.0;
}

float *read_image(const char *path, int32_t width, int32_t height)
{
    int32_t w, h;
    uint8_t *rgb = read_rgb(path, &w, &h);
    float *image = floats(3 * (size_t)width * (size_t)height), *to = image;
    double dx = (double)w / width, dy = (double)h / height;

    for (int32_t c = 0; c < 3; c++)
        for (int32_t y = 0; y < height; y++)
            for (int32_t x = 0; x < width; x++)
                *to++ = (float)covered(rgb, w, h, c, x * dx, (x + 1) * dx, y * dy, (y + 1) * dy);
    free(rgb);
    return image;
}

float *read_picture(const char *path, int32_t *width, int32_t *height)
{
    uint8_t *rgb = read_rgb(path, width, height);
    size_t pixels = (size_t)*width * (size_t)*height;
    float *image = floats(3 * pixels);
    for (size_t i = 0; i < 3 * pixels; i++) image[i % 3 * pixels + i / 3] = rgb[i] / 255.0f;
    free(rgb);
    return image;
}

float *read_gray(const char *path, int32_t *width, int32_t *height)
{
    uint8_t *rgb = read_rgb(path, width, height);
    size_t pixels = (size_t)*width * (size_t)*height;
    float *gray = floats(pixels);
    for (size_t i = 0; i < pixels; i++)
        gray[i] = (float)(rgb[3 * i] + rgb[3 * i + 1] + rgb[3 * i + 2]) / (3 * 255.0f);
    free(rgb);
    return gray;
}

float *read_mask(const char *path, int32_t width, int32_t height)
{
    float *image = read_image(path, width, height);
    size_t plane = (size_t)width * (size_t)height;
    for (size_t i = 0; i < plane; i++) image[i] = (image[i] + image[plane + i] + image[2 * plane + i]) / 3 >= 0.5f;
    return image;
}
