/* open.c - opening an adapter: which files a path means, and what is read from them. */
#include <errno.h>
#include <math.h>

#include "adapter/adapter_internal.h"
#include "base/structs.h"

/* ---- paths ----------------------------------------------------------------------------------- */

/* The part of a path between its last two slashes, or after the last: [*start, *start + result). */
static size_t last_part(const char *path, size_t len, const char **start)
{
    while (len > 1 && path[len - 1] == '/') len--;
    size_t from = len;
    while (from > 0 && path[from - 1] != '/') from--;
    *start = path + from;
    return len - from;
}

/* What the paths of one adapter are: all from the allocator, any may be NULL. */
typedef struct paths {
    char *file;
    char *config; /* adapter_config.json, if there is one     */
    char *folder; /* last part of the folder's name           */
    char *name;
} paths;

static void free_paths(paths *p, const weft_allocator *alloc)
{
    wf_free(alloc, p->file);
    wf_free(alloc, p->config);
    wf_free(alloc, p->folder);
    wf_free(alloc, p->name);
}

/* dir/name into *out; stays NULL if nothing is there. */
static weft_status find_in(char **out, const char *dir, const char *name,
                           const weft_allocator *alloc, weft_error *err)
{
    char *path = wf_path_join(alloc, dir, name);

    if (path == NULL) return wf_nomem(err, strlen(dir) + strlen(name), "a path");
    if (wf_path_exists(path)) {
        *out = path;
        return WEFT_OK;
    }
    wf_free(alloc, path);
    return WEFT_OK;
}

static weft_status find_file(paths *p, const char *dir, const weft_allocator *alloc,
                             weft_error *err)
{
    static const char *const names[] = {
        "adapter_model.safetensors", "pytorch_lora_weights.safetensors", "adapter_model.bin",
        "pytorch_lora_weights.bin",
        "pytorch_custom_diffusion_weights.safetensors", "pytorch_custom_diffusion_weights.bin",
    };

    for (size_t i = 0; i < WF_LEN(names) && p->file == NULL; i++)
        WF_TRY(find_in(&p->file, dir, names[i], alloc, err));
    if (p->file != NULL) return WEFT_OK;
    WF_TRY(find_in(&p->file, dir, "model_index.json", alloc, err));
    if (p->file != NULL)
        return wf_fail(err, WEFT_E_UNSUPPORTED,
                       "%s: a model's folder, not an adapter's: open it as a model", dir);
    return wf_fail_sys(err, ENOENT, "%s: neither %s nor %s in this folder", dir, names[0],
                       names[1]);
}

static weft_status find_paths(paths *p, const char *path, const weft_adapter_options *o,
                              const weft_allocator *alloc, weft_error *err)
{
    const char *part, *dir = path;
    bool        is_dir = wf_path_is_dir(path);
    char       *parent = NULL;
    size_t      n = last_part(path, strlen(path), &part);
    weft_status st;

    if (!is_dir) { /* the file's folder, "." if the path has none */
        size_t head = (size_t)(part - path);
        dir = parent = head == 0 ? wf_strdup(alloc, ".") : wf_strndup(alloc, path, head);
    }
    const char *folder;
    size_t      f = dir == NULL ? 0 : last_part(dir, strlen(dir), &folder);
    size_t      stem = n;
    while (!is_dir && stem > 1 && part[stem - 1] != '.') stem--;
    p->name = o->name != NULL ? wf_strdup(alloc, o->name) : wf_strndup(alloc, part, !is_dir &&
                                                                       stem > 1 ? stem - 1 : n);
    p->folder = dir == NULL ? NULL : wf_strndup(alloc, folder, f);
    if (!is_dir) p->file = wf_strdup(alloc, path);
    if (dir == NULL || p->name == NULL || p->folder == NULL || (!is_dir && p->file == NULL)) {
        st = wf_nomem(err, strlen(path), "a path");
        goto done;
    }
    if (is_dir && (st = find_file(p, path, alloc, err)) != WEFT_OK) goto done;
    if (o->config != NULL) {
        p->config = wf_strdup(alloc, o->config);
        st = p->config != NULL ? WEFT_OK : wf_nomem(err, strlen(o->config), "a path");
    } else {
        st = find_in(&p->config, dir, "adapter_config.json", alloc, err);
    }
done:
    wf_free(alloc, parent);
    return st;
}

/* ---- opening --------------------------------------------------------------------------------- */

/* Does a dialect with this kind of configuration read the key? */
static bool reads_with(int32_t config, const char *key)
{
    size_t                   count;
    const wf_dialect *const *all = wf_dialects(&count);
    wf_key                   k;

    for (size_t i = 0; i < count; i++)
        if (all[i]->config == config && wf_dialect_read(all[i], key, &k)) return true;
    return false;
}

/* Does any key of the file belong to PEFT alone, so that adapter_config.json speaks of it? */
static bool wants_config(const weft_tensors *t)
{
    for (size_t i = 0; i < wf_tensors_count(t); i++) {
        const char *key = wf_tensors_at(t, i)->name;
        if (reads_with(WF_CONFIG_FILE, key) && !reads_with(WF_CONFIG_METADATA, key)) return true;
        if (strstr(key, WF_PEFT_WRAPPER) != NULL && reads_with(WF_CONFIG_METADATA, key))
            return true;
    }
    return false;
}

