/* tile.c - an image too large for memory passes through the VAE in overlapping tiles.
 *
 * Tiles begin every three quarters of a tile, so neighbours share a quarter. There a tile fades,
 * along a ramp, from what its neighbour above made into its own, then in the same way from the
 * neighbour at its left. The first three quarters of the result are kept, and the rest fades into
 * the next tiles. These are diffusers' rules in every detail: a tile cut short by the image's edge
 * fades over its whole length, and the strip handed down has itself been blended.
 *
 * Only strips of the overlap's width outlive a tile: one of the tile at the left, one of each tile
 * above. So memory is that of one tile, and of a thin strip as wide as the image.
 *
 * Each tile is normalised by its own statistics, which is why the result is not exactly that of the
 * whole image. */
#include "run/run_internal.h"

wf_tiles wf_tiles_make(const weft_run *r, int32_t scale, int32_t channels)
{
    bool whole = r->tile == 0 || (r->height <= r->tile && r->width <= r->tile);
    int32_t tile = whole ? WF_MAX(r->height, r->width) : r->tile, overlap = whole ? 0 : r->tile / 4;
    wf_tiles t = { .h = r->height, .w = r->width, .tile = tile, .overlap = overlap,
                   .step = tile - overlap, .scale = scale, .channels = channels };
    t.rows = (t.h + t.step - 1) / t.step;
    t.cols = (t.w + t.step - 1) / t.step;
    return t;
}

/* Values of a strip: `overlap` rows of a tile, or as many columns. */
static size_t strip(const wf_tiles *t)
{
    return (size_t)t->channels * (size_t)(t->overlap * t->scale) * (size_t)(t->tile * t->scale);
}

void wf_tiles_take(wf_tiles *t, wf_exec *e)
{
    t->left = t->overlap > 0 ? wf_take(e, strip(t), 1) : NULL;
    t->above = t->overlap > 0 ? wf_take(e, strip(t), (size_t)t->cols) : NULL;
}

wf_tile wf_tiles_at(const wf_tiles *t, int32_t row, int32_t col)
{
    wf_tile k = { .row = row, .col = col, .y = row * t->step, .x = col * t->step };
    k.h = WF_MIN(t->tile, t->h - k.y);
    k.w = WF_MIN(t->tile, t->w - k.x);
    k.keep_h = WF_MIN(k.h, t->step);
    k.keep_w = WF_MIN(k.w, t->step);
    return k;
}

/* A strip is (channels, overlap, tile) of the rows of the tile above, or (channels, tile, overlap)
 * of the columns of the one at the left; it holds the end of what that one made. A tile that has a
 * next is longer than its strip. */
void wf_tiles_blend(const wf_tiles *t, const wf_tile *k, float *y)
{
    size_t h = (size_t)(k->h * t->scale), w = (size_t)(k->w * t->scale),
        e = (size_t)(t->overlap * t->scale);
    size_t size = (size_t)(t->tile * t->scale), rows = WF_MIN(h, e), cols = WF_MIN(w, e);
    float *above = t->above != NULL ? t->above + (size_t)k->col * strip(t) : NULL;

    for (size_t c = 0; c < (size_t)t->channels && k->row > 0; c++)
        for (size_t i = 0; i < rows; i++) {
            const float *from = above + (c * e + e - rows + i) * size;
            float *to = y + (c * h + i) * w, part = (float)i / (float)rows;
            for (size_t j = 0; j < w; j++) to[j] = from[j] * (1.0f - part) + to[j] * part;
        }
    for (size_t c = 0; c < (size_t)t->channels && k->col > 0; c++)
        for (size_t i = 0; i < h; i++) {
            const float *from = t->left + (c * size + i) * e + e - cols;
            float *to = y + (c * h + i) * w;
            for (size_t j = 0; j < cols; j++) {
                float part = (float)j / (float)cols;
                to[j] = from[j] * (1.0f - part) + to[j] * part;
            }
        }
    for (size_t c = 0; c < (size_t)t->channels && k->row + 1 < t->rows; c++)
        for (size_t i = 0; i < e; i++)
            memcpy(above + (c * e + i) * size, y + (c * h + h - e + i) * w, w * sizeof *y);
    for (size_t c = 0; c < (size_t)t->channels && k->col + 1 < t->cols; c++)
        for (size_t i = 0; i < h; i++)
            memcpy(t->left + (c * size + i) * e, y + (c * h + i) * w + w - e, e * sizeof *y);
}
