/* zip.c - the members of an archive that stores them uncompressed.
 *
 * The archives that matter here are read through their mapped bytes, so compressed members are of
 * no use, and refusing them is also the defence against zip bombs. The central directory at the end
 * of the file lists the members, and each member's own header must agree. No two members may share
 * a byte: such a file shows different readers different contents. */

#include "io/zip.h"

#define MAX_MEMBERS  200000u
#define MAX_COMMENT  65535u
#define END_SIZE     22u
#define END64_SIZE   56u
#define LOCATOR_SIZE 20u
#define ENTRY_SIZE   46u
#define LOCAL_SIZE   30u

#define ENCRYPTED  0x2041u  /* bits 0, 6 and 13: encrypted, strongly, with masked headers */
#define DESCRIPTOR 0x0008u  /* sizes may be left to a record behind the data             */

static uint16_t le16(const uint8_t *p) { uint16_t v; memcpy(&v, p, sizeof v); return v; }
static uint32_t le32(const uint8_t *p) { uint32_t v; memcpy(&v, p, sizeof v); return v; }
static uint64_t le64(const uint8_t *p) { uint64_t v; memcpy(&v, p, sizeof v); return v; }

/* The central directory, and what is shared while it is read. */
typedef struct reader {
    const uint8_t *data;
    size_t         size;
    const char    *what;
    wf_bag        *bag;
    uint64_t       count;
    uint64_t       begin;
    uint64_t       length;
    weft_error    *err;
} reader;

static weft_status fail(const reader *r, const char *why)
{
    return wf_fail(r->err, WEFT_E_FORMAT, "%s: zip archive: %s", r->what, why);
}

static weft_status fail_member(const reader *r, const char *name, weft_status code, const char *why)
{
    return wf_fail(r->err, code, "%s: zip member \"%.160s\" %s", r->what, name, why);
}

/* ---- the end of the archive ------------------------------------------------------------------ */

static bool find_end(const reader *r, size_t *at)
{
    for (size_t comment = 0; comment <= MAX_COMMENT && comment + END_SIZE <= r->size; comment++) {
        size_t here = r->size - END_SIZE - comment;

        if (memcmp(r->data + here, "PK\5\6", 4) != 0 || le16(r->data + here + 20) != comment)
            continue;
        *at = here;
        return true;
    }
    return false;
}

/* The 64-bit end record, if a locator stands before the ordinary one; *end moves to it. */
static weft_status read_end64(reader *r, size_t *end)
{
    const uint8_t *locator = r->data + *end - LOCATOR_SIZE, *p;
    uint64_t       at;

    if (*end < LOCATOR_SIZE || memcmp(locator, "PK\6\7", 4) != 0) return WEFT_OK;
    at = le64(locator + 8);
    if (*end - LOCATOR_SIZE < END64_SIZE || at > *end - LOCATOR_SIZE - END64_SIZE)
        return fail(r, "its 64-bit end record lies outside the file");
    p = r->data + at;
    if (memcmp(p, "PK\6\6", 4) != 0)
        return fail(r, "its locator points to something that is no 64-bit end record");
    if (le32(p + 16) != 0 || le32(p + 20) != 0) return fail(r, "it is split over several disks");
    if (le64(p + 24) != le64(p + 32)) return fail(r, "it is split over several disks");
    r->count  = le64(p + 32);
    r->length = le64(p + 40);
    r->begin  = le64(p + 48);
    *end      = (size_t)at;
    return WEFT_OK;
}

