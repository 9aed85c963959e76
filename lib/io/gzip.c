/* gzip.c - a small compressed file, whole in memory.
 *
 * A megabyte of gzip may hold a gigabyte. So the caller sets a limit, and the buffer grows with
 * what really comes out, whatever the file claims. */
#define ZLIB_CONST
#include <zlib.h>

#include "io/io.h"

#define GZIP_ONLY (15 + 16)  /* inflateInit2: the full window, and no other wrapping than gzip's */
#define FIRST     ((size_t)64 << 10)

typedef struct unpacker {
    z_stream              z;
    const weft_allocator *alloc;
    uint8_t              *out;
    size_t                cap;
    size_t                used;
    size_t                limit;
    const char           *path;
    weft_error           *err;
} unpacker;

static void *z_alloc(void *user, unsigned count, unsigned size)
{
    size_t all;

    return wf_mul(count, size, &all) ? wf_alloc(user, all) : NULL;
}

static void z_free(void *user, void *p)
{
    wf_free(user, p);
}

/* One byte more than the limit: it shows whether there is more, and else takes the NUL. */
static weft_status grow(unpacker *u)
{
    size_t   cap = u->cap < FIRST ? FIRST : 2 * u->cap;
    uint8_t *out;

    if (u->used < u->cap) return WEFT_OK;
    cap = WF_MIN(cap, u->limit + 1);
    out = wf_alloc(u->alloc, cap);
    if (out == NULL) return wf_nomem(u->err, cap, u->path);
    if (u->used > 0) memcpy(out, u->out, u->used);
    wf_free(u->alloc, u->out);
    u->out = out;
    u->cap = cap;
    return WEFT_OK;
}

/* One call of inflate, and what it says. A file may be several streams, one after the other. */
static weft_status step(unpacker *u, bool *done)
{
    size_t room;
    int    result;

    WF_TRY(grow(u));
    room = WF_MIN(u->cap - u->used, (size_t)1 << 30);
    u->z.next_out  = u->out + u->used;
    u->z.avail_out = (unsigned)room;
    result = inflate(&u->z, Z_NO_FLUSH);
    u->used += room - u->z.avail_out;
    if (u->used > u->limit)
        return wf_fail(u->err, WEFT_E_FORMAT, "%s: more than %zu bytes when unpacked", u->path,
                       u->limit);
    if (result == Z_STREAM_END) {
        *done = u->z.avail_in == 0;
        if (!*done) inflateReset(&u->z);
        return WEFT_OK;
    }
    if (result == Z_MEM_ERROR) return wf_nomem(u->err, 0, u->path);
    if (result == Z_BUF_ERROR || (result == Z_OK && u->z.avail_in == 0 && u->z.avail_out > 0))
        return wf_fail(u->err, WEFT_E_FORMAT, "%s: gzip: cut short", u->path);
    if (result == Z_OK) return WEFT_OK;
    return wf_fail(u->err, WEFT_E_FORMAT, "%s: gzip: %s", u->path,
                   u->z.msg != NULL ? u->z.msg : "broken");
}

weft_status wf_gzip_unpack(wf_file *f, const uint8_t *data, size_t size, const char *what,
                           size_t limit, const weft_allocator *alloc, weft_error *err)
{
    const wf_file none = WF_FILE_NONE;
    unpacker      u = { .alloc = alloc, .limit = limit, .path = what, .err = err };
    bool          done = false;
    weft_status   st = WEFT_OK;

    *f = none;
    if (size < 2 || data[0] != 0x1f || data[1] != 0x8b || size > UINT32_MAX)
        return wf_fail(err, WEFT_E_FORMAT, "%s: not a gzip file", what);
    u.z.zalloc   = z_alloc;
    u.z.zfree    = z_free;
    u.z.opaque   = (void *)(uintptr_t)alloc;
    u.z.next_in  = data;
    u.z.avail_in = (unsigned)size;
    if (inflateInit2(&u.z, GZIP_ONLY) != Z_OK) return wf_nomem(err, 0, what);
    while (st == WEFT_OK && !done) st = step(&u, &done);
    inflateEnd(&u.z);
    if (st == WEFT_OK) st = grow(&u);  /* for the NUL */
    if (st != WEFT_OK) {
        wf_free(alloc, u.out);
        return st;
    }
    u.out[u.used] = '\0';
    f->data = u.out;
    f->size = u.used;
    return WEFT_OK;
}
