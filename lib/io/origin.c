/* origin.c - where a handle's bytes come from, so that a plan that is saved can say it.
 *
 * The path is kept as an absolute one, without links and dots in its folder: the process may change
 * its directory, and a plan's file compares folders. The file itself may be a link, whose name is
 * what its user knows.
 *
 * Contents are hashed when somebody asks, from the file: most handles are never asked. Size, time
 * and number of the file tell whether it is still the one that was opened. */
#define _XOPEN_SOURCE 700 /* realpath */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "io/io.h"

weft_status wf_path_absolute(char **out, const char *path, const weft_allocator *alloc,
                             weft_error *err)
{
    char   folder[PATH_MAX], real[PATH_MAX];
    size_t n = strlen(path), from, room;

    *out = NULL;
    while (n > 1 && path[n - 1] == '/') n--;
    for (from = n; from > 0 && path[from - 1] != '/'; ) from--;
    const char *last = path + from;
    bool        dots = n - from <= 2 && strspn(last, ".") >= n - from; /* ".", "..", or "" of "/" */
    if (dots) from = n;
    if (from == 0 || from >= sizeof folder) wf_format(folder, sizeof folder, ".");
    else wf_format(folder, sizeof folder, "%.*s", (int)from, path);
    if (from >= sizeof folder || realpath(folder, real) == NULL)
        return wf_fail_sys(err, from >= sizeof folder ? ENAMETOOLONG : errno, "%s", path);
    room = strlen(real) + n - from + 2;
    *out = wf_alloc(alloc, room);
    if (*out == NULL) return wf_nomem(err, room, "a path");
    wf_format(*out, room, "%s%s%.*s", real, dots || real[1] == '\0' ? "" : "/", (int)(n - from),
              path + from);
    return WEFT_OK;
}

static bool look(wf_origin *o)
{
    struct stat info;

    if (stat(o->path, &info) != 0) return false;
    o->size = (uint64_t)info.st_size;
    o->number = (uint64_t)info.st_ino;
    o->seconds = (int64_t)info.st_mtim.tv_sec;
    o->nanoseconds = (int64_t)info.st_mtim.tv_nsec;
    return true;
}

weft_status wf_origin_of(wf_origin *o, const char *path, const weft_allocator *alloc,
                         weft_error *err)
{
    weft_error why;

    *o = (wf_origin){ 0 };
    if (wf_path_absolute(&o->path, path, alloc, &why) == WEFT_E_NOMEM)
        return wf_fail(err, WEFT_E_NOMEM, "%s", why.text);
    if (o->path != NULL && !look(o)) wf_origin_free(o, alloc);
    return WEFT_OK;
}

void wf_origin_free(wf_origin *o, const weft_allocator *alloc)
{
    wf_free(alloc, o->path);
    *o = (wf_origin){ 0 };
}

weft_status wf_origin_hash(const wf_origin *o, wf_sha256_text *out, const weft_allocator *alloc,
                           weft_error *err)
{
    wf_origin   then = *o;
    wf_file     file;
    wf_sha256   hash;
    weft_status st;

    if (!look(&then))
        return wf_fail_sys(err, errno, "%s: was opened, and is not there now", o->path);
    if (then.size != o->size || then.number != o->number || then.seconds != o->seconds ||
        then.nanoseconds != o->nanoseconds)
        return wf_fail(err, WEFT_E_STATE, "%s: has changed since it was opened", o->path);
    if ((st = wf_file_open(&file, o->path, false, alloc, err)) != WEFT_OK) return st;
    wf_sha256_init(&hash);
    wf_sha256_add(&hash, file.data, file.size);
    wf_sha256_end(&hash, out);
    wf_file_close(&file, alloc);
    return WEFT_OK;
}
