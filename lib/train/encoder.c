/* encoder.c - pictures become the latents' distributions: a mean and a deviation for each number.
 *
 * Training picks another latent of a picture in every step, so the distribution is what is kept.
 * The VAE sees the whole picture at once, in float32 whatever the model's arithmetic: tiles would
 * blend where the picture has no seam, and memory is there, since training takes more of it. */
#include <math.h>

#include "tensor/blas_guard.h"
#include "train/encoder.h"

struct wf_encoder {
    weft_allocator alloc;
    const wf_vae  *vae;
    wf_pool       *pool;
    wf_exec        exec;
    int32_t        width, height;
    size_t         image, latent; /* floats of a picture, and of a mean */
    float         *moments;       /* (2, latent)                        */
    uint8_t       *arena;
    uint8_t      **scratch;       /* [threads]                          */
    int32_t        threads;
    int32_t        areas;         /* of OpenBLAS's that are held        */
};

static weft_status take_memory(wf_encoder *e, size_t arena, size_t scratch, weft_error *err)
{
    size_t bytes = 2 * e->latent * sizeof *e->moments;

    if ((e->moments = wf_alloc(&e->alloc, bytes)) == NULL)
        return wf_nomem(err, bytes, "encoded pictures");
    if ((e->arena = wf_alloc(&e->alloc, arena)) == NULL)
        return wf_nomem(err, arena, "encoding pictures");
    e->scratch = wf_zalloc(&e->alloc, (size_t)e->threads, sizeof *e->scratch);
    if (e->scratch == NULL) return wf_nomem(err, sizeof *e->scratch, "the workers' scratch");
    for (int32_t i = 0; i < e->threads; i++)
        if ((e->scratch[i] = wf_alloc(&e->alloc, scratch)) == NULL)
            return wf_nomem(err, scratch, "a worker's scratch");
    e->exec.pool = e->pool;
    e->exec.arena = (wf_arena){ .base = e->arena, .size = arena };
    e->exec.scratch = e->scratch;
    e->exec.scratch_need = scratch;
    e->exec.dry = false;
    return WEFT_OK;
}

/* What the VAE needs is counted by walking it without memory. */
static weft_status prepare(wf_encoder *e, const wf_networks *n, weft_error *err)
{
    e->exec = (wf_exec){ .k = n->kernels, .products = n->exact, .dry = true,
                         .arena = { .dry = true } };
    wf_vae_encode(e->vae, &e->exec, NULL, NULL, wf_image_grid(1, e->height, e->width));
    if (e->exec.arena.overflow) return wf_nomem(err, SIZE_MAX, "encoding pictures");
    WF_TRY(wf_blas_hold(e->threads, err));
    e->areas = e->threads;
    return take_memory(e, e->exec.arena.peak, e->exec.scratch_need, err);
}

weft_status wf_encoder_create(wf_encoder **out, const weft_model *model, wf_pool *pool,
                              int32_t width, int32_t height, bool (*stop)(void *user),
                              void *stop_user, const weft_allocator *alloc, weft_error *err)
{
    const wf_networks *n = wf_model_networks(model);

    *out = NULL;
    if (n->vae == NULL)
        return wf_fail(err, WEFT_E_STATE,
                       "the model has no VAE to encode with: open it with weft_model_options.vae, "
                       "a VAE from elsewhere");
    int32_t f = wf_vae_factor(n->vae);
    if (width < 1 || height < 1 || width % f != 0 || height % f != 0)
        return wf_fail(err, WEFT_E_ARG, "pictures of %d x %d pixels, wanted multiples of %d", width,
                       height, f);
    wf_encoder *e = wf_zalloc(alloc, 1, sizeof *e);
    if (e == NULL) return wf_nomem(err, sizeof *e, "an encoder of pictures");
    e->alloc = *alloc;
    e->vae = n->vae;
    e->pool = pool;
    e->threads = wf_pool_threads(pool);
    e->width = width;
    e->height = height;
    size_t pixels = (size_t)width * (size_t)height;
    e->image = pixels * (size_t)wf_vae_get_config(n->vae)->in_channels;
    e->latent = pixels / ((size_t)f * (size_t)f) *
                (size_t)wf_vae_get_config(n->vae)->latent_channels;
    weft_status st = prepare(e, n, err);
    if (st != WEFT_OK) {
        wf_encoder_free(e);
        return st;
    }
    e->exec.stop = stop;
    e->exec.stop_user = stop_user;
    *out = e;
    return WEFT_OK;
}

void wf_encoder_free(wf_encoder *e)
{
    if (e == NULL) return;
    weft_allocator alloc = e->alloc;
    for (int32_t i = 0; e->scratch != NULL && i < e->threads; i++)
        wf_free(&alloc, e->scratch[i]);
    wf_free(&alloc, e->scratch);
    wf_free(&alloc, e->arena);
    wf_free(&alloc, e->moments);
    wf_blas_let_go(e->areas);
    wf_free(&alloc, e);
}

size_t wf_encoder_floats(const wf_encoder *e) { return e->latent; }

const wf_vae_config *wf_encoder_vae(const wf_encoder *e) { return wf_vae_get_config(e->vae); }

weft_status wf_encoder_encode(wf_encoder *e, const float *image, float *mean, float *deviation,
                              const char *what, weft_error *err)
{
    wf_exec *x = &e->exec;

    x->stopped = false;
    wf_blas_begin();
    wf_vae_encode(e->vae, x, e->moments, image, wf_image_grid(1, e->height, e->width));
    wf_blas_end();
    bool overflow = x->arena.overflow;
    x->arena.used = 0;
    x->arena.overflow = false;
    if (overflow)
        return wf_fail(err, WEFT_E_INTERNAL, "encoding %s needed more memory than was counted",
                       what);
    if (x->stopped) return wf_fail(err, WEFT_E_CANCELLED, "encoding %s was cancelled", what);
    for (size_t i = 0; i < e->latent; i++) {
        float log_variance = e->moments[e->latent + i];
        float bounded = WF_MIN(WF_MAX(log_variance, -30.0f), 20.0f);

        if (!isfinite(e->moments[i]) || isnan(log_variance))
            return wf_fail(err, WEFT_E_NOT_FINITE, "%s: what the VAE makes of it is not finite",
                           what);
        mean[i] = e->moments[i];
        deviation[i] = (float)exp(0.5 * (double)bounded);
    }
    return WEFT_OK;
}
