/* keys.h - every key that a network's config.json may have, and what becomes of it: one table for
 * each class, for the readers of config.c and for the opener, which warns of keys that no table
 * has. docs/formats.md shows the tables. */
#ifndef WF_NETS_KEYS_H
#define WF_NETS_KEYS_H

#include "io/io.h"

typedef enum wf_key_fate {
    WF_KEY_READ,   /* it is followed; null is refused, as a null would stop the reference  */
    WF_KEY_OPTION, /* it is followed; null is a value: none, or the preset                 */
    WF_KEY_ONLY,   /* every value is refused but those that say what is computed anyway    */
    WF_KEY_IDLE    /* no value of it changes what is computed                              */
} wf_key_fate;

typedef struct wf_key {
    const char *name;
    wf_key_fate fate;
    const char *wanted; /* of WF_KEY_ONLY: the values, as JSON, with a space between two */
} wf_key;

/* Each ends with a row without a name. */
extern const wf_key wf_unet_keys[], wf_vae_keys[], wf_clip_keys[], wf_clip_vision_keys[];

/* Refuse a value that is not followed, by the key's name with what was found and wanted. An absent
 * key passes. */
weft_status wf_keys_check(const wf_key *keys, const json_t *config, const char *path,
                          weft_error *err);
/* Log one line that names the keys which the table lacks, if there are any. Keys that begin with
 * an underscore say who wrote the file, and a null says nothing. */
void wf_keys_warn(const wf_key *keys, const json_t *config, const char *path, weft_log_fn log,
                  void *user);

#endif
