/* room.h - the model handle itself; seen by this room's files alone. */
#ifndef WF_MODEL_ROOM_H
#define WF_MODEL_ROOM_H

#include <errno.h>

#include "model/parts.h"

enum { WF_COMPONENTS = 4 };

/* A tensor that was copied with rows for columns. */
typedef struct wf_turned {
    const uint8_t   *copy;
    const wf_tensor *source;
} wf_turned;

struct weft_model {
    wf_refs        refs;
    weft_allocator alloc;
    char          *path;
    int32_t base;
    wf_parts       parts;
    weft_tensors  *files[WF_COMPONENTS]; /* each component's tensors under diffusers' names */
    weft_tensors  *whole;      /* a single file as it is; NULL for a folder              */
    const char    *nest;       /* what the names in it begin with that are the model's   */
    wf_turned      turned[2];
    wf_layer      *layers;
    size_t         layer_count;
    size_t         layer_cap;
    wf_derived     derived;    /* widened norms and biases                               */
    wf_bag         names;      /* of the layers                                          */
    json_t        *scheduler;
    bool           vae_given;  /* the VAE is not the model's own                         */
    const char    *layout;     /* as weft_model_info says it                             */
    bool           aesthetic;  /* requires_aesthetics_score: a refiner                   */
    bool           zero_negative; /* force_zeros_for_empty_prompt                        */
    int64_t        parameters;
    int64_t        bytes;
};

#endif
