/* folder.c - a folder of pictures, each with its caption in a text file of the same name.
 *
 * The order is that of the names' bytes, the same on every machine, since what is drawn depends on
 * it. What is passed over in silence would be missed by nobody until the training is over, so a
 * caption without a picture is named in a line of the log. */
#include <dirent.h>
#include <errno.h>

#include "io/io.h"
#include "train/dataset_internal.h"

enum { CAPTION_BYTES = 65536 };

typedef enum kind { OTHER, PICTURE, CAPTION } kind;

typedef struct entry {
    char *name, *stem; /* "a.b.png", "a.b" */
    kind  is;
    bool  used;        /* a caption that belongs to a picture */
} entry;

typedef struct scan {
    wf_bag  bag;
    entry  *entries;
    size_t  count, room, pictures, others;
    wf_map  captions; /* stem -> entry */
} scan;

static bool same_ending(const char *dot, const char *ending)
{
    for (; *dot != '\0' && *ending != '\0'; dot++, ending++) {
        char c = *dot >= 'A' && *dot <= 'Z' ? (char)(*dot + ('a' - 'A')) : *dot;
        if (c != *ending) return false;
    }
    return *dot == *ending;
}

static kind kind_of(const char *dot)
{
    if (dot == NULL) return OTHER;
    if (same_ending(dot, ".txt")) return CAPTION;
    return same_ending(dot, ".png") || same_ending(dot, ".jpg") || same_ending(dot, ".jpeg")
               ? PICTURE : OTHER;
}

static weft_status add_entry(scan *s, const char *name, weft_error *err)
{
    const char *dot = strrchr(name, '.');

    if (s->count == s->room) {
        size_t room = s->room == 0 ? 64 : 2 * s->room;
        entry *more = wf_bag_take(&s->bag, room, sizeof *more);
        if (more == NULL) return wf_nomem(err, room * sizeof *more, "the names of a folder");
        if (s->count > 0) memcpy(more, s->entries, s->count * sizeof *more);
        s->entries = more;
        s->room = room;
    }
    entry *e = &s->entries[s->count];
    *e = (entry){ .is = kind_of(dot) };
    e->name = wf_bag_string(&s->bag, name, strlen(name));
    e->stem = wf_bag_string(&s->bag, name, dot != NULL ? (size_t)(dot - name) : strlen(name));
    if (e->name == NULL || e->stem == NULL)
        return wf_nomem(err, strlen(name), "the names of a folder");
    s->count++;
    s->pictures += e->is == PICTURE;
    s->others += e->is == OTHER;
    return WEFT_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const entry *)a)->name, ((const entry *)b)->name);
}

/* "cat//": "cat", as the names of its files are said. */
static const char *without_slashes(wf_bag *bag, const char *folder)
{
    size_t n = strlen(folder);

    while (n > 1 && folder[n - 1] == '/') n--;
    return wf_bag_string(bag, folder, n);
}

