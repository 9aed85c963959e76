/* recipes.c - the names that train knows its recipes by.
 *
 * The library's names, each with a line; and the two ways that people call by what they are for:
 * DreamBooth is training with class pictures, of the whole denoiser or of pairs. */
#include <stdio.h>
#include <string.h>

#include "tool.h"

enum {
    KOHYA    = 1 << WEFT_DIALECT_KOHYA,
    PRODUCTS = KOHYA | 1 << WEFT_DIALECT_PEFT,
    PAIRS    = PRODUCTS | 1 << WEFT_DIALECT_DIFFUSERS
};

static const recipe_use recipes[] = {
    { NULL, WEFT_RECIPE_LORA, 0, 0, PAIRS, "pairs of thin matrices beside linear layers, Hu et al. (2021)" },
    { NULL, WEFT_RECIPE_DORA, 0, 0, PAIRS, "pairs, and the length of each row apart, Liu et al. (2024)" },
    { NULL, WEFT_RECIPE_LOHA, 0, 0, PRODUCTS, "two pairs, multiplied number by number, Hyeon-Woo et al. (2022)" },
    { NULL, WEFT_RECIPE_LOKR, 0, 0, PRODUCTS, "a Kronecker product, Yeh et al. (2024): small files" },
    { NULL, WEFT_RECIPE_MOSLORA, 0, 0, PAIRS, "pairs with a mixer between, Wu et al. (2024)" },
    { NULL, WEFT_RECIPE_FULL, 0, 0, KOHYA, "every weight of the denoiser" },
    { "dreambooth", WEFT_RECIPE_FULL, 1, 0, KOHYA, "that, with class pictures, Ruiz et al. (2023)" },
    { "dreambooth-lora", WEFT_RECIPE_LORA, 1, 0, PAIRS, "pairs, with class pictures" },
    { NULL, WEFT_RECIPE_TEXTUAL_INVERSION, 0, 1, 0, "the vectors of a new word alone, Gal et al. (2022)" },
    { NULL, WEFT_RECIPE_CUSTOM_DIFFUSION, 0, 1, 0, "a word, and keys and values of cross-attentions, Kumari et al. (2023)" },
    { NULL, WEFT_RECIPE_BLORA, 0, 0, PAIRS, "pairs of two blocks, which part content and style, Frenkel et al. (2024)" },
    { NULL, WEFT_RECIPE_ED_LORA, 0, 1, 0, "two words with vectors for each layer, and pairs, Gu et al. (2023)" },
    { NULL, WEFT_RECIPE_ZIPLORA, 0, 0, PAIRS, "columns of two adapters that leave each other be, Shah et al. (2023)" },
};
enum { RECIPES = sizeof recipes / sizeof recipes[0] };

static const char *name_of(const recipe_use *r)
{
    return r->name != NULL ? r->name : weft_recipe_name(r->recipe);
}

const recipe_use *find_recipe(const char *name)
{
    int32_t recipe = weft_recipe_from_name(name);

    for (const recipe_use *r = recipes; r < recipes + RECIPES; r++)
        if (r->name != NULL ? strcmp(r->name, name) == 0 : recipe != 0 && r->recipe == recipe) return r;
    return NULL;
}

void print_recipes(void)
{
    for (const recipe_use *r = recipes; r < recipes + RECIPES; r++)
        if (name_of(r) != NULL) printf("  %-18s %s\n", name_of(r), r->line);
}