static weft_status read_end(reader *r)
{
    const uint8_t *p;
    size_t         end;

    if (!find_end(r, &end)) return fail(r, "it has no end record: cut short?");
    p = r->data + end;
    if ((le16(p + 4) != 0 && le16(p + 4) != 0xffff) || (le16(p + 6) != 0 && le16(p + 6) != 0xffff))
        return fail(r, "it is split over several disks");
    r->count  = le16(p + 10);
    r->length = le32(p + 12);
    r->begin  = le32(p + 16);
    WF_TRY(read_end64(r, &end));
    if (r->begin > end || r->length != end - r->begin)
        return wf_fail(r->err, WEFT_E_FORMAT,
                       "%s: zip archive: its directory of %llu bytes at %llu does not end at "
                       "byte %zu, where the end record begins",
                       r->what, (unsigned long long)r->length, (unsigned long long)r->begin, end);
    if (r->count > MAX_MEMBERS)
        return wf_fail(r->err, WEFT_E_FORMAT, "%s: zip archive: %llu members, expected at most %u",
                       r->what, (unsigned long long)r->count, MAX_MEMBERS);
    if (r->count * ENTRY_SIZE > r->length)
        return wf_fail(r->err, WEFT_E_FORMAT,
                       "%s: zip archive: %llu members, but a directory of %llu bytes", r->what,
                       (unsigned long long)r->count, (unsigned long long)r->length);
    return WEFT_OK;
}

/* ---- one member ------------------------------------------------------------------------------ */

/* Values of 2^32-1 stand in the 64-bit extra field instead, one after the other in a fixed
 * order. */
typedef struct sizes {
    uint64_t size;
    uint64_t stored;
    uint64_t offset;
} sizes;

static bool widen(const uint8_t *extra, size_t n, sizes *s)
{
    uint64_t *const wide[] = { &s->size, &s->stored, &s->offset };

    while (n >= 4) {
        size_t         length = le16(extra + 2);
        const uint8_t *p = extra + 4;

        if (length > n - 4) return false;
        if (le16(extra) == 1) {
            for (size_t i = 0; i < WF_LEN(wide); i++) {
                if (*wide[i] != 0xffffffff) continue;
                if (length < 8) return false;
                *wide[i] = le64(p);
                p      += 8;
                length -= 8;
            }
            return true;
        }
        extra += 4 + length;
        n     -= 4 + length;
    }
    return true;  /* bytes left over are padding of careless writers */
}

/* The header in front of the member's data, which must repeat what the directory says. */
static weft_status check_local(const reader *r, const uint8_t *entry, const sizes *said,
                               wf_zip_member *m)
{
    const uint8_t *p;
    size_t         room, name, extra;
    sizes          s;

    if (said->offset > r->begin || r->begin - said->offset < LOCAL_SIZE)
        return fail_member(r, m->name, WEFT_E_FORMAT, "begins outside the data");
    p    = r->data + said->offset;
    room = (size_t)(r->begin - said->offset) - LOCAL_SIZE;
    if (memcmp(p, "PK\3\4", 4) != 0)
        return fail_member(r, m->name, WEFT_E_FORMAT, "has no header where it begins");
    name  = le16(p + 26);
    extra = le16(p + 28);
    if (name + extra > room)
        return fail_member(r, m->name, WEFT_E_FORMAT, "has a header that is cut short");
    s.size   = le32(p + 22);
    s.stored = le32(p + 18);
    s.offset = 0;
    if (name != strlen(m->name) || memcmp(p + LOCAL_SIZE, m->name, name) != 0)
        return fail_member(r, m->name, WEFT_E_FORMAT, "has another name in its own header");
    if (le16(p + 8) != le16(entry + 10) || (le16(p + 6) & ENCRYPTED) != 0 ||
        !widen(p + LOCAL_SIZE + name, extra, &s))
        return fail_member(r, m->name, WEFT_E_FORMAT,
                           "has a header that differs from the directory");
    if ((s.size != said->size || s.stored != said->stored) &&
        !((le16(p + 6) & DESCRIPTOR) != 0 && s.size == 0 && s.stored == 0))
        return fail_member(r, m->name, WEFT_E_FORMAT, "has another size in its own header");
    if (said->size > room - name - extra)
        return wf_fail(r->err, WEFT_E_FORMAT,
                       "%s: zip member \"%.160s\" has %llu bytes, but only %zu are left before "
                       "the directory",
                       r->what, m->name, (unsigned long long)said->size, room - name - extra);
    m->begin = (size_t)said->offset;
    m->data  = p + LOCAL_SIZE + name + extra;
    m->size  = (size_t)said->size;
    return WEFT_OK;
}

