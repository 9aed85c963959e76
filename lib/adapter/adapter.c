/* adapter.c - the handle: its memory, and saying what is in it.
 *
 * An adapter is read once and never changes; it knows no model. Its tensors stay where the file
 * keeps them. */
#include "adapter/adapter_internal.h"
#include "base/structs.h"

/* ---- the handle ------------------------------------------------------------------------------ */

weft_status wf_adapter_new(weft_tensors *tensors, const char *name, const weft_allocator *alloc,
                           weft_adapter **out, weft_error *err)
{
    size_t        count = wf_tensors_count(tensors);
    weft_adapter *a;

    *out = NULL;
    if (count > INT32_MAX)
        return wf_fail(err, WEFT_E_FORMAT, "%s: %zu tensors are too many", name, count);
    if ((a = wf_zalloc(alloc, 1, sizeof *a)) == NULL) return wf_nomem(err, sizeof *a, "an adapter");
    wf_ref_init(&a->refs);
    a->alloc = *alloc;
    wf_bag_init(&a->bag, &a->alloc);
    a->tensors = tensors;
    wf_tensors_ref(tensors);
    a->name = wf_strdup(alloc, name);
    a->modules = wf_zalloc(alloc, count, sizeof *a->modules);
    a->key_module = wf_zalloc(alloc, count, sizeof *a->key_module);
    if (a->name == NULL || a->modules == NULL || a->key_module == NULL) {
        weft_adapter_free(a);
        return wf_nomem(err, count * sizeof *a->modules, "an adapter's modules");
    }
    wf_wash(a->name, strlen(name) + 1, name); /* a file may be called anything; texts are UTF-8 */
    for (size_t i = 0; i < count; i++) a->key_module[i] = WF_KEY_UNREAD;
    *out = a;
    return WEFT_OK;
}

void wf_adapter_ref(weft_adapter *a)
{
    wf_ref_take(&a->refs);
}

void weft_adapter_free(weft_adapter *a)
{
    if (a == NULL || !wf_ref_drop(&a->refs)) return;
    weft_allocator alloc = a->alloc;
    wf_bag_free(&a->bag);
    wf_free(&alloc, a->modules);
    wf_free(&alloc, a->key_module);
    wf_free(&alloc, a->name);
    wf_origin_free(&a->opened.path, &alloc);
    wf_origin_free(&a->opened.weights, &alloc);
    wf_origin_free(&a->opened.config, &alloc);
    wf_free(&alloc, a->opened.config_text);
    wf_free(&alloc, a->opened.name);
    weft_tensors_free(a->tensors);
    weft_adapter_free(a->origin);
    wf_free(&alloc, a);
}

/* ---- what is in it --------------------------------------------------------------------------- */

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

const wf_opened *wf_adapter_opened(const weft_adapter *a)
{
    return a->origin != NULL ? &a->origin->opened : &a->opened;
}

bool wf_adapter_same(const weft_adapter *a, const weft_adapter *b)
{
    return (a->origin != NULL ? a->origin : a) == (b->origin != NULL ? b->origin : b);
}

static bool ends_in(const char *s, const char *with)
{
    size_t n = strlen(s), w = strlen(with);
    return n >= w && strcmp(s + n - w, with) == 0;
}

/* The width of the conditioning, which cross-attention's keys read, is a base model's mark
 *. */
