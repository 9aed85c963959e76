/* adapter.c - the handle: opening a file or a folder, and saying what is in it.
 *
 * An adapter is read once and never changes; it knows no model. Its tensors stay where the file keeps them. */
#include <errno.h>

#include "base/structs.h"
#include "adapter/room.h"

/* ---- opening ------------------------------------------------------------------------------------- */

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
    char *config; /* adapter_config.json, where there is one */
    char *folder; /* last part of the folder's name          */
    char *name;
} paths;

static void free_paths(paths *p, const weft_allocator *alloc)
{
    wf_free(alloc, p->file);
    wf_free(alloc, p->config);
    wf_free(alloc, p->folder);
    wf_free(alloc, p->name);
}

/* dir/name into *out; stays NULL where nothing is there. */
static weft_status find_in(char **out, const char *dir, const char *name, const weft_allocator *alloc,
                           weft_error *err)
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

static weft_status find_file(paths *p, const char *dir, const weft_allocator *alloc, weft_error *err)
{
    static const char *const names[] = {
        "adapter_model.safetensors", "pytorch_lora_weights.safetensors", "adapter_model.bin", "pytorch_lora_weights.bin",
        "pytorch_custom_diffusion_weights.safetensors", "pytorch_custom_diffusion_weights.bin",
    };

    for (size_t i = 0; i < WF_LEN(names) && p->file == NULL; i++) WF_TRY(find_in(&p->file, dir, names[i], alloc, err));
    if (p->file != NULL) return WEFT_OK;
    return wf_fail_sys(err, ENOENT, "%s: neither %s nor %s in this folder", dir, names[0], names[1]);
}

static weft_status find_paths(paths *p, const char *path, const weft_adapter_options *o, const weft_allocator *alloc,
                              weft_error *err)
{
    const char *part, *dir = path;
    bool        is_dir = wf_path_is_dir(path);
    char       *parent = NULL;
    size_t      n = last_part(path, strlen(path), &part);
    weft_status st;

    if (!is_dir) { /* the file's folder, "." where the path has none */
        size_t head = (size_t)(part - path);
        dir = parent = head == 0 ? wf_strdup(alloc, ".") : wf_strndup(alloc, path, head);
    }
    const char *folder;
    size_t      f = dir == NULL ? 0 : last_part(dir, strlen(dir), &folder);
    size_t      stem = n;
    while (!is_dir && stem > 1 && part[stem - 1] != '.') stem--;
    p->name = o->name != NULL ? wf_strdup(alloc, o->name) : wf_strndup(alloc, part, !is_dir && stem > 1 ? stem - 1 : n);
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

/* Does any key of the file belong to PEFT, so that adapter_config.json means it? */
static bool wants_config(const weft_tensors *t)
{
    wf_key k;

    for (size_t i = 0; i < wf_tensors_count(t); i++) {
        const char *key = wf_tensors_at(t, i)->name;
        if (wf_dialect_read(&wf_dialect_peft, key, &k) && !wf_dialect_read(&wf_dialect_diffusers, key, &k)) return true;
    }
    return false;
}

weft_status weft_adapter_open(const char *path, const weft_adapter_options *options, weft_adapter **out,
                              weft_error *err)
{
    weft_adapter_options o;
    weft_tensors        *tensors = NULL;
    paths                p = { NULL, NULL, NULL, NULL };
    wf_source            source = { NULL, NULL, NULL };
    weft_status          st;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "out is NULL");
    *out = NULL;
    if (path == NULL || *path == '\0') return wf_fail(err, WEFT_E_ARG, "path is NULL or empty");
    st = WF_OPTIONS(&o, options, weft_adapter_options, WEFT_OPEN_COPY, err);
    if (st == WEFT_OK) st = wf_check_allocator(o.allocator, err);
    if (st != WEFT_OK) return st;
    weft_allocator alloc = wf_allocator(o.allocator);

    if ((st = find_paths(&p, path, &o, &alloc, err)) != WEFT_OK) goto done;
    if ((st = wf_tensors_open(p.file, o.flags & WEFT_OPEN_COPY, &alloc, &tensors, err)) != WEFT_OK) goto done;
    if (o.config != NULL && !wants_config(tensors)) {
        st = wf_fail(err, WEFT_E_ARG, "%s: a PEFT configuration is given, but no key is PEFT's", p.name);
        goto done;
    }
    if (p.config != NULL && wants_config(tensors) &&
        (st = wf_json_load(&source.config, p.config, &alloc, err)) != WEFT_OK)
        goto done;
    source.name = p.name;
    source.folder = p.folder;
    if ((st = wf_adapter_parse(tensors, &source, &alloc, out, err)) != WEFT_OK) goto done;
    wf_log(o.log, o.log_user, WEFT_LOG_INFO, "%s: %s, %zu modules in %zu keys", p.name, (*out)->dialect,
           (*out)->count, wf_tensors_count(tensors));
done:
    json_decref(source.config);
    weft_tensors_free(tensors);
    free_paths(&p, &alloc);
    return st;
}

void wf_adapter_ref(weft_adapter *a)
{
    wf_ref_take(&a->refs);
}

