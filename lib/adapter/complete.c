/* complete.c - tensors that a file leaves out because a seed gives them.
 *
 * VeRA's projections need not be saved: the seed in the configuration makes them anew. But they are
 * as large as the largest layer that the adapter acts on, and the numbers depend on that size, so
 * only a model can tell them. An adapter knows no model and never changes. So a binding to a model
 * keeps a copy of the adapter that has them. The copy shares everything else.
 *
 * All modules must have their layers: without one of them the largest is not known. */
#include "adapter/adapter_internal.h"

/* What is known of the copy while it is made. */
typedef struct completion {
    weft_adapter   *a;
    const wf_layer *layers;
    int64_t        *layer; /* [modules] id of the layer of each, or -1 */
    weft_error     *err;
} completion;

static bool lacks(const wf_module *m)
{
    return m->family->lacks != NULL && m->family->lacks(m);
}

static bool belongs(const wf_module *m, const wf_family *family, int32_t component)
{
    return m->family == family && wf_name_component(m->name) == component && lacks(m);
}

/* The tensors of all modules of one family in one component, if there are any. */
static weft_status complete_family(completion *c, const wf_family *family, int32_t component)
{
    const wf_tensor *made[WF_TENSORS] = { NULL };
    const wf_module *first = NULL;
    size_t           in = 0, out = 0;
    wf_key_text      k;

    for (size_t i = 0; i < c->a->count; i++) {
        const wf_module *m = &c->a->modules[i];
        if (!belongs(m, family, component)) continue;
        if (c->layer[i] < 0)
            return wf_fail(c->err, WEFT_E_MISMATCH,
                           "%s: %s has no layer in the model, and the file leaves out projections "
                           "that depend on all of its layers; save it with save_projection",
                           c->a->name, wf_key_show(&k, m->key));
        const wf_layer *l = &c->layers[c->layer[i]];
        in = WF_MAX(in, (size_t)l->in);
        out = WF_MAX(out, (size_t)l->out);
        if (first == NULL) first = m;
    }
    if (first == NULL) return WEFT_OK;
    WF_TRY(family->make(first, in, out, &c->a->bag, made, c->err));
    for (size_t i = 0; i < c->a->count; i++) {
        wf_module *m = &c->a->modules[i];
        if (!belongs(m, family, component)) continue;
        for (int32_t t = 0; t < WF_TENSORS; t++) {
            if (made[t] == NULL) continue;
            m->tensor[t] = made[t];
            m->shared |= WF_BIT(t);
        }
        WF_TRY(family->shape(m, c->a->name, c->err));
    }
    return WEFT_OK;
}

/* A copy that shares names and tensors. */
static weft_status copy_of(weft_adapter *a, weft_adapter **out, weft_error *err)
{
    weft_adapter *c, own;

    WF_TRY(wf_adapter_new(a->tensors, a->name, &a->alloc, &c, err));
    memcpy(c->modules, a->modules, a->count * sizeof *a->modules);
    memcpy(c->key_module, a->key_module, wf_tensors_count(a->tensors) * sizeof *a->key_module);
    own = *c;
    *c = *a;
    wf_ref_init(&c->refs);
    c->name = own.name;
    c->modules = own.modules;
    c->key_module = own.key_module;
    c->bag = own.bag;
    c->origin = a;
    c->opened = (wf_opened){ 0 };
    wf_adapter_ref(a);
    *out = c;
    return WEFT_OK;
}

static weft_status complete_all(completion *c, const wf_slice *slices, size_t count)
{
    size_t                  families;
    const wf_family *const *all = wf_families(&families);

    for (size_t i = 0; i < c->a->count; i++) c->layer[i] = -1;
    for (size_t i = 0; i < count; i++) c->layer[slices[i].module] = slices[i].layer;
    for (size_t f = 0; f < families; f++)
        for (int32_t component = 0; wf_component_prefix(component) != NULL; component++)
            WF_TRY(complete_family(c, all[f], component));
    return WEFT_OK;
}

weft_status wf_adapter_complete(weft_adapter *a, const wf_layer *layers, const wf_slice *slices,
                                size_t count, weft_adapter **out, weft_error *err)
{
    completion  c = { .layers = layers, .err = err };
    bool        whole = true;
    weft_status st;

    *out = NULL;
    for (size_t i = 0; i < a->count && whole; i++) whole = !lacks(&a->modules[i]);
    if (whole) {
        wf_adapter_ref(a);
        *out = a;
        return WEFT_OK;
    }
    WF_TRY(copy_of(a, &c.a, err));
    c.layer = wf_zalloc(&a->alloc, a->count, sizeof *c.layer);
    st = c.layer != NULL ? complete_all(&c, slices, count)
                         : wf_nomem(err, a->count * sizeof *c.layer, "an adapter's layers");
    wf_free(&a->alloc, c.layer);
    if (st == WEFT_OK) *out = c.a;
    else weft_adapter_free(c.a);
    return st;
}
