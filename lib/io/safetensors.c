/* safetensors.c - a header that says where each tensor lies, and that is checked completely.
 *
 * The file is 8 bytes of length, a JSON header, and data. Everything is checked at open, so that
 * the rest of weft can read without asking again: sorted by place, the tensors must tile the data
 * from its first byte to its last with no hole and no overlap, and each span must be exactly what
 * its shape and type need, in arithmetic that notices overflow. That leaves a hostile header
 * nothing to point at. Numbers of entries and the lengths of names are bounded, and the header is
 * measured before it is parsed, so that work and memory grow with the file, and not faster.
 *
 * The memory behind a tensor is the mapped file, unaligned if an old writer did not pad. */

#include "io/io.h"

#define MAX_HEADER  100000000u
#define MAX_ENTRIES 100000u
#define MAX_DEPTH   4
#define MAX_VALUES  2000000u  /* an entry has at most 16; metadata shares the rest */

/* What the static functions below share while a header is read. */
typedef struct reader {
    const char    *what;     /* the file, for messages             */
    const uint8_t *data;     /* behind the header                  */
    size_t         data_size;
    wf_tensor     *entries;  /* their names are those of the JSON  */
    size_t         count;
    weft_error    *err;
} reader;

/* ---- one entry ------------------------------------------------------------------------------- */

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

static weft_status read_dtype(const reader *r, const char *name, const json_t *entry,
                              wf_tensor *tensor)
{
    const json_t *dtype = json_object_get(entry, "dtype");

    if (!json_is_string(dtype)) return fail_entry(r, name, "has no \"dtype\" string");
    if (wf_dtype_from_name(json_string_value(dtype), &tensor->dtype)) return WEFT_OK;
    return wf_fail(r->err, WEFT_E_FORMAT, "%s: tensor \"%.160s\": unknown dtype \"%.40s\"", r->what,
                   name, json_string_value(dtype));
}

static weft_status read_shape(const reader *r, const char *name, const json_t *entry,
                              wf_tensor *tensor)
{
    const json_t *shape = json_object_get(entry, "shape");
    size_t        rank  = json_array_size(shape);

    if (!json_is_array(shape)) return fail_entry(r, name, "has no \"shape\" array");
    if (rank > WF_MAX_RANK)
        return wf_fail(r->err, WEFT_E_FORMAT,
                       "%s: tensor \"%.160s\": rank %zu, expected at most %d", r->what, name, rank,
                       WF_MAX_RANK);
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

/* The span as the file gives it; whether it lies inside the file is known once all spans are
 * sorted. */
static weft_status read_span(const reader *r, const char *name, const json_t *entry,
                             wf_tensor *tensor)
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
        return wf_fail(
            r->err, WEFT_E_FORMAT,
            "%s: tensor \"%.160s\": data_offsets [%lld, %lld] lie outside the %zu bytes of data: "
            "is the file cut short?",
            r->what, name, (long long)begin, (long long)end, r->data_size);

    if (!wf_mul(tensor->count, (size_t)wf_dtype_bits(tensor->dtype), &bits))
        return fail_entry(r, name, "its size in bits does not fit 64 bits");
    tensor->data  = r->data + begin;
    tensor->bytes = (size_t)(end - begin);
    if (bits % 8 == 0 && bits / 8 == tensor->bytes) return WEFT_OK;
    return wf_fail(r->err, WEFT_E_FORMAT,
                   "%s: tensor \"%.160s\": data_offsets span %zu bytes, but %s %s needs %zu",
                   r->what, name, tensor->bytes, wf_dtype_name(tensor->dtype),
                   wf_shape(&shape, tensor->shape, tensor->rank), bits / 8 + (bits % 8 != 0));
}

static weft_status read_entry(reader *r, const char *name, const json_t *entry)
{
    wf_tensor *tensor = &r->entries[r->count];

    if (!json_is_object(entry)) return fail_entry(r, name, "is not described by an object");
    WF_TRY(read_dtype(r, name, entry, tensor));
    WF_TRY(read_shape(r, name, entry, tensor));
    WF_TRY(read_span(r, name, entry, tensor));
    tensor->name = name;
    r->count++;
    return WEFT_OK;
}

/* ---- the whole header ------------------------------------------------------------------------ */

static bool is_metadata(const char *key)
{
    return strcmp(key, "__metadata__") == 0;
}

static int compare_places(const void *a, const void *b)
{
    const wf_tensor *x = a, *y = b;

    if (x->data != y->data)   return x->data < y->data ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);  /* empty tensors may share a place */
}

/* Each tensor begins where the one before ended, the first at 0, and the last ends with the
 * file. */
