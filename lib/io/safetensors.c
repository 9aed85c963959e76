/* safetensors.c - a header that says where each tensor lies, believed only when all of it adds up.
 *
 * The file is 8 bytes of length, a JSON header, and data. Everything is checked at open, so that the
 * rest of weft can read without asking again: sorted by where they lie, the tensors must tile the
 * data from its first byte to its last with no hole and no overlap, and each span must be exactly
 * what its shape and type need, in arithmetic that notices overflow. That leaves a hostile header
 * nothing to point at. Numbers of entries and the lengths of names are bounded, and the header is
 * measured before it is parsed, so that work and memory grow with the file, and not faster.
 *
 * All strings live in one block, found again by binary search: a hash table would need a defence
 * against names made to collide.
 *
 * The memory behind a tensor is the mapped file, unaligned wherever an old writer did not pad. */
#include <stdlib.h>

#include "io/io.h"

#define MAX_HEADER  100000000u
#define MAX_ENTRIES 100000u
#define MAX_NAME    1024u
#define MAX_RANK    8
#define MAX_DEPTH   4
#define MAX_VALUES  2000000u  /* an entry has at most 16; metadata shares the rest */

typedef struct meta {
    const char *key;
    const char *value;
} meta;

struct weft_tensors {
    weft_allocator    alloc;
    wf_refs           refs;
    wf_file           file;       /* empty when the memory is the caller's      */
    size_t            size;
    size_t            count;
    size_t            meta_count;
    wf_tensor        *tensors;    /* in order of the data                       */
    const wf_tensor **by_name;
    meta             *metas;      /* sorted by key                              */
    char             *strings;    /* what the names, keys and values point into */
    size_t            strings_used;
};

/* What the static functions below share while a header is read. */
typedef struct reader {
    weft_tensors  *t;
    const char    *what;   /* the file, for messages */
    const uint8_t *data;   /* behind the header      */
    size_t         data_size;
    weft_error    *err;
} reader;

/* ---- one entry --------------------------------------------------------------------------------- */

static weft_status fail_entry(const reader *r, const char *name, const char *why)
{
    return wf_fail(r->err, WEFT_E_FORMAT, "%s: tensor \"%.160s\": %s", r->what, name, why);
}

static bool read_size(const json_t *value, int64_t *out)
{
    if (!json_is_integer(value)) return false;
    *out = json_integer_value(value);
    return *out >= 0;
}

static weft_status read_dtype(const reader *r, const char *name, const json_t *entry, wf_tensor *tensor)
{
    const json_t *dtype = json_object_get(entry, "dtype");

    if (!json_is_string(dtype)) return fail_entry(r, name, "has no \"dtype\" string");
    if (wf_dtype_from_name(json_string_value(dtype), &tensor->dtype)) return WEFT_OK;
    return wf_fail(r->err, WEFT_E_FORMAT, "%s: tensor \"%.160s\": unknown dtype \"%.40s\"", r->what, name,
                   json_string_value(dtype));
}

static weft_status read_shape(const reader *r, const char *name, const json_t *entry, wf_tensor *tensor)
{
    const json_t *shape = json_object_get(entry, "shape");
    size_t        rank  = json_array_size(shape);

    if (!json_is_array(shape)) return fail_entry(r, name, "has no \"shape\" array");
    if (rank > MAX_RANK)
        return wf_fail(r->err, WEFT_E_FORMAT, "%s: tensor \"%.160s\": rank %zu, expected at most %d", r->what, name,
                       rank, MAX_RANK);
    tensor->rank  = (int32_t)rank;
    tensor->count = 1;
    for (size_t i = 0; i < rank; i++) {
        if (!read_size(json_array_get(shape, i), &tensor->shape[i]))
            return fail_entry(r, name, "a \"shape\" value is not a non-negative integer");
        if ((uint64_t)tensor->shape[i] > SIZE_MAX ||
            !wf_mul(tensor->count, (size_t)tensor->shape[i], &tensor->count))
            return fail_entry(r, name, "the product of \"shape\" does not fit 64 bits");
    }
    return WEFT_OK;
}

