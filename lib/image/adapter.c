/* adapter.c - an IP-Adapter from a file.
 *
 * The projection's tensors are image_proj.*. Keys and values are ip_adapter.N.to_k_ip.weight and
 * to_v_ip: N counts the attentions of the denoiser in the order down, up, middle, self-attentions
 * included, so cross-attention i has N = 2 i + 1. Which denoiser that is no file says: its sizes
 * are compared when a plan takes it (plan/image.c). */
#include "base/structs.h"
#include "image/image_internal.h"

enum { PAIRS_MAX = 4096 };

struct weft_image_adapter {
    wf_refs        refs;
    wf_image_parts parts;
    char          *name;
    wf_image_proj *proj;
    wf_image_pair *pairs;
    int32_t        count;
    int64_t        parameters;
};

static bool begins(const char *name, const char *with)
{
    return strncmp(name, with, strlen(with)) == 0;
}

/* Is it an IP-Adapter at all? */
static weft_status check_kind(const weft_tensors *file, const char *path, weft_error *err)
{
    bool image = false, keys = false;

    for (size_t i = 0; i < wf_tensors_count(file); i++) {
        const char *name = wf_tensors_at(file, i)->name;
        image = image || begins(name, "image_proj.");
        keys = keys || begins(name, "ip_adapter.");
    }
    if (image && keys) return WEFT_OK;
    return wf_fail(err, WEFT_E_UNSUPPORTED, "%s is not an IP-Adapter: it has no tensor %s", path,
                   image ? "ip_adapter.*" : "image_proj.*");
}

/* One more than the largest pair that a tensor is named after. */
static int32_t count_pairs(const weft_tensors *file)
{
    int32_t most = 0;

    for (size_t i = 0; i < wf_tensors_count(file); i++) {
        const char *at = wf_tensors_at(file, i)->name + strlen("ip_adapter.");
        int32_t     n = 0;
        if (!begins(wf_tensors_at(file, i)->name, "ip_adapter.")) continue;
        for (; *at >= '0' && *at <= '9' && n < 2 * PAIRS_MAX; at++) n = 10 * n + (*at - '0');
        if (n < 2 * PAIRS_MAX) most = WF_MAX(most, (n + 1) / 2);
    }
    return most;
}

static weft_status bind_pair(weft_image_adapter *a, wf_binder *b, int32_t index, weft_error *err)
{
    int32_t          width = wf_image_proj_get_config(a->proj)->width;
    char             name[48];
    const wf_tensor *t;
    int32_t          channels;
    wf_shape_text    shape;

    wf_format(name, sizeof name, "ip_adapter.%d.to_k_ip.weight", (int)(2 * index + 1));
    t = wf_tensors_find(a->parts.file, name);
    if (t == NULL)
        return wf_fail(err, WEFT_E_FORMAT,
                       "%s: tensor %s is missing, wanted with shape (channels, %d)", b->path, name,
                       (int)width);
    if (t->rank != 2 || t->shape[0] < 1 || t->shape[0] > 1 << 16)
        return wf_fail(err, WEFT_E_FORMAT, "%s: tensor %s is %s, wanted (channels, %d)", b->path,
                       name, wf_shape(&shape, t->shape, t->rank), (int)width);
    channels = (int32_t)t->shape[0];
    wf_format(name, sizeof name, "ip_adapter.%d", (int)(2 * index + 1));
    WF_TRY(wf_bind_linear(b, &a->pairs[index].k, name, "to_k_ip", channels, width, false, err));
    return wf_bind_linear(b, &a->pairs[index].v, name, "to_v_ip", channels, width, false, err);
}

static weft_status bind_pairs(weft_image_adapter *a, wf_binder *b, weft_error *err)
{
    a->count = count_pairs(a->parts.file);
    a->pairs = wf_zalloc(&a->parts.alloc, (size_t)a->count, sizeof *a->pairs);
    if (a->pairs == NULL)
        return wf_nomem(err, (size_t)a->count * sizeof *a->pairs, "the keys of an IP-Adapter");
    for (int32_t i = 0; i < a->count; i++) WF_TRY(bind_pair(a, b, i, err));
    return WEFT_OK;
}

