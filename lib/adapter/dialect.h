/* dialect.h - a dialect is a table: how its keys begin, how they end, what it calls otherwise.
 *
 *   key   = wrappers prefix wrappers module ending
 *   name  = the prefix's own word for the component, the module, what the ending adds
 *
 * One reader serves every dialect. A new one is a file with its tables, a declaration here and a
 * row in dialect.c. */
#ifndef WF_DIALECT_H
#define WF_DIALECT_H

#include "adapter/family.h"

/* No published name comes near this; a longer key is read by no dialect. */
enum { WF_NAME_CAP = 512, WF_KEY_CAP = 2 * WF_NAME_CAP };

/* What PEFT puts in front of the names of the model that it wraps. */
#define WF_PEFT_WRAPPER "base_model.model."

typedef struct wf_prefix {
    const char *from; /* the key begins so, behind wrappers (dialect.c); NULL ends the table   */
    const char *to;   /* and the name so instead                                               */
} wf_prefix;

typedef struct wf_ending {
    const char *text; /* the key ends so; * is one run without dots; NULL ends the table       */
    const char *to;   /* and the name so instead                                               */
    int32_t     tensor; /* WF_TENSOR_*                                                         */
    int32_t     how;  /* WF_WEAK, WF_JOINS, ... together                                       */
} wf_ending;

enum {
    WF_WEAK    = 1, /* other dialects write it too: it does not tell the dialect          */
    WF_JOINS   = 2, /* it only means something beside a module's other keys               */
    WF_WRAPPED = 4, /* only after the dialect's wrapper                                   */
    WF_BESIDE  = 8  /* joins a module if a family then takes all of its tensors; else it is no key of the dialect */
};

typedef struct wf_rename {
    const char *from; /* the name ends so; NULL ends the table */
    const char *to;
} wf_rename;

/* Where a dialect may keep alpha besides a tensor (config.c). */
enum {
    WF_CONFIG_NONE     = 0,
    WF_CONFIG_METADATA = 1, /* JSON under lora_adapter_metadata, keys prefixed by component */
    WF_CONFIG_FILE     = 2  /* adapter_config.json                                          */
};

/* One key as a dialect reads it. */
typedef struct wf_key {
    char    name[WF_NAME_CAP]; /* canonical, or the underscore name        */
    size_t  stem;              /* how many bytes of the key are not ending; 0: the name stands for the key */
    int32_t tensor;
    int32_t how;
} wf_key;

typedef struct wf_dialect {
    const char      *name;       /* as weft_adapter_info.dialect has it                           */
    const char      *title;      /* as messages have it; dialects of one title are listed once    */
    const char      *kind;       /* what a file with such keys is; NULL: nothing in particular    */
    const char      *whole_kind; /* what a file is if all its modules are this dialect's whole differences; or NULL */
    const char      *wrapper;    /* one more in front, and its mark (WF_WRAPPED); or NULL         */
    const wf_prefix *prefixes;
    const wf_ending *endings[2]; /* asked one after the other; the second may be NULL             */
    const wf_rename *renames;    /* may be NULL                                                   */
    int32_t          config;     /* WF_CONFIG_*                                                   */
    bool             underscore; /* names stay with underscores until a model says what they mean */
    bool             peft;       /* tensors mean what PEFT means by them (wf_module.peft)         */
    bool             unscaled;   /* it has no alpha: factors are multiplied as they are           */
    bool             rank_is_alpha; /* a file without alpha means the rank: nothing is unsaid     */

    /* For a form in which keys alone say nothing: is the whole file of it? Not 0 if so, and then
     * read_listed() is given that number and reads every key. Both NULL: the dialect has no such
     * form. */
    int32_t (*find_list)(const weft_tensors *t);
    void    (*read_listed)(int32_t list, const char *key, wf_key *out);
} wf_dialect;

/* All dialects, in the order in which they are asked. */
const wf_dialect *const *wf_dialects(size_t *count);
/* Read a key by the dialect's tables; false if it is not of this dialect. */
bool wf_dialect_read(const wf_dialect *d, const char *key, wf_key *out);
/* How near it comes if it does not read the key: 2 it begins so, 1 it ends so, 0 neither. */
int32_t wf_dialect_near(const wf_dialect *d, const char *key);
/* Endings that several dialects share (endings.c). */
extern const wf_ending wf_lycoris_endings[], wf_peft_endings[];
/* Is it the key of a tensor that belongs to no module but to all of its family, in this component
 * or (-1) in the whole file (endings.c)? */
bool wf_shared_read(const char *key, int32_t *component, int32_t *tensor);

extern const wf_dialect wf_dialect_kohya, wf_dialect_kohya_peft, wf_dialect_lycoris,
    wf_dialect_diffusers,
    wf_dialect_diffusers_old, wf_dialect_peft, wf_dialect_custom, wf_dialect_custom_delta,
    wf_dialect_custom_ldm,
    wf_dialect_edlora, wf_dialect_cloneofsimo;

/* Insert "text_model." if a text encoder's name lacks it (transformers 5 drops it): one form
 * inside. In place; false where cap is too small. */
bool wf_name_text_model(char *name, size_t cap);

/* A family or format that this version knows and does not apply (refused.c). */
typedef struct wf_refused {
    const char *keys;   /* globs over the whole key, separated by commas           */
    const char *family;
    const char *does;   /* what this version does instead                          */
    bool        word;   /* the key's last word shows it: worth saying              */
} wf_refused;
/* The row that refuses this key, or NULL. `read`: a dialect reads it, so that only its name is
 * looked at. */
const wf_refused *wf_refused_family(const char *key, bool read);
/* Is it the embedding of a token, in any of the files that hold such? */
bool wf_is_token(const char *key);

#endif
