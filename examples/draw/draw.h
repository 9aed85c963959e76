/* draw.h - what the examples draw: labels, a plan's table, conflicts, and an image in one call.
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

/* The loss of a training over its steps as a PNG: every number faint, and their mean over the last
 * steps on top. loss[i] is of step `first` + i. */
weft_status draw_loss(const double *loss, size_t count, int64_t first, const char *title, const char *path,
                      weft_error *err);
/* What the line shows at each step: a decaying mean of some 50 steps, without the pull of its
 * beginning. *weight is 0 before the first step. */
double draw_smooth(double mean, double *weight, double loss);

/* An image with 20 steps of the model's own sampler and guidance 5. denoise.c has the same loop in
 * the open; here it is out of the way of examples that are about plans. */
typedef struct draw_job {
    const char        *prompt;
    uint64_t           seed;
    int32_t            width;        /* of the latents; 0: the model's */
    int32_t            height;       /* 0: likewise */
    int32_t            layers;       /* of words with a vector for each cross-attention; 0: there are none */
    weft_progress_fn   progress;     /* nonzero cancels; may be NULL */
    void              *progress_user;
    const char *const *regions;      /* prompts of the plan's regions; region i is adapter i's */
    size_t             region_count;
    const char        *path;         /* of the PNG */
} draw_job;
/* The plan is sealed for weft_sampler_calls() of this sampler. */
weft_status draw_sampler(const weft_model *model, weft_sampler **out, weft_error *err);
weft_status draw_picture(weft_model *model, weft_plan *plan, const draw_job *p, weft_error *err);

#endif
