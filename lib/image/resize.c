/* resize.c - Pillow's bicubic filter, to the last bit.
 *
 * Pillow resizes bytes, rows first and then columns, with coefficients of 22 bits after the point,
 * and rounds to bytes between the two; a picture that gets smaller is filtered over as many pixels
 * more. Doing it in floats would be off by a level here and there, so it is done as Pillow does it
 * (Resample.c). Only columns and rows that are kept are computed. Pillow 13 takes columns first for
 * some shapes (a picture over twice as high as wide); we never do, and may differ by a few levels
 * there. */
#include <math.h>

#include "image/resize.h"

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
static size_t taps_of(wf_axis a)
{
    double scale = (double)a.from / a.to;
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

bool wf_resize_make(wf_resize *r, wf_axis y, wf_axis x)
{
    size_t n = (size_t)WF_MAX(y.keep, x.keep), head;

    if (y.from < 1 || x.from < 1 || y.from > WF_PICTURE_MAX || x.from > WF_PICTURE_MAX)
        return false;
    *r = (wf_resize){ .y = y, .x = x, .taps = WF_MAX(taps_of(y), taps_of(x)) };
    head = n * sizeof(span) + r->taps * sizeof(double) + n * r->taps * sizeof(int32_t);
    r->bytes = (head + 63) / 64 * 64;
    r->middle = r->bytes + 3 * (size_t)y.from * (size_t)x.from;
    r->total = r->middle + 3 * (size_t)y.from * (size_t)x.keep;
    return true;
}

/* Coefficients of one axis at a time. */
static void make_spans(span *spans, size_t taps, wf_axis a)
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

void wf_resize_rows(const wf_resize *r, void *scratch)
{
    const uint8_t *bytes = wf_resize_planes(r, scratch);
    uint8_t *middle = (uint8_t *)scratch + r->middle;
    size_t   rows = 3 * (size_t)r->y.from, columns = (size_t)r->x.from, n = (size_t)r->x.keep;
    span    *spans = scratch;

    make_spans(spans, r->taps, r->x);
    for (size_t row = 0; row < rows; row++)
        for (size_t i = 0; i < n; i++)
            middle[row * n + i] = r->x.from == r->x.to
                                      ? bytes[row * columns + (size_t)r->x.skip + i]
                                      : filtered(&spans[i], bytes + row * columns, 1);
    make_spans(spans, r->taps, r->y);
}

uint8_t wf_resize_pixel(const wf_resize *r, const void *scratch, size_t c, size_t row,
                        size_t column)
{
    size_t n = (size_t)r->x.keep;
    const span    *spans = scratch;
    const uint8_t *middle = (const uint8_t *)scratch + r->middle;
    const uint8_t *above = middle + c * (size_t)r->y.from * n + column;

    return r->y.from == r->y.to ? above[((size_t)r->y.skip + row) * n]
                                : filtered(&spans[row], above, n);
}
