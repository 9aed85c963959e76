/* decode.c - latents become pictures, one sample after the other, so that memory is that of one. */
#include "run/room.h"

/* One sample: image in 0..1. latent and image are NULL in a dry walk. */
void wf_decode_forward(const weft_run *r, wf_exec *e, const float *latent, float *image)
{
    const wf_vae *v = wf_run_parts(&r->fit)->vae;
    const wf_vae_config *c = wf_vae_get_config(v);
    size_t mark = wf_arena_mark(&e->arena), n = (size_t)c->latent_channels * (size_t)r->height * (size_t)r->width;
    size_t f = (size_t)wf_vae_factor(v), pixels = (size_t)c->out_channels * (size_t)r->height * f * (size_t)r->width * f;
    float *z = wf_take(e, n, 1);
    for (size_t i = 0; i < n && !e->dry && !e->stopped; i++) z[i] = latent[i] / c->scaling_factor + c->shift_factor;
    wf_vae_decode(v, e, image, z, (wf_grid){ 1, r->height, r->width });
    for (size_t i = 0; i < pixels && !e->dry && !e->stopped; i++) {
        float y = image[i] * 0.5f + 0.5f;
        image[i] = y < 0.0f ? 0.0f : y > 1.0f ? 1.0f : y;
    }
    wf_arena_release(&e->arena, mark);
}

weft_status weft_run_decode(weft_run *r, const float *latent, size_t latent_len, float *image, size_t image_len,
                            weft_error *err)
{
    if (r == NULL || latent == NULL || image == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", r == NULL ? "run" : latent == NULL ? "latent" : "image");
    const wf_parts *p = wf_run_parts(&r->fit);
    if (p->vae == NULL) return wf_fail(err, WEFT_E_STATE, "the model has no VAE to decode with");
    size_t f = (size_t)wf_vae_factor(p->vae), plane = (size_t)r->height * (size_t)r->width;
    size_t one = (size_t)p->unet_config.in_channels * plane, picture = 3 * plane * f * f, n = (size_t)r->batch;
    if (latent_len != n * one || image_len != n * picture)
        return wf_fail(err, WEFT_E_ARG, "%s has %zu floats, wanted %zu", latent_len != n * one ? "latent" : "image",
                       latent_len != n * one ? latent_len : image_len, latent_len != n * one ? n * one : n * picture);
    weft_status st = wf_run_begin(r, "decoding", r->fit.decode_layers, err);
    if (st != WEFT_OK) return st;
    r->exec.branch = NULL;
    r->exec.cells = wf_plan_row(r->fit.plan, 0);
    for (size_t i = 0; i < n && !r->exec.stopped; i++)
        wf_decode_forward(r, &r->exec, latent + i * one, image + i * picture);
    return wf_run_end(r, err);
}
