/* denoiser.c - which network a denoiser's configuration asks for. */
#include "nets/denoiser.h"
#include "nets/unet.h"

static const wf_denoiser_ops *const all[] = { &wf_unet_ops };

weft_status wf_denoiser_build(const json_t *config, const char *path,
                              const wf_denoiser_hints *hints, wf_binder *b,
                              wf_denoiser **out, weft_error *err)
{
    const json_t *named = json_object_get(config, "_class_name");
    const char *word = json_string_value(named);
    bool any = named == NULL || json_is_null(named);

    *out = NULL;
    for (size_t i = 0; i < WF_LEN(all); i++)
        if (any || (word != NULL && strcmp(word, all[i]->class_name) == 0))
            return all[i]->build(config, path, hints, b, out, err);
    return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: class \"%s\" is not supported, wanted %s", path,
                   word != NULL ? word : "?", all[0]->class_name);
}

void wf_denoiser_free(wf_denoiser *d, const weft_allocator *alloc)
{
    if (d != NULL) d->ops->free(d, alloc);
}

void wf_denoise(const wf_denoiser *d, wf_exec *e, float *out, const wf_denoise_input *in)
{
    d->ops->forward(d, e, out, in);
}
