/* picture.c - a sealed plan and a prompt become a PNG, for examples whose idea is the plan.
 *
 * This is the loop of denoise.c with the model's own sampler settings; what the examples differ in
 * stands before it. A region's prompt is encoded with the text-encoder part of its own adapter. */
#include <stdlib.h>
#include <string.h>

#include "draw.h"

enum { STREAMS = 4, REGIONS = 16 };
static const float GUIDANCE = 5.0f;

typedef struct easel {
    weft_run       *run;
    weft_sampler   *sampler;
    weft_noise     *noise;
    weft_text       text[STREAMS], empty[STREAMS], region[REGIONS * STREAMS];
    float          *x, *scaled, *prediction, *image;
    uint8_t        *rgb;
    weft_run_info   info;
    size_t          streams;
    int32_t         layers[STREAMS]; /* that a stream has rows for; 0: one for all */
} easel;

static weft_status no_memory(weft_error *err)
{
    if (err != NULL) *err = (weft_error){ .code = WEFT_E_NOMEM, .text = "out of memory for a picture" };
    return WEFT_E_NOMEM;
}

/* adapter: whose text-encoder part acts; -1: those of the plan's policy. */
static weft_status encode(easel *e, const char *prompt, int32_t adapter, int32_t chunks, weft_text *text,
                          uint64_t *stamp, weft_error *err)
{
    weft_encode how = WEFT_ENCODE_INIT;
    weft_status st = WEFT_OK;

    for (size_t i = 0; i < e->streams && st == WEFT_OK; i++) {
        text[i] = (weft_text)WEFT_TEXT_INIT;
        text[i].cross_layers = e->layers[i];
        if ((st = weft_run_text(e->run, (int32_t)i, chunks, &text[i], err)) != WEFT_OK) return st;
        if ((text[i].data = calloc(text[i].len, sizeof(float))) == NULL) return no_memory(err);
    }
    if (adapter >= 0) {
        how.flags = WEFT_ENCODE_ADAPTER;
        how.adapter = adapter;
    }
    how.prompt = prompt;
    how.text = text;
    how.text_count = e->streams;
    st = weft_run_encode(e->run, &how, err);
    if (stamp != NULL) *stamp = how.stamp;
    return st;
}

static weft_status encode_all(easel *e, const weft_plan *plan, const draw_job *p, weft_step *step, weft_error *err)
{
    int32_t chunks = 1;
    weft_status st = weft_plan_prompt_size(plan, p->prompt, 0, NULL, &chunks, err);

    if (st == WEFT_OK) st = encode(e, p->prompt, -1, chunks, e->text, &step->stamp, err);
    if (st == WEFT_OK) st = encode(e, "", -1, chunks, e->empty, NULL, err);
    for (size_t i = 0; i < p->region_count && st == WEFT_OK; i++)
        st = encode(e, p->regions[i], (int32_t)i, 1, &e->region[i * e->streams], NULL, err);
    step->text = e->text;             step->text_count = e->streams;
    step->negative = e->empty;        step->negative_count = e->streams;
    step->region_text = p->region_count > 0 ? e->region : NULL;
    step->region_text_count = p->region_count * e->streams;
    step->guidance = GUIDANCE;
    return st;
}

static weft_status take_buffers(easel *e, weft_error *err)
{
    size_t len = e->info.latent_len;
    e->x = calloc(len, sizeof(float));
    e->scaled = calloc(len, sizeof(float));
    e->prediction = calloc(len, sizeof(float));
    e->image = calloc(e->info.image_len, sizeof(float));
    e->rgb = calloc(e->info.image_len, 1);
    return e->x && e->scaled && e->prediction && e->image && e->rgb ? WEFT_OK : no_memory(err);
}

