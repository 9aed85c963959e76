/* component.c - the components of a model by name: the folder of each, which is also what its
 * layers' names begin with. */
#include "model/model.h"

static const struct component {
    const char *name;
    int32_t     encoder; /* which text encoder; -1: none */
} components[] = {
    [WEFT_COMPONENT_DENOISER] = { "unet", -1 },
    [WEFT_COMPONENT_TEXT_1]   = { "text_encoder", 0 },
    [WEFT_COMPONENT_TEXT_2]   = { "text_encoder_2", 1 },
    [WEFT_COMPONENT_VAE]      = { "vae", -1 },
    [WEFT_COMPONENT_TEXT_3]   = { "text_encoder_3", 2 },
};

static bool known(int32_t component)
{
    return component >= 0 && (size_t)component < WF_LEN(components);
}

const char *weft_component_name(int32_t component)
{
    return known(component) ? components[component].name : NULL;
}

int32_t wf_component_encoder(int32_t component)
{
    return known(component) ? components[component].encoder : -1;
}
