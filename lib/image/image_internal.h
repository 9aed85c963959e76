/* image_internal.h - what the two handles of this room share: a file, and layers bound to it.
 *
 *   encoder.c   CLIP's image encoder from a folder
 *   adapter.c   an IP-Adapter from a file
 *   prepare.c   a picture as the encoder reads it */
#ifndef WF_IMAGE_INTERNAL_H
#define WF_IMAGE_INTERNAL_H

#include "image/image.h"

/* A file, and what a network is built from it with. */
typedef struct wf_image_parts {
    weft_allocator alloc;
    weft_tensors  *file;
    wf_layer      *layers;
    size_t         layer_count;
    wf_derived     derived;
    wf_bag         names;
} wf_image_parts;

/* The binder of the parts' file, which is there; its `used` must be freed with the allocator. */
weft_status wf_image_parts_bind(wf_image_parts *p, wf_binder *b, const char *component,
                                const char *path, weft_error *err);
void        wf_image_parts_free(wf_image_parts *p);

#endif
