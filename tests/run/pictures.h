/* pictures.h - what the tests that draw whole pictures share: cases of a golden file become samplers, prompts, runs. */
#ifndef PICTURES_H
#define PICTURES_H

#include <stdbool.h>

#include "golden.h"
#include "plain.h"

static inline const char *word(json_t *o, const char *key, const char *preset)
{
    json_t *v = json_object_get(o, key);
    return json_is_string(v) ? json_string_value(v) : preset;
}

static inline double real(json_t *o, const char *key, double preset)
{
    json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : preset;
}

static inline bool is(json_t *o, const char *key) { return json_is_true(json_object_get(o, key)); }

static inline weft_sampler *make_sampler(json_t *c)
{
    weft_sampler_options o = WEFT_SAMPLER_OPTIONS_INIT;
    weft_sampler *s;
    json_t *config = json_object_get(c, "scheduler");
    const char *spacing = word(config, "timestep_spacing", ""), *predict = word(config, "prediction_type", "epsilon");
    o.kind = weft_sampler_find(word(c, "kind", ""));
    ck_assert_int_ne(o.kind, 0);
    o.steps = (int32_t)real(c, "steps", 20);
    o.eta = (float)real(c, "eta", 0);
    o.steps_offset = (int32_t)real(config, "steps_offset", 0);
    o.origin_steps = (int32_t)real(config, "original_inference_steps", 0);
    o.spacing = strcmp(spacing, "leading") == 0    ? WEFT_SPACING_LEADING
                : strcmp(spacing, "trailing") == 0 ? WEFT_SPACING_TRAILING
                : strcmp(spacing, "linspace") == 0 ? WEFT_SPACING_LINSPACE : WEFT_SPACING_DEFAULT;
    o.prediction = strcmp(predict, "v_prediction") == 0 ? WEFT_PREDICT_V : WEFT_PREDICT_EPSILON;
    if (is(c, "karras")) o.flags |= WEFT_SAMPLER_KARRAS;
    if (is(config, "set_alpha_to_one")) o.flags |= WEFT_SAMPLER_ALPHA_TO_ONE;
    if (is(config, "rescale_betas_zero_snr")) o.flags |= WEFT_SAMPLER_ZERO_SNR;
    must(weft_sampler_create(&o, &s, &golden_err));
    return s;
}

/* The conditioning of a prompt; zeros where none is given, as SDXL takes it. */
static inline float *encode(weft_run *run, plain_shape shape, const char *prompt, float **pooled)
{
    plain_encode e = PLAIN_ENCODE_INIT;
    e.text_len = 77 * (size_t)shape.dim;
    e.pooled_len = (size_t)shape.pooled;
    e.text = calloc(e.text_len, sizeof *e.text);
    e.pooled = e.pooled_len > 0 ? calloc(e.pooled_len, sizeof *e.pooled) : NULL;
    e.prompt = prompt;
    *pooled = e.pooled;
    if (prompt != NULL) must(plain_run_encode(run, &e, &golden_err));
    return e.text;
}

/* The decoded picture of the final latents: within 1/255 for 99.9 % of its values. */
static inline void check_pixels(const char *name, weft_run *run, const float *x, size_t n, const golden *u8)
{
    int32_t h = (int32_t)u8->shape[0], w = (int32_t)u8->shape[1];
    float *image = malloc(u8->n * sizeof *image);
    uint8_t *rgb = malloc(u8->n);
    size_t off = 0;
    must(weft_run_decode(run, x, n, image, u8->n, &golden_err));
    must(weft_image_bytes(image, u8->n, w, h, rgb, u8->n, &golden_err));
    for (size_t i = 0; i < u8->n; i++) off += fabs((double)rgb[i] - u8->v[i]) > 1.0;
    ck_assert_msg(off * 1000 <= u8->n, "%s: %zu of %zu values differ by more than 1", name, off, u8->n);
    free(image), free(rgb);
}

/* A run of the base model for pictures of a case's size. */
static inline weft_run *open_run(weft_model *model, json_t *c, weft_model_info *m, int32_t calls)
{
    weft_run_options ro = WEFT_RUN_OPTIONS_INIT;
    weft_plan *plan;
    weft_run *run;
    must(weft_model_info_get(model, m, &golden_err));
    must(weft_plan_create(model, NULL, &plan, &golden_err));
    must(weft_plan_seal(plan, calls, &golden_err));
    ro.threads = 2;
    ro.height = (int32_t)real(c, "height", 0) / m->image_factor;
    ro.width = (int32_t)real(c, "width", 0) / m->image_factor;
    must(weft_run_create(plan, &ro, &run, &golden_err));
    weft_plan_free(plan);
    return run;
}

#endif
