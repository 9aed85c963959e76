/* resize.h - pictures of bytes in another size, as Pillow resizes them. For image/ and train/. */
#ifndef WF_RESIZE_H
#define WF_RESIZE_H

#include "base/base.h"

enum { WF_PICTURE_MAX = 16384 }; /* side of a picture, in pixels */

/* What happens to one axis: `keep` pixels from `skip` on of `to`, made of `from`. */
typedef struct wf_axis { int32_t from, to, skip, keep; } wf_axis;

/* Three planes resized. Scratch has `total` bytes: coefficients, the planes (3, y.from, x.from) at
 * `bytes`, their rows resized (3, y.from, x.keep) at `middle`. */
typedef struct wf_resize {
    wf_axis y, x;
    size_t  taps, bytes, middle, total;
} wf_resize;

/* False if a side is below 1 or above WF_PICTURE_MAX. */
bool    wf_resize_make(wf_resize *r, wf_axis y, wf_axis x);
/* Where the caller puts the planes. */
static inline uint8_t *wf_resize_planes(const wf_resize *r, void *scratch)
{
    return (uint8_t *)scratch + r->bytes;
}
/* Rows first: then every pixel can be asked for. */
void    wf_resize_rows(const wf_resize *r, void *scratch);
/* Pixel (row, column) of what is kept of plane c. */
uint8_t wf_resize_pixel(const wf_resize *r, const void *scratch, size_t c, size_t row,
                        size_t column);

#endif
