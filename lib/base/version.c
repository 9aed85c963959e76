/* version.c - which library was loaded, and what it can do.
 *
 * Features are asked for by name rather than derived from the version: a distribution may leave one
 * out, and a binding should not have to keep a table of which release brought what. A room that has
 * a list of its own (solvers.h) is read from that list; such a header is names only. */
#include "base/base.h"
#include "sampler/solvers.h"

#define NAME_OF(name) #name,

static const char *const features[] = {
    "merge",
    "switch",
    "composite",
    "klora",
    "zip",
    "blora",
    "blend",
    "loratorio",
    "subbands",         /* methods         */
    "mixed",            /* weft_plan_options.mixed */
    "explain-json",
    "trace",            /* reports                 */
    WF_SOLVERS(NAME_OF) /* samplers        */
    "lora",
    "adalora",
    "moslora",
    "loha",
    "lokr", /* adapter families */
    "dora",
    "ia3",
    "oft",
    "boft",
    "glora",
    "vera",
    "fourierft",
    "hra",
    "shira",
    "vblora",
    "c3a",
    "miss",
    "delora",
    "gralora",
    "randlora",
    "pissa",
    "olora",
    "full",
    "norm",
    "kohya",
    "lycoris",
    "diffusers",
    "diffusers-old",
    "peft",
    "cloneofsimo", /* file dialects */
    "textual-inversion",
    "custom-diffusion",
    "ed-lora", /* concepts     */
    "prompt-weights",
    "clip-skip", /* prompts         */
    "img2img",
    "inpainting",
    "refiner",
    "guidance-embed",
    "text-layers",
    "vae-tiles",
    "png-read",
    "jpeg-read", /* images     */
    "bf16",      /* arithmetic */
    "train",     /* train.h: which recipes, weft_recipe_from_name() tells */
};

uint32_t weft_version(void)
{
    return WEFT_VERSION;
}

int32_t weft_has(const char *name)
{
    if (name == NULL) return 0;
    for (size_t i = 0; i < WF_LEN(features); i++)
        if (strcmp(features[i], name) == 0) return 1;
    return 0;
}