/* The span as the file gives it; whether it lies inside the file is known once all spans are sorted. */
static weft_status read_span(const reader *r, const char *name, const json_t *entry, wf_tensor *tensor)
{
    const json_t *span  = json_object_get(entry, "data_offsets");
    int64_t       begin = 0, end = 0;
    size_t        bits;
    wf_shape_text shape;

    if (!json_is_array(span) || json_array_size(span) != 2)
        return fail_entry(r, name, "has no \"data_offsets\" array of two values");
    if (!read_size(json_array_get(span, 0), &begin) || !read_size(json_array_get(span, 1), &end))
        return fail_entry(r, name, "a \"data_offsets\" value is not a non-negative integer");
    if (begin > end || (uint64_t)end > r->data_size)
        return wf_fail(r->err, WEFT_E_FORMAT,
                       "%s: tensor \"%.160s\": data_offsets [%lld, %lld] lie outside the %zu bytes of data", r->what,
                       name, (long long)begin, (long long)end, r->data_size);

    if (!wf_mul(tensor->count, (size_t)wf_dtype_bits(tensor->dtype), &bits))
        return fail_entry(r, name, "its size in bits does not fit 64 bits");
    tensor->data  = r->data + begin;
    tensor->bytes = (size_t)(end - begin);
    if (bits % 8 == 0 && bits / 8 == tensor->bytes) return WEFT_OK;
    return wf_fail(r->err, WEFT_E_FORMAT, "%s: tensor \"%.160s\": data_offsets span %zu bytes, but %s %s needs %zu",
                   r->what, name, tensor->bytes, wf_dtype_name(tensor->dtype),
                   wf_shape(&shape, tensor->shape, tensor->rank), bits / 8 + (bits % 8 != 0));
}

/* Keep a copy in the block that was measured for it. */
static const char *keep(weft_tensors *t, const char *s)
{
    size_t n    = strlen(s) + 1;
    char  *copy = t->strings + t->strings_used;

    memcpy(copy, s, n);
    t->strings_used += n;
    return copy;
}

static weft_status read_entry(const reader *r, const char *name, const json_t *entry)
{
    wf_tensor  *tensor = &r->t->tensors[r->t->count];
    weft_status st;

    if (strlen(name) > MAX_NAME)
        return wf_fail(r->err, WEFT_E_FORMAT, "%s: tensor \"%.160s...\": name of %zu bytes, expected at most %u",
                       r->what, name, strlen(name), MAX_NAME);
    if (!json_is_object(entry)) return fail_entry(r, name, "is not described by an object");
    if ((st = read_dtype(r, name, entry, tensor)) != WEFT_OK) return st;
    if ((st = read_shape(r, name, entry, tensor)) != WEFT_OK) return st;
    if ((st = read_span(r, name, entry, tensor)) != WEFT_OK) return st;
    tensor->name = keep(r->t, name);
    r->t->count++;
    return WEFT_OK;
}

/* ---- the whole header -------------------------------------------------------------------------- */

static bool is_metadata(const char *key)
{
    return strcmp(key, "__metadata__") == 0;
}

/* Bytes that the strings need and how many there are; also where metadata is not what it must be. */
static weft_status measure_strings(const reader *r, json_t *root, json_t *metadata, size_t *bytes)
{
    const char *key;
    json_t     *value;

    *bytes = 0;
    json_object_foreach(root, key, value) *bytes += strlen(key) + 1;
    if (metadata == NULL) return WEFT_OK;
    if (!json_is_object(metadata)) return wf_fail(r->err, WEFT_E_FORMAT, "%s: __metadata__ is not an object", r->what);
    json_object_foreach(metadata, key, value) {
        if (!json_is_string(value))
            return wf_fail(r->err, WEFT_E_FORMAT, "%s: __metadata__: the value of \"%.160s\" is not a string", r->what,
                           key);
        *bytes += strlen(key) + 1 + json_string_length(value) + 1;
    }
    return WEFT_OK;
}