int32_t wf_adapter_base(const weft_adapter *a)
{
    static const struct { int32_t width, base; } marks[] = {
        { 768, WEFT_BASE_SD1 }, { 1024, WEFT_BASE_SD2 }, { 2048, WEFT_BASE_SDXL },
        { 1280, WEFT_BASE_SDXL_REFINER },
    };
    int32_t base = WEFT_BASE_UNKNOWN;
    bool    cross = false;

    for (size_t i = 0; i < a->count; i++) {
        const wf_module *m = &a->modules[i];
        bool             here = ends_in(m->name, "attn2.to_k") || ends_in(m->name, "attn2_to_k") ||
                    ends_in(m->name, "attn2.to_v") || ends_in(m->name, "attn2_to_v");
        if (!here && !cross && wf_name_component(m->name) == WEFT_COMPONENT_TEXT_2)
            base = WEFT_BASE_SDXL;
        if (!here || cross) continue;
        cross = true;
        base = WEFT_BASE_UNKNOWN;
        for (size_t j = 0; j < WF_LEN(marks); j++)
            if (m->in == marks[j].width) base = marks[j].base;
    }
    return base;
}

weft_status weft_adapter_info_get(const weft_adapter *a, weft_adapter_info *info, weft_error *err)
{
    weft_adapter_info r = WEFT_ADAPTER_INFO_INIT;

    if (a == NULL || info == NULL) return wf_fail(err, WEFT_E_ARG, "adapter or info is NULL");
    r.base = wf_adapter_base(a);
    r.base_name = r.base == WEFT_BASE_UNKNOWN ? "unknown" : wf_base_name(r.base);
    r.name = a->name;
    r.dialect = a->dialect;
    r.family = a->families;
    r.kind = a->kind;
    r.tokens = a->tokens;
    r.modules = (int32_t)a->count;
    r.rank_min = INT32_MAX;
    r.bytes = (int64_t)wf_tensors_file_size(a->tensors);
    for (size_t i = 0; i < a->count; i++) {
        const wf_module *m = &a->modules[i];
        int32_t          component = wf_name_component(m->name);
        r.denoiser_modules += component == WEFT_COMPONENT_DENOISER;
        r.text_modules += component == WEFT_COMPONENT_TEXT_1 || component == WEFT_COMPONENT_TEXT_2;
        r.conv_modules += m->kernel > 1;
        r.norm_modules += m->norm;
        if (m->rank > 0) {
            r.rank_min = WF_MIN(r.rank_min, m->rank);
            r.rank_max = WF_MAX(r.rank_max, m->rank);
        }
        for (int32_t t = 0; t < WF_TENSORS; t++)
            if (m->tensor[t] != NULL && t != WF_TENSOR_ALPHA && (m->shared & WF_BIT(t)) == 0)
                r.parameters += (int64_t)m->tensor[t]->count;
    }
    for (size_t i = 0; i < wf_tensors_count(a->tensors); i++)
        if (a->key_module[i] == WF_KEY_SHARED)
            r.parameters += (int64_t)wf_tensors_at(a->tensors, i)->count;
    if (r.rank_max == 0) r.rank_min = 0;
    return WF_RESULT(info, &r, weft_adapter_info, err);
}

weft_status weft_adapter_module(const weft_adapter *a, size_t index, weft_module_info *info,
                                weft_error *err)
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
    r.alpha_source = m->alpha_source;
    r.zero_alpha = m->zero_alpha;
    r.alpha_key = m->alpha_key != NULL ? m->alpha_key : "";
    r.family = wf_module_family_name(m);
    return WF_RESULT(info, &r, weft_module_info, err);
}

size_t weft_adapter_metadata_count(const weft_adapter *a)
{
    return a == NULL ? 0 : wf_tensors_meta_count(a->tensors);
}

const char *weft_adapter_metadata_key(const weft_adapter *a, size_t index)
{
    return a == NULL || index >= wf_tensors_meta_count(a->tensors)
           ? NULL : wf_tensors_meta_key(a->tensors, index);
}

const char *weft_adapter_metadata_value(const weft_adapter *a, size_t index)
{
    return a == NULL || index >= wf_tensors_meta_count(a->tensors)
           ? NULL : wf_tensors_meta_value(a->tensors, index);
}

const char *weft_adapter_metadata(const weft_adapter *a, const char *key)
{
    return a == NULL || key == NULL ? NULL : weft_tensors_metadata(a->tensors, key);
}
