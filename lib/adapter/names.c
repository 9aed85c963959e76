/* names.c - names of modules, and keys as messages show them.
 *
 * A module is called by its canonical name ("unet.down_blocks.0...."), or by kohya's underscore
 * word if its dialect has no other, or by cloneofsimo's number ("unet:12"). What a name begins with
 * tells its component. */
#include "adapter/adapter_internal.h"

static const struct {
    const char *head;
    const char *word;
    int32_t     component;
} heads[] = {
    { "unet.", "unet_", WEFT_COMPONENT_DENOISER },       { "lora_unet_", "unet_",
                                                           WEFT_COMPONENT_DENOISER },
    { "unet:", "unet:", WEFT_COMPONENT_DENOISER },
    { "text_encoder.", "te1_", WEFT_COMPONENT_TEXT_1 },
    { "lora_te_", "te1_", WEFT_COMPONENT_TEXT_1 },
    { "lora_te1_", "te1_", WEFT_COMPONENT_TEXT_1 },
    { "text_encoder:", "te1:", WEFT_COMPONENT_TEXT_1 },
    { "text_encoder_2.", "te2_", WEFT_COMPONENT_TEXT_2 },
    { "lora_te2_", "te2_", WEFT_COMPONENT_TEXT_2 },
};

/* Row of `heads` with which the name begins, or -1. */
static int32_t head_of(const char *name)
{
    for (size_t i = 0; i < WF_LEN(heads); i++)
        if (strncmp(name, heads[i].head, strlen(heads[i].head)) == 0) return (int32_t)i;
    return -1;
}

int32_t wf_name_component(const char *name)
{
    int32_t h = head_of(name);
    return h < 0 ? -1 : heads[h].component;
}

const char *wf_name_path(const char *name)
{
    int32_t h = head_of(name);
    return h < 0 ? name : name + strlen(heads[h].head);
}

void wf_name_fold(char *buf, const char *name)
{
    int32_t h = head_of(name);
    size_t  n = h < 0 ? 0 : strlen(heads[h].word);

    if (h >= 0) memcpy(buf, heads[h].word, n);
    for (name = wf_name_path(name); *name != '\0'; name++) buf[n++] = *name == '.' ? '_' : *name;
    buf[n] = '\0';
}

const char *wf_component_prefix(int32_t component)
{
    switch (component) {
    case WEFT_COMPONENT_DENOISER: return "unet.";
    case WEFT_COMPONENT_TEXT_1:   return "text_encoder.";
    case WEFT_COMPONENT_TEXT_2:   return "text_encoder_2.";
    default:                      return NULL;
    }
}

const char *wf_key_show(wf_key_text *buf, const char *key)
{
    size_t n = strlen(key), cap = sizeof buf->text;

    if (n < cap) return memcpy(buf->text, key, n + 1);
    for (n = cap - 4; n > 0 && ((unsigned char)key[n] & 0xC0) == 0x80; n--) {
    } /* between characters */
    memcpy(buf->text, key, n);
    memcpy(buf->text + n, "...", 4);
    return buf->text;
}