static weft_status take_memory(const reader *r, size_t entries, size_t metas, size_t string_bytes)
{
    weft_tensors *t = r->t;

    t->tensors = wf_zalloc(&t->alloc, entries, sizeof *t->tensors);
    t->by_name = wf_zalloc(&t->alloc, entries, sizeof *t->by_name);
    t->metas   = wf_zalloc(&t->alloc, metas, sizeof *t->metas);
    t->strings = wf_zalloc(&t->alloc, string_bytes, 1);
    if (t->tensors != NULL && t->by_name != NULL && t->metas != NULL && t->strings != NULL) return WEFT_OK;
    return wf_nomem(r->err, entries * sizeof *t->tensors + string_bytes, r->what);
}

static int compare_places(const void *a, const void *b)
{
    const wf_tensor *x = a, *y = b;

    if (x->data != y->data)   return x->data < y->data ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);  /* empty tensors may share a place */
}

static int compare_names(const void *a, const void *b)
{
    const wf_tensor *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

static int compare_keys(const void *a, const void *b)
{
    const meta *x = a, *y = b;

    return strcmp(x->key, y->key);
}

/* Each tensor begins where the one before ended, the first at 0, and the last ends with the file. */
static weft_status check_tiling(const reader *r)
{
    const uint8_t *end = r->data;

    for (size_t i = 0; i < r->t->count; i++) {
        const wf_tensor *tensor = &r->t->tensors[i];

        if (tensor->data != end)
            return wf_fail(r->err, WEFT_E_FORMAT, "%s: tensor \"%.160s\" begins at byte %zu of the data, expected %zu "
                           "(%s)", r->what, tensor->name, (size_t)(tensor->data - r->data), (size_t)(end - r->data),
                           tensor->data > end ? "a hole" : "an overlap");
        end += tensor->bytes;
    }
    if ((size_t)(end - r->data) == r->data_size) return WEFT_OK;
    return wf_fail(r->err, WEFT_E_FORMAT, "%s: the tensors end at byte %zu of the data, but the file has %zu",
                   r->what, (size_t)(end - r->data), r->data_size);
}

static weft_status read_root(const reader *r, json_t *root)
{
    weft_tensors *t = r->t;
    json_t       *metadata = json_object_get(root, "__metadata__"), *value;
    size_t        entries  = json_object_size(root) - (metadata != NULL), string_bytes;
    const char   *key;
    weft_status   st;

    if (entries > MAX_ENTRIES)
        return wf_fail(r->err, WEFT_E_FORMAT, "%s: %zu tensors, expected at most %u", r->what, entries, MAX_ENTRIES);
    if ((st = measure_strings(r, root, metadata, &string_bytes)) != WEFT_OK) return st;
    if ((st = take_memory(r, entries, json_object_size(metadata), string_bytes)) != WEFT_OK) return st;

    json_object_foreach(root, key, value)
        if (!is_metadata(key) && (st = read_entry(r, key, value)) != WEFT_OK) return st;
    json_object_foreach(metadata, key, value) {
        t->metas[t->meta_count].key     = keep(t, key);
        t->metas[t->meta_count++].value = keep(t, json_string_value(value));
    }

    qsort(t->tensors, t->count, sizeof *t->tensors, compare_places);
    if ((st = check_tiling(r)) != WEFT_OK) return st;
    for (size_t i = 0; i < t->count; i++) t->by_name[i] = &t->tensors[i];
    qsort(t->by_name, t->count, sizeof *t->by_name, compare_names);
    qsort(t->metas, t->meta_count, sizeof *t->metas, compare_keys);
    return WEFT_OK;
}

static weft_status read_header(weft_tensors *t, const uint8_t *data, size_t size, const char *what, weft_error *err)
{
    uint64_t    length = 0;
    json_t     *root;
    weft_status st;

    if (size < 8)
        return wf_fail(err, WEFT_E_FORMAT, "%s: %zu bytes, expected at least the 8 of a safetensors length", what,
                       size);
    memcpy(&length, data, sizeof length);
    if (length > MAX_HEADER)
        return wf_fail(err, WEFT_E_FORMAT, "%s: header of %llu bytes, expected at most %u: not a safetensors file?",
                       what, (unsigned long long)length, MAX_HEADER);
    if (length > size - 8)
        return wf_fail(err, WEFT_E_FORMAT, "%s: header of %llu bytes, but the file has %zu after its length", what,
                       (unsigned long long)length, size - 8);
    if (length == 0 || data[8] != '{')
        return wf_fail(err, WEFT_E_FORMAT, "%s: the header does not begin with '{'", what);

    st = wf_json_parse_bounded(&root, (const char *)data + 8, (size_t)length, MAX_DEPTH, MAX_VALUES, what, err);
    if (st != WEFT_OK) return st;
    const reader r = { t, what, data + 8 + length, size - 8 - (size_t)length, err };
    st = read_root(&r, root);
    json_decref(root);
    return st;
}

/* ---- opening ----------------------------------------------------------------------------------- */

static weft_status tensors_new(const weft_allocator *alloc, weft_tensors **out, weft_error *err)
{
    weft_tensors *t = wf_zalloc(alloc, 1, sizeof *t);

    if (t == NULL) return wf_nomem(err, sizeof *t, "an opened file");
    t->alloc = *alloc;
    wf_ref_init(&t->refs);
    *out = t;
    return WEFT_OK;
}

weft_status wf_tensors_parse(const uint8_t *data, size_t size, const char *what, const weft_allocator *alloc,
                             weft_tensors **out, weft_error *err)
{
    weft_tensors *t = NULL;
    weft_status   st;

    *out = NULL;
    if ((st = tensors_new(alloc, &t, err)) != WEFT_OK) return st;
    t->size = size;
    if ((st = read_header(t, data, size, what, err)) != WEFT_OK) {
        weft_tensors_free(t);
        return st;
    }
    *out = t;
    return WEFT_OK;
}

weft_status wf_tensors_open(const char *path, bool copy, const weft_allocator *alloc, weft_tensors **out,
                            weft_error *err)
{
    wf_file     file = WF_FILE_NONE;
    weft_status st;

    *out = NULL;
    if ((st = wf_file_open(&file, path, copy, alloc, err)) != WEFT_OK) return st;
    if ((st = wf_tensors_parse(file.data, file.size, path, alloc, out, err)) != WEFT_OK)
        wf_file_close(&file, alloc);
    else
        (*out)->file = file;
    return st;
}

weft_status weft_tensors_open(const char *path, const weft_allocator *allocator, weft_tensors **out, weft_error *err)
{
    const weft_allocator alloc = wf_allocator(allocator);
    weft_status          st;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "out is NULL");
    *out = NULL;
    if ((st = wf_check_allocator(allocator, err)) != WEFT_OK) return st;
    return wf_tensors_open(path, false, &alloc, out, err);
}

