/* families.c - the families, and which of them a set of tensors is.
 *
 * A module's tensors show its family, never the file's name or its metadata: it is the family
 * whose needs are all there and which knows every tensor that is there. Sets of two families never
 * cover each other, except OFT's and BOFT's, whose one tensor has three dimensions or four; so the
 * order of the list decides nothing but the time that looking takes. */
#include "adapter/family.h"

#define ROW(name) &wf_family_##name,
static const wf_family *const families[] = { WF_FAMILIES(ROW) };
#undef ROW

/* What any module may have besides its family's own. */
static const wf_tensor_set common = WF_BIT(WF_TENSOR_ALPHA) | WF_BIT(WF_TENSOR_MAGNITUDE) |
    WF_BIT(WF_TENSOR_DIFF_B) |
                               WF_BIT(WF_TENSOR_REPLACE_B);

const wf_family *const *wf_families(size_t *count)
{
    *count = WF_LEN(families);
    return families;
}

static bool takes_tensors(const wf_family *f, wf_tensor_set tensors)
{
    return (tensors & f->needs) == f->needs && (f->any == 0 || (tensors & f->any) != 0) &&
           (tensors & ~(f->needs | f->any | f->may | common)) == 0;
}

bool wf_family_shares(wf_tensor_set tensors, int32_t tensor)
{
    for (size_t i = 0; i < WF_LEN(families); i++) {
        wf_tensor_set own = families[i]->needs | families[i]->any | families[i]->may;
        if ((own & WF_BIT(tensor)) != 0 && (own & tensors) != 0 &&
            (tensors & ~(own | common)) == 0)
            return true;
    }
    return false;
}

const wf_family *wf_family_of(wf_tensor_set tensors)
{
    for (size_t i = 0; i < WF_LEN(families); i++)
        if (takes_tensors(families[i], tensors)) return families[i];
    return NULL;
}

const wf_family *wf_module_family(const wf_module *m)
{
    wf_tensor_set    tensors = wf_module_tensors(m);
    /* Whose shape() then says what is wrong, if none takes it. */
    const wf_family *first = wf_family_of(tensors);

    for (size_t i = 0; i < WF_LEN(families); i++)
        if (takes_tensors(families[i], tensors) &&
            (families[i]->takes == NULL || families[i]->takes(m)))
            return families[i];
    return first;
}

const wf_peft_type *wf_peft_type_named(const char *name)
{
    for (size_t i = 0; i < WF_LEN(families); i++)
        for (const wf_peft_type *t = families[i]->peft_types; t != NULL && t->name != NULL; t++)
            if (strcmp(t->name, name) == 0) return t;
    return NULL;
}
