/* config.h - config.json of each network, checked, as the struct that builds it. */
#ifndef WF_NETS_CONFIG_H
#define WF_NETS_CONFIG_H

#include "nets/clip.h"
#include "nets/clip_vision.h"
#include "nets/unet.h"
#include "nets/vae.h"

weft_status wf_config_unet(wf_unet_config *c, const json_t *json, const char *path,
                           weft_error *err);
/* How many of the added channels are time ids: 6, or 5 in SDXL's refiner; the rest is the pooled
 * vector. */
weft_status wf_config_time_ids(wf_unet_config *c, int32_t time_ids, const char *path,
                               weft_error *err);
weft_status wf_config_clip(wf_clip_config *c, const json_t *json, bool projection, const char *path,
                           weft_error *err);
weft_status wf_config_clip_vision(wf_clip_vision_config *c, const json_t *json, const char *path,
                                  weft_error *err);
weft_status wf_config_vae(wf_vae_config *c, const json_t *json, const char *path, weft_error *err);

#endif
