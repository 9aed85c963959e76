/* made.h - for the tests of PEFT's methods: adapters made of tensors in memory, opened with a configuration or refused. */
#ifndef WF_TEST_MADE_H
#define WF_TEST_MADE_H

#include "modules.h"

typedef struct made {
    weft_tensor_out t[16];
    size_t          n;
} made;

/* A tensor of these dimensions (-1: no more). */
static inline void put_as(made *f, const char *key, const char *dtype, const void *data, int64_t a, int64_t b, int64_t c)
{
    weft_tensor_out *t = &f->t[f->n++];

    ck_assert_uint_le(f->n, WF_LEN(f->t));
    *t = (weft_tensor_out){ .struct_size = sizeof *t, .name = key, .data = data, .shape = { a, b, c }, .dtype = dtype };
    while (t->rank < 3 && t->shape[t->rank] >= 0) t->rank++;
}

static inline void put(made *f, const char *key, const float *data, int64_t a, int64_t b, int64_t c)
{
    put_as(f, key, "F32", data, a, b, c);
}

/* NULL with err filled where it is refused. `metadata`: diffusers' copy of the configuration, or NULL; `scale`: where nothing
 * says alpha, or 0. */
static inline weft_adapter *open_scaled(const made *f, const char *config, const char *metadata, const weft_allocator *alloc, float scale)
{
    const char          *pairs[] = { "lora_adapter_metadata", metadata };
    weft_adapter_options o = WEFT_ADAPTER_OPTIONS_INIT;
    weft_tensors        *t = NULL;
    weft_adapter        *a = NULL;

    memset(&err, 0, sizeof err);
    ck_assert_msg(weft_tensors_create(f->t, f->n, pairs, metadata != NULL, NULL, &t, &err) == WEFT_OK, "%s", err.text);
    o.name = "made";
    o.config_text = config;
    o.allocator = alloc;
    o.scale = scale;
    weft_status st = weft_adapter_create(t, &o, &a, &err);
    weft_tensors_free(t);
    ck_assert_int_eq(st != WEFT_OK, a == NULL);
    if (a == NULL) check_one_line(&err);
    return a;
}

static inline weft_adapter *open_with(const made *f, const char *config, const char *metadata, const weft_allocator *alloc)
{
    return open_scaled(f, config, metadata, alloc, 0);
}

static inline weft_adapter *opened(const made *f, const char *config)
{
    weft_adapter *a = open_with(f, config, NULL, NULL);
    ck_assert_msg(a != NULL, "%s", err.text);
    return a;
}

static inline void refused(const made *f, const char *config, weft_status code, const char *words)
{
    weft_adapter *a = open_with(f, config, NULL, NULL);

    ck_assert_msg(a == NULL, "opened, wanted: %s", words);
    ck_assert_msg(err.code == code, "%s: %s", weft_status_name(err.code), err.text);
    ck_assert_msg(strstr(err.text, words) != NULL, "'%s' is not in: %s", words, err.text);
}

/* What module i adds to a layer of this weight, in the order of files. */
static inline void adds(const weft_adapter *a, size_t i, const float *W, int32_t out, int32_t in, int32_t kernel, double c, float *dst)
{
    sample s = { .count = 0 };

    s.m = *wf_adapter_module(a, i);
    lay(&s, W, out, in, kernel);
    ck_assert(wf_module_fits(&s.m, &s.l));
    difference(&s, c, dst);
}

#endif
