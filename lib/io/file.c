/* file.c - bytes from disk and back.
 *
 * Reading maps the file: a checkpoint is too large to copy, and processes share mapped pages. The
 * price: if the file is cut short while it is mapped, the process gets SIGBUS; `copy` reads
 * instead.
 *
 * Writing goes to a new file in the same folder, which then takes the name: a reader sees the old
 * content or the new, never half of it. Until it is whole the new file has no name where the system
 * can make such a file, so that a process killed in the middle leaves nothing behind. Elsewhere it
 * has a temporary name, opened with O_EXCL rather than made by mkstemp, because that would give the
 * file mode 0600, and the umask, which says what the mode should be, can only be read by changing
 * it for the whole process. A link stays a link: the file that it points to is replaced. */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1  /* O_TMPFILE */
#endif
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "io/io.h"

#define CHUNK ((size_t)1 << 30)  /* Linux moves at most 2 GiB at a time */

/* ---- reading --------------------------------------------------------------------------------- */

/* O_NONBLOCK: opening a pipe must be refused below, not wait here for a writer. */
static weft_status open_regular(const char *path, int *fd, size_t *size, weft_error *err)
{
    struct stat info;
    int         sys;

    if (path == NULL) return wf_fail(err, WEFT_E_ARG, "path is NULL");
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) return wf_fail_sys(err, errno, "%s", path);
    if (fstat(*fd, &info) == 0) {
        *size = (size_t)info.st_size;
        if (S_ISREG(info.st_mode) && (uint64_t)info.st_size < SIZE_MAX) return WEFT_OK;
        sys = S_ISDIR(info.st_mode) ? EISDIR : EINVAL;
    } else {
        sys = errno;
    }
    close(*fd);
    *fd = -1;
    if (sys == EINVAL) return wf_fail(err, WEFT_E_IO, "%s: not a regular file", path);
    return wf_fail_sys(err, sys, "%s", path);
}

/* Read up to `size` bytes into memory with a NUL behind them; a file that shrank meanwhile gives
 * fewer. */
static weft_status read_all(wf_file *f, int fd, size_t size, const char *path,
                            const weft_allocator *alloc, weft_error *err)
{
    uint8_t *bytes = wf_alloc(alloc, size + 1);
    size_t   got = 0;

    if (bytes == NULL) return wf_nomem(err, size, path);
    while (got < size) {
        ssize_t n = read(fd, bytes + got, WF_MIN(size - got, CHUNK));

        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            int sys = errno;
            wf_free(alloc, bytes);
            return wf_fail_sys(err, sys, "%s", path);
        }
        if (n == 0) break;
        got += (size_t)n;
    }
    bytes[got] = '\0';
    f->data   = bytes;
    f->size   = got;
    f->mapped = false;
    return WEFT_OK;
}

weft_status wf_file_open(wf_file *f, const char *path, bool copy, const weft_allocator *alloc,
                         weft_error *err)
{
    const wf_file none = WF_FILE_NONE;
    size_t        size = 0;
    int           fd;
    weft_status   st;

    *f = none;
    if ((st = open_regular(path, &fd, &size, err)) != WEFT_OK) return st;
    if (copy || size == 0) {                        /* an empty mapping is an error to the system */
        st = read_all(f, fd, size, path, alloc, err);
    } else {
        void *map = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);

        if (map == MAP_FAILED) {
            st = wf_fail_sys(err, errno, "%s: cannot be mapped", path);
        } else {
            f->data   = map;
            f->size   = size;
            f->mapped = true;
        }
    }
    close(fd);
    return st;
}

weft_status wf_file_read(wf_file *f, const char *path, size_t limit, const weft_allocator *alloc,
                         weft_error *err)
{
    const wf_file none = WF_FILE_NONE;
    size_t        size = 0;
    int           fd;
    weft_status   st;

    *f = none;
    if ((st = open_regular(path, &fd, &size, err)) != WEFT_OK) return st;
    if (size > limit)
        st = wf_fail(err, WEFT_E_FORMAT, "%s: %zu bytes, expected at most %zu", path, size, limit);
    else
        st = read_all(f, fd, size, path, alloc, err);
    close(fd);
    return st;
}

