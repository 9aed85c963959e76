/* recipe_dora.c - DoRA: pairs, and each row's length apart from them.
 *
 * Liu et al., DoRA: Weight-Decomposed Low-Rank Adaptation (2024). Layers and numbers are LoRA's, as
 * in diffusers' scripts, where DoRA is a flag of LoRA. */
#include "train/recipe.h"

static const wf_form *form(const weft_trainer *t, const wf_layer *l)
{
    (void)t;
    return l->kind == WEFT_LAYER_NORM ? NULL : &wf_form_dora;
}

const wf_recipe wf_recipe_dora = {
    .id = WEFT_RECIPE_DORA,
    .name = "dora",
    .uses = WF_USES_RANK | WF_USES_MODULES | WF_USES_TEXT,
    .flags = WEFT_TRAIN_TEXT | WEFT_TRAIN_CONV | WEFT_TRAIN_FEED | WEFT_TRAIN_EXACT_NORM,
    .defaults = { .rate = 1e-4, .rank = 4, .steps = 1000 },
    .form = form,
    .picks = wf_pick_usual,
};
