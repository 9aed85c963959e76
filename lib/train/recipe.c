/* recipe.c - the recipes by number and by name, and choices that several of them make. */
#include "train/trainer_internal.h"

#define WF_RECIPE_ROW(name) &wf_recipe_##name,
static const wf_recipe *const recipes[] = { WF_RECIPES(WF_RECIPE_ROW) };

const wf_recipe *wf_recipe_of(int32_t id)
{
    for (size_t i = 0; i < WF_LEN(recipes); i++)
        if (recipes[i]->id == id) return recipes[i];
    return NULL;
}

int32_t weft_recipe_from_name(const char *name)
{
    for (size_t i = 0; name != NULL && i < WF_LEN(recipes); i++)
        if (strcmp(recipes[i]->name, name) == 0) return recipes[i]->id;
    return 0;
}

const char *weft_recipe_name(int32_t recipe)
{
    const wf_recipe *r = wf_recipe_of(recipe);
    return r != NULL ? r->name : NULL;
}

/* The layers of a transformer block beside its attentions, the projections around the blocks, and
 * those of a text encoder's feed-forward. Patterns of whole names. */
#define FEED "*.ff.net.0.proj,*.ff.net.2,*.proj_in,*.proj_out,*.mlp.fc1,*.mlp.fc2"
#define TEXT "*.self_attn.q_proj,*.self_attn.k_proj,*.self_attn.v_proj,*.self_attn.out_proj"
/* Convolutions of the resnets and between levels. */
#define CONV "*.conv1,*.conv2,*.conv_shortcut,*.downsamplers.*.conv,*.upsamplers.*.conv"

bool wf_pick_usual(const weft_trainer *t, const wf_layer *l)
{
    if (l->attention || wf_glob_any(TEXT, l->name)) return true;
    if ((t->o.flags & WEFT_TRAIN_FEED) != 0 && wf_glob_any(FEED, l->name)) return true;
    return (t->o.flags & WEFT_TRAIN_CONV) != 0 && wf_glob_any(CONV, l->name);
}