static weft_status build(weft_image_adapter *a, const char *path, weft_error *err)
{
    wf_image_proj_config c;
    wf_binder   b;
    weft_status st;

    WF_TRY(check_kind(a->parts.file, path, err));
    WF_TRY(wf_image_proj_look(&c, a->parts.file, path, err));
    WF_TRY(wf_image_parts_bind(&a->parts, &b, "image_prompt", path, err));
    st = wf_image_proj_build(&c, &b, &a->proj, err);
    if (st == WEFT_OK) st = bind_pairs(a, &b, err);
    if (st == WEFT_OK) st = wf_bind_finish(&b, err);
    a->parameters = b.parameters;
    wf_free(&a->parts.alloc, b.used);
    return st;
}

/* The last part of the path, without its ending. */
static char *name_of(const char *path, const weft_allocator *alloc)
{
    const char *slash = strrchr(path, '/'), *from = slash != NULL ? slash + 1 : path;
    const char *dot = strrchr(from, '.');
    return wf_strndup(alloc, from, dot != NULL && dot > from ? (size_t)(dot - from) : strlen(from));
}

weft_status wf_image_adapter_make(weft_image_adapter **out, weft_tensors *file, const char *path,
                                  const weft_allocator *alloc, weft_error *err)
{
    weft_status st;

    *out = NULL;
    weft_image_adapter *a = wf_zalloc(alloc, 1, sizeof *a);
    if (a == NULL) return wf_nomem(err, sizeof *a, "an IP-Adapter");
    wf_ref_init(&a->refs);
    a->parts.alloc = *alloc;
    wf_tensors_ref(a->parts.file = file);
    a->name = name_of(path, alloc);
    st = a->name != NULL ? build(a, path, err) : wf_nomem(err, strlen(path), "a name");
    if (st == WEFT_OK) *out = a;
    else weft_image_adapter_free(a);
    return st;
}

weft_status weft_image_adapter_open(const char *path, const weft_image_options *options,
                                    weft_image_adapter **out, weft_error *err)
{
    weft_image_options o;
    weft_tensors *file;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "out is NULL");
    *out = NULL;
    if (path == NULL) return wf_fail(err, WEFT_E_ARG, "path is NULL");
    WF_TRY(WF_OPTIONS(&o, options, weft_image_options, WEFT_OPEN_COPY, err));
    WF_TRY(wf_check_allocator(o.allocator, err));

    weft_allocator alloc = wf_allocator(o.allocator);
    WF_TRY(wf_tensors_open(path, (o.flags & WEFT_OPEN_COPY) != 0, &alloc, &file, err));
    weft_status st = wf_tensors_set_origin(file, path, err);
    if (st == WEFT_OK) st = wf_image_adapter_make(out, file, path, &alloc, err);
    weft_tensors_free(file); /* the adapter keeps it */
    return st;
}

void wf_image_adapter_ref(weft_image_adapter *a) { wf_ref_take(&a->refs); }

void weft_image_adapter_free(weft_image_adapter *a)
{
    if (a == NULL || !wf_ref_drop(&a->refs)) return;
    weft_allocator alloc = a->parts.alloc;
    wf_image_proj_free(a->proj, &alloc);
    wf_free(&alloc, a->pairs);
    wf_free(&alloc, a->name);
    wf_image_parts_free(&a->parts);
    wf_free(&alloc, a);
}

const char          *wf_image_adapter_name(const weft_image_adapter *a) { return a->name; }

const wf_origin *wf_image_adapter_origin(const weft_image_adapter *a)
{
    return wf_tensors_origin(a->parts.file);
}

const wf_image_proj *wf_image_adapter_proj(const weft_image_adapter *a) { return a->proj; }

const wf_image_pair *wf_image_adapter_pairs(const weft_image_adapter *a, int32_t *count)
{
    *count = a->count;
    return a->pairs;
}

weft_status weft_image_adapter_info_get(const weft_image_adapter *a, weft_image_adapter_info *info,
                                        weft_error *err)
{
    weft_image_adapter_info r = WEFT_IMAGE_ADAPTER_INFO_INIT;

    if (a == NULL || info == NULL)
        return wf_fail(err, WEFT_E_ARG, "%s is NULL", a == NULL ? "adapter" : "info");
    const wf_image_proj_config *c = wf_image_proj_get_config(a->proj);
    r.kind = c->kind;
    r.features = c->features;
    r.tokens = c->tokens;
    r.width = c->width;
    r.cross_layers = a->count;
    r.parameters = a->parameters;
    r.name = a->name;
    return WF_RESULT(info, &r, weft_image_adapter_info, err);
}
