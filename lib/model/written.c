/* written.c - the files of a model, made again beside new weights.
 *
 * A single file is one file. A folder is copied without the weights of its components: only what
 * the index names, one level deep, because people keep other checkpoints in the same place.
 * Everything is written under its final name; if something fails, a list of what was made is used
 * to remove it again. */
#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/model_internal.h"
#include "model/written.h"

/* ---- the tensors behind a layer -------------------------------------------------------------- */

static const wf_tensor *find(const weft_model *m, int32_t component, const char *name)
{
    char old[256];
    const wf_tensor *t = wf_tensors_find(m->files[component], name);
    bool renamed =
        t == NULL && (component == WEFT_COMPONENT_VAE
                          ? wf_vae_old_name(name, old, sizeof old)
                          : wf_is_text(component) && wf_text_old_name(name, old, sizeof old));
    return renamed ? wf_tensors_find(m->files[component], old) : t;
}

const wf_tensor *wf_model_tensor(const weft_model *m, const wf_layer *layer, bool bias,
                                 const wf_tensor **source)
{
    char name[256];
    const char *path = layer->name + strlen(weft_component_name(layer->component)) + 1;

    *source = NULL;
    if (!wf_format(name, sizeof name, "%s%s", path, bias ? ".bias" : ".weight")) return NULL;
    const wf_tensor *t = find(m, layer->component, name);
    for (size_t i = 0; t != NULL && i < WF_LEN(m->turned); i++)
        if (m->turned[i].copy == t->data) *source = m->turned[i].source;
    return t;
}

/* ---- what was made --------------------------------------------------------------------------- */

typedef struct made {
    struct made *before;
    bool         folder;
    char         path[];
} made;

typedef struct writing {
    const weft_model *m;
    made             *last;
    wf_weights_writer write;
    void             *user;
} writing;

static weft_status note(writing *w, const char *path, bool folder, weft_error *err)
{
    size_t size = strlen(path) + 1;
    made *n = wf_alloc(&w->m->alloc, sizeof *n + size);
    if (n == NULL) return wf_nomem(err, sizeof *n + size, path);
    n->before = w->last;
    n->folder = folder;
    memcpy(n->path, path, size);
    w->last = n;
    return WEFT_OK;
}

static void forget(writing *w, bool remove)
{
    while (w->last != NULL) {
        made *n = w->last;
        w->last = n->before;
        if (remove) (void)(n->folder ? rmdir(n->path) : unlink(n->path));
        wf_free(&w->m->alloc, n);
    }
}

static weft_status make_folder(writing *w, const char *path, weft_error *err)
{
    if (mkdir(path, 0777) != 0) return wf_fail_sys(err, errno, "%s: cannot be made", path);
    weft_status st = note(w, path, true, err);
    if (st != WEFT_OK) (void)rmdir(path);
    return st;
}

static weft_status copy_file(writing *w, const char *from, const char *to, weft_error *err)
{
    wf_file f;
    WF_TRY(note(w, to, false, err));
    WF_TRY(wf_file_open(&f, from, false, &w->m->alloc, err));
    weft_status st = wf_file_write(to, f.data, f.size, err);
    wf_file_close(&f, &w->m->alloc);
    return st;
}

/* ---- weights --------------------------------------------------------------------------------- */

static weft_status write_weights(writing *w, const char *path, const weft_tensors *file,
                                 bool single, weft_error *err)
{
    size_t count = wf_tensors_count(file), n = 0;
    wf_tensor *list = wf_zalloc(&w->m->alloc, count, sizeof *list);
    if (list == NULL) return wf_nomem(err, count * sizeof *list, path);
    for (size_t i = 0; i < count; i++) {
        list[n] = *wf_tensors_at(file, i);
        if (single) list[n].name = wf_single_name(w->m, list[n].name);
        n += list[n].name != NULL;
    }
    weft_status st = note(w, path, false, err);
    if (st == WEFT_OK) st = w->write(w->user, path, file, list, n, err);
    wf_free(&w->m->alloc, list);
    return st;
}

/* ---- folders --------------------------------------------------------------------------------- */

static bool ends(const char *s, const char *word)
{
    size_t n = strlen(s), k = strlen(word);
    return n >= k && strcmp(s + n - k, word) == 0;
}

/* Weights in any form, and the indices of their shards. */
static bool is_weights(const char *name)
{
    static const char *const endings[] = { ".safetensors", ".bin",       ".msgpack", ".h5",
                                           ".onnx",        ".onnx_data", ".ckpt",    ".pt" };
    for (size_t i = 0; i < WF_LEN(endings); i++)
        if (ends(name, endings[i])) return true;
    return strstr(name, ".index.") != NULL && ends(name, ".json");
}

