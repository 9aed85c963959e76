/* encode_image.c - images become latents, where img2img and inpainting start.
 *
 * The encoder gives a distribution for each latent pixel: a mean and the logarithm of a variance.
 * The caller's noise picks a value from it. Samples are encoded one after the other, in tiles as
 * decoding does; tiles blend means and logarithms first, and pick values afterwards. */
#include <math.h>

#include "run/run_internal.h"

/* x (channels, h, w) = a tile of the image, from 0..1 to -1..1. */
static void cut(const wf_vae_config *c, float *x, const float *image, const wf_tiles *t,
                const wf_tile *k, size_t f)
{
    size_t width = (size_t)t->w * f, height = (size_t)t->h * f;
    for (size_t i = 0; i < (size_t)c->in_channels; i++)
        for (size_t row = 0; row < (size_t)k->h * f; row++) {
            size_t above = i * height + (size_t)k->y * f + row;
            const float *from = image + above * width + (size_t)k->x * f;
            for (size_t col = 0; col < (size_t)k->w * f; col++) *x++ = 2.0f * from[col] - 1.0f;
        }
}

/* The kept part of a tile's moments becomes latents. */
static void keep(const wf_vae_config *c, float *latent, const float *noise, const float *y,
                 const wf_tiles *t, const wf_tile *k)
{
    size_t plane = (size_t)k->h * (size_t)k->w, zc = (size_t)c->latent_channels;
    for (size_t i = 0; i < zc; i++)
        for (size_t row = 0; row < (size_t)k->keep_h; row++) {
            const float *mean = y + i * plane + row * (size_t)k->w,
                *log_variance = mean + zc * plane;
            size_t at = (i * (size_t)t->h + (size_t)k->y + row) * (size_t)t->w + (size_t)k->x;
            for (size_t col = 0; col < (size_t)k->keep_w; col++) {
                float z = mean[col];
                if (noise != NULL) {
                    float bounded = WF_MIN(WF_MAX(log_variance[col], -30.0f), 20.0f);
                    z += noise[at + col] * (float)exp(0.5 * (double)bounded);
                }
                latent[at + col] = (z - c->shift_factor) * c->scaling_factor;
            }
        }
}

/* One sample. All buffers are NULL in a dry walk. */
void wf_encode_image_forward(const weft_run *r, wf_exec *e, const float *image, const float *noise,
                             float *latent)
{
    const wf_vae *v = wf_run_networks(&r->memory)->vae;
    const wf_vae_config *c = wf_vae_get_config(v);
    wf_tiles t = wf_tiles_make(r, 1, 2 * c->latent_channels);
    size_t mark = wf_arena_mark(&e->arena),
        most = (size_t)WF_MIN(t.tile, t.h) * (size_t)WF_MIN(t.tile, t.w);
    int32_t f = wf_vae_factor(v);

    e->products = wf_run_networks(&r->memory)->products;
    wf_tiles_take(&t, e);
    float *x = wf_take(e, most * (size_t)f * (size_t)f, (size_t)c->in_channels);
    float *y = wf_take(e, most, (size_t)t.channels);
    for (int32_t row = 0; row < t.rows; row++)
        for (int32_t col = 0; col < t.cols && !e->stopped; col++) {
            wf_tile k = wf_tiles_at(&t, row, col);
            if (!e->dry) cut(c, x, image, &t, &k, (size_t)f);
            wf_vae_encode(v, e, y, x, wf_image_grid(1, k.h * f, k.w * f));
            if (e->dry || e->stopped) continue;
            if (!wf_watch_result(e, y, (size_t)k.h * (size_t)k.w * (size_t)t.channels)) continue;
            wf_tiles_blend(&t, &k, y);
            keep(c, latent, noise, y, &t, &k);
        }
    wf_arena_release(&e->arena, mark);
}

static void encode(weft_run *r, const float *image, const float *noise, float *latent)
{
    size_t one = wf_run_latent_floats(r), pixels = wf_run_image_floats(r);

    for (size_t i = 0; i < (size_t)r->batch && !r->exec.stopped; i++)
        wf_encode_image_forward(r, &r->exec, image + i * pixels,
                                noise != NULL ? noise + i * one : NULL, latent + i * one);
    (void)wf_watch_result(&r->exec, latent, (size_t)r->batch * one);
}

weft_status weft_run_encode_image(weft_run *r, const float *image, size_t image_len,
                                  const float *noise,
                                  size_t noise_len, float *latent, size_t latent_len,
                                      weft_error *err)
{
    if (r == NULL || image == NULL || latent == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL",
                       r == NULL ? "run" : image == NULL ? "image" : "latent");
    if (wf_run_networks(&r->memory)->vae == NULL)
        return wf_fail(err, WEFT_E_STATE,
                       "the model has no VAE to encode with: open it with weft_model_options.vae, "
                       "a VAE from elsewhere");
    size_t n = (size_t)r->batch, one = wf_run_latent_floats(r), pixels = wf_run_image_floats(r);
    const struct { const char *name; size_t len, want; } sizes[] = {
        { "image", image_len, n * pixels }, { "latent", latent_len, n * one },
        { "noise", noise != NULL ? noise_len : n * one, n * one },
    };
    for (size_t i = 0; i < WF_LEN(sizes); i++)
        if (sizes[i].len != sizes[i].want)
            return wf_fail(err, WEFT_E_ARG, "%s has %zu floats, wanted %zu", sizes[i].name,
                           sizes[i].len, sizes[i].want);
    weft_status st = wf_run_begin(r, "encoding the image", "the encoded image",
                                  r->memory.encode_image_layers, err);
    if (st != WEFT_OK) return st;
    encode(r, image, noise, latent);
    if (r->watch.found) st = wf_input_finite("image", -1, image, image_len, err);
    if (r->watch.found && st == WEFT_OK) st = wf_input_finite("noise", -1, noise, noise_len, err);
    if (st == WEFT_OK && wf_run_look_again(r)) encode(r, image, noise, latent);
    weft_status end = wf_run_end(r, st == WEFT_OK ? err : NULL);
    return st != WEFT_OK ? st : end;
}
