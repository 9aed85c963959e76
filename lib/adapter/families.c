/* families.c - the families, and which of them a set of parts is.
 *
 * A module's family is told by its tensors, never by the file's name or its metadata: the family whose needs are all
 * there and which knows every tensor that is there. Sets of two families never cover each other, but for OFT's and BOFT's,
 * whose one tensor has three dimensions or four; so the order of the list decides nothing but the time that looking
 * takes. */
#include "adapter/family.h"

static const wf_family *const families[] = {
    &wf_family_lora, &wf_family_loha, &wf_family_lokr, &wf_family_full, &wf_family_norm, &wf_family_oft, &wf_family_boft,
    &wf_family_ia3, &wf_family_glora, &wf_family_oft_peft, &wf_family_boft_peft, &wf_family_ia3_peft,
};

/* What any module may have besides its family's own. */
static const uint64_t common =
    WF_BIT(WF_PART_ALPHA) | WF_BIT(WF_PART_MAGNITUDE) | WF_BIT(WF_PART_DIFF_B) | WF_BIT(WF_PART_REPLACE_B);

const wf_family *const *wf_families(size_t *count)
{
    *count = WF_LEN(families);
    return families;
}

static bool has_parts(const wf_family *f, uint64_t parts)
{
    return (parts & f->needs) == f->needs && (f->any == 0 || (parts & f->any) != 0) &&
           (parts & ~(f->needs | f->any | f->may | common)) == 0;
}

const wf_family *wf_family_of(uint64_t parts)
{
    for (size_t i = 0; i < WF_LEN(families); i++)
        if (has_parts(families[i], parts)) return families[i];
    return NULL;
}

const wf_family *wf_module_family(const wf_module *m)
{
    uint64_t         parts = wf_module_parts(m);
    const wf_family *first = wf_family_of(parts); /* whose shape() then says what is wrong, where none takes it */

    for (size_t i = 0; i < WF_LEN(families); i++)
        if (has_parts(families[i], parts) && (families[i]->takes == NULL || families[i]->takes(m))) return families[i];
    return first;
}
