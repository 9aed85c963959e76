/* recipe_blora.c - B-LoRA: content and style of a single picture, taken apart by where they are
 * learnt.
 *
 * Pairs are trained only in the attentions of two places of the UNet: one decides what is shown,
 * the other how it looks. In SDXL these are two transformers, as the authors found; in other models
 * those that plans cut adapters by (plan/method/blora.c), so that what is trained here is taken
 * apart there. The prompt is the caller's, "A [v]" in the paper, without a word for the class.
 *
 * Rank, rate, steps, decay and the first draw are the authors' program's, which is diffusers'
 * DreamBooth script for SDXL before PEFT. Frenkel et al., Implicit Style-Content Separation using
 * B-LoRA (2024). */
#include "plan/plan.h"
#include "train/trainer_internal.h"

typedef struct places {
    char content[WF_PLACES_MAX], style[WF_PLACES_MAX];
} places;

static weft_status begin(weft_trainer *t, weft_error *err)
{
    places *p = t->own = wf_bag_take(&t->bag, 1, sizeof *p);

    if (p == NULL) return wf_nomem(err, sizeof *p, "the places of content and style");
    if (wf_blora_places(t->model, p->content, p->style)) return WEFT_OK;
    return wf_fail(err, WEFT_E_UNSUPPORTED,
                   "blora: the model has no levels with attention, so nothing is known of where it "
                   "has content and style");
}

static const wf_form *form(const weft_trainer *t, const wf_layer *l)
{
    (void)t;
    return l->kind == WEFT_LAYER_NORM || l->component != WEFT_COMPONENT_DENOISER ? NULL
                                                                                 : &wf_form_lora;
}

static bool picks(const weft_trainer *t, const wf_layer *l)
{
    const places *p = t->own;
    return l->attention && (wf_glob_any(p->content, l->name) || wf_glob_any(p->style, l->name));
}

const wf_recipe wf_recipe_blora = {
    .id = WEFT_RECIPE_BLORA,
    .name = "blora",
    .uses = WF_USES_RANK | WF_USES_MODULES,
    .defaults = { .rate = 5e-5, .rank = 64, .steps = 1000, .weight_decay = 1e-4 },
    .gaussian = true,
    .begin = begin,
    .form = form,
    .picks = picks,
};
