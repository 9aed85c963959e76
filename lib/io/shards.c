/* shards.c - a checkpoint in several files, seen as one.
 *
 * The index says in which file each tensor is. Files are looked for only beside the index. A tensor
 * that the index lists is taken from the file named there and from no other. One that it does not
 * list is taken too, as in transformers and diffusers, which read the files whole. */
#include <stdlib.h>

#include "io/io.h"

#define MAX_SHARDS 1000

typedef struct reader {
    const char           *path;
    char                 *folder;
    bool                  copy;
    const weft_allocator *alloc;
    json_t               *weight_map;
    wf_map                numbers;    /* of the files, by name */
    const char          **names;
    weft_tensors        **shards;
    size_t                count;
    weft_tensors         *view;
    weft_error           *err;
} reader;

/* ---- the index ------------------------------------------------------------------------------- */

static weft_status check_file_name(const reader *r, const char *tensor, const json_t *value)
{
    const char *name = json_string_value(value);

    if (name == NULL)
        return wf_fail(r->err, WEFT_E_FORMAT, "%s: tensor \"%.160s\": its file is not a string",
                       r->path, tensor);
    if (*name == '\0' || strpbrk(name, "/\\") != NULL || strstr(name, "..") != NULL)
        return wf_fail(r->err, WEFT_E_FORMAT,
                       "%s: tensor \"%.160s\": \"%.160s\" is not the name of a file beside the "
                       "index",
                       r->path, tensor, name);
    return WEFT_OK;
}

/* A number for each file, in order of mention. */
static weft_status number_files(reader *r)
{
    const char *tensor;
    json_t     *value;
    bool        added;

    r->names  = wf_zalloc(r->alloc, MAX_SHARDS, sizeof *r->names);
    r->shards = wf_zalloc(r->alloc, MAX_SHARDS, sizeof *r->shards);
    if (r->names == NULL || r->shards == NULL)
        return wf_nomem(r->err, MAX_SHARDS * sizeof *r->shards, r->path);
    WF_TRY(wf_map_init(&r->numbers, r->alloc, 16, r->err));
    json_object_foreach(r->weight_map, tensor, value) {
        WF_TRY(check_file_name(r, tensor, value));
        WF_TRY(
            wf_map_put(&r->numbers, json_string_value(value), (int64_t)r->count, &added, r->err));
        if (!added) continue;
        if (r->count == MAX_SHARDS)
            return wf_fail(r->err, WEFT_E_FORMAT, "%s: more than %d files", r->path, MAX_SHARDS);
        r->names[r->count++] = json_string_value(value);
    }
    return WEFT_OK;
}

/* ---- the files ------------------------------------------------------------------------------- */

static weft_status open_shard(reader *r, size_t i)
{
    char       *path = wf_path_join(r->alloc, r->folder, r->names[i]);
    weft_status st;

    if (path == NULL) return wf_nomem(r->err, strlen(r->names[i]), r->path);
    st = wf_tensors_open(path, r->copy, r->alloc, &r->shards[i], r->err);
    wf_free(r->alloc, path);
    if (st != WEFT_OK) return st;
    return wf_tensors_keep(r->view, r->shards[i], r->err);
}

static weft_status show_shard(reader *r, size_t i)
{
    const weft_tensors *shard = r->shards[i];

    for (size_t k = 0; k < wf_tensors_count(shard); k++) {
        const wf_tensor *t    = wf_tensors_at(shard, k);
        const char      *file = json_string_value(json_object_get(r->weight_map, t->name));

        if (file == NULL || strcmp(file, r->names[i]) == 0)
            WF_TRY(wf_tensors_add_as(r->view, t->name, t, r->err));
    }
    for (size_t k = 0; i == 0 && k < wf_tensors_meta_count(shard); k++)
        WF_TRY(wf_tensors_add_meta(r->view, wf_tensors_meta_key(shard, k),
                                   wf_tensors_meta_value(shard, k), r->err));
    return WEFT_OK;
}

static weft_status check_present(const reader *r)
{
    const char *tensor;
    json_t     *value;

    json_object_foreach(r->weight_map, tensor, value) {
        const weft_tensors *shard = r->shards[wf_map_get(&r->numbers, json_string_value(value))];

        if (wf_tensors_find(shard, tensor) == NULL)
            return wf_fail(r->err, WEFT_E_FORMAT, "%s: tensor \"%.160s\" is not in %.160s", r->path,
                           tensor, json_string_value(value));
    }
    return WEFT_OK;
}

/* ---- all of it ------------------------------------------------------------------------------- */

static weft_status read_index(reader *r, json_t *root)
{
    const char *slash = strrchr(r->path, '/');

    r->weight_map = json_object_get(root, "weight_map");
    if (!json_is_object(r->weight_map) || json_object_size(r->weight_map) == 0)
        return wf_fail(r->err, WEFT_E_FORMAT, "%s: no \"weight_map\" object that names tensors",
                       r->path);
    r->folder = slash != NULL ? wf_strndup(r->alloc, r->path, (size_t)(slash - r->path) + 1)
                              : wf_strdup(r->alloc, ".");
    if (r->folder == NULL) return wf_nomem(r->err, strlen(r->path), r->path);
    WF_TRY(number_files(r));
    WF_TRY(wf_tensors_new(r->alloc, r->path, &r->view, r->err));
    for (size_t i = 0; i < r->count; i++) WF_TRY(open_shard(r, i));
    WF_TRY(check_present(r));
    for (size_t i = 0; i < r->count; i++) WF_TRY(show_shard(r, i));
    return wf_tensors_seal(r->view, r->err);
}

weft_status wf_tensors_open_index(const char *path, bool copy, const weft_allocator *alloc,
                                  weft_tensors **out, weft_error *err)
{
    reader      r = { .path = path, .copy = copy, .alloc = alloc, .err = err };
    json_t     *root;
    weft_status st;

    *out = NULL;
    WF_TRY(wf_json_load(&root, path, alloc, err));
    st = read_index(&r, root);
    for (size_t i = 0; i < r.count; i++) weft_tensors_free(r.shards[i]);
    wf_map_free(&r.numbers);
    wf_free(alloc, r.names);
    wf_free(alloc, r.shards);
    wf_free(alloc, r.folder);
    json_decref(root);
    if (st == WEFT_OK) *out = r.view;
    else               weft_tensors_free(r.view);
    return st;
}
