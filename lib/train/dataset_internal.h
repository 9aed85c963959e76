/* dataset_internal.h - the set of pictures, for the files that it is made of.
 *
 *   dataset.c   the handle, its lists, adding a picture
 *   folder.c    a folder's pictures and captions
 *   draw.c      what is read at a position: pure
 *   sample.c    pixels and mask of what was drawn
 *   latents.c   latents, kept or made */
#ifndef WF_DATASET_INTERNAL_H
#define WF_DATASET_INTERNAL_H

#include "train/dataset.h"

typedef struct wf_data_picture {
    char    *name;          /* the file's path, or what errors call it                            */
    char    *caption;
    uint8_t *rgb;           /* (height, width, 3), or NULL: in the file                           */
    int32_t  width, height;
} wf_data_picture;

/* An order of a list's pictures, remembered for the next draw. */
typedef struct wf_data_order {
    size_t  *of;            /* [count] or NULL */
    size_t   count;
    uint64_t seed, epoch;
} wf_data_order;

struct wf_dataset {
    weft_allocator     alloc;
    wf_dataset_options o;
    wf_data_picture   *picture[WF_DATA_LISTS];
    size_t             count[WF_DATA_LISTS], room[WF_DATA_LISTS];
    wf_data_order      order[WF_DATA_LISTS];
    uint64_t           stamp;
    float             *kept[WF_DATA_LISTS]; /* [picture][flip] mean, deviation: (2, latent) */
    size_t             latent;              /* floats of a mean, of what is kept            */
    float              scale, shift;        /* of the VAE that made them                    */
};

/* Pixels of a picture (height, width, 3): its own, or read into *held, which the caller frees. */
weft_status wf_data_pixels(const wf_dataset *set, const wf_data_picture *p, const uint8_t **rgb,
                           uint8_t **held, weft_error *err);
/* Read and check a picture's file, and add it. */
weft_status wf_data_add(wf_dataset *set, wf_data_list list, const char *path, const char *caption,
                        weft_error *err);
/* Let go of a list's pictures from `count` on. */
void        wf_data_shorten(wf_dataset *set, wf_data_list list, size_t count);
/* A picture as it is when nothing about it is drawn: what latents are kept of. */
void        wf_data_plain(const wf_dataset *set, wf_data_list list, size_t picture, bool flip,
                          wf_sample *sample);
/* The caption in the bytes of a file, a view of them: without a byte order mark and white space
 * around it. Refused unless it is one line of UTF-8. */
weft_status wf_data_caption(const char **text, size_t *length, const uint8_t *data, size_t size,
                            const char *what, weft_error *err);
/* WEFT_E_STATE where nothing can be added any more. */
weft_status wf_data_open(const wf_dataset *set, weft_error *err);

#endif