static weft_status denoise(easel *e, weft_step *step, uint64_t seed, weft_error *err)
{
    size_t len = e->info.latent_len;
    weft_status st = weft_noise_create(seed, NULL, &e->noise, err);

    if (st == WEFT_OK) st = weft_noise_normal(e->noise, e->x, len, err);
    if (st == WEFT_OK) st = weft_sampler_begin(e->sampler, 0, len, err);
    for (size_t i = 0; i < len; i++) e->x[i] *= weft_sampler_init_scale(e->sampler);
    step->latent = e->scaled;        step->latent_len = len;
    step->out = e->prediction;       step->out_len = len;
    for (int32_t n = 0; n < weft_sampler_calls(e->sampler) && st == WEFT_OK; n++) {
        step->call = n;
        step->timestep = weft_sampler_timestep(e->sampler, n);
        st = weft_sampler_scale(e->sampler, n, e->x, e->scaled, len, err);
        if (st == WEFT_OK) st = weft_run_step(e->run, step, err);
        if (st == WEFT_OK) st = weft_sampler_step(e->sampler, n, e->prediction, e->x, len, e->noise, err);
    }
    return st;
}

static weft_status write_png(easel *e, const draw_job *p, weft_error *err)
{
    const char *text[] = { "parameters", p->prompt };
    int32_t factor = 1;
    weft_status st;

    while ((size_t)3 * (size_t)(factor * e->info.height) * (size_t)(factor * e->info.width) < e->info.image_len) factor++;
    st = weft_run_decode(e->run, e->x, e->info.latent_len, e->image, e->info.image_len, err);
    if (st == WEFT_OK)
        st = weft_image_bytes(e->image, e->info.image_len, factor * e->info.width, factor * e->info.height, e->rgb,
                              e->info.image_len, err);
    if (st == WEFT_OK)
        st = weft_png_write(p->path, e->rgb, e->info.image_len, factor * e->info.width, factor * e->info.height, text, 1,
                            err);
    return st;
}

weft_status draw_sampler(const weft_model *model, weft_sampler **out, weft_error *err)
{
    weft_sampler_options schedule = WEFT_SAMPLER_OPTIONS_INIT;
    weft_status st = weft_sampler_options_from_model(model, &schedule, err);

    *out = NULL;
    schedule.steps = 20;
    return st == WEFT_OK ? weft_sampler_create(&schedule, out, err) : st;
}

weft_status draw_picture(weft_model *model, weft_plan *plan, const draw_job *p, weft_error *err)
{
    easel *e = calloc(1, sizeof *e);
    weft_run_options options = WEFT_RUN_OPTIONS_INIT;
    weft_step step = WEFT_STEP_INIT;
    weft_status st;

    if (e == NULL) return no_memory(err);
    e->info = (weft_run_info)WEFT_RUN_INFO_INIT;
    options.width = p->width;
    options.height = p->height;
    options.progress = p->progress;
    options.progress_user = p->progress_user;
    if ((st = draw_sampler(model, &e->sampler, err)) != WEFT_OK) goto done;
    if ((st = weft_run_create(plan, &options, &e->run, err)) != WEFT_OK) goto done;
    if ((st = weft_run_info_get(e->run, &e->info, err)) != WEFT_OK) goto done;
    e->streams = (size_t)e->info.text_streams;
    if (e->streams > STREAMS || p->region_count > REGIONS) {
        if (err != NULL) *err = (weft_error){ .code = WEFT_E_ARG, .text = "more text streams or regions than draw_picture() takes" };
        st = WEFT_E_ARG;
        goto done;
    }
    for (size_t i = 0; i < e->streams && p->layers > 0; i++) {
        weft_text_info about = WEFT_TEXT_INFO_INIT;
        if ((st = weft_model_text(model, (int32_t)i, &about, err)) != WEFT_OK) goto done;
        if (about.cross_layers > 0) e->layers[i] = p->layers;
    }
    if ((st = take_buffers(e, err)) != WEFT_OK) goto done;
    if ((st = encode_all(e, plan, p, &step, err)) != WEFT_OK) goto done;
    if ((st = denoise(e, &step, p->seed, err)) != WEFT_OK) goto done;
    st = write_png(e, p, err);
done:
    for (size_t i = 0; i < STREAMS; i++) free(e->text[i].data), free(e->empty[i].data);
    for (size_t i = 0; i < REGIONS * STREAMS; i++) free(e->region[i].data);
    free(e->x), free(e->scaled), free(e->prediction), free(e->image), free(e->rgb);
    weft_noise_free(e->noise);
    weft_run_free(e->run);
    weft_sampler_free(e->sampler);
    free(e);
    return st;
}
