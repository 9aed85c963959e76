/* notes.c - what a program keeps with a plan: its prompt, its seed, the picture it begins with.
 *
 * A plan does not read its notes. They are here so that one file of a plan can tell a program all
 * that made an image. A note is a text, or a file, which is kept as adapters are: by its path from
 * the root and by what it was when it was set. Its content is hashed when the plan is saved.
 *
 * They are one immutable block that copies share. A record is a byte for its kind, the name with
 * its NUL, the value with its NUL, and of a file what tells whether it has changed. */
#include "plan/plan_internal.h"
#include "weft/plan_file.h"

enum { NAME_LONGEST = 64, BYTES_MAX = 1 << 20 };
enum { A_TEXT = 't', A_FILE = 'f' };

typedef struct notes {
    size_t bytes;
    char   text[];
} notes;

/* The record at `at`; returns what follows it. */
static char *read_record(char *at, wf_note *out)
{
    bool file = *at == A_FILE;

    out->name = at + 1;
    at += strlen(out->name) + 2;
    out->value = at;
    out->file = (wf_origin){ 0 };
    if (file) memcpy(&out->file, at + strlen(at) + 1, sizeof out->file);
    if (file) out->file.path = at;
    return at + strlen(at) + 1 + (file ? sizeof out->file : 0);
}

static size_t size_of(const wf_note *n)
{
    return strlen(n->name) + strlen(n->value) + 3 + (n->file.path != NULL ? sizeof n->file : 0);
}

static char *write_record(char *to, const wf_note *n)
{
    size_t name = strlen(n->name) + 1, value = strlen(n->value) + 1;

    *to = n->file.path != NULL ? A_FILE : A_TEXT;
    memcpy(to + 1, n->name, name);
    memcpy(to + 1 + name, n->value, value);
    if (n->file.path != NULL) memcpy(to + 1 + name + value, &n->file, sizeof n->file);
    return to + size_of(n);
}

bool wf_plan_note_at(const weft_plan *p, size_t index, wf_note *out)
{
    notes *n = p->notes != NULL ? p->notes->data : NULL;
    char  *at = n != NULL ? n->text : NULL, *end = n != NULL ? n->text + n->bytes : NULL;

    for (; at < end; index--) {
        at = read_record(at, out);
        if (index == 0) return true;
    }
    return false;
}

bool wf_plan_note_find(const weft_plan *p, const char *name, wf_note *out)
{
    for (size_t i = 0; wf_plan_note_at(p, i, out); i++)
        if (strcmp(out->name, name) == 0) return true;
    return false;
}

/* May a note of this name be set now? */
static weft_status check(const weft_plan *plan, const char *name, const char *who, weft_error *err)
{
    WF_TRY(wf_plan_still_open(plan, who, err));
    if (name == NULL || *name == '\0' || strlen(name) > NAME_LONGEST)
        return wf_fail(err, WEFT_E_ARG, "%s: a name has 1 to %d bytes", who, NAME_LONGEST);
    if (!wf_utf8_valid(name, strlen(name)))
        return wf_fail(err, WEFT_E_ARG, "%s: the name is not UTF-8", who);
    return WEFT_OK;
}

/* Put a note behind the others; without a value take it away. */
static weft_status put(weft_plan *plan, const wf_note *note, const char *who, weft_error *err)
{
    wf_blob *blob = NULL;
    wf_note  each;
    size_t   bytes = note->value != NULL ? size_of(note) : 0;

    for (size_t i = 0; wf_plan_note_at(plan, i, &each); i++)
        if (strcmp(each.name, note->name) != 0) bytes += size_of(&each);
    if (bytes > BYTES_MAX)
        return wf_fail(err, WEFT_E_UNSUPPORTED, "%s: %zu bytes of notes, a plan takes at most %d",
                       who, bytes, BYTES_MAX);
    if (bytes > 0 && (blob = wf_blob_create(&plan->alloc, sizeof(notes) + bytes)) == NULL)
        return wf_nomem(err, bytes, "a plan's notes");
    if (blob != NULL) {
        char *to = ((notes *)blob->data)->text;
        ((notes *)blob->data)->bytes = bytes;
        for (size_t i = 0; wf_plan_note_at(plan, i, &each); i++)
            if (strcmp(each.name, note->name) != 0) to = write_record(to, &each);
        if (note->value != NULL) (void)write_record(to, note);
    }
    wf_blob_drop(plan->notes);
    plan->notes = blob;
    return WEFT_OK;
}

/* ---- public ---------------------------------------------------------------------------------- */

weft_status weft_plan_set_note(weft_plan *plan, const char *name, const char *value,
                               weft_error *err)
{
    static const char who[] = "weft_plan_set_note";
    wf_note           note = { .name = name, .value = value };

    WF_TRY(check(plan, name, who, err));
    if (value != NULL && !wf_utf8_valid(value, strlen(value)))
        return wf_fail(err, WEFT_E_ARG, "%s: the text is not UTF-8", who);
    return put(plan, &note, who, err);
}

weft_status weft_plan_set_note_file(weft_plan *plan, const char *name, const char *path,
                                    weft_error *err)
{
    static const char who[] = "weft_plan_set_note_file";
    wf_note           note = { .name = name };
    wf_file           file;
    weft_status       st;

    WF_TRY(check(plan, name, who, err));
    if (path == NULL) return wf_fail(err, WEFT_E_ARG, "%s: path is NULL", who);
    WF_TRY(wf_file_open(&file, path, false, &plan->alloc, err)); /* it is there, and a file */
    wf_file_close(&file, &plan->alloc);
    WF_TRY(wf_origin_of(&note.file, path, &plan->alloc, err));
    note.value = note.file.path;
    st = note.value != NULL ? put(plan, &note, who, err)
                            : wf_fail(err, WEFT_E_IO, "%s: its path from the root is not known",
                                      path);
    wf_origin_free(&note.file, &plan->alloc);
    return st;
}

const char *weft_plan_note(const weft_plan *plan, const char *name)
{
    wf_note note;
    return plan != NULL && name != NULL && wf_plan_note_find(plan, name, &note) ? note.value : NULL;
}

int32_t weft_plan_note_is_file(const weft_plan *plan, const char *name)
{
    wf_note note;
    return plan != NULL && name != NULL && wf_plan_note_find(plan, name, &note) &&
           note.file.path != NULL;
}

const char *weft_plan_note_name(const weft_plan *plan, size_t index)
{
    wf_note note;
    return plan != NULL && wf_plan_note_at(plan, index, &note) ? note.name : NULL;
}
