/* adapter_internal.h - what the files of lib/adapter share with each other and with nobody else. */
#ifndef WF_ADAPTER_INTERNAL_H
#define WF_ADAPTER_INTERNAL_H

#include "adapter/adapter.h"
#include "adapter/dialect.h"
#include "adapter/family.h"

struct weft_adapter {
    wf_refs        refs;
    weft_allocator alloc;
    weft_tensors  *tensors;
    char          *name;
    char           dialect[96];  /* names of the dialects found, joined by " + "        */
    char           families[96]; /* of its modules' families, joined as well            */
    const char    *kind;         /* weft_adapter_info.kind                              */
    int32_t        tokens;       /* keys that are embeddings of tokens                  */
    wf_module     *modules;      /* in the file's order of their first factors          */
    size_t         count;
    int32_t       *key_module;   /* [tensors] module of each key, or WF_KEY_UNREAD, ...         */
    struct wf_group *groups;     /* modules that are scaled alike, in the order of their first  */
    size_t         group_count;
    wf_bag         bag;          /* the modules' names and what their families keep     */
    weft_adapter  *origin;       /* of a completed copy: what it shares its names with  */
    wf_opened      opened;       /* not of a completed copy                             */
};

enum { WF_KEY_UNREAD = -1, WF_KEY_TOKEN = -2, WF_KEY_SHARED = -3 };

typedef struct wf_group { size_t first, modules; } wf_group;

/* Where an adapter comes from, besides its tensors. */
typedef struct wf_source {
    const char *name;     /* what messages call it                                       */
    const char *folder;   /* last part of the folder's name, or NULL                     */
    json_t     *config;   /* adapter_config.json, or NULL                                */
    bool        configured; /* there was one                                             */
    float       alpha;    /* of modules whose alpha nothing says; 0: not given           */
    float       scale;    /* or their scale; 0: not given                                */
    weft_log_fn log;      /* may be NULL                                                 */
    void       *log_user;
} wf_source;

/* ---- adapter.c: the handle ------------------------------------------------------------------- */

/* An adapter without modules over these tensors, with room for one module per tensor. Takes a
 * reference to `tensors`. */
weft_status wf_adapter_new(weft_tensors *tensors, const char *name, const weft_allocator *alloc,
                           weft_adapter **out, weft_error *err);
/* WEFT_BASE_* that the adapter's widths point to. */
int32_t     wf_adapter_base(const weft_adapter *a);

/* ---- read.c, identify.c: tensors to modules -------------------------------------------------- */

/* What is needed of a module while its file is read. */
typedef struct wf_draft {
    const wf_dialect *dialect;
    const char       *folded; /* its name as wf_name_fold() has it */
    const wf_tensor  *first;  /* the tensor that made the module   */
    bool              weak;   /* only endings that several dialects share told its dialect */
} wf_draft;

/* Turn the tensors of a file into an adapter: keys to modules, factors checked, scales known. This
 * is all of weft_adapter_open() except the file system. Takes a reference to `tensors`. */
weft_status wf_adapter_parse(weft_tensors *tensors, const wf_source *source,
                             const weft_allocator *alloc, weft_adapter **out, weft_error *err);

/* Refuse the file if a key that no dialect reads, or a module's name, shows a family or format that
 * is known and not applied; mark the keys that are embeddings of tokens. */
weft_status wf_identify_unread(weft_adapter *a, weft_error *err);
weft_status wf_identify_refused(const weft_adapter *a, const char *key, const wf_refused *row,
                                weft_error *err);
/* Refuse a file that has no module at all, saying what it looks like. */
weft_status wf_identify_stranger(const weft_adapter *a, weft_error *err);
/* Fill dialect, families and kind of an adapter whose modules are complete. */
void        wf_identify(weft_adapter *a, const wf_draft *drafts);

/* ---- names.c: names of modules and keys ------------------------------------------------------ */

/* WEFT_COMPONENT_* of a name, canonical or not; -1 for others than adapters act on. */
int32_t     wf_name_component(const char *name);
/* The module's path inside its component. */
const char *wf_name_path(const char *name);
/* One form for all dialects: underscores for dots, one word for each component. buf holds
 * WF_NAME_CAP; folding never makes a name longer. */
void        wf_name_fold(char *buf, const char *name);
/* What the canonical names and the settings of a component begin with: "unet."; NULL for others
 * than adapters act on. */
const char *wf_component_prefix(int32_t component);

/* A key for a message: cut to a readable length. */
typedef struct wf_key_text { char text[168]; } wf_key_text;
const char *wf_key_show(wf_key_text *buf, const char *key);

