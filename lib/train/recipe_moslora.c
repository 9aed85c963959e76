/* recipe_moslora.c - MoSLoRA: pairs with a mixer between their factors.
 *
 * Wu et al., Mixture-of-Subspaces in Low-Rank Adaptation (2024). Layers and numbers are LoRA's. */
#include "train/recipe.h"

static const wf_form *form(const weft_trainer *t, const wf_layer *l)
{
    (void)t;
    return l->kind == WEFT_LAYER_NORM ? NULL : &wf_form_moslora;
}

const wf_recipe wf_recipe_moslora = {
    .id = WEFT_RECIPE_MOSLORA,
    .name = "moslora",
    .uses = WF_USES_RANK | WF_USES_MODULES | WF_USES_TEXT,
    .flags = WEFT_TRAIN_TEXT | WEFT_TRAIN_CONV | WEFT_TRAIN_FEED,
    .defaults = { .rate = 1e-4, .rank = 4, .steps = 1000 },
    .form = form,
    .picks = wf_pick_usual,
};
