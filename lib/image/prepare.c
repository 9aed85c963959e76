/* prepare.c - a picture as CLIP's image encoder reads it.
 *
 * Shorter side to the encoder's size by Pillow's bicubic filter, the middle cut out, 0..1, then
 * (v - mean) / deviation. Pillow resizes bytes, rows first and then columns, with coefficients of
 * 22 bits after the point, and rounds to bytes between the two. Doing it in floats would be off by
 * a level here and there, so it is done as Pillow does it, to the last bit (Pillow 13, Resample.c;
 * transformers 5, CLIPImageProcessor). Only columns and rows that the cut keeps are computed. */
#include <math.h>

#include "image/image.h"

enum { BITS = 22 };

/* Keys' cubic with a = -1/2; its support is 2. */
static double bicubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

/* One pixel of the result: of `count` pixels from `first` on, with these coefficients. */
typedef struct span { int32_t first, count; int32_t *k; } span;

/* Filter taps of a pixel, at most. */
static size_t taps_of(int32_t from, int32_t to)
{
    double scale = (double)from / to;
    return (size_t)ceil(2 * (scale < 1 ? 1 : scale)) * 2 + 1;
}

static void make_span(span *s, double *w, int32_t from, int32_t to, int32_t at)
{
    double scale = (double)from / to, filter = scale < 1 ? 1 : scale, support = 2 * filter;
    double center = (at + 0.5) * scale, sum = 0;
    int32_t first = (int32_t)(center - support + 0.5), end = (int32_t)(center + support + 0.5);

    s->first = first < 0 ? 0 : first;
    s->count = (end > from ? from : end) - s->first;
    for (int32_t i = 0; i < s->count; i++) {
        w[i] = bicubic((i + s->first - center + 0.5) * (1 / filter));
        sum += w[i];
    }
    for (int32_t i = 0; i < s->count; i++) {
        double v = (sum != 0 ? w[i] / sum : w[i]) * (1 << BITS);
        s->k[i] = (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
    }
}

static uint8_t clip8(int64_t v)
{
    int64_t n = v >> BITS;
    return (uint8_t)(n < 0 ? 0 : n > 255 ? 255 : n);
}

/* What happens to one axis: `keep` pixels from `skip` on of `to`, made of `from`. */
typedef struct axis { int32_t from, to, skip, keep; } axis;

/* Shorter sides become `side`, longer ones keep the shape, rounded down as transformers does. */
static axis axis_of(int32_t length, int32_t other, int32_t side)
{
    int32_t to = length <= other ? side : (int32_t)((int64_t)side * length / other);
    return (axis){ length, to, (to - side) / 2, side };
}

typedef struct sizes { size_t taps, bytes, middle, total; } sizes;

/* Spans and coefficients of one axis at a time, then the picture's bytes, then its rows resized. */
static bool sizes_of(sizes *s, int32_t height, int32_t width, int32_t side)
{
    size_t n = (size_t)side, head;

    if (height < 1 || width < 1 || height > WF_PICTURE_MAX || width > WF_PICTURE_MAX) return false;
    axis y = axis_of(height, width, side), x = axis_of(width, height, side);
    s->taps = WF_MAX(taps_of(y.from, y.to), taps_of(x.from, x.to));
    head = n * sizeof(span) + s->taps * sizeof(double) + n * s->taps * sizeof(int32_t);
    s->bytes = (head + 63) / 64 * 64;
    s->middle = s->bytes + 3 * (size_t)height * (size_t)width;
    s->total = s->middle + 3 * (size_t)height * n;
    return true;
}

size_t wf_picture_scratch(int32_t height, int32_t width, int32_t side)
{
    sizes s;
    return sizes_of(&s, height, width, side) ? s.total : 0;
}

static void make_spans(span *spans, size_t taps, axis a)
{
    double  *w = (double *)(void *)(spans + a.keep);
    int32_t *k = (int32_t *)(void *)(w + taps);

    for (int32_t i = 0; i < a.keep; i++) {
        spans[i].k = k + (size_t)i * taps;
        make_span(&spans[i], w, a.from, a.to, a.skip + i);
    }
}

/* One result of a span over bytes that lie `stride` apart. An axis that keeps its length is not
 * filtered. */
static uint8_t filtered(const span *s, const uint8_t *from, size_t stride)
{
    int64_t sum = (int64_t)1 << (BITS - 1);
    for (int32_t i = 0; i < s->count; i++)
        sum += (int64_t)from[(size_t)(s->first + i) * stride] * s->k[i];
    return clip8(sum);
}

static uint8_t to_byte(float v)
{
    return (uint8_t)(v > 0 ? v < 1 ? 255 * v + 0.5f : 255 : 0);
}

void wf_picture_prepare(float *out, int32_t side, const float *image, int32_t height,
                        int32_t width, const wf_picture_norm *norm, void *scratch)
{
    sizes    s;
    size_t   n = (size_t)side, rows = 3 * (size_t)height, columns = (size_t)width;

    if (!sizes_of(&s, height, width, side)) return;
    axis     y = axis_of(height, width, side), x = axis_of(width, height, side);
    uint8_t *bytes = (uint8_t *)scratch + s.bytes, *middle = (uint8_t *)scratch + s.middle;
    span    *spans = scratch;

    for (size_t i = 0; i < rows * columns; i++) bytes[i] = to_byte(image[i]);
    make_spans(spans, s.taps, x);
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < n; i++)
            middle[r * n + i] = x.from == x.to ? bytes[r * columns + (size_t)x.skip + i]
                                               : filtered(&spans[i], bytes + r * columns, 1);
    make_spans(spans, s.taps, y);
    for (size_t c = 0; c < 3; c++)
        for (size_t j = 0; j < n; j++)
            for (size_t i = 0; i < n; i++) {
                const uint8_t *column = middle + c * (size_t)height * n + i;
                uint8_t v = y.from == y.to ? column[((size_t)y.skip + j) * n]
                                           : filtered(&spans[j], column, n);
                float unit = (float)v / 255.0f;
                out[(c * n + j) * n + i] = (unit - norm->mean[c]) / norm->deviation[c];
            }
}
