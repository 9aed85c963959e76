/* decode.c - latents become images, one sample after the other, so that memory is that of one.
 *
 * Everything is computed in float32, whatever type the weights have. So SDXL's VAE, whose
 * activations overflow float16, needs no special care. */
#include "run/run_internal.h"

/* x (channels, h, w) = a tile of the latents, as the VAE scales them. */
static void cut(const wf_vae_config *c, float *x, const float *latent, const wf_tiles *t,
                const wf_tile *k)
{
    for (int32_t i = 0; i < c->latent_channels; i++)
        for (int32_t row = 0; row < k->h; row++) {
            size_t above = (size_t)i * (size_t)t->h + (size_t)(k->y + row);
            const float *from = latent + above * (size_t)t->w + k->x;
            for (int32_t col = 0; col < k->w; col++)
                *x++ = from[col] / c->scaling_factor + c->shift_factor;
        }
}

/* The kept part of a tile goes into the image, from -1..1 to 0..1. */
static void keep(float *image, const float *y, const wf_tiles *t, const wf_tile *k)
{
    size_t f = (size_t)t->scale, width = (size_t)t->w * f, height = (size_t)t->h * f;
    size_t w = (size_t)k->w * f, h = (size_t)k->h * f;
    for (size_t c = 0; c < (size_t)t->channels; c++)
        for (size_t row = 0; row < (size_t)k->keep_h * f; row++) {
            const float *from = y + (c * h + row) * w;
            float *to = image + (c * height + (size_t)k->y * f + row) * width + (size_t)k->x * f;
            for (size_t col = 0; col < (size_t)k->keep_w * f; col++) {
                float v = from[col] * 0.5f + 0.5f;
                to[col] = v < 0.0f ? 0.0f : v > 1.0f ? 1.0f : v;
            }
        }
}

/* One sample. latent and image are NULL in a dry walk. */
void wf_decode_forward(const weft_run *r, wf_exec *e, const float *latent, float *image)
{
    const wf_vae *v = wf_run_networks(&r->memory)->vae;
    const wf_vae_config *c = wf_vae_get_config(v);
    wf_tiles t = wf_tiles_make(r, wf_vae_factor(v), c->out_channels);
    size_t mark = wf_arena_mark(&e->arena),
        most = (size_t)WF_MIN(t.tile, t.h) * (size_t)WF_MIN(t.tile, t.w);
    size_t f = (size_t)t.scale;

    e->products = wf_run_networks(&r->memory)->products;
    wf_tiles_take(&t, e);
    float *z = wf_take(e, most, (size_t)c->latent_channels);
    float *y = wf_take(e, most * f * f, (size_t)c->out_channels);
    for (int32_t row = 0; row < t.rows; row++)
        for (int32_t col = 0; col < t.cols && !e->stopped; col++) {
            wf_tile k = wf_tiles_at(&t, row, col);
            if (!e->dry) cut(c, z, latent, &t, &k);
            wf_vae_decode(v, e, y, z, wf_image_grid(1, k.h, k.w));
            if (e->dry || e->stopped) continue;
            size_t floats = (size_t)k.h * (size_t)k.w * f * f * (size_t)c->out_channels;
            if (!wf_watch_result(e, y, floats)) continue; /* keep() would make a 1 of infinity */
            wf_tiles_blend(&t, &k, y);
            keep(image, y, &t, &k);
        }
    wf_arena_release(&e->arena, mark);
}

static void decode(weft_run *r, const float *latent, float *image)
{
    size_t one = wf_run_latent_floats(r), pixels = wf_run_image_floats(r);

    for (size_t i = 0; i < (size_t)r->batch && !r->exec.stopped; i++)
        wf_decode_forward(r, &r->exec, latent + i * one, image + i * pixels);
}

weft_status weft_run_decode(weft_run *r, const float *latent, size_t latent_len, float *image,
                            size_t image_len, weft_error *err)
{
    if (r == NULL || latent == NULL || image == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL",
                       r == NULL ? "run" : latent == NULL ? "latent" : "image");
    const wf_vae *v = wf_run_networks(&r->memory)->vae;
    if (v == NULL)
        return wf_fail(err, WEFT_E_STATE,
                       "the model has no VAE to decode with: open it with weft_model_options.vae, "
                       "a VAE from elsewhere");
    size_t n = (size_t)r->batch, one = wf_run_latent_floats(r), pixels = wf_run_image_floats(r);
    if (latent_len != n * one || image_len != n * pixels)
        return wf_fail(err, WEFT_E_ARG, "%s has %zu floats, wanted %zu",
                       latent_len != n * one ? "latent" : "image",
                       latent_len != n * one ? latent_len : image_len,
                       latent_len != n * one ? n * one : n * pixels);
    weft_status st = wf_run_begin(r, "decoding", "the decoded image", r->memory.decode_layers, err);
    if (st != WEFT_OK) return st;
    decode(r, latent, image);
    if (r->watch.found) st = wf_input_finite("latent", -1, latent, latent_len, err);
    if (st == WEFT_OK && wf_run_look_again(r)) decode(r, latent, image);
    weft_status end = wf_run_end(r, st == WEFT_OK ? err : NULL);
    return st != WEFT_OK ? st : end;
}
