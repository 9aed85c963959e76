/* names.c - how adapter files call a layer: kohya's words, over diffusers' names of the blocks or
 * over LDM's (ldm.c).
 *
 * kohya's word is the path with underscores, which nobody can take apart again: so these names are
 * only ever made from a layer, never read. */
#include "model/networks.h"
#include "nets/unet.h"

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
    const char *folder =
        layer->component != WEFT_COMPONENT_VAE ? weft_component_name(layer->component) : NULL;
    size_t      n = folder != NULL ? strlen(folder) : 0;

    return folder != NULL && strncmp(layer->name, folder, n) == 0 && layer->name[n] == '.'
               ? layer->name + n + 1
               : NULL;
}

static bool has_second_encoder(const weft_model *m)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(m, &count);

    for (size_t i = count; i-- > 0;)
        if (layers[i].component == WEFT_COMPONENT_TEXT_2) return true;
    return false;
}

bool wf_name_kohya(const weft_model *m, const wf_layer *layer, char *buf, size_t cap)
{
    const char *path = path_in_component(layer), *prefix = "lora_unet_", *inner = "";

    if (path == NULL) return false;
    if (wf_is_text(layer->component)) {
        prefix = layer->component == WEFT_COMPONENT_TEXT_2 ? "lora_te2_"
                 : has_second_encoder(m)                   ? "lora_te1_"
                                                           : "lora_te_";
        if (strncmp(path, "encoder.", 8) == 0) inner = "text_model_"; /* transformers 5 drops it */
    }
    if (!wf_format(buf, cap, "%s%s%s", prefix, inner, path)) return false;
    underscores(buf);
    return true;
}

bool wf_name_kohya_ldm(const weft_model *m, const wf_layer *layer, char *buf, size_t cap)
{
    const char *path = path_in_component(layer);
    const wf_unet_config *unet = wf_unet_get_config(wf_model_networks(m)->denoiser);
    char        ldm[256];

    if (path == NULL || layer->component != WEFT_COMPONENT_DENOISER || unet == NULL) return false;
    wf_blocks shape = { .layers_per_block = unet->layers[0], .count = unet->levels };
    for (int32_t i = 0; i < shape.count; i++) shape.up_attention[i] = unet->up_attention[i];
    return wf_name_ldm(path, &shape, ldm, sizeof ldm) &&
           wf_name_kohya_path("lora_unet_", ldm, buf, cap);
}

/* ---- numbers --------------------------------------------------------------------------------- */

/* Where in its block a target stands, in the order in which modules were found there. */
typedef struct target { const char *end; int32_t place; } target;

static const target unet_targets[] = {
    { ".attn1.to_q", 0 },      { ".attn1.to_k", 1 }, { ".attn1.to_v", 2 }, { ".attn1.to_out.0", 3 },
    { ".ff.net.0.proj", 4 },   { ".attn2.to_q", 5 }, { ".attn2.to_k", 6 }, { ".attn2.to_v", 7 },
    { ".attn2.to_out.0", 8 },
};
static const target text_targets[] = {
    { ".self_attn.k_proj", 0 }, { ".self_attn.v_proj", 1 }, { ".self_attn.q_proj", 2 }, { ".self_attn.out_proj", 3 },
};

/* The target that ends the name, and the length of the block's name before it; NULL: none. */
static const target *find_target(const char *name, const target *list, size_t count, size_t *block)
{
    size_t len = strlen(name);

    for (size_t i = 0; i < count; i++) {
        size_t n = strlen(list[i].end);
        if (n > len || strcmp(name + len - n, list[i].end) != 0) continue;
        *block = len - n;
        return &list[i];
    }
    return NULL;
}

/* Number the targets of layers whose names begin so; `first` is the next block's, and what follows
 * is returned. */
static int32_t number_blocks(const wf_layer *layers, size_t count, const char *begin,
                             const target *list, size_t places, int32_t first, int32_t *number)
{
    const char *last = NULL;
    size_t      last_len = 0, len;

    for (size_t i = 0; i < count; i++) {
        if (strncmp(layers[i].name, begin, strlen(begin)) != 0) continue;
        const target *t = find_target(layers[i].name, list, places, &len);
        if (t == NULL) continue;
        if (last != NULL && (len != last_len || strncmp(last, layers[i].name, len) != 0))
            first += (int32_t)places;
        last = layers[i].name;
        last_len = len;
        number[i] = first + t->place;
    }
    return last != NULL ? first + (int32_t)places : first;
}

void wf_name_numbers(const wf_layer *layers, size_t count, int32_t *number)
{
    static const char *const blocks[] = { "unet.down_blocks.", "unet.up_blocks.",
                                          "unet.mid_block." };
    int32_t                  next = 0;

    for (size_t i = 0; i < count; i++) number[i] = -1;
    for (size_t i = 0; i < WF_LEN(blocks); i++)
        next = number_blocks(layers, count, blocks[i], unet_targets, WF_LEN(unet_targets), next,
                             number);
    (void)number_blocks(layers, count, "text_encoder.", text_targets, WF_LEN(text_targets), 0,
                        number);
}