void weft_adapter_free(weft_adapter *a)
{
    if (a == NULL || !wf_ref_drop(&a->refs)) return;
    weft_allocator alloc = a->alloc;
    for (size_t i = 0; i < a->count; i++) {
        wf_free(&alloc, (void *)a->modules[i].name);
        wf_free(&alloc, (void *)a->modules[i].key);
    }
    wf_free(&alloc, a->modules);
    wf_free(&alloc, a->key_module);
    wf_free(&alloc, a->name);
    weft_tensors_free(a->tensors);
    wf_free(&alloc, a);
}

/* ---- what is in it --------------------------------------------------------------------------------- */

size_t wf_adapter_modules(const weft_adapter *a)
{
    return a->count;
}

const wf_module *wf_adapter_module(const weft_adapter *a, size_t i)
{
    return &a->modules[i];
}

const char *wf_adapter_name(const weft_adapter *a)
{
    return a->name;
}

static bool ends_in(const char *s, const char *with)
{
    size_t n = strlen(s), w = strlen(with);
    return n >= w && strcmp(s + n - w, with) == 0;
}

/* The width of the conditioning, which cross-attention's keys read, is a base model's mark (formats.md E.1). */
int32_t wf_adapter_family(const weft_adapter *a)
{
    static const struct { int32_t width, family; } marks[] = {
        { 768, WEFT_BASE_SD1 }, { 1024, WEFT_BASE_SD2 }, { 2048, WEFT_BASE_SDXL },
        { 1280, WEFT_BASE_SDXL_REFINER },
    };
    int32_t family = WEFT_BASE_UNKNOWN;
    bool    cross = false;

    for (size_t i = 0; i < a->count; i++) {
        const wf_module *m = &a->modules[i];
        bool             here = ends_in(m->name, "attn2.to_k") || ends_in(m->name, "attn2_to_k") ||
                    ends_in(m->name, "attn2.to_v") || ends_in(m->name, "attn2_to_v");
        if (!here && !cross && wf_name_component(m->name) == 2) family = WEFT_BASE_SDXL;
        if (!here || cross) continue;
        cross = true;
        family = WEFT_BASE_UNKNOWN;
        for (size_t j = 0; j < WF_LEN(marks); j++)
            if (m->in == marks[j].width) family = marks[j].family;
    }
    return family;
}

weft_status weft_adapter_info_get(const weft_adapter *a, weft_adapter_info *info, weft_error *err)
{
    weft_adapter_info r = WEFT_ADAPTER_INFO_INIT;

    if (a == NULL || info == NULL) return wf_fail(err, WEFT_E_ARG, "adapter or info is NULL");
    r.base = wf_adapter_family(a);
    r.base_name = r.base == WEFT_BASE_UNKNOWN ? "unknown" : wf_base_name(r.base);
    r.name = a->name;
    r.dialect = a->dialect;
    r.family = a->families;
    r.kind = a->kind;
    r.words = a->words;
    r.modules = (int32_t)a->count;
    r.rank_min = INT32_MAX;
    r.bytes = (int64_t)wf_tensors_file_size(a->tensors);
    for (size_t i = 0; i < a->count; i++) {
        const wf_module *m = &a->modules[i];
        int32_t          component = wf_name_component(m->name);
        r.unet_modules += component == 0;
        r.text_modules += component == 1 || component == 2;
        r.conv_modules += m->kernel > 1;
        r.norm_modules += m->family == &wf_family_norm;
        if (m->rank > 0) {
            r.rank_min = WF_MIN(r.rank_min, m->rank);
            r.rank_max = WF_MAX(r.rank_max, m->rank);
        }
        for (int32_t p = 0; p < WF_PARTS; p++)
            if (m->part[p] != NULL && p != WF_PART_ALPHA) r.parameters += (int64_t)m->part[p]->count;
    }
    if (r.rank_max == 0) r.rank_min = 0;
    return WF_RESULT(info, &r, weft_adapter_info, err);
}

weft_status weft_adapter_module(const weft_adapter *a, size_t index, weft_module_info *info, weft_error *err)
{
    weft_module_info r = WEFT_MODULE_INFO_INIT;

    if (a == NULL || info == NULL) return wf_fail(err, WEFT_E_ARG, "adapter or info is NULL");
    if (index >= a->count)
        return wf_fail(err, WEFT_E_ARG, "%s: module %zu of %zu", a->name, index, a->count);
    const wf_module *m = &a->modules[index];
    r.rank = m->rank;
    r.name = m->name;
    r.key = m->key;
    r.out = m->out;
    r.in = m->in;
    r.kernel = m->kernel;
    r.alpha = m->alpha;
    r.scale = m->scale;
    r.has_alpha = m->has_alpha;
    r.family = m->part[WF_PART_MAGNITUDE] != NULL ? "dora" : m->family->name;
    return WF_RESULT(info, &r, weft_module_info, err);
}

size_t weft_adapter_metadata_count(const weft_adapter *a)
{
    return a == NULL ? 0 : wf_tensors_meta_count(a->tensors);
}

const char *weft_adapter_metadata_key(const weft_adapter *a, size_t index)
{
    return a == NULL || index >= wf_tensors_meta_count(a->tensors) ? NULL : wf_tensors_meta_key(a->tensors, index);
}

const char *weft_adapter_metadata_value(const weft_adapter *a, size_t index)
{
    return a == NULL || index >= wf_tensors_meta_count(a->tensors) ? NULL : wf_tensors_meta_value(a->tensors, index);
}

const char *weft_adapter_metadata(const weft_adapter *a, const char *key)
{
    return a == NULL || key == NULL ? NULL : weft_tensors_metadata(a->tensors, key);
}
