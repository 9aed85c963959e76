/* pickle.h (internal to io) - what a pickle says, as values that do nothing. */
#ifndef WF_PICKLE_H
#define WF_PICKLE_H

#include "io/io.h"

typedef enum wf_kind {
    WF_NONE,
    WF_TRUTH,
    WF_INT,
    WF_FLOAT,
    WF_STRING,   /* UTF-8 without a NUL inside                                            */
    WF_TUPLE,
    WF_LIST,
    WF_DICT,     /* an OrderedDict and a ParameterDict too: items are key, value, key, ... */
    WF_TENSOR,
    WF_STORAGE,
    WF_SYMBOL,   /* the name of a class or function                                       */
    WF_OPAQUE,   /* whatever calling a symbol might have given; it was not called         */
    WF_MARK      /* on the machine's stack only                                           */
} wf_kind;

/* Bytes that lie outside the pickle, under a key. */
typedef struct wf_storage {
    struct wf_storage *next;   /* all storages of the pickle, the last first */
    const char    *key;
    wf_dtype       dtype;
    uint64_t       count;
    const uint8_t *data;       /* NULL until found by the reader of the file */
} wf_storage;

typedef struct wf_strided {
    wf_storage    *storage;
    wf_dtype       dtype;
    int32_t        rank;
    int64_t        offset;     /* in elements, not negative, nor are the next two */
    int64_t        shape[WF_MAX_RANK];
    int64_t        stride[WF_MAX_RANK];
    const uint8_t *data;       /* NULL until found or made contiguous */
} wf_strided;

typedef struct wf_symbol {
    int32_t     meaning;       /* pickle.c's own */
    wf_dtype    dtype;
    const char *module;
    const char *name;
} wf_symbol;

typedef struct wf_value wf_value;
typedef struct wf_items {
    wf_value *at;
    size_t    count;
    size_t    cap;
    bool      parameters; /* a ParameterDict */
} wf_items;

struct wf_value {
    wf_kind kind;
    union {
        bool             truth;
        int64_t          i;
        double           f;
        const char      *s;
        wf_items        *items;   /* tuple, list, dict                             */
        wf_strided      *tensor;
        wf_storage      *storage;
        const wf_symbol *symbol;  /* of an opaque value what made it, NULL unknown */
    } u;
};

typedef struct wf_pickle {
    wf_value    root;
    wf_storage *storages;
    size_t      used;       /* bytes, up to and with the STOP */
} wf_pickle;

/* Run one pickle at the beginning of `data`. Its values live in `bag`, and also after a failure are
 * freed with it. Lists and dicts may contain themselves: whoever walks them must bound depth and
 * number. */
weft_status wf_pickle_load(wf_bag *bag, const uint8_t *data, size_t size, const char *what,
                           wf_pickle *out, weft_error *err);

#endif
