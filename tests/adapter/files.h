/* files.h - for the tests of adapters: small files with known factors.
 *
 * A file is written from its keys alone: a key with lora_down, lora_A or .down. gets A1 of methods.md 0.2, one with
 * lora_up, lora_B or .up. gets B1, one that ends in alpha the number 1, anything else three ones. */
#ifndef WF_TEST_FILES_H
#define WF_TEST_FILES_H

#include "adapter/adapter_internal.h"
#include "base/support.h"
#include "weft/weft.h"

static const float A1[] = { 1, 2, 0, -1, 0, 1, 3, 1 };  /* (2, 4) */
static const float B1[] = { 1, 0, 0.5f, -1, 2, 1 };     /* (3, 2) */
static const float A2[] = { 2, 0, 1, 0, -1, 1, 0, 2 };
static const float B2[] = { 0, 1, 1, 1, -1, 0.5f };
static const float D1[] = { 1, 2, 0, -1, 0.5f, 0, -3, -1.5f, 2, 5, 3, -1 };

static weft_error err;

static inline weft_tensor_out tensor(const char *name, const float *data, size_t rank, int64_t a, int64_t b)
{
    weft_tensor_out t = { sizeof t, 0, name, data, { a, b }, rank, NULL };
    return t;
}

static inline weft_tensor_out tensor_for(const char *key)
{
    static const float one[] = { 1, 1, 1 };

    if (strstr(key, "lora_down") || strstr(key, "lora_A") || strstr(key, ".down.")) return tensor(key, A1, 2, 2, 4);
    if (strstr(key, "lora_up") || strstr(key, "lora_B") || strstr(key, ".up.")) return tensor(key, B1, 2, 3, 2);
    if (strlen(key) > 5 && strcmp(key + strlen(key) - 5, "alpha") == 0) return tensor(key, one, 0, 0, 0);
    return tensor(key, one, 1, 3, 0);
}

/* dir + "/" + name, in one of a few static buffers. */
static inline const char *in_dir(const char *dir, const char *name)
{
    static char buffers[4][512];
    static int  next;
    char       *path = buffers[next++ % 4];

    snprintf(path, sizeof buffers[0], "%s/%s", dir, name);
    return path;
}

static inline void write_tensors(const char *path, const weft_tensor_out *t, size_t n, const char *metadata)
{
    const char *pairs[] = { "lora_adapter_metadata", metadata };
    weft_status st = weft_tensors_write(path, t, n, pairs, metadata != NULL, &err);
    ck_assert_msg(st == WEFT_OK, "%s", err.text);
}

/* Keys are separated by spaces. */
static inline void write_keys_with(const char *path, const char *keys, const char *metadata)
{
    char            copy[4096];
    weft_tensor_out t[40];
    size_t          n = 0;

    ck_assert_uint_lt(strlen(keys), sizeof copy);
    strcpy(copy, keys);
    for (char *k = copy; *k != '\0';) {
        char *end = k + strcspn(k, " ");
        char *next = *end == ' ' ? end + 1 : end;
        *end = '\0';
        ck_assert_uint_lt(n, 40);
        t[n++] = tensor_for(k);
        k = next;
    }
    write_tensors(path, t, n, metadata);
}

static inline void write_keys(const char *path, const char *keys)
{
    write_keys_with(path, keys, NULL);
}

static inline void write_text(const char *path, const char *text)
{
    ck_assert_int_eq(wf_file_write(path, text, strlen(text), &err), WEFT_OK);
}

