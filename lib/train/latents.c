/* latents.c - the latents of what was drawn.
 *
 * Where a picture is always cut in the same way, its distribution is computed once, and once more
 * mirrored: a step then costs no pass through the VAE, and yet sees another latent each time. Where
 * cuts or sizes are drawn anew there is nothing to keep. */
#include "train/dataset_internal.h"
#include "weft/sampler.h"

bool wf_dataset_cacheable(const wf_dataset *set, wf_data_list list)
{
    return !set->o.random_crop && !(set->o.augment && list == WF_DATA_INSTANCE);
}

static size_t ways(const wf_dataset *set) { return set->o.flip ? 2 : 1; }

static float *kept_at(const wf_dataset *set, wf_data_list list, size_t picture, bool flip)
{
    return set->kept[list] + (picture * ways(set) + (flip ? 1 : 0)) * 2 * set->latent;
}

static weft_status keep(wf_dataset *set, wf_data_list list, size_t i, bool flip, float *image,
                        wf_encoder *encoder, weft_error *err)
{
    wf_sample s;
    float    *to = kept_at(set, list, i, flip);

    wf_data_plain(set, list, i, flip, &s);
    WF_TRY(wf_dataset_image(set, &s, image, err));
    return wf_encoder_encode(encoder, image, to, to + set->latent, set->picture[list][i].name,
                             err);
}

static weft_status take_room(wf_dataset *set, wf_data_list list, weft_error *err)
{
    size_t floats, bytes;

    if (!wf_mul(set->count[list] * ways(set), 2 * set->latent, &floats) ||
        !wf_mul(floats, sizeof(float), &bytes))
        return wf_nomem(err, SIZE_MAX, "latents");
    set->kept[list] = wf_alloc(&set->alloc, bytes);
    return set->kept[list] != NULL ? WEFT_OK : wf_nomem(err, bytes, "latents");
}

static weft_status fill(wf_dataset *set, wf_encoder *encoder, float *image,
                        weft_progress_fn progress, void *user, weft_error *err)
{
    int64_t done = 0, total = 0;

    for (wf_data_list list = 0; list < WF_DATA_LISTS; list++)
        if (wf_dataset_cacheable(set, list)) total += (int64_t)set->count[list];
    for (wf_data_list list = 0; list < WF_DATA_LISTS; list++) {
        if (!wf_dataset_cacheable(set, list) || set->count[list] == 0) continue;
        WF_TRY(take_room(set, list, err));
        for (size_t i = 0; i < set->count[list]; i++) {
            for (size_t way = 0; way < ways(set); way++)
                WF_TRY(keep(set, list, i, way == 1, image, encoder, err));
            if (progress != NULL && progress(user, "encoding the pictures", ++done, total) != 0)
                return wf_fail(err, WEFT_E_CANCELLED, "encoding the pictures was cancelled");
        }
    }
    return WEFT_OK;
}

weft_status wf_dataset_cache(wf_dataset *set, wf_encoder *encoder, weft_progress_fn progress,
                             void *progress_user, weft_error *err)
{
    size_t bytes = 3 * (size_t)set->o.width * (size_t)set->o.height * sizeof(float);
    float *image = wf_alloc(&set->alloc, bytes);

    if (image == NULL) return wf_nomem(err, bytes, "a picture");
    wf_dataset_cache_free(set);
    set->latent = wf_encoder_floats(encoder);
    set->scale = wf_encoder_vae(encoder)->scaling_factor;
    set->shift = wf_encoder_vae(encoder)->shift_factor;
    weft_status st = fill(set, encoder, image, progress, progress_user, err);
    if (st != WEFT_OK) wf_dataset_cache_free(set);
    wf_free(&set->alloc, image);
    return st;
}

void wf_dataset_cache_free(wf_dataset *set)
{
    for (wf_data_list list = 0; list < WF_DATA_LISTS; list++) {
        wf_free(&set->alloc, set->kept[list]);
        set->kept[list] = NULL;
    }
    set->latent = 0;
}

uint64_t wf_dataset_cache_bytes(const wf_dataset *set)
{
    uint64_t bytes = 0;
    for (wf_data_list list = 0; list < WF_DATA_LISTS; list++)
        if (set->kept[list] != NULL)
            bytes += (uint64_t)set->count[list] * ways(set) * 2 * set->latent * sizeof(float);
    return bytes;
}

/* latent holds noise, and then the value that it picks. */
static void pick(float *latent, const float *mean, const float *deviation, size_t n, float scale,
                 float shift)
{
    for (size_t i = 0; i < n; i++)
        latent[i] = (mean[i] + latent[i] * deviation[i] - shift) * scale;
}

static weft_status encode_and_pick(wf_dataset *set, const wf_sample *s, wf_encoder *encoder,
                                   float *latent, weft_error *err)
{
    const char *name = set->picture[s->list][s->picture].name;
    size_t      n = wf_encoder_floats(encoder);
    size_t      pixels = 3 * (size_t)set->o.width * (size_t)set->o.height;
    size_t      bytes = (pixels + 2 * n) * sizeof(float);
    float      *image = wf_alloc(&set->alloc, bytes);

    if (image == NULL) return wf_nomem(err, bytes, name);
    float *mean = image + pixels, *deviation = mean + n;
    weft_status st = wf_dataset_image(set, s, image, err);
    if (st == WEFT_OK) st = wf_encoder_encode(encoder, image, mean, deviation, name, err);
    if (st == WEFT_OK)
        pick(latent, mean, deviation, n, wf_encoder_vae(encoder)->scaling_factor,
             wf_encoder_vae(encoder)->shift_factor);
    wf_free(&set->alloc, image);
    return st;
}

weft_status wf_dataset_latent(wf_dataset *set, const wf_sample *s, wf_encoder *encoder,
                              float *latent, weft_error *err)
{
    weft_noise_options o = WEFT_NOISE_OPTIONS_INIT;
    weft_noise        *noise = NULL;
    bool               kept = set->kept[s->list] != NULL;
    size_t             n = kept ? set->latent : encoder != NULL ? wf_encoder_floats(encoder) : 0;

    if (n == 0)
        return wf_fail(err, WEFT_E_STATE, "%s: its latents are not kept, and there is no encoder",
                       set->picture[s->list][s->picture].name);
    o.allocator = &set->alloc;
    WF_TRY(weft_noise_create(s->seed, &o, &noise, err));
    weft_status st = weft_noise_normal(noise, latent, n, err);
    weft_noise_free(noise);
    if (st != WEFT_OK) return st;
    if (!kept) return encode_and_pick(set, s, encoder, latent, err);
    const float *mean = kept_at(set, s->list, s->picture, s->flip);
    pick(latent, mean, mean + n, n, set->scale, set->shift);
    return WEFT_OK;
}