/* ---- pattern.c: PEFT's regular expressions --------------------------------------------------- */

/* Does the pattern match the path to its end, from the start or (where loose) after a dot? false in
 * *known: not a pattern we read. */
bool        wf_pattern_matches(const char *pattern, const char *path, bool loose, bool *known);
/* What trying it on one path takes, in steps. */
double      wf_pattern_cost(const char *pattern);

/* ---- config.c: what PEFT's configuration says of a module ------------------------------------ */

/* A configuration: an object whose keys begin with `prefix` ("" or "unet."); `what` names its
 * source in messages. */
typedef struct wf_config {
    const json_t *json;
    const char   *prefix;
    const char   *what;
    int32_t       source; /* WEFT_ALPHA_CONFIG or WEFT_ALPHA_METADATA */
} wf_config;

/* What it says of one module. */
typedef struct wf_settings {
    double  alpha;
    bool    has_alpha;
    int32_t alpha_source;  /* WEFT_ALPHA_*                                                */
    const char *alpha_key; /* what it is called there                                     */
    bool    rslora;     /* alpha / sqrt(r) instead of alpha / r                           */
    double  rank;       /* that the factors must have                                     */
    bool    has_rank;
    int32_t start_rank; /* the rank at the start of training; 0: not told                 */
    int32_t initial;    /* WF_INITIAL_*: what LoRA's base lacks (initial.h)               */
} wf_settings;

/* Does it say anything, under its prefix? */
bool        wf_config_speaks(const wf_config *c);
/* Refuse settings that change what the tensors mean. */
weft_status wf_config_check(const wf_config *c, weft_error *err);
/* Refuse patterns that would take minutes on so many modules. */
weft_status wf_config_check_cost(const wf_config *c, size_t modules, weft_error *err);
/* What it says of the module with this path inside its component and these tensors. */
weft_status wf_config_read(const wf_config *c, const char *path, wf_tensor_set tensors,
                           wf_settings *out, weft_error *err);
/* Single settings, for wf_family.settle: a number, a count of 0 to 2^20, a truth value. */
double      wf_config_number(const wf_config *c, const char *name, double otherwise);
int32_t     wf_config_count(const wf_config *c, const char *name, int32_t otherwise);
/* A text; NULL if the setting is none. */
const char *wf_config_text(const wf_config *c, const char *name);
/* A whole number of any size, such as a seed; false if it is something else. */
bool        wf_config_integer(const wf_config *c, const char *name, int64_t otherwise,
                              int64_t *out);
bool        wf_config_true(const wf_config *c, const char *name);
bool        wf_config_false(const wf_config *c, const char *name);
/* Is the path in the setting `name`: a list of endings, or one pattern for the whole path? */
weft_status wf_config_lists(const wf_config *c, const char *name, const char *path, bool *out,
                            weft_error *err);
/* Does PEFT's pattern match the path, whole or after a dot? false in *known: not a pattern we
 * read. */
bool        wf_config_matches(const char *pattern, const char *path, bool *known);

/* ---- scale.c: where alpha comes from --------------------------------------------------------- */

/* What a file's plain metadata says of alpha. */
typedef struct wf_said {
    const char *key;    /* that says it; NULL: none does */
    double      alpha;
    double      rank;
    bool        has_rank;
    bool        rslora;
} wf_said;

enum { WF_SAID = 3 }; /* components that adapters act on */
typedef struct wf_scales {
    wf_said of_component[WF_SAID];
    wf_said kohya, kohya_conv; /* ss_network_..., and for k x k convolutions */
} wf_scales;
void wf_scales_init(wf_scales *s, const weft_tensors *t);

/* The scales of one file, while it is read. */
typedef struct wf_scaling {
    wf_scales        scales;
    const wf_source *source;
    size_t           unsaid, odd; /* modules whose alpha nobody says; whose scale is beyond reason */
    size_t           given;       /* by an option                                                  */
    const wf_module *first_unsaid, *first_odd;
} wf_scaling;
/* Give the module, whose shape is known, its scale; s and config: what its configuration says. */
weft_status wf_scale_settle(wf_scaling *at, wf_module *m, const wf_draft *draft, wf_settings *s,
                            const wf_config *config, const char *path, weft_error *err);
/* After the last module: warn of what is unsaid or beyond reason, refuse an option that said
 * nothing. */
weft_status wf_scales_report(const wf_scaling *at, size_t modules, weft_error *err);
/* Fill the adapter's groups. */
weft_status wf_adapter_group(weft_adapter *a, weft_error *err);

#endif
