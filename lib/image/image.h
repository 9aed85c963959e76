/* image.h (internal) - pictures as prompts, as plans and runs see them: an image encoder, an
 * IP-Adapter, and a picture made ready for the encoder. */
#ifndef WF_IMAGE_H
#define WF_IMAGE_H

#include "image/resize.h"
#include "nets/clip_vision.h"
#include "nets/denoiser.h"
#include "nets/image_proj.h"
#include "weft/image_prompt.h"

/* What a channel of a pixel in 0..1 is normalised by: (v - mean) / deviation. */
typedef struct wf_picture_norm { float mean[3], deviation[3]; } wf_picture_norm;

const wf_clip_vision  *wf_image_encoder_net(const weft_image_encoder *e);
const wf_picture_norm *wf_image_encoder_norm(const weft_image_encoder *e);

void                 wf_image_adapter_ref(weft_image_adapter *a);
const char          *wf_image_adapter_name(const weft_image_adapter *a);
const wf_origin     *wf_image_adapter_origin(const weft_image_adapter *a);
const wf_image_proj *wf_image_adapter_proj(const weft_image_adapter *a);
/* In the order of the file: cross-attentions on the way down, on the way up, in the middle. */
const wf_image_pair *wf_image_adapter_pairs(const weft_image_adapter *a, int32_t *count);

/* Bytes of scratch that wf_picture_prepare() takes for a picture of this size, 0: too large. */
size_t wf_picture_scratch(int32_t height, int32_t width, int32_t side);
/* out (3, side, side) = the picture (3, height, width) in 0..1 as an encoder reads it. */
void   wf_picture_prepare(float *out, int32_t side, const float *image, int32_t height,
                          int32_t width, const wf_picture_norm *norm, void *scratch);

/* Parse a preprocessor_config.json for an encoder of this size: refuses what is not followed. */
weft_status wf_picture_config(wf_picture_norm *norm, const json_t *json, int32_t side,
                              const char *path, weft_error *err);
/* Make an IP-Adapter of tensors, which it keeps; `path` for messages, `name` for people. */
weft_status wf_image_adapter_make(weft_image_adapter **out, weft_tensors *file, const char *path,
                                  const weft_allocator *alloc, weft_error *err);

#endif