/* One entry of the directory at *at, which moves behind it. */
static weft_status read_member(const reader *r, size_t *at, wf_zip_member *m)
{
    const uint8_t *p    = r->data + *at;
    size_t         left = (size_t)(r->begin + r->length) - *at, name, extra, comment;
    sizes          said;

    if (left < ENTRY_SIZE || memcmp(p, "PK\1\2", 4) != 0)
        return fail(r, "its directory is cut short");
    name    = le16(p + 28);
    extra   = le16(p + 30);
    comment = le16(p + 32);
    if (name + extra + comment > left - ENTRY_SIZE) return fail(r, "its directory is cut short");
    if (!wf_utf8_valid((const char *)p + ENTRY_SIZE, name))
        return fail(r, "the name of a member is not UTF-8");
    m->name = wf_bag_string(r->bag, (const char *)p + ENTRY_SIZE, name);
    if (m->name == NULL) return wf_nomem(r->err, name, r->what);

    said.size   = le32(p + 24);
    said.stored = le32(p + 20);
    said.offset = le32(p + 42);
    if ((le16(p + 8) & ENCRYPTED) != 0)
        return fail_member(r, m->name, WEFT_E_UNSUPPORTED, "is encrypted");
    if (le16(p + 10) != 0)
        return fail_member(r, m->name, WEFT_E_UNSUPPORTED,
                           "is compressed, as only TorchScript programs are; torch.save stores "
                           "everything as it is");
    if (!widen(p + ENTRY_SIZE + name, extra, &said) || said.size != said.stored)
        return fail_member(r, m->name, WEFT_E_FORMAT, "has sizes that contradict each other");
    *at += ENTRY_SIZE + name + extra + comment;
    return check_local(r, p, &said, m);
}

/* ---- the whole archive ----------------------------------------------------------------------- */

static int compare_places(const void *a, const void *b)
{
    const wf_zip_member *x = a, *y = b;

    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

static int compare_names(const void *a, const void *b)
{
    const wf_zip_member *x = a, *y = b;

    return strcmp(x->name, y->name);
}

static weft_status check_places(const reader *r, const wf_zip *zip)
{
    for (size_t i = 1; i < zip->count; i++) {
        const wf_zip_member *before = &zip->members[i - 1], *m = &zip->members[i];

        if ((size_t)(before->data - r->data) + before->size > m->begin)
            return wf_fail(r->err, WEFT_E_FORMAT,
                           "%s: zip members \"%.160s\" and \"%.160s\" overlap", r->what,
                           before->name, m->name);
    }
    return WEFT_OK;
}

weft_status wf_zip_read(wf_bag *bag, const uint8_t *data, size_t size, const char *what,
                        wf_zip *zip, weft_error *err)
{
    reader r = { data, size, what, bag, 0, 0, 0, err };
    size_t at;

    zip->members = NULL;
    zip->count   = 0;
    WF_TRY(read_end(&r));
    zip->members = wf_bag_take(bag, (size_t)r.count, sizeof *zip->members);
    if (zip->members == NULL) return wf_nomem(err, (size_t)r.count * sizeof *zip->members, what);
    at = (size_t)r.begin;
    for (; zip->count < r.count; zip->count++)
        WF_TRY(read_member(&r, &at, &zip->members[zip->count]));
    if (at != r.begin + r.length) return fail(&r, "its directory has more than its members");

    wf_sort(zip->members, zip->count, sizeof *zip->members, compare_places);
    WF_TRY(check_places(&r, zip));
    wf_sort(zip->members, zip->count, sizeof *zip->members, compare_names);
    for (size_t i = 1; i < zip->count; i++)
        if (strcmp(zip->members[i - 1].name, zip->members[i].name) == 0)
            return wf_fail(err, WEFT_E_FORMAT, "%s: two zip members are named \"%.160s\"", what,
                           zip->members[i].name);
    return WEFT_OK;
}

const wf_zip_member *wf_zip_find(const wf_zip *zip, const char *name)
{
    size_t low = 0, high = zip->count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int    c   = strcmp(name, zip->members[mid].name);

        if (c == 0) return &zip->members[mid];
        if (c < 0) high = mid;
        else       low = mid + 1;
    }
    return NULL;
}
