/* recipe_ed_lora.c - words with a vector for each cross-attention layer, and pairs beside all
 * projections of the attentions: ED-LoRA.
 *
 * Gu et al., Mix-of-Show: Decentralized Low-Rank Adaptation for Multi-Concept Customization of
 * Diffusion Models (2023). A concept is two words, "<cat1> <cat2>": the first begins as random
 * numbers, the second as the word of the class (initial = ",cat"); the vectors of all layers begin
 * equal. Captions have `{}` in their place. A caption is encoded once for each layer.
 *
 * The authors' program has a term more, which holds the attention of the words inside a mask of the
 * subject; it wants masks, which our pictures have not, and is left out.
 *
 * The file is that of their program with its nested names flattened by dots
 * (params.unet.<path>.lora_down.weight, params.new_concept_embedding.<word>). There is no alpha in
 * it: factors are multiplied as they are. */
#include <math.h>

#include "train/words.h"

static weft_status check(const weft_model *m, const weft_train_options *o, weft_error *err)
{
    const wf_networks *n = wf_model_networks(m);

    if (n->encoders != 1)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "ed-lora is for models with one text encoder, and this one has %d",
                       (int)n->encoders);
    if (o->alpha != o->rank)
        return wf_fail(err, WEFT_E_ARG,
                       "train: alpha is for other recipes: files of ed-lora have none");
    return WEFT_OK;
}

static const wf_form *form(const weft_trainer *t, const wf_layer *l)
{
    (void)t;
    return l->kind == WEFT_LAYER_LINEAR ? &wf_form_lora : NULL;
}

static int32_t cross_layers(const wf_networks *n)
{
    int32_t most = 1;
    for (int32_t i = 0; i < n->streams; i++)
        most = WF_MAX(most, n->stream[i].facts->cross_layers);
    return most;
}

static weft_status words(weft_trainer *t, wf_words *out, weft_error *err)
{
    return wf_recipe_words(t, false, cross_layers(t->networks), out, err);
}

/* Mean length of the words' vectors. */
static double mean_length(const wf_new_words *w, const float *v)
{
    size_t width = (size_t)w->width[0], count = w->floats / width;
    double all = 0;

    for (size_t i = 0; i < count; i++) {
        double sum = 0;
        for (size_t k = 0; k < width; k++) sum += (double)v[i * width + k] * v[i * width + k];
        all += sqrt(sum);
    }
    return all / (double)count;
}

/* Words that have grown to this length stay as they are: the authors' number, for CLIP's vectors,
 * which begin at two thirds of it; with longer ones the proportion holds. */
static bool holds(const weft_trainer *t, int32_t group)
{
    const wf_new_words *w = wf_trainer_new_words(t);

    if (group != WF_GROUP_WORDS) return false;
    return mean_length(w, t->values + t->begin[WF_GROUP_WORDS]) >=
           WF_MAX(0.55, 1.5 * mean_length(w, w->initial));
}

static weft_status concept(weft_trainer *t, weft_concept **out, weft_error *err)
{
    return wf_trainer_concept_with_adapter(t, out, err);
}

static weft_status put_site(const wf_site *s, bool half, weft_tensors *to, weft_error *err)
{
    size_t  r = (size_t)s->rank;
    int64_t down[] = { s->rank, (int64_t)s->K }, up[] = { (int64_t)s->out, s->rank };
    char    name[600];
    float  *B = wf_tensors_own(to, r * s->out * sizeof *B, err);

    if (B == NULL) return WEFT_E_NOMEM;
    for (size_t i = 0; i < r * s->out; i++) B[i] = s->scale * s->up[i % r * s->out + i / r];
    wf_format(name, sizeof name, "params.%s.lora_down.weight", s->layer->name);
    WF_TRY(wf_trainer_put(to, name, s->down, 2, down, half, err));
    wf_format(name, sizeof name, "params.%s.lora_up.weight", s->layer->name);
    return wf_trainer_put(to, name, B, 2, up, half, err);
}

static weft_status save(weft_trainer *t, const char *path, int32_t dialect, bool half,
                        weft_error *err)
{
    weft_tensors *list;
    weft_status   st;

    if (dialect != 0)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "ed-lora has one form of file: dialect is %d, wanted 0", (int)dialect);
    WF_TRY(wf_tensors_new(&t->alloc, path, &list, err));
    st = wf_new_words_put(wf_trainer_new_words(t), wf_trainer_words(t), half, list, err);
    for (size_t i = 0; i < t->sites && st == WEFT_OK; i++)
        st = put_site(&t->site[i], half, list, err);
    if (st == WEFT_OK) st = wf_trainer_write(t, list, path, err);
    weft_tensors_free(list);
    return st;
}

const wf_recipe wf_recipe_ed_lora = {
    .id = WEFT_RECIPE_ED_LORA,
    .name = "ed-lora",
    .uses = WF_USES_WORDS | WF_USES_RANK | WF_USES_TEXT,
    .always = WEFT_TRAIN_TEXT,
    .defaults = { .rate = 1e-4, .text_rate = 1e-5, .token_rate = 1e-3, .weight_decay = 1e-2,
                  .noise_offset = 0.01, .rank = 4, .steps = 800, .batch = 2, .vectors = 1,
                  .rates = WEFT_RATES_LINEAR },
    .check = check,
    .end = wf_recipe_words_end,
    .form = form,
    .picks = wf_pick_usual,
    .words = words,
    .caption = wf_recipe_words_caption,
    .holds = holds,
    .concept = concept,
    .save = save,
};
