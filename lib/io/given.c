/* given.c - tensors and metadata from a caller, checked before they are used. */
#include "base/structs.h"
#include "io/io.h"

#define MAX_ENTRIES 100000u
#define MAX_NAME    1024u

weft_status wf_given_count(const weft_tensor_out *tensors, size_t count,
                           const char *const *metadata, size_t pairs, weft_error *err)
{
    if (tensors == NULL && count > 0) return wf_fail(err, WEFT_E_ARG, "tensors is NULL");
    if (metadata == NULL && pairs > 0) return wf_fail(err, WEFT_E_ARG, "metadata is NULL");
    if (count <= MAX_ENTRIES) return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG, "%zu tensors, expected at most %u", count, MAX_ENTRIES);
}

/* Elements and bytes that the shape says; false if they overflow or a dimension is negative. */
static bool measure(const weft_tensor_out *t, wf_tensor *out)
{
    size_t bits;

    out->count = 1;
    for (size_t i = 0; i < t->rank; i++)
        if (t->shape[i] < 0 || (uint64_t)t->shape[i] > SIZE_MAX ||
            !wf_mul(out->count, (size_t)t->shape[i], &out->count))
            return false;
    if (!wf_mul(out->count, (size_t)wf_dtype_bits(out->dtype), &bits) || bits / 8 > INT64_MAX)
        return false;
    out->bytes = bits / 8;
    return bits % 8 == 0;
}

weft_status wf_given_name(const char *name, size_t index, weft_error *err)
{
    if (name == NULL) return wf_fail(err, WEFT_E_ARG, "tensor %zu has no name", index);
    if (strlen(name) <= MAX_NAME && wf_utf8_valid(name, strlen(name)) &&
        strcmp(name, "__metadata__") != 0)
        return WEFT_OK;
    return wf_fail(err, WEFT_E_ARG,
                   "tensor %zu: \"%.160s\" cannot be a name: UTF-8 of at most %u bytes, and not "
                   "__metadata__, is expected", index, name, MAX_NAME);
}

static weft_status read_tensor(const weft_tensor_out *t, size_t index, wf_tensor *out,
                               weft_error *err)
{
    WF_TRY(wf_given_name(t->name, index, err));
    if (t->rank > WF_LEN(t->shape))
        return wf_fail(err, WEFT_E_ARG, "tensor \"%.160s\": rank %zu, expected at most %zu",
                       t->name, t->rank, WF_LEN(t->shape));
    *out = (wf_tensor){ .name = t->name, .data = t->data, .rank = (int32_t)t->rank,
                        .dtype = WF_F32 };
    memcpy(out->shape, t->shape, sizeof t->shape);
    if (t->dtype != NULL && !wf_dtype_from_name(t->dtype, &out->dtype))
        return wf_fail(err, WEFT_E_ARG, "tensor \"%.160s\": \"%.40s\" is no type", t->name,
                       t->dtype);
    if (!measure(t, out))
        return wf_fail(err, WEFT_E_ARG,
                       "tensor \"%.160s\": its shape has a negative value or overflows", t->name);
    if (t->data == NULL && out->count > 0)
        return wf_fail(err, WEFT_E_ARG, "tensor \"%.160s\": data is NULL", t->name);
    return WEFT_OK;
}

/* The caller's array strides by the struct_size that its own header gave it. */
weft_status wf_given_tensors(const weft_tensor_out *tensors, size_t count, wf_tensor *out,
                             weft_error *err)
{
    uint32_t stride = 0;

    for (size_t i = 0; i < count; i++) {
        const uint8_t  *at = (const uint8_t *)tensors + i * stride;
        weft_tensor_out t;
        uint32_t        size;

        memcpy(&size, at, sizeof size);
        if (i == 0) stride = size;
        if (size != stride)
            return wf_fail(err, WEFT_E_ARG,
                           "weft_tensor_out %zu: struct_size is %u, but the first has %u", i, size,
                           stride);
        WF_TRY(WF_OPTIONS(&t, at, weft_tensor_out, 0, err));
        WF_TRY(read_tensor(&t, i, &out[i], err));
    }
    return WEFT_OK;
}

weft_status wf_given_pairs(const char *const *metadata, size_t pairs, weft_error *err)
{
    for (size_t i = 0; i < pairs; i++) {
        const char *key = metadata[2 * i], *value = metadata[2 * i + 1];

        if (key == NULL || value == NULL)
            return wf_fail(err, WEFT_E_ARG, "metadata pair %zu has a NULL", i);
        if (!wf_utf8_valid(key, strlen(key)) || !wf_utf8_valid(value, strlen(value)))
            return wf_fail(err, WEFT_E_ARG, "metadata \"%.160s\" is not UTF-8", key);
    }
    return WEFT_OK;
}

/* One tensor of `t`, with data of its own unless it is borrowed. */
static weft_status add_given(weft_tensors *t, const wf_tensor *given, bool borrow, weft_error *err)
{
    const void *data = given->data;

    if (!borrow && given->bytes > 0) {
        void *own = wf_tensors_own(t, given->bytes, err);
        if (own == NULL) return WEFT_E_NOMEM;
        data = memcpy(own, given->data, given->bytes);
    }
    return wf_tensors_add(t, given->name, given->dtype, given->rank, given->shape, data, err);
}

weft_status weft_tensors_create(const weft_tensor_out *tensors, size_t count,
                                const char *const *metadata, size_t pairs,
                                const weft_tensors_options *options, weft_tensors **out,
                                weft_error *err)
{
    weft_tensors_options o;
    weft_tensors        *t = NULL;
    weft_status          st;

    if (out == NULL) return wf_fail(err, WEFT_E_ARG, "out is NULL");
    *out = NULL;
    WF_TRY(WF_OPTIONS(&o, options, weft_tensors_options, WEFT_TENSORS_BORROW, err));
    WF_TRY(wf_check_allocator(o.allocator, err));
    WF_TRY(wf_given_count(tensors, count, metadata, pairs, err));
    WF_TRY(wf_given_pairs(metadata, pairs, err));

    const weft_allocator alloc = wf_allocator(o.allocator);
    wf_tensor           *given = wf_zalloc(&alloc, count, sizeof *given);
    if (given == NULL) return wf_nomem(err, count * sizeof *given, "tensors in memory");
    if ((st = wf_given_tensors(tensors, count, given, err)) != WEFT_OK) goto done;
    if ((st = wf_tensors_new(&alloc, o.name != NULL ? o.name : "tensors", &t, err)) != WEFT_OK)
        goto done;
    for (size_t i = 0; i < count && st == WEFT_OK; i++)
        st = add_given(t, &given[i], (o.flags & WEFT_TENSORS_BORROW) != 0, err);
    for (size_t i = 0; i < pairs && st == WEFT_OK; i++)
        st = wf_tensors_add_meta(t, metadata[2 * i], metadata[2 * i + 1], err);
    if (st == WEFT_OK) st = wf_tensors_seal(t, err);
    if (st != WEFT_OK) goto done;
    *out = t;
    t = NULL;
done:
    wf_free(&alloc, given);
    weft_tensors_free(t);
    return st;
}
