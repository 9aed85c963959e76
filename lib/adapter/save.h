/* save.h - what writing an adapter's tensors (save.c) and its configuration (save_config.c) share. */
#ifndef WF_ADAPTER_SAVE_H
#define WF_ADAPTER_SAVE_H

#include "adapter/room.h"

typedef struct wf_saver {
    weft_adapter    *a;
    weft_model      *model;
    const int64_t   *layers;    /* [modules] ids                                     */
    weft_allocator   alloc;
    int32_t          naming;    /* WEFT_NAMING_*                                     */
    bool             half;
    const wf_ending *endings[2];
    wf_tensor       *tensors;   /* to be written                                     */
    size_t           count;
    void           **kept;      /* memory that the tensors point into                */
    size_t           kept_count;
    size_t           kept_cap;
    weft_error      *err;
} wf_saver;

const wf_layer *wf_saver_layer(const wf_saver *s, size_t module);
/* Has the adapter modules in this component? */
bool            wf_saver_holds(const wf_saver *s, int32_t component);
/* Is the module left out in this spelling? */
bool            wf_saver_skips(const wf_saver *s, const wf_module *m);
/* A layer's path inside its component, as the component's class in transformers and diffusers has it. */
const char     *wf_saver_path(const wf_layer *l);
/* The alpha that gives the module's scale when it is divided by this rank. */
float           wf_alpha_for(const wf_module *m, int32_t divisor);

/* save_config.c: the members of PEFT's configuration of one component, each key after `prefix`, added to `out` with
 * commas between them and after what other prefixes have left there. WEFT_E_UNSUPPORTED where one configuration cannot
 * say all of the component's modules. */
weft_status     wf_saver_config(const wf_saver *s, int32_t component, const char *prefix, wf_text *out);

#endif
