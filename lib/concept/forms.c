/* forms.c - the keys under which programs keep tokens, as one table.
 *
 * A pickle's nested dicts arrive flattened, their keys joined with dots, so that
 * string_to_param["*"] in a .pt of Automatic1111's is "string_to_param.*". Keys that stand here are
 * tokens wherever they occur, so one file may mix forms, and may hold an adapter beside its tokens;
 * the first row that fits decides. */
#include "concept/concept.h"

static const wf_token_form forms[] = {
    { "string_to_param.*",                  WF_TOKEN_WHOLE,  -1, "textual inversion (A1111)" },
    { "string_to_token.*",                  WF_TOKEN_NONE,   -1, "textual inversion (CompVis)" }, /* A1111: a number */
    { "emb_params",                         WF_TOKEN_WHOLE,  -1, "textual inversion (kohya)" },
    { "clip_l",                             WF_TOKEN_WHOLE,   0, "textual inversion (SDXL)" },
    { "clip_g",                             WF_TOKEN_WHOLE,   1, "textual inversion (SDXL)" },
    { "text_encoders_0",                    WF_TOKEN_WHOLE,   0, "textual inversion (SDXL)" },
    { "text_encoders_1",                    WF_TOKEN_WHOLE,   1, "textual inversion (SDXL)" },
    { "bundle_emb.@.string_to_param.*",     WF_TOKEN_WHOLE,  -1, "bundled textual inversion" },
    { "bundle_emb.@.string_to_token.*",     WF_TOKEN_NONE,   -1, NULL },
    { "bundle_emb.@.emb_params",            WF_TOKEN_WHOLE,  -1, "bundled textual inversion" },
    { "bundle_emb.@.clip_l",                WF_TOKEN_WHOLE,   0, "bundled textual inversion" },
    { "bundle_emb.@.clip_g",                WF_TOKEN_WHOLE,   1, "bundled textual inversion" },
    { "modifier_token.@",                   WF_TOKEN_WHOLE,  -1, "Custom Diffusion" },
    { "state_dict.embed",                   WF_TOKEN_ROWS,   -1, "Custom Diffusion" },
    { "embed",                              WF_TOKEN_ROWS,   -1, "Custom Diffusion" },
    { "params.new_concept_embedding.@",     WF_TOKEN_LAYERS, -1, "ED-LoRA" },
    { "new_concept_embedding.@",            WF_TOKEN_LAYERS, -1, "ED-LoRA" },
};

/* Does the key end as the pattern does? @ takes as much as it can; nothing else is ambiguous in the
 * table. */
static bool fits(const char *pattern, const char *key, const char **name, size_t *len)
{
    for (; *pattern != '\0'; pattern++, key++) {
        if (*pattern == '*') return true; /* the last of its pattern */
        if (*pattern == '@') {
            for (size_t n = strlen(key); n > 0; n--) {
                if (!fits(pattern + 1, key + n, name, len)) continue;
                *name = key;
                *len = n;
                return true;
            }
            return false;
        }
        if (*pattern != *key) return false;
    }
    return *key == '\0';
}

const wf_token_form *wf_token_form_of(const char *key, const char **name, size_t *len)
{
    static const wf_token_form in_brackets = { "@", WF_TOKEN_WHOLE, -1,
                                               "textual inversion (diffusers)" };
    size_t n = strlen(key);

    *name = key;
    *len = 0;
    for (size_t i = 0; i < WF_LEN(forms); i++)
        if (fits(forms[i].key, key, name, len)) return &forms[i];
    if (n < 3 || key[0] != '<' || key[n - 1] != '>')
        return NULL; /* <cat-toy>, cloneofsimo's <s1> */
    *len = n;
    return &in_brackets;
}
