/* recipe.h - what a way of training is: which layers and words it trains, with which defaults, and
 * where it goes another way than the others.
 *
 * A recipe is a row of facts in a file of its own, recipe_NAME.c, and its name in WF_RECIPES. What
 * it leaves NULL is done as for all: the loss is that of train.h, the result is an adapter made of
 * what the forms write. */
#ifndef WF_TRAIN_RECIPE_H
#define WF_TRAIN_RECIPE_H

#include "model/networks.h"
#include "train/form.h"
#include "weft/train.h"

#define WF_RECIPES(X)                                                                             \
    X(lora) X(dora) X(loha) X(lokr) X(moslora) X(full) X(blora)                                   \
    X(textual_inversion) X(custom_diffusion) X(ed_lora) X(ziplora)

/* Options that only some recipes take; the rest is refused there. */
enum wf_uses {
    WF_USES_RANK    = 1 << 0, /* rank, alpha                                  */
    WF_USES_FACTOR  = 1 << 1,
    WF_USES_MODULES = 1 << 2, /* modules                                      */
    WF_USES_WORDS   = 1 << 3, /* tokens, initial, vectors, token_rate         */
    WF_USES_TEXT    = 1 << 4, /* text_rate                                    */
    WF_USES_EMA     = 1 << 5,
    WF_USES_ZIP     = 1 << 6  /* content, style, similarity                   */
};

struct wf_batch;
struct wf_losses;
struct wf_words;

typedef struct wf_recipe {
    int32_t     id;       /* WEFT_RECIPE_* */
    const char *name;     /* "textual-inversion" */
    uint32_t    uses;     /* WF_USES_* */
    uint32_t    flags;    /* WEFT_TRAIN_* that it takes beside those that all take (options.c) */
    uint32_t    always;   /* flags that are set whatever the caller says */
    /* Numbers that stand where the caller gives 0; where this has 0 too, options.c has the number
     * of all recipes. No pointer is read. */
    weft_train_options defaults;
    bool        same_noise; /* class picture i has the noise and the time of instance picture i */
    bool        both;       /* it cannot do without class pictures */
    bool        gaussian;   /* wf_form_choice.gaussian */

    /* WEFT_E_ARG, WEFT_E_UNSUPPORTED. Options are whole. May be NULL. */
    weft_status (*check)(const weft_model *m, const weft_train_options *o, weft_error *err);
    /* Before layers are chosen: t->own, from the bag; what is no memory of the bag is let go by
     * end(), which is called whatever begin() said. Both may be NULL. */
    weft_status (*begin)(weft_trainer *t, weft_error *err);
    void        (*end)(weft_trainer *t);
    /* The form for a layer of the denoiser or of a text encoder; NULL: it has none for this one.
     * The function may be NULL: no layer is trained. */
    const wf_form *(*form)(const weft_trainer *t, const wf_layer *l);
    /* Is it trained, where the caller names no modules? Asked of layers that have a form; of those
     * of text encoders only with WEFT_TRAIN_TEXT. */
    bool (*picks)(const weft_trainer *t, const wf_layer *l);
    /* What the form is told of the layer: wf_site.given. May be NULL. */
    const void *(*given)(const weft_trainer *t, const wf_layer *l);
    /* Last act of weft_trainer_create(): sites, words and deltas are there. May be NULL. */
    weft_status (*ready)(weft_trainer *t, weft_error *err);

    /* The words that are learnt: fill `out`, from the trainer's bag. NULL: none. */
    weft_status (*words)(weft_trainer *t, struct wf_words *out, weft_error *err);
    /* What is read in the place of a picture's caption (a template with the word in it), added to
     * `out`. WEFT_E_FORMAT where it cannot be trained on; `what` names the picture. Pure: `seed` is
     * the sample's. Called for every picture before the first step. NULL: the caption itself. */
    weft_status (*caption)(const weft_trainer *t, bool class_picture, const char *what,
                           const char *caption, uint64_t seed, wf_text *out, weft_error *err);

    /* One evaluation with its gradients, trainer_internal.h says with what. NULL: the mean of
     * squares, wf_trainer_evaluate(). */
    weft_status (*evaluate)(weft_trainer *t, struct wf_batch *b, struct wf_losses *l,
                            weft_error *err);

    /* Does a group (WF_GROUP_*) stay as it is in this step? Of t->values alone. NULL: never. */
    bool (*holds)(const weft_trainer *t, int32_t group);

    /* Results. NULL: an adapter of what the forms write; no words; weft_adapter_save(). */
    weft_status (*adapter)(weft_trainer *t, weft_adapter **out, weft_error *err);
    weft_status (*concept)(weft_trainer *t, weft_concept **out, weft_error *err);
    weft_status (*save)(weft_trainer *t, const char *path, int32_t dialect, bool half,
                        weft_error *err);
} wf_recipe;

#define WF_RECIPE_DECLARE(name) extern const wf_recipe wf_recipe_##name;
WF_RECIPES(WF_RECIPE_DECLARE)

const wf_recipe *wf_recipe_of(int32_t id); /* NULL: none */

/* recipe.c: choices that several recipes make. */
/* Projections of the UNet's attentions (q, k, v, out), and of the text encoders' (q, k, v, out);
 * with CONV and FEED in the flags also the layers that they name. */
bool wf_pick_usual(const weft_trainer *t, const wf_layer *l);

#endif
