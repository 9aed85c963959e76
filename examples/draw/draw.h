/* draw.h - what the examples draw besides the model's images: labels, a plan's table, conflicts.
 *
 * The library gives numbers and text, and leaves drawing to programs. These functions use only
 * the public interface. */
#ifndef DRAW_H
#define DRAW_H

#include <stddef.h>
#include <stdint.h>
#include <weft/weft.h>

/* Write a line of text into an image with a built-in 5 x 7 font, magnified `scale` times. What
 * falls outside is cut, a character outside ASCII shows as a box. rgb (height, width, 3); NULL:
 * only tell the width. (x, y) is the text's top left, colour 0xRRGGBB. Returns the width in pixels;
 * -1, with nothing written, if rgb_len is not 3 * width * height. */
int32_t draw_text(uint8_t *rgb, size_t rgb_len, int32_t width, int32_t height, int32_t x, int32_t y,
                  int32_t scale, uint32_t colour, const char *text);

/* Draw the table of a sealed plan on `model` as a PNG. */
weft_status draw_table(const weft_plan *plan, const weft_model *model, const char *path,
                       weft_error *err);
/* The same, and under it how much of each adapter acts at each call, what calls cost, weights of blocks
 * and masks. Options and flags are those of weft_run_costs(). */
weft_status draw_explain(const weft_plan *plan, const weft_model *model, const weft_run_options *options,
                         uint32_t flags, const char *path, weft_error *err);
/* Draw what acted in the calls of a run that was created with WEFT_RUN_TRACE, on `plan`. */
weft_status draw_trace(const weft_run *run, const weft_plan *plan, const weft_model *model, const char *path,
                       weft_error *err);
/* Draw what stands between the adapters of a sealed plan as a PNG: layers down, for each pair four
 * columns. */
weft_status draw_conflicts(const weft_conflicts *conflicts, const weft_plan *plan, const weft_model *model,
                           const char *path, weft_error *err);

#endif
