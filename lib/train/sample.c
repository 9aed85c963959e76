/* sample.c - the pixels of what was drawn: resized, mirrored, cut out, as the VAE reads them.
 *
 * Resizing is Pillow's bicubic filter, which is wider where a picture gets smaller: without that
 * the detail of a photograph would turn into patterns that it does not have, and be learnt. */
#include "image/resize.h"
#include "train/dataset_internal.h"

static void to_planes(uint8_t *planes, const uint8_t *rgb, size_t pixels)
{
    for (size_t i = 0; i < pixels; i++)
        for (size_t c = 0; c < 3; c++) planes[c * pixels + i] = rgb[3 * i + c];
}

/* The cut in its place. The picture is mirrored before it is cut. */
static void place(const wf_dataset *set, const wf_sample *s, const wf_resize *r,
                  const void *scratch, float *image)
{
    size_t W = (size_t)set->o.width, H = (size_t)set->o.height;
    size_t w = (size_t)s->cut_w, h = (size_t)s->cut_h;

    for (size_t i = 0; i < 3 * W * H; i++) image[i] = 0; /* middle grey beside a smaller one */
    for (size_t c = 0; c < 3; c++)
        for (size_t y = 0; y < h; y++) {
            float *row = image + (c * H + (size_t)s->at_y + y) * W + (size_t)s->at_x;
            for (size_t x = 0; x < w; x++) {
                uint8_t v = wf_resize_pixel(r, scratch, c, y, s->flip ? w - 1 - x : x);
                row[x] = 2.0f * ((float)v / 255.0f) - 1.0f;
            }
        }
}

weft_status wf_dataset_image(wf_dataset *set, const wf_sample *s, float *image, weft_error *err)
{
    const wf_data_picture *p = &set->picture[s->list][s->picture];
    const uint8_t *rgb;
    uint8_t       *held;
    void          *scratch = NULL;
    wf_resize      r;
    int32_t        right = s->resized_w - s->cut_w - s->left;
    wf_axis y = { p->height, s->resized_h, s->top, s->cut_h };
    wf_axis x = { p->width, s->resized_w, s->flip ? right : s->left, s->cut_w };
    weft_status    st = wf_data_pixels(set, p, &rgb, &held, err);

    if (st == WEFT_OK && !wf_resize_make(&r, y, x))
        st = wf_fail(err, WEFT_E_INTERNAL, "%s: %d x %d pixels", p->name, p->width, p->height);
    if (st == WEFT_OK && (scratch = wf_alloc(&set->alloc, r.total)) == NULL)
        st = wf_nomem(err, r.total, p->name);
    if (st == WEFT_OK) {
        to_planes(wf_resize_planes(&r, scratch), rgb, (size_t)p->width * (size_t)p->height);
        wf_resize_rows(&r, scratch);
        place(set, s, &r, scratch, image);
    }
    wf_free(&set->alloc, scratch);
    wf_free(&set->alloc, held);
    return st;
}

/* Of one axis: latent pixels [*first, *end) are the picture's. What the VAE makes of a border is
 * half of the grey beside it, so one more is left out there, but never all of them. */
static void inside(int32_t at, int32_t cut, int32_t side, int32_t f, int32_t *first, int32_t *end)
{
    int32_t centre = (at + cut / 2) / f;

    *first = 0;
    *end = side / f;
    if (cut == side) return;
    *first = WF_MIN(at / f + 1, centre);
    *end = WF_MAX((at + cut) / f - 1, centre + 1);
}

void wf_dataset_mask(const wf_dataset *set, const wf_sample *s, float *mask)
{
    int32_t f = set->o.factor, x0, x1, y0, y1;

    inside(s->at_x, s->cut_w, set->o.width, f, &x0, &x1);
    inside(s->at_y, s->cut_h, set->o.height, f, &y0, &y1);
    for (int32_t y = 0; y < set->o.height / f; y++)
        for (int32_t x = 0; x < set->o.width / f; x++)
            *mask++ = x >= x0 && x < x1 && y >= y0 && y < y1 ? 1.0f : 0.0f;
}
