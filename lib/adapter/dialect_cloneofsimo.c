/* dialect_cloneofsimo.c - the first LoRA program for diffusion: modules have numbers instead of
 * names.
 *
 *   safetensors    unet:12:up  unet:12:down  text_encoder:3:up ...
 *   pickle         a list, up and down in turns: 0 is the first up, 1 the first down
 *
 * A number counts the attentions' projections in the order in which the program found them, which
 * is the model's to tell (model/names.c); here the name is the number. The list does not say whose
 * it is: a text encoder's projections are all square, a UNet's are not. There is no alpha, and a
 * token's embedding may stand beside. */
#include "adapter/dialect.h"

static const wf_prefix prefixes[] = {
    { "unet:", "unet:" },
    { "text_encoder:", "text_encoder:" },
    { NULL, NULL },
};

static const wf_ending endings[] = {
    { ":up", "", WF_TENSOR_UP, 0 },
    { ":down", "", WF_TENSOR_DOWN, 0 },
    { NULL, NULL, 0, 0 },
};

/* ---- the list -------------------------------------------------------------------------------- */

enum { LIST_NONE, LIST_UNET, LIST_TEXT };

static bool is_number(const char *key)
{
    size_t n = strlen(key);
    return n > 0 && n < 8 && strspn(key, "0123456789") == n;
}

static int32_t find_list(const weft_tensors *t)
{
    size_t count = wf_tensors_count(t);
    bool   square = true;

    for (size_t i = 0; i < count; i++) {
        const wf_tensor *v = wf_tensors_at(t, i), *first = wf_tensors_at(t, 0);
        if (!is_number(v->name) || v->rank < 2) return LIST_NONE;
        square = square && WF_MAX(v->shape[0], v->shape[1]) == WF_MAX(first->shape[0],
                                                                      first->shape[1]);
    }
    return count == 0 ? LIST_NONE : square ? LIST_TEXT : LIST_UNET;
}

static void read_listed(int32_t list, const char *key, wf_key *out)
{
    int32_t n = 0;

    for (const char *c = key; *c != '\0'; c++) n = 10 * n + (*c - '0');
    wf_format(out->name, sizeof out->name, "%s:%d", list == LIST_TEXT ? "text_encoder" : "unet",
              (int)(n / 2));
    out->tensor = n % 2 == 0 ? WF_TENSOR_UP : WF_TENSOR_DOWN;
    out->stem = 0;
    out->how = 0;
}

const wf_dialect wf_dialect_cloneofsimo = {
    .name = "cloneofsimo", .title = "cloneofsimo", .prefixes = prefixes, .endings = { endings },
    .unscaled = true, .find_list = find_list, .read_listed = read_listed,
};
