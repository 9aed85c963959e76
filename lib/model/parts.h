/* parts.h - the networks of an opened model, for the room that runs them. */
#ifndef WF_PARTS_H
#define WF_PARTS_H

#include "model/model.h"
#include "nets/clip.h"
#include "nets/unet.h"
#include "nets/vae.h"
#include "tensor/product.h"

typedef struct wf_parts {
    wf_unet_config    unet_config;
    wf_unet          *unet;
    wf_clip          *text[2];      /* NULL where the model has none                              */
    wf_vae           *vae;
    wf_tokenizer     *tokenizer[2];
    const wf_kernels *kernels;
    const wf_products *products;
    bool              penultimate;  /* SDXL: the conditioning is the layer before the last        */
} wf_parts;

const wf_parts *wf_model_parts(const weft_model *m);
/* WEFT_E_STATE with what to give, where prompts cannot be encoded. */
weft_status wf_model_need_tokenizer(const weft_model *m, weft_error *err);

/* ---- config.c: config.json of each component, checked, into the networks' own configurations ---- */

weft_status wf_config_unet(wf_unet_config *c, const json_t *json, const char *path, weft_error *err);
/* How many of the added channels are time ids: 6, or 5 in SDXL's refiner; the rest is the pooled vector. */
weft_status wf_config_time_ids(wf_unet_config *c, int32_t time_ids, const char *path, weft_error *err);
weft_status wf_config_clip(wf_clip_config *c, const json_t *json, bool projection, const char *path, weft_error *err);
weft_status wf_config_vae(wf_vae_config *c, const json_t *json, const char *path, weft_error *err);

#endif