void wf_tensors_ref(weft_tensors *t)
{
    wf_ref_take(&t->refs);
}

void weft_tensors_free(weft_tensors *tensors)
{
    weft_allocator alloc;

    if (tensors == NULL || !wf_ref_drop(&tensors->refs)) return;
    alloc = tensors->alloc;
    wf_free(&alloc, tensors->tensors);
    wf_free(&alloc, tensors->by_name);
    wf_free(&alloc, tensors->metas);
    wf_free(&alloc, tensors->strings);
    wf_file_close(&tensors->file, &alloc);
    wf_free(&alloc, tensors);
}

/* ---- looking ----------------------------------------------------------------------------------- */

size_t wf_tensors_count(const weft_tensors *t)
{
    return t->count;
}

const wf_tensor *wf_tensors_at(const weft_tensors *t, size_t i)
{
    return i < t->count ? &t->tensors[i] : NULL;
}

const wf_tensor *wf_tensors_find(const weft_tensors *t, const char *name)
{
    size_t low = 0, high = t->count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int    c   = strcmp(name, t->by_name[mid]->name);

        if (c == 0) return t->by_name[mid];
        if (c < 0) high = mid;
        else       low = mid + 1;
    }
    return NULL;
}

size_t wf_tensors_file_size(const weft_tensors *t)
{
    return t->size;
}

size_t wf_tensors_meta_count(const weft_tensors *t)
{
    return t->meta_count;
}

const char *wf_tensors_meta_key(const weft_tensors *t, size_t i)
{
    return i < t->meta_count ? t->metas[i].key : NULL;
}

