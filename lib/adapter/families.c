/* families.c - the families, and which of them a set of parts is.
 *
 * A module's family is told by its tensors, never by the file's name or its metadata: the family whose needs are all
 * there and which knows every tensor that is there. Sets of two families never cover each other, so the order of the
 * list decides nothing but the time that looking takes. */
#include "adapter/family.h"

static const wf_family *const families[] = {
    &wf_family_lora,
};

/* What any module may have besides its family's own. */
static const uint64_t common = WF_BIT(WF_PART_ALPHA) | WF_BIT(WF_PART_MAGNITUDE) | WF_BIT(WF_PART_DIFF_B);

const wf_family *const *wf_families(size_t *count)
{
    *count = WF_LEN(families);
    return families;
}

const wf_family *wf_family_of(uint64_t parts)
{
    for (size_t i = 0; i < WF_LEN(families); i++) {
        const wf_family *f = families[i];
        uint64_t         known = f->needs | f->any | f->may | common;
        if ((parts & f->needs) == f->needs && (f->any == 0 || (parts & f->any) != 0) && (parts & ~known) == 0) return f;
    }
    return NULL;
}