static weft_status read_options(weft_adapter_options *o, const weft_adapter_options *options,
                                weft_error *err)
{
    WF_TRY(WF_OPTIONS(o, options, weft_adapter_options, WEFT_OPEN_COPY, err));
    if (o->config != NULL && o->config_text != NULL)
        return wf_fail(err, WEFT_E_ARG,
                       "weft_adapter_options: config and config_text are both given");
    if (o->alpha != 0 && o->scale != 0)
        return wf_fail(err, WEFT_E_ARG, "weft_adapter_options: alpha and scale are both given");
    if (!isfinite(o->alpha) || !isfinite(o->scale))
        return wf_fail(err, WEFT_E_ARG, "weft_adapter_options: %s is not a finite number",
                       isfinite(o->alpha) ? "scale" : "alpha");
    return wf_check_allocator(o->allocator, err);
}

/* PEFT's configuration, if a key of the file needs one; one that is given and not needed is
 * refused. `path` is the one that is given or stands beside the file, or NULL. */
static weft_status read_config(json_t **out, const weft_tensors *t, const weft_adapter_options *o,
                               const char *path, const char *name, const weft_allocator *alloc,
                               weft_error *err)
{
    bool wanted = wants_config(t);

    if (!wanted && (o->config != NULL || o->config_text != NULL))
        return wf_fail(err, WEFT_E_ARG, "%s: a PEFT configuration is given, but no key is PEFT's",
                       name);
    if (!wanted) return WEFT_OK;
    if (o->config_text != NULL)
        return wf_json_load_text(out, o->config_text, "config_text", err);
    return path != NULL ? wf_json_load(out, path, alloc, err) : WEFT_OK;
}

/* Tensors and what is known of their source become the adapter. */
static weft_status finish(weft_tensors *t, const weft_adapter_options *o, wf_source *source,
                          const char *config, const weft_allocator *alloc, weft_adapter **out,
                          weft_error *err)
{
    weft_status st = read_config(&source->config, t, o, config, source->name, alloc, err);

    source->alpha = o->alpha;
    source->scale = o->scale;
    source->log = o->log;
    source->log_user = o->log_user;
    if (st == WEFT_OK) st = wf_adapter_parse(t, source, alloc, out, err);
    source->configured = source->config != NULL;
    json_decref(source->config);
    if (st == WEFT_OK)
        wf_log(o->log, o->log_user, WEFT_LOG_INFO, "%s: %s, %zu modules in %zu keys", source->name,
               (*out)->dialect, (*out)->count, wf_tensors_count(t));
    return st;
}

/* A copy of a caller's text; NULL of NULL. */
static weft_status keep_text(char **to, const char *text, const weft_allocator *alloc,
                             weft_error *err)
{
    *to = text != NULL ? wf_strdup(alloc, text) : NULL;
    return text == NULL || *to != NULL ? WEFT_OK : wf_nomem(err, strlen(text) + 1, "a text");
}

static weft_status remember(wf_opened *to, const char *path, const paths *p,
                            const weft_adapter_options *o, bool configured,
                            const weft_allocator *alloc, weft_error *err)
{
    to->alpha = o->alpha;
    to->scale = o->scale;
    to->config_named = o->config != NULL;
    WF_TRY(keep_text(&to->name, o->name, alloc, err));
    WF_TRY(keep_text(&to->config_text, o->config_text, alloc, err));
    if (configured && o->config_text == NULL)
        WF_TRY(wf_origin_of(&to->config, p->config, alloc, err));
    WF_TRY(wf_origin_of(&to->weights, p->file, alloc, err));
    return wf_origin_of(&to->path, path, alloc, err);
}

weft_status weft_adapter_open(const char *path, const weft_adapter_options *options,
                              weft_adapter **out, weft_error *err)
{
    weft_adapter_options o;
    weft_tensors        *tensors = NULL;
    paths                p = { NULL, NULL, NULL, NULL };
    weft_status          st;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "out is NULL");
    *out = NULL;
    if (path == NULL || *path == '\0') return wf_fail(err, WEFT_E_ARG, "path is NULL or empty");
    WF_TRY(read_options(&o, options, err));
    weft_allocator alloc = wf_allocator(o.allocator);

    if ((st = find_paths(&p, path, &o, &alloc, err)) != WEFT_OK) goto done;
    if ((st = wf_tensors_open(p.file, o.flags & WEFT_OPEN_COPY, &alloc, &tensors, err)) != WEFT_OK)
        goto done;
    wf_source source = { .name = p.name, .folder = p.folder };
    st = finish(tensors, &o, &source, p.config, &alloc, out, err);
    if (st == WEFT_OK)
        st = remember(&(*out)->opened, path, &p, &o, source.configured, &alloc, err);
    if (st != WEFT_OK) {
        weft_adapter_free(*out);
        *out = NULL;
    }
done:
    weft_tensors_free(tensors);
    free_paths(&p, &alloc);
    return st;
}

weft_status weft_adapter_create(weft_tensors *tensors, const weft_adapter_options *options,
                                weft_adapter **out, weft_error *err)
{
    weft_adapter_options o;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "out is NULL");
    *out = NULL;
    if (tensors == NULL) return wf_fail(err, WEFT_E_ARG, "tensors is NULL");
    WF_TRY(read_options(&o, options, err));
    if ((o.flags & WEFT_OPEN_COPY) != 0)
        return wf_fail(err, WEFT_E_ARG, "weft_adapter_options: WEFT_OPEN_COPY is for files");
    weft_allocator alloc = wf_allocator(o.allocator);
    wf_source      source = { .name = o.name != NULL ? o.name : wf_tensors_what(tensors) };
    return finish(tensors, &o, &source, o.config, &alloc, out, err);
}