static weft_status check_tiling(const reader *r)
{
    const uint8_t *end = r->data;

    for (size_t i = 0; i < r->count; i++) {
        const wf_tensor *tensor = &r->entries[i];

        if (tensor->data != end)
            return wf_fail(r->err, WEFT_E_FORMAT,
                           "%s: tensor \"%.160s\" begins at byte %zu of the data, expected %zu "
                           "(%s)",
                           r->what, tensor->name, (size_t)(tensor->data - r->data),
                           (size_t)(end - r->data), tensor->data > end ? "a hole" : "an overlap");
        end += tensor->bytes;
    }
    if ((size_t)(end - r->data) == r->data_size) return WEFT_OK;
    return wf_fail(r->err, WEFT_E_FORMAT,
                   "%s: the tensors end at byte %zu of the data, but the file has %zu", r->what,
                   (size_t)(end - r->data), r->data_size);
}

static weft_status add_metadata(const reader *r, weft_tensors *t, json_t *metadata)
{
    const char *key;
    json_t     *value;

    if (metadata == NULL) return WEFT_OK;
    if (!json_is_object(metadata))
        return wf_fail(r->err, WEFT_E_FORMAT, "%s: __metadata__ is not an object", r->what);
    json_object_foreach(metadata, key, value) {
        if (!json_is_string(value))
            return wf_fail(r->err, WEFT_E_FORMAT,
                           "%s: __metadata__: the value of \"%.160s\" is not a string", r->what,
                           key);
        WF_TRY(wf_tensors_add_meta(t, key, json_string_value(value), r->err));
    }
    return WEFT_OK;
}

static weft_status read_root(reader *r, weft_tensors *t, json_t *root)
{
    json_t     *value;
    const char *key;

    WF_TRY(add_metadata(r, t, json_object_get(root, "__metadata__")));
    json_object_foreach(root, key, value)
        if (!is_metadata(key)) WF_TRY(read_entry(r, key, value));
    wf_sort(r->entries, r->count, sizeof *r->entries, compare_places);
    WF_TRY(check_tiling(r));
    for (size_t i = 0; i < r->count; i++)
        WF_TRY(wf_tensors_add_as(t, r->entries[i].name, &r->entries[i], r->err));
    return wf_tensors_seal(t, r->err);
}

static weft_status read_header(weft_tensors *t, const uint8_t *data, size_t size, const char *what,
                               const weft_allocator *alloc, weft_error *err)
{
    reader      r = { what, NULL, 0, NULL, 0, err };
    uint64_t    length = 0;
    size_t      entries;
    json_t     *root;
    weft_status st;

    if (size < 8)
        return wf_fail(err, WEFT_E_FORMAT,
                       "%s: %zu bytes, expected at least the 8 of a safetensors length", what,
                       size);
    memcpy(&length, data, sizeof length);
    if (length > MAX_HEADER)
        return wf_fail(err, WEFT_E_FORMAT,
                       "%s: header of %llu bytes, expected at most %u: not a safetensors file?",
                       what, (unsigned long long)length, MAX_HEADER);
    if (length > size - 8)
        return wf_fail(err, WEFT_E_FORMAT,
                       "%s: header of %llu bytes, but the file has %zu after its length: is it cut "
                       "short?",
                       what,
                       (unsigned long long)length, size - 8);
    if (length == 0 || data[8] != '{')
        return wf_fail(err, WEFT_E_FORMAT, "%s: the header does not begin with '{'", what);
    r.data      = data + 8 + length;
    r.data_size = size - 8 - (size_t)length;

    st = wf_json_parse_bounded(&root, (const char *)data + 8, (size_t)length, MAX_DEPTH, MAX_VALUES,
                               what, err);
    if (st != WEFT_OK) return st;
    entries = json_object_size(root);
    if (entries > MAX_ENTRIES + (json_object_get(root, "__metadata__") != NULL))
        st = wf_fail(err, WEFT_E_FORMAT, "%s: %zu tensors, expected at most %u", what, entries,
                     MAX_ENTRIES);
    else if ((r.entries = wf_zalloc(alloc, entries, sizeof *r.entries)) == NULL)
        st = wf_nomem(err, entries * sizeof *r.entries, what);
    else
        st = read_root(&r, t, root);
    wf_free(alloc, r.entries);
    json_decref(root);
    return st;
}

weft_status wf_safetensors_parse(const uint8_t *data, size_t size, const char *what,
                                 const weft_allocator *alloc, weft_tensors **out, weft_error *err)
{
    weft_tensors *t = NULL;
    weft_status   st;

    *out = NULL;
    WF_TRY(wf_tensors_new(alloc, what, &t, err));
    if ((st = read_header(t, data, size, what, alloc, err)) != WEFT_OK) {
        weft_tensors_free(t);
        return st;
    }
    *out = t;
    return WEFT_OK;
}
