/* recipe_custom_diffusion.c - keys and values of the cross-attentions, whole, and a word before the
 * name of the class ("a photo of a <new1> cat").
 *
 * Kumari et al., Multi-Concept Customization of Text-to-Image Diffusion (2023). The word begins as
 * a rare one of the vocabulary. Class pictures keep what the class was; their loss is plain, that
 * of the others is taken where the picture is, once WEFT_TRAIN_RESIZE changes its size. With
 * WEFT_TRAIN_CROSS queries and outputs are trained too.
 *
 * Files are diffusers': weights that replace the model's, under the names of attention processors;
 * the word is a file of its own beside them, NAME.words.safetensors. */
#include "train/words.h"

static const char keys[] = "*.attn2.to_k,*.attn2.to_v";
static const char cross[] = "*.attn2.to_q,*.attn2.to_out.0";

static const wf_form *form(const weft_trainer *t, const wf_layer *l)
{
    bool picked = l->component == WEFT_COMPONENT_DENOISER &&
                  (wf_glob_any(keys, l->name) ||
                   ((t->o.flags & WEFT_TRAIN_CROSS) != 0 && wf_glob_any(cross, l->name)));
    return picked ? &wf_form_full : NULL;
}

static bool picks(const weft_trainer *t, const wf_layer *l)
{
    return form(t, l) != NULL;
}

static weft_status words(weft_trainer *t, wf_words *out, weft_error *err)
{
    return wf_recipe_words(t, true, 1, out, err);
}

static weft_status concept(weft_trainer *t, weft_concept **out, weft_error *err)
{
    return wf_trainer_concept_with_adapter(t, out, err);
}

/* "unet.up.attn2.to_k" is "up.attn2.processor.to_k_custom_diffusion.weight" there, and to_out.0
 * "up.attn2.processor.to_out_custom_diffusion.0.weight". */
static bool name_of(const wf_layer *l, const char *tensor, char *buf, size_t cap)
{
    static const char attention[] = ".attn2.", out[] = "to_out.0", prefix[] = "unet.";
    const char *path = l->name + sizeof prefix - 1, *at = strstr(path, attention);

    if (strncmp(l->name, prefix, sizeof prefix - 1) != 0 || at == NULL) return false;
    const char *which = at + sizeof attention - 1;
    int         n = (int)(which - path);
    if (strcmp(which, out) == 0)
        return wf_format(buf, cap, "%.*sprocessor.to_out_custom_diffusion.0.%s", n, path, tensor);
    return wf_format(buf, cap, "%.*sprocessor.%s_custom_diffusion.%s", n, path, which, tensor);
}

static weft_status put_site(const wf_site *s, bool half, weft_tensors *to, weft_error *err)
{
    static const char *const ends[] = { "weight", "bias" };
    char name[600];

    for (int32_t i = 0; i < s->tensors; i++) {
        int64_t shape[] = { s->layer->out, s->layer->in };
        if (!name_of(s->layer, ends[i], name, sizeof name))
            return wf_fail(err, WEFT_E_INTERNAL, "%s: diffusers has no name for it",
                           s->layer->name);
        WF_TRY(wf_trainer_put(to, name, s->value[i], i == 0 ? 2 : 1, shape, half, err));
    }
    return WEFT_OK;
}

static weft_status save_weights(weft_trainer *t, const char *path, bool half, weft_error *err)
{
    weft_tensors *list;
    weft_status   st = WEFT_OK;

    WF_TRY(wf_tensors_new(&t->alloc, path, &list, err));
    for (size_t i = 0; i < t->sites && st == WEFT_OK; i++)
        st = put_site(&t->site[i], half, list, err);
    if (st == WEFT_OK) st = wf_trainer_write(t, list, path, err);
    weft_tensors_free(list);
    return st;
}

/* NAME.safetensors has its words in NAME.words.safetensors. */
static weft_status save_words_beside(weft_trainer *t, const char *path, bool half, weft_error *err)
{
    static const char ending[] = ".safetensors";
    size_t            n = strlen(path), e = sizeof ending - 1;
    wf_text           beside;
    weft_status       st;

    if (n > e && strcmp(path + n - e, ending) == 0) n -= e;
    wf_text_init(&beside, &t->alloc);
    wf_text_add(&beside, "%.*s.words%s", (int)n, path, ending);
    st = beside.failed ? wf_nomem(err, n, "a path") : wf_trainer_save_words(t, beside.s, half, err);
    wf_text_free(&beside);
    return st;
}

static weft_status save(weft_trainer *t, const char *path, int32_t dialect, bool half,
                        weft_error *err)
{
    if (dialect != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "custom-diffusion has one form of file: dialect is %d, wanted 0",
                       (int)dialect);
    WF_TRY(save_words_beside(t, path, half, err));
    return save_weights(t, path, half, err);
}

const wf_recipe wf_recipe_custom_diffusion = {
    .id = WEFT_RECIPE_CUSTOM_DIFFUSION,
    .name = "custom-diffusion",
    .uses = WF_USES_WORDS,
    .flags = WEFT_TRAIN_CROSS | WEFT_TRAIN_RESIZE,
    .defaults = { .rate = 2e-5, .weight_decay = 1e-2, .steps = 500, .batch = 2, .vectors = 1 },
    .end = wf_recipe_words_end,
    .form = form,
    .picks = picks,
    .words = words,
    .caption = wf_recipe_words_caption,
    .concept = concept,
    .save = save,
};
