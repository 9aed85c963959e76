/* binding.c - an adapter on a model: which of its modules acts at which layer.
 *
 * A binding is made once, with the caller's selection of layers, and never changes. Copies of a plan
 * share it, and so does all that is made from it. */
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
    wf_free(&alloc, b->module);
    weft_report_free(b->report);
    weft_adapter_free(b->adapter);
    wf_free(&alloc, b);
}

/* Which module acts at which layer, before the selection. */
static weft_status place_modules(wf_binding *b, const wf_layer *layers, size_t count, weft_error *err)
{
    size_t          bound;
    const wf_slice *at = wf_report_slices(b->report, &bound);

    for (size_t l = 0; l < count; l++) b->module[l] = -1;
    for (size_t i = 0; i < bound; i++) {
        const wf_layer *layer = &layers[at[i].layer];
        const char     *key = wf_adapter_module(b->adapter, (size_t)at[i].module)->key;
        if (layer->component != WEFT_COMPONENT_DENOISER && wf_text_encoder(layer->component) < 0)
            return wf_fail(err, WEFT_E_UNSUPPORTED, "adapter %s: %s: adapters act on the UNet and the text encoders",
                           wf_adapter_name(b->adapter), layer->name);
        if (!wf_slice_whole(&at[i], layer)) /* no dialect that is read makes one */
            return wf_fail(err, WEFT_E_UNSUPPORTED, "adapter %s: %s acts on a part of layer %s",
                           wf_adapter_name(b->adapter), key, layer->name);
        b->module[layer->id] = at[i].module;
    }
    return WEFT_OK;
}

/* A pattern that selects nothing is usually a typo. */
static weft_status check_patterns(const wf_binding *b, const wf_layer *layers, size_t count, weft_error *err)
{
    weft_status st = WEFT_OK;
    char       *one = wf_strdup(&b->alloc, b->select);

    if (one == NULL) return wf_nomem(err, strlen(b->select) + 1, "a pattern");
    for (const char *p = b->select; st == WEFT_OK; ) {
        size_t n = strcspn(p, ","), hits = 0;
        memcpy(one, p, n);
        one[n] = '\0';
        for (size_t l = 0; l < count; l++)
            if (b->module[l] >= 0 && wf_glob_any(one, layers[l].name)) hits++;
        if (hits == 0)
            st = wf_fail(err, WEFT_E_MISMATCH, "adapter %s: select pattern \"%s\" matches none of its layers",
                         wf_adapter_name(b->adapter), one);
        if (p[n] == '\0') break;
        p += n + 1;
    }
    wf_free(&b->alloc, one);
    return st;
}

static weft_status apply_selection(wf_binding *b, const wf_layer *layers, size_t count, weft_error *err)
{
    size_t      left = 0;
    weft_status st;

    if (b->select == NULL && b->exclude == NULL) return WEFT_OK;
    if (b->select != NULL && (st = check_patterns(b, layers, count, err)) != WEFT_OK) return st;
    for (size_t l = 0; l < count; l++) {
        if (b->module[l] < 0) continue;
        if ((b->select != NULL && !wf_glob_any(b->select, layers[l].name)) ||
            (b->exclude != NULL && wf_glob_any(b->exclude, layers[l].name)))
            b->module[l] = -1;
        else
            left++;
    }
    if (left == 0)
        return wf_fail(err, WEFT_E_MISMATCH, "adapter %s: exclude pattern \"%s\" leaves none of its layers",
                       wf_adapter_name(b->adapter), b->exclude);
    return WEFT_OK;
}

weft_status wf_binding_create(wf_binding **out, weft_model *model, weft_adapter *adapter,
                              const weft_add_options *o, const weft_allocator *alloc, weft_error *err)
{
    size_t          count;
    const wf_layer *layers = wf_model_layers(model, &count);
    wf_binding     *b = wf_zalloc(alloc, 1, sizeof *b);
    weft_status     st = WEFT_OK;

    if (b == NULL) return wf_nomem(err, sizeof *b, "a binding");
    wf_ref_init(&b->refs);
    b->alloc = *alloc;
    b->adapter = adapter;
    wf_adapter_ref(adapter);
    if ((st = weft_report_create(model, adapter, &b->report, err)) != WEFT_OK) goto done;
    if ((st = wf_report_verdict(b->report, (o->flags & WEFT_ADD_PARTIAL) != 0, err)) != WEFT_OK) goto done;

    b->module = wf_zalloc(alloc, count, sizeof *b->module);
    if (b->module == NULL) st = wf_nomem(err, count * sizeof *b->module, "a binding");
    if (st == WEFT_OK && o->select != NULL && (b->select = wf_strdup(alloc, o->select)) == NULL)
        st = wf_nomem(err, strlen(o->select) + 1, "a selection");
    if (st == WEFT_OK && o->exclude != NULL && (b->exclude = wf_strdup(alloc, o->exclude)) == NULL)
        st = wf_nomem(err, strlen(o->exclude) + 1, "a selection");
    if (st != WEFT_OK) goto done;

    if ((st = place_modules(b, layers, count, err)) != WEFT_OK) goto done;
    if ((st = apply_selection(b, layers, count, err)) != WEFT_OK) goto done;
    *out = b;
    b = NULL;
done:
    wf_binding_drop(b);
    return st;
}

const wf_module *wf_plan_module(const weft_plan *p, int32_t adapter, int32_t layer)
{
    const wf_binding *b = p->entry[adapter].bound;
    int32_t           m = b->module[layer];
    return m < 0 ? NULL : wf_adapter_module(b->adapter, (size_t)m);
}
