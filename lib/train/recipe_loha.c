/* recipe_loha.c - LoHa: element by element products of two pairs.
 *
 * Hyeon-Woo et al., FedPara (2022); Yeh et al., LyCORIS (2024). Rank and the first draw are PEFT's
 * defaults. */
#include "train/recipe.h"

static const wf_form *form(const weft_trainer *t, const wf_layer *l)
{
    (void)t;
    return l->kind == WEFT_LAYER_NORM ? NULL : &wf_form_loha;
}

const wf_recipe wf_recipe_loha = {
    .id = WEFT_RECIPE_LOHA,
    .name = "loha",
    .uses = WF_USES_RANK | WF_USES_MODULES | WF_USES_TEXT,
    .flags = WEFT_TRAIN_TEXT | WEFT_TRAIN_CONV | WEFT_TRAIN_FEED,
    .defaults = { .rate = 1e-4, .rank = 8, .steps = 1000 },
    .form = form,
    .picks = wf_pick_usual,
};