/* The regular files of a folder, with or without weights. */
static weft_status copy_folder(writing *w, const char *from, const char *to, bool weights,
                               weft_error *err)
{
    char a[WF_PATH], b[WF_PATH];
    weft_status st = WEFT_OK;
    DIR *d = opendir(from);

    if (d == NULL) return wf_fail_sys(err, errno, "%s", from);
    for (const struct dirent *e; st == WEFT_OK && (e = readdir(d)) != NULL;) {
        struct stat info;
        if (e->d_name[0] == '.' || (!weights && is_weights(e->d_name))) continue;
        if (!wf_format(a, sizeof a, "%s/%s", from, e->d_name) ||
            !wf_format(b, sizeof b, "%s/%s", to, e->d_name))
            st = wf_fail(err, WEFT_E_ARG, "a path is too long: %.*s...", 100, to);
        else if (stat(a, &info) == 0 && S_ISREG(info.st_mode))
            st = copy_file(w, a, b, err);
    }
    (void)closedir(d);
    return st;
}

static int32_t component_of(const char *folder)
{
    for (int32_t i = 0; i < WF_COMPONENTS; i++)
        if (strcmp(folder, weft_component_name(i)) == 0) return i;
    return -1;
}

static weft_status write_component(writing *w, const char *to, int32_t id, weft_error *err)
{
    char path[WF_PATH];
    const char *stem = wf_is_text(id) ? "model" : "diffusion_pytorch_model";
    if (!wf_format(path, sizeof path, "%s/%s.safetensors", to, stem))
        return wf_fail(err, WEFT_E_ARG, "a path is too long: %.*s...", 100, to);
    return write_weights(w, path, w->m->files[id], false, err);
}

/* One of the model's subfolders, if it exists. */
static weft_status write_subfolder(writing *w, const char *to, const char *name, weft_error *err)
{
    char a[WF_PATH], b[WF_PATH];
    int32_t id = component_of(name);
    if (strchr(name, '/') != NULL || name[0] == '.') return WEFT_OK;
    if (!wf_format(a, sizeof a, "%s/%s", w->m->path, name) ||
        !wf_format(b, sizeof b, "%s/%s", to, name))
        return wf_fail(err, WEFT_E_ARG, "a path is too long: %.*s...", 100, to);
    if (!wf_path_is_dir(a)) return WEFT_OK;
    bool ours =
        id >= 0 && w->m->files[id] != NULL && !(id == WEFT_COMPONENT_VAE && w->m->vae_given);
    WF_TRY(make_folder(w, b, err));
    WF_TRY(copy_folder(w, a, b, !ours, err));
    return ours ? write_component(w, b, id, err) : WEFT_OK;
}

static weft_status write_folder(writing *w, const char *to, weft_error *err)
{
    static const char *const others[] = { "tokenizer", "tokenizer_2", "scheduler" };
    char a[WF_PATH], b[WF_PATH];
    json_t *index = NULL, *value;
    const char *name;
    weft_status st = WEFT_OK;

    if (!wf_format(a, sizeof a, "%s/model_index.json", w->m->path) ||
        !wf_format(b, sizeof b, "%s/model_index.json", to))
        return wf_fail(err, WEFT_E_ARG, "a path is too long: %.*s...", 100, to);
    WF_TRY(make_folder(w, to, err));
    if (!wf_path_exists(a)) {
        for (int32_t i = 0; i < WF_COMPONENTS; i++)
            WF_TRY(write_subfolder(w, to, weft_component_name(i), err));
        for (size_t i = 0; i < WF_LEN(others); i++) WF_TRY(write_subfolder(w, to, others[i], err));
        return WEFT_OK;
    }
    WF_TRY(copy_file(w, a, b, err));
    WF_TRY(wf_json_load(&index, a, &w->m->alloc, err));
    json_object_foreach(index, name, value)
        if (st == WEFT_OK && json_is_array(value)) st = write_subfolder(w, to, name, err);
    json_decref(index);
    return st;
}

weft_status wf_model_write(const weft_model *m, const char *path, wf_weights_writer write,
                           void *user, weft_error *err)
{
    writing w = { .m = m, .write = write, .user = user };
    weft_status st;

    if (wf_path_exists(path)) return wf_fail_sys(err, EEXIST, "%s", path);
    st = m->whole != NULL ? write_weights(&w, path, m->whole, true, err)
                          : write_folder(&w, path, err);
    forget(&w, st != WEFT_OK);
    return st;
}