/* Everything in the folder that is neither hidden nor a folder. */
static weft_status read_names(scan *s, const char *folder, const weft_allocator *alloc,
                              weft_error *err)
{
    weft_status st = WEFT_OK;
    DIR *d = opendir(folder);

    if (d == NULL) return wf_fail_sys(err, errno, "%s", folder);
    for (const struct dirent *e; st == WEFT_OK && (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.') continue;
        char *path = wf_path_join(alloc, folder, e->d_name);
        if (path == NULL) st = wf_nomem(err, strlen(folder), folder);
        else if (!wf_path_is_dir(path)) st = add_entry(s, e->d_name, err);
        wf_free(alloc, path);
    }
    closedir(d);
    if (st != WEFT_OK) return st;
    if (s->pictures == 0)
        return wf_fail(err, WEFT_E_FORMAT,
                       "%s: no pictures: no file in it ends in .png, .jpg or .jpeg, of %zu there",
                       folder, s->count);
    wf_sort(s->entries, s->count, sizeof *s->entries, by_name);
    WF_TRY(wf_map_init(&s->captions, alloc, s->count, err));
    for (size_t i = 0; i < s->count; i++) {
        bool added;
        if (s->entries[i].is == CAPTION)
            WF_TRY(wf_map_put(&s->captions, s->entries[i].stem, (int64_t)i, &added, err));
    }
    return WEFT_OK;
}

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

weft_status wf_data_caption(const char **text, size_t *length, const uint8_t *data, size_t size,
                            const char *what, weft_error *err)
{
    const char *s = (const char *)data;
    size_t      n = size;

    if (n >= 3 && memcmp(s, "\xef\xbb\xbf", 3) == 0) s += 3, n -= 3;
    while (n > 0 && is_space(*s)) s++, n--;
    while (n > 0 && is_space(s[n - 1])) n--;
    if (!wf_utf8_valid(s, n)) return wf_fail(err, WEFT_E_FORMAT, "%s: not UTF-8", what);
    if (memchr(s, '\n', n) != NULL || memchr(s, '\r', n) != NULL)
        return wf_fail(err, WEFT_E_FORMAT, "%s: several lines, and a caption is one", what);
    *text = s;
    *length = n;
    return WEFT_OK;
}

/* The caption in a file: the bag's; "" if nothing but white space is there. */
static weft_status read_caption(char **out, wf_bag *bag, const char *path,
                                const weft_allocator *alloc, weft_error *err)
{
    wf_file     file;
    const char *text = NULL;
    size_t      n = 0;
    weft_status st = wf_file_read(&file, path, CAPTION_BYTES, alloc, err);

    if (st != WEFT_OK) return st;
    st = wf_data_caption(&text, &n, file.data, file.size, path, err);
    if (st == WEFT_OK && (*out = wf_bag_string(bag, text, n)) == NULL)
        st = wf_nomem(err, n, path);
    wf_file_close(&file, alloc);
    return st;
}

/* What was written for the picture, or the prompt. */
static weft_status caption_of(const char **out, scan *s, const entry *picture, const char *folder,
                              const char *prompt, const weft_allocator *alloc, weft_error *err)
{
    int64_t i = wf_map_get(&s->captions, picture->stem);
    char   *own = NULL;

    *out = prompt;
    if (i >= 0) {
        char *path = wf_path_join(alloc, folder, s->entries[i].name);
        weft_status st = path == NULL ? wf_nomem(err, strlen(folder), folder)
                                      : read_caption(&own, &s->bag, path, alloc, err);
        wf_free(alloc, path);
        WF_TRY(st);
        s->entries[i].used = true;
        if (*own != '\0') *out = own;
    }
    if (*out != NULL) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG, "%s/%s: no caption: %s %s.txt, and no prompt was given for all",
                   folder, picture->name, i >= 0 ? "there is nothing in" : "there is no",
                   picture->stem);
}

static weft_status add_picture(wf_dataset *set, wf_data_list list, scan *s, const entry *picture,
                               const char *folder, const char *prompt, weft_error *err)
{
    const char *caption;

    WF_TRY(caption_of(&caption, s, picture, folder, prompt, &set->alloc, err));
    char *path = wf_path_join(&set->alloc, folder, picture->name);
    if (path == NULL) return wf_nomem(err, strlen(folder), folder);
    weft_status st = wf_data_add(set, list, path, caption, err);
    wf_free(&set->alloc, path);
    return st;
}

static void say_unused(const wf_dataset *set, const scan *s, const char *folder)
{
    for (size_t i = 0; i < s->count; i++)
        if (s->entries[i].is == CAPTION && !s->entries[i].used)
            wf_log(set->o.log, set->o.log_user, WEFT_LOG_WARN, "%s/%s: a caption without a picture",
                   folder, s->entries[i].name);
    if (s->others > 0)
        wf_log(set->o.log, set->o.log_user, WEFT_LOG_INFO,
               "%s: %zu files are neither pictures nor captions", folder, s->others);
}

weft_status wf_dataset_add_folder(wf_dataset *set, wf_data_list list, const char *folder,
                                  const char *prompt, weft_error *err)
{
    scan        s = { .count = 0 };
    size_t      had = set->count[list];
    uint64_t    stamp = set->stamp;
    weft_status st;

    if (folder == NULL) return wf_fail(err, WEFT_E_ARG, "folder is NULL");
    WF_TRY(wf_data_open(set, err));
    wf_bag_init(&s.bag, &set->alloc);
    folder = without_slashes(&s.bag, folder);
    st = folder != NULL ? read_names(&s, folder, &set->alloc, err)
                        : wf_nomem(err, 1, "the name of a folder");
    for (size_t i = 0; i < s.count && st == WEFT_OK; i++)
        if (s.entries[i].is == PICTURE)
            st = add_picture(set, list, &s, &s.entries[i], folder, prompt, err);
    if (st == WEFT_OK) {
        say_unused(set, &s, folder);
    } else {
        wf_data_shorten(set, list, had);
        set->stamp = stamp;
    }
    wf_map_free(&s.captions);
    wf_bag_free(&s.bag);
    return st;
}