const char *wf_tensors_meta_value(const weft_tensors *t, size_t i)
{
    return i < t->meta_count ? t->metas[i].value : NULL;
}

const char *wf_shape(wf_shape_text *buf, const int64_t *shape, int32_t rank)
{
    char  *p = buf->text, *end = buf->text + sizeof buf->text - 6;  /* room for "...)" */

    *p++ = '(';
    for (int32_t i = 0; i < rank; i++) {
        char     digits[24];
        size_t   n = 0;
        uint64_t left = shape[i] < 0 ? 0 - (uint64_t)shape[i] : (uint64_t)shape[i];

        do { digits[n++] = (char)('0' + left % 10); left /= 10; } while (left > 0);
        if (shape[i] < 0) digits[n++] = '-';
        if ((size_t)(end - p) < n + 2) { memcpy(p, "...", 3); p += 3; break; }
        if (i > 0) { *p++ = ','; *p++ = ' '; }
        while (n > 0) *p++ = digits[--n];
    }
    if (rank == 1) *p++ = ',';  /* a list of one, as Python writes it */
    *p++ = ')';
    *p   = '\0';
    return buf->text;
}

size_t weft_tensors_count(const weft_tensors *tensors)
{
    return tensors != NULL ? tensors->count : 0;
}

void weft_tensor_info_init(weft_tensor_info *info)
{
    const weft_tensor_info init = WEFT_TENSOR_INFO_INIT;

    if (info != NULL) *info = init;
}

static weft_status tensor_at(const weft_tensors *tensors, size_t index, const wf_tensor **out, weft_error *err)
{
    if (tensors == NULL) return wf_fail(err, WEFT_E_ARG, "tensors is NULL");
    *out = wf_tensors_at(tensors, index);
    if (*out != NULL) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG, "tensor %zu asked for, but the file has %zu", index, tensors->count);
}

weft_status weft_tensors_info(const weft_tensors *tensors, size_t index, weft_tensor_info *info, weft_error *err)
{
    weft_tensor_info filled = WEFT_TENSOR_INFO_INIT;
    const wf_tensor *tensor = NULL;
    weft_status      st;

    if ((st = tensor_at(tensors, index, &tensor, err)) != WEFT_OK) return st;
    filled.name  = tensor->name;
    filled.dtype = wf_dtype_name(tensor->dtype);
    filled.rank  = (size_t)tensor->rank;
    filled.count = tensor->count;
    memcpy(filled.shape, tensor->shape, sizeof filled.shape);
    return wf_result(info, &filled, sizeof filled, sizeof filled, "weft_tensor_info", err);
}

int64_t weft_tensors_find(const weft_tensors *tensors, const char *name)
{
    const wf_tensor *tensor = tensors != NULL && name != NULL ? wf_tensors_find(tensors, name) : NULL;

    return tensor != NULL ? (int64_t)(tensor - tensors->tensors) : -1;
}

weft_status weft_tensors_read(const weft_tensors *tensors, size_t index, float *out, size_t len, weft_error *err)
{
    const wf_tensor *tensor = NULL;
    weft_status      st;

    if ((st = tensor_at(tensors, index, &tensor, err)) != WEFT_OK) return st;
    if (out == NULL && len > 0) return wf_fail(err, WEFT_E_ARG, "out is NULL");
    if (len != tensor->count)
        return wf_fail(err, WEFT_E_ARG, "tensor \"%.160s\" has %zu elements, but the buffer has %zu", tensor->name,
                       tensor->count, len);
    if (wf_widen_any(out, tensor->data, tensor->dtype, len)) return WEFT_OK;
    return wf_fail(err, WEFT_E_UNSUPPORTED, "tensor \"%.160s\" is %s, which is not read as numbers", tensor->name,
                   wf_dtype_name(tensor->dtype));
}

const char *weft_tensors_metadata(const weft_tensors *tensors, const char *key)
{
    size_t low = 0, high = tensors != NULL && key != NULL ? tensors->meta_count : 0;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int    c   = strcmp(key, tensors->metas[mid].key);

        if (c == 0) return tensors->metas[mid].value;
        if (c < 0) high = mid;
        else       low = mid + 1;
    }
    return NULL;
}
