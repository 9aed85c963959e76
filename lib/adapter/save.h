/* save.h - what writing an adapter's tensors (save.c), PEFT's configuration (save_config.c) and the
 * families' own parts of that configuration share. */
#ifndef WF_ADAPTER_SAVE_H
#define WF_ADAPTER_SAVE_H

#include "adapter/adapter_internal.h"

typedef struct wf_saver {
    weft_adapter    *a;
    weft_model      *model;
    int64_t         *layers;    /* [modules] ids, -1 for a module that is of no whole layer */
    weft_allocator   alloc;
    int32_t          dialect;   /* WEFT_DIALECT_*                                     */
    bool             half;
    const wf_ending *const *endings; /* [2], of the dialect                          */
    wf_tensor       *tensors;   /* to be written                                     */
    size_t           count;
    void           **kept;      /* memory that the tensors point into                */
    size_t           kept_count;
    size_t           kept_cap;
    weft_error      *err;
} wf_saver;

const wf_layer     *wf_saver_layer(const wf_saver *s, size_t module);
/* Has the adapter modules in this component? */
bool                wf_saver_holds(const wf_saver *s, int32_t component);
/* Is the module left out in this dialect, because it is empty? */
bool                wf_saver_skips(const wf_saver *s, const wf_module *m);
/* A layer's path inside its component, as the component's class in transformers and diffusers has
 * it. */
const char         *wf_saver_path(const wf_layer *l);
/* The alpha that gives the module's scale when it is divided by this rank. */
float               wf_alpha_for(const wf_module *m, int32_t divisor);
/* PEFT's type of the module; NULL if PEFT has none. */
const wf_peft_type *wf_saver_peft_type(const wf_saver *s, const wf_module *m);

/* ---- save_config.c --------------------------------------------------------------------------- */

/* The members of PEFT's configuration of one component, each key after `prefix`, added to `out`
 * with commas between them and after what other prefixes have left there. WEFT_E_UNSUPPORTED if one
 * configuration cannot say all of the component's modules. */
weft_status wf_saver_config(const wf_saver *s, int32_t component, const char *prefix, wf_text *out);

/* What wf_family.write_peft writes with. All modules of the component have one PEFT type. */
typedef struct wf_peft_writer {
    const wf_saver     *s;
    int32_t             component;
    const char         *prefix;
    const wf_peft_type *type;
    wf_text            *out;
} wf_peft_writer;

/* Module `i` of the component, from `from` on; the count of all if there is none. */
size_t           wf_peft_next(const wf_peft_writer *w, size_t from);
const wf_module *wf_peft_module(const wf_peft_writer *w, size_t i);
const wf_module *wf_peft_first(const wf_peft_writer *w);
const wf_layer  *wf_peft_layer(const wf_peft_writer *w, size_t i);
#define WF_EACH(w, i) (size_t i = wf_peft_next(w, 0); i < (w)->s->a->count; i = wf_peft_next(w, i + 1))

/* One more member. */
void wf_peft_key(const wf_peft_writer *w, const char *name); /* only its key */
void wf_peft_text(const wf_peft_writer *w, const char *name, const char *value);
void wf_peft_bool(const wf_peft_writer *w, const char *name, bool value);
void wf_peft_value(const wf_peft_writer *w, const char *name, double value);
void wf_peft_integer(const wf_peft_writer *w, const char *name, int64_t value);
/* A list of the paths for which `is` holds; all if it is NULL. */
void wf_peft_paths(const wf_peft_writer *w, const char *name, bool (*is)(const wf_module *));
/* A number for each module: the first one's for all, and a pattern for those that have another. */
void wf_peft_numbers(const wf_peft_writer *w, const char *name, const char *patterns,
                     double (*number)(const wf_peft_writer *, size_t));
double wf_peft_rank_of(const wf_peft_writer *w, size_t i);
double wf_peft_alpha_of(const wf_peft_writer *w, size_t i);
/* What every type has: peft_type, target_modules, inference_mode, and `init` true unless it is
 * NULL. */
void wf_peft_common(const wf_peft_writer *w, const char *init);
/* "<adapter>: <key> <why>: PEFT's configuration has no way to say it" as WEFT_E_UNSUPPORTED. */
weft_status wf_peft_refuse(const wf_peft_writer *w, size_t i, const char *why);
/* A Tucker core in all convolutions larger than 1x1 whose inner factor is one of two, or in
 * none. */
weft_status wf_peft_find_tucker(const wf_peft_writer *w, int32_t core, int32_t inner, bool *tucker);

#endif
