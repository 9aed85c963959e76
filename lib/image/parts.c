/* parts.c - the layers that a network of this room is built of. They are in no model's table, and
 * no adapter acts on them. */
#include "image/image_internal.h"

weft_status wf_image_parts_bind(wf_image_parts *p, wf_binder *b, const char *component,
                                const char *path, weft_error *err)
{
    size_t count = wf_tensors_count(p->file);

    p->derived.alloc = &p->alloc;
    wf_bag_init(&p->names, &p->alloc);
    *b = (wf_binder){ .alloc = &p->alloc, .file = p->file, .path = path, .component = component,
                      .component_id = -1, .layer_count = &p->layer_count, .layer_cap = count,
                      .derived = &p->derived, .names = &p->names };
    p->layers = wf_zalloc(&p->alloc, count, sizeof *p->layers);
    b->layers = p->layers;
    b->used = wf_zalloc(&p->alloc, count, 1);
    if (p->layers != NULL && b->used != NULL) return WEFT_OK;
    wf_free(&p->alloc, b->used);
    b->used = NULL;
    return wf_nomem(err, count * sizeof *p->layers, "a layer table");
}

void wf_image_parts_free(wf_image_parts *p)
{
    if (p->derived.alloc != NULL) {
        wf_derived_free(&p->derived);
        wf_bag_free(&p->names);
    }
    wf_free(&p->alloc, p->layers);
    weft_tensors_free(p->file);
}
