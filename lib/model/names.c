/* names.c - how adapter files call a layer: kohya's words, over diffusers' names of the blocks or over LDM's (ldm.c).
 *
 * kohya's word is the path with underscores, which nobody can take apart again: so these names are only ever made
 * from a layer, never read. */
#include "model/model.h"

static void underscores(char *s)
{
    for (; *s != '\0'; s++)
        if (*s == '.') *s = '_';
}

bool wf_name_kohya_path(const char *prefix, const char *path, char *buf, size_t cap)
{
    if (!wf_format(buf, cap, "%s%s", prefix, path)) return false;
    underscores(buf);
    return true;
}

/* The path of a layer inside its component, or NULL for a component that kohya has no word for. */
static const char *path_in_component(const wf_layer *layer)
{
    static const char *const heads[] = { "unet.", "text_encoder.", "text_encoder_2." };
    const char              *s = layer->name;

    if (layer->component < 0 || layer->component >= (int32_t)WF_LEN(heads)) return NULL;
    size_t n = strlen(heads[layer->component]);
    return strncmp(s, heads[layer->component], n) == 0 ? s + n : NULL;
}

static bool has_second_encoder(const weft_model *m)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(m, &count);

    for (size_t i = count; i-- > 0;)
        if (layers[i].component == 2) return true;
    return false;
}

bool wf_name_kohya(const weft_model *m, const wf_layer *layer, char *buf, size_t cap)
{
    const char *path = path_in_component(layer), *prefix = "lora_unet_", *inner = "";

    if (path == NULL) return false;
    if (layer->component > 0) {
        prefix = layer->component == 2 ? "lora_te2_" : has_second_encoder(m) ? "lora_te1_" : "lora_te_";
        if (strncmp(path, "encoder.", 8) == 0) inner = "text_model_"; /* transformers 5 drops it */
    }
    if (!wf_format(buf, cap, "%s%s%s", prefix, inner, path)) return false;
    underscores(buf);
    return true;
}

bool wf_name_kohya_ldm(const weft_model *m, const wf_layer *layer, char *buf, size_t cap)
{
    const char *path = path_in_component(layer);
    wf_blocks   shape = { .layers_per_block = wf_model_unet_layers_per_block(m), .count = wf_model_unet_blocks(m) };
    char        ldm[256];

    if (path == NULL || layer->component != 0 || shape.count > (int32_t)WF_LEN(shape.up_attention)) return false;
    for (int32_t i = 0; i < shape.count; i++) shape.up_attention[i] = wf_model_unet_attention(m, true, i);
    return wf_name_ldm(path, &shape, ldm, sizeof ldm) && wf_name_kohya_path("lora_unet_", ldm, buf, cap);
}
