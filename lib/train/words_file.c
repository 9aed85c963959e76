/* words_file.c - trained words in the forms of files.
 *
 *   one text encoder     <name>                          (vectors, width)   diffusers, kohya
 *   SDXL's two           clip_l, clip_g, metadata name   (vectors, width)   its community's
 *   several words of it  bundle_emb.<name>.clip_l, ..                       a bundle
 *   for each layer       params.new_concept_embedding.<name>  (layers, width)  ED-LoRA, flattened
 *
 * lib/concept reads them all, and is what makes a concept of them in memory too: there is one way
 * from tensors to tokens. */
#include "train/words.h"

enum { KEY_MAX = 300 };

static bool in_brackets(const char *name)
{
    size_t n = strlen(name);
    return n >= 3 && name[0] == '<' && name[n - 1] == '>';
}

/* A key whose form says by itself that it is a token, or the only one of its file. */
static void key_of(const wf_new_words *w, int32_t word, int32_t encoder, char key[KEY_MAX])
{
    static const char *const each[2] = { "clip_l", "clip_g" };
    const char              *name = w->word[word].name;

    if (w->layers > 1) wf_format(key, KEY_MAX, "params.new_concept_embedding.%s", name);
    else if (w->encoders > 1 && w->count == 1) wf_format(key, KEY_MAX, "%s", each[encoder]);
    else if (w->encoders > 1) wf_format(key, KEY_MAX, "bundle_emb.%s.%s", name, each[encoder]);
    else if (w->count == 1 || in_brackets(name)) wf_format(key, KEY_MAX, "%s", name);
    else wf_format(key, KEY_MAX, "bundle_emb.%s.emb_params", name);
}

static weft_status put(const wf_new_words *w, const float *values, int32_t word, int32_t encoder,
                       bool half, weft_tensors *to, weft_error *err)
{
    size_t      width = (size_t)w->width[encoder], one = (size_t)w->vectors * width,
                layers = (size_t)w->layers;
    int64_t     shape[] = { (int64_t)w->vectors * w->layers, (int64_t)width };
    char        key[KEY_MAX];
    float      *v = wf_zalloc(&w->alloc, layers * one, sizeof *v);
    weft_status st;

    if (v == NULL) return wf_nomem(err, layers * one * sizeof *v, "the vectors of a word");
    for (size_t j = 0; j < layers; j++) {
        size_t from = j * w->each + w->at[encoder] + (size_t)w->word[word].row * width;
        memcpy(v + j * one, values + from, one * sizeof *v);
    }
    key_of(w, word, encoder, key);
    st = wf_trainer_put(to, key, v, 2, shape, half, err);
    wf_free(&w->alloc, v);
    return st;
}

weft_status wf_new_words_put(const wf_new_words *w, const float *values, bool half,
                             weft_tensors *to, weft_error *err)
{
    if (w->layers > 1 && w->encoders > 1)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "words with vectors for each layer have no form for two text encoders");
    for (int32_t i = 0; i < w->count; i++)
        for (int32_t k = 0; k < w->encoders; k++)
            WF_TRY(put(w, values, i, k, half, to, err));
    return w->count == 1 ? wf_tensors_add_meta(to, "name", w->word[0].name, err) : WEFT_OK;
}

weft_status wf_new_words_concept(const wf_new_words *w, const float *values, const char *name,
                                 weft_adapter *adapter, weft_concept **out, weft_error *err)
{
    weft_tensors *t = NULL;
    weft_status   st;

    *out = NULL;
    WF_TRY(wf_tensors_new(&w->alloc, name, &t, err));
    st = wf_new_words_put(w, values, false, t, err);
    if (st == WEFT_OK) st = wf_tensors_seal(t, err);
    if (st == WEFT_OK) st = wf_concept_create(t, name, adapter, &w->alloc, out, err);
    weft_tensors_free(t);
    return st;
}

weft_status wf_trainer_concept_of(const weft_trainer *t, weft_adapter *adapter,
                                  weft_concept **out, weft_error *err)
{
    const char *name = t->o.name != NULL ? t->o.name : t->recipe->name;

    return wf_new_words_concept(wf_trainer_new_words(t), wf_trainer_words(t), name, adapter, out,
                                err);
}

weft_status wf_trainer_concept_with_adapter(weft_trainer *t, weft_concept **out, weft_error *err)
{
    weft_adapter *a;
    weft_status   st;

    WF_TRY(weft_trainer_adapter(t, &a, err));
    st = wf_trainer_concept_of(t, a, out, err);
    weft_adapter_free(a);
    return st;
}

weft_status wf_trainer_save_words(weft_trainer *t, const char *path, bool half, weft_error *err)
{
    weft_tensors *list;
    weft_status   st;

    WF_TRY(wf_tensors_new(&t->alloc, path, &list, err));
    st = wf_new_words_put(wf_trainer_new_words(t), wf_trainer_words(t), half, list, err);
    if (st == WEFT_OK) st = wf_trainer_write(t, list, path, err);
    weft_tensors_free(list);
    return st;
}