void wf_file_close(wf_file *f, const weft_allocator *alloc)
{
    const wf_file none = WF_FILE_NONE;

    if (f->mapped)
        munmap((void *)(uintptr_t)f->data, f->size);
    else if (f->data != NULL)
        wf_free(alloc, (void *)(uintptr_t)f->data);
    *f = none;
}

/* ---- paths ----------------------------------------------------------------------------------- */

bool wf_path_is_dir(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool wf_path_exists(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0;
}

char *wf_path_join(const weft_allocator *alloc, const char *dir, const char *name)
{
    size_t d = strlen(dir), n = strlen(name);
    bool   slash = d > 0 && dir[d - 1] != '/';
    char  *path = wf_alloc(alloc, d + slash + n + 1);

    if (path == NULL) return NULL;
    memcpy(path, dir, d);
    if (slash) path[d] = '/';
    memcpy(path + d + slash, name, n + 1);
    return path;
}

/* ---- writing --------------------------------------------------------------------------------- */

enum { PATH_BYTES = 4096, LINKS = 40 };

typedef struct target {
    char path[PATH_BYTES]; /* the file to be replaced: behind all links          */
    char temp[PATH_BYTES]; /* the new file's name until then; "": it has none    */
    int  fd;
} target;

/* The length of a path's folder, with its slash. */
static size_t folder_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? (size_t)(slash - path) + 1 : 0;
}

/* path becomes what the link there points to. */
static int follow(char path[PATH_BYTES])
{
    char    link[PATH_BYTES];
    size_t  dir = folder_length(path);
    ssize_t n = readlink(path, link, sizeof link);

    if (n < 0) return errno;
    if (link[0] == '/') dir = 0;
    if (dir + (size_t)n >= PATH_BYTES) return ENAMETOOLONG;
    memcpy(path + dir, link, (size_t)n);
    path[dir + (size_t)n] = '\0';
    return 0;
}

/* Find the file that is to be replaced, and the mode that it has; 0 if there is none. A device
 * or a pipe cannot be replaced by a file, and must not be: /dev/null would be gone. */
static weft_status find_target(target *t, const char *path, mode_t *mode, weft_error *err)
{
    struct stat info;
    int         links = 0, sys = 0;

    *mode = 0;
    if (path == NULL) return wf_fail(err, WEFT_E_ARG, "path is NULL");
    if (!wf_format(t->path, sizeof t->path, "%s", path)) sys = ENAMETOOLONG;
    while (sys == 0 && lstat(t->path, &info) == 0 && S_ISLNK(info.st_mode))
        sys = links++ < LINKS ? follow(t->path) : ELOOP;
    if (sys != 0) return wf_fail_sys(err, sys, "%s: cannot be written", path);
    if (stat(t->path, &info) != 0) return WEFT_OK;
    *mode = info.st_mode & 0777;
    if (S_ISREG(info.st_mode)) return WEFT_OK;
    if (S_ISDIR(info.st_mode)) return wf_fail_sys(err, EISDIR, "%s", path);
    return wf_fail(err, WEFT_E_IO, "%s: not a regular file, and would be replaced by one", path);
}

/* A new name in the folder of the target; it does not grow with the target's, whose own may already
 * be as long as the system allows. */
static bool new_name(target *t, int attempt)
{
    size_t          dir = folder_length(t->path);
    struct timespec now = { 0, 0 };

    clock_gettime(CLOCK_REALTIME, &now);
    memcpy(t->temp, t->path, dir);
    return wf_format(t->temp + dir, sizeof t->temp - dir, ".weft-%lld-%lld-%d",
                     (long long)getpid(), (long long)now.tv_nsec, attempt);
}

