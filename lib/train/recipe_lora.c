/* recipe_lora.c - LoRA: a pair beside each chosen layer.
 *
 * Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (2021); for diffusion models as
 * cloneofsimo and diffusers' scripts have it: the projections of the attentions, alpha = rank. With
 * class pictures this is DreamBooth as LoRA. */
#include "train/recipe.h"

static const wf_form *form(const weft_trainer *t, const wf_layer *l)
{
    (void)t;
    return l->kind == WEFT_LAYER_NORM ? NULL : &wf_form_lora;
}

const wf_recipe wf_recipe_lora = {
    .id = WEFT_RECIPE_LORA,
    .name = "lora",
    .uses = WF_USES_RANK | WF_USES_MODULES | WF_USES_TEXT,
    .flags = WEFT_TRAIN_TEXT | WEFT_TRAIN_CONV | WEFT_TRAIN_FEED,
    .defaults = { .rate = 1e-4, .rank = 4, .steps = 1000 },
    .form = form,
    .picks = wf_pick_usual,
};
