/* recipe_lokr.c - LoKr: Kronecker products.
 *
 * Yeh et al., LyCORIS (2024). Rank, cut and the first draw are PEFT's defaults. */
#include "train/recipe.h"

static const wf_form *form(const weft_trainer *t, const wf_layer *l)
{
    (void)t;
    return l->kind == WEFT_LAYER_NORM ? NULL : &wf_form_lokr;
}

const wf_recipe wf_recipe_lokr = {
    .id = WEFT_RECIPE_LOKR,
    .name = "lokr",
    .uses = WF_USES_RANK | WF_USES_FACTOR | WF_USES_MODULES | WF_USES_TEXT,
    .flags = WEFT_TRAIN_TEXT | WEFT_TRAIN_CONV | WEFT_TRAIN_FEED | WEFT_TRAIN_BOTH,
    .defaults = { .rate = 1e-4, .rank = 8, .factor = -1, .steps = 1000 },
    .form = form,
    .picks = wf_pick_usual,
};
