/* dataset.h - pictures and captions to train on, for the files of lib/train.
 *
 * Two lists: pictures of what is learnt, and class pictures for prior preservation. Each picture is
 * opened and checked when it is added, so nothing is found broken in the middle of a training.
 *
 * What is drawn is a pure function of a seed and a position in the stream of pictures: there is no
 * generator whose state a checkpoint would have to keep. */
#ifndef WF_TRAIN_DATASET_H
#define WF_TRAIN_DATASET_H

#include "train/encoder.h"

typedef struct wf_dataset wf_dataset;

typedef int32_t wf_data_list;
enum {
    WF_DATA_INSTANCE, /* of what is learnt       */
    WF_DATA_CLASS,    /* of its class: the prior */
    WF_DATA_LISTS
};

typedef struct wf_dataset_options {
    int32_t     width, height;   /* of what is trained on, in pixels                              */
    int32_t     factor;          /* pixels for each latent pixel, wf_vae_factor()                 */
    bool        random_crop;     /* else the middle is cut out                                    */
    bool        flip;            /* half of what is drawn is mirrored                             */
    bool        augment;         /* Custom Diffusion's: see wf_sample.phrase; instance pictures   */
    bool        allow_small;     /* enlarge a picture whose side is shorter than ours             */
    weft_log_fn log;             /* may be NULL                                                   */
    void       *log_user;
} wf_dataset_options;

/* Options are copied. WEFT_E_ARG for sizes that are not above 0 and multiples of the factor. */
weft_status wf_dataset_create(wf_dataset **out, const wf_dataset_options *options,
                              const weft_allocator *alloc, weft_error *err);
void        wf_dataset_free(wf_dataset *set); /* NULL is fine */

/* Every picture (.png, .jpg, .jpeg) of a folder, by the bytes of the names. The caption of NAME.png
 * is in NAME.txt beside it, one line of UTF-8, or else `prompt`; with prompt NULL each must have
 * one. Folders in it and hidden files are passed over. On failure nothing of it is added.
 * WEFT_E_IO, WEFT_E_FORMAT (no picture, one that is broken, a caption that is not one line of UTF-8),
 * WEFT_E_ARG (a picture without a caption, one that is too small), WEFT_E_STATE (latents are
 * cached), WEFT_E_NOMEM: each names the file. */
weft_status wf_dataset_add_folder(wf_dataset *set, wf_data_list list, const char *folder,
                                  const char *prompt, weft_error *err);
/* One in memory, which is copied: (height, width, 3). */
weft_status wf_dataset_add_pixels(wf_dataset *set, wf_data_list list, const uint8_t *rgb,
                                  size_t rgb_len, int32_t width, int32_t height,
                                  const char *caption, weft_error *err);

size_t      wf_dataset_count(const wf_dataset *set, wf_data_list list);
/* The file's path, or "picture 3" for one from memory. The set's. */
const char *wf_dataset_name(const wf_dataset *set, wf_data_list list, size_t i);
const char *wf_dataset_caption(const wf_dataset *set, wf_data_list list, size_t i);
/* A hash of all captions, names' last parts, sizes and options: a checkpoint keeps it, and a
 * training that goes on with other data is told. */
uint64_t    wf_dataset_stamp(const wf_dataset *set);

/* What is read at one place of a batch. */
typedef struct wf_sample {
    wf_data_list list;
    size_t       picture;
    uint64_t     epoch;
    bool         flip;           /* mirrored before it is cut                                     */
    int32_t      original_w, original_h;
    int32_t      resized_w, resized_h;  /* of the whole picture                                   */
    int32_t      left, top;      /* where the cut begins in that: SDXL's crop                     */
    int32_t      cut_w, cut_h;   /* the cut's size: the set's, or augmented a smaller one         */
    int32_t      at_x, at_y;     /* where it lies in that: 0, 0 unless it is smaller                */
    const char  *phrase;         /* augmented: to be said behind the caption, else NULL; static   */
    uint64_t     seed;           /* for the noise that picks the latent                           */
    uint64_t     spare_seed;     /* for what else the trainer draws of this sample: noise, step.. */
} wf_sample;

/* Position in the stream: step * batch + index, with accumulated batches counted one by one. Every
 * picture comes once in each run of wf_dataset_count() positions, in an order of its own.
 * WEFT_E_STATE if the list is empty. */
weft_status wf_dataset_draw(wf_dataset *set, wf_data_list list, uint64_t seed, uint64_t position,
                            wf_sample *sample, weft_error *err);
/* The picture of a sample as the VAE reads it: (3, height, width) in -1..1. Opens its file. */
weft_status wf_dataset_image(wf_dataset *set, const wf_sample *sample, float *image,
                             weft_error *err);
/* Which latent pixels are the picture's, 1 or 0: (height / factor, width / factor). All of them
 * unless it is augmented to a smaller size; then those at its border are left out too. */
void        wf_dataset_mask(const wf_dataset *set, const wf_sample *sample, float *mask);

/* Can latents be kept? Not with random crops, and not for augmented pictures. */
bool        wf_dataset_cacheable(const wf_dataset *set, wf_data_list list);
/* Encode every picture of the lists that can be kept, as it is and, with `flip`, mirrored.
 * `progress` is asked after each with what is done and how many there are; it may be NULL; other
 * than 0 ends it: WEFT_E_CANCELLED. On failure nothing is kept. */
weft_status wf_dataset_cache(wf_dataset *set, wf_encoder *encoder, weft_progress_fn progress,
                             void *progress_user, weft_error *err);
void        wf_dataset_cache_free(wf_dataset *set);
uint64_t    wf_dataset_cache_bytes(const wf_dataset *set);
/* A sample's latent, picked by noise of its seed: (c, height / factor, width / factor), scaled as
 * the denoiser reads it. From the cache; else through the encoder, which may be NULL if all is
 * cached (WEFT_E_STATE if it is not). */
weft_status wf_dataset_latent(wf_dataset *set, const wf_sample *sample, wf_encoder *encoder,
                              float *latent, weft_error *err);

#endif
