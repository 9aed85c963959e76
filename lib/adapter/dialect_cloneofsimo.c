/* dialect_cloneofsimo.c - the first LoRA program for diffusion: modules have numbers instead of names.
 *
 *   safetensors    unet:12:up  unet:12:down  text_encoder:3:up ...
 *   pickle         a list, up and down in turns: 0 is the first up, 1 the first down
 *
 * A number counts the attentions' projections in the order in which the program found them, which is the model's to
 * tell (names.c); here the name is the number. The list does not say whose it is: a text encoder's projections are all
 * square, a UNet's are not (read.c). There is no alpha, and a word's embedding may stand beside. */
#include "adapter/dialect.h"

static const wf_prefix prefixes[] = {
    { "unet:", "unet:" },
    { "text_encoder:", "text_encoder:" },
    { NULL, NULL },
};

static const wf_ending endings[] = {
    { ":up", "", WF_PART_UP, 0 },
    { ":down", "", WF_PART_DOWN, 0 },
    { NULL, NULL, 0, 0 },
};

const wf_dialect wf_dialect_cloneofsimo = {
    .name = "cloneofsimo", .prefixes = prefixes, .endings = { endings },
};