/* Write, open, unlink. NULL with err filled where opening fails. `alpha`: of modules whose alpha nothing says. */
static inline weft_adapter *adapter_given(const char *keys, const char *metadata, float alpha)
{
    const char          *dir = test_dir(), *path = in_dir(dir, "a.safetensors");
    weft_adapter_options o = WEFT_ADAPTER_OPTIONS_INIT;
    weft_adapter        *a = NULL;

    o.alpha = alpha;
    write_keys_with(path, keys, metadata);
    memset(&err, 0, sizeof err);
    weft_status st = weft_adapter_open(path, &o, &a, &err);
    ck_assert_int_eq(st, err.code);
    if (st != WEFT_OK) {
        ck_assert_ptr_null(a);
        check_one_line(&err);
    }
    unlink(path);
    test_rmdir(dir);
    return a;
}

static inline weft_adapter *adapter_with(const char *keys, const char *metadata)
{
    return adapter_given(keys, metadata, 0);
}

static inline weft_adapter *adapter_of(const char *keys)
{
    return adapter_with(keys, NULL);
}

static inline weft_module_info module_of(const weft_adapter *a, size_t i)
{
    weft_module_info m = WEFT_MODULE_INFO_INIT;
    ck_assert_int_eq(weft_adapter_module(a, i, &m, &err), WEFT_OK);
    return m;
}

static inline weft_adapter_info info_of(const weft_adapter *a)
{
    weft_adapter_info info = WEFT_ADAPTER_INFO_INIT;
    ck_assert_int_eq(weft_adapter_info_get(a, &info, &err), WEFT_OK);
    return info;
}

/* The file must be refused with this code, and the one line must say all of `words` (separated by |). */
static inline void check_refused(const char *keys, weft_status code, const char *words)
{
    weft_adapter *a = adapter_of(keys);
    char          copy[512];

    ck_assert_msg(a == NULL, "opened: %s", keys);
    ck_assert_msg(err.code == code, "%s: %s: %s", keys, weft_status_name(err.code), err.text);
    strcpy(copy, words);
    for (char *w = strtok(copy, "|"); w != NULL; w = strtok(NULL, "|"))
        ck_assert_msg(strstr(err.text, w) != NULL, "'%s' is not in: %s", w, err.text);
}

/* Layer id of a module, or -1. */
static inline int64_t layer_id_of(const weft_report *r, size_t module)
{
    size_t            count;
    const wf_slice *b = wf_report_slices(r, &count);

    for (size_t i = 0; i < count; i++)
        if ((size_t)b[i].module == module) return b[i].layer;
    return -1;
}

/* ---- files in memory, with any dtype ---------------------------------------------------------------- */

typedef struct bytes {
    char   header[8192];
    char   data[8192];
    size_t header_len, data_len;
} bytes;

static inline void add_bytes(bytes *b, const char *key, const char *dtype, const char *shape, const void *data, size_t n)
{
    b->header_len += (size_t)snprintf(b->header + b->header_len, sizeof b->header - b->header_len,
                                      "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                                      b->header_len == 0 ? "{" : ",", key, dtype, shape, b->data_len, b->data_len + n);
    memcpy(b->data + b->data_len, data, n);
    b->data_len += n;
}

/* The whole file into out; returns its size. */
static inline size_t file_bytes(const bytes *b, uint8_t *out)
{
    size_t n = b->header_len + 1;

    for (int i = 0; i < 8; i++) out[i] = (uint8_t)((uint64_t)n >> (8 * i));
    memcpy(out + 8, b->header, b->header_len);
    out[8 + b->header_len] = '}';
    memcpy(out + 8 + n, b->data, b->data_len);
    return 8 + n + b->data_len;
}

static inline weft_status parse_bytes(const bytes *b, weft_adapter **out)
{
    static uint8_t  file[20000];
    const wf_source      source = { .name = "memory" };
    const weft_allocator heap = wf_allocator(NULL);
    weft_tensors        *t = NULL;
    size_t               n = file_bytes(b, file);
    weft_status          st = wf_tensors_parse(file, n, "memory", &heap, &t, &err);

    ck_assert_msg(st == WEFT_OK, "%s", err.text);
    st = wf_adapter_parse(t, &source, &heap, out, &err);
    weft_tensors_free(t);
    return st;
}

#endif
