/* room.h - what the files of lib/adapter share with each other and with nobody else. */
#ifndef WF_ADAPTER_ROOM_H
#define WF_ADAPTER_ROOM_H

#include "adapter/adapter.h"
#include "adapter/dialect.h"
#include "adapter/family.h"

struct weft_adapter {
    wf_refs        refs;
    weft_allocator alloc;
    weft_tensors  *tensors;
    char          *name;
    char           dialect[96];  /* names of the dialects found, joined by " + "        */
    char           families[96]; /* of its modules' families, likewise                  */
    const char    *kind;         /* weft_adapter_info.kind                              */
    int32_t        words;        /* keys that are embeddings of words                   */
    wf_module     *modules;      /* in the file's order of their first factors          */
    size_t         count;
    int32_t       *key_module;   /* [tensors] module of each key, or WF_KEY_UNREAD, WF_KEY_WORD */
};

enum { WF_KEY_UNREAD = -1, WF_KEY_WORD = -2 };

/* Where an adapter comes from, besides its tensors. */
typedef struct wf_source {
    const char *name;     /* what messages call it                                       */
    const char *folder;   /* last part of the folder's name, or NULL                     */
    json_t     *config;   /* adapter_config.json, or NULL                                */
} wf_source;

/* Turn the tensors of a file into an adapter: keys to modules, factors checked, scales known (read.c). This is
 * all of weft_adapter_open but the file system. Takes a reference to `tensors`. */
weft_status wf_adapter_parse(weft_tensors *tensors, const wf_source *source, const weft_allocator *alloc,
                             weft_adapter **out, weft_error *err);

/* Component of a name: 0 unet, 1 text_encoder, 2 text_encoder_2, -1 another. Canonical and underscore names. */
int32_t wf_name_component(const char *name);
/* WEFT_BASE_* that the adapter's widths point to. */
int32_t wf_adapter_family(const weft_adapter *a);

/* A key for a message: cut to a readable length. */
typedef struct wf_key_text { char text[168]; } wf_key_text;
const char *wf_key_show(wf_key_text *buf, const char *key);

/* ---- config.c: what PEFT's configuration says of a module --------------------------------------- */

typedef struct wf_settings {
    double  alpha;
    bool    has_alpha;
    bool    rslora;      /* alpha / sqrt(r) instead of alpha / r                     */
    double  rank;        /* that the factors must have                               */
    bool    has_rank;
    int32_t init_rank;   /* the rest as in wf_module, where it is explained          */
    int32_t neumann;
    float   coft;
    bool    feedforward;
} wf_settings;
/* What holds where no configuration says otherwise. */
#define WF_SETTINGS_NONE { .neumann = 5 }
/* Refuse settings that change what the tensors mean. `prefix` is "" or "unet.", `what` names the source. */
weft_status wf_config_check(const json_t *config, const char *prefix, const char *what, weft_error *err);
/* Refuse patterns that would take minutes on so many modules. */
weft_status wf_config_check_cost(const json_t *config, const char *prefix, const char *what, size_t modules,
                                 weft_error *err);
/* What the configuration says of `module` (a path inside its component) with these parts. */
weft_status wf_config_read(const json_t *config, const char *prefix, const char *what, const char *module,
                           uint64_t parts, wf_settings *out, weft_error *err);
/* Does PEFT's pattern match the module's path, whole or after a dot? false in *known: not a pattern we read. */
bool wf_config_matches(const char *pattern, const char *module, bool *known);

#endif
