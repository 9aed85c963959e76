/* notes.c - what a program keeps with a plan: its prompt, its seed, how many steps.
 *
 * A plan does not read its notes. They are here so that one file of a plan can tell a program all
 * that made an image. They are one immutable block that copies share: each name with its NUL, then
 * its value. */
#include "plan/plan_internal.h"
#include "weft/plan_file.h"

enum { NAME_LONGEST = 64, BYTES_MAX = 1 << 20 };

typedef struct notes {
    size_t bytes;
    char   text[];
} notes;

bool wf_plan_note_at(const weft_plan *p, size_t index, const char **name, const char **value)
{
    const notes *n = p->notes != NULL ? p->notes->data : NULL;
    const char  *at = n != NULL ? n->text : NULL, *end = n != NULL ? n->text + n->bytes : NULL;

    for (; at < end; index--) {
        *name = at;
        *value = at + strlen(at) + 1;
        at = *value + strlen(*value) + 1;
        if (index == 0) return true;
    }
    return false;
}

static char *append(char *to, const char *s)
{
    size_t n = strlen(s) + 1;
    memcpy(to, s, n);
    return to + n;
}

weft_status weft_plan_set_note(weft_plan *plan, const char *name, const char *value,
                               weft_error *err)
{
    wf_blob    *blob = NULL;
    const char *each, *text;
    size_t      bytes = 0;

    WF_TRY(wf_plan_still_open(plan, "weft_plan_set_note", err));
    if (name == NULL || *name == '\0' || strlen(name) > NAME_LONGEST)
        return wf_fail(err, WEFT_E_ARG, "weft_plan_set_note: a name has 1 to %d bytes",
                       NAME_LONGEST);
    if (!wf_utf8_valid(name, strlen(name)) ||
        (value != NULL && !wf_utf8_valid(value, strlen(value))))
        return wf_fail(err, WEFT_E_ARG, "weft_plan_set_note: the text is not UTF-8");
    for (size_t i = 0; wf_plan_note_at(plan, i, &each, &text); i++)
        if (strcmp(each, name) != 0) bytes += strlen(each) + strlen(text) + 2;
    if (value != NULL) bytes += strlen(name) + strlen(value) + 2;
    if (bytes > BYTES_MAX)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "weft_plan_set_note: %zu bytes of notes, a plan takes at most %d", bytes,
                       BYTES_MAX);
    if (bytes > 0 && (blob = wf_blob_create(&plan->alloc, sizeof(notes) + bytes)) == NULL)
        return wf_nomem(err, bytes, "a plan's notes");
    if (blob != NULL) {
        char *to = ((notes *)blob->data)->text;
        ((notes *)blob->data)->bytes = bytes;
        for (size_t i = 0; wf_plan_note_at(plan, i, &each, &text); i++)
            if (strcmp(each, name) != 0) to = append(append(to, each), text);
        if (value != NULL) (void)append(append(to, name), value);
    }
    wf_blob_drop(plan->notes);
    plan->notes = blob;
    return WEFT_OK;
}

const char *weft_plan_note(const weft_plan *plan, const char *name)
{
    const char *each, *value;

    for (size_t i = 0; plan != NULL && name != NULL && wf_plan_note_at(plan, i, &each, &value); i++)
        if (strcmp(each, name) == 0) return value;
    return NULL;
}

const char *weft_plan_note_name(const weft_plan *plan, size_t index)
{
    const char *name, *value;
    return plan != NULL && wf_plan_note_at(plan, index, &name, &value) ? name : NULL;
}
