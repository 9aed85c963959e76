/* binding.c - an adapter on a model: which of its modules act at which layer.
 *
 * A binding is made once, with the caller's selection of layers, and never changes. Copies of a
 * plan share it. */
#include "plan/plan_internal.h"

wf_binding *wf_binding_ref(wf_binding *b)
{
    if (b != NULL) wf_ref_take(&b->refs);
    return b;
}

void wf_binding_drop(wf_binding *b)
{
    if (b == NULL || !wf_ref_drop(&b->refs)) return;
    weft_allocator alloc = b->alloc;
    wf_free(&alloc, b->select);
    wf_free(&alloc, b->exclude);
    wf_free(&alloc, b->slice);
    wf_free(&alloc, b->first);
    weft_adapter_free(b->adapter);
    wf_free(&alloc, b);
}

/* Which modules act at which layer, before the selection: the slices of all layers in one list. */
static weft_status place(wf_binding *b, const wf_layer *layers, size_t count,
                         const wf_slice *slices, size_t n, weft_error *err)
{
    size_t bytes = (n + 1) * sizeof *b->slice + (count + 1) * sizeof *b->first, at = 0;

    b->slice = wf_zalloc(&b->alloc, n + 1, sizeof *b->slice);
    b->first = wf_zalloc(&b->alloc, count + 1, sizeof *b->first);
    if (b->slice == NULL || b->first == NULL) return wf_nomem(err, bytes, "a binding");
    b->layers = count;
    for (size_t i = 0; i < n; i++) {
        const wf_layer *layer = &layers[slices[i].layer];
        if (layer->component != WEFT_COMPONENT_DENOISER &&
            wf_component_encoder(layer->component) < 0)
            return wf_fail(err, WEFT_E_UNSUPPORTED,
                           "adapter %s: %s: adapters act on the UNet and the text encoders",
                           wf_adapter_name(b->adapter), layer->name);
        for (; at <= (size_t)slices[i].layer; at++)
            b->first[at] = (int32_t)i; /* in order of layer */
        b->slice[i] = slices[i];
    }
    for (; at <= count; at++) b->first[at] = (int32_t)n;
    return WEFT_OK;
}

static bool acts_at(const wf_binding *b, size_t layer)
{
    return b->first[layer] < b->first[layer + 1];
}

/* A pattern that selects nothing is usually a typo. */
static weft_status check_patterns(const wf_binding *b, const wf_layer *layers, size_t count,
                                  weft_error *err)
{
    weft_status st = WEFT_OK;
    char       *one = wf_strdup(&b->alloc, b->select);

    if (one == NULL) return wf_nomem(err, strlen(b->select) + 1, "a pattern");
    for (const char *p = b->select; st == WEFT_OK; ) {
        size_t n = strcspn(p, ","), hits = 0;
        memcpy(one, p, n);
        one[n] = '\0';
        for (size_t l = 0; l < count; l++)
            if (acts_at(b, l) && wf_glob_any(one, layers[l].name)) hits++;
        if (hits == 0)
            st = wf_fail(err, WEFT_E_MISMATCH,
                         "adapter %s: select pattern \"%s\" matches none of its layers",
                         wf_adapter_name(b->adapter), one);
        if (p[n] == '\0') break;
        p += n + 1;
    }
    wf_free(&b->alloc, one);
    return st;
}

static weft_status apply_selection(wf_binding *b, const wf_layer *layers, size_t count,
                                   weft_error *err)
{
    int32_t     kept = 0;
    weft_status st;

    if (b->select == NULL && b->exclude == NULL) return WEFT_OK;
    if (b->select != NULL && (st = check_patterns(b, layers, count, err)) != WEFT_OK) return st;
    for (size_t l = 0; l < count; l++) {
        int32_t from = b->first[l], end = b->first[l + 1];
        bool    out = (b->select != NULL && !wf_glob_any(b->select, layers[l].name)) ||
                   (b->exclude != NULL && wf_glob_any(b->exclude, layers[l].name));
        b->first[l] = kept;
        for (int32_t i = from; i < end && !out; i++) b->slice[kept++] = b->slice[i];
    }
    b->first[count] = kept;
    if (kept == 0)
        return wf_fail(err, WEFT_E_MISMATCH,
                       "adapter %s: exclude pattern \"%s\" leaves none of its layers",
                       wf_adapter_name(b->adapter), b->exclude);
    return WEFT_OK;
}

weft_status wf_binding_make(wf_binding **out, weft_model *model, weft_adapter *adapter,
                            const wf_slice *slices, size_t n, const weft_add_options *o,
                            const weft_allocator *alloc, weft_error *err)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(model, &count);
    wf_binding     *b = wf_zalloc(alloc, 1, sizeof *b);
    weft_status     st = WEFT_OK;

    if (b == NULL) return wf_nomem(err, sizeof *b, "a binding");
    wf_ref_init(&b->refs);
    b->alloc = *alloc;
    st = wf_adapter_complete(adapter, layers, slices, n, &b->adapter, err);
    const char *name = wf_adapter_name(adapter);
    if (st == WEFT_OK) st = wf_glob_copy(&b->select, o->select, name, "select", alloc, err);
    if (st == WEFT_OK) st = wf_glob_copy(&b->exclude, o->exclude, name, "exclude", alloc, err);
    if (st == WEFT_OK) st = place(b, layers, count, slices, n, err);
    if (st == WEFT_OK) st = apply_selection(b, layers, count, err);
    if (st == WEFT_OK) *out = b;
    else wf_binding_drop(b);
    return st;
}

weft_status wf_binding_create(wf_binding **out, weft_model *model, weft_adapter *adapter,
                              const weft_add_options *o, const weft_allocator *alloc,
                              weft_error *err)
{
    weft_report *report;
    size_t       n;
    weft_status  st = weft_report_create(model, adapter, &report, err);

    if (st != WEFT_OK) return st;
    st = wf_report_verdict(report, (o->flags & WEFT_ADD_PARTIAL) != 0, err);
    const wf_slice *slices = wf_report_slices(report, &n);
    if (st == WEFT_OK) st = wf_binding_make(out, model, adapter, slices, n, o, alloc, err);
    weft_report_free(report);
    return st;
}

const wf_slice *wf_plan_slices(const weft_plan *p, int32_t adapter, int32_t layer, int32_t *count)
{
    const wf_binding *b = p->entry[adapter].bound;

    *count = b->first[layer + 1] - b->first[layer];
    return &b->slice[b->first[layer]];
}

const wf_module *wf_plan_module(const weft_plan *p, int32_t adapter, int32_t layer)
{
    int32_t         count;
    const wf_slice *slice = wf_plan_slices(p, adapter, layer, &count);
    return count > 0 ? wf_adapter_module(p->entry[adapter].bound->adapter, (size_t)slice->module)
                     : NULL;
}