/* An empty file without a name in the target's folder; -1 where the system has no such thing, or
 * no way to name it later. */
static int make_nameless(target *t)
{
    int fd = -1;
#ifdef O_TMPFILE
    size_t dir = folder_length(t->path);

    memcpy(t->temp, t->path, dir);
    memcpy(t->temp + dir, ".", 2);
    if (access("/proc/self/fd", X_OK) == 0)
        fd = open(t->temp, O_WRONLY | O_TMPFILE | O_CLOEXEC, 0666);
#endif
    t->temp[0] = '\0';
    return fd;
}

/* Make the empty file that will be the target; false with errno on failure. */
static bool make_temporary(target *t)
{
    if (folder_length(t->path) + 64 > sizeof t->temp) { errno = ENAMETOOLONG; return false; }
    if ((t->fd = make_nameless(t)) >= 0) return true;
    for (int attempt = 0; attempt < 100; attempt++) {
        if (!new_name(t, attempt)) break;
        t->fd = open(t->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (t->fd >= 0) return true;
        if (errno != EEXIST) break;
    }
    t->temp[0] = '\0';
    return false;
}

/* Give the file that has none a name. */
static int name_it(target *t)
{
    char self[64];
    int  sys = EEXIST;

    if (t->temp[0] != '\0') return 0;
    wf_format(self, sizeof self, "/proc/self/fd/%d", t->fd);
    for (int attempt = 0; attempt < 100 && sys == EEXIST && new_name(t, attempt); attempt++)
        sys = linkat(AT_FDCWD, self, AT_FDCWD, t->temp, AT_SYMLINK_FOLLOW) == 0 ? 0 : errno;
    if (sys != 0) t->temp[0] = '\0';
    return sys;
}

static int write_all(int fd, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, bytes, WF_MIN(size, CHUNK));

        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno;
        bytes += n;
        size  -= (size_t)n;
    }
    return 0;
}

weft_status wf_file_write_from(const char *path, size_t count, wf_part_maker make, void *user,
                               weft_error *err)
{
    target      t;
    mode_t      mode;
    int         sys = 0;
    weft_status st;

    if ((st = find_target(&t, path, &mode, err)) != WEFT_OK) return st;
    if (!make_temporary(&t)) return wf_fail_sys(err, errno, "%s: cannot be written", path);

    for (size_t i = 0; i < count && sys == 0; i++) {
        wf_part part = { NULL, 0 };

        if ((st = make(user, i, &part, err)) != WEFT_OK) break;
        sys = write_all(t.fd, part.data, part.size);
    }
    if (st == WEFT_OK && sys == 0 && fsync(t.fd) != 0 && errno != EINVAL)
        sys = errno; /* EINVAL: a file system without */
    if (mode != 0) (void)fchmod(t.fd, mode); /* a file system without modes refuses */
    if (st == WEFT_OK && sys == 0) sys = name_it(&t);
    if (close(t.fd) != 0 && sys == 0) sys = errno;
    if (st == WEFT_OK && sys == 0 && rename(t.temp, t.path) != 0) sys = errno;
    if (st == WEFT_OK && sys == 0) return WEFT_OK;
    if (t.temp[0] != '\0') unlink(t.temp);
    return st != WEFT_OK ? st : wf_fail_sys(err, sys, "%s: cannot be written", path);
}

static weft_status next_of_list(void *user, size_t i, wf_part *out, weft_error *err)
{
    (void)err;
    *out = ((const wf_part *)user)[i];
    return WEFT_OK;
}

weft_status wf_file_write_parts(const char *path, const wf_part *parts, size_t count,
                                weft_error *err)
{
    return wf_file_write_from(path, count, next_of_list, (void *)(uintptr_t)parts, err);
}

weft_status wf_file_write(const char *path, const void *data, size_t size, weft_error *err)
{
    const wf_part whole = { data, size };

    return wf_file_write_parts(path, &whole, 1, err);
}
